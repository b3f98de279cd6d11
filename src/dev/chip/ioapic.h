/*
 * I/O APIC with 32 pins, version 0x11 (82093AA data sheet). Has its own lock of rank irq: every function may be called
 * on any thread, with a device lock held or not. A pin's level means "asserted": the polarity bit is stored and has no
 * effect.
 *
 * What a pin sends is a message as an MSI: destination in address bits 19 to 12 (bits 11 to 5: the extended destination
 * id, from bits 55 to 49 of the entry); logical destinations set DM, lowest priority RH; data holds vector, delivery
 * mode, and trigger mode in bit 15 with bit 14 set (level). A level interrupt needs ioapic_eoi(vector) from the local
 * APICs.
 */
#ifndef DEV_CHIP_IOAPIC_H
#define DEV_CHIP_IOAPIC_H

#include "base/sync.h"
#include "irq/irq.h"

struct snap;

enum { IOAPIC_PINS = 32, IOAPIC_SIZE = 4096, IOAPIC_VERSION = 0x11 };

struct ioapic {
	struct lock lock;
	void (*deliver)(void *self, const struct msi *m); /* with the chip's lock held */
	void *self;
	/* What a level-triggered pin sends from now on; NULL: the pin is not one. Told only when it changes, and not
	 * while the pin is masked: drivers mask and unmask at each interrupt. With the chip's lock held; may be NULL.
	 */
	void (*level_pin)(void *self, unsigned pin, const struct msi *m);
	uint32_t id, select;
	uint64_t rte[IOAPIC_PINS];
	uint32_t in[2]; /* pins as driven: by lines, by the PCI router */
	uint32_t level_told;
	struct msi level_msi[IOAPIC_PINS]; /* as told */
};

void ioapic_init(struct ioapic *a, void (*deliver)(void *self, const struct msi *m), void *self);
void ioapic_destroy(struct ioapic *a);
void ioapic_set_pin(void *chip, unsigned pin, bool level); /* fits irq_line.set with self = chip */
void ioapic_set_pci(void *chip, unsigned pin, bool level); /* second source of the same pins: either one asserts */
void ioapic_eoi(struct ioapic *a, unsigned vector);
/* The 4 KiB window; 32-bit accesses. */
uint32_t ioapic_read(struct ioapic *a, unsigned off);
void ioapic_write(struct ioapic *a, unsigned off, uint32_t val);
void ioapic_reset(struct ioapic *a);
void ioapic_visit(struct ioapic *a, struct snap *s);
void ioapic_restored(struct ioapic *a);

#endif
