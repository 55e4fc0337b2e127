// SPDX-License-Identifier: MIT
/* PUSH, POP and their many-part kin, on the stack in use. Other stacks: stack.c. */
#include "cpu/exec.h"

u64 stack_mask(const struct cpu *cpu)
{
	if (cpu->mode == MODE_64)
		return ~0ull;
	return cpu->seg[SEG_SS].attr & SEGA_DB ? 0xffffffff : 0xffff;
}

enum stop stack_map_push(struct env *e, struct access *a, u32 below, u32 n)
{
	u64 ea = (e->cpu->regs[GPR_RSP] - below - n) & stack_mask(e->cpu);

	return env_map(e, a, SEG_SS, ea, n, MMU_W);
}

enum stop stack_map_pop(struct env *e, struct access *a, u32 above, u32 n)
{
	u64 ea = (e->cpu->regs[GPR_RSP] + above) & stack_mask(e->cpu);

	return env_map(e, a, SEG_SS, ea, n, MMU_R);
}

/* RSP = v under the stack's mask: a 16-bit stack keeps bits 31..16 of ESP. */
static void stack_set(struct cpu *cpu, u64 v)
{
	u64 mask = stack_mask(cpu), sp = cpu->regs[GPR_RSP];

	cpu->regs[GPR_RSP] = (sp & ~mask) | (v & mask);
}

void stack_move(struct cpu *cpu, s64 by)
{
	stack_set(cpu, cpu->regs[GPR_RSP] + by);
}

static bool is_segment(u8 kind)
{
	return kind == OPND_S || kind == OPND_FIXSEG;
}

static unsigned int segment_of(const struct insn *i, const struct operand *o)
{
	return o->kind == OPND_FIXSEG ? o->fixed : i->reg;
}

enum stop exec_push(struct cpu *cpu, const struct insn *i, struct env *e)
{
	const struct operand *o = &insn_row(i)->opnd[0];
	struct opnd src;
	struct access a;
	u64 v;

	if (is_segment(o->kind))
		v = cpu->seg[segment_of(i, o)].sel;
	else
		TRY(opnd_map(e, i, 0, &src));
	TRY(stack_map_push(e, &a, 0, i->osz));
	TRY(env_begin(e));
	if (!is_segment(o->kind))
		v = opnd_get(cpu, i, &src);
	access_set(&a, v);
	TRY(env_flush(e, &a));
	stack_move(cpu, -(s64)i->osz);
	return STOP_OK;
}

static enum stop pop_segment(struct cpu *cpu, const struct insn *i, struct env *e, enum seg seg)
{
	struct access a;

	TRY(stack_map_pop(e, &a, 0, i->osz));
	TRY(env_begin(e));
	TRY(seg_load(e, seg, access_get(&a)));
	stack_move(cpu, i->osz);
	if (seg == SEG_SS)
		cpu->shadow = cpu->shadow_ss = true;
	cpu_update(cpu);
	return STOP_OK;
}

/* POP m: the address is computed with RSP already moved (SDM 2B POP). */
static enum stop pop_memory(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 old = cpu->regs[GPR_RSP], ea;
	struct access from, to;

	stack_move(cpu, i->osz);
	ea = insn_ea(cpu, i);
	cpu->regs[GPR_RSP] = old;
	TRY(stack_map_pop(e, &from, 0, i->osz));
	TRY(env_map(e, &to, i->seg, ea, i->osz, MMU_W));
	TRY(env_begin(e));
	access_set(&to, access_get(&from));
	TRY(env_flush(e, &to));
	stack_move(cpu, i->osz);
	return STOP_OK;
}

enum stop exec_pop(struct cpu *cpu, const struct insn *i, struct env *e)
{
	const struct operand *o = &insn_row(i)->opnd[0];
	struct access a;

	if (is_segment(o->kind))
		return pop_segment(cpu, i, e, segment_of(i, o));
	if (i->flags & INSN_MEM)
		return pop_memory(cpu, i, e);
	TRY(stack_map_pop(e, &a, 0, i->osz));
	TRY(env_begin(e));
	stack_move(cpu, i->osz); /* before the register: POP RSP keeps the popped value */
	reg_set(cpu, o->kind == OPND_E ? i->rm : i->reg, i->osz, access_get(&a));
	return STOP_OK;
}

/*
 * The pushes before one that faults are made, and RSP stays: so do the host's AMD processors, and
 * so it must look where the stack is a device (C34).
 */
enum stop exec_pusha(struct cpu *cpu, const struct insn *i, struct env *e)
{
	enum stop stop = STOP_OK;
	struct exception exc;
	struct access a[8];
	unsigned int n;

	for (n = 0; n < 8 && !stop; n++)
		stop = stack_map_push(e, &a[n], n * i->osz, i->osz);
	if (stop)
		n--;
	if (stop && (stop != STOP_EXC || !n))
		return stop;
	exc = cpu->exc;
	TRY(env_begin(e));
	for (unsigned int k = 0; k < n; k++) {
		access_set(&a[k], cpu->regs[k]);
		TRY(env_flush(e, &a[k]));
	}
	if (stop) {
		cpu->exc = exc;
		return stop;
	}
	stack_move(cpu, -8 * (s64)i->osz);
	return STOP_OK;
}

/* ESP's place is skipped, not even read (SDM 2B POPA). */
enum stop exec_popa(struct cpu *cpu, const struct insn *i, struct env *e)
{
	struct access a[8];

	for (unsigned int k = 0; k < 8; k++)
		if (k != 3)
			TRY(stack_map_pop(e, &a[k], k * i->osz, i->osz));
	TRY(env_begin(e));
	for (unsigned int k = 0; k < 8; k++)
		if (k != 3)
			reg_set(cpu, 7 - k, i->osz, access_get(&a[k]));
	stack_move(cpu, 8 * (s64)i->osz);
	return STOP_OK;
}

/* Push n bytes of v, `below` the current RSP. */
static enum stop push_at(struct env *e, u32 below, u32 n, u64 v)
{
	struct access a;

	TRY(stack_map_push(e, &a, below, n));
	TRY(env_begin(e));
	access_set(&a, v);
	return env_flush(e, &a);
}

/* Copy the frame pointers of levels 1..level-1 (SDM 2A ENTER). */
static enum stop copy_display(struct env *e, const struct insn *i, unsigned int level)
{
	u64 mask = stack_mask(e->cpu), v;

	for (unsigned int k = 1; k < level; k++) {
		v = 0;
		TRY(env_read(e, SEG_SS, (e->cpu->regs[GPR_RBP] - k * i->osz) & mask, i->osz, &v));
		TRY(push_at(e, k * i->osz, i->osz, v));
	}
	return STOP_OK;
}

enum stop exec_enter(struct cpu *cpu, const struct insn *i, struct env *e)
{
	unsigned int level = i->imm2 & 31, n = i->osz;
	u32 pushed = n * (level ? level + 1 : 1), size = (u16)i->imm;
	u64 mask = stack_mask(cpu), sp = cpu->regs[GPR_RSP], frame = sp - n;

	/* all writes are proved first, and the byte that the new RSP will point at */
	TRY(env_prove(e, SEG_SS, (sp - pushed) & mask, pushed, MMU_W));
	TRY(env_prove(e, SEG_SS, (sp - pushed - size) & mask, 1, MMU_W));
	TRY(env_check_ac(e, SEG_SS, (sp - pushed - size) & mask, n, n));
	TRY(push_at(e, 0, n, cpu->regs[GPR_RBP]));
	TRY(copy_display(e, i, level));
	if (level)
		TRY(push_at(e, level * n, n, (sp & ~mask) | (frame & mask)));
	stack_set(cpu, sp - pushed - size);
	reg_set(cpu, GPR_RBP, n, (sp & ~mask) | (frame & mask));
	return STOP_OK;
}

enum stop exec_leave(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 bp = cpu->regs[GPR_RBP], mask = stack_mask(cpu);
	struct access a;

	TRY(env_map(e, &a, SEG_SS, bp & mask, i->osz, MMU_R));
	TRY(env_begin(e));
	stack_set(cpu, bp + i->osz);
	reg_set(cpu, GPR_RBP, i->osz, access_get(&a));
	return STOP_OK;
}
