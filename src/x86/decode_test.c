// SPDX-License-Identifier: MIT
/*
 * The decoder's rules one by one; tests/decode compares everything else with Zydis. A case is
 * bytes and what insn_text() makes of them, so that one line shows all fields.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "x86/insn.h"

#define UD   "#UD"
#define LONG "too long"

struct one {
	u8 mode; /* enum insn_mode */
	const char *bytes;
	const char *text;
};

static unsigned int parse(const char *hex, u8 *p)
{
	unsigned int n = 0;

	for (; hex[0]; hex += hex[0] == ' ' ? 1 : 2)
		if (hex[0] != ' ')
			assert_int_equal(sscanf(hex, "%2hhx", &p[n++]), 1);
	return n;
}

static const char *text_of(enum insn_mode mode, const u8 *p, unsigned int n, unsigned int *len)
{
	static char buf[96];
	struct insn i;

	switch (insn_decode(&i, mode, p, n)) {
	case DECODE_OK:
		*len = i.len;
		return insn_text(&i, buf, sizeof(buf));
	case DECODE_UD:
		assert_int_equal(insn_op(&i), OP_INVALID);
		*len = i.len;
		return UD;
	case DECODE_LONG:
		return LONG;
	default:
		return "more";
	}
}

static void check(const struct one *c, unsigned int n)
{
	u8 p[64];
	unsigned int len = 0, want;

	for (; n--; c++) {
		const char *t;

		memset(p, 0xcc, sizeof(p));
		want = parse(c->bytes, p);
		t = text_of(c->mode, p, sizeof(p), &len);
		if (strcmp(t, c->text))
			fail_msg("mode %u %s: \"%s\", not \"%s\"", c->mode, c->bytes, t, c->text);
		if (t[0] != '#' && strcmp(t, LONG) && len != want)
			fail_msg("mode %u %s: length %u", c->mode, c->bytes, len);
	}
}

#define CASES(name, ...)                                                                        \
	static void name(void **state)                                                          \
	{                                                                                       \
		static const struct one cases[] = {__VA_ARGS__};                                \
                                                                                                \
		(void)state;                                                                    \
		check(cases, ARRAY_SIZE(cases));                                                \
	}

/* SDM 2A 2.1.5 tables 2-1, 2-2, 2-3; 2.2.1.3-6 for 64-bit mode */
CASES(addressing,
	{MODE_16, "8b 00", "mov ax, word [bx+si]"},
	{MODE_16, "8b 43 fe", "mov ax, word [bp+di-0x2]"},
	{MODE_16, "8b 06 34 12", "mov ax, word [0x1234]"},
	{MODE_16, "8b 86 00 80", "mov ax, word [bp-0x8000]"},
	{MODE_16, "67 8b 04 88", "mov ax, word [eax+ecx*4]"},
	{MODE_32, "67 8b 47 01", "mov eax, dword [bx+0x1]"},
	{MODE_32, "8b 05 44 33 22 11", "mov eax, dword [0x11223344]"},
	{MODE_32, "8b 04 25 44 33 22 11", "mov eax, dword [0x11223344]"},
	{MODE_64, "8b 05 44 33 22 11", "mov eax, dword [rip+0x11223344]"},
	{MODE_64, "67 8b 05 00 00 00 00", "mov eax, dword [eip]"},
	{MODE_64, "8b 04 25 00 00 00 80", "mov eax, dword [-0x80000000]"},
	{MODE_64, "43 8b 04 25 10 00 00 00", "mov eax, dword [r12+0x10]"},
	{MODE_64, "41 8b 04 24", "mov eax, dword [r12]"},
	{MODE_64, "41 8b 45 00", "mov eax, dword [r13]"},
	{MODE_64, "41 8b 05 00 00 00 00", "mov eax, dword [rip]"},
	{MODE_64, "42 8b 04 20", "mov eax, dword [rax+r12]"},
	{MODE_64, "4e 8b 7c fc 80", "mov r15, qword [rsp+r15*8-0x80]"},
	{MODE_64, "a1 88 77 66 55 44 33 22 11", "mov eax, dword [0x1122334455667788]"},
	{MODE_64, "67 a0 44 33 22 11", "mov al, byte [0x11223344]"},
	{MODE_32, "a3 44 33 22 11", "mov dword [0x11223344], eax"},
	{MODE_16, "a2 34 12", "mov byte [0x1234], al"}, )

/* SDM 1 3.6.1 tables 3-3, 3-4; SDM 2A 2.2.1.7 */
CASES(operand_size,
	{MODE_16, "89 c1", "mov cx, ax"},
	{MODE_16, "66 89 c1", "mov ecx, eax"},
	{MODE_64, "66 48 89 c1", "mov rcx, rax"},
	{MODE_64, "b8 44 33 22 91", "mov eax, 0x91223344"},
	{MODE_64, "48 b8 88 77 66 55 44 33 22 11", "mov rax, 0x1122334455667788"},
	{MODE_64, "48 c7 c0 fe ff ff ff", "mov rax, -0x2"},
	{MODE_64, "66 50", "push ax"},
	{MODE_64, "41 54", "push r12"},
	{MODE_64, "66 e8 04 03 02 01", "call $+0x1020304"},
	{MODE_32, "66 e8 04 03", "call $+0x304"},
	{MODE_64, "66 0f 20 c0", "mov rax, cr0"},
	{MODE_32, "66 0f 20 c0", "mov eax, cr0"},
	{MODE_64, "6a ff", "push -0x1"},
	{MODE_64, "cd 80", "int 0x80"},
	{MODE_64, "c8 34 12 05", "enter 0x1234, 0x5"},
	{MODE_32, "9a 44 33 22 11 66 55", "call far 0x5566:0x11223344"},
	{MODE_32, "66 ea 22 11 66 55", "jmp far 0x5566:0x1122"}, )

/* SDM 2A 2.2.1: REX only right before the opcode; AH..BH against SPL..DIL */
CASES(rex,
	{MODE_64, "88 e0", "mov al, ah"},
	{MODE_64, "40 88 e0", "mov al, spl"},
	{MODE_64, "48 66 89 c1", "mov cx, ax"},
	{MODE_64, "48 40 89 c1", "mov ecx, eax"},
	{MODE_64, "4d 0f ef c1", "pxor mm0, mm1"},
	{MODE_64, "45 d8 c1", "fadd st1"},
	{MODE_32, "48", "dec eax"},
	{MODE_16, "47", "inc di"},
	{MODE_64, "90", "nop"},
	{MODE_64, "41 90", "xchg r8d, eax"},
	{MODE_64, "f3 90", "pause"},
	{MODE_64, "f3 41 90", "xchg r8d, eax"},
	{MODE_64, "48 0f c7 0b", "cmpxchg16b xmmword [rbx]"},
	{MODE_64, "0f c7 0b", "cmpxchg8b qword [rbx]"}, )

/* Of F2 and F3 the last; both before 66 (SDM 2A 2.1.1, 2B "POPCNT") */
CASES(mandatory_prefixes,
	{MODE_64, "0f 10 c1", "movups xmm0, xmm1"},
	{MODE_64, "66 0f 10 c1", "movupd xmm0, xmm1"},
	{MODE_64, "66 f3 0f 10 c1", "movss xmm0, xmm1"},
	{MODE_64, "f3 66 0f 10 c1", "movss xmm0, xmm1"},
	{MODE_64, "f3 f2 0f 10 c1", "movsd xmm0, xmm1"},
	{MODE_64, "66 f3 0f b8 c1", "popcnt ax, cx"},
	{MODE_64, "0f b8 c1", UD},
	{MODE_64, "f3 0f bc c1", "tzcnt eax, ecx"},
	{MODE_64, "f2 0f bc c1", "bsf eax, ecx"},
	{MODE_64, "66 f2 0f 38 f1 c1", "crc32 eax, cx"},
	{MODE_64, "66 0f 38 f1 01", "movbe word [rcx], ax"},
	{MODE_64, "f3 a4", "rep movs es:[rdi], ds:[rsi]"},
	{MODE_64, "f3 f2 64 67 a6", "repne cmps fs:[esi], es:[edi]"},
	{MODE_64, "f3 0f 1e fa", "endbr"},
	{MODE_64, "0f 1e fa", "nop dx"}, )

/* SDM 2A 2.1.1 group 2; null prefixes in 64-bit mode: APM 3 1.2.4 */
CASES(segments,
	{MODE_32, "2e 8b 00", "mov eax, dword cs:[eax]"},
	{MODE_64, "2e 8b 00", "mov eax, dword [rax]"},
	{MODE_64, "64 2e 8b 00", "mov eax, dword fs:[rax]"},
	{MODE_32, "64 2e 8b 00", "mov eax, dword cs:[eax]"},
	{MODE_64, "8e d0", "mov ss, ax"},
	{MODE_64, "8e c8", UD},
	{MODE_64, "8c f0", UD},
	{MODE_64, "44 8e d0", "mov ss, ax"},
	{MODE_64, "0f 20 c8", UD}, /* CR1 */
	{MODE_64, "44 0f 20 c0", "mov rax, cr8"},
	{MODE_64, "0f 20 00", "mov rax, cr0"}, /* mod is ignored */
	{MODE_64, "44 0f 21 c0", UD}, /* DR8 */ )

/* SDM 2A "LOCK" */
CASES(lock,
	{MODE_64, "f0 01 03", "lock add dword [rbx], eax"},
	{MODE_64, "f0 01 c3", UD},
	{MODE_64, "f0 39 03", UD},
	{MODE_64, "f0 0f b1 0b", "lock cmpxchg dword [rbx], ecx"},
	{MODE_64, "f0 87 03", "lock xchg dword [rbx], eax"},
	{MODE_64, "f0 90", UD},
	{MODE_64, "f0 0f ba 23 01", UD},
	{MODE_64, "f0 0f ba 2b 01", "lock bts dword [rbx], 0x1"}, )

/* SDM 2D A.1 superscripts i64, o64; 2A 2.3.5 */
CASES(modes,
	{MODE_64, "06", UD},
	{MODE_32, "06", "push es"},
	{MODE_64, "82 c0 01", UD},
	{MODE_32, "82 c0 01", "add al, 0x1"},
	{MODE_64, "63 c1", "movsxd eax, ecx"},
	{MODE_32, "63 c1", "arpl cx, ax"},
	{MODE_64, "ea 00 00 00 00 00 00", UD},
	{MODE_32, "c4 03", "les eax, fword [ebx]"},
	{MODE_16, "c5 03", "lds ax, dword [bp+di]"},
	{MODE_32, "62 03", "bound eax, qword [ebx]"},
	{MODE_32, "0f 01 f8", UD},
	{MODE_64, "0f 01 f8", "swapgs"},
	{MODE_64, "8f c8", UD}, /* XOP */
	{MODE_64, "0f 0f c1 9e", UD}, /* 3DNow! */ )

/* SDM 2A 2.3 */
CASES(vex,
	{MODE_64, "c5 f8 77", "vzeroupper"},
	{MODE_64, "c5 fc 77", "vzeroall"},
	{MODE_64, "c5 f1 fe c2", "vpaddd xmm0, xmm1, xmm2"},
	{MODE_32, "c5 f1 fe c2", "vpaddd xmm0, xmm1, xmm2"},
	{MODE_64, "c4 41 35 fe c2", "vpaddd ymm8, ymm9, ymm10"},
	{MODE_64, "66 c5 f1 fe c2", UD},
	{MODE_64, "f3 c5 f1 fe c2", UD},
	{MODE_64, "40 c5 f1 fe c2", UD},
	{MODE_64, "f0 c5 f1 fe c2", UD},
	{MODE_64, "64 67 c5 f1 fe 00", "vpaddd xmm0, xmm1, xmmword fs:[eax]"},
	{MODE_64, "c5 f0 10 c1", UD}, /* vvvv */
	{MODE_64, "c5 f2 10 01", UD},
	{MODE_64, "c5 f2 10 c1", "vmovss xmm0, xmm1, xmm1"},
	{MODE_64, "c4 e0 f1 fe c2", UD}, /* map 0 */
	{MODE_64, "c4 e2 f0 f2 c2", "andn rax, rcx, rdx"},
	{MODE_32, "c4 e2 f0 f2 c2", "andn eax, ecx, edx"}, /* W is ignored here */
	{MODE_64, "c4 e2 f1 98 c2", "vfmadd132pd xmm0, xmm1, xmm2"},
	{MODE_32, "c4 e2 f1 98 c2", "vfmadd132pd xmm0, xmm1, xmm2"}, /* but not here */
	{MODE_64, "c4 e2 71 98 c2", "vfmadd132ps xmm0, xmm1, xmm2"},
	{MODE_64, "c4 e3 75 4a c2 30", "vblendvps ymm0, ymm1, ymm2, ymm3"},
	{MODE_64, "c4 e2 69 90 04 08", "vpgatherdd xmm0, dword [rax+xmm1], xmm2"},
	{MODE_64, "c4 e2 69 90 04 10", UD}, /* index = mask */
	{MODE_64, "c4 e2 69 90 00", UD}, /* no SIB */
	{MODE_64, "c4 e2 69 90 04 20", "vpgatherdd xmm0, dword [rax+xmm4], xmm2"},
	{MODE_64, "c5 f7 12 00", UD},
	{MODE_64, "c5 ff 12 00", "vmovddup ymm0, ymmword [rax]"}, )

/* EVEX: the length only. SDM 2A 2.7 */
CASES(evex,
	{MODE_64, "62 f1 7c 48 10 c1", "ud_evex"},
	{MODE_64, "62 f1 7c 48 10 40 01", "ud_evex"},
	{MODE_64, "62 f3 75 48 25 c2 ff", "ud_evex"},
	{MODE_64, "62 f1 7c 48 c6 05 00 00 00 00 07", "ud_evex"},
	{MODE_32, "62 f1 7c 48 10 c1", "ud_evex"},
	{MODE_16, "62 f1 7c 48 10 46 01", "ud_evex"}, )

/* SDM 2A 2.3.11: more than 15 bytes */
CASES(length,
	{MODE_64, "66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", "nop"},
	{MODE_64, "66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", LONG},
	{MODE_64, "2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 81 00 00 00 00 00", LONG},
	{MODE_64, "2e 2e 2e 2e 2e 2e 2e 2e 2e 81 00 00 00 00 00", "add dword [rax], 0x0"}, )

/* Any prefix of an instruction asks for more; nothing is read behind the n bytes. */
static void more(void **state)
{
	static const char *const insns[] = {
		"48 b8 88 77 66 55 44 33 22 11", "f0 48 81 84 88 44 33 22 11 44 33 22 11",
		"66 0f 3a 0f 44 88 01 02", "c4 e3 75 4a 05 00 00 00 00 30", "0f c7 f0",
		"0f ba e0 01", "f7 00 01 00 00 00", "62 f1 7c 48 c6 05 00 00 00 00 07", "0f 01 d0",
		"df e0", "a1 88 77 66 55 44 33 22 11",
	};
	u8 p[32];
	struct insn i, before;
	unsigned int k, n, len;

	(void)state;
	memset(&before, 0x5a, sizeof(before));
	for (k = 0; k < ARRAY_SIZE(insns); k++) {
		len = parse(insns[k], p);
		for (n = 0; n < len; n++) {
			memset(p + n, 0xff, sizeof(p) - n);
			i = before;
			assert_int_equal(insn_decode(&i, MODE_64, p, n), DECODE_MORE);
			assert_memory_equal(&i, &before, sizeof(i));
			parse(insns[k], p);
		}
		for (; n < sizeof(p) + 1; n++) {
			assert_int_equal(insn_decode(&i, MODE_64, p, n), DECODE_OK);
			assert_int_equal(i.len, len);
		}
	}
}

/* Whatever the bytes: one of the four results, the same with few and with many bytes. */
static void total(void **state)
{
	u64 x = 88172645463325252ull;
	unsigned int round, k, mode;
	struct insn a, b;
	u8 p[48] = {0};

	(void)state;
	for (round = 0; round < 200000; round++) {
		for (k = 0; k < 16; k += 8) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			memcpy(p + k, &x, 8);
		}
		mode = round % 3;
		assert_int_equal(insn_decode(&a, mode, p, 15), insn_decode(&b, mode, p, 48));
		if (insn_decode(&b, mode, p, 48) > DECODE_UD)
			continue;
		assert_memory_equal(&a, &b, sizeof(a));
		assert_in_range(a.len, 1, 15);
		for (k = 0; k < a.len && insn_op(&a); k++)
			assert_int_equal(insn_decode(&b, mode, p, k), DECODE_MORE);
	}
}

struct operand_case {
	u8 mode;
	const char *bytes;
	u16 size;
	u8 acc;
};

/* insn_mem_size(), insn_mem_acc() */
static void memory_operands(void **state)
{
	static const struct operand_case cases[] = {
		{MODE_64, "01 03", 4, ACC_R | ACC_W},
		{MODE_64, "39 03", 4, ACC_R},
		{MODE_64, "48 89 03", 8, ACC_W},
		{MODE_64, "48 0f 44 03", 8, ACC_R},
		{MODE_64, "8d 03", 0, 0},
		{MODE_64, "0f 01 13", 10, ACC_R},
		{MODE_32, "0f 01 13", 6, ACC_R},
		{MODE_64, "ff 2b", 6, ACC_R},
		{MODE_64, "48 ff 2b", 10, ACC_R},
		{MODE_64, "8c 03", 2, ACC_W},
		{MODE_64, "c5 fc 28 03", 32, ACC_R},
		{MODE_64, "c4 e2 7d 20 03", 16, ACC_R},
		{MODE_64, "66 0f 38 22 03", 2, ACC_R},
		{MODE_64, "0f ae 03", 512, ACC_W},
		{MODE_64, "db 2b", 10, ACC_R},
		{MODE_64, "d9 33", 28, ACC_W},
		{MODE_16, "d9 33", 14, ACC_W},
		{MODE_64, "01 c3", 0, 0},
	};
	unsigned int k;
	struct insn i;
	u8 p[32];

	(void)state;
	for (k = 0; k < ARRAY_SIZE(cases); k++) {
		const struct operand_case *c = &cases[k];

		parse(c->bytes, p);
		assert_int_equal(insn_decode(&i, c->mode, p, sizeof(p)), DECODE_OK);
		assert_int_equal(insn_mem_size(&i), c->size);
		assert_int_equal(insn_mem_acc(&i), c->acc);
	}
}

/* Native code and the exit-time emulator encode anew from map and opcode. */
static void map_and_opcode(void **state)
{
	static const struct {
		u8 p[6], map, opcode;
	} cases[] = {
		{{0x90}, 0, 0x90},
		{{0x0f, 0xa2}, 1, 0xa2},
		{{0x0f, 0x38, 0xf0, 0x00}, 2, 0xf0},
		{{0x66, 0x0f, 0x3a, 0x0f, 0xc0, 0}, 3, 0x0f},
		{{0xc5, 0xf9, 0xfe, 0xc0}, 1, 0xfe},
		{{0xc4, 0xe1, 0xf9, 0xfe, 0xc0}, 1, 0xfe},	  /* vpaddd, W = 1 */
		{{0xc4, 0xe2, 0x79, 0xbc, 0xc0}, 2, 0xbc},	  /* vfnmadd231ps */
		{{0xc4, 0xe2, 0xf9, 0xbc, 0xc0}, 2, 0xbc},	  /* vfnmadd231pd */
		{{0xc4, 0xe3, 0xf9, 0x0f, 0xc0, 0}, 3, 0x0f},	  /* vpalignr, W = 1 */
	};
	struct insn i;

	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(cases); k++) {
		assert_int_equal(insn_decode(&i, MODE_64, cases[k].p, 6), DECODE_OK);
		assert_int_equal(i.map, cases[k].map);
		assert_int_equal(i.opcode, cases[k].opcode);
	}
}

static void text_is_cut(void **state)
{
	const u8 p[32] = {0x48, 0x89, 0x03};
	struct insn i;
	char buf[8] = "-------";

	(void)state;
	assert_int_equal(insn_decode(&i, MODE_64, p, sizeof(p)), DECODE_OK);
	insn_text(&i, buf, 6);
	assert_string_equal(buf, "mov q");
	assert_int_equal(buf[6], '-');
}

/* VEX.W that means nothing must not reach the thunks, which run in 64-bit mode. SDM 2B "PCMPESTRI" */
static void vex_w(void **state)
{
	static const u8 row[][6] = {
		{0xc4, 0xe2, 0xf0, 0xf2, 0xc2},	      /* andn */
		{0xc4, 0xe3, 0xf9, 0x61, 0xc1, 0x0c}, /* vpcmpestri */
		{0xc4, 0xe3, 0xf9, 0x60, 0xc1, 0x0c}, /* vpcmpestrm */
	};
	struct insn i;

	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(row); k++) {
		assert_int_equal(insn_decode(&i, MODE_64, row[k], 6), DECODE_OK);
		assert_true(i.flags & INSN_W);
		assert_int_equal(insn_decode(&i, MODE_32, row[k], 6), DECODE_OK);
		assert_false(i.flags & INSN_W);
	}
}

/* insn.map is what the thunks re-encode, whatever VEX.W says. */
static void vex_maps(void **state)
{
	static const struct {
		u8 bytes[6];
		u8 map;
	} row[] = {
		{{0xc5, 0xf8, 0x58, 0xc1}, 1},		   /* vaddps */
		{{0xc4, 0xe1, 0x78, 0x58, 0xc1}, 1},
		{{0xc4, 0xe1, 0xf8, 0x58, 0xc1}, 1},	   /* W = 1 */
		{{0xc4, 0xe2, 0x71, 0xb8, 0xc2}, 2},	   /* vfmadd231ps */
		{{0xc4, 0xe2, 0xf1, 0xb8, 0xc2}, 2},	   /* vfmadd231pd */
		{{0xc4, 0xe3, 0x7d, 0x06, 0xc1, 0}, 3},	   /* vperm2f128 */
		{{0xc4, 0xe3, 0xfd, 0x00, 0xc1, 0}, 3},	   /* vpermq: W = 1 */
	};
	struct insn i;

	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(row); k++) {
		assert_int_equal(insn_decode(&i, MODE_64, row[k].bytes, 6), DECODE_OK);
		assert_int_equal(i.map, row[k].map);
		assert_int_equal(i.opcode, row[k].bytes[row[k].bytes[0] == 0xc5 ? 2 : 3]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vex_maps),
		cmocka_unit_test(vex_w),
		cmocka_unit_test(addressing),
		cmocka_unit_test(operand_size),
		cmocka_unit_test(rex),
		cmocka_unit_test(mandatory_prefixes),
		cmocka_unit_test(segments),
		cmocka_unit_test(lock),
		cmocka_unit_test(modes),
		cmocka_unit_test(vex),
		cmocka_unit_test(evex),
		cmocka_unit_test(length),
		cmocka_unit_test(more),
		cmocka_unit_test(total),
		cmocka_unit_test(memory_operands),
		cmocka_unit_test(map_and_opcode),
		cmocka_unit_test(text_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
