#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes the guest of the demo and the benchmark in DIR: `vmlinuz`, Debian's own cloud kernel, and
# `initrd`, an initramfs of our init and Debian's stressapptest. Packages are downloaded and
# unpacked there, nothing is installed. Usage: guest.sh DIR INIT
set -e
dir=$1 init=$2
[ -s "$dir/vmlinuz" ] && [ -s "$dir/initrd" ] && [ "$dir/initrd" -nt "$init" ] && exit 0
mkdir -p "$dir"
init=$(realpath "$init")
cd "$dir"

die() {
	echo "guest.sh: $*" >&2
	exit 1
}

# fetch PACKAGE: download and unpack into ./x, once
fetch() {
	[ -e "x/.$1" ] && return
	apt-get -q download "$1" > apt.log 2>&1 || {
		echo "missing packages: $1 (apt-get cannot download it: $PWD/apt.log; no Debian mirror?)" >&2
		exit 2
	}
	dpkg-deb -x "$1"_*.deb x
	touch "x/.$1"
}

mkdir -p x
kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends:/ {print $2; exit}')
if [ -z "$kernel" ]; then
	echo "missing packages: linux-image-cloud-amd64 stressapptest libaio1 (unknown to apt; apt-get update?)" >&2
	exit 2
fi
fetch "$kernel"
fetch stressapptest
fetch libaio1
cp "x/boot/vmlinuz-${kernel#linux-image-}" vmlinuz

# the test program with the shared libraries that it needs, under the names that it asks for
rm -rf root
mkdir -p root/bin root/dev
cp "$init" root/init
cp x/usr/bin/stressapptest root/bin/
export LD_LIBRARY_PATH="$PWD/x/lib/x86_64-linux-gnu:$PWD/x/usr/lib/x86_64-linux-gnu"
libs=$(ldd root/bin/stressapptest)
unset LD_LIBRARY_PATH
case $libs in *"not found"*) die "stressapptest lacks libraries: $libs" ;; esac
for lib in $(printf '%s\n' "$libs" | grep -o '/[^ ]*'); do
	to=$lib
	case $lib in "$PWD"/x/*) to=${lib#"$PWD/x"} ;; esac
	mkdir -p "root${to%/*}"
	cp -L "$lib" "root$to"
done
(cd root && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) > initrd.tmp
mv initrd.tmp initrd
