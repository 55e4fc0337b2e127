/* SPDX-License-Identifier: MIT */
/* Private to cpu/: breakpoints of DR0-DR3, of the guest or of KVM_SET_GUEST_DEBUG. SDM 3A 17.2, 17.3. */
#ifndef ANYKVM_DEBUG_H
#define ANYKVM_DEBUG_H

#include "cpu/cpu.h"

static inline bool debug_dr7_enabled(u64 dr7)
{
	return dr7 & 0xff;
}

/*
 * Before the instruction at cpu->rip: STOP_EXC with #DB raised (payload: the B bits) if an
 * instruction breakpoint is there. EFLAGS.RF and the shadow of MOV SS hold the guest's own back.
 */
MUSTCHECK enum stop debug_check_fetch(struct cpu *cpu);

/* DR6 bits of the breakpoints that a data or port access hits; 0 if none. */
u64 debug_check_data(const struct cpu *cpu, gva_t gva, u32 len, bool write);
u64 debug_check_port(const struct cpu *cpu, u16 port, u32 len);

#endif
