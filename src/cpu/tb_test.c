// SPDX-License-Identifier: MIT
/* Blocks: what they are keyed by, when they are built again, and what stops a fetch. */
#include "cpu/guest_test.h"
#include "cpu/native.h"
#include "cpu/tb.h"

/* The block at rip, and how many were built for it. */
static struct tb *find(struct guest *g, u64 rip, unsigned int built)
{
	u64 before = g->cpu.stat_tb_built;
	struct tb *tb = NULL;

	g->cpu.rip = rip;
	g->cpu.tbs->salt[0] = (u64)g->cpu.mmu.fetched[0].epoch << 8 | g->cpu.mode;
	assert_int_equal(tb_find(&g->cpu, &tb), STOP_OK);
	assert_int_equal(g->cpu.stat_tb_built - before, built);
	return tb;
}

static void put_code(struct guest *g, u64 at, const char *bytes, size_t n)
{
	memcpy(g->ram + at, bytes, n);
}
#define CODE_AT(g, at, bytes) put_code(g, at, bytes, sizeof(bytes) - 1)

/* One block serves every alias; the mode is part of its key. */
static void keys(void **state)
{
	struct guest *g = guest_create();
	struct tb *tb;

	(void)state;
	CODE_AT(g, CODE, "\x48\xff\xc0\xf4"); /* inc rax; in 32-bit code: dec eax, inc eax */
	tb = find(g, CODE, 1);
	assert_ptr_equal(find(g, CODE, 0), tb);
	assert_ptr_equal(find(g, ALIAS + CODE, 0), tb);
	assert_int_equal(tb->insn[0].len, 3);
	assert_int_equal(tb->gpa.v, CODE);
	g->cpu.mode = MODE_32;
	assert_int_equal(find(g, CODE, 1)->insn[0].len, 1);
	g->cpu.mode = MODE_64;
	assert_ptr_equal(find(g, CODE, 0), tb);
	guest_destroy(g);
}

/* Which byte of a long block changes, behind our back: every one must be noticed. */
static void any_byte_changes(void **state)
{
	struct guest *g = guest_create();
	unsigned int len;

	(void)state;
	memset(g->ram + CODE, 0x90, 64); /* nop */
	g->ram[CODE + 27] = 0xf4;
	len = find(g, CODE, 1)->len;
	assert_int_equal(len, OPT_BLOCKS ? 28 : 1);
	for (unsigned int k = 0; k < len; k++) {
		g->ram[CODE + k] ^= 0x0f;
		find(g, CODE, 1);
		g->ram[CODE + k] ^= 0x0f;
		find(g, CODE, 1);
	}
	g->ram[CODE + len] ^= 0xff; /* behind it: not its business */
	find(g, CODE, 0);
	guest_destroy(g);
}

/* At each distance from the page's end, where the words that are compared must not reach over. */
static void near_the_end_of_a_page(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	for (unsigned int left = 1; left <= 12; left++) {
		u64 at = CODE + PAGE_SIZE - left;

		memset(g->ram + CODE, 0xcc, 2 * PAGE_SIZE);
		memset(g->ram + at, 0x90, left);
		assert_int_equal(find(g, at, 1)->len, OPT_BLOCKS ? left : 1);
		g->ram[at - 1] ^= 0xff;
		g->ram[at + left] ^= 0xff;
		find(g, at, 0);
		g->ram[at] = 0x50;
		assert_int_equal(find(g, at, 1)->insn[0].opcode, 0x50);
	}
	guest_destroy(g);
}

/* An instruction across two pages depends on the bytes and on the mapping of both. */
static void crossing(void **state)
{
	struct guest *g = guest_create();
	u64 at = CODE + PAGE_SIZE - 2, *pd = (u64 *)(g->ram + PAGES + 0x2000), *pt = pd + 512;

	(void)state;
	for (u64 k = 0; k < 512; k++)
		pt[k] = k * PAGE_SIZE | 7;
	pd[0] = (PAGES + 0x3000) | 7;
	mmu_flush(&g->cpu.mmu);
	CODE_AT(g, at, "\xb8\x01\x02\x03\x04"); /* mov eax, 0x04030201 */
	assert_int_equal(find(g, at, 1)->insn[0].imm, 0x04030201);
	find(g, at, 0);
	g->ram[at + 4] = 5;
	assert_int_equal(find(g, at, 1)->insn[0].imm, 0x05030201);

	memset(g->ram + 0x40000, 0x77, 16);
	pt[(CODE >> 12) + 1] = 0x40007;
	mmu_flush_page(&g->cpu.mmu, gva(CODE + PAGE_SIZE));
	assert_int_equal(find(g, at, 1)->insn[0].imm, 0x77777701);
	guest_destroy(g);
}

/* Pages that have had blocks are watched, others are not. */
static void watched(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	CODE_AT(g, CODE + PAGE_SIZE - 1, "\xeb\xfe");
	assert_false(tb_page_has_code(&g->cpu, gpa(CODE)));
	find(g, CODE + PAGE_SIZE - 1, 1);
	assert_true(tb_page_has_code(&g->cpu, gpa(CODE)));
	assert_true(tb_page_has_code(&g->cpu, gpa(CODE + PAGE_SIZE)));
	assert_false(tb_page_has_code(&g->cpu, gpa(CODE + 2 * PAGE_SIZE)));
	assert_false(tb_page_has_code(&g->cpu, gpa(~0ull)));
	tb_flush_all(&g->cpu);
	assert_false(tb_page_has_code(&g->cpu, gpa(CODE)));
	find(g, CODE + PAGE_SIZE - 1, 1);
	guest_destroy(g);
}

/* New slots: what was built from the old ones is gone. */
static void slots_change(void **state)
{
	struct guest *g = guest_create();
	u8 *other = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	CODE_AT(g, CODE, "\xb0\x01\xf4");
	find(g, CODE, 1);
	memcpy(other, g->ram, RAM_SIZE);
	other[CODE + 1] = 2;
	cpu_detach(&g->cpu);
	assert_int_equal(mem_set_slot(g->mem, 0, 0, 0, gpa(0), 0, NULL), 0);
	assert_int_equal(mem_set_slot(g->mem, 0, 0, 0, gpa(0), RAM_SIZE, other), 0);
	assert_int_equal(cpu_attach(&g->cpu), 0);
	assert_int_equal(find(g, CODE, 1)->insn[0].imm, 2);
	guest_destroy(g);
	munmap(other, RAM_SIZE);
}

/* What a fetch at rip stops with: SDM 3A 6.15, 5.3. */
static void stops(void **state)
{
	static const u8 sixteen[] = {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
		0x66, 0x66, 0x66, 0x66, 0x66, 0x90};
	static const struct {
		u64 rip;
		enum stop stop;
		u8 vector;
		u64 cr2;
	} row[] = {
		{CODE, STOP_EXC, EXC_GP, 0},		   /* longer than 15 bytes */
		{CODE + 0x100, STOP_EXC, EXC_UD, 0},	   /* ud2 */
		{RAM_SIZE, STOP_EXC, EXC_PF, RAM_SIZE},	   /* not mapped */
		{RAM_SIZE - 1, STOP_EXC, EXC_PF, RAM_SIZE}, /* its second half is not */
		{1ull << 47, STOP_EXC, EXC_GP, 0},	   /* not canonical */
	};
	struct guest *g = guest_create();
	struct insn i;
	struct tb *tb;

	(void)state;
	memcpy(g->ram + CODE, sixteen, sizeof(sixteen));
	CODE_AT(g, CODE + 0x100, "\x0f\x04");
	g->ram[RAM_SIZE - 1] = 0xb8;
	for (size_t k = 0; k < ARRAY_SIZE(row); k++) {
		g->cpu.rip = row[k].rip;
		assert_int_equal(tb_find(&g->cpu, &tb), row[k].stop);
		assert_int_equal(g->cpu.exc.vector, row[k].vector);
		assert_int_equal(tb_fetch_one(&g->cpu, &i), row[k].stop);
		assert_int_equal(g->cpu.exc.vector, row[k].vector);
		if (row[k].vector == EXC_PF)
			assert_int_equal(g->cpu.exc.payload, row[k].cr2);
	}
	guest_destroy(g);
}

/* Code that is no RAM: the exit says where. */
static void no_ram(void **state)
{
	struct guest *g = guest_create();
	u64 *pdpt = (u64 *)(g->ram + PAGES + 0x1000);

	(void)state;
	pdpt[1] = 0x40000000 | 0x87;
	g->cpu.rip = 0x40001234;
	assert_int_equal(guest_run(g), LEAVE_FETCH);
	assert_int_equal(g->exit.gpa.v, 0x40001234);
	assert_int_equal(g->cpu.rip, 0x40001234);
	guest_destroy(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys),
		cmocka_unit_test(any_byte_changes),
		cmocka_unit_test(near_the_end_of_a_page),
		cmocka_unit_test(crossing),
		cmocka_unit_test(watched),
		cmocka_unit_test(slots_change),
		cmocka_unit_test(stops),
		cmocka_unit_test(no_ram),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
