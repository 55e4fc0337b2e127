// SPDX-License-Identifier: MIT
/* What cpu/ and emul/ ask of the vCPU they run in: interrupts, MSRs, hypercalls, devices. */
#include "kvm/vcpu.h"

#include <errno.h>
#include <linux/kvm_para.h>

/* ---- interrupts */

static bool has_ext_vector(struct vcpu *v)
{
	return v->ext_vector >= 0 && (!v->lapic || lapic_accepts_pic(v->lapic));
}

bool vcpu_has_interrupt(struct vcpu *v)
{
	return has_ext_vector(v) || (v->lapic && irq_pending(v->lapic));
}

static bool op_irq_pending(struct cpu *cpu)
{
	return vcpu_has_interrupt(vcpu_of(cpu));
}

static int op_irq_ack(struct cpu *cpu)
{
	struct vcpu *v = vcpu_of(cpu);
	int vector = -1;

	if (has_ext_vector(v)) {
		vector = v->ext_vector;
		v->ext_vector = -1;
	} else if (v->lapic) {
		vector = irq_ack(v->lapic);
	}
	if (vector >= 0)
		v->stats.irq_injections++;
	return vector;
}

u64 vcpu_get_cr8(struct vcpu *v)
{
	return v->lapic ? lapic_get_cr8(v->lapic) : v->cr8;
}

void vcpu_set_cr8(struct vcpu *v, u64 cr8)
{
	if (cr8 > 15)
		return;
	if (v->lapic)
		lapic_set_cr8(v->lapic, cr8);
	else
		v->cr8 = cr8;
}

static u8 op_get_tpr(struct cpu *cpu)
{
	return vcpu_get_cr8(vcpu_of(cpu));
}

static void op_set_tpr(struct cpu *cpu, u8 tpr)
{
	struct vcpu *v = vcpu_of(cpu);

	if (!v->lapic && tpr < v->cr8) /* user space's APIC may have something for the guest now */
		cpu->leave = LEAVE_TPR;
	vcpu_set_cr8(v, tpr);
}

u64 vcpu_get_apic_base(struct vcpu *v)
{
	return v->lapic ? lapic_get_base(v->lapic) : v->apic_base;
}

bool vcpu_set_apic_base(struct vcpu *v, u64 base, bool host)
{
	if (v->lapic)
		return lapic_set_base(v->lapic, base, host);
	/* x2APIC needs the in-kernel chip; bits 0-7 and 9 are reserved (SDM 3A 11.4.4). */
	if (base & 0x6ff || base >> v->cpu.mmu.paging.maxphyaddr)
		return false;
	v->apic_base = base;
	return true;
}

/* ---- MSRs, time */

static enum stop op_rdmsr(struct cpu *cpu, u32 index, u64 *value)
{
	return vcpu_msr_get(vcpu_of(cpu), index, value, false) ? STOP_OK : cpu_gp(cpu, 0);
}

static enum stop op_wrmsr(struct cpu *cpu, u32 index, u64 value)
{
	return vcpu_msr_set(vcpu_of(cpu), index, value, false) ? STOP_OK : cpu_gp(cpu, 0);
}

static bool op_msr_allowed(struct cpu *cpu, u32 index, bool write)
{
	return vcpu_msr_allowed(vcpu_of(cpu), index, write);
}

static enum stop op_msr_refused(struct cpu *cpu, u32 index, bool write, bool allowed)
{
	struct vcpu *v = vcpu_of(cpu);
	u32 reason = !allowed		      ? KVM_MSR_EXIT_REASON_FILTER
		     : vcpu_msr_known(index) ? KVM_MSR_EXIT_REASON_INVAL
					      : KVM_MSR_EXIT_REASON_UNKNOWN;

	if (!vcpu_msr_exits(v, reason))
		return STOP_EXC;
	v->msr_wait.reason = reason;
	cpu->leave = write ? LEAVE_MSR_WRITE : LEAVE_MSR_READ;
	return STOP_USER;
}

static u64 op_host_to_guest_tsc(struct cpu *cpu, u64 tsc)
{
	struct vcpu *v = vcpu_of(cpu);
	bool direct = host_tsc_invariant() && !v->vm->counted;

	return vcpu_tsc(v, direct ? tsc : vm_tsc(v->vm));
}

/* ---- an instruction that the emulator takes over from the processor */

static enum stop op_take_over(struct cpu *cpu, struct env *e, const struct insn *i,
	const struct fault *fault)
{
	return emul_take_over(&vcpu_of(cpu)->emul, cpu, e, i, fault);
}

/* What ends in nothing but the next instruction need not leave the processor. */
static enum stop op_taken_over(struct cpu *cpu, enum stop stop)
{
	struct vcpu *v = vcpu_of(cpu);

	v->emulated = emul_taken_over(&v->emul, cpu, stop);
	v->stats.exits += v->emulated != EMUL_LEAVE; /* that one leaves, and is counted there */
	if (v->emulated == EMUL_DONE)
		return STOP_OK;
	if (v->emulated != EMUL_LEAVE)
		cpu->leave = LEAVE_EMULATED;
	return STOP_USER;
}

/* The LAPIC's own. The bus is for the usual road: most that is asked there goes to user space. */
static bool op_device_load(struct cpu *cpu, const struct xlat *x, unsigned int len, u64 *value)
{
	struct vcpu *v = vcpu_of(cpu);

	if (!v->lapic || !lapic_is_at(v->lapic, x->gpa))
		return false;
	if (!emul_device_load(&v->emul, cpu, x, len, value))
		return false;
	v->stats.exits++;
	return true;
}

/* ---- hypercalls: number in RAX, arguments in RBX, RCX, RDX, RSI */

static s64 kick_cpu(struct vcpu *v, u64 apic_id)
{
	int n = v->lapic ? lapic_find(v->vm->chip, apic_id) : -1;

	if (n >= 0)
		vcpu_kick(vm_vcpu(v->vm, n), REQ_IRQ);
	return 0;
}

#define ICR_NOT_HERE 0xffffffff000c0800ull /* destination, shorthand, logical: are in the bitmap */

/* One interrupt to the APIC IDs min + n, n the bits of a bitmap of 64 or 128: how many had it. */
static s64 send_ipi(struct vcpu *v, const u64 bits[2], u32 min, u64 icr, unsigned int width)
{
	struct irq_msg m = {
		.vector = (u8)icr,
		.delivery = (icr >> 8) & 7,
		.level = true,
		.source = v->lapic,
	};
	s64 sent = 0;

	if (!v->lapic)
		return 0;
	if (icr & ICR_NOT_HERE)
		return -KVM_EINVAL;
	for (unsigned int n = 0; n < 2 * width; n++) {
		m.dest = min + n;
		if (bits[n / width] >> n % width & 1 && m.dest >= min &&
		    lapic_find(v->vm->chip, m.dest) >= 0)
			sent += irq_deliver(v->vm->chip, &m) > 0;
	}
	return sent;
}

static s64 hypercall(struct vcpu *v, u64 nr)
{
	const u64 *r = v->cpu.regs;
	bool wide = v->cpu.mode == MODE_64;

	if (v->cpu.cpl)
		return -KVM_EPERM;
	switch (nr) {
	case KVM_HC_VAPIC_POLL_IRQ:
		return 0;
	case KVM_HC_SEND_IPI:
		if (!vcpu_has_pv(v, KVM_FEATURE_PV_SEND_IPI))
			return -KVM_ENOSYS;
		return send_ipi(v, (u64[]){r[GPR_RBX], r[GPR_RCX]}, r[GPR_RDX],
				wide ? r[GPR_RSI] : (u32)r[GPR_RSI], wide ? 64 : 32);
	case KVM_HC_SCHED_YIELD:
		return vcpu_has_pv(v, KVM_FEATURE_PV_SCHED_YIELD) ? 0 : -KVM_ENOSYS;
	case KVM_HC_KICK_CPU:
		if (!vcpu_has_pv(v, KVM_FEATURE_PV_UNHALT))
			return -KVM_ENOSYS;
		return kick_cpu(v, v->cpu.regs[GPR_RCX]);
	}
	return -KVM_ENOSYS;
}

static enum stop op_hypercall(struct cpu *cpu)
{
	struct vcpu *v = vcpu_of(cpu);
	bool wide = cpu->mode == MODE_64;
	u64 nr = cpu->regs[GPR_RAX], r;

	v->stats.hypercalls++;
	r = hypercall(v, wide ? nr : (u32)nr);
	cpu->regs[GPR_RAX] = wide ? r : (u32)r;
	return STOP_OK;
}

/* ---- changes that the vCPU's loop has to know of */

static void op_paging_changed(struct cpu *cpu)
{
	(void)cpu;
}

static void op_nmi_unmasked(struct cpu *cpu)
{
	struct vcpu *v = vcpu_of(cpu);

	if (cpu->nmi_pending || __atomic_load_n(&v->nmi_queued, __ATOMIC_SEQ_CST))
		cpu_request(cpu, REQ_NMI);
}

static void op_smm_changed(struct cpu *cpu)
{
	struct vcpu *v = vcpu_of(cpu);

	if (cpu->in_smm)
		v->msr[MSR_SLOT_SMI_COUNT]++;
	else if (__atomic_load_n(&v->todo, __ATOMIC_SEQ_CST) & TODO_INIT)
		cpu_request(cpu, REQ_KICK); /* an INIT that came in SMM is taken now */
}

const struct cpu_ops vcpu_cpu_ops = {
	.irq_ack = op_irq_ack,
	.irq_pending = op_irq_pending,
	.get_tpr = op_get_tpr,
	.set_tpr = op_set_tpr,
	.rdmsr = op_rdmsr,
	.wrmsr = op_wrmsr,
	.msr_allowed = op_msr_allowed,
	.msr_refused = op_msr_refused,
	.hypercall = op_hypercall,
	.host_to_guest_tsc = op_host_to_guest_tsc,
	.take_over = op_take_over,
	.taken_over = op_taken_over,
	.device_load = op_device_load,
	.paging_changed = op_paging_changed,
	.nmi_unmasked = op_nmi_unmasked,
	.smm_changed = op_smm_changed,
};

/* ---- devices: the LAPIC is the vCPU's own, all others are on the VM's buses */

static int bus_mmio_read(void *opaque, gpa_t gpa, unsigned int len, void *data)
{
	struct vcpu *v = opaque;

	if (v->lapic && !lapic_mmio_read(v->lapic, gpa, len, data))
		return 0;
	return iobus_read(v->vm->mmio, gpa.v, len, data);
}

static int bus_mmio_write(void *opaque, gpa_t gpa, unsigned int len, const void *data)
{
	struct vcpu *v = opaque;

	if (v->lapic && !lapic_mmio_write(v->lapic, gpa, len, data))
		return 0;
	return iobus_write(v->vm->mmio, gpa.v, len, data);
}

static bool bus_doorbell(void *opaque, gpa_t gpa)
{
	struct vm *vm = ((struct vcpu *)opaque)->vm;

	return unlikely(__atomic_load_n(&vm->doorbells, __ATOMIC_ACQUIRE)) &&
	       iobus_has_any_length(vm->mmio, gpa.v);
}

static int bus_pio_read(void *opaque, u16 port, unsigned int len, void *data)
{
	return iobus_read(((struct vcpu *)opaque)->vm->pio, port, len, data);
}

static int bus_pio_write(void *opaque, u16 port, unsigned int len, const void *data)
{
	return iobus_write(((struct vcpu *)opaque)->vm->pio, port, len, data);
}

const struct emul_bus vcpu_bus = {
	.mmio_read = bus_mmio_read,
	.mmio_write = bus_mmio_write,
	.doorbell = bus_doorbell,
	.pio_read = bus_pio_read,
	.pio_write = bus_pio_write,
};
