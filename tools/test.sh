#!/usr/bin/env bash
# test.sh [STEP]... : all tests of CI, or those steps: style gcc clang asan tsan guests kvm (and guests-long). Ends in "N passed, N failed".
# A step's tests are meson's, each a program or script of tests/; a build that fails counts as one failed test.
. "$(dirname "$0")/lib.sh"
[ $# -gt 0 ] || set -- style gcc clang asan tsan guests kvm
log=$(mktemp -d); trap 'rm -rf "$log"' EXIT
export MESON_TESTTHREADS=${MESON_TESTTHREADS:-2}
export TSAN_OPTIONS="suppressions=$TOP/tests/tsan.supp history_size=4" # or the other side of a race is lost, and with it its name
passed=0 failed=0 names=() # of what failed: said again at the end, where one looks
count() { # PASSED FAILED
  passed=$((passed + $1)); failed=$((failed + $2))
}
check() { # NAME COMMAND... : one test
  local name=$1; shift
  if "$@" > "$log/out" 2>&1; then echo "ok    $name"; count 1 0; else
    echo "FAIL  $name"; tail -n 40 "$log/out"; count 0 1; names+=("$name")
  fi
}
# What the tests of the suite need of what DIR can build.
needs() { # DIR SUITE
  python3 - "$TOP/$1" "$2" <<'PY'
import json, os, subprocess, sys
top, suite = sys.argv[1:]
ask = lambda what: json.loads(subprocess.run(['meson', 'introspect', what, top], stdout=subprocess.PIPE, check=True).stdout)
files = {t['id']: t['filename'] for t in ask('--targets')}
ids = {d for t in ask('--tests') if any(s.split(':')[-1] == suite for s in t['suite']) for d in t['depends']}
print(*sorted({os.path.relpath(f, top) for i in ids for f in files[i]}))
PY
}
# suite NAME DIR "SUITE [--no-suite SUITE]" [MESON OPTION]... : builds DIR with warnings as errors and runs the suite there. Few tests are of threads.
suite() {
  local name=$1 dir=$2 which=$3; shift 3
  say "$name"
  # shellcheck disable=SC2046
  if ! { [ -f "$TOP/$dir/build.ninja" ] || meson setup --werror "$@" "$TOP/$dir" "$TOP"; } > "$log/out" 2>&1 ||
     ! ninja -C "$TOP/$dir" $([ "$which" != threads ] || needs "$dir" "$which") > "$log/out" 2>&1; then
    echo "FAIL  $name: build"; grep -E 'error|warning|FAILED' -A 5 "$log/out" | head -n 60; count 0 1; names+=("$name: build"); return 0
  fi
  rm -f "$TOP/$dir/meson-logs/testlog.json"
  # shellcheck disable=SC2086
  meson test -t 4 -C "$TOP/$dir" --suite $which --no-rebuild --print-errorlogs > "$log/out" 2>&1 || :
  grep -vE '^(ninja|[0-9]+/[0-9]+ .* OK |$)' "$log/out" | grep -v '^ninja' | tail -n 80 || :
  python3 - "$TOP/$dir/meson-logs/testlog.json" > "$log/result" <<'PY'
import json, sys
good, bad = 0, []
try:
    for line in open(sys.argv[1]):
        r = json.loads(line)
        if r['result'] in ('OK', 'EXPECTEDFAIL'): good += 1
        elif r['result'] != 'SKIP': bad.append(f"{r['name']} ({r['result']}, {r['duration']:.0f} s)")
except (OSError, ValueError) as e: # none, or cut short
    bad = [str(e)]
if not good and not bad: bad = ['no test ran']
print(good, len(bad), *bad, sep='\n')
PY
  local result; mapfile -t result < "$log/result"
  count "${result[0]}" "${result[1]}"; local bad; for bad in "${result[@]:2}"; do names+=("$name: $bad"); done
}
"$TOP/tools/setup.sh" build test guest
cd "$TOP"
for step in "$@"; do
  began=$SECONDS
  case $step in
    style)
      check 'layers: includes follow the arrows' tools/layers.py
      check 'format: clang-format' tools/format.sh --check
      check 'tidy: clang-tidy' tools/tidy.sh ;;
    gcc)   suite 'gcc, release' build-test-gcc quick ;;
    clang) CC=clang suite 'clang, release' build-test-clang 'quick --no-suite check --no-suite once' ;; # gcc's build has all of them
    asan)  suite 'gcc, address and undefined-behaviour sanitizers' build-test-asan 'quick --no-suite check --no-suite once' \
             -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Dlock_debug=true \
             -Dc_args='-fno-sanitize=alignment -fno-sanitize-recover=undefined' ;; # a guest's accesses have any alignment
    tsan)  suite 'gcc, thread sanitizer' build-test-tsan threads -Dbuildtype=debugoptimized -Db_sanitize=thread \
             -Dc_args=-Wno-tsan ;; # it does not see fences; what they order are atomics
    guests) suite 'guests, short runs' build-test-gcc guest ;;
    kvm)
      say 'kvm'
      LHYVE_TEST_BUILD=build-test-gcc "$TOP/tools/test-kvm.sh" > "$log/out" 2>&1 || :
      grep -vE '^(ok|\[)' "$log/out" | tail -n 120 || :
      # shellcheck disable=SC2046
      count $(awk '/^[0-9]+ passed, [0-9]+ failed$/ { p = $1; f = $3 } END { print p + 0, p + f ? f + 0 : 1 }' "$log/out")
      while read -r bad; do names+=("kvm: $bad"); done < <(sed -n 's/^FAIL *//p' "$log/out") ;;
    guests-long) suite 'guests, long runs' build-test-gcc guest-long ;;
    *) die "no step named $step" ;;
  esac
  echo "== $step: $((SECONDS - began)) s"
done
[ ${#names[@]} = 0 ] || printf 'failed: %s\n' "${names[@]}"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
