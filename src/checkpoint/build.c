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

#include "base/memory.h"
#include "checkpoint/checkpoint_int.h"
#include "fmt/entry.h"

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
    sst_sorter_free(&b->part);
    *b = (struct builder){0};
}

/* --- one part -------------------------------------------------------------------------------- */

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
    struct sst_reduce reduce = {.source = sst_sorter_source(&b->part),
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
    status = run_write(b->target, &records, &run, &made, error);
    sst_reduce_free(&reduce);
    run_index_free(&run);
    if (status == T4_OK) {
        memmove(&b->list->run[1], &b->list->run[0], b->list->n * sizeof b->list->run[0]);
        b->list->run[0] = made;
        b->list->n++;
    }
    sst_sorter_clear(&b->part);
    b->bytes = 0;
    b->part_first = last;
    return status == T4_E_NOTFOUND ? T4_OK : status;
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
        fine = entry_next(&r, &m);
        if (fine)
            sst_sorter_add(&b->part, &e, &m, &sub);
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
