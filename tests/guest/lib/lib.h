/* SPDX-License-Identifier: MIT */
/* What guests in C share: reports, services, descriptor tables, traps, CPL 3. */
#ifndef GUEST_LIB_H
#define GUEST_LIB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../abi.h"
#include "layout.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned long ulong;

enum {
	DE, DB, NMI, BP, OF, BR, UD, NM, DF, MP, TS, NP, SS, GP, PF, MF = 16, AC, MC, XM,
	USER_EXIT = 0x80,
};

#define CF	 0x1ul
#define TF	 0x100ul
#define IF	 0x200ul
#define DF_FLAG	 0x400ul
#define IOPL3	 0x3000ul
#define NT	 0x4000ul
#define RF	 0x10000ul
#define VM_FLAG	 0x20000ul
#define AC_FLAG	 0x40000ul
#define VIF	 0x80000ul
#define VIP	 0x100000ul

#define CR0_MP 2ul
#define CR0_EM 4ul
#define CR0_TS 8ul
#define CR0_NE 0x20ul
#define CR0_WP 0x10000ul
#define CR0_AM 0x40000ul
#define CR0_PG 0x80000000ul

#define CR4_VME	      0x1ul
#define CR4_TSD	      0x4ul
#define CR4_DE	      0x8ul
#define CR4_PSE	      0x10ul
#define CR4_PAE	      0x20ul
#define CR4_PGE	      0x80ul
#define CR4_OSFXSR    0x200ul
#define CR4_XMM	      0x400ul
#define CR4_UMIP      0x800ul
#define CR4_LA57      0x1000ul
#define CR4_FSGSBASE  0x10000ul
#define CR4_PCIDE     0x20000ul
#define CR4_OSXSAVE   0x40000ul
#define CR4_SMEP      0x100000ul
#define CR4_SMAP      0x200000ul
#define CR4_PKE	      0x400000ul
#define CR4_PKS	      0x1000000ul

void guest_main(void);

/* ---- reports */
void test_begin(const char *name);
void check(const char *name, u64 got, u64 want);
void guest_end(void) __attribute__((noreturn));
long service(unsigned int op, u64 a, u64 b, u64 c, u64 d);
long service_cpu(unsigned int op, unsigned int cpu, u64 a, u64 b);

/* ---- traps: all are logged; a fault goes on at trap_resume if that is not 0 */
struct frame {
#ifdef PROT32
	ulong di, si, bp, sp_, bx, dx, cx, ax;
	ulong ds, es, fs, gs;
#else
	ulong r15, r14, r13, r12, r11, r10, r9, r8, di, si, bp, bx, dx, cx, ax;
#endif
	ulong vector, error, ip, cs, flags, sp, ss;
};

struct trap {
	ulong vector, error, ip, cs, flags, sp, ss, cr2, dr6, frame, ax, cx, si, di;
};

#define TRAPS_MAX 256
extern struct trap traps[TRAPS_MAX];
extern volatile unsigned int nr_traps;
extern volatile ulong trap_resume, try_ip;
/* May change the frame; true: nothing else is to be done (it is logged before). */
extern bool (*trap_hook)(struct frame *f);

void traps_init(void); /* IDT, TSS with RSP0 (ESP0); once on each processor's tables */
void idt_set(unsigned int vector, ulong handler, u16 sel, u8 type, u8 dpl, u8 ist);
extern u64 idt[512];
extern u64 gdt[GDT_ENTRIES];
extern char trap_stubs[];
#ifdef PROT32
struct tss {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp,
		esi, edi, es, cs, ss, ds, fs, gs, ldt;
	u16 t, iomap;
	u8 bits[32 + 8193];
};
#else
struct tss {
	u32 pad0;
	u64 rsp[3], pad1, ist[7], pad2;
	u16 pad3, iomap;
	u8 bits[8193];
} __attribute__((packed));
#endif
extern struct tss tss;
void gdt_set(u16 sel, u64 desc);
/* base, limit (bytes - 1 or pages), access byte, flags nibble (G D L AVL) */
u64 gdt_desc(u32 base, u32 limit, u8 access, u8 flags);

/*
 * TRY("code", operands...), code beginning at try_ip: a fault in the code (or in what it calls) goes on behind it.
 * Operands are inputs, which the code must not change; RBX is free for it. The log is emptied before.
 */
#ifdef PROT32
#define TRY(code, ...)                                                                  \
	do {                                                                            \
		nr_traps = 0;                                                           \
		asm volatile("movl $999f, trap_resume\n\tmovl $998f, try_ip\n998:" code \
			     "\n999: movl $0, trap_resume" ::__VA_ARGS__           \
			     : "ebx", "memory", "cc");                                  \
	} while (0)
#else
#define TRY(code, ...)                                                                  \
	do {                                                                            \
		nr_traps = 0;                                                           \
		asm volatile("movq $999f, trap_resume\n\tmovq $998f, try_ip\n998:" code \
			     "\n999: movq $0, trap_resume" ::__VA_ARGS__           \
			     : "rbx", "memory", "cc");                                  \
	} while (0)
#endif

/* Exactly one trap, of this vector; and, with an error code, that. */
void want_trap(const char *name, ulong vector);
void want_error(const char *name, ulong vector, ulong error);
void want_pf(const char *name, ulong error, ulong cr2);
void want_none(const char *name);

/* ---- CPL 3 */
ulong user_enter(void (*fn)(void), ulong flags, ulong stack, ulong cs);
void user_return(ulong value) __attribute__((noreturn));
/* Runs fn at CPL 3 with these flags until it returns; a fault ends it too (result ~0). */
ulong user_run(ulong (*fn)(void), ulong flags);

/* ---- instructions */
#define READ_REG(name, reg)                                        \
	static inline ulong read_##name(void)                      \
	{                                                          \
		ulong v;                                           \
		asm volatile("mov %%" reg ", %0" : "=r"(v)::"memory"); \
		return v;                                          \
	}                                                          \
	static inline void write_##name(ulong v)                   \
	{                                                          \
		asm volatile("mov %0, %%" reg ::"r"(v) : "memory");  \
	}
READ_REG(cr0, "cr0")
READ_REG(cr2, "cr2")
READ_REG(cr3, "cr3")
READ_REG(cr4, "cr4")
READ_REG(dr0, "db0")
READ_REG(dr1, "db1")
READ_REG(dr2, "db2")
READ_REG(dr3, "db3")
READ_REG(dr6, "db6")
READ_REG(dr7, "db7")

static inline void outl(u16 port, u32 v)
{
	asm volatile("outl %0, %1" ::"a"(v), "Nd"(port) : "memory");
}
static inline void outb(u16 port, u8 v)
{
	asm volatile("outb %0, %1" ::"a"(v), "Nd"(port) : "memory");
}
static inline u8 inb(u16 port)
{
	u8 v;

	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}
static inline u64 rdmsr(u32 index)
{
	u32 lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(index) : "memory");
	return (u64)hi << 32 | lo;
}
static inline void wrmsr(u32 index, u64 v)
{
	asm volatile("wrmsr" ::"c"(index), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}
static inline void cpuid(u32 leaf, u32 sub, u32 out[4])
{
	asm volatile("cpuid"
		     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
		     : "a"(leaf), "c"(sub));
}
static inline ulong flags_get(void)
{
	ulong v;

	asm volatile("pushf; pop %0" : "=r"(v)::"memory");
	return v;
}
static inline void invlpg(ulong a)
{
	asm volatile("invlpg (%0)" ::"r"(a) : "memory");
}
static inline u64 rdtsc(void)
{
	u32 lo, hi;

	asm volatile("rdtsc" : "=a"(lo), "=d"(hi)::"memory");
	return (u64)hi << 32 | lo;
}
bool cpu_is_intel(void);
bool cpu_has(u32 leaf, u32 sub, unsigned int reg, unsigned int bit);
enum { EAX, EBX, ECX, EDX };

void *memcpy(void *d, const void *s, size_t n);
void *memset(void *d, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
void *page_alloc(void); /* a zeroed page out of the pool */

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define VAR(type, addr) (*(volatile type *)(ulong)(addr))

#endif
