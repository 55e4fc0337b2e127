// SPDX-License-Identifier: MIT
/* What guests ask their harness for: abi.h's enum service_op. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine.h"

typedef long (*service_fn)(struct vcpu *v, struct service *s);

static struct vcpu *target(struct vcpu *v, const struct service *s)
{
	return &v->m->cpu[s->cpu % v->m->image->cpus];
}

static long svc_nmi(struct vcpu *v, struct service *s)
{
	return machine_ioctl(v->m, target(v, s)->fd, KVM_NMI, NULL);
}

static long interrupt(struct vcpu *v, unsigned int vector)
{
	struct kvm_interrupt irq = {vector};

	return machine_ioctl(v->m, v->fd, KVM_INTERRUPT, &irq);
}

static long svc_irq(struct vcpu *v, struct service *s)
{
	return interrupt(v, s->a);
}

static long svc_irq_window(struct vcpu *v, struct service *s)
{
	v->window_vector = s->a;
	v->run->request_interrupt_window = 1;
	return 0;
}

void service_irq_window(struct vcpu *v)
{
	v->run->request_interrupt_window = 0;
	if (v->window_vector >= 0)
		interrupt(v, v->window_vector);
	v->window_vector = -1;
}

static long svc_line(struct vcpu *v, struct service *s)
{
	struct kvm_irq_level l = {.irq = s->a, .level = s->b};

	return machine_ioctl(v->m, v->m->vm, KVM_IRQ_LINE, &l);
}

static long svc_debug(struct vcpu *v, struct service *s)
{
	struct kvm_guest_debug d = {.control = s->a};

	v->debug_control = s->a;
	d.arch.debugreg[0] = s->c;
	d.arch.debugreg[7] = s->b;
	v->debug_log = s->d ? machine_ram(v->m, s->d, sizeof(*v->debug_log)) : NULL;
	return machine_ioctl(v->m, v->fd, KVM_SET_GUEST_DEBUG, &d);
}

/* As debuggers do: a breakpoint is taken out, an INT3 of the program stepped over. */
void service_after_debug(struct vcpu *v, bool is_int3)
{
	struct kvm_guest_debug off = {0};
	struct kvm_regs r;

	if (is_int3 && !machine_ioctl(v->m, v->fd, KVM_GET_REGS, &r)) {
		r.rip++;
		machine_ioctl(v->m, v->fd, KVM_SET_REGS, &r);
	} else if (v->debug_control & KVM_GUESTDBG_USE_HW_BP) {
		machine_ioctl(v->m, v->fd, KVM_SET_GUEST_DEBUG, &off);
	}
}

/* ---- host threads */

static void *kick_thread(void *arg)
{
	struct machine *m = arg;

	while (!m->done) {
		unsigned int us = m->kick_us, cpu = m->kick_cpu;

		usleep(us ? us : 1000);
		if (us)
			machine_kick(&m->cpu[cpu]);
	}
	return NULL;
}

static long svc_kick(struct vcpu *v, struct service *s)
{
	struct machine *m = v->m;

	m->kick_cpu = s->cpu % m->image->cpus;
	m->kick_us = s->a;
	return m->kicker ? 0 : -pthread_create(&m->kicker, NULL, kick_thread, m);
}

struct poke {
	struct machine *m;
	volatile uint8_t *at;
	uint8_t value;
	unsigned int us;
};

static void *poke_thread(void *arg)
{
	struct poke *p = arg;

	usleep(p->us);
	*p->at = p->value;
	p->m->poke_busy = false;
	free(p);
	return NULL;
}

static long svc_poke(struct vcpu *v, struct service *s)
{
	struct poke *p = malloc(sizeof(*p));
	pthread_t t;
	long r;

	*p = (struct poke){v->m, machine_ram(v->m, s->a, 1), s->b, s->c};
	v->m->poke_busy = true;
	r = -pthread_create(&t, NULL, poke_thread, p);
	if (!r)
		pthread_detach(t);
	return r;
}

/* ---- state of vCPUs */

static long svc_shutdown(struct vcpu *v, struct service *s)
{
	long r = machine_ioctl(v->m, v->fd, KVM_GET_SREGS, &v->back_sregs);

	if (!r)
		r = machine_ioctl(v->m, v->fd, KVM_GET_REGS, &v->back_regs);
	v->back_regs.rip = s->a;
	v->back = s;
	v->shutdown_wanted = true;
	return r;
}

bool service_shutdown(struct vcpu *v)
{
	if (!v->shutdown_wanted)
		return false;
	v->shutdown_wanted = false;
	v->back->ret = 1;
	return !machine_ioctl(v->m, v->fd, KVM_SET_SREGS, &v->back_sregs) &&
	       !machine_ioctl(v->m, v->fd, KVM_SET_REGS, &v->back_regs);
}

static long svc_start(struct vcpu *v, struct service *s)
{
	struct vcpu *t = target(v, s);
	struct kvm_sregs sregs, own;
	struct kvm_regs regs;
	long r;

	if (t->started)
		return -EBUSY;
	if (machine_ioctl(v->m, v->fd, KVM_GET_SREGS, &sregs) ||
	    machine_ioctl(v->m, v->fd, KVM_GET_REGS, &regs) ||
	    machine_ioctl(v->m, t->fd, KVM_GET_SREGS, &own))
		return -EIO;
	sregs.apic_base = own.apic_base;
	regs.rip = s->a;
	regs.rsp = s->b;
	r = machine_ioctl(v->m, t->fd, KVM_SET_SREGS, &sregs);
	if (!r)
		r = machine_ioctl(v->m, t->fd, KVM_SET_REGS, &regs);
	if (!r)
		r = machine_start(t);
	return r;
}

static long svc_mmio_log(struct vcpu *v, struct service *s)
{
	v->m->mmio_log = s->a ? machine_ram(v->m, s->a, sizeof(*v->m->mmio_log)) : NULL;
	return 0;
}

static long svc_slot(struct vcpu *v, struct service *s)
{
	struct kvm_userspace_memory_region r = {
		.slot = s->a,
		.guest_phys_addr = s->b,
		.memory_size = s->c,
		.userspace_addr = (uint64_t)v->m->ram + s->d,
	};

	return machine_ioctl(v->m, v->m->vm, KVM_SET_USER_MEMORY_REGION, &r);
}

static long svc_cr8(struct vcpu *v, struct service *s)
{
	long old = v->run->cr8;

	v->run->cr8 = s->a;
	return old;
}

static long svc_sleep(struct vcpu *v, struct service *s)
{
	(void)v;
	usleep(s->a);
	return 0;
}

static const service_fn services[] = {
	[SVC_NMI] = svc_nmi,	       [SVC_IRQ] = svc_irq,	  [SVC_IRQ_WINDOW] = svc_irq_window,
	[SVC_LINE] = svc_line,	       [SVC_DEBUG] = svc_debug,	  [SVC_KICK] = svc_kick,
	[SVC_POKE] = svc_poke,	       [SVC_SHUTDOWN] = svc_shutdown, [SVC_START] = svc_start,
	[SVC_MMIO_LOG] = svc_mmio_log, [SVC_SLOT] = svc_slot,	  [SVC_CR8] = svc_cr8,
	[SVC_SLEEP] = svc_sleep,
};

void service_call(struct vcpu *v, uint64_t gpa)
{
	struct service *s = machine_ram(v->m, gpa, sizeof(*s));

	if (!s || s->op >= sizeof(services) / sizeof(services[0]) || !services[s->op]) {
		machine_stop(v->m, "vCPU %d: no such service", v->id);
		return;
	}
	s->ret = 0;
	s->ret = services[s->op](v, s);
}
