/* SPDX-License-Identifier: MIT */
/*
 * The preload library: libc's names for what a KVM client does to /dev/kvm, in front of the
 * calls of anykvm.h. It decides only whether a call is ours; everything else goes to libc.
 *
 * The library's own objects are linked with --wrap for the names that are hooked here, so
 * what kvm/ calls `mmap` is libc's, never our hook (wrap.c).
 */
#ifndef ANYKVM_SHIM_SHIM_H
#define ANYKVM_SHIM_SHIM_H

#include "base/base.h"

#include <dlfcn.h>
#include <string.h>

/* libc's function of this name; found at its first use, since hooks may run before us. */
#define REAL(name)                                                                       \
	({                                                                               \
		static __typeof__(&name) real_;                                          \
		__typeof__(&name) f_ = __atomic_load_n(&real_, __ATOMIC_RELAXED);        \
		if (unlikely(!f_)) {                                                     \
			f_ = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                 \
			__atomic_store_n(&real_, f_, __ATOMIC_RELAXED);                  \
		}                                                                        \
		f_;                                                                      \
	})

/* signals.c: from now on, faults in guest memory are ours. Called before a VM is made. */
void shim_catch_faults(void);
/* signals.c: from now on, SIGILL is asked of shim_answer_cpuid first. */
void shim_catch_ud2(void);
/* cpuid.c: *context (ucontext_t) is at a UD2 of ours, and has been moved behind it. Async-signal-safe. */
bool shim_answer_cpuid(void *context);
/* KVM_RUN begins: no handler of the program is active, though one may have left by longjmp. */
void shim_enter_run(void);

static inline bool is_dev_kvm(const char *path)
{
	return path && path[0] == '/' && path[1] == 'd' && !strcmp(path, "/dev/kvm");
}

#endif
