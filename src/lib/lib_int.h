/*
 * lib_int.h - what the files of the library share.
 *
 * A call of a user: lib_enter() (is the database open, sound, and of this process?), work,
 * lib_leave().  While calls are inside, the node is not freed; t4_close() stops the node, which
 * ends every wait, then waits until nobody is inside.
 *
 * A handle holds a reference of its t4_db (lib_ref), so that it can be closed after t4_close().
 *
 * Threads: any, unless it says otherwise.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LIB_LIB_INT_H
#define LIB_LIB_INT_H

#include <stdatomic.h>

#include "backends/backends.h"
#include "base/buffer.h"
#include "base/log.h"
#include "env/thread.h"
#include "env/workers.h"
#include "include/t4.h"
#include "node/node.h"

/* --- errors (error.c) ------------------------------------------------------------------------ */

/* Each fills *error, which may be NULL, and returns the status. */
t4_status lib_fail(t4_error *error, t4_status status, const char *message,
                   const char *hint);
t4_status lib_fail_internal(t4_error *error, const struct error *from);
t4_status lib_fail_request(t4_error *error, enum etcd_error e);

/* --- owned memory (owned.c) ------------------------------------------------------------------ */

/*
 * Everything one result is made of: allocated piece by piece, freed at once by t4_free() of
 * the pointer that lib_owned_new() gave.
 */
struct owned;
void *lib_owned_new(size_t n, struct owned **out); /* zeroed */
void *lib_owned_add(struct owned *o, size_t n);    /* zeroed; aligned for anything */
struct t4_slice lib_owned_copy(struct owned *o, struct t4_slice bytes);

/* --- answers (answer.c) ---------------------------------------------------------------------- */

/* Decode a complete response message; the chain is emptied.  NULL: malformed. */
t4_result *lib_answer(int32_t kind, struct chain *message);
/* Repeated KeyValue (field 2): the piece of a range.  Appends to `o`. */
bool lib_answer_kvs(struct owned *o, struct t4_slice message, const t4_kv **kvs,
                    size_t *n);

/* A WatchResponse. */
struct watch_answer {
    bool created, canceled;
    int64_t compact_revision;
    struct t4_slice reason;
    t4_events *events; /* for t4_free(); `reason` ends with it */
};
bool lib_answer_watch(struct chain *message, struct watch_answer *out);

/* --- the database (open.c) ------------------------------------------------------------------- */

/* Counts who is inside; once shut nobody enters, and somebody can wait until it is empty. */
struct gate {
    _Atomic uint64_t inside;
    _Atomic bool shut;
    struct mutex lock;
    struct condition left;
};
bool gate_enter(struct gate *g);
void gate_leave(struct gate *g);
void gate_shut(struct gate *g);
void gate_wait_empty(struct gate *g);

/* A user function that is to be called on the callback thread. */
struct lib_callback {
    struct job job;
    struct t4_db *db;
    void (*run)(struct lib_callback *c); /* may free it */
};

struct t4_db {
    struct backends backends; /* [const after open] */
    struct node *node;        /* [const after open] */
    uint32_t *alive; /* on a page that fork() wipes: 1 in the process that opened */
    _Atomic uint32_t references; /* the user's, one for each handle and each call */
    struct log_sink sink;        /* [const after open] */
    t4_log_fn *log;
    void *log_arg;
    t4_failed_fn *failed;
    void *failed_arg;
    uint32_t max_request_bytes, max_txn_ops;

    struct gate calls;             /* whoever may touch the node; shut by t4_close() */
    struct gate submits;           /* in node_submit(); shut before node_stop() */
    struct workers *callbacks;     /* one thread: user functions, in order */
    _Atomic uint32_t asynchronous; /* requests whose `done` was not called yet */

    struct mutex lock;
    bool opened;              /* [lock] node is set */
    bool stopping;            /* [lock] node_stop() was called, or will be */
    bool has_stopper;         /* [lock] */
    bool told;                /* [lock] `failed` was called, or will be */
    _Atomic bool broken;      /* set with the lock held, once */
    struct error why;         /* [const after broken] */
    struct thread stopper;    /* [lock] stops a broken node */
    struct t4_watch *watches; /* [lock] open ones */
};

/* One call of a user, on its stack. */
struct lib_call {
    t4_db *db;
    t4_error *error;
    const struct log_sink *sink; /* the thread's own */
};

/* T4_OK, and lib_leave() follows; else the call is refused with that. */
t4_status lib_enter(struct lib_call *c, t4_db *db, t4_error *error);
/* Returns the call's status: if the database broke meanwhile, with the words of that. */
t4_status lib_leave(struct lib_call *c, t4_status status);
/* False: the handle came here through a fork; lib_enter() looks at that by itself. */
bool lib_is_of_this_process(const t4_db *db);
t4_status lib_refuse_forked(t4_error *error);
t4_db *lib_ref(t4_db *db);
void lib_unref(t4_db *db);
/* c->db is set; within a call, or while the node is not stopped. */
void lib_call_back(struct lib_callback *c);
/* The calling thread is in a user function of this database. */
bool lib_is_calling_back(const t4_db *db);

/* Hands a request to the node, or answers it with STOPPED. */
void lib_submit(t4_db *db, struct node_request *r);
/* For waits of all kinds: something that one thread waits for and another one tells. */
struct lib_signal {
    struct mutex lock;
    struct condition changed;
    bool set;
};
void lib_signal_init(struct lib_signal *s);
void lib_signal_set(struct lib_signal *s);
void lib_signal_wait(struct lib_signal *s); /* and destroys it */

/* watch.c: ends every watch; the node is stopped. */
void lib_watches_end(t4_db *db);

/* --- options (options.c) --------------------------------------------------------------------- */

/* What an open takes of the user's options; points into them and into itself. */
struct lib_settings {
    struct t4_values values;
    struct plugin_setting *engine_settings, *store_settings;
    size_t n_engine_settings, n_store_settings;
    struct backends_options backends;
};
t4_status lib_options_read(const t4_options *options, const char *data_dir,
                           struct lib_settings *out, struct node_options *node,
                           struct error *error);
/* After the store was opened: INVALID names a setting of a plugin that nothing uses. */
t4_status lib_options_check(const struct lib_settings *s, const struct backends *b,
                            struct error *error);
void lib_options_release(struct lib_settings *s);
void lib_options_callbacks(const t4_options *options, t4_db *db);

/* --- requests (write.c, read.c, txn.c) --------------------------------------------------------- */

/*
 * What a user's struct says, up to its size; NULL: the defaults.  INVALID: its size is none, or
 * a flag is not one of `allowed`.
 */
t4_status lib_write_options(const t4_write_options *given, uint32_t allowed,
                            t4_write_options *out, t4_error *error);
t4_status lib_read_options(const t4_read_options *given, uint32_t allowed,
                           t4_read_options *out, t4_error *error);
/* Any struct that begins with its size. */
t4_status lib_take_struct(const void *given, size_t minimum, void *out, size_t n,
                          t4_error *error);
t4_status lib_check_flags(uint32_t flags, uint32_t allowed, t4_error *error);
void lib_put_request(struct t4_slice key, struct t4_slice value,
                     const t4_write_options *o, struct put_request *out);
void lib_delete_request(struct t4_slice key, struct t4_slice end,
                        const t4_write_options *o, struct delete_range_request *out);
void lib_range_request(struct t4_slice key, struct t4_slice end, const t4_read_options *o,
                       struct range_request *out);
#define LIB_PUT_FLAGS (T4_PREV_KV | T4_IGNORE_VALUE | T4_IGNORE_LEASE | T4_OBJECT_DURABLE)
#define LIB_DELETE_FLAGS (T4_PREV_KV | T4_OBJECT_DURABLE)
#define LIB_RANGE_FLAGS (T4_KEYS_ONLY | T4_COUNT_ONLY | T4_SERIALIZABLE | T4_DESCEND)

/* What a write is made of, whatever it is. */
struct lib_write {
    struct node_request request;
    int32_t kind;               /* T4_RESULT_*: of its answer */
    enum etcd_error wrong;      /* found before it is submitted */
    struct lib_signal answered; /* of one that is waited for */
};
#define LIB_REQUEST_BASE                                                                 \
    64u /* bytes of an encoded request or operation besides its contents */
/* Its size and flags; UNREACHABLE, TOO_LARGE are found here. */
void lib_write_prepare(t4_db *db, struct lib_write *w, uint64_t bytes, uint32_t flags);
/* Carries it out; *result (may be NULL) is its answer.  Within a call. */
t4_status lib_write_do(t4_db *db, struct lib_write *w, t4_result **result,
                       t4_error *error);

/*
 * The same, asynchronously: lib_async_new(), the write is filled in (what it borrows is copied to
 * `memory`, or is the transaction's), then lib_async_submit(), which takes it over.
 */
struct async {
    struct lib_callback callback;
    struct lib_write write;
    t4_done_fn *done;
    void *arg;
    void *result; /* the first piece of `memory` */
    struct owned *memory;
    t4_txn *txn; /* freed with it; may be NULL */
};
struct async *lib_async_new(t4_db *db, t4_done_fn *done, void *arg);
void lib_async_free(struct async *a);
t4_status lib_async_submit(struct async *a, t4_error *error);

/* Reads that wait, on the caller's thread.  Within a call. */
struct read_gate {
    t4_db *db;
    uint32_t repeated;
};
/* Before: is it on this disk?  One of range and txn is NULL.  ETCD_OK: read now. */
enum etcd_error lib_read_ready(const struct read_gate *g,
                               const struct range_request *range,
                               const struct txn_request *txn);
/*
 * After a linearizable read that gave *e: true if it may have been old, and is to be made again
 * (*e is ETCD_OK then).
 */
bool lib_read_again(struct read_gate *g, enum etcd_error *e);

#endif
