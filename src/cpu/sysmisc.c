// SPDX-License-Identifier: MIT
/*
 * System instructions that belong to no group: time stamp, random numbers, caches, MONITOR,
 * hypercalls. SDM 2A, 2B.
 */
#include "cpu/system.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <x86intrin.h>

u64 cpu_tsc(struct cpu *cpu)
{
	return cpu->ops->host_to_guest_tsc(cpu, __rdtsc());
}

static enum stop read_tsc(struct cpu *cpu)
{
	u64 t;

	if ((cpu->cr4 & CR4_TSD) && cpu->cpl)
		return cpu_gp(cpu, 0);
	t = cpu_tsc(cpu);
	cpu->regs[GPR_RAX] = (u32)t;
	cpu->regs[GPR_RDX] = t >> 32;
	return STOP_OK;
}

enum stop exec_rdtsc(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	return read_tsc(cpu);
}

enum stop exec_rdtscp(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	TRY(read_tsc(cpu));
	cpu->regs[GPR_RCX] = (u32)cpu->tsc_aux;
	return STOP_OK;
}

enum stop exec_rdpid(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)e;
	reg_set(cpu, i->rm, cpu->mode == MODE_64 ? 8 : 4, (u32)cpu->tsc_aux);
	return STOP_OK;
}

/* There are no counters. */
enum stop exec_rdpmc(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	return cpu_gp(cpu, 0);
}

/* The host's numbers; in counted time (kvm/counted.h) a fixed sequence, splitmix64's. */
static bool random_number(struct cpu *cpu, u64 *v)
{
	if (cpu->random) {
		*v = cpu->random += 0x9e3779b97f4a7c15;
		*v = (*v ^ *v >> 30) * 0xbf58476d1ce4e5b9;
		*v = (*v ^ *v >> 27) * 0x94d049bb133111eb;
		*v ^= *v >> 31;
		return true;
	}
	while (getrandom(v, sizeof(*v), 0) != sizeof(*v))
		if (errno != EINTR)
			return false;
	return true;
}

/* CF says that the number is good; the other flags are 0. */
static enum stop random_to(struct cpu *cpu, const struct insn *i)
{
	u64 v;

	if (!random_number(cpu, &v))
		return cpu_fail(cpu, "the host has no random numbers");
	reg_set(cpu, i->rm, i->osz, zext(v, i->osz));
	cpu->fl = eflags_to_image(EFL_CF);
	return STOP_OK;
}

enum stop exec_rdrand(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)e;
	return random_to(cpu, i);
}

/* INVD, WBINVD: guest RAM is coherent. */
enum stop exec_cache(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)cpu, (void)i, (void)e;
	return STOP_OK;
}

/* MONITOR and MWAIT do nothing, as in KVM: the guest polls. KVM's quirk: whatever CPUID says. */
static bool monitor_absent(struct cpu *cpu)
{
	u32 out[4];

	if (!cpu->mwait_needs_cpuid)
		return false;
	cpu_cpuid(cpu, 1, 0, out);
	return !(out[2] & BIT(3));
}

enum stop exec_monitor(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u8 byte;

	if (cpu->cpl || monitor_absent(cpu))
		return cpu_ud(cpu);
	if ((u32)cpu->regs[GPR_RCX])
		return cpu_gp(cpu, 0);
	return env_read(e, i->flags & INSN_SEGPFX ? i->seg : SEG_DS,
		zext(cpu->regs[GPR_RAX], i->asz), 1, &byte);
}

enum stop exec_mwait(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	return cpu->cpl || monitor_absent(cpu) ? cpu_ud(cpu) : STOP_OK;
}

/*
 * The other vendor's instruction: a hypervisor writes its own in its place and lets the guest
 * execute that (api.rst, KVM_X86_QUIRK_FIX_HYPERCALL_INSN); without the quirk it is #UD.
 */
static enum stop fix_hypercall(struct cpu *cpu, struct env *e)
{
	u64 linear = cpu->mode == MODE_64 ? cpu->rip : (u32)(cpu->seg[SEG_CS].base + cpu->rip);
	struct access a;

	if (cpu->no_fix_hypercall)
		return cpu_ud(cpu);
	TRY(env_map_linear(e, &a, gva(linear), 3, MMU_W, cpu_data_attr(cpu)));
	TRY(env_begin(e));
	memcpy(a.p, cpu_is_intel(cpu) ? "\x0f\x01\xc1" : "\x0f\x01\xd9", 3);
	TRY(env_flush(e, &a));
	cpu->next_rip = cpu->rip;
	return STOP_OK;
}

enum stop exec_hypercall(struct cpu *cpu, const struct insn *i, struct env *e)
{
	bool vmcall = insn_row(i)->op == OP_VMCALL;

	return vmcall == cpu_is_intel(cpu) ? cpu->ops->hypercall(cpu) : fix_hypercall(cpu, e);
}
