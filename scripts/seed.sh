#!/bin/sh
# SPDX-License-Identifier: MIT
# make seed: the walks of the guest's page tables that emulation costs, with the proved
# translations off and on, the processor's own walks beside them, and what KVM needs: the
# seed's T cases, then Linux with stressapptest under our VMM and under Debian's QEMU. Fails if with
# `on` a data operand was walked.
# Usage: seed.sh BUILD-DIR
set -e
build=$1
cases=$(V=1 "$build/tests/seed/seed_t" 2>/dev/null | grep '^T[0-9]')

printf '%-5s %13s %15s %17s  %s\n' "" "emulator's" "processor's" "KVM, by its code" ""
printf '%-5s %6s %6s %7s %7s %8s %8s  %s\n' case off on off on 4.12 7.2 "seen by user space"
echo "$cases" | awk 'NR == FNR {if (!/^#/) kvm[$1] = sprintf("%8s %8s", $2, $3); next}
	{
		name = $1; off += $2; on += $3; coff += $4; con += $5
		printf "%-5s %6d %6d %7d %7d %s ", name, $2, $3, $4, $5, kvm[name]
		for (i = 6; i <= NF; i++)
			printf " %s", $i
		print ""
	}
	END {printf "%-5s %6d %6d %7d %7d\n", "all", off, on, coff, con; exit on != 0 || con > coff}
	' tests/seed/kvm.txt - || {
	echo "seed: a case walks with the proved translations on" >&2
	exit 1
}

echo
. scripts/stress.sh
echo
# linux NAME RUN KVM-OFF KVM-ON
linux() {
	on=$(stat $2-on emul_walk_data)
	bad=$((bad + on))
	printf '%-30s %9s %9s %10s %10s %9s %9s\n' "$1: data" "$(stat $2-off emul_walk_data)" \
		"$on" "$(stat $2-off cpu_walk)" "$(stat $2-on cpu_walk)" "$3" "$4"
	printf '%-30s %9s %9s\n' "  proofs ahead" "$(stat $2-off emul_walk_prove)" \
		"$(stat $2-on emul_walk_prove)"
	printf '%-30s %9s %9s %10s %10s\n' "  system: tables, TSS, IDT" \
		"$(stat $2-off emul_walk_system)" "$(stat $2-on emul_walk_system)" \
		"$(stat $2-off cpu_walk_system)" "$(stat $2-on cpu_walk_system)"
}
bad=0
printf '%-30s %19s %21s %19s\n' "" "emulator's" "processor's" "KVM 6.1, measured"
printf '%-30s %9s %9s %10s %10s %9s %9s\n' "Linux, stressapptest ${secs} s" off on off on off on
linux "x2APIC" x2apic 1085 0
linux "xAPIC" nox2apic 6764 0
echo
. scripts/seed_qemu.sh
echo
echo "The thread's figures, 2017: kvm-unit-tests 10419 before, 1259 after; Ubuntu with"
echo "stressapptest 20 s and shutdown 243365 before, 1221 after. The same unit tests on KVM 6.1:"
echo "10525 and 1180. What Linux needs depends on the machine's devices, not on stressapptest."
[ $bad -eq 0 ] || {
	echo "seed: $bad walks for data with the proved translations on" >&2
	exit 1
}
