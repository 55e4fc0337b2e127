// SPDX-License-Identifier: MIT
/* What both environments share: segmentation and alignment in front of env->ops->map. */
#include "cpu/env.h"

#include "base/hard.h"

/* What #AC asks of an operand of len bytes; 0: nothing (APM 2 8.2.18; SDM 3A table 6-7). */
static u32 ac_alignment(u32 len)
{
	switch (len) {
	case 2:
	case 4:
	case 8:
	case 16:
		return len;
	case 10: /* m80 */
		return 8;
	case 32:
		return 16;
	default:
		return 0;
	}
}

static bool misaligned(const struct env *e, u64 linear, u32 len)
{
	u32 align = alignment_checked(e->cpu) && !e->no_ac ? ac_alignment(len) : 0;

	return align && (linear & (align - 1));
}

enum stop env_check_ac(struct env *e, enum seg seg, u64 ea, u32 len, u32 align)
{
	u64 linear;

	if (!alignment_checked(e->cpu))
		return STOP_OK;
	TRY(seg_linear(e->cpu, seg, ea, len, 0, &linear));
	return linear & (align - 1) ? cpu_raise_error(e->cpu, EXC_AC, 0) : STOP_OK;
}

static inline enum stop map(struct env *e, struct access *a)
{
	TRY(e->ops->map(e, a));
	if (e->nr_pending == ENV_ACCESSES)
		return cpu_fail(e->cpu, "too many operands before one barrier");
	e->pending[e->nr_pending++] = a;
	return STOP_OK;
}

static ALWAYS_INLINE enum stop map_linear(struct env *e, struct access *a, gva_t gva, u32 len,
	u8 need, enum mmu_attr attr)
{
	a->gva = gva;
	a->len = len;
	a->need = need;
	a->attr = attr;
	a->system = false;
	return map(e, a);
}

enum stop env_map_linear(struct env *e, struct access *a, gva_t gva, u32 len, u8 need,
	enum mmu_attr attr)
{
	return map_linear(e, a, gva, len, need, attr);
}

/* In 64-bit mode, inside one page, there is only one thing to check. */
static inline enum stop linear_of(
	struct cpu *cpu, enum seg seg, u64 ea, u32 len, u8 need, u64 *linear)
{
	u64 at = ea + cpu->ea_base[seg];

	if (unlikely(cpu->mode != MODE_64 || page_left(at) < len ||
		!mmu_canonical(&cpu->mmu.paging, gva(at))))
		return seg_linear(cpu, seg, ea, len, need, linear);
	*linear = at;
	return STOP_OK;
}

static ALWAYS_INLINE enum stop map_data(struct env *e, struct access *a, enum seg seg, u64 ea,
	u32 len, u8 need, u32 align)
{
	struct cpu *cpu = e->cpu;
	u64 linear;

	/* this #GP comes before the #SS of an address that is not canonical */
	if (align && ((ea + cpu->ea_base[seg]) & (align - 1)))
		return cpu_gp(cpu, 0);
	TRY(linear_of(cpu, seg, ea, len, need, &linear));
	if (unlikely(cpu->eflags & EFL_AC) && misaligned(e, linear, len))
		return cpu_raise_error(cpu, EXC_AC, 0);
	return map_linear(e, a, gva(linear), len, need, cpu_data_attr(cpu));
}

enum stop env_map(struct env *e, struct access *a, enum seg seg, u64 ea, u32 len, u8 need)
{
	return map_data(e, a, seg, ea, len, need, 0);
}

enum stop env_map_aligned(struct env *e, struct access *a, enum seg seg, u64 ea, u32 len,
	u8 need, u32 align)
{
	return map_data(e, a, seg, ea, len, need, align);
}

enum stop env_flush(struct env *e, struct access *a)
{
	return e->ops->flush(e, a);
}

enum stop env_pio(struct env *e, struct pio *io)
{
	return e->ops->pio(e, io);
}

/* Bytes of the next piece of a long access: never across a 64-byte line, so never across a page. */
static u32 piece(u64 addr, u32 left)
{
	return MIN(left, ACCESS_MAX - (u32)(addr & (ACCESS_MAX - 1)));
}

enum stop env_prove(struct env *e, enum seg seg, u64 ea, u32 len, u8 need)
{
	struct access a;
	u8 before = e->nr_pending;
	u32 done, n;

	for (done = 0; done < len; done += n) {
		n = MIN(len - done, page_left(ea + done));
		/* one byte proves its page; the segment check covers all bytes of it */
		TRY(env_map(e, &a, seg, ea + done, 1, need));
		TRY(env_map(e, &a, seg, ea + done + n - 1, 1, need));
		e->nr_pending = before;
	}
	return STOP_OK;
}

enum stop env_read(struct env *e, enum seg seg, u64 ea, u32 len, void *out)
{
	struct access a;
	u32 done, n;

	if (len > ACCESS_MAX)
		TRY(env_prove(e, seg, ea, len, MMU_R));
	for (done = 0; done < len; done += n) {
		n = len <= ACCESS_MAX ? len : piece(ea + done, len - done);
		e->rest = done;
		TRY(env_map(e, &a, seg, ea + done, n, MMU_R));
		e->rest = false;
		TRY(env_begin(e));
		__builtin_memcpy((u8 *)out + done, a.p, n);
	}
	return STOP_OK;
}

enum stop env_write(struct env *e, enum seg seg, u64 ea, u32 len, const void *in)
{
	struct access a;
	u32 done, n;

	if (len > ACCESS_MAX)
		TRY(env_prove(e, seg, ea, len, MMU_W));
	for (done = 0; done < len; done += n) {
		n = len <= ACCESS_MAX ? len : piece(ea + done, len - done);
		e->rest = done;
		TRY(env_map(e, &a, seg, ea + done, n, MMU_W));
		e->rest = false;
		TRY(env_begin(e));
		__builtin_memcpy(a.p, (const u8 *)in + done, n);
		TRY(env_flush(e, &a));
	}
	return STOP_OK;
}

static void copy_bytes(volatile u8 *to, const volatile u8 *from, u32 n)
{
	for (u32 k = 0; k < n; k++)
		to[k] = from[k];
}

void ram_copy(void *to, const void *from, u32 n)
{
	bool aligned = !(((uintptr_t)to | (uintptr_t)from) & (n - 1));

	if (n == 8 && aligned)
		*(volatile u64 *)to = *(const volatile u64 *)from;
	else if (n == 4 && aligned)
		*(volatile u32 *)to = *(const volatile u32 *)from;
	else if (n == 2 && aligned)
		*(volatile u16 *)to = *(const volatile u16 *)from;
	else if (OPT_DIRECT)
		__builtin_memcpy(to, from, n);
	else
		copy_bytes(to, from, n);
}

static enum stop map_system(struct env *e, struct access *a, u64 linear, u32 len, u8 need)
{
	if (!e->cpu->long_mode)
		linear = (u32)linear;
	a->gva = gva(linear);
	a->len = len;
	a->need = need;
	a->attr = MMU_KERNEL;
	a->system = true;
	return map(e, a);
}

enum stop env_read_system(struct env *e, u64 linear, u32 len, void *out)
{
	struct access a;
	u32 done, n;

	for (done = 0; done < len; done += n) {
		n = MIN(len - done, ACCESS_MAX);
		TRY(map_system(e, &a, linear + done, n, MMU_R));
		TRY(env_begin(e));
		__builtin_memcpy((u8 *)out + done, a.p, n);
	}
	return STOP_OK;
}

enum stop env_write_system(struct env *e, u64 linear, u32 len, const void *in)
{
	struct access a;
	u32 done, n;

	for (done = 0; done < len; done += n) {
		n = MIN(len - done, ACCESS_MAX);
		TRY(map_system(e, &a, linear + done, n, MMU_W));
		TRY(env_begin(e));
		__builtin_memcpy(a.p, (const u8 *)in + done, n);
		TRY(env_flush(e, &a));
	}
	return STOP_OK;
}

enum stop env_prove_system(struct env *e, u64 linear, u32 len, u8 need)
{
	struct access a;
	u8 before = e->nr_pending;
	u32 done, n;

	for (done = 0; done < len; done += n) {
		n = MIN(len - done, page_left(linear + done));
		TRY(map_system(e, &a, linear + done, 1, need));
		e->nr_pending = before;
	}
	return STOP_OK;
}
