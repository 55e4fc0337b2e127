// SPDX-License-Identifier: MIT
/*
 * KVM_GET_STATS_FD: a memfd with header, descriptors and data in KVM's binary format. A vCPU
 * writes its data anew at each return of KVM_RUN, so read() and pread() need no hook.
 */
#include "kvm/ioctl.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NAME_SIZE 48

struct desc { /* struct kvm_stats_desc with its name, which has no size there */
	u32 flags;
	s16 exponent;
	u16 size;
	u32 offset;
	u32 bucket_size;
	char name[NAME_SIZE];
};
_Static_assert(offsetof(struct desc, name) == sizeof(struct kvm_stats_desc), "uapi");

struct row {
	const char *name;
	u32 flags;
	s16 exponent;
	u16 words;
};

#define ROW(name, type, unit, exponent, words) \
	{#name, KVM_STATS_TYPE_##type | KVM_STATS_UNIT_##unit | KVM_STATS_BASE_POW10, exponent, words},

#define VCPU_STAT(name, type, unit, exponent, words, value) ROW(name, type, unit, exponent, words)
static const struct row vcpu_rows[] = {
#include "kvm/stats.def"
};

#define VM_STAT(name, type, unit, exponent, words, value) ROW(name, type, unit, exponent, words)
static const struct row vm_rows[] = {
#include "kvm/stats.def"
};

struct file {
	struct kvm_stats_header header;
	char id[NAME_SIZE];
	struct desc desc[];
};

/* One open statistics object. */
struct stats_page {
	struct object obj;
	struct vm *vm;
	struct vcpu *vcpu; /* NULL: the VM's */
	struct file *file;
	u64 *data;
	size_t size;
	struct stats_page *next; /* of the same vCPU; vm->lock */
};

static size_t data_offset(size_t rows)
{
	return sizeof(struct file) + rows * sizeof(struct desc);
}

static size_t data_words(const struct row *r, size_t n)
{
	size_t words = 0;

	for (size_t i = 0; i < n; i++)
		words += r[i].words;
	return words;
}

static void fill_head(struct file *f, const struct row *r, size_t n, const char *id)
{
	u32 offset = 0;

	f->header = (struct kvm_stats_header){
		.name_size = NAME_SIZE,
		.num_desc = n,
		.id_offset = offsetof(struct file, id),
		.desc_offset = offsetof(struct file, desc),
		.data_offset = data_offset(n),
	};
	snprintf(f->id, sizeof(f->id), "%s", id);
	for (size_t i = 0; i < n; i++) {
		f->desc[i].flags = r[i].flags;
		f->desc[i].exponent = r[i].exponent;
		f->desc[i].size = r[i].words;
		f->desc[i].offset = offset;
		snprintf(f->desc[i].name, NAME_SIZE, "%s", r[i].name);
		offset += 8 * r[i].words;
	}
}

static void vcpu_data(struct vcpu *v, u64 *out)
{
#define VCPU_STAT(name, type, unit, exponent, words, value) \
	*out = (value);                                      \
	out += (words);
#include "kvm/stats.def"
}

/* Owner. */
void vcpu_publish_stats(struct vcpu *v)
{
	pthread_mutex_lock(&v->vm->lock);
	for (struct stats_page *s = v->stats_page; s; s = s->next)
		vcpu_data(v, s->data);
	pthread_mutex_unlock(&v->vm->lock);
}

static void stats_release(struct object *o)
{
	struct stats_page *s = container_of(o, struct stats_page, obj);
	struct vm *vm = s->vm;

	pthread_mutex_lock(&vm->lock);
	for (struct stats_page **p = s->vcpu ? &s->vcpu->stats_page : NULL; p && *p; p = &(*p)->next)
		if (*p == s) {
			*p = s->next;
			break;
		}
	pthread_mutex_unlock(&vm->lock);
	object_destroy(o);
	munmap(s->file, s->size);
	free(s);
	vm_put(vm);
}

static struct stats_page *make(const struct row *r, size_t n, const char *name, const char *id)
{
	struct stats_page *s = calloc(1, sizeof(*s));
	size_t size = data_offset(n) + 8 * data_words(r, n);

	if (!s)
		return NULL;
	s->size = size;
	if (object_create(&s->obj, OBJECT_STATS, name, size, stats_release)) {
		free(s);
		return NULL;
	}
	s->file = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, s->obj.own, 0);
	if (s->file == MAP_FAILED) {
		object_destroy(&s->obj);
		free(s);
		return NULL;
	}
	s->data = (u64 *)((u8 *)s->file + data_offset(n));
	fill_head(s->file, r, n, id);
	return s;
}

static long open_stats(struct stats_page *s, struct vm *vm, struct vcpu *v)
{
	long fd;

	if (!s)
		return -ENOMEM;
	s->vm = vm;
	s->vcpu = v;
	vm_get(vm);
	if (v) {
		vcpu_data(v, s->data);
		pthread_mutex_lock(&vm->lock);
		s->next = v->stats_page;
		v->stats_page = s;
		pthread_mutex_unlock(&vm->lock);
	}
	fd = object_open(&s->obj, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		stats_release(&s->obj);
	return fd;
}

long vm_get_stats_fd(struct ioc *c)
{
	char id[NAME_SIZE];

	snprintf(id, sizeof(id), "kvm-%d", (int)getpid());
	return open_stats(make(vm_rows, ARRAY_SIZE(vm_rows), "kvm-vm-stats", id), c->vm, NULL);
}

long vcpu_get_stats_fd(struct ioc *c)
{
	char id[NAME_SIZE], name[32];

	snprintf(id, sizeof(id), "kvm-%d/vcpu-%u", (int)getpid(), c->vcpu->id);
	snprintf(name, sizeof(name), "kvm-vcpu-stats:%u", c->vcpu->id);
	return open_stats(make(vcpu_rows, ARRAY_SIZE(vcpu_rows), name, id), c->vm, c->vcpu);
}

/* ---- for other processes: the part of a vCPU's memfd behind what KVM_GET_VCPU_MMAP_SIZE says */

/*
 * `anykvm stat` finds the memfd in /proc/PID/fd. It says until when it looks, so that a vCPU which
 * nobody looks at pays next to nothing; what it has read goes with the process that it is of.
 */
struct live_stats {
	u64 watched_until; /* atomic; CLOCK_MONOTONIC in ns; written by who looks */
	u64 pad[7];
	struct file file;
};

#define LIVE_EVERY 64	      /* KVM_RUNs, while nobody looks */
#define LIVE_NS	   50000000ull /* who looks sees a guest that never exits at least so often */

size_t live_stats_size(void)
{
	return ALIGN_UP(offsetof(struct live_stats, file) + data_offset(ARRAY_SIZE(vcpu_rows)) +
			8 * data_words(vcpu_rows, ARRAY_SIZE(vcpu_rows)), PAGE_SIZE);
}

static bool is_watched(const struct live_stats *l)
{
	return __atomic_load_n(&l->watched_until, __ATOMIC_RELAXED);
}

void live_stats_write(struct vcpu *v)
{
	struct file *f = &v->live->file;
	char id[NAME_SIZE];

	if (!f->header.num_desc) {
		snprintf(id, sizeof(id), "vcpu-%u", v->id);
		fill_head(f, vcpu_rows, ARRAY_SIZE(vcpu_rows), id);
	}
	vcpu_data(v, (u64 *)((u8 *)f + data_offset(ARRAY_SIZE(vcpu_rows))));
}

void live_stats_after_run(struct vcpu *v)
{
	if (++v->runs_unseen < LIVE_EVERY && !is_watched(v->live))
		return;
	v->runs_unseen = 0;
	live_stats_write(v);
}

bool live_stats_due(struct vm *vm)
{
	u64 now = mono_ns(), until;
	bool any = false;
	struct vcpu *v;

	if (now < vm->live_due)
		return false;
	vm->live_due = now + LIVE_NS;
	for (unsigned int i = 0; (v = vm_vcpu(vm, i)); i++) {
		until = __atomic_load_n(&v->live->watched_until, __ATOMIC_RELAXED);
		any |= until > now;
		if (until && until <= now)
			__atomic_store_n(&v->live->watched_until, 0, __ATOMIC_RELAXED);
	}
	return any;
}

/* ---- ANYKVM_STATS=FILE: a VM's statistics as one JSON object, when it or the process ends */

#define MAX_WORDS 512

static void print_rows(FILE *f, const struct row *r, size_t n, const u64 *data)
{
	for (size_t i = 0; i < n; i++) {
		u64 sum = 0;

		for (u16 k = 0; k < r[i].words; k++)
			sum += *data++;
		fprintf(f, ",\n\"%s\": %llu", r[i].name, (unsigned long long)sum);
	}
}

static void print_vm(FILE *f, struct vm *vm)
{
	u64 sum[MAX_WORDS] = {0}, one[MAX_WORDS] = {0}; /* vcpu_data leaves histograms */
	struct vcpu *v;
	u32 vcpus = 0;

	for (; (v = vm_vcpu(vm, vcpus)); vcpus++) {
		vcpu_data(v, one);
		for (size_t k = 0; k < data_words(vcpu_rows, ARRAY_SIZE(vcpu_rows)); k++)
			sum[k] += one[k];
	}
	fprintf(f, "{\n\"id\": \"kvm-%d\",\n\"vcpus\": %u", (int)getpid(), vcpus);
	print_rows(f, vcpu_rows, ARRAY_SIZE(vcpu_rows), sum);
	memset(sum, 0, sizeof(sum)); /* what the VM's count is of the processor's making: 0 */
	print_rows(f, vm_rows, ARRAY_SIZE(vm_rows), sum);
	fputs("\n}\n", f);
}

/* Of several VMs each appends its own. */
void vm_write_stats(struct vm *vm)
{
	const char *path = getenv("ANYKVM_STATS");
	FILE *f;

	if (!path || !*path || __atomic_exchange_n(&vm->stats_written, true, __ATOMIC_RELAXED))
		return;
	f = fopen(path, "ae");
	if (!f) {
		log_once("cannot write ANYKVM_STATS=%s", path);
		return;
	}
	print_vm(f, vm);
	fclose(f);
}

static void write_stats_of(struct object *o)
{
	struct vm *vm = container_of(o, struct vm, obj);

	if (*vm->mine)
		vm_write_stats(vm);
}

/* Most programs leave their descriptors to exit(). */
static __attribute__((destructor)) void write_all_stats(void)
{
	if (getenv("ANYKVM_STATS"))
		object_each(OBJECT_VM, write_stats_of);
}
