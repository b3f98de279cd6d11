#!/usr/bin/env python3
"""The Debian image as a user lives in it. Proves: disk, network, clock, entropy, systemd, persistence, ends."""
import os, socket, subprocess, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import CONSOLE, Failed, PLAIN, Guest, image, overlay, run

BAD = r'Kernel panic|BUG:|Oops|Call Trace'


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def start(where, disk, cpus=2, mem='1G', more=(), img=None):
    img = img or image()
    g = Guest([*PLAIN, '-c', str(cpus), '-m', mem, '-s', '2,virtio-blk,' + disk, *more, '-s', '4,virtio-rnd',
               '--kernel', img + '/vmlinuz', '--initrd', img + '/initrd.img', '--append', 'root=/dev/vda rw ' + CONSOLE])
    return g


def login(g, limit=240):
    g.expect('login: ', limit, never=BAD)
    g.send('root\n')
    g.expect('Password: ', 60)
    g.send('lhyve\n')
    g.expect(r'root@lhyve:~# ', 60)
    g.check('stty -echo; bind "set enable-bracketed-paste off"; export PS1= SYSTEMD_PAGER=')


def net(port):
    return ['-s', '3,virtio-net,slirp,open,hostfwd=tcp:127.0.0.1:%d-:22' % port]


def ssh(port, command, limit=90):
    """The client as a user has it; the password by an askpass program."""
    ask = '/tmp/lhyve-askpass.%d' % os.getpid()
    with open(ask, 'w') as f:
        f.write('#!/bin/sh\necho lhyve\n')
    os.chmod(ask, 0o755)
    try:
        r = subprocess.run(['ssh', '-p', str(port), '-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null',
                            '-o', 'LogLevel=ERROR', '-o', 'ConnectTimeout=60', 'root@127.0.0.1', command], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, timeout=limit, start_new_session=True,
                           env={**os.environ, 'SSH_ASKPASS': ask, 'SSH_ASKPASS_REQUIRE': 'force', 'DISPLAY': ':none'})
    finally:
        os.unlink(ask)
    if r.returncode:
        raise Failed('ssh %r ended with %d: %s' % (command, r.returncode, r.stdout[-1000:]))
    return r.stdout


def login_write_reboot_find_ssh_poweroff(where):
    disk, port = overlay(image() + '/disk.img', where), free_port()
    with start(where, disk, more=net(port)) as g:
        login(g)
        if g.check('nproc').split()[-1] != '2':
            g.fail('not 2 CPUs')
        g.check('echo persistent-%d > /root/kept && sync' % port)
        g.check('test "$(date +%Y)" -ge 2024 && test -c /dev/hwrng')
        g.send('reboot\n')
        g.ends(0, 90)
    with start(where, disk, more=net(port)) as g:
        login(g)
        if 'persistent-%d' % port not in g.check('cat /root/kept'):
            g.fail('the file did not survive the reboot')
        if 'persistent-%d' % port not in ssh(port, 'cat /root/kept'):
            g.fail('ssh shows something else')
        g.send('poweroff\n')
        g.ends(1, 90)


def login_and_out(where, cpus, kernel=None):
    img = image()
    if kernel:
        img = os.path.join(os.path.dirname(img), 'debian-generic')
        image('-k', kernel, img)
    with start(where, overlay(img + '/disk.img', where), cpus, img=img) as g:
        login(g)
        if g.check('nproc').split()[-1] != str(cpus):
            g.fail('not %d CPUs' % cpus)
        failed = g.check('systemctl --failed --no-legend --plain').strip()
        if failed:
            g.fail('units that failed: ' + failed)
        g.send('poweroff\n')
        g.ends(1, 90)


def cloud_1(where): login_and_out(where, 1)
def cloud_4(where): login_and_out(where, 4)
def generic_1(where): login_and_out(where, 1, 'linux-image-amd64')
def generic_4(where): login_and_out(where, 4, 'linux-image-amd64')


def check_mode(where, cpus):
    """Every block of code by both tiers (engine.soft.check), to a login and out again. The guest's time is slowed with its processor:
    its ticks would take half of that, and systemd would not wait for udev to come to know the console."""
    with start(where, overlay(image() + '/disk.img', where), cpus,
               more=['-o', 'engine.soft=jit', '-o', 'engine.soft.check=true', '-o', 'engine.slow=32']) as g:
        g.slow *= 40
        login(g)
        if g.check('nproc').split()[-1] != str(cpus):
            g.fail('not %d CPUs' % cpus)
        g.send('poweroff\n')
        g.ends(1, 90)


def check_1(where): check_mode(where, 1)
def check_2(where): check_mode(where, 2)


def power_button(where):
    """SIGTERM is the ACPI power button."""
    with start(where, overlay(image() + '/disk.img', where), cpus=1) as g:
        login(g)
        g.p.terminate()
        g.ends(1, 90)


def install_a_package(where):
    """By apt from the mirror that the host uses; where guests cannot reach one, from a repository served on the host."""
    disk, port = overlay(image() + '/disk.img', where), free_port()
    with start(where, disk, more=net(port)) as g:
        login(g)
        status, out = g.sh('apt-get -qq update && apt-get -qq -y install hello >/dev/null', 300)
        if status:
            print('      the mirror is not reachable from the guest (%s); trying a local repository' % out[-200:].replace('\n', ' '))
            repo = os.path.join(where, 'repo')
            os.mkdir(repo)
            subprocess.run('apt-get -qq -o APT::Sandbox::User=root download hello && '
                           '(command -v apt-ftparchive >/dev/null || true) && '
                           'for d in *.deb; do dpkg-deb -f $d; printf "Filename: %s\\nSize: %s\\nSHA256: %s\\n\\n" ./$d '
                           '$(stat -c %s $d) $(sha256sum $d | cut -d" " -f1); done > Packages', shell=True, cwd=repo, check=True)
            web = free_port()
            srv = subprocess.Popen([sys.executable, '-m', 'http.server', '--bind', '127.0.0.1', str(web)], cwd=repo,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                g.check('echo "deb [trusted=yes] http://10.0.2.2:%d ./" > /etc/apt/sources.list && apt-get -qq update && '
                        'apt-get -qq -y install hello >/dev/null' % web, 300)
            finally:
                srv.kill()
        if 'Hello, world!' not in g.check('hello'):
            g.fail('the installed program does not run')
        g.send('poweroff\n')
        g.ends(1, 90)


if __name__ == '__main__':
    run(login_write_reboot_find_ssh_poweroff, power_button, install_a_package, cloud_1, cloud_4, generic_1, generic_4, check_1, check_2)
