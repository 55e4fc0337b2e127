// SPDX-License-Identifier: MIT
/*
 * The user's terminal: raw while the guest runs, restored on every way out,
 * fatal signals included. Output processing stays on, so that our own messages
 * look right. Without a terminal, input is taken as it is, Ctrl-A too.
 */
#include "vmm.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define CTRL_A 1

static struct termios saved;
static volatile sig_atomic_t is_raw;
static bool prefix; /* Ctrl-A was typed */

/* tcsetattr is async-signal-safe, so this is too. */
void term_restore(void)
{
	if (!is_raw)
		return;
	is_raw = 0;
	tcsetattr(STDIN_FILENO, TCSANOW, &saved);
}

static void fatal_signal(int sig)
{
	term_restore();
	signal(sig, SIG_DFL);
	raise(sig);
}

static void catch_fatal_signals(void)
{
	static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS};
	struct sigaction sa = {.sa_handler = fatal_signal};
	size_t i;

	for (i = 0; i < sizeof(fatal) / sizeof(*fatal); i++)
		sigaction(fatal[i], &sa, NULL);
}

void term_setup(void)
{
	struct termios raw;

	/* a background job would be stopped by SIGTTOU */
	if (!isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) != getpgrp())
		return;
	if (tcgetattr(STDIN_FILENO, &saved) < 0)
		return;
	raw = saved;
	raw.c_iflag &= ~(ICRNL | INLCR | IGNCR | IXON | ISTRIP | BRKINT);
	raw.c_lflag &= ~(ICANON | ECHO | ISIG | IEXTEN);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	catch_fatal_signals();
	atexit(term_restore);
	is_raw = 1;
	if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0)
		is_raw = 0;
}

ssize_t term_filter(u8 *buf, size_t n, bool *pre)
{
	size_t i, out = 0;

	for (i = 0; i < n; i++) {
		u8 c = buf[i];

		if (!*pre && c == CTRL_A) {
			*pre = true;
			continue;
		}
		if (*pre && (c == 'x' || c == 'X'))
			return TERM_QUIT;
		if (*pre && (c == 'h' || c == '?'))
			vmm_error("Ctrl-A x quits, Ctrl-A Ctrl-A sends Ctrl-A");
		else if (!*pre || c == CTRL_A)
			buf[out++] = c;
		*pre = false;
	}
	return out;
}

ssize_t term_read(u8 *buf, size_t n)
{
	ssize_t got = read(STDIN_FILENO, buf, n);

	if (got < 0)
		return errno == EINTR || errno == EAGAIN ? -1 : 0;
	if (got == 0 || !is_raw)
		return got;
	got = term_filter(buf, got, &prefix);
	return got == 0 ? -1 : got;
}

void term_write(u8 byte)
{
	while (write(STDOUT_FILENO, &byte, 1) < 0 && (errno == EINTR || errno == EAGAIN))
		;
}
