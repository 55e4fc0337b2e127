// SPDX-License-Identifier: MIT
/*
 * The GSI routing table: an immutable snapshot that is replaced as a whole. Entries are
 * sorted by GSI; start[gsi]..start[gsi+1] are its targets. gsi_of answers the way back,
 * for acknowledgements.
 */
#include "irq/irq_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHIPS 3

struct routes {
	u32 refs; /* under routes_lock */
	u32 nr_gsis;
	s16 gsi_of[CHIPS][IOAPIC_PINS]; /* -1: no GSI leads to the pin */
	u32 *start;			/* nr_gsis + 1 indexes into entry */
	struct irq_route entry[];
};

static struct routes *routes_get(struct irqchip *c)
{
	struct routes *t;

	pthread_mutex_lock(&c->routes_lock);
	t = c->routes;
	t->refs++;
	pthread_mutex_unlock(&c->routes_lock);
	return t;
}

static void routes_put(struct irqchip *c, struct routes *t)
{
	bool last;

	pthread_mutex_lock(&c->routes_lock);
	last = --t->refs == 0;
	pthread_mutex_unlock(&c->routes_lock);
	if (last) {
		free(t->start);
		free(t);
	}
}

static bool msi_address_valid(const struct irqchip *c, u64 address)
{
	return !(get(&c->x2apic_api) & X2APIC_API_32BIT_IDS) || !((address >> 32) & 0xff);
}

static bool route_valid(const struct irqchip *c, const struct irq_route *r)
{
	if (r->gsi >= IRQ_GSI_MAX)
		return false;
	if (r->kind == IRQ_ROUTE_MSI)
		return msi_address_valid(c, r->msi_address);
	if (r->kind != IRQ_ROUTE_CHIP || irqchip_is_split(c))
		return false;
	if (r->chip == IRQ_CHIP_IOAPIC)
		return r->pin < IOAPIC_PINS;
	return r->chip < IRQ_CHIP_IOAPIC && r->pin < PIC_PINS / 2;
}

/* May both stand for one GSI? Only as pins of different chips. */
static bool routes_compatible(const struct irq_route *a, const struct irq_route *b)
{
	return a->kind == IRQ_ROUTE_CHIP && b->kind == IRQ_ROUTE_CHIP && a->chip != b->chip;
}

/* Put r into its GSI's part of the table, of which `used` entries are taken. */
static bool route_place(struct routes *t, const struct irq_route *r, u32 *used)
{
	struct irq_route *e = &t->entry[t->start[r->gsi]];

	for (u32 i = 0; i < *used; i++)
		if (!routes_compatible(&e[i], r))
			return false;
	e[(*used)++] = *r;
	if (r->kind == IRQ_ROUTE_CHIP)
		t->gsi_of[r->chip][r->pin] = (s16)r->gsi;
	return true;
}

static struct routes *routes_alloc(size_t n)
{
	struct routes *t = calloc(1, sizeof(*t) + n * sizeof(t->entry[0]));

	if (!t)
		return NULL;
	t->refs = 1;
	memset(t->gsi_of, 0xff, sizeof(t->gsi_of));
	return t;
}

/* Sort by counting: entries per GSI, then where each GSI starts, then each to its place. */
static int routes_fill(struct routes *t, const struct irq_route *r, size_t n)
{
	u32 *used;
	int err = 0;

	for (size_t i = 0; i < n; i++)
		t->nr_gsis = MAX(t->nr_gsis, r[i].gsi + 1);
	t->start = calloc(t->nr_gsis + 1, sizeof(*t->start));
	used = calloc(t->nr_gsis + 1, sizeof(*used));
	if (!t->start || !used) {
		free(used);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		t->start[r[i].gsi + 1]++;
	for (u32 g = 0; g < t->nr_gsis; g++)
		t->start[g + 1] += t->start[g];
	for (size_t i = 0; i < n && !err; i++)
		if (!route_place(t, &r[i], &used[r[i].gsi]))
			err = -EINVAL;
	free(used);
	return err;
}

int irq_set_routes(struct irqchip *c, const struct irq_route *r, size_t n)
{
	struct routes *t, *old;
	int err;

	for (size_t i = 0; i < n; i++)
		if (!route_valid(c, &r[i]))
			return -EINVAL;
	t = routes_alloc(n);
	if (!t)
		return -ENOMEM;
	err = routes_fill(t, r, n);
	if (err) {
		free(t->start);
		free(t);
		return err;
	}
	pthread_mutex_lock(&c->routes_lock);
	old = c->routes;
	c->routes = t;
	pthread_mutex_unlock(&c->routes_lock);
	if (old)
		routes_put(c, old);
	return 0;
}

/* KVM's default: GSI n is pin n of the IOAPIC and, below 16, line n of the PIC pair. */
static size_t default_routes(struct irq_route *r)
{
	size_t n = 0;

	for (u32 gsi = 0; gsi < IOAPIC_PINS; gsi++) {
		if (gsi < PIC_PINS)
			r[n++] = (struct irq_route){ .gsi = gsi, .kind = IRQ_ROUTE_CHIP,
				.chip = gsi / 8, .pin = gsi % 8 };
		r[n++] = (struct irq_route){ .gsi = gsi, .kind = IRQ_ROUTE_CHIP,
			.chip = IRQ_CHIP_IOAPIC, .pin = gsi };
	}
	return n;
}

int routes_init(struct irqchip *c)
{
	struct irq_route r[IOAPIC_PINS + PIC_PINS];

	pthread_mutex_init(&c->routes_lock, NULL);
	return irq_set_routes(c, r, irqchip_is_split(c) ? 0 : default_routes(r));
}

void routes_destroy(struct irqchip *c)
{
	if (c->routes)
		routes_put(c, c->routes);
	pthread_mutex_destroy(&c->routes_lock);
}

/* ---- use ---- */

/* MSI address and data as a message (SDM 3A 10.11); with 32-bit IDs, KVM's format. */
static struct irq_msg msi_message(const struct irqchip *c, u64 address, u32 data)
{
	struct irq_msg m = {
		.dest = (address >> 12) & 0xff,
		.vector = (u8)data,
		.delivery = (data >> 8) & 7,
		.logical = address & BIT(2),
		.trigger = data & BIT(15),
		.level = true,
	};

	if (get(&c->x2apic_api) & X2APIC_API_32BIT_IDS)
		m.dest |= (u32)(address >> 32) & 0xffffff00;
	/* Redirection hint: one of the destinations, not all. */
	if ((address & BIT(3)) && m.delivery == IRQ_FIXED)
		m.delivery = IRQ_LOWEST;
	return m;
}

int irq_send_msi(struct irqchip *c, u64 address, u32 data)
{
	struct irq_msg m;

	if (!msi_address_valid(c, address))
		return -EINVAL;
	m = msi_message(c, address, data);
	return irq_deliver(c, &m);
}

static int route_drive(
	struct irqchip *c, const struct irq_route *r, enum irq_source source, bool level)
{
	if (r->kind == IRQ_ROUTE_MSI)
		return level ? irq_send_msi(c, r->msi_address, r->msi_data) : -1;
	if (r->chip == IRQ_CHIP_IOAPIC)
		return ioapic_set_line(c, source, r->pin, level);
	return pic_set_line(c, source, r->chip * 8 + r->pin, level);
}

int irq_set_line(struct irqchip *c, enum irq_source source, unsigned int gsi, bool level)
{
	struct routes *t = routes_get(c);
	int sum = -1;

	for (u32 i = gsi < t->nr_gsis ? t->start[gsi] : 0;
		gsi < t->nr_gsis && i < t->start[gsi + 1]; i++) {
		int n = route_drive(c, &t->entry[i], source, level);

		if (n >= 0)
			sum = MAX(sum, 0) + n;
	}
	routes_put(c, t);
	return sum;
}

bool irq_msi_route(struct irqchip *c, unsigned int gsi, struct irq_route *r)
{
	struct routes *t = routes_get(c);
	bool msi = gsi < t->nr_gsis && t->start[gsi] < t->start[gsi + 1] &&
		t->entry[t->start[gsi]].kind == IRQ_ROUTE_MSI;

	if (msi)
		*r = t->entry[t->start[gsi]];
	routes_put(c, t);
	return msi;
}

int route_gsi(struct irqchip *c, enum irq_chip_id chip, unsigned int pin)
{
	struct routes *t = routes_get(c);
	int gsi = t->gsi_of[chip][pin];

	routes_put(c, t);
	return gsi;
}

bool route_has_level_msi(struct irqchip *c, u8 vector)
{
	struct routes *t = routes_get(c);
	u32 end = t->nr_gsis ? t->start[MIN(c->split_pins, t->nr_gsis)] : 0;
	bool found = false;

	for (u32 i = 0; i < end && !found; i++) {
		const struct irq_route *r = &t->entry[i];

		found = r->kind == IRQ_ROUTE_MSI && (u8)r->msi_data == vector &&
			(r->msi_data & BIT(15));
	}
	routes_put(c, t);
	return found;
}
