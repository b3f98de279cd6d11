#!/usr/bin/env python3
"""nested_suite.py BUILD [PART]... : the tests of suite kvm inside a Linux guest that has a working /dev/kvm, on a host that has none:
QEMU's TCG emulates a CPU with AMD's SVM, Debian's kernel in it loads kvm_amd, and the tests run in a chroot into the host's own file
system, which the guest mounts read-only. Two such guests share the tests. A PART chooses tests by a part of their names. A line for
each test (and for each case of a test program), then "N passed, N failed"; a test that does not come to its end has failed.

What QEMU 7.2 cannot be: it does not intercept XSETBV, so KVM never hears of a guest's XCR0: its CPU has no AVX, guests see no XSAVE;
with two CPUs, which are two threads, a guest is found with registers of its host, so there is one; and where its threads run at the
same time interrupts are lost (one_cpu)."""
import json, os, re, subprocess, sys, tempfile, threading, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import CACHE, TOP, files, image
import initramfs

CPU = 'max,-la57,-avx,-avx2,-fma,-f16c,-vaes,-vpclmulqdq,-pku'
BOOT_LIMIT, SPARE = 300, 60  # seconds until a machine serves; beyond a test's own limit, until its machine counts as dead
SECONDS = '%.0f s, %.0f of the processor'
MODULES = ['virtio_pci', '9pnet_virtio', '9p', 'virtio_blk', 'ext4', 'crc32c_generic', 'tun', 'kvm', 'kvm_amd']
# What of the host lies where the tests get a file system of their own stays in sight.
KEPT = [d for d in (TOP, CACHE) if d.startswith(('/tmp/', '/run/'))]
PREPARE = ('mkdir -p /root && mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /root && '
           'for d in proc sys dev; do mount -o bind /$d /root/$d; done && '
           + ''.join('mkdir -p /kept%d && mount -o bind /root%s /kept%d && ' % (n, d, n) for n, d in enumerate(KEPT))
           + 'mount -t ext4 /dev/vdb /root/tmp && mount -t tmpfs tmpfs /root/run && '
           + ''.join('mkdir -p /root%s && mount -o bind /kept%d /root%s && ' % (d, n, d) for n, d in enumerate(KEPT))
           + 'ifconfig lo 127.0.0.1 && [ -c /dev/kvm ]')
# Numbers of tests come on the console, one at a time. Its echo is off, so what it prints are the tests' words and ours.
SERVE = 'stty -echo; while read n && [ "$n" != end ]; do echo "BEGIN t$n"; sh /t/$n < /dev/null; echo "END t$n $?"; done'
print_lock, list_lock = threading.Lock(), threading.Lock()


def one_cpu(n):
    """Words before a command of QEMU: all its threads on one CPU, the n-th of those that we have. Its VMRUN and #VMEXIT write the
    CPU's word of pending interrupts with no lock ("or" and "and" on memory), so an interrupt that the thread of the timers raises
    meanwhile on another CPU can be lost, and with a timer's the machine stands still. On one CPU an instruction is not divided."""
    cpus = sorted(os.sched_getaffinity(0))
    return ['taskset', '-c', str(cpus[n % len(cpus)])]


def say(text):
    with print_lock:
        print(text, flush=True)


def tests(build):
    out = subprocess.run(['meson', 'introspect', '--tests', build], stdout=subprocess.PIPE, check=True, text=True).stdout
    return [t for t in json.loads(out) if any(s.split(':')[-1] == 'kvm' for s in t['suite'])]


def cpu_seconds(pid):
    """What the threads of a process have had of the processor: unlike wall time it says the same on a busy host."""
    with open('/proc/%d/stat' % pid) as f:
        w = f.read().rsplit(')', 1)[1].split()
    return (int(w[11]) + int(w[12])) / os.sysconf('SC_CLK_TCK')


def quoted(words):
    return ' '.join("'%s'" % w.replace("'", "'\\''") for w in words)


def command(t):
    env = {'HOME': os.environ.get('HOME', '/root'), 'PATH': os.environ['PATH'], 'LHYVE_TEST_SLOW': '3', 'LHYVE_TEST_INSIDE': '/dev/vda',
           'LHYVE_TEST_ENGINE': 'kvm', 'LHYVE_TEST_OPTIONS': 'cpu.features=-xsave engine.soft=interp', 'PYTHONDONTWRITEBYTECODE': '1', **t['env']}
    if os.environ.get('LHYVE_CACHE'):
        env['LHYVE_CACHE'] = CACHE
    return 'cd /tmp; chroot /root env -i %s timeout -k 5 %d %s 2>&1' % (
        quoted('%s=%s' % e for e in sorted(env.items())), t['timeout'], quoted(t['cmd']))


class Machine(threading.Thread):
    """A nested machine that takes tests from a list until it is empty."""
    def __init__(self, every, left, where, n):
        super().__init__()
        self.every, self.left, self.where, self.n = every, left, where, n
        self.passed = self.failed = 0
        self.busy, self.now, self.timer = [0, 0], None, None

    def qemu(self):
        kernel, scratch = CACHE + '/kernel-generic', '%s/%d.disk' % (self.where, self.n)
        subprocess.run(['mke2fs', '-q', '-t', 'ext4', scratch, '2G'], check=True, stdout=subprocess.DEVNULL)  # a file system with O_DIRECT, for /tmp
        scripts = {}
        for i, t in enumerate(self.every):
            scripts['/t/%d' % i] = path = '%s/%d.%d' % (self.where, self.n, i)
            with open(path, 'w') as f:
                f.write(command(t) + '\n')
        initrd = initramfs.make('%s/%d.cpio' % (self.where, self.n), CACHE + '/busybox/busybox', [PREPARE, SERVE],
                                modules=initramfs.modules_of(kernel, MODULES), files=scripts)
        return [*one_cpu(self.n), 'qemu-system-x86_64', '-accel', 'tcg', '-machine', 'q35', '-cpu', CPU, '-smp', '1', '-m', '3072',
                '-display', 'none', '-nodefaults', '-no-user-config', '-no-reboot', '-serial', 'stdio',
                '-fsdev', 'local,id=host,path=/,security_model=none,readonly=on,multidevs=remap', '-device', 'virtio-9p-pci,fsdev=host,mount_tag=host',
                '-drive', 'file=%s/debian/disk.img,format=raw,if=virtio,snapshot=on' % CACHE,
                '-drive', 'file=%s,format=raw,if=virtio,cache=unsafe' % scratch,
                '-kernel', kernel + '/vmlinuz', '-initrd', initrd, '-append', 'console=ttyS0 quiet panic=-1 mitigations=off']

    def verdict(self, t, status, lines, took):
        cases = [m.groups() for m in (re.match(r'\[ +(OK|FAILED) +\] (\w+)$', line) for line in lines) if m]
        cases = [(s, n) for i, (s, n) in enumerate(cases) if n not in [c for _, c in cases[:i]]]
        for s, n in cases:
            say('%s %s: %s' % ('ok   ' if s == 'OK' else 'FAIL ', t['name'], n))
        good = len([s for s, _ in cases if s == 'OK'])
        bad = len(cases) - good
        self.passed, self.failed = self.passed + good, self.failed + bad
        if cases and bool(bad) == bool(status):
            say('      %s (%s)' % (t['name'], took))
        elif status == 0:
            self.passed += 1
            say('ok    %s (%s)' % (t['name'], took))
        else:
            self.failed += 1
            say('FAIL  %s (%s): status %s' % (t['name'], took, status))
        if status:
            say('\n'.join('      | ' + line for line in lines[-60:] if 'RUN  ' not in line and '  OK ' not in line))

    def watch(self, p, seconds):
        if self.timer:
            self.timer.cancel()
        self.timer = threading.Timer(seconds, p.kill)
        self.timer.start()

    def take(self, p):
        """The next test, or the end."""
        with list_lock:
            self.now = self.left.pop(0) if self.left else None
        self.watch(p, self.now['timeout'] + SPARE if self.now else SPARE)
        p.stdin.write('%s\n' % (self.every.index(self.now) if self.now else 'end'))
        p.stdin.flush()

    def console(self, p):
        lines, begun, used = [], 0, 0
        for raw in p.stdout:
            line = raw.rstrip('\r\n')
            m = re.match(r'(BEGIN|END) (t?)(\d+) ?(\d*)$', line)
            if not m:
                lines.append(line)
            elif m.group(1) == 'BEGIN':
                lines, begun, used = [], time.monotonic(), cpu_seconds(p.pid)
                if not m.group(2) and m.group(3) == '1':  # SERVE
                    self.take(p)
            elif m.group(2):
                took = time.monotonic() - begun, cpu_seconds(p.pid) - used
                self.busy = [a + b for a, b in zip(self.busy, took)]
                self.verdict(self.now, int(m.group(4)), lines, SECONDS % took)
                self.take(p)
            elif m.group(3) == '0' and m.group(4) != '0':
                say('the nested machine has no KVM or no file system:\n' + '\n'.join(lines[-20:]))
                p.kill()
        return lines

    def run(self):
        p = subprocess.Popen(self.qemu(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             encoding='latin-1')
        self.watch(p, BOOT_LIMIT)
        try:
            lines = self.console(p)
        except BrokenPipeError:
            lines = []
        p.wait()
        self.timer.cancel()
        if self.now:
            say('FAIL  %s: the nested machine ended before it did' % self.now['name'])
            say('\n'.join('      | ' + line for line in lines[-40:]))
            self.failed += 1


def main():
    build, parts = os.path.abspath(sys.argv[1]), sys.argv[2:]
    every = [t for t in tests(build) if not parts or any(p in t['name'] for p in parts)]
    files('generic', 'cloud', 'busybox')
    image()
    every.sort(key=lambda t: -t['timeout'])  # limits are roughly in proportion to what tests need
    left = list(every)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='lhyve-nested.') as where:
        machines = [Machine(every, left, where, n) for n in range(min(2, len(os.sched_getaffinity(0)), len(every)))]
        for m in machines:
            m.start()
        for m in machines:
            m.join()
    for t in left:
        say('FAIL  %s: no nested machine was left for it' % t['name'])
    print('nested: %.0f s; tests: %s' % (time.monotonic() - start, ' and '.join(SECONDS % tuple(m.busy) for m in machines)))
    failed = sum(m.failed for m in machines) + len(left)
    print('%d passed, %d failed' % (sum(m.passed for m in machines), failed))
    sys.exit(1 if failed or not every else 0)


if __name__ == '__main__':
    main()
