// SPDX-License-Identifier: MIT
/*
 * Vector registers: the guest's are in the host's of the same number while a run needs them, and
 * written through to struct cpu. MXCSR is the guest's from the first instruction that needs it to
 * the end of the run: only if it masks all exceptions, so that it can only collect flags.
 */
#include "translate/gen.h"

#define MXCSR_MASKS 0x1f80

/* Miss unless (field & mask) == want; want is 0 or mask. */
static void require(struct gen *g, s32 field, u32 mask, u32 want)
{
	emit_mem(&g->c, (struct opcode){4, 0, 0x8b}, T0, CPU, NO_HOST, 0, field);
	if (want)
		emit_reg(&g->c, (struct opcode){4, 0, 0xf7}, 2, T0); /* not */
	emit_reg(&g->c, (struct opcode){4, 0, 0xf7}, 0, T0); /* test */
	emit_bytes(&g->c, mask, 4);
	gen_miss_if(g, CC_NE);
}

/* As check_sse and check_avx of cpu/exec.c, in a mode that is protected. */
static void check_use(struct gen *g, bool avx)
{
	gen_flags_lose(g);
	if (avx) {
		require(g, offsetof(struct cpu, cr4), CR4_OSXSAVE, CR4_OSXSAVE);
		require(g, offsetof(struct cpu, xcr0), 6, 6);
		require(g, offsetof(struct cpu, cr0), CR0_TS, 0);
	} else {
		require(g, offsetof(struct cpu, cr4), CR4_OSFXSR, CR4_OSFXSR);
		require(g, offsetof(struct cpu, cr0), CR0_EM | CR0_TS, 0);
	}
}

static void mxcsr_op(struct gen *g, u8 ext, s32 field)
{
	emit_mem(&g->c, (struct opcode){4, 1, 0xae}, ext, CPU, NO_HOST, 0, field);
}

static void load_mxcsr(struct gen *g)
{
	gen_flags_lose(g);
	require(g, offsetof(struct cpu, mxcsr), MXCSR_MASKS, MXCSR_MASKS);
	mxcsr_op(g, 2, offsetof(struct cpu, mxcsr));
	g->fp = true;
}

void gen_vec_begin(struct gen *g, u32 rules)
{
	bool avx = rules & RULE_AVX;

	if (avx ? !g->avx : !g->sse)
		check_use(g, avx);
	if (avx)
		g->avx = true;
	else
		g->sse = true;
	if ((rules & RULE_MXCSR) && !g->fp)
		load_mxcsr(g);
}

static s32 vec_at(u8 n)
{
	return offsetof(struct cpu, fpu.ymm) + 32 * n;
}

/* MOVUPS, VMOVUPS */
static void move(struct gen *g, u8 op, u8 n, bool whole)
{
	if (whole)
		emit_vex_at(&g->c, (struct vex){.map = 1, .byte = op, .l = true}, n, CPU, vec_at(n));
	else
		emit_mem(&g->c, (struct opcode){4, 1, op}, n, CPU, NO_HOST, 0, vec_at(n));
}

void gen_vec_get(struct gen *g, u8 n, bool whole)
{
	if (!((whole ? g->ymm : g->xmm) & BIT(n)))
		move(g, 0x10, n, whole);
	g->xmm |= BIT(n);
	if (whole)
		g->ymm |= BIT(n);
}

void gen_vec_put(struct gen *g, u8 n, bool whole)
{
	move(g, 0x11, n, whole);
	g->xmm |= BIT(n);
	if (whole)
		g->ymm |= BIT(n);
}

void gen_vec_end(struct gen *g, bool fp)
{
	if (fp) {
		mxcsr_op(g, 3, offsetof(struct cpu, mxcsr));
		mxcsr_op(g, 2, offsetof(struct cpu, host_mxcsr));
	}
	if (g->avx)
		emit_bytes(&g->c, 0x77f8c5, 3); /* vzeroupper */
}
