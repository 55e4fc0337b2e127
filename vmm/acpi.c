// SPDX-License-Identifier: MIT
/*
 * The few ACPI tables that Linux needs to find processors and interrupt
 * controllers, to power off and to restart (ACPI 6.4; table revisions are of
 * ACPI 2.0). There is no device in the DSDT: what exists is found by probing.
 *
 *	RSDP -> XSDT -> FADT -> FACS, DSDT
 *	             -> MADT
 */
#include "vmm.h"

#include <string.h>

struct __attribute__((packed)) rsdp {
	char signature[8];
	u8 checksum;
	char oem[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
	u8 checksum_all;
	u8 reserved[3];
};

struct __attribute__((packed)) header {
	char signature[4];
	u32 length;
	u8 revision;
	u8 checksum;
	char oem[6], oem_table[8];
	u32 oem_revision;
	char creator[4];
	u32 creator_revision;
};

/* Generic address structure (ACPI 5.2.3.2) */
struct __attribute__((packed)) gas {
	u8 space, bits, offset, access;
	u64 address;
};
#define GAS_IO 1

struct __attribute__((packed)) fadt {
	struct header h;
	u32 facs, dsdt;
	u8 int_model, profile;
	u16 sci_int;
	u32 smi_cmd; /* 0: always in ACPI mode */
	u8 acpi_enable, acpi_disable, s4bios, pstate_cnt;
	u32 pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	u8 pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len;
	u8 gpe0_len, gpe1_len, gpe1_base, cst_cnt;
	u16 c2_latency, c3_latency, flush_size, flush_stride;
	u8 duty_offset, duty_width, day_alarm, month_alarm, century;
	u16 boot_arch;
	u8 reserved;
	u32 flags;
	struct gas reset;
	u8 reset_value;
	u16 arm_boot_arch;
	u8 minor;
	u64 x_facs, x_dsdt;
	struct gas x_blocks[8]; /* zero: the 32-bit fields count */
};
_Static_assert(sizeof(struct fadt) == 244, "ACPI 2.0 FADT");

#define FADT_WBINVD	  (1 << 0)
#define FADT_C1		  (1 << 2)
#define FADT_NO_POWER_KEY (1 << 4)
#define FADT_NO_SLEEP_KEY (1 << 5)
#define FADT_RESET_REG	  (1 << 10)
#define BOOT_LEGACY	  (1 << 0)
#define BOOT_NO_VGA	  (1 << 2)

struct __attribute__((packed)) facs {
	char signature[4];
	u32 length;
	u8 zero[56];
};

struct __attribute__((packed)) madt {
	struct header h;
	u32 lapic;
	u32 flags;
};
#define MADT_PCAT 1

struct __attribute__((packed)) madt_lapic {
	u8 type, length, uid, id;
	u32 flags;
};
struct __attribute__((packed)) madt_ioapic {
	u8 type, length, id, reserved;
	u32 address, gsi;
};
struct __attribute__((packed)) madt_override {
	u8 type, length, bus, irq;
	u32 gsi;
	u16 flags;
};
struct __attribute__((packed)) madt_nmi {
	u8 type, length, uid;
	u16 flags;
	u8 lint;
};

/*
 * The whole DSDT in AML (ACPI 20.2): Name (\_S5, Package (4) {5, 5, 0, 0}).
 * The first element is the SLP_TYP value that bus.c takes for power-off.
 */
static const u8 dsdt_aml[] = {
	0x08,			 /* NameOp */
	'\\', '_', 'S', '5', '_', /* NameString: root, _S5_ */
	0x12,			 /* PackageOp */
	0x08,			 /* PkgLength: itself and all that follows */
	0x04,			 /* NumElements */
	0x0a, ACPI_S5_TYPE,	 /* BytePrefix: SLP_TYPa */
	0x0a, ACPI_S5_TYPE,	 /* SLP_TYPb */
	0x00, 0x00,		 /* ZeroOp: reserved */
};

/* Where the next table goes. */
struct area {
	u8 *host;
	size_t used;
};

static u8 checksum(const void *p, size_t n)
{
	const u8 *b = p;
	u8 sum = 0;

	while (n--)
		sum += *b++;
	return -sum;
}

static void *take(struct area *a, size_t n, size_t align)
{
	void *p;

	a->used = (a->used + align - 1) & ~(align - 1);
	p = a->host + a->used;
	memset(p, 0, n);
	a->used += n;
	return p;
}

static u64 gpa_of(const struct area *a, const void *p)
{
	return ACPI_RSDP + ((const u8 *)p - a->host);
}

static void *table_start(struct area *a, const char *signature, u8 revision, size_t size)
{
	struct header *h = take(a, size, 16);

	memcpy(h->signature, signature, 4);
	h->revision = revision;
	memcpy(h->oem, "ANYKVM", 6);
	memcpy(h->oem_table, "ANYKVM  ", 8);
	h->oem_revision = 1;
	memcpy(h->creator, "ANYK", 4);
	h->creator_revision = 1;
	return h;
}

/* Closes the table that was taken last. */
static void table_end(struct area *a, void *table)
{
	struct header *h = table;

	h->length = a->host + a->used - (u8 *)table;
	h->checksum = checksum(h, h->length);
}

static u64 build_dsdt(struct area *a)
{
	u8 *t = table_start(a, "DSDT", 2, sizeof(struct header) + sizeof(dsdt_aml));

	memcpy(t + sizeof(struct header), dsdt_aml, sizeof(dsdt_aml));
	table_end(a, t);
	return gpa_of(a, t);
}

static u64 build_facs(struct area *a)
{
	struct facs *f = take(a, sizeof(*f), 64);

	memcpy(f->signature, "FACS", 4);
	f->length = sizeof(*f);
	return gpa_of(a, f);
}

static u64 build_fadt(struct area *a, u64 facs, u64 dsdt)
{
	struct fadt *f = table_start(a, "FACP", 3, sizeof(*f));

	f->facs = facs;
	f->dsdt = f->x_dsdt = dsdt;
	f->sci_int = ACPI_SCI;
	f->pm1a_evt = PORT_PM1_EVT;
	f->pm1_evt_len = 4;
	f->pm1a_cnt = PORT_PM1_CNT;
	f->pm1_cnt_len = 2;
	f->pm_tmr = PORT_PM_TMR;
	f->pm_tmr_len = 4;
	f->c2_latency = f->c3_latency = 0xffff; /* no such states */
	f->century = 0x32;
	f->boot_arch = BOOT_LEGACY | BOOT_NO_VGA; /* no 8042 bit: no keyboard */
	f->flags = FADT_WBINVD | FADT_C1 | FADT_NO_POWER_KEY | FADT_NO_SLEEP_KEY | FADT_RESET_REG;
	f->reset = (struct gas){.space = GAS_IO, .bits = 8, .access = 1, .address = PORT_RESET};
	f->reset_value = 6;
	table_end(a, f);
	return gpa_of(a, f);
}

static void madt_cpu(struct area *a, int id)
{
	*(struct madt_lapic *)take(a, sizeof(struct madt_lapic), 1) =
		(struct madt_lapic){0, sizeof(struct madt_lapic), id, id, 1};
}

static void madt_irq(struct area *a, u8 irq, u32 gsi, u16 flags)
{
	*(struct madt_override *)take(a, sizeof(struct madt_override), 1) =
		(struct madt_override){2, sizeof(struct madt_override), 0, irq, gsi, flags};
}

static u64 build_madt(struct area *a, int cpus)
{
	struct madt *m = table_start(a, "APIC", 3, sizeof(*m));
	int i;

	m->lapic = 0xfee00000;
	m->flags = MADT_PCAT;
	for (i = 0; i < cpus; i++)
		madt_cpu(a, i);
	*(struct madt_ioapic *)take(a, sizeof(struct madt_ioapic), 1) =
		(struct madt_ioapic){1, sizeof(struct madt_ioapic), cpus, 0, 0xfec00000, 0};
	madt_irq(a, 0, 2, 0); /* the PIT is on pin 2, as on a PC */
	madt_irq(a, ACPI_SCI, ACPI_SCI, 0xd); /* level, active high */
	*(struct madt_nmi *)take(a, sizeof(struct madt_nmi), 1) =
		(struct madt_nmi){4, sizeof(struct madt_nmi), 0xff, 0, 1};
	table_end(a, m);
	return gpa_of(a, m);
}

static u64 build_xsdt(struct area *a, u64 fadt, u64 madt)
{
	u8 *t = table_start(a, "XSDT", 1, sizeof(struct header) + 16);

	memcpy(t + sizeof(struct header), &fadt, 8);
	memcpy(t + sizeof(struct header) + 8, &madt, 8);
	table_end(a, t);
	return gpa_of(a, t);
}

size_t acpi_build(u8 *host, int cpus)
{
	struct area a = {.host = host};
	struct rsdp *r = take(&a, sizeof(*r), 16);
	u64 fadt, madt;

	fadt = build_fadt(&a, build_facs(&a), build_dsdt(&a));
	madt = build_madt(&a, cpus);
	memcpy(r->signature, "RSD PTR ", 8);
	memcpy(r->oem, "ANYKVM", 6);
	r->revision = 2;
	r->length = sizeof(*r);
	r->xsdt = build_xsdt(&a, fadt, madt);
	r->checksum = checksum(r, 20);
	r->checksum_all = checksum(r, sizeof(*r));
	return a.used;
}
