/* A few threads for calls that block. They start with the first job. */
#include "loop/loop_int.h"

#include "base/alloc.h"

#include <stdlib.h>

enum { POOL_THREADS = 4 };

struct pool {
	pthread_mutex_t mutex;
	pthread_cond_t more;
	struct list queue; /* of struct task */
	pthread_t thread[POOL_THREADS];
	unsigned started, idle;
	bool stop;
};

struct task {
	struct list link;
	struct loop *loop;
	struct job *blocking, *done;
};

static void *pool_thread(void *arg)
{
	struct pool *p = arg;

	pthread_mutex_lock(&p->mutex);
	for (;;) {
		struct task *t;

		while (list_empty(&p->queue) && !p->stop) {
			p->idle++;
			pthread_cond_wait(&p->more, &p->mutex);
			p->idle--;
		}
		if (list_empty(&p->queue))
			break;
		t = list_entry(p->queue.next, struct task, link);
		list_remove(&t->link);
		pthread_mutex_unlock(&p->mutex);
		t->blocking->fn(t->blocking);
		if (t->done)
			loop_post(t->loop, t->done);
		free(t);
		pthread_mutex_lock(&p->mutex);
	}
	pthread_mutex_unlock(&p->mutex);
	return NULL;
}

static struct pool *pool_of(struct loop *l)
{
	struct pool *p;

	lock_take(&l->lock);
	if (!l->pool) {
		p = l->pool = xcalloc(1, sizeof(*p));
		pthread_mutex_init(&p->mutex, NULL);
		pthread_cond_init(&p->more, NULL);
		list_init(&p->queue);
	}
	p = l->pool;
	lock_drop(&l->lock);
	return p;
}

void work_submit(struct loop *l, struct job *blocking, struct job *done)
{
	struct pool *p = pool_of(l);
	struct task *t = xcalloc(1, sizeof(*t));

	*t = (struct task){ .loop = l, .blocking = blocking, .done = done };
	pthread_mutex_lock(&p->mutex);
	list_append(&p->queue, &t->link);
	if (!p->idle && p->started < POOL_THREADS && !thread_start(&p->thread[p->started], "work", pool_thread, p))
		p->started++;
	pthread_cond_signal(&p->more);
	pthread_mutex_unlock(&p->mutex);
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->mutex);
	p->stop = true;
	pthread_cond_broadcast(&p->more);
	pthread_mutex_unlock(&p->mutex);
	for (unsigned i = 0; i < p->started; i++)
		pthread_join(p->thread[i], NULL);
	pthread_mutex_destroy(&p->mutex);
	pthread_cond_destroy(&p->more);
	free(p);
}
