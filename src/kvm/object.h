/* SPDX-License-Identifier: MIT */
/*
 * What stands behind a file descriptor. Every KVM object is a memfd that clients hold by
 * descriptors of their own (re-opened, not duplicated, so that a lease can tell when the
 * last one is gone); the table maps (st_dev, st_ino) to the object, so dup, fcntl and
 * SCM_RIGHTS need no hook. Knows nothing of what the objects do.
 */
#ifndef ANYKVM_KVM_OBJECT_H
#define ANYKVM_KVM_OBJECT_H

#include "base/base.h"

#include <sys/types.h>

enum object_kind { OBJECT_SYSTEM, OBJECT_VM, OBJECT_VCPU, OBJECT_STATS, NR_OBJECT_KINDS };

struct object {
	/* set at creation */
	enum object_kind kind;
	int own; /* our open file description; -1: none */
	dev_t dev;
	ino_t ino;
	size_t size;
	void (*release)(struct object *o); /* no client holds it and no call is inside; NULL: never */
	/* under the table's lock */
	u32 refs; /* 1 while clients hold it, and 1 per call inside */
	bool published, closed;
	bool lingering; /* a client closed a descriptor of it, but others or mappings were left */
	struct object *next;
};

/*
 * Make the memfd, `size` bytes of zeroes, shown as /memfd:NAME. 0 or -errno. The object is
 * not in the table yet and has no client; object_destroy undoes it.
 */
MUSTCHECK int object_create(struct object *o, enum object_kind kind, const char *name, size_t size,
	void (*release)(struct object *o));

/* A descriptor for the client (open(2) flags: access mode and O_CLOEXEC), or -errno. */
MUSTCHECK int object_open(struct object *o, int flags);

/* Close our description. The memory is the caller's. The object is not in the table (any more). */
void object_destroy(struct object *o);

/* The object behind fd with a reference, or NULL. */
struct object *object_find(int fd);
/* Does fd seem to name this vCPU? Costs an ioctl and nothing that a VMM may have forbidden itself. */
bool object_is_still(const struct object *o, int fd);
void object_put(struct object *o);

/*
 * The same pair for ioctls: a vCPU stays with the thread, so that its next call on fd costs no
 * system call. What object_take found goes back with object_give, never with object_put.
 */
struct object *object_take(int fd, u32 *generation);
void object_give(struct object *o, int fd, u32 generation);

/* A descriptor has been closed, overwritten or given out: no thread may trust what it kept. */
void object_forget(void);

/*
 * A descriptor or mapping of a client has just gone: if it was the last, take the object out
 * of the table and drop its clients' reference. Caller has a reference of its own.
 */
void object_reap(struct object *o);

/* The same for all objects that were not reaped when one of their descriptors was closed. */
void object_sweep(void);

/*
 * For an interposer, cheap: does any object exist (false also when one has just been made in
 * another thread)? Is fd a number that was handed out or seen in a call since its last close?
 * A duplicate that no call has seen yet is missed; object_sweep finds what its close left.
 */
bool object_any(void);
bool object_fd_seen(int fd);
void object_fd_forget(int fd);

/* Clients' mappings lie inside one range, which only grows: [addr, addr + len) is one; may it touch one? */
void object_note_mapping(const void *addr, size_t len);
bool object_may_be_mapped(const void *addr, size_t len);

/*
 * At the process's end: fn for each object of a kind that clients hold. Other threads may still
 * run; if one of them will not let go of the table, nothing is done.
 */
void object_each(enum object_kind kind, void (*fn)(struct object *o));

/* Re-open a description of the file behind fd, or -errno. */
int fd_reopen(int fd, int flags);

#endif
