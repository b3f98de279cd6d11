#!/usr/bin/env bash
# test-guests.sh [NAME]... : the long runs of real guests (suites guest and guest-long), or those tests. Ends in "N passed, N failed".
. "$(dirname "$0")/lib.sh"
exec "$TOP/tools/test.sh" guests guests-long
