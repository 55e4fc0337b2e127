// SPDX-License-Identifier: MIT
/* See vmguest.h: the VM's user space, events, and the comparison of the modes. */
#include "vmguest.h"

#define PAGE 4096ul

static const char *const mode_env[] = {"off", "on", "verify"};

const char *vm_mode_name(const struct vm *vm)
{
	return mode_env[vm->gpa_mode];
}

/* ---- memory and devices as user space sees them */

static uint8_t *device_byte(struct vm *vm, uint64_t gpa)
{
	static uint8_t scratch;

	if (vm->cpu_mode == REAL && gpa - REAL_BASE < 0x10000)
		return vm->dev + (gpa - REAL_BASE);
	if (gpa - DEV_GPA < DEV_SIZE)
		return vm->dev + (gpa - DEV_GPA);
	scratch = seed_pattern(gpa); /* elsewhere: reads are constant, writes are lost */
	return &scratch;
}

uint8_t *vm_at(struct vm *vm, uint64_t linear)
{
	const struct seed_page *p = seed_page_of(linear);
	uint64_t gpa = p ? p->gpa | (linear & (PAGE - 1)) : linear;

	return gpa < RAM_SIZE ? vm->m.ram + gpa : device_byte(vm, gpa);
}

uint64_t vm_peek(struct vm *vm, uint64_t linear)
{
	uint64_t v = 0;

	for (unsigned int k = 0; k < 8; k++)
		v |= (uint64_t)*vm_at(vm, linear + k) << (8 * k);
	return v;
}

void vm_poke(struct vm *vm, uint64_t linear, uint64_t value)
{
	for (unsigned int k = 0; k < 8; k++)
		*vm_at(vm, linear + k) = value >> (8 * k);
}

uint64_t *vm_pte(struct vm *vm, uint64_t linear)
{
	return (uint64_t *)(vm->m.ram + PT_HIGH) + ((linear >> 12) & 511);
}

bool vm_device_written(const struct vm *vm, uint64_t gpa)
{
	uint64_t n = (gpa - DEV_GPA) / PAGE;

	return n < 256 && vm->dirty[n / 64] >> (n % 64) & 1;
}

static void mark_written(struct vm *vm, uint64_t gpa)
{
	uint64_t n = (gpa - DEV_GPA) / PAGE;

	if (n < 256)
		vm->dirty[n / 64] |= 1ull << (n % 64);
}

void vm_answer(struct vm *vm)
{
	struct kvm_run *run = vm->m.run;

	if (run->exit_reason == KVM_EXIT_MMIO) {
		if (run->mmio.is_write)
			mark_written(vm, run->mmio.phys_addr);
		for (unsigned int k = 0; k < run->mmio.len && run->mmio.is_write; k++)
			*device_byte(vm, run->mmio.phys_addr + k) = run->mmio.data[k];
		for (unsigned int k = 0; k < run->mmio.len && !run->mmio.is_write; k++)
			run->mmio.data[k] = *device_byte(vm, run->mmio.phys_addr + k);
	} else if (run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_IN) {
		for (unsigned int k = 0; k < run->io.size * run->io.count; k++)
			io_data(&vm->m)[k] = seed_pattern(vm->io_seed++);
	}
}

/* ---- events */

static void __attribute__((format(printf, 2, 3))) note(struct vm *vm, const char *fmt, ...)
{
	size_t n = strlen(vm->events);
	va_list ap;

	if (n + 64 > sizeof(vm->events))
		return;
	if (n)
		vm->events[n++] = ' ';
	va_start(ap, fmt);
	vsnprintf(vm->events + n, sizeof(vm->events) - n, fmt, ap);
	va_end(ap);
}

static bool has_error_code(unsigned int vector)
{
	return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

/* The program stopped: behind its HLT or OUT, or in an exception's handler. */
static void note_end(struct vm *vm)
{
	struct kvm_regs r = regs_of(&vm->m);
	unsigned int vector = (r.rip - TRAPS) / 16;

	vm->ended = true;
	if (r.rip < TRAPS || vector >= 32)
		return;
	if (has_error_code(vector) && vm->cpu_mode != REAL)
		note(vm, "#%u:%x", vector, (uint32_t)vm_peek(vm, r.rsp));
	else
		note(vm, "#%u", vector);
}

static void note_io(struct vm *vm)
{
	struct kvm_run *run = vm->m.run;
	bool out = run->io.direction == KVM_EXIT_IO_OUT;

	if (out && run->io.port == STOP_PORT)
		note_end(vm);
	else
		note(vm, "%s%ux%u", out ? "OUT" : "IN", run->io.size, run->io.count);
}

static void note_exit(struct vm *vm)
{
	struct kvm_run *run = vm->m.run;

	switch (run->exit_reason) {
	case KVM_EXIT_MMIO:
		note(vm, "%c%u@%llx", run->mmio.is_write ? 'W' : 'R', run->mmio.len,
			(unsigned long long)run->mmio.phys_addr);
		break;
	case KVM_EXIT_IO:
		note_io(vm);
		break;
	case KVM_EXIT_HLT:
		note_end(vm);
		break;
	case KVM_EXIT_DEBUG:
		note(vm, "DEBUG@%llx", (unsigned long long)run->debug.arch.pc);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		note(vm, "ERROR%u", run->internal.suberror);
		break;
	default:
		note(vm, "EXIT%u", run->exit_reason);
	}
}

int vm_step(struct vm *vm)
{
	int r = vcpu_run(&vm->m);

	vm->ended = false;
	if (r == -EINTR)
		note(vm, "EINTR");
	else if (r)
		note(vm, "ERRNO%d", -r);
	else
		note_exit(vm);
	return r;
}

static bool wants_answer(const struct vm *vm)
{
	return vm->m.run->exit_reason == KVM_EXIT_MMIO || vm->m.run->exit_reason == KVM_EXIT_IO;
}

void vm_run(struct vm *vm)
{
	for (unsigned int k = 0; k < 100000; k++) {
		if (vm_step(vm) || vm->ended || !wants_answer(vm))
			return;
		vm_answer(vm);
		if (vm->between)
			vm->between(vm);
	}
	note(vm, "ENDLESS");
}

/* "R1*2 W8@d0000008+2" -> "R1 R1 W8@d0000008 W8@d0000010" */
static void expand(const char *in, char *out)
{
	unsigned long long at;
	char word[64], size;
	int n, step, used;

	for (*out = 0; sscanf(in, "%63[^*+ ]%n", word, &used) == 1; in += used + (in[used] == ' ')) {
		in += used;
		used = step = 0;
		n = 1;
		if (*in == '+' && sscanf(word, "%*c%c@%llx", &size, &at) == 2)
			step = size - '0';
		if (*in == '*' || *in == '+')
			(void)!sscanf(in + 1, "%d%n", &n, &used);
		used += *in == '*' || *in == '+';
		for (int k = 0; k < n; k++, at += step) {
			if (step)
				sprintf(word + 3, "%llx", at);
			sprintf(out + strlen(out), "%s%s", *out ? " " : "", word);
		}
	}
}

void vm_drop_addresses(struct vm *vm)
{
	char *to = vm->events;

	for (const char *p = vm->events; *p; p++) {
		if (*p == '@')
			p += strcspn(p, " ") - 1;
		else
			*to++ = *p;
	}
	*to = 0;
}

void vm_expect(struct vm *vm, const char *events)
{
	char want[sizeof(vm->events)];

	expand(events, want);
	if (strcmp(vm->events, want) && getenv("V"))
		printf("%s\n", vm->events);
	if (strcmp(vm->events, want))
		fail_msg("%s: events \"%s\", not \"%s\"", vm_mode_name(vm), vm->events, want);
	vm->events[0] = 0;
}

/* ---- walks */

uint64_t vm_stat(struct vm *vm, const char *name)
{
	uint64_t v = stat_value(vm->stats, name);

	if (v == ~0ull)
		fail_msg("no statistic %s", name);
	return v;
}

void vm_walks(struct vm *vm, uint64_t off)
{
	uint64_t data = vm_stat(vm, "emul_walk_data"), want = vm->gpa_mode == OFF ? off : 0;

	if (data != want)
		fail_msg("%s: %llu walks, not %llu", vm_mode_name(vm), (unsigned long long)data,
			(unsigned long long)want);
	if (vm->gpa_mode == OFF)
		return;
	if (vm_stat(vm, "emul_walk_prove"))
		fail_msg("%s: walks to prove", vm_mode_name(vm));
	if (vm->gpa_mode == VERIFY && off && !vm_stat(vm, "walk_verify"))
		fail_msg("nothing was verified");
}

/* ---- what the modes must have in common */

struct final {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_vcpu_events events;
	struct kvm_xsave xsave;
	struct kvm_debugregs debug;
	uint8_t memory[]; /* RAM, devices, read-only slot */
};
#define FINAL_SIZE (sizeof(struct final) + RAM_SIZE + DEV_SIZE + PAGE)
#define FINALS 160

static struct final *finals[FINALS]; /* of mode off */
static unsigned int nr_finals, this_final;

static struct final *final_state(struct vm *vm)
{
	struct final *f = calloc(1, FINAL_SIZE);
	int v = vm->m.vcpu;

	f->regs = regs_of(&vm->m);
	f->sregs = sregs_of(&vm->m);
	f->events = events_of(&vm->m);
	must(api->ioctl(v, KVM_GET_XSAVE, &f->xsave), "GET_XSAVE");
	must(api->ioctl(v, KVM_GET_DEBUGREGS, &f->debug), "GET_DEBUGREGS");
	memcpy(f->memory, vm->m.ram, RAM_SIZE);
	memcpy(f->memory + RAM_SIZE, vm->dev, DEV_SIZE);
	memcpy(f->memory + RAM_SIZE + DEV_SIZE, vm->rom, PAGE);
	return f;
}

static void compare_memory(const char *mode, const struct final *a, const struct final *b)
{
	for (size_t k = 0; k < FINAL_SIZE - sizeof(*a); k++)
		if (a->memory[k] != b->memory[k])
			fail_msg("%s: memory at %#zx is %02x, not %02x", mode, k, b->memory[k],
				a->memory[k]);
}

static void compare(const char *mode, const struct final *a, const struct final *b)
{
#define SAME(field)                                            \
	if (memcmp(&a->field, &b->field, sizeof(a->field)))    \
		fail_msg("%s: other " #field " than off", mode)
	SAME(regs);
	SAME(sregs);
	SAME(events);
	SAME(xsave);
	SAME(debug);
	if (memcmp(a->memory, b->memory, FINAL_SIZE - sizeof(*a)))
		compare_memory(mode, a, b);
}

static void keep_final(struct vm *vm)
{
	struct final *f = final_state(vm);

	if (vm->gpa_mode == OFF) {
		assert_true(nr_finals < FINALS);
		finals[nr_finals++] = f;
		return;
	}
	assert_true(this_final < nr_finals);
	compare(vm_mode_name(vm), finals[this_final++], f);
	free(f);
}

static void vm_close(struct vm *vm)
{
	api->close(vm->stats);
	machine_close(&vm->m);
	munmap(vm->dev, DEV_SIZE);
	munmap(vm->rom, PAGE);
	free(vm);
}

void vm_end(struct vm *vm, const char *events)
{
	vm_expect(vm, events);
	keep_final(vm);
	vm_close(vm);
}

void vm_finish(struct vm *vm, const char *events, uint64_t off)
{
	vm_walks(vm, off);
	vm_end(vm, events);
}

static void free_finals(void)
{
	while (nr_finals)
		free(finals[--nr_finals]);
}

static void in_all_modes(void **state)
{
	const struct seed_test *t = *state;

	free_finals();
	for (int mode = OFF; mode < NR_GPA_MODES; mode++) {
		this_final = 0;
		t->fn(mode);
		if (mode != OFF && this_final != nr_finals)
			fail_msg("%s: not all guests ran", mode_env[mode]);
	}
	free_finals();
}

int seed_main(int argc, char **argv, const struct seed_test *tests, unsigned int n)
{
	struct CMUnitTest *unit = calloc(n, sizeof(*unit));
	int r;

	for (unsigned int k = 0; k < n; k++)
		unit[k] = (struct CMUnitTest){
			.name = tests[k].name,
			.test_func = in_all_modes,
			.initial_state = (void *)&tests[k],
		};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	r = _cmocka_run_group_tests("seed", unit, n, NULL, NULL);
	free(unit);
	return r;
}
