/* What a vCPU looked like when it could not go on. */
#include "vm/vm_int.h"

#include "base/log.h"
#include "x86/paging.h"

#include <inttypes.h>
#include <stdio.h>

/* Page tables are read through the memory space; nothing is written back. */
static void *table_entry(void *self, gpa_t at, bool write)
{
	return aspace_host(self, at, 8, false, NULL);
}

bool vcpu_code_read(struct vcpu *v, const struct x86_state *s, uint64_t rip, void *buf, size_t n)
{
	struct paging p = { s->cr0, s->cr3, s->cr4, s->efer, vm_phys_bits(), true };
	struct page_tables t = { .entry = table_entry, .self = v->vm->pc->mem };
	struct page_walk w;

	if (!page_walk(&p, &t, s->seg[SEG_CS].base + rip, PAGE_FETCH | PAGE_PEEK, &w))
		return false;
	return aspace_read(v->vm->pc->mem, w.at, buf, n) == MEM_OK;
}

static void dump_code(struct vcpu *v, const struct x86_state *s)
{
	char text[3 * 16 + 1] = "";
	uint8_t bytes[16];

	if (!vcpu_code_read(v, s, s->rip, bytes, sizeof(bytes)))
		return;
	for (unsigned i = 0; i < sizeof(bytes); i++)
		snprintf(text + 3 * i, sizeof(text) - 3 * i, " %02x", bytes[i]);
	log_err("%s: code%s", v->name, text);
}

static void dump_segments(const struct vcpu *v, const struct x86_state *s)
{
	static const char *const names[X86_SEGS] = { "es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr" };

	for (unsigned i = 0; i < X86_SEGS; i++)
		log_err("%s: %-4s %04x base %016" PRIx64 " limit %08x attr %04x%s", v->name, names[i], s->seg[i].sel,
			s->seg[i].base, s->seg[i].limit, s->seg[i].attr, s->seg[i].unusable ? " unusable" : "");
}

void vcpu_dump(struct vcpu *v)
{
	static const char *const names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	struct x86_state s;

	if (v->vm->ops->get(v->ev, X86_REGS | X86_SREGS, &s) < 0)
		return;
	log_err("%s: rip %016" PRIx64 " rflags %08" PRIx64, v->name, s.rip, s.rflags);
	for (unsigned i = 0; i < 16; i += 4)
		log_err("%s: %-3s %016" PRIx64 " %-3s %016" PRIx64 " %-3s %016" PRIx64 " %-3s %016" PRIx64, v->name,
			names[i], s.reg[i], names[i + 1], s.reg[i + 1], names[i + 2], s.reg[i + 2], names[i + 3],
			s.reg[i + 3]);
	log_err("%s: cr0 %" PRIx64 " cr2 %" PRIx64 " cr3 %" PRIx64 " cr4 %" PRIx64 " efer %" PRIx64, v->name, s.cr0,
		s.cr2, s.cr3, s.cr4, s.efer);
	log_err("%s: gdt %016" PRIx64 " %04x idt %016" PRIx64 " %04x", v->name, s.gdt.base, s.gdt.limit, s.idt.base,
		s.idt.limit);
	dump_segments(v, &s);
	dump_code(v, &s);
}
