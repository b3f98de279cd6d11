/*
 * x86.strictio: an access to a port that nothing serves ends the VM with bhyve's text (bhyve.md 5.3). The access is
 * noted while it is made; the text comes when the vCPU has left the engine, since its RIP can be asked for only then.
 */
#include "vm/vm_int.h"

#include <inttypes.h>

enum { STATUS_ABORT = 134 };

void vcpu_unhandled(struct vcpu *v, uint16_t port, unsigned size, bool write)
{
	if (v->unhandled.size)
		return;
	v->unhandled.port = port;
	v->unhandled.size = (uint8_t)size;
	v->unhandled.write = write;
	v->vm->ops->kick(v->ev);
}

static bool is_prefix(uint8_t b)
{
	return b == 0x66 || b == 0x67 || b == 0xf2 || b == 0xf3;
}

/* RIP stands behind IN and OUT: E4 to E7 with a port byte, EC to EF; and INS, OUTS (6C to 6F) when they are done. */
static uint64_t instruction_start(struct vcpu *v, const struct x86_state *s)
{
	uint8_t b[4] = { 0 }; /* b[0] is the last byte before RIP */
	unsigned len = 0;

	for (unsigned i = 0; i < sizeof(b); i++)
		if (!vcpu_code_read(v, s, s->rip - 1 - i, &b[i], 1))
			break;
	if ((b[1] & 0xfc) == 0xe4 && b[0] == v->unhandled.port)
		len = 2;
	else if ((b[0] & 0xfc) == 0xec || (b[0] & 0xfc) == 0x6c)
		len = 1;
	while (len && len < sizeof(b) && is_prefix(b[len]))
		len++;
	return s->rip - len;
}

void vcpu_unhandled_end(struct vcpu *v)
{
	struct x86_state s = { 0 };
	uint64_t rip = 0;

	if (!v->unhandled.size)
		return;
	if (v->vm->ops->get(v->ev, X86_REGS | X86_SREGS, &s) == 0)
		rip = instruction_start(v, &s);
	vm_finish(v->vm, END_ERROR, STATUS_ABORT, "Unhandled %s%c 0x%04x at 0x%" PRIx64,
		  v->unhandled.write ? "out" : "in", " bw l"[v->unhandled.size], v -> unhandled.port, rip);
}
