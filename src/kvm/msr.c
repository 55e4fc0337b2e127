// SPDX-License-Identifier: MIT
/*
 * Model-specific registers: one table for GET_MSRS, SET_MSRS, the index lists, and the
 * guest's RDMSR and WRMSR of what cpu/ does not own.
 */
#include "kvm/ioctl.h"

#include <errno.h>
#include <linux/kvm_para.h>
#include <stdlib.h>
#include <string.h>

#define LIST BIT(0)
#define FEAT BIT(1)
#define RO   BIT(2)
#define DROP BIT(3)

#define MSR_PLATFORM_INFO 0xce
#define MSR_MISC_ENABLE	  0x1a0
#define MISC_ENABLE_MWAIT BIT(18)

#define MSRS_MAX 256 /* of one GET_MSRS or SET_MSRS */

typedef bool msr_get_fn(struct vcpu *v, u32 index, u64 *value, bool host);
typedef bool msr_set_fn(struct vcpu *v, u32 index, u64 value, bool host);

/* ---- cpu's own */

static u64 *cpu_msr(struct cpu *cpu, u32 index)
{
	switch (index) {
	case MSR_SYSENTER_CS:
		return &cpu->sysenter_cs;
	case MSR_SYSENTER_ESP:
		return &cpu->sysenter_esp;
	case MSR_SYSENTER_EIP:
		return &cpu->sysenter_eip;
	case MSR_EFER:
		return &cpu->efer;
	case MSR_STAR:
		return &cpu->star;
	case MSR_LSTAR:
		return &cpu->lstar;
	case MSR_CSTAR:
		return &cpu->cstar;
	case MSR_FMASK:
		return &cpu->fmask;
	case MSR_KERNEL_GS_BASE:
		return &cpu->kernel_gs_base;
	case MSR_TSC_AUX:
		return &cpu->tsc_aux;
	case MSR_PAT:
		return &cpu->pat;
	case MSR_MISC_ENABLE:
		return &cpu->misc_enable;
	case 0x48:
		return &cpu->spec_ctrl;
	default:
		return &cpu->xss;
	}
}

static bool cpu_msr_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)host;
	*value = *cpu_msr(&v->cpu, index);
	return true;
}

static bool cpu_msr_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)host;
	switch (index) {
	case MSR_SYSENTER_ESP:
	case MSR_SYSENTER_EIP:
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_KERNEL_GS_BASE:
		if (!cpu_canonical_base(&v->cpu, value))
			return false;
		break;
	case MSR_TSC_AUX:
		if (value >> 32)
			return false;
		break;
	}
	*cpu_msr(&v->cpu, index) = value;
	return true;
}

/* Without its quirk, KVM lets bit 18 switch CPUID's MONITOR bit. */
static bool misc_enable_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	bool switched = (value ^ v->cpu.misc_enable) & MISC_ENABLE_MWAIT;

	(void)index, (void)host;
	if (v->vm->disabled_quirks & KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT && switched) {
		if (!vcpu_cpuid_bit(v, 1, 0, 2, 0)) /* SSE3 */
			return false;
		v->cpu.mwait_by_msr = true;
	}
	v->cpu.misc_enable = value;
	return true;
}

static bool efer_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	struct cpu *cpu = &v->cpu;

	(void)index;
	if (value & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_FFXSR))
		return false;
	if (!host && cpu->cr0 & CR0_PG && (value ^ cpu->efer) & EFER_LME)
		return false;
	cpu->efer = (value & ~EFER_LMA) | (cpu->efer & EFER_LMA);
	cpu_update_paging(cpu, false);
	return true;
}

static bool base_msr_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)host;
	*value = v->cpu.seg[index == MSR_FS_BASE ? SEG_FS : SEG_GS].base;
	return true;
}

static bool base_msr_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)host;
	if (!cpu_canonical_base(&v->cpu, value))
		return false;
	v->cpu.seg[index == MSR_FS_BASE ? SEG_FS : SEG_GS].base = value;
	cpu_update(&v->cpu);
	return true;
}

static bool pat_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)index, (void)host;
	for (int i = 0; i < 8; i++) {
		u8 type = value >> 8 * i;

		if (type > 7 || type == 2 || type == 3) /* SDM 3A 12.12.2 */
			return false;
	}
	v->cpu.pat = value;
	return true;
}

static bool xss_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)v, (void)index, (void)host;
	return !value; /* no supervisor state component is offered */
}

static bool pkrs_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)index, (void)host;
	*value = v->cpu.pkrs;
	return true;
}

static bool pkrs_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)index, (void)host;
	if (value >> 32)
		return false;
	v->cpu.pkrs = value;
	cpu_update_paging(&v->cpu, true);
	return true;
}

/* For the client only: KVM's guests cannot read it either. */
static bool smbase_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)index;
	*value = v->cpu.smbase;
	return host;
}

static bool smbase_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)index;
	if (host)
		v->cpu.smbase = (u32)value;
	return host;
}

/* ---- time */

static bool tsc_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)index, (void)host;
	*value = vcpu_tsc(v, vm_tsc(v->vm));
	return true;
}

static bool tsc_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)index;
	vcpu_set_tsc(v, value, host);
	return true;
}

static bool tsc_adjust_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)index, (void)host;
	*value = v->tsc_adjust;
	return true;
}

/* The guest's write moves its TSC by the difference (SDM 3B 18.17.3); the client's restores only. */
static bool tsc_adjust_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)index;
	if (!host) {
		v->tsc_offset += value - v->tsc_adjust;
		if (v->lapic)
			lapic_tsc_changed(v->lapic);
		vcpu_write_time(v);
	}
	v->tsc_adjust = value;
	return true;
}

static bool tsc_deadline_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)index, (void)host;
	*value = v->lapic ? lapic_get_tsc_deadline(v->lapic) : 0;
	return true;
}

static bool tsc_deadline_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)index, (void)host;
	if (v->lapic)
		lapic_set_tsc_deadline(v->lapic, value);
	return true;
}

static bool kvm_wall_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)index, (void)host;
	*value = v->wall_msr;
	return true;
}

static bool kvm_wall_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)index, (void)host;
	v->wall_msr = value;
	vm_write_wall_clock(v, gpa(value));
	return true;
}

static bool kvm_time_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)index, (void)host;
	*value = v->time_msr;
	return true;
}

static bool kvm_time_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)index, (void)host;
	v->time_msr = value;
	v->time_on = value & 1;
	v->time_page = gpa(value & ~1ull);
	vcpu_write_time(v);
	return true;
}

static bool kvm_steal_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)index, (void)host;
	*value = v->steal_msr;
	return true;
}

static bool kvm_steal_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)index, (void)host;
	if (value & 0x3e) /* reserved: the structure is aligned at 64 */
		return false;
	v->steal_msr = value;
	vcpu_steal_on(v);
	return true;
}

/* ---- interrupts */

static bool apic_base_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)index, (void)host;
	*value = vcpu_get_apic_base(v);
	return true;
}

static bool apic_base_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)index;
	return vcpu_set_apic_base(v, value, host);
}

static bool x2apic_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)host;
	return v->lapic && lapic_msr_read(v->lapic, index, value);
}

static bool x2apic_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)host;
	return v->lapic && lapic_msr_write(v->lapic, index, value);
}

/* ---- memory types, machine check, nothing */

static u64 *mtrr(struct vcpu *v, u32 index)
{
	if (index < 0x250)
		return &v->mtrr_var[index - 0x200];
	if (index == 0x250)
		return &v->mtrr_fixed[0];
	return &v->mtrr_fixed[index < 0x268 ? index - 0x258 + 1 : index - 0x268 + 3];
}

static bool mtrr_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)host;
	*value = *mtrr(v, index);
	return true;
}

static bool mtrr_type_valid(u8 type)
{
	return type < 7 && type != 2 && type != 3;
}

static bool mtrr_value_valid(struct vcpu *v, u32 index, u64 value)
{
	if (index >= 0x250) {
		for (int i = 0; i < 8; i++)
			if (!mtrr_type_valid(value >> 8 * i))
				return false;
		return true;
	}
	if (value >> v->cpu.mmu.paging.maxphyaddr)
		return false;
	if (index & 1)
		return !(value & 0x7ff);
	return mtrr_type_valid(value & 0xff) && !(value & 0xf00);
}

static bool mtrr_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)host;
	if (!mtrr_value_valid(v, index, value))
		return false;
	*mtrr(v, index) = value;
	return true;
}

static bool mcg_cap_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)index, (void)host;
	*value = v->mcg_cap;
	return true;
}

static bool mcg_cap_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)index;
	return host && value == v->mcg_cap;
}

static bool mc_exists(const struct vcpu *v, u32 index)
{
	return (index - 0x400) / 4 < (v->mcg_cap & 0xff);
}

static bool mc_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)host;
	if (!mc_exists(v, index))
		return false;
	*value = v->mc_bank[(index - 0x400) / 4][index & 3];
	return true;
}

static bool mc_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	if (!mc_exists(v, index))
		return false;
	/* MCi_CTL: all ones or all zeroes; STATUS: only 0 may be written (SDM 3B 16.3.2.1). */
	if (!(index & 3) && value && (value | BIT(10) | 1) != ~0ull)
		return false;
	if (!host && (index & 3) == 1 && value)
		return false;
	v->mc_bank[(index - 0x400) / 4][index & 3] = value;
	return true;
}

static bool zero_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	(void)v, (void)index, (void)host;
	*value = 0;
	return true;
}

static bool zero_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	(void)v, (void)index, (void)value, (void)host;
	return true;
}

/* ---- the table */

static const struct msr_row {
	u32 first, last, flags;
	s32 slot; /* -1: a range with functions */
	u64 reset, wmask;
	msr_get_fn *get;
	msr_set_fn *set;
} rows[] = {
#define MSR(index, name, flags, reset, wmask) \
	{index, index, flags, MSR_SLOT_##name, reset, wmask, NULL, NULL},
#define RANGE(first, last, name, flags, get, set) {first, last, flags, -1, 0, 0, get, set},
#include "kvm/msrs.def"
};

static const struct msr_row *find_row(u32 index)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (index >= rows[i].first && index <= rows[i].last)
			return &rows[i];
	return NULL;
}

bool vcpu_msr_known(u32 index)
{
	return find_row(index);
}

void vcpu_msr_reset(struct vcpu *v, bool init)
{
	(void)init;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].slot >= 0)
			v->msr[rows[i].slot] = rows[i].reset;
	v->time_msr = v->wall_msr = v->steal_msr = 0;
	v->time_on = false;
}

/* KVM's own MSRs and the feature bit (CPUID 4000_0001H:EAX) that each belongs to. */
static int pv_feature(u32 index)
{
	switch (index) {
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_SYSTEM_TIME:
		return KVM_FEATURE_CLOCKSOURCE;
	case MSR_KVM_WALL_CLOCK_NEW:
	case MSR_KVM_SYSTEM_TIME_NEW:
		return KVM_FEATURE_CLOCKSOURCE2;
	case MSR_KVM_ASYNC_PF_EN:
		return KVM_FEATURE_ASYNC_PF;
	case MSR_KVM_ASYNC_PF_INT:
	case MSR_KVM_ASYNC_PF_ACK:
		return KVM_FEATURE_ASYNC_PF_INT;
	case MSR_KVM_STEAL_TIME:
		return KVM_FEATURE_STEAL_TIME;
	case MSR_KVM_PV_EOI_EN:
		return KVM_FEATURE_PV_EOI;
	case MSR_KVM_POLL_CONTROL:
		return KVM_FEATURE_POLL_CONTROL;
	}
	return -1;
}

/* Is it there for this guest? */
static const struct msr_row *row_for(struct vcpu *v, u32 index, bool host)
{
	int feature = pv_feature(index);

	if (feature >= 0 && !vcpu_has_pv(v, feature))
		return NULL;
	if (index == MSR_PLATFORM_INFO && !host && v->vm->hide_platform_info)
		return NULL;
	return find_row(index);
}

bool vcpu_msr_get(struct vcpu *v, u32 index, u64 *value, bool host)
{
	const struct msr_row *m = row_for(v, index, host);

	if (!m)
		return false;
	if (m->slot < 0)
		return m->get(v, index, value, host);
	*value = v->msr[m->slot];
	return true;
}

bool vcpu_msr_set(struct vcpu *v, u32 index, u64 value, bool host)
{
	const struct msr_row *m = row_for(v, index, host);
	u64 *slot;

	if (!m)
		return false;
	if (m->slot < 0)
		return m->set(v, index, value, host);
	slot = &v->msr[m->slot];
	if (!host && m->flags & RO)
		return false;
	if (!host && m->flags & DROP)
		return true;
	if ((value ^ *slot) & ~m->wmask)
		return false;
	*slot = value;
	return true;
}

/* ---- ioctls */

static long index_list(struct ioc *c, u32 flag)
{
	struct kvm_msr_list *l = c->arg;
	u32 index[ARRAY_SIZE(rows) + 64], n = 0, room = l->nmsrs;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		for (u32 m = rows[i].first; rows[i].flags & flag && m <= rows[i].last; m++)
			index[n++] = m;
	l->nmsrs = n;
	if (copy_out(c->uptr, l, sizeof(*l)))
		return -EFAULT;
	if (room < n)
		return -E2BIG;
	return copy_out(c->uptr + sizeof(*l), index, n * sizeof(*index));
}

long sys_get_msr_index_list(struct ioc *c)
{
	return index_list(c, LIST);
}

long sys_get_msr_feature_index_list(struct ioc *c)
{
	return index_list(c, FEAT);
}

static bool feature_get(struct vcpu *v, struct kvm_msr_entry *e)
{
	const struct msr_row *m = find_row(e->index);

	(void)v;
	if (!m || !(m->flags & FEAT))
		return false;
	e->data = m->reset;
	return true;
}

static bool entry_get(struct vcpu *v, struct kvm_msr_entry *e)
{
	u64 value;

	if (!vcpu_msr_get(v, e->index, &value, true))
		return false;
	e->data = value;
	return true;
}

static bool entry_set(struct vcpu *v, struct kvm_msr_entry *e)
{
	return vcpu_msr_set(v, e->index, e->data, true);
}

/* Until the first entry that fails; the result is how many went well. */
static long each_msr(struct ioc *c, bool (*fn)(struct vcpu *v, struct kvm_msr_entry *e), bool out)
{
	u32 n = ((struct kvm_msrs *)c->arg)->nmsrs, done = 0;
	u64 tail = c->uptr + sizeof(struct kvm_msrs);
	struct kvm_msr_entry *e;
	int err;

	if (n >= MSRS_MAX)
		return -E2BIG;
	e = dup_in(tail, n, sizeof(*e), &err);
	if (!e)
		return err;
	while (done < n && fn(c->vcpu, &e[done]))
		done++;
	if (out)
		err = copy_out(tail, e, n * sizeof(*e));
	free(e);
	return err ? err : (long)done;
}

long sys_get_msrs(struct ioc *c)
{
	return each_msr(c, feature_get, true);
}

long vcpu_get_msrs(struct ioc *c)
{
	return each_msr(c, entry_get, true);
}

long vcpu_set_msrs(struct ioc *c)
{
	return each_msr(c, entry_set, false);
}

long vcpu_setup_mce(struct ioc *c)
{
	u64 cap = *(u64 *)c->arg;
	struct vcpu *v = c->vcpu;

	if (!(cap & 0xff) || (cap & 0xff) > NR_MC_BANKS)
		return -EINVAL;
	if (cap & ~(MCG_CAP_SUPPORTED | 0xff | 0xff0000))
		return -EINVAL;
	v->mcg_cap = cap;
	if (cap & BIT(8)) /* CTL_P */
		v->msr[MSR_SLOT_MCG_CTL] = ~0ull;
	for (int i = 0; i < NR_MC_BANKS; i++)
		v->mc_bank[i][0] = ~0ull;
	return 0;
}

/* DIFFERS: the bank is filled, but #MC is not raised. */
long vcpu_set_mce(struct ioc *c)
{
	const struct kvm_x86_mce *m = c->arg;
	struct vcpu *v = c->vcpu;

	if (m->bank >= (v->mcg_cap & 0xff) || !(m->status & BIT(63)))
		return -EINVAL;
	v->mc_bank[m->bank][1] = m->status;
	v->mc_bank[m->bank][2] = m->addr;
	v->mc_bank[m->bank][3] = m->misc;
	v->msr[MSR_SLOT_MCG_STATUS] = m->mcg_status;
	return 0;
}
