/*
 * sst.h - sorted files (SSTs) and runs: what checkpoints consist of.
 *
 * An SST is one immutable object of records: encoded keys in ascending order with their
 * encoded values, byte for byte as the storage engine holds them (fmt/record.h), so that
 * hydration installs them without encoding anything again.  A run is a list of SSTs that do
 * not overlap, kept in an object of its own, the run index.  The same records give the same
 * bytes on every node; files are cut where the content says so, so that a merge of runs makes
 * most of its files again under their old names.
 *
 * Byte layouts: top of writer.c (SST), run.c (run index), filter.c (filter and hash).  Why files
 * are cut where they are: README.md.
 *
 * No I/O: objects are byte strings in memory, and who fetches and stores them is the caller.
 * Everything is owned by one thread at a time, except that an open `struct sst` and a
 * `struct run_index` may be read by many.
 *
 * Errors: CORRUPT: the bytes are not what they must be; UNSUPPORTED: written by a newer version;
 * INVALID: the caller broke the contract.  Messages do not name the object: its reader wraps
 * them (error_wrap).  Damaged or hostile bytes never cost more memory than the object's size
 * and one block.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SST_SST_H
#define SST_SST_H

#include "base/buffer.h"
#include "base/error.h"
#include "codec/codec.h"

#define SST_BLOCK_BYTES (64u * 1024) /* raw; only a single larger record makes more */
#define SST_BLOCK_MAX (64u * 1024 * 1024) /* largest record, and so largest block */
#define SST_OBJECT_MAX (96u << 20) /* one record of the largest size, and the rest */
#define RUN_OBJECT_MAX (256u << 20)
#define SST_RAW_MIN (512u * 1024)       /* a file is not cut below this (raw bytes) */
#define SST_RAW_MEAN (3u * 1024 * 1024) /* what files have on average */
#define SST_RAW_MAX                                                                      \
    (12u * 1024 * 1024) /* a file is cut at the first new key above this */

/* What is known of a finished file.  The two keys are borrowed: from whom says the function. */
struct sst_info {
    uint8_t sha256[SHA256_BYTES];  /* of the object's bytes: its name */
    uint8_t content[SHA256_BYTES]; /* of the records before compression */
    uint64_t object_bytes;
    uint64_t raw_bytes; /* records before compression, lengths included */
    uint64_t records;
    struct t4_slice first, last;   /* smallest and largest internal key (fmt/record.h) */
    uint64_t min_stamp, max_stamp; /* of the records of space 'k'; both 0: it has none */
};

/*
 * The hash behind cutting and filters: FNV-1a of 64 bits with the finalizer of MurmurHash3.  A
 * constant of the format.
 */
uint64_t sst_hash(struct t4_slice ikey);

/* --- filter (filter.c) ----------------------------------------------------------------- */

/* A Bloom filter over internal keys, 10 bits per key.  Zeros: none, excludes nothing. */
struct sst_filter {
    uint64_t keys; /* how many it was made of */
    struct buffer bits;
};

/* Collects keys; 8 bytes of memory for each.  Begins as zeros. */
struct sst_filter_builder {
    uint64_t *hash;
    size_t n, capacity;
};

/* Adds a key by its sst_hash(); the same as just before counts once. */
void sst_filter_add(struct sst_filter_builder *b, uint64_t hash);
/* *f becomes the filter of what was added (freeing what it was); the builder is empty again. */
void sst_filter_build(struct sst_filter_builder *b, struct sst_filter *f);
void sst_filter_builder_free(struct sst_filter_builder *b);
bool sst_filter_excludes(const struct sst_filter *f, struct t4_slice ikey);
void sst_filter_free(struct sst_filter *f);

/* --- writing (writer.c) ------------------------------------------------------------------ */

struct sst_writer;

/* `filter`: gets every key written, over all files until the caller builds it; or NULL. */
struct sst_writer *sst_writer_new(struct sst_filter_builder *filter);
void sst_writer_free(struct sst_writer *w); /* NULL is fine */
/*
 * Adds a record; everything is copied.  CORRUPT: it fails its checksum or its key is no key, so
 * that nothing damaged is ever written; INVALID: not above the record before it, or above
 * SST_BLOCK_MAX.  After a failure only sst_writer_free() is left.
 */
t4_status sst_writer_add(struct sst_writer *w, struct t4_slice key, struct t4_slice value,
                         struct error *error);
/*
 * True if the file should end here, `key` being the encoded key of the next record: finish it,
 * then add the record to the next file.  Depends on nothing but the records of this file, and on
 * whether `key` begins a new key: versions of one key are never parted.
 */
bool sst_cut_here(const struct sst_writer *w, struct t4_slice key);
uint64_t sst_writer_records(const struct sst_writer *w); /* in the file at hand */
/*
 * Ends the file.  *object (any buffer of the caller's) becomes its bytes; the keys in *info are
 * valid until the next call on the writer, which is empty again.  INVALID: no records.
 */
t4_status sst_writer_finish(struct sst_writer *w, struct buffer *object,
                            struct sst_info *info, struct error *error);

/* --- reading (reader.c) ------------------------------------------------------------------ */

struct sst;

/* That these bytes are the file that `info` speaks of: length and SHA-256; else CORRUPT. */
t4_status sst_check_object(struct t4_slice object, const struct sst_info *info,
                           struct error *error);
/*
 * Opens a whole object, which stays the caller's and must outlive the sst.  Footer and index are
 * verified, blocks when they are read.
 */
t4_status sst_open(struct t4_slice object, struct sst **out, struct error *error);
void sst_close(struct sst *s); /* NULL is fine */
/* What the file says of itself, and the SHA-256 of its bytes, computed by each call. */
void sst_get_info(const struct sst *s, struct sst_info *info); /* keys: the sst's */
/*
 * Reads everything: all blocks, order and checksum of every record, counts, stamps, content
 * hash.
 */
t4_status sst_verify(const struct sst *s, struct error *error);

/* A place in an open file, with one block of it.  Begin with sst_cursor_init(). */
struct sst_cursor {
    const struct sst *sst;
    uint32_t next_block; /* the one after the one in `raw` */
    struct buffer raw;
    struct byte_reader left; /* of raw */
    struct t4_slice key;     /* last one read from this block; data NULL: none */
};

void sst_cursor_init(struct sst_cursor *c,
                     const struct sst *s); /* before the first record */
void sst_cursor_free(struct sst_cursor *c);
/*
 * The first record at or above an encoded key, or the next one.  NOTFOUND at the end.  Key and
 * value are valid until the next call on the cursor.  Order and block checksums are verified,
 * records are not (record_verify()).  After CORRUPT only seek and free are left.
 */
t4_status sst_cursor_seek(struct sst_cursor *c, struct t4_slice at, struct t4_slice *key,
                          struct t4_slice *value, struct error *error);
t4_status sst_cursor_next(struct sst_cursor *c, struct t4_slice *key,
                          struct t4_slice *value, struct error *error);

/* --- merging (merge.c) -------------------------------------------------------------------- */

/*
 * Where records come from, in ascending order.  next(): NOTFOUND at the end; key and value are
 * valid until the next call on this source.  `state` stays the caller's.
 */
struct sst_source {
    t4_status (*next)(void *state, struct t4_slice *key, struct t4_slice *value,
                      struct error *error);
    void *state;
};

struct sst_source sst_cursor_source(struct sst_cursor *c); /* from where it is */

/*
 * Changes of the log (fmt/entry.h), sorted in memory.  Begins as zeros.  `sub` counts the changes of
 * one entry, as for mutation_version().  Everything is copied.  After the source was taken only
 * clear and free are left; what it gives lives until then.
 */
struct entry;
struct mutation;
struct sorter_record;
struct sst_sorter {
    struct buffer arena, ikey;
    struct sorter_record *record;
    size_t n, capacity, next; /* n: records */
};

void sst_sorter_add(struct sst_sorter *s, const struct entry *e, const struct mutation *m,
                    uint32_t *sub);
/* Bytes of any kind, sorted by the key's. */
void sst_sorter_put(struct sst_sorter *s, struct t4_slice key, struct t4_slice value);
size_t sst_sorter_bytes(const struct sst_sorter *s); /* that it holds */
struct sst_source sst_sorter_source(struct sst_sorter *s);
void sst_sorter_clear(struct sst_sorter *s);
void sst_sorter_free(struct sst_sorter *s); /* zeros again */

/*
 * All records of several sources in order.  Records equal in key and value are given once;
 * equal keys with different values are CORRUPT, as is a source out of order.  After any
 * failure only free is left.
 */
struct sst_merge;
struct sst_merge *sst_merge_new(const struct sst_source *sources,
                                size_t n); /* newest first */
void sst_merge_free(struct sst_merge *m);  /* NULL is fine */
t4_status sst_merge_next(struct sst_merge *m, struct t4_slice *key,
                         struct t4_slice *value, struct error *error);
struct sst_source sst_merge_source(struct sst_merge *m);

/*
 * The records of a source without those that nobody can read any more.
 * Space 'k': a version goes if a newer one at or below `compacted` stands above it.
 * Spaces 's' and 'l': all but the newest version go.
 * With `is_base` (nothing lies below) a tombstone goes, too, where it would be the oldest
 * version that is left: below `compacted` in 'k', any in 's' and 'l'.
 * CORRUPT: a record fails its checksum or is of no known space.  Zero it, set the first three;
 * `compacted` is 0 where there never was a compaction.
 */
struct sst_reduce {
    struct sst_source source;
    int64_t compacted;
    bool is_base;
    uint64_t seen, kept;   /* records */
    struct buffer current; /* what the keys of the versions at hand begin with */
    bool settled;          /* the rest of these versions goes */
};

t4_status sst_reduce_next(struct sst_reduce *r, struct t4_slice *key,
                          struct t4_slice *value, struct error *error);
struct sst_source sst_reduce_source(struct sst_reduce *r);
void sst_reduce_free(struct sst_reduce *r); /* what it allocated, not the source */

/* --- runs (run.c) ------------------------------------------------------------------------- */

/* A file of a run.  Term and index are those of the checkpoint that first wrote it: its key. */
struct run_sst {
    struct sst_info info; /* its keys belong to the run_index */
    uint64_t term, index;
};

/*
 * A run: what a log interval left, or several folded.  Begins as zeros.
 * Invariant: the files ascend and no two share an internal key.
 */
struct run_index {
    uint64_t first_index; /* the interval begins above it */
    uint64_t last_index;  /* and ends with it */
    int64_t last_revision;
    int64_t compacted; /* compacted revision that it was reduced by */
    bool is_base;      /* nothing lies below */
    struct run_sst *sst;
    size_t n, capacity;
    struct sst_filter filter; /* over all internal keys; zeros: none */
    /*
     * The records of space 's' (leases, settings), as an SST within this object: who begins from
     * a checkpoint needs them before it can lead.  Empty: none.
     */
    struct buffer system;
};

/* Appends a file; the keys are copied.  INVALID: not above the one before it, or empty. */
t4_status run_index_add(struct run_index *run, const struct sst_info *info, uint64_t term,
                        uint64_t index, struct error *error);
void run_index_encode(struct buffer *out, const struct run_index *run);
/* *run is overwritten, not freed; on failure there is nothing to free.  Copies what it needs. */
t4_status run_index_decode(struct t4_slice object, struct run_index *run,
                           struct error *error);
void run_index_free(struct run_index *run); /* zeros again */

/*
 * The files that may hold internal keys from lo to hi, both included, by their bounds:
 * run->sst[*from] up to, but not including, [*to].  lo is not above hi.
 */
void run_find(const struct run_index *run, struct t4_slice lo, struct t4_slice hi,
              size_t *from, size_t *to);
/* False: bounds or filter say that no version of the internal key is in the run. */
bool run_may_hold(const struct run_index *run, struct t4_slice ikey);

/* Keys of the objects: "sst/" or "run/", SHA-256, term, index.  With a terminator. */
#define SST_KEY_BYTES (4 + 2 * SHA256_BYTES + 1 + 20 + 1 + 20 + 1)
void sst_key(char key[SST_KEY_BYTES], const uint8_t hash[SHA256_BYTES], uint64_t term,
             uint64_t index);
void run_key(char key[SST_KEY_BYTES], const uint8_t hash[SHA256_BYTES], uint64_t term,
             uint64_t index);
/* False: not such a key, or one that these functions would write in another way. */
bool sst_key_parse(struct t4_slice key, uint8_t hash[SHA256_BYTES], uint64_t *term,
                   uint64_t *index);
bool run_key_parse(struct t4_slice key, uint8_t hash[SHA256_BYTES], uint64_t *term,
                   uint64_t *index);

#endif
