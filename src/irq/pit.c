// SPDX-License-Identifier: MIT
/*
 * 8254 interval timer (Intel 8254 datasheet). Counters are computed from the time of their
 * last load; only channel 0, which drives GSI 0, has a timer. Its ticks are placed at
 * load + n * count / 1193182 Hz, so they do not drift.
 * DIFFERS: as in KVM, BCD is stored but counts binary, the null-count status bit reads 0, a
 * control word alone does not stop the counter, and channel 0's gate is always high.
 */
#include "irq/irq_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PIT_HZ	   1193182ull
#define NS_PER_SEC 1000000000ull

/* DIFFERS: ticks faster than every 200 us are stretched (KVM's min_timer_period_us). */
#define MIN_TICK_COUNT ((u64)(200000 * PIT_HZ / NS_PER_SEC))

/* Late ticks that are delivered at most; beyond, time is lost to the guest. */
#define MAX_LATE 4096u

enum { RW_LATCH, RW_LSB, RW_MSB, RW_WORD0, RW_WORD1 };

struct pit {
	struct irqchip *chip;
	pthread_mutex_t lock; /* over all below */
	struct pit_channel_state ch[3];
	u32 flags; /* PIT_FLAGS_HPET_LEGACY */
	bool speaker_on;

	struct irq_timer timer;
	bool armed, periodic;
	u64 start_ns, ticks; /* next deadline: `ticks` counts of tick_count after start_ns */
	u64 tick_count;

	/* Reinjection: a tick waits until the guest has acknowledged the one before. */
	bool reinject, acked;
	bool sending; /* a thread is in send_ticks */
	u32 late; /* ticks that are due, the unacknowledged one included */
};

static struct pit *pit_of(const struct irqchip *c)
{
	return __atomic_load_n(&c->pit, __ATOMIC_ACQUIRE);
}

static u64 muldiv(u64 a, u64 b, u64 c)
{
	return (u64)((unsigned __int128)a * b / c);
}

static u64 now(const struct pit *p)
{
	return p->chip->ops->now_ns(p->chip->vm);
}

/* ---- counters; under the lock ---- */

/* PIT clocks since the channel's load or trigger. */
static u64 elapsed(const struct pit *p, const struct pit_channel_state *ch)
{
	s64 ns = (s64)now(p) - ch->count_load_time;

	return ns > 0 ? muldiv((u64)ns, PIT_HZ, NS_PER_SEC) : 0;
}

static u32 full_count(const struct pit_channel_state *ch)
{
	return ch->count ? ch->count : 0x10000;
}

static u16 counter(const struct pit *p, const struct pit_channel_state *ch)
{
	u64 d = elapsed(p, ch);
	u32 n = full_count(ch);

	switch (ch->mode) {
	case 2:
		return (u16)(n - d % n);
	case 3: /* counts by twos, twice per period */
		return (u16)(n - 2 * d % n);
	default:
		return (u16)(n - d);
	}
}

static bool output(const struct pit *p, const struct pit_channel_state *ch)
{
	u64 d = elapsed(p, ch);
	u32 n = full_count(ch);

	switch (ch->mode) {
	case 0:
		return d >= n;
	case 1:
		return d < n;
	case 2:
		return d && d % n == 0;
	case 3:
		return d % n < (n + 1) / 2;
	default: /* strobes low for one clock; KVM has it the other way round */
		return d != n;
	}
}

/* The rising edge of a gate restarts modes 1, 2, 3 and 5. */
static void set_gate(struct pit *p, struct pit_channel_state *ch, bool gate)
{
	if (gate && !ch->gate && ch->mode != 0 && ch->mode != 4)
		ch->count_load_time = (s64)now(p);
	ch->gate = gate;
}

/* ---- channel 0's timer; under the lock ---- */

static void disarm(struct pit *p)
{
	if (p->armed)
		p->chip->ops->disarm(p->chip->vm, &p->timer);
	p->armed = false;
}

static u64 deadline(const struct pit *p)
{
	u64 clocks = p->ticks * p->tick_count;

	/* Round up: at that time the counter must have run out. */
	return p->start_ns + muldiv(clocks, NS_PER_SEC, PIT_HZ) + 1;
}

static void arm(struct pit *p)
{
	p->armed = true;
	p->chip->ops->arm(p->chip->vm, &p->timer, deadline(p));
}

static void forget_late(struct pit *p)
{
	p->late = 0;
	p->acked = true;
}

static void start_timer(struct pit *p)
{
	const struct pit_channel_state *ch = &p->ch[0];

	disarm(p);
	forget_late(p);
	if ((p->flags & PIT_FLAGS_HPET_LEGACY) || ch->mode > 4)
		return;
	p->periodic = ch->mode == 2 || ch->mode == 3;
	p->start_ns = (u64)ch->count_load_time;
	p->ticks = 1;
	p->tick_count = full_count(ch);
	if (p->periodic)
		p->tick_count = MAX(p->tick_count, MIN_TICK_COUNT);
	arm(p);
}

/* A count of 0 is the largest, 65536 (mode 3 and 2: the datasheet forbids 1; it counts). */
static void load(struct pit *p, unsigned int n, u32 count)
{
	p->ch[n].count = count ? count : 0x10000;
	p->ch[n].count_load_time = (s64)now(p);
	if (n == 0)
		start_timer(p);
}

/* How many ticks are due by now; moves the timer on. */
static u32 take_ticks(struct pit *p)
{
	u64 t = now(p), due, n;

	if (!p->armed)
		return 0;
	if (t < deadline(p)) {
		arm(p);
		return 0;
	}
	if (!p->periodic) {
		disarm(p);
		return 1;
	}
	due = muldiv(t - p->start_ns, PIT_HZ, NS_PER_SEC) / p->tick_count;
	n = due >= p->ticks ? due - p->ticks + 1 : 1;
	p->ticks += n;
	arm(p);
	return (u32)MIN(n, (u64)MAX_LATE);
}

/* ---- ticks ---- */

/* Under the lock: may the next late tick go out? Then the caller sends it (send_ticks). */
static bool next_tick(struct pit *p)
{
	if (!p->late || !p->acked || p->sending)
		return false;
	p->acked = false;
	p->sending = true;
	return true;
}

/* An edge on GSI 0 has been sent; n: who took it. A tick that nobody takes will never be acknowledged: it is lost. */
static bool tick_sent(struct pit *p, int n)
{
	bool more;

	pthread_mutex_lock(&p->lock);
	p->sending = false;
	if (n < 0) {
		if (!p->acked && p->late)
			p->late--;
		p->acked = true;
	}
	more = n >= 0 && p->reinject && next_tick(p);
	pthread_mutex_unlock(&p->lock);
	return more;
}

/*
 * Edges that overlap are one edge. So only one thread sends: a guest that has acknowledged a tick
 * before its pulse is over gets the next from here, not from pit_acked.
 */
static void send_ticks(struct irqchip *c, struct pit *p)
{
	int n;

	do {
		n = irq_set_line(c, IRQ_SOURCE_PIT, 0, true);
		irq_set_line(c, IRQ_SOURCE_PIT, 0, false);
	} while (tick_sent(p, n));
}

static void pit_fire(struct irq_timer *t)
{
	struct pit *p = container_of(t, struct pit, timer);
	bool send;
	u32 n;

	pthread_mutex_lock(&p->lock);
	n = take_ticks(p);
	if (p->reinject) {
		p->late = MIN(p->late + n, MAX_LATE);
		send = next_tick(p);
	} else {
		send = n > 0 && !p->sending;
		p->sending |= send;
	}
	pthread_mutex_unlock(&p->lock);
	if (send)
		send_ticks(p->chip, p);
}

/* The guest has seen a tick: count it, and send the next if one is late. */
void pit_acked(struct irqchip *c)
{
	struct pit *p = pit_of(c);
	bool send;

	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	if (!p->acked && p->late)
		p->late--;
	p->acked = true;
	send = p->reinject && next_tick(p);
	pthread_mutex_unlock(&p->lock);
	if (send)
		send_ticks(c, p);
}

void pit_unmasked(struct irqchip *c)
{
	struct pit *p = pit_of(c);

	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	forget_late(p);
	pthread_mutex_unlock(&p->lock);
}

/* ---- ports; under the lock ---- */

static void latch_count(struct pit *p, struct pit_channel_state *ch)
{
	if (ch->count_latched)
		return;
	ch->latched_count = counter(p, ch);
	ch->count_latched = ch->rw_mode;
}

static void latch_status(struct pit *p, struct pit_channel_state *ch)
{
	if (ch->status_latched)
		return;
	ch->status = (u8)(output(p, ch) << 7 | ch->rw_mode << 4 | ch->mode << 1 | ch->bcd);
	ch->status_latched = 1;
}

static void read_back(struct pit *p, u8 v)
{
	for (unsigned int n = 0; n < 3; n++) {
		if (!(v & (2u << n)))
			continue;
		if (!(v & 0x20))
			latch_count(p, &p->ch[n]);
		if (!(v & 0x10))
			latch_status(p, &p->ch[n]);
	}
}

static void write_control(struct pit *p, u8 v)
{
	unsigned int n = v >> 6, access = (v >> 4) & 3;
	struct pit_channel_state *ch = &p->ch[n % 3];

	if (n == 3) {
		read_back(p, v);
		return;
	}
	if (access == RW_LATCH) {
		latch_count(p, ch);
		return;
	}
	ch->rw_mode = access;
	ch->read_state = access;
	ch->write_state = access;
	ch->count_latched = 0;
	ch->status_latched = 0;
	ch->mode = (v >> 1) & 7;
	if (ch->mode > 5)
		ch->mode -= 4;
	ch->bcd = v & 1;
}

static void write_count(struct pit *p, unsigned int n, u8 v)
{
	struct pit_channel_state *ch = &p->ch[n];

	switch (ch->write_state) {
	case RW_MSB:
		load(p, n, (u32)v << 8);
		break;
	case RW_WORD0:
		ch->write_latch = v;
		ch->write_state = RW_WORD1;
		break;
	case RW_WORD1:
		ch->write_state = RW_WORD0;
		load(p, n, ch->write_latch | (u32)v << 8);
		break;
	default:
		load(p, n, v);
	}
}

static u8 read_latched(struct pit_channel_state *ch)
{
	switch (ch->count_latched) {
	case RW_MSB:
		ch->count_latched = 0;
		return (u8)(ch->latched_count >> 8);
	case RW_WORD0:
		ch->count_latched = RW_MSB;
		return (u8)ch->latched_count;
	default:
		ch->count_latched = 0;
		return (u8)ch->latched_count;
	}
}

static u8 read_count(struct pit *p, struct pit_channel_state *ch)
{
	u16 v;

	if (ch->status_latched) {
		ch->status_latched = 0;
		return ch->status;
	}
	if (ch->count_latched)
		return read_latched(ch);
	v = counter(p, ch);
	switch (ch->read_state) {
	case RW_MSB:
		return (u8)(v >> 8);
	case RW_WORD0:
		ch->read_state = RW_WORD1;
		return (u8)v;
	case RW_WORD1:
		ch->read_state = RW_WORD0;
		return (u8)(v >> 8);
	default:
		return (u8)v;
	}
}

/* Port 61: gate and output of channel 2, speaker, and the refresh bit that toggles. */
static u8 read_speaker(struct pit *p)
{
	return (u8)(p->ch[2].gate | p->speaker_on << 1 | ((now(p) >> 14) & 1) << 4 |
		output(p, &p->ch[2]) << 5);
}

u8 pit_read(struct irqchip *c, u16 port)
{
	struct pit *p = pit_of(c);
	u8 v = 0;

	pthread_mutex_lock(&p->lock);
	if (port == 0x61)
		v = read_speaker(p);
	else if ((port & 3) != 3) /* the control word cannot be read */
		v = read_count(p, &p->ch[port & 3]);
	pthread_mutex_unlock(&p->lock);
	return v;
}

void pit_write(struct irqchip *c, u16 port, u8 value)
{
	struct pit *p = pit_of(c);

	pthread_mutex_lock(&p->lock);
	if (port == 0x61) {
		p->speaker_on = value & 2;
		set_gate(p, &p->ch[2], value & 1);
	} else if ((port & 3) == 3) {
		write_control(p, value);
	} else {
		write_count(p, port & 3, value);
	}
	pthread_mutex_unlock(&p->lock);
}

/* ---- creation and state ---- */

/* As KVM at reset: mode 7 is none, so nothing counts to a tick before the first load. */
int pit_create(struct irqchip *c, u32 flags, struct iobus *pio)
{
	struct pit *p;
	int err;

	if (irqchip_is_split(c))
		return -ENOENT;
	if (pit_exists(c))
		return -EEXIST;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	pthread_mutex_init(&p->lock, NULL);
	p->chip = c;
	p->timer.fire = pit_fire;
	p->reinject = true;
	p->acked = true;
	for (int i = 0; i < 3; i++) {
		p->ch[i].mode = 7;
		p->ch[i].gate = i != 2;
		p->ch[i].count = 0x10000;
		p->ch[i].count_load_time = (s64)now(p);
	}
	__atomic_store_n(&c->pit, p, __ATOMIC_RELEASE);
	err = pio ? pit_attach(c, flags & PIT_SPEAKER_DUMMY, pio) : 0;
	if (err) {
		__atomic_store_n(&c->pit, NULL, __ATOMIC_RELEASE);
		pit_destroy(p);
	}
	return err;
}

void pit_destroy(struct pit *p)
{
	if (p)
		pthread_mutex_destroy(&p->lock);
	free(p);
}

bool pit_exists(const struct irqchip *c)
{
	return pit_of(c);
}

void pit_get_state(struct irqchip *c, struct pit_state *s)
{
	struct pit *p = pit_of(c);

	memset(s, 0, sizeof(*s));
	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < 3; i++)
		s->channels[i] = p->ch[i];
	s->flags = p->flags | (p->speaker_on ? PIT_FLAGS_SPEAKER_DATA_ON : 0);
	pthread_mutex_unlock(&p->lock);
}

/* All counters start anew, as in KVM: a saved time means nothing on another host. */
void pit_set_state(struct irqchip *c, const struct pit_state *s)
{
	struct pit *p = pit_of(c);

	pthread_mutex_lock(&p->lock);
	p->flags = s->flags & PIT_FLAGS_HPET_LEGACY;
	p->speaker_on = s->flags & PIT_FLAGS_SPEAKER_DATA_ON;
	for (unsigned int i = 0; i < 3; i++) {
		p->ch[i] = s->channels[i];
		p->ch[i].mode &= 7;
		p->ch[i].rw_mode &= 3;
		p->ch[i].bcd &= 1;
		p->ch[i].gate &= 1;
		load(p, i, MIN(s->channels[i].count, 0x10000u));
	}
	pthread_mutex_unlock(&p->lock);
}

void pit_set_reinject(struct irqchip *c, bool reinject)
{
	struct pit *p = pit_of(c);

	pthread_mutex_lock(&p->lock);
	p->reinject = reinject;
	forget_late(p);
	pthread_mutex_unlock(&p->lock);
}

bool pit_get_reinject(struct irqchip *c)
{
	struct pit *p = pit_of(c);
	bool v;

	pthread_mutex_lock(&p->lock);
	v = p->reinject;
	pthread_mutex_unlock(&p->lock);
	return v;
}
