// SPDX-License-Identifier: MIT
/*
 * The pending record and the exit environment with handlers of our own: pieces, order of
 * delivery, what a replay may ask for (SEED rules 8, 9, 13 to 19, 27).
 */
#include <stdio.h>

#include "cpu/guest_test.h"
#include "base/hard.h"
#include "emul/emul_impl.h"

#define DEVICE 0x40000000ul /* linear = gpa: no slot */
#define ACCEPT 0xe00	    /* from this offset of a page on the bus has a device */

struct world {
	struct guest *g;
	struct emul em;
	char events[512];
	unsigned int calls; /* of the handler */
	unsigned int step;  /* what the handler of a test does next */
};

static struct world w;

static void note(const char *fmt, ...)
{
	size_t n = strlen(w.events);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w.events + n, sizeof(w.events) - n, fmt, ap);
	va_end(ap);
}

static int bus_read(void *opaque, gpa_t g, unsigned int len, void *data)
{
	(void)opaque;
	if ((g.v & 0xfff) < ACCEPT)
		return -1;
	note("r%u ", len);
	memset(data, 0x11, len);
	return 0;
}
static int bus_write(void *opaque, gpa_t g, unsigned int len, const void *data)
{
	(void)opaque, (void)data;
	if ((g.v & 0xfff) < ACCEPT)
		return -1;
	note("w%u ", len);
	return 0;
}
static int pio_read(void *opaque, u16 port, unsigned int len, void *data)
{
	(void)opaque, (void)port, (void)len, (void)data;
	return -1;
}
static int pio_write(void *opaque, u16 port, unsigned int len, const void *data)
{
	(void)opaque, (void)port, (void)len, (void)data;
	return -1;
}

/* The guest of guest_test.h, and a gigabyte without a slot at DEVICE. */
static int setup(void **state)
{
	const struct emul_bus bus = {
		.mmio_read = bus_read,
		.mmio_write = bus_write,
		.pio_read = pio_read,
		.pio_write = pio_write,
		.opaque = &w,
	};
	u64 *pdpt;

	(void)state;
	memset(&w, 0, sizeof(w));
	w.g = guest_create();
	pdpt = (u64 *)(w.g->ram + PAGES + 0x1000);
	pdpt[1] = DEVICE | 0x87;
	assert_int_equal(emul_init(&w.em, &bus), 0);
	w.em.mode = EMUL_GPA_ON;
	w.g->cpu.rip = CODE;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	emul_free(&w.em);
	guest_destroy(w.g);
	return 0;
}

static const struct insn nop = {.len = 1};

static enum emul_result run(enum stop (*fn)(struct cpu *, const struct insn *, struct env *))
{
	const struct fault fault = {.stage = FAULT_FINAL};

	w.em.exec = fn;
	return emul_run(&w.em, &w.g->cpu, &nop, &fault);
}

/* Lets user space answer until nothing is left; reads are answered by 0x22. */
static enum emul_result answer(enum emul_result r)
{
	u8 reply[64];
	struct fragment f;

	memset(reply, 0x22, sizeof(reply));
	while (r == EMUL_EXIT) {
		f = *emul_fragment(&w.em);
		note("%c%u@%x ", f.is_write ? 'W' : 'R', f.len, (unsigned int)f.gpa.v & 0xffff);
		r = emul_complete(&w.em, &w.g->cpu, reply);
	}
	return r;
}

/* ---- pieces (rule 19): at most 8 bytes, inside a page, in order; RAM is silent */

static struct {
	u64 at;
	u32 len;
	u8 need;
} one;

static enum stop one_access(struct cpu *cpu, const struct insn *i, struct env *e)
{
	struct access a;

	(void)i;
	TRY(env_map_linear(e, &a, gva(one.at), one.len, one.need, cpu_data_attr(cpu)));
	TRY(env_begin(e));
	if (one.need & MMU_R)
		cpu->regs[GPR_RAX] = a.p[one.len - 1];
	if (one.need & MMU_W) {
		memset(a.p, 0x33, one.len);
		return env_flush(e, &a);
	}
	return STOP_OK;
}

static void pieces(void **state)
{
	static const struct {
		u64 at;
		u32 len;
		u8 need;
		const char *events;
	} row[] = {
		{DEVICE + 0x10, 1, MMU_R, "R1@10 "},
		{DEVICE + 0x13, 8, MMU_W, "W8@13 "},
		{DEVICE + 0x10, 16, MMU_W, "W8@10 W8@18 "},
		{DEVICE + 0x10, 12, MMU_R, "R8@10 R4@18 "},
		{DEVICE + 0x10, 4, MMU_R | MMU_W, "R4@10 W4@10 "},
		{DEVICE + 0xffd, 4, MMU_R, "r3 R1@1000 "},
		{DEVICE + 0x1ffd, 10, MMU_W, "w3 W7@2000 "},
		{DEVICE + 0xdfc, 4, MMU_R, "R4@dfc "},
		{DEVICE + 0xdf8, 16, MMU_R, "R8@df8 r8 "},
		{DEVICE + 0xe00, 16, MMU_W, "w8 w8 "},
		{DATA + 0xffe, 4, MMU_R | MMU_W, ""},
		{RAM_SIZE - 2, 2, MMU_W, ""},
	};

	for (size_t k = 0; k < ARRAY_SIZE(row); k++) {
		teardown(state);
		setup(state);
		one.at = row[k].at;
		one.len = row[k].len;
		one.need = row[k].need;
		assert_int_equal(answer(run(one_access)), EMUL_DONE);
		assert_string_equal(w.events, row[k].events);
		assert_false(emul_is_pending(&w.em));
		assert_int_equal(w.g->cpu.mmu.walks[WALK_DATA], row[k].at % 4096 + row[k].len > 4096 ? 2 : 1);
	}
	assert_int_equal(w.g->ram[RAM_SIZE - 1], 0x33);
}

/* ---- order: each write is delivered once, before whatever follows touches a device */

static enum stop touch(struct cpu *cpu, struct env *e, u64 at, u8 need)
{
	struct access a;

	TRY(env_map_linear(e, &a, gva(at), 4, need, cpu_data_attr(cpu)));
	TRY(env_begin(e));
	return need & MMU_W ? env_flush(e, &a) : STOP_OK;
}

static enum stop write_read_write(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i;
	w.calls++;
	TRY(touch(cpu, e, DEVICE + 0x10, MMU_W));
	TRY(touch(cpu, e, DEVICE + 0x20, MMU_R));
	TRY(touch(cpu, e, DEVICE + 0x30, MMU_W));
	cpu->regs[GPR_RAX] = 1;
	return STOP_OK;
}

static void order(void **state)
{
	enum emul_result r;

	(void)state;
	w.g->cpu.regs[GPR_RAX] = 0;
	r = run(write_read_write);
	assert_int_equal(w.g->cpu.regs[GPR_RAX], 0); /* a read is ahead: nothing is committed */
	assert_int_equal(answer(r), EMUL_DONE);
	assert_string_equal(w.events, "W4@10 R4@20 W4@30 ");
	assert_int_equal(w.g->cpu.regs[GPR_RAX], 1);
	if (!HARD)
		assert_int_equal(w.calls, 3);
}

/* The exception comes after the writes that came before it (rule 17). */
static enum stop write_then_fault(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i;
	TRY(touch(cpu, e, DEVICE + 0x10, MMU_W));
	return cpu_gp(cpu, 7);
}

static void exception_after_write(void **state)
{
	enum emul_result r;

	(void)state;
	r = run(write_then_fault);
	assert_int_equal(r, EMUL_EXIT);
	assert_int_equal(answer(r), EMUL_EXCEPTION);
	assert_string_equal(w.events, "W4@10 ");
	assert_int_equal(w.g->cpu.exc.vector, EXC_GP);
	assert_int_equal(w.g->cpu.exc.error, 7);
}

/* All is proved before anything is touched (rules 8, 9). */
static void fault_before_touch(void **state)
{
	u64 *pdpt = (u64 *)(w.g->ram + PAGES + 0x1000);
	u64 *pd = (u64 *)(w.g->ram + 0x5000);

	(void)state;
	pdpt[1] = 0x5000 | 7;
	pd[0] = DEVICE | 0x83;
	one.at = DEVICE + (2ul << 20) - 2;
	one.len = 4;
	one.need = MMU_W;
	assert_int_equal(run(one_access), EMUL_EXCEPTION);
	assert_string_equal(w.events, "");
	assert_int_equal(w.g->cpu.exc.vector, EXC_PF);
	assert_int_equal(w.g->cpu.exc.payload, DEVICE + (2ul << 20));
}

/* ---- a replay that asks for something else */

static enum stop changes_its_mind(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i;
	return touch(cpu, e, DEVICE + 0x10 * ++w.step, MMU_R);
}

static void bad_replay(void **state)
{
	u8 reply[8] = {0};

	(void)state;
	if (HARD)
		skip(); /* there it ends the process */
	assert_int_equal(run(changes_its_mind), EMUL_EXIT);
	assert_int_equal(emul_complete(&w.em, &w.g->cpu, reply), EMUL_FAIL);
	assert_non_null(strstr(w.g->cpu.fail, "not in the log"));
	assert_false(emul_is_pending(&w.em));
	assert_int_equal(w.em.stats.insn_emulation_fail, 1);
}

/* RIP moved by user space: the operation is dropped (rule 27). */
static void moved_rip(void **state)
{
	u8 reply[8] = {0};

	(void)state;
	one.at = DEVICE + 0x10;
	one.len = 4;
	one.need = MMU_R;
	assert_int_equal(run(one_access), EMUL_EXIT);
	assert_true(emul_is_pending(&w.em));
	w.g->cpu.rip = CODE + 0x100;
	w.g->cpu.regs[GPR_RAX] = 5;
	assert_int_equal(emul_complete(&w.em, &w.g->cpu, reply), EMUL_RESTART);
	assert_false(emul_is_pending(&w.em));
	assert_int_equal(w.g->cpu.regs[GPR_RAX], 5);
}

/* ---- bounds: an instruction that wants more than the record holds fails, and says so */

static enum stop greedy(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i;
	for (unsigned int k = 0; k < LOG_ENTRIES + 1; k++)
		TRY(touch(cpu, e, DATA, MMU_R));
	return STOP_OK;
}

static enum stop fat(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u8 buf[LOG_BYTES + 64];

	(void)cpu, (void)i;
	return env_read(e, SEG_DS, DATA, sizeof(buf), buf);
}

static void too_much(void **state)
{
	(void)state;
	assert_int_equal(run(greedy), EMUL_FAIL);
	assert_string_equal(w.g->cpu.fail, "too many accesses in one instruction");
	assert_int_equal(run(fat), EMUL_FAIL);
	assert_string_equal(w.g->cpu.fail, "too many bytes in one instruction");
	assert_int_equal(w.em.stats.insn_emulation_fail, 2);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pieces), TEST(order), TEST(exception_after_write), TEST(fault_before_touch),
		TEST(bad_replay), TEST(moved_rip), TEST(too_much),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
