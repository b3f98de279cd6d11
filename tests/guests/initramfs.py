"""Builds small initramfs images (newc cpio) around a static busybox.

Their /init prints READY, runs the commands given, each between "BEGIN n" and "END n STATUS", prints DONE and ends the machine by
`how` (poweroff, reboot, halt)."""
import os, stat, subprocess

INIT = '''#!/bin/sh
export PATH=/bin HOME=/
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
%(modules)s
echo "READY $(cat /proc/uptime)"
%(commands)s
echo "DONE $(cat /proc/uptime)"
%(how)s -f
'''


def entry(ino, name, mode, data=b'', dev=(0, 0)):
    name = name.encode() + b'\0'
    head = '070701' + ''.join('%08x' % v for v in (ino, mode, 0, 0, 1, 0, len(data), 0, 0, dev[0], dev[1], len(name), 0))
    raw = head.encode() + name
    raw += b'\0' * (-len(raw) % 4) + data
    return raw + b'\0' * (-len(raw) % 4)


def modules_of(kernel, names):
    """Paths of modules and of what they depend on, in the order in which to insert them."""
    have, order = {}, []
    for root, _, fs in os.walk(os.path.join(kernel, 'modules')):
        for f in fs:
            if f.endswith('.ko'):
                have[f[:-3].replace('-', '_')] = os.path.join(root, f)

    def add(n):
        n = n.replace('-', '_')
        if n not in have or have[n] in order:
            return
        for d in subprocess.run(['modinfo', '-F', 'depends', have[n]], stdout=subprocess.PIPE, text=True,
                                check=True).stdout.strip().split(','):
            if d:
                add(d)
        order.append(have[n])
    for n in names:
        add(n)
    return order


def with_libraries(*programs):
    """For `files`: programs into /bin, and what they are linked with where their loader looks for it."""
    files = {}
    for p in programs:
        files['/bin/' + os.path.basename(p)] = p
        for line in subprocess.run(['ldd', p], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.splitlines():
            w = [x for x in line.split() if x.startswith('/')]
            if w:
                files[w[0]] = w[0]
    return files


def applets(busybox):
    """Not each host runs 32-bit programs: then those of the 64-bit one, which is made with the same ones."""
    try:
        r = subprocess.run([busybox, '--list'], stdout=subprocess.PIPE, text=True, check=True)
    except OSError:
        r = subprocess.run([os.path.join(os.path.dirname(busybox), '../busybox/busybox'), '--list'], stdout=subprocess.PIPE, text=True, check=True)
    return r.stdout.split()


def make(out, busybox, commands=(), how='poweroff', modules=(), programs=(), params=None, files=None):
    """`params`: arguments of modules by name, such as {'virtio_pci': 'force_legacy=1'}. `files`: paths in the guest to paths here;
    a program is put there with `with_libraries`."""
    raw, ino, made = b'', [1], set()

    def put(name, mode, data=b'', dev=(0, 0)):
        nonlocal raw
        ino[0] += 1
        raw += entry(ino[0], name, mode, data, dev)

    def put_dir(d):
        if d and d not in made:
            put_dir(os.path.dirname(d))
            made.add(d)
            put(d, stat.S_IFDIR | 0o755)
    for d in ('bin', 'dev', 'proc', 'sys', 'mod', 'tmp', 'mnt'):
        put_dir(d)
    for there, here in (files or {}).items():
        put_dir(os.path.dirname(there).lstrip('/'))
        put(there.lstrip('/'), stat.S_IFREG | (0o755 if os.access(here, os.X_OK) else 0o644), open(here, 'rb').read())
    put('dev/console', stat.S_IFCHR | 0o600, dev=(5, 1))
    put('bin/busybox', stat.S_IFREG | 0o755, open(busybox, 'rb').read())
    for a in applets(busybox):
        if a != 'busybox':
            put('bin/' + a, stat.S_IFLNK | 0o777, b'busybox')
    for p in programs:
        put('bin/' + os.path.basename(p), stat.S_IFREG | 0o755, open(p, 'rb').read())
    for m in modules:
        put('mod/' + os.path.basename(m), stat.S_IFREG | 0o644, open(m, 'rb').read())
    insert = []
    for m in modules:
        name = os.path.basename(m)
        arg = (params or {}).get(name[:-3].replace('-', '_'), '')
        insert.append('insmod /mod/%s %s || echo "insmod %s failed"' % (name, arg, name))
    lines = ['echo "BEGIN %d"; ( %s ); echo "END %d $?"' % (i, c, i) for i, c in enumerate(commands)]
    put('init', stat.S_IFREG | 0o755, (INIT % {
        'modules': '\n'.join(insert), 'commands': '\n'.join(lines), 'how': how}).encode())
    raw += entry(0, 'TRAILER!!!', 0)
    with open(out, 'wb') as f:
        f.write(raw)
    return out
