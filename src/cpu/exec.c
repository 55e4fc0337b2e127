// SPDX-License-Identifier: MIT
/*
 * One instruction, any environment: the checks that every instruction shares, then its
 * handler. Class N instructions have no handler of their own: exec_native runs the host's.
 */
#include "cpu/exec.h"

#include "base/hard.h"
#include "base/log.h"

static exec_fn *const handlers[NR_OPS] = {
#define HANDLER(op, fn) [OP_##op] = fn,
#include "cpu/handlers_int.def"
#include "cpu/handlers_system.def"
#include "cpu/handlers_fpu.def"
#undef HANDLER
};

/* Whether the guest gets #UD or its VMM an exit is decided above (DESIGN.md 9, C48). */
static enum stop unimplemented(struct cpu *cpu, const struct insn *i)
{
	char text[96];

	insn_text(i, text, sizeof(text));
	log_once("instruction not implemented: %s", text);
	return cpu_fail(cpu, "instruction not implemented");
}

static enum stop check_avx(struct cpu *cpu)
{
	if (!cpu_prot(cpu) || !(cpu->cr4 & CR4_OSXSAVE) || (cpu->xcr0 & 6) != 6)
		return cpu_ud(cpu);
	return cpu->cr0 & CR0_TS ? cpu_raise(cpu, EXC_NM) : STOP_OK;
}

static enum stop check_sse(struct cpu *cpu)
{
	if ((cpu->cr0 & CR0_EM) || !(cpu->cr4 & CR4_OSFXSR))
		return cpu_ud(cpu);
	return cpu->cr0 & CR0_TS ? cpu_raise(cpu, EXC_NM) : STOP_OK;
}

/*
 * An unmasked x87 exception is waiting. The summary bit ES says so too, but it may be what the
 * client has set: the host's processor goes by flags and masks when it loads the state.
 */
static enum stop check_pending_x87(struct cpu *cpu)
{
	u16 control, status;

	__builtin_memcpy(&control, &cpu->fpu.fx[0], 2);
	__builtin_memcpy(&status, &cpu->fpu.fx[2], 2);
	return status & ~control & 0x3f ? cpu_raise(cpu, EXC_MF) : STOP_OK;
}

static enum stop check_x87(struct cpu *cpu, u32 rules)
{
	if (cpu->cr0 & (CR0_EM | CR0_TS))
		return cpu_raise(cpu, EXC_NM);
	return rules & RULE_X87NW ? STOP_OK : check_pending_x87(cpu);
}

static enum stop check_mmx(struct cpu *cpu)
{
	if (cpu->cr0 & CR0_EM)
		return cpu_ud(cpu);
	if (cpu->cr0 & CR0_TS)
		return cpu_raise(cpu, EXC_NM);
	return check_pending_x87(cpu);
}

#define RULES_FPU (RULE_AVX | RULE_SSE | RULE_MMX | RULE_X87)

static enum stop check_fpu(struct cpu *cpu, u32 rules)
{
	if (rules & RULE_AVX)
		return check_avx(cpu);
	if (rules & RULE_SSE)
		TRY(check_sse(cpu));
	if (rules & RULE_MMX)
		TRY(check_mmx(cpu));
	if (rules & RULE_X87)
		TRY(check_x87(cpu, rules));
	return STOP_OK;
}

/* SDM 3A 6.9: #UD comes before #NM and #GP. Out of line: most instructions have no rules. */
static NOINLINE enum stop check_rules(struct cpu *cpu, const struct insn_row *r)
{
	if (r->cls == CLASS_UD)
		return cpu_ud(cpu);
	if (r->cpuf && !cpu->features[r->cpuf])
		return cpu_ud(cpu);
	if ((r->rules & RULE_PROT) && !cpu_prot(cpu))
		return cpu_ud(cpu);
	TRY(check_fpu(cpu, r->rules));
	if ((r->rules & RULE_CPL0) && cpu->cpl)
		return cpu_gp(cpu, 0);
	return STOP_OK;
}

enum stop cpu_exec(struct cpu *cpu, const struct insn *i, struct env *e)
{
	const struct insn_row *r = insn_row(i);
	exec_fn *fn = handlers[r->op];
	enum stop stop;

	e->locked = !OPT_DIRECT && ((i->flags & INSN_LOCK) || r->op == OP_XCHG);
	if (r->cls == CLASS_UD || r->cpuf || (r->rules & (RULE_PROT | RULE_CPL0 | RULES_FPU)))
		TRY(check_rules(cpu, r));
	if (!fn)
		fn = r->cls == CLASS_N ? exec_native : NULL;
	if (!fn)
		return unimplemented(cpu, i);
	cpu->completion = DONE_PLAIN;
	cpu->next_rip = cpu->rip + i->len;
	if (cpu->mode != MODE_64)
		cpu->next_rip = (u32)cpu->next_rip;
	stop = fn(cpu, i, e);
	if (stop == STOP_OK || stop == STOP_LEAVE)
		cpu->rip = cpu->next_rip;
	return stop;
}
