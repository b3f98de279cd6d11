#!/usr/bin/env python3
"""apps.py [TURNS [PROGRAM...]] : gcc, 7-Zip, xz, sqlite, Python and OpenSSL in a Debian guest under lhyve and under QEMU's TCG, and on the host.

Both guests (1 vCPU, 1 GiB) are booted at the beginning and wait at their prompts; then each program runs natively, under lhyve, under TCG, one
after another, TURNS times (3). A figure is seconds by this host's clock from the command to its end. What programs print must be the same in both
guests. Reported: each program, and the geometric mean."""
import hashlib, math, os, random, shutil, subprocess, sys, tarfile, tempfile
from common import CACHE, Guest, files, image, lhyve_cmd, load, need, overlay, probe, qemu_cmd, report, time
from debian import login

PACKAGES = 'gcc,libc6-dev,p7zip-full,xz-utils,sqlite3,python3,openssl'
APPEND = 'root=/dev/vda rw console=ttyS0 quiet'
PROGRAMS = {
    'gcc': 'cd z && for f in deflate inflate trees crc32 gzread; do gcc -O2 -c $f.c -o ../$f.o || exit; done; cd .. && cat *.o | md5sum',
    '7-Zip': 'rm -f o.7z && 7z a -mx=5 -mmt=1 -bd o.7z data > /dev/null && 7z x -so -mmt=1 o.7z | md5sum',
    'xz': 'xz -5 -T1 -c data > o.xz && xz -dc o.xz | md5sum',
    'sqlite': 'sqlite3 :memory: < work.sql | md5sum',
    'python': 'python3 -I work.py',
    'openssl': 'openssl kdf -keylen 32 -kdfopt digest:SHA512 -kdfopt pass:x -kdfopt salt:y -kdfopt iter:300000 PBKDF2; '
               'for i in 1 2 3 4 5 6 7 8; do cat data; done | openssl enc -chacha20 -K 00 -iv 00 2>/dev/null | md5sum; '
               'for i in 1 2 3 4 5 6 7 8; do openssl dgst -sha256 -sign rsa.pem data | md5sum; done',
}
SQL = '''CREATE TABLE t(id INTEGER PRIMARY KEY, k INT, s TEXT);
WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 150000)
  INSERT INTO t SELECT n, n * 7919 % 10007, printf('row %d of %x', n, n * 2654435761 % 4294967296) FROM c;
CREATE INDEX i ON t(k); CREATE INDEX j ON t(s);
SELECT k % 97, count(*), sum(id), max(s) FROM t GROUP BY 1 ORDER BY 3;
SELECT count(*) FROM t a JOIN t b ON b.k = a.k WHERE a.id < 3000;
UPDATE t SET s = upper(s) WHERE k % 3 = 0; DELETE FROM t WHERE s LIKE '%F7%';
SELECT count(*), sum(length(s)) FROM t;
'''
PYTHON = '''import hashlib, json, re
class Node:
    def __init__(self, key): self.key, self.left, self.right = key, None, None
    def add(self, key):
        n = self
        while True:
            side = 'left' if key < n.key else 'right'
            if getattr(n, side) is None:
                setattr(n, side, Node(key)); return
            n = getattr(n, side)
    def walk(self):
        if self.left: yield from self.left.walk()
        yield self.key
        if self.right: yield from self.right.walk()
x, tree = 1, Node(1 << 30)
for i in range(30000):
    x = (x * 1103515245 + 12345) & 0x7fffffff
    tree.add(x)
words = [hex(k) for k in tree.walk()]
table = {}
for n, w in enumerate(words * 4):
    table.setdefault(w[-2:], []).append(n * 0.5)
text = json.dumps({k: sum(v) for k, v in sorted(table.items())})
found = len(re.findall(r'"([0-9a-f])\\\\1": (\\\\d+)', text * 20))
primes = [True] * 300000
for i in range(2, 548):
    if primes[i]: primes[i * i::i] = [False] * len(primes[i * i::i])
print(found, sum(primes), hashlib.md5((text + ''.join(sorted(words, key=lambda w: w[::-1]))).encode()).hexdigest())
'''


def prepare(where):
    """What the programs work on, in WHERE/work, and the same as an archive on a disk."""
    files('source-zlib')
    work = where + '/work'
    os.makedirs(work + '/z')
    subprocess.run('tar xf %s/source-zlib/zlib.tar -C z --strip-components=1; cp -n z/zconf.h.in z/zconf.h || true; '
                   'openssl genrsa -out rsa.pem 2048 2>/dev/null' % CACHE, shell=True, cwd=work, check=True)
    r = random.Random(6)
    words = [bytes(r.choices(b'etaoinshrdlu', k=r.randrange(2, 11))) for _ in range(3000)]
    with open(work + '/data', 'wb') as f:  # text, tables, noise
        f.write(b' '.join(r.choices(words, k=250000)))
        f.write(b''.join((i * i >> 3 & 0xffffffff).to_bytes(4, 'little') for i in range(250000)))
        f.write(r.randbytes(500000))
    for name, text in (('work.sql', SQL), ('work.py', PYTHON.replace('\\\\', '\\'))):
        with open(work + '/' + name, 'w') as f:
            f.write(text)
    with tarfile.open(where + '/files.tar', 'w') as t:
        t.add(work, 'work')


def guests(where, out):
    """Fills {name: a guest at its prompt in work/}."""
    img = os.path.join(CACHE, 'debian-apps')
    image('-p', PACKAGES, img)
    for who in ('lhyve', 'tcg'):
        os.mkdir(where + '/' + who)
        disk, data = (overlay(f, where + '/' + who) for f in (img + '/disk.img', where + '/files.tar'))  # each its own: both lock it
        if who == 'lhyve':
            cmd = lhyve_cmd(img + '/vmlinuz', img + '/initrd.img', APPEND, 1, 1024, devices=[
                '-s', '2,virtio-blk,' + disk, '-s', '4,virtio-rnd', '-s', '5,virtio-blk,%s,ro' % data])
        else:
            cmd = qemu_cmd(img + '/vmlinuz', img + '/initrd.img', APPEND, 1, 1024, devices=[
                '-drive', 'file=%s,format=raw,if=none,id=a' % disk, '-device', 'virtio-blk-pci,drive=a', '-device', 'virtio-rng-pci',
                '-drive', 'file=%s,format=raw,if=none,id=b,readonly=on' % data, '-device', 'virtio-blk-pci,drive=b'])
        g = out[who] = Guest(command=cmd)
        login(g, 900)
        g.check('tar xf /dev/vdb && cd work && systemctl is-system-running --wait; sync', 600)


def native(where, command):
    t = time.monotonic()
    r = subprocess.run(command, shell=True, cwd=where + '/work', stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if r.returncode:
        sys.exit('natively: %r ended with %d: %s' % (command, r.returncode, r.stdout[-500:]))
    return time.monotonic() - t


def turn(where, running, name, cols, said):
    command = '( %s )' % PROGRAMS[name]
    cols['native'].append(native(where, command))
    for who, g in running.items():
        t = time.monotonic()
        out = g.check(command, 1800)
        cols[who].append(time.monotonic() - t)
        digest = hashlib.md5(out.encode()).hexdigest()
        if said.setdefault(name, digest) != digest:
            sys.exit('%s: under %s it printed %r, before it was something else' % (name, who, out[-500:]))


def main():
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    names = sys.argv[2:] or list(PROGRAMS)
    need('qemu-system-x86', *PACKAGES.split(','))
    probe()
    rows, said = {n: {'tcg': [], 'lhyve': [], 'native': []} for n in names}, {}
    with tempfile.TemporaryDirectory(dir=CACHE, prefix='apps.') as where:
        prepare(where)
        before, running = load(), {}
        try:
            guests(where, running)
            for _ in range(turns):
                for name in names:
                    turn(where, running, name, rows[name], said)
        finally:
            for g in running.values():
                g.__exit__()
    mean = {c: [math.exp(sum(math.log(rows[n][c][i]) for n in names) / len(names)) for i in range(turns)] for c in ('tcg', 'lhyve', 'native')}
    report('programs in the Debian guest, s (bars: geometric mean 4x TCG, none below 2x), load %s before, %s after' % (before, load()),
           {**rows, 'geometric mean': mean})
    report('the same against native', {n: {'lhyve': c['lhyve'], 'native': c['native']} for n, c in {**rows, 'geometric mean': mean}.items()})


main()
