// SPDX-License-Identifier: MIT
/*
 * The interrupt chips: registers by MMIO, port and MSR, states set to anything, messages, lines,
 * routes, time that passes. A chip never calls out with a number that it was not given.
 */
#include "fuzz.h"

#include "irq/irq_impl.h"

#define VCPUS 4

struct world {
	struct irqchip *c;
	struct lapic *l[VCPUS];
	bool split;
	u64 ns;
	struct irq_timer *queue;
	unsigned int depth;
};

static void on_kick(void *vm, unsigned int v)
{
	(void)vm;
	FUZZ_CHECK(v < VCPUS);
}

static void on_sipi(void *vm, unsigned int v, u8 vector)
{
	(void)vector;
	on_kick(vm, v);
}

static void on_acked(void *vm, unsigned int gsi)
{
	struct world *w = vm;

	FUZZ_CHECK(gsi < IRQ_GSI_MAX && w->depth < 64);
	if (w->depth > 8)
		return;
	w->depth++;
	irq_set_line(w->c, IRQ_SOURCE_RESAMPLE, gsi, false);
	w->depth--;
}

static u64 on_now(void *vm)
{
	return ((struct world *)vm)->ns;
}

static u64 on_tsc(void *vm, unsigned int v, u64 tsc)
{
	on_kick(vm, v);
	return tsc / 2;
}

static void unlink_timer(struct world *w, struct irq_timer *t)
{
	if (!t->pos)
		return;
	if (t->prev)
		t->prev->next = t->next;
	else
		w->queue = t->next;
	if (t->next)
		t->next->prev = t->prev;
	t->pos = 0;
}

static void on_disarm(void *vm, struct irq_timer *t)
{
	unlink_timer(vm, t);
}

static void on_arm(void *vm, struct irq_timer *t, u64 deadline)
{
	struct world *w = vm;

	unlink_timer(w, t);
	t->deadline_ns = deadline;
	t->pos = 1;
	t->prev = NULL;
	t->next = w->queue;
	if (t->next)
		t->next->prev = t;
	w->queue = t;
}

static const struct irqchip_ops ops = {
	.kick = on_kick, .nmi = on_kick, .smi = on_kick, .init = on_kick, .sipi = on_sipi,
	.eoi_exit = on_sipi, .acked = on_acked, .now_ns = on_now, .tsc_deadline_ns = on_tsc,
	.arm = on_arm, .disarm = on_disarm,
};

/* Time goes on; a timer that is always due again (its period is a tick) may not starve the rest. */
static void advance(struct world *w, u64 ns)
{
	w->ns += ns;
	for (int k = 0; k < 50; k++) {
		struct irq_timer *t = w->queue;

		while (t && t->deadline_ns > w->ns)
			t = t->next;
		if (!t)
			return;
		unlink_timer(w, t);
		t->fire(t);
	}
}

static void lapic_step(struct world *w, struct bytes *b)
{
	struct lapic *l = w->l[take_uint8_t(b) % VCPUS];
	u8 page[LAPIC_PAGE_LEN];
	u64 v;
	unsigned int len = 1 + take_uint8_t(b) % 8;
	u32 where = take_uint8_t(b) << 4 | (take_uint8_t(b) % 8 ? 0 : take_uint8_t(b) & 15);

	switch (take_uint8_t(b) % 11) {
	case 0:
		v = take_number(b);
		(void)!lapic_mmio_write(l, gpa(LAPIC_BASE + where), take_uint8_t(b) % 4 ? 4 : len, &v);
		break;
	case 1:
		(void)!lapic_mmio_read(l, gpa(LAPIC_BASE + where), len, &v);
		break;
	case 2:
		(void)!lapic_msr_write(l, 0x800 + (where >> 4), take_number(b));
		break;
	case 3:
		(void)!lapic_msr_read(l, 0x800 + (where >> 4), &v);
		break;
	case 4:
		(void)!lapic_set_base(l, (take_number(b) & 0xc00) | LAPIC_BASE, take_uint8_t(b) & 1);
		break;
	case 5:
		lapic_set_tsc_deadline(l, take_number(b));
		break;
	case 6:
		take(b, page, sizeof(page));
		(void)!lapic_set_state(l, page);
		lapic_get_state(l, page);
		break;
	case 7:
		lapic_reset(l, take_uint8_t(b) & 1);
		break;
	case 8:
		lapic_local_interrupt(l, 1 + take_uint8_t(b) % 4);
		break;
	case 9:
		lapic_set_cr8(l, take_uint8_t(b) & 15);
		FUZZ_CHECK(lapic_get_cr8(l) < 16);
		break;
	default:
		lapic_tsc_changed(l);
	}
	if (irq_pending(l))
		FUZZ_CHECK(irq_ack(l) < 256);
}

static void pic_step(struct world *w, struct bytes *b)
{
	static const u16 ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x41, 0x42, 0x43, 0x61};
	u16 port = ports[take_uint8_t(b) % ARRAY_SIZE(ports)];
	bool is_pic = port < 0x40 || port >= 0xa0;
	struct pic_state pic;
	struct pit_state pit;

	if (w->split)
		return;
	switch (take_uint8_t(b) % 6) {
	case 0:
		take(b, &pic, sizeof(pic));
		pic_set_state(w->c, take_uint8_t(b) & 1, &pic);
		break;
	case 1:
		take(b, &pit, sizeof(pit));
		pit_set_state(w->c, &pit);
		pit_get_state(w->c, &pit);
		break;
	case 2:
		if (is_pic)
			(void)pic_read(w->c, port);
		else
			(void)pit_read(w->c, port);
		break;
	default:
		if (is_pic)
			pic_write(w->c, port, take_uint8_t(b));
		else
			pit_write(w->c, port, take_uint8_t(b));
	}
}

static void ioapic_step(struct world *w, struct bytes *b)
{
	struct ioapic_state s;
	u8 data[8];

	if (w->split)
		return;
	switch (take_uint8_t(b) % 4) {
	case 0:
		take(b, &s, sizeof(s));
		ioapic_set_state(w->c, &s);
		break;
	case 1:
		ioapic_read(w->c, take_uint8_t(b), 1 + take_uint8_t(b) % 8, data);
		break;
	default:
		take(b, data, sizeof(data));
		ioapic_write(w->c, take_uint8_t(b) & 0x10, 1 + take_uint8_t(b) % 8, data);
	}
}

static void routes_step(struct world *w, struct bytes *b)
{
	struct irq_route r[16];
	size_t n = take_uint8_t(b) % 17;

	for (size_t k = 0; k < n; k++)
		r[k] = (struct irq_route){
			.gsi = take_number(b),
			.kind = take_uint8_t(b) % 4,
			.chip = take_uint8_t(b) % 4,
			.pin = take_uint8_t(b) % 26,
			.msi_address = 0xfee00000 | (take_number(b) & 0xff000ff00c),
			.msi_data = take_uint32_t(b),
		};
	(void)!irq_set_routes(w->c, r, n);
	(void)!irq_msi_route(w->c, take_number(b), &r[0]);
}

static void step(struct world *w, struct bytes *b)
{
	struct irq_msg m;

	switch (take_uint8_t(b) % 8) {
	case 0:
		pic_step(w, b);
		break;
	case 1:
		ioapic_step(w, b);
		break;
	case 2:
		irq_set_line(w->c, take_uint8_t(b) % IRQ_SOURCES, take_number(b), take_uint8_t(b) & 1);
		break;
	case 3:
		irq_send_msi(w->c, 0xfee00000 | (take_number(b) & 0xffffff00000ff00c), take_uint32_t(b));
		break;
	case 4:
		m = (struct irq_msg){
			.dest = take_number(b), .vector = take_uint8_t(b), .delivery = take_uint8_t(b) & 7,
			.shorthand = take_uint8_t(b) & 3, .logical = take_uint8_t(b) & 1,
			.level = take_uint8_t(b) & 1, .trigger = take_uint8_t(b) & 1,
			.source = w->l[take_uint8_t(b) % VCPUS],
		};
		irq_deliver(w->c, &m);
		break;
	case 5:
		routes_step(w, b);
		break;
	case 6:
		advance(w, take_number(b) & 0xffffffff);
		break;
	default:
		lapic_step(w, b);
	}
}

void fuzz_one(const uint8_t *data, size_t n)
{
	struct bytes b = {data, n};
	u8 k = take_uint8_t(&b);
	struct world w = {.ns = 1000, .split = k & 1};

	w.c = irqchip_create(w.split ? IRQCHIP_SPLIT : IRQCHIP_FULL, w.split ? 24 : 0, &ops, &w);
	FUZZ_CHECK(w.c);
	if (!w.split)
		FUZZ_CHECK(!pit_create(w.c, PIT_SPEAKER_DUMMY, NULL));
	for (unsigned int v = 0; v < VCPUS; v++) {
		w.l[v] = lapic_create(w.c, v, v == 3 ? 300 : v, v == 0);
		FUZZ_CHECK(w.l[v]);
		lapic_set_features(w.l[v], 46, k & 2, k & 4);
	}
	irqchip_set_x2apic_api(w.c, k >> 3 & 3);
	while (b.n)
		step(&w, &b);
	irqchip_destroy(w.c);
}
