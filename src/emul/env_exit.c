// SPDX-License-Identifier: MIT
/*
 * The exit environment: what a handler sees when its instruction runs at exit time. Each
 * env_map and env_pio is one entry of the record's log, in order. On the first pass they are
 * made and performed; on a replay they are found there and served. Never reads the soft TLB.
 *
 * Writes to user space do not stop the handler: one may be outstanding when it ends, with
 * registers and RIP advanced (SEED rule 18). Whatever else wants to touch a device first
 * waits until it has been delivered: STOP_EXIT, and the replay comes back to the same place.
 */
#include "emul/emul_impl.h"

#include <string.h>

#include "cpu/debug.h"

static struct env_exit *to_env_exit(struct env *e)
{
	return container_of(e, struct env_exit, env);
}

/* ---- replay */

/*
 * A replay must ask for exactly what is in the log (rule 15). If user space has changed
 * registers meanwhile, the address may differ: the access has been made, it is served.
 */
static bool same_access(const struct pending *rec, const struct log_entry *l,
	const struct log_entry *want)
{
	if (l->kind != want->kind || l->need != want->need || l->len0 > l->len)
		return false;
	if (l->kind == LOG_PIO && rec->moved)
		return l->size == want->size;
	if (l->kind == LOG_PIO)
		return l->port == want->port && l->size == want->size && l->len <= want->len;
	if (l->len != want->len)
		return false;
	return rec->moved || (l->gva.v == want->gva.v && l->attr == want->attr);
}

static enum stop bad_replay(struct env_exit *e)
{
	e->failed_replay = true;
	return cpu_fail(e->env.cpu, "replay asked for an access that is not in the log");
}

/* The next entry: *known says whether an earlier pass has made it. */
static enum stop next_entry(
	struct env_exit *e, const struct log_entry *want, struct log_entry **out, bool *known)
{
	struct pending *rec = e->rec;

	*known = rec->pos < rec->nr;
	*out = *known ? &rec->log[rec->pos] : pending_add(rec);
	if (!*out)
		return cpu_fail(e->env.cpu, "too many accesses in one instruction");
	if (*known && !same_access(rec, *out, want))
		return bad_replay(e);
	if (!*known)
		**out = *want;
	rec->pos++;
	return STOP_OK;
}

/* ---- step 1: map */

static enum stop prove_part(struct env_exit *e, const struct access *a, gva_t v, u16 len, gpa_t *out)
{
	struct cpu *cpu = e->env.cpu;
	struct xlat_want w = {
		.gva = v,
		.len = len,
		.need = a->need | MMU_R, /* what may be written may be read */
		.attr = a->attr | cpu->mmu.space << 4,
		.epoch = e->rec->epoch,
	};
	struct xlat x;
	u32 error;

	if (unlikely((cpu->dr7 & 0xff) || cpu->guest_debug_hw))
		cpu->data_hits |= debug_check_data(cpu, v, len, a->need & MMU_W);
	if (!a->system)
		return emul_translate(e, &w, out);
	switch (mmu_walk(&cpu->mmu, v, len, w.need, a->attr, WALK_SYSTEM, &x, &error)) {
	case MMU_OK:
		*out = x.gpa;
		if (!mem_hva(cpu->mmu.slots, x.gpa, len, a->need & MMU_W))
			return cpu_fail(cpu, "descriptor table is not in RAM");
		return STOP_OK;
	case MMU_FAULT:
		cpu_raise_error(cpu, EXC_PF, error);
		cpu->exc.has_payload = true;
		cpu->exc.payload = v.v;
		return STOP_EXC;
	case MMU_NONCANON:
		break;
	}
	return cpu_gp(cpu, 0);
}

/* Linear addresses wrap at 4 GiB outside 64-bit mode (C17). */
static gva_t second_page(const struct cpu *cpu, const struct access *a, u32 left)
{
	bool wide = a->system ? cpu->long_mode : cpu->mode == MODE_64;

	return gva(wide ? a->gva.v + left : (u32)(a->gva.v + left));
}

static enum stop prove(struct env_exit *e, const struct access *a, struct log_entry *want)
{
	TRY(prove_part(e, a, a->gva, want->len0, &want->gpa[0]));
	if (want->len0 == a->len)
		return STOP_OK;
	return prove_part(e, a, second_page(e->env.cpu, a, want->len0), a->len - want->len0,
		&want->gpa[1]);
}

/* For handlers that want to know whether the operand is RAM. */
static void describe_parts(const struct cpu *cpu, struct access *a, const struct log_entry *l)
{
	a->nr_parts = l->len0 == l->len ? 1 : 2;
	a->part[0].len = l->len0;
	a->part[1].len = l->len - l->len0;
	for (unsigned int k = 0; k < a->nr_parts; k++)
		a->part[k].hva = mem_hva(
			cpu->mmu.slots, l->gpa[k], a->part[k].len, a->need & MMU_W);
}

static enum stop exit_map(struct env *env, struct access *a)
{
	struct env_exit *e = to_env_exit(env);
	struct log_entry *l, want = {
		.gva = a->gva,
		.len = a->len,
		.len0 = MIN(a->len, page_left(a->gva.v)),
		.kind = a->system ? LOG_SYSTEM : LOG_MEM,
		.need = a->need,
		.attr = a->attr,
		.flags = env->rest ? LOG_REST : 0,
	};
	bool known;

	if (e->rec->pos >= e->rec->nr)
		TRY(prove(e, a, &want));
	a->log = e->rec->pos;
	TRY(next_entry(e, &want, &l, &known));
	a->p = a->bounce;
	describe_parts(env->cpu, a, l);
	return STOP_OK;
}

/* Memory slots can change while an exit is outstanding; a descriptor table never is a device. */
static bool system_lost(const struct access *a)
{
	return a->system && (!a->part[0].hva || (a->nr_parts == 2 && !a->part[1].hva));
}

/* ---- step 2: begin */

/*
 * Read-modify-write of plain RAM: the handler works on RAM itself, so that LOCK is atomic
 * (rule 34). Nothing that follows in such an instruction can exit.
 */
static bool begin_direct(struct env_exit *e, struct access *a, struct log_entry *l)
{
	struct cpu *cpu = e->env.cpu;
	gpa_t g = l->gpa[0];

	if (a->need != (MMU_R | MMU_W) || a->nr_parts != 1 || l->kind != LOG_MEM || !a->part[0].hva)
		return false;
	pending_walk(e->em, cpu, l, 0);
	mem_mark_dirty(cpu->mmu.slots, g);
	a->p = a->part[0].hva;
	l->flags |= LOG_READ | LOG_DIRECT;
	l->rdone = l->len;
	return true;
}

static enum stop begin_read(struct env_exit *e, struct access *a)
{
	struct pending *rec = e->rec;
	struct log_entry *l = &rec->log[a->log];
	int at;

	if (l->flags & LOG_DIRECT)
		return bad_replay(e);
	if (system_lost(a))
		return cpu_fail(e->env.cpu, "descriptor table is not in RAM");
	if (!(l->flags & LOG_READ)) {
		if (pending_undelivered(rec) >= 0)
			return STOP_EXIT;
		if (begin_direct(e, a, l))
			return STOP_OK;
		at = pending_alloc(rec, l->len);
		if (at < 0)
			return cpu_fail(e->env.cpu, "too many bytes in one instruction");
		l->rdata = at;
		l->flags |= LOG_READ;
	}
	if (!pending_perform(e->em, e->env.cpu, l, false)) {
		rec->cur = a->log;
		return STOP_EXIT;
	}
	memcpy(a->bounce, rec->data + l->rdata, l->len);
	return STOP_OK;
}

static enum stop exit_begin(struct env *env)
{
	struct env_exit *e = to_env_exit(env);

	e->rec->begun = true;
	for (unsigned int k = 0; k < env->nr_pending; k++)
		if (env->pending[k]->need & MMU_R)
			TRY(begin_read(e, env->pending[k]));
	return STOP_OK;
}

/* ---- step 3: flush */

static enum stop flush_direct(struct env_exit *e, struct access *a, struct log_entry *l)
{
	struct cpu *cpu = e->env.cpu;

	pending_walk(e->em, cpu, l, 0);
	l->wdone = l->len;
	ram_written(cpu, l->gpa[0], a->p, l->len);
	return STOP_OK;
}

static enum stop exit_flush(struct env *env, struct access *a)
{
	struct env_exit *e = to_env_exit(env);
	struct pending *rec = e->rec;
	struct log_entry *l = &rec->log[a->log];
	bool waiting;
	int at;

	if (l->flags & LOG_WRITE)
		return STOP_OK; /* done in an earlier pass */
	if (l->flags & LOG_DIRECT)
		return flush_direct(e, a, l);
	if (system_lost(a))
		return cpu_fail(env->cpu, "descriptor table is not in RAM");
	waiting = pending_undelivered(rec) >= 0;
	if (waiting && !(l->flags & LOG_REST))
		return STOP_EXIT;
	at = pending_alloc(rec, l->len);
	if (at < 0)
		return cpu_fail(env->cpu, "too many bytes in one instruction");
	memcpy(rec->data + at, a->p, l->len);
	l->wdata = at;
	l->flags |= LOG_WRITE;
	if (!waiting)
		(void)!pending_perform(e->em, env->cpu, l, true);
	return STOP_OK;
}

/* ---- port I/O */

/* INS into a device goes element by element: each is an access of its own. */
static bool destination_is_ram(const struct env_exit *e)
{
	const struct pending *rec = e->rec;
	const struct log_entry *l;

	for (unsigned int k = 0; k < rec->pos; k++) {
		l = &rec->log[k];
		if (l->kind == LOG_MEM && (l->need & MMU_W) &&
			!mem_hva(e->env.cpu->mmu.slots, l->gpa[0], l->len0, true))
			return false;
	}
	return true;
}

bool emul_is_string_io(const struct insn *i)
{
	return i->map == 0 && i->opcode >= 0x6c && i->opcode <= 0x6f;
}

/* May the instruction end before its OUT is delivered? (rules 18, 30) */
static bool out_advances_rip(const struct env_exit *e, const struct log_entry *l)
{
	return emul_is_string_io(&e->rec->insn) || (l->port == 0x7e && e->em->quirk_out_7e);
}

static enum stop start_pio(struct env_exit *e, struct log_entry *l, const struct pio *io)
{
	int at;

	if (pending_undelivered(e->rec) >= 0)
		return STOP_EXIT;
	at = pending_alloc(e->rec, l->len);
	if (at < 0)
		return cpu_fail(e->env.cpu, "too many bytes in one instruction");
	l->flags |= io->in ? LOG_READ : LOG_WRITE;
	if (io->in) {
		l->rdata = at;
	} else {
		l->wdata = at;
		memcpy(e->rec->data + at, io->data, l->len);
	}
	return STOP_OK;
}

static enum stop exit_pio(struct env *env, struct pio *io)
{
	struct env_exit *e = to_env_exit(env);
	struct pending *rec = e->rec;
	struct log_entry *l, want = {
		.kind = LOG_PIO,
		.need = io->in ? MMU_R : MMU_W,
		.port = io->port,
		.size = io->size,
	};
	bool known, done;

	io->count = MIN(io->count, PAGE_SIZE / io->size);
	if (io->in && io->count > 1 && !destination_is_ram(e))
		io->count = 1;
	want.len = io->count * io->size;
	if (unlikely((env->cpu->dr7 & 0xff) || env->cpu->guest_debug_hw))
		env->cpu->data_hits |= debug_check_port(env->cpu, io->port, io->size);
	rec->begun = true;
	TRY(next_entry(e, &want, &l, &known));
	if (!(l->flags & (LOG_READ | LOG_WRITE)))
		TRY(start_pio(e, l, io));
	io->count = MIN(io->count, l->len / l->size); /* RCX may have grown meanwhile (rule 27) */
	done = pending_perform(e->em, env->cpu, l, !io->in);
	if (!done && (io->in || !out_advances_rip(e, l))) {
		rec->cur = l - rec->log;
		return STOP_EXIT;
	}
	if (io->in)
		memcpy(io->data, rec->data + l->rdata, io->count * io->size);
	return STOP_OK;
}

/* ---- REP */

static u8 *exit_ram(struct env *env, gva_t v, u8 need, u8 attr, u32 *len)
{
	(void)env, (void)v, (void)need, (void)attr, (void)len;
	return NULL;
}

static bool exit_next_iteration(struct env *env)
{
	struct env_exit *e = to_env_exit(env);
	struct cpu *cpu = env->cpu;

	if (pending_undelivered(e->rec) >= 0 || cpu->mmu.epoch != e->rec->epoch)
		return false;
	if (cpu->request & (cpu->request_mask | REQ_KICK | REQ_FLUSH | REQ_EVENT))
		return false;
	pending_next_unit(e->rec);
	e->rec->units++;
	e->rec->moved = false;
	return true;
}

static const struct env_ops exit_ops = {
	.map = exit_map,
	.begin = exit_begin,
	.flush = exit_flush,
	.pio = exit_pio,
	.ram = exit_ram,
	.next_iteration = exit_next_iteration,
};

void env_exit_init(struct env_exit *e, struct emul *em, struct cpu *cpu)
{
	e->env.cpu = cpu;
	e->env.ops = &exit_ops;
	e->env.nr_pending = 0;
	e->env.rest = false;
	e->env.outs_batch = em->outs_batch;
	e->em = em;
	e->rec = em->pending;
	e->failed_replay = false;
}
