// SPDX-License-Identifier: MIT
/*
 * The fast system calls: SYSCALL SYSRET SYSENTER SYSEXIT SWAPGS, and RD/WRFSBASE. SDM 2B;
 * APM 3 SYSCALL. AMD: SYSENTER and SYSEXIT are #UD in long mode; SYSCALL also works outside
 * it; SYSRET does not check the return address.
 */
#include "cpu/system.h"

/* The flat segments that these instructions load without reading a descriptor. */
static struct segment flat_code(u16 sel, u8 dpl, bool m64)
{
	return (struct segment){
		.sel = sel,
		.limit = ~0u,
		.attr = SEGA_G | (m64 ? SEGA_L : SEGA_DB) | SEGA_P | dpl << 5 | SEGA_S | TYPE_CODE |
			TYPE_READ | TYPE_ACCESSED,
	};
}

static struct segment flat_stack(u16 sel, u8 dpl)
{
	return (struct segment){
		.sel = sel,
		.limit = ~0u,
		.attr = SEGA_G | SEGA_DB | SEGA_P | dpl << 5 | SEGA_S | TYPE_WRITE | TYPE_ACCESSED,
	};
}

static void commit_segments(struct cpu *cpu, u16 cs, u16 ss, u8 dpl, bool m64)
{
	cpu->seg[SEG_CS] = flat_code(cs, dpl, m64);
	cpu->seg[SEG_SS] = flat_stack(ss, dpl);
	cpu_update(cpu);
}

enum stop exec_syscall(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u16 cs = (cpu->star >> 32) & 0xfffc;

	(void)i, (void)e;
	if (!(cpu->efer & EFER_SCE) || !cpu_prot(cpu))
		return cpu_ud(cpu);
	if (cpu->mode != MODE_64 && cpu_is_intel(cpu))
		return cpu_ud(cpu);
	cpu->completion = DONE_TF_NOW;
	if (!cpu->long_mode) {
		cpu->regs[GPR_RCX] = (u32)cpu->next_rip;
		cpu->next_rip = (u32)cpu->star;
		cpu->eflags &= ~(EFL_VM | EFL_IF | EFL_RF);
		commit_segments(cpu, cs, cs + 8, 0, false);
		return STOP_OK;
	}
	cpu->regs[GPR_RCX] = cpu->next_rip;
	cpu->regs[GPR_R11] = cpu_eflags(cpu) & ~EFL_RF;
	cpu->next_rip = cpu->mode == MODE_64 ? cpu->lstar : cpu->cstar;
	eflags_store(cpu, cpu_eflags(cpu) & ~(cpu->fmask | EFL_RF));
	commit_segments(cpu, cs, cs + 8, 0, true);
	return STOP_OK;
}

/* DIFFERS: SS gets its attributes as on Intel; AMD leaves those that it has. */
enum stop exec_sysret(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u16 base = (cpu->star >> 48) | 3;
	bool to64 = i->osz == 8;

	(void)e;
	if (!(cpu->efer & EFER_SCE) || !cpu_prot(cpu))
		return cpu_ud(cpu);
	if (cpu->mode != MODE_64 && cpu_is_intel(cpu))
		return cpu_ud(cpu);
	if (cpu->cpl)
		return cpu_gp(cpu, 0);
	if (to64 && !mmu_canonical(&cpu->mmu.paging, gva(cpu->regs[GPR_RCX])) && cpu_is_intel(cpu))
		return cpu_gp(cpu, 0);
	cpu->completion = DONE_TF_NOW;
	cpu->next_rip = to64 ? cpu->regs[GPR_RCX] : (u32)cpu->regs[GPR_RCX];
	if (cpu->mode == MODE_64)
		eflags_store(cpu, cpu->regs[GPR_R11] & 0x3c7fd7);
	else
		cpu->eflags |= EFL_IF;
	commit_segments(cpu, to64 ? base + 16 : base, base + 8, 3, to64);
	return STOP_OK;
}

static bool sysenter_missing(const struct cpu *cpu)
{
	return cpu->long_mode && !cpu_is_intel(cpu);
}

enum stop exec_sysenter(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u16 cs = cpu->sysenter_cs & 0xfffc;

	(void)i, (void)e;
	if (sysenter_missing(cpu))
		return cpu_ud(cpu);
	if (cpu_real(cpu) || !cs)
		return cpu_gp(cpu, 0);
	cpu->eflags &= ~(EFL_VM | EFL_IF | EFL_RF);
	cpu->next_rip = cpu->long_mode ? cpu->sysenter_eip : (u32)cpu->sysenter_eip;
	cpu->regs[GPR_RSP] = cpu->long_mode ? cpu->sysenter_esp : (u32)cpu->sysenter_esp;
	commit_segments(cpu, cs, cs + 8, 0, cpu->long_mode);
	return STOP_OK;
}

enum stop exec_sysexit(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 rip = cpu->regs[GPR_RDX], rsp = cpu->regs[GPR_RCX];
	u16 cs = cpu->sysenter_cs & 0xfffc;
	bool to64 = i->osz == 8;

	(void)e;
	if (sysenter_missing(cpu))
		return cpu_ud(cpu);
	if (!cpu_prot(cpu) || cpu->cpl || !cs)
		return cpu_gp(cpu, 0);
	if (to64 && (!mmu_canonical(&cpu->mmu.paging, gva(rip)) ||
		!mmu_canonical(&cpu->mmu.paging, gva(rsp))))
		return cpu_gp(cpu, 0);
	cs += to64 ? 32 : 16;
	cpu->next_rip = to64 ? rip : (u32)rip;
	cpu->regs[GPR_RSP] = to64 ? rsp : (u32)rsp;
	commit_segments(cpu, cs | 3, (cs + 8) | 3, 3, to64);
	return STOP_OK;
}

enum stop exec_swapgs(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 base = cpu->seg[SEG_GS].base;

	(void)i, (void)e;
	cpu->seg[SEG_GS].base = cpu->kernel_gs_base;
	cpu->kernel_gs_base = base;
	cpu->ea_base[SEG_GS] = cpu->seg[SEG_GS].base;
	return STOP_OK;
}

/* ---- FSGSBASE ---- */

static enum stop read_base(struct cpu *cpu, const struct insn *i, enum seg seg)
{
	if (!(cpu->cr4 & CR4_FSGSBASE))
		return cpu_ud(cpu);
	reg_set(cpu, i->rm, insn_opnd_size(i, 0), cpu->seg[seg].base);
	return STOP_OK;
}

static enum stop write_base(struct cpu *cpu, const struct insn *i, enum seg seg)
{
	u64 v = reg_get(cpu, i->rm, insn_opnd_size(i, 0));

	if (!(cpu->cr4 & CR4_FSGSBASE))
		return cpu_ud(cpu);
	if (!cpu_canonical_base(cpu, v))
		return cpu_gp(cpu, 0);
	cpu->seg[seg].base = cpu->ea_base[seg] = v;
	return STOP_OK;
}

enum stop exec_rdfsbase(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)e;
	return read_base(cpu, i, SEG_FS);
}
enum stop exec_rdgsbase(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)e;
	return read_base(cpu, i, SEG_GS);
}
enum stop exec_wrfsbase(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)e;
	return write_base(cpu, i, SEG_FS);
}
enum stop exec_wrgsbase(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)e;
	return write_base(cpu, i, SEG_GS);
}
