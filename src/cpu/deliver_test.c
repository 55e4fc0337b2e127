// SPDX-License-Identifier: MIT
/* Delivery of events in each mode: frames, error codes, double and triple faults (TESTING 64, 67, 68). */
#include "cpu/system_test.h"

static enum stop deliver(enum event_type type, u8 vector, bool has_error, u32 error)
{
	return cpu_deliver(&m->cpu, type,
		&(struct exception){.vector = vector, .has_error = has_error, .error = error});
}

/* SDM 3A 20.1.4: FLAGS CS IP, no error code; IF and TF are cleared. */
static void real_mode(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_REAL);
	cpu->seg[SEG_CS] = seg_real(cpu, &cpu->seg[SEG_CS], 0x123);
	cpu_set_eflags(cpu, EFL_ONE | EFL_IF | EFL_TF | EFL_CF);
	assert_int_equal(deliver(EVENT_EXC, EXC_GP, true, 0x55), STOP_OK);
	assert_int_equal(cpu->rip, HANDLER(EXC_GP));
	assert_int_equal(cpu->regs[GPR_RSP], STACK - 6);
	assert_int_equal(get(m, STACK - 6, 2), CODE);
	assert_int_equal(get(m, STACK - 4, 2), 0x123);
	assert_int_equal(get(m, STACK - 2, 2), EFL_ONE | EFL_IF | EFL_TF | EFL_CF);
	assert_int_equal(cpu_eflags(cpu), EFL_ONE | EFL_CF);
	assert_int_equal(cpu->seg[SEG_CS].sel, 0);
}

/* SP = 2: the frame wraps around inside the 64 KiB stack. */
static void real_mode_stack_wraps(void **state)
{
	(void)state;
	machine_mode(m, M_REAL);
	m->cpu.regs[GPR_RSP] = 0xabcd0002;
	assert_int_equal(deliver(EVENT_IRQ, 0x20, false, 0), STOP_OK);
	assert_int_equal(m->cpu.regs[GPR_RSP], 0xabcdfffc);
	assert_int_equal(get(m, 0xfffc, 2), CODE);
	assert_int_equal(get(m, 0, 2), EFL_ONE);
}

static void real_mode_short_ivt(void **state)
{
	(void)state;
	machine_mode(m, M_REAL);
	m->cpu.idtr.limit = 8 * 4 + 3; /* #DF's entry is the last */
	assert_int_equal(deliver(EVENT_IRQ, 0x20, false, 0), STOP_OK);
	/* IRQ: #GP; #GP: #DF */
	assert_int_equal(m->cpu.rip, HANDLER(EXC_DF));
	m->cpu.idtr.limit = 3;
	assert_int_equal(deliver(EVENT_IRQ, 0x20, false, 0), STOP_LEAVE);
	assert_int_equal(m->cpu.leave, LEAVE_SHUTDOWN);
}

struct frame_row {
	const char *what;
	enum machine_mode mode;
	u8 cpl;
	enum event_type type;
	u8 vector, has_error, gate_type, ist;
	u64 flags;	  /* before */
	u64 flags_after;
	u64 pushed_flags;
	u32 sp;		  /* top of the stack that is used */
};

static const struct frame_row frames[] = {
	{"fault, same level", M_PROT, 0, EVENT_EXC, EXC_PF, 1, DESC_INT32, 0, EFL_IF | EFL_AC, EFL_AC,
		EFL_IF | EFL_AC | EFL_RF, STACK},
	{"trap gate leaves IF", M_PROT, 0, EVENT_IRQ, 0x21, 0, DESC_TRAP32, 0, EFL_IF | EFL_TF | EFL_NT,
		EFL_IF, EFL_IF | EFL_TF | EFL_NT, STACK},
	{"16-bit gate", M_PROT, 0, EVENT_IRQ, 0x21, 0, DESC_INT16, 0, EFL_IF, 0, EFL_IF, STACK},
	{"from CPL 3", M_PROT, 3, EVENT_EXC, EXC_GP, 1, DESC_INT32, 0, EFL_IF, 0, EFL_IF | EFL_RF,
		STACK0},
	{"#DB pushes no RF", M_PROT, 3, EVENT_EXC, EXC_DB, 0, DESC_INT32, 0, EFL_TF, 0, EFL_TF, STACK0},
	{"long, same level", M_LONG, 0, EVENT_EXC, EXC_UD, 0, DESC_INT32, 0, EFL_IF, 0, EFL_IF | EFL_RF,
		STACK},
	{"long, from CPL 3", M_LONG, 3, EVENT_EXC, EXC_PF, 1, DESC_INT32, 0, EFL_IF, 0,
		EFL_IF | EFL_RF, STACK0},
	{"long, IST", M_LONG, 0, EVENT_NMI, EXC_NMI, 0, DESC_INT32, 1, EFL_IF, 0, EFL_IF, STACK_IST},
	{"long, trap gate", M_LONG, 3, EVENT_IRQ, 0x30, 0, DESC_TRAP32, 0, EFL_IF, EFL_IF, EFL_IF,
		STACK0},
	{"compatibility mode", M_COMPAT, 3, EVENT_IRQ, 0x30, 0, DESC_INT32, 0, EFL_IF, 0, EFL_IF,
		STACK0},
};

static void check_frame(const struct frame_row *r)
{
	struct cpu *cpu = &m->cpu;
	bool l = cpu->long_mode, inner = r->cpl || l;
	u32 size = l ? 8 : r->gate_type & 8 ? 4 : 2, sp;
	u16 cs = cpu->seg[SEG_CS].sel, ss = cpu->seg[SEG_SS].sel;

	set_gate(m, r->vector, l ? S_CODE64 : S_CODE, HANDLER(r->vector), r->gate_type, 0, true, r->ist);
	cpu_set_eflags(cpu, EFL_ONE | r->flags);
	cpu->regs[GPR_RSP] = STACK + 4; /* long mode aligns it */
	assert_int_equal(deliver(r->type, r->vector, r->has_error, 0x1234), STOP_OK);
	assert_int_equal(cpu->rip, HANDLER(r->vector));
	assert_int_equal(cpu->cpl, 0);
	assert_int_equal(cpu_eflags(cpu), EFL_ONE | r->flags_after);
	sp = r->sp == STACK && !l ? STACK + 4 : r->sp;
	sp -= size * (3 + 2 * inner + r->has_error);
	assert_int_equal(cpu->regs[GPR_RSP], sp);
	if (r->has_error) {
		assert_int_equal(get(m, sp, size), 0x1234);
		sp += size;
	}
	assert_int_equal(get(m, sp, size), CODE);
	assert_int_equal(get(m, sp + size, size), cs);
	assert_int_equal(get(m, sp + 2 * size, size), (EFL_ONE | r->pushed_flags) & (size == 2 ? 0xffff : ~0ull));
	if (inner) {
		assert_int_equal(get(m, sp + 3 * size, size), STACK + 4);
		assert_int_equal(get(m, sp + 4 * size, size), ss);
	}
	assert_int_equal(cpu->nmi_blocked, r->type == EVENT_NMI);
	assert_int_equal(cpu->mode, l ? MODE_64 : MODE_32);
	if (l && r->cpl)
		assert_true(cpu->seg[SEG_SS].unusable && cpu->seg[SEG_SS].sel == 0);
}

static void frames_of_gates(void **state)
{
	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(frames); k++) {
		print_message("  %s\n", frames[k].what);
		machine_mode(m, frames[k].mode);
		machine_cpl(m, frames[k].mode, frames[k].cpl);
		check_frame(&frames[k]);
	}
}

/* SDM 3A 20.3.1 */
static void out_of_v86(void **state)
{
	struct cpu *cpu = &m->cpu;
	u32 sp = STACK0 - 9 * 4;

	(void)state;
	machine_mode(m, M_V86);
	assert_int_equal(deliver(EVENT_IRQ, 0x20, false, 0), STOP_OK);
	assert_int_equal(cpu->regs[GPR_RSP], sp);
	assert_int_equal(get(m, sp, 4), CODE);
	assert_int_equal(get(m, sp + 8, 4), EFL_ONE | EFL_VM | EFL_IF);
	assert_int_equal(get(m, sp + 12, 4), STACK);
	assert_int_equal(get(m, sp + 20, 4), SEG_ES << 4);
	assert_int_equal(get(m, sp + 24, 4), SEG_DS << 4);
	assert_int_equal(get(m, sp + 28, 4), SEG_FS << 4);
	assert_int_equal(get(m, sp + 32, 4), SEG_GS << 4);
	assert_true(cpu->seg[SEG_DS].unusable && cpu->seg[SEG_GS].unusable);
	assert_false(cpu->eflags & EFL_VM);
	assert_int_equal(cpu->mode, MODE_32);
	/* and back */
	assert_int_equal(EXEC(m, "\xcf"), STOP_OK);
	assert_true(cpu_v86(cpu));
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(cpu->rip, CODE);
	assert_int_equal(cpu->regs[GPR_RSP], STACK);
	assert_int_equal(cpu->seg[SEG_GS].base, SEG_GS << 8);
}

struct error_row {
	const char *what;
	enum machine_mode mode;
	u8 cpl;
	enum event_type type;
	/* the gate of vector 0x20 */
	u16 sel;
	u8 gate, dpl, p;
	/* the exception that arrives in its place, and its error code */
	u8 vector;
	u32 error;
};

static const struct error_row errors[] = {
	{"gate not present", M_PROT, 0, EVENT_IRQ, S_CODE, DESC_INT32, 0, 0, EXC_NP, 0x103},
	{"not a gate", M_PROT, 0, EVENT_IRQ, S_CODE, DESC_CALL32, 0, 1, EXC_GP, 0x103},
	{"null CS", M_PROT, 0, EVENT_IRQ, 0, DESC_INT32, 0, 1, EXC_GP, 1},
	{"CS beyond the GDT", M_PROT, 0, EVENT_IRQ, 0xff8, DESC_INT32, 0, 1, EXC_GP, 0xff9},
	{"CS is data", M_PROT, 0, EVENT_IRQ, S_DATA, DESC_INT32, 0, 1, EXC_GP, S_DATA | 1},
	{"CS not present", M_PROT, 0, EVENT_IRQ, S_ABSENT_CODE, DESC_INT32, 0, 1, EXC_NP,
		S_ABSENT_CODE | 1},
	{"CS of an outer level", M_PROT, 0, EVENT_IRQ, S_UCODE, DESC_INT32, 0, 1, EXC_GP,
		(S_UCODE & ~3) | 1},
	{"INT n below the gate's DPL", M_PROT, 3, EVENT_SOFT, S_CODE, DESC_INT32, 0, 1, EXC_GP, 0x102},
	{"task gate to nowhere", M_PROT, 0, EVENT_IRQ, S_DATA, DESC_TASK, 0, 1, EXC_GP, S_DATA | 1},
	{"long: 16-bit gate", M_LONG, 0, EVENT_IRQ, S_CODE64, DESC_INT16, 0, 1, EXC_GP, 0x103},
	{"long: 32-bit CS", M_LONG, 0, EVENT_IRQ, S_CODE, DESC_INT32, 0, 1, EXC_GP, S_CODE | 1},
	{"long: not present", M_LONG, 3, EVENT_IRQ, S_CODE64, DESC_INT32, 0, 0, EXC_NP, 0x103},
	{"long: INT n", M_LONG, 3, EVENT_SOFT, S_CODE64, DESC_INT32, 2, 1, EXC_GP, 0x102},
};

static void errors_on_the_way(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(errors); k++) {
		const struct error_row *r = &errors[k];

		print_message("  %s\n", r->what);
		machine_mode(m, r->mode);
		machine_cpl(m, r->mode, r->cpl);
		set_gate(m, 0x20, r->sel, HANDLER(0x20), r->gate, r->dpl, r->p, 0);
		cpu->next_rip = CODE + 2;
		assert_int_equal(deliver(r->type, 0x20, false, 0), STOP_OK);
		assert_int_equal(cpu->rip, HANDLER(r->vector));
		assert_int_equal(get(m, cpu->regs[GPR_RSP], 4), r->error);
		assert_int_equal(get(m, cpu->regs[GPR_RSP] + (cpu->long_mode ? 8 : 4), 4), CODE);
	}
}

/* SDM 3A table 6-5 */
static void double_faults(void **state)
{
	static const struct {
		u8 first, absent;
		u8 arrives;
	} row[] = {
		{EXC_GP, EXC_GP, EXC_DF}, {EXC_PF, EXC_PF, EXC_DF}, {EXC_UD, EXC_UD, EXC_NP},
		{EXC_DE, EXC_DE, EXC_DF}, {EXC_PF, EXC_DE, EXC_PF},
	};

	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(row); k++) {
		machine_mode(m, M_LONG);
		set_gate(m, row[k].absent, S_CODE64, 0, DESC_INT32, 0, false, 0);
		assert_int_equal(deliver(EVENT_EXC, row[k].first, true, 0), STOP_OK);
		assert_int_equal(m->cpu.rip, HANDLER(row[k].arrives));
	}
	machine_mode(m, M_LONG);
	m->cpu.idtr.limit = 0;
	assert_int_equal(deliver(EVENT_EXC, EXC_UD, false, 0), STOP_LEAVE);
	assert_int_equal(m->cpu.leave, LEAVE_SHUTDOWN);
	assert_int_equal(m->cpu.rip, CODE);
}

/* A page fault on the new stack: CR2 is that of the first push, SS's. */
static void stack_fault_sets_cr2(void **state)
{
	struct cpu *cpu = &m->cpu;
	struct exception x = {.vector = EXC_UD, .has_payload = false};

	(void)state;
	machine_mode(m, M_LONG);
	machine_cpl(m, M_LONG, 3);
	put64(m, TSS + 4, 0x7000000000); /* not mapped */
	set_gate(m, EXC_DF, S_CODE64, HANDLER(EXC_DF), DESC_INT32, 0, true, 1);
	set_gate(m, EXC_PF, S_CODE64, HANDLER(EXC_PF), DESC_INT32, 0, true, 1);
	assert_int_equal(cpu_deliver(cpu, EVENT_EXC, &x), STOP_OK);
	assert_int_equal(cpu->rip, HANDLER(EXC_PF));
	assert_int_equal(cpu->cr2, 0x7000000000 - 8);
	assert_int_equal(get(m, STACK_IST - 48, 8), PF_W);
}

/* No RAM below the stack pointer: the VMM is told (suberror 3). */
static void vectoring_without_ram(void **state)
{
	(void)state;
	machine_mode(m, M_LONG);
	m->cpu.regs[GPR_RSP] = 0x20000000;
	assert_int_equal(deliver(EVENT_IRQ, 0x20, false, 0), STOP_LEAVE);
	assert_int_equal(m->cpu.leave, LEAVE_VECTORING);
	assert_int_equal(m->cpu.rip, CODE);
	assert_int_equal(m->cpu.regs[GPR_RSP], 0x20000000);
}

/* DR6 bits and CR2 are committed with the event; GD goes. SDM 3A 17.2.4 */
static void payloads(void **state)
{
	struct cpu *cpu = &m->cpu;
	struct exception x = {.vector = EXC_DB, .has_payload = true, .payload = DR6_BS | 2};

	(void)state;
	machine_mode(m, M_PROT);
	cpu->dr7 |= DR7_GD;
	cpu->dr6 |= 1;
	assert_int_equal(cpu_deliver(cpu, EVENT_EXC, &x), STOP_OK);
	assert_int_equal(cpu->dr6, DR6_FIXED | DR6_BS | 2);
	assert_int_equal(cpu->dr7, DR7_FIXED);
}

static void int_instructions(void **state)
{
	struct cpu *cpu = &m->cpu;

	(void)state;
	machine_mode(m, M_LONG);
	machine_cpl(m, M_LONG, 3);
	ASSERT_EXC(m, EXEC(m, "\xcd\x20"), EXC_GP, 0x20 * 8 + 2);
	assert_int_equal(cpu->rip, CODE);
	set_gate(m, 0x20, S_CODE64, HANDLER(0x20), DESC_INT32, 3, true, 0);
	assert_int_equal(EXEC(m, "\xcd\x20"), STOP_OK);
	assert_int_equal(cpu->rip, HANDLER(0x20));
	assert_int_equal(get(m, STACK0 - 40, 8), CODE + 2);

	machine_mode(m, M_REAL);
	assert_int_equal(EXEC(m, "\xcc"), STOP_OK);
	assert_int_equal(cpu->rip, HANDLER(3));
	machine_mode(m, M_REAL);
	assert_int_equal(EXEC(m, "\xce"), STOP_OK); /* INTO, OF = 0 */
	assert_int_equal(cpu->rip, CODE + 1);
	cpu->fl |= FI_OF;
	assert_int_equal(EXEC(m, "\xce"), STOP_OK);
	assert_int_equal(cpu->rip, HANDLER(4));

	machine_mode(m, M_PROT);
	machine_cpl(m, M_PROT, 3);
	assert_int_equal(EXEC(m, "\xf1"), STOP_OK); /* INT1: no DPL check */
	assert_int_equal(cpu->rip, HANDLER(1));

	machine_mode(m, M_V86);
	ASSERT_EXC(m, EXEC(m, "\xcd\x20"), EXC_GP, 0);
	cpu->guest_debug_sw = true;
	ASSERT_EXC(m, EXEC(m, "\xcc"), EXC_BP, 0);
	cpu->guest_debug_sw = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_mode),
		cmocka_unit_test(real_mode_stack_wraps),
		cmocka_unit_test(real_mode_short_ivt),
		cmocka_unit_test(frames_of_gates),
		cmocka_unit_test(out_of_v86),
		cmocka_unit_test(errors_on_the_way),
		cmocka_unit_test(double_faults),
		cmocka_unit_test(stack_fault_sets_cr2),
		cmocka_unit_test(vectoring_without_ram),
		cmocka_unit_test(payloads),
		cmocka_unit_test(int_instructions),
	};

	return RUN_TESTS(tests);
}
