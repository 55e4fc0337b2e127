// SPDX-License-Identifier: MIT
/*
 * System management mode: entry by SMI and RSM (SDM 3C 31; APM 2 10.2). The state save area is AMD's
 * 64-bit one, as KVM uses it. DIFFERS: guests without long mode get the same layout.
 */
#include "cpu/system.h"

#include <string.h>

#include "cpu/tb.h"

struct smm_seg {
	u16 sel, attr;
	u32 limit;
	u64 base;
};

/* SMBASE + FE00h, APM 2 table 10-1 */
struct smm_state {
	struct smm_seg seg[NR_SEGS]; /* FE00: ES CS SS DS FS GS */
	struct smm_seg gdtr, ldtr, idtr, tr;
	u64 io_rip, io_rcx, io_rsi, io_rdi; /* FEA0 */
	u32 io_dword, reserved1;
	u8 io_restart, halt_restart, nmi_mask, shadow; /* FEC8 */
	u32 reserved2;
	u64 efer;	 /* FED0 */
	u64 svm[3];
	u32 reserved3[3];
	u32 revision; /* FEFC */
	u32 smbase;
	u32 reserved4[5];
	u64 ssp, svm_state[5]; /* FF18 */
	u64 cr4, cr3, cr0, dr7, dr6, rflags, rip; /* FF48 */
	u64 gpr[16]; /* FF80: R15 first */
};
_Static_assert(sizeof(struct smm_state) == 512, "FE00..FFFF");
_Static_assert(offsetof(struct smm_state, revision) == 0xfc, "APM 2 table 10-1");
_Static_assert(offsetof(struct smm_state, cr4) == 0x148, "APM 2 table 10-1");

#define SMM_REVISION 0x20064 /* SMBASE relocation, AMD64 */

static struct smm_seg seg_out(const struct segment *s)
{
	return (struct smm_seg){s->sel, s->unusable ? s->attr & ~SEGA_P : s->attr, s->limit, s->base};
}

static struct segment seg_in(const struct smm_seg *s)
{
	return (struct segment){.sel = s->sel, .attr = s->attr & 0xf0ff, .limit = s->limit,
		.base = s->base, .unusable = !(s->attr & SEGA_P)};
}

static void save_state(const struct cpu *cpu, struct smm_state *s)
{
	memset(s, 0, sizeof(*s));
	for (unsigned int k = 0; k < NR_SEGS; k++)
		s->seg[k] = seg_out(&cpu->seg[k]);
	s->gdtr = (struct smm_seg){.limit = cpu->gdtr.limit, .base = cpu->gdtr.base};
	s->idtr = (struct smm_seg){.limit = cpu->idtr.limit, .base = cpu->idtr.base};
	s->ldtr = seg_out(&cpu->ldtr);
	s->tr = seg_out(&cpu->tr);
	s->nmi_mask = cpu->nmi_blocked;
	s->shadow = cpu->shadow;
	s->efer = cpu->efer;
	s->revision = SMM_REVISION;
	s->smbase = cpu->smbase;
	s->cr0 = cpu->cr0;
	s->cr3 = cpu->cr3;
	s->cr4 = cpu->cr4;
	s->dr6 = cpu->dr6;
	s->dr7 = cpu->dr7;
	s->rflags = cpu_eflags(cpu);
	s->rip = cpu->rip;
	for (unsigned int k = 0; k < 16; k++)
		s->gpr[15 - k] = cpu->regs[k];
}

static void load_state(struct cpu *cpu, const struct smm_state *s)
{
	for (unsigned int k = 0; k < NR_SEGS; k++)
		cpu->seg[k] = seg_in(&s->seg[k]);
	cpu->gdtr = (struct desc_table){s->gdtr.base, s->gdtr.limit};
	cpu->idtr = (struct desc_table){s->idtr.base, s->idtr.limit};
	cpu->ldtr = seg_in(&s->ldtr);
	cpu->tr = seg_in(&s->tr);
	cpu->nmi_blocked = s->nmi_mask & 1;
	cpu->shadow = s->shadow & 1;
	cpu->smbase = s->smbase;
	cpu->cr0 = s->cr0;
	cpu->cr3 = s->cr3;
	cpu->cr4 = s->cr4;
	cpu->efer = s->efer;
	cpu->dr6 = (s->dr6 & 0xe00f) | DR6_FIXED;
	cpu->dr7 = (s->dr7 & 0xffff2bff) | DR7_FIXED;
	eflags_store(cpu, s->rflags & EFL_VALID);
	cpu->next_rip = s->rip;
	for (unsigned int k = 0; k < 16; k++)
		cpu->regs[k] = s->gpr[15 - k];
}

/* The other address space: translations, and blocks decoded from it, are of no use any more. */
static void leave_space(struct cpu *cpu, bool smm)
{
	cpu->in_smm = smm;
	cpu->mmu.space = smm;
	mmu_flush(&cpu->mmu);
	if (cpu->tbs)
		tb_flush_all(cpu);
}

static void switch_space(struct cpu *cpu, bool smm)
{
	leave_space(cpu, smm);
	if (mmu_attach(&cpu->mmu)) /* the arrays are there: only the snapshot changes */
		cpu_request(cpu, REQ_KICK);
	cpu->ops->smm_changed(cpu);
}

void cpu_set_smm(struct cpu *cpu, bool on)
{
	if (cpu->in_smm == on)
		return;
	leave_space(cpu, on);
	cpu_update(cpu);
	cpu->ops->smm_changed(cpu);
}

void cpu_pend_smi(struct cpu *cpu)
{
	cpu->smi_pending = true;
	cpu_request(cpu, REQ_SMI);
}

static u8 *state_hva(struct cpu *cpu, bool write)
{
	gpa_t at = gpa(cpu->smbase + 0xfe00);
	u8 *p = mem_hva(cpu->mmu.slots, at, sizeof(struct smm_state), write);

	if (p && write)
		mmu_mark_dirty(&cpu->mmu, at);
	return p;
}

/* SDM 3C 31.4.1 */
static void smm_registers(struct cpu *cpu)
{
	struct segment flat = {.limit = ~0u,
		.attr = SEGA_G | SEGA_P | SEGA_S | TYPE_WRITE | TYPE_ACCESSED};

	for (unsigned int k = 0; k < NR_SEGS; k++)
		cpu->seg[k] = flat;
	cpu->seg[SEG_CS].sel = cpu->smbase >> 4;
	cpu->seg[SEG_CS].base = cpu->smbase;
	cpu->cr0 &= ~(CR0_PE | CR0_EM | CR0_TS | CR0_PG);
	cpu->cr4 = cpu->efer = 0;
	cpu->dr7 = DR7_FIXED;
	cpu->idtr = (struct desc_table){0, 0};
	eflags_store(cpu, EFL_ONE);
	cpu->rip = cpu->next_rip = 0x8000;
	cpu->shadow = cpu->shadow_ss = false;
	cpu->nmi_blocked = true;
}

enum stop cpu_enter_smm(struct cpu *cpu)
{
	struct smm_state s;
	u8 *p;

	cpu->smi_pending = false;
	cpu_unrequest(cpu, REQ_SMI);
	cpu->smm_inside_nmi = cpu->nmi_blocked;
	save_state(cpu, &s);
	switch_space(cpu, true);
	p = state_hva(cpu, true);
	if (!p) {
		cpu->fail = "SMI: no RAM at SMBASE";
		cpu->leave = LEAVE_FAIL;
		return STOP_LEAVE;
	}
	memcpy(p, &s, sizeof(s));
	smm_registers(cpu);
	cpu_update_paging(cpu, false);
	return STOP_OK;
}

static bool state_valid(const struct cpu *cpu, const struct smm_state *s)
{
	bool pg = s->cr0 & CR0_PG, lma = s->efer & EFER_LMA;

	if (s->cr0 >> 32 || (pg && !(s->cr0 & CR0_PE)) || (s->cr4 & ~control_cr4_valid(cpu)))
		return false;
	return !lma || (pg && (s->cr4 & CR4_PAE) && (s->efer & EFER_LME));
}

static enum stop shutdown(struct cpu *cpu)
{
	cpu->leave = LEAVE_SHUTDOWN;
	return STOP_LEAVE;
}

enum stop exec_rsm(struct cpu *cpu, const struct insn *i, struct env *e)
{
	struct paging p;
	struct smm_state s;
	u8 *from;

	(void)i, (void)e;
	if (!cpu->in_smm)
		return cpu_ud(cpu);
	from = state_hva(cpu, false);
	if (!from)
		return shutdown(cpu);
	memcpy(&s, from, sizeof(s));
	if (!state_valid(cpu, &s))
		return shutdown(cpu);
	load_state(cpu, &s);
	switch_space(cpu, false);
	cpu_update_paging(cpu, false);
	p = cpu->mmu.paging;
	if ((p.cr0 & CR0_PG) && (p.cr4 & CR4_PAE) && !(p.efer & EFER_LMA)) {
		if (!mmu_load_pdptrs(&cpu->mmu, &p))
			return shutdown(cpu);
		mmu_set_paging(&cpu->mmu, &p, false);
		cpu_update(cpu);
	}
	cpu->ops->paging_changed(cpu);
	if (!cpu->nmi_blocked)
		cpu->ops->nmi_unmasked(cpu);
	return STOP_OK;
}
