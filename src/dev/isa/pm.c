/* ACPI fixed hardware at ports 400 to 40D and B2; SCI is IRQ 9. Going to S5 asks for power off. */
#include "dev/isa/isa.h"

#include <errno.h>

static uint64_t port_read(void *self, gpa_t off, unsigned size)
{
	return acpipm_read(&((struct isa_pm *)self)->chip, (unsigned)off, size);
}

static void port_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	acpipm_write(&((struct isa_pm *)self)->chip, (unsigned)off, size, (uint32_t)val);
}

static uint64_t smi_read(void *self, gpa_t off, unsigned size)
{
	return 0xff; /* write only */
}

static void smi_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	acpipm_smi_command(&((struct isa_pm *)self)->chip, (uint8_t)val);
}

static const struct region_ops port_ops = { .read = port_read, .write = port_write, .min = 1, .max = 4 };
static const struct region_ops smi_ops = { .read = smi_read, .write = smi_write, .min = 1, .max = 1 };

static void pm_power_off(void *self)
{
	struct device *d = self;

	d->env->request(d->env->host, VM_POWEROFF, 0);
}

static int pm_realize(struct device *d, struct err *e)
{
	struct isa_pm *p = (struct isa_pm *)d;

	acpipm_init(&p->chip, d->env->loop, &d->env->gsi[9], pm_power_off, d);
	region_io(&p->port, "acpi", ACPIPM_PORTS, &port_ops, p, &d->lock);
	region_io(&p->smi, "smi command", 1, &smi_ops, p, &d->lock);
	if (region_map(&p->port, d->env->io, 0x400, 0, e) < 0)
		return -EINVAL;
	return region_map(&p->smi, d->env->io, 0xb2, 0, e);
}

static void pm_unrealize(struct device *d)
{
	struct isa_pm *p = (struct isa_pm *)d;

	region_unmap(&p->port);
	region_unmap(&p->smi);
}

static void pm_reset(struct device *d, enum reset_kind k)
{
	acpipm_reset(&((struct isa_pm *)d)->chip);
}

static void pm_visit(struct device *d, struct snap *s)
{
	acpipm_visit(&((struct isa_pm *)d)->chip, s);
}

static int pm_restored(struct device *d, struct err *e)
{
	acpipm_restored(&((struct isa_pm *)d)->chip);
	return 0;
}

bool isa_pm_power_button(struct isa_pm *pm)
{
	bool ok;

	lock_take(&pm->dev.lock);
	ok = acpipm_power_button(&pm->chip);
	lock_drop(&pm->dev.lock);
	return ok;
}

void isa_pm_gpe(struct isa_pm *pm, unsigned bit)
{
	lock_take(&pm->dev.lock);
	acpipm_gpe(&pm->chip, bit);
	lock_drop(&pm->dev.lock);
}

const struct device_class isa_pm_class = {
	.name = "acpipm",
	.about = "ACPI fixed hardware",
	.size = sizeof(struct isa_pm),
	.realize = pm_realize,
	.reset = pm_reset,
	.visit = pm_visit,
	.restored = pm_restored,
	.unrealize = pm_unrealize,
};
