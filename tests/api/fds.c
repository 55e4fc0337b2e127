// SPDX-License-Identifier: MIT
/*
 * Descriptors change hands between two exits: closed, given out anew, duplicated over, from
 * this thread and from others. KVM_RUN must run the vCPU that the descriptor names now, and
 * a VM must end with its last descriptor whoever used it last. --device: a host's KVM.
 */
#include "api.h"
#include "process.h"

#include <pthread.h>
#include <sched.h>

#define RAM  0x2000
#define CODE 0x1000

struct machine {
	int vm, vcpu;
	uint8_t *ram;
	struct kvm_run *run;
};

static int sys;

/* A guest that writes to one port for ever: the port says who ran. */
static struct machine machine_open(uint8_t port)
{
	const uint8_t code[] = {0xe6, port, 0xeb, 0xfc}; /* 1: out %al, $port; jmp 1b */
	struct kvm_userspace_memory_region r = {.memory_size = RAM};
	struct kvm_regs regs = {.rip = CODE, .rflags = 2};
	struct kvm_sregs s;
	struct machine m;

	m.ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memcpy(m.ram + CODE, code, sizeof(code));
	m.vm = must(api->ioctl(sys, KVM_CREATE_VM, 0), "CREATE_VM");
	r.userspace_addr = (uint64_t)m.ram;
	must(api->ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, &r), "memory");
	m.vcpu = must(api->ioctl(m.vm, KVM_CREATE_VCPU, 0), "CREATE_VCPU");
	m.run = api->mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_SHARED, m.vcpu, 0);
	must(m.run == MAP_FAILED ? -1 : 0, "mmap");
	must(api->ioctl(m.vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
	s.cs.base = s.cs.selector = 0;
	must(api->ioctl(m.vcpu, KVM_SET_SREGS, &s), "SET_SREGS");
	must(api->ioctl(m.vcpu, KVM_SET_REGS, &regs), "SET_REGS");
	return m;
}

static void machine_close(struct machine *m)
{
	api->munmap(m->run, 12288);
	api->close(m->vcpu);
	api->close(m->vm);
	munmap(m->ram, RAM);
}

/* KVM_RUN on fd: did this machine run, and write to its port? */
static bool ran(int fd, struct machine *m, uint8_t port)
{
	m->run->exit_reason = m->run->io.port = 0;
	return api->ioctl(fd, KVM_RUN, 0) == 0 && m->run->exit_reason == KVM_EXIT_IO &&
	       m->run->io.port == port;
}

static void test_reused(void)
{
	struct machine a = machine_open(0x10), b;
	int fd = a.vcpu;

	CHECK_EQ("reused: a", ran(fd, &a, 0x10), true);
	machine_close(&a);
	b = machine_open(0x20);
	CHECK_EQ("reused: the number", dup2(b.vcpu, fd), fd);
	CHECK_EQ("reused: b", ran(fd, &b, 0x20), true);
	if (fd != b.vcpu)
		api->close(fd);
	CHECK_EQ("reused: closed again", ran(b.vcpu, &b, 0x20), true);
	machine_close(&b);
	CHECK_EQ("reused: nothing left", api->ioctl(fd, KVM_RUN, 0), -1);
	CHECK_EQ("reused: nothing left", errno, EBADF);
}

static void test_dup(void)
{
	struct machine a = machine_open(0x11);
	int d = dup(a.vcpu);

	CHECK_EQ("dup: original", ran(a.vcpu, &a, 0x11), true);
	CHECK_EQ("dup: copy", ran(d, &a, 0x11), true);
	api->close(a.vcpu);
	CHECK_EQ("dup: closed", api->ioctl(a.vcpu, KVM_RUN, 0), -1);
	CHECK_EQ("dup: the copy lives", ran(d, &a, 0x11), true);
	a.vcpu = d;
	machine_close(&a);
}

/* Behind our back: found out after a while, and not by a crash. */
static void test_dup2_over(void)
{
	struct machine a = machine_open(0x12), b = machine_open(0x22);
	bool found = false;

	CHECK_EQ("dup2: a", ran(a.vcpu, &a, 0x12), true);
	CHECK_EQ("dup2", dup2(b.vcpu, a.vcpu), a.vcpu);
	for (int k = 0; k < 1100 && !found; k++)
		found = ran(a.vcpu, &b, 0x22);
	CHECK_EQ("dup2: b under a's number", found, true);
	machine_close(&b);
	machine_close(&a);
}

struct other {
	struct machine m;
	int step; /* atomic: 1 the thread has run the guest, 2 it may end */
};

static void *other_thread(void *arg)
{
	struct other *o = arg;
	intptr_t ok = ran(o->m.vcpu, &o->m, 0x13);

	__atomic_store_n(&o->step, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&o->step, __ATOMIC_SEQ_CST) != 2)
		sched_yield();
	return (void *)ok;
}

/* A thread that will never come back must not keep the VM alive. */
static void test_other_thread(void)
{
	int before = entries("/proc/self/fd");
	struct other o = {.m = machine_open(0x13)};
	pthread_t t;
	void *ok;

	pthread_create(&t, NULL, other_thread, &o);
	while (__atomic_load_n(&o.step, __ATOMIC_SEQ_CST) != 1)
		sched_yield();
	machine_close(&o.m);
	CHECK_EQ("other thread: VM is gone", entries("/proc/self/fd"), before);
	__atomic_store_n(&o.step, 2, __ATOMIC_SEQ_CST);
	pthread_join(t, &ok);
	CHECK_EQ("other thread: ran", (intptr_t)ok, true);
}

/* The last thread that used it has ended before the descriptors are closed. */
static void test_thread_ended(void)
{
	int before = entries("/proc/self/fd");
	struct other o = {.m = machine_open(0x13), .step = 0};
	pthread_t t;

	pthread_create(&t, NULL, other_thread, &o);
	while (__atomic_load_n(&o.step, __ATOMIC_SEQ_CST) != 1)
		sched_yield();
	__atomic_store_n(&o.step, 2, __ATOMIC_SEQ_CST);
	pthread_join(t, NULL);
	CHECK_EQ("thread ended: runs", ran(o.m.vcpu, &o.m, 0x13), true);
	machine_close(&o.m);
	CHECK_EQ("thread ended: VM is gone", entries("/proc/self/fd"), before);
}

/* One thread runs, another closes and opens: run by whoever has the number, or EBADF. */
static void *churn(void *arg)
{
	struct other *o = arg;

	while (__atomic_load_n(&o->step, __ATOMIC_SEQ_CST) != 2)
		api->ioctl(o->m.vcpu, KVM_RUN, 0);
	return NULL;
}

static void test_race(void)
{
	int before = entries("/proc/self/fd");
	struct other o = {.m = machine_open(0x14)};
	struct machine next;
	pthread_t t;

	pthread_create(&t, NULL, churn, &o);
	for (int k = 0; k < 200; k++) {
		int fd = o.m.vcpu;

		api->munmap(o.m.run, 12288);
		api->close(fd);
		api->close(o.m.vm);
		next = machine_open(0x15);
		o.m.run = next.run; /* its memory stays: the other thread may be inside the old VM */
		o.m.vm = next.vm;
		o.m.vcpu = next.vcpu;
	}
	__atomic_store_n(&o.step, 2, __ATOMIC_SEQ_CST);
	pthread_join(t, NULL);
	/* another one: the thread may have run the last before it had its registers */
	api->munmap(o.m.run, 12288);
	api->close(o.m.vcpu);
	api->close(o.m.vm);
	o.m = machine_open(0x15);
	CHECK_EQ("race: runs", ran(o.m.vcpu, &o.m, 0x15), true);
	api->munmap(o.m.run, 12288);
	api->close(o.m.vcpu);
	api->close(o.m.vm);
	CHECK_EQ("race: all VMs are gone", entries("/proc/self/fd"), before);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	test_reused();
	test_dup();
	test_dup2_over();
	test_other_thread();
	test_thread_ended();
	test_race();
	return api_done();
}
