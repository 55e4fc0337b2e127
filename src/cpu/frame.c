// SPDX-License-Identifier: MIT
/*
 * Stacks of any privilege level: frames that are pushed as a whole (proved first, written
 * after the barrier), pops of several items, and the inner stack pointers of the TSS.
 */
#include "cpu/system.h"

#include <string.h>

struct stack stack_make(const struct cpu *cpu, const struct segment *ss, u64 sp, u8 cpl, bool m64)
{
	return (struct stack){
		.ss = *ss,
		.sp = sp,
		.mask = m64 ? ~0ull : (ss->attr & SEGA_DB) ? 0xffffffff : 0xffff,
		.m64 = m64,
		.attr = attr_of_cpl(cpu, cpl),
	};
}

struct stack stack_current(const struct cpu *cpu)
{
	return stack_make(cpu, &cpu->seg[SEG_SS], cpu->regs[GPR_RSP], cpu->cpl,
		cpu->mode == MODE_64);
}

/* A 16-bit stack leaves bits 31..16 of ESP alone. */
u64 stack_add(const struct stack *s, s64 by)
{
	u64 sp = (s->sp & ~s->mask) | ((s->sp + by) & s->mask);

	return s->m64 ? sp : (u32)sp;
}

void frame_push(struct frame *f, u64 v, u32 size)
{
	f->len += size;
	f->size = size;
	memcpy(f->bytes + FRAME_MAX - f->len, &v, size);
}

/* Bytes of the next piece: one struct access, not across the stack's wrap-around. */
static u32 piece(const struct stack *s, u64 ea, u32 left)
{
	u64 to_wrap = s->mask - ea;

	left = MIN(left, ACCESS_MAX);
	return to_wrap < left - 1 ? (u32)to_wrap + 1 : left;
}

/* Prove bytes [from, to) of the frame. */
static enum stop map_bytes(struct env *e, const struct stack *s, struct frame *f, u32 from, u32 to)
{
	u64 ea, linear;
	u32 n;

	for (; from < to; from += n) {
		ea = (f->sp + from) & s->mask;
		n = piece(s, ea, to - from);
		TRY(seg_check(e->cpu, &s->ss, true, s->m64, ea, n, MMU_W, s->error, &linear));
		if (f->nr == ARRAY_SIZE(f->a))
			return cpu_fail(e->cpu, "stack frame wraps more than once");
		f->at[f->nr] = from;
		TRY(env_map_linear(e, &f->a[f->nr++], gva(linear), n, MMU_W, s->attr));
	}
	return STOP_OK;
}

/* Topmost first, as it is pushed. */
static enum stop map_pieces(struct env *e, const struct stack *s, struct frame *f, u32 size)
{
	f->nr = 0;
	for (u32 to = f->len; to; to -= size)
		TRY(map_bytes(e, s, f, to - size, to));
	return STOP_OK;
}

/* In one piece, but where somebody can see the difference: a device, or CR2 after a fault. */
enum stop frame_map(struct env *e, const struct stack *s, struct frame *f)
{
	bool items = f->len < f->size * ARRAY_SIZE(f->a);
	enum stop stop;

	f->sp = stack_add(s, -(s64)f->len);
	if (items && env_exact(e))
		return map_pieces(e, s, f, f->size);
	stop = map_pieces(e, s, f, f->len);
	if (items && stop == STOP_EXC && e->cpu->exc.vector == EXC_PF)
		stop = map_pieces(e, s, f, f->size);
	return stop;
}

enum stop frame_store(struct env *e, struct frame *f)
{
	const u8 *from = f->bytes + FRAME_MAX - f->len;

	for (u32 k = 0; k < f->nr; k++) {
		memcpy(f->a[k].p, from + f->at[k], f->a[k].len);
		TRY(env_flush(e, &f->a[k]));
	}
	return STOP_OK;
}

enum stop stack_read(struct env *e, const struct stack *s, u32 above, u32 n, u32 size, void *out)
{
	struct access a;
	u64 ea, linear;
	u32 done, k;

	for (done = 0; done < n; done += k) {
		ea = (s->sp + above + done) & s->mask;
		/* after a wrap inside an item: the rest of that item */
		k = piece(s, ea, env_exact(e) ? MIN(size - done % size, n - done) : n - done);
		TRY(seg_check(e->cpu, &s->ss, true, s->m64, ea, k, MMU_R, s->error, &linear));
		TRY(env_map_linear(e, &a, gva(linear), k, MMU_R, s->attr));
		TRY(env_begin(e));
		memcpy((u8 *)out + done, a.p, k);
	}
	return STOP_OK;
}

static enum stop tss_read(struct env *e, u32 off, u32 n, u32 ext, void *out)
{
	struct cpu *cpu = e->cpu;

	if (off + n - 1 > cpu->tr.limit)
		return cpu_raise_error(cpu, EXC_TS, sel_error(cpu->tr.sel, ext));
	return env_read_system(e, cpu->tr.base + off, n, out);
}

static enum stop tss_pointer(struct env *e, u8 cpl, u32 ext, u16 *sel, u64 *sp)
{
	bool wide = e->cpu->tr.attr & 8;
	u16 p16[2];
	u32 p32[2];

	if (!wide) {
		TRY(tss_read(e, 2 + 4 * cpl, 4, ext, p16));
		*sp = p16[0];
		*sel = p16[1];
		return STOP_OK;
	}
	/* ESP and SS: 6 bytes, SS has padding behind it */
	TRY(tss_read(e, 4 + 8 * cpl, 6, ext, p32));
	*sp = p32[0];
	*sel = p32[1];
	return STOP_OK;
}

enum stop tss_stack(struct env *e, u8 cpl, u32 ext, struct segment *ss, u64 *sp)
{
	struct cpu *cpu = e->cpu;
	struct desc d;
	u16 sel;

	TRY(tss_pointer(e, cpl, ext, &sel, sp));
	if (SEL_NULL(sel))
		return cpu_raise_error(cpu, EXC_TS, ext);
	TRY(desc_read(e, sel, EXC_TS, ext, &d));
	if (SEL_RPL(sel) != cpl || desc_dpl(&d) != cpl || !desc_is_writable(&d))
		return cpu_raise_error(cpu, EXC_TS, sel_error(sel, ext));
	if (!desc_p(&d))
		return cpu_raise_error(cpu, EXC_SS, sel_error(sel, ext));
	TRY(desc_set_bits(e, sel, &d, TYPE_ACCESSED));
	*ss = seg_from_desc(sel, &d);
	return STOP_OK;
}

/* 64-bit TSS, SDM 3A figure 7-11: RSP0 at 4, IST1 at 36. */
enum stop tss_stack_long(struct env *e, u8 cpl, u8 ist, u32 ext, u64 *rsp)
{
	return tss_read(e, ist ? 36 + 8 * (ist - 1) : 4 + 8 * cpl, 8, ext, rsp);
}
