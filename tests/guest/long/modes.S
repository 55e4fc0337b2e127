/* SPDX-License-Identifier: MIT */
/*
 * mode_trip: from 64-bit mode down to real mode and back up, through every mode between. Each
 * stop notes in modes_seen what it is: CS's width (0x48 is DEC EAX, DEC AX or a REX prefix), CR0,
 * EFER and CS.
 */
#include "../lib/layout.h"

	.macro	note stage
	xorl	%eax, %eax
	.byte	0x48
	nop
	movl	%eax, modes_seen + 16 * \stage
	movl	$0xc0000080, %ecx
	rdmsr
	movl	%eax, modes_seen + 16 * \stage + 8
	.endm
	.macro	note_regs stage
	movl	%cr0, %eax
	movl	%eax, modes_seen + 16 * \stage + 4
	movl	%cs, %eax
	movl	%eax, modes_seen + 16 * \stage + 12
	.endm

	.section .text.start, "ax"
	.globl	mode_trip
	.code64
mode_trip:
	.irp	r, rbx, rbp, r12, r13, r14, r15
	pushq	%\r
	.endr
	sidt	saved_idt
	movq	%rsp, saved_sp
	movq	$0x1122334455667788, %r12 /* R8 to R15 are kept while outside of 64-bit mode */
	note	0
	movq	%cr0, %rax
	movl	%eax, modes_seen + 4
	movl	%cs, %eax
	movl	%eax, modes_seen + 12
	ljmpl	*to_compat

	.code32
compat: note	1
	note_regs 1
	movl	$KERNEL_DS, %eax
	movl	%eax, %ss
	movl	%cr0, %eax
	andl	$0x7fffffff, %eax
	movl	%eax, %cr0 /* leaves long mode: LMA goes, LME stays */
	note	2
	note_regs 2

	/* 2-level paging with a 4M page, without PAE */
	movl	$0xc0000080, %ecx
	rdmsr
	andl	$~0x100, %eax
	wrmsr
	movl	$0x10, %eax /* PSE */
	movl	%eax, %cr4
	movl	modes_pd, %eax
	movl	%eax, %cr3
	movl	%cr0, %eax
	orl	$0x80000000, %eax
	movl	%eax, %cr0
	jmp	1f
1:	note	3
	note_regs 3
	movl	0x80000000 + modes_magic, %eax /* the PD maps 2 GiB to 0 */
	movl	%eax, modes_read
	movl	%cr0, %eax
	andl	$0x7fffffff, %eax
	movl	%eax, %cr0

	/* PAE */
	movl	$0x20, %eax
	movl	%eax, %cr4
	movl	modes_pdpt, %eax
	movl	%eax, %cr3
	movl	%cr0, %eax
	orl	$0x80000000, %eax
	movl	%eax, %cr0
	jmp	1f
1:	note	4
	note_regs 4
	movl	0x80000000 + modes_magic, %eax
	movl	%eax, modes_read + 4
	movl	%cr0, %eax
	andl	$0x7fffffff, %eax
	movl	%eax, %cr0

	/* 16-bit protected mode, then real mode */
	ljmpl	$CODE16, $prot16
	.code16
prot16: movw	$DATA16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	note	5
	note_regs 5
	lidtw	real_idt
	movl	%cr0, %eax
	andb	$0xfe, %al
	movl	%eax, %cr0
	ljmpw	$0, $real
real:	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$0x7000, %sp
	note	6
	note_regs 6
	/* a segment of 64K: #GP through the IVT beyond it */
	movw	$1f, real_resume
	movl	$SCRATCH, %ebx
	movl	(%ebx), %eax
	movw	$0xbad, real_trap
1:	movw	real_trap, %ax
	movw	%ax, modes_real
	/* INT in real mode */
	movw	$0, real_resume
	int	$0x60
	movw	real_int, %ax
	movw	%ax, modes_real + 2

	/* big real mode: a limit of 4 GiB, loaded in protected mode, stays */
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	movw	$KERNEL_DS, %bx
	movw	%bx, %ds
	andb	$0xfe, %al
	movl	%eax, %cr0
	movl	$SCRATCH, %ebx
	movl	(%ebx), %eax
	movl	%eax, modes_read + 8
	xorw	%ax, %ax
	movw	%ax, %ds /* a load in real mode changes the base only */
	movl	(%ebx), %eax
	movl	%eax, modes_read + 12
	movw	$0x10, %ax
	movw	%ax, %ds
	movl	-0x100(%ebx), %eax
	xorw	%bx, %bx
	movw	%bx, %ds
	movl	%eax, modes_read + 16

	/* and up again: 32 bits, long mode in one step from unpaged 32-bit code */
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$KERNEL_CS32, $prot32
	.code32
prot32: movl	$KERNEL_DS, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$0xc0000080, %ecx
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	modes_cr3, %eax
	movl	%eax, %cr3
	movl	modes_cr4, %eax
	movl	%eax, %cr4
	movl	%cr0, %eax
	orl	$0x80000000, %eax
	movl	%eax, %cr0
	note	7
	note_regs 7
	ljmpl	$KERNEL_CS, $long64
	.code64
long64: note	8
	movq	%cr0, %rax
	movl	%eax, modes_seen + 16 * 8 + 4
	movl	%cs, %eax
	movl	%eax, modes_seen + 16 * 8 + 12
	movq	%r12, modes_r12
	movq	saved_sp, %rsp
	lidt	saved_idt
	.irp	r, r15, r14, r13, r12, rbp, rbx
	popq	%\r
	.endr
	ret

	.code16
	.globl	real_handler_gp, real_handler_int
real_handler_gp:
	pushw	%bp
	movw	%sp, %bp
	movw	$13, real_trap
	movw	real_resume, %ax
	movw	%ax, 2(%bp)
	popw	%bp
	iretw
real_handler_int:
	pushfw
	popw	%ax
	movw	%ax, real_int
	iretw

	.balign	8
to_compat:
	.long	compat
	.word	KERNEL_CS32
	.globl	modes_magic
modes_magic: .long 0x6d6f6465
real_idt: .word 0x3ff
	.long	0
real_resume: .word 0
real_trap: .word 0
real_int: .word 0
saved_idt: .skip 10
	.bss
	.balign	16
	.globl	modes_seen, modes_read, modes_real, modes_pd, modes_pdpt, modes_cr3, modes_cr4, modes_r12
modes_seen: .skip 16 * 9
modes_read: .skip 32
modes_real: .skip 8
modes_pd: .long 0
modes_pdpt: .long 0
modes_cr3: .long 0
modes_cr4: .long 0
modes_r12: .quad 0
saved_sp: .quad 0
	.section .note.GNU-stack, "", @progbits
