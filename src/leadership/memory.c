/*
 * memory.c - what a data directory remembers of its store, <data>/store-memory.
 *
 * A text record (fmt/text.h), replaced as a whole.  It holds the verdict of the probe, so that
 * a restart in an outage works; the highest counters seen, so that a store that was set back
 * to an older copy is noticed; the term last asked for; and a place in the chain up to which
 * everything was read and accepted, so that the next start need not read it again.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "env/file.h"
#include "fmt/text.h"
#include "leadership/leadership_int.h"

#define FORMAT 2 /* 1 had no incarnation */
#define FILE_MAX 4096
#define NAME "store-memory"

#define LINE(form, name, member) TEXT_LINE(name, TEXT_##form, struct memory, member)
static const struct text_line memory_lines[] = {
    LINE(ID, "incarnation", incarnation),
    LINE(SENTENCE, "url", url),
    LINE(NUMBER, "probed", probed),
    LINE(ID, "cluster", cluster_id),
    LINE(ID, "lineage", lineage),
    LINE(NUMBER, "lock-counter", lock_counter),
    LINE(NUMBER, "manifest-counter", manifest_counter),
    LINE(NUMBER, "term", term),
    LINE(NUMBER, "led-term", led_term),
    LINE(NUMBER, "rule", rule),
    LINE(NUMBER, "joining", joining),
    LINE(NUMBER, "taken-ours", taken.was_ours),
    LINE(NUMBER, "taken-released", taken.released),
    LINE(NUMBER, "taken-released-index", taken.released_index),
    LINE(NUMBER, "taken-rule", taken.rule),
    LINE(NUMBER, "next-slot", place.next_slot),
    LINE(NUMBER, "chain-term", place.term),
    LINE(NUMBER, "last-index", place.last_index),
    LINE(DIGEST, "hash", place.hash),
};
#define N_LINES (sizeof memory_lines / sizeof memory_lines[0])

static bool
parse(struct t4_slice text, struct memory *m)
{
    struct text_reader r;
    unsigned format;
    size_t first;

    if (!text_open(&r, text, "t4-store-memory", &format) || format == 0 ||
        format > FORMAT)
        return false;
    first = format < 2 ? 1 : 0; /* no incarnation */
    text_read_lines(&r, memory_lines + first, N_LINES - first, m);
    return text_close(&r);
}

/* NOTFOUND, without words: there is none. */
static t4_status
read_file(struct env *env, const char *data_dir, struct memory *m, struct error *error)
{
    char *path = env_path(data_dir, NAME), text[FILE_MAX];
    struct env_file *file = NULL;
    size_t got = 0;
    t4_status status = env->open(env->state, path, ENV_READONLY, &file, NULL);

    if (status == T4_OK) {
        status = env->pread(env->state, file, text, sizeof text, 0, &got, error);
        env->close(env->state, file);
        if (status == T4_OK && !parse(slice_of(text, got), m)) {
            status = error_set(error, T4_E_CORRUPT, "the file %s is damaged", path);
            error_hint(error,
                       "delete it: it is made anew from the store, but a store that "
                       "was set back to an older copy is not noticed then");
        }
    } else if (status != T4_E_NOTFOUND) {
        error_set(error, status, "cannot open %s: %s", path, status_text(status));
    }
    mem_free(path);
    return status;
}

t4_status
memory_read(struct leadership *l, struct error *error)
{
    t4_status status = read_file(l->options.env, l->data_dir, &l->memory, error);

    l->stored = l->memory;
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

t4_status
leadership_recall(struct env *env, const char *data_dir,
                  struct leadership_recollection *out, struct error *error)
{
    struct memory m = {0};
    t4_status status = read_file(env, data_dir, &m, error);

    *out = (struct leadership_recollection){0};
    if (status != T4_OK)
        return status == T4_E_NOTFOUND ? T4_OK : status;
    out->built_in = strcmp(m.url, BUILT_IN_URL) == 0;
    /* See finish() in upload.c and look_at_past() in built_in.c. */
    out->all_in_store = out->built_in && m.lock_counter > 0 && m.led_term == 0;
    out->rule = m.rule;
    out->lock_counter = m.lock_counter;
    out->manifest_counter = m.manifest_counter;
    memcpy(out->url, m.url, sizeof out->url);
    return T4_OK;
}

static void
memory_text(void *arg, const struct env_stat *st, struct buffer *text)
{
    const struct memory *m = arg;

    (void)st;
    text_begin(text, "t4-store-memory", FORMAT);
    text_lines(text, memory_lines, N_LINES, m);
    text_end(text);
}

t4_status
memory_write(struct leadership *l, struct error *error)
{
    struct env *env = l->options.env;
    t4_status status =
        env_replace_file(env, l->data_dir, NAME, memory_text, &l->memory, error);

    if (status == T4_OK) {
        l->stored = l->memory;
        atomic_store(&l->remembered, l->memory.place.last_index);
    }
    l->stored_ns = env->boot_ns(env->state);
    return status;
}
