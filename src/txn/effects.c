/*
 * effects.c - the workspace of an evaluation: what it wrote so far, how it sees its own
 * writes, and the mutations that are left of them.
 *
 * A request that writes one key, or deletes one range, touches neither the hash nor the
 * overlay: both are brought up to date when something asks - a single key asks the hash, a
 * walk the overlay.
 *
 * Runs in the commit role (one struct txn each), or on any thread for a read-only transaction.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/hash.h"
#include "base/memory.h"
#include "txn/txn_int.h"

/* Up to so many writes are searched one by one. */
#define SCAN_MAX 8u
/* Memory of hash, overlay and arrays beyond these sizes is given back by the next begin. */
#define KEEP_WRITES 4096u
#define KEEP_OVERLAY (1u << 20)

#define PIECE_BYTES (16u * 1024)
#define LEASE_BYTES 8u

struct arena_piece {
    struct arena_piece *older;
    size_t used, capacity;
    uint8_t data[];
};

static void
arena_free(struct txn *t)
{
    while (t->arena != NULL) {
        struct arena_piece *older = t->arena->older;

        mem_free(t->arena);
        t->arena = older;
    }
}

static uint8_t *
arena_alloc(struct txn *t, size_t n)
{
    struct arena_piece *p = t->arena;

    if (p == NULL || p->capacity - p->used < n) {
        size_t capacity = n > PIECE_BYTES ? n : PIECE_BYTES;

        /* Many keys at once: fewer, larger pieces. */
        if (p != NULL && p->older != NULL && capacity < 16 * PIECE_BYTES)
            capacity = 16 * PIECE_BYTES;
        p = mem_alloc(sizeof *p + capacity);
        p->used = 0;
        p->capacity = capacity;
        p->older = t->arena;
        t->arena = p;
    }
    p->used += n;
    return p->data + p->used - n;
}

struct t4_slice
txn_keep(struct txn *t, struct t4_slice bytes)
{
    uint8_t *p;

    if (bytes.len == 0)
        return slice_of(NULL, 0);
    p = arena_alloc(t, bytes.len);
    memcpy(p, bytes.data, bytes.len);
    return slice_of(p, bytes.len);
}

struct txn *
txn_new(uint64_t hash_seed)
{
    struct txn *t = mem_zalloc(sizeof *t);

    t->hash_seed = hash_seed;
    chain_init(&t->scratch);
    return t;
}

void
txn_delete(struct txn *t)
{
    if (t == NULL)
        return;
    arena_free(t);
    memtable_delete(t->overlay);
    chain_free(&t->scratch);
    buffer_free(&t->ikey);
    mem_free(t->mutations);
    mem_free(t->previous);
    mem_free(t->slots);
    mem_free(t->path);
    mem_free(t);
}

void
txn_drop_writes(struct txn *t)
{
    t->n = 0;
    t->wrote = false;
    t->finished = false;
    if (t->hashed > 0)
        memset(t->slots, 0, (t->slot_mask + 1) * sizeof *t->slots);
    t->hashed = 0;
    if (t->overlaid > 0)
        memtable_reset(t->overlay);
    t->overlaid = 0;
}

/* Gives back what only a large request needed. */
static void
shrink(struct txn *t)
{
    if (t->arena != NULL && t->arena->older == NULL && t->arena->capacity <= PIECE_BYTES)
        t->arena->used = 0;
    else
        arena_free(t);
    if (t->capacity > KEEP_WRITES) {
        mem_free(t->mutations);
        mem_free(t->previous);
        t->mutations = NULL;
        t->previous = NULL;
        t->capacity = 0;
    }
    if (t->slot_mask > 4 * KEEP_WRITES) {
        mem_free(t->slots);
        t->slots = NULL;
        t->slot_mask = 0;
        t->hashed = 0;
    }
    if (t->overlay_bytes > KEEP_OVERLAY) {
        memtable_delete(t->overlay);
        t->overlay = NULL;
        t->overlay_bytes = 0;
        t->overlaid = 0;
    }
    if (t->path_capacity > KEEP_WRITES) {
        mem_free(t->path);
        t->path = NULL;
        t->path_capacity = 0;
    }
}

void
txn_begin(struct txn *t, struct mvcc_reader *reader, const struct txn_leases *leases,
          int64_t revision, int64_t compacted, const struct response_header *header)
{
    shrink(t);
    txn_drop_writes(t);
    t->n_path = 0;
    t->reader = reader;
    t->leases = leases;
    t->revision = revision;
    t->compacted = compacted;
    t->header = *header;
}

/* --- finding one's own writes ------------------------------------------------------- */

static uint32_t *
slot_of(const struct txn *t, struct t4_slice key)
{
    size_t i = hash_bytes(t->hash_seed, key.data, key.len) & t->slot_mask;

    while (t->slots[i] != 0 && !slice_equal(t->mutations[t->slots[i] - 1].key, key))
        i = (i + 1) & t->slot_mask;
    return &t->slots[i];
}

/* Every write into the hash, in order: a later one replaces an earlier one of its key. */
static void
hash_writes(struct txn *t)
{
    if (t->slots == NULL || 2 * t->n > t->slot_mask) {
        size_t slots = 64;

        while (slots < 4 * t->n)
            slots *= 2;
        mem_free(t->slots);
        t->slots = mem_zalloc(slots * sizeof *t->slots);
        t->slot_mask = slots - 1;
        t->hashed = 0;
    }
    for (; t->hashed < t->n; t->hashed++)
        *slot_of(t, t->mutations[t->hashed].key) = (uint32_t)t->hashed + 1;
}

int64_t
txn_find_write(struct txn *t, struct t4_slice key)
{
    if (t->n <= SCAN_MAX) {
        for (size_t i = t->n; i > 0; i--)
            if (slice_equal(t->mutations[i - 1].key, key))
                return (int64_t)i - 1;
        return -1;
    }
    hash_writes(t);
    return (int64_t)*slot_of(t, key) - 1;
}

enum etcd_error
txn_look(struct txn *t, struct t4_slice key, struct version *v, bool *live,
         int64_t *write)
{
    const struct mutation *m;

    *write = txn_find_write(t, key);
    if (*write < 0)
        return key_read(t->reader, key, (uint64_t)t->revision, v, live);
    m = &t->mutations[*write];
    *live = !(m->flags & MUTATION_TOMBSTONE);
    *v = (struct version){.stamp = (uint64_t)txn_next_revision(t),
                          .create_revision = m->create_revision,
                          .version = m->version,
                          .lease = m->lease,
                          .value = m->value};
    return ETCD_OK;
}

static size_t
make_room(struct txn *t)
{
    if (t->n == t->capacity) {
        t->capacity = t->capacity == 0 ? 16 : t->capacity * 2;
        t->mutations = mem_realloc(t->mutations, t->capacity * sizeof *t->mutations);
        t->previous = mem_realloc(t->previous, t->capacity * sizeof *t->previous);
    }
    return t->n++;
}

void
txn_add_write(struct txn *t, const struct mutation *m, const struct version *old,
              bool live, int64_t write)
{
    size_t i = make_room(t);

    t->mutations[i] = *m;
    t->previous[i] = (struct previous){live ? old->lease : 0, live, false};
    if (write >= 0) {
        t->previous[i] = t->previous[write];
        t->previous[write].superseded = true;
    }
    t->wrote = true;
}

/* --- the overlay -------------------------------------------------------------------- */

/* About what a memtable takes for a write. */
static size_t
overlay_size(const struct mutation *m)
{
    return 192 + m->key.len + m->value.len;
}

static void
overlay_add(struct txn *t, size_t i)
{
    const struct mutation *m = &t->mutations[i];
    struct version v = {.stamp = (uint64_t)t->revision + 1 + i,
                        .create_revision = m->create_revision,
                        .version = m->version,
                        .lease = m->lease,
                        .value = m->value};

    if (m->flags & MUTATION_TOMBSTONE)
        v.flags = VERSION_TOMBSTONE;
    buffer_clear(&t->ikey);
    buffer_append_u8(&t->ikey, SPACE_KEYS);
    buffer_append_slice(&t->ikey, m->key);
    memtable_insert(t->overlay, buffer_slice(&t->ikey), &v);
}

void
txn_walk_begin(struct txn *t)
{
    size_t bytes = 0;

    if (t->n == 0)
        return;
    if (t->overlaid < t->n) {
        for (size_t i = t->overlaid; i < t->n; i++)
            bytes += overlay_size(&t->mutations[i]);
        if (t->overlay != NULL)
            bytes += t->overlaid > 0 ? memtable_bytes(t->overlay) : 0;
        /* Its hash does not grow, so a larger one is made anew. */
        if (t->overlay == NULL || bytes > t->overlay_bytes) {
            memtable_delete(t->overlay);
            t->overlay_bytes = bytes < 32 * 1024 ? 64 * 1024 : 2 * bytes;
            t->overlay = memtable_new(t->overlay_bytes, t->hash_seed);
            t->overlaid = 0;
        }
        for (; t->overlaid < t->n; t->overlaid++)
            if (!t->previous[t->overlaid].superseded)
                overlay_add(t, t->overlaid);
    }
    t->reader->overlay = t->overlay;
}

void
txn_walk_end(struct txn *t)
{
    t->reader->overlay = NULL;
}

/* --- the answer --------------------------------------------------------------------- */

static void
add_attachment(struct txn *t, struct t4_slice key, int64_t lease, bool attach)
{
    uint8_t *p = arena_alloc(t, LEASE_BYTES + key.len);
    size_t i = make_room(t);

    put_u64be(p, (uint64_t)lease);
    memcpy(p + LEASE_BYTES, key.data, key.len);
    t->mutations[i] = (struct mutation){.space = SPACE_ATTACHMENTS,
                                        .flags = attach ? 0 : MUTATION_TOMBSTONE,
                                        .key = slice_of(p, LEASE_BYTES + key.len)};
}

/*
 * Leaves one mutation per key, in order of the last write; a key that came and went within the
 * request leaves none.  What a key's lease was and is decides about its attachments.
 */
static void
finish(struct txn *t)
{
    size_t keys = 0;

    for (size_t i = 0; i < t->n; i++) {
        if (t->previous[i].superseded || t->mutations[i].space != SPACE_KEYS ||
            (!t->previous[i].existed && (t->mutations[i].flags & MUTATION_TOMBSTONE)))
            continue;
        t->mutations[keys] = t->mutations[i];
        t->previous[keys++] = t->previous[i];
    }
    t->n = keys;
    for (size_t i = 0; i < keys; i++) {
        struct t4_slice key = t->mutations[i].key;
        int64_t before = t->previous[i].lease, after = t->mutations[i].lease;

        if (before == after)
            continue;
        if (before != 0)
            add_attachment(t, key, before, false);
        if (after != 0)
            add_attachment(t, key, after, true);
    }
    t->finished = true;
}

const struct mutation *
txn_mutations(struct txn *t, size_t *n, bool *wrote)
{
    if (!t->finished)
        finish(t);
    *n = t->n;
    *wrote = t->wrote;
    return t->mutations;
}
