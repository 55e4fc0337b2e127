// SPDX-License-Identifier: MIT
/*
 * The dirty log while a vCPU writes: a write whose instruction has begun when KVM_GET_DIRTY_LOG is
 * called is in the bitmap that this call returns. The KVM selftest dirty_log_test depends on it on a
 * busy machine: it reads a number, is kept from its processor, and writes the number two logs later.
 *
 * The guest's store is held in its middle by its page table, a page that this program gives only
 * when asked (userfaultfd).
 */
#include "real.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>

#define PD	0x5000u
#define TABLE	0x100000u /* slot 1: the page table that is not there at first */
#define LOGGED	0x200000u /* slot 2 */
#define TARGET	0x400000u /* the linear address that TABLE maps to LOGGED */
#define NUMBER	0x3000u	  /* what the guest copies */

/* mov eax, [NUMBER]; mov [TARGET], eax; hlt */
static const uint8_t code[] = {0xa1, 0, NUMBER >> 8, 0, 0, 0xa3, 0, 0, TARGET >> 16, 0, HLT};

static uint8_t *table, *logged;

static void protected_mode(struct machine *m)
{
	struct kvm_segment flat = {.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_sregs s = sregs_of(m);

	s.cs = flat;
	flat.selector = 16;
	flat.type = 3;
	s.ds = s.es = s.fs = s.gs = s.ss = flat;
	s.cr0 = 0x80000011;
	s.cr3 = PD;
	s.cr4 = 0x10;
	set_sregs(m, &s);
	((uint32_t *)(m->ram + PD))[0] = 0x83; /* 4 MiB */
	((uint32_t *)(m->ram + PD))[TARGET >> 22] = TABLE | 3;
}

static void open_guest(struct machine *m)
{
	machine_vm(m, code, sizeof(code));
	table = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	logged = pages(4096);
	set_slot(m, 1, 0, TABLE, 4096, table);
	set_slot(m, 2, KVM_MEM_LOG_DIRTY_PAGES, LOGGED, 4096, logged);
	machine_vcpu(m);
	protected_mode(m);
}

static void close_guest(struct machine *m)
{
	machine_close(m);
	munmap(table, 4096);
	munmap(logged, 4096);
}

/* Faults on the table's page wait for us; -1: not allowed here. */
static int hold_table(void)
{
	struct uffdio_api hello = {.api = UFFD_API};
	struct uffdio_register range = {.range = {(uint64_t)table, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd < 0)
		return -1;
	must(ioctl(fd, UFFDIO_API, &hello), "UFFDIO_API");
	must(ioctl(fd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
	return fd;
}

static bool wait_for_fault(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 10000) == 1 && p.revents == POLLIN;
}

static void give_table(int fd)
{
	static uint32_t entries[1024] __attribute__((aligned(4096))) = {LOGGED | 3};
	struct uffdio_copy copy = {.dst = (uint64_t)table, .src = (uint64_t)entries, .len = 4096};

	must(ioctl(fd, UFFDIO_COPY, &copy), "UFFDIO_COPY");
}

static uint64_t get_log(struct machine *m)
{
	uint64_t bits = 0;
	struct kvm_dirty_log log = {.slot = 2, .dirty_bitmap = &bits};

	must(api->ioctl(m->vm, KVM_GET_DIRTY_LOG, &log), "GET_DIRTY_LOG");
	return bits;
}

static void *get_log_thread(void *m)
{
	return (void *)get_log(m);
}

/* manual: the bits stay until KVM_CLEAR_DIRTY_LOG. */
static void test_write_under_way(int fd, struct machine *m, bool manual)
{
	pthread_t vcpu, log;
	void *bits, *r;

	*(uint32_t *)(m->ram + NUMBER) = 1;
	pthread_create(&vcpu, NULL, run_thread, m);
	CHECK_EQ("the store waits for its page table", wait_for_fault(fd), true);
	*(uint32_t *)(m->ram + NUMBER) = 2;
	pthread_create(&log, NULL, get_log_thread, m);
	sleep_ms(100);
	give_table(fd);
	pthread_join(vcpu, &r);
	pthread_join(log, &bits);
	CHECK_EQ("KVM_RUN", (long)r, 0);
	CHECK_EQ("exit", m->run->exit_reason, KVM_EXIT_HLT);
	CHECK_EQ("the number written", *(uint32_t *)logged, 1);
	CHECK_EQ("the page is in the log that was asked for", (long)bits, 1);
	CHECK_EQ("and in no later one", get_log(m), manual);
}

static void test_kind(bool manual)
{
	struct machine m;
	int fd;

	open_guest(&m);
	if (manual)
		CHECK_EQ("manual", enable_cap(m.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
					      KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE), 0);
	fd = hold_table();
	if (fd >= 0)
		test_write_under_way(fd, &m, manual);
	else
		printf("not tested: no userfaultfd here (%s)\n", strerror(errno));
	close(fd);
	close_guest(&m);
}

int main(void)
{
	test_kind(false);
	test_kind(true);
	return api_done();
}
