#!/usr/bin/env python3
"""Makes a manual page: copies SOURCE, and puts what a program prints where a line says so.

A line `.\\" INCLUDE options` becomes the output of `LHYVE --print options`.
Usage: compose.py SOURCE LHYVE OUTPUT
"""
import subprocess
import sys

MARK = '.\\" INCLUDE '


def main():
    source, lhyve, output = sys.argv[1:]
    with open(source, encoding="utf-8") as f, open(output, "w", encoding="utf-8") as out:
        for line in f:
            if line.startswith(MARK):
                what = line[len(MARK):].strip()
                line = subprocess.run([lhyve, "--print", what], check=True, capture_output=True, text=True).stdout
            out.write(line)


if __name__ == "__main__":
    main()
