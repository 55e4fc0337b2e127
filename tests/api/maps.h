/* SPDX-License-Identifier: MIT */
/* No page of the process is ever writable and executable: asked of the kernel, and forbidden by it. */
#ifndef TESTS_MAPS_H
#define TESTS_MAPS_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/prctl.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

/* No memory may become executable that was not made so. false: a kernel before Linux 6.3. */
static inline bool maps_forbid_wx(void)
{
	return !prctl(PR_SET_MDWE, 1, 0, 0, 0);
}

/* The first writable and executable mapping of a /proc/PID/maps, in line; false: there is none. lines: how many there are. */
static inline bool maps_find_wx_in(const char *path, char *line, int size, int *lines)
{
	FILE *f = fopen(path, "r");
	bool found = false;

	for (*lines = 0; f && !found && fgets(line, size, f); ++*lines) {
		char rights[8] = "";

		sscanf(line, "%*s %7s", rights);
		found = rights[1] == 'w' && rights[2] == 'x';
	}
	if (f)
		fclose(f);
	return found;
}

static inline bool maps_find_wx(char *line, int size, int *lines)
{
	return maps_find_wx_in("/proc/self/maps", line, size, lines);
}

#endif
