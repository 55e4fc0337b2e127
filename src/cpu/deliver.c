// SPDX-License-Identifier: MIT
/*
 * Events: exceptions, interrupts, NMIs and INT instructions find their handler here, with
 * the rules of double and triple faults (SDM 3A 6.15, #DF). The gates are in deliver_gate.c.
 */
#include "cpu/system.h"

enum stop deliver_once(struct env *e, const struct delivery *d)
{
	struct cpu *cpu = e->cpu;

	if (cpu_real(cpu))
		return deliver_real(e, d);
	return cpu->long_mode ? deliver_long(e, d) : deliver_prot(e, d);
}

/* SDM 3A table 6-5 */
enum event_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum event_class classify(enum event_type type, u8 vector)
{
	if (type != EVENT_EXC)
		return BENIGN;
	switch (vector) {
	case EXC_DE: case EXC_TS: case EXC_NP: case EXC_SS: case EXC_GP:
		return CONTRIBUTORY;
	case EXC_PF:
		return PAGE_FAULT;
	case EXC_DF:
		return DOUBLE_FAULT;
	default:
		return BENIGN;
	}
}

static bool makes_double_fault(enum event_class first, enum event_class second)
{
	return (first == CONTRIBUTORY && second == CONTRIBUTORY) ||
		(first == PAGE_FAULT && second != BENIGN);
}

/* SDM 3A 17.3.1.1: faults push RF = 1, so that the handler's IRET skips an instruction breakpoint. */
static bool pushes_rf(enum event_type type, u8 vector)
{
	return type == EVENT_EXC && vector != EXC_DB && vector != EXC_BP && vector != EXC_OF &&
		vector != EXC_DF && vector != EXC_MC && vector != EXC_NMI;
}

/* DR6 collects; B0..B3 are of this exception only. GD is cleared on entry (SDM 3A 17.2.3, 17.2.4). */
static void commit_payload(struct cpu *cpu, const struct exception *x)
{
	if (x->vector == EXC_PF && x->has_payload)
		cpu->cr2 = x->payload;
	if (x->vector != EXC_DB)
		return;
	if (x->has_payload)
		cpu->dr6 = ((cpu->dr6 & ~0xfull) | DR6_FIXED | x->payload);
	cpu->dr7 &= ~DR7_GD;
}

static struct delivery describe(const struct cpu *cpu, enum event_type type, const struct exception *x)
{
	return (struct delivery){
		.vector = x->vector,
		.soft = type == EVENT_SOFT,
		.has_error = x->has_error,
		.error = x->error,
		.rip = type == EVENT_SOFT ? cpu->next_rip : cpu->rip,
		.eflags = cpu_eflags(cpu) | (pushes_rf(type, x->vector) ? EFL_RF : 0),
		.ext = type == EVENT_SOFT ? 0 : ERR_EXT,
	};
}

static enum stop leave(struct cpu *cpu, enum cpu_leave why)
{
	cpu->leave = why;
	return STOP_LEAVE;
}

/*
 * DIFFERS: an event's frame is pushed without alignment checks. On hardware the delivery of #AC
 * onto a stack that is not aligned raises #AC, for ever (XSA-156); here the handler runs.
 */
static enum stop deliver_type(struct cpu *cpu, enum event_type type, const struct exception *x)
{
	struct delivery d = describe(cpu, type, x);
	struct fault fault; /* implicit accesses prove nothing for the emulator */
	struct env_cpu e;
	enum stop stop;

	commit_payload(cpu, x);
	env_cpu_init(&e, cpu, &fault);
	e.env.no_ac = true;
	stop = deliver_once(&e.env, &d);
	if (stop == STOP_NPF) { /* once more, item by item: which push was the first without RAM? */
		env_cpu_init(&e, cpu, &fault);
		e.env.exact = e.env.no_ac = true;
		stop = deliver_once(&e.env, &d);
		cpu->leave_gpa = fault.gpa;
	}
	return stop;
}

static void commit(struct cpu *cpu, enum event_type type)
{
	if (type == EVENT_NMI)
		cpu->nmi_blocked = true;
	cpu->shadow = cpu->shadow_ss = false;
	cpu->rip = cpu->next_rip;
	cpu_update(cpu);
}

enum stop cpu_deliver(struct cpu *cpu, enum event_type type, const struct exception *x)
{
	struct exception cur = *x;
	enum event_class class, second;
	enum stop stop;

	for (;;) {
		class = classify(type, cur.vector);
		stop = deliver_type(cpu, type, &cur);
		if (stop == STOP_OK) {
			commit(cpu, type);
			return STOP_OK;
		}
		if (stop != STOP_EXC) {
			cpu->exc = cur;
			return leave(cpu, LEAVE_VECTORING);
		}
		if (type == EVENT_NMI)
			cpu->nmi_blocked = true;
		second = classify(EVENT_EXC, cpu->exc.vector);
		if (class == DOUBLE_FAULT)
			return leave(cpu, LEAVE_SHUTDOWN);
		cur = cpu->exc;
		if (makes_double_fault(class, second))
			cur = (struct exception){.vector = EXC_DF, .has_error = true};
		type = EVENT_EXC;
	}
}

/* ---- INT n, INT3, INTO, INT1: SDM 2A ---- */

typedef enum stop deliver_fn(struct env *e, const struct delivery *d);

static enum stop deliver_soft(struct env *e, u8 vector, deliver_fn *deliver, bool soft)
{
	struct cpu *cpu = e->cpu;
	struct delivery d = {
		.vector = vector,
		.soft = soft,
		.rip = cpu->next_rip,
		.eflags = cpu_eflags(cpu),
	};

	TRY(deliver(e, &d));
	cpu->completion = DONE_EVENT;
	return STOP_OK;
}

/* Does the redirection bitmap, below the I/O bitmap in the TSS, give this INT n to the V86 task? */
static enum stop read_redirection(struct env *e, u8 vector, bool *own)
{
	struct cpu *cpu = e->cpu;
	u16 io_map;
	u32 at;
	u8 bits;

	if (cpu->tr.unusable || !(cpu->tr.attr & 8) || cpu->tr.limit < TSS_IOMAP + 1)
		return cpu_gp(cpu, 0);
	TRY(env_read_system(e, cpu->tr.base + TSS_IOMAP, 2, &io_map));
	at = io_map - 32u + vector / 8;
	if (at > cpu->tr.limit)
		return cpu_gp(cpu, 0);
	TRY(env_read_system(e, cpu->tr.base + at, 1, &bits));
	*own = !(bits >> (vector & 7) & 1);
	return STOP_OK;
}

/* SDM 3A 20.3.3, table 20-2 */
enum stop exec_int(struct cpu *cpu, const struct insn *i, struct env *e)
{
	bool own = false;

	if (cpu_v86(cpu) && (cpu->cr4 & CR4_VME))
		TRY(read_redirection(e, i->imm, &own));
	if (!own && cpu_v86(cpu) && cpu_iopl(cpu) < 3)
		return cpu_gp(cpu, 0);
	return deliver_soft(e, i->imm, own ? deliver_v86 : deliver_once, true);
}

/* KVM_GUESTDBG_USE_SW_BP: raised as a fault, so that the debugger sees RIP at the INT3. */
enum stop exec_int3(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i;
	if (cpu->guest_debug_sw)
		return cpu_raise(cpu, EXC_BP);
	return deliver_soft(e, EXC_BP, deliver_once, true);
}

enum stop exec_into(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i;
	return cpu->fl & FI_OF ? deliver_soft(e, EXC_OF, deliver_once, true) : STOP_OK;
}

/*
 * F1 is a privileged software exception: no check of the gate's DPL. Its #DB takes the data
 * breakpoints with it that a MOV SS just before has held back.
 */
enum stop exec_int1(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 held = cpu->guest_debug_hw ? 0 : cpu->data_hits;
	struct exception x = {.vector = EXC_DB, .has_payload = held, .payload = held};

	(void)i;
	TRY(deliver_soft(e, EXC_DB, deliver_once, false));
	commit_payload(cpu, &x);
	cpu->data_hits &= ~held;
	return STOP_OK;
}
