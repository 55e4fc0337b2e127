/* SPDX-License-Identifier: MIT */
/*
 * anykvm: the Linux KVM API for x86-64 in user space.
 *
 * The interface is <linux/kvm.h> and KVM's documented ioctls, nothing else:
 * a program that uses /dev/kvm replaces open, ioctl, mmap, munmap and close by
 * the five calls below. Objects are named by real file descriptors, so fstat,
 * dup, fcntl, poll and SCM_RIGHTS work on them as on any other.
 *
 * Every call may be made from any thread, with KVM's own rules: KVM_RUN and
 * the other vCPU ioctls belong on the vCPU's thread. None of the calls exits
 * or aborts the process.
 */
#ifndef ANYKVM_H
#define ANYKVM_H

#include <linux/kvm.h>
#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Opens anykvm. `path` is "/dev/kvm", whether or not that file exists; any
 * other path fails with ENOENT. `flags` are open(2)'s: an access mode and
 * O_CLOEXEC count, the rest is ignored. Returns a descriptor that answers
 * KVM's system ioctls (KVM_GET_API_VERSION, KVM_CREATE_VM, ...), or -1 with
 * errno set and nothing opened.
 */
int anykvm_open(const char *path, int flags);

/*
 * ioctl(2) on a descriptor from anykvm_open() or one that an anykvm ioctl
 * returned (VM, vCPU, device, statistics). The third argument is a number or
 * a pointer, as KVM documents for `req`. Returns what KVM would return; on
 * failure -1 with KVM's errno. A descriptor that is not ours is passed on to
 * ioctl(2). KVM_RUN ends early with EINTR when a signal was handled on the
 * thread or when kvm_run.immediate_exit is set.
 */
int anykvm_ioctl(int fd, unsigned long req, ...);

/*
 * mmap(2) of a vCPU descriptor: kvm_run, the port I/O page and the coalesced
 * MMIO ring, KVM_GET_VCPU_MMAP_SIZE bytes; the dirty ring at
 * KVM_DIRTY_LOG_PAGE_OFFSET pages. A descriptor that is not ours, -1
 * included, is passed on to mmap(2). Returns MAP_FAILED with errno set.
 */
void *anykvm_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);

/* munmap(2), for mappings from anykvm_mmap() and all others. */
int anykvm_munmap(void *addr, size_t len);

/*
 * close(2). A VM lives until its last descriptor and its vCPUs' last
 * descriptors and mappings are gone, as in KVM.
 */
int anykvm_close(int fd);

#ifdef __cplusplus
}
#endif

#endif
