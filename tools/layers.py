#!/usr/bin/env python3
"""layers.py: fails on an include in src/ that does not follow the arrows of ARCHITECTURE.md, or that is cyclic by name.

An arrow A -> B lets files of A include headers of B and, since arrows are transitive, of all that B may include."""
import os, re, sys

ARROWS = {
    'cmd': 'ctl gdb ui priv vm', 'ctl': 'vm', 'gdb': 'vm', 'vm': 'board engine', 'board': 'dev x86',
    'dev': 'back mem irq snap conf', 'ui': 'back', 'back': 'loop conf', 'engine': 'x86 snap irq loop conf',
    'mem': 'loop', 'irq': 'loop', 'snap': 'loop', 'loop': 'base', 'conf': 'base', 'x86': 'conf irq snap', 'priv': 'base', 'base': '',
}
TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'src')


def reach(folder):
    seen, todo = set(), [folder]
    while todo:
        f = todo.pop()
        if f not in seen:
            seen.add(f)
            todo += ARROWS[f].split()
    return seen


def main():
    allowed = {f: reach(f) for f in ARROWS}
    bad = 0
    for root, _, names in os.walk(TOP):
        for n in sorted(names):
            if not n.endswith(('.c', '.h')):
                continue
            path = os.path.relpath(os.path.join(root, n), TOP)
            folder = path.split(os.sep)[0]
            if folder not in ARROWS:
                print(f'src/{path}: no folder "{folder}" in the arrows')
                bad += 1
                continue
            for i, line in enumerate(open(os.path.join(TOP, path)), 1):
                m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
                if not m:
                    continue
                target = m.group(1).split('/')[0]
                if '/' not in m.group(1):
                    if m.group(1) != 'config.h':
                        print(f'src/{path}:{i}: "{m.group(1)}" is not a path from src/')
                        bad += 1
                elif target not in allowed[folder]:
                    print(f'src/{path}:{i}: {folder} may not include {target}')
                    bad += 1
                elif m.group(1).endswith('_int.h') and not path.startswith(os.path.dirname(m.group(1)) + '/'):
                    print(f'src/{path}:{i}: {m.group(1)} is private to its folder')
                    bad += 1
    return bad != 0


sys.exit(main())
