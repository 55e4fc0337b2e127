/* SPDX-License-Identifier: MIT */
/*
 * A guest with 4 MiB of RAM in any mode of the processor. All exceptions lead to a HLT of
 * their own at TRAPS + 16 * vector, so that RIP says which one it was.
 *
 *	0x0000 IVT          0x2000 GDT, 0x2800 TSS, 0x2a00 PAE's PDPT, 0x3000 IDT (64-bit), 0x3800 IDT (32-bit)
 *	0x4000 PML4, PDPT, PD: 1 GiB identity-mapped, the first 2 MiB by the page table at 0x7000
 *	0x8000 TRAPS        0x10000 code    0x80000 stack    0x90000 stack of the handlers
 *	0x100000 data       MMIO above 4 MiB
 */
#ifndef TESTS_MODES_H
#define TESTS_MODES_H

#include "hostile.h"

#define BIG    (4u << 20)
#define GDT    0x2000u
#define TSS    0x2800u
#define PDPT_PAE 0x2a00u
#define IDT64  0x3000u
#define IDT32  0x3800u
#define PML4   0x4000u
#define PDPT   0x5000u
#define PD     0x6000u
#define PT     0x7000u
#define TRAPS  0x8000u
#define TEXT   0x10000u
#define STACK  0x80000u
#define IST    0x90000u
#define DATA   0x100000u
#define MMIO   0x20000000u
#define HOLE   0x00400000u

enum mode { REAL, PROT16, PROT32, V86, LONG, LONG_USER, PAE32 };

#define SEL_CODE64 0x08
#define SEL_DATA   0x10
#define SEL_CODE32 0x18
#define SEL_CODE16 0x20
#define SEL_UDATA  0x2b
#define SEL_UCODE  0x33
#define SEL_UCODE32 0x3b
#define SEL_TSS    0x40

/* Code as text, in 16, 32 or 64 bits: CODE_TEXT(name, 64, "mov %eax, %ebx; hlt") */
#define CODE_TEXT(name, bits, text)                                                  \
	extern const uint8_t name##_code[], name##_end[];                            \
	asm(".pushsection .rodata\n.code" #bits "\n" #name "_code:\n" text "\n" #name \
	    "_end:\n.code64\n.popsection");
#define TEXT_OF(name) name##_code, (size_t)(name##_end - name##_code)

static inline void put64(struct machine *m, uint64_t at, uint64_t v)
{
	memcpy(m->ram + at, &v, 8);
}

static inline uint64_t get64(struct machine *m, uint64_t at)
{
	uint64_t v;

	memcpy(&v, m->ram + at, 8);
	return v;
}

/* The page-table entry of an address below 2 MiB; changes need no flush before the first run. */
static inline void set_pte(struct machine *m, uint64_t gva, uint64_t entry)
{
	put64(m, PT + (gva >> 12) * 8, entry);
}

static inline void make_tables(struct machine *m)
{
	static const uint64_t gdt[] = {
		0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff, 0x00009b000000ffff,
		0x00cff3000000ffff, 0x00affb000000ffff, 0x00cffb000000ffff,
		0x00008b0000000067 | (uint64_t)TSS << 16, 0,
	};

	memcpy(m->ram + GDT, gdt, sizeof(gdt));
	put64(m, PML4, PDPT | 7);
	put64(m, PDPT, PD | 7);
	put64(m, PDPT_PAE, PD | 1);
	for (unsigned int k = 1; k < 512; k++)
		put64(m, PD + 8 * k, k << 21 | 0x87ull);
	put64(m, PD, PT | 7);
	for (unsigned int k = 0; k < 512; k++)
		put64(m, PT + 8 * k, k << 12 | 7);
	for (unsigned int v = 0; v < 32; v++) {
		uint64_t at = TRAPS + 16 * v;

		m->ram[at] = HLT;
		put64(m, IDT64 + 16 * v, (at & 0xffff) | SEL_CODE64 << 16 | 0xee01ull << 32);
		put64(m, IDT32 + 8 * v, (at & 0xffff) | SEL_CODE32 << 16 | 0xee00ull << 32);
		memcpy(m->ram + 4 * v, &(uint32_t){at}, 4);
	}
	put64(m, TSS + 36, IST); /* IST1; bytes 4 and 8 of a 32-bit TSS: ESP0 and SS0 */
	memset(m->ram + TSS + 102, 0xff, 2); /* no I/O permission bitmap */
	put64(m, TSS + 4, IST | (uint64_t)SEL_DATA << 32);
}

static inline struct kvm_segment segment(uint16_t sel, uint8_t type, uint8_t dpl, bool db, bool l)
{
	return (struct kvm_segment){.selector = sel, .limit = 0xffffffff, .type = type, .present = 1,
				    .dpl = dpl, .s = 1, .db = db, .l = l, .g = 1};
}

static inline struct kvm_segment v86_segment(void)
{
	return (struct kvm_segment){.limit = 0xffff, .type = 3, .present = 1, .dpl = 3, .s = 1};
}

static inline void set_segments(struct kvm_sregs *s, struct kvm_segment cs, struct kvm_segment data)
{
	s->cs = cs;
	s->ds = s->es = s->fs = s->gs = s->ss = data;
}

static inline void set_paging(struct kvm_sregs *s, bool wide)
{
	s->cr0 |= 1u << 31;
	s->cr3 = wide ? PML4 : PDPT_PAE;
	s->cr4 |= 1 << 5;
	if (wide)
		s->efer |= 0xd01; /* NXE LMA LME SCE */
}

static inline void mode_sregs(struct kvm_sregs *s, enum mode mode)
{
	bool wide = mode == LONG || mode == LONG_USER;

	s->cr4 |= 3 << 9; /* OSFXSR, OSXMMEXCPT */
	if (mode == REAL) {
		s->cs.base = s->cs.selector = 0;
		return;
	}
	s->cr0 = 0x33; /* PE MP ET NE */
	s->gdt.base = GDT;
	s->gdt.limit = 0x4f;
	s->idt.base = wide ? IDT64 : IDT32;
	s->idt.limit = wide ? 0x1ff : 0xff;
	s->tr = (struct kvm_segment){.base = TSS, .limit = 0x67, .selector = SEL_TSS, .type = 11,
				     .present = 1};
	if (mode == LONG)
		set_segments(s, segment(SEL_CODE64, 11, 0, 0, 1), segment(SEL_DATA, 3, 0, 1, 0));
	else if (mode == LONG_USER)
		set_segments(s, segment(SEL_UCODE, 11, 3, 0, 1), segment(SEL_UDATA, 3, 3, 1, 0));
	else if (mode == V86)
		set_segments(s, v86_segment(), v86_segment());
	else if (mode == PROT16)
		set_segments(s, segment(SEL_CODE16, 11, 0, 0, 0), segment(SEL_DATA, 3, 0, 0, 0));
	else
		set_segments(s, segment(SEL_CODE32, 11, 0, 1, 0), segment(SEL_DATA, 3, 0, 1, 0));
	if (wide || mode == PAE32)
		set_paging(s, wide);
}

static inline void mode_cpuid(struct machine *m)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));

	c->nent = 256;
	must(api->ioctl(sys, KVM_GET_SUPPORTED_CPUID, c), "GET_SUPPORTED_CPUID");
	must(api->ioctl(m->vcpu, KVM_SET_CPUID2, c), "SET_CPUID2");
	free(c);
}

/* Set or reset the one vCPU to the start of its program. */
static inline void mode_start(struct machine *m, enum mode mode)
{
	struct kvm_regs r = {.rip = TEXT, .rflags = mode == V86 ? 0x20002 : 2, .rsp = STACK};
	struct kvm_vcpu_events e = {0};
	static struct kvm_sregs reset;
	struct kvm_sregs s;

	if (!reset.cr0)
		must(api->ioctl(m->vcpu, KVM_GET_SREGS, &reset), "GET_SREGS");
	s = reset;
	mode_sregs(&s, mode);
	if (mode == REAL || mode == V86)
		r.rip = CODE, r.rsp = 0xf000;
	must(api->ioctl(m->vcpu, KVM_SET_VCPU_EVENTS, &e), "SET_VCPU_EVENTS");
	must(api->ioctl(m->vcpu, KVM_SET_SREGS, &s), "SET_SREGS");
	must(api->ioctl(m->vcpu, KVM_SET_REGS, &r), "SET_REGS");
}

static inline void mode_load(struct machine *m, const void *code, size_t n)
{
	memcpy(m->ram + TEXT, code, n);
	memcpy(m->ram + CODE, code, n > 0x1000 ? 0x1000 : n);
}

/* chip: with in-kernel irqchip (then HLT waits and the end of a program is OUT to port 0xf4). */
static inline void mode_open(struct machine *m, enum mode mode, const void *code, size_t n)
{
	machine_vm(m, BIG);
	make_tables(m);
	mode_load(m, code, n);
	machine_add_vcpu(m);
	mode_cpuid(m);
	mode_start(m, mode);
}

/* The exception whose handler the guest halted in, or -1. */
static inline int trap_of(struct machine *m)
{
	uint64_t rip = regs_of(m).rip - 1;

	if (m->run->exit_reason != KVM_EXIT_HLT || rip < TRAPS || rip >= TRAPS + 32 * 16)
		return -1;
	return (rip - TRAPS) / 16;
}

/* Run to the HLT at the end or to an exception's; exits are answered with 0xff. */
static inline int run_to_halt(struct machine *m, int exits)
{
	while (exits--) {
		int r = run_for(m, SANITIZED ? 10000 : 1000);

		if (r)
			return r;
		if (m->run->exit_reason == KVM_EXIT_MMIO)
			memset(m->run->mmio.data, 0xff, 8);
		else if (m->run->exit_reason != KVM_EXIT_IO)
			return 0;
	}
	return -ELOOP;
}

#define EXPECT_TRAP(m, what, vector)                                     \
	do {                                                             \
		CHECK_EQ(what ": KVM_RUN", run_to_halt(m, 1000), 0);     \
		CHECK_EQ(what ": exit", (m)->run->exit_reason, KVM_EXIT_HLT); \
		CHECK_EQ(what ": exception", trap_of(m), vector);        \
	} while (0)

/* One program in a machine of its own; it must halt by itself (-1) or in this exception. */
static inline void trap_case(const char *what, enum mode mode, const void *code, size_t n, int vector)
{
	struct machine m;
	int r;

	mode_open(&m, mode, code, n);
	r = run_to_halt(&m, 1000);
	check(!r, what, r, 0);
	check(m.run->exit_reason == KVM_EXIT_HLT, what, m.run->exit_reason, KVM_EXIT_HLT);
	check(trap_of(&m) == vector, what, trap_of(&m), vector);
	machine_close(&m);
}

/* Long mode with all interrupt chips, whose pages are mapped. */
static inline void open_chips(struct machine *m, const void *code, size_t n)
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

#endif
