#!/bin/sh
# SPDX-License-Identifier: MIT
# Does the native test see faults? Five are planted, one at a time, in a copy of the tree; a
# short run of native_diff must name a difference each time. The tree itself is not touched.
#
# planted.sh BUILD-FOLDER (with up-to-date objects, so that a copy compiles one file only)
build=${1:?usage: planted.sh BUILD-FOLDER}
copy=$(mktemp -d) || exit 1
trap 'rm -rf "$copy"' EXIT
passed=0 failed=0

cp -a Makefile include src "$copy/" && mkdir -p "$copy/tests" "$copy/$build/tests" "$copy/scripts" &&
	cp -a tests/native "$copy/tests/" && cp -a "$build/src" "$build/libanykvm.a" "$copy/$build/" &&
	cp -a "$build/tests/native" "$copy/$build/tests/" || exit 1

# run: a short campaign in the copy, up to the first difference
run() {
	${MAKE:-make} -s -C "$copy" "$build/tests/native/native_diff" >"$copy/log" 2>&1 &&
		"$copy/$build/tests/native/native_diff" -x -n 64 -s 1 >"$copy/log" 2>&1
}

# plant NAME FILE SED-EXPRESSION
plant() {
	cp -a "$copy/$2" "$copy/saved"
	sed -i "$3" "$copy/$2"
	if cmp -s "$copy/$2" "$copy/saved"; then
		echo "$1: nothing planted, $2 has changed"
		failed=$((failed + 1))
	elif run || ! grep -q '^DIFFERENCE' "$copy/log"; then
		echo "$1: NOT CAUGHT"
		tail -n 20 "$copy/log"
		failed=$((failed + 1))
	else
		echo "$1: caught by $(sed -n 's/^DIFFERENCE //p' "$copy/log" | head -n 1)"
		passed=$((passed + 1))
	fi
	cp -a "$copy/saved" "$copy/$2"
	touch "$copy/$2"
}

if ! run; then
	echo "native_diff fails without a planted fault"
	tail -n 20 "$copy/log"
	failed=1
fi
plant "wrong REX (re-encoder)" src/cpu/native_build.c 's/ | (c->rm & 8 ? 1 : 0);/;/'
plant "swapped operands (C handler of CMPS, SCAS)" src/cpu/string.c \
	's/"r"(a << up), "r"(b << up)/"r"(b << up), "r"(a << up)/'
plant "lost AF (inline cores)" src/cpu/uop_alu.c 's/return (u16)f; /return (u16)(f \& ~FI_AF); /'
plant "wrong width (inline CMOVcc)" src/cpu/uop_move.c 's/\*d = (u32)((cond) ?/*d = ((cond) ?/'
plant "wrong displacement (RIP-relative, fast handlers)" src/cpu/uop.c \
	's/disp += u->off + i->len;/disp += u->off;/'
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
