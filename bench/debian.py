#!/usr/bin/env python3
"""debian.py [boot|kept|idle|memory|disk|net]... : a Debian guest under lhyve's software engine and under QEMU's TCG.

boot: seconds to the login prompt, 2 vCPUs.  kept (alone): the same in three turns, beside them lhyve with translations kept by two boots
before (engine.soft.cache_dir), and the processor's time of each.  idle: CPU share of the process over 30 s, 20 s after login, 1 vCPU.
memory: resident beyond guest RAM after 500 short processes.  disk: fio on virtio-blk, 4 KiB random reads at depth 1 and 32 and
sequential reads, host page cache warm.  net: iperf3 through slirp both ways, the server on the host; then both ways at once, by two
processes: the client's --bidir sends ten blocks for each that it reads, so it measures 10 to 1 wherever sending never blocks."""
import json, os, subprocess, sys, tempfile
from common import Guest, cpu_seconds, image, lhyve_cmd, need, overlay, probe, qemu_cmd, report, resident_beyond_ram, time
from debian import login

APPEND = 'root=/dev/vda rw console=ttyS0 quiet'


def commands(img, disk, data, cpus, more=()):
    slirp = ['-netdev', 'user,id=n', '-device', 'virtio-net-pci,netdev=n']
    yield 'lhyve', lhyve_cmd(img + '/vmlinuz', img + '/initrd.img', APPEND, cpus, 1024, more=more, devices=[
        '-s', '2,virtio-blk,' + disk, '-s', '3,virtio-net,slirp,open', '-s', '4,virtio-rnd', '-s', '5,virtio-blk,' + data])
    yield 'tcg', qemu_cmd(img + '/vmlinuz', img + '/initrd.img', APPEND, cpus, 1024, devices=[
        '-drive', 'file=%s,format=raw,if=none,id=a' % disk, '-device', 'virtio-blk-pci,drive=a', *slirp, '-device', 'virtio-rng-pci',
        '-drive', 'file=%s,format=raw,if=none,id=b' % data, '-device', 'virtio-blk-pci,drive=b'])


def fio(g, rw, depth, bs):
    out = g.check('fio --name=t --filename=/dev/vdb --direct=1 --ioengine=libaio --rw=%s --iodepth=%d --bs=%s --runtime=8 '
                  '--time_based --output-format=json' % (rw, depth, bs), 120)
    return json.loads(out[out.index('{'):])['jobs'][0]['read']


def measure(what, who, cmd, rows):
    t = time.monotonic()
    with Guest(command=cmd) as g:
        g.expect('login: ', 600)
        if 'boot' in what:
            rows.setdefault('boot to login, s', {}).setdefault(who, []).append(time.monotonic() - t)
        g.send('\n')
        login(g)
        if 'idle' in what:
            time.sleep(20)
            c = cpu_seconds(g.p.pid)
            time.sleep(30)
            rows.setdefault('idle, % of a core', {}).setdefault(who, []).append((cpu_seconds(g.p.pid) - c) / 0.30)
        if 'memory' in what:
            g.check('for i in $(seq 500); do /bin/true; done', 120)
            rows.setdefault('beyond RAM after 500 processes, MiB', {}).setdefault(who, []).append(
                resident_beyond_ram(g.p.pid, 1024)[0] / 1024)
        if 'disk' in what:
            for name, rw, depth, bs in (('4k random read, depth 1, IOPS', 'randread', 1, '4k'),
                                        ('4k random read, depth 32, IOPS', 'randread', 32, '4k')):
                rows.setdefault(name, {}).setdefault(who, []).append(fio(g, rw, depth, bs)['iops'])
            rows.setdefault('sequential read, MB/s', {}).setdefault(who, []).append(fio(g, 'read', 8, '1M')['bw_bytes'] / 1e6)
        if 'net' in what:
            for name, flag in (('guest to host, Mbit/s', ''), ('host to guest, Mbit/s', '-R')):
                srv = subprocess.Popen(['iperf3', '-s', '-1', '-p', '5299'], stdout=subprocess.DEVNULL)
                time.sleep(0.3)
                out = g.check('iperf3 -c 10.0.2.2 -p 5299 -J -t 8 %s' % flag, 60)
                srv.wait(10)
                rows.setdefault(name, {}).setdefault(who, []).append(
                    json.loads(out[out.index('{'):])['end']['sum_received']['bits_per_second'] / 1e6)
            srv = [subprocess.Popen(['iperf3', '-s', '-1', '-p', p], stdout=subprocess.DEVNULL) for p in ('5299', '5300')]
            time.sleep(0.3)
            g.check('iperf3 -c 10.0.2.2 -p 5299 -J -t 8 > /tmp/a & iperf3 -c 10.0.2.2 -p 5300 -J -t 8 -R > /tmp/b; wait', 60)
            for name, path in (('both: guest to host, Mbit/s', '/tmp/a'), ('both: host to guest, Mbit/s', '/tmp/b')):
                rows.setdefault(name, {}).setdefault(who, []).append(
                    json.loads(g.check('cat ' + path))['end']['sum_received']['bits_per_second'] / 1e6)
            for p in srv:
                p.wait(10)


def kept(img, disk, data, where, rows):
    """Three turns; before them, two boots to their end, which fill the directory."""
    cold, tcg = dict(commands(img, disk, data, 2)).values()
    warm = dict(commands(img, disk, data, 2, more=['-o', 'engine.soft.cache_dir=%s/kept' % where]))['lhyve']
    for turn in range(-2, 3):
        for who, cmd in (('kept', warm),) if turn < 0 else (('kept', warm), ('tcg', tcg), ('lhyve', cold)):
            t = time.monotonic()
            with Guest(command=cmd) as g:
                g.expect('login: ', 600)
                if turn >= 0:
                    rows.setdefault('boot to login, s', {}).setdefault(who, []).append(time.monotonic() - t)
                    rows.setdefault('processor, s', {}).setdefault(who, []).append(cpu_seconds(g.p.pid))
                g.send('\n')
                login(g)
                g.send('poweroff\n')
                g.wait(120)


def main():
    what = sys.argv[1:] or ['boot', 'idle', 'memory', 'disk', 'net']
    need('qemu-system-x86', 'iperf3')
    probe()
    img = os.path.join(os.path.dirname(image()), 'debian-bench')
    image('-p', 'fio,iperf3', img)
    rows = {}
    with tempfile.TemporaryDirectory(dir=os.path.dirname(img)) as where:
        disk, data = overlay(img + '/disk.img', where), where + '/data'
        with open(data, 'wb') as f:
            for _ in range(256):
                f.write(os.urandom(1 << 20))
        if what == ['kept']:
            kept(img, disk, data, where, rows)
        else:
            for who, cmd in commands(img, disk, data, 2 if what == ['boot'] else 1):
                measure(what, who, cmd, rows)
    report('Debian 12, cloud kernel', rows)


main()
