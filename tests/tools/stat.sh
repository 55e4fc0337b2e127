#!/bin/bash
# SPDX-License-Identifier: MIT
# anykvm stat: the counts of a VM that waits are right, those of a guest that never exits go on, a look
# that is killed leaves the VM alone, and of a VM that is killed nothing is left. Usage: stat.sh ANYKVM VM
anykvm=$(realpath "$1") vm=$(realpath "$2")
dir=$(mktemp -d) || exit 1
passed=0 failed=0
pids=()
trap 'kill -9 "${pids[@]}" 2> /dev/null; rm -rf "$dir"' EXIT

result() {
	if [ "$1" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $2"; fi
}

# start ARGUMENT...: a VM in the background, $pid
start() {
	rm -f "$dir/in" "$dir/out"
	mkfifo "$dir/in"
	"$vm" "$@" < "$dir/in" > "$dir/out" &
	pid=$!
	pids+=($pid)
	exec {in}> "$dir/in"
	until grep -q ready "$dir/out"; do
		kill -0 $pid || { result 1 "vm $*: does not start"; return; }
		sleep 0.05
	done
}

# count NAME: its total in the last look
count() {
	awk -v n="$1" '$1 == n {print $2}' "$dir/stat"
}

look() {
	timeout 60 "$anykvm" stat -1 -p "$pid" > "$dir/stat" 2> "$dir/err"
}

start count 6400
look
result $? "a VM that waits: $(cat "$dir/err")"
[ "$(count io_exits)" = 6400 ] && [ "$(count emul_complete_pio)" = 6399 ]
result $? "its exits: $(cat "$dir/stat")"
head -n 1 "$dir/stat" | grep -qx "anykvm: 1 process, 1 vCPU"
result $? "one vCPU: $(head -n 1 "$dir/stat")"
timeout 60 "$anykvm" stat -1 | grep -q "^io_exits "
result $? "found without -p"
exec {in}>&-
wait $pid
result $? "the VM ends"

start spin
look
first=$(count cpu_insns)
look
[ "${first:-0}" -gt 0 ] && [ "$(count cpu_insns)" -gt "$first" ]
result $? "a guest that never exits: $first, then $(count cpu_insns)"
[ "$(awk '$1 == "cpu_insns" {print $3}' "$dir/stat")" -gt 0 ]
result $? "a rate: $(grep cpu_insns "$dir/stat")"
"$anykvm" stat -p $pid > "$dir/stat" &
looker=$!
pids+=($looker)
until grep -q cpu_insns "$dir/stat"; do sleep 0.1; done
kill -9 $looker
wait $looker 2> /dev/null
kill -0 $pid
result $? "the VM lives when who looks at it is killed"
look
result $? "and can be looked at: $(cat "$dir/err")"
kill -9 $pid
wait $pid 2> /dev/null
exec {in}>&-
! look && grep -q "process $pid has no VM of anykvm" "$dir/err"
result $? "a VM that was killed: $(cat "$dir/err")"
"$anykvm" stat --no-such 2> /dev/null
[ $? -eq 2 ]
result $? "an unknown option"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
