#!/bin/sh
# SPDX-License-Identifier: MIT
# make bench: CPU seconds from exec to the guest's init, `anykvm boot` and Debian's QEMU TCG in
# turn, same kernel, same initramfs, 512 MB, one processor; the medians of N=3 runs. Then the
# emulator's page walks of a short stressapptest. Prints a table and writes
# BUILD/bench-keys/boot.keys.
# Usage: boot.sh BUILD-DIR
set -e
build=$1
n=${N:-3}
secs=${STRESS_SECS:-5}
dir=$build/demo
out=$build/bench-boot
scripts/packages.sh gcc make binutils libc6-dev cpio qemu-system-x86
${MAKE:-make} -s "$build/anykvm" "$build/boot/init" "$build/bench/until"
scripts/guest.sh "$dir" "$build/boot/init"
rm -rf "$out"
mkdir -p "$out" "$build/bench-keys"

# timed NAME COMMAND...: one run, CPU seconds to the marker in NAME.cpu
timed() {
	name=$1
	shift
	echo "  $name" >&2
	"$build/bench/until" ANYKVM-INIT-REACHED "$out/$name.cpu" "$@" < /dev/null \
		> "$out/$name.log" 2>&1 || {
		tail -n 20 "$out/$name.log" >&2
		echo "bench: $name failed ($out/$name.log)" >&2
		exit 1
	}
}

# anykvm NAME APPEND
anykvm() {
	timed "$1" "$build/anykvm" boot --kernel "$dir/vmlinuz" --initrd "$dir/initrd" \
		--memory 512M --stats "$out/$1.json" --append "console=ttyS0 $2"
}

# qemu NAME APPEND
qemu() {
	timed "$1" qemu-system-x86_64 -accel tcg -M pc -m 512 -nographic -no-reboot \
		-kernel "$dir/vmlinuz" -initrd "$dir/initrd" -append "console=ttyS0 $2"
}

# stat RUN NAME
stat() {
	sed -n "s/^\"$2\": \([0-9.]*\),\{0,1\}$/\1/p" "$out/$1.json" | grep . || {
		echo "bench: run $1 has no statistic $2 ($out/$1.json)" >&2
		exit 1
	}
}

median() { sort -n "$@" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

walks() {
	sum=0
	for class in data prove system fetch; do
		count=$(stat "$1" emul_walk_$class) || exit 1
		sum=$((sum + count))
	done
	echo $sum
}

i=1
while [ "$i" -le "$n" ]; do
	anykvm anykvm$i demo=marker
	qemu qemu$i demo=marker
	i=$((i + 1))
done
ANYKVM_GPA=off anykvm walks-off "nox2apic demo=stress secs=$secs"
ANYKVM_GPA=on anykvm walks-on "nox2apic demo=stress secs=$secs"

boot=$(median "$out"/anykvm*.cpu)
peer=$(median "$out"/qemu*.cpu)
insns=$(stat anykvm1 cpu_insns)
cpu=$(stat anykvm1 cpu_s)
mips=$(echo "$insns $cpu" | awk '{printf "%.1f", $1 / $2 / 1e6}')
off=$(walks walks-off)
on=$(walks walks-on)

cat > "$build/bench-keys/boot.keys" <<END
"boot_cpu_s": {"value": $boot, "unit": "s", "peer": "qemu-tcg", "peer_value": $peer}
"boot_mips": {"value": $mips, "unit": "M/s", "peer": null, "peer_value": null}
"walks_demo_off": {"value": $off, "unit": "walks", "peer": null, "peer_value": null}
"walks_demo_on": {"value": $on, "unit": "walks", "peer": "walks_demo_off", "peer_value": $off}
END
printf '%-44s %12s %12s\n' "" anykvm "QEMU TCG"
printf '%-44s %12s %12s\n' "boot: CPU s to init, median of $n" "$boot" "$peer"
printf '%-44s %12s\n' "boot: million instructions a second" "$mips"
printf '%-44s %12s\n' "emulator's walks, translations off ($secs s)" "$off"
printf '%-44s %12s\n' "emulator's walks, translations on ($secs s)" "$on"
