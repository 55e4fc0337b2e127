// SPDX-License-Identifier: MIT
/*
 * Coalesced MMIO and port I/O: writes to a zone go to a ring that the client empties when it
 * likes. A zone is a device on the bus that refuses when the ring is full (SEED rule 24).
 */
#include "kvm/ioctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct coalesced {
	struct vm *vm;
	u64 addr;
	u32 size;
	bool pio;
	struct coalesced *next; /* vm->lock */
};

#define RING_MAX KVM_COALESCED_MMIO_MAX

static int zone_write(void *dev, u64 addr, unsigned int len, const void *data)
{
	struct coalesced *z = dev;
	struct kvm_coalesced_mmio_ring *ring = z->vm->ring;
	struct kvm_coalesced_mmio *slot;
	int r = -EOPNOTSUPP;
	u32 first, last;

	if (addr < z->addr || addr - z->addr + len > z->size)
		return r; /* only writes that lie wholly inside */
	pthread_mutex_lock(&z->vm->ring_lock);
	first = __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE);
	last = __atomic_load_n(&ring->last, __ATOMIC_RELAXED);
	/* The client can write both indices: one that is out of range means "full". */
	if (last < RING_MAX && first < RING_MAX && (last + 1) % RING_MAX != first) {
		slot = &ring->coalesced_mmio[last];
		slot->phys_addr = addr;
		slot->len = len;
		slot->pio = z->pio;
		memcpy(slot->data, data, len);
		__atomic_store_n(&ring->last, (last + 1) % RING_MAX, __ATOMIC_RELEASE);
		r = 0;
	}
	pthread_mutex_unlock(&z->vm->ring_lock);
	return r;
}

static int zone_read(void *dev, u64 addr, unsigned int len, void *data)
{
	(void)dev, (void)addr, (void)len, (void)data;
	return -EOPNOTSUPP;
}

static const struct iodev_ops zone_ops = {.read = zone_read, .write = zone_write};

static struct iobus *bus_of(const struct coalesced *z)
{
	return z->pio ? z->vm->pio : z->vm->mmio;
}

long vm_register_coalesced(struct ioc *c)
{
	const struct kvm_coalesced_mmio_zone *a = c->arg;
	struct coalesced *z;
	int r;

	if (a->pio > 1)
		return -EINVAL;
	z = calloc(1, sizeof(*z));
	if (!z)
		return -ENOMEM;
	*z = (struct coalesced){.vm = c->vm, .addr = a->addr, .size = a->size, .pio = a->pio};
	pthread_mutex_lock(&c->vm->lock);
	r = iobus_add(bus_of(z), z->addr, z->size, &zone_ops, z);
	if (!r) {
		z->next = c->vm->zones;
		c->vm->zones = z;
	}
	pthread_mutex_unlock(&c->vm->lock);
	if (r)
		free(z);
	return r;
}

/* Removes every zone that lies inside the given range; none is no error. */
long vm_unregister_coalesced(struct ioc *c)
{
	const struct kvm_coalesced_mmio_zone *a = c->arg;

	if (a->pio > 1)
		return -EINVAL;
	pthread_mutex_lock(&c->vm->lock);
	for (struct coalesced **p = &c->vm->zones; *p;) {
		struct coalesced *z = *p;

		if (z->pio != a->pio || a->addr < z->addr || a->addr - z->addr + a->size > z->size ||
		    iobus_remove(bus_of(z), z)) {
			p = &z->next;
			continue;
		}
		*p = z->next;
		free(z);
	}
	pthread_mutex_unlock(&c->vm->lock);
	return 0;
}

void coalesced_free(struct vm *vm)
{
	for (struct coalesced *z = vm->zones, *next; z; z = next) {
		next = z->next;
		if (!iobus_remove(bus_of(z), z))
			free(z);
	}
	vm->zones = NULL;
}
