#!/usr/bin/env python3
"""lhyve and lhyvectl as managers use them, on kernels of a few instructions: live.py LHYVE LHYVECTL LHYVELOAD."""
import fcntl
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import tiny  # noqa: E402  pylint: disable=wrong-import-position

LHYVE, LHYVECTL, LHYVELOAD = sys.argv[1:4]
MACHINE = ["-s", "0,hostbridge", "-s", "31,lpc"]
signal.signal(signal.SIGHUP, signal.SIG_DFL)    # or what lhyve inherits of a test run under nohup makes it deaf to SIGHUP


def wait_for(what, condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.01)


class Live(unittest.TestCase):
    def setUp(self):
        tmp = tempfile.TemporaryDirectory(prefix="lhyve-live-")
        self.addCleanup(tmp.cleanup)
        self.tmp, self.procs = tmp.name, []
        self.rundir = f"{self.tmp}/run"
        self.addCleanup(self.end_all)

    def end_all(self):
        for p in self.procs:
            if p.poll() is None:
                p.kill()
            p.communicate()

    def start(self, code, *args, name="vm", **kw):
        kernel = tiny.write(f"{self.tmp}/{name}.elf", code)
        cmd = [LHYVE, "-o", f"rundir={self.rundir}", "-m", "64", *MACHINE, "--kernel", kernel, *args, name]
        kw = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | kw
        p = subprocess.Popen(cmd, **kw)
        self.procs.append(p)
        return p

    def started(self, code, *args, name="vm", **kw):
        p = self.start(code, *args, name=name, **kw)
        wait_for("the control socket",
                 lambda: p.poll() is not None or self.ctl("status", name=name).returncode == 0)
        if p.poll() is not None:
            self.fail(f"ended at once: {p.communicate()}")
        return p

    def in_its_code(self, name="vm"):
        """The guest is behind the instructions that all have in front: on a busy host the vCPU may come late."""
        wait_for("the guest's code",
                 lambda: int(self.ask("registers", name=name)["registers"]["rip"], 16) >= 0x100010)

    def end(self, p, status):
        out, err = p.communicate(timeout=10)
        self.assertEqual(p.returncode, status, (out, err))
        return (out or b"").decode(), (err or b"").decode()

    def ctl(self, *args, name="vm"):
        return subprocess.run([LHYVECTL, f"--rundir={self.rundir}", f"--vm={name}", *args], capture_output=True,
                              text=True, timeout=30, check=False)

    def ctl_ok(self, *args, name="vm"):
        r = self.ctl(*args, name=name)
        self.assertEqual(r.returncode, 0, (r.stdout, r.stderr))
        return r.stdout

    def ask(self, *args, name="vm"):
        return json.loads(self.ctl_ok("--json", *args, name=name))

    # ------ how guests end ------

    def test_exit_statuses(self):
        for code, args, status in ((tiny.RESET, [], 0), (tiny.POWEROFF, [], 1), (tiny.HALT, [], 2), (tiny.TRIPLE, [], 3),
                                   (tiny.testdev(5), ["-l", "pc-testdev"], 11)):
            self.end(self.start(code, *args), status)
            self.assertFalse(os.path.exists(f"{self.rundir}/vm"))

    def test_pc_testdev_counts_cpus_by_fw_cfg(self):
        count = b"\xb8\x05\x00\x00\x00\x66\xba\x10\x05\x66\xef\x66\x42\xec\x66\xba\xf4\x00\xee" + tiny.LOOP  # item 5
        self.end(self.start(count, "-c", "3", "-l", "pc-testdev"), 7)

    def test_pc_testdev_has_the_timer_of_a_bios(self):
        """In real mode: stc; sti; hlt; cli, then the exit status is the count of ticks at 0:46C, 2 and the carry flag."""
        code = bytes.fromhex("bf00800000be45001000b940000000f3a40f01153f001000ea008000000800" + "00" * 8 +
                             "ffff0000009b00000f002f0010000f20c024fe0f22c0ea0d80000031c08ed88ed0bc0070f9fbf4faa06c04"
                             "1402e6f4ebfe")
        self.end(self.start(code, "-l", "pc-testdev"), (1 + 2 + 1) * 2 + 1)

    def test_strictio_names_the_instruction(self):
        for code, text in ((b"\x90\x66\xba\x34\x12\xed", "inl 0x1234 at 0x100015"),
                           (b"\x66\xba\x34\x12\x66\xef\xf4", "outw 0x1234 at 0x100014"),
                           (b"\xe4\xec\xf4", "inb 0x00ec at 0x100010")):
            self.assertEqual(self.end(self.start(code + tiny.LOOP, "-e"), 134)[1], f"lhyve: Unhandled {text}\n")

    def test_console_and_own_end(self):
        p = self.start(tiny.serial("hello\n") + tiny.POWEROFF, "-l", "com1,stdio")
        self.assertEqual(self.end(p, 1)[0], "hello\n")

    def test_debug_console(self):
        out = f"{self.rundir}/e9"
        self.end(self.start(b"\xb0h\xe6\xe9\xb0i\xe6\xe9" + tiny.POWEROFF, "-l", f"debugcon,file={out}"), 1)
        with open(out, encoding="ascii") as f:
            self.assertEqual(f.read(), "hi")
        os.unlink(out)

    def test_errors_leave_nothing(self):
        p = self.start(tiny.LOOP, "-s", "4,virtio-blk,/nonexistent")
        self.assertIn("/nonexistent", self.end(p, 4)[1])
        self.assertFalse(os.path.exists(f"{self.rundir}/vm"))

    def test_unknown_keys(self):
        extra = ["-o", "memory.wierd=1", "-o", "pci.0.0.0.vendr=1", "-l", "com2,file=/dev/null"]
        _, err = self.end(self.start(tiny.POWEROFF, *extra), 1)
        self.assertEqual(sorted(err.splitlines()), [
            "memory.wierd: unknown key, did you mean memory.wired?",
            "pci.0.0.0.vendr: unknown key, did you mean pci.0.0.0.vendor?"])
        _, err = self.end(self.start(tiny.POWEROFF, *extra, "-o", "config.strict=true"), 4)
        self.assertEqual(err, "lhyve: memory.wierd: unknown key, did you mean memory.wired?\n")

    def test_strict_accepts_what_is_known(self):
        flags = ["-AHPwuS", "-o", "config.strict=true", "-D", "-I"]
        self.end(self.start(tiny.POWEROFF, *flags, "-l", "com1,file=/dev/null"), 1)

    # ------ signals ------

    def test_sigterm_without_acpi(self):
        p = self.started(tiny.LOOP)
        p.send_signal(signal.SIGTERM)
        self.end(p, -signal.SIGTERM)
        self.assertFalse(os.path.exists(f"{self.rundir}/vm"))

    def test_sigterm_presses_the_button(self):
        p = self.started(tiny.BUTTON)
        time.sleep(0.2)
        p.send_signal(signal.SIGTERM)
        self.end(p, 1)

    def test_nohup(self):
        p = self.started(tiny.LOOP, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        p.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        self.assertIsNone(p.poll())
        p.send_signal(signal.SIGTERM)
        self.end(p, -signal.SIGTERM)

    def test_sigint_twice(self):
        p = self.started(tiny.ACPI_ON + tiny.LOOP)
        time.sleep(0.2)
        p.send_signal(signal.SIGINT)
        time.sleep(0.2)
        self.assertIsNone(p.poll())
        p.send_signal(signal.SIGINT)
        self.end(p, -signal.SIGINT)

    def test_terminal_comes_back(self):
        for sig, status in ((signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP),
                            (signal.SIGSEGV, -signal.SIGSEGV), (signal.SIGABRT, -signal.SIGABRT),
                            (signal.SIGUSR1, -signal.SIGUSR1), (signal.SIGPWR, -signal.SIGPWR), (None, 1)):
            master, slave = pty.openpty()
            before = termios.tcgetattr(slave)
            p = self.started(tiny.LOOP, "-l", "com1,stdio", name=f"tty{sig}", stdin=slave, stdout=slave)
            self.assertNotEqual(termios.tcgetattr(slave), before, "not raw")
            if sig:
                p.send_signal(sig)
            else:
                self.ctl_ok("poweroff", name="ttyNone")
            self.end(p, status)
            self.assertEqual(termios.tcgetattr(slave), before, f"after {sig}")
            os.close(master)
            os.close(slave)

    def test_terminal_by_its_path_comes_back(self):
        master, slave = pty.openpty()
        before = termios.tcgetattr(slave)
        com1 = ("-l", f"com1,{os.ttyname(slave)}")
        for sig, status in ((signal.SIGTERM, -signal.SIGTERM), (signal.SIGQUIT, -signal.SIGQUIT),
                            (signal.SIGALRM, -signal.SIGALRM), (None, 1)):
            p = self.started(tiny.LOOP, *com1)
            self.assertNotEqual(termios.tcgetattr(slave), before, "not raw")
            if sig:
                p.send_signal(sig)
            else:
                self.ctl_ok("poweroff")
            self.end(p, status)
            self.assertEqual(termios.tcgetattr(slave), before, f"after {sig}")
        self.end(self.start(tiny.LOOP, *com1, "-l", "com2,/no/such/tty"), 4)
        self.assertEqual(termios.tcgetattr(slave), before, "after an error at start")
        os.close(master)
        os.close(slave)

    def test_escape(self):
        master, slave = pty.openpty()
        p = self.started(tiny.LOOP, "-l", "com1,stdio", stdin=slave, stdout=slave)
        os.write(master, b"\x01?")
        self.assertIn(b"Ctrl-A x: end the machine at once", p.stderr.readline())
        os.write(master, b"\x01p")
        self.assertIn(b"not enabled ACPI", p.stderr.readline())
        os.write(master, b"\x01x")
        self.end(p, 1)
        os.close(master)
        os.close(slave)

    # ------ names ------

    def test_title(self):
        p = self.started(tiny.LOOP)
        with open(f"/proc/{p.pid}/cmdline", "rb") as f:
            self.assertEqual(f.read().rstrip(b"\0"), b"bhyve: vm")
        found = subprocess.run(["pgrep", "-fx", "bhyve: vm"], capture_output=True, text=True, check=False).stdout.split()
        self.assertIn(str(p.pid), found)
        p2 = self.started(tiny.LOOP, name="n" * 200)
        with open(f"/proc/{p2.pid}/cmdline", "rb") as f:
            self.assertEqual(f.read().rstrip(b"\0"), b"bhyve: " + b"n" * 200)

    def test_one_start_of_a_name(self):
        p = self.started(tiny.LOOP)
        _, err = self.end(self.start(tiny.LOOP), 4)
        self.assertEqual(err, f"lhyve: a machine named 'vm' is already running (process {p.pid})\n")
        self.started(tiny.LOOP, name="other")

    def test_killed_and_taken_over(self):
        self.started(tiny.LOOP).kill()
        wait_for("a dead machine", lambda: self.ctl("status").returncode == 1)
        self.assertTrue(os.path.exists(f"{self.rundir}/vm/lock"))
        self.started(tiny.LOOP)
        self.ctl_ok("--destroy")

    # ------ lhyvectl's options ------

    def test_destroy(self):
        self.assertEqual(self.ctl("--destroy").returncode, 1)
        self.assertIn("vm_open: vm could not be opened: No such file or directory", self.ctl("--destroy").stderr)
        p = self.started(tiny.LOOP)
        self.ctl_ok("--destroy")
        self.assertFalse(os.path.exists(f"{self.rundir}/vm"))
        self.end(p, 4)
        self.started(tiny.LOOP).kill()
        wait_for("a dead machine", lambda: self.ctl("status").returncode == 1)
        self.ctl_ok("--destroy")
        self.assertFalse(os.path.exists(f"{self.rundir}/vm"))

    def test_force(self):
        p = self.started(tiny.LOOP)
        self.ctl_ok("--force-reset")
        self.end(p, 0)
        p = self.started(tiny.LOOP)
        self.ctl_ok("--force-poweroff")
        self.end(p, 1)
        r = self.ctl("--force-poweroff", "--destroy")
        self.assertEqual((r.returncode, r.stderr), (1, "mutually exclusive actions specified\n"))

    def test_usage(self):
        for args in ([], ["--nonsense", "--vm=x"]):
            r = subprocess.run([LHYVECTL, *args], capture_output=True, text=True, check=False)
            self.assertEqual(r.returncode, 1)
            self.assertIn("       [--get-stats]\n", r.stderr)
            self.assertIn("       [--cpu=<vcpu_number>]\n", r.stderr)

    def test_stats(self):
        self.started(tiny.LOOP, "-c", "2")
        lines = self.ctl_ok("--get-stats").splitlines()
        self.assertEqual(lines[0], "vcpu0 stats:")
        resident = [x for x in lines if x.startswith("Resident memory ")]
        self.assertEqual(len(resident), 1)
        name, number = resident[0].split("\t")
        self.assertEqual(len(name), 40)
        self.assertGreater(int(number), 1 << 20)
        self.assertEqual(self.ctl_ok("--get-stats", "--cpu=1").splitlines()[0], "vcpu1 stats:")

    def test_registers(self):
        self.started(tiny.LOOP)
        out = self.ctl_ok("--get-rip", "--get-cs", "--get-cr0", "--get-desc-cs", "--get-efer")
        self.assertIn("cs[0]\t\t0x0010\n", out)
        self.assertIn("rip[0]\t\t0x0000000000100010\n", out)
        self.assertIn("cs desc[0]\t0x0000000000000000/0xffffffff/0x0000c09b\n", out)
        self.assertIn("efer[0]\t\t0x0000000000000000\n", out)
        self.ctl_ok("--set-rax=0x1234")
        self.assertEqual(self.ctl_ok("--get-rax"), "rax[0]\t\t0x0000000000001234\n")
        self.assertEqual(self.ask("registers")["registers"]["rax"], "0x0000000000001234")
        r = self.ctl("--get-stats", "--cpu=7")
        self.assertIn("cpu=7: expected a vCPU from 0 to ", r.stderr)
        self.assertNotEqual(r.returncode, 0)
        r = self.ctl("--get-rax", "--cpu=7")
        self.assertEqual((r.returncode, r.stdout), (255, "errno = 22\n"))

    def test_queries(self):
        self.started(tiny.LOOP, "-c", "4,sockets=1,cores=2,threads=2")
        self.assertEqual(self.ctl_ok("--get-cpu-topology"), "cpu_topology:\tsockets=1, cores=2, threads=2, maxcpus=4\n")
        self.assertEqual(self.ctl_ok("--get-active-cpus"), "active cpus:\t 0\n")
        self.assertEqual(self.ctl_ok("--get-suspended-cpus"), "suspended cpus:\t (none)\n")
        self.assertIn("Address     Length      Segment     Offset      Prot  Flags\n", self.ctl_ok("--get-memmap"))
        self.assertEqual(self.ctl_ok("--get-memseg").splitlines()[0], "ID  Length      Name")
        self.assertEqual(self.ctl_ok("--getcap", "--capname=hlt_exit"), 'Capability "hlt_exit" is set on vcpu 0\n')
        r = self.ctl("--get-vmcs-link")
        self.assertEqual(r.returncode, 1)
        self.assertIn("cannot be read on the engine", r.stderr)
        out = self.ctl_ok("--get-all")
        for text in ("vcpu0 stats:", "rip[0]", "tr desc[0]", "cpu_topology:"):
            self.assertIn(text, out)

    def test_queries_for_programs(self):
        self.started(tiny.LOOP, "-c", "4,sockets=1,cores=2,threads=2")
        self.in_its_code()
        r = self.ask("--get-rip", "--get-cs", "--get-desc-cs", "--get-memseg", "--get-active-cpus", "--get-suspended-cpus",
                     "--get-cpu-topology", "--getcap", "--capname=rdpid")
        self.assertEqual(r, {
            "vm": "vm", "cpu": 0, "rip": "0x0000000000100010", "cs": 16,
            "desc-cs": {"selector": 16, "base": "0x0000000000000000", "limit": 0xffffffff, "access": 0xc09b},
            "memseg": [{"id": 0, "length": 64 << 20, "name": "sysmem"}], "active-cpus": [0], "suspended-cpus": [],
            "cpu-topology": {"sockets": 1, "cores": 2, "threads": 2, "maxcpus": 4},
            "getcap": {"capability": "rdpid", "available": False, "set": False}})
        r = self.ask("--get-stats", "--cpu=1")
        self.assertEqual((r["cpu"], list(r["stats"])), (1, ["counters", "resident", "wired"]))
        r = self.ask("--get-all")
        for key in ("stats", "memmap", "r15", "desc-idtr", "x2apic-state", "rtc-nvram", "rtc-time"):
            self.assertIn(key, r)
        r = self.ctl("--json", "--get-rax", "--cpu=7")
        self.assertEqual((r.returncode, r.stdout), (255, ""))

    def test_nmi_of_one_processor(self):
        p = self.started(tiny.LOOP, "-c", "2")
        self.in_its_code()
        self.ctl_ok("--inject-nmi", "--cpu=1")      # which waits for SIPI
        r = self.ctl("nmi", "cpu=2")
        self.assertEqual((r.returncode, "cpu=2: expected a vCPU from 0 to 1" in r.stderr), (1, True))
        self.in_its_code()
        self.ctl_ok("--inject-nmi")                 # to 0, which has no table of gates
        self.end(p, 3)

    def test_profile(self):
        idle = b"\xfb\xf4\xeb\xfd"  # sti; hlt; jmp
        spin = b"\xb9\x00\x00\x01\x00" + b"\xe2\xfe" + b"\xeb\xf7"  # at 0x100015: loop to itself 65536 times; again
        self.started(spin, "-c", "2")
        symbols = f"{self.tmp}/System.map"
        with open(symbols, "w", encoding="ascii") as f:
            f.write("0000000000000000 D none\n0000000000000010 T before\n0000000000000015 T hot\n0000000000000017 T behind\n")
        out = self.ctl_ok("--profile=1", f"--symbols={symbols}", "--kaslr-offset=0x100000", "--profile-rate=400").splitlines()
        self.assertRegex(out[0], r"^vcpu0: [0-9]+ samples, 0\.0% idle$")
        self.assertRegex(out[1], r"^vcpu1: [0-9]+ samples, 100\.0% idle$")
        self.assertEqual(out[2], "symbols moved by 0x100000 (--kaslr-offset)")
        self.assertRegex(out[5], r"^ *(9\d\.\d\d|100\.00)% +[0-9]+  0x0000000000100015  hot\+0x0$")
        r = self.ask("--profile=1", "--cpu=1")
        self.assertEqual(([c["cpu"] for c in r["cpus"]], r["places"], r["engine"]), ([1], [], "soft"))
        self.assertGreater(r["cpus"][0]["samples"], 20)
        self.assertEqual(r["cpus"][0]["samples"], r["cpus"][0]["idle"])
        self.started(idle, name="idle")
        self.in_its_code("idle")
        self.assertRegex(self.ctl_ok("--profile=1", name="idle"), r"^vcpu0: [0-9]+ samples, (9\d\.\d|100\.0)% idle")
        self.ctl_ok("pause", name="idle")
        self.assertEqual(self.ctl_ok("--profile=1", name="idle"), "vcpu0: 0 samples, 0.0% idle\n")
        for bad, text in ((["--profile=0"], "seconds=0: expected"), (["--profile", "--cpu=2"], "cpu=2: expected"),
                          (["--profile", "--profile-rate=99999"], "rate=99999: expected"),
                          (["--profile", "--symbols=/nonexistent"], "/nonexistent: No such file"),
                          (["--profile=1", f"--symbols={symbols}", "--kaslr-offset=x"], "--kaslr-offset=x: expected"),
                          (["--profile", "--profile-top=0"], "--profile-top=0: expected")):
            r = self.ctl(*bad)
            self.assertEqual((r.returncode, text in r.stderr), (1, True), r.stderr)

    def test_profile_and_ends(self):
        p = self.started(tiny.LOOP)
        ctl = subprocess.Popen([LHYVECTL, f"--rundir={self.rundir}", "--vm=vm", "--profile=3600"], stderr=subprocess.PIPE, text=True)
        self.procs.append(ctl)
        time.sleep(0.2)
        self.assertEqual(self.ask("status")["state"], "running")
        ctl.kill()  # the machine goes on
        ctl.wait()
        ctl = subprocess.Popen([LHYVECTL, f"--rundir={self.rundir}", "--vm=vm", "--profile=3600"], stderr=subprocess.PIPE, text=True)
        self.procs.append(ctl)
        time.sleep(0.2)
        self.ctl_ok("poweroff")
        self.end(p, 1)
        self.assertIn("the machine has ended", ctl.communicate(timeout=10)[1])
        self.assertEqual(ctl.returncode, 1)

    # ------ subcommands ------

    def test_clock(self):
        self.started(tiny.LOOP, "-u")
        now = time.time()
        m = re.fullmatch(r"rtc time 0x([0-9a-f]+): (\w{3} \w{3} \d\d \d\d:\d\d:\d\d \d{4})\n", self.ctl_ok("--get-rtc-time"))
        self.assertLess(abs(int(m[1], 16) - now), 3)
        self.ctl_ok("--set-rtc-time=951782399")
        self.assertRegex(self.ctl_ok("--get-rtc-time"), "Mon Feb 28 23:59:59 2000|Tue Feb 29 00:00:0[0-5] 2000")
        self.assertEqual(self.ctl_ok("--get-rtc-nvram", "--rtc-nvram-offset=0x32"), "rtc nvram[050]: 0x20\n")
        self.assertEqual(self.ctl_ok("--set-rtc-nvram=0xa5", "--rtc-nvram-offset=64", "--get-rtc-nvram"), "rtc nvram[064]: 0xa5\n")
        self.assertEqual(self.ask("nvram", "offset=64"), {"offset": 64, "value": 0xA5})
        for bad in (["--rtc-nvram-offset=128", "--get-rtc-nvram"], ["--rtc-nvram-offset=11", "--set-rtc-nvram=1"],
                    ["--set-rtc-time=x"], ["--rtc-nvram-offset=64", "--set-rtc-nvram=256"]):
            self.assertEqual(self.ctl(*bad).returncode, 255, bad)

    def test_status_and_list(self):
        p = self.started(tiny.LOOP)
        s = self.ask("status")
        self.assertEqual((s["name"], s["state"], s["cpus"], s["memory"], s["pid"]), ("vm", "running", 1, 64 << 20, p.pid))
        self.assertIn("state      running\n", self.ctl_ok("status"))
        r = subprocess.run([LHYVECTL, f"--rundir={self.rundir}", "list"], capture_output=True, text=True, check=True)
        self.assertEqual(r.stdout.split(), ["vm", "running", str(p.pid)])

    def test_pause_and_resume(self):
        self.started(tiny.LOOP)
        self.in_its_code()
        self.ctl_ok("pause")
        self.ctl_ok("pause")
        s = self.ask("status")
        self.assertEqual(s["state"], "paused")
        time.sleep(0.05)
        self.assertEqual(self.ask("status")["run_ns"], s["run_ns"])
        self.assertEqual(self.ask("registers")["registers"]["rip"], "0x0000000000100010")
        self.ctl_ok("resume")
        self.assertEqual(self.ask("status")["state"], "running")
        time.sleep(0.05)
        self.assertGreater(self.ask("status")["run_ns"], s["run_ns"])

    def test_move(self):
        p = self.started(tiny.LOOP)
        for args in (["--engine=soft"], ["move", "engine=soft"]):
            r = self.ctl(*args)
            self.assertEqual((r.returncode != 0, "engine.move=true" in r.stderr), (True, True), r.stderr)
        self.assertEqual(self.ask("status")["state"], "running")
        self.ctl_ok("poweroff")
        self.end(p, 1)
        p = self.started(tiny.LOOP, "-o", "engine.move=true", name="mover")
        self.ctl_ok("--engine=soft", name="mover")
        self.ctl_ok("pause", name="mover")
        self.ctl_ok("move", "engine=soft", name="mover")
        self.assertIn("state      paused\n", self.ctl_ok("status", name="mover"))
        self.assertIn("expected kvm or soft", self.ctl("--engine=hard", name="mover").stderr)
        self.ctl_ok("poweroff", name="mover")
        self.end(p, 1)

    def test_powerdown(self):
        self.started(tiny.LOOP)
        r = self.ctl("powerdown")
        self.assertEqual(r.returncode, 1)
        self.assertIn("not enabled ACPI", r.stderr)
        p = self.started(tiny.BUTTON, name="acpi")
        time.sleep(0.2)
        self.ctl_ok("powerdown", name="acpi")
        self.end(p, 1)

    def test_reading(self):
        self.started(tiny.LOOP)
        self.assertEqual(self.ask("read-memory", "at=0x100010", "size=2")["bytes"], tiny.LOOP.hex())
        r = self.ctl("read-memory", "at=0x7ffffffff000")
        self.assertEqual(r.returncode, 1)
        names = [d["name"] for d in self.ask("devices")["devices"]]
        self.assertTrue(any("hostbridge" in n for n in names), names)
        self.assertTrue(any(m["kind"] == "ram" for m in self.ask("memory")["map"]))
        self.assertEqual(self.ask("config")["keys"]["memory.size"], "64")
        self.assertIn("powerdown", self.ctl_ok("help"))
        r = self.ctl("nonsense")
        self.assertEqual((r.returncode, "unknown command 'nonsense'" in r.stderr), (1, True))

    def test_events(self):
        p = self.started(tiny.LOOP, "-l", "com1,pty")
        follow = subprocess.Popen([LHYVECTL, f"--rundir={self.rundir}", "--vm=vm", "events", "past"],
                                  stdout=subprocess.PIPE, text=True)
        self.procs.append(follow)
        as_json = subprocess.Popen([LHYVECTL, f"--rundir={self.rundir}", "--vm=vm", "--json", "events", "past"],
                                   stdout=subprocess.PIPE, text=True)
        self.procs.append(as_json)
        self.ctl_ok("pause")
        self.ctl_ok("resume")
        self.ctl_ok("poweroff")
        self.end(p, 1)
        out, _ = follow.communicate(timeout=10)
        self.assertEqual(follow.returncode, 0)
        names = [line.split(":")[0] for line in out.splitlines()]
        self.assertEqual(names, ["console", "paused", "resumed", "poweroff"])
        self.assertEqual([json.loads(line)["event"] for line in as_json.communicate(timeout=10)[0].splitlines()], names)
        self.assertRegex(out.splitlines()[0], "^console: com1: pty /dev/pts/[0-9]+$")

    def test_socket_is_private_and_tough(self):
        p = self.started(tiny.LOOP)
        self.assertEqual(os.stat(f"{self.rundir}/vm").st_mode & 0o777, 0o700)
        for text in (b"\xff" * 100000, b"[" * 60000 + b"\n", b'{"cmd":"registers","args":{"cpu":4294967296}}\n'):
            s = socket.socket(socket.AF_UNIX)
            s.connect(f"{self.rundir}/vm/ctl")
            s.sendall(text)
            s.close()
        self.assertEqual(self.ask("status")["pid"], p.pid)

    # ------ the rest ------

    def test_lhyveload(self):
        r = subprocess.run([LHYVELOAD, "-m", "1G", "-d", "/disk", "vm"], capture_output=True, text=True, check=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn("--kernel", r.stderr)
        for args, status in (([], 1), (["-m", "x", "vm"], 64), (["-l", "a", "-l", "b", "vm"], 64), (["-q", "vm"], 1)):
            r = subprocess.run([LHYVELOAD, *args], capture_output=True, check=False)
            self.assertEqual(r.returncode, status, args)

    def test_probe(self):
        r = subprocess.run([LHYVE, "--probe", "--json"], capture_output=True, text=True, check=True)
        probe = json.loads(r.stdout)
        self.assertEqual({e["name"] for e in probe["engines"]}, {"kvm", "soft"})
        self.assertTrue(all(p["ns"] > 0 for p in probe["prices"]))
        r = subprocess.run([LHYVE, "--probe"], capture_output=True, text=True, check=True)
        self.assertIn("Engines:\n", r.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[4:])
