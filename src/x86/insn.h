/* SPDX-License-Identifier: MIT */
/*
 * One decoded instruction, and the table row that describes it. This is the only
 * currency between decoder, interpreter, exit-time emulator and translator.
 *
 * insns.def has one row per (map, opcode, mandatory prefix, /r) in the letters of
 * SDM 2D appendix A; ops.def one line per mnemonic. A row's `op` says which
 * mnemonic it is: handlers are found by op, never by row.
 */
#ifndef ANYKVM_INSN_H
#define ANYKVM_INSN_H

#include "base/base.h"

/* General registers in encoding order; GPR_ZERO and GPR_RIP are only ever a base or index. */
enum reg {
	GPR_RAX, GPR_RCX, GPR_RDX, GPR_RBX, GPR_RSP, GPR_RBP, GPR_RSI, GPR_RDI,
	GPR_R8, GPR_R9, GPR_R10, GPR_R11, GPR_R12, GPR_R13, GPR_R14, GPR_R15,
	GPR_ZERO, /* "no base", "no index": reads as 0 */
	GPR_RIP,  /* base of a RIP-relative operand: address of the NEXT instruction */
	NR_REGS,
};

/* Segment registers in encoding order (SDM 2A 2.1.1). */
enum seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, NR_SEGS };

enum insn_op {
#define OP(name) OP_##name,
#include "x86/ops.def"
#undef OP
	NR_OPS,
};

/* struct insn.flags */
#define INSN_MEM   BIT(0)  /* has a ModRM or moffs memory operand: seg, rm, index, scale, disp are set */
#define INSN_LOCK  BIT(1)  /* F0 was present (the decoder has checked that it is legal: else #UD) */
#define INSN_REP   BIT(2)  /* F3 was the last of F2/F3 and is not a mandatory prefix */
#define INSN_REPNE BIT(3)  /* F2, likewise */
#define INSN_REX   BIT(4)  /* any REX was in force: byte registers 4-7 are SPL..DIL, not AH..BH */
#define INSN_W	   BIT(5)  /* REX.W or VEX.W */
#define INSN_VEX   BIT(6)
#define INSN_L	   BIT(7)  /* VEX.L */
#define INSN_MOFFS BIT(8)  /* with INSN_MEM: address is (u64)imm, no base, no index */
#define INSN_EVEX  BIT(9)  /* length only; op is OP_UD_EVEX */
#define INSN_SEGPFX BIT(10) /* an explicit segment override was in force */
#define INSN_PP_SHIFT 12   /* mandatory prefix, 2 bits: 0 none, 1 = 66, 2 = F3, 3 = F2 */
#define INSN_PP(i) (((i)->flags >> INSN_PP_SHIFT) & 3)
#define INSN_66	   BIT(14) /* 66 was present at all */

struct insn {
	u16 row;     /* index into insn_rows[] */
	u16 flags;   /* INSN_* */
	u8 len;	     /* bytes, 1..15 */
	u8 osz;	     /* effective operand size 2, 4, 8 (after default-64 and forced-64 rules) */
	u8 asz;	     /* effective address size 2, 4, 8 */
	u8 seg;	     /* enum seg of the memory operand, override and SS default applied; in 64-bit
			mode only FS/GS overrides count, all else gives DS or SS */
	u8 opcode;   /* last opcode byte */
	u8 map;	     /* 0 one-byte, 1 = 0F, 2 = 0F38, 3 = 0F3A */
	u8 reg;	     /* ModRM.reg | REX.R<<3; or opcode low bits | REX.B<<3 for Z operands */
	u8 rm;	     /* register operand, or base register of the memory operand (GPR_ZERO, GPR_RIP) */
	u8 index;    /* index register or GPR_ZERO (vector register for VSIB) */
	u8 scale;    /* shift 0..3 */
	u8 vvvv;     /* VEX second source register */
	u8 modrm;    /* raw ModRM byte (0 if none) */
	s32 disp;
	u32 imm2;    /* ENTER's level, far pointer's selector, is4 register byte in bits 7:4 */
	s64 imm;     /* sign- or zero-extended as the instruction uses it; branch displacement;
			far pointer's offset; moffs address */
};
_Static_assert(sizeof(struct insn) == 32, "struct insn must stay small");

enum insn_class {
	CLASS_N, /* native: the host instruction is the semantics */
	CLASS_C, /* a C handler (the sensitive, the complex and all that touches RIP, RSP or strings) */
	CLASS_U, /* decodes, but is not implemented: see DESIGN.md 9 */
	CLASS_UD, /* always #UD (UD0/UD1/UD2, invalid rows that still have a length) */
};

enum insn_mode {
	MODE_16, /* real mode, V86, 16-bit protected: CS.D = 0 */
	MODE_32, /* CS.D = 1, not 64-bit */
	MODE_64,
};

enum decode_result {
	DECODE_OK,   /* *out is complete */
	DECODE_UD,   /* #UD; *out has the length that was looked at and op OP_INVALID */
	DECODE_MORE, /* valid so far, but ends after n bytes: nothing is written to *out */
	DECODE_LONG, /* longer than 15 bytes: #GP(0) */
};

/*
 * Decode the instruction at p, of which n bytes are available. Total: any byte string
 * gives one of the four results. Does not look at CPUID bits, CPL, CR0: that is insn_row's
 * data and the processor's business. SDM 2A chapter 2.
 */
MUSTCHECK enum decode_result insn_decode(
	struct insn *out, enum insn_mode mode, const u8 *p, unsigned int n);

/* How an operand is touched. */
#define ACC_R 1
#define ACC_W 2

/* Operand kinds; the letters of SDM 2D A.2.1 and A.2.2. */
enum operand_kind {
	OPND_NONE,
	OPND_E,	  /* ModRM.rm: general register or memory */
	OPND_G,	  /* ModRM.reg: general register */
	OPND_Z,	  /* register in the opcode's low 3 bits (insn.reg) */
	OPND_M,	  /* ModRM.rm: memory only */
	OPND_R,	  /* ModRM.rm: general register only */
	OPND_B,	  /* VEX.vvvv: general register */
	OPND_I,	  /* immediate (insn.imm) */
	OPND_J,	  /* relative branch (insn.imm) */
	OPND_A,	  /* far pointer (insn.imm2:insn.imm) */
	OPND_O,	  /* moffs */
	OPND_S,	  /* ModRM.reg: segment register */
	OPND_C,	  /* ModRM.reg: control register */
	OPND_D,	  /* ModRM.reg: debug register */
	OPND_X,	  /* DS:rSI */
	OPND_Y,	  /* ES:rDI */
	OPND_F,	  /* flags register */
	OPND_V,	  /* ModRM.reg: vector register */
	OPND_W,	  /* ModRM.rm: vector register or memory */
	OPND_U,	  /* ModRM.rm: vector register only */
	OPND_H,	  /* VEX.vvvv: vector register */
	OPND_L,	  /* imm8[7:4]: vector register (insn.imm2) */
	OPND_P,	  /* ModRM.reg: MMX register */
	OPND_Q,	  /* ModRM.rm: MMX register or memory */
	OPND_N,	  /* ModRM.rm: MMX register only */
	OPND_ST,  /* x87 stack register (ModRM.rm) */
	OPND_FIX, /* a fixed general register: number in `fixed` */
	OPND_FIXSEG, /* a fixed segment register */
	OPND_ONE, /* the constant 1 */
	OPND_VSIB, /* gather: memory with vector index */
};

struct operand {
	u8 kind;  /* enum operand_kind */
	u8 size;  /* enum operand_size */
	u8 acc;	  /* ACC_R | ACC_W */
	u8 fixed; /* register number for OPND_FIX and OPND_FIXSEG; OPND_I_SIGNED */
};

#define OPND_I_SIGNED 1 /* an OPND_I of one byte that is sign-extended */

enum operand_size {
	SZ_NONE,
	SZ_b, SZ_w, SZ_d, SZ_q, SZ_dq, SZ_qq, /* 1 2 4 8 16 32 bytes */
	SZ_v,  /* operand size: 2, 4, 8 */
	SZ_z,  /* 2 or 4 */
	SZ_y,  /* 4, or 8 with REX.W / VEX.W */
	SZ_x,  /* 16, or 32 with VEX.L */
	SZ_hx, /* half of x: 8 or 16 */
	SZ_qx, /* quarter of x: 4 or 8 */
	SZ_ex, /* eighth of x: 2 or 4 */
	SZ_p,  /* far pointer: 4, 6 or 10 bytes (2 + operand size) */
	SZ_s,  /* pseudo-descriptor: 6, or 10 in 64-bit mode */
	SZ_t,  /* 10 bytes (x87 m80) */
	SZ_a,  /* BOUND: two of operand size */
	SZ_env, /* FLDENV/FSTENV: 14 or 28 */
	SZ_fsave, /* FSAVE/FRSTOR: 94 or 108 */
	SZ_fx, /* FXSAVE area: 512 */
	SZ_xs, /* XSAVE area: size by XCR0, not known to the decoder */
	SZ_0,  /* address only, no data: LEA, INVLPG, prefetch, CLFLUSH */
	SZ_qddup, /* MOVDDUP: 8, or 32 with VEX.L */
};

/* Flag bits of row->fl_*: the lahf/seto image's order is the processor's business; these are EFLAGS bits. */
#define FL_CF 0x001u
#define FL_PF 0x004u
#define FL_AF 0x010u
#define FL_ZF 0x040u
#define FL_SF 0x080u
#define FL_OF 0x800u
#define FL_ALL (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

/* row->rules: all that the decoder enforces (gives #UD) or the processor must check */
#define RULE_NO64   BIT(0)  /* #UD in 64-bit mode (decoder) */
#define RULE_ONLY64 BIT(1)  /* #UD outside 64-bit mode (decoder) */
#define RULE_LOCK   BIT(2)  /* LOCK allowed with a memory destination (decoder) */
#define RULE_D64    BIT(3)  /* default operand size 64 in 64-bit mode (decoder) */
#define RULE_F64    BIT(4)  /* operand size forced to 64 in 64-bit mode (decoder) */
#define RULE_CPL0   BIT(5)  /* #GP(0) if CPL > 0 (processor; before operand access) */
#define RULE_PROT   BIT(6)  /* #UD in real mode and V86 (processor) */
#define RULE_ALIGN  BIT(7)  /* memory operand must be aligned to its size: #GP(0) (legacy SSE, VMOVAPS...) */
#define RULE_SSE    BIT(8)  /* XMM state: #UD if CR0.EM or !CR4.OSFXSR, #NM if CR0.TS */
#define RULE_AVX    BIT(9)  /* VEX: #UD unless protected mode, CR4.OSXSAVE and XCR0[2:1] = 3; #NM if TS */
#define RULE_MMX    BIT(10) /* #UD if CR0.EM, #NM if TS, pending x87 error #MF; enters MMX state */
#define RULE_X87    BIT(11) /* #NM if CR0.EM or TS; #MF if one is pending and the instruction waits */
#define RULE_MXCSR  BIT(12) /* reads MXCSR and may raise its exceptions (#XM) */
#define RULE_X87NW  BIT(13) /* with RULE_X87: does not wait (FNINIT, FNSTSW, ...) */
#define RULE_REP    BIT(14) /* string instruction: REP/REPNE are meaningful */
#define RULE_VL0    BIT(15) /* VEX.L must be 0 (decoder) */
#define RULE_VL1    BIT(16) /* VEX.L must be 1 (decoder) */
#define RULE_NOVVVV BIT(17) /* VEX.vvvv must be 1111b (decoder) */
#define RULE_W0	    BIT(18) /* VEX.W must be 0 (decoder) */
#define RULE_W1	    BIT(19) /* VEX.W must be 1 (decoder) */
#define RULE_BRANCH BIT(20) /* may change RIP other than to the next instruction: ends a translation block */
#define RULE_ENDTB  BIT(21) /* ends a translation block for another reason (mode, paging, interrupt flag) */
#define RULE_UNDEFDST BIT(22) /* destination is left undefined in some cases (BSF of 0): see the test's mask */
#define RULE_AVX2L  BIT(23) /* with VEX.L it needs CPUID's AVX2 instead of row->cpuf */
#define RULE_PARTS  BIT(24) /* many accesses, whose order the manuals leave open: which of several faults
			       is found, and what has been stored or loaded before it (for tests only) */

/* CPUID feature that the instruction needs; 0 = always there. */
enum insn_cpuid {
	CPUF_NONE,
#define CPUF(name) CPUF_##name,
#include "x86/cpuf.def"
#undef CPUF
	NR_CPUF,
};

struct insn_row {
	const char *name; /* mnemonic in lower case, for messages */
	u16 op;		  /* enum insn_op */
	u8 cls;		  /* enum insn_class */
	u8 cpuf;	  /* enum insn_cpuid */
	struct operand opnd[4];
	u32 rules;	  /* RULE_* */
	u16 fl_read, fl_written, fl_undef; /* FL_*; undefined flags are also in fl_written */
	u16 gpr_read, gpr_written; /* implicit general registers, bit n = register n */
	u16 xmm_read, xmm_written; /* implicit vector registers (XMM0 of BLENDVPS, ...) */
};

extern const struct insn_row insn_rows[];
extern const unsigned int nr_insn_rows;

static inline const struct insn_row *insn_row(const struct insn *i)
{
	return &insn_rows[i->row];
}
static inline enum insn_op insn_op(const struct insn *i)
{
	return (enum insn_op)insn_rows[i->row].op;
}

/* Bytes of operand k of this instruction; 0 for SZ_0, SZ_xs and absent operands. */
unsigned int insn_special_size(const struct insn *i, unsigned int size); /* size: all but SZ_v */
static inline unsigned int insn_opnd_size(const struct insn *i, unsigned int k)
{
	unsigned int size = insn_row(i)->opnd[k].size;

	return size == SZ_v ? i->osz : insn_special_size(i, size);
}

/* Index of the operand that is the explicit memory operand, or -1 (also for register forms). */
int insn_mem_opnd(const struct insn *i);

/* Bytes and access (ACC_*) of the explicit memory operand; 0 if there is none. */
unsigned int insn_mem_size(const struct insn *i);
unsigned int insn_mem_acc(const struct insn *i);

/* "add dword [rbx+0x10], eax" for messages; always terminated; returns buf. Not a disassembler. */
char *insn_text(const struct insn *i, char *buf, size_t size);

#endif
