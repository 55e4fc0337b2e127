// SPDX-License-Identifier: MIT
/* The command `anykvm`: finds the subcommand and hands over. */
#include <stdio.h>
#include <string.h>

#include "../vmm/vmm.h"

static void help(FILE *to)
{
	fputs("usage: anykvm boot --kernel FILE [OPTION...]   boot a Linux kernel\n"
	      "       anykvm --version                        print the version\n"
	      "       anykvm --help                           print this\n"
	      "See anykvm SUBCOMMAND --help, and anykvm(1).\n", to);
}

static int version_main(int argc, char **argv)
{
	(void)argc, (void)argv;
	puts("anykvm " ANYKVM_VERSION);
	return STATUS_OK;
}

static int help_main(int argc, char **argv)
{
	(void)argc, (void)argv;
	help(stdout);
	return STATUS_OK;
}

static const struct {
	const char *name;
	int (*main)(int argc, char **argv);
} commands[] = {
	{"boot", boot_main},
	{"--version", version_main},
	{"--help", help_main},
	{"-h", help_main},
};

int main(int argc, char **argv)
{
	size_t i;

	if (argc < 2) {
		help(stderr);
		return STATUS_USAGE;
	}
	for (i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].main(argc - 1, argv + 1);
	vmm_error("unknown command %s (see anykvm --help)", argv[1]);
	return STATUS_USAGE;
}
