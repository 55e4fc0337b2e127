// SPDX-License-Identifier: MIT
/* Items 74 to 90: ports, devices, interrupt chips, MSRs, CPUID, the debugger, our own files. */
#include "modes.h"

#include <sys/eventfd.h>
#include <sys/stat.h>

#define PAGE_SIZE 4096 /* for KVM_COALESCED_MMIO_MAX */

static void set_rip(struct machine *m, uint64_t rip)
{
	struct kvm_regs r = regs_of(m);

	r.rip = rip;
	must(api->ioctl(m->vcpu, KVM_SET_REGS, &r), "SET_REGS");
}

/* ---- 74: ports */

CODE_TEXT(outs_many, 64, "cld; mov $5000, %ecx; mov $0x200000, %esi; mov $0x10, %edx; rep outsl; hlt")
CODE_TEXT(ins_many, 64, "cld; mov $5000, %ecx; mov $0x200002, %edi; mov $0x10, %edx; rep insw; hlt")
CODE_TEXT(port_wrap, 64, "mov $0xffff, %edx; in %dx, %eax; out %eax, %dx; hlt")
CODE_TEXT(ins_back, 64, "std; mov $100, %ecx; mov $0x200064, %edi; mov $0x10, %edx; rep insl; hlt")

static void string_io(const char *what, const void *code, size_t n, unsigned int bytes)
{
	struct machine m;
	unsigned int sum = 0;

	mode_open(&m, LONG, code, n);
	while (run_for(&m, 200) == 0 && m.run->exit_reason == KVM_EXIT_IO) {
		uint32_t len = m.run->io.size * m.run->io.count;

		CHECK_EQ("size", m.run->io.size == 1 || m.run->io.size == 2 || m.run->io.size == 4, 1);
		CHECK_EQ("it fits into the page", len <= 4096, 1);
		CHECK_EQ("offset", m.run->io.data_offset, 4096);
		memset(io_data(&m), 0x5a, len);
		sum += len;
		/* none of these is an input */
		m.run->io.count = ~0u;
		m.run->io.size = 3;
		m.run->io.data_offset = ~0ull;
		m.run->io.direction ^= 1;
		m.run->io.port ^= 0x55;
		if (failed)
			break;
	}
	check(m.run->exit_reason == KVM_EXIT_HLT, what, m.run->exit_reason, KVM_EXIT_HLT);
	check(sum == bytes, what, sum, bytes);
	machine_close(&m);
}

static void h74_port_io(void)
{
	struct machine m;

	string_io("REP OUTSD", TEXT_OF(outs_many), 20000);
	string_io("REP INSW", TEXT_OF(ins_many), 10000);
	string_io("REP INSD backwards", TEXT_OF(ins_back), 400);
	mode_open(&m, LONG, TEXT_OF(port_wrap));
	RUN_TO(&m, "IN of 4 at 0xffff", KVM_EXIT_IO);
	CHECK_EQ("port", m.run->io.port, 0xffff);
	CHECK_EQ("size", m.run->io.size, 4);
	RUN_TO(&m, "OUT of 4 at 0xffff", KVM_EXIT_IO);
	RUN_TO(&m, "end", KVM_EXIT_HLT);
	machine_close(&m);
}

/* ---- 75, 76: MMIO */

CODE_TEXT(mmio_sizes, 64,
	"mov %al, 0x20000000; mov %ax, 0x20000001; mov %eax, 0x20000003; mov %rax, 0x20000007;"
	"movups %xmm0, 0x20000ff9; fxsave64 0x20002000; fxrstor64 0x20002000; movq %xmm0, 0x20000005; hlt")
CODE_TEXT(mmio_read, 64, "mov 0x20000000, %rax; mov 0x20000008, %rbx; hlt")

static void h75_mmio_fragments(void)
{
	struct machine m;
	struct kvm_regs r;
	int exits = 0;

	mode_open(&m, LONG, TEXT_OF(mmio_sizes));
	while (run_for(&m, 200) == 0 && m.run->exit_reason == KVM_EXIT_MMIO && exits < 1000) {
		CHECK_EQ("1 to 8 bytes", m.run->mmio.len >= 1 && m.run->mmio.len <= 8, 1);
		CHECK_EQ("inside a page", (m.run->mmio.phys_addr & 4095) + m.run->mmio.len <= 4096, 1);
		memset(m.run->mmio.data, 0, 8);
		m.run->mmio.len = 200; /* no input */
		m.run->mmio.is_write ^= 1;
		exits++;
	}
	check(exits > 100, "fragments", exits, 100);
	machine_close(&m);

	/* Registers are set while an exit is outstanding; the read is dropped, not misplaced. */
	mode_open(&m, LONG, TEXT_OF(mmio_read));
	RUN_TO(&m, "read", KVM_EXIT_MMIO);
	memset(m.run->mmio.data, 0x11, 8);
	set_rip(&m, TEXT + 8);
	RUN_TO(&m, "the second instruction", KVM_EXIT_MMIO);
	CHECK_EQ("gpa", m.run->mmio.phys_addr, 0x20000008);
	CHECK_EQ("RAX was not loaded", regs_of(&m).rax, 0);
	/* State taken and given back between exit and completion. */
	r = regs_of(&m);
	must(api->ioctl(m.vcpu, KVM_SET_REGS, &r), "SET_REGS");
	memset(m.run->mmio.data, 0x22, 8);
	RUN_TO(&m, "end", KVM_EXIT_HLT);
	CHECK_EQ("RBX", regs_of(&m).rbx, 0x2222222222222222);
	machine_close(&m);

	/* Never completed: the vCPU is destroyed with the exit outstanding. */
	mode_open(&m, LONG, TEXT_OF(mmio_read));
	RUN_TO(&m, "read", KVM_EXIT_MMIO);
	machine_close(&m);
}

static void h76_address_changed_by_vmm(void)
{
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(mmio_read));
	RUN_TO(&m, "read", KVM_EXIT_MMIO);
	m.run->mmio.phys_addr = TEXT;
	m.run->exit_reason = 99;
	memset(m.run->mmio.data, 0x33, 8);
	RUN_TO(&m, "next", KVM_EXIT_MMIO);
	CHECK_EQ("the access was the one that began", regs_of(&m).rax, 0x3333333333333333);
	CHECK_EQ("gpa", m.run->mmio.phys_addr, 0x20000008);
	machine_close(&m);
}

CODE_TEXT(ring_fill, 64, "mov $1000, %ecx; 1: mov %ecx, 0x20000000; dec %ecx; jnz 1b; hlt")

static void h77_coalesced_ring(void)
{
	static const uint32_t wild[] = {170, 171, 4096, 0x7fffffff, 0x80000000, 0xffffffff};
	struct kvm_coalesced_mmio_zone z = {.addr = 0x20000000, .size = 0x1000};
	struct kvm_coalesced_mmio_ring *ring;
	struct machine m;
	uint32_t before;

	mode_open(&m, LONG, TEXT_OF(ring_fill));
	ring = (void *)((uint8_t *)m.run + 8192);
	CHECK_EQ("zone", iop(m.vm, KVM_REGISTER_COALESCED_MMIO, &z), 0);
	RUN_TO(&m, "full", KVM_EXIT_MMIO);
	before = ring->last;
	CHECK_EQ("169 fit", before, KVM_COALESCED_MMIO_MAX - 1);
	for (size_t k = 0; k < COUNT(wild); k++) {
		ring->first = wild[k] % 2 ? wild[k] : 0;
		ring->last = wild[k];
		CHECK_EQ("KVM_RUN", run_for(&m, 100), 0);
		CHECK_EQ("it goes to user space", m.run->exit_reason, KVM_EXIT_MMIO);
		CHECK_EQ("the index is as we left it", ring->last, wild[k]);
	}
	ring->first = ring->last = 0;
	RUN_TO(&m, "a ring again", KVM_EXIT_MMIO);
	CHECK_EQ("used", ring->last, KVM_COALESCED_MMIO_MAX - 1);
	machine_close(&m);
	check_neighbour();
}

/* ---- 78: interrupt chips */

static void open_chips(struct machine *m, const void *code, size_t n)
{
	struct kvm_pit_config pit = {0};

	machine_vm(m, BIG);
	make_tables(m);
	mode_load(m, code, n);
	CHECK_EQ("irqchip", io(m->vm, KVM_CREATE_IRQCHIP, 0), 0);
	CHECK_EQ("PIT", iop(m->vm, KVM_CREATE_PIT2, &pit), 0);
	machine_add_vcpu(m);
	mode_cpuid(m);
	mode_start(m, LONG);
	/* the APIC's pages */
	put64(m, PDPT + 8 * 3, PD | 7);
	put64(m, PD + 8 * 502, 0xfec00000 | 0x87);
	put64(m, PD + 8 * 503, 0xfee00000 | 0x87);
}

CODE_TEXT(apic_wild, 64,
	"mov $0xfee00000, %ebx; mov $0xfec00000, %ebp;"
	"movl $0x1ff, 0xf0(%rbx);"		   /* enable */
	"movl $0, 0x3e0(%rbx); movl $0x20040, 0x320(%rbx); movl $1, 0x380(%rbx);" /* 1 tick, periodic */
	"movl $0xffffffff, 0x3e0(%rbx); movl $0, 0x380(%rbx); movl $1, 0x380(%rbx);"
	"movl $0xff000000, 0x310(%rbx); movl $0x4041, 0x300(%rbx);" /* IPI to everyone */
	"movl $0xc4500, 0x300(%rbx); movl $0xc46ff, 0x300(%rbx); movl $0x40400, 0x300(%rbx);" /* INIT, SIPI, NMI self */
	"movl $0x4000, 0x300(%rbx); mov $1000, %ecx; 1: movl $0, 0xb0(%rbx); loop 1b;" /* vector 0; EOIs */
	"xor %ecx, %ecx; 2: mov %ecx, 0x20(%rbx,%rcx); mov 0x20(%rbx,%rcx), %eax; add $0x10, %ecx; cmp $0xfc0, %ecx; jb 2b;"
	"movl $0x10, (%rbp); movl $0xa030, 0x10(%rbp); movl $0x11, (%rbp); movl $0xff000000, 0x10(%rbp);"
	"mov $64, %ecx; 3: mov %ecx, (%rbp); movl $0xffffffff, 0x10(%rbp); mov 0x10(%rbp), %eax; loop 3b;"
	"mov $0x34, %al; out %al, $0x43; xor %eax, %eax; out %al, $0x40; out %al, $0x40;" /* count 0 */
	"mov $0x30, %al; out %al, $0x43; mov $1, %al; out %al, $0x40;"
	"mov $0xff, %al; out %al, $0x43; in $0x40, %al; out %al, $0x20; out %al, $0x21; out %al, $0xa0; "
	"out %al, $0xf4; hlt")

static void h78_interrupt_chips(void)
{
	struct kvm_irq_level line = {{0}, 1};
	struct kvm_lapic_state lapic;
	struct machine m;

	open_chips(&m, TEXT_OF(apic_wild));
	CHECK_EQ("KVM_RUN", run_for(&m, 100) <= 0, 1);
	machine_close(&m);

	/* Every pin to itself, level, all ones; lines go up and down from outside. */
	open_chips(&m, GUEST(0xfb, 0xeb, 0xfe));
	for (int round = 0; round < 50; round++) {
		struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

		iop(m.vm, KVM_GET_IRQCHIP, &chip);
		for (int pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++)
			chip.chip.ioapic.redirtbl[pin].bits = (0x8000ull | (0x20 + pin)) ^ (uint64_t)round << 8;
		chip.chip.ioapic.irr = ~0u;
		iop(m.vm, KVM_SET_IRQCHIP, &chip);
		for (unsigned int gsi = 0; gsi < 30; gsi++)
			for (int level = 1; level >= 0; level--) {
				line.irq = gsi;
				line.level = level;
				iop(m.vm, KVM_IRQ_LINE, &line);
			}
		memset(&lapic, round * 37, sizeof(lapic));
		iop(m.vcpu, KVM_SET_LAPIC, &lapic);
		CHECK_EQ("KVM_RUN", run_for(&m, 2) <= 0, 1);
		mode_start(&m, LONG);
	}
	machine_close(&m);
	check_neighbour();
}

/* ---- 79: MSRs */

CODE_TEXT(wrmsr_all, 64, "mov %rbx, %rax; mov %rbx, %rdx; shr $32, %rdx; wrmsr; rdmsr; out %al, $0xf4; hlt")

static void h79_msrs(void)
{
	static const uint32_t ranges[][2] = {
		{0, 0x300}, {0x400, 0x500}, {0x680, 0x6e4}, {0x800, 0x900}, {0xd90, 0xdb0},
		{0x4b564d00, 0x4b564d10}, {0x40000000, 0x40000110}, {0xc0000080, 0xc0000110},
		{0xc0010000, 0xc0010140}, {0xc0011020, 0xc0011040}, {0xfffffff0, 0xffffffff},
	};
	static const uint64_t values[] = {~0ull, 0, 1ull << 63, 0x8000000000000000ull - 1, 1, 0x8000000000001ull};
	struct kvm_regs r;
	struct machine m;
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e;
	} one = {.h.nmsrs = 1};

	open_chips(&m, TEXT_OF(wrmsr_all));
	for (size_t k = 0; k < COUNT(ranges); k++)
		for (uint32_t i = ranges[k][0]; i < ranges[k][1]; i++) {
			if (SANITIZED && i % 7)
				continue;
			mode_start(&m, LONG);
			r = regs_of(&m);
			r.rcx = i;
			r.rbx = values[i % COUNT(values)];
			must(api->ioctl(m.vcpu, KVM_SET_REGS, &r), "SET_REGS");
			for (unsigned int v = 0; v < 32; v++) /* there is an APIC: HLT would wait */
				memcpy(m.ram + TRAPS + 16 * v, "\xe6\xf5\xf4", 3);
			CHECK_EQ("KVM_RUN", run_for(&m, 1) <= 0, 1);
			one.e = (struct kvm_msr_entry){.index = i, .data = values[(i + 1) % COUNT(values)]};
			iop(m.vcpu, KVM_SET_MSRS, &one);
			one.e.data = 0;
			iop(m.vcpu, KVM_GET_MSRS, &one);
		}
	machine_close(&m);
	check_neighbour();
}

/* ---- 80, 81 */

CODE_TEXT(cpuid_all, 64,
	"xor %esi, %esi; 1: mov %esi, %eax; mov %esi, %ecx; cpuid; inc %esi; cmp $0x30, %esi; jb 1b;"
	"mov $0x80000000, %esi; 2: mov %esi, %eax; mov %esi, %ecx; cpuid; inc %esi; cmp $0x80000030, %esi; jb 2b;"
	"mov $-1, %eax; mov $-1, %ecx; cpuid; xgetbv; hlt")

static void h80_cpuid(void)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 300 * sizeof(c->entries[0]));
	struct machine m;
	long r;

	mode_open(&m, LONG, TEXT_OF(cpuid_all));
	for (int round = 0; round < 20; round++) {
		c->nent = 256;
		for (int k = 0; k < 256; k++) {
			memset(&c->entries[k], round & 1 ? 0xff : k * round, sizeof(c->entries[k]));
			c->entries[k].function = k & 7 ? (uint32_t)k % 40 : 0x80000000 + k / 8;
			c->entries[k].index = k;
			c->entries[k].flags = k & 1;
			memset(c->entries[k].padding, 0, sizeof(c->entries[k].padding));
		}
		r = iop(m.vcpu, KVM_SET_CPUID2, c);
		check(!r || r == -EINVAL, "SET_CPUID2", r, 0);
		mode_load(&m, TEXT_OF(cpuid_all));
		mode_start(&m, round & 1 ? LONG : PROT32);
		CHECK_EQ("KVM_RUN", run_for(&m, 100) <= 0, 1);
	}
	/* All features claimed: instructions that the host has not must be #UD or work, not kill us. */
	for (unsigned int op = 0; op < 256; op += SANITIZED ? 5 : 1)
		for (int form = 0; form < 6; form++) {
			uint8_t codes[6][9] = {
				{0x0f, 0x38, op, 0xc1}, {0x66, 0x0f, 0x38, op, 0xc1}, {0xf2, 0x0f, 0x38, op, 0xc1},
				{0xc4, 0xe2, 0x71, op, 0xc2}, {0xc4, 0xe3, 0x71, op, 0xc2, 0}, {0xf3, 0x0f, 0x38, op, 0xc1},
			};

			memset(codes[form] + 6, HLT, 3);
			mode_load(&m, codes[form], 9);
			mode_start(&m, LONG);
			CHECK_EQ("KVM_RUN", run_for(&m, 100) <= 0, 1);
		}
	c->nent = 257;
	CHECK_EQ("257 entries", iop(m.vcpu, KVM_SET_CPUID2, c), -E2BIG);
	free(c);
	machine_close(&m);
	check_neighbour();
}

CODE_TEXT(tsc_read, 64, "rdtsc; rdtscp; hlt")

static void h81_tsc(void)
{
	static const uint64_t values[] = {0, ~0ull, 1ull << 63, 12345, 0x7fffffffffffffff};
	static const uint32_t indices[] = {0x10, 0x3b, 0x6e0};
	struct kvm_clock_data clock;
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(tsc_read));
	for (size_t k = 0; k < COUNT(values); k++)
		for (size_t i = 0; i < COUNT(indices); i++) {
			struct {
				struct kvm_msrs h;
				struct kvm_msr_entry e;
			} one = {.h.nmsrs = 1, .e = {.index = indices[i], .data = values[k]}};

			iop(m.vcpu, KVM_SET_MSRS, &one);
			clock = (struct kvm_clock_data){.clock = values[k]};
			CHECK_EQ("SET_CLOCK", iop(m.vm, KVM_SET_CLOCK, &clock), 0);
			io(m.vcpu, KVM_SET_TSC_KHZ, (uint32_t)values[k]);
			mode_start(&m, LONG);
			CHECK_EQ("KVM_RUN", run_for(&m, 200), 0);
			CHECK_EQ("HLT", m.run->exit_reason, KVM_EXIT_HLT);
		}
	machine_close(&m);
}

/* ---- 82, 83 */

CODE_TEXT(hypercalls, 64,
	"xor %esi, %esi; 1: mov %esi, %eax; mov $-1, %rbx; mov %rbx, %rcx; mov %rbx, %rdx; vmmcall;"
	"inc %esi; cmp $40, %esi; jb 1b; mov $-1, %rax; vmmcall; hlt")

static void h82_hypercalls_and_clock_pages(void)
{
	static const uint32_t msrs[] = {0x11, 0x12, 0x4b564d00, 0x4b564d01, 0x4b564d03, 0x4b564d04};
	static const uint64_t where[] = {MMIO | 1, 0x3ffff1, BIG - 3, ~0ull, BIG - 31, 0xfee00001, 0x100001 | 1ull << 51};
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(hypercalls));
	EXPECT_TRAP(&m, "VMMCALL", -1);
	CHECK_EQ("unknown", regs_of(&m).rax, -1000ll);
	machine_close(&m);
	trap_case("at CPL 3", LONG_USER, GUEST(0x0f, 0x01, 0xd9, HLT), 13); /* -EPERM, then HLT is #GP */
	mode_open(&m, LONG, TEXT_OF(wrmsr_all));
	for (size_t k = 0; k < COUNT(msrs); k++)
		for (size_t n = 0; n < COUNT(where); n++) {
			struct kvm_regs r;

			mode_start(&m, LONG);
			r = regs_of(&m);
			r.rcx = msrs[k];
			r.rbx = where[n];
			must(api->ioctl(m.vcpu, KVM_SET_REGS, &r), "SET_REGS");
			CHECK_EQ("KVM_RUN", run_to_halt(&m, 3), 0);
			CHECK_EQ("HLT", m.run->exit_reason, KVM_EXIT_HLT);
			check(trap_of(&m) == -1 || trap_of(&m) == 13, "#GP or accepted", trap_of(&m), 13);
		}
	machine_close(&m);
	check_neighbour();
}

static void h83_nested_virtualization(void)
{
	static const uint8_t codes[][5] = {
		{0x0f, 0x01, 0xd8, HLT}, {0x0f, 0x01, 0xda, HLT}, {0x0f, 0x01, 0xdb, HLT},
		{0x0f, 0x01, 0xdc, HLT}, {0x0f, 0x01, 0xdd, HLT}, {0x0f, 0x01, 0xdf, HLT},
		{0x0f, 0x01, 0xc2, HLT}, {0x0f, 0x01, 0xc3, HLT}, {0x0f, 0x01, 0xc4, HLT},
		{0x0f, 0x78, 0xc1, HLT}, {0x0f, 0x79, 0xc1, HLT}, {0x0f, 0xc7, 0x33, HLT},
		{0x66, 0x0f, 0xc7, 0x33, HLT}, {0xf3, 0x0f, 0xc7, 0x33, HLT}, {0x0f, 0xc7, 0x3b, HLT},
		{0x0f, 0x37, HLT},
	};

	for (size_t k = 0; k < COUNT(codes); k++)
		trap_case("SVM, VMX, SMX", LONG, codes[k], sizeof(codes[k]), 6);
	for (size_t k = 0; k < 6; k++)
		trap_case("at CPL 3", LONG_USER, codes[k], sizeof(codes[k]), 6);
}

/* ---- 84, 85: our own tools' files */

static int run_tool(const char *kernel, const char *initrd)
{
	const char *tool = getenv("ANYKVM_TOOL");
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		alarm(3); /* an image may run, and do nothing */
		execl(tool, "anykvm", "boot", "--kernel", kernel, initrd ? "--initrd" : NULL, initrd, NULL);
		_exit(126);
	}
	waitpid(pid, &status, 0);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? 0 : status;
}

static void write_file(const char *path, const void *data, size_t n)
{
	FILE *f = fopen(path, "w");

	if (n)
		fwrite(data, 1, n, f);
	fclose(f);
}

/* A bzImage's header with one field after another out of its mind: refused, not believed. */
static void h84_kernel_images(void)
{
	static const uint16_t fields[] = {0x1f1, 0x1f4, 0x1fe, 0x200, 0x202, 0x206, 0x211, 0x214, 0x218,
					  0x21c, 0x224, 0x228, 0x22c, 0x230, 0x236, 0x248, 0x24c, 0x258, 0x260};
	char path[] = "/tmp/anykvm-hostile-XXXXXX";
	uint8_t *image = calloc(1, 65536);
	int fd = mkstemp(path), status;

	close(fd);
	if (!getenv("ANYKVM_TOOL")) {
		check(false, "ANYKVM_TOOL is not set", 0, 1);
		return;
	}
	for (size_t n = 0; n < 65536; n = n ? n * 3 : 1) {
		write_file(path, image, n);
		status = run_tool(path, NULL);
		check(WIFEXITED(status) && WEXITSTATUS(status) && WEXITSTATUS(status) < 100,
		      "zeroes", status, 256);
	}
	for (size_t k = 0; k < COUNT(fields); k++) {
		memset(image, 0, 65536);
		image[0x1f1] = 1;
		memcpy(image + 0x1f4, "\x10\0\0\0", 4);
		memcpy(image + 0x1fe, "\x55\xaa\xeb\x6aHdrS\x0f\x02", 10);
		image[0x211] = 1;
		memcpy(image + 0x22c, "\xff\xff\xff\x7f", 4);
		memset(image + 0x400, HLT, 4096);
		memset(image + 0x600, HLT, 4096);
		memset(image + fields[k], 0xff, 4);
		write_file(path, image, k & 1 ? 65536 : 0x300);
		status = run_tool(path, k & 2 ? "/dev/null" : NULL);
		check(WIFEXITED(status) && WEXITSTATUS(status) < 100, "header field", status, fields[k]);
	}
	status = run_tool("/", NULL);
	check(WIFEXITED(status) && WEXITSTATUS(status), "a folder", status, 256);
	unlink(path);
	free(image);
}

/* We write no snapshot files; a snapshot is what the VMM reads and gives back. All of it flipped. */
static void h85_snapshot_flipped(void)
{
	static const struct {
		unsigned long get, set;
		size_t size;
	} parts[] = {
		{KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs)},
		{KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs)},
		{KVM_GET_FPU, KVM_SET_FPU, sizeof(struct kvm_fpu)},
		{KVM_GET_XSAVE, KVM_SET_XSAVE, 1024},
		{KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs)},
		{KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, sizeof(struct kvm_debugregs)},
		{KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, sizeof(struct kvm_vcpu_events)},
		{KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(struct kvm_lapic_state)},
		{KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state)},
	};
	uint8_t good[4096], bad[4096];
	struct machine m;

	open_chips(&m, GUEST(0xf3, 0x0f, 0x58, 0xc0, 0xd9, 0xe8, 0x90, 0xeb, 0xf7));
	for (size_t p = 0; p < COUNT(parts); p++) {
		size_t step = many(1, parts[p].size > 300 ? 67 : 11) * (SANITIZED ? 4 : 1);

		for (size_t k = 0; k < parts[p].size; k += step) {
			mode_start(&m, LONG);
			memset(good, 0, sizeof(good));
			CHECK_EQ("get", iop(m.vcpu, parts[p].get, good), 0);
			memcpy(bad, good, sizeof(bad));
			bad[k] ^= 1 << (k * 5 & 7);
			if (!iop(m.vcpu, parts[p].set, bad))
				m.run->immediate_exit = 0;
			CHECK_EQ("KVM_RUN", run_for(&m, 1) <= 0, 1);
			iop(m.vcpu, parts[p].set, good);
		}
	}
	machine_close(&m);
	check_neighbour();
}

/* ---- 86, 87: translated code */

/* Each turn writes another immediate into the next instruction. */
CODE_TEXT(smc_storm, 64,
	"mov $20000, %ecx; 1: mov %cl, 2f+1(%rip); 2: mov $0, %al; add %al, %bl; mov %ch, 3f+1(%rip);"
	"3: mov $0, %ah; dec %ecx; jnz 1b; hlt")
/* calls into 4 MiB full of RETs, every 16 bytes another block */
CODE_TEXT(many_blocks, 64, "mov $0x200000, %ebx; 1: call *%rbx; add $16, %ebx; cmp $0x3ffff0, %ebx; jb 1b; hlt")

static void h86_code_cache_storm(void)
{
	struct machine m;
	uint8_t sum = 0;

	mode_open(&m, LONG, TEXT_OF(smc_storm));
	for (int k = 20000; k; k--)
		sum += k;
	EXPECT_TRAP(&m, "self-modifying", -1);
	CHECK_EQ("every byte was seen", regs_of(&m).rbx & 0xff, sum);
	mode_load(&m, TEXT_OF(many_blocks));
	for (int round = 0; round < many(8, 2); round++) {
		for (unsigned int at = 0x200000; at < BIG; at += 16) {
			memset(m.ram + at, 0x90, 16);
			memcpy(m.ram + at + (round & 7), "\xff\xc0\xc3", 3); /* inc eax; ret */
		}
		mode_start(&m, LONG);
		EXPECT_TRAP(&m, "blocks", -1);
		CHECK_EQ("all ran", regs_of(&m).rax, (BIG - 0x200000) / 16 - 1);
	}
	machine_close(&m);
}

/* Every instruction of one block faults once; each time the page is brought in, and it goes on. */
CODE_TEXT(all_fault, 64,
	"mov 0x100000, %eax; add %eax, 0x101000; addl $1, 0x102000; push 0x103000; pop 0x104000;"
	"mov %rax, 0x105000; cmp %al, 0x106000; xchg %ebx, 0x107000; movups 0x108000, %xmm0;"
	"movups %xmm0, 0x109000; imul $3, 0x10a000, %ecx; incl 0x10b000; lock addl $2, 0x10c000;"
	"cmova 0x10d000, %edx; movzbl 0x10e000, %esi; sete 0x10f000; divl 0x110000; call *0x111000;"
	"fldl 0x112000; movsbl 0x113000, %edi; hlt")

static void h87_every_instruction_faults(void)
{
	struct machine m;
	uint64_t page, rip, last = 0;
	int faults = 0;

	mode_open(&m, LONG, TEXT_OF(all_fault));
	put64(&m, 0x111000, 0x600);
	m.ram[0x600] = 0xc3;
	put64(&m, 0x110000, 1 << 20);
	for (page = DATA; page < DATA + 0x20000; page += 4096)
		set_pte(&m, page, 0);
	while (run_for(&m, 200) == 0 && trap_of(&m) == 14 && faults < 100) {
		struct kvm_sregs s;
		struct kvm_regs r = regs_of(&m);

		must(api->ioctl(m.vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
		rip = get64(&m, IST - 40);
		CHECK_EQ("forward", rip > last, 1);
		CHECK_EQ("one page each", s.cr2, DATA + 4096ull * faults);
		last = rip;
		set_pte(&m, s.cr2, s.cr2 | 7);
		r.rip = rip;
		r.rsp = get64(&m, IST - 16);
		r.rflags = get64(&m, IST - 24);
		s.ss = s.ds;
		must(api->ioctl(m.vcpu, KVM_SET_SREGS, &s), "SET_SREGS");
		must(api->ioctl(m.vcpu, KVM_SET_REGS, &r), "SET_REGS");
		faults++;
	}
	CHECK_EQ("faults", faults, 20);
	CHECK_EQ("end", m.run->exit_reason, KVM_EXIT_HLT);
	CHECK_EQ("end", trap_of(&m), -1);
	CHECK_EQ("lock add", (uint32_t)get64(&m, 0x10c000), 2);
	machine_close(&m);
}

/* ---- 88: addresses that the guest chooses */

CODE_TEXT(wild_pointers, 64,
	"1: movabs $0x5851f42d4c957f2d, %rax; imul %rax, %rbx; add $12345, %rbx; mov %rbx, %rcx;"
	"ror $17, %rcx; mov (%rcx), %al; mov %al, (%rcx); jmp 1b")

static void h88_guest_addresses(void)
{
	uint8_t *guard[2];
	struct machine m;
	struct kvm_regs r;
	uint64_t x = 1;

	/* Physical addresses from page tables that point everywhere: only RAM or an exit. */
	mode_open(&m, LONG, GUEST(0x8a, 0x04, 0x25, 0, 0, 0x10, 0, 0x88, 0x04, 0x25, 0, 0, 0x10, 0, HLT));
	guard[0] = m.ram - 4096;
	for (int k = 0; k < many(20000, SANITIZED ? 300 : 2000); k++) {
		uint64_t gpa;

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		gpa = x >> (x & 31) & 0xffffffffff000ull;
		make_tables(&m);
		mode_load(&m, GUEST(0x8a, 0x04, 0x25, 0, 0, 0x10, 0, 0x88, 0x04, 0x25, 0, 0, 0x10, 0, HLT));
		set_pte(&m, DATA, gpa | 7);
		mode_start(&m, LONG);
		CHECK_EQ("KVM_RUN", run_for(&m, 100), 0);
		if (gpa < BIG)
			continue;
		check(m.run->exit_reason == KVM_EXIT_MMIO || trap_of(&m) == 14, "outside RAM",
		      m.run->exit_reason, KVM_EXIT_MMIO);
		if (m.run->exit_reason == KVM_EXIT_MMIO)
			CHECK_EQ("its own address", m.run->mmio.phys_addr, gpa);
	}
	mode_load(&m, TEXT_OF(wild_pointers));
	for (int k = 0; k < 200; k++) {
		make_tables(&m);
		mode_start(&m, LONG);
		r = regs_of(&m);
		r.rbx = x * k;
		must(api->ioctl(m.vcpu, KVM_SET_REGS, &r), "SET_REGS");
		CHECK_EQ("KVM_RUN", run_for(&m, 50) <= 0, 1);
	}
	(void)guard;
	machine_close(&m);
}

/* ---- 89: messages */

static void h89_log_flood(void)
{
	char path[] = "/tmp/anykvm-hostile-XXXXXX";
	int fd = mkstemp(path), err = dup(2);
	struct machine m;
	struct stat st;

	mode_open(&m, LONG, GUEST(0xb8, 0, 0, 0, 0x20, 0xff, 0xe0)); /* mov eax,0x20000000; jmp rax */
	dup2(fd, 2);
	for (int k = 0; k < 20000; k++) {
		mode_start(&m, LONG);
		run_for(&m, 100);
		if (SANITIZED && k > 2000)
			break;
	}
	dup2(err, 2);
	fstat(fd, &st);
	check(st.st_size < 200 * 1024, "bytes on stderr", st.st_size, 200 * 1024);
	unlink(path);
	close(fd);
	machine_close(&m);
}

/* ---- 90: the debugger */

CODE_TEXT(debuggee, 64,
	"mov $3, %ecx; 1: lodsb; loop 1b; push %rax; popfq; mov %ss, %ax; mov %ax, %ss; nop; cpuid; rdtsc;"
	"out %al, $0x10; mov %eax, 0x20000000; int3; ud2; hlt")

static void h90_guest_debug(void)
{
	struct kvm_guest_debug d = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};
	struct machine m;
	int steps = 0;

	mode_open(&m, LONG, TEXT_OF(debuggee));
	CHECK_EQ("step", iop(m.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	for (int k = 0; k < 100; k++) {
		CHECK_EQ("KVM_RUN", run_for(&m, 100), 0);
		if (m.run->exit_reason == KVM_EXIT_DEBUG)
			steps++;
		else if (m.run->exit_reason != KVM_EXIT_IO && m.run->exit_reason != KVM_EXIT_MMIO)
			break;
	}
	check(steps >= 14, "steps", steps, 14);
	/* breakpoints everywhere, of all kinds and lengths */
	for (int k = 0; k < 64; k++) {
		d.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP | (k & 1 ? KVM_GUESTDBG_SINGLESTEP : 0) |
			    (k & 2 ? KVM_GUESTDBG_USE_SW_BP : 0);
		for (int b = 0; b < 4; b++)
			d.arch.debugreg[b] = k & 4 ? TEXT + k + b : 0x20000000ull - b;
		d.arch.debugreg[7] = 0xff | (uint64_t)(k * 0x01234567u) << 16 >> 0;
		iop(m.vcpu, KVM_SET_GUEST_DEBUG, &d);
		mode_start(&m, k & 8 ? LONG : LONG_USER);
		for (int n = 0; n < 40; n++)
			CHECK_EQ("KVM_RUN", run_for(&m, 100) <= 0, 1);
	}
	memset(&d, 0xff, sizeof(d));
	iop(m.vcpu, KVM_SET_GUEST_DEBUG, &d);
	CHECK_EQ("KVM_RUN", run_for(&m, 100) <= 0, 1);
	machine_close(&m);
	check_neighbour();
}

static const struct item items[] = {
	ITEM(h74_port_io), ITEM(h75_mmio_fragments), ITEM(h76_address_changed_by_vmm),
	ITEM(h77_coalesced_ring), ITEM(h78_interrupt_chips), ITEM(h79_msrs), ITEM(h80_cpuid),
	ITEM(h81_tsc), ITEM(h82_hypercalls_and_clock_pages), ITEM(h83_nested_virtualization),
	ITEM(h84_kernel_images), ITEM(h85_snapshot_flipped), ITEM(h86_code_cache_storm),
	ITEM(h87_every_instruction_faults), ITEM(h88_guest_addresses), ITEM(h89_log_flood),
	ITEM(h90_guest_debug),
};

HOSTILE_MAIN(items)
