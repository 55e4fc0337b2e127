/* SPDX-License-Identifier: MIT */
/* Host instructions as bytes (SDM 2A 2). Private to translate/. */
#ifndef ANYKVM_EMIT_H
#define ANYKVM_EMIT_H

#include "base/base.h"

enum host {
	RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15,
	NO_HOST = 0xff,
};

struct code {
	u8 *p;
};

/* What stands before ModRM: operand size 1, 2, 4 or 8; map 0, 1 (0F), 2 (0F38). */
struct opcode {
	u8 size, map, byte;
};

static inline void emit_bytes(struct code *c, u64 v, unsigned int n)
{
	for (; n; n--, v >>= 8)
		*c->p++ = v;
}

/* REX where it is needed; always before a byte's opcode: its registers are then the low ones. */
static inline void emit_opcode(struct code *c, struct opcode o, u8 reg, u8 index, u8 base)
{
	u8 rex = (o.size == 8) << 3 | reg >> 3 << 2 | index >> 3 << 1 | base >> 3;

	if (o.size == 2)
		emit_bytes(c, 0x66, 1);
	if (rex || o.size == 1)
		emit_bytes(c, 0x40 | rex, 1);
	if (o.map)
		emit_bytes(c, 0x0f, 1);
	if (o.map >= 2)
		emit_bytes(c, o.map == 2 ? 0x38 : 0x3a, 1);
	emit_bytes(c, o.byte, 1);
}

/* VEX, three bytes. index: of a memory operand, or 0 */
struct vex {
	u8 map, byte, pp, vvvv;
	bool w, l;
};

static inline void emit_vex(struct code *c, struct vex v, u8 reg, u8 index, u8 base)
{
	emit_bytes(c, 0xc4, 1);
	emit_bytes(c, (~reg & 8) << 4 | (~index & 8) << 3 | (~base & 8) << 2 | v.map, 1);
	emit_bytes(c, v.w << 7 | (~v.vvvv & 15) << 3 | v.l << 2 | v.pp, 1);
	emit_bytes(c, v.byte, 1);
}

/* o reg, rm: two registers; reg may be an opcode extension */
static inline void emit_reg(struct code *c, struct opcode o, u8 reg, u8 rm)
{
	emit_opcode(c, o, reg, 0, rm);
	emit_bytes(c, 0xc0 | (reg & 7) << 3 | (rm & 7), 1);
}

/* o reg, [base + index << scale + disp]; base and index may be NO_HOST */
static inline void emit_mem(
	struct code *c, struct opcode o, u8 reg, u8 base, u8 index, u8 scale, s32 disp)
{
	u8 i = index == NO_HOST ? RSP : index, b = base == NO_HOST ? RBP : base;
	u8 mod = base == NO_HOST ? 0 : disp == (s8)disp ? 1 : 2;
	bool sib = index != NO_HOST || base == NO_HOST || (base & 7) == RSP;

	if (!disp && base != NO_HOST && (base & 7) != RBP)
		mod = 0;
	emit_opcode(c, o, reg, sib ? i : 0, b);
	emit_bytes(c, mod << 6 | (reg & 7) << 3 | (sib ? 4 : b & 7), 1);
	if (sib)
		emit_bytes(c, scale << 6 | (i & 7) << 3 | (b & 7), 1);
	if (mod || base == NO_HOST)
		emit_bytes(c, (u32)disp, mod == 1 ? 1 : 4);
}

/* v reg, [base + index] */
static inline void emit_vex_mem(struct code *c, struct vex v, u8 reg, u8 base, u8 index)
{
	emit_vex(c, v, reg, index, base);
	emit_bytes(c, 0x44 | (reg & 7) << 3, 1);
	emit_bytes(c, (index & 7) << 3 | (base & 7), 1);
	emit_bytes(c, 0, 1);
}

/* v reg, [base + disp] */
static inline void emit_vex_at(struct code *c, struct vex v, u8 reg, u8 base, s32 disp)
{
	emit_vex(c, v, reg, 0, base);
	emit_bytes(c, 0x80 | (reg & 7) << 3 | (base & 7), 1);
	emit_bytes(c, (u32)disp, 4);
}

static inline void emit_vex_reg(struct code *c, struct vex v, u8 reg, u8 rm)
{
	emit_vex(c, v, reg, 0, rm);
	emit_bytes(c, 0xc0 | (reg & 7) << 3 | (rm & 7), 1);
}

static inline void emit_mov(struct code *c, u8 to, u8 from)
{
	emit_reg(c, (struct opcode){8, 0, 0x8b}, to, from);
}

static inline void emit_load(struct code *c, u8 to, u8 base, s32 disp)
{
	emit_mem(c, (struct opcode){8, 0, 0x8b}, to, base, NO_HOST, 0, disp);
}

static inline void emit_store(struct code *c, u8 from, u8 base, s32 disp)
{
	emit_mem(c, (struct opcode){8, 0, 0x89}, from, base, NO_HOST, 0, disp);
}

static inline void emit_lea(struct code *c, u8 to, u8 base, u8 index, u8 scale, s32 disp)
{
	emit_mem(c, (struct opcode){8, 0, 0x8d}, to, base, index, scale, disp);
}

/* The shortest MOV of a 64-bit constant. */
static inline void emit_const(struct code *c, u8 to, u64 v)
{
	bool sign = v == (u64)(s64)(s32)v && v >> 63;

	if (sign) {
		emit_reg(c, (struct opcode){8, 0, 0xc7}, 0, to);
		emit_bytes(c, v, 4);
		return;
	}
	emit_opcode(c, (struct opcode){v >> 32 ? 8 : 4, 0, 0xb8 | (to & 7)}, 0, 0, to);
	emit_bytes(c, v, v >> 32 ? 8 : 4);
}

#endif
