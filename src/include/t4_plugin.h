/*
 * t4_plugin.h - the plugin ABI of t4.  The only header that a plugin includes.
 *
 * A plugin is a shared object that exports one function, t4_plugin_v1(), which returns a
 * constant descriptor.  Everything else reaches it through tables: the descriptor tells the
 * host what the plugin offers, struct t4_host gives the plugin what the host offers.
 *
 * Frozen with 1.0, sizes and offsets (regress/abi): struct t4_plugin, t4_role, t4_option,
 * t4_value, t4_values, t4_host, t4_slice, the storage engine's t4_op, t4_engine_stats and
 * t4_engine_ops, and every constant of these.
 * Open until it has two wrappers, and then frozen with a minor of its own: the object store's
 * tables (t4_put, t4_object_info, t4_store_open, t4_object_ops); build such a plugin for the
 * server that loads it.
 *
 * What may still change - append only: a new member goes to the end of a struct that has a
 * `size` (of t4_option: `option_size`), new constants and new sentences about new members come,
 * and T4_ABI_MINOR is raised.  t4_slice, t4_value, t4_op and t4_role have no size and do not
 * grow.  Anything else raises T4_ABI_MAJOR and the number in the entry symbol.  Whoever reads
 * a table looks at its `size` first (T4_HAS).
 *
 *   1.0  plugin, host, storage engine and object store tables
 *
 * Types in the ABI are fixed-width integers, size_t and pointers.  Bytes travel as
 * struct t4_slice and are never NUL-terminated by contract.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef T4_PLUGIN_H
#define T4_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define T4_ABI_MAJOR 1
#define T4_ABI_MINOR 0
#define T4_PLUGIN_MAGIC 0x54345047u /* "T4PG" */

/* 0 = OK, negative = one of T4_E_*.  Enumerations are open: an unknown one is INTERNAL. */
typedef int32_t t4_status;
enum {
    T4_OK = 0,
    T4_E_NOTFOUND = -1,
    T4_E_EXISTS = -2,
    T4_E_PRECONDITION = -3,
    T4_E_BUSY = -4,
    T4_E_TIMEOUT = -5,
    T4_E_CANCELLED = -6,
    T4_E_UNKNOWN = -7, /* a write that may or may not have happened */
    T4_E_UNAVAILABLE = -8,
    T4_E_DENIED = -9,
    T4_E_INVALID = -10,
    T4_E_CORRUPT = -11,
    T4_E_NOSPACE = -12,
    T4_E_NOMEM = -13,
    T4_E_UNSUPPORTED = -14,
    T4_E_INTERNAL = -15,
    T4_E_IO = -16
};

/* Borrowed bytes; who lends them says for how long. */
struct t4_slice {
    const uint8_t *data;
    size_t len;
};

struct t4_call;   /* one call of the host into the plugin, opaque */
struct t4_engine; /* the plugin's handles, opaque to the host */
struct t4_snap;
struct t4_iter;

/* True if table *p is long enough to hold member m and the member is set. */
#define T4_HAS(p, m)                                                                     \
    (offsetof(__typeof__(*(p)), m) + sizeof((p)->m) <= (p)->size && (p)->m)

#define T4_LOG_ERROR 1
#define T4_LOG_WARN 2
#define T4_LOG_INFO 3
#define T4_LOG_DEBUG 4

/* What the host offers.  Valid until unload() has returned; every member from any thread. */
struct t4_host {
    uint32_t size;
    uint16_t abi_major, abi_minor;
    const char *version; /* of the server, for messages */
    void *(*alloc)(const struct t4_host *,
                   size_t n); /* counted per plugin; NULL: none left */
    void (*free)(const struct t4_host *, void *p);
    void (*log)(const struct t4_host *, int32_t level, const char *message);
    /*
     * Records why a call failed and returns `status`, so that a plugin can write
     * `return host->fail(...)`.  Texts are copied; detail and hint may be NULL.
     */
    t4_status (*fail)(struct t4_call *, t4_status status, const char *message,
                      const char *detail, const char *hint);
    uint64_t (*deadline_ns)(const struct t4_call *); /* on now_ns()'s clock; 0 = none */
    int32_t (*cancelled)(const struct t4_call *);
    uint64_t (*now_ns)(void);
    void (*random)(void *buffer, size_t n);
};

#define T4_OPTION_STRING 1u
#define T4_OPTION_BOOL 2u
#define T4_OPTION_INT 3u
#define T4_OPTION_SIZE 4u     /* bytes; written with kB, MB, GB, TB (powers of 1,024) */
#define T4_OPTION_DURATION 5u /* nanoseconds; written with ms, s, min, h */
#define T4_OPTION_SECRET 1u   /* flag: never logged nor returned */
#define T4_OPTION_REQUIRED 2u /* flag */

/* A setting of the plugin, "<plugin>.<name>".  The host parses and range-checks it. */
struct t4_option {
    const char *name;
    uint32_t type;  /* T4_OPTION_* */
    uint32_t flags; /* T4_OPTION_SECRET, _REQUIRED */
    const char *default_value, *min, *max;
    const char *doc;
};

/* Values in the order of the plugin's options[].  Numbers of INT, SIZE, DURATION, BOOL. */
struct t4_value {
    struct t4_slice text;
    int64_t number;
};
struct t4_values {
    uint32_t size, n;
    const struct t4_value *value;
};

/* --- role: storage engine (ordered bytes -> bytes, local) ---------------------------- */

#define T4_OP_PUT 1u
#define T4_OP_DELETE 2u /* of a missing key: no error */
struct t4_op {
    uint32_t kind;
    uint32_t reserved;
    struct t4_slice key, value;
};

struct t4_engine_stats {
    uint32_t size;
    uint32_t reserved;
    uint64_t records;      /* key/value pairs stored */
    uint64_t file_bytes;   /* what the engine occupies on disk (0: in memory only) */
    uint64_t in_use_bytes; /* of these, not reusable */
};

#define T4_ENGINE_DURABLE 1u /* caps: writes survive a restart once sync() returned */

/*
 * Contract of a storage engine
 *  - Keys are ordered by memcmp, a shorter key before its extensions.  Keys of 1 byte to
 *    max_key bytes and values of 0 to 1 GiB must work.
 *  - write() applies all ops or none, in order, together with the `flushed` number, which is
 *    opaque to the engine.  One writer at a time (the host guarantees it); snapshots are
 *    taken and read concurrently from any thread.
 *  - After a crash the engine shows a prefix of the writes that contains at least those
 *    before the last sync() that returned OK; flushed() is the number of the last write in
 *    that prefix, 0 for an empty engine.
 *  - A snapshot is immutable.  It is used by one thread at a time, which may change between
 *    calls.  Slices from get() and iterators are valid until snap_end(), keys from an
 *    iterator only until it moves.
 *  - A call that fails with NOMEM has changed nothing, and may be repeated.
 *  - An iterator begins before the first key.  NOTFOUND of seek() or next() leaves it behind
 *    the last key, from where prev() gives the last; NOTFOUND of prev() leaves it before the
 *    first, from where next() gives the first.  An empty key to seek() means the first.
 *  - Handles are closed in the order iterator, snapshot, engine; closing cannot fail.
 *  - open_reading(), which may be NULL, opens what another process may have open by open() and
 *    be writing.  It changes nothing that is stored; NOTFOUND: there is no engine in dir.  Of its
 *    handle only snapshots, stats() and close() are used; each snapshot shows whole write()s,
 *    all that had come back when it was opened, and no fewer than the snapshot before.
 *  - defragment() does one step, some tens of milliseconds at most beyond the disk's time, and
 *    says with *more = 1 that there are others.  The writer calls it, with any number of
 *    writes between two steps; snapshots of all ages go on.  After a crash at any point the
 *    engine is as if it had never begun, or done.  An error ends it and leaves the engine as
 *    it was (NOSPACE: no room for the smaller file); only after IO the engine is of no use.
 */
struct t4_engine_ops {
    uint32_t size;
    uint32_t min_minor;
    uint64_t caps;
    uint64_t
        max_key; /* longest key in bytes that the engine accepts; t4 run needs 32,780 */
    t4_status (*open)(void *plugin, struct t4_call *, struct t4_slice dir,
                      struct t4_engine **);
    void (*close)(struct t4_engine *);
    t4_status (*write)(struct t4_engine *, struct t4_call *, const struct t4_op *,
                       size_t n, uint64_t flushed);
    t4_status (*sync)(struct t4_engine *, struct t4_call *);
    t4_status (*flushed)(struct t4_engine *, uint64_t *);
    t4_status (*snap)(struct t4_engine *, struct t4_snap **);
    void (*snap_end)(struct t4_snap *);
    t4_status (*get)(struct t4_snap *, struct t4_slice key, struct t4_slice *value);
    t4_status (*iter)(struct t4_snap *, struct t4_iter **);
    /* First key >= `key` (seek), the one after or before the current; NOTFOUND = end. */
    t4_status (*seek)(struct t4_iter *, struct t4_slice key, struct t4_slice *out_key,
                      struct t4_slice *out_value);
    t4_status (*next)(struct t4_iter *, struct t4_slice *out_key,
                      struct t4_slice *out_value);
    t4_status (*prev)(struct t4_iter *, struct t4_slice *out_key,
                      struct t4_slice *out_value);
    void (*iter_end)(struct t4_iter *);
    t4_status (*stats)(struct t4_engine *, struct t4_engine_stats *);
    /* May be missing; see the contract. */
    t4_status (*open_reading)(void *plugin, struct t4_call *, struct t4_slice dir,
                              struct t4_engine **);
    /* May be missing.  Makes the file as small as what it holds; see the contract. */
    t4_status (*defragment)(struct t4_engine *, struct t4_call *, int32_t *more);
};

/* --- role: object store ----------------------------------------------------------------- */

struct t4_store; /* the plugin's handle, opaque to the host */

#define T4_PUT_ANY 0u       /* create or replace */
#define T4_PUT_IF_ABSENT 1u /* create; PRECONDITION if the object is there */
#define T4_PUT_IF_MATCH 2u  /* replace the object with this tag; else PRECONDITION */

struct t4_put {
    uint32_t size;
    uint32_t condition; /* T4_PUT_* */
    struct t4_slice key, body;
    struct t4_slice if_match; /* a tag as it was received */
};

#define T4_TAG_MAX 128
/*
 * What the store says of an object.  The tag changes with every change of the object's bytes
 * (equal bytes may have equal tags); it is opaque and given back as received, quotes and all.
 */
struct t4_object_info {
    uint32_t size;
    uint32_t tag_length;
    uint64_t length;     /* bytes of the whole object */
    int64_t modified_ms; /* since 1970, by the store's clock; 0: not known */
    int64_t date_ms;     /* the store's clock when it answered; 0: not known */
    char tag[T4_TAG_MAX];
};

/* Receives bytes in order; anything but T4_OK ends the call with that status. */
typedef t4_status t4_sink_fn(void *arg, struct t4_slice part);
/* Receives one object of a listing; anything but T4_OK ends the call with that status. */
typedef t4_status t4_list_fn(void *arg, struct t4_slice key,
                             const struct t4_object_info *);

struct t4_object_ops;
struct t4_store_open {
    uint32_t size;
    uint32_t reserved;
    struct t4_slice url; /* scheme://..., without the scheme of a wrapper */
    /* of a role with T4_OBJECT_WRAPS: the store it wraps, which outlives it; else NULL */
    const struct t4_object_ops *inner_ops;
    struct t4_store *inner;
};

#define T4_OBJECT_IF_ABSENT 1u /* caps: conditions are honoured, atomically */
#define T4_OBJECT_IF_MATCH 2u
#define T4_OBJECT_WRAPS 4u /* works on an inner store: "<role>+<inner url>" */

/*
 * Contract of an object store
 *  - Keys are 1 to 1,024 bytes of UTF-8 without control characters, '/' separates.  Bodies are
 *    0 bytes to 5 GiB.
 *  - The role's name is the URL's scheme.  Calls block until they are done, their deadline
 *    (host->deadline_ns) is over, or host->cancelled() says so; many may be under way on one
 *    store, on threads of the host.  open and close are serial.
 *  - put() is atomic: readers see the old object or the new one, whole.  A lost condition is
 *    PRECONDITION, also IF_MATCH on an absent key.  UNKNOWN: the request may have been or may
 *    yet be carried out (no answer, an answer of 5xx, a timeout after it was sent).  TIMEOUT,
 *    CANCELLED, UNAVAILABLE: it certainly was not.  A plugin never repeats a conditional put
 *    by itself: the second try would lose against the first.
 *  - get() hands `length` bytes from `offset` on to the sink; a range behind the end gives the
 *    short part, possibly none; info->length is the true length.  NOTFOUND: no such object.
 *    After an error whatever the sink got is void.
 *  - remove() of an absent key is OK.  After an error any of the keys may be gone.
 *  - list() gives keys with the prefix, strictly after `after`, in bytewise order, at most
 *    `max`; fewer than `max` means that there are no more.  It sees every put and remove that
 *    was answered before it began.
 *  - DENIED: credentials or permissions, the hint says which; BUSY: throttled, try later;
 *    NOSPACE: quota.
 *  - No secret goes into a message.
 *  - The call may be NULL (a wrapper's own requests): the host's functions take that.
 */
#define T4_TO_THE_END UINT64_MAX
struct t4_object_ops {
    uint32_t size;
    uint32_t min_minor;
    uint64_t caps;
    t4_status (*open)(void *plugin, struct t4_call *, const struct t4_store_open *,
                      struct t4_store **);
    void (*close)(struct t4_store *);
    t4_status (*put)(struct t4_store *, struct t4_call *, const struct t4_put *,
                     struct t4_object_info *);
    t4_status (*get)(struct t4_store *, struct t4_call *, struct t4_slice key,
                     uint64_t offset, uint64_t length, t4_sink_fn *, void *arg,
                     struct t4_object_info *);
    t4_status (*head)(struct t4_store *, struct t4_call *, struct t4_slice key,
                      struct t4_object_info *);
    t4_status (*remove)(struct t4_store *, struct t4_call *, const struct t4_slice *keys,
                        size_t n);
    t4_status (*list)(struct t4_store *, struct t4_call *, struct t4_slice prefix,
                      struct t4_slice after, uint32_t max, t4_list_fn *, void *arg);
};

/* --- the descriptor ------------------------------------------------------------------- */

#define T4_ROLE_OBJECT 1u
#define T4_ROLE_ENGINE 2u
#define T4_ROLE_AUTH 3u
struct t4_role {
    uint32_t kind;
    uint32_t reserved;
    const char *name;
    const void *ops; /* begins with `size`, `min_minor` */
};

struct t4_plugin {
    uint32_t magic, size;          /* these four lines first, for ever: */
    uint16_t abi_major, abi_minor; /* compiled against */
    uint16_t needs_minor;          /* oldest host it runs on */
    uint16_t option_size;          /* sizeof(struct t4_option); they protect the rest */
    const char *name, *version, *license, *summary;
    const struct t4_option *options;
    size_t n_options;
    const struct t4_role *roles;
    size_t n_roles;
    /* Called once, before any role is used, and once at the end; both may be NULL. */
    t4_status (*load)(const struct t4_host *, struct t4_call *, const struct t4_values *,
                      void **plugin);
    void (*unload)(void *plugin);
};

#define T4_PLUGIN_HEAD(plugin_name, plugin_version, needs)                               \
    .magic = T4_PLUGIN_MAGIC, .size = (uint32_t)sizeof(struct t4_plugin),                \
    .abi_major = T4_ABI_MAJOR, .abi_minor = T4_ABI_MINOR, .needs_minor = (needs),        \
    .option_size = (uint16_t)sizeof(struct t4_option), .name = (plugin_name),            \
    .version = (plugin_version)

#define T4_PLUGIN_EXPORT __attribute__((visibility("default")))
typedef const struct t4_plugin *t4_plugin_entry_fn(void);
/* The one exported symbol: a function, because dlsym() of data is not portable. */
T4_PLUGIN_EXPORT const struct t4_plugin *t4_plugin_v1(void);

#ifdef __cplusplus
}
#endif
#endif
