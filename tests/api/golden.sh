#!/bin/sh
# SPDX-License-Identifier: MIT
# golden.sh ERRNO-PROGRAM [--device]: compares what the program's rows gave with golden.txt, row by
# row; a row of the table that the program does not have is a failure.
dir=$(dirname "$0")
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT
ERRNO_ROWS=1 "$@" >"$out" 2>/dev/null
awk -F'\t' '
	BEGIN {
		split("EPERM 1 ENOENT 2 EINTR 4 EIO 5 ENXIO 6 E2BIG 7 EBADF 9 EAGAIN 11 ENOMEM 12 EFAULT 14 " \
		      "EBUSY 16 EEXIST 17 ENODEV 19 EINVAL 22 ENOTTY 25 EOPNOTSUPP 95", e, " ")
		for (k = 1; k in e; k += 2)
			number[e[k]] = "-" e[k + 1]
	}
	FNR == NR { got[$2] = $3; next }
	/^#/ || !NF { next }
	{
		want = $1 in number ? number[$1] : $1
		good = $2 in got && (want == ">0" ? got[$2] > 0 : got[$2] "" == want "")
		if (!good)
			print "golden: " $2 ": " ($2 in got ? got[$2] : "no such row") ", not " $1
		n[good]++
	}
	END { print n[1] + 0 " passed, " n[0] + 0 " failed"; exit n[0] > 0 }' "$out" "$dir/golden.txt"
