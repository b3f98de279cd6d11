#!/usr/bin/env python3
"""Devices and machine options, each seen by Debian's kernel with a busybox shell. Proves: block options and queues, console ports,
tap, PCI and LPC serial ports on every back end, -W, -x, -Y, legacy virtio, and interrupts by MSI-X, MSI, I/O APIC and 8259."""
import contextlib, hashlib, os, random, re, select, socket, subprocess, sys, threading, time, tty
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import CACHE, CONSOLE, INSIDE, LHYVE, PLAIN, Guest, files, run
import initramfs
sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import tiny

BAD = r'Kernel panic|BUG:|Oops|Call Trace|ACPI (?:Error|Warning|BIOS Error)|insmod \S+ failed'
MIB = 1 << 20


@contextlib.contextmanager
def shell(where, devices=(), modules=(), params=None, kernel='cloud', cpus=2, append='', before=(), status=1, limit=240,
          programs=(), inside=None):
    """A guest at a busybox shell; powered off and its status checked at the end. Without ACPI it can only halt: status 2."""
    files(kernel, 'busybox')
    k = CACHE + '/kernel-' + kernel
    cpio = initramfs.make(where + '/initrd', CACHE + '/busybox/busybox', commands=['sh'], params=params, programs=programs, files=inside,
                          modules=initramfs.modules_of(k, ['virtio_pci', *modules] if modules else []))
    name = 'test-%d' % os.getpid()
    with Guest(command=[*before, LHYVE, *PLAIN, '-c', str(cpus), '-m', '256M', *devices, '--kernel', k + '/vmlinuz', '--initrd', cpio,
                        '--append', CONSOLE + ' panic=-1 ' + append, name]) as g:
        g.expect('READY', limit, never=BAD)
        g.expect('BEGIN 0', 30, never=BAD)
        g.check('stty -echo; PS1=')
        yield g
        g.send('exit\n')
        g.expect('DONE', 30)
        g.ends(status, 30)


def same(g, what, got, want):
    if got != want:
        g.fail('%s: %r, expected %r' % (what, got, want))


def md5(path):
    return hashlib.md5(open(path, 'rb').read()).hexdigest()


def blob(path, size):
    with open(path, 'wb') as f:
        f.write(os.urandom(size))
    return path


def sysfs(g, disk, key):
    return g.check('cat /sys/block/%s/%s' % (disk, key)).strip()


# --- virtio-blk ---

BLK = [  # disk, options, what sysfs says of it
    ('vda', 'queues=2,serial=first', {'ro': '0', 'serial': 'first', 'queue/logical_block_size': '512', 'size': '16384'}),
    ('vdb', 'ro,sectorsize=512/4096', {'ro': '1', 'queue/logical_block_size': '512', 'queue/physical_block_size': '4096'}),
    ('vdc', 'sectorsize=4096', {'ro': '0', 'queue/logical_block_size': '4096', 'size': '16384'}),
    ('vdd', 'nocache', {'ro': '0'}),
    ('vde', 'direct', {'ro': '0'}),
]


def disks(where, more=(), params=None):
    paths = {d: blob('%s/%s' % (where, d), 8 * MIB) for d, _, _ in BLK}
    devices = [a for i, (d, o, _) in enumerate(BLK) for a in ('-s', '%d,virtio-blk,%s,%s' % (i + 2, paths[d], o))]
    with shell(where, [*devices, *more], ['virtio_blk'], params) as g:
        for d, _, facts in BLK:
            for key, want in facts.items():
                same(g, '%s of %s' % (key, d), sysfs(g, d, key), want)
            same(g, 'contents of ' + d, g.check('md5sum < /dev/' + d).split()[0], md5(paths[d]))
        same(g, 'queues of vda', g.check('ls /sys/block/vda/mq').split(), ['0', '1'])
        before = md5(paths['vdb'])
        if not g.sh('dd if=/dev/zero of=/dev/vdb bs=4096 count=1 conv=fsync')[0]:
            g.fail('a read-only disk took a write')
        for d, _, facts in BLK:
            if facts['ro'] == '0':
                g.check('dd if=/dev/urandom of=/tmp/%s bs=64k count=48 && dd if=/tmp/%s of=/dev/%s bs=64k seek=16 conv=fsync,notrunc'
                        % (d, d, d))
        sums = {d: g.check('dd if=/dev/%s bs=64k skip=16 count=48 2>/dev/null | md5sum; md5sum < /tmp/%s' % (d, d)).split()[::2]
                for d, _, facts in BLK if facts['ro'] == '0'}
        # a discarded range of a file gives its space back and reads as zeroes
        g.check('blkdiscard -o 4194304 -l 4194304 /dev/vda')
        same(g, 'a discarded block', g.check('dd if=/dev/vda bs=1M skip=5 count=1 2>/dev/null | md5sum').split()[0],
             hashlib.md5(bytes(MIB)).hexdigest())
    for d, two in sums.items():
        same(g, 'what was written to ' + d, two[0], two[1])
        with open(paths[d], 'rb') as f:
            f.seek(MIB)
            same(g, 'the image behind ' + d, hashlib.md5(f.read(3 * MIB)).hexdigest(), two[0])
    same(g, 'the read-only image', md5(paths['vdb']), before)
    if os.stat(paths['vda']).st_blocks * 512 > 5 * MIB:
        g.fail('discard left %d bytes of the file' % (os.stat(paths['vda']).st_blocks * 512))


def blk_options(where): disks(where)
def blk_threads(where): disks(where, ['-o', 'blk.aio=threads'])
def blk_legacy(where): disks(where, params={'virtio_pci': 'force_legacy=1'})


# --- a disk that grows ---

def grow(g, disk, make):
    before = int(sysfs(g, disk, 'size'))
    make(before * 512 * 2 + 4 * MIB)
    g.expect(r'%s: detected capacity change from %d to %d' % (disk, before, before * 2 + 8192), 30)
    same(g, 'size of ' + disk, sysfs(g, disk, 'size'), str(before * 2 + 8192))
    g.check('dd if=/dev/urandom of=/tmp/y bs=64k count=8 && dd if=/tmp/y of=/dev/%s bs=64k seek=%d conv=fsync' % (disk, before // 128 + 8))
    g.check('echo 5 > /proc/sys/vm/drop_caches; dd if=/dev/%s bs=64k skip=%d count=8 | cmp - /tmp/y' % (disk, before // 128 + 8))


def blk_grow(where):
    path, under, dev = blob(where + '/file', 4 * MIB), blob(where + '/under', 4 * MIB), None
    if not os.geteuid():
        made = subprocess.run(['losetup', '-f', '--show', under], stdout=subprocess.PIPE, text=True)
        dev = made.stdout.strip() if made.returncode == 0 else None
    try:
        with shell(where, ['-s', '2,virtio-blk,' + path, *(['-s', '3,virtio-blk,' + dev] if dev else [])], ['virtio_blk']) as g:
            grow(g, 'vda', lambda n: os.truncate(path, n))
            if dev:
                def both(n):
                    os.truncate(under, n)
                    subprocess.run(['losetup', '-c', dev], check=True)
                grow(g, 'vdb', both)
                used = os.stat(under).st_blocks
                g.check('blkdiscard -o 0 -l 4194304 /dev/vdb')
                same(g, 'a discarded block', g.check('dd if=/dev/vdb bs=1M count=4 2>/dev/null | md5sum').split()[0],
                     hashlib.md5(bytes(4 * MIB)).hexdigest())
                if os.stat(under).st_blocks > used - 4 * MIB // 512:
                    g.fail('a discard of a block device gave nothing back')
            else:
                print('      without a block device: needs root and loop devices')
    finally:
        if dev:
            subprocess.run(['losetup', '-d', dev])


# --- pause ---

WORK = '''i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); s=$((i %% 4 * 40))
dd if=/tmp/x of=/dev/vda bs=64k seek=$s conv=notrunc,fsync 2>/dev/null || touch /tmp/bad
echo 5 > /proc/sys/vm/drop_caches
dd if=/dev/vda bs=64k skip=$s count=%d 2>/dev/null | cmp - /tmp/x || touch /tmp/bad
echo $i > /tmp/rounds; done > /tmp/log 2>&1 & true'''


def ctl(g, command):
    subprocess.run([os.path.join(os.path.dirname(LHYVE), 'lhyvectl'), '--vm=' + g.command[-1], command], check=True,
                   stdout=subprocess.DEVNULL)


def serve(data, times):
    """A server on the host that sends `data` to each of `times` clients; its port."""
    srv = socket.create_server(('127.0.0.1', 0))

    def run():
        with srv:
            for _ in range(times):
                c = srv.accept()[0]
                with c:
                    c.sendall(data)
    threading.Thread(target=run, daemon=True).start()
    return srv.getsockname()[1]


def quiet(g):
    """No news of the kernel between a command and its output."""
    g.check('echo 5 > /proc/sys/kernel/printk')


def pause_resume(where, times, more=()):
    """Disk and network keep what they promised while the machine is stopped and goes on all the time."""
    path, data = blob(where + '/disk', 16 * MIB), os.urandom(3 * MIB)
    port = serve(data, 10000)
    with shell(where, ['-s', '2,virtio-blk,%s,queues=2' % path, '-s', '3,virtio-net,slirp,open', *more],
               ['virtio_blk', 'virtio_net']) as g:
        quiet(g)
        g.check('ifconfig $(ls /sys/class/net | grep -v lo) 10.0.2.15 up')
        g.check('dd if=/dev/urandom of=/tmp/x bs=64k count=16')
        g.check((WORK % 16).replace('\n', '; '))
        g.check('while [ ! -e /tmp/stop ]; do nc 10.0.2.2 %d < /dev/null | md5sum >> /tmp/sums; done 2>/dev/null & true' % port)
        for _ in range(times):
            time.sleep(random.uniform(0, 0.03))
            ctl(g, 'pause')
            time.sleep(random.choice((0, 0, 0.02)))
            ctl(g, 'resume')
        before = int(g.check('cat /tmp/rounds')), int(g.check('wc -l < /tmp/sums'))
        g.check('for i in $(seq 300); do [ $(cat /tmp/rounds) -gt %d ] && [ $(wc -l < /tmp/sums) -gt %d ] && break; usleep 100000; done;'
                'touch /tmp/stop; [ ! -e /tmp/bad ] && [ $(cat /tmp/rounds) -gt %d ] && [ $(wc -l < /tmp/sums) -gt %d ]' % (before * 2))
        g.check('wait', 60)
        same(g, 'what came over the network', set(g.check('sort -u /tmp/sums').split()), {hashlib.md5(data).hexdigest(), '-'})
        print('      %d rounds on the disk, %s transfers' % (before[0] + 1, g.check('wc -l < /tmp/sums').strip()), flush=True)


CLOCK = """(read old _ < /proc/uptime; while [ ! -e /tmp/stop ]; do read new _ < /proc/uptime
[ "$(printf '%s\\n%s\\n' $old $new | sort -n | tail -n 1)" = $new ] || echo $old $new > /tmp/bad; old=$new; echo $new > /tmp/clock; done) & true"""


def written(g, path):
    """What is in a file that the guest writes again and again: for a moment it is empty each time."""
    return g.check('v=; while [ -z "$v" ]; do read v < %s; done; echo $v' % path)


def moves(where, times, cpus):
    """A machine moves between engines under load (to a fresh one of the same kind where there is only that): the disk keeps what it
    promised, time goes on and never back, all CPUs go on."""
    path, engine = blob(where + '/disk', 16 * MIB), os.environ.get('LHYVE_TEST_ENGINE') or 'soft'
    with shell(where, ['-o', 'engine.move=true', '-s', '2,virtio-blk,%s,queues=%d' % (path, cpus)], ['virtio_blk'], cpus=cpus) as g:
        quiet(g)
        g.check('dd if=/dev/urandom of=/tmp/x bs=64k count=16')
        cpuinfo = g.check('grep -E "flags|model|bugs" /proc/cpuinfo')
        g.check((WORK % 16).replace('\n', '; '))
        g.check(CLOCK.replace('\n', '; '))
        for n in range(times):
            time.sleep(random.uniform(0, 0.1))
            ctl(g, '--engine=' + (engine if n % 2 else 'soft'))
            if random.random() < 0.2:
                g.check('md5sum < /tmp/x')
        before, clock = int(written(g, '/tmp/rounds')), float(written(g, '/tmp/clock'))
        g.check('for i in $(seq 300); do [ 0$(cat /tmp/rounds) -gt %d ] && break; usleep 100000; done' % before)
        # In one line: busybox's shell takes a job that ends while it reads a line for the end of its input, one time in some.
        g.check('touch /tmp/stop; wait; [ ! -e /tmp/bad ] && [ $(cat /tmp/rounds) -gt %d ]' % before, 60)
        for cpu in range(cpus):
            g.check('taskset %d sh -c "md5sum < /tmp/x"' % (1 << cpu))
        same(g, 'the CPU', g.check('grep -E "flags|model|bugs" /proc/cpuinfo'), cpuinfo)
        if float(g.check('cut -d" " -f1 /proc/uptime')) <= clock:
            g.fail('time stands still')
        bad = g.sh("dmesg | grep -iE 'clocksource.*unstable|lost|stall|lockup|hung|I/O error|tsc.*(back|skew|warp)'")
        if not bad[0]:
            g.fail('complaints: ' + bad[1])
        print('      %d moves, %d rounds on the disk' % (times, before + 1), flush=True)


def move_1(where): moves(where, 100, 1)
def move_2(where): moves(where, 100, 2)


def pause_io(where): pause_resume(where, 40)
def pause_io_200(where): pause_resume(where, 200)
def pause_io_threads(where): pause_resume(where, 100, ['-o', 'blk.aio=threads'])


# --- virtio-console ---

def say_and_hear(g, sock, dev, size=0):
    """Both ways, by line and in bulk."""
    g.check('exec 5<>%s' % dev)
    g.check('echo from-the-guest >&5')
    buf = b''
    while b'\n' not in buf:
        buf += hear(g, sock)
    same(g, 'what the host heard', buf.strip(), b'from-the-guest')
    sock.sendall(b'from-the-host\n')
    same(g, 'what the guest heard', g.check('read -t 20 x <&5; echo "$x"').strip(), 'from-the-host')
    if size:
        data = os.urandom(size)
        g.send('head -c %d <&5 | md5sum; echo "is:$?"\n' % size)
        sock.sendall(data)
        m = g.expect(r'([0-9a-f]{32})  -', 60)
        same(g, 'bulk to the guest', m.group(1), hashlib.md5(data).hexdigest())
        g.expect('is:0')
        g.check('head -c %d /dev/urandom > /tmp/bulk' % size)
        want = g.check('md5sum < /tmp/bulk').split()[0]
        g.send('cat /tmp/bulk >&5; echo "sent:$?"\n')
        buf = b''
        while len(buf) < size:
            buf += hear(g, sock)
        same(g, 'bulk to the host', hashlib.md5(buf).hexdigest(), want)
        g.expect('sent:0')
    g.check('exec 5>&-')


def hear(g, sock, timeout=30):
    if not select.select([sock], [], [], timeout)[0]:
        g.fail('nothing came out of the port within %d s' % timeout)
    raw = sock.recv(65536)
    if not raw:
        g.fail('the port closed')
    return raw


def unix(path):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    return s


def port_of(g, name):
    """The port's device node by its name; its name comes in a message of its own, so wait for it."""
    return '/dev/' + g.check('for i in $(seq 50); do grep -lx %s /sys/class/virtio-ports/*/name && break; usleep 100000; done'
                             % name).split('/')[4]


def consoles(where, params=None):
    a, b = where + '/a.sock', where + '/b.sock'
    with shell(where, ['-s', '3,virtio-console,org.a=%s,org.b=%s' % (a, b)], ['virtio_console'], params) as g:
        node_a, node_b = port_of(g, 'org.a'), port_of(g, 'org.b')
        with unix(a) as s:
            say_and_hear(g, s, node_a, 300000)
        with unix(b) as s:
            say_and_hear(g, s, node_b, 1000)
        with unix(a) as s:  # a second client after the first
            say_and_hear(g, s, node_a)


def console_ports(where): consoles(where)
def console_legacy(where): consoles(where, {'virtio_pci': 'force_legacy=1'})


# --- virtio-net ---

def spawn_in(ns, code):
    return subprocess.Popen(['nsenter', '--net=/run/netns/' + ns, sys.executable, '-c', code], stdout=subprocess.PIPE)


def taps(where, params=None, size=6 * MIB, queues=1, check=None, programs=()):
    if os.geteuid() or not os.path.exists('/dev/net/tun'):
        print('      skipped: needs root and /dev/net/tun')
        return
    ns = 'lhyve-%d' % os.getpid()
    ip = ['ip', '-n', ns]
    subprocess.run(['ip', 'netns', 'add', ns], check=True)
    try:
        subprocess.run([*ip, 'tuntap', 'add', 'tap0', 'mode', 'tap', *(['multi_queue'] if queues > 1 else [])], check=True)
        subprocess.run([*ip, 'addr', 'add', '10.9.0.1/24', 'dev', 'tap0'], check=True)
        with shell(where, ['-s', '3,virtio-net,tap0,mac=02:00:00:00:00:05,queues=%d' % queues], ['virtio_net'], params, programs=programs,
                   before=['nsenter', '--net=/run/netns/' + ns]) as g:
            net = g.check('ls /sys/class/net | grep -v lo').strip()
            same(g, 'the address', g.check('cat /sys/class/net/%s/address' % net).strip(), '02:00:00:00:00:05')
            g.check('ip addr add 10.9.0.2/24 dev %s && ip link set %s up' % (net, net))
            g.check('ping -c 3 -W 10 10.9.0.1')
            g.check('ping -c 3 -W 10 -s 1400 10.9.0.1')
            g.check('head -c %d /dev/urandom > /tmp/up && httpd -h /tmp' % size)
            want = g.check('md5sum < /tmp/up').split()[0]
            p = spawn_in(ns, 'import hashlib,urllib.request as u\n'
                         'print(hashlib.md5(u.urlopen("http://10.9.0.2/up", timeout=60).read()).hexdigest())')
            same(g, 'guest to host by TCP', p.communicate()[0].decode().strip(), want)
            data = blob(where + '/down', size)
            p = spawn_in(ns, 'import socket\ns=socket.create_server(("10.9.0.1",99))\nprint("up",flush=True)\nc=s.accept()[0]\n'
                         'c.sendall(open(%r,"rb").read())\nc.close()' % data)
            p.stdout.readline()
            same(g, 'host to guest by TCP', g.check('nc 10.9.0.1 99 | md5sum').split()[0], md5(data))
            p.wait(30)
            if check:
                check(g, net)
            same(g, 'receive errors', g.check('cat /sys/class/net/%s/statistics/rx_errors' % net).strip(), '0')
    finally:
        subprocess.run(['ip', 'netns', 'del', ns])


CHANNELS = r"""
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
int main(int argc, char **argv)
{
	struct ethtool_channels c = { .cmd = ETHTOOL_GCHANNELS };
	struct ifreq r = { .ifr_data = (void *)&c };
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	strncpy(r.ifr_name, argv[1], IFNAMSIZ - 1);
	if (ioctl(s, SIOCETHTOOL, &r) < 0)
		return perror("get"), 1;
	c.cmd = ETHTOOL_SCHANNELS;
	c.combined_count = argc > 2 ? atoi(argv[2]) : c.combined_count;
	if (argc > 2 && ioctl(s, SIOCETHTOOL, &r) < 0)
		return perror("set"), 1;
	printf("%u of %u\n", c.combined_count, c.max_combined);
	return 0;
}
"""


def net_queues(where):
    """What ethtool -L, ip link set promisc and ip link set address do, over the control queue."""
    with open(where + '/channels.c', 'w') as f:
        f.write(CHANNELS)
    subprocess.run(['cc', '-static', '-o', where + '/channels', where + '/channels.c'], check=True)

    def check(g, net):
        same(g, 'queues at first', g.check('channels ' + net), '2 of 2')
        for n in '1', '2':
            same(g, 'queues after a change', g.check('channels %s %s' % (net, n)), n + ' of 2')
            g.check('for i in 1 2 3 4 5 6; do nc 10.9.0.1 9 < /dev/null; done; ping -c 3 -W 10 10.9.0.1')
        if not g.sh('channels %s 3' % net)[0]:
            g.fail('three queues of two')
        seen = [x for x in g.check('cat /proc/interrupts').split('\n') if re.search(r'virtio\d-(input|output)\.1', x)]
        if len(seen) != 2 or not any(sum(int(n) for n in re.findall(r'\s(\d+)(?=\s)', x.split(':', 1)[1])[:2]) for x in seen):
            g.fail('no interrupts of the second pair: %r' % seen)
        count = 'cat /sys/class/net/%s/statistics/rx_packets' % net
        stray = ('import socket\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)\ns.bind(("tap0",0))\n'
                 'for i in range(50): s.send(bytes.fromhex("0200000000%02x"+"020000000001"+"88b5")+bytes(46))')
        for promisc, at, want in (('off', 0x66, False), ('on', 0x66, True), ('off', 0x66, False), ('off', 0x05, True)):
            g.check('ip link set %s promisc %s' % (net, promisc))
            before = int(g.check(count))
            spawn_in('lhyve-%d' % os.getpid(), stray % at).wait(30)
            g.check('usleep 300000')
            same(g, 'frames for %#x, promisc %s' % (at, promisc), int(g.check(count)) - before >= 50, want)
        g.check('ip link set %s address 02:00:00:00:00:66 && ping -c 3 -W 10 10.9.0.1' % net)
    taps(where, queues=2, check=check, programs=[where + '/channels'])


def net_tap(where): taps(where)
def net_tap_legacy(where): taps(where, {'virtio_pci': 'force_legacy=1'}, MIB)


# --- serial ports ---

class Fd:
    """A terminal as a socket."""
    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.fd)

    def fileno(self): return self.fd
    def recv(self, n): return os.read(self.fd, n)
    def sendall(self, raw): os.write(self.fd, raw)


def serial(where, make, connect, option, node):
    """Both ways through a port: `make` names the back end, `connect` its other side from what lhyve printed."""
    with shell(where, option(make), append='8250.nr_uarts=8') as g:  # com1 to com4 are always there: a PCI port is the fifth
        s = connect(g)
        g.check('stty raw -echo 115200 < %s' % node)
        say_and_hear(g, s, node, 3000)


def com2(spec): return ['-l', 'com2,' + spec]
def pci_uart(spec): return ['-s', '5,uart,' + spec]


def by_pty(where, option, node):
    def connect(g):
        m = re.search(r'/dev/pts/\d+', g.log)
        if not m:
            g.fail('nothing named the pty')
        return Fd(m.group(0))
    serial(where, 'pty', connect, option, node)


def by_tcp(where, option, node):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    serial(where, 'tcp=127.0.0.1:%d' % port, lambda g: socket.create_connection(('127.0.0.1', port)), option, node)


def by_unix(where, option, node):
    serial(where, 'unix=%s/s' % where, lambda g: unix(where + '/s'), option, node)


def by_file(where, option, node):
    path = where + '/out'
    with shell(where, option('file=' + path)) as g:
        g.check('stty raw -echo 115200 < %s && seq 2000 > %s' % (node, node), 120)
    same(g, 'the file', open(path).read(), ''.join('%d\n' % i for i in range(1, 2001)))


def com2_pty(where): by_pty(where, com2, '/dev/ttyS1')
def com2_tcp(where): by_tcp(where, com2, '/dev/ttyS1')
def com2_unix(where): by_unix(where, com2, '/dev/ttyS1')
def com2_file(where): by_file(where, com2, '/dev/ttyS1')
def uart_pty(where): by_pty(where, pci_uart, '/dev/ttyS4')
def uart_tcp(where): by_tcp(where, pci_uart, '/dev/ttyS4')
def uart_unix(where): by_unix(where, pci_uart, '/dev/ttyS4')


# --- the machine ---

def interrupts(where, kind, more=(), append='', params=None, kernel='cloud', status=1):
    """A disk works and its interrupts come in the way that was asked for."""
    path = blob(where + '/disk', 4 * MIB)
    with shell(where, ['-s', '2,virtio-blk,' + path, *more], ['virtio_blk'], params, append=append, kernel=kernel,
               status=status) as g:
        same(g, 'the disk', g.check('md5sum < /dev/vda', 120).split()[0], md5(path))
        lines = [x for x in g.check('cat /proc/interrupts').split('\n') if 'virtio' in x]
        used = [x for x in lines if sum(int(n) for n in re.findall(r'\s(\d+)(?=\s)', x.split(':', 1)[1])[:2])]
        if not used or not all(re.search(kind, x) for x in used):
            g.fail('interrupts of the disk are not %s: %r' % (kind, lines))


def irq_msix(where): interrupts(where, 'PCI-MSI.*req')
def irq_single_msi(where): interrupts(where, r'PCI-MSI|IO-APIC', ['-W'])
def irq_single_msi_legacy(where): interrupts(where, r'PCI-MSI|IO-APIC', ['-W'], params={'virtio_pci': 'force_legacy=1'})
def irq_ioapic(where): interrupts(where, 'IO-APIC', append='pci=nomsi')
def irq_8259(where): interrupts(where, 'XT-PIC', append='pci=nomsi noapic')
def irq_8259_nolapic(where): interrupts(where, 'XT-PIC', append='pci=nomsi nolapic noapic acpi=off', kernel='generic', status=2)


def x2apic(where):
    """The kernel sees the flag. It stays in xAPIC mode: it wants interrupt remapping, or one of the hypervisors that it knows."""
    for more, want in ((['-x'], True), ([], False)):
        with shell(where, more, kernel='generic') as g:
            same(g, 'x2apic with %r' % more, 'x2apic' in g.check('grep -m 1 flags /proc/cpuinfo').split(), want)
            same(g, 'processors', g.check('nproc').strip(), '2')


def mptable(where):
    for more, want in (([], True), (['-Y'], False)):
        with shell(where, more, kernel='generic') as g:
            same(g, 'an MP table with %r' % more, not g.sh('dmesg | grep -i "found SMP MP-table"')[0], want)


def mptable_only(where):
    """Without ACPI two processors and the I/O APIC come from the MP table alone."""
    with shell(where, kernel='generic', append='acpi=off', status=2) as g:
        same(g, 'processors', g.check('nproc').strip(), '2')
        g.check('grep -q IO-APIC /proc/interrupts')


# --- buses ---

BRIDGES = ['-s', '3,pci-bridge,bus=1', '-s', '1:4:0,pci-bridge,bus=2']


def behind(where, kind, append='', bus='02', kernel='cloud', status=1):
    """A disk behind two bridges: found, read, written, its interrupts seen; the kernel does not complain of a bus."""
    path = blob(where + '/disk', 8 * MIB)
    disk = ['-s', '2:5:0,virtio-blk,' + path]
    with shell(where, [*BRIDGES, *disk], ['virtio_blk'], kernel=kernel, append=append, status=status) as g:
        where_is = g.check('readlink -f /sys/block/vda/device').strip()
        if not re.search(r'/0000:00:03\.0/0000:01:04\.0/0000:%s:05\.0/' % bus, where_is):
            g.fail('the disk is at ' + where_is)
        same(g, 'the disk', g.check('md5sum < /dev/vda', 120).split()[0], md5(path))
        g.check('dd if=/dev/urandom of=/dev/vda bs=64k count=16 conv=fsync,notrunc')
        same(g, 'the disk as written', g.check('sync; md5sum < /dev/vda', 120).split()[0], md5(path))
        lines = [x for x in g.check('cat /proc/interrupts').split('\n') if 'virtio' in x]
        if not lines or not all(re.search(kind, x) for x in lines):
            g.fail('interrupts of the disk are not %s: %r' % (kind, lines))
        bad = g.sh(r"dmesg | grep -iE 'pci.*(can.t (assign|claim)|no space|conflict|invalid)|ACPI.*(error|warning)'")
        if not bad[0]:
            g.fail('complaints: ' + bad[1])


def bridge_msix(where): behind(where, 'PCI-MSI')
def bridge_intx(where): behind(where, 'IO-APIC', 'pci=nomsi')
def bridge_8259(where): behind(where, 'XT-PIC', 'pci=nomsi noapic')
def bridge_renumbered(where): behind(where, 'PCI-MSI', 'pci=assign-busses,realloc')
def bridge_mptable(where): behind(where, 'IO-APIC', 'pci=nomsi acpi=off', kernel='generic', status=2)


def numa(where):
    """Two domains, of different size, with a vCPU each."""
    with shell(where, ['-n', 'id=0,size=256M,cpus=0', '-n', 'id=1,size=128M,cpus=1'], kernel='generic') as g:
        same(g, 'nodes of the vCPUs', g.check('cat /sys/devices/system/node/node[01]/cpulist').split(), ['0', '1'])
        kib = [int(x.split()[3]) for x in g.check('grep -h MemTotal /sys/devices/system/node/node[01]/meminfo').strip().split('\n')]
        if not (kib[0] > 128 << 10 and 64 << 10 < kib[1] <= 128 << 10):
            g.fail('memory of the nodes: %r KiB' % kib)
        if g.sh('dmesg | grep -i "unknown numa"')[0] == 0:
            g.fail('a bus without a node')


# --- guests of guests ---

def nested(where):
    """cpu.nested: Debian's KVM runs in the guest, lhyve on that finds that it executes, and runs a machine to its end."""
    maker = 'kvm_intel' if 'GenuineIntel' in open('/proc/cpuinfo').read() else 'kvm_amd'
    inside = {'/inner': tiny.write(where + '/inner', tiny.serial('inner\n') + tiny.ACPI_ON + tiny.POWEROFF), **initramfs.with_libraries(LHYVE)}
    with shell(where, ['-o', 'cpu.nested=true'], modules=[maker], cpus=1, inside=inside) as g:
        said = g.check('lhyve --probe')
        if not re.search(r'^ *kvm +yes +the CPU', said, re.M):
            g.fail('the guest has no KVM that executes: ' + said)
        said = g.check('lhyve -m 32M -s 0,hostbridge -s 31,lpc -l com1,stdio -o engine=kvm --kernel /inner inner; echo ended $?')
        if not re.search('inner.*ended 1', said, re.S):
            g.fail('the machine in the guest: ' + said)


# --- a hostile guest ---

def hostile(where):
    """Random registers and virtqueues full of nonsense, from a guest of its own: the machine survives it (hostile.c)."""
    here = os.path.dirname(os.path.abspath(__file__))
    subprocess.run(['cc', '-m32', '-O1', '-ffreestanding', '-fno-pie', '-no-pie', '-nostdlib', '-static', '-fno-stack-protector', '-w',
                    '-Wl,-Ttext=0x5a1000,--section-start=.head=0x5a0000,-e,start,-z,max-page-size=4096,--build-id=none',
                    '-o', where + '/hostile', here + '/hostile.c'], check=True)
    disk = blob(where + '/disk', MIB)
    for seed in range(1, 3 if INSIDE else 13):
        with Guest(command=[LHYVE, *PLAIN, '-c', '1', '-m', '64M', '-s', '2,virtio-blk,' + disk, '-s', '3,virtio-net,slirp', '-s', '4,virtio-rnd',
                            '-s', '5,virtio-console,one=%s/one' % where, '--kernel', where + '/hostile', '--append', 'seed=%d' % seed,
                            'test-%d' % os.getpid()]) as g:
            g.expect('survived', 60, never='too few')
            g.ends(1, 20)


if __name__ == '__main__':
    run(blk_options, blk_threads, blk_legacy, blk_grow, move_1, move_2, pause_io, pause_io_200, pause_io_threads, console_ports, console_legacy, net_tap, net_tap_legacy, net_queues, com2_pty, com2_tcp, com2_unix,
        com2_file, uart_pty, uart_tcp, uart_unix, irq_msix, irq_single_msi, irq_single_msi_legacy, irq_ioapic, irq_8259,
        irq_8259_nolapic, x2apic, mptable, mptable_only, bridge_msix, bridge_intx, bridge_8259, bridge_renumbered, bridge_mptable, numa, nested, hostile)
