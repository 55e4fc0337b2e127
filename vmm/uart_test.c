// SPDX-License-Identifier: MIT
/* The UART: what Linux's 8250 driver relies on, register by register (PC16550D data sheet). */
#include "vmm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

static char sent[64];
static size_t nsent;
static bool line;

static void emit(void *ctx, u8 byte)
{
	(void)ctx;
	sent[nsent++] = byte;
}

static void irq(void *ctx, bool level)
{
	(void)ctx;
	assert_int_not_equal(level, line); /* edges only */
	line = level;
}

static struct uart fresh(void)
{
	struct uart u = {.emit = emit, .irq = irq};

	nsent = 0;
	line = false;
	uart_reset(&u);
	return u;
}

/* One register access; for reads `v` is what must come. */
struct step {
	char op; /* write, read, input of a byte, level of the line, number of bytes sent */
	u8 reg, v;
};

static void play(const struct step *s, size_t n)
{
	struct uart u = fresh();
	size_t i;

	for (i = 0; i < n; i++) {
		u8 got = s[i].v;

		switch (s[i].op) {
		case 'w': uart_write(&u, s[i].reg, s[i].v); break;
		case 'r': got = uart_read(&u, s[i].reg); break;
		case 'i': uart_receive(&u, s[i].v); break;
		case 'l': got = line; break;
		case 'n': got = nsent; break;
		}
		if (got != s[i].v)
			fail_msg("step %zu: %c reg %u: %#x, want %#x", i, s[i].op, s[i].reg, got,
				 s[i].v);
	}
}
#define PLAY(...) \
	do { \
		static const struct step s_[] = {__VA_ARGS__}; \
		play(s_, sizeof(s_) / sizeof(*s_)); \
	} while (0)

static void reset_state(void **state)
{
	(void)state;
	PLAY({'r', 1, 0}, {'r', 2, 0x01}, {'r', 3, 0}, {'r', 4, 0}, {'r', 5, 0x60}, {'r', 6, 0xb0},
	     {'l', 0, 0});
}

static void transmit(void **state)
{
	(void)state;
	PLAY({'w', 0, 'a'}, {'w', 0, 'b'}, {'n', 0, 2}, {'r', 5, 0x60}, {'l', 0, 0});
	assert_memory_equal(sent, "ab", 2);
}

static void divisor_latch(void **state)
{
	(void)state;
	PLAY({'r', 1, 0}, {'w', 3, 0x83}, {'w', 0, 1}, {'w', 1, 2}, {'r', 0, 1}, {'r', 1, 2},
	     {'n', 0, 0}, {'w', 3, 0x03}, {'r', 1, 0}, {'r', 0, 0});
}

/* Enabling the interrupt raises it; reading IIR while it is the cause takes it back. */
static void thre_interrupt(void **state)
{
	(void)state;
	PLAY({'w', 4, 0x08}, {'w', 1, 0x02}, {'l', 0, 1}, {'r', 2, 0x02}, {'l', 0, 0}, {'r', 2, 1},
	     {'w', 0, 'x'}, {'l', 0, 1}, {'w', 1, 0}, {'l', 0, 0}, {'w', 1, 2}, {'l', 0, 1});
}

static void receive_interrupt(void **state)
{
	(void)state;
	PLAY({'w', 4, 0x08}, {'w', 1, 0x01}, {'i', 0, 'q'}, {'l', 0, 1}, {'r', 2, 0x04},
	     {'r', 5, 0x61}, {'r', 0, 'q'}, {'l', 0, 0}, {'r', 5, 0x60});
}

/* Below the trigger level the timeout interrupt comes, above it data available. */
static void fifo_trigger(void **state)
{
	(void)state;
	PLAY({'w', 2, 0x41}, {'w', 4, 0x08}, {'w', 1, 0x01}, {'i', 0, '1'}, {'r', 2, 0xcc},
	     {'i', 0, '2'}, {'i', 0, '3'}, {'i', 0, '4'}, {'r', 2, 0xc4}, {'r', 0, '1'},
	     {'r', 2, 0xcc}, {'r', 0, '2'}, {'r', 0, '3'}, {'r', 0, '4'}, {'r', 2, 0xc1});
}

static void fifo_clear(void **state)
{
	(void)state;
	PLAY({'w', 2, 0x01}, {'i', 0, '1'}, {'r', 5, 0x61}, {'w', 2, 0x03}, {'r', 5, 0x60},
	     {'i', 0, '1'}, {'w', 2, 0x00}, {'r', 5, 0x60}, {'r', 2, 0x01});
}

/* OUT2 is the gate between the chip and the interrupt controller. */
static void out2_gates(void **state)
{
	(void)state;
	PLAY({'w', 1, 0x02}, {'l', 0, 0}, {'r', 2, 0x02}, {'w', 0, 'x'}, {'w', 4, 0x08}, {'l', 0, 1},
	     {'w', 4, 0x18}, {'l', 0, 0});
}

/* The driver's test for a chip: RTS and OUT2 come back as CTS and DCD; bytes come back too. */
static void loopback(void **state)
{
	(void)state;
	PLAY({'w', 4, 0x1a}, {'r', 6, 0x92}, {'r', 6, 0x90}, {'w', 0, 'z'}, {'n', 0, 0},
	     {'r', 5, 0x61}, {'r', 0, 'z'}, {'w', 4, 0x14}, {'r', 6, 0x49}, {'w', 4, 0x10},
	     {'r', 6, 0x04});
}

static void overrun(void **state)
{
	(void)state;
	PLAY({'w', 4, 0x10}, {'w', 0, '1'}, {'w', 0, '2'}, {'r', 5, 0x63}, {'r', 5, 0x61},
	     {'r', 0, '1'}, {'r', 5, 0x60});
}

static void room(void **state)
{
	struct uart u = fresh();
	int i;

	(void)state;
	assert_int_equal(uart_room(&u), 1);
	uart_write(&u, 2, 1);
	assert_int_equal(uart_room(&u), 16);
	for (i = 0; i < 16; i++)
		uart_receive(&u, i);
	assert_int_equal(uart_room(&u), 0);
	for (i = 0; i < 16; i++)
		assert_int_equal(uart_read(&u, 0), i);
	uart_write(&u, 4, 0x10);
	assert_int_equal(uart_room(&u), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reset_state),	  cmocka_unit_test(transmit),
		cmocka_unit_test(divisor_latch),  cmocka_unit_test(thre_interrupt),
		cmocka_unit_test(receive_interrupt), cmocka_unit_test(fifo_trigger),
		cmocka_unit_test(fifo_clear),	  cmocka_unit_test(out2_gates),
		cmocka_unit_test(loopback),	  cmocka_unit_test(overrun),
		cmocka_unit_test(room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
