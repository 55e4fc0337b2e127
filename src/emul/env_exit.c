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

#include "base/hard.h"
#include "cpu/debug.h"

static struct env_exit *to_env_exit(struct env *e)
{
	return e->state;
}

/* ---- replay */

/*
 * A replay must ask for exactly what is in the log (rule 15). If user space has changed
 * registers meanwhile, the address may differ: the access has been made, it is served.
 */
static bool same_memory(const struct pending *rec, const struct log_entry *l, const struct access *a)
{
	if (l->kind != (a->system ? LOG_SYSTEM : LOG_MEM) || l->need != a->need || l->len != a->len)
		return false;
	return rec->moved || (l->gva.v == a->gva.v && l->attr == a->attr);
}

static bool same_port(const struct pending *rec, const struct log_entry *l, const struct pio *io)
{
	if (l->kind != LOG_PIO || l->need != (io->in ? MMU_R : MMU_W) || l->size != io->size)
		return false;
	return rec->moved || (l->port == io->port && l->len <= io->count * io->size);
}

static enum stop bad_replay(struct env_exit *e)
{
	e->failed_replay = true;
	return cpu_fail(e->cpu, "replay asked for an access that is not in the log");
}

/*
 * Where the handler's next access is noted; *known: an earlier pass has done so. A new one
 * counts from the moment that the caller adds it to rec->nr. NULL: no room.
 */
static struct log_entry *next_entry(struct pending *rec, bool *known)
{
	*known = rec->pos < rec->nr;
	return rec->pos < LOG_ENTRIES ? &rec->log[rec->pos] : NULL;
}

static enum stop log_full(struct cpu *cpu)
{
	return cpu_fail(cpu, "too many accesses in one instruction");
}

/* ---- step 1: map */

static ALWAYS_INLINE enum stop prove_part(struct env_exit *e, const struct access *a, gva_t v, u16 len, gpa_t *out)
{
	struct cpu *cpu = e->cpu;
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

static enum stop prove(struct env_exit *e, const struct access *a, struct log_entry *l)
{
	TRY(prove_part(e, a, a->gva, l->len0, &l->gpa[0]));
	if (l->len0 == a->len)
		return STOP_OK;
	return prove_part(e, a, second_page(e->cpu, a, l->len0), a->len - l->len0, &l->gpa[1]);
}

/* Part k of an access is RAM here and now: its address, or NULL. */
static u8 *part_hva(const struct cpu *cpu, const struct log_entry *l, unsigned int k, u8 need)
{
	return mem_hva(cpu->mmu.slots, l->gpa[k], k ? l->len - l->len0 : l->len0, need & MMU_W);
}

static enum stop exit_map(struct env *env, struct access *a)
{
	struct env_exit *e = to_env_exit(env);
	struct pending *rec = e->rec;
	bool known;
	struct log_entry *l = next_entry(rec, &known);

	if (!l)
		return log_full(env->cpu);
	if (!known) {
		*l = (struct log_entry){
			.gva = a->gva,
			.len = a->len,
			.len0 = MIN(a->len, page_left(a->gva.v)),
			.kind = a->system ? LOG_SYSTEM : LOG_MEM,
			.need = a->need,
			.attr = a->attr,
			.flags = env->rest ? LOG_REST : 0,
		};
		TRY(prove(e, a, l));
		rec->nr++;
	} else if (!same_memory(rec, l, a)) {
		return bad_replay(e);
	}
	a->log = rec->pos++;
	a->p = a->bounce;
	return STOP_OK;
}

/* Memory slots can change while an exit is outstanding; a descriptor table never is a device. */
static bool system_lost(const struct cpu *cpu, const struct access *a, const struct log_entry *l)
{
	return !part_hva(cpu, l, 0, a->need) ||
		(l->len0 < l->len && !part_hva(cpu, l, 1, a->need));
}

/* ---- step 2: begin */

/*
 * Read-modify-write of plain RAM: the handler works on RAM itself, so that LOCK is atomic
 * (rule 34). Nothing that follows in such an instruction can exit.
 */
static bool begin_direct(struct env_exit *e, struct access *a, struct log_entry *l)
{
	struct cpu *cpu = e->cpu;
	u8 *hva;

	if (l->len0 < l->len || l->kind != LOG_MEM)
		return false;
	hva = part_hva(cpu, l, 0, a->need);
	if (!hva)
		return false;
	if (!OPT_DIRECT && !e->env->locked)
		return false;
	pending_walk(e->em, cpu, l, 0);
	mmu_mark_dirty(&cpu->mmu, l->gpa[0]);
	a->p = hva;
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
	if (unlikely(a->system) && system_lost(e->cpu, a, l))
		return cpu_fail(e->cpu, "descriptor table is not in RAM");
	if (!(l->flags & LOG_READ)) {
		if (pending_undelivered(rec) >= 0)
			return STOP_EXIT;
		if ((a->need & MMU_W) && begin_direct(e, a, l))
			return STOP_OK;
		at = pending_alloc(rec, l->len);
		if (at < 0)
			return cpu_fail(e->cpu, "too many bytes in one instruction");
		l->rdata = at;
		l->flags |= LOG_READ;
	}
	if (!pending_perform(e->em, e->cpu, l, false)) {
		rec->cur = a->log;
		return STOP_EXIT;
	}
	bytes_copy(a->bounce, rec->data + l->rdata, l->len);
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
	struct cpu *cpu = e->cpu;

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
	if (unlikely(a->system) && system_lost(env->cpu, a, l))
		return cpu_fail(env->cpu, "descriptor table is not in RAM");
	waiting = pending_undelivered(rec) >= 0;
	if (waiting && !(l->flags & LOG_REST))
		return STOP_EXIT;
	at = pending_alloc(rec, l->len);
	if (at < 0)
		return cpu_fail(env->cpu, "too many bytes in one instruction");
	bytes_copy(rec->data + at, a->p, l->len);
	pending_write(rec, l, at);
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
			!mem_hva(e->cpu->mmu.slots, l->gpa[0], l->len0, true))
			return false;
	}
	return true;
}

bool emul_is_string_io(const struct insn *i)
{
	return i->map == 0 && i->opcode >= 0x6c && i->opcode <= 0x6f;
}

static enum stop start_pio(struct env_exit *e, struct log_entry *l, const struct pio *io)
{
	int at;

	if (pending_undelivered(e->rec) >= 0)
		return STOP_EXIT;
	at = pending_alloc(e->rec, l->len);
	if (at < 0)
		return cpu_fail(e->cpu, "too many bytes in one instruction");
	if (io->in) {
		l->rdata = at;
		l->flags |= LOG_READ;
	} else {
		pending_write(e->rec, l, at);
		bytes_copy(e->rec->data + at, io->data, l->len);
	}
	return STOP_OK;
}

static enum stop exit_pio(struct env *env, struct pio *io)
{
	struct env_exit *e = to_env_exit(env);
	struct pending *rec = e->rec;
	bool known, done;
	struct log_entry *l = next_entry(rec, &known);

	if (!l)
		return log_full(env->cpu);
	io->count = MIN(io->count, pio_elements(PAGE_SIZE, io->size));
	if (io->in && io->count > 1 && !destination_is_ram(e))
		io->count = 1;
	if (unlikely((env->cpu->dr7 & 0xff) || env->cpu->guest_debug_hw))
		env->cpu->data_hits |= debug_check_port(env->cpu, io->port, io->size);
	rec->begun = true;
	if (known && !same_port(rec, l, io))
		return bad_replay(e);
	if (!known) {
		*l = (struct log_entry){
			.kind = LOG_PIO,
			.need = io->in ? MMU_R : MMU_W,
			.port = io->port,
			.size = io->size,
			.len = io->count * io->size,
		};
		rec->nr++;
	}
	rec->pos++;
	if (!(l->flags & (LOG_READ | LOG_WRITE)))
		TRY(start_pio(e, l, io));
	io->count = MIN(io->count, pio_elements(l->len, l->size)); /* RCX may have grown meanwhile (rule 27) */
	done = pending_perform(e->em, env->cpu, l, !io->in);
	if (!done && io->in) {
		rec->cur = l - rec->log;
		return STOP_EXIT;
	}
	if (io->in)
		bytes_copy(io->data, rec->data + l->rdata, io->count * io->size);
	return STOP_OK;
}

/* ---- REP */

static u8 *exit_ram(struct env *env, gva_t v, u8 need, u8 attr, u32 *len)
{
	(void)env, (void)v, (void)need, (void)attr, (void)len;
	return NULL;
}

static bool may_go_on(const struct env_exit *e)
{
	const struct cpu *cpu = e->cpu;

	if (e->rec->doorbell) /* all that lies in its page is one ring (rule 23) */
		return true;
	return OPT_BULK && pending_undelivered(e->rec) < 0 && cpu->mmu.epoch == e->rec->epoch &&
		!cpu_rep_must_end(cpu) && !(cpu->request & (REQ_KICK | REQ_FLUSH | REQ_EVENT));
}

static bool exit_next_iteration(struct env *env)
{
	struct env_exit *e = to_env_exit(env);

	if (!may_go_on(e))
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

void env_exit_init(struct env_exit *e, struct emul *em, struct env *env, struct cpu *cpu)
{
	*e = (struct env_exit){.env = env, .cpu = cpu, .em = em, .rec = em->pending};
	env->cpu = cpu;
	env->ops = &exit_ops;
	env->state = e;
	env->exact = true;
	env->outs_batch = em->outs_batch;
}
