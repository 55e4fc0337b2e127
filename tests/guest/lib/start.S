/* SPDX-License-Identifier: MIT */
/*
 * Start of an image that runs in 64-bit (or, with PROT32, flat 32-bit) mode: header, the way up
 * from real mode, GDT, exception stubs, the way to CPL 3 and back. IMAGE_FLAGS and IMAGE_CPUS
 * come from the Makefile.
 */
#include "../abi.h"
#include "layout.h"

	.section .text.start, "ax"
	.code16
	.globl start
start:	jmp	real
	.org	start + 4
	.long	IMAGE_MAGIC, IMAGE_FLAGS, IMAGE_CPUS

real:	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	lgdtl	gdtr
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$KERNEL_CS32, $prot

	.code32
prot:	movl	$KERNEL_DS, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$STACK_TOP, %esp
#ifdef PROT32
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	call	guest_main
#else
	/* 4 GiB identical in 2M pages for users too: PML4, PDPT, 4 page directories */
	movl	$PML4, %edi
	leal	0x1007(%edi), %eax
	movl	%eax, (%edi)
	leal	0x1000(%edi), %edi
	movl	$4, %ecx
	leal	0x1007(%edi), %eax
1:	movl	%eax, (%edi)
	addl	$0x1000, %eax
	addl	$8, %edi
	loop	1b
	movl	$PML4 + 0x2000, %edi
	movl	$0x87, %eax
	movl	$2048, %ecx
1:	movl	%eax, (%edi)
	addl	$0x200000, %eax
	addl	$8, %edi
	loop	1b

	movl	$0x20, %eax
	movl	%eax, %cr4
	movl	$PML4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx
	rdmsr
	orl	$0x901, %eax /* NXE LME SCE */
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000022, %eax /* PG NE MP */
	movl	%eax, %cr0
	ljmpl	$KERNEL_CS, $1f
	.code64
1:	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	movq	$STACK_TOP, %rsp
	call	guest_main
#endif
	movw	$PORT_END, %dx
	outl	%eax, %dx
	hlt

	.balign	8
	.globl	gdt, gdtr
gdt:	.quad	0
	.quad	0x00af9b000000ffff /* 08 kernel code, 64-bit */
	.quad	0x00cf93000000ffff /* 10 kernel data */
	.quad	0x00cf9b000000ffff /* 18 kernel code, 32-bit */
	.quad	0x00cffb000000ffff /* 20 user code, 32-bit */
	.quad	0x00cff3000000ffff /* 28 user data */
	.quad	0x00affb000000ffff /* 30 user code, 64-bit */
	.quad	0x00009b000000ffff /* 38 kernel code, 16-bit */
	.quad	0x000093000000ffff /* 40 kernel data, 16-bit */
	.fill	GDT_ENTRIES - 9, 8, 0
gdtr:	.word	GDT_ENTRIES * 8 - 1
	.long	gdt
	.long	0

/* ---- exceptions and interrupts: one stub each, 16 bytes apart */
	.text
	.balign	16
	.globl	trap_stubs
trap_stubs:
	.set	vector, 0
	.rept	256
	.balign	16
	.if	!((vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17))
#ifdef PROT32
	pushl	$0
#else
	pushq	$0
#endif
	.endif
#ifdef PROT32
	pushl	$vector
#else
	pushq	$vector
#endif
	jmp	trap_common
	.set	vector, vector + 1
	.endr

#ifdef PROT32
	.code32
trap_common:
	pushl	%gs
	pushl	%fs
	pushl	%es
	pushl	%ds
	pushal
	movl	$KERNEL_DS, %eax
	movl	%eax, %ds
	movl	%eax, %es
	cld
	movl	%esp, %eax
	pushl	%eax
	call	trap_entry
	addl	$4, %esp
	popal
	popl	%ds
	popl	%es
	popl	%fs
	popl	%gs
	addl	$8, %esp
	iretl

/* unsigned long user_enter(fn, flags, stack, cs): runs fn at CPL 3 until it does user_exit() */
	.globl	user_enter, user_return
user_enter:
	pushl	%ebx
	pushl	%esi
	pushl	%edi
	pushl	%ebp
	movl	%esp, kernel_sp
	movl	20(%esp), %ecx
	movl	24(%esp), %edx
	movl	28(%esp), %ebx
	movl	32(%esp), %esi
	movl	$USER_DS, %eax
	movl	%eax, %ds
	movl	%eax, %es
	pushl	%eax
	pushl	%ebx
	pushl	%edx
	pushl	%esi
	pushl	%ecx
	iretl
user_return:
	movl	4(%esp), %eax
	movl	kernel_sp, %esp
	popl	%ebp
	popl	%edi
	popl	%esi
	popl	%ebx
	pushl	$2
	popfl
	ret
#else
	.code64
trap_common:
	cld
	.irp	r, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
	pushq	%\r
	.endr
	movq	%rsp, %rdi
	movq	%rsp, %rbp
	andq	$-16, %rsp
	call	trap_entry
	movq	%rbp, %rsp
	.irp	r, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax
	popq	%\r
	.endr
	addq	$16, %rsp
	iretq

	.globl	user_enter, user_return
user_enter:
	.irp	r, rbx, rbp, r12, r13, r14, r15
	pushq	%\r
	.endr
	movq	%rsp, kernel_sp
	pushq	$USER_DS
	pushq	%rdx
	pushq	%rsi
	pushq	%rcx
	pushq	%rdi
	iretq
user_return:
	movq	%rdi, %rax
	movq	kernel_sp, %rsp
	.irp	r, r15, r14, r13, r12, rbp, rbx
	popq	%\r
	.endr
	pushq	$2
	popfq
	ret
#endif
	.bss
	.balign	8
	.globl	kernel_sp
kernel_sp: .quad 0
	.section .note.GNU-stack, "", @progbits
