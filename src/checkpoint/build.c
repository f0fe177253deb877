/*
 * build.c - an interval of the log becomes runs.
 *
 * Parts of build_bytes of log (32 MiB) are sorted in memory, each becomes a run: where the parts end
 * depends on the lengths of the entries alone, so every node makes the same runs of the same
 * interval, whatever its local log looks like.  The versions are those that the storage engine
 * holds, byte for byte (mutation_version(), fmt/record.h).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"
#include "checkpoint/checkpoint_int.h"
#include "fmt/entry.h"

/* A record of the arena; `key` is an offset until the part is complete. */
struct record {
    union {
        size_t at;
        const uint8_t *key;
    };
    uint32_t key_len, value_len;
};

void
builder_begin(struct builder *b, struct run_target *target, struct run_list *list,
              uint64_t after, uint64_t last, int64_t compacted, uint64_t part_bytes)
{
    *b = (struct builder){.target = target,
                          .list = list,
                          .compacted = compacted > 0 ? compacted : 0, /* never: 0 */
                          .after = after,
                          .last = last,
                          .part_bytes = part_bytes,
                          .part_first = after};
}

void
builder_free(struct builder *b)
{
    buffer_free(&b->arena);
    buffer_free(&b->ikey);
    mem_free(b->record);
    *b = (struct builder){0};
}

/* --- one part -------------------------------------------------------------------------------- */

static int
compare(const void *a, const void *b)
{
    const struct record *x = a, *y = b;

    return slice_compare(slice_of(x->key, x->key_len), slice_of(y->key, y->key_len));
}

struct sorted {
    const struct record *record;
    size_t n, next;
};

static t4_status
next_record(void *state, struct t4_slice *key, struct t4_slice *value,
            struct error *error)
{
    struct sorted *s = state;
    const struct record *r = &s->record[s->next];

    (void)error;
    if (s->next == s->n)
        return T4_E_NOTFOUND;
    s->next++;
    *key = slice_of(r->key, r->key_len);
    *value = slice_of(r->key + r->key_len, r->value_len);
    return T4_OK;
}

/* So many runs cannot be listed, or read: what is there becomes one. */
static t4_status
make_room(struct builder *b, struct error *error)
{
    struct checkpoint_run base;
    t4_status status;

    if (b->list->n < RUNS_HIGH)
        return T4_OK;
    status = fold_runs(b->target, b->list->run, b->list->n, &base, error);
    if (status != T4_OK && status != T4_E_NOTFOUND)
        return status;
    b->list->n = status == T4_OK;
    b->list->run[0] = base;
    return T4_OK;
}

/* Sorts the part, reduces it and writes it as a run, if anything is left. */
static t4_status
end_part(struct builder *b, uint64_t last, struct error *error)
{
    struct sorted sorted = {b->record, b->n, 0};
    struct sst_reduce reduce = {.source = {next_record, &sorted},
                                .compacted = b->compacted,
                                .is_base = b->part_first == 0};
    struct run_index run = {.first_index = b->part_first,
                            .last_index = last,
                            .last_revision = b->revision,
                            .compacted = b->compacted,
                            .is_base = b->part_first == 0};
    struct sst_source records = sst_reduce_source(&reduce);
    struct checkpoint_run made;
    t4_status status = make_room(b, error);

    if (status != T4_OK)
        return status;
    for (size_t i = 0; i < b->n; i++)
        b->record[i].key = b->arena.data + b->record[i].at;
    if (b->n > 0)
        qsort(b->record, b->n, sizeof *b->record, compare);
    status = run_write(b->target, &records, &run, &made, error);
    sst_reduce_free(&reduce);
    run_index_free(&run);
    if (status == T4_OK) {
        memmove(&b->list->run[1], &b->list->run[0], b->list->n * sizeof b->list->run[0]);
        b->list->run[0] = made;
        b->list->n++;
    }
    b->n = 0;
    b->bytes = 0;
    b->part_first = last;
    buffer_clear(&b->arena);
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

static void
add_record(struct builder *b, const struct version *v)
{
    struct record *r;
    size_t at = b->arena.len, key_len;

    if (b->n == b->capacity) {
        b->capacity = b->capacity * 2 + 1024;
        b->record = mem_realloc(b->record, b->capacity * sizeof *b->record);
    }
    record_key_encode(&b->arena, buffer_slice(&b->ikey), v->stamp);
    key_len = b->arena.len - at;
    /* The value's bytes may move the arena, of which the key is a part: room for both first. */
    buffer_reserve(&b->arena, v->value.len + 64);
    record_value_encode(&b->arena, slice_of(b->arena.data + at, key_len), v);
    r = &b->record[b->n++];
    r->at = at;
    r->key_len = (uint32_t)key_len;
    r->value_len = (uint32_t)(b->arena.len - at - key_len);
}

t4_status
builder_entry(void *arg, uint64_t index, struct t4_slice bytes, struct error *error)
{
    struct builder *b = arg;
    struct byte_reader r = reader_of(bytes);
    struct mutation m;
    struct entry e;
    uint32_t sub = 0;
    bool fine = entry_decode_head(&r, &e) && e.index == index;

    for (uint32_t i = 0; fine && i < e.mutations; i++) {
        struct version v;

        fine = entry_next(&r, &m);
        if (!fine)
            break;
        mutation_version(&e, &m, &sub, &b->ikey, &v);
        add_record(b, &v);
    }
    if (!fine || !entry_end(&r)) {
        error_set(error, T4_E_CORRUPT,
                  "log entry %" PRIu64 " has a valid checksum but cannot be decoded",
                  index);
        return error_hint(error,
                          "it was written by another version of t4: start that version");
    }
    b->bytes += bytes.len;
    b->revision = e.revision;
    b->after = index;
    return b->bytes >= b->part_bytes && index < b->last ? end_part(b, index, error)
                                                        : T4_OK;
}

t4_status
builder_end(struct builder *b, struct error *error)
{
    if (b->after != b->last)
        return error_set(error, T4_E_INVALID,
                         "the log was read up to entry %" PRIu64 ", not %" PRIu64,
                         b->after, b->last);
    return b->part_first < b->last ? end_part(b, b->last, error) : T4_OK;
}
