#!/bin/sh
# SPDX-License-Identifier: MIT
# make shape: sizes of files and functions, a line for each folder. Fails if the median function has
# more than 20 lines, or a .c or .h file that is no table more than 1,000.
# A function runs from the line of its name to the `}` in column 0: the kernel's style makes that so.
folders=${*:-"src/* vmm tools tests bench examples"}
list=$(mktemp) || exit 1
trap 'rm -f "$list"' EXIT

# one line for each file "F folder lines name" and each function "f folder lines file:name"
for d in $folders; do
	[ -d "$d" ] || continue
	find "$d" \( -name '*.c' -o -name '*.h' \) -type f | sort | while read -r file; do
		awk -v d="$d" -v file="$file" '
			/^[a-zA-Z_].*\(/ && !/;$/ && !/^#/ && !body {
				start = FNR
				name = $0
				sub(/\(.*/, "", name)
				sub(/.*[ *]/, "", name)
			}
			/^[a-zA-Z_}].*;$/ { start = 0 }
			/=[ ]*\{$/ && /^[a-zA-Z_]/ { start = 0 }
			/^\{/ { body = start }
			/^\}$/ && body {
				print "f", d, FNR - body + 1, file ":" name
				start = body = 0
			}
			END { print "F", d, FNR, file }' "$file"
	done
done > "$list"

# column KIND FOLDER: the sizes, sorted
column() {
	awk -v k="$1" -v d="$2" '$1 == k && (d == "all" || $2 == d) {print $3, $4}' "$list" | sort -n
}
median() { awk '{v[NR] = $1} END {print NR ? v[int((NR + 1) / 2)] : 0}'; }

printf '%-14s %6s %7s %7s %8s %7s %7s  %s\n' folder files lines "median" "largest" \
	"median" "longest" "largest file; longest function"
printf '%-14s %6s %7s %7s %8s %7s %7s\n' "" "" "" file file func func
for d in $(awk '{print $2}' "$list" | sort -u) all; do
	set -- $(column F "$d" | awk '{n++; s += $1} END {print n, s}') \
		$(column F "$d" | median) $(column F "$d" | tail -n 1) \
		$(column f "$d" | median) $(column f "$d" | tail -n 1)
	printf '%-14s %6s %7s %7s %8s %7s %7s  %s; %s\n' "$d" "$1" "$2" "$3" "$4" "$6" "$7" "$5" "$8"
done

rc=0
all=$(column f all | median)
if [ "$all" -gt 20 ]; then
	echo "the median function has $all lines, more than 20"
	rc=1
fi
column F all | awk '$1 > 1000 {print $2 ": " $1 " lines, more than 1,000"; bad = 1} END {exit bad}' ||
	rc=1
exit $rc
