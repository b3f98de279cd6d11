#!/usr/bin/env bash
# guest-files.sh WHAT... : unpacks what guest tests boot into the cache, from Debian's packages by the host's mirrors, through
# a private apt root (nothing is installed, the host's architectures stay as they are). Silent when all is there. WHAT is
#   cloud generic           kernels of amd64          -> kernel-WHAT/{vmlinuz,config,modules/}
#   686 686-pae             kernels of i386
#   busybox busybox-i386    a static busybox          -> WHAT/busybox
#   netboot-amd64 netboot-i386   the installer        -> WHAT/{linux,initrd.gz}
#   source-NAME             upstream's source of Debian's source package NAME -> WHAT/NAME.tar (compressed as it comes)
. "$(dirname "$0")/lib.sh"
root=$CACHE/apt arch='' tmp=''
trap 'rm -rf "${tmp:-}"' EXIT
apt() { # COMMAND ARG... for $arch
  local r=$root/$arch
  if [ ! -d "$r/state/lists" ]; then
    mkdir -p "$r"/etc/{apt.conf.d,preferences.d,sources.list.d,trusted.gpg.d} "$r"/state/lists/partial "$r"/cache/archives/partial
    touch "$r/state/status"
    local kind=deb only="arch=$arch "
    [ "$arch" != source ] || kind=deb-src only=''
    apt_sources | grep bookworm | sed "s/^deb /$kind [${only}signed-by=\/usr\/share\/keyrings\/debian-archive-keyring.gpg] /" \
      > "$r/etc/sources.list"
  fi
  local o=(-q -q)
  [ "$arch" = source ] || o+=(-o "APT::Architecture=$arch" -o "APT::Architectures::=$arch")
  o+=(-o "Dir::Etc=$r/etc" -o "Dir::State=$r/state"
      -o "Dir::State::status=$r/state/status" -o "Dir::Cache=$r/cache" -o APT::Sandbox::User=root)
  "$@" "${o[@]}"
}
update() { # a mirror that lacks one suite for a moment is no reason to stop: the download decides
  [ -e "$root/$arch.updated" ] || apt apt-get update >&2 || :
  touch "$root/$arch.updated"
}
fetch() { # ARCH PACKAGE : leaves its tree in $tmp/root
  arch=$1
  rm -rf "${tmp:-}"; tmp=$(mktemp -d "$CACHE/.unpack.XXXXXX")
  update
  (cd "$tmp" && apt apt-get download "$2" >&2) || die "cannot download $2 ($1)"
  dpkg -x "$tmp"/*.deb "$tmp/root"
}
kernel() { # NAME ARCH META
  [ ! -e "$CACHE/kernel-$1/vmlinuz" ] || return 0
  arch=$2
  update
  local image
  image=$(apt apt-cache depends "$3" | awk '/Depends: linux-image/ { print $2; exit }'); image=${image%%:*}
  [ -n "$image" ] || die "apt knows no kernel behind $3 ($2)"
  say "fetching $image"
  fetch "$2" "$image"
  mkdir -p "$tmp/out"
  mv "$tmp"/root/boot/vmlinuz-* "$tmp/out/vmlinuz"
  mv "$tmp"/root/boot/config-* "$tmp/out/config"
  mv "$tmp"/root/lib/modules/* "$tmp/out/modules"
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
  (cd "$tmp" && apt apt-get source --download-only "$1" >&2) || die "cannot download the source of $1"
  mkdir "$tmp/out"
  mv "$tmp"/*.orig.tar.* "$tmp/out/$1.tar"
  mv "$tmp/out" "$CACHE/source-$1"
}
mkdir -p "$CACHE" "$root"
exec 9> "$CACHE/.lock"; flock 9
for what in "$@"; do
  case $what in
    cloud)         kernel cloud amd64 linux-image-cloud-amd64 ;;
    generic)       kernel generic amd64 linux-image-amd64 ;;
    686)           kernel 686 i386 linux-image-686 ;;
    686-pae)       kernel 686-pae i386 linux-image-686-pae ;;
    busybox)       one busybox amd64 busybox-static '*/bin/busybox:busybox' ;;
    busybox-i386)  one busybox-i386 i386 busybox-static '*/bin/busybox:busybox' ;;
    netboot-amd64) one netboot-amd64 amd64 debian-installer-12-netboot-amd64 '*/text/debian-installer/amd64/linux:linux' \
                     '*/text/debian-installer/amd64/initrd.gz:initrd.gz' ;;
    netboot-i386)  one netboot-i386 i386 debian-installer-12-netboot-i386 '*/text/debian-installer/i386/linux:linux' \
                     '*/text/debian-installer/i386/initrd.gz:initrd.gz' ;;
    source-*)      source_of "${what#source-}" ;;
    *) die "see the head of this script" ;;
  esac
done
