/*
 * recipe.h - calls that take several steps and may wait for long: Lock and Election.
 *
 * A recipe is a stream with one request.  It works in steps - a request to the node, a read, a
 * wait for an event of a key - and each step names what comes then; no thread waits.
 *
 * Invariants
 *  (1) one party at a time works on a recipe (`running`): a step under way, or what follows it.
 *      Only while the recipe rests at the watch hub nobody does
 *  (2) when the stream is over, whoever works on it stops at the next step and undoes; if it
 *      rests, the one that ends the stream does that.  So undo() is called once at most, and
 *      never after the answer was sent
 *  (3) the hub's message is reported as sent only when the recipe rests again: no message of
 *      the hub comes while somebody works
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef API_GRPC_RECIPE_H
#define API_GRPC_RECIPE_H

#include "api/grpc/grpc_int.h"
#include "base/buffer.h"
#include "pb/etcd/rpc.pb-c.h"

struct recipe {
    struct stream stream;
    struct mutex lock;
    bool over;                /* [lock] the stream has ended */
    bool running;             /* [lock] somebody works on what follows */
    struct watch_stream *hub; /* [lock] NULL: not open, or let go of */
    bool hub_owed;            /* [lock] the hub waits for watch_stream_sent() */
    int64_t watch_id;         /* the newest */
    bool undoing;

    /* The step. */
    void (*then)(struct recipe *r);
    bool (*event)(struct recipe *r, const Etcdserverpb__WatchResponse *m);
    void (*undo)(struct recipe *r); /* NULL: nothing to undo */
    struct node_request request;
    struct compare compare;              /* for a transaction of one comparison, */
    struct operation done_if, done_else; /* and an operation for each outcome */
    struct range_request range;
    bool linearizable;
    struct job job;
    struct read_wait wait;

    /* The answer to the step, valid until the next one. */
    const ProtobufCMessageDescriptor *type;
    ProtobufCMessage *answer;
    struct arena memory;
};

/* For kinds of streams; release() has to call the last one. */
void recipe_start(struct stream *s);
void recipe_end(struct stream *s);
void recipe_sent(struct stream *s); /* nothing */
void recipe_release(struct recipe *r);
/* A kind with one answer, of a struct that begins with a recipe. */
#define RECIPE_KIND(type_, message_, release_)                                           \
    {                                                                                    \
        .grpc_type = "unary", .size = sizeof(type_), .start = recipe_start,              \
        .message = message_, .half_closed = stream_no_request, .sent = recipe_sent,      \
        .end = recipe_end, .release = release_                                           \
    }

/*
 * Steps.  Each is the last thing that its caller does: `then` is called when it is done, on any
 * thread, perhaps from within.  An error ends the recipe instead.
 *
 * recipe_submit: r->request with op and arguments; `type` is that of the answer.
 * recipe_transact: compare, done_if and done_else (kind OPERATION_NONE: nothing is done).
 * recipe_read: r->range, as NODE_RANGE; without `linearizable` at what is published here, which
 * is at least as new as the answer to the step before.
 */
void recipe_submit(struct recipe *r, const ProtobufCMessageDescriptor *type,
                   void (*then)(struct recipe *r));
void recipe_transact(struct recipe *r, void (*then)(struct recipe *r));
void recipe_read(struct recipe *r, bool linearizable, void (*then)(struct recipe *r));
/* The lease that etcd's recipes make for a client without one. */
void recipe_grant(struct recipe *r, void (*then)(struct recipe *r));

/*
 * Rests until event() of the newest watch takes a message.  event() returns false to rest on;
 * true when it has gone on with another step or with an end.  Other watches are given up.
 */
void recipe_watch(struct recipe *r, struct watch_create *watch,
                  bool (*event)(struct recipe *r, const Etcdserverpb__WatchResponse *m));
/* Rests on, after event() returned true. */
void recipe_rest(struct recipe *r);

/*
 * Ends.  recipe_reply() sends the only message; if the client is gone it undoes.  recipe_fail()
 * undoes, too; as in etcd the code is UNKNOWN unless the fault is the server's.
 */
void recipe_reply(struct recipe *r, struct chain *message);
void recipe_fail(struct recipe *r, enum etcd_error error);
/* Ends with an answer that is nothing but this header. */
void recipe_reply_header(struct recipe *r, const Etcdserverpb__ResponseHeader *h);
/* For undo(): the transaction, which nobody waits for. */
void recipe_undo_transact(struct recipe *r);

/* --- contend.c ------------------------------------------------------------------------- */

/* Keys of a lock or an election begin with its name and this. */
#define RECIPE_SEPARATOR '/'

/* All keys with the prefix (which ends with the separator), oldest first, at most one. */
void recipe_oldest(struct range_request *out, struct t4_slice prefix,
                   struct t4_slice prefix_end);
/* prefix = name/, end = what is behind all keys that begin so. */
void recipe_prefix(struct t4_slice name, struct buffer *prefix, struct buffer *end);
struct response_header recipe_header(const Etcdserverpb__ResponseHeader *h);
struct key_value recipe_key_value(const Mvccpb__KeyValue *kv);

/* One key among those of a name; the oldest wins. */
struct contender {
    struct recipe recipe;
    struct buffer prefix, prefix_end, key, value;
    int64_t lease;
    int64_t revision;              /* of the key's creation; 0: it is not there yet */
    struct response_header header; /* of the answer */
    bool waited;
    bool is_campaign; /* its value is kept up to date, its header is the first answer's */
    void (*won)(struct contender *c); /* answers */
};

/* name, value, lease, won and is_campaign are set; `value` was copied. */
void contend(struct contender *c, struct t4_slice name);
void contender_release(struct stream *s);

#endif
