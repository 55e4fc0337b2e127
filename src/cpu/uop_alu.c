// SPDX-License-Identifier: MIT
/*
 * Fast handlers of the arithmetic that fills real code. The host's own instruction is the
 * semantics: each core is one inline-asm instruction between loading and taking the flags
 * image (lahf, seto). One macro makes the five operand forms of an operation in four sizes.
 */
#include "cpu/interp.h"

/* Load the image in AX into the host's flags: OF by 127 + 1, the rest by sahf. */
#define LOAD_FLAGS "addb $127, %%al\n\tsahf\n\t"
#define TAKE_FLAGS "\n\tlahf\n\tseto %%al"

/* dst = dst OP src, all flags written, none read. */
#define ALU2(op)                                                                          \
	static ALWAYS_INLINE u64 op##_core(void *d, u64 s, unsigned int size, u64 fl)     \
	{                                                                                 \
		u64 f;                                                                    \
		(void)fl;                                                                 \
		switch (size) {                                                           \
		case 1:                                                                   \
			asm(#op "b %2, %1" TAKE_FLAGS : "=&a"(f), "+m"(*(u8 *)d) : "q"((u8)s) : "cc");    \
			break;                                                            \
		case 2:                                                                   \
			asm(#op "w %2, %1" TAKE_FLAGS : "=&a"(f), "+m"(*(u16 *)d) : "r"((u16)s) : "cc");  \
			break;                                                            \
		case 4:                                                                   \
			asm(#op "l %2, %1" TAKE_FLAGS : "=&a"(f), "+m"(*(u32 *)d) : "r"((u32)s) : "cc");  \
			break;                                                            \
		default:                                                                  \
			asm(#op "q %2, %1" TAKE_FLAGS : "=&a"(f), "+m"(*(u64 *)d) : "r"(s) : "cc");       \
		}                                                                         \
		return (u16)f;                                                            \
	}

/* The same, reading CF. */
#define ALU2C(op)                                                                         \
	static ALWAYS_INLINE u64 op##_core(void *d, u64 s, unsigned int size, u64 fl)     \
	{                                                                                 \
		switch (size) {                                                           \
		case 1:                                                                   \
			asm(LOAD_FLAGS #op "b %2, %1" TAKE_FLAGS                          \
			    : "+a"(fl), "+m"(*(u8 *)d) : "q"((u8)s) : "cc");              \
			break;                                                            \
		case 2:                                                                   \
			asm(LOAD_FLAGS #op "w %2, %1" TAKE_FLAGS                          \
			    : "+a"(fl), "+m"(*(u16 *)d) : "r"((u16)s) : "cc");            \
			break;                                                            \
		case 4:                                                                   \
			asm(LOAD_FLAGS #op "l %2, %1" TAKE_FLAGS                          \
			    : "+a"(fl), "+m"(*(u32 *)d) : "r"((u32)s) : "cc");            \
			break;                                                            \
		default:                                                                  \
			asm(LOAD_FLAGS #op "q %2, %1" TAKE_FLAGS                          \
			    : "+a"(fl), "+m"(*(u64 *)d) : "r"(s) : "cc");                 \
		}                                                                         \
		return (u16)fl;                                                           \
	}

ALU2(add)
ALU2(or)
ALU2(and)
ALU2(sub)
ALU2(xor)
ALU2(cmp)
ALU2(test)
ALU2C(adc)
ALU2C(sbb)

/* INC, DEC keep CF; NEG writes all; NOT none. */
#define ALU1(op)                                                                          \
	static ALWAYS_INLINE u64 op##_core(void *d, u64 s, unsigned int size, u64 fl)     \
	{                                                                                 \
		(void)s;                                                                  \
		switch (size) {                                                           \
		case 1:                                                                   \
			asm(LOAD_FLAGS #op "b %1" TAKE_FLAGS : "+a"(fl), "+m"(*(u8 *)d) : : "cc");  \
			break;                                                            \
		case 2:                                                                   \
			asm(LOAD_FLAGS #op "w %1" TAKE_FLAGS : "+a"(fl), "+m"(*(u16 *)d) : : "cc"); \
			break;                                                            \
		case 4:                                                                   \
			asm(LOAD_FLAGS #op "l %1" TAKE_FLAGS : "+a"(fl), "+m"(*(u32 *)d) : : "cc"); \
			break;                                                            \
		default:                                                                  \
			asm(LOAD_FLAGS #op "q %1" TAKE_FLAGS : "+a"(fl), "+m"(*(u64 *)d) : : "cc"); \
		}                                                                         \
		return (u16)fl;                                                           \
	}
ALU1(inc)
ALU1(dec)
ALU1(neg)
ALU1(not)

/* Shifts and rotates by s: a count of 0 leaves the flags, so they are loaded first. */
#define SHIFT(op)                                                                         \
	static ALWAYS_INLINE u64 op##_core(void *d, u64 s, unsigned int size, u64 fl)     \
	{                                                                                 \
		switch (size) {                                                           \
		case 1:                                                                   \
			asm(LOAD_FLAGS #op "b %%cl, %1" TAKE_FLAGS                        \
			    : "+a"(fl), "+m"(*(u8 *)d) : "c"(s) : "cc");                  \
			break;                                                            \
		case 2:                                                                   \
			asm(LOAD_FLAGS #op "w %%cl, %1" TAKE_FLAGS                        \
			    : "+a"(fl), "+m"(*(u16 *)d) : "c"(s) : "cc");                 \
			break;                                                            \
		case 4:                                                                   \
			asm(LOAD_FLAGS #op "l %%cl, %1" TAKE_FLAGS                        \
			    : "+a"(fl), "+m"(*(u32 *)d) : "c"(s) : "cc");                 \
			break;                                                            \
		default:                                                                  \
			asm(LOAD_FLAGS #op "q %%cl, %1" TAKE_FLAGS                        \
			    : "+a"(fl), "+m"(*(u64 *)d) : "c"(s) : "cc");                 \
		}                                                                         \
		return (u16)fl;                                                           \
	}
SHIFT(shl)
SHIFT(shr)
SHIFT(sar)
SHIFT(rol)
SHIFT(ror)

/* A 4-byte register result clears the upper half; a core that works on memory does not. */
static ALWAYS_INLINE void widen(void *reg, unsigned int size)
{
	if (size == 4)
		*(u64 *)reg = *(u32 *)reg;
}

static ALWAYS_INLINE u64 load(const void *p, unsigned int size)
{
	u64 v = 0;

	__builtin_memcpy(&v, p, size);
	return v;
}

/* Forms: rr, ri, rm (register with memory source), mr, mi; the last three also with the
   longer address computation (x). W: the destination is written. */
#define FORMS(op, size, W)                                                                \
	static u64 op##size##_rr(struct cpu *cpu, const struct uop *u, u64 fl)            \
	{                                                                                 \
		void *d = REGP(cpu, u->dst);                                              \
		fl = op##_core(d, load(REGP(cpu, u->src), size), size, fl);               \
		if (W)                                                                    \
			widen(d, size);                                                   \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 op##size##_ri(struct cpu *cpu, const struct uop *u, u64 fl)            \
	{                                                                                 \
		void *d = REGP(cpu, u->dst);                                              \
		fl = op##_core(d, u->imm, size, fl);                                      \
		if (W)                                                                    \
			widen(d, size);                                                   \
		NEXT(u, fl);                                                              \
	}
#define MEM_FORMS(op, size, W, x)                                                         \
	static u64 op##size##_rm##x(struct cpu *cpu, const struct uop *u, u64 fl)            \
	{                                                                                 \
		void *d = REGP(cpu, u->dst), *p = tlb_read(cpu, uop_ea##x(cpu, u), size);    \
		if (unlikely(!p))                                                         \
			return uop_slow(cpu, u, fl);                                      \
		fl = op##_core(d, load(p, size), size, fl);                               \
		if (W)                                                                    \
			widen(d, size);                                                   \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 op##size##_mr##x(struct cpu *cpu, const struct uop *u, u64 fl)            \
	{                                                                                 \
		u64 ea = uop_ea##x(cpu, u);                                                  \
		void *p = W ? tlb_write(cpu, ea, size) : tlb_read(cpu, ea, size);         \
		if (unlikely(!p))                                                         \
			return uop_slow(cpu, u, fl);                                      \
		fl = op##_core(p, load(REGP(cpu, u->src), size), size, fl);               \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 op##size##_mi##x(struct cpu *cpu, const struct uop *u, u64 fl)            \
	{                                                                                 \
		u64 ea = uop_ea##x(cpu, u);                                                  \
		void *p = W ? tlb_write(cpu, ea, size) : tlb_read(cpu, ea, size);         \
		if (unlikely(!p))                                                         \
			return uop_slow(cpu, u, fl);                                      \
		fl = op##_core(p, u->imm, size, fl);                                      \
		NEXT(u, fl);                                                              \
	}
#define FORMS3(op, size, W) FORMS(op, size, W) MEM_FORMS(op, size, W, ) MEM_FORMS(op, size, W, x)
#define FORMS4(op, W) FORMS3(op, 1, W) FORMS3(op, 2, W) FORMS3(op, 4, W) FORMS3(op, 8, W)

FORMS4(add, 1)
FORMS4(or, 1)
FORMS4(adc, 1)
FORMS4(sbb, 1)
FORMS4(and, 1)
FORMS4(sub, 1)
FORMS4(xor, 1)
FORMS4(cmp, 0)
FORMS4(test, 0)

/* One-operand and shift forms: r and m; the count is imm (i) or CL (c). */
#define UNARY(op, size, suffix, COUNT)                                                    \
	static u64 op##size##_r##suffix(struct cpu *cpu, const struct uop *u, u64 fl)     \
	{                                                                                 \
		void *d = REGP(cpu, u->dst);                                              \
		fl = op##_core(d, COUNT, size, fl);                                       \
		widen(d, size);                                                           \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 op##size##_m##suffix(struct cpu *cpu, const struct uop *u, u64 fl)     \
	{                                                                                 \
		void *p = tlb_write(cpu, uop_eax(cpu, u), size);                           \
		if (unlikely(!p))                                                         \
			return uop_slow(cpu, u, fl);                                      \
		fl = op##_core(p, COUNT, size, fl);                                       \
		NEXT(u, fl);                                                              \
	}
#define UNARY4(op, x, c) UNARY(op, 1, x, c) UNARY(op, 2, x, c) UNARY(op, 4, x, c) UNARY(op, 8, x, c)

UNARY4(inc, 1, 0)
UNARY4(dec, 1, 0)
UNARY4(neg, 1, 0)
UNARY4(not, 1, 0)
UNARY4(shl, i, u->imm)
UNARY4(shr, i, u->imm)
UNARY4(sar, i, u->imm)
UNARY4(rol, i, u->imm)
UNARY4(ror, i, u->imm)
UNARY4(shl, c, cpu->regs[GPR_RCX])
UNARY4(shr, c, cpu->regs[GPR_RCX])
UNARY4(sar, c, cpu->regs[GPR_RCX])
UNARY4(rol, c, cpu->regs[GPR_RCX])
UNARY4(ror, c, cpu->regs[GPR_RCX])

/* IMUL r, r/m: flags are those of the host's two-operand form, which may leave some. */
#define IMUL(size, T)                                                                     \
	static ALWAYS_INLINE u64 imul##size(T *d, T a, T b, u64 fl)                       \
	{                                                                                 \
		asm(LOAD_FLAGS "imul %2, %1" TAKE_FLAGS : "+a"(fl), "+r"(a) : "rm"(b) : "cc"); \
		*d = a;                                                                   \
		return (u16)fl;                                                           \
	}                                                                                 \
	static u64 imul##size##_rr(struct cpu *cpu, const struct uop *u, u64 fl)          \
	{                                                                                 \
		T *d = REGP(cpu, u->dst);                                                 \
		fl = imul##size(d, *d, *(T *)REGP(cpu, u->src), fl);                      \
		widen(d, size);                                                           \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 imul##size##_rm(struct cpu *cpu, const struct uop *u, u64 fl)          \
	{                                                                                 \
		T *d = REGP(cpu, u->dst);                                                 \
		const void *p = tlb_read(cpu, uop_eax(cpu, u), size);                     \
		if (unlikely(!p))                                                         \
			return uop_slow(cpu, u, fl);                                      \
		fl = imul##size(d, *d, load(p, size), fl);                                \
		widen(d, size);                                                           \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 imul##size##_rri(struct cpu *cpu, const struct uop *u, u64 fl)         \
	{                                                                                 \
		T *d = REGP(cpu, u->dst);                                                 \
		fl = imul##size(d, *(T *)REGP(cpu, u->src), u->imm, fl);                  \
		widen(d, size);                                                           \
		NEXT(u, fl);                                                              \
	}
IMUL(4, u32)
IMUL(8, u64)

/* BT r, imm/r with a register operand. */
#define BT(size, T, s)                                                                    \
	static u64 bt##size##_rr(struct cpu *cpu, const struct uop *u, u64 fl)            \
	{                                                                                 \
		asm(LOAD_FLAGS "bt" s " %2, %1" TAKE_FLAGS                                \
		    : "+a"(fl)                                                            \
		    : "r"(*(T *)REGP(cpu, u->dst)), "r"(*(T *)REGP(cpu, u->src))          \
		    : "cc");                                                              \
		NEXT(u, (u16)fl);                                                         \
	}                                                                                 \
	static u64 bt##size##_ri(struct cpu *cpu, const struct uop *u, u64 fl)            \
	{                                                                                 \
		asm(LOAD_FLAGS "bt" s " %2, %1" TAKE_FLAGS                                \
		    : "+a"(fl)                                                            \
		    : "r"(*(T *)REGP(cpu, u->dst)), "r"((T)u->imm)                        \
		    : "cc");                                                              \
		NEXT(u, (u16)fl);                                                         \
	}
BT(4, u32, "l")
BT(8, u64, "q")

enum form { RR, RI, RM, MR, MI, RMX, MRX, MIX, NR_FORMS };

#define FORM_ROW(o) {o##_rr, o##_ri, o##_rm, o##_mr, o##_mi, o##_rmx, o##_mrx, o##_mix}
#define TABLE(o) {                                                                        \
		FORM_ROW(o##1),                            \
		FORM_ROW(o##2),                            \
		FORM_ROW(o##4),                            \
		FORM_ROW(o##8)}
#define TABLE1(o, x)                                                                      \
	{{o##1_r##x, o##1_m##x}, {o##2_r##x, o##2_m##x}, {o##4_r##x, o##4_m##x}, {o##8_r##x, o##8_m##x}}

static uop_fn *const two_operand[][4][NR_FORMS] = {
	[OP_ADD] = TABLE(add), [OP_OR] = TABLE(or), [OP_ADC] = TABLE(adc), [OP_SBB] = TABLE(sbb),
	[OP_AND] = TABLE(and), [OP_SUB] = TABLE(sub), [OP_XOR] = TABLE(xor), [OP_CMP] = TABLE(cmp),
	[OP_TEST] = TABLE(test),
};
static uop_fn *const one_operand[][4][2] = {
	[OP_INC] = TABLE1(inc, 1), [OP_DEC] = TABLE1(dec, 1),
	[OP_NEG] = TABLE1(neg, 1), [OP_NOT] = TABLE1(not, 1),
};
static uop_fn *const shift_imm[][4][2] = {
	[OP_SHL] = TABLE1(shl, i), [OP_SHR] = TABLE1(shr, i), [OP_SAR] = TABLE1(sar, i),
	[OP_ROL] = TABLE1(rol, i), [OP_ROR] = TABLE1(ror, i),
};
static uop_fn *const shift_cl[][4][2] = {
	[OP_SHL] = TABLE1(shl, c), [OP_SHR] = TABLE1(shr, c), [OP_SAR] = TABLE1(sar, c),
	[OP_ROL] = TABLE1(rol, c), [OP_ROR] = TABLE1(ror, c),
};

static unsigned int log2_size(unsigned int size)
{
	return __builtin_ctz(size);
}

static bool is_general(u8 kind)
{
	return kind == OPND_E || kind == OPND_G || kind == OPND_FIX || kind == OPND_Z;
}

static unsigned int opnd_regno(const struct insn *i, const struct operand *o)
{
	return o->kind == OPND_E ? i->rm : o->kind == OPND_FIX ? o->fixed : i->reg;
}

/* AL as a fixed operand is never a high byte, and neither is CL. */
static u16 opnd_off(const struct insn *i, const struct operand *o, unsigned int size)
{
	return o->kind == OPND_FIX ? 8 * o->fixed : uop_reg(i, opnd_regno(i, o), size);
}

static uop_fn *choose_two(const struct uop_choice *c, struct uop *u, unsigned int size)
{
	const struct operand *a = &c->row->opnd[0], *b = &c->row->opnd[1];
	bool mem = c->i->flags & INSN_MEM;
	enum form form;

	if (!is_general(a->kind) || !(is_general(b->kind) || b->kind == OPND_I))
		return NULL;
	if (!mem)
		form = b->kind == OPND_I ? RI : RR;
	else
		form = (a->kind != OPND_E ? RM : b->kind == OPND_I ? MI : MR) + (c->eax ? 3 : 0);
	if (!(mem && a->kind == OPND_E))
		u->dst = opnd_off(c->i, a, size);
	if (b->kind != OPND_I && !(mem && b->kind == OPND_E))
		u->src = opnd_off(c->i, b, size);
	return two_operand[insn_op(c->i)][log2_size(size)][form];
}

static uop_fn *choose_shift(const struct uop_choice *c, unsigned int size, bool mem)
{
	const struct operand *count = &c->row->opnd[1];
	unsigned int op = insn_op(c->i), k = log2_size(size);

	if (op >= ARRAY_SIZE(shift_imm))
		return NULL;
	return count->kind == OPND_FIX ? shift_cl[op][k][mem] : shift_imm[op][k][mem];
}

static uop_fn *choose_imul(const struct uop_choice *c, struct uop *u, unsigned int size, bool mem)
{
	bool three = c->row->opnd[2].kind == OPND_I;

	if (c->row->opnd[0].kind != OPND_G || size < 4 || (three && mem))
		return NULL;
	u->dst = 8 * c->i->reg;
	u->src = 8 * c->i->rm;
	if (three)
		return size == 4 ? imul4_rri : imul8_rri;
	if (mem)
		return size == 4 ? imul4_rm : imul8_rm;
	return size == 4 ? imul4_rr : imul8_rr;
}

static uop_fn *choose_bt(const struct uop_choice *c, struct uop *u, unsigned int size, bool mem)
{
	bool imm = c->row->opnd[1].kind == OPND_I;

	if (mem || size < 4)
		return NULL;
	u->dst = 8 * c->i->rm;
	u->src = 8 * c->i->reg;
	if (imm)
		return size == 4 ? bt4_ri : bt8_ri;
	return size == 4 ? bt4_rr : bt8_rr;
}

uop_fn *uop_alu(const struct uop_choice *c, struct uop *u)
{
	unsigned int op = insn_op(c->i), size = insn_opnd_size(c->i, 0);
	bool mem = c->i->flags & INSN_MEM;

	if ((mem && !c->mem) || (c->i->flags & INSN_LOCK) || !size || size > 8)
		return NULL;
	u->imm = c->row->opnd[1].kind == OPND_ONE ? 1 : c->i->imm;
	if (op < ARRAY_SIZE(two_operand) && two_operand[op][0][0])
		return choose_two(c, u, size);
	if (op == OP_IMUL)
		return choose_imul(c, u, size, mem);
	if (op == OP_BT)
		return choose_bt(c, u, size, mem);
	if (c->row->opnd[0].kind != OPND_E && c->row->opnd[0].kind != OPND_Z)
		return NULL;
	if (!mem)
		u->dst = opnd_off(c->i, &c->row->opnd[0], size);
	if (op < ARRAY_SIZE(one_operand) && one_operand[op][0][0])
		return one_operand[op][log2_size(size)][mem];
	return choose_shift(c, size, mem);
}
