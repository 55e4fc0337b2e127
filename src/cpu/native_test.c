// SPDX-License-Identifier: MIT
/*
 * Thunks against results known from the manual. The large comparison with the host is
 * tests/native; here is what it cannot say: bookkeeping, W^X, exceptions, roll back.
 */
#include "cpu/exec.h"
#include "cpu/fpu.h"
#include "cpu/native.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Guest memory is one page at linear address 0x1000; accesses go there directly or by bounce. */
static u8 page[4096] __attribute__((aligned(4096)));

struct test_env {
	struct env env;
	bool bounce;
	enum stop flush; /* what flush answers */
	unsigned int flushes;
};

static struct test_env *test_env(struct env *e)
{
	return container_of(e, struct test_env, env);
}

static enum stop test_map(struct env *e, struct access *a)
{
	a->p = test_env(e)->bounce ? a->bounce : page + (a->gva.v & 0xfff);
	return STOP_OK;
}

static enum stop test_begin(struct env *e)
{
	for (unsigned int k = 0; k < e->nr_pending; k++) {
		struct access *a = e->pending[k];

		if (a->p == a->bounce && (a->need & MMU_R))
			memcpy(a->bounce, page + (a->gva.v & 0xfff), a->len);
	}
	return STOP_OK;
}

static enum stop test_flush(struct env *e, struct access *a)
{
	struct test_env *t = test_env(e);

	t->flushes++;
	if (!t->flush && t->bounce)
		memcpy(page + (a->gva.v & 0xfff), a->p, a->len);
	return t->flush;
}

static const struct env_ops test_ops = { .map = test_map, .begin = test_begin, .flush = test_flush };

static struct cpu *new_cpu(void)
{
	struct cpu *cpu = aligned_alloc(64, ALIGN_UP(sizeof(*cpu), 64));
	u16 cw = 0x37f;

	memset(cpu, 0, sizeof(*cpu));
	cpu->cr0 = CR0_PE | CR0_PG | CR0_NE;
	cpu->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	cpu->xcr0 = 7;
	cpu->mode = MODE_64;
	cpu->long_mode = true;
	cpu->fl = 0x200;
	cpu->eflags = 2;
	cpu->mxcsr = MXCSR_RESET;
	memcpy(cpu->fpu.fx, &cw, 2);
	memset(cpu->features, 1, sizeof(cpu->features));
	cpu->native = native_create();
	assert_non_null(cpu->native);
	return cpu;
}

static void free_cpu(struct cpu *cpu)
{
	native_destroy(cpu->native);
	free(cpu);
}

static enum stop run(struct cpu *cpu, struct test_env *t, enum insn_mode mode, const char *hex)
{
	u8 code[16];
	unsigned int n = 0, v;
	struct insn i;

	for (; sscanf(hex, "%2x", &v) == 1; hex += 2)
		code[n++] = v;
	assert_int_equal(insn_decode(&i, mode, code, n), DECODE_OK);
	assert_int_equal(i.len, n);
	assert_int_equal(insn_row(&i)->cls, CLASS_N);
	*t = (struct test_env){ .env = { .cpu = cpu, .ops = &test_ops }, .bounce = t->bounce,
		.flush = t->flush };
	cpu->next_rip = cpu->rip + n;
	return exec_native(cpu, &i, &t->env);
}

/* One instruction with RAX = 0x1122334455667788, RCX = 3, RSP = 0x9000, RBP = 0x10, memory dword 0x80000001. */
static const struct {
	const char *hex;
	enum insn_mode mode;
	unsigned int reg;
	u64 want;
	u64 fl; /* SF ZF PF CF */
	u32 mem;
} cases[] = {
	{ "01c8", MODE_64, GPR_RAX, 0x5566778b, FI_PF, 0x80000001 },	    /* add eax, ecx */
	{ "6601c8", MODE_64, GPR_RAX, 0x112233445566778b, FI_PF, 0x80000001 },
	{ "4801cc", MODE_64, GPR_RSP, 0x9003, FI_PF, 0x80000001 },	    /* add rsp, rcx */
	{ "00e1", MODE_64, GPR_RCX, 0x7a, 0, 0x80000001 },		    /* add cl, ah */
	{ "4000e1", MODE_64, GPR_RCX, 3, FI_PF, 0x80000001 },		    /* add cl, spl */
	{ "82c105", MODE_32, GPR_RCX, 8, 0, 0x80000001 },		    /* add cl, 5: 80's twin */
	{ "40", MODE_32, GPR_RAX, 0x55667789, 0, 0x80000001 },		    /* inc eax */
	{ "48", MODE_32, GPR_RAX, 0x55667787, FI_PF, 0x80000001 },	    /* dec eax */
	{ "a100100000", MODE_32, GPR_RAX, 0x80000001, 0, 0x80000001 },	    /* mov eax, [0x1000] */
	{ "030500100000", MODE_32, GPR_RAX, 0xd5667789, FI_SF, 0x80000001 },/* add eax, [0x1000] */
	{ "f00fc10d00100000", MODE_32, GPR_RCX, 0x80000001, FI_SF, 0x80000004 }, /* lock xadd */
	{ "0fb30500100000", MODE_32, GPR_RAX, 0x55667788, 0, 0x80000001 }, /* btr [0x1000], eax: far away */
	{ "0fc8", MODE_64, GPR_RAX, 0x88776655, 0, 0x80000001 },	    /* bswap eax */
};

static void arithmetic(void **state)
{
	(void)state;
	for (unsigned int k = 0; k < 2 * ARRAY_SIZE(cases); k++) {
		unsigned int c = k / 2;
		struct cpu *cpu = new_cpu();
		struct test_env t = { .bounce = k & 1 };
		u32 mem = 0x80000001;

		memcpy(page, &mem, 4);
		cpu->mode = cases[c].mode;
		cpu->long_mode = cpu->mode == MODE_64;
		for (unsigned int s = 0; s < NR_SEGS; s++)
			cpu->seg[s] = (struct segment){ .limit = 0xffffffff, .attr = 0xc093 };
		cpu->regs[GPR_RAX] = cpu->mode == MODE_64 ? 0x1122334455667788 : 0x55667788;
		cpu->regs[GPR_RCX] = 3;
		cpu->regs[GPR_RSP] = 0x9000;
		assert_int_equal(run(cpu, &t, cases[c].mode, cases[c].hex), STOP_OK);
		memcpy(&mem, page, 4);
		assert_int_equal(cpu->regs[cases[c].reg], cases[c].want);
		assert_int_equal(cpu->fl & (FI_SF | FI_ZF | FI_PF | FI_CF), cases[c].fl);
		assert_int_equal(mem, cases[c].mem);
		free_cpu(cpu);
	}
}

/* SDM 2A DIV, IDIV: every edge is #DE of the guest's, never of the host's. */
static void division(void **state)
{
	static const struct {
		const char *hex;
		u64 rax, rdx, rcx;
		enum stop want;
		u64 quotient;
	} t[] = {
		{ "48f7f1", 10, 0, 3, STOP_OK, 3 },
		{ "48f7f1", 10, 0, 0, STOP_EXC, 0 },
		{ "48f7f1", 0, 3, 3, STOP_EXC, 0 },
		{ "48f7f1", ~0ull, 2, 3, STOP_OK, ~0ull },
		{ "48f7f9", 1ull << 63, ~0ull, ~0ull, STOP_EXC, 0 },	  /* INT64_MIN / -1 */
		{ "48f7f9", (1ull << 63) + 1, ~0ull, ~0ull, STOP_OK, (1ull << 63) - 1 },
		{ "48f7f9", 0, 1ull << 63, ~0ull, STOP_EXC, 0 },	  /* INT128_MIN / -1 */
		{ "48f7f9", 0, 1ull << 63, 1, STOP_EXC, 0 },
		{ "f7f9", 0x80000000, 0xffffffff, 0xffffffff, STOP_EXC, 0 },
		{ "f7f9", 0x80000000, 0xffffffff, 1, STOP_OK, 0x80000000 },
		{ "66f7f9", 0x8000, 0xffff, 0xffff, STOP_EXC, 0 },
		{ "f6f9", 0xff80, 0, 0xff, STOP_EXC, 0 },
		{ "f6f1", 0x0300, 0, 3, STOP_EXC, 0 },
		{ "f6f1", 0x02ff, 0, 3, STOP_OK, 0x02ff },
	};

	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(t); k++) {
		struct cpu *cpu = new_cpu();
		struct test_env e = { 0 };

		cpu->regs[GPR_RAX] = t[k].rax;
		cpu->regs[GPR_RDX] = t[k].rdx;
		cpu->regs[GPR_RCX] = t[k].rcx;
		assert_int_equal(run(cpu, &e, MODE_64, t[k].hex), t[k].want);
		if (t[k].want == STOP_EXC)
			assert_int_equal(cpu->exc.vector, EXC_DE);
		assert_int_equal(cpu->regs[GPR_RAX], t[k].want ? t[k].rax : t[k].quotient);
		free_cpu(cpu);
	}
}

/* Law 1: a commit that stops leaves registers and flags as they were. */
static void flush_stops(void **state)
{
	struct cpu *cpu = new_cpu();
	struct test_env e = { .bounce = true, .flush = STOP_EXIT };

	(void)state;
	memset(page, 0xff, 8);
	cpu->regs[GPR_RCX] = 1;
	assert_int_equal(run(cpu, &e, MODE_64, "480fc10c2500100000"), STOP_EXIT); /* xadd */
	assert_int_equal(cpu->regs[GPR_RCX], 1);
	assert_int_equal(cpu->fl, 0x200);
	free_cpu(cpu);
}

/* SDM 1 11.5: DIVSS by 0 with ZM clear: #XM, destination unchanged, flag set. */
static void simd_exception(void **state)
{
	struct cpu *cpu = new_cpu();
	struct test_env e = { 0 };
	float one = 1, r;

	(void)state;
	memcpy(cpu->fpu.ymm[1], &one, 4);
	assert_int_equal(run(cpu, &e, MODE_64, "f30f5eca"), STOP_OK);
	assert_int_equal(cpu->mxcsr, MXCSR_RESET | 4);
	memcpy(&r, cpu->fpu.ymm[1], 4);
	assert_true(r > 1e38f);
	memcpy(cpu->fpu.ymm[1], &one, 4);
	cpu->mxcsr = MXCSR_RESET & ~0x200u;
	assert_int_equal(run(cpu, &e, MODE_64, "f30f5eca"), STOP_EXC);
	assert_int_equal(cpu->exc.vector, EXC_XM);
	assert_int_equal(cpu->mxcsr, (MXCSR_RESET & ~0x200u) | 4);
	assert_memory_equal(cpu->fpu.ymm[1], &one, 4);
	cpu->cr4 &= ~CR4_OSXMMEXCPT;
	assert_int_equal(run(cpu, &e, MODE_64, "f30f5eca"), STOP_EXC);
	assert_int_equal(cpu->exc.vector, EXC_UD);
	free_cpu(cpu);
}

/* x87: an unmasked overflow of FSTP m32 stores and pops nothing, sets ES; pointers are the guest's. */
static void x87(void **state)
{
	struct cpu *cpu = new_cpu();
	struct test_env e = { 0 };
	double big = 1e300;
	u16 cw = 0x37f & ~8;
	u64 fip, fdp;

	(void)state;
	cpu->rip = 0x400000;
	memcpy(page, &big, 8);
	memcpy(cpu->fpu.fx, &cw, 2);
	assert_int_equal(run(cpu, &e, MODE_64, "dd042500100000"), STOP_OK); /* fld m64 */
	assert_int_equal(fx_sw(cpu) >> 11 & 7, 7);
	memset(page, 0xaa, 8);
	cpu->rip = 0x400010;
	assert_int_equal(run(cpu, &e, MODE_64, "d91c2500100000"), STOP_OK); /* fstp m32 */
	assert_int_equal(fx_sw(cpu) & (FSW_ES | 8), FSW_ES | 8);
	assert_int_equal(fx_sw(cpu) >> 11 & 7, 7);
	assert_int_equal(page[0], 0xaa);
	assert_int_equal(e.flushes, 0);
	memcpy(&fip, cpu->fpu.fx + FX_FIP, 8);
	memcpy(&fdp, cpu->fpu.fx + FX_FDP, 8);
	assert_int_equal(fip, 0x400010);
	assert_int_equal(fdp, 0x1000);
	assert_int_equal(run(cpu, &e, MODE_64, "dbe3"), STOP_OK); /* fninit */
	assert_int_equal(fx_cw(cpu), 0x37f);
	assert_int_equal(fx_sw(cpu), 0);
	free_cpu(cpu);
}

static bool mapped_wx(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512], perm[8];
	bool bad = false;

	while (f && fgets(line, sizeof(line), f))
		bad |= sscanf(line, "%*s %7s", perm) == 1 && perm[1] == 'w' && perm[2] == 'x';
	if (f)
		fclose(f);
	return bad;
}

/* The cache: same key, same thunk; when full it starts afresh and says so. */
static void cache(void **state)
{
	struct cpu *cpu = new_cpu();
	struct test_env e = { 0 };
	native_fn *fn;
	struct insn i;
	u32 before;

	(void)state;
	assert_false(mapped_wx());
	assert_int_equal(insn_decode(&i, MODE_64, (const u8 *)"\x01\xc8", 2), DECODE_OK);
	fn = native_get(cpu->native, &i);
	assert_ptr_equal(fn, native_get(cpu->native, &i));
	before = cpu->native->generation;
	for (u32 k = 0; k < 20000; k++) {
		u8 code[] = { 0x05, k, k >> 8, k >> 16, k >> 24 };

		assert_int_equal(insn_decode(&i, MODE_64, code, 5), DECODE_OK);
		assert_non_null(native_get(cpu->native, &i));
	}
	assert_true(cpu->native->generation > before);
	assert_true(cpu->native->nr_flushes > 0);
	cpu->regs[GPR_RAX] = 1;
	cpu->regs[GPR_RCX] = 2;
	assert_int_equal(run(cpu, &e, MODE_64, "01c8"), STOP_OK);
	assert_int_equal(cpu->regs[GPR_RAX], 3);
	free_cpu(cpu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arithmetic), cmocka_unit_test(division),
		cmocka_unit_test(flush_stops), cmocka_unit_test(simd_exception),
		cmocka_unit_test(x87), cmocka_unit_test(cache),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
