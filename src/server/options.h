/*
 * options.h - the settings of `t4 run`: flags, environment variables, defaults.
 *
 * Each flag stands once, in the table of option_table.c; parsing, validation, the help text
 * and the check of the documentation are made of it.  --data-dir is also T4_DATA_DIR, and so
 * on; a flag goes before the variable, the variable before the default, and an empty variable
 * counts as not set.
 *
 * Main thread only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include <stdio.h>

#include "base/buffer.h"
#include "base/error.h"
#include "plugin/plugin.h"
#include "server/values.h"

enum option_type {
    OPTION_TEXT,     /* char * */
    OPTION_INT,      /* this and all others: int64_t */
    OPTION_SIZE,     /* bytes */
    OPTION_DURATION, /* nanoseconds */
    OPTION_BOOL,
    OPTION_CHOICE,   /* index into the choices */
    OPTION_SECRET,   /* char *; by the variable only, and never shown (I14) */
    OPTION_SETTINGS, /* repeatable; goes to run_options.settings */
};

enum option_group {
    GROUP_DATA,
    GROUP_STORE,
    GROUP_CLIENTS,
    GROUP_LIMITS,
    GROUP_KEEPALIVE,
    GROUP_OPERATION,
    GROUP_COUNT
};

struct option_row {
    const char *name; /* without the dashes */
    enum option_type type;
    enum option_group group;
    size_t offset; /* of the member of struct run_options */
    const char *placeholder;
    const char *default_text; /* NULL: made at run time, as the help says */
    int64_t min, max;         /* of numbers */
    const char *choices;      /* "a|b|c"; or what a text must be, in words */
    const char *help;
};

#define OPTION_MAX_ROWS 80
extern const struct option_row option_table[];
extern const size_t option_count;
extern const char *const option_group_title[GROUP_COUNT];

#define OPTION_NAME_BYTES 64
/* "data-dir" to "T4_DATA_DIR". */
void option_variable(const char *name, char *out, size_t n);
/* The valid values in words: "1 to 1024", "linearizable or serializable". */
void option_range(const struct option_row *row, char *out, size_t n);

/* Flags of which etcd or a later version of t4 has heard, and this one not: NULL if it is
 * none of them, else the reason and what to do instead. */
const char *option_refusal(const char *name);
/* Another name of the row's flag, which is etcd's; or NULL. */
const char *option_alias(const struct option_row *row);
/* The row of a flag, by its name or its alias; NULL: there is none. */
const struct option_row *option_find(const char *name, size_t n);

#define MAX_LISTEN 16
#define MAX_SETTINGS 64
#define MAX_WARNINGS 16

struct run_options {
    /* As in the table. */
    char *data_dir, *storage_engine, *plugin_dir, *listen_text, *advertise_client_urls;
    char *node_id, *metrics_text, *unix_socket_mode_text;
    char *object_store, *s3_bucket, *s3_prefix, *s3_endpoint, *s3_region, *s3_profile;
    char *s3_access_key_id, *s3_secret_access_key, *s3_session_token, *s3_ca_bundle;
    char *gcs_credentials_file, *gcs_endpoint;
    int64_t wal_sync_upload, upload_max_age_ns, leadership_lease_ns, store_timeout_ns;
    int64_t upload_window, upload_segment_bytes;
    int64_t checkpoint_interval_ns, checkpoint_bytes;
    int64_t history_retention_ns;
    int64_t wal_keep_bytes;
    int64_t take_over_now, discard_divergent_tail, object_store_unsafe;
    char *from_snapshot; /* NULL: none */
    int64_t skip_hash_check;
    int64_t moved, segment_max_size_mb, segment_max_age_sec;
    int64_t read_consistency; /* 0 linearizable, 1 serializable */
    int64_t threads, max_request_bytes, max_txn_ops, watch_progress_ns;
    int64_t quota_backend_bytes;  /* 0: the default, negative: none */
    int64_t auto_compaction_mode; /* 0 periodic, 1 revision */
    char *auto_compaction_retention_text;
    int64_t max_connections, max_concurrent_streams, max_request_memory;
    int64_t extensive_metrics; /* 0 basic, 1 extensive */
    int64_t keepalive_min_time_ns, keepalive_interval_ns, keepalive_timeout_ns;
    int64_t keepalive_permit_without_stream;
    int64_t log_level;  /* 0 error, 1 warn, 2 info, 3 debug */
    int64_t log_format; /* 0 text, 1 json */
    int64_t shutdown_grace_ns;

    const char *other_store; /* URL whose plugins are taken settings for, too; or NULL */

    /* Made of them. */
    struct address listen[MAX_LISTEN];
    size_t n_listen;
    bool metrics_off;
    struct address metrics[MAX_LISTEN];
    size_t n_metrics;
    uint32_t unix_socket_mode;
    struct plugin_setting settings[MAX_SETTINGS]; /* of the storage engine's plugin */
    size_t n_settings;
    struct plugin_setting
        store_settings[MAX_SETTINGS]; /* "s3.region": of the store's plugins */
    size_t n_store_settings;

    int64_t auto_compaction_retention; /* nanoseconds or revisions, 0: off */

    bool help;                    /* --help was asked for; nothing else is filled in */
    char *warnings[MAX_WARNINGS]; /* to be logged once the log is set up */
    size_t n_warnings;
    char *changed; /* the settings that differ from the default, "--flag=value ..." */
    char *texts[2 * MAX_SETTINGS]; /* what settings point into */
    size_t n_texts;
};

/*
 * Reads the words after `t4 run` and the environment ("NAME=value", ended by NULL).  INVALID:
 * the first thing that is wrong, with the flag or variable, the value and the valid range.
 * In any case run_options_free() releases what was filled in.
 */
t4_status run_options_parse(int argc, char *const *argv, char *const *environment,
                            struct run_options *out, struct error *error);
/* The same for a command with a second store, whose URL outlives *out. */
t4_status run_options_parse_for(const char *other_store, int argc, char *const *argv,
                                char *const *environment, struct run_options *out,
                                struct error *error);
void run_options_free(struct run_options *o);

/*
 * store_options.c: makes the URL and the settings of the object store out of its flags.  NULL,
 * or what is wrong with the flag *name.
 */
const char *store_options_make(struct run_options *o, const char **name);
/* Is `plugin` that of one of the URL's schemes?  They are joined by +.  NULL has none. */
bool store_options_url_names(const char *url, const char *plugin);
/* Has it the form of a URL, and a length that lock and memory have room for? */
bool store_options_is_url(const char *text);
/* Is `plugin` one of those that the store's URL, or the other's, names? */
bool store_options_names_plugin(const struct run_options *o, const char *plugin);

/* The help for people, and one line per flag with tabs for programs (the docs' test). */
void run_options_help(FILE *out);
void run_options_table(FILE *out);

#endif
