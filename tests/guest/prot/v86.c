// SPDX-License-Identifier: MIT
/*
 * Virtual-8086 mode (SDM 3A 20.2): in by IRET, out by interrupts and faults; what IOPL forbids, and
 * what CR4.VME makes of that (20.3): software interrupts of the task's own, virtual interrupts.
 */
#include "../lib/lib.h"

#define V86_SP 0x6ff0

/* Code for segment 0, in the first 64K; it leaves by INT 80h (IOPL 3) or by its fault. */
asm(".section .text.start, \"ax\"\n.code16\n"
    "v86_width: xorw %ax, %ax; .byte 0x48; nop; int $0x80\n"
    "v86_seg: movw $0x1234, %ax; movw %ax, %ds; movw $0x4000, %bx; movb $0x77, (%bx);"
    "movw %cs, %ax; int $0x80\n"
    "v86_cli: cli\nint $0x80\n"
    "v86_pushf: pushfw\nint $0x80\n"
    "v86_popf: popfw\nint $0x80\n"
    "v86_iret: iretw\nint $0x80\n"
    "v86_int: int $0x21\nint $0x80\n"
    "v86_int3: int3\nint $0x80\n"
    "v86_hlt: hlt\nint $0x80\n"
    "v86_lldt: lldtw %ax\nint $0x80\n"
    "v86_cr0: movl %cr0, %eax\nint $0x80\n"
    "v86_in: inb $0x83, %al\nint $0x80\n"
    "v86_ud: ud2\nint $0x80\n"
    "v86_limit: movw $0xffff, %bx\n9: movw (%bx), %ax\nint $0x80\n"
    "v86_far: lcall $0x0, $8f\nint $0x80\n8: movw $0x5aa5, %ax; lretw\n"
    "v86_flags: sti; pushfw; popw %ax; cli; int $0x80\n"
    "v86_vme: xorl %eax, %eax; int $0x21; pushfw; popw %cx\nv86_vme_end: ud2\n"
    "v86_handler: incw %ax; movw %sp, %bp; movw 4(%bp), %si; pushfw; popw %di; iretw\n"
    "v86_cd3: xorl %eax, %eax; .byte 0xcd, 3; ud2\n"
    "v86_sti: sti\nud2\n"
    "v86_cli_end: cli; ud2\n"
    "v86_popf_if: pushw $0x200\n7: popfw\nud2\n"
    "v86_iret_if: pushw $0x200; pushw $0; pushw $1f\n6: iretw\n1: ud2\n"
    "v86_iret_tf: pushw $0x100; pushw $0; pushw $1f\n5: iretw\n1: ud2\n"
    "v86_iret32: iretl\n"
    "v86_ud_at: .long v86_sti + 1, v86_cli_end + 1, 7b, 7b + 1, 6b, 6b + 1, 5b\n"
    ".code32\n.text\n");
extern char v86_vme[], v86_vme_end[], v86_handler[], v86_cd3[], v86_sti[], v86_cli_end[],
	v86_popf_if[], v86_iret_if[], v86_iret_tf[], v86_iret32[];
extern u32 v86_ud_at[];
enum { STI_END, CLI_END, POPF, POPF_END, IRET, IRET_END, IRET_TF };
extern char v86_width[], v86_seg[], v86_cli[], v86_pushf[], v86_popf[], v86_iret[], v86_int[],
	v86_int3[], v86_hlt[], v86_lldt[], v86_cr0[], v86_in[], v86_ud[], v86_limit[], v86_far[],
	v86_flags[];

ulong v86_enter(ulong ip, ulong flags, ulong sp);
asm("v86_enter: pushl %ebx; pushl %esi; pushl %edi; pushl %ebp; movl %esp, kernel_sp\n"
    "movl 20(%esp), %eax; movl 24(%esp), %ecx; movl 28(%esp), %edx\n"
    "pushl $0x400; pushl $0x300; pushl $0x200; pushl $0x100; pushl $0; pushl %edx; pushl %ecx\n"
    "pushl $0; pushl %eax; xorl %eax, %eax; iretl\n");

static ulong v86_run(const char *code, ulong flags)
{
	nr_traps = 0;
	trap_resume = 0;
	return v86_enter((ulong)code, flags | VM_FLAG | 2, V86_SP);
}

/* A fault ends the run through trap_entry: CS is 0 there, its RPL not 3. */
static bool end_on_fault(struct frame *f)
{
	if (f->flags & VM_FLAG && f->vector < 32)
		user_return(0x100000 | f->vector);
	return false;
}

static void want_v86(const char *name, const char *code, ulong flags, ulong vector, ulong error)
{
	check(name, v86_run(code, flags), 0x100000 | vector);
	want_error(name, vector, error);
	check(name, traps[0].ip, (ulong)code);
	check(name, traps[0].flags & VM_FLAG, VM_FLAG);
}

static void test_run(void)
{
	test_begin("V86: code runs, segments are paragraphs");
	check("16 bits", v86_run(v86_width, IOPL3) & 0xffff, 0xffff);
	VAR(u8, 0x12340 + 0x4000) = 0;
	check("CS", v86_run(v86_seg, IOPL3) & 0xffff, 0);
	check("DS:BX", VAR(u8, 0x12340 + 0x4000), 0x77);
	check("far call and return", v86_run(v86_far, IOPL3) & 0xffff, 0x5aa5);
	check("IF follows STI with IOPL 3", v86_run(v86_flags, IOPL3) & IF, IF);
}

static bool note_frame(struct frame *f)
{
	static ulong *words;

	words = (ulong *)(f + 1); /* behind SS: ES DS FS GS */
	check("handler: DS is null", f->ds & 0xffff, 0);
	check("handler: FS is null", f->fs & 0xffff, 0);
	check("frame: ES", words[0] & 0xffff, 0x100);
	check("frame: DS", words[1] & 0xffff, 0x200);
	check("frame: FS", words[2] & 0xffff, 0x300);
	check("frame: GS", words[3] & 0xffff, 0x400);
	check("frame: SP", f->sp, V86_SP);
	check("frame: SS", f->ss, 0);
	check("frame: at ESP0", (ulong)(words + 4), tss.esp0);
	user_return(7);
}

static void test_frame(void)
{
	test_begin("V86: the frame of a fault");
	trap_hook = note_frame;
	check("left", v86_run(v86_ud, 0), 7);
	check("#UD", traps[0].vector, UD);
	check("EIP", traps[0].ip, (ulong)v86_ud);
}

static void test_iopl(void)
{
	static const struct {
		const char *name, *code;
	} t[] = {{"cli", v86_cli}, {"pushf", v86_pushf}, {"popf", v86_popf}, {"iret", v86_iret},
		 {"int", v86_int}};

	trap_hook = end_on_fault;
	test_begin("V86: IOPL-sensitive instructions");
	for (unsigned int k = 0; k < ARRAY_SIZE(t); k++)
		want_v86(t[k].name, t[k].code, 0, GP, 0);
	check("cli with IOPL 3", v86_run(v86_cli, IOPL3) >> 20, 0);
	check("pushf with IOPL 3", v86_run(v86_pushf, IOPL3) >> 20, 0);
	test_begin("V86: privileged and undefined instructions");
	want_v86("hlt", v86_hlt, IOPL3, GP, 0);
	want_v86("mov from cr0", v86_cr0, IOPL3, GP, 0);
	want_v86("lldt", v86_lldt, IOPL3, UD, 0);
	check("word at 0xffff", v86_run(v86_limit, IOPL3), 0x100000 | GP);
	check("int with IOPL 3, gate DPL 0", v86_run(v86_int, IOPL3), 0x100000 | GP);
	check("its error code", traps[0].error, 0x21 * 8 + 2);
	v86_run(v86_int3, 0);
	check("int3 needs no IOPL", traps[0].vector, BP);
	test_begin("V86: ports go by the bitmap, whatever IOPL says");
	tss.iomap = sizeof(tss);
	want_v86("no bitmap", v86_in, IOPL3, GP, 0);
	tss.iomap = offsetof(struct tss, bits);
	check("allowed", v86_run(v86_in, IOPL3) >> 20, 0);
	tss.bits[0x83 / 8] = 1 << (0x83 & 7);
	want_v86("forbidden", v86_in, IOPL3, GP, 0);
	trap_hook = NULL;
}

/* ---- CR4.VME */

#define MAP_HERE (offsetof(struct tss, bits) + 32) /* the redirection bitmap is tss.bits[0..31] */
#define IVT(v)	 VAR(u32, 4 * (v))

static void own(unsigned int vector, bool yes)
{
	u8 bit = 1 << (vector & 7), *byte = &tss.bits[vector / 8];

	*byte = yes ? *byte & ~bit : *byte | bit;
}

/* Run code until it faults there, with EFLAGS as flags say in the frame (bits of mask). */
static void want_end(const char *name, const char *code, ulong flags, ulong vector, ulong ip,
		     ulong mask, ulong value)
{
	check(name, v86_run(code, flags), 0x100000 | vector);
	want_error(name, vector, 0);
	check(name, traps[0].ip, ip);
	check(name, traps[0].flags & mask, value);
}

/* INT 21h by way of the task's own handler: what that finds on its stack, in FLAGS, and is left. */
static void want_own(const char *name, ulong flags, ulong pushed, ulong inside, ulong after)
{
	const ulong seen = IF | IOPL3;

	want_end(name, v86_vme, flags, UD, (ulong)v86_vme_end, IF | IOPL3 | VIF | VIP, flags);
	check("once", traps[0].ax, 1);
	check("pushed FLAGS", traps[0].si & seen, pushed);
	check("FLAGS in the handler", traps[0].di & seen, inside);
	check("FLAGS behind it", traps[0].cx & seen, after);
}

static void test_redirection(void)
{
	test_begin("V86 with VME: INT n by the redirection bitmap");
	trap_hook = end_on_fault;
	tss.iomap = MAP_HERE;
	memset(tss.bits, 0xff, sizeof(tss.bits));
	IVT(0x21) = IVT(3) = (u32)(ulong)v86_handler;
	own(0x21, true);
	want_v86("no VME, IOPL 0", v86_int, 0, GP, 0);
	write_cr4(read_cr4() | CR4_VME);
	want_own("IOPL 0, VIF", VIF, IF | IOPL3, IOPL3, IF | IOPL3);
	want_own("IOPL 0, no VIF", 0, IOPL3, IOPL3, IOPL3);
	want_own("IOPL 0, VIP", VIP, IOPL3, IOPL3, IOPL3);
	want_own("IOPL 3, IF", IOPL3 | IF, IF | IOPL3, IOPL3, IF | IOPL3);
	want_own("IOPL 3, no IF, VIF", IOPL3 | VIF, IOPL3, IOPL3, IOPL3);
	own(0x21, false);
	want_v86("bit set, IOPL 0", v86_int, 0, GP, 0);
	want_v86("bit set, IOPL 3: the gate's DPL counts", v86_int, IOPL3, GP, 0x21 * 8 + 2);
	own(3, true);
	v86_run(v86_int3, 0);
	check("INT3 is not redirected", traps[0].vector, BP);
	check("CD 03 is", v86_run(v86_cd3, 0), 0x100000 | UD);
	check("CD 03 is", traps[0].ax, 1);
	own(0x21, true);
	tss.iomap = 0xff00;
	want_v86("bitmap beyond the TSS", v86_int, 0, GP, 0);
	want_v86("bitmap beyond the TSS, IOPL 3", v86_int, IOPL3, GP, 0);
	tss.iomap = 16;
	want_v86("bitmap before the TSS", v86_int, 0, GP, 0);
	tss.iomap = MAP_HERE;
}

static void test_virtual_if(void)
{
	test_begin("V86 with VME: the virtual interrupt flag");
	want_end("STI", v86_sti, 0, UD, v86_ud_at[STI_END], VIF | IF, VIF);
	want_end("STI with VIP", v86_sti, VIP, GP, (ulong)v86_sti, VIF | IF, 0);
	want_end("CLI", v86_cli_end, VIF, UD, v86_ud_at[CLI_END], VIF | IF, 0);
	want_end("CLI leaves IF", v86_cli_end, VIF | IF, UD, v86_ud_at[CLI_END], VIF | IF, IF);
	want_end("POPF", v86_popf_if, 0, UD, v86_ud_at[POPF_END], VIF | IF, VIF);
	want_end("POPF with VIP", v86_popf_if, VIP, GP, v86_ud_at[POPF], VIF | IF, 0);
	want_end("IRET", v86_iret_if, 0, UD, v86_ud_at[IRET_END], VIF | IF | IOPL3, VIF);
	want_end("IRET with VIP", v86_iret_if, VIP, GP, v86_ud_at[IRET], VIF | IF, 0);
	want_end("IRET to TF", v86_iret_tf, 0, GP, v86_ud_at[IRET_TF], TF, 0);
	want_v86("32-bit IRET", v86_iret32, 0, GP, 0);
	want_end("VIF and VIP at the first instruction", v86_vme, VIF | VIP, GP, (ulong)v86_vme,
		 VIF | VIP, VIF | VIP);
	write_cr4(read_cr4() & ~CR4_VME);
	want_end("both without VME", v86_ud, VIF | VIP, UD, (ulong)v86_ud, VIF | VIP, VIF | VIP);
	trap_hook = NULL;
}

void guest_main(void)
{
	traps_init();
	for (int v = 0; v < 256; v++)
		VAR(u32, 4 * v) = 0xf000fff0; /* nobody may go through the IVT */
	test_run();
	test_frame();
	test_iopl();
	test_redirection();
	test_virtual_if();
}
