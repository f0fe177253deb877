/*
 * archive.c - raw slots of the chain become archives, so that a start has few objects to read.
 *
 * An archive is put, read back, compared (objectlog_archive()), then the manifest's floor is moved
 * above it; the segments in it are deleted in a later round of collect.c.  Whoever reads the chain
 * meanwhile finds each entry in at least one of the two places.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "checkpoint/checkpoint_int.h"

#define DUE_SLOTS 64u
#define DUE_BYTES (16u << 20) /* of entries; about 4 MiB of objects */
#define MOST_SLOTS 512u       /* of an archive, when many wait */

bool
archive_is_due_locked(const struct checkpointer *c)
{
    return c->mark.place.next_slot >= c->floor_slot + DUE_SLOTS ||
           (c->raw_bytes >= DUE_BYTES && c->mark.place.next_slot > c->floor_slot);
}

bool
archive_is_due(struct checkpointer *c)
{
    bool due;

    mutex_lock(&c->lock);
    due = archive_is_due_locked(c);
    mutex_unlock(&c->lock);
    return due;
}

static void
note_floor(struct checkpointer *c, const struct archive *a)
{
    mutex_lock(&c->lock);
    c->floor_slot = a->end.next_slot;
    c->view.archived = a->end.next_slot;
    /* What is left above it is not known by the byte: nothing, or the next stretch is due. */
    if (c->mark.place.next_slot <= c->floor_slot + 1)
        c->raw_bytes = 0;
    else if (c->raw_bytes > DUE_BYTES)
        c->raw_bytes -= DUE_BYTES;
    else
        c->raw_bytes = 0;
    mutex_unlock(&c->lock);
}

t4_status
archive_step(struct checkpointer *c, struct error *error)
{
    struct manifest_object next;
    struct chain_floor newest;
    struct archive a;
    uint64_t bytes;
    t4_status status;

    mutex_lock(&c->lock);
    newest = c->mark.place;
    mutex_unlock(&c->lock);
    status = objectlog_archive(c->log, &newest, MOST_SLOTS, &a, &bytes, error);
    if (status == T4_E_NOTFOUND) { /* fences and leftovers only: with what comes */
        mutex_lock(&c->lock);
        c->raw_bytes = 0;
        c->floor_slot = newest.next_slot;
        mutex_unlock(&c->lock);
        return T4_OK;
    }
    if (status != T4_OK)
        return status;
    next = *objectlog_manifest(c->log);
    next.floor = a.end;
    status = publish_manifest(c, &next, error);
    if (status == T4_OK) {
        collector_add_slots(&c->collector, &a);
        c->dirty = true;
        note_floor(c, &a);
        if (c->options.metrics != NULL) {
            metric_add(c->options.metrics, METRIC_CHECKPOINT_ARCHIVES, 1);
            metric_add(c->options.metrics, METRIC_CHECKPOINT_UPLOADED, (int64_t)bytes);
        }
    }
    archive_free(&a);
    return status;
}
