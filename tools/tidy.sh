#!/usr/bin/env bash
# tidy.sh [FILE]... : clang-tidy, by .clang-tidy, over the C files of src/ (or those); fails on any finding. Builds build-test-clang first, for
# the commands and for headers that are made at build.
. "$(dirname "$0")/lib.sh"
cd "$TOP"
dir=${LHYVE_TIDY_BUILD:-build-test-clang}
[ -f "$dir/build.ninja" ] || CC=clang meson setup --werror "$dir" > /dev/null
log=$(ninja -C "$dir" 2>&1) || { echo "$log" | grep -E 'error|FAILED' -A 5; die "the build in $dir failed"; }
if [ $# = 0 ]; then mapfile -d '' -t files < <(git ls-files -z 'src/*.c'); else files=("$@"); fi
# One file a process: the analyzer of clang 14 mistakes va_lists in a second one. Errors of files that match no command are lines of stderr.
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "${LHYVE_TIDY_JOBS:-$(nproc)}" clang-tidy -p "$dir" --quiet 2> >(grep -vE '^[0-9]+ warnings? (generated|treated)|^Suppressed|^Use -header' >&2)
