// SPDX-License-Identifier: MIT
/*
 * KVM_RUN: finish what user space has answered, then run the guest until something must be
 * decided outside (DESIGN.md 4; api.rst KVM_RUN). Read kvm/vcpu.h and emul/emul.h before.
 */
#include "kvm/counted.h"
#include "kvm/ioctl.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>

/* What a step of the loop says: go on, or back to the client with 0 or -errno. */
#define TO_CLIENT 0
#define RUN_ON	  1

static int leave(struct vcpu *v);

/* ---- exits to user space */

static int exit_with(struct vcpu *v, u32 reason)
{
	v->run->exit_reason = reason;
	return TO_CLIENT;
}

static int exit_interrupted(struct vcpu *v)
{
	v->stats.signal_exits++;
	v->run->exit_reason = KVM_EXIT_INTR;
	return -EINTR;
}

static int exit_fragment(struct vcpu *v)
{
	const struct fragment *f = emul_fragment(&v->emul);
	struct kvm_run *run = v->run;

	if (VM_BUG_ON(f->len > (f->is_pio ? PAGE_SIZE : sizeof(run->mmio.data)), v->vm))
		return -EIO;
	if (f->is_pio) {
		run->io.direction = f->is_write ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
		run->io.size = f->size;
		run->io.port = f->port;
		run->io.count = f->count;
		run->io.data_offset = KVM_PIO_PAGE_OFFSET * PAGE_SIZE;
		if (f->is_write)
			bytes_copy(v->pio_data, f->data, f->len);
		return exit_with(v, KVM_EXIT_IO);
	}
	run->mmio.phys_addr = f->gpa.v;
	run->mmio.len = f->len;
	run->mmio.is_write = f->is_write;
	memset(run->mmio.data, 0, sizeof(run->mmio.data));
	if (f->is_write)
		bytes_copy(run->mmio.data, f->data, f->len);
	return exit_with(v, KVM_EXIT_MMIO);
}

/* Instruction bytes at RIP for a message; none where the code is not in RAM. */
static unsigned int code_bytes(struct vcpu *v, u8 out[15])
{
	struct cpu *cpu = &v->cpu;
	u64 linear = cpu->rip + cpu->ea_base[SEG_CS];
	u32 pferr, n = 0;

	if (cpu->mode != MODE_64)
		linear = (u32)(cpu->rip + cpu->seg[SEG_CS].base);
	while (n < 15) {
		u32 len = MIN(15 - n, page_left(linear + n));
		struct xlat x;
		const u8 *p;

		if (mmu_walk(&cpu->mmu, gva(linear + n), len, MMU_X, cpu_data_attr(cpu), WALK_DEBUG,
			     &x, &pferr) != MMU_OK)
			break;
		p = mem_hva(cpu->mmu.slots, x.gpa, len, false);
		if (!p)
			break;
		memcpy(out + n, p, len);
		n += len;
	}
	return n;
}

/* SEED section 5: flags and bytes if there are any, then five words about the exit. */
static int exit_emulation_failure(struct vcpu *v, bool with_bytes)
{
	const u64 info[5] = {v->exit.reason, v->exit.fault.access, v->exit.fault.gpa.v, 0, 0};
	struct kvm_run *run = v->run;
	unsigned int n, start = 1;
	u8 bytes[15];

	n = with_bytes ? code_bytes(v, bytes) : 0;
	memset(&run->emulation_failure, 0, sizeof(run->emulation_failure));
	run->emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
	if (n) {
		run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
		run->emulation_failure.insn_size = n;
		memset(run->emulation_failure.insn_bytes, 0x90, 15);
		memcpy(run->emulation_failure.insn_bytes, bytes, n);
		start = 3;
	}
	memcpy(&run->internal.data[start], info, sizeof(info));
	run->emulation_failure.ndata = start + ARRAY_SIZE(info);
	return exit_with(v, KVM_EXIT_INTERNAL_ERROR);
}

static void queue_ud(struct vcpu *v)
{
	memset(&v->cpu.event, 0, sizeof(v->cpu.event));
	v->cpu.event.pending = true;
	v->cpu.event.exc.vector = EXC_UD;
	cpu_request(&v->cpu, REQ_EVENT);
}

/* Each failure is explained once, and a guest that makes many does not flood the log. */
static void explain_failure(struct vcpu *v, bool fetch)
{
	char text[256];

	if (fetch) {
		log_once("vCPU %u: code at rip %#llx is not in RAM (gpa %#llx)", v->id,
			 (unsigned long long)v->cpu.rip, (unsigned long long)v->exit.gpa.v);
		return;
	}
	v->cpu.fail = v->exit.why;
	emul_explain(&v->cpu, &v->exit.insn, &v->exit.fault, text, sizeof(text));
	log_once("vCPU %u: %s", v->id, text);
}

/*
 * An instruction that cannot be done: #UD for the guest, and the client hears of it when the
 * guest's kernel did it or when it has asked to (KVM_CAP_EXIT_ON_EMULATION_FAILURE).
 */
static int exit_fail(struct vcpu *v)
{
	bool fetch = v->exit.reason == LEAVE_FETCH;

	if (vm_may_log(v->vm))
		explain_failure(v, fetch);
	if (v->vm->exit_on_fail)
		return exit_emulation_failure(v, !fetch);
	queue_ud(v);
	return v->cpu.cpl ? RUN_ON : exit_emulation_failure(v, !fetch);
}

/* An event's delivery met memory without RAM (suberror 3). */
static int exit_vectoring(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	run->internal.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
	run->internal.ndata = 5;
	memset(run->internal.data, 0, sizeof(run->internal.data));
	run->internal.data[0] = BIT(31) | v->exit.exc.vector;
	run->internal.data[1] = v->exit.reason;
	run->internal.data[3] = v->exit.gpa.v;
	return exit_with(v, KVM_EXIT_INTERNAL_ERROR);
}

static int exit_debug(struct vcpu *v)
{
	struct kvm_debug_exit_arch *d = &v->run->debug.arch;

	memset(d, 0, sizeof(*d));
	d->exception = v->exit.exc.vector;
	d->pc = v->cpu.rip + v->cpu.seg[SEG_CS].base;
	if (v->exit.exc.vector == EXC_DB) {
		d->dr6 = v->exit.exc.payload | DR6_FIXED;
		d->dr7 = v->cpu.guest_debug_hw ? v->cpu.guest_dr7 : v->cpu.dr7;
	}
	return exit_with(v, KVM_EXIT_DEBUG);
}

/* ---- HLT, INIT, SIPI */

/* INIT waits for the end of SMM (SDM 3C 31.3). */
static u32 todo_now(const struct vcpu *v)
{
	u32 todo = __atomic_load_n(&v->todo, __ATOMIC_SEQ_CST);

	return v->cpu.in_smm ? todo & ~TODO_INIT : todo;
}

static bool has_todo(struct vcpu *v)
{
	return todo_now(v) & (TODO_INIT | TODO_SIPI);
}

static bool has_smi(struct vcpu *v)
{
	return !v->cpu.in_smm && (v->cpu.smi_pending || todo_now(v) & TODO_SMI);
}

bool vcpu_can_take_irq(struct vcpu *v)
{
	return v->cpu.eflags & EFL_IF && !v->cpu.shadow;
}

static bool ends_halt(struct vcpu *v)
{
	return has_todo(v) || has_smi(v) || v->cpu.event.pending ||
	       ((v->cpu.nmi_pending || __atomic_load_n(&v->nmi_queued, __ATOMIC_SEQ_CST)) &&
		!v->cpu.nmi_blocked) ||
	       (vcpu_can_take_irq(v) && vcpu_has_interrupt(v));
}

/* The watch may have ended while nobody was in the guest. */
static int enter_again(struct vcpu *v)
{
	int r = vcpu_enter(v);

	vcpu_watch(v);
	return r;
}

/* Wait outside the guest: memory may change meanwhile. */
static int wait_outside(struct vcpu *v, bool (*ready)(struct vcpu *v))
{
	int r, e;

	vcpu_leave(v);
	live_stats_write(v);
	r = vcpu_wait(v, ready);
	e = enter_again(v);
	return e ? e : r;
}

/* Out of the guest and in again, by which it sees what others have changed. */
static int step_out(struct vcpu *v)
{
	int r;

	vcpu_leave(v);
	if (unlikely(v->ends_anywhere))
		vcpu_may_end(v);
	r = enter_again(v);
	return r ? r : RUN_ON;
}

static void do_init(struct vcpu *v)
{
	vcpu_reset(v, true);
	v->mp_state = v->bsp ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_INIT_RECEIVED;
}

/* The processor starts at vector:0000 (SDM 3A 9.4.3). */
static void do_sipi(struct vcpu *v)
{
	u8 vector = __atomic_load_n(&v->sipi_vector, __ATOMIC_SEQ_CST);
	struct segment *cs = &v->cpu.seg[SEG_CS];

	if (v->mp_state != KVM_MP_STATE_INIT_RECEIVED)
		return;
	cs->sel = vector << 8;
	cs->base = (u64)vector << 12;
	v->cpu.rip = 0;
	cpu_update(&v->cpu);
	v->mp_state = KVM_MP_STATE_RUNNABLE;
}

static void do_todo_now(struct vcpu *v)
{
	u32 take = v->cpu.in_smm ? ~TODO_INIT : ~0u;
	u32 todo = __atomic_fetch_and(&v->todo, ~take, __ATOMIC_SEQ_CST) & take;
	u32 nmi = __atomic_exchange_n(&v->nmi_queued, 0, __ATOMIC_SEQ_CST);

	if (todo & TODO_INIT)
		do_init(v);
	if (todo & TODO_SIPI)
		do_sipi(v);
	if (todo & TODO_CLOCK)
		vcpu_write_time(v);
	if (todo & TODO_SMI)
		cpu_pend_smi(&v->cpu);
	if (nmi) {
		v->stats.nmi_injections += nmi;
		/* one that runs and one behind it: no more are remembered */
		v->cpu.nmi_pending = MIN(v->cpu.nmi_pending + nmi, v->cpu.nmi_blocked ? 1u : 2u);
		cpu_request(&v->cpu, REQ_NMI);
	}
}

/* Locked instructions only if somebody asked for something; who does kicks afterwards. */
static void do_todo(struct vcpu *v)
{
	if (__atomic_load_n(&v->todo, __ATOMIC_SEQ_CST) ||
	    __atomic_load_n(&v->nmi_queued, __ATOMIC_SEQ_CST))
		do_todo_now(v);
}

/* Until the vCPU may execute instructions. */
static int become_runnable(struct vcpu *v)
{
	int r;

	while (v->mp_state != KVM_MP_STATE_RUNNABLE) {
		r = wait_outside(v, v->mp_state == KVM_MP_STATE_HALTED ? ends_halt : has_todo);
		if (r == -EINTR)
			return exit_interrupted(v);
		if (r)
			return r;
		if (v->mp_state == KVM_MP_STATE_HALTED) {
			v->stats.halt_wakeup++;
			v->mp_state = KVM_MP_STATE_RUNNABLE;
		}
		do_todo(v);
		vcpu_steal(v);
	}
	return RUN_ON;
}

static int exit_hlt(struct vcpu *v)
{
	v->stats.halt_exits++;
	if (!v->lapic && !v->vm->keep_hlt)
		return exit_with(v, KVM_EXIT_HLT);
	v->mp_state = KVM_MP_STATE_HALTED;
	return become_runnable(v);
}

/* ---- the processor has stopped */

static int emul_outcome(struct vcpu *v, enum emul_result r)
{
	switch (r) {
	case EMUL_DONE:
	case EMUL_RESTART:
		return RUN_ON;
	case EMUL_EXIT:
		return exit_fragment(v);
	case EMUL_EXCEPTION:
		if (cpu_deliver(&v->cpu, EVENT_EXC, &v->cpu.exc) == STOP_OK)
			return RUN_ON;
		break;
	case EMUL_FAIL:
		v->exit.reason = LEAVE_FAIL;
		v->exit.why = v->cpu.fail;
		return exit_fail(v);
	case EMUL_LEAVE:
		break;
	}
	v->exit.reason = v->cpu.leave;
	v->exit.msr = v->cpu.leave_msr;
	v->exit.gpa = v->cpu.leave_gpa;
	v->exit.exc = v->cpu.exc;
	v->exit.why = v->cpu.fail;
	return leave(v);
}

static int exit_npf(struct vcpu *v)
{
	return emul_outcome(v, emul_run(&v->emul, &v->cpu, &v->exit.insn, &v->exit.fault));
}

/* Somebody wants this thread's attention: new memory, an event, the client. */
static int exit_kick(struct vcpu *v)
{
	int r;

	v->stats.request_irq_exits++;
	if (v->vm->counted)
		counted_fire(v->vm->counted);
	r = step_out(v);
	if (r != RUN_ON)
		return r;
	do_todo(v);
	vcpu_steal(v);
	live_stats_after_run(v);
	if (dirty_ring_full(v))
		return exit_with(v, KVM_EXIT_DIRTY_RING_FULL);
	if (vcpu_interrupted(v))
		return exit_interrupted(v);
	return become_runnable(v);
}

static int leave(struct vcpu *v)
{
	switch (v->exit.reason) {
	case LEAVE_NPF:
	case LEAVE_PIO:
		return exit_npf(v);
	case LEAVE_EMULATED:
		return emul_outcome(v, v->emulated);
	case LEAVE_KICK:
		return exit_kick(v);
	case LEAVE_HLT:
		return exit_hlt(v);
	case LEAVE_FETCH:
	case LEAVE_FAIL:
		v->emul.stats.insn_emulation_fail++;
		return exit_fail(v);
	case LEAVE_VECTORING:
		return exit_vectoring(v);
	case LEAVE_SHUTDOWN:
		return exit_with(v, KVM_EXIT_SHUTDOWN);
	case LEAVE_DEBUG:
		return exit_debug(v);
	case LEAVE_IRQ_WINDOW:
		if (v->lapic && !lapic_accepts_pic(v->lapic)) /* its next write asks again */
			return RUN_ON;
		v->stats.irq_window_exits++;
		return exit_with(v, KVM_EXIT_IRQ_WINDOW_OPEN);
	case LEAVE_TPR:
		return exit_with(v, KVM_EXIT_SET_TPR);
	case LEAVE_EFAULT:
		return -EFAULT;
	case LEAVE_NONE:
		return step_out(v);
	case LEAVE_RESET:
	case LEAVE_HYPERCALL: /* our ops handle all of them */
		return RUN_ON;
	case LEAVE_MSR_READ:
	case LEAVE_MSR_WRITE:
		return vcpu_exit_msr(v);
	}
	return VM_BUG_ON(true, v->vm) ? -EIO : RUN_ON;
}

/* ---- KVM_RUN */

static int complete(struct vcpu *v)
{
	const u8 *reply = v->run->mmio.data;

	if (v->msr_wait.active)
		return vcpu_complete_msr(v) ? RUN_ON : emul_outcome(v, EMUL_LEAVE);
	if (!emul_is_pending(&v->emul))
		return RUN_ON;
	if (emul_fragment(&v->emul)->is_pio)
		reply = v->pio_data;
	return emul_outcome(v, emul_complete(&v->emul, &v->cpu, reply));
}

static int exit_eoi(struct vcpu *v)
{
	v->run->eoi.vector = v->eoi_exit;
	v->eoi_exit = -1;
	return exit_with(v, KVM_EXIT_IOAPIC_EOI);
}

static int run_guest(struct vcpu *v)
{
	int r = become_runnable(v);

	while (r == RUN_ON) {
		if (unlikely(v->eoi_exit >= 0))
			return exit_eoi(v);
		cpu_run(&v->cpu, &v->exit);
		v->stats.exits += v->exit.reason != LEAVE_NONE && v->exit.reason != LEAVE_EMULATED;
		r = leave(v);
	}
	return r;
}

/* Between vcpu_enter and vcpu_leave. wanted: immediate_exit was not set when KVM_RUN began. */
static int run_inside(struct vcpu *v, bool wanted)
{
	int r = complete(v);

	if (r != RUN_ON)
		return r;
	if (!wanted)
		return -EINTR;
	do_todo(v);
	dirty_ring_catch_up(v);
	if (dirty_ring_full(v))
		return exit_with(v, KVM_EXIT_DIRTY_RING_FULL);
	if (v->has_sigmask && vcpu_interrupted(v))
		return exit_interrupted(v);
	if (vcpu_has_interrupt(v) || v->cpu.irq_window) /* user space may have changed what was in its way */
		cpu_request(&v->cpu, REQ_IRQ);
	vcpu_watch(v);
	vcpu_steal(v);
	return run_guest(v);
}

/* A processor that was never started: wait for INIT. KVM says EAGAIN afterwards. */
static int wait_for_init(struct vcpu *v, bool wanted)
{
	if (!wanted)
		return -EINTR;
	if (vcpu_wait(v, has_todo))
		return exit_interrupted(v);
	if (__atomic_fetch_and(&v->todo, ~TODO_INIT, __ATOMIC_SEQ_CST) & TODO_INIT)
		do_init(v);
	else
		__atomic_fetch_and(&v->todo, ~TODO_SIPI, __ATOMIC_SEQ_CST);
	return -EAGAIN;
}

static int sync_in(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	u64 dirty = run->kvm_dirty_regs;
	struct kvm_sync_regs s;

	if ((run->kvm_valid_regs | dirty) & ~KVM_SYNC_X86_VALID_FIELDS)
		return -EINVAL;
	if (dirty) {
		s = run->s.regs;
		if (dirty & KVM_SYNC_X86_REGS)
			regs_set(v, &s.regs);
		if (dirty & KVM_SYNC_X86_SREGS && sregs_set(v, &s.sregs))
			return -EINVAL;
		if (dirty & KVM_SYNC_X86_EVENTS && events_set(v, &s.events))
			return -EINVAL;
		run->kvm_dirty_regs = 0;
	}
	if (!v->lapic) {
		u64 cr8 = run->cr8;

		if (cr8 > 15)
			return -EINVAL;
		vcpu_set_cr8(v, cr8);
	}
	return 0;
}

static void sync_out(struct vcpu *v)
{
	u64 valid = v->run->kvm_valid_regs;

	if (valid & KVM_SYNC_X86_REGS)
		regs_get(v, &v->run->s.regs.regs);
	if (valid & KVM_SYNC_X86_SREGS)
		sregs_get(v, &v->run->s.regs.sregs);
	if (valid & KVM_SYNC_X86_EVENTS)
		events_get(v, &v->run->s.regs.events);
}

bool vcpu_ready_for_injection(struct vcpu *v)
{
	return vcpu_can_take_irq(v) && !v->cpu.event.pending && v->ext_vector < 0 &&
	       (!v->lapic || lapic_accepts_pic(v->lapic));
}

/* What the client finds after every return, -EINTR too. */
static void post_run(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	sync_out(v);
	run->flags = v->cpu.in_smm ? KVM_RUN_X86_SMM : 0;
	run->if_flag = !!(v->cpu.eflags & EFL_IF);
	run->cr8 = vcpu_get_cr8(v);
	run->apic_base = vcpu_get_apic_base(v);
	run->ready_for_interrupt_injection = vm_has_pic(v->vm) || vcpu_ready_for_injection(v);
	if (v->stats_page)
		vcpu_publish_stats(v);
	live_stats_after_run(v);
}

static int enter_and_run(struct vcpu *v, bool wanted)
{
	int r;

	fault_prepare(v);
	if (_setjmp(v->fault_exit))
		return fault_finish(v);
	r = vcpu_enter(v);
	if (!r)
		r = run_inside(v, wanted);
	if (v->seq & 1)
		vcpu_leave(v);
	return r;
}

int vcpu_run(struct vcpu *v)
{
	bool wanted = !__atomic_load_n(&v->run->immediate_exit, __ATOMIC_ACQUIRE);
	int r;

	v->cpu.irq_window = v->run->request_interrupt_window && !vm_has_pic(v->vm);
	v->cpu.mwait_needs_cpuid = v->vm->disabled_quirks & KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS;
	v->cpu.no_fix_hypercall = v->vm->disabled_quirks & KVM_X86_QUIRK_FIX_HYPERCALL_INSN;
	if (v->mp_state == KVM_MP_STATE_UNINITIALIZED) {
		r = wait_for_init(v, wanted);
	} else {
		r = sync_in(v);
		v->has_run = true;
		if (!r)
			r = enter_and_run(v, wanted);
	}
	post_run(v);
	return r;
}

long vcpu_ioctl_run(struct ioc *c)
{
	bool anywhere = c->cancel_type == PTHREAD_CANCEL_ASYNCHRONOUS;
	int r;

	__atomic_store_n(&c->vcpu->ends_anywhere, anywhere, __ATOMIC_RELAXED);
	vcpu_set_running(c->vcpu);
	r = vcpu_run(c->vcpu);
	vcpu_set_running(NULL);
	return r;
}
