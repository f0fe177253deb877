/*
 * store_state.c - the newest state that an object store holds, computed from its newest checkpoint
 * and the log behind it alone.
 *
 *   store_state URL [first]
 *
 * Prints "index N revision R checkpoint I", then a line for each live user key in order: key and
 * value in hexadecimal ("-" if empty), and the revision that wrote it.  With `first` the oldest
 * checkpoint of the manifest's list is begun with instead of the newest.  Status 1: it cannot be
 * read, or is not whole.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "checkpoint/checkpoint_int.h"
#include "env/env.h"
#include "fmt/entry.h"

struct item {
    struct buffer ikey, value;
    uint64_t stamp;
    bool tombstone;
};

struct state {
    struct item *item;
    size_t n, capacity;
    uint64_t index;
    int64_t revision;
};

static t4_status
fail(const struct error *e)
{
    fprintf(stderr, "store_state: %s (%s)\n", e->message, e->hint);
    exit(1);
}

static void
add(struct state *s, struct t4_slice ikey, const struct version *v, uint64_t stamp)
{
    struct item *i;

    if (s->n == s->capacity) {
        s->capacity = s->capacity * 2 + 1024;
        s->item = mem_realloc(s->item, s->capacity * sizeof *s->item);
    }
    i = &s->item[s->n++];
    *i = (struct item){.stamp = stamp, .tombstone = v->flags & VERSION_TOMBSTONE};
    buffer_append_slice(&i->ikey, ikey);
    buffer_append_slice(&i->value, v->value);
}

static int
compare(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int order = slice_compare(buffer_slice(&x->ikey), buffer_slice(&y->ikey));

    if (order != 0)
        return order;
    return x->stamp > y->stamp ? -1 : x->stamp < y->stamp;
}

static void
add_file(struct objectlog *log, const struct run_sst *file, struct state *s)
{
    struct buffer object = {0}, scratch = {0};
    struct t4_slice key, value, ikey;
    struct sst_cursor cursor;
    struct error error = {0};
    char name[SST_KEY_BYTES];
    struct sst *sst;
    t4_status status;

    sst_key(name, file->info.sha256, file->term, file->index);
    if (objectlog_fetch(log, name, SST_OBJECT_MAX, &object, &error) != T4_OK ||
        sst_check_object(buffer_slice(&object), &file->info, &error) != T4_OK ||
        sst_open(buffer_slice(&object), &sst, &error) != T4_OK ||
        sst_verify(sst, &error) != T4_OK)
        fail(&error);
    sst_cursor_init(&cursor, sst);
    while ((status = sst_cursor_next(&cursor, &key, &value, &error)) == T4_OK) {
        struct version v;
        uint64_t stamp;

        if (!record_verify(key, value) ||
            !record_key_decode(key, &scratch, &ikey, &stamp) ||
            !record_value_decode(value, &v)) {
            error_set(&error, T4_E_CORRUPT, "a record of %s is damaged", name);
            fail(&error);
        }
        add(s, ikey, &v, stamp);
    }
    if (status != T4_E_NOTFOUND)
        fail(&error);
    sst_cursor_free(&cursor);
    sst_close(sst);
    buffer_free(&object);
    buffer_free(&scratch);
}

static void
add_checkpoint(struct objectlog *log, const struct checkpoint_object *o, struct state *s)
{
    struct error error = {0};

    for (uint32_t i = 0; i < o->n_runs; i++) {
        struct run_index run;

        if (run_fetch(log, &o->run[i], &run, &error) != T4_OK)
            fail(&error);
        for (size_t k = 0; k < run.n; k++)
            add_file(log, &run.sst[k], s);
        run_index_free(&run);
    }
    s->index = o->index;
    s->revision = o->revision;
}

static t4_status
add_entry(void *arg, uint64_t index, struct t4_slice bytes, const struct segment *segment,
          struct error *error)
{
    struct state *s = arg;
    struct byte_reader r = reader_of(bytes);
    struct buffer ikey = {0};
    struct mutation m;
    struct entry e;
    uint32_t sub = 0;

    (void)segment;
    if (index != s->index + 1 || !entry_decode_head(&r, &e))
        return error_set(error, T4_E_CORRUPT, "entry %" PRIu64 " comes behind %" PRIu64,
                         index, s->index);
    for (uint32_t i = 0; i < e.mutations && entry_next(&r, &m); i++) {
        struct version v;

        mutation_version(&e, &m, &sub, &ikey, &v);
        add(s, buffer_slice(&ikey), &v, v.stamp);
    }
    buffer_free(&ikey);
    s->index = index;
    s->revision = e.revision;
    return T4_OK;
}

static void
print_hex(struct t4_slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++)
        printf("%02x", bytes.data[i]);
    if (bytes.len == 0)
        putchar('-');
}

static void
print(struct state *s, uint64_t checkpoint)
{
    printf("index %" PRIu64 " revision %" PRId64 " checkpoint %" PRIu64 "\n", s->index,
           s->revision, checkpoint);
    if (s->n > 0)
        qsort(s->item, s->n, sizeof *s->item, compare);
    for (size_t i = 0; i < s->n; i++) {
        struct item *m = &s->item[i];

        if ((i > 0 && slice_equal(buffer_slice(&m->ikey), buffer_slice(&m[-1].ikey))) ||
            m->tombstone || m->ikey.data[0] != SPACE_KEYS)
            continue;
        print_hex(slice_of(m->ikey.data + 1, m->ikey.len - 1));
        putchar(' ');
        print_hex(buffer_slice(&m->value));
        printf(" %" PRIu64 "\n", m->stamp);
    }
    for (size_t i = 0; i < s->n; i++) {
        buffer_free(&s->item[i].ikey);
        buffer_free(&s->item[i].value);
    }
    mem_free(s->item);
}

int
main(int argc, char **argv)
{
    struct object_options options = {.env = env_posix(),
                                     .plugin_dir = getenv("T4_PLUGIN_DIR")};
    struct objectlog_options log_options = {
        .env = env_posix(), .address = "", .timeout_ns = 20 * SECOND};
    const struct manifest_object *m;
    struct checkpoint_object o = {0};
    struct objectlog_tail tail;
    enum objectlog_found found;
    struct state state = {.revision = 1};
    struct objectlog *log;
    struct error error = {0};

    if (argc < 2) {
        fputs("usage: store_state URL [first]\n", stderr);
        return 2;
    }
    if (object_open(argv[1], &options, &log_options.store, &error) != T4_OK ||
        objectlog_open(&log_options, &log, &found, &error) != T4_OK)
        fail(&error);
    m = objectlog_manifest(log);
    if (m->n_checkpoints > 0) {
        uint32_t which = argc > 2 ? m->n_checkpoints - 1 : 0;

        if (objectlog_fetch_checkpoint(log, &m->checkpoint[which], &o, &error) != T4_OK)
            fail(&error);
        add_checkpoint(log, &o, &state);
        objectlog_begin_at(log, &o.place);
    }
    if (objectlog_read(log, add_entry, &state, &tail, &error) != T4_OK)
        fail(&error);
    print(&state, o.index);
    objectlog_close(log);
    object_close(log_options.store);
    return 0;
}
