/*
 * store.c - a store under check, and calls to it.
 *
 * Calls go straight into the plugin's table, not through src/object, which would mend some
 * of what is looked for here.  Every message that comes back is searched for the values of
 * the plugin's secret settings.
 *
 * Entry points: world_open(), world_put(), world_get() and the like; check_object_store().  Runs on: the
 * thread of the check; the calls also on the threads of races.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "check/check_int.h"

#define TIMEOUT_NS (60 * NS_PER_S)

uint64_t
check_now_ns(void)
{
    struct env *env = env_posix();

    return env->boot_ns(env->state);
}

/* --- open and close ----------------------------------------------------------------- */

bool
world_open(struct world *w, struct check *c, const char *url)
{
    const struct check_options *o = c->options;
    const struct object_options options = {.env = o->env,
                                           .plugin_dir = o->plugin_dir,
                                           .settings = o->settings,
                                           .n_settings = o->n_settings};
    struct error error = {0};
    uint8_t id[8];
    size_t n;

    memset(w, 0, sizeof *w);
    w->check = c;
    w->url = url;
    o->env->random(o->env->state, id, sizeof id);
    n = (size_t)snprintf(w->prefix, sizeof w->prefix, "t4-check-");
    for (size_t i = 0; i < sizeof id; i++)
        n += (size_t)snprintf(w->prefix + n, sizeof w->prefix - n, "%02x", id[i]);
    snprintf(w->prefix + n, sizeof w->prefix - n, "/");
    if (!check_ok(c, object_open(url, &options, &w->store, &error) == T4_OK, "%s opens",
                  url)) {
        check_note(c, "%s", error.message);
        check_note(c, "%s", error.hint);
        return false;
    }
    w->ops = object_table(w->store, &w->handle);
    return true;
}

void
world_close(struct world *w)
{
    size_t left = object_close(w->store);

    check_ok(w->check, left == 0, "%s closes, all memory of host->alloc() given back",
             w->url);
    if (left > 0)
        check_note(w->check, "%zu allocations are left", left);
    w->store = NULL;
}

/* --- calls -------------------------------------------------------------------------- */

void
check_answer_free(struct answer *a)
{
    buffer_free(&a->body);
}

struct t4_call
check_call(struct answer *a, uint64_t deadline_ns, const int32_t *cancelled)
{
    memset(&a->error, 0, sizeof a->error);
    memset(&a->info, 0, sizeof a->info);
    a->info.size = sizeof a->info;
    return (struct t4_call){
        .error = &a->error, .deadline_ns = deadline_ns, .cancelled = cancelled};
}

static struct t4_call
call_of(struct answer *a)
{
    return check_call(a, check_now_ns() + TIMEOUT_NS, NULL);
}

struct t4_slice
world_key(const struct world *w, uint8_t buffer[CHECK_KEY_MAX], struct t4_slice name)
{
    size_t n = strlen(w->prefix), rest = CHECK_KEY_MAX - n;

    memcpy(buffer, w->prefix, n);
    if (rest > name.len)
        rest = name.len;
    if (rest > 0)
        memcpy(buffer + n, name.data, rest);
    return slice_of(buffer, n + rest);
}

t4_status
world_put_if(struct world *w, struct answer *a, const char *name, struct t4_slice body,
             uint32_t condition, struct t4_slice tag)
{
    uint8_t buffer[CHECK_KEY_MAX];
    char own_tag[T4_TAG_MAX]; /* `tag` may lie in *a */
    struct t4_put request = {.size = sizeof request,
                             .condition = condition,
                             .key = world_key(w, buffer, slice_str(name)),
                             .body = body};
    struct t4_call call;

    if (tag.len > 0)
        memcpy(own_tag, tag.data, tag.len);
    request.if_match = slice_of(own_tag, tag.len);
    call = call_of(a);
    return a->status = w->ops->put(w->handle, &call, &request, &a->info);
}

t4_status
world_put(struct world *w, struct answer *a, const char *name, const char *body)
{
    return world_put_if(w, a, name, slice_str(body), T4_PUT_ANY, slice_of(NULL, 0));
}

t4_status
world_create(struct world *w, struct answer *a, const char *name, const char *body)
{
    return world_put_if(w, a, name, slice_str(body), T4_PUT_IF_ABSENT, slice_of(NULL, 0));
}

t4_status
world_replace(struct world *w, struct answer *a, const char *name, const char *body,
              const struct t4_object_info *tag_of)
{
    return world_put_if(w, a, name, slice_str(body), T4_PUT_IF_MATCH,
                        slice_of(tag_of->tag, tag_of->tag_length));
}

static t4_status
collect(void *arg, struct t4_slice part)
{
    buffer_append_slice(arg, part);
    return T4_OK;
}

t4_status
world_get_range(struct world *w, struct answer *a, const char *name, uint64_t offset,
                uint64_t length)
{
    struct t4_call call = call_of(a);
    uint8_t buffer[CHECK_KEY_MAX];

    buffer_clear(&a->body);
    return a->status =
               w->ops->get(w->handle, &call, world_key(w, buffer, slice_str(name)),
                           offset, length, collect, &a->body, &a->info);
}

t4_status
world_get(struct world *w, struct answer *a, const char *name)
{
    return world_get_range(w, a, name, 0, T4_TO_THE_END);
}

t4_status
world_head(struct world *w, struct answer *a, const char *name)
{
    struct t4_call call = call_of(a);
    uint8_t buffer[CHECK_KEY_MAX];

    return a->status = w->ops->head(w->handle, &call,
                                    world_key(w, buffer, slice_str(name)), &a->info);
}

t4_status
world_remove_one(struct world *w, struct answer *a, const char *name)
{
    struct t4_call call = call_of(a);
    uint8_t buffer[CHECK_KEY_MAX];
    struct t4_slice key = world_key(w, buffer, slice_str(name));

    return a->status = w->ops->remove(w->handle, &call, &key, 1);
}

struct names {
    size_t prefix_length, n;
    struct buffer *out;
};

static t4_status
note_name(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct names *names = arg;

    (void)info;
    if (key.len < names->prefix_length)
        return T4_E_CORRUPT;
    buffer_append(names->out, key.data + names->prefix_length,
                  key.len - names->prefix_length);
    buffer_append_u8(names->out, '\n');
    names->n++;
    return T4_OK;
}

t4_status
world_list_names(struct world *w, struct answer *a, const char *prefix, const char *after,
                 uint32_t max, struct buffer *out, size_t *n)
{
    struct names names = {.prefix_length = strlen(w->prefix), .out = out};
    uint8_t prefix_buffer[CHECK_KEY_MAX], after_buffer[CHECK_KEY_MAX];
    struct t4_call call = call_of(a);
    struct t4_slice behind = slice_of(NULL, 0);

    buffer_clear(out);
    if (after != NULL)
        behind = world_key(w, after_buffer, slice_str(after));
    a->status =
        w->ops->list(w->handle, &call, world_key(w, prefix_buffer, slice_str(prefix)),
                     behind, max, note_name, &names);
    *n = names.n;
    return a->status;
}

/* --- what they gave ----------------------------------------------------------------- */

/* A secret setting's value must not come back in a message. */
static bool
tells_a_secret(const struct world *w, const struct error *error)
{
    const struct check_options *o = w->check->options;
    struct plugin *p;

    for (size_t layer = 0; (p = object_plugin(w->store, layer)) != NULL; layer++) {
        const struct t4_plugin *d = plugin_descriptor(p);
        size_t n = strlen(d->name);

        for (size_t i = 0; i < o->n_settings; i++) {
            const struct plugin_setting *s = &o->settings[i];

            if (strncmp(s->name, d->name, n) != 0 || s->name[n] != '.' ||
                strlen(s->value) < 6)
                continue;
            for (size_t k = 0; k < d->n_options; k++)
                if ((d->options[k].flags & T4_OPTION_SECRET) &&
                    strcmp(d->options[k].name, s->name + n + 1) == 0 &&
                    (strstr(error->message, s->value) || strstr(error->hint, s->value)))
                    return true;
        }
    }
    return false;
}

bool
world_answer(struct world *w, const struct answer *a, t4_status status,
             const char *format, ...)
{
    char text[512];
    va_list args;
    bool good;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (tells_a_secret(w, &a->error))
        return check_ok(w->check, false, "%s: a message contains a secret", text);
    good = check_ok(w->check, a->status == status, "%s", text);
    if (!good)
        check_note(w->check, "status: %s (%d), expected: %s; %s; %s",
                   status_text(a->status), a->status, status_text(status),
                   a->error.message, a->error.hint);
    return good;
}

bool
world_body(struct world *w, const char *name, const char *body, const char *what)
{
    struct answer a = {0};
    bool good;

    world_get(w, &a, name);
    good = a.status == T4_OK && slice_equal(buffer_slice(&a.body), slice_str(body));
    check_ok(w->check, good, "%s", what);
    if (!good)
        check_note(w->check, "status: %s; %s; body: \"%.*s\", expected \"%s\"",
                   status_text(a.status), a.error.message,
                   (int)(a.body.len < 100 ? a.body.len : 100), (const char *)a.body.data,
                   body);
    check_answer_free(&a);
    return good;
}

bool
check_same_tag(const struct t4_object_info *a, const struct t4_object_info *b)
{
    return a->tag_length == b->tag_length && memcmp(a->tag, b->tag, a->tag_length) == 0;
}

/* --- all of a store ----------------------------------------------------------------- */

struct keys {
    struct buffer bytes; /* counted keys */
    size_t n;
};

static t4_status
note_key(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct keys *k = arg;

    (void)info;
    if (key.len == 0 || key.len > CHECK_KEY_MAX)
        return T4_E_CORRUPT;
    buffer_append_varint(&k->bytes, key.len);
    buffer_append_slice(&k->bytes, key);
    k->n++;
    return T4_OK;
}

/* Stops when a round leaves the first key where it was. */
bool
world_clear(struct world *w)
{
    struct t4_slice prefix = slice_str(w->prefix);
    uint8_t first[CHECK_KEY_MAX];
    size_t found = 1, first_length = 0;
    t4_status st = T4_OK;

    while (st == T4_OK && found > 0) {
        struct keys keys = {0};
        struct byte_reader r;
        struct t4_slice *list;
        struct answer a = {0};
        struct t4_call call = call_of(&a);

        st = w->ops->list(w->handle, &call, prefix, slice_of(NULL, 0), 500, note_key,
                          &keys);
        found = keys.n;
        list = mem_alloc((found + 1) * sizeof *list);
        r = reader_of(buffer_slice(&keys.bytes));
        for (size_t i = 0; i < found; i++)
            list[i] = reader_counted(&r);
        if (st == T4_OK && found > 0 && first_length > 0 &&
            slice_equal(list[0], slice_of(first, first_length)))
            st =
                error_set(&a.error, T4_E_CORRUPT, "an object that was removed is listed");
        if (st == T4_OK && found > 0) {
            first_length = list[0].len;
            memcpy(first, list[0].data, first_length);
            call = call_of(&a);
            st = w->ops->remove(w->handle, &call, list, found);
        }
        if (st != T4_OK)
            check_note(w->check, "cannot clear %s: %s; %s", w->prefix, status_text(st),
                       a.error.message);
        mem_free(list);
        buffer_free(&keys.bytes);
    }
    return st == T4_OK;
}

static void
check_probe(struct world *w)
{
    struct error error = {0};
    t4_status st = object_probe(w->store, slice_str(w->prefix), &error);

    if (!check_ok(w->check, st == T4_OK, "the start-up probe accepts the store"))
        check_note(w->check, "%s; %s", error.message, error.hint);
}

/* Settings that no plugin of the chain takes are mistakes of who writes the command. */
static void
check_settings(struct world *w)
{
    const struct check_options *o = w->check->options;

    for (size_t i = 0; i < o->n_settings; i++) {
        size_t n = strcspn(o->settings[i].name, ".");
        struct plugin *p;
        bool used = false;

        for (size_t k = 0; (p = object_plugin(w->store, k)) != NULL; k++) {
            const char *name = plugin_descriptor(p)->name;

            used |= strlen(name) == n && strncmp(name, o->settings[i].name, n) == 0;
        }
        if (!used)
            check_ok(w->check, false, "setting %s belongs to a plugin of the URL",
                     o->settings[i].name);
    }
}

bool
check_object_store(const char *url, const struct check_options *options)
{
    struct check c = {.options = options};
    struct plugin *p;
    struct world w;

    if (!world_open(&w, &c, url))
        return check_done(&c);
    check_settings(&w);
    for (size_t i = 0; (p = object_plugin(w.store, i)) != NULL; i++)
        check_descriptor(&c, p);
    check_probe(&w);
    check_objects(&w);
    check_keys(&w);
    check_listing(&w);
    check_races(&w);
    check_limits(&w);
    check_ok(&c, world_clear(&w), "what the check wrote can be removed");
    world_close(&w);
    check_answers(&c, url);
    check_cycles(&c, url);
    return check_done(&c);
}
