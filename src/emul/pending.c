// SPDX-License-Identifier: MIT
/*
 * The pending record: what one instruction (one iteration of a REP) has asked for, and how
 * far each access has got. It owns all its bytes and holds no pointer. Says nothing about
 * when things happen: see env_exit.c for the handler's side, emul.c for user space's.
 */
#include "emul/emul_impl.h"

#include <string.h>

#include "cpu/tb.h"

void pending_start(struct pending *rec, const struct insn *insn, const struct fault *fault,
	bool hints, u32 epoch)
{
	rec->insn = *insn;
	rec->active = rec->finished = rec->moved = rec->retracted = rec->holds_rip = false;
	rec->doorbell = rec->rung = false;
	rec->stage = fault->stage;
	rec->nr_hints = hints ? MIN(fault->n, MAX_XLAT) : 0;
	rec->nr_x = rec->nr_hints;
	for (unsigned int k = 0; k < rec->nr_hints; k++)
		rec->x[k] = fault->x[k];
	rec->epoch = epoch;
	rec->units = 0;
	pending_next_unit(rec);
}

void pending_next_unit(struct pending *rec)
{
	rec->pos = rec->nr = 0;
	rec->nr_bytes = 0;
	rec->begun = rec->wrote = false;
}

int pending_first_undelivered(const struct pending *rec)
{
	for (unsigned int k = 0; k < rec->nr; k++)
		if ((rec->log[k].flags & LOG_WRITE) && rec->log[k].wdone < rec->log[k].len)
			return k;
	return -1;
}

void ram_written(struct cpu *cpu, gpa_t g, const u8 *hva, u32 n)
{
	mmu_mark_dirty(&cpu->mmu, g);
	tb_note_write(cpu, hva, n);
}

/* ---- one access, bite by bite */

/* The bytes from `done` on that lie in one page. */
static void rest_of_part(const struct log_entry *l, u32 done, gpa_t *g, gva_t *v, u32 *n)
{
	if (done < l->len0) {
		*g = gpa(l->gpa[0].v + done);
		*v = gva(l->gva.v + done);
		*n = l->len0 - done;
	} else {
		*g = gpa(l->gpa[1].v + done - l->len0);
		*v = gva(l->gva.v + done);
		*n = l->len - done;
	}
}

/* Does this part only go on where the entry before ended? Then it was walked with that one. */
static bool goes_on(const struct pending *rec, const struct log_entry *l, u32 done)
{
	return (l->flags & LOG_REST) && l > rec->log && done == 0 && (l->gva.v & ~PAGE_MASK);
}

/*
 * Mode off: each part of an access is walked when it is performed, also after a completion
 * (SEED rule 6). The address itself is the proved one, as in mode on: the walk is what KVM
 * pays, not a second opinion; it may set A, which a processor may do at any time.
 */
void pending_walk_off(struct emul *em, struct cpu *cpu, const struct log_entry *l, u32 done)
{
	struct xlat x;
	gpa_t g;
	gva_t v;
	u32 n, error;

	if (l->kind != LOG_MEM || (done && done != l->len0) ||
		goes_on(em->pending, l, done) || em->pending->doorbell)
		return;
	rest_of_part(l, done, &g, &v, &n);
	if (cpu->mode != MODE_64)
		v = gva((u32)v.v);
	(void)!mmu_walk(&cpu->mmu, v, n, MMU_R, l->attr & 15, WALK_DATA, &x, &error);
}

/* One signal for the instruction; what it writes is lost, however long (rule 23). */
static int ring(struct emul *em, u32 n, const u8 *data)
{
	struct pending *rec = em->pending;

	if (rec->rung)
		return 0;
	rec->rung = true;
	return em->bus.mmio_write(em->bus.opaque, rec->bell, n, data);
}

static bool mem_step(struct emul *em, struct cpu *cpu, struct log_entry *l, bool write)
{
	u16 *done = write ? &l->wdone : &l->rdone;
	u8 *data = em->pending->data + (write ? l->wdata : l->rdata) + *done, *hva;
	gpa_t g;
	gva_t v;
	u32 n;
	int err;

	pending_walk(em, cpu, l, *done);
	rest_of_part(l, *done, &g, &v, &n);
	hva = mem_hva(cpu->mmu.slots, g, n, write);
	if (hva && write) {
		ram_copy(hva, data, n);
		ram_written(cpu, g, hva, n);
	} else if (hva) {
		ram_copy(data, hva, n);
	} else {
		n = MIN(n, 8);
		err = write && em->pending->doorbell ? ring(em, n, data)
		    : write ? em->bus.mmio_write(em->bus.opaque, g, n, data)
			    : em->bus.mmio_read(em->bus.opaque, g, n, data);
		if (err)
			return false;
	}
	*done += n;
	return true;
}

static bool pio_step(struct emul *em, struct log_entry *l, bool write)
{
	u16 *done = write ? &l->wdone : &l->rdone;
	u8 *data = em->pending->data + (write ? l->wdata : l->rdata) + *done;
	int err = write ? em->bus.pio_write(em->bus.opaque, l->port, l->size, data)
			: em->bus.pio_read(em->bus.opaque, l->port, l->size, data);

	if (err)
		return false;
	*done += l->size;
	return true;
}

bool pending_perform(struct emul *em, struct cpu *cpu, struct log_entry *l, bool write)
{
	const u16 *done = write ? &l->wdone : &l->rdone;

	while (*done < l->len && !(l->flags & LOG_USER))
		if (!(l->kind == LOG_PIO ? pio_step(em, l, write) : mem_step(em, cpu, l, write)))
			l->flags |= LOG_USER;
	return *done == l->len;
}

void pending_piece(const struct pending *rec, const struct log_entry *l, bool write,
	struct fragment *out)
{
	u32 done = write ? l->wdone : l->rdone, n;
	gva_t v;

	*out = (struct fragment){
		.is_pio = l->kind == LOG_PIO,
		.is_write = write,
		.data = write ? rec->data + l->wdata + done : NULL,
		.count = 1,
	};
	if (out->is_pio) {
		out->port = l->port;
		out->size = l->size;
		out->len = l->len - done;
		out->count = pio_elements(out->len, l->size);
		return;
	}
	rest_of_part(l, done, &out->gpa, &v, &n);
	out->len = MIN(n, 8);
}
