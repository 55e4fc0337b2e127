// SPDX-License-Identifier: MIT
/* MOV, LEA, XLAT, BOUND, sign extensions, and the instructions that do nothing. */
#include "cpu/exec.h"

enum stop exec_mov(struct cpu *cpu, const struct insn *i, struct env *e)
{
	struct opnd d, s;

	TRY(opnd_map(e, i, 0, &d));
	TRY(opnd_map(e, i, 1, &s));
	TRY(env_begin(e));
	return opnd_put(e, i, &d, opnd_get(cpu, i, &s));
}

enum stop exec_lea(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)e;
	reg_set(cpu, i->reg, i->osz, insn_ea(cpu, i));
	return STOP_OK;
}

enum stop exec_nop(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)cpu, (void)i, (void)e;
	return STOP_OK;
}

/* Caches are coherent here; what is left is that the address must be readable (SDM 2A CLFLUSH). */
enum stop exec_clflush(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return env_prove(e, i->seg, insn_ea(cpu, i), 1, MMU_R);
}

enum stop exec_cld(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)e;
	if (insn_op(i) == OP_CLD)
		cpu->eflags &= ~EFL_DF;
	else
		cpu->eflags |= EFL_DF;
	return STOP_OK;
}

enum stop exec_xlat(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 ea = zext(cpu->regs[GPR_RBX] + (u8)cpu->regs[GPR_RAX], i->asz);
	u8 v;

	TRY(env_read(e, i->seg, ea, 1, &v));
	reg_set(cpu, GPR_RAX, 1, v);
	return STOP_OK;
}

enum stop exec_bound(struct cpu *cpu, const struct insn *i, struct env *e)
{
	s64 index = sext(cpu->regs[i->reg], i->osz), low, high;
	u8 bounds[16];
	u64 v = 0;

	/* two bounds, not one operand of twice the size (SDM 3A table 6-7) */
	TRY(env_check_ac(e, i->seg, insn_ea(cpu, i), 2 * i->osz, i->osz));
	e->no_ac = true;
	TRY(env_read(e, i->seg, insn_ea(cpu, i), 2 * i->osz, bounds));
	__builtin_memcpy(&v, bounds, i->osz);
	low = sext(v, i->osz);
	__builtin_memcpy(&v, bounds + i->osz, i->osz);
	high = sext(v, i->osz);
	return index < low || index > high ? cpu_raise(cpu, EXC_BR) : STOP_OK;
}

/* AX = AL, EAX = AX, RAX = EAX, sign-extended. */
enum stop exec_cbw(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)e;
	reg_set(cpu, GPR_RAX, i->osz, sext(cpu->regs[GPR_RAX], i->osz / 2));
	return STOP_OK;
}

enum stop exec_cwd(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)e;
	reg_set(cpu, GPR_RDX, i->osz, sext(cpu->regs[GPR_RAX], i->osz) < 0 ? ~0ull : 0);
	return STOP_OK;
}
