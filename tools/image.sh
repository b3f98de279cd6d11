#!/usr/bin/env bash
# image.sh [-f] [-a amd64|i386] [-k KERNEL_PACKAGE] [-p PACKAGE,...] [-s SIZE] [DIR] : makes a Debian 12 guest in DIR (default: the cache):
# disk.img (raw, ext4, no partitions), vmlinuz and initrd.img, from Debian's packages by the host's own apt mirrors.
# Does nothing if it is there; -f makes it anew. Root's password is "lhyve"; ssh lets root in with it.
. "$(dirname "$0")/lib.sh"
force='' arch=amd64 kernel='' extra='' size=4G
while getopts fa:k:p:s: o; do
  case $o in
    f) force=1 ;;
    a) arch=$OPTARG ;;
    k) kernel=$OPTARG ;;
    p) extra=,$OPTARG ;;
    s) size=$OPTARG ;;
    *) die "see the head of this script" ;;
  esac
done
shift $((OPTIND - 1))
dir=${1:-$CACHE/debian}
case $arch in
  amd64) : "${kernel:=linux-image-cloud-amd64}" ;;
  i386)  : "${kernel:=linux-image-686-pae}" ;;
  *)     die "no architecture $arch here" ;;
esac
[ -n "$force" ] || [ ! -e "$dir/done" ] || exit 0
"$TOP/tools/setup.sh" image
mkdir -p "$(dirname "$dir")"
tmp=$(mktemp -d "$dir.XXXXXX")
trap 'as_root rm -rf "$tmp"' EXIT
chmod 755 "$tmp"
apt_sources > "$tmp/sources.list"
grep -q bookworm "$tmp/sources.list" || die "the host's apt knows no mirror of Debian 12 (bookworm)"
grep bookworm "$tmp/sources.list" > "$tmp/guest.list"
# Of the host's own architecture its apt has just read all indexes; a mirror may lack some of the others'. The release itself is enough.
if [ "$arch" = "$(dpkg --print-architecture)" ]; then cp "$tmp/guest.list" "$tmp/build.list"; else
  grep ' bookworm ' "$tmp/guest.list" > "$tmp/build.list"
fi

# What has to be there before the kernel package makes its initramfs.
mkdir -p "$tmp/early/etc/initramfs-tools/conf.d" "$tmp/early/etc/initramfs-tools"
printf 'MODULES=list\n' > "$tmp/early/etc/initramfs-tools/conf.d/lhyve"
printf '%s\n' virtio_pci virtio_blk virtio_net virtio_rng ext4 crc32c_generic > "$tmp/early/etc/initramfs-tools/modules"

mkdir -p "$tmp/late/etc/systemd/network" "$tmp/late/etc/ssh/sshd_config.d" "$tmp/late/etc/apt"
printf '/dev/vda / ext4 defaults,noatime 0 1\n' > "$tmp/late/etc/fstab"
printf '[Match]\nName=en* eth*\n[Network]\nDHCP=ipv4\n' > "$tmp/late/etc/systemd/network/lhyve.network"
printf 'PermitRootLogin yes\nUseDNS no\n' > "$tmp/late/etc/ssh/sshd_config.d/lhyve.conf"
printf 'nameserver 10.0.2.3\n' > "$tmp/late/etc/resolv.conf"
printf 'lhyve\n' > "$tmp/late/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 lhyve\n' > "$tmp/late/etc/hosts"
cp "$tmp/guest.list" "$tmp/late/etc/apt/sources.list"

# What has to be run in it at the end.
cat > "$tmp/finish" <<'END'
echo root:lhyve | chpasswd
systemctl -q enable systemd-networkd ssh
systemctl -q mask systemd-networkd-wait-online.service
END
packages=$kernel,systemd-sysv,systemd,udev,dbus,kmod,openssh-server,iproute2,iputils-ping,procps,less,vim-tiny,ca-certificates,libpam-systemd,e2fsprogs,zstd,init$extra
early="cp -a $tmp/early/. \$1/"
late="rm -f \$1/etc/resolv.conf && cp -a $tmp/late/. \$1/ && chown -R 0:0 \$1/etc/systemd/network && : > \$1/etc/machine-id"

# mmdebstrap installs by chroot. Not each host runs 32-bit programs, though its processor could: there mmdebstrap only unpacks the essential
# packages, and a guest of lhyve does the rest. arch-test is what mmdebstrap asks, too.
[ "$arch" = "$(dpkg --print-architecture)" ] || need arch-test
if [ "$arch" = "$(dpkg --print-architecture)" ] || arch-test "$arch" > /dev/null; then
  say "making a Debian 12 image in $dir (once; a minute or two)"
  how=(--variant=minbase --include="$packages" --essential-hook="$early" --customize-hook="chroot \$1 sh -ec \"\$(cat $tmp/finish)\""
       --customize-hook="$late")
else
  [ "$arch" = i386 ] || die "this host cannot run programs of $arch"
  lhyve=$(realpath -m "${LHYVE:-$BUILD/src/cmd/lhyve}")
  [ -x "$lhyve" ] || die "this host cannot run programs of $arch, and there is no $lhyve to run them: build it (make), or say where by LHYVE"
  "$TOP/tools/guest-files.sh" 686-pae busybox busybox-i386
  say "making a Debian 12 image in $dir (once; this host cannot run programs of $arch, so a guest does: some minutes)"
  how=(--variant=extract --include='?essential' --skip=chroot/mount --extract-hook="$early"
       --extract-hook="LHYVE=$lhyve LHYVE_CACHE=$CACHE $TOP/tests/guests/second_stage.py \$1 $tmp $packages" --extract-hook="$late")
fi
as_root mmdebstrap --mode=root --architectures="$arch" --format=directory --aptopt='APT::Sandbox::User "root"' "${how[@]}" \
  bookworm "$tmp/root" "$tmp/build.list" >&2
mkdir "$tmp/out"
as_root sh -c "cp $tmp/root/boot/vmlinuz-* $tmp/out/vmlinuz && cp $tmp/root/boot/initrd.img-* $tmp/out/initrd.img && chmod 644 $tmp/out/*"
say "writing the file system"
truncate -s "$size" "$tmp/out/disk.img"
as_root mke2fs -q -t ext4 -L lhyve -E lazy_itable_init=0,nodiscard -d "$tmp/root" "$tmp/out/disk.img"
as_root chown -R "$(id -u):$(id -g)" "$tmp/out"
touch "$tmp/out/done"
rm -rf "$dir"; mv "$tmp/out" "$dir"
say "$dir is ready"
