// SPDX-License-Identifier: MIT
/*
 * anykvm doctor: what this host offers to the library, and what is slower or missing where it does
 * not. A line for each thing that the library can do without, or cannot; each is tried, none read
 * from a version number.
 */
#include "launch.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../vmm/vmm.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

enum need { NEEDED, BETTER, FACT };

static bool usable(int fd)
{
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static int memfd(unsigned int flags)
{
	int fd = memfd_create("doctor", MFD_CLOEXEC | flags);

	return fd < 0 && errno == EINVAL ? memfd_create("doctor", MFD_CLOEXEC) : fd;
}

static bool has_memfd(void)
{
	return usable(memfd(0));
}

static bool has_events(void)
{
	return usable(epoll_create1(EPOLL_CLOEXEC)) && usable(eventfd(0, EFD_CLOEXEC)) &&
	       usable(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
}

static bool has_preload(void)
{
	char path[4096];

	return find_preload(path, sizeof(path));
}

/* Mapped writable once and executable once, as generated code is. */
static bool has_executable_memory(void)
{
	static const uint8_t ret = 0xc3;
	int fd = memfd(MFD_EXEC);
	void *p = MAP_FAILED;

	if (fd >= 0 && write(fd, &ret, 1) == 1)
		p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED)
		return false;
	((void (*)(void))p)();
	munmap(p, 4096);
	return true;
}

static int reopened(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDWR | O_CLOEXEC);
}

static bool has_proc(void)
{
	int fd = memfd(0);
	bool ok = fd >= 0 && usable(reopened(fd));

	usable(fd);
	return ok;
}

static bool has_leases(void)
{
	int raw = memfd(0), fd = raw < 0 ? -1 : reopened(raw);
	bool ok;

	usable(raw);
	ok = fd >= 0 && !fcntl(fd, F_SETLEASE, F_WRLCK);
	usable(fd);
	return ok;
}

static bool has_remote_copy(void)
{
	char from = 1, to = 0;
	struct iovec l = {&to, 1}, r = {&from, 1};

	return process_vm_readv(getpid(), &l, 1, &r, 1, 0) == 1 && to == 1;
}

static bool has_wipe_on_fork(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool ok = p != MAP_FAILED && !madvise(p, 4096, MADV_WIPEONFORK);

	if (p != MAP_FAILED)
		munmap(p, 4096);
	return ok;
}

static bool has_kcmp(void)
{
	return !syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, 0, 0);
}

static bool has_nowait_reads(void)
{
	int fd = eventfd(1, EFD_CLOEXEC);
	uint64_t count;
	struct iovec v = {&count, sizeof(count)};
	bool ok = fd >= 0 && preadv2(fd, &v, 1, -1, RWF_NOWAIT) == sizeof(count);

	usable(fd);
	return ok;
}

static bool has_run_delay(void)
{
	return usable(open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC | O_NOCTTY));
}

/* ---- the processor */

static uint32_t cpuid_word(uint32_t leaf, char reg)
{
	uint32_t a = 0, b = 0, c = 0, d = 0;

	if (!__get_cpuid_count(leaf, 0, &a, &b, &c, &d))
		return 0;
	return reg == 'b' ? b : reg == 'c' ? c : d;
}

static bool has_invariant_tsc(void)
{
	return cpuid_word(0x80000007, 'd') & 1u << 8;
}

static bool has_avx2(void)
{
	const uint32_t bits = 1u << 5 | 1u << 3 | 1u << 8; /* AVX2, BMI1, BMI2 */

	return (cpuid_word(7, 'b') & bits) == bits;
}

static bool has_virtualization(void)
{
	return cpuid_word(1, 'c') & 1u << 5 || cpuid_word(0x80000001, 'c') & 1u << 2;
}

static bool has_host_kvm(void)
{
	return usable(open("/dev/kvm", O_RDWR | O_CLOEXEC));
}

static const struct line {
	enum need need;
	const char *name;
	bool (*has)(void);
	const char *without;
} lines[] = {
	{NEEDED, "memfd", has_memfd, "no VM can be made"},
	{NEEDED, "epoll, eventfd, timerfd", has_events, "no VM can be made"},
	{BETTER, "preload library", has_preload, "only `anykvm boot` works, not `anykvm PROGRAM`"},
	{BETTER, "executable memory", has_executable_memory,
	 "instructions that only the host processor can do (vector, x87) fail in the guest"},
	{BETTER, "/proc/self/fd", has_proc, "a VM whose descriptors are duplicated ends at the first close"},
	{BETTER, "file leases", has_leases, "a VM whose descriptors are duplicated ends at the first close"},
	{BETTER, "process_vm_readv", has_remote_copy,
	 "a bad pointer in an ioctl of a library user is a SIGSEGV, not EFAULT"},
	{BETTER, "MADV_WIPEONFORK", has_wipe_on_fork, "a forked child is not refused with EIO"},
	{BETTER, "kcmp", has_kcmp, "an irqfd or ioeventfd given away under another number cannot be taken back"},
	{BETTER, "preadv2 RWF_NOWAIT on eventfds", has_nowait_reads,
	 "a blocking eventfd that another thread reads can hold up the interrupts"},
	{BETTER, "/proc/thread-self/schedstat", has_run_delay, "steal time stays 0"},
	{BETTER, "invariant TSC", has_invariant_tsc,
	 "RDTSC of guests is slower (clock_gettime), kvmclock says that it is not stable"},
	{BETTER, "AVX2, BMI1, BMI2", has_avx2, "guests do not have them"},
	{FACT, "VMX or SVM", has_virtualization, "programs that ask CPUID for it are answered by us"},
	{FACT, "/dev/kvm of the host", has_host_kvm, "`--device /dev/kvm` has nothing to compare with"},
};

int doctor_main(int argc, char **argv)
{
	bool usage = argc > 1, broken = false;

	if (usage) {
		vmm_error("doctor takes no argument: %s", argv[1]);
		return STATUS_USAGE;
	}
	for (size_t k = 0; k < sizeof(lines) / sizeof(*lines); k++) {
		const struct line *l = &lines[k];
		bool has = l->has();

		broken |= !has && l->need == NEEDED;
		if (has)
			printf("yes      %s\n", l->name);
		else
			printf("%s  %s: %s\n", l->need == FACT ? "no     " : "MISSING", l->name, l->without);
	}
	return broken ? STATUS_FAILURE : STATUS_OK;
}
