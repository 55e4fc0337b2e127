#!/bin/sh
# SPDX-License-Identifier: MIT
# Usage: vmlinux.sh OUT [VMLINUZ]. Fetches Debian's cloud kernel, or takes VMLINUZ, and writes its
# uncompressed ELF image to OUT. The payload's place in a bzImage: Linux Documentation/arch/x86/boot.rst, fields
# setup_sects (0x1f1), payload_offset (0x248), payload_length (0x24c).
set -e
out=$(realpath -m "$1") image=${2:+$(realpath "$2")}
mkdir -p "$(dirname "$out")"
dir=$(mktemp -d "$(dirname "$out")/kernel.XXXXXX")
trap 'rm -rf "$dir"' EXIT
cd "$dir"

fetch() {
	package=$(apt-cache depends linux-image-cloud-amd64 |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
	apt-get download "$package" > download.log 2>&1 || { cat download.log; exit 1; }
	dpkg-deb -x ./*.deb .
	image=$(ls boot/vmlinuz-*)
}
[ -n "$image" ] || fetch

field() { # offset, bytes
	od -An -v -t "u$2" -j "$1" -N "$2" "$image" | tr -d ' '
}
start=$((($(field $((0x1f1)) 1) + 1) * 512 + $(field $((0x248)) 4)))
length=$(field $((0x24c)) 4)
tail -c +$((start + 1)) "$image" | head -c "$length" > payload

case $(od -An -t x1 -N 4 payload | tr -d ' ') in
fd377a58) unpack='xz -dc' ;;
28b52ffd) unpack='zstd -dc' ;;
02214c18) unpack='lz4 -dc' ;;
1f8b*) unpack='gzip -dc' ;;
*) echo "unknown compression" >&2; exit 1 ;;
esac
# The payload ends with its uncompressed size, which the tools complain about after the end.
$unpack < payload > vmlinux 2> unpack.log || true
head -c 4 vmlinux | od -An -t x1 | grep -q '7f 45 4c 46' || { cat unpack.log; exit 1; }
mv vmlinux "$out"
