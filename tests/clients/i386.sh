#!/bin/bash
# SPDX-License-Identifier: MIT
# Debian's 32-bit kernels, 686 (two-level page tables) and 686-pae, on pc to /init and power-off, with
# -accel tcg beside them. The kernels are downloaded, through lists of their own: the system's own
# architectures stay. Usage: i386.sh BUILD-DIR
build=$1 name=i386
. tests/clients/lib.sh
scripts/packages.sh qemu-system-x86 gcc cpio || exit

lists=$(realpath "$dir")/apt
apt() {
	"$@" -o APT::Architecture=i386 -o APT::Architectures=i386 -o Dir::State::Lists="$lists/lists" \
		-o Dir::Cache="$lists/cache" -o APT::Sandbox::User=root
}

# fetch FLAVOUR: its kernel, in $dir/vmlinuz-FLAVOUR
fetch() {
	local package
	[ -s "$dir/vmlinuz-$1" ] && return
	mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
	[ -e "$lists/updated" ] || apt apt-get -qq update > "$dir/apt.log" 2>&1
	touch "$lists/updated"
	package=$(apt apt-cache depends "linux-image-$1" | awk '/Depends:/ {print $2; exit}')
	[ -n "$package" ] && (cd "$dir" && apt apt-get -qq download "$package") >> "$dir/apt.log" 2>&1 || {
		echo "missing packages: linux-image-$1:i386 (apt-get cannot download it: $dir/apt.log)" >&2
		exit 2
	}
	dpkg-deb --fsys-tarfile "$dir/${package}"_*.deb | tar -xO --wildcards './boot/vmlinuz-*' > "$dir/vmlinuz-$1"
}

mkdir -p "$dir/root/dev"
gcc -m32 -O2 -ffreestanding -nostdlib -static -fno-pie -no-pie -fno-stack-protector \
	-o "$dir/root/init" tests/clients/init32.c &&
	(cd "$dir/root" && find . | cpio --quiet -o -H newc -R 0:0) > "$dir/initrd"
result $? "no initramfs" || finish

# used: the CPU seconds of all that has ended, in $cpu
used() {
	times > "$dir/times"
	cpu=$(tail -n 1 "$dir/times" | tr ms '  ' | awk '{print $1 * 60 + $2 + $3 * 60 + $4}')
}

# boot FLAVOUR ACCEL: has the guest done everything?
boot() {
	local n=$1-$2
	accel=$2
	start "$n" -M pc -kernel "$dir/vmlinuz-$1" -initrd "$dir/initrd" -append "console=ttyS0 panic=-1"
	close "$n" 300 && shows "$n" "CLIENT init32" && shows "$n" "CLIENT slept" && shows "$n" "CLIENT computed"
}

for flavour in 686 686-pae; do
	fetch $flavour
	for how in kvm tcg; do
		used
		before=$cpu
		boot $flavour $how
		result $? "$flavour under $how ($dir/$flavour-$how.console)"
		used
		echo "pc, kernel $flavour, $how: $(awk -v a="$cpu" -v b="$before" 'BEGIN {printf "%.1f", a - b}') CPU s"
	done
done
finish
