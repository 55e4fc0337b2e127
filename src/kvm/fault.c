// SPDX-License-Identifier: MIT
/*
 * Guest memory that the client has protected or unmapped: KVM_RUN fails with EFAULT, as if the
 * kernel had failed to pin the page (C case of DESIGN.md 9). The processor touches guest RAM
 * through plain pointers, so such an access arrives as SIGSEGV or SIGBUS. The signal handler
 * sends the thread to `landing`, which unwinds to vcpu_run. No lock of ours is held while
 * guest memory is touched, and nothing of the instruction has been committed (law 1).
 */
#include "kvm/kvm.h"
#include "kvm/vcpu.h"

#include <errno.h>
#include <ucontext.h>

void fault_prepare(struct vcpu *v)
{
	asm volatile("stmxcsr %0; fnstcw %1" : "=m"(v->cpu.host_mxcsr), "=m"(v->host_fcw));
	v->fault_lost = false;
}

int fault_finish(struct vcpu *v)
{
	emul_drop(&v->emul);
	if (v->seq & 1)
		vcpu_leave(v);
	return VM_BUG_ON(v->fault_lost, v->vm) ? -EIO : -EFAULT;
}

/* On the thread's own stack, after the signal handler: floating point may be the guest's. */
static _Noreturn void landing(struct vcpu *v)
{
	asm volatile("cld; fninit; fldcw %1; ldmxcsr %0" : : "m"(v->cpu.host_mxcsr), "m"(v->host_fcw));
	longjmp(v->fault_exit, 1);
}

static bool is_guest_memory(const struct vcpu *v, u64 addr)
{
	const struct memslots *s = v->cpu.mmu.slots;

	for (u32 i = 0; s && i < s->nr; i++)
		if (addr - (u64)s->slot[i].hva < s->slot[i].size)
			return true;
	return false;
}

bool vcpu_memory_fault(void *addr, void *context)
{
	const mcontext_t *host = &((ucontext_t *)context)->uc_mcontext;
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
	const struct host_regs regs = {
		.gpr = {r[REG_RAX], r[REG_RCX], r[REG_RDX], r[REG_RBX], r[REG_RSP], r[REG_RBP],
			r[REG_RSI], r[REG_RDI], r[REG_R8], r[REG_R9], r[REG_R10], r[REG_R11],
			r[REG_R12], r[REG_R13], r[REG_R14], r[REG_R15]},
		.rip = r[REG_RIP],
		.eflags = r[REG_EFL],
		.addr = (u64)addr,
		.mxcsr = host->fpregs->mxcsr,
	};
	struct vcpu *v = vcpu_running();

	if (!v || !(v->seq & 1) || !is_guest_memory(v, (u64)addr))
		return false;
	v->fault_lost = !cpu_stopped_by_host(&v->cpu, &regs);
	r[REG_RSP] = ((r[REG_RSP] - 128) & ~15ull) - 8; /* as after a call, below the red zone */
	r[REG_RDI] = (greg_t)v;
	r[REG_RIP] = (greg_t)landing;
	return true;
}
