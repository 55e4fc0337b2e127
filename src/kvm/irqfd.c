// SPDX-License-Identifier: MIT
/*
 * KVM_IRQFD: the client's eventfd raises an interrupt. The event thread polls it. With a
 * resample eventfd the line is level-triggered: it stays up until the guest acknowledges.
 */
#include "kvm/event_thread.h"
#include "kvm/eventfd.h"
#include "kvm/ioctl.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct irqfd {
	struct event_source source; /* .fd is ours */
	struct vm *vm;
	int resample; /* ours, or -1 */
	u32 gsi;
	struct irqfd *next; /* vm->irqfds_lock */
};

static bool irqfd_ready(struct event_source *s, short revents)
{
	struct irqfd *f = container_of(s, struct irqfd, source);
	struct irqchip *chip = vm_chip(f->vm);

	(void)revents;
	if (!eventfd_drain(s->fd))
		return true;
	if (f->resample >= 0) {
		irq_set_line(chip, IRQ_SOURCE_RESAMPLE, f->gsi, true);
	} else {
		irq_set_line(chip, IRQ_SOURCE_USER, f->gsi, true);
		irq_set_line(chip, IRQ_SOURCE_USER, f->gsi, false);
	}
	return true;
}

/* The guest has acknowledged: lower the line, and let the client look at its device again. */
void irqfd_acked(struct vm *vm, unsigned int gsi)
{
	bool lower = true;

	pthread_mutex_lock(&vm->irqfds_lock);
	for (struct irqfd *f = vm->irqfds; f; f = f->next) {
		if (f->gsi != gsi || f->resample < 0)
			continue;
		if (lower) /* one line for all of them */
			irq_set_line(vm_chip(vm), IRQ_SOURCE_RESAMPLE, gsi, false);
		lower = false;
		eventfd_raise(f->resample);
	}
	pthread_mutex_unlock(&vm->irqfds_lock);
}

static void irqfd_drop(struct irqfd *f)
{
	if (f->source.fd < 0)
		f->source.fd = ~f->source.fd;
	close(f->source.fd);
	if (f->resample >= 0)
		close(f->resample);
	free(f);
}

static long deassign(struct vm *vm, const struct kvm_irqfd *a)
{
	int fd = eventfd_hold(a->fd);

	if (fd < 0)
		return fd;
	pthread_mutex_lock(&vm->irqfds_lock);
	for (struct irqfd **p = &vm->irqfds; *p;) {
		struct irqfd *f = *p;

		if (f->gsi != a->gsi || !eventfd_same(f->source.fd, fd)) {
			p = &f->next;
			continue;
		}
		*p = f->next;
		event_del(vm->events, &f->source);
		if (f->resample >= 0)
			irq_set_line(vm_chip(vm), IRQ_SOURCE_RESAMPLE, f->gsi, false);
		irqfd_drop(f);
	}
	pthread_mutex_unlock(&vm->irqfds_lock);
	close(fd);
	return 0;
}

static long publish(struct vm *vm, struct irqfd *n)
{
	long r = 0;

	pthread_mutex_lock(&vm->irqfds_lock);
	for (struct irqfd *f = vm->irqfds; f; f = f->next)
		if (eventfd_same(f->source.fd, n->source.fd))
			r = -EBUSY;
	if (!r && !event_add(vm->events, &n->source))
		r = -ENOMEM;
	if (!r) {
		n->next = vm->irqfds;
		vm->irqfds = n;
	}
	pthread_mutex_unlock(&vm->irqfds_lock);
	return r;
}

static long assign(struct vm *vm, const struct kvm_irqfd *a)
{
	struct irqfd *f = calloc(1, sizeof(*f));
	long r;

	if (!f)
		return -ENOMEM;
	f->vm = vm;
	f->gsi = a->gsi;
	f->resample = -1;
	f->source.ready = irqfd_ready;
	r = f->source.fd = eventfd_hold(a->fd);
	if (r < 0) {
		free(f);
		return r;
	}
	if (a->flags & KVM_IRQFD_FLAG_RESAMPLE)
		r = f->resample = eventfd_hold(a->resamplefd);
	if (r >= 0)
		r = publish(vm, f);
	if (r < 0)
		irqfd_drop(f);
	return r;
}

long vm_irqfd(struct ioc *c)
{
	const struct kvm_irqfd *a = c->arg;

	if (a->flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE))
		return -EINVAL;
	if (!vm_chip(c->vm))
		return -EINVAL;
	if (a->gsi >= IRQ_GSI_MAX)
		return -EINVAL;
	return a->flags & KVM_IRQFD_FLAG_DEASSIGN ? deassign(c->vm, a) : assign(c->vm, a);
}

void irqfds_free(struct vm *vm)
{
	for (struct irqfd *f = vm->irqfds, *next; f; f = next) {
		next = f->next;
		irqfd_drop(f);
	}
	vm->irqfds = NULL;
}
