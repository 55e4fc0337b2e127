// SPDX-License-Identifier: MIT
/*
 * IOAPIC, 24 pins, version 0x11 (82093AA datasheet): pin levels become messages by the
 * redirection table. Decides under its lock, sends after dropping it.
 */
#include "irq/irq_impl.h"

#include <stdlib.h>
#include <string.h>

#define VERSION_VALUE ((IOAPIC_PINS - 1) << 16 | 0x11)

enum { REG_SELECT = 0x00, REG_WINDOW = 0x10 };		      /* offsets in the page */
enum { IND_ID = 0, IND_VERSION = 1, IND_ARB = 2, IND_REDIR = 0x10 }; /* by REG_SELECT */

/* Redirection entry (82093AA 3.2.4). Polarity, bit 13, is stored and ignored. */
#define RE_VECTOR(e)   ((u8)(e))
#define RE_DELIVERY(e) (((e) >> 8) & 7)
#define RE_LOGICAL     BIT(11)
#define RE_STATUS      BIT(12)
#define RE_REMOTE_IRR  BIT(14)
#define RE_LEVEL       BIT(15)
#define RE_MASKED      BIT(16)
#define RE_DEST(e)     ((u32)((e) >> 56))

struct ioapic {
	pthread_mutex_t lock; /* over all below but eoi_vectors */
	u64 base_address;
	u32 select, id;
	u32 irr;	   /* pins that are high */
	u32 edges_sent;	   /* of irr: an edge that has been delivered (not in saved state) */
	u64 redir[IOAPIC_PINS];
	u8 sources[IOAPIC_PINS]; /* which enum irq_source drive the pin high */
	u64 eoi_vectors[4];	 /* atomic: vectors of the table, so that most EOIs take no lock */
};

struct ioapic *ioapic_create(void)
{
	struct ioapic *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	pthread_mutex_init(&a->lock, NULL);
	a->base_address = IOAPIC_BASE;
	for (int i = 0; i < IOAPIC_PINS; i++)
		a->redir[i] = RE_MASKED;
	return a;
}

void ioapic_destroy(struct ioapic *a)
{
	if (a)
		pthread_mutex_destroy(&a->lock);
	free(a);
}

/* ---- sending ---- */

/* Under the lock: may the pin send now? Then *m is what, and a level waits for its EOI. */
static bool pin_ready(struct ioapic *a, unsigned int pin, struct irq_msg *m)
{
	u64 e = a->redir[pin];

	if ((e & RE_MASKED) || ((e & RE_LEVEL) && (e & RE_REMOTE_IRR)))
		return false;
	*m = (struct irq_msg){
		.dest = RE_DEST(e),
		.vector = RE_VECTOR(e),
		.delivery = RE_DELIVERY(e),
		.logical = e & RE_LOGICAL,
		.trigger = e & RE_LEVEL,
		.level = true,
	};
	if (e & RE_LEVEL)
		a->redir[pin] |= RE_REMOTE_IRR;
	else
		a->edges_sent |= 1u << pin;
	return true;
}

/* Without the lock. A level interrupt that nobody took awaits no EOI. */
static int pin_send(struct irqchip *c, unsigned int pin, const struct irq_msg *m)
{
	struct ioapic *a = c->ioapic;
	int n = irq_deliver(c, m);

	if (n <= 0 && m->trigger) {
		pthread_mutex_lock(&a->lock);
		a->redir[pin] &= ~RE_REMOTE_IRR;
		pthread_mutex_unlock(&a->lock);
	}
	return n;
}

/* ---- lines ---- */

enum { LINE_COALESCED, LINE_IGNORED, LINE_LOWERED, LINE_SEND };

static int line_change(struct ioapic *a, unsigned int pin, bool level, struct irq_msg *m)
{
	u32 bit = 1u << pin;
	bool was = a->irr & bit, edge = !(a->redir[pin] & RE_LEVEL);

	if (!level) {
		a->irr &= ~bit;
		return LINE_LOWERED;
	}
	a->irr |= bit;
	if (edge && was)
		return LINE_COALESCED;
	if (edge)
		a->edges_sent &= ~bit;
	return pin_ready(a, pin, m) ? LINE_SEND : LINE_IGNORED;
}

int ioapic_set_line(struct irqchip *c, enum irq_source source, unsigned int pin, bool level)
{
	struct ioapic *a = c->ioapic;
	struct irq_msg m;
	int what;

	pthread_mutex_lock(&a->lock);
	a->sources[pin] = level ? a->sources[pin] | 1u << source
				: a->sources[pin] & ~(1u << source);
	what = line_change(a, pin, a->sources[pin], &m);
	pthread_mutex_unlock(&a->lock);
	switch (what) {
	case LINE_SEND:
		return pin_send(c, pin, &m);
	case LINE_LOWERED:
		return 1;
	case LINE_COALESCED:
		return 0;
	}
	return -1;
}

/* ---- EOI ---- */

/* Under the lock. */
static void update_eoi_vectors(struct ioapic *a)
{
	u64 set[4] = { 0 };

	for (int i = 0; i < IOAPIC_PINS; i++)
		set[RE_VECTOR(a->redir[i]) / 64] |= BIT(RE_VECTOR(a->redir[i]) % 64);
	for (int i = 0; i < 4; i++)
		put(&a->eoi_vectors[i], set[i]);
}

static u32 pins_of_vector(struct ioapic *a, u8 vector)
{
	u32 pins = 0;

	pthread_mutex_lock(&a->lock);
	for (int i = 0; i < IOAPIC_PINS; i++)
		if (RE_VECTOR(a->redir[i]) == vector)
			pins |= 1u << i;
	pthread_mutex_unlock(&a->lock);
	return pins;
}

/* A level pin that is still high sends again. */
static void pin_eoi(struct irqchip *c, unsigned int pin)
{
	struct ioapic *a = c->ioapic;
	struct irq_msg m;
	bool again = false;

	pthread_mutex_lock(&a->lock);
	if (a->redir[pin] & RE_LEVEL) {
		a->redir[pin] &= ~RE_REMOTE_IRR;
		again = (a->irr & (1u << pin)) && pin_ready(a, pin, &m);
	}
	pthread_mutex_unlock(&a->lock);
	if (again)
		pin_send(c, pin, &m);
}

/*
 * A LAPIC ended an interrupt of this vector. Whoever drives the pin hears of it first and
 * may lower it; then the level is looked at.
 */
void ioapic_eoi(struct irqchip *c, u8 vector, bool level)
{
	u32 pins;

	if (!(get(&c->ioapic->eoi_vectors[vector / 64]) & BIT(vector % 64)))
		return;
	pins = pins_of_vector(c->ioapic, vector);
	for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++) {
		if (!(pins & (1u << pin)))
			continue;
		irqchip_acked(c, IRQ_CHIP_IOAPIC, pin);
		if (level)
			pin_eoi(c, pin);
	}
}

/* ---- registers ---- */

static u32 read_selected(const struct ioapic *a)
{
	u32 n = (a->select - IND_REDIR) / 2;

	switch (a->select) {
	case IND_ID:
	case IND_ARB:
		return (a->id & 0xf) << 24;
	case IND_VERSION:
		return VERSION_VALUE;
	}
	if (a->select < IND_REDIR || n >= IOAPIC_PINS)
		return 0;
	return (u32)(a->redir[n] >> (a->select & 1 ? 32 : 0));
}

void ioapic_read(struct irqchip *c, u32 offset, unsigned int len, void *data)
{
	struct ioapic *a = c->ioapic;
	u64 v = 0;

	pthread_mutex_lock(&a->lock);
	if (offset == REG_SELECT)
		v = a->select;
	else if (offset == REG_WINDOW)
		v = read_selected(a);
	pthread_mutex_unlock(&a->lock);
	memcpy(data, &v, MIN(len, 8u));
}

/*
 * Remote IRR and delivery status are read-only, but an entry that becomes edge-triggered
 * loses its remote IRR: that is how systems clear one that is stuck.
 */
static void set_half(struct ioapic *a, unsigned int pin, bool high, u32 v)
{
	u64 keep = RE_REMOTE_IRR | RE_STATUS, old = a->redir[pin];
	u64 e = high ? (old & BITS(31, 0)) | (u64)v << 32 : (old & BITS(63, 32)) | v;

	e = (e & ~keep) | (old & keep);
	if (!(e & RE_LEVEL))
		e &= ~RE_REMOTE_IRR;
	a->redir[pin] = e;
}

static void write_redir(struct irqchip *c, unsigned int index, u32 v)
{
	struct ioapic *a = c->ioapic;
	unsigned int pin = index / 2;
	struct irq_msg m;
	bool unmasked, send = false;

	pthread_mutex_lock(&a->lock);
	unmasked = a->redir[pin] & RE_MASKED;
	set_half(a, pin, index & 1, v);
	unmasked = unmasked && !(a->redir[pin] & RE_MASKED);
	update_eoi_vectors(a);
	if ((a->redir[pin] & RE_LEVEL) && (a->irr & (1u << pin)))
		send = pin_ready(a, pin, &m);
	pthread_mutex_unlock(&a->lock);
	if (unmasked)
		irqchip_unmasked(c, IRQ_CHIP_IOAPIC, pin);
	if (send)
		pin_send(c, pin, &m);
}

static void write_selected(struct irqchip *c, u32 v)
{
	struct ioapic *a = c->ioapic;
	u32 select;

	pthread_mutex_lock(&a->lock);
	select = a->select;
	if (select == IND_ID)
		a->id = (v >> 24) & 0xf;
	pthread_mutex_unlock(&a->lock);
	if (select >= IND_REDIR && select < IND_REDIR + 2 * IOAPIC_PINS)
		write_redir(c, select - IND_REDIR, v);
}

void ioapic_write(struct irqchip *c, u32 offset, unsigned int len, const void *data)
{
	struct ioapic *a = c->ioapic;
	u32 v = 0;

	memcpy(&v, data, MIN(len, 4u));
	if (offset == REG_SELECT) {
		pthread_mutex_lock(&a->lock);
		a->select = v & 0xff;
		pthread_mutex_unlock(&a->lock);
	} else if (offset == REG_WINDOW) {
		write_selected(c, v);
	}
}

/* ---- state ---- */

/* An edge that was delivered is not pending in the saved IRR: set would deliver it again. */
void ioapic_get_state(struct irqchip *c, struct ioapic_state *s)
{
	struct ioapic *a = c->ioapic;

	memset(s, 0, sizeof(*s));
	pthread_mutex_lock(&a->lock);
	s->base_address = a->base_address;
	s->ioregsel = a->select;
	s->id = a->id;
	s->irr = a->irr & ~a->edges_sent;
	memcpy(s->redirtbl, a->redir, sizeof(s->redirtbl));
	pthread_mutex_unlock(&a->lock);
}

void ioapic_set_state(struct irqchip *c, const struct ioapic_state *s)
{
	struct ioapic *a = c->ioapic;

	pthread_mutex_lock(&a->lock);
	a->base_address = s->base_address;
	a->select = s->ioregsel & 0xff;
	a->id = s->id;
	a->irr = 0;
	a->edges_sent = 0;
	memcpy(a->redir, s->redirtbl, sizeof(a->redir));
	update_eoi_vectors(a);
	pthread_mutex_unlock(&a->lock);
	for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++) {
		struct irq_msg m;
		int what;

		if (!(s->irr & (1u << pin)))
			continue;
		pthread_mutex_lock(&a->lock);
		what = line_change(a, pin, true, &m);
		pthread_mutex_unlock(&a->lock);
		if (what == LINE_SEND)
			pin_send(c, pin, &m);
	}
}
