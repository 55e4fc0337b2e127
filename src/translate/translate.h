/* SPDX-License-Identifier: MIT */
/*
 * The same-ISA translator (DESIGN.md 6, stage B): host code for runs of instructions of 64-bit
 * and flat 32-bit code inside a block. See cpu/tb.h for how it and the interpreter meet.
 */
#ifndef ANYKVM_TRANSLATE_H
#define ANYKVM_TRANSLATE_H

#include "cpu/cpu.h"

/*
 * Give the processor a translator, which cpu_free destroys; before its first run. 0; -ENOMEM,
 * -EMFILE, -ENFILE. Where the system refuses executable mappings, and in builds whose handlers
 * are no tail calls, 0 and no translator.
 */
MUSTCHECK int translator_create(struct cpu *cpu);

#endif
