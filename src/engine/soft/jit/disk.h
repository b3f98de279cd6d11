/*
 * Translations that outlive the VM (engine.soft.cache_dir; doc/formats/translations.md). A block that was made is noted
 * as a record: the guest's bytes that it depends on, its host code, and what in it has to be mended when it lies
 * elsewhere. A block that is wanted is looked for among the records of the file and of this VM, by its mode, its offset
 * in the page and its first instructions; one whose bytes are those of the guest, all of them, is put into the arena.
 *
 * Kernels move: with address randomisation they lie elsewhere at each boot, and their code names its own addresses. So
 * a record of 64-bit kernel code may differ from what the guest has in 4-byte fields that look like addresses there
 * (disk_is_address), or that are relative; the code's copies of them, and of the block's own address, are mended.
 *
 * All of this belongs to who has jit.lock.
 */
#ifndef ENGINE_SOFT_JIT_DISK_H
#define ENGINE_SOFT_JIT_DISK_H

#include "engine/soft/code.h"
#include "engine/soft/jit/jit_int.h"

struct stat;

extern const char disk_magic[8];
enum { DISK_VERSION = 1, DISK_RUNS = 32, DISK_FIELDS = 250, DISK_BYTES = 3072 /* of guest code in a record */ };

/* ------ the file; little-endian, offsets in units of 8 bytes where they are 32 bits ------ */
struct disk_host { /* what has to be equal: build, processor, pieces of code that all blocks use */
	uint8_t build[32];
	uint32_t cpuid[12];
	uint64_t feats; /* of vec.h, as thunk_host_has() has them */
	uint64_t pieces;
	uint8_t fresh[8]; /* jit_flags_fresh */
};

struct disk_head {
	char magic[8];
	uint32_t version, turn; /* of the last VM that wrote */
	struct disk_host host;
	uint64_t index; /* byte offset; entries up to the end of the file */
	uint32_t entries, reserved;
	uint64_t index_sum, sum; /* of the index; of what precedes in the header */
};

struct disk_entry {
	uint64_t key, sum; /* sum: the record's */
	uint32_t at, size;
	uint32_t used; /* turn of the last VM that wanted it */
	uint32_t reserved;
};

/* Behind it, each aligned to 8 bytes: runs, fields, fixes, exits, sites, guest bytes (cross_bytes of the next page
 * behind those of the first run), hot code, cold code. */
struct disk_record {
	uint64_t sum; /* of all that follows, `size` bytes together */
	uint64_t key, variant;
	uint64_t lin; /* jpage.lin */
	uint32_t size, hot, cold, body;
	uint16_t off, live, insns, end;
	uint16_t runs, fields, fixes, exits, sites, bytes;
	uint8_t mode, saves, cross_bytes, cold_align;
	uint32_t reserved;
};

struct disk_run { /* of guest bytes in the page, whole instructions */
	uint16_t at, len;
};

enum disk_field_kind {
	FIELD_FREE, /* nothing depends on it */
	FIELD_ADDR, /* looks like an address, and has to */
	FIELD_RIP,  /* relative to RIP: where it leads has to look like an address */
	FIELD_FAR,  /* of a jump that leaves the page, and has to */
	FIELD_EXIT, /* the same; the exit of that number goes there */
};
struct disk_field {
	uint16_t at;  /* in the guest bytes */
	uint16_t end; /* of its instruction, in the page */
	uint8_t kind, exit;
};

enum { DISK_FIX_COLD = 0x80, DISK_CODE_COLD = 0x8000, DISK_NONE = 0xffff };
struct disk_fix {
	uint16_t at;   /* in the hot code, or in the cold one: DISK_FIX_COLD in the kind */
	uint8_t kind;  /* enum fix_kind */
	uint8_t field; /* 1 + number, or 0 */
};

struct disk_exit { /* struct jexit; DISK_CODE_COLD: in the cold code */
	uint16_t aim, stub;
	int32_t target;
	uint16_t off;
	uint8_t kind, reserved;
};

enum { DISK_SITE_INSN = 1, DISK_SITE_WRITE = 2, DISK_SITE_SAVED = 4, DISK_SITE_FPU = 8, DISK_SITE_BOTH = 16 };
struct disk_site { /* struct site; retry and next in the hot code */
	uint16_t cross, retry, next, off;
	uint16_t fip, span, first;
	uint8_t len, size, align, flags, vec, groups, group_writes;
	int8_t undo;
};

/* ------ in memory ------ */
/* Where the parts of a record are. */
struct disk_parts {
	struct disk_run *run;
	struct disk_field *field;
	struct disk_fix *fix;
	struct disk_exit *exit;
	struct disk_site *site;
	uint8_t *bytes, *hot, *cold;
	size_t size; /* of the record */
};

struct disk_known { /* a record that may be found */
	struct disk_entry e;
	uint32_t next;
	bool fresh; /* of this VM: e.at is in the spool */
};

struct disk_note_state { /* a block in translation */
	struct fixes fixes;
	uint32_t site, exit; /* its first ones */
	unsigned nrun;
	struct disk_run run[DISK_RUNS];
	bool lost;					     /* too much, or not what it was */
	uint64_t seen[JIT_PAGE / 64], starts[JIT_PAGE / 64]; /* starts: of instructions */
	uint8_t page[JIT_PAGE];				     /* bytes that were seen */
	uint8_t copy[JIT_PAGE];
};

struct disk_runs { /* of a block that exists; sum: of their bytes. Without any: not known */
	uint32_t first, n;
	uint64_t sum;
};
struct disk_pool { /* of the runs of a generation's blocks */
	struct disk_run *run;
	uint32_t n, max;
};

enum { DISK_HASH_BITS = 17, DISK_RECORD_MAX = 96 << 10, DISK_WINDOW = 16 << 10, DISK_WINDOWS = 64 };
struct disk {
	int dir, fd; /* fd -1: there is no file, or it is of no use */
	char *path;
	char name[32];
	uint64_t limit; /* bytes */
	struct disk_head head;
	uint32_t turn;		  /* of this VM: VMs count up, those that are started together have the same */
	struct disk_known *known; /* from 1 on; first those of the file, in its order */
	uint32_t nknown, maxknown;
	uint32_t hash[1 << DISK_HASH_BITS];
	uint8_t *windows;		  /* parts of the file as they were read, by where they begin */
	uint64_t window_at[DISK_WINDOWS]; /* ~0: none */
	uint8_t *record;		  /* one that is in two of them */
	uint8_t *spool;			  /* records of this VM */
	uint64_t spooled;		  /* atomic: bytes there */
	bool complained;
	bool failed; /* to save, the last time; of who saves */
	struct disk_keeper *keeper;
	struct disk_note_state note;
	struct disk_runs *runs; /* by block */
	struct disk_pool pool[JIT_GENS];
};

struct disk_view { /* what there is to save, as it was at one time */
	struct disk_known *known;
	uint32_t n;
	uint64_t spooled;
};

static inline uint64_t disk_mix(uint64_t h, uint64_t v)
{
	h = (h << 29 | h >> 35) ^ v;
	h *= 0x9e3779b97f4a7c15ull;
	return h ^ h >> 32;
}
uint64_t disk_sum(uint64_t seed, const void *bytes, size_t n);

static inline bool disk_is_address(uint32_t v)
{
	return v >= 0x80000000 && v < 0xf0000000;
}

/* ------ disk_find.c ------ */
/* What else than its bytes decides how a vCPU's code is translated. */
uint64_t disk_variant(const struct cpu *c);
/* By what a block is found; reads and marks bytes. */
uint64_t disk_key(const struct cpu *c, const struct code_source *s, unsigned off, unsigned mode, uint64_t lin);
/* How many bytes of the instruction's displacement, or immediate, are a field of 4 bytes, and where. */
bool disk_disp_field(const struct insn *i, unsigned *at);
bool disk_imm_field(const struct insn *i, unsigned *at);
/* May be found from now on. */
void disk_add(struct disk *d, const struct disk_entry *e, bool fresh);
/* Of those whose key may be that one the first; 0: none. disk.known[].next leads on. */
uint32_t disk_first(struct disk *d, uint64_t key);

/* ------ disk_load.c ------ */
void disk_parts(const struct disk_record *r, struct disk_parts *p);
/* The block, from a record; NULL: there is none that fits. There is room (jit_room). */
struct jblock *disk_load(struct cpu *c, struct jpage *p, unsigned off, unsigned mode);
/* The same for a page that may not be there yet, of which there is a reason to make it only if there is a record. */
struct jblock *disk_load_kept(struct cpu *c, const struct jpage *like, unsigned off, unsigned mode);

/* ------ disk_note.c: while a block is translated ------ */
struct fixes *disk_begin(struct jit *j); /* NULL: nobody notes */
void disk_source_add(struct jit *j, unsigned off, const struct insn *i);
void disk_source_add_of(struct jit *j, const struct jblock *b);
void disk_note_block(const struct xl *x, uint32_t cold);
/* Its runs are known, for blocks that look at it. sum: disk_sum() of their bytes, one after the other. */
void disk_runs_set(struct jit *j, const struct jblock *b, const struct disk_run *run, unsigned n, uint64_t sum);

/* It depends on that instruction, on all that b depends on; it has been made. */
static inline void disk_source(struct jit *j, unsigned off, const struct insn *i)
{
	if (UNLIKELY(j->disk != NULL))
		disk_source_add(j, off, i);
}

static inline void disk_source_of(struct jit *j, const struct jblock *b)
{
	if (UNLIKELY(j->disk != NULL))
		disk_source_add_of(j, b);
}

static inline void disk_note(const struct xl *x, struct jit *j, uint32_t cold)
{
	if (UNLIKELY(j->disk != NULL))
		disk_note_block(x, cold);
}

/* ------ disk_field.c ------ */
struct disk_field_list {
	const struct xl *x;
	const struct disk_note_state *t;
	unsigned n;
	bool bad;
	struct disk_field field[DISK_FIELDS];
	struct {
		uint8_t imm, disp; /* 1 + number, of the block's own */
	} of[BLOCK_INSNS];
};
/* Those of a block that is noted, for kernels, which move; others have none. cross: bytes in the next page. */
void disk_find_fields(struct disk_field_list *l, const struct xl *x, const struct disk_note_state *t, unsigned cross);

/* ------ disk_file.c ------ */
/* The record, whose sum is right; stays until the next call. NULL: it cannot be had. */
const struct disk_record *disk_record(struct disk *d, const struct disk_known *k);
/* Opens the file of this host and build, if there is one. Error: it must not be trusted. */
int disk_file_open(struct disk *d, const struct disk_host *host, struct err *e);
/* The file as it is now; -ENOENT: there is none. */
int disk_file_now(struct disk *d, struct stat *st, struct err *e);
/* Header and index of a file; NULL: it is wrong, *why: in which way. */
struct disk_entry *disk_index(int fd, uint64_t size, const struct disk_host *host, struct disk_head *h,
			      const char **why);
uint64_t disk_head_sum(const struct disk_head *h);
/* All n bytes at `at`, or false. */
bool disk_read(int fd, void *to, size_t n, uint64_t at);
/* It is what the index says, and its sum is right. */
bool disk_intact(const struct disk_record *r, const struct disk_entry *k);

/* ------ disk_save.c; one thread at a time, without jit.lock ------ */
/* Writes it, and what others have written, to the file that the next VM opens. Failure is said once; 0 or -errno. */
int disk_save(struct disk *d, const struct disk_view *v);

/* ------ disk_keep.c ------ */
/* Saves from time to time; after: seconds until the first time, 0: never. */
int disk_keeper_start(struct jit *j, unsigned after, struct err *e);
/* Ends that, and saves what is new; no vCPU runs. */
void disk_keeper_end(struct jit *j);
/* lock. There is something new. */
void disk_keeper_wake(struct disk_keeper *k);

#endif
