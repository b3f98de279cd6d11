#!/usr/bin/env python3
"""lhyvectl --profile on a Linux guest that is busy at a place that is known. Proves: user code, kernel code with names although the
kernel was moved, processors that are idle."""
import json, os, re, subprocess, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import CACHE, LHYVE, PLAIN, Guest, files, run
import initramfs

CTL = os.path.join(os.path.dirname(LHYVE), 'lhyvectl')
SPIN = '''unsigned long before(unsigned long n) { return n * 3; }
__attribute__((noinline)) void busy(void) { for (unsigned long n = 0;; n++) __asm__ volatile("" : : "r"(n)); }
void _start(void) { busy(); }
'''


def profile(where, *args):
    r = subprocess.run([CTL, '--rundir=%s/run' % where, '--vm=busy', '--json', '--profile=3', *args], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(r.stdout)


def share(answer, rows):
    """Of the samples that were not idle, those of the rows."""
    return sum(p['samples'] for p in rows) / max(1, sum(c['samples'] - c['idle'] for c in answer['cpus']))


def idle(answer, cpu):
    return answer['cpus'][cpu]['idle'] / max(1, answer['cpus'][cpu]['samples'])


def busy_program(g, where, spin):
    at = {m[1]: int(m[0], 16) for m in re.findall(r'([0-9a-f]+) T (\w+)', subprocess.run(['nm', spin], stdout=subprocess.PIPE, text=True, check=True).stdout)}
    g.check('(taskset 1 /bin/spin & echo $! > /pid); sleep 0.5')
    a = profile(where)
    inside = [p for p in a['places'] if p['cpl'] == 3 and at['busy'] <= int(p['at'], 16) < at['busy'] + 64]
    if share(a, inside) < 0.9 or a['places'][0] not in inside or len({p['space'] for p in inside}) != 1:
        g.fail('the busy loop is not on top: %s' % a['places'][:5])
    if idle(a, 0) > 0.1 or idle(a, 1) < 0.6:
        g.fail('idle: %s' % a['cpus'])
    g.check('kill $(cat /pid)')


def system_map(g, path):
    """The kernel's symbols as it was linked: it says where it is, and its first one was linked at ffffffff81000000. Not all: the
    console would be busy for long."""
    text = g.check("grep -A60 -B60 -E ' [Tt] chacha_' /proc/kallsyms; grep -E ' (_text|_etext|_end|entry_SYSCALL_64)$' /proc/kallsyms", 120)
    names = re.findall(r'^([0-9a-f]{16}) (\w) (\w+)$', text, re.M)
    moved = {n: int(a, 16) for a, _, n in names}['_text'] - 0xffffffff81000000
    with open(path, 'w') as f:
        f.writelines('%016x %s %s\n' % (int(a, 16) - moved, t, n) for a, t, n in names)
    return moved


def busy_kernel(g, where):
    moved = system_map(g, where + '/System.map')
    g.check('(taskset 2 dd if=/dev/urandom of=/dev/null bs=64k & echo $! > /pid) 2>/dev/null; sleep 0.5')
    a = profile(where, '--symbols=%s/System.map' % where, '--profile-functions')
    if int(a['moved'], 16) != moved or a['moved_by'] != 'entry_SYSCALL_64':
        g.fail('moved by %s, found %s by %s' % (hex(moved), a['moved'], a.get('moved_by')))
    if moved == 0:
        g.fail('the kernel was not moved')
    inside = [p for p in a['places'] if p.get('symbol', '').startswith('chacha_')]  # the loop and who calls it
    if a['places'][0] not in inside or share(a, inside) < 0.5:
        g.fail('the cipher of the random numbers is not on top: %s' % a['places'][:5])
    if idle(a, 0) < 0.6 or idle(a, 1) > 0.1:
        g.fail('idle: %s' % a['cpus'])
    g.check('kill $(cat /pid)')


def profile_2(where):
    files('cloud', 'busybox')
    spin = where + '/spin'
    subprocess.run(['cc', '-O1', '-static', '-nostdlib', '-no-pie', '-fno-stack-protector', '-x', 'c', '-o', spin, '-'], input=SPIN, text=True, check=True)
    initrd = initramfs.make(where + '/initrd', CACHE + '/busybox/busybox', ['stty -echo; PS1= setsid cttyhack sh'], files={'/bin/spin': spin})
    with Guest([*PLAIN, '-c', '2', '-m', '512M', '-o', 'rundir=%s/run' % where, '--kernel', CACHE + '/kernel-cloud/vmlinuz', '--initrd', initrd,
                '--append', 'console=ttyS0 quiet panic=-1'], name='busy') as g:
        g.expect('built-in commands', 120)
        busy_program(g, where, spin)
        busy_kernel(g, where)
        g.send('poweroff -f\n')
        g.ends(1, 60)


if __name__ == '__main__':
    run(profile_2)
