// SPDX-License-Identifier: MIT
/*
 * Steal time (Linux' Documentation/virt/kvm/x86/msr.rst): how long the vCPU's thread was ready to
 * run on the host but did not get a processor. The scheduler says so in /proc/thread-self/schedstat.
 */
#include "kvm/ioctl.h"

#include "base/cancel.h"

#include <fcntl.h>
#include <linux/kvm_para.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define READ_EVERY_NS 100000ull /* reading it costs some microseconds; most KVM_RUNs are shorter */

/* Second number of the file: nanoseconds on a run queue. 0 where the kernel does not count. */
static u64 read_run_delay(void)
{
	int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	char buf[64], *end;
	ssize_t n;

	if (fd < 0)
		return 0;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	buf[n] = 0;
	strtoull(buf, &end, 10);
	return strtoull(end, NULL, 10);
}

static u64 run_delay(void)
{
	int state = cancel_off();
	u64 ns = read_run_delay();

	cancel_back(state);
	return ns;
}

static void start_counting(struct vcpu *v, u32 tid)
{
	v->steal.tid = tid;
	v->steal.run_delay = run_delay();
}

/*
 * The sum is in the guest's memory alone, so that it survives a migration. The version is odd while
 * the record changes; but its vCPU does not run now.
 */
static void add(struct vcpu *v, u64 ns)
{
	gpa_t where = gpa(v->steal_msr & ~0x3full);
	struct kvm_steal_time s;

	if (!vcpu_guest_read(v, where, &s, sizeof(s)))
		return;
	s.steal += ns;
	s.version = (s.version + 3) & ~1u;
	s.flags = 0;
	s.preempted = 0;
	vcpu_guest_write(v, where, &s, sizeof(s));
}

void vcpu_steal_on(struct vcpu *v)
{
	if (!(v->steal_msr & KVM_MSR_ENABLED))
		return;
	start_counting(v, syscall(SYS_gettid));
	add(v, 0);
}

void vcpu_steal(struct vcpu *v)
{
	u64 now, delay;
	u32 tid;

	if (!(v->steal_msr & KVM_MSR_ENABLED) || v->vm->counted)
		return;
	now = vm_tsc(v->vm);
	if ((now - v->steal.read_at) * 1000000 / host_tsc_khz() < READ_EVERY_NS)
		return;
	v->steal.read_at = now;
	tid = syscall(SYS_gettid);
	if (tid != v->steal.tid)
		start_counting(v, tid);
	delay = run_delay();
	add(v, delay - v->steal.run_delay);
	v->steal.run_delay = delay;
}
