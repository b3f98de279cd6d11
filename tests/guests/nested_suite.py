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
LIMIT = 900
MODULES = ['virtio_pci', '9pnet_virtio', '9p', 'virtio_blk', 'ext4', 'crc32c_generic', 'tun', 'kvm', 'kvm_amd']
# What of the host lies where the tests get a file system of their own stays in sight.
KEPT = [d for d in (TOP, CACHE) if d.startswith(('/tmp/', '/run/'))]
PREPARE = ('mkdir -p /root && mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /root && '
           'for d in proc sys dev; do mount -o bind /$d /root/$d; done && '
           + ''.join('mkdir -p /kept%d && mount -o bind /root%s /kept%d && ' % (n, d, n) for n, d in enumerate(KEPT))
           + 'mount -t ext4 /dev/vdb /root/tmp && mount -t tmpfs tmpfs /root/run && '
           + ''.join('mkdir -p /root%s && mount -o bind /kept%d /root%s && ' % (d, n, d) for n, d in enumerate(KEPT))
           + 'ifconfig lo 127.0.0.1 && [ -c /dev/kvm ]')
print_lock = threading.Lock()


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
    """One nested machine with its share of the tests."""
    def __init__(self, share, where, n):
        super().__init__()
        self.share, self.where, self.n = share, where, n
        self.passed = self.failed = 0

    def qemu(self):
        kernel, scratch = CACHE + '/kernel-generic', '%s/%d.disk' % (self.where, self.n)
        subprocess.run(['mke2fs', '-q', '-t', 'ext4', scratch, '2G'], check=True, stdout=subprocess.DEVNULL)  # a file system with O_DIRECT, for /tmp
        initrd = initramfs.make('%s/%d.cpio' % (self.where, self.n), CACHE + '/busybox/busybox', [PREPARE] + [command(t) for t in self.share],
                                modules=initramfs.modules_of(kernel, MODULES))
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
            say('      %s: %.0f s' % (t['name'], took))
        elif status == 0:
            self.passed += 1
            say('ok    %s (%.0f s)' % (t['name'], took))
        else:
            self.failed += 1
            say('FAIL  %s (%.0f s): status %s' % (t['name'], took, status))
        if status:
            say('\n'.join('      | ' + line for line in lines[-60:] if 'RUN  ' not in line and '  OK ' not in line))

    def run(self):
        p = subprocess.Popen(self.qemu(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        timer = threading.Timer(LIMIT, p.kill)
        timer.start()
        at, lines, begun = -1, [], time.monotonic()
        for raw in p.stdout:
            line = raw.decode('latin-1').rstrip('\r\n')
            m = re.match(r'(BEGIN|END) (\d+) ?(\d*)$', line)
            if not m:
                lines.append(line)
            elif m.group(1) == 'BEGIN':
                at, lines, begun = int(m.group(2)), [], time.monotonic()
            elif int(m.group(2)) == 0 and m.group(3) != '0':
                say('the nested machine has no KVM or no file system:\n' + '\n'.join(lines[-20:]))
                p.kill()
            elif int(m.group(2)) > 0:
                self.verdict(self.share[at - 1], int(m.group(3)), lines, time.monotonic() - begun)
                self.share[at - 1]['told'] = True
        timer.cancel()
        p.wait()
        for t in self.share:
            if not t.get('told'):
                say('FAIL  %s: the nested machine ended before it did' % t['name'])
                self.failed += 1
        if any(not t.get('told') for t in self.share):
            say('\n'.join('      | ' + line for line in lines[-40:]))


def main():
    build, parts = os.path.abspath(sys.argv[1]), sys.argv[2:]
    every = [t for t in tests(build) if not parts or any(p in t['name'] for p in parts)]
    files('generic', 'cloud', 'busybox')
    image()
    shares = [[], []]
    for t in sorted(every, key=lambda t: -t['timeout']):  # limits are in proportion to what tests need
        min(shares, key=lambda s: sum(x['timeout'] for x in s)).append(t)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='lhyve-nested.') as where:
        machines = [Machine(s, where, n) for n, s in enumerate(shares) if s]
        for m in machines:
            m.start()
        for m in machines:
            m.join()
    print('nested: %.0f s' % (time.monotonic() - start))
    failed = sum(m.failed for m in machines)
    print('%d passed, %d failed' % (sum(m.passed for m in machines), failed))
    sys.exit(1 if failed or not every else 0)


if __name__ == '__main__':
    main()
