#!/bin/sh
# SPDX-License-Identifier: MIT
# make check: runs the named make targets one after another, adds up what they counted and
# closes with `N passed, N failed`. A target that counts nothing has failed, but for one that says
# SKIPPED and why: that line is shown again at the end, and nothing is counted. SHOW=EXPRESSION: lines
# of the output that are shown although all is well.
passed=0 failed=0 skipped=
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
for target in "$@"; do
	start=$(date +%s)
	${MAKE:-make} -s "$target" >"$log" 2>&1
	rc=$?
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
	p=${line%% *} f=$(printf '%s' "$line" | sed 's/.*passed, \([0-9]*\) failed.*/\1/')
	skip=$(sed -n "s/^SKIPPED: \(.*\)/$target skipped: \1/p" "$log")
	if [ -n "$skip" ] && [ -z "$line" ]; then
		echo "$skip"
		skipped="$skipped$skip
"
		continue
	fi
	if [ -z "$line" ]; then p=0 f=1; fi
	if [ "$rc" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
	[ -z "$SHOW" ] || grep -E "$SHOW" "$log"
	[ "$f" -ne 0 ] && tail -n 60 "$log"
	echo "$target: $p passed, $f failed ($(($(date +%s) - start)) s)"
	passed=$((passed + p)) failed=$((failed + f))
done
printf '%s' "$skipped"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
