// SPDX-License-Identifier: MIT
/* KVM_IOEVENTFD: a write to an address becomes an eventfd's signal (SEED rule 23). */
#include "kvm/eventfd.h"
#include "kvm/ioctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FLAGS_VALID \
	(KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DEASSIGN)

struct ioeventfd {
	int fd; /* ours */
	u64 addr, datamatch;
	u32 len; /* 0: any */
	bool pio, wildcard;
	struct ioeventfd *next; /* vm->lock */
};

static int ioeventfd_write(void *dev, u64 addr, unsigned int len, const void *data)
{
	struct ioeventfd *e = dev;
	u64 value = 0;

	if (addr != e->addr || (e->len && len != e->len))
		return -EOPNOTSUPP;
	memcpy(&value, data, len);
	if (!e->wildcard && value != e->datamatch)
		return -EOPNOTSUPP;
	eventfd_raise(e->fd);
	return 0;
}

static int ioeventfd_read(void *dev, u64 addr, unsigned int len, void *data)
{
	(void)dev, (void)addr, (void)len, (void)data;
	return -EOPNOTSUPP;
}

static const struct iodev_ops ioeventfd_ops = {.read = ioeventfd_read, .write = ioeventfd_write};

static long check(const struct kvm_ioeventfd *a)
{
	if (a->flags & ~FLAGS_VALID)
		return -EINVAL;
	if (a->len > 8 || (a->len & (a->len - 1)) || a->addr + a->len < a->addr)
		return -EINVAL;
	return !a->len && a->flags & KVM_IOEVENTFD_FLAG_DATAMATCH ? -EINVAL : 0;
}

static struct iobus *bus_of(struct vm *vm, const struct ioeventfd *e)
{
	return e->pio ? vm->pio : vm->mmio;
}

static bool is_doorbell(const struct ioeventfd *e)
{
	return !e->len && !e->pio;
}

/* Would both answer the same write? */
static bool collide(const struct ioeventfd *a, const struct ioeventfd *b)
{
	return a->pio == b->pio && a->addr == b->addr &&
	       (!a->len || !b->len ||
		(a->len == b->len && (a->wildcard || b->wildcard || a->datamatch == b->datamatch)));
}

static long add(struct vm *vm, struct ioeventfd *e)
{
	long r;

	for (struct ioeventfd *o = vm->ioeventfds; o; o = o->next)
		if (collide(o, e))
			return -EEXIST;
	r = iobus_add(bus_of(vm, e), e->addr, e->len, &ioeventfd_ops, e);
	if (r)
		return r;
	e->next = vm->ioeventfds;
	vm->ioeventfds = e;
	if (is_doorbell(e))
		__atomic_fetch_add(&vm->doorbells, 1, __ATOMIC_RELEASE);
	return 0;
}

static void drop(struct ioeventfd *e)
{
	close(e->fd);
	free(e);
}

static long deassign(struct vm *vm, const struct ioeventfd *like)
{
	for (struct ioeventfd **p = &vm->ioeventfds; *p; p = &(*p)->next) {
		struct ioeventfd *e = *p;

		if (e->addr != like->addr || e->len != like->len || e->pio != like->pio ||
		    e->wildcard != like->wildcard ||
		    (!e->wildcard && e->datamatch != like->datamatch) ||
		    !eventfd_same(e->fd, like->fd))
			continue;
		if (iobus_remove(bus_of(vm, e), e))
			return -ENOENT;
		*p = e->next;
		if (is_doorbell(e))
			__atomic_fetch_sub(&vm->doorbells, 1, __ATOMIC_RELEASE);
		drop(e);
		return 0;
	}
	return -ENOENT;
}

long vm_ioeventfd(struct ioc *c)
{
	const struct kvm_ioeventfd *a = c->arg;
	struct ioeventfd *e;
	long r = check(a);
	int fd;

	if (r)
		return r;
	fd = eventfd_hold(a->fd);
	if (fd < 0)
		return fd;
	e = calloc(1, sizeof(*e));
	if (!e) {
		close(fd);
		return -ENOMEM;
	}
	*e = (struct ioeventfd){
		.fd = fd,
		.addr = a->addr,
		.len = a->len,
		.datamatch = a->datamatch,
		.pio = a->flags & KVM_IOEVENTFD_FLAG_PIO,
		.wildcard = !(a->flags & KVM_IOEVENTFD_FLAG_DATAMATCH),
	};
	pthread_mutex_lock(&c->vm->lock);
	r = a->flags & KVM_IOEVENTFD_FLAG_DEASSIGN ? deassign(c->vm, e) : add(c->vm, e);
	pthread_mutex_unlock(&c->vm->lock);
	if (r || a->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)
		drop(e);
	return r;
}

void ioeventfds_free(struct vm *vm)
{
	for (struct ioeventfd *e = vm->ioeventfds, *next; e; e = next) {
		next = e->next;
		if (!iobus_remove(bus_of(vm, e), e))
			drop(e);
	}
	vm->ioeventfds = NULL;
}
