/*
 * scan.c - a bounded look at a request before it is unpacked.  See wire_scan() in encode.h.
 *
 * protobuf-c unpacks by recursion and allocates for every field: a Txn nested 10,000 deep
 * (74 kB) overflows its stack, and 2 MiB of empty operations become 74 MB.  This walk has a
 * stack of its own with a fixed number of frames, allocates nothing, and looks at each byte
 * at most once.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "wire/encode.h"

/* Compare.range_end; no message of a client has a higher field. */
#define FIELD_MAX_KNOWN 64u

const struct wire_schema wire_schema_flat[] = {{0, 0}};

static const struct wire_schema request_op[] = {
    {1, wire_schema_flat},
    {2, wire_schema_flat},
    {3, wire_schema_flat},
    {4, wire_schema_txn},
    {0, 0},
};

const struct wire_schema wire_schema_txn[] = {
    {1, wire_schema_flat}, /* Compare */
    {2, request_op},       /* success */
    {3, request_op},       /* failure */
    {0, 0},
};

const struct wire_schema wire_schema_watch[] = {
    {1, wire_schema_flat},
    {2, wire_schema_flat},
    {3, wire_schema_flat},
    {0, 0},
};

const struct wire_schema wire_schema_leader[] = {{1, wire_schema_flat}, {0, 0}};
const struct wire_schema wire_schema_permission[] = {{2, wire_schema_flat}, {0, 0}};
const struct wire_schema wire_schema_user[] = {{3, wire_schema_flat}, {0, 0}};

struct frame {
    const uint8_t *end;
    const struct wire_schema *type;
    uint32_t last_field;
};

/* A varint of at most max bytes; false: cut off or too long. */
static bool
take_varint(const uint8_t **p, const uint8_t *end, int max, uint64_t *out)
{
    uint64_t v = 0;

    for (int i = 0; i < max && *p < end; i++) {
        uint8_t byte = *(*p)++;

        if (i == 9 && byte > 1)
            return false;
        v |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *out = v;
            return true;
        }
    }
    return false;
}

static bool
take_bytes(const uint8_t **p, const uint8_t *end, uint64_t n)
{
    if (n > (uint64_t)(end - *p))
        return false;
    *p += n;
    return true;
}

static const struct wire_schema *
type_of(const struct wire_schema *schema, uint32_t field)
{
    for (; schema->field != 0; schema++)
        if (schema->field == field)
            return schema->type;
    return NULL;
}

enum wire_scan_result
wire_scan(struct t4_slice message, const struct wire_schema *schema, uint32_t max_depth,
          uint32_t max_items)
{
    struct frame stack[1 + WIRE_SCAN_DEPTH_MAX];
    const uint8_t *p = message.data;
    uint32_t depth = 0, items = 0;

    if (max_depth > WIRE_SCAN_DEPTH_MAX)
        max_depth = WIRE_SCAN_DEPTH_MAX;
    stack[0] = (struct frame){p + message.len, schema, 0};
    for (;;) {
        struct frame *top = &stack[depth];
        const struct wire_schema *inner;
        uint64_t tag, n = 0;
        uint32_t field;

        if (p == top->end) {
            if (depth == 0)
                return WIRE_SCAN_OK;
            depth--;
            continue;
        }
        if (!take_varint(&p, top->end, 5, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
            return WIRE_SCAN_MALFORMED;
        field = (uint32_t)(tag >> 3);
        inner = type_of(top->type, field);
        if (inner != NULL || field <= top->last_field || field > FIELD_MAX_KNOWN) {
            if (items == max_items)
                return WIRE_SCAN_TOO_MANY;
            items++;
        }
        top->last_field = field;
        if (inner != NULL && (tag & 7) != 2)
            return WIRE_SCAN_MALFORMED;
        switch (tag & 7) {
        case 0:
            if (!take_varint(&p, top->end, 10, &n))
                return WIRE_SCAN_MALFORMED;
            break;
        case 1:
            if (!take_bytes(&p, top->end, 8))
                return WIRE_SCAN_MALFORMED;
            break;
        case 5:
            if (!take_bytes(&p, top->end, 4))
                return WIRE_SCAN_MALFORMED;
            break;
        case 2:
            if (!take_varint(&p, top->end, 5, &n) || n > (uint64_t)(top->end - p))
                return WIRE_SCAN_MALFORMED;
            if (inner == NULL) {
                p += n;
                break;
            }
            if (depth == max_depth)
                return WIRE_SCAN_TOO_DEEP;
            stack[++depth] = (struct frame){p + n, inner, 0};
            break;
        default: /* groups and what does not exist */ return WIRE_SCAN_MALFORMED;
        }
    }
}
