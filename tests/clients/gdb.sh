#!/bin/bash
# SPDX-License-Identifier: MIT
# gdb on QEMU's stub: a hardware breakpoint at start_kernel before the kernel is in memory, then single
# steps, and a software breakpoint. RIP and callers must be those of the kernel's own /proc/kallsyms (Debian's
# System.map is empty, its vmlinux with symbols a package of a gigabyte), the code that of the vmlinux inside
# vmlinuz, and all that gdb says the same as with -accel tcg. Usage: gdb.sh BUILD-DIR
build=$1 name=gdb
. tests/clients/lib.sh
scripts/packages.sh qemu-system-x86 gdb binutils lz4 xz-utils zstd || exit

# address SYMBOL
address() { awk -v s="$1" '$3 == s {print "0x" $1; exit}' "$dir/symbols"; }

# What the kernel says of itself under tcg, as an object file for gdb
make_symbols() {
	make_disk 1000000
	linux "nokaslr test=symbols"
	accel=tcg start map -M q35 "${args[@]}" -drive "if=none,id=d,format=raw,file=$dir/disk.img" \
		-device virtio-blk-pci,drive=d
	close map 300 && debugfs -R "dump /symbols $dir/symbols" "$dir/disk.img" > /dev/null 2>&1 || return
	# each at its place in a section without bytes
	awk '$2 ~ /[Tt]/ && NF == 3 && $1 >= text && $1 < "ffffffffc0000000" && $3 ~ /^[A-Za-z_][A-Za-z0-9_]*$/ && !seen[$3]++ {
		print $1, $3}' text="$(address _text | cut -c3-)" "$dir/symbols" | sort |
		awk 'NR == 1 {print ".section .kernel,\"ax\",@nobits"; base = substr($1, 9)}
		{printf ".org 0x%s-0x%s\n.globl %s\n.type %s,@function\n%s:\n", substr($1, 9), base, $2, $2, $2}' > "$dir/symbols.s"
	as -o "$dir/symbols.o" "$dir/symbols.s" &&
		ld -e 0 --section-start=.kernel="$(address _text)" -o "$dir/symbols.elf" "$dir/symbols.o" &&
		[ -n "$(address start_kernel)" ] && [ -n "$(address rest_init)" ]
}

# session NAME: what gdb says
session() {
	linux nokaslr
	start "$1" -M pc "${args[@]}" -S -chardev "socket,id=g,path=$dir/$1.gdb,server=on,wait=off" -gdb chardev:g
	until_true "$1" 60 test -S "$dir/$1.gdb"
	timeout 300 gdb -nx -batch -ex "set architecture i386:x86-64" -ex "symbol-file $dir/symbols.elf" \
		-ex "target remote $dir/$1.gdb" -ex "hbreak *$(address start_kernel)" -ex continue \
		-ex "echo RIP\n" -ex 'output/x $rip' -ex "echo \nCODE\n" -ex 'x/16xb $rip' \
		-ex "echo CALLER\n" -ex 'x/1xg $rsp' -ex bt \
		-ex "echo STEPS\n" -ex stepi -ex stepi -ex stepi -ex stepi \
		-ex "delete" -ex "break *$(address rest_init)" -ex continue -ex "echo REST\n" -ex 'output/x $rip' -ex "echo \n" \
		-ex kill > "$dir/$1.gdb.out" 2> "$dir/$1.gdb.err"
	close "$1"
	# how it is killed is the stub's: its answer may come or not
	sed -n -e '/^Kill the program/q' -e '/^RIP/,$p' "$dir/$1.gdb.out"
}

# The bytes at an address: of the file vmlinux, and in the guest
code_of() { gdb -nx -batch -ex "x/16xb $1" "$dir/vmlinux" 2> /dev/null | grep -o '\b0x..\b'; }
code_seen() { sed -n '/^CODE/,/^CALLER/p' "$dir/kvm.txt" | grep -o '\b0x..\b'; }

tests/decode/vmlinux.sh "$dir/vmlinux" "$build/clients/vmlinuz" > "$dir/extract.log" 2>&1
result $? "no vmlinux in the kernel ($dir/extract.log)"
make_symbols
result $? "no symbols of the kernel ($dir/map.console)" || finish
session kvm > "$dir/kvm.txt"
accel=tcg
session tcg > "$dir/tcg.txt"
at=$(address start_kernel)
grep -qx "$at" "$dir/kvm.txt"
result $? "RIP is not start_kernel's $at ($dir/kvm.gdb.out)"
[ -n "$(code_seen)" ] && [ "$(code_seen)" = "$(code_of "$at")" ]
result $? "the code at start_kernel is not vmlinux's ($dir/kvm.txt)"
# x86_64_start_kernel jumps there; its caller is the assembly of head_64.S
grep -q "^#0 .*start_kernel ()" "$dir/kvm.txt" && grep -q "^#1 .* in secondary_startup_64_no_verify ()" "$dir/kvm.txt"
result $? "the backtrace ($dir/kvm.txt)"
sed -n '/^REST/,$p' "$dir/kvm.txt" | grep -qx "$(address rest_init)"
result $? "no stop at rest_init"
cmp "$dir/kvm.txt" "$dir/tcg.txt"
result $? "gdb does not say the same as with tcg ($dir/kvm.txt, $dir/tcg.txt)"
finish
