// SPDX-License-Identifier: MIT
/* A LAPIC's creation, reset, IA32_APIC_BASE and register page. */
#include "irq/irq_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Integrated APIC, LVT entries 0..5, as KVM's: no CMCI, no EOI-broadcast suppression. */
#define VERSION_VALUE 0x00050014

/* ---- identity ---- */

static void set_xapic_id(struct lapic *l)
{
	lapic_set_reg(l, APIC_ID, l->id << 24);
}

static u32 x2apic_ldr(u32 id)
{
	return (id & ~15u) << 12 | 1u << (id & 15);
}

static void set_x2apic_id(struct lapic *l)
{
	lapic_set_reg(l, APIC_ID, l->id);
	lapic_set_reg(l, APIC_LDR, x2apic_ldr(l->id));
}

/* ---- creation and reset ---- */

struct lapic *lapic_create(struct irqchip *c, unsigned int vcpu, u32 apic_id, bool bsp)
{
	struct lapic *l;

	if (vcpu >= IRQ_VCPUS_MAX || c->lapic[vcpu])
		return NULL;
	l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->chip = c;
	l->vcpu = vcpu;
	l->id = apic_id;
	l->bsp = bsp;
	l->maxphyaddr = 36;
	lapic_timer_init(l);
	lapic_reset(l, false);
	__atomic_store_n(&c->lapic[vcpu], l, __ATOMIC_RELEASE);
	if (get(&c->nr_lapics) <= vcpu)
		put(&c->nr_lapics, vcpu + 1);
	return l;
}

void lapic_set_features(struct lapic *l, unsigned int maxphyaddr, bool x2apic, bool tsc_deadline)
{
	l->maxphyaddr = maxphyaddr;
	l->has_x2apic = x2apic;
	l->has_tsc_deadline = tsc_deadline;
}

static void clear_vectors(struct lapic *l)
{
	put(&l->irr_pending, 0);
	for (u32 o = APIC_ISR; o < APIC_IRR + 0x80; o += 16)
		lapic_set_reg(l, o, 0);
}

/* SDM 3A 10.4.7.1 and 10.4.7.3. LINT0 of the boot processor: virtual wire, as KVM has it. */
void lapic_reset(struct lapic *l, bool init)
{
	if (!init) {
		put(&l->base, LAPIC_BASE | APIC_BASE_ENABLE | (l->bsp ? APIC_BASE_BSP : 0));
		set_xapic_id(l);
	}
	lapic_timer_reset(l);
	lapic_set_reg(l, APIC_VERSION, VERSION_VALUE);
	for (u32 o = APIC_LVTTHMR; o <= APIC_LVTERR; o += 16)
		lapic_set_reg(l, o, LVT_MASKED);
	if (l->bsp)
		lapic_set_reg(l, APIC_LVT0, IRQ_EXTINT << 8);
	lapic_set_reg(l, APIC_SPIV, 0xff);
	lapic_set_reg(l, APIC_TPR, 0);
	lapic_set_reg(l, APIC_ESR, 0);
	lapic_set_reg(l, APIC_ICR, 0);
	lapic_set_reg(l, APIC_ICR2, 0);
	lapic_set_reg(l, APIC_DFR, 0xffffffff);
	if (!lapic_is_x2apic(l))
		lapic_set_reg(l, APIC_LDR, 0);
	put(&l->errors, 0);
	put(&l->arbitrated, 0);
	clear_vectors(l);
	lapic_update_ppr(l);
}

/* ---- IA32_APIC_BASE (SDM 3A 10.4.4, 10.12.5) ---- */

u64 lapic_get_base(const struct lapic *l)
{
	return get(&l->base);
}

bool lapic_enabled(const struct lapic *l)
{
	return lapic_get_base(l) & APIC_BASE_ENABLE;
}

bool lapic_is_x2apic(const struct lapic *l)
{
	u64 on = APIC_BASE_ENABLE | APIC_BASE_X2APIC;

	return (lapic_get_base(l) & on) == on;
}

static bool base_valid(const struct lapic *l, u64 base)
{
	u64 allowed = BITS(l->maxphyaddr - 1, 12) | APIC_BASE_BSP | APIC_BASE_ENABLE |
		(l->has_x2apic ? APIC_BASE_X2APIC : 0);

	return !(base & ~allowed) && ((base & APIC_BASE_ENABLE) || !(base & APIC_BASE_X2APIC));
}

/* The guest may not go from x2APIC to xAPIC, nor from disabled to x2APIC. */
static bool transition_valid(u64 from, u64 to)
{
	if (from & APIC_BASE_X2APIC)
		return (to & APIC_BASE_X2APIC) || !(to & APIC_BASE_ENABLE);
	return (from & APIC_BASE_ENABLE) || !(to & APIC_BASE_X2APIC);
}

bool lapic_set_base(struct lapic *l, u64 base, bool host)
{
	u64 old = lapic_get_base(l);

	if (!base_valid(l, base) || (!host && !transition_valid(old, base)))
		return false;
	put(&l->base, base);
	if (base & ~old & APIC_BASE_X2APIC)
		set_x2apic_id(l);
	else if (((base & ~old) & APIC_BASE_ENABLE) ||
		((old & APIC_BASE_X2APIC) && (base & APIC_BASE_ENABLE) && !(base & APIC_BASE_X2APIC)))
		set_xapic_id(l);
	if (old != base)
		lapic_recheck(l);
	return true;
}

/* ---- the register page ---- */

static u32 page_get(const u8 *page, u32 offset)
{
	u32 v;

	memcpy(&v, page + offset, sizeof(v));
	return v;
}

static void page_put(u8 *page, u32 offset, u32 v)
{
	memcpy(page + offset, &v, sizeof(v));
}

/* Without KVM_X2APIC_API_USE_32BIT_IDS the page has the ID in bits 31:24 in every mode. */
static bool id_is_shifted(const struct lapic *l)
{
	return lapic_is_x2apic(l) && !(get(&l->chip->x2apic_api) & X2APIC_API_32BIT_IDS);
}

void lapic_get_state(struct lapic *l, u8 page[LAPIC_PAGE_LEN])
{
	lapic_timer_expire(l); /* what is due belongs into this IRR */
	memset(page, 0, LAPIC_PAGE_LEN);
	for (u32 o = 0; o < LAPIC_PAGE_LEN; o += 16)
		page_put(page, o, lapic_reg(l, o));
	page_put(page, APIC_TMCCT, lapic_timer_current(l));
	if (id_is_shifted(l))
		page_put(page, APIC_ID, lapic_reg(l, APIC_ID) << 24);
}

void lapic_set_xapic_id(struct lapic *l, u32 reg)
{
	if (reg >> 24 != (u8)l->id)
		put(&l->chip->renamed, true);
	lapic_set_reg(l, APIC_ID, reg);
}

static int set_identity(struct lapic *l, const u8 *page)
{
	u32 id = page_get(page, APIC_ID);

	if (!lapic_is_x2apic(l)) {
		lapic_set_xapic_id(l, id);
		lapic_set_reg(l, APIC_LDR, page_get(page, APIC_LDR));
		return 0;
	}
	/* Shifted, the ID is only as good as its low byte: ours is kept. */
	if (!id_is_shifted(l) && id != l->id)
		return -EINVAL;
	set_x2apic_id(l);
	return 0;
}

/* Version, ID, LDR and IRR aside. The timer's registers change under its lock. */
static void copy_registers(struct lapic *l, const u8 *page)
{
	pthread_mutex_lock(&l->timer_lock);
	for (u32 o = APIC_TPR; o < APIC_SELF_IPI; o += 16)
		if (o != APIC_LDR && o != APIC_EOI && o != APIC_TMCCT &&
			(o < APIC_IRR || o >= APIC_IRR + 0x80))
			lapic_set_reg(l, o, page_get(page, o));
	pthread_mutex_unlock(&l->timer_lock);
}

/* SPIV does not mask the LVT here: the reset state has SPIV disabled and LINT0 open. */
int lapic_set_state(struct lapic *l, const u8 page[LAPIC_PAGE_LEN])
{
	int err = set_identity(l, page);

	if (err)
		return err;
	lapic_timer_reset(l);
	copy_registers(l, page);
	for (u32 o = APIC_IRR; o < APIC_IRR + 0x80; o += 16)
		lapic_set_reg(l, o, page_get(page, o));
	__atomic_store_n(&l->irr_pending, 1, __ATOMIC_SEQ_CST);
	lapic_update_ppr(l);
	lapic_timer_restart(l, page_get(page, APIC_TMCCT));
	lapic_recheck(l);
	return 0;
}
