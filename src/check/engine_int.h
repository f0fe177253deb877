/*
 * engine_int.h - what the files of the engines' kit share: an engine under check.
 *
 * Each part runs in a process of its own, which loads the plugin anew: an engine that
 * crashes, hangs or leaks fails its part and no other.  Calls go through src/engine, as the
 * server's do: what a shorter table lacks is there.  A part compares in passing and keeps the
 * first difference (bench_complain); one line of TAP then says whether there was any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CHECK_ENGINE_INT_H
#define CHECK_ENGINE_INT_H

#include <limits.h>
#include <stdatomic.h>

#include "check/check_int.h"
#include "check/reference.h"
#include "engine/engine.h"

#define ENGINES_MAX 16

/* In memory that all processes of a check share. */
struct shared {
    struct check check;
    unsigned n_engines; /* roles of the plugin */
    char engines[ENGINES_MAX][40];
    bool durable;  /* of the engine that was loaded last */
    bool reads;    /* it has open_reading() */
    bool unusable; /* it did not load or open: no further part */
    /* of the process that will be killed (engine_crash.c) */
    _Atomic uint64_t written; /* the last write() that returned */
    _Atomic uint64_t synced;  /* the last write before a sync() that returned */
    uint64_t flushed;         /* what the engine said afterwards */
    char complaint[256];
};

struct bench {
    struct shared *shared;
    struct check *check;
    const char *plugin_name; /* NULL: the built-in engine */
    const char *engine_name;
    const struct plugin_setting *settings; /* of this plugin, without its name */
    size_t n_settings;
    char scratch[PATH_MAX - 64]; /* a folder of this part alone */
    char dir[PATH_MAX];          /* the engine's, below it */
    struct plugin *plugin;       /* NULL: the built-in engine */
    struct t4_engine_ops ops;
    struct engine *engine;
    bool durable;
    struct chance chance; /* from the seed */
    char complaint[256];  /* the first difference; empty: none */
};

/* --- the engine (engine.c) ---------------------------------------------------------- */

/* false: it has been reported. */
bool bench_load(struct bench *b);
bool bench_open(struct bench *b);
/* As bench_open(), without a word of TAP. */
t4_status bench_try_open(struct bench *b, struct error *error);
void bench_close(struct bench *b);
void *bench_state(struct bench *b); /* what open() is to be given */

/* --- differences (engine.c) --------------------------------------------------------- */

/* Keeps the first; returns false. */
bool bench_complain(struct bench *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Complains if a call gave another status than is due. */
bool bench_status(struct bench *b, t4_status got, t4_status due, const char *call);
/* One line of TAP: nothing was complained of since the last one. */
bool bench_line(struct bench *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* --- short words (engine.c) --------------------------------------------------------- */

struct t4_op put_op(struct t4_slice key, struct t4_slice value);
struct t4_op delete_op(struct t4_slice key);
/* write() and, if `sync`, sync(); complains if either fails. */
bool bench_write(struct bench *b, const struct t4_op *ops, size_t n, uint64_t flushed,
                 bool sync);
/* NULL, and a complaint, if there is none. */
struct t4_snap *bench_snap(struct bench *b);
struct t4_iter *bench_iter(struct bench *b, struct t4_snap *s);
bool bench_flushed(struct bench *b, uint64_t due);
/* The key has this value in the snapshot; expected.data NULL: it is absent. */
bool bench_get(struct bench *b, struct t4_snap *s, struct t4_slice key,
               struct t4_slice expected);
/* Steps until it is done.  A missing function is done at once. */
bool bench_defragment(struct bench *b);

/* --- against the reference (engine_model.c) ----------------------------------------- */

/* Compares all of the snapshot with `state`, in both directions; returns records seen. */
size_t bench_scan(struct bench *b, struct t4_snap *s, const struct keys *k,
                  const uint64_t *state);

/* --- parts --------------------------------------------------------------------------- */

void engine_contract(struct bench *b);  /* engine_contract.c: writes, sizes, stats */
void engine_snapshots(struct bench *b); /* engine_snapshots.c */
void engine_iterators(struct bench *b); /* engine_snapshots.c: order, ends, slices */
void engine_model(struct bench *b);     /* engine_model.c */
void engine_races(struct bench *b);     /* engine_races.c */
void engine_faults(struct bench *b);    /* engine_faults.c */
void engine_hygiene(struct bench *b);   /* engine_hygiene.c */
/* engine_crash.c: runs in the process that never loads the plugin, and makes its own. */
void engine_crash(struct bench *b);
/* engine_races.c: another process reads what one writes; runs as engine_crash() does. */
void engine_reading(struct bench *b);

/*
 * Runs `fn` in a child.  False: it was ended by a signal, which *killed tells (0: it ended
 * with a wrong status).  bench_child_start() does not wait for it.
 */
bool bench_child(struct bench *b, void (*fn)(struct bench *), int *killed);
int bench_child_start(struct bench *b, void (*fn)(struct bench *));

#endif
