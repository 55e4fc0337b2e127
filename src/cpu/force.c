// SPDX-License-Identifier: MIT
/*
 * The forced-emulation prefix: UD2 followed by the bytes "kvm" sends the next instruction to
 * the exit-time emulator although nothing forces it there. KVM's tests use it (its module
 * parameter force_emulation_prefix); so do ours. Off unless asked for (cpu->force_emulation).
 *
 * The processor proves the explicit memory operand, as it does for a port access, and hands the
 * translations over. Implicit operands (stack, strings) are the emulator's own business.
 */
#include "cpu/debug.h"
#include "cpu/interp.h"

#include <string.h>

static const u8 prefix[5] = {0x0f, 0x0b, 'k', 'v', 'm'};

/* By a handler whose first barrier stops it: nothing has been committed there. */
static enum stop prove_operand(struct cpu *cpu, const struct insn *i, struct fault *f)
{
	struct env_cpu e;

	env_probe_init(&e, cpu, f);
	return insn_mem_size(i) ? cpu_exec(cpu, i, &e.env) : STOP_NPF;
}

enum stop force_emulation(struct cpu *cpu)
{
	struct exception x = cpu->exc;
	u8 bytes[sizeof(prefix)];
	struct insn i;
	enum stop stop;

	if (x.vector != EXC_UD || tb_fetch_bytes(cpu, cpu->rip, bytes, sizeof(bytes)) != STOP_OK ||
		memcmp(bytes, prefix, sizeof(prefix))) {
		cpu->exc = x;
		return STOP_EXC;
	}
	cpu->rip += sizeof(prefix);
	if (cpu->mode != MODE_64)
		cpu->rip = (u32)cpu->rip;
	TRY(debug_check_fetch(cpu));
	TRY(tb_fetch_one(cpu, &i));
	stop = prove_operand(cpu, &i, &cpu->exit->fault);
	if (stop != STOP_NPF)
		return stop;
	cpu->exit->insn = i;
	cpu->exit->fault.access = 0;
	cpu->exit->fault.gva = gva(cpu->rip);
	cpu->exit->fault.gpa = gpa(0);
	cpu->exit->fault.stage = FAULT_FORCED;
	return STOP_NPF;
}
