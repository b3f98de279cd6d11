/* The table of commands, and a request's way through it: JSON to arguments to a command to a reply. */
#include "ctl/ctl_int.h"

#include "base/alloc.h"
#include "base/auto.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

REG_DECLARE(ctl_cmd);

enum { COMMANDS_MAX = 128 };

const struct ctl_cmd *ctl_find(const char *name)
{
	REG_FOREACH (ctl_cmd, const struct ctl_cmd, c)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(const struct ctl_cmd *const *)a)->name, (*(const struct ctl_cmd *const *)b)->name);
}

void ctl_each(void (*fn)(void *self, const struct ctl_cmd *c), void *self)
{
	const struct ctl_cmd *all[COMMANDS_MAX];
	size_t n = 0;

	REG_FOREACH (ctl_cmd, const struct ctl_cmd, c)
		if (n < COMMANDS_MAX)
			all[n++] = c;
	qsort(all, n, sizeof(*all), by_name);
	for (size_t i = 0; i < n; i++)
		fn(self, all[i]);
}

static bool has_arg(const struct ctl_cmd *cmd, const char *name)
{
	for (const struct prop *p = cmd->args; p && p->name; p++)
		if (!strcmp(p->name, name))
			return true;
	return false;
}

/* The text that the tables parse. */
static char *arg_text(const json_t *v)
{
	if (json_is_string(v))
		return xstrdup(json_string_value(v));
	if (json_is_boolean(v))
		return xstrdup(json_is_true(v) ? "true" : "false");
	if (json_is_integer(v))
		return xasprintf("%lld", (long long)json_integer_value(v));
	return NULL;
}

static int args_tree(const struct ctl_cmd *cmd, json_t *args, struct conf *tree, struct err *e)
{
	const char *key;
	json_t *v;

	json_object_foreach (args, key, v) {
		AUTO_FREE char *text = arg_text(v);

		if (!has_arg(cmd, key))
			return err_set(e, -EINVAL, "%s: unknown argument '%s'", cmd->name, key);
		if (!text)
			return err_set(e, -EINVAL, "%s: argument '%s': expected a string, an integer or a boolean",
				       cmd->name, key);
		if (conf_set(tree, key, text, e) < 0)
			return -EINVAL;
	}
	return 0;
}

static int cmd_run(const struct ctl_cmd *cmd, struct ctl_call *call, json_t *args, json_t *result, struct err *e)
{
	struct conf *tree = conf_new();
	AUTO_FREE void *parsed = xcalloc(1, cmd->args_size ? cmd->args_size : 1);
	int r = args_tree(cmd, args, tree, e);

	if (!r)
		r = prop_parse(cmd->args, tree, parsed, e);
	if (!r) {
		r = cmd->run(call, parsed, result, e);
		prop_free(cmd->args, parsed);
	}
	conf_free(tree);
	return r;
}

static int request_run(struct ctl_call *call, json_t *req, json_t *result, struct err *e)
{
	const char *name = json_string_value(json_object_get(req, "cmd"));
	json_t *args = json_object_get(req, "args");
	const struct ctl_cmd *cmd;

	if (!json_is_object(req))
		return err_set(e, -EINVAL, "expected an object: {\"cmd\": \"status\"}");
	if (!name)
		return err_set(e, -EINVAL, "expected a string \"cmd\"; the command 'commands' lists them");
	cmd = ctl_find(name);
	if (!cmd)
		return err_set(e, -ENOENT, "unknown command '%.100s'; the command 'commands' lists them", name);
	if (args && !json_is_object(args))
		return err_set(e, -EINVAL, "%s: expected an object \"args\"", name);
	return cmd_run(cmd, call, args, result, e);
}

json_t *ctl_reply(json_t *id, json_t *result, const struct err *e)
{
	json_t *reply = json_object();

	if (id)
		json_object_set(reply, "id", id);
	json_object_set_new(reply, "ok", json_boolean(result));
	if (result) {
		json_object_set_new(reply, "result", result);
		return reply;
	}
	json_object_set_new(reply, "error", json_string(*e->msg ? e->msg : "failed"));
	json_object_set_new(reply, "errno", json_integer(-e->code));
	return reply;
}

json_t *ctl_error_reply(const char *text)
{
	return json_pack("{s:b, s:s}", "ok", 0, "error", text);
}

json_t *ctl_request(struct ctl_call *call, const char *line, size_t len)
{
	json_error_t why;
	struct err e = { 0 };
	json_t *req = json_loadb(line, len, JSON_REJECT_DUPLICATES, &why), *result, *reply;
	int r;

	if (!req) {
		err_set(&e, -EINVAL, "not a JSON line: %s", why.text);
		return ctl_error_reply(e.msg);
	}
	result = json_object();
	r = request_run(call, req, result, &e);
	if (call->later) {
		assert(r == 0);
		call->later->id = json_incref(json_object_get(req, "id"));
		json_decref(result);
		json_decref(req);
		return NULL;
	}
	if (r < 0) {
		e.code = r;
		json_decref(result);
		result = NULL;
	}
	reply = ctl_reply(json_object_get(req, "id"), result, &e);
	json_decref(req);
	return reply;
}
