/* SPDX-License-Identifier: MIT */
/*
 * How rows of insns.def are found: private to this folder. decode.c builds its maps from
 * these selectors; table_test.c checks them. The legend is at the top of insns.def.
 */
#ifndef ANYKVM_X86_ROWS_H
#define ANYKVM_X86_ROWS_H

#include "x86/insn.h"

/* Maps of the table, as its rows name them. */
enum row_map { MAP_ONE, MAP_L0F, MAP_L38, MAP_L3A, MAP_V0F = 5, MAP_V38, MAP_V3A };

/* struct row_sel.sel: the sel column */
#define SEL_PP(s)  ((s) & 15)	       /* set of mandatory prefixes; 0 = any */
#define SEL_MEM	   0x10
#define SEL_REG	   0x20
#define SEL_G(s)   (((s) >> 8) & 15)  /* 1 + ModRM.reg; 0 = any */
#define SEL_RM(s)  (((s) >> 12) & 15) /* 1 + ModRM.rm; 0 = any */
#define SEL_X8	   0x10000
#define SEL_X16	   0x20000
#define SEL_NEXT   0x40000

struct row_sel {
	u8 map; /* enum row_map */
	u8 opcode;
	u32 sel;
};

/* Parallel to insn_rows[]; element 0 belongs to the row of OP_INVALID. */
extern const struct row_sel insn_sels[];

/* Rows that lost their place to another row when the maps were built: must be 0. */
extern unsigned int insn_rows_clash;

#endif
