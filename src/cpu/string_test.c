// SPDX-License-Identifier: MIT
/*
 * String instructions against the host's: same memory, same registers, same flags, for every
 * size, direction, repeat prefix, place and count of a table. Then what stops a REP halfway.
 */
#include "cpu/guest_test.h"
#include "cpu/tb.h"

#define AREA   0x20000ul /* bytes at DATA that both sides may touch; operands are in the middle */
#define MIDDLE 0x10000ul

struct regs {
	u64 si, di, cx, ax, flags;
};

/* One form: the guest's code, and a function in which the host runs the same. */
#define FORM(name, text)                                                                   \
	GUEST(name, text "; hlt")                                                          \
	static void host_##name(struct regs *r, u64 df)                                    \
	{                                                                                  \
		asm volatile("lea -128(%%rsp), %%rsp; test %5, %5; jz 1f; std; 1: " text   \
			     "; pushf; pop %4; cld; lea 128(%%rsp), %%rsp"                 \
			     : "+S"(r->si), "+D"(r->di), "+c"(r->cx), "+a"(r->ax),         \
			       "=&r"(r->flags)                                             \
			     : "r"(df)                                                     \
			     : "memory", "cc");                                            \
	}
#define SIZES(X, op) X(op, b) X(op, w) X(op, l) X(op, q)
#define PLAIN(op, s) FORM(op##s##_one, #op #s) FORM(op##s##_rep, "rep " #op #s)
#define COMPARING(op, s)                                                                   \
	FORM(op##s##_one, #op #s) FORM(op##s##_repe, "repe " #op #s)                       \
	FORM(op##s##_repne, "repne " #op #s)
SIZES(PLAIN, movs)
SIZES(PLAIN, stos)
SIZES(PLAIN, lods)
SIZES(COMPARING, cmps)
SIZES(COMPARING, scas)

static const struct form {
	const char *name;
	const u8 *code, *end;
	void (*host)(struct regs *r, u64 df);
	bool flags;
} forms[] = {
#define ROW(name, flags) {#name, name##_code, name##_end, host_##name, flags},
#define PLAIN_ROW(op, s)     ROW(op##s##_one, false) ROW(op##s##_rep, false)
#define COMPARING_ROW(op, s) ROW(op##s##_one, true) ROW(op##s##_repe, true) ROW(op##s##_repne, true)
	SIZES(PLAIN_ROW, movs) SIZES(PLAIN_ROW, stos) SIZES(PLAIN_ROW, lods)
	SIZES(COMPARING_ROW, cmps) SIZES(COMPARING_ROW, scas)
};

/* Where source and destination start, from the middle. */
static const struct {
	s64 si, di;
} places[] = {
	{0, 0x1000},	  /* two pages */
	{-3, 0xffd},	  /* elements that cross pages */
	{0, 1}, {0, 2},   /* overlap: the source is overwritten as it is read */
	{1, 0}, {0, -8},
};
static const u64 counts[] = {0, 1, 2, 3, 700};

/* Long runs of equal bytes, with a few that differ. */
static void fill(u8 *p)
{
	for (u64 k = 0; k < AREA; k++)
		p[k] = k % 1021 == 0 ? k / 1021 : 0x55;
}

static void one_case(struct guest *g, u8 *copy, const struct form *f, u64 df, u64 count,
	unsigned int place)
{
	struct regs want = {
		.si = (u64)(uintptr_t)copy + MIDDLE + places[place].si,
		.di = (u64)(uintptr_t)copy + MIDDLE + places[place].di,
		.cx = count,
		.ax = 0x5555555555555555,
	};
	u64 *r = g->cpu.regs, base = DATA - (u64)(uintptr_t)copy;

	fill(copy);
	fill(g->ram + DATA);
	memcpy(g->ram + CODE, f->code, f->end - f->code);
	r[GPR_RSI] = want.si + base;
	r[GPR_RDI] = want.di + base;
	r[GPR_RCX] = want.cx;
	r[GPR_RAX] = want.ax;
	g->cpu.rip = CODE;
	cpu_set_eflags(&g->cpu, EFL_ONE | (df ? EFL_DF : 0));
	f->host(&want, df);
	assert_int_equal(guest_run(g), LEAVE_HLT);
	if (r[GPR_RSI] != want.si + base || r[GPR_RDI] != want.di + base ||
		r[GPR_RCX] != want.cx || r[GPR_RAX] != want.ax)
		fail_msg("%s df %d count %d place %u: registers", f->name, (int)df, (int)count, place);
	if (memcmp(g->ram + DATA, copy, AREA))
		fail_msg("%s df %d count %d place %u: memory", f->name, (int)df, (int)count, place);
	if (f->flags && count && (cpu_eflags(&g->cpu) ^ want.flags) & FL_ALL)
		fail_msg("%s df %d count %d place %u: flags", f->name, (int)df, (int)count, place);
}

static void as_the_host(void **state)
{
	struct guest *g = guest_create();
	u8 *copy = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	for (size_t f = 0; f < ARRAY_SIZE(forms); f++)
		for (size_t c = 0; c < ARRAY_SIZE(counts); c++)
			for (size_t p = 0; p < ARRAY_SIZE(places); p++)
				for (u64 df = 0; df < 2; df++)
					one_case(g, copy, &forms[f], df, counts[c], p);
	munmap(copy, AREA);
	guest_destroy(g);
}

GUEST(addr32_rep, "addr32 rep stosb; hlt")
GUEST(addr32_movs, "addr32 movsl; hlt")

/* Address size 32: upper halves of the registers neither count nor, where written, stay. */
static void address_size(void **state)
{
	struct guest *g = guest_create();
	u64 *r = g->cpu.regs;

	(void)state;
	guest_load(g, addr32_rep);
	r[GPR_RDI] = 0x700000000 | DATA;
	r[GPR_RCX] = 0x500000000 | 16;
	assert_int_equal(guest_run(g), LEAVE_HLT);
	assert_int_equal(r[GPR_RDI], DATA + 16);
	assert_int_equal(r[GPR_RCX], 0);
	guest_load(g, addr32_movs);
	g->cpu.rip = CODE;
	r[GPR_RSI] = 0x700000000 | DATA;
	r[GPR_RCX] = 0x500000003;
	assert_int_equal(guest_run(g), LEAVE_HLT);
	assert_int_equal(r[GPR_RSI], DATA + 4);
	assert_int_equal(r[GPR_RCX], 0x500000003); /* no REP: not used */
	guest_destroy(g);
}

/* Memory ends at RAM_SIZE: what was done before is committed, the rest is not begun. */
static void fault_halfway(void **state)
{
	static const struct {
		const u8 *code, *end;
		u64 bytes; /* before the end of memory */
		unsigned int size;
	} row[] = {
		{stosb_rep_code, stosb_rep_end, 0x1010, 1},
		{stosq_rep_code, stosq_rep_end, 0x1010, 8},
		{stosq_rep_code, stosq_rep_end, 0x14, 8}, /* an element lies across the end */
		{movsb_rep_code, movsb_rep_end, 7, 1},
		{movsl_rep_code, movsl_rep_end, 0x1006, 4},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		struct guest *g = guest_create();
		u64 *r = g->cpu.regs, done = row[i].bytes / row[i].size;

		memcpy(g->ram + CODE, row[i].code, row[i].end - row[i].code);
		r[GPR_RSI] = DATA;
		r[GPR_RDI] = RAM_SIZE - row[i].bytes;
		r[GPR_RCX] = 0x2000;
		assert_int_equal(guest_run(g), LEAVE_SHUTDOWN); /* no IDT */
		assert_int_equal(r[GPR_RCX], 0x2000 - done);
		assert_int_equal(r[GPR_RDI], RAM_SIZE - row[i].bytes + done * row[i].size);
		assert_int_equal(g->cpu.rip, CODE);
		assert_int_equal(g->cpu.cr2, RAM_SIZE);
		guest_destroy(g);
	}
}

/* mmu->watched is asked at the first store to a page: a moment in the middle of a REP. */
static bool kick_at_page(void *opaque, gpa_t page)
{
	if (page.v == DATA + 2 * PAGE_SIZE)
		cpu_request(opaque, REQ_KICK);
	return tb_page_has_code(opaque, page);
}

/* A request is seen between iterations; the rest follows after it. */
static void interrupted(void **state)
{
	struct guest *g = guest_create();
	u64 *r = g->cpu.regs;

	(void)state;
	if (!OPT_TLB)
		skip(); /* nobody asks `watched` */
	g->cpu.mmu.watched = kick_at_page;
	memcpy(g->ram + CODE, stosb_rep_code, stosb_rep_end - stosb_rep_code);
	r[GPR_RDI] = DATA;
	r[GPR_RCX] = 5 * PAGE_SIZE;
	r[GPR_RAX] = 0xaa;
	assert_int_equal(guest_run(g), LEAVE_KICK);
	assert_int_equal(g->cpu.rip, CODE);
	assert_in_range(r[GPR_RDI], DATA + 2 * PAGE_SIZE + 1, DATA + 3 * PAGE_SIZE);
	assert_int_equal(r[GPR_RDI] + r[GPR_RCX], DATA + 5 * PAGE_SIZE);
	assert_int_equal(g->ram[r[GPR_RDI] - 1], 0xaa);
	assert_int_equal(g->ram[r[GPR_RDI]], 0);
	assert_int_equal(guest_run(g), LEAVE_HLT);
	assert_int_equal(r[GPR_RCX], 0);
	assert_int_equal(g->ram[DATA + 5 * PAGE_SIZE - 1], 0xaa);
	guest_destroy(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_the_host),
		cmocka_unit_test(address_size),
		cmocka_unit_test(fault_halfway),
		cmocka_unit_test(interrupted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
