/*
 * engine_crash.c - every crash point of flush and compaction, on the engine's own I/O.
 *
 *   engine_crash            runs the test, prints TAP
 *   engine_crash work DIR   the workload; runs under LD_PRELOAD=record_io.so
 *
 * A seeded history of entries goes through mvcc into LMDB, with flushes in small slices and
 * compactions, while the preloaded recorder writes down each write, sync and truncate.  From
 * the record the files are rebuilt as they may be after a power cut at every point: all that
 * was not synced lost, all kept, torn, or any part of it kept in any order.  Each image is
 * opened in a new process, the history's entries above the engine's flushed index are
 * replayed as the log would, and every key is read at every uncompacted revision.
 *
 * What must hold: the engine never claims more than it has (the flushed index stands in the
 * last slice only), never less than a flush that was reported done, and nothing that a
 * compaction removed comes back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../preload/record_io.h"
#include "base/memory.h"
#include "engine/engine.h"
#include "fmt/entry.h"
#include "mvcc/mvcc.h"
#include "plugin/plugin.h"
#include "scratch.h"

#define KEYS 60
#define ENTRIES 420
#define FILES_MAX 16
#define SECTOR 512

#define REQUIRE(condition)                                                               \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "# engine_crash: line %d: %s\n", __LINE__, #condition);      \
            _exit(1);                                                                    \
        }                                                                                \
    } while (0)

/* --- the history: a function of the seed only ----------------------------------------------- */

struct change {
    unsigned key;
    uint64_t number; /* 0: deleted */
};
struct entry_plan {
    struct change change[4];
    unsigned changes;
    int64_t compacted; /* compacted revision in force after it */
};
static struct entry_plan plan[ENTRIES + 1]; /* [index], index = revision */

static uint64_t random_state = 20260; /* the seed; the whole test follows from it */

static uint64_t
chance(uint64_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % n;
}

static void
make_plan(void)
{
    int64_t compacted = -1;

    for (int64_t i = 1; i <= ENTRIES; i++) {
        struct entry_plan *p = &plan[i];

        p->changes = 1 + (unsigned)chance(3);
        for (unsigned c = 0; c < p->changes; c++) {
            p->change[c].key = (unsigned)chance(KEYS);
            for (unsigned d = 0; d < c; d++)
                if (p->change[d].key == p->change[c].key)
                    p->changes = c;
            p->change[c].number = chance(4) == 0 ? 0 : 1 + chance(5000);
        }
        if (i % 60 == 0 && i > 60)
            compacted = i - (int64_t)chance(40);
        p->compacted = compacted;
    }
}

/* Some keys are short, some share 600 bytes (layers in LMDB). */
static struct t4_slice
ikey_of(unsigned key)
{
    static char text[700];
    size_t head = 1;

    text[0] = SPACE_KEYS;
    if (key % 3 == 0) {
        memset(text + 1, 'p', 600);
        head = 601;
    }
    return slice_of(text, head + (size_t)snprintf(text + head, 32, "key-%05u", key));
}

static struct version
version_of(int64_t revision, uint64_t number)
{
    static char value[6000];

    memset(value, 'a' + (int)(number % 26), sizeof value);
    return (struct version){.stamp = (uint64_t)revision,
                            .flags = number == 0 ? VERSION_TOMBSTONE : 0,
                            .version = (int64_t)number,
                            .value = slice_of(value, number)};
}

static void
insert_entry(struct mvcc *m, int64_t i)
{
    for (unsigned c = 0; c < plan[i].changes; c++) {
        struct version v = version_of(i, plan[i].change[c].number);

        mvcc_insert(m, ikey_of(plan[i].change[c].key), &v);
    }
    mvcc_publish(m, (uint64_t)i, plan[i].compacted);
    mvcc_entry_done(m, (uint64_t)i, i, 0);
}

/* --- a store ------------------------------------------------------------------------------------ */

struct store {
    struct plugin *plugin;
    struct engine *engine;
    struct mvcc *mvcc;
    struct mvcc_state state;
};

static void
store_open(struct store *s, const char *dir)
{
    struct plugin_setting setting = {"map_size", "256MB"};
    struct t4_engine_ops ops;
    struct mvcc_options o = {
        .cluster_id = 1, .lineage = 2, .memtable_bytes = 40000, .flush_slice = 12};
    struct error e;

    if (plugin_load(NULL, "lmdb", &setting, 1, &s->plugin, &e) != T4_OK ||
        plugin_role(s->plugin, T4_ROLE_ENGINE, "lmdb", &ops, sizeof ops, &e) != T4_OK ||
        engine_open(&ops, plugin_state(s->plugin), "lmdb", dir, &s->engine, &e) !=
            T4_OK) {
        fprintf(stderr, "# engine_crash: %s\n", e.message);
        _exit(1);
    }
    o.engine = s->engine;
    if (mvcc_open(&o, &s->mvcc, &s->state, &e) != T4_OK) {
        fprintf(stderr, "# engine_crash: %s\n", e.message);
        _exit(1);
    }
}

static int
work(const char *dir)
{
    char path[PATH_MAX];
    struct store s;
    struct error e;
    uint64_t pause, flushed;
    int marker;

    snprintf(path, sizeof path, "%s/marker", dir);
    marker = open(path, O_WRONLY | O_CREAT, 0600);
    REQUIRE(marker >= 0);
    store_open(&s, dir);
    for (int64_t i = 1; i <= ENTRIES; i++) {
        insert_entry(s.mvcc, i);
        if (plan[i].compacted > plan[i - 1].compacted)
            mvcc_compact(s.mvcc, plan[i].compacted);
        if (i == ENTRIES)
            mvcc_freeze(s.mvcc);
        while (mvcc_work(s.mvcc, &pause, &e) == T4_OK) {
            flushed = mvcc_flushed_index(s.mvcc);
            REQUIRE(pwrite(marker, &flushed, sizeof flushed, 0) == sizeof flushed);
        }
    }
    /* no orderly close: the process just ends */
    _exit(0);
}

/* --- checking one image (in a child process) ------------------------------------------------------ */

static uint64_t
expected(unsigned key, int64_t revision)
{
    for (int64_t i = revision; i >= 1; i--)
        for (unsigned c = 0; c < plan[i].changes; c++)
            if (plan[i].change[c].key == key)
                return plan[i].change[c].number;
    return 0;
}

static void
check_revision(struct mvcc_reader *r, int64_t revision)
{
    for (unsigned key = 0; key < KEYS; key++) {
        struct version v;
        uint64_t number = expected(key, revision);
        t4_status status = mvcc_get(r, ikey_of(key), (uint64_t)revision, &v);

        if (number == 0) {
            REQUIRE(status == T4_E_NOTFOUND ||
                    (status == T4_OK && (v.flags & VERSION_TOMBSTONE)));
        } else {
            struct version want = version_of(revision, number);

            REQUIRE(status == T4_OK);
            REQUIRE(v.version == want.version && slice_equal(v.value, want.value));
        }
    }
}

static void
check_image(const char *dir, uint64_t least)
{
    struct store s;
    struct mvcc_reader r;
    struct error e;
    uint64_t pause;
    int64_t compacted;

    store_open(&s, dir);
    REQUIRE(s.state.flushed >= least);
    REQUIRE(s.state.flushed <= ENTRIES);
    for (int64_t i = (int64_t)s.state.flushed + 1; i <= ENTRIES; i++) {
        insert_entry(s.mvcc, i);
        if (mvcc_frozen_count(s.mvcc) > 8)
            while (mvcc_work(s.mvcc, &pause, &e) == T4_OK)
                ;
    }
    mvcc_publish(s.mvcc, ENTRIES, plan[ENTRIES].compacted);
    compacted = plan[ENTRIES].compacted;
    REQUIRE(mvcc_read_begin(s.mvcc, &r) == T4_OK);
    for (int64_t revision = compacted; revision <= ENTRIES; revision += 13)
        check_revision(&r, revision);
    check_revision(&r, ENTRIES);
    mvcc_read_end(&r);
}

/* --- images from the record -------------------------------------------------------------------------- */

struct image_file {
    char name[64];
    uint8_t *synced, *image; /* synced: what a power cut cannot take */
    size_t size, synced_size, capacity;
};

static struct image_file file[FILES_MAX];
static unsigned files;
static const struct record **record; /* all of them */
static size_t records;

static const uint8_t *
data_of(const struct record *r)
{
    return (const uint8_t *)(r + 1);
}

static void
read_record(const char *path)
{
    struct stat st;
    uint8_t *bytes;
    int fd = open(path, O_RDONLY);

    REQUIRE(fd >= 0 && fstat(fd, &st) == 0);
    bytes = mem_alloc((size_t)st.st_size);
    for (size_t at = 0, got; at < (size_t)st.st_size; at += got)
        REQUIRE((got = (size_t)read(fd, bytes + at, (size_t)st.st_size - at)) > 0);
    close(fd);
    for (size_t at = 0; at < (size_t)st.st_size;) {
        struct record head, *aligned;

        if (records % 1024 == 0)
            record = mem_realloc(record, (records + 1024) * sizeof *record);
        memcpy(&head, bytes + at, sizeof head);
        at += sizeof head;
        aligned = mem_alloc(sizeof head + head.length);
        *aligned = head;
        if (head.kind == RECORD_OPEN || head.kind == RECORD_WRITE) {
            memcpy(aligned + 1, bytes + at, head.length);
            at += head.length;
        }
        record[records++] = aligned;
    }
    mem_free(bytes);
}

static void
grow(struct image_file *f, size_t size)
{
    if (size > f->capacity) {
        f->capacity = size * 2;
        f->synced = mem_realloc(f->synced, f->capacity);
        f->image = mem_realloc(f->image, f->capacity);
    }
}

static void
apply_bytes(uint8_t *content, size_t *size, const struct record *r, uint64_t from,
            uint64_t n)
{
    if (r->kind == RECORD_TRUNCATE) {
        if (r->offset > *size)
            memset(content + *size, 0, r->offset - *size);
        *size = r->offset;
        return;
    }
    if (r->offset + from > *size)
        memset(content + *size, 0, r->offset + from - *size);
    memcpy(content + r->offset + from, data_of(r) + from, n);
    if (r->offset + from + n > *size)
        *size = r->offset + from + n;
}

enum image_kind { LOST, KEPT, TORN, SUBSET, IMAGE_KINDS };

/* Files after a power cut behind record `until`; unsynced from `base[file]` on. */
static void
build_image(const size_t *base, size_t until, enum image_kind kind, const char *dir)
{
    for (unsigned i = 0; i < files; i++) {
        struct image_file *f = &file[i];
        char path[PATH_MAX + 128];
        int fd;

        f->size = f->synced_size;
        memcpy(f->image, f->synced, f->size);
        for (size_t j = base[i]; j < until; j++) {
            const struct record *r = record[j];
            uint64_t from = 0, n = r->length;

            if (r->file != i || (r->kind != RECORD_WRITE && r->kind != RECORD_TRUNCATE))
                continue;
            if (kind == LOST && !(r->flags & RECORD_SYNCED))
                continue;
            if (kind == SUBSET && !(r->flags & RECORD_SYNCED) && chance(2) == 0)
                continue;
            if (kind == TORN && !(r->flags & RECORD_SYNCED) && r->kind == RECORD_WRITE) {
                from = chance(n / SECTOR + 1) * SECTOR;
                n = chance((n - from) / SECTOR + 1) * SECTOR;
            }
            apply_bytes(f->image, &f->size, r, from, n);
        }
        snprintf(path, sizeof path, "%s/%s", dir, f->name);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        REQUIRE(fd >= 0 && write(fd, f->image, f->size) == (ssize_t)f->size);
        close(fd);
    }
}

static bool
image_is_good(const char *dir, uint64_t least)
{
    pid_t pid;
    int status;

    fflush(stdout);
    pid = fork();

    REQUIRE(pid >= 0);
    if (pid == 0) { /* what the parent has buffered is the parent's to print */
        check_image(dir, least);
        _exit(0);
    }
    REQUIRE(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Returns how many images were wrong; stops at the first of a mutant run. */
static unsigned
all_points(const char *dir, unsigned stride, bool stop, unsigned *points,
           unsigned *images)
{
    size_t base[FILES_MAX] = {0};
    uint64_t least = 0;
    unsigned bad = 0;

    files = 0;
    for (size_t i = 0; i < records; i++) {
        const struct record *r = record[i];
        struct image_file *f = &file[r->file];

        REQUIRE(r->file < FILES_MAX);
        if (r->kind == RECORD_OPEN) {
            snprintf(f->name, sizeof f->name, "%.*s", (int)r->length,
                     (const char *)data_of(r));
            files = r->file + 1;
            grow(f, 4096);
            f->synced_size = 0;
            continue;
        }
        grow(f, r->offset + r->length);
        if (strcmp(f->name, "marker") == 0) {
            memcpy(&least, data_of(r), sizeof least);
            base[r->file] = i + 1;
            continue;
        }
        for (int kind = 0; kind < IMAGE_KINDS && i % stride == 0; kind++) {
            build_image(base, i + 1, (enum image_kind)kind, dir);
            (*images)++;
            if (!image_is_good(dir, least)) {
                bad++;
                if (!stop)
                    printf("# record %zu, image %d: wrong\n", i, kind);
                if (stop || bad > 5)
                    return bad;
            }
        }
        *points += i % stride == 0;
        if (r->kind == RECORD_SYNC) {
            for (size_t j = base[r->file]; j < i; j++)
                if (record[j]->file == r->file && (record[j]->kind == RECORD_WRITE ||
                                                   record[j]->kind == RECORD_TRUNCATE))
                    apply_bytes(f->synced, &f->synced_size, record[j], 0,
                                record[j]->length);
            base[r->file] = i + 1;
        }
    }
    return bad;
}

static void
run_workload(const char *self, const char *dir, const char *log, const char *ignore)
{
    char preload[PATH_MAX];
    pid_t pid;
    int status;

    snprintf(preload, sizeof preload, "%s/regress/preload/record_io.so",
             getenv("T4_BUILD_DIR") != NULL ? getenv("T4_BUILD_DIR") : ".");
    REQUIRE(access(preload, R_OK) == 0);
    unlink(log);
    pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        setenv("LD_PRELOAD", preload, 1);
        setenv("T4_RECORD_DIR", dir, 1);
        setenv("T4_RECORD_LOG", log, 1);
        if (ignore != NULL)
            setenv("T4_RECORD_IGNORE", ignore, 1);
        execl(self, self, "work", dir, (char *)NULL);
        _exit(127);
    }
    REQUIRE(waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
            WEXITSTATUS(status) == 0);
    for (size_t i = 0; i < records; i++)
        mem_free((void *)(uintptr_t)record[i]);
    records = 0;
    read_record(log);
}

int
main(int argc, char **argv)
{
    static const char *const mutant[] = {NULL, "sync", "dsync"};
    /* Images need no disk: in memory a reopening's own syncs cost nothing. */
    char dir[SCRATCH_ROOM], worked[PATH_MAX], image[PATH_MAX], log[PATH_MAX];

    make_plan();
    if (argc == 3 && strcmp(argv[1], "work") == 0)
        return work(argv[2]);
    scratch_make_in_memory(dir, sizeof dir, "t4-engine-crash");
    snprintf(image, sizeof image, "%s/image", dir);
    snprintf(log, sizeof log, "%s/log", dir);
    REQUIRE(mkdir(image, 0700) == 0);
    printf("1..3\n");
    for (unsigned i = 0; i < 3; i++) {
        unsigned points = 0, images = 0, bad;

        snprintf(worked, sizeof worked, "%s/work%u", dir, i);
        REQUIRE(mkdir(worked, 0700) == 0);
        run_workload(argv[0], worked, log, mutant[i]);
        if (mutant[i] != NULL) /* the children say what is wrong; here that is expected */
            REQUIRE(freopen("/dev/null", "w", stderr) != NULL);
        bad = all_points(image, mutant[i] != NULL ? 3 : 1, mutant[i] != NULL, &points,
                         &images);
        if (mutant[i] == NULL)
            printf("%sok 1 - every crash point of flush and compaction: %u points, %u "
                   "images, "
                   "%zu operations\n",
                   bad == 0 ? "" : "not ", points, images, records);
        else
            printf("%sok %u - without %s it fails\n", bad > 0 ? "" : "not ", i + 1,
                   i == 1 ? "the engine's syncs" : "synchronous writes of its meta page");
        fflush(stdout);
    }
    scratch_remove(dir);
    return 0;
}
