// SPDX-License-Identifier: MIT
/* The command `anykvm`: finds the subcommand and hands over; any other word is a program to run. */
#include <stdio.h>
#include <string.h>

#include "../vmm/vmm.h"
#include "launch.h"

static void help(FILE *to)
{
	fputs("usage: anykvm PROGRAM [ARGUMENT...]            run a program that uses /dev/kvm\n"
	      "       anykvm boot --kernel FILE [OPTION...]   boot a Linux kernel\n"
	      "       anykvm doctor                           what this host offers, what is missing\n"
	      "       anykvm stat [-1] [-p PID]               live counters of running VMs\n"
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
	{"doctor", doctor_main},
	{"stat", stat_main},
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
	if (!strcmp(argv[1], "--") && argc > 2)
		return launch(argv + 2);
	if (argv[1][0] != '-')
		return launch(argv + 1);
	vmm_error("unknown option %s (see anykvm --help)", argv[1]);
	return STATUS_USAGE;
}
