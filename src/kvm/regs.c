// SPDX-License-Identifier: MIT
/* Registers between struct cpu and KVM's structs: REGS, SREGS, DEBUGREGS, VCPU_EVENTS, debugging. */
#include "kvm/ioctl.h"

#include <errno.h>
#include <string.h>

/* ---- general registers. KVM's order is not the encoding's. */

#define REGS(X)                                                                             \
	X(rax, RAX) X(rbx, RBX) X(rcx, RCX) X(rdx, RDX) X(rsi, RSI) X(rdi, RDI) X(rsp, RSP) \
	X(rbp, RBP) X(r8, R8) X(r9, R9) X(r10, R10) X(r11, R11) X(r12, R12) X(r13, R13)     \
	X(r14, R14) X(r15, R15)

void regs_get(struct vcpu *v, struct kvm_regs *r)
{
#define X(field, reg) r->field = v->cpu.regs[GPR_##reg];
	REGS(X)
#undef X
	r->rip = v->cpu.rip;
	r->rflags = cpu_eflags(&v->cpu);
	if (cpu_real(&v->cpu))
		r->rflags &= ~EFL_VM; /* as KVM shows it; it counts once CR0.PE is set */
}

void regs_set(struct vcpu *v, const struct kvm_regs *r)
{
	struct kvm_regs now;

	regs_get(v, &now);
	if (memcmp(&now, r, sizeof(now)))
		emul_registers_set(&v->emul);
#define X(field, reg) v->cpu.regs[GPR_##reg] = r->field;
	REGS(X)
#undef X
	v->cpu.rip = r->rip;
	cpu_set_eflags(&v->cpu, r->rflags | EFL_ONE);
	cpu_update(&v->cpu);
}

long vcpu_get_regs(struct ioc *c)
{
	regs_get(c->vcpu, c->arg);
	return 0;
}

long vcpu_set_regs(struct ioc *c)
{
	regs_set(c->vcpu, c->arg);
	return 0;
}

/* ---- segments and system registers */

static void segment_get(const struct segment *s, struct kvm_segment *k)
{
	*k = (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->sel,
		.type = s->attr & SEGA_TYPE,
		.present = !!(s->attr & SEGA_P),
		.dpl = SEGA_DPL(s->attr),
		.db = !!(s->attr & SEGA_DB),
		.s = !!(s->attr & SEGA_S),
		.l = !!(s->attr & SEGA_L),
		.g = !!(s->attr & SEGA_G),
		.avl = !!(s->attr & SEGA_AVL),
		.unusable = s->unusable,
	};
}

static void segment_set(struct segment *s, const struct kvm_segment *k)
{
	*s = (struct segment){
		.base = k->base,
		.limit = k->limit,
		.sel = k->selector,
		.attr = (k->type & SEGA_TYPE) | (k->s ? SEGA_S : 0) | (k->dpl & 3) << 5 |
			(k->present ? SEGA_P : 0) | (k->avl ? SEGA_AVL : 0) | (k->l ? SEGA_L : 0) |
			(k->db ? SEGA_DB : 0) | (k->g ? SEGA_G : 0),
		.unusable = k->unusable || !k->present,
	};
}

#define SEGMENTS(X) X(cs, CS) X(ds, DS) X(es, ES) X(fs, FS) X(gs, GS) X(ss, SS)

/* What SREGS and SREGS2 share; the two structs begin alike. */
static void sregs_get_common(struct vcpu *v, struct kvm_sregs *s)
{
	struct cpu *cpu = &v->cpu;

#define X(field, seg_) segment_get(&cpu->seg[SEG_##seg_], &s->field);
	SEGMENTS(X)
#undef X
	segment_get(&cpu->tr, &s->tr);
	segment_get(&cpu->ldtr, &s->ldt);
	s->gdt.base = cpu->gdtr.base;
	s->gdt.limit = cpu->gdtr.limit;
	s->idt.base = cpu->idtr.base;
	s->idt.limit = cpu->idtr.limit;
	s->cr0 = cpu->cr0;
	s->cr2 = cpu->cr2;
	s->cr3 = cpu->cr3;
	s->cr4 = cpu->cr4;
	s->cr8 = vcpu_get_cr8(v);
	s->efer = cpu->efer;
	s->apic_base = vcpu_get_apic_base(v);
}

void sregs_get(struct vcpu *v, struct kvm_sregs *s)
{
	sregs_get_common(v, s);
	memset(s->interrupt_bitmap, 0, sizeof(s->interrupt_bitmap));
	if (v->cpu.event.pending && v->cpu.event.is_irq && !v->cpu.event.soft)
		s->interrupt_bitmap[v->cpu.event.exc.vector / 64] |=
			BIT(v->cpu.event.exc.vector % 64);
}

static bool cr0_valid(u64 cr0)
{
	if (cr0 >> 32)
		return false;
	if (cr0 & CR0_NW && !(cr0 & CR0_CD))
		return false;
	return !(cr0 & CR0_PG) || cr0 & CR0_PE;
}

static const struct cr4_feature {
	u64 bit;
	u32 leaf;
	u8 reg, n;
} cr4_features[] = {
	{CR4_OSXSAVE, 1, 2, 26}, {CR4_PCIDE, 1, 2, 17}, {CR4_FSGSBASE, 7, 1, 0},
	{CR4_SMEP, 7, 1, 7},	 {CR4_SMAP, 7, 1, 20},	{CR4_UMIP, 7, 2, 2},
	{CR4_PKE, 7, 2, 3},	 {CR4_LA57, 7, 2, 16},	{CR4_PKS, 7, 2, 31},
};

/* Before the client has chosen a model, what KVM_GET_SUPPORTED_CPUID offers counts. */
static bool cr4_feature_there(struct vcpu *v, const struct cr4_feature *f)
{
	return v->nr_cpuid ? vcpu_cpuid_bit(v, f->leaf, 0, f->reg, f->n) :
			     supported_cpuid_bit(f->leaf, 0, f->reg, f->n);
}

static u64 cr4_allowed(struct vcpu *v)
{
	u64 bits = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE |
		   CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT; /* VME: KVM asks no CPUID bit for it */

	for (size_t i = 0; i < ARRAY_SIZE(cr4_features); i++)
		if (cr4_feature_there(v, &cr4_features[i]))
			bits |= cr4_features[i].bit;
	return bits;
}

/* KVM's own test of KVM_SET_SREGS: what could not be entered is refused, the rest is the client's. */
static bool sregs_valid(struct vcpu *v, const struct kvm_sregs *s)
{
	if (s->efer & EFER_LME && s->cr0 & CR0_PG) {
		if (!(s->cr4 & CR4_PAE) || !(s->efer & EFER_LMA))
			return false;
		if (s->cr3 >> v->cpu.mmu.paging.maxphyaddr)
			return false;
	} else if (s->efer & EFER_LMA || s->cs.l) {
		return false;
	}
	return !(s->cr4 & ~cr4_allowed(v)) && cr0_valid(s->cr0);
}

static int sregs_set_common(struct vcpu *v, const struct kvm_sregs *s)
{
	struct cpu *cpu = &v->cpu;

	if (!sregs_valid(v, s) || !vcpu_set_apic_base(v, s->apic_base, true))
		return -EINVAL;
#define X(field, seg_) segment_set(&cpu->seg[SEG_##seg_], &s->field);
	SEGMENTS(X)
#undef X
	segment_set(&cpu->tr, &s->tr);
	segment_set(&cpu->ldtr, &s->ldt);
	cpu->gdtr = (struct desc_table){s->gdt.base, s->gdt.limit};
	cpu->idtr = (struct desc_table){s->idt.base, s->idt.limit};
	cpu->cr0 = s->cr0 | CR0_ET;
	cpu->cr2 = s->cr2;
	cpu->cr3 = s->cr3;
	cpu->cr4 = s->cr4;
	cpu->efer = s->efer & (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_FFXSR);
	vcpu_set_cr8(v, s->cr8);
	/* Older clients start the boot processor of a machine without APIC by its registers alone. */
	if (v->bsp && v->cpu.rip == 0xfff0 && s->cs.selector == 0xf000 && s->cs.base == 0xffff0000 &&
	    !(s->cr0 & CR0_PE))
		v->mp_state = KVM_MP_STATE_RUNNABLE;
	return 0;
}

static void queue_injected(struct vcpu *v, const u64 *bitmap)
{
	for (unsigned int i = 0; i < 256; i++) {
		if (!(bitmap[i / 64] & BIT(i % 64)))
			continue;
		memset(&v->cpu.event, 0, sizeof(v->cpu.event));
		v->cpu.event.pending = v->cpu.event.is_irq = true;
		v->cpu.event.exc.vector = i;
		cpu_request(&v->cpu, REQ_EVENT);
		return;
	}
}

int sregs_set(struct vcpu *v, const struct kvm_sregs *s)
{
	int r = sregs_set_common(v, s);

	if (r)
		return r;
	cpu_update_paging(&v->cpu, false);
	queue_injected(v, (const u64 *)s->interrupt_bitmap);
	return 0;
}

long vcpu_get_sregs(struct ioc *c)
{
	sregs_get(c->vcpu, c->arg);
	return 0;
}

/* In protected mode with PAE the four PDPTEs come from memory at CR3 (SDM 3A 4.4.1). */
static bool pae_paging(const struct cpu *cpu)
{
	return cpu->cr0 & CR0_PG && cpu->cr4 & CR4_PAE && !(cpu->efer & EFER_LMA);
}

long vcpu_set_sregs(struct ioc *c)
{
	struct vcpu *v = c->vcpu;
	struct paging p;
	int r = sregs_set(v, c->arg);

	if (r || !pae_paging(&v->cpu))
		return r;
	r = vcpu_enter(v);
	if (r)
		return r;
	p = v->cpu.mmu.paging;
	if (mmu_load_pdptrs(&v->cpu.mmu, &p))
		mmu_set_paging(&v->cpu.mmu, &p, false);
	vcpu_leave(v);
	return 0;
}

_Static_assert(offsetof(struct kvm_sregs, apic_base) == offsetof(struct kvm_sregs2, apic_base),
	       "the two structs begin alike");

long vcpu_get_sregs2(struct ioc *c)
{
	struct kvm_sregs2 *s = c->arg;
	struct kvm_sregs common = {0}; /* its padding goes out, too */

	sregs_get_common(c->vcpu, &common);
	memcpy(s, &common, offsetof(struct kvm_sregs2, flags));
	if (pae_paging(&c->vcpu->cpu)) {
		memcpy(s->pdptrs, c->vcpu->cpu.mmu.paging.pdptr, sizeof(s->pdptrs));
		s->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	}
	return 0;
}

long vcpu_set_sregs2(struct ioc *c)
{
	const struct kvm_sregs2 *s = c->arg;
	bool pdptrs = s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
	struct kvm_sregs common = {0};
	struct paging p;

	if (s->flags & ~(u64)KVM_SREGS2_FLAGS_PDPTRS_VALID)
		return -EINVAL;
	if (pdptrs && (!(s->cr0 & CR0_PG) || !(s->cr4 & CR4_PAE) || s->efer & EFER_LMA))
		return -EINVAL;
	memcpy(&common, s, offsetof(struct kvm_sregs2, flags));
	if (sregs_set_common(c->vcpu, &common))
		return -EINVAL;
	cpu_update_paging(&c->vcpu->cpu, false);
	if (pdptrs) {
		p = c->vcpu->cpu.mmu.paging;
		memcpy(p.pdptr, s->pdptrs, sizeof(p.pdptr));
		mmu_set_paging(&c->vcpu->cpu.mmu, &p, false);
	}
	return 0;
}

/* ---- debug registers and KVM_SET_GUEST_DEBUG */

long vcpu_get_debugregs(struct ioc *c)
{
	struct kvm_debugregs *d = c->arg;
	const struct cpu *cpu = &c->vcpu->cpu;

	memcpy(d->db, cpu->dr, sizeof(d->db));
	d->dr6 = cpu->dr6;
	d->dr7 = cpu->dr7;
	return 0;
}

long vcpu_set_debugregs(struct ioc *c)
{
	const struct kvm_debugregs *d = c->arg;
	struct cpu *cpu = &c->vcpu->cpu;

	if (d->flags || d->dr6 >> 32 || d->dr7 >> 32)
		return -EINVAL;
	memcpy(cpu->dr, d->db, sizeof(cpu->dr));
	cpu->dr6 = d->dr6 | DR6_FIXED;
	cpu->dr7 = d->dr7 | DR7_FIXED;
	cpu_update(cpu);
	return 0;
}

/* One event waits in the processor; an interrupt goes back to where KVM_INTERRUPT left it. */
static bool make_room_for_exception(struct vcpu *v)
{
	if (!v->cpu.event.pending)
		return true;
	if (!v->cpu.event.is_irq || v->lapic || v->ext_vector >= 0)
		return false;
	v->ext_vector = v->cpu.event.exc.vector;
	cpu_request(&v->cpu, REQ_IRQ);
	return true;
}

/*
 * #BP and #OF come back to a guest whose RIP is at its INT3 or INTO: as an injected software exception
 * it is pushed as behind it (SDM 3C 26.6.1.1, APM 2 15.20).
 */
static void set_soft_exception(struct cpu *cpu)
{
	cpu->event.soft = cpu->event.exc.vector == EXC_BP || cpu->event.exc.vector == EXC_OF;
	cpu->event.insn_len = 1;
}

static void inject_debug(struct vcpu *v, u8 vector)
{
	memset(&v->cpu.event, 0, sizeof(v->cpu.event));
	v->cpu.event.pending = true;
	v->cpu.event.exc.vector = vector;
	set_soft_exception(&v->cpu);
	cpu_request(&v->cpu, REQ_EVENT);
}

long vcpu_set_guest_debug(struct ioc *c)
{
	const struct kvm_guest_debug *d = c->arg;
	struct vcpu *v = c->vcpu;
	bool on = d->control & KVM_GUESTDBG_ENABLE;

	if (d->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) {
		if (!make_room_for_exception(v))
			return -EBUSY;
		inject_debug(v, d->control & KVM_GUESTDBG_INJECT_DB ? EXC_DB : EXC_BP);
	}
	v->debug = *d;
	v->cpu.guest_debug_step = on && d->control & KVM_GUESTDBG_SINGLESTEP;
	v->cpu.guest_debug_hw = on && d->control & KVM_GUESTDBG_USE_HW_BP;
	v->cpu.guest_debug_sw = on && d->control & KVM_GUESTDBG_USE_SW_BP;
	v->cpu.guest_debug_block = on && d->control & KVM_GUESTDBG_BLOCKIRQ;
	for (int i = 0; i < 4; i++)
		v->cpu.guest_dr[i] = d->arch.debugreg[i];
	v->cpu.guest_dr7 = d->arch.debugreg[7];
	cpu_update(&v->cpu);
	return 0;
}

/* ---- KVM_GET/SET_VCPU_EVENTS */

#define EVENTS_VALID                                                                   \
	(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |           \
	 KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM |                        \
	 KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT)

static void smi_get(struct vcpu *v, struct kvm_vcpu_events *e)
{
	u32 todo = __atomic_load_n(&v->todo, __ATOMIC_SEQ_CST);

	e->smi.smm = v->cpu.in_smm;
	e->smi.pending = v->cpu.smi_pending || todo & TODO_SMI;
	e->smi.smm_inside_nmi = v->cpu.in_smm && v->cpu.smm_inside_nmi;
	e->smi.latched_init = v->cpu.in_smm && todo & TODO_INIT;
}

static void smi_set(struct vcpu *v, const struct kvm_vcpu_events *e)
{
	cpu_set_smm(&v->cpu, e->smi.smm);
	v->cpu.smm_inside_nmi = e->smi.smm && e->smi.smm_inside_nmi;
	v->cpu.smi_pending = false;
	cpu_unrequest(&v->cpu, REQ_SMI);
	__atomic_fetch_and(&v->todo, ~(TODO_SMI | TODO_INIT), __ATOMIC_SEQ_CST);
	if (e->smi.pending)
		cpu_pend_smi(&v->cpu);
	if (v->lapic && e->smi.smm && e->smi.latched_init)
		__atomic_fetch_or(&v->todo, TODO_INIT, __ATOMIC_SEQ_CST);
}

void events_get(struct vcpu *v, struct kvm_vcpu_events *e)
{
	const struct cpu *cpu = &v->cpu;
	bool on = cpu->event.pending;
	bool exception = on && !cpu->event.is_irq && !cpu->event.is_nmi;

	memset(e, 0, sizeof(*e));
	e->exception.injected = exception;
	e->exception.nr = exception ? cpu->event.exc.vector : 0;
	e->exception.has_error_code = exception && cpu->event.exc.has_error;
	e->exception.error_code = exception ? cpu->event.exc.error : 0;
	e->interrupt.injected = on && cpu->event.is_irq;
	e->interrupt.nr = e->interrupt.injected ? cpu->event.exc.vector : 0;
	e->interrupt.soft = e->interrupt.injected && cpu->event.soft;
	e->interrupt.shadow = (cpu->shadow ? KVM_X86_SHADOW_INT_STI : 0) |
			      (cpu->shadow_ss ? KVM_X86_SHADOW_INT_MOV_SS : 0);
	if (cpu->shadow_ss)
		e->interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS;
	e->nmi.injected = on && cpu->event.is_nmi;
	e->nmi.pending = MIN(cpu->nmi_pending + v->nmi_queued, 2u);
	e->nmi.masked = cpu->nmi_blocked;
	smi_get(v, e);
	e->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
		   KVM_VCPUEVENT_VALID_SMM;
	if (v->vm->exception_payload) {
		e->exception_has_payload = exception && cpu->event.exc.has_payload;
		e->exception_payload = exception ? cpu->event.exc.payload : 0;
		e->flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	}
	if (v->vm->triple_fault_event)
		e->flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
}

static bool events_valid(struct vcpu *v, const struct kvm_vcpu_events *e)
{
	if (e->flags & ~EVENTS_VALID)
		return false;
	if (e->flags & KVM_VCPUEVENT_VALID_PAYLOAD && !v->vm->exception_payload)
		return false;
	if (e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT && !v->vm->triple_fault_event)
		return false;
	return !(e->exception.injected || e->exception.pending) ||
	       (e->exception.nr < 32 && e->exception.nr != EXC_NMI);
}

int events_set(struct vcpu *v, const struct kvm_vcpu_events *e)
{
	struct cpu *cpu = &v->cpu;
	bool exception = e->exception.injected ||
			 (e->flags & KVM_VCPUEVENT_VALID_PAYLOAD && e->exception.pending);

	if (!events_valid(v, e))
		return -EINVAL;
	memset(&cpu->event, 0, sizeof(cpu->event));
	if (exception) {
		cpu->event.exc = (struct exception){
			.vector = e->exception.nr,
			.has_error = e->exception.has_error_code,
			.error = e->exception.error_code,
			.has_payload = e->flags & KVM_VCPUEVENT_VALID_PAYLOAD &&
				       e->exception_has_payload,
			.payload = e->exception_payload,
		};
		set_soft_exception(cpu);
	} else if (e->interrupt.injected) {
		cpu->event.is_irq = true;
		cpu->event.soft = e->interrupt.soft;
		cpu->event.exc.vector = e->interrupt.nr;
	} else if (e->nmi.injected) {
		cpu->event.is_nmi = true;
		cpu->event.exc.vector = EXC_NMI;
	}
	cpu->event.pending = exception || e->interrupt.injected || e->nmi.injected;
	if (cpu->event.pending)
		cpu_request(cpu, REQ_EVENT);
	if (e->flags & KVM_VCPUEVENT_VALID_SHADOW) {
		cpu->shadow = e->interrupt.shadow;
		cpu->shadow_ss = e->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS;
	}
	cpu->nmi_blocked = e->nmi.masked;
	if (e->flags & KVM_VCPUEVENT_VALID_NMI_PENDING) {
		cpu->nmi_pending = 0;
		__atomic_store_n(&v->nmi_queued, MIN(e->nmi.pending, 2), __ATOMIC_SEQ_CST);
	}
	if (e->flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR && v->lapic)
		v->sipi_vector = e->sipi_vector;
	if (e->flags & KVM_VCPUEVENT_VALID_SMM)
		smi_set(v, e);
	cpu_update(cpu);
	return 0;
}

/*
 * KVM injects at the entry into the guest, we before an instruction. KVM_INTERRUPT's vector that the
 * guest can take is therefore in the processor when it is asked, and moves with its state.
 */
static void inject_ext_vector(struct vcpu *v)
{
	if (v->ext_vector < 0 || v->cpu.event.pending || !vcpu_can_take_irq(v) ||
	    (v->lapic && !lapic_accepts_pic(v->lapic)))
		return;
	memset(&v->cpu.event, 0, sizeof(v->cpu.event));
	v->cpu.event.pending = v->cpu.event.is_irq = true;
	v->cpu.event.exc.vector = v->ext_vector;
	v->ext_vector = -1;
	cpu_request(&v->cpu, REQ_EVENT);
}

long vcpu_get_vcpu_events(struct ioc *c)
{
	inject_ext_vector(c->vcpu);
	events_get(c->vcpu, c->arg);
	return 0;
}

long vcpu_set_vcpu_events(struct ioc *c)
{
	return events_set(c->vcpu, c->arg);
}

/* ---- KVM_TRANSLATE */

long vcpu_translate(struct ioc *c)
{
	struct kvm_translation *t = c->arg;
	struct vcpu *v = c->vcpu;
	struct xlat x;
	u32 pferr;
	int r = vcpu_enter(v);

	if (r)
		return r;
	t->valid = mmu_walk(&v->cpu.mmu, gva(t->linear_address), 1, MMU_R, MMU_KERNEL_AC,
			    WALK_DEBUG, &x, &pferr) == MMU_OK;
	t->physical_address = t->valid ? x.gpa.v : ~0ull;
	t->writeable = 1; /* KVM says so, whatever the tables say */
	t->usermode = 0;
	vcpu_leave(v);
	return 0;
}
