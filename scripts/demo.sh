#!/bin/sh
# SPDX-License-Identifier: MIT
# make demo: boots Debian's kernel; then four times with stressapptest, with MMIO and with x2APIC
# interrupts, with the exit-time emulator's proved translations off and on; and prints what each
# run cost. All figures come from the runs. STRESS_SECS=N shortens them.
# Usage: demo.sh BUILD-DIR
set -e
build=$1
. scripts/stress.sh

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
# exits by kind that any of the runs counted
kinds=$(cat "$dir"/*x2apic-o*.json | sed -n 's/^"\(exit_[a-z_]*\)":.*/\1/p' | sort -u)
exits() { sed -n "s/^\"$1\": \([0-9]*\),\{0,1\}$/\1/p" "$dir/$2.json" | grep . || echo 0; }

insns=$(stat boot cpu_insns)
cpu=$(stat boot cpu_s)
echo
echo "boot: $(cat "$dir/boot.cpu") CPU seconds to init; $insns instructions to power-off," \
	"$(echo "$insns $cpu" | awk '{printf "%.1f", $1 / $2 / 1e6}') million a second"
echo
row "run" echo
row "instructions" value cpu_insns
for kind in $kinds; do
	row "exits to the VMM: ${kind#exit_}" exits $kind
done
row "emulator's page walks" walks
row "  for data" value emul_walk_data
row "  for proving ahead" value emul_walk_prove
row "  for system accesses" value emul_walk_system
row "  for fetch" value emul_walk_fetch
row "processor's page walks: data" value cpu_walk
row "processor's page walks: system" value cpu_walk_system
row "processor's page walks: fetch" value cpu_fetch_walk
