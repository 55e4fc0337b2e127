/* SPDX-License-Identifier: MIT */
/*
 * The interrupt chips of one VM: local APICs, IOAPIC, the pair of 8259 PICs, the 8254
 * PIT, and the table that routes GSIs to them. Register semantics and state are KVM's.
 * Knows no <linux/kvm.h>: kvm/ copies the state structs below field by field (they hold
 * the same fields under the same names), and it knows no vCPU but as a number that it
 * passes back through the ops.
 *
 *   PIT --GSI 0--> route --> PIC ----INTR----> LVT0 of the LAPICs (ExtINT: virtual wire)
 *   irq_set_line ---^  '---> IOAPIC --message--> LAPIC.IRR --> lapic_pending, lapic_ack
 *   irq_send_msi --------------------message-----^      EOI --> IOAPIC, PIC --> ops->acked
 *
 * Locks. Each chip has a lock of its own, taken inside; callers need none but where a
 * function says "owner" (the thread that holds the vCPU, or any while it cannot run) or
 * "vm->lock". The ops kick, nmi, smi, init, sipi, eoi_exit and acked are called with no
 * lock of this folder held, from any thread that calls in. The ops now_ns,
 * tsc_deadline_ns, arm and disarm may be called under our locks and must not call back.
 */
#ifndef ANYKVM_IRQ_H
#define ANYKVM_IRQ_H

#include "base/base.h"

struct iobus;
struct irqchip; /* all chips of a VM but the LAPICs' own state */
struct lapic;	/* one local APIC; lives until irqchip_destroy */

#define IRQ_VCPUS_MAX  4096 /* vCPU numbers given to lapic_create are below this */
#define IOAPIC_PINS    24
#define PIC_PINS       16
#define IRQ_GSI_MAX    4096 /* KVM_MAX_IRQ_ROUTES */
#define IOAPIC_BASE    0xfec00000ul
#define LAPIC_BASE     0xfee00000ul
#define LAPIC_PAGE_LEN 1024 /* bytes of struct kvm_lapic_state */

/*
 * A deadline of ours in the caller's queue. The last four fields belong to whoever
 * implements arm and disarm: zeroed at creation and never touched here.
 */
struct irq_timer {
	void (*fire)(struct irq_timer *t);
	u64 deadline_ns; /* queue: key */
	size_t pos;	 /* queue: place in a heap */
	struct irq_timer *next, *prev;
};

struct irqchip_ops {
	/*
	 * Something may have become deliverable for this vCPU: wake it from HLT and make
	 * it look at irq_pending again. Also called by the vCPU's own thread, when an EOI
	 * or a lower TPR uncovers an interrupt.
	 */
	void (*kick)(void *vm, unsigned int vcpu);

	/* Events that a LAPIC delivers beside the IRR; they imply a kick. */
	void (*nmi)(void *vm, unsigned int vcpu);
	void (*smi)(void *vm, unsigned int vcpu);
	void (*init)(void *vm, unsigned int vcpu);
	void (*sipi)(void *vm, unsigned int vcpu, u8 vector);

	/*
	 * Split irqchip only: the vCPU's own thread has just written EOI for a vector that
	 * a level-triggered route of the user-space IOAPIC uses: leave with
	 * KVM_EXIT_IOAPIC_EOI. May be NULL.
	 */
	void (*eoi_exit)(void *vm, unsigned int vcpu, u8 vector);

	/*
	 * The guest has acknowledged an interrupt that came by this GSI (EOI at IOAPIC or
	 * PIC): resample irqfds lower their line and signal. May be NULL. May call
	 * irq_set_line.
	 */
	void (*acked)(void *vm, unsigned int gsi);

	/* CLOCK_MONOTONIC or the like; never steps back. */
	u64 (*now_ns)(void *vm);

	/* When, on that clock, this vCPU's TSC reaches `tsc`; 0 or any time past if it has. */
	u64 (*tsc_deadline_ns)(void *vm, unsigned int vcpu, u64 tsc);

	/*
	 * Have t->fire(t) called at deadline_ns or later, once, from a thread that holds no
	 * lock which arm and disarm take. Arming an armed timer moves it. A fire that
	 * overtakes a disarm or a re-arm is harmless: the timer checks its own deadline.
	 */
	void (*arm)(void *vm, struct irq_timer *t, u64 deadline_ns);
	void (*disarm)(void *vm, struct irq_timer *t);
};

/* ---- the whole ---- */

enum irqchip_kind {
	IRQCHIP_FULL,  /* KVM_CREATE_IRQCHIP: LAPICs, PIC pair, IOAPIC; default routing table */
	IRQCHIP_SPLIT, /* KVM_CAP_SPLIT_IRQCHIP: LAPICs and MSI routes; empty routing table */
};

/*
 * pins (split only): number of GSIs, from 0, that belong to the user-space IOAPIC. NULL:
 * out of memory. ops and vm must outlive the chip.
 */
struct irqchip *irqchip_create(
	enum irqchip_kind kind, unsigned int pins, const struct irqchip_ops *ops, void *vm);

/* No thread may be inside, and no timer may fire any more. Frees the LAPICs too. */
void irqchip_destroy(struct irqchip *c);

bool irqchip_is_split(const struct irqchip *c);

/*
 * Put PIC (ports 20, 21, a0, a1, 4d0, 4d1) and IOAPIC on the buses, or take them off.
 * Nothing to do for a split chip. Caller holds vm->lock. 0 or iobus_add's error, with
 * nothing left registered.
 */
MUSTCHECK int irqchip_attach(struct irqchip *c, struct iobus *mmio, struct iobus *pio);
void irqchip_detach(struct irqchip *c, struct iobus *mmio, struct iobus *pio);

/* KVM_CAP_X2APIC_API's two flags. Caller holds vm->lock. Values as in the uapi. */
#define X2APIC_API_32BIT_IDS	      BIT(0)
#define X2APIC_API_NO_BROADCAST_QUIRK BIT(1)
void irqchip_set_x2apic_api(struct irqchip *c, u64 flags);

/* ---- lines, messages and routes; any thread ---- */

/* Who drives a line; a pin's level is the OR of its sources. */
enum irq_source {
	IRQ_SOURCE_USER,     /* KVM_IRQ_LINE, irqfd without resample */
	IRQ_SOURCE_RESAMPLE, /* all resample irqfds together */
	IRQ_SOURCE_PIT,
	IRQ_SOURCES
};

/*
 * Set the level of a GSI, through the routing table. For an MSI route level 1 sends the
 * message and 0 does nothing. Result as KVM_IRQ_LINE_STATUS: number delivered (> 0), 0
 * coalesced with one still pending, -1 ignored (masked, no route, no such destination).
 */
int irq_set_line(struct irqchip *c, enum irq_source source, unsigned int gsi, bool level);

/* KVM_SIGNAL_MSI: > 0 delivered, 0 the guest blocked it, -1 no such destination. */
int irq_send_msi(struct irqchip *c, u64 address, u32 data);

enum irq_delivery { /* SDM 3A 10.6.1, the delivery mode field */
	IRQ_FIXED = 0,
	IRQ_LOWEST = 1,
	IRQ_SMI = 2,
	IRQ_REMOTE_READ = 3,
	IRQ_NMI = 4,
	IRQ_INIT = 5,
	IRQ_SIPI = 6,
	IRQ_EXTINT = 7,
};
enum irq_shorthand { IRQ_TO_DEST, IRQ_TO_SELF, IRQ_TO_ALL, IRQ_TO_OTHERS };

/* An interrupt message on the bus between the APICs. */
struct irq_msg {
	u32 dest;   /* APIC ID or logical mask; 8 or 32 bits wide by its sender's mode */
	u8 vector;
	u8 delivery;	/* enum irq_delivery */
	u8 shorthand;	/* enum irq_shorthand; others than IRQ_TO_DEST need source */
	bool logical;
	bool level;	/* asserted; false is a de-assert: only INIT level de-assert exists */
	bool trigger;	/* true: level-triggered */
	struct lapic *source; /* the sender, of an IPI; NULL: a device */
};

/* Deliver to every LAPIC that the message selects. Same result as irq_send_msi. */
int irq_deliver(struct irqchip *c, const struct irq_msg *m);

enum irq_chip_id { IRQ_CHIP_PIC_MASTER, IRQ_CHIP_PIC_SLAVE, IRQ_CHIP_IOAPIC }; /* uapi values */

/* One entry of KVM_SET_GSI_ROUTING. */
struct irq_route {
	u32 gsi;
	enum irq_route_kind { IRQ_ROUTE_CHIP = 1, IRQ_ROUTE_MSI = 2 } kind; /* uapi values */
	u32 chip, pin;	 /* CHIP: enum irq_chip_id; pin 0..7 of that PIC or 0..23 */
	u64 msi_address; /* MSI: address_hi:address_lo */
	u32 msi_data;
};

/*
 * Replace the routing table by these entries. 0; -EINVAL (gsi or pin out of range, a chip
 * entry in a split chip, a GSI twice on one chip or beside an MSI, bad MSI address);
 * -ENOMEM. On error the old table stays. Caller holds vm->lock.
 */
MUSTCHECK int irq_set_routes(struct irqchip *c, const struct irq_route *r, size_t n);

/* Is there an MSI route for this GSI (irqfd picks its path by it)? Fills *r if so. */
bool irq_msi_route(struct irqchip *c, unsigned int gsi, struct irq_route *r);

/* ---- what a vCPU asks ---- */

/*
 * Is an interrupt deliverable to this vCPU now, from the PIC (ExtINT) or from its LAPIC?
 * IF, shadows and injection are the caller's business. Owner, cheap when nothing pends.
 * irq_ack gives its vector, and moves it from IRR to ISR (-1: gone meanwhile). With a
 * split chip, ExtINT is KVM_INTERRUPT's vector: the caller keeps it, asks
 * lapic_accepts_pic, and takes it before irq_ack.
 */
bool irq_pending(struct lapic *l);
int irq_ack(struct lapic *l);

/* ---- local APIC ---- */

/*
 * The LAPIC of vCPU number `vcpu`, in its reset state (kvm: KVM_CREATE_VCPU). bsp: this
 * is the bootstrap processor (BSP bit, LVT0 = ExtINT). Caller holds vm->lock. NULL: out
 * of memory or number in use. It takes part in delivery from now on.
 */
struct lapic *lapic_create(struct irqchip *c, unsigned int vcpu, u32 apic_id, bool bsp);

/* The LAPIC of vCPU number `vcpu` or NULL. Any thread. */
struct lapic *lapic_of(struct irqchip *c, unsigned int vcpu);

/* vCPU number whose APIC ID is this one (x2APIC ID), or -1. Any thread. */
int lapic_find(struct irqchip *c, u32 apic_id);

/*
 * What CPUID says: physical address bits, x2APIC and TSC-deadline bits. Until called: 36
 * bits, neither. Owner.
 */
void lapic_set_features(struct lapic *l, unsigned int maxphyaddr, bool x2apic, bool tsc_deadline);

/* Power-up reset (init = false) or INIT (keeps APIC base and ID). Owner. */
void lapic_reset(struct lapic *l, bool init);

/*
 * IA32_APIC_BASE. set: host = from KVM_SET_MSRS/SREGS, which may make any valid mode of
 * any other. False, and nothing changed: #GP (guest) or -EINVAL (host). Owner.
 * After it the CPUID bit APIC follows lapic_enabled.
 */
u64 lapic_get_base(const struct lapic *l);
MUSTCHECK bool lapic_set_base(struct lapic *l, u64 base, bool host);
bool lapic_enabled(const struct lapic *l); /* IA32_APIC_BASE.EN */
bool lapic_is_x2apic(const struct lapic *l);

/* Is gpa in the page that IA32_APIC_BASE names? Owner. */
bool lapic_is_at(const struct lapic *l, gpa_t gpa);

/*
 * xAPIC registers at gpa. 0 = the page is ours (data filled, or write taken), -EOPNOTSUPP =
 * not in the page. In x2APIC mode or when disabled the page reads as ones and ignores
 * writes (KVM's default quirk). Accesses that are not 32 bits at a multiple of 16 are
 * ignored, as KVM does. Owner.
 */
MUSTCHECK int lapic_mmio_read(struct lapic *l, gpa_t gpa, unsigned int len, void *data);
MUSTCHECK int lapic_mmio_write(struct lapic *l, gpa_t gpa, unsigned int len, const void *data);

/* x2APIC MSRs 800..8ff. False = #GP (also when not in x2APIC mode). Owner. */
MUSTCHECK bool lapic_msr_read(struct lapic *l, u32 msr, u64 *value);
MUSTCHECK bool lapic_msr_write(struct lapic *l, u32 msr, u64 value);

/* IA32_TSC_DEADLINE: 0 / ignored when the LVT timer is in another mode. Owner. */
u64 lapic_get_tsc_deadline(struct lapic *l);
void lapic_set_tsc_deadline(struct lapic *l, u64 tsc);

/* The vCPU's TSC was set or rescaled: an armed TSC deadline moves with it. Owner. */
void lapic_tsc_changed(struct lapic *l);

/* CR8 = TPR[7:4]. Owner. */
u8 lapic_get_cr8(const struct lapic *l);
void lapic_set_cr8(struct lapic *l, u8 cr8);

/*
 * pending: highest vector of IRR that PPR lets through, or -1; one load when the IRR is
 * empty. ack: move the highest such vector to ISR and return it, or -1. Owner.
 */
int lapic_pending(struct lapic *l);
int lapic_ack(struct lapic *l);

/* Is INTR of the PIC (or KVM_INTERRUPT's vector) wired through? LVT0 is ExtINT, or APIC off. */
bool lapic_accepts_pic(const struct lapic *l);

/* Pins and sources of the local vector table that others drive. Any thread. */
enum lapic_lvt { LAPIC_LVT_THERMAL = 1, LAPIC_LVT_PMC, LAPIC_LVT_LINT0, LAPIC_LVT_LINT1 };
void lapic_local_interrupt(struct lapic *l, enum lapic_lvt lvt);

/*
 * The register page of KVM_GET_LAPIC / KVM_SET_LAPIC: register at offset o in bytes o..o+3.
 * IA32_APIC_BASE and IA32_TSC_DEADLINE travel apart, the base first. set: 0 or -EINVAL
 * (x2APIC ID differs, with X2APIC_API_32BIT_IDS). A kick follows if something pends. Owner.
 */
void lapic_get_state(struct lapic *l, u8 page[LAPIC_PAGE_LEN]);
MUSTCHECK int lapic_set_state(struct lapic *l, const u8 page[LAPIC_PAGE_LEN]);

/* ---- PIC pair; IRQCHIP_FULL only; any thread ---- */

/* Ports 20, 21, a0, a1, 4d0, 4d1. */
u8 pic_read(struct irqchip *c, u16 port);
void pic_write(struct irqchip *c, u16 port, u8 value);

struct pic_state { /* the fields of struct kvm_pic_state */
	u8 last_irr, irr, imr, isr;
	u8 priority_add, irq_base, read_reg_select, poll;
	u8 special_mask, init_state, auto_eoi, rotate_on_auto_eoi;
	u8 special_fully_nested_mode, init4, elcr, elcr_mask;
};
void pic_get_state(struct irqchip *c, bool slave, struct pic_state *s);
void pic_set_state(struct irqchip *c, bool slave, const struct pic_state *s);

/* ---- IOAPIC; IRQCHIP_FULL only; any thread ---- */

/* Offset 0 (IOREGSEL) and 10 (IOWIN) in the chip's 256 bytes; others read 0. len 1..8. */
void ioapic_read(struct irqchip *c, u32 offset, unsigned int len, void *data);
void ioapic_write(struct irqchip *c, u32 offset, unsigned int len, const void *data);

struct ioapic_state { /* the fields of struct kvm_ioapic_state */
	u64 base_address;
	u32 ioregsel, id, irr;
	u64 redirtbl[IOAPIC_PINS]; /* .bits */
};
void ioapic_get_state(struct irqchip *c, struct ioapic_state *s);
void ioapic_set_state(struct irqchip *c, const struct ioapic_state *s);

/* ---- PIT; any thread ---- */

#define PIT_SPEAKER_DUMMY 1 /* KVM_CREATE_PIT2: port 61 is ours too */

/*
 * Add the PIT to a full irqchip and to the bus (ports 40..43; 61 by the flag). Caller holds
 * vm->lock. 0, -EEXIST, -ENOENT (split chip), -ENOMEM or iobus_add's error. pio may be NULL.
 */
MUSTCHECK int pit_create(struct irqchip *c, u32 flags, struct iobus *pio);
bool pit_exists(const struct irqchip *c);

/* Ports 40..43 and 61. */
u8 pit_read(struct irqchip *c, u16 port);
void pit_write(struct irqchip *c, u16 port, u8 value);

#define PIT_FLAGS_HPET_LEGACY	  1 /* channel 0 does not tick: the HPET does */
#define PIT_FLAGS_SPEAKER_DATA_ON 2

struct pit_state { /* the fields of struct kvm_pit_state2 */
	struct pit_channel_state {
		u32 count; /* 1..65536; 0 before the first load */
		u16 latched_count;
		u8 count_latched, status_latched, status;
		u8 read_state, write_state, write_latch, rw_mode;
		u8 mode, bcd, gate;
		s64 count_load_time; /* ns on now_ns's clock; ignored by set: it starts anew */
	} channels[3];
	u32 flags;
};
void pit_get_state(struct irqchip *c, struct pit_state *s);
void pit_set_state(struct irqchip *c, const struct pit_state *s);

/* KVM_REINJECT_CONTROL: deliver late ticks after an acknowledged one (default), or drop them. */
void pit_set_reinject(struct irqchip *c, bool reinject);
bool pit_get_reinject(struct irqchip *c);

#endif
