#!/bin/sh
# SPDX-License-Identifier: MIT
# What `anykvm boot` says, and its exit status, when something is wrong. No guest is run:
# kernels are made here, of a header and nothing behind it. $ANYKVM is the command.
anykvm=${ANYKVM:-build/anykvm}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0

. "$(dirname "$0")/kernel.sh"

# expect NAME STATUS TEXT ARGS...: TEXT must be in the one line of output
expect() {
	name=$1 status=$2 text=$3
	shift 3
	out=$("$anykvm" "$@" 2>&1 < /dev/null)
	rc=$?
	case $out in
	*"$text"*) ok=1 ;;
	*) ok=0 ;;
	esac
	[ "$(printf '%s\n' "$out" | wc -l)" -eq 1 ] || ok=0
	if [ $ok -eq 1 ] && [ $rc -eq "$status" ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		printf '%s: want status %s and "%s"\n  got status %s: %s\n' \
			"$name" "$status" "$text" "$rc" "$out"
	fi
}

# variant NAME OFFSET BYTES: a good kernel with one change
variant() {
	make_kernel "$1"
	poke "$1" "$2" "$3"
}

# wrong NAME STATUS TEXT ARGS...: `boot` with a good kernel and a device that is none
wrong() {
	name=$1 status=$2 text=$3
	shift 3
	expect "$name" "$status" "$text" boot --kernel "$dir/good" --device /dev/null "$@"
}

make_kernel good
: > "$dir/empty"
head -c 600 "$dir/good" > "$dir/cut-header"
head -c 300 "$dir/good" > "$dir/short"
head -c 20000 "$dir/good" > "$dir/cut"
variant nomagic 0x202 'XXXX'
variant noflag 0x1fe '\000\000'
variant old 0x206 '\005\002'
variant ancient 0x206 '\000\002'
variant zimage 0x211 '\000'
variant only32 0x236 '\000'
variant noinit 0x260 '\000\000\000\000'
variant payload 0x24c '\000\000\000\377'
variant nowhere 0x258 '\000\000\000\360'
head -c 4096 /dev/zero > "$dir/zeros"
printf '\177ELF\002\001\001' > "$dir/elf"
head -c 4096 /dev/zero >> "$dir/elf"
mkfifo "$dir/fifo"
truncate -s 40M "$dir/initrd-40M"
truncate -s 3G "$dir/initrd-3G"
echo x > "$dir/initrd"
long=$(head -c 2048 /dev/zero | tr '\0' x)

# the checks themselves pass, so that each failure below has one cause
wrong "all files good" 1 "/dev/null is not a KVM device" --initrd "$dir/initrd"

expect "unknown command" 127 "no such program or subcommand" frob-no-such
expect "unknown option" 2 "unknown option --frob" boot --frob
expect "missing argument" 2 "--kernel needs an argument" boot --kernel
expect "no kernel option" 2 "--kernel FILE is missing" boot
wrong "extra argument" 2 "unexpected argument surplus" surplus
wrong "memory syntax" 2 "--memory 12Q: not a size" --memory 12Q
wrong "memory words" 2 "--memory much: not a size" --memory much
wrong "memory negative" 2 "--memory -1: not a size" --memory -1
wrong "memory overflow" 2 "not a size" --memory 99999999999999999999G
wrong "memory 0" 2 "--memory 0: a guest needs memory" --memory 0
wrong "memory odd" 2 "not a multiple of 4K" --memory 32769K
wrong "memory huge" 2 "more than 512G" --memory 1024G
wrong "cpus 0" 2 "--cpus 0: not between 1 and" --cpus 0
wrong "cpus negative" 2 "--cpus -2: not between 1 and" --cpus -2
wrong "cpus too many" 2 "--cpus 4096: not between 1 and" --cpus 4096
wrong "cpus syntax" 2 "--cpus two: not a number" --cpus two
wrong "too little memory" 1 "too little memory: this kernel needs 32M" --memory 31M
wrong "just enough memory" 1 "not a KVM device" --memory 32M
wrong "initrd missing" 1 "cannot open initrd $dir/none: No such file" --initrd "$dir/none"
wrong "initrd a directory" 1 "initrd $dir is a directory" --initrd "$dir"
wrong "initrd empty" 1 "initrd $dir/empty is empty" --initrd "$dir/empty"
wrong "initrd too large" 1 "the initrd (41943040 bytes) is too large" \
	--initrd "$dir/initrd-40M" --memory 64M
wrong "initrd over its limit" 1 "is too large" --initrd "$dir/initrd-3G" --memory 8G
wrong "command line too long" 1 "command line is too long: 2048 bytes, this kernel takes 2047" \
	--append "$long"
wrong "stats file" 1 "cannot write $dir/none/x: No such file" --stats "$dir/none/x"

# one bad kernel a line: name, text
while IFS='|' read -r file text; do
	expect "kernel $file" 1 "$text" boot --kernel "$dir/$file" --device /dev/null
done <<END
none|cannot open kernel $dir/none: No such file or directory
.|is a directory
fifo|is not a regular file
empty|is empty
short|300 bytes are too few for its header
cut-header|does not say how much memory it needs
cut|is truncated: 20000 bytes, its header says 66560
zeros|is not a Linux kernel (no boot flag or no HdrS magic)
nomagic|is not a Linux kernel (no boot flag or no HdrS magic)
noflag|is not a Linux kernel (no boot flag or no HdrS magic)
elf|is an ELF file (vmlinux?)
old|too old: boot protocol 2.05
ancient|too old: boot protocol 2.00
zimage|is a zImage (it loads low); a bzImage is needed
only32|is a 32-bit kernel
noinit|does not say how much memory it needs
payload|is damaged: its payload ends beyond its code
nowhere|wants to be loaded at 0xf0000000
END

expect "device missing" 1 "cannot open /dev/no-kvm: No such file or directory" \
	boot --kernel "$dir/good" --device /dev/no-kvm
expect "device a regular file" 1 "is not a KVM device" \
	boot --kernel "$dir/good" --device "$dir/initrd"
expect "device a directory" 1 "cannot open $dir: Is a directory" \
	boot --kernel "$dir/good" --device "$dir"
if [ "$(id -u)" -eq 0 ]; then # root may open anything: be nobody
	chmod 755 "$dir"
	chmod 600 "$dir/initrd"
	cp "$anykvm" "$dir/anykvm"
	nobody() { setpriv --reuid=65534 --clear-groups "$dir/anykvm" "$@"; }
	anykvm=nobody
else
	chmod 0 "$dir/initrd"
fi
expect "device without permission" 1 "cannot open $dir/initrd: Permission denied" \
	boot --kernel "$dir/good" --device "$dir/initrd"
expect "initrd without permission" 1 "cannot open initrd $dir/initrd: Permission denied" \
	boot --kernel "$dir/good" --initrd "$dir/initrd" --device /dev/null

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
