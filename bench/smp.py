#!/usr/bin/env python3
"""smp.py [TURNS [KIND...]] : what a second thread gains in a guest with two vCPUs, against what it gains on the host.

bench/smp.c does a fixed amount of work by one thread and by two, natively, under lhyve and under TCG, one after another, TURNS times (5). A gain
is the time of one thread over that of two in the same turn. The bar is lhyve's gain over the native one: 0.95. It means something only if both of
the host's cores are free."""
import os, re, subprocess, sys, tempfile
from common import CACHE, TOP, Guest, files, lhyve_cmd, load, need, probe, qemu_cmd, report
import initramfs

AMOUNT = {'integers': 300000000, 'memory': 200000000, 'calls': 5000000, 'pages': 400000}  # about a second of the host's
LESS = {'tcg': 4}  # it takes so much longer


def seconds(text):
    return float(re.search(r'SECONDS ([\d.]+)', text).group(1))


def run(name, where, kind, threads):
    """where: a guest at its prompt, or the program's path here."""
    command = '%d %d' % (threads, AMOUNT[kind] // LESS.get(name, 1))
    if isinstance(where, Guest):
        return seconds(where.check('smp %s %s' % (kind, command), 600))
    return seconds(subprocess.run('%s %s %s' % (where, kind, command), shell=True, stdout=subprocess.PIPE, text=True, check=True).stdout)


def main():
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    kinds = sys.argv[2:] or list(AMOUNT)
    need('qemu-system-x86', 'gcc', 'libc6-dev')
    files('cloud', 'busybox')
    probe()
    with tempfile.TemporaryDirectory() as where:
        smp = where + '/smp'
        subprocess.run(['cc', '-O2', '-static', '-pthread', '-o', smp, os.path.join(TOP, 'bench/smp.c')], check=True)
        kernel = CACHE + '/kernel-cloud/vmlinuz'
        initrd = initramfs.make(where + '/i', CACHE + '/busybox/busybox', ['stty -echo; PS1= setsid cttyhack sh'], files={'/bin/smp': smp})
        before = load()
        with Guest(command=lhyve_cmd(kernel, initrd, 'console=ttyS0 quiet', 2)) as lh, \
                Guest(command=qemu_cmd(kernel, initrd, 'console=ttyS0 quiet', 2)) as tcg:
            for g in (lh, tcg):
                g.expect('built-in commands', 300)
            who = {'lhyve': lh, 'native': smp, 'tcg': tcg}
            time = {k: {w: [] for w in who} for k in kinds}
            for _ in range(turns):
                for k in kinds:
                    for w, at in who.items():
                        time[k][w].append((run(w, at, k, 1), run(w, at, k, 2)))
    report('gain by a second thread (bar: 0.95 of native), load %s before, %s after' % (before, load()),
           {k: {w: [a / b for a, b in c] for w, c in cols.items()} for k, cols in time.items()})
    report('seconds of one thread', {k: {w: [a for a, _ in c] for w, c in cols.items()} for k, cols in time.items()})


main()
