// SPDX-License-Identifier: MIT
/*
 * Exit-time emulation from outside: passes of the handler over the pending record, with
 * user space's answers in between. Read emul.h and env_exit.c before.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hard.h"
#include "emul/emul_impl.h"

static enum emul_gpa_mode mode_from(const char *s)
{
	if (s && (!strcmp(s, "off") || !strcmp(s, "0")))
		return EMUL_GPA_OFF;
	if (s && (!strcmp(s, "verify") || !strcmp(s, "2")))
		return EMUL_GPA_VERIFY;
	return EMUL_GPA_ON;
}

int emul_init(struct emul *em, const struct emul_bus *bus)
{
	const char *batch = getenv("ANYKVM_OUTS_BATCH"), *trace = getenv("ANYKVM_TRACE");

	*em = (struct emul){
		.bus = *bus,
		.mode = mode_from(getenv("ANYKVM_GPA")),
		.outs_batch = !batch || strcmp(batch, "0"),
		.quirk_out_7e = true,
		.trace = trace && strstr(trace, "emul"),
		.exec = cpu_exec,
		.pending = calloc(1, sizeof(struct pending)),
		.taken = calloc(1, sizeof(struct env_exit)),
	};
	return em->pending && em->taken ? 0 : -ENOMEM;
}

void emul_free(struct emul *em)
{
	free(em->pending);
	free(em->taken);
	em->pending = NULL;
	em->taken = NULL;
}

bool emul_is_pending(const struct emul *em)
{
	return em->pending && em->pending->active;
}

void emul_drop(struct emul *em)
{
	if (em->pending)
		em->pending->active = false;
}

void emul_registers_set(struct emul *em)
{
	if (emul_is_pending(em))
		em->pending->moved = true;
}

static u64 linear_rip(const struct cpu *cpu)
{
	return cpu->mode == MODE_64 ? cpu->rip : (u32)(cpu->seg[SEG_CS].base + cpu->rip);
}

/* ---- leaving and coming back */

/* A fragment is for user space. */
static enum emul_result park(struct emul *em, struct cpu *cpu)
{
	struct pending *rec = em->pending;

	rec->active = true;
	rec->linear_rip = linear_rip(cpu); /* to see whether user space moves it (rule 27) */
	pending_piece(rec, &rec->log[rec->cur], rec->cur_write, &em->fragment);
	return EMUL_EXIT;
}

/* Bring the writes that are final to their devices, in order. false: a fragment is next. */
static bool deliver(struct emul *em, struct cpu *cpu)
{
	struct pending *rec = em->pending;
	int k;

	while ((k = pending_undelivered(rec)) >= 0)
		if (!pending_perform(em, cpu, &rec->log[k], true)) {
			rec->cur = k;
			rec->cur_write = true;
			return false;
		}
	return true;
}

/* ---- one pass of the handler */

static enum emul_result fail(struct emul *em)
{
	em->stats.insn_emulation_fail++;
	emul_drop(em);
	return EMUL_FAIL;
}

static u64 next_rip(const struct cpu *cpu, const struct insn *i)
{
	u64 next = cpu->rip + i->len;

	return cpu->mode == MODE_64 ? next : (u32)next;
}

/* May RIP be behind the instruction while its OUT is with user space? (rules 18, 30) */
static bool out_advances_rip(const struct emul *em, const struct log_entry *l)
{
	return emul_is_string_io(&em->pending->insn) || (l->port == 0x7e && em->quirk_out_7e);
}

static void set_shadow(struct cpu *cpu, bool shadow, bool shadow_ss)
{
	cpu->shadow = shadow;
	cpu->shadow_ss = shadow_ss;
}

/* The instruction is over, all has been delivered. */
static enum emul_result retire(struct emul *em, struct cpu *cpu, enum emul_result result)
{
	struct pending *rec = em->pending;
	bool shadow = cpu->shadow && !rec->holds_rip, shadow_ss = cpu->shadow_ss;

	rec->active = false;
	if (result == EMUL_EXCEPTION)
		return result;
	if (rec->holds_rip)
		cpu->rip = next_rip(cpu, &rec->insn);
	cpu_retire(cpu, rec->tf);
	if (shadow) { /* this was MOV SS or POP SS: its own shadow begins */
		cpu->shadow = shadow;
		cpu->shadow_ss = shadow_ss;
		cpu_update(cpu);
	}
	return result;
}

/* The same after an exit to user space. */
static enum emul_result conclude(struct emul *em, struct cpu *cpu)
{
	struct pending *rec = em->pending;

	cpu->exc = rec->exc;
	cpu->leave = rec->leave;
	cpu->leave_msr = rec->leave_msr;
	return retire(em, cpu, rec->result);
}

/* The handler is through. What it wrote last may still have to be delivered (rules 17, 18). */
static enum emul_result finish(struct emul *em, struct cpu *cpu, enum emul_result result)
{
	struct pending *rec = em->pending;

	rec->finished = true;
	if (deliver(em, cpu))
		return retire(em, cpu, result);
	rec->result = result;
	rec->exc = cpu->exc;
	rec->leave = cpu->leave;
	rec->leave_msr = cpu->leave_msr;
	if (rec->log[rec->cur].kind == LOG_MEM) {
		em->stats.mmio_exits++;
	} else if (!out_advances_rip(em, &rec->log[rec->cur])) {
		rec->holds_rip = true;
		cpu->rip = rec->rip;
		set_shadow(cpu, rec->shadow, rec->shadow_ss);
	}
	return park(em, cpu);
}

/* The handler waits for user space: for an earlier write, or for its read. */
static enum emul_result wait_for_user(struct emul *em, struct cpu *cpu)
{
	struct pending *rec = em->pending;
	int k = pending_undelivered(rec);

	rec->cur_write = k >= 0;
	if (k >= 0)
		rec->cur = k;
	if (rec->log[rec->cur].kind == LOG_MEM)
		em->stats.mmio_exits++;
	return park(em, cpu);
}

static void begin_pass(struct pending *rec, struct cpu *cpu)
{
	rec->pos = 0;
	rec->rip = cpu->rip;
	rec->tf = cpu->eflags & EFL_TF;
	rec->shadow = cpu->shadow;
	rec->shadow_ss = cpu->shadow_ss;
	set_shadow(cpu, false, false);
}

enum stop emul_pass(struct emul *em, struct cpu *cpu, bool *failed_replay)
{
	struct pending *rec = em->pending;
	struct env env = {0};
	struct env_exit e;
	enum stop stop;

	env_exit_init(&e, em, &env, cpu);
	begin_pass(rec, cpu);
	stop = em->exec(cpu, &rec->insn, &env);
	if (stop != STOP_OK && stop != STOP_LEAVE)
		set_shadow(cpu, rec->shadow, rec->shadow_ss);
	*failed_replay = e.failed_replay;
	return stop;
}

/* The same, replayed in the self-checking build. */
static enum stop checked_pass(struct emul *em, struct cpu *cpu, bool *failed_replay)
{
	struct cpu entry;
	enum stop stop;

	selfcheck_copy(&entry, cpu);
	stop = emul_pass(em, cpu, failed_replay);
	selfcheck_replay(em, cpu, &entry, stop);
	return stop;
}

static enum emul_result after_pass(struct emul *em, struct cpu *cpu, enum stop stop, bool failed_replay)
{
	struct pending *rec = em->pending;

	switch (stop) {
	case STOP_OK:
		return finish(em, cpu, EMUL_DONE);
	case STOP_LEAVE:
		return finish(em, cpu, EMUL_LEAVE);
	case STOP_EXC:
		return finish(em, cpu, EMUL_EXCEPTION);
	case STOP_EXIT:
		return wait_for_user(em, cpu);
	case STOP_NPF: /* the next page of a REP: the processor proves it */
		rec->active = false;
		return EMUL_DONE;
	case STOP_PIO:
	case STOP_USER: /* RDMSR and WRMSR have no memory operand */
	case STOP_FAIL:
		break;
	}
	/* new registers that lead elsewhere are user space's wish: the operation is dropped */
	if (failed_replay && rec->moved) {
		emul_drop(em);
		return EMUL_RESTART;
	}
	return fail(em);
}

static enum emul_result run_pass(struct emul *em, struct cpu *cpu)
{
	bool failed_replay;
	enum stop stop = (HARD ? checked_pass : emul_pass)(em, cpu, &failed_replay);

	return after_pass(em, cpu, stop, failed_replay);
}

/* A plain write to a zero-length ioeventfd: the fault says all, in mode off too (rule 23). */
static bool rings(const struct emul *em, const struct fault *fault)
{
	return fault->stage == FAULT_FINAL && fault->access == MMU_W && em->bus.doorbell &&
		em->bus.doorbell(em->bus.opaque, fault->gpa);
}

static void start(
	struct emul *em, struct cpu *cpu, const struct insn *insn, const struct fault *fault)
{
	bool bell = rings(em, fault);

	if (fault->stage == FAULT_PIO)
		em->stats.io_exits++;
	if (!bell && (fault->stage != FAULT_PIO || emul_is_string_io(insn)))
		em->stats.insn_emulation++; /* KVM counts no IN and OUT: they need no decoding */
	cpu->data_hits = 0;
	pending_start(em->pending, insn, fault, em->mode != EMUL_GPA_OFF || bell, cpu->mmu.epoch);
	em->pending->doorbell = bell;
	em->pending->bell = fault->gpa;
}

enum emul_result emul_run(
	struct emul *em, struct cpu *cpu, const struct insn *insn, const struct fault *fault)
{
	start(em, cpu, insn, fault);
	return run_pass(em, cpu);
}

/* ---- a handler of the processor goes on here, at its first barrier */

enum stop emul_take_over(struct emul *em, struct cpu *cpu, struct env *env, const struct insn *insn,
	const struct fault *fault)
{
	start(em, cpu, insn, fault);
	begin_pass(em->pending, cpu);
	env_exit_init(em->taken, em, env, cpu);
	for (unsigned int k = 0; k < env->nr_pending; k++)
		TRY(env->ops->map(env, env->pending[k]));
	return STOP_OK;
}

enum emul_result emul_taken_over(struct emul *em, struct cpu *cpu, enum stop stop)
{
	return after_pass(em, cpu, stop, em->taken->failed_replay);
}

bool emul_device_load(struct emul *em, const struct cpu *cpu, const struct xlat *x, unsigned int len,
	u64 *v)
{
	const struct xlat_want w = {
		.gva = x->gva,
		.len = len,
		.need = MMU_R,
		.attr = x->attr,
		.epoch = cpu->mmu.epoch,
	};
	gpa_t g;

	*v = 0;
	if (em->mode != EMUL_GPA_ON || em->trace || xlat_match(x, FAULT_FINAL, &w, &g) != XLAT_HIT ||
		em->bus.mmio_read(em->bus.opaque, g, len, v))
		return false;
	em->stats.gpa_hit++;
	em->stats.insn_emulation++;
	return true;
}

static enum emul_result complete(struct emul *em, struct cpu *cpu, const void *reply)
{
	struct pending *rec = em->pending;
	struct log_entry *l = &rec->log[rec->cur];
	const struct fragment *f = &em->fragment;

	if (f->is_pio)
		em->stats.complete_pio++;
	else
		em->stats.complete_mmio++;
	if (linear_rip(cpu) != rec->linear_rip) {
		emul_drop(em);
		return EMUL_RESTART;
	}
	rec->active = false;
	l->flags &= ~LOG_USER;
	if (f->is_write) {
		l->wdone += f->len;
	} else {
		bytes_copy(rec->data + l->rdata + l->rdone, reply, f->len);
		l->rdone += f->len;
		if (!pending_perform(em, cpu, l, false))
			return park(em, cpu);
	}
	if (!deliver(em, cpu))
		return park(em, cpu);
	return rec->finished ? conclude(em, cpu) : run_pass(em, cpu);
}

enum emul_result emul_complete(struct emul *em, struct cpu *cpu, const void *reply)
{
	u64 walks = HARD ? selfcheck_walks(cpu) : 0;
	enum emul_result r;

	cpu->completing = true;
	r = complete(em, cpu, reply);
	cpu->completing = false;
	hard_check(em->mode == EMUL_GPA_OFF || em->pending->moved || em->pending->retracted ||
		selfcheck_walks(cpu) == walks);
	return r;
}

/* ---- messages */

/* The instruction's bytes, as far as they can be read without any effect. */
static unsigned int code_bytes(struct cpu *cpu, unsigned int len, char *buf, size_t n)
{
	u64 at = linear_rip(cpu);
	struct xlat x;
	u32 error;
	size_t used = 0;
	u8 *p;

	buf[0] = 0;
	for (unsigned int k = 0; k < len && used + 3 < n; k++) {
		if (!cpu->mmu.slots || mmu_walk(&cpu->mmu, gva(at + k), 1, MMU_X, cpu_data_attr(cpu),
			WALK_DEBUG, &x, &error) != MMU_OK)
			break;
		p = mem_hva(cpu->mmu.slots, x.gpa, 1, false);
		if (!p)
			break;
		used += snprintf(buf + used, n - used, "%s%02x", k ? " " : "", *p);
	}
	return used;
}

/* What the guest's tables allow at the fault's address: of the proved translation, if there is one. */
static const char *proved_rights(const struct fault *fault)
{
	static const char *const text[8] = {"none", "r", "w", "rw", "x", "rx", "wx", "rwx"};

	for (unsigned int k = 0; k < MIN(fault->n, MAX_XLAT); k++)
		if (!((fault->x[k].gva.v ^ fault->gva.v) & PAGE_MASK))
			return text[fault->x[k].rights & 7];
	return "not proved";
}

void emul_explain(struct cpu *cpu, const struct insn *insn, const struct fault *fault, char *buf, size_t n)
{
	char text[96], bytes[15 * 3 + 1];

	insn_text(insn, text, sizeof(text));
	code_bytes(cpu, insn->len, bytes, sizeof(bytes));
	snprintf(buf, n, "%s (%s) at rip %#llx, gva %#llx gpa %#llx len %u %s, rights %s: %s", text, bytes,
		(unsigned long long)cpu->rip, (unsigned long long)fault->gva.v,
		(unsigned long long)fault->gpa.v, fault->len,
		fault->access & MMU_W ? "write" : "read", proved_rights(fault), cpu->fail ? cpu->fail : "no reason given");
}
