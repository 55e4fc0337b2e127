/* SPDX-License-Identifier: MIT */
/*
 * A 64-bit guest for unit tests of cpu/: 4 MiB of RAM, identity-mapped by 2 MiB pages (and
 * once more at ALIAS), flat segments, CPL 0, no devices. Code is written as asm text:
 *
 *	GUEST(add, "mov $1, %eax; add $2, %eax; hlt")
 *	struct guest *g = guest_create(); guest_load(g, add); guest_run(g) == LEAVE_HLT
 */
#ifndef ANYKVM_GUEST_TEST_H
#define ANYKVM_GUEST_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "cpu/cpu.h"

#define RAM_SIZE   (4ul << 20)
#define CODE	   0x10000ul
#define STACK	   0x80000ul
#define DATA	   0x100000ul
#define PAGES	   0x2000ul
#define ALIAS	   0xffff800000000000ul /* second mapping of the same RAM */

#define GUEST(name, text)                                                           \
	extern const u8 name##_code[], name##_end[];                                \
	asm(".pushsection .rodata\n" #name "_code:\n" text "\n" #name "_end:\n"     \
	    ".popsection");
#define guest_load(g, name) memcpy((g)->ram + CODE, name##_code, name##_end - name##_code)

struct guest {
	struct cpu cpu;
	struct mem *mem;
	u8 *ram;
	struct cpu_exit exit;
	int irq; /* vector to be taken by the next irq_ack, or -1 */
};

static int guest_irq_ack(struct cpu *cpu)
{
	struct guest *g = cpu->opaque;
	int v = g->irq;

	g->irq = -1;
	return v;
}
static bool guest_irq_pending(struct cpu *cpu)
{
	return ((struct guest *)cpu->opaque)->irq >= 0;
}
static u8 guest_get_tpr(struct cpu *cpu)
{
	(void)cpu;
	return 0;
}
static void guest_set_tpr(struct cpu *cpu, u8 tpr)
{
	(void)cpu, (void)tpr;
}
static enum stop guest_rdmsr(struct cpu *cpu, u32 index, u64 *value)
{
	(void)index, (void)value;
	return cpu_gp(cpu, 0);
}
static enum stop guest_wrmsr(struct cpu *cpu, u32 index, u64 value)
{
	(void)index, (void)value;
	return cpu_gp(cpu, 0);
}
static enum stop guest_hypercall(struct cpu *cpu)
{
	return cpu_ud(cpu);
}
static u64 guest_tsc(struct cpu *cpu, u64 host)
{
	(void)cpu;
	return host;
}
static bool guest_msr_allowed(struct cpu *cpu, u32 index, bool write)
{
	(void)cpu, (void)index, (void)write;
	return true;
}
static enum stop guest_msr_refused(struct cpu *cpu, u32 index, bool write, bool allowed)
{
	(void)cpu, (void)index, (void)write, (void)allowed;
	return STOP_EXC;
}
static void guest_nothing(struct cpu *cpu)
{
	(void)cpu;
}

static const struct cpu_ops guest_ops = {
	.irq_ack = guest_irq_ack,
	.irq_pending = guest_irq_pending,
	.get_tpr = guest_get_tpr,
	.set_tpr = guest_set_tpr,
	.rdmsr = guest_rdmsr,
	.wrmsr = guest_wrmsr,
	.msr_allowed = guest_msr_allowed,
	.msr_refused = guest_msr_refused,
	.hypercall = guest_hypercall,
	.host_to_guest_tsc = guest_tsc,
	.paging_changed = guest_nothing,
	.nmi_unmasked = guest_nothing,
	.smm_changed = guest_nothing,
};

/* Tables at PAGES: PML4, PDPT, PD; both PML4 slots 0 and 256 lead to the same RAM. */
static void guest_map(struct guest *g)
{
	u64 *pml4 = (u64 *)(g->ram + PAGES), *pdpt = pml4 + 512, *pd = pdpt + 512;

	pml4[0] = pml4[256] = (PAGES + 0x1000) | 7;
	pdpt[0] = (PAGES + 0x2000) | 7;
	pd[0] = 0x83 | 4;
	pd[1] = 0x200000 | 0x83 | 4;
}

static void guest_long_mode(struct cpu *cpu)
{
	for (unsigned int s = 0; s < NR_SEGS; s++)
		cpu->seg[s] = (struct segment){.sel = 0x10, .attr = 0xc093, .limit = ~0u};
	cpu->seg[SEG_CS] = (struct segment){.sel = 8, .attr = 0xa09b, .limit = ~0u};
	cpu->cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_ET | CR0_MP;
	cpu->cr3 = PAGES;
	cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
	cpu->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
	cpu->rip = CODE;
	cpu->regs[GPR_RSP] = STACK;
	cpu_set_eflags(cpu, EFL_ONE);
	cpu_update_paging(cpu, false);
}

static inline struct guest *guest_create(void)
{
	struct guest *g = NULL;

	assert_int_equal(posix_memalign((void **)&g, 64, sizeof(*g)), 0);
	memset(g, 0, sizeof(*g));
	g->irq = -1;
	g->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(g->ram, MAP_FAILED);
	g->mem = mem_create();
	assert_int_equal(mem_set_slot(g->mem, 0, 0, 0, gpa(0), RAM_SIZE, g->ram), 0);
	assert_int_equal(cpu_init(&g->cpu, g->mem, &guest_ops, g), 0);
	memset(g->cpu.features, 1, sizeof(g->cpu.features));
	guest_map(g);
	assert_int_equal(cpu_attach(&g->cpu), 0);
	guest_long_mode(&g->cpu);
	return g;
}

static inline void guest_destroy(struct guest *g)
{
	cpu_detach(&g->cpu);
	cpu_free(&g->cpu);
	mem_destroy(g->mem);
	munmap(g->ram, RAM_SIZE);
	free(g);
}

static inline enum cpu_leave guest_run(struct guest *g)
{
	do
		cpu_run(&g->cpu, &g->exit);
	while (g->exit.reason == LEAVE_NONE);
	return g->exit.reason;
}

#endif
