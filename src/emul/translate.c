// SPDX-License-Identifier: MIT
/*
 * The seed's question: the processor has proved where this operand lives; may the emulator
 * use that, or must it walk the guest's page tables again? One function answers
 * (SEED 7.3); the rest counts, and in mode verify cross-checks. See emul_impl.h.
 */
#include "emul/emul_impl.h"

#include "base/hard.h"
#include "base/log.h"

/* A fault on a page-table page or a fetch proves nothing about data (SEED rule 3). */
static bool proves_data(enum fault_stage stage)
{
	return stage == FAULT_FINAL || stage == FAULT_PIO || stage == FAULT_FORCED;
}

enum xlat_match xlat_match(
	const struct xlat *x, enum fault_stage stage, const struct xlat_want *w, gpa_t *out)
{
	if (!proves_data(stage))
		return XLAT_STAGE;
	if (((x->gva.v ^ w->gva.v) & PAGE_MASK) || w->len > page_left(w->gva.v))
		return XLAT_PAGE;
	if ((x->rights & w->need) != w->need || x->attr != w->attr)
		return XLAT_RIGHTS;
	if (x->epoch != w->epoch)
		return XLAT_EPOCH;
	*out = gpa((x->gpa.v & PAGE_MASK) | (w->gva.v & ~PAGE_MASK));
	return XLAT_HIT;
}

/* The best answer of all that the record knows; *k is who gave it. */
static enum xlat_match search(
	const struct pending *rec, const struct xlat_want *w, gpa_t *out, unsigned int *k)
{
	enum xlat_match best = XLAT_STAGE, m;

	if (!rec->nr_x)
		return proves_data(rec->stage) ? XLAT_PAGE : XLAT_STAGE;
	for (*k = 0; *k < rec->nr_x; (*k)++) {
		m = xlat_match(&rec->x[*k], *k < rec->nr_hints ? rec->stage : FAULT_FINAL, w, out);
		if (m == XLAT_HIT)
			return m;
		best = MAX(best, m);
	}
	return best;
}

static void count(struct emul_stats *s, enum xlat_match m)
{
	switch (m) {
	case XLAT_STAGE:
		s->gpa_miss_stage++;
		break;
	case XLAT_PAGE:
		s->gpa_miss_page++;
		break;
	case XLAT_RIGHTS:
		s->gpa_miss_rights++;
		break;
	case XLAT_EPOCH:
		s->gpa_miss_epoch++;
		break;
	case XLAT_HIT:
		s->gpa_hit++;
		break;
	}
}

static void trace(const struct env_exit *e, const struct xlat_want *w, gpa_t g, const char *source)
{
	if (e->em->trace)
		log_line("emul: gva %#llx gpa %#llx len %u need %u from %s",
			(unsigned long long)w->gva.v, (unsigned long long)g.v, w->len, w->need,
			source);
}

static enum stop raise_pf(struct cpu *cpu, gva_t gva, u32 error)
{
	cpu_raise_error(cpu, EXC_PF, error);
	cpu->exc.has_payload = true;
	cpu->exc.payload = gva.v;
	return STOP_EXC;
}

static enum stop walk(struct env_exit *e, const struct xlat_want *w, enum walk_class c, gpa_t *out)
{
	struct cpu *cpu = e->cpu;
	struct pending *rec = e->rec;
	struct xlat x;
	u32 error;

	switch (mmu_walk(&cpu->mmu, w->gva, w->len, w->need, w->attr & 15, c, &x, &error)) {
	case MMU_OK:
		break;
	case MMU_FAULT:
		return raise_pf(cpu, w->gva, error);
	case MMU_NONCANON:
		return cpu_gp(cpu, 0);
	}
	*out = x.gpa;
	trace(e, w, x.gpa, "walk");
	if (c != WALK_DATA || rec->nr_x == MAX_PROVED)
		return STOP_OK;
	x.epoch = rec->epoch; /* proved within the instruction: as good as the fault's own */
	rec->x[rec->nr_x++] = x;
	return STOP_OK;
}

/* Mode verify: does a walk say the same? Done when a translation of the fault is taken over. */
static enum stop verify(struct env_exit *e, const struct xlat_want *w, gpa_t taken)
{
	struct cpu *cpu = e->cpu;
	struct xlat x;
	u32 error;
	enum mmu_status s = mmu_walk(
		&cpu->mmu, w->gva, w->len, w->need, w->attr & 15, WALK_VERIFY, &x, &error);

	if (s == MMU_OK && x.gpa.v == taken.v)
		return STOP_OK;
	log_line("verify: gva %#llx was proved to be gpa %#llx, a walk gives %#llx",
		(unsigned long long)w->gva.v, (unsigned long long)taken.v,
		s == MMU_OK ? (unsigned long long)x.gpa.v : ~0ull);
	return cpu_fail(cpu, "proved translation differs from a walk (ANYKVM_GPA=verify)");
}

/*
 * A write that was proved ahead comes now: its D bit is due. If another processor has changed
 * the entry since, the proof is void, as it would be for the processor.
 */
static bool settle(struct env_exit *e, struct xlat *x, const struct xlat_want *w)
{
	if (likely(!(x->rights & w->need & MMU_W) || !(x->rights & MMU_AHEAD)))
		return true;
	if (!mmu_set_dirty(&e->cpu->mmu, x)) {
		x->rights = 0;
		e->rec->retracted = true;
		return false;
	}
	x->rights &= ~MMU_AHEAD;
	return true;
}

enum stop emul_translate(struct env_exit *e, const struct xlat_want *w, gpa_t *out)
{
	struct emul *em = e->em;
	enum xlat_match m;
	unsigned int k;

	if (em->mode == EMUL_GPA_OFF && !e->rec->doorbell)
		return walk(e, w, WALK_PROVE, out);
	do
		m = search(e->rec, w, out, &k);
	while (m == XLAT_HIT && unlikely(!settle(e, &e->rec->x[k], w)));
	/* the next page of a REP: back to the processor, which proves it without our walk */
	if (m != XLAT_HIT && e->rec->units && !e->rec->begun)
		return STOP_NPF;
	count(&em->stats, m);
	if (m != XLAT_HIT)
		return walk(e, w, WALK_DATA, out);
	trace(e, w, *out, k < e->rec->nr_hints ? "fault" : "record");
	if ((HARD || em->mode == EMUL_GPA_VERIFY) && k < e->rec->nr_hints)
		return verify(e, w, *out);
	return STOP_OK;
}
