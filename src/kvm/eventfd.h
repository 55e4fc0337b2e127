/* SPDX-License-Identifier: MIT */
/* The client's eventfds, as irqfds and ioeventfds hold them. */
#ifndef ANYKVM_KVM_EVENTFD_H
#define ANYKVM_KVM_EVENTFD_H

#include "base/base.h"

/* A descriptor of our own for the client's eventfd; -EBADF, -EINVAL (no eventfd) or -EMFILE. */
MUSTCHECK int eventfd_hold(int fd);

/* Do two descriptors name the same eventfd? */
bool eventfd_same(int a, int b);

void eventfd_raise(int fd);  /* add 1; never blocks for long */
bool eventfd_drain(int fd);  /* take the count; false: it was 0. Never blocks */

#endif
