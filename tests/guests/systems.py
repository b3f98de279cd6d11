#!/usr/bin/env python3
"""Systems that are not today's Linux, from Debian's packages. Proves: the boot protocols and tables say enough for kernels that were never
tried here; other users of the CPU: hypervisors with segments and rings, call gates, page tables of their own, memory tests."""
import lzma, os, re, struct, subprocess, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from debian import login
from guest import CACHE, PLAIN, Failed, Guest, files, image, overlay, run
import initramfs, kernels


# ------ Linux, older and newer ------

def bullseye_2(where): kernels.boot(where, 'cloud@bullseye', 2)
def backports_2(where): kernels.boot(where, 'cloud@bookworm-backports', 2)
def testing_1(where): kernels.boot(where, 'cloud@testing', 1)
def testing_4(where): kernels.boot(where, 'cloud@testing', 4)
def rt_2(where): kernels.boot(where, 'rt', 2)


def vmlinux(where, how):
    """The ELF file inside a bzImage: the kernel without its boot stub (protocol 2.08: payload_offset, payload_length)."""
    files('rt', 'busybox')
    with open(CACHE + '/kernel-rt/vmlinuz', 'rb') as f:
        raw = f.read()
    start, size = struct.unpack_from('<II', raw, 0x248)
    start += (raw[0x1f1] + 1) * 512
    with open(where + '/vmlinux', 'wb') as f:
        f.write(lzma.LZMADecompressor().decompress(raw[start:start + size]))
    cpio = initramfs.make(where + '/initrd', CACHE + '/busybox/busybox', ['nproc', 'cat /proc/sys/kernel/bootloader_type'])
    with Guest([*PLAIN, '-c', '2', '-m', '512M', '-o', 'boot.entry=' + how, '--kernel', where + '/vmlinux', '--initrd', cpio,
                '--append', 'console=ttyS0 panic=-1']) as g:
        g.expect('READY', 240, never=kernels.BAD)
        g.expect(r'BEGIN 0\r?\n2\r?\nEND 0 0', 30)
        # 0xb0: the kernel filled in its own zero page, as it does when entered by PVH without Xen
        g.expect(r'BEGIN 1\r?\n(%s)\r?\n' % ('176' if how == 'pvh' else r'(?!176)\d+'), 30)
        g.expect('DONE', 60, never=kernels.BAD)
        g.ends(1, 30)


def vmlinux_pvh(where): vmlinux(where, 'pvh')
def vmlinux_elf(where): vmlinux(where, '64')


# ------ Debian as another architecture ------

def debian_i386(where):
    img = os.path.join(CACHE, 'debian-i386')
    image('-a', 'i386', img)
    with Guest([*PLAIN, '-c', '2', '-m', '1G', '-s', '2,virtio-blk,' + overlay(img + '/disk.img', where), '-s', '4,virtio-rnd', '--kernel',
                img + '/vmlinuz', '--initrd', img + '/initrd.img', '--append', 'root=/dev/vda rw console=ttyS0']) as g:
        login(g, 400)
        if g.check('uname -m; dpkg --print-architecture').split()[-2:] != ['i686', 'i386']:
            g.fail('not i386')
        failed = g.check('systemctl --failed --no-legend --plain').strip()
        if failed:
            g.fail('units that failed: ' + failed)
        g.send('poweroff\n')
        g.ends(1, 120)


# ------ memory tests ------

def memtest(binary, what, limit):
    files('memtest')
    with Guest([*PLAIN, '-c', '2', '-m', '64M', '--kernel', CACHE + '/memtest/' + binary, '--append', 'console=ttyS0,115200']) as g:
        g.expect('Memtest86+', 60)
        g.expect(r'SMP: 2T', 60)
        g.expect(what, limit, never=r'Errors: +[1-9]|FAIL|Interrupt|Exception')
        g.p.terminate()     # without ACPI's events: a second signal ends the machine
        g.p.terminate()


def memtest_pass(where): memtest('memtest64.bin', r'Pass: +1', 2400)
def memtest_ia32(where): memtest('memtest32.bin', r'#5', 600)


# ------ Xen: rings, segments, page tables; its dom0 in ring 3 ------

def xen(where, entry, cpus):
    files('xen', 'generic', 'busybox')
    cpio = initramfs.make(where + '/initrd', CACHE + '/busybox/busybox', ['cat /sys/hypervisor/type', 'nproc'])
    bad = kernels.BAD + "(?!: TSC doesn't count with P0)"  # on AMD's processors Xen hides that bit of HWCR from dom0
    with Guest([*PLAIN, '-c', str(cpus), '-m', '1G', '-o', 'boot.entry=' + entry, '--kernel', CACHE + '/xen/xen.gz', '--append',
                'console=com1 com1=115200,8n1 loglvl=all noreboot', '--modules',
                '%s/kernel-generic/vmlinuz console=hvc0 panic=-1;%s' % (CACHE, cpio)]) as g:
        g.expect(r'\(XEN\) Bootloader: lhyve', 60)
        g.expect(r'\(XEN\) Brought up %d CPUs' % cpus, 60, never='PANIC|Panic')
        g.expect(r'Linux version', 60, never='PANIC|Panic')
        g.expect('READY', 240, never=bad + '|PANIC|crashed')
        g.expect('END 0', 30)
        g.expect(r'BEGIN 1\s+%d\s' % cpus, 30)
        g.expect('DONE', 60, never=bad)
        g.ends(1, 60)


def xen_multiboot(where): xen(where, 'multiboot', 2)
def xen_multiboot2(where): xen(where, 'multiboot2', 1)


# ------ GNU Mach ------

MACH_PROGRAM = {
    # Traps by the call gate 7:0; at the stack's top the address to return to and the arguments.
    'gnumach': ('-m32', '''
    .globl _start
    _start: push $text; call print; pop %eax
    mov $100000, %esi
    1: mov $-28, %eax; lcall $7, $0; dec %esi; jnz 1b
    push $done; call print
    2: mov $-59, %eax; lcall $7, $0; jmp 2b
    print: mov $-30, %eax; lcall $7, $0; ret
    '''),
    'gnumach-amd64': ('-m64', '''
    .globl _start
    _start: lea text(%rip), %rdi; mov $-30, %eax; syscall
    mov $100000, %ebx
    1: mov $-28, %eax; syscall; dec %ebx; jnz 1b
    lea done(%rip), %rdi; mov $-30, %eax; syscall
    2: mov $-59, %eax; syscall; jmp 2b
    ''')}


def mach(where, which):
    """To its messages, and on into a task made here that calls the kernel (mach_print, mach_task_self, swtch_pri)."""
    files(which)
    flag, source = MACH_PROGRAM[which]
    with open(where + '/task.s', 'w') as f:
        f.write(source + '\ntext: .asciz "user mode\\n"\ndone: .asciz "it is over\\n"\n.section .note.GNU-stack,"",@progbits\n')
    subprocess.run(['gcc', flag, '-nostdlib', '-static', '-Wl,--build-id=none', '-o', where + '/task', where + '/task.s'], check=True)
    with Guest([*PLAIN, '-c', '1', '-m', '256M', '--kernel', CACHE + '/%s/gnumach.gz' % which, '--append', 'console=com0',
                '--modules', where + '/task $(task-create) $(task-resume)']) as g:
        if which == 'gnumach':     # the other says more than it can keep before its console is there
            g.expect('GNU Mach 1', 30)
        g.expect('RTC time is 20', 60, never='panic|fault')
        g.expect('user mode', 30, never='panic|fault')
        g.expect('it is over', 60, never='panic|fault')
        g.p.terminate()
        g.p.terminate()


def mach_i386(where): mach(where, 'gnumach')
def mach_amd64(where): mach(where, 'gnumach-amd64')


if __name__ == '__main__':
    run(bullseye_2, backports_2, testing_1, testing_4, rt_2, vmlinux_pvh, vmlinux_elf, debian_i386, memtest_pass, memtest_ia32,
        xen_multiboot, xen_multiboot2, mach_i386, mach_amd64)
