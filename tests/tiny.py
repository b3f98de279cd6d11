"""Kernels of a few instructions, as ELF files with a Multiboot header: 32-bit flat protected mode, interrupts off."""
import struct

BASE = 0x100000
HEADER = 0x1000  # of the file, where the segment starts

# What the guest does at once.
HALT = b"\xfa\xf4\xeb\xfc"                                  # cli; hlt; jmp
LOOP = b"\xeb\xfe"                                          # jmp to itself
RESET = b"\xb0\x06\x66\xba\xf9\x0c\xee\xeb\xfe"             # 6 to port 0xCF9
TRIPLE = b"\x31\xc0\x50\x50\x0f\x01\x1c\x24\xcc"            # empty IDT, breakpoint
POWEROFF = b"\x66\xb8\x00\x34\x66\xba\x04\x04\x66\xef\xeb\xfe"  # SLP_TYP 5, SLP_EN to PM1a control
ACPI_ON = b"\xb0\xa0\x66\xba\xb2\x00\xee"                   # SMI command: enable ACPI
# Waits for the power button (PM1 status, bit 8), then powers off.
BUTTON = ACPI_ON + b"\x66\xba\x00\x04\x66\xed\xf6\xc4\x01\x74\xf9" + POWEROFF


def testdev(val):
    """Debug exit of pc-testdev."""
    return b"\xb8" + struct.pack("<I", val) + b"\xba\xf4\x00\x00\x00\xef\xeb\xfe"


def serial(text):
    """Writes text to COM1."""
    return b"".join(b"\xb0" + bytes([c]) + b"\x66\xba\xf8\x03\xee" for c in text.encode())


def elf(code):
    """The file."""
    multiboot = struct.pack("<III", 0x1BADB002, 0, 0xFFFFFFFF & -0x1BADB002)
    body = multiboot + b"\x90" * 4 + code
    ehdr = b"\x7fELF\x01\x01\x01" + b"\0" * 9
    ehdr += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, BASE + len(multiboot), 52, 0, 0, 52, 32, 1, 0, 0, 0)
    phdr = struct.pack("<IIIIIIII", 1, HEADER, BASE, BASE, len(body), len(body), 7, 0x1000)
    return (ehdr + phdr).ljust(HEADER, b"\0") + body


def write(path, code):
    """Writes the file; returns path."""
    with open(path, "wb") as f:
        f.write(elf(code))
    return path
