#!/usr/bin/env python3
"""oracle.py ROWS.INC TABLE TOP T_DIFF T_THUNK T_PRIV T_MANUAL : each row of the opcode table has an oracle.

Runs the testers, which count their cases by rows, and writes the coverage table: row, oracles, cases, and how many of them
used registers, memory, memory across a page, and raised an exception. Fails when a row has no oracle (but those of AVX-512 on a CPU
without, or without that part of it, are skipped), and when a general
instruction with a memory operand, proved by this CPU, never crossed a page or never raised."""
import os
import re
import subprocess
import sys
import tempfile

SKIPPED = 77


def run(program, counts):
    with tempfile.NamedTemporaryFile('r') as f:
        rc = subprocess.run([program], env={**os.environ, 'ROWS': f.name}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if rc.returncode == SKIPPED:
            return False
        if rc.returncode:
            sys.exit(f'{program}:\n{rc.stdout.decode()}')
        for line in f:
            row, oracle, *n = line.rstrip('\n').split('\t')
            n = list(map(int, n))
            have = counts.setdefault(row, {}).setdefault(oracle, [0] * 5)
            counts[row][oracle] = [a + b for a, b in zip(have, n)]
    return True


def manual(path, top):
    out = {}
    for line in open(path, encoding='ascii'):
        if line[0] == '#':
            continue
        name, test, section = line.split(None, 2)
        file, function = test.split(':')
        if f'{function}(' not in open(os.path.join(top, file), encoding='utf-8').read():
            sys.exit(f'{path}: {test}: no such test')
        out[name] = section.strip()
    return out


def main():
    inc, table, top, *programs = sys.argv[1:]
    rows = [(m[1], m[2], m[3] == 'INT')
            for m in re.finditer(r'^ROW\("([^"]*)", "([^"]*)".*SECTION_(\w+),', open(inc, encoding='ascii').read(), re.M)]
    by_hand, counts, empty, thin = manual(os.path.join(top, 'tests/engine/oracles.txt'), top), {}, [], []
    skipped = [p for p in programs if not run(p, counts)]
    lines = [f'{"row":44} {"cases":>8} {"register":>8} {"memory":>8} {"crossing":>8} {"raised":>8}  oracle']
    flags = open('/proc/cpuinfo', encoding='ascii').read().split()
    unproved = 'avx512f' not in flags
    for text, name, general in rows:
        c = counts.get(text, {})
        named = [{'native': 'this CPU', 'TCG': 'QEMU TCG', 'manual': f'SDM vol. 2, {name}'}[o] for o in c]
        named += [by_hand[name]] if name in by_hand else []
        n = [sum(v[k] for v in c.values()) for k in range(5)]
        lines.append(f'{text:44} ' + ' '.join(f'{v:8}' for v in n) + '  ' + '; '.join(named))
        part = re.search(r'\bAVX512(\w*)', text)
        if not named and ((unproved and (part or text.startswith('e.'))) or (part and f'avx512_{part[1].lower()}' not in flags
                                                                             and f'avx512{part[1].lower()}' not in flags)):
            skipped.append(text)
        elif not named:
            empty.append(text)
        elif general and c.get('native', [0] * 5)[2] >= 200 and not (n[3] and n[4]) and re.search(r'\b[EM][vzdq]\b', text):
            thin.append(text)
    with open(table, 'w', encoding='ascii') as f:
        f.write('\n'.join(lines) + '\n')
    native = sum('native' in counts.get(t, {}) for t, _, _ in rows)
    print(f'{len(rows)} rows, {native} of them by this CPU, {sum("TCG" in c for c in counts.values())} by QEMU TCG; table: {table}')
    for what, which in (('no oracle', empty), ('its memory operand never crossed a page, or never faulted', thin)):
        for t in which:
            print(f'{what}: {t}')
    if skipped:
        print('skipped, their rows are not proved here:', *skipped)
        sys.exit(SKIPPED)
    sys.exit(1 if empty or thin else 0)


main()
