// SPDX-License-Identifier: MIT
/*
 * String instructions that stop in the middle: by a page fault, by interrupts from outside
 * (signals on the vCPU's thread), at the ends of the address space; DF, overlap, RCX = 0.
 */
#include "../lib/paging.h"

#define VA   0x8000000000ul
#define DATA ((ulong)SCRATCH)

struct regs {
	ulong cx, si, di;
};

#define REP(insn, r, rax)                                                                \
	asm volatile(insn : "+c"((r).cx), "+S"((r).si), "+D"((r).di) : "a"((ulong)(rax)) \
		     : "memory", "cc")

static void want_regs(const char *name, const struct regs *r, ulong cx, ulong si, ulong di)
{
	check(name, r->cx, cx);
	check(name, r->si, si);
	check(name, r->di, di);
}

static void fill_pattern(ulong at, ulong n)
{
	for (ulong k = 0; k < n; k++)
		VAR(u8, at + k) = (u8)(k * 7 + (k >> 8));
}

static ulong mismatches(ulong a, ulong b, ulong n)
{
	ulong bad = 0;

	for (ulong k = 0; k < n; k++)
		bad += VAR(u8, a + k) != VAR(u8, b + k);
	return bad;
}

/* ---- #PF in the middle: registers say exactly how far it came */

static struct regs at_fault;

static bool map_one_more(struct frame *f)
{
	if (f->vector != PF)
		return false;
	if (!at_fault.cx)
		at_fault = (struct regs){f->cx, f->si, f->di};
	map(read_cr2() & ~4095ul, DATA + (read_cr2() & 0xff000), 1, P | W);
	return true;
}

static void test_fault_middle(void)
{
	struct regs r;

	test_begin("#PF in the middle of REP");
	for (int k = 0; k < 4; k++) {
		*entry(VA + 4096 * k, 1) = 0;
		invlpg(VA + 4096 * k);
	}
	trap_hook = map_one_more;
	nr_traps = 0;
	fill_pattern(DATA + 0x80000, 3 * 4096);
	at_fault.cx = 0;
	map(VA, DATA, 1, P | W);
	r = (struct regs){2 * 4096, DATA + 0x80000, VA + 0x800};
	REP("rep movsb", r, 0);
	check("movsb: two faults", nr_traps, 2);
	want_regs("movsb: at the first fault", &at_fault, 2 * 4096 - 0x800, DATA + 0x80800, VA + 0x1000);
	check("movsb: CR2 of the first", traps[0].cr2, VA + 0x1000);
	check("movsb: error", traps[0].error, E_W);
	want_regs("movsb: after", &r, 0, DATA + 0x82000, VA + 0x2800);
	check("movsb: bytes", mismatches(DATA + 0x80000, VA + 0x800, 2 * 4096), 0);

	*entry(VA + 4096, 1) = 0;
	invlpg(VA + 4096);
	nr_traps = 0;
	at_fault.cx = 0;
	r = (struct regs){1024, 0, VA + 0xffe - 8 * 100};
	REP("rep stosq", r, 0x1122334455667788);
	check("stosq, an element across the boundary: one fault", nr_traps, 1);
	check("stosq: CR2 is the second page", traps[0].cr2, VA + 0x1000);
	want_regs("stosq: at the fault", &at_fault, 1024 - 100, 0, VA + 0xffe);
	check("stosq: nothing of it was written", VAR(u64, VA + 0xffe), 0x1122334455667788);
	check("stosq: the last", VAR(u64, VA + 0xffe + 8 * 923), 0x1122334455667788);

	*entry(VA, 1) = 0;
	invlpg(VA);
	nr_traps = 0;
	at_fault.cx = 0;
	r = (struct regs){0x200, VA + 0x1100, DATA + 0x91000};
	REP("std; rep movsb; cld", r, 0);
	check("DF=1: one fault", nr_traps, 1);
	check("DF=1: CR2", traps[0].cr2, VA + 0xfff);
	want_regs("DF=1: at the fault", &at_fault, 0x200 - 0x101, VA + 0xfff, DATA + 0x90eff);
	want_regs("DF=1: after", &r, 0, VA + 0xf00, DATA + 0x90e00);
	check("DF=1: pushed", traps[0].flags & DF_FLAG, DF_FLAG);
	trap_hook = NULL;
}

/* ---- signals on the thread while REP runs over many pages */

static void kicked(const char *name, bool stos)
{
	enum { SIZE = 0x400000 };
	ulong from = 0x800000, to = 0x1000000;
	struct regs r = {SIZE, from, to};

	fill_pattern(from, 0x2000);
	for (ulong k = 0x2000; k < SIZE; k += 8)
		VAR(u64, from + k) = VAR(u64, from + (k & 0x1fff)) ^ k;
	service_cpu(SVC_KICK, 0, 100, 0);
	for (int round = 0; round < 4; round++) {
		r = (struct regs){SIZE, from, to};
		if (stos)
			REP("rep stosb", r, 0x61 + round);
		else
			REP("rep movsb", r, 0);
		check(name, r.cx, 0);
		check(name, r.di, to + SIZE);
	}
	service_cpu(SVC_KICK, 0, 0, 0);
	if (stos) {
		r = (struct regs){SIZE / 8, 0, to};
		REP("repe scasq", r, 0x6464646464646464);
	} else {
		r = (struct regs){SIZE / 8, from, to};
		REP("repe cmpsq", r, 0);
	}
	check(name, r.cx, 0);
}

static void test_kicked(void)
{
	test_begin("REP under signals");
	kicked("movsb", false);
	kicked("stosb", true);
}

/* ---- order: overlap and direction */

static void test_overlap(void)
{
	struct regs r;

	test_begin("overlap, DF");
	fill_pattern(DATA, 64);
	r = (struct regs){63, DATA, DATA + 1};
	REP("rep movsb", r, 0);
	check("up by one byte: the first byte everywhere", VAR(u8, DATA + 63), VAR(u8, DATA));
	fill_pattern(DATA, 64);
	r = (struct regs){15, DATA, DATA + 2};
	REP("rep movsl", r, 0);
	check("up by 2, elements of 4: dword 1", VAR(u32, DATA + 6), 0x312a150e);
	fill_pattern(DATA, 64);
	r = (struct regs){60, DATA + 1, DATA};
	REP("rep movsb", r, 0);
	check("down by one: moved", VAR(u8, DATA + 10), 77);
	fill_pattern(DATA, 64);
	r = (struct regs){60, DATA + 59, DATA + 60};
	REP("std; rep movsb; cld", r, 0);
	check("DF=1, up by one: moved", VAR(u8, DATA + 60), (59 * 7) & 0xff);
	want_regs("DF=1", &r, 0, DATA - 1, DATA);
	r = (struct regs){0, 1, 0x800000000000};
	REP("rep movsb", r, 0);
	want_regs("RCX = 0: no access, nothing changes", &r, 0, 1, 0x800000000000);
	r = (struct regs){0x100000000, 0x700000001, 0x800000002};
	REP("addr32 rep movsb", r, 0);
	want_regs("ECX = 0 with a 32-bit address size", &r, 0x100000000, 0x700000001, 0x800000002);
}

static void test_compare(void)
{
	struct regs r = {100, DATA, DATA + 0x1000};
	ulong flags;

	test_begin("CMPS, SCAS, LODS");
	fill_pattern(DATA, 0x100);
	fill_pattern(DATA + 0x1000, 0x100);
	VAR(u8, DATA + 0x1000 + 41) ^= 1;
	asm volatile("repe cmpsb; pushfq; popq %3" : "+c"(r.cx), "+S"(r.si), "+D"(r.di), "=r"(flags)
		     :: "memory", "cc");
	want_regs("repe cmpsb", &r, 58, DATA + 42, DATA + 0x102a);
	check("ZF", flags >> 6 & 1, 0);
	r = (struct regs){100, 0, DATA};
	asm volatile("repne scasb; pushfq; popq %3" : "+c"(r.cx), "+S"(r.si), "+D"(r.di), "=r"(flags)
		     : "a"((u8)(30 * 7)) : "memory", "cc");
	want_regs("repne scasb", &r, 69, 0, DATA + 31);
	check("ZF", flags >> 6 & 1, 1);
	r = (struct regs){0, DATA, DATA};
	asm volatile("xorl %%eax, %%eax; stc; repne scasb; pushfq; popq %3"
		     : "+c"(r.cx), "+S"(r.si), "+D"(r.di), "=r"(flags) :: "rax", "memory", "cc");
	check("RCX = 0 leaves the flags", flags & 0x41, 0x41);
}

/* ---- 32-bit addresses wrap at 4 GiB, 64-bit ones at 2^64 */

static void test_wrap(void)
{
	struct regs r;
	ulong top = 0xfffff000;

	test_begin("wrap of addresses");
	map(VA, DATA, 1, P | W); /* unrelated: makes the tables */
	fill_pattern(DATA, 0x100);
	/* the page below 4 GiB is MMIO space without memory: put RAM there */
	check("slot", service(SVC_SLOT, 5, top, 4096, 0x600000), 0);
	for (int k = 0; k < 64; k++)
		VAR(u8, 0x600000 + 4096 - 64 + k) = 0;
	memset((void *)0, 0, 64);
	r = (struct regs){0x20, DATA, 0xfffffff0};
	REP("addr32 rep movsb", r, 0);
	want_regs("32 bits: DI", &r, 0, DATA + 0x20, 0x10);
	check("32 bits: below 4 GiB", mismatches(0x600ff0, DATA, 16), 0);
	check("32 bits: above 0", VAR(u8, 0xf), VAR(u8, DATA + 0x1f));
	/* EDI wraps, the element does not: linear addresses have 64 bits here */
	memset((void *)0, 0, 64);
	map(0x100000000, DATA + 0x5000, 1, P | W);
	r = (struct regs){4, 0, 0xfffffff6};
	REP("addr32 rep stosl", r, 0x04030201);
	check("32 bits: an element across 4 GiB: EDI", r.di, 6);
	check("32 bits: its upper half is not at 0", VAR(u16, 0), 0);
	check("32 bits: but at 4 GiB", VAR(u16, DATA + 0x5000), 0x0403);
	check("32 bits: the next one", VAR(u32, 2), 0x04030201);
	service(SVC_SLOT, 5, top, 0, 0x600000);

	nr_traps = 0;
	map(0xfffffffffffff000ul, DATA + 0x3000, 1, P | W);
	r = (struct regs){0x20, DATA, 0xfffffffffffffff0ul};
	REP("rep movsb", r, 0);
	want_regs("64 bits", &r, 0, DATA + 0x20, 0x10);
	check("64 bits: the end", mismatches(DATA + 0x3ff0, DATA, 16), 0);
	check("64 bits: the start", mismatches(0, DATA + 16, 16), 0);
	TRY("rep stosb", "c"(0x20ul), "D"(0x7ffffffffff0ul), "a"(0));
	check("up to the canonical hole", traps[0].vector == GP || traps[0].vector == PF, 1);
	map(0x7ffffffff000ul, DATA + 0x3000, 1, P | W);
	TRY("rep stosb", "c"(0x20ul), "D"(0x7ffffffffff0ul), "a"(0));
	want_error("at the canonical hole", GP, 0);
	check("at the canonical hole: RCX", traps[0].cx, 0x10);
	check("at the canonical hole: RDI", traps[0].di, 0x800000000000);
	*entry(0x7ffffffff000ul, 1) = 0;
	invlpg(0x7ffffffff000ul);
}

/* ---- REP on a device */

static struct exit_log mmio;

static void test_device(void)
{
	struct regs r;

	test_begin("REP with MMIO and ports");
	map(VA, DATA + 0x4000, 1, P | W);
	map(VA + 4096, MMIO_BASE, 1, P | W);
	mmio.n = 0;
	service(SVC_MMIO_LOG, (ulong)&mmio, 0, 0, 0);
	r = (struct regs){6, 0, VA + 0xff8};
	REP("rep stosl", r, 0xa1a2a3a4);
	check("RAM then MMIO: exits", mmio.n, 4);
	check("first", mmio.e[0].at, MMIO_BASE);
	check("last", mmio.e[3].at, MMIO_BASE + 12);
	check("value", mmio.e[3].value, 0xa1a2a3a4);
	want_regs("regs", &r, 0, 0, VA + 0x1010);
	mmio.n = 0;
	r = (struct regs){3, VA + 0x1000, VA + 0x1020};
	REP("rep movsb", r, 0);
	check("MMIO to MMIO: six exits", mmio.n, 6);
	check("read", mmio.e[0].kind, 0);
	check("write", mmio.e[1].kind, 1);
	check("write at", mmio.e[5].at, MMIO_BASE + 0x22);
	mmio.n = 0;
	r = (struct regs){4, 0, VA + 0xffe};
	REP("rep stosl", r, 0x11223344);
	check("an element across RAM and MMIO", mmio.e[0].len, 2);
	check("its RAM half", VAR(u16, VA + 0xffe), 0x3344);
	check("its MMIO half", mmio.e[0].value, 0x1122);
	service(SVC_MMIO_LOG, 0, 0, 0, 0);
	outb(PORT_DEVICE, 0x5a);
	r = (struct regs){16, 0, DATA};
	asm volatile("rep insb" : "+c"(r.cx), "+D"(r.di) : "d"(PORT_DEVICE) : "memory");
	want_regs("insb", &r, 0, 0, DATA + 16);
	check("insb: bytes", VAR(u8, DATA + 15), 0x5a);
	r = (struct regs){16, DATA, 0};
	VAR(u8, DATA + 15) = 0xc3;
	asm volatile("rep outsb" : "+c"(r.cx), "+S"(r.si) : "d"(PORT_DEVICE) : "memory");
	want_regs("outsb", &r, 0, DATA + 16, 0);
	check("outsb: the last byte is there", inb(PORT_DEVICE), 0xc3);
	*entry(VA + 0x2000, 1) = 0;
	invlpg(VA + 0x2000);
	TRY("rep insb", "c"(8ul), "D"(VA + 0x2000 - 4), "d"(PORT_DEVICE));
	check("insb into MMIO, then not present", traps[0].vector, PF);
	check("insb: RCX at the fault", traps[0].cx, 4);
}

void guest_main(void)
{
	traps_init();
	test_fault_middle();
	test_kicked();
	test_overlap();
	test_compare();
	test_wrap();
	test_device();
}
