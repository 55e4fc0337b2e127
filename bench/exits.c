// SPDX-License-Identifier: MIT
/*
 * What leaving the guest costs: a port write to user space and back, a load from a device of
 * user space with its completion, a load from the in-kernel LAPIC. 64-bit guest with paging.
 * The rounds of all cases alternate with a null system call; the least of ROUNDS counts.
 *
 * exits [--tcg FILE] [--device FILE] KEYS: prints a table; writes the lines for bench.json to
 * KEYS. FILE of --tcg is what tcg.S wrote; with --device the same program measures a host's KVM.
 */
#include <anykvm.h>
#include <err.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS	 20
#define EXITS	 4000	/* of one round: short, to find quiet moments */
#define LOADS	 20000 /* of the LAPIC in one round */
#define TCG_ACCESSES 20000 /* tcg.S */
#define RAM_SIZE 0x10000ul
#define CODE	 0x8000ul
#define MMIO	 0xd0000000ul
#define LAPIC	 0xfee00000ul

/* The three guests. RBX: the device's address; RCX: loads. */
asm(".pushsection .rodata\n"
    "out_code: 1: out %al, $0x80; jmp 1b\n"
    "mmio_code: 1: mov 0x10(%rbx), %eax; jmp 1b\n"
    "lapic_code: 2: mov %rdx, %rcx; 1: mov 0x20(%rbx), %eax; dec %ecx; jnz 1b; out %al, $0x80; jmp 2b\n"
    "code_end:\n"
    ".popsection");
extern const uint8_t out_code[], mmio_code[], lapic_code[], code_end[];

struct api {
	const char *name, *path;
	int (*open)(const char *path, int flags);
	int (*ioctl)(int fd, unsigned long req, ...);
	void *(*mmap)(void *addr, size_t len, int prot, int flags, int fd, off_t off);
};

static int plain_open(const char *path, int flags)
{
	return open(path, flags);
}

static struct api ours = {"anykvm", "/dev/kvm", anykvm_open, anykvm_ioctl, anykvm_mmap};
static struct api device = {"device", NULL, plain_open, ioctl, mmap};

struct guest {
	const struct api *api;
	int vcpu;
	struct kvm_run *run;
};

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* ---- a guest in 64-bit mode, 4-level paging with 4 KiB pages for the devices */

static void make_tables(uint64_t *ram)
{
	uint64_t *pml4 = ram + 0x1000 / 8, *pdpt = ram + 0x2000 / 8, *pd = ram + 0x3000 / 8,
		 *pd3 = ram + 0x4000 / 8, *pt_mmio = ram + 0x5000 / 8, *pt_lapic = ram + 0x6000 / 8;

	pml4[0] = 0x2000 | 3;
	pdpt[0] = 0x3000 | 3;
	pdpt[3] = 0x4000 | 3;
	pd[0] = 0x83;
	pd3[MMIO >> 21 & 511] = 0x5000 | 3;
	pd3[LAPIC >> 21 & 511] = 0x6000 | 3;
	pt_mmio[MMIO >> 12 & 511] = MMIO | 3;
	pt_lapic[LAPIC >> 12 & 511] = LAPIC | 3;
}

static void enter_long_mode(struct guest *g)
{
	struct kvm_segment code = {.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1,
		.l = 1, .g = 1}, data = code;
	struct kvm_sregs s;

	data.selector = 16;
	data.type = 3;
	data.l = 0;
	data.db = 1;
	if (g->api->ioctl(g->vcpu, KVM_GET_SREGS, &s) < 0)
		err(1, "KVM_GET_SREGS");
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cr0 = 0x80000033;
	s.cr3 = 0x1000;
	s.cr4 = 0x20;
	s.efer = 0x500;
	if (g->api->ioctl(g->vcpu, KVM_SET_SREGS, &s) < 0)
		err(1, "KVM_SET_SREGS");
}

static struct guest guest_create(const struct api *api, const uint8_t *code, uint64_t rbx)
{
	struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rbx = rbx, .rdx = LOADS};
	int kvm = api->open(api->path, O_RDWR | O_CLOEXEC), vm, size;
	struct kvm_userspace_memory_region slot = {.memory_size = RAM_SIZE};
	struct guest g = {.api = api};
	void *ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (kvm < 0 || ram == MAP_FAILED)
		err(1, "%s", api->path);
	memcpy((uint8_t *)ram + CODE, code, code_end - code);
	make_tables(ram);
	slot.userspace_addr = (uintptr_t)ram;
	vm = api->ioctl(kvm, KVM_CREATE_VM, 0ul);
	size = api->ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0ul);
	if (vm < 0 || api->ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0 ||
		api->ioctl(vm, KVM_CREATE_IRQCHIP, 0ul) < 0)
		err(1, "%s: cannot make a VM", api->name);
	g.vcpu = api->ioctl(vm, KVM_CREATE_VCPU, 0ul);
	g.run = api->mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, g.vcpu, 0);
	if (g.vcpu < 0 || g.run == MAP_FAILED)
		err(1, "%s: cannot make a vCPU", api->name);
	enter_long_mode(&g);
	if (api->ioctl(g.vcpu, KVM_SET_REGS, &regs) < 0)
		err(1, "KVM_SET_REGS");
	return g;
}

/* ---- one round of each: nanoseconds of one operation */

static double round_null(void)
{
	uint64_t start = now();

	for (int k = 0; k < EXITS; k++)
		syscall(SYS_getppid);
	return (double)(now() - start) / EXITS;
}

static double round_exits(struct guest *g, uint32_t reason)
{
	uint64_t start = now();

	for (int k = 0; k < EXITS; k++) {
		if (g->api->ioctl(g->vcpu, KVM_RUN, 0ul) < 0)
			err(1, "KVM_RUN");
		if (g->run->exit_reason != reason)
			errx(1, "exit reason %u, not %u", g->run->exit_reason, reason);
	}
	return (double)(now() - start) / EXITS;
}

static double round_lapic(struct guest *g)
{
	uint64_t start = now();

	if (g->api->ioctl(g->vcpu, KVM_RUN, 0ul) < 0 || g->run->exit_reason != KVM_EXIT_IO)
		errx(1, "the LAPIC was not read in the kernel");
	return (double)(now() - start) / LOADS;
}

/* ---- all cases */

enum { NULL_CALL, OUT, MMIO_READ, LAPIC_READ, NR_CASES };
static const char *const titles[NR_CASES] = {
	"null system call", "OUT to user space and back", "MMIO load from user space, completed",
	"LAPIC load, in the kernel",
};
static const char *const keys[NR_CASES] = {
	"null_syscall_ns", "exit_out_ns", "exit_mmio_read_ns", "lapic_read_ns",
};

/* The least of ROUNDS, of all cases on one KVM. */
struct column {
	const char *name;
	struct guest out, mmio, lapic;
	double ns[NR_CASES];
};

/* gpa: ANYKVM_GPA, which is looked at when a vCPU is made */
static struct column column_create(const struct api *api, const char *name, const char *gpa)
{
	struct column c = {.name = name, .ns = {1e9, 1e9, 1e9, 1e9}};

	setenv("ANYKVM_GPA", gpa, 1);
	c.out = guest_create(api, out_code, 0);
	c.mmio = guest_create(api, mmio_code, MMIO);
	c.lapic = guest_create(api, lapic_code, LAPIC);
	return c;
}

static void least(double *to, double v)
{
	if (v < *to)
		*to = v;
}

static void column_round(struct column *c)
{
	least(&c->ns[NULL_CALL], round_null());
	least(&c->ns[OUT], round_exits(&c->out, KVM_EXIT_IO));
	least(&c->ns[MMIO_READ], round_exits(&c->mmio, KVM_EXIT_MMIO));
	least(&c->ns[LAPIC_READ], round_lapic(&c->lapic));
}

static void print_table(const struct column *c, int n)
{
	double null = c[0].ns[NULL_CALL];

	printf("%-38s", "nanoseconds (null system calls)");
	for (int i = 0; i < n; i++)
		printf(" %16s", c[i].name);
	for (int k = 0; k < NR_CASES; k++) {
		printf("\n%-38s", titles[k]);
		for (int i = 0; i < n; i++)
			if (c[i].ns[k])
				printf(" %8.1f (%5.2f)", c[i].ns[k], c[i].ns[k] / null);
			else
				printf(" %16s", "");
	}
	puts("");
}

static void write_keys(FILE *f, const struct column *own, const struct column *peer)
{
	for (int k = 0; k < NR_CASES; k++) {
		fprintf(f, "\"%s\": {\"value\": %.1f, \"unit\": \"ns\", ", keys[k], own->ns[k]);
		if (k == NULL_CALL || !peer)
			fprintf(f, "\"peer\": null, \"peer_value\": null}\n");
		else
			fprintf(f, "\"peer\": \"qemu-tcg\", \"peer_value\": %.1f}\n", peer->ns[k]);
	}
}

/* ---- QEMU's column */

static double ticks_per_ns(void)
{
	uint64_t start = now(), ticks = __builtin_ia32_rdtsc();

	while (now() - start < 50000000)
		;
	return (double)(__builtin_ia32_rdtsc() - ticks) / (now() - start);
}

static struct column column_tcg(const char *path)
{
	struct column c = {.name = "QEMU TCG"};
	FILE *f = fopen(path, "r");
	double rate = ticks_per_ns();
	unsigned int ticks;

	for (int k = OUT; k <= LAPIC_READ; k++) {
		if (!f || fscanf(f, "%x", &ticks) != 1)
			errx(1, "%s: no figures of tcg.S", path);
		c.ns[k] = ticks / rate / TCG_ACCESSES;
	}
	fclose(f);
	return c;
}

int main(int argc, char **argv)
{
	struct column c[4], *tcg = NULL;
	int n = 0, arg = 1;
	FILE *f;

	c[n++] = column_create(&ours, "anykvm", "on");
	c[n++] = column_create(&ours, "ANYKVM_GPA=off", "off");
	if (arg + 2 < argc && !strcmp(argv[arg], "--tcg")) {
		c[n] = column_tcg(argv[arg + 1]);
		tcg = &c[n++];
		arg += 2;
	}
	if (arg + 2 < argc && !strcmp(argv[arg], "--device")) {
		device.path = argv[arg + 1];
		c[n++] = column_create(&device, device.path, "on");
		arg += 2;
	}
	if (arg + 1 != argc)
		errx(2, "usage: exits [--tcg FILE] [--device FILE] KEYS");
	f = fopen(argv[arg], "w");
	if (!f)
		err(1, "%s", argv[arg]);
	for (int r = 0; r < ROUNDS; r++)
		for (int i = 0; i < n; i++)
			if (&c[i] != tcg)
				column_round(&c[i]);
	for (int i = 1; i < n; i++)
		if (&c[i] != tcg)
			least(&c[0].ns[NULL_CALL], c[i].ns[NULL_CALL]);
	print_table(c, n);
	write_keys(f, &c[0], tcg);
	return fclose(f) ? 1 : 0;
}
