/* SPDX-License-Identifier: MIT */
/* How an ioctl reaches its handler: one row of ioctls.def each. */
#ifndef ANYKVM_KVM_IOCTL_H
#define ANYKVM_KVM_IOCTL_H

#include "kvm/uaccess.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"

/* One call. */
struct ioc {
	struct object *obj;
	struct vm *vm;	   /* NULL on a system descriptor */
	struct vcpu *vcpu; /* NULL but on a vCPU's; its mutex is held */
	void *arg; /* IN, OUT, INOUT: our copy of the argument, _IOC_SIZE bytes; OUT starts as zeroes */
	u64 uptr;  /* the third argument as given: for what follows a header, or a plain number */
	int cancel_type; /* the program's (pthread_setcanceltype) */
};

/* >= 0 is the ioctl's result, else -errno. An OUT argument is copied out if the result is >= 0. */
typedef long ioctl_fn(struct ioc *c);

#define IOCTL(kind, request, direction, fn) ioctl_fn fn;
#include "kvm/ioctls.def"
#undef IOCTL

#endif
