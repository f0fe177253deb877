/*
 * open.c - the database of a program: opening, closing, calls, callbacks, failure.
 *
 * A t4_db is a node with its backends, without a transport.  What a server does for a whole
 * process is done for one database here: a node that reports a fatal error is stopped (which
 * answers everything that waits), and every call from then on gives that error.
 *
 * Opening and closing are done by a thread of their own, so that signals that plugins provoke
 * (SIGPIPE) do not reach the program, and everything that is started logs to this database.
 *
 * Invariants
 *  (1) the node is freed when no call is inside, the callback thread has ended and the hub has
 *      let go of every watch
 *  (2) node_stop() begins when nobody is in node_submit(), and is called once
 *  (3) every request that was submitted is answered, at the latest by node_stop()
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "lib/lib_int.h"

static _Thread_local const t4_db *calling_back; /* whose callback this thread is in */

/* --- gates ------------------------------------------------------------------------------------ */

static void
gate_init(struct gate *g)
{
    mutex_init(&g->lock);
    condition_init(&g->left);
}

static void
gate_destroy(struct gate *g)
{
    condition_destroy(&g->left);
    mutex_destroy(&g->lock);
}

/*
 * Whoever enters counts itself and then looks whether it is shut; whoever shuts it sets the
 * mark and then looks at the count: one of them sees the other.
 */
bool
gate_enter(struct gate *g)
{
    atomic_fetch_add(&g->inside, 1);
    if (!atomic_load(&g->shut))
        return true;
    gate_leave(g);
    return false;
}

void
gate_leave(struct gate *g)
{
    atomic_fetch_sub(&g->inside, 1);
    if (atomic_load(&g->shut)) {
        mutex_lock(&g->lock);
        condition_broadcast(&g->left);
        mutex_unlock(&g->lock);
    }
}

void
gate_shut(struct gate *g)
{
    atomic_store(&g->shut, true);
}

void
gate_wait_empty(struct gate *g)
{
    mutex_lock(&g->lock);
    while (atomic_load(&g->inside) > 0)
        condition_wait(&g->left, &g->lock);
    mutex_unlock(&g->lock);
}

/* --- signals between threads ---------------------------------------------------------------- */

void
lib_signal_init(struct lib_signal *s)
{
    mutex_init(&s->lock);
    condition_init(&s->changed);
    s->set = false;
}

void
lib_signal_set(struct lib_signal *s)
{
    mutex_lock(&s->lock);
    s->set = true;
    condition_signal(&s->changed);
    mutex_unlock(&s->lock);
}

void
lib_signal_wait(struct lib_signal *s)
{
    mutex_lock(&s->lock);
    while (!s->set)
        condition_wait(&s->changed, &s->lock);
    mutex_unlock(&s->lock);
    condition_destroy(&s->changed);
    mutex_destroy(&s->lock);
}

/* --- calls --------------------------------------------------------------------------------- */

t4_db *
lib_ref(t4_db *db)
{
    atomic_fetch_add(&db->references, 1);
    return db;
}

void
lib_unref(t4_db *db)
{
    if (atomic_fetch_sub(&db->references, 1) > 1)
        return;
    gate_destroy(&db->calls);
    gate_destroy(&db->submits);
    mutex_destroy(&db->lock);
    munmap(db->alive, (size_t)sysconf(_SC_PAGESIZE));
    mem_free(db);
}

bool
lib_is_of_this_process(const t4_db *db)
{
    return *(volatile uint32_t *)db->alive == 1;
}

t4_status
lib_refuse_forked(t4_error *error)
{
    return lib_fail(error, T4_E_INVALID,
                    "the database was opened by this process's parent",
                    "open a database after the fork, in the process that uses it");
}

t4_status
lib_enter(struct lib_call *c, t4_db *db, t4_error *error)
{
    c->db = db;
    c->error = error;
    if (!lib_is_of_this_process(db))
        return lib_refuse_forked(error);
    lib_ref(db); /* so that it can be left while t4_close() goes on */
    if (!gate_enter(&db->calls)) {
        lib_unref(db);
        return lib_fail(error, T4_E_CLOSED, "the database is closed", "");
    }
    c->sink = log_set_sink(&db->sink);
    if (atomic_load(&db->broken))
        return lib_leave(c, lib_fail_internal(error, &db->why));
    return T4_OK;
}

t4_status
lib_leave(struct lib_call *c, t4_status status)
{
    t4_db *db = c->db;

    if ((status == T4_E_CLOSED || status == T4_E_UNKNOWN) && atomic_load(&db->broken)) {
        lib_fail_internal(c->error, &db->why);
        if (status == T4_E_CLOSED) /* it was certainly not carried out */
            status = db->why.status;
        if (c->error != NULL)
            c->error->status = status;
    }
    log_set_sink(c->sink);
    gate_leave(&db->calls);
    lib_unref(db);
    return status;
}

void
lib_submit(t4_db *db, struct node_request *r)
{
    chain_init(&r->response);
    if (gate_enter(&db->submits)) {
        node_submit(db->node, r);
        gate_leave(&db->submits);
    } else {
        r->error = ETCD_STOPPED;
        r->done(r);
    }
}

/* --- callbacks -------------------------------------------------------------------------------- */

static void
run_callback(struct job *job)
{
    struct lib_callback *c = container_of(job, struct lib_callback, job);

    calling_back = c->db;
    c->run(c);
    calling_back = NULL;
}

void
lib_call_back(struct lib_callback *c)
{
    c->job.run = run_callback;
    workers_submit(c->db->callbacks, &c->job);
}

bool
lib_is_calling_back(const t4_db *db)
{
    return calling_back == db;
}

/* --- failure ---------------------------------------------------------------------------------- */

struct failure {
    struct lib_callback callback;
    t4_error error;
};

static void
tell_failure(struct lib_callback *c)
{
    struct failure *f = container_of(c, struct failure, callback);

    c->db->failed(c->db->failed_arg, &f->error);
    mem_free(f);
}

/* Has the user's function called, the first time. */
static void
report_failure(t4_db *db, const struct error *why)
{
    struct failure *f;
    bool first;

    mutex_lock(&db->lock);
    first = !db->told && db->failed != NULL;
    db->told = true;
    mutex_unlock(&db->lock);
    if (!first)
        return;
    f = mem_zalloc(sizeof *f);
    f->callback.db = db;
    f->callback.run = tell_failure;
    lib_fail_internal(&f->error, why);
    lib_call_back(&f->callback);
}

static void
stop_node(t4_db *db)
{
    gate_shut(&db->submits);
    gate_wait_empty(&db->submits);
    node_stop(db->node);
}

static void *
stopper_main(void *arg)
{
    t4_db *db = arg;

    stop_node(db);
    report_failure(db, &db->why);
    return NULL;
}

/*
 * On a thread of the node, which may be one that node_stop() waits for.  Before the open is
 * over it is enough to remember it.
 */
static void
on_fatal(void *arg, const struct error *error)
{
    t4_db *db = arg;

    mutex_lock(&db->lock);
    if (!atomic_load(&db->broken)) {
        db->why = *error;
        atomic_store(&db->broken, true);
        LOG_ERROR(error->message, "hint", error->hint, NULL);
        if (db->opened && !db->stopping) {
            db->stopping = db->has_stopper = true;
            thread_start(&db->stopper, "t4-stop", stopper_main, db);
        }
    }
    mutex_unlock(&db->lock);
}

static void
on_deposed(void *arg, const struct error *why)
{
    struct error error = *why;

    error.status = T4_E_UNAVAILABLE;
    LOG_ERROR("deposed: nothing is acknowledged any more; only old state can be read",
              "reason", why->message, "hint", why->hint, NULL);
    report_failure(arg, &error);
}

static void
write_log(void *arg, enum log_level level, const char *event)
{
    t4_db *db = arg;

    db->log(db->log_arg, (int32_t)level, event);
}

/* --- opening ---------------------------------------------------------------------------------- */

static t4_db *
new_db(const t4_options *options)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    t4_db *db = mem_zalloc(sizeof *db);

    atomic_store(&db->references, 1);
    mutex_init(&db->lock);
    gate_init(&db->calls);
    gate_init(&db->submits);
    db->alive =
        mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (db->alive == MAP_FAILED)
        abort();
    madvise(db->alive, page, MADV_WIPEONFORK); /* an old kernel: forks are not noticed */
    *db->alive = 1;
    lib_options_callbacks(options, db);
    db->sink.arg = db;
    if (db->log != NULL)
        db->sink.write = write_log;
    return db;
}

struct opening {
    t4_db *db;
    const char *data_dir;
    const t4_options *options;
    struct error error;
    t4_status status;
};

static void
close_parts(t4_db *db)
{
    lib_watches_end(db);
    workers_free(db->callbacks);
    if (db->node != NULL)
        node_close(db->node);
    backends_close(&db->backends);
}

static t4_status
open_node(struct opening *o, struct node_options *options)
{
    t4_db *db = o->db;
    t4_status st;

    if (db->backends.engine_plugin != NULL) {
        options->engine_ops = &db->backends.engine_ops;
        options->engine_plugin = plugin_state(db->backends.engine_plugin);
    }
    options->store = db->backends.store;
    options->fatal = on_fatal;
    options->fatal_arg = db;
    options->deposed = on_deposed;
    options->deposed_arg = db;
    db->max_request_bytes = options->max_request_bytes;
    db->max_txn_ops = options->max_txn_ops;
    st = node_open(options, &db->node, &o->error);
    if (st != T4_OK)
        return st;
    mutex_lock(&db->lock);
    db->opened = true;
    if (atomic_load(&db->broken)) {
        db->stopping = true;
        o->error = db->why;
        st = o->error.status;
    }
    mutex_unlock(&db->lock);
    if (st != T4_OK)
        stop_node(db);
    return st;
}

static void *
open_main(void *arg)
{
    struct opening *o = arg;
    struct lib_settings settings;
    struct node_options options;
    t4_db *db = o->db;
    t4_status st;

    db->callbacks = workers_new("t4-callback", 1);
    st = lib_options_read(o->options, o->data_dir, &settings, &options, &o->error);
    if (st == T4_OK)
        st = backends_load_engine(&db->backends, &settings.backends, &o->error);
    if (st == T4_OK)
        st = backends_open_store(&db->backends, &settings.backends, &o->error);
    if (st == T4_OK)
        st = lib_options_check(&settings, &db->backends, &o->error);
    if (st == T4_OK)
        st = open_node(o, &options);
    lib_options_release(&settings);
    if (st != T4_OK)
        close_parts(db);
    o->status = st;
    return NULL;
}

/* Runs fn on a thread that logs to the database. */
static void
run_on_thread(t4_db *db, const char *name, void *(*fn)(void *), void *arg)
{
    const struct log_sink *before = log_set_sink(&db->sink);
    struct thread t;

    thread_start(&t, name, fn, arg);
    log_set_sink(before);
    thread_join(&t);
}

t4_status
t4_open(const char *data_dir, const t4_options *options, t4_db **out, t4_error *error)
{
    struct opening o = {.data_dir = data_dir, .options = options};

    *out = NULL;
    if (data_dir == NULL || data_dir[0] == '\0')
        return lib_fail(error, T4_E_INVALID, "no data directory was given", "");
    o.db = new_db(options);
    run_on_thread(o.db, "t4-open", open_main, &o);
    if (o.status != T4_OK) {
        lib_fail_internal(error, &o.error);
        if (error != NULL)
            error->status = o.status;
        lib_unref(o.db);
        return o.status;
    }
    *out = o.db;
    return T4_OK;
}

/* --- closing ---------------------------------------------------------------------------------- */

static void *
close_main(void *arg)
{
    t4_db *db = arg;
    bool first, stopper;

    gate_shut(&db->calls);
    mutex_lock(&db->lock);
    first = !db->stopping;
    db->stopping = true;
    stopper = db->has_stopper;
    mutex_unlock(&db->lock);
    if (first)
        stop_node(db);
    if (stopper)
        thread_join(&db->stopper);
    gate_wait_empty(&db->calls);
    close_parts(db);
    return NULL;
}

t4_status
t4_close(t4_db *db)
{
    if (db == NULL)
        return T4_OK;
    if (!lib_is_of_this_process(db) || lib_is_calling_back(db))
        return T4_E_INVALID;
    run_on_thread(db, "t4-close", close_main, db);
    lib_unref(db);
    return T4_OK;
}
