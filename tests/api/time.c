// SPDX-License-Identifier: MIT
/*
 * Guest time: KVM_VCPU_TSC_OFFSET and steal time. Found by the KVM selftests
 * system_counter_offset_test and steal_time.
 * --device: a host's KVM; a PVM host keeps the offset 0.
 */
#include "real.h"

#include <linux/kvm_para.h>
#include <pthread.h>
#include <sched.h>
#include <x86intrin.h>

static long attr(struct machine *m, unsigned long req, uint32_t group, uint64_t nr, uint64_t *value)
{
	struct kvm_device_attr a = {.group = group, .attr = nr, .addr = (uint64_t)value};

	return api->ioctl(m->vcpu, req, &a) < 0 ? -errno : 0;
}

static uint64_t tsc_of(struct machine *m)
{
	struct kvm_regs r;

	jump(m, CODE);
	RUN_TO(m, "rdtsc", KVM_EXIT_HLT);
	r = regs_of(m);
	return r.rdx << 32 | (uint32_t)r.rax;
}

static void test_tsc_offset(void)
{
	const uint64_t offsets[] = {0, 1ull << 40, -(1ull << 40)};
	struct machine m;
	uint64_t got, a, b, t;

	machine_open(&m, GUEST(0x0f, 0x31 /* rdtsc */, HLT));
	if (attr(&m, KVM_HAS_DEVICE_ATTR, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, NULL)) {
		check(api_is_device(), "KVM_VCPU_TSC_OFFSET", 0, 1);
		machine_close(&m);
		return;
	}
	for (int i = 0; i < 3; i++) {
		uint64_t v = offsets[i];

		CHECK_EQ("set", attr(&m, KVM_SET_DEVICE_ATTR, 0, 0, &v), 0);
		a = __rdtsc() + v;
		t = tsc_of(&m);
		b = __rdtsc() + v;
		CHECK_EQ("guest's TSC is not early", (int64_t)(t - a) >= 0, 1);
		CHECK_EQ("guest's TSC is not late", (int64_t)(b - t) >= 0, 1);
		CHECK_EQ("get", attr(&m, KVM_GET_DEVICE_ATTR, 0, 0, &got), 0);
		CHECK_EQ("value", got, v);
	}
	CHECK_EQ("another attribute", attr(&m, KVM_HAS_DEVICE_ATTR, 0, 1, NULL), -ENXIO);
	CHECK_EQ("another group", attr(&m, KVM_SET_DEVICE_ATTR, 1, 0, &got), -ENXIO);
	CHECK_EQ("bad pointer", attr(&m, KVM_SET_DEVICE_ATTR, 0, 0, (uint64_t *)8), -EFAULT);
	machine_close(&m);
}

/* ---- steal time: two threads on one processor */

#define STEAL_PAGE 0x2000
#define ENOUGH	   1000000 /* ns */

static uint64_t run_delay(void)
{
	unsigned long long run, delay = 0;
	FILE *f = fopen("/proc/thread-self/schedstat", "r");

	if (!f || fscanf(f, "%llu %llu", &run, &delay) != 2)
		delay = 0;
	if (f)
		fclose(f);
	return delay;
}

static int stop; /* atomic */

static void *spin(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		;
	return arg;
}

static bool pin(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	return !pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
}

/* Until this thread has waited long enough; the nanoseconds that it has. */
static uint64_t be_robbed(void)
{
	uint64_t before = run_delay(), start = __rdtsc();
	pthread_t thread;

	stop = 0;
	pthread_create(&thread, NULL, spin, NULL);
	while (run_delay() - before < ENOUGH && __rdtsc() - start < 1ull << 35)
		sched_yield();
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	return run_delay() - before;
}

static void test_steal(void)
{
	struct kvm_steal_time *s;
	struct machine m;
	uint64_t robbed, before;
	uint32_t version;

	machine_open(&m, GUEST(HLT, HLT));
	s = (void *)(m.ram + STEAL_PAGE);
	s->steal = 77; /* the guest's memory is where the sum is */
	CHECK_EQ("reserved bit", msr_set(&m, MSR_KVM_STEAL_TIME, STEAL_PAGE | 2), 0);
	CHECK_EQ("on", msr_set(&m, MSR_KVM_STEAL_TIME, STEAL_PAGE | KVM_MSR_ENABLED), 1);
	RUN_TO(&m, "run", KVM_EXIT_HLT);
	CHECK_EQ("no write is under way", s->version & 1, 0);
	CHECK_EQ("the sum goes on", s->steal >= 77, 1);
	if (!run_delay() || !pin()) {
		machine_close(&m); /* a kernel without scheduler statistics */
		return;
	}
	before = s->steal;
	version = s->version;
	robbed = be_robbed();
	RUN_TO(&m, "run again", KVM_EXIT_HLT);
	CHECK_EQ("what was taken was counted", s->steal - before >= robbed, 1);
	CHECK_EQ("version", s->version > version && !(s->version & 1), 1);
	CHECK_EQ("preempted", s->preempted, 0);
	machine_close(&m);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	test_tsc_offset();
	test_steal();
	return api_done();
}
