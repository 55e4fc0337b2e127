/* SPDX-License-Identifier: MIT */
/*
 * kvm/ for the shim: beside the calls of anykvm.h, what only an interposer can know.
 */
#ifndef ANYKVM_KVM_KVM_H
#define ANYKVM_KVM_KVM_H

#include "kvm/object.h"

/* A signal handler of the program is running on this thread. Async-signal-safe. */
void vcpu_note_signal(void);

/* May this thread be cancelled anywhere from now on (pthread_setcanceltype)? */
void vcpu_note_cancel_type(bool anywhere);

/*
 * SIGSEGV or SIGBUS at `addr` on this thread. true: it is guest memory that KVM_RUN's own code
 * touched; *context (ucontext_t) has been changed so that KVM_RUN ends with EFAULT when the
 * handler returns. false: not ours, nothing has changed. Async-signal-safe.
 */
bool vcpu_memory_fault(void *addr, void *context);

/* The same for a pointer that the client gave to an ioctl: the ioctl fails with EFAULT. */
bool uaccess_fault(void *context);

/* From now on every SIGSEGV and SIGBUS comes to the two above first. */
void uaccess_catch(void);

#endif
