/*
 * One visitor for save and load: the owner of a state calls the same function for both, with names and limits.
 * The error is sticky, so visitors need no branches. In this version records live in memory (tests swap devices with
 * it); the file format comes with snapshots.
 */
#ifndef SNAP_SNAP_H
#define SNAP_SNAP_H

#include "base/err.h"

struct snap;
struct timer;

struct snap *snap_saver(void);
/* A loader over what a saver recorded; the saver keeps the data. */
struct snap *snap_loader(const struct snap *saved);
void snap_free(struct snap *s);
bool snap_loading(const struct snap *s);
int snap_error(const struct snap *s, struct err *e); /* 0 or the first error */
void snap_fail(struct snap *s, const char *fmt, ...) PRINTF(2, 3);

unsigned snap_open(struct snap *s, const char *name, unsigned version); /* the version found */
void snap_close(struct snap *s);
void snap_u8(struct snap *s, const char *key, uint8_t *v);
void snap_u16(struct snap *s, const char *key, uint16_t *v);
void snap_u32(struct snap *s, const char *key, uint32_t *v);
void snap_u64(struct snap *s, const char *key, uint64_t *v);
void snap_bool(struct snap *s, const char *key, bool *v);
/* A loaded value that is not below the limit stops the load. */
void snap_u8_below(struct snap *s, const char *key, uint8_t *v, uint8_t limit);
void snap_u16_below(struct snap *s, const char *key, uint16_t *v, uint16_t limit);
void snap_u32_below(struct snap *s, const char *key, uint32_t *v, uint32_t limit);
void snap_bytes(struct snap *s, const char *key, void *p, size_t n);
void snap_timer(struct snap *s, const char *key, struct timer *t); /* armed and deadline; load arms it again */

#endif
