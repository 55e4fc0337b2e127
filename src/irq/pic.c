// SPDX-License-Identifier: MIT
/*
 * The pair of 8259A interrupt controllers of a PC (Intel 8259A datasheet), with the edge/
 * level control registers at ports 4d0 and 4d1. The slave's INT is the master's IR2.
 * DIFFERS: always cascaded, buffered mode and MCS-80 mode do not exist.
 */
#include "irq/irq_impl.h"

#include <stdlib.h>
#include <string.h>

#define CASCADE 2 /* the master's line that the slave drives */

struct pic {
	pthread_mutex_t lock;
	struct pic_state half[2]; /* master, slave */
	u8 sources[PIC_PINS];	  /* which enum irq_source drive the line high */
	u32 acked;		  /* lines whose ISR bit was cleared under this lock */
	bool output;		  /* INTR; atomic */
};

/* What has to be told after the lock is dropped. */
struct news {
	bool raised; /* INTR rose */
	u32 acked;   /* lines acknowledged */
};

struct pic *pic_create(void)
{
	struct pic *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	pthread_mutex_init(&p->lock, NULL);
	p->half[0].elcr_mask = 0xf8; /* lines 0, 1, 2, 8 and 13 are edge-triggered for ever */
	p->half[1].elcr_mask = 0xde;
	return p;
}

void pic_destroy(struct pic *p)
{
	if (p)
		pthread_mutex_destroy(&p->lock);
	free(p);
}

/* ---- priorities; under the lock ---- */

/* Place of the highest-priority line of a set in the rotation, 0 first; 8: empty set. */
static unsigned int priority(const struct pic_state *s, u8 set)
{
	unsigned int n = 0;

	while (n < 8 && !(set & (1u << ((n + s->priority_add) & 7))))
		n++;
	return n;
}

/* The line that this half would signal now, or -1. */
static int requested(const struct pic *p, const struct pic_state *s)
{
	u8 serving = s->isr;
	unsigned int n = priority(s, s->irr & ~s->imr);

	if (s->special_mask)
		serving &= ~s->imr;
	/* Special fully nested: the slave may interrupt its own service. */
	if (s->special_fully_nested_mode && s == &p->half[0])
		serving &= ~(1u << CASCADE);
	return n < priority(s, serving) ? (int)((n + s->priority_add) & 7) : -1;
}

static bool update(struct pic *p)
{
	bool was = get(&p->output), is;
	u8 bit = 1u << CASCADE;

	if (requested(p, &p->half[1]) >= 0)
		p->half[0].irr |= bit;
	else
		p->half[0].irr &= ~bit;
	is = requested(p, &p->half[0]) >= 0;
	__atomic_store_n(&p->output, is, __ATOMIC_SEQ_CST);
	return is && !was;
}

static void clear_isr(struct pic *p, struct pic_state *s, unsigned int line)
{
	s->isr &= ~(1u << line);
	p->acked |= 1u << (line + (s == &p->half[1] ? 8 : 0));
}

/* INTA: IRR to ISR. A level line's IRR follows the line. */
static void acknowledge(struct pic *p, struct pic_state *s, unsigned int line)
{
	s->isr |= 1u << line;
	if (!(s->elcr & (1u << line)))
		s->irr &= ~(1u << line);
	if (s->auto_eoi) {
		if (s->rotate_on_auto_eoi)
			s->priority_add = (line + 1) & 7;
		clear_isr(p, s, line);
	}
}

/* ---- the lock, and telling others after it ---- */

static void lock(struct pic *p)
{
	pthread_mutex_lock(&p->lock);
}

static struct news unlock(struct pic *p)
{
	struct news n = { .raised = update(p), .acked = p->acked };

	p->acked = 0;
	pthread_mutex_unlock(&p->lock);
	return n;
}

/*
 * INTR goes to LINT0 of every LAPIC. As ExtINT it is a level that the first vCPU which
 * accepts it is woken to see; in any other mode its rise is a local interrupt.
 */
static void intr_rose(struct irqchip *c)
{
	bool woken = false;

	for (unsigned int i = 0; i < get(&c->nr_lapics); i++) {
		struct lapic *l = lapic_at(c, i);

		if (!l)
			continue;
		if (!lapic_accepts_pic(l)) {
			lapic_local_interrupt(l, LAPIC_LVT_LINT0);
		} else if (!woken) {
			c->ops->kick(c->vm, l->vcpu);
			woken = true;
		}
	}
}

static void tell(struct irqchip *c, struct news n)
{
	if (n.raised)
		intr_rose(c);
	for (unsigned int line = 0; line < PIC_PINS; line++)
		if (n.acked & (1u << line))
			irqchip_acked(c, line / 8, line % 8);
}

/* ---- lines ---- */

/* > 0 new, 0 still pending from before, -1 masked. */
static int half_set_line(struct pic_state *s, unsigned int line, bool level)
{
	u8 bit = 1u << line;
	bool rose = level && (!(s->last_irr & bit) || (s->elcr & bit));
	int fresh = 1;

	if (rose) {
		fresh = !(s->irr & bit);
		s->irr |= bit;
	}
	if (!level && (s->elcr & bit))
		s->irr &= ~bit;
	s->last_irr = level ? s->last_irr | bit : s->last_irr & ~bit;
	return s->imr & bit ? -1 : fresh;
}

int pic_set_line(struct irqchip *c, enum irq_source source, unsigned int line, bool level)
{
	struct pic *p = c->pic;
	struct news n;
	int result;

	lock(p);
	p->sources[line] = level ? p->sources[line] | 1u << source
				 : p->sources[line] & ~(1u << source);
	result = half_set_line(&p->half[line / 8], line % 8, p->sources[line]);
	n = unlock(p);
	tell(c, n);
	return result;
}

bool pic_output(const struct irqchip *c)
{
	return c->pic && __atomic_load_n(&c->pic->output, __ATOMIC_ACQUIRE);
}

/* One half's INTA: its line, or 7 with nothing set (spurious). */
static unsigned int half_inta(struct pic *p, struct pic_state *s)
{
	int line = requested(p, s);

	if (line < 0)
		return 7;
	acknowledge(p, s, (unsigned int)line);
	return (unsigned int)line;
}

/* The slave answers when the master's line is the cascade; nobody: line 7 of the master. */
int pic_ack(struct irqchip *c)
{
	struct pic *p = c->pic;
	unsigned int line;
	int vector;
	struct news n;

	lock(p);
	line = half_inta(p, &p->half[0]);
	vector = p->half[0].irq_base + (int)line;
	if (line == CASCADE)
		vector = p->half[1].irq_base + (int)half_inta(p, &p->half[1]);
	n = unlock(p);
	tell(c, n);
	return (u8)vector; /* KVM_SET_IRQCHIP may have set a base that is no multiple of 8 */
}

/* ---- ports; under the lock ---- */

/*
 * ICW1 starts the initialisation sequence: the edge latches, IMR and ISR are cleared. Edge
 * interrupts that were waiting count as acknowledged: nobody will ever do it.
 */
static void icw1(struct pic *p, struct pic_state *s, u8 v)
{
	u8 dropped = (s->irr & ~s->elcr) | s->isr;

	s->init4 = v & 1;
	s->last_irr = 0;
	s->irr &= s->elcr;
	s->imr = 0;
	s->isr = 0;
	s->priority_add = 0;
	s->special_mask = 0;
	s->read_reg_select = 0;
	s->poll = 0;
	if (!s->init4) {
		s->special_fully_nested_mode = 0;
		s->auto_eoi = 0;
	}
	s->init_state = 1;
	p->acked |= (u32)dropped << (s == &p->half[1] ? 8 : 0);
}

/* ICW2: vector base; ICW3: cascade, fixed; ICW4. Then, and outside: OCW1, the mask. */
static void write_data(struct pic_state *s, u8 v)
{
	switch (s->init_state) {
	case 0:
		s->imr = v;
		break;
	case 1:
		s->irq_base = v & 0xf8;
		s->init_state = 2;
		break;
	case 2:
		s->init_state = s->init4 ? 3 : 0;
		break;
	default:
		s->special_fully_nested_mode = (v >> 4) & 1;
		s->auto_eoi = (v >> 1) & 1;
		s->init_state = 0;
	}
}

/* Non-specific EOI: the highest in service; in special mask mode, that is not masked. */
static void eoi_highest(struct pic *p, struct pic_state *s, bool rotate)
{
	unsigned int n = priority(s, s->special_mask ? s->isr & ~s->imr : s->isr);
	unsigned int line = (n + s->priority_add) & 7;

	if (n == 8)
		return;
	if (rotate)
		s->priority_add = (line + 1) & 7;
	clear_isr(p, s, line);
}

static void ocw2(struct pic *p, struct pic_state *s, u8 v)
{
	unsigned int line = v & 7;

	switch (v >> 5) {
	case 0: /* rotate in automatic EOI mode: clear, set */
	case 4:
		s->rotate_on_auto_eoi = v >> 7;
		break;
	case 1:
	case 5:
		eoi_highest(p, s, v & 0x80);
		break;
	case 7: /* rotate on specific EOI */
		s->priority_add = (line + 1) & 7;
		/* fall through */
	case 3:
		clear_isr(p, s, line);
		break;
	case 6: /* set priority: line becomes the lowest */
		s->priority_add = (line + 1) & 7;
		break;
	}
}

static void ocw3(struct pic_state *s, u8 v)
{
	if (v & 0x04)
		s->poll = 1;
	if (v & 0x02)
		s->read_reg_select = v & 1;
	if (v & 0x40)
		s->special_mask = (v >> 5) & 1;
}

static void write_command(struct pic *p, struct pic_state *s, u8 v)
{
	if (v & 0x10)
		icw1(p, s, v);
	else if (v & 0x08)
		ocw3(s, v);
	else
		ocw2(p, s, v);
}

/* A read after the poll command is an INTA without a vector. */
static u8 poll(struct pic *p, struct pic_state *s)
{
	int line = requested(p, s);

	s->poll = 0;
	if (line < 0)
		return 7;
	acknowledge(p, s, (unsigned int)line);
	return 0x80 | (u8)line;
}

static bool is_elcr(u16 port)
{
	return (port & ~1) == 0x4d0;
}

static struct pic_state *half_at(struct pic *p, u16 port)
{
	return &p->half[is_elcr(port) ? port & 1 : (port & 0x80) != 0];
}

u8 pic_read(struct irqchip *c, u16 port)
{
	struct pic *p = c->pic;
	struct pic_state *s = half_at(p, port);
	struct news n;
	u8 v;

	lock(p);
	if (is_elcr(port))
		v = s->elcr;
	else if (s->poll)
		v = poll(p, s);
	else if (port & 1)
		v = s->imr;
	else
		v = s->read_reg_select ? s->isr : s->irr;
	n = unlock(p);
	tell(c, n);
	return v;
}

/* Level lines take their level into IRR when they become level-triggered. */
static void write_elcr(struct pic_state *s, u8 v)
{
	u8 fresh = v & s->elcr_mask & ~s->elcr;

	s->elcr = v & s->elcr_mask;
	s->irr = (s->irr & ~fresh) | (s->last_irr & fresh);
}

void pic_write(struct irqchip *c, u16 port, u8 value)
{
	struct pic *p = c->pic;
	struct pic_state *s = half_at(p, port);
	struct news n;
	u8 unmasked;

	lock(p);
	unmasked = s->imr;
	if (is_elcr(port))
		write_elcr(s, value);
	else if (port & 1)
		write_data(s, value);
	else
		write_command(p, s, value);
	unmasked &= ~s->imr;
	n = unlock(p);
	for (unsigned int line = 0; line < 8; line++)
		if (unmasked & (1u << line))
			irqchip_unmasked(c, s == &p->half[1], line);
	tell(c, n);
}

/* ---- state ---- */

/* A line that only the PIT holds is in the middle of a pulse. In the state that is saved the pulse is over. */
void pic_get_state(struct irqchip *c, bool slave, struct pic_state *s)
{
	lock(c->pic);
	*s = c->pic->half[slave];
	for (unsigned int line = 0; line < 8; line++)
		if (c->pic->sources[slave * 8 + line] == 1u << IRQ_SOURCE_PIT)
			s->last_irr &= ~(1u << line);
	pthread_mutex_unlock(&c->pic->lock);
}

void pic_set_state(struct irqchip *c, bool slave, const struct pic_state *s)
{
	struct pic *p = c->pic;
	struct pic_state *h = &p->half[slave];
	u8 elcr_mask = h->elcr_mask;
	struct news n;

	lock(p);
	*h = *s;
	h->elcr_mask = elcr_mask;
	h->elcr &= elcr_mask;
	h->priority_add &= 7;
	n = unlock(p);
	tell(c, n);
}
