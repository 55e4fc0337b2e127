#!/bin/sh
# SPDX-License-Identifier: MIT
# make bench-exits: what leaving the guest costs, beside QEMU TCG's device accesses and, where
# there is one, a host's /dev/kvm. Prints a table and writes BUILD/bench-keys/exits.keys.
# Usage: exits.sh BUILD-DIR
set -e
build=$1
out=$build/bench-keys
scripts/packages.sh gcc make binutils libc6-dev qemu-system-x86
${MAKE:-make} -s "$build/bench/exits" "$build/bench/tcg.img"
mkdir -p "$out"
rm -f "$out/tcg.ticks"
# exit status 1 or 3 is isa-debug-exit's way to say that the guest has ended it
timeout 60 qemu-system-x86_64 -accel tcg -M pc -m 16 -display none -no-reboot \
	-drive "file=$build/bench/tcg.img,format=raw,if=floppy,readonly=on" -boot a -serial none \
	-parallel none -debugcon "file:$out/tcg.ticks" -device isa-debug-exit || true
[ "$(wc -l < "$out/tcg.ticks")" -eq 3 ] || {
	echo "bench: the QEMU guest did not report ($out/tcg.ticks)" >&2
	exit 1
}
device=
[ -r /dev/kvm ] && [ -w /dev/kvm ] && device="--device /dev/kvm"
"$build/bench/exits" --tcg "$out/tcg.ticks" $device "$out/exits.keys"
