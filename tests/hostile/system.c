// SPDX-License-Identifier: MIT
/* Items 79 to 83 and 88 to 90: MSRs, CPUID, time, hypercalls, addresses, messages, the debugger. */
#include "modes.h"

#include <sys/stat.h>

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
	ITEM(h79_msrs), ITEM(h80_cpuid), ITEM(h81_tsc), ITEM(h82_hypercalls_and_clock_pages),
	ITEM(h83_nested_virtualization), ITEM(h88_guest_addresses), ITEM(h89_log_flood),
	ITEM(h90_guest_debug),
};

HOSTILE_MAIN(items)
