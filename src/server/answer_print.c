/*
 * answer_print.c - answers as etcdctl prints them.  See answer_print.h.
 *
 * JSON follows the descriptors of the messages: etcd's Go structs carry the names of the .proto
 * as their tags.  Where clientv3 has structs of its own (watch, leases) it is written by hand.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/answer_print.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/encode.h"

static void
add(struct buffer *b, const char *text)
{
    buffer_append(b, text, strlen(text));
}

static void
add_i64(struct buffer *b, const char *name, int64_t value)
{
    char text[32];

    snprintf(text, sizeof text, "%" PRId64, value);
    add(b, name);
    add(b, text);
}

static void
write_out(struct buffer *b)
{
    fwrite(b->data, 1, b->len, stdout);
    buffer_free(b);
}

static struct t4_slice
slice_of_data(const ProtobufCBinaryData *d)
{
    return slice_of(d->data, d->len);
}

/* --- JSON of any message ------------------------------------------------------------------- */

static size_t
width(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_BYTES: return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE: return sizeof(void *);
    case PROTOBUF_C_TYPE_BOOL: return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64: return 8;
    default: return 4;
    }
}

static void
value_append(struct buffer *out, ProtobufCType type, const void *at)
{
    char text[32] = "";
    struct t4_slice bytes;

    switch (type) {
    case PROTOBUF_C_TYPE_BYTES:
        add(out, "\"");
        base64_append(out, slice_of_data(at));
        add(out, "\"");
        return;
    case PROTOBUF_C_TYPE_STRING:
        bytes = slice_str(*(const char *const *)at);
        json_string_append(out, bytes);
        return;
    case PROTOBUF_C_TYPE_MESSAGE:
        message_json_append(out, *(const ProtobufCMessage *const *)at);
        return;
    case PROTOBUF_C_TYPE_BOOL:
        add(out, *(const protobuf_c_boolean *)at ? "true" : "false");
        return;
    case PROTOBUF_C_TYPE_INT64:
        snprintf(text, sizeof text, "%" PRId64, *(const int64_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT64:
        snprintf(text, sizeof text, "%" PRIu64, *(const uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT32:
        snprintf(text, sizeof text, "%" PRIu32, *(const uint32_t *)at);
        break;
    default: snprintf(text, sizeof text, "%" PRId32, *(const int32_t *)at);
    }
    add(out, text);
}

/* Go's omitempty. */
static bool
is_empty(const ProtobufCFieldDescriptor *f, const ProtobufCMessage *m)
{
    static const uint8_t zero[8];
    const uint8_t *at = (const uint8_t *)m + f->offset;

    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        return *(const uint32_t *)((const uint8_t *)m + f->quantifier_offset) != f->id;
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const size_t *)((const uint8_t *)m + f->quantifier_offset) == 0;
    switch (f->type) {
    case PROTOBUF_C_TYPE_BYTES: return ((const ProtobufCBinaryData *)at)->len == 0;
    case PROTOBUF_C_TYPE_MESSAGE: return *(void *const *)at == NULL;
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(const char *const *)at;

        return text == NULL || text[0] == '\0';
    }
    default: return memcmp(at, zero, width(f->type)) == 0;
    }
}

static void
field_append(struct buffer *out, const ProtobufCFieldDescriptor *f,
             const ProtobufCMessage *m)
{
    const uint8_t *at = (const uint8_t *)m + f->offset;
    size_t n;

    add(out, "\"");
    add(out, f->name);
    add(out, "\":");
    if (f->label != PROTOBUF_C_LABEL_REPEATED) {
        value_append(out, f->type, at);
        return;
    }
    n = *(const size_t *)((const uint8_t *)m + f->quantifier_offset);
    at = *(const uint8_t *const *)at;
    for (size_t i = 0; i < n; i++) {
        add(out, i == 0 ? "[" : ",");
        value_append(out, f->type, at + i * width(f->type));
    }
    add(out, "]");
}

/* Fields with their commas, without braces. */
static void
fields_append(struct buffer *out, const ProtobufCMessage *m)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;
    bool first = true;

    for (unsigned i = 0; i < d->n_fields; i++) {
        if (is_empty(&d->fields[i], m))
            continue;
        if (!first)
            add(out, ",");
        first = false;
        field_append(out, &d->fields[i], m);
    }
}

void
message_json_append(struct buffer *out, const ProtobufCMessage *m)
{
    /* Go writes a oneof as a member with the name that the oneof has. */
    bool oneof = m->descriptor == &etcdserverpb__response_op__descriptor;

    add(out, oneof ? "{\"Response\":{" : "{");
    fields_append(out, m);
    add(out, oneof ? "}}" : "}");
}

void
print_message(const void *message)
{
    struct buffer b = {0};

    message_json_append(&b, message);
    add(&b, "\n");
    write_out(&b);
}

/* --- simple ------------------------------------------------------------------------------------ */

static void
print_bytes(const struct answer_style *style, const ProtobufCBinaryData *d)
{
    for (size_t i = 0; style->hex && i < d->len; i++)
        printf("\\x%02x", d->data[i]);
    if (!style->hex && d->len > 0) /* data may be NULL else */
        fwrite(d->data, 1, d->len, stdout);
    putchar('\n');
}

static void
print_kv(const struct answer_style *style, const Mvccpb__KeyValue *kv)
{
    if (!style->value_only)
        print_bytes(style, &kv->key);
    print_bytes(style, &kv->value);
}

void
print_range(const struct answer_style *style, const Etcdserverpb__RangeResponse *answer)
{
    if (style->json) {
        print_message(answer);
        return;
    }
    for (size_t i = 0; i < answer->n_kvs; i++)
        print_kv(style, answer->kvs[i]);
}

void
print_put(const struct answer_style *style, const Etcdserverpb__PutResponse *answer)
{
    if (style->json) {
        print_message(answer);
        return;
    }
    puts("OK");
    if (answer->prev_kv != NULL)
        print_kv(style, answer->prev_kv);
}

void
print_delete(const struct answer_style *style,
             const Etcdserverpb__DeleteRangeResponse *answer)
{
    if (style->json) {
        print_message(answer);
        return;
    }
    printf("%" PRId64 "\n", answer->deleted);
    for (size_t i = 0; i < answer->n_prev_kvs; i++)
        print_kv(style, answer->prev_kvs[i]);
}

void
print_txn(const struct answer_style *style, const Etcdserverpb__TxnResponse *answer)
{
    if (style->json) {
        print_message(answer);
        return;
    }
    puts(answer->succeeded ? "SUCCESS" : "FAILURE");
    for (size_t i = 0; i < answer->n_responses; i++) {
        const Etcdserverpb__ResponseOp *op = answer->responses[i];

        putchar('\n');
        switch (op->response_case) {
        case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE:
            print_range(style, op->response_range);
            break;
        case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_PUT:
            print_put(style, op->response_put);
            break;
        case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_DELETE_RANGE:
            print_delete(style, op->response_delete_range);
            break;
        default: puts("?"); /* of a nested transaction, which this syntax has not */
        }
    }
}

/* --- what clientv3 has structs of its own for ----------------------------------------------- */

void
print_watch(const struct answer_style *style, const Etcdserverpb__WatchResponse *answer)
{
    struct buffer b = {0};

    if (!style->json) {
        for (size_t i = 0; i < answer->n_events; i++) {
            const Mvccpb__Event *e = answer->events[i];

            puts(e->type == MVCCPB__EVENT__EVENT_TYPE__DELETE ? "DELETE" : "PUT");
            if (e->prev_kv != NULL)
                print_kv(style, e->prev_kv);
            if (e->kv != NULL)
                print_kv(style, e->kv);
        }
        return;
    }
    add(&b, "{\"Header\":");
    message_json_append(&b, &answer->header->base);
    add(&b, ",\"Events\":[");
    for (size_t i = 0; i < answer->n_events; i++) {
        if (i > 0)
            add(&b, ",");
        message_json_append(&b, &answer->events[i]->base);
    }
    add_i64(&b, "],\"CompactRevision\":", answer->compact_revision);
    add(&b, ",\"Canceled\":");
    add(&b, answer->canceled ? "true" : "false");
    add(&b, ",\"Created\":false}\n");
    write_out(&b);
}

/* A struct that embeds the header: its fields come first, on the same level. */
static void
begin_with_header(struct buffer *b, const Etcdserverpb__ResponseHeader *header)
{
    add(b, "{");
    if (header != NULL) {
        fields_append(b, &header->base);
        if (b->len > 1)
            add(b, ",");
    }
}

void
print_lease_grant(const struct answer_style *style,
                  const Etcdserverpb__LeaseGrantResponse *answer)
{
    struct buffer b = {0};

    if (!style->json) {
        printf("lease %016" PRIx64 " granted with TTL(%" PRId64 "s)\n",
               (uint64_t)answer->id, answer->ttl);
        return;
    }
    begin_with_header(&b, answer->header);
    add_i64(&b, "\"ID\":", answer->id);
    add_i64(&b, ",\"TTL\":", answer->ttl);
    add(&b, ",\"Error\":");
    json_string_append(&b, slice_str(answer->error));
    add(&b, "}\n");
    write_out(&b);
}

void
print_lease_keep_alive(const struct answer_style *style,
                       const Etcdserverpb__LeaseKeepAliveResponse *answer)
{
    struct buffer b = {0};

    if (!style->json) {
        printf("lease %016" PRIx64 " keepalived with TTL(%" PRId64 ")\n",
               (uint64_t)answer->id, answer->ttl);
        return;
    }
    begin_with_header(&b, answer->header);
    add_i64(&b, "\"ID\":", answer->id);
    add_i64(&b, ",\"TTL\":", answer->ttl);
    add(&b, "}\n");
    write_out(&b);
}

void
print_lease_time(const struct answer_style *style, bool keys,
                 const Etcdserverpb__LeaseTimeToLiveResponse *answer)
{
    struct buffer b = {0};

    if (!style->json && answer->grantedttl == 0 && answer->ttl == -1) {
        printf("lease %016" PRIx64 " already expired\n", (uint64_t)answer->id);
        return;
    }
    if (!style->json) {
        printf("lease %016" PRIx64 " granted with TTL(%" PRId64 "s), remaining(%" PRId64
               "s)",
               (uint64_t)answer->id, answer->grantedttl, answer->ttl);
        for (size_t i = 0; keys && i < answer->n_keys; i++) {
            fputs(i == 0 ? ", attached keys([" : " ", stdout);
            fwrite(answer->keys[i].data, 1, answer->keys[i].len, stdout);
        }
        if (keys)
            fputs(answer->n_keys == 0 ? ", attached keys([])" : "])", stdout);
        putchar('\n');
        return;
    }
    begin_with_header(&b, answer->header);
    add_i64(&b, "\"id\":", answer->id);
    add_i64(&b, ",\"ttl\":", answer->ttl);
    add_i64(&b, ",\"granted-ttl\":", answer->grantedttl);
    add(&b, ",\"keys\":");
    for (size_t i = 0; i < answer->n_keys; i++) {
        add(&b, i == 0 ? "[\"" : "\",\"");
        base64_append(&b, slice_of_data(&answer->keys[i]));
    }
    add(&b, answer->n_keys == 0 ? "null}\n" : "\"]}\n");
    write_out(&b);
}

void
print_leases(const struct answer_style *style,
             const Etcdserverpb__LeaseLeasesResponse *answer)
{
    struct buffer b = {0};

    if (!style->json) {
        printf("found %zu leases\n", answer->n_leases);
        for (size_t i = 0; i < answer->n_leases; i++)
            printf("%016" PRIx64 "\n", (uint64_t)answer->leases[i]->id);
        return;
    }
    begin_with_header(&b, answer->header);
    add(&b, "\"leases\":[");
    for (size_t i = 0; i < answer->n_leases; i++) {
        add_i64(&b, i == 0 ? "{\"id\":" : ",{\"id\":", answer->leases[i]->id);
        add(&b, "}");
    }
    add(&b, "]}\n");
    write_out(&b);
}
