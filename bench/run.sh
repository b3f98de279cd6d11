#!/usr/bin/env bash
# run.sh : all benchmarks of doc/promises.md, on an otherwise idle machine.
. "$(dirname "$0")/../tools/lib.sh"
"$TOP/bench/boot.py" 5
"$TOP/bench/debian.py"
"$TOP/bench/apps.py" 3
"$TOP/bench/smp.py" 5
"$TOP/bench/translate.py" 3
"$TOP/bench/kvm.py" 5
"$TOP/bench/lbench.sh" --scale 0.3 -n 1 --bench hash,sort,lz,interp,virtcall,fib,string,smc
