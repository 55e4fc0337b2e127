# SPDX-License-Identifier: MIT
# The boots of the demo and of the seed's table, for scripts that set build=BUILD-DIR and then
# source this file: Debian's kernel four times, with MMIO and with x2APIC interrupts, with the
# exit-time emulator's proved translations off and on, stressapptest in each guest. Their time is
# counted in instructions: off and on are one run, and every count can be compared exactly.
# Before them one boot in the host's time, for its speed: the run `boot`.
# Afterwards stat and walks give the figures of a run: nox2apic-off, nox2apic-on, ...
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

# run NAME CLOCK GPA APPEND: one boot; the CPU seconds to the marker end up in NAME.cpu
run() {
	echo "== $1: ANYKVM_CLOCK=$2 ANYKVM_GPA=$3, kernel command line: $4"
	ANYKVM_CLOCK=$2 ANYKVM_GPA=$3 "$build/bench/until" ANYKVM-INIT-REACHED "$dir/$1.cpu" \
		"$build/anykvm" boot --kernel "$dir/vmlinuz" --initrd "$dir/initrd" \
		--memory 512M --stats "$dir/$1.json" --append "$4" \
		< /dev/null > "$dir/$1.log" 2>&1 || {
		status=$?
		tail -n 20 "$dir/$1.log" >&2
		die "run $1 ended with status $status ($dir/$1.log)"
	}
	tr -d '\r' < "$dir/$1.log" | grep -E '^ANYKVM-|^Status: ' || true
}

# stress NAME GPA APPEND: such a boot with stressapptest
stress() {
	run "$1" instructions "$2" "$3 demo=stress secs=$secs"
	grep -q 'ANYKVM-STRESS-STATUS 0' "$dir/$1.log" || die "stressapptest failed ($dir/$1.log)"
}

run boot host on "console=ttyS0 demo=marker"

for apic in nox2apic x2apic; do
	word=
	[ $apic = nox2apic ] && word=" nox2apic"
	for gpa in off on; do
		stress $apic-$gpa $gpa "console=ttyS0$word"
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

# A walk must not have moved from the emulator to the processor.
for apic in nox2apic x2apic; do
	for class in cpu_walk cpu_walk_system cpu_fetch_walk; do
		[ "$(stat $apic-on $class)" -le "$(stat $apic-off $class)" ] ||
			die "$apic: the processor has more walks ($class) with ANYKVM_GPA=on than with off"
	done
done
