/*
 * What every virtio device shares (Virtio 1.2): feature negotiation, the status machine, queues, configuration space.
 * dev/virtio/pci.c is the transport: modern capabilities and the legacy registers on one device ("transitional").
 * A device is a struct that starts with struct virtio_dev, a const pci_class made with VIRTIO_PCI_CLASS and a const
 * virtio_class; its realize fills v->config and calls virtio_realize.
 */
#ifndef DEV_VIRTIO_VIRTIO_H
#define DEV_VIRTIO_VIRTIO_H

#include "base/bits.h"
#include "dev/pci/pci.h"
#include "dev/virtio/virtq.h"

enum virtio_id { VIRTIO_ID_NET = 1, VIRTIO_ID_BLK = 2, VIRTIO_ID_CONSOLE = 3, VIRTIO_ID_RNG = 4 };

/* Feature bits that are not a device's own (6). */
#define VIRTIO_F_NOTIFY_ON_EMPTY BIT64(24) /* legacy */
#define VIRTIO_F_ANY_LAYOUT BIT64(27)	   /* legacy */
#define VIRTIO_F_INDIRECT BIT64(28)
#define VIRTIO_F_EVENT_IDX BIT64(29)
#define VIRTIO_F_VERSION_1 BIT64(32)
#define VIRTIO_F_RING_PACKED BIT64(34)
#define VIRTIO_F_RING_RESET BIT64(40)

enum {
	VIRTIO_ACKNOWLEDGE = 1,
	VIRTIO_DRIVER = 2,
	VIRTIO_DRIVER_OK = 4,
	VIRTIO_FEATURES_OK = 8,
	VIRTIO_NEEDS_RESET = 0x40,
	VIRTIO_FAILED = 0x80,
};

enum { VIRTIO_ISR_QUEUE = 1, VIRTIO_ISR_CONFIG = 2 };
enum { VIRTIO_QUEUES = 64 }; /* of a device, at most: again_queues */

struct virtio_dev;

/* All with the device lock held. */
struct virtio_class {
	enum virtio_id id;
	void (*kick)(struct virtio_dev *v, unsigned queue); /* the queue is enabled and the driver is ready */
	void (*ready)(struct virtio_dev *v);		    /* DRIVER_OK was set; may be NULL */
	/* Back to the state after realize, as far as the device has its own. Nothing may touch guest memory once it
	 * returns. */
	void (*reset)(struct virtio_dev *v);
	/* The same for one queue (2.6.1); may be NULL: between callbacks nothing of it is under way. */
	void (*queue_reset)(struct virtio_dev *v, unsigned queue);
	/* Whether this subset of what is offered can be (2.2.2); may be NULL: any. Not asked for old drivers. */
	bool (*features_ok)(const struct virtio_dev *v, uint64_t accepted);
	/* A write to the configuration space, which it lies in; may be NULL: ignored. */
	void (*config_write)(struct virtio_dev *v, unsigned off, unsigned size, uint32_t val);
};

struct virtio_dev {
	struct pci_dev pci; /* first */
	const struct virtio_class *cls;
	uint8_t *config; /* what reads of the configuration space see; the device's */
	unsigned config_size;
	struct virtq *q;
	unsigned queues;

	uint64_t offered, accepted;
	uint8_t status, isr, config_gen;
	uint16_t config_vector;
	bool broken;
	bool paused;		   /* requests stay in the rings */
	struct virtio_bell *bells; /* a doorbell each; NULL: the engine has none */
	struct job again;
	uint64_t again_queues; /* a bit each */

	/* pci.c: registers that select */
	uint32_t dev_feature_sel, drv_feature_sel;
	uint16_t queue_sel;
	uint8_t window_cap; /* VIRTIO_PCI_CAP_PCI_CFG */

	uint64_t kicks, interrupts; /* statistics */
};

static inline bool virtio_has(const struct virtio_dev *v, uint64_t feature)
{
	return v->accepted & v->offered & feature; /* before FEATURES_OK the driver may have written anything */
}

/* At realize: max[i] is the size of queue i. Adds registers, capabilities, MSI-X. The common features are added to
 * `offered`. */
int virtio_realize(struct virtio_dev *v, const struct virtio_class *cls, unsigned queues, const uint16_t *max,
		   uint64_t offered, struct err *e);
/* For the device_class of every virtio device; unrealize may be wrapped. */
void virtio_reset(struct device *d, enum reset_kind k);
void virtio_unrealize(struct device *d);
/* Between the two nothing is taken from a ring: a kick is remembered. A device with requests of its own under way wraps
 * virtio_pause and ends them there; what it gives back is seen by the driver after virtio_resume. */
void virtio_pause(struct device *d);
void virtio_resume(struct device *d);
/* Part of a device's visit and restored. */
void virtio_visit(struct virtio_dev *v, struct snap *s);
int virtio_restored(struct virtio_dev *v, struct err *e);

bool virtio_driver_ok(const struct virtio_dev *v);		 /* and not broken */
bool virtio_running(const struct virtio_dev *v, unsigned queue); /* the queue may be worked on now */
/* The driver broke the rules: NEEDS_RESET and a configuration interrupt; nothing more is taken from the rings. */
void virtio_break(struct virtio_dev *v, const char *fmt, ...) PRINTF(2, 3);
void virtio_config_changed(struct virtio_dev *v);
/* Kicks the queue again from the loop: for a device that has done its share of a turn and leaves requests in the ring,
 * so that a driver which never stops adding does not hold a vCPU here. */
void virtio_again(struct virtio_dev *v, unsigned queue);

/* ------ between virtio.c, the rings and the transport ------ */

void virtio_set_status(struct virtio_dev *v, uint8_t status, bool legacy);
void virtio_device_reset(struct virtio_dev *v);
void virtio_kick(struct virtio_dev *v, unsigned queue);
void virtio_queue_enable(struct virtq *q);
void virtio_queue_reset(struct virtq *q);
uint32_t virtio_config_read(const struct virtio_dev *v, unsigned off, unsigned size);
void virtio_config_write(struct virtio_dev *v, unsigned off, unsigned size, uint32_t val);

/* bell.c. With env->doorbells each queue has an eventfd; follow: after q->enabled may have changed; pause: what rang is
 * a kick that is remembered. */
int virtio_bells_open(struct virtio_dev *v, struct err *e);
void virtio_bells_close(struct virtio_dev *v);
void virtio_bell_follow(struct virtq *q);
void virtio_bells_pause(struct virtio_dev *v);

int virtio_pci_realize(struct virtio_dev *v, struct err *e);
struct region *virtio_pci_notify(const struct virtq *q, struct region_bell *b); /* where its driver notifies it */
void virtio_pci_reset(struct virtio_dev *v);
void virtio_pci_visit(struct virtio_dev *v, struct snap *s);
void virtio_pci_interrupt(struct virtio_dev *v, uint16_t vector, uint8_t isr);
void virtio_pci_update_intx(struct virtio_dev *v);
void virtio_pci_cfg_reading(struct pci_dev *p, unsigned off, unsigned size);
void virtio_pci_cfg_written(struct pci_dev *p, unsigned off, unsigned size, uint32_t val);

/* The part of a pci_class that all share: the transitional ids, and the interrupts. */
#define VIRTIO_PCI_CLASS(device_, id_, class_)                                                            \
	.vendor = 0x1AF4, .device = device_, .subvendor = 0x1AF4, .subdevice = id_, .class_code = class_, \
	.intx = true, .msi = 1, .cfg_reading = virtio_pci_cfg_reading, .cfg_written = virtio_pci_cfg_written

#endif
