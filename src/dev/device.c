#include "dev/device.h"

#include "base/alloc.h"
#include "snap/snap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct device *device_new(const struct device_class *cls, const char *name, const struct conf *node,
			  const struct dev_env *env, struct err *e)
{
	struct device *d = xcalloc(1, cls->size);

	d->cls = cls;
	d->env = env;
	d->conf = node;
	snprintf(d->name, sizeof(d->name), "%s", name);
	lock_init(&d->lock, RANK_DEVICE, d->name);
	list_init(&d->link);
	if (cls->props && prop_parse(cls->props, node, d, e) < 0) {
		device_free(d);
		return NULL;
	}
	return d;
}

int device_realize(struct device *d, struct err *e)
{
	int rc = d->cls->realize ? d->cls->realize(d, e) : 0;

	d->realized = true; /* also after a failure: unrealize undoes a half-done realize */
	return rc;
}

void device_reset(struct device *d, enum reset_kind k)
{
	lock_take(&d->lock);
	if (d->cls->reset)
		d->cls->reset(d, k);
	lock_drop(&d->lock);
}

void device_pause(struct device *d)
{
	if (d->cls->pause)
		d->cls->pause(d);
}

void device_resume(struct device *d)
{
	if (d->cls->resume)
		d->cls->resume(d);
}

int device_visit(struct device *d, struct snap *s, struct err *e)
{
	int rc = 0;

	lock_take(&d->lock);
	snap_open(s, d->name, 1);
	if (d->cls->visit)
		d->cls->visit(d, s);
	snap_close(s);
	rc = snap_error(s, e);
	if (!rc && snap_loading(s) && d->cls->restored)
		rc = d->cls->restored(d, e);
	lock_drop(&d->lock);
	return rc;
}

void device_free(struct device *d)
{
	if (!d)
		return;
	if (d->realized && d->cls->unrealize)
		d->cls->unrealize(d);
	list_remove(&d->link);
	if (d->cls->props)
		prop_free(d->cls->props, d);
	lock_destroy(&d->lock);
	free(d);
}

void device_stat(struct device *d, const char *name, const uint64_t *value)
{
	for (int i = 0; i < DEV_STATS; i++)
		if (!d->stats[i].name) {
			d->stats[i] = (struct dev_stat){ name, value };
			return;
		}
}

void device_event(struct device *d, const char *name, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	if (!d->env->event)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	d->env->event(d->env->host, name, text);
}
