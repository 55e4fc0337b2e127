// SPDX-License-Identifier: MIT
/*
 * MSRs that the client wants to see: KVM_X86_SET_MSR_FILTER says which accesses of the guest
 * are refused, KVM_CAP_X86_USER_SPACE_MSR which refused ones become exits (api.rst 4.97, 7.21).
 */
#include "kvm/ioctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_REASONS \
	(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER)

struct msr_filter {
	bool default_allow;
	u32 nr;
	struct range {
		u32 flags, base, n;
		u8 *bitmap; /* bit set: allowed */
	} range[KVM_MSR_FILTER_MAX_RANGES];
};

void msr_filter_free(struct msr_filter *f)
{
	if (!f)
		return;
	for (u32 i = 0; i < f->nr; i++)
		free(f->range[i].bitmap);
	free(f);
}

/* 0 (an empty range is skipped) or -errno. */
static int add_range(struct msr_filter *f, const struct kvm_msr_filter_range *k)
{
	struct range *r = &f->range[f->nr];
	int err;

	if (!k->nmsrs)
		return 0;
	if (!k->flags || k->flags & ~(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE))
		return -EINVAL;
	if (k->nmsrs > KVM_MSR_FILTER_MAX_BITMAP_SIZE * 8)
		return -EINVAL;
	*r = (struct range){.flags = k->flags, .base = k->base, .n = k->nmsrs};
	r->bitmap = dup_in((u64)k->bitmap, ALIGN_UP(k->nmsrs, 64) / 8, 1, &err);
	if (!r->bitmap)
		return err;
	f->nr++;
	return 0;
}

static int build(struct msr_filter *f, const struct kvm_msr_filter *k)
{
	int err = 0;

	f->default_allow = !(k->flags & KVM_MSR_FILTER_DEFAULT_DENY);
	for (int i = 0; i < KVM_MSR_FILTER_MAX_RANGES && !err; i++)
		err = add_range(f, &k->ranges[i]);
	/* Nothing but refusals would be a mistake. */
	return !err && !f->nr && !f->default_allow ? -EINVAL : err;
}

/* After this no vCPU uses the old filter: it is looked at in the guest only. */
long vm_set_msr_filter(struct ioc *c)
{
	const struct kvm_msr_filter *k = c->arg;
	struct msr_filter *new, *old;
	struct vm *vm = c->vm;
	int err;

	if (k->flags & ~KVM_MSR_FILTER_DEFAULT_DENY)
		return -EINVAL;
	new = calloc(1, sizeof(*new));
	if (!new)
		return -ENOMEM;
	err = build(new, k);
	if (err) {
		msr_filter_free(new);
		return err;
	}
	pthread_mutex_lock(&vm->slots_lock);
	old = __atomic_exchange_n(&vm->msr_filter, new, __ATOMIC_SEQ_CST);
	vm_sync_vcpus(vm, false);
	pthread_mutex_unlock(&vm->slots_lock);
	msr_filter_free(old);
	return 0;
}

long vm_set_msr_exits(struct vm *vm, u64 reasons)
{
	if (reasons & ~(u64)EXIT_REASONS)
		return -EINVAL;
	__atomic_store_n(&vm->msr_exits, reasons, __ATOMIC_RELAXED);
	return 0;
}

/* x2APIC's registers are never refused: they have a filter of their own in hardware. */
bool vcpu_msr_allowed(struct vcpu *v, u32 index, bool write)
{
	const struct msr_filter *f = __atomic_load_n(&v->vm->msr_filter, __ATOMIC_ACQUIRE);
	u32 kind = write ? KVM_MSR_FILTER_WRITE : KVM_MSR_FILTER_READ;

	if (!f || (index >= 0x800 && index <= 0x8ff))
		return true;
	for (u32 i = 0; i < f->nr; i++) {
		const struct range *r = &f->range[i];
		u32 n = index - r->base;

		if (r->flags & kind && index >= r->base && n < r->n)
			return r->bitmap[n / 8] >> n % 8 & 1;
	}
	return f->default_allow;
}

/* ---- the exit */

bool vcpu_msr_exits(struct vcpu *v, u32 reason)
{
	return __atomic_load_n(&v->vm->msr_exits, __ATOMIC_RELAXED) & reason;
}

/* RIP and registers are those before the instruction: all of it is in the completion. */
int vcpu_exit_msr(struct vcpu *v)
{
	const struct cpu *cpu = &v->cpu;
	bool write = v->exit.reason == LEAVE_MSR_WRITE;
	struct kvm_run *run = v->run;

	v->msr_wait = (struct msr_wait){
		.active = true,
		.write = write,
		.reason = v->msr_wait.reason,
		.len = v->exit.insn.len,
		.rip = cpu->rip,
	};
	memset(&run->msr, 0, sizeof(run->msr));
	run->msr.index = v->exit.msr;
	run->msr.reason = v->msr_wait.reason;
	if (write)
		run->msr.data = (u32)cpu->regs[GPR_RAX] | cpu->regs[GPR_RDX] << 32;
	run->exit_reason = write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR;
	return 0;
}

/* As in a fragment's completion, a client that has moved RIP has given the instruction up. */
bool vcpu_complete_msr(struct vcpu *v)
{
	u64 data = v->run->msr.data;
	bool error = v->run->msr.error;
	struct cpu *cpu = &v->cpu;

	v->msr_wait.active = false;
	if (cpu->rip != v->msr_wait.rip)
		return true;
	if (error)
		return cpu_deliver(cpu, EVENT_EXC, &(struct exception){EXC_GP, .has_error = true}) ==
		       STOP_OK;
	if (!v->msr_wait.write) {
		cpu->regs[GPR_RAX] = (u32)data;
		cpu->regs[GPR_RDX] = data >> 32;
	}
	cpu->rip += v->msr_wait.len;
	if (cpu->mode != MODE_64)
		cpu->rip = (u32)cpu->rip;
	cpu_retire(cpu, cpu->eflags & EFL_TF);
	return true;
}
