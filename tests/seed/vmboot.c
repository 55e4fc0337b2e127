// SPDX-License-Identifier: MIT
/* See vmguest.h: how a guest is set up: page tables of every kind, descriptors, registers. */
#include "vmguest.h"

#define PAGE 4096ul

#define PML5 0x1000ul
#define PML4 0x2000ul
#define PDPT 0x3000ul
#define PD   0x4000ul
#define PT   0xb000ul /* of the lowest memory, where it is needed in 4K pages */

static void put64(struct vm *vm, uint64_t at, uint64_t v)
{
	memcpy(vm->m.ram + at, &v, 8);
}

static void put32(struct vm *vm, uint64_t at, uint32_t v)
{
	memcpy(vm->m.ram + at, &v, 4);
}

/* ---- page tables */

static void map_pages(struct vm *vm)
{
	const struct seed_page *p;

	for (p = seed_pages; p < seed_pages + NR_SEED_PAGES; p++)
		if (vm->cpu_mode == LEGACY)
			put32(vm, PT_HIGH + (p->linear >> 12 & 0x3ff) * 4, p->gpa | p->flags);
		else
			put64(vm, PT_HIGH + (p->linear >> 12 & 511) * 8, p->gpa | p->flags);
}

/* The first gigabyte is itself by 2M pages; the second has the pages of layout.h. */
static void tables_64(struct vm *vm)
{
	put64(vm, PML5, PML4 | 7);
	put64(vm, PML4, PDPT | 7);
	put64(vm, PDPT, PD | 7);
	put64(vm, PDPT + 8, vm->cpu_mode == LONG_1G ? 0xc0000083 : PD_HIGH | 7);
	put64(vm, PD, 0x83);
	put64(vm, PD_HIGH, PT_HIGH | 7);
	map_pages(vm);
}

static void low_4k(struct vm *vm, unsigned int size)
{
	for (unsigned int k = 0; k < 512; k++)
		if (size == 8)
			put64(vm, PT + 8 * k, k * PAGE | 3);
		else
			put32(vm, PT + 4 * k, k * PAGE | 3);
}

static void tables_pae(struct vm *vm)
{
	put64(vm, PDPT, PD | 1);
	put64(vm, PDPT + 8, PD_HIGH | 1);
	put64(vm, PD, PT | 7);
	low_4k(vm, 8);
	put64(vm, PD_HIGH, vm->cpu_mode == PAE_2M ? DEV_GPA | 0x83 : PT_HIGH | 7);
	map_pages(vm);
}

static void tables_legacy(struct vm *vm)
{
	put32(vm, PD, PT | 7);
	low_4k(vm, 4);
	put32(vm, PD + 4 * 0x100, vm->cpu_mode == LEGACY_4M ? DEV_GPA | 0x83 : PT_HIGH | 7);
	map_pages(vm);
}

static bool is_long(enum cpu_mode m)
{
	return m <= COMPAT;
}

static uint64_t make_tables(struct vm *vm)
{
	switch (vm->cpu_mode) {
	case LONG64:
	case LA57:
	case LONG_1G:
	case COMPAT:
		tables_64(vm);
		return vm->cpu_mode == LA57 ? PML5 : PML4;
	case PAE:
	case PAE_2M:
		tables_pae(vm);
		return PDPT;
	case LEGACY:
	case LEGACY_4M:
		tables_legacy(vm);
		return PD;
	case REAL:
		break;
	}
	return 0;
}

/* ---- descriptors */

#define SEL_CODE64 0x08
#define SEL_DATA   0x10
#define SEL_CODE32 0x18
#define SEL_TSS	   0x20

static void gate(struct vm *vm, unsigned int v)
{
	uint64_t at = TRAPS + 16 * v;

	if (is_long(vm->cpu_mode)) /* 64-bit interrupt gate, IST 1 */
		put64(vm, IDT + 16 * v, (at & 0xffff) | SEL_CODE64 << 16 | 0x8e01ul << 32 |
			at >> 16 << 48);
	else if (vm->cpu_mode == REAL)
		put32(vm, 4 * v, at);
	else
		put64(vm, IDT + 8 * v, (at & 0xffff) | SEL_CODE32 << 16 | 0x8e00ul << 32 |
			at >> 16 << 48);
}

static void make_descriptors(struct vm *vm)
{
	static const uint64_t gdt[] = {
		0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff,
		0x00008b0000000067 | TSS << 16, 0,
		0x00affb000000ffff, /* 0x30: CPL 3, 64-bit code */
		0x00cff3000000ffff, /* 0x38: data */
		0x00cffb000000ffff, /* 0x40: 32-bit code */
	};

	if (vm->cpu_mode != REAL)
		memcpy(vm->m.ram + GDT, gdt, sizeof(gdt));
	put32(vm, TSS + 4, IST);     /* ESP0, or RSP0 in the long form */
	put32(vm, TSS + 8, is_long(vm->cpu_mode) ? 0 : SEL_DATA);
	put32(vm, TSS + 36, is_long(vm->cpu_mode) ? IST : 0);
	for (unsigned int v = 0; v < 32; v++) {
		gate(vm, v);
		memcpy(vm->m.ram + TRAPS + 16 * v, "\xe6\xf1\xf4", 3); /* out %al, $0xf1; hlt */
	}
}

static struct kvm_segment code_segment(enum cpu_mode m)
{
	bool wide = is_long(m) && m != COMPAT;

	return (struct kvm_segment){.limit = ~0u, .selector = wide ? SEL_CODE64 : SEL_CODE32,
		.type = 11, .present = 1, .s = 1, .l = wide, .db = !wide, .g = 1};
}

static void protected_segments(struct kvm_sregs *s, enum cpu_mode m)
{
	struct kvm_segment data = {.limit = ~0u, .selector = SEL_DATA, .type = 3, .present = 1,
		.s = 1, .db = 1, .g = 1};

	s->cs = code_segment(m);
	s->ds = s->es = s->fs = s->gs = s->ss = data;
	s->tr = (struct kvm_segment){.base = TSS, .limit = 0x67, .selector = SEL_TSS, .type = 11,
		.present = 1};
	s->gdt.base = GDT;
	s->gdt.limit = 9 * 8 - 1;
	s->idt.base = IDT;
	s->idt.limit = 32 * 16 - 1;
}

#define CR0_PROT 0x80010033 /* PG WP NE ET MP PE */
#define CR4_ALL	 0x40600 /* OSXSAVE OSXMMEXCPT OSFXSR */
#define CR4_PSE_ 0x10
#define CR4_PAE_ 0x20
#define CR4_LA57_ 0x1000
#define EFER_LONG 0xd01 /* NXE LMA LME SCE */

static struct kvm_segment real_segment(uint64_t base)
{
	return (struct kvm_segment){.base = base, .limit = 0xffff, .selector = base >> 4, .type = 3,
		.present = 1, .s = 1};
}

/* RAM below 512 KiB; above it the pages of real.def. */
static void real_mode(struct vm *vm, struct kvm_sregs *s)
{
	static const uint64_t ram[] = {0x83000, 0x88000, 0x8c000};

	set_slot(&vm->m, 0, 0, 0, 0, vm->m.ram);
	set_slot(&vm->m, 0, 0, 0, REAL_BASE, vm->m.ram);
	for (unsigned int k = 0; k < 3; k++)
		set_slot(&vm->m, 6 + k, 0, ram[k], 2 * PAGE, vm->m.ram + ram[k]);
	set_slot(&vm->m, 9, KVM_MEM_READONLY, 0x86000, PAGE, vm->m.ram + 0x86000);
	for (unsigned int k = 0; k < 0x10000; k++)
		vm->m.ram[REAL_BASE + k] = seed_pattern(k);
	s->cs = real_segment(CODE);
	s->cs.type = 11;
	s->ds = s->es = s->ss = real_segment(REAL_BASE);
	s->fs = real_segment(G_IOA);
	s->cr4 = CR4_ALL;
	s->idt.base = 0;
	s->idt.limit = 0x3ff;
}

static void set_sregs_of_mode(struct vm *vm)
{
	struct kvm_sregs s = sregs_of(&vm->m);
	enum cpu_mode m = vm->cpu_mode;

	s.cr3 = make_tables(vm);
	s.cr4 = CR4_ALL | (m == LEGACY || m == LEGACY_4M ? CR4_PSE_ : CR4_PAE_) |
		(m == LA57 ? CR4_LA57_ : 0);
	if (m == REAL) {
		real_mode(vm, &s);
	} else {
		protected_segments(&s, m);
		s.cr0 = CR0_PROT;
		s.efer = is_long(m) ? EFER_LONG : 0;
	}
	set_sregs(&vm->m, &s);
}

/* ---- registers */

static void set_vectors(struct vm *vm)
{
	struct kvm_xsave x;
	uint8_t *p = (uint8_t *)&x;
	struct kvm_xcrs xcr0 = {.nr_xcrs = 1, .xcrs[0].value = 7};

	must(api->ioctl(vm->m.vcpu, KVM_SET_XCRS, &xcr0), "SET_XCRS");
	must(api->ioctl(vm->m.vcpu, KVM_GET_XSAVE, &x), "GET_XSAVE");
	for (unsigned int k = 0; k < 256; k++) {
		p[160 + k] = seed_pattern(k + 7);
		p[576 + k] = seed_pattern(k + 300);
	}
	p[512] = 7;
	must(api->ioctl(vm->m.vcpu, KVM_SET_XSAVE, &x), "SET_XSAVE");
}

static void set_registers(struct vm *vm)
{
	uint64_t p = 0x1122334455667788;
	struct kvm_regs r = {
		.rax = p, .rcx = 2 * p, .rbx = 4 * p, .rbp = 6 * p, .rsi = 7 * p, .rdi = 8 * p,
		.r8 = 9 * p, .r9 = 10 * p, .r10 = 11 * p, .r11 = 12 * p, .r12 = 13 * p,
		.r13 = 14 * p, .r14 = 15 * p, .r15 = 16 * p,
		.rdx = 0x3f8, .rsp = vm->cpu_mode == REAL ? 0xc800 : 0x4000c800,
		.rip = CODE, .rflags = 2,
	};

	if (!is_long(vm->cpu_mode) || vm->cpu_mode == COMPAT)
		for (__u64 *q = &r.rax; q <= &r.r15; q++)
			*q = (uint32_t)*q;
	if (vm->cpu_mode == REAL)
		r.rip = 0;
	set_regs(&vm->m, &r);
}

/* All that the library offers, and LA57 and PKU, which it has. */
static void set_cpuid(struct vm *vm)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));

	c->nent = 256;
	must(api->ioctl(vm->m.sys, KVM_GET_SUPPORTED_CPUID, c), "GET_SUPPORTED_CPUID");
	for (unsigned int k = 0; k < c->nent; k++)
		if (c->entries[k].function == 7 && c->entries[k].index == 0)
			c->entries[k].ecx |= 1 << 16 | 1 << 3;
	must(api->ioctl(vm->m.vcpu, KVM_SET_CPUID2, c), "SET_CPUID2");
	free(c);
}

struct vm *vm_open(enum gpa_mode mode, enum cpu_mode cpu_mode, bool chip)
{
	static const char *const env[] = {"off", "on", "verify"};
	struct vm *vm = calloc(1, sizeof(*vm));

	setenv("ANYKVM_GPA", env[mode], 1);
	vm->gpa_mode = mode;
	vm->cpu_mode = cpu_mode;
	machine_create(&vm->m, RAM_SIZE, chip);
	vm->stats = must(api->ioctl(vm->m.vcpu, KVM_GET_STATS_FD, 0), "GET_STATS_FD");
	vm->dev = pages(DEV_SIZE);
	vm->rom = pages(PAGE);
	for (unsigned int k = 0; k < DEV_SIZE; k++)
		vm->dev[k] = seed_pattern(k);
	for (unsigned int k = 0x180000; k < 0x1b0000; k++)
		vm->m.ram[k] = seed_pattern(k + 3);
	memcpy(vm->rom, vm->dev + (G_ROM - DEV_GPA), PAGE);
	set_slot(&vm->m, 3, KVM_MEM_READONLY, G_ROM, PAGE, vm->rom);
	set_cpuid(vm);
	make_descriptors(vm);
	set_sregs_of_mode(vm);
	set_registers(vm);
	set_vectors(vm);
	return vm;
}

void vm_load_code(struct vm *vm, const uint8_t *code, size_t n)
{
	memcpy(vm->m.ram + CODE, code, n);
}

void vm_user(struct vm *vm)
{
	struct kvm_sregs s = sregs_of(&vm->m);
	struct kvm_regs r = regs_of(&vm->m);
	bool wide = s.cs.l;

	r.rflags |= 0x3000; /* IOPL 3: STOP works */
	set_regs(&vm->m, &r);
	*(uint64_t *)(vm->m.ram + PD) |= is_long(vm->cpu_mode) ? SEED_U : 0;
	if (!is_long(vm->cpu_mode))
		for (unsigned int k = CODE >> 12; k < (CODE >> 12) + 2; k++)
			vm->m.ram[PT + k * (vm->cpu_mode == LEGACY ? 4 : 8)] |= SEED_U;
	s.cs.dpl = s.ss.dpl = 3;
	s.cs.selector = wide ? 0x33 : 0x43;
	s.ds.dpl = s.es.dpl = 3;
	s.ss.selector = s.ds.selector = s.es.selector = 0x3b;
	set_sregs(&vm->m, &s);
}
