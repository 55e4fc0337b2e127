// SPDX-License-Identifier: MIT
/* Virtual-8086 mode (SDM 3A 20.2): in by IRET, out by interrupts and faults; what IOPL forbids. */
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
    ".code32\n.text\n");
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

void guest_main(void)
{
	traps_init();
	for (int v = 0; v < 256; v++)
		VAR(u32, 4 * v) = 0xf000fff0; /* nobody may go through the IVT */
	test_run();
	test_frame();
	test_iopl();
}
