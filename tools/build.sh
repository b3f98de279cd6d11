#!/usr/bin/env bash
# build.sh [DIR [MESON OPTION]...] : configures DIR if it is new and builds it, or what LHYVE_TARGET names of it.
. "$(dirname "$0")/lib.sh"
dir=${1:-$BUILD}; shift || :
case $dir in /*) ;; *) dir=$TOP/$dir ;; esac
[ -f "$dir/build.ninja" ] || meson setup "$@" "$dir" "$TOP" >&2
ninja -C "$dir" ${LHYVE_TARGET:+"$LHYVE_TARGET"} >&2
