// SPDX-License-Identifier: MIT
/* Without chips in the "kernel": KVM_INTERRUPT, the interrupt window, kvm_run.cr8, KVM_NMI, HLT. */
#include "../lib/lib.h"

static volatile ulong at;
static struct exit_log exits;

static void test_window(void)
{
	test_begin("interrupt window");
	nr_traps = 0;
	service(SVC_IRQ_WINDOW, 0x44, 0, 0, 0);
	asm volatile("nop; nop; nop");
	check("closed with IF = 0", nr_traps, 0);
	asm volatile("movq $1f, at; sti; 1: nop; nop; nop; cli" ::: "memory");
	check("once", nr_traps, 1);
	check("vector", traps[0].vector, 0x44);
	check("not in the shadow of STI", traps[0].ip, at + 1);
	check("IF was 1", traps[0].flags & IF, IF);
	nr_traps = 0;
	service(SVC_IRQ_WINDOW, 0x45, 0, 0, 0);
	asm volatile("movq $1f, at; sti; 1: movw %w0, %%ss; nop; nop; cli" ::"r"(KERNEL_DS) : "memory");
	check("not behind MOV SS either", traps[0].ip, at + 3);
	nr_traps = 0;
	asm volatile("sti");
	service(SVC_IRQ_WINDOW, 0x46, 0, 0, 0);
	asm volatile("nop; cli");
	check("open at once", nr_traps, 1);
	check("vector", traps[0].vector, 0x46);
}

static void test_interrupt(void)
{
	test_begin("KVM_INTERRUPT");
	nr_traps = 0;
	asm volatile("sti; nop");
	check("accepted", service(SVC_IRQ, 0x47, 0, 0, 0), 0);
	asm volatile("nop; cli");
	check("delivered", nr_traps, 1);
	check("vector", traps[0].vector, 0x47);
	check("vector 256", service(SVC_IRQ, 256, 0, 0, 0), -22);
}

static void test_cr8(void)
{
	ulong v;

	test_begin("CR8 and kvm_run.cr8");
	asm volatile("movq %0, %%cr8" ::"r"(5ul));
	check("kvm_run.cr8", service(SVC_CR8, 9, 0, 0, 0), 5);
	asm volatile("movq %%cr8, %0" : "=r"(v));
	check("CR8", v, 9);
	service(SVC_CR8, 0, 0, 0, 0);
	service(SVC_MMIO_LOG, (ulong)&exits, 0, 0, 0);
	asm volatile("movq %0, %%cr8; movq %0, %%cr8" ::"r"(7ul));
	check("raised, the same: no exit", exits.n, 0);
	asm volatile("movq %0, %%cr8; nop" ::"r"(3ul));
	check("lowered: KVM_EXIT_SET_TPR", exits.n, 1);
	check("kvm_run.cr8", exits.e[0].value, 3);
	service(SVC_MMIO_LOG, 0, 0, 0, 0);
}

static void test_nmi(void)
{
	test_begin("KVM_NMI");
	nr_traps = 0;
	service(SVC_NMI, 0, 0, 0, 0);
	asm volatile("nop; nop");
	check("one", nr_traps, 1);
	check("vector", traps[0].vector, NMI);
}

void guest_main(void)
{
	traps_init();
	test_window();
	test_interrupt();
	test_cr8();
	test_nmi();
}
