/*
 * options.c - the options of t4_open(): names and values, kept as texts until the open.
 *
 * An option without a dot is the library's, from the table here; it is read by the code that
 * reads the settings of plugins, so units, ranges and refusals are the same.  One with a dot
 * is a plugin's.
 *
 * Threads: a t4_options belongs to one thread at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "base/memory.h"
#include "lib/lib_int.h"
#include "plugin/options.h"

struct given_option {
    char *name, *value;
};

struct t4_options {
    struct given_option *entries;
    size_t n;
    int32_t log_level;
    t4_log_fn *log;
    void *log_arg;
    t4_failed_fn *failed;
    void *failed_arg;
};

t4_options *
t4_options_new(void)
{
    return mem_zalloc(sizeof(t4_options));
}

static void
forget(char *text)
{
    explicit_bzero(text, strlen(text)); /* may be a secret */
    mem_free(text);
}

void
t4_options_free(t4_options *o)
{
    if (o == NULL)
        return;
    for (size_t i = 0; i < o->n; i++) {
        mem_free(o->entries[i].name);
        forget(o->entries[i].value);
    }
    mem_free(o->entries);
    mem_free(o);
}

void
t4_options_set(t4_options *o, const char *name, const char *value)
{
    for (size_t i = 0; i < o->n; i++) {
        if (strcmp(o->entries[i].name, name) == 0) {
            forget(o->entries[i].value);
            o->entries[i].value = mem_strdup(value);
            return;
        }
    }
    o->entries = mem_realloc(o->entries, (o->n + 1) * sizeof *o->entries);
    o->entries[o->n++] = (struct given_option){mem_strdup(name), mem_strdup(value)};
}

void
t4_options_set_log(t4_options *o, int32_t level, t4_log_fn *fn, void *arg)
{
    o->log_level = level;
    o->log = fn;
    o->log_arg = arg;
}

void
t4_options_set_failed(t4_options *o, t4_failed_fn *fn, void *arg)
{
    o->failed = fn;
    o->failed_arg = arg;
}

/* --- the table ------------------------------------------------------------------------------ */

/*
 * Where an option goes: a member of node_options of so many bytes, in units of `unit`.  No
 * default here: the node's own stands (node_options_default()).  ref/libt4.md is checked
 * against this table.
 */
struct target {
    size_t offset, bytes;
    int64_t unit;
};
#define NODE(member, unit_)                                                              \
    {                                                                                    \
        offsetof(struct node_options, member),                                           \
            sizeof(((struct node_options *)0)->member), unit_                            \
    }
#define BACKENDS                                                                         \
    {                                                                                    \
        0, 0, 0                                                                          \
    }
#define MS 1000000

/* OPTION(name, type, least, most, target, what it does) */
#define OPTIONS(OPTION)                                                                  \
    OPTION("storage_engine", STRING, NULL, NULL, BACKENDS, "memory, or a plugin's name") \
    OPTION("plugin_dir", STRING, NULL, NULL, BACKENDS, "where plugins are looked for")   \
    OPTION("object_store", STRING, NULL, NULL, BACKENDS, "URL of an object store")       \
    OPTION("wal_sync_upload", BOOL, NULL, NULL, BACKENDS,                                \
           "a write is durable when the object store has it")                            \
    OPTION("moved", BOOL, NULL, NULL, NODE(moved, 1), "the directory was moved here")    \
    OPTION("take_over_now", BOOL, NULL, NULL, NODE(take_over_now, 1),                    \
           "take the object store over without waiting")                                 \
    OPTION("discard_divergent_tail", BOOL, NULL, NULL, NODE(discard_divergent_tail, 1),  \
           "give up writes that the object store's history lacks")                       \
    OPTION("object_store_unsafe", BOOL, NULL, NULL, NODE(unsafe_store, 1),               \
           "use a store that failed the start-up probe")                                 \
    OPTION("leadership_lease", DURATION, "500 ms", "600 s", NODE(lease_ms, MS),          \
           "how long one renewal proves leadership")                                     \
    OPTION("object_store_timeout", DURATION, "1 s", "600 s", NODE(store_timeout_ns, 1),  \
           "of one request to the object store")                                         \
    OPTION("upload_max_age", DURATION, "10 ms", "1 h", NODE(upload_age_ns, 1),           \
           "longest time that a write waits for its upload")                             \
    OPTION("upload_window", INT, "1", "4", NODE(upload_window, 1),                       \
           "uploads under way at once")                                                  \
    OPTION("upload_segment_size", SIZE, "64 kB", "8 MB", NODE(upload_segment_bytes, 1),  \
           "bytes of the log in one object")                                             \
    OPTION("checkpoint_interval", DURATION, "100 ms", "24 h",                            \
           NODE(checkpoint_interval_ns, 1), "longest time between checkpoints")          \
    OPTION("checkpoint_bytes", SIZE, "64 kB", "1 TB", NODE(checkpoint_bytes, 1),         \
           "bytes of the log between checkpoints")                                       \
    OPTION("history_retention", DURATION, NULL, "87600 h",                               \
           NODE(history_retention_ns, 1), "how long the object store keeps history")     \
    OPTION("auto_compaction_retention", DURATION, NULL, "87600 h",                       \
           NODE(auto_compaction_retention, 1),                                           \
           "compact what is older, from time to time")                                   \
    OPTION("wal_keep_bytes", SIZE, NULL, "16 TB", NODE(wal_keep_bytes, 1),               \
           "of the log, for watches that begin in the past")                             \
    OPTION("segment_size", SIZE, "1 MB", "1 GB", NODE(segment_bytes, 1),                 \
           "of a file of the log")                                                       \
    OPTION("memtable_size", SIZE, "64 kB", "1 GB", NODE(memtable_bytes, 1),              \
           "written in memory before it goes to the storage engine")                     \
    OPTION("reserve_size", SIZE, NULL, "1 TB", NODE(reserve_bytes, 1),                   \
           "disk space kept for deletes when the disk is full")                          \
    OPTION("max_request_bytes", SIZE, "1 kB", "64 MB", NODE(max_request_bytes, 1),       \
           "largest write")                                                              \
    OPTION("max_txn_ops", INT, "1", "65536", NODE(max_txn_ops, 1),                       \
           "most operations in one list of a transaction")                               \
    OPTION("workers", INT, "1", "64", NODE(workers, 1),                                  \
           "threads for large transactions")                                             \
    OPTION("watch_progress_interval", DURATION, "100 ms", "24 h",                        \
           NODE(watch_progress_ns, 1), "how often an idle watch tells the revision")

#define ROW(name_, type_, min_, max_, target_, doc_)                                     \
    {.name = name_, .type = T4_OPTION_##type_, .min = min_, .max = max_, .doc = doc_},
#define TARGET(name_, type_, min_, max_, target_, doc_) target_,
static const struct t4_option table[] = {OPTIONS(ROW)};
static const struct target targets[] = {OPTIONS(TARGET)};
#define N_OPTIONS (sizeof table / sizeof table[0])

/* NULL: not given. */
static const struct t4_value *
value_of(const struct t4_values *values, const char *name)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (strcmp(table[i].name, name) == 0)
            return values->value[i].text.data != NULL ? &values->value[i] : NULL;
    return NULL;
}

static const char *
text_of(const struct t4_values *values, const char *name, const char *otherwise)
{
    const struct t4_value *v = value_of(values, name);

    return v != NULL ? (const char *)v->text.data : otherwise;
}

static void
set_member(struct node_options *node, const struct target *t, int64_t number)
{
    uint8_t *member = (uint8_t *)node + t->offset;
    uint64_t v = (uint64_t)(number / t->unit);
    uint32_t v32 = (uint32_t)v;
    bool flag = v != 0;

    if (t->bytes == sizeof v)
        memcpy(member, &v, sizeof v);
    else if (t->bytes == sizeof v32)
        memcpy(member, &v32, sizeof v32);
    else
        memcpy(member, &flag, sizeof flag);
}

/* --- at the open ---------------------------------------------------------------------------- */

/* Those of the library, of the engine's plugin (by their bare names), of all other plugins. */
static void
sort_entries(const t4_options *o, const char *engine, struct plugin_setting *own,
             size_t *n_own, struct lib_settings *out)
{
    size_t engine_length = strlen(engine);

    for (size_t i = 0; i < o->n; i++) {
        const char *name = o->entries[i].name, *dot = strchr(name, '.');
        struct plugin_setting s = {name, o->entries[i].value};

        if (dot == NULL) {
            own[(*n_own)++] = s;
        } else if ((size_t)(dot - name) == engine_length &&
                   memcmp(name, engine, engine_length) == 0) {
            s.name = dot + 1;
            out->engine_settings[out->n_engine_settings++] = s;
        } else {
            out->store_settings[out->n_store_settings++] = s;
        }
    }
}

static const char *
value_given(const t4_options *o, const char *name, const char *otherwise)
{
    for (size_t i = 0; i < o->n; i++)
        if (strcmp(o->entries[i].name, name) == 0)
            return o->entries[i].value;
    return otherwise;
}

t4_status
lib_options_read(const t4_options *o, const char *data_dir, struct lib_settings *out,
                 struct node_options *node, struct error *error)
{
    static const t4_options none;
    struct plugin_setting *own;
    const struct t4_value *sync;
    size_t n_own = 0;
    t4_status st;

    if (o == NULL)
        o = &none;
    *out = (struct lib_settings){0};
    own = mem_zalloc((o->n + 1) * sizeof *own);
    out->engine_settings = mem_zalloc((o->n + 1) * sizeof *own);
    out->store_settings = mem_zalloc((o->n + 1) * sizeof *own);
    sort_entries(o, value_given(o, "storage_engine", "lmdb"), own, &n_own, out);
    st = options_parse(NULL, table, N_OPTIONS, own, n_own, &out->values, error);
    mem_free(own);
    if (st != T4_OK)
        return st;
    out->backends = (struct backends_options){
        .data_dir = data_dir,
        .plugin_dir = text_of(&out->values, "plugin_dir", NULL),
        .storage_engine = text_of(&out->values, "storage_engine", "lmdb"),
        .engine_settings = out->engine_settings,
        .n_engine_settings = out->n_engine_settings,
        .object_store = text_of(&out->values, "object_store", NULL),
        .store_settings = out->store_settings,
        .n_store_settings = out->n_store_settings,
    };
    node_options_default(node);
    node->env = env_posix();
    node->data_dir = data_dir;
    node->name = "libt4";
    node->advertise_urls = "";
    node->engine_name = out->backends.storage_engine;
    node->store_is_built_in = out->backends.object_store == NULL;
    sync = value_of(&out->values, "wal_sync_upload");
    node->commit_rule = node->store_is_built_in || (sync != NULL && sync->number == 0)
                            ? RULE_LOCAL
                            : RULE_OBJECT;
    node->auto_compaction = COMPACTOR_PERIODIC; /* if a retention is given */
    node->quota_bytes = -1;                     /* the program knows what it puts */
    if (node->store_is_built_in)                /* it keeps two checkpoints */
        node->history_retention_ns = 0;
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (out->values.value[i].text.data != NULL && targets[i].unit != 0)
            set_member(node, &targets[i], out->values.value[i].number);
    return T4_OK;
}

t4_status
lib_options_check(const struct lib_settings *s, const struct backends *b,
                  struct error *error)
{
    for (size_t i = 0; i < s->n_store_settings; i++) {
        const char *name = s->store_settings[i].name;
        size_t n = strcspn(name, ".");
        struct plugin *p;
        bool found = false;

        for (size_t j = 0; (p = object_plugin(b->store, j)) != NULL; j++) {
            const char *plugin = plugin_descriptor(p)->name;

            found |= strlen(plugin) == n && memcmp(plugin, name, n) == 0;
        }
        if (!found) {
            error_set(error, T4_E_INVALID,
                      "option \"%.64s\" is of a plugin that is not used", name);
            return error_hint(error, "storage_engine and object_store say which plugins "
                                     "are used");
        }
    }
    return T4_OK;
}

void
lib_options_release(struct lib_settings *s)
{
    options_free(&s->values);
    mem_free(s->engine_settings);
    mem_free(s->store_settings);
    *s = (struct lib_settings){0};
}

void
lib_options_callbacks(const t4_options *o, t4_db *db)
{
    if (o == NULL)
        return;
    db->sink.level = (enum log_level)o->log_level;
    db->log = o->log;
    db->log_arg = o->log_arg;
    db->failed = o->failed;
    db->failed_arg = o->failed_arg;
}
