/*
 * sst_bed.h - for tests of sorted files: records in a plain sorted array, files made of them,
 * and a second, plain implementation of the file format.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SST_BED_H
#define SST_BED_H

#include "engine_bed.h"
#include "fmt/entry.h"
#include "fmt/record.h"
#include "sst/sst.h"

struct record {
    struct buffer key, value; /* encoded */
    struct buffer ikey;
    uint64_t stamp;
    bool tombstone;
};

struct records {
    struct record *r;
    size_t n, capacity;
};

/* ikey: with its space. */
void records_add(struct records *set, struct t4_slice ikey, uint64_t stamp,
                 bool tombstone, struct t4_slice value);
void records_copy(struct records *set, const struct record *r);
/* Sorted; of records with equal keys one is left. */
void records_sort(struct records *set);
/* About n records of few keys with many versions, in all spaces, with odd bytes. */
void records_random(struct records *set, size_t n, struct chance *c);
/* n keys of space 'k', one version each, values of 1 to 2 * mean bytes: half of them random. */
void records_bulk(struct records *set, size_t n, size_t mean, struct chance *c);
void records_free(struct records *set);

/* The records as a run: files cut where they should be. */
struct files {
    struct run_index run; /* term 1, index 2 */
    struct buffer *object;
};

void files_write(struct files *f, const struct records *set);
void files_free(struct files *f);

/* The whole set as one file, by the writer.  info: its keys are the set's. */
void file_write(struct buffer *object, struct sst_info *info, const struct records *set);

/* --- the format once more --------------------------------------------------------------- */

/* A file in the making, to be bent before it is sealed. */
struct plain_block {
    struct buffer first, raw;
};

struct plain_file {
    struct plain_block *block;
    uint32_t blocks;
    struct buffer last;
    uint64_t records, min_stamp, max_stamp;
    bool wrong_content; /* another content hash */
    uint64_t raw_claim; /* added to the raw length of the first block in the index */
    uint32_t format, codec;
};

void plain_make(struct plain_file *p, const struct records *set);
/* All checksums are right, whatever the rest says. */
void plain_seal(const struct plain_file *p, struct buffer *object);
void plain_free(struct plain_file *p);

/* --- reading ---------------------------------------------------------------------------- */

/* Opens and verifies. */
t4_status file_check(struct t4_slice object, struct error *error);
/* That the source gives exactly these records. */
void assert_source_gives(struct sst_source source, const struct records *set);
/* A source that reads an array. */
struct array_source {
    const struct records *set;
    size_t next;
    size_t asked_at_end; /* times */
};
struct sst_source array_source(struct array_source *a, const struct records *set);

#endif
