"""What the benchmarks share: the two VMMs side by side, in turns, and figures as ratios within each turn."""
import json, os, statistics, subprocess, sys, time
TOP = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
sys.path.insert(0, os.path.join(TOP, 'tests/guests'))
from guest import CACHE, LHYVE, PLAIN, Guest, files, image, overlay  # noqa: F401

QEMU = ['qemu-system-x86_64', '-accel', 'tcg', '-machine', 'q35', '-cpu', 'max', '-display', 'none', '-nodefaults',
        '-no-user-config', '-serial', 'stdio']


def lhyve_cmd(kernel, initrd, append, cpus=1, mem=512, devices=(), more=(), name='bench'):
    return [LHYVE, *PLAIN, '-c', str(cpus), '-m', '%dM' % mem, *devices, *more, '--kernel', kernel, '--initrd', initrd,
            '--append', append, '%s-%d' % (name, os.getpid())]


def qemu_cmd(kernel, initrd, append, cpus=1, mem=512, devices=()):
    return [*QEMU, '-smp', str(cpus), '-m', str(mem), *devices, '-kernel', kernel, '-initrd', initrd, '-append', append]


def need(*packages):
    subprocess.run(['bash', '-c', '. %s/tools/lib.sh; need %s' % (TOP, ' '.join(packages))], check=True)


def cpu_seconds(pid):
    f = open('/proc/%d/stat' % pid).read().rsplit(')', 1)[1].split()
    return (int(f[11]) + int(f[12])) / os.sysconf('SC_CLK_TCK')


def resident_beyond_ram(pid, ram_mb):
    """KiB resident outside of the mappings of guest RAM (those that together make up its size), and inside."""
    ram = outside = 0
    size = rss = 0
    for line in open('/proc/%d/smaps' % pid):
        w = line.split()
        if w[0] == 'Size:':
            size = int(w[1])
        elif w[0] == 'Rss:':
            rss = int(w[1])
            if size >= ram_mb * 1024 // 2:
                ram += rss
            else:
                outside += rss
    return outside, ram


def report(title, rows, **more):
    """rows: {name: {column: [figures]}}; ratios of the first two columns within each turn, as medians."""
    print('\n%s' % title)
    out = {}
    for name, cols in rows.items():
        keys = list(cols)
        med = {k: statistics.median(cols[k]) for k in keys}
        line = '  %-34s' % name + '  '.join('%s %.3f' % (k, med[k]) for k in keys)
        if len(keys) >= 2 and all(cols[keys[1]]):
            ratio = statistics.median(a / b for a, b in zip(cols[keys[0]], cols[keys[1]]))
            line += '   %s/%s %.2f' % (keys[0], keys[1], ratio)
            med['ratio'] = ratio
        print(line, flush=True)
        out[name] = med
    print('JSON ' + json.dumps({'title': title, 'rows': out, **more}), flush=True)


def load():
    """The host's load of the last minute: how much a run can be trusted."""
    return '%.1f' % os.getloadavg()[0]


def probe():
    r = subprocess.run([LHYVE, '--probe'], stdout=subprocess.PIPE, text=True)
    print(r.stdout if r.returncode == 0 else 'no probe: status %d' % r.returncode, flush=True)


__all__ = ['CACHE', 'LHYVE', 'Guest', 'cpu_seconds', 'files', 'image', 'lhyve_cmd', 'load', 'need', 'overlay', 'probe', 'qemu_cmd', 'report',
           'resident_beyond_ram', 'time']
