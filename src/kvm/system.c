// SPDX-License-Identifier: MIT
/* Requests on /dev/kvm itself. CPUID and MSR lists are in cpuid.c and msr.c. */
#include "kvm/system.h"

#include "kvm/ioctl.h"

#include <errno.h>
#include <unistd.h>

static struct object system_object = {.own = -1};
static pthread_mutex_t system_lock = PTHREAD_MUTEX_INITIALIZER;

int system_open(int flags)
{
	int r = 0;

	pthread_mutex_lock(&system_lock);
	if (system_object.own < 0)
		r = object_create(&system_object, OBJECT_SYSTEM, "kvm", 0, NULL);
	pthread_mutex_unlock(&system_lock);
	return r ? r : object_open(&system_object, flags);
}

long sys_get_api_version(struct ioc *c)
{
	(void)c;
	return KVM_API_VERSION;
}

long sys_create_vm(struct ioc *c)
{
	if (c->uptr) /* machine types exist on other architectures */
		return -EINVAL;
	object_sweep();
	return vm_create();
}

long sys_get_vcpu_mmap_size(struct ioc *c)
{
	(void)c;
	return VCPU_PAGES * PAGE_SIZE;
}

static long online_cpus(void)
{
	return MAX(sysconf(_SC_NPROCESSORS_ONLN), 1);
}

long any_check_extension(struct ioc *c)
{
	switch (c->uptr) {
#define CAP(name, value)       \
	case KVM_CAP_##name:   \
		return (value);
#include "kvm/caps.def"
#undef CAP
	}
	return 0;
}

/* The only group 0 attribute of the system: which dynamic XSAVE components a guest may have. */
static bool attr_known(const struct kvm_device_attr *a)
{
	return !a->group && a->attr == KVM_X86_XCOMP_GUEST_SUPP;
}

long sys_get_device_attr(struct ioc *c)
{
	struct kvm_device_attr *a = c->arg;
	u64 xcr0 = supported_xcr0();

	if (!attr_known(a))
		return -ENXIO;
	return copy_out(a->addr, &xcr0, sizeof(xcr0));
}

long sys_has_device_attr(struct ioc *c)
{
	return attr_known(c->arg) ? 0 : -ENXIO;
}

long sys_get_mce_cap(struct ioc *c)
{
	*(u64 *)c->arg = MCG_CAP_SUPPORTED;
	return 0;
}
