#!/usr/bin/env python3
"""kvm.py [TURNS] : the KVM engine against QEMU's (-accel kvm -machine microvm), both in one nested host (bench/nested.py), in turns.

Figures: process start to the kernel's first line and to userspace; process start to the first guest instruction; memory resident
beyond the guest's; exits to user space of an idle guest, for each disk request at depth 1 and 32, and for each network packet.
Times are of a processor that QEMU emulates: only their ratio says something. Counts are exact."""
import os, re, subprocess, sys, tempfile
from common import CACHE, LHYVE, TOP, files, need, report
import initramfs
import nested

CTL = os.path.join(os.path.dirname(LHYVE), 'lhyvectl')
DATA = '/usr/share/qemu/'
GUEST = '''echo IDLE; sleep 13
echo DEPTH1; sleep 2; dd if=/dev/vda of=/dev/null bs=4k count=1000 iflag=direct 2>/dev/null; sleep 2
echo DEPTH32; sleep 2; n=0; while [ $n -lt 32 ]; do dd if=/dev/vda of=/dev/null bs=4k count=100 skip=$((n*100)) iflag=direct 2>/dev/null & n=$((n+1)); done; wait; sleep 2
echo NET; sleep 2; wget -q -O /dev/null http://10.0.2.2:8080/disk; echo STATUS $?; sleep 2
echo FINISH; sleep 30'''
DEVICES = '-s 3,virtio-blk,/disk -s 4,virtio-net,slirp,open'
LH = 'lhyve -v -o engine=kvm -m 512M -s 0,hostbridge -s 31,lpc -l com1,stdio --kernel /vmlinuz --append "console=ttyS0 earlyprintk=ttyS0"'
QE = ('qemu-system-x86_64 -L /usr/share/qemu -accel kvm -machine microvm -cpu host -m 512 -nodefaults -no-user-config -display none -no-reboot -serial stdio '
      '-kernel /vmlinuz -append "console=ttyS0 earlyprintk=ttyS0 reboot=t"')


def contents(where):
    tree = CACHE + '/kernel-cloud'
    stamp = where + '/stamp'
    subprocess.run(['cc', '-O2', '-static', '-o', stamp, os.path.join(TOP, 'bench/stamp.c')], check=True)
    open(where + '/disk', 'wb').write(os.urandom(16 << 20))
    busybox = CACHE + '/busybox/busybox'
    c = initramfs.with_libraries(LHYVE, CTL, '/usr/bin/qemu-system-x86_64')
    c.update({'/bin/stamp': stamp, '/vmlinuz': tree + '/vmlinuz', '/disk': where + '/disk',
              '/small': initramfs.make(where + '/small', busybox),
              '/work': initramfs.make(where + '/work', busybox, ['ifconfig eth0 10.0.2.15'] + GUEST.split('\n'),
                                      modules=initramfs.modules_of(tree, ['virtio_pci', 'virtio_blk', 'virtio_net']))})
    for f in ('bios-microvm.bin', 'linuxboot_dma.bin', 'pvh.bin'):
        c[DATA + f] = os.path.realpath(DATA + f)
    return c


def stamps(g, markers, command):
    out = g.check('stamp -t 200 %s -- %s' % (' '.join("'%s'" % m for m in markers), command), 250)
    return [float(x) for x in re.findall(r'STAMP ([\d.]+)', out)]


def figures(g):
    """(exits to user space, requests of the disk, packets) of the VM `work`."""
    out = g.check('lhyvectl --vm=work stats', 60)

    def one(pattern):
        return sum(int(n) for n in re.findall(pattern + r'\s+(\d+)', out))
    return one('exits to user space'), one('read requests'), one('frames (?:sent|received)')


def exits(g):
    """Exits between the guest's marks, each taken a second after its mark was printed."""
    g.check('(httpd -f -p 8080 -h / > /httpd 2>&1 < /dev/null &) ; sleep 1')
    g.check('(%s --initrd /work %s work > /log 2>&1 < /dev/null &)' % (LH, DEVICES))
    seen = {}
    for mark in ('IDLE', 'DEPTH1', 'DEPTH32', 'NET', 'FINISH'):
        g.check('n=0; while ! grep -q ^%s /log; do sleep 0.2; n=$((n+1)); [ $n -lt 1500 ] || break; done; grep -q ^%s /log' % (mark, mark), 400)
        g.check('sleep 1')
        seen[mark] = figures(g)
        if mark == 'IDLE':
            memory = g.check("awk '/^Size/{s=$2} /^Rss/{if (s < 262144) r+=$2} END{print r}' /proc/$(pidof lhyve)/smaps")
            g.check('sleep 10')
            seen['IDLE 10'] = figures(g)
    g.check("grep -q 'STATUS 0' /log || { tail -n 20 /log; false; }")
    g.check('lhyvectl --vm=work --destroy; sleep 1')
    return seen, int(memory)


def between(seen, a, b):
    return [y - x for x, y in zip(seen[a], seen[b])]


def main():
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    need('qemu-system-x86', 'gcc', 'libc6-dev')
    files('cloud', 'busybox')
    with tempfile.TemporaryDirectory() as where, nested.host(where, contents(where), mem=3072) as g:
        first, line, user = [], {'lhyve': [], 'qemu': []}, {'lhyve': [], 'qemu': []}
        for i in range(turns):
            both = [('lhyve', LH + ' --initrd /small t%d' % i), ('qemu', QE + ' -initrd /small')]
            for who, command in both if i % 2 == 0 else reversed(both):
                s = stamps(g, ['Linux version', 'READY'], command)
                line[who].append(s[0])
                user[who].append(s[1])
            first += stamps(g, ['first instruction'], LH + ' --initrd /small f%d' % i)
        if turns:
            report('engine=kvm and QEMU -accel kvm, nested: from process start, ms', {
                "the kernel's first line": line, 'userspace (bar: ratio 1)': user, 'first guest instruction (bar 10 on hardware)': {'lhyve': first}})
        seen, memory = exits(g)
    idle = between(seen, 'IDLE', 'IDLE 10')
    rows = {'idle, a second (bar 30)': idle[0] / 10}
    for name, a, b, unit, bar in (('disk, depth 1, a request', 'DEPTH1', 'DEPTH32', 1, '0'), ('disk, depth 32, a request', 'DEPTH32', 'NET', 1, '0'),
                                  ('network, a packet', 'NET', 'FINISH', 2, '0')):
        d = between(seen, a, b)
        rows['%s, of %d (bar %s)' % (name, d[unit], bar)] = d[0] / max(1, d[unit])
    report('exits to user space, engine=kvm', {k: {'lhyve': [v]} for k, v in rows.items()})
    report('memory, engine=kvm', {'resident beyond guest RAM, MiB (bar 5)': {'lhyve': [memory / 1024]}})


main()
