#!/usr/bin/env bash
# lbench.sh [OPTION OF compare.py]... : the lbench suite natively, under QEMU's TCG and under lhyve, in turns, pinned to core 0.
# LHYVE_BENCH_OPTIONS: further options of lhyve, as "-o engine.soft=interp".
# The suite and its driver are not part of this project: LHYVE_TOOLS says where they are (default: ../shared/tools).
. "$(dirname "$0")/../tools/lib.sh"
tools=${LHYVE_TOOLS:-$TOP/../shared/tools}
[ -x "$tools/compare.py" ] || die "no compare.py in $tools: set LHYVE_TOOLS to the folder that has it"
"$BUILD/src/cmd/lhyve" --probe
exec taskset -c 0 "$tools/compare.py" "$@" \
  "$BUILD/src/cmd/lhyve -c {cpus} -m {mem}M -H -s 0,hostbridge -s 31,lpc -l com1,stdio -o engine=soft ${LHYVE_BENCH_OPTIONS:-} -o boot.kernel={kernel} -o boot.initrd={initrd} -o boot.cmdline={append} lbench$$"
