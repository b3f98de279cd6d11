#!/usr/bin/env bash
# boot.sh [LHYVE OPTION]... : boots the cached Debian image at this terminal, as `make boot` does. Its status is lhyve's: 0 after a reboot
# of the guest, so that `while tools/boot.sh; do :; done` starts again, 1 after a power-off, 2 halt, 3 triple fault, 4 error.
#   LHYVE_SSH_PORT (2222)  the port of this host that leads to the guest's ssh      LHYVE_MEM (1G), LHYVE_CPUS (2)
. "$(dirname "$0")/lib.sh"
"$TOP/tools/image.sh"
port=${LHYVE_SSH_PORT:-2222} img=$CACHE/debian
cat >&2 <<EOT
== Debian 12 boots now, on lhyve.
   log in:  root, password lhyve
   ssh:     ssh -p $port root@127.0.0.1
   leave:   poweroff (status 1) or reboot (status 0) in the guest; Ctrl-A x ends the machine at once
EOT
exec "$BUILD/src/cmd/lhyve" -c "${LHYVE_CPUS:-2}" -m "${LHYVE_MEM:-1G}" -H -P -u \
  -s 0,hostbridge -s 31,lpc -l com1,stdio \
  -s 2,virtio-blk,"$img/disk.img" \
  -s 3,virtio-net,slirp,open,hostfwd=tcp:127.0.0.1:"$port"-:22 \
  -s 4,virtio-rnd \
  --kernel "$img/vmlinuz" --initrd "$img/initrd.img" --append 'root=/dev/vda rw console=ttyS0' \
  "$@" debian
