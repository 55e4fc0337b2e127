// SPDX-License-Identifier: MIT
/* The chips of one VM together: creation, the buses, and what passes between chips. */
#include "irq/irq_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct irqchip *irqchip_create(
	enum irqchip_kind kind, unsigned int pins, const struct irqchip_ops *ops, void *vm)
{
	struct irqchip *c = calloc(1, sizeof(*c));
	bool full = kind == IRQCHIP_FULL;

	if (!c)
		return NULL;
	c->kind = kind;
	c->split_pins = pins;
	c->ops = ops;
	c->vm = vm;
	for (int i = 0; i < PORTS; i++)
		c->port[i].chip = c;
	if (full) {
		c->pic = pic_create();
		c->ioapic = ioapic_create();
	}
	if (routes_init(c) || (full && (!c->pic || !c->ioapic))) {
		irqchip_destroy(c);
		return NULL;
	}
	return c;
}

void irqchip_destroy(struct irqchip *c)
{
	for (unsigned int i = 0; i < c->nr_lapics; i++)
		if (c->lapic[i]) {
			pthread_mutex_destroy(&c->lapic[i]->timer_lock);
			free(c->lapic[i]);
		}
	pit_destroy(c->pit);
	ioapic_destroy(c->ioapic);
	pic_destroy(c->pic);
	routes_destroy(c);
	free(c);
}

bool irqchip_is_split(const struct irqchip *c)
{
	return c->kind == IRQCHIP_SPLIT;
}

void irqchip_set_x2apic_api(struct irqchip *c, u64 flags)
{
	put(&c->x2apic_api, get(&c->x2apic_api) | flags);
}

struct lapic *lapic_of(struct irqchip *c, unsigned int vcpu)
{
	return vcpu < IRQ_VCPUS_MAX ? lapic_at(c, vcpu) : NULL;
}

int lapic_find(struct irqchip *c, u32 apic_id)
{
	for (unsigned int i = 0; i < get(&c->nr_lapics); i++) {
		struct lapic *l = lapic_at(c, i);

		if (l && l->id == apic_id)
			return (int)i;
	}
	return -1;
}

/* ---- what the processor asks ---- */

static bool extint_pending(const struct lapic *l)
{
	return pic_output(l->chip) && lapic_accepts_pic(l);
}

bool irq_pending(struct lapic *l)
{
	return lapic_pending(l) >= 0 || extint_pending(l);
}

/* The PIC first, as KVM does: it has no priority to compare with the LAPIC's. */
int irq_ack(struct lapic *l)
{
	return extint_pending(l) ? pic_ack(l->chip) : lapic_ack(l);
}

/* ---- between the chips ---- */

void irqchip_eoi(struct lapic *l, u8 vector, bool level)
{
	struct irqchip *c = l->chip;

	if (c->ioapic)
		ioapic_eoi(c, vector, level);
	else if (level && c->ops->eoi_exit && route_has_level_msi(c, vector))
		c->ops->eoi_exit(c->vm, l->vcpu, vector);
}

void irqchip_acked(struct irqchip *c, enum irq_chip_id chip, unsigned int pin)
{
	int gsi = route_gsi(c, chip, pin);

	if (gsi < 0)
		return;
	if (gsi == 0)
		pit_acked(c);
	if (c->ops->acked)
		c->ops->acked(c->vm, (unsigned int)gsi);
}

void irqchip_unmasked(struct irqchip *c, enum irq_chip_id chip, unsigned int pin)
{
	if (route_gsi(c, chip, pin) == 0)
		pit_unmasked(c);
}
