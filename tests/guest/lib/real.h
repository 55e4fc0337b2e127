/* SPDX-License-Identifier: MIT */
/*
 * Guests that never leave real mode: header, reports, an IVT that notes what came. All in one
 * segment, 0. The checks' names and values must come out the same on the host's KVM.
 */
#include "../abi.h"

#define STACK 0x7000

	.section .text.start, "ax"
	.code16
start:	jmp	real_start
	.org	start + 4
	.long	IMAGE_MAGIC, IMAGE_REAL, 1

/* check "name", want: EAX has what was got. Changes EAX and DX only. */
	.macro	check name, want
	movl	%eax, report + 8
	movl	$\want, report + 16
	movl	$9f, report
	movl	$report, %eax
	movw	$PORT_REPORT, %dx
	outl	%eax, %dx
	.pushsection .rodata
9:	.asciz	"\name"
	.popsection
	.endm

	.macro	test name
	movl	$9f, %eax
	movw	$PORT_TEST, %dx
	outl	%eax, %dx
	.pushsection .rodata
9:	.asciz	"\name"
	.popsection
	.endm

/* check16 "name", place, want: a word of memory or a 16-bit register */
	.macro	check16 name, place, want
	movw	\place, %ax
	movzwl	%ax, %eax
	check	"\name", \want
	.endm

/* One trap: its vector, and its IP relative to `at`. */
	.macro	trapped name, vector, at, off
	movzwl	trap_count, %eax
	check	"\name: count", 1
	movzwl	trap_vector, %eax
	check	"\name", \vector
	movzwl	trap_ip, %eax
	subl	$\at, %eax
	check	"\name: IP", \off
	.endm
	.macro	not_trapped name
	movzwl	trap_count, %eax
	check	"\name", 0
	.endm

/* A fault in what follows goes on at \to. */
	.macro	try to
	movw	$\to, trap_resume
	movw	$0, trap_count
	.endm

	.balign	8
stubs:	.set	vector, 0
	.rept	34
	.balign	8
	pushw	$vector
	jmp	trap_common
	.set	vector, vector + 1
	.endr

/* First trap is noted; #DB IPs are logged too. Faults go to trap_resume, others go on. */
trap_common:
	pushw	%bp
	movw	%sp, %bp
	pushw	%ax
	pushw	%bx
	cmpw	$0, trap_count
	jne	1f
	movw	2(%bp), %ax
	movw	%ax, trap_vector
	movw	4(%bp), %ax
	movw	%ax, trap_ip
	movw	8(%bp), %ax
	movw	%ax, trap_flags
	movw	%cx, trap_cx
1:	movw	trap_count, %bx
	cmpw	$16, %bx
	jae	2f
	addw	%bx, %bx
	movw	4(%bp), %ax
	movw	%ax, trap_ips(%bx)
2:	incw	trap_count
	movw	2(%bp), %ax
	cmpw	$1, %ax
	je	4f
	cmpw	$3, %ax
	je	3f
	cmpw	$4, %ax
	je	3f
	cmpw	$32, %ax
	jae	3f
	movw	trap_resume, %ax
	movw	%ax, 4(%bp)
3:	popw	%bx
	popw	%ax
	popw	%bp
	addw	$2, %sp
	iretw
4:	movw	trap_resume, %ax /* single-stepping ends there */
	cmpw	%ax, 4(%bp)
	jne	3b
	andw	$0xfeff, 8(%bp)
	jmp	3b

real_start:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$STACK, %sp
	cld
	xorw	%di, %di
	movw	$stubs, %ax
	movw	$34, %cx
1:	stosw
	movw	$0, (%di)
	addw	$2, %di
	addw	$8, %ax
	loop	1b
	call	main
	movw	$PORT_END, %dx
	outl	%eax, %dx
	hlt

	.balign	8
report:	.skip	24
trap_resume: .word 0
trap_count: .word 0
trap_vector: .word 0
trap_ip: .word 0
trap_flags: .word 0
trap_cx: .word 0
trap_ips: .skip 32
	.section .note.GNU-stack, "", @progbits
	.section .text.start
