// SPDX-License-Identifier: MIT
/*
 * What a decoded instruction does with its operands: sizes in bytes, and which of them is
 * the explicit memory operand. SDM 2D A.2.2 has the size letters.
 */
#include "x86/insn.h"

unsigned int insn_special_size(const struct insn *i, unsigned int size)
{
	static const u8 fixed[] = {
		[SZ_b] = 1, [SZ_w] = 2, [SZ_d] = 4, [SZ_q] = 8, [SZ_dq] = 16, [SZ_qq] = 32,
		[SZ_t] = 10,
	};
	unsigned int x = i->flags & INSN_L ? 32 : 16;

	switch (size) {
	case SZ_z:
		return MIN(i->osz, 4);
	case SZ_y:
		return i->osz == 8 ? 8 : 4;
	case SZ_x:
		return x;
	case SZ_hx:
		return x / 2;
	case SZ_qx:
		return x / 4;
	case SZ_ex:
		return x / 8;
	case SZ_p:
		return 2 + i->osz;
	case SZ_s: /* LGDT and its kin: osz is 8 in 64-bit mode only */
		return i->osz == 8 ? 10 : 6;
	case SZ_a:
		return 2 * i->osz;
	case SZ_env:
		return i->osz == 2 ? 14 : 28;
	case SZ_fsave:
		return i->osz == 2 ? 94 : 108;
	case SZ_fx:
		return 512;
	case SZ_qddup:
		return i->flags & INSN_L ? 32 : 8;
	default:
		return size < ARRAY_SIZE(fixed) ? fixed[size] : 0;
	}
}

int insn_mem_opnd(const struct insn *i)
{
	const struct insn_row *row = insn_row(i);
	unsigned int k;

	if (!(i->flags & INSN_MEM))
		return -1;
	for (k = 0; k < ARRAY_SIZE(row->opnd); k++) {
		switch (row->opnd[k].kind) {
		case OPND_E:
		case OPND_M:
		case OPND_O:
		case OPND_W:
		case OPND_Q:
		case OPND_VSIB:
			return k;
		}
	}
	return -1;
}

unsigned int insn_mem_size(const struct insn *i)
{
	int k = insn_mem_opnd(i);

	return k < 0 ? 0 : insn_opnd_size(i, k);
}

unsigned int insn_mem_acc(const struct insn *i)
{
	int k = insn_mem_opnd(i);

	return k < 0 ? 0 : insn_row(i)->opnd[k].acc;
}
