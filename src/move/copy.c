/*
 * copy.c - objects copied on several threads.
 *
 * The caller's thread walks both listings and queues what it meets; workers read an object from
 * the source, check what its kind allows to be checked, and create it at the target.  What is
 * at the target already, from before an interruption, is read and compared instead.  The first
 * failure ends all of it.
 *
 * What is held in memory is bounded: a worker waits while the objects under way exceed
 * FLYING_MAX (one is always taken).
 *
 * Entry point: move_copy().  Runs on: the caller's thread and "t4-move".
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/memory.h"
#include "codec/codec.h"
#include "fmt/archive.h"
#include "move/move_int.h"

#define THREADS 8
#define QUEUE 64u
#define KEY_MAX 1024
#define FLYING_MAX ((uint64_t)256 << 20)
#define BUFFER_KEPT ((size_t)1 << 20) /* larger ones are given back after each object */
#define PROGRESS_NS UINT64_C(200000000)

struct task {
    char key[KEY_MAX];
    size_t key_bytes;
    uint64_t bytes;
    bool there;
};

struct copier {
    struct move *m;
    struct mutex lock;
    struct condition work, room; /* [lock] a worker's, the caller's */
    struct task queue[QUEUE];    /* [lock] a ring */
    size_t first, queued;        /* [lock] */
    bool closed;                 /* [lock] nothing more will be queued */
    uint64_t flying;             /* [lock] bytes that workers hold */
    struct move_progress done;   /* [lock] */
    t4_status status;            /* [lock] the first failure */
    struct error error;          /* [lock] */
};

/* --- one object -------------------------------------------------------------------------- */

/* Files of a checkpoint are named by the hash of their bytes. */
static bool
has_its_hash(struct t4_slice key, struct t4_slice body)
{
    char text[2 * SHA256_BYTES + 1];
    uint8_t named[SHA256_BYTES], digest[SHA256_BYTES];
    struct t4_slice name = slice_of(key.data + 4, key.len - 4); /* behind sst/ or run/ */

    if (name.len < 2 * SHA256_BYTES)
        return false;
    memcpy(text, name.data, 2 * SHA256_BYTES);
    text[2 * SHA256_BYTES] = '\0';
    sha256(body, digest);
    return sha256_parse(text, named) && memcmp(named, digest, sizeof named) == 0;
}

static bool
is_good_checkpoint(const struct lock_object *lock, struct t4_slice body)
{
    struct checkpoint_object *c = mem_alloc(sizeof *c);
    bool good = checkpoint_decode(body, c) == T4_OK &&
                c->cluster_id == lock->cluster_id && c->lineage == lock->lineage;

    mem_free(c);
    return good;
}

static bool
is_good_archive(const struct lock_object *lock, struct t4_slice body)
{
    struct archive a;
    bool good = archive_decode(body, &a) == T4_OK;

    if (!good)
        return false;
    good = a.cluster_id == lock->cluster_id && a.lineage == lock->lineage;
    archive_free(&a);
    return good;
}

static bool
is_good_segment(const struct lock_object *lock, struct t4_slice body)
{
    struct segment s;

    return segment_decode(body, &s) == T4_OK && s.cluster_id == lock->cluster_id &&
           s.lineage == lock->lineage;
}

/* As far as the kind of an object allows to tell; of later kinds nothing is known. */
static bool
is_good(const struct move *m, struct t4_slice key, struct t4_slice body)
{
    const struct lock_object *lock = objectlog_lock(m->chain);

    if (slice_has_prefix(key, slice_str("sst/")) ||
        slice_has_prefix(key, slice_str("run/")))
        return has_its_hash(key, body);
    if (slice_has_prefix(key, slice_str("wal/")))
        return is_good_segment(lock, body);
    if (slice_has_prefix(key, slice_str("log/")))
        return is_good_archive(lock, body);
    if (slice_has_prefix(key, slice_str("checkpoint/")))
        return is_good_checkpoint(lock, body);
    return true;
}

static t4_status
check(const struct move *m, const struct task *t, struct t4_slice body,
      struct error *error)
{
    struct t4_slice key = slice_of(t->key, t->key_bytes);

    if (body.len == t->bytes && is_good(m, key, body))
        return T4_OK;
    error_set(error, T4_E_CORRUPT, "the object %.*s of %s is damaged", (int)t->key_bytes,
              t->key, object_url(m->options.source));
    return error_hint(error, "restore it from a version or a copy that the store keeps, "
                             "then give the command again; or take the move back with "
                             "--abort");
}

static t4_status
copy(struct copier *c, const struct task *t, struct buffer *body, struct buffer *other,
     struct error *error)
{
    struct t4_slice key = slice_of(t->key, t->key_bytes);
    t4_status status = move_get(c->m, c->m->options.source, key, t->bytes, body, error);

    if (status == T4_OK)
        status = check(c->m, t, buffer_slice(body), error);
    if (status == T4_OK)
        status = move_create(c->m, key, buffer_slice(body), t->there, other, error);
    if (body->capacity > BUFFER_KEPT) {
        buffer_free(body);
        *body = (struct buffer){0};
    }
    if (other->capacity > BUFFER_KEPT) {
        buffer_free(other);
        *other = (struct buffer){0};
    }
    return status;
}

/* --- workers ----------------------------------------------------------------------------- */

/* Both copies of an object that is compared are held. */
static uint64_t
weight(const struct task *t)
{
    return t->there ? 2 * t->bytes : t->bytes;
}

/* False: there is nothing more to do. */
static bool
next_task(struct copier *c, struct task *t)
{
    for (;;) {
        const struct task *first = &c->queue[c->first];

        if (c->status != T4_OK || (c->queued == 0 && c->closed))
            return false;
        if (c->queued > 0 &&
            (c->flying == 0 || c->flying + weight(first) <= FLYING_MAX)) {
            *t = *first;
            c->first = (c->first + 1) % QUEUE;
            c->queued--;
            c->flying += weight(t);
            condition_signal(&c->room);
            return true;
        }
        condition_wait(&c->work, &c->lock);
    }
}

/* The others' waits between tries end, too. */
static void
fail(struct copier *c, t4_status status, const struct error *error)
{
    if (c->status != T4_OK)
        return;
    c->status = status;
    c->error = *error;
    mutex_lock(&c->m->lock);
    c->m->stop = true;
    condition_broadcast(&c->m->wake);
    mutex_unlock(&c->m->lock);
}

static void *
copy_main(void *arg)
{
    struct copier *c = arg;
    struct buffer body = {0}, other = {0};
    struct task t;

    mutex_lock(&c->lock);
    while (next_task(c, &t)) {
        struct error error = {0};
        t4_status status;

        mutex_unlock(&c->lock);
        status = copy(c, &t, &body, &other, &error);
        mutex_lock(&c->lock);
        c->flying -= weight(&t);
        if (status != T4_OK) {
            fail(c, status, &error);
        } else {
            c->done.objects++;
            c->done.bytes += t.bytes;
        }
        condition_broadcast(&c->work); /* bytes are free, or all is over */
        condition_signal(&c->room);
    }
    mutex_unlock(&c->lock);
    buffer_free(&body);
    buffer_free(&other);
    return NULL;
}

/* --- the caller's thread ----------------------------------------------------------------- */

/* Waits for a change, and says how far it has got. */
static void
wait_and_tell(struct copier *c)
{
    const struct move_options *o = &c->m->options;
    struct move_progress now;

    condition_wait_for(&c->room, &c->lock, PROGRESS_NS);
    now = c->done;
    if (o->progress == NULL)
        return;
    mutex_unlock(&c->lock);
    o->progress(o->arg, &now);
    mutex_lock(&c->lock);
}

static t4_status
queue(void *arg, const struct pair *p, struct error *error)
{
    struct copier *c = arg;
    struct task *t;
    t4_status status;

    if (p->key.len > KEY_MAX)
        return error_set(error, T4_E_CORRUPT, "a listing has a key of %zu bytes",
                         p->key.len);
    if (move_is_special(p->key) || !p->at_source)
        return T4_OK;
    mutex_lock(&c->lock);
    while (c->status == T4_OK && c->queued == QUEUE)
        wait_and_tell(c);
    status = c->status;
    if (status == T4_OK) {
        t = &c->queue[(c->first + c->queued++) % QUEUE];
        t->key_bytes = p->key.len;
        memcpy(t->key, p->key.data, p->key.len);
        t->bytes = p->source_bytes;
        t->there = p->at_target;
        condition_signal(&c->work);
    }
    mutex_unlock(&c->lock);
    return status;
}

static void
finish(struct copier *c, struct thread *thread)
{
    mutex_lock(&c->lock);
    c->closed = true;
    condition_broadcast(&c->work);
    while (c->status == T4_OK && (c->queued > 0 || c->flying > 0))
        wait_and_tell(c);
    mutex_unlock(&c->lock);
    for (size_t i = 0; i < THREADS; i++)
        thread_join(&thread[i]);
}

t4_status
move_copy(struct move *m, struct error *error)
{
    struct copier *c = mem_zalloc(sizeof *c);
    struct thread thread[THREADS];
    t4_status status;

    c->m = m;
    c->done.all_objects = m->result->objects;
    c->done.all_bytes = m->result->bytes;
    mutex_init(&c->lock);
    condition_init(&c->work);
    condition_init(&c->room);
    for (size_t i = 0; i < THREADS; i++)
        thread_start(&thread[i], "t4-move", copy_main, c);
    status = move_walk(m, queue, c, error);
    mutex_lock(&c->lock);
    if (status != T4_OK)
        fail(c, status, error);
    mutex_unlock(&c->lock);
    finish(c, thread);
    if (c->status != T4_OK) {
        status = c->status;
        *error = c->error;
    } else if (m->options.progress != NULL) {
        m->options.progress(m->options.arg, &c->done);
    }
    mutex_lock(&m->lock);
    m->stop = false;
    mutex_unlock(&m->lock);
    condition_destroy(&c->room);
    condition_destroy(&c->work);
    mutex_destroy(&c->lock);
    mem_free(c);
    return status;
}
