#!/usr/bin/env python3
"""Stress and upstream test programs in the Debian guest. Proves: the CPU, the MMU, the clocks and the events under all that user programs do
with them, by programs that check themselves, on 1, 2 and 4 vCPUs.

verify.py [long] [tcg] [CASE]...   long: everything these programs have, 10 s each; tcg: the same guest under QEMU TCG, to compare a failure
"""
import atexit, os, re, shutil, subprocess, sys, tarfile, tempfile, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from debian import BAD, login
from guest import CACHE, LHYVE, PLAIN, TOP, Failed, Guest, image, overlay, run

LONG, TCG = [x in sys.argv and not sys.argv.remove(x) for x in ('long', 'tcg')]
SUITES = [n for n in ('sqlite', 'openssl', 'zlib') if not sys.argv[1:] or any(a.startswith((n, 'avx512') if n == 'openssl' else n)
                                                                       for a in sys.argv[1:])]
PACKAGES = 'stress-ng,rt-tests,nodejs,luajit,python3,libpython3.11-testsuite,openssl,sqlite3,perl,tcl'
BOTH = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'both')
HOME = None
GUEST = {}      # by number of vCPUs and features; one at a time

STRESS = {
    'cpu': 'cpu crypt hash bsearch qsort mergesort heapsort radixsort shellsort hsearch tsearch lsearch judy matrix matrix-3d fp funccall '
           'funcret goto nop prime longjmp branch regs str wcs zlib getrandom rdrand skiplist sparsematrix tree tsc vdso zero list jpeg '
           'ipsec-mb bad-altstack x86cpuid x86syscall bitonicsort trig factor monte-carlo',
    'vector': 'vecfp vecmath vecshuf vecwide memcpy stream',
    'memory': 'bigheap brk cache cacheline icache l1cache madvise malloc mcontend memfd memrate memthrash mincore misaligned mlock mmap '
              'mmapaddr mmapfixed mmapfork mmaphuge mmapmany mprotect mremap msync munmap physpage pageswap prefetch randlist remap resources '
              'rmap secretmem shm shm-sysv stack stackmmap tlb-shootdown userfaultfd vm vm-addr vm-rw vm-segv vm-splice fault mapd',
    'atomic': 'atomic lockbus cacheline dekker peterson futex mutex sem sem-sysv membarrier rseq spinmem flock lockmix',
    'signal': 'kill sigabrt sigbus sigchld sigfd sigfpe sigio signal signest sigpending sigpipe sigq sigrt sigsegv sigsuspend sigtrap '
              'sigxcpu sigxfsz opcode illegal fault ptrace priv-instr',
    'timer': 'alarm clock cyclic epoll eventfd hrtimers itimer nanosleep poll rtc select sleep timer timerfd timermix time-warp',
    'scheduler': 'affinity clone context daemon enosys exec exit-group fork getcpu loadavg msg mq pidfd pipe pthread resched schedmix '
                 'schedpolicy session switch tee vfork vforkmany wait yield zombie',
}


# What stress-ng itself counts among these is run with the group too, unless another one has it.
CLASSES = {'cpu': 'cpu cpu-cache', 'memory': 'memory vm', 'signal': 'interrupt', 'scheduler': 'scheduler'}
OPTIONS = {'stream': '--stream-l3-size 4m'}     # four times what CPUID says, which the host may have more of than the guest memory
SKIP = {
    'cpu-online': 'takes CPUs away, and fails where another stressor is bound to one',
    'softlockup': 'keeps all CPUs busy at real-time priority until the kernel complains',
    'watchdog': 'the machine has none',
    'uprobe': 'its processes want the one trace file',
}


def prepare():
    global HOME
    if SUITES:
        subprocess.run([TOP + '/tools/guest-suites.sh', *SUITES], check=True)
    HOME = tempfile.mkdtemp(prefix='verify.', dir=CACHE)
    atexit.register(shutil.rmtree, HOME, ignore_errors=True)
    with tarfile.open(HOME + '/files.tar', 'w') as t:
        t.add(BOTH, 'work')


def command(cpus, img, disk, features):
    disks = [disk, HOME + '/files.tar', *(CACHE + '/suite-%s.tar' % n for n in SUITES)]
    dash = '-' if TCG else '--'
    kernel = [dash + 'kernel', img + '/vmlinuz', dash + 'initrd', img + '/initrd.img', dash + 'append']
    words = 'root=/dev/vda rw console=ttyS0 quiet'
    if TCG:
        args = ['qemu-system-x86_64', '-accel', 'tcg,thread=multi', '-machine', 'q35', '-cpu', 'max', '-smp', str(cpus), '-m', '1G', '-display',
                'none', '-nodefaults', '-no-reboot', '-serial', 'stdio', '-device', 'virtio-rng-pci']
        for i, d in enumerate(disks):
            args += ['-drive', 'file=%s,format=raw,if=virtio%s' % (d, ',readonly=on' if i else '')]
        return args + kernel + [words]
    args = ['-c', str(cpus), '-m', '1G', '-s', '4,virtio-rnd', *(['-o', 'cpu.features=' + features] if features else [])]
    for i, d in enumerate(disks):
        args += ['-s', '%d,virtio-blk,%s%s' % (i + 5, d, ',ro' if i else '')]
    return [LHYVE, *PLAIN, *args, *kernel, words, 'verify-%d' % os.getpid()]


def machine(cpus, features=''):
    """The guest with so many vCPUs, logged in; the one before is switched off."""
    g = GUEST.get((cpus, features))
    if g and g.p.poll() is None:
        return g
    power_off()
    if not HOME:
        prepare()
    img = os.path.join(CACHE, 'debian-verify')
    image('-p', PACKAGES, img)
    t = time.monotonic()
    g = Guest(command=command(cpus, img, overlay(img + '/disk.img', HOME), features))
    try:
        login(g, 400)
        g.check('mkdir -p /w && cd /w && tar xf /dev/vdb && dmesg -n 4')
    except BaseException:
        g.__exit__()
        raise
    GUEST[cpus, features] = g
    print('      %s, %d vCPUs, host %s: logged in after %.1f s' % ('QEMU TCG' if TCG else 'lhyve engine=soft', cpus, os.uname().release,
                                                              time.monotonic() - t), flush=True)
    return g


def power_off():
    for g in GUEST.values():
        if g.p.poll() is None:
            g.send('poweroff\n')
            try:
                g.ends(0 if TCG else 1, 180)
            finally:
                g.__exit__()
            bad = re.search(BAD, g.log)
            if bad:
                raise Failed('the kernel complained: ' + bad.group(0))
    GUEST.clear()


def guarded(g, text, limit):
    """As check; a guest that fails is of no further use."""
    try:
        return g.check(text, limit)
    except BaseException:
        g.__exit__()
        raise


def suite(g, name):
    """Unpacked at its first use."""
    guarded(g, 'cd /w; [ -d %s ] || tar xf /dev/vd%s; cd %s' % (name, 'cde'[SUITES.index(name)], name), 600)
    if name == 'openssl':   # two of its files name the folder that it was built in
        guarded(g, "sed -i \"s#/[^']*/\\.suite\\.[^/']*/openssl#$PWD#g\" configdata.pm util/wrap.pl", 60)


def stress(cpus, group):
    """Every stressor of a group that this version has, one after the other, two processes (long: as many as vCPUs + 1) each."""
    g = machine(cpus)
    have = set(guarded(g, 'stress-ng --stressors', 60).split())
    known = set(' '.join(STRESS.values()).split())
    of_class = ' '.join(guarded(g, 'stress-ng --class %s? || true' % c, 60).split(':')[-1] for c in CLASSES.get(group, '').split()).split()
    names = [n for n in dict.fromkeys(STRESS[group].split() + [n for n in of_class if n not in known]) if n in have and n not in SKIP]
    bad, took = [], time.monotonic()
    for n in names:
        try:
            status, out = g.sh('timeout -k 5 %d stress-ng --%s %d %s --verify --timeout %d --oomable 2>&1 | tail -n 30; (exit ${PIPESTATUS[0]})' % (
                300, n, cpus + 1 if LONG else 2, OPTIONS.get(n, ''), 10 if LONG else 1), 400)
        except BaseException:
            g.__exit__()
            raise
        if status not in (0, 4) and '--pathological' not in out:        # 4: this guest cannot run it; or only for who asks for trouble
            bad.append('%s (%d): %s' % (n, status, out[-600:]))
    print('      stress-ng %s on %d vCPUs: %d of %d stressors in %.0f s' % (group, cpus, len(names) - len(bad), len(names),
                                                                        time.monotonic() - took), flush=True)
    if bad or len(names) < 5:
        raise Failed('stress-ng: %d failed\n%s' % (len(bad), '\n'.join(bad)))


def cyclictest(cpus):
    """Timers on all vCPUs by absolute time: every period comes, none early, none lost for long."""
    g = machine(cpus)
    loops = 5000 if LONG else 300
    out = guarded(g, 'cyclictest -q -m -p 80 -t %d -i 10000 -d 0 -l %d' % (cpus, loops), 300)
    rows = re.findall(r'T: *\d+ .*C: *(\d+) Min: *(-?\d+) Act: *-?\d+ Avg: *(-?\d+) Max: *(-?\d+)', out)
    print('      cyclictest: ' + '; '.join('min %s avg %s max %s us' % r[1:] for r in rows), flush=True)
    if len(rows) != cpus or any(int(r[0]) < loops or int(r[1]) < 0 or int(r[2]) > 20000 for r in rows):
        raise Failed('cyclictest: ' + out)


def jit(cpus):
    """Node's and LuaJIT's own code generators against their interpreters."""
    g = machine(cpus)
    rounds = 600 if LONG else 60
    want = guarded(g, 'cd /w/work; node --jitless jit.js 1 %d 2>/dev/null' % rounds, 900)
    for flags in ('', '--always-sparkplug', '--interrupt-budget=500', '--stress-flush-code' if LONG else '--no-opt'):
        got = guarded(g, 'node %s jit.js 4 %d 2>&1' % (flags, rounds), 1800)
        if got != want:
            raise Failed('node %s: %r, without a JIT %r' % (flags, got, want))
    want = guarded(g, 'luajit -joff jit.lua %d' % rounds, 300)
    got = guarded(g, 'for i in 1 2 3 4; do luajit -O3 jit.lua %d & done; wait; luajit -Ohotloop=2 jit.lua %d' % (rounds, rounds), 600)
    words = re.findall(r'^[0-9a-f]{8}$', got, re.M)
    if words != [want.strip()] * 5:
        raise Failed('luajit: %r, without its JIT %r' % (got, want))


def python(cpus):
    g = machine(cpus)
    tests = ('test_ctypes test_decimal test_random test_statistics test_thread test_time test_strtod test_audioop test_bz2 test_lzma '
             'test_set test_dict test_array test_memoryview test_bytes test_queue test_select test_faulthandler test_posix')
    if LONG:
        tests = '-x test_gdb test_ensurepip test_venv test_idle test_tools'
    out = guarded(g, 'cd /w; python3 -m test -j%d -i "test_find_library_with_*" -i test_process_time --timeout 1200 %s 2>&1 | tail -n 60; test ${PIPESTATUS[0]} = 0' % (cpus + 1, tests),
                  36000 if LONG else 2400)
    if 'Tests result: SUCCESS' not in out:
        raise Failed('the tests of Python: ' + out[-1500:])


def sqlite(cpus):
    g = machine(cpus)
    suite(g, 'sqlite')
    if LONG:
        files = 'test/veryquick.test'
    else:
        files = ' '.join('test/%s.test' % t for t in (
            'select1 select4 expr func where join index trans btree01 cast collate1 date printf rowid sort trigger1 types vacuum wal '
            'thread001 mutex1 fts3aa json101 window1 intpkey').split())
    out = guarded(g, 'for t in %s; do ./testfixture $t > /tmp/out 2>&1 || { echo "$t failed"; tail -n 20 /tmp/out; }; '
                  'grep "errors out of" /tmp/out; done' % files, 36000 if LONG else 2400)
    counts = [int(n) for n in re.findall(r'^0 errors out of (\d+) tests', out, re.M)]
    print('      sqlite: %d files, %d tests' % (len(counts), sum(counts)), flush=True)
    if 'failed' in out or re.search(r'^[1-9]\d* errors', out, re.M) or not counts:
        raise Failed('the tests of sqlite: ' + out[-1500:])


def zlib(cpus):
    """Upstream's tests in all their builds, and data packed at each level that both it and gzip, whose code is another, unpack; as many
    at once as vCPUs, and one more."""
    g = machine(cpus)
    suite(g, 'zlib')
    guarded(g, 'export LD_LIBRARY_PATH=$PWD; for n in $(seq %d); do head -c 800000 /usr/bin/perl; cat /usr/share/common-licenses/GPL-*; head -c 300000 /dev/zero; '
               'head -c 300000 /dev/urandom; done > /tmp/data' % (4 if LONG else 1), 120)
    out = guarded(g, 'one() { d=/tmp/z$1; mkdir -p $d; for p in example examplesh example64; do ./$p $d/foo > $d/out || { cat $d/out; return 1; }; done; '
                     './infcover > $d/out 2>&1 || { tail -n 5 $d/out; return 1; }; for o in %s; do for p in minigzip minigzipsh minigzip64; do '
                     './$p $o < /tmp/data > $d/gz && ./$p -d < $d/gz | cmp - /tmp/data && gzip -d < $d/gz | cmp - /tmp/data || return 1; done; done; '
                     'gzip -9 < /tmp/data | ./minigzip -d | cmp - /tmp/data && echo good; }; '
                     'for n in $(seq %d); do one $n & done; wait' % (' '.join('-%d' % n for n in range(1, 10)) + ' -f -h -r' if LONG else '-1 -6 -9 -f -h -r', cpus + 1),
                  36000 if LONG else 1200)
    if out.split().count('good') != cpus + 1:
        raise Failed('the tests of zlib: ' + out[-1500:])


def avx512(cpus):
    """By choice: the vector stressors, and OpenSSL's own tests, whose code asks CPUID: ciphers, hashes, RSA by IFMA."""
    flags = set(re.search(r'^flags.*', open('/proc/cpuinfo').read(), re.M).group(0).split())
    names = [n for n in 'avx512f avx512bw avx512dq avx512vl avx512cd avx512ifma avx512vbmi avx512_vbmi2 avx512_vnni avx512_bitalg '
             'avx512_vpopcntdq avx512_bf16 avx512_fp16'.split() if n in flags]
    if 'avx512vl' not in names:
        print('      this host has no AVX-512', flush=True)
        return
    g = machine(cpus, ','.join('+' + n for n in names))
    got = set(guarded(g, 'grep -m 1 -o "^flags.*" /proc/cpuinfo', 60).split())
    if set(names) - got:
        raise Failed('the kernel does not see ' + ' '.join(sorted(set(names) - got)))
    for n in 'vecfp vecmath vecshuf vecwide memcpy'.split():
        guarded(g, 'stress-ng --%s %d --verify --timeout 2' % (n, cpus + 1), 200)
    openssl_tests(g, 'test_internal_poly1305 test_internal_chacha test_sha test_bn test_exp test_rsa test_aesgcm test_evp')


def openssl(cpus):
    g = machine(cpus)
    tests = 'alltests' if LONG else ('test_sanity test_rdrand_sanity test_internal_poly1305 test_internal_chacha test_internal_curve448 '
                                     'test_sha test_hmac test_bn test_exp test_threads test_ec test_rsa test_aesgcm test_sparse_array')
    openssl_tests(g, tests)


def openssl_tests(g, tests):
    suite(g, 'openssl')
    out = guarded(g, 'LD_LIBRARY_PATH=$PWD SRCTOP=$PWD BLDTOP=$PWD PERL=perl EXE_EXT= perl test/run_tests.pl %s 2>&1 | tail -n 60; '
                  'test ${PIPESTATUS[0]} = 0' % tests, 36000 if LONG else 2400)
    if 'Result: PASS' not in out:
        raise Failed('the tests of OpenSSL: ' + out[-1500:])
    print('      openssl: ' + re.findall(r'Files=.*', out)[-1].strip(), flush=True)


CASES = []
for what in [*(lambda c, n=n: stress(c, n) for n in STRESS), cyclictest, jit, python, sqlite, openssl, zlib, avx512]:
    group = list(STRESS)[len(CASES) // 3] if len(CASES) < 3 * len(STRESS) else what.__name__
    for n in (1, 2, 4):
        def case(where, what=what, n=n):
            what(n)
        case.__name__ = '%s_%d' % (group, n)
        CASES.append(case)


if __name__ == '__main__':
    try:
        run(*sorted(CASES, key=lambda c: c.__name__[-1]))
    except SystemExit as e:
        power_off()
        raise e
