/* SPDX-License-Identifier: MIT */
/* Where a SIPI's trampoline jumps: up to 64-bit mode on the tables that are there, then ap_main. */
#include "../lib/layout.h"

	.section .text.start, "ax"
	.code16
	.globl	ap_start
ap_start:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	lgdtl	gdtr
	movl	%cr0, %eax
	movl	%eax, ap_cr0
	movl	%edx, ap_edx
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$KERNEL_CS32, $1f
	.code32
1:	movl	$KERNEL_DS, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$0x20, %eax
	movl	%eax, %cr4
	movl	$PML4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx
	movl	$0x901, %eax
	xorl	%edx, %edx
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000022, %eax
	andl	$0x9fffffff, %eax /* INIT leaves CD and NW */
	movl	%eax, %cr0
	ljmpl	$KERNEL_CS, $1f
	.code64
1:	movq	$AP_STACK, %rsp
	lidt	ap_idt
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	call	ap_main
1:	hlt
	jmp	1b

	.bss
	.globl	ap_cr0, ap_edx, ap_idt
ap_cr0:	.long	0
ap_edx:	.long	0
ap_idt:	.skip	16
	.section .note.GNU-stack, "", @progbits
