// SPDX-License-Identifier: MIT
/* Code segments of far transfers and the stack segment of an outer return: SDM 3A 5.8, SDM 2B RET. */
#include "cpu/system.h"

/* May CPL go from here to a code segment with d's DPL, and what will it be? */
static bool cs_privilege(const struct cpu *cpu, u16 sel, const struct desc *d, enum cs_why why, u8 *cpl)
{
	bool conforming = desc_is_conforming(d);
	u8 dpl = desc_dpl(d), rpl = SEL_RPL(sel);

	*cpl = cpu->cpl;
	switch (why) {
	case CS_DIRECT:
		return conforming ? dpl <= cpu->cpl : rpl <= cpu->cpl && dpl == cpu->cpl;
	case CS_GATE_JUMP:
		return conforming ? dpl <= cpu->cpl : dpl == cpu->cpl;
	case CS_GATE_CALL:
		if (!conforming)
			*cpl = dpl;
		return dpl <= cpu->cpl;
	case CS_RETURN:
		*cpl = rpl;
		return rpl >= cpu->cpl && (conforming ? dpl <= rpl : dpl == rpl);
	}
	return false;
}

enum stop cs_check(struct env *e, u16 sel, struct desc *d, enum cs_why why, struct segment *cs)
{
	struct cpu *cpu = e->cpu;
	bool gate = why == CS_GATE_JUMP || why == CS_GATE_CALL;
	u8 cpl;

	if (!desc_is_code(d) || !cs_privilege(cpu, sel, d, why, &cpl))
		return cpu_gp(cpu, sel_error(sel, 0));
	/* L and D together are reserved; a call gate in long mode leads to 64-bit code only */
	if (cpu->long_mode && ((desc_l(d) && desc_db(d)) || (gate && !desc_l(d))))
		return cpu_gp(cpu, sel_error(sel, 0));
	if (!desc_p(d))
		return cpu_raise_error(cpu, EXC_NP, sel_error(sel, 0));
	TRY(desc_set_bits(e, sel, d, TYPE_ACCESSED));
	*cs = seg_from_desc((sel & ~3) | cpl, d);
	return STOP_OK;
}

enum stop cs_prepare(struct env *e, u16 sel, enum cs_why why, struct segment *cs)
{
	struct desc d;

	if (SEL_NULL(sel))
		return cpu_gp(e->cpu, 0);
	TRY(desc_read(e, sel, EXC_GP, 0, &d));
	return cs_check(e, sel, &d, why, cs);
}

enum stop cs_check_rip(struct cpu *cpu, const struct segment *cs, u64 rip, u32 error)
{
	bool ok = cs_is_64(cpu, cs) ? mmu_canonical(&cpu->mmu.paging, gva(rip)) : rip <= cs->limit;

	return ok ? STOP_OK : cpu_gp(cpu, error);
}

enum stop ss_prepare_return(struct env *e, u16 sel, u8 cpl, bool to64, struct segment *ss)
{
	struct cpu *cpu = e->cpu;
	struct desc d;

	if (SEL_NULL(sel)) {
		if (!to64 || cpl == 3 || SEL_RPL(sel) != cpl)
			return cpu_gp(cpu, 0);
		*ss = seg_null(sel, cpl);
		return STOP_OK;
	}
	TRY(desc_read(e, sel, EXC_GP, 0, &d));
	if (SEL_RPL(sel) != cpl || desc_dpl(&d) != cpl || !desc_is_writable(&d))
		return cpu_gp(cpu, sel_error(sel, 0));
	if (!desc_p(&d))
		return cpu_raise_error(cpu, EXC_SS, sel_error(sel, 0));
	TRY(desc_set_bits(e, sel, &d, TYPE_ACCESSED));
	*ss = seg_from_desc(sel, &d);
	return STOP_OK;
}

/* With a 16-bit stack the upper bits of the old ESP stay, as on every processor. */
u64 return_rsp(const struct cpu *cpu, const struct segment *cs, const struct segment *ss, u64 rsp)
{
	struct stack s = stack_make(cpu, ss, cpu->regs[GPR_RSP], SEL_RPL(cs->sel), cs_is_64(cpu, cs));
	u64 v = (s.sp & ~s.mask) | (rsp & s.mask);

	return s.m64 ? v : (u32)v;
}
