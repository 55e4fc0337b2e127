// SPDX-License-Identifier: MIT
/*
 * Vector accesses to selected elements: MASKMOVQ, MASKMOVDQU, VMASKMOV*, VPMASKMOV* and the
 * gathers. An element that is not selected is not accessed: it neither faults nor shows up
 * in the dirty log. All selected ones are proved before the first is touched.
 *
 * DIFFERS: a gather that faults has done nothing, where hardware may keep the elements
 * before the fault (SDM 2C "VGATHERDPD": both are permitted).
 */
#include "cpu/exec.h"
#include "cpu/fpu.h"

#define MAX_ELEMENTS 16

/* Up to sixteen pieces of guest memory and where their bytes are in a register. */
struct pieces {
	struct access a[MAX_ELEMENTS];
	u8 at[MAX_ELEMENTS]; /* byte offset in the register */
	unsigned int n;
};

static bool selected(const u8 *mask, unsigned int k, unsigned int esize)
{
	return mask[k * esize + esize - 1] & 0x80;
}

/* Neighbours that are selected are one access. */
static enum stop map_selected(struct env *e, struct pieces *p, const struct insn *i, u64 ea,
	const u8 *mask, unsigned int esize, unsigned int bytes, u8 need)
{
	unsigned int first, k, n = bytes / esize;

	e->no_ac = true; /* SDM 2C "VMASKMOV": no #AC for any mask */
	p->n = 0;
	for (k = 0; k < n; k++) {
		if (!selected(mask, k, esize))
			continue;
		first = k;
		while (k + 1 < n && selected(mask, k + 1, esize))
			k++;
		p->at[p->n] = first * esize;
		TRY(env_map(e, &p->a[p->n++], i->seg, zext(ea + first * esize, i->asz),
			(k + 1 - first) * esize, need));
	}
	return p->n ? env_begin(e) : STOP_OK;
}

static enum stop store_selected(struct env *e, const struct insn *i, u64 ea, const u8 *mask,
	const u8 *data, unsigned int esize, unsigned int bytes)
{
	struct pieces p;

	TRY(map_selected(e, &p, i, ea, mask, esize, bytes, MMU_W));
	for (unsigned int k = 0; k < p.n; k++) {
		memcpy(p.a[k].p, data + p.at[k], p.a[k].len);
		TRY(env_flush(e, &p.a[k]));
	}
	return STOP_OK;
}

/* ---- MASKMOVQ, MASKMOVDQU: bytes at DS:rDI, by quadwords (APM 2 8.2.18) ----------------------- */

enum stop exec_maskmovdqu(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 ea = zext(cpu->regs[GPR_RDI], i->asz);

	TRY(env_check_ac(e, i->seg, ea, 8, 8));
	return store_selected(e, i, ea, cpu->fpu.ymm[i->rm], cpu->fpu.ymm[i->reg], 1, 16);
}

/* MMX register n is physical register n; the image is in stack order. */
static const u8 *mmx(const struct cpu *cpu, unsigned int n)
{
	unsigned int top = fx_sw(cpu) >> 11 & 7;

	return cpu->fpu.fx + FX_ST + 16 * ((n - top) & 7);
}

enum stop exec_maskmovq(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 ea = zext(cpu->regs[GPR_RDI], i->asz);

	TRY(env_check_ac(e, i->seg, ea, 8, 8));
	TRY(store_selected(e, i, ea, mmx(cpu, i->rm & 7), mmx(cpu, i->reg & 7), 1, 8));
	fpu_enter_mmx(cpu);
	return STOP_OK;
}

/* ---- VMASKMOV -------------------------------------------------------------------------------- */

static unsigned int vmask_esize(const struct insn *i)
{
	return insn_op(i) == OP_VMASKMOVPD || insn_op(i) == OP_VPMASKMOVQ ? 8 : 4;
}

static unsigned int vector_bytes(const struct insn *i)
{
	return i->flags & INSN_L ? 32 : 16;
}

enum stop exec_vmaskmov(struct cpu *cpu, const struct insn *i, struct env *e)
{
	const u8 *mask = cpu->fpu.ymm[i->vvvv];
	u64 ea = insn_ea(cpu, i);
	struct pieces p;
	u8 v[32] = { 0 };

	if (insn_mem_acc(i) & ACC_W)
		return store_selected(e, i, ea, mask, cpu->fpu.ymm[i->reg], vmask_esize(i),
			vector_bytes(i));
	TRY(map_selected(e, &p, i, ea, mask, vmask_esize(i), vector_bytes(i), MMU_R));
	for (unsigned int k = 0; k < p.n; k++)
		memcpy(v + p.at[k], p.a[k].p, p.a[k].len);
	memcpy(cpu->fpu.ymm[i->reg], v, 32);
	return STOP_OK;
}

/* ---- gathers ---------------------------------------------------------------------------------- */

static u64 gather_ea(const struct cpu *cpu, const struct insn *i, unsigned int k, bool wide)
{
	u64 base = cpu->regs[i->rm];
	s32 index32;
	s64 index;

	memcpy(&index32, cpu->fpu.ymm[i->index] + 4 * k, 4);
	index = index32;
	if (wide)
		memcpy(&index, cpu->fpu.ymm[i->index] + 8 * k, 8);
	return zext(base + ((u64)index << i->scale) + (s64)i->disp, i->asz);
}

enum stop exec_vgather(struct cpu *cpu, const struct insn *i, struct env *e)
{
	const bool wide = i->opcode & 1; /* 91, 93: qword indices */
	const unsigned int esize = i->flags & INSN_W ? 8 : 4;
	const unsigned int n = vector_bytes(i) / MAX(esize, wide ? 8u : 4u);
	const u8 *mask = cpu->fpu.ymm[i->vvvv];
	struct access a[8];
	u8 v[32] = { 0 };

	if (i->reg == i->index || i->reg == i->vvvv || i->index == i->vvvv)
		return cpu_ud(cpu);
	e->no_ac = true; /* SDM 2C "VGATHERDPD": no alignment checks */
	memcpy(v, cpu->fpu.ymm[i->reg], n * esize);
	for (unsigned int k = 0; k < n; k++)
		if (selected(mask, k, esize))
			TRY(env_map(e, &a[k], i->seg, gather_ea(cpu, i, k, wide), esize, MMU_R));
	TRY(env_begin(e));
	for (unsigned int k = 0; k < n; k++)
		if (selected(mask, k, esize))
			memcpy(v + k * esize, a[k].p, esize);
	memcpy(cpu->fpu.ymm[i->reg], v, 32);
	memset(cpu->fpu.ymm[i->vvvv], 0, 32);
	return STOP_OK;
}
