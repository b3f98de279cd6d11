/*
 * pc-testdev: what the kvm-unit-tests expect of a PC (bhyve.md 4.23). E0: a word that reads back, at E8 once more, byte
 * by byte; E4: a page whose mapping to forget, and there is none; F4: ends the process; 2000 + pin: a line; FF000000:
 * plain storage.
 */
#include "dev/isa/isa.h"

#include "base/bits.h"
#include "snap/snap.h"

#include <errno.h>

static uint64_t word_read(void *self, gpa_t off, unsigned size)
{
	return ld_le((uint8_t *)&((struct isa_testdev *)self)->word + off, size);
}

static void word_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	st_le((uint8_t *)&((struct isa_testdev *)self)->word + off, val, size);
}

static uint64_t none_read(void *self, gpa_t off, unsigned size)
{
	return mask64(8 * size);
}

/* A page's address, from tests of hypervisors that keep translations of their own: page tables are looked at anyway. */
static void flush_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
}

static void exit_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	struct isa_testdev *t = self;

	t->dev.env->request(t->dev.env->host, VM_EXIT_CODE, (unsigned)(val << 1 | 1));
}

static void irq_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	irq_set(&((struct isa_testdev *)self)->dev.env->gsi[off], val & 1);
}

static uint64_t mem_read(void *self, gpa_t off, unsigned size)
{
	return ld_le(((struct isa_testdev *)self)->mem + off, size);
}

static void mem_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	st_le(((struct isa_testdev *)self)->mem + off, val, size);
}

static const struct region_ops word_ops = { .read = word_read, .write = word_write, .min = 1, .max = 4 };
static const struct region_ops byte_ops = { .read = word_read, .write = word_write, .min = 1, .max = 1 };
static const struct region_ops flush_ops = { .read = none_read, .write = flush_write, .min = 1, .max = 4 };
static const struct region_ops exit_ops = { .read = none_read, .write = exit_write, .min = 1, .max = 4 };
static const struct region_ops irq_ops = { .read = none_read, .write = irq_write, .min = 1, .max = 1 };
static const struct region_ops mem_ops = { .read = mem_read, .write = mem_write };

/* The ports from 2000 overlap the first PCI BARs, which yield. */
static int testdev_realize(struct device *d, struct err *e)
{
	struct isa_testdev *t = (struct isa_testdev *)d;

	region_io(&t->io_word, "testdev word", 4, &word_ops, t, &d->lock);
	region_io(&t->io_flush, "testdev flush", 4, &flush_ops, t, &d->lock);
	region_io(&t->io_bytes, "testdev bytes", 4, &byte_ops, t, &d->lock);
	region_io(&t->io_exit, "testdev exit", 4, &exit_ops, t, &d->lock);
	region_io(&t->io_irq, "testdev irq", GSI_LINES, &irq_ops, t, &d->lock);
	region_io(&t->mmio, "testdev memory", TESTDEV_MEM, &mem_ops, t, &d->lock);
	if (region_map(&t->io_word, d->env->io, 0xe0, 0, e) < 0 ||
	    region_map(&t->io_flush, d->env->io, 0xe4, 0, e) < 0 ||
	    region_map(&t->io_bytes, d->env->io, 0xe8, 0, e) < 0 ||
	    region_map(&t->io_exit, d->env->io, 0xf4, 0, e) < 0 || region_map(&t->io_irq, d->env->io, 0x2000, 0, e) < 0)
		return -EINVAL;
	return region_map(&t->mmio, d->env->mem, 0xff000000, 1, e);
}

static void testdev_unrealize(struct device *d)
{
	struct isa_testdev *t = (struct isa_testdev *)d;

	region_unmap(&t->io_word);
	region_unmap(&t->io_flush);
	region_unmap(&t->io_bytes);
	region_unmap(&t->io_exit);
	region_unmap(&t->io_irq);
	region_unmap(&t->mmio);
}

static void testdev_reset(struct device *d, enum reset_kind k)
{
	((struct isa_testdev *)d)->word = 0;
}

static void testdev_visit(struct device *d, struct snap *s)
{
	struct isa_testdev *t = (struct isa_testdev *)d;

	snap_u32(s, "word", &t->word);
	snap_bytes(s, "mem", t->mem, sizeof(t->mem));
}

const struct device_class isa_testdev_class = {
	.name = "pc-testdev",
	.about = "test device of the kvm-unit-tests",
	.size = sizeof(struct isa_testdev),
	.realize = testdev_realize,
	.reset = testdev_reset,
	.visit = testdev_visit,
	.unrealize = testdev_unrealize,
};
