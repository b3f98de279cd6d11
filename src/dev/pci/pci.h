/*
 * PCI devices (PCI Local Bus 3.0; bhyve.md 4.1). A device is one file with one `const struct pci_class` and
 * PCI_REGISTER(class); dev/pci/tick.c is the tutorial. The core owns config space, BARs, MSI, MSI-X and INTx; it saves
 * them too.
 */
#ifndef DEV_PCI_PCI_H
#define DEV_PCI_PCI_H

#include "dev/device.h"

struct i8259;
struct ioapic;
struct pci_dev;

enum pci_bar_kind { BAR_NONE, BAR_IO, BAR_MEM32, BAR_MEM64, BAR_ROM };
struct pci_bar_desc {
	enum pci_bar_kind kind;
	uint64_t size;		      /* rounded up to a power of two and to the minimum of its kind */
	const struct region_ops *ops; /* self is the pci_dev; NULL: given at realize by pci_bar_set */
};

struct pci_class {
	struct device_class dev; /* first */
	uint16_t vendor, device, subvendor, subdevice;
	uint8_t revision;
	uint32_t class_code; /* base << 16 | sub << 8 | interface */
	uint8_t header_type; /* 0, or 1 for a bridge */
	bool intx;	     /* has an INTx pin */
	uint8_t msi;	     /* messages (power of two up to 32); 0: no MSI capability */
	uint16_t msix;	     /* vectors; 0: none, or given at realize by pci_msix_init */
	uint8_t msix_bar;    /* its own BAR, made by the core */
	bool pcie;	     /* PCI Express endpoint capability */
	struct pci_bar_desc bar[6];
	/* Config accesses at and above 0x40 (and to writable header fields) after the core has done its part; may be
	 * NULL. */
	void (*cfg_written)(struct pci_dev *p, unsigned off, unsigned size, uint32_t val);
	/* Before the guest reads config space: where what it sees is fetched when it is read; may be NULL. */
	void (*cfg_reading)(struct pci_dev *p, unsigned off, unsigned size);
	/* Where more than one instance or a bus other than 0 is refused: NULL, or bhyve's text in e. */
	int (*check)(const struct conf *root, unsigned bus, unsigned slot, unsigned func, struct err *e);
};
/* A class with dev.alias set is another spelling of the class that dev.alias names, for -s only: -s stores the real
 * name and lets this class's dev.legacy write the keys. In a configuration its own name is refused. */
#define PCI_REGISTER(cls) REG_ADD(pci_class, cls)
REG_DECLARE(pci_class);

enum { PCI_CFG_SIZE = 256, PCI_ECFG_SIZE = 4096, PCI_BARS = 7, PCI_BAR_ROM = 6 };

/* Offsets and bits of the header that devices touch. */
enum {
	PCI_CFG_COMMAND = 0x04,
	PCI_CFG_STATUS = 0x06,
	PCI_CFG_BAR0 = 0x10,
	PCI_CFG_SUBVENDOR = 0x2c,
	PCI_CFG_ROM = 0x30,
	PCI_CFG_CAPS = 0x34,
	PCI_CFG_INT_LINE = 0x3c,
	PCI_CFG_INT_PIN = 0x3d,
	PCI_CMD_IO = 1,
	PCI_CMD_MEM = 2,
	PCI_CMD_MASTER = 4,
	PCI_CMD_INTX_OFF = 0x400,
	PCI_STS_INTX = 0x08,
	PCI_STS_CAPS = 0x10,
	PCI_CAP_MSI = 0x05,
	PCI_CAP_VENDOR = 0x09,
	PCI_CAP_PCIE = 0x10,
	PCI_CAP_MSIX = 0x11,
};

struct pci_bar {
	struct pci_bar_desc desc;
	struct region region;
	uint64_t addr;	/* as the register says; 0: none */
	uint64_t first; /* what the core gave it at build, again after each reset */
	void *host;	/* RAM of pci_bar_ram */
	bool mapped;
};

struct pci_dev {
	struct device dev; /* first */
	const struct pci_class *cls;
	struct pci_host *host;
	uint8_t bus, slot, func;
	uint8_t cfg[PCI_CFG_SIZE]; /* what reads return; devices may write it at realize and reset, and under their lock
				    */
	uint8_t wmask[PCI_CFG_SIZE];  /* bits the guest may write */
	uint8_t w1c[PCI_CFG_SIZE];    /* bits that a written one clears */
	uint8_t first[PCI_CFG_SIZE];  /* cfg after build: what a reset puts back */
	struct pci_bar bar[PCI_BARS]; /* 6: expansion ROM */
	uint8_t msi_cap, msix_cap, cap_last, cap_end;
	struct lock irq_lock;  /* MSI, MSI-X state; inside the device's lock */
	struct pci_msix *msix; /* the core's: table, pending bits */
	bool intx_level;       /* what the device drives; this and the next under the router's lock */
	bool intx_out;	       /* what arrives at the router */
	uint8_t intx_pin;      /* 1 to 4; 0: none */
};

/* ------ for devices ------ */

/* At realize: what the class could not say. */
void pci_bar_set(struct pci_dev *p, unsigned bar, enum pci_bar_kind kind, uint64_t size, const struct region_ops *ops);
/* A BAR that is RAM (frame buffers): the caller made the region's memory. */
void pci_bar_ram(struct pci_dev *p, unsigned bar, enum pci_bar_kind kind, void *host, uint64_t size);
int pci_msix_init(struct pci_dev *p, unsigned vectors, unsigned bar, struct err *e);
/* A capability of `size` bytes (id and next pointer included, at realize only); returns its offset, 0 when config space
 * is full. Its id and next pointer are set, the rest is 0; wmask stays 0. */
unsigned pci_add_cap(struct pci_dev *p, uint8_t id, unsigned size);
enum pcie_type { PCIE_ENDPOINT = 0, PCIE_ROOT_PORT = 4, PCIE_ROOT_ENDPOINT = 9 };
/* Done by the core for classes with `pcie` (an endpoint). */
unsigned pci_add_pcie(struct pci_dev *p, enum pcie_type type);
void pci_set_ids(struct pci_dev *p, uint16_t vendor, uint16_t device, uint16_t subvendor, uint16_t subdevice);

/* Interrupts; d->lock held or not. An MSI-X vector that is masked becomes pending and is sent when unmasked. */
void pci_msi(struct pci_dev *p, unsigned vector); /* MSI-X or MSI, whichever the guest enabled; else nothing */
bool pci_msi_on(const struct pci_dev *p);	  /* MSI or MSI-X is enabled */
bool pci_msix_on(const struct pci_dev *p);
void pci_intx(struct pci_dev *p, bool level); /* gated by the command register and by MSI */

/* DMA: RAM only, needs bus mastering on (MEM_DENIED otherwise). Writes tell the engine. */
enum mem_result pci_dma_read(struct pci_dev *p, gpa_t at, void *buf, size_t len);
enum mem_result pci_dma_write(struct pci_dev *p, gpa_t at, const void *buf, size_t len);
/* Zero copy: host pointer of [at, at + len) in one piece, or NULL. After a write: pci_dma_wrote. */
void *pci_dma_host(struct pci_dev *p, gpa_t at, size_t len, bool write, size_t *piece);
void pci_dma_wrote(struct pci_dev *p, gpa_t at, size_t len);
bool pci_bus_master(const struct pci_dev *p);

/* ------ for the board ------ */

/* Fixed addresses and windows are data (board/memmap.h), not built in here. */
struct pci_layout {
	uint16_t cfg_addr_port; /* 0xCF8 */
	gpa_t ecam;
	uint64_t io_base, io_end, mem32_base, mem32_end, mem64_base, mem64_end; /* ends exclusive */
	bool firmware;	  /* INTx by the fixed formula, decoding off (bhyve.md 5.5, 4.1) */
	bool enable_bars; /* decoding on at reset */
	/* Where INTx ends: the PIRQ router at the 8259s, the pins at the I/O APIC. NULL (tests): nowhere,
	 * env->gsi[16..31]. */
	struct i8259 *pic;
	struct ioapic *ioapic;
};
struct pci_host *pci_host_new(const struct dev_env *env, const struct pci_layout *lay, struct err *e);
void pci_host_free(struct pci_host *h);
/* Makes and realizes every device of pci.B.S.F in bus, slot, function order, then BAR addresses and INTx routing. */
int pci_host_build(struct pci_host *h, struct err *e);
void pci_host_reset(struct pci_host *h, enum reset_kind k);
/* Save or load of the router and of every device, core part and own part. */
int pci_host_visit(struct pci_host *h, struct snap *s, struct err *e);
struct pci_dev *pci_host_find(struct pci_host *h, unsigned bus, unsigned slot, unsigned func);
bool pci_host_bus_used(struct pci_host *h, unsigned bus);
void pci_host_each(struct pci_host *h, void (*fn)(void *self, struct pci_dev *p), void *self);
/* By name; alias classes only if `aliases`. */
const struct pci_class *pci_class_find(const char *name, bool aliases);
const char *pci_class_real_name(const struct pci_class *c); /* the name that goes into the configuration */
bool pci_class_unbuilt(const char *name); /* a device of bhyve that is not there yet: refused by that name */

/* The windows used by a bus, for _CRS. False: no such bus, or one behind a bridge. */
struct pci_window {
	uint64_t base, limit; /* inclusive; limit < base: empty */
};
bool pci_host_windows(struct pci_host *h, unsigned bus, struct pci_window *io, struct pci_window *mem32,
		      struct pci_window *mem64);
/* The highest number among a bus and those behind its bridges; the bus behind a bridge, 0: p is none. */
unsigned pci_host_last_bus(struct pci_host *h, unsigned bus);
unsigned pci_bridge_bus(const struct pci_dev *p);
/* INTx routing: for _PRT, MP table. pin 1..4 of a slot; false: not used. */
bool pci_host_route(struct pci_host *h, unsigned bus, unsigned slot, unsigned pin, unsigned *ioapic_pin,
		    unsigned *pirq);
/* PIRQ router, written by the LPC bridge: pirq 0 to 7, value as in its config register. */
void pci_host_pirq_write(struct pci_host *h, unsigned pirq, uint8_t val);
uint8_t pci_host_pirq_read(struct pci_host *h, unsigned pirq);
/* Before routing: an ISA IRQ of another device. The router leaves it alone; SCI (9), which may be shared, it takes
 * last. */
void pci_host_reserve_isa_irq(struct pci_host *h, unsigned irq);

#endif
