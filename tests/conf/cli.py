#!/usr/bin/env python3
"""Command lines and what they must do: cli.py LHYVE CASES.

CASES is text. A case starts with a line `$ arguments` (quoted as a shell would) and may hold
  = N        the exit status (default 0)
  > line     a line of standard output; all of them, in order, must be the whole output
  >~ text    standard output holds this text
  >! text    standard output does not hold it
  ! text     standard error holds this text
  !! text    standard error does not hold it
  !1 text    standard error holds it exactly once
  dump key=value, dump !key    of config.dump: has this line, or nothing for that key
`TMP` in arguments is a directory with the files of lines `file NAME text` (\\n for a new line) and off.elf, a kernel that powers
off at once.
"""
import os
import shlex
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import tiny  # noqa: E402  pylint: disable=wrong-import-position


class Case:
    def __init__(self, line, n):
        self.args, self.n, self.status, self.checks = line, n, 0, []


def parse(path):
    cases, files = [], {}
    with open(path, encoding="utf-8") as f:
        for n, line in enumerate(f, 1):
            line = line.rstrip("\n")
            word, _, rest = line.partition(" ")
            if not line or word == "#":
                continue
            if word == "file":
                name, _, text = rest.partition(" ")
                files[name] = text.replace("\\n", "\n")
            elif word == "$":
                cases.append(Case(rest, n))
            elif word == "=":
                cases[-1].status = int(rest)
            elif word in (">", ">~", ">!", "!", "!!", "!1", "dump"):
                cases[-1].checks.append((word, rest))
            else:
                sys.exit(f"{path}:{n}: not understood: {line}")
    return cases, files


def check(case, run):
    out, err, bad = run.stdout.decode(), run.stderr.decode(), []
    if run.returncode != case.status:
        bad.append(f"status {run.returncode}, expected {case.status}")
    exact = [text for kind, text in case.checks if kind == ">"]
    if exact and out.splitlines() != exact:
        bad.append(f"output {out.splitlines()}, expected {exact}")
    lines = out.splitlines()
    for kind, text in case.checks:
        if kind == ">~" and text not in out:
            bad.append(f"output lacks {text!r}")
        if kind == ">!" and text in out:
            bad.append(f"output holds {text!r}")
        if kind == "!" and text not in err:
            bad.append(f"standard error lacks {text!r}")
        if kind == "!!" and text in err:
            bad.append(f"standard error holds {text!r}")
        if kind == "!1" and err.count(text) != 1:
            bad.append(f"standard error holds {text!r} {err.count(text)} times, expected once")
        if kind == "dump" and text.startswith("!") and any(x.startswith(text[1:] + "=") for x in lines):
            bad.append(f"dump has the key {text[1:]}")
        if kind == "dump" and not text.startswith("!") and text not in lines:
            bad.append(f"dump lacks {text!r}")
    return bad, out, err


def main():
    lhyve, path = sys.argv[1:]
    cases, files = parse(path)
    failed = 0
    with tempfile.TemporaryDirectory() as tmp:
        for name, text in files.items():
            with open(f"{tmp}/{name}", "w", encoding="utf-8") as f:
                f.write(text)
        tiny.write(f"{tmp}/off.elf", tiny.POWEROFF)
        for case in cases:
            args = shlex.split(case.args.replace("TMP", tmp))
            if any(kind == "dump" for kind, _ in case.checks):
                args = ["-o", "config.dump=1"] + args
                case.status = case.status or 1
            args = ["-o", f"rundir={tmp}/run"] + args
            run = subprocess.run([lhyve] + args, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
            bad, out, err = check(case, run)
            if bad:
                failed += 1
                print(f"{path}:{case.n}: {case.args}")
                for b in bad:
                    print(f"    {b}")
                print("    --- stdout\n" + out[:2000] + "    --- stderr\n" + err[:2000])
    print(f"{len(cases) - failed} command lines passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
