// SPDX-License-Identifier: MIT
/*
 * Mode switches (SDM 3A 9.8, 9.9, 20.1): 64-bit mode down to real mode and up again, twice,
 * with 4 and then 5 levels of paging; big real mode on the way; 5-level paging itself.
 */
#include "../lib/paging.h"

struct seen {
	u32 width, cr0, efer, cs;
};

void mode_trip(void);
extern struct seen modes_seen[9];
extern u32 modes_read[8], modes_pd, modes_pdpt, modes_cr3, modes_cr4;
extern volatile u16 modes_real[4];
extern u64 modes_r12;
extern const u32 modes_magic;
extern char real_handler_gp[], real_handler_int[];

#define LMA 0x400
#define LME 0x100

static const struct {
	const char *name;
	struct seen want;
} stages[9] = {
	{"64-bit", {0, 0x80000001, LMA | LME, KERNEL_CS}},
	{"compatibility", {0xffffffff, 0x80000001, LMA | LME, KERNEL_CS32}},
	{"paging off: LMA goes", {0xffffffff, 1, LME, KERNEL_CS32}},
	{"2-level paging", {0xffffffff, 0x80000001, 0, KERNEL_CS32}},
	{"PAE", {0xffffffff, 0x80000001, 0, KERNEL_CS32}},
	{"16-bit protected", {0xffff, 1, 0, CODE16}},
	{"real", {0xffff, 0, 0, 0}},
	{"compatibility again: LMA comes with PG", {0xffffffff, 0x80000001, LMA | LME, KERNEL_CS32}},
	{"64-bit again", {0, 0x80000001, LMA | LME, KERNEL_CS}},
};

static void tables(void)
{
	u32 *pd = page_alloc();
	u64 *pdpt = page_alloc(), *low = page_alloc();

	pd[0] = pd[512] = 0x83; /* 4M at 0 and at 2 GiB */
	pdpt[0] = pdpt[2] = (ulong)low | P;
	low[0] = 0x83;
	modes_pd = (ulong)pd;
	modes_pdpt = (ulong)pdpt;
}

static void trip(const char *name, ulong cr3, ulong cr4)
{
	test_begin(name);
	modes_cr3 = cr3;
	modes_cr4 = cr4;
	memset(modes_seen, 0xee, sizeof(modes_seen));
	memset(modes_read, 0, sizeof(modes_read));
	VAR(u32, SCRATCH) = 0x600df00d;
	mode_trip();
	for (unsigned int k = 0; k < 9; k++) {
		check(stages[k].name, modes_seen[k].width, stages[k].want.width);
		check(stages[k].name, modes_seen[k].cr0 & 0x80000001, stages[k].want.cr0);
		check(stages[k].name, modes_seen[k].efer & (LMA | LME), stages[k].want.efer);
		check(stages[k].name, modes_seen[k].cs, stages[k].want.cs);
	}
	check("a 4M page at 2 GiB", modes_read[0], modes_magic);
	check("PAE: a 2M page at 2 GiB", modes_read[1], modes_magic);
	check("real: limit of 64K", modes_real[0], GP);
	check("real: INT clears IF and TF", modes_real[1] & 0x300, 0);
	check("big real: read at 4M", modes_read[2], 0x600df00d);
	check("big real: DS was loaded again", modes_read[3], 0x600df00d);
	check("big real: with another base", modes_read[4], 0x600df00d);
	check("R12 survived", modes_r12, 0x1122334455667788);
}

/* ---- 5 levels: there is no way to set CR4.LA57 but through unpaged mode (SDM 3A 4.1.2) */

static void probe(ulong va)
{
	TRY("movl (%0), %%ebx", "S"(va));
}

#define CANON57	 0x00f0000000000000ul

struct table {
	u16 limit;
	ulong base;
} __attribute__((packed));

static void load_gdt(ulong base)
{
	struct table old, p;

	asm volatile("sgdt %0" : "=m"(old));
	p = (struct table){old.limit, base};
	TRY("lgdt (%0)", "S"(&p));
	asm volatile("lgdt %0" ::"m"(old));
}

static void load_ldt(ulong base)
{
	gdt_set(SPARE_SEL, gdt_desc(base, 0xfff, 0x82, 0));
	gdt_set(SPARE_SEL + 8, base >> 32);
	TRY("lldt %w0", "r"(SPARE_SEL));
	asm volatile("lldt %w0" ::"r"(0));
}

static void load_msr(ulong base)
{
	TRY("wrmsr", "c"(0xc0000102), "a"(base), "d"(base >> 32)); /* KERNEL_GS_BASE */
	wrmsr(0xc0000102, 0);
}

static void load_fs(ulong base)
{
	write_cr4(read_cr4() | CR4_FSGSBASE);
	TRY("wrfsbase %0", "r"(base));
	asm volatile("wrfsbase %0" ::"r"(0ul));
	write_cr4(read_cr4() & ~CR4_FSGSBASE);
}

static void invalidate(ulong base)
{
	ulong desc[2] = {0, base};

	TRY("invpcid (%0), %1", "S"(desc), "a"(0ul));
}

/*
 * Bases have the width of the processor, not of the paging mode (KVM, "model canonical checks more
 * precisely", measured on hardware; kvm-unit-tests la57).
 */
static void test_bases(const char *mode)
{
	static const struct {
		const char *name;
		void (*load)(ulong base);
		bool selector; /* is the error code */
	} t[] = {{"LGDT", load_gdt, false}, {"LLDT", load_ldt, true}, {"WRMSR", load_msr, false},
		 {"WRFSBASE", load_fs, false}, {"INVPCID", invalidate, false}};

	test_begin(mode);
	for (unsigned int k = 0; k < ARRAY_SIZE(t); k++) {
		if (t[k].load == load_fs && !cpu_has(7, 0, EBX, 0))
			continue;
		t[k].load(CANON57);
		want_none(t[k].name);
		t[k].load(NONCANON57);
		want_error(t[k].name, GP, t[k].selector ? SPARE_SEL : 0);
	}
}

static void test_la57(void)
{
	ulong cr3 = read_cr3(), cr4 = read_cr4();
	u64 *pml5 = page_alloc();
	ulong far = 0xab000000000000; /* PML5 index not 0 */
	static const ulong sizes[] = {0, 4096, 0x200000, 0x40000000};

	pml5[0] = cr3 | P | W | U;
	test_bases("bases of 57 bits in 4-level paging");
	trip("the trip up into 5-level paging", (ulong)pml5, cr4 | CR4_LA57);
	test_begin("5-level paging");
	check("CR4.LA57", read_cr4() & CR4_LA57, CR4_LA57);
	VAR(u32, SCRATCH) = 0x57575757;
	for (int level = 1; level <= 3; level++) {
		ulong base = SCRATCH & ~(sizes[level] - 1), va = far + SCRATCH - base;
		u64 *e = map(far, base, level, P | W | U);

		check("value", VAR(u32, va), 0x57575757);
		check("A", *e & (A | D), A);
		VAR(u32, va) = 0x57575757;
		check("D", *e & D, D);
		check("A of the PML5E", *entry(far, 5) & A, A);
		*e = 0;
		invlpg(va);
		probe(va);
		want_pf("gone", 0, va);
		far += 0x1000000000000;
	}
	probe(0x00ffffffffffff00);
	want_pf("the last canonical page", 0, 0x00ffffffffffff00);
	probe(0x0100000000000000);
	want_error("bit 56 without 63:57", GP, 0);
	probe(0xff00000000000000);
	want_pf("the first of the upper half", 0, 0xff00000000000000);
	probe(0xfeffffffffffff00);
	want_error("below it", GP, 0);
	far = 0xcd000000000000;
	map(far, SCRATCH, 1, P | W | U);
	*entry(far, 5) |= PS;
	invlpg(far);
	probe(far);
	want_pf("PS in a PML5E is reserved", E_P | E_R, far);
	*entry(far, 5) = (*entry(far, 5) & ~PS) & ~W;
	invlpg(far);
	write_cr0(read_cr0() | CR0_WP);
	TRY("movl $1, (%0)", "S"(far));
	want_pf("R/W of the PML5E", E_P | E_W, far);
	write_cr0(read_cr0() & ~CR0_WP);
	*entry(far, 5) |= NX;
	invlpg(far);
	TRY("jmp *%0", "S"(far));
	want_pf("NX of the PML5E", E_P | E_I, far);
	TRY("movq %0, %%cr4", "r"(read_cr4() & ~CR4_LA57));
	want_error("LA57 off in 64-bit mode", GP, 0);
	test_bases("bases of 57 bits in 5-level paging");
	trip("and back to 4 levels", cr3, cr4);
	probe(0xab000000000000);
	want_error("48 bits again", GP, 0);
}

void guest_main(void)
{
	traps_init();
	tables();
	VAR(u32, 4 * GP) = (ulong)real_handler_gp;
	VAR(u32, 4 * 0x60) = (ulong)real_handler_int;
	trip("64-bit mode to real mode and back", read_cr3(), read_cr4());
	trip("once more", read_cr3(), read_cr4());
	if (cpu_has(7, 0, ECX, 16))
		test_la57();
}
