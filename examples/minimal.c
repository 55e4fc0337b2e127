// SPDX-License-Identifier: MIT
/*
 * The smallest KVM program: a VM with one page of memory and one vCPU that adds two numbers in
 * real mode, prints the result on port 0x3f8 and halts. Build: cc minimal.c -lanykvm
 */
#include <anykvm.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static const unsigned char code[] = {
	0xba, 0xf8, 0x03, /* mov dx, 0x3f8 */
	0x00, 0xd8,	  /* add al, bl */
	0x04, '0',	  /* add al, '0' */
	0xee,		  /* out dx, al */
	0xb0, '\n',	  /* mov al, '\n' */
	0xee,		  /* out dx, al */
	0xf4,		  /* hlt */
};

int main(void)
{
	int kvm = anykvm_open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = anykvm_ioctl(kvm, KVM_CREATE_VM, 0ul);
	int vcpu = anykvm_ioctl(vm, KVM_CREATE_VCPU, 0ul);
	int size = anykvm_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0ul);
	void *mem = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_run *run = anykvm_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	struct kvm_userspace_memory_region slot = {
		.guest_phys_addr = 0x1000, .memory_size = 4096, .userspace_addr = (__u64)mem,
	};
	struct kvm_regs regs = {.rip = 0x1000, .rax = 2, .rbx = 2, .rflags = 2};
	struct kvm_sregs sregs;

	if (vcpu < 0 || mem == MAP_FAILED || run == MAP_FAILED)
		err(1, "cannot set up");
	memcpy(mem, code, sizeof(code));
	if (anykvm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0 ||
	    anykvm_ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
		err(1, "cannot set up");
	sregs.cs.base = sregs.cs.selector = 0;
	if (anykvm_ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0 ||
	    anykvm_ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
		err(1, "cannot set up");
	while (anykvm_ioctl(vcpu, KVM_RUN, 0ul) == 0) {
		if (run->exit_reason == KVM_EXIT_HLT)
			return 0;
		if (run->exit_reason != KVM_EXIT_IO)
			errx(1, "exit reason %u", run->exit_reason);
		putchar(*((char *)run + run->io.data_offset));
	}
	err(1, "KVM_RUN");
}
