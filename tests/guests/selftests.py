#!/usr/bin/env python3
"""The kernel's own selftests (tools/testing/selftests of Debian's linux-source-6.1) in the Debian guest. Proves: what a kernel and its
user programs want of the CPU in corners that only tests go to: segments and vm86, debug exceptions, system calls of all kinds, signals
and ptrace, timers, memory. What fails is run under QEMU TCG too, on the same kernel and image: no test fails here that passes there.

selftests.py [CASE]... [-t COLLECTION[:TEST]]... [-v]    -t: only these; -v: all that the failing ones say
"""
import os, re, subprocess, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from debian import login
from guest import CACHE, LHYVE, PLAIN, TOP, Failed, Guest, image, overlay, run

# The libraries that they are linked with, those for 32-bit programs among them, and what their scripts are written in.
PACKAGES = 'perl,python3-minimal,libc6-i386,lib32gcc-s1,libnuma1,libcap2,libcap-ng0,libpopt0,libasan8,libubsan1,libstdc++6'
TAR = CACHE + '/suite-selftests.tar'
LIMIT = 300     # seconds for a test
ONLY, VERBOSE = [], False
SKIP = {
    'breakpoints:step_after_suspend_test': 'suspends the machine, which nobody wakes',
    'x86:amx_64': 'neither machine has AMX',
}


def command(tcg, cpus, img, disk):
    dash = '-' if tcg else '--'
    kernel = [dash + 'kernel', img + '/vmlinuz', dash + 'initrd', img + '/initrd.img', dash + 'append', 'root=/dev/vda rw console=ttyS0 quiet']
    if tcg:
        return ['qemu-system-x86_64', '-accel', 'tcg,thread=multi', '-machine', 'q35', '-cpu', 'max', '-smp', str(cpus), '-m', '2G', '-display',
                'none', '-nodefaults', '-no-reboot', '-serial', 'stdio', '-device', 'virtio-rng-pci',
                '-drive', 'file=%s,format=raw,if=virtio' % disk, '-drive', 'file=%s,format=raw,if=virtio,readonly=on' % TAR, *kernel]
    return [LHYVE, *PLAIN, '-c', str(cpus), '-m', '2G', '-s', '4,virtio-rnd', '-s', '5,virtio-blk,' + disk, '-s', '6,virtio-blk,%s,ro' % TAR,
            *kernel, 'selftests-%d' % os.getpid()]


def complaints(out):
    """The lines of a test that say what went wrong, without what differs from run to run."""
    lines = re.findall(r'^[#\s]*(?:not ok.*|.*\[FAIL\].*|.*\bFAILED?\b.*)$', out, re.M)
    return sorted({re.sub(r'0x[0-9a-f]+|\d+', 'N', s).strip('# \t') for s in lines if '# SKIP' not in s})


class Machine:
    """A guest with the tests unpacked. One that dies under a test is started anew for the next."""
    def __init__(self, where, tcg, cpus):
        self.where, self.tcg, self.cpus, self.g = where, tcg, cpus, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.g:
            self.g.__exit__()
            self.g = None

    def guest(self):
        if not self.g:
            img = CACHE + '/debian-selftests'
            self.g = Guest(command=command(self.tcg, self.cpus, img, overlay(img + '/disk.img', self.where)))
            login(self.g, 600)
            self.g.check('mkdir -p /w && cd /w && tar xf /dev/vdb && ulimit -c 0; dmesg -n 1; : > /dev/kmsg', 120)
        return self.g

    def list(self):
        names = self.guest().check('cat /w/selftests/kselftest-list.txt').split()
        return [n for n in names if n not in SKIP and (not ONLY or n in ONLY or n.split(':')[0] in ONLY)]

    def run(self, name):
        """(status, what it complains of, its output); 'dead' if the guest did not survive it."""
        folder, test = name.split(':')
        g, t = self.guest(), time.monotonic()
        try:
            g.sh('cd /w/selftests/%s; timeout -k 5 %d ./%s > /tmp/out 2>&1 < /dev/null; echo $? > /tmp/status; dmesg | grep -E "BUG:|Oops|Call Trace" >> /tmp/out; '
                 'dmesg -C' % (folder, LIMIT, test), LIMIT + 60)
            status = g.check('cat /tmp/status')
            out = g.check('tail -c 20000 /tmp/out | tr -cd "\\n\\t -~"', 60)
        except Failed as e:
            self.__exit__()
            return 'dead', [], str(e)[-3000:]
        word = {'0': 'pass', '4': 'skip', '124': 'time', '137': 'time'}.get(status, 'fail ' + status)
        if VERBOSE:
            print('      %-8s %-42s %-9s %5.1f s' % ('TCG' if self.tcg else 'lhyve', name, word, time.monotonic() - t), flush=True)
        return word, complaints(out), out


def table(rows):
    print('      %-42s %-10s %-10s' % ('test', 'lhyve', 'QEMU TCG'))
    for name, ours, theirs in rows:
        print('      %-42s %-10s %-10s' % (name, ours[0], theirs[0]))
    sys.stdout.flush()


def worse(ours, theirs):
    """It passes there, or complains of less there."""
    return theirs[0] in ('pass', 'skip') or set(ours[1]) - set(theirs[1])


def compare(where, cpus):
    subprocess.run([TOP + '/tools/guest-suites.sh', 'selftests'], check=True)
    image('-k', 'linux-image-amd64', '-p', PACKAGES, CACHE + '/debian-selftests')
    with Machine(where, False, cpus) as m:
        ours = {n: m.run(n) for n in m.list()}
    failed = {n: r for n, r in ours.items() if r[0] not in ('pass', 'skip')}
    with Machine(where, True, cpus) as m:
        theirs = {n: m.run(n) for n in failed}
    table([(n, failed[n], theirs[n]) for n in failed])
    count = [sum(r[0] == s for r in ours.values()) for s in ('pass', 'skip')]
    print('      %d vCPUs: %d tests pass, %d have nothing to test here, %d fail' % (cpus, *count, len(failed)), flush=True)
    bad = [n for n in failed if worse(failed[n], theirs[n])]
    for n in failed if VERBOSE else bad:
        print('---- %s, lhyve: %s\n%s\n---- TCG: %s\n%s' % (n, failed[n][0], failed[n][2], theirs[n][0], theirs[n][2]))
    if bad or count[0] < (1 if ONLY else 60):
        raise Failed('%d tests pass; worse than under TCG: %s' % (count[0], ' '.join(bad)))


def selftests_1(where):
    compare(where, 1)


def selftests_2(where):
    compare(where, 2)


def selftests_4(where):
    compare(where, 4)


if __name__ == '__main__':
    while '-t' in sys.argv:
        n = sys.argv.index('-t')
        ONLY.append(sys.argv.pop(n + 1))
        sys.argv.pop(n)
    VERBOSE = '-v' in sys.argv and not sys.argv.remove('-v')
    run(selftests_1, selftests_2, selftests_4)
