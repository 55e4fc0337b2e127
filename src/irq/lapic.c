// SPDX-License-Identifier: MIT
/*
 * Local APIC: registers by MMIO and MSR, priorities, EOI (SDM 3A chapter 10). Its timer is
 * in lapic_timer.c, sending in lapic_icr.c, receiving in lapic_deliver.c, and reset, APIC
 * base and the register page in lapic_state.c.
 */
#include "irq/irq_impl.h"

#include <errno.h>
#include <string.h>

/* ---- priorities ---- */

int lapic_highest(const struct lapic *l, u32 offset)
{
	for (int w = 7; w >= 0; w--) {
		u32 bits = lapic_reg(l, offset + 16 * w);

		if (bits)
			return 32 * w + 31 - __builtin_clz(bits);
	}
	return -1;
}

/* SDM 3A 10.8.3.1: the higher of the task's and the in-service interrupt's class. */
void lapic_update_ppr(struct lapic *l)
{
	u32 tpr = lapic_reg(l, APIC_TPR) & 0xff;
	int isr = lapic_highest(l, APIC_ISR);
	u32 isrv = isr < 0 ? 0 : (u32)isr & 0xf0;

	lapic_set_reg(l, APIC_PPR, (tpr & 0xf0) >= isrv ? tpr : isrv);
}

int lapic_pending(struct lapic *l)
{
	int v;

	if (!__atomic_load_n(&l->irr_pending, __ATOMIC_ACQUIRE) || !lapic_enabled(l))
		return -1;
	v = lapic_highest(l, APIC_IRR);
	return v >= 0 && ((u32)v & 0xf0) > (lapic_reg(l, APIC_PPR) & 0xf0) ? v : -1;
}

/*
 * irr_pending falls before the bit goes and the rest is scanned: whoever sets a bit raises
 * it after, so a bit that the scan misses leaves it raised.
 */
int lapic_ack(struct lapic *l)
{
	int v = lapic_pending(l);

	if (v < 0)
		return -1;
	__atomic_store_n(&l->irr_pending, 0, __ATOMIC_SEQ_CST);
	__atomic_fetch_and(
		lapic_vector_word(l, APIC_IRR, (u8)v), ~(1u << (v % 32)), __ATOMIC_SEQ_CST);
	if (lapic_highest(l, APIC_IRR) >= 0)
		__atomic_store_n(&l->irr_pending, 1, __ATOMIC_SEQ_CST);
	*lapic_vector_word(l, APIC_ISR, (u8)v) |= 1u << (v % 32);
	lapic_update_ppr(l);
	return v;
}

static void kick(struct lapic *l)
{
	l->chip->ops->kick(l->chip->vm, l->vcpu);
}

void lapic_recheck(struct lapic *l)
{
	if (irq_pending(l))
		kick(l);
}

static void write_tpr(struct lapic *l, u32 tpr)
{
	lapic_set_reg(l, APIC_TPR, tpr & 0xff);
	lapic_update_ppr(l);
	lapic_recheck(l);
}

u8 lapic_get_cr8(const struct lapic *l)
{
	return (u8)(lapic_reg(l, APIC_TPR) >> 4) & 15;
}

void lapic_set_cr8(struct lapic *l, u8 cr8)
{
	write_tpr(l, (u32)(cr8 & 15) << 4);
}

/* An EOI with nothing in service does nothing (SDM 3A 10.8.5). */
static void write_eoi(struct lapic *l)
{
	int v = lapic_highest(l, APIC_ISR);

	if (v < 0)
		return;
	*lapic_vector_word(l, APIC_ISR, (u8)v) &= ~(1u << (v % 32));
	lapic_update_ppr(l);
	irqchip_eoi(l, (u8)v, get(lapic_vector_word(l, APIC_TMR, (u8)v)) & (1u << (v % 32)));
	lapic_recheck(l);
}

bool lapic_accepts_pic(const struct lapic *l)
{
	u32 lvt = lapic_reg(l, APIC_LVT0);

	return !lapic_enabled(l) || (!(lvt & LVT_MASKED) && LVT_MODE(lvt) == IRQ_EXTINT);
}

/* ---- registers ---- */

/* Bits that the guest may write in each LVT entry, from APIC_LVTT on; status bits stay 0. */
static u32 lvt_writable(const struct lapic *l, u32 offset)
{
	static const u32 mask[] = {
		0x000200ff | LVT_MASKED, /* timer: periodic; and bit 18, below */
		0x000007ff | LVT_MASKED, /* thermal, PMC: delivery mode */
		0x000007ff | LVT_MASKED,
		0x0000a7ff | LVT_MASKED, /* LINT0, LINT1: trigger, polarity */
		0x0000a7ff | LVT_MASKED,
		0x000000ff | LVT_MASKED, /* error */
	};

	return mask[(offset - APIC_LVTT) / 16] |
		(offset == APIC_LVTT && l->has_tsc_deadline ? 0x40000 : 0);
}

static void write_lvt(struct lapic *l, u32 offset, u32 v)
{
	v &= lvt_writable(l, offset);
	if (!(lapic_reg(l, APIC_SPIV) & SPIV_ENABLE))
		v |= LVT_MASKED;
	if (offset == APIC_LVTT)
		lapic_timer_write_lvt(l, v);
	else
		lapic_set_reg(l, offset, v);
	if (offset == APIC_LVT0 && lapic_accepts_pic(l)) /* user space's PIC may have something */
		kick(l);
}

/* A LAPIC disabled by software keeps its LVT entries masked (SDM 3A 10.4.7.2). */
void lapic_mask_lvts(struct lapic *l)
{
	for (u32 o = APIC_LVTT; o <= APIC_LVTERR; o += 16) {
		u32 v = lapic_reg(l, o) | LVT_MASKED;

		if (o == APIC_LVTT)
			lapic_timer_write_lvt(l, v);
		else
			lapic_set_reg(l, o, v);
	}
}

static void write_spiv(struct lapic *l, u32 v)
{
	lapic_set_reg(l, APIC_SPIV, v & 0x3ff);
	if (!(v & SPIV_ENABLE))
		lapic_mask_lvts(l);
}

/* The registers that read the same in both modes. False: there is no such register. */
static bool read_common(struct lapic *l, u32 offset, u32 *v)
{
	switch (offset) {
	case APIC_TMCCT:
		*v = lapic_timer_current(l);
		return true;
	case APIC_ID:
	case APIC_VERSION:
	case APIC_TPR:
	case APIC_PPR:
	case APIC_LDR:
	case APIC_SPIV:
	case APIC_ISR ... APIC_IRR + 0x70:
	case APIC_ESR:
	case APIC_ICR:
	case APIC_LVTT ... APIC_TMICT:
	case APIC_TDCR:
		*v = lapic_reg(l, offset);
		return true;
	}
	return false;
}

/* The registers that are written the same in both modes. False: there is no such register. */
static bool write_common(struct lapic *l, u32 offset, u32 v)
{
	switch (offset) {
	case APIC_TPR:
		write_tpr(l, v);
		return true;
	case APIC_EOI:
		write_eoi(l);
		return true;
	case APIC_SPIV:
		write_spiv(l, v);
		return true;
	case APIC_ESR: /* a write latches the errors since the last one (SDM 3A 10.5.3) */
		lapic_set_reg(l, APIC_ESR, __atomic_exchange_n(&l->errors, 0, __ATOMIC_RELAXED));
		return true;
	case APIC_LVTT ... APIC_LVTERR:
		write_lvt(l, offset, v);
		return true;
	case APIC_TMICT:
		lapic_timer_write_count(l, v);
		return true;
	case APIC_TDCR:
		lapic_timer_write_divide(l, v);
		return true;
	}
	return false;
}

/* ---- xAPIC: the page ---- */

bool lapic_is_at(const struct lapic *l, gpa_t gpa)
{
	return ALIGN_DOWN(gpa.v, PAGE_SIZE) == ALIGN_DOWN(lapic_get_base(l), PAGE_SIZE);
}

static bool xapic_answers(const struct lapic *l)
{
	return lapic_enabled(l) && !lapic_is_x2apic(l);
}

static u32 xapic_read(struct lapic *l, u32 offset)
{
	u32 v = 0;

	/* DIFFERS: the arbitration priority reads 0, as in KVM. */
	if (offset == APIC_APR || offset == APIC_EOI || offset == APIC_RRD)
		return 0;
	if (offset == APIC_DFR || offset == APIC_ICR2)
		return lapic_reg(l, offset);
	if (!read_common(l, offset, &v))
		lapic_error(l, ESR_REGISTER);
	return v;
}

int lapic_mmio_read(struct lapic *l, gpa_t gpa, unsigned int len, void *data)
{
	u32 offset = gpa.v & (PAGE_SIZE - 1), v;

	if (!lapic_is_at(l, gpa))
		return -EOPNOTSUPP;
	if (likely(len == sizeof(v) && !(offset & 15) && xapic_answers(l))) {
		v = xapic_read(l, offset);
		memcpy(data, &v, sizeof(v));
		return 0;
	}
	memset(data, xapic_answers(l) ? 0 : 0xff, len);
	if (!xapic_answers(l) || (offset & 15) + len > 4)
		return 0;
	v = xapic_read(l, offset & ~15u);
	memcpy(data, (u8 *)&v + (offset & 15), len);
	return 0;
}

static void xapic_write(struct lapic *l, u32 offset, u32 v)
{
	switch (offset) {
	case APIC_ID:
		lapic_set_xapic_id(l, v & 0xff000000);
		break;
	case APIC_LDR:
		lapic_set_reg(l, APIC_LDR, v & 0xff000000);
		break;
	case APIC_DFR:
		lapic_set_reg(l, APIC_DFR, v | 0x0fffffff);
		break;
	case APIC_ICR:
		lapic_write_icr(l, v, lapic_reg(l, APIC_ICR2) >> 24);
		break;
	case APIC_ICR2:
		lapic_set_reg(l, APIC_ICR2, v & 0xff000000);
		break;
	case APIC_VERSION: /* read-only registers exist: no error */
	case APIC_APR:
	case APIC_PPR:
	case APIC_RRD:
	case APIC_ISR ... APIC_IRR + 0x70:
	case APIC_TMCCT:
		break;
	default:
		if (!write_common(l, offset, v))
			lapic_error(l, ESR_REGISTER);
	}
}

int lapic_mmio_write(struct lapic *l, gpa_t gpa, unsigned int len, const void *data)
{
	u32 offset = gpa.v & (PAGE_SIZE - 1), v;

	if (!lapic_is_at(l, gpa))
		return -EOPNOTSUPP;
	if (!xapic_answers(l) || len != 4 || (offset & 15))
		return 0;
	memcpy(&v, data, sizeof(v));
	xapic_write(l, offset, v);
	return 0;
}

/* ---- x2APIC: MSRs (SDM 3A 10.12.1) ---- */

static u32 msr_offset(u32 msr)
{
	return (msr & 0xff) << 4;
}

static bool x2apic_answers(const struct lapic *l, u32 msr)
{
	return lapic_is_x2apic(l) && msr >= 0x800 && msr <= 0x8ff;
}

bool lapic_msr_read(struct lapic *l, u32 msr, u64 *value)
{
	u32 v;

	if (!x2apic_answers(l, msr) || !read_common(l, msr_offset(msr), &v))
		return false;
	*value = v;
	if (msr_offset(msr) == APIC_ICR)
		*value |= (u64)lapic_reg(l, APIC_ICR2) << 32;
	return true;
}

/* Bits of a 32-bit register that must be written as 0; ~0: only zero may be written. */
static u32 x2apic_reserved(u32 offset)
{
	switch (offset) {
	case APIC_EOI:
	case APIC_ESR:
		return ~0u;
	case APIC_TPR:
	case APIC_SELF_IPI:
		return ~0xffu;
	}
	/* DIFFERS: reserved bits of SPIV and the LVT are dropped, not #GP; so does KVM. */
	return 0;
}

#define X2APIC_ICR_RESERVED (BITS(31, 20) | BITS(17, 16) | BIT(13))

bool lapic_msr_write(struct lapic *l, u32 msr, u64 value)
{
	u32 offset = msr_offset(msr), v = (u32)value;

	if (!x2apic_answers(l, msr))
		return false;
	if (offset == APIC_ICR) {
		if (value & X2APIC_ICR_RESERVED)
			return false;
		lapic_set_reg(l, APIC_ICR2, (u32)(value >> 32));
		lapic_write_icr(l, v, (u32)(value >> 32));
		return true;
	}
	if (value >> 32 || (v & x2apic_reserved(offset)))
		return false;
	if (offset == APIC_SELF_IPI) {
		lapic_self_ipi(l, (u8)v);
		return true;
	}
	return write_common(l, offset, v);
}
