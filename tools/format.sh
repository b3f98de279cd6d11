#!/usr/bin/env bash
# format.sh [--check] : clang-format over all C files; --check changes nothing and fails where it would.
. "$(dirname "$0")/lib.sh"
cd "$TOP"
if [ "${1:-}" = --check ]; then set -- --dry-run -Werror; else set -- -i; fi
git ls-files -z 'src/*.[ch]' 'tests/*.[ch]' 'fuzz/*.[ch]' 'bench/*.[ch]' | xargs -0 clang-format "$@"
