// SPDX-License-Identifier: MIT
#include "kvm/counted.h"

#include "base/log.h"
#include "cpu/cpu.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_INSN 4		       /* about what the interpreter needs */
#define EPOCH_NS 1767225600000000000ull /* 2026-01-01, 00:00 UTC */
#define RANDOM_SEED 0x616e796b766dull  /* RDRAND's numbers are part of the run */

struct counted {
	pthread_mutex_t lock; /* all below */
	struct timers timers;
	struct cpu *cpu;
	u64 skipped_ns; /* while halted */
	u64 latest_ns;	/* what the clock showed last: insns may step back by a part of a block */
};

bool counted_wanted(void)
{
	const char *clock = getenv("ANYKVM_CLOCK");

	if (!clock || !strcmp(clock, "host"))
		return false;
	if (!strcmp(clock, "instructions"))
		return true;
	log_once("ANYKVM_CLOCK=%s is not known: the guest's time is the host's", clock);
	return false;
}

struct counted *counted_create(void)
{
	struct counted *c = calloc(1, sizeof(*c));

	if (!c || !timers_init(&c->timers)) {
		free(c);
		return NULL;
	}
	pthread_mutex_init(&c->lock, NULL);
	return c;
}

void counted_free(struct counted *c)
{
	if (!c)
		return;
	timers_free(&c->timers);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

void counted_follow(struct counted *c, struct cpu *cpu)
{
	c->cpu = cpu;
	cpu->insn_limit = ~0ull;
	cpu->random = RANDOM_SEED;
	cpu_request(cpu, REQ_COUNT);
}

/* ---- the clock. Lock held */

static u64 now(struct counted *c)
{
	u64 insns = c->cpu ? __atomic_load_n(&c->cpu->insns, __ATOMIC_RELAXED) : 0;
	u64 ns = c->skipped_ns + insns * NS_PER_INSN;

	c->latest_ns = MAX(c->latest_ns, ns);
	return c->latest_ns;
}

/* The processor stops for the first timer. */
static void set_limit(struct counted *c)
{
	const struct irq_timer *first = timers_first(&c->timers);
	u64 limit = ~0ull;

	if (first)
		limit = first->deadline_ns > c->skipped_ns
			? (first->deadline_ns - c->skipped_ns + NS_PER_INSN - 1) / NS_PER_INSN : 0;
	if (c->cpu)
		c->cpu->insn_limit = limit;
}

u64 counted_ns(struct counted *c)
{
	u64 ns;

	pthread_mutex_lock(&c->lock);
	ns = now(c);
	pthread_mutex_unlock(&c->lock);
	return ns;
}

u64 counted_realtime_ns(struct counted *c)
{
	return EPOCH_NS + counted_ns(c);
}

/* ---- timers */

void counted_arm(struct counted *c, struct irq_timer *t, u64 deadline_ns)
{
	pthread_mutex_lock(&c->lock);
	if (!timers_arm(&c->timers, t, deadline_ns))
		log_once("no memory for a guest's timer");
	set_limit(c);
	pthread_mutex_unlock(&c->lock);
}

void counted_disarm(struct counted *c, struct irq_timer *t)
{
	pthread_mutex_lock(&c->lock);
	timers_disarm(&c->timers, t);
	set_limit(c);
	pthread_mutex_unlock(&c->lock);
}

/* Lock held; dropped around each call. */
static void fire_due(struct counted *c)
{
	struct irq_timer *t;

	while ((t = timers_first(&c->timers)) && t->deadline_ns <= now(c)) {
		timers_disarm(&c->timers, t);
		pthread_mutex_unlock(&c->lock);
		t->fire(t);
		pthread_mutex_lock(&c->lock);
	}
	set_limit(c);
}

void counted_fire(struct counted *c)
{
	pthread_mutex_lock(&c->lock);
	fire_due(c);
	pthread_mutex_unlock(&c->lock);
}

bool counted_skip(struct counted *c)
{
	const struct irq_timer *first;

	pthread_mutex_lock(&c->lock);
	first = timers_first(&c->timers);
	if (first && first->deadline_ns > now(c))
		c->skipped_ns += first->deadline_ns - now(c);
	fire_due(c);
	pthread_mutex_unlock(&c->lock);
	return first;
}
