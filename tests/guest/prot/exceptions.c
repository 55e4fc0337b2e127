// SPDX-License-Identifier: MIT
/*
 * Exceptions that only 32-bit protected mode has, segmentation (SDM 3A 5, 6.15), inner-level
 * calls with their stacks and parameters, LDT.
 */
#include "../lib/lib.h"

#define SEG(n) (SPARE_SEL + 8 * (n))
#define DATA   ((ulong)SCRATCH)

static void want_fault(const char *name, ulong vector, ulong error)
{
	want_error(name, vector, error);
	check(name, traps[0].ip, try_ip);
	check(name, traps[0].flags & RF, RF);
}

static void test_of_br(void)
{
	static const int bounds[2] = {-3, 10};

	test_begin("#OF #BR");
	TRY("movb $0x7f, %%bl; addb $1, %%bl; into");
	want_error("INTO with OF", OF, 0);
	check("INTO: behind it", traps[0].ip - try_ip, 6);
	TRY("xorl %%ebx, %%ebx; into");
	want_none("INTO without OF");
	TRY("boundl %0, %1", "r"(10), "m"(bounds));
	want_none("BOUND: upper bound");
	TRY("boundl %0, %1", "r"(-3), "m"(bounds));
	want_none("BOUND: lower bound");
	TRY("boundl %0, %1", "r"(11), "m"(bounds));
	want_fault("BOUND: above", BR, 0);
	TRY("boundl %0, %1", "r"(-4), "m"(bounds));
	want_fault("BOUND: below", BR, 0);
	TRY(".byte 0x62, 0xc0"); /* bound with a register: EVEX needs 64-bit or mod 3; #UD */
	check("BOUND of a register", traps[0].vector, UD);
}

/* TRY with another DS would lose its own variables: through ES. */
#define WITH_ES(sel, code, ...)                                                     \
	do {                                                                        \
		asm volatile("movw %w0, %%es" ::"r"(sel));                          \
		TRY(code, ##__VA_ARGS__);                                           \
		asm volatile("movw %w0, %%es" ::"r"(KERNEL_DS));                    \
	} while (0)

static void test_limits(void)
{
	test_begin("segment limits and types");
	gdt_set(SEG(0), gdt_desc(DATA, 0xfff, 0x93, 4));	 /* 4096 bytes */
	gdt_set(SEG(1), gdt_desc(DATA, 0xfff, 0x97, 4));	 /* expand down: above 0xfff */
	gdt_set(SEG(2), gdt_desc(DATA, 0xfff, 0x91, 4));	 /* read-only */
	gdt_set(SEG(3), gdt_desc(0, 0xfffff, 0x99, 0xc));	 /* execute-only */
	gdt_set(SEG(4), gdt_desc(DATA, 0xfff, 0x13, 4));	 /* not present */
	gdt_set(SEG(5), gdt_desc(DATA, 0xfff, 0x97, 0));	 /* expand down, 16 bits */
	VAR(u32, DATA + 0xffc) = 0x1234;
	WITH_ES(SEG(0), "movl %%es:0xffc, %%ebx");
	want_none("the last four bytes");
	WITH_ES(SEG(0), "movl %%es:0xffd, %%ebx");
	want_fault("one byte too far", GP, 0);
	WITH_ES(SEG(0), "movb %%bl, %%es:0x1000");
	want_fault("behind the limit", GP, 0);
	WITH_ES(SEG(0), "movl %%es:-1, %%ebx");
	want_fault("at 4 GiB", GP, 0);
	WITH_ES(SEG(1), "movb %%es:0xfff, %%bl");
	want_fault("expand down: the limit itself", GP, 0);
	WITH_ES(SEG(1), "movb %%es:0x1000, %%bl");
	want_none("expand down: above it");
	WITH_ES(SEG(5), "movb %%es:0xffff, %%bl");
	want_none("expand down, B=0: 0xffff");
	WITH_ES(SEG(5), "movb %%es:0x10000, %%bl");
	want_fault("expand down, B=0: 0x10000", GP, 0);
	WITH_ES(SEG(2), "movb %%es:0, %%bl");
	want_none("read-only: read");
	WITH_ES(SEG(2), "movb %%bl, %%es:0");
	want_fault("read-only: write", GP, 0);
	TRY("movb %%bl, %%cs:0x400000");
	want_fault("write through CS", GP, 0);
	TRY("movw %w0, %%es", "r"(SEG(3)));
	want_fault("execute-only in ES", GP, SEG(3));
	TRY("movw %w0, %%es", "r"(SEG(4)));
	want_fault("not present", NP, SEG(4));
	TRY("movw %w0, %%ss", "r"(SEG(4)));
	want_fault("SS not present", SS, SEG(4));
	TRY("movw %w0, %%ss", "r"(0));
	want_fault("null in SS", GP, 0);
	TRY("movw %w0, %%ss", "r"(SEG(2)));
	want_fault("read-only in SS", GP, SEG(2));
	WITH_ES(0, "movb %%es:0, %%bl");
	want_fault("null ES, used", GP, 0);
	check("accessed bit is set by the load", gdt[SEG(0) >> 3] >> 40 & 1, 1);
	gdt_set(SEG(0), gdt_desc(DATA, 0xfff, 0x92, 4));
	WITH_ES(SEG(0), "nop");
	check("accessed bit was set", gdt[SEG(0) >> 3] >> 40 & 1, 1);
}

/* #SS: a small stack segment; the handler runs on the same SS, so ESP must have room at the fault. */
static void test_stack_limit(void)
{
	test_begin("#SS by the limit");
	gdt_set(SEG(0), gdt_desc(0, RAM_SIZE >> 12, 0x93, 0xc));
	nr_traps = 0;
	asm volatile("movw %w0, %%ss; movl %%ebp, %%ebx; movl $1f, trap_resume\n\t"
		     "movl $0x7ffffff0, %%ebp; movl (%%ebp), %%eax\n"
		     "1: movl $0, trap_resume; movl %%ebx, %%ebp; movw %w1, %%ss" ::"r"(SEG(0)),
		     "r"(KERNEL_DS)
		     : "eax", "ebx", "memory");
	want_error("[ebp] beyond the limit", SS, 0);
	nr_traps = 0;
	asm volatile("movw %w0, %%ss; movl $1f, trap_resume\n\t"
		     "movl %%ss:0x7ffffff0, %%eax\n"
		     "1: movl $0, trap_resume; movw %w1, %%ss" ::"r"(SEG(0)),
		     "r"(KERNEL_DS)
		     : "eax", "memory");
	want_error("ss: override beyond the limit", SS, 0);
}

/* ---- far transfers on one level */

static volatile u32 seen_cs, seen_width;

asm(".text\n"
    "far_target: xorl %eax, %eax; .byte 0x48; nop; movl %eax, seen_width; movw %cs, seen_cs; lret\n"
    ".code16\n"
    "far_target16: xorl %eax, %eax; .byte 0x48; nop; movl %eax, seen_width; movl %cs, %eax;"
    "movl %eax, seen_cs; lretl\n"
    ".code32\n");
extern char far_target[], far_target16[];

static void far_call(u16 sel, ulong off)
{
	struct {
		u32 off;
		u16 sel;
	} __attribute__((packed)) p = {off, sel};

	seen_cs = seen_width = 0;
	TRY("lcall *%0", "m"(p));
}

static void test_far(void)
{
	test_begin("far calls on one level");
	gdt_set(SEG(0), gdt_desc(0, 0xfffff, 0x9b, 0xc));
	gdt_set(SEG(1), gdt_desc(0, 0xfffff, 0x9f, 0xc)); /* conforming */
	gdt_set(SEG(2), gdt_desc(0, 0xfffff, 0x1b, 0xc)); /* not present */
	gdt_set(SEG(3), gdt_desc(0, 0xfff, 0x9b, 0x4));	  /* 4096 bytes */
	gdt_set(SEG(4), gdt_desc(0, 0xfffff, 0xfb, 0xc)); /* DPL 3 */
	far_call(SEG(0), (ulong)far_target);
	want_none("another code segment");
	check("its CS", seen_cs, SEG(0));
	check("32 bits", seen_width, ~0u);
	far_call(CODE16, (ulong)far_target16);
	want_none("a 16-bit segment");
	check("its CS", seen_cs, CODE16);
	check("16 bits", seen_width, 0xffff);
	far_call(SEG(1), (ulong)far_target);
	want_none("conforming");
	far_call(SEG(2), (ulong)far_target);
	want_fault("not present", NP, SEG(2));
	far_call(SEG(3), (ulong)far_target);
	want_fault("EIP beyond the limit", GP, 0);
	far_call(SEG(4), (ulong)far_target);
	want_fault("DPL 3 from CPL 0", GP, SEG(4));
	far_call(KERNEL_DS, (ulong)far_target);
	want_fault("data", GP, KERNEL_DS);
	far_call(0, (ulong)far_target);
	want_fault("null", GP, 0);
}

/* ---- call gates with parameters, inner stacks, #TS */

static volatile u32 inner[8];

asm(".text\n"
    "gate_target: movw %cs, inner; movw %ss, inner + 4; movl 8(%esp), %eax; movl %eax, inner + 8;"
    "movl 12(%esp), %eax; movl %eax, inner + 12; movl 4(%esp), %eax; movl %eax, inner + 16;"
    "movl 20(%esp), %eax; movl %eax, inner + 20; lret $8\n");
extern char gate_target[];

static void gate_set(u16 sel, ulong target, u16 cs, u8 access, u8 count)
{
	gdt_set(sel, (target & 0xffff) | (u64)cs << 16 | (u64)count << 32 | (u64)access << 40 |
			     (u64)(target >> 16) << 48);
}

static const struct {
	u32 off;
	u16 sel;
} __attribute__((packed)) through = {0xdeadbeef, SEG(6) | 3};

static ulong user_gate(void)
{
	ulong sp;

	asm volatile("pushl $0x22; pushl $0x11; lcall *%1; movl %%esp, %0"
		     : "=r"(sp) : "m"(through) : "eax", "memory");
	return sp;
}

static ulong user_gate_fault(void)
{
	TRY("lcall *%0", "m"(through));
	return 3;
}

static void want_ts(const char *name, ulong vector, ulong error)
{
	user_run(user_gate_fault, 0);
	want_fault(name, vector, error);
	check(name, traps[0].cs, USER_CS32);
}

static void test_gates(void)
{
	ulong sp, top = STACK_TOP - 0x20000;

	test_begin("call gates to levels 0 and 1, parameters");
	gate_set(SEG(6), (ulong)gate_target, KERNEL_CS32, 0xec, 2);
	sp = user_run(user_gate, 0);
	check("ESP after LRET 8", sp > USER_STACK - 256 && sp < USER_STACK, 1);
	check("CS", inner[0], KERNEL_CS32);
	check("SS", inner[1], KERNEL_DS);
	check("parameter 1", inner[2], 0x11);
	check("parameter 2", inner[3], 0x22);
	check("pushed CS", inner[4], USER_CS32);
	check("pushed SS", inner[5], USER_DS);

	test_begin("#TS: the inner stack of a call gate");
	gdt_set(SEG(7), gdt_desc(0, 0xfffff, 0xbb, 0xc)); /* code, DPL 1 */
	gdt_set(SEG(8), gdt_desc(0, 0xfffff, 0xb3, 0xc)); /* data, DPL 1 */
	gdt_set(SEG(9), gdt_desc(0, 0xfffff, 0x33, 0xc)); /* the same, not present */
	gdt_set(SEG(10), gdt_desc(0, 0xfffff, 0xb1, 0xc)); /* read-only */
	gate_set(SEG(6), (ulong)gate_target, SEG(7), 0xec, 2);
	tss.esp1 = top;
	tss.ss1 = SEG(8) | 1;
	user_run(user_gate, 0);
	check("level 1: CS", inner[0], SEG(7) | 1);
	check("level 1: SS", inner[1], SEG(8) | 1);
	tss.ss1 = 0;
	want_ts("SS1 null", TS, 0);
	tss.ss1 = SEG(8);
	want_ts("SS1 with RPL 0", TS, SEG(8));
	tss.ss1 = KERNEL_DS | 1;
	want_ts("SS1 with DPL 0", TS, KERNEL_DS);
	tss.ss1 = SEG(10) | 1;
	want_ts("SS1 read-only", TS, SEG(10));
	tss.ss1 = GDT_ENTRIES * 8 + 1;
	want_ts("SS1 beyond the GDT", TS, GDT_ENTRIES * 8);
	tss.ss1 = SEG(9) | 1;
	want_ts("SS1 not present: #SS", SS, SEG(9));
	gate_set(SEG(6), (ulong)gate_target, SEG(2), 0xec, 2);
	want_ts("target not present", NP, SEG(2));
	gate_set(SEG(6), (ulong)gate_target, KERNEL_CS32, 0x6c, 2);
	want_ts("gate not present", NP, SEG(6));
	gate_set(SEG(6), (ulong)gate_target, KERNEL_CS32, 0x8c, 2);
	want_ts("gate's DPL", GP, SEG(6));
	gate_set(SEG(6), (ulong)gate_target, 0, 0xec, 2);
	want_ts("null in the gate", GP, 0);
}

/* ---- LDT, and instructions that ask about selectors */

static void test_ldt(void)
{
	u64 *ldt = page_alloc();
	u32 r, zf;

	test_begin("LDT, LAR, LSL, VERR, VERW, ARPL");
	ldt[1] = gdt_desc(DATA, 0x7ff, 0x93, 4);
	gdt_set(SEG(0), gdt_desc((ulong)ldt, 15, 0x82, 0));
	TRY("lldt %w0", "r"(SEG(0)));
	want_none("LLDT");
	WITH_ES(0xc, "movb %%es:0x7ff, %%bl");
	want_none("a selector of the LDT");
	WITH_ES(0xc, "movb %%es:0x800, %%bl");
	want_fault("its limit", GP, 0);
	TRY("movw %w0, %%es", "r"(0x14));
	want_fault("beyond the LDT", GP, 0x14);
	TRY("lldt %w0", "r"(KERNEL_DS));
	want_fault("LLDT of data", GP, KERNEL_DS);
	gdt_set(SEG(1), gdt_desc((ulong)ldt, 15, 0x02, 0));
	TRY("lldt %w0", "r"(SEG(1)));
	want_fault("LLDT, not present", NP, SEG(1));
	TRY("ltr %w0", "r"(TSS_SEL));
	want_fault("LTR of a busy TSS", GP, TSS_SEL);
	asm volatile("larl %2, %0; setz %b1" : "=r"(r), "=q"(zf) : "r"(KERNEL_DS), "1"(0));
	check("LAR", r & 0xf0ff00, 0xc09300);
	check("LAR: ZF", zf & 1, 1);
	asm volatile("lsll %2, %0; setz %b1" : "=r"(r), "=q"(zf) : "r"(0xc), "1"(0));
	check("LSL", r, 0x7ff);
	asm volatile("lsll %2, %0; setz %b1" : "=r"(r), "=q"(zf) : "r"(0x2000), "1"(0), "0"(5));
	check("LSL of nothing: ZF", zf & 1, 0);
	check("LSL of nothing: register", r, 5);
	asm volatile("verw %w1; setz %b0" : "=q"(zf) : "r"(KERNEL_CS32), "0"(0));
	check("VERW of code", zf & 1, 0);
	asm volatile("verr %w1; setz %b0" : "=q"(zf) : "r"(KERNEL_CS32), "0"(0));
	check("VERR of code", zf & 1, 1);
	asm volatile("movl %2, %0; arpl %w3, %w0; setz %b1" : "=&r"(r), "=q"(zf)
		     : "i"(0x10), "r"(3), "1"(0));
	check("ARPL", r, 0x13);
	check("ARPL: ZF", zf & 1, 1);
	asm volatile("lldt %w0" ::"r"(0));
}

/* ---- CPL 3 */

static ulong user_ud(void)
{
	TRY("ud2");
	return 1;
}
static ulong user_segs(void)
{
	TRY("movw %w0, %%es", "r"(KERNEL_DS));
	return 2;
}
static ulong user_ac(void)
{
	asm volatile("pushfl; orl %0, (%%esp); popfl" ::"r"(AC_FLAG) : "memory");
	TRY("movl 0x400001, %%ebx");
	return 3;
}

static void test_user(void)
{
	test_begin("CPL 3: stack switch, #AC");
	check("ran", user_run(user_ud, IF), 1);
	want_fault("#UD", UD, 0);
	check("CS", traps[0].cs, USER_CS32);
	check("SS", traps[0].ss, USER_DS);
	check("IF", traps[0].flags & IF, IF);
	check("frame at ESP0", traps[0].frame + sizeof(struct frame), tss.esp0);
	check("ran", user_run(user_segs, 0), 2);
	want_fault("a kernel segment", GP, KERNEL_DS);
	write_cr0(read_cr0() | CR0_AM);
	check("ran", user_run(user_ac, 0), 3);
	want_error("#AC", AC, 0);
	write_cr0(read_cr0() & ~CR0_AM);
}

void guest_main(void)
{
	traps_init();
	test_of_br();
	test_limits();
	test_stack_limit();
	test_far();
	test_gates();
	test_ldt();
	test_user();
}
