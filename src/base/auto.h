/* Clean-up at the end of the scope. A pointer or fd that is handed on is first set to NULL or -1 (auto_steal). */
#ifndef BASE_AUTO_H
#define BASE_AUTO_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void auto_free(void *p)
{
	free(*(void **)p);
}

static inline void auto_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void auto_fclose(FILE **f)
{
	if (*f)
		fclose(*f);
}

#define AUTO_FREE __attribute__((cleanup(auto_free)))
#define AUTO_FD __attribute__((cleanup(auto_close)))
#define AUTO_FILE __attribute__((cleanup(auto_fclose)))

static inline int auto_steal_fd(int *fd)
{
	int v = *fd;

	*fd = -1;
	return v;
}

#define auto_steal(p)                       \
	({                                  \
		__typeof__(p) steal_ = (p); \
		(p) = NULL;                 \
		steal_;                     \
	})

#endif
