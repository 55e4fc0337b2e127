// SPDX-License-Identifier: MIT
/*
 * The chips as devices on the buses. LAPICs are not here: each vCPU sees its own at the
 * same address, so the caller asks lapic_mmio_read before the bus.
 */
#include "irq/irq_impl.h"

#include <errno.h>
#include <string.h>

#include "mem/iobus.h"

/*
 * Port chips are eight bits wide: a wider access reaches the register of its first port,
 * reads the rest as zero.
 */
static int port_read(void *dev, u64 addr, unsigned int len, void *data,
	u8 (*read)(struct irqchip *c, u16 port))
{
	struct irq_port *p = dev;

	if (addr < p->base)
		return -EOPNOTSUPP;
	memset(data, 0, len);
	*(u8 *)data = read(p->chip, (u16)addr);
	return 0;
}

static int port_write(void *dev, u64 addr, unsigned int len, const void *data,
	void (*write)(struct irqchip *c, u16 port, u8 value))
{
	struct irq_port *p = dev;

	(void)len;
	if (addr < p->base)
		return -EOPNOTSUPP;
	write(p->chip, (u16)addr, *(const u8 *)data);
	return 0;
}

static int pic_port_read(void *dev, u64 addr, unsigned int len, void *data)
{
	return port_read(dev, addr, len, data, pic_read);
}

static int pic_port_write(void *dev, u64 addr, unsigned int len, const void *data)
{
	return port_write(dev, addr, len, data, pic_write);
}

static int pit_port_read(void *dev, u64 addr, unsigned int len, void *data)
{
	return port_read(dev, addr, len, data, pit_read);
}

static int pit_port_write(void *dev, u64 addr, unsigned int len, const void *data)
{
	return port_write(dev, addr, len, data, pit_write);
}

static int ioapic_bus_read(void *dev, u64 addr, unsigned int len, void *data)
{
	struct irq_port *p = dev;

	if (addr < p->base)
		return -EOPNOTSUPP;
	ioapic_read(p->chip, (u32)(addr - p->base), len, data);
	return 0;
}

static int ioapic_bus_write(void *dev, u64 addr, unsigned int len, const void *data)
{
	struct irq_port *p = dev;

	if (addr < p->base)
		return -EOPNOTSUPP;
	ioapic_write(p->chip, (u32)(addr - p->base), len, data);
	return 0;
}

static const struct iodev_ops pic_ops = { .read = pic_port_read, .write = pic_port_write };
static const struct iodev_ops pit_ops = { .read = pit_port_read, .write = pit_port_write };
static const struct iodev_ops ioapic_ops = { .read = ioapic_bus_read, .write = ioapic_bus_write };

static const struct range {
	u64 base, len;
	const struct iodev_ops *ops;
} range[PORTS] = {
	[PORT_PIC_MASTER] = { 0x20, 2, &pic_ops },
	[PORT_PIC_SLAVE] = { 0xa0, 2, &pic_ops },
	[PORT_ELCR] = { 0x4d0, 2, &pic_ops },
	[PORT_IOAPIC] = { IOAPIC_BASE, 0x100, &ioapic_ops },
	[PORT_PIT] = { 0x40, 4, &pit_ops },
	[PORT_SPEAKER] = { 0x61, 1, &pit_ops },
};

static int port_add(struct irqchip *c, struct iobus *bus, int i)
{
	c->port[i].base = range[i].base;
	return iobus_add(bus, range[i].base, range[i].len, range[i].ops, &c->port[i]);
}

int irqchip_attach(struct irqchip *c, struct iobus *mmio, struct iobus *pio)
{
	int i, err;

	if (irqchip_is_split(c))
		return 0;
	for (i = 0; i <= PORT_IOAPIC; i++) {
		err = port_add(c, i == PORT_IOAPIC ? mmio : pio, i);
		if (err)
			break;
	}
	if (i > PORT_IOAPIC)
		return 0;
	while (i-- > 0)
		iobus_remove(pio, &c->port[i]);
	return err;
}

void irqchip_detach(struct irqchip *c, struct iobus *mmio, struct iobus *pio)
{
	if (irqchip_is_split(c))
		return;
	iobus_remove(mmio, &c->port[PORT_IOAPIC]);
	for (int i = 0; i < PORT_IOAPIC; i++)
		iobus_remove(pio, &c->port[i]);
}

int pit_attach(struct irqchip *c, bool speaker, struct iobus *pio)
{
	int err = port_add(c, pio, PORT_PIT);

	if (!err && speaker) {
		err = port_add(c, pio, PORT_SPEAKER);
		if (err)
			iobus_remove(pio, &c->port[PORT_PIT]);
	}
	return err;
}
