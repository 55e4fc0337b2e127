/* SPDX-License-Identifier: MIT */
/*
 * All that KVM_GET_* says about a VM of one vCPU, to go into another VM by KVM_SET_*. Each thing that
 * is read differently there afterwards counts as failed.
 */
#ifndef TESTS_STATE_H
#define TESTS_STATE_H

#include "api.h"

enum kind { OFF, SPLIT, ON }; /* of the interrupt chips */

struct state {
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	struct kvm_xsave xsave;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debug;
	struct kvm_mp_state mp;
	struct kvm_vcpu_events events;
	struct kvm_lapic_state lapic;
	struct kvm_irqchip chip[3];
	struct kvm_pit_state2 pit;
	struct kvm_clock_data clock;
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e[512];
	} msrs;
	long tsc_khz;
};

static struct {
	struct kvm_msr_list h;
	uint32_t index[512];
} msr_list = {.h.nmsrs = 512};

static inline void state_init(int sys_fd)
{
	must(api->ioctl(sys_fd, KVM_GET_MSR_INDEX_LIST, &msr_list), "GET_MSR_INDEX_LIST");
}

#define GET(fd, name, what) must(api->ioctl(fd, KVM_GET_##name, what), "GET_" #name)
#define SET(fd, name, what) must(api->ioctl(fd, KVM_SET_##name, what), "SET_" #name)

/* Nothing may be under way in KVM_RUN (api.rst there: immediate_exit). */
static inline void state_save(int vm, int vcpu, enum kind kind, struct state *s)
{
	memset(s, 0, sizeof(*s));
	s->tsc_khz = must(api->ioctl(vcpu, KVM_GET_TSC_KHZ, 0), "GET_TSC_KHZ");
	GET(vm, CLOCK, &s->clock);
	for (uint32_t i = 0; kind == ON && i < 3; i++) {
		s->chip[i].chip_id = i;
		GET(vm, IRQCHIP, &s->chip[i]);
	}
	if (kind == ON)
		GET(vm, PIT2, &s->pit);
	if (kind != OFF)
		GET(vcpu, LAPIC, &s->lapic);
	GET(vcpu, VCPU_EVENTS, &s->events);
	GET(vcpu, MP_STATE, &s->mp);
	GET(vcpu, REGS, &s->regs);
	GET(vcpu, SREGS2, &s->sregs);
	GET(vcpu, XSAVE, &s->xsave);
	GET(vcpu, XCRS, &s->xcrs);
	GET(vcpu, DEBUGREGS, &s->debug);
	s->msrs.h.nmsrs = msr_list.h.nmsrs;
	for (uint32_t i = 0; i < msr_list.h.nmsrs; i++)
		s->msrs.e[i].index = msr_list.index[i];
	CHECK_EQ("all MSRs are read", GET(vcpu, MSRS, &s->msrs), msr_list.h.nmsrs);
}

/* The PIT apart: it ticks as soon as it is set, and the chips are compared before. */
static inline void state_set(int vm, int vcpu, enum kind kind, struct state *s)
{
	must(api->ioctl(vcpu, KVM_SET_TSC_KHZ, s->tsc_khz), "SET_TSC_KHZ");
	s->clock.flags = 0;
	SET(vm, CLOCK, &s->clock);
	SET(vcpu, SREGS2, &s->sregs);
	SET(vcpu, REGS, &s->regs);
	SET(vcpu, XCRS, &s->xcrs);
	SET(vcpu, XSAVE, &s->xsave);
	for (uint32_t i = 0; kind == ON && i < 3; i++)
		SET(vm, IRQCHIP, &s->chip[i]);
	if (kind != OFF)
		SET(vcpu, LAPIC, &s->lapic);
	/* behind the LAPIC: TSC_DEADLINE is dropped while the timer has another mode */
	CHECK_EQ("all MSRs are set", SET(vcpu, MSRS, &s->msrs), msr_list.h.nmsrs);
	SET(vcpu, MP_STATE, &s->mp);
	s->events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR;
	SET(vcpu, VCPU_EVENTS, &s->events);
	SET(vcpu, DEBUGREGS, &s->debug);
}

static inline uint64_t state_msr(const struct state *s, uint32_t index)
{
	for (uint32_t i = 0; i < s->msrs.h.nmsrs; i++)
		if (s->msrs.e[i].index == index)
			return s->msrs.e[i].data;
	return 0;
}

/* Neither is set back, nor has more than a minute passed. */
static inline void state_time_goes_on(const struct state *a, const struct state *b)
{
	uint64_t tsc = state_msr(b, 0x10) - state_msr(a, 0x10);

	CHECK_EQ("the TSC goes on", tsc < a->tsc_khz * 60000ull, true);
	CHECK_EQ("the clock goes on", b->clock.clock - a->clock.clock < 60000000000ull, true);
}

/* What goes on by itself between two looks is left out: clocks, and what the LAPIC's timer changes. */
static inline void state_forget_time(struct state *s)
{
	static const uint32_t clocks[] = {0x10 /* TSC */, 0x3b /* TSC_ADJUST */};
	uint8_t tick = s->lapic.regs[0x320]; /* the timer's vector */

	memset(s->lapic.regs + 0x390, 0, 4);			 /* its count */
	s->lapic.regs[0x200 + tick / 32 * 16 + tick % 32 / 8] &= ~(1u << tick % 8); /* IRR */
	memset(s->lapic.regs + 0xa0, 0, 4);			 /* PPR */
	for (uint32_t i = 0; i < s->msrs.h.nmsrs; i++)
		for (size_t k = 0; k < sizeof(clocks) / 4; k++)
			if (s->msrs.e[i].index == clocks[k])
				s->msrs.e[i].data = 0;
	s->events.flags = 0;
	memset(&s->clock, 0, sizeof(s->clock));
}

static inline void state_same(const char *what, const void *a, const void *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((const uint8_t *)a)[i] != ((const uint8_t *)b)[i]) {
			printf("%s: byte %#zx: ", what, i);
			CHECK_EQ("restored", ((const uint8_t *)b)[i], ((const uint8_t *)a)[i]);
			return;
		}
	passed++;
}

static inline void state_compare(struct state *a, struct state *b)
{
	state_time_goes_on(a, b);
	state_forget_time(a);
	state_forget_time(b);
#define SAME(field) state_same(#field, &a->field, &b->field, sizeof(a->field))
	SAME(regs), SAME(sregs), SAME(xsave), SAME(xcrs), SAME(debug), SAME(mp), SAME(events);
	SAME(lapic), SAME(chip), SAME(msrs), SAME(tsc_khz);
}

/* A fresh VM gets all of *s, which is used up, and is asked whether it has it. */
static inline void state_restore(int vm, int vcpu, enum kind kind, struct state *s)
{
	struct kvm_pit_state2 pit = s->pit;
	static struct state now;

	state_set(vm, vcpu, kind, s);
	state_save(vm, vcpu, kind, &now);
	state_compare(s, &now);
	if (kind != ON)
		return;
	SET(vm, PIT2, &pit);
	GET(vm, PIT2, &now.pit);
	for (int i = 0; i < 3; i++)
		now.pit.channels[i].count_load_time = pit.channels[i].count_load_time; /* now */
	state_same("pit", &pit, &now.pit, sizeof(pit));
}

#endif
