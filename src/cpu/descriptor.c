// SPDX-License-Identifier: MIT
/* Descriptors in the GDT and LDT: reading, their fields, accessed and busy bits. SDM 3A 3.4.5, 3.5. */
#include "cpu/system.h"

u64 desc_base(const struct desc *d)
{
	return (d->lo >> 16 & 0xffffff) | (d->lo >> 56 & 0xff) << 24 | d->hi << 32;
}

u32 desc_limit(const struct desc *d)
{
	u32 limit = (d->lo & 0xffff) | (d->lo >> 32 & 0xf0000);

	return d->lo >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

/* wide: a 32-bit (or 64-bit) gate; a 16-bit one has a 16-bit offset. */
u64 gate_offset(const struct desc *d, bool long_mode, bool wide)
{
	u64 off = d->lo & 0xffff;

	if (wide)
		off |= d->lo >> 32 & 0xffff0000;
	return long_mode ? off | d->hi << 32 : off;
}

struct segment seg_from_desc(u16 sel, const struct desc *d)
{
	return (struct segment){
		.sel = sel,
		.attr = d->lo >> 40 & 0xf0ff,
		.limit = desc_limit(d),
		.base = desc_base(d),
	};
}

bool desc_inside(const struct cpu *cpu, u16 sel, u32 size)
{
	u32 last = (sel & ~7u) + size - 1;

	if (sel & SEL_TI)
		return !cpu->ldtr.unusable && last <= cpu->ldtr.limit;
	return last <= cpu->gdtr.limit;
}

static u64 desc_linear(const struct cpu *cpu, u16 sel)
{
	return (sel & SEL_TI ? cpu->ldtr.base : cpu->gdtr.base) + (sel & ~7u);
}

enum stop desc_read(struct env *e, u16 sel, u8 vector, u32 ext, struct desc *d)
{
	d->hi = 0;
	if (!desc_inside(e->cpu, sel, 8))
		return cpu_raise_error(e->cpu, vector, sel_error(sel, ext));
	return env_read_system(e, desc_linear(e->cpu, sel), 8, &d->lo);
}

/* APM 2 4.8.3: the upper half's type field must be 0, so that it is no descriptor of its own. */
enum stop desc_read_system(struct env *e, u16 sel, u8 vector, u32 ext, struct desc *d)
{
	u64 both[2];

	if (!e->cpu->long_mode)
		return desc_read(e, sel, vector, ext, d);
	if (!desc_inside(e->cpu, sel, 16))
		return cpu_raise_error(e->cpu, vector, sel_error(sel, ext));
	TRY(env_read_system(e, desc_linear(e->cpu, sel), 16, both));
	d->lo = both[0];
	d->hi = (u32)both[1];
	if (both[1] >> 40 & 0x1f)
		return cpu_raise_error(e->cpu, vector, sel_error(sel, ext));
	return STOP_OK;
}

static enum stop write_type(struct env *e, u16 sel, const struct desc *d)
{
	u8 byte = d->lo >> 40;

	return env_write_system(e, desc_linear(e->cpu, sel) + 5, 1, &byte);
}

/*
 * DIFFERS: the byte is written, not or-ed under LOCK; a racing change of the same byte by
 * another processor is lost. No system changes the type of a descriptor that is in use.
 */
enum stop desc_set_bits(struct env *e, u16 sel, struct desc *d, u8 bits)
{
	struct desc set = *d;

	set.lo |= (u64)bits << 40;
	if (set.lo != d->lo)
		TRY(write_type(e, sel, &set));
	d->lo = set.lo;
	return STOP_OK;
}

enum stop desc_clear_busy(struct env *e, u16 sel)
{
	struct desc d;

	TRY(desc_read(e, sel, EXC_TS, 0, &d));
	d.lo &= ~((u64)TSS_BUSY << 40);
	return write_type(e, sel, &d);
}

enum stop desc_prove_bits(struct env *e, u16 sel, const struct desc *d, u8 bits)
{
	if ((desc_type(d) & bits) == bits)
		return STOP_OK;
	return env_prove_system(e, desc_linear(e->cpu, sel) + 5, 1, MMU_W);
}
