// SPDX-License-Identifier: MIT
/*
 * The five public calls, and the way of an ioctl from a descriptor to its handler. What the
 * requests do is in the files of their objects; what they are called with, in ioctls.def.
 */
#include "kvm/ioctl.h"

#include "anykvm.h"
#include "base/cancel.h"
#include "kvm/system.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum direction { DIR_ZERO, DIR_NONE, DIR_IN, DIR_OUT, DIR_INOUT };

/* The rows of a kind stay together, the hot ones first: see ioctls.def. */
static const struct ioctl_row {
	u32 request;
	u8 kind, direction;
	ioctl_fn *fn;
} rows[] = {
#define IOCTL(kind, request, direction, fn) {request, OBJECT_##kind, DIR_##direction, fn},
#include "kvm/ioctls.def"
#undef IOCTL
};

/* Number of the first row of each kind. */
enum {
#define IOCTL(kind, request, direction, fn) ROW_##kind##_##request,
#include "kvm/ioctls.def"
#undef IOCTL
};
static const u8 first_row[NR_OBJECT_KINDS] = {
	[OBJECT_SYSTEM] = ROW_SYSTEM_KVM_GET_API_VERSION,
	[OBJECT_VM] = ROW_VM_KVM_IRQ_LINE,
	[OBJECT_VCPU] = ROW_VCPU_KVM_RUN,
	[OBJECT_STATS] = ARRAY_SIZE(rows),
};

static const struct ioctl_row *find_row(enum object_kind kind, unsigned long req)
{
	for (size_t i = first_row[kind]; i < ARRAY_SIZE(rows) && rows[i].kind == kind; i++)
		if (rows[i].request == (u32)req)
			return &rows[i];
	return NULL;
}

/* Out of line: the argument's buffer shall not weigh on KVM_RUN's stack. */
static NOINLINE long call_with_copy(const struct ioctl_row *row, struct ioc *c)
{
	u8 buf[4096] __attribute__((aligned(16)));
	size_t size = _IOC_SIZE(row->request);
	bool in = row->direction == DIR_IN || row->direction == DIR_INOUT;
	long r;

	if (size > sizeof(buf))
		return -EINVAL;
	if (in && copy_in(buf, c->uptr, size))
		return -EFAULT;
	if (!in)
		memset(buf, 0, size);
	c->arg = buf;
	r = row->fn(c);
	if (r >= 0 && row->direction != DIR_IN && copy_out(c->uptr, buf, size))
		return -EFAULT;
	return r;
}

static long call(const struct ioctl_row *row, struct ioc *c)
{
	long r;

	if (row->direction == DIR_ZERO && c->uptr)
		return -EINVAL;
	if (c->vcpu)
		pthread_mutex_lock(&c->vcpu->mutex);
	r = row->direction >= DIR_IN ? call_with_copy(row, c) : row->fn(c);
	if (c->vcpu)
		pthread_mutex_unlock(&c->vcpu->mutex);
	return r;
}

/* KVM_RUN is called so often that it pays to turn cancellation off only where it must be. */
static long call_uncancelled(const struct ioctl_row *row, struct ioc *c)
{
	int state;
	long r;

	if (row->fn == vcpu_ioctl_run)
		return call(row, c);
	state = cancel_off();
	r = call(row, c);
	cancel_back(state);
	return r;
}

static long object_ioctl(struct object *o, unsigned long req, u64 arg, int cancel_type)
{
	struct ioc c = {.obj = o, .uptr = arg, .cancel_type = cancel_type};
	const struct ioctl_row *row;

	switch (o->kind) {
	case OBJECT_VM:
		c.vm = container_of(o, struct vm, obj);
		break;
	case OBJECT_VCPU:
		c.vcpu = container_of(o, struct vcpu, obj);
		c.vm = c.vcpu->vm;
		break;
	default:
		break;
	}
	/* A forked child has no part in its parent's VM: KVM's kvm->mm test. */
	if (c.vm && (!*c.vm->mine || __atomic_load_n(&c.vm->dead, __ATOMIC_RELAXED)))
		return -EIO;
	row = find_row(o->kind, req);
	if (!row)
		return o->kind == OBJECT_VM || o->kind == OBJECT_STATS ? -ENOTTY : -EINVAL;
	return call_uncancelled(row, &c);
}

static int result(long r)
{
	if (r >= 0)
		return r;
	errno = -r;
	return -1;
}

/*
 * A thread of the shim's program that may be cancelled anywhere, as ioctl() of the kernel allows:
 * not inside. Who links the library has POSIX's rule for its calls: not while they run.
 */
static int cancel_hold(void)
{
	int type = PTHREAD_CANCEL_DEFERRED;

	if (unlikely(thread_ends_anywhere))
		pthread_setcanceltype(type, &type);
	return type;
}

/* If it has been cancelled meanwhile it ends here. */
static void cancel_release(int type)
{
	if (unlikely(type != PTHREAD_CANCEL_DEFERRED))
		pthread_setcanceltype(type, &type);
}

PUBLIC int anykvm_open(const char *path, int flags)
{
	int type, state, fd;

	if (!path)
		return result(-EFAULT);
	if (strcmp(path, "/dev/kvm"))
		return result(-ENOENT);
	type = cancel_hold();
	state = cancel_off();
	fd = system_open(flags);
	cancel_back(state);
	cancel_release(type);
	return result(fd);
}

PUBLIC int anykvm_ioctl(int fd, unsigned long req, ...)
{
	unsigned long arg;
	struct object *o;
	u32 generation;
	va_list ap;
	int type;
	long r;

	va_start(ap, req);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	type = cancel_hold();
	o = object_take(fd, &generation);
	if (!o) {
		cancel_release(type);
		return ioctl(fd, req, arg);
	}
	r = object_ioctl(o, req, arg, type);
	object_give(o, fd, generation);
	cancel_release(type);
	return result(r);
}

static bool touches_dirty_ring(const struct vcpu *v, off_t off, size_t len)
{
	const off_t start = KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_SIZE;

	return v->dirty.size && off < start + (off_t)v->vm->dirty_ring_bytes &&
	       off + (off_t)len > start;
}

/* Page 2 of a vCPU's pages is the VM's coalesced ring, one page for all: put it over our memfd's. */
static void *map_vcpu(struct vcpu *v, void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	const off_t ring = KVM_COALESCED_MMIO_PAGE_OFFSET * PAGE_SIZE;
	u8 *p;

	if (touches_dirty_ring(v, off, len) && (prot & PROT_EXEC || !(flags & MAP_SHARED))) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	p = mmap(addr, len, prot, flags, fd, off);
	if (p == MAP_FAILED || off < 0 || off > ring || (size_t)(ring - off) >= len)
		return p;
	if (mmap(p + (ring - off), PAGE_SIZE, prot, (flags & ~MAP_FIXED_NOREPLACE) | MAP_FIXED,
		 v->vm->obj.own, 0) != MAP_FAILED)
		return p;
	munmap(p, len);
	return MAP_FAILED;
}

PUBLIC void *anykvm_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	int type = cancel_hold();
	struct object *o = flags & MAP_ANONYMOUS ? NULL : object_find(fd);
	void *p = MAP_FAILED;

	if (!o)
		p = mmap(addr, len, prot, flags, fd, off);
	else if (o->kind == OBJECT_VCPU)
		p = map_vcpu(container_of(o, struct vcpu, obj), addr, len, prot, flags, fd, off);
	else
		errno = ENODEV;
	if (o && p != MAP_FAILED)
		object_note_mapping(p, len);
	if (o)
		object_put(o);
	cancel_release(type);
	return p;
}

PUBLIC int anykvm_munmap(void *addr, size_t len)
{
	int type = cancel_hold(), r = munmap(addr, len);

	if (object_may_be_mapped(addr, len))
		object_sweep();
	cancel_release(type);
	return r;
}

/* close() itself is a cancellation point of the program: before anything has changed. */
PUBLIC int anykvm_close(int fd)
{
	int type = cancel_hold(), state, r;
	struct object *o;

	pthread_testcancel();
	state = cancel_off();
	o = object_find(fd);
	object_fd_forget(fd);
	r = close(fd);
	if (o) {
		object_reap(o);
		object_put(o);
	}
	cancel_back(state);
	cancel_release(type);
	return r;
}
