#!/bin/sh
# cases.sh T_DIFF : what once differed from the host's CPU, tried again.
exec "$1" "$(dirname "$0")"/cases/*.case
