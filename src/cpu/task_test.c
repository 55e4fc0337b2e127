// SPDX-License-Identifier: MIT
/* Task switches by JMP, CALL, IRET and task gate, and system management mode (SDM 3A 7.3; 3C 31). */
#include "cpu/system_test.h"

#define TASK_CODE  0xa000u
#define TASK_STACK 0xb000u

/* TSS2: a task at CPL 0 that is ready to run. */
static void make_task32(void)
{
	static const u16 seg[] = {S_DATA, S_CODE, S_DATA, S_DATA, 0, 0};

	put32(m, TSS2 + 0x20, TASK_CODE);
	put32(m, TSS2 + 0x24, EFL_ONE | EFL_CF);
	for (unsigned int k = 0; k < 8; k++)
		put32(m, TSS2 + 0x28 + 4 * k, 0x100 + k);
	put32(m, TSS2 + 0x28 + 4 * GPR_RSP, TASK_STACK);
	for (unsigned int k = 0; k < 6; k++)
		put32(m, TSS2 + 0x48 + 4 * k, seg[k]);
}

static u8 tss_type(u16 sel)
{
	return get(m, GDT + sel + 5, 1) & 15;
}

static void setup32(void)
{
	machine_mode(m, M_PROT);
	make_task32();
	cpu_set_eflags(&m->cpu, EFL_ONE | EFL_IF | EFL_ZF);
	m->cpu.regs[GPR_RBX] = 0xbbbb;
}

static void in_new_task(u64 eflags, u32 sp)
{
	struct cpu *cpu = &m->cpu;

	assert_int_equal(cpu->rip, TASK_CODE);
	assert_int_equal(cpu->regs[GPR_RAX], 0x100);
	assert_int_equal(cpu->regs[GPR_RSP], sp);
	assert_int_equal(cpu_eflags(cpu), eflags);
	assert_int_equal(cpu->tr.sel, S_TSS2);
	assert_int_equal(cpu->tr.attr & 15, DESC_TSS32_BUSY);
	assert_int_equal(cpu->seg[SEG_DS].sel, S_DATA);
	assert_true(cpu->seg[SEG_FS].unusable);
	assert_true(cpu->cr0 & CR0_TS);
	assert_int_equal(tss_type(S_TSS2), DESC_TSS32_BUSY);
}

static void old_task_saved(u32 rip)
{
	assert_int_equal(get(m, TSS + 0x20, 4), rip);
	assert_int_equal(get(m, TSS + 0x24, 4), EFL_ONE | EFL_IF | EFL_ZF);
	assert_int_equal(get(m, TSS + 0x28 + 4 * GPR_RBX, 4), 0xbbbb);
	assert_int_equal(get(m, TSS + 0x4c, 4), S_CODE);
}

static void jump_to_task(void **state)
{
	(void)state;
	setup32();
	assert_int_equal(EXEC(m, "\xea\0\0\0\0\x78\0"), STOP_OK);
	in_new_task(EFL_ONE | EFL_CF, TASK_STACK);
	old_task_saved(CODE + 7);
	assert_int_equal(tss_type(S_TSS), DESC_TSS32);
}

static void call_and_return(void **state)
{
	(void)state;
	setup32();
	assert_int_equal(EXEC(m, "\x9a\0\0\0\0\x78\0"), STOP_OK);
	in_new_task(EFL_ONE | EFL_CF | EFL_NT, TASK_STACK);
	old_task_saved(CODE + 7);
	assert_int_equal(tss_type(S_TSS), DESC_TSS32_BUSY);
	assert_int_equal(get(m, TSS2, 2), S_TSS);
	assert_int_equal(EXEC(m, "\xcf"), STOP_OK);
	assert_int_equal(m->cpu.rip, CODE + 7);
	assert_int_equal(m->cpu.tr.sel, S_TSS);
	assert_int_equal(m->cpu.regs[GPR_RBX], 0xbbbb);
	assert_int_equal(cpu_eflags(&m->cpu), EFL_ONE | EFL_IF | EFL_ZF);
	assert_int_equal(tss_type(S_TSS2), DESC_TSS32);
	assert_int_equal(get(m, TSS2 + 0x24, 4), EFL_ONE | EFL_CF); /* NT is not saved by IRET */
}

/* #GP through a task gate: the error code is on the new task's stack. */
static void task_gate(void **state)
{
	struct exception x = {.vector = EXC_GP, .has_error = true, .error = 0x1230};

	(void)state;
	setup32();
	set_gate(m, EXC_GP, S_TSS2, 0, DESC_TASK, 0, true, 0);
	assert_int_equal(cpu_deliver(&m->cpu, EVENT_EXC, &x), STOP_OK);
	in_new_task(EFL_ONE | EFL_CF | EFL_NT, TASK_STACK - 4);
	assert_int_equal(get(m, TASK_STACK - 4, 4), 0x1230);
	/* the fault's EFLAGS image: as it was, RF is the gate's business only */
	assert_int_equal(get(m, TSS + 0x20, 4), CODE);
}

static void refusals(void **state)
{
	(void)state;
	setup32();
	put16(m, GDT + S_TSS2, 0x66); /* limit */
	ASSERT_EXC(m, EXEC(m, "\xea\0\0\0\0\x78\0"), EXC_TS, S_TSS2);
	assert_int_equal(m->cpu.rip, CODE);
	setup32();
	ASSERT_EXC(m, EXEC(m, "\xea\0\0\0\0\x30\0"), EXC_GP, S_TSS); /* busy */
	set_desc(m, S_TSS2, raw_desc(TSS2, 0x67, DESC_TSS32));
	ASSERT_EXC(m, EXEC(m, "\xea\0\0\0\0\x78\0"), EXC_NP, S_TSS2);
	/* IRET with NT to a task that is not busy */
	setup32();
	m->cpu.eflags |= EFL_NT;
	put16(m, TSS, S_TSS2);
	ASSERT_EXC(m, EXEC(m, "\xcf"), EXC_TS, S_TSS2);
	assert_int_equal(m->cpu.tr.sel, S_TSS);
}

/* A bad segment is the new task's fault: #TS with its RIP. */
static void fault_in_new_task(void **state)
{
	(void)state;
	setup32();
	put32(m, TSS2 + 0x54, S_XONLY); /* DS */
	ASSERT_EXC(m, EXEC(m, "\xea\0\0\0\0\x78\0"), EXC_TS, S_XONLY);
	assert_int_equal(m->cpu.rip, TASK_CODE);
	assert_int_equal(m->cpu.tr.sel, S_TSS2);
	/* T bit: #DB with BT before the first instruction */
	setup32();
	put16(m, TSS2 + 0x64, 1);
	ASSERT_EXC(m, EXEC(m, "\xea\0\0\0\0\x78\0"), EXC_DB, 0);
	assert_int_equal(m->cpu.exc.payload, DR6_BT);
	assert_int_equal(m->cpu.rip, TASK_CODE);
}

static void task16(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	setup32();
	put16(m, TSS_16 + 14, 0x5000);
	put16(m, TSS_16 + 16, EFL_ONE);
	put16(m, TSS_16 + 18, 0x1111);
	put16(m, TSS_16 + 26, 0x6000);
	put16(m, TSS_16 + 34, S_DATA16);
	put16(m, TSS_16 + 36, S_CODE16);
	put16(m, TSS_16 + 38, S_DATA16);
	put16(m, TSS_16 + 40, S_DATA16);
	assert_int_equal(EXEC(m, "\x9a\0\0\0\0\xa8\0"), STOP_OK);
	assert_int_equal(cpu->rip, 0x5000);
	assert_int_equal(cpu->mode, MODE_16);
	assert_int_equal((u16)cpu->regs[GPR_RAX], 0x1111);
	assert_int_equal((u16)cpu->regs[GPR_RSP], 0x6000);
	assert_int_equal(get(m, TSS_16, 2), S_TSS);
	assert_int_equal(EXEC(m, "\xcf"), STOP_OK);
	assert_int_equal(cpu->rip, CODE + 7);
	assert_int_equal(get(m, TSS_16 + 14, 2), 0x5001);
}

/* ---- SMM ---- */

#define SMRAM 0x100000u

/* Field by field: padding is nobody's. */
static void assert_segments_equal(const struct segment *a, const struct segment *b)
{
	for (unsigned int k = 0; k < NR_SEGS; k++) {
		assert_int_equal(a[k].sel, b[k].sel);
		assert_int_equal(a[k].attr, b[k].attr);
		assert_int_equal(a[k].limit, b[k].limit);
		assert_int_equal(a[k].base, b[k].base);
		assert_int_equal(a[k].unusable, b[k].unusable);
	}
}

static void smm_round_trip(void **state)
{
	struct cpu *cpu = &m->cpu, before;
	u8 *smram = m->ram + SMRAM; /* the same bytes in both spaces */

	(void)state;
	assert_int_equal(mem_set_slot(m->mem, 1, 0, 0, gpa(0), RAM_SIZE, m->ram), 0);
	machine_mode(m, M_LONG);
	ASSERT_EXC(m, EXEC(m, "\x0f\xaa"), EXC_UD, 0); /* RSM outside SMM */
	machine_cpl(m, M_LONG, 3);
	cpu_set_eflags(cpu, EFL_ONE | EFL_IF | EFL_ZF);
	cpu->smbase = SMRAM;
	cpu->regs[GPR_R15] = 0x1515;
	cpu->regs[GPR_RAX] = 0xaaaa;
	before = *cpu;
	cpu_request(cpu, REQ_SMI);
	assert_int_equal(cpu_enter_smm(cpu), STOP_OK);
	assert_true(cpu->in_smm);
	assert_int_equal(cpu->mmu.space, 1);
	assert_int_equal(cpu->rip, 0x8000);
	assert_int_equal(cpu->seg[SEG_CS].base, SMRAM);
	assert_int_equal(cpu->mode, MODE_16);
	assert_int_equal(cpu->cpl, 0);
	assert_false(cpu->request_mask & (REQ_SMI | REQ_NMI | REQ_IRQ));
	assert_int_equal(*(u32 *)(smram + 0xfefc) & 0xffff, 0x64);
	assert_int_equal(*(u64 *)(smram + 0xfff8), 0xaaaa);
	assert_int_equal(*(u64 *)(smram + 0xff80), 0x1515);
	assert_int_equal(*(u64 *)(smram + 0xff78), CODE);
	*(u64 *)(smram + 0xfff8) = 0xcccc;	/* the handler changes RAX */
	*(u32 *)(smram + 0xff00) = 0xa0000;	/* and SMBASE */
	assert_int_equal(EXEC(m, "\x0f\xaa"), STOP_OK);
	assert_false(cpu->in_smm);
	assert_int_equal(cpu->mmu.space, 0);
	assert_int_equal(cpu->smbase, 0xa0000);
	assert_int_equal(cpu->regs[GPR_RAX], 0xcccc);
	assert_int_equal(cpu->regs[GPR_R15], 0x1515);
	assert_int_equal(cpu->rip, before.rip);
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(cpu->mode, MODE_64);
	assert_int_equal(cpu_eflags(cpu), EFL_ONE | EFL_IF | EFL_ZF);
	assert_int_equal(cpu->cr0, before.cr0);
	assert_segments_equal(cpu->seg, before.seg);
	assert_false(cpu->nmi_blocked);
	assert_int_equal(m->smm_changed, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jump_to_task), cmocka_unit_test(call_and_return),
		cmocka_unit_test(task_gate), cmocka_unit_test(refusals),
		cmocka_unit_test(fault_in_new_task), cmocka_unit_test(task16),
		cmocka_unit_test(smm_round_trip),
	};

	return RUN_TESTS(tests);
}
