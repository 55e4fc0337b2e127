#!/bin/sh
# SPDX-License-Identifier: MIT
# make bench-kernels: how fast guests compute. The same static program on the host, as /init of
# Debian's kernel under anykvm (translated and interpreted) and under QEMU TCG; the least of N=3 runs,
# in turn. Prints times of the host's and writes BUILD/bench-keys/kernels.keys.
# Usage: kernels.sh BUILD-DIR
set -e
build=$1
n=${N:-3}
dir=$build/bench-kernels
scripts/packages.sh gcc make binutils libc6-dev cpio qemu-system-x86
${MAKE:-make} -s "$build/anykvm" "$build/boot/init" "$build/bench/kernels"
scripts/guest.sh "$build/demo" "$build/boot/init"
rm -rf "$dir"
mkdir -p "$dir/root" "$build/bench-keys"
cp "$build/bench/kernels" "$dir/root/init"
(cd "$dir/root" && echo init | cpio --quiet -o -H newc -R 0:0) > "$dir/initrd"
guest="-kernel $build/demo/vmlinuz -initrd $dir/initrd"

# run NAME COMMAND...: adds the lines `KERNEL name nanoseconds` to NAME
run() {
	name=$1
	shift
	timeout 300 "$@" < /dev/null 2>&1 | tr -d '\r' | grep -ao 'KERNEL .*' >> "$dir/$name" || {
		echo "bench: $name has computed nothing" >&2
		exit 1
	}
}

i=0
while [ "$i" -lt "$n" ]; do
	run host "$build/bench/kernels"
	for engine in translate interp; do
		ANYKVM_ENGINE=$engine run $engine "$build/anykvm" boot --kernel "$build/demo/vmlinuz" \
			--initrd "$dir/initrd" --memory 512M --append "console=ttyS0 quiet"
	done
	run tcg qemu-system-x86_64 -accel tcg -M pc -m 512 -nographic -no-reboot $guest \
		-append "console=ttyS0 quiet"
	i=$((i + 1))
done

awk -v keys="$build/bench-keys/kernels.keys" '
	function x(who) {return least[who, name] / least["host", name]}
	{who = FILENAME; sub(/.*\//, "", who)}
	!seen[$2]++ {order[++n] = $2}
	!((who, $2) in least) || $3 < least[who, $2] {least[who, $2] = $3}
	END {
		printf "%-10s %10s %14s %14s %14s\n", "kernel", "host, us", "anykvm", "interpreted", "QEMU TCG"
		for (k = 1; k <= n; k++) {
			name = order[k]
			printf "%-10s %10.0f %13.1fx %13.1fx %13.1fx\n", name, least["host", name] / 1e3,
				x("translate"), x("interp"), x("tcg")
			a += log(x("translate"))
			i += log(x("interp"))
			t += log(x("tcg"))
		}
		printf "%-10s %10s %13.1fx %13.1fx %13.1fx\n", "geomean", "", exp(a / n), exp(i / n), exp(t / n)
		printf "\"kernels_x\": {\"value\": %.2f, \"unit\": \"times of the host\", \"peer\": \"qemu-tcg\", \"peer_value\": %.2f}\n",
			exp(a / n), exp(t / n) > keys
	}' "$dir/host" "$dir/translate" "$dir/interp" "$dir/tcg"
