// SPDX-License-Identifier: MIT
/*
 * Time: the host's TSC, the guest's TSC, kvmclock and its pages. One linear function per VM
 * (vm->clock) gives kvmclock from the host's TSC, so all vCPUs show the same time.
 */
#include "kvm/counted.h"
#include "kvm/ioctl.h"

#include "base/clock.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#define NS_PER_S       1000000000ull
#define RATIO_BITS     48
#define CALIBRATION_NS 20000000ull

/* ---- host */

static u64 clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

u64 mono_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

/* What the host's TSC is; found once. */
static struct {
	pthread_once_t once;
	u32 khz;
	bool invariant, counted;
} host = {.once = PTHREAD_ONCE_INIT};

/* TSC and clock at the same moment: the narrowest of several brackets. */
static void sample(u64 *tsc, u64 *ns)
{
	u64 best = ~0ull;

	for (int i = 0; i < 8; i++) {
		u64 a = __rdtsc(), t = clock_ns(CLOCK_MONOTONIC_RAW), b = __rdtsc();

		if (b - a >= best)
			continue;
		best = b - a;
		*tsc = a + (b - a) / 2;
		*ns = t;
	}
}

static void calibrate(void)
{
	u32 a, b, c, d = 0;
	u64 tsc0, ns0, tsc1, ns1;
	struct timespec pause = {0, CALIBRATION_NS};

	host.counted = counted_wanted();
	if (host.counted) {
		host.khz = COUNTED_TSC_KHZ;
		host.invariant = true;
		return;
	}
	host.invariant = __get_cpuid(0x80000007, &a, &b, &c, &d) && d & BIT(8);
	if (!host.invariant) {
		host.khz = 1000000; /* vm_tsc() counts nanoseconds then */
		return;
	}
	sample(&tsc0, &ns0);
	nanosleep(&pause, NULL);
	sample(&tsc1, &ns1);
	host.khz = (unsigned __int128)(tsc1 - tsc0) * 1000000 / (ns1 - ns0);
}

u32 host_tsc_khz(void)
{
	pthread_once(&host.once, calibrate);
	return host.khz;
}

bool host_tsc_invariant(void)
{
	pthread_once(&host.once, calibrate);
	return host.invariant;
}

bool host_time_counted(void)
{
	pthread_once(&host.once, calibrate);
	return host.counted;
}

u64 vm_tsc(const struct vm *vm)
{
	if (vm->counted)
		return counted_ns(vm->counted);
	return host_tsc_invariant() ? __rdtsc() : mono_ns();
}

u64 vm_mono_ns(const struct vm *vm)
{
	return vm->counted ? counted_ns(vm->counted) : mono_ns();
}

static u64 vm_realtime_ns(const struct vm *vm)
{
	return vm->counted ? counted_realtime_ns(vm->counted) : clock_ns(CLOCK_REALTIME);
}

/* ---- guest TSC */

static u64 mul_shift(u64 a, u64 b, unsigned int shift)
{
	return (u64)((unsigned __int128)a * b >> shift);
}

static u64 ratio_of(u32 khz)
{
	return (u64)(((unsigned __int128)khz << RATIO_BITS) / host_tsc_khz());
}

static u64 scaled(const struct vcpu *v, u64 host_tsc)
{
	return mul_shift(host_tsc, v->tsc_ratio, RATIO_BITS);
}

u64 vcpu_tsc(struct vcpu *v, u64 tsc)
{
	return scaled(v, tsc) + v->tsc_offset;
}

/* All vCPUs of a VM start with the same TSC; the first one with 0. Under vm->lock. */
void vcpu_tsc_init(struct vcpu *v)
{
	struct vm *vm = v->vm;

	v->tsc_khz = vm->tsc_khz;
	v->tsc_ratio = ratio_of(vm->tsc_khz);
	if (!vm->nr_vcpus)
		vm->tsc_offset = -scaled(v, vm_tsc(vm));
	v->tsc_offset = vm->tsc_offset;
}

int vcpu_set_tsc_khz(struct vcpu *v, u32 khz)
{
	u64 now = vm_tsc(v->vm), guest = vcpu_tsc(v, now);

	if (!khz)
		khz = host_tsc_khz();
	if ((u64)khz >> 8 >= host_tsc_khz()) /* the ratio has 16 bits above its point */
		return -EINVAL;
	v->tsc_khz = khz;
	v->tsc_ratio = ratio_of(khz);
	v->tsc_offset += guest - vcpu_tsc(v, now);
	if (v->lapic)
		lapic_tsc_changed(v->lapic);
	return 0;
}

/*
 * A client that writes almost the same value to all vCPUs means the same value: it takes time
 * to go around. KVM's rule: within a second of what the last write would be now. The first write
 * is meant as it is, since Linux 6.8: a guest's first second would be lost in a move.
 */
static bool means_same(struct vcpu *v, u64 value, u64 now)
{
	u64 expected = scaled(v, now) + v->vm->tsc_offset;
	s64 diff = value - expected;

	if (!value || !v->vm->tsc_set)
		return !value;
	return diff > -(s64)v->tsc_khz * 1000 && diff < (s64)v->tsc_khz * 1000;
}

void vcpu_set_tsc(struct vcpu *v, u64 value, bool host_write)
{
	u64 now = vm_tsc(v->vm), old = v->tsc_offset;

	pthread_mutex_lock(&v->vm->lock);
	if (host_write && means_same(v, value, now)) {
		v->tsc_offset = v->vm->tsc_offset;
	} else {
		v->tsc_offset = value - scaled(v, now);
		if (host_write)
			v->vm->tsc_offset = v->tsc_offset;
	}
	v->vm->tsc_set |= host_write;
	pthread_mutex_unlock(&v->vm->lock);
	if (!host_write)
		v->tsc_adjust += v->tsc_offset - old;
	if (v->lapic)
		lapic_tsc_changed(v->lapic);
	__atomic_fetch_or(&v->todo, TODO_CLOCK, __ATOMIC_SEQ_CST);
}

/* ---- the offset itself, for migration: KVM_VCPU_TSC_CTRL */

static bool is_tsc_offset(const struct kvm_device_attr *a)
{
	return a->group == KVM_VCPU_TSC_CTRL && a->attr == KVM_VCPU_TSC_OFFSET;
}

long vcpu_has_device_attr(struct ioc *c)
{
	return is_tsc_offset(c->arg) ? 0 : -ENXIO;
}

long vcpu_get_device_attr(struct ioc *c)
{
	const struct kvm_device_attr *a = c->arg;

	return is_tsc_offset(a) ? copy_out(a->addr, &c->vcpu->tsc_offset, sizeof(u64)) : -ENXIO;
}

long vcpu_set_device_attr(struct ioc *c)
{
	const struct kvm_device_attr *a = c->arg;
	struct vcpu *v = c->vcpu;
	u64 offset;

	if (!is_tsc_offset(a))
		return -ENXIO;
	if (copy_in(&offset, a->addr, sizeof(offset)))
		return -EFAULT;
	pthread_mutex_lock(&v->vm->lock);
	v->tsc_offset = v->vm->tsc_offset = offset; /* what is "the same time" for the next vCPU */
	v->vm->tsc_set = true;
	pthread_mutex_unlock(&v->vm->lock);
	if (v->lapic)
		lapic_tsc_changed(v->lapic);
	__atomic_fetch_or(&v->todo, TODO_CLOCK, __ATOMIC_SEQ_CST);
	return 0;
}

long vcpu_get_tsc_khz(struct ioc *c)
{
	return c->vcpu->tsc_khz;
}

long vcpu_ioctl_set_tsc_khz(struct ioc *c)
{
	return c->uptr >> 32 ? -EINVAL : vcpu_set_tsc_khz(c->vcpu, c->uptr);
}

long vm_get_tsc_khz(struct ioc *c)
{
	return c->vm->tsc_khz;
}

long vm_set_tsc_khz(struct ioc *c)
{
	u32 khz = c->uptr ? c->uptr : host_tsc_khz();

	if (c->uptr >> 32 || (u64)khz >> 8 >= host_tsc_khz())
		return -EINVAL;
	pthread_mutex_lock(&c->vm->lock);
	c->vm->tsc_khz = khz;
	pthread_mutex_unlock(&c->vm->lock);
	return 0;
}

/* ---- kvmclock */

void vm_clock_init(struct vm *vm)
{
	vm->clock = (struct vm_clock){.base_tsc = vm_tsc(vm)};
}

u64 vm_clock_ns(const struct vm *vm, u64 tsc)
{
	s8 shift;
	u32 mul;

	pvclock_scale(host_tsc_khz(), &mul, &shift);
	return vm->clock.base_ns + pvclock_ns(tsc - vm->clock.base_tsc, mul, shift);
}

bool vcpu_guest_read(struct vcpu *v, gpa_t where, void *data, size_t n)
{
	struct memslots *s = mem_get(v->vm->mem, 0);
	u8 *p = mem_hva(s, where, n, false);

	if (p)
		memcpy(data, p, n);
	mem_put(s);
	return p;
}

bool vcpu_guest_write(struct vcpu *v, gpa_t where, const void *data, size_t n)
{
	struct memslots *s = mem_get(v->vm->mem, 0);
	u8 *p = mem_hva(s, where, n, true);
	const struct memslot *x;

	if (p) {
		memcpy(p, data, n);
		x = mem_mark_dirty(s, where);
		if (x)
			vcpu_dirtied(v, 0, x->id, (where.v - x->gpa.v) >> PAGE_SHIFT);
	}
	mem_put(s);
	return p;
}

struct time_info { /* struct pvclock_vcpu_time_info */
	u32 version, pad0;
	u64 tsc_timestamp, system_time;
	u32 tsc_to_system_mul;
	s8 tsc_shift;
	u8 flags, pad[2];
} __attribute__((packed));

#define FLAG_TSC_STABLE	   1
#define FLAG_GUEST_STOPPED 2

void vcpu_write_time(struct vcpu *v)
{
	struct time_info t = {0};
	u64 base;
	u32 mul;

	if (!v->time_on)
		return;
	pthread_mutex_lock(&v->vm->lock);
	base = host_tsc_invariant() ? v->vm->clock.base_tsc : vm_tsc(v->vm);
	t.system_time = vm_clock_ns(v->vm, base);
	pthread_mutex_unlock(&v->vm->lock);
	t.tsc_timestamp = vcpu_tsc(v, base);
	pvclock_scale(v->tsc_khz, &mul, &t.tsc_shift);
	t.tsc_to_system_mul = mul;
	t.flags = (host_tsc_invariant() ? FLAG_TSC_STABLE : 0) |
		  (v->time_stopped ? FLAG_GUEST_STOPPED : 0);
	v->time_stopped = false;
	/* Odd while it changes; only this vCPU reads its page, and it is not running now. */
	v->time_version += 2;
	t.version = v->time_version;
	if (!vcpu_guest_write(v, v->time_page, &t, sizeof(t)))
		v->time_on = false;
}

void vm_write_wall_clock(struct vcpu *v, gpa_t where)
{
	struct {
		u32 version, sec, nsec;
	} w = {.version = 2};
	u64 boot;

	if (!where.v)
		return;
	pthread_mutex_lock(&v->vm->lock);
	boot = vm_realtime_ns(v->vm) - vm_clock_ns(v->vm, vm_tsc(v->vm));
	pthread_mutex_unlock(&v->vm->lock);
	w.sec = boot / NS_PER_S;
	w.nsec = boot % NS_PER_S;
	vcpu_guest_write(v, where, &w, sizeof(w));
}

long vm_get_clock(struct ioc *c)
{
	struct kvm_clock_data *d = c->arg;
	u64 tsc;

	pthread_mutex_lock(&c->vm->lock);
	tsc = vm_tsc(c->vm);
	d->clock = vm_clock_ns(c->vm, tsc);
	pthread_mutex_unlock(&c->vm->lock);
	d->realtime = vm_realtime_ns(c->vm);
	d->flags = KVM_CLOCK_REALTIME;
	if (host_tsc_invariant()) {
		d->host_tsc = tsc;
		d->flags |= KVM_CLOCK_HOST_TSC | KVM_CLOCK_TSC_STABLE;
	}
	return 0;
}

long vm_set_clock(struct ioc *c)
{
	const struct kvm_clock_data *d = c->arg;
	struct vm *vm = c->vm;
	struct vcpu *v;
	u64 passed = 0;

	if (d->flags & ~(KVM_CLOCK_VALID_FLAGS))
		return -EINVAL;
	if (d->flags & KVM_CLOCK_REALTIME) {
		u64 now = vm_realtime_ns(vm);

		passed = now > d->realtime ? now - d->realtime : 0;
	}
	pthread_mutex_lock(&vm->lock);
	vm->clock = (struct vm_clock){.base_tsc = vm_tsc(vm), .base_ns = d->clock + passed};
	pthread_mutex_unlock(&vm->lock);
	for (unsigned int i = 0; (v = vm_vcpu(vm, i)); i++)
		vcpu_ask(v, TODO_CLOCK);
	return 0;
}

long vcpu_kvmclock_ctrl(struct ioc *c)
{
	if (!c->vcpu->time_on)
		return -EINVAL;
	c->vcpu->time_stopped = true;
	__atomic_fetch_or(&c->vcpu->todo, TODO_CLOCK, __ATOMIC_SEQ_CST);
	return 0;
}
