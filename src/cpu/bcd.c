// SPDX-License-Identifier: MIT
/*
 * Decimal adjustment (SDM 2A DAA, AAA, ...): the only arithmetic without a host
 * instruction in 64-bit mode, so written out from the manual's pseudo code. Flags that the
 * manual leaves undefined are as the Zen cores have them: computed from the result in AL.
 */
#include "cpu/exec.h"

static u64 szp_flags(u8 v)
{
	return (v & 0x80 ? FI_SF : 0) | (v ? 0 : FI_ZF) | (__builtin_parity(v) ? 0 : FI_PF) | 0x200;
}

static enum stop adjust_packed(struct cpu *cpu, int sign)
{
	u8 al = cpu->regs[GPR_RAX], old = al;
	bool old_cf = cpu->fl & FI_CF, cf = false, af = false;

	if ((al & 15) > 9 || (cpu->fl & FI_AF)) {
		cf = old_cf || (sign > 0 ? al > 0xff - 6 : al < 6);
		al += 6 * sign;
		af = true;
	}
	if (old > 0x99 || old_cf) {
		al += 0x60 * sign;
		cf = true;
	}
	reg_set(cpu, GPR_RAX, 1, al);
	cpu->fl = szp_flags(al) | (cf ? FI_CF : 0) | (af ? FI_AF : 0);
	return STOP_OK;
}

enum stop exec_daa(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	return adjust_packed(cpu, 1);
}

enum stop exec_das(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	return adjust_packed(cpu, -1);
}

static enum stop adjust_unpacked(struct cpu *cpu, int sign)
{
	u16 ax = cpu->regs[GPR_RAX];
	bool carry = (ax & 15) > 9 || (cpu->fl & FI_AF);

	if (carry)
		ax += sign * 0x106;
	ax &= 0xff0f;
	reg_set(cpu, GPR_RAX, 2, ax);
	cpu->fl = szp_flags(ax) | (carry ? FI_CF | FI_AF : 0);
	return STOP_OK;
}

enum stop exec_aaa(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	return adjust_unpacked(cpu, 1);
}

enum stop exec_aas(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	return adjust_unpacked(cpu, -1);
}

enum stop exec_aam(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u8 al = cpu->regs[GPR_RAX], base = i->imm;

	(void)e;
	if (!base)
		return cpu_raise(cpu, EXC_DE);
	reg_set(cpu, GPR_RAX, 2, (al / base) << 8 | al % base);
	cpu->fl = szp_flags(al % base);
	return STOP_OK;
}

enum stop exec_aad(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u16 ax = cpu->regs[GPR_RAX];
	u8 al = (ax >> 8) * (u8)i->imm + ax;

	(void)e;
	reg_set(cpu, GPR_RAX, 2, al);
	cpu->fl = szp_flags(al);
	return STOP_OK;
}

enum stop exec_salc(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	reg_set(cpu, GPR_RAX, 1, cpu->fl & FI_CF ? 0xff : 0);
	return STOP_OK;
}
