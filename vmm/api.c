// SPDX-License-Identifier: MIT
/*
 * The five KVM calls, of libanykvm or of a KVM device of the host. The rest
 * of vmm/ does not know which.
 */
#include "vmm.h"

#include <anykvm.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int device_open(const char *path, int flags)
{
	return open(path, flags);
}

const struct kvm_api api_library = {
	anykvm_open, anykvm_ioctl, anykvm_mmap, anykvm_munmap, anykvm_close,
};

const struct kvm_api api_device = {device_open, ioctl, mmap, munmap, close};
