// SPDX-License-Identifier: MIT
/*
 * Segmentation: from seg:offset to a linear address (SDM 3A 3.4, 5.3), and loads of the
 * data segment registers with all their checks (SDM 3A 5.6, SDM 2B MOV).
 */
#include "cpu/system.h"

static enum stop stack_or_gp(struct cpu *cpu, bool is_ss, u32 error)
{
	return cpu_raise_error(cpu, is_ss ? EXC_SS : EXC_GP, error);
}

/* SDM 3A 5.3: is [ea, last] inside the limit? Expand-down segments hold what is above it. */
static bool inside_limit(const struct segment *s, u64 ea, u64 last)
{
	bool down = (s->attr & SEGA_S) && (s->attr & (TYPE_CODE | TYPE_DOWN)) == TYPE_DOWN;

	/* SDM 3A 5.3 leaves an access across the end of 4 GiB to the processor: it wraps, as on KVM. */
	if (!down)
		return last <= s->limit || s->limit == 0xffffffff;
	return ea > s->limit && last <= ((s->attr & SEGA_DB) ? 0xffffffffull : 0xffff);
}

/* SDM 3A 5.5: type checks when memory is accessed; none in real mode and V86. */
static bool type_allows(const struct segment *s, u8 need)
{
	u8 type = s->attr & SEGA_TYPE;

	if (need & MMU_X)
		return true;
	if (type & TYPE_CODE)
		return !(need & MMU_W) && (type & TYPE_READ);
	return !(need & MMU_W) || (type & TYPE_WRITE);
}

enum stop seg_check(struct cpu *cpu, const struct segment *s, bool is_ss, bool m64, u64 ea,
	u32 len, u8 need, u32 error, u64 *linear)
{
	u64 last;

	if (m64) {
		/* DIFFERS: AMD wants the offset canonical too, before FS or GS base is added */
		*linear = ea;
		last = ea + (len ? len - 1 : 0);
		if (mmu_canonical(&cpu->mmu.paging, gva(ea)) &&
			mmu_canonical(&cpu->mmu.paging, gva(last)))
			return STOP_OK;
		return stack_or_gp(cpu, is_ss, error);
	}
	*linear = (u32)(s->base + ea);
	if (unlikely(s->unusable) || !inside_limit(s, ea, ea + (len ? len - 1 : 0)))
		return stack_or_gp(cpu, is_ss, error);
	if (cpu_prot(cpu) && !type_allows(s, need))
		return stack_or_gp(cpu, is_ss, error);
	return STOP_OK;
}

enum stop seg_linear(struct cpu *cpu, enum seg seg, u64 ea, u32 len, u8 need, u64 *linear)
{
	bool m64 = cpu->mode == MODE_64;

	if (m64)
		ea += cpu->ea_base[seg];
	return seg_check(cpu, &cpu->seg[seg], seg == SEG_SS, m64, ea, len, need, 0, linear);
}

/* The base of a null FS or GS is 0 (CPUID 8000_0021h EAX[6]; Intel always). */
struct segment seg_null(u16 sel, u8 dpl)
{
	return (struct segment){.sel = sel, .attr = dpl << 5, .unusable = true};
}

struct segment seg_real(const struct cpu *cpu, const struct segment *s, u16 sel)
{
	struct segment r = *s;

	r.sel = sel;
	r.base = (u64)sel << 4;
	if (cpu_v86(cpu)) {
		r.limit = 0xffff;
		r.attr = SEGA_P | SEGA_S | 3 << 5 | TYPE_WRITE | TYPE_ACCESSED;
	} else if (r.unusable) {
		r.limit = 0xffff;
		r.attr = SEGA_P | SEGA_S | TYPE_WRITE | TYPE_ACCESSED;
	}
	r.unusable = false;
	return r;
}

static enum stop prepare_ss(struct env *e, u16 sel, struct desc *d)
{
	struct cpu *cpu = e->cpu;

	TRY(desc_read(e, sel, EXC_GP, 0, d));
	if (SEL_RPL(sel) != cpu->cpl || desc_dpl(d) != cpu->cpl || !desc_is_writable(d))
		return cpu_gp(cpu, sel_error(sel, 0));
	return desc_p(d) ? STOP_OK : cpu_raise_error(cpu, EXC_SS, sel_error(sel, 0));
}

static enum stop prepare_data(struct env *e, u16 sel, struct desc *d)
{
	struct cpu *cpu = e->cpu;

	TRY(desc_read(e, sel, EXC_GP, 0, d));
	if (!desc_is_readable(d))
		return cpu_gp(cpu, sel_error(sel, 0));
	if (!desc_is_conforming(d) && MAX(SEL_RPL(sel), cpu->cpl) > desc_dpl(d))
		return cpu_gp(cpu, sel_error(sel, 0));
	return desc_p(d) ? STOP_OK : cpu_raise_error(cpu, EXC_NP, sel_error(sel, 0));
}

/* SDM 2B MOV: a null SS is allowed in 64-bit mode below CPL 3 when RPL = CPL. */
static enum stop prepare_null(struct cpu *cpu, enum seg seg, u16 sel, struct segment *out)
{
	if (seg == SEG_SS && (cpu->mode != MODE_64 || cpu->cpl == 3 || SEL_RPL(sel) != cpu->cpl))
		return cpu_gp(cpu, 0);
	*out = seg_null(sel, seg == SEG_SS ? cpu->cpl : 0);
	return STOP_OK;
}

enum stop seg_prepare(struct env *e, enum seg seg, u16 sel, struct segment *out)
{
	struct cpu *cpu = e->cpu;
	struct desc d;

	if (!cpu_prot(cpu)) {
		*out = seg_real(cpu, &cpu->seg[seg], sel);
		return STOP_OK;
	}
	if (SEL_NULL(sel))
		return prepare_null(cpu, seg, sel, out);
	TRY(seg == SEG_SS ? prepare_ss(e, sel, &d) : prepare_data(e, sel, &d));
	TRY(desc_set_bits(e, sel, &d, TYPE_ACCESSED));
	*out = seg_from_desc(sel, &d);
	return STOP_OK;
}

enum stop seg_load(struct env *e, enum seg seg, u16 sel)
{
	struct segment s;

	TRY(seg_prepare(e, seg, sel, &s));
	seg_commit(e->cpu, seg, &s);
	cpu_update(e->cpu);
	return STOP_OK;
}

void seg_drop_inner(struct cpu *cpu, u8 cpl)
{
	static const u8 data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};

	for (unsigned int k = 0; k < ARRAY_SIZE(data); k++) {
		struct segment *s = &cpu->seg[data[k]];
		bool conforming = (s->attr & (TYPE_CODE | TYPE_CONFORMING)) ==
			(TYPE_CODE | TYPE_CONFORMING);

		if (!s->unusable && !conforming && SEGA_DPL(s->attr) < cpl) {
			u64 base = s->base; /* 64-bit code still uses that of FS and GS */

			*s = seg_null(0, 0);
			s->base = base;
		}
	}
}
