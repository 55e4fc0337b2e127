# SPDX-License-Identifier: MIT
# The boots of the demo and of the seed's table, for scripts that set build=BUILD-DIR and then
# source this file: Debian's kernel four times, with MMIO and with x2APIC interrupts, with the
# exit-time emulator's proved translations off and on, stressapptest in each guest.
# Afterwards stat, walks and rate give the figures of a run: nox2apic-off, nox2apic-on, ...
secs=${STRESS_SECS:-20}
dir=$build/demo
scripts/packages.sh gcc make binutils libc6-dev cpio
${MAKE:-make} -s "$build/anykvm" "$build/boot/init" "$build/bench/until"
scripts/guest.sh "$dir" "$build/boot/init"

die() {
	echo "${0##*/}: $*" >&2
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

# the emulator's walks of all classes
walks() {
	sum=0
	for class in data prove system fetch; do
		n=$(stat "$1" emul_walk_$class) || exit 1
		sum=$((sum + n))
	done
	echo $sum
}

# rate RUN: the processor's walks for data, per million instructions: the work of a run varies
rate() {
	count=$(stat "$1" cpu_walk) && insns=$(stat "$1" cpu_insns) || exit 1
	echo "$count $insns" | awk '{printf "%.1f", $1 / $2 * 1e6}'
}
