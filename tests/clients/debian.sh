#!/bin/sh
# SPDX-License-Identifier: MIT
# A whole Debian 12 under Debian's QEMU: made with debootstrap in BUILD/debian (root is needed, once),
# booted to systemd's login prompt on the serial line, logged in, used, shut down; then the disk is
# checked. ACCEL=tcg runs it under QEMU's own processor. Usage: debian.sh BUILD
set -e
build=$1
dir=$build/debian
accel=${ACCEL:-kvm}
run=
[ "$accel" = kvm ] && run="$build/tests/wx/wx $build/anykvm"
scripts/packages.sh debootstrap e2fsprogs qemu-system-x86

# The system's root directory, and from it a disk
make_disk() {
	[ -e "$dir/disk.clean" ] && return
	mirror=$(sed -n -e 's/^URIs: *//p' -e 's/^deb  *\(\[[^]]*\] *\)\{0,1\}\([^ ]*\).*/\2/p' \
		/etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1)
	rm -rf "$dir/root"
	mkdir -p "$dir"
	debootstrap --variant=minbase --include=systemd-sysv,udev,dbus,linux-image-cloud-amd64,initramfs-tools,python3-minimal,gcc,libc6-dev \
		bookworm "$dir/root" "$mirror" > "$dir/debootstrap.log" 2>&1 || {
		tail -n 5 "$dir/debootstrap.log" >&2
		exit 2
	}
	chroot "$dir/root" passwd -d root > /dev/null
	cp "$dir"/root/boot/vmlinuz-* "$dir/vmlinuz"
	cp "$dir"/root/boot/initrd.img-* "$dir/initrd"
	truncate -s 2G "$dir/disk.tmp"
	mke2fs -q -t ext4 -d "$dir/root" "$dir/disk.tmp"
	rm -rf "$dir/root"
	mv "$dir/disk.tmp" "$dir/disk.clean"
}

# wait_for TEXT SECONDS: until the console shows it
wait_for() {
	n=0
	until grep -aq "$1" "$dir/console"; do
		n=$((n + 1))
		if [ $n -gt "$2" ] || ! kill -0 "$qemu" 2>/dev/null; then
			echo "no \"$1\" on the console ($dir/console)" >&2
			kill "$qemu" 2>/dev/null || true
			return 1
		fi
		sleep 1
	done
}

passed=0 failed=0
expect() {
	if grep -aq "$1" "$dir/console"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAIL: the console does not show $1"
	fi
}

make_disk
cp --sparse=always "$dir/disk.clean" "$dir/disk"
rm -f "$dir/keys"
mkfifo "$dir/keys"
: > "$dir/console" # what an earlier run said is no answer
exec 3<> "$dir/keys"
start=$(date +%s)
$run qemu-system-x86_64 -accel "$accel" -M q35 -m 1024 -nographic -nic none -no-reboot \
	-kernel "$dir/vmlinuz" -initrd "$dir/initrd" -append "root=/dev/vda rw console=ttyS0 systemd.default_timeout_start_sec=900" \
	-drive file="$dir/disk",if=virtio,format=raw < "$dir/keys" > "$dir/console" 2>&1 &
qemu=$!
wait_for "login: " 1200
echo root >&3
wait_for "root@" 120
# what is typed is echoed: the answers differ from the commands
cat >&3 <<'END'
apt-get --version | sed 's/^apt /APT-/'; python3 -c 'print("PYTHON-%d" % (6 * 7))'
printf '#include <stdio.h>\nint main(void) { printf("GCC-%%d\\n", 6 * 7); }\n' > a.c; gcc -O2 a.c && ./a.out
echo SYSTEMD-$(systemctl is-system-running --wait | cut -c1-3); poweroff
END
wait_for "Power down" 600
wait "$qemu" && status=0 || status=$?
expect APT-2
expect PYTHON-42
expect GCC-42
expect SYSTEMD-run
if [ "$status" -eq 0 ] && e2fsck -fn "$dir/disk" > "$dir/e2fsck" 2>&1; then
	passed=$((passed + 1))
else
	failed=$((failed + 1))
	echo "FAIL: status $status, or the file system is not clean ($dir/e2fsck)"
fi
echo "Debian under $accel: $(($(date +%s) - start)) seconds from start to power-off"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
