// SPDX-License-Identifier: MIT
/* A vCPU's making, end, and the way in and out of the guest. KVM_RUN itself is in run.c. */
#include "kvm/vcpu.h"

#include "base/log.h"
#include "kvm/counted.h"
#include "kvm/eventfd.h"
#include "kvm/ioctl.h"
#include "translate/translate.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- in and out of the guest */

/*
 * Only the owner writes seq. In: a locked store, because what follows looks at memory's generation.
 * Out: a plain one; it may become visible after we have looked at seq_waiters, so who waits
 * looks again after a while (wait_until_seen).
 */
static void seq_next(struct vcpu *v)
{
	u32 next = v->seq + 1;

	if (next & 1)
		__atomic_store_n(&v->seq, next, __ATOMIC_SEQ_CST);
	else
		__atomic_store_n(&v->seq, next, __ATOMIC_RELEASE);
	if (__atomic_load_n(&v->seq_waiters, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &v->seq, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/*
 * Order against vm_sync_vcpus: we say "in the guest" first and take the snapshot then; it
 * publishes the snapshot first and looks then who is in the guest.
 */
int vcpu_enter(struct vcpu *v)
{
	int r;

	seq_next(v);
	r = cpu_attach(&v->cpu);
	if (r) {
		seq_next(v);
		return r;
	}
	if (__atomic_load_n((u32 *)&v->cpu.request, __ATOMIC_SEQ_CST) & REQ_FLUSH) {
		cpu_unrequest(&v->cpu, REQ_FLUSH);
		mmu_flush_writes(&v->cpu.mmu);
	}
	return 0;
}

/* The snapshot stays with us, unused: most of the time it is still the newest at the next entry. */
void vcpu_leave(struct vcpu *v)
{
	seq_next(v);
}

void vcpu_kick(struct vcpu *v, u32 requests)
{
	cpu_request(&v->cpu, requests);
	if (__atomic_load_n(&v->asleep, __ATOMIC_SEQ_CST))
		eventfd_raise(v->wake_fd);
}

void vcpu_ask(struct vcpu *v, u32 todo)
{
	__atomic_fetch_or(&v->todo, todo, __ATOMIC_SEQ_CST);
	vcpu_kick(v, REQ_KICK);
}

/* One NMI in service and one pending are all that a processor remembers (SDM 3A 6.7.1). */
void vcpu_queue_nmi(struct vcpu *v)
{
	u32 n = __atomic_load_n(&v->nmi_queued, __ATOMIC_SEQ_CST);

	while (n < 2 && !__atomic_compare_exchange_n(&v->nmi_queued, &n, n + 1, false,
						     __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	vcpu_kick(v, REQ_KICK);
}

/* ---- life */

void vcpu_reset(struct vcpu *v, bool init)
{
	emul_drop(&v->emul);
	v->msr_wait.active = false;
	cpu_reset(&v->cpu, init);
	if (v->lapic)
		lapic_reset(v->lapic, init);
	if (!init)
		vcpu_msr_reset(v, init);
	v->ext_vector = -1;
}

void vcpu_free(struct vcpu *v)
{
	object_destroy(&v->obj);
	dirty_ring_free(v);
	emul_free(&v->emul);
	cpu_free(&v->cpu);
	if (v->run)
		munmap(v->run, (VCPU_PAGES - 1) * PAGE_SIZE);
	if (v->live)
		munmap(v->live, live_stats_size());
	if (v->wake_fd >= 0)
		close(v->wake_fd);
	free(v->cpu.cpuid);
	free(v->cpuid);
	pthread_mutex_destroy(&v->mutex);
	free(v);
}

static void vcpu_release(struct object *o)
{
	struct vcpu *v = container_of(o, struct vcpu, obj);
	struct vm *vm = v->vm;

	object_destroy(o);
	vm_put(vm); /* the vCPU stays with the VM: its number is not free again */
}

static void page_dirtied(void *cpu, const struct memslot *slot, u64 page)
{
	struct vcpu *v = vcpu_of(cpu);

	vcpu_dirtied(v, v->cpu.mmu.space, slot->id, page);
}

/* ANYKVM_ENGINE: interp, translate (unless told otherwise) */
static bool wants_translator(void)
{
	const char *engine = getenv("ANYKVM_ENGINE");

	if (engine && !strcmp(engine, "interp"))
		return false;
	if (engine && strcmp(engine, "translate"))
		log_once("ANYKVM_ENGINE=%s: neither interp nor translate", engine);
	return true;
}

/* Everything but LAPIC and descriptor, which others can see. */
static int vcpu_init(struct vcpu *v)
{
	const char *force = getenv("ANYKVM_FORCE_EMULATION");
	struct emul_bus bus = vcpu_bus;
	size_t size = VCPU_PAGES * PAGE_SIZE + live_stats_size();
	char name[32];
	int r;

	snprintf(name, sizeof(name), "kvm-vcpu:%u", v->id);
	if (v->vm->dirty_ring_bytes)
		size = KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_SIZE + v->vm->dirty_ring_bytes;
	r = object_create(&v->obj, OBJECT_VCPU, name, size, vcpu_release);
	if (!r)
		r = dirty_ring_init(v);
	if (r)
		return r;
	v->run = mmap(NULL, (VCPU_PAGES - 1) * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		      v->obj.own, 0);
	if (v->run == MAP_FAILED) {
		v->run = NULL;
		return -ENOMEM;
	}
	v->live = mmap(NULL, live_stats_size(), PROT_READ | PROT_WRITE, MAP_SHARED, v->obj.own,
		       VCPU_PAGES * PAGE_SIZE);
	if (v->live == MAP_FAILED) {
		v->live = NULL;
		return -ENOMEM;
	}
	v->pio_data = (u8 *)v->run + KVM_PIO_PAGE_OFFSET * PAGE_SIZE;
	v->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (v->wake_fd < 0)
		return -errno;
	r = cpu_init(&v->cpu, v->vm->mem, &vcpu_cpu_ops, v);
	/* All memory now: a VMM may have forbidden memfd_create and brk to itself when it runs. */
	if (!r && wants_translator())
		r = translator_create(&v->cpu);
	if (!r)
		r = cpu_attach(&v->cpu);
	if (r)
		return r;
	cpu_detach(&v->cpu);
	if (v->vm->counted)
		counted_follow(v->vm->counted, &v->cpu);
	v->cpu.force_emulation = force && !strcmp(force, "1");
	if (v->dirty.size)
		v->cpu.mmu.dirtied = page_dirtied;
	bus.opaque = v;
	return emul_init(&v->emul, &bus);
}

static void vcpu_power_up(struct vcpu *v)
{
	v->mp_state = v->lapic && !v->bsp ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_RUNNABLE;
	v->ext_vector = v->eoi_exit = -1;
	v->apic_base = LAPIC_BASE | BIT(11) | (v->bsp ? BIT(8) : 0);
	v->mcg_cap = NR_MC_BANKS;
	vcpu_msr_reset(v, false);
	vcpu_tsc_init(v);
	vcpu_cpuid_changed(v);
}

static int vcpu_publish(struct vm *vm, struct vcpu *v)
{
	int fd;

	if (vm->chip) {
		v->lapic = lapic_create(vm->chip, v->index, v->id, v->bsp);
		if (!v->lapic)
			return -ENOMEM;
	}
	vcpu_power_up(v);
	fd = object_open(&v->obj, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return fd;
	vm_get(vm);
	__atomic_store_n(&vm->vcpu[vm->nr_vcpus], v, __ATOMIC_RELEASE);
	vm->nr_vcpus++;
	for (u32 i = 0; vm->nr_vcpus > 1 && i < vm->nr_vcpus; i++)
		mmu_set_shared(&vm->vcpu[i]->cpu.mmu);
	return fd;
}

static int check_id(struct vm *vm, u64 id)
{
	if (id >= (vm->max_vcpu_id ? vm->max_vcpu_id : VM_VCPU_IDS_MAX))
		return -EINVAL;
	if (vm->nr_vcpus >= VM_VCPUS_MAX)
		return -EINVAL;
	if (vm->counted && vm->nr_vcpus) {
		log_once("ANYKVM_CLOCK=instructions is for machines of one vCPU");
		return -EINVAL;
	}
	return vm_vcpu_by_id(vm, id) ? -EEXIST : 0;
}

int vcpu_create(struct vm *vm, u64 id)
{
	struct vcpu *v;
	int r;

	pthread_mutex_lock(&vm->lock);
	r = check_id(vm, id);
	v = r ? NULL : aligned_alloc(64, ALIGN_UP(sizeof(*v), 64));
	if (v) {
		memset(v, 0, sizeof(*v));
		v->vm = vm;
		v->id = id;
		v->index = vm->nr_vcpus;
		v->bsp = id == vm->boot_cpu_id;
		v->obj.own = v->wake_fd = -1;
		pthread_mutex_init(&v->mutex, NULL);
		r = vcpu_init(v);
		if (!r)
			r = vcpu_publish(vm, v);
		if (r < 0)
			vcpu_free(v);
	} else if (!r) {
		r = -ENOMEM;
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

/* ---- small requests */

long vcpu_get_mp_state(struct ioc *c)
{
	u32 s = c->vcpu->mp_state;

	((struct kvm_mp_state *)c->arg)->mp_state = s;
	return 0;
}

long vcpu_set_mp_state(struct ioc *c)
{
	u32 s = ((struct kvm_mp_state *)c->arg)->mp_state;
	struct vcpu *v = c->vcpu;

	switch (s) {
	case KVM_MP_STATE_RUNNABLE:
		break;
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED:
	case KVM_MP_STATE_HALTED:
	case KVM_MP_STATE_SIPI_RECEIVED:
		if (v->lapic)
			break;
		return -EINVAL;
	default:
		return -EINVAL;
	}
	if (s == KVM_MP_STATE_SIPI_RECEIVED) {
		v->mp_state = KVM_MP_STATE_INIT_RECEIVED;
		__atomic_fetch_or(&v->todo, TODO_SIPI, __ATOMIC_SEQ_CST);
	} else {
		v->mp_state = s;
	}
	return 0;
}

long vcpu_interrupt(struct ioc *c)
{
	u32 irq = ((struct kvm_interrupt *)c->arg)->irq;
	struct vcpu *v = c->vcpu;

	if (irq > 255)
		return -EINVAL;
	if (vm_has_pic(v->vm))
		return -ENXIO;
	if (!v->lapic && !v->cpu.event.pending) {
		/* Without in-kernel APIC it is injected at the next entry, whatever IF says. */
		v->cpu.event.pending = v->cpu.event.is_irq = true;
		v->cpu.event.soft = v->cpu.event.is_nmi = false;
		v->cpu.event.exc = (struct exception){.vector = irq};
		cpu_request(&v->cpu, REQ_EVENT);
		return 0;
	}
	if (v->ext_vector >= 0)
		return -EEXIST;
	v->ext_vector = irq;
	cpu_request(&v->cpu, REQ_IRQ);
	return 0;
}

long vcpu_nmi(struct ioc *c)
{
	vcpu_queue_nmi(c->vcpu);
	return 0;
}

long vcpu_smi(struct ioc *c)
{
	vcpu_ask(c->vcpu, TODO_SMI);
	return 0;
}

long vcpu_tpr_access_reporting(struct ioc *c)
{
	const struct kvm_tpr_access_ctl *t = c->arg;

	if (t->flags)
		return -EINVAL;
	c->vcpu->tpr_reporting = t->enabled;
	return 0;
}

/* DIFFERS: the address is accepted, but no TPR value is kept in guest memory. */
long vcpu_set_vapic_addr(struct ioc *c)
{
	return c->vcpu->lapic ? 0 : -EINVAL;
}

long vcpu_enable_cap(struct ioc *c)
{
	const struct kvm_enable_cap *cap = c->arg;

	if (cap->flags || cap->cap != KVM_CAP_ENFORCE_PV_FEATURE_CPUID)
		return -EINVAL; /* Hyper-V's are not offered */
	c->vcpu->enforce_pv = cap->args[0];
	return 0;
}

/* The argument is a header of 4 bytes and a mask of 8; NULL removes the mask. */
long vcpu_set_signal_mask(struct ioc *c)
{
	struct vcpu *v = c->vcpu;
	u32 len;
	u64 mask;

	if (!c->uptr) {
		v->has_sigmask = false;
		return 0;
	}
	if (copy_in(&len, c->uptr, sizeof(len)))
		return -EFAULT;
	if (len != sizeof(mask))
		return -EINVAL;
	if (copy_in(&mask, c->uptr + sizeof(len), sizeof(mask)))
		return -EFAULT;
	v->sigmask = mask;
	v->has_sigmask = true;
	return 0;
}

long vcpu_get_lapic(struct ioc *c)
{
	if (!c->vcpu->lapic)
		return -EINVAL;
	lapic_get_state(c->vcpu->lapic, (u8 *)((struct kvm_lapic_state *)c->arg)->regs);
	return 0;
}

long vcpu_set_lapic(struct ioc *c)
{
	if (!c->vcpu->lapic)
		return -EINVAL;
	cpu_request(&c->vcpu->cpu, REQ_IRQ);
	return lapic_set_state(c->vcpu->lapic, (u8 *)((struct kvm_lapic_state *)c->arg)->regs);
}
