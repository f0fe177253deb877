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

static bool
parse(struct t4_slice text, struct memory *m)
{
    struct text_reader r;
    unsigned format;

    if (!text_open(&r, text, "t4-store-memory", &format) || format == 0 ||
        format > FORMAT)
        return false;
    if (format >= 2)
        m->incarnation = text_read_hex(&r, "incarnation");
    text_read_string(&r, "url", m->url, sizeof m->url);
    m->probed = text_read_u64(&r, "probed") != 0;
    m->cluster_id = text_read_hex(&r, "cluster");
    m->lineage = text_read_hex(&r, "lineage");
    m->lock_counter = text_read_u64(&r, "lock-counter");
    m->manifest_counter = text_read_u64(&r, "manifest-counter");
    m->term = text_read_u64(&r, "term");
    m->led_term = text_read_u64(&r, "led-term");
    m->rule = (uint32_t)text_read_u64(&r, "rule");
    m->joining = text_read_u64(&r, "joining") != 0;
    m->taken.was_ours = text_read_u64(&r, "taken-ours") != 0;
    m->taken.released = text_read_u64(&r, "taken-released") != 0;
    m->taken.released_index = text_read_u64(&r, "taken-released-index");
    m->taken.rule = (uint32_t)text_read_u64(&r, "taken-rule");
    m->place.next_slot = text_read_u64(&r, "next-slot");
    m->place.term = text_read_u64(&r, "chain-term");
    m->place.last_index = text_read_u64(&r, "last-index");
    text_read_bytes(&r, "hash", m->place.hash, HASH_BYTES);
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
    text_hex(text, "incarnation", m->incarnation);
    text_string(text, "url", m->url);
    text_u64(text, "probed", m->probed);
    text_hex(text, "cluster", m->cluster_id);
    text_hex(text, "lineage", m->lineage);
    text_u64(text, "lock-counter", m->lock_counter);
    text_u64(text, "manifest-counter", m->manifest_counter);
    text_u64(text, "term", m->term);
    text_u64(text, "led-term", m->led_term);
    text_u64(text, "rule", m->rule);
    text_u64(text, "joining", m->joining);
    text_u64(text, "taken-ours", m->taken.was_ours);
    text_u64(text, "taken-released", m->taken.released);
    text_u64(text, "taken-released-index", m->taken.released_index);
    text_u64(text, "taken-rule", m->taken.rule);
    text_u64(text, "next-slot", m->place.next_slot);
    text_u64(text, "chain-term", m->place.term);
    text_u64(text, "last-index", m->place.last_index);
    text_bytes(text, "hash", m->place.hash, HASH_BYTES);
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
