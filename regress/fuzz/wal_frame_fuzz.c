/*
 * wal_frame_fuzz.c - fuzzing of the log's decoder: whatever the segments hold, recovery
 * ends with a report or with a log that can be used on.
 *
 * Input: byte 0: bit 0: make the checksums right where lengths allow it (else most inputs
 * end at the first frame), bit 1: two segments instead of one, bits 2-7: `flushed`; byte
 * 1: where the bytes are divided, in 256ths; the rest: what stands behind the headers.
 *
 * With libFuzzer (-DT4_LIBFUZZER, clang -fsanitize=fuzzer) it is a target; without,
 * wal_frame_fuzz [rounds [seed]] runs seeded mutations of a good log (each round is a whole
 * recovery: one for a hundred rounds of other decoders), wal_frame_fuzz FILE... files.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "fmt/entry.h"
#include "must.h"
#include "simdisk.h"
#include "wal/wal_int.h"

#define SALT 0x1234567890abcdefu

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
fix_checksums(uint8_t *data, size_t n)
{
    for (size_t at = 0; at + FRAME_MIN_BYTES <= n;) {
        uint8_t *p = data + at;
        size_t size = frame_size_at(p);

        if (size == 0 || size > n - at) {
            at += FRAME_ALIGN;
            continue;
        }
        frame_finish(p, SALT, SEGMENT_HEADER_BYTES + at, get_u64le(p + 8),
                     get_u64le(p + 16));
        at += size;
    }
}

static void
add_segment(struct env *env, uint64_t number, const uint8_t *body, size_t n, bool fix)
{
    struct segment_header h = {1, 1, number, SALT, 0};
    struct env_file *file;
    uint8_t *data;
    char path[64];

    h.bytes = (SEGMENT_HEADER_BYTES + n + 4095) / 4096 * 4096;
    data = mem_zalloc(h.bytes);
    header_encode(data, &h);
    memcpy(data + SEGMENT_HEADER_BYTES, body, n);
    if (fix)
        fix_checksums(data + SEGMENT_HEADER_BYTES, h.bytes - SEGMENT_HEADER_BYTES);
    snprintf(path, sizeof path, "/wal/%016llx.wal", (unsigned long long)number);
    MUST(env->open(env->state, path, ENV_CREATE, &file, NULL) == T4_OK);
    MUST(env->pwrite(env->state, file, data, h.bytes, 0, NULL) == T4_OK);
    MUST(env->sync(env->state, file, NULL) == T4_OK);
    env->close(env->state, file);
    mem_free(data);
}

static t4_status
count(void *arg, uint64_t index, struct t4_slice entry, struct error *error)
{
    uint64_t *last = arg;
    volatile uint8_t sum = 0;

    (void)error;
    MUST(index > *last);
    *last = index;
    for (size_t i = 0; i < entry.len; i++)
        sum ^= entry.data[i];
    return T4_OK;
}

/* A log that was accepted takes one more entry and keeps it. */
static void
use_on(struct wal *w, const struct wal_options *o, uint64_t flushed, uint64_t last)
{
    struct entry e = {.index = (last > flushed ? last : flushed) + 1,
                      .term = 1,
                      .revision = 1,
                      .kind = ENTRY_NORMAL};
    struct wal_recovered found;
    struct wal_group g = {0};
    struct buffer bytes = {0};
    struct wal_reader *r;
    struct t4_slice entry;
    struct error error;
    uint64_t index;

    MUST(wal_start(w, 1, 1, &error) == T4_OK);
    entry_encode_head(&bytes, &e);
    wal_group_add(&g, e.index, e.revision, buffer_slice(&bytes));
    MUST(wal_write(w, &g, &error) == T4_OK);
    MUST(wal_mark(w, &error) == T4_OK);
    if (wal_reader_open(w, 1, &r, &error) == T4_OK) {
        while (wal_reader_next(r, UINT64_MAX, &index, &entry, &error) == T4_OK)
            ;
        wal_reader_close(r);
    }
    wal_close(w);
    index = flushed;
    if (wal_open(o, flushed, count, &index, &w, &found, &error) != T4_OK) {
        fprintf(stderr, "was accepted, now: %s\n", error.message);
        abort();
    }
    MUST(found.last_index == e.index && index == e.index);
    wal_close(w);
    wal_group_free(&g);
    buffer_free(&bytes);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct simdisk *disk;
    struct env *env;
    struct wal_options o = {
        .dir = "/wal", .cluster_id = 1, .lineage = 1, .segment_bytes = 65536};
    struct wal_recovered found;
    struct error error = {0};
    uint64_t flushed, replayed;
    size_t first;
    struct wal *w;

    if (n < 2 || n > 60000)
        return 0;
    disk = simdisk_new(n);
    env = o.env = simdisk_env(disk);
    flushed = replayed = data[0] >> 2;
    MUST(env->mkdir(env->state, "/wal", NULL) == T4_OK);
    first = data[0] & 2 ? (n - 2) * data[1] / 256 : n - 2;
    add_segment(env, 1, data + 2, first, data[0] & 1);
    if (data[0] & 2)
        add_segment(env, 2, data + 2 + first, n - 2 - first, data[0] & 1);
    if (wal_open(&o, flushed, count, &replayed, &w, &found, &error) != T4_OK) {
        MUST(error.message[0] != '\0');
    } else if (found.last_index < UINT64_MAX / 4) {
        MUST(found.last_index <= flushed || replayed == found.last_index);
        use_on(w, &o, flushed, found.last_index);
    } else {
        wal_close(w);
    }
    simdisk_free(disk);
    return 0;
}

#ifndef T4_LIBFUZZER
int wal_frame_fuzz(uint64_t rounds, uint64_t seed);

static uint64_t
chance(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 24;
}

/* The bytes of a good log, with restarts and marks, in the form of an input. */
static void
good_log(struct buffer *out, uint64_t *state)
{
    struct frame start = {.generation = 1, .term = 1, .first_index = 1};
    struct buffer entry = {0};
    uint64_t index = 0;

    buffer_clear(out);
    buffer_append_u8(out, (uint8_t)chance(state));
    buffer_append_u8(out, (uint8_t)chance(state));
    frame_append_start(out, &start);
    for (unsigned n = chance(state) % 12; n > 0; n--) {
        struct entry e = {.index = ++index,
                          .term = 1,
                          .revision = (int64_t)index,
                          .kind = ENTRY_NORMAL,
                          .mutations = 1};
        struct mutation m = {.space = SPACE_KEYS, .key = slice_str("k")};
        size_t at = out->len;

        m.value = slice_of("................................................",
                           chance(state) % 48);
        buffer_clear(&entry);
        entry_encode_head(&entry, &e);
        entry_add(&entry, &m);
        frame_append_entry(out, buffer_slice(&entry));
        put_u64le(out->data + at + 8,
                  index - chance(state) % (index + 1) % 3 - (index > 0));
        if (chance(state) % 4 == 0) {
            start.log_end = index;
            start.first_index = index + 1 + chance(state) % 3 / 2;
            frame_append_start(out, &start);
            index = start.first_index - 1;
        }
        if (chance(state) % 4 == 0)
            frame_append_mark(out);
    }
    buffer_free(&entry);
}

/* Seeded mutations; returns 0 (what fails aborts). */
int
wal_frame_fuzz(uint64_t rounds, uint64_t seed)
{
    struct buffer input = {0};
    uint64_t state = seed;

    for (uint64_t n = 0; n < rounds; n++) {
        good_log(&input, &state);
        for (unsigned k = chance(&state) % 4; k > 0; k--) {
            size_t at = chance(&state) % input.len;

            switch (chance(&state) % 3) {
            case 0: input.data[at] ^= (uint8_t)(1u << chance(&state) % 8); break;
            case 1: input.data[at] = (uint8_t)chance(&state); break;
            case 2: memset(input.data + at, 0, chance(&state) % (input.len - at)); break;
            }
        }
        LLVMFuzzerTestOneInput(input.data, input.len);
    }
    buffer_free(&input);
    return 0;
}

#ifndef WAL_FRAME_FUZZ_NO_MAIN
int
main(int argc, char **argv)
{
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) / 100 : 20000;

    for (int i = 1; rounds == 0 && i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        uint8_t data[65536];

        if (f == NULL) {
            perror(argv[i]);
            return 1;
        }
        LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof data, f));
        fclose(f);
    }
    return wal_frame_fuzz(rounds, argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
}
#endif
#endif
