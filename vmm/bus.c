// SPDX-License-Identifier: MIT
/*
 * The I/O ports that the VMM answers: serial line, clock, reset and power
 * registers. All else, PCI configuration included, reads as all ones and
 * ignores writes, as an empty bus does. KVM itself answers for PIC, PIT and
 * port 0x61.
 */
#include "vmm.h"

#include <string.h>
#include <time.h>

#define PM1_SLP_EN   (1 << 13)
#define PM1_SLP_TYPE(v) ((v) >> 10 & 7)
#define PM1_SCI_EN   1
#define NS_PER_S     1000000000ull
#define PM_TIMER_HZ  3579545ull /* ACPI 4.8.3.3 */

/* A device's register access: reads return the value, writes get it. */
typedef u32 port_fn(struct machine *m, unsigned int off, unsigned int len, bool write, u32 v);

static u32 port_uart(struct machine *m, unsigned int off, unsigned int len, bool write, u32 v)
{
	(void)len;
	if (!write)
		return uart_read(&m->uart, off);
	uart_write(&m->uart, off, v);
	return 0;
}

/* Time as the guest has it: its kvmclock in ns, and UTC if KVM is new enough to tell. */
static struct kvm_clock_data guest_clock(struct machine *m)
{
	struct kvm_clock_data d = {0};

	m->api->ioctl(m->vm, KVM_GET_CLOCK, &d);
	if (!(d.flags & KVM_CLOCK_REALTIME))
		d.realtime = time(NULL) * NS_PER_S;
	return d;
}

static u32 port_rtc(struct machine *m, unsigned int off, unsigned int len, bool write, u32 v)
{
	(void)len;
	if (!write)
		return rtc_read(&m->rtc, off, guest_clock(m).realtime / NS_PER_S);
	rtc_write(&m->rtc, off, v);
	return 0;
}

/* Keyboard controller: command 0xfe pulses the reset line. Its status says: nothing there. */
static u32 port_i8042(struct machine *m, unsigned int off, unsigned int len, bool write, u32 v)
{
	(void)off, (void)len;
	if (write && (u8)v == 0xfe)
		machine_end(m, END_RESTART, "%s", "");
	return 0;
}

/* Reset control register of the PC chip sets: bit 2 resets. */
static u32 port_reset(struct machine *m, unsigned int off, unsigned int len, bool write, u32 v)
{
	(void)off, (void)len;
	if (write && v & 4)
		machine_end(m, END_RESTART, "%s", "");
	return 0;
}

/* PM1 status (no event ever) and enable registers (ACPI 4.8.3.1). */
static u32 port_pm1_event(struct machine *m, unsigned int off, unsigned int len, bool write, u32 v)
{
	if (write && off == 2)
		m->pm1_enable = v;
	else if (write && len == 4)
		m->pm1_enable = v >> 16;
	return off == 2 ? m->pm1_enable : len == 4 ? (u32)m->pm1_enable << 16 : 0;
}

/* PM1 control (ACPI 4.8.3.2): SLP_EN with the type of \_S5 is power-off. */
static u32 port_pm1_control(struct machine *m, unsigned int off, unsigned int len, bool write,
			    u32 v)
{
	(void)len;
	if (write && off == 0) {
		m->pm1_control = v & ~PM1_SLP_EN;
		if (v & PM1_SLP_EN && PM1_SLP_TYPE(v) == ACPI_S5_TYPE)
			machine_end(m, END_POWEROFF, "%s", "");
	}
	return (m->pm1_control | PM1_SCI_EN) >> 8 * off;
}

static u32 port_pm_timer(struct machine *m, unsigned int off, unsigned int len, bool write, u32 v)
{
	u64 ns = guest_clock(m).clock, ticks;

	(void)len, (void)write, (void)v;
	ticks = ns / NS_PER_S * PM_TIMER_HZ + ns % NS_PER_S * PM_TIMER_HZ / NS_PER_S;
	return (ticks & 0xffffff) >> 8 * off;
}

static const struct {
	u16 first, last;
	port_fn *fn;
} ports[] = {
	{0x3f8, 0x3ff, port_uart},
	{0x64, 0x64, port_i8042},
	{0x70, 0x71, port_rtc},
	{PORT_PM1_EVT, PORT_PM1_EVT + 3, port_pm1_event},
	{PORT_PM1_CNT, PORT_PM1_CNT + 1, port_pm1_control},
	{PORT_PM_TMR, PORT_PM_TMR + 3, port_pm_timer},
	{PORT_RESET, PORT_RESET, port_reset},
};

/* An access belongs to a device if it lies in its ports altogether. */
void bus_port(struct machine *m, u16 port, bool write, u8 *data, unsigned int len)
{
	u32 v = 0;
	size_t i;

	if (write)
		memcpy(&v, data, len);
	for (i = 0; i < sizeof(ports) / sizeof(*ports); i++)
		if (port >= ports[i].first && port + len - 1 <= ports[i].last)
			break;
	if (i < sizeof(ports) / sizeof(*ports))
		v = ports[i].fn(m, port - ports[i].first, len, write, v);
	else
		v = ~0u;
	if (!write)
		memcpy(data, &v, len);
}
