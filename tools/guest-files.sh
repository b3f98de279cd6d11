#!/usr/bin/env bash
# guest-files.sh WHAT... : unpacks what guest tests boot into the cache, from Debian's packages by the host's mirrors, through
# a private apt root (nothing is installed, the host's architectures stay as they are). Silent when all is there. WHAT is
#   cloud generic rt        kernels of amd64          -> kernel-WHAT/{vmlinuz,config,modules/}
#   686 686-pae             kernels of i386
#   KERNEL@SUITE            the same of another suite: bullseye, bookworm-backports, testing
#   busybox busybox-i386    a static busybox          -> WHAT/busybox
#   netboot-amd64 netboot-i386   the installer        -> WHAT/{linux,initrd.gz}
#   memtest                 memtest86+                -> WHAT/{memtest32.bin,memtest64.bin,...}
#   xen                     Xen                       -> WHAT/xen.gz
#   gnumach gnumach-amd64   GNU Mach                  -> WHAT/gnumach.gz
#   source-NAME             upstream's source of Debian's source package NAME -> WHAT/NAME.tar (compressed as it comes)
. "$(dirname "$0")/lib.sh"
root=$CACHE/apt arch='' suite='' tmp=''
trap 'rm -rf "${tmp:-}"' EXIT
apt_root() { echo "$root/$arch${suite:+@$suite}"; }
apt_lines() { # lines of a sources.list for $suite, from the mirrors of the host's own suite
  case $suite in
    '')          apt_sources | grep bookworm ;;
    *-backports) apt_sources | sed -n "s/ bookworm / $suite /p" ;;
    testing)     apt_sources | sed -n 's/ bookworm / testing /p' ;;
    *)           apt_sources | sed -n "s/ bookworm\>/ $suite/p" ;;
  esac
}
apt() { # COMMAND ARG... for $arch of $suite
  local r
  r=$(apt_root)
  if [ ! -d "$r/state/lists" ]; then
    mkdir -p "$r"/etc/{apt.conf.d,preferences.d,sources.list.d,trusted.gpg.d} "$r"/state/lists/partial "$r"/cache/archives/partial
    touch "$r/state/status"
    local kind=deb only="arch=$arch "
    [ "$arch" != source ] || kind=deb-src only=''
    apt_lines | sed "s/^deb /$kind [${only}signed-by=\/usr\/share\/keyrings\/debian-archive-keyring.gpg] /" \
      > "$r/etc/sources.list"
  fi
  local o=(-q -q)
  [ "$arch" = source ] || o+=(-o "APT::Architecture=$arch" -o "APT::Architectures::=$arch")
  o+=(-o "Dir::Etc=$r/etc" -o "Dir::State=$r/state"
      -o "Dir::State::status=$r/state/status" -o "Dir::Cache=$r/cache" -o APT::Sandbox::User=root)
  "$@" "${o[@]}"
}
update() { # a mirror that lacks one suite for a moment is no reason to stop: the download decides
  [ -e "$(apt_root).updated" ] || apt apt-get update >&2 || :
  touch "$(apt_root).updated"
}
fetch() { # ARCH PACKAGE... : leaves their tree in $tmp/root
  arch=$1
  rm -rf "${tmp:-}"; tmp=$(mktemp -d "$CACHE/.unpack.XXXXXX")
  update
  shift
  (cd "$tmp" && apt apt-get download "$@" >&2) || die "cannot download $* ($arch${suite:+ of $suite})"
  local deb
  for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
}
kernel() { # NAME ARCH META, of $suite
  set -- "$1${suite:+@$suite}" "$2" "$3"
  [ ! -e "$CACHE/kernel-$1/vmlinuz" ] || return 0
  arch=$2
  update
  local image parts
  image=$(apt apt-cache depends "$3" | awk '/Depends: linux-image/ { print $2; exit }'); image=${image%%:*}
  [ -n "$image" ] || die "apt knows no kernel behind $3 ($2)"
  say "fetching $image"
  # newer suites split it
  parts=$(apt apt-cache depends "$image" | awk '$1 == "Depends:" && $2 ~ /^linux-(base|binary|modules)-/ { print $2 }')
  # shellcheck disable=SC2086
  fetch "$2" "$image" $parts
  mkdir -p "$tmp/out"
  mv "$(find "$tmp/root" -type f -name 'vmlinuz*')" "$tmp/out/vmlinuz"
  mv "$(find "$tmp/root" -type f '(' -name 'config-*' -o -path '*/lib/modules/*/config' ')')" "$tmp/out/config"
  mv "$(find "$tmp/root" -type d -path '*/lib/modules/*' -prune)" "$tmp/out/modules"
  rm -rf "$CACHE/kernel-$1"; mv "$tmp/out" "$CACHE/kernel-$1"
}
one() { # NAME ARCH PACKAGE PATTERN:NEW... : single files of a package
  local name=$1 a=$2 p=$3 f; shift 3
  [ ! -e "$CACHE/$name" ] || return 0
  say "fetching $p ($a)"
  fetch "$a" "$p"
  mkdir -p "$tmp/out"
  for f in "$@"; do mv "$(find "$tmp/root" -type f -path "${f%%:*}" | sort | head -n 1)" "$tmp/out/${f##*:}"; done
  mv "$tmp/out" "$CACHE/$name"
}
source_of() { # NAME
  [ ! -e "$CACHE/source-$1" ] || return 0
  say "fetching the source of $1"
  arch=source
  update
  rm -rf "${tmp:-}"; tmp=$(mktemp -d "$CACHE/.unpack.XXXXXX")
  (cd "$tmp" && apt apt-get source --download-only --tar-only "$1" >&2) || die "cannot download the source of $1"
  mkdir "$tmp/out"
  mv "$tmp"/*.orig.tar.* "$tmp/out/$1.tar"
  mv "$tmp/out" "$CACHE/source-$1"
}
mkdir -p "$CACHE" "$root"
exec 9> "$CACHE/.lock"; flock 9
for what in "$@"; do
  suite=''
  case $what in *@*) suite=${what#*@} ;; esac
  case ${what%%@*} in
    cloud)         kernel cloud amd64 linux-image-cloud-amd64 ;;
    generic)       kernel generic amd64 linux-image-amd64 ;;
    rt)            kernel rt amd64 linux-image-rt-amd64 ;;
    686)           kernel 686 i386 linux-image-686 ;;
    686-pae)       kernel 686-pae i386 linux-image-686-pae ;;
    busybox)       one busybox amd64 busybox-static '*/bin/busybox:busybox' ;;
    busybox-i386)  one busybox-i386 i386 busybox-static '*/bin/busybox:busybox' ;;
    netboot-amd64) one netboot-amd64 amd64 debian-installer-12-netboot-amd64 '*/text/debian-installer/amd64/linux:linux' \
                     '*/text/debian-installer/amd64/initrd.gz:initrd.gz' ;;
    netboot-i386)  one netboot-i386 i386 debian-installer-12-netboot-i386 '*/text/debian-installer/i386/linux:linux' \
                     '*/text/debian-installer/i386/initrd.gz:initrd.gz' ;;
    memtest)       one memtest amd64 memtest86+ '*/boot/memtest86+x64.bin:memtest64.bin' '*/boot/memtest86+ia32.bin:memtest32.bin' ;;
    xen)           one xen amd64 xen-hypervisor-4.17-amd64 '*/boot/xen-*.gz:xen.gz' ;;
    gnumach)       one gnumach i386 gnumach-image-1.8-486 '*/boot/gnumach*.gz:gnumach.gz' ;;
    gnumach-amd64) suite=testing; one gnumach-amd64 amd64 gnumach-image-1.8-amd64-up '*/boot/gnumach*.gz:gnumach.gz' ;;
    source-*)      source_of "${what#source-}" ;;
    *) die "see the head of this script" ;;
  esac
done
