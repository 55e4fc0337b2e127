// SPDX-License-Identifier: MIT
/* Loads of segment registers, limits, descriptor instructions, system flags (TESTING 58, 61; SDM 3A 5). */
#include "cpu/system_test.h"

struct load_row {
	const char *what;
	enum machine_mode mode;
	u8 cpl;
	enum seg seg;
	u16 sel;
	int vector; /* -1: loaded */
	u32 error;
};

static const struct load_row loads[] = {
	{"real", M_REAL, 0, SEG_DS, 0x1234, -1, 0},
	{"V86", M_V86, 3, SEG_ES, 0x1234, -1, 0},
	{"data", M_PROT, 0, SEG_DS, S_DATA, -1, 0},
	{"data for outer RPL", M_PROT, 0, SEG_DS, S_DATA | 3, EXC_GP, S_DATA},
	{"null", M_PROT, 0, SEG_DS, 3, -1, 0},
	{"null SS", M_PROT, 0, SEG_SS, 0, EXC_GP, 0},
	{"null SS, 64-bit", M_LONG, 0, SEG_SS, 0, -1, 0},
	{"null SS, other RPL", M_LONG, 0, SEG_SS, 3, EXC_GP, 0},
	{"SS of another level", M_PROT, 0, SEG_SS, S_UDATA, EXC_GP, S_UDATA & ~3},
	{"SS read-only", M_PROT, 0, SEG_SS, S_RODATA, EXC_GP, S_RODATA},
	{"SS not present", M_PROT, 0, SEG_SS, S_ABSENT, EXC_SS, S_ABSENT},
	{"DS not present", M_PROT, 0, SEG_DS, S_ABSENT, EXC_NP, S_ABSENT},
	{"execute-only", M_PROT, 0, SEG_FS, S_XONLY, EXC_GP, S_XONLY},
	{"readable code", M_PROT, 0, SEG_FS, S_CODE, -1, 0},
	{"conforming code from CPL 3", M_PROT, 3, SEG_GS, S_CONFORM | 3, -1, 0},
	{"inner data", M_PROT, 3, SEG_GS, S_DATA, EXC_GP, S_DATA},
	{"TSS", M_PROT, 0, SEG_DS, S_TSS2, EXC_GP, S_TSS2},
	{"beyond the GDT", M_PROT, 0, SEG_DS, 0x1000, EXC_GP, 0x1000},
	{"no LDT", M_PROT, 0, SEG_DS, 0xc, EXC_GP, 0xc},
};

static void load(const struct load_row *r)
{
	struct cpu *cpu = &m->cpu;
	struct segment before = cpu->seg[r->seg];
	char code[3] = {(char)0x8e, (char)(0xc0 | r->seg << 3), 0};
	enum stop stop;

	cpu->regs[GPR_RAX] = r->sel;
	stop = machine_exec(m, code, 2);
	if (r->vector >= 0) {
		ASSERT_EXC(m, stop, r->vector, r->error);
		assert_memory_equal(&before, &cpu->seg[r->seg], sizeof(before));
		return;
	}
	assert_int_equal(stop, STOP_OK);
	assert_int_equal(cpu->seg[r->seg].sel, r->sel);
	if (r->mode == M_REAL || r->mode == M_V86)
		assert_int_equal(cpu->ea_base[r->seg], r->sel << 4);
	else
		assert_int_equal(cpu->seg[r->seg].unusable, SEL_NULL(r->sel));
	assert_int_equal(cpu->shadow_ss, r->seg == SEG_SS);
}

static void segment_loads(void **state)
{
	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(loads); k++) {
		print_message("  %s\n", loads[k].what);
		machine_mode(m, loads[k].mode);
		m->cpu.ldtr = seg_null(0, 0);
		if (loads[k].cpl && loads[k].mode != M_V86)
			machine_cpl(m, loads[k].mode, loads[k].cpl);
		load(&loads[k]);
	}
}

/* The accessed bit is set in the table by a load that works. */
static void accessed_bit(void **state)
{
	(void)state;
	machine_mode(m, M_PROT);
	m->cpu.regs[GPR_RAX] = S_FRESH;
	assert_int_equal(EXEC(m, "\x8e\xd8"), STOP_OK);
	assert_int_equal(get(m, GDT + S_FRESH, 8), 0x00cf93000000ffff);
	assert_int_equal(m->cpu.seg[SEG_DS].attr & TYPE_ACCESSED, 1);
}

struct limit_row {
	const char *what;
	enum machine_mode mode;
	u16 sel; /* DS */
	u32 ea, len;
	u8 need;
	bool ok;
};

static const struct limit_row limits[] = {
	{"last byte", M_PROT, S_DATA16, 0xffff, 1, MMU_R, true},
	{"one too far", M_PROT, S_DATA16, 0xffff, 2, MMU_R, false},
	{"expand-down, below", M_PROT, S_DOWN, 0xfff, 1, MMU_R, false},
	{"expand-down, above", M_PROT, S_DOWN, 0x1000, 4, MMU_W, true},
	{"expand-down, top", M_PROT, S_DOWN, 0xfffffffc, 4, MMU_W, true},
	{"write to read-only", M_PROT, S_RODATA, 0, 4, MMU_W, false},
	{"write to code", M_PROT, S_CODE, 0, 4, MMU_W, false},
	{"null", M_PROT, 0, 0, 1, MMU_R, false},
	{"real mode, 64 KiB", M_REAL, 0x10, 0xffff, 2, MMU_W, false},
	{"real mode", M_REAL, 0x10, 0xfffe, 2, MMU_W, true},
	{"64-bit has none", M_LONG, S_DATA, 0xfffffff0, 8, MMU_W, true},
};

static void limit_checks(void **state)
{
	struct cpu *cpu = &m->cpu;
	u64 linear;

	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(limits); k++) {
		const struct limit_row *r = &limits[k];
		enum stop stop;

		print_message("  %s\n", r->what);
		machine_mode(m, r->mode);
		cpu->regs[GPR_RAX] = r->sel;
		assert_int_equal(EXEC(m, "\x8e\xd8"), STOP_OK);
		stop = seg_linear(cpu, SEG_DS, r->ea, r->len, r->need, &linear);
		assert_int_equal(stop, r->ok ? STOP_OK : STOP_EXC);
		if (r->ok)
			assert_int_equal(linear, r->ea + cpu->ea_base[SEG_DS]);
		else
			ASSERT_EXC(m, stop, EXC_GP, 0);
	}
	machine_mode(m, M_LONG);
	ASSERT_EXC(m, seg_linear(cpu, SEG_SS, 0x7ffffffffff9, 8, MMU_R, &linear), EXC_SS, 0);
	ASSERT_EXC(m, seg_linear(cpu, SEG_DS, 0x7ffffffffff9, 8, MMU_R, &linear), EXC_GP, 0);
	assert_int_equal(seg_linear(cpu, SEG_DS, 0x7ffffffffff8, 8, MMU_R, &linear), STOP_OK);
	cpu->seg[SEG_FS].base = 0x1000;
	cpu_update(cpu);
	assert_int_equal(seg_linear(cpu, SEG_FS, ~0xfffull, 8, MMU_R, &linear), STOP_OK);
	assert_int_equal(linear, 0);
}

static void table_registers(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_LONG);
	cpu->regs[GPR_RBX] = DATA;
	put16(m, DATA, 0x123);
	put64(m, DATA + 2, 0xffff800000001000);
	assert_int_equal(EXEC(m, "\x0f\x01\x1b"), STOP_OK); /* LIDT */
	assert_int_equal(cpu->idtr.limit, 0x123);
	assert_int_equal(cpu->idtr.base, 0xffff800000001000);
	cpu->regs[GPR_RBX] = DATA + 32;
	assert_int_equal(EXEC(m, "\x0f\x01\x0b"), STOP_OK); /* SIDT */
	assert_memory_equal(m->ram + DATA, m->ram + DATA + 32, 10);
	put64(m, DATA + 34, BIT(63));
	ASSERT_EXC(m, EXEC(m, "\x0f\x01\x1b"), EXC_GP, 0);
	machine_mode(m, M_REAL);
	cpu->regs[GPR_RBX] = 0x8800;
	put16(m, 0x8800, 0x55);
	put32(m, 0x8802, 0x12345678);
	assert_int_equal(EXEC(m, "\x0f\x01\x17"), STOP_OK); /* LGDT, 16-bit operand size */
	assert_int_equal(cpu->gdtr.base, 0x345678);
	assert_int_equal(EXEC(m, "\x66\x0f\x01\x17"), STOP_OK);
	assert_int_equal(cpu->gdtr.base, 0x12345678);
}

static void ldtr_and_tr(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_LONG);
	cpu->regs[GPR_RAX] = S_TSS;
	ASSERT_EXC(m, EXEC(m, "\x0f\x00\xd8"), EXC_GP, S_TSS); /* LTR: busy */
	set_desc(m, S_TSS, raw_desc(0x5000, 0x67, SEGA_P | DESC_TSS32));
	set_desc(m, S_TSS + 8, 0xffff8000);
	assert_int_equal(EXEC(m, "\x0f\x00\xd8"), STOP_OK);
	assert_int_equal(cpu->tr.base, 0xffff800000005000);
	assert_int_equal(cpu->tr.attr, SEGA_P | DESC_TSS32_BUSY);
	assert_int_equal(get(m, GDT + S_TSS + 5, 1), SEGA_P | DESC_TSS32_BUSY);
	cpu->regs[GPR_RAX] = 0;
	ASSERT_EXC(m, EXEC(m, "\x0f\x00\xd8"), EXC_GP, 0);
	assert_int_equal(EXEC(m, "\x0f\x00\xd0"), STOP_OK); /* LLDT 0 */
	assert_true(cpu->ldtr.unusable);
	cpu->regs[GPR_RAX] = S_LDT;
	assert_int_equal(EXEC(m, "\x0f\x00\xd0"), STOP_OK);
	assert_int_equal(cpu->ldtr.limit, 0x1f);
	cpu->regs[GPR_RAX] = S_DATA;
	ASSERT_EXC(m, EXEC(m, "\x0f\x00\xd0"), EXC_GP, S_DATA);
	put64(m, LDT + 8, 0x00cf93000000ffff);
	cpu->regs[GPR_RAX] = 0xc; /* entry 1 of the LDT */
	assert_int_equal(EXEC(m, "\x8e\xd8"), STOP_OK);
	assert_int_equal(EXEC(m, "\x0f\x00\xc0"), STOP_OK); /* SLDT eax */
	assert_int_equal(cpu->regs[GPR_RAX], S_LDT);
}

struct ask_row {
	enum machine_mode mode;
	u8 cpl;
	u16 sel;
	bool lar, lsl, verr, verw;
};

static const struct ask_row asks[] = {
	{M_PROT, 0, S_DATA, 1, 1, 1, 1}, {M_PROT, 0, S_RODATA, 1, 1, 1, 0},
	{M_PROT, 0, S_CODE, 1, 1, 1, 0}, {M_PROT, 0, S_XONLY, 1, 1, 0, 0},
	{M_PROT, 3, S_DATA, 0, 0, 0, 0}, {M_PROT, 3, S_CONFORM, 1, 1, 1, 0},
	{M_PROT, 0, S_TSS2, 1, 1, 0, 0}, {M_PROT, 0, 0, 0, 0, 0, 0},
	{M_PROT, 0, 0x1000, 0, 0, 0, 0}, {M_PROT, 0, S_DATA | 3, 0, 0, 0, 0},
	{M_PROT, 0, S_TSS_16, 1, 1, 0, 0}, {M_LONG, 0, S_TSS_16, 0, 0, 0, 0},
	{M_LONG, 3, S_UDATA, 1, 1, 1, 1},
};

static bool asked(const char *code)
{
	assert_int_equal(machine_exec(m, code, 3), STOP_OK);
	return m->cpu.fl & FI_ZF;
}

static void questions(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(asks); k++) {
		const struct ask_row *r = &asks[k];
		u64 d;

		machine_mode(m, r->mode);
		machine_cpl(m, r->mode, r->cpl);
		d = r->sel < S_LAST ? get(m, GDT + (r->sel & ~7), 8) : 0;
		cpu->regs[GPR_RAX] = r->sel;
		cpu->regs[GPR_RBX] = 0x55;
		assert_int_equal(asked("\x0f\x02\xd8"), r->lar);
		assert_int_equal(cpu->regs[GPR_RBX], r->lar ? d >> 32 & 0xffff00 : 0x55);
		cpu->regs[GPR_RBX] = 0x55;
		assert_int_equal(asked("\x0f\x03\xd8"), r->lsl);
		if (r->lsl && d >> 55 & 1)
			assert_int_equal(cpu->regs[GPR_RBX], 0xffffffff);
		assert_int_equal(asked("\x0f\x00\xe0"), r->verr);
		assert_int_equal(asked("\x0f\x00\xe8"), r->verw);
	}
	machine_mode(m, M_PROT);
	cpu->regs[GPR_RAX] = 0x1000;
	cpu->regs[GPR_RBX] = 0x2003;
	assert_int_equal(EXEC(m, "\x63\xd8"), STOP_OK); /* ARPL ax, bx */
	assert_int_equal(cpu->regs[GPR_RAX], 0x1003);
	assert_true(cpu->fl & FI_ZF);
	assert_int_equal(EXEC(m, "\x63\xd8"), STOP_OK);
	assert_false(cpu->fl & FI_ZF);
}

static void far_pointer_loads(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_PROT);
	cpu->regs[GPR_RBX] = DATA;
	put32(m, DATA, 0x12345678);
	put16(m, DATA + 4, S_UDATA);
	assert_int_equal(EXEC(m, "\xc4\x03"), STOP_OK); /* LES eax, [ebx] */
	assert_int_equal(cpu->regs[GPR_RAX], 0x12345678);
	assert_int_equal(cpu->seg[SEG_ES].sel, S_UDATA);
	put16(m, DATA + 4, S_ABSENT);
	cpu->regs[GPR_RAX] = 1;
	ASSERT_EXC(m, EXEC(m, "\xc4\x03"), EXC_NP, S_ABSENT);
	assert_int_equal(cpu->regs[GPR_RAX], 1);
}

/* ---- system flags ---- */

struct flag_row {
	const char *what;
	enum machine_mode mode;
	u8 cpl, iopl;
	const char *code;
	u64 cr4, before, popped; /* popped: POPF's operand */
	int vector;
	u64 after;
};

#define IOPL3 EFL_IOPL

static const struct flag_row flags[] = {
	{"CLI", M_PROT, 0, 0, "\xfa", 0, EFL_IF, 0, -1, 0},
	{"CLI at CPL 3", M_PROT, 3, 0, "\xfa", 0, EFL_IF, 0, EXC_GP, EFL_IF},
	{"CLI at CPL 3, IOPL 3", M_PROT, 3, 3, "\xfa", 0, EFL_IF, 0, -1, IOPL3},
	{"CLI with PVI", M_PROT, 3, 0, "\xfa", CR4_PVI, EFL_IF | EFL_VIF, 0, -1, EFL_IF},
	{"STI with PVI and VIP", M_PROT, 3, 0, "\xfb", CR4_PVI, EFL_VIP, 0, EXC_GP, EFL_VIP},
	{"STI", M_PROT, 0, 0, "\xfb", 0, 0, 0, -1, EFL_IF},
	{"POPF", M_PROT, 0, 0, "\x9d", 0, 0, EFL_IF | IOPL3 | EFL_VM | EFL_RF | EFL_TF, -1,
		EFL_IF | IOPL3 | EFL_TF},
	{"POPF at CPL 3", M_PROT, 3, 0, "\x9d", 0, EFL_IF, IOPL3 | EFL_CF | EFL_AC, -1,
		EFL_IF | EFL_CF | EFL_AC},
	{"POPF16", M_PROT, 0, 0, "\x66\x9d", 0, EFL_AC, EFL_CF, -1, EFL_AC | EFL_CF},
	{"POPFQ", M_LONG, 0, 0, "\x9d", 0, EFL_CF, EFL_ID | EFL_ZF, -1, EFL_ID | EFL_ZF},
	{"POPF in V86", M_V86, 3, 0, "\x9d", 0, EFL_VM, 0, EXC_GP, EFL_VM},
	{"POPF in V86, IOPL 3", M_V86, 3, 3, "\x9d", 0, EFL_VM, EFL_IF, -1, EFL_VM | EFL_IF | IOPL3},
	{"POPF with VME", M_V86, 3, 0, "\x9d", CR4_VME, EFL_VM | EFL_VIF, EFL_CF, -1, EFL_VM | EFL_CF},
};

static void system_flags(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(flags); k++) {
		const struct flag_row *r = &flags[k];
		enum stop stop;

		print_message("  %s\n", r->what);
		machine_mode(m, r->mode);
		if (r->cpl && r->mode != M_V86)
			machine_cpl(m, r->mode, r->cpl);
		cpu->cr4 |= r->cr4;
		cpu_set_eflags(cpu, EFL_ONE | r->before | (u64)r->iopl << 12);
		put64(m, STACK, r->popped);
		stop = machine_exec(m, r->code, strlen(r->code));
		if (r->vector >= 0)
			ASSERT_EXC(m, stop, r->vector, 0);
		else
			assert_int_equal(stop, STOP_OK);
		assert_int_equal(cpu_eflags(cpu), EFL_ONE | r->after);
	}
}

static void requests_follow_flags(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_LONG);
	assert_false(cpu->request_mask & REQ_IRQ);
	assert_int_equal(EXEC(m, "\xfb"), STOP_OK);
	assert_true(cpu->shadow);
	assert_false(cpu->request_mask & REQ_IRQ); /* the shadow */
	assert_true(cpu->request & REQ_STEP);
	cpu->shadow = false;
	cpu_update(cpu);
	assert_true(cpu->request_mask & REQ_IRQ);
	assert_false(cpu->request & REQ_STEP);
	assert_int_equal(EXEC(m, "\xfb"), STOP_OK); /* IF was set: no shadow */
	assert_false(cpu->shadow);
	cpu->nmi_blocked = true;
	cpu_set_eflags(cpu, EFL_ONE | EFL_TF);
	assert_true(cpu->request & REQ_STEP);
	assert_false(cpu->request_mask & (REQ_NMI | REQ_IRQ));
}

static void flag_images(void **state)
{
	(void)state;
	for (u64 v = 0; v < 0x1000; v++) {
		u64 f = v & EFL_ARITH, image = eflags_to_image(f);

		assert_int_equal(image_to_eflags(image), f);
		assert_int_equal(image >> 8 & 0x2a, 2); /* LAHF's fixed bits */
	}
	assert_int_equal(eflags_to_image(EFL_SF | EFL_OF), FI_SF | FI_OF | 0x200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(segment_loads), cmocka_unit_test(accessed_bit),
		cmocka_unit_test(limit_checks), cmocka_unit_test(table_registers),
		cmocka_unit_test(ldtr_and_tr), cmocka_unit_test(questions),
		cmocka_unit_test(far_pointer_loads), cmocka_unit_test(system_flags),
		cmocka_unit_test(requests_follow_flags), cmocka_unit_test(flag_images),
	};

	return RUN_TESTS(tests);
}
