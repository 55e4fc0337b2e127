/* SPDX-License-Identifier: MIT */
/* One line on stderr, prefixed "anykvm: ". Never a guest's flood: see log_once. */
#ifndef ANYKVM_LOG_H
#define ANYKVM_LOG_H

#include "base/base.h"

/* Print a line (no newline in fmt). At most 100 lines per process and second are printed. */
void log_line(const char *fmt, ...) PRINTF(1, 2);

/* Like log_line, but the same text is printed only once per process. Any thread. */
void log_once(const char *fmt, ...) PRINTF(1, 2);

#endif
