// SPDX-License-Identifier: MIT
/*
 * cpu_run: the loop around the threaded interpreter, and its slow path. Requests from
 * outside and events are taken between blocks (run_events); single steps go one by one.
 */
#include "cpu/interp.h"

#include <errno.h>
#include <string.h>

#include "cpu/debug.h"
#include "cpu/native.h"
#include "cpu/step.h"

/* ---- the slow path of a handler: cpu_exec in the processor's environment ---- */

/* Describe it for the caller of cpu_run. */
static enum stop exec_ends(struct cpu *cpu, const struct insn *i, enum stop stop)
{
	if (unlikely(stop != STOP_OK))
		cpu->exit->insn = *i;
	return stop;
}

static enum stop exec_one(struct cpu *cpu, const struct insn *i)
{
	struct env_cpu e;

	env_cpu_init(&e, cpu, &cpu->exit->fault);
	return exec_ends(cpu, i, cpu_exec(cpu, i, &e.env));
}

/*
 * The same inside a block, where no trap or shadow is around the instruction: the emulator may take
 * it over. It retires the instruction itself; the block ends there if the device asks for anything.
 */
static enum stop exec_in_block(struct cpu *cpu, const struct insn *i)
{
	struct env_cpu e;
	enum stop stop;

	env_cpu_init(&e, cpu, &cpu->exit->fault);
	e.insn = i;
	stop = cpu_exec(cpu, i, &e.env);
	if (unlikely(e.env.state)) {
		stop = cpu->ops->taken_over(cpu, stop);
		cpu->tbs->written |= !!(cpu->request & cpu->request_mask);
		cpu->completion = DONE_PLAIN;
		cpu->insns -= stop == STOP_OK;
	}
	return exec_ends(cpu, i, stop);
}

/* Run the instruction of u; what cannot go on inside the block has been left in cpu. */
static NOINLINE enum stop slow_exec(struct cpu *cpu, const struct uop *u, u64 fl)
{
	struct tb *tb = container_of(u - u->k, struct tb, uop[0]);
	enum stop stop;

	cpu->tbs->cur = tb;
	cpu->tbs->written = false;
	cpu->fl = fl;
	cpu->rip = cpu->regs[GPR_RIP] + u->off;
	stop = exec_in_block(cpu, &tb->insn[u->k]);
	cpu->tbs->cur = NULL;
	if (stop != STOP_OK && stop != STOP_LEAVE)
		cpu->insns -= tb->n - u->k;
	return stop;
}

/* A SYSRET that sets TF traps at once, a REP that goes on has RF. */
static NOINLINE enum stop after_special(struct cpu *cpu)
{
	if (cpu->completion == DONE_PART)
		step_rf(cpu);
	if (cpu->completion == DONE_TF_NOW && (cpu->eflags & EFL_TF))
		return step_after(cpu, true, STOP_OK);
	return STOP_OK;
}

u64 uop_slow(struct cpu *cpu, const struct uop *u, u64 fl)
{
	u64 next = cpu->regs[GPR_RIP] + u->off + u->len;
	enum stop stop = slow_exec(cpu, u, fl);

	if (unlikely(stop != STOP_OK))
		return stop;
	if (unlikely(cpu->rip != next || cpu->tbs->written || u[1].fn == uop_end ||
		     (cpu->request & REQ_STEP))) { /* STI's shadow */
		cpu->insns -= container_of(u - u->k, struct tb, uop[0])->n - u->k - 1;
		return unlikely(cpu->completion != DONE_PLAIN) ? after_special(cpu) : STOP_OK;
	}
	NEXT(u, cpu->fl);
}

u64 uop_cold(struct cpu *cpu, const struct uop *u, u64 fl)
{
	struct tb *tb = container_of(u, struct tb, uop[0]);

	if (unlikely(!--tb->cold))
		tb_translate(cpu, tb);
	return tb->warm(cpu, u, fl);
}

u64 uop_end(struct cpu *cpu, const struct uop *u, u64 fl)
{
	u64 start = cpu->regs[GPR_RIP];

	return goto_direct(cpu, TAKEN(u), start, start + u->imm, fl);
}

/* ---- the loop ---- */

static u32 new_cs_id(struct tb_cache *c)
{
	if (++c->cs_ids >> CS_ID_BITS) {
		memset(c->jc, 0, sizeof(c->jc));
		memset(c->cs, 0, sizeof(c->cs));
		c->cs_ids = 1;
	}
	return c->cs_ids;
}

static u64 cs_id(const struct cpu *cpu)
{
	const struct segment *cs = &cpu->seg[SEG_CS];
	unsigned int k = (cs->base >> 4 ^ cs->base >> 8 ^ cs->base >> 12) % CS_SLOTS;
	struct tb_cache *c = cpu->tbs;

	if (cpu->mode == MODE_64)
		return 0;
	if (!c->cs[k].id || c->cs[k].base != cs->base || c->cs[k].limit != cs->limit) {
		c->cs[k].id = new_cs_id(c);
		c->cs[k].base = cs->base;
		c->cs[k].limit = cs->limit;
	}
	return c->cs[k].id;
}

/* What the blocks depend on besides rip. */
static u64 mode_salt(const struct cpu *cpu)
{
	bool ac = (cpu->cr0 & CR0_AM) && (cpu->eflags & EFL_AC) && cpu->cpl == 3;

	return cs_id(cpu) << 40 | cpu->mode | cpu->flat | (ac ? TBM_SLOW : 0) |
		(cpu->cpl == 3 ? TBM_USER : 0);
}

/* Bring the jump cache's salt up to date. Returns that of this half. */
static u64 update_salt(struct cpu *cpu, unsigned int half)
{
	u64 mode = mode_salt(cpu), salt = mode | (u64)cpu->mmu.fetched[half].epoch << 8;

	cpu->tbs->salt[half] = salt;
	cpu->tbs->salt[!half] = mode | (u64)cpu->mmu.fetched[!half].epoch << 8;
	return salt;
}

/* What translated code leads to is worth to be translated. */
static void link_edge(struct cpu *cpu, struct edge *e, struct tb *tb)
{
	if (tb->cold)
		tb_translate(cpu, tb);
	cpu->translator->link(cpu->translator, e, tb);
}

/* The branch that missed may remember this block, if nothing happened in between. */
static NOINLINE void fill_link(struct cpu *cpu, struct tb *tb, bool same)
{
	struct tb_cache *c = cpu->tbs;

	if (c->link_rip == cpu->rip && same && !tb->len2 && (cpu->mode == MODE_64 || cpu->flat)) {
		if (c->link)
			*c->link = tb;
		if (c->edge && !(cpu->request & REQ_COUNT)) /* counted time looks at each block */
			link_edge(cpu, c->edge, tb);
	}
	c->link = NULL;
	c->edge = NULL;
}

/*
 * Calls the first handler. Translated code uses all registers as it likes, and no handler has
 * anything of its own in those that it saves: here they come back.
 */
__attribute__((naked)) static u64 enter_thread(
	__attribute__((unused)) struct cpu *cpu, __attribute__((unused)) const struct uop *u,
	__attribute__((unused)) u64 fl, __attribute__((unused)) uop_fn *fn)
{
	asm("push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; sub $8, %rsp\n\t"
	    "call *%rcx\n\t"
	    "add $8, %rsp; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret");
}

/* The jump cache has it as long as its bytes are where they are now. */
static void remember(struct cpu *cpu, struct jc_entry *j, struct tb *tb)
{
	enum mmu_attr attr = cpu->cpl == 3 ? MMU_USER : MMU_KERNEL;
	u64 linear = cpu->rip;

	if (cpu->mode != MODE_64)
		linear = (u32)(linear + cpu->seg[SEG_CS].base);
	if (tb->len2 && !(u32)(linear + tb->len))
		return; /* its second page is page 0, in the other half: looked up each time */
	mmu_note_fetch(&cpu->mmu, gva(linear), attr);
	if (tb->len2)
		mmu_note_fetch(&cpu->mmu, gva(linear + tb->len), attr);
	*j = (struct jc_entry){cpu->rip, jc_salt(cpu->tbs, cpu->rip), tb, 0};
}

static enum stop run_block(struct cpu *cpu)
{
	struct tb_cache *c = cpu->tbs;
	struct jc_entry *j = &c->jc[jc_index(cpu->rip)];
	unsigned int half = cpu->rip >> 63;
	u64 old_salt = c->salt[half], salt = update_salt(cpu, half);
	enum stop stop;
	struct tb *tb;

	if (OPT_BLOCKS && j->rip == cpu->rip && j->salt == salt && tb_same(j->tb)) {
		tb = j->tb;
	} else {
		TRY(tb_find(cpu, &tb));
		remember(cpu, j, tb);
	}
	if (c->link || c->edge)
		fill_link(cpu, tb, old_salt == salt);
	c->in_thread = true;
	cpu->regs[GPR_RIP] = cpu->rip;
	cpu->insns += tb->n;
	stop = enter_thread(cpu, tb->uop, cpu->fl, tb->uop[0].fn);
	c->in_thread = false;
	return stop;
}

/* One instruction with everything that can be pending around it (TF, shadow, breakpoints). */
static enum stop run_step(struct cpu *cpu)
{
	bool tf = cpu->eflags & EFL_TF, shadow = cpu->shadow, shadow_ss = cpu->shadow_ss;
	struct insn i;
	enum stop stop;

	TRY(debug_check_fetch(cpu));
	TRY(tb_fetch_one(cpu, &i));
	cpu->shadow = cpu->shadow_ss = false;
	if (!shadow_ss) /* else those of MOV SS wait (SDM 3A 6.8.3) */
		cpu->data_hits = 0;
	stop = exec_one(cpu, &i);
	if (stop != STOP_OK && stop != STOP_LEAVE) {
		cpu->shadow = shadow;
		cpu->shadow_ss = shadow_ss;
		return stop;
	}
	cpu->insns++;
	if (shadow && cpu->shadow && insn_op(&i) == OP_STI)
		cpu->shadow = false; /* only the first of several STIs blocks */
	step_rf(cpu);
	return step_after(cpu, step_tf(cpu, tf), stop);
}

/* A request is set: take events. STOP_LEAVE: cpu->leave says why to leave cpu_run. */
static enum stop run_events(struct cpu *cpu)
{
	int vector;

	if (cpu->request & REQ_KICK || (cpu->request & REQ_COUNT && cpu->insns >= cpu->insn_limit)) {
		cpu_unrequest(cpu, REQ_KICK);
		cpu->leave = LEAVE_KICK;
		return STOP_LEAVE;
	}
	if (cpu->request & REQ_FLUSH) {
		cpu_unrequest(cpu, REQ_FLUSH);
		mmu_flush_writes(&cpu->mmu);
	}
	if ((cpu->request & REQ_EVENT) && cpu->event.pending)
		return cpu_inject(cpu);
	if ((cpu->request & cpu->request_mask & REQ_SMI))
		return cpu_enter_smm(cpu);
	if ((cpu->request & cpu->request_mask & REQ_NMI) && cpu->nmi_pending) {
		cpu->nmi_pending--;
		return cpu_deliver(cpu, EVENT_NMI, &(struct exception){.vector = EXC_NMI});
	}
	if (!(cpu->request & cpu->request_mask & REQ_IRQ))
		return STOP_OK;
	cpu_unrequest(cpu, REQ_IRQ); /* before looking: a later one sets it again */
	vector = cpu->ops->irq_ack(cpu);
	if (vector < 0) {
		cpu->leave = LEAVE_IRQ_WINDOW;
		return cpu->irq_window ? STOP_LEAVE : STOP_OK;
	}
	if (cpu->irq_window || cpu->ops->irq_pending(cpu))
		cpu_request(cpu, REQ_IRQ);
	return cpu_deliver(cpu, EVENT_IRQ, &(struct exception){.vector = vector});
}

static enum cpu_leave stop_reason(const struct cpu *cpu, enum stop stop)
{
	switch (stop) {
	case STOP_OK:
		return LEAVE_NONE;
	case STOP_NPF:
		if (cpu->exit->fault.stage == FAULT_FINAL || cpu->exit->fault.stage == FAULT_FORCED)
			return LEAVE_NPF;
		return LEAVE_FETCH;
	case STOP_PIO:
		return LEAVE_PIO;
	case STOP_LEAVE:
	case STOP_USER:
		return cpu->leave;
	default:
		return LEAVE_FAIL;
	}
}

void cpu_run(struct cpu *cpu, struct cpu_exit *exit)
{
	enum stop stop;

	if (HARD)
		memset(exit, 0xa5, sizeof(*exit)); /* nobody may need what the last exit said */
	cpu->exit = exit;
	do {
		exit->fault.stage = FAULT_NONE;
		stop = STOP_OK;
		if (unlikely(cpu->request & (cpu->request_mask | REQ_KICK | REQ_FLUSH | REQ_EVENT)))
			stop = run_events(cpu);
		if (stop == STOP_OK)
			stop = cpu->request & REQ_STEP ? run_step(cpu) : run_block(cpu);
		if (stop == STOP_EXC && unlikely(cpu->force_emulation))
			stop = force_emulation(cpu);
		if (stop == STOP_EXC)
			stop = step_intercept(cpu) ? STOP_LEAVE
						    : cpu_deliver(cpu, EVENT_EXC, &cpu->exc);
	} while (stop == STOP_OK && !HARD);
	exit->reason = stop_reason(cpu, stop);
	exit->exc = cpu->exc;
	exit->msr = cpu->leave_msr;
	if (exit->reason == LEAVE_VECTORING)
		exit->gpa = cpu->leave_gpa;
	exit->why = cpu->fail;
	cpu->exit = NULL;
}

int cpu_attach(struct cpu *cpu)
{
	int err;

	if (!cpu->tbs) {
		err = tb_cache_create(cpu);
		if (err)
			return err;
		cpu->mmu.watched = tb_page_watched;
		cpu->mmu.opaque = cpu;
	}
	if (!cpu->native) {
		cpu->native = native_create();
		if (!cpu->native)
			return errno == EMFILE || errno == ENFILE ? -errno : -ENOMEM;
	}
	err = mmu_attach(&cpu->mmu);
	if (err)
		return err;
	if (cpu->mmu.slots->generation != cpu->slots_generation) {
		tb_flush_all(cpu);
		cpu->slots_generation = cpu->mmu.slots->generation;
	}
	if (!cpu->data_tlb) /* the TLB has just been made */
		cpu_update(cpu);
	return 0;
}

void cpu_detach(struct cpu *cpu)
{
	mmu_detach(&cpu->mmu);
}
