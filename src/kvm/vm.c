// SPDX-License-Identifier: MIT
/* A virtual machine: its making, its end, and the requests that belong to no other file. */
#include "kvm/vm.h"

#include "base/log.h"
#include "kvm/counted.h"
#include "kvm/event_thread.h"
#include "kvm/ioctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIN_MMU_PAGES 64

void vm_bug(struct vm *vm, const char *what)
{
	if (!__atomic_exchange_n(&vm->dead, true, __ATOMIC_RELAXED))
		log_line("this VM is stopped by a defect of anykvm: %s", what);
}

static void vm_free(struct vm *vm)
{
	if (vm->events)
		event_thread_stop(vm->events); /* no timer fires, no irqfd is heard after this */
	vm_write_stats(vm);
	irqfds_free(vm);
	ioeventfds_free(vm);
	coalesced_free(vm);
	msr_filter_free(vm->msr_filter);
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		vcpu_free(vm->vcpu[i]);
	if (vm->chip) {
		irqchip_detach(vm->chip, vm->mmio, vm->pio);
		irqchip_destroy(vm->chip);
	}
	if (vm->events)
		event_thread_free(vm->events);
	counted_free(vm->counted);
	if (vm->mmio)
		iobus_destroy(vm->mmio);
	if (vm->pio)
		iobus_destroy(vm->pio);
	if (vm->mem)
		mem_destroy(vm->mem);
	if (vm->ring)
		munmap(vm->ring, PAGE_SIZE);
	if (vm->mine)
		munmap((void *)vm->mine, PAGE_SIZE);
	pthread_mutex_destroy(&vm->lock);
	pthread_mutex_destroy(&vm->slots_lock);
	pthread_mutex_destroy(&vm->ring_lock);
	pthread_mutex_destroy(&vm->irqfds_lock);
	free(vm);
}

void vm_put(struct vm *vm)
{
	/* A forked child has neither the threads nor the right to end the parent's machine. */
	if (__atomic_sub_fetch(&vm->refs, 1, __ATOMIC_ACQ_REL) == 0 && *vm->mine)
		vm_free(vm);
}

static void vm_release(struct object *o)
{
	struct vm *vm = container_of(o, struct vm, obj);

	object_destroy(o);
	vm_put(vm);
}

/* A page that reads 1 here and 0 in every forked child. */
static const u32 *make_mine_page(void)
{
	u32 *p = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, PAGE_SIZE, MADV_WIPEONFORK);
	*p = 1;
	return p;
}

static int vm_init(struct vm *vm)
{
	int r = object_create(&vm->obj, OBJECT_VM, "kvm-vm", PAGE_SIZE, vm_release);

	if (r)
		return r;
	vm->mine = make_mine_page();
	vm->ring = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, vm->obj.own, 0);
	if (vm->ring == MAP_FAILED)
		vm->ring = NULL;
	vm->mem = mem_create();
	vm->mmio = iobus_create();
	vm->pio = iobus_create();
	if (!vm->mine || !vm->ring || !vm->mem || !vm->mmio || !vm->pio)
		return -ENOMEM;
	if (host_time_counted()) {
		vm->counted = counted_create();
		if (!vm->counted)
			return -ENOMEM;
	}
	vm->tsc_khz = host_tsc_khz();
	vm_clock_init(vm);
	vm->watch.fire = vm_watch_fire;
	return event_thread_start(&vm->events);
}

int vm_create(void)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	int r;

	if (!vm)
		return -ENOMEM;
	vm->refs = 1;
	vm->obj.own = -1;
	pthread_mutex_init(&vm->lock, NULL);
	pthread_mutex_init(&vm->slots_lock, NULL);
	pthread_mutex_init(&vm->ring_lock, NULL);
	pthread_mutex_init(&vm->irqfds_lock, NULL);
	r = vm_init(vm);
	if (!r)
		r = object_open(&vm->obj, O_RDWR | O_CLOEXEC);
	if (r < 0) {
		object_destroy(&vm->obj);
		vm_free(vm);
	}
	return r;
}

#define LINES_PER_SECOND 10

bool vm_may_log(struct vm *vm)
{
	u64 second = mono_ns() / 1000000000 << 8;
	u64 old = __atomic_load_n(&vm->log_budget, __ATOMIC_RELAXED), next;

	do {
		next = (old & ~0xffull) == second ? old + 1 : second + 1;
		if ((next & 0xff) > LINES_PER_SECOND)
			return false;
	} while (!__atomic_compare_exchange_n(&vm->log_budget, &old, next, true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	return true;
}

struct vcpu *vm_vcpu(struct vm *vm, unsigned int index)
{
	if (index >= VM_VCPUS_MAX)
		return NULL;
	return __atomic_load_n(&vm->vcpu[index], __ATOMIC_ACQUIRE);
}

struct vcpu *vm_vcpu_by_id(struct vm *vm, u32 id)
{
	struct vcpu *v;

	for (unsigned int i = 0; (v = vm_vcpu(vm, i)); i++)
		if (v->id == id)
			return v;
	return NULL;
}

long vm_create_vcpu(struct ioc *c)
{
	return vcpu_create(c->vm, c->uptr);
}

/* Real-mode helpers of VMX: kept, and of no use to us. */
long vm_set_tss_addr(struct ioc *c)
{
	if (c->uptr > (u32)(-3 * (int)PAGE_SIZE))
		return -EINVAL;
	pthread_mutex_lock(&c->vm->lock);
	c->vm->tss_addr = c->uptr;
	pthread_mutex_unlock(&c->vm->lock);
	return 0;
}

long vm_set_identity_map_addr(struct ioc *c)
{
	long r = -EINVAL;

	pthread_mutex_lock(&c->vm->lock);
	if (!c->vm->nr_vcpus) {
		c->vm->identity_map = *(u64 *)c->arg;
		r = 0;
	}
	pthread_mutex_unlock(&c->vm->lock);
	return r;
}

long vm_set_nr_mmu_pages(struct ioc *c)
{
	return (u32)c->uptr < MIN_MMU_PAGES ? -EINVAL : 0;
}

long vm_get_nr_mmu_pages(struct ioc *c)
{
	(void)c;
	return 0;
}

long vm_set_boot_cpu_id(struct ioc *c)
{
	long r = 0;

	pthread_mutex_lock(&c->vm->lock);
	if (c->vm->nr_vcpus)
		r = -EBUSY;
	else
		c->vm->boot_cpu_id = c->uptr;
	pthread_mutex_unlock(&c->vm->lock);
	return r;
}

/* No in-kernel device is offered; KVM_DEV_TYPE_VFIO needs the kernel. */
long vm_create_device(struct ioc *c)
{
	(void)c;
	return -ENODEV;
}

static long split_irqchip(struct vm *vm, u64 pins)
{
	struct irqchip *chip;

	if (pins > IOAPIC_PINS)
		return -EINVAL;
	if (vm->chip || vm->nr_vcpus)
		return -EEXIST;
	chip = irqchip_create(IRQCHIP_SPLIT, pins, &vm_irqchip_ops, vm);
	if (!chip)
		return -ENOMEM;
	__atomic_store_n(&vm->chip, chip, __ATOMIC_RELEASE);
	return 0;
}

static long x2apic_api(struct vm *vm, u64 flags)
{
	if (flags & ~(KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK))
		return -EINVAL;
	if (vm->chip)
		irqchip_set_x2apic_api(vm->chip, flags);
	return 0;
}

static long max_vcpu_id(struct vm *vm, u64 max)
{
	if (max > VM_VCPU_IDS_MAX || (vm->max_vcpu_id && vm->max_vcpu_id != max) || vm->nr_vcpus)
		return -EINVAL;
	vm->max_vcpu_id = max;
	return 0;
}

/*
 * PAUSE and the power states never leave the processor here, and with a LAPIC nor does HLT; there is
 * no MWAIT that would wait. What a vCPU has seen of it does not change.
 */
static long disable_exits(struct vm *vm, u64 which)
{
	if (which & ~(u64)KVM_X86_DISABLE_VALID_EXITS || vm->nr_vcpus)
		return -EINVAL;
	vm->keep_hlt |= !!(which & KVM_X86_DISABLE_EXITS_HLT);
	return 0;
}

static long set_flag(bool *flag, u64 value)
{
	if (value > 1)
		return -EINVAL;
	*flag = value;
	return 0;
}

static long enable_cap(struct vm *vm, const struct kvm_enable_cap *cap)
{
	if (cap->flags)
		return -EINVAL;
	switch (cap->cap) {
	case KVM_CAP_SPLIT_IRQCHIP:
		return split_irqchip(vm, cap->args[0]);
	case KVM_CAP_X2APIC_API:
		return x2apic_api(vm, cap->args[0]);
	case KVM_CAP_X86_USER_SPACE_MSR:
		return vm_set_msr_exits(vm, cap->args[0]);
	case KVM_CAP_EXCEPTION_PAYLOAD:
		vm->exception_payload = cap->args[0];
		return 0;
	case KVM_CAP_X86_TRIPLE_FAULT_EVENT:
		vm->triple_fault_event = cap->args[0];
		return 0;
	case KVM_CAP_EXIT_ON_EMULATION_FAILURE:
		return set_flag(&vm->exit_on_fail, cap->args[0]);
	case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
		if (cap->args[0] & ~(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET) ||
		    cap->args[0] == KVM_DIRTY_LOG_INITIALLY_SET)
			return -EINVAL;
		__atomic_store_n(&vm->manual_dirty, cap->args[0], __ATOMIC_RELAXED);
		return 0;
	case KVM_CAP_MSR_PLATFORM_INFO:
		vm->hide_platform_info = !cap->args[0];
		return 0;
	case KVM_CAP_DIRTY_LOG_RING:
	case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
		return vm_enable_dirty_ring(vm, cap->args[0]);
	case KVM_CAP_DISABLE_QUIRKS2:
		if (cap->args[0] & ~(u64)QUIRKS_VALID)
			return -EINVAL;
		/* fall through */
	case KVM_CAP_DISABLE_QUIRKS:
		vm->disabled_quirks = cap->args[0];
		return 0;
	case KVM_CAP_X86_DISABLE_EXITS:
		return disable_exits(vm, cap->args[0]);
	case KVM_CAP_HALT_POLL: /* a vCPU that waits does not poll */
		return (u32)cap->args[0] == cap->args[0] ? 0 : -EINVAL;
	case KVM_CAP_MAX_VCPU_ID:
		return max_vcpu_id(vm, cap->args[0]);
	}
	return -EINVAL;
}

long vm_enable_cap(struct ioc *c)
{
	long r;

	pthread_mutex_lock(&c->vm->lock);
	r = enable_cap(c->vm, c->arg);
	pthread_mutex_unlock(&c->vm->lock);
	return r;
}
