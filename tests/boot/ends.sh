#!/bin/sh
# SPDX-License-Identifier: MIT
# How guests end, and what `anykvm boot` says then: each kernel is a few instructions at the 64-bit
# entry point (boot.rst: 0x200 into the code). $ANYKVM is the command.
anykvm=${ANYKVM:-build/anykvm}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0
. "$(dirname "$0")/kernel.sh"

# ends NAME STATUS CODE(as of printf) TEXT...: each TEXT must be in the output; none: no output
ends() {
	name=$1 status=$2
	make_kernel guest
	poke guest 0x600 "$3"
	shift 3
	out=$(timeout 20 "$anykvm" boot --kernel "$dir/guest" --memory 64M 2>&1 < /dev/null)
	rc=$?
	ok=1
	[ $# -gt 0 ] || [ -z "$out" ] || ok=0
	for text in "$@"; do
		case $out in
		*"$text"*) ;;
		*) ok=0 ;;
		esac
	done
	if [ $ok -eq 1 ] && [ $rc -eq "$status" ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		printf '%s: want status %s and "%s"\n  got status %s: %s\n' \
			"$name" "$status" "$*" "$rc" "$out"
	fi
}

# mov dx,0x604; mov ax,0x3400; out dx,ax (ACPI S5); jmp $
ends "power off" 0 '\146\272\004\006\146\270\000\064\146\357\353\376'
# mov dx,0xcf9; mov al,6; out dx,al; jmp $
ends "restart" 0 '\146\272\371\014\260\006\356\353\376' restart
# ud2 without an IDT
ends "triple fault" 3 '\017\013' "guest triple fault on vCPU 0 at RIP 0x"
# mov eax,0xd0000000; jmp rax: mapped, but nothing is there
ends "code without RAM" 4 '\270\000\000\000\320\377\340' \
	"code at rip 0xd0000000 is not in RAM (gpa 0xd0000000)" \
	"KVM internal error 1 on vCPU 0 at RIP 0xd0000000"
# push 0xd0000000; push word 0xff; lgdt [rsp+..]: sub rsp,16; mov word [rsp],0xff;
# mov eax,0xd0000000; mov [rsp+2],rax; lgdt [rsp]; mov ax,0x10; mov ds,ax
ends "GDT without RAM" 4 '\110\203\354\020\146\307\004\044\377\000\270\000\000\000\320\110\211\104\044\002\017\001\024\044\146\270\020\000\216\330' \
	"mov ds, ax (8e d8) at rip 0x" "gva 0xd0000010 gpa 0xd0000010 len 8 read" "descriptor table is not in RAM" \
	"KVM internal error 1 on vCPU 0 at RIP 0x" "instruction bytes 8e d8"
# the same with the IDT: lidt [rsp]; int3
ends "IDT without RAM" 4 '\110\203\354\020\146\307\004\044\377\017\270\000\000\000\320\110\211\104\044\002\017\001\034\044\314' \
	"int3 (cc) at rip 0x" "gva 0xd0000030 gpa 0xd0000030 len 16 read" "KVM internal error 1 on vCPU 0 at RIP 0x"
# and with ud2: an exception's delivery
ends "exception with the IDT outside RAM" 4 '\110\203\354\020\146\307\004\044\377\017\270\000\000\000\320\110\211\104\044\002\017\001\034\044\017\013' \
	"KVM internal error 3 on vCPU 0 at RIP 0x"

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
