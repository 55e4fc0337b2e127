// SPDX-License-Identifier: MIT
/*
 * A 16550A UART (National Semiconductor PC16550D data sheet) whose transmitter
 * is infinitely fast: a byte written has left when the write returns. The
 * receiver never overruns, its feeder asks uart_room() first. It knows
 * registers and one interrupt line; the port and the terminal are elsewhere.
 */
#include "vmm.h"

enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

#define IER_RX	   0x01
#define IER_THRE   0x02
#define IER_LSR	   0x04
#define IER_MSR	   0x08
#define IIR_NONE   0x01
#define IIR_MSR	   0x00
#define IIR_THRE   0x02
#define IIR_RX	   0x04
#define IIR_LSR	   0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO   0xc0
#define FCR_ENABLE 0x01
#define FCR_CLEAR_RX 0x02
#define LCR_DLAB   0x80
#define MCR_DTR	   0x01
#define MCR_RTS	   0x02
#define MCR_OUT1   0x04
#define MCR_OUT2   0x08
#define MCR_LOOP   0x10
#define LSR_DR	   0x01
#define LSR_OE	   0x02
#define LSR_ERRORS 0x1e
#define LSR_THRE   0x20
#define LSR_TEMT   0x40
#define MSR_CTS	   0x10
#define MSR_DSR	   0x20
#define MSR_RI	   0x40
#define MSR_DCD	   0x80
#define MSR_DELTA  0x0f
#define MSR_LINES  0xf0

static unsigned int fifo_size(const struct uart *u)
{
	return u->fcr & FCR_ENABLE ? UART_FIFO : 1;
}

/* Bytes that raise "data available" (as opposed to the timeout). */
static unsigned int rx_trigger(const struct uart *u)
{
	static const u8 level[4] = {1, 4, 8, 14};

	return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

/* The pending interrupt of highest priority. The receive timeout comes at once. */
static u8 iir_now(const struct uart *u)
{
	if (u->ier & IER_LSR && u->lsr & LSR_ERRORS)
		return IIR_LSR;
	if (u->ier & IER_RX && u->count)
		return u->count >= rx_trigger(u) ? IIR_RX : IIR_TIMEOUT;
	if (u->ier & IER_THRE && u->thre)
		return IIR_THRE;
	if (u->ier & IER_MSR && u->msr & MSR_DELTA)
		return IIR_MSR;
	return IIR_NONE;
}

/* On a PC OUT2 connects the line to the interrupt controller; loopback cuts it. */
static void irq_update(struct uart *u)
{
	bool level = iir_now(u) != IIR_NONE && (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;

	if (level == u->line)
		return;
	u->line = level;
	u->irq(u->ctx, level);
}

/* Modem lines: all is well on the other end, or our own outputs in loopback. */
static u8 modem_lines(const struct uart *u)
{
	u8 m = u->mcr;

	if (!(m & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	return (m & MCR_RTS ? MSR_CTS : 0) | (m & MCR_DTR ? MSR_DSR : 0) |
	       (m & MCR_OUT1 ? MSR_RI : 0) | (m & MCR_OUT2 ? MSR_DCD : 0);
}

/* Sets the delta bits; RI has one for its trailing edge only. */
static void modem_update(struct uart *u)
{
	u8 now = modem_lines(u), change = (u->msr ^ now) & MSR_LINES;

	if (now & MSR_RI)
		change &= ~MSR_RI;
	u->msr = now | (u->msr & MSR_DELTA) | change >> 4;
}

void uart_reset(struct uart *u)
{
	u->ier = u->fcr = u->lcr = u->mcr = u->scr = u->dlm = 0;
	u->dll = 12; /* 9600 */
	u->lsr = LSR_THRE | LSR_TEMT;
	u->first = u->count = 0;
	u->thre = u->line = false;
	u->msr = modem_lines(u);
}

unsigned int uart_room(const struct uart *u)
{
	return u->mcr & MCR_LOOP ? 0 : fifo_size(u) - u->count;
}

static void fifo_push(struct uart *u, u8 byte)
{
	if (u->count >= fifo_size(u)) {
		u->lsr |= LSR_OE;
		return;
	}
	u->fifo[(u->first + u->count++) % UART_FIFO] = byte;
}

static u8 fifo_pop(struct uart *u)
{
	u8 byte = u->fifo[u->first];

	if (!u->count)
		return 0;
	u->first = (u->first + 1) % UART_FIFO;
	u->count--;
	return byte;
}

void uart_receive(struct uart *u, u8 byte)
{
	fifo_push(u, byte);
	irq_update(u);
}

static u8 read_iir(struct uart *u)
{
	u8 v = iir_now(u);

	if (v == IIR_THRE)
		u->thre = false;
	return v | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static u8 read_lsr(struct uart *u)
{
	u8 v = u->lsr | (u->count ? LSR_DR : 0);

	u->lsr &= ~LSR_ERRORS;
	return v;
}

static u8 read_msr(struct uart *u)
{
	u8 v = u->msr;

	u->msr &= ~MSR_DELTA;
	return v;
}

u8 uart_read(struct uart *u, unsigned int reg)
{
	u8 v = 0;

	switch (reg) {
	case RBR_THR: v = u->lcr & LCR_DLAB ? u->dll : fifo_pop(u); break;
	case IER:     v = u->lcr & LCR_DLAB ? u->dlm : u->ier; break;
	case IIR_FCR: v = read_iir(u); break;
	case LCR:     v = u->lcr; break;
	case MCR:     v = u->mcr; break;
	case LSR:     v = read_lsr(u); break;
	case MSR:     v = read_msr(u); break;
	case SCR:     v = u->scr; break;
	}
	irq_update(u);
	return v;
}

static void write_thr(struct uart *u, u8 v)
{
	if (u->mcr & MCR_LOOP)
		fifo_push(u, v);
	else
		u->emit(u->ctx, v);
	u->thre = true;
}

/* Enabling the THRE interrupt while the holding register is empty raises it. */
static void write_ier(struct uart *u, u8 v)
{
	v &= 0x0f;
	if (v & ~u->ier & IER_THRE)
		u->thre = true;
	u->ier = v;
}

/* FIFOs empty when asked to, and when they are switched on or off. */
static void write_fcr(struct uart *u, u8 v)
{
	if (v & FCR_CLEAR_RX || (v ^ u->fcr) & FCR_ENABLE)
		u->first = u->count = 0;
	u->fcr = v & FCR_ENABLE ? v & 0xc9 : 0;
}

void uart_write(struct uart *u, unsigned int reg, u8 v)
{
	bool dlab = u->lcr & LCR_DLAB;

	switch (reg) {
	case RBR_THR: dlab ? (void)(u->dll = v) : write_thr(u, v); break;
	case IER:     dlab ? (void)(u->dlm = v) : write_ier(u, v); break;
	case IIR_FCR: write_fcr(u, v); break;
	case LCR:     u->lcr = v; break;
	case MCR:     u->mcr = v & 0x1f; modem_update(u); break;
	case SCR:     u->scr = v; break;
	}
	irq_update(u);
}
