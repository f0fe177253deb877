/*
 * wire_scan_fuzz.c - wire_scan() on any bytes, against protobuf-c.
 *
 * Says: the scan ends and reads nothing outside of the message; stricter bounds never let a
 * malformed message pass; what the scan lets pass, protobuf-c takes or refuses without harm and
 * with memory in proportion to bytes and items.
 *
 * libFuzzer:   clang -fsanitize=fuzzer,address ... wire_scan_fuzz.c <objects of wire, base, pb>
 * alone:       gcc -DFUZZ_ALONE ...; then wire_scan_fuzz [rounds [seed]] mutates requests of
 *              its own making.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "pb/etcd/rpc.pb-c.h"
#include "wire/encode.h"

#define DEPTH 64u
#define ITEMS 4096u
/* protobuf-c: a message and its pointer, or an unknown field; the scan of a field. */
#define BYTES_PER_ITEM 1024u
#define BYTES_PER_BYTE 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static size_t allocated;

static void *
counting_alloc(void *arg, size_t n)
{
    (void)arg;
    allocated += n;
    return malloc(n);
}

static void
counting_free(void *arg, void *p)
{
    (void)arg;
    free(p);
}

static void
check(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "wire_scan_fuzz: %s\n", what);
        abort();
    }
}

static void
try_type(struct t4_slice message, const struct wire_schema *schema,
         const ProtobufCMessageDescriptor *type)
{
    ProtobufCAllocator allocator = {counting_alloc, counting_free, NULL};
    enum wire_scan_result r = wire_scan(message, schema, DEPTH, ITEMS);
    ProtobufCMessage *m;

    /* Less is never more: a stricter bound refuses, a malformed message stays malformed. */
    if (r == WIRE_SCAN_MALFORMED)
        check(wire_scan(message, schema, 1, 1) != WIRE_SCAN_OK,
              "bounds change the verdict");
    if (r != WIRE_SCAN_OK)
        return;
    allocated = 0;
    m = protobuf_c_message_unpack(type, &allocator, message.len, message.data);
    check(allocated <= BYTES_PER_ITEM * (ITEMS + 1) + BYTES_PER_BYTE * message.len,
          "unpacking takes more memory than the items allow");
    if (m != NULL)
        protobuf_c_message_free_unpacked(m, &allocator);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t *exact = malloc(n > 0 ? n : 1); /* so that ASan sees a read past the end */
    struct t4_slice message = {exact, n};

    check(exact != NULL, "no memory");
    if (n > 0)
        memcpy(exact, data, n);
    try_type(message, wire_schema_txn, &etcdserverpb__txn_request__descriptor);
    try_type(message, wire_schema_watch, &etcdserverpb__watch_request__descriptor);
    try_type(message, wire_schema_flat, &etcdserverpb__range_request__descriptor);
    free(exact);
    return 0;
}

#ifdef FUZZ_ALONE
static uint64_t state = 1;

static uint64_t
below(uint64_t n)
{
    state = hash_u64(state);
    return state % n;
}

/* Bytes with the grammar of requests, now and then broken. */
static size_t
make(uint8_t *out, size_t room, unsigned depth)
{
    static const uint8_t tags[] = {0x0a, 0x12, 0x1a, 0x22, 0x08, 0x10, 0x20, 0x38};
    size_t n = 0;

    for (uint64_t fields = below(6); fields > 0 && n + 16 < room; fields--) {
        uint8_t tag = tags[below(sizeof tags)];

        if (below(40) == 0)
            tag = (uint8_t)below(256);
        out[n++] = tag;
        if ((tag & 7) == 2 && depth > 0) {
            uint8_t inner[128];
            size_t length =
                make(inner, room - n - 2 < 120 ? room - n - 2 : 120, depth - 1);

            out[n++] = (uint8_t)(below(50) == 0 ? below(128) : length);
            memcpy(out + n, inner, length);
            n += length;
        } else {
            out[n++] = (uint8_t)(below(30) == 0 ? below(256) : 0);
        }
    }
    return n;
}

int
main(int argc, char **argv)
{
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 200000;
    uint8_t bytes[512];

    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (unsigned long i = 0; i < rounds; i++) {
        size_t n = make(bytes, sizeof bytes, (unsigned)below(8));

        for (uint64_t flips = below(4); flips > 0 && n > 0; flips--)
            bytes[below(n)] = (uint8_t)below(256);
        LLVMFuzzerTestOneInput(bytes, n);
    }
    printf("%lu messages\n", rounds);
    return 0;
}
#endif
