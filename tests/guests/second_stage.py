#!/usr/bin/env python3
"""second_stage.py ROOT WORK PACKAGE,... : for tools/image.sh, where the host cannot run the programs in ROOT: a guest of lhyve does there
what mmdebstrap does by chroot (installs the essential packages, then the others), and then the commands in WORK/finish.

An extract hook of mmdebstrap. ROOT has the files of the essential packages, lists of apt, devices; it comes back installed, and mmdebstrap
tidies it up. apt fetches the packages here, the guest has no network. WORK is a folder for what comes and goes, on a disk with room."""
import os, shlex, subprocess, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import CACHE, PLAIN, Failed, Guest
import initramfs

# By chroot the others, apt among them, are installed by the host's apt; here there must be one first. What it depends on is there for its
# sake only. dpkg by itself does not mind the order of packages, so it is told not to mind it.
STAGE = '''
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
cd /
dpkg --force-unsafe-io --force-depends --install %(essential)s
dpkg --force-unsafe-io --force-depends --install %(apt)s
apt-mark auto %(auto)s > /dev/null
apt-get -q -y --no-download -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io install %(wanted)s
'''
ESSENTIAL, REQUIRED = '?essential', '?priority(required)'   # patterns of apt; both are mmdebstrap's minbase
MODULES = ['virtio_pci', 'virtio_blk', 'virtio_rng', 'crc32c_generic', 'ext4']
KERNEL = CACHE + '/kernel-686-pae'


def fetch(root, wanted):
    """Fetches packages and what they depend on; paths in the guest of those that are new."""
    archives = '/var/cache/apt/archives'
    before = set(os.listdir(root + archives))
    subprocess.run(['apt-get', '-q', '-q', '-y', '--download-only', 'install', *wanted], check=True, stdout=sys.stderr,
                   env={**os.environ, 'APT_CONFIG': os.environ['MMDEBSTRAP_APT_CONFIG']})
    return ['%s/%s' % (archives, f) for f in sorted(set(os.listdir(root + archives)) - before) if f.endswith('.deb')]


def stage(root, work, packages):
    apt = fetch(root, [ESSENTIAL, 'apt'])
    wanted = [REQUIRED, *packages]
    fetch(root, [ESSENTIAL, 'apt', *wanted])
    with open(work + '/stage', 'w') as f, open(work + '/finish') as finish:
        f.write(STAGE % {'essential': os.environ['MMDEBSTRAP_ESSENTIAL'], 'apt': ' '.join(apt), 'wanted': shlex.join(wanted),
                         'auto': ' '.join(os.path.basename(p).split('_')[0] for p in apt)} + finish.read())


def in_guest(work, disk, out):
    """/dev there is the one in ROOT, and comes back as it was."""
    commands = ['hostname lhyve && mount -t ext4 /dev/vda /mnt && mount -t proc proc /mnt/proc && mount -t sysfs sys /mnt/sys',
                'chroot /mnt /bin/sh -ec "$(cat /stage)" > /log 2>&1 || { tail -n 60 /log; false; }',
                'umount /mnt/proc /mnt/sys',
                "chroot /mnt /bin/tar -c --numeric-owner --acls --xattrs --xattrs-include='*' . > /dev/vdb",
                'umount /mnt']
    cpio = initramfs.make(work + '/stage.cpio', CACHE + '/busybox-i386/busybox', commands, files={'/stage': work + '/stage'},
                          modules=initramfs.modules_of(KERNEL, MODULES))
    with Guest([*PLAIN, '-c', '1', '-m', '1G', '-s', '2,virtio-blk,' + disk, '-s', '3,virtio-blk,' + out, '-s', '4,virtio-rnd',
                '--kernel', KERNEL + '/vmlinuz', '--initrd', cpio, '--append', 'console=ttyS0 quiet panic=-1']) as g:
        for n in range(len(commands)):
            # What a kernel says of a slow host is no reason to stop: this is no test.
            g.expect(r'[\r\n]END %d 0\r?\n' % n, 3600, never=r'[\r\n]END \d+ [1-9]|insmod \S+ failed|Kernel panic|Oops')
        g.ends(1, 60)


def main(root, work, packages):
    disk, out = work + '/stage.img', work + '/stage.tar'
    stage(root, work, packages.split(','))
    for path in disk, out:
        with open(path, 'wb') as f:
            f.truncate(8 << 30)
    subprocess.run(['mke2fs', '-q', '-t', 'ext4', '-E', 'nodiscard', '-d', root, disk], check=True)
    in_guest(work, disk, out)
    for e in os.scandir(root):
        subprocess.run(['rm', '-rf', '--one-file-system', e.path], check=True)
    subprocess.run(['tar', '-C', root, '-xp', '--numeric-owner', '--acls', '--xattrs', '--xattrs-include=*', '-f', out], check=True)
    for path in disk, out:
        os.unlink(path)


if __name__ == '__main__':
    try:
        main(*sys.argv[1:])
    except (Failed, subprocess.CalledProcessError, OSError) as e:
        sys.exit('second_stage.py: %s' % e)
