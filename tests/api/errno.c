// SPDX-License-Identifier: MIT
/*
 * The golden errno table: what real KVM answers to wrong arguments, row by row. Runs against
 * the library, or with --device against a host's /dev/kvm (that is where the table is from).
 * Rows with a guest program are in guests.c.
 */
#include "api.h"

#include <sys/wait.h>

#define BAD_PTR ((void *)8)

/* One row: the call's result, or -errno. */
#define ROW(what, want, call)                        \
	do {                                         \
		errno = 0;                           \
		long r_ = (call);                    \
		if (r_ < 0)                          \
			r_ = -errno;                 \
		show(what, r_);                      \
		check(r_ == (want), what, r_, want); \
	} while (0)

/* For golden.sh: a result, beside those of ROW, that the table has too. */
#define ROW_VALUE(what, want, got)         \
	do {                               \
		show(what, got);           \
		CHECK_EQ(what, got, want); \
	} while (0)

static void show(const char *what, long got)
{
	static int wanted = -1;

	if (wanted < 0)
		wanted = getenv("ERRNO_ROWS") != NULL;
	if (wanted)
		printf("row\t%s\t%ld\n", what, got);
}

static int sys, vm, vcpu;
static struct kvm_run *run;

static long io(int fd, unsigned long req, unsigned long arg)
{
	return api->ioctl(fd, req, arg);
}

static long iop(int fd, unsigned long req, void *arg)
{
	return api->ioctl(fd, req, arg);
}

static long map(int fd, size_t len, int flags)
{
	void *p = api->mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		return -1;
	api->munmap(p, len);
	return 0;
}

static void system_rows(void)
{
	struct kvm_msr_list list = {0};
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 4096 * sizeof(struct kvm_cpuid_entry2));
	char c;

	ROW("GET_API_VERSION", 12, io(sys, KVM_GET_API_VERSION, 0));
	ROW("GET_API_VERSION arg != 0", -EINVAL, io(sys, KVM_GET_API_VERSION, 1));
	ROW("GET_VCPU_MMAP_SIZE arg != 0", -EINVAL, io(sys, KVM_GET_VCPU_MMAP_SIZE, 1));
	ROW("GET_VCPU_MMAP_SIZE", 12288, io(sys, KVM_GET_VCPU_MMAP_SIZE, 0));
	ROW("CREATE_VM type 99", -EINVAL, io(sys, KVM_CREATE_VM, 99));
	ROW("unknown system ioctl", -EINVAL, io(sys, 0xaeff, 0));
	ROW("wrong magic (TCGETS)", -EINVAL, io(sys, 0x5401, 0));
	ROW("GET_MSR_INDEX_LIST bad pointer", -EFAULT, iop(sys, KVM_GET_MSR_INDEX_LIST, BAD_PTR));
	ROW("GET_MSR_INDEX_LIST nmsrs 0", -E2BIG, iop(sys, KVM_GET_MSR_INDEX_LIST, &list));
	show("... nmsrs now", list.nmsrs);
	check(list.nmsrs > 10, "... nmsrs now", list.nmsrs, 11);
	ROW("GET_SUPPORTED_CPUID nent 0", -E2BIG, iop(sys, KVM_GET_SUPPORTED_CPUID, cpuid));
	cpuid->nent = 0xffffffff;
	ROW("GET_SUPPORTED_CPUID nent huge", 0, iop(sys, KVM_GET_SUPPORTED_CPUID, cpuid));
	show("... nent now", cpuid->nent);
	check(cpuid->nent > 10 && cpuid->nent < 256, "... nent now", cpuid->nent, 11);
	ROW("CHECK_EXTENSION unknown", 0, io(sys, KVM_CHECK_EXTENSION, 60000));
	ROW("mmap of /dev/kvm", -ENODEV, map(sys, 4096, MAP_SHARED));
	if (api_is_device()) /* the library does not see read() */
		ROW("read of /dev/kvm", -EINVAL, read(sys, &c, 1));
	ROW("vm ioctl on the system fd", -EINVAL, io(sys, KVM_CREATE_VCPU, 0));
	free(cpuid);
}

/* Exact values: clients compare some of these with == 1. */
static void capability_rows(void)
{
	static const struct {
		const char *name;
		int cap, value;
	} caps[] = {
		{"IRQCHIP", KVM_CAP_IRQCHIP, 1},
		{"USER_MEMORY", KVM_CAP_USER_MEMORY, 1},
		{"EXT_CPUID", KVM_CAP_EXT_CPUID, 1},
		{"NR_MEMSLOTS", KVM_CAP_NR_MEMSLOTS, 32764},
		{"COALESCED_MMIO", KVM_CAP_COALESCED_MMIO, 2},
		{"IRQ_ROUTING", KVM_CAP_IRQ_ROUTING, 4096},
		{"MCE", KVM_CAP_MCE, 32},
		{"ADJUST_CLOCK", KVM_CAP_ADJUST_CLOCK, 14},
		{"MAX_VCPUS", KVM_CAP_MAX_VCPUS, 1024},
		{"MAX_VCPU_ID", KVM_CAP_MAX_VCPU_ID, 4096},
		{"SYNC_REGS", KVM_CAP_SYNC_REGS, 7},
		{"IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT, 1},
		{"GET_TSC_KHZ", KVM_CAP_GET_TSC_KHZ, 1},
		{"XSAVE2", KVM_CAP_XSAVE2, 4096},
		{"MANUAL_DIRTY_LOG_PROTECT2", KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 3},
		{"PPC_PAIRED_SINGLES", 5000, 0},
	};

	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
		ROW(caps[i].name, caps[i].value, io(sys, KVM_CHECK_EXTENSION, caps[i].cap));
		ROW(caps[i].name, caps[i].value, io(vm, KVM_CHECK_EXTENSION, caps[i].cap));
	}
}

static void *memory;

static long slot(uint32_t id, uint32_t flags, uint64_t gpa, uint64_t size, uint64_t hva)
{
	struct kvm_userspace_memory_region r = {id, flags, gpa, size, hva};

	return iop(vm, KVM_SET_USER_MEMORY_REGION, &r);
}

static void memslot_rows(void)
{
	const uint64_t mb = 1 << 20;
	bool smm = io(vm, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE) == 2;
	uint64_t hva;

	memory = mmap(NULL, 4 * mb, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	hva = (uint64_t)memory;
	ROW("memslot bad pointer", -EFAULT, iop(vm, KVM_SET_USER_MEMORY_REGION, BAD_PTR));
	ROW("memslot size unaligned", -EINVAL, slot(0, 0, 0, mb + 1, hva));
	ROW("memslot gpa unaligned", -EINVAL, slot(0, 0, 1, mb, hva));
	ROW("memslot hva unaligned", -EINVAL, slot(0, 0, 0, mb, hva + 1));
	ROW("memslot hva in the kernel's half", -EINVAL, slot(0, 0, 0, mb, 0xffff800000000000));
	ROW("memslot gpa + size wraps", -EINVAL, slot(0, 0, 0xfffffffffffff000, mb, hva));
	ROW("memslot size 2^63", -EINVAL, slot(0, 0, 0, 1ull << 63, hva));
	ROW("memslot gpa 2^60", -EINVAL, slot(0, 0, 1ull << 60, mb, hva));
	/* 4464 of address space 1, where there is one: SMM may be configured out */
	ROW("memslot id 70000", smm ? 0 : -EINVAL, slot(70000, 0, 0, mb, hva));
	ROW("memslot id 170000", -EINVAL, slot(170000, 0, 0, mb, hva));
	ROW("memslot address space 5", -EINVAL, slot(5 << 16, 0, 0, mb, hva));
	ROW("memslot unknown flag", -EINVAL, slot(0, 1u << 31, 0, mb, hva));
	ROW("memslot delete what is not there", -EINVAL, slot(3, 0, 0, 0, 0));
	ROW("memslot 0..1M", 0, slot(0, 0, 0, mb, hva));
	ROW("memslot overlap", -EEXIST, slot(1, 0, mb - 4096, mb, hva + mb));
	ROW("memslot change size in place", -EINVAL, slot(0, 0, 0, 2 * mb, hva));
	ROW("memslot change hva in place", -EINVAL, slot(0, 0, 0, mb, hva + mb));
	ROW("memslot toggle READONLY", -EINVAL, slot(0, KVM_MEM_READONLY, 0, mb, hva));
	ROW("memslot toggle LOG_DIRTY", 0, slot(0, KVM_MEM_LOG_DIRTY_PAGES, 0, mb, hva));
	ROW("memslot hva not mapped", 0, slot(2, 0, 16 * mb, 4096, 0x10000));
	ROW("memslot move", 0, slot(2, 0, 17 * mb, 4096, 0x10000));
	ROW("memslot delete", 0, slot(2, 0, 0, 0, 0));
}

static void dirty_rows(void)
{
	struct kvm_dirty_log log = {.slot = 9, .dirty_bitmap = memory};
	uint64_t bitmap[4];

	ROW("GET_DIRTY_LOG of a missing slot", -ENOENT, iop(vm, KVM_GET_DIRTY_LOG, &log));
	log.slot = 0;
	log.dirty_bitmap = BAD_PTR;
	ROW("GET_DIRTY_LOG bad bitmap", -EFAULT, iop(vm, KVM_GET_DIRTY_LOG, &log));
	log.dirty_bitmap = bitmap;
	ROW("GET_DIRTY_LOG", 0, iop(vm, KVM_GET_DIRTY_LOG, &log));
	ROW("memslot toggle LOG_DIRTY off", 0, slot(0, 0, 0, 1 << 20, (uint64_t)memory));
	ROW("GET_DIRTY_LOG of a slot without log", -ENOENT, iop(vm, KVM_GET_DIRTY_LOG, &log));
}

static void vm_rows(void)
{
	struct kvm_irq_level level = {{1}, 1};
	struct kvm_irqchip chip = {0};
	struct kvm_pit_config pit = {0};
	struct kvm_ioeventfd ioe = {.len = 3, .fd = -1};
	struct kvm_irqfd irqfd = {.fd = 0};
	struct kvm_enable_cap cap = {.cap = 60000};
	struct kvm_create_device dev = {.type = 77};
	struct kvm_irq_routing *routes = calloc(1, sizeof(*routes) + 5000 * sizeof(routes->entries[0]));

	ROW("unknown vm ioctl", -ENOTTY, io(vm, 0xaeff, 0));
	ROW("vcpu ioctl on the vm fd", -ENOTTY, io(vm, KVM_RUN, 0));
	ROW("IRQ_LINE without irqchip", -ENXIO, iop(vm, KVM_IRQ_LINE, &level));
	ROW("GET_IRQCHIP without irqchip", -ENXIO, iop(vm, KVM_GET_IRQCHIP, &chip));
	ROW("CREATE_PIT2 without irqchip", -ENOENT, iop(vm, KVM_CREATE_PIT2, &pit));
	ROW("SET_TSS_ADDR too high", -EINVAL, io(vm, KVM_SET_TSS_ADDR, 0xfffffffffffff000));
	ROW("IOEVENTFD len 3", -EINVAL, iop(vm, KVM_IOEVENTFD, &ioe));
	ioe.len = 4;
	ROW("IOEVENTFD fd -1", -EBADF, iop(vm, KVM_IOEVENTFD, &ioe));
	ROW("IRQFD without irqchip", -EINVAL, iop(vm, KVM_IRQFD, &irqfd));
	routes->nr = 5000;
	ROW("SET_GSI_ROUTING nr 5000", -EINVAL, iop(vm, KVM_SET_GSI_ROUTING, routes));
	ROW("ENABLE_CAP unknown", -EINVAL, iop(vm, KVM_ENABLE_CAP, &cap));
	cap = (struct kvm_enable_cap){.cap = KVM_CAP_X86_DISABLE_EXITS, .args = {16}};
	ROW("ENABLE_CAP X86_DISABLE_EXITS 16", -EINVAL, iop(vm, KVM_ENABLE_CAP, &cap));
	cap = (struct kvm_enable_cap){.cap = KVM_CAP_HALT_POLL, .args = {1ull << 32}};
	ROW("ENABLE_CAP HALT_POLL 2^32", -EINVAL, iop(vm, KVM_ENABLE_CAP, &cap));
	cap.args[0] = 0;
	ROW("ENABLE_CAP HALT_POLL 0", 0, iop(vm, KVM_ENABLE_CAP, &cap));
	ROW("CREATE_DEVICE type 77", -ENODEV, iop(vm, KVM_CREATE_DEVICE, &dev));
	ROW("SET_NR_MMU_PAGES 1", -EINVAL, io(vm, KVM_SET_NR_MMU_PAGES, 1));
	ROW("CREATE_VCPU id 0xffffffff", -EINVAL, io(vm, KVM_CREATE_VCPU, 0xffffffff));
	ROW("CREATE_VCPU id 5000", -EINVAL, io(vm, KVM_CREATE_VCPU, 5000));
	free(routes);
}

static void vcpu_map_rows(void)
{
	ROW("CREATE_VCPU id 0 again", -EEXIST, io(vm, KVM_CREATE_VCPU, 0));
	ROW("CREATE_IRQCHIP after a vcpu", -EINVAL, io(vm, KVM_CREATE_IRQCHIP, 0));
	ROW("mmap beyond the size", 0, map(vcpu, 65536, MAP_SHARED));
	ROW("mmap private", 0, map(vcpu, 12288, MAP_PRIVATE));
	ROW("unknown vcpu ioctl", -EINVAL, io(vcpu, 0xaeff, 0));
	ROW("RUN arg != 0", -EINVAL, io(vcpu, KVM_RUN, 1));
	run->immediate_exit = 1;
	ROW("RUN immediate_exit", -EINTR, io(vcpu, KVM_RUN, 0));
	ROW_VALUE("... exit_reason", 0, run->exit_reason);
	run->kvm_valid_regs = ~0ull;
	ROW("RUN kvm_valid_regs all ones", -EINVAL, io(vcpu, KVM_RUN, 0));
	run->kvm_valid_regs = 0;
	run->immediate_exit = 0;
}

static void regs_rows(void)
{
	struct kvm_regs old, r;

	ROW("SET_REGS bad pointer", -EFAULT, iop(vcpu, KVM_SET_REGS, BAD_PTR));
	ROW("GET_REGS bad pointer", -EFAULT, iop(vcpu, KVM_GET_REGS, BAD_PTR));
	ROW("GET_REGS", 0, iop(vcpu, KVM_GET_REGS, &old));
	CHECK_EQ("... rip after RESET", old.rip, 0xfff0);
	CHECK_EQ("... rflags after RESET", old.rflags, 2);
	r = old;
	r.rip = 1ull << 63;
	r.rflags = ~0ull;
	r.rax = 0x1122334455667788;
	r.r15 = 15;
	ROW("SET_REGS rip not canonical, rflags all ones", 0, iop(vcpu, KVM_SET_REGS, &r));
	memset(&r, 0, sizeof(r));
	ROW("GET_REGS again", 0, iop(vcpu, KVM_GET_REGS, &r));
	ROW_VALUE("... rip", 1ull << 63, r.rip);
	ROW_VALUE("... rflags", 0xfffffffffffdffff, r.rflags);
	CHECK_EQ("... rax", r.rax, 0x1122334455667788);
	CHECK_EQ("... r15", r.r15, 15);
	ROW("SET_REGS back", 0, iop(vcpu, KVM_SET_REGS, &old));
}

/* Try one change of the RESET state; if it was accepted, take it back. */
#define SREGS_ROW(what, want, change)                                \
	do {                                                         \
		struct kvm_sregs s = saved;                          \
		change;                                              \
		ROW("SREGS " what, want, iop(vcpu, KVM_SET_SREGS, &s)); \
		iop(vcpu, KVM_SET_SREGS, &saved);                    \
	} while (0)

static void sregs_rows(void)
{
	const uint64_t pe = 1, pg = 1ull << 31, nw = 1 << 29, cd = 1 << 30;
	struct kvm_sregs saved;

	ROW("GET_SREGS", 0, iop(vcpu, KVM_GET_SREGS, &saved));
	CHECK_EQ("... cs.base after RESET", saved.cs.base, 0xffff0000);
	CHECK_EQ("... cs.selector", saved.cs.selector, 0xf000);
	CHECK_EQ("... cr0", saved.cr0, 0x60000010);
	CHECK_EQ("... apic_base", saved.apic_base, 0xfee00900);
	SREGS_ROW("unchanged", 0, (void)s);
	SREGS_ROW("CR0.PG without PE", -EINVAL, s.cr0 = pg);
	SREGS_ROW("CR0 high bits", -EINVAL, s.cr0 |= 1ull << 40);
	SREGS_ROW("CR0.NW without CD", -EINVAL, s.cr0 = (s.cr0 | nw) & ~cd);
	SREGS_ROW("CR4 bit 63", -EINVAL, s.cr4 = 1ull << 63);
	SREGS_ROW("EFER.LMA without LME and PG", -EINVAL, s.efer = 1 << 10);
	SREGS_ROW("LME and PG without PAE", -EINVAL, (s.efer = 0x500, s.cr0 |= pg | pe));
	SREGS_ROW("EFER bit 60", 0, s.efer = 1ull << 60);
	SREGS_ROW("CR3 reserved bits in long mode", -EINVAL,
		  (s.efer = 0x500, s.cr0 |= pg | pe, s.cr4 = 1 << 5, s.cr3 = 1ull << 55));
	SREGS_ROW("CR8 0x10", 0, s.cr8 = 0x10);
	SREGS_ROW("apic_base reserved", -EINVAL, s.apic_base |= 1);
	SREGS_ROW("cs.type 0, s 0", 0, (s.cs.type = 0, s.cs.s = 0));
	SREGS_ROW("ss.dpl 3, cs.dpl 0", 0, s.ss.dpl = 3);
	SREGS_ROW("idt.limit 0", 0, s.idt.limit = 0);
	SREGS_ROW("two injected interrupts", 0, s.interrupt_bitmap[0] = 3ull << 40);
}

static void msr_rows(void)
{
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e[2];
	} m = {.h.nmsrs = 1};
	static char many[16 << 20];

	m.e[0].index = 0xdeadbeef;
	ROW("GET_MSRS unknown index", 0, iop(vcpu, KVM_GET_MSRS, &m));
	((struct kvm_msrs *)many)->nmsrs = 100000;
	ROW("GET_MSRS nmsrs 100000", -E2BIG, iop(vcpu, KVM_GET_MSRS, many));
	m.e[0] = (struct kvm_msr_entry){.index = 0xc0000082, .data = 1ull << 60};
	ROW("SET_MSRS LSTAR not canonical", 0, iop(vcpu, KVM_SET_MSRS, &m));
	m.e[0] = (struct kvm_msr_entry){.index = 0xc0000080, .data = ~0ull};
	ROW("SET_MSRS EFER all ones", 0, iop(vcpu, KVM_SET_MSRS, &m));
	m.h.nmsrs = 2;
	m.e[0] = (struct kvm_msr_entry){.index = 0xc0000081, .data = 0x123};
	m.e[1] = (struct kvm_msr_entry){.index = 0xdeadbeef};
	ROW("SET_MSRS second unknown", 1, iop(vcpu, KVM_SET_MSRS, &m));
	ROW("GET_MSRS second unknown", 1, iop(vcpu, KVM_GET_MSRS, &m));
	CHECK_EQ("... STAR", m.e[0].data, 0x123);
}

/* Every listed MSR can be read and accepts its own value. */
static void msr_list_rows(void)
{
	uint32_t buf[600] = {599};
	struct kvm_msr_list *list = (void *)buf;
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e;
	} m = {.h.nmsrs = 1};
	char what[32];

	ROW("GET_MSR_INDEX_LIST", 0, iop(sys, KVM_GET_MSR_INDEX_LIST, list));
	for (uint32_t i = 0; i < list->nmsrs; i++) {
		m.e = (struct kvm_msr_entry){.index = list->indices[i]};
		snprintf(what, sizeof(what), "MSR %#x get", list->indices[i]);
		ROW(what, 1, iop(vcpu, KVM_GET_MSRS, &m));
		if (api_is_device() && list->indices[i] == 0x4b564d06)
			continue; /* KVM lists it always, and takes it only with its CPUID bit */
		snprintf(what, sizeof(what), "MSR %#x set", list->indices[i]);
		ROW(what, 1, iop(vcpu, KVM_SET_MSRS, &m));
	}
}

static void state_rows(void)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 10000 * sizeof(struct kvm_cpuid_entry2));
	struct kvm_vcpu_events ev, e;
	struct kvm_mp_state mp = {99};
	struct kvm_debugregs dr, d;
	struct kvm_xcrs xcrs = {.nr_xcrs = 1000};
	struct kvm_xsave *xs = calloc(1, 8192);
	struct kvm_interrupt irq = {256};
	struct kvm_lapic_state lapic;
	struct kvm_translation tr = {.linear_address = 0x1000};
	struct { struct kvm_signal_mask m; uint64_t mask; } sig = {.m.len = 4};
	struct kvm_guest_debug dbg = {.control = 0};

	cpuid->nent = 10000;
	ROW("SET_CPUID2 nent 10000", -E2BIG, iop(vcpu, KVM_SET_CPUID2, cpuid));
	cpuid->nent = 0;
	ROW("SET_CPUID2 nent 0", 0, iop(vcpu, KVM_SET_CPUID2, cpuid));
	ROW("SET_CPUID nent 0", 0, iop(vcpu, KVM_SET_CPUID, cpuid));
	cpuid->nent = 257;
	ROW("SET_CPUID nent 257", -E2BIG, iop(vcpu, KVM_SET_CPUID, cpuid));
	ROW("SET_CPUID bad pointer", -EFAULT, iop(vcpu, KVM_SET_CPUID, BAD_PTR));
	ROW("GET_VCPU_EVENTS", 0, iop(vcpu, KVM_GET_VCPU_EVENTS, &ev));
	e = ev, e.flags = ~0u;
	ROW("SET_VCPU_EVENTS flags", -EINVAL, iop(vcpu, KVM_SET_VCPU_EVENTS, &e));
	e = ev, e.exception.injected = 1, e.exception.nr = 200;
	ROW("SET_VCPU_EVENTS exception 200", -EINVAL, iop(vcpu, KVM_SET_VCPU_EVENTS, &e));
	e.exception.nr = 2;
	ROW("SET_VCPU_EVENTS exception 2", -EINVAL, iop(vcpu, KVM_SET_VCPU_EVENTS, &e));
	ROW("SET_VCPU_EVENTS own", 0, iop(vcpu, KVM_SET_VCPU_EVENTS, &ev));
	ROW("SET_MP_STATE 99", -EINVAL, iop(vcpu, KVM_SET_MP_STATE, &mp));
	ROW("GET_DEBUGREGS", 0, iop(vcpu, KVM_GET_DEBUGREGS, &dr));
	CHECK_EQ("... dr6", dr.dr6, 0xffff0ff0);
	CHECK_EQ("... dr7", dr.dr7, 0x400);
	d = dr, d.dr7 |= 1ull << 40;
	ROW("SET_DEBUGREGS dr7 high bits", -EINVAL, iop(vcpu, KVM_SET_DEBUGREGS, &d));
	d = dr, d.flags = 1;
	ROW("SET_DEBUGREGS flags 1", -EINVAL, iop(vcpu, KVM_SET_DEBUGREGS, &d));
	ROW("SET_XCRS nr 1000", -EINVAL, iop(vcpu, KVM_SET_XCRS, &xcrs));
	xcrs.nr_xcrs = 1;
	ROW("SET_XCRS XCR0 0", -EINVAL, iop(vcpu, KVM_SET_XCRS, &xcrs));
	ROW("GET_XSAVE", 0, iop(vcpu, KVM_GET_XSAVE, xs));
	xs->region[6] = ~0u;
	ROW("SET_XSAVE mxcsr all ones", 0, iop(vcpu, KVM_SET_XSAVE, xs));
	xs->region[128] = xs->region[129] = ~0u;
	ROW("SET_XSAVE xstate_bv all ones", -EINVAL, iop(vcpu, KVM_SET_XSAVE, xs));
	ROW("INTERRUPT 256", -EINVAL, iop(vcpu, KVM_INTERRUPT, &irq));
	ROW("GET_LAPIC without irqchip", -EINVAL, iop(vcpu, KVM_GET_LAPIC, &lapic));
	ROW("TRANSLATE", 0, iop(vcpu, KVM_TRANSLATE, &tr));
	CHECK_EQ("... paging off", tr.physical_address, 0x1000);
	ROW("SET_SIGNAL_MASK len 4", -EINVAL, iop(vcpu, KVM_SET_SIGNAL_MASK, &sig));
	ROW("SET_SIGNAL_MASK NULL", 0, iop(vcpu, KVM_SET_SIGNAL_MASK, NULL));
	memset(&dbg, 0xff, sizeof(dbg));
	ROW("SET_GUEST_DEBUG all bits", 0, iop(vcpu, KVM_SET_GUEST_DEBUG, &dbg));
	memset(&dbg, 0, sizeof(dbg));
	ROW("SET_GUEST_DEBUG off", 0, iop(vcpu, KVM_SET_GUEST_DEBUG, &dbg));
	free(cpuid);
	free(xs);
}

/* A forked child has no part in the VM; the device itself works. */
static void fork_rows(void)
{
	struct kvm_regs r;
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		passed = failed = 0;
		ROW("child: RUN", -EIO, io(vcpu, KVM_RUN, 0));
		ROW("child: GET_REGS", -EIO, iop(vcpu, KVM_GET_REGS, &r));
		ROW("child: SET_USER_MEMORY_REGION", -EIO, slot(5, 0, 0, 0, 0));
		ROW("child: CHECK_EXTENSION", 2, io(sys, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO));
		fflush(stdout);
		_exit(failed);
	}
	waitpid(pid, &status, 0);
	CHECK_EQ("child's failures", WEXITSTATUS(status), 0);
	ROW("parent: GET_REGS", 0, iop(vcpu, KVM_GET_REGS, &r));
}

/* With irqchip: the same vCPU requests, and a VM that its vCPU keeps alive. */
static void irqchip_rows(void)
{
	int vm2 = must(io(sys, KVM_CREATE_VM, 0), "second VM"), v0, v1;
	struct kvm_pit_config pit = {0};
	struct kvm_lapic_state lapic;
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
	struct kvm_mp_state mp;
	struct kvm_regs r;
	struct kvm_interrupt irq = {32};

	ROW("CREATE_IRQCHIP", 0, io(vm2, KVM_CREATE_IRQCHIP, 0));
	ROW("CREATE_IRQCHIP again", -EEXIST, io(vm2, KVM_CREATE_IRQCHIP, 0));
	ROW("CREATE_PIT2", 0, iop(vm2, KVM_CREATE_PIT2, &pit));
	ROW("CREATE_PIT2 again", -EEXIST, iop(vm2, KVM_CREATE_PIT2, &pit));
	ROW("GET_IRQCHIP", 0, iop(vm2, KVM_GET_IRQCHIP, &chip));
	CHECK_EQ("... ioapic base", chip.chip.ioapic.base_address, 0xfec00000);
	ROW("SET_IRQCHIP", 0, iop(vm2, KVM_SET_IRQCHIP, &chip));
	chip.chip_id = 9;
	ROW("GET_IRQCHIP 9", -EINVAL, iop(vm2, KVM_GET_IRQCHIP, &chip));
	v0 = must(io(vm2, KVM_CREATE_VCPU, 0), "vcpu 0");
	v1 = must(io(vm2, KVM_CREATE_VCPU, 7), "vcpu 7");
	ROW("GET_LAPIC", 0, iop(v1, KVM_GET_LAPIC, &lapic));
	CHECK_EQ("... APIC ID", ((uint32_t *)lapic.regs)[8], 7u << 24);
	ROW("SET_LAPIC", 0, iop(v1, KVM_SET_LAPIC, &lapic));
	ROW("GET_MP_STATE of the boot processor", 0, iop(v0, KVM_GET_MP_STATE, &mp));
	CHECK_EQ("... runnable", mp.mp_state, KVM_MP_STATE_RUNNABLE);
	ROW("GET_MP_STATE of another", 0, iop(v1, KVM_GET_MP_STATE, &mp));
	CHECK_EQ("... uninitialized", mp.mp_state, KVM_MP_STATE_UNINITIALIZED);
	ROW("INTERRUPT with irqchip", -ENXIO, iop(v0, KVM_INTERRUPT, &irq));
	api->close(vm2);
	ROW("GET_REGS after close of the vm fd", 0, iop(v0, KVM_GET_REGS, &r));
	api->close(v0);
	api->close(v1);
	ROW("GET_REGS after close", -EBADF, iop(v0, KVM_GET_REGS, &r));
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	system_rows();
	vm = must(io(sys, KVM_CREATE_VM, 0), "CREATE_VM");
	capability_rows();
	memslot_rows();
	dirty_rows();
	vm_rows();
	vcpu = must(io(vm, KVM_CREATE_VCPU, 0), "CREATE_VCPU");
	run = api->mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	must(run == MAP_FAILED ? -1 : 0, "mmap of the vcpu");
	vcpu_map_rows();
	regs_rows();
	sregs_rows();
	msr_rows();
	msr_list_rows();
	state_rows();
	fork_rows();
	irqchip_rows();
	return api_done();
}
