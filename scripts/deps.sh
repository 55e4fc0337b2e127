#!/bin/sh
# SPDX-License-Identifier: MIT
# make deps: a file in src/ includes its own folder and those to the left of it in the order below
# (tests may look at everything); vmm/, tools/ and examples/ use the public header only.
order="base x86 mem mmu cpu translate irq emul kvm shim"
bad=0
count=0

rank() {
	n=0
	for f in $order; do
		n=$((n + 1))
		[ "$f" = "$1" ] && break
	done
	echo $n
}

for from in $order; do
	[ -d "src/$from" ] || continue
	limit=$(rank "$from")
	for to in $order; do
		[ "$(rank "$to")" -gt "$limit" ] || continue
		hits=$(find "src/$from" \( -name '*.[ch]' -o -name '*.def' \) ! -name '*_test.c' \
			-exec grep -Hn "^#[ ]*include \"$to/" {} +)
		[ -z "$hits" ] || { echo "$hits"; bad=1; }
	done
	count=$((count + 1))
done
hits=$(grep -rnE "^#[ ]*include \"(src|$(echo $order | tr ' ' '|'))/" vmm tools examples 2>/dev/null)
[ -z "$hits" ] || { echo "$hits"; bad=1; }
hits=$(grep -rn "^#[ ]*include \"\.\./" src)
[ -z "$hits" ] || { echo "$hits"; bad=1; }
if [ $bad -ne 0 ]; then
	echo "include order: $(echo $order | sed 's/ / < /g')"
	exit 1
fi
echo "$count folders of src/ and the programs include in order"
