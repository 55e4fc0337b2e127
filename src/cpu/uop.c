// SPDX-License-Identifier: MIT
/*
 * Choosing a handler when a block is built: a fast one if there is one for this form and
 * mode, a cached native thunk for simple class N instructions, else the slow path.
 */
#include "cpu/interp.h"

#include "cpu/native.h"

u16 uop_reg(const struct insn *i, unsigned int n, unsigned int size)
{
	bool high = size == 1 && !(i->flags & (INSN_REX | INSN_VEX)) && n >= 4 && n < 8;

	return high ? 8 * (n - 4) + 1 : 8 * n;
}

/* ---- class N through a thunk: no FP exceptions, no division, no alignment rule ---- */

static u64 native_r(struct cpu *cpu, const struct uop *u, u64 fl)
{
	cpu->fl = fl;
	u->native(cpu, NULL);
	NEXT(u, cpu->fl);
}

static u64 native_read(struct cpu *cpu, const struct uop *u, u64 fl)
{
	void *p = tlb_read(cpu, uop_eax(cpu, u), u->size);

	if (unlikely(!p))
		return uop_slow(cpu, u, fl);
	cpu->fl = fl;
	u->native(cpu, p);
	NEXT(u, cpu->fl);
}

static u64 native_write(struct cpu *cpu, const struct uop *u, u64 fl)
{
	u64 ea = uop_eax(cpu, u);
	void *p = tlb_write(cpu, ea, u->size);

	/* a page that may be written may be read: W is only proved together with R */
	if (unlikely(!p))
		return uop_slow(cpu, u, fl);
	cpu->fl = fl;
	u->native(cpu, p);
	NEXT(u, cpu->fl);
}

#define NOT_SIMPLE (RULE_MXCSR | RULE_X87 | RULE_MMX | RULE_ALIGN | RULE_SSE | RULE_AVX | RULE_CPL0 | \
		    RULE_PROT | RULE_BRANCH | RULE_ENDTB)

/* BT and kin with a register bit offset address memory far from their operand. */
static bool far_bit(const struct uop_choice *c)
{
	unsigned int op = insn_op(c->i);

	return (op == OP_BT || op == OP_BTS || op == OP_BTR || op == OP_BTC) &&
		c->row->opnd[1].kind != OPND_I;
}

uop_fn *uop_native(struct cpu *cpu, const struct uop_choice *c, struct uop *u)
{
	unsigned int op = insn_op(c->i);
	bool mem = c->i->flags & INSN_MEM;

	if (c->row->cls != CLASS_N || (c->row->rules & NOT_SIMPLE) || op == OP_DIV || op == OP_IDIV)
		return NULL;
	if ((c->row->cpuf && !cpu->features[c->row->cpuf]) || (mem && (!c->mem || far_bit(c))))
		return NULL;
	u->native = native_get(cpu->native, c->i);
	if (!u->native)
		return NULL;
	if (!mem)
		return native_r;
	u->size = insn_mem_size(c->i);
	if (!u->size)
		return NULL;
	return insn_mem_acc(c->i) & ACC_W ? native_write : native_read;
}

/* Memory operand in the uop's terms: RIP-relative counts from the block's first byte. */
static bool set_memory(struct uop *u, const struct insn *i)
{
	s64 disp = i->disp;

	u->base = 8 * i->rm;
	u->index = i->index;
	u->scale_seg = i->scale | i->seg << 4;
	if (i->flags & INSN_MOFFS) { /* 32-bit code's only: the address mask takes care of the sign */
		u->base = 8 * GPR_ZERO;
		disp = (s32)i->imm;
	}
	if (i->rm == GPR_RIP)
		disp += u->off + i->len;
	u->disp = disp;
	return u->disp == disp;
}

/* No check is left for this memory operand but the TLB's: 64-bit code, flat 32-bit code. */
static bool plain_memory(const struct cpu *cpu, const struct insn *i, u32 mode_bits)
{
	if (cpu->mode == MODE_64)
		return i->asz == 8 && !(i->flags & INSN_MOFFS);
	if (!(mode_bits & TBM_FLAT) || i->asz != 4 || i->seg == SEG_CS)
		return false;
	return i->seg == SEG_FS ? mode_bits & TBM_FS : i->seg == SEG_GS ? mode_bits & TBM_GS : true;
}

void uop_select(struct cpu *cpu, struct uop *u, const struct insn *i, u32 mode_bits)
{
	struct uop_choice c = {
		.cpu = cpu,
		.i = i,
		.row = insn_row(i),
		.eax = i->index != GPR_ZERO || i->seg >= SEG_FS || cpu->mode != MODE_64,
		.mem = plain_memory(cpu, i, mode_bits),
		.flat = mode_bits & TBM_FLAT,
	};

	u->fn = NULL;
	u->len = i->len;
	if (((i->flags & INSN_MEM) && !set_memory(u, i)) || !OPT_UOPS)
		mode_bits |= TBM_SLOW;
	if (!(mode_bits & TBM_SLOW)) {
		u->fn = uop_alu(&c, u);
		if (!u->fn)
			u->fn = uop_move(&c, u);
		if (!u->fn)
			u->fn = uop_branch(&c, u);
		if (!u->fn)
			u->fn = uop_flags(&c, u);
		if (!u->fn)
			u->fn = uop_string(&c, u);
		if (!u->fn)
			u->fn = uop_native(cpu, &c, u);
	}
	if (!u->fn)
		u->fn = uop_slow;
}
