// SPDX-License-Identifier: MIT
/*
 * SMAP and what the processor reads of its own accord: GDT, LDT, IDT, TSS. These are supervisor
 * accesses at every CPL, and EFLAGS.AC does not help them (SDM 3A 4.6.1). The kernel's own pages are
 * supervisor pages here, so code at CPL 3 runs in an alias and touches nothing but its stack.
 */
#include "../lib/paging.h"

#define ALIAS 0x8000000000ul	 /* of low memory, for CPL 3 */
#define WIN   0x9000000000ul	 /* two pages: what is on the second one is tested */
#define PA    ((ulong)SCRATCH) /* of the window */
#define INNER 0xa000000000ul	 /* a stack */
#define VECTOR 0x81		 /* of CPL 3 */

asm(".text\n"
    "u_load: movl %r8d, %ds\nint $0x80\n"
    "u_lar: larl %r8d, %eax\nint $0x80\n"
    "u_int: int $0x81\nint $0x80\n"
    "u_in: inb $0x83, %al\nint $0x80\n"
    "u_hlt: hlt\n");
extern char u_load[], u_lar[], u_int[], u_in[], u_hlt[];
static ulong arg; /* R8 */

static void run(const char *code, ulong flags)
{
	ulong (*enter)(ulong ip, ulong flags, ulong stack, ulong cs, ulong r8) = (void *)user_enter;

	nr_traps = 0;
	trap_resume = 0;
	enter((ulong)code + ALIAS, flags | 2, USER_STACK + ALIAS, USER_CS, arg);
}

/* The second page of the window for everybody, or for the kernel only. */
static void window(bool user)
{
	map(WIN + 4096, PA + 4096, 1, P | W | (user ? U : 0));
}

static void *in_window(ulong va)
{
	return (void *)(va - WIN + PA);
}

static void low_memory(bool user)
{
	for (int k = 0; k < 16; k++)
		entry(0, 2)[k] = user ? entry(0, 2)[k] | U : entry(0, 2)[k] & ~U;
	write_cr3(read_cr3());
}

/*
 * `code` at CPL 3: it may with the page a supervisor's or without SMAP, and must not with SMAP and
 * a user's page, whatever AC is.
 */
static void probe(const char *code, ulong error, ulong at, unsigned int traps_if_good)
{
	ulong cr4 = read_cr4();

	window(false);
	run(code, 0);
	check("supervisor page", nr_traps, traps_if_good);
	window(true);
	run(code, 0);
	want_pf("user page", error, at);
	check("user page: at", traps[0].ip, (ulong)code + ALIAS);
	run(code, AC_FLAG);
	want_pf("user page, AC = 1", error, at);
	check("AC in the frame", traps[0].flags & AC_FLAG, AC_FLAG);
	write_cr4(cr4 & ~CR4_SMAP);
	run(code, 0);
	check("user page without SMAP", nr_traps, traps_if_good);
	write_cr4(cr4);
	window(false);
}

struct table {
	u16 limit;
	ulong base;
} __attribute__((packed));

/* All descriptors that entry and exit need are on the first page, the spare ones on the second. */
static void test_gdt(void)
{
	struct table old, p = {GDT_ENTRIES * 8 - 1, WIN + 4096 - SPARE_SEL};

	test_begin("SMAP: GDT");
	gdt_set(SPARE_SEL, gdt_desc(0, 0xfffff, 0xf2, 0xc)); /* not accessed */
	gdt_set(SPARE_SEL + 8, gdt_desc(0, 0xfffff, 0xf3, 0xc));
	memcpy(in_window(p.base), gdt, sizeof(gdt));
	asm volatile("sgdt %0; lgdt %1" : "=m"(old) : "m"(p));
	arg = SPARE_SEL + 8 + 3;
	probe(u_load, E_P, WIN + 4096 + 8, 0);
	probe(u_lar, E_P, WIN + 4096 + 8, 0);
	arg = SPARE_SEL + 3;
	probe(u_load, E_P, WIN + 4096, 0);
	check("accessed now", VAR(u8, PA + 4096 + 5) & 1, 1);
	window(true);
	TRY("stac; movl %0, %%ds", "r"(SPARE_SEL + 3));
	asm volatile("clac");
	want_pf("at CPL 0 with AC = 1", E_P, WIN + 4096);
	window(false);
	asm volatile("lgdt %0" ::"m"(old));
}

static void test_ldt(void)
{
	test_begin("SMAP: LDT");
	VAR(u64, PA + 4096) = gdt_desc(0, 0xfffff, 0xf3, 0xc);
	gdt_set(SPARE_SEL, gdt_desc((u32)(WIN + 4096), 7, 0x82, 0));
	gdt_set(SPARE_SEL + 8, WIN >> 32);
	asm volatile("lldt %w0" ::"r"(SPARE_SEL));
	arg = 7;
	probe(u_load, E_P, WIN + 4096, 0);
	asm volatile("lldt %w0" ::"r"(0));
}

/* Vectors from 80h on are on the second page: USER_EXIT, too, but it is not needed after a fault. */
static void test_idt(void)
{
	struct table old, p = {4095, WIN + 2048};

	test_begin("SMAP: IDT");
	memcpy(in_window(p.base), idt, 4096);
	asm volatile("sidt %0; lidt %1" : "=m"(old) : "m"(p));
	probe(u_int, E_P, WIN + 2048 + 16 * VECTOR, 1);
	asm volatile("lidt %0" ::"m"(old));
}

static void load_tss(ulong base)
{
	gdt_set(TSS_SEL, gdt_desc(base, sizeof(tss) - 1, 0x89, 0));
	gdt_set(TSS_SEL + 8, base >> 32);
	asm volatile("ltr %w0" ::"r"(TSS_SEL));
}

/* RSP0 at the start of the second page; #PF finds its stack, an IST, behind it on a third one. */
static void test_rsp0(void)
{
	ulong base = WIN + 8192 - offsetof(struct tss, ist), rsp0;

	test_begin("SMAP: RSP0 of the TSS");
	map(WIN + 8192, PA + 8192, 1, P | W);
	map(WIN + 12288, PA + 12288, 1, P | W);
	map(WIN + 16384, PA + 16384, 1, P | W);
	memcpy(in_window(base), &tss, sizeof(tss));
	rsp0 = base + offsetof(struct tss, rsp);
	idt_set(PF, (ulong)trap_stubs + 16 * PF, KERNEL_CS, 14, 0, 1);
	load_tss(base);
	probe(u_int, E_P, rsp0, 1);
	idt_set(PF, (ulong)trap_stubs + 16 * PF, KERNEL_CS, 14, 0, 0);
	load_tss((ulong)&tss);
}

/* The place of the I/O bitmap on the second page, RSP0 on the first. */
static void test_iomap(void)
{
	ulong base = WIN + 4096 - offsetof(struct tss, iomap);

	test_begin("SMAP: I/O bitmap of the TSS");
	tss.iomap = offsetof(struct tss, bits);
	memcpy(in_window(base), &tss, sizeof(tss));
	tss.iomap = sizeof(tss);
	load_tss(base);
	probe(u_in, E_P, WIN + 4096, 0);
	load_tss((ulong)&tss);
}

/* Pushes onto the inner stack are the supervisor's, too. */
static void test_stack(void)
{
	ulong rsp0 = tss.rsp[0];

	test_begin("SMAP: the inner stack");
	map(INNER, PA, 1, P | W | U);
	tss.rsp[0] = INNER + 4096;
	idt_set(PF, (ulong)trap_stubs + 16 * PF, KERNEL_CS, 14, 0, 1);
	run(u_int, 0);
	want_error("on a user page", PF, E_P | E_W);
	check("on a user page: the first push", traps[0].cr2, INNER + 4096 - 8);
	run(u_hlt, 0);
	want_error("on a user page, with an error code", PF, E_P | E_W);
	check("with an error code: the first push", traps[0].cr2, INNER + 4096 - 8);
	tss.rsp[0] = rsp0;
	idt_set(PF, (ulong)trap_stubs + 16 * PF, KERNEL_CS, 14, 0, 0);
}

void guest_main(void)
{
	traps_init();
	if (!cpu_has(7, 0, EBX, 20))
		return;
	idt_set(VECTOR, (ulong)trap_stubs + 16 * VECTOR, KERNEL_CS, 14, 3, 0);
	for (int k = 0; k < 16; k++)
		map(ALIAS + k * 0x200000ul, k * 0x200000ul, 2, P | W | U);
	map(WIN, PA, 1, P | W);
	window(false);
	low_memory(false);
	write_cr4(read_cr4() | CR4_SMAP | CR4_SMEP);
	test_gdt();
	test_ldt();
	test_idt();
	test_rsp0();
	test_iomap();
	test_stack();
	write_cr4(read_cr4() & ~(CR4_SMAP | CR4_SMEP));
	low_memory(true);
}
