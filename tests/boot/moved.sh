#!/bin/sh
# SPDX-License-Identifier: MIT
# A boot of Debian's kernel in the middle of which the guest moves to fresh VMs (moved.c; SEED=N: the
# same pauses between moves) prints what one without a move prints: time is counted in instructions.
# Left out is what shows the date, which is the host's, or nanoseconds: kvmclock is rounded anew in each
# VM, and a REP that is moved in its middle counts as two instructions. With the LAPIC in both its modes.
# Usage: moved.sh BUILD-DIR
build=$1
dir=$build/boot
export ANYKVM_CLOCK=instructions MOVES="${MOVES:-10}" SEED="${SEED:-$(date +%s)}"
passed=0 failed=0

# boot NAME COMMAND...: its console in $dir/NAME.console
boot() {
	name=$1
	shift
	"$@" --kernel "$build/demo/vmlinuz" --initrd "$build/demo/initrd" --memory 256M \
		--append "console=ttyS0 $append" < /dev/null > "$dir/$name.log" 2> "$dir/$name.err" || return
	sed -e 's/^\[ *[0-9.]*\] //' -e '/^audit: type=2000/d' -e '/setting system clock/d' \
		-e '/^sched_clock: Marking/d' -e '/using sched offset/d' "$dir/$name.log" > "$dir/$name.console"
}

for append in x2apic nox2apic; do
	boot still "$build/anykvm" boot && boot moved "$build/tests/boot/moved" &&
		grep -q ANYKVM-INIT-REACHED "$dir/still.console" &&
		grep -q "^moved [1-9][0-9]* times: [1-9][0-9]* passed, 0 failed" "$dir/moved.err" &&
		diff "$dir/still.console" "$dir/moved.console"
	if [ $? -eq 0 ]; then
		passed=$((passed + 1))
		echo "$append: $(tail -n 1 "$dir/moved.err")"
	else
		failed=$((failed + 1))
		echo "FAIL: $append, SEED=$SEED ($dir/moved.err, $dir/moved.log)"
	fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
