#!/usr/bin/env python3
"""Programs in the Debian guest: real work whose results must equal the host's. Proves: the CPU as compilers and libraries use it,
disks under load, the network at speed. Scripts of both/ run here and there; their outputs must be the same."""
import atexit, functools, hashlib, json, os, re, shutil, subprocess, sys, tarfile, tempfile, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from debian import BAD, free_port, login
from guest import CACHE, PLAIN, TOP, Failed, Guest, files, image, overlay, run

PACKAGES = 'gcc,libc6-dev,make,python3,perl,openssl,sqlite3,iperf3,fio,libpython3.11-testsuite,bzip2'
BOTH = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'both')
HOME = None     # the folder of this run: the guest's disks, and what the host works on
GUEST = None


def host(command):
    r = subprocess.run(command, shell=True, cwd=HOME + '/work', stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if r.returncode:
        raise Failed('on the host, %r ended with %d: %s' % (command, r.returncode, r.stdout[-1000:]))
    return r.stdout


def prepare():
    """Files for both sides in HOME/work, and the same as an archive on a disk."""
    global HOME
    files('source-zlib', 'source-bzip2')
    subprocess.run(['bash', '-c', '. %s/tools/lib.sh; need openssl sqlite3 perl iperf3 bzip2' % TOP], check=True)
    os.makedirs(CACHE, exist_ok=True)
    HOME = tempfile.mkdtemp(prefix='programs.', dir=CACHE)
    atexit.register(shutil.rmtree, HOME, ignore_errors=True)
    work = HOME + '/work'
    shutil.copytree(BOTH, work)
    for n in ('zlib', 'bzip2'):
        shutil.copy('%s/source-%s/%s.tar' % (CACHE, n, n), work)
    with open(work + '/data', 'wb') as f:  # half of it can be compressed
        f.write(os.urandom(256 << 10) + bytes(i * i >> 7 & 255 for i in range(256 << 10)))
    host('head -c 64 data > small; gzip -n -k data')
    host('openssl genrsa -out rsa.pem 2048 2>/dev/null; openssl rsa -in rsa.pem -pubout -out rsa.pub 2>/dev/null;'
         'openssl dgst -sha256 -sign rsa.pem -out rsa.sig data')
    for k, c in (('ec256', 'P-256'), ('ec384', 'P-384'), ('ec521', 'P-521')):
        host('for w in {k} {k}.peer; do openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{c} -out $w.pem;'
             'openssl pkey -in $w.pem -pubout -out $w.pub; done; openssl dgst -sha256 -sign {k}.pem -out {k}.sig data'.format(k=k, c=c))
    host('openssl genpkey -algorithm ED25519 -out ed25519.pem; for w in x25519 x25519.peer; do openssl genpkey -algorithm X25519 '
         '-out $w.pem; openssl pkey -in $w.pem -pubout -out $w.pub; done')
    with tarfile.open(HOME + '/files.tar', 'w') as t:
        t.add(work, 'work')


def machine():
    """The guest, logged in, booted at the first need and again after a failure."""
    global GUEST
    if GUEST and GUEST.p.poll() is None:
        return GUEST
    if not HOME:
        prepare()
    img = os.path.join(CACHE, 'debian-programs')
    image('-p', PACKAGES, img)
    disk = overlay(img + '/disk.img', HOME)
    with open(HOME + '/scratch', 'wb') as f:
        f.truncate(256 << 20)
    t = time.monotonic()
    GUEST = Guest([*PLAIN, '-c', '2', '-m', '1G', '-s', '2,virtio-blk,' + disk, '-s', '3,virtio-net,slirp,open', '-s', '4,virtio-rnd',
                   '-s', '5,virtio-blk,%s/files.tar,ro' % HOME, '-s', '6,virtio-blk,%s/scratch,queues=2' % HOME, '--kernel',
                   img + '/vmlinuz', '--initrd', img + '/initrd.img', '--append', 'root=/dev/vda rw console=ttyS0 quiet'])
    login(GUEST)
    GUEST.check('tar xf /dev/vdb && cd work')
    print('      logged in after %.1f s' % (time.monotonic() - t), flush=True)
    return GUEST


def power_off():
    """At the end of the run: whatever ran in it, the guest ends well."""
    if GUEST and GUEST.p.poll() is None:
        bad = re.search(BAD, GUEST.log)
        if bad:
            raise Failed('the kernel complained: ' + bad.group(0))
        GUEST.send('poweroff\n')
        GUEST.ends(1, 120)


def in_guest(case):
    @functools.wraps(case)
    def wrapped(where):
        try:
            case(machine())
        except BaseException:
            if GUEST:
                GUEST.__exit__()
            raise
    return wrapped


def same(what, got, want):
    """Two outputs, line by line."""
    g, w = got.strip().split('\n'), want.strip().split('\n')
    for a, b in zip(g, w):
        if a.rstrip() != b.rstrip():
            raise Failed('%s: the guest says %r, the host %r' % (what, a, b))
    if len(g) != len(w):
        raise Failed('%s: %d lines in the guest, %d on the host; the guest ends in %r' % (what, len(g), len(w), g[-1]))


def both(g, command, limit=300):
    g_out = g.check(command, limit)
    same(command, g_out, host(command))


@in_guest
def gcc_zlib(g):
    """Configure, compile, and upstream's tests."""
    g.check('mkdir -p z && tar xf zlib.tar -C z --strip-components=1 && cd z && ./configure', 300)
    g.check('make -j2 >/dev/null', 900)
    out = g.check('make test', 300)
    if out.count('test OK') < 2 or 'FAILED' in out:
        g.fail('the tests of zlib: ' + out[-500:])
    same('data unpacked by the new zlib', g.check('./minigzip -d < ../data.gz | md5sum'), host('md5sum < data'))
    same('data there and back', g.check('./minigzip < ../data | ./minigzip -d | md5sum; cd ..'), host('md5sum < data'))


@in_guest
def gcc_bzip2(g):
    g.check('mkdir -p b && tar xf bzip2.tar -C b --strip-components=1 && cd b && make -j2 bzip2 >/dev/null', 900)
    g.check('make check', 300)
    same('compressed data', g.check('./bzip2 -9 < ../data | md5sum; cd ..'), host('bzip2 -9 < data | md5sum'))


@in_guest
def gcc_flags(g):
    """One program at several levels of optimization and instruction sets gives one answer."""
    src = ('#include <stdio.h>\n#include <math.h>\n#include <stdint.h>\nint main(void){uint64_t h=14695981039346656037ull;float f[256];'
           'double s=0;for(int r=0;r<200;r++){for(int i=0;i<256;i++)f[i]=(float)((i*2654435761u+r)>>8)/3.0f;for(int i=0;i<256;i++)'
           '{s+=sqrt(f[i]);h=(h^(uint64_t)(f[i]*4))*1099511628211ull;h^=h>>29;h=h/((i|1)+r)+h%(r+7)+__builtin_popcountll(h)+'
           '__builtin_ctzll(h|1);}}printf("%.9f %llx\\\\n",s,(unsigned long long)h);return 0;}\n')
    g.check("printf '%%b' '%s' > p.c" % src.replace('%', '%%').replace('\n', '\\n').replace('%%', '%'))
    want = None
    for flags in ('-O0', '-O2', '-O3 -ffp-contract=off -march=native', '-O2 -msse4.2 -mpopcnt', '-O2 -mbmi -mbmi2 -mlzcnt', '-O2 -mfpmath=387'):
        out = g.check('gcc %s -o p p.c -lm && ./p' % flags, 120).strip()
        if want and out.split()[1] != want.split()[1]:
            g.fail('%s: %r, not %r' % (flags, out, want))
        want = want or out


@in_guest
def python_same(g):
    want = subprocess.run([sys.executable, BOTH + '/python.py'], stdout=subprocess.PIPE, text=True, check=True).stdout
    same('python.py', g.check('python3 python.py', 600), want)


@in_guest
def python_tests(g):
    """CPython's own tests of what leans on the CPU and the kernel."""
    out = g.check('python3 -m test -j2 --timeout 900 test_long test_int test_float test_math test_cmath test_struct test_hashlib test_zlib '
                  'test_json test_fractions test_threading test_mmap test_fork1 test_signal 2>&1 | tail -n 40; '
                  'test ${PIPESTATUS[0]} = 0', 3000)
    if 'Tests result: SUCCESS' not in out:
        g.fail('the tests of Python: ' + out[-1500:])


@in_guest
def perl(g):
    both(g, 'perl perl.pl')


@in_guest
def openssl(g):
    """As the CPU is, and with parts of it hidden: each choice takes other code."""
    want = host('sh crypto.sh')
    for cap in ('', '~0x200000200000000', '~0x1000000000000000:~0x20', ':~0x20000000', '0:0'):
        same('crypto.sh with OPENSSL_ia32cap=' + cap, g.check(('OPENSSL_ia32cap=%s ' % cap if cap else '') + 'sh crypto.sh', 300), want)
    g.check('openssl dgst -sha384 -sign ec384.pem -out g.sig data')
    with open(HOME + '/work/g.sig', 'wb') as f:
        f.write(subprocess.run(['base64', '-d'], input=g.check('base64 g.sig').encode(), stdout=subprocess.PIPE, check=True).stdout)
    host('openssl dgst -sha384 -verify ec384.pub -signature g.sig data')


@in_guest
def sqlite(g):
    both(g, 'rm -f q.db; sqlite3 q.db < query.sql')


@in_guest
def iperf3(g):
    for way, flags in (('guest to host', ''), ('host to guest', '-R'), ('both at once', '--bidir'), ('four streams', '-P 4')):
        port = free_port()
        srv = subprocess.Popen(['iperf3', '-s', '-1', '-p', str(port)], stdout=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            out = g.check('iperf3 -c 10.0.2.2 -p %d -J -t 4 %s' % (port, flags), 90)
            end = json.loads(out[out.index('{'):])['end']
            rates = [end[k]['bits_per_second'] / 1e6 for k in ('sum_received', 'sum_received_bidir_reverse') if k in end]
            print('      iperf3, %s: %s Mbit/s' % (way, ' and '.join('%.0f' % r for r in rates)), flush=True)
            if min(rates) < 1:
                g.fail('iperf3 %s moved nothing' % way)
            srv.wait(20)
        finally:
            srv.kill()
            srv.wait()


@in_guest
def transfer(g):
    """Bytes, not rates: what arrives by TCP is what was sent."""
    port = free_port()
    srv = subprocess.Popen([sys.executable, '-m', 'http.server', '--bind', '127.0.0.1', str(port)], cwd=HOME,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        same('a download', g.check('python3 -c "import urllib.request as u,hashlib;print(hashlib.md5(u.urlopen('
                                   '\'http://10.0.2.2:%d/files.tar\').read()).hexdigest())"' % port, 120),
             hashlib.md5(open(HOME + '/files.tar', 'rb').read()).hexdigest())
    finally:
        srv.kill()
        srv.wait()


@in_guest
def fio_verify(g):
    for name, flags in (('randwrite', '--rw=randwrite --bsrange=512-64k --ioengine=libaio --iodepth=16'),
                        ('write', '--rw=write --bs=128k --ioengine=libaio --iodepth=4'),
                        ('io_uring', '--rw=randwrite --bs=4k --ioengine=io_uring --iodepth=32'),
                        ('buffered', '--rw=randwrite --bs=8k --ioengine=psync --direct=0 --fsync=64')):
        g.check('fio --name=%s --filename=/dev/vdc --size=32M --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 %s >/tmp/fio.log '
                '|| { cat /tmp/fio.log; false; }' % (name, flags), 400)
    g.check('mkdir -p /mnt/s && mke2fs -q -t ext4 /dev/vdc && mount -o discard /dev/vdc /mnt/s && fio --name=fs --directory=/mnt/s --size=24M '
            '--nrfiles=8 --rw=randrw --bs=4k --verify=crc32c --numjobs=2 --fsync=128 >/tmp/fio.log || { cat /tmp/fio.log; false; }', 400)
    g.check('rm -f /mnt/s/fs* && fstrim /mnt/s && umount /mnt/s && e2fsck -fn /dev/vdc', 120)


if __name__ == '__main__':
    try:
        run(gcc_zlib, gcc_bzip2, gcc_flags, python_same, perl, openssl, sqlite, iperf3, transfer, fio_verify, python_tests)
    except SystemExit as e:
        power_off()
        raise e
