/*
 * BAR addresses (bhyve.md 4.1): after all devices of a bus are there, largest first, each at a multiple of its size in
 * the window of its kind; then the buses behind its bridges, each in windows of the bridge's granularity; then the
 * bus's windows are closed with some slack, and the next root bus goes on behind them. A BAR that does not fit gets no
 * address.
 */
#include "dev/pci/pci_int.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/log.h"

#include <stdlib.h>

#define MEM64_LOW_MAX MIB(128) /* 64-bit BARs up to this size go below 4 GiB */
#define IO_SLACK 32ull
#define MEM32_SLACK MIB(1)
#define MEM64_SLACK MIB(512)
#define BRIDGE_IO_STEP KIB(4)
#define BRIDGE_MEM_STEP MIB(1)

struct want {
	struct pci_dev *p;
	unsigned bar;
	uint64_t size;
	unsigned order;
};

static int by_size(const void *a, const void *b)
{
	const struct want *x = a, *y = b;

	if (x->size != y->size)
		return x->size > y->size ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

/* One more of n in a list; w NULL: only counts. Option ROMs are left to the firmware. */
static unsigned collect(struct pci_bus *b, struct want *w)
{
	unsigned n = 0;

	for (unsigned i = 0; i < PCI_SLOTS * PCI_FUNCS; i++) {
		struct pci_dev *p = b->slot[i / PCI_FUNCS].fn[i % PCI_FUNCS];

		for (unsigned bar = 0; p && bar < PCI_BAR_ROM; bar++) {
			if (p->bar[bar].desc.kind == BAR_NONE)
				continue;
			if (w)
				w[n] = (struct want){ p, bar, p->bar[bar].desc.size, n };
			n++;
		}
	}
	return n;
}

static uint64_t take(uint64_t *next, uint64_t end, uint64_t size)
{
	uint64_t at = round_up(*next, size);

	if (at < *next || !range_in(at, size, end))
		return 0;
	*next = at + size;
	return at;
}

static void assign(struct pci_host *h, const struct want *w)
{
	enum pci_bar_kind kind = w->p->bar[w->bar].desc.kind;
	uint64_t at;

	if (kind == BAR_IO)
		at = take(&h->io_next, h->lay.io_end, w->size);
	else if (kind == BAR_MEM64 && w->size > MEM64_LOW_MAX)
		at = take(&h->mem64_next, h->lay.mem64_end, w->size);
	else
		at = take(&h->mem32_next, h->lay.mem32_end, w->size);
	if (!at)
		log_info("%s: no address left for BAR %u of %#llx bytes", w->p->dev.name, w->bar,
			 (unsigned long long)w->size);
	pci_bar_assign(w->p, w->bar, at);
}

static struct pci_window window_close(uint64_t base, uint64_t *next, uint64_t end, uint64_t slack)
{
	*next = round_up(*next + slack, slack);
	if (*next > end)
		*next = end;
	return (struct pci_window){ .base = base, .limit = *next - 1 };
}

static void bars_assign(struct pci_host *h, struct pci_bus *b)
{
	unsigned n = collect(b, NULL);
	AUTO_FREE struct want *w = xcalloc(n, sizeof(*w));

	collect(b, w);
	qsort(w, n, sizeof(*w), by_size);
	for (unsigned i = 0; i < n; i++)
		assign(h, &w[i]);
}

/* ------ behind bridges ------ */

static void bus_assign(struct pci_host *h, unsigned bus);

/* Where a window of that step begins, if anything comes into it. */
static uint64_t window_open(uint64_t *next, uint64_t end, uint64_t step)
{
	*next = round_up(*next, step) <= end ? round_up(*next, step) : end;
	return *next;
}

static struct pci_window window_end(uint64_t base, uint64_t *next, uint64_t end, uint64_t step)
{
	struct pci_window w = { .base = base, .limit = *next - 1 };

	if (*next == base)
		return (struct pci_window){ .base = 1, .limit = 0 };
	*next = round_up(*next, step);
	if (*next > end)
		*next = end;
	w.limit = *next - 1;
	return w;
}

static void bridge_assign(struct pci_host *h, struct pci_dev *p)
{
	const struct pci_layout *l = &h->lay;
	uint64_t io = window_open(&h->io_next, l->io_end, BRIDGE_IO_STEP);
	uint64_t mem = window_open(&h->mem32_next, l->mem32_end, BRIDGE_MEM_STEP);
	uint64_t pref = window_open(&h->mem64_next, l->mem64_end, BRIDGE_MEM_STEP);
	struct pci_window w[3];

	bus_assign(h, pci_bridge_bus(p));
	w[0] = window_end(io, &h->io_next, l->io_end, BRIDGE_IO_STEP);
	w[1] = window_end(mem, &h->mem32_next, l->mem32_end, BRIDGE_MEM_STEP);
	w[2] = window_end(pref, &h->mem64_next, l->mem64_end, BRIDGE_MEM_STEP);
	pci_bridge_assign(p, w[0], w[1], w[2]);
}

static void bus_assign(struct pci_host *h, unsigned bus)
{
	struct pci_bus *b = h->bus[bus];

	bars_assign(h, b);
	for (unsigned i = 0; i < PCI_SLOTS * PCI_FUNCS; i++) {
		struct pci_dev *p = b->slot[i / PCI_FUNCS].fn[i % PCI_FUNCS];

		if (p && pci_is_bridge(p))
			bridge_assign(h, p);
	}
}

void pci_assign_root(struct pci_host *h, unsigned bus)
{
	struct pci_bus *b = h->bus[bus];
	uint64_t io = h->io_next, mem32 = h->mem32_next, mem64 = h->mem64_next;

	bus_assign(h, bus);
	b->io = window_close(io, &h->io_next, h->lay.io_end, IO_SLACK);
	b->mem32 = window_close(mem32, &h->mem32_next, h->lay.mem32_end, MEM32_SLACK);
	b->mem64 = window_close(mem64, &h->mem64_next, h->lay.mem64_end, MEM64_SLACK);
}
