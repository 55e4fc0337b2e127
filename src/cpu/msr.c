// SPDX-License-Identifier: MIT
/*
 * RDMSR and WRMSR, and the MSRs that are the processor's own (msrs.def). Everything else
 * (APIC, MTRRs, KVM's, machine check) is asked of ops->rdmsr and ops->wrmsr.
 */
#include "cpu/system.h"

#define MSR_SPEC_CTRL 0x48
#define MSR_PRED_CMD  0x49

enum msr_rule { ANY, CANON, PAT, SPEC, TSCAUX, XSS };

static const struct own_msr {
	u32 index;
	u16 field;
	u8 rule;
} own[] = {
#define MSR(index, field, rule) {index, offsetof(struct cpu, field), rule},
#include "cpu/msrs.def"
#undef MSR
};

static const struct own_msr *find(u32 index)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(own); k++)
		if (own[k].index == index)
			return &own[k];
	return NULL;
}

static u64 *field_of(struct cpu *cpu, const struct own_msr *m)
{
	return (u64 *)((u8 *)cpu + m->field);
}

/* SDM 3A 11.12.4: UC WC WT WP WB UC- */
static bool pat_valid(u64 v)
{
	for (unsigned int k = 0; k < 8; k++, v >>= 8)
		if (!(0xf3 >> (v & 7) & 1) || (v & 0xf8))
			return false;
	return true;
}

static bool has_speculation_control(const struct cpu *cpu)
{
	return cpuid_bit(cpu, 7, 3, 26) || cpuid_bit(cpu, 7, 3, 27) || cpuid_bit(cpu, 7, 3, 31) ||
		cpuid_bit(cpu, 0x80000008, 1, 14) || cpuid_bit(cpu, 0x80000008, 1, 15) ||
		cpuid_bit(cpu, 0x80000008, 1, 24);
}

static bool has_prediction_barrier(const struct cpu *cpu)
{
	return cpuid_bit(cpu, 7, 3, 26) || cpuid_bit(cpu, 0x80000008, 1, 12);
}

/* Is the MSR there at all for this guest? */
static bool exists(const struct cpu *cpu, const struct own_msr *m)
{
	switch (m->rule) {
	case SPEC:
		return has_speculation_control(cpu);
	case TSCAUX:
		return cpu->features[CPUF_RDTSCP] || cpu->features[CPUF_RDPID];
	case XSS:
		return cpu->features[CPUF_XSAVES];
	default:
		return true;
	}
}

static bool value_allowed(const struct cpu *cpu, const struct own_msr *m, u64 v)
{
	switch (m->rule) {
	case CANON:
		return cpu_canonical_base(cpu, v);
	case PAT:
		return pat_valid(v);
	case SPEC: /* IBRS, STIBP, SSBD */
		return !(v & ~7ull);
	case TSCAUX:
		return !(v >> 32);
	case XSS: /* no supervisor state is offered */
		return !v;
	default:
		return true;
	}
}

static enum stop write_base(struct cpu *cpu, enum seg seg, u64 v)
{
	if (!cpu_canonical_base(cpu, v))
		return cpu_gp(cpu, 0);
	cpu->seg[seg].base = v;
	cpu_update(cpu);
	return STOP_OK;
}

static bool has_pks(const struct cpu *cpu)
{
	return cpuid_bit(cpu, 7, 2, 31);
}

static enum stop write_pkrs(struct cpu *cpu, u64 v)
{
	if (!has_pks(cpu) || v >> 32)
		return cpu_gp(cpu, 0);
	cpu->pkrs = v;
	cpu_update_paging(cpu, true);
	return STOP_OK;
}

enum stop cpu_rdmsr(struct cpu *cpu, u32 index, u64 *v)
{
	const struct own_msr *m = find(index);

	if (m) {
		if (!exists(cpu, m))
			return cpu_gp(cpu, 0);
		*v = *field_of(cpu, m);
		return STOP_OK;
	}
	switch (index) {
	case MSR_EFER:
		*v = cpu->efer;
		return STOP_OK;
	case MSR_FS_BASE:
		*v = cpu->seg[SEG_FS].base;
		return STOP_OK;
	case MSR_GS_BASE:
		*v = cpu->seg[SEG_GS].base;
		return STOP_OK;
	case MSR_TSC:
		*v = cpu_tsc(cpu);
		return STOP_OK;
	case MSR_PKRS:
		*v = cpu->pkrs;
		return has_pks(cpu) ? STOP_OK : cpu_gp(cpu, 0);
	case MSR_PRED_CMD:
		return cpu_gp(cpu, 0);
	default:
		return cpu->ops->rdmsr(cpu, index, v);
	}
}

enum stop cpu_wrmsr(struct cpu *cpu, u32 index, u64 v)
{
	const struct own_msr *m = find(index);

	if (m) {
		if (!exists(cpu, m) || !value_allowed(cpu, m, v))
			return cpu_gp(cpu, 0);
		*field_of(cpu, m) = v;
		return STOP_OK;
	}
	switch (index) {
	case MSR_EFER:
		return control_set_efer(cpu, v);
	case MSR_FS_BASE:
		return write_base(cpu, SEG_FS, v);
	case MSR_GS_BASE:
		return write_base(cpu, SEG_GS, v);
	case MSR_PKRS:
		return write_pkrs(cpu, v);
	case MSR_PRED_CMD: /* IBPB: nothing of ours is predicted */
		return !has_prediction_barrier(cpu) || (v & ~1ull) ? cpu_gp(cpu, 0) : STOP_OK;
	default:
		return cpu->ops->wrmsr(cpu, index, v);
	}
}

/* Refused: #GP, or (STOP_USER) user space answers; see ops->msr_refused. */
static enum stop refused(struct cpu *cpu, u32 index, bool write, bool allowed)
{
	cpu->leave_msr = index;
	cpu_gp(cpu, 0);
	return cpu->ops->msr_refused(cpu, index, write, allowed);
}

enum stop exec_rdmsr(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u32 index = cpu->regs[GPR_RCX];
	enum stop stop;
	u64 v = 0;

	(void)i, (void)e;
	if (!cpu->ops->msr_allowed(cpu, index, false))
		return refused(cpu, index, false, false);
	stop = cpu_rdmsr(cpu, index, &v);
	if (stop == STOP_EXC)
		return refused(cpu, index, false, true);
	if (stop != STOP_OK)
		return stop;
	cpu->regs[GPR_RAX] = (u32)v;
	cpu->regs[GPR_RDX] = v >> 32;
	return STOP_OK;
}

enum stop exec_wrmsr(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 v = (u32)cpu->regs[GPR_RAX] | cpu->regs[GPR_RDX] << 32;
	u32 index = cpu->regs[GPR_RCX];
	enum stop stop;

	(void)i, (void)e;
	if (!cpu->ops->msr_allowed(cpu, index, true))
		return refused(cpu, index, true, false);
	stop = cpu_wrmsr(cpu, index, v);
	return stop == STOP_EXC ? refused(cpu, index, true, true) : stop;
}
