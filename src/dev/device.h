/*
 * What every device is: a const class, and instances made from the configuration.
 *
 * Life: device_new parses keys into fields (no host effect) -> realize takes host resources and maps regions -> reset
 * sets what the guest sees -> the VM runs -> unrealize undoes realize, also a half-done one. A restore is new, realize,
 * reset, visit (load), restored: there is no second wiring. Locks: state belongs to d->lock (rank device). The core
 * holds it around reset, visit, restored, region callbacks and timers that name it; realize and unrealize run without
 * it, on the main thread, before vCPUs run or after they ended.
 */
#ifndef DEV_DEVICE_H
#define DEV_DEVICE_H

#include "base/reg.h"
#include "conf/prop.h"
#include "irq/irq.h"
#include "loop/loop.h"
#include "mem/region.h"

struct aml;
struct snap;
struct pci_host;
struct device;

enum reset_kind { RESET_COLD, RESET_WARM };
enum vm_request { VM_RESET, VM_POWEROFF, VM_HALT, VM_TRIPLE_FAULT, VM_EXIT_CODE /* pc-testdev: arg is the status */ };
enum { GSI_LINES = 32 };

/* All that a device knows of the outside; a test brings its own. */
struct dev_env {
	const char *vm_name;
	struct aspace *mem, *io;
	struct loop *loop;
	const struct irq_line
		*gsi; /* GSI_LINES; 0 to 15 are the ISA lines, fanned to 8259 and I/O APIC (IRQ 0: pin 2) */
	void (*msi)(void *host, const struct msi *m);			/* any thread */
	void (*level_pin)(void *host, unsigned n, const struct msi *m); /* of the I/O APIC; NULL: nobody asks */
	void (*request)(void *host, enum vm_request r, unsigned arg);	/* any thread: asked, not done here */
	void (*event)(void *host, const char *name, const char *text);	/* to control clients; any thread */
	void *host;
	bool doorbells;		 /* listeners of mem and io may turn region_bells into eventfds */
	struct pci_host *pci;	 /* where PCI devices plug in; see dev/pci/pci.h */
	const struct conf *conf; /* the frozen root, for the few keys that several devices share */
};

/* A counter of a device that `stats` shows. */
struct dev_stat {
	const char *name; /* "read requests" */
	const uint64_t *value;
};

struct device_class {
	const char *name, *alias, *about; /* name as in -s; aliases are accepted by -s only */
	size_t size;			  /* of the instance, which starts with struct device */
	const struct prop *props;	  /* may be NULL */
	/* Legacy -s grammar: turns the text after "NAME," into keys below node; NULL: the generic comma list
	 * (bhyve.md 2.3). */
	int (*legacy)(struct conf *node, const char *opts, struct err *e);
	int (*realize)(struct device *d, struct err *e);
	void (*reset)(struct device *d, enum reset_kind k); /* cannot fail */
	void (*pause)(struct device *d);		    /* take no new work, drain; called unlocked; may be NULL */
	void (*resume)(struct device *d);
	void (*visit)(struct device *d, struct snap *s);
	int (*restored)(struct device *d, struct err *e); /* cross-field checks, raise lines again; may be NULL */
	void (*acpi)(struct device *d, struct aml *out);  /* its part of the DSDT; may be NULL */
	void (*unrealize)(struct device *d);		  /* may be NULL */
};

enum { DEV_STATS = 12 };

struct device {
	const struct device_class *cls;
	char name[48]; /* "virtio-blk@pci.0.4.0" */
	const struct dev_env *env;
	const struct conf *conf; /* its node */
	struct lock lock;
	bool realized;
	struct dev_stat stats[DEV_STATS]; /* filled in realize, in order; ends at the first NULL name */
	struct list link;		  /* the board's list of devices */
};

/* Allocates and parses. name is the printed name. NULL with e set on a bad key. */
struct device *device_new(const struct device_class *cls, const char *name, const struct conf *node,
			  const struct dev_env *env, struct err *e);
int device_realize(struct device *d, struct err *e);
void device_reset(struct device *d, enum reset_kind k);
void device_pause(struct device *d);
void device_resume(struct device *d);
int device_visit(struct device *d, struct snap *s, struct err *e); /* save or load, by kind of s; load runs restored */
void device_free(struct device *d);				   /* unrealizes */
void device_stat(struct device *d, const char *name, const uint64_t *value);
/* Tells control clients; any thread. */
void device_event(struct device *d, const char *name, const char *fmt, ...) PRINTF(3, 4);

#endif
