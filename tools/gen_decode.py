#!/usr/bin/env python3
"""Compiles src/x86/decode.tab: gen_decode.py decode.tab KIND OUT, where KIND is ops | exec_h | exec_c."""
import sys


class Row:
    def __init__(self, line, where):
        f = line.split()
        if len(f) < 3:
            raise SystemExit(f'{where}: want OPCODE MNEMONIC OPERANDS')
        self.spec, self.op, self.opnds, self.attrs, self.where = f[0], f[1], f[2], f[3:], where


def parse(path):
    rows, ops = [], []
    with open(path, encoding='ascii') as f:
        for no, line in enumerate(f, 1):
            line = line.split('#')[0].strip()
            if not line:
                continue
            if line.startswith('='):
                names = line[1:].split()
            else:
                rows.append(Row(line, f'{path}:{no}'))
                names = [rows[-1].op]
            ops += [n for n in names if n not in ops]
    return rows, sorted(ops)


def ops_h(ops):
    return ('/* Generated from decode.tab. */\n#ifndef X86_OPS_H\n#define X86_OPS_H\n\nenum x86_op {\n\tOP_INVALID,\n' +
            ''.join(f'\tOP_{o},\n' for o in ops) + '\tOP_COUNT\n};\n\n#endif\n')


def exec_h(ops):
    return ('/* Generated from decode.tab: what each instruction means. */\n#ifndef ENGINE_SOFT_EXEC_TABLE_H\n'
            '#define ENGINE_SOFT_EXEC_TABLE_H\n\n#include "engine/soft/cpu.h"\n\n' +
            ''.join(f'void op_{o.lower()}(struct cpu *c, const struct insn *i);\n' for o in ops) + '\n#endif\n')


def exec_c(ops):
    return ('/* Generated from decode.tab. */\n#include "engine/soft/exec_table.h"\n\n'
            'static void op_invalid(struct cpu *c, const struct insn *i)\n{\n\tcpu_ud(c);\n}\n\n' +
            ''.join(f'#pragma weak op_{o.lower()}\n' for o in ops) +
            '\nconst exec_fn exec_table[OP_COUNT] = {\n\t[OP_INVALID] = op_invalid,\n' +
            ''.join(f'\t[OP_{o}] = op_{o.lower()},\n' for o in ops) + '};\n')


def main():
    tab, kind, out = sys.argv[1:4]
    rows, ops = parse(tab)
    text = {'ops': ops_h, 'exec_h': exec_h, 'exec_c': exec_c}[kind](ops)
    with open(out, 'w', encoding='ascii') as f:
        f.write(text)


if __name__ == '__main__':
    main()
