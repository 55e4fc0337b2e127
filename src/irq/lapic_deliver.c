// SPDX-License-Identifier: MIT
/*
 * Delivery: which LAPICs a message selects (SDM 3A 10.6.2), who wins a lowest-priority one
 * (10.6.2.4), and what a LAPIC does with it. Any thread; takes no lock.
 */
#include "irq/irq_impl.h"

#define X2APIC_BROADCAST 0xffffffffu
#define XAPIC_BROADCAST	 0xffu

/* ---- one LAPIC ---- */

/* An error is noted once until ESR is written; LVT error tells of it. */
void lapic_error(struct lapic *l, u32 esr_bit)
{
	if (!(__atomic_fetch_or(&l->errors, esr_bit, __ATOMIC_RELAXED) & esr_bit))
		lapic_deliver_lvt(l, APIC_LVTERR);
}

static void set_tmr(struct lapic *l, u8 vector, bool trigger)
{
	u32 *word = lapic_vector_word(l, APIC_TMR, vector), bit = 1u << (vector % 32);

	if (trigger)
		__atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
	else if (get(word) & bit)
		__atomic_fetch_and(word, ~bit, __ATOMIC_RELAXED);
}

static bool accept_vector(struct lapic *l, u8 vector, bool trigger)
{
	if (!(lapic_reg(l, APIC_SPIV) & SPIV_ENABLE))
		return false;
	if (vector < 16) {
		lapic_error(l, ESR_RECEIVE_VECTOR);
		return false;
	}
	set_tmr(l, vector, trigger);
	__atomic_fetch_or(
		lapic_vector_word(l, APIC_IRR, vector), 1u << (vector % 32), __ATOMIC_SEQ_CST);
	__atomic_store_n(&l->irr_pending, 1, __ATOMIC_SEQ_CST);
	l->chip->ops->kick(l->chip->vm, l->vcpu);
	return true;
}

bool lapic_accept(struct lapic *l, const struct irq_msg *m)
{
	const struct irqchip_ops *ops = l->chip->ops;
	void *vm = l->chip->vm;

	switch ((enum irq_delivery)m->delivery) {
	case IRQ_LOWEST:
		__atomic_fetch_add(&l->arbitrated, 1, __ATOMIC_RELAXED);
		/* fall through */
	case IRQ_FIXED:
		return (!m->trigger || m->level) && accept_vector(l, m->vector, m->trigger);
	case IRQ_SMI:
		ops->smi(vm, l->vcpu);
		return true;
	case IRQ_REMOTE_READ: /* KVM's way to wake a vCPU from HLT */
		ops->kick(vm, l->vcpu);
		return true;
	case IRQ_NMI:
		ops->nmi(vm, l->vcpu);
		return true;
	case IRQ_INIT:
		if (m->trigger && !m->level) /* level de-assert: sets arbitration IDs only */
			return false;
		ops->init(vm, l->vcpu);
		return true;
	case IRQ_SIPI:
		ops->sipi(vm, l->vcpu, m->vector);
		return true;
	case IRQ_EXTINT: /* DIFFERS: the PIC is wired to LINT0 only, never through a message */
		return false;
	}
	return false;
}

/* An interrupt of the LAPIC's own vector table (SDM 3A 10.5.1). */
void lapic_deliver_lvt(struct lapic *l, u32 lvt_offset)
{
	u32 lvt = lapic_reg(l, lvt_offset);
	struct irq_msg m = { .vector = (u8)lvt, .level = true };

	if (!lapic_enabled(l) || (lvt & LVT_MASKED))
		return;
	if (lvt_offset != APIC_LVTT && lvt_offset != APIC_LVTERR)
		m.delivery = LVT_MODE(lvt);
	if (lvt_offset == APIC_LVT0 || lvt_offset == APIC_LVT1)
		m.trigger = (lvt & LVT_LEVEL) && m.delivery == IRQ_FIXED;
	/* The performance counter's entry masks itself (SDM 3A 10.5.1). */
	if (lvt_offset == APIC_LVTPC)
		__atomic_fetch_or(&l->reg[APIC_LVTPC / 16], LVT_MASKED, __ATOMIC_RELAXED);
	lapic_accept(l, &m);
}

void lapic_local_interrupt(struct lapic *l, enum lapic_lvt lvt)
{
	lapic_deliver_lvt(l, APIC_LVTT + 16 * (u32)lvt);
}

/* ---- all LAPICs ---- */

static bool is_broadcast(const struct lapic *l, const struct irq_msg *m)
{
	if (m->dest != XAPIC_BROADCAST)
		return m->dest == X2APIC_BROADCAST;
	if (!lapic_is_x2apic(l))
		return true;
	if (m->source)
		return !lapic_is_x2apic(m->source);
	/* A device's message has 8 bits of destination, unless the VMM promised more. */
	return !(get(&l->chip->x2apic_api) & X2APIC_API_NO_BROADCAST_QUIRK);
}

/* A LAPIC in xAPIC mode also answers to an x2APIC ID above 255 that only it has. */
static bool matches_physical(const struct lapic *l, u32 dest)
{
	return dest == (lapic_is_x2apic(l) || dest > 0xff ? l->id : lapic_reg(l, APIC_ID) >> 24);
}

static bool matches_logical(const struct lapic *l, u32 dest)
{
	u32 ldr = lapic_reg(l, APIC_LDR);

	if (lapic_is_x2apic(l))
		return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
	ldr >>= 24;
	if (lapic_reg(l, APIC_DFR) >> 28 == 0xf) /* flat */
		return ldr & dest;
	return ldr >> 4 == dest >> 4 && (ldr & dest & 0xf);
}

static bool matches(const struct lapic *l, const struct irq_msg *m)
{
	if (!lapic_enabled(l))
		return false;
	switch ((enum irq_shorthand)m->shorthand) {
	case IRQ_TO_SELF:
		return l == m->source;
	case IRQ_TO_ALL:
		return true;
	case IRQ_TO_OTHERS:
		return l != m->source;
	case IRQ_TO_DEST:
		break;
	}
	if (is_broadcast(l, m))
		return true;
	return m->logical ? matches_logical(l, m->dest) : matches_physical(l, m->dest);
}

/* Does a win the arbitration over b? The lower priority; among equals, who won less. */
static bool wins(const struct lapic *a, const struct lapic *b)
{
	u32 pa = lapic_reg(a, APIC_PPR) >> 4, pb = lapic_reg(b, APIC_PPR) >> 4;

	if (pa != pb)
		return pa < pb;
	return (s32)(get(&a->arbitrated) - get(&b->arbitrated)) < 0;
}

static int deliver_lowest(struct irqchip *c, const struct irq_msg *m)
{
	struct lapic *best = NULL;
	bool found = false;

	for (unsigned int i = 0; i < get(&c->nr_lapics); i++) {
		struct lapic *l = lapic_at(c, i);

		if (!l || !matches(l, m))
			continue;
		found = true;
		if ((lapic_reg(l, APIC_SPIV) & SPIV_ENABLE) && (!best || wins(l, best)))
			best = l;
	}
	if (!best)
		return found ? 0 : -1;
	return lapic_accept(best, m);
}

/*
 * Has nobody else the xAPIC ID of a vCPU's number? Whoever asked for 32-bit IDs gets KVM's word
 * for it: the others that have it are passed over (api.rst, KVM_CAP_X2APIC_API).
 */
static bool ids_are_unique(struct irqchip *c)
{
	if (get(&c->x2apic_api) & X2APIC_API_32BIT_IDS)
		return true;
	return !get(&c->renamed) && get(&c->nr_lapics) <= 256;
}

/* With IDs as numbered, the common case: one destination, found without a search. */
static struct lapic *unicast(struct irqchip *c, const struct irq_msg *m)
{
	struct lapic *l;

	if (m->shorthand == IRQ_TO_SELF)
		return matches(m->source, m) ? m->source : NULL;
	if (m->shorthand != IRQ_TO_DEST || m->logical || !ids_are_unique(c))
		return NULL;
	l = lapic_of(c, m->dest);
	return l && matches(l, m) && !is_broadcast(l, m) ? l : NULL;
}

int irq_deliver(struct irqchip *c, const struct irq_msg *m)
{
	struct lapic *one = unicast(c, m);
	int sum = -1;

	if (one)
		return lapic_accept(one, m);
	if (m->delivery == IRQ_LOWEST)
		return deliver_lowest(c, m);
	for (unsigned int i = 0; i < get(&c->nr_lapics); i++) {
		struct lapic *l = lapic_at(c, i);

		if (l && matches(l, m))
			sum = MAX(sum, 0) + lapic_accept(l, m);
	}
	return sum;
}
