/* SPDX-License-Identifier: MIT */
/*
 * What the chips of this folder know of each other. Read irq.h first.
 *
 * Order of locks: pit, then ioapic or pic, then a LAPIC's timer, then routes; no two
 * chips' locks are held together: a chip decides under its lock what to send, and sends
 * after dropping it. LAPIC registers need no lock: the owner writes them, others read
 * them, IRR and TMR are set by anybody; all by atomic words.
 */
#ifndef ANYKVM_IRQ_IMPL_H
#define ANYKVM_IRQ_IMPL_H

#include <pthread.h>

#include "irq/irq.h"

/* Relaxed access to words that several threads read and write. */
#define get(p)	  __atomic_load_n(p, __ATOMIC_RELAXED)
#define put(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)

struct routes;
struct ioapic;
struct pic;
struct pit;

/* One range on the bus. */
struct irq_port {
	struct irqchip *chip;
	u64 base;
};

enum { PORT_PIC_MASTER, PORT_PIC_SLAVE, PORT_ELCR, PORT_IOAPIC, PORT_PIT, PORT_SPEAKER, PORTS };

struct irqchip {
	/* set at creation */
	enum irqchip_kind kind;
	unsigned int split_pins;
	const struct irqchip_ops *ops;
	void *vm;
	struct irq_port port[PORTS];
	struct ioapic *ioapic; /* NULL: split */
	struct pic *pic;       /* NULL: split */

	/* written under vm->lock, read by any thread: atomic */
	struct pit *pit;
	u64 x2apic_api;
	unsigned int nr_lapics; /* highest number in use + 1 */
	bool renamed;	/* an xAPIC ID register was given another ID than its vCPU's */
	struct lapic *lapic[IRQ_VCPUS_MAX];

	pthread_mutex_t routes_lock; /* to swap or reference the table below */
	struct routes *routes;
};

/* Registers at their xAPIC offset (SDM 3A table 10-1). */
enum {
	APIC_ID = 0x020,
	APIC_VERSION = 0x030,
	APIC_TPR = 0x080,
	APIC_APR = 0x090,
	APIC_PPR = 0x0a0,
	APIC_EOI = 0x0b0,
	APIC_RRD = 0x0c0,
	APIC_LDR = 0x0d0,
	APIC_DFR = 0x0e0,
	APIC_SPIV = 0x0f0,
	APIC_ISR = 0x100,
	APIC_TMR = 0x180,
	APIC_IRR = 0x200,
	APIC_ESR = 0x280,
	APIC_ICR = 0x300,
	APIC_ICR2 = 0x310,
	APIC_LVTT = 0x320,
	APIC_LVTTHMR = 0x330,
	APIC_LVTPC = 0x340,
	APIC_LVT0 = 0x350,
	APIC_LVT1 = 0x360,
	APIC_LVTERR = 0x370,
	APIC_TMICT = 0x380,
	APIC_TMCCT = 0x390,
	APIC_TDCR = 0x3e0,
	APIC_SELF_IPI = 0x3f0,
};

#define APIC_BASE_BSP	 BIT(8)
#define APIC_BASE_X2APIC BIT(10)
#define APIC_BASE_ENABLE BIT(11)

#define SPIV_ENABLE   0x100u
#define LVT_MASKED    0x10000u
#define LVT_LEVEL     0x8000u
#define LVT_MODE(lvt) (((lvt) >> 8) & 7)

#define ESR_SEND_VECTOR	   BIT(5)
#define ESR_RECEIVE_VECTOR BIT(6)
#define ESR_REGISTER	   BIT(7)

/* LVT timer mode, bits 18:17 (SDM 3A 10.5.1). */
enum { TIMER_ONESHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE, TIMER_RESERVED };

struct lapic {
	/* set at creation */
	struct irqchip *chip;
	unsigned int vcpu;
	u32 id; /* x2APIC ID; the xAPIC ID after reset is its low byte */
	bool bsp;

	/* owner thread only */
	bool has_x2apic, has_tsc_deadline;
	unsigned int maxphyaddr;

	/* written by the owner, read by all: atomic */
	u64 base;
	u32 reg[LAPIC_PAGE_LEN / 16];

	/* written by all: atomic, as reg[] of IRR and TMR */
	u32 irr_pending; /* 0: IRR is empty */
	u32 errors;	 /* what the next write of ESR shows */
	u32 arbitrated;	 /* lowest-priority interrupts won */

	/* under timer_lock; LVTT, TMICT and TDCR are written under it too */
	pthread_mutex_t timer_lock;
	struct irq_timer timer;
	bool armed;
	u64 deadline_ns, period_ns;
	u64 tsc_deadline;
};

static inline u32 lapic_reg(const struct lapic *l, u32 offset)
{
	return get(&l->reg[offset / 16]);
}

static inline void lapic_set_reg(struct lapic *l, u32 offset, u32 v)
{
	put(&l->reg[offset / 16], v);
}

/* The bit of a vector in one of the 256-bit registers ISR, TMR, IRR. */
static inline u32 *lapic_vector_word(struct lapic *l, u32 offset, u8 vector)
{
	return &l->reg[offset / 16 + vector / 32];
}

/* The LAPIC of number i, for loops up to nr_lapics; NULL where there is none. */
static inline struct lapic *lapic_at(const struct irqchip *c, unsigned int i)
{
	return __atomic_load_n(&c->lapic[i], __ATOMIC_ACQUIRE);
}

/* lapic.c */
int lapic_highest(const struct lapic *l, u32 offset); /* vector in ISR, TMR or IRR, or -1 */
void lapic_update_ppr(struct lapic *l);
void lapic_recheck(struct lapic *l); /* owner: kick itself if something is deliverable */
void lapic_mask_lvts(struct lapic *l);

/* lapic_state.c; owner */
void lapic_set_xapic_id(struct lapic *l, u32 reg);

/* lapic_icr.c */
void lapic_write_icr(struct lapic *l, u32 low, u32 dest);
void lapic_self_ipi(struct lapic *l, u8 vector);

/* lapic_deliver.c; no lock held */
bool lapic_accept(struct lapic *l, const struct irq_msg *m); /* true: delivered */
void lapic_deliver_lvt(struct lapic *l, u32 lvt_offset);
void lapic_error(struct lapic *l, u32 esr_bit);

/* lapic_timer.c; owner */
void lapic_timer_init(struct lapic *l);
void lapic_timer_reset(struct lapic *l);
void lapic_timer_write_lvt(struct lapic *l, u32 lvt);
void lapic_timer_write_count(struct lapic *l, u32 count);
void lapic_timer_write_divide(struct lapic *l, u32 tdcr);
u32 lapic_timer_current(struct lapic *l);
void lapic_timer_expire(struct lapic *l);     /* deliver now if due and not yet fired */
void lapic_timer_restart(struct lapic *l, u32 current); /* registers were set; count goes on there */

/* ioapic.c */
struct ioapic *ioapic_create(void);
void ioapic_destroy(struct ioapic *a);
int ioapic_set_line(struct irqchip *c, enum irq_source source, unsigned int pin, bool level);
void ioapic_eoi(struct irqchip *c, u8 vector, bool level);

/* pic.c */
struct pic *pic_create(void);
void pic_destroy(struct pic *p);
int pic_set_line(struct irqchip *c, enum irq_source source, unsigned int line, bool level);
bool pic_output(const struct irqchip *c); /* INTR is raised */
int pic_ack(struct irqchip *c);		  /* INTA cycle: vector, spurious if INTR fell */

/* attach.c */
int pit_attach(struct irqchip *c, bool speaker, struct iobus *pio);

/* pit.c */
void pit_destroy(struct pit *p);
void pit_acked(struct irqchip *c);    /* the guest acknowledged GSI 0 */
void pit_unmasked(struct irqchip *c); /* a pin of GSI 0 was unmasked: forget late ticks */

/* route.c */
MUSTCHECK int routes_init(struct irqchip *c);
void routes_destroy(struct irqchip *c);
int route_gsi(struct irqchip *c, enum irq_chip_id chip, unsigned int pin); /* or -1 */
bool route_has_level_msi(struct irqchip *c, u8 vector); /* below split_pins */

/* irqchip.c; no lock held */
void irqchip_eoi(struct lapic *l, u8 vector, bool level);
void irqchip_acked(struct irqchip *c, enum irq_chip_id chip, unsigned int pin);
void irqchip_unmasked(struct irqchip *c, enum irq_chip_id chip, unsigned int pin);

#endif
