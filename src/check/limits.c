/*
 * limits.c - deadlines, cancelling, callbacks that stop, and large bodies.
 *
 * What TIMEOUT or CANCELLED says must be true: the request certainly was not carried out.
 * A call must not go on for long after its time: 5 s are allowed, which is much, so that a
 * slow machine does not fail.
 *
 * Entry point: check_limits().  Runs on: the thread of the check; one more cancels.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "base/memory.h"
#include "check/check_int.h"
#include "env/thread.h"

#define LARGE ((size_t)32 << 20)
#define PATIENCE_NS (5 * NS_PER_S)

/* --- one call of each kind ---------------------------------------------------------- */

enum kind { KIND_PUT, KIND_GET, KIND_HEAD, KIND_REMOVE, KIND_LIST, KINDS };
static const char *const kind_names[] = {"put", "get", "head", "remove", "list"};

static t4_status
drop_bytes(void *arg, struct t4_slice part)
{
    *(uint64_t *)arg += part.len;
    return T4_OK;
}

static t4_status
drop_name(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    (void)arg;
    (void)key;
    (void)info;
    return T4_OK;
}

static void
call_kind(struct world *w, struct answer *a, enum kind kind, struct t4_call *call,
          const char *name)
{
    uint8_t buffer[CHECK_KEY_MAX];
    struct t4_slice key = world_key(w, buffer, slice_str(name));
    const struct t4_put request = {
        .size = sizeof request, .key = key, .body = slice_str("new")};
    uint64_t bytes = 0;

    switch (kind) {
    case KIND_PUT: a->status = w->ops->put(w->handle, call, &request, &a->info); break;
    case KIND_GET:
        a->status = w->ops->get(w->handle, call, key, 0, T4_TO_THE_END, drop_bytes,
                                &bytes, &a->info);
        break;
    case KIND_HEAD: a->status = w->ops->head(w->handle, call, key, &a->info); break;
    case KIND_REMOVE: a->status = w->ops->remove(w->handle, call, &key, 1); break;
    case KIND_LIST:
        a->status =
            w->ops->list(w->handle, call, key, slice_of(NULL, 0), 10, drop_name, NULL);
        break;
    case KINDS: break;
    }
}

static void
check_too_late(struct world *w)
{
    static const int32_t yes = 1;
    struct answer a = {0};

    world_put(w, &a, "late/there", "old");
    for (int k = 0; k < KINDS; k++) {
        struct t4_call call = check_call(&a, check_now_ns() - NS_PER_S, NULL);

        call_kind(w, &a, (enum kind)k, &call, "late/there");
        world_answer(w, &a, T4_E_TIMEOUT, "%s with a deadline in the past",
                     kind_names[k]);
        call = check_call(&a, check_now_ns() + 60 * NS_PER_S, &yes);
        call_kind(w, &a, (enum kind)k, &call, "late/there");
        world_answer(w, &a, T4_E_CANCELLED, "%s that is cancelled before it began",
                     kind_names[k]);
        call = check_call(&a, 0, NULL);
        call_kind(w, &a, (enum kind)k, &call, "late/never");
        world_answer(w, &a, T4_OK, "%s without a deadline", kind_names[k]);
    }
    world_body(w, "late/there", "old", "those had no effect");
}

/* --- large bodies ------------------------------------------------------------------- */

static uint8_t *
make_large(void)
{
    uint8_t *bytes = mem_alloc(LARGE);
    uint64_t x = 88172645463325252u;

    for (size_t i = 0; i < LARGE; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(bytes + i, &x, 8);
    }
    return bytes;
}

static void
check_large(struct world *w, const uint8_t *bytes)
{
    struct answer a = {0};
    size_t middle = LARGE / 2 - 12345, n = 1234567;

    world_answer(w,
                 (world_put_if(w, &a, "large", slice_of(bytes, LARGE), T4_PUT_IF_ABSENT,
                               slice_of(NULL, 0)),
                  &a),
                 T4_OK, "create-if-absent of 32 MiB");
    world_answer(w,
                 (world_put_if(w, &a, "large", slice_of(bytes, LARGE), T4_PUT_IF_ABSENT,
                               slice_of(NULL, 0)),
                  &a),
                 T4_E_PRECONDITION, "and again");
    world_answer(w, (world_get(w, &a, "large"), &a), T4_OK, "get of 32 MiB");
    check_ok(w->check,
             a.body.len == LARGE && a.info.length == LARGE &&
                 memcmp(a.body.data, bytes, LARGE) == 0,
             "gives them");
    world_answer(w, (world_get_range(w, &a, "large", middle, n), &a), T4_OK,
                 "a range in them");
    check_ok(w->check, a.body.len == n && memcmp(a.body.data, bytes + middle, n) == 0,
             "gives its bytes");
    world_answer(w,
                 (world_put_if(w, &a, "large", slice_of(bytes + 1, LARGE - 1),
                               T4_PUT_IF_MATCH, slice_of(a.info.tag, a.info.tag_length)),
                  &a),
                 T4_OK, "if-match of 32 MiB less one byte");
    world_answer(w, (world_head(w, &a, "large"), &a), T4_OK, "head of it");
    check_ok(w->check, a.info.length == LARGE - 1, "says so");
    check_answer_free(&a);
}

/* What is there must be what the status says. */
static bool
told_the_truth(struct world *w, t4_status st, t4_status excuse, const char *name)
{
    struct answer a = {0};
    t4_status there = world_head(w, &a, name);

    if (st == T4_OK)
        return there == T4_OK && a.info.length == LARGE;
    if (st == excuse)
        return there == T4_E_NOTFOUND;
    return st == T4_E_UNKNOWN;
}

static void
check_short_deadline(struct world *w, const uint8_t *bytes)
{
    uint8_t buffer[CHECK_KEY_MAX];
    struct t4_put request = {.size = sizeof request,
                             .condition = T4_PUT_IF_ABSENT,
                             .body = slice_of(bytes, LARGE)};
    struct answer a = {0};
    bool in_time = true, true_answers = true;
    unsigned late = 0;
    char name[32];

    for (unsigned ms = 1; ms <= 64; ms *= 4) {
        uint64_t deadline = check_now_ns() + ms * NS_PER_MS;
        struct t4_call call = check_call(&a, deadline, NULL);

        snprintf(name, sizeof name, "deadline/%u", ms);
        request.key = world_key(w, buffer, slice_str(name));
        a.status = w->ops->put(w->handle, &call, &request, &a.info);
        in_time = in_time && check_now_ns() < deadline + PATIENCE_NS;
        late += a.status != T4_OK;
        if (!told_the_truth(w, a.status, T4_E_TIMEOUT, name)) {
            check_note(w->check, "a put of 32 MiB within %u ms gave: %s; %s", ms,
                       status_text(a.status), a.error.message);
            true_answers = false;
        }
    }
    check_ok(w->check, in_time, "a put of 32 MiB ends soon after its deadline");
    check_ok(w->check, true_answers, "and says truly what became of it");
    check_note(w->check, "%u of 4 puts of 32 MiB did not end in time", late);
}

/* --- cancelling --------------------------------------------------------------------- */

struct canceller {
    struct mutex lock;
    struct condition changed;
    struct thread thread;
    int32_t cancelled;
    uint64_t at_ns;
};

/* A little after the call began; whether it comes before its end is all the same. */
static void *
cancel_soon(void *arg)
{
    struct canceller *c = arg;

    mutex_lock(&c->lock);
    condition_wait_for(&c->changed, &c->lock, 5 * NS_PER_MS);
    mutex_unlock(&c->lock);
    __atomic_store_n(&c->at_ns, check_now_ns(), __ATOMIC_RELEASE);
    __atomic_store_n(&c->cancelled, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void
check_cancelled_put(struct world *w, const uint8_t *bytes)
{
    struct canceller c = {0};
    uint8_t buffer[CHECK_KEY_MAX];
    struct answer a = {0};
    const struct t4_put request = {.size = sizeof request,
                                   .condition = T4_PUT_IF_ABSENT,
                                   .key = world_key(w, buffer, slice_str("cancel/put")),
                                   .body = slice_of(bytes, LARGE)};
    struct t4_call call = check_call(&a, check_now_ns() + 60 * NS_PER_S, &c.cancelled);
    uint64_t end;

    mutex_init(&c.lock);
    condition_init(&c.changed);
    thread_start(&c.thread, "check-cancel", cancel_soon, &c);
    a.status = w->ops->put(w->handle, &call, &request, &a.info);
    end = check_now_ns();
    thread_join(&c.thread);
    check_ok(w->check, end < c.at_ns + PATIENCE_NS,
             "a put of 32 MiB ends soon after it was "
             "cancelled");
    if (!check_ok(w->check, told_the_truth(w, a.status, T4_E_CANCELLED, "cancel/put"),
                  "and says truly what became of it"))
        check_note(w->check, "status: %s; %s", status_text(a.status), a.error.message);
    condition_destroy(&c.changed);
    mutex_destroy(&c.lock);
}

struct stopper {
    uint64_t calls, bytes;
    int32_t cancelled;
    t4_status answer;
};

static t4_status
stop(void *arg, struct t4_slice part)
{
    struct stopper *s = arg;

    s->calls++;
    s->bytes += part.len;
    __atomic_store_n(&s->cancelled, s->answer == T4_OK, __ATOMIC_RELEASE);
    return s->answer;
}

static void
check_stopped_get(struct world *w)
{
    uint8_t buffer[CHECK_KEY_MAX];
    struct t4_slice key = world_key(w, buffer, slice_str("large"));
    struct stopper refuses = {.answer = T4_E_CORRUPT}, cancels = {.answer = T4_OK};
    struct answer a = {0};
    struct t4_call call = check_call(&a, check_now_ns() + 60 * NS_PER_S, NULL);

    a.status =
        w->ops->get(w->handle, &call, key, 0, T4_TO_THE_END, stop, &refuses, &a.info);
    world_answer(w, &a, T4_E_CORRUPT, "a get ends with the callback's error");
    check_ok(w->check, refuses.calls == 1, "and does not call it again");
    call = check_call(&a, check_now_ns() + 60 * NS_PER_S, &cancels.cancelled);
    a.status =
        w->ops->get(w->handle, &call, key, 0, T4_TO_THE_END, stop, &cancels, &a.info);
    check_ok(w->check,
             a.status == T4_E_CANCELLED ||
                 (a.status == T4_OK && cancels.bytes == LARGE - 1),
             "a get of 32 MiB that is cancelled is CANCELLED, or complete");
}

void
check_limits(struct world *w)
{
    uint8_t *bytes = make_large();
    struct answer a = {0};

    world_put(w, &a, "late/never", "x");
    check_too_late(w);
    check_large(w, bytes);
    check_stopped_get(w);
    check_short_deadline(w, bytes);
    check_cancelled_put(w, bytes);
    mem_free(bytes);
}
