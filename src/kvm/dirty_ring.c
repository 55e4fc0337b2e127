// SPDX-License-Identifier: MIT
/*
 * The dirty ring (KVM_CAP_DIRTY_LOG_RING, api.rst 8.29): each vCPU tells the client which pages it
 * has dirtied. The bitmap of mem/ still says what is known to be dirty; a bit that it did not have
 * makes an entry, and KVM_RESET_DIRTY_RINGS takes the bits of harvested entries away again.
 * Entries are written by the vCPU's thread, reset by whoever holds vm->slots_lock.
 */
#include "kvm/ioctl.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define RESERVED 64 /* entries left when KVM_RUN exits: what one more block of code may dirty */

/* ---- the vCPU's side */

static struct kvm_dirty_gfn *entry(struct dirty_ring *r, u32 index)
{
	return &r->gfn[index & (r->size - 1)];
}

static u32 used(const struct dirty_ring *r)
{
	return r->next - __atomic_load_n(&r->reset, __ATOMIC_ACQUIRE);
}

bool dirty_ring_full(struct vcpu *v)
{
	return v->dirty.size && used(&v->dirty) >= v->dirty.size - RESERVED;
}

static void push(struct dirty_ring *r, u32 slot, u64 page)
{
	struct kvm_dirty_gfn *g = entry(r, r->next);

	g->slot = slot;
	g->offset = page;
	__atomic_store_n(&g->flags, KVM_DIRTY_GFN_F_DIRTY, __ATOMIC_RELEASE);
	__atomic_store_n(&r->next, r->next + 1, __ATOMIC_RELEASE);
}

/* More than was left: kept aside until there is room. */
static void keep_aside(struct vcpu *v, u32 slot, u64 page)
{
	struct dirty_ring *r = &v->dirty;
	u32 n = r->nr_aside;
	struct kvm_dirty_gfn *p;

	if (n % 64 == 0) {
		p = realloc(r->aside, (n + 64) * sizeof(*p));
		if (VM_BUG_ON(!p, v->vm))
			return;
		r->aside = p;
	}
	r->aside[r->nr_aside++] = (struct kvm_dirty_gfn){.slot = slot, .offset = page};
}

/* KVM_RUN begins. */
void dirty_ring_catch_up(struct vcpu *v)
{
	struct dirty_ring *r = &v->dirty;

	while (r->nr_aside && used(r) < r->size) {
		r->nr_aside--;
		push(r, r->aside[r->nr_aside].slot, r->aside[r->nr_aside].offset);
	}
}

void vcpu_dirtied(struct vcpu *v, unsigned int space, u16 slot, u64 page)
{
	struct dirty_ring *r = &v->dirty;

	if (!r->size)
		return;
	if (used(r) < r->size)
		push(r, space << 16 | slot, page);
	else
		keep_aside(v, space << 16 | slot, page);
	if (dirty_ring_full(v))
		cpu_request(&v->cpu, REQ_KICK);
}

/* ---- life */

int dirty_ring_init(struct vcpu *v)
{
	u64 bytes = v->vm->dirty_ring_bytes;

	if (!bytes)
		return 0;
	v->dirty.gfn = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->obj.own,
			    KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_SIZE);
	if (v->dirty.gfn == MAP_FAILED) {
		v->dirty.gfn = NULL;
		return -ENOMEM;
	}
	v->dirty.size = bytes / sizeof(struct kvm_dirty_gfn);
	return 0;
}

void dirty_ring_free(struct vcpu *v)
{
	if (v->dirty.gfn)
		munmap(v->dirty.gfn, v->dirty.size * sizeof(struct kvm_dirty_gfn));
	free(v->dirty.aside);
}

/* Before there are vCPUs; once. */
long vm_enable_dirty_ring(struct vm *vm, u64 bytes)
{
	if (bytes < PAGE_SIZE || bytes & (bytes - 1))
		return -EINVAL;
	if (bytes < (RESERVED + 1) * sizeof(struct kvm_dirty_gfn))
		return -EINVAL;
	if (bytes > DIRTY_RING_BYTES_MAX)
		return -E2BIG;
	if (vm->dirty_ring_bytes || vm->nr_vcpus)
		return -EINVAL;
	vm->dirty_ring_bytes = bytes;
	return 0;
}

/* ---- KVM_RESET_DIRTY_RINGS */

/* The client may have written anything: mem/ looks at slot and page. */
static void forget_page(struct vm *vm, const struct kvm_dirty_gfn *g)
{
	u32 slot = g->slot;
	u64 page = g->offset;
	int r;

	if (slot >> 16 >= VM_SPACES)
		return;
	r = mem_clear_dirty_page(vm->mem, slot >> 16, slot & 0xffff, page);
	(void)r; /* the slot may be gone */
}

static u32 reset_ring(struct vm *vm, struct dirty_ring *r)
{
	u32 end = __atomic_load_n(&r->next, __ATOMIC_ACQUIRE), n = 0;

	while (r->reset != end) {
		struct kvm_dirty_gfn *g = entry(r, r->reset);

		if (!(__atomic_load_n(&g->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_RESET))
			break;
		forget_page(vm, g);
		__atomic_store_n(&g->flags, 0, __ATOMIC_RELEASE);
		__atomic_store_n(&r->reset, r->reset + 1, __ATOMIC_RELEASE);
		n++;
	}
	return n;
}

long vm_reset_dirty_rings(struct ioc *c)
{
	struct vm *vm = c->vm;
	struct vcpu *v;
	u32 n = 0;

	if (!vm->dirty_ring_bytes)
		return -EINVAL;
	pthread_mutex_lock(&vm->slots_lock);
	for (unsigned int i = 0; (v = vm_vcpu(vm, i)); i++)
		n += reset_ring(vm, &v->dirty);
	if (n)
		vm_sync_vcpus(vm, true);
	pthread_mutex_unlock(&vm->slots_lock);
	return n;
}
