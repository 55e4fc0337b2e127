// SPDX-License-Identifier: MIT
/*
 * The interrupt chips as ioctls, and the ops through which irq/ reaches vCPUs and timers.
 * What the chips do is in irq/.
 */
#include "kvm/counted.h"
#include "kvm/event_thread.h"
#include "kvm/ioctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- irq/ calls up */

static void op_kick(void *vm, unsigned int vcpu)
{
	struct vcpu *v = vm_vcpu(vm, vcpu);

	if (v)
		vcpu_kick(v, REQ_IRQ);
}

static void op_nmi(void *vm, unsigned int vcpu)
{
	struct vcpu *v = vm_vcpu(vm, vcpu);

	if (v)
		vcpu_queue_nmi(v);
}

static void op_smi(void *vm, unsigned int vcpu)
{
	struct vcpu *v = vm_vcpu(vm, vcpu);

	if (v)
		vcpu_ask(v, TODO_SMI);
}

static void op_init(void *vm, unsigned int vcpu)
{
	struct vcpu *v = vm_vcpu(vm, vcpu);

	if (v)
		vcpu_ask(v, TODO_INIT);
}

static void op_sipi(void *vm, unsigned int vcpu, u8 vector)
{
	struct vcpu *v = vm_vcpu(vm, vcpu);

	if (!v)
		return;
	__atomic_store_n(&v->sipi_vector, vector, __ATOMIC_SEQ_CST);
	vcpu_ask(v, TODO_SIPI);
}

static void op_eoi_exit(void *vm, unsigned int vcpu, u8 vector)
{
	struct vcpu *v = vm_vcpu(vm, vcpu);

	if (!v)
		return;
	v->eoi_exit = vector; /* own thread: see run.c */
	cpu_request(&v->cpu, REQ_KICK);
}

static void op_acked(void *vm, unsigned int gsi)
{
	irqfd_acked(vm, gsi);
}

static u64 op_now_ns(void *vm)
{
	return vm_mono_ns(vm);
}

static u64 op_tsc_deadline_ns(void *vm, unsigned int vcpu, u64 tsc)
{
	struct vcpu *v = vm_vcpu(vm, vcpu);
	u64 now = vm_mono_ns(vm), guest;

	if (!v)
		return now;
	guest = vcpu_tsc(v, vm_tsc(vm));
	if (tsc <= guest)
		return 0;
	return now + (u64)((unsigned __int128)(tsc - guest) * 1000000 / v->tsc_khz);
}

static void op_arm(void *opaque, struct irq_timer *t, u64 deadline_ns)
{
	struct vm *vm = opaque;

	if (vm->counted)
		counted_arm(vm->counted, t, deadline_ns);
	else
		event_arm(vm->events, t, deadline_ns);
}

static void op_disarm(void *opaque, struct irq_timer *t)
{
	struct vm *vm = opaque;

	if (vm->counted)
		counted_disarm(vm->counted, t);
	else
		event_disarm(vm->events, t);
}

const struct irqchip_ops vm_irqchip_ops = {
	.kick = op_kick,
	.nmi = op_nmi,
	.smi = op_smi,
	.init = op_init,
	.sipi = op_sipi,
	.eoi_exit = op_eoi_exit,
	.acked = op_acked,
	.now_ns = op_now_ns,
	.tsc_deadline_ns = op_tsc_deadline_ns,
	.arm = op_arm,
	.disarm = op_disarm,
};

/* ---- ioctls */

static struct irqchip *full_chip(struct vm *vm)
{
	struct irqchip *c = vm_chip(vm);

	return c && !irqchip_is_split(c) ? c : NULL;
}

static long create_irqchip(struct vm *vm)
{
	struct irqchip *chip;
	int r;

	if (vm->chip)
		return -EEXIST;
	if (vm->nr_vcpus)
		return -EINVAL;
	chip = irqchip_create(IRQCHIP_FULL, 0, &vm_irqchip_ops, vm);
	if (!chip)
		return -ENOMEM;
	r = irqchip_attach(chip, vm->mmio, vm->pio);
	if (r)
		irqchip_destroy(chip);
	else
		__atomic_store_n(&vm->chip, chip, __ATOMIC_RELEASE);
	return r;
}

long vm_create_irqchip(struct ioc *c)
{
	long r;

	pthread_mutex_lock(&c->vm->lock);
	r = create_irqchip(c->vm);
	pthread_mutex_unlock(&c->vm->lock);
	return r;
}

long vm_irq_line_status(struct ioc *c)
{
	struct kvm_irq_level *l = c->arg;
	struct irqchip *chip = vm_chip(c->vm);

	if (!chip)
		return -ENXIO;
	l->status = irq_set_line(chip, IRQ_SOURCE_USER, l->irq, l->level);
	return 0;
}

long vm_irq_line(struct ioc *c)
{
	return vm_irq_line_status(c);
}

long vm_signal_msi(struct ioc *c)
{
	const struct kvm_msi *m = c->arg;
	struct irqchip *chip = vm_chip(c->vm);

	if (!chip || m->flags)
		return -EINVAL;
	return irq_send_msi(chip, (u64)m->address_hi << 32 | m->address_lo, m->data);
}

/* pic_state and kvm_pic_state, ioapic_state and kvm_ioapic_state have the same fields. */
_Static_assert(sizeof(struct pic_state) == sizeof(struct kvm_pic_state), "pic");
_Static_assert(sizeof(struct ioapic_state) == sizeof(struct kvm_ioapic_state), "ioapic");
_Static_assert(offsetof(struct ioapic_state, redirtbl) ==
		       offsetof(struct kvm_ioapic_state, redirtbl), "ioapic");

long vm_get_irqchip(struct ioc *c)
{
	struct kvm_irqchip *k = c->arg;
	struct irqchip *chip = full_chip(c->vm);
	struct ioapic_state io;
	struct pic_state pic;

	if (!chip)
		return -ENXIO;
	switch (k->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		pic_get_state(chip, k->chip_id == KVM_IRQCHIP_PIC_SLAVE, &pic);
		memcpy(&k->chip.pic, &pic, sizeof(pic));
		return 0;
	case KVM_IRQCHIP_IOAPIC:
		ioapic_get_state(chip, &io);
		memcpy(&k->chip.ioapic, &io, sizeof(io));
		return 0;
	}
	return -EINVAL;
}

long vm_set_irqchip(struct ioc *c)
{
	const struct kvm_irqchip *k = c->arg;
	struct irqchip *chip = full_chip(c->vm);
	struct ioapic_state io;
	struct pic_state pic;

	if (!chip)
		return -ENXIO;
	switch (k->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		memcpy(&pic, &k->chip.pic, sizeof(pic));
		pic_set_state(chip, k->chip_id == KVM_IRQCHIP_PIC_SLAVE, &pic);
		return 0;
	case KVM_IRQCHIP_IOAPIC:
		memcpy(&io, &k->chip.ioapic, sizeof(io));
		ioapic_set_state(chip, &io);
		return 0;
	}
	return -EINVAL;
}

static long create_pit(struct vm *vm, u32 flags)
{
	long r;

	pthread_mutex_lock(&vm->lock);
	if (vm->chip && pit_exists(vm->chip))
		r = -EEXIST;
	else if (!full_chip(vm))
		r = -ENOENT;
	else
		r = pit_create(vm->chip, flags, vm->pio);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

long vm_create_pit(struct ioc *c)
{
	return create_pit(c->vm, PIT_SPEAKER_DUMMY);
}

long vm_create_pit2(struct ioc *c)
{
	return create_pit(c->vm, ((struct kvm_pit_config *)c->arg)->flags);
}

static bool has_pit(struct vm *vm)
{
	struct irqchip *chip = full_chip(vm);

	return chip && pit_exists(chip);
}

static void channel_out(struct kvm_pit_channel_state *k, const struct pit_channel_state *p)
{
	*k = (struct kvm_pit_channel_state){
		.count = p->count,
		.latched_count = p->latched_count,
		.count_latched = p->count_latched,
		.status_latched = p->status_latched,
		.status = p->status,
		.read_state = p->read_state,
		.write_state = p->write_state,
		.write_latch = p->write_latch,
		.rw_mode = p->rw_mode,
		.mode = p->mode,
		.bcd = p->bcd,
		.gate = p->gate,
		.count_load_time = p->count_load_time,
	};
}

static void channel_in(struct pit_channel_state *p, const struct kvm_pit_channel_state *k)
{
	*p = (struct pit_channel_state){
		.count = k->count,
		.latched_count = k->latched_count,
		.count_latched = k->count_latched,
		.status_latched = k->status_latched,
		.status = k->status,
		.read_state = k->read_state,
		.write_state = k->write_state,
		.write_latch = k->write_latch,
		.rw_mode = k->rw_mode,
		.mode = k->mode,
		.bcd = k->bcd,
		.gate = k->gate,
		.count_load_time = k->count_load_time,
	};
}

static long get_pit(struct vm *vm, struct kvm_pit_channel_state *ch, u32 *flags)
{
	struct pit_state p;

	if (!has_pit(vm))
		return -ENXIO;
	pit_get_state(vm_chip(vm), &p);
	for (int i = 0; i < 3; i++)
		channel_out(&ch[i], &p.channels[i]);
	*flags = p.flags;
	return 0;
}

static long set_pit(struct vm *vm, const struct kvm_pit_channel_state *ch, u32 flags)
{
	struct pit_state p = {.flags = flags};

	if (!has_pit(vm))
		return -ENXIO;
	for (int i = 0; i < 3; i++)
		channel_in(&p.channels[i], &ch[i]);
	pit_set_state(vm_chip(vm), &p);
	return 0;
}

long vm_get_pit(struct ioc *c)
{
	u32 flags;

	return get_pit(c->vm, ((struct kvm_pit_state *)c->arg)->channels, &flags);
}

long vm_set_pit(struct ioc *c)
{
	return set_pit(c->vm, ((struct kvm_pit_state *)c->arg)->channels, 0);
}

long vm_get_pit2(struct ioc *c)
{
	struct kvm_pit_state2 *k = c->arg;

	return get_pit(c->vm, k->channels, &k->flags);
}

long vm_set_pit2(struct ioc *c)
{
	const struct kvm_pit_state2 *k = c->arg;

	return set_pit(c->vm, k->channels, k->flags);
}

long vm_reinject_control(struct ioc *c)
{
	struct kvm_reinject_control k;

	if (copy_in(&k, c->uptr, sizeof(k)))
		return -EFAULT;
	if (!has_pit(c->vm))
		return -ENXIO;
	pit_set_reinject(vm_chip(c->vm), k.pit_reinject);
	return 0;
}

static int route_in(struct irq_route *r, const struct kvm_irq_routing_entry *k)
{
	if (k->flags)
		return -EINVAL;
	*r = (struct irq_route){.gsi = k->gsi, .kind = k->type};
	switch (k->type) {
	case KVM_IRQ_ROUTING_IRQCHIP:
		r->chip = k->u.irqchip.irqchip;
		r->pin = k->u.irqchip.pin;
		return 0;
	case KVM_IRQ_ROUTING_MSI:
		r->msi_address = (u64)k->u.msi.address_hi << 32 | k->u.msi.address_lo;
		r->msi_data = k->u.msi.data;
		return 0;
	}
	return -EINVAL;
}

static int set_routes(struct vm *vm, const struct kvm_irq_routing_entry *k, u32 nr)
{
	struct irq_route *r = calloc(nr + 1, sizeof(*r));
	int err = r ? 0 : -ENOMEM;

	for (u32 i = 0; !err && i < nr; i++)
		err = route_in(&r[i], &k[i]);
	if (!err) {
		pthread_mutex_lock(&vm->lock);
		err = irq_set_routes(vm->chip, r, nr);
		pthread_mutex_unlock(&vm->lock);
	}
	free(r);
	return err;
}

long vm_set_gsi_routing(struct ioc *c)
{
	const struct kvm_irq_routing *k = c->arg;
	struct kvm_irq_routing_entry *e;
	int err;

	if (!vm_chip(c->vm) || k->nr > IRQ_GSI_MAX || k->flags)
		return -EINVAL;
	e = dup_in(c->uptr + sizeof(*k), k->nr, sizeof(*e), &err);
	if (!e)
		return err;
	err = set_routes(c->vm, e, k->nr);
	free(e);
	return err;
}
