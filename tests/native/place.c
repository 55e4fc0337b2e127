// SPDX-License-Identifier: MIT
/*
 * Operands of a case: where memory operands lie and the registers that lead there, and what
 * single instructions need so that they do not only fault.
 */
#include "gen.h"

#include "x86/bits.h"

#include <string.h>

/* ---- operands: the explicit memory operand ------------------------------------------------------ */

static void poke_at(struct native_case *c, u64 linear, const void *data, unsigned int len)
{
	struct poke *p = &c->pokes[c->nr_pokes];

	if (linear < DATA || linear >= DATA_END || c->nr_pokes == MAX_POKES)
		return;
	p->off = linear - DATA;
	p->len = MIN((u64)len, DATA_END - linear);
	memcpy(p->data, data, p->len);
	c->nr_pokes++;
}

static void poke_random(struct gen *g, struct native_case *c, u64 linear, unsigned int len)
{
	u8 data[LINE];

	len = MIN(len, sizeof(data));
	rnd_bytes(&g->r, data, len);
	poke_at(c, linear, data, len);
}

static void set_bytes(struct gen *g, unsigned int at, unsigned int n, u64 v)
{
	memcpy(g->b + at, &v, n);
}

static u64 base_of(const struct native_case *c, enum seg seg)
{
	switch (seg) {
	case SEG_FS:
		return c->in.fs_base;
	case SEG_GS:
		return c->in.gs_base;
	case SEG_CS:
		return selector_base(c->in.cs);
	case SEG_SS:
		return selector_base(c->in.ss);
	case SEG_ES:
		return selector_base(c->in.es);
	default:
		return selector_base(c->in.ds);
	}
}

static u64 segment_base(const struct native_case *c, const struct insn *i)
{
	return base_of(c, i->seg);
}

static u64 truncate_address(const struct insn *i, u64 v)
{
	return i->asz == 8 ? v : i->asz == 4 ? (u32)v : (u16)v;
}

/* The instruction's displacement becomes v, as far as it has room; i is decoded afresh. */
static void set_disp(struct gen *g, u64 v)
{
	set_bytes(g, g->disp_at, g->disp_size, v);
	if (insn_decode(&g->i, g->mode, g->b, 15) != DECODE_OK)
		g->i.len = 0;
}

/* Choose register values so that the effective address is `ea`. */
static void solve_registers(struct gen *g, struct native_case *c, u64 ea)
{
	struct insn *i = &g->i;
	u64 *reg = c->in.gpr;
	u64 index = i->index < 16 ? (below(&g->r, 2) ? below(&g->r, 64) : rnd_value(&g->r)) : 0;

	if (i->rm == GPR_RIP) {
		set_disp(g, ea - (c->in.rip + i->len));
		return;
	}
	if (i->rm == i->index && i->rm < 16) { /* both at once: the displacement must give way */
		reg[i->rm] = g->disp_size == 4 ? below(&g->r, 1u << 27) : ea >> (i->scale ?: 1);
		if (g->disp_size == 4)
			set_disp(g, ea - reg[i->rm] - (reg[i->rm] << i->scale));
		return;
	}
	if (i->rm == GPR_ZERO && i->index < 16) {
		index = (s64)below(&g->r, 1u << 24) - (1 << 23);
		reg[i->index] = index;
	} else if (i->index < 16) {
		reg[i->index] = index;
	}
	if (i->rm == GPR_ZERO)
		set_disp(g, ea - (index << i->scale));
	else
		reg[i->rm] = ea - (index << i->scale) - i->disp;
	if (i->asz < 8 && i->rm < 16 && below(&g->r, 2))
		reg[i->rm] += rnd(&g->r) << 8 * i->asz;
	if (i->asz < 8 && i->index < 16 && below(&g->r, 2))
		reg[i->index] += rnd(&g->r) << 8 * i->asz;
}

/* Gathers: small indices around the base, some far away. */
static void solve_vsib(struct gen *g, struct native_case *c, u64 ea)
{
	struct insn *i = &g->i;
	u8 *v = c->in.ymm[i->index & 15];
	bool q = i->opcode & 1;

	for (unsigned int k = 0; k < 32; k += q ? 8 : 4) {
		s64 n = (s64)below(&g->r, 128) - 64;

		if (one_in(&g->r, 40))
			n = rnd_value(&g->r);
		memcpy(v + k, &n, q ? 8 : 4);
	}
	if (i->rm < 16)
		c->in.gpr[i->rm] = ea - i->disp;
	else
		set_disp(g, ea);
}

static bool is_vsib(const struct insn *i)
{
	return insn_row(i)->opnd[1].kind == OPND_VSIB;
}

static bool is_bit_string(const struct insn *i)
{
	switch (insn_op(i)) {
	case OP_BT:
	case OP_BTS:
	case OP_BTR:
	case OP_BTC:
		return (i->flags & INSN_MEM) && insn_row(i)->opnd[1].kind == OPND_G;
	default:
		return false;
	}
}

/* AMD takes them misaligned, Intel does not (SDM 2B "SHA1MSG1"): aligned ones only. */
static bool is_sha(const struct insn *i)
{
	return insn_row(i)->cpuf == CPUF_SHA;
}

/* AMD wants the address canonical before the segment base is added, Intel only after (SDM 1 3.3.7.1). */
static bool is_canonical(u64 v)
{
	return (u64)((s64)(v << 16) >> 16) == v;
}

/*
 * Operands that the host reads in parts: across the last canonical address or a segment's limit
 * it finds the #PF of the first part before the #GP of the second. Not generated.
 */
static u64 no_split(const struct gen *g, u64 base, u64 linear, unsigned int size)
{
	u64 limit = g->mode == MODE_64 ? 1ull << 47 : 0x10000, reach = g->mode == MODE_64 ? 64 : 1024;

	if (size != 10 && insn_row(&g->i)->cls != CLASS_C)
		return linear;
	if (g->mode == MODE_64)
		base = 0;
	return linear - base < limit && linear - base + reach > limit ? linear - reach : linear;
}

/* Across 4 GiB with a limit of 4 GiB: #GP or not, SDM 3A 5.3 leaves it open. */
static u64 no_wrap(const struct gen *g, u64 base, u64 linear, unsigned int size)
{
	bool wraps = (u32)(linear - base) > -(u32)(size + LINE);

	return g->mode != MODE_64 && wraps ? linear - 4096 : linear;
}

static void place_memory(struct gen *g, struct native_case *c)
{
	struct insn *i = &g->i;
	unsigned int size = insn_mem_size(i) ?: 1;
	unsigned int align = insn_row(i)->rules & RULE_ALIGN ? size : 1;
	u64 linear, ea;

	if (!(i->flags & INSN_MEM))
		return;
	linear = rnd_address(&g->r, size);
	if (below(&g->r, 8) || is_sha(i))
		linear &= ~(align - 1ull);
	if (!is_canonical(linear - segment_base(c, i)))
		linear = DATA + 64 * below(&g->r, 200);
	if (insn_op(i) == OP_FXSAVE || insn_op(i) == OP_FXRSTOR)
		linear &= below(&g->r, 8) ? ~15ull : ~0ull;
	if (insn_row(i)->opnd[0].size == SZ_xs)
		linear &= below(&g->r, 8) ? ~63ull : ~0ull;
	if (is_bit_string(i))
		c->in.gpr[i->reg] = below(&g->r, 8) ? (u64)below(&g->r, 32768) - 16384
						    : rnd_value(&g->r);
	linear = no_wrap(g, segment_base(c, i), linear, size);
	ea = truncate_address(i, linear - segment_base(c, i));
	linear = no_split(g, segment_base(c, i), segment_base(c, i) + ea, size);
	ea = linear - segment_base(c, i);
	if (i->flags & INSN_MOFFS) {
		set_bytes(g, i->len - i->asz, i->asz, ea);
		if (insn_decode(i, g->mode, g->b, 15) != DECODE_OK)
			i->len = 0;
	} else if (is_vsib(i)) {
		solve_vsib(g, c, ea);
	} else {
		solve_registers(g, c, ea);
	}
	poke_random(g, c, linear, size);
}

/*
 * Outside 64-bit mode: FS and GS are null selectors there, CS is not to be written, and in 16-bit
 * mode it does not reach the window.
 */
static bool always_faults(const struct gen *g)
{
	u8 seg = g->i.seg;

	if (g->mode == MODE_64)
		return false;
	return seg == SEG_FS || seg == SEG_GS ||
		(seg == SEG_CS && (g->mode == MODE_16 || insn_op(&g->i) != OP_CMPS));
}

/* ---- operands that no ModRM byte names ------------------------------------------------------- */

static u64 string_address(struct gen *g, u64 base)
{
	u64 a = no_wrap(g, base, rnd_address(&g->r, 8), 8);

	return a < 1ull << 47 && a + 16 > 1ull << 47 ? a - 4096 : a; /* as splits_at_canonical */
}

static void place_strings(struct gen *g, struct native_case *c)
{
	struct insn *i = &g->i;
	u64 base = segment_base(c, i), es = base_of(c, SEG_ES);
	u64 si = string_address(g, base), di = string_address(g, es);
	u64 *reg = c->in.gpr;

	/* CMPS reads both, the manuals do not say in which order: one at most is bad */
	if (insn_op(i) == OP_CMPS) {
		c->in.rflags &= ~EFL_AC;
		*(always_faults(g) || below(&g->r, 2) ? &di : &si) = DATA + PAGE_SIZE + below(&g->r, 2 * PAGE_SIZE);
	}
	if (!is_canonical(si - base))
		si = DATA;
	reg[GPR_RSI] = truncate_address(i, si - base);
	reg[GPR_RDI] = g->mode == MODE_64 ? di : truncate_address(i, di - es);
	if (insn_op(i) != OP_CMPS && one_in(&g->r, 4)) /* overlapping */
		reg[GPR_RDI] = reg[GPR_RSI] + below(&g->r, 64) - 32;
	if (one_in(&g->r, 3)) { /* the runs of equal bytes */
		reg[GPR_RSI] = truncate_address(i, DATA + below(&g->r, 16) * 1024 + below(&g->r, 256) - base);
		reg[GPR_RDI] = DATA + (5 + below(&g->r, 11)) * 1024 + below(&g->r, 256) - es; /* not both to an end */
	}
	if (i->flags & (INSN_REP | INSN_REPNE))
		reg[GPR_RCX] = below(&g->r, 8) ? below(&g->r, 40) : below(&g->r, 4096 / i->osz);
	if (i->asz < 8 && below(&g->r, 2)) {
		reg[GPR_RSI] += rnd(&g->r) << 8 * i->asz;
		reg[GPR_RDI] += rnd(&g->r) << 8 * i->asz;
		reg[GPR_RCX] += rnd(&g->r) << 8 * i->asz;
	}
	c->in.rflags ^= below(&g->r, 3) ? 0 : EFL_DF;
	if (below(&g->r, 2))
		memset(&reg[GPR_RAX], reg[GPR_RDI] / 1024, 8);
}

static u64 rnd_selector_value(struct gen *g)
{
	return rnd_selector(&g->r) | (below(&g->r, 2) ? 0 : rnd(&g->r) << 16);
}

/* Return addresses and far frames: what RSP points at. */
static void place_stack(struct gen *g, struct native_case *c)
{
	static const u16 code[] = {SEL_CODE64, SEL_CODE64, SEL_CODE64, SEL_CODE32, SEL_FLAT, 0};
	unsigned int size = g->i.osz, k;
	u64 frame[5];
	u8 raw[40];

	frame[0] = insn_row(&g->i)->opnd[0].kind == OPND_FIXSEG ? rnd_selector_value(g) : rnd_target(&g->r);
	frame[1] = one_in(&g->r, 6) ? rnd_selector(&g->r) : code[below(&g->r, 6)];
	frame[2] = rnd(&g->r) & 0x254fd5;
	frame[3] = rnd_address(&g->r, 8);
	frame[4] = one_in(&g->r, 6) ? rnd_selector(&g->r) : SEL_FLAT;
	if (size == 4 && below(&g->r, 2))
		frame[0] = (u32)frame[0];
	for (k = 0; k < 5; k++)
		memcpy(raw + k * size, &frame[k], size);
	poke_at(c, base_of(c, SEG_SS) + c->in.gpr[GPR_RSP], raw, 5 * size);
}

static void place_far(struct gen *g, struct native_case *c)
{
	static const u16 code[] = {SEL_CODE64, SEL_CODE64, SEL_CODE64, SEL_CODE32, SEL_FLAT, 0};
	struct poke *p = c->nr_pokes ? &c->pokes[c->nr_pokes - 1] : NULL;
	u64 target = rnd_target(&g->r);
	u16 sel = one_in(&g->r, 4) ? rnd_selector(&g->r) : code[below(&g->r, 6)];

	/* a call to 64-bit code pushes without SS's base on AMD, as if already there; SDM 2A does not say */
	if (g->mode == MODE_16 && insn_op(&g->i) == OP_CALL_FAR && sel >> 3 == SEL_CODE64 >> 3)
		sel = SEL_CODE32;
	if (!p || p->len < g->i.osz + 2)
		return;
	memcpy(p->data, &target, g->i.osz);
	memcpy(p->data + g->i.osz, &sel, 2);
}

/* The operand, if there is one, becomes the selector or the branch target that is wanted. */
static void set_first_source(struct gen *g, struct native_case *c, unsigned int k, u64 v)
{
	struct insn *i = &g->i;
	struct poke *p = c->nr_pokes ? &c->pokes[c->nr_pokes - 1] : NULL;
	unsigned int size = insn_opnd_size(i, k);

	if (!(i->flags & INSN_MEM))
		c->in.gpr[i->rm & 15] = v;
	else if (p && p->len >= size)
		memcpy(p->data, &v, MIN(size, 8));
}

/* Of 16 bits, every 65,536th is the instruction itself: it would never end. */
static u64 near_target(struct gen *g, const struct native_case *c)
{
	u64 target = rnd_target(&g->r);

	return g->mode == MODE_16 && (u16)target == c->in.rip ? target + 64 : target;
}

/* Branches by displacement: out of the page, back into HLT, never onto themselves. */
static void place_branch(struct gen *g, struct native_case *c, unsigned int size)
{
	struct insn *i = &g->i;
	s64 d = (s8)rnd(&g->r);

	(void)c;
	if (size > 1 && below(&g->r, 2))
		d = (s32)rnd(&g->r) / 2;
	if (size == 2)
		d = (s16)d;
	if (d < 0 && d > -24)
		d -= 24;
	set_bytes(g, i->len - size, size, d);
	if (insn_decode(i, g->mode, g->b, 15) != DECODE_OK)
		i->len = 0;
}

static void place_division(struct gen *g, struct native_case *c)
{
	u64 *reg = c->in.gpr;
	unsigned int size = insn_opnd_size(&g->i, 0);

	switch (below(&g->r, 4)) {
	case 0:
		return;
	case 1:
		reg[GPR_RDX] = insn_op(&g->i) == OP_IDIV ? (u64)(sext(reg[GPR_RAX], size) >> 63) : 0;
		if (size == 1)
			reg[GPR_RAX] = (s64)(s8)reg[GPR_RAX];
		return;
	default: /* a high half smaller than most divisors */
		reg[GPR_RDX] = zext(rnd(&g->r), size) >> (8 + below(&g->r, 8 * size - 8 + 1));
		if (size == 1)
			reg[GPR_RAX] = below(&g->r, 0x1000);
	}
}

/* Half of all CMPXCHG find what they look for. */
static void place_compare(struct gen *g, struct native_case *c)
{
	struct insn *i = &g->i;
	struct poke *p = c->nr_pokes ? &c->pokes[c->nr_pokes - 1] : NULL;
	unsigned int size = insn_opnd_size(i, 0), half = size > 8 ? 8 : size;

	if (below(&g->r, 2))
		return;
	if (!(i->flags & INSN_MEM)) {
		c->in.gpr[GPR_RAX] = c->in.gpr[i->rm];
	} else if (p && p->len == size) {
		if (insn_op(i) == OP_CMPXCHG8B)
			half = 4;
		memcpy(&c->in.gpr[GPR_RAX], p->data, half);
		if (size > half)
			memcpy(&c->in.gpr[GPR_RDX], p->data + half, half);
	}
}

/* XSAVE and kin: components that guest and host both have; an area that XRSTOR accepts. */
static void place_xsave(struct gen *g, struct native_case *c)
{
	struct poke *p = c->nr_pokes ? &c->pokes[0] : NULL;
	u64 header[8] = {below(&g->r, 8)};
	u8 fx[64];
	u32 mxcsr = rnd_mxcsr(&g->r);

	c->in.gpr[GPR_RAX] = (c->in.gpr[GPR_RAX] & ~0xffffffffull) | below(&g->r, 8);
	c->in.gpr[GPR_RDX] &= ~0xffffffffull;
	if (!p)
		return;
	memset(fx, 0, sizeof(fx));
	fx[0] = 0x7f;
	fx[1] = 3;
	memcpy(fx + 24, &mxcsr, 4);
	memset(fx + 28, 0xff, 2);
	memcpy(p->data, fx, sizeof(fx));
	p->len = MIN(64u, DATA_SIZE - p->off);
	if (below(&g->r, 3) == 0)
		header[1] = one_in(&g->r, 2) ? rnd(&g->r) : 1ull << 63 | below(&g->r, 8);
	if (one_in(&g->r, 16))
		header[below(&g->r, 8)] = rnd(&g->r);
	poke_at(c, DATA + p->off + 512, header, sizeof(header));
}

/*
 * Whether bytes that are not selected fault is left open (SDM 2B "MASKMOVDQU"): addresses that
 * fault only with all bytes selected.
 */
static void place_maskmov(struct gen *g, struct native_case *c)
{
	struct insn *i = &g->i;
	u64 linear = DATA + below(&g->r, DATA_RW * PAGE_SIZE - 16);
	bool faults = (i->asz == 2 && g->mode == MODE_32) || always_faults(g);
	unsigned int top = c->in.fx[3] >> 3 & 7;

	c->in.rflags &= ~EFL_AC;
	if (faults || one_in(&g->r, 4)) {
		linear = rnd_address(&g->r, 16);
		if (!is_canonical(linear - segment_base(c, i)))
			linear = DATA_END - below(&g->r, 16);
		memset(c->in.ymm[i->rm], 0xff, 16);
		memset(c->in.fx + 32 + 16 * ((i->rm - top) & 7), 0xff, 8);
	}
	c->in.gpr[GPR_RDI] = truncate_address(i, linear - segment_base(c, i));
}

static void place_implicit(struct gen *g, struct native_case *c)
{
	struct insn *i = &g->i;
	u64 *reg = c->in.gpr, linear;

	switch (insn_op(i)) {
	case OP_MOVS: case OP_CMPS: case OP_STOS: case OP_LODS: case OP_SCAS: case OP_INS: case OP_OUTS:
		place_strings(g, c);
		break;
	case OP_XLAT:
		linear = rnd_address(&g->r, 1);
		if (!is_canonical(linear - segment_base(c, i)))
			linear = DATA;
		reg[GPR_RBX] = truncate_address(i, linear - (u8)reg[GPR_RAX] - segment_base(c, i));
		break;
	case OP_MASKMOVQ: case OP_MASKMOVDQU: case OP_VMASKMOVDQU:
		place_maskmov(g, c);
		break;
	case OP_RET: case OP_RET_FAR: case OP_IRET: case OP_POP: case OP_POPF:
		place_stack(g, c);
		break;
	case OP_ENTER:
	case OP_LEAVE:
		linear = base_of(c, SEG_SS);
		reg[GPR_RBP] = no_wrap(g, linear, rnd_address(&g->r, 8), 8) - linear;
		break;
	case OP_JMP: case OP_CALL:
		if (insn_row(i)->opnd[0].kind == OPND_E)
			set_first_source(g, c, 0, near_target(g, c));
		break;
	case OP_CALL_FAR: /* a 32-bit target's pushes already use ESP on AMD; SDM 2A "CALL" does not say */
		reg[GPR_RSP] = (u32)reg[GPR_RSP];
		if (g->mode != MODE_64 && reg[GPR_RSP] < 8) /* no_wrap(): an AMD host may never end it */
			reg[GPR_RSP] += 4096;
		place_far(g, c);
		break;
	case OP_JMP_FAR:
	case OP_LSS: case OP_LFS: case OP_LGS: case OP_LDS: case OP_LES:
		place_far(g, c);
		break;
	case OP_MOV_SREG: case OP_LAR: case OP_LSL:
		set_first_source(g, c, 1, rnd_selector_value(g));
		break;
	case OP_VERR: case OP_VERW:
		set_first_source(g, c, 0, rnd_selector_value(g));
		break;
	case OP_DIV: case OP_IDIV:
		place_division(g, c);
		break;
	case OP_CMPXCHG: case OP_CMPXCHG8B: case OP_CMPXCHG16B:
		place_compare(g, c);
		break;
	case OP_LDMXCSR: case OP_VLDMXCSR: /* bit 17, misaligned SSE, is not part of our processor */
		if (c->nr_pokes)
			c->pokes[0].data[2] &= ~2;
		break;
	case OP_LOOP: case OP_LOOPE: case OP_LOOPNE: case OP_JCXZ:
		reg[GPR_RCX] = below(&g->r, 2) ? below(&g->r, 3) : reg[GPR_RCX];
		break;
	case OP_XSAVE: case OP_XSAVEC: case OP_XSAVEOPT: case OP_XRSTOR: case OP_FXRSTOR:
		place_xsave(g, c);
		break;
	default:
		break;
	}
}
static unsigned int branch_bytes(const struct insn *i)
{
	const struct operand *o = &insn_row(i)->opnd[0];

	return o->kind != OPND_J ? 0 : o->size == SZ_b ? 1 : MIN(i->osz, 4);
}

void place_operands(struct gen *g, struct native_case *c)
{
	place_memory(g, c);
	place_implicit(g, c);
	if (branch_bytes(&g->i))
		place_branch(g, c, branch_bytes(&g->i));
}
