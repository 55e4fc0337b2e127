/* SPDX-License-Identifier: MIT */
/*
 * A small machine for the tests of system instructions: 2 MiB of RAM at 0, a GDT with one
 * descriptor of each kind, an IDT whose handler of vector v is at HANDLER(v), a TSS. In long
 * mode the RAM is identity-mapped by one 2 MiB page that CPL 3 may use.
 */
#ifndef ANYKVM_SYSTEM_TEST_H
#define ANYKVM_SYSTEM_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cpu/system.h"

#define RAM_SIZE (2ul << 20)
#define GDT	 0x1000u
#define IDT	 0x2000u
#define TSS	 0x3000u
#define TSS2	 0x3100u
#define TSS_16	 0x3200u
#define LDT	 0x3400u
#define PAGES	 0x4000u
#define CODE	 0x8000u
#define HANDLER(v) (0x9000u + (v)*16)
#define STACK0	 0x6000u /* RSP0 of the TSS */
#define STACK_IST 0x6800u
#define STACK	 0x7000u /* RSP at start */
#define DATA	 0x10000u

enum sel {
	S_CODE = 0x08, S_DATA = 0x10, S_UCODE = 0x18 | 3, S_UDATA = 0x20 | 3, S_CODE64 = 0x28,
	S_TSS = 0x30, /* 16 bytes in long mode */
	S_CODE16 = 0x40, S_DATA16 = 0x48, S_ABSENT = 0x50, S_CONFORM = 0x58, S_UCODE64 = 0x60 | 3,
	S_RODATA = 0x68, S_XONLY = 0x70, S_TSS2 = 0x78, S_LDT = 0x80, /* 16 bytes */
	S_GATE = 0x90, /* 16 bytes */
	S_DOWN = 0xa0, S_TSS_16 = 0xa8, S_ABSENT_CODE = 0xb0, S_FRESH = 0xb8, S_TASKGATE = 0xc0,
	S_LAST = 0xc8,
};

enum machine_mode { M_REAL, M_PROT, M_LONG, M_V86, M_COMPAT };

struct machine {
	struct cpu cpu;
	struct mem *mem;
	u8 *ram;
	struct env_cpu env;
	struct fault fault;
	u8 tpr;
	u64 tsc;
	unsigned int nmi_unmasked, paging_changed, smm_changed;
	struct insn insn;
};

static struct machine *self(struct cpu *cpu) { return cpu->opaque; }
static int t_irq_ack(struct cpu *cpu) { (void)cpu; return -1; }
static bool t_irq_pending(struct cpu *cpu) { (void)cpu; return false; }
static u8 t_get_tpr(struct cpu *cpu) { return self(cpu)->tpr; }
static void t_set_tpr(struct cpu *cpu, u8 tpr)
{
	if (tpr < self(cpu)->tpr)
		cpu->leave = LEAVE_TPR;
	self(cpu)->tpr = tpr;
}
static enum stop t_rdmsr(struct cpu *cpu, u32 index, u64 *v)
{
	*v = 0x1122334455667788;
	return index == 0x1234 ? STOP_OK : cpu_gp(cpu, 0);
}
static enum stop t_wrmsr(struct cpu *cpu, u32 index, u64 v)
{
	if (index == MSR_TSC)
		self(cpu)->tsc = v;
	return index == MSR_TSC ? STOP_OK : cpu_gp(cpu, 0);
}
static bool t_msr_allowed(struct cpu *cpu, u32 index, bool write)
{
	(void)cpu;
	return index != 0x1235 || !write;
}
static enum stop t_msr_refused(struct cpu *cpu, u32 index, bool write, bool allowed)
{
	if (allowed)
		return STOP_EXC;
	assert_int_equal(index, 0x1235);
	cpu->leave = write ? LEAVE_MSR_WRITE : LEAVE_MSR_READ;
	return STOP_USER;
}
static enum stop t_hypercall(struct cpu *cpu) { cpu->regs[GPR_RAX] = 99; return STOP_OK; }
static u64 t_tsc(struct cpu *cpu, u64 host) { (void)host; return self(cpu)->tsc; }
static void t_paging(struct cpu *cpu) { self(cpu)->paging_changed++; }
static void t_nmi(struct cpu *cpu) { self(cpu)->nmi_unmasked++; }
static void t_smm(struct cpu *cpu) { self(cpu)->smm_changed++; }

static const struct cpu_ops machine_ops = {
	.irq_ack = t_irq_ack, .irq_pending = t_irq_pending, .get_tpr = t_get_tpr,
	.set_tpr = t_set_tpr, .rdmsr = t_rdmsr, .wrmsr = t_wrmsr,
	.msr_allowed = t_msr_allowed, .msr_refused = t_msr_refused, .hypercall = t_hypercall,
	.host_to_guest_tsc = t_tsc, .paging_changed = t_paging, .nmi_unmasked = t_nmi,
	.smm_changed = t_smm,
};

static inline void put16(struct machine *m, u32 at, u16 v) { memcpy(m->ram + at, &v, 2); }
static inline void put32(struct machine *m, u32 at, u32 v) { memcpy(m->ram + at, &v, 4); }
static inline void put64(struct machine *m, u32 at, u64 v) { memcpy(m->ram + at, &v, 8); }
static inline u64 get(struct machine *m, u32 at, u32 size)
{
	u64 v = 0;

	memcpy(&v, m->ram + at, size);
	return v;
}

/* attr: bits 40..55 of the descriptor as in struct segment; limit raw (20 bits). */
static inline u64 raw_desc(u32 base, u32 limit, u16 attr)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)attr << 40 |
		(u64)(limit >> 16 & 15) << 48 | (u64)(base >> 24) << 56;
}
static inline void set_desc(struct machine *m, u16 sel, u64 v) { put64(m, GDT + (sel & ~7), v); }

/* type: of the gate; in long mode 16 bytes. */
static inline void set_gate(struct machine *m, u8 v, u16 sel, u64 off, u8 type, u8 dpl, bool p, u8 ist)
{
	u64 lo = (off & 0xffff) | (u64)sel << 16 | (u64)ist << 32 |
		(u64)(type | dpl << 5 | p << 7) << 40 | (off >> 16 & 0xffff) << 48;

	if (m->cpu.long_mode) {
		put64(m, IDT + v * 16, lo);
		put64(m, IDT + v * 16 + 8, off >> 32);
	} else {
		put64(m, IDT + v * 8, lo);
	}
}

static inline void machine_gdt(struct machine *m)
{
	static const struct {
		u16 sel;
		u64 v;
	} row[] = {
		{S_CODE, 0x00cf9b000000ffff}, {S_DATA, 0x00cf93000000ffff},
		{S_UCODE, 0x00cffb000000ffff}, {S_UDATA, 0x00cff3000000ffff},
		{S_CODE64, 0x00af9b000000ffff}, {S_CODE16, 0x00009b000000ffff},
		{S_DATA16, 0x000093000000ffff}, {S_ABSENT, 0x00cf13000000ffff},
		{S_CONFORM, 0x00cf9f000000ffff}, {S_UCODE64, 0x00affb000000ffff},
		{S_RODATA, 0x00cf91000000ffff}, {S_XONLY, 0x00cf99000000ffff},
		{S_DOWN, 0x0040970000000fff}, {S_ABSENT_CODE, 0x00cf1b000000ffff},
		{S_FRESH, 0x00cf92000000ffff},
	};

	for (unsigned int k = 0; k < ARRAY_SIZE(row); k++)
		set_desc(m, row[k].sel, row[k].v);
	set_desc(m, S_TSS, raw_desc(TSS, 0x67, SEGA_P | DESC_TSS32));
	set_desc(m, S_TSS2, raw_desc(TSS2, 0x67, SEGA_P | DESC_TSS32));
	set_desc(m, S_TSS_16, raw_desc(TSS_16, 0x2b, SEGA_P | DESC_TSS16));
	set_desc(m, S_LDT, raw_desc(LDT, 0x1f, SEGA_P | DESC_LDT));
	m->cpu.gdtr = (struct desc_table){GDT, S_LAST - 1};
}

static inline void machine_tss(struct machine *m)
{
	bool l = m->cpu.long_mode;

	if (l) {
		put64(m, TSS + 4, STACK0);
		put64(m, TSS + 36, STACK_IST);
	} else {
		put32(m, TSS + 4, STACK0);
		put16(m, TSS + 8, S_DATA);
	}
	m->cpu.tr = (struct segment){.sel = S_TSS, .attr = SEGA_P | DESC_TSS32_BUSY, .limit = 0x67,
		.base = TSS};
	set_desc(m, S_TSS, raw_desc(TSS, 0x67, SEGA_P | DESC_TSS32_BUSY));
}

static inline void machine_idt(struct machine *m)
{
	bool l = m->cpu.long_mode;

	for (unsigned int v = 0; v < 64; v++) {
		if (cpu_real(&m->cpu))
			put32(m, v * 4, HANDLER(v) & 0xffff);
		else
			set_gate(m, v, l ? S_CODE64 : S_CODE, HANDLER(v), DESC_INT32, 0, true, 0);
	}
	m->cpu.idtr = cpu_real(&m->cpu) ? (struct desc_table){0, 0x3ff}
					: (struct desc_table){IDT, 64 * (l ? 16 : 8) - 1};
}

static inline void machine_seg(struct machine *m, enum seg s, u16 sel)
{
	struct desc d = {get(m, GDT + (sel & ~7), 8), 0};

	m->cpu.seg[s] = seg_from_desc(sel, &d);
}

/* All segments for privilege level cpl of the mode. */
static inline void machine_cpl(struct machine *m, enum machine_mode mode, u8 cpl)
{
	u16 data = cpl ? S_UDATA : S_DATA;
	u16 code = mode == M_LONG ? (cpl ? S_UCODE64 : S_CODE64) : cpl ? S_UCODE : S_CODE;

	for (unsigned int s = 0; s < NR_SEGS; s++)
		machine_seg(m, s, s == SEG_CS ? code : data);
	cpu_update(&m->cpu);
}

static inline void machine_mode(struct machine *m, enum machine_mode mode)
{
	struct cpu *cpu = &m->cpu;

	cpu_reset(cpu, false);
	memset(m->ram, 0, DATA + 0x1000);
	cpu->rip = CODE;
	cpu->regs[GPR_RSP] = STACK;
	cpu->seg[SEG_CS].sel = cpu->seg[SEG_CS].base = 0;
	cpu->cr0 = CR0_ET;
	if (mode != M_REAL)
		cpu->cr0 |= CR0_PE | CR0_NE;
	if (mode == M_LONG || mode == M_COMPAT) {
		cpu->cr0 |= CR0_PG;
		cpu->cr3 = PAGES;
		cpu->cr4 = CR4_PAE;
		cpu->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
		put64(m, PAGES, (PAGES + 0x1000) | 7);
		put64(m, PAGES + 0x1000, 0x87); /* one 1 GiB page */
	}
	cpu_update_paging(cpu, false);
	if (mode != M_REAL)
		machine_gdt(m);
	if (mode != M_REAL)
		machine_tss(m);
	machine_idt(m);
	if (mode == M_V86) {
		cpu_set_eflags(cpu, EFL_ONE | EFL_VM | EFL_IF);
		for (unsigned int s = 0; s < NR_SEGS; s++)
			cpu->seg[s] = seg_real(cpu, &cpu->seg[s], s == SEG_CS ? 0 : s << 4);
		cpu->seg[SEG_SS] = seg_real(cpu, &cpu->seg[SEG_SS], 0);
		cpu_update(cpu);
	} else if (mode != M_REAL) {
		machine_cpl(m, mode, 0);
	}
	env_cpu_init(&m->env, cpu, &m->fault);
}

static inline struct machine *machine_create(void)
{
	struct machine *m = NULL;

	assert_int_equal(posix_memalign((void **)&m, 64, sizeof(*m)), 0);
	memset(m, 0, sizeof(*m));
	assert_int_equal(posix_memalign((void **)&m->ram, PAGE_SIZE, RAM_SIZE), 0);
	memset(m->ram, 0, RAM_SIZE);
	m->mem = mem_create();
	assert_non_null(m->mem);
	assert_int_equal(mem_set_slot(m->mem, 0, 0, 0, gpa(0), RAM_SIZE, m->ram), 0);
	assert_int_equal(cpu_init(&m->cpu, m->mem, &machine_ops, m), 0);
	assert_int_equal(mmu_attach(&m->cpu.mmu), 0);
	memset(m->cpu.features, 1, sizeof(m->cpu.features));
	return m;
}

static inline void machine_destroy(struct machine *m)
{
	mmu_detach(&m->cpu.mmu);
	cpu_free(&m->cpu);
	mem_destroy(m->mem);
	free(m->ram);
	free(m);
}

/* Decode and run the instruction in `bytes` at cpu->rip; RIP moves if it retires. */
static inline enum stop machine_exec(struct machine *m, const char *bytes, unsigned int n)
{
	struct cpu *cpu = &m->cpu;

	memset(&m->insn, 0, sizeof(m->insn));
	assert_int_equal(insn_decode(&m->insn, cpu->mode, (const u8 *)bytes, n), DECODE_OK);
	assert_int_equal(m->insn.len, n);
	env_cpu_init(&m->env, cpu, &m->fault);
	return cpu_exec(cpu, &m->insn, &m->env.env);
}
#define EXEC(m, bytes) machine_exec(m, bytes, sizeof(bytes) - 1)

/* The exception that stopped the last instruction. */
#define ASSERT_EXC(m, stop, vec, err)                               \
	do {                                                        \
		assert_int_equal(stop, STOP_EXC);                   \
		assert_int_equal((m)->cpu.exc.vector, vec);         \
		if ((m)->cpu.exc.has_error)                         \
			assert_int_equal((m)->cpu.exc.error, err);  \
	} while (0)

static struct machine *m;

static inline int machine_setup(void **state)
{
	(void)state;
	m = machine_create();
	return 0;
}
static inline int machine_teardown(void **state)
{
	(void)state;
	machine_destroy(m);
	return 0;
}
#define RUN_TESTS(tests) \
	cmocka_run_group_tests(tests, machine_setup, machine_teardown)

#endif
