#!/bin/sh
# SPDX-License-Identifier: MIT
# Firmware and memory test of Debian's packages under Debian's QEMU: OVMF to the UEFI shell, memtest86+
# through its tests 0 to 3 on 64 MB, read off its screen. Usage: firmware.sh BUILD
set -e
build=$1
dir=$build/firmware
scripts/packages.sh qemu-system-x86
mkdir -p "$dir"
passed=0 failed=0
result() {
	if [ "$1" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL: $2"; fi
}

for p in ovmf memtest86+; do
	[ -e "$dir/.$p" ] && continue
	(cd "$dir" && apt-get -q download "$p" > apt.log 2>&1 && dpkg-deb -x "$p"_*.deb . && touch ".$p") ||
		{ cat "$dir/apt.log" >&2; exit 2; }
done

# monitor NAME ARGS...: QEMU with its monitor on a pipe that is descriptor 3
monitor() {
	name=$1
	shift
	rm -f "$dir/$name.in"
	mkfifo "$dir/$name.in"
	exec 3<> "$dir/$name.in"
	"$build/tests/wx/wx" "$build/anykvm" qemu-system-x86_64 -accel kvm -nic none -no-reboot -display none "$@" \
		-monitor stdio < "$dir/$name.in" > "$dir/$name.monitor" 2>&1 &
	qemu=$!
}

finish() {
	echo quit >&3
	wait "$qemu" || true
}

# until_seen SECONDS COMMAND...: 0 as soon as the command succeeds
until_seen() {
	n=$1
	shift
	while [ "$n" -gt 0 ] && kill -0 "$qemu" 2>/dev/null; do
		"$@" && return 0
		n=$((n - 1))
		sleep 1
	done
	return 1
}

shell_seen() { tr -d '\000' < "$dir/ovmf.serial" | grep -aq 'Shell>'; }
: > "$dir/ovmf.serial"
monitor ovmf -M q35 -m 256 -bios "$dir/usr/share/ovmf/OVMF.fd" -serial file:"$dir/ovmf.serial"
until_seen 300 shell_seen && rc=0 || rc=1
finish
result $rc "OVMF does not reach its shell ($dir/ovmf.serial)"

# The screen's characters are every other byte of text memory
screen() {
	rm -f "$dir/screen.bin"
	echo "pmemsave 0xb8000 4000 $dir/screen.bin" >&3
	sleep 0.3
	od -An -v -tu1 -w160 "$dir/screen.bin" 2>/dev/null | awk '{
		line = ""
		for (i = 1; i < NF; i += 2) line = line sprintf("%c", $i >= 32 && $i < 127 ? $i : 32)
		print line
	}' > "$dir/screen"
}
test_4() { screen; grep -Eq 'Test #([4-9]|10)' "$dir/screen"; }
monitor memtest -M pc -m 64 -kernel "$dir/boot/memtest86+x64.bin"
until_seen 600 test_4 && rc=0 || rc=1
result $rc "memtest86+ does not get through tests 0 to 3 ($dir/screen)"
grep -q 'Memtest86+ v' "$dir/screen" && grep -q 'Memory  :   63MB' "$dir/screen" && rc=0 || rc=1
result $rc "memtest86+'s screen is not as it should be ($dir/screen)"
grep -q 'Errors: 0 ' "$dir/screen" && rc=0 || rc=1
result $rc "memtest86+ finds errors ($dir/screen)"
finish
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
