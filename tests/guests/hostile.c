/*
 * A guest that means no good (a Multiboot kernel, 32 bits, no paging, interrupts off): random accesses to what BARs and
 * ISA ports reach, and virtqueues full of nonsense, on whatever engine runs it. It spares what would end or confuse
 * itself alone: reset and power ports, MSI-X tables (a random message may be an INIT), its own memory as a target.
 * seed=N on the command line. "survived" at COM1 and power-off mean that the machine was still there.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { STEPS = 600, ROUNDS = 10, DEVICES = 16, BARS = 6, COM1 = 0x3f8 };
enum { DESC = 0x800000, AVAIL = 0x810000, USED = 0x820000, SCRATCH = 0x900000, RAM_END = 0x4000000, SELF = 0x5a0000 };

__asm__(".section .head, \"ax\"\n .globl start\n"
	".long 0x1badb002, 0, -0x1badb002\n"
	"start: cli\n mov $stack_end, %esp\n push %ebx\n call main\n 1: hlt\n jmp 1b\n"
	".bss\n .align 16\n .skip 16384\n stack_end:\n .text\n");

static u32 seed = 1;

static u32 rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed;
}

static u32 below(u32 n)
{
	return (rnd() >> 4) % n;
}

/* Numbers that hurt: small, all ones, single bits, anything. */
static u32 value(void)
{
	u32 how = below(4);

	return how == 0 ? below(16) : how == 1 ? ~0u : how == 2 ? 1u << below(32) : rnd();
}

/* ------ ports, memory, configuration ------ */

static void out(u16 port, u32 val, u32 size)
{
	if (size == 1)
		__asm__ volatile("outb %b0, %1" ::"a"(val), "Nd"(port));
	else if (size == 2)
		__asm__ volatile("outw %w0, %1" ::"a"(val), "Nd"(port));
	else
		__asm__ volatile("outl %0, %1" ::"a"(val), "Nd"(port));
}

static u32 in(u16 port, u32 size)
{
	u32 val = 0;

	if (size == 1)
		__asm__ volatile("inb %1, %b0" : "+a"(val) : "Nd"(port));
	else if (size == 2)
		__asm__ volatile("inw %1, %w0" : "+a"(val) : "Nd"(port));
	else
		__asm__ volatile("inl %1, %0" : "+a"(val) : "Nd"(port));
	return val;
}

static void mem_out(u32 at, u32 val, u32 size)
{
	if (size == 1)
		*(volatile u8 *)at = (u8)val;
	else if (size == 2)
		*(volatile u16 *)at = (u16)val;
	else
		*(volatile u32 *)at = val;
}

static u32 mem_in(u32 at, u32 size)
{
	return size == 1 ? *(volatile u8 *)at : size == 2 ? *(volatile u16 *)at : *(volatile u32 *)at;
}

static u32 cfg_in(u32 slot, u32 off)
{
	out(0xcf8, 0x80000000 | slot << 11 | off, 4);
	return in(0xcfc, 4);
}

static void cfg_out(u32 slot, u32 off, u32 val)
{
	out(0xcf8, 0x80000000 | slot << 11 | off, 4);
	out(0xcfc, val, 4);
}

static void say(const char *s)
{
	for (; *s; s++) {
		while (!(in(COM1 + 5, 1) & 0x20))
			;
		out(COM1, (u8)*s, 1);
	}
}

/* ------ devices ------ */

struct bar {
	u32 at, size;
	u8 is_port;
};

static struct device {
	u32 slot;
	struct bar bar[BARS];
	u32 common, notify, notify_step; /* of virtio: addresses, 0: none */
} device[DEVICES];
static u32 ndevice;

static void bars_find(struct device *d)
{
	for (u32 n = 0; n < BARS; n++) {
		u32 off = 0x10 + 4 * n, was = cfg_in(d->slot, off), mask, wide = (was & 7) == 4;

		cfg_out(d->slot, off, ~0u);
		mask = cfg_in(d->slot, off);
		cfg_out(d->slot, off, was);
		if (!mask || (wide && cfg_in(d->slot, off + 4))) {
			n += wide;
			continue;
		}
		d->bar[n].is_port = was & 1;
		d->bar[n].at = was & (was & 1 ? 0xfffc : ~15u);
		d->bar[n].size = -(mask & (was & 1 ? ~3u : ~15u)) & (was & 1 ? 0xffff : ~0u);
		n += wide;
	}
}

static void caps_find(struct device *d)
{
	u32 msix = BARS;

	for (u32 at = cfg_in(d->slot, 0x34) & 0xfc, n = 0; at && n < 48; n++) {
		u32 head = cfg_in(d->slot, at), bir = cfg_in(d->slot, at + 4) & 0xff, off = cfg_in(d->slot, at + 8);

		if ((head & 0xff) == 0x11)
			msix = bir & 7;
		if ((head & 0xff) == 9 && bir < BARS && !d->bar[bir].is_port && d->bar[bir].at) {
			if (head >> 24 == 1)
				d->common = d->bar[bir].at + off;
			if (head >> 24 == 2) {
				d->notify = d->bar[bir].at + off;
				d->notify_step = cfg_in(d->slot, at + 16);
			}
		}
		at = head >> 8 & 0xfc;
	}
	if (msix < BARS)
		d->bar[msix].size = 0;
}

static void devices_find(void)
{
	for (u32 slot = 1; slot < 32 && ndevice < DEVICES; slot++) {
		struct device *d = &device[ndevice];

		if (cfg_in(slot, 0) == ~0u || cfg_in(slot, 8) >> 24 == 6)
			continue;
		d->slot = slot;
		cfg_out(slot, 4, 7);
		bars_find(d);
		caps_find(d);
		ndevice++;
	}
}

/* ------ registers ------ */

static void poke_bar(void)
{
	struct device *d = &device[below(ndevice)];
	struct bar *b = &d->bar[below(BARS)];
	u32 size = 1u << below(3), at;

	if (!b->size || !b->at)
		return;
	at = b->at + below(below(2) && b->size > 64 ? 64 : b->size);
	if (below(2))
		b->is_port ? (void)in((u16)at, size) : (void)mem_in(at, size);
	else if (b->is_port)
		out((u16)at, value(), size);
	else
		mem_out(at, value(), size);
}

static void poke_isa(void)
{
	static const struct {
		u16 at, count;
	} written[] = { { 0x20, 2 }, { 0xa0, 2 }, { 0x40, 4 },	{ 0x61, 1 },
			{ 0x70, 2 }, { 0x80, 1 }, { 0x2f8, 8 }, { 0x4d0, 2 } };
	u32 n = below(sizeof(written) / sizeof(written[0]));

	in((u16)rnd(), 1u << below(3));
	out(written[n].at + below(written[n].count), value(), 1);
	if (below(50) == 0) { /* memory that nobody has, between RAM and the devices */
		mem_out(0x80000000 + (rnd() & 0x1ffffff), value(), 4);
		mem_in(0x80000000 + (rnd() & 0x1ffffff), 4);
	}
}

/* ------ rings ------ */

static u64 address(void)
{
	u32 how = below(4);
	u64 at = how == 0   ? SCRATCH + below(0x100000)
		 : how == 1 ? RAM_END - below(4096)
		 : how == 2 ? (u64)value() << 32 | value()
			    : rnd() % RAM_END;

	return at >> 16 == SELF >> 16 || at >> 16 == (SELF >> 16) - 1 ? SCRATCH : at;
}

static void rings_fill(u32 size)
{
	for (u32 n = 0; n < size; n++) {
		volatile u32 *d = (volatile u32 *)(DESC + 16 * n);
		u64 at = address();

		d[0] = (u32)at;
		d[1] = (u32)(at >> 32);
		d[2] = below(2) ? below(5000) : below(0x10000); /* from address() it does not reach this program */
		d[3] = below(8) | (below(8) ? below(size) : value()) << 16;
		((volatile u16 *)(AVAIL + 4))[n] = (u16)(below(8) ? below(size) : value());
	}
}

static void rings(struct device *d)
{
	u32 c = d->common, queue = below(4), size;

	mem_out(c + 20, 0, 1);
	mem_out(c + 20, 1, 1);
	mem_out(c + 20, 3, 1);
	mem_out(c + 8, 0, 4); /* features: those offered, or anything */
	mem_out(c, 0, 4);
	mem_out(c + 12, below(2) ? mem_in(c + 4, 4) : value(), 4);
	mem_out(c + 8, 1, 4);
	mem_out(c + 12, 1, 4);
	mem_out(c + 20, 11, 1);
	mem_out(c + 22, queue, 2);
	size = mem_in(c + 24, 2);
	if (!size || size > 1024)
		return;
	rings_fill(size);
	for (u32 n = 0; n < 3; n++) {
		mem_out(c + 32 + 8 * n, n == 0 ? DESC : n == 1 ? AVAIL : USED, 4);
		mem_out(c + 36 + 8 * n, 0, 4);
	}
	mem_out(c + 28, 1, 2);
	mem_out(c + 20, 15, 1);
	for (u32 n = 0; n < 20; n++) {
		*(volatile u16 *)(AVAIL + 2) += (u16)(below(4) ? below(size) : value());
		if (d->notify)
			mem_out(d->notify + mem_in(c + 30, 2) * d->notify_step, queue, 2);
		if (below(4) == 0)
			poke_bar();
	}
	mem_out(c + 20, 0, 1);
}

/* ------ main ------ */

void main(const u32 *info)
{
	const char *s = (info[0] & 4) ? (const char *)info[4] : "";
	u32 with_rings = 0;

	for (; *s; s++)
		if (s[0] == 's' && s[1] == 'e' && s[2] == 'e' && s[3] == 'd' && s[4] == '=')
			for (s += 5, seed = 0; *s >= '0' && *s <= '9'; s++)
				seed = seed * 10 + (u32)(*s - '0');
	seed = seed * 2654435761u | 1;
	devices_find();
	for (u32 round = 0; round < ROUNDS && ndevice; round++) {
		for (u32 n = 0; n < STEPS; n++)
			below(4) ? poke_bar() : poke_isa();
		for (u32 n = 0; n < ndevice; n++)
			if (device[n].common) {
				rings(&device[n]);
				with_rings++;
			}
	}
	for (u32 n = 0; n < ndevice; n++) /* nothing may write to memory any more */
		cfg_out(device[n].slot, 4, 0);
	say(ndevice >= 3 && with_rings ? "survived\n" : "too few devices\n");
	out(0x404, 1 << 13 | 5 << 10, 2);
}
