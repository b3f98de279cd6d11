#!/usr/bin/env bash
# The completion of bash, with words that the programs give: completion.sh SCRIPT LHYVE LHYVECTL
# shellcheck source=/dev/null disable=SC2034
source "$1"
failed=0

# expect FUNCTION WORD WORDS...: completing the words offers WORD
expect()
{
	local fn=$1 want=$2
	shift 2
	COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMPREPLY=()
	$fn 2>/dev/null
	if [[ " ${COMPREPLY[*]} " != *" $want "* ]]; then
		echo "$*: offered '${COMPREPLY[*]}', expected $want"
		failed=1
	fi
}

# nothing FUNCTION WORDS...: completing the words offers nothing
nothing()
{
	local fn=$1
	shift
	COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMPREPLY=()
	$fn 2>/dev/null
	if [[ -n "${COMPREPLY[*]}" ]]; then
		echo "$*: offered '${COMPREPLY[*]}', expected nothing"
		failed=1
	fi
}

expect _lhyve --kernel "$2" --k
expect _lhyve -s "$2" -
expect _lhyve 3,virtio-blk "$2" -s 3,virtio-
expect _lhyve 3,virtio-blk,img,nocache= "$2" -s 3,virtio-blk,img,no
expect _lhyve 3,virtio-blk,nocache= "$2" -s 3,virtio-blk,no
expect _lhyve 3,virtio-blk,x,ro= "$2" -s 0 : 3,virtio-blk,x,r
expect _lhyve x,bootindex= "$2" -s 3,virtio-blk,img,ser = x,boot
nothing _lhyve "$2" -s 3,virtio-rnd,x,no
expect _lhyve com1 "$2" -l co
expect _lhyve com1,stdio "$2" -l com1,
expect _lhyve com2,tcp= "$2" -l com2,t
nothing _lhyve "$2" -s 3,virtio-blk,x,dev
nothing _lhyve "$2" -G ""
nothing _lhyve "$2" -f ""
nothing _lhyve "$2" --append ""
nothing _lhyve "$2" --append = x
expect _lhyve --append "$2" -H --app
expect _lhyve memory.size= "$2" -o memory.
expect _lhyve soft "$2" --engine s
expect _lhyve soft "$2" --engine = s
expect _lhyvectl --get-stats "$3" --get-st
expect _lhyvectl --profile "$3" --prof
expect _lhyvectl --profile-rate "$3" --profile-r
expect _lhyvectl "$1" "$3" --symbols = "${1%.bash}"
expect _lhyvectl powerdown "$3" --vm=none power
exit $failed
