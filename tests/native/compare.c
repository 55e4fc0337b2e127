// SPDX-License-Identifier: MIT
/*
 * Two outcomes of one case: equal, equal but for what the manuals leave undefined, or not.
 */
#include "compare.h"

#include "x86/bits.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Did the instruction retire? It ends behind its last byte, or has branched elsewhere. */
bool outcome_retired(const struct native_case *c, const struct outcome *o)
{
	return o->s.rip != c->in.rip;
}

/* From here on Linux reports every fault as one of a present page (KASLR). */
#define TASK_SIZE_MAX 0x7ffffffff000ull

static u32 fault_error(const struct outcome *o)
{
	return o->vector == EXC_PF && o->cr2 >= TASK_SIZE_MAX ? o->error | 1 : o->error;
}

/* A null selector's RPL is lost when the kernel returns to the signal handler (APM 3 IRET). */
static u16 selector(u16 v)
{
	return v < 4 ? 0 : v;
}

/*
 * The manuals leave the order of a PARTS row's accesses open (insn.h): where it stopped, in
 * memory and vector registers, what it had done by then may differ, and so may the fault found.
 */
static bool open_order(const struct native_case *c, const struct outcome *a, const struct outcome *b)
{
	return c->decodes && (insn_rows[c->row].rules & RULE_PARTS) && !outcome_retired(c, a) &&
		!outcome_retired(c, b);
}

/*
 * SDM 3A 6.5: a POPA whose stack ends in a fault can be started again, but the general registers
 * that it had read by then may be changed. Ours never are.
 */
static bool registers_open(const struct native_case *c, const struct outcome *host)
{
	return c->decodes && insn_rows[c->row].op == OP_POPA && !outcome_retired(c, host);
}

static bool is_access_fault(u16 v)
{
	return v == EXC_PF || v == EXC_GP || v == EXC_SS || v == EXC_NP || v == EXC_AC;
}

/* MXCSR_MASK in an FXSAVE image: bit 17, misaligned SSE, is not part of our processor. */
static int mxcsr_mask_offset(const struct native_case *c)
{
	u8 size = insn_rows[c->row].opnd[0].size;

	return c->decodes && (size == SZ_fx || size == SZ_xs) && c->nr_pokes ? c->pokes[0].off + 28 : -1;
}

struct diff {
	char *buf;
	size_t size, len;
	unsigned int n;
};

PRINTF(2, 3) static void note(struct diff *d, const char *fmt, ...)
{
	va_list ap;
	int n;

	d->n++;
	if (!d->buf)
		return;
	va_start(ap, fmt);
	n = vsnprintf(d->buf + d->len, d->size - d->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		d->len = MIN(d->len + n, d->size - 1);
}

static void number(struct diff *d, const char *name, u64 a, u64 b)
{
	if (a != b)
		note(d, "    %-8s host %016llx  ours %016llx\n", name, (unsigned long long)a,
			(unsigned long long)b);
}

static void block(struct diff *d, const char *name, unsigned int k, const u8 *a, const u8 *b,
	unsigned int n)
{
	char s[2][2 * LINE + 1];

	if (!memcmp(a, b, n))
		return;
	for (unsigned int j = 0; j < n; j++) {
		snprintf(s[0] + 2 * j, 3, "%02x", a[j]);
		snprintf(s[1] + 2 * j, 3, "%02x", b[j]);
	}
	note(d, "    %s%-4u host %s\n    %*s ours %s\n", name, k, s[0], (int)strlen(name) + 4, "", s[1]);
}

/*
 * With overflow unmasked the stored flags say whether the result was inexact even with an
 * unbounded exponent (SDM 1 8.5.4, 11.5.2.4); ours say whether the masked result was.
 * DIFFERS: native_run.c.
 */
static u32 mxcsr_flags(const struct native_case *c, const struct outcome *o)
{
	bool overflow = o->vector == EXC_XM && (o->s.mxcsr & 8) && !(c->in.mxcsr & 0x400);

	return overflow ? o->s.mxcsr & ~0x20u : o->s.mxcsr;
}

/* AMD enters the MMX state before it finds that the operand faults; ours has done nothing then. */
static bool x87_open(const struct native_case *c, const struct outcome *a)
{
	return c->decodes && (insn_rows[c->row].rules & RULE_MMX) && !outcome_retired(c, a);
}

static void compare_x87(struct diff *d, const struct mstate *a, const struct mstate *b)
{
	block(d, "x87 cw", 0, a->fx, b->fx, 6);
	/* AMD keeps the pointers only while an unmasked exception is pending (APM 2 11.4.4, FXSAVE) */
	if (a->fx[2] & 0x80) { /* of FIP and FDP not all hosts keep what is not canonical */
		block(d, "x87 fop, fip", 0, a->fx + 6, b->fx + 6, 8);
		block(d, "x87 fdp", 0, a->fx + 16, b->fx + 16, 6);
	}
	for (unsigned int k = 0; k < 8; k++)
		block(d, "st", k, a->fx + 32 + 16 * k, b->fx + 32 + 16 * k, 16);
}

static void compare_registers(struct diff *d, const struct mstate *a, const struct mstate *b, bool gprs)
{
	static const char *const names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
		"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"};

	for (unsigned int k = 0; k < 16 && gprs; k++)
		if (k != GPR_RSP)
			number(d, names[k], a->gpr[k], b->gpr[k]);
	number(d, "rip", a->rip, b->rip);
	number(d, "cs", a->cs, b->cs);
	number(d, "ss", a->ss, b->ss);
	number(d, "ds", selector(a->ds), selector(b->ds));
	number(d, "es", selector(a->es), selector(b->es));
	number(d, "fs", selector(a->fs), selector(b->fs));
	number(d, "gs", selector(a->gs), selector(b->gs));
	number(d, "fs base", a->fs_base, b->fs_base);
	number(d, "gs base", a->gs_base, b->gs_base);
}

static void compare_line(struct diff *d, unsigned int line, const u8 *a, const u8 *b, int ignore)
{
	u8 copy[LINE];

	memcpy(copy, b, LINE);
	for (int k = ignore; ignore >= 0 && k < ignore + 4; k++)
		if (k / LINE == (int)line)
			copy[k % LINE] = a[k % LINE];
	block(d, "mem ", line * LINE, a, copy, LINE);
}

/* ignore: offset of four bytes that may differ, or -1 */
static void compare_memory(struct diff *d, const struct outcome *a, const struct outcome *b, int ignore)
{
	unsigned int i = 0, j = 0, na = MIN(a->nr_lines, MAX_LINES), nb = MIN(b->nr_lines, MAX_LINES);

	while (i < na || j < nb) {
		unsigned int la = i < na ? a->lines[i].n : NR_LINES;
		unsigned int lb = j < nb ? b->lines[j].n : NR_LINES, l = MIN(la, lb);
		const u8 *p = la == l ? a->lines[i++].data : pristine + l * LINE;
		const u8 *q = lb == l ? b->lines[j++].data : pristine + l * LINE;

		compare_line(d, l, p, q, ignore);
	}
	if (a->nr_lines > MAX_LINES || b->nr_lines > MAX_LINES)
		number(d, "memory", a->hash, b->hash);
}

/* In compatibility mode the upper half of RSP is undefined (SDM 1 3.4.1.1). */
static u64 stack_pointer(const struct outcome *o)
{
	return o->s.cs == SEL_CODE64 ? o->s.gpr[GPR_RSP] : (u32)o->s.gpr[GPR_RSP];
}

/* An open order's faults: any two access faults; CR2 anywhere in the operand, if both have one. */
static void compare_exception(struct diff *d, const struct outcome *a, const struct outcome *b, bool open,
	bool anywhere)
{
	if (open && is_access_fault(a->vector) && is_access_fault(b->vector)) {
		if (!anywhere && a->vector == EXC_PF && b->vector == EXC_PF && (u32)(a->cr2 - b->cr2 + 4096) >= 8192)
			number(d, "cr2", a->cr2, b->cr2);
		return;
	}
	number(d, "vector", a->vector, b->vector);
	number(d, "error", fault_error(a), fault_error(b));
	if (a->vector == EXC_PF && b->vector == EXC_PF)
		number(d, "cr2", a->cr2, b->cr2);
}

enum verdict compare(const struct native_case *c, const struct outcome *host,
	const struct outcome *ours, char *buf, size_t size)
{
	const struct insn_row *row = &insn_rows[c->row];
	struct diff d = {.buf = buf, .size = size};
	u64 flags = host->s.rflags ^ ours->s.rflags, undefined = 0;
	bool open = open_order(c, host, ours);

	if (outcome_retired(c, host) && c->decodes)
		undefined = row->fl_undef;
	compare_exception(&d, host, ours, open, row->op == OP_ENTER); /* its operands: RSP, RBP, both displays */
	if (flags & ~undefined)
		number(&d, "rflags", host->s.rflags, ours->s.rflags);
	number(&d, "rsp", stack_pointer(host), stack_pointer(ours));
	number(&d, "mxcsr", mxcsr_flags(c, host), mxcsr_flags(c, ours));
	compare_registers(&d, &host->s, &ours->s, !registers_open(c, host));
	if (!x87_open(c, host))
		compare_x87(&d, &host->s, &ours->s);
	for (unsigned int k = 0; k < 16 && !open; k++)
		block(&d, "ymm", k, host->s.ymm[k], ours->s.ymm[k], 32);
	if (!open)
		compare_memory(&d, host, ours, mxcsr_mask_offset(c));
	if (d.n)
		return DIFFERENT;
	return open ? EQUAL_OPEN : flags ? EQUAL_MASKED : EQUAL;
}
