/*
 * txn_bed.c - a store without a log, and responses as text.  See txn_bed.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "txn_bed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "pb/etcd/rpc.pb-c.h"

/* --- text --------------------------------------------------------------------------- */

void
print_bytes(FILE *out, struct t4_slice bytes)
{
    size_t shown = bytes.len > 40 ? 40 : bytes.len;

    for (size_t i = 0; i < shown; i++) {
        if (bytes.data[i] > ' ' && bytes.data[i] < 0x7f)
            fputc(bytes.data[i], out);
        else
            fprintf(out, "\\%02x", bytes.data[i]);
    }
    if (shown < bytes.len)
        fprintf(out, "...%zu", bytes.len);
}

void
print_key_value(FILE *out, const struct key_value *kv)
{
    print_bytes(out, kv->key);
    fputc('=', out);
    print_bytes(out, kv->value);
    fprintf(out, "(%lld %lld %lld %lld)", (long long)kv->create_revision,
            (long long)kv->mod_revision, (long long)kv->version, (long long)kv->lease);
}

static void
print_header(FILE *out, const Etcdserverpb__ResponseHeader *h)
{
    if (h == NULL)
        fputs("[]", out);
    else
        fprintf(out, "[%llx %llx %llu %lld]", (unsigned long long)h->cluster_id,
                (unsigned long long)h->member_id, (unsigned long long)h->raft_term,
                (long long)h->revision);
}

static void
print_pb_key_value(FILE *out, const Mvccpb__KeyValue *kv)
{
    const struct key_value plain = {slice_of(kv->key.data, kv->key.len),
                                    slice_of(kv->value.data, kv->value.len),
                                    kv->create_revision,
                                    kv->mod_revision,
                                    kv->version,
                                    kv->lease};

    fputc(' ', out);
    print_key_value(out, &plain);
}

static void
print_range(FILE *out, const Etcdserverpb__RangeResponse *r)
{
    fputs("range{", out);
    print_header(out, r->header);
    for (size_t i = 0; i < r->n_kvs; i++)
        print_pb_key_value(out, r->kvs[i]);
    fprintf(out, " %d %lld}", r->more, (long long)r->count);
}

static void
print_put(FILE *out, const Etcdserverpb__PutResponse *r)
{
    fputs("put{", out);
    print_header(out, r->header);
    if (r->prev_kv != NULL)
        print_pb_key_value(out, r->prev_kv);
    fputc('}', out);
}

static void
print_delete(FILE *out, const Etcdserverpb__DeleteRangeResponse *r)
{
    fputs("delete{", out);
    print_header(out, r->header);
    fprintf(out, " %lld", (long long)r->deleted);
    for (size_t i = 0; i < r->n_prev_kvs; i++)
        print_pb_key_value(out, r->prev_kvs[i]);
    fputc('}', out);
}

static void
print_txn(FILE *out, const Etcdserverpb__TxnResponse *r)
{
    fputs("txn{", out);
    print_header(out, r->header);
    fprintf(out, " %d", r->succeeded);
    for (size_t i = 0; i < r->n_responses; i++) {
        const Etcdserverpb__ResponseOp *op = r->responses[i];

        fputc(' ', out);
        switch (op->response_case) {
        case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE:
            print_range(out, op->response_range);
            break;
        case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_PUT:
            print_put(out, op->response_put);
            break;
        case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_DELETE_RANGE:
            print_delete(out, op->response_delete_range);
            break;
        case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_TXN:
            print_txn(out, op->response_txn);
            break;
        default: fputs("unset", out);
        }
    }
    fputc('}', out);
}

/* The message in the chain, unpacked by the descriptor's type and printed; frees the chain. */
static const char *
response_text(enum etcd_error e, const ProtobufCMessageDescriptor *type, struct chain *c)
{
    static char *text;
    size_t size;
    FILE *out;
    uint8_t *bytes;
    ProtobufCMessage *m;

    free(text);
    text = NULL;
    if (e != ETCD_OK) {
        assert_int_equal(c->length, 0);
        text = mem_strdup(etcd_error_text(e));
        return text;
    }
    bytes = mem_alloc(c->length + 1);
    chain_copy(c, bytes);
    m = protobuf_c_message_unpack(type, NULL, c->length, bytes);
    assert_non_null(m);
    assert_int_equal(protobuf_c_message_get_packed_size(m), c->length);
    out = open_memstream(&text, &size);
    if (type == &etcdserverpb__range_response__descriptor)
        print_range(out, (Etcdserverpb__RangeResponse *)m);
    else if (type == &etcdserverpb__put_response__descriptor)
        print_put(out, (Etcdserverpb__PutResponse *)m);
    else if (type == &etcdserverpb__delete_range_response__descriptor)
        print_delete(out, (Etcdserverpb__DeleteRangeResponse *)m);
    else
        print_txn(out, (Etcdserverpb__TxnResponse *)m);
    fclose(out);
    protobuf_c_message_free_unpacked(m, NULL);
    mem_free(bytes);
    chain_free(c);
    return text;
}

/* --- the store ---------------------------------------------------------------------- */

static bool
lease_exists(void *arg, int64_t lease)
{
    const struct store *s = arg;

    return lease >= 1 && lease <= STORE_LEASES && s->lease[lease];
}

void
store_open(struct store *s)
{
    struct error error = {0};
    struct mvcc_options options = {.memtable_bytes = 1u << 20, .flush_slice = 3};
    struct mvcc_state state;

    *s = (struct store){.revision = 1, .compacted = -1};
    assert_int_equal(
        engine_open(engine_memory_ops(), NULL, "memory", "", &s->engine, &error), T4_OK);
    s->metrics = mem_zalloc(sizeof *s->metrics);
    options.engine = s->engine;
    options.metrics = s->metrics;
    assert_int_equal(mvcc_open(&options, &s->mvcc, &state, &error), T4_OK);
    mvcc_publish(s->mvcc, 0, -1);
    s->lease_table = (struct txn_leases){lease_exists, s};
    s->txn = txn_new(42);
}

void
store_close(struct store *s)
{
    txn_delete(s->txn);
    mvcc_free(s->mvcc);
    engine_close(s->engine);
    mem_free(s->metrics);
    free(s->effects);
}

static void
work(struct store *s)
{
    struct error error = {0};
    uint64_t pause;
    t4_status status;

    while ((status = mvcc_work(s->mvcc, &pause, &error)) == T4_OK)
        ;
    assert_int_equal(status, T4_E_NOTFOUND);
}

void
store_flush(struct store *s)
{
    mvcc_freeze(s->mvcc);
    work(s);
}

void
store_compact(struct store *s, int64_t revision)
{
    s->compacted = revision;
    s->index++;
    mvcc_entry_done(s->mvcc, s->index, s->revision, 0);
    mvcc_publish(s->mvcc, s->index, revision);
    mvcc_freeze(s->mvcc);
    mvcc_compact(s->mvcc, revision);
    work(s);
}

static int64_t
attachment_lease(const struct mutation *m)
{
    assert_true(m->key.len > 8);
    return (int64_t)get_u64be(m->key.data);
}

static void
check_mutation(const struct mutation *m, const struct mutation *before)
{
    if (m->space == SPACE_ATTACHMENTS || (m->flags & MUTATION_TOMBSTONE)) {
        assert_int_equal(m->value.len, 0);
        assert_int_equal(m->create_revision, 0);
        assert_int_equal(m->version, 0);
        assert_int_equal(m->lease, 0);
    } else {
        assert_true(m->version > 0 && m->create_revision > 1);
    }
    if (before != NULL && before->space == SPACE_ATTACHMENTS)
        assert_int_equal(m->space, SPACE_ATTACHMENTS);
}

static void
print_mutation(FILE *out, const struct mutation *m)
{
    bool gone = m->flags & MUTATION_TOMBSTONE;

    if (m->space == SPACE_KEYS) {
        fputs(gone ? "del " : "put ", out);
        print_bytes(out, m->key);
    } else {
        fprintf(out, "%s %lld ", gone ? "detach" : "attach",
                (long long)attachment_lease(m));
        print_bytes(out, slice_of(m->key.data + 8, m->key.len - 8));
    }
    fputc(' ', out);
}

/* What the commit role does after an evaluation. */
static void
apply(struct store *s)
{
    struct buffer ikey = {0};
    size_t n, size;
    bool wrote;
    const struct mutation *m = txn_mutations(s->txn, &n, &wrote);
    FILE *out;

    free(s->effects);
    out = open_memstream(&s->effects, &size);
    if (!wrote)
        assert_int_equal(n, 0);
    else
        s->revision++;
    s->index++;
    for (size_t i = 0; i < n; i++) {
        struct version v = {
            .stamp = m[i].space == SPACE_KEYS ? (uint64_t)s->revision : s->index,
            .sub = (uint32_t)i,
            .flags = m[i].flags & MUTATION_TOMBSTONE ? VERSION_TOMBSTONE : 0,
            .create_revision = m[i].create_revision,
            .version = m[i].version,
            .lease = m[i].lease,
            .value = m[i].value};

        check_mutation(&m[i], i > 0 ? &m[i - 1] : NULL);
        if (n <= 100)
            print_mutation(out, &m[i]);
        buffer_clear(&ikey);
        buffer_append_u8(&ikey, m[i].space);
        buffer_append_slice(&ikey, m[i].key);
        mvcc_insert(s->mvcc, buffer_slice(&ikey), &v);
    }
    if (!wrote)
        fputs("nothing", out);
    mvcc_entry_done(s->mvcc, s->index, s->revision, 0);
    mvcc_publish(s->mvcc, s->index, s->compacted);
    buffer_free(&ikey);
    fclose(out);
}

const char *
store_effects(const struct store *s)
{
    return s->effects;
}

static void
begin(struct store *s, struct mvcc_reader *reader)
{
    const struct response_header header = {STORE_CLUSTER, STORE_MEMBER, STORE_TERM, 0};

    assert_int_equal(mvcc_read_begin(s->mvcc, reader), T4_OK);
    txn_begin(s->txn, reader, &s->lease_table, s->revision, s->compacted, &header);
}

const char *
store_put(struct store *s, const struct put_request *r)
{
    struct mvcc_reader reader;
    struct chain c;
    enum etcd_error e;

    chain_init(&c);
    begin(s, &reader);
    e = txn_put(s->txn, r, &c);
    apply(s);
    mvcc_read_end(&reader);
    return response_text(e, &etcdserverpb__put_response__descriptor, &c);
}

const char *
store_delete(struct store *s, const struct delete_range_request *r)
{
    struct mvcc_reader reader;
    struct chain c;
    enum etcd_error e;

    chain_init(&c);
    begin(s, &reader);
    e = txn_delete_range(s->txn, r, &c);
    apply(s);
    mvcc_read_end(&reader);
    return response_text(e, &etcdserverpb__delete_range_response__descriptor, &c);
}

const char *
store_txn(struct store *s, const struct txn_request *r)
{
    struct mvcc_reader reader;
    struct chain c;
    enum etcd_error e;

    chain_init(&c);
    begin(s, &reader);
    e = txn_txn(s->txn, r, &c);
    apply(s);
    mvcc_read_end(&reader);
    return response_text(e, &etcdserverpb__txn_response__descriptor, &c);
}

void
store_revoke(struct store *s, int64_t lease)
{
    struct mvcc_reader reader;

    begin(s, &reader);
    assert_int_equal(txn_revoke(s->txn, lease), ETCD_OK);
    s->lease[lease] = false;
    apply(s);
    mvcc_read_end(&reader);
}

const char *
store_range(struct store *s, const struct range_request *r)
{
    const struct response_header header = {STORE_CLUSTER, STORE_MEMBER, STORE_TERM,
                                           s->revision};
    struct mvcc_reader reader;
    struct chain c;
    enum etcd_error e;

    chain_init(&c);
    assert_int_equal(mvcc_read_begin(s->mvcc, &reader), T4_OK);
    e = range_read(&reader, r, s->revision, &header, 0, NULL, &c);
    mvcc_read_end(&reader);
    return response_text(e, &etcdserverpb__range_response__descriptor, &c);
}
