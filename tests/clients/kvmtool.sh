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
lkvm=$(realpath "$1")/lkvm || exit 2
shift
build=${BUILD:-build}
LAUNCHER=${LAUNCHER-$build/anykvm}
limit=${LIMIT:-200}
. tests/clients/disk.sh
[ -x "$lkvm" ] || { echo "no $lkvm: build it there (make)"; exit 2; }
scripts/packages.sh e2fsprogs perl-base cpio kmod || exit 2
make -s "B=$build" "$build/clients/initrd" || exit 2
[ $# -gt 0 ] || set -- cloud:1:pci cloud:1:pci-legacy generic:2:pci
passed=0 failed=0
dir=$(mktemp -d) || exit 2
echo_pid=
trap 'kill $echo_pid 2> /dev/null; rm -rf "$dir"' EXIT

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
		}' > "$dir/port" &
	echo_pid=$!
	until [ -s "$dir/port" ]; do sleep 0.1; kill -0 $echo_pid || exit 2; done
	read -r port < "$dir/port"
}

# machine KERNEL CPUS TRANSPORT: its console in $dir/log, its exit status
machine() {
	local from=$build/clients
	[ "$1" = generic ] && from=$from/generic
	timeout -k 5 "$limit" ${LAUNCHER:+"$LAUNCHER"} "$lkvm" run --name "anykvm-$$" \
		-k "$from/vmlinuz" -i "$from/initrd" -m 256 -c "$2" --console serial \
		--virtio-transport "$3" -d "$dir/disk.img" -n mode=user \
		-p "console=ttyS0 end=reset self=192.168.33.15 echo=192.168.33.1:$port $APPEND" \
		< /dev/null > "$dir/console" 2>&1
	local status=$?
	tr -d '\r' < "$dir/console" > "$dir/log"
	return $status
}

start_echo
for row in "$@"; do
	IFS=: read -r kernel cpus transport <<< "$row"
	[ "$kernel" = generic ] && make_generic
	make_disk 3000000
	start=$SECONDS
	machine "$kernel" "$cpus" "$transport"
	status=$?
	if [ $status -eq 0 ] && guest_good "$dir/log" "$cpus"; then
		result=ok
		passed=$((passed + 1))
	else
		result="FAILED (status $status)"
		failed=$((failed + 1))
	fi
	printf '%-22s %-8s %4s s\n' "$row" "$result" $((SECONDS - start))
	[ "$result" = ok ] || tail -n 25 "$dir/log"
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
