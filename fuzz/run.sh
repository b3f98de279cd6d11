#!/usr/bin/env bash
# run.sh [SECONDS] : the differential tester against this host's CPU, random programs against the memory model, with a new seed in each round;
# without SECONDS until stopped. First the cases that failed before. A failing round prints its seed; its output and the
# case, as a file that t_diff replays, stay in fuzz/failed/.
. "$(dirname "$0")/../tools/lib.sh"
end=$(( $(date +%s) + ${1:-31536000} ))
dir=$TOP/build-fuzz
"$TOP/tools/setup.sh" build
[ -f "$dir/build.ninja" ] || meson setup -Dbuildtype=debugoptimized "$dir" "$TOP" >&2
ninja -C "$dir" tests/engine/t_diff tests/engine/t_priv tests/engine/t_legacy tests/engine/t_real tests/engine/t_litmus_random >&2
mkdir -p "$TOP/fuzz/failed"
rounds=0
for c in "$TOP"/fuzz/failed/*.case "$TOP"/tests/engine/cases/*.case; do
  [ ! -f "$c" ] || "$dir/tests/engine/t_diff" "$c" || { echo "$c differs (again)"; exit 1; }
done
while [ "$(date +%s)" -lt "$end" ]; do
  seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
  log=$TOP/fuzz/failed/diff-$seed
  if ! "$dir/tests/engine/t_diff" --seed "$seed" --seconds 20 --save "$TOP/fuzz/failed" > "$log" 2>&1; then
    tail -n 20 "$log"; echo "seed $seed differs: see $log"; exit 1
  fi
  for conf in 'engine.soft=interp' 'engine.soft=jit engine.soft.hot=0'; do
    for t in t_priv t_legacy t_real; do
      rc=0; LHYVE_TEST_CONF=$conf "$dir/tests/engine/$t" --seed "$seed" --rounds 4 > "$log" 2>&1 || rc=$?
      [ $rc = 0 ] || [ $rc = 77 ] || { tail -n 20 "$log"; echo "$t: seed $seed differs from TCG ($conf): see $log"; exit 1; }
    done
    LHYVE_TEST_CONF=$conf "$dir/tests/engine/t_litmus_random" --seed "$seed" --seconds 10 > "$log" 2>&1 ||
      { tail -n 20 "$log"; echo "t_litmus_random: seed $seed shows what x86-TSO forbids ($conf): see $log"; exit 1; }
  done
  rm -f "$log"; rounds=$((rounds + 1))
  echo "round $rounds (seed $seed): no difference"
done
