/* SPDX-License-Identifier: MIT */
/*
 * What a guest and its harness agree on. A guest is a flat image, loaded at IMAGE_BASE and
 * entered there in real mode with CS = 0. It reports by `out dx, eax` with the physical
 * address of a record in EAX; the record is read before the guest goes on.
 */
#ifndef GUEST_ABI_H
#define GUEST_ABI_H

#define IMAGE_BASE  0x8000
#define IMAGE_MAGIC 0x67766b61 /* at offset 4; flags at 8, vCPUs at 12 */

#define IMAGE_REAL    1 /* nothing but real mode: runs on the host's /dev/kvm too */
#define IMAGE_IRQCHIP 2 /* LAPICs, IOAPIC, PIC and PIT in the "kernel" */
#define IMAGE_INTEL   4 /* CPUID says GenuineIntel, whatever the host is */
#define IMAGE_AMD     8 /* likewise AuthenticAMD */

#define PORT_TEST    0x500 /* name of the test that begins: a string */
#define PORT_REPORT  0x504 /* struct report */
#define PORT_SERVICE 0x508 /* struct service */
#define PORT_END     0x50c /* the guest has finished */
#define PORT_DEVICE  0x600 /* 64 bytes of port memory; reads give what was written last */

#define RAM_SIZE  0x2000000
#define MMIO_BASE 0xd0000000
#define MMIO_SIZE 0x10000 /* bytes of memory-like device, user space's */

#ifndef __ASSEMBLER__

struct report {
	unsigned int name, pad; /* physical address of a string */
	unsigned long long got, want;
};

enum service_op {
	SVC_NMI = 1,	/* KVM_NMI for vCPU `cpu` */
	SVC_IRQ,	/* KVM_INTERRUPT, vector a */
	SVC_IRQ_WINDOW, /* the same as soon as KVM_EXIT_IRQ_WINDOW_OPEN says so */
	SVC_LINE,	/* KVM_IRQ_LINE: GSI a, level b */
	SVC_DEBUG,	/* KVM_SET_GUEST_DEBUG: control a, DR7 b, DR0 c; exits are logged at d */
	SVC_KICK,	/* a signal for `cpu` every a microseconds; 0: no more */
	SVC_POKE,	/* a host thread writes byte b at address a, c microseconds from now */
	SVC_SHUTDOWN,	/* the next KVM_EXIT_SHUTDOWN is wanted: go on at RIP a as of now; ret = 1 */
	SVC_START,	/* start vCPU `cpu` in the caller's state with RIP a, RSP b */
	SVC_MMIO_LOG,	/* MMIO exits from now on are logged at a (0: no longer) */
	SVC_SLOT,	/* slot a: gpa b, size c, RAM offset d */
	SVC_CR8,	/* kvm_run.cr8 = a (no LAPIC in the kernel); ret is what it was */
	SVC_SLEEP,	/* a microseconds, outside the guest */
};

struct service {
	unsigned int op, cpu;
	unsigned long long a, b, c, d;
	long long ret; /* the ioctl's result, or -errno */
};

#define LOG_ENTRIES 62

struct exit_entry { /* a KVM_EXIT_DEBUG or KVM_EXIT_MMIO */
	unsigned long long at; /* pc, or physical address */
	unsigned long long value; /* dr6, or data */
	unsigned int kind, len; /* exception, or is_write */
};

struct exit_log {
	unsigned int n, pad;
	struct exit_entry e[LOG_ENTRIES];
};

#endif
#endif
