// SPDX-License-Identifier: MIT
/*
 * Builds thunks. Read native.h before. The instruction is encoded afresh from struct insn,
 * never copied: a memory operand becomes [M], RSP becomes another register, legacy forms
 * that 64-bit mode lacks (40-4F, moffs) become their ModRM twins. SDM 2A chapter 2.
 *
 *	push rbx...				callee-saved registers that are used
 *	mov S, rdi; mov M, rsi			state and memory operand
 *	fxrstor64 [S + fx]			x87 and MMX rows
 *	vmovups ymm3, [S + ymm3]...
 *	mov eax, [S + fl]; add al, 127; sahf
 *	mov rcx, [S + rcx]...
 *	the instruction
 *	the same in the other direction
 */
#include "cpu/native_build.h"

#define NR_GPR 16
#define NO_REG 0xff

/* What the thunk of one instruction is made of. */
struct plan {
	const struct insn *i;
	const struct insn_row *row;
	u16 gpr_load, gpr_store; /* host registers that mirror guest registers of that number */
	u16 vec_load, vec_store;
	bool fl_load, fl_store;
	bool fx;
	bool high8;   /* uses AH..BH: no REX allowed, all registers must be < 8 */
	bool bit_off; /* BT mem, reg: the offset is masked, X holds it */
	u8 s, m, x;   /* state, memory, stand-in for RSP or the bit offset */
	u8 rsp;	      /* X stands for RSP */
};

struct emit {
	u8 *p;
};

static void byte(struct emit *e, u8 v)
{
	*e->p++ = v;
}

static void bytes(struct emit *e, u64 v, unsigned int n)
{
	for (; n; n--, v >>= 8)
		byte(e, v);
}

/* op reg, [base + disp32] with REX.W; map: 0 or 0x0f */
static void mem_op(struct emit *e, u8 map, u8 op, u8 reg, u8 base, u32 disp)
{
	byte(e, 0x48 | (reg >> 3) << 2 | base >> 3);
	if (map)
		byte(e, map);
	byte(e, op);
	byte(e, 0x80 | (reg & 7) << 3 | (base & 7));
	bytes(e, disp, 4);
}

static void mov_reg(struct emit *e, u8 to, u8 from)
{
	if (to == from)
		return;
	byte(e, 0x48 | (from >> 3) << 2 | to >> 3);
	byte(e, 0x89);
	byte(e, 0xc0 | (from & 7) << 3 | (to & 7));
}

static u32 gpr_offset(unsigned int n)
{
	return offsetof(struct cpu, regs) + 8 * n;
}

/* Whole vector register: VMOVUPS ymm for VEX rows; MOVUPS xmm for legacy ones, which keep the upper half. */
static void vec_op(struct emit *e, const struct plan *p, u8 op, u8 n)
{
	u32 disp = offsetof(struct cpu, fpu.ymm) + 32 * n;

	if (p->i->flags & INSN_VEX) {
		byte(e, 0xc4);
		byte(e, (~(n >> 3 << 7) & 0x80) | 0x40 | (~(p->s >> 3 << 5) & 0x20) | 1);
		byte(e, 0x7c);
	} else {
		byte(e, 0x40 | (n >> 3) << 2 | p->s >> 3);
		byte(e, 0x0f);
	}
	byte(e, op);
	byte(e, 0x80 | (n & 7) << 3 | (p->s & 7));
	bytes(e, disp, 4);
}

/* ---- planning --------------------------------------------------------------------- */

static bool is_high8(const struct insn *i, const struct operand *o, unsigned int n)
{
	return o->size == SZ_b && o->kind != OPND_FIX && !(i->flags & (INSN_REX | INSN_VEX)) &&
		n >= 4 && n < 8;
}

/* Register number of a general-register operand, or NO_REG. */
static unsigned int gpr_of(const struct insn *i, const struct operand *o)
{
	switch (o->kind) {
	case OPND_E:
		return i->flags & INSN_MEM ? NO_REG : i->rm;
	case OPND_R:
		return i->rm;
	case OPND_G:
	case OPND_Z:
		return i->reg;
	case OPND_B:
		return i->vvvv;
	case OPND_FIX:
		return o->fixed;
	default:
		return NO_REG;
	}
}

static unsigned int vec_of(const struct insn *i, const struct operand *o)
{
	switch (o->kind) {
	case OPND_V:
		return i->reg;
	case OPND_W:
		return i->flags & INSN_MEM ? NO_REG : i->rm;
	case OPND_U:
		return i->rm;
	case OPND_H:
		return i->vvvv;
	case OPND_L:
		return i->imm2 >> 4 & 15;
	default:
		return NO_REG;
	}
}

static void plan_operand(struct plan *p, const struct operand *o)
{
	unsigned int n = gpr_of(p->i, o);
	unsigned int v = vec_of(p->i, o);

	if (n != NO_REG) {
		if (is_high8(p->i, o, n)) {
			p->high8 = true;
			n -= 4;
		}
		p->gpr_load |= BIT(n);
		if (o->acc & ACC_W)
			p->gpr_store |= BIT(n);
	}
	if (v != NO_REG) {
		p->vec_load |= BIT(v);
		if (o->acc & ACC_W)
			p->vec_store |= BIT(v);
	}
	if (o->kind == OPND_P || o->kind == OPND_N || (o->kind == OPND_Q && !(p->i->flags & INSN_MEM)))
		p->fx = true;
}

static bool is_bit_test(unsigned int op)
{
	return op == OP_BT || op == OP_BTS || op == OP_BTR || op == OP_BTC;
}

/*
 * A register that the instruction leaves alone: first choice is where the caller's argument
 * is already. RAX carries the flags; RSP, RBP, R12, R13 as a base have other encodings.
 */
static u8 pick(u16 *taken, bool low, u8 first)
{
	static const u8 order[] = { GPR_RCX, GPR_RDX, GPR_RBX, GPR_R8, GPR_R9, GPR_R10, GPR_R11,
		GPR_R14, GPR_R15, GPR_RBP };
	u8 n = first;

	for (unsigned int k = 0; (*taken & BIT(n)) || (low && n > 7); k++)
		n = order[k];
	*taken |= BIT(n);
	return n;
}

static void plan_registers(struct plan *p)
{
	u16 taken = p->gpr_load | p->gpr_store | BIT(GPR_RAX) | BIT(GPR_RSP);
	bool rsp = (p->gpr_load | p->gpr_store) & BIT(GPR_RSP);

	p->x = NO_REG;
	p->rsp = rsp;
	p->s = pick(&taken, p->high8, GPR_RDI);
	p->m = pick(&taken, p->high8, GPR_RSI);
	if (rsp || p->bit_off)
		p->x = pick(&taken, p->high8, GPR_RCX);
}

static void make_plan(struct plan *p, const struct insn *i)
{
	const struct insn_row *row = insn_row(i);

	*p = (struct plan){ .i = i, .row = row };
	for (unsigned int k = 0; k < ARRAY_SIZE(row->opnd); k++)
		plan_operand(p, &row->opnd[k]);
	p->gpr_load |= row->gpr_read | row->gpr_written;
	p->gpr_store |= row->gpr_written;
	p->vec_load |= row->xmm_read | row->xmm_written;
	p->vec_store |= row->xmm_written;
	p->fl_load = row->fl_read | row->fl_written;
	p->fl_store = row->fl_written;
	p->fx |= (row->rules & (RULE_X87 | RULE_MMX)) != 0;
	p->bit_off = is_bit_test(row->op) && (i->flags & INSN_MEM) && row->opnd[1].kind == OPND_G;
	if (p->bit_off) {
		p->gpr_load = 0;
		p->gpr_store = 0;
	}
	plan_registers(p);
}

/* ---- the instruction itself ----------------------------------------------------------- */

/* Host register that stands for general register n in the re-encoded instruction. */
static u8 host_gpr(const struct plan *p, unsigned int n, bool high8)
{
	return n == GPR_RSP && !high8 ? p->x : n;
}

struct enc {
	u8 opcode;
	bool modrm;
	u8 reg, rm, vvvv; /* with their fourth bits */
	bool reg_is_z;
};

static void enc_operand(struct enc *c, const struct plan *p, const struct operand *o)
{
	unsigned int n = gpr_of(p->i, o);

	if (n != NO_REG)
		n = host_gpr(p, n, is_high8(p->i, o, n));
	switch (o->kind) {
	case OPND_E:
	case OPND_R:
		if (n != NO_REG)
			c->rm = n;
		break;
	case OPND_W:
	case OPND_U:
		if (!(p->i->flags & INSN_MEM))
			c->rm = p->i->rm;
		break;
	case OPND_G:
		c->reg = p->bit_off ? p->x : n;
		break;
	case OPND_V:
		c->reg = p->i->reg;
		break;
	case OPND_Z:
		c->reg_is_z = true;
		c->rm = n;
		break;
	case OPND_B:
		c->vvvv = n;
		break;
	case OPND_H:
		c->vvvv = p->i->vvvv;
		break;
	default:
		break;
	}
}

/* Forms that exist only without ModRM. */
static void enc_legacy_forms(struct enc *c, const struct insn *i)
{
	if (i->map || (i->flags & INSN_VEX))
		return;
	if (i->opcode >= 0x40 && i->opcode <= 0x4f) { /* INC, DEC */
		c->reg = i->opcode >> 3 & 1;
		c->opcode = 0xff;
		c->modrm = true;
		c->reg_is_z = false;
	}
	if (i->opcode == 0x82) /* 80's twin: #UD in the host's 64-bit mode */
		c->opcode = 0x80;
	if (i->flags & INSN_MOFFS) { /* A0-A3 are 8A 8B 88 89 with AL, rAX */
		c->opcode = 0x88 | (~i->opcode & 2) | (i->opcode & 1);
		c->modrm = true;
		c->reg = GPR_RAX;
	}
}

static struct enc make_enc(const struct plan *p)
{
	const struct insn *i = p->i;
	struct enc c = {
		.opcode = i->opcode,
		.modrm = i->modrm || (i->flags & INSN_MEM),
		.reg = i->modrm >> 3 & 7,
		.rm = i->modrm & 7,
	};

	for (unsigned int k = 0; k < ARRAY_SIZE(p->row->opnd); k++)
		enc_operand(&c, p, &p->row->opnd[k]);
	enc_legacy_forms(&c, i);
	if (i->flags & INSN_MEM)
		c.rm = p->m;
	if (c.reg_is_z)
		c.opcode = (c.opcode & ~7) | (c.rm & 7);
	return c;
}

static void emit_vex(struct emit *e, const struct insn *i, const struct enc *c)
{
	byte(e, 0xc4);
	byte(e, (c->reg & 8 ? 0 : 0x80) | 0x40 | (c->rm & 8 ? 0 : 0x20) | i->map);
	byte(e, (i->flags & INSN_W ? 0x80 : 0) | (~c->vvvv & 15) << 3 |
		(i->flags & INSN_L ? 4 : 0) | INSN_PP(i));
}

/* Does 66 change what it does? CBW and CWD have no operand that says so. */
static bool has_osz(const struct insn_row *row)
{
	if (row->op == OP_CBW || row->op == OP_CWD)
		return true;
	for (unsigned int k = 0; k < ARRAY_SIZE(row->opnd); k++)
		if (row->opnd[k].size == SZ_v || row->opnd[k].size == SZ_z)
			return true;
	return false;
}

static void emit_prefixes(struct emit *e, const struct plan *p, const struct enc *c)
{
	static const u8 pp[] = { 0, 0x66, 0xf3, 0xf2 };
	const struct insn *i = p->i;
	unsigned int k = INSN_PP(i);
	u8 rex = (i->flags & INSN_W ? 8 : 0) | (c->reg & 8 ? 4 : 0) | (c->rm & 8 ? 1 : 0);

	if (i->flags & INSN_LOCK)
		byte(e, 0xf0);
	if (k == 1 || (i->osz == 2 && has_osz(p->row)))
		byte(e, 0x66);
	if (k > 1)
		byte(e, pp[k]);
	/* SPL..DIL need a REX; with one, RSP's stand-in is a byte register whatever it is */
	if (rex || (i->flags & INSN_REX))
		byte(e, 0x40 | rex);
	if (i->map)
		byte(e, 0x0f);
	if (i->map == 2)
		byte(e, 0x38);
	if (i->map == 3)
		byte(e, 0x3a);
}

static void emit_imm(struct emit *e, const struct plan *p)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(p->row->opnd); k++) {
		if (p->row->opnd[k].kind == OPND_I)
			bytes(e, p->i->imm, insn_opnd_size(p->i, k));
		if (p->row->opnd[k].kind == OPND_L)
			byte(e, p->i->imm2 & 0xf0);
	}
}

static void emit_insn(struct emit *e, const struct plan *p)
{
	struct enc c = make_enc(p);

	if (p->i->flags & INSN_VEX)
		emit_vex(e, p->i, &c);
	else
		emit_prefixes(e, p, &c);
	byte(e, c.opcode);
	if (c.modrm)
		byte(e, (p->i->flags & INSN_MEM ? 0 : 0xc0) | (c.reg & 7) << 3 | (c.rm & 7));
	emit_imm(e, p);
}

/* ---- the frame around it ---------------------------------------------------------------- */

#define CALLEE_SAVED (BIT(GPR_RBX) | BIT(GPR_RBP) | BITS(15, 12))

static u16 saved_registers(const struct plan *p)
{
	u16 used = p->gpr_load | p->gpr_store | BIT(p->s) | BIT(p->m);

	if (p->x != NO_REG)
		used |= BIT(p->x);
	return used & CALLEE_SAVED;
}

static void emit_push(struct emit *e, u8 op, u8 n)
{
	if (n & 8)
		byte(e, 0x41);
	byte(e, op | (n & 7));
}

static void load_bit_offset(struct emit *e, const struct plan *p)
{
	mem_op(e, 0, 0x8b, p->x, p->s, gpr_offset(p->i->reg));
	byte(e, 0x48 | p->x >> 3);
	byte(e, 0x83);
	byte(e, 0xe0 | (p->x & 7));
	byte(e, 8 * p->i->osz - 1);
}

static void load_flags(struct emit *e, const struct plan *p)
{
	/* mov eax, [S + fl]; add al, 127: OF from AL = 1; sahf */
	if (p->s >> 3)
		byte(e, 0x41);
	byte(e, 0x8b);
	byte(e, 0x80 | (p->s & 7));
	bytes(e, offsetof(struct cpu, fl), 4);
	bytes(e, 0x9e7f04, 3);
}

static void store_flags(struct emit *e, const struct plan *p)
{
	/* lahf; seto al; movzx eax, ax; mov [S + fl], rax */
	byte(e, 0x9f);
	bytes(e, 0xc0900f, 3);
	bytes(e, 0xc0b70f, 3);
	mem_op(e, 0, 0x89, GPR_RAX, p->s, offsetof(struct cpu, fl));
}

static void emit_load(struct emit *e, const struct plan *p)
{
	mov_reg(e, p->s, GPR_RDI);
	mov_reg(e, p->m, GPR_RSI);
	if (p->fx)
		mem_op(e, 0x0f, 0xae, 1, p->s, offsetof(struct cpu, fpu.fx));
	for (unsigned int n = 0; n < 16; n++)
		if (p->vec_load & BIT(n))
			vec_op(e, p, 0x10, n);
	if (p->bit_off)
		load_bit_offset(e, p);
	if (p->fl_load)
		load_flags(e, p);
	for (unsigned int n = 0; n < NR_GPR; n++)
		if (p->gpr_load & BIT(n))
			mem_op(e, 0, 0x8b, host_gpr(p, n, false), p->s, gpr_offset(n));
}

static void emit_store(struct emit *e, const struct plan *p)
{
	for (unsigned int n = 0; n < NR_GPR; n++)
		if (p->gpr_store & BIT(n))
			mem_op(e, 0, 0x89, host_gpr(p, n, false), p->s, gpr_offset(n));
	if (p->fl_store)
		store_flags(e, p);
	for (unsigned int n = 0; n < 16; n++)
		if (p->vec_store & BIT(n))
			vec_op(e, p, 0x11, n);
	if (p->fx)
		mem_op(e, 0x0f, 0xae, 0, p->s, offsetof(struct cpu, fpu.fx));
	if ((p->i->flags & INSN_VEX) && (p->vec_load | p->vec_store))
		bytes(e, 0x77f8c5, 3); /* vzeroupper */
}

unsigned int native_build(u8 *out, const struct insn *i)
{
	struct emit e = { out };
	struct plan p;
	u16 saved;

	make_plan(&p, i);
	saved = saved_registers(&p);
	for (unsigned int n = 0; n < NR_GPR; n++)
		if (saved & BIT(n))
			emit_push(&e, 0x50, n);
	emit_load(&e, &p);
	emit_insn(&e, &p);
	emit_store(&e, &p);
	for (unsigned int n = NR_GPR; n-- > 0;)
		if (saved & BIT(n))
			emit_push(&e, 0x58, n);
	byte(&e, 0xc3);
	return e.p - out;
}

void native_key(struct insn *key, const struct insn *i)
{
	*key = *i;
	key->len = 0;
	key->asz = 0;
	key->seg = 0;
	key->index = 0;
	key->scale = 0;
	key->disp = 0;
	key->flags &= ~(INSN_REP | INSN_REPNE | INSN_SEGPFX | INSN_66);
	if (!(i->flags & INSN_MEM))
		return;
	key->rm = 0;
	key->modrm = i->modrm & 0x38;
	if (i->flags & INSN_MOFFS)
		key->imm = 0;
}
