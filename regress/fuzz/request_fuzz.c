/*
 * request_fuzz.c - requests of any bytes to every method of the API, over a real connection, on a
 * small live database: gRPC's core, decoding, validation, evaluation, the answer's encoding.
 *
 * Says: every unary call is answered in time; an OK brings a message of the method's type; what
 * is a message of the method is not answered with INTERNAL or DATA_LOSS; what is refused changed
 * nothing; after a restart the database is what it was, by its hash.
 *
 * Requests are made after the descriptors of protobuf, with keys, leases and revisions that mostly
 * exist, and half of them broken.  The boot clock stands still, so that no lease ends meanwhile.
 *
 * Input: byte 0: the method, the rest: the message.
 * libFuzzer:   clang -fsanitize=fuzzer,address ... request_fuzz.c <objects of the core,
 *              scratch of regress/unit> and cmocka
 * alone:       gcc -DFUZZ_ALONE ...; then request_fuzz [rounds [seed]]; each round is a whole
 *              call: one for ten rounds of other decoders.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <grpc/byte_buffer_reader.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/grpc/grpc_int.h"
#include "base/log.h"
#include "chance.h"
#include "client/client.h"
#include "engine/engine.h"
#include "env/thread.h"
#include "must.h"
#include "node/node.h"
#include "pb/etcd/rpc.pb-c.h"
#include "scratch.h"

#define SECOND ((uint64_t)1000000000)
#define UNARY_NS (20 * SECOND)
#define STREAM_NS (SECOND / 200) /* after that a stream that says nothing is cancelled */
#define DEPTH 6u                 /* of messages that are made */
#define CODE_INTERNAL 13
#define CODE_DATA_LOSS 15

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* --- the database and its server ------------------------------------------------------------- */

static struct {
    char dir[96], address[128]; /* a socket in dir: its name has at most 107 bytes */
    struct env env;
    struct node_options options;
    struct node *node;
    struct grpc_api *api;
    int listener;
    struct thread acceptor;
    struct client_queue *queue;
    struct client *client;
    void *method[METHODS_MAX]; /* the client's handles */
    bool open;
    bool settled; /* no call is left that may still change anything by itself */
} world;

static uint64_t
frozen_ns(void *state)
{
    (void)state;
    return 1000 * SECOND;
}

static t4_status
no_sync(void *state, struct env_file *file, struct error *error)
{
    (void)state;
    (void)file;
    (void)error;
    return T4_OK;
}

static void
must_not_fail(void *arg, const struct error *error)
{
    (void)arg;
    fprintf(stderr, "request_fuzz: the node failed: %s\n", error->message);
    abort();
}

/* The core takes a connection over once the client has spoken. */
static void *
accept_main(void *arg)
{
    struct pollfd p = {.events = POLLIN};

    (void)arg;
    while ((p.fd = accept4(world.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >=
           0) {
        if (poll(&p, 1, 10000) == 1)
            grpc_api_connect(world.api, p.fd);
        else
            close(p.fd);
    }
    return NULL;
}

static void
serve(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct grpc_api_options api;
    struct error error = {0};

    MUST(node_open(&world.options, &world.node, &error) == T4_OK);
    grpc_api_options_default(&api);
    api.node = world.node;
    world.api = grpc_api_start(&api);
    MUST(world.api != NULL);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", world.dir);
    unlink(address.sun_path);
    world.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(bind(world.listener, (const void *)&address, sizeof address) == 0);
    MUST(listen(world.listener, 10) == 0);
    thread_start(&world.acceptor, "accept", accept_main, NULL);
    world.queue = client_queue_new();
    MUST(client_make(world.queue, world.address, &world.client, &error) == T4_OK);
    for (uint32_t i = 0; i < n_methods; i++)
        world.method[i] = client_method(world.client, methods[i].path);
}

static void
stop_serving(void)
{
    client_free(world.client);
    client_queue_free(world.queue);
    shutdown(world.listener, SHUT_RDWR);
    thread_join(&world.acceptor);
    close(world.listener);
    grpc_api_stop(world.api, SECOND);
    node_stop(world.node);
    grpc_api_free(world.api);
    node_close(world.node);
}

static void
begin(void)
{
    scratch_make(world.dir, sizeof world.dir, "t4-fuzz");
    snprintf(world.address, sizeof world.address, "unix:%s/socket", world.dir);
    world.env = *env_posix();
    world.env.boot_ns = frozen_ns;
    world.env.datasync = no_sync;
    node_options_default(&world.options);
    world.options.env = &world.env;
    world.options.data_dir = world.dir;
    world.options.engine_ops = engine_memory_ops();
    world.options.engine_name = "memory";
    world.options.memtable_bytes = 256u << 10;
    world.options.segment_bytes = 1u << 20;
    world.options.reserve_bytes = 0;
    world.options.fatal = must_not_fail;
    serve();
    world.open = world.settled = true;
}

static void
end(void)
{
    stop_serving();
    scratch_remove(world.dir);
    world.open = false;
}

/* --- one call -------------------------------------------------------------------------------- */

static const struct {
    const char *path;
    const ProtobufCMessageDescriptor *type;
} answers[] = {
    {"/etcdserverpb.KV/Range", &etcdserverpb__range_response__descriptor},
    {"/etcdserverpb.KV/Put", &etcdserverpb__put_response__descriptor},
    {"/etcdserverpb.KV/Txn", &etcdserverpb__txn_response__descriptor},
    {"/etcdserverpb.KV/DeleteRange", &etcdserverpb__delete_range_response__descriptor},
    {"/etcdserverpb.KV/Compact", &etcdserverpb__compaction_response__descriptor},
    {"/etcdserverpb.Lease/LeaseGrant", &etcdserverpb__lease_grant_response__descriptor},
    {"/etcdserverpb.Lease/LeaseRevoke", &etcdserverpb__lease_revoke_response__descriptor},
    {"/etcdserverpb.Lease/LeaseTimeToLive",
     &etcdserverpb__lease_time_to_live_response__descriptor},
    {"/etcdserverpb.Lease/LeaseLeases", &etcdserverpb__lease_leases_response__descriptor},
    {"/etcdserverpb.Maintenance/Status", &etcdserverpb__status_response__descriptor},
    {"/etcdserverpb.Maintenance/Alarm", &etcdserverpb__alarm_response__descriptor},
    {"/etcdserverpb.Maintenance/Hash", &etcdserverpb__hash_response__descriptor},
    {"/etcdserverpb.Maintenance/HashKV", &etcdserverpb__hash_kvresponse__descriptor},
    {"/etcdserverpb.Cluster/MemberList", &etcdserverpb__member_list_response__descriptor},
};

static uint32_t
method_of(const char *path)
{
    uint32_t i = 0;

    while (strcmp(methods[i].path, path) != 0)
        MUST(++i < n_methods);
    return i;
}

/* The answer as a message of its type, or NULL where the type is not listed above. */
static ProtobufCMessage *
unpack(uint32_t method, const struct client_call *call)
{
    ProtobufCMessage *m;
    grpc_byte_buffer_reader reader;
    grpc_slice all;
    size_t i = 0;

    while (i < sizeof answers / sizeof answers[0] &&
           strcmp(answers[i].path, methods[method].path) != 0)
        i++;
    if (i == sizeof answers / sizeof answers[0])
        return NULL;
    MUST(call->answer != NULL && grpc_byte_buffer_reader_init(&reader, call->answer));
    all = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    m = protobuf_c_message_unpack(answers[i].type, NULL, GRPC_SLICE_LENGTH(all),
                                  GRPC_SLICE_START_PTR(all));
    grpc_slice_unref(all);
    MUST(m != NULL);
    return m;
}

/* What a refused request must leave alone. */
struct state {
    int64_t revision, compacted;
    uint32_t alarms;
};

static struct state
state_now(void)
{
    struct node_status s;

    node_status(world.node, &s);
    return (struct state){s.revision, s.compacted_revision, s.n_alarms};
}

static bool
is_message(uint32_t method, struct t4_slice bytes)
{
    struct grpc_api_options o;
    struct arena arena;
    ProtobufCMessage *m;
    bool is;

    grpc_api_options_default(&o);
    arena_init(&arena);
    is = decode_message(&methods[method], bytes, o.max_txn_ops, &arena, &m) == DECODE_OK;
    arena_reset(&arena);
    return is;
}

/* Returns the code; *out (may be NULL) takes the answer. */
static int
ask(uint32_t method, struct t4_slice bytes, ProtobufCMessage **out)
{
    bool stream = methods[method].kind != NULL;
    struct state before = state_now(), after;
    struct client_call call = {0};
    struct error error = {0};
    ProtobufCMessage *m = NULL;
    int code;

    client_call_start(world.client, world.method[method], bytes,
                      stream ? STREAM_NS : UNARY_NS, &call);
    MUST(client_queue_next(world.queue, 2 * UNARY_NS) == &call);
    code = client_call_code(&call, &error);
    if (code == 0 && !stream)
        m = unpack(method, &call);
    if (!stream && is_message(method, bytes) &&
        (code == CODE_INTERNAL || code == CODE_DATA_LOSS) &&
        strstr(error.message, "alarm") == NULL &&
        strstr(error.message, "corrupt cluster") == NULL) {
        fprintf(stderr, "request_fuzz: %s: %s\n", methods[method].path, error.message);
        abort();
    }
    after = state_now();
    MUST(stream || code != CLIENT_TIMEOUT);
    if (!stream && code != 0 && world.settled)
        MUST(after.revision == before.revision && after.compacted == before.compacted &&
             after.alarms == before.alarms);
    if (stream)
        world.settled = false; /* a lock that was given up takes its key down */
    client_call_end(&call);
    if (out != NULL)
        *out = m;
    else if (m != NULL)
        protobuf_c_message_free_unpacked(m, NULL);
    return code;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t *exact;

    if (n == 0)
        return 0;
    if (!world.open)
        begin();
    exact = malloc(n); /* so that ASan sees a read past the end */
    MUST(exact != NULL);
    memcpy(exact, data + 1, n - 1);
    ask(data[0] % n_methods, slice_of(exact, n - 1), NULL);
    free(exact);
    return 0;
}

/* --- requests after their descriptors -------------------------------------------------------- */

static uint64_t
some_number(void)
{
    static const int64_t corner[] = {0,  -1, 1,         2,         3,         1000,
                                     -2, 60, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};

    switch (chance(4)) {
    case 0: return (uint64_t)corner[chance(sizeof corner / sizeof corner[0])];
    case 1: return (uint64_t)(state_now().revision + 2 - (int64_t)chance(8));
    default: return chance(8);
    }
}

static void
put_varint(struct buffer *b, uint64_t v)
{
    while (v >= 0x80) {
        buffer_append_u8(b, (uint8_t)(v | 0x80));
        v >>= 7;
    }
    buffer_append_u8(b, (uint8_t)v);
}

static void
some_bytes(struct buffer *b)
{
    static const char *const word[] = {
        "", "a", "b", "ab", "k/1", "k/2", "k/0", "k/3/7", "\xff\xff", "utf\xc3", "lock"};
    static const uint8_t zeros[20000];
    uint64_t which = chance(30);

    if (which == 0)
        buffer_append(b, zeros, 16380 + chance(10)); /* around the longest key */
    else if (which == 1)
        buffer_append(b, zeros, chance(2000));
    else if (which == 2)
        buffer_append_u8(b, 0);
    else
        buffer_append_slice(b, slice_str(word[chance(sizeof word / sizeof word[0])]));
}

static void make(struct buffer *b, const ProtobufCMessageDescriptor *type,
                 unsigned depth);

static void
make_field(struct buffer *b, const ProtobufCFieldDescriptor *f, unsigned depth)
{
    struct buffer inner = {0};

    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        if (f->type != PROTOBUF_C_TYPE_MESSAGE)
            some_bytes(&inner);
        else if (depth > 0)
            make(&inner, f->descriptor, depth - 1);
        put_varint(b, f->id << 3 | 2);
        put_varint(b, inner.len);
        buffer_append_slice(b, buffer_slice(&inner));
        break;
    case PROTOBUF_C_TYPE_BOOL:
    case PROTOBUF_C_TYPE_ENUM:
        put_varint(b, f->id << 3);
        put_varint(b, chance(12) == 0 ? some_number() : chance(4));
        break;
    default:
        put_varint(b, f->id << 3);
        put_varint(b, some_number());
        break;
    }
    buffer_free(&inner);
}

static void
make(struct buffer *b, const ProtobufCMessageDescriptor *type, unsigned depth)
{
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &type->fields[i];
        /* Keys mostly; everything else often enough left out for requests to be accepted. */
        uint64_t times = f->id == 1 ? chance(8) != 0 : chance(3) == 0;

        if (f->label == PROTOBUF_C_LABEL_REPEATED)
            times = chance(4);
        for (; times > 0; times--)
            make_field(b, f, depth);
    }
}

static void
mutate(struct buffer *b)
{
    for (uint64_t k = 1 + chance(3); k > 0 && b->len > 1; k--) {
        size_t at = 1 + (size_t)chance(b->len - 1);

        switch (chance(6)) {
        case 0: b->data[at] ^= (uint8_t)(1u << chance(8)); break;
        case 1: b->data[at] = (uint8_t)chance(256); break;
        case 2: b->data[at] = 0xff; break;
        case 3: b->len = at; break;
        case 4: b->data[0] = (uint8_t)chance(256); break; /* to another method */
        default:
            buffer_reserve(b, b->len - at); /* the bytes are its own */
            buffer_append_slice(b, slice_of(b->data + at, b->len - at));
            break;
        }
    }
}

/* --- rounds ---------------------------------------------------------------------------------- */

/* Takes alarms down: while they are up most requests are refused. */
static void
calm(void)
{
    struct node_status s;
    struct buffer b = {0};

    node_status(world.node, &s);
    for (uint32_t i = 0; i < s.n_alarms; i++) {
        buffer_clear(&b);
        put_varint(&b, 1 << 3);
        put_varint(&b, NODE_ALARM_DEACTIVATE);
        put_varint(&b, 2 << 3);
        put_varint(&b, s.alarm[i].member_id);
        put_varint(&b, 3 << 3);
        put_varint(&b, (uint64_t)(int64_t)s.alarm[i].kind);
        MUST(ask(method_of("/etcdserverpb.Maintenance/Alarm"), buffer_slice(&b), NULL) ==
             0);
    }
    buffer_free(&b);
    MUST(state_now().alarms == 0);
}

static Etcdserverpb__HashKVResponse *
hash_now(void)
{
    ProtobufCMessage *m = NULL;

    MUST(ask(method_of("/etcdserverpb.Maintenance/HashKV"), slice_of("", 0), &m) == 0);
    MUST(m != NULL);
    return (Etcdserverpb__HashKVResponse *)m;
}

/* What the log has of all this makes the same database. */
static void
restart(void)
{
    Etcdserverpb__HashKVResponse *before = hash_now(), *after;

    stop_serving();
    serve();
    after = hash_now();
    MUST(after->hash == before->hash);
    if (before->compact_revision != 0) /* Compact(0) removes nothing and is in no log */
        MUST(after->compact_revision == before->compact_revision);
    MUST(after->header->revision == before->header->revision);
    etcdserverpb__hash_kvresponse__free_unpacked(before, NULL);
    etcdserverpb__hash_kvresponse__free_unpacked(after, NULL);
}

int request_fuzz(unsigned long rounds, uint64_t seed);

int
request_fuzz(unsigned long rounds, uint64_t seed)
{
    unsigned long accepted = 0;
    struct buffer b = {0};

    chance_state = seed;
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    begin();
    for (unsigned long i = 0; i < rounds; i++) {
        /* Mostly those of keys and leases, which come first.  Streams take time: seldom. */
        static const uint8_t often[] = {0, 1, 1, 1, 1, 2, 2, 2, 2,
                                        2, 3, 4, 5, 5, 6, 7, 8};
        uint64_t m = chance(8) > 0 ? often[chance(sizeof often)] : chance(n_methods);

        if (methods[m].kind != NULL && (i < rounds / 2 || chance(10) != 0))
            m = 0;
        if (i % 16 == 0)
            calm();
        buffer_clear(&b);
        buffer_append_u8(&b, (uint8_t)m);
        make(&b, methods[m].type, DEPTH);
        if (chance(2) == 0)
            mutate(&b);
        if (methods[b.data[0] % n_methods].kind != NULL && i < rounds / 2)
            continue;
        accepted +=
            ask(b.data[0] % n_methods, slice_of(b.data + 1, b.len - 1), NULL) == 0;
    }
    calm();
    printf("# %lu of %lu requests were accepted, revision %lld\n", accepted, rounds,
           (long long)state_now().revision);
    MUST(rounds < 1000 || (accepted > rounds / 8 && accepted < rounds));
    restart();
    end();
    buffer_free(&b);
    return 0;
}

#ifdef FUZZ_ALONE
int
main(int argc, char **argv)
{
    return request_fuzz((argc > 1 ? strtoul(argv[1], NULL, 10) : 5000000) / 10,
                        argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
}
#endif
