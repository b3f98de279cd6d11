/*
 * String instructions: MOVS, CMPS, STOS, LODS, SCAS, INS, OUTS, alone and repeated (SDM vol. 1, section 7.3.9).
 *
 * A repeated one works in chunks: as many elements as lie in one page on each side, inside the segment limit and before
 * the index register wraps. A chunk runs on host pointers with the host's own string instruction, so its elements are
 * accessed in the order and with the overlaps of the guest's. What has no host pointer (a TLB miss, an element over two
 * pages, MMIO) goes element by element. Registers are exact after each chunk, so a fault leaves what the processor
 * would; flags are set at the end only (a faulting CMPS or SCAS keeps the old ones). Between chunks a waiting request
 * or an empty budget makes the instruction stop: RIP stays on it, and it goes on from its registers.
 *
 * A store may drop the decoded code of the instruction itself: what is needed of struct insn is copied first.
 */
#include "engine/soft/exec_table.h"
#include "engine/soft/opnd.h"
#include "engine/soft/sys.h"

/* Chunks from here on are worth the code-page protocol. */
enum { CHUNK_PAGE = 4096, CHUNK_LONG = 32 };

/* A string instruction under way. */
struct str {
	uint64_t count; /* elements left; 1 if not repeated */
	int64_t step;
	unsigned size, addrsize;
	uint8_t src_seg;
	bool rep, until_equal; /* REPNE: CMPS and SCAS end at a match, else at a difference */
};

/* One side at the moment. */
struct side {
	uint64_t lin; /* of the next element */
	uint64_t n;   /* elements that need no check of their own; 0: not even one lies in the page */
};

static ALWAYS_INLINE struct str str_begin(struct cpu *c, const struct insn *i)
{
	struct str s = { .size = i->opsize, .addrsize = i->addrsize, .src_seg = i->seg, .count = 1 };

	s.step = c->fl & FL_DF ? -(int64_t)s.size : (int64_t)s.size;
	s.rep = i->flags & (INSN_REP | INSN_REPNE);
	s.until_equal = i->flags & INSN_REPNE;
	if (s.rep) {
		s.count = size_trunc(c->r[RCX], s.addrsize);
		reg_set_wide(c, RCX, s.addrsize, s.count);
	}
	return s;
}

/* A repeated MOVS or STOS with 32-bit addresses clears the upper halves of its index registers first, even if the count
 * is zero; of the others only the counter's. */
static ALWAYS_INLINE void str_widen(struct cpu *c, const struct str *s, unsigned reg)
{
	if (s->rep)
		reg_set_wide(c, reg, s->addrsize, c->r[reg]);
}

/* How many elements from offset off on lie before the end of the offsets and of the segment; the first one was checked.
 */
static uint64_t span_room(const struct cpu *c, const struct str *s, const struct x86_segment *g, uint64_t off)
{
	bool checked = !(c->mode & (MODE_64 | MODE_FLAT)), expand_down = (g->attr & 0xc) == 4;
	uint64_t last = size_mask(s->addrsize);

	if (s->step < 0)
		return checked && expand_down ? 1 : off / s->size + 1;
	if (checked && !expand_down && g->limit < last)
		last = g->limit;
	return (last - off) / s->size + ((last - off) % s->size == s->size - 1u);
}

static ALWAYS_INLINE struct side str_side(struct cpu *c, const struct str *s, unsigned seg, unsigned reg, bool write)
{
	uint64_t off = size_trunc(c->r[reg], s->addrsize);
	struct side at = { .lin = seg_lin(c, seg, off, s->size, write) };
	uint64_t in_page = at.lin & (CHUNK_PAGE - 1), room;

	if (in_page > CHUNK_PAGE - s->size)
		return at;
	at.n = s->step < 0 ? in_page / s->size + 1 : (CHUNK_PAGE - in_page) / s->size;
	if (s->addrsize != 8) {
		room = span_room(c, s, &c->seg[seg], off);
		if (room < at.n)
			at.n = room;
	}
	return at;
}

static inline struct side str_src(struct cpu *c, const struct str *s)
{
	return str_side(c, s, s->src_seg, RSI, false);
}

static inline struct side str_dst(struct cpu *c, const struct str *s, bool write)
{
	return str_side(c, s, SEG_ES, RDI, write);
}

/* Faults as the read of the next element would. */
static inline void str_touch(struct cpu *c, const struct str *s, const struct side *at)
{
	if (UNLIKELY(!tlb_read(c, at->lin, s->size)))
		mmu_probe_r(c, at->lin, s->size);
}

static inline uint64_t str_chunk(const struct cpu *c, const struct str *s, uint64_t n)
{
	if (n > s->count)
		n = s->count;
	/* A trap may be due after each element, or a check of its alignment before. */
	return n && UNLIKELY((c->fl & FL_TF) || (c->dr7 & 0xff) || c->tlb == &tlb_strict) ? 1 : n;
}

/* Linear address of the lowest byte of a chunk. */
static inline uint64_t str_low(const struct str *s, uint64_t lin, uint64_t n)
{
	return s->step < 0 ? lin - (n - 1) * s->size : lin;
}

static ALWAYS_INLINE void str_advance(struct cpu *c, struct str *s, bool src, bool dst, uint64_t n)
{
	if (src)
		reg_set_wide(c, RSI, s->addrsize, c->r[RSI] + (uint64_t)(s->step * (int64_t)n));
	if (dst)
		reg_set_wide(c, RDI, s->addrsize, c->r[RDI] + (uint64_t)(s->step * (int64_t)n));
	s->count -= n;
	if (s->rep)
		reg_set_wide(c, RCX, s->addrsize, s->count);
}

/* After n elements: true if the instruction is done, or has to stop here and be executed again. */
static ALWAYS_INLINE bool str_ends(struct cpu *c, const struct str *s, uint64_t n)
{
	if (LIKELY(!s->count))
		return true;
	c->budget -= (int64_t)(n * s->size / 64 + 1);
	if (LIKELY(c->budget > 0 && !__atomic_load_n(&c->poll, __ATOMIC_RELAXED) && !c->leave && !(c->fl & FL_TF)))
		return false;
	c->rip_next = c->rip;
	c->leave = c->rep_stopped = true;
	return true;
}

/* ------ the host's string instructions; the direction flag is clear on entry and on return ------ */
#define HOST_REP(insn, ...) asm volatile("rep " insn:__VA_ARGS__ : "memory")
#define HOST_REP_BACK(insn, ...) asm volatile("std; rep " insn "; cld" : __VA_ARGS__ : "memory", "cc")

static void host_movs(void *dst, const void *src, uint64_t n, unsigned size)
{
	switch (size) {
	case 1:
		HOST_REP("movsb", "+D"(dst), "+S"(src), "+c"(n) :);
		break;
	case 2:
		HOST_REP("movsw", "+D"(dst), "+S"(src), "+c"(n) :);
		break;
	case 4:
		HOST_REP("movsl", "+D"(dst), "+S"(src), "+c"(n) :);
		break;
	default:
		HOST_REP("movsq", "+D"(dst), "+S"(src), "+c"(n) :);
		break;
	}
}

/* dst and src are those of the first, highest element. */
static void host_movs_back(void *dst, const void *src, uint64_t n, unsigned size)
{
	switch (size) {
	case 1:
		HOST_REP_BACK("movsb", "+D"(dst), "+S"(src), "+c"(n) :);
		break;
	case 2:
		HOST_REP_BACK("movsw", "+D"(dst), "+S"(src), "+c"(n) :);
		break;
	case 4:
		HOST_REP_BACK("movsl", "+D"(dst), "+S"(src), "+c"(n) :);
		break;
	default:
		HOST_REP_BACK("movsq", "+D"(dst), "+S"(src), "+c"(n) :);
		break;
	}
}

static void host_stos(void *dst, uint64_t v, uint64_t n, unsigned size)
{
	switch (size) {
	case 1:
		HOST_REP("stosb", "+D"(dst), "+c"(n) : "a"(v));
		break;
	case 2:
		HOST_REP("stosw", "+D"(dst), "+c"(n) : "a"(v));
		break;
	case 4:
		HOST_REP("stosl", "+D"(dst), "+c"(n) : "a"(v));
		break;
	default:
		HOST_REP("stosq", "+D"(dst), "+c"(n) : "a"(v));
		break;
	}
}

/* ------ MOVS ------ */
/* Moves a chunk of n elements, or gives false: there are no host pointers for it. */
static bool movs_chunk(struct cpu *c, const struct str *s, uint64_t src, uint64_t dst, uint64_t n)
{
	unsigned bytes = (unsigned)(n * s->size), last = bytes - s->size;
	uint64_t src_low = str_low(s, src, n), dst_low = str_low(s, dst, n);
	const uint8_t *from = tlb_read(c, src_low, bytes);
	uint8_t *to = tlb_write(c, dst_low, bytes);
	bool claimed = false;

	if (!from && bytes >= CHUNK_LONG && s->step > 0) {
		mmu_probe_r(c, src_low, bytes);
		from = tlb_read(c, src_low, bytes);
	}
	if (!from)
		return false;
	if (!to) {
		if (bytes < CHUNK_LONG || s->step < 0)
			return false;
		/* A miss, or a page with code: once for the chunk. It may take the TLB entry of from, which stays where
		 * it is. */
		to = mmu_rmw(c, dst_low, bytes);
		claimed = to != NULL;
	}
	if (to && from && s->step > 0)
		host_movs(to, from, n, s->size);
	else if (to && from)
		host_movs_back(to + last, from + last, n, s->size);
	if (claimed)
		mmu_rmw_done(c, dst_low, to, bytes);
	return to && from;
}

static void movs_one(struct cpu *c, struct str *s)
{
	uint64_t v = ld_size(c, str_src(c, s).lin, s->size);

	st_size(c, str_dst(c, s, true).lin, s->size, v);
	str_advance(c, s, true, true, 1);
}

void op_movs(struct cpu *c, const struct insn *i)
{
	struct str s = str_begin(c, i);
	uint64_t n;

	if (!s.rep) {
		movs_one(c, &s);
		return;
	}
	str_widen(c, &s, RSI);
	str_widen(c, &s, RDI);
	if (!s.count)
		return;
	do {
		struct side src = str_src(c, &s), dst;

		if (!(c->mode & (MODE_64 | MODE_FLAT)))
			str_touch(c, &s, &src); /* its page fault comes before the checks of ES */
		dst = str_dst(c, &s, true);
		n = str_chunk(c, &s, src.n < dst.n ? src.n : dst.n);
		if (n && movs_chunk(c, &s, src.lin, dst.lin, n)) {
			str_advance(c, &s, true, true, n);
		} else {
			movs_one(c, &s);
			n = 1;
		}
	} while (!str_ends(c, &s, n));
}

/* ------ STOS, LODS ------ */
static bool stos_chunk(struct cpu *c, const struct str *s, uint64_t dst, uint64_t n)
{
	unsigned bytes = (unsigned)(n * s->size);
	uint64_t low = str_low(s, dst, n);
	uint8_t *to = tlb_write(c, low, bytes);
	bool claimed = false;

	if (!to) {
		if (bytes < CHUNK_LONG || s->step < 0)
			return false;
		to = mmu_rmw(c, low, bytes);
		if (!to)
			return false;
		claimed = true;
	}
	host_stos(to, c->r[RAX], n, s->size); /* all elements are the same: the direction does not show */
	if (claimed)
		mmu_rmw_done(c, low, to, bytes);
	return true;
}

static void stos_one(struct cpu *c, struct str *s)
{
	st_size(c, str_dst(c, s, true).lin, s->size, c->r[RAX]);
	str_advance(c, s, false, true, 1);
}

void op_stos(struct cpu *c, const struct insn *i)
{
	struct str s = str_begin(c, i);
	uint64_t n;

	if (!s.rep) {
		stos_one(c, &s);
		return;
	}
	str_widen(c, &s, RDI);
	if (!s.count)
		return;
	do {
		struct side dst = str_dst(c, &s, true);

		n = str_chunk(c, &s, dst.n);
		if (n && stos_chunk(c, &s, dst.lin, n)) {
			str_advance(c, &s, false, true, n);
		} else {
			stos_one(c, &s);
			n = 1;
		}
	} while (!str_ends(c, &s, n));
}

void op_lods(struct cpu *c, const struct insn *i)
{
	struct str s = str_begin(c, i);

	if (!s.count)
		return;
	do {
		uint64_t v = ld_size(c, str_src(c, &s).lin, s.size);

		if (s.size == 1)
			*(uint8_t *)&c->r[RAX] = (uint8_t)v;
		else
			reg_set_wide(c, RAX, s.size, v);
		str_advance(c, &s, true, false, 1);
	} while (!str_ends(c, &s, 1));
}

/* ------ SCAS, CMPS ------ */
/* What the last comparison was; the flags are made of it at the end. */
struct compared {
	uint64_t a, b;
	uint64_t n; /* elements compared */
	bool stop;
};

static ALWAYS_INLINE struct compared compared_one(const struct str *s, uint64_t a, uint64_t b, uint64_t n)
{
	return (struct compared){ .a = a, .b = b, .n = n, .stop = s->rep && (a == b) == s->until_equal };
}

static ALWAYS_INLINE void compared_flags(struct cpu *c, const struct str *s, const struct compared *m)
{
	cc_set(c, CC(CC_SUB, size_log2(s->size)), m->a, m->b, size_trunc(m->a - m->b, s->size));
}

/* Compares up to n elements at p with a, in the direction of s. */
static struct compared scas_host(const struct str *s, uint64_t a, const uint8_t *p, uint64_t n)
{
	struct compared m = { 0 };

	if (s->size == 1 && s->step > 0 && s->until_equal) {
		const uint8_t *hit = memchr(p, (int)a, n);
		uint64_t last = hit ? (uint64_t)(hit - p) : n - 1;

		return compared_one(s, a, p[last], last + 1);
	}
	for (uint64_t k = 0; k < n && !m.stop; k++, p += s->step)
		m = compared_one(s, a, host_ld(p, s->size), k + 1);
	return m;
}

void op_scas(struct cpu *c, const struct insn *i)
{
	struct str s = str_begin(c, i);
	uint64_t a = size_trunc(c->r[RAX], s.size);
	struct compared m;

	if (!s.count)
		return;
	do {
		struct side dst = str_dst(c, &s, false);
		uint64_t n = str_chunk(c, &s, dst.n);
		const uint8_t *p = n ? tlb_read(c, str_low(&s, dst.lin, n), (unsigned)(n * s.size)) : NULL;

		if (p)
			m = scas_host(&s, a, s.step < 0 ? p + (n - 1) * s.size : p, n);
		else
			m = compared_one(&s, a, ld_size(c, dst.lin, s.size), 1);
		str_advance(c, &s, false, true, m.n);
	} while (!m.stop && !str_ends(c, &s, m.n));
	compared_flags(c, &s, &m);
}

/* Bytes that are equal from the start on, of at most len. */
static uint64_t equal_bytes(const uint8_t *a, const uint8_t *b, uint64_t len)
{
	uint64_t k = 0;

	while (k + 8 <= len && ld_le64(a + k) == ld_le64(b + k))
		k += 8;
	while (k < len && a[k] == b[k])
		k++;
	return k;
}

static struct compared cmps_host(const struct str *s, const uint8_t *a, const uint8_t *b, uint64_t n)
{
	struct compared m = { 0 };

	if (s->step > 0 && !s->until_equal) {
		uint64_t last = equal_bytes(a, b, n * s->size) / s->size;

		if (last == n)
			last--;
		a += last * s->size;
		b += last * s->size;
		return compared_one(s, host_ld(a, s->size), host_ld(b, s->size), last + 1);
	}
	for (uint64_t k = 0; k < n && !m.stop; k++, a += s->step, b += s->step)
		m = compared_one(s, host_ld(a, s->size), host_ld(b, s->size), k + 1);
	return m;
}

void op_cmps(struct cpu *c, const struct insn *i)
{
	struct str s = str_begin(c, i);
	struct compared m;

	if (!s.count)
		return;
	do {
		struct side dst = str_dst(c, &s, false), src;
		const uint8_t *a, *b;
		uint64_t n, last;

		str_touch(c, &s, &dst); /* the processor reads ES:DI first: its faults win */
		src = str_src(c, &s);
		n = str_chunk(c, &s, src.n < dst.n ? src.n : dst.n);
		last = (n - 1) * s.size;
		a = n ? tlb_read(c, str_low(&s, src.lin, n), (unsigned)(n * s.size)) : NULL;
		b = n ? tlb_read(c, str_low(&s, dst.lin, n), (unsigned)(n * s.size)) : NULL;
		if (a && b) {
			m = s.step < 0 ? cmps_host(&s, a + last, b + last, n) : cmps_host(&s, a, b, n);
		} else {
			uint64_t v = ld_size(c, src.lin, s.size);

			m = compared_one(&s, v, ld_size(c, dst.lin, s.size), 1);
		}
		str_advance(c, &s, true, true, m.n);
	} while (!m.stop && !str_ends(c, &s, m.n));
	compared_flags(c, &s, &m);
}

/* ------ INS, OUTS: one access of the port each; between two nothing of the TLB may be kept ------ */
void op_ins(struct cpu *c, const struct insn *i)
{
	struct str s = str_begin(c, i);
	uint16_t port = (uint16_t)c->r[RDX];

	sys_io_check(c, port, s.size);
	if (!s.count)
		return;
	do {
		uint64_t lin = str_dst(c, &s, true).lin;

		mmu_probe_w(c, lin, s.size); /* a fault must come before the device has given its data away */
		st_size(c, lin, s.size, sys_in(c, port, s.size));
		str_advance(c, &s, false, true, 1);
	} while (!str_ends(c, &s, 1));
}

void op_outs(struct cpu *c, const struct insn *i)
{
	struct str s = str_begin(c, i);
	uint16_t port = (uint16_t)c->r[RDX];

	sys_io_check(c, port, s.size);
	if (!s.count)
		return;
	do {
		sys_out(c, port, s.size, ld_size(c, str_src(c, &s).lin, s.size));
		str_advance(c, &s, true, false, 1);
	} while (!str_ends(c, &s, 1));
}
