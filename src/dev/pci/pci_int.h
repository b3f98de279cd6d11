/* Between the files of the PCI core: pci.c and msi.c (a function), bus.c (the host), bridge.c (what is behind bridges),
 * assign.c (addresses), route.c (INTx). */
#ifndef DEV_PCI_PCI_INT_H
#define DEV_PCI_PCI_INT_H

#include "base/bits.h"
#include "dev/pci/pci.h"

enum {
	PCI_BUSES = 256,
	PCI_SLOTS = 32,
	PCI_FUNCS = 8,
	PCI_PINS = 4,
	PCI_PIRQS = 8,
	PCI_ISA_IRQS = 16,
	PCI_SCI_IRQ = 9
};
enum { PCI_PRIO_BAR = -1 /* RAM, ROM and fixed ports lie above what a guest may move about */ };

struct pci_pin {
	uint8_t users; /* functions of the slot on this pin */
	uint8_t ioapic_pin, pirq;
};

struct pci_slot {
	struct pci_dev *fn[PCI_FUNCS];
	struct pci_pin pin[PCI_PINS];
};

struct pci_bus {
	struct pci_slot slot[PCI_SLOTS];
	struct pci_window io, mem32, mem64;
	struct pci_dev *bridge; /* above it; NULL: a root bus */
	/* What the bridge passes down, under the host's fwd_lock; the flags of one bit are atomic. */
	struct pci_window fwd_io, fwd_mem, fwd_pref;
	bool fwd_isa, fwd_master, in_reset;
};

/* INTx: pins of functions fan in to I/O APIC pins and PIRQs, PIRQs to ISA IRQs. All under `lock`. */
struct pci_router {
	struct lock lock;
	bool reserved[PCI_ISA_IRQS];
	uint16_t irq_use[PCI_ISA_IRQS]; /* weight of the PIRQs (and the SCI) on it */
	uint16_t pirq_use[PCI_PIRQS];	/* pins on it */
	unsigned next_ioapic;
	uint8_t reg[PCI_PIRQS], reg_first[PCI_PIRQS]; /* as in config space; first: after build */
	uint16_t pirq_high[PCI_PIRQS];		      /* functions that assert */
	uint16_t ioapic_high[GSI_LINES];
	bool isa_high[PCI_ISA_IRQS];
};

struct pci_host {
	const struct dev_env *env;
	struct pci_layout lay;
	struct pci_bus *bus[PCI_BUSES]; /* NULL: not used */
	struct lock lock;		/* of the ports: cfg_addr, reset_control */
	struct lock fwd_lock;		/* of what bridges pass on; nothing is taken inside it */
	uint32_t cfg_addr;
	uint8_t reset_control;
	struct region ports_addr, ports_data, ecam;
	uint64_t io_next, mem32_next, mem64_next; /* assignment cursors */
	unsigned bridges;			  /* how many */
	struct pci_router router;
};

/* pci.c */
struct pci_dev *pci_dev_new(struct pci_host *h, const struct pci_class *cls, unsigned bus, unsigned slot, unsigned func,
			    const struct conf *node, struct err *e);
int pci_dev_realize(struct pci_dev *p, struct err *e);
void pci_dev_free(struct pci_dev *p);
void pci_dev_built(struct pci_dev *p); /* addresses and routing are known: what is there now is what a reset restores */
void pci_dev_reset(struct pci_dev *p, enum reset_kind k);
void pci_dev_bus_reset(struct pci_dev *p); /* by a bridge: nothing is assigned afterwards */
void pci_dev_remap(struct pci_dev *p);	   /* a bridge above passes other addresses now */
int pci_dev_visit(struct pci_dev *p, struct snap *s, struct err *e);
uint32_t pci_cfg_read(struct pci_dev *p, unsigned off, unsigned size); /* aligned, size 1, 2, 4, off + size <= 256 */
void pci_cfg_write(struct pci_dev *p, unsigned off, unsigned size, uint32_t val);
void pci_bar_assign(struct pci_dev *p, unsigned bar, uint64_t addr);

/* msi.c */
void pci_msi_add(struct pci_dev *p, unsigned messages);
void pci_msi_cfg_written(struct pci_dev *p, unsigned off, unsigned size);
void pci_msix_free(struct pci_dev *p);
void pci_msix_reset(struct pci_dev *p);
void pci_msix_visit(struct pci_dev *p, struct snap *s);

/* assign.c */
void pci_assign_root(struct pci_host *h, unsigned bus); /* and what is behind its bridges */

/* bridge.c; p is a bridge unless said otherwise */
bool pci_is_bridge(const struct pci_dev *p);					  /* any function */
struct pci_bus *pci_bridge_route(struct pci_host *h, unsigned above, unsigned n); /* to bus number n of the guest's */
bool pci_bridge_passes(const struct pci_dev *p, bool io, uint64_t at, uint64_t size); /* down to any function */
bool pci_bridge_upstream(const struct pci_dev *p);			 /* DMA and messages of any function */
void pci_bridge_sync(struct pci_dev *p);				 /* registers to fwd_*; its lock held */
void pci_bridge_written(struct pci_dev *p, unsigned off, unsigned size); /* its lock not held */
int pci_bridge_check(struct pci_dev *p, struct err *e);
void pci_bridge_assign(struct pci_dev *p, struct pci_window io, struct pci_window mem, struct pci_window pref);
void pci_bridge_clear(struct pci_dev *p);

/* route.c */
void pci_router_init(struct pci_host *h);
void pci_router_destroy(struct pci_host *h);
uint8_t pci_router_pin(struct pci_host *h, unsigned bus, unsigned slot); /* takes the least used pin: 1 to 4 */
void pci_router_route_all(struct pci_host *h);
void pci_router_reset(struct pci_host *h);
void pci_router_visit(struct pci_host *h, struct snap *s);
void pci_intx_update(struct pci_dev *p); /* after anything that gates it has changed */

#endif
