// SPDX-License-Identifier: MIT
/*
 * The LAPIC timer (SDM 3A 10.5.4): a deadline in nanoseconds, armed in the event thread's
 * queue. The bus clock runs at 1 GHz, as in KVM, so a count is a number of nanoseconds
 * before the divider. A periodic timer's next deadline follows from the last one, not from
 * when it was seen; of several missed periods only one is delivered.
 */
#include "irq/irq_impl.h"

/*
 * DIFFERS: a shorter period is stretched to this, so that a guest with a period of 1 ns
 * cannot keep the host busy (KVM's min_timer_period_us).
 */
#define MIN_PERIOD_NS 200000ull

static unsigned int timer_mode(const struct lapic *l)
{
	return (lapic_reg(l, APIC_LVTT) >> 17) & 3;
}

/* Divide configuration, bits 3, 1 and 0: 000 is 2, 110 is 128, 111 is 1. */
static u32 divisor(const struct lapic *l)
{
	u32 tdcr = lapic_reg(l, APIC_TDCR), n = (tdcr & 3) | ((tdcr & 8) >> 1);

	return 1u << ((n + 1) & 7);
}

static u64 now(const struct lapic *l)
{
	return l->chip->ops->now_ns(l->chip->vm);
}

/* ---- under timer_lock ---- */

static void disarm(struct lapic *l)
{
	if (l->armed)
		l->chip->ops->disarm(l->chip->vm, &l->timer);
	l->armed = false;
}

static void arm(struct lapic *l, u64 deadline_ns)
{
	l->armed = true;
	l->deadline_ns = deadline_ns;
	l->chip->ops->arm(l->chip->vm, &l->timer, deadline_ns);
}

static void update_period(struct lapic *l)
{
	l->period_ns = (u64)lapic_reg(l, APIC_TMICT) * divisor(l);
	if (timer_mode(l) == TIMER_PERIODIC && l->period_ns && l->period_ns < MIN_PERIOD_NS)
		l->period_ns = MIN_PERIOD_NS;
}

/* Time until the count reaches 0; 0 when it has, or is stopped. */
static u64 remaining(const struct lapic *l)
{
	u64 t = now(l);

	if (!l->armed || timer_mode(l) == TIMER_TSC_DEADLINE)
		return 0;
	if (t < l->deadline_ns)
		return l->deadline_ns - t;
	if (timer_mode(l) != TIMER_PERIODIC || !l->period_ns)
		return 0;
	return l->period_ns - (t - l->deadline_ns) % l->period_ns;
}

static void arm_tsc_deadline(struct lapic *l)
{
	const struct irqchip *c = l->chip;

	if (l->tsc_deadline)
		arm(l, c->ops->tsc_deadline_ns(c->vm, l->vcpu, l->tsc_deadline));
	else
		disarm(l);
}

/* If the deadline has passed, take it: true = deliver. Else make sure that it is armed. */
static bool take(struct lapic *l)
{
	const struct irqchip *c = l->chip;
	u64 t;

	if (!l->armed)
		return false;
	if (timer_mode(l) == TIMER_TSC_DEADLINE)
		l->deadline_ns = c->ops->tsc_deadline_ns(c->vm, l->vcpu, l->tsc_deadline);
	t = now(l);
	if (t < l->deadline_ns) {
		arm(l, l->deadline_ns);
		return false;
	}
	if (timer_mode(l) == TIMER_PERIODIC && l->period_ns) {
		arm(l, l->deadline_ns + l->period_ns * (1 + (t - l->deadline_ns) / l->period_ns));
		return true;
	}
	disarm(l);
	l->tsc_deadline = 0;
	return true;
}

/* ---- takes timer_lock ---- */

/* With the LVT of the moment when the count reached 0: the guest may be about to write another. */
static void catch_up(struct lapic *l)
{
	if (take(l))
		lapic_deliver_lvt(l, APIC_LVTT);
}

void lapic_timer_expire(struct lapic *l)
{
	pthread_mutex_lock(&l->timer_lock);
	catch_up(l);
	pthread_mutex_unlock(&l->timer_lock);
}

static void timer_fire(struct irq_timer *t)
{
	lapic_timer_expire(container_of(t, struct lapic, timer));
}

void lapic_timer_init(struct lapic *l)
{
	pthread_mutex_init(&l->timer_lock, NULL);
	l->timer.fire = timer_fire;
}

void lapic_timer_reset(struct lapic *l)
{
	pthread_mutex_lock(&l->timer_lock);
	disarm(l);
	l->tsc_deadline = 0;
	l->period_ns = 0;
	lapic_set_reg(l, APIC_LVTT, LVT_MASKED);
	lapic_set_reg(l, APIC_TMICT, 0);
	lapic_set_reg(l, APIC_TDCR, 0);
	pthread_mutex_unlock(&l->timer_lock);
}

/*
 * Between one-shot and periodic the count goes on; entering or leaving TSC-deadline mode
 * disarms the timer (SDM 3A 10.5.4.1).
 */
void lapic_timer_write_lvt(struct lapic *l, u32 lvt)
{
	bool was_tsc, is_tsc;

	pthread_mutex_lock(&l->timer_lock);
	catch_up(l);
	was_tsc = timer_mode(l) == TIMER_TSC_DEADLINE;
	lapic_set_reg(l, APIC_LVTT, lvt);
	is_tsc = timer_mode(l) == TIMER_TSC_DEADLINE;
	if (was_tsc != is_tsc) {
		disarm(l);
		l->tsc_deadline = 0;
		lapic_set_reg(l, APIC_TMICT, 0);
	}
	update_period(l);
	pthread_mutex_unlock(&l->timer_lock);
}

/* Initial count: starts anew, 0 stops. Ignored in TSC-deadline mode. */
void lapic_timer_write_count(struct lapic *l, u32 count)
{
	pthread_mutex_lock(&l->timer_lock);
	catch_up(l);
	if (timer_mode(l) != TIMER_TSC_DEADLINE) {
		disarm(l);
		lapic_set_reg(l, APIC_TMICT, count);
		update_period(l);
		if (l->period_ns)
			arm(l, now(l) + l->period_ns);
	}
	pthread_mutex_unlock(&l->timer_lock);
}

/* The count that is left stays; it takes longer or shorter from now on. */
void lapic_timer_write_divide(struct lapic *l, u32 tdcr)
{
	u64 left;
	u32 old;

	pthread_mutex_lock(&l->timer_lock);
	left = remaining(l);
	old = divisor(l);
	lapic_set_reg(l, APIC_TDCR, tdcr & 0xb);
	if (divisor(l) != old) {
		update_period(l);
		if (l->armed && timer_mode(l) != TIMER_TSC_DEADLINE)
			arm(l, now(l) + left / old * divisor(l));
	}
	pthread_mutex_unlock(&l->timer_lock);
}

u32 lapic_timer_current(struct lapic *l)
{
	u64 left;

	pthread_mutex_lock(&l->timer_lock);
	left = remaining(l) / divisor(l);
	pthread_mutex_unlock(&l->timer_lock);
	return (u32)MIN(left, (u64)lapic_reg(l, APIC_TMICT));
}

/*
 * LVTT, TMICT and TDCR have been set from outside. A one-shot count that reads 0 fires at
 * once, as in KVM: better once more than never.
 */
void lapic_timer_restart(struct lapic *l, u32 current)
{
	u64 left;

	pthread_mutex_lock(&l->timer_lock);
	disarm(l);
	l->tsc_deadline = 0;
	update_period(l);
	left = MIN((u64)current * divisor(l), l->period_ns);
	if (!left && timer_mode(l) == TIMER_PERIODIC)
		left = l->period_ns;
	if (l->period_ns && timer_mode(l) != TIMER_TSC_DEADLINE)
		arm(l, now(l) + left);
	pthread_mutex_unlock(&l->timer_lock);
}

/* ---- IA32_TSC_DEADLINE ---- */

u64 lapic_get_tsc_deadline(struct lapic *l)
{
	u64 v;

	lapic_timer_expire(l);
	pthread_mutex_lock(&l->timer_lock);
	v = timer_mode(l) == TIMER_TSC_DEADLINE ? l->tsc_deadline : 0;
	pthread_mutex_unlock(&l->timer_lock);
	return v;
}

/* A deadline that has passed already is delivered before this returns. */
void lapic_set_tsc_deadline(struct lapic *l, u64 tsc)
{
	const struct irqchip *c = l->chip;
	bool due = false;

	pthread_mutex_lock(&l->timer_lock);
	if (timer_mode(l) == TIMER_TSC_DEADLINE && lapic_enabled(l)) {
		l->tsc_deadline = tsc;
		due = tsc && c->ops->tsc_deadline_ns(c->vm, l->vcpu, tsc) <= now(l);
		if (due) {
			disarm(l);
			l->tsc_deadline = 0;
		} else {
			arm_tsc_deadline(l);
		}
	}
	pthread_mutex_unlock(&l->timer_lock);
	if (due)
		lapic_deliver_lvt(l, APIC_LVTT);
}

void lapic_tsc_changed(struct lapic *l)
{
	pthread_mutex_lock(&l->timer_lock);
	if (l->armed && timer_mode(l) == TIMER_TSC_DEADLINE)
		arm_tsc_deadline(l);
	pthread_mutex_unlock(&l->timer_lock);
}
