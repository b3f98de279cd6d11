#!/usr/bin/env python3
"""translate.py [TURNS] : what translation costs: a Debian guest to its login and 200 processes, 1 vCPU, under lhyve's translator and under TCG.

Figures: nanoseconds for each guest instruction (by the vCPU's TSC around the translator: what else runs on the core meanwhile counts too, so the
machine has to be idle), bytes of host code for each guest instruction (out-of-line parts included), and for each byte of guest code beside
QEMU's, by its monitor's `info jit`, which counts what its cache holds at the end. Blocks that were dropped or made again count again."""
import os, re, socket, subprocess, sys, tempfile
from common import LHYVE, Guest, image, lhyve_cmd, load, need, overlay, probe, qemu_cmd, report
from debian import login

CTL = os.path.join(os.path.dirname(LHYVE), 'lhyvectl')
APPEND = 'root=/dev/vda rw console=ttyS0 quiet'
WORK = 'for i in $(seq 200); do /bin/true; done; perl -e 1; find /usr/share > /dev/null'


def work(g):
    login(g, 900)
    g.check(WORK, 600)


def counters(name):
    out = subprocess.run([CTL, '--vm=' + name, 'stats'], stdout=subprocess.PIPE, text=True, check=True).stdout
    return {k.strip(): int(v) for k, v in re.findall(r'^(\S.*?)\s+(\d+)$', out, re.M)}


def under_lhyve(img, disk, rows):
    name = 'translate-%d' % os.getpid()
    with Guest(command=lhyve_cmd(img + '/vmlinuz', img + '/initrd.img', APPEND, 1, 1024,
                                 devices=['-s', '2,virtio-blk,' + disk, '-s', '4,virtio-rnd'], name='translate')) as g:
        work(g)
        c = counters(name)
    n = c['guest instructions translated']
    for what, val in (('ns a guest instruction (bar 200)', c['nanoseconds of translation'] / n),
                      ('host bytes a guest instruction (bar 60)', c['bytes of host code made'] / n),
                      ('guest instructions, thousands', n / 1000), ('seconds of translation', c['nanoseconds of translation'] / 1e9),
                      ('host bytes a guest byte', c['bytes of host code made'] / c['bytes of guest code translated'])):
        rows.setdefault(what, {}).setdefault('lhyve', []).append(val)


def monitor(path, command):
    """What QEMU's monitor answers."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(path)
        text = ''
        while text.count('(qemu)') < 2:
            text += s.recv(65536).decode('latin-1')
            if text.count('(qemu)') == 1 and command:
                s.sendall(command.encode() + b'\n')
                command = None
        return text


def under_tcg(img, disk, where, rows):
    with Guest(command=qemu_cmd(img + '/vmlinuz', img + '/initrd.img', APPEND, 1, 1024, devices=[
            '-drive', 'file=%s,format=raw,if=none,id=a' % disk, '-device', 'virtio-blk-pci,drive=a', '-device', 'virtio-rng-pci',
            '-monitor', 'unix:%s/monitor,server=on,wait=off' % where])) as g:
        work(g)
        text = monitor(where + '/monitor', 'info jit')
    m = re.search(r'expansion ratio: ([\d.]+)', text)
    if not m:
        sys.exit('no expansion ratio from QEMU: ' + text[-500:])
    rows['host bytes a guest byte'].setdefault('tcg', []).append(float(m.group(1)))


def main():
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    need('qemu-system-x86')
    probe()
    img, rows, before = image(), {}, load()
    for _ in range(turns):
        for who in ('lhyve', 'tcg'):
            with tempfile.TemporaryDirectory(dir=os.path.dirname(img)) as where:
                disk = overlay(img + '/disk.img', where)
                if who == 'lhyve':
                    under_lhyve(img, disk, rows)
                else:
                    under_tcg(img, disk, where, rows)
    report('translation, load %s before, %s after' % (before, load()), rows)


main()
