// SPDX-License-Identifier: MIT
/* The system calls of Intel's processors: guest.mk asks for that vendor. */
#include "../lib/syscall.h"
