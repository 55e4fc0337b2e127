/* SPDX-License-Identifier: MIT */
/*
 * The in-process device bus: one for MMIO, one for port I/O. Devices are tried in the
 * order of registration among all that overlap the access; the first that accepts ends the
 * search (SEED rule 22). ioeventfds and coalesced zones are devices like any other.
 * The set is an immutable snapshot swapped by iobus_add/iobus_remove.
 */
#ifndef ANYKVM_IOBUS_H
#define ANYKVM_IOBUS_H

#include "base/base.h"

struct iodev_ops {
	/* 0 = accepted, data filled; -EOPNOTSUPP = not mine. addr is absolute (GPA or port), len 1..8. */
	int (*read)(void *dev, u64 addr, unsigned int len, void *data);
	int (*write)(void *dev, u64 addr, unsigned int len, const void *data);
	void (*destroy)(void *dev); /* last reference to the snapshot is gone; may be NULL */
};

struct iobus;

struct iobus *iobus_create(void);
void iobus_destroy(struct iobus *b); /* destroys the devices too */

/*
 * Register dev for [addr, addr+len) (len 0: any access that starts at addr). Caller holds
 * vm->lock. 0, -ENOSPC (more than 1000 devices, KVM's limit) or -ENOMEM.
 */
MUSTCHECK int iobus_add(struct iobus *b, u64 addr, u64 len, const struct iodev_ops *ops, void *dev);

/*
 * Remove all ranges of dev and destroy it. 0 or -ENOENT. Caller holds vm->lock, and is
 * not inside any device: returns when no thread is inside the device any more.
 */
int iobus_remove(struct iobus *b, void *dev);

/* Is there a device for any access that starts at addr (len 0)? Any thread. */
bool iobus_has_any_length(struct iobus *b, u64 addr);

/* One access of 1..8 bytes. 0 = a device took it, -EOPNOTSUPP = nobody. Any thread. */
MUSTCHECK int iobus_read(struct iobus *b, u64 addr, unsigned int len, void *data);
MUSTCHECK int iobus_write(struct iobus *b, u64 addr, unsigned int len, const void *data);

#endif
