/* SPDX-License-Identifier: MIT */
/* The system object: what a descriptor of /dev/kvm is. One per process, never freed. */
#ifndef ANYKVM_KVM_SYSTEM_H
#define ANYKVM_KVM_SYSTEM_H

/* anykvm_open: descriptor or -errno. */
int system_open(int flags);

#endif
