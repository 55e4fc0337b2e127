// SPDX-License-Identifier: MIT
/*
 * A decoded instruction as one line of text, for messages and tests. Not a disassembler: one
 * name per row (cbw for cwde too), branch targets stay displacements.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "x86/insn.h"

/* snprintf's buffer, filled piece by piece; what does not fit is cut off. */
struct text {
	char *buf;
	size_t size, len;
};

PRINTF(2, 3) static void add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->buf + t->len, t->size - t->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->len = MIN(t->len + n, t->size - 1);
}

static const char *const seg_names[8] = {"es", "cs", "ss", "ds", "fs", "gs", "?", "?"};

static void add_gpr(struct text *t, unsigned int reg, unsigned int size, bool rex)
{
	static const char *const names[8] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
	static const char *const low[8] = {"al", "cl", "dl", "bl", "ah", "ch", "dh", "bh"};

	if (reg >= 16)
		add(t, reg == GPR_RIP ? (size == 4 ? "eip" : "rip") : "0");
	else if (reg >= 8)
		add(t, "r%u%s", reg,
			size == 1 ? "b" : size == 2 ? "w" : size == 4 ? "d" : "");
	else if (size == 1 && (reg < 4 || !rex))
		add(t, "%s", low[reg]);
	else
		add(t, "%s%s%s", size == 8 ? "r" : size == 4 ? "e" : "", names[reg],
			size == 1 ? "l" : "");
}

static void add_vec(struct text *t, unsigned int reg, unsigned int size)
{
	add(t, "%cmm%u", size == 32 ? 'y' : 'x', reg);
}

static void add_hex(struct text *t, s64 v, bool plus)
{
	if (v < 0)
		add(t, "-0x%llx", -(unsigned long long)v);
	else
		add(t, "%s0x%llx", plus ? "+" : "", (unsigned long long)v);
}

static void add_mem(struct text *t, const struct insn *i, unsigned int size, bool vsib)
{
	static const char *const words[33] = {
		[1] = "byte ", [2] = "word ", [4] = "dword ", [6] = "fword ", [8] = "qword ",
		[10] = "tbyte ", [16] = "xmmword ", [32] = "ymmword ",
	};
	bool first = true;

	add(t, "%s", size < ARRAY_SIZE(words) && words[size] ? words[size] : "");
	if (i->flags & INSN_SEGPFX)
		add(t, "%s:", seg_names[i->seg & 7]);
	add(t, "[");
	if (i->flags & INSN_MOFFS) {
		add_hex(t, i->imm, false);
		add(t, "]");
		return;
	}
	if (i->rm != GPR_ZERO) {
		add_gpr(t, i->rm, i->asz, true);
		first = false;
	}
	if (i->index != GPR_ZERO) {
		add(t, "%s", first ? "" : "+");
		if (vsib)
			add_vec(t, i->index, i->flags & INSN_L ? 32 : 16);
		else
			add_gpr(t, i->index, i->asz, true);
		if (i->scale)
			add(t, "*%u", 1u << i->scale);
		first = false;
	}
	if (i->disp || first)
		add_hex(t, i->disp, !first);
	add(t, "]");
}

/* Operands that are a register or memory by ModRM.mod. */
static void add_rm(struct text *t, const struct insn *i, const struct operand *o,
	unsigned int size)
{
	if (i->flags & INSN_MEM)
		add_mem(t, i, size, o->kind == OPND_VSIB);
	else if (o->kind == OPND_Q || o->kind == OPND_N)
		add(t, "mm%u", i->rm);
	else if (o->kind == OPND_W || o->kind == OPND_U)
		add_vec(t, i->rm, size);
	else
		add_gpr(t, i->rm, size, i->flags & INSN_REX);
}

static void add_operand(struct text *t, const struct insn *i, unsigned int k)
{
	const struct operand *o = &insn_row(i)->opnd[k];
	unsigned int size = insn_opnd_size(i, k);
	bool rex = i->flags & INSN_REX;

	switch (o->kind) {
	case OPND_G:
	case OPND_Z:
		add_gpr(t, i->reg, size, rex);
		break;
	case OPND_B:
		add_gpr(t, i->vvvv, size, rex);
		break;
	case OPND_FIX:
		add_gpr(t, o->fixed, size, rex);
		break;
	case OPND_I:
		add_hex(t, k && insn_op(i) == OP_ENTER ? (s64)i->imm2 : i->imm, false);
		break;
	case OPND_J:
		add(t, "$");
		add_hex(t, i->imm, true);
		break;
	case OPND_A:
		add(t, "0x%x:0x%llx", i->imm2, (unsigned long long)i->imm);
		break;
	case OPND_S:
		add(t, "%s", seg_names[i->reg & 7]);
		break;
	case OPND_FIXSEG:
		add(t, "%s", seg_names[o->fixed & 7]);
		break;
	case OPND_C:
		add(t, "cr%u", i->reg);
		break;
	case OPND_D:
		add(t, "dr%u", i->reg);
		break;
	case OPND_X:
		add(t, "%s:[", seg_names[i->seg & 7]);
		add_gpr(t, GPR_RSI, i->asz, rex);
		add(t, "]");
		break;
	case OPND_Y:
		add(t, "es:[");
		add_gpr(t, GPR_RDI, i->asz, rex);
		add(t, "]");
		break;
	case OPND_F:
		add(t, "flags");
		break;
	case OPND_V:
		add_vec(t, i->reg, size);
		break;
	case OPND_H:
		add_vec(t, i->vvvv, size);
		break;
	case OPND_L:
		add_vec(t, i->imm2 >> 4, size);
		break;
	case OPND_P:
		add(t, "mm%u", i->reg);
		break;
	case OPND_ST:
		add(t, "st%u", i->rm);
		break;
	case OPND_ONE:
		add(t, "1");
		break;
	default:
		add_rm(t, i, o, size);
	}
}

/* Mnemonic; the condition of JCC, SETCC and CMOVCC is the opcode's low nibble. */
static void add_name(struct text *t, const struct insn *i)
{
	static const char *const cc[16] = {"o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns",
		"p", "np", "l", "ge", "le", "g"};
	const char *c = cc[i->opcode & 15];

	switch (insn_op(i)) {
	case OP_JCC:
		add(t, "j%s", c);
		break;
	case OP_SETCC:
		add(t, "set%s", c);
		break;
	case OP_CMOVCC:
		add(t, "cmov%s", c);
		break;
	case OP_MOV_SREG:
	case OP_MOV_CR:
	case OP_MOV_DR:
		add(t, "mov");
		break;
	case OP_JMP_FAR:
	case OP_CALL_FAR:
	case OP_RET_FAR:
		add(t, "%.*s far", (int)strcspn(insn_row(i)->name, "_"), insn_row(i)->name);
		break;
	default:
		add(t, "%s", insn_row(i)->name);
	}
}

char *insn_text(const struct insn *i, char *buf, size_t size)
{
	struct text t = {buf, size, 0};
	unsigned int k;

	if (!size)
		return buf;
	buf[0] = 0;
	if (i->flags & INSN_LOCK)
		add(&t, "lock ");
	if ((insn_row(i)->rules & RULE_REP) && (i->flags & (INSN_REP | INSN_REPNE)))
		add(&t, i->flags & INSN_REP ? "rep " : "repne ");
	add_name(&t, i);
	for (k = 0; k < ARRAY_SIZE(insn_row(i)->opnd); k++) {
		if (insn_row(i)->opnd[k].kind == OPND_NONE)
			break;
		add(&t, k ? ", " : " ");
		add_operand(&t, i, k);
	}
	return buf;
}
