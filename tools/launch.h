/* SPDX-License-Identifier: MIT */
#ifndef ANYKVM_LAUNCH_H
#define ANYKVM_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>

/* Becomes the program argv[0] with the preload library; returns an exit status if it cannot. */
int launch(char **argv);

/* The path of the preload library; false if it is not where it is looked for. */
bool find_preload(char *out, size_t size);

/* Subcommands: exit statuses of vmm.h. */
int doctor_main(int argc, char **argv);
int stat_main(int argc, char **argv);

#endif
