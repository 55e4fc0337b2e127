// SPDX-License-Identifier: MIT
/*
 * A Linux kernel image for x86-64 (bzImage), checked before it is used. The
 * facts are those of the kernel's Documentation/arch/x86/boot.rst ("boot.rst").
 * Not here: where it is put (load.c).
 */
#include "vmm.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADER_START 0x1f1
#define HEADER_MIN   0x202 /* up to the magic, that is the old header and the jump */
#define SECTOR	     512
#define HDRS	     0x53726448 /* "HdrS" */
#define FIRST_64BIT  0x020c	/* xloadflags came with protocol 2.12 */
#define ELF_MAGIC    "\177ELF"

/*
 * Copies the setup header. Its length is the target of the jump at 0x200:
 * older protocols have fewer fields (boot.rst, "64-bit boot protocol").
 */
static int header_copy(struct image *img)
{
	size_t len;

	if (img->size >= 4 && !memcmp(img->file, ELF_MAGIC, 4))
		return vmm_error("kernel %s is an ELF file (vmlinux?); give the bzImage, such as "
				 "/boot/vmlinuz-VERSION", img->path);
	if (img->size < HEADER_MIN + 4)
		return vmm_error("kernel %s is not a Linux kernel: %zu bytes are too few for its "
				 "header", img->path, img->size);
	len = HEADER_MIN + img->file[0x201] - HEADER_START;
	if (len > sizeof(img->hdr))
		len = sizeof(img->hdr);
	if (img->size - HEADER_START < len)
		len = img->size - HEADER_START;
	memset(&img->hdr, 0, sizeof(img->hdr));
	memcpy(&img->hdr, img->file + HEADER_START, len);
	if (img->hdr.boot_flag != 0xaa55 || img->hdr.header != HDRS)
		return vmm_error("kernel %s is not a Linux kernel (no boot flag or no HdrS magic)",
				 img->path);
	return 0;
}

static int header_check(const struct image *img)
{
	const struct setup_header *h = &img->hdr;

	if (h->version < FIRST_64BIT)
		return vmm_error("kernel %s is too old: boot protocol %d.%02d, 2.12 is needed",
				 img->path, h->version >> 8, h->version & 0xff);
	if (!(h->loadflags & LOADED_HIGH))
		return vmm_error("kernel %s is a zImage (it loads low); a bzImage is needed",
				 img->path);
	if (!(h->xloadflags & XLF_KERNEL_64))
		return vmm_error("kernel %s is a 32-bit kernel (no 64-bit entry point)", img->path);
	if (!h->init_size || !h->kernel_alignment)
		return vmm_error("kernel %s: its header does not say how much memory it needs",
				 img->path);
	return 0;
}

/* Finds the protected-mode code behind the setup sectors; all of it must be there. */
static int code_find(struct image *img)
{
	const struct setup_header *h = &img->hdr;
	u64 payload_end = (u64)h->payload_offset + h->payload_length;

	img->code = ((h->setup_sects ? h->setup_sects : 4) + 1) * SECTOR;
	img->code_len = (size_t)h->syssize * 16;
	if (img->size < img->code + img->code_len)
		return vmm_error("kernel %s is truncated: %zu bytes, its header says %zu",
				 img->path, img->size, img->code + img->code_len);
	/* the entry point is 0x200 into the code */
	if (img->code_len <= 0x200 || payload_end > img->code_len)
		return vmm_error("kernel %s is damaged: its payload ends beyond its code",
				 img->path);
	return 0;
}

static int image_read(struct image *img)
{
	int fd = file_open(img->path, "kernel", &img->size), r;

	if (fd < 0)
		return -1;
	r = file_load(fd, img->path, "kernel", &img->file, img->size);
	close(fd);
	return r;
}

int image_open(struct image *img, const char *path)
{
	*img = (struct image){.path = path};
	if (image_read(img) < 0)
		return -1;
	if (header_copy(img) < 0 || header_check(img) < 0 || code_find(img) < 0) {
		image_close(img);
		return -1;
	}
	return 0;
}

void image_close(struct image *img)
{
	free(img->file);
	*img = (struct image){0};
}
