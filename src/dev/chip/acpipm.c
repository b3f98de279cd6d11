/*
 * ACPI fixed hardware (ACPI 5.1, section 4.8). The SCI is raised only in ACPI mode; in legacy mode the events would be
 * SMIs, which this machine does not have. Left out: sleep states but S5, the timer-carry event, processor throttling.
 */
#include "dev/chip/acpipm.h"

#include "base/bits.h"
#include "snap/snap.h"

enum { PM1_STS = 0, PM1_EN = 2, PM1_CNT = 4, PM_TMR = 8, GPE_STS = 12, GPE_EN = 13 };
enum {
	STS_BM = 0x10,
	STS_GLOBAL = 0x20,
	STS_POWER = 0x100,
	STS_SLEEP = 0x200,
	STS_RTC = 0x400,
	STS_WAKE = 0x8000,
	STS_W1C = STS_BM | STS_GLOBAL | STS_POWER | STS_SLEEP | STS_RTC | STS_WAKE,
	EN_WRITABLE = STS_GLOBAL | STS_POWER | STS_RTC,
	CNT_SCI_EN = 1,
	CNT_GBL_RLS = 4,
	CNT_SLP_TYP = 0x1c00,
	CNT_SLP_EN = 0x2000,
	CNT_WRITABLE = CNT_SLP_TYP | 2 /* BM_RLD */,
	GPE_WRITABLE = 1, /* VM generation change */
};

static void sci_update(struct acpipm *a)
{
	bool on = (a->pm1_sts & a->pm1_en & (STS_POWER | STS_RTC | STS_GLOBAL)) || (a->gpe_sts & a->gpe_en);

	irq_set(&a->sci, on && (a->pm1_cnt & CNT_SCI_EN));
}

static uint32_t pm_timer(const struct acpipm *a)
{
	return (uint32_t)((unsigned __int128)clk_now(a->loop, CLK_VM) * ACPIPM_TIMER_HZ / 1000000000u);
}

uint32_t acpipm_read(struct acpipm *a, unsigned off, unsigned size)
{
	if (size == 2 && off == PM1_STS)
		return a->pm1_sts;
	if (size == 2 && off == PM1_EN)
		return a->pm1_en;
	if (size == 2 && off == PM1_CNT)
		return a->pm1_cnt;
	if (size == 4 && off == PM_TMR)
		return pm_timer(a);
	if (size == 1 && off == GPE_STS)
		return a->gpe_sts;
	if (size == 1 && off == GPE_EN)
		return a->gpe_en;
	return (uint32_t)mask64(8 * size);
}

/* SCI_EN belongs to the SMI command port; SLP_EN and GBL_RLS read zero. */
static void cnt_write(struct acpipm *a, uint16_t val)
{
	a->pm1_cnt = (a->pm1_cnt & CNT_SCI_EN) | (val & CNT_WRITABLE);
	if ((val & CNT_SLP_EN) && (val & CNT_SLP_TYP) >> 10 == ACPIPM_SLP_TYP_S5)
		a->power_off(a->self);
}

void acpipm_write(struct acpipm *a, unsigned off, unsigned size, uint32_t val)
{
	if (size == 2 && off == PM1_STS)
		a->pm1_sts &= ~(val & STS_W1C);
	else if (size == 2 && off == PM1_EN)
		a->pm1_en = val & EN_WRITABLE;
	else if (size == 2 && off == PM1_CNT)
		cnt_write(a, (uint16_t)val);
	else if (size == 1 && off == GPE_STS)
		a->gpe_sts &= ~val;
	else if (size == 1 && off == GPE_EN)
		a->gpe_en = val & GPE_WRITABLE;
	sci_update(a);
}

void acpipm_smi_command(struct acpipm *a, uint8_t val)
{
	if (val == ACPIPM_ENABLE)
		a->pm1_cnt |= CNT_SCI_EN;
	else if (val == ACPIPM_DISABLE)
		a->pm1_cnt &= ~CNT_SCI_EN;
	sci_update(a);
}

bool acpipm_acpi_on(const struct acpipm *a)
{
	return a->pm1_cnt & CNT_SCI_EN;
}

bool acpipm_power_button(struct acpipm *a)
{
	if (!acpipm_acpi_on(a))
		return false;
	a->pm1_sts |= STS_POWER;
	sci_update(a);
	return true;
}

void acpipm_gpe(struct acpipm *a, unsigned bit)
{
	a->gpe_sts |= BIT(bit & 7);
	sci_update(a);
}

void acpipm_init(struct acpipm *a, struct loop *l, const struct irq_line *sci, void (*power_off)(void *self),
		 void *self)
{
	a->loop = l;
	a->sci = *sci;
	a->power_off = power_off;
	a->self = self;
}

void acpipm_reset(struct acpipm *a)
{
	a->pm1_sts = a->pm1_en = a->pm1_cnt = 0;
	a->gpe_sts = a->gpe_en = 0;
	sci_update(a);
}

void acpipm_visit(struct acpipm *a, struct snap *s)
{
	snap_u16(s, "pm1_sts", &a->pm1_sts);
	snap_u16(s, "pm1_en", &a->pm1_en);
	snap_u16(s, "pm1_cnt", &a->pm1_cnt);
	snap_u8(s, "gpe_sts", &a->gpe_sts);
	snap_u8(s, "gpe_en", &a->gpe_en);
}

void acpipm_restored(struct acpipm *a)
{
	sci_update(a);
}
