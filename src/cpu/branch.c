// SPDX-License-Identifier: MIT
/* Near branches: targets are checked before anything is committed. */
#include "cpu/exec.h"

enum stop branch_to(struct cpu *cpu, const struct insn *i, u64 target)
{
	if (cpu->mode == MODE_64) {
		/* DIFFERS: with a 66 prefix AMD cuts RIP to 16 bits; like Intel we ignore it */
		if (!mmu_canonical(&cpu->mmu.paging, gva(target)))
			return cpu_gp(cpu, 0);
	} else {
		target = i->osz == 2 ? (u16)target : (u32)target;
		if (target > cpu->seg[SEG_CS].limit)
			return cpu_gp(cpu, 0);
	}
	cpu->next_rip = target;
	return STOP_OK;
}

enum stop exec_jcc(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)e;
	if (!cond_true(cpu->fl, i->opcode & 15))
		return STOP_OK;
	return branch_to(cpu, i, cpu->next_rip + i->imm);
}

/* Target of JMP and CALL: relative, or a register or memory operand. */
static u64 target_of(const struct cpu *cpu, const struct insn *i, const struct opnd *o)
{
	u64 v = opnd_get(cpu, i, o);

	return o->o->kind == OPND_J ? cpu->next_rip + v : v;
}

enum stop exec_jmp(struct cpu *cpu, const struct insn *i, struct env *e)
{
	struct opnd o;

	TRY(opnd_map(e, i, 0, &o));
	TRY(env_begin(e));
	return branch_to(cpu, i, target_of(cpu, i, &o));
}

enum stop exec_call(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 ret = cpu->next_rip;
	struct access a;
	struct opnd o;

	TRY(opnd_map(e, i, 0, &o));
	TRY(stack_map_push(e, &a, 0, i->osz));
	TRY(env_begin(e));
	TRY(branch_to(cpu, i, target_of(cpu, i, &o)));
	access_set(&a, ret);
	TRY(env_flush(e, &a));
	stack_move(cpu, -(s64)i->osz);
	return STOP_OK;
}

enum stop exec_ret(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u32 release = insn_row(i)->opnd[0].kind == OPND_I ? (u16)i->imm : 0;
	struct access a;

	TRY(stack_map_pop(e, &a, 0, i->osz));
	TRY(env_begin(e));
	TRY(branch_to(cpu, i, access_get(&a)));
	stack_move(cpu, i->osz + release);
	return STOP_OK;
}

enum stop exec_loop(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 count = zext(cpu->regs[GPR_RCX] - 1, i->asz);
	enum insn_op op = insn_op(i);
	bool zf = cpu->fl & FI_ZF;

	(void)e;
	if (count && (op == OP_LOOP || zf == (op == OP_LOOPE)))
		TRY(branch_to(cpu, i, cpu->next_rip + i->imm));
	reg_set(cpu, GPR_RCX, i->asz, count);
	return STOP_OK;
}

enum stop exec_jcxz(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)e;
	if (zext(cpu->regs[GPR_RCX], i->asz))
		return STOP_OK;
	return branch_to(cpu, i, cpu->next_rip + i->imm);
}
