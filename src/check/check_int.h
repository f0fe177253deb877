/*
 * check_int.h - what the files of the kit share: TAP, a store under check, calls to it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CHECK_CHECK_INT_H
#define CHECK_CHECK_INT_H

#include "base/buffer.h"
#include "base/slice.h"
#include "check/check.h"
#include "object/object.h"

#define CHECK_KEY_MAX 1024
#define NS_PER_S ((uint64_t)1000000000)
#define NS_PER_MS ((uint64_t)1000000)

/* --- TAP (tap.c) -------------------------------------------------------------------- */

struct check {
    const struct check_options *options;
    unsigned count, failed;
};

/* One line; returns `good`. */
bool check_ok(struct check *c, bool good, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void check_note(struct check *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void check_skip(struct check *c, const char *what, const char *why);
bool check_done(struct check *c); /* writes the plan; true: nothing failed */

/* --- a store under check (store.c) -------------------------------------------------- */

struct world {
    struct check *check;
    const char *url;
    struct object_store *store;
    const struct t4_object_ops *ops;
    struct t4_store *handle;
    char prefix[64]; /* ends with '/'; all keys lie below it */
};

/* What came of one call.  check_answer_free() is needed after a get only. */
struct answer {
    t4_status status;
    struct error error;
    struct t4_object_info info;
    struct buffer body;
};

void check_answer_free(struct answer *a);
bool world_open(struct world *w, struct check *c, const char *url);
void world_close(struct world *w);
/* Removes everything below the prefix; false, and a note, if that is not possible. */
bool world_clear(struct world *w);

/* A key below the prefix; valid until the end of the caller's buffer. */
struct t4_slice world_key(const struct world *w, uint8_t buffer[CHECK_KEY_MAX],
                          struct t4_slice name);

/*
 * Calls straight into the table, so that statuses come as the plugin gives them.  `name` is
 * below the prefix.  Every call has a deadline of 60 s.
 */
t4_status world_put_if(struct world *w, struct answer *a, const char *name,
                       struct t4_slice body, uint32_t condition, struct t4_slice tag);
t4_status world_put(struct world *w, struct answer *a, const char *name,
                    const char *body);
t4_status world_create(struct world *w, struct answer *a, const char *name,
                       const char *body);
t4_status world_replace(struct world *w, struct answer *a, const char *name,
                        const char *body, const struct t4_object_info *tag_of);
t4_status world_get(struct world *w, struct answer *a, const char *name);
t4_status world_get_range(struct world *w, struct answer *a, const char *name,
                          uint64_t offset, uint64_t length);
t4_status world_head(struct world *w, struct answer *a, const char *name);
t4_status world_remove_one(struct world *w, struct answer *a, const char *name);

struct t4_call check_call(struct answer *a, uint64_t deadline_ns,
                          const int32_t *cancelled);
uint64_t check_now_ns(void);

/* The answer is `status`; if not, what it was is noted. */
bool world_answer(struct world *w, const struct answer *a, t4_status status,
                  const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The object is there with this body. */
bool world_body(struct world *w, const char *name, const char *body, const char *what);
bool check_same_tag(const struct t4_object_info *a, const struct t4_object_info *b);

/* The names below the prefix that a listing gives, each ended by '\n'. */
t4_status world_list_names(struct world *w, struct answer *a, const char *prefix,
                           const char *after, uint32_t max, struct buffer *names,
                           size_t *n);

/* --- parts -------------------------------------------------------------------------- */

void check_descriptor(struct check *c, struct plugin *p);
void check_objects(struct world *w); /* objects.c: single calls and conditions */
void check_keys(struct world *w);    /* keys.c */
void check_listing(struct world *w); /* listing.c */
void check_races(struct world *w);   /* races.c */
void check_limits(struct world *w);  /* limits.c: deadlines, cancelling, large bodies */
void check_answers(struct check *c, const char *url); /* answers.c: through fault+ */
void check_cycles(struct check *c, const char *url);  /* cycles.c: open and close */
/* How much is in a folder such as /proc/self/fd; "." and ".." count. */
unsigned check_entries(const char *path);
/* Entries of /proc/self/task, once they are no more than `expected` or after two seconds. */
unsigned check_threads_at_most(unsigned expected);

#endif
