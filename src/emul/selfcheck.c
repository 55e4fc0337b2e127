// SPDX-License-Identifier: MIT
/*
 * What the self-checking build does around a pass of the handler (DESIGN.md 7): run it twice
 * more from the entry registers. A replay asks for the accesses of the log and for no other,
 * touches no device, walks nothing, and ends like the first pass (law 3, SEED rule 15).
 */
#include "emul/emul_impl.h"

#include <string.h>

#include "base/hard.h"

#define REPLAYS 2

/* ---- no device is to be touched */

static int no_mmio_read(void *opaque, gpa_t gpa, unsigned int len, void *data)
{
	(void)opaque, (void)gpa, (void)len, (void)data;
	hard_check(!"a replay reads a device");
	return -1;
}
static int no_mmio_write(void *opaque, gpa_t gpa, unsigned int len, const void *data)
{
	(void)opaque, (void)gpa, (void)len, (void)data;
	hard_check(!"a replay writes a device");
	return -1;
}
static int no_pio_read(void *opaque, u16 port, unsigned int len, void *data)
{
	(void)opaque, (void)port, (void)len, (void)data;
	hard_check(!"a replay reads a port");
	return -1;
}
static int no_pio_write(void *opaque, u16 port, unsigned int len, const void *data)
{
	(void)opaque, (void)port, (void)len, (void)data;
	hard_check(!"a replay writes a port");
	return -1;
}

static const struct emul_bus no_bus = {
	.mmio_read = no_mmio_read,
	.mmio_write = no_mmio_write,
	.pio_read = no_pio_read,
	.pio_write = no_pio_write,
};

/* ---- the processor's state */

/* All but `request`, which other threads write at any time. */
void selfcheck_copy(struct cpu *to, const struct cpu *from)
{
	const size_t at = offsetof(struct cpu, request), end = at + sizeof(from->request);

	memcpy(to, from, at);
	memcpy((u8 *)to + end, (const u8 *)from + end, sizeof(*from) - end);
}

static bool same_segment(const struct segment *a, const struct segment *b)
{
	return a->sel == b->sel && a->attr == b->attr && a->limit == b->limit &&
		a->base == b->base && a->unusable == b->unusable;
}

static bool same_segments(const struct cpu *a, const struct cpu *b)
{
	for (unsigned int s = 0; s < NR_SEGS; s++)
		if (!same_segment(&a->seg[s], &b->seg[s]))
			return false;
	return same_segment(&a->tr, &b->tr) && same_segment(&a->ldtr, &b->ldtr);
}

#define SAME(a, b, first, last)                                                          \
	(!memcmp((const u8 *)(a) + offsetof(struct cpu, first),                          \
		(const u8 *)(b) + offsetof(struct cpu, first),                           \
		offsetof(struct cpu, last) - offsetof(struct cpu, first)))

static bool same_state(const struct cpu *a, const struct cpu *b)
{
	return SAME(a, b, regs, regs[GPR_RIP]) && a->rip == b->rip && a->fl == b->fl &&
		a->eflags == b->eflags && a->cpl == b->cpl && a->mode == b->mode &&
		a->shadow == b->shadow && same_segments(a, b) && SAME(a, b, cr0, in_smm) &&
		!memcmp(&a->fpu, &b->fpu, sizeof(a->fpu));
}

/* ---- replays */

static bool has_device_access(const struct pending *rec)
{
	bool touched = false;

	for (unsigned int k = 0; k < rec->nr; k++) {
		if (rec->log[k].flags & LOG_DIRECT)
			return false; /* LOCK on RAM: it has been done, for all to see */
		touched |= rec->log[k].kind == LOG_PIO ||
			(rec->log[k].flags & (LOG_READ | LOG_WRITE));
	}
	return touched;
}

void selfcheck_replay(struct emul *em, struct cpu *cpu, const struct cpu *entry, enum stop stop)
{
	const struct pending *rec = em->pending;
	u16 nr = rec->nr, nr_bytes = rec->nr_bytes, cur = rec->cur, pos = rec->pos;
	struct emul_bus bus = em->bus;
	struct cpu after;
	bool failed;

	if (rec->units) /* the log is of the last iteration: a doorbell's REP does not stop in between */
		return;
	if (stop == STOP_FAIL || stop == STOP_NPF || stop == STOP_PIO || !has_device_access(rec))
		return;
	selfcheck_copy(&after, cpu);
	em->bus = no_bus;
	for (unsigned int k = 0; k < REPLAYS; k++) {
		selfcheck_copy(cpu, entry);
		hard_check(emul_pass(em, cpu, &failed) == stop);
		hard_check(same_state(cpu, &after));
		hard_check(rec->nr == nr && rec->nr_bytes == nr_bytes && rec->cur == cur &&
			rec->pos == pos);
		hard_check(!memcmp(cpu->mmu.walks, entry->mmu.walks, sizeof(cpu->mmu.walks)));
	}
	em->bus = bus;
	selfcheck_copy(cpu, &after);
}

/* Walks that a completion must not make (law 4): of descriptor tables it may. */
u64 selfcheck_walks(const struct cpu *cpu)
{
	const u64 *w = cpu->mmu.walks;

	return w[WALK_CPU] + w[WALK_FETCH] + w[WALK_DATA] + w[WALK_PROVE];
}
