// SPDX-License-Identifier: MIT
/*
 * The instruction decoder: bytes to struct insn (SDM 2A chapter 2). It finds the row of
 * insns.def, the fields that say where the operands are, and every #UD that depends on the
 * bytes and the mode alone. It knows no CPUID bit, privilege or control register.
 *
 * From bytes to row: first[map][opcode] is a row or, if more than the opcode decides, a
 * split by mandatory prefix, ModRM.reg and "mod is 3"; a few of those split again by
 * ModRM.rm. The maps are filled from the selectors once, before main().
 */
#include <string.h>

#include "x86/rows.h"

/* ---- the maps ------------------------------------------------------------------------ */

/* Opcode maps as the decoder indexes them: the one-byte map differs outside 64-bit mode. */
enum {
	MAP_ONE32 = 4,
	MAP_W1 = 4, /* distance from a VEX map to the same with VEX.W = 1; bits 1:0 are insn.map */
	NR_MAPS = MAP_V3A + MAP_W1 + 1,
};

#define SPLIT	   0x8000 /* first[]: index into split[] */
#define SPLIT_RM   0x4000 /* split[]: index into split_rm[] */
#define MAX_SPLITS 1024
#define MAX_RM	   128
#define MAX_ROWS   2048

static u16 first[NR_MAPS][256];
static u16 split[MAX_SPLITS][4 * 8 * 2]; /* [pp][reg][mod == 3] */
static u16 split_rm[MAX_RM][8];
static unsigned int nr_splits, nr_split_rm;
unsigned int insn_rows_clash;

/* What the decoder needs of a row, in one word. */
#define A_MODRM	  BIT(0)
#define A_Z	  BIT(1)  /* register in the opcode */
#define A_LOCK	  BIT(2)  /* LOCK is legal on memory */
#define A_REGX	  BIT(3)  /* REX.R extends ModRM.reg: bit 3, as there */
#define A_RMX	  BIT(4)  /* REX.B extends ModRM.rm of a register operand */
#define A_D64	  BIT(5)
#define A_F64	  BIT(6)
#define A_PP	  BIT(7)  /* 66, F3 or F2 is part of the opcode */
#define A_NO64	  BIT(8)
#define A_ONLY64  BIT(9)
#define A_VL0	  BIT(10)
#define A_VL1	  BIT(11)
#define A_NOVVVV  BIT(12)
#define A_VSIB	  BIT(13)
#define A_MODREG  BIT(14) /* ModRM.mod is ignored: MOV from and to CR and DR */
#define A_STEP	  BIT(15) /* one bit more decides between this row and the next: step() */
#define A_SYSREG  BIT(16) /* not every register number exists: sysreg_valid() */
#define A_Y	  BIT(17) /* general registers of VEX.W's size: it means nothing outside 64-bit mode */
#define A_SIGNED  BIT(18) /* the immediate is sign-extended */
#define A_RARE	  (A_NO64 | A_ONLY64 | A_VL0 | A_VL1 | A_NOVVVV | A_VSIB | A_SYSREG)
#define A_IMM(i)  ((u32)(i) << 24)
#define IMM_OF(a) ((a) >> 24)

enum imm {
	IMM_NONE,
	IMM_UB,	   /* byte, zero-extended */
	IMM_SB,	   /* byte, sign-extended */
	IMM_W,	   /* word, zero-extended */
	IMM_Z,	   /* 2 or 4 bytes, sign-extended */
	IMM_V,	   /* 2, 4 or 8 bytes */
	IMM_MOFFS, /* address size */
	/* two parts: */
	IMM_ENTER, /* word and byte */
	IMM_FAR,   /* far pointer */
	IMM_IS4,   /* register in bits 7:4 */
};

static u32 attr[MAX_ROWS];
static u16 row_evex;

static enum imm imm_kind(const struct insn_row *r, const struct operand *o)
{
	if (r->op == OP_ENTER)
		return IMM_ENTER;
	switch (o->kind) {
	case OPND_A:
		return IMM_FAR;
	case OPND_O:
		return IMM_MOFFS;
	case OPND_L:
		return IMM_IS4;
	case OPND_J:
		return o->size == SZ_b ? IMM_SB : IMM_Z;
	case OPND_I:
		break;
	default:
		return IMM_NONE;
	}
	switch (o->size) {
	case SZ_b:
		return o->fixed == OPND_I_SIGNED ? IMM_SB : IMM_UB;
	case SZ_w:
		return IMM_W;
	case SZ_z:
		return IMM_Z;
	default:
		return IMM_V;
	}
}

static u32 operand_attr(const struct operand *o)
{
	u32 a = o->size == SZ_y ? A_Y : 0;

	switch (o->kind) {
	case OPND_E:
	case OPND_R:
	case OPND_W:
	case OPND_U:
		return a | A_MODRM | A_RMX;
	case OPND_M:
	case OPND_Q:
	case OPND_N:
	case OPND_ST:
		return a | A_MODRM;
	case OPND_G:
	case OPND_V:
		return a | A_MODRM | A_REGX;
	case OPND_S:
		return a | A_MODRM | A_SYSREG;
	case OPND_C:
	case OPND_D:
		return a | A_MODRM | A_REGX | A_SYSREG | A_MODREG;
	case OPND_VSIB:
		return a | A_MODRM | A_VSIB;
	case OPND_P:
		return a | A_MODRM;
	case OPND_Z:
		return a | A_Z;
	default:
		return a;
	}
}

static u32 row_attr(const struct insn_row *r, const struct row_sel *s)
{
	static const struct {
		u32 rule, attr;
	} rules[] = {
		{RULE_LOCK, A_LOCK}, {RULE_D64, A_D64},	    {RULE_F64, A_F64},
		{RULE_NO64, A_NO64}, {RULE_ONLY64, A_ONLY64}, {RULE_VL0, A_VL0},
		{RULE_VL1, A_VL1},   {RULE_NOVVVV, A_NOVVVV},
	};
	unsigned int pp = SEL_PP(s->sel), i;
	u32 a = 0;
	enum imm imm;

	for (i = 0; i < ARRAY_SIZE(rules); i++)
		if (r->rules & rules[i].rule)
			a |= rules[i].attr;
	for (i = 0; i < ARRAY_SIZE(r->opnd); i++) {
		a |= operand_attr(&r->opnd[i]);
		imm = imm_kind(r, &r->opnd[i]);
		if (imm && !IMM_OF(a))
			a |= A_IMM(imm);
	}
	if (IMM_OF(a) == IMM_SB || IMM_OF(a) == IMM_Z)
		a |= A_SIGNED;
	if (SEL_G(s->sel) || (s->sel & (SEL_MEM | SEL_REG)))
		a |= A_MODRM;
	if (pp && pp != 1 && !(pp & (pp - 1)))
		a |= A_PP;
	if (s->map >= MAP_V0F && r->gpr_read) /* SDM 2B "PCMPESTRI": its lengths are RAX and RDX, or EAX and EDX */
		a |= A_Y;
	if (r->op == OP_CMPXCHG8B || r->op == OP_VZEROUPPER ||
		(r->op == OP_XCHG && s->opcode == 0x90))
		a |= A_STEP;
	return a;
}

/* Which of ModRM.mod 0-2 (bit 0) and 3 (bit 1) the row is for. */
static unsigned int row_mods(const struct insn_row *r, const struct row_sel *s)
{
	unsigned int i, mods = 0;

	if (s->sel & (SEL_MEM | SEL_REG))
		return (s->sel & SEL_MEM ? 1 : 0) | (s->sel & SEL_REG ? 2 : 0);
	for (i = 0; i < ARRAY_SIZE(r->opnd); i++) {
		switch (r->opnd[i].kind) {
		case OPND_C:
		case OPND_D:
			return 3;
		case OPND_M:
		case OPND_VSIB:
			mods = 1;
			break;
		case OPND_R:
		case OPND_U:
		case OPND_N:
			mods = 2;
			break;
		}
	}
	return mods ? mods : 3;
}

/* The last element is shared when the array is too small; table_test.c notices. */
static u16 next_index(unsigned int *n, unsigned int max)
{
	u16 i = MIN(*n, max - 1);

	++*n;
	return i;
}

static void put(u16 *slot, unsigned int row)
{
	if (*slot)
		insn_rows_clash++;
	*slot = row;
}

static void put_slot(u16 *slot, unsigned int row, u32 sel)
{
	if (!SEL_RM(sel)) {
		put(slot, row);
		return;
	}
	if (!*slot)
		*slot = SPLIT_RM | next_index(&nr_split_rm, MAX_RM);
	if (!(*slot & SPLIT_RM))
		insn_rows_clash++;
	else
		put(&split_rm[*slot & ~SPLIT_RM][SEL_RM(sel) - 1], row);
}

/* Enter a row for one opcode of one map. */
static void put_opcode(u16 *slot, unsigned int row)
{
	u32 sel = insn_sels[row].sel;
	unsigned int mods = row_mods(&insn_rows[row], &insn_sels[row]);
	unsigned int pps = SEL_PP(sel), i;

	if (!pps && !SEL_G(sel) && mods == 3) {
		put(slot, row);
		return;
	}
	if (!*slot)
		*slot = SPLIT | next_index(&nr_splits, MAX_SPLITS);
	if (!(*slot & SPLIT)) {
		insn_rows_clash++;
		return;
	}
	for (i = 0; i < ARRAY_SIZE(split[0]); i++) {
		if (pps && !(pps & BIT(i >> 4)))
			continue;
		if (SEL_G(sel) && SEL_G(sel) - 1 != ((i >> 1) & 7))
			continue;
		if (mods & BIT(i & 1))
			put_slot(&split[*slot & ~SPLIT][i], row, sel);
	}
}

static void put_row(unsigned int row)
{
	const struct row_sel *s = &insn_sels[row];
	u32 rules = insn_rows[row].rules;
	unsigned int n = s->sel & SEL_X16 ? 16 : s->sel & SEL_X8 ? 8 : 1, op;

	for (op = s->opcode; op < s->opcode + n; op++) {
		if (s->map == MAP_ONE) {
			if (!(rules & RULE_NO64))
				put_opcode(&first[MAP_ONE][op], row);
			if (!(rules & RULE_ONLY64))
				put_opcode(&first[MAP_ONE32][op], row);
		} else if (s->map >= MAP_V0F) {
			if (!(rules & RULE_W1))
				put_opcode(&first[s->map][op], row);
			if (!(rules & RULE_W0))
				put_opcode(&first[s->map + MAP_W1][op], row);
		} else {
			put_opcode(&first[s->map][op], row);
		}
	}
}

__attribute__((constructor(101))) static void build_maps(void)
{
	unsigned int i;

	for (i = 1; i < nr_insn_rows && i < MAX_ROWS; i++) {
		attr[i] = row_attr(&insn_rows[i], &insn_sels[i]);
		if (!(insn_sels[i].sel & SEL_NEXT))
			put_row(i);
		if (insn_rows[i].op == OP_UD_EVEX)
			row_evex = i;
	}
	if (nr_splits > MAX_SPLITS || nr_split_rm > MAX_RM || nr_insn_rows > MAX_ROWS)
		insn_rows_clash = ~0u;
}

/* ---- decoding ------------------------------------------------------------------------ */

enum prefix {
	PFX_NONE,
	PFX_REX, /* in 64-bit mode; else INC and DEC */
	PFX_66, PFX_67, PFX_F2, PFX_F3, PFX_LOCK,
	PFX_ES, PFX_CS, PFX_SS, PFX_DS, PFX_FS, PFX_GS,
	NR_PREFIXES,
	/* not prefixes to skip, but ways to other opcode maps */
	ESC_0F, ESC_VEX, ESC_EVEX,
};

static const u8 prefix_of[256] = {
	[0x26] = PFX_ES, [0x2e] = PFX_CS, [0x36] = PFX_SS, [0x3e] = PFX_DS,
	[0x64] = PFX_FS, [0x65] = PFX_GS, [0x66] = PFX_66, [0x67] = PFX_67,
	[0xf0] = PFX_LOCK, [0xf2] = PFX_F2, [0xf3] = PFX_F3,
	[0x40 ... 0x4f] = PFX_REX,
	[0x0f] = ESC_0F, [0xc4] = ESC_VEX, [0xc5] = ESC_VEX, [0x62] = ESC_EVEX,
};

#define REX_B 1
#define REX_X 2
#define REX_R 4
#define REX_W 8
#define MAX_LEN	  15
#define MAX_READ  32 /* no path below reads further than this from the first byte */
#define NO_SEG	  0xff

/* The decoder's registers; everything that uses it is inlined. */
struct dec {
	const u8 *start, *p;
	enum insn_mode mode;
	u8 rex;	 /* REX byte, or VEX's R, X, B, W in the same bits; 0 = none */
	u8 p66, p67, lock;
	u8 rep;	 /* as in INSN_PP: 0, 2 = F3, 3 = F2 */
	u8 seg;	 /* override or NO_SEG */
	u8 map, opcode, pp, modrm;
	u8 vex, vl, vvvv;
	u16 row;
	u32 attr;
};

static ALWAYS_INLINE u32 le16(const u8 *p)
{
	u16 v;

	memcpy(&v, p, 2);
	return v;
}

static ALWAYS_INLINE u32 le32(const u8 *p)
{
	u32 v;

	memcpy(&v, p, 4);
	return v;
}

static ALWAYS_INLINE u64 le64(const u8 *p)
{
	u64 v;

	memcpy(&v, p, 8);
	return v;
}

/* The low n bytes (0 to 8) of what is at p, without a branch. */
static ALWAYS_INLINE s64 load(const u8 *p, unsigned int n, bool sign)
{
	unsigned int s = 32 - 4 * n; /* shift twice by half: n = 0 is a shift by 64 */
	u64 v = le64(p) << s << s, mask = -(u64)sign;

	return ((s64)v >> s >> s & mask) | (v >> s >> s & ~mask);
}

static ALWAYS_INLINE bool is_prefix(enum insn_mode mode, u8 b)
{
	u8 c = prefix_of[b];

	return c != PFX_NONE && c < NR_PREFIXES && (c != PFX_REX || mode == MODE_64);
}

static ALWAYS_INLINE void note_prefix(struct dec *d, u8 c)
{
	switch (c) {
	case PFX_66:
		d->p66 = 1;
		break;
	case PFX_67:
		d->p67 = 1;
		break;
	case PFX_F2:
		d->rep = 3;
		break;
	case PFX_F3:
		d->rep = 2;
		break;
	case PFX_LOCK:
		d->lock = 1;
		break;
	default:
		if (d->mode != MODE_64 || c >= PFX_FS)
			d->seg = c - PFX_ES + SEG_ES;
	}
}

/*
 * Legacy prefixes and REX. Of several F2/F3 the last counts, of several segment overrides
 * too; REX counts only right before the opcode (SDM 2A 2.2.1). ES, CS, SS and DS overrides
 * are null prefixes in 64-bit mode: they do not cancel FS or GS. False: 15 prefixes.
 */
static ALWAYS_INLINE bool take_prefixes(struct dec *d)
{
	u8 b = *d->p;

	for (; is_prefix(d->mode, b); b = *d->p) {
		u8 c = prefix_of[b];

		d->rex = 0;
		if (c == PFX_REX)
			d->rex = b;
		else
			note_prefix(d, c);
		if (++d->p - d->start == MAX_LEN)
			return false;
	}
	return true;
}

/* C4 or C5 was read: SDM 2A 2.3.5. False: #UD. */
static ALWAYS_INLINE bool take_vex(struct dec *d, u8 esc)
{
	u8 b = *d->p++, w = 0;

	if (d->p66 | d->rep | d->lock | d->rex)
		return false;
	d->rex = ~b >> 5 & REX_R;
	d->map = 1;
	if (esc == 0xc4) {
		d->rex = ~b >> 5 & (REX_R | REX_X | REX_B);
		d->map = b & 31;
		b = *d->p++;
		w = b >> 7;
		if (d->map < 1 || d->map > 3)
			return false;
	}
	d->vex = 1;
	d->pp = b & 3;
	d->vl = b >> 2 & 1;
	d->vvvv = ~b >> 3 & 15;
	if (d->mode != MODE_64)
		d->rex = 0;
	d->rex |= w ? REX_W : 0;
	d->map += MAP_V0F - 1 + (w ? MAP_W1 : 0);
	d->opcode = *d->p++;
	return true;
}

/*
 * EVEX (62): only the length, so that a debugger's or emulator's message can show it; the
 * instruction is #UD. Leaves p after the whole of it. SDM 2A 2.7.
 */
static NOINLINE const u8 *skip_evex(const u8 *p, enum insn_mode mode, bool p67)
{
	u8 map = p[0] & 7, opcode = p[3], modrm = p[4], mod = modrm >> 6, rm = modrm & 7;
	bool imm = map == 3 || (map == 1 && ((opcode >= 0x70 && opcode <= 0x73) ||
						    opcode == 0xc2 || (opcode & ~2) == 0xc4 ||
						    opcode == 0xc5));

	p += 5;
	if (mod != 3 && (mode == MODE_16) != p67 && mode != MODE_64) {
		p += mod == 0 ? (rm == 6 ? 2 : 0) : mod;
	} else if (mod != 3) {
		u8 base = rm == 4 ? *p++ & 7 : rm;

		p += mod == 1 ? 1 : mod == 2 || base == 5 ? 4 : 0;
	}
	return p + imm;
}

/* The opcode bytes; sets map, opcode, pp. False: #UD. */
static ALWAYS_INLINE bool take_opcode(struct dec *d)
{
	u8 b = *d->p++, c = prefix_of[b];

	d->map = d->mode == MODE_64 ? MAP_ONE : MAP_ONE32;
	d->pp = d->rep ? d->rep : d->p66;
	d->opcode = b;
	if (c == ESC_0F) {
		b = *d->p++;
		d->map = MAP_L0F;
		if (unlikely(b == 0x38 || b == 0x3a)) {
			d->map = b == 0x38 ? MAP_L38 : MAP_L3A;
			b = *d->p++;
		}
		d->opcode = b;
	} else if (c == ESC_VEX && (d->mode == MODE_64 || (*d->p & 0xc0) == 0xc0)) {
		return take_vex(d, b);
	}
	return true;
}

/* One bit more than the maps know decides between a row and the next. */
static NOINLINE u16 step(u16 row, u8 rex, bool vl)
{
	switch (insn_rows[row].op) {
	case OP_CMPXCHG8B:
		return row + !!(rex & REX_W);
	case OP_VZEROUPPER:
		return row + vl;
	default: /* 90: XCHG R8,RAX with REX.B, else NOP or PAUSE (SDM 2B "NOP") */
		return row + !(rex & REX_B);
	}
}

static ALWAYS_INLINE void find_row(struct dec *d)
{
	u16 row = first[d->map][d->opcode];

	d->modrm = *d->p;
	if (row & SPLIT) {
		unsigned int slot = d->pp << 4 | (d->modrm >> 2 & 14) | (d->modrm >= 0xc0);

		row = split[row & ~SPLIT][slot];
		if (unlikely(row & SPLIT_RM))
			row = split_rm[row & ~SPLIT_RM][d->modrm & 7];
		if (unlikely(!row) && d->opcode != 0x77)
			d->p++; /* the ModRM byte was looked at */
	}
	if (unlikely(attr[row] & A_STEP))
		row = step(row, d->rex, d->vl);
	d->row = row;
	d->attr = attr[row];
}

/* 16-bit addressing: SDM 2A table 2-1. */
static NOINLINE const u8 *mem16(struct insn *i, u8 modrm, const u8 *p)
{
	static const struct {
		u8 base, index, seg;
	} form[8] = {
		{GPR_RBX, GPR_RSI, SEG_DS}, {GPR_RBX, GPR_RDI, SEG_DS},
		{GPR_RBP, GPR_RSI, SEG_SS}, {GPR_RBP, GPR_RDI, SEG_SS},
		{GPR_RSI, GPR_ZERO, SEG_DS}, {GPR_RDI, GPR_ZERO, SEG_DS},
		{GPR_RBP, GPR_ZERO, SEG_SS}, {GPR_RBX, GPR_ZERO, SEG_DS},
	};
	u8 mod = modrm >> 6, rm = modrm & 7;

	i->scale = 0;
	i->rm = form[rm].base;
	i->index = form[rm].index;
	i->seg = form[rm].seg;
	i->disp = 0;
	if (mod == 0 && rm == 6) {
		i->rm = GPR_ZERO;
		i->seg = SEG_DS;
		mod = 2;
	}
	if (mod == 1)
		i->disp = (s8)*p;
	else if (mod == 2)
		i->disp = (s16)le16(p);
	return p + mod;
}

/* 32- and 64-bit addressing: SDM 2A tables 2-2, 2-3 and 2-7. */
static ALWAYS_INLINE void take_mem(struct dec *d, struct insn *i)
{
	/* bytes of displacement by mod, and by whether the base is 101b */
	static const u8 disp_bytes[4][2] = {{0, 4}, {1, 1}, {4, 4}, {0, 0}};
	u8 mod = d->modrm >> 6, base = d->modrm & 7, index = GPR_ZERO, scale = 0, n;
	bool sib = base == 4;

	if (sib) {
		u8 b = *d->p++;

		scale = b >> 6;
		index = (b >> 3 & 7) | (d->rex & REX_X) << 2;
		if (index == 4 && !(d->attr & A_VSIB))
			index = GPR_ZERO;
		base = b & 7;
	}
	n = disp_bytes[mod][base == 5];
	if (unlikely(mod == 0 && base == 5))
		base = sib || d->mode != MODE_64 ? GPR_ZERO : GPR_RIP;
	else
		base |= (d->rex & REX_B) << 3;
	i->disp = load(d->p, n, true);
	d->p += n;
	i->rm = base;
	i->index = index;
	i->scale = scale;
	i->seg = base == GPR_RSP || base == GPR_RBP ? SEG_SS : SEG_DS;
}

/* Immediates of two parts. */
static NOINLINE const u8 *take_imm2(struct insn *i, enum imm kind, const u8 *p)
{
	switch (kind) {
	case IMM_ENTER:
		i->imm = le16(p);
		i->imm2 = p[2];
		return p + 3;
	case IMM_FAR:
		i->imm = i->osz == 2 ? le16(p) : le32(p);
		i->imm2 = le16(p + i->osz);
		return p + i->osz + 2;
	default:
		i->imm = 0;
		i->imm2 = *p;
		return p + 1;
	}
}

static ALWAYS_INLINE void take_imm(struct dec *d, struct insn *i)
{
	/* bytes by kind, and by half the operand or address size: 1, 2, 4 */
	static const u8 bytes[IMM_ENTER][8] = {
		[IMM_UB] = {0, 1, 1, 0, 1}, [IMM_SB] = {0, 1, 1, 0, 1},
		[IMM_W] = {0, 2, 2, 0, 2},  [IMM_Z] = {0, 2, 4, 0, 4},
		[IMM_V] = {0, 2, 4, 0, 8},  [IMM_MOFFS] = {0, 2, 4, 0, 8},
	};
	enum imm kind = IMM_OF(d->attr);
	unsigned int n;

	if (unlikely(kind >= IMM_ENTER)) {
		d->p = take_imm2(i, kind, d->p);
		if (d->mode != MODE_64 && kind == IMM_IS4)
			i->imm2 &= 0x7f;
		return;
	}
	n = bytes[kind][(kind == IMM_MOFFS ? i->asz : i->osz) >> 1];
	i->imm = load(d->p, n, d->attr & A_SIGNED);
	i->imm2 = 0;
	d->p += n;
}

/*
 * Operand size (SDM 1 3.6.1): 66 that is part of the opcode does not count. Under VEX only W
 * does. DIFFERS: near branches in 64-bit mode ignore 66 as Intel's do; AMD's obey it (APM 3
 * appendix B.1). REX.W, which compilers add where they pad a call, hides the difference.
 */
static ALWAYS_INLINE u8 operand_size(const struct dec *d)
{
	bool p66 = d->p66 && !((d->attr & A_PP) && d->pp == 1);

	if (d->mode != MODE_64)
		return d->vex || p66 == (d->mode == MODE_16) ? 4 : 2;
	if (p66 && !(d->attr & A_F64) && !(d->rex & REX_W))
		return 2;
	return 4 << (!!(d->attr & (A_F64 | A_D64)) | !!(d->rex & REX_W));
}

static ALWAYS_INLINE u8 address_size(const struct dec *d)
{
	if (d->mode == MODE_64)
		return d->p67 ? 4 : 8;
	return (d->mode == MODE_16) != d->p67 ? 2 : 4;
}

/* Segment, control and debug registers that exist: SDM 2B "MOV". */
static NOINLINE bool sysreg_valid(const struct insn *i)
{
	switch (insn_op(i)) {
	case OP_MOV_SREG:
		return i->reg <= SEG_GS && !(i->opcode == 0x8e && i->reg == SEG_CS);
	case OP_MOV_CR:
		return BIT(i->reg) & (BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(8));
	default:
		return i->reg < 8;
	}
}

/* Gathers: SIB addressing, three different registers (SDM 2A 2.3.12; 2C "VPGATHERDD"). */
static NOINLINE bool vsib_valid(const struct insn *i)
{
	return i->asz != 2 && (i->modrm & 7) == 4 && i->reg != i->index &&
	       i->reg != i->vvvv && i->index != i->vvvv;
}

/* All that is #UD though there is a row. */
static ALWAYS_INLINE bool legal(const struct dec *d, const struct insn *i)
{
	u32 a = d->attr;

	if (likely(!d->lock && !(a & A_RARE)))
		return true;
	if (d->lock && !((a & A_LOCK) && (i->flags & INSN_MEM)))
		return false;
	if ((a & (A_NO64 | A_ONLY64)) && !!(a & A_NO64) == (d->mode == MODE_64))
		return false;
	if (d->vex && (a & (d->vl ? A_VL0 : A_VL1)))
		return false;
	if ((a & A_NOVVVV) && d->vvvv)
		return false;
	if ((a & A_SYSREG) && !sysreg_valid(i))
		return false;
	return !(a & A_VSIB) || vsib_valid(i);
}

static ALWAYS_INLINE u16 insn_flags(const struct dec *d)
{
	u16 f = d->lock ? INSN_LOCK : 0;

	f |= d->p66 ? INSN_66 : 0;
	f |= d->seg != NO_SEG ? INSN_SEGPFX : 0;
	f |= d->rex & REX_W ? INSN_W : 0;
	if (d->vex)
		return f | INSN_VEX | (d->vl ? INSN_L : 0) | d->pp << INSN_PP_SHIFT;
	f |= d->rex ? INSN_REX : 0;
	if (d->attr & A_PP)
		f |= d->pp << INSN_PP_SHIFT;
	else if (d->rep)
		f |= d->rep == 2 ? INSN_REP : INSN_REPNE;
	return f;
}

/* The row is known: fill in the rest, up to the end of the instruction. */
static ALWAYS_INLINE void take_operands(struct dec *d, struct insn *i)
{
	if (d->vex && d->mode != MODE_64) {
		if (!(d->attr & A_NOVVVV)) /* else legal() wants all four bits */
			d->vvvv &= 7;
		if (d->attr & A_Y)
			d->rex = 0;
	}
	i->row = d->row;
	i->flags = insn_flags(d);
	i->opcode = d->opcode;
	i->map = (d->map > MAP_V3A ? d->map - MAP_W1 : d->map) & 3;
	i->osz = operand_size(d);
	i->asz = address_size(d);
	i->vvvv = d->vvvv;
	i->modrm = 0;
	if (d->attr & A_MODRM) {
		d->p++;
		i->modrm = d->modrm;
		i->reg = (d->modrm >> 3 & 7) | ((d->rex & REX_R) << 1 & (d->attr & A_REGX));
		if (d->modrm < 0xc0 && !(d->attr & A_MODREG)) {
			i->flags |= INSN_MEM;
			if (unlikely(i->asz == 2))
				d->p = mem16(i, d->modrm, d->p);
			else
				take_mem(d, i);
		}
	}
	if (!(i->flags & INSN_MEM)) {
		i->rm = (d->modrm & 7) | ((d->rex & REX_B) << 4 & (d->attr & A_RMX)) >> 1;
		if (!(d->attr & A_MODRM)) {
			i->rm = GPR_ZERO;
			i->reg = ((d->opcode & 7) | (d->rex & REX_B) << 3) & -!!(d->attr & A_Z);
		}
		i->index = GPR_ZERO;
		i->scale = 0;
		i->disp = 0;
		i->seg = SEG_DS;
		if (IMM_OF(d->attr) == IMM_MOFFS)
			i->flags |= INSN_MEM | INSN_MOFFS;
	}
	if (d->seg != NO_SEG)
		i->seg = d->seg;
	take_imm(d, i);
}

static ALWAYS_INLINE bool is_rex(u8 b)
{
	return (b & 0xf0) == 0x40;
}

/*
 * Decode from start, where MAX_READ bytes can be read. Length in out->len, if not too long.
 * plain (a constant): 64-bit mode, and no prefix but REX.
 */
static ALWAYS_INLINE enum decode_result decode(
	struct insn *out, enum insn_mode mode, const u8 *start, bool plain)
{
	struct dec d = {.start = start, .p = start, .mode = mode, .seg = NO_SEG};
	bool ok;

	if (plain) {
		d.rex = *start & -is_rex(*start);
		d.p += is_rex(*start);
	} else if (unlikely(!take_prefixes(&d))) {
		return DECODE_LONG;
	}
	ok = take_opcode(&d);
	if (unlikely(d.opcode == 0x62 && d.map == (mode == MODE_64 ? MAP_ONE : MAP_ONE32) &&
		     (mode == MODE_64 || *d.p >= 0xc0))) {
		ok = !(d.p66 | d.rep | d.lock | d.rex);
		*out = (struct insn){.row = row_evex, .flags = INSN_EVEX, .opcode = 0x62,
			.osz = 4, .asz = address_size(&d), .seg = SEG_DS};
		d.p = skip_evex(d.p, mode, d.p67);
	} else if (likely(ok)) {
		find_row(&d);
		take_operands(&d, out);
		ok = d.row && legal(&d, out);
	}
	if (unlikely(d.p - start > MAX_LEN))
		return DECODE_LONG;
	if (unlikely(!ok))
		*out = (struct insn){.row = 0};
	out->len = d.p - start;
	return ok ? DECODE_OK : DECODE_UD;
}

static NOINLINE enum decode_result decode_any(
	struct insn *out, enum insn_mode mode, const u8 *p)
{
	return decode(out, mode, p, false);
}

/*
 * Fewer than MAX_READ bytes: decode a copy with zeros behind it. If the result needs more than
 * there is, and there might have been more, then the caller has to fetch more.
 */
static NOINLINE enum decode_result decode_short(
	struct insn *out, enum insn_mode mode, const u8 *p, unsigned int n)
{
	u8 bytes[MAX_READ] = {0};
	struct insn i;
	enum decode_result r;

	memcpy(bytes, p, n);
	r = decode_any(&i, mode, bytes);
	if (r == DECODE_LONG || i.len > n)
		return n < MAX_LEN ? DECODE_MORE : DECODE_LONG;
	*out = i;
	return r;
}

enum decode_result insn_decode(
	struct insn *out, enum insn_mode mode, const u8 *p, unsigned int n)
{
	if (unlikely(n < MAX_READ))
		return decode_short(out, mode, p, n);
	if (likely(mode == MODE_64 && !is_prefix(MODE_64, p[is_rex(*p)])))
		return decode(out, MODE_64, p, true);
	return decode_any(out, mode, p);
}
