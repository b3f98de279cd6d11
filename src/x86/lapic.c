#include "x86/lapic.h"

#include "base/bits.h"

#include <string.h>

/* Register numbers: offset / 16, and MSR 800 + number. */
enum apic_reg {
	REG_ID = 0x02,
	REG_VERSION = 0x03,
	REG_TPR = 0x08,
	REG_APR = 0x09,
	REG_PPR = 0x0a,
	REG_EOI = 0x0b,
	REG_LDR = 0x0d,
	REG_DFR = 0x0e,
	REG_SVR = 0x0f,
	REG_ISR = 0x10,
	REG_TMR = 0x18,
	REG_IRR = 0x20,
	REG_ESR = 0x28,
	REG_LVT_CMCI = 0x2f,
	REG_ICR = 0x30,
	REG_ICR_HIGH = 0x31,
	REG_LVT = 0x32,
	REG_LVT_END = 0x37,
	REG_TIMER_INIT = 0x38,
	REG_TIMER_NOW = 0x39,
	REG_TIMER_DIV = 0x3e,
	REG_SELF_IPI = 0x3f,
};

enum { VERSION = 0x14 | (LVTS - 1) << 16, SVR_ENABLE = 0x100, LVT_MASKED = 0x10000 };
enum { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_DEADLINE };
enum apic_error { ESR_SEND_VECTOR = 0x20, ESR_RECV_VECTOR = 0x40, ESR_REGISTER = 0x80 };

static bool sw_on(const struct lapic *l)
{
	return lapic_on(l) && (__atomic_load_n(&l->svr, __ATOMIC_RELAXED) & SVR_ENABLE);
}

static int highest(const uint32_t *bits)
{
	for (int n = 7; n >= 0; n--) {
		uint32_t w = __atomic_load_n(&bits[n], __ATOMIC_ACQUIRE);

		if (w)
			return n * 32 + 31 - __builtin_clz(w);
	}
	return -1;
}

static void look_if_waiting(struct lapic *l)
{
	if (highest(l->irr) >= 0)
		l->bus->look(l->bus->self, l->id);
}

/* ------ delivery ------ */

static void error(struct lapic *l, uint32_t bit)
{
	uint32_t lvt = __atomic_load_n(&l->lvt[LVT_ERROR], __ATOMIC_RELAXED);

	__atomic_fetch_or(&l->errors, bit, __ATOMIC_SEQ_CST);
	if (!(lvt & LVT_MASKED) && (lvt & 0xff) >= 16)
		lapic_post(l, lvt & 0xff, false);
}

void lapic_post(struct lapic *l, unsigned vector, bool level)
{
	uint32_t bit = BIT(vector & 31);
	unsigned w = vector / 32 & 7;

	if (!sw_on(l))
		return;
	if (vector < 16) {
		error(l, ESR_RECV_VECTOR);
		return;
	}
	if (level)
		__atomic_fetch_or(&l->tmr[w], bit, __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_and(&l->tmr[w], ~bit, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(&l->irr[w], bit, __ATOMIC_SEQ_CST);
	l->bus->look(l->bus->self, l->id);
}

static unsigned ppr(const struct lapic *l)
{
	int isr = highest(l->isr);
	unsigned served = isr < 0 ? 0 : isr & 0xf0;

	return (l->tpr & 0xf0) >= served ? l->tpr : served;
}

int lapic_pending(const struct lapic *l)
{
	int v = highest(l->irr);

	if (v < 0 || !sw_on(l) || (unsigned)(v & 0xf0) <= (ppr(l) & 0xf0))
		return -1;
	return v;
}

void lapic_accept(struct lapic *l, unsigned vector)
{
	__atomic_fetch_and(&l->irr[vector / 32], ~BIT(vector & 31), __ATOMIC_SEQ_CST);
	l->isr[vector / 32] |= BIT(vector & 31);
}

static void eoi(struct lapic *l)
{
	int v = highest(l->isr);

	if (v < 0)
		return;
	l->isr[v / 32] &= ~BIT(v & 31);
	if (__atomic_load_n(&l->tmr[v / 32], __ATOMIC_RELAXED) & BIT(v & 31))
		l->bus->eoi(l->bus->self, l->id, (unsigned)v);
	look_if_waiting(l);
}

/* ------ destinations ------ */

static uint32_t x2_ldr(const struct lapic *l)
{
	return l->id >> 4 << 16 | BIT(l->id & 15);
}

static bool matches_logical(const struct lapic *l, uint32_t dest)
{
	uint32_t mine = l->ldr >> 24;

	if (lapic_x2(l))
		return dest >> 16 == l->id >> 4 && (dest & 0xffff & x2_ldr(l));
	if (dest > 0xff)
		return false;
	if (l->dfr >> 28 == 0xf)
		return mine & dest;
	return (dest >> 4 == mine >> 4 || dest >> 4 == 0xf) && (dest & mine & 0xf);
}

/* wide: dest is 32 bits from an x2APIC; else 8 (or 15 of an extended MSI), where 0xff means all. */
static bool matches(const struct lapic *l, uint32_t dest, bool logical, bool wide)
{
	if (!lapic_on(l))
		return false;
	if (dest == (wide ? 0xffffffffu : 0xffu))
		return true;
	return logical ? matches_logical(l, dest) : dest == l->id;
}

static void deliver(struct lapic *l, enum apic_delivery mode, uint8_t vector, bool level)
{
	switch (mode) {
	case APIC_FIXED:
	case APIC_LOWEST:
		lapic_post(l, vector, level);
		break;
	case APIC_SMI:
	case APIC_NMI:
	case APIC_INIT:
	case APIC_SIPI:
		l->bus->event(l->bus->self, l->id, mode, vector);
		break;
	default:
		break; /* ExtINT by message: nothing would answer the acknowledge cycle */
	}
}

/* The one with the lowest task priority, round robin among equals. Priorities are read racily, as a bus would see them.
 */
static struct lapic *lowest(struct lapic_bus *b, uint32_t dest, bool logical, bool wide)
{
	unsigned start = __atomic_fetch_add(&b->lowest_at, 1, __ATOMIC_RELAXED);
	struct lapic *best = NULL;

	for (unsigned n = 0; n < b->n; n++) {
		struct lapic *l = b->apic[(start + n) % b->n];

		if (matches(l, dest, logical, wide) && sw_on(l) && (!best || l->tpr < best->tpr))
			best = l;
	}
	return best;
}

static void send(struct lapic_bus *b, uint32_t dest, bool logical, bool wide, enum apic_delivery mode, uint8_t vector,
		 bool level)
{
	if (mode == APIC_LOWEST) {
		struct lapic *l = lowest(b, dest, logical, wide);

		if (l)
			deliver(l, mode, vector, level);
		return;
	}
	for (unsigned n = 0; n < b->n; n++)
		if (matches(b->apic[n], dest, logical, wide))
			deliver(b->apic[n], mode, vector, level);
}

/* SDM 11.11; bits 5 to 11 of the address extend the destination to 15 bits. Bit 2 (logical) counts with and without the
 * redirection hint, as chipsets do and guests expect. */
void lapic_msi(struct lapic_bus *b, uint64_t addr, uint32_t data)
{
	uint32_t dest = (uint32_t)(addr >> 12 & 0xff) | (uint32_t)(addr >> 5 & 0x7f) << 8;

	if (addr >> 20 != 0xfee)
		return;
	send(b, dest, addr & 4, false, (enum apic_delivery)(data >> 8 & 7), data & 0xff, data & 0x8000);
}

/* Shorthand of the ICR: self, all, all but self. */
static void send_all(struct lapic *l, bool me, enum apic_delivery mode, uint8_t vector)
{
	for (unsigned n = 0; n < l->bus->n; n++) {
		struct lapic *to = l->bus->apic[n];

		if (lapic_on(to) && (to != l || me))
			deliver(to, mode, vector, false);
	}
}

static void icr_send(struct lapic *l, uint32_t dest, bool wide)
{
	enum apic_delivery mode = (enum apic_delivery)(l->icr >> 8 & 7);
	uint8_t vector = l->icr & 0xff;

	if (mode == APIC_INIT && (l->icr & 0xc000) == 0x8000)
		return; /* level de-assert: means nothing since the P6 */
	if (mode <= APIC_LOWEST && vector < 16) {
		error(l, ESR_SEND_VECTOR);
		return;
	}
	l->ipis++;
	switch (l->icr >> 18 & 3) {
	case 0:
		send(l->bus, dest, l->icr & 0x800, wide, mode, vector, false);
		break;
	case 1:
		if (mode == APIC_FIXED)
			lapic_post(l, vector, false);
		break;
	case 2:
		send_all(l, true, mode, vector);
		break;
	default:
		send_all(l, false, mode, vector);
		break;
	}
}

/* ------ timer ------ */

/* Guests compute the TSC's rate from the crystal's in kHz: the largest divider that leaves a crystal of 24 MHz or more
 * in whole kHz. 1 if there is none (a prime rate). */
unsigned lapic_ratio(uint64_t tsc_khz)
{
	unsigned n = (unsigned)(tsc_khz / 24000);

	while (n > 1 && tsc_khz % n)
		n--;
	return n > 1 ? n : tsc_khz > 4294967 ? 2 : 1;
}

static unsigned timer_mode(const struct lapic *l)
{
	return l->lvt[LVT_TIMER] >> 17 & 3;
}

static uint64_t timer_unit(const struct lapic *l) /* TSC ticks in bus->per counts */
{
	unsigned d = (l->timer_div & 3) | (l->timer_div >> 1 & 4);

	return (uint64_t)l->bus->tick << (d == 7 ? 0 : d + 1);
}

static uint64_t timer_span(const struct lapic *l, uint32_t count) /* TSC ticks; fits for rates below 30 GHz */
{
	return count * timer_unit(l) / (l->bus->per ? l->bus->per : 1);
}

static void timer_start(struct lapic *l)
{
	if (timer_mode(l) == TIMER_DEADLINE)
		return;
	l->due = l->timer_init ? l->bus->now(l->bus->self) + timer_span(l, l->timer_init) : 0;
}

static uint32_t timer_count(const struct lapic *l)
{
	uint64_t now = l->bus->now(l->bus->self);

	if (timer_mode(l) == TIMER_DEADLINE || !l->due || l->due <= now)
		return 0;
	return (uint32_t)((l->due - now) * (l->bus->per ? l->bus->per : 1) / timer_unit(l));
}

void lapic_set_deadline(struct lapic *l, uint64_t guest, uint64_t clock)
{
	if (timer_mode(l) != TIMER_DEADLINE)
		return;
	l->deadline = guest;
	l->due = guest ? (clock ? clock : 1) : 0;
}

void lapic_tick(struct lapic *l, uint64_t now)
{
	uint64_t period = timer_span(l, l->timer_init);

	if (!l->due || now < l->due)
		return;
	if (timer_mode(l) == TIMER_PERIODIC && period)
		l->due = now + period - (now - l->due) % period; /* ticks that were missed are not made up */
	else
		l->due = l->deadline = 0;
	if (!(l->lvt[LVT_TIMER] & LVT_MASKED)) {
		l->fired++;
		lapic_post(l, l->lvt[LVT_TIMER] & 0xff, false);
	}
}

/* ------ lines ------ */

/* Firmware leaves LINT0 of the boot CPU as the way of the 8259s; a kernel that is started without firmware finds it so
 * too, until it switches its APIC on. */
bool lapic_takes_extint(const struct lapic *l)
{
	return !sw_on(l) || (l->lvt[LVT_LINT0] & (LVT_MASKED | 0x700)) == APIC_EXTINT << 8;
}

bool lapic_takes_nmi(const struct lapic *l)
{
	return !sw_on(l) || (l->lvt[LVT_LINT1] & (LVT_MASKED | 0x700)) == APIC_NMI << 8;
}

void lapic_lint0_rose(struct lapic *l)
{
	if (sw_on(l) && !(l->lvt[LVT_LINT0] & (LVT_MASKED | 0x700)))
		lapic_post(l, l->lvt[LVT_LINT0] & 0xff, false);
}

/* ------ registers ------ */

static int lvt_index(unsigned reg)
{
	if (reg == REG_LVT_CMCI)
		return LVT_CMCI;
	return reg >= REG_LVT && reg <= REG_LVT_END ? (int)(reg - REG_LVT) + LVT_TIMER : -1;
}

static void lvt_write(struct lapic *l, int n, uint32_t v)
{
	static const uint32_t writable[LVTS] = {
		[LVT_CMCI] = 0x107ff,  [LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
		[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff, [LVT_ERROR] = 0x100ff,
	};
	unsigned before = timer_mode(l);

	v &= writable[n];
	if (!(l->svr & SVR_ENABLE))
		v |= LVT_MASKED;
	if (n == LVT_TIMER && !l->deadline_ok)
		v &= ~0x40000u;
	l->lvt[n] = v;
	if (n == LVT_TIMER && (before == TIMER_DEADLINE) != (timer_mode(l) == TIMER_DEADLINE))
		l->due = l->deadline = 0;
	if (n == LVT_LINT0)
		l->bus->look(l->bus->self, l->id);
}

static void svr_write(struct lapic *l, uint32_t v)
{
	__atomic_store_n(&l->svr, v & 0x3ff, __ATOMIC_RELAXED);
	if (!(v & SVR_ENABLE))
		for (unsigned n = 0; n < LVTS; n++)
			l->lvt[n] |= LVT_MASKED;
	l->bus->look(l->bus->self, l->id);
}

/* False: no such register. */
static bool reg_read(struct lapic *l, unsigned reg, uint32_t *v)
{
	int lvt = lvt_index(reg);

	*v = 0;
	if (lvt >= 0) {
		*v = l->lvt[lvt];
		return true;
	}
	switch (reg) {
	case REG_ID:
		*v = lapic_x2(l) ? l->id : l->id << 24;
		break;
	case REG_VERSION:
		*v = VERSION;
		break;
	case REG_TPR:
		*v = l->tpr;
		break;
	case REG_PPR:
		*v = ppr(l);
		break;
	case REG_LDR:
		*v = lapic_x2(l) ? x2_ldr(l) : l->ldr;
		break;
	case REG_SVR:
		*v = l->svr;
		break;
	case REG_ISR ... REG_ISR + 7:
		*v = l->isr[reg - REG_ISR];
		break;
	case REG_TMR ... REG_TMR + 7:
		*v = __atomic_load_n(&l->tmr[reg - REG_TMR], __ATOMIC_RELAXED);
		break;
	case REG_IRR ... REG_IRR + 7:
		*v = __atomic_load_n(&l->irr[reg - REG_IRR], __ATOMIC_RELAXED);
		break;
	case REG_ESR:
		*v = l->esr;
		break;
	case REG_ICR:
		*v = l->icr;
		break;
	case REG_TIMER_INIT:
		*v = l->timer_init;
		break;
	case REG_TIMER_NOW:
		*v = timer_count(l);
		break;
	case REG_TIMER_DIV:
		*v = l->timer_div;
		break;
	default:
		return false;
	}
	return true;
}

static bool reg_write(struct lapic *l, unsigned reg, uint32_t v)
{
	int lvt = lvt_index(reg);

	if (lvt >= 0) {
		lvt_write(l, lvt, v);
		return true;
	}
	switch (reg) {
	case REG_TPR:
		l->tpr = v & 0xff;
		look_if_waiting(l);
		break;
	case REG_EOI:
		eoi(l);
		break;
	case REG_SVR:
		svr_write(l, v);
		break;
	case REG_ESR:
		l->esr = __atomic_exchange_n(&l->errors, 0, __ATOMIC_SEQ_CST);
		break;
	case REG_TIMER_INIT:
		if (timer_mode(l) != TIMER_DEADLINE) {
			l->timer_init = v;
			timer_start(l);
		}
		break;
	case REG_TIMER_DIV:
		l->timer_div = v & 0xb;
		if (l->due)
			timer_start(l);
		break;
	default:
		return false;
	}
	return true;
}

uint32_t lapic_read(struct lapic *l, unsigned off)
{
	unsigned reg = off >> 4;
	uint32_t v;

	if (reg == REG_DFR)
		return l->dfr;
	if (reg == REG_ICR_HIGH)
		return l->icr_dest << 24;
	if (reg == REG_APR)
		return 0;
	if (off & 0xc || !reg_read(l, reg, &v)) {
		error(l, ESR_REGISTER);
		return 0;
	}
	return v;
}

void lapic_write(struct lapic *l, unsigned off, uint32_t v)
{
	unsigned reg = off >> 4;

	if (off & 0xc)
		return;
	switch (reg) {
	case REG_ID:
		return; /* fixed, as on current CPUs */
	case REG_LDR:
		l->ldr = v & 0xff000000;
		return;
	case REG_DFR:
		l->dfr = v | 0x0fffffff;
		return;
	case REG_ICR_HIGH:
		l->icr_dest = v >> 24;
		return;
	case REG_ICR:
		l->icr = v & 0xccfff;
		icr_send(l, l->icr_dest, false);
		return;
	default:
		if (!reg_write(l, reg, v))
			error(l, ESR_REGISTER);
	}
}

bool lapic_msr_read(struct lapic *l, uint32_t index, uint64_t *v)
{
	unsigned reg = index - 0x800;
	uint32_t low;

	if (!lapic_x2(l) || reg > 0xff || reg == REG_EOI || reg == REG_SELF_IPI || !reg_read(l, reg, &low))
		return false;
	*v = low;
	if (reg == REG_ICR)
		*v |= (uint64_t)l->icr_dest << 32;
	return true;
}

/* Bits that a write of this register may have set; else #GP. */
static uint32_t x2_writable(const struct lapic *l, unsigned reg)
{
	switch (reg) {
	case REG_TPR:
	case REG_SELF_IPI:
		return 0xff;
	case REG_EOI:
	case REG_ESR:
		return 0;
	case REG_SVR:
		return 0x1ff;
	case REG_LVT:
		return l->deadline_ok ? 0x710ff : 0x310ff;
	case REG_LVT + LVT_LINT0 - LVT_TIMER:
	case REG_LVT + LVT_LINT1 - LVT_TIMER:
		return 0x1f7ff;
	case REG_TIMER_INIT:
		return ~0u;
	case REG_TIMER_DIV:
		return 0xb;
	default:
		return 0x117ff;
	}
}

bool lapic_msr_write(struct lapic *l, uint32_t index, uint64_t v)
{
	unsigned reg = index - 0x800;

	if (!lapic_x2(l) || reg > 0xff)
		return false;
	if (reg == REG_ICR) {
		l->icr = v & 0xccfff;
		l->icr_dest = (uint32_t)(v >> 32);
		icr_send(l, l->icr_dest, true);
		return true;
	}
	if (v & ~(uint64_t)x2_writable(l, reg))
		return false;
	if (reg == REG_SELF_IPI) {
		if (v < 16)
			error(l, ESR_SEND_VECTOR);
		else
			lapic_post(l, v & 0xff, false);
		return true;
	}
	return reg_write(l, reg, (uint32_t)v);
}

bool lapic_set_base(struct lapic *l, uint64_t v, uint8_t phys_bits)
{
	uint64_t mode = v & 0xc00, was = l->base & 0xc00;

	if (v & ~(mask64(phys_bits) & ~0xfffull) & ~0xd00ull)
		return false;
	if (mode == 0x400 || (mode == 0xc00 && (was == 0 || !l->x2_ok)) || (mode == 0x800 && was == 0xc00))
		return false;
	/* Bit 8 (boot CPU) is not the guest's to move. */
	v = (v & ~0x100ull) | (l->base & 0x100);
	if (was && !mode)
		lapic_reset(l, false, l->base & 0x100);
	__atomic_store_n(&l->base, v, __ATOMIC_RELAXED);
	if (mode == 0xc00 && was != 0xc00)
		l->icr_dest = 0;
	return true;
}

void lapic_reset(struct lapic *l, bool power_up, bool bsp)
{
	if (power_up)
		__atomic_store_n(&l->base, 0xfee00800 | (bsp ? 0x100 : 0), __ATOMIC_RELAXED);
	memset(l->irr, 0, sizeof(l->irr));
	memset(l->tmr, 0, sizeof(l->tmr));
	memset(l->isr, 0, sizeof(l->isr));
	l->tpr = l->ldr = l->esr = l->errors = l->icr = l->icr_dest = l->timer_init = l->timer_div = 0;
	l->dfr = ~0u;
	__atomic_store_n(&l->svr, 0xff, __ATOMIC_RELAXED);
	for (unsigned n = 0; n < LVTS; n++)
		l->lvt[n] = LVT_MASKED;
	l->due = l->deadline = 0;
}

/* ------ save and load ------ */

static void page_set(uint8_t *page, unsigned reg, uint32_t v)
{
	st_le32(page + reg * 16, v);
}

static uint32_t page_get(const uint8_t *page, unsigned reg)
{
	return ld_le32(page + reg * 16);
}

void lapic_save(struct lapic *l, uint8_t page[LAPIC_PAGE])
{
	memset(page, 0, LAPIC_PAGE);
	for (unsigned reg = 0; reg < LAPIC_PAGE / 16; reg++) {
		uint32_t v;

		if (reg_read(l, reg, &v))
			page_set(page, reg, v);
	}
	/* A timer that is due and has not fired yet goes on as one that is about to be. */
	if (l->due && timer_mode(l) != TIMER_DEADLINE && !page_get(page, REG_TIMER_NOW))
		page_set(page, REG_TIMER_NOW, 1);
	page_set(page, REG_DFR, l->dfr);
	page_set(page, REG_ICR_HIGH, lapic_x2(l) ? l->icr_dest : l->icr_dest << 24);
}

void lapic_load(struct lapic *l, const uint8_t page[LAPIC_PAGE])
{
	uint32_t left;

	for (unsigned n = 0; n < 8; n++) {
		l->isr[n] = page_get(page, REG_ISR + n);
		l->tmr[n] = page_get(page, REG_TMR + n);
		l->irr[n] = page_get(page, REG_IRR + n);
	}
	l->isr[0] &= 0xffff0000;
	l->irr[0] &= 0xffff0000;
	l->tpr = page_get(page, REG_TPR) & 0xff;
	l->ldr = page_get(page, REG_LDR) & 0xff000000;
	l->dfr = page_get(page, REG_DFR) | 0x0fffffff;
	l->esr = page_get(page, REG_ESR);
	l->icr = page_get(page, REG_ICR);
	l->icr_dest = lapic_x2(l) ? page_get(page, REG_ICR_HIGH) : page_get(page, REG_ICR_HIGH) >> 24;
	__atomic_store_n(&l->svr, page_get(page, REG_SVR) & 0x3ff, __ATOMIC_RELAXED);
	lvt_write(l, LVT_CMCI, page_get(page, REG_LVT_CMCI));
	for (unsigned n = LVT_TIMER; n < LVTS; n++)
		lvt_write(l, (int)n, page_get(page, REG_LVT + n - LVT_TIMER));
	l->timer_init = page_get(page, REG_TIMER_INIT);
	l->timer_div = page_get(page, REG_TIMER_DIV) & 0xb;
	l->due = 0;
	left = page_get(page, REG_TIMER_NOW);
	if (!left && timer_mode(l) == TIMER_PERIODIC)
		left = l->timer_init;
	if (timer_mode(l) != TIMER_DEADLINE && left)
		l->due = l->bus->now(l->bus->self) + timer_span(l, left);
}
