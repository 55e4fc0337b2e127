// SPDX-License-Identifier: MIT
/* The device bus: overlap, order of registration, removal under load (SEED rule 22). */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mem/iobus.h"

struct dev {
	u8 id;
	bool picky; /* refuses everything */
	u32 reads, writes, destroyed;
	u64 addr; /* of the last access */
};

static int dev_read(void *dev, u64 addr, unsigned int len, void *data)
{
	struct dev *d = dev;

	d->reads++;
	d->addr = addr;
	if (d->picky)
		return -EOPNOTSUPP;
	memset(data, d->id, len);
	return 0;
}

static int dev_write(void *dev, u64 addr, unsigned int len, const void *data)
{
	struct dev *d = dev;

	(void)len, (void)data;
	d->writes++;
	d->addr = addr;
	return d->picky ? -EOPNOTSUPP : 0;
}

static void dev_destroy(void *dev)
{
	((struct dev *)dev)->destroyed++;
}

static const struct iodev_ops ops = {dev_read, dev_write, dev_destroy};
static struct iobus *b;

static int setup(void **state)
{
	(void)state;
	b = iobus_create();
	return b ? 0 : -1;
}

/* Who answers a read: its id, 0 for nobody. */
static u8 ask(u64 addr, unsigned int len)
{
	u8 data[8] = {0};
	int ret = iobus_read(b, addr, len, data);

	assert_int_equal(ret, data[0] ? 0 : -EOPNOTSUPP);
	return data[0];
}

static void ranges(void **state)
{
	static struct dev d[] = {{.id = 1}, {.id = 2}, {.id = 3}, {.id = 4}, {.id = 5}};
	static const struct {
		u64 addr;
		unsigned int len;
		u8 who;
	} row[] = {
		{0x3f8, 1, 1}, {0x3ff, 1, 1}, {0x400, 1, 0}, {0x3f7, 1, 0},
		{0x3f7, 2, 1}, {0x3f4, 8, 1}, {0x3ff, 8, 1},
		{0x500, 4, 2}, {0x500, 8, 2}, {0x501, 1, 0}, {0x4ff, 2, 0}, /* len 0: start only */
		{~0ull, 1, 3}, {~0ull - 7, 8, 3}, {~0ull - 8, 1, 0},
		{0, 1, 4}, {1, 1, 0},
		{0xfee00ff0, 4, 5}, {0xfee01000, 4, 0},
	};

	(void)state;
	assert_int_equal(iobus_add(b, 0x3f8, 8, &ops, &d[0]), 0);
	assert_int_equal(iobus_add(b, 0x500, 0, &ops, &d[1]), 0);
	assert_int_equal(iobus_add(b, ~0ull - 7, 8, &ops, &d[2]), 0);
	assert_int_equal(iobus_add(b, 0, 1, &ops, &d[3]), 0);
	assert_int_equal(iobus_add(b, 0xfee00000, 0x1000, &ops, &d[4]), 0);
	for (size_t i = 0; i < ARRAY_SIZE(row); i++)
		if (ask(row[i].addr, row[i].len) != row[i].who)
			fail_msg("row %zu", i);
	assert_int_equal(d[0].addr, 0x3ff); /* absolute */
	iobus_destroy(b);
	for (size_t i = 0; i < ARRAY_SIZE(d); i++)
		assert_int_equal(d[i].destroyed, 1);
}

/* All that overlap are tried in the order of registration, the first that accepts ends it. */
static void order(void **state)
{
	struct dev first = {.id = 1, .picky = true}, second = {.id = 2}, third = {.id = 3};
	static const struct iodev_ops deaf = {0};
	int nobody;

	(void)state;
	assert_int_equal(iobus_add(b, 0x1008, 8, &ops, &first), 0);
	assert_int_equal(iobus_add(b, 0x1000, 0x100, &deaf, &nobody), 0);
	assert_int_equal(iobus_add(b, 0x1000, 0x100, &ops, &second), 0);
	assert_int_equal(iobus_add(b, 0x1008, 0, &ops, &third), 0);
	assert_int_equal(ask(0x1008, 4), 2);
	assert_int_equal(iobus_write(b, 0x1008, 4, "abc"), 0);
	assert_int_equal(first.reads + 10 * first.writes, 11);
	assert_int_equal(third.reads + third.writes, 0);
	second.picky = true;
	assert_int_equal(ask(0x1008, 4), 3);
	assert_int_equal(ask(0x1010, 4), 0);
	assert_int_equal(iobus_write(b, 0x1010, 4, "abc"), -EOPNOTSUPP);
	assert_int_equal(iobus_remove(b, &third), 0);
	assert_int_equal(third.destroyed, 1);
	assert_int_equal(ask(0x1008, 4), 0);
	assert_int_equal(iobus_remove(b, &third), -ENOENT);
	iobus_destroy(b);
	assert_int_equal(first.destroyed + second.destroyed, 2);
	assert_int_equal(third.destroyed, 1);
}

/* A device with several ranges goes as a whole and is destroyed once. */
static void many_ranges(void **state)
{
	struct dev pic = {.id = 1}, other = {.id = 2};

	(void)state;
	assert_int_equal(iobus_add(b, 0x20, 2, &ops, &pic), 0);
	assert_int_equal(iobus_add(b, 0x40, 4, &ops, &other), 0);
	assert_int_equal(iobus_add(b, 0xa0, 2, &ops, &pic), 0);
	assert_int_equal(iobus_add(b, 0x60, 1, &ops, &other), 0);
	assert_int_equal(ask(0xa1, 1), 1);
	assert_int_equal(iobus_remove(b, &pic), 0);
	assert_int_equal(pic.destroyed, 1);
	assert_int_equal(ask(0x20, 1) + ask(0xa1, 1), 0);
	assert_int_equal(ask(0x40, 1), 2);
	iobus_destroy(b);
	assert_int_equal(other.destroyed, 1);
}

static void limit(void **state)
{
	static struct dev d[1001];

	(void)state;
	for (int i = 0; i < 1000; i++)
		assert_int_equal(iobus_add(b, 0x1000 + i, 1, &ops, &d[i]), 0);
	assert_int_equal(iobus_add(b, 0, 1, &ops, &d[1000]), -ENOSPC);
	assert_int_equal(iobus_remove(b, &d[500]), 0);
	assert_int_equal(iobus_add(b, 0, 1, &ops, &d[1000]), 0);
	iobus_destroy(b);
	for (int i = 0; i <= 1000; i++)
		assert_int_equal(d[i].destroyed, 1);
}

/* ---- threads */

/* Inside its write handler a device uses the bus itself. */
static int nested_write(void *dev, u64 addr, unsigned int len, const void *data)
{
	return iobus_write(dev, addr + 0x1000, len, data);
}

static const struct iodev_ops nested_ops = {.write = nested_write};

/* Lives until removed; an access after that is a use after free, which ASan and we see. */
struct brief {
	u32 alive; /* atomic */
};

static int brief_write(void *dev, u64 addr, unsigned int len, const void *data)
{
	struct brief *x = dev;

	(void)addr, (void)len, (void)data;
	for (int i = 0; i < 50; i++)
		if (!__atomic_load_n(&x->alive, __ATOMIC_RELAXED))
			abort();
	return 0;
}

static void brief_destroy(void *dev)
{
	struct brief *x = dev;

	__atomic_store_n(&x->alive, 0, __ATOMIC_RELAXED);
	free(x);
}

static const struct iodev_ops brief_ops = {.write = brief_write, .destroy = brief_destroy};
static u32 stop;

static void *writer(void *arg)
{
	int ret;

	(void)arg;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		ret = iobus_write(b, 0x1000, 4, "abc"); /* is a device there just now? */
		if (ret && ret != -EOPNOTSUPP)
			abort();
	}
	return NULL;
}

static void removal_waits(void **state)
{
	struct dev other = {.id = 1};
	pthread_t t[3];

	(void)state;
	stop = 0;
	assert_int_equal(iobus_add(b, 0x1000, 4, &nested_ops, b), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, writer, NULL), 0);
	for (int i = 0; i < 1000; i++) {
		struct brief *x = malloc(sizeof(*x));

		x->alive = 1;
		assert_int_equal(iobus_add(b, 0x2000, 4, &brief_ops, x), 0);
		assert_int_equal(iobus_add(b, 0x8000 + i % 8, 1, &ops, &other), 0);
		assert_int_equal(iobus_remove(b, x), 0);
		assert_int_equal(iobus_remove(b, &other), 0);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(other.destroyed, 1000);
	iobus_destroy(b);
}

/* A thread sleeps inside a device: others may add, a removal of the device waits for it. */
static pthread_barrier_t inside;
static u32 leave, left;

static int slow_write(void *dev, u64 addr, unsigned int len, const void *data)
{
	(void)dev, (void)addr, (void)len, (void)data;
	pthread_barrier_wait(&inside);
	while (!__atomic_load_n(&leave, __ATOMIC_ACQUIRE))
		sched_yield();
	__atomic_store_n(&left, 1, __ATOMIC_RELEASE);
	return 0;
}

static const struct iodev_ops slow_ops = {.write = slow_write};

static void *slow_writer(void *arg)
{
	return (void *)(intptr_t)iobus_write(b, 0x1000, 4, arg);
}

static void *remover(void *arg)
{
	int ret = iobus_remove(b, arg);

	return (void *)(intptr_t)(ret || !__atomic_load_n(&left, __ATOMIC_ACQUIRE));
}

static void removal_of_a_busy_device(void **state)
{
	struct dev slow = {.id = 1}, other = {.id = 2};
	pthread_t w, r;
	void *ret;

	(void)state;
	leave = left = 0;
	pthread_barrier_init(&inside, NULL, 2);
	assert_int_equal(iobus_add(b, 0x1000, 4, &slow_ops, &slow), 0);
	assert_int_equal(pthread_create(&w, NULL, slow_writer, "abc"), 0);
	pthread_barrier_wait(&inside);
	assert_int_equal(iobus_add(b, 0x2000, 4, &ops, &other), 0); /* the snapshot is old now */
	assert_int_equal(ask(0x2000, 4), 2);
	assert_int_equal(pthread_create(&r, NULL, remover, &slow), 0);
	for (int i = 0; i < 1000; i++)
		sched_yield();
	assert_int_equal(ask(0x2000, 4), 2); /* the waiting removal blocks nobody */
	__atomic_store_n(&leave, 1, __ATOMIC_RELEASE);
	pthread_join(w, &ret);
	assert_null(ret);
	pthread_join(r, &ret);
	assert_null(ret);
	pthread_barrier_destroy(&inside);
	iobus_destroy(b);
}

#define T(f) cmocka_unit_test_setup(f, setup)

/* Random devices: who answers is what a search of all ranges says (the short way asks nobody). */
static void short_way(void **state)
{
	static const u64 near[] = {0, 0x3f8, 0xfff8, 0x10000, 0xfee00000, 0xfee00ff8, ~0ull - 0x2000};
	static const u64 lens[] = {0, 1, 4, 8, 0x1000, 0x3000, 0x300000};
	struct dev d[8];
	u64 addr[8], len[8], seed = 1;

	(void)state;
	for (unsigned int round = 0; round < 200; round++) {
		memset(d, 0, sizeof(d));
		for (u8 k = 0; k < 8; k++) {
			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			addr[k] = near[(seed >> 33) % ARRAY_SIZE(near)] + (seed >> 40) % 0x1800;
			len[k] = lens[(seed >> 50) % ARRAY_SIZE(lens)];
			if (addr[k] + len[k] < addr[k])
				len[k] = -addr[k];
			d[k].id = k + 1;
			assert_int_equal(iobus_add(b, addr[k], len[k], &ops, &d[k]), 0);
		}
		if (round % 2)
			assert_int_equal(iobus_remove(b, &d[round % 8]), 0);
		for (unsigned int k = 0; k < 400; k++) {
			u8 who = 0;
			u64 at;

			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			at = near[(seed >> 33) % ARRAY_SIZE(near)] + (seed >> 40) % 0x3000;
			for (u8 i = 0; i < 8 && !who; i++)
				if (d[i].destroyed)
					continue;
				else if (len[i] ? at - addr[i] < len[i] || addr[i] - at < 4 : at == addr[i])
					who = i + 1;
			assert_int_equal(ask(at, 4), who);
		}
		for (u8 k = 0; k < 8; k++)
			if (!d[k].destroyed)
				assert_int_equal(iobus_remove(b, &d[k]), 0);
	}
	iobus_destroy(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(ranges),
		T(short_way),
		T(order),
		T(many_ranges),
		T(limit),
		T(removal_waits),
		T(removal_of_a_busy_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
