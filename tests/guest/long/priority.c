// SPDX-License-Identifier: MIT
/*
 * Which event comes first (SDM 3A 6.9), the shadows of STI and MOV SS (6.8), NMIs blocked until
 * IRET (6.7.1), TPR and CR8. The local APIC makes interrupts and NMIs at exact places.
 */
#include "../lib/apic.h"

#define V 0x41 /* class 4 */

static volatile ulong mark;

static void self(u32 what)
{
	apic_icr(0, ICR_SELF | what);
}

static bool eoi(struct frame *f)
{
	if (f->vector >= 32)
		apic_write(APIC_EOI, 0);
	return f->vector >= 32;
}

/* Code with an interrupt pending and IF = 0; where it came, relative to label 7. */
#define PENDING(code, ...)                                                                   \
	do {                                                                                 \
		self(V);                                                                     \
		nr_traps = 0;                                                                \
		asm volatile("movq $7f, mark\n" code "\n8: nop; nop; cli" ::__VA_ARGS__     \
			     : "rax", "rbx", "memory", "cc");                               \
	} while (0)

static void want_at(const char *name, unsigned int k, ulong vector, ulong off)
{
	check(name, traps[k].vector, vector);
	check(name, traps[k].ip - mark, off);
}

static void test_shadow(void)
{
	ulong ss = KERNEL_DS;

	test_begin("STI and MOV SS shadows");
	PENDING("sti; 7: nop; nop");
	check("once", nr_traps, 1);
	want_at("STI: behind the next instruction", 0, V, 1);
	PENDING("sti; 7: sti; nop");
	want_at("STI STI: behind the second", 0, V, 1);
	PENDING("sti; 7: cli; nop");
	check("STI CLI: none", nr_traps, 0);
	PENDING("7: sti; nop");
	want_at("(it was pending)", 0, V, 2);
	PENDING("sti; 7: movw %w0, %%ss; nop; nop", "r"(ss));
	want_at("STI, MOV SS: behind the one after it", 0, V, 3);
	PENDING("pushq %0; popfq; 7: nop", "r"(IF | 2));
	want_at("POPF: at once", 0, V, 0);
	PENDING("movl %%ss, %%eax; sti; 7: movl %%eax, %%ss; movl %%eax, %%ss; nop", "r"(ss));
	check("MOV SS twice: one or two instructions later", traps[0].ip - mark == 4 ||
	      traps[0].ip - mark == 5, 1);
	PENDING("movq %%rsp, %%rbx; pushq $0x10; pushq %%rbx; pushq $0x202; pushq $8; pushq $7f;"
		"iretq; 7: nop");
	want_at("IRET: at once", 0, V, 0);
	PENDING("sti; 7: movb $1, %%al; nop");
	want_at("STI, longer instruction", 0, V, 2);
}

static void test_hlt(void)
{
	test_begin("STI HLT with an interrupt pending");
	PENDING("sti; 7: hlt; nop");
	want_at("HLT wakes at once", 0, V, 1);
}

/* ---- NMI */

static volatile unsigned int depth, max_depth;

static bool nmi_nested(struct frame *f)
{
	if (f->vector != NMI)
		return eoi(f);
	depth++;
	max_depth = depth > max_depth ? depth : max_depth;
	if (nr_traps == 1) {
		self(ICR_NMI);
		self(ICR_NMI); /* only one is remembered */
		for (volatile int k = 0; k < 10; k++)
			;
	}
	depth--;
	return true;
}

static bool nmi_with_iret(struct frame *f)
{
	if (f->vector == NMI) {
		depth++;
		max_depth = depth > max_depth ? depth : max_depth;
		if (nr_traps == 1) {
			self(ICR_NMI);
			asm volatile("int3" ::: "memory"); /* its IRET unblocks */
			asm volatile("nop; nop");
		}
		depth--;
	}
	return true;
}

static void test_nmi(void)
{
	test_begin("NMI: blocked until IRET");
	trap_hook = nmi_nested;
	depth = max_depth = 0;
	nr_traps = 0;
	self(ICR_NMI);
	asm volatile("nop; nop; nop");
	check("first, and one of the two", nr_traps, 2);
	check("vector", traps[0].vector, NMI);
	check("not nested", max_depth, 1);
	check("the second at the same place", traps[1].ip, traps[0].ip);
	trap_hook = nmi_with_iret;
	depth = max_depth = 0;
	nr_traps = 0;
	self(ICR_NMI);
	asm volatile("nop; nop; nop");
	check("NMI, #BP, NMI", nr_traps, 3);
	check("second is #BP", traps[1].vector, BP);
	check("nested after an IRET inside", max_depth, 2);
	trap_hook = eoi;
	nr_traps = 0;
	check("KVM_NMI", service(SVC_NMI, 0, 0, 0, 0), 0);
	asm volatile("nop; nop");
	check("delivered with IF = 0", nr_traps, 1);
	check("vector", traps[0].vector, NMI);
}

/* ---- several at one boundary */

static void test_order(void)
{
	test_begin("several events at one boundary");
	/* POPF with TF set that also sets IF: its trap, then the interrupt at the same RIP */
	PENDING("pushfq; orl $0x100, (%%rsp); popfq; pushq $0x302; popfq; 7: nop; pushq $2; popfq");
	want_at("TF over POPF: #DB first", 1, DB, 0);
	want_at("then the interrupt", 2, V, 0);
	check("it pushed TF", traps[2].flags & TF, TF);
	check("the #DB pushed IF", traps[1].flags & IF, IF);
	/* the #DB's own IRET ends the shadow of STI */
	PENDING("pushfq; orl $0x100, (%%rsp); popfq; sti; 7: nop; pushq $2; popfq");
	want_at("TF over STI: #DB in its shadow", 0, DB, 0);
	want_at("then the interrupt", 1, V, 0);
	want_at("then TF of the NOP", 2, DB, 1);
	/* instruction breakpoint where an interrupt is due: the interrupt goes first */
	write_dr7(0);
	self(V);
	nr_traps = 0;
	asm volatile("movq $7f, mark; movq $7f, %%rax; movq %%rax, %%db0; movl $0x401, %%eax;"
		     "movq %%rax, %%db7; sti; nop; 7: nop; cli; movl $0x400, %%eax;"
		     "movq %%rax, %%db7" ::: "rax", "memory");
	check("two", nr_traps, 2);
	want_at("interrupt before the instruction breakpoint", 0, V, 0);
	want_at("then the breakpoint", 1, DB, 0);
	/* data breakpoint (trap) before the interrupt */
	self(V);
	nr_traps = 0;
	asm volatile("movq $7f, mark; leaq mark(%%rip), %%rax; movq %%rax, %%db0;"
		     "movl $0x000d0401, %%eax; movq %%rax, %%db7; sti; movb $0, mark; 7: nop; cli;"
		     "movl $0x400, %%eax; movq %%rax, %%db7; movq $7b, mark" ::: "rax", "memory");
	want_at("data breakpoint first", 0, DB, 0);
	want_at("then the interrupt", 1, V, 0);
	/* INT3 with TF and an interrupt pending */
	PENDING("pushq $0x302; popfq; 7: int3; nop; pushq $2; popfq");
	want_at("POPF sets IF and TF: the interrupt first", 0, V, 0);
	want_at("then INT3", 1, BP, 1);
	want_at("then TF, one instruction later", 2, DB, 2);
	/* NMI before interrupt */
	self(V);
	nr_traps = 0;
	asm volatile("movq $7f, mark; movw %0, %%dx; movl %1, %%eax; sti; outl %%eax, %%dx; 7: nop; cli"
		     : : "i"(PORT_SERVICE), "r"((u32)(ulong)&(struct service){.op = SVC_NMI})
		     : "rax", "rdx", "memory");
	want_at("NMI first", 0, NMI, 0);
	want_at("then the interrupt", 1, V, 0);
	/* a fault is not delayed by an interrupt that is not yet allowed */
	self(V);
	TRY("sti; ud2");
	check("fault in the shadow of STI: first", traps[0].vector, UD);
	check("then the interrupt", traps[1].vector, V);
	asm volatile("cli");
}

/* ---- TPR */

static void test_tpr(void)
{
	ulong cr8;

	test_begin("TPR, CR8, PPR");
	asm volatile("movq %0, %%cr8" ::"r"(4ul));
	check("TPR", apic_read(APIC_TPR), 0x40);
	self(V);
	nr_traps = 0;
	asm volatile("sti; nop; nop; nop");
	check("class 4 is held back by CR8 = 4", nr_traps, 0);
	check("IRR", apic_bit(APIC_IRR, V), 1);
	asm volatile("movq %0, %%cr8; nop; nop" ::"r"(3ul));
	check("CR8 = 3 lets it in", nr_traps, 1);
	check("IRR", apic_bit(APIC_IRR, V), 0);
	self(0x58);
	asm volatile("nop; nop");
	check("class 5", nr_traps, 2);
	apic_write(APIC_TPR, 0xff);
	asm volatile("movq %%cr8, %0" : "=r"(cr8));
	check("CR8 reads TPR[7:4]", cr8, 15);
	asm volatile("cli; movq %0, %%cr8" ::"r"(0ul));
	self(0x31);
	self(0x81);
	self(0x51);
	nr_traps = 0;
	asm volatile("sti; nop; nop; nop; cli");
	check("three", nr_traps, 3);
	check("highest first", traps[0].vector, 0x81);
	check("then", traps[1].vector, 0x51);
	check("lowest last", traps[2].vector, 0x31);
}

static bool nested(struct frame *f)
{
	mark = apic_read(APIC_PPR);
	if (nr_traps == 1) {
		self(0x61); /* higher: comes in at once; 0x51 of the same class waits */
		self(0x52);
		asm volatile("sti; nop; nop; nop; cli");
		check("higher class nests, same class waits", nr_traps, 2);
		check("ISR of both", apic_bit(APIC_ISR, 0x51) && !apic_bit(APIC_ISR, 0x61), 1);
		check("PPR", apic_read(APIC_PPR), 0x50);
	}
	(void)f;
	apic_write(APIC_EOI, 0);
	return true;
}

static void test_nested(void)
{
	test_begin("nested interrupts, EOI");
	trap_hook = nested;
	nr_traps = 0;
	self(0x51);
	asm volatile("sti; nop; nop; nop; nop; cli");
	check("three", nr_traps, 3);
	check("first", traps[0].vector, 0x51);
	check("nested", traps[1].vector, 0x61);
	check("after EOI", traps[2].vector, 0x52);
	check("PPR is 0 again", apic_read(APIC_PPR), 0);
	trap_hook = eoi;
}

void guest_main(void)
{
	traps_init();
	apic_on();
	trap_hook = eoi;
	test_shadow();
	test_hlt();
	test_nmi();
	test_order();
	test_tpr();
	test_nested();
}
