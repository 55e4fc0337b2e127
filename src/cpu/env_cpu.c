// SPDX-License-Identifier: MIT
/*
 * The processor's environment: soft TLB, else a walk. What is proved is noted in *e->fault;
 * when an access finds no RAM, the barrier stops the instruction with STOP_NPF and the
 * fault goes, as a value, to whoever emulates (DESIGN.md 4).
 */
#include "cpu/env.h"

#include "base/hard.h"
#include "cpu/debug.h"
#include "cpu/tb.h"

static struct env_cpu *to_env_cpu(struct env *e)
{
	return container_of(e, struct env_cpu, env);
}

static enum stop raise_pf(struct cpu *cpu, gva_t gva, u32 error)
{
	cpu_raise_error(cpu, EXC_PF, error);
	cpu->exc.has_payload = true;
	cpu->exc.payload = gva.v;
	return STOP_EXC;
}

/* Where an access without RAM is. A descriptor table there is a failure, not a second-stage fault. */
static void note_fault(struct fault *f, const struct access *a, const struct xlat *x)
{
	if (f->stage != FAULT_NONE)
		return;
	f->stage = a->system ? FAULT_NONE : FAULT_FINAL;
	f->access = a->need;
	f->gpa = x->gpa;
	f->gva = x->gva;
	f->len = x->len;
}

static enum mmu_status translate(struct env *e, const struct access *a, gva_t gva, u16 len,
	struct xlat *x, u8 **hva, u32 *error)
{
	enum walk_class c = a->system ? WALK_CPU_SYSTEM : WALK_CPU;

	if (likely(!e->ahead))
		return mmu_translate(&e->cpu->mmu, gva, len, a->need, a->attr, c, x, hva, error);
	*hva = NULL;
	return mmu_walk(&e->cpu->mmu, gva, len, MMU_W | MMU_AHEAD, a->attr, c, x, error);
}

static enum stop map_part(struct env *e, struct access *a, unsigned int k, gva_t gva, u16 len)
{
	struct fault *f = to_env_cpu(e)->fault;
	struct access_part *part = &a->part[k];
	bool note = !a->system && f->n < MAX_XLAT;
	struct xlat unnoted, *x = note ? &f->x[f->n] : &unnoted;
	struct cpu *cpu = e->cpu;
	u32 error = 0;

	part->len = len;
	switch (translate(e, a, gva, len, x, &part->hva, &error)) {
	case MMU_OK:
		break;
	case MMU_FAULT:
		return raise_pf(cpu, gva, error);
	case MMU_NONCANON:
		return cpu_gp(cpu, 0);
	}
	if (unlikely((cpu->dr7 & 0xff) || cpu->guest_debug_hw))
		cpu->data_hits |= debug_check_data(cpu, gva, len, a->need & MMU_W);
	if (!part->hva)
		note_fault(f, a, x);
	if (a->system)
		return part->hva ? STOP_OK : cpu_fail(cpu, "descriptor table is not in RAM");
	f->n += note;
	return STOP_OK;
}

static enum stop cpu_env_map(struct env *e, struct access *a)
{
	u32 left = page_left(a->gva.v);
	u64 second;

	to_env_cpu(e)->maps++;
	a->nr_parts = a->len > left ? 2 : 1;
	TRY(map_part(e, a, 0, a->gva, MIN(a->len, left)));
	if (a->nr_parts == 1) {
		a->p = OPT_DIRECT || e->locked ? a->part[0].hva : a->bounce;
		return STOP_OK;
	}
	second = a->gva.v + left;
	if (!e->cpu->long_mode)
		second = (u32)second;
	a->p = a->bounce;
	return map_part(e, a, 1, gva(second), a->len - left);
}

static void load_bounce(struct access *a)
{
	u8 *to = a->bounce;

	for (unsigned int k = 0; k < a->nr_parts; k++) {
		ram_copy(to, a->part[k].hva, a->part[k].len);
		to += a->part[k].len;
	}
}

/*
 * Only the emulator can go on. It does so here and now if the handler has done nothing yet but map
 * e->pending: the handler does not notice. Else the instruction stops and begins anew there.
 */
static enum stop take_over(struct env *e, enum stop stop)
{
	struct env_cpu *c = to_env_cpu(e);

	if (!OPT_TAKE_OVER || !c->insn || c->begun || e->fixed || c->maps != e->nr_pending)
		return stop;
	return e->cpu->ops->take_over ? e->cpu->ops->take_over(e->cpu, e, c->insn, c->fault) : stop;
}

static enum stop cpu_env_begin(struct env *e)
{
	if (unlikely(to_env_cpu(e)->fault->stage != FAULT_NONE)) {
		TRY(take_over(e, STOP_NPF));
		return e->ops->begin(e);
	}
	to_env_cpu(e)->begun = true;
	for (unsigned int k = 0; k < e->nr_pending; k++)
		if (e->pending[k]->p == e->pending[k]->bounce && (e->pending[k]->need & MMU_R))
			load_bounce(e->pending[k]);
	return STOP_OK;
}

static enum stop cpu_env_flush(struct env *e, struct access *a)
{
	const u8 *from = a->bounce;

	for (unsigned int k = 0; k < a->nr_parts; k++) {
		if (a->p == a->bounce)
			ram_copy(a->part[k].hva, from, a->part[k].len);
		from += a->part[k].len;
		tb_note_write(e->cpu, a->part[k].hva, a->part[k].len);
	}
	return STOP_OK;
}

/* No port access is the processor's; the translations proved so far go with it. */
static enum stop cpu_env_pio(struct env *e, struct pio *io)
{
	struct fault *f = to_env_cpu(e)->fault;

	f->stage = FAULT_PIO;
	f->gpa = gpa(io->port);
	f->len = io->size;
	f->access = io->in ? MMU_R : MMU_W;
	TRY(take_over(e, STOP_PIO));
	return e->ops->pio(e, io);
}

static u8 *cpu_env_ram(struct env *e, gva_t gva, u8 need, u8 attr, u32 *len)
{
	struct xlat x;
	u8 *hva;
	u32 error;
	u16 n = MIN(*len, page_left(gva.v));

	to_env_cpu(e)->begun = true; /* what the handler does with it is not in e->pending */
	if (!OPT_BULK || ((e->cpu->request & REQ_STEP) && cpu_stops_each(e->cpu)))
		return NULL;
	if (mmu_translate(&e->cpu->mmu, gva, n, need, attr, WALK_CPU, &x, &hva, &error) != MMU_OK)
		return NULL;
	*len = n;
	if (hva && (need & MMU_W))
		tb_note_write(e->cpu, hva, n);
	return hva;
}

static bool cpu_env_next_iteration(struct env *e)
{
	to_env_cpu(e)->fault->n = 0;
	to_env_cpu(e)->begun = true;
	return OPT_BULK && !cpu_rep_must_end(e->cpu);
}

static const struct env_ops cpu_env_ops = {
	.map = cpu_env_map,
	.begin = cpu_env_begin,
	.flush = cpu_env_flush,
	.pio = cpu_env_pio,
	.ram = cpu_env_ram,
	.next_iteration = cpu_env_next_iteration,
};

void env_cpu_init(struct env_cpu *e, struct cpu *cpu, struct fault *fault)
{
	e->env.cpu = cpu;
	e->env.ops = &cpu_env_ops;
	e->env.nr_pending = 0;
	e->env.rest = e->env.outs_batch = e->env.locked = e->env.no_ac = e->env.ahead = false;
	e->env.exact = e->env.fixed = false;
	e->env.state = NULL;
	e->fault = fault;
	e->insn = NULL;
	e->maps = 0;
	e->begun = false;
	fault->stage = FAULT_NONE;
	fault->n = 0;
	fault->access = 0;
	fault->gpa = gpa(0);
	fault->gva = gva(0);
	fault->len = 0;
}

static enum stop probe_begin(struct env *e)
{
	(void)e;
	return STOP_NPF;
}

static const struct env_ops probe_ops = {
	.map = cpu_env_map,
	.begin = probe_begin,
	.flush = cpu_env_flush,
	.pio = cpu_env_pio,
	.ram = cpu_env_ram,
	.next_iteration = cpu_env_next_iteration,
};

void env_probe_init(struct env_cpu *e, struct cpu *cpu, struct fault *fault)
{
	env_cpu_init(e, cpu, fault);
	e->env.ops = &probe_ops;
}
