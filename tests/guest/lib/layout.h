/* SPDX-License-Identifier: MIT */
/* Where things are in a guest's memory: linear and physical addresses are the same. */
#ifndef GUEST_LAYOUT_H
#define GUEST_LAYOUT_H

#define KERNEL_CS   0x08
#define KERNEL_DS   0x10
#define KERNEL_CS32 0x18
#define USER_CS32   0x23
#define USER_DS	    0x2b
#define USER_CS	    0x33
#define CODE16	    0x38
#define DATA16	    0x40
#define TSS_SEL	    0x48 /* two entries */
#define SPARE_SEL   0x58 /* and on: for tests */
#define GDT_ENTRIES 64

#define PML4	    0x100000 /* the start's tables: six pages */
#define POOL	    0x110000 /* pages for tests' tables, up to STACKS */
#define STACK_TOP   0x200000
#define USER_STACK  0x1c0000
#define AP_STACK    0x1d0000 /* of the second processor */
#define IST_STACK   0x1b0000 /* one stack of 4096 bytes for each IST entry below it */
#define SCRATCH	    0x400000 /* data of tests */

#endif
