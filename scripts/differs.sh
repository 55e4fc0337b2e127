#!/bin/sh
# SPDX-License-Identifier: MIT
# make differs: where we deviate from hardware on purpose: the comments marked so in src/, as a list.
echo "# Where anykvm differs from hardware"
echo
echo "Made by \`make differs\` from the comments marked DIFFERS in the source."
echo
grep -rn 'DIFFERS:' src | sort | while IFS=: read -r file line _; do
	text=$(sed -n "$line,\$p" "$file" | awk '
		{ last = sub(/[ \t]*\*\/.*/, ""); sub(/^[ \t]*\/?\*+[ \t]?/, "") }
		NR == 1 { sub(/.*DIFFERS:[ ]*/, "") }
		NR > 1 && ($0 ~ /^[ \t]*$/ || /DIFFERS:/) { exit }
		{ printf("%s%s", (NR == 1 ? "" : " "), $0) }
		last { exit }')
	echo "* \`$file\`: $text"
done
