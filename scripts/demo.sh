#!/bin/sh
# SPDX-License-Identifier: MIT
# make demo: boots Debian's kernel four times, with MMIO and with x2APIC interrupts, with the
# exit-time emulator's proved translations off and on, runs stressapptest in each guest, and
# prints what each run cost. All figures come from the runs. STRESS_SECS=N shortens them.
# Usage: demo.sh BUILD-DIR
set -e
build=$1
secs=${STRESS_SECS:-20}
dir=$build/demo
scripts/packages.sh gcc make binutils libc6-dev cpio
${MAKE:-make} -s "$build/anykvm" "$build/boot/init" "$build/bench/until"
scripts/guest.sh "$dir" "$build/boot/init"

die() {
	echo "demo: $*" >&2
	exit 1
}

# stat RUN NAME: a figure of a run; there must be one
stat() {
	value=$(sed -n "s/^\"$2\": \([0-9.]*\),\{0,1\}$/\1/p" "$dir/$1.json")
	[ -n "$value" ] || die "run $1 has no statistic $2 ($dir/$1.json)"
	echo "$value"
}

# run NAME GPA APPEND: one boot; the CPU seconds to the marker end up in NAME.cpu
run() {
	echo "== $1: ANYKVM_GPA=$2, kernel command line: $3"
	ANYKVM_GPA=$2 "$build/bench/until" ANYKVM-INIT-REACHED "$dir/$1.cpu" \
		"$build/anykvm" boot --kernel "$dir/vmlinuz" --initrd "$dir/initrd" \
		--memory 512M --stats "$dir/$1.json" --append "$3" \
		< /dev/null > "$dir/$1.log" 2>&1 || {
		status=$?
		tail -n 20 "$dir/$1.log" >&2
		die "run $1 ended with status $status ($dir/$1.log)"
	}
	tr -d '\r' < "$dir/$1.log" | grep -E '^ANYKVM-|^Status: ' || true
	grep -q 'ANYKVM-STRESS-STATUS 0' "$dir/$1.log" || die "stressapptest failed ($dir/$1.log)"
}

for apic in nox2apic x2apic; do
	word=
	[ $apic = nox2apic ] && word=" nox2apic"
	for gpa in off on; do
		run $apic-$gpa $gpa "console=ttyS0$word demo=stress secs=$secs"
	done
done

# row TITLE COMMAND...: one line of the table, COMMAND RUN gives a cell
row() {
	title=$1
	shift
	printf '%-34s' "$title"
	for r in nox2apic-off nox2apic-on x2apic-off x2apic-on; do
		cell=$("$@" $r) || exit 1
		printf ' %14s' "$cell"
	done
	echo
}
value() { stat "$2" "$1"; }
boot() { cat "$dir/$1.cpu"; }
mips() {
	insns=$(stat "$1" cpu_insns) && cpu=$(stat "$1" cpu_s) || exit 1
	echo "$insns $cpu" | awk '{printf "%.1f", $1 / $2 / 1e6}'
}
walks() {
	sum=0
	for class in data prove system fetch; do
		n=$(stat "$1" emul_walk_$class) || exit 1
		sum=$((sum + n))
	done
	echo $sum
}
# exits by kind that any of the runs counted
kinds=$(cat "$dir"/*x2apic-o*.json | sed -n 's/^"\(exit_[a-z_]*\)":.*/\1/p' | sort -u)
exits() { sed -n "s/^\"$1\": \([0-9]*\),\{0,1\}$/\1/p" "$dir/$2.json" | grep . || echo 0; }

echo
row "run" echo
row "CPU seconds to init" boot
row "CPU seconds in all" value cpu_s
row "instructions" value cpu_insns
row "million instructions per s" mips
for kind in $kinds; do
	row "exits to the VMM: ${kind#exit_}" exits $kind
done
row "emulator's page walks" walks
row "  for data" value emul_walk_data
row "  for proving ahead" value emul_walk_prove
row "  for system accesses" value emul_walk_system
row "  for fetch" value emul_walk_fetch
row "processor's page walks: data" value cpu_walk
row "processor's page walks: fetch" value cpu_fetch_walk
