/*
 * wal_int.h - what the files of wal/ share: frames, segments, the state of a log.
 *
 * frame.c    bytes of header blocks and frames (pure)
 * segment.c  segment files: paths, opening, creating; the cursor that reads frames
 * recover.c  wal_open(): which frames make up the log
 * append.c   wal_start(), groups, writing, syncing, marks
 * space.c    promises, the segment ahead, the reserve file, NOSPACE
 * reader.c   reading entries back, by revision
 * inspect.c  wal_inspect(): a look at the files for people, whatever state they are in
 * drop.c     deleting the oldest segments
 *
 * Lock order: create_lock before lock.  No I/O is done with `lock` held.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef WAL_WAL_INT_H
#define WAL_WAL_INT_H

#include <stdatomic.h>

#include "env/thread.h"
#include "wal/wal.h"

#ifdef T4_ASSERTIONS
#include <assert.h>
#define WAL_ASSERT(condition) assert(condition)
#else
#define WAL_ASSERT(condition) ((void)0)
#endif

/* Frames: see frame.c. */
#define SEGMENT_HEADER_BYTES 4096u
#define FRAME_HEADER_BYTES 24u
#define FRAME_ALIGN 8u
#define FRAME_MIN_BYTES 32u
#define MARK_FRAME_BYTES 32u
#define START_FRAME_BYTES 72u

enum frame_kind { FRAME_ENTRY = 1, FRAME_START = 2, FRAME_MARK = 3 };

struct frame {
    uint64_t offset; /* in its segment */
    size_t size;     /* with header and padding */
    enum frame_kind kind;
    uint64_t synced_through, object_frontier;
    uint64_t term;
    int64_t revision;      /* entry: its own; start: that of entry log_end, -1 unknown */
    struct t4_slice entry; /* entry: the encoded entry */
    uint64_t index;        /* entry */
    uint64_t generation, log_end, first_index; /* start */
};

struct segment_header {
    uint64_t cluster_id, lineage, number, salt, bytes;
};

void header_encode(uint8_t block[SEGMENT_HEADER_BYTES], const struct segment_header *h);
/* CORRUPT or UNSUPPORTED; fills the error's text without the file's name. */
t4_status header_decode(const uint8_t block[SEGMENT_HEADER_BYTES],
                        struct segment_header *h, struct error *error);

/* Appends an unfinished frame: all but checksum, synced_through, object_frontier. */
void frame_append_entry(struct buffer *out, struct t4_slice entry);
void frame_append_mark(struct buffer *out);
void frame_append_start(struct buffer *out, const struct frame *f);
/* Size of the frame that begins with these bytes, padding included; 0: cannot be one. */
size_t frame_size_at(const uint8_t *p);
/* Makes an unfinished frame fit for its place. */
void frame_finish(uint8_t *p, uint64_t salt, uint64_t offset, uint64_t synced_through,
                  uint64_t object_frontier);
/* True: the n bytes at p are a valid frame.  The entry points into p. */
bool frame_parse(const uint8_t *p, size_t n, uint64_t salt, uint64_t offset,
                 struct frame *f);
/*
 * Could this be the first 32 bytes of a frame, in a log whose indexes end below
 * `ceiling`? Cheap; used when searching behind a bad frame.
 */
bool frame_plausible(const uint8_t *p, uint64_t ceiling);

/* A point of the sparse index: an entry and where its frame is. */
struct point {
    uint64_t offset, index;
    int64_t revision;
};

#define POINT_DISTANCE 65536u

struct points {
    struct point *at;
    size_t count, capacity;
};

void points_add(struct points *p, uint64_t offset, uint64_t index, int64_t revision);

/*
 * A segment file.  `number` to `started` are constant for a started segment; the rest of
 * a spare one changes under create_lock.
 */
struct segment {
    uint64_t number, bytes, salt;
    bool started;     /* its first frame is a valid start frame [lock] */
    uint64_t log_end; /* the rest: from that frame [lock] */
    uint64_t first_index;
    int64_t before_revision; /* revision of entry first_index - 1; -1: not known [lock] */
    uint64_t generation, term;

    bool live;           /* its entries up to last_index belong to the log [lock] */
    bool clean;          /* not started, and nothing but zeros behind the header [lock] */
    bool clean_tail;     /* after recovery: nothing but zeros behind `end` */
    bool indexed;        /* points are complete [lock] */
    bool dirty;          /* holds frames that were not synced [sync thread] */
    uint64_t last_index; /* first_index - 1: no entry [lock] */
    uint64_t end;        /* behind the last frame; `bytes` where not known [lock] */
    struct points points; /* [lock] */
    struct env_file
        *file; /* open while it may be written [sync thread; spare: create_lock] */
};

/* What of a group goes to one segment. */
struct part {
    struct segment *segment;
    size_t position;
    size_t from, to;      /* bytes of the group's frames */
    uint64_t offset, end; /* in the segment; a start frame before `offset` not included */
    bool starts;          /* the segment gets a start frame first: */
    uint64_t log_end, last_index;
    int64_t before_revision;
};

struct wal {
    struct wal_options options; /* [const] dir is our copy */
    struct env *env;            /* [const] */
    bool any_identity;          /* [const] segments of any cluster are taken: inspect.c */

    struct mutex create_lock; /* held while a segment or the reserve file is being made */
    struct mutex lock;        /* leaf */

    struct segment **segments; /* ascending numbers, no holes [lock] */
    size_t count, capacity;    /* [lock] */
    size_t active;             /* position; SIZE_MAX: not started [lock] */
    size_t region;  /* position of the first segment after the last gap [lock] */
    size_t dropped; /* how many of the first were deleted; their places are kept [lock] */
    struct wal_reader *readers; /* open ones: what they read is not dropped [lock] */

    _Atomic bool dead, nospace, roll;
    _Atomic bool wants;               /* a segment or the reserve file has to be made */
    _Atomic bool reserve_present;     /* the reserve file is there */
    _Atomic uint64_t written, synced; /* last index that is */
    _Atomic size_t promised;          /* bytes of frames promised and not yet written */
    _Atomic size_t largest_promised;

    /* [sync thread] */
    bool continues;   /* recovery: the last started segment may be continued */
    uint64_t flushed; /* as given to wal_open() */
    uint64_t generation, term;
    _Atomic uint64_t object_frontier; /* for frames to come */
    int64_t last_revision;            /* of entry `written`; -1: not known */
    bool marked;                      /* the newest frame's synced_through is `written` */
    struct segment **unsynced;
    size_t unsynced_count, unsynced_capacity;
    struct part *parts; /* plan of the group that is being written */
    size_t part_count, part_capacity;
    struct buffer scratch;
};

/* segment.c */
#define PATH_BYTES 4096
#define RESTORE_HINT                                                                     \
    "restore the file from a copy of the data directory; do not delete the data "        \
    "directory "                                                                         \
    "or files of its log: writes that were acknowledged may exist nowhere else"

/* Fails with INVALID if a path below dir could be longer than PATH_BYTES. */
t4_status wal_check_dir(const char *dir, struct error *error);
/* A file of the log's directory; path has PATH_BYTES. */
void wal_path(const struct wal *w, char *path, const char *name);
void segment_path(const struct wal *w, uint64_t number, char *path);
/* Parses the name of a segment file. */
bool segment_name_parse(const char *name, uint64_t *number);
/*
 * The numbers of the segment files that there are, ascending; the caller frees them.  NOTFOUND:
 * there is no such directory.
 */
t4_status segment_numbers(const struct wal *w, uint64_t **numbers, size_t *count,
                          struct error *error);
void segment_free(struct wal *w, struct segment *s);
/* Reads header block and first frame of an existing file.  The file is not kept open. */
t4_status segment_load(struct wal *w, uint64_t number, struct segment **out,
                       struct error *error);
/*
 * Creates segment `number`: zeros, header with a new salt, fsync, rename into place (over
 * a spare one of that number), directory fsync.  Open for writing and clean afterwards.
 * NOSPACE: nothing is left behind.  [create_lock]
 */
t4_status segment_create(struct wal *w, uint64_t number, uint64_t bytes,
                         struct segment **out, struct error *error);
t4_status segment_open(struct wal *w, struct segment *s, struct error *error);
/* Writes n zero bytes from `offset` on, at most a few MiB ahead of the disk. */
t4_status fill_zeros(struct wal *w, struct env_file *file, uint64_t offset, uint64_t n,
                     struct error *error);

/* Reads the frames of one segment in order, a chunk at a time. */
struct cursor {
    struct wal *w;
    const struct segment *segment;
    struct env_file *file;
    uint64_t offset; /* of the next frame */
    uint64_t end;    /* nothing is read at or above it */
    size_t chunk;    /* bytes per read */
    uint8_t *data;   /* bytes [start, start + length) of the file */
    uint64_t start;
    size_t length, capacity;
};

t4_status cursor_open(struct cursor *c, struct wal *w, const struct segment *s,
                      uint64_t offset, uint64_t end, size_t chunk, struct error *error);
void cursor_close(struct cursor *c);
/*
 * Parses the frame at c->offset and moves behind it if it is valid, else sets *valid to
 * false and stays.  What *f points to holds until the next call.  Errors: IO.
 */
t4_status cursor_frame(struct cursor *c, struct frame *f, bool *valid,
                       struct error *error);
/*
 * Searches on from c->offset for the next valid frame, at every multiple of 8.  *found
 * false: there is none before the end.
 */
t4_status cursor_search(struct cursor *c, uint64_t ceiling, struct frame *f, bool *found,
                        struct error *error);
/* Is everything from c->offset to the end zero?  Does not move. */
t4_status cursor_zero_rest(struct cursor *c, bool *zero, struct error *error);

/* reader.c */
struct wal_reader {
    struct wal *w;
    struct wal_reader *next_reader, **reader_link; /* in wal.readers [lock] */
    struct cursor cursor;
    size_t position;     /* of the segment the cursor reads [lock] */
    uint64_t last_index; /* newest known entry of that segment */
    uint64_t next_index;
    int64_t min_revision; /* entries below are passed over; 0 once one was returned */
    uint64_t min_index;   /* and those */
};

/* append.c */
t4_status wal_dead(struct wal *w, struct error *error); /* marks dead; returns IO */
t4_status wal_check_alive(struct wal *w, struct error *error);

/* space.c */
/*
 * Makes sure that the segment at `position` (at most `count`) is a clean one of at least
 * `bytes`, open for writing.  Takes create_lock.
 */
t4_status segment_ready(struct wal *w, size_t position, uint64_t bytes,
                        struct segment **out, struct error *error);
void reserve_check(struct wal *w); /* is the reserve file there? */
/* NOSPACE was met: raises the state, gives the reserve up.  True: something was freed. */
bool reserve_give_up(struct wal *w);

#endif
