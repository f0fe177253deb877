/*
 * races.c - many writers and one key: exactly one may win.
 *
 * A loser may be told so (PRECONDITION), be sent away (BUSY, UNAVAILABLE) or get no clear
 * answer (UNKNOWN; some servers answer 500 to those who lost a race), but nobody may be told
 * OK besides the one whose bytes are there.
 *
 * Entry point: check_races().  Runs on: the thread of the check and WRITERS of its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <string.h>

#include "base/memory.h"
#include "check/check_int.h"
#include "env/thread.h"

#define WRITERS 16

struct race {
    struct world *world;
    pthread_barrier_t barrier; /* the writers and the thread of the check */
    const char *name;          /* of the object of this round; NULL: the end */
    uint32_t condition;
    struct t4_object_info match;
    struct answer answers[WRITERS];
};

struct writer {
    struct race *race;
    unsigned number;
    struct thread thread;
};

static void *
writer_main(void *arg)
{
    struct writer *t = arg;
    struct race *r = t->race;
    char body[64];

    for (;;) {
        pthread_barrier_wait(&r->barrier);
        if (r->name == NULL)
            return NULL;
        snprintf(body, sizeof body, "writer %u", t->number);
        world_put_if(r->world, &r->answers[t->number], r->name, slice_str(body),
                     r->condition, slice_of(r->match.tag, r->match.tag_length));
        pthread_barrier_wait(&r->barrier);
    }
}

struct tally {
    unsigned two_winners, wrong_bytes, odd_losers, unclear;
};

/* Who won must be who is there. */
static void
judge(struct race *r, struct tally *t)
{
    struct answer a = {0};
    unsigned winners = 0, owner = WRITERS;
    char body[64];

    world_get(r->world, &a, r->name);
    for (unsigned i = 0; i < WRITERS; i++) {
        snprintf(body, sizeof body, "writer %u", i);
        if (a.status == T4_OK && slice_equal(buffer_slice(&a.body), slice_str(body)))
            owner = i;
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        const struct answer *answer = &r->answers[i];

        switch (answer->status) {
        case T4_OK: winners++; break;
        case T4_E_PRECONDITION: break;
        case T4_E_UNKNOWN:
        case T4_E_BUSY:
        case T4_E_UNAVAILABLE: t->unclear++; break;
        default:
            if (t->odd_losers++ == 0)
                check_note(r->world->check, "a loser got: %s; %s",
                           status_text(answer->status), answer->error.message);
        }
    }
    t->two_winners += winners > 1;
    if (owner == WRITERS || (winners > 0 ? r->answers[owner].status != T4_OK
                                         : r->answers[owner].status != T4_E_UNKNOWN))
        t->wrong_bytes++;
    else if (winners == 1 && !check_same_tag(&a.info, &r->answers[owner].info))
        t->wrong_bytes++;
    check_answer_free(&a);
}

static void
check_race(struct world *w, uint32_t condition, const char *what)
{
    struct race *r = mem_zalloc(sizeof *r);
    struct writer writers[WRITERS];
    struct tally t = {0};
    struct check *c = w->check;
    struct answer a = {0};
    char name[32];

    r->world = w;
    r->condition = condition;
    pthread_barrier_init(&r->barrier, NULL, WRITERS + 1);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.race = r, .number = i};
        thread_start(&writers[i].thread, "check-racer", writer_main, &writers[i]);
    }
    for (unsigned round = 0; round < c->options->rounds; round++) {
        snprintf(name, sizeof name, "race/%u-%u", condition, round % 7);
        if (condition == T4_PUT_IF_MATCH) {
            if (world_put(w, &a, name, "before") != T4_OK) {
                world_answer(w, &a, T4_OK, "an object to race for");
                break;
            }
            r->match = a.info;
        } else if (world_remove_one(w, &a, name) != T4_OK) {
            world_answer(w, &a, T4_OK, "nothing is left to race for");
            break;
        }
        r->name = name;
        pthread_barrier_wait(&r->barrier);
        pthread_barrier_wait(&r->barrier);
        judge(r, &t);
    }
    r->name = NULL;
    pthread_barrier_wait(&r->barrier);
    for (unsigned i = 0; i < WRITERS; i++)
        thread_join(&writers[i].thread);

    check_ok(c, t.two_winners == 0, "%s: %u rounds of %d writers, never two winners",
             what, c->options->rounds, WRITERS);
    if (t.two_winners > 0)
        check_note(c, "%u rounds had more than one", t.two_winners);
    check_ok(c, t.wrong_bytes == 0, "%s: the winner's bytes and tag are there", what);
    if (t.wrong_bytes > 0)
        check_note(c, "not in %u rounds", t.wrong_bytes);
    check_ok(c, t.odd_losers == 0, "%s: the losers are told so", what);
    if (t.unclear > 0)
        check_note(c, "%u losers got no clear answer (unknown, busy, unavailable)",
                   t.unclear);
    pthread_barrier_destroy(&r->barrier);
    mem_free(r);
}

/* --- a reader beside writers -------------------------------------------------------- */

struct reader {
    struct world *world;
    struct thread thread;
    int32_t stop;
    unsigned reads, torn;
};

#define WHOLE 300000

static void *
reader_main(void *arg)
{
    struct reader *r = arg;
    struct answer a = {0};

    while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE) || r->reads == 0) {
        bool whole = world_get(r->world, &a, "whole") == T4_OK && a.body.len == WHOLE;

        for (size_t i = 1; whole && i < WHOLE; i++)
            whole = a.body.data[i] == a.body.data[0];
        r->reads++;
        r->torn += !whole;
    }
    check_answer_free(&a);
    return NULL;
}

static void
check_whole(struct world *w)
{
    struct reader r = {.world = w};
    uint8_t *bytes = mem_alloc(WHOLE);
    struct answer a = {0};

    for (unsigned i = 0; i <= w->check->options->rounds && a.status == T4_OK; i++) {
        memset(bytes, 'a' + (int)(i % 26), WHOLE);
        world_put_if(w, &a, "whole", slice_of(bytes, WHOLE), T4_PUT_ANY,
                     slice_of(NULL, 0));
        if (i == 0)
            thread_start(&r.thread, "check-reader", reader_main, &r);
    }
    __atomic_store_n(&r.stop, 1, __ATOMIC_RELEASE);
    thread_join(&r.thread);
    world_answer(w, &a, T4_OK, "an object is replaced while it is read");
    check_ok(w->check, r.torn == 0,
             "a reader sees old or new bytes, whole (%u of %u not)", r.torn, r.reads);
    mem_free(bytes);
}

void
check_races(struct world *w)
{
    check_race(w, T4_PUT_IF_ABSENT, "create-if-absent");
    check_race(w, T4_PUT_IF_MATCH, "if-match");
    check_whole(w);
}
