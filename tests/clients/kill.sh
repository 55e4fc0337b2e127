#!/bin/bash
# SPDX-License-Identifier: MIT
# SIGKILL of QEMU at KILLS (100) random moments, each followed by a start on the same disk image. The
# guest counts into a file, and says a number after it is on the disk (each eighth: fsync). After each
# kill: the file system is clean or recovers, the file has no gap and all that the guest said, and no
# process, no file and no shared memory is left. Every third start boots and is killed anywhere from the
# firmware to some seconds of counting; the others load a guest that has booted and waits for the disk,
# which saves time for kills while it is mounted and written. Usage: kill.sh BUILD-DIR
build=$1 name=kill
. tests/clients/lib.sh
scripts/packages.sh qemu-system-x86 e2fsprogs || exit
sector=$((24 * 2048))
disk=(-M q35 -drive "if=none,id=d,format=raw,file=$dir/disk.img" -device virtio-blk-pci,drive=d)
linux "test=count count=1000000 wait=$sector"
export TMPDIR=$dir/tmp
rm -rf "$TMPDIR"
mkdir "$TMPDIR"

# A guest before its first look at the disk
make_state() {
	local begin=${EPOCHREALTIME/./}
	make_disk 1000000
	truncate -s $((sector * 512 + 4096)) "$dir/disk.img"
	start boot "${disk[@]}" "${args[@]}"
	until_true boot 300 shows boot "CLIENT waits" || return
	boot_ms=$(((${EPOCHREALTIME/./} - begin) / 1000))
	say boot "migrate \"exec:cat > $dir/state\""
	until_true boot 60 answer boot "info migrate" "Migration status: completed" || return
	say boot quit
	close boot
	printf go | dd of="$dir/disk.img" bs=512 seek=$sector conv=notrunc status=none
}

# The last number on the console, 0 if there is none
said() { tr -d '\r' < "$dir/run.console" | awk '/^COUNT [0-9]+$/ {n = $2} END {print n + 0}'; }
has_said() { [ "$(said)" -ge "$1" ]; }

# sleep_below MS: less than that
sleep_below() {
	local ms=$((RANDOM * 32768 + RANDOM))
	ms=$((ms % $1))
	sleep "$(printf %d.%03d $((ms / 1000)) $((ms % 1000)))"
}

# Some time after the start, or (three of four that need not boot) at a number of the guest
moment() {
	if boots; then
		sleep_below $((boot_ms * 3 / 2))
	elif [ $((RANDOM % 4)) -eq 0 ]; then
		sleep_below 2000
	else
		until_true run 300 has_said $((last + 1 + RANDOM % 30)) || echo "run $i does not count"
		sleep_below 30
	fi
}

# How far it had come, as it is known from its console
count_phase() {
	if [ "$(said)" -gt 0 ]; then
		running=$((running + 1))
	elif boots && ! shows run "CLIENT waits"; then
		booting=$((booting + 1))
	else
		mounting=$((mounting + 1))
	fi
}

# What a process leaves: others of its session, files, shared memory
left_behind() {
	cut -d' ' -f1,6 /proc/[0-9]*/stat 2> /dev/null | awk -v s="$1" '$2 == s && $1 != s {print "process " $1}'
	find "$TMPDIR" -mindepth 1
	find /dev/shm /run /tmp -maxdepth 1 -name "*anykvm*" -newer "$dir/started" 2> /dev/null
	awk -v p="$1" '$5 == p {print "shared memory " $2}' /proc/sysvipc/shm
}

disk_good() {
	cp "$dir/disk.img" "$dir/copy.img"
	e2fsck -fp "$dir/copy.img" > "$dir/e2fsck" 2>&1 || [ $? -eq 1 ] || return
	debugfs -R "dump /count $dir/count" "$dir/copy.img" > /dev/null 2>&1 || return
	debugfs -R "dump /in $dir/in" "$dir/copy.img" > /dev/null 2>&1
	cmp -s "$dir/in" "$dir/fs/in" && awk -v least=$(($(said) / 8 * 8)) \
		'$1 != NR {bad = 1} END {exit bad || NR < least}' "$dir/count"
}

make_state
result $? "no guest that waits ($dir/boot.console)" || finish
last=0 i=0 booting=0 mounting=0 running=0
boots() { [ $((i % 3)) -eq 0 ]; }
while [ $i -lt "${KILLS:-100}" ]; do
	i=$((i + 1)) what="kill $i (SEED=$SEED)"
	touch "$dir/started"
	if boots; then
		start run "${disk[@]}" "${args[@]}"
	else
		start run "${disk[@]}" "${args[@]}" -incoming fd:9 9< "$dir/state"
	fi
	moment
	kill -9 "${pid[run]}"
	wait "${pid[run]}" 2> /dev/null
	count_phase
	left=$(left_behind "${pid[run]}")
	[ -z "$left" ] || sleep 5 # other tests' files of the moment are gone then
	[ -z "$left" ] || left=$(left_behind "${pid[run]}")
	[ -z "$left" ]
	result $? "$what: left behind: $left"
	disk_good
	result $? "$what: the disk, after $(said) ($dir/e2fsck)" || break
	last=$(awk 'END {print NR}' "$dir/count")
done
echo "$i kills, $booting in firmware and boot, $mounting before the first number, $running later;" \
	"the guest has counted to $last"
finish
