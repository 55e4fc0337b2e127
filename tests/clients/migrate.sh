#!/bin/bash
# SPDX-License-Identifier: MIT
# A guest that counts (init.c, test_count) is saved and loaded again (save), or is moved to another QEMU
# over a local socket (move), at HOPS (5) random moments in its boot and its life, on each of four
# machines: no number may be lost or come twice, on the console and in the disk's file. SEED=N repeats
# a run's moments. Usage: migrate.sh BUILD-DIR [save|move]...
build=$1 name=migrate
shift
. tests/clients/lib.sh
scripts/packages.sh qemu-system-x86 qemu-utils e2fsprogs || exit
hops=${HOPS:-5} last=600
machines=${MACHINES:-pc:on:1:host pc:split:2:max q35:on:2:qemu64 q35:off:1:host}
linux "test=count count=$last"

# machine ROW FORMAT: arguments for MACHINE:IRQCHIP:CPUS:MODEL
machine() {
	local m irqchip cpus model
	IFS=: read -r m irqchip cpus model <<< "$1"
	vm=(-M "$m,kernel-irqchip=$irqchip" -smp "$cpus" -cpu "$model" "${args[@]}"
		-drive "if=none,id=d,format=$2,file=$dir/disk.img" -device virtio-blk-pci,drive=d)
}

# The numbers that QEMU number $1 has said
numbers() {
	tr -d '\r' < "$dir/$1.console" | sed -n 's/^COUNT \([0-9]*\)$/\1/p'
}

# come NUMBER N: has that QEMU said N or more?
come() { numbers "$1" | awk -v n="$2" '$1 >= n {yes = 1} END {exit !yes}'; }

# Waits until a moment of QEMU number $1: the first two in the boot, the others some numbers later
moment() {
	local ms=$((RANDOM % 4000)) more=$((RANDOM % (last / hops)))
	if [ "$1" -gt 1 ]; then
		at=$((at + more))
		until_true "$1" 300 come "$1" "$at" || return
		ms=$((ms % 100))
	fi
	sleep "$(printf %d.%03d $((ms / 1000)) $((ms % 1000)))"
}

# save: QEMU $1 goes on after it, then ends; $2 begins where it was saved
save() {
	say "$1" "savevm moment"
	say "$1" "info status"
	until_true "$1" 120 grep -aq "VM status: running" "$dir/$1.monitor" || return
	sleep "0.$((RANDOM % 3))"
	say "$1" quit
	close "$1" || return
	start "$2" "${vm[@]}" -loadvm moment
}

move() {
	rm -f "$dir/socket"
	start "$2" "${vm[@]}" -incoming "unix:$dir/socket"
	until_true "$2" 60 test -S "$dir/socket" || return
	say "$1" "migrate -d unix:$dir/socket"
	until_true "$1" 120 answer "$1" "info migrate" "Migration status: \(completed\|failed\)" || return
	say "$1" quit
	close "$1"
}

# All consoles one after another. What a QEMU said after it was saved comes again.
console_good() {
	if [ "$how" = save ]; then
		for k in $(seq 0 "$hops"); do numbers "$k"; done |
			awk -v last="$last" '$1 > n + 1 || $1 < 1 {bad = 1} {n = $1} END {exit bad || n != last}'
	else
		for k in $(seq 0 "$hops"); do cat "$dir/$k.console"; done > "$dir/all.console"
		numbers all | cmp -s - <(seq "$last")
	fi && shows "$hops" "CLIENT count done, $last" && ! grep -aq FAILED "$dir"/[0-9]*.console
}

disk_good() {
	local f
	qemu-img convert -O raw "$dir/disk.img" "$dir/disk.raw"
	e2fsck -fn "$dir/disk.raw" > "$dir/e2fsck" 2>&1 || return
	for f in in count; do debugfs -R "dump /$f $dir/$f" "$dir/disk.raw" > /dev/null 2>&1; done
	cmp -s "$dir/in" "$dir/fs/in" && cmp -s "$dir/count" <(seq "$last")
}

# life HOW ROW: one guest from its boot over all hops to its end
life() {
	local how=$1 what="$1 $2 (SEED=$SEED)" format=raw k=0 at=1
	make_disk 1000000
	if [ "$how" = save ]; then
		format=qcow2
		qemu-img convert -O qcow2 "$dir/disk.img" "$dir/q" && mv "$dir/q" "$dir/disk.img"
	fi
	machine "$2" $format
	start 0 "${vm[@]}"
	while [ $k -lt "$hops" ]; do
		moment $k && $how $k $((k + 1))
		result $? "$what: hop $k, after number $at: $(tail -n 1 "$dir/$k.monitor")" || { end_all; return; }
		k=$((k + 1))
	done
	until_true $k 300 shows $k "CLIENT count done"
	close $k
	result $? "$what: QEMU's status"
	console_good
	result $? "$what: the console"
	disk_good
	result $? "$what: the disk"
	echo "$what: $hops moments, $passed passed, $failed failed"
}

for how in ${*:-save move}; do
	for row in $machines; do life "$how" "$row"; done
done
finish
