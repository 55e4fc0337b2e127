// SPDX-License-Identifier: MIT
/*
 * Memslots and the dirty log as ioctls. The slots themselves are in mem/; here are KVM's
 * argument checks, and the promise that after the ioctl no vCPU uses what is gone.
 */
#include "kvm/ioctl.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define USER_SPACE_END	  0x7ffffffff000ull
#define SLOT_PAGES_MAX	  ((1ull << 31) - 1) /* KVM_MEM_MAX_NR_PAGES */

static void futex_wait(u32 *word, u32 value)
{
	const struct timespec again = {.tv_nsec = 1000000}; /* see seq_next */

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &again, NULL, 0);
}

/* The vCPU polls REQ_KICK at every block, so this ends soon; see vcpu_enter, vcpu_leave. */
static void wait_until_seen(struct vcpu *v, u32 seq)
{
	__atomic_fetch_add(&v->seq_waiters, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&v->seq, __ATOMIC_SEQ_CST) == seq)
		futex_wait(&v->seq, seq);
	__atomic_fetch_sub(&v->seq_waiters, 1, __ATOMIC_SEQ_CST);
}

void vm_sync_vcpus(struct vm *vm, bool flush)
{
	u32 seqs[VM_VCPUS_MAX];
	struct vcpu *v;
	unsigned int n;

	for (n = 0; (v = vm_vcpu(vm, n)); n++) {
		if (flush)
			cpu_request(&v->cpu, REQ_FLUSH);
		seqs[n] = __atomic_load_n(&v->seq, __ATOMIC_SEQ_CST);
		if (seqs[n] & 1)
			cpu_request(&v->cpu, REQ_KICK);
	}
	/* A vCPU that was made meanwhile has not been in the guest with the old snapshot. */
	while (n--)
		if (seqs[n] & 1)
			wait_until_seen(vm_vcpu(vm, n), seqs[n]);
}

static long check_region(const struct kvm_userspace_memory_region *r)
{
	u64 size = r->memory_size, hva = r->userspace_addr, start = r->guest_phys_addr;
	u32 space = r->slot >> 16, id = r->slot & 0xffff;

	if (r->flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY))
		return -EINVAL;
	if ((size | start | hva) & ~PAGE_MASK)
		return -EINVAL;
	if (hva > USER_SPACE_END || size > USER_SPACE_END - hva)
		return -EINVAL;
	if (space >= VM_SPACES || id >= VM_SLOTS_MAX)
		return -EINVAL;
	if (start + size < start || size >> PAGE_SHIFT > SLOT_PAGES_MAX)
		return -EINVAL;
	if (size && (start + size - 1) >> host_maxphyaddr())
		return -EINVAL;
	return 0;
}

static u16 slot_flags(u32 flags)
{
	return (flags & KVM_MEM_READONLY ? MEM_READONLY : 0) |
	       (flags & KVM_MEM_LOG_DIRTY_PAGES ? MEM_LOG_DIRTY : 0);
}

long vm_set_user_memory_region(struct ioc *c)
{
	const struct kvm_userspace_memory_region *r = c->arg;
	struct vm *vm = c->vm;
	long err = check_region(r);

	if (err)
		return err;
	pthread_mutex_lock(&vm->slots_lock);
	err = mem_set_slot(vm->mem, r->slot >> 16, r->slot & 0xffff, slot_flags(r->flags),
			   gpa(r->guest_phys_addr), r->memory_size, (u8 *)r->userspace_addr);
	if (!err)
		vm_sync_vcpus(vm, false);
	pthread_mutex_unlock(&vm->slots_lock);
	return err;
}

static bool slot_number_bad(u32 slot)
{
	return slot >> 16 >= VM_SPACES || (slot & 0xffff) >= VM_SLOTS_MAX;
}

long vm_get_dirty_log(struct ioc *c)
{
	const struct kvm_dirty_log *log = c->arg;
	u32 space = log->slot >> 16, id = log->slot & 0xffff;
	struct vm *vm = c->vm;
	void *bitmap = NULL;
	bool clear;
	s64 n;

	if (vm->dirty_ring_bytes)
		return -ENXIO;
	if (slot_number_bad(log->slot))
		return -EINVAL;
	pthread_mutex_lock(&vm->slots_lock);
	clear = !(vm->manual_dirty & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
	n = mem_get_dirty(vm->mem, space, id, NULL, false);
	if (n >= 0)
		bitmap = malloc(n + 8);
	if (n >= 0 && !bitmap)
		n = -ENOMEM;
	if (n >= 0) {
		vm_sync_vcpus(vm, false); /* a write that has begun is to be in this log */
		n = mem_get_dirty(vm->mem, space, id, bitmap, clear);
	}
	if (n >= 0 && clear)
		vm_sync_vcpus(vm, true);
	pthread_mutex_unlock(&vm->slots_lock);
	if (n >= 0)
		n = copy_out((u64)log->dirty_bitmap, bitmap, n);
	free(bitmap);
	return n;
}

/* Range rules of KVM_CLEAR_DIRTY_LOG; n bytes is the size of the whole bitmap. */
static bool clear_range_bad(const struct kvm_clear_dirty_log *log, u64 pages)
{
	if (log->first_page & 63 || log->first_page > pages)
		return true;
	if (log->num_pages > pages - log->first_page)
		return true;
	return log->num_pages < pages - log->first_page && log->num_pages & 63;
}

static s64 slot_pages(struct vm *vm, u32 space, u32 id)
{
	struct memslots *s = mem_get(vm->mem, space);
	s64 pages = -ENOENT;

	for (u32 i = 0; i < s->nr; i++)
		if (s->slot[i].id == id && s->slot[i].dirty)
			pages = s->slot[i].size >> PAGE_SHIFT;
	mem_put(s);
	return pages;
}

long vm_clear_dirty_log(struct ioc *c)
{
	const struct kvm_clear_dirty_log *log = c->arg;
	u32 space = log->slot >> 16, id = log->slot & 0xffff;
	struct vm *vm = c->vm;
	void *mask = NULL;
	s64 pages;
	int err = 0;

	if (vm->dirty_ring_bytes)
		return -ENXIO;
	if (slot_number_bad(log->slot) || log->first_page & 63)
		return -EINVAL;
	pthread_mutex_lock(&vm->slots_lock);
	pages = slot_pages(vm, space, id);
	if (pages < 0)
		err = pages;
	else if (clear_range_bad(log, pages))
		err = -EINVAL;
	else
		mask = dup_in((u64)log->dirty_bitmap, (log->num_pages + 63) / 64, 8, &err);
	if (mask) {
		err = mem_clear_dirty(vm->mem, space, id, log->first_page, log->num_pages, mask);
		vm_sync_vcpus(vm, true);
	}
	pthread_mutex_unlock(&vm->slots_lock);
	free(mask);
	return err;
}
