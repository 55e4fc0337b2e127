// SPDX-License-Identifier: MIT
/*
 * CR0, CR3, CR4, CR8 and EFER: which values are allowed (SDM 3A 2.5, 4.1.2; APM 2 3.1) and
 * what has to follow a change. The debug registers are in debugreg.c.
 */
#include "cpu/system.h"

#include <string.h>

#define CR0_VALID                                                                         \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | \
		CR0_CD | CR0_PG)
/* Changes of these bits change translations. */
#define CR0_PAGING (CR0_PE | CR0_PG | CR0_WP)
#define CR4_PAGING                                                                         \
	(CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57 | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PKS)
/* Changes of these reload the PDPTEs (SDM 3A 4.4.1). */
#define CR0_PDPTR (CR0_CD | CR0_NW | CR0_PG)
#define CR4_PDPTR (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)

#define CR3_NOFLUSH BIT(63)

u8 cpu_maxphyaddr(const struct cpu *cpu)
{
	const struct cpuid_entry *c = cpuid_find(cpu, 0x80000008, 0);
	u8 bits = c ? c->eax & 0xff : 0;

	return bits < 32 || bits > 52 ? 36 : bits;
}

/* KVM ties only these to CPUID; the older bits are always there. */
u64 control_cr4_valid(const struct cpu *cpu)
{
	static const struct {
		u64 bit;
		u32 leaf;
		u8 reg, at;
	} tied[] = {
		{CR4_UMIP, 7, 2, 2}, {CR4_LA57, 7, 2, 16}, {CR4_FSGSBASE, 7, 1, 0},
		{CR4_PCIDE, 1, 2, 17}, {CR4_OSXSAVE, 1, 2, 26}, {CR4_SMEP, 7, 1, 7},
		{CR4_SMAP, 7, 1, 20}, {CR4_PKE, 7, 2, 3}, {CR4_PKS, 7, 2, 31},
	};
	u64 valid = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE |
		CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT;

	for (unsigned int k = 0; k < ARRAY_SIZE(tied); k++)
		if (cpuid_bit(cpu, tied[k].leaf, tied[k].reg, tied[k].at))
			valid |= tied[k].bit;
	return valid;
}

u64 control_efer_valid(const struct cpu *cpu)
{
	u64 valid = 0;

	if (cpuid_bit(cpu, 0x80000001, 3, 11))
		valid |= EFER_SCE;
	if (cpuid_bit(cpu, 0x80000001, 3, 20))
		valid |= EFER_NXE;
	if (cpuid_bit(cpu, 0x80000001, 3, 25))
		valid |= EFER_FFXSR;
	if (cpuid_bit(cpu, 0x80000001, 3, 29))
		valid |= EFER_LME | EFER_LMA;
	return valid;
}

struct control {
	u64 cr0, cr3, cr4, efer;
};

static struct control control_now(const struct cpu *cpu)
{
	return (struct control){cpu->cr0, cpu->cr3, cpu->cr4, cpu->efer};
}

/* Commit: the last step that can fail is the load of the PDPTEs. */
static enum stop control_commit(struct cpu *cpu, const struct control *n, bool pdptr, bool keep_global)
{
	struct paging p = cpu->mmu.paging;

	if (pdptr && (n->cr0 & CR0_PG) && (n->cr4 & CR4_PAE) && !(n->efer & EFER_LMA)) {
		p.cr0 = n->cr0;
		p.cr3 = n->cr3;
		p.cr4 = n->cr4;
		p.efer = n->efer;
		if (!mmu_load_pdptrs(&cpu->mmu, &p))
			return cpu_gp(cpu, 0);
		memcpy(cpu->mmu.paging.pdptr, p.pdptr, sizeof(p.pdptr));
	}
	cpu->cr0 = n->cr0;
	cpu->cr3 = n->cr3;
	cpu->cr4 = n->cr4;
	cpu->efer = n->efer;
	cpu_update_paging(cpu, keep_global);
	cpu->ops->paging_changed(cpu);
	return STOP_OK;
}

/* Long mode is activated and left with CR0.PG (SDM 3A 9.8.5). */
static enum stop cr0_long_mode(struct cpu *cpu, struct control *n)
{
	if (!((n->cr0 ^ cpu->cr0) & CR0_PG))
		return STOP_OK;
	if (!(n->cr0 & CR0_PG)) {
		if (cpu->mode == MODE_64 || (cpu->cr4 & CR4_PCIDE))
			return cpu_gp(cpu, 0);
		n->efer &= ~EFER_LMA;
		return STOP_OK;
	}
	if (!(cpu->efer & EFER_LME))
		return STOP_OK;
	if (!(cpu->cr4 & CR4_PAE) || (cpu->seg[SEG_CS].attr & SEGA_L))
		return cpu_gp(cpu, 0);
	n->efer |= EFER_LMA;
	return STOP_OK;
}

enum stop control_set_cr0(struct cpu *cpu, u64 v)
{
	struct control n = control_now(cpu);
	u64 changed;

	if (v >> 32 || ((v & CR0_PG) && !(v & CR0_PE)) || ((v & CR0_NW) && !(v & CR0_CD)))
		return cpu_gp(cpu, 0);
	n.cr0 = (v & CR0_VALID) | CR0_ET;
	changed = n.cr0 ^ cpu->cr0;
	TRY(cr0_long_mode(cpu, &n));
	if (changed & (CR0_PAGING | CR0_PDPTR))
		return control_commit(cpu, &n, changed & CR0_PDPTR, false);
	cpu->cr0 = cpu->mmu.paging.cr0 = n.cr0;
	cpu_update(cpu);
	return STOP_OK;
}

/*
 * The soft TLB has no PCIDs: a change of PCID flushes what is not global, and "no flush"
 * (bit 63) is only a permission, which is not used. SDM 3A 4.10.4.1.
 */
enum stop control_set_cr3(struct cpu *cpu, u64 v)
{
	struct control n = control_now(cpu);

	if (cpu->cr4 & CR4_PCIDE)
		v &= ~CR3_NOFLUSH;
	if (cpu->long_mode && v >> cpu_maxphyaddr(cpu))
		return cpu_gp(cpu, 0);
	n.cr3 = v;
	return control_commit(cpu, &n, true, cpu->cr4 & CR4_PGE);
}

enum stop control_set_cr4(struct cpu *cpu, u64 v)
{
	struct control n = control_now(cpu);
	u64 changed = v ^ cpu->cr4;

	if (v & ~control_cr4_valid(cpu))
		return cpu_gp(cpu, 0);
	if (cpu->long_mode && (!(v & CR4_PAE) || (changed & CR4_LA57)))
		return cpu_gp(cpu, 0);
	if ((changed & v & CR4_PCIDE) && (!cpu->long_mode || (cpu->cr3 & 0xfff)))
		return cpu_gp(cpu, 0);
	n.cr4 = v;
	if (changed & CR4_PAGING)
		return control_commit(cpu, &n, changed & CR4_PDPTR, false);
	cpu->cr4 = cpu->mmu.paging.cr4 = v;
	cpu_update(cpu);
	return STOP_OK;
}

/* LMA is the processor's: what is written there is ignored, as KVM does. */
enum stop control_set_efer(struct cpu *cpu, u64 v)
{
	struct control n = control_now(cpu);

	if (v & ~control_efer_valid(cpu))
		return cpu_gp(cpu, 0);
	v = (v & ~EFER_LMA) | (cpu->efer & EFER_LMA);
	if (((v ^ cpu->efer) & EFER_LME) && (cpu->cr0 & CR0_PG))
		return cpu_gp(cpu, 0);
	n.efer = v;
	return control_commit(cpu, &n, false, false);
}

/* User space may own the APIC and want to know: set_tpr says so in cpu->leave. */
static enum stop set_cr8(struct cpu *cpu, u64 v)
{
	if (v & ~15ull)
		return cpu_gp(cpu, 0);
	cpu->leave = LEAVE_NONE;
	cpu->ops->set_tpr(cpu, v);
	return cpu->leave == LEAVE_NONE ? STOP_OK : STOP_LEAVE;
}

static enum stop write_cr(struct cpu *cpu, unsigned int n, u64 v)
{
	switch (n) {
	case 0:
		return control_set_cr0(cpu, v);
	case 2:
		cpu->cr2 = v;
		return STOP_OK;
	case 3:
		return control_set_cr3(cpu, v);
	case 4:
		return control_set_cr4(cpu, v);
	case 8:
		return set_cr8(cpu, v);
	default:
		return cpu_ud(cpu);
	}
}

static enum stop read_cr(struct cpu *cpu, unsigned int n, u64 *v)
{
	switch (n) {
	case 0:
		*v = cpu->cr0;
		return STOP_OK;
	case 2:
		*v = cpu->cr2;
		return STOP_OK;
	case 3:
		*v = cpu->cr3;
		return STOP_OK;
	case 4:
		*v = cpu->cr4;
		return STOP_OK;
	case 8:
		*v = cpu->ops->get_tpr(cpu);
		return STOP_OK;
	default:
		return cpu_ud(cpu);
	}
}

/* 0F 20: from CR, 0F 22: to CR. The operand size is that of the mode (SDM 2B MOV CR). */
enum stop exec_mov_cr(struct cpu *cpu, const struct insn *i, struct env *e)
{
	unsigned int size = cpu->mode == MODE_64 ? 8 : 4;
	u64 v = 0;

	(void)e;
	if (i->opcode == 0x22)
		return write_cr(cpu, i->reg, reg_get(cpu, i->rm, size));
	TRY(read_cr(cpu, i->reg, &v));
	reg_set(cpu, i->rm, size, v);
	return STOP_OK;
}

enum stop exec_clts(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	return control_set_cr0(cpu, cpu->cr0 & ~CR0_TS);
}

/* LMSW can set PE but not clear it. */
enum stop exec_lmsw(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u16 v;

	TRY(rm_read16(cpu, i, e, &v));
	return control_set_cr0(cpu, (cpu->cr0 & ~0xeull) | (v & 0xf));
}

enum stop exec_smsw(struct cpu *cpu, const struct insn *i, struct env *e)
{
	if (cpu->cpl && (cpu->cr4 & CR4_UMIP))
		return cpu_gp(cpu, 0);
	return rm_write16(cpu, i, e, cpu->cr0);
}

/* INVLPG never faults on its address: not canonical means nothing to do. */
enum stop exec_invlpg(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 linear = insn_ea(cpu, i) + cpu->ea_base[i->seg];

	(void)e;
	if (cpu->mode != MODE_64)
		linear = (u32)linear;
	if (mmu_canonical(&cpu->mmu.paging, gva(linear)))
		mmu_flush_page(&cpu->mmu, gva(linear));
	return STOP_OK;
}

/* SDM 2A INVPCID. Without PCIDs in the TLB, types 1 to 3 flush all. */
enum stop exec_invpcid(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 type = reg_get(cpu, i->reg, cpu->mode == MODE_64 ? 8 : 4);
	bool pcide = cpu->cr4 & CR4_PCIDE;
	u64 desc[2];

	TRY(env_read(e, i->seg, insn_ea(cpu, i), 16, desc));
	if (type > 3 || desc[0] >> 12 || (type < 2 && !pcide && desc[0]))
		return cpu_gp(cpu, 0);
	if (type == 0 && !cpu_canonical_base(cpu, desc[1]))
		return cpu_gp(cpu, 0);
	if (type == 0)
		mmu_flush_page(&cpu->mmu, gva(desc[1]));
	else
		mmu_flush(&cpu->mmu);
	return STOP_OK;
}
