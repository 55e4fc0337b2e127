/* SPDX-License-Identifier: MIT */
/*
 * pthread_cancel. No thread may end inside the library, with its locks: around libc's calls that
 * are cancellation points it is off. For threads that may end anywhere see kvm/ioctl.c.
 */
#ifndef ANYKVM_CANCEL_H
#define ANYKVM_CANCEL_H

#include <pthread.h>

static inline int cancel_off(void)
{
	int state;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	return state;
}

static inline void cancel_back(int state)
{
	pthread_setcancelstate(state, &state);
}

#endif
