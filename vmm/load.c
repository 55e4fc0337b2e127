// SPDX-License-Identifier: MIT
/*
 * The guest's memory before its first instruction, and the registers with
 * which the kernel's 64-bit entry point is entered (boot.rst, "64-bit boot
 * protocol"): identity-mapped pages, flat segments, boot_params in RSI.
 *
 *	0x00500   GDT
 *	0x07000   boot_params
 *	0x09000   PML4, PDPT, four PDs: 4 GiB in 2 MiB pages
 *	0x20000   command line
 *	0xe0000   ACPI tables (acpi.c)
 *	16 MiB    kernel (its pref_address)
 *	...       initrd, as high as it may
 */
#include "vmm.h"

#include <string.h>

#define GDT_AT	       0x500ull
#define BOOT_PARAMS_AT 0x7000ull
#define PML4_AT	       0x9000ull
#define PDPT_AT	       0xa000ull
#define PD_AT	       0xb000ull
#define CMDLINE_AT     0x20000ull
#define CMDLINE_MAX    0x10000ull
#define EBDA	       0x9fc00ull
#define ENTRY_64       0x200
/* SDM 3A 4.5: page-table entry bits */
#define PTE_P  1ull
#define PTE_RW 2ull
#define PTE_PS 0x80ull
/* selectors that boot.rst asks for */
#define BOOT_CS 0x10
#define BOOT_DS 0x18
#define BOOT_TR 0x20

u64 ram_low(u64 memory)
{
	return memory < LOW_RAM_END ? memory : LOW_RAM_END;
}

void *ram_at(const struct ram *ram, u64 gpa, u64 len)
{
	u64 off = gpa;

	if (gpa >= HIGH_RAM_START)
		off = gpa - HIGH_RAM_START + ram->low;
	else if (gpa > ram->low || len > ram->low - gpa)
		return NULL;
	if (off > ram->size || len > ram->size - off)
		return NULL;
	return ram->host + off;
}

/* The initrd goes to the highest place that the kernel and the memory allow. */
static int plan_initrd(struct plan *p, const struct image *img, size_t len, u64 low)
{
	u64 top = (u64)img->hdr.initrd_addr_max + 1;

	if (top > low)
		top = low;
	if (len > top || ((top - len) & ~4095ull) < p->kernel_end)
		return vmm_error("the initrd (%zu bytes) is too large: %lld bytes are free between "
				 "the kernel and %#llx", len,
				 top > p->kernel_end ? (long long)(top - p->kernel_end) : 0,
				 (unsigned long long)top);
	p->initrd = (top - len) & ~4095ull;
	p->initrd_len = len;
	return 0;
}

int plan_make(struct plan *p, const struct image *img, size_t initrd_len, size_t cmdline_len,
	      u64 memory)
{
	const struct setup_header *h = &img->hdr;
	u64 low = ram_low(memory), need = h->init_size;

	*p = (struct plan){.kernel = h->pref_address};
	if (need < img->code_len)
		need = img->code_len;
	p->kernel_end = p->kernel + need;
	if (cmdline_len > h->cmdline_size || cmdline_len >= CMDLINE_MAX)
		return vmm_error("the kernel command line is too long: %zu bytes, this kernel takes "
				 "%u", cmdline_len, h->cmdline_size);
	if (p->kernel < MIB || p->kernel > LOW_RAM_END)
		return vmm_error("kernel %s wants to be loaded at %#llx", img->path,
				 (unsigned long long)p->kernel);
	if (p->kernel_end > low)
		return vmm_error("too little memory: this kernel needs %lluM to unpack itself, "
				 "--memory gives %lluM",
				 (p->kernel_end + MIB - 1) / MIB, memory / MIB);
	if (initrd_len)
		return plan_initrd(p, img, initrd_len, low);
	return 0;
}

static void e820_add(struct boot_params *bp, u64 start, u64 end, u32 type)
{
	struct boot_e820_entry *e = &bp->e820_table[bp->e820_entries];

	if (start >= end)
		return;
	*e = (struct boot_e820_entry){.addr = start, .size = end - start, .type = type};
	bp->e820_entries++;
}

static void write_e820(struct boot_params *bp, const struct ram *ram)
{
	enum { RAM = 1, RESERVED = 2 };

	e820_add(bp, 0, EBDA, RAM);
	e820_add(bp, EBDA, 0xa0000, RESERVED);
	e820_add(bp, ACPI_RSDP, ACPI_END, RESERVED);
	e820_add(bp, MIB, ram->low, RAM);
	/* IOAPIC, LAPIC, the pages given to KVM_SET_TSS_ADDR */
	e820_add(bp, 0xfec00000, HIGH_RAM_START, RESERVED);
	e820_add(bp, HIGH_RAM_START, HIGH_RAM_START + ram->size - ram->low, RAM);
}

static void write_boot_params(const struct plan *p, const struct image *img, const struct ram *ram)
{
	struct boot_params *bp = ram_at(ram, BOOT_PARAMS_AT, sizeof(*bp));

	memset(bp, 0, sizeof(*bp));
	bp->hdr = img->hdr;
	bp->hdr.type_of_loader = 0xff; /* boot.rst: a loader without a number */
	bp->hdr.cmd_line_ptr = CMDLINE_AT;
	bp->hdr.ramdisk_image = p->initrd;
	bp->hdr.ramdisk_size = p->initrd_len;
	bp->acpi_rsdp_addr = ACPI_RSDP;
	write_e820(bp, ram);
}

static void write_page_tables(const struct ram *ram)
{
	u64 *pml4 = ram_at(ram, PML4_AT, 4096), *pdpt = ram_at(ram, PDPT_AT, 4096);
	u64 *pd = ram_at(ram, PD_AT, 4 * 4096);
	u64 i;

	memset(pml4, 0, 4096);
	memset(pdpt, 0, 4096);
	pml4[0] = PDPT_AT | PTE_P | PTE_RW;
	for (i = 0; i < 4; i++)
		pdpt[i] = (PD_AT + i * 4096) | PTE_P | PTE_RW;
	for (i = 0; i < 4 * 512; i++)
		pd[i] = i * 2 * MIB | PTE_P | PTE_RW | PTE_PS;
}

static void write_gdt(const struct ram *ram)
{
	u64 *gdt = ram_at(ram, GDT_AT, 6 * 8);

	memset(gdt, 0, 6 * 8);
	gdt[BOOT_CS / 8] = 0x00af9b000000ffff; /* 64-bit code, accessed */
	gdt[BOOT_DS / 8] = 0x00cf93000000ffff; /* flat data, accessed */
	gdt[BOOT_TR / 8] = 0x00008b0000000067; /* busy TSS at 0, never used */
}

void plan_load(const struct plan *p, const struct image *img, const u8 *initrd,
	       const char *cmdline, const struct ram *ram)
{
	write_gdt(ram);
	write_page_tables(ram);
	write_boot_params(p, img, ram);
	memcpy(ram_at(ram, CMDLINE_AT, CMDLINE_MAX), cmdline, strlen(cmdline) + 1);
	memcpy(ram_at(ram, p->kernel, img->code_len), img->file + img->code, img->code_len);
	if (p->initrd_len)
		memcpy(ram_at(ram, p->initrd, p->initrd_len), initrd, p->initrd_len);
}

void plan_registers(const struct plan *p, struct kvm_regs *r, struct kvm_sregs *s)
{
	struct kvm_segment data = {
		.selector = BOOT_DS, .limit = ~0u, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1,
	};

	memset(r, 0, sizeof(*r));
	r->rip = p->kernel + ENTRY_64;
	r->rsi = BOOT_PARAMS_AT;
	r->rsp = BOOT_PARAMS_AT; /* unused: the kernel sets up its own */
	r->rflags = 2;
	s->ds = s->es = s->fs = s->gs = s->ss = data;
	s->cs = data;
	s->cs.selector = BOOT_CS;
	s->cs.type = 11;
	s->cs.db = 0;
	s->cs.l = 1;
	s->tr = (struct kvm_segment){
		.selector = BOOT_TR, .limit = 0x67, .type = 11, .present = 1,
	};
	s->gdt.base = GDT_AT;
	s->gdt.limit = 6 * 8 - 1;
	s->cr3 = PML4_AT;
	s->cr4 = 1 << 5;		 /* PAE */
	s->cr0 = 1u << 31 | 1 << 4 | 1; /* PG, ET, PE */
	s->efer = 1 << 10 | 1 << 8;	 /* LMA, LME */
}
