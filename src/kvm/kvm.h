/* SPDX-License-Identifier: MIT */
/*
 * kvm/ for the shim: beside the calls of anykvm.h, what only an interposer can know.
 */
#ifndef ANYKVM_KVM_KVM_H
#define ANYKVM_KVM_KVM_H

#include "kvm/object.h"

/* A signal handler of the program is running on this thread. Async-signal-safe. */
void vcpu_note_signal(void);

#endif
