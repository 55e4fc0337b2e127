// SPDX-License-Identifier: MIT
/*
 * The dirty ring: enabling, mapping, harvest and reset, a full ring (api.rst 8.29). Needed by the
 * KVM selftest dirty_log_test. --device: a host's KVM; one that emulates real mode makes an entry for
 * each write and looks at the ring later.
 */
#include "real.h"

#define RING	   4096 /* bytes */
#define ENTRIES	   (RING / sizeof(struct kvm_dirty_gfn))
#define RING_AT	   (KVM_DIRTY_LOG_PAGE_OFFSET * 4096l)
#define LOGGED	   0x10000 /* the logged slot, and what the guest writes to */
#define PAGES	   240

static struct kvm_dirty_gfn *ring;
static uint32_t fetched;
static uint8_t *memory;

/* One byte into each of n pages. */
static void guest(struct machine *m, unsigned int n, bool with_ring)
{
	const unsigned int end = 0x1000 + 0x100 * n;
	const uint8_t code[] = {
		0xb8, 0x00, 0x10,		   /* mov ax, 0x1000 */
		0x8e, 0xd8,			   /* 1: mov ds, ax */
		0xa2, 0x00, 0x00,		   /* mov [0], al */
		0x05, 0x00, 0x01,		   /* add ax, 0x100 */
		0x3d, end & 0xff, end >> 8,	   /* cmp ax, end */
		0x75, 0xf3, HLT,		   /* jne 1b */
	};

	machine_vm(m, code, sizeof(code));
	if (with_ring)
		must(enable_cap(m->vm, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, RING), "dirty ring");
	memory = pages(PAGES * 4096);
	set_slot(m, 1, KVM_MEM_LOG_DIRTY_PAGES, LOGGED, PAGES * 4096, memory);
	machine_vcpu(m);
	fetched = 0;
	if (with_ring)
		ring = api->mmap(NULL, RING, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu, RING_AT);
}

static void end(struct machine *m, bool with_ring)
{
	if (with_ring)
		api->munmap(ring, RING);
	machine_close(m);
	munmap(memory, PAGES * 4096);
}

/* Harvest: how many entries there were. seen[page] counts. */
static unsigned int harvest(uint8_t seen[PAGES])
{
	unsigned int n = 0;

	for (;; n++, fetched++) {
		struct kvm_dirty_gfn *g = &ring[fetched % ENTRIES];

		if (g->flags != KVM_DIRTY_GFN_F_DIRTY)
			return n;
		CHECK_EQ("entry: slot", g->slot, 1);
		CHECK_EQ("entry: page", g->offset < PAGES, 1);
		seen[g->offset % PAGES]++;
		g->flags = KVM_DIRTY_GFN_F_RESET;
	}
}

static long reset(struct machine *m)
{
	long r = api->ioctl(m->vm, KVM_RESET_DIRTY_RINGS, 0);

	return r < 0 ? -errno : r;
}

static void test_arguments(void)
{
	struct kvm_dirty_log log = {.slot = 1};
	struct machine m;

	machine_vm(&m, GUEST(HLT));
	CHECK_EQ("no ring", reset(&m), -EINVAL);
	CHECK_EQ("0 bytes", enable_cap(m.vm, KVM_CAP_DIRTY_LOG_RING, 0), -EINVAL);
	CHECK_EQ("not a power of two", enable_cap(m.vm, KVM_CAP_DIRTY_LOG_RING, 12288), -EINVAL);
	CHECK_EQ("too small", enable_cap(m.vm, KVM_CAP_DIRTY_LOG_RING, 1024), -EINVAL);
	CHECK_EQ("too large", enable_cap(m.vm, KVM_CAP_DIRTY_LOG_RING, 2 << 20), -E2BIG);
	CHECK_EQ("largest", enable_cap(m.vm, KVM_CAP_DIRTY_LOG_RING, 1 << 20), 0);
	CHECK_EQ("again", enable_cap(m.vm, KVM_CAP_DIRTY_LOG_RING, 1 << 20), -EINVAL);
	CHECK_EQ("no log beside the ring", api->ioctl(m.vm, KVM_GET_DIRTY_LOG, &log), -1);
	CHECK_EQ("no log beside the ring: errno", errno, ENXIO);
	machine_vcpu(&m);
	machine_close(&m);

	machine_open(&m, GUEST(HLT));
	CHECK_EQ("after a vCPU", enable_cap(m.vm, KVM_CAP_DIRTY_LOG_RING, RING), -EINVAL);
	machine_close(&m);
}

static bool maps(struct machine *m, int prot, int flags)
{
	void *p = api->mmap(NULL, RING, prot, flags, m->vcpu, RING_AT);

	if (p != MAP_FAILED)
		api->munmap(p, RING);
	return p != MAP_FAILED;
}

static void test_mapping(void)
{
	struct machine m;

	guest(&m, 1, true);
	CHECK_EQ("shared", ring != MAP_FAILED, 1);
	CHECK_EQ("private", maps(&m, PROT_READ, MAP_PRIVATE), 0);
	CHECK_EQ("executable", maps(&m, PROT_READ | PROT_EXEC, MAP_SHARED), 0);
	end(&m, true);
}

static void test_harvest(void)
{
	uint8_t seen[PAGES] = {0}, again[PAGES] = {0};
	struct machine m;

	guest(&m, 10, true);
	RUN_TO(&m, "run", KVM_EXIT_HLT);
	CHECK_EQ("nothing harvested yet", reset(&m), 0);
	CHECK_EQ("entries", harvest(seen), 10);
	for (int i = 0; i < PAGES; i++)
		CHECK_EQ("each page once", seen[i], i < 10);
	jump(&m, CODE);
	RUN_TO(&m, "run before reset", KVM_EXIT_HLT);
	CHECK_EQ("entries before reset", harvest(again), 0);
	CHECK_EQ("reset", reset(&m), 10);
	jump(&m, CODE);
	RUN_TO(&m, "run after reset", KVM_EXIT_HLT);
	CHECK_EQ("entries after reset", harvest(again), 10);
	CHECK_EQ("reset", reset(&m), 10);
	end(&m, true);
}

/* What a client writes into the ring is not believed. */
static void test_bad_entries(void)
{
	uint8_t seen[PAGES] = {0};
	struct machine m;

	guest(&m, 3, true);
	RUN_TO(&m, "run", KVM_EXIT_HLT);
	CHECK_EQ("entries", harvest(seen), 3);
	ring[0].slot = ~0u;
	ring[1].offset = ~0ull;
	CHECK_EQ("reset", reset(&m), 3);
	end(&m, true);
}

static void test_full(void)
{
	uint8_t seen[PAGES] = {0};
	struct machine m;
	unsigned int n;
	int all = 0;

	guest(&m, PAGES, true);
	RUN_TO(&m, "full", KVM_EXIT_DIRTY_RING_FULL);
	RUN_TO(&m, "still full", KVM_EXIT_DIRTY_RING_FULL);
	n = harvest(seen);
	CHECK_EQ("full enough", n > ENTRIES / 2 && n < PAGES, 1);
	CHECK_EQ("reset", reset(&m), n);
	RUN_TO(&m, "room again", KVM_EXIT_HLT);
	harvest(seen);
	for (int i = 0; i < PAGES; i++)
		all += !!seen[i];
	CHECK_EQ("every page is there", all, PAGES);
	end(&m, true);
}

/* The same guest with the bitmap. */
static void test_bitmap(void)
{
	uint64_t bits[4];
	struct kvm_dirty_log log = {.slot = 1, .dirty_bitmap = bits};
	struct machine m;

	guest(&m, 10, false);
	RUN_TO(&m, "run", KVM_EXIT_HLT);
	CHECK_EQ("GET_DIRTY_LOG", api->ioctl(m.vm, KVM_GET_DIRTY_LOG, &log), 0);
	CHECK_EQ("bits", bits[0], 0x3ff);
	CHECK_EQ("no ring", reset(&m), -EINVAL);
	end(&m, false);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	test_arguments();
	test_mapping();
	test_harvest();
	test_bad_entries();
	test_full();
	test_bitmap();
	return api_done();
}
