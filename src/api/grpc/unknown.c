/*
 * unknown.c - calls of paths that are no method: UNIMPLEMENTED, in the words of etcd's gRPC
 * library, which clients look for.
 *
 * Without a slot of this kind such a call would wait in the core for ever.
 *
 * Threads: the queue's polling thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "api/grpc/grpc_int.h"
#include "base/log.h"
#include "base/memory.h"

struct unknown {
    struct tag requested, answered;
    struct queue *queue;
    grpc_call *core;
    grpc_call_details details;
    grpc_metadata_array metadata;
    int cancelled;
};

static void
unknown_free(struct unknown *u)
{
    grpc_call_details_destroy(&u->details);
    grpc_metadata_array_destroy(&u->metadata);
    mem_free(u);
}

static bool
service_known(const char *service, size_t n)
{
    for (uint32_t i = 0; i < n_methods; i++) {
        const char *path = methods[i].path + 1;

        if (strncmp(path, service, n) == 0 && path[n] == '/')
            return true;
    }
    return false;
}

/* At most 200 bytes of a name are repeated: what a client sends can be long. */
#define NAME_MAX_SHOWN 200

static int
shown(size_t n)
{
    return n < NAME_MAX_SHOWN ? (int)n : NAME_MAX_SHOWN;
}

static void
describe(const grpc_slice *method, char *text, size_t size)
{
    const char *path = (const char *)GRPC_SLICE_START_PTR(*method), *name, *slash;
    size_t n = GRPC_SLICE_LENGTH(*method), n_name, n_service;

    name = n > 0 && path[0] == '/' ? path + 1 : path;
    n_name = n - (size_t)(name - path);
    slash = memrchr(name, '/', n_name);
    if (slash == NULL) {
        snprintf(text, size, "malformed method name: \"%.*s\"", shown(n), path);
        return;
    }
    n_service = (size_t)(slash - name);
    if (!service_known(name, n_service))
        snprintf(text, size, "unknown service %.*s", shown(n_service), name);
    else
        snprintf(text, size, "unknown method %.*s for service %.*s",
                 shown(n_name - n_service - 1), slash + 1, shown(n_service), name);
}

static void
on_requested(struct tag *tag, bool ok)
{
    struct unknown *u = container_of(tag, struct unknown, requested);
    struct queue *q = u->queue;
    char text[3 * NAME_MAX_SHOWN];
    grpc_slice details;
    grpc_op ops[3];

    if (!ok) {
        unknown_free(u);
        queue_slot_gone(q);
        return;
    }
    unknown_post(q);
    q->n_calls++;
    queue_slot_gone(q);
    describe(&u->details.method, text, sizeof text);
    details = grpc_slice_from_copied_string(text);
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    ops[1].data.send_status_from_server.status = GRPC_STATUS_UNIMPLEMENTED;
    ops[1].data.send_status_from_server.status_details = &details;
    ops[2].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    ops[2].data.recv_close_on_server.cancelled = &u->cancelled;
    grpc_call_start_batch(u->core, ops, 3, &u->answered, NULL);
    grpc_slice_unref(details);
}

static void
on_answered(struct tag *tag, bool ok)
{
    struct unknown *u = container_of(tag, struct unknown, answered);
    struct queue *q = u->queue;

    (void)ok;
    grpc_call_unref(u->core);
    unknown_free(u);
    queue_call_gone(q);
}

void
unknown_post(struct queue *q)
{
    struct unknown *u = mem_zalloc(sizeof *u);
    grpc_call_error e;

    u->requested.run = on_requested;
    u->answered.run = on_answered;
    u->queue = q;
    grpc_call_details_init(&u->details);
    grpc_metadata_array_init(&u->metadata);
    q->n_slots++;
    e = grpc_server_request_call(q->api->core, &u->core, &u->details, &u->metadata,
                                 q->core, q->core, &u->requested);
    if (e != GRPC_CALL_OK) { /* cannot happen with these arguments */
        LOG_ERROR("gRPC refused a request slot", "reason", grpc_call_error_to_string(e),
                  NULL);
        unknown_free(u);
        queue_slot_gone(q);
    }
}
