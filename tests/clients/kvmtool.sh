#!/bin/bash
# SPDX-License-Identifier: MIT
# A kvmtool that somebody has built, unmodified, on anykvm: Debian's kernel, a file system on
# virtio-blk written and read back, 1 MiB through virtio-net and an echo server, restart. A row is a
# machine; one that is not ok is shown with the end of its console.
#
# kvmtool.sh DIR [ROW...]
#	ROW		KERNEL:CPUS:TRANSPORT, such as generic:2:pci
#	BUILD=build	LAUNCHER=$BUILD/anykvm, or empty: on the host's own KVM
#	LIMIT=200	seconds for each
#
# kvmtool describes its processors by an MP table, which Debian's cloud kernel does not read: it
# sees one. The generic kernel is downloaded, and unpacked below BUILD.
dir=$(realpath "$1") || exit 2
shift
build=${BUILD:-build}
LAUNCHER=${LAUNCHER-$build/anykvm}
limit=${LIMIT:-200}
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
[ -x "$dir/lkvm" ] || { echo "no lkvm in $dir: build it there (make)"; exit 2; }
scripts/packages.sh e2fsprogs perl-base cpio kmod || exit 2
make -s "B=$build" "$build/clients/initrd" || exit 2
[ $# -gt 0 ] || set -- cloud:1:pci cloud:1:pci-legacy generic:2:pci
passed=0 failed=0
tmp=$(mktemp -d) || exit 2
echo_pid=
trap 'kill $echo_pid 2> /dev/null; rm -rf "$tmp"' EXIT

make_generic() {
	local d=$build/clients/generic package
	[ -s "$d/initrd" ] && [ "$d/initrd" -nt "$build/clients/init" ] && return
	mkdir -p "$d"
	package=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ {print $2; exit}')
	[ -d "$d/x/lib" ] || (cd "$d" && apt-get -q download "$package" > apt.log 2>&1 &&
		dpkg-deb -x "$package"_*.deb x && rm "$package"_*.deb) ||
		{ echo "missing packages: linux-image-amd64 (apt-get cannot download it: $d/apt.log)"; exit 2; }
	cp "$d"/x/boot/vmlinuz-* "$d/vmlinuz"
	tests/clients/initrd.sh "$d" "$build/clients/init" "$d/initrd" || exit 2
}

# An echo server on a free port of 127.0.0.1, which kvmtool's user networking shows as its gateway.
# It hangs up when it has given back 1 MiB (init.c says why).
start_echo() {
	perl -MIO::Socket::INET -e '$| = 1;
		$l = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die;
		print $l->sockport, "\n";
		while ($c = $l->accept) {
			for ($left = 1048576; $left > 0 && sysread $c, $b, 65536; $left -= length $b) {
				for ($o = 0; $o < length $b; $o += $n) {
					$n = syswrite($c, $b, length($b) - $o, $o) or last;
				}
			}
			close $c;
		}' > "$tmp/port" &
	echo_pid=$!
	until [ -s "$tmp/port" ]; do sleep 0.1; kill -0 $echo_pid || exit 2; done
	read -r port < "$tmp/port"
}

make_disk() {
	rm -rf "$tmp/fs" "$tmp/disk.img" "$tmp/out"
	mkdir "$tmp/fs"
	head -c 3000000 /dev/urandom > "$tmp/fs/in"
	mkfs.ext4 -qF -d "$tmp/fs" "$tmp/disk.img" 24M > /dev/null 2>&1
}

# machine KERNEL CPUS TRANSPORT: its console in $tmp/log, its exit status
machine() {
	local from=$build/clients
	[ "$1" = generic ] && from=$from/generic
	timeout -k 5 "$limit" ${LAUNCHER:+"$LAUNCHER"} "$dir/lkvm" run --name "anykvm-$$" \
		-k "$from/vmlinuz" -i "$from/initrd" -m 256 -c "$2" --console serial \
		--virtio-transport "$3" -d "$tmp/disk.img" -n mode=user \
		-p "console=ttyS0 end=reset self=192.168.33.15 echo=192.168.33.1:$port $APPEND" \
		< /dev/null > "$tmp/console" 2>&1
	local status=$?
	tr -d '\r' < "$tmp/console" > "$tmp/log"
	return $status
}

# good CPUS: did the guest do everything?
good() {
	grep -q "CLIENT init, $1 processors" "$tmp/log" && grep -q "CLIENT disk ok, 3000000" "$tmp/log" &&
		grep -q "CLIENT net ok, 1048576" "$tmp/log" && grep -q "CLIENT done" "$tmp/log" &&
		debugfs -R "dump /out $tmp/out" "$tmp/disk.img" > /dev/null 2>&1 &&
		cmp -s "$tmp/out" "$tmp/fs/in" && e2fsck -fn "$tmp/disk.img" > /dev/null 2>&1
}

start_echo
for row in "$@"; do
	IFS=: read -r kernel cpus transport <<< "$row"
	[ "$kernel" = generic ] && make_generic
	make_disk
	start=$SECONDS
	machine "$kernel" "$cpus" "$transport"
	status=$?
	if [ $status -eq 0 ] && good "$cpus"; then
		result=ok
		passed=$((passed + 1))
	else
		result="FAILED (status $status)"
		failed=$((failed + 1))
	fi
	printf '%-22s %-8s %4s s\n' "$row" "$result" $((SECONDS - start))
	[ "$result" = ok ] || tail -n 25 "$tmp/log"
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
