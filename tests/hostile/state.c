// SPDX-License-Identifier: MIT
/* Items 18 to 27 without 25: wrong state of a vCPU, the shared page, and what comes out. */
#include "modes.h"

#include <malloc.h>

/* ---- registers */

static void sregs_row(struct machine *m, const char *what, struct kvm_sregs s, long want)
{
	long r = iop(m->vcpu, KVM_SET_SREGS, &s);

	check(r == want, what, r, want);
	if (!r && m->run) /* accepted: it must run safely, wherever that leads */
		check(run_for(m, 20) <= 0, what, 1, 0);
}

static void h18_sregs(void)
{
	const uint64_t pe = 1, pg = 1ull << 31, nw = 1 << 29, cd = 1 << 30;
	struct kvm_sregs r, s;
	struct machine m;

	machine_open(&m, GUEST(0x90, 0xeb, 0xfd));
	iop(m.vcpu, KVM_GET_SREGS, &r);
#define ROW(what, want, change) (s = r, change, sregs_row(&m, what, s, want))
	ROW("PG without PE", -EINVAL, s.cr0 = pg);
	ROW("NW without CD", -EINVAL, s.cr0 = (s.cr0 | nw) & ~cd);
	ROW("CR0 high", -EINVAL, s.cr0 |= 1ull << 40);
	ROW("CR4 reserved", -EINVAL, s.cr4 |= 1ull << 63);
	ROW("LMA without LME", -EINVAL, s.efer = 1 << 10);
	ROW("LME and PG without PAE", -EINVAL, (s.efer = 0x500, s.cr0 |= pg | pe));
	ROW("CR3 high", -EINVAL, (s.efer = 0x500, s.cr0 |= pg | pe, s.cr4 = 32, s.cr3 = 1ull << 55));
	ROW("apic_base", -EINVAL, s.apic_base |= 1);
	ROW("cs.type 0", 0, (s.cs.type = 0, s.cs.s = 0));
	ROW("ss.dpl 3", 0, s.ss.dpl = 3);
	ROW("two injected", 0, s.interrupt_bitmap[0] = 3ull << 40);
	ROW("idt.limit 0", 0, s.idt.limit = 0);
	ROW("all segments wild", 0,
	    (memset(&s.ds, 0xff, sizeof(s.ds)), memset(&s.ss, 0xff, sizeof(s.ss))));
	ROW("back", 0, (void)s);
#undef ROW
	machine_close(&m);
	check_neighbour();
}

static void h19_regs(void)
{
	struct kvm_regs r = {.rip = 1ull << 63, .rflags = ~0ull, .rsp = ~0ull, .rax = ~0ull};
	static const enum mode modes[] = {REAL, PROT16, PROT32, V86, LONG, LONG_USER, PAE32};
	struct machine m;

	mode_open(&m, REAL, GUEST(0xeb, 0xfe));
	for (size_t k = 0; k < COUNT(modes); k++) {
		mode_start(&m, modes[k]);
		CHECK_EQ("SET_REGS", iop(m.vcpu, KVM_SET_REGS, &r), 0);
		run_for(&m, 20);
		CHECK_EQ("no result of its own", m.run->exit_reason != KVM_EXIT_FAIL_ENTRY, 1);
	}
	mode_start(&m, LONG);
	CHECK_EQ("SET_REGS", iop(m.vcpu, KVM_SET_REGS, &r), 0);
	CHECK_EQ("KVM_RUN", run_for(&m, 200), 0);
	machine_close(&m);
	check_neighbour();
}

static void h20_vcpu_events(void)
{
	struct kvm_vcpu_events e, own;
	struct machine m;

	machine_open(&m, GUEST(HLT));
	CHECK_EQ("GET", iop(m.vcpu, KVM_GET_VCPU_EVENTS, &own), 0);
	e = own, e.exception.injected = 1, e.exception.nr = 200;
	CHECK_EQ("exception 200", iop(m.vcpu, KVM_SET_VCPU_EVENTS, &e), -EINVAL);
	e.exception.nr = 2;
	CHECK_EQ("exception 2", iop(m.vcpu, KVM_SET_VCPU_EVENTS, &e), -EINVAL);
	e = own, e.flags = ~0u;
	CHECK_EQ("flags", iop(m.vcpu, KVM_SET_VCPU_EVENTS, &e), -EINVAL);
	/* Everything at once runs safely. */
	memset(&e, 0xff, sizeof(e));
	e.exception.nr = 13;
	e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	iop(m.vcpu, KVM_SET_VCPU_EVENTS, &e);
	run_for(&m, 20);
	machine_close(&m);
	check_neighbour();
}

/* An exception that waits unmasked, without its summary bit: the guest's, not the host's. */
static void pending_x87(void)
{
	struct kvm_fpu f;
	struct machine m;

	mode_open(&m, LONG, GUEST(0xd9, 0xe8, HLT)); /* fld1 */
	CHECK_EQ("GET_FPU", iop(m.vcpu, KVM_GET_FPU, &f), 0);
	f.fcw = 0x37e;
	f.fsw = 1;
	CHECK_EQ("SET_FPU", iop(m.vcpu, KVM_SET_FPU, &f), 0);
	EXPECT_TRAP(&m, "pending x87 exception", 16);
	machine_close(&m);
}

static void h21_xsave(void)
{
	struct kvm_xsave *x = aligned_alloc(64, sizeof(*x));
	struct machine m;

	/* ldmxcsr's neighbour: sqrtss xmm0,xmm0 uses MXCSR; then hlt */
	mode_open(&m, LONG, GUEST(0xf3, 0x0f, 0x51, 0xc0, HLT));
	CHECK_EQ("GET", iop(m.vcpu, KVM_GET_XSAVE, x), 0);
	x->region[6] = ~0u;
	CHECK_EQ("MXCSR all ones", iop(m.vcpu, KVM_SET_XSAVE, x), 0);
	EXPECT_TRAP(&m, "runs with it", -1);
	CHECK_EQ("GET", iop(m.vcpu, KVM_GET_XSAVE, x), 0);
	CHECK_EQ("MXCSR was masked", x->region[6] & ~0xffffu, 0);
	x->region[128] = x->region[129] = ~0u;
	CHECK_EQ("XSTATE_BV", iop(m.vcpu, KVM_SET_XSAVE, x), -EINVAL);
	memset(x, 0xff, sizeof(*x));
	CHECK_EQ("all ones", iop(m.vcpu, KVM_SET_XSAVE, x), -EINVAL);
	free(x);
	machine_close(&m);
	pending_x87();
}

static void h22_dr7_xcr0(void)
{
	static const uint64_t bad[] = {0, 2, 4, 6, 5, 1ull << 63, ~0ull};
	struct kvm_debugregs d;
	struct machine m;

	mode_open(&m, LONG, GUEST(HLT));
	CHECK_EQ("GET", iop(m.vcpu, KVM_GET_DEBUGREGS, &d), 0);
	d.dr7 |= 1ull << 40;
	CHECK_EQ("DR7", iop(m.vcpu, KVM_SET_DEBUGREGS, &d), -EINVAL);
	d.dr7 = 0x400, d.dr6 = ~0ull;
	CHECK_EQ("DR6", iop(m.vcpu, KVM_SET_DEBUGREGS, &d), -EINVAL);
	for (size_t k = 0; k < COUNT(bad); k++) {
		struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = bad[k]}}};

		CHECK_EQ("XCR0", iop(m.vcpu, KVM_SET_XCRS, &x), -EINVAL);
	}
	machine_close(&m);
}

static void h23_valid_regs(void)
{
	struct machine m;

	machine_open(&m, GUEST(HLT, HLT));
	for (int bit = 3; bit < 64; bit++) {
		m.run->kvm_valid_regs = 1ull << bit;
		CHECK_EQ("valid", vcpu_run(&m), -EINVAL);
		m.run->kvm_valid_regs = 0;
		m.run->kvm_dirty_regs = 1ull << bit;
		CHECK_EQ("dirty", vcpu_run(&m), -EINVAL);
		m.run->kvm_dirty_regs = 0;
	}
	memset(&m.run->s.regs, 0xff, sizeof(m.run->s.regs));
	m.run->kvm_dirty_regs = KVM_SYNC_X86_SREGS;
	CHECK_EQ("sregs all ones", vcpu_run(&m), -EINVAL);
	m.run->kvm_dirty_regs = 0;
	RUN_TO(&m, "still runs", KVM_EXIT_HLT);
	machine_close(&m);
}

static void h24_immediate_exit(void)
{
	struct machine m;

	machine_open(&m, GUEST(0x40, HLT));
	m.run->immediate_exit = 1;
	for (int k = 0; k < 100; k++)
		CHECK_EQ("KVM_RUN", vcpu_run(&m), -EINTR);
	CHECK_EQ("nothing ran", regs_of(&m).rip, CODE);
	m.run->immediate_exit = 0;
	RUN_TO(&m, "then it runs", KVM_EXIT_HLT);
	machine_close(&m);
}

/* ---- the shared page */

static volatile int stop;

/* A VMM thread that has lost its mind; through a mapping of its own. */
static void *scribble(void *arg)
{
	volatile uint8_t *page = arg;
	uint64_t x = 88172645463325252ull;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		for (unsigned int k = 0; k < 64; k++)
			page[(x >> 8) % 12288 / 64 * 64 + k] = x >> (k & 7) * 8;
		page[1] = 0; /* but let it run */
	}
	return NULL;
}

static void h26_shared_page(void)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + many(3000, 400) * 1000000ull, runs = 0;
	void *page;
	struct machine m;
	pthread_t t;

	/* l: out 0x10,al; in ax,0x10; mov [0x9000],ax; mov ax,[0x9002]; rep insb; jmp l */
	machine_open(&m, GUEST(0xe6, 0x10, 0xe5, 0x10, 0xa3, 0x00, 0x90, 0xa1, 0x02, 0x90, 0xb9, 0x40,
			       0, 0xbf, 0, 6, 0xf3, 0x6c, 0xeb, 0xec));
	page = api->mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_SHARED, m.vcpu, 0);
	pthread_create(&t, NULL, scribble, page);
	while (now_ns(CLOCK_MONOTONIC) < end) {
		int r = vcpu_run(&m);

		check(!r || r == -EINVAL || r == -EINTR, "KVM_RUN", r, 0);
		runs++;
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	CHECK_EQ("it ran at all", runs > 100, 1);
	api->munmap(page, 12288);
	machine_close(&m);
	check_neighbour();
}

/* ---- what comes out */

static __attribute__((noinline)) void dirty_stack(int byte)
{
	volatile char s[32768];

	memset((char *)s, byte, sizeof(s));
}

/* Ask twice with other garbage on stack and heap: what is written must be the same. */
static void same_twice(int fd, const struct call *c, size_t size)
{
	uint8_t *a = malloc(size), *b = malloc(size);

	for (int k = 0; k < 2; k++) {
		uint8_t *p = k ? b : a;

		memset(p, k ? 0xaa : 0x55, size);
		memset(p, 0, 16); /* indices, counts */
		mallopt(M_PERTURB, k ? 0x11 : 0xee);
		dirty_stack(k ? 0x11 : 0xee);
		io(fd, c->req, (unsigned long)p);
	}
	for (size_t k = 0; k < size; k++)
		if (a[k] != b[k] && !(a[k] == 0x55 && b[k] == 0xaa))
			check(false, c->name, k, a[k]);
	passed++;
	free(a);
	free(b);
}

static void h27_no_garbage_out(void)
{
	static const struct call out[] = {
		CALL(KVM_GET_REGS), CALL(KVM_GET_SREGS), CALL(KVM_GET_SREGS2), CALL(KVM_GET_FPU),
		CALL(KVM_GET_XSAVE), CALL(KVM_GET_XCRS), CALL(KVM_GET_DEBUGREGS),
		CALL(KVM_GET_VCPU_EVENTS), CALL(KVM_TRANSLATE), CALL(KVM_GET_LAPIC),
		CALL(KVM_GET_MP_STATE),
	};
	static const struct call vm_out[] = {CALL(KVM_GET_IRQCHIP), CALL(KVM_GET_PIT2)};
	struct machine m;

	open_full(&m);
	for (size_t k = 0; k < COUNT(out); k++)
		same_twice(m.vcpu, &out[k], 4096);
	for (size_t k = 0; k < COUNT(vm_out); k++)
		same_twice(m.vm, &vm_out[k], 1024);
	machine_close(&m);
}

static const struct item items[] = {
	ITEM(h18_sregs), ITEM(h19_regs), ITEM(h20_vcpu_events), ITEM(h21_xsave),
	ITEM(h22_dr7_xcr0), ITEM(h23_valid_regs), ITEM(h24_immediate_exit), ITEM(h26_shared_page),
	ITEM(h27_no_garbage_out),
};

HOSTILE_MAIN(items)
