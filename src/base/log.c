// SPDX-License-Identifier: MIT
/* Messages to the person who runs the VMM: rate-limited, because guests cause them. */
#include "base/log.h"

#include "base/cancel.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LINES_PER_SECOND 100
#define ONCE_SLOTS	 256

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static time_t second;
static unsigned int lines;
static u64 seen[ONCE_SLOTS]; /* hashes of the texts that log_once has printed */

static bool within_rate(void)
{
	time_t now = time(NULL);

	if (now != second) {
		second = now;
		lines = 0;
	}
	return lines++ < LINES_PER_SECOND;
}

static u64 text_hash(const char *s)
{
	u64 h = 0xcbf29ce484222325;

	for (; *s; s++)
		h = (h ^ (u8)*s) * 0x100000001b3;
	return h | 1;
}

static bool first_time(const char *text)
{
	u64 h = text_hash(text);

	for (unsigned int n = 0; n < ONCE_SLOTS; n++) {
		u64 *slot = &seen[(h + n) % ONCE_SLOTS];

		if (*slot == h)
			return false;
		if (!*slot) {
			*slot = h;
			return true;
		}
	}
	return false;
}

static void print(const char *fmt, va_list ap, bool once)
{
	int state = cancel_off();
	char text[512];

	vsnprintf(text, sizeof(text), fmt, ap);
	pthread_mutex_lock(&lock);
	if ((!once || first_time(text)) && within_rate())
		fprintf(stderr, "anykvm: %s\n", text);
	pthread_mutex_unlock(&lock);
	cancel_back(state);
}

void log_line(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print(fmt, ap, false);
	va_end(ap);
}

void log_once(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print(fmt, ap, true);
	va_end(ap);
}
