#!/bin/sh
# SPDX-License-Identifier: MIT
# anykvm doctor: each line says "yes" with the feature and something else where it has been taken
# away, by a seccomp filter or, for the processor's, by QEMU's user-mode emulation. Which lines there
# are is asked of doctor itself: one that no test takes away fails. Usage: doctor.sh ANYKVM WITHOUT
anykvm=$(realpath "$1") without=$(realpath "$2")
scripts/packages.sh qemu-user || exit 2
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0
: > "$dir/taken"

result() {
	if [ "$1" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $2"; fi
}

# lost NAME STATUS COMMAND...: doctor under COMMAND says that NAME is not there, and ends with STATUS
lost() {
	name=$1 status=$2
	shift 2
	out=$("$@" 2>&1)
	rc=$?
	[ $rc -eq "$status" ]
	result $? "$name: status $rc"
	printf '%s\n' "$out" | grep -qE "^(MISSING|no     )  $name: "
	result $? "$name is not missed: $out"
	echo "$name" >> "$dir/taken"
}

# has NAME COMMAND...: doctor under COMMAND says that NAME is there
has() {
	name=$1
	shift
	"$@" 2>&1 | grep -qx "yes      $name"
	result $? "$name is not seen"
}

lost memfd 1 "$without" memfd_create -- "$anykvm" doctor
for call in epoll_create1 eventfd2 timerfd_create; do
	lost "epoll, eventfd, timerfd" 1 "$without" $call -- "$anykvm" doctor
done
cp "$anykvm" "$dir/anykvm"
lost "preload library" 0 "$dir/anykvm" doctor
lost "executable memory" 0 "$without" mmap:3=1 -- "$anykvm" doctor # MAP_SHARED
lost "/proc/self/fd" 0 "$without" openat:2=0x80002 -- "$anykvm" doctor # O_RDWR | O_CLOEXEC
lost "/dev/kvm of the host" 0 "$without" openat:2=0x80002 -- "$anykvm" doctor
lost "file leases" 0 "$without" fcntl:1=1024 -- "$anykvm" doctor # F_SETLEASE
lost process_vm_readv 0 "$without" process_vm_readv -- "$anykvm" doctor
lost MADV_WIPEONFORK 0 "$without" madvise:2=18 -- "$anykvm" doctor
lost kcmp 0 "$without" kcmp -- "$anykvm" doctor
lost "preadv2 RWF_NOWAIT on eventfds" 0 "$without" preadv2 -- "$anykvm" doctor
lost "/proc/thread-self/schedstat" 0 "$without" openat:2=0x80100 -- "$anykvm" doctor # O_NOCTTY
lost "invariant TSC" 0 qemu-x86_64 -cpu qemu64 "$anykvm" doctor
lost "AVX2, BMI1, BMI2" 0 qemu-x86_64 -cpu qemu64 "$anykvm" doctor
lost "VMX or SVM" 0 qemu-x86_64 -cpu qemu64,-svm "$anykvm" doctor
has "AVX2, BMI1, BMI2" qemu-x86_64 -cpu max "$anykvm" doctor
has "VMX or SVM" qemu-x86_64 -cpu qemu64,+svm "$anykvm" doctor
for name in memfd "epoll, eventfd, timerfd" "preload library" "executable memory" /proc/self/fd \
	"file leases" MADV_WIPEONFORK; do
	has "$name" "$anykvm" doctor
done
grep -q nonstop_tsc /proc/cpuinfo && has "invariant TSC" "$anykvm" doctor

"$anykvm" doctor | sed -e 's/^yes      //' -e 's/^MISSING  //' -e 's/^no       //' -e 's/: .*//' |
	while read -r line; do
		grep -qxF "$line" "$dir/taken" || echo "FAIL no test takes away: $line"
	done > "$dir/untested"
cat "$dir/untested"
[ ! -s "$dir/untested" ]
result $? "a line without a test"
"$anykvm" doctor x > /dev/null 2>&1
[ $? -eq 2 ]
result $? "an argument is refused"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
