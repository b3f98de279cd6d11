/*
 * MSI and MSI-X (PCI Local Bus 3.0, section 6.8). MSI: 64-bit form, up to 32 messages, no per-message masking. MSI-X:
 * the core owns a BAR with the table at 0 and the pending bits behind it; an interrupt that comes while its vector or
 * the function is masked becomes pending and is sent when that ends. State lies under irq_lock, so devices may
 * interrupt from any thread.
 */
#include "dev/pci/pci_int.h"

#include "base/alloc.h"
#include "base/log.h"
#include "snap/snap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MSI_CTL = 2, MSI_ADDR = 4, MSI_ADDR_HIGH = 8, MSI_DATA = 12, MSI_SIZE = 14 };
enum { MSI_ENABLE = 1, MSI_MMC_SHIFT = 1, MSI_MME_SHIFT = 4, MSI_MME = 0x70, MSI_64 = 0x80 };
enum { MSIX_CTL = 2, MSIX_TABLE = 4, MSIX_PBA = 8, MSIX_SIZE = 12, MSIX_ENABLE = 0x8000, MSIX_MASK_ALL = 0x4000 };
enum { ENTRY = 16, ENTRY_CTL = 12, VECTOR_MASKED = 1, VECTORS_MAX = 2048, PBA_ALIGN = 4096 };

struct pci_msix {
	unsigned n, pba_off, pba_size;
	uint8_t *table; /* n entries: address, address high, data, control */
	uint64_t *pending;
};

static uint16_t msi_ctl(const struct pci_dev *p)
{
	return p->msi_cap ? ld_le16(&p->cfg[p->msi_cap + MSI_CTL]) : 0;
}

static uint16_t msix_ctl(const struct pci_dev *p)
{
	return p->msix_cap ? ld_le16(&p->cfg[p->msix_cap + MSIX_CTL]) : 0;
}

/* Both enabled is undefined: MSI wins, as in bhyve. */
bool pci_msix_on(const struct pci_dev *p)
{
	return (msix_ctl(p) & MSIX_ENABLE) && !(msi_ctl(p) & MSI_ENABLE);
}

bool pci_msi_on(const struct pci_dev *p)
{
	return (msi_ctl(p) & MSI_ENABLE) || (msix_ctl(p) & MSIX_ENABLE);
}

/* ------ sending ------ */

static void send(struct pci_dev *p, uint64_t addr, uint32_t data)
{
	struct msi m = { .addr = addr, .data = data };

	if (!pci_bus_master(p))
		return; /* a message is a write like any other: neither the function makes it nor a bridge passes it on
			 */
	if ((addr & ~0xfffffull) != 0xfee00000) {
		log_guest("%s: message to %#llx is no interrupt", p->dev.name, (unsigned long long)addr);
		return;
	}
	p->dev.env->msi(p->dev.env->host, &m);
}

static void msi_send(struct pci_dev *p, unsigned vector)
{
	const uint8_t *c = &p->cfg[p->msi_cap];
	unsigned mme = (msi_ctl(p) & MSI_MME) >> MSI_MME_SHIFT, mmc = msi_ctl(p) >> MSI_MMC_SHIFT & 7;
	unsigned count = 1u << (mme < mmc ? mme : mmc);

	if (vector >= count)
		return;
	send(p, (uint64_t)ld_le32(c + MSI_ADDR_HIGH) << 32 | ld_le32(c + MSI_ADDR),
	     (ld_le16(c + MSI_DATA) & ~(count - 1)) | vector);
}

static bool vector_masked(const struct pci_dev *p, unsigned v)
{
	return (msix_ctl(p) & MSIX_MASK_ALL) || (ld_le32(p->msix->table + ENTRY * v + ENTRY_CTL) & VECTOR_MASKED);
}

static void msix_send(struct pci_dev *p, unsigned v)
{
	const uint8_t *t = p->msix->table + ENTRY * v;

	if (vector_masked(p, v))
		p->msix->pending[v / 64] |= BIT64(v % 64);
	else
		send(p, ld_le64(t), ld_le32(t + 8));
}

void pci_msi(struct pci_dev *p, unsigned vector)
{
	lock_take(&p->irq_lock);
	if (msi_ctl(p) & MSI_ENABLE)
		msi_send(p, vector);
	else if (pci_msix_on(p) && vector < p->msix->n)
		msix_send(p, vector);
	lock_drop(&p->irq_lock);
}

static void flush_vector(struct pci_dev *p, unsigned v)
{
	if (!(p->msix->pending[v / 64] & BIT64(v % 64)) || !pci_msix_on(p) || vector_masked(p, v))
		return;
	p->msix->pending[v / 64] &= ~BIT64(v % 64);
	msix_send(p, v);
}

static void flush_all(struct pci_dev *p)
{
	for (unsigned w = 0; w * 64 < p->msix->n; w++) {
		uint64_t bits = p->msix->pending[w];

		for (; bits; bits &= bits - 1)
			flush_vector(p, w * 64 + (unsigned)__builtin_ctzll(bits));
	}
}

/* ------ config space ------ */

static bool touches(unsigned off, unsigned size, unsigned at)
{
	return off < at + 2 && at < off + size;
}

void pci_msi_cfg_written(struct pci_dev *p, unsigned off, unsigned size)
{
	bool msi = p->msi_cap && touches(off, size, p->msi_cap + MSI_CTL);
	bool msix = p->msix_cap && touches(off, size, p->msix_cap + MSIX_CTL);

	if (!msi && !msix)
		return;
	if (p->msix) {
		lock_take(&p->irq_lock);
		flush_all(p);
		lock_drop(&p->irq_lock);
	}
	pci_intx_update(p);
}

void pci_msi_add(struct pci_dev *p, unsigned messages)
{
	unsigned at = pci_add_cap(p, PCI_CAP_MSI, MSI_SIZE);

	if (!at)
		return;
	p->msi_cap = (uint8_t)at;
	st_le16(&p->cfg[at + MSI_CTL], (uint16_t)(MSI_64 | __builtin_ctz(messages) << MSI_MMC_SHIFT));
	st_le16(&p->wmask[at + MSI_CTL], MSI_ENABLE | MSI_MME);
	st_le32(&p->wmask[at + MSI_ADDR], 0xfffffffc);
	st_le32(&p->wmask[at + MSI_ADDR_HIGH], 0xffffffff);
	st_le16(&p->wmask[at + MSI_DATA], 0xffff);
}

/* ------ the MSI-X BAR ------ */

/* size 4 or 8, aligned: neither crosses an entry nor the end of a part. */
static uint64_t msix_read(void *self, gpa_t off, unsigned size)
{
	struct pci_dev *p = self;
	struct pci_msix *x = p->msix;
	uint64_t v = 0;

	lock_take(&p->irq_lock);
	if (range_in(off, size, ENTRY * x->n))
		v = ld_le(x->table + off, size);
	else if (off >= x->pba_off && range_in(off - x->pba_off, size, x->pba_size))
		v = ld_le((uint8_t *)x->pending + (off - x->pba_off), size);
	lock_drop(&p->irq_lock);
	return v;
}

/* Reserved bits of the control word stay 0; so do the low two of the address. */
static void entry_clean(uint8_t *t)
{
	st_le32(t, ld_le32(t) & ~3u);
	st_le32(t + ENTRY_CTL, ld_le32(t + ENTRY_CTL) & VECTOR_MASKED);
}

static void msix_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	struct pci_dev *p = self;
	struct pci_msix *x = p->msix;

	if (!range_in(off, size, ENTRY * x->n))
		return;
	lock_take(&p->irq_lock);
	st_le(x->table + off, val, size);
	entry_clean(x->table + off / ENTRY * ENTRY);
	flush_vector(p, (unsigned)(off / ENTRY));
	lock_drop(&p->irq_lock);
}

static const struct region_ops msix_ops = { .read = msix_read, .write = msix_write, .min = 4, .max = 8 };

static void mask_all(struct pci_msix *x)
{
	memset(x->table, 0, (size_t)ENTRY * x->n);
	memset(x->pending, 0, x->pba_size);
	for (unsigned v = 0; v < x->n; v++)
		st_le32(x->table + ENTRY * v + ENTRY_CTL, VECTOR_MASKED);
}

int pci_msix_init(struct pci_dev *p, unsigned vectors, unsigned bar, struct err *e)
{
	struct pci_msix *x;
	unsigned at;

	if (vectors == 0 || vectors > VECTORS_MAX || bar > 5)
		return err_set(e, -EINVAL, "%s: %u MSI-X vectors in BAR %u: expected 1 to %d, BAR 0 to 5", p->dev.name,
			       vectors, bar, VECTORS_MAX);
	at = pci_add_cap(p, PCI_CAP_MSIX, MSIX_SIZE);
	if (!at)
		return err_set(e, -ENOSPC, "%s: no room for the MSI-X capability", p->dev.name);
	x = p->msix = xcalloc(1, sizeof(*x));
	x->n = vectors;
	x->pba_off = (unsigned)round_up((uint64_t)ENTRY * vectors, PBA_ALIGN);
	x->pba_size = (vectors + 63) / 64 * 8;
	x->table = xcalloc(vectors, ENTRY);
	x->pending = xcalloc(1, x->pba_size);
	mask_all(x);
	p->msix_cap = (uint8_t)at;
	st_le16(&p->cfg[at + MSIX_CTL], (uint16_t)(vectors - 1));
	st_le16(&p->wmask[at + MSIX_CTL], MSIX_ENABLE | MSIX_MASK_ALL);
	st_le32(&p->cfg[at + MSIX_TABLE], bar);
	st_le32(&p->cfg[at + MSIX_PBA], x->pba_off | bar);
	pci_bar_set(p, bar, BAR_MEM32, x->pba_off + x->pba_size, &msix_ops);
	return 0;
}

void pci_msix_free(struct pci_dev *p)
{
	if (!p->msix)
		return;
	free(p->msix->table);
	free(p->msix->pending);
	free(p->msix);
	p->msix = NULL;
}

void pci_msix_reset(struct pci_dev *p)
{
	if (!p->msix)
		return;
	lock_take(&p->irq_lock);
	mask_all(p->msix);
	lock_drop(&p->irq_lock);
}

void pci_msix_visit(struct pci_dev *p, struct snap *s)
{
	struct pci_msix *x = p->msix;

	lock_take(&p->irq_lock);
	snap_bytes(s, "msix_table", x->table, (size_t)ENTRY * x->n);
	snap_bytes(s, "msix_pending", x->pending, x->pba_size);
	for (unsigned v = 0; v < x->n; v++)
		entry_clean(x->table + ENTRY * v);
	if (x->n % 64)
		x->pending[x->n / 64] &= mask64(x->n % 64);
	lock_drop(&p->irq_lock);
}
