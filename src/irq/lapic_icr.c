// SPDX-License-Identifier: MIT
/* Sending interprocessor interrupts: ICR and SELF IPI (SDM 3A 10.6.1, 10.12.11). */
#include "irq/irq_impl.h"

#define ICR_LOGICAL BIT(11)
#define ICR_BUSY    BIT(12)
#define ICR_ASSERT  BIT(14)
#define ICR_LEVEL   BIT(15)

static bool needs_vector(u8 delivery)
{
	return delivery == IRQ_FIXED || delivery == IRQ_LOWEST;
}

/* dest: 8 bits in xAPIC mode, 32 in x2APIC mode. Delivery is immediate: never busy. */
void lapic_write_icr(struct lapic *l, u32 low, u32 dest)
{
	struct irq_msg m = {
		.dest = dest,
		.vector = (u8)low,
		.delivery = (low >> 8) & 7,
		.shorthand = (low >> 18) & 3,
		.logical = low & ICR_LOGICAL,
		.level = low & ICR_ASSERT,
		.trigger = low & ICR_LEVEL,
		.source = l,
	};

	lapic_set_reg(l, APIC_ICR, low & ~(u32)ICR_BUSY);
	if (needs_vector(m.delivery) && m.vector < 16)
		lapic_error(l, ESR_SEND_VECTOR);
	else
		irq_deliver(l->chip, &m);
}

/* Leaves the ICR alone. */
void lapic_self_ipi(struct lapic *l, u8 vector)
{
	struct irq_msg m = {
		.vector = vector,
		.shorthand = IRQ_TO_SELF,
		.level = true,
		.source = l,
	};

	if (vector < 16)
		lapic_error(l, ESR_SEND_VECTOR);
	else
		irq_deliver(l->chip, &m);
}
