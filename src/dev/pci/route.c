/*
 * INTx (bhyve.md 5.5). Every pin of a slot that is used goes to one I/O APIC pin and to one of eight PIRQs; each PIRQ
 * to the ISA IRQ its register in the LPC bridge names, at the 8259s alone. Both paths are driven at the same time; the
 * guest uses one. Behind a bridge a pin is one of the bridge's own slot, swizzled (PCI-to-PCI Bridge Architecture 1.2,
 * 9.1).
 *
 *   function --INTA..D--> slot pin --+--> I/O APIC pin 16..31          (level: any function that asserts)
 *                                    +--> PIRQ A..H --reg--> ISA IRQ    (level: any PIRQ on it)
 */
#include "dev/pci/pci_int.h"

#include "dev/chip/i8259.h"
#include "dev/chip/ioapic.h"
#include "snap/snap.h"

enum { IRQ_ALLOWED = 0xdef8, PIRQ_OFF = 0x80, PIRQ_IRQ = 0x0f, IOAPIC_FIRST = 16, IOAPIC_FIXED = 8 };
enum {
	PIRQ_WEIGHT = 2,
	SCI_WEIGHT = 1
}; /* the SCI's IRQ is taken after the free ones, before one is shared by two PIRQs */

/* The pin one bus further up that a pin behind a bridge is wired to. */
static void swizzle(const struct pci_dev *bridge, unsigned *bus, unsigned *slot, unsigned *pin)
{
	*pin = (*pin - 1 + *slot) % PCI_PINS + 1;
	*slot = bridge->slot;
	*bus = bridge->bus;
}

static struct pci_pin *root_pin(struct pci_host *h, unsigned bus, unsigned slot, unsigned pin)
{
	while (h->bus[bus]->bridge)
		swizzle(h->bus[bus]->bridge, &bus, &slot, &pin);
	return &h->bus[bus]->slot[slot].pin[pin - 1];
}

/* ------ levels ------ */

static bool pirq_valid(uint8_t reg)
{
	return !(reg & PIRQ_OFF) && (IRQ_ALLOWED & BIT(reg & PIRQ_IRQ));
}

static void isa_drive(struct pci_host *h, unsigned irq)
{
	struct pci_router *r = &h->router;
	bool high = false;

	for (unsigned i = 0; i < PCI_PIRQS; i++)
		high |= r->pirq_high[i] && pirq_valid(r->reg[i]) && (r->reg[i] & PIRQ_IRQ) == irq;
	if (high == r->isa_high[irq])
		return;
	r->isa_high[irq] = high;
	if (h->lay.pic)
		i8259_set_pirq(h->lay.pic, irq, high);
}

static void ioapic_drive(struct pci_host *h, unsigned pin)
{
	bool high = h->router.ioapic_high[pin] != 0;

	if (h->lay.ioapic)
		ioapic_set_pci(h->lay.ioapic, pin, high);
	else
		irq_set(&h->env->gsi[pin], high);
}

static void pin_change(struct pci_host *h, const struct pci_pin *pin, bool high)
{
	struct pci_router *r = &h->router;

	r->ioapic_high[pin->ioapic_pin] += high ? 1 : -1;
	ioapic_drive(h, pin->ioapic_pin);
	r->pirq_high[pin->pirq] += high ? 1 : -1;
	isa_drive(h, r->reg[pin->pirq] & PIRQ_IRQ);
}

static void update_locked(struct pci_dev *p)
{
	bool cmd_off = ld_le16(&p->cfg[PCI_CFG_COMMAND]) & PCI_CMD_INTX_OFF, out;
	const struct pci_pin *pin;

	if (!p->intx_pin)
		return;
	pin = root_pin(p->host, p->bus, p->slot, p->intx_pin);
	p->cfg[PCI_CFG_STATUS] =
		(uint8_t)((p->cfg[PCI_CFG_STATUS] & ~PCI_STS_INTX) | (p->intx_level ? PCI_STS_INTX : 0));
	out = p->intx_level && !cmd_off && !pci_msi_on(p) && pin->ioapic_pin;
	if (out == p->intx_out)
		return;
	p->intx_out = out;
	pin_change(p->host, pin, out);
}

void pci_intx_update(struct pci_dev *p)
{
	lock_take(&p->host->router.lock);
	update_locked(p);
	lock_drop(&p->host->router.lock);
}

void pci_intx(struct pci_dev *p, bool level)
{
	lock_take(&p->host->router.lock);
	p->intx_level = level;
	update_locked(p);
	lock_drop(&p->host->router.lock);
}

/* ------ allotment ------ */

static unsigned least_used(const uint16_t *use, unsigned n)
{
	unsigned best = 0;

	for (unsigned i = 1; i < n; i++)
		if (use[i] < use[best])
			best = i;
	return best;
}

uint8_t pci_router_pin(struct pci_host *h, unsigned bus, unsigned slot)
{
	struct pci_pin *pin = h->bus[bus]->slot[slot].pin;
	unsigned best = 0;

	for (unsigned i = 1; i < PCI_PINS; i++)
		if (pin[i].users < pin[best].users)
			best = i;
	best++;
	for (unsigned b = bus, s = slot, n = best;; swizzle(h->bus[b]->bridge, &b, &s, &n)) {
		h->bus[b]->slot[s].pin[n - 1].users++;
		if (!h->bus[b]->bridge)
			break;
	}
	return (uint8_t)best;
}

void pci_host_reserve_isa_irq(struct pci_host *h, unsigned irq)
{
	if (irq == PCI_SCI_IRQ)
		h->router.irq_use[irq] = SCI_WEIGHT;
	else if (irq < PCI_ISA_IRQS)
		h->router.reserved[irq] = true;
}

/* The ISA IRQ of a PIRQ that has none yet; it becomes level triggered. */
static void pirq_allot(struct pci_host *h, unsigned pirq)
{
	struct pci_router *r = &h->router;
	int best = -1;

	if (!(r->reg[pirq] & PIRQ_OFF))
		return;
	for (int i = 0; i < PCI_ISA_IRQS; i++)
		if ((IRQ_ALLOWED & BIT(i)) && !r->reserved[i] && (best < 0 || r->irq_use[i] < r->irq_use[best]))
			best = i;
	if (best < 0)
		return;
	r->irq_use[best] += PIRQ_WEIGHT;
	r->reg[pirq] = (uint8_t)best;
	if (h->lay.pic)
		i8259_set_level_triggered(h->lay.pic, (unsigned)best, true);
}

static void pin_route(struct pci_host *h, unsigned slot, unsigned n, struct pci_pin *pin)
{
	struct pci_router *r = &h->router;
	unsigned fixed = (4 + slot + n) % IOAPIC_FIXED;

	pin->ioapic_pin = (uint8_t)(IOAPIC_FIRST + (h->lay.firmware ? fixed : r->next_ioapic++ % 16));
	pin->pirq = (uint8_t)(h->lay.firmware ? fixed : least_used(r->pirq_use, PCI_PIRQS));
	r->pirq_use[pin->pirq]++;
	pirq_allot(h, pin->pirq);
}

static void slot_route(struct pci_host *h, unsigned n, struct pci_slot *s)
{
	for (unsigned i = 0; i < PCI_PINS; i++)
		if (s->pin[i].users)
			pin_route(h, n, i + 1, &s->pin[i]);
}

static void line_set(void *self, struct pci_dev *p)
{
	struct pci_host *h = self;

	if (p->intx_pin)
		p->cfg[PCI_CFG_INT_LINE] = h->router.reg[root_pin(h, p->bus, p->slot, p->intx_pin)->pirq] & PIRQ_IRQ;
}

void pci_router_route_all(struct pci_host *h)
{
	for (unsigned b = 0; b < PCI_BUSES; b++)
		for (unsigned s = 0; h->bus[b] && !h->bus[b]->bridge && s < PCI_SLOTS; s++)
			slot_route(h, s, &h->bus[b]->slot[s]);
	pci_host_each(h, line_set, h);
	for (unsigned i = 0; i < PCI_PIRQS; i++)
		h->router.reg_first[i] = h->router.reg[i];
}

bool pci_host_route(struct pci_host *h, unsigned bus, unsigned slot, unsigned pin, unsigned *ioapic_pin, unsigned *pirq)
{
	const struct pci_pin *p;

	if (bus >= PCI_BUSES || !h->bus[bus] || slot >= PCI_SLOTS || pin < 1 || pin > PCI_PINS)
		return false;
	if (!h->bus[bus]->slot[slot].pin[pin - 1].users)
		return false;
	p = root_pin(h, bus, slot, pin);
	*ioapic_pin = p->ioapic_pin;
	*pirq = p->pirq;
	return true;
}

/* ------ the router's registers ------ */

static void pirq_set_locked(struct pci_host *h, unsigned pirq, uint8_t val)
{
	uint8_t old = h->router.reg[pirq];

	h->router.reg[pirq] = val & (PIRQ_OFF | PIRQ_IRQ);
	isa_drive(h, old & PIRQ_IRQ);
	isa_drive(h, val & PIRQ_IRQ);
}

void pci_host_pirq_write(struct pci_host *h, unsigned pirq, uint8_t val)
{
	if (pirq >= PCI_PIRQS)
		return;
	lock_take(&h->router.lock);
	pirq_set_locked(h, pirq, val);
	lock_drop(&h->router.lock);
}

uint8_t pci_host_pirq_read(struct pci_host *h, unsigned pirq)
{
	uint8_t v;

	if (pirq >= PCI_PIRQS)
		return PIRQ_OFF;
	lock_take(&h->router.lock);
	v = h->router.reg[pirq];
	lock_drop(&h->router.lock);
	return v;
}

/* ------ life ------ */

void pci_router_init(struct pci_host *h)
{
	lock_init(&h->router.lock, RANK_ROUTE, "intx");
	for (unsigned i = 0; i < PCI_PIRQS; i++)
		h->router.reg[i] = h->router.reg_first[i] = PIRQ_OFF;
}

void pci_router_destroy(struct pci_host *h)
{
	lock_destroy(&h->router.lock);
}

/* As after build; the firmware's choice of trigger modes comes back too. */
void pci_router_reset(struct pci_host *h)
{
	struct pci_router *r = &h->router;

	lock_take(&r->lock);
	for (unsigned i = 0; i < PCI_PIRQS; i++) {
		pirq_set_locked(h, i, r->reg_first[i]);
		if (h->lay.pic && pirq_valid(r->reg[i]))
			i8259_set_level_triggered(h->lay.pic, r->reg[i] & PIRQ_IRQ, true);
	}
	lock_drop(&r->lock);
}

void pci_router_visit(struct pci_host *h, struct snap *s)
{
	struct pci_router *r = &h->router;
	uint8_t reg[PCI_PIRQS];

	for (unsigned i = 0; i < PCI_PIRQS; i++)
		reg[i] = pci_host_pirq_read(h, i);
	snap_bytes(s, "pirq", reg, sizeof(reg));
	if (!snap_loading(s))
		return;
	lock_take(&r->lock);
	for (unsigned i = 0; i < PCI_PIRQS; i++)
		pirq_set_locked(h, i, reg[i]);
	lock_drop(&r->lock);
}
