/* SPDX-License-Identifier: MIT */
/*
 * A boot sector for QEMU TCG: device accesses in a loop, timed by RDTSC (the host's, in TCG).
 * Writes three lines to the debug console (port 0xe9), the least of ROUNDS: hexadecimal TSC
 * ticks of N port writes, of N loads from the IOAPIC, of N loads from the LAPIC.
 */
#define N      20000
#define ROUNDS 20

	.code16
	cli
	xorw %ax, %ax
	movw %ax, %ds
	lgdt gdtr
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $8, $start

	.code32
start:
	movw $16, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $0x7000, %esp
	movl $out_loop, %ebx
	call measure
	movl $ioapic_loop, %ebx
	call measure
	movl $lapic_loop, %ebx
	call measure
	movw $0x501, %dx /* isa-debug-exit */
	outb %al, %dx
1:	hlt
	jmp 1b

out_loop:
	outb %al, $0x80
	dec %ecx
	jnz out_loop
	ret
ioapic_loop:
	movl 0xfec00010, %eax
	dec %ecx
	jnz ioapic_loop
	ret
lapic_loop:
	movl 0xfee00020, %eax
	dec %ecx
	jnz lapic_loop
	ret

/* EBX: the loop. Prints the least of its times. */
measure:
	movl $-1, %ebp
	movl $ROUNDS, %edi
1:	rdtsc
	movl %eax, %esi
	movl $N, %ecx
	call *%ebx
	rdtsc
	subl %esi, %eax
	cmpl %ebp, %eax
	jae 2f
	movl %eax, %ebp
2:	dec %edi
	jnz 1b
	movl $8, %ecx
3:	roll $4, %ebp
	movl %ebp, %eax
	andl $15, %eax
	movb digits(%eax), %al
	outb %al, $0xe9
	dec %ecx
	jnz 3b
	movb $'\n', %al
	outb %al, $0xe9
	ret

digits:	.ascii "0123456789abcdef"
	.balign 8
gdt:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:	.word 23
	.long gdt
	.org 510
	.word 0xaa55
