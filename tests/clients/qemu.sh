#!/bin/bash
# SPDX-License-Identifier: MIT
# Debian's QEMU, unmodified, on anykvm: firmware, Debian's kernel, virtio-blk with a file system
# written and read back, virtio-net through user networking, power-off. The same machine with TCG
# beside it (not with TCG=0), for the CPU time. A row of the output is a machine; `ok` is counted, a row that is
# not is shown with the end of its console. Usage: qemu.sh BUILD-DIR ROW...
#	ROW	MACHINE:IRQCHIP:CPUS:CPU, such as q35:split:4:max, or `all`
build=$1
shift
dir=$build/clients/$$
passed=0 failed=0
. tests/clients/disk.sh
if ! command -v qemu-system-x86_64 > /dev/null; then
	echo "SKIPPED: no qemu-system-x86_64 here (Debian package qemu-system-x86)"
	exit 0
fi
all="microvm:on:1:host microvm:split:1:qemu64 microvm:off:1:qemu64 microvm:on:4:max microvm:split:4:host
	pc:on:1:qemu64 pc:split:1:host pc:off:1:max pc:on:4:host pc:split:4:qemu64
	q35:on:1:max q35:split:1:qemu64 q35:off:1:host q35:on:4:qemu64 q35:split:4:max"
[ "$1" = all ] && set -- $all
mkdir -p "$dir"
cp "$build/clients/vmlinuz" "$build/clients/initrd" "$dir/"
trap 'rm -rf "$dir"' EXIT

# run NAME SECONDS COMMAND...: CPU seconds of the command in $cpu
run() {
	local log=$dir/$1.log limit=$2
	shift 2
	cpu=$( { TIMEFORMAT='%U %S'; time timeout -k 5 "$limit" "$@" < /dev/null > "$log" 2>&1; } 2>&1 |
		awk '{printf "%.1f", $1 + $2}')
}

# good NAME CPUS: did the guest of this run do everything?
good() {
	tr -d '\r' < "$dir/$1.log" > "$dir/$1.txt"
	guest_good "$dir/$1.txt" "$2"
}

# machine NAME SECONDS ACCEL MACHINE CPUS CPU PREFIX...
machine() {
	local run=$1 limit=$2 accel=$3 m=$4 cpus=$5 cpumodel=$6 dev
	shift 6
	dev=pci
	case $m in microvm*) dev=device ;; esac
	# Its second IOAPIC is always in user space, which hears of the LAPIC's EOIs only with a split
	# irqchip, QEMU's default for this machine (api.rst, KVM_EXIT_IOAPIC_EOI).
	case $m in microvm*=on) m=$m,ioapic2=off ;; esac
	make_disk 3000000
	run "$run" "$limit" "$@" qemu-system-x86_64 -accel "$accel" -M "$m" -smp "$cpus" -cpu "$cpumodel" \
		-m 256 -nodefaults -display none -no-reboot -serial stdio \
		-kernel "$dir/vmlinuz" -initrd "$dir/initrd" -append "console=ttyS0 panic=-1 $append" \
		-drive "if=none,id=d,format=raw,file=$dir/disk.img" -device "virtio-blk-$dev,drive=d" \
		-netdev "user,id=n,restrict=on,guestfwd=tcp:10.0.2.100:7-cmd:cat" \
		-device "virtio-net-$dev,netdev=n"
}

printf '%-24s %-8s %10s %10s %7s\n' "machine" result "CPU s" "TCG's" ratio
for row in "$@"; do
	IFS=: read -r m irqchip cpus cpumodel <<< "$row"
	name=$m-$irqchip-$cpus-$cpumodel
	tcgcpu=$cpumodel
	[ "$cpumodel" = host ] && tcgcpu=max
	tcg=-
	# The kernel finds no clock on TCG's microvm: no kvmclock, and it cannot calibrate against its PIT.
	if [ "$TCG" != 0 ] && [ "$m" != microvm ]; then
		machine "$name-tcg" 400 tcg "$m" "$cpus" "$tcgcpu"
		good "$name-tcg" "$cpus" && tcg=$cpu
	fi
	machine "$name" 400 kvm "$m,kernel-irqchip=$irqchip" "$cpus" "$cpumodel" "$build/tests/wx/wx" "$build/anykvm"
	if good "$name" "$cpus"; then
		result=ok
		passed=$((passed + 1))
	else
		result=FAILED
		failed=$((failed + 1))
	fi
	ratio=$(awk -v a="$cpu" -v b="$tcg" 'BEGIN {if (b > 0) printf "%.2f", a / b; else print "-"}')
	printf '%-24s %-8s %10s %10s %7s\n' "$row" "$result" "$cpu" "$tcg" "$ratio"
	[ $result = ok ] || tail -n 25 "$dir/$name.txt"
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
