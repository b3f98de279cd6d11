#include "x86/state.h"

#include <string.h>

static struct x86_segment segment(uint16_t sel, uint64_t base, uint32_t limit, uint16_t attr)
{
	return (struct x86_segment){ .sel = sel, .base = base, .limit = limit, .attr = attr };
}

/* SDM vol. 3, table 10-1. RDX holds a family 15 signature, as bhyve's vCPUs do. */
void x86_state_reset(struct x86_state *s, bool bsp)
{
	memset(s, 0, sizeof(*s));
	s->reg[RDX] = 0xf00;
	s->rip = 0xfff0;
	s->rflags = FL_1;
	for (unsigned n = 0; n < X86_SEGS; n++)
		s->seg[n] = segment(0, 0, 0xffff, ATTR_P | ATTR_S | 3);
	s->seg[SEG_CS] = segment(0xf000, 0xffff0000, 0xffff, ATTR_P | ATTR_S | 0xb);
	s->seg[SEG_LDTR] = segment(0, 0, 0xffff, ATTR_P | 2);
	s->seg[SEG_TR] = segment(0, 0, 0xffff, ATTR_P | 0xb);
	s->gdt.limit = s->idt.limit = 0xffff;
	s->cr0 = CR0_CD | CR0_NW | CR0_ET;
	s->apic_base = 0xfee00800 | (bsp ? 0x100 : 0);
	s->xcr0 = 1;
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;
	s->mp = bsp ? MP_RUNNABLE : MP_WAIT_SIPI;
	/* XSAVE image: FCW 40h, tags empty, MXCSR 1F80h; all components but these in their initial state. */
	s->xsave[0] = 0x40;
	s->xsave[24] = 0x80;
	s->xsave[25] = 0x1f;
	s->xsave[512] = 3;
}
