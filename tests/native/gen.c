// SPDX-License-Identifier: MIT
/*
 * Bytes of a case: prefixes, opcode, ModRM of a row, until the decoder finds that row in them;
 * then registers and memory under which most of the cases retire (place.c).
 */
#include "gen.h"

#include "x86/bits.h"
#include "x86/rows.h"

#include <string.h>

/* ---- bytes: prefixes ----------------------------------------------------------------------- */

static void put(struct gen *g, u8 v)
{
	g->b[g->n++] = v;
}

static unsigned int nth_bit(u32 set, unsigned int k)
{
	for (; k; k--)
		set &= set - 1;
	return __builtin_ctz(set);
}

/* A mandatory prefix that the row allows, as 0..3; where any goes, mostly none. */
static unsigned int choose_pp(struct gen *g)
{
	u32 set = SEL_PP(g->sel);

	if (!set) {
		if (below(&g->r, 4))
			return 0;
		return below(&g->r, 4) ? 1 : 2 + below(&g->r, 2);
	}
	return nth_bit(set, below(&g->r, __builtin_popcount(set)));
}

static void shuffle(struct gen *g)
{
	for (unsigned int k = g->n; k > 1; k--) {
		unsigned int j = below(&g->r, k);
		u8 t = g->b[k - 1];

		g->b[k - 1] = g->b[j];
		g->b[j] = t;
	}
}

static void put_segment(struct gen *g)
{
	static const u8 prefix[] = {0x64, 0x65, 0x64, 0x65, 0x26, 0x2e, 0x36, 0x3e};

	if (one_in(&g->r, g->mem ? 5 : 20))
		put(g, prefix[below(&g->r, sizeof(prefix))]);
}

static void put_67(struct gen *g)
{
	g->p67 = one_in(&g->r, g->mem ? 8 : 25);
	if (g->p67)
		put(g, 0x67);
}

static void put_prefixes(struct gen *g)
{
	static const u8 prefix[] = {0, 0x66, 0xf3, 0xf2};
	unsigned int pp = choose_pp(g);

	if (g->row->rules & RULE_REP)
		pp = below(&g->r, 4);
	if (pp)
		put(g, prefix[pp]);
	if (pp > 1 && one_in(&g->r, 5))
		put(g, 0x66);
	put_67(g);
	put_segment(g);
	if (one_in(&g->r, g->mem && (g->row->rules & RULE_LOCK) ? 3 : 200))
		put(g, 0xf0);
	shuffle(g);
	if (g->mode == MODE_64 && below(&g->r, 8) > 2)
		put(g, 0x40 | below(&g->r, 16));
}

/* rules that the decoder enforces are broken now and then: #UD on both sides */
static void put_vex(struct gen *g)
{
	u32 rules = g->row->rules;
	unsigned int r = below(&g->r, 8), pp = nth_bit(SEL_PP(g->sel) ?: 1, 0);
	unsigned int l = below(&g->r, 2), w = below(&g->r, 2), vvvv = below(&g->r, 16);

	if (one_in(&g->r, g->mem ? 5 : 20))
		put(g, one_in(&g->r, 2) ? 0x64 : 0x65);
	put_67(g);
	if (g->mode != MODE_64) { /* else C4, C5 are LES and LDS */
		r |= 6;
		vvvv |= 8;
	}
	if (below(&g->r, 100)) {
		l = rules & RULE_VL0 ? 0 : rules & RULE_VL1 ? 1 : l;
		w = rules & RULE_W0 ? 0 : rules & RULE_W1 ? 1 : w;
		vvvv = rules & RULE_NOVVVV ? 15 : vvvv;
	}
	if (g->map == MAP_V0F && !w && below(&g->r, 2)) {
		put(g, 0xc5);
		put(g, (g->mode != MODE_64 || (r & 1)) << 7 | vvvv << 3 | l << 2 | pp);
		return;
	}
	put(g, 0xc4);
	put(g, r << 5 | (g->map - 4));
	put(g, w << 7 | vvvv << 3 | l << 2 | pp);
}

/* ---- bytes: ModRM ---------------------------------------------------------------------------- */

static bool needs_modrm(const struct gen *g)
{
	static const u64 kinds = BIT(OPND_E) | BIT(OPND_G) | BIT(OPND_M) | BIT(OPND_R) | BIT(OPND_S) |
		BIT(OPND_C) | BIT(OPND_D) | BIT(OPND_V) | BIT(OPND_W) | BIT(OPND_U) | BIT(OPND_P) |
		BIT(OPND_Q) | BIT(OPND_N) | BIT(OPND_ST) | BIT(OPND_VSIB);

	for (unsigned int k = 0; k < ARRAY_SIZE(g->row->opnd); k++)
		if (kinds >> g->row->opnd[k].kind & 1)
			return true;
	return SEL_G(g->sel) || SEL_RM(g->sel) || (g->sel & (SEL_MEM | SEL_REG));
}

/* Memory form, or one with registers only? */
static bool wants_memory(struct gen *g)
{
	bool may = false;

	if (g->sel & (SEL_MEM | SEL_REG))
		return g->sel & SEL_MEM;
	for (unsigned int k = 0; k < ARRAY_SIZE(g->row->opnd); k++) {
		switch (g->row->opnd[k].kind) {
		case OPND_M:
		case OPND_VSIB:
		case OPND_O:
			return true;
		case OPND_E:
		case OPND_W:
		case OPND_Q:
			may = true;
			break;
		}
	}
	return may && below(&g->r, 5) < 3;
}

static void put_disp(struct gen *g, unsigned int size)
{
	u64 v = rnd_value(&g->r);

	g->disp_at = g->n;
	g->disp_size = size;
	for (; size; size--, v >>= 8)
		put(g, v);
}

/* SDM 2A table 2-1 */
static void put_memory16(struct gen *g, unsigned int reg)
{
	unsigned int mod = below(&g->r, 3), rm = SEL_RM(g->sel) ? SEL_RM(g->sel) - 1 : below(&g->r, 8);

	put(g, mod << 6 | reg << 3 | rm);
	if (mod == 1)
		put_disp(g, 1);
	else if (mod == 2 || rm == 6)
		put_disp(g, 2);
}

static void put_memory(struct gen *g, unsigned int reg)
{
	bool vsib = false;
	unsigned int mod = below(&g->r, 3), rm = below(&g->r, 8), sib = 0;

	for (unsigned int k = 0; k < ARRAY_SIZE(g->row->opnd); k++)
		vsib |= g->row->opnd[k].kind == OPND_VSIB;
	if (SEL_RM(g->sel))
		rm = SEL_RM(g->sel) - 1;
	else if (vsib || one_in(&g->r, 4))
		rm = 4;
	put(g, mod << 6 | reg << 3 | rm);
	if (rm == 4) {
		sib = rnd(&g->r);
		put(g, sib);
	}
	if (mod == 1)
		put_disp(g, 1);
	else if (mod == 2 || rm == 5 || (rm == 4 && (sib & 7) == 5))
		put_disp(g, 4);
}

static void put_modrm(struct gen *g)
{
	unsigned int reg = SEL_G(g->sel) ? SEL_G(g->sel) - 1 : below(&g->r, 8);
	unsigned int rm = SEL_RM(g->sel) ? SEL_RM(g->sel) - 1 : below(&g->r, 8);

	if (!g->has_modrm)
		return;
	if (g->mem && g->mode != MODE_64 && g->p67 == (g->mode == MODE_32))
		put_memory16(g, reg);
	else if (g->mem)
		put_memory(g, reg);
	else
		put(g, 0xc0 | reg << 3 | rm);
}

static void put_opcode(struct gen *g)
{
	switch (g->map) {
	case MAP_L3A:
	case MAP_L38:
		put(g, 0x0f);
		put(g, g->map == MAP_L38 ? 0x38 : 0x3a);
		break;
	case MAP_L0F:
		put(g, 0x0f);
		break;
	}
	put(g, g->opcode + (g->sel & SEL_X8 ? below(&g->r, 8) : g->sel & SEL_X16 ? below(&g->r, 16) : 0));
}

/* The row before those which the decoder only steps to. */
static void set_row(struct gen *g, u32 row)
{
	g->row = &insn_rows[row];
	while (insn_sels[row].sel & SEL_NEXT)
		row--;
	g->sel = insn_sels[row].sel;
	g->map = insn_sels[row].map;
	g->opcode = insn_sels[row].opcode;
}

static enum decode_result make_bytes(struct gen *g)
{
	u64 tail;

	g->n = g->disp_size = 0;
	g->mem = wants_memory(g);
	g->has_modrm = needs_modrm(g);
	if (g->map >= MAP_V0F)
		put_vex(g);
	else
		put_prefixes(g);
	put_opcode(g);
	put_modrm(g);
	for (unsigned int k = 0; k < 2 && g->n <= 24; k++, g->n += 8) {
		tail = rnd_value(&g->r);
		memcpy(g->b + g->n, &tail, 8);
	}
	return insn_decode(&g->i, g->mode, g->b, 15);
}
/* ---- the whole case ------------------------------------------------------------------------------ */

static u64 rnd_flags(struct gen *g)
{
	u64 v = 0x202 | (rnd(&g->r) & EFL_ARITH);

	if (one_in(&g->r, 16))
		v |= EFL_DF;
	if (one_in(&g->r, 24))
		v |= EFL_AC;
	return v;
}

static bool is_dot_product(unsigned int op)
{
	return op == OP_DPPS || op == OP_DPPD || op == OP_VDPPS || op == OP_VDPPD;
}

/* no_wrap(): neither pops nor pushes across 4 GiB. */
static u64 stack_offset(u64 linear, u64 base)
{
	u32 v = linear - base;

	if (v > 0xfffff000)
		v -= 4096;
	return v < 64 ? v & ~7u : v;
}

/* Compatibility mode: DS and ES are loaded, upper halves are undefined and 0 here. */
static void to_32_bits(struct mstate *s)
{
	for (unsigned int n = 0; n < 16; n++)
		s->gpr[n] = n < 8 ? (u32)s->gpr[n] : 0;
	s->fs_base = (u32)s->fs_base & 0x7fffffff;
	s->gs_base = (u32)s->gs_base & 0x7fffffff;
	s->cs = SEL_CODE32;
	s->ds = s->es = SEL_FLAT;
}

static void to_16_bits(struct mstate *s)
{
	s->cs = SEL_CODE_B; /* or A: choose_place */
	s->ds = s->es = SEL_WINDOW;
	s->ss = SEL_STACK;
}

static void rnd_state(struct gen *g, struct native_case *c)
{
	static const u64 bases[] = {0, 0, 0x1000, 0x7ff0, 0x30000001, 0xfffffffff0000000};
	u32 rules = insn_row(&g->i)->rules;
	struct mstate *s = &c->in;

	for (unsigned int n = 0; n < 16; n++)
		s->gpr[n] = rnd_value(&g->r);
	s->gpr[GPR_RSP] = below(&g->r, 16) ? (rnd_address(&g->r, 8) & ~7ull) : rnd_address(&g->r, 8);
	if (below(&g->r, 2))
		s->gpr[GPR_RCX] = (s->gpr[GPR_RCX] & ~0xffull) | below(&g->r, 72); /* shift counts */
	s->rflags = rnd_flags(g);
	s->fs_base = bases[below(&g->r, ARRAY_SIZE(bases))];
	s->gs_base = bases[below(&g->r, ARRAY_SIZE(bases))];
	s->cs = SEL_CODE64;
	s->ss = SEL_FLAT;
	if (g->mode != MODE_64)
		to_32_bits(s);
	if (g->mode == MODE_16)
		to_16_bits(s);
	if (g->mode != MODE_64)
		s->gpr[GPR_RSP] = stack_offset(s->gpr[GPR_RSP], selector_base(s->ss));
	s->mxcsr = rules & (RULE_SSE | RULE_AVX) || insn_row(&g->i)->cls == CLASS_C
		? rnd_mxcsr(&g->r) : 0x1f80;
	s->mxcsr |= is_dot_product(insn_op(&g->i)) ? 0x1f80 : 0x800; /* DIFFERS: native_run.c */
	if (insn_row(&g->i)->cpuf == CPUF_FXSR) /* misaligned: #AC or #GP, SDM 2A "FXSAVE" */
		s->rflags &= ~EFL_AC;
	memset(s->fx, 0, sizeof(s->fx));
	s->fx[0] = 0x7f;
	s->fx[1] = 3;
	if (rules & (RULE_X87 | RULE_MMX) || insn_row(&g->i)->cpuf == CPUF_XSAVE ||
		insn_row(&g->i)->cpuf == CPUF_FXSR || insn_op(&g->i) == OP_FWAIT || one_in(&g->r, 64))
		rnd_x87(&g->r, s);
	/* CVTPI2PS from memory: #MF is pending for Intel (SDM 2A), not for AMD (APM 4) */
	if (insn_op(&g->i) == OP_CVTPI2PS && (s->fx[2] & 0x80))
		memset(s->fx + 2, 0, 22);
	if (rules & (RULE_SSE | RULE_AVX) || one_in(&g->r, 16) || insn_row(&g->i)->cls == CLASS_C)
		rnd_vectors(&g->r, s);
	else
		memset(s->ymm, 0x5a, sizeof(s->ymm));
}

/* At the end of page A, or anywhere in B, most often across its middle. */
static void choose_place(struct gen *g, struct native_case *c)
{
	if (!c->decodes) /* its length is not known: anything may follow */
		c->in.rip = CODE_B + 256 + below(&g->r, 4096);
	else if (below(&g->r, 4))
		c->in.rip = CODE_A + PAGE_SIZE - g->i.len;
	else if (below(&g->r, 2))
		c->in.rip = CODE_B + PAGE_SIZE - below(&g->r, g->i.len);
	else
		c->in.rip = CODE_B + 256 + below(&g->r, 4096);
	if (g->mode != MODE_16)
		return;
	c->in.cs = c->in.rip < CODE_B ? SEL_CODE_A : SEL_CODE_B;
	c->in.rip -= selector_base(c->in.cs);
}

static void finish(struct gen *g, struct native_case *c)
{
	memset(&c->in, 0, sizeof(c->in));
	c->nr_pokes = 0;
	rnd_state(g, c);
	choose_place(g, c);
	if (c->decodes)
		place_operands(g, c);
	if (g->mode != MODE_64)
		for (unsigned int n = 0; n < 16; n++)
			c->in.gpr[n] = (u32)c->in.gpr[n];
	c->len = g->i.len;
	memcpy(c->code, g->b, 16);
	c->road = below(&g->r, NR_RUNS);
}

/* Bytes that break one rule of their row (VEX.L, W, vvvv, LOCK): must be #UD on both sides. */
static bool is_broken(struct gen *g, enum decode_result r)
{
	switch (g->row->op) {
	/* with VEX.L they are VAES and VPCLMULQDQ, which the host may have */
	case OP_VAESENC: case OP_VAESENCLAST: case OP_VAESDEC: case OP_VAESDECLAST: case OP_VPCLMULQDQ:
	/* AMD ignores VEX.W here (W0 is #UD in SDM 2C) */
	case OP_VPERMQ: case OP_VPERMPD:
	/* AMD looks at their LOCK after it has found the operand */
	case OP_VERR: case OP_VERW: case OP_LAR: case OP_LSL:
		return false;
	}
	return r == DECODE_UD && g->i.len >= 2 && g->i.len <= 15 && one_in(&g->r, 4);
}

static bool vex_w(const struct gen *g)
{
	const u8 *vex = memchr(g->b, 0xc4, 8);

	return vex && (vex[2] & 0x80);
}

static bool is_xsave_mask(u8 reg)
{
	return reg == GPR_RAX || reg == GPR_RDX;
}

/* Rows whose operand must be exactly where it is put: SHA, FXSAVE, XSAVE, LDMXCSR. */
static bool wants_place(const struct insn_row *row)
{
	return row->op == OP_LDMXCSR || row->op == OP_VLDMXCSR || row->cpuf == CPUF_SHA || row->opnd[0].size == SZ_fx || row->opnd[0].size == SZ_xs;
}

/*
 * Not generated, because AMD and Intel differ and our guest follows Intel whatever its host:
 *   66 before a near branch (APM 3 1.2.7: RIP is cut to 16 bits; SDM 2A 2.1.1: ignored)
 *   LOCK MOV CR (APM 3 "MOV CRn": another way to CR8)
 *   MOVSXD r16, memory (AMD reads 4 bytes, Intel 2: SDM 2B "MOVSXD")
 *   VPINSRD, VPEXTRD with W1 outside 64-bit mode (APM 4: #UD; SDM 2B: as W0)
 *   far pointers in memory with REX.W (AMD reads m16:32, Intel m16:64: SDM 2A "JMP")
 * or because the prefix is reserved there: F2, F3 before LOOPcc (SDM 2A 2.1.1).
 * INT 80 would enter the host's kernel. XSAVE's mask EDX:EAX and SHA's alignment (below) leave
 * no freedom for some addresses, 16-bit ones outside 64-bit mode among them.
 */
static bool is_vendor_matter(const struct gen *g)
{
	u32 rules = g->row->rules;

	switch (g->row->op) {
	case OP_LOOPE:
	case OP_LOOPNE:
		if (g->i.flags & (INSN_REP | INSN_REPNE))
			return true;
		break;
	case OP_VPINSRD:
	case OP_VPEXTRD:
		if (g->mode != MODE_64 && vex_w(g))
			return true;
		break;
	case OP_JMP_FAR: case OP_CALL_FAR: case OP_LSS: case OP_LFS: case OP_LGS:
		if (g->i.flags & INSN_W)
			return true;
		break;
	case OP_MOVSXD:
		if (g->i.osz == 2 && (g->i.flags & INSN_MEM))
			return true;
		break;
	case OP_INT:
		if ((u8)g->i.imm == 0x80)
			return true;
		break;
	case OP_MOV_CR:
		if (memchr(g->b, 0xf0, 8))
			return true;
		break;
	}
	/* as in place_far */
	if (g->mode == MODE_16 && g->row->op == OP_CALL_FAR && g->row->opnd[0].kind == OPND_A &&
		(g->i.imm2 & ~7) == (SEL_CODE64 & ~7))
		return true;
	if (g->row->opnd[0].size == SZ_xs && (is_xsave_mask(g->i.rm) || is_xsave_mask(g->i.index)))
		return true;
	if (g->row->op == OP_CMPS && g->i.asz == 2 && g->mode == MODE_32) /* both operands below 64 KiB: see place_strings */
		return true;
	if (wants_place(g->row) && ((g->i.rm == g->i.index && g->i.rm < 16) || (g->i.asz == 2 && g->mode == MODE_32)))
		return true;
	return (rules & RULE_F64) && (rules & RULE_BRANCH) && (g->i.flags & INSN_66) &&
		!(g->i.flags & INSN_W);
}

/* Operands that no ModRM names are at ESI, EDI and EBX. */
static bool implicit_wraps_4g(const struct gen *g, const struct native_case *c)
{
	const u64 *r = c->in.gpr;

	switch (insn_op(&g->i)) {
	case OP_MOVS: case OP_CMPS: case OP_STOS: case OP_LODS: case OP_SCAS: case OP_INS: case OP_OUTS:
	case OP_XLAT: case OP_MASKMOVQ: case OP_MASKMOVDQU: case OP_VMASKMOVDQU:
		return (u32)r[GPR_RSI] > 0xffffff00 || (u32)r[GPR_RDI] > 0xffffff00 ||
			(u32)r[GPR_RBX] > 0xffffff00;
	default:
		return false;
	}
}

/* An operand across 4 GiB when the limit is 4 GiB: #GP or not, SDM 3A 5.3 leaves it open. */
static bool wraps_4g(const struct gen *g, const struct native_case *c)
{
	const struct insn *i = &g->i;
	u32 ea = i->disp;

	if (g->mode == MODE_64 || !c->decodes || i->asz != 4)
		return false;
	if (!(i->flags & INSN_MEM))
		return implicit_wraps_4g(g, c);
	if (i->rm < 8)
		ea += c->in.gpr[i->rm];
	if (i->index < 8)
		ea += c->in.gpr[i->index] << i->scale;
	return ea > 0xffffff00;
}

bool gen_case(struct native_case *c, u32 row, u64 seed, enum insn_mode mode)
{
	struct gen g = {.r = {.s = seed}, .mode = mode};
	enum decode_result r;
	unsigned int k;

	set_row(&g, row);
	c->seed = seed;
	c->row = row;
	c->mode = mode;
	for (k = 0; k < 400; k++) {
		r = make_bytes(&g);
		c->decodes = r == DECODE_OK && g.i.row == row;
		if ((!c->decodes && !is_broken(&g, r)) || is_vendor_matter(&g))
			continue;
		finish(&g, c);
		if (c->len && !wraps_4g(&g, c) && (!c->decodes || insn_row(&g.i) == g.row))
			return true;
	}
	return false;
}
