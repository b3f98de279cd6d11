/*
 * ACPI fixed hardware (ACPI 5.1, section 4.8): PM1 event and control, PM timer, GPE0, and the SMI command port that
 * turns ACPI mode on. Drives the SCI (level). Calls run with `held` taken.
 */
#ifndef DEV_CHIP_ACPIPM_H
#define DEV_CHIP_ACPIPM_H

#include "irq/irq.h"
#include "loop/loop.h"

struct snap;

enum {
	ACPIPM_TIMER_HZ = 3579545,
	ACPIPM_PORTS = 14,    /* 400 to 40D */
	ACPIPM_ENABLE = 0xa0, /* SMI command values */
	ACPIPM_DISABLE = 0xa1,
	ACPIPM_SLP_TYP_S5 = 5,
};

struct acpipm {
	struct loop *loop;
	struct irq_line sci;
	void (*power_off)(void *self); /* S5; held is taken */
	void *self;
	uint16_t pm1_sts, pm1_en, pm1_cnt;
	uint8_t gpe_sts, gpe_en;
};

void acpipm_init(struct acpipm *a, struct loop *l, const struct irq_line *sci, void (*power_off)(void *self),
		 void *self);
/* Ports 400 to 40D: off from 400; other sizes than the register's read all ones and write nothing. */
uint32_t acpipm_read(struct acpipm *a, unsigned off, unsigned size);
void acpipm_write(struct acpipm *a, unsigned off, unsigned size, uint32_t val);
void acpipm_smi_command(struct acpipm *a, uint8_t val); /* port B2 */
bool acpipm_acpi_on(const struct acpipm *a);
/* False if the guest has not turned ACPI mode on. */
bool acpipm_power_button(struct acpipm *a);
void acpipm_gpe(struct acpipm *a, unsigned bit); /* sets a GPE0 status bit, 0 to 7 */
void acpipm_reset(struct acpipm *a);
void acpipm_visit(struct acpipm *a, struct snap *s);
void acpipm_restored(struct acpipm *a);

#endif
