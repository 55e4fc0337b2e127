// SPDX-License-Identifier: MIT
/* Control registers, MSRs, CPUID, debug registers: what is allowed (TESTING 57, 61, 79; SDM 3A 2.5). */
#include "cpu/debug.h"
#include "cpu/system_test.h"

/* A table with all that the tests need: AMD, MSR TSC, RDRAND, LM NX SYSCALL RDTSCP, FSGSBASE SMEP SMAP, PCID, PKU, 46 bits. */
static struct cpuid_entry table[] = {
	{.leaf = 0, .eax = 0xd, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
	{.leaf = 1, .eax = 0xa20f10, .ecx = 1 << 17 | 1 << 26 | 1 << 30,
	 .edx = 1 << 4 | 1 << 5 | 1 << 9 | 1 << 25},
	{.leaf = 7, .has_subleaf = true, .ebx = 1 << 0 | 1 << 7 | 1 << 20, .ecx = 1 << 3},
	{.leaf = 0xb, .has_subleaf = true, .subleaf = 0, .ecx = 0x100, .edx = 5},
	{.leaf = 0xb, .has_subleaf = true, .subleaf = 1, .ecx = 0x201, .edx = 5},
	{.leaf = 0xd, .has_subleaf = true, .eax = 7},
	{.leaf = 0xd, .has_subleaf = true, .subleaf = 1, .eax = 0xf},
	{.leaf = 0xd, .has_subleaf = true, .subleaf = 2, .eax = 256, .ebx = 576},
	{.leaf = 0xd, .has_subleaf = true, .subleaf = 9, .eax = 8, .ebx = 1024},
	{.leaf = 0x80000000, .eax = 0x80000008},
	{.leaf = 0x80000001, .edx = 1 << 11 | 1 << 20 | 1 << 27 | 1 << 29},
	{.leaf = 0x80000008, .eax = 46},
};

#define PKRU_ENTRY 8

static void with_table(void)
{
	m->cpu.cpuid = table;
	m->cpu.nr_cpuid = ARRAY_SIZE(table);
	cpu_set_features(&m->cpu);
}

struct cr_row {
	enum machine_mode mode;
	u8 cr;
	u64 v;
	bool ok;
	const char *why;
};

#define BASE0 (CR0_PE | CR0_ET)
#define LONG0 (BASE0 | CR0_PG)

static const struct cr_row crs[] = {
	{M_PROT, 0, BASE0 | CR0_WP | CR0_NE, true, "plain"},
	{M_PROT, 0, BASE0 | CR0_NW, false, "NW without CD"},
	{M_PROT, 0, CR0_PG | CR0_ET, false, "PG without PE"},
	{M_LONG, 0, LONG0 | BIT(40), false, "upper half"},
	{M_LONG, 0, BASE0, false, "leave paging in 64-bit mode"},
	{M_LONG, 3, 0x3fffffffff000, false, "CR3 above MAXPHYADDR"},
	{M_LONG, 3, PAGES | 0x18, true, "CR3 with PWT, PCD"},
	{M_LONG, 3, PAGES | BIT(63), false, "no-flush bit without PCIDE"},
	{M_LONG, 4, 0, false, "clear PAE in long mode"},
	{M_LONG, 4, CR4_PAE | CR4_LA57, false, "LA57 toggled in long mode"},
	{M_LONG, 4, CR4_PAE | CR4_SMEP | CR4_SMAP, true, "SMEP SMAP"},
	{M_LONG, 4, CR4_PAE | CR4_UMIP, false, "not in CPUID"},
	{M_LONG, 4, CR4_PAE | BIT(13), false, "VMXE"},
	{M_LONG, 4, CR4_PAE | BIT(40), false, "reserved"},
	{M_LONG, 4, CR4_PAE | CR4_PCIDE, true, "PCIDE"},
	{M_PROT, 4, CR4_PCIDE, false, "PCIDE outside long mode"},
	{M_LONG, 8, 15, true, "TPR"},
	{M_LONG, 8, 16, false, "TPR of 5 bits"},
};

static u64 cr_value(unsigned int n)
{
	struct cpu *cpu = &m->cpu;

	return n == 0 ? cpu->cr0 : n == 3 ? cpu->cr3 : n == 4 ? cpu->cr4 : m->tpr;
}

static void control_registers(void **state)
{
	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(crs); k++) {
		const struct cr_row *r = &crs[k];
		char code[4] = {0x0f, 0x22, 0xc0 | (r->cr & 7) << 3, 0};
		char wide[5] = {0x44, 0x0f, 0x22, 0xc0, 0};
		u64 before;
		enum stop stop;

		print_message("  CR%u %s\n", r->cr, r->why);
		machine_mode(m, r->mode);
		with_table();
		before = cr_value(r->cr);
		m->cpu.regs[GPR_RAX] = r->v;
		stop = r->cr == 8 ? machine_exec(m, wide, 4) : machine_exec(m, code, 3);
		if (r->ok) {
			assert_int_equal(stop, STOP_OK);
			assert_int_equal(cr_value(r->cr), r->v);
		} else {
			ASSERT_EXC(m, stop, EXC_GP, 0);
			assert_int_equal(cr_value(r->cr), before);
		}
	}
}

/* The way into long mode and out (SDM 3A 9.8.5, 9.8.5.4). */
static void long_mode_switch(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_PROT);
	with_table();
	put64(m, PAGES, (PAGES + 0x1000) | 7);
	put64(m, PAGES + 0x1000, 0x87);
	assert_int_equal(cpu_wrmsr(cpu, MSR_EFER, EFER_LME), STOP_OK);
	assert_int_equal(control_set_cr3(cpu, PAGES), STOP_OK);
	assert_int_equal(control_set_cr0(cpu, LONG0), STOP_EXC); /* no PAE */
	assert_int_equal(control_set_cr4(cpu, CR4_PAE), STOP_OK);
	assert_int_equal(control_set_cr0(cpu, LONG0), STOP_OK);
	assert_true(cpu->long_mode);
	assert_int_equal(cpu->mode, MODE_32);
	assert_int_equal(cpu->efer, EFER_LME | EFER_LMA);
	assert_int_equal(cpu_wrmsr(cpu, MSR_EFER, 0), STOP_EXC); /* LME with paging on */
	assert_int_equal(control_set_cr0(cpu, BASE0), STOP_OK);
	assert_false(cpu->long_mode);
	assert_int_equal(cpu->efer, EFER_LME);
}

/* SDM 3A 4.4.1: reserved bits of a PDPTE refuse the MOV; nothing has changed then. */
static void pae_pdptes(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_PROT);
	with_table();
	put64(m, PAGES, (PAGES + 0x1000) | 1);
	put64(m, PAGES + 0x1000, 0x83);
	assert_int_equal(control_set_cr4(cpu, CR4_PAE), STOP_OK);
	assert_int_equal(control_set_cr3(cpu, PAGES), STOP_OK);
	assert_int_equal(control_set_cr0(cpu, LONG0), STOP_OK);
	assert_int_equal(cpu->mmu.paging.pdptr[0], (PAGES + 0x1000) | 1);
	put64(m, PAGES + 0x20, 0x1e7); /* W, U, A... are reserved here */
	ASSERT_EXC(m, control_set_cr3(cpu, PAGES + 0x20), EXC_GP, 0);
	assert_int_equal(cpu->cr3, PAGES);
	assert_int_equal(cpu->mmu.paging.pdptr[0], (PAGES + 0x1000) | 1);
}

static void machine_status_word(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_REAL);
	cpu->regs[GPR_RAX] = 0xfff1;
	assert_int_equal(EXEC(m, "\x0f\x01\xf0"), STOP_OK); /* LMSW ax */
	assert_int_equal(cpu->cr0, CR0_PE | CR0_ET);
	cpu->regs[GPR_RAX] = 0xe;
	assert_int_equal(EXEC(m, "\x0f\x01\xf0"), STOP_OK);
	assert_int_equal(cpu->cr0, CR0_PE | CR0_ET | 0xe); /* PE stays */
	assert_int_equal(EXEC(m, "\x0f\x06"), STOP_OK);
	assert_int_equal(cpu->cr0, CR0_PE | CR0_ET | 6);
	machine_mode(m, M_PROT);
	machine_cpl(m, M_PROT, 3);
	assert_int_equal(EXEC(m, "\x0f\x01\xe0"), STOP_OK); /* SMSW eax */
	assert_int_equal(cpu->regs[GPR_RAX], cpu->cr0);
	cpu->cr4 |= CR4_UMIP;
	ASSERT_EXC(m, EXEC(m, "\x0f\x01\xe0"), EXC_GP, 0);
	cpu->regs[GPR_RBX] = DATA;
	ASSERT_EXC(m, EXEC(m, "\x0f\x01\x03"), EXC_GP, 0); /* SGDT */
	ASSERT_EXC(m, EXEC(m, "\x0f\x00\xc8"), EXC_GP, 0); /* STR */
}

static void task_priority(void **state)
{
	(void)state;
	machine_mode(m, M_LONG);
	m->tpr = 8;
	m->cpu.regs[GPR_RAX] = 3;
	assert_int_equal(EXEC(m, "\x44\x0f\x22\xc0"), STOP_LEAVE);
	assert_int_equal(m->cpu.leave, LEAVE_TPR);
	assert_int_equal(m->cpu.rip, CODE + 4);
	assert_int_equal(EXEC(m, "\x44\x0f\x20\xc3"), STOP_OK);
	assert_int_equal(m->cpu.regs[GPR_RBX], 3);
}

/* ---- MSRs ---- */

static void msrs(void **state)
{
	static const struct {
		u32 index;
		u64 v;
		bool ok;
	} row[] = {
		{MSR_LSTAR, 0xffffffff81000000, true}, {MSR_LSTAR, 0x8000000000000000, false},
		{MSR_SYSENTER_EIP, 0x0000800000000000, false}, {MSR_STAR, ~0ull, true},
		{MSR_FS_BASE, 0xf23456789abc, false}, {MSR_FS_BASE, 0x7fffffffffff, true},
		{MSR_GS_BASE, 0xffff888000000000, true}, {MSR_KERNEL_GS_BASE, 1ull << 50, false},
		{MSR_PAT, 0x0007040600070406, true}, {MSR_PAT, 2, false}, {MSR_PAT, 3, false},
		{MSR_PAT, 0x08, false}, {MSR_EFER, EFER_LME | EFER_SCE | EFER_NXE, true},
		{MSR_EFER, BIT(1), false}, {MSR_EFER, EFER_SVME, false},
		{MSR_EFER, EFER_SCE, false}, {MSR_TSC_AUX, 1ull << 32, false}, {0x48, 1, false},
		{0x49, 1, false}, {MSR_TSC, 77, true}, {0x5678, 0, false},
	};
	struct cpu *cpu = &m->cpu;
	u64 rip;

	(void)state;
	machine_mode(m, M_LONG);
	with_table();
	for (unsigned int k = 0; k < ARRAY_SIZE(row); k++) {
		cpu->regs[GPR_RCX] = row[k].index | 0xabcd00000000;
		cpu->regs[GPR_RAX] = row[k].v | (row[k].v & ~0xffffffffull);
		cpu->regs[GPR_RDX] = row[k].v >> 32;
		if (!row[k].ok) {
			ASSERT_EXC(m, EXEC(m, "\x0f\x30"), EXC_GP, 0);
			continue;
		}
		assert_int_equal(EXEC(m, "\x0f\x30"), STOP_OK);
		assert_int_equal(EXEC(m, "\x0f\x32"), STOP_OK);
		if (row[k].index == MSR_EFER)
			assert_int_equal(cpu->regs[GPR_RAX], row[k].v | EFER_LMA);
		else
			assert_int_equal(cpu->regs[GPR_RAX] | cpu->regs[GPR_RDX] << 32, row[k].v);
	}
	cpu->regs[GPR_RCX] = 0x1235;
	rip = cpu->rip;
	assert_int_equal(EXEC(m, "\x0f\x30"), STOP_USER);
	assert_int_equal(cpu->leave, LEAVE_MSR_WRITE);
	assert_int_equal(cpu->leave_msr, 0x1235);
	assert_int_equal(cpu->rip, rip);
}

static void swapgs(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_LONG);
	cpu->seg[SEG_GS].base = 1;
	cpu->kernel_gs_base = 0xffff888000000000;
	assert_int_equal(EXEC(m, "\x0f\x01\xf8"), STOP_OK);
	assert_int_equal(cpu->ea_base[SEG_GS], 0xffff888000000000);
	assert_int_equal(cpu->kernel_gs_base, 1);
	cpu->regs[GPR_RAX] = 0x1234;
	ASSERT_EXC(m, EXEC(m, "\xf3\x48\x0f\xae\xd0"), EXC_UD, 0); /* WRFSBASE without CR4 */
	cpu->cr4 |= CR4_FSGSBASE;
	assert_int_equal(EXEC(m, "\xf3\x48\x0f\xae\xd0"), STOP_OK);
	assert_int_equal(cpu->ea_base[SEG_FS], 0x1234);
	cpu->regs[GPR_RAX] = BIT(63);
	ASSERT_EXC(m, EXEC(m, "\xf3\x48\x0f\xae\xd0"), EXC_GP, 0);
}

/* ---- CPUID ---- */

static void cpuid_answers(void **state)
{
	struct cpu *cpu = &m->cpu;
	u32 v[4];

	(void)state;
	machine_mode(m, M_LONG);
	with_table();
	cpu_cpuid(cpu, 1, 0, v);
	assert_int_equal(v[2], table[1].ecx);
	cpu->cr4 |= CR4_OSXSAVE | CR4_PKE;
	cpu_cpuid(cpu, 1, 0, v);
	assert_int_equal(v[2], table[1].ecx | 1 << 27);
	cpu_cpuid(cpu, 7, 0, v);
	assert_int_equal(v[2], 1 << 3 | 1 << 4);
	cpu_cpuid(cpu, 0xd, 0, v);
	assert_int_equal(v[1], 576); /* XCR0 = 1 */
	cpu->xcr0 = 7;
	cpu_cpuid(cpu, 0xd, 0, v);
	assert_int_equal(v[1], 832);
	cpu->xcr0 = 0x207;
	cpu_cpuid(cpu, 0xd, 0, v);
	assert_int_equal(v[1], 1032);
	cpu_cpuid(cpu, 0xd, 1, v); /* compacted: no gap */
	assert_int_equal(v[1], 840);
	table[PKRU_ENTRY].ebx = 0; /* QEMU's on a host without protection keys */
	cpu_cpuid(cpu, 0xd, 9, v);
	assert_int_equal(v[0], 8);
	assert_in_range(v[1], 832, 4088);
	cpu_cpuid(cpu, 0xd, 0, v);
	assert_in_range(v[1], 840, 4096);
	table[PKRU_ENTRY].ebx = 1024;
	cpu_cpuid(cpu, 0xb, 2, v); /* no such level: the processor's id all the same */
	assert_int_equal(v[0] | v[1], 0);
	assert_int_equal(v[2], 2);
	assert_int_equal(v[3], 5);
	cpu_cpuid(cpu, 0x12345, 0, v); /* AMD: nothing */
	assert_int_equal(v[0] | v[1] | v[2] | v[3], 0);
	table[0].ebx = 0x756e6547, table[0].edx = 0x49656e69, table[0].ecx = 0x6c65746e;
	cpu_cpuid(cpu, 0x12345, 2, v); /* Intel: the highest basic leaf */
	assert_int_equal(v[0], 256);
	cpu_cpuid(cpu, 0x80000005, 0, v); /* inside its class: absent is 0 */
	assert_int_equal(v[0], 0);
	table[0].ebx = 0x68747541, table[0].edx = 0x69746e65, table[0].ecx = 0x444d4163;
	assert_true(cpu->features[CPUF_SMAP] && cpu->features[CPUF_XSAVES]);
	assert_false(cpu->features[CPUF_AVX]);
	assert_int_equal(cpu_maxphyaddr(cpu), 46);
}

/* ---- debug registers ---- */

static void debug_registers(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_LONG);
	cpu->regs[GPR_RAX] = 0xffffffff;
	assert_int_equal(EXEC(m, "\x0f\x23\xf8"), STOP_OK); /* DR7 */
	assert_int_equal(cpu->dr7, 0xffff2fff);
	assert_true(cpu->request & REQ_STEP);
	ASSERT_EXC(m, EXEC(m, "\x0f\x21\xf8"), EXC_DB, 0); /* GD */
	assert_int_equal(cpu->exc.payload, DR6_BD);
	cpu->dr7 = DR7_FIXED;
	assert_int_equal(EXEC(m, "\x0f\x23\xe0"), STOP_OK); /* DR4 is DR6 */
	assert_int_equal(cpu->dr6, 0xffffeffful & ~0x1000ul);
	cpu->cr4 |= CR4_DE;
	ASSERT_EXC(m, EXEC(m, "\x0f\x23\xe0"), EXC_UD, 0);
	cpu->regs[GPR_RAX] = BIT(32);
	ASSERT_EXC(m, EXEC(m, "\x0f\x23\xf8"), EXC_GP, 0);
	machine_cpl(m, M_LONG, 3);
	ASSERT_EXC(m, EXEC(m, "\x0f\x21\xf8"), EXC_GP, 0);
}

static void breakpoints(void **state)
{
	static struct cpuid_entry intel = {.leaf = 0, .eax = 1, .ebx = 0x756e6547, .edx = 0x49656e69,
		.ecx = 0x6c65746e};
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_LONG);
	cpu->dr[0] = CODE;		 /* execute */
	cpu->dr[1] = DATA;		 /* write 4 */
	cpu->dr[2] = DATA + 8;		 /* access 8 */
	cpu->dr7 = DR7_FIXED | 0x15 | 0xdull << 20 | 0xbull << 24;
	ASSERT_EXC(m, debug_check_fetch(cpu), EXC_DB, 0);
	cpu->shadow_ss = true; /* of MOV SS */
	assert_int_equal(debug_check_fetch(cpu), STOP_EXC);
	cpu->cpuid = &intel;
	cpu->nr_cpuid = 1;
	assert_int_equal(debug_check_fetch(cpu), STOP_OK);
	cpu->cpuid = table;
	cpu->nr_cpuid = ARRAY_SIZE(table);
	cpu->shadow_ss = false;
	assert_int_equal(cpu->exc.payload, 1);
	cpu->eflags |= EFL_RF;
	assert_int_equal(debug_check_fetch(cpu), STOP_OK);
	assert_int_equal(debug_check_data(cpu, gva(DATA), 4, false), 0);
	assert_int_equal(debug_check_data(cpu, gva(DATA + 3), 1, true), 2);
	assert_int_equal(debug_check_data(cpu, gva(DATA + 4), 8, false), 4);
	assert_int_equal(debug_check_data(cpu, gva(DATA + 3), 6, true), 6);
	assert_int_equal(debug_check_data(cpu, gva(DATA + 16), 8, true), 0);
}

/* TSD, TSC_AUX, hypercall: small ones. */
static void small_ones(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_LONG);
	m->tsc = 0x123456789a;
	cpu->tsc_aux = 7;
	assert_int_equal(EXEC(m, "\x0f\x01\xf9"), STOP_OK);
	assert_int_equal(cpu->regs[GPR_RAX], 0x3456789a);
	assert_int_equal(cpu->regs[GPR_RDX], 0x12);
	assert_int_equal(cpu->regs[GPR_RCX], 7);
	assert_int_equal(EXEC(m, "\x0f\x01\xd9"), STOP_OK); /* VMMCALL */
	assert_int_equal(cpu->regs[GPR_RAX], 99);
	assert_int_equal(EXEC(m, "\xf4"), STOP_LEAVE);
	assert_int_equal(cpu->leave, LEAVE_HLT);
	assert_int_equal(EXEC(m, "\x48\x0f\xc7\xf0"), STOP_OK); /* RDRAND */
	assert_int_equal(cpu->fl & FI_CF, FI_CF);
	machine_cpl(m, M_LONG, 3);
	cpu->cr4 |= CR4_TSD;
	ASSERT_EXC(m, EXEC(m, "\x0f\x31"), EXC_GP, 0);
	ASSERT_EXC(m, EXEC(m, "\x0f\x01\xcb"), EXC_UD, 0); /* STAC at CPL 3 */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(control_registers), cmocka_unit_test(long_mode_switch),
		cmocka_unit_test(pae_pdptes), cmocka_unit_test(machine_status_word),
		cmocka_unit_test(task_priority), cmocka_unit_test(msrs), cmocka_unit_test(swapgs),
		cmocka_unit_test(cpuid_answers), cmocka_unit_test(debug_registers),
		cmocka_unit_test(breakpoints), cmocka_unit_test(small_ones),
	};

	return RUN_TESTS(tests);
}
