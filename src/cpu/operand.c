// SPDX-License-Identifier: MIT
/* Registers, effective addresses and the generic integer operand of the C handlers. */
#include "cpu/exec.h"

u64 reg_get(const struct cpu *cpu, unsigned int n, unsigned int size)
{
	return zext(cpu->regs[n], size);
}

void reg_set(struct cpu *cpu, unsigned int n, unsigned int size, u64 v)
{
	if (size >= 4)
		cpu->regs[n] = zext(v, size);
	else
		__builtin_memcpy(&cpu->regs[n], &v, size);
}

/* Without REX, byte registers 4..7 are AH CH DH BH (SDM 2A 3.1.1.1). */
static bool is_high8(const struct insn *i, unsigned int n)
{
	return !(i->flags & (INSN_REX | INSN_VEX)) && n >= 4 && n < 8;
}

u64 reg8_get(const struct cpu *cpu, const struct insn *i, unsigned int n)
{
	return is_high8(i, n) ? (u8)(cpu->regs[n - 4] >> 8) : (u8)cpu->regs[n];
}

void reg8_set(struct cpu *cpu, const struct insn *i, unsigned int n, u8 v)
{
	u8 *bytes = (u8 *)&cpu->regs[is_high8(i, n) ? n - 4 : n];

	bytes[is_high8(i, n)] = v;
}

/* Number of the general register that a register operand names. */
static unsigned int opnd_reg(const struct insn *i, const struct operand *o)
{
	switch (o->kind) {
	case OPND_E:
	case OPND_R:
		return i->rm;
	case OPND_B:
		return i->vvvv;
	case OPND_FIX:
		return o->fixed;
	default:
		return i->reg;
	}
}

enum stop opnd_map_mem(struct env *e, const struct insn *i, struct opnd *o)
{
	return env_map(e, &o->a, i->seg, insn_ea(e->cpu, i), o->size,
		(o->o->acc & ACC_R ? MMU_R : 0) | (o->o->acc & ACC_W ? MMU_W : 0));
}

u64 opnd_get_reg(const struct cpu *cpu, const struct insn *i, const struct opnd *o)
{
	unsigned int n;

	if (o->o->kind == OPND_I || o->o->kind == OPND_J)
		return i->imm;
	if (o->o->kind == OPND_ONE)
		return 1;
	n = opnd_reg(i, o->o);
	/* fixed byte registers (AL, CL) are never high bytes */
	if (o->size == 1 && o->o->kind != OPND_FIX)
		return reg8_get(cpu, i, n);
	return reg_get(cpu, n, o->size);
}

void opnd_put_reg(struct cpu *cpu, const struct insn *i, const struct opnd *o, u64 v)
{
	unsigned int n = opnd_reg(i, o->o);

	if (o->size == 1 && o->o->kind != OPND_FIX)
		reg8_set(cpu, i, n, v);
	else
		reg_set(cpu, n, o->size, v);
}

/* SDM 1 appendix B: bit 0 of cc negates. */
bool cond_true(u64 fl, unsigned int cc)
{
	bool sf = fl & FI_SF, zf = fl & FI_ZF, cf = fl & FI_CF, of = fl & FI_OF;
	bool t;

	switch (cc >> 1) {
	case 0: t = of; break;
	case 1: t = cf; break;
	case 2: t = zf; break;
	case 3: t = cf || zf; break;
	case 4: t = sf; break;
	case 5: t = fl & FI_PF; break;
	case 6: t = sf != of; break;
	default: t = zf || sf != of; break;
	}
	return t != (cc & 1);
}
