#!/usr/bin/env bash
# setup.sh build|test|image|guest|kvm... : installs what that needs on Debian 12.
. "$(dirname "$0")/lib.sh"
command -v apt-get >/dev/null || die "this is not Debian: install by hand what the list in tools/setup.sh names"
for what in "$@"; do
  case $what in
    build) need gcc libc6-dev meson ninja-build pkg-config python3 libslirp-dev libglib2.0-dev liburing-dev \
             zlib1g-dev libjansson-dev libcmocka-dev libzydis-dev mandoc ;;
    test)  need clang clang-tidy clang-format llvm acpica-tools mandoc socat python3 file binutils ;;
    image) need mmdebstrap e2fsprogs fakeroot cpio ;;
    kvm)   need qemu-system-x86 e2fsprogs ;;
    guest) need openssh-client expect cpio kmod iproute2 ;;
    *)     die "no list named $what" ;;
  esac
done
