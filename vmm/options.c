// SPDX-License-Identifier: MIT
/* The command line of `anykvm boot`. */
#include "vmm.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MEMORY (512 * GIB)

void options_help(FILE *to)
{
	fputs("usage: anykvm boot --kernel FILE [OPTION...]\n"
	      "Boots a Linux kernel with its serial console on this terminal. Ctrl-A x quits.\n"
	      "\n"
	      "  --kernel FILE   kernel (bzImage) to boot\n"
	      "  --initrd FILE   initial RAM file system\n"
	      "  --append STR    kernel command line (console=ttyS0)\n"
	      "  --memory SIZE   guest memory, with K, M or G; a plain number is MiB (512M)\n"
	      "  --cpus N        number of virtual processors (1)\n"
	      "  --device PATH   use this KVM device of the host instead of anykvm's own KVM\n"
	      "  --stats FILE    write statistics of the run to FILE, as JSON\n"
	      "  --help          print this\n"
	      "\n"
	      "Exit status: 0 the guest ended; 1 failure; 2 wrong usage; 3 the guest\n"
	      "triple-faulted; 4 KVM could not go on; 128+N ended by signal N.\n",
	      to);
}

static int parse_memory(struct options *o, const char *s)
{
	if (parse_size(s, &o->memory) < 0)
		return vmm_error("--memory %s: not a size (try 512M)", s);
	if (o->memory == 0)
		return vmm_error("--memory %s: a guest needs memory", s);
	if (o->memory % 4096)
		return vmm_error("--memory %s: not a multiple of 4K", s);
	if (o->memory > MAX_MEMORY)
		return vmm_error("--memory %s: more than %lluG", s, MAX_MEMORY / GIB);
	return 0;
}

static int parse_cpus(struct options *o, const char *s)
{
	char *end;
	long n = strtol(s, &end, 10);

	if (end == s || *end)
		return vmm_error("--cpus %s: not a number", s);
	if (n < 1 || n > MAX_CPUS)
		return vmm_error("--cpus %s: not between 1 and %d", s, MAX_CPUS);
	o->cpus = n;
	return 0;
}

static int parse_one(struct options *o, int c, char **argv)
{
	switch (c) {
	case 'k': o->kernel = optarg; return 0;
	case 'i': o->initrd = optarg; return 0;
	case 'a': o->append = optarg; return 0;
	case 'd': o->device = optarg; return 0;
	case 's': o->stats = optarg; return 0;
	case 'h': o->help = true; return 0;
	case 'm': return parse_memory(o, optarg);
	case 'c': return parse_cpus(o, optarg);
	case ':': return vmm_error("%s needs an argument", argv[optind - 1]);
	default:  return vmm_error("unknown option %s (see anykvm boot --help)", argv[optind - 1]);
	}
}

int options_parse(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {
		{"kernel", required_argument, NULL, 'k'}, {"initrd", required_argument, NULL, 'i'},
		{"append", required_argument, NULL, 'a'}, {"memory", required_argument, NULL, 'm'},
		{"cpus", required_argument, NULL, 'c'},	  {"device", required_argument, NULL, 'd'},
		{"stats", required_argument, NULL, 's'},  {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c;

	*o = (struct options){.append = "console=ttyS0", .memory = 512 * MIB, .cpus = 1};
	optind = 0; /* start anew: tests parse more than once */
	opterr = 0;
	while ((c = getopt_long(argc, argv, "+:h", longs, NULL)) != -1)
		if (parse_one(o, c, argv) < 0)
			return -1;
	if (o->help)
		return 0;
	if (optind < argc)
		return vmm_error("unexpected argument %s (see anykvm boot --help)", argv[optind]);
	if (!o->kernel)
		return vmm_error("--kernel FILE is missing (see anykvm boot --help)");
	return 0;
}
