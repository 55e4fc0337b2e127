// SPDX-License-Identifier: MIT
/*
 * The processor's state as a whole: creation, RESET and INIT, EFLAGS in its two halves,
 * raising exceptions, and cpu_update(), which derives from the architectural registers
 * all that the interpreter wants to have at hand.
 */
#include "cpu/debug.h"
#include "cpu/native.h"
#include "cpu/system.h"
#include "cpu/tb.h"

#include <string.h>

#define PAT_RESET 0x0007040600070406ull
#define MISC_ENABLE_RESET 0x1800ull /* BTS and PEBS unavailable, as KVM */

enum stop cpu_raise(struct cpu *cpu, u8 vector)
{
	cpu->exc = (struct exception){.vector = vector};
	return STOP_EXC;
}

enum stop cpu_raise_error(struct cpu *cpu, u8 vector, u32 error)
{
	cpu->exc = (struct exception){.vector = vector, .has_error = true, .error = error};
	return STOP_EXC;
}

enum stop cpu_fail(struct cpu *cpu, const char *why)
{
	cpu->fail = why;
	return STOP_FAIL;
}

/* LAHF's byte is EFLAGS 7..0 (SDM 2A LAHF); OF has a byte of its own. */
u64 eflags_to_image(u64 eflags)
{
	u64 low = (eflags & (EFL_CF | EFL_PF | EFL_AF | EFL_ZF | EFL_SF)) | EFL_ONE;

	return low << 8 | ((eflags & EFL_OF) ? FI_OF : 0);
}

u64 image_to_eflags(u64 image)
{
	u64 low = image >> 8 & (EFL_CF | EFL_PF | EFL_AF | EFL_ZF | EFL_SF);

	return low | ((image & FI_OF) ? EFL_OF : 0);
}

u64 cpu_eflags(const struct cpu *cpu)
{
	return (cpu->eflags & ~EFL_ARITH) | EFL_ONE | image_to_eflags(cpu->fl);
}

void cpu_set_eflags(struct cpu *cpu, u64 v)
{
	eflags_store(cpu, v);
	cpu_update(cpu);
}

static u8 derive_mode(const struct cpu *cpu)
{
	u16 attr = cpu->seg[SEG_CS].attr;

	if (cpu->long_mode && (attr & SEGA_L))
		return MODE_64;
	return (attr & SEGA_DB) && !cpu_v86(cpu) ? MODE_32 : MODE_16;
}

/* CPL is SS.DPL in protected mode, on AMD by definition (APM 2 4.8.1), on Intel by consequence. */
static u8 derive_cpl(const struct cpu *cpu)
{
	if (cpu_real(cpu))
		return 0;
	return cpu_v86(cpu) ? 3 : SEGA_DPL(cpu->seg[SEG_SS].attr);
}

static void update_bases(struct cpu *cpu)
{
	bool flat = cpu->mode == MODE_64;

	for (unsigned int s = 0; s < NR_SEGS; s++)
		cpu->ea_base[s] = flat && s < SEG_FS ? 0 : cpu->seg[s].base;
	cpu->ea_mask = flat ? ~0ull : 0xffffffff;
}

/* May be read and written everywhere: nothing is left to check at an access. */
static bool seg_is_open(const struct segment *s)
{
	return !s->unusable && s->limit == 0xffffffff && (s->attr & SEGA_P) &&
		(s->attr & (TYPE_CODE | TYPE_DOWN | TYPE_WRITE)) == TYPE_WRITE;
}

/* 32-bit code as all systems run it: the fast handlers' memory operands are possible. */
static u8 derive_flat(const struct cpu *cpu)
{
	const struct segment *cs = &cpu->seg[SEG_CS];

	if (cpu->mode != MODE_32 || !cpu_prot(cpu) || cs->base || cs->limit != 0xffffffff ||
		!(cpu->seg[SEG_SS].attr & SEGA_DB))
		return 0;
	for (unsigned int s = 0; s < SEG_FS; s++)
		if (s != SEG_CS && (cpu->seg[s].base || !seg_is_open(&cpu->seg[s])))
			return 0;
	return TBM_FLAT | (seg_is_open(&cpu->seg[SEG_FS]) ? TBM_FS : 0) |
		(seg_is_open(&cpu->seg[SEG_GS]) ? TBM_GS : 0);
}

static u32 derive_request_mask(const struct cpu *cpu)
{
	u32 mask = REQ_KICK | REQ_STEP | REQ_FLUSH | REQ_EVENT | REQ_COUNT;

	if (cpu->guest_debug_block)
		return mask;
	if (!cpu->shadow && (cpu->eflags & EFL_IF))
		mask |= REQ_IRQ;
	if (!cpu->shadow && !cpu->nmi_blocked)
		mask |= REQ_NMI;
	if (!cpu->in_smm)
		mask |= REQ_SMI;
	return mask;
}

bool cpu_stops_each(const struct cpu *cpu)
{
	u64 dr7 = cpu->guest_debug_hw ? cpu->guest_dr7 : cpu->dr7;

	return (cpu->eflags & EFL_TF) || cpu->guest_debug_step || debug_dr7_enabled(dr7);
}

static bool must_step(const struct cpu *cpu)
{
	return (cpu->eflags & EFL_RF) || cpu->shadow || cpu_stops_each(cpu);
}

void cpu_update(struct cpu *cpu)
{
	cpu->long_mode = cpu->efer & EFER_LMA;
	cpu->cpl = derive_cpl(cpu);
	cpu->mode = derive_mode(cpu);
	update_bases(cpu);
	cpu->flat = derive_flat(cpu);
	cpu->data_tlb = cpu->mmu.tlb ? &cpu->mmu.tlb[cpu_data_attr(cpu)] : NULL;
	cpu->request_mask = derive_request_mask(cpu);
	if (must_step(cpu)) {
		if (!(cpu->request & REQ_STEP))
			cpu_request(cpu, REQ_STEP);
	} else if (cpu->request & REQ_STEP) {
		cpu_unrequest(cpu, REQ_STEP);
	}
}

/* PDPTEs are a copy inside the processor: a change of CR3 and friends has loaded them (control.c). */
void cpu_update_paging(struct cpu *cpu, bool keep_global)
{
	struct paging p = cpu->mmu.paging;

	p.cr0 = cpu->cr0;
	p.cr3 = cpu->cr3;
	p.cr4 = cpu->cr4;
	p.efer = cpu->efer;
	p.pkru = cpu->pkru;
	p.pkrs = cpu->pkrs;
	p.maxphyaddr = cpu_maxphyaddr(cpu);
	mmu_set_paging(&cpu->mmu, &p, keep_global);
	cpu_update(cpu);
}

static struct segment reset_segment(u16 sel, u64 base, u16 attr)
{
	return (struct segment){.sel = sel, .base = base, .limit = 0xffff, .attr = attr};
}

static void reset_segments(struct cpu *cpu)
{
	for (unsigned int s = 0; s < NR_SEGS; s++)
		cpu->seg[s] = reset_segment(0, 0, 0x93);
	cpu->seg[SEG_CS] = reset_segment(0xf000, 0xffff0000, 0x9b);
	cpu->tr = reset_segment(0, 0, SEGA_P | DESC_TSS32_BUSY);
	cpu->ldtr = reset_segment(0, 0, SEGA_P | DESC_LDT);
	cpu->gdtr = cpu->idtr = (struct desc_table){.limit = 0xffff};
}

/* What RESET clears and INIT leaves alone (SDM 3A table 10-1). */
static void reset_kept_by_init(struct cpu *cpu)
{
	u16 fcw = 0x37f;

	memset(&cpu->fpu, 0, sizeof(cpu->fpu));
	memcpy(cpu->fpu.fx, &fcw, sizeof(fcw));
	cpu->mxcsr = 0x1f80;
	cpu->xcr0 = 1;
	cpu->pkru = cpu->pkrs = 0;
	cpu->star = cpu->lstar = cpu->cstar = cpu->fmask = cpu->kernel_gs_base = 0;
	cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
	cpu->pat = PAT_RESET;
	cpu->tsc_aux = cpu->spec_ctrl = cpu->xss = 0;
	cpu->misc_enable = MISC_ENABLE_RESET;
	cpu->smbase = 0x30000;
	cpu->cr0 = CR0_CD | CR0_NW;
}

static u32 processor_signature(const struct cpu *cpu)
{
	const struct cpuid_entry *c = cpuid_find(cpu, 1, 0);

	return c ? c->eax : 0x600;
}

void cpu_reset(struct cpu *cpu, bool init)
{
	bool was_smm = cpu->in_smm;

	if (!init)
		reset_kept_by_init(cpu);
	memset(cpu->regs, 0, sizeof(cpu->regs));
	cpu->regs[GPR_RDX] = processor_signature(cpu);
	cpu->rip = cpu->next_rip = 0xfff0;
	eflags_store(cpu, EFL_ONE);
	reset_segments(cpu);
	cpu->cr0 = CR0_ET | (cpu->cr0 & (CR0_CD | CR0_NW));
	cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->efer = 0;
	memset(cpu->dr, 0, sizeof(cpu->dr));
	cpu->dr6 = DR6_FIXED;
	cpu->dr7 = DR7_FIXED;
	cpu->shadow = cpu->shadow_ss = cpu->hv_halted = false;
	cpu->in_smm = cpu->smi_pending = cpu->nmi_blocked = false;
	cpu->nmi_pending = 0;
	memset(&cpu->event, 0, sizeof(cpu->event));
	cpu->mmu.space = 0;
	cpu_unrequest(cpu, REQ_NMI | REQ_SMI | REQ_EVENT);
	cpu_update_paging(cpu, false);
	if (was_smm)
		cpu->ops->smm_changed(cpu);
}

int cpu_init(struct cpu *cpu, struct mem *mem, const struct cpu_ops *ops, void *opaque)
{
	memset(cpu, 0, sizeof(*cpu));
	cpu->ops = ops;
	cpu->opaque = opaque;
	cpu->host_mxcsr = __builtin_ia32_stmxcsr();
	cpu->mmu.mem = mem;
	cpu_set_features(cpu);
	cpu_reset(cpu, false);
	return 0;
}

void cpu_free(struct cpu *cpu)
{
	tb_cache_destroy(cpu);
	if (cpu->translator)
		cpu->translator->destroy(cpu->translator);
	cpu->translator = NULL;
	native_destroy(cpu->native);
	cpu->native = NULL;
	mmu_free(&cpu->mmu);
}
