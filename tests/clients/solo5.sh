#!/bin/sh
# SPDX-License-Identifier: MIT
# The tests of a built solo5 checkout for its KVM tender, unmodified, under the launcher: a line for
# each, and `N passed, N failed`. What its own tests skip is named with their reason.
#
# solo5.sh DIR [REGEX]
#	REGEX		tests to run, instead of " hvt" (all of the tender)
#	LAUNCHER=build/anykvm, or empty: on the host's own KVM
#	LOG=build/solo5.log
#
# The network tests need tap devices: they are made in a network namespace of their own, for which
# root is needed. They give each of 10,000 to 100,000 pings back within a minute.
set -eu
dir=$(realpath "$1")
LAUNCHER=${LAUNCHER-build/anykvm}
[ -z "$LAUNCHER" ] || LAUNCHER=$(realpath "$LAUNCHER")
LOG=${LOG:-build/solo5.log}
[ -x "$dir/tenders/hvt/solo5-hvt" ] || { echo "no solo5-hvt in $dir: build it there (configure.sh, make)"; exit 2; }
scripts/packages.sh bats iproute2 iputils-ping util-linux
export LAUNCHER dir
export regex="${2:- hvt}"
unshare -n sh -c '
	sh "$dir/tests/setup-tests.sh" > /dev/null 2>&1 || echo "# no tap devices: the network tests will fail"
	exec $LAUNCHER bats --tap -f "$regex" "$dir/tests/tests.bats"' > "$LOG" 2>&1 || true
grep -E '^(ok|not ok|# no tap)' "$LOG" || true
# what failed, with what it said
awk '/^not ok/ {show = 1} /^ok/ {show = 0} show' "$LOG"
count() { grep -cE "$1" "$LOG" || true; }
skipped=$(count '^ok .*# skip')
passed=$(($(count '^ok ') - skipped))
failed=$(count '^not ok ')
planned=$(sed -n 's/^1\.\.//p' "$LOG")
echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ $((passed + skipped)) -eq "${planned:-0}" ] && [ "$passed" -gt 0 ]
