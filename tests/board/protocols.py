"""Starts protocols.c by every protocol that a file can ask for and reads what it says. Arguments: source, lhyve."""
import gzip
import os
import subprocess
import sys
import tempfile

SOURCE, LHYVE = sys.argv[1:]
SCRIPT = "SECTIONS { . = 0x200000; .boot : { *(.boot) } .text : { *(.text*) } .note.Xen : { *(.note.Xen) } :t :n " \
    ".data : { *(.rodata* .data* .bss*) } :t /DISCARD/ : { *(.eh_frame .comment .note.gnu*) } }"
SCRIPT = "PHDRS { t PT_LOAD; n PT_NOTE; }\n" + SCRIPT.replace(".boot : { *(.boot) }", ".boot : { *(.boot) } :t")


def sh(*args):
    subprocess.run(args, check=True)


def build(dir, name, define, elf64=False, zipped=False):
    path = os.path.join(dir, name)
    with open(os.path.join(dir, "ld"), "w") as f:
        f.write(SCRIPT)
    sh("gcc", "-m32", "-O1", "-ffreestanding", "-fno-pie", "-fno-stack-protector", "-fcf-protection=none", "-nostdlib",
       "-D" + define, "-c", SOURCE, "-o", path + ".o")
    sh("ld", "-m", "elf_i386", "-n", "--no-warn-rwx-segments", "-T", os.path.join(dir, "ld"), "-o", path, path + ".o")
    if elf64:
        sh("objcopy", "-I", "elf32-i386", "-O", "elf64-x86-64", path)
    if zipped:
        with open(path, "rb") as f:
            data = f.read()
        with open(path, "wb") as f:
            f.write(gzip.compress(data))
    return path


def run(dir, kernel, *options):
    cmd = [LHYVE, "-m", "64M", "-s", "0,hostbridge", "-s", "31,lpc", "-l", "com1,stdio", "-l", "pc-testdev",
           "-o", "boot.kernel=" + kernel, "-o", "boot.cmdline=one two", "-o", "rundir=" + dir]
    p = subprocess.run(cmd + list(options) + ["protocols"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    out = p.stdout.decode().replace("\r", "")
    assert p.returncode == 1, (p.returncode, out, p.stderr.decode())
    assert out.endswith("end\n"), out
    said = {}
    for line in out.splitlines()[:-1]:
        key, value = line.split("=", 1)
        said.setdefault(key, []).append(value)
    return said


def check(said, protocol, cmdline, modules):
    want = {"protocol": [protocol], "cmdline": [cmdline], "cs": ["00000010"], "cr0": ["00000001"], "if": ["00000000"],
            "map.at": ["00000000", "00100000"], "map.kib": ["00000280", "0000fc00"], "map.type": ["00000001"] * 2,
            "module": ["first", "second"], "module.cmdline": modules}
    if protocol != "pvh":
        want |= {"lower": ["00000280"], "upper": ["0000fc00"], "loader": ["lhyve"]}
    if protocol != "multiboot1":
        want["rsdp"] = ["RSD PTR "]
    assert said == want, "\n%s\n%s" % (said, want)


def main():
    with tempfile.TemporaryDirectory() as dir:
        a, b = os.path.join(dir, "a"), os.path.join(dir, "b")
        for path, text in ((a, "first"), (b, "second")):
            with open(path, "w") as f:
                f.write(text)
        modules = [a, b + " with arguments"]
        options = ["-o", "boot.initrd=" + a, "-o", "boot.modules=%s with arguments" % b]
        for name, define, elf64, zipped, protocol in (
                ("mb1", "MB1", False, False, "multiboot1"), ("mb1-64", "MB1", True, False, "multiboot1"),
                ("mb2", "MB2", False, False, "multiboot2"), ("mb2-64", "MB2", True, False, "multiboot2"),
                ("mb2.gz", "MB2", True, True, "multiboot2"), ("pvh", "PVH", False, False, "pvh"),
                ("pvh-64.gz", "PVH", True, True, "pvh")):
            kernel = build(dir, name, define, elf64, zipped)
            cmdline = "one two" if protocol == "pvh" else kernel + " one two"
            check(run(dir, kernel, *options), protocol, cmdline, modules)
            print("ok", name)


main()
