// SPDX-License-Identifier: MIT
/*
 * A VMM that forbids itself, on pain of death, every system call but those of its own loop (the
 * list is solo5's), and bad pointers in ioctls: what the library does then is the VMM's doing.
 */
#include "guest.h"

#include "../api/process.h"

GUEST(loop, "1: out %al, $0x80; mov (%rbx), %rax; mov 0x200000, %eax; jmp 1b")

static bool exits(struct vm *m, unsigned int reason)
{
	return !ioctl(m->vcpu, KVM_RUN, 0) && m->run->exit_reason == reason;
}

/* In a child that the filter may kill. Exit status: the first thing that went wrong. */
static int confined(void)
{
	struct kvm_regs regs;
	struct vm m;

	vm_open(&m, loop_code, loop_end - loop_code);
	((uint64_t *)(m.ram + PML4 + 0x2000))[1] = 0x200083; /* no RAM behind it: MMIO */
	must(confine(), "seccomp");
	for (int k = 0; k < 5000; k++)
		if (!exits(&m, KVM_EXIT_IO) || !exits(&m, KVM_EXIT_MMIO))
			return 2;
	if (mprotect(m.ram + VICTIM, 4096, PROT_NONE))
		return 3;
	if (!exits(&m, KVM_EXIT_IO) || !ioctl(m.vcpu, KVM_RUN, 0) || errno != EFAULT)
		return 4;
	if (ioctl(m.vcpu, KVM_GET_REGS, &regs) || regs.rip != CODE + 2)
		return 5;
	return 0;
}

static void only_the_calls_of_its_loop(void)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid)
		_exit(confined());
	waitpid(pid, &status, 0);
	CHECK_EQ("killed by", WIFSIGNALED(status) ? WTERMSIG(status) : 0, 0);
	CHECK_EQ("step", WEXITSTATUS(status), 0);
}

/* ---- pointers */

static void *bad_page(int prot)
{
	return mmap(NULL, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void one_pointer(struct vm *m, const char *what, void *p, bool readable)
{
	int r = ioctl(m->vcpu, KVM_GET_REGS, p);

	check(r == -1 && errno == EFAULT, what, r ? errno : 0, EFAULT);
	r = ioctl(m->vcpu, KVM_SET_REGS, p);
	if (!readable)
		check(r == -1 && errno == EFAULT, what, r ? errno : 0, EFAULT);
}

static void bad_pointers_are_errors(void)
{
	char *two = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vm m;

	vm_open(&m, loop_code, loop_end - loop_code);
	munmap(two + 4096, 4096);
	one_pointer(&m, "NULL", NULL, false);
	one_pointer(&m, "no access", bad_page(PROT_NONE), false);
	one_pointer(&m, "read-only", bad_page(PROT_READ), true);
	one_pointer(&m, "half of it", two + 4096 - 64, false);
	one_pointer(&m, "not canonical", (void *)0x8000000000000000, false);
	one_pointer(&m, "the kernel's", (void *)0xffffffff81000000, false);
	vm_close(&m);
}

int main(void)
{
	only_the_calls_of_its_loop();
	bad_pointers_are_errors();
	return done();
}
