/* SPDX-License-Identifier: MIT */
/* String instructions in real mode: 16-bit wrap, DF, overlap, CX = 0, prefixes (SDM 2B MOVS). */
#include "../lib/real.h"

#define BUF 0x6000

/* CX, SI, DI as the instruction left them. */
	.macro	regs name, cx, si, di
	movw	%di, %bx
	movzwl	%cx, %eax
	check	"\name: CX", \cx
	movzwl	%si, %eax
	check	"\name: SI", \si
	movzwl	%bx, %eax
	check	"\name: DI", \di
	.endm

main:	test	"MOVS, STOS"
	movl	$0x04030201, BUF
	movl	$0x08070605, BUF + 4
	movw	$7, %cx
	movw	$BUF, %si
	movw	$BUF + 0x100, %di
	rep movsb
	regs	"rep movsb", 0, 0x6007, 0x6107
	movl	BUF + 0x104, %eax
	check	"rep movsb: bytes", 0x00070605
	movw	$3, %cx
	movw	$BUF, %si
	movw	$BUF + 1, %di
	rep movsb
	movl	BUF, %eax
	check	"overlap: the first byte everywhere", 0x01010101
	movl	$0x04030201, BUF
	movw	$4, %cx
	movw	$BUF + 3, %si
	movw	$BUF + 4, %di
	std
	rep movsb
	cld
	regs	"DF = 1", 0, 0x5fff, 0x6000
	movl	BUF + 1, %eax
	check	"DF = 1: bytes", 0x04030201
	xorw	%cx, %cx
	movw	$0x1111, %si
	movw	$0x2222, %di
	rep movsw
	regs	"CX = 0", 0, 0x1111, 0x2222
	movw	$4, %cx
	movw	$BUF + 0x200, %di
	movl	$0xa1b2c3d4, %eax
	rep stosl
	regs	"rep stosl", 0, 0x1111, 0x6210
	movl	BUF + 0x20c, %eax
	check	"rep stosl: last", 0xa1b2c3d4

	test	"wrap at 64K"
	movw	$0x2000, %ax
	movw	%ax, %es
	movw	$0x20, %cx
	movw	$0xfff0, %di
	movb	$0x5a, %al
	rep stosb
	regs	"stosb", 0, 0x1111, 0x10
	movzbl	%es:0xf, %eax
	check	"stosb: wrapped", 0x5a
	movw	$0x3000, %ax
	movw	%ax, %es
	movzbl	%es:0, %eax
	check	"stosb: not beyond the segment", 0
	xorw	%ax, %ax
	movw	%ax, %es

	test	"CMPS, SCAS, LODS"
	movl	$0x64636261, BUF
	movl	$0x64006261, BUF + 0x100
	movw	$4, %cx
	movw	$BUF, %si
	movw	$BUF + 0x100, %di
	repe cmpsb
	setz	%bl
	movb	%bl, flag
	regs	"repe cmpsb", 1, 0x6003, 0x6103
	movzbl	flag, %eax
	check	"repe cmpsb: ZF", 0
	movw	$10, %cx
	movw	$BUF, %di
	movb	$0x63, %al
	repne scasb
	setz	%bl
	movb	%bl, flag
	regs	"repne scasb", 7, 0x6003, 0x6003
	movzbl	flag, %eax
	check	"repne scasb: ZF", 1
	movw	$BUF, %si
	lodsl
	check	"lodsl", 0x64636261
	ret
flag:	.byte	0
