/*
 * Bit tests, scans, counts, BMI, CRC32, carry chains of ADX. Undefined flags come from the host's own instruction; of
 * BT and its family they stay as they are (the manual leaves them undefined, processors do not touch them).
 */
#include "engine/soft/exec_table.h"
#include "engine/soft/host_op.h"
#include "engine/soft/opnd.h"

/* ------ BT, BTS, BTR, BTC ------ */
enum bit_op { BIT_TEST, BIT_SET, BIT_CLEAR, BIT_FLIP };

struct bit_arg {
	uint64_t mask;
	enum bit_op op;
};

static ALWAYS_INLINE uint64_t modify_bit(void *self, uint64_t old)
{
	struct bit_arg *a = self;

	return a->op == BIT_SET ? old | a->mask : a->op == BIT_CLEAR ? old & ~a->mask : old ^ a->mask;
}

/* A bit offset in a register reaches beyond the operand: the signed number of operands goes to the address. */
static uint64_t bit_lin(struct cpu *c, const struct insn *i, uint64_t offset, unsigned size, bool write)
{
	uint64_t ea = insn_ea(c, i);

	if (i->opnd[1].kind == OPND_REG)
		ea += (uint64_t)((size_sext(offset, size) >> (3 + size_log2(size))) * (int64_t)size);
	return seg_lin(c, i->seg, size_trunc(ea, i->addrsize), size, write);
}

static ALWAYS_INLINE void bit_do(struct cpu *c, const struct insn *i, enum bit_op op)
{
	unsigned size = i->opnd[0].size;
	uint64_t offset = opnd_get(c, i, 1), old;
	struct bit_arg a = { .mask = 1ull << (offset & (8 * size - 1)), .op = op };

	if (!opnd_is_mem(i, 0)) {
		old = op == BIT_TEST ? opnd_get(c, i, 0) : opnd_modify(c, i, 0, modify_bit, &a);
	} else {
		uint64_t lin = bit_lin(c, i, offset, size, op != BIT_TEST);

		if (op == BIT_TEST)
			old = ld_size(c, lin, size);
		else if (i->flags & INSN_LOCK)
			old = mem_modify_locked(c, lin, size, modify_bit, &a);
		else
			old = mem_modify(c, lin, size, modify_bit, &a);
	}
	cpu_set_flags(c, old & a.mask ? FL_CF : 0, FL_CF);
}

void op_bt(struct cpu *c, const struct insn *i)
{
	bit_do(c, i, BIT_TEST);
}

void op_bts(struct cpu *c, const struct insn *i)
{
	bit_do(c, i, BIT_SET);
}

void op_btr(struct cpu *c, const struct insn *i)
{
	bit_do(c, i, BIT_CLEAR);
}

void op_btc(struct cpu *c, const struct insn *i)
{
	bit_do(c, i, BIT_FLIP);
}

/* ------ scans and counts: destination, source; flags from the host ------ */
#define HOST_SCAN(insn, mod) \
	asm(HOST_FLAGS_IN insn " %" mod "[s], %" mod "[d]" HOST_FLAGS_OUT : "+a"(ax), [d] "+r"(d) : [s] "r"(s) : "cc")
#define SCAN(name)                                                            \
	static uint64_t host_##name(struct cpu *c, uint64_t s, unsigned size) \
	{                                                                     \
		uint16_t ax = host_ax(cc_flags(c));                           \
		uint64_t d = 0;                                               \
                                                                              \
		switch (size) {                                               \
		case 2:                                                       \
			HOST_SCAN(#name "w", "w");                            \
			break;                                                \
		case 4:                                                       \
			HOST_SCAN(#name "l", "k");                            \
			break;                                                \
		default:                                                      \
			HOST_SCAN(#name "q", "q");                            \
			break;                                                \
		}                                                             \
		cc_set_flags(c, host_fl(ax));                                 \
		return d;                                                     \
	}
SCAN(bsf)
SCAN(bsr)
SCAN(tzcnt)
SCAN(lzcnt)
SCAN(popcnt)

/* Of zero there is no bit: the destination stays as it is, its upper half too. */
void op_bsf(struct cpu *c, const struct insn *i)
{
	uint64_t s = opnd_get(c, i, 1), d = host_bsf(c, s, i->opsize);

	if (s)
		opnd_set(c, i, 0, d);
}

void op_bsr(struct cpu *c, const struct insn *i)
{
	uint64_t s = opnd_get(c, i, 1), d = host_bsr(c, s, i->opsize);

	if (s)
		opnd_set(c, i, 0, d);
}

void op_tzcnt(struct cpu *c, const struct insn *i)
{
	opnd_set(c, i, 0, host_tzcnt(c, opnd_get(c, i, 1), i->opsize));
}

void op_lzcnt(struct cpu *c, const struct insn *i)
{
	opnd_set(c, i, 0, host_lzcnt(c, opnd_get(c, i, 1), i->opsize));
}

void op_popcnt(struct cpu *c, const struct insn *i)
{
	opnd_set(c, i, 0, host_popcnt(c, opnd_get(c, i, 1), i->opsize));
}

/* ------ BMI: operands as in the table, destination first; 4 or 8 bytes ------ */
static void vex_need(struct cpu *c)
{
	if (!(c->mode & (MODE_PROT | MODE_64))) /* no VEX in real and virtual-8086 mode */
		cpu_ud(c);
}

#define HOST_BMI(text, mod) asm(text(mod) HOST_FLAGS_OUT : "=&a"(ax), [d] "=&r"(d) : [x] "r"(x), [y] "r"(y) : "cc")
#define BMI(name, text, n)                                  \
	void op_##name(struct cpu *c, const struct insn *i) \
	{                                                   \
		uint64_t x, y, d;                           \
		uint16_t ax;                                \
                                                            \
		vex_need(c);                                \
		x = opnd_get(c, i, 1);                      \
		y = (n) == 3 ? opnd_get(c, i, 2) : 0;       \
		if (i->opnd[0].size == 8)                   \
			HOST_BMI(text, "q");                \
		else                                        \
			HOST_BMI(text, "k");                \
		opnd_set(c, i, 0, d);                       \
		cc_set_flags(c, host_fl(ax));               \
	}
#define TEXT_ANDN(m) "andn %" m "[y], %" m "[x], %" m "[d]"
#define TEXT_BZHI(m) "bzhi %" m "[y], %" m "[x], %" m "[d]"
#define TEXT_BEXTR(m) "bextr %" m "[y], %" m "[x], %" m "[d]"
#define TEXT_BLSR(m) "blsr %" m "[x], %" m "[d]"
#define TEXT_BLSMSK(m) "blsmsk %" m "[x], %" m "[d]"
#define TEXT_BLSI(m) "blsi %" m "[x], %" m "[d]"
BMI(andn, TEXT_ANDN, 3)
BMI(bextr, TEXT_BEXTR, 3)
BMI(blsr, TEXT_BLSR, 2)
BMI(blsmsk, TEXT_BLSMSK, 2)
BMI(blsi, TEXT_BLSI, 2)
BMI(bzhi, TEXT_BZHI, 3)

void op_pext(struct cpu *c, const struct insn *i)
{
	uint64_t x, y, d;

	vex_need(c);
	x = opnd_get(c, i, 1);
	y = opnd_get(c, i, 2);
	asm("pext %q[y], %q[x], %q[d]" : [d] "=r"(d) : [x] "r"(x), [y] "r"(y));
	opnd_set(c, i, 0, d);
}

void op_pdep(struct cpu *c, const struct insn *i)
{
	uint64_t x, y, d;

	vex_need(c);
	x = opnd_get(c, i, 1);
	y = opnd_get(c, i, 2);
	asm("pdep %q[y], %q[x], %q[d]" : [d] "=r"(d) : [x] "r"(x), [y] "r"(y));
	opnd_set(c, i, 0, d);
}

/* High half to the first operand, low half to the second: if they are one register the high half stays. */
void op_mulx(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;
	unsigned __int128 p;

	vex_need(c);
	p = (unsigned __int128)size_trunc(c->r[RDX], size) * opnd_get(c, i, 2);
	opnd_set(c, i, 1, size_trunc((uint64_t)p, size));
	opnd_set(c, i, 0, size_trunc((uint64_t)(p >> (8 * size)), size));
}

/* ------ CRC32 (polynomial 11EDC6F41h), ADCX, ADOX ------ */
void op_crc32(struct cpu *c, const struct insn *i)
{
	uint32_t crc = (uint32_t)c->r[i->reg];
	uint64_t v = opnd_get(c, i, 1);

	for (unsigned n = 0; n < i->opnd[1].size; n++, v >>= 8) {
		asm("crc32b %b[v], %[crc]" : [crc] "+r"(crc) : [v] "q"(v));
	}
	reg_set(c, i, i->reg, 4, crc);
}

static void add_chain(struct cpu *c, const struct insn *i, uint32_t flag)
{
	unsigned size = i->opnd[0].size;
	uint64_t sum = opnd_get(c, i, 1), a = opnd_get(c, i, 0), res;

	res = size_trunc(a + sum + !!(cc_flags(c) & flag), size);
	opnd_set(c, i, 0, res);
	cpu_set_flags(c, size_top((a & sum) | ((a | sum) & ~res), size) ? flag : 0, flag);
}

void op_adcx(struct cpu *c, const struct insn *i)
{
	add_chain(c, i, FL_CF);
}

void op_adox(struct cpu *c, const struct insn *i)
{
	add_chain(c, i, FL_OF);
}
