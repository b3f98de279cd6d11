/*
 * A kernel of a few lines that says on COM1 how it was started and what it was given: Multiboot 1, Multiboot 2 or PVH
 * by what its registers hold. Freestanding, 32-bit; protocols.py builds and runs it.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef MB1
__attribute__((section(".boot"), aligned(8), used)) static const u32 header1[] = { 0x1badb002, 3,
										   0u - (0x1badb002 + 3) };
#endif
#ifdef MB2
__attribute__((section(".boot"), aligned(8), used)) static const u32 header2[] = {
	0xe85250d6, 0, 24, 0u - (0xe85250d6 + 24), 0, 8,
};
#endif

void _start(void);
void kmain(u32 magic, u8 *info, u32 cs, u32 cr0, u32 flags);

#ifdef PVH
__asm__(".pushsection .note.Xen, \"a\", @note; .long 4, 4, 18; .asciz \"Xen\"; .long _start; .popsection");
#endif
__asm__(".globl _start; _start: movl $stack + 8192, %esp; pushfl; movl %cr0, %ecx; pushl %ecx; xorl %ecx, %ecx; movw "
	"%cs, %cx;"
	"pushl %ecx; pushl %ebx; pushl %eax; call kmain");
__attribute__((used)) static u8 stack[8192];

static inline void outb(u16 port, u8 val)
{
	__asm__ volatile("outb %0, %1" ::"a"(val), "Nd"(port));
}

static void put(const char *s)
{
	while (*s)
		outb(0x3f8, (u8)*s++);
}

static void hex(const char *name, u32 v)
{
	put(name);
	put("=");
	for (int i = 28; i >= 0; i -= 4)
		outb(0x3f8, (u8) "0123456789abcdef"[v >> i & 15]);
	put("\n");
}

static void text(const char *name, u32 at)
{
	put(name);
	put("=");
	put((const char *)at);
	put("\n");
}

static void bytes(const char *name, u32 from, u32 to)
{
	put(name);
	put("=");
	for (; from < to; from++)
		outb(0x3f8, *(u8 *)from);
	put("\n");
}

static void range(u64 at, u64 size, u32 type)
{
	hex("map.at", (u32)at);
	hex("map.kib", (u32)(size >> 10));
	hex("map.type", type);
}

static void multiboot1(u32 *i)
{
	text("cmdline", i[4]);
	hex("lower", i[1]);
	hex("upper", i[2]);
	for (u32 n = 0; n < i[5]; n++) {
		u32 *m = (u32 *)i[6] + n * 4;

		bytes("module", m[0], m[1]);
		text("module.cmdline", m[2]);
	}
	for (u32 at = i[12]; at < i[12] + i[11]; at += *(u32 *)at + 4)
		range(*(u64 *)(at + 4), *(u64 *)(at + 12), *(u32 *)(at + 20));
	text("loader", i[16]);
}

static void multiboot2(u32 *i)
{
	for (u8 *t = (u8 *)i + 8; *(u32 *)t; t += (((u32 *)t)[1] + 7) & ~7u) {
		u32 *w = (u32 *)t;

		switch (w[0]) {
		case 1:
			text("cmdline", (u32)&w[2]);
			break;
		case 2:
			text("loader", (u32)&w[2]);
			break;
		case 3:
			bytes("module", w[2], w[3]);
			text("module.cmdline", (u32)&w[4]);
			break;
		case 4:
			hex("lower", w[2]);
			hex("upper", w[3]);
			break;
		case 6:
			for (u8 *e = t + 16; e < t + w[1]; e += w[2])
				range(*(u64 *)e, *(u64 *)(e + 8), *(u32 *)(e + 16));
			break;
		case 15:
			bytes("rsdp", (u32)&w[2], (u32)&w[4]);
			break;
		}
	}
}

static void pvh(u32 *i)
{
	text("cmdline", i[6]);
	bytes("rsdp", i[8], i[8] + 8);
	for (u32 n = 0; n < i[3]; n++) {
		u32 *m = (u32 *)i[4] + n * 8;

		bytes("module", m[0], m[0] + m[2]);
		text("module.cmdline", m[4]);
	}
	for (u32 n = 0; n < i[12]; n++) {
		u8 *e = (u8 *)i[10] + n * 24;

		range(*(u64 *)e, *(u64 *)(e + 8), *(u32 *)(e + 16));
	}
}

void kmain(u32 magic, u8 *info, u32 cs, u32 cr0, u32 flags)
{
	hex("cs", cs);
	hex("cr0", cr0 & 0x80000001);
	hex("if", flags & 0x200);
	if (magic == 0x2badb002) {
		put("protocol=multiboot1\n");
		multiboot1((u32 *)info);
	} else if (magic == 0x36d76289) {
		put("protocol=multiboot2\n");
		multiboot2((u32 *)info);
	} else if (*(u32 *)info == 0x336ec578) {
		put("protocol=pvh\n");
		pvh((u32 *)info);
	} else {
		put("protocol=unknown\n");
	}
	put("end\n");
	__asm__ volatile("outl %0, %1" ::"a"(0), "Nd"((u16)0xf4));
	for (;;)
		;
}
