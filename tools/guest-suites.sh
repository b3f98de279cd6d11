#!/usr/bin/env bash
# guest-suites.sh sqlite|openssl|zlib|selftests... : builds upstream's test programs from Debian's sources on this host, once -> suite-NAME.tar
# in the cache. Guests run what is in it (tests/guests/verify.py, selftests.py); they need tcl for sqlite, perl for openssl and the
# kernel's selftests.
. "$(dirname "$0")/lib.sh"
tmp=''
trap 'rm -rf "${tmp:-}"' EXIT
unpack() { # SOURCE NAME
  "$TOP/tools/guest-files.sh" "source-$1"
  tmp=$(mktemp -d "$CACHE/.suite.XXXXXX")
  mkdir "$tmp/$2"
  tar xf "$CACHE/source-$1/$1.tar" -C "$tmp/$2" --strip-components=1
  say "building the tests of $2 (once; some minutes)"
}
pack() { # NAME PATH... below it
  local name=$1; shift
  (cd "$tmp" && tar cf "$CACHE/.suite-$name.tar" "${@/#/$name/}")
  mv "$CACHE/.suite-$name.tar" "$CACHE/suite-$name.tar"
}
build_sqlite() {
  need tcl-dev
  unpack sqlite3 sqlite
  (cd "$tmp/sqlite" && ./configure --disable-shared --with-tcl=/usr/lib/tcl8.6 && make -j2 testfixture) > "$CACHE/suite-sqlite.log" 2>&1 ||
    die "building failed, see $CACHE/suite-sqlite.log"
  strip "$tmp/sqlite/testfixture"
  pack sqlite testfixture test ext/rtree ext/fts3 ext/fts5 ext/session ext/rbu
}
build_openssl() {
  unpack openssl openssl
  (cd "$tmp/openssl" && ./Configure linux-x86_64 && make -j2 build_sw) > "$CACHE/suite-openssl.log" 2>&1 ||
    die "building failed, see $CACHE/suite-openssl.log"
  (cd "$tmp/openssl" && find . -name '*.[oa]' -delete; find . -name '*.d' -type f -delete
   find . -type f -perm -100 -exec sh -c 'head -c 4 "$1" | grep -q ELF && strip --strip-unneeded "$1"' _ {} \;
   rm -rf fuzz/corpora crypto/*/*.c doc)
  pack openssl .
}
build_zlib() {
  unpack zlib zlib
  (cd "$tmp/zlib" && ./configure && make -j2 all infcover && mv libz.so.1.*.* libz.so.1) > "$CACHE/suite-zlib.log" 2>&1 ||
    die "building failed, see $CACHE/suite-zlib.log"
  pack zlib example examplesh example64 minigzip minigzipsh minigzip64 infcover libz.so.1
}
# The kernel's own, of those collections that need nothing but a CPU, memory and a kernel; those programs that build.
SELFTESTS='x86 timers vm futex rseq sigaltstack membarrier mincore ptrace seccomp breakpoints clone3 core exec kcmp memfd mqueue openat2
  pidfd prctl proc rlimits size splice syscall_user_dispatch timens vDSO sched perf_events capabilities ipc'
build_selftests() {
  need linux-source-6.1 gcc-multilib libc6-dev-i386 libcap-dev libcap-ng-dev libnuma-dev libpopt-dev rsync flex bison bc
  tmp=$(mktemp -d "$CACHE/.suite.XXXXXX")
  say "building the kernel's selftests (once; some minutes)"
  tar xf /usr/src/linux-source-6.1.tar.xz -C "$tmp"
  (cd "$tmp"/linux-source-6.1 && make headers && make -k -C tools/testing/selftests TARGETS="${SELFTESTS//$'\n'/}" install \
     INSTALL_PATH="$tmp/selftests") > "$CACHE/suite-selftests.log" 2>&1 || :
  [ -x "$tmp/selftests/x86/sigreturn_32" ] || die "building failed, see $CACHE/suite-selftests.log"
  pack selftests .
}
mkdir -p "$CACHE"
exec 8> "$CACHE/.suites.lock"; flock 8
for what in "$@"; do
  case $what in
    sqlite|openssl|zlib|selftests) [ -e "$CACHE/suite-$what.tar" ] || "build_$what" ;;
    *) die "see the head of this script" ;;
  esac
  rm -rf "${tmp:-}"
done
