// SPDX-License-Identifier: MIT
/* Items 1 to 17 and 25: wrong arguments. The errno are those of the golden table (tests/api/errno.c). */
#include "modes.h"

/* Requests that read or write their argument before anything else. */
static const struct call system_calls[] = {
	CALL(KVM_GET_SUPPORTED_CPUID), CALL(KVM_GET_EMULATED_CPUID), CALL(KVM_GET_MSR_INDEX_LIST),
	CALL(KVM_GET_MSR_FEATURE_INDEX_LIST), CALL(KVM_GET_MSRS), CALL(KVM_X86_GET_MCE_CAP_SUPPORTED),
};
static const struct call vm_calls[] = {
	CALL(KVM_IRQ_LINE), CALL(KVM_IRQ_LINE_STATUS), CALL(KVM_SIGNAL_MSI),
	CALL(KVM_SET_USER_MEMORY_REGION), CALL(KVM_GET_DIRTY_LOG), CALL(KVM_CLEAR_DIRTY_LOG),
	CALL(KVM_SET_IDENTITY_MAP_ADDR), CALL(KVM_ENABLE_CAP), CALL(KVM_GET_IRQCHIP),
	CALL(KVM_SET_IRQCHIP), CALL(KVM_CREATE_PIT2), CALL(KVM_SET_PIT), CALL(KVM_GET_PIT2),
	CALL(KVM_SET_PIT2), CALL(KVM_SET_GSI_ROUTING), CALL(KVM_IRQFD), CALL(KVM_IOEVENTFD),
	CALL(KVM_REGISTER_COALESCED_MMIO), CALL(KVM_UNREGISTER_COALESCED_MMIO), CALL(KVM_GET_CLOCK),
	CALL(KVM_SET_CLOCK), CALL(KVM_CREATE_DEVICE),
};
static const struct call vcpu_calls[] = {
	CALL(KVM_GET_REGS), CALL(KVM_SET_REGS), CALL(KVM_GET_SREGS), CALL(KVM_SET_SREGS),
	CALL(KVM_GET_SREGS2), CALL(KVM_SET_SREGS2), CALL(KVM_GET_FPU), CALL(KVM_SET_FPU),
	CALL(KVM_GET_XSAVE), CALL(KVM_GET_XSAVE2), CALL(KVM_SET_XSAVE), CALL(KVM_GET_XCRS),
	CALL(KVM_SET_XCRS), CALL(KVM_GET_DEBUGREGS), CALL(KVM_SET_DEBUGREGS),
	CALL(KVM_GET_VCPU_EVENTS), CALL(KVM_SET_VCPU_EVENTS), CALL(KVM_TRANSLATE),
	CALL(KVM_SET_GUEST_DEBUG), CALL(KVM_GET_MSRS), CALL(KVM_SET_MSRS), CALL(KVM_SET_CPUID2),
	CALL(KVM_GET_CPUID2), CALL(KVM_GET_LAPIC), CALL(KVM_SET_LAPIC), CALL(KVM_GET_MP_STATE),
	CALL(KVM_SET_MP_STATE), CALL(KVM_INTERRUPT), CALL(KVM_TPR_ACCESS_REPORTING),
	CALL(KVM_SET_VAPIC_ADDR), CALL(KVM_X86_SETUP_MCE), CALL(KVM_X86_SET_MCE),
	CALL(KVM_ENABLE_CAP), CALL(KVM_SET_SIGNAL_MASK),
};

static void try_bad(int fd, const struct call *c, size_t n, void *ptr)
{
	for (size_t k = 0; k < n; k++) {
		long r = iop(fd, c[k].req, ptr);

		check(r == -EFAULT, c[k].name, r, -EFAULT);
	}
}

static void h01_bad_pointer(void)
{
	void *none = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *bad[] = {BAD_PTR, (void *)0xffff800000000000, (void *)0x8000000000000000, none};
	struct machine m;

	open_full(&m);
	for (size_t k = 0; k < COUNT(bad); k++) {
		try_bad(sys, system_calls, COUNT(system_calls), bad[k]);
		try_bad(m.vm, vm_calls, COUNT(vm_calls), bad[k]);
		try_bad(m.vcpu, vcpu_calls, COUNT(vcpu_calls), bad[k]);
	}
	machine_close(&m);
}

static void h02_nonzero_argument(void)
{
	struct machine m;

	machine_open(&m, GUEST(HLT));
	CHECK_EQ("GET_API_VERSION", io(sys, KVM_GET_API_VERSION, 1), -EINVAL);
	CHECK_EQ("GET_VCPU_MMAP_SIZE", io(sys, KVM_GET_VCPU_MMAP_SIZE, ~0ul), -EINVAL);
	CHECK_EQ("RUN", io(m.vcpu, KVM_RUN, 1ul << 40), -EINVAL);
	CHECK_EQ("CREATE_VM", io(sys, KVM_CREATE_VM, 99), -EINVAL);
	machine_close(&m);
}

static void h03_unknown_ioctl(void)
{
	struct machine m;

	machine_open(&m, GUEST(HLT));
	for (unsigned int nr = 0; nr < 256; nr++)
		for (unsigned int size = 3000; size < 3003; size++) { /* no request has these sizes */
			unsigned long req = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, nr, size);

			CHECK_EQ("system", io(sys, req, 8), -EINVAL);
			CHECK_EQ("vm", io(m.vm, req, 8), -ENOTTY);
			CHECK_EQ("vcpu", io(m.vcpu, req, 8), -EINVAL);
		}
	CHECK_EQ("other magic", io(m.vm, 0x5401, 8), -ENOTTY);
	machine_close(&m);
}

static void h04_wrong_kind_of_fd(void)
{
	struct machine m;
	int stats, null = open("/dev/null", O_RDWR);

	machine_open(&m, GUEST(HLT));
	stats = must(api->ioctl(m.vm, KVM_GET_STATS_FD, 0), "stats");
	CHECK_EQ("vcpu's on vm", io(m.vm, KVM_RUN, 0), -ENOTTY);
	CHECK_EQ("vcpu's on system", io(sys, KVM_RUN, 0), -EINVAL);
	CHECK_EQ("vm's on system", io(sys, KVM_CREATE_VCPU, 0), -EINVAL);
	CHECK_EQ("vm's on vcpu", io(m.vcpu, KVM_CREATE_VCPU, 5), -EINVAL);
	CHECK_EQ("system's on vm", io(m.vm, KVM_CREATE_VM, 0), -ENOTTY);
	CHECK_EQ("vcpu's on stats", io(stats, KVM_RUN, 0), -ENOTTY);
	CHECK_EQ("on /dev/null", io(null, KVM_RUN, 0), -ENOTTY);
	CHECK_EQ("on nothing", io(999, KVM_RUN, 0), -EBADF);
	CHECK_EQ("on -1", io(-1, KVM_RUN, 0), -EBADF);
	api->close(stats);
	close(null);
	machine_close(&m);
}

/* ---- memory slots */

static long slot(struct machine *m, uint32_t id, uint32_t flags, uint64_t gpa, uint64_t size,
		 uint64_t hva)
{
	struct kvm_userspace_memory_region r = {id, flags, gpa, size, hva};

	return iop(m->vm, KVM_SET_USER_MEMORY_REGION, &r);
}

static void h05_memslot_unaligned(void)
{
	struct machine m;
	uint64_t hva;

	machine_open(&m, GUEST(HLT));
	hva = (uint64_t)m.ram;
	for (unsigned int k = 1; k < 4096; k = k * 2 + 1) {
		CHECK_EQ("gpa", slot(&m, 1, 0, (1 << 20) + k, 4096, hva), -EINVAL);
		CHECK_EQ("size", slot(&m, 1, 0, 1 << 20, 4096 + k, hva), -EINVAL);
		CHECK_EQ("hva", slot(&m, 1, 0, 1 << 20, 4096, hva + k), -EINVAL);
	}
	machine_close(&m);
}

static void h06_memslot_wraps(void)
{
	struct machine m;

	machine_open(&m, GUEST(HLT));
	CHECK_EQ("by one page", slot(&m, 1, 0, -4096ull, 8192, (uint64_t)m.ram), -EINVAL);
	CHECK_EQ("to zero", slot(&m, 1, 0, -4096ull, 4096, (uint64_t)m.ram), -EINVAL);
	CHECK_EQ("hva wraps", slot(&m, 1, 0, 1 << 20, 1ull << 40, 0x7fffffff0000), -EINVAL);
	machine_close(&m);
}

static void h07_memslot_size_huge(void)
{
	struct machine m;

	machine_open(&m, GUEST(HLT));
	for (int bit = 43; bit < 64; bit++)
		CHECK_EQ("size", slot(&m, 1, 0, 1 << 20, 1ull << bit, (uint64_t)m.ram), -EINVAL);
	machine_close(&m);
}

static void h08_memslot_above_maxphyaddr(void)
{
	struct machine m;

	machine_open(&m, GUEST(HLT));
	for (int bit = 52; bit < 64; bit++)
		CHECK_EQ("gpa", slot(&m, 1, 0, 1ull << bit, 4096, (uint64_t)m.ram), -EINVAL);
	machine_close(&m);
}

static void h09_memslot_overlap(void)
{
	struct machine m;

	machine_open(&m, GUEST(HLT));
	CHECK_EQ("inside", slot(&m, 1, 0, 0x2000, 4096, (uint64_t)m.ram), -EEXIST);
	CHECK_EQ("same", slot(&m, 1, 0, 0, RAM, (uint64_t)m.ram), -EEXIST);
	CHECK_EQ("over the end", slot(&m, 1, 0, RAM - 4096, 8192, (uint64_t)m.ram), -EEXIST);
	CHECK_EQ("around", slot(&m, 1, 0, 0, 1 << 20, (uint64_t)m.ram), -EEXIST);
	CHECK_EQ("beside", slot(&m, 1, 0, RAM, 4096, (uint64_t)m.ram), 0);
	CHECK_EQ("moved over it", slot(&m, 1, 0, 0, 4096, (uint64_t)m.ram), -EEXIST);
	machine_close(&m);
}

static void h10_memslot_id(void)
{
	struct machine m;

	machine_open(&m, GUEST(HLT));
	CHECK_EQ("id", slot(&m, 40000, 0, 1 << 20, 4096, (uint64_t)m.ram), -EINVAL);
	CHECK_EQ("id and space", slot(&m, 170000, 0, 1 << 20, 4096, (uint64_t)m.ram), -EINVAL);
	CHECK_EQ("space", slot(&m, 5 << 16, 0, 1 << 20, 4096, (uint64_t)m.ram), -EINVAL);
	CHECK_EQ("all ones", slot(&m, ~0u, 0, 1 << 20, 4096, (uint64_t)m.ram), -EINVAL);
	CHECK_EQ("last", slot(&m, 32763, 0, 1 << 20, 4096, (uint64_t)m.ram), 0);
	machine_close(&m);
}

static void h11_memslot_resize(void)
{
	struct machine m;

	machine_open(&m, GUEST(HLT));
	CHECK_EQ("smaller", slot(&m, 0, 0, 0, RAM - 4096, (uint64_t)m.ram), -EINVAL);
	CHECK_EQ("larger", slot(&m, 0, 0, 0, RAM + 4096, (uint64_t)m.ram), -EINVAL);
	CHECK_EQ("other memory", slot(&m, 0, 0, 0, RAM, (uint64_t)m.ram + 4096), -EINVAL);
	RUN_TO(&m, "still runs", KVM_EXIT_HLT);
	machine_close(&m);
}

static void h12_memslot_toggle(void)
{
	struct machine m;

	machine_open(&m, GUEST(HLT));
	CHECK_EQ("READONLY", slot(&m, 0, KVM_MEM_READONLY, 0, RAM, (uint64_t)m.ram), -EINVAL);
	CHECK_EQ("LOG_DIRTY", slot(&m, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, RAM, (uint64_t)m.ram), 0);
	CHECK_EQ("off", slot(&m, 0, 0, 0, RAM, (uint64_t)m.ram), 0);
	CHECK_EQ("unknown flag", slot(&m, 0, 1u << 31, 0, RAM, (uint64_t)m.ram), -EINVAL);
	machine_close(&m);
}

/* ---- counts */

static void h14_counts(void)
{
	static struct kvm_cpuid2 cpuid;
	struct kvm_msrs msrs = {.nmsrs = 100000};
	struct kvm_xcrs xcrs = {.nr_xcrs = 1000};
	struct kvm_irq_routing routes = {.nr = 5000};
	struct kvm_msr_list list = {0};
	struct machine m;

	machine_vm(&m, RAM);
	CHECK_EQ("irqchip", io(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	machine_add_vcpu(&m);
	CHECK_EQ("GET_SUPPORTED_CPUID 0", iop(sys, KVM_GET_SUPPORTED_CPUID, &cpuid), -E2BIG);
	CHECK_EQ("GET_MSR_INDEX_LIST 0", iop(sys, KVM_GET_MSR_INDEX_LIST, &list), -E2BIG);
	cpuid.nent = 10000;
	CHECK_EQ("SET_CPUID2", iop(m.vcpu, KVM_SET_CPUID2, &cpuid), -E2BIG);
	CHECK_EQ("GET_MSRS", iop(m.vcpu, KVM_GET_MSRS, &msrs), -E2BIG);
	CHECK_EQ("SET_MSRS", iop(m.vcpu, KVM_SET_MSRS, &msrs), -E2BIG);
	CHECK_EQ("SET_XCRS", iop(m.vcpu, KVM_SET_XCRS, &xcrs), -EINVAL);
	CHECK_EQ("SET_GSI_ROUTING", iop(m.vm, KVM_SET_GSI_ROUTING, &routes), -EINVAL);
	msrs.nmsrs = cpuid.nent = routes.nr = 0;
	CHECK_EQ("GET_MSRS 0", iop(m.vcpu, KVM_GET_MSRS, &msrs), 0);
	CHECK_EQ("SET_CPUID2 0", iop(m.vcpu, KVM_SET_CPUID2, &cpuid), 0);
	CHECK_EQ("SET_GSI_ROUTING 0", iop(m.vm, KVM_SET_GSI_ROUTING, &routes), 0);
	machine_close(&m);
}

/* The structure ends where its page ends: not one byte behind what fits may be touched. */
static void *before_the_end(size_t n)
{
	uint8_t *p = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mprotect(p + 8192, 4096, PROT_NONE);
	return p + 8192 - n;
}

static void h15_count_and_small_buffer(void)
{
	struct kvm_cpuid2 *c = before_the_end(sizeof(*c) + 3 * sizeof(c->entries[0]));
	struct kvm_msr_list *l = before_the_end(sizeof(*l) + 2 * sizeof(l->indices[0]));
	struct kvm_msrs *s = before_the_end(sizeof(*s) + 2 * sizeof(s->entries[0]));
	struct machine m;

	machine_open(&m, GUEST(HLT));
	c->nent = l->nmsrs = s->nmsrs = ~0u;
	CHECK_EQ("GET_SUPPORTED_CPUID", iop(sys, KVM_GET_SUPPORTED_CPUID, c), -EFAULT);
	CHECK_EQ("GET_MSR_INDEX_LIST", iop(sys, KVM_GET_MSR_INDEX_LIST, l), -EFAULT);
	CHECK_EQ("SET_MSRS", iop(m.vcpu, KVM_SET_MSRS, s), -E2BIG);
	c->nent = ~0u;
	CHECK_EQ("SET_CPUID2", iop(m.vcpu, KVM_SET_CPUID2, c), -E2BIG);
	c->nent = 4;
	CHECK_EQ("SET_CPUID2, one too many", iop(m.vcpu, KVM_SET_CPUID2, c), -EFAULT);
	s->nmsrs = 3;
	CHECK_EQ("GET_MSRS, one too many", iop(m.vcpu, KVM_GET_MSRS, s), -EFAULT);
	machine_close(&m);
}

static void h16_vcpu_id(void)
{
	struct machine m;

	machine_open(&m, GUEST(HLT));
	CHECK_EQ("twice", io(m.vm, KVM_CREATE_VCPU, 0), -EEXIST);
	CHECK_EQ("5000", io(m.vm, KVM_CREATE_VCPU, 5000), -EINVAL);
	CHECK_EQ("2^32 - 1", io(m.vm, KVM_CREATE_VCPU, 0xffffffff), -EINVAL);
	CHECK_EQ("2^63", io(m.vm, KVM_CREATE_VCPU, 1ul << 63), -EINVAL);
	machine_close(&m);
}

static void h17_irqchip_order(void)
{
	struct kvm_irq_level level = {{1}, 1};
	struct kvm_irqchip chip = {0};
	struct kvm_pit_config pit = {0};
	struct kvm_irqfd fd = {0};
	struct kvm_lapic_state lapic;
	struct machine m;

	machine_open(&m, GUEST(HLT));
	CHECK_EQ("after a vCPU", io(m.vm, KVM_CREATE_IRQCHIP, 0), -EINVAL);
	CHECK_EQ("IRQ_LINE", iop(m.vm, KVM_IRQ_LINE, &level), -ENXIO);
	CHECK_EQ("GET_IRQCHIP", iop(m.vm, KVM_GET_IRQCHIP, &chip), -ENXIO);
	CHECK_EQ("SET_IRQCHIP", iop(m.vm, KVM_SET_IRQCHIP, &chip), -ENXIO);
	CHECK_EQ("CREATE_PIT2", iop(m.vm, KVM_CREATE_PIT2, &pit), -ENOENT);
	CHECK_EQ("IRQFD", iop(m.vm, KVM_IRQFD, &fd), -EINVAL);
	CHECK_EQ("GET_LAPIC", iop(m.vcpu, KVM_GET_LAPIC, &lapic), -EINVAL);
	machine_close(&m);
}

static void h25_dirty_log(void)
{
	uint64_t bitmap[64];
	struct kvm_dirty_log log = {.slot = 9, .dirty_bitmap = bitmap};
	struct kvm_clear_dirty_log clear = {.slot = 9, .num_pages = 64, .dirty_bitmap = bitmap};
	struct machine m;

	machine_open(&m, GUEST(HLT));
	CHECK_EQ("missing slot", iop(m.vm, KVM_GET_DIRTY_LOG, &log), -ENOENT);
	CHECK_EQ("clear missing", iop(m.vm, KVM_CLEAR_DIRTY_LOG, &clear), -ENOENT);
	log.slot = clear.slot = 0;
	CHECK_EQ("not logged", iop(m.vm, KVM_GET_DIRTY_LOG, &log), -ENOENT);
	CHECK_EQ("on", slot(&m, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, RAM, (uint64_t)m.ram), 0);
	clear.num_pages = 1u << 31;
	CHECK_EQ("clear too much", iop(m.vm, KVM_CLEAR_DIRTY_LOG, &clear), -EINVAL);
	clear.first_page = 1;
	CHECK_EQ("clear unaligned", iop(m.vm, KVM_CLEAR_DIRTY_LOG, &clear), -EINVAL);
	clear.first_page = 1ull << 60;
	CHECK_EQ("clear far away", iop(m.vm, KVM_CLEAR_DIRTY_LOG, &clear), -EINVAL);
	log.slot = ~0u;
	CHECK_EQ("slot all ones", iop(m.vm, KVM_GET_DIRTY_LOG, &log), -EINVAL);
	log.slot = 0, log.dirty_bitmap = BAD_PTR;
	CHECK_EQ("bitmap", iop(m.vm, KVM_GET_DIRTY_LOG, &log), -EFAULT);
	machine_close(&m);
}

static const struct item items[] = {
	ITEM(h01_bad_pointer), ITEM(h02_nonzero_argument), ITEM(h03_unknown_ioctl),
	ITEM(h04_wrong_kind_of_fd), ITEM(h05_memslot_unaligned), ITEM(h06_memslot_wraps),
	ITEM(h07_memslot_size_huge), ITEM(h08_memslot_above_maxphyaddr), ITEM(h09_memslot_overlap),
	ITEM(h10_memslot_id), ITEM(h11_memslot_resize), ITEM(h12_memslot_toggle), ITEM(h14_counts),
	ITEM(h15_count_and_small_buffer), ITEM(h16_vcpu_id), ITEM(h17_irqchip_order),
	ITEM(h25_dirty_log),
};

HOSTILE_MAIN(items)
