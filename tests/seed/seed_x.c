// SPDX-License-Identifier: MIT
/*
 * What the seed promises beside its 100 cases: OUTS in batches (rules 14, 30), the trap of TF
 * behind an emulated instruction (rule 29), forced emulation (rule 33), implicit accesses that
 * are counted where they belong. On the world of harness.h.
 */
#include "harness.h"

#define BLOCKS	   512
#define BLOCK_SIZE 512
#define SOURCE	   0x100000ul

GUEST(blocks, "mov $0x100000, %esi; mov $512, %ebx; 1: mov $256, %ecx; rep outsw; dec %ebx; "
	      "jnz 1b; hlt")
GUEST(single, "mov $0x100000, %esi; mov $5, %ecx; rep outsb; hlt")
GUEST(backward, "std; mov $0x100fff, %esi; mov $2000, %ecx; rep outsb; hlt")
GUEST(forward, "mov $0x100123, %esi; mov $5000, %ecx; rep outsb; hlt")
GUEST(faulting, "mov $" RN "+0xffe, %esi; mov $5, %ecx; rep outsb; hlt")
/* user pages: RAM at 0x40024000; the HLT is #GP there */
GUEST(ins_bytes, "mov $0x40024001, %edi; mov $8, %ecx; rep insb; hlt")
GUEST(ins_words, "mov $0x40024001, %edi; mov $4, %ecx; rep insw; hlt")
GUEST(ins_aligned, "mov $0x40024002, %edi; mov $4, %ecx; rep insw; hlt")
GUEST(popf_tf, "mov $" M "+0x100, %esp; popf; nop; hlt")
GUEST(forced, "mov $5, %eax; ud2; .ascii \"kvm\"; add %eax, %eax; ud2; .ascii \"kvm\"; mov " M ", %ecx; "
	      "ud2; .ascii \"kvm\"; add %eax, " R "; ud2; .ascii \"kvm\"; push %rax; hlt")
GUEST(forced_ud, "nop; ud2; .ascii \"kvm\"; ud2; hlt")
GUEST(not_forced, "nop; ud2; .ascii \"kvm\"; nop; hlt")
GUEST(divide, "xor %ecx, %ecx; div %ecx; hlt")

#define CREATE(name) create(name##_code, name##_end - name##_code)
#define HLT_OF(name) (CODE + (name##_end - name##_code) - 1)

static struct seed *create(const u8 *code, size_t n)
{
	struct seed *s = seed_create(EMUL_GPA_ON, false);

	seed_load(s, code, n, 64);
	return s;
}

/* ---- OUTS: what has come out so far, and what the registers said at each exit */

static struct {
	u64 first, rcx; /* RSI and RCX at the start */
	int step;
	u64 bytes, exits, kicks;
	u32 count;
	bool kick;
} out;

static bool check_out(struct seed *s, const struct fragment *f)
{
	struct cpu *cpu = &s->g->cpu;

	assert_true(f->is_pio && f->is_write);
	for (u32 k = 0; k < f->len; k++)
		assert_int_equal(f->data[k], s->g->ram[out.first + out.step * (s64)(out.bytes + k)]);
	out.bytes += f->len;
	out.exits++;
	out.count = MAX(out.count, f->count);
	/* RSI and RCX have advanced, RIP has not gone on while elements are left (rule 18) */
	assert_int_equal(cpu->regs[GPR_RSI], out.first + out.step * (s64)out.bytes);
	if (out.rcx)
		assert_int_equal(cpu->regs[GPR_RCX], out.rcx - out.bytes);
	if (out.kick)
		cpu_request(cpu, REQ_KICK);
	return true;
}

static struct seed *run_out(struct seed *s, u64 first, int step, u64 rcx)
{
	memset(&out, 0, sizeof(out));
	out.first = first;
	out.step = step;
	out.rcx = rcx;
	for (u64 k = 0; k < BLOCKS * BLOCK_SIZE; k++)
		s->g->ram[SOURCE + k] = seed_pattern(k * 3 + 1);
	s->hook = check_out;
	seed_run(s);
	return s;
}

/* 256 KiB by REP OUTSW in blocks of 512 bytes: one exit for each, no walk. */
static void outs_blocks(void **state)
{
	struct seed *s = run_out(CREATE(blocks), SOURCE, 1, 0);

	(void)state;
	assert_int_equal(out.exits, BLOCKS);
	assert_int_equal(out.bytes, BLOCKS * BLOCK_SIZE);
	assert_int_equal(out.count, BLOCK_SIZE / 2);
	assert_int_equal(s->stopped_at, HLT_OF(blocks) + 1);
	assert_int_equal(seed_data_walks(s) + s->g->cpu.mmu.walks[WALK_PROVE], 0);
	seed_destroy(s);
}

/* ANYKVM_OUTS_BATCH=0: KVM's one element for each exit. */
static void outs_one_by_one(void **state)
{
	const struct emul_bus none = {0};
	struct seed *s = CREATE(single);
	struct emul em;

	(void)state;
	setenv("ANYKVM_OUTS_BATCH", "0", 1);
	assert_int_equal(emul_init(&em, &none), 0);
	s->em.outs_batch = em.outs_batch;
	emul_free(&em);
	unsetenv("ANYKVM_OUTS_BATCH");
	assert_int_equal(emul_init(&em, &none), 0);
	assert_true(em.outs_batch);
	emul_free(&em);
	run_out(s, SOURCE, 1, 5);
	assert_int_equal(out.exits, 5);
	assert_int_equal(out.count, 1);
	assert_int_equal(seed_data_walks(s), 0);
	seed_destroy(s);
}

static void outs_backward(void **state)
{
	struct seed *s = run_out(CREATE(backward), 0x100fff, -1, 2000);

	(void)state;
	assert_int_equal(out.bytes, 2000);
	assert_int_equal(out.exits, 2);
	assert_int_equal(s->stopped_at, HLT_OF(backward) + 1);
	seed_destroy(s);
}

/* A request is honoured between batches, with RIP still on the instruction. */
static void outs_interrupted(void **state)
{
	struct seed *s = CREATE(forward);
	struct cpu *cpu = &s->g->cpu;
	u64 rip = HLT_OF(forward) - 2;

	(void)state;
	memset(&out, 0, sizeof(out));
	out.first = 0x100123;
	out.step = 1;
	out.rcx = 5000;
	out.kick = true;
	for (;;) {
		cpu_run(cpu, &s->g->exit);
		if (s->g->exit.reason == LEAVE_NONE) /* HARD: after each instruction */
			continue;
		if (s->g->exit.reason == LEAVE_HLT)
			break;
		if (s->g->exit.reason == LEAVE_KICK) {
			out.kicks++;
			assert_int_equal(cpu->rip, cpu->regs[GPR_RCX] ? rip : rip + 2);
			continue;
		}
		assert_int_equal(s->g->exit.reason, LEAVE_PIO);
		assert_int_equal(emul_run(&s->em, cpu, &s->g->exit.insn, &s->g->exit.fault), EMUL_EXIT);
		s->last = *emul_fragment(&s->em);
		check_out(s, &s->last);
		assert_int_equal(seed_complete(s), EMUL_DONE);
	}
	assert_int_equal(out.bytes, 5000);
	assert_true(out.exits >= 5); /* at most 1,024 bytes at once, and no page is crossed */
	assert_int_equal(out.kicks, out.exits);
	seed_destroy(s);
}

/* The source's second page is not there: what came before it is out, the rest faults. */
static void outs_faults_at_the_boundary(void **state)
{
	struct seed *s = CREATE(faulting);

	(void)state;
	seed_run(s);
	assert_string_equal(s->events, "OUT1x2 #14");
	assert_int_equal(s->g->cpu.regs[GPR_RCX], 3);
	assert_int_equal(s->g->cpu.regs[GPR_RSI], 0x4001e000);
	assert_int_equal(s->g->cpu.cr2, 0x4001e000);
	seed_destroy(s);
}

/* ---- INS and #AC: alignment is the element's, and is looked at before the port is read (rule 14) */

static void ins_as_user(const u8 *code, size_t n, const char *events)
{
	for (enum emul_gpa_mode mode = EMUL_GPA_OFF; mode <= EMUL_GPA_VERIFY; mode++) {
		struct seed *s = seed_create(mode, false);

		seed_load(s, code, n, 64);
		s->g->cpu.cr0 |= CR0_AM;
		s->g->cpu.seg[SEG_CS].attr |= 3 << 5;
		s->g->cpu.seg[SEG_SS].attr |= 3 << 5;
		cpu_set_eflags(&s->g->cpu, EFL_ONE | EFL_AC | 3 << 12);
		assert_int_equal(s->g->cpu.cpl, 3);
		seed_run(s);
		assert_string_equal(s->events, events);
		seed_destroy(s);
	}
}

static void ins_alignment(void **state)
{
	(void)state;
	ins_as_user(ins_bytes_code, ins_bytes_end - ins_bytes_code, "IN1x8 #13");
	ins_as_user(ins_words_code, ins_words_end - ins_words_code, "#17");
	ins_as_user(ins_aligned_code, ins_aligned_end - ins_aligned_code, "IN2x4 #13");
}

/* ---- TF */

/* POPF sets TF: the trap is behind the next instruction, wherever the flags came from. */
static void popf_from_a_device(void **state)
{
	(void)state;
	for (int ram = 0; ram < 2; ram++) {
		struct seed *s = seed_create(EMUL_GPA_ON, ram);
		u64 rip;

		seed_poke(s, 0x40001100, EFL_TF | EFL_ONE);
		seed_load(s, popf_tf_code, popf_tf_end - popf_tf_code, 64);
		seed_run(s);
		assert_int_equal(s->vector, EXC_DB);
		memcpy(&rip, s->g->ram + IST - 40, 8);
		assert_int_equal(rip, HLT_OF(popf_tf));
		seed_destroy(s);
	}
}

/* ---- forced emulation */

static void force(void **state)
{
	struct seed *s = CREATE(forced);
	u64 r = seed_peek(s, 0x40010000), m = seed_peek(s, 0x40001000);

	(void)state;
	s->g->cpu.force_emulation = true;
	seed_run(s);
	assert_string_equal(s->events, "R4");
	assert_int_equal(s->stopped_at, HLT_OF(forced) + 1);
	assert_int_equal(s->g->cpu.regs[GPR_RAX], 10);
	assert_int_equal(s->g->cpu.regs[GPR_RCX], (u32)m);
	assert_int_equal((u32)seed_peek(s, 0x40010000), (u32)r + 10);
	assert_int_equal(s->em.stats.insn_emulation, 4);
	assert_int_equal(s->em.stats.gpa_hit, 2); /* explicit operands are proved by the processor */
	assert_int_equal(seed_data_walks(s), 1); /* the stack is not */
	seed_destroy(s);
}

/* An exception of a forced instruction is behind the prefix. */
static void force_undefined(void **state)
{
	struct seed *s = CREATE(forced_ud);
	u64 rip;

	(void)state;
	s->g->cpu.force_emulation = true;
	seed_run(s);
	assert_int_equal(s->vector, EXC_UD);
	memcpy(&rip, s->g->ram + IST - 40, 8);
	assert_int_equal(rip, CODE + 6);
	assert_int_equal(s->em.stats.insn_emulation, 1);
	seed_destroy(s);
}

/* An instruction breakpoint behind the prefix is hit before the emulator sees the instruction. */
static void force_breakpoint(void **state)
{
	struct seed *s = CREATE(forced_ud);
	u64 rip;

	(void)state;
	s->g->cpu.force_emulation = true;
	s->g->cpu.dr[0] = CODE + 6;
	s->g->cpu.dr7 |= 1;
	cpu_update(&s->g->cpu);
	seed_run(s);
	assert_int_equal(s->vector, EXC_DB);
	assert_int_equal(s->g->cpu.dr6 & 15, 1);
	memcpy(&rip, s->g->ram + IST - 40, 8);
	assert_int_equal(rip, CODE + 6);
	assert_int_equal(s->em.stats.insn_emulation, 0);
	seed_destroy(s);
}

static void force_is_off(void **state)
{
	struct seed *s = CREATE(not_forced);
	u64 rip;

	(void)state;
	seed_run(s);
	assert_int_equal(s->vector, EXC_UD);
	memcpy(&rip, s->g->ram + IST - 40, 8);
	assert_int_equal(rip, CODE + 1);
	assert_int_equal(s->em.stats.insn_emulation, 0);
	seed_destroy(s);
}

/* ---- implicit accesses */

/* Delivery reads IDT and TSS: soft TLB misses of the processor, nothing of the emulator's. */
static void delivery_is_the_processors(void **state)
{
	struct seed *s = CREATE(divide);

	(void)state;
	seed_run(s);
	assert_int_equal(s->vector, EXC_DE);
	assert_int_equal(s->g->cpu.mmu.walks[WALK_SYSTEM], 0);
	assert_true(s->g->cpu.mmu.walks[WALK_CPU_SYSTEM] > 0);
	seed_destroy(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(outs_blocks),
		cmocka_unit_test(outs_one_by_one),
		cmocka_unit_test(outs_backward),
		cmocka_unit_test(outs_interrupted),
		cmocka_unit_test(outs_faults_at_the_boundary),
		cmocka_unit_test(ins_alignment),
		cmocka_unit_test(popf_from_a_device),
		cmocka_unit_test(force),
		cmocka_unit_test(force_undefined),
		cmocka_unit_test(force_breakpoint),
		cmocka_unit_test(force_is_off),
		cmocka_unit_test(delivery_is_the_processors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
