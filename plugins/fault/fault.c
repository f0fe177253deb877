/*
 * fault.c - an object store that fails as stores and networks do: descriptor and calls.
 *
 * It wraps another store ("fault+file:///path").  For each call the control file is read and
 * eight numbers are drawn, whether they are needed or not, so that with serial calls the
 * same seed gives the same faults whatever else is switched on.  Then, in this order: held
 * by the script, latency and stalls, refused without effect, carried out or not, the answer
 * held, lost or given.  What the options and the control file mean: README.md.
 *
 * Entry point: t4_plugin_v1().  Runs on: open and close: one thread of the host at a time;
 * the rest: any.
 *
 * Invariants:
 *  (1) UNAVAILABLE, BUSY, DENIED, NOSPACE, TIMEOUT and CANCELLED of its own come only when the
 *      request has not been sent to the inner store and will not be
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* --- waiting, chance, log ----------------------------------------------------------- */

static t4_status
check_call(const struct t4_store *s, struct t4_call *call)
{
    uint64_t deadline = s->host->deadline_ns(call);

    if (s->host->cancelled(call))
        return T4_E_CANCELLED;
    return deadline != 0 && s->host->now_ns() >= deadline ? T4_E_TIMEOUT : T4_OK;
}

/* In steps, so that a call that is cancelled ends soon. */
t4_status
fault_wait_ms(struct t4_store *s, struct t4_call *call, double ms)
{
    uint64_t end = s->host->now_ns() + (uint64_t)(ms * 1e6), now;
    t4_status st;

    while ((st = check_call(s, call)) == T4_OK && (now = s->host->now_ns()) < end) {
        uint64_t deadline = s->host->deadline_ns(call), step = end - now;

        if (deadline > now && deadline - now < step)
            step = deadline - now;
        if (step > 20000000)
            step = 20000000;
        nanosleep(&(struct timespec){.tv_nsec = (long)step}, NULL);
    }
    return st;
}

static uint64_t
next_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

enum { D_BEFORE, D_THROTTLE, D_AFTER, D_LOST, D_LATE, D_STALL, D_LATENCY, D_KIND, DRAWS };

static void
draw(struct t4_store *s, double out[DRAWS])
{
    pthread_mutex_lock(&s->mutex);
    for (int i = 0; i < DRAWS; i++)
        out[i] = (double)(next_random(&s->random) >> 11) / 9007199254740992.0;
    pthread_mutex_unlock(&s->mutex);
}

static const char *
status_word(t4_status st)
{
    static const char *const words[] = {
        "OK",        "NOTFOUND", "EXISTS",      "PRECONDITION", "BUSY",    "TIMEOUT",
        "CANCELLED", "UNKNOWN",  "UNAVAILABLE", "DENIED",       "INVALID", "CORRUPT",
        "NOSPACE",   "NOMEM",    "UNSUPPORTED", "INTERNAL",     "IO"};

    return st <= 0 && st >= T4_E_IO ? words[-st] : "INTERNAL";
}

void
fault_log(struct t4_store *s, const char *what, struct t4_slice key, t4_status st)
{
    char line[1200];
    int n;

    if (s->log < 0)
        return;
    n = snprintf(line, sizeof line, "%s %.*s %s\n", what,
                 (int)(key.len < 1024 ? key.len : 1024), (const char *)key.data,
                 status_word(st));
    if (write(s->log, line, (size_t)n) != n)
        s->host->log(s->host, T4_LOG_ERROR, "cannot write to fault.log");
}

/* --- one call ----------------------------------------------------------------------- */

struct plan {
    unsigned kind; /* FAULT_PUT ... */
    struct t4_slice key;
    enum fault_mode mode;
    int64_t late_ms, skew_ms;
};

static enum fault_mode
mode_by_chance(const struct fault_plugin *p, const double d[DRAWS], unsigned kind)
{
    if (d[D_BEFORE] < p->error_before)
        return d[D_KIND] < 0.5 ? FAULT_BEFORE : FAULT_BUSY;
    if (d[D_THROTTLE] < p->throttle)
        return FAULT_BUSY;
    if (d[D_AFTER] < p->error_after)
        return FAULT_AFTER;
    if (!(kind & FAULT_WRITES))
        return FAULT_NORMAL;
    if (d[D_LOST] < p->lost)
        return FAULT_LOST;
    return d[D_LATE] < p->late ? FAULT_LATE_MODE : FAULT_NORMAL;
}

/* Waits while the control file has a line that holds this call; *script is the last one. */
static t4_status
wait_while_held(struct t4_store *s, struct t4_call *call, const struct plan *plan,
                int kind, struct fault_script *script)
{
    t4_status st = T4_OK;

    while (st == T4_OK && fault_match(s, script, kind, plan->kind, plan->key) != NULL) {
        st = fault_wait_ms(s, call, 3);
        if (st == T4_OK)
            st = fault_read_script(s, call, script);
    }
    return st;
}

static t4_status
refuse(struct t4_store *s, struct t4_call *call, enum fault_mode mode)
{
    switch (mode) {
    case FAULT_BUSY:
        return s->host->fail(call, T4_E_BUSY, "injected: slow down", NULL, NULL);
    case FAULT_DENIED:
        return s->host->fail(call, T4_E_DENIED, "injected: access denied", NULL,
                             "the credentials expired or lack a permission");
    case FAULT_NOSPACE:
        return s->host->fail(call, T4_E_NOSPACE, "injected: the quota is used up", NULL,
                             NULL);
    default:
        return s->host->fail(call, T4_E_UNAVAILABLE, "injected: no connection", NULL,
                             NULL);
    }
}

/* Everything before the request would leave.  OK: it is to be carried out as plan says. */
static t4_status
begin(struct t4_store *s, struct t4_call *call, unsigned kind, struct t4_slice key,
      struct plan *plan)
{
    const struct fault_plugin *p = s->plugin;
    struct fault_script *script = s->host->alloc(s->host, sizeof *script);
    const struct fault_rule *rule;
    double d[DRAWS], ms;
    t4_status st;

    if (script == NULL)
        return T4_E_NOMEM;
    *plan = (struct plan){.kind = kind, .key = key, .late_ms = p->late_ms};
    draw(s, d);
    st = check_call(s, call);
    if (st == T4_OK)
        st = fault_read_script(s, call, script);
    if (st == T4_OK)
        st = wait_while_held(s, call, plan, RULE_HOLD, script);
    if (st == T4_OK && script->drain)
        st = fault_drain(s, call);
    if (st != T4_OK)
        goto done;

    plan->mode = mode_by_chance(p, d, kind);
    plan->skew_ms = script->has_skew ? script->skew_ms : p->skew_ms;
    rule = fault_match(s, script, RULE_FAIL, kind, key);
    if (rule != NULL) {
        plan->mode = rule->mode;
        if (rule->late_ms >= 0)
            plan->late_ms = rule->late_ms;
    }
    if (script->outage)
        plan->mode = FAULT_BEFORE;
    else if (script->denied || (script->readonly && (kind & FAULT_WRITES)))
        plan->mode = FAULT_DENIED;
    else if (script->full && kind == FAULT_PUT)
        plan->mode = FAULT_NOSPACE;
    else if (script->throttle)
        plan->mode = FAULT_BUSY;

    ms = fault_latency_ms(script->has_latency ? &script->latency : &p->latency,
                          100 * d[D_LATENCY]);
    if (d[D_STALL] < p->stall)
        ms += (double)p->stall_ms;
    if (ms > 0)
        st = fault_wait_ms(s, call, ms);
    if (st == T4_OK && plan->mode >= FAULT_BEFORE && plan->mode <= FAULT_NOSPACE)
        st = refuse(s, call, plan->mode);
done:
    s->host->free(s->host, script);
    return st;
}

/* The answer that the caller gets to a request that was carried out with `st`. */
static t4_status
answer(struct t4_store *s, struct t4_call *call, const struct plan *plan, t4_status st)
{
    struct fault_script *script = s->host->alloc(s->host, sizeof *script);
    t4_status held = script != NULL ? fault_read_script(s, call, script) : T4_E_NOMEM;

    if (held == T4_OK)
        held = wait_while_held(s, call, plan, RULE_HOLD_ANSWER, script);
    s->host->free(s->host, script);
    if (plan->mode == FAULT_AFTER || plan->mode == FAULT_LOST ||
        plan->mode == FAULT_LATE_MODE || held != T4_OK) {
        if (plan->kind & FAULT_WRITES)
            return s->host->fail(call, T4_E_UNKNOWN, "injected: no answer", NULL, NULL);
        if (held != T4_OK)
            return held;
        return s->host->fail(call, T4_E_UNAVAILABLE, "injected: no answer", NULL, NULL);
    }
    return st;
}

static void
shift_clock(const struct plan *plan, struct t4_object_info *info)
{
    if (info->date_ms != 0)
        info->date_ms += plan->skew_ms;
    if (info->modified_ms != 0)
        info->modified_ms += plan->skew_ms;
}

/* --- the table ---------------------------------------------------------------------- */

static t4_status
fault_put(struct t4_store *s, struct t4_call *call, const struct t4_put *put,
          struct t4_object_info *info)
{
    struct plan plan;
    t4_status st = begin(s, call, FAULT_PUT, put->key, &plan);

    if (st == T4_OK) {
        if (plan.mode == FAULT_LATE_MODE)
            st = fault_put_later(s, put, plan.late_ms);
        else if (plan.mode != FAULT_LOST)
            st = s->inner_ops->put(s->inner, call, put, info);
        st = answer(s, call, &plan, st);
        if (st == T4_OK)
            shift_clock(&plan, info);
    }
    fault_log(s, "put", put->key, st);
    return st;
}

static t4_status
fault_get(struct t4_store *s, struct t4_call *call, struct t4_slice key, uint64_t offset,
          uint64_t length, t4_sink_fn *sink, void *arg, struct t4_object_info *info)
{
    struct plan plan;
    t4_status st = begin(s, call, FAULT_GET, key, &plan);

    if (st == T4_OK) {
        st = s->inner_ops->get(s->inner, call, key, offset, length, sink, arg, info);
        st = answer(s, call, &plan, st);
        if (st == T4_OK)
            shift_clock(&plan, info);
    }
    fault_log(s, "get", key, st);
    return st;
}

static t4_status
fault_head(struct t4_store *s, struct t4_call *call, struct t4_slice key,
           struct t4_object_info *info)
{
    struct plan plan;
    t4_status st = begin(s, call, FAULT_HEAD, key, &plan);

    if (st == T4_OK) {
        st = answer(s, call, &plan, s->inner_ops->head(s->inner, call, key, info));
        if (st == T4_OK)
            shift_clock(&plan, info);
    }
    fault_log(s, "head", key, st);
    return st;
}

/* Rules look at the first key only. */
static t4_status
fault_remove(struct t4_store *s, struct t4_call *call, const struct t4_slice *keys,
             size_t n)
{
    struct t4_slice first = n > 0 ? keys[0] : (struct t4_slice){0};
    struct plan plan;
    t4_status st = begin(s, call, FAULT_REMOVE, first, &plan);

    if (st == T4_OK) {
        if (plan.mode == FAULT_LATE_MODE && n > 0)
            st = fault_remove_later(s, keys, n, plan.late_ms);
        else if (plan.mode != FAULT_LOST)
            st = s->inner_ops->remove(s->inner, call, keys, n);
        st = answer(s, call, &plan, st);
    }
    fault_log(s, "remove", first, st);
    return st;
}

struct listing {
    const struct plan *plan;
    t4_list_fn *fn;
    void *arg;
};

static t4_status
give(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct listing *l = arg;
    struct t4_object_info own = *info;

    shift_clock(l->plan, &own);
    return l->fn(l->arg, key, &own);
}

static t4_status
fault_list(struct t4_store *s, struct t4_call *call, struct t4_slice prefix,
           struct t4_slice after, uint32_t max, t4_list_fn *fn, void *arg)
{
    struct plan plan;
    struct listing l = {.plan = &plan, .fn = fn, .arg = arg};
    t4_status st = begin(s, call, FAULT_LIST, prefix, &plan);

    if (st == T4_OK)
        st = answer(s, call, &plan,
                    s->inner_ops->list(s->inner, call, prefix, after, max, give, &l));
    fault_log(s, "list", prefix, st);
    return st;
}

/* --- open and close ----------------------------------------------------------------- */

static void
fault_close(struct t4_store *s)
{
    const struct t4_host *host = s->host;

    fault_stop(s);
    if (s->log >= 0)
        close(s->log);
    pthread_mutex_destroy(&s->mutex);
    pthread_cond_destroy(&s->changed);
    host->free(host, s);
}

static t4_status
fault_open(void *plugin, struct t4_call *call, const struct t4_store_open *arguments,
           struct t4_store **out)
{
    const struct fault_plugin *p = plugin;
    pthread_condattr_t attributes;
    struct t4_store *s;

    *out = NULL;
    if (!T4_HAS(arguments, inner_ops) || arguments->inner == NULL)
        return p->host->fail(call, T4_E_INVALID, "there is no store to wrap", NULL,
                             "write fault+URL");
    s = p->host->alloc(p->host, sizeof *s);
    if (s == NULL)
        return T4_E_NOMEM;
    *s = (struct t4_store){.plugin = p,
                           .host = p->host,
                           .inner_ops = arguments->inner_ops,
                           .inner = arguments->inner,
                           .random = (uint64_t)p->seed,
                           .log = -1};
    if (p->log[0] != '\0') {
        s->log = open(p->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (s->log < 0) {
            int number = errno;

            p->host->free(p->host, s);
            return p->host->fail(call, T4_E_INVALID, "fault.log cannot be opened",
                                 strerror(number), NULL);
        }
    }
    pthread_mutex_init(&s->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    *out = s;
    return T4_OK;
}

/* --- the plugin --------------------------------------------------------------------- */

enum {
    SET_SEED,
    SET_LATENCY,
    SET_ERROR_BEFORE,
    SET_ERROR_AFTER,
    SET_LOST,
    SET_LATE,
    SET_LATE_MS,
    SET_STALL,
    SET_STALL_MS,
    SET_THROTTLE,
    SET_OUTAGE,
    SET_SKEW_MS,
    SET_CONTROL,
    SET_LOG,
    OPTIONS
};

#define CHANCE T4_OPTION_STRING, 0, "0", NULL, NULL
static const struct t4_option options[OPTIONS] = {
    [SET_SEED] = {"seed", T4_OPTION_INT, 0, "1", NULL, NULL,
                  "where chance begins; serial calls have the same faults each time"},
    [SET_LATENCY] =
        {"latency", T4_OPTION_STRING, 0, "0", NULL, NULL,
         "milliseconds before each request, 28, or by percentile, 50:28 90:40 "
         "99:81"},
    [SET_ERROR_BEFORE] = {"error_before", CHANCE,
                          "chance (0 to 1) that a request fails without effect"},
    [SET_ERROR_AFTER] = {"error_after", CHANCE,
                         "chance that a request is carried out and its answer lost"},
    [SET_LOST] = {"lost", CHANCE, "chance that a write is lost and its answer, too"},
    [SET_LATE] = {"late", CHANCE,
                  "chance that a write is unanswered and carried out later"},
    [SET_LATE_MS] = {"late_ms", T4_OPTION_INT, 0, "1000", "0", "86400000",
                     "milliseconds until a late write is carried out"},
    [SET_STALL] = {"stall", CHANCE, "chance that a request waits for stall_ms first"},
    [SET_STALL_MS] = {"stall_ms", T4_OPTION_INT, 0, "1000", "0", "86400000",
                      "milliseconds of a stall"},
    [SET_THROTTLE] = {"throttle", CHANCE, "chance that a request is refused as too many"},
    [SET_OUTAGE] = {"outage", T4_OPTION_BOOL, 0, "false", NULL, NULL,
                    "every request fails without effect"},
    [SET_SKEW_MS] = {"skew_ms", T4_OPTION_INT, 0, "0", NULL, NULL,
                     "milliseconds by which the store's clock is ahead"},
    [SET_CONTROL] = {"control", T4_OPTION_STRING, 0, NULL, NULL, NULL,
                     "file whose lines say what to do, read for each request"},
    [SET_LOG] = {"log", T4_OPTION_STRING, 0, NULL, NULL, NULL,
                 "file that gets one line for each request"},
};

static bool
read_chance(struct t4_slice text, double *out)
{
    char *end;

    *out = strtod((const char *)text.data, &end); /* the host ends it with a zero byte */
    return text.len > 0 && end == (const char *)text.data + text.len && *out >= 0 &&
           *out <= 1;
}

static t4_status
wrong(const struct t4_host *host, struct t4_call *call, unsigned option, const char *hint)
{
    char message[64];

    snprintf(message, sizeof message, "setting fault.%s", options[option].name);
    return host->fail(call, T4_E_INVALID, message, "it cannot be read", hint);
}

static t4_status
read_values(struct fault_plugin *p, struct t4_call *call, const struct t4_value *v)
{
    const struct {
        unsigned option;
        double *to;
    } chances[] = {{SET_ERROR_BEFORE, &p->error_before},
                   {SET_ERROR_AFTER, &p->error_after},
                   {SET_LOST, &p->lost},
                   {SET_LATE, &p->late},
                   {SET_STALL, &p->stall},
                   {SET_THROTTLE, &p->throttle}};

    for (size_t i = 0; i < sizeof chances / sizeof chances[0]; i++)
        if (!read_chance(v[chances[i].option].text, chances[i].to))
            return wrong(p->host, call, chances[i].option,
                         "it takes a chance from 0 to 1, such as 0.05");
    if (!fault_read_latency((const char *)v[SET_LATENCY].text.data, &p->latency))
        return wrong(p->host, call, SET_LATENCY,
                     "it takes milliseconds, or percentile:milliseconds in ascending "
                     "order");
    if (v[SET_CONTROL].text.len >= sizeof p->control)
        return wrong(p->host, call, SET_CONTROL, "it takes a path");
    if (v[SET_LOG].text.len >= sizeof p->log)
        return wrong(p->host, call, SET_LOG, "it takes a path");
    if (v[SET_CONTROL].text.len > 0)
        memcpy(p->control, v[SET_CONTROL].text.data, v[SET_CONTROL].text.len);
    if (v[SET_LOG].text.len > 0)
        memcpy(p->log, v[SET_LOG].text.data, v[SET_LOG].text.len);
    p->seed = v[SET_SEED].number;
    p->late_ms = v[SET_LATE_MS].number;
    p->stall_ms = v[SET_STALL_MS].number;
    p->outage = v[SET_OUTAGE].number != 0;
    p->skew_ms = v[SET_SKEW_MS].number;
    return T4_OK;
}

static t4_status
load(const struct t4_host *host, struct t4_call *call, const struct t4_values *values,
     void **plugin)
{
    struct fault_plugin *p = host->alloc(host, sizeof *p);
    t4_status st;

    if (p == NULL)
        return T4_E_NOMEM;
    memset(p, 0, sizeof *p);
    p->host = host;
    st = read_values(p, call, values->value);
    if (st != T4_OK) {
        host->free(host, p);
        return st;
    }
    *plugin = p;
    return T4_OK;
}

static void
unload(void *plugin)
{
    struct fault_plugin *p = plugin;

    p->host->free(p->host, p);
}

static const struct t4_object_ops ops = {
    .size = sizeof ops,
    .caps = T4_OBJECT_IF_ABSENT | T4_OBJECT_IF_MATCH | T4_OBJECT_WRAPS,
    .open = fault_open,
    .close = fault_close,
    .put = fault_put,
    .get = fault_get,
    .head = fault_head,
    .remove = fault_remove,
    .list = fault_list,
};

const struct t4_plugin *
t4_plugin_v1(void)
{
    static const struct t4_role roles[] = {
        {.kind = T4_ROLE_OBJECT, .name = "fault", .ops = &ops}};
    static const struct t4_plugin plugin = {
        T4_PLUGIN_HEAD("fault", "0.1.0", 0),
        .license = "Apache-2.0",
        .summary = "wraps an object store and makes it fail, for tests (fault+URL)",
        .options = options,
        .n_options = OPTIONS,
        .roles = roles,
        .n_roles = 1,
        .load = load,
        .unload = unload,
    };

    return &plugin;
}
