/* SPDX-License-Identifier: MIT */
#ifndef ANYKVM_LAUNCH_H
#define ANYKVM_LAUNCH_H

/* Becomes the program argv[0] with the preload library; returns an exit status if it cannot. */
int launch(char **argv);

#endif
