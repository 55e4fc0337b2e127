/* SPDX-License-Identifier: MIT */
/* Real-mode exceptions through the IVT, segment ends, flags of INT and IRET (SDM 3A 20.1). */
#include "../lib/real.h"

main:	test	"#DE #BP #OF #BR #UD"
	try	1f
	xorw	%bx, %bx
	movw	$5, %ax
	xorw	%dx, %dx
2:	divw	%bx
1:	trapped	"div by 0", 0, 2b, 0
	try	1f
	movw	$0x1000, %ax
	movb	$1, %bl
2:	divb	%bl
1:	trapped	"div overflow", 0, 2b, 0
	try	1f
	movw	$0x8000, %ax
	movw	$0xffff, %dx
	movw	$0xffff, %bx
2:	idivw	%bx
1:	check16	"idiv 0xffff8000 / -1", trap_count, 1
	try	1f
2:	int3
	nop
1:	trapped	"int3", 3, 2b, 1
	try	1f
	movb	$0x7f, %al
	addb	$1, %al
2:	into
	nop
1:	trapped	"into", 4, 2b, 1
	try	1f
	xorw	%ax, %ax
	into
1:	not_trapped "into without OF"
	try	1f
2:	ud2
1:	trapped	"ud2", 6, 2b, 0
	try	1f
2:	.byte	0xf0, 0x01, 0xd8 /* lock add ax, bx */
1:	trapped	"lock with a register", 6, 2b, 0
	try	1f
2:	.byte	0x8e, 0xc8 /* mov cs, ax */
1:	trapped	"mov cs", 6, 2b, 0

	test	"segment ends"
	try	1f
	movw	$0xffff, %bx
2:	movw	(%bx), %ax
1:	trapped	"word at ffff: #GP", 13, 2b, 0
	try	1f
	movw	$0xffff, %bx
	movb	(%bx), %al
1:	not_trapped "byte at ffff"
	try	1f
	movw	$0xfffd, %bx
2:	movl	(%bx), %eax
1:	trapped	"dword at fffd: #GP", 13, 2b, 0
	try	1f
	movw	%bp, %si
	movw	$0xffff, %bp
2:	movw	(%bp), %ax
1:	movw	%si, %bp
	trapped	"word at ss:ffff: #SS", 12, 2b, 0

	test	"INT, IRET, flags"
	try	1f
	sti
	int	$0x21
	cli
1:	check16	"vector", trap_vector, 0x21
	movw	trap_flags, %ax
	andl	$0x200, %eax
	check	"pushed IF", 0x200
	movw	$0x7fd7, %ax
	pushw	%ax
	popfw
	pushfw
	popw	%bx
	pushw	$2
	popfw
	movzwl	%bx, %eax
	andl	$0x7ed5, %eax
	check	"popf, pushf", 0x7ed5
	movw	%sp, %bx
	pushw	$0x0ed7
	pushw	$0
	pushw	$1f
	iretw
	ud2
1:	pushfw
	popw	%cx
	pushw	$2
	popfw
	cmpw	%bx, %sp
	setz	%al
	movzbl	%al, %eax
	check	"iret: SP", 1
	movzwl	%cx, %eax
	andl	$0xcd5, %eax
	check	"iret: flags", 0xcd5
	cld
	movw	$0x9000, %ax
	movw	%ax, %es
	movw	$0xbeef, %es:2
	movw	$0x8fff, %ax
	movw	%ax, %es
	movzwl	%es:0x12, %eax
	check	"segments are paragraphs", 0xbeef
	xorw	%ax, %ax
	movw	%ax, %es
	lcall	$0, $far
	movzwl	%cx, %eax
	check	"far call", 0x1357
	ret
far:	movw	$0x1357, %cx
	lretw
