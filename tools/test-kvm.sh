#!/usr/bin/env bash
# test-kvm.sh [PART]... : the suite of the KVM engine (or tests with a PART in their names): directly where /dev/kvm executes, else
# inside a QEMU machine that has one (tests/guests/nested_suite.py). Ends in "N passed, N failed". Builds LHYVE_TEST_BUILD (default
# build-test-gcc). doc/kvm.md says what it proves.
. "$(dirname "$0")/lib.sh"
dir=$TOP/${LHYVE_TEST_BUILD:-build-test-gcc}
"$TOP/tools/setup.sh" build guest kvm
[ -f "$dir/build.ninja" ] || meson setup --werror "$dir" "$TOP" >&2
ninja -C "$dir" >&2
if ! "$dir/src/cmd/lhyve" --probe | grep -q '^ *kvm  *yes  the CPU'; then
  say "this host has no /dev/kvm that executes: in a nested machine"
  exec "$TOP/tests/guests/nested_suite.py" "$dir" "$@"
fi
cd "$dir"
mapfile -t names < <(meson test --list --suite kvm 2>/dev/null | sed -n 's/^.* \/ //p' | { [ $# = 0 ] && cat || grep -F "$(printf '%s\n' "$@")"; })
[ ${#names[@]} -gt 0 ] || die "no test of suite kvm has such a name"
log=$(mktemp); trap 'rm -f "$log"' EXIT
rc=0; meson test --no-rebuild --print-errorlogs "${names[@]}" 2>&1 | tee "$log" || rc=1
echo "$(sed -n 's/^Ok: *//p' "$log" | head -n 1) passed, $(awk '/^(Fail|Timeout|Unexpected Pass): / { n += $NF } END { print n + 0 }' "$log") failed"
exit $rc
