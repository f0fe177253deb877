/*
 * txn_model.c - etcd's rules, as plainly as possible.  See txn_model.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "txn_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"

#define KEY(text)                                                                        \
    {                                                                                    \
        (const uint8_t *)(text), sizeof(text) - 1                                        \
    }
const struct t4_slice model_key[MODEL_KEYS] = {
    KEY("\0"),    KEY("a"), KEY("a\0"),    KEY("aa"),       KEY("b"),
    KEY("b\xff"), KEY("c"), KEY("c\0\1x"), KEY("\xff\xff"),
};

static int
key_index(struct t4_slice key)
{
    for (int i = 0; i < MODEL_KEYS; i++)
        if (slice_equal(model_key[i], key))
            return i;
    return -1;
}

static bool
in_range(struct t4_slice k, struct t4_slice key, struct t4_slice range_end)
{
    if (range_end.len == 0)
        return slice_equal(k, key);
    if (slice_compare(k, key) < 0)
        return false;
    return range_is_open(range_end) || slice_compare(k, range_end) < 0;
}

void
model_open(struct model *m)
{
    *m = (struct model){.revision = 1, .compacted = -1};
    m->history = mem_zalloc(MODEL_REVISIONS * sizeof *m->history);
}

void
model_close(struct model *m)
{
    mem_free(m->history);
    free(m->text);
    free(m->effects);
}

/* --- validation --------------------------------------------------------------------- */

struct model_writes {
    bool put[MODEL_KEYS];
    const struct delete_range_request *deletes[512];
    int n_deletes;
};

/* etcd leaves an interval that ends at "\0" empty here. */
static bool
is_deleted(const struct model_writes *w, int key)
{
    for (int i = 0; i < w->n_deletes; i++) {
        const struct delete_range_request *d = w->deletes[i];

        if (!range_is_open(d->range_end) &&
            in_range(model_key[key], d->key, d->range_end))
            return true;
    }
    return false;
}

static bool
writes_twice(const struct operation *ops, uint32_t n, struct model_writes *w)
{
    *w = (struct model_writes){0};
    for (uint32_t i = 0; i < n; i++)
        if (ops[i].kind == OPERATION_DELETE_RANGE)
            w->deletes[w->n_deletes++] = &ops[i].delete_range;
    for (uint32_t i = 0; i < n; i++) {
        struct model_writes success, failure;

        if (ops[i].kind != OPERATION_TXN)
            continue;
        if (writes_twice(ops[i].txn.success, ops[i].txn.n_success, &success) ||
            writes_twice(ops[i].txn.failure, ops[i].txn.n_failure, &failure))
            return true;
        for (int k = 0; k < MODEL_KEYS; k++) {
            if (!success.put[k] && !failure.put[k])
                continue;
            if (w->put[k] || is_deleted(w, k))
                return true;
        }
        for (int k = 0; k < MODEL_KEYS; k++)
            w->put[k] |= success.put[k] || failure.put[k];
        for (int d = 0; d < success.n_deletes; d++)
            w->deletes[w->n_deletes++] = success.deletes[d];
        for (int d = 0; d < failure.n_deletes; d++)
            w->deletes[w->n_deletes++] = failure.deletes[d];
    }
    for (uint32_t i = 0; i < n; i++) {
        int k;

        if (ops[i].kind != OPERATION_PUT)
            continue;
        k = key_index(ops[i].put.key);
        if (w->put[k] || is_deleted(w, k))
            return true;
        w->put[k] = true;
    }
    return false;
}

static enum etcd_error
validate_operations(const struct txn_request *r, uint32_t max_ops)
{
    uint32_t most = r->n_compare > r->n_success ? r->n_compare : r->n_success;

    most = most > r->n_failure ? most : r->n_failure;
    if (most > max_ops)
        return ETCD_TOO_MANY_OPS;
    for (uint32_t i = 0; i < r->n_compare; i++)
        if (r->compare[i].key.len == 0)
            return ETCD_EMPTY_KEY;
    for (uint32_t i = 0; i < r->n_success + r->n_failure; i++) {
        const struct operation *op =
            i < r->n_success ? &r->success[i] : &r->failure[i - r->n_success];
        enum etcd_error e = ETCD_OK;

        if (op->kind == OPERATION_NONE)
            e = ETCD_KEY_NOT_FOUND;
        else if (op->kind == OPERATION_TXN)
            e = validate_operations(&op->txn, max_ops - most);
        else if (op->kind == OPERATION_RANGE && op->range.key.len == 0)
            e = ETCD_EMPTY_KEY;
        else if (op->kind == OPERATION_RANGE &&
                 ((op->range.sort_order | op->range.sort_target) & ~7))
            e = ETCD_INVALID_SORT_OPTION;
        else if (op->kind == OPERATION_PUT && op->put.ignore_value &&
                 op->put.value.len > 0)
            e = ETCD_VALUE_PROVIDED;
        else if (op->kind == OPERATION_PUT && op->put.ignore_lease && op->put.lease != 0)
            e = ETCD_LEASE_PROVIDED;
        if (e != ETCD_OK)
            return e;
    }
    return ETCD_OK;
}

enum etcd_error
model_validate(const struct txn_request *r, uint32_t max_ops)
{
    enum etcd_error e = validate_operations(r, max_ops);
    struct model_writes w;

    if (e != ETCD_OK)
        return e;
    return writes_twice(r->success, r->n_success, &w) ||
                   writes_twice(r->failure, r->n_failure, &w)
               ? ETCD_DUPLICATE_KEY
               : ETCD_OK;
}

/* --- single operations -------------------------------------------------------------- */

static void
begin(struct model *m)
{
    m->now = m->history[m->revision];
    memset(m->written, 0, sizeof m->written);
    m->writes = 0;
}

static int64_t
seen_revision(const struct model *m)
{
    return m->writes > 0 ? m->revision + 1 : m->revision;
}

static void
print_header(FILE *out, bool outermost, int64_t revision)
{
    if (outermost)
        fprintf(out, "[%x %x %u %lld]", STORE_CLUSTER, STORE_MEMBER, STORE_TERM,
                (long long)revision);
    else
        fprintf(out, "[0 0 0 %lld]", (long long)revision);
}

static void
print_model_value(FILE *out, int key, const struct model_value *v, bool with_value)
{
    const struct key_value kv = {
        model_key[key], with_value ? v->value : slice_of(NULL, 0),
        v->create,      v->mod,
        v->version,     v->lease};

    fputc(' ', out);
    print_key_value(out, &kv);
}

static enum etcd_error
put(struct model *m, const struct put_request *r, bool outermost, FILE *out)
{
    int k = key_index(r->key);
    struct model_value *v = &m->now.key[k], old = *v;

    if (old.version == 0 && (r->ignore_value || r->ignore_lease))
        return ETCD_KEY_NOT_FOUND;
    v->value = r->ignore_value ? old.value : r->value;
    v->lease = r->ignore_lease ? old.lease : r->lease;
    v->version = old.version + 1;
    v->create = old.version == 0 ? m->revision + 1 : old.create;
    v->mod = m->revision + 1;
    m->written[k] = ++m->writes;
    fputs("put{", out);
    print_header(out, outermost, m->revision + 1);
    if (r->prev_kv && old.version > 0)
        print_model_value(out, k, &old, true);
    fputc('}', out);
    return ETCD_OK;
}

static void delete (struct model *m, const struct delete_range_request *r, bool outermost,
                    FILE *out)
{
    const struct model_state before = m->now;
    bool gone[MODEL_KEYS] = {false};
    int n = 0;

    for (int k = 0; k < MODEL_KEYS; k++) {
        if (before.key[k].version == 0 || !in_range(model_key[k], r->key, r->range_end))
            continue;
        m->now.key[k] = (struct model_value){0};
        m->written[k] = ++m->writes;
        gone[k] = true;
        n++;
    }
    fputs("delete{", out);
    print_header(out, outermost, seen_revision(m));
    fprintf(out, " %d", n);
    for (int k = 0; k < MODEL_KEYS; k++)
        if (gone[k] && r->prev_kv)
            print_model_value(out, k, &before.key[k], true);
    fputc('}', out);
}

static int
sort_order(const struct range_request *r, const struct model_state *s, int a, int b)
{
    const struct model_value *x = &s->key[a], *y = &s->key[b];
    int64_t i, j;

    if (r->sort_target == SORT_KEY)
        return a - b;
    if (r->sort_target == SORT_VALUE)
        return slice_compare(x->value, y->value);
    i = r->sort_target == SORT_VERSION  ? x->version
        : r->sort_target == SORT_CREATE ? x->create
                                        : x->mod;
    j = r->sort_target == SORT_VERSION  ? y->version
        : r->sort_target == SORT_CREATE ? y->create
                                        : y->mod;
    return i < j ? -1 : i > j;
}

static bool
is_filtered(const struct range_request *r, const struct model_value *v)
{
    return (r->max_mod_revision != 0 && v->mod > r->max_mod_revision) ||
           (r->min_mod_revision != 0 && v->mod < r->min_mod_revision) ||
           (r->max_create_revision != 0 && v->create > r->max_create_revision) ||
           (r->min_create_revision != 0 && v->create < r->min_create_revision);
}

static enum etcd_error
range(struct model *m, const struct range_request *r, bool outermost, FILE *out)
{
    const struct model_state *s = r->revision <= 0 || r->revision > m->revision
                                      ? &m->now
                                      : &m->history[r->revision];
    bool fetch_few = r->limit > 0 && r->sort_order == SORT_NONE &&
                     r->min_mod_revision == 0 && r->max_mod_revision == 0 &&
                     r->min_create_revision == 0 && r->max_create_revision == 0;
    int found[MODEL_KEYS], n = 0, count = 0;
    bool more = false;

    if (r->revision > seen_revision(m))
        return ETCD_FUTURE_REVISION;
    if (r->revision > 0 && r->revision < m->compacted)
        return ETCD_COMPACTED;
    for (int k = 0; k < MODEL_KEYS; k++) {
        if (s->key[k].version == 0 || !in_range(model_key[k], r->key, r->range_end))
            continue;
        count++;
        if (!r->count_only && !(fetch_few && n > r->limit) && !is_filtered(r, &s->key[k]))
            found[n++] = k;
    }
    /* Insertion sort: equal ones keep their order. */
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0; j--) {
            int o = sort_order(r, s, found[j - 1], found[j]), swap = found[j];

            if (r->sort_order == SORT_DESCEND ? o >= 0 : o <= 0)
                break;
            found[j] = found[j - 1];
            found[j - 1] = swap;
        }
    if (r->limit > 0 && n > r->limit) {
        n = (int)r->limit;
        more = true;
    }
    fputs("range{", out);
    print_header(out, outermost, seen_revision(m));
    for (int i = 0; i < n; i++)
        print_model_value(out, found[i], &s->key[found[i]], !r->keys_only);
    fprintf(out, " %d %d}", more, count);
    return ETCD_OK;
}

/* --- transactions ------------------------------------------------------------------- */

static bool
compare_value(const struct compare *c, const struct model_value *v)
{
    int64_t have = c->target == COMPARE_VERSION  ? v->version
                   : c->target == COMPARE_CREATE ? v->create
                   : c->target == COMPARE_MOD    ? v->mod
                                                 : v->lease;
    int o = have < c->number ? -1 : have > c->number;

    if (c->target == COMPARE_VALUE)
        o = v->version == 0 ? 0 : slice_compare(v->value, c->value);
    if (c->target == COMPARE_VALUE && v->version == 0)
        return false;
    return c->result == COMPARE_EQUAL     ? o == 0
           : c->result == COMPARE_GREATER ? o > 0
           : c->result == COMPARE_LESS    ? o < 0
                                          : o != 0;
}

static bool
holds(const struct model *m, const struct txn_request *r)
{
    const struct model_state *s = &m->history[m->revision];
    const struct model_value missing = {0};

    for (uint32_t i = 0; i < r->n_compare; i++) {
        const struct compare *c = &r->compare[i];
        int n = 0;

        for (int k = 0; k < MODEL_KEYS; k++) {
            if (s->key[k].version == 0 || !in_range(model_key[k], c->key, c->range_end))
                continue;
            n++;
            if (!compare_value(c, &s->key[k]))
                return false;
        }
        if (n == 0 && !compare_value(c, &missing))
            return false;
    }
    return true;
}

/* The checks of the taken path, nothing written yet. */
static enum etcd_error
check(const struct model *m, const struct txn_request *r)
{
    bool taken = holds(m, r);
    const struct operation *ops = taken ? r->success : r->failure;

    for (uint32_t i = 0; i < (taken ? r->n_success : r->n_failure); i++) {
        enum etcd_error e = ETCD_OK;

        if (ops[i].kind == OPERATION_TXN) {
            e = check(m, &ops[i].txn);
        } else if (ops[i].kind == OPERATION_RANGE && ops[i].range.revision != 0) {
            if (ops[i].range.revision > m->revision)
                e = ETCD_FUTURE_REVISION;
            else if (ops[i].range.revision < m->compacted)
                e = ETCD_COMPACTED;
        } else if (ops[i].kind == OPERATION_PUT) {
            const struct put_request *p = &ops[i].put;

            if ((p->ignore_value || p->ignore_lease) &&
                m->history[m->revision].key[key_index(p->key)].version == 0)
                e = ETCD_KEY_NOT_FOUND;
            else if (p->lease != 0 && !m->lease[p->lease])
                e = ETCD_LEASE_NOT_FOUND;
        }
        if (e != ETCD_OK)
            return e;
    }
    return ETCD_OK;
}

static enum etcd_error
execute(struct model *m, const struct txn_request *r, FILE *out)
{
    bool taken = holds(m, r);
    const struct operation *ops = taken ? r->success : r->failure;

    fprintf(out, " %d", taken);
    for (uint32_t i = 0; i < (taken ? r->n_success : r->n_failure); i++) {
        enum etcd_error e = ETCD_OK;

        fputc(' ', out);
        if (ops[i].kind == OPERATION_RANGE) {
            e = range(m, &ops[i].range, false, out);
        } else if (ops[i].kind == OPERATION_PUT) {
            e = put(m, &ops[i].put, false, out);
        } else if (ops[i].kind == OPERATION_DELETE_RANGE) {
            delete (m, &ops[i].delete_range, false, out);
        } else {
            fputs("txn{[0 0 0 0]", out);
            e = execute(m, &ops[i].txn, out);
            fputc('}', out);
        }
        if (e != ETCD_OK)
            return e;
    }
    return ETCD_OK;
}

/* --- the end of a request ----------------------------------------------------------- */

static void
print_effects(struct model *m, FILE *out)
{
    const struct model_state *old = &m->history[m->revision];

    for (int attachments = 0; attachments < 2; attachments++)
        for (int w = 1; w <= m->writes; w++)
            for (int k = 0; k < MODEL_KEYS; k++) {
                const struct model_value *before = &old->key[k], *after = &m->now.key[k];

                if (m->written[k] != w || (before->version == 0 && after->version == 0))
                    continue;
                if (!attachments) {
                    fputs(after->version > 0 ? "put " : "del ", out);
                    print_bytes(out, model_key[k]);
                    fputc(' ', out);
                }
                if (attachments && before->lease != after->lease && before->lease != 0) {
                    fprintf(out, "detach %lld ", (long long)before->lease);
                    print_bytes(out, model_key[k]);
                    fputc(' ', out);
                }
                if (attachments && before->lease != after->lease && after->lease != 0) {
                    fprintf(out, "attach %lld ", (long long)after->lease);
                    print_bytes(out, model_key[k]);
                    fputc(' ', out);
                }
            }
    if (m->writes == 0)
        fputs("nothing", out);
}

static const char *
end(struct model *m, enum etcd_error e)
{
    size_t size;
    FILE *out;

    if (e != ETCD_OK) {
        free(m->text);
        m->text = mem_strdup(etcd_error_text(e));
        begin(m);
    }
    free(m->effects);
    out = open_memstream(&m->effects, &size);
    print_effects(m, out);
    fclose(out);
    if (m->writes > 0) {
        assert_true(m->revision + 1 < MODEL_REVISIONS);
        m->history[++m->revision] = m->now;
    }
    return m->text;
}

static FILE *
open_text(struct model *m)
{
    static size_t size;

    free(m->text);
    m->text = NULL;
    begin(m);
    return open_memstream(&m->text, &size);
}

const char *
model_put(struct model *m, const struct put_request *r)
{
    FILE *out = open_text(m);
    enum etcd_error e = ETCD_LEASE_NOT_FOUND;

    if (r->lease == 0 || m->lease[r->lease])
        e = put(m, r, true, out);
    fclose(out);
    return end(m, e);
}

const char *
model_delete(struct model *m, const struct delete_range_request *r)
{
    FILE *out = open_text(m);

    delete (m, r, true, out);
    fclose(out);
    return end(m, ETCD_OK);
}

const char *
model_txn(struct model *m, const struct txn_request *r)
{
    FILE *out = open_text(m);
    enum etcd_error e = check(m, r);
    char *whole;

    if (e == ETCD_OK)
        e = execute(m, r, out);
    fclose(out);
    if (e == ETCD_OK) {
        assert_true(asprintf(&whole, "txn{[%x %x %u %lld]%s}", STORE_CLUSTER,
                             STORE_MEMBER, STORE_TERM, (long long)seen_revision(m),
                             m->text) > 0);
        free(m->text);
        m->text = whole;
    }
    return end(m, e);
}

const char *
model_range(struct model *m, const struct range_request *r)
{
    FILE *out = open_text(m);
    enum etcd_error e = range(m, r, true, out);

    fclose(out);
    return end(m, e);
}

void
model_revoke(struct model *m, int64_t lease)
{
    FILE *out = open_text(m);

    for (int k = 0; k < MODEL_KEYS; k++)
        if (m->now.key[k].version > 0 && m->now.key[k].lease == lease)
            delete (m, &(struct delete_range_request){.key = model_key[k]}, true, out);
    fclose(out);
    m->lease[lease] = false;
    end(m, ETCD_OK);
}

const char *
model_effects(const struct model *m)
{
    return m->effects;
}
