// SPDX-License-Identifier: MIT
/*
 * Two engines, one program: registers, flags, memory and the number of instructions must be equal
 * at the end. Programs are random runs of what the translator knows, with loops, calls and faults
 * around them; single instructions are compared with the host in tests/native.
 */
#include "cpu/guest_test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hard.h"
#include "cpu/tb.h"
#include "translate/translate.h"

static u64 seed;
static bool is_32; /* flat 32-bit code; else 64-bit */

static u32 below(u32 n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (seed >> 33) % n;
}

static struct guest *create(bool translated)
{
	struct guest *g = guest_create();

	if (translated)
		assert_int_equal(translator_create(&g->cpu), 0);
	for (unsigned int k = 0; is_32 && k < NR_SEGS; k++)
		g->cpu.seg[k] = (struct segment){.sel = 8 * k + 8, .limit = ~0u,
			.attr = SEGA_P | SEGA_S | SEGA_DB | SEGA_G | (k == SEG_CS ? 11 : 3)};
	cpu_update(&g->cpu);
	if (g->cpu.translator && below(2)) /* room for few blocks: all are thrown away time and again */
		g->cpu.translator->code.size = 48 << 10;
	if (g->cpu.translator)
		g->cpu.translator->patience = below(3);
	return g;
}

/* ---- random programs */

struct form {
	u8 bytes[3], n;
	bool modrm, has_ext;
	u8 ext; /* ModRM.reg, if it is no register */
	u8 imm; /* bytes of immediate; IMM_Z: 4, or 2 with 66 */
};

#define IMM_Z 0xff
#define BYTES(...) .bytes = {__VA_ARGS__}, .n = sizeof((u8[]){__VA_ARGS__})
#define RM(...) {BYTES(__VA_ARGS__), .modrm = true}
#define EXT(e, i, ...) {BYTES(__VA_ARGS__), .modrm = true, .has_ext = true, .ext = e, .imm = i}
#define BARE(i, ...) {BYTES(__VA_ARGS__), .imm = i}
static const struct form forms[] = {
	RM(0x01), RM(0x03), RM(0x00), RM(0x02), RM(0x09), RM(0x0b), RM(0x11), RM(0x13), RM(0x19),
	RM(0x1b), RM(0x21), RM(0x23), RM(0x29), RM(0x2b), RM(0x31), RM(0x33), RM(0x39), RM(0x3b),
	RM(0x38), RM(0x3a), RM(0x85), RM(0x84), RM(0x89), RM(0x8b), RM(0x88), RM(0x8a),
	RM(0x8d), RM(0x0f, 0xb6), RM(0x0f, 0xb7), RM(0x0f, 0xbe), RM(0x0f, 0xbf), RM(0x63),
	RM(0x0f, 0xaf), RM(0x0f, 0x44), RM(0x0f, 0x45), RM(0x0f, 0x4c), RM(0x0f, 0x42), RM(0x0f, 0x94),
	RM(0x0f, 0x92), RM(0x0f, 0x9f), RM(0x0f, 0xbc), RM(0x0f, 0xbd), RM(0x87), RM(0x0f, 0xc1),
	EXT(0, IMM_Z, 0x81), EXT(5, IMM_Z, 0x81), EXT(7, 1, 0x83), EXT(2, 1, 0x83), EXT(3, 1, 0x83),
	EXT(4, 1, 0x83), EXT(0, IMM_Z, 0xc7), EXT(0, 0, 0xff), EXT(1, 0, 0xff), EXT(2, 0, 0xf7),
	EXT(3, 0, 0xf7), EXT(0, IMM_Z, 0xf7), EXT(4, 1, 0xc1), EXT(5, 1, 0xc1), EXT(7, 1, 0xc1),
	EXT(0, 1, 0xc1), EXT(1, 1, 0xc1), EXT(4, 0, 0xd1), EXT(5, 0, 0xd3), EXT(0, 0, 0xd3),
	EXT(4, 1, 0x0f, 0xba), EXT(5, 1, 0x0f, 0xba), RM(0x0f, 0xa3),
	BARE(IMM_Z, 0x05), BARE(IMM_Z, 0x3d), BARE(IMM_Z, 0xa9), BARE(0, 0x98), BARE(0, 0x99), BARE(0, 0x90),
	BARE(0, 0x50), BARE(0, 0x53), BARE(0, 0x58), BARE(0, 0x5b), BARE(1, 0x6a), BARE(0, 0x0f, 0xc8),
	EXT(4, 0, 0xf7), EXT(5, 0, 0xf7), RM(0x0f, 0xb1),
	EXT(6, 0, 0xff), BARE(0, 0xf8), BARE(0, 0xf5), BARE(0, 0x9c), BARE(0, 0x0f, 0xa2),
};

struct program {
	u8 *p;
};

static void put(struct program *g, u64 v, unsigned int n)
{
	for (; n; n--, v >>= 8)
		*g->p++ = v;
}

/*
 * RSP is left alone, and so are those that hold addresses: R11 to R13, in 32-bit code ESI, EDI, EBP.
 * Memory is [address + d8], or with the index: R14, none.
 */
static u8 any_reg(void)
{
	static const u8 regs[] = {0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 14, 15};

	return regs[below(is_32 ? 4 : ARRAY_SIZE(regs))];
}

static u8 address_reg(unsigned int k)
{
	static const u8 regs[2][3] = {{11, 12, 13}, {6, 7, 5}};

	return regs[is_32][k];
}

static bool may_be_narrow(const struct form *f)
{
	bool swap = f->bytes[0] == 0x0f && f->bytes[1] == 0xc8, stack = (f->bytes[0] & 0xf0) == 0x50;

	return !swap && !stack && f->bytes[0] != 0x6a && f->bytes[0] != 0x9c;
}

static void put_operand(struct program *g, u8 reg, u8 rm, u8 index, bool mem)
{
	put(g, (mem ? 0x40 : 0xc0) | (reg & 7) << 3 | (mem ? 4 : rm & 7), 1);
	if (!mem)
		return;
	put(g, (index & 7) << 3 | (rm & 7), 1);
	put(g, below(256), 1);
}

/* OR EBX, 1; XOR EDX, EDX or CDQ; DIV or IDIV EBX: it seldom faults, which would be the program's end. */
static void put_division(struct program *g)
{
	u8 rex = is_32 || below(2) ? 0x90 : 0x48; /* or NOP */
	bool is_signed = below(2);

	put(g, 0x01cb83, 3);
	if (is_signed)
		put(g, rex | 0x9900, 2);
	else
		put(g, 0xd231, 2);
	put(g, rex | (is_signed ? 0xfbf700 : 0xf3f700), 3);
}

static void random_insn(struct program *g)
{
	const struct form *f = &forms[below(ARRAY_SIZE(forms))];
	bool bit = f->bytes[0] == 0x0f && f->bytes[1] == 0xa3;
	bool mem = f->modrm && !bit && (f->bytes[0] == 0x8d || below(3) == 0), wide = !is_32 && below(2);
	bool narrow = !wide && below(5) == 0 && may_be_narrow(f);
	u8 reg = f->has_ext ? f->ext : any_reg(), rm = mem ? address_reg(below(3)) : any_reg();
	u8 index = mem && !is_32 && below(4) == 0 ? 14 : 4;

	if (below(40) == 0)
		put_division(g);
	if (narrow)
		put(g, 0x66, 1);
	if (f->modrm && !is_32)
		put(g, 0x40 | wide << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | rm >> 3, 1);
	else if (wide)
		put(g, 0x48, 1);
	for (unsigned int k = 0; k < f->n; k++)
		put(g, f->bytes[k], 1);
	if (f->modrm)
		put_operand(g, reg, rm, index, mem);
	if (f->imm)
		put(g, seed >> 20, f->imm != IMM_Z ? f->imm : narrow ? 2 : 4);
}

/* op with ModRM.reg `ext`, [R12 or EDI + disp] */
static void put_fixed(struct program *g, u8 op, u8 ext, s32 disp)
{
	if (!is_32)
		put(g, op == 0x8d ? 0x49 : 0x41, 1);
	put(g, op, 1);
	put(g, 0x80 | ext << 3 | (is_32 ? 7 : 4), 1);
	if (!is_32)
		put(g, 0x24, 1);
	put(g, (u32)disp, 4);
}

/* RSP without what was pushed; one less in the counter: ZF for the end. */
static void end_loop(struct program *g, s32 counter)
{
	put_fixed(g, 0x8d, 4, 0x800); /* lea */
	put_fixed(g, 0xff, 1, counter); /* dec */
}

/* A loop that is one block, but for instructions that end one. */
static void random_loop(struct program *g)
{
	u8 *start;

	put_fixed(g, 0xc7, 0, -0x910); /* mov dword, n */
	put(g, 1 + below(6), 4);
	put(g, 0x00eb, 2); /* jmp to the next instruction */
	start = g->p;
	for (unsigned int k = 1 + below(7); k; k--)
		random_insn(g);
	end_loop(g, -0x910);
	put(g, 0x75, 1); /* jnz */
	put(g, start - (g->p + 1), 1);
}

/* An instruction here whose immediate others change: ADD EAX, imm32. */
static u8 *put_patched(struct program *g)
{
	put(g, 0x05, 1);
	put(g, seed >> 20, 4);
	return g->p - 4;
}

/* INC dword [imm]: code that has been translated changes, in this block or in another. */
static void put_patch(struct program *g, const u8 *code, const u8 *imm)
{
	put(g, 0x05ff, 2);
	put(g, is_32 ? (u32)(CODE + (imm - code)) : (u32)(imm - (g->p + 4)), 4);
}

/* Up to thirty times: random instructions, conditional jumps over the next few; then HLT. */
static void random_program(u8 *code)
{
	struct program g = {code};
	u8 *skip, *imm = NULL;

	for (unsigned int block = 0; block < 12; block++) {
		if (below(4) == 0)
			imm = put_patched(&g);
		if (imm && below(6) == 0)
			put_patch(&g, code, imm);
		for (unsigned int k = 1 + below(9); k; k--)
			random_insn(&g);
		put(&g, 0x70 | below(16), 1); /* jcc */
		skip = g.p++;
		for (unsigned int k = below(4); k; k--)
			random_insn(&g);
		*skip = g.p - skip - 1;
		if (below(3) == 0)
			random_loop(&g);
	}
	end_loop(&g, -0x900);
	put(&g, 0x850f, 2); /* jnz */
	put(&g, (u32)(code - (g.p + 4)), 4);
	put(&g, 0xf4, 1);
}

static void load(struct guest *g, const u8 *code, unsigned int n, const u8 *data)
{
	memcpy(g->ram + CODE, code, n);
	memcpy(g->ram + DATA, data, 0x8000);
	for (unsigned int k = 0; k < 16; k++)
		g->cpu.regs[k] = below(4) ? seed * (k + 1) : below(256);
	for (unsigned int k = 0; is_32 && k < 16; k++)
		g->cpu.regs[k] = (u32)g->cpu.regs[k];
	g->cpu.regs[address_reg(0)] = DATA + 0x1000;
	g->cpu.regs[address_reg(1)] = DATA + 0x3000;
	g->cpu.regs[address_reg(2)] = DATA + 0x4ff0; /* its operands cross a page */
	if (!is_32)
		g->cpu.regs[14] = 8 * below(100);
	g->cpu.regs[GPR_RSP] = DATA + 0x3800;
	*(u32 *)(g->ram + DATA + 0x3000 - 0x900) = 1 + below(30);
	g->cpu.rip = CODE;
	cpu_set_eflags(&g->cpu, EFL_ONE | (below(2) ? EFL_CF : 0));
}

static void compare(struct guest *a, struct guest *b, u64 at)
{
	bool same = !memcmp(a->cpu.regs, b->cpu.regs, 16 * 8) && a->cpu.rip == b->cpu.rip &&
		    cpu_eflags(&a->cpu) == cpu_eflags(&b->cpu) && a->cpu.insns == b->cpu.insns &&
		    a->exit.reason == b->exit.reason && !memcmp(a->ram, b->ram, RAM_SIZE);

	if (same)
		return;
	for (unsigned int k = 0; k < 16; k++)
		if (a->cpu.regs[k] != b->cpu.regs[k])
			print_message("r%u: %#lx, translated %#lx\n", k, a->cpu.regs[k], b->cpu.regs[k]);
	fail_msg("seed %lu: rip %#lx %#lx flags %#lx %#lx insns %lu %lu reason %d %d", at, a->cpu.rip,
		b->cpu.rip, cpu_eflags(&a->cpu), cpu_eflags(&b->cpu), a->cpu.insns, b->cpu.insns,
		a->exit.reason, b->exit.reason);
}

static void run_both(u64 at)
{
	static u8 data[0x8000], code[4096];
	struct guest *g[2];
	u64 same;

	seed = at;
	is_32 = at % 3 == 0;
	g[0] = create(false);
	g[1] = create(true);
	for (unsigned int k = 0; k < sizeof(data); k++)
		data[k] = below(256);
	random_program(code);
	same = seed;
	for (unsigned int k = 0; k < 2; k++) {
		seed = same;
		load(g[k], code, sizeof(code), data);
		(void)guest_run(g[k]);
	}
	compare(g[0], g[1], at);
	guest_destroy(g[0]);
	guest_destroy(g[1]);
}

static void random_programs(void **state)
{
	const char *env = getenv("SEED"), *n = getenv("CASES");
	u64 first = env ? strtoull(env, NULL, 0) : 1, cases = n ? strtoull(n, NULL, 0) : OPT_TRANSLATE ? 400 : 10;

	(void)state;
	for (u64 k = 0; k < cases; k++)
		run_both(first + k);
}

/* Blocks become worth to be translated when there is no memory left for it. */
static void fill_arena(u64 at)
{
	static u8 data[0x8000], code[4096];
	struct guest *g;

	seed = at;
	is_32 = false;
	g = create(true);
	if (g->cpu.translator) {
		g->cpu.translator->patience = 40;
		g->cpu.translator->code.size = 1 << 20;
	}
	random_program(code);
	for (unsigned int k = 0; k < 4; k++) {
		load(g, code, sizeof(code), data);
		(void)guest_run(g);
		assert_in_range(g->cpu.tbs->used, 0, TB_ARENA_SIZE);
		g->cpu.tbs->used = TB_ARENA_SIZE - 64;
	}
	guest_destroy(g);
}

static void full_arena(void **state)
{
	(void)state;
	for (u64 k = 0; k < 20; k++)
		fill_arena(k);
}

/* Loops of the instructions that leave most behind a run: IDIV has three checks, PUSH two operands. */
GUEST(divisions, "jmp 1f; 1: .rept 15; idivl (%r12); idivl (%r11); .endr; dec %ecx; jnz 1b; hlt")
GUEST(no_ram, "jmp 1f; 1: idivl (%r12); idivl 0x10000000(%r12); .rept 14; idivl (%r12); idivl (%r11); .endr;"
	      "dec %ecx; jnz 1b; hlt")
GUEST(pushes, "jmp 1f; 1: .rept 29; push (%rsp); .endr; lea 0x800(%r12), %rsp; dec %ecx; jnz 1b; hlt")

static void run_crowd(const u8 *code, const u8 *end)
{
	static u8 data[0x8000];
	struct guest *g[2];

	seed = 0;
	is_32 = false;
	memset(data, 3, sizeof(data));
	for (unsigned int k = 0; k < 2; k++) {
		g[k] = create(k);
		if (g[k]->cpu.translator)
			g[k]->cpu.translator->patience = 0;
		seed = 0;
		load(g[k], code, end - code, data);
		g[k]->cpu.regs[GPR_RAX] = g[k]->cpu.regs[GPR_RDX] = 0;
		g[k]->cpu.regs[GPR_RCX] = 5;
		(void)guest_run(g[k]);
	}
	compare(g[0], g[1], 0);
	guest_destroy(g[0]);
	guest_destroy(g[1]);
}

static void crowded_loops(void **state)
{
	(void)state;
	run_crowd(divisions_code, divisions_end);
	run_crowd(no_ram_code, no_ram_end);
	run_crowd(pushes_code, pushes_end);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(crowded_loops),
	cmocka_unit_test(full_arena),
	cmocka_unit_test(random_programs),
};

int main(void)
{
	return cmocka_run_group_tests(tests, NULL, NULL);
}
