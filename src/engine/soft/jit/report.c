/* What check mode says of a difference: states, memory, guest and host code. */
#include "engine/soft/jit/check.h"

#include "base/log.h"
#include "engine/soft/thunk.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const reg_names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					   "r8",  "r9",	 "r10", "r11", "r12", "r13", "r14", "r15" };

static void line(const char *name, uint64_t before, uint64_t jit, uint64_t interp, bool differs)
{
	log_err("%-6s %016" PRIx64 " %016" PRIx64 " %016" PRIx64 "%s", name, before, jit, interp,
		differs ? "  <-- differs" : "");
}

static void outcome(const char *who, const struct image *m)
{
	if (m->raised)
		log_err("%s: exception %u, error code %x, CR2 %" PRIx64 " at %" PRIx64, who, m->exc_vector,
			m->exc_has_error ? m->exc_error : 0, m->exc_vector == EXC_PF ? m->exc_cr2 : 0, m->rip);
	else
		log_err("%s: went to %" PRIx64 "%s", who, m->rip,
			m->stopped ? " (stopped before a device or code)" : "");
}

static void registers(const struct check *k)
{
	const struct image *b = &k->before, *t = &k->after[0], *s = &k->after[1];

	log_err("       before           translated       interpreted");
	for (unsigned n = 0; n < 16; n++)
		line(reg_names[n], b->r[n], t->r[n], s->r[n], t->r[n] != s->r[n]);
	line("rip", b->rip, t->rip, s->rip, t->rip != s->rip);
	line("rflags", b->fl | b->flags, t->fl | t->flags, s->fl | s->flags,
	     t->fl != s->fl || ((t->flags ^ s->flags) & k->mask));
	log_err("       flags compared: %04x; inverted before the translated run: %04x", k->mask, k->twisted);
	line("mxcsr", b->mxcsr, t->mxcsr, s->mxcsr, t->mxcsr != s->mxcsr);
}

static void bytes(const char *what, const uint8_t *p, unsigned n)
{
	char text[3 * XMM_BYTES + 1];

	for (unsigned i = 0; i < n; i++)
		snprintf(text + 3 * i, 4, "%02x ", p[i]);
	log_err("%s %s", what, text);
}

static void vectors(const struct check *k)
{
	const struct image *t = &k->after[0], *s = &k->after[1];

	if (!k->wide)
		return;
	for (unsigned n = 0; n < 32; n++) {
		if (!memcmp(t->vec[n], s->vec[n], sizeof(t->vec[n])))
			continue;
		log_err("zmm%u differs (lowest byte first)", n);
		bytes("  before     ", k->before.vec[n], XMM_BYTES);
		bytes("  translated ", t->vec[n], XMM_BYTES);
		bytes("  interpreted", s->vec[n], XMM_BYTES);
	}
	for (unsigned n = 0; n < FX_ST + 128; n += 16)
		if (memcmp(t->fx + n, s->fx + n, 16)) {
			log_err("x87 image differs at %u", n);
			bytes("  before     ", k->before.fx + n, 16);
			bytes("  translated ", t->fx + n, 16);
			bytes("  interpreted", s->fx + n, 16);
		}
}

static const uint8_t *page_of(const struct twin *t, const struct twin_page *p)
{
	for (unsigned n = 0; n < t->n; n++)
		if (t->page[n].host == p->host)
			return t->page[n].copy;
	return p->host;
}

/* Of the pages that one of the runs wrote; once: those of the other one that this one did not write. */
static void memory(const struct twin *a, const struct check *k, bool once)
{
	for (unsigned n = 0; n < a->n; n++) {
		const uint8_t *t = page_of(k->side[0], &a->page[n]), *s = page_of(k->side[1], &a->page[n]);

		if (once && t != a->page[n].host)
			continue;
		for (unsigned at = 0; at < JIT_PAGE; at += 16) {
			if (!memcmp(t + at, s + at, 16))
				continue;
			log_err("memory differs at physical %" PRIx64, a->page[n].at + at);
			bytes("  now        ", a->page[n].host + at, 16);
			bytes("  translated ", t + at, 16);
			bytes("  interpreted", s + at, 16);
		}
	}
}

static void put_line(void *unused, const char *text)
{
	log_err("%s", text);
}

static void code(const struct check *k, struct jit *j, const struct jblock *b)
{
	const struct note *t = &k->notes->blocks[jblock_n(j, b)];

	log_err("guest code:");
	for (uint32_t n = t->first; n < t->first + t->n; n++)
		jit_text(&k->notes->insns[n].i, k->lin + k->notes->insns[n].off, k->notes->insns[n].i.bytes, put_line,
			 NULL);
	log_err("host code (struct cpu in r15, its TLB in r14, guest RSP in r10):");
	jit_text_host(j, b->body, t->code_end, put_line, NULL);
}

void check_report(struct cpu *c, const struct check *k, const struct jblock *b)
{
	struct jit *j = jit_of(c);

	log_err("engine.soft.check: vCPU %u, block at %" PRIx64 ", mode %x, CPL %u, CR3 %" PRIx64 ", %u instructions",
		c->id, k->before.rip, b->mode, c->cpl, c->cr3, k->steps);
	outcome("translated ", &k->after[0]);
	outcome("interpreted", &k->after[1]);
	registers(k);
	vectors(k);
	memory(k->side[0], k, false);
	memory(k->side[1], k, true);
	code(k, j, b);
	if (own_of(c)->end.block != jblock_n(j, b)) { /* by a check of a group */
		log_err("it ended in another block:");
		code(k, j, jblock_at(j, own_of(c)->end.block));
	}
}
