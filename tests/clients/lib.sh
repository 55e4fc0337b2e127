# SPDX-License-Identifier: MIT
# For the tests of QEMU whose guest is watched while it runs (bash) to source, with build=BUILD-DIR and
# name=TEST set. Each QEMU has its console in $dir/NAME.console, its monitor's answers in
# $dir/NAME.monitor; its process is ${pid[NAME]}. ACCEL=tcg: QEMU's own processor, without the launcher.
. tests/clients/disk.sh
dir=$build/$name
accel=${ACCEL:-kvm}
declare -A pid monitor
passed=0 failed=0
mkdir -p "$dir"
SEED=${SEED:-$(date +%s)}
RANDOM=$SEED

# Ends only what this script has started.
end_all() {
	for n in "${!pid[@]}"; do kill -9 "${pid[$n]}"; done 2> /dev/null
}
trap end_all EXIT

# result STATUS TEXT: counts one check; its status is the same
result() {
	if [ "$1" -eq 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAIL: $2"
	fi
	return "$1"
}

finish() {
	echo "$passed passed, $failed failed"
	[ $failed -eq 0 ]
	exit
}

# start NAME ARGS...: QEMU in the background
start() {
	local n=$1 fd run=
	shift
	[ "$accel" = kvm ] && run="$build/tests/wx/wx $build/anykvm"
	rm -f "$dir/$n".{in,console,monitor}
	: > "$dir/$n.console"
	mkfifo "$dir/$n.in"
	exec {fd}<> "$dir/$n.in"
	setsid $run qemu-system-x86_64 -accel "$accel" -m 128 -nodefaults -display none -no-reboot \
		-serial "file:$dir/$n.console" -monitor stdio "$@" \
		< "$dir/$n.in" > "$dir/$n.monitor" 2>&1 {fd}<&- &
	pid[$n]=$! monitor[$n]=$fd
}

# linux: the arguments for the guest of this test; APPEND on its command line
linux() {
	args=(-kernel "$build/clients/vmlinuz" -initrd "$build/clients/initrd"
		-append "console=ttyS0 panic=-1 quiet $1")
}

say() { echo "$2" >&"${monitor[$1]}"; }
alive() { kill -0 "${pid[$1]}" 2> /dev/null; }

# until_true NAME SECONDS COMMAND...: 0 as soon as the command succeeds, 1 when QEMU or the time has ended
until_true() {
	local n=$1 left=$(($2 * 20))
	shift 2
	until "$@"; do
		left=$((left - 1))
		[ $left -gt 0 ] && alive "$n" || { "$@"; return; }
		sleep 0.05
	done
}

# shows NAME TEXT: is TEXT on its console?
shows() { grep -aq "$2" "$dir/$1.console"; }

# answer NAME COMMAND TEXT: gives the command, is TEXT in what the monitor has said since the last one?
answer() {
	say "$1" "$2"
	sleep 0.1
	grep -aq "$3" "$dir/$1.monitor"
}

# close NAME [SECONDS]: its status, after it has ended; it is killed if it does not within a minute
close() {
	local status
	until_true "$1" "${2:-60}" eval "! alive $1" || { kill -9 "${pid[$1]}"; echo "$1 does not end"; }
	wait "${pid[$1]}"
	status=$?
	exec {monitor[$1]}>&-
	unset "pid[$1]"
	return $status
}
