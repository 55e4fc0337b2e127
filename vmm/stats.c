// SPDX-License-Identifier: MIT
/*
 * --stats: one flat JSON object, a name and a number on each line. Our own
 * figures come first, then KVM's (KVM_GET_STATS_FD): those of the VM, and those
 * of the vCPUs added up. A histogram counts as the sum of its buckets.
 */
#include "vmm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* One statistic as it is collected. */
struct stat_sum {
	char *name;
	u64 value;
};
struct stat_list {
	struct stat_sum *s;
	size_t n;
};

static struct stat_sum *list_find(struct stat_list *l, const char *name)
{
	struct stat_sum *more;
	size_t i;

	for (i = 0; i < l->n; i++)
		if (!strcmp(l->s[i].name, name))
			return &l->s[i];
	more = realloc(l->s, (l->n + 1) * sizeof(*more));
	if (!more)
		return NULL;
	l->s = more;
	l->s[l->n].name = strdup(name);
	l->s[l->n].value = 0;
	return l->s[l->n].name ? &l->s[l->n++] : NULL;
}

static void list_free(struct stat_list *l)
{
	size_t i;

	for (i = 0; i < l->n; i++)
		free(l->s[i].name);
	free(l->s);
}

/* Adds one statistic with all its elements; a peak is not added up but compared. */
static int add_stat(struct stat_list *l, int fd, const struct kvm_stats_header *h,
		    const struct kvm_stats_desc *d)
{
	struct stat_sum *s = list_find(l, d->name);
	u64 v;
	u32 i;

	if (!s)
		return -1;
	for (i = 0; i < d->size; i++) {
		if (pread(fd, &v, sizeof(v), h->data_offset + d->offset + i * sizeof(v)) !=
		    (ssize_t)sizeof(v))
			return -1;
		if ((d->flags & KVM_STATS_TYPE_MASK) != KVM_STATS_TYPE_PEAK)
			s->value += v;
		else if (v > s->value)
			s->value = v;
	}
	return 0;
}

/* Reads all statistics behind `fd` (api.rst 4.133). */
static int add_all(struct stat_list *l, int fd)
{
	struct kvm_stats_header h;
	struct kvm_stats_desc *d;
	size_t len;
	int r = 0;
	u32 i;

	if (pread(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) || h.name_size > 256)
		return -1;
	len = sizeof(*d) + h.name_size;
	d = calloc(1, len + 1); /* ends the name in any case */
	for (i = 0; d && i < h.num_desc && r == 0; i++) {
		if (pread(fd, d, len, h.desc_offset + i * len) != (ssize_t)len)
			r = -1;
		else
			r = add_stat(l, fd, &h, d);
	}
	free(d);
	return d ? r : -1;
}

static int add_object(struct machine *m, struct stat_list *l, int object)
{
	int fd = m->api->ioctl(object, KVM_GET_STATS_FD, 0), r;

	if (fd < 0)
		return -1;
	r = add_all(l, fd);
	m->api->close(fd);
	return r;
}

static void print_own(struct machine *m, FILE *f, double wall)
{
	u64 sum;
	int i, k;

	fprintf(f, "\"wall_s\": %.3f,\n\"cpu_s\": %.3f", wall,
		clock_seconds(CLOCK_PROCESS_CPUTIME_ID));
	for (k = 0; k < EXIT_KINDS; k++) {
		for (sum = 0, i = 0; i < m->cpus; i++)
			sum += m->vcpu[i].exits[k];
		if (sum)
			fprintf(f, ",\n\"exit_%s\": %llu", vcpu_exit_name(k),
				(unsigned long long)sum);
	}
}

int stats_write(struct machine *m, FILE *f, const char *path, double wall)
{
	struct stat_list list = {0};
	int i, r = 0;
	size_t k;

	fputs("{\n", f);
	print_own(m, f, wall);
	if (m->api->ioctl(m->sys, KVM_CHECK_EXTENSION, KVM_CAP_BINARY_STATS_FD) > 0) {
		r = add_object(m, &list, m->vm);
		for (i = 0; r == 0 && i < m->cpus; i++)
			r = add_object(m, &list, m->vcpu[i].fd);
	}
	for (k = 0; k < list.n; k++)
		fprintf(f, ",\n\"%s\": %llu", list.s[k].name, (unsigned long long)list.s[k].value);
	fputs("\n}\n", f);
	list_free(&list);
	if (r < 0)
		return vmm_error("cannot read KVM's statistics");
	if (fflush(f) || ferror(f))
		return vmm_error("cannot write %s: %s", path, strerror(errno));
	return 0;
}
