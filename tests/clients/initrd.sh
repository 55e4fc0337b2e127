#!/bin/sh
# SPDX-License-Identifier: MIT
# An initramfs of init.c and Debian's virtio modules for the kernel that scripts/guest.sh unpacked
# in DIR/x. Usage: initrd.sh DIR INIT OUT
set -e
dir=$1 init=$2 out=$3
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
kver=$(basename "$dir"/x/lib/modules/*)
PATH=$PATH:/usr/sbin:/sbin
depmod -b "$dir/x" "$kver"
mkdir -p "$root/lib" "$root/dev"
cp "$init" "$root/init"
for m in virtio_pci virtio_mmio virtio_blk virtio_net crc32c_generic crc32c_intel ext4 ata_piix sd_mod; do
	modprobe -d "$dir/x" -S "$kver" --show-depends "$m" 2>/dev/null || true
done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r file; do
	cp "$file" "$root/lib/"
	echo "/lib/$(basename "$file")" >> "$root/modules"
done
[ -s "$root/modules" ] || touch "$root/modules"
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -1 > "$out.tmp"
mv "$out.tmp" "$out"
