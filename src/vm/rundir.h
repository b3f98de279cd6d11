/*
 * The run directory of a VM: BASE/NAME with a lock file and the control socket. It exists as long as the process; what
 * a killed process left behind is taken over by the next start of that name.
 */
#ifndef VM_RUNDIR_H
#define VM_RUNDIR_H

#include "conf/conf.h"

#include <sys/types.h>
#include <sys/un.h>

struct rundir;

/* BASE by key rundir, else /run/lhyve for root, else $XDG_RUNTIME_DIR/lhyve or /tmp/lhyve-UID. The caller frees it. */
char *rundir_base(const char *key_value);
bool rundir_name_ok(const char *name);

/* Makes and locks BASE/NAME. -EBUSY: a VM of that name runs. */
struct rundir *rundir_open(const char *base, const char *name, struct err *e);
void rundir_close(struct rundir *r); /* removes it */
const char *rundir_path(const struct rundir *r);
int rundir_fd(const struct rundir *r);

/* For clients: who holds the lock. 0 and *pid (0: unknown), -ENOENT: no such directory, -ESRCH: left by a dead process.
 */
int rundir_owner(const char *base, const char *name, pid_t *pid);
/* Removes what a dead process left; as rundir_owner, -EBUSY if it lives. */
int rundir_clean(const char *base, const char *name);

/* An address for FILE in the directory fd that fits sun_path whatever the length of the path. */
void rundir_address(struct sockaddr_un *sa, int dir_fd, const char *file);

#endif
