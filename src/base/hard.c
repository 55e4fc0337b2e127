// SPDX-License-Identifier: MIT
/* The end of a self-checking run that has found something. See hard.h. */
#include "base/hard.h"

#include <stdlib.h>

#include "base/log.h"

void hard_failed(const char *what, const char *file, int line)
{
	log_line("%s:%d: law broken: %s", file, line, what);
	abort();
}
