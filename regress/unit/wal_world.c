/*
 * wal_world.c - a log together with what must be in it.  See wal_world.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "wal_world.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/memory.h"
#include "fmt/entry.h"

static void wrong(struct world *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void
wrong(struct world *w, const char *format, ...)
{
    va_list ap;

    if (w->why[0] != '\0')
        return;
    va_start(ap, format);
    vsnprintf(w->why, sizeof w->why, format, ap);
    va_end(ap);
}

void
world_init(struct world *w, struct simdisk *disk)
{
    *w = (struct world){.disk = disk};
    w->options = (struct wal_options){.env = simdisk_env(disk),
                                      .dir = WORLD_DIR,
                                      .cluster_id = 0x1122334455667788u,
                                      .lineage = 7,
                                      .segment_bytes = WORLD_SEGMENT};
}

void
world_free(struct world *w)
{
    wal_close(w->wal);
    for (size_t i = 0; i < w->count; i++)
        buffer_free(&w->entries[i]);
    mem_free(w->entries);
    simdisk_free(w->disk);
    *w = (struct world){0};
}

void
world_clone(struct world *to, const struct world *from, struct simdisk *disk)
{
    *to = *from;
    to->disk = disk;
    to->options.env = simdisk_env(disk);
    to->wal = NULL;
    to->entries = mem_zalloc((from->count + 1) * sizeof *to->entries);
    for (size_t i = 0; i < from->count; i++)
        buffer_append_slice(&to->entries[i], buffer_slice(&from->entries[i]));
}

int64_t
world_revision(uint64_t index)
{
    return (int64_t)(1 + index - index / 5); /* every fifth entry leaves it alone */
}

void
world_entry(struct buffer *out, uint64_t index, uint64_t unique, size_t bytes)
{
    struct entry e = {.index = index,
                      .term = 3,
                      .revision = world_revision(index),
                      .time_ms = 1700000000000u + index,
                      .kind = ENTRY_NORMAL,
                      .mutations = 1};
    struct mutation m = {.space = SPACE_KEYS, .key = slice_str("key")};
    uint8_t *value = mem_alloc(bytes);
    uint64_t state = unique * 0x9e3779b97f4a7c15u + 1;

    for (size_t i = 0; i < bytes; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        value[i] = (uint8_t)(state >> 56);
    }
    m.value = slice_of(value, bytes);
    m.create_revision = m.version = 1;
    entry_encode_head(out, &e);
    entry_add(out, &m);
    mem_free(value);
}

static void
forget_from(struct world *w, size_t count)
{
    while (w->count > count)
        buffer_free(&w->entries[--w->count]);
}

struct replay {
    struct world *w;
    uint64_t next;
};

static t4_status
compare(void *arg, uint64_t index, struct t4_slice entry, struct error *error)
{
    struct replay *r = arg;

    (void)error;
    if (index != r->next)
        wrong(r->w, "entry %llu came where %llu was expected", (unsigned long long)index,
              (unsigned long long)r->next);
    else if (index > r->w->count)
        wrong(r->w, "entry %llu was never written", (unsigned long long)index);
    else if (!slice_equal(entry, buffer_slice(&r->w->entries[index - 1])))
        wrong(r->w, "entry %llu has other bytes than were written",
              (unsigned long long)index);
    r->next = index + 1;
    return T4_OK;
}

t4_status
world_open(struct world *w, uint64_t flushed)
{
    struct replay r = {w, flushed + 1};
    t4_status status;

    wal_close(w->wal);
    w->wal = NULL;
    simdisk_phase(w->disk, "open");
    status =
        wal_open(&w->options, flushed, compare, &r, &w->wal, &w->recovered, &w->error);
    if (status == T4_E_IO)
        return status;
    if (status != T4_OK) {
        wrong(w, "the log does not open: %s", w->error.message);
        return status;
    }
    if (w->recovered.last_index < w->durable)
        wrong(w, "the log ends at %llu, but %llu was durable",
              (unsigned long long)w->recovered.last_index,
              (unsigned long long)w->durable);
    if (w->recovered.last_index > w->count)
        wrong(w, "the log ends at %llu, but only %zu were written",
              (unsigned long long)w->recovered.last_index, w->count);
    if (r.next != w->recovered.last_index + 1)
        wrong(w, "replay ended before %llu, the log at %llu", (unsigned long long)r.next,
              (unsigned long long)w->recovered.last_index);
    if (w->recovered.last_term < w->term || w->recovered.generation < w->generation)
        wrong(w, "term %llu, generation %llu are forgotten", (unsigned long long)w->term,
              (unsigned long long)w->generation);
    w->torn_boots += w->recovered.torn;
    if (w->why[0] != '\0')
        return T4_E_CORRUPT;
    /* From here on it counts as durable: opening syncs what it found. */
    forget_from(w, w->recovered.last_index);
    w->durable = w->recovered.last_index;
    return T4_OK;
}

t4_status
world_boot(struct world *w, uint64_t flushed)
{
    t4_status status = world_open(w, flushed);

    if (status != T4_OK)
        return status;
    simdisk_phase(w->disk, "start");
    w->tried_term++;
    for (int attempt = 0; attempt < 3; attempt++) {
        status = wal_start(w->wal, w->tried_term / 2, w->tried_term, &w->error);
        if (status != T4_E_NOSPACE)
            break;
    }
    if (status != T4_OK)
        return status;
    w->term = w->tried_term;
    w->generation = w->tried_term / 2;
    w->marked = w->durable;
    return T4_OK;
}

t4_status
world_reboot(struct world *w, struct simdisk *disk)
{
    wal_close(w->wal);
    w->wal = NULL;
    simdisk_free(w->disk);
    w->disk = disk;
    w->options.env = simdisk_env(disk);
    return world_boot(w, 0);
}

t4_status
world_write(struct world *w, const size_t *sizes)
{
    struct wal_group g = {0};
    size_t before = w->count;
    t4_status status;

    for (; *sizes != 0; sizes++) {
        uint64_t index = w->count + 1;
        struct buffer entry = {0};

        w->entries = mem_realloc(w->entries, index * sizeof *w->entries);
        world_entry(&entry, index, ++w->unique, *sizes);
        w->entries[w->count++] = entry;
        wal_group_add(&g, index, world_revision(index), buffer_slice(&entry));
    }
    simdisk_phase(w->disk, "write");
    status = wal_write(w->wal, &g, &w->error);
    wal_group_free(&g);
    if (status == T4_E_NOSPACE)
        forget_from(w, before);
    return status;
}

t4_status
world_sync(struct world *w)
{
    uint64_t synced;
    t4_status status;

    simdisk_phase(w->disk, "sync");
    status = wal_sync(w->wal, &synced, &w->error);
    if (status == T4_OK)
        w->durable = synced;
    return status;
}

t4_status
world_mark(struct world *w)
{
    t4_status status;

    simdisk_phase(w->disk, "mark");
    status = wal_mark(w->wal, &w->error);
    if (status == T4_OK)
        w->durable = w->marked = w->count;
    return status;
}

t4_status
world_prepare(struct world *w)
{
    simdisk_phase(w->disk, "prepare");
    return wal_wants_segment(w->wal) ? wal_prepare(w->wal, &w->error) : T4_OK;
}

bool
world_read_all(struct world *w)
{
    struct replay r = {w, 1};
    struct wal_reader *reader;
    struct t4_slice entry;
    uint64_t index;
    t4_status status;

    status = wal_reader_open(w->wal, 1, &reader, &w->error);
    if (status != T4_OK) {
        wrong(w, "no reader: %s", w->error.message);
        return false;
    }
    while ((status = wal_reader_next(reader, UINT64_MAX, &index, &entry, &w->error)) ==
           T4_OK)
        compare(&r, index, entry, NULL);
    wal_reader_close(reader);
    if (status != T4_E_NOTFOUND)
        wrong(w, "reading back: %s", w->error.message);
    if (r.next != w->count + 1)
        wrong(w, "reading back ended before %llu of %zu", (unsigned long long)r.next,
              w->count);
    return w->why[0] == '\0';
}
