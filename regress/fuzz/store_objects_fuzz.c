/*
 * store_objects_fuzz.c - segments, archives, lock, manifest and cluster of an object store, of any bytes.
 *
 * Says: decoding ends, reads nothing outside of the bytes, and accepts nothing that does not
 * encode to the same bytes again; what is not accepted is CORRUPT or UNSUPPORTED.
 *
 * libFuzzer:   clang -fsanitize=fuzzer,address ... store_objects_fuzz.c <objects of fmt, codec, base>
 * alone:       gcc -DFUZZ_ALONE ...; then store_objects_fuzz [rounds [seed]] mutates valid
 *              objects of its own making.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "chance.h"
#include "codec/codec.h"
#include "fmt/archive.h"
#include "fmt/entry.h"
#include "fmt/objects.h"
#include "fmt/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define RAW_MAX                                                                          \
    (1u << 20) /* what an input may claim to unpack to, so that a run stays quick */

static void
stop_at(const char *what)
{
    fprintf(stderr, "store_objects_fuzz: %s\n", what);
    abort();
}

static void
same_again(struct t4_slice object, struct buffer *again, const char *what)
{
    if (!slice_equal(object, buffer_slice(again)))
        stop_at(what);
}

static void
entries(const struct segment *s)
{
    struct buffer raw = {0};
    struct byte_reader r;
    struct t4_slice bytes;

    if (s->raw_bytes <= RAW_MAX && decompress_append(&raw, s->payload, s->raw_bytes)) {
        if (raw.len != s->raw_bytes)
            stop_at("decompression gave another length");
        r = reader_of(buffer_slice(&raw));
        while (segment_entry_next(&r, &bytes)) {
            struct byte_reader head = reader_of(bytes);
            struct mutation m;
            struct entry e;

            if (entry_decode_head(&head, &e))
                for (uint32_t i = 0; i < e.mutations && entry_next(&head, &m); i++)
                    ;
        }
    }
    buffer_free(&raw);
}

/* Every line of an index that is accepted lies within the object; the same lines make it again. */
static void
archives(struct t4_slice object)
{
    struct buffer again = {0};
    struct archive a, b;
    t4_status status = archive_decode(object, &a);

    if (status != T4_OK) {
        if (status != T4_E_CORRUPT && status != T4_E_UNSUPPORTED)
            stop_at("an archive is refused in another way");
        return;
    }
    b = (struct archive){
        .cluster_id = a.cluster_id, .lineage = a.lineage, .begin = a.begin, .end = a.end};
    archive_begin(&again, &b);
    for (size_t i = 0; i < a.n; i++) {
        struct archive_slot s = a.slot[i];

        if (s.skipped)
            archive_add_skipped(&b, &s);
        else
            archive_add_segment(&again, &b, &s,
                                slice_of(object.data + s.offset, (size_t)s.length));
    }
    archive_end(&again, &b);
    same_again(object, &again, "an archive that is accepted has another encoding");
    archive_free(&a);
    archive_free(&b);
    buffer_free(&again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct t4_slice object = slice_of(data, n);
    struct buffer again = {0};
    struct cluster_object cluster;
    struct manifest_object manifest;
    struct checkpoint_object checkpoint;
    struct lock_object lock;
    struct moving_object moving;
    struct restoring_object restoring;
    struct segment segment;
    t4_status status;

    if ((status = segment_decode(object, &segment)) == T4_OK) {
        segment_encode(&again, &segment);
        same_again(object, &again, "a segment that is accepted has another encoding");
        if (!segment.fence)
            entries(&segment);
    } else if (status != T4_E_CORRUPT && status != T4_E_UNSUPPORTED) {
        stop_at("a segment is refused in another way");
    }
    archives(object);
    buffer_clear(&again);
    if (lock_decode(object, &lock) == T4_OK) {
        lock_encode(&again, &lock);
        same_again(object, &again, "a lock that is accepted has another encoding");
    }
    buffer_clear(&again);
    if (moving_decode(object, &moving) == T4_OK) {
        moving_encode(&again, &moving);
        same_again(object, &again, "`moving` that is accepted has another encoding");
    }
    buffer_clear(&again);
    if (restoring_decode(object, &restoring) == T4_OK) {
        restoring_encode(&again, &restoring);
        same_again(object, &again, "`restoring` that is accepted has another encoding");
    }
    buffer_clear(&again);
    if (manifest_decode(object, &manifest) == T4_OK &&
        slice_has_prefix(object,
                         slice_str("t4-manifest 3\n"))) { /* older: written as 3 */
        manifest_encode(&again, &manifest);
        same_again(object, &again, "a manifest that is accepted has another encoding");
    }
    buffer_clear(&again);
    if (checkpoint_decode(object, &checkpoint) == T4_OK) {
        checkpoint_encode(&again, &checkpoint);
        same_again(object, &again, "a checkpoint that is accepted has another encoding");
    }
    buffer_clear(&again);
    if (cluster_decode(object, &cluster) == T4_OK) {
        cluster_encode(&again, &cluster);
        same_again(object, &again,
                   "a cluster object that is accepted has another encoding");
    }
    buffer_free(&again);
    return 0;
}

/* --- alone ------------------------------------------------------------------------------- */

static void
make_segment(struct buffer *out)
{
    struct buffer raw = {0}, packed = {0}, entry = {0};
    struct segment s = {.cluster_id = chance(99),
                        .lineage = 2,
                        .generation = 1,
                        .term = chance(9) + 1,
                        .writer = 7,
                        .fence = chance(4) == 0};
    uint64_t n = chance(5) + 1;

    if (!s.fence) {
        s.rule = chance(2) ? RULE_OBJECT : RULE_LOCAL;
        s.first_index = chance(1000) + 1;
        s.last_index = s.committed = s.first_index + n - 1;
        for (uint64_t i = 0; i < n; i++) {
            struct entry e = {.index = s.first_index + i,
                              .term = s.term,
                              .revision = (int64_t)i,
                              .kind = ENTRY_NORMAL,
                              .mutations = 1};
            struct mutation m = {.space = SPACE_KEYS,
                                 .key = slice_str("key"),
                                 .value = slice_str("value"),
                                 .version = 1};

            buffer_clear(&entry);
            entry_encode_head(&entry, &e);
            entry_add(&entry, &m);
            segment_entry_append(&raw, buffer_slice(&entry));
        }
        compress_append(&packed, buffer_slice(&raw));
        s.raw_bytes = (uint32_t)raw.len;
        s.payload = buffer_slice(&packed);
    }
    segment_encode(out, &s);
    buffer_free(&raw);
    buffer_free(&packed);
    buffer_free(&entry);
}

static void
make_archive(struct buffer *out)
{
    struct archive a = {
        .cluster_id = 1, .lineage = 2, .begin = {.next_slot = chance(99)}};
    uint64_t n = chance(5) + 1, slot = a.begin.next_slot;

    archive_begin(out, &a);
    for (uint64_t i = 1; i <= n; i++, slot++) {
        struct archive_slot s = {.slot = slot, .term = i, .hash = {(uint8_t)i}};
        struct buffer object = {0};

        if (i < n && chance(2) > 0) {
            archive_add_skipped(&a, &s);
            continue;
        }
        make_segment(&object);
        s.first_index = i;
        s.first_revision = (int64_t)chance(9);
        archive_add_segment(out, &a, &s, buffer_slice(&object));
        buffer_free(&object);
    }
    a.end = (struct chain_floor){.next_slot = slot, .hash = {(uint8_t)n}};
    archive_end(out, &a);
    archive_free(&a);
}

static void
make_object(struct buffer *out)
{
    struct lock_object lock = {.cluster_id = 1,
                               .lineage = 2,
                               .counter = chance(99),
                               .term = chance(99),
                               .holder = 3,
                               .address = "http://x:1",
                               .rule = RULE_LOCAL,
                               .lease_ms = 6000,
                               .released = chance(2) > 0};
    struct manifest_object manifest = {.cluster_id = 1,
                                       .lineage = 2,
                                       .generation = 1,
                                       .counter = chance(99),
                                       .term = chance(99)};
    struct cluster_object cluster = {1, 2, WINDOW_MAX};
    struct moving_object moving = {.cluster_id = 1, .lineage = 2, .source = "file:///s"};
    struct restoring_object restoring = {.cluster_id = 1,
                                         .lineage = 2,
                                         .holder = 3,
                                         .time_ms = chance(99),
                                         .source = "f.db"};
    struct checkpoint_object checkpoint = {.cluster_id = 1,
                                           .lineage = 2,
                                           .generation = 1,
                                           .index = chance(99),
                                           .compacted = -1,
                                           .n_runs = (uint32_t)chance(4)};

    manifest.n_checkpoints = (uint32_t)chance(4);
    if (manifest.n_checkpoints > 0) {
        manifest.newest = checkpoint;
        manifest.checkpoint[0].index = checkpoint.index;
    }
    lock.move = (enum move_state)chance(3);
    if (lock.move != MOVE_NONE)
        snprintf(lock.moved, sizeof lock.moved, "s3://elsewhere/prefix");
    buffer_clear(out);
    switch (chance(11)) {
    case 10: restoring_encode(out, &restoring); break;
    case 9: moving_encode(out, &moving); break;
    case 7: make_archive(out); break;
    case 8: make_archive(out); break;
    case 6: checkpoint_encode(out, &checkpoint); break;
    case 0: lock_encode(out, &lock); break;
    case 1: manifest_encode(out, &manifest); break;
    case 2: cluster_encode(out, &cluster); break;
    default: make_segment(out); break;
    }
}

static void
mutate(struct buffer *b)
{
    for (uint64_t k = chance(4); k > 0 && b->len > 0; k--)
        switch (chance(4)) {
        case 0: b->data[chance(b->len)] ^= (uint8_t)(1u << chance(8)); break;
        case 1: b->data[chance(b->len)] = (uint8_t)chance(256); break;
        case 2: b->len = chance(b->len + 1); break;
        default: buffer_append_u8(b, (uint8_t)chance(256)); break;
        }
    /* A lie under a good checksum: segments and archives end with that of all before. */
    if (b->len > 4 && chance(2) > 0)
        put_u32le(b->data + b->len - 4, crc32c(0, b->data, b->len - 4));
}

int store_objects_fuzz(unsigned long rounds, uint64_t seed);

int
store_objects_fuzz(unsigned long rounds, uint64_t seed)
{
    struct buffer b = {0};

    chance_state = seed;
    for (unsigned long i = 0; i < rounds; i++) {
        make_object(&b);
        LLVMFuzzerTestOneInput(b.data, b.len);
        mutate(&b);
        LLVMFuzzerTestOneInput(b.data, b.len);
    }
    buffer_free(&b);
    return 0;
}

#ifdef FUZZ_ALONE
int
main(int argc, char **argv)
{
    return store_objects_fuzz(argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000,
                              argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
}
#endif
