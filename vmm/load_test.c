// SPDX-License-Identifier: MIT
/* Sizes, the layout of guest memory, the ACPI tables, the clock and the Ctrl-A filter. */
#include "vmm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void sizes(void **state)
{
	static const struct {
		const char *s;
		int r;
		u64 v;
	} t[] = {
		{"512", 0, 512 * MIB}, {"512M", 0, 512 * MIB}, {"2G", 0, 2 * GIB}, {"64k", 0, 65536},
		{"0", 0, 0}, {"", -1, 0}, {"M", -1, 0}, {"1MM", -1, 0}, {"1T", -1, 0}, {" 1", -1, 0},
		{"-1", -1, 0}, {"+1", -1, 0}, {"18446744073709551615G", -1, 0}, {"1.5G", -1, 0},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(t) / sizeof(*t); i++) {
		u64 v = 0;

		if (parse_size(t[i].s, &v) != t[i].r || v != t[i].v)
			fail_msg("\"%s\": %llu", t[i].s, (unsigned long long)v);
	}
}

static struct image kernel_of(u64 pref, u32 init_size, u32 initrd_max)
{
	struct image img = {.path = "test", .code_len = 1 * MIB};

	img.hdr.pref_address = pref;
	img.hdr.init_size = init_size;
	img.hdr.initrd_addr_max = initrd_max;
	img.hdr.cmdline_size = 100;
	return img;
}

static void layout(void **state)
{
	static const struct {
		u64 memory;
		u32 initrd_max;
		size_t initrd, cmdline;
		int r;
		u64 at; /* of the initrd */
	} t[] = {
		{32 * MIB, 0x7fffffff, 0, 0, 0, 0},
		{32 * MIB - 4096, 0x7fffffff, 0, 0, -1, 0},
		{64 * MIB, 0x7fffffff, 1, 0, 0, 64 * MIB - 4096},
		{64 * MIB, 0x7fffffff, 4097, 0, 0, 64 * MIB - 8192},
		{64 * MIB, 0x7fffffff, 32 * MIB, 0, 0, 32 * MIB},
		{64 * MIB, 0x7fffffff, 32 * MIB + 1, 0, -1, 0},
		{4 * GIB, 0x37ffffff, 4096, 0, 0, 0x37fff000},
		{8 * GIB, 0xffffffff, 4096, 0, 0, 3 * GIB - 4096},
		{64 * MIB, 0x01000000, 4096, 0, -1, 0},
		{64 * MIB, 0x7fffffff, 0, 100, 0, 0},
		{64 * MIB, 0x7fffffff, 0, 101, -1, 0},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(t) / sizeof(*t); i++) {
		struct image img = kernel_of(16 * MIB, 16 * MIB, t[i].initrd_max);
		struct plan p;
		int r = plan_make(&p, &img, t[i].initrd, t[i].cmdline, t[i].memory);

		if (r != t[i].r || (r == 0 && p.initrd != t[i].at))
			fail_msg("row %zu: %d, initrd at %#llx", i, r, (unsigned long long)p.initrd);
	}
}

static void ram_bounds(void **state)
{
	u8 *host = (u8 *)0x100000;
	struct ram r = {.host = host, .size = 4 * GIB, .low = 3 * GIB};

	(void)state;
	assert_ptr_equal(ram_at(&r, 0, 4096), host);
	assert_ptr_equal(ram_at(&r, 3 * GIB - 1, 1), host + 3 * GIB - 1);
	assert_null(ram_at(&r, 3 * GIB - 1, 2));
	assert_null(ram_at(&r, 3 * GIB, 1));
	assert_ptr_equal(ram_at(&r, 4 * GIB, 1), host + 3 * GIB);
	assert_null(ram_at(&r, 5 * GIB, 1));
	assert_null(ram_at(&r, 5 * GIB - 1, 2));
	assert_null(ram_at(&r, 0, ~0ull));
	assert_null(ram_at(&r, ~0ull, 1));
}

static u8 sum(const u8 *p, size_t n)
{
	u8 s = 0;

	while (n--)
		s += *p++;
	return s;
}

/* Every table has its length and a checksum of 0 (ACPI 5.2.6); all fit with the most processors. */
static void acpi_tables(void **state)
{
	static const char *const names[] = {"XSDT", "FACP", "DSDT", "APIC"};
	size_t room = ACPI_END - ACPI_RSDP, used, i, at;
	u8 *area = calloc(1, room);

	(void)state;
	used = acpi_build(area, MAX_CPUS);
	assert_true(used < room);
	assert_memory_equal(area, "RSD PTR ", 8);
	assert_int_equal(sum(area, 20), 0);
	assert_int_equal(sum(area, 36), 0);
	for (i = 0; i < 4; i++) {
		u32 len;

		for (at = 0; at < used && memcmp(area + at, names[i], 4); at += 4)
			;
		assert_true(at < used);
		memcpy(&len, area + at + 4, 4);
		assert_true(at + len <= used);
		assert_int_equal(sum(area + at, len), 0);
	}
	free(area);
}

static void clock_registers(void **state)
{
	static const struct {
		u8 reg, v;
	} t[] = {
		/* Saturday, 2000-01-01 23:59:58 UTC */
		{0, 0x58}, {2, 0x59}, {4, 0x23}, {6, 7}, {7, 1}, {8, 1}, {9, 0}, {0x32, 0x20},
		{0x0a, 0x26}, {0x0b, 0x02}, {0x0c, 0}, {0x0d, 0x80}, {0x40, 0},
	};
	struct rtc r;
	size_t i;

	(void)state;
	rtc_reset(&r);
	for (i = 0; i < sizeof(t) / sizeof(*t); i++) {
		rtc_write(&r, 0, 0x80 | t[i].reg);
		assert_int_equal(rtc_read(&r, 1, 946771198), t[i].v);
	}
	rtc_write(&r, 0, 0x40);
	rtc_write(&r, 1, 0x5a);
	assert_int_equal(rtc_read(&r, 1, 0), 0x5a);
}

static void ctrl_a(void **state)
{
	static const struct {
		const char *in, *out; /* NULL: quits */
		bool before, after;
	} t[] = {
		{"abc", "abc", false, false}, {"a\001x", NULL, false, false},
		{"\001\001", "\001", false, false}, {"a\001", "a", false, true},
		{"x", NULL, true, false}, {"\001", "\001", true, false},
		{"\001qb", "b", false, false}, {"x\003", "x\003", false, false},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(t) / sizeof(*t); i++) {
		bool prefix = t[i].before;
		u8 buf[16];
		ssize_t n;

		memcpy(buf, t[i].in, strlen(t[i].in));
		n = term_filter(buf, strlen(t[i].in), &prefix);
		if (!t[i].out) {
			assert_int_equal(n, TERM_QUIT);
			continue;
		}
		assert_int_equal(n, strlen(t[i].out));
		assert_memory_equal(buf, t[i].out, n);
		assert_int_equal(prefix, t[i].after);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),       cmocka_unit_test(layout),
		cmocka_unit_test(ram_bounds),  cmocka_unit_test(acpi_tables),
		cmocka_unit_test(clock_registers), cmocka_unit_test(ctrl_a),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
