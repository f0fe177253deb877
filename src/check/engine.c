/*
 * engine.c - a storage engine under check: its processes, its life, and what comes of it.
 *
 * Entry points: check_plugin(), check_memory_engine(); bench_*() for the parts.  Runs on: the
 * main thread of the command, which has no other, and in children that it forks: one for
 * each part.  The first process never loads the plugin, because a library's threads do not
 * come along into a fork.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "check/engine_int.h"

#define PART_SECONDS 600 /* then a part is taken to hang */
#define MAX_SETTINGS 256

/* --- differences -------------------------------------------------------------------- */

bool
bench_complain(struct bench *b, const char *format, ...)
{
    va_list args;

    if (b->complaint[0] != '\0')
        return false;
    va_start(args, format);
    vsnprintf(b->complaint, sizeof b->complaint, format, args);
    va_end(args);
    return false;
}

bool
bench_status(struct bench *b, t4_status got, t4_status due, const char *call)
{
    if (got == due)
        return true;
    return bench_complain(b, "%s gives %s (%d) instead of %s", call, status_text(got),
                          got, due == T4_OK ? "OK" : status_text(due));
}

bool
bench_line(struct bench *b, const char *format, ...)
{
    bool good = b->complaint[0] == '\0';
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    check_ok(b->check, good, "%s", text);
    if (!good)
        check_note(b->check, "%s", b->complaint);
    b->complaint[0] = '\0';
    return good;
}

/* --- the engine --------------------------------------------------------------------- */

void *
bench_state(struct bench *b)
{
    return b->plugin != NULL ? plugin_state(b->plugin) : NULL;
}

bool
bench_load(struct bench *b)
{
    struct error error = {0};
    t4_status st = T4_OK;

    if (b->plugin_name == NULL) {
        b->ops = *engine_memory_ops();
    } else {
        st = plugin_load(b->check->options->plugin_dir, b->plugin_name, b->settings,
                         b->n_settings, &b->plugin, &error);
        if (st == T4_OK && b->engine_name != NULL)
            st = plugin_role(b->plugin, T4_ROLE_ENGINE, b->engine_name, &b->ops,
                             sizeof b->ops, &error);
    }
    b->durable = b->shared->durable = (b->ops.caps & T4_ENGINE_DURABLE) != 0;
    b->shared->reads = b->ops.open_reading != NULL;
    if (st == T4_OK)
        return true;
    b->shared->unusable = true;
    if (b->engine_name != NULL)
        check_ok(b->check, false, "role %s of plugin %s", b->engine_name, b->plugin_name);
    else
        check_ok(b->check, false, "plugin %s loads", b->plugin_name);
    check_note(b->check, "%s", error.message);
    check_note(b->check, "%s", error.hint);
    return false;
}

t4_status
bench_try_open(struct bench *b, struct error *error)
{
    return engine_open(&b->ops, bench_state(b), b->engine_name, b->dir, &b->engine,
                       error);
}

bool
bench_open(struct bench *b)
{
    struct error error = {0};

    if (bench_try_open(b, &error) == T4_OK)
        return true;
    b->shared->unusable = true;
    check_ok(b->check, false, "storage engine %s opens", b->engine_name);
    check_note(b->check, "%s", error.message);
    check_note(b->check, "%s", error.hint);
    return false;
}

void
bench_close(struct bench *b)
{
    engine_close(b->engine);
    b->engine = NULL;
}

/* --- short words -------------------------------------------------------------------- */

struct t4_op
put_op(struct t4_slice key, struct t4_slice value)
{
    return (struct t4_op){.kind = T4_OP_PUT, .key = key, .value = value};
}

struct t4_op
delete_op(struct t4_slice key)
{
    return (struct t4_op){.kind = T4_OP_DELETE, .key = key};
}

bool
bench_write(struct bench *b, const struct t4_op *ops, size_t n, uint64_t flushed,
            bool sync)
{
    struct error error = {0};

    if (engine_write(b->engine, ops, n, flushed, &error) != T4_OK ||
        (sync && engine_sync(b->engine, &error) != T4_OK))
        return bench_complain(b, "%.200s", error.message);
    return true;
}

struct t4_snap *
bench_snap(struct bench *b)
{
    struct t4_snap *s = NULL;

    bench_status(b, engine_snap(b->engine, &s), T4_OK, "snap()");
    return s;
}

struct t4_iter *
bench_iter(struct bench *b, struct t4_snap *s)
{
    struct t4_iter *it = NULL;

    bench_status(b, engine_iter(b->engine, s, &it), T4_OK, "iter()");
    return it;
}

bool
bench_flushed(struct bench *b, uint64_t due)
{
    uint64_t flushed = due + 1;

    bench_status(b, engine_flushed(b->engine, &flushed), T4_OK, "flushed()");
    if (flushed == due)
        return true;
    return bench_complain(b, "flushed() is %llu, not %llu", (unsigned long long)flushed,
                          (unsigned long long)due);
}

bool
bench_get(struct bench *b, struct t4_snap *s, struct t4_slice key,
          struct t4_slice expected)
{
    struct t4_slice value = {0};
    bool present = expected.data != NULL;

    if (!bench_status(b, engine_get(b->engine, s, key, &value),
                      present ? T4_OK : T4_E_NOTFOUND, "get()"))
        return false;
    if (!present || slice_equal(value, expected))
        return true;
    return bench_complain(b, "get() of a key of %zu bytes gives another value", key.len);
}

bool
bench_defragment(struct bench *b)
{
    struct error error = {0};
    unsigned steps = 0;
    bool more = true;

    while (more && steps++ < 100000)
        if (engine_defragment(b->engine, &more, &error) != T4_OK)
            return bench_complain(b, "%.200s", error.message);
    return !more || bench_complain(b, "defragment() has not ended after %u steps", steps);
}

/* --- processes ---------------------------------------------------------------------- */

int
bench_child_start(struct bench *b, void (*fn)(struct bench *))
{
    int pid;

    fflush(NULL);
    pid = fork();
    if (pid != 0)
        return pid;
    signal(SIGALRM, SIG_DFL);
    alarm(PART_SECONDS);
    fn(b);
    fflush(NULL);
    _exit(0);
}

bool
bench_child(struct bench *b, void (*fn)(struct bench *), int *killed)
{
    int status = 0, pid = bench_child_start(b, fn);

    *killed = 0;
    if (pid < 0)
        return false;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFSIGNALED(status))
        *killed = WTERMSIG(status);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st;
    (void)kind;
    (void)walk;
    return remove(path);
}

static void
run_part(struct bench *b, const char *folder, const char *what,
         void (*part)(struct bench *))
{
    int killed;

    snprintf(b->scratch, sizeof b->scratch, "%s/part", folder);
    snprintf(b->dir, sizeof b->dir, "%s/engine", b->scratch);
    if (mkdir(b->scratch, 0711) != 0) {
        check_ok(b->check, false, "a folder in %s for the check", folder);
        check_note(b->check, "%s", strerror(errno));
        return;
    }
    check_note(b->check, "%s", what);
    if (part == engine_crash || part == engine_reading)
        part(b);
    else if (!bench_child(b, part, &killed)) {
        check_ok(b->check, false, "%s: the engine goes through it", what);
        if (killed != 0)
            check_note(b->check, "it was ended by signal %d (%s)%s", killed,
                       strsignal(killed),
                       killed == SIGALRM ? ": it took more than 600 s" : "");
    }
    nftw(b->scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void
check_engine(struct bench *b)
{
    static const struct {
        const char *what;
        void (*run)(struct bench *);
    } parts[] = {
        {"contract: writes, sizes, stats", engine_contract},
        {"snapshots", engine_snapshots},
        {"iterators and slices", engine_iterators},
        {"a seeded history against a model", engine_model},
        {"races: readers beside a writer", engine_races},
        {"another process that reads", engine_reading},
        {"faults: memory, folders, disks", engine_faults},
        {"crashes: kill -9", engine_crash},
        {"hygiene: nothing is left", engine_hygiene},
    };
    const struct check_options *o = b->check->options;
    const char *tmp = o->dir != NULL ? o->dir : getenv("TMPDIR");
    char folder[PATH_MAX - 128];

    if (tmp == NULL || tmp[0] == '\0')
        tmp = "/tmp";
    if ((size_t)snprintf(folder, sizeof folder, "%s/t4-check-XXXXXX", tmp) >=
            sizeof folder ||
        mkdtemp(folder) == NULL) {
        check_ok(b->check, false, "a folder in %s for the check", tmp);
        check_note(b->check, "%s; --dir names another one", strerror(errno));
        return;
    }
    chmod(folder, 0711); /* a part gives up its rights and goes in */
    check_note(b->check, "storage engine %s, seed %llu", b->engine_name,
               (unsigned long long)o->seed);
    b->shared->unusable = false;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && !b->shared->unusable; i++) {
        b->chance.state = o->seed;
        run_part(b, folder, parts[i].what, parts[i].run);
    }
    if (rmdir(folder) != 0)
        check_note(b->check, "cannot remove %s: %s", folder, strerror(errno));
}

/* --- a plugin by name --------------------------------------------------------------- */

/* In a child, for what only loading shows. */
static void
descriptor_part(struct bench *b)
{
    struct check *c = b->check;
    const struct t4_plugin *d;
    size_t left;

    if (!bench_load(b)) /* with no engine's table yet: engine_name is NULL */
        return;
    check_ok(c, true, "plugin %s loads", b->plugin_name);
    check_descriptor(c, b->plugin);
    d = plugin_descriptor(b->plugin);
    for (size_t i = 0; i < d->n_roles; i++)
        if (d->roles[i].kind == T4_ROLE_ENGINE && b->shared->n_engines < ENGINES_MAX)
            snprintf(b->shared->engines[b->shared->n_engines++],
                     sizeof b->shared->engines[0], "%s", d->roles[i].name);
    left = plugin_unload(b->plugin);
    if (!check_ok(c, left == 0, "plugin %s unloads, all memory given back",
                  b->plugin_name))
        check_note(c, "%zu allocations are left", left);
}

static struct shared *
shared_make(const struct check_options *o)
{
    struct shared *s =
        mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (s == MAP_FAILED)
        return NULL;
    s->check.options = o;
    return s;
}

static bool
shared_done(struct shared *s)
{
    bool good = check_done(&s->check);

    munmap(s, sizeof *s);
    return good;
}

static bool
no_memory(const struct check_options *o)
{
    fprintf(o->out, "Bail out! no memory\n");
    return false;
}

bool
check_memory_engine(const struct check_options *o)
{
    struct shared *s = shared_make(o);
    struct bench b = {
        .shared = s, .check = s != NULL ? &s->check : NULL, .engine_name = "memory"};

    if (s == NULL)
        return no_memory(o);
    check_engine(&b);
    return shared_done(s);
}

bool
check_plugin(const char *name, const struct check_options *o)
{
    struct plugin_setting settings[MAX_SETTINGS];
    struct shared *s = shared_make(o);
    struct bench b = {.shared = s, .plugin_name = name, .settings = settings};
    size_t length = strlen(name);
    int killed;

    if (s == NULL)
        return no_memory(o);
    b.check = &s->check;
    for (size_t i = 0; i < o->n_settings && b.n_settings < MAX_SETTINGS; i++) {
        const char *dot = strchr(o->settings[i].name, '.');

        if (dot != NULL && (size_t)(dot - o->settings[i].name) == length &&
            memcmp(o->settings[i].name, name, length) == 0)
            settings[b.n_settings++] =
                (struct plugin_setting){dot + 1, o->settings[i].value};
        else
            check_ok(b.check, false, "setting %s belongs to plugin %s",
                     o->settings[i].name, name);
    }
    if (!bench_child(&b, descriptor_part, &killed)) {
        check_ok(b.check, false, "plugin %s loads and unloads", name);
        if (killed != 0)
            check_note(b.check, "it was ended by signal %d (%s)", killed,
                       strsignal(killed));
    }
    for (unsigned i = 0; i < s->n_engines; i++) {
        b.engine_name = s->engines[i];
        check_engine(&b);
    }
    return shared_done(s);
}
