# SPDX-License-Identifier: MIT
# The disk of the guests of init.c, for tests (bash) to source; $dir is theirs.
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

# make_disk BYTES: $dir/disk.img, a file system with a file /in of so many bytes, which is $dir/fs/in
make_disk() {
	rm -rf "$dir/fs" "$dir/disk.img" "$dir/out"
	mkdir -p "$dir/fs"
	head -c "$1" /dev/urandom > "$dir/fs/in"
	mkfs.ext4 -qF -d "$dir/fs" "$dir/disk.img" 24M > /dev/null 2>&1
}

# guest_good CONSOLE CPUS: did the guest do everything, with such a disk of 3000000 bytes?
guest_good() {
	grep -q "CLIENT init, $2 processors" "$1" && grep -q "CLIENT disk ok, 3000000" "$1" &&
		grep -q "CLIENT net ok, 1048576" "$1" && grep -q "CLIENT done" "$1" &&
		debugfs -R "dump /out $dir/out" "$dir/disk.img" > /dev/null 2>&1 &&
		cmp -s "$dir/out" "$dir/fs/in" && e2fsck -fn "$dir/disk.img" > /dev/null 2>&1
}
