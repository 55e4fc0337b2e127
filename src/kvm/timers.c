// SPDX-License-Identifier: MIT
#include "kvm/timers.h"

#include <stdlib.h>

static void heap_put(struct timers *t, size_t i, struct irq_timer *x)
{
	t->heap[i] = x;
	x->pos = i + 1;
}

static void heap_up(struct timers *t, size_t i, struct irq_timer *x)
{
	for (; i && t->heap[(i - 1) / 2]->deadline_ns > x->deadline_ns; i = (i - 1) / 2)
		heap_put(t, i, t->heap[(i - 1) / 2]);
	heap_put(t, i, x);
}

static void heap_down(struct timers *t, size_t i, struct irq_timer *x)
{
	for (size_t k; (k = 2 * i + 1) < t->nr; i = k) {
		if (k + 1 < t->nr && t->heap[k + 1]->deadline_ns < t->heap[k]->deadline_ns)
			k++;
		if (t->heap[k]->deadline_ns >= x->deadline_ns)
			break;
		heap_put(t, i, t->heap[k]);
	}
	heap_put(t, i, x);
}

static void heap_remove(struct timers *t, struct irq_timer *x)
{
	size_t i = x->pos - 1;
	struct irq_timer *last = t->heap[--t->nr];

	x->pos = 0;
	if (last == x)
		return;
	if (i && t->heap[(i - 1) / 2]->deadline_ns > last->deadline_ns)
		heap_up(t, i, last);
	else
		heap_down(t, i, last);
}

static bool heap_insert(struct timers *t, struct irq_timer *x)
{
	if (t->nr == t->room) {
		size_t room = 2 * t->room;
		struct irq_timer **h = realloc(t->heap, room * sizeof(*h));

		if (!h)
			return false;
		t->heap = h;
		t->room = room;
	}
	heap_up(t, t->nr++, x);
	return true;
}

bool timers_init(struct timers *t)
{
	t->room = 64; /* enough for most machines: no allocation later */
	t->heap = calloc(t->room, sizeof(*t->heap));
	return t->heap;
}

void timers_free(struct timers *t)
{
	free(t->heap);
}

void timers_disarm(struct timers *t, struct irq_timer *x)
{
	if (x->pos)
		heap_remove(t, x);
}

bool timers_arm(struct timers *t, struct irq_timer *x, u64 deadline_ns)
{
	timers_disarm(t, x);
	x->deadline_ns = deadline_ns;
	return heap_insert(t, x);
}
