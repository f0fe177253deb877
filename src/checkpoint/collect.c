/*
 * collect.c - what is not reached any more, and its removal.
 *
 * A round reads the manifest and everything on its list whole, lists the store, then looks for
 * pins, and only then deletes: an object goes if nothing on the list reaches it, and it is as old
 * as the newest checkpoint or of a lower term.  Whatever a later manifest names is reached by the one it
 * replaces or is newer than that, so a removal may be late without harm.
 *
 * Raw segments go when an archive holds them.  Those of archives that this process has made it
 * knows; others, and the late puts of leaders long gone, are found by listing wal/ from its
 * beginning, once at first and once a day.  The slots that an archive records as skipped stay (I6).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"
#include "checkpoint/checkpoint_int.h"

#define REMOVE_KEYS 500u /* in one request */

/* --- keys that are going to be removed ------------------------------------------------------------ */

struct doomed {
    struct buffer keys; /* each with a terminator */
    uint64_t *bytes;
    size_t n, capacity;
};

static void
doom(struct doomed *d, struct t4_slice key, uint64_t bytes)
{
    if (d->n == d->capacity) {
        d->capacity = d->capacity * 2 + 64;
        d->bytes = mem_realloc(d->bytes, d->capacity * sizeof *d->bytes);
    }
    d->bytes[d->n++] = bytes;
    buffer_append_slice(&d->keys, key);
    buffer_append_u8(&d->keys, '\0');
}

static void
doomed_free(struct doomed *d)
{
    buffer_free(&d->keys);
    mem_free(d->bytes);
    *d = (struct doomed){0};
}

/* Right before something goes: is the manifest still of the term whose garbage this is? */
static t4_status
check_term(struct collector *g, struct error *error)
{
    t4_status status = objectlog_refresh_manifest(g->log, error);
    uint64_t term = objectlog_manifest(g->log)->term;

    if (status == T4_OK && term != g->term)
        return error_set(error, T4_E_PRECONDITION,
                         "the manifest is of term %" PRIu64 ", not of %" PRIu64
                         " any more: another server leads",
                         term, g->term);
    return status;
}

static t4_status
remove_all(struct collector *g, const struct doomed *d, struct error *error)
{
    const char *key = (const char *)d->keys.data;
    t4_status status = T4_OK;

    for (size_t i = 0; i < d->n && status == T4_OK;) {
        struct t4_slice batch[REMOVE_KEYS];
        uint64_t bytes = 0;
        size_t n = 0;

        for (; n < REMOVE_KEYS && i < d->n; n++, i++) {
            batch[n] = slice_str(key);
            bytes += d->bytes[i];
            if (g->removing != NULL)
                g->removing(g->arg, key, d->bytes[i]);
            key += batch[n].len + 1;
        }
        if (!g->dry_run)
            status = check_term(g, error);
        if (status == T4_OK && !g->dry_run)
            status = objectlog_remove(g->log, batch, n, error);
        if (status == T4_OK) {
            g->result.objects += n;
            g->result.bytes += bytes;
        }
    }
    return status;
}

/* --- what is needed -------------------------------------------------------------------------------- */

static struct known_run *
find_known(const struct collector *g, const struct checkpoint_run *run)
{
    struct known_run *k = g->known;

    while (k != NULL && (memcmp(k->name.sha256, run->sha256, SHA256_BYTES) != 0 ||
                         k->name.term != run->term || k->name.index != run->index))
        k = k->next;
    return k;
}

static t4_status
need_run(struct collector *g, const struct checkpoint_run *run, struct error *error)
{
    struct known_run *k = find_known(g, run);
    struct run_index index;
    t4_status status;

    if (k == NULL) {
        status = run_fetch(g->log, run, &index, error);
        if (status != T4_OK)
            return status;
        k = mem_zalloc(sizeof *k);
        memcpy(k->name.sha256, run->sha256, SHA256_BYTES);
        k->name.term = run->term;
        k->name.index = run->index;
        for (size_t i = 0; i < index.n; i++)
            file_set_add(&k->files, index.sst[i].info.sha256, index.sst[i].term,
                         index.sst[i].index);
        run_index_free(&index);
        k->next = g->known;
        g->known = k;
    }
    k->needed = true;
    return T4_OK;
}

static t4_status
need_checkpoint(struct collector *g, const struct checkpoint_name *name,
                struct error *error)
{
    struct checkpoint_object o;
    t4_status status = objectlog_fetch_checkpoint(g->log, name, &o, error);

    for (uint32_t i = 0; status == T4_OK && i < o.n_runs; i++)
        status = need_run(g, &o.run[i], error);
    if (status == T4_E_CORRUPT)
        error_wrap(error, "nothing is deleted while what is needed cannot be read");
    return status;
}

/* Runs and files that the list reaches. */
struct needed {
    struct file_set runs, files;
};

static t4_status
find_needed(struct collector *g, const struct manifest_object *m, struct needed *needed,
            struct error *error)
{
    struct known_run **link = &g->known, *k;
    t4_status status = T4_OK;

    for (k = g->known; k != NULL; k = k->next)
        k->needed = false;
    for (uint32_t i = 0; status == T4_OK && i < m->n_checkpoints; i++)
        status = need_checkpoint(g, &m->checkpoint[i], error);
    if (status != T4_OK)
        return status;
    while ((k = *link) != NULL) {
        if (!k->needed) {
            *link = k->next;
            file_set_free(&k->files);
            mem_free(k);
            continue;
        }
        file_set_add(&needed->runs, k->name.sha256, k->name.term, k->name.index);
        for (size_t i = 0; i < k->files.n; i++)
            file_set_add(&needed->files, k->files.at[i].sha256, k->files.at[i].term,
                         k->files.at[i].index);
        link = &k->next;
    }
    file_set_sort(&needed->runs);
    file_set_sort(&needed->files);
    return T4_OK;
}

/* --- what may go ------------------------------------------------------------------------------------ */

struct sweep {
    const struct collector *g;
    const struct manifest_object *m;
    const struct needed *needed;
    struct doomed doomed;
    uint64_t kept, kept_bytes;
};

/* Not of a checkpoint that is being made: whatever that one names is newer than the newest. */
static bool
is_old(const struct manifest_object *m, uint64_t term, uint64_t index)
{
    if (term < m->term)
        return true;
    return m->n_checkpoints > 0 && term == m->newest.term && index <= m->newest.index;
}

static bool
is_listed(const struct manifest_object *m, uint64_t term, int64_t revision,
          uint64_t index)
{
    for (uint32_t i = 0; i < m->n_checkpoints; i++)
        if (m->checkpoint[i].term == term && m->checkpoint[i].index == index &&
            m->checkpoint[i].revision == revision)
            return true;
    return false;
}

static t4_status
look_at(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct sweep *s = arg;
    uint8_t hash[SHA256_BYTES];
    uint64_t term, index;
    int64_t revision;
    bool goes = false;

    if (checkpoint_key_parse(key, &term, &revision, &index))
        goes = is_old(s->m, term, index) && !is_listed(s->m, term, revision, index);
    else if (run_key_parse(key, hash, &term, &index))
        goes = is_old(s->m, term, index) &&
               !file_set_has(&s->needed->runs, hash, term, index);
    else if (sst_key_parse(key, hash, &term, &index))
        goes = is_old(s->m, term, index) &&
               !file_set_has(&s->needed->files, hash, term, index);
    else if (archive_key_parse(key, &term, &index)) /* slots */
        goes = index < s->m->archive.next_slot;
    if (goes) {
        doom(&s->doomed, key, info->length);
    } else {
        s->kept++;
        s->kept_bytes += info->length;
    }
    return T4_OK;
}

/* --- raw slots ---------------------------------------------------------------------------------------- */

void
collector_add_slots(struct collector *g, const struct archive *a)
{
    for (size_t i = 0; i < a->n; i++) {
        if (a->slot[i].skipped)
            continue;
        if (g->n_slots == g->slot_capacity) {
            g->slot_capacity = g->slot_capacity * 2 + 128;
            g->slot = mem_realloc(g->slot, g->slot_capacity * sizeof *g->slot);
        }
        g->slot[g->n_slots++] = a->slot[i].slot;
    }
}

struct slots {
    uint64_t *at; /* listed ones below the floor, ascending */
    uint64_t *bytes;
    size_t n, capacity;
    uint64_t floor;
    struct buffer archives; /* keys of those that hold one of them */
};

static t4_status
take_slot(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct slots *s = arg;
    uint64_t slot;

    if (!slot_key_parse(key, &slot) || slot >= s->floor)
        return T4_OK;
    if (s->n == s->capacity) {
        s->capacity = s->capacity * 2 + 128;
        s->at = mem_realloc(s->at, s->capacity * sizeof *s->at);
        s->bytes = mem_realloc(s->bytes, s->capacity * sizeof *s->bytes);
    }
    s->bytes[s->n] = info->length;
    s->at[s->n++] = slot;
    return T4_OK;
}

/* The first listed slot at or above this one. */
static size_t
first_at(const struct slots *s, uint64_t slot)
{
    size_t low = 0, high = s->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (s->at[middle] < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static t4_status
take_archive(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct slots *s = arg;
    uint64_t first, last;
    size_t i;

    (void)info;
    if (!archive_key_parse(key, &first, &last))
        return T4_OK;
    i = first_at(s, first);
    if (i == s->n || s->at[i] > last)
        return T4_OK;
    buffer_append_slice(&s->archives, key);
    buffer_append_u8(&s->archives, '\0');
    return T4_OK;
}

/* Of the listed slots those whose accepted segment the archive holds. */
static t4_status
doom_held(struct collector *g, struct slots *s, const char *key, struct buffer *object,
          struct doomed *d, struct error *error)
{
    const struct manifest_object *m = objectlog_manifest(g->log);
    struct archive a;
    t4_status status = objectlog_fetch(g->log, key, ARCHIVE_OBJECT_MAX, object, error);

    if (status == T4_OK && archive_decode(buffer_slice(object), &a) != T4_OK) {
        error_set(error, T4_E_CORRUPT, "the object %s is damaged", key);
        return error_hint(error,
                          "restore it from a version or a copy that the store keeps");
    }
    if (status != T4_OK)
        return status;
    if (a.cluster_id != m->cluster_id || a.lineage != m->lineage)
        a.n = 0; /* not ours to judge by */
    for (size_t i = 0; i < a.n; i++) {
        char name[SLOT_KEY_BYTES];
        size_t at = first_at(s, a.slot[i].slot);

        if (a.slot[i].skipped || at == s->n || s->at[at] != a.slot[i].slot ||
            s->bytes[at] == UINT64_MAX)
            continue;
        slot_key(name, a.slot[i].slot);
        doom(d, slice_str(name), s->bytes[at]);
        s->bytes[at] = UINT64_MAX; /* another archive may hold it, too */
    }
    archive_free(&a);
    return T4_OK;
}

/* All of wal/ below the floor, against all archives. */
static t4_status
find_all_slots(struct collector *g, struct doomed *d, struct error *error)
{
    struct slots s = {.floor = objectlog_manifest(g->log)->floor.next_slot};
    struct buffer object = {0};
    const char *key, *end;
    t4_status status = objectlog_walk(g->log, "wal/", NULL, take_slot, &s, error);

    if (status == T4_OK && s.n > 0)
        status = objectlog_walk(g->log, "log/", NULL, take_archive, &s, error);
    key = (const char *)s.archives.data;
    end = key + s.archives.len;
    for (; status == T4_OK && key < end; key += strlen(key) + 1)
        status = doom_held(g, &s, key, &object, d, error);
    buffer_free(&object);
    buffer_free(&s.archives);
    mem_free(s.at);
    mem_free(s.bytes);
    return status;
}

static t4_status
remove_slots(struct collector *g, bool all, struct error *error)
{
    struct doomed d = {0};
    size_t n = g->n_slots;
    t4_status status = T4_OK;

    for (size_t i = 0; i < n; i++) {
        char key[SLOT_KEY_BYTES];

        slot_key(key, g->slot[i]);
        doom(&d, slice_str(key), 0);
    }
    if (all) {
        doomed_free(&d); /* the listing has these, too */
        status = find_all_slots(g, &d, error);
    }
    if (status == T4_OK)
        status = remove_all(g, &d, error);
    doomed_free(&d);
    if (status != T4_OK)
        return status;
    g->n_slots = 0;
    g->slots_are_known |= all;
    return T4_OK;
}

/* --- a round ------------------------------------------------------------------------------------------ */

static t4_status
note_pin(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    (void)key;
    (void)info;
    *(bool *)arg = true;
    return T4_OK;
}

static t4_status
sweep(struct collector *g, const struct manifest_object *m, struct sweep *s,
      struct error *error)
{
    static const char *const prefix[] = {"checkpoint/", "run/", "sst/", "log/"};
    size_t n = sizeof prefix / sizeof prefix[0];
    t4_status status = T4_OK;

    /* An archive goes only after the raw segments in it: it alone says which those are. */
    n -= !g->slots_are_known;
    (void)m;
    for (size_t i = 0; i < n && status == T4_OK; i++)
        status = objectlog_walk(g->log, prefix[i], NULL, look_at, s, error);
    return status;
}

t4_status
collect(struct collector *g, bool all_slots, struct error *error)
{
    struct needed needed = {0};
    struct manifest_object m;
    struct sweep s = {.g = g, .m = &m, .needed = &needed};
    bool pinned = false;
    t4_status status = check_term(g, error);

    if (status != T4_OK)
        return status;
    m = *objectlog_manifest(g->log);
    status = find_needed(g, &m, &needed, error);
    if (status == T4_OK) /* after the list was published: pin.pml */
        status = objectlog_walk(g->log, "branches/", NULL, note_pin, &pinned, error);
    if (status == T4_OK && !pinned)
        status = remove_slots(g, all_slots, error);
    if (status == T4_OK && !pinned)
        status = sweep(g, &m, &s, error);
    if (status == T4_OK && !pinned)
        status = remove_all(g, &s.doomed, error);
    g->result.pinned = pinned;
    g->result.kept = s.kept;
    g->result.kept_bytes = s.kept_bytes;
    doomed_free(&s.doomed);
    file_set_free(&needed.runs);
    file_set_free(&needed.files);
    return status;
}

void
collector_free(struct collector *g)
{
    while (g->known != NULL) {
        struct known_run *k = g->known;

        g->known = k->next;
        file_set_free(&k->files);
        mem_free(k);
    }
    mem_free(g->slot);
    *g = (struct collector){0};
}

/* --- by hand -------------------------------------------------------------------------------------------- */

static void
show_retirements(const struct gc_options *o, const struct manifest_object *m)
{
    struct manifest_object next = *m;

    if (o->retiring == NULL || m->n_checkpoints == 0)
        return;
    list_retire(&next, m->newest.time_ms, o->retention_ns / 1000000);
    for (uint32_t i = next.n_checkpoints; i < m->n_checkpoints; i++)
        o->retiring(o->arg, &m->checkpoint[i]);
}

t4_status
checkpoint_gc(const struct gc_options *o, struct gc_result *result, struct error *error)
{
    struct objectlog_options options = {
        .env = o->env, .store = o->store, .address = "", .timeout_ns = o->timeout_ns};
    struct collector g = {.dry_run = o->dry_run, .arg = o->arg, .removing = o->removing};
    enum objectlog_found found;
    t4_status status = objectlog_open(&options, &g.log, &found, error);

    *result = (struct gc_result){0};
    if (status == T4_OK && found != OBJECTLOG_COMPLETE) {
        error_set(error, T4_E_NOTFOUND, "there is no complete store in %s",
                  object_url(o->store));
        status = error_hint(error, "check bucket and prefix");
    }
    if (status == T4_OK) {
        g.term = objectlog_manifest(g.log)->term;
        if (o->dry_run)
            show_retirements(o, objectlog_manifest(g.log));
        status = collect(&g, true, error);
        *result = g.result;
    }
    objectlog_close(g.log);
    g.log = NULL;
    collector_free(&g);
    return status;
}
