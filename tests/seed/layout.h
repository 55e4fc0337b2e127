/* SPDX-License-Identifier: MIT */
/*
 * Where the seed's guests have their pages: the notation of SEED 7.2, all below 4 GiB, so that
 * 32-bit code reaches them too. For harness.c (the processor alone) and vmguest.c (a whole VM).
 */
#ifndef ANYKVM_SEED_LAYOUT_H
#define ANYKVM_SEED_LAYOUT_H

#include <stdint.h>

#define M   "0x40001000" /* MMIO; the page after it too, at another GPA */
#define N   "0x40005000" /* MMIO */
#define MR  "0x40007000" /* MMIO, then RAM */
#define X   "0x40009000" /* RAM, then MMIO */
#define S   "0x4000c000" /* RAM: stack */
#define R   "0x40010000" /* RAM: data, two pages */
#define ROM "0x40014000" /* read-only slot */
#define L   "0x40016000" /* in-process device: the LAPIC where there is one; then not present */
#define MN  "0x40018000" /* MMIO, then not present */
#define RO  "0x4001b000" /* MMIO that the guest maps read-only */
#define RN  "0x4001d000" /* RAM, then not present */
#define UM  "0x40020000" /* MMIO that the guest maps for users */
#define IOA "0x40022000" /* in-process device: the IOAPIC where there is one */
#define US  "0x40024000" /* RAM for users: stack */
#define LIN_BASE 0x40000000ul

#define G_M   0xd0000000ul
#define G_M1  0xd0010000ul
#define G_N   0xd0020000ul
#define G_MN  0xd0050000ul
#define G_ROM 0xd0060000ul
#define G_UM  0xd0080000ul
#define G_L   0xfee00000ul
#define G_IOA 0xfec00000ul

#define TARGET "0x10100" /* byte 0x100 of the program, where END puts a HLT */
#define END "\n.skip 0x100 - (. - 77b), 0xf4\nhlt\n"

/* Low memory is mapped to itself. */
#define PD_HIGH 0x5000ul /* page directory of 0x40000000.. */
#define PT_HIGH 0x6000ul /* page table of the pages above */
#define GDT	0x7000ul
#define IDT	0x8000ul
#define TSS	0x9000ul
#define TRAPS	0xa000ul /* handlers of all exceptions, 16 bytes apart; they stop the program */
#define IST	0x90000ul
#define DEV_GPA  0xd0000000ul
#define DEV_SIZE (1ul << 20)

struct seed_page {
	uint64_t linear, gpa, flags;
};

#define SEED_P 1ul
#define SEED_W 2ul
#define SEED_U 4ul

static const struct seed_page seed_pages[] = {
	{0x40001000, G_M, SEED_P | SEED_W},	   {0x40002000, G_M1, SEED_P | SEED_W},
	{0x40005000, G_N, SEED_P | SEED_W},
	{0x40007000, 0xd0030000, SEED_P | SEED_W}, {0x40008000, 0x1a0000, SEED_P | SEED_W},
	{0x40009000, 0x1a2000, SEED_P | SEED_W},   {0x4000a000, 0xd0040000, SEED_P | SEED_W},
	{0x4000c000, 0x180000, SEED_P | SEED_W},   {0x4000d000, 0x184000, SEED_P | SEED_W},
	{0x40010000, 0x190000, SEED_P | SEED_W},   {0x40011000, 0x194000, SEED_P | SEED_W},
	{0x40014000, G_ROM, SEED_P | SEED_W},
	{0x40016000, G_L, SEED_P | SEED_W},
	{0x40018000, G_MN, SEED_P | SEED_W},
	{0x4001b000, 0xd0070000, SEED_P},
	{0x4001d000, 0x198000, SEED_P | SEED_W},
	{0x40020000, G_UM, SEED_P | SEED_W | SEED_U},
	{0x40022000, G_IOA, SEED_P | SEED_W},
	{0x40024000, 0x19c000, SEED_P | SEED_W | SEED_U},
};
#define NR_SEED_PAGES (sizeof(seed_pages) / sizeof(seed_pages[0]))

static inline const struct seed_page *seed_page_of(uint64_t linear)
{
	for (unsigned int k = 0; k < NR_SEED_PAGES; k++)
		if (seed_pages[k].linear == (linear & ~0xfffull))
			return &seed_pages[k];
	return 0;
}

/* The bytes that devices and RAM hold at the start. */
static inline uint8_t seed_pattern(uint64_t k)
{
	return (k * 0x9e3779b97f4a7c15ul) >> 56;
}

#endif
