/*
 * A machine for one device: spaces, RAM, lines and messages that are only counted, and a clock turned by hand. No
 * engine, no guest, no real time. What cannot be built ends the test program with the reason.
 */
#ifndef TESTS_DEV_RIG_H
#define TESTS_DEV_RIG_H

#include "dev/chip/i8259.h"
#include "dev/pci/pci.h"

enum { RIG_SLOT = 4, RIG_MSIS = 256, RIG_CHIPS = 9 };
#define RIG_RAM MIB(16)
#define US(n) ((uint64_t)(n)*1000)
#define MS(n) ((uint64_t)(n)*1000000)

struct rig {
	struct conf *conf;
	struct loop *loop;
	struct dev_env env;
	struct irq_line gsi[GSI_LINES];
	struct region ram;
	struct i8259 pic; /* INTR is rig->intr */
	struct pci_host *pci;
	struct pci_dev *dev; /* function 0:4:0, or NULL */
	bool intr, level[GSI_LINES];
	unsigned rises[GSI_LINES], falls[GSI_LINES];
	unsigned nmsi; /* messages so far; the last RIG_MSIS of them in msi[n % RIG_MSIS] */
	struct msi msi[RIG_MSIS];
	unsigned nrequest;
	enum vm_request request; /* the last one, and its argument */
	unsigned request_arg;
	struct {
		const struct device_class *cls;
		void (*wire)(struct rig *r, struct device *d);
		struct device *dev;
	} chip[RIG_CHIPS];
	unsigned nchip;
	bool intx; /* MSI and MSI-X are left off, over swaps too */
};

extern bool rig_doorbells; /* what env->doorbells of machines made from now on says */

/* The device of "-s 4,SPEC" alone on bus 0, decoding and bus mastering on; its MSI-X vectors (or else MSI) are enabled,
 * and vector n sends data n. */
struct rig *rig_new(const char *spec);
struct rig *rig_new_intx(const char *spec); /* MSI and MSI-X stay off */
/* Any configuration: "pci.0.0.0.device=hostbridge", ..., NULL. */
struct rig *rig_new_keys(const char *const *keys);
int rig_try(struct rig **out, const char *const *keys, struct err *e); /* for configurations that must fail */
void rig_free(struct rig *r);

/* One more device at fixed ports, realized and reset; wire may be NULL. A swap makes it anew: r->chip[n].dev. */
struct device *rig_chip(struct rig *r, const struct device_class *cls, void (*wire)(struct rig *r, struct device *d));

/* Registers in a BAR. */
uint64_t rig_read(struct rig *r, unsigned bar, uint64_t off, unsigned size);
void rig_write(struct rig *r, unsigned bar, uint64_t off, unsigned size, uint64_t val);
uint32_t rig_read32(struct rig *r, unsigned bar, uint64_t off);
void rig_write32(struct rig *r, unsigned bar, uint64_t off, uint32_t val);
/* Configuration space of the device, through ECAM. */
uint32_t rig_cfg_read(struct rig *r, unsigned off, unsigned size);
void rig_cfg_write(struct rig *r, unsigned off, unsigned size, uint32_t val);
unsigned rig_cap(struct rig *r, uint8_t id); /* offset of a capability, 0: none */
/* Any address of the two spaces. */
uint64_t rig_in(struct rig *r, uint16_t port, unsigned size);
void rig_out(struct rig *r, uint16_t port, unsigned size, uint64_t val);
uint64_t rig_mmio_read(struct rig *r, gpa_t at, unsigned size);
void rig_mmio_write(struct rig *r, gpa_t at, unsigned size, uint64_t val);
void *rig_ram(struct rig *r, gpa_t at, size_t len);

void rig_run_for(struct rig *r, uint64_t ns); /* turns the clock; what falls due runs, posted jobs too */
void rig_turn(struct rig *r, int timeout_ms); /* one turn of the loop, for back ends that live in real time */
unsigned rig_irqs(struct rig *r);	      /* messages, and rises of the lines 16 to 31, so far */
/* Save, destroy, rebuild, load. RAM, clock and counters stay. */
void rig_swap(struct rig *r);

static inline void rig_auto_free(struct rig **r)
{
	rig_free(*r);
}
#define AUTO_RIG __attribute__((cleanup(rig_auto_free)))

#endif
