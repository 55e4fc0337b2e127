// SPDX-License-Identifier: MIT
/* XCR0 and PKRU as registers: XGETBV XSETBV RDPKRU WRPKRU (SDM 1 13.3, SDM 3A 4.6.2). */
#include "cpu/fpu.h"
#include "cpu/system.h"

/* Components that the guest's CPUID leaf D offers, of those that we have. */
static u64 xcr0_valid(const struct cpu *cpu)
{
	const struct cpuid_entry *c = cpuid_find(cpu, 0xd, 0);

	return c ? (c->eax | (u64)c->edx << 32) & XF_ALL : XF_X87 | XF_SSE;
}

enum stop exec_xgetbv(struct cpu *cpu, const struct insn *i, struct env *e)
{
	const struct cpuid_entry *d1 = cpuid_find(cpu, 0xd, 1);
	u32 index = cpu->regs[GPR_RCX];

	(void)i, (void)e;
	if (!(cpu->cr4 & CR4_OSXSAVE))
		return cpu_ud(cpu);
	/* index 1: which components are in use; all of them, for all we know */
	if (index > 1 || (index == 1 && !(d1 && (d1->eax & 4))))
		return cpu_gp(cpu, 0);
	cpu->regs[GPR_RAX] = (u32)cpu->xcr0;
	cpu->regs[GPR_RDX] = cpu->xcr0 >> 32;
	return STOP_OK;
}

enum stop exec_xsetbv(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 v = (u32)cpu->regs[GPR_RAX] | cpu->regs[GPR_RDX] << 32;

	(void)i, (void)e;
	if (!(cpu->cr4 & CR4_OSXSAVE))
		return cpu_ud(cpu);
	if (cpu->cpl || (u32)cpu->regs[GPR_RCX] || !(v & XF_X87) || (v & ~xcr0_valid(cpu)))
		return cpu_gp(cpu, 0);
	if ((v & XF_AVX) && !(v & XF_SSE))
		return cpu_gp(cpu, 0);
	cpu->xcr0 = v;
	return STOP_OK;
}

enum stop exec_rdpkru(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	if (!(cpu->cr4 & CR4_PKE))
		return cpu_ud(cpu);
	if ((u32)cpu->regs[GPR_RCX])
		return cpu_gp(cpu, 0);
	cpu->regs[GPR_RAX] = cpu->pkru;
	cpu->regs[GPR_RDX] = 0;
	return STOP_OK;
}

enum stop exec_wrpkru(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	if (!(cpu->cr4 & CR4_PKE))
		return cpu_ud(cpu);
	if ((u32)cpu->regs[GPR_RCX] || (u32)cpu->regs[GPR_RDX])
		return cpu_gp(cpu, 0);
	if (cpu->pkru == (u32)cpu->regs[GPR_RAX])
		return STOP_OK;
	cpu->pkru = cpu->regs[GPR_RAX];
	cpu_update_paging(cpu, false);
	return STOP_OK;
}
