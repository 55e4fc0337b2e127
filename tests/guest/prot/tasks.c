// SPDX-License-Identifier: MIT
/*
 * Hardware task switches (SDM 3A 7.2, 7.3): JMP, CALL, interrupts through a task gate, IRET with
 * NT; 32-bit and 16-bit TSS; what is checked, and the debug trap of a new task.
 */
#include "../lib/lib.h"

#define TASK_B	SPARE_SEL	 /* 32-bit TSS */
#define TASK_16 (SPARE_SEL + 8)	 /* 16-bit TSS */
#define GATE_B	(SPARE_SEL + 16) /* task gate to TASK_B */
#define BAD	(SPARE_SEL + 24)
#define TASK_C	(SPARE_SEL + 32) /* handles #TS */
#define LDT	(SPARE_SEL + 40)
#define BUSY	2
#define CR0_TS	8ul

struct tss16 {
	u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs,
		ss, ds, ldt;
};

static struct tss b __attribute__((aligned(16))), c __attribute__((aligned(16)));
static struct tss16 t16;
static u8 stack_b[4096] __attribute__((aligned(16))), stack_c[4096] __attribute__((aligned(16)));
static volatile u32 b_runs, b_flags, b_tr, b_cr0, b_eax, b_error, b_mode;

enum { B_JMP, B_IRET, B_IRET_ERROR };

/* The other task: notes its state, goes back as b_mode says, and comes round when it is entered again. */
__attribute__((naked, used)) static void task_b(void)
{
	asm volatile("1: movl %eax, b_eax; pushfl; popl b_flags; xorl %eax, %eax; strw %ax\n\t"
		     "movl %eax, b_tr; movl %cr0, %eax; movl %eax, b_cr0; incl b_runs; clts\n\t"
		     "cmpl $1, b_mode; jb 2f; je 3f; popl b_error\n"
		     "3: iretl; jmp 1b\n"
		     "2: ljmp $0x48, $0; jmp 1b"); /* TSS_SEL */
}

__attribute__((naked, used)) static void task_16(void)
{
	asm volatile(".code16\n1: movw %ax, b_eax; incl b_runs; movw $0x6666, %cx; iretw; jmp 1b\n"
		     ".code32");
}

static u8 type_of(u16 sel)
{
	return gdt[sel >> 3] >> 40 & 15;
}

static void tss_fill(struct tss *t)
{
	memset(t, 0, offsetof(struct tss, bits));
	t->eip = (ulong)task_b;
	t->esp = (ulong)stack_b + sizeof(stack_b) - 16;
	t->eflags = 2;
	t->cs = KERNEL_CS32;
	t->ds = t->es = t->ss = KERNEL_DS;
	t->eax = 0xaaaa5555;
	t->iomap = 0x8000;
}

static void reset_b(void)
{
	tss_fill(&b);
	gdt_set(TASK_B, gdt_desc((ulong)&b, 0x67, 0x89, 0));
	gdt_set(GATE_B, (u64)TASK_B << 16 | 0x85ull << 40);
	gdt_set(TSS_SEL, gdt_desc((ulong)&tss, sizeof(tss) - 1, 0x8b, 0)); /* ours: busy */
	b_runs = b_error = 0;
	b_mode = B_JMP;
}

#define JMP_FAR(sel)  TRY("pushl %%ebp; ljmp %0, $0; popl %%ebp", "i"(sel))
#define CALL_FAR(sel) TRY("pushl %%ebp; lcall %0, $0; popl %%ebp", "i"(sel))
#define FAULTING(insn, sel) TRY(insn " %0, $0", "i"(sel))

static void test_jmp(void)
{
	test_begin("JMP to a TSS and back");
	reset_b();
	JMP_FAR(TASK_B);
	want_none("switch");
	check("it ran", b_runs, 1);
	check("EAX from its TSS", b_eax, 0xaaaa5555);
	check("TR", b_tr, TASK_B);
	check("CR0.TS", b_cr0 & CR0_TS, CR0_TS);
	check("NT is 0", b_flags & NT, 0);
	check("its TSS is not busy again", type_of(TASK_B) & BUSY, 0);
	check("ours is busy again", type_of(TSS_SEL) & BUSY, BUSY);
	check("its EIP was saved", b.eip > (ulong)task_b && b.eip < (ulong)task_b + 128, 1);
	check("its back link is untouched", b.link, 0);
	JMP_FAR(TASK_B);
	check("again: it went on behind its JMP", b_runs, 2);
	JMP_FAR(GATE_B);
	check("through a task gate", b_runs, 3);
}

static void test_call(void)
{
	test_begin("CALL to a TSS, IRET with NT");
	reset_b();
	b_mode = B_IRET;
	CALL_FAR(TASK_B);
	want_none("switch");
	check("it ran", b_runs, 1);
	check("NT", b_flags & NT, NT);
	check("back link", b.link, TSS_SEL);
	check("its TSS is not busy again", type_of(TASK_B) & BUSY, 0);
	check("ours stayed busy", type_of(TSS_SEL) & BUSY, BUSY);
	check("NT is gone with the IRET", flags_get() & NT, 0);
	check("its saved NT is 0", b.eflags & NT, 0);
	CALL_FAR(GATE_B);
	check("through a task gate", b_runs, 2);
}

static void test_int(void)
{
	test_begin("interrupts and exceptions through a task gate");
	reset_b();
	b_mode = B_IRET;
	idt_set(0x55, 0, TASK_B, 5, 0, 0);
	TRY("int $0x55");
	check("INT n", b_runs, 1);
	check("NT", b_flags & NT, NT);
	check("back link", b.link, TSS_SEL);
}

/* The task of #GP corrects EIP in our TSS and returns there; it finds the error code on its stack. */
__attribute__((naked, used)) static void task_gp(void)
{
	asm volatile("1: popl b_error; pushfl; popl b_flags; incl b_runs; clts\n\t"
		     "movl trap_resume, %eax; movl %eax, tss + 32; iretl; jmp 1b");
}

static void test_error_code(void)
{
	test_begin("#GP and #DF through a task gate: error code, EIP");
	reset_b();
	b.eip = (ulong)task_gp;
	idt_set(GP, 0, TASK_B, 5, 0, 0);
	TRY("movw %w0, %%es", "r"(GDT_ENTRIES * 8));
	idt_set(GP, (ulong)trap_stubs + 16 * GP, KERNEL_CS32, 14, 0, 0);
	check("it ran", b_runs, 1);
	check("error code", b_error, GDT_ENTRIES * 8);
	check("no other trap", nr_traps, 0);
	reset_b();
	b.eip = (ulong)task_gp;
	b_error = 99;
	idt_set(DF, 0, TASK_B, 5, 0, 0);
	idt_set(GP, (ulong)trap_stubs, KERNEL_DS, 14, 0, 0);
	TRY("movw %w0, %%es", "r"(GDT_ENTRIES * 8));
	idt_set(GP, (ulong)trap_stubs + 16 * GP, KERNEL_CS32, 14, 0, 0);
	idt_set(DF, (ulong)trap_stubs + 16 * DF, KERNEL_CS32, 14, 0, 0);
	check("#DF task ran", b_runs, 1);
	check("#DF error code", b_error, 0);
}

static void test_16(void)
{
	test_begin("16-bit TSS");
	reset_b();
	memset(&t16, 0, sizeof(t16));
	t16.ip = (ulong)task_16;
	t16.sp = 0x6000;
	t16.flags = 2;
	t16.ax = 0x1616;
	t16.cs = CODE16;
	t16.ds = t16.es = t16.ss = DATA16;
	gdt_set(TASK_16, gdt_desc((ulong)&t16, sizeof(t16) - 1, 0x81, 0));
	b_eax = 0;
	CALL_FAR(TASK_16);
	want_none("switch");
	check("it ran", b_runs, 1);
	check("AX", b_eax, 0x1616);
	check("back link", t16.link, TSS_SEL);
	check("its CX was saved", t16.cx, 0x6666);
	check("type: 16-bit, free", type_of(TASK_16), 1);
	asm volatile("clts");
}

static void test_faults(void)
{
	test_begin("task switch: faults before it");
	reset_b();
	gdt_set(TASK_B, gdt_desc((ulong)&b, 0x67, 0x8b, 0));
	FAULTING("lcall", TASK_B);
	want_error("CALL to a busy TSS", GP, TASK_B);
	FAULTING("ljmp", TASK_B);
	want_error("JMP to a busy TSS", GP, TASK_B);
	gdt_set(TASK_B, gdt_desc((ulong)&b, 0x67, 0x09, 0));
	FAULTING("ljmp", TASK_B);
	want_error("not present", NP, TASK_B);
	gdt_set(TASK_B, gdt_desc((ulong)&b, 0x66, 0x89, 0));
	FAULTING("ljmp", TASK_B);
	want_error("limit below 67h", TS, TASK_B);
	gdt_set(GATE_B, (u64)TASK_B << 16 | 0x05ull << 40);
	FAULTING("ljmp", GATE_B);
	want_error("task gate not present", NP, GATE_B);
	gdt_set(GATE_B, (u64)KERNEL_DS << 16 | 0x85ull << 40);
	FAULTING("ljmp", GATE_B);
	want_error("task gate to data", GP, KERNEL_DS);
	check("still in our task", type_of(TSS_SEL) & BUSY, BUSY);
	nr_traps = 0;
	tss.link = TASK_B; /* IRET with NT to a TSS that is not busy */
	gdt_set(TASK_B, gdt_desc((ulong)&b, 0x67, 0x89, 0));
	TRY("pushfl; orl $0x4000, (%%esp); popfl; iretl");
	want_error("IRET to a TSS that is not busy", TS, TASK_B);
	asm volatile("pushl $2; popfl");
}

/* Faults in the new task, where its SS is good already (else it takes a task gate to handle them): its handler finds the new task's state. Each ends by going back here. */
static volatile u32 fault_tr, fault_vector, fault_error;

static bool go_back(struct frame *f)
{
	u16 tr;

	asm volatile("strw %0" : "=r"(tr));
	fault_tr = tr;
	fault_vector = f->vector;
	fault_error = f->error;
	asm volatile("clts; ljmp %0, $0" ::"i"(TSS_SEL));
	return true; /* never: that task is over */
}

static void in_new_task(const char *name, ulong vector, ulong error)
{
	fault_vector = fault_tr = 99;
	trap_hook = go_back;
	JMP_FAR(TASK_B);
	trap_hook = NULL;
	check(name, fault_vector, vector);
	check(name, fault_error, error);
	check(name, fault_tr, TASK_B);
}

static void test_new_task_faults(void)
{
	test_begin("task switch: faults in the new task");
	gdt_set(BAD, gdt_desc(0, 0xfffff, 0x13, 0xc));
	reset_b();
	b.ds = BAD;
	in_new_task("DS not present", NP, BAD);
	reset_b();
	b.es = KERNEL_CS32 | 0x800;
	in_new_task("ES beyond the GDT", TS, KERNEL_CS32 | 0x800);
	reset_b();
	b.cs = KERNEL_DS;
	in_new_task("CS is data", TS, KERNEL_DS);
	reset_b();
	b.t = 1;
	in_new_task("T flag: #DB", DB, 0);
	check("T flag: DR6.BT", traps[0].dr6 & 0x8000, 0x8000);
	check("T flag: before its first instruction", traps[0].ip, (ulong)task_b);
}

/*
 * #TS while the new task has no stack yet: LDTR is loaded first, then SS. Its handler is a task, too;
 * it ends both and goes on in ours, which may wait for them as busy, and behind what faulted there.
 */
static volatile u32 c_error, c_runs, c_skips;

__attribute__((naked, used)) static void task_c(void)
{
	asm volatile("1: popl c_error; incl c_runs; clts; andb $~2, gdt + 0x4d\n\t"
		     "cmpl $0, c_skips; je 2f; movl trap_resume, %eax; movl %eax, tss + 32\n"
		     "2: ljmp $0x48, $0; jmp 1b");
}

static void reset_c(void)
{
	reset_b();
	tss_fill(&c);
	c.eip = (ulong)task_c;
	c.esp = (ulong)stack_c + sizeof(stack_c) - 16;
	gdt_set(TASK_C, gdt_desc((ulong)&c, 0x67, 0x89, 0));
	c_runs = c_skips = 0;
	c_error = 99;
}

static void want_ts(const char *name, ulong error)
{
	check(name, c_runs, 1);
	check(name, c_error, error);
	check("in the new task", c.link, TASK_B);
	check("before its first instruction", b.eip, (ulong)task_b);
	check("it did not run", b_runs, 0);
	check("nor was there another trap", nr_traps, 0);
}

static void bad_ldt(const char *name, u16 sel, ulong error)
{
	reset_c();
	b.ldt = sel;
	JMP_FAR(TASK_B);
	want_ts(name, error);
}

static void test_no_stack_yet(void)
{
	static u64 ldt[2] __attribute__((aligned(8)));

	test_begin("task switch: #TS of the new task's LDT and SS");
	idt_set(TS, 0, TASK_C, 5, 0, 0);
	gdt_set(LDT, gdt_desc((ulong)ldt, sizeof(ldt) - 1, 0x02, 0));
	bad_ldt("LDT not present", LDT, LDT);
	bad_ldt("LDT beyond the GDT", GDT_ENTRIES * 8, GDT_ENTRIES * 8);
	bad_ldt("LDT is data", KERNEL_DS, KERNEL_DS);
	bad_ldt("LDT is a TSS", TASK_C, TASK_C);
	bad_ldt("LDT in the LDT", LDT | 4, LDT | 4);
	reset_c();
	b.ldt = KERNEL_DS;
	c_skips = 1;
	idt_set(UD, 0, TASK_B, 5, 0, 0);
	TRY("ud2");
	idt_set(UD, (ulong)trap_stubs + 16 * UD, KERNEL_CS32, 14, 0, 0);
	want_ts("on the way of #UD: EXT", KERNEL_DS | 1);
	check("back link of the task that failed", b.link, TSS_SEL);
	reset_c();
	b.ldt = KERNEL_DS;
	c_skips = 1;
	idt_set(GP, 0, TASK_B, 5, 0, 0);
	idt_set(DF, 0, TASK_C, 5, 0, 0);
	TRY("movw %w0, %%es", "r"(GDT_ENTRIES * 8));
	idt_set(GP, (ulong)trap_stubs + 16 * GP, KERNEL_CS32, 14, 0, 0);
	idt_set(DF, (ulong)trap_stubs + 16 * DF, KERNEL_CS32, 14, 0, 0);
	want_ts("on the way of #GP: #DF", 0);
	reset_c();
	b.ss = KERNEL_CS32;
	JMP_FAR(TASK_B);
	want_ts("SS is code", KERNEL_CS32);
	reset_c();
	b.ss = 0;
	JMP_FAR(TASK_B);
	want_ts("SS is null", 0);
	reset_c();
	b.ss = USER_DS;
	JMP_FAR(TASK_B);
	want_ts("SS of another level", USER_DS & ~3);
	reset_c();
	b.ds = 8 | 4;
	JMP_FAR(TASK_B);
	want_ts("DS in the LDT, LDT null", 8 | 4);
	test_begin("task switch: an LDT");
	reset_c();
	gdt_set(LDT, gdt_desc((ulong)ldt, sizeof(ldt) - 1, 0x82, 0));
	ldt[1] = gdt[KERNEL_DS >> 3];
	b.ldt = LDT;
	b.ds = b.ss = 8 | 4;
	JMP_FAR(TASK_B);
	check("it ran with DS and SS out of it", b_runs, 1);
	idt_set(TS, (ulong)trap_stubs + 16 * TS, KERNEL_CS32, 14, 0, 0);
}

void guest_main(void)
{
	traps_init();
	test_jmp();
	test_call();
	test_int();
	test_error_code();
	test_16();
	test_faults();
	test_new_task_faults();
	test_no_stack_yet();
}
