/*
 * Configuration files (-k, bhyve.md 2.5): one key=value a line. Lines that are empty or start with # are skipped; all
 * behind the first = is the value. No blanks around it, no continuation, no quoting.
 */
#include "conf/file.h"

#include "base/auto.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int conf_item(struct conf *root, const char *item, struct err *e)
{
	const char *eq = strchr(item, '=');

	if (!eq || !eq[1])
		return err_set(e, -EINVAL, "expected key=value");
	AUTO_FREE char *key = strndup(item, (size_t)(eq - item));

	return key ? conf_set(root, key, eq + 1, e) : err_set(e, -ENOMEM, "no memory for a config key");
}

static int file_line(struct conf *root, const char *path, unsigned n, char *line, ssize_t len, struct err *e)
{
	struct err why = { 0 };

	if (len && line[len - 1] == '\n')
		line[--len] = '\0';
	if (!len || *line == '#')
		return 0;
	if (strlen(line) != (size_t)len)
		return err_set(e, -EINVAL, "%s line %u: a NUL byte in the text", path, n);
	if (conf_item(root, line, &why) < 0)
		return err_set(e, -EINVAL, "%s line %u: invalid config option '%.100s': %s", path, n, line, why.msg);
	return 0;
}

int conf_read_file(struct conf *root, const char *path, struct err *e)
{
	AUTO_FILE FILE *f = fopen(path, "re");
	AUTO_FREE char *line = NULL;
	size_t size = 0;
	ssize_t len;
	unsigned n = 0;

	if (!f)
		return err_sys(e, -errno, "Failed to open configuration file %s", path);
	errno = 0;
	while ((len = getline(&line, &size, f)) >= 0)
		if (file_line(root, path, ++n, line, len, e) < 0)
			return -EINVAL;
	if (ferror(f))
		return err_sys(e, errno ? -errno : -EIO, "Failed to read configuration file %s", path);
	return 0;
}

void conf_dump(const struct conf *node, FILE *out)
{
	for (const struct conf *c = conf_first(node); c; c = conf_next(c)) {
		if (conf_is_leaf(c))
			fprintf(out, "%s=%s\n", conf_path(c), conf_raw(c, ""));
		conf_dump(c, out);
	}
}
