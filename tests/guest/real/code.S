/* SPDX-License-Identifier: MIT */
/* Real-mode code that changes itself, crosses pages, is too long; STI's shadow; TF. */
#include "../lib/real.h"

#define CODE 0x5ffd /* the last three bytes of a page */

main:	test	"self-modifying code"
	movb	$2, 1f + 1
1:	movb	$1, %bl
	movzbl	%bl, %eax
	check	"the next instruction", 2
	xorw	%bx, %bx
	movw	$3, %cx
2:	addb	$1, %bl
	addb	$1, 2b + 2
	loop	2b
	movzbl	%bl, %eax
	check	"a loop that changes itself", 6
	movw	$1f + 1, %di
	movw	$2, %cx
	movb	$0x77, %al
	rep stosb
1:	movw	$0, %bx
	movzwl	%bx, %eax
	check	"by rep stosb", 0x7777

	test	"code across pages"
	movb	$0xb8, CODE /* mov ax, imm16; inc ax; ret */
	movw	$0x1234, CODE + 1
	movw	$0xc340, CODE + 3
	movw	$CODE, %bx
	call	*%bx
	movzwl	%ax, %eax
	check	"once", 0x1235
	movb	$0x48, CODE + 3 /* dec ax, on the second page */
	call	*%bx
	movzwl	%ax, %eax
	check	"changed on the second page", 0x1233

	test	"15 bytes"
	try	1f
	.fill	14, 1, 0x2e
	nop
1:	not_trapped "15 bytes"
	try	1f
2:	.fill	15, 1, 0x2e
	nop
1:	trapped	"16 bytes", 13, 2b, 0

	test	"single-step"
	try	1f
	pushfw
	movw	%sp, %bp
	orw	$0x100, (%bp)
	popfw
2:	nop
	movw	$5, %bx
1:	movzwl	trap_count, %eax
	check	"nop, mov: two traps", 2
	movzwl	trap_vector, %eax
	check	"#DB", 1
	movzwl	trap_ips, %eax
	subl	$2b, %eax
	check	"after nop", 1
	movzwl	trap_ips + 2, %eax
	subl	$2b, %eax
	check	"after mov", 4
	/* MOV SS is in long/debug.c: KVM's emulator traps behind it, processors do not */
	ret
