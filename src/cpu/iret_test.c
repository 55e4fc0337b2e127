// SPDX-License-Identifier: MIT
/* IRET, far RET, JMP and CALL, SYSCALL and its kin: what is loaded, and every refusal (TESTING 61, 64, 67). */
#include "cpu/system_test.h"

/* Put n items of `size` bytes at the stack pointer. */
static void stack_items(u32 size, unsigned int n, const u64 *v)
{
	u32 sp = STACK - 64;

	m->cpu.regs[GPR_RSP] = sp;
	for (unsigned int k = 0; k < n; k++)
		memcpy(m->ram + sp + k * size, &v[k], size);
}

struct iret_row {
	const char *what;
	enum machine_mode mode;
	u8 cpl;
	const char *code;
	u8 size;	/* of an item */
	u64 v[5];	/* rip cs flags rsp ss */
	int vector;	/* -1: it works */
	u32 error;
	u64 eflags;	/* after */
};

#define F(x) ((x) | EFL_ONE)

static const struct iret_row irets[] = {
	{"real", M_REAL, 0, "\xcf", 2, {0x1234, 0x100, F(EFL_IF | EFL_CF)}, -1, 0, F(EFL_IF | EFL_CF)},
	{"same level", M_PROT, 0, "\xcf", 4, {0x1234, S_CODE, F(EFL_IF | EFL_RF)}, -1, 0,
		F(EFL_IF | EFL_RF)},
	{"outer", M_PROT, 0, "\xcf", 4, {0x1234, S_UCODE, F(EFL_IF | EFL_IOPL), 0x5000, S_UDATA}, -1, 0,
		F(EFL_IF | EFL_IOPL)},
	{"CPL 3 keeps IF and IOPL", M_PROT, 3, "\xcf", 4, {0x1234, S_UCODE, F(EFL_IF | EFL_IOPL | EFL_AC)},
		-1, 0, F(EFL_AC)},
	{"null CS", M_PROT, 0, "\xcf", 4, {0, 0, F(0)}, EXC_GP, 0, 0},
	{"CS is data", M_PROT, 0, "\xcf", 4, {0, S_DATA, F(0)}, EXC_GP, S_DATA, 0},
	{"to an inner level", M_PROT, 3, "\xcf", 4, {0, S_CODE, F(0)}, EXC_GP, S_CODE, 0},
	{"CS not present", M_PROT, 0, "\xcf", 4, {0, S_ABSENT_CODE, F(0)}, EXC_NP, S_ABSENT_CODE, 0},
	{"outer, SS wrong level", M_PROT, 0, "\xcf", 4, {0, S_UCODE, F(0), 0, S_DATA}, EXC_GP, S_DATA, 0},
	{"outer, null SS", M_PROT, 0, "\xcf", 4, {0, S_UCODE, F(0), 0, 0}, EXC_GP, 0, 0},
	{"EIP beyond the limit", M_PROT, 0, "\xcf", 4, {0x10000, S_CODE16, F(0)}, EXC_GP, 0, 0},
	{"long, same level", M_LONG, 0, "\x48\xcf", 8, {0x1234, S_CODE64, F(EFL_IF), 0x5008, S_DATA}, -1, 0,
		F(EFL_IF)},
	{"long, null SS", M_LONG, 0, "\x48\xcf", 8, {0x1234, S_CODE64, F(EFL_IF), 0x5008, 0}, -1, 0,
		F(EFL_IF)},
	{"long, to CPL 3", M_LONG, 0, "\x48\xcf", 8,
		{0x1234, S_UCODE64, F(EFL_IF | EFL_TF | EFL_ID), 0x5008, S_UDATA}, -1, 0,
		F(EFL_IF | EFL_TF | EFL_ID)},
	{"long, to compatibility", M_LONG, 0, "\x48\xcf", 8, {0x1234, S_UCODE, F(EFL_IF), 0x5008, S_UDATA},
		-1, 0, F(EFL_IF)},
	{"long, to compatibility, null SS", M_LONG, 0, "\x48\xcf", 8, {0x1234, S_CODE, F(0), 0, 0}, EXC_GP, 0,
		0},
	{"long, not canonical", M_LONG, 0, "\x48\xcf", 8,
		{0x800000000000, S_UCODE64, F(0), 0, S_UDATA}, EXC_GP, 0, 0},
	{"long, no SS for CPL 3", M_LONG, 0, "\x48\xcf", 8, {0, S_UCODE64, F(0), 0, 3}, EXC_GP, 0, 0},
	{"V86 below IOPL 3", M_V86, 3, "\xcf", 2, {0x1234, 0x100, F(0)}, EXC_GP, 0, 0},
};

static void iret_refused(const struct iret_row *r, enum stop stop)
{
	struct cpu *cpu = &m->cpu;

	ASSERT_EXC(m, stop, r->vector, r->error);
	assert_int_equal(cpu->rip, CODE);
	assert_int_equal(cpu->regs[GPR_RSP], STACK - 64);
}

static void iret_done(const struct iret_row *r, enum stop stop)
{
	struct cpu *cpu = &m->cpu;
	bool stack = r->mode == M_LONG || (r->mode == M_PROT && (r->v[1] & 3) != r->cpl);

	assert_int_equal(stop, STOP_OK);
	assert_int_equal(cpu->rip, r->v[0]);
	assert_int_equal(cpu->seg[SEG_CS].sel, r->v[1]);
	assert_int_equal(cpu_eflags(cpu), r->eflags);
	if (r->mode == M_REAL)
		return;
	assert_int_equal(cpu->cpl, r->v[1] & 3);
	assert_int_equal(cpu->regs[GPR_RSP], stack ? r->v[3] : STACK - 64 + 3 * r->size);
	if (stack)
		assert_int_equal(cpu->seg[SEG_SS].sel, r->v[4]);
	if (cpu->cpl > r->cpl) /* SDM 3A 5.8.6: DS of the inner level is gone */
		assert_true(cpu->seg[SEG_DS].unusable && cpu->seg[SEG_DS].sel == 0);
}

static void iret_forms(void **state)
{
	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(irets); k++) {
		const struct iret_row *r = &irets[k];
		enum stop stop;

		print_message("  %s\n", r->what);
		machine_mode(m, r->mode);
		if (r->cpl && r->mode != M_V86)
			machine_cpl(m, r->mode, r->cpl);
		stack_items(r->size, 5, r->v);
		m->cpu.nmi_blocked = true;
		stop = machine_exec(m, r->code, strlen(r->code));
		if (r->vector >= 0)
			iret_refused(r, stop);
		else
			iret_done(r, stop);
		assert_int_equal(m->cpu.nmi_blocked, r->vector >= 0);
	}
}

/*
 * Selector and rights of GS go, its base stays: code at CPL 3 may use what WRMSR put there
 * (SDM 3A 5.8.6 names the selector alone; so do the processors of both vendors).
 */
static void iret_keeps_base(void **state)
{
	struct segment *gs = &m->cpu.seg[SEG_GS];

	(void)state;
	machine_mode(m, M_LONG);
	*gs = m->cpu.seg[SEG_DS];
	gs->base = 0x400000;
	cpu_update(&m->cpu);
	stack_items(8, 5, (u64[]){0x1234, S_UCODE64, F(0), 0x5008, S_UDATA});
	assert_int_equal(EXEC(m, "\x48\xcf"), STOP_OK);
	assert_true(gs->unusable && gs->sel == 0);
	assert_int_equal(gs->base, 0x400000);
}

/* A 16-bit stack leaves bits 31..16 of ESP alone, the way Linux' espfix knows it. */
static void iret_to_16bit_stack(void **state)
{
	(void)state;
	machine_mode(m, M_PROT);
	set_desc(m, S_FRESH, 0x0000f3000000ffff);
	stack_items(4, 5, (u64[]){0x10, S_UCODE, F(0), 0x12345678, S_FRESH | 3});
	m->cpu.regs[GPR_RSP] = STACK - 64;
	assert_int_equal(EXEC(m, "\xcf"), STOP_OK);
	assert_int_equal(m->cpu.regs[GPR_RSP], 0x5678);
}

static void iret_nt_in_long_mode(void **state)
{
	(void)state;
	machine_mode(m, M_LONG);
	m->cpu.eflags |= EFL_NT;
	ASSERT_EXC(m, EXEC(m, "\x48\xcf"), EXC_GP, 0);
}

/* ---- far transfers ---- */

struct far_row {
	const char *what;
	enum machine_mode mode;
	u8 cpl;
	u16 sel; /* of the far pointer */
	int vector;
	u32 error;
	u8 new_cpl;
};

static const struct far_row fars[] = {
	{"real", M_REAL, 0, 0x1000, -1, 0, 0},
	{"same level", M_PROT, 0, S_CODE, -1, 0, 0},
	{"conforming from CPL 3", M_PROT, 3, S_CONFORM, -1, 0, 3},
	{"RPL above CPL", M_PROT, 0, S_CODE | 1, EXC_GP, S_CODE, 0},
	{"outer level", M_PROT, 0, S_UCODE, EXC_GP, S_UCODE & ~3, 0},
	{"inner level", M_PROT, 3, S_CODE, EXC_GP, S_CODE, 3},
	{"null", M_PROT, 0, 0, EXC_GP, 0, 0},
	{"data", M_PROT, 0, S_DATA, EXC_GP, S_DATA, 0},
	{"beyond the GDT", M_PROT, 0, 0x800, EXC_GP, 0x800, 0},
	{"not present", M_PROT, 0, S_ABSENT_CODE, EXC_NP, S_ABSENT_CODE, 0},
	{"64-bit, same level", M_LONG, 0, S_CODE64, -1, 0, 0},
	{"64-bit to compatibility", M_LONG, 0, S_CODE, -1, 0, 0},
	{"64-bit: TSS", M_LONG, 0, S_TSS, EXC_GP, S_TSS, 0},
};

/* FF /5 and FF /3 with a pointer at DATA. */
static void far_pointer(const struct far_row *r, bool call)
{
	struct cpu *cpu = &m->cpu;
	u32 osz = r->mode == M_REAL ? 2 : 4;
	u16 cs = cpu->seg[SEG_CS].sel;
	const char *code;
	enum stop stop;

	if (r->mode == M_REAL)
		code = call ? "\xff\x1f" : "\xff\x2f"; /* [bx] */
	else
		code = call ? "\xff\x1b" : "\xff\x2b"; /* [rbx] */
	cpu->regs[GPR_RBX] = r->mode == M_REAL ? 0x8800 : DATA;
	put32(m, cpu->regs[GPR_RBX], 0x2345);
	put16(m, cpu->regs[GPR_RBX] + osz, r->sel);
	stop = machine_exec(m, code, 2);
	if (r->vector >= 0) {
		ASSERT_EXC(m, stop, r->vector, r->error);
		assert_int_equal(cpu->rip, CODE);
		assert_int_equal(cpu->regs[GPR_RSP], STACK);
		return;
	}
	assert_int_equal(stop, STOP_OK);
	assert_int_equal(cpu->rip, 0x2345);
	assert_int_equal(cpu->seg[SEG_CS].sel, r->mode == M_REAL ? r->sel : (r->sel & ~3) | r->new_cpl);
	assert_int_equal(cpu->cpl, r->new_cpl);
	assert_int_equal(cpu->regs[GPR_RSP], STACK - (call ? 2 * osz : 0));
	if (call) {
		assert_int_equal(get(m, STACK - 2 * osz, osz), CODE + 2);
		assert_int_equal(get(m, STACK - osz, osz), cs);
	}
}

static void far_jumps_and_calls(void **state)
{
	(void)state;
	for (unsigned int k = 0; k < 2 * ARRAY_SIZE(fars); k++) {
		const struct far_row *r = &fars[k / 2];

		print_message("  %s\n", r->what);
		machine_mode(m, r->mode);
		if (r->cpl)
			machine_cpl(m, r->mode, r->cpl);
		far_pointer(r, k & 1);
	}
}

/* A 32-bit call gate to CPL 0 with two parameters, and RETF 8 back (SDM 3A 5.8.5, 5.8.6). */
static void call_gate_with_parameters(void **state)
{
	struct cpu *cpu = &m->cpu;
	u32 sp = STACK0 - 6 * 4;

	(void)state;
	machine_mode(m, M_PROT);
	machine_cpl(m, M_PROT, 3);
	set_desc(m, S_GATE, 0x4321 | (u64)S_CODE << 16 | 2ull << 32 | (u64)(DESC_CALL32 | 0xe0) << 40);
	put32(m, STACK, 0x11111111);
	put32(m, STACK + 4, 0x22222222);
	assert_int_equal(EXEC(m, "\x9a\0\0\0\0\x93\0"), STOP_OK);
	assert_int_equal(cpu->cpl, 0);
	assert_int_equal(cpu->rip, 0x4321);
	assert_int_equal(cpu->regs[GPR_RSP], sp);
	assert_int_equal(get(m, sp, 4), CODE + 7);
	assert_int_equal(get(m, sp + 4, 4), S_UCODE);
	assert_int_equal(get(m, sp + 8, 4), 0x11111111);
	assert_int_equal(get(m, sp + 12, 4), 0x22222222);
	assert_int_equal(get(m, sp + 16, 4), STACK);
	assert_int_equal(get(m, sp + 20, 4), S_UDATA);
	assert_int_equal(EXEC(m, "\xca\x08\x00"), STOP_OK);
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(cpu->rip, CODE + 7);
	assert_int_equal(cpu->regs[GPR_RSP], STACK + 8);
	assert_int_equal(cpu->seg[SEG_DS].sel, S_UDATA);
	/* DPL of the gate */
	set_desc(m, S_GATE, 0x4321 | (u64)S_CODE << 16 | (u64)(DESC_CALL32 | 0x80) << 40);
	ASSERT_EXC(m, EXEC(m, "\x9a\0\0\0\0\x93\0"), EXC_GP, S_GATE);
}

/* APM 2 4.8.3: 16 bytes, 64-bit target, SS becomes null. */
static void call_gate_in_long_mode(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_LONG);
	machine_cpl(m, M_LONG, 3);
	set_desc(m, S_GATE, 0x4321 | (u64)S_CODE64 << 16 | (u64)(DESC_CALL32 | 0xe0) << 40);
	set_desc(m, S_GATE + 8, 0);
	put32(m, DATA, 0);
	put16(m, DATA + 4, S_GATE | 3);
	cpu->regs[GPR_RBX] = DATA;
	assert_int_equal(EXEC(m, "\xff\x1b"), STOP_OK);
	assert_int_equal(cpu->rip, 0x4321);
	assert_int_equal(cpu->cpl, 0);
	assert_true(cpu->seg[SEG_SS].unusable);
	assert_int_equal(cpu->regs[GPR_RSP], STACK0 - 32);
	assert_int_equal(get(m, STACK0 - 32, 8), CODE + 2);
	assert_int_equal(get(m, STACK0 - 16, 8), STACK);
	assert_int_equal(EXEC(m, "\x48\xcb"), STOP_OK);
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(cpu->regs[GPR_RSP], STACK);
	assert_int_equal(cpu->mode, MODE_64);
}

/* ---- fast system calls ---- */

static void syscall_and_back(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_LONG);
	machine_cpl(m, M_LONG, 3);
	cpu->star = (u64)(S_UCODE & ~3) << 48 | (u64)S_CODE64 << 32;
	cpu->lstar = 0xffffffff81000000;
	cpu->fmask = EFL_IF | EFL_TF | EFL_AC;
	cpu_set_eflags(cpu, F(EFL_IF | EFL_AC | EFL_CF | EFL_RF));
	assert_int_equal(EXEC(m, "\x0f\x05"), STOP_OK);
	assert_int_equal(cpu->rip, cpu->lstar);
	assert_int_equal(cpu->regs[GPR_RCX], CODE + 2);
	assert_int_equal(cpu->regs[GPR_R11], F(EFL_IF | EFL_AC | EFL_CF));
	assert_int_equal(cpu_eflags(cpu), F(EFL_CF));
	assert_int_equal(cpu->seg[SEG_CS].sel, S_CODE64);
	assert_int_equal(cpu->seg[SEG_SS].sel, S_CODE64 + 8);
	assert_int_equal(cpu->cpl, 0);
	assert_int_equal(cpu->mode, MODE_64);

	cpu->regs[GPR_R11] = F(EFL_IF | EFL_TF | EFL_VM | EFL_RF | EFL_ZF);
	assert_int_equal(EXEC(m, "\x48\x0f\x07"), STOP_OK);
	assert_int_equal(cpu->rip, CODE + 2);
	assert_int_equal(cpu_eflags(cpu), F(EFL_IF | EFL_TF | EFL_ZF));
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(cpu->seg[SEG_CS].sel, S_UCODE + 16);
	assert_int_equal(cpu->seg[SEG_SS].sel, S_UCODE + 8);

	cpu->efer &= ~EFER_SCE;
	ASSERT_EXC(m, EXEC(m, "\x0f\x05"), EXC_UD, 0);
	machine_mode(m, M_REAL);
	ASSERT_EXC(m, EXEC(m, "\x0f\x05"), EXC_UD, 0);
}

static void sysret_to_compatibility(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_LONG);
	cpu->star = (u64)(S_UCODE & ~3) << 48;
	cpu->regs[GPR_RCX] = 0xabcd12345678;
	assert_int_equal(EXEC(m, "\x0f\x07"), STOP_OK);
	assert_int_equal(cpu->rip, 0x12345678);
	assert_int_equal(cpu->mode, MODE_32);
	assert_int_equal(cpu->seg[SEG_CS].sel, S_UCODE);
	ASSERT_EXC(m, EXEC(m, "\x0f\x07"), EXC_GP, 0); /* CPL 3 */
}

/* SYSRET's return address is checked by Intel only; SYSENTER is there in long mode on Intel only. */
static void vendors_differ(void **state)
{
	static struct cpuid_entry intel = {.leaf = 0, .eax = 1, .ebx = 0x756e6547, .edx = 0x49656e69,
		.ecx = 0x6c65746e};
	struct cpu *cpu = &m->cpu;

	(void)state;
	for (unsigned int is_intel = 0; is_intel < 2; is_intel++) {
		machine_mode(m, M_LONG);
		cpu->cpuid = &intel;
		cpu->nr_cpuid = is_intel;
		cpu->regs[GPR_RCX] = 0x800000000000;
		assert_int_equal(EXEC(m, "\x48\x0f\x07"), is_intel ? STOP_EXC : STOP_OK);
		machine_mode(m, M_LONG);
		cpu->sysenter_cs = S_CODE64;
		cpu->sysenter_eip = 0x7777;
		assert_int_equal(EXEC(m, "\x0f\x34"), is_intel ? STOP_OK : STOP_EXC);
		if (!is_intel)
			assert_int_equal(cpu->exc.vector, EXC_UD);
	}
	cpu->nr_cpuid = 0;
}

static void sysenter_and_exit(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_PROT);
	machine_cpl(m, M_PROT, 3);
	ASSERT_EXC(m, EXEC(m, "\x0f\x34"), EXC_GP, 0); /* CS MSR is 0 */
	cpu->sysenter_cs = S_CODE;
	cpu->sysenter_eip = 0x7777;
	cpu->sysenter_esp = 0x5555;
	cpu_set_eflags(cpu, F(EFL_IF | EFL_CF));
	assert_int_equal(EXEC(m, "\x0f\x34"), STOP_OK);
	assert_int_equal(cpu->cpl, 0);
	assert_int_equal(cpu->rip, 0x7777);
	assert_int_equal(cpu->regs[GPR_RSP], 0x5555);
	assert_int_equal(cpu_eflags(cpu), F(EFL_CF));
	cpu->regs[GPR_RDX] = 0x1000;
	cpu->regs[GPR_RCX] = 0x2000;
	assert_int_equal(EXEC(m, "\x0f\x35"), STOP_OK);
	assert_int_equal(cpu->rip, 0x1000);
	assert_int_equal(cpu->regs[GPR_RSP], 0x2000);
	assert_int_equal(cpu->seg[SEG_CS].sel, (S_CODE + 16) | 3);
	assert_int_equal(cpu->seg[SEG_SS].sel, (S_CODE + 24) | 3);
	ASSERT_EXC(m, EXEC(m, "\x0f\x35"), EXC_GP, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iret_forms),
		cmocka_unit_test(iret_keeps_base),
		cmocka_unit_test(iret_to_16bit_stack),
		cmocka_unit_test(iret_nt_in_long_mode),
		cmocka_unit_test(far_jumps_and_calls),
		cmocka_unit_test(call_gate_with_parameters),
		cmocka_unit_test(call_gate_in_long_mode),
		cmocka_unit_test(syscall_and_back),
		cmocka_unit_test(sysret_to_compatibility),
		cmocka_unit_test(vendors_differ),
		cmocka_unit_test(sysenter_and_exit),
	};

	return RUN_TESTS(tests);
}
