# shellcheck shell=bash disable=SC2034
# Sourced by the scripts of this project: where things are, how packages get installed.
set -eu
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${LHYVE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/lhyve}
BUILD=${LHYVE_BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$TOP/$BUILD ;; esac
die() { echo "$(basename "$0"): $*" >&2; exit 2; }
say() { echo "== $*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
    die "needs root to run: $* (no sudo here)"
  fi
}
# need PACKAGE... : installs those Debian packages that are missing; prints nothing when all are there.
need() {
  local p missing=()
  for p in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
  done
  [ ${#missing[@]} != 0 ] || return 0
  say "installing ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 update >&2
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 \
    install --no-install-recommends "${missing[@]}" >&2
}
# apt_sources [DISTRIBUTION] : the host's own Debian mirrors as lines of a sources.list, without credentials.
apt_sources() {
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)' 'Created-By: Packages' |
    awk -F'|' '$4 == "Debian" { sub("//[^/@]*@", "//", $1); sub("/$", "", $1); c[$1 " " $2] = c[$1 " " $2] " " $3
      if (!($1 " " $2 in seen)) { seen[$1 " " $2]; order[++n] = $1 " " $2 } }
      END { for (i = 1; i <= n; i++) { m = split(c[order[i]], a, " "); delete u; s = ""
        for (j = 1; j <= m; j++) if (!(a[j] in u)) { u[a[j]]; s = s " " a[j] }
        print "deb " order[i] s } }'
}
