/*
 * map.c - which parts of the key space are ready: units, intervals within them, the mark.
 *
 * Units divide the spaces 'k' and 'l' (space 's' is seeded) at first keys of files, so that
 * the background reads most files once.  A part of a unit that was asked for before its turn is
 * kept as an interval, in memory only: after a restart it is asked for again.
 *
 * The mark (engine record): u8 format (1) · u32 length · the checkpoint's text
 * (fmt/objects.h) · u32 number of units · one bit for each, done or not · u32 CRC-32C.  The
 * units follow from the checkpoint alone.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "base/crc32c.h"
#include "base/memory.h"
#include "fmt/entry.h"
#include "hydrate/hydrate_int.h"

#define MARK_FORMAT 1

/* --- units --------------------------------------------------------------------------------- */

static int
by_first(const void *a, const void *b)
{
    const struct run_sst *const *x = a, *const *y = b;
    int order = slice_compare((*x)->info.first, (*y)->info.first);

    /* By name among equals: the units must come out the same each time. */
    return order != 0 ? order
                      : memcmp((*x)->info.sha256, (*y)->info.sha256, SHA256_BYTES);
}

static struct unit *
add_unit(struct hydration *h, struct t4_slice lo)
{
    struct unit *u;

    if (h->n_units % 64 == 0)
        h->unit = mem_realloc(h->unit, (h->n_units + 64) * sizeof *h->unit);
    u = &h->unit[h->n_units++];
    *u = (struct unit){0};
    buffer_append_slice(&u->lo, lo);
    return u;
}

/* Every file of every run, by its first key. */
static const struct run_sst **
all_files(const struct hydration *h, size_t *n)
{
    const struct run_sst **all;
    size_t total = 0;

    for (uint32_t r = 0; r < h->checkpoint.n_runs; r++)
        total += h->run[r].n;
    all = mem_alloc((total + 1) * sizeof *all);
    *n = 0;
    for (uint32_t r = 0; r < h->checkpoint.n_runs; r++)
        for (size_t i = 0; i < h->run[r].n; i++)
            all[(*n)++] = &h->run[r].sst[i];
    qsort(all, total, sizeof *all, by_first);
    return all;
}

bool
map_build(struct hydration *h)
{
    static const uint8_t begin[1] = {SPACE_KEYS};
    size_t n;
    const struct run_sst **file = all_files(h, &n);
    struct unit *u = add_unit(h, slice_of(begin, 1));

    for (size_t i = 0; i < n; i++) {
        const struct sst_info *info = &file[i]->info;

        if (u->bytes >= UNIT_BYTES &&
            slice_compare(info->first, buffer_slice(&u->lo)) > 0)
            u = add_unit(h, info->first);
        u->bytes += info->raw_bytes;
        h->bytes += info->raw_bytes;
    }
    mem_free(file);
    if (h->mark_units == 0)
        return true;
    if (h->mark_units != h->n_units)
        return false;
    for (uint32_t i = 0; i < h->n_units; i++)
        if (h->mark_bits.data[i / 8] & 1u << i % 8)
            map_unit_done(h, i);
    return true;
}

uint32_t
map_unit_of(const struct hydration *h, struct t4_slice ikey)
{
    uint32_t lo = 0, hi = h->n_units; /* unit lo begins at or below, hi above */

    while (hi - lo > 1) {
        uint32_t middle = lo + (hi - lo) / 2;

        if (slice_compare(buffer_slice(&h->unit[middle].lo), ikey) <= 0)
            lo = middle;
        else
            hi = middle;
    }
    return lo;
}

struct t4_slice
map_unit_end(const struct hydration *h, uint32_t unit)
{
    static const uint8_t end[1] = {SPACE_SYSTEM};

    return unit + 1 < h->n_units ? buffer_slice(&h->unit[unit + 1].lo) : slice_of(end, 1);
}

/* --- intervals ------------------------------------------------------------------------------ */

static struct t4_slice
interval_lo(const struct interval *i)
{
    return slice_of(i->lo, i->lo_bytes);
}

static struct t4_slice
interval_hi(const struct interval *i)
{
    return slice_of(i->lo + i->lo_bytes, i->hi_bytes);
}

/* Number of intervals that begin at or below `ikey`. */
static uint32_t
begin_below(const struct unit *u, struct t4_slice ikey)
{
    uint32_t lo = 0, hi = u->n;

    while (lo < hi) {
        uint32_t middle = lo + (hi - lo) / 2;

        if (slice_compare(interval_lo(&u->interval[middle]), ikey) <= 0)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo;
}

bool
map_covers(const struct unit *u, struct t4_slice lo, struct t4_slice hi)
{
    uint32_t at = begin_below(u, lo);
    const struct interval *i;

    if (at == 0)
        return false;
    i = &u->interval[at - 1];
    return hi.len == 0 ? slice_compare(lo, interval_hi(i)) < 0
                       : slice_compare(hi, interval_hi(i)) <= 0;
}

static void
free_intervals(struct unit *u)
{
    for (uint32_t i = 0; i < u->n; i++)
        mem_free(u->interval[i].lo);
    mem_free(u->interval);
    u->interval = NULL;
    u->n = u->capacity = 0;
}

void
map_add_interval(struct unit *u, struct t4_slice lo, struct t4_slice hi)
{
    static const uint8_t zero[1] = {0};
    uint32_t at = begin_below(u, lo), end;
    struct buffer merged = {0};
    struct interval new;

    if (u->done || map_covers(u, lo, hi))
        return;
    buffer_append_slice(&merged, lo);
    new.lo_bytes = (uint32_t)lo.len;
    buffer_append_slice(&merged, hi.len > 0 ? hi : lo);
    if (hi.len == 0) /* one key: up to its successor */
        buffer_append(&merged, zero, 1);
    new.hi_bytes = (uint32_t)(merged.len - lo.len);
    new.lo = mem_alloc(merged.len);
    memcpy(new.lo, merged.data, merged.len);
    buffer_free(&merged);
    /* Those that lie within it go; one that it only overlaps stays beside it, which is harmless. */
    for (end = at; end < u->n &&
                   slice_compare(interval_hi(&u->interval[end]), interval_hi(&new)) <= 0;
         end++)
        mem_free(u->interval[end].lo);
    if (u->n == u->capacity) {
        u->capacity = u->capacity > 0 ? 2 * u->capacity : 8;
        u->interval = mem_realloc(u->interval, u->capacity * sizeof *u->interval);
    }
    memmove(&u->interval[at + 1], &u->interval[end], (u->n - end) * sizeof *u->interval);
    u->interval[at] = new;
    u->n = at + 1 + (u->n - end);
}

void
map_unit_done(struct hydration *h, uint32_t unit)
{
    struct unit *u = &h->unit[unit];

    if (u->done)
        return;
    u->done = true;
    u->failed = false;
    h->n_done++;
    h->bytes_done += u->bytes;
    free_intervals(u);
}

void
map_free(struct hydration *h)
{
    for (uint32_t i = 0; i < h->n_units; i++) {
        free_intervals(&h->unit[i]);
        buffer_free(&h->unit[i].lo);
    }
    mem_free(h->unit);
    h->unit = NULL;
    h->n_units = 0;
}

/* --- the mark --------------------------------------------------------------------------------- */

void
mark_encode(const struct hydration *h, uint32_t extra, struct buffer *out)
{
    size_t start = out->len;
    struct buffer text = {0};

    checkpoint_encode(&text, &h->checkpoint);
    buffer_append_u8(out, MARK_FORMAT);
    buffer_append_u32(out, (uint32_t)text.len);
    buffer_append_slice(out, buffer_slice(&text));
    buffer_append_u32(out, h->n_units);
    for (uint32_t i = 0; i < h->n_units; i += 8) {
        uint8_t bits = 0;

        for (uint32_t k = i; k < i + 8 && k < h->n_units; k++)
            if (h->unit[k].done || k == extra)
                bits = (uint8_t)(bits | 1u << k % 8);
        buffer_append_u8(out, bits);
    }
    buffer_append_u32(out, crc32c(0, out->data + start, out->len - start));
    buffer_free(&text);
}

bool
mark_decode(struct hydration *h, struct t4_slice mark)
{
    struct byte_reader r = reader_of(mark);
    struct t4_slice text, bits;

    if (mark.len < 13 || reader_u8(&r) != MARK_FORMAT ||
        crc32c(0, mark.data, mark.len - 4) != get_u32le(mark.data + mark.len - 4))
        return false;
    text = reader_bytes(&r, reader_u32(&r));
    h->mark_units = reader_u32(&r);
    bits = reader_bytes(&r, (h->mark_units + 7) / 8);
    if (r.bad || r.end - r.next != 4 || checkpoint_decode(text, &h->checkpoint) != T4_OK)
        return false;
    buffer_append_slice(&h->mark_bits, bits);
    return true;
}

bool
hydration_mark_read(struct t4_slice mark, struct hydration_mark *out)
{
    struct hydration *h = mem_zalloc(sizeof *h);
    bool good = mark_decode(h, mark);

    *out = (struct hydration_mark){h->checkpoint.revision, h->mark_units, 0};
    for (uint32_t i = 0; good && i < h->mark_units; i++)
        out->done += h->mark_bits.data[i / 8] >> i % 8 & 1u;
    buffer_free(&h->mark_bits);
    mem_free(h);
    return good;
}
