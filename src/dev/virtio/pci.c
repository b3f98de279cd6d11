/*
 * Virtio over PCI (Virtio 1.2, 4.1): a transitional device.
 *
 *   BAR 0  I/O     legacy registers, then the configuration space (4.1.4.10; bhyve's layout)
 *   BAR 1  memory  MSI-X table and pending bits, made by the PCI core
 *   BAR 2  memory  modern: 0x0000 common, 0x1000 ISR, 0x2000 device configuration, 0x3000 notify, 4 bytes a queue
 *
 * BAR 2 is 32 bits wide, so that kernels without PAE can map it too.
 */
#include "dev/virtio/virtio.h"

#include "base/log.h"
#include "conf/conf.h"
#include "snap/snap.h"

#include <errno.h>

enum { COMMON = 0x0000, ISR = 0x1000, DEVICE = 0x2000, NOTIFY = 0x3000, BAR_SIZE = 0x4000, NOTIFY_STEP = 4 };
enum { BAR_LEGACY = 0, BAR_MSIX = 1, BAR_MODERN = 2 };

/* 4.1.4.3 */
enum common {
	DEV_FEATURE_SEL = 0x00,
	DEV_FEATURE = 0x04,
	DRV_FEATURE_SEL = 0x08,
	DRV_FEATURE = 0x0C,
	CONFIG_VECTOR = 0x10,
	NUM_QUEUES = 0x12,
	STATUS = 0x14,
	CONFIG_GEN = 0x15,
	Q_SELECT = 0x16,
	Q_SIZE = 0x18,
	Q_VECTOR = 0x1A,
	Q_ENABLE = 0x1C,
	Q_NOTIFY_OFF = 0x1E,
	Q_DESC = 0x20,
	Q_DRIVER = 0x28,
	Q_DEVICE = 0x30,
	Q_NOTIFY_DATA = 0x38,
	Q_RESET = 0x3A,
	COMMON_SIZE = 0x3C,
};

/* bhyve.md 4.2 */
enum legacy {
	L_HOST_FEATURES = 0,
	L_GUEST_FEATURES = 4,
	L_Q_PFN = 8,
	L_Q_SIZE = 12,
	L_Q_SELECT = 14,
	L_Q_NOTIFY = 16,
	L_STATUS = 18,
	L_ISR = 19,
	L_CONFIG_VECTOR = 20,
	L_Q_VECTOR = 22,
	L_HEADER = 20,
	L_HEADER_MSIX = 24,
	L_PAGE = 4096,
};

enum { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4, CAP_WINDOW = 5, CAP_VENDOR = 9 };
enum { WINDOW_BAR = 4, WINDOW_OFF = 8, WINDOW_LEN = 12, WINDOW_DATA = 16, CAP_SIZE = 16, CAP_LONG = 20 };

/* ------ interrupts ------ */

void virtio_pci_update_intx(struct virtio_dev *v)
{
	pci_intx(&v->pci, v->isr != 0 && !pci_msix_on(&v->pci));
}

void virtio_pci_interrupt(struct virtio_dev *v, uint16_t vector, uint8_t isr)
{
	if (pci_msix_on(&v->pci)) {
		if (vector != VIRTQ_NO_VECTOR)
			pci_msi(&v->pci, vector);
		return;
	}
	v->isr |= isr;
	if (pci_msi_on(&v->pci))
		pci_msi(&v->pci, 0);
	else
		virtio_pci_update_intx(v);
}

static uint8_t isr_take(struct virtio_dev *v)
{
	uint8_t isr = v->isr;

	v->isr = 0;
	virtio_pci_update_intx(v);
	return isr;
}

/* A vector that is not there reads back as none (4.1.5.1.2). */
static uint16_t vector_checked(const struct virtio_dev *v, uint64_t val)
{
	return val <= v->queues && v->pci.msix_cap ? (uint16_t)val : VIRTQ_NO_VECTOR;
}

static struct virtq *selected(struct virtio_dev *v)
{
	return v->queue_sel < v->queues ? &v->q[v->queue_sel] : NULL;
}

/* ------ modern: common configuration ------ */

static uint64_t queue_read(struct virtio_dev *v, unsigned off)
{
	struct virtq *q = selected(v);

	if (!q)
		return 0;
	switch (off) {
	case Q_SIZE:
		return q->size;
	case Q_VECTOR:
		return q->vector;
	case Q_ENABLE:
		return q->enabled;
	case Q_NOTIFY_OFF:
	case Q_NOTIFY_DATA:
		return q->index;
	case Q_DESC:
		return (uint32_t)q->desc;
	case Q_DESC + 4:
		return q->desc >> 32;
	case Q_DRIVER:
		return (uint32_t)q->avail;
	case Q_DRIVER + 4:
		return q->avail >> 32;
	case Q_DEVICE:
		return (uint32_t)q->used;
	case Q_DEVICE + 4:
		return q->used >> 32;
	default:
		return 0;
	}
}

static uint64_t common_read(struct virtio_dev *v, unsigned off)
{
	switch (off) {
	case DEV_FEATURE_SEL:
		return v->dev_feature_sel;
	case DEV_FEATURE:
		return v->dev_feature_sel < 2 ? (uint32_t)(v->offered >> (32 * v->dev_feature_sel)) : 0;
	case DRV_FEATURE_SEL:
		return v->drv_feature_sel;
	case DRV_FEATURE:
		return v->drv_feature_sel < 2 ? (uint32_t)(v->accepted >> (32 * v->drv_feature_sel)) : 0;
	case CONFIG_VECTOR:
		return v->config_vector;
	case NUM_QUEUES:
		return v->queues;
	case STATUS:
		return v->status;
	case CONFIG_GEN:
		return v->config_gen;
	case Q_SELECT:
		return v->queue_sel;
	default:
		return queue_read(v, off);
	}
}

static void half_set(gpa_t *a, bool high, uint32_t val)
{
	*a = high ? (uint32_t)*a | (uint64_t)val << 32 : (*a & ~0xFFFFFFFFull) | val;
}

/* A queue's registers stand still while it is enabled, but for its vector. */
static void queue_write(struct virtio_dev *v, unsigned off, uint32_t val)
{
	struct virtq *q = selected(v);

	if (!q)
		return;
	if (off == Q_VECTOR)
		q->vector = vector_checked(v, val);
	if (off == Q_RESET && val == 1 && virtio_has(v, VIRTIO_F_RING_RESET))
		virtio_queue_reset(q); /* over before this write is: Q_RESET always reads 0 */
	if (q->enabled)
		return;
	switch (off) {
	case Q_SIZE:
		q->size = (uint16_t)val;
		break;
	case Q_ENABLE:
		if (val == 1)
			virtio_queue_enable(q);
		break;
	case Q_DESC:
	case Q_DESC + 4:
		half_set(&q->desc, off & 4, val);
		break;
	case Q_DRIVER:
	case Q_DRIVER + 4:
		half_set(&q->avail, off & 4, val);
		break;
	case Q_DEVICE:
	case Q_DEVICE + 4:
		half_set(&q->used, off & 4, val);
		break;
	default:
		break;
	}
}

static void features_write(struct virtio_dev *v, uint32_t val)
{
	unsigned shift = 32 * v->drv_feature_sel;

	if (v->drv_feature_sel < 2 && !(v->status & VIRTIO_FEATURES_OK))
		v->accepted = (v->accepted & ~(0xFFFFFFFFull << shift)) | (uint64_t)val << shift;
}

static void common_write(struct virtio_dev *v, unsigned off, uint32_t val)
{
	switch (off) {
	case DEV_FEATURE_SEL:
		v->dev_feature_sel = val;
		break;
	case DRV_FEATURE_SEL:
		v->drv_feature_sel = val;
		break;
	case DRV_FEATURE:
		features_write(v, val);
		break;
	case CONFIG_VECTOR:
		v->config_vector = vector_checked(v, val);
		break;
	case STATUS:
		virtio_set_status(v, (uint8_t)val, false);
		break;
	case Q_SELECT:
		v->queue_sel = (uint16_t)val;
		break;
	default:
		queue_write(v, off, val);
		break;
	}
}

/* The width of the register at off; its address halves count as two of 4 bytes. 0: nothing starts there. */
static unsigned common_width(unsigned off)
{
	if (off >= COMMON_SIZE)
		return 0;
	if (off == STATUS || off == CONFIG_GEN)
		return 1;
	if ((off >= CONFIG_VECTOR && off < Q_DESC) || off >= Q_NOTIFY_DATA)
		return off & 1 ? 0 : 2;
	return off & 3 ? 0 : 4;
}

static uint64_t modern_read(void *self, gpa_t off, unsigned size)
{
	struct virtio_dev *v = self;

	if (off < ISR)
		return common_width((unsigned)off) ? common_read(v, (unsigned)off) & mask64(size * 8) : 0;
	if (off < DEVICE)
		return off == ISR ? isr_take(v) : 0;
	if (off < NOTIFY)
		return virtio_config_read(v, (unsigned)off - DEVICE, size);
	return 0;
}

static void modern_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	struct virtio_dev *v = self;

	if (off >= NOTIFY) {
		virtio_kick(v, ((unsigned)off - NOTIFY) / NOTIFY_STEP);
		return;
	}
	if (off >= DEVICE) {
		virtio_config_write(v, (unsigned)off - DEVICE, size, (uint32_t)val);
		return;
	}
	if (off < ISR && common_width((unsigned)off) == size)
		common_write(v, (unsigned)off, (uint32_t)val);
	else
		log_guest("%s: write of %u bytes at %#x of BAR 2", v->pci.dev.name, size, (unsigned)off);
}

static const struct region_ops modern_ops = { .read = modern_read, .write = modern_write, .min = 1, .max = 4 };

/* ------ legacy ------ */

static unsigned legacy_header(const struct virtio_dev *v)
{
	return pci_msix_on(&v->pci) ? L_HEADER_MSIX : L_HEADER;
}

static uint64_t legacy_read(void *self, gpa_t off, unsigned size)
{
	struct virtio_dev *v = self;
	struct virtq *q = selected(v);

	if (off >= legacy_header(v))
		return virtio_config_read(v, (unsigned)off - legacy_header(v), size);
	switch (off) {
	case L_HOST_FEATURES:
		return (uint32_t)v->offered & mask64(size * 8);
	case L_GUEST_FEATURES:
		return (uint32_t)v->accepted & mask64(size * 8);
	case L_Q_PFN:
		return q && q->enabled ? (q->desc / L_PAGE) & mask64(size * 8) : 0;
	case L_Q_SIZE:
		return q ? q->max : 0;
	case L_Q_SELECT:
		return v->queue_sel;
	case L_Q_NOTIFY:
		return 0;
	case L_STATUS:
		return v->status;
	case L_ISR:
		return isr_take(v);
	case L_CONFIG_VECTOR:
		return v->config_vector;
	case L_Q_VECTOR:
		return q ? q->vector : VIRTQ_NO_VECTOR;
	default:
		log_guest("%s: read of %u bytes at %#x of BAR 0", v->pci.dev.name, size, (unsigned)off);
		return mask64(size * 8);
	}
}

/* The three rings lie behind each other: descriptors, available, and the used ring on the next page (2.7.2). */
static void legacy_pfn(struct virtio_dev *v, uint32_t pfn)
{
	struct virtq *q = selected(v);

	if (!q)
		return;
	if (q->enabled) { /* what is under way ends in the old rings */
		uint16_t vector = q->vector;

		virtio_queue_reset(q);
		q->vector = vector;
	}
	q->size = q->max;
	q->desc = (gpa_t)pfn * L_PAGE;
	q->avail = q->desc + 16ull * q->size;
	q->used = round_up(q->avail + 6 + 2ull * q->size, L_PAGE);
	if (pfn)
		virtio_queue_enable(q);
	virtio_bell_follow(q);
}

/* Old drivers forget to turn bus mastering on and expect it to work. */
static void legacy_status(struct virtio_dev *v, uint8_t status)
{
	if (status & VIRTIO_DRIVER && !(v->status & VIRTIO_DRIVER))
		v->pci.cfg[4] |= 4;
	virtio_set_status(v, status, true);
}

static void legacy_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	struct virtio_dev *v = self;
	struct virtq *q = selected(v);

	if (off >= legacy_header(v)) {
		virtio_config_write(v, (unsigned)off - legacy_header(v), size, (uint32_t)val);
		return;
	}
	switch (off) {
	case L_GUEST_FEATURES:
		if (!(v->status & VIRTIO_DRIVER_OK))
			v->accepted = (uint32_t)val & v->offered;
		break;
	case L_Q_PFN:
		legacy_pfn(v, (uint32_t)val);
		break;
	case L_Q_SELECT:
		v->queue_sel = (uint16_t)val;
		break;
	case L_Q_NOTIFY:
		virtio_kick(v, (uint16_t)val);
		break;
	case L_STATUS:
		legacy_status(v, (uint8_t)val);
		break;
	case L_CONFIG_VECTOR:
		v->config_vector = vector_checked(v, val);
		break;
	case L_Q_VECTOR:
		if (q)
			q->vector = vector_checked(v, val);
		break;
	default:
		log_guest("%s: write of %u bytes at %#x of BAR 0", v->pci.dev.name, size, (unsigned)off);
		break;
	}
}

static const struct region_ops legacy_ops = { .read = legacy_read, .write = legacy_write, .min = 1, .max = 4 };

/* ------ notifications ------ */

struct region *virtio_pci_notify(const struct virtq *q, struct region_bell *b)
{
	struct virtio_dev *v = q->dev;

	b->match = !virtio_has(v, VIRTIO_F_VERSION_1);
	b->val = q->index;
	if (b->match) {
		b->off = L_Q_NOTIFY;
		b->size = 2;
		return &v->pci.bar[BAR_LEGACY].region;
	}
	b->off = NOTIFY + q->index * NOTIFY_STEP;
	b->size = 0;
	return &v->pci.bar[BAR_MODERN].region;
}

/* ------ the window in configuration space (4.1.4.9) ------ */

/* True, with the size, if the window points at something in BAR 2. */
static bool window_at(const struct pci_dev *p, unsigned cap, uint32_t *off, unsigned *size)
{
	*off = ld_le32(p->cfg + cap + WINDOW_OFF);
	*size = ld_le32(p->cfg + cap + WINDOW_LEN);
	return p->cfg[cap + WINDOW_BAR] == BAR_MODERN && (*size == 1 || *size == 2 || *size == 4) &&
	       !(*off & (*size - 1)) && range_in(*off, *size, BAR_SIZE);
}

/* True if the access touches the window's data and the window points at something. */
static bool window_hit(const struct pci_dev *p, unsigned off, unsigned size, uint32_t *at, unsigned *bytes)
{
	unsigned cap = ((const struct virtio_dev *)p)->window_cap;

	return cap && off + size > cap + WINDOW_DATA && off < cap + CAP_LONG && window_at(p, cap, at, bytes);
}

void virtio_pci_cfg_reading(struct pci_dev *p, unsigned off, unsigned size)
{
	struct virtio_dev *v = (struct virtio_dev *)p;
	unsigned bytes;
	uint32_t at;

	if (window_hit(p, off, size, &at, &bytes))
		st_le(p->cfg + v->window_cap + WINDOW_DATA, modern_read(v, at, bytes), bytes);
}

void virtio_pci_cfg_written(struct pci_dev *p, unsigned off, unsigned size, uint32_t val)
{
	struct virtio_dev *v = (struct virtio_dev *)p;
	unsigned bytes;
	uint32_t at;

	if (window_hit(p, off, size, &at, &bytes))
		modern_write(v, at, bytes, ld_le(p->cfg + v->window_cap + WINDOW_DATA, bytes));
}

/* ------ realize ------ */

static unsigned cap_add(struct virtio_dev *v, uint8_t type, unsigned off, unsigned len, unsigned size)
{
	unsigned at = pci_add_cap(&v->pci, CAP_VENDOR, size);
	uint8_t *c = v->pci.cfg + at;

	c[2] = (uint8_t)size;
	c[3] = type;
	c[4] = BAR_MODERN;
	st_le32(c + 8, off);
	st_le32(c + 12, len);
	return at;
}

static void caps_add(struct virtio_dev *v)
{
	unsigned at;

	cap_add(v, CAP_COMMON, COMMON, COMMON_SIZE, CAP_SIZE);
	cap_add(v, CAP_ISR, ISR, 1, CAP_SIZE);
	if (v->config_size)
		cap_add(v, CAP_DEVICE, DEVICE, (unsigned)round_up(v->config_size, 4), CAP_SIZE);
	at = cap_add(v, CAP_NOTIFY, NOTIFY, v->queues * NOTIFY_STEP, CAP_LONG);
	st_le32(v->pci.cfg + at + 16, NOTIFY_STEP);
	at = cap_add(v, CAP_WINDOW, 0, 0, CAP_LONG);
	v->window_cap = (uint8_t)at;
	v->pci.cfg[at + WINDOW_BAR] = 0;
	v->pci.wmask[at + WINDOW_BAR] = 0xFF;
	for (unsigned i = WINDOW_OFF; i < CAP_LONG; i++)
		v->pci.wmask[at + i] = 0xFF;
}

int virtio_pci_realize(struct virtio_dev *v, struct err *e)
{
	bool msix = true;
	int rc = 0;

	pci_bar_set(&v->pci, BAR_LEGACY, BAR_IO, L_HEADER_MSIX + v->config_size, &legacy_ops);
	pci_bar_set(&v->pci, BAR_MODERN, BAR_MEM32, BAR_SIZE, &modern_ops);
	if (v->pci.dev.env->conf)
		rc = conf_bool(v->pci.dev.env->conf, "virtio.msix", true, &msix, e);
	if (!rc && msix)
		rc = pci_msix_init(&v->pci, v->queues + 1, BAR_MSIX, e);
	if (!rc)
		caps_add(v);
	return rc;
}

void virtio_pci_reset(struct virtio_dev *v)
{
	v->dev_feature_sel = v->drv_feature_sel = 0;
	v->queue_sel = 0;
	virtio_pci_update_intx(v);
}

void virtio_pci_visit(struct virtio_dev *v, struct snap *s)
{
	snap_u32(s, "dev_feature_sel", &v->dev_feature_sel);
	snap_u32(s, "drv_feature_sel", &v->drv_feature_sel);
	snap_u16(s, "queue_sel", &v->queue_sel);
}
