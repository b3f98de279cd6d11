#!/usr/bin/env python3
"""Compiles src/x86/decode.tab (its head explains the language): gen_decode.py decode.tab KIND OUT.
KIND is ops (enum x86_op), tables (for decode.c), exec_h or exec_c (operation to function), rows (for tests: one ROW() a
line)."""
import os
import re
import sys

# ORDER: enum dec_maps in decode.c, enum row_map in tests/engine/rows.h.
MAPS = ['', '0f', '0f38', '0f3a', 'v.0f', 'v.0f38', 'v.0f3a', 'e.0f', 'e.0f38', 'e.0f3a', 'e.m5', 'e.m6']
VEX, EVEX = 4, 7
# Selectors of the decision trees, in the order in which they are asked; ORDER: enum dec_sel in decode.c.
SELS = [('mode', 2), ('pfx', 4), ('mod', 2), ('reg', 8), ('rm', 8), ('l', 3), ('w', 2), ('rexb', 2)]
PFX = {'np': 0, '66': 1, 'f2': 2, 'f3': 3}
FEATS = ('X87 MMX SSE SSE2 SSE3 SSSE3 SSE41 SSE42 AES PCLMUL SHA GFNI F16C FMA AVX AVX2 VAES VPCLMUL AVX512F AVX512DQ AVX512IFMA '
         'AVX512CD AVX512BW AVX512VL AVX512VBMI AVX512VBMI2 AVX512VNNI AVX512BITALG AVX512VPOPCNTDQ AVX512BF16 AVX512FP16').split()
VFLAGS = {'fi': 'VEC_FLAGS_IN', 'fp': 'VEC_FP', 'fl': 'VEC_FLAGS', 'un': 'VEC_UNALIGNED', 'al': 'VEC_ALIGNED', 'x0': 'VEC_XMM0_IN',
          'x0w': 'VEC_XMM0_OUT', 'str': 'VEC_STR_IN', 'cxw': 'VEC_RCX_OUT', 'er': 'VEC_ER',
          'sae': 'VEC_SAE', 'nf': 'VEC_NO_SUPPRESS', 'cx': 'VEC_DENSE', 'rp': 'VEC_REPEAT', 'pt': 'VEC_PART', 'km': 'VEC_MASKED',
          'dd': 'VEC_DISTINCT'}
ELEMS = {'b': 1, 'w': 2, 'd': 4, 'q': 8}
ATTRS = set('lock i64 o64 d64 f64 modreg l0 l1 w0 w1 l2 l12 rexb lig mb mw md mq bw bd bq'.split())
KINDS = {'E': 'RM', 'R': 'RM', 'G': 'REG', 'Z': 'OPREG', 'B': 'VVVV', 'M': 'MEM', 'A': 'ACC', 'I': 'IMM', 'S': 'IMM',
         'J': 'REL', 'O': 'MOFFS', 'F': 'FAR', 'T': 'SREG', 'C': 'CR', 'D': 'DR'}
VSLOT = {'V': ('REG', 'XMM'), 'H': ('VVVV', 'XMM'), 'L': ('IS4', 'XMM'), 'W': ('RM', 'XMM'), 'U': ('RM', 'XMM'),
         'M': ('RM', 'NONE'), 'P': ('REG', 'MMX'), 'Q': ('RM', 'MMX'), 'N': ('RM', 'MMX'), 'E': ('RM', 'GPR'),
         'G': ('REG', 'GPR'), 'I': ('IMM', 'NONE')}
KSLOT = {'r': ('REG', 'MASK'), 'v': ('VVVV', 'MASK'), 'm': ('RM', 'MASK'), 'u': ('RM', 'MASK')}
VMEM = {'': 'NONE', 'b': 'B', 'w': 'W', 'd': 'D', 'q': 'Q', 't': 'T', 'o': 'O', 'Y': 'YY', 'y': 'Y', 'x': 'X', 'f': 'F', 'g': 'G',
        'e': 'E'}


class Row:
    """One line of the table. limit: selector to the set of values it allows."""

    def __init__(self, line, section, where):
        f = line.split()
        if len(f) < 3:
            raise SystemExit(f'{where}: want OPCODE MNEMONIC OPERANDS')
        self.where, self.section, self.line = where, section, line
        self.name, self.attrs = f[1], f[3:]
        self.opnds = [] if f[2] == '-' else f[2].split(',')
        self.op = self.name if section == 'int' else {'vec': 'VEC', 'x87': 'X87'}[section]
        self.os = None
        self.feat = None
        self.limit = {}
        self.parse_attrs()
        self.parse_spec(f[0])
        self.modrm = self.needs_modrm()
        self.vec = None if section == 'int' else self.vec_row()

    def fail(self, why):
        raise SystemExit(f'{self.where}: {why}: {self.line}')

    def parse_attrs(self):
        rest = []
        for a in self.attrs:
            if a.startswith('os='):
                self.os = a[3:]
            elif a.startswith('op='):
                self.op = a[3:]
            elif a.split('/')[0] in FEATS:
                self.feat = a
            elif a in ATTRS or a in VFLAGS:
                rest.append(a)
            else:
                self.fail(f'unknown attribute {a}')
        self.attrs = rest
        for a, sel, *val in (('i64', 'mode', 0), ('o64', 'mode', 1), ('l0', 'l', 0), ('l1', 'l', 1), ('l2', 'l', 2),
                             ('l12', 'l', 1, 2), ('w0', 'w', 0), ('w1', 'w', 1), ('rexb', 'rexb', 1)):
            if a in rest:
                self.limit[sel] = set(val)

    def parse_spec(self, spec):
        m = re.fullmatch(r'((?:[ve]\.)?(?:0f(?:38|3a)?|m[56])?)\.?([0-9a-f]{2})(?:-([0-9a-f]{2})|\+([rc]))?(?:/([0-7]))?'
                         r'(?:\.(m|r[0-7]?))?(?::(np|66|f2|f3))?', spec)
        if not m:
            self.fail('bad opcode')
        self.map = MAPS.index(m[1].rstrip('.'))
        lo = int(m[2], 16)
        hi = int(m[3], 16) if m[3] else lo + {'r': 7, 'c': 15, None: 0}[m[4]]
        self.opcodes = range(lo, hi + 1)
        if m[5]:
            self.limit['reg'] = {int(m[5])}
        if m[6]:
            self.limit['mod'] = {0 if m[6] == 'm' else 1}
            if len(m[6]) == 2:
                self.limit['rm'] = {int(m[6][1])}
        if m[7]:
            self.limit['pfx'] = {PFX[m[7]]}
        letters = {o.lstrip('=+')[0] for o in self.opnds}
        if 'mod' not in self.limit and 'modreg' not in self.attrs:
            if 'M' in letters:
                self.limit['mod'] = {0}
            elif letters & {'U', 'N', 'R'} or any(o.lstrip('=+') == 'Ku' for o in self.opnds):
                self.limit['mod'] = {1}

    def needs_modrm(self):
        letters = {o.lstrip('=+')[0] for o in self.opnds if o not in ('CL', 'DX')}
        own = set('EGMRCD') if self.section == 'int' else set('VWUMPQNEGK')
        return self.map >= EVEX or bool(letters & own or 'Tr' in self.opnds or set(self.limit) & {'reg', 'mod', 'rm'})

    # --- operands of general instructions
    def opnd(self, o):
        if o == '1':
            return ('ONE', 'b', 0)
        if o in ('CL', 'DX'):
            return ('FIXED', 'b' if o == 'CL' else 'w', 1 if o == 'CL' else 2)
        if o[0] not in KINDS:
            self.fail(f'bad operand {o}')
        if o[0] == 'T':
            return ('SREG', 'w', 0xff if o[1] == 'r' else int(o[1]))
        return (KINDS[o[0]], o[1:] or '-', 0)

    def imm(self):
        kinds = []
        for o in self.opnds:
            o = o.lstrip('=+')
            k = {'Ib': 'B', 'Iw': 'W', 'Iv': 'V', 'Sz': 'Z', 'Sb': 'SB', 'Jb': 'SB', 'Jz': 'Z', 'Fp': 'FAR', 'Ob': 'MOFFS',
                 'Ov': 'MOFFS', 'L': 'B'}.get(o)
            if k:
                kinds.append(k)
        if kinds == ['W', 'B']:
            return 'WB'
        return kinds[0] if kinds else 'NONE'

    def os_class(self):
        for a in ('d64', 'f64'):
            if a in self.attrs:
                return a
        if self.os:
            return self.os
        if self.section != 'int':
            return 'y'
        for o in self.opnds:
            if o[0] in 'EGZABMRCDO' and o not in ('CL', 'DX'):
                s = o[1:]
                return {'b': 'b', 'w': 'w', 'd': 'd', 'q': 'q', 'y': 'y', 'c': 'c', 'z': 'z'}.get(s, 'v')
        return 'v'

    # --- operands of vector and x87 instructions
    def vec_row(self):
        masks = any(o.lstrip('=+')[0] == 'K' for o in self.opnds)
        kind = 'X87' if self.section == 'x87' else 'AVX512' if self.map >= EVEX or masks else 'AVX' if self.map >= VEX else 'SSE'
        ops = []
        for o in self.opnds:
            acc = {'=': 'VA_WRITE', '+': 'VA_READ | VA_WRITE'}.get(o[0], 'VA_READ')
            o = o.lstrip('=+')
            if o in ('s0', 'si'):
                ops.append(('ST0' if o == 's0' else 'STI', 'NONE', 'VA_READ', 'NONE'))
                continue
            if o[0] == 'K':
                ops.append((*KSLOT[o[1]], acc, 'NONE'))
                continue
            slot, file = VSLOT[o[0]]
            mem = 'NONE' if o == 'Ib' else 'ANY' if o == 'Mx' and self.section == 'x87' else VMEM[o[1:]]
            ops.append((slot, file, acc, mem))
        if kind == 'SSE' and all(o[1] != 'XMM' for o in ops) and any(o[1] == 'MMX' for o in ops):
            kind = 'MMX'
        flags = ' | '.join(VFLAGS[a] for a in self.attrs if a in VFLAGS) or '0'
        opnds = ', '.join('{ VS_%s, VF_%s, %s, VM_%s }' % o for o in ops)
        feat = self.feat or 'X87'
        elem, bcast = ([ELEMS[a[1]] for a in self.attrs if a in (k + 'b', k + 'w', k + 'd', k + 'q')] or [0] for k in 'mb')
        if self.map >= EVEX and ('lig' in self.attrs or ('l0' in self.attrs and not elem[0])):
            flags += ' | VEC_SCALAR'
        return f'VK_{kind}, FEAT_%s, {len(ops)}, {elem[0]}, {bcast[0]}, {flags}, {{ {opnds} }}', feat

    def variants(self):
        """A/B features differ by VEX.L: two rows."""
        if self.vec and '/' in self.vec[1]:
            a, b = self.vec[1].split('/')
            for val, feat in ((0, a), (1, b)):
                if 'l' in self.limit and val not in self.limit['l']:
                    continue
                yield {**self.limit, 'l': {val}}, feat
        else:
            yield self.limit, self.vec[1] if self.vec else None


def lines(path, section='int'):
    """Yields (line, section, where) with templates expanded."""
    defs, cur = {}, None
    with open(path, encoding='ascii') as f:
        for no, line in enumerate(f, 1):
            line = line.split('#')[0].strip()
            where = f'{path}:{no}'
            if not line:
                continue
            if line.startswith('%include '):
                yield from lines(os.path.join(os.path.dirname(path), line[9:]), 'vec')
            elif line.startswith('%'):
                section = line[1:]
            elif line.startswith('@def '):
                cur = defs[line[5:].strip()] = []
            elif line == '@end':
                cur = None
            elif cur is not None:
                cur.append(line)
            elif line.startswith('@'):
                name, o, n, *x = line[1:].split()
                for t in defs[name]:
                    yield t.format(o=o, n=n, x=' '.join(x)), section, where
            else:
                yield line, section, where


def parse(path):
    rows, ops = [], []
    for line, section, where in lines(path):
        if line.startswith('='):
            names = line[1:].split()
        else:
            rows.append(Row(line, section, where))
            names = [rows[-1].op]
        ops += [n for n in names if n not in ops]
    return rows, sorted(ops)


class Tables:
    """Decision trees over rows, shared where equal."""

    def __init__(self, rows):
        self.rows, self.rowkey = ['{ OP_INVALID, 0, OS_v, IMM_NONE, 0, { 0 }, 0xffff }'], {}
        self.opnds, self.vecs, self.nodes, self.next = [], [], [], []
        self.nodekey = {}
        self.maps = []
        self.modrm = []
        for m in range(len(MAPS)):
            out, bits = [], []
            for opc in range(256):
                cand = [(lim, r, feat) for r in rows if r.map == m and opc in r.opcodes for lim, feat in r.variants()]
                modrm = {r.modrm for _, r, _ in cand}
                if len(modrm) > 1:
                    raise SystemExit(f'{cand[0][1].where}: ModRM or not?')
                bits.append(int(True in modrm))
                out.append(self.tree(cand, 0))
            self.maps.append(out)
            self.modrm.append(bits)

    def tree(self, cand, depth):
        if not cand:
            return 0
        for s in range(depth, len(SELS)):
            sel, n = SELS[s]
            if any(sel in lim for lim, _, _ in cand):
                kids = tuple(self.tree([c for c in cand if v in c[0].get(sel, {v})], s + 1) for v in range(n))
                if len(set(kids)) == 1:
                    return kids[0]
                return self.node(s, kids)
        return self.leaf(cand)

    def leaf(self, cand):
        """The one with most limits; REX.B counts more than all (90 is XCHG then)."""
        rank = [(('rexb' in lim) * 16 + len(lim), lim, r, feat) for lim, r, feat in cand]
        best = max(k[0] for k in rank)
        won = [k for k in rank if k[0] == best]
        if len(won) > 1:
            raise SystemExit(f'{won[0][2].where}: the same encoding as {won[1][2].where}')
        return self.row(won[0][2], won[0][3])

    def node(self, sel, kids):
        key = (sel, kids)
        if key not in self.nodekey:
            self.nodekey[key] = 0x8000 | len(self.nodes)
            self.nodes.append(f'{{ SEL_{SELS[sel][0]}, {len(self.next)} }}')
            self.next += kids
        return self.nodekey[key]

    def intern(self, pool, x):
        if x not in pool:
            pool.append(x)
        return pool.index(x)

    def row(self, r, feat):
        if (id(r), feat) in self.rowkey:
            return self.rowkey[id(r), feat]
        flags = ['ROW_' + a.upper() for a in ('lock', 'modreg') if a in r.attrs]
        letters = {o.lstrip('=+')[0] for o in r.opnds if o not in ('CL', 'DX')}
        if r.map >= VEX and not letters & {'H', 'B'} and '=Kv' not in r.opnds and 'Kv' not in r.opnds:
            flags.append('ROW_NOVVVV')
        if 'lig' in r.attrs:
            flags.append('ROW_LIG')
        if '+c' in r.line.split()[0]:
            flags.append('ROW_COND')
        if '+r' in r.line.split()[0] or 'Zv' in r.opnds or 'Zb' in r.opnds:
            flags.append('ROW_OPREG')
        if 'C' in letters and r.section == 'int':
            flags.append('ROW_CR')
        if 'D' in letters and r.section == 'int':
            flags.append('ROW_DR')
        if r.op == 'MOV_SREG':
            flags.append('ROW_SREG_TO' if r.opnds[0] == 'Tr' else 'ROW_SREG_FROM')
        if r.op == 'VGATHER':
            flags.append('ROW_GATHER')
        if r.op in ('VGATHERK', 'VSCATTER'):
            flags.append('ROW_VSIB')
        if 'K' in letters and r.section == 'vec':
            flags.append('ROW_MASKS')
        vec, opnds = 0xffff, []
        if r.vec:
            vec = self.intern(self.vecs, f'{{ "{r.name.lower()}", {r.vec[0] % feat} }}')
        else:
            opnds = [self.intern(self.opnds, '{ OPND_%s, SZ_%s, %d }' % (k, s.replace('-', 'none'), n))
                     for k, s, n in map(r.opnd, r.opnds)]
        idx = self.rowkey[id(r), feat] = len(self.rows)
        self.rows.append(f'{{ OP_{r.op}, {" | ".join(flags) or 0}, OS_{r.os_class()}, IMM_{r.imm()}, {len(opnds)}, '
                         f'{{ {", ".join(map(str, opnds)) or 0} }}, {vec} }}')
        return idx

    def text(self, ops):
        def table(decl, items, per=1):
            body = ''.join('\t' + ', '.join(map(str, items[k:k + per])) + ',\n' for k in range(0, len(items), per))
            return f'{decl} = {{\n{body}}};\n\n'
        out = '/* Generated from decode.tab; read by decode.c only. */\n\n'
        out += table('static const struct vec_row vec_rows[]', self.vecs)
        out += table('static const struct dec_opnd dec_opnds[]', self.opnds)
        out += table('static const struct dec_row dec_rows[]', self.rows)
        out += table('static const struct dec_node dec_nodes[]', self.nodes, 8)
        out += table('static const uint16_t dec_next[]', self.next, 16)
        out += 'static const uint16_t dec_map[%d][256] = {\n' % len(MAPS)
        for m in self.maps:
            out += '{\n' + ''.join('\t' + ', '.join(map(str, m[k:k + 16])) + ',\n' for k in range(0, 256, 16)) + '},\n'
        out += '};\n\nstatic const uint8_t dec_modrm[%d][256] = {\n' % len(MAPS)
        for m in self.modrm:
            out += '{\n' + ''.join('\t' + ', '.join(map(str, m[k:k + 32])) + ',\n' for k in range(0, 256, 32)) + '},\n'
        out += '};\n\n'
        names = ''.join(f'\t[OP_{o}] = "{o.lower()}",\n' for o in ops)
        return out + f'static const char *const op_names[OP_COUNT] = {{\n\t[OP_INVALID] = "(bad)",\n{names}}};\n'


def ops_h(rows, ops):
    return ('/* Generated from decode.tab. */\n#ifndef X86_OPS_H\n#define X86_OPS_H\n\nenum x86_op {\n\tOP_INVALID,\n' +
            ''.join(f'\tOP_{o},\n' for o in ops) + '\tOP_COUNT\n};\n\n#endif\n')


def tables_h(rows, ops):
    return Tables(rows).text(ops)


def exec_h(rows, ops):
    return ('/* Generated from decode.tab: what each instruction means. */\n#ifndef ENGINE_SOFT_EXEC_TABLE_H\n'
            '#define ENGINE_SOFT_EXEC_TABLE_H\n\n#include "engine/soft/cpu.h"\n\n' +
            ''.join(f'void op_{o.lower()}(struct cpu *c, const struct insn *i);\n' for o in ops) + '\n#endif\n')


def exec_c(rows, ops):
    return ('/* Generated from decode.tab. */\n#include "engine/soft/exec_table.h"\n\n'
            'static void op_invalid(struct cpu *c, const struct insn *i)\n{\n\tcpu_ud(c);\n}\n\n' +
            '\nconst exec_fn exec_table[OP_COUNT] = {\n\t[OP_INVALID] = op_invalid,\n' +
            ''.join(f'\t[OP_{o}] = op_{o.lower()},\n' for o in ops) + '};\n')


def rows_inc(rows, ops):
    def row(r):
        sels = ', '.join(str(*r.limit[s]) if len(r.limit.get(s, ())) == 1 else '-1' for s, _ in SELS)
        feat = 'FEAT_' + (r.feat or 'X87').split('/')[-1]
        modrm = 'true' if r.modrm else 'false'
        return (f'ROW("{" ".join(r.line.split())}", "{r.name}", OP_{r.op}, {r.map}, 0x{r.opcodes[0]:02x}, 0x{r.opcodes[-1]:02x}, '
                f'{sels}, "{",".join(r.opnds)}", "{r.os_class()}", SECTION_{r.section.upper()}, {feat}, {modrm}, "{" ".join(r.attrs)}")')
    return '/* Generated from decode.tab. */\n' + '\n'.join(row(r) for r in rows) + '\n'


def main():
    tab, kind, out = sys.argv[1:4]
    text = {'ops': ops_h, 'tables': tables_h, 'exec_h': exec_h, 'exec_c': exec_c, 'rows': rows_inc}[kind](*parse(tab))
    with open(out, 'w', encoding='ascii') as f:
        f.write(text)


if __name__ == '__main__':
    main()
