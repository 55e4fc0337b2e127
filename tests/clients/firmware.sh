#!/bin/bash
# SPDX-License-Identifier: MIT
# Firmware and memory test of Debian's packages under Debian's QEMU: OVMF to the UEFI shell, memtest86+
# through its tests 0 to 3 on 64 MB, read off its screen. Usage: firmware.sh BUILD-DIR
build=$1 name=firmware
. tests/clients/lib.sh
scripts/packages.sh qemu-system-x86 || exit

for p in ovmf memtest86+; do
	[ -e "$dir/.$p" ] && continue
	(cd "$dir" && apt-get -q download "$p" > apt.log 2>&1 && dpkg-deb -x "$p"_*.deb . && touch ".$p") ||
		{ cat "$dir/apt.log" >&2; exit 2; }
done

shell_seen() { tr -d '\000' < "$dir/ovmf.console" | grep -aq 'Shell>'; }
start ovmf -M q35 -m 256 -bios "$dir/usr/share/ovmf/OVMF.fd"
until_true ovmf 300 shell_seen
result $? "OVMF does not reach its shell ($dir/ovmf.console)"
say ovmf quit
close ovmf

# The screen's characters are every other byte of text memory
screen() {
	rm -f "$dir/screen.bin"
	say memtest "pmemsave 0xb8000 4000 $dir/screen.bin"
	sleep 1
	od -An -v -tu1 -w160 "$dir/screen.bin" 2>/dev/null | awk '{
		line = ""
		for (i = 1; i < NF; i += 2) line = line sprintf("%c", $i >= 32 && $i < 127 ? $i : 32)
		print line
	}' > "$dir/screen"
}
test_4() { screen; grep -Eq 'Test #([4-9]|10)' "$dir/screen"; }
on_screen() { grep -q "$1" "$dir/screen"; }

start memtest -M pc -m 64 -vga std -kernel "$dir/boot/memtest86+x64.bin"
until_true memtest 30 test_4 # 600 looks, each a second
result $? "memtest86+ does not get through tests 0 to 3 ($dir/screen)"
on_screen 'Memtest86+ v' && on_screen 'Memory  :   63MB'
result $? "memtest86+'s screen is not as it should be ($dir/screen)"
on_screen 'Errors: 0 '
result $? "memtest86+ finds errors ($dir/screen)"
say memtest quit
close memtest
finish
