/*
 * lease_test.c - the table of leases against a plain array, and its records.
 *
 * A seeded history of grants, renewals, extensions, revocations and restarts; after each step
 * the table must agree with an array that is searched from end to end: who is there, who
 * expires first, the order of all, what is left, what has to be logged.  Records: every value
 * goes round, every damaged one is refused or means something valid.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/memory.h"
#include "engine_bed.h"
#include "lease/lease.h"

#define SECOND ((uint64_t)1000000000)
#define STEPS 20000
#define PLACES 300 /* ids in use; many more steps, so that they come and go */

struct plain {
    bool alive;
    int64_t ttl, logged;
    uint64_t expires_ns;
};

struct model {
    struct lease_table *table;
    struct plain plain[PLACES];
    struct chance chance;
    uint64_t now_ns, n;
};

/* Ids of all kinds: small, negative, extreme. */
static int64_t
id_of(uint64_t place)
{
    switch (place % 4) {
    case 0: return (int64_t)place + 1;
    case 1: return -(int64_t)place;
    case 2: return INT64_MAX - (int64_t)place;
    default: return INT64_MIN + (int64_t)place;
    }
}

static uint64_t
place_of(int64_t id)
{
    for (uint64_t i = 0; i < PLACES; i++)
        if (id_of(i) == id)
            return i;
    fail_msg("a lease that nobody granted: %lld", (long long)id);
    return 0;
}

static int64_t
some_ttl(struct model *m)
{
    switch (chance_below(&m->chance, 4)) {
    case 0: return LEASE_TTL_MIN;
    case 1: return LEASE_TTL_MAX;
    case 2: return 300 + (int64_t)chance_below(&m->chance, 3);
    default: return 2 + (int64_t)chance_below(&m->chance, 5000);
    }
}

static void
check(struct model *m)
{
    struct lease *first = lease_first(m->table);
    uint64_t soonest = UINT64_MAX, n, last = 0;
    int64_t *ids;

    assert_int_equal(lease_table_count(m->table), m->n);
    for (uint64_t i = 0; i < PLACES; i++)
        if (m->plain[i].alive && m->plain[i].expires_ns < soonest)
            soonest = m->plain[i].expires_ns;
    assert_int_equal(first != NULL, m->n > 0);
    if (first != NULL)
        assert_true(first->expires_ns == soonest);

    ids = lease_ids_by_expiry(m->table, &n);
    assert_int_equal(n, m->n);
    for (uint64_t i = 0; i < n; i++) {
        struct plain *p = &m->plain[place_of(ids[i])];

        assert_true(p->alive);
        assert_true(p->expires_ns >= last);
        last = p->expires_ns;
    }
    mem_free(ids);
}

/* One lease: what the table says of it. */
static void
check_one(struct model *m, uint64_t place)
{
    struct plain *p = &m->plain[place];
    struct lease *l = lease_find(m->table, id_of(place));
    uint64_t left_ns;

    assert_int_equal(l != NULL, p->alive);
    if (l == NULL)
        return;
    assert_true(l->id == id_of(place) && l->ttl == p->ttl);
    assert_true(l->expires_ns == p->expires_ns);
    left_ns = p->expires_ns > m->now_ns ? p->expires_ns - m->now_ns : 0;
    assert_true(lease_remaining(l, m->now_ns) == (int64_t)(left_ns / SECOND));
    assert_true(lease_remaining_up(l, m->now_ns) <= l->ttl);
    assert_true(lease_remaining_up(l, m->now_ns) ==
                (int64_t)((left_ns + SECOND - 1) / SECOND));
}

static void
check_remainders(struct model *m)
{
    uint64_t n, expected = 0;
    struct lease **due = lease_due_remainders(m->table, m->now_ns, &n);

    for (uint64_t i = 0; i < n; i++) {
        struct plain *p = &m->plain[place_of(due[i]->id)];
        int64_t left = lease_remaining_up(due[i], m->now_ns);

        assert_true(p->ttl > LEASE_REMAINDER_MIN);
        assert_true(left > 0 && left < p->logged);
        assert_true(p->logged - left >= p->logged / 4);
    }
    for (uint64_t i = 0; i < PLACES; i++) {
        struct plain *p = &m->plain[i];
        uint64_t left;

        if (!p->alive || p->ttl <= LEASE_REMAINDER_MIN || p->expires_ns <= m->now_ns)
            continue;
        left = (p->expires_ns - m->now_ns + SECOND - 1) / SECOND;
        expected += left < (uint64_t)p->logged &&
                    (uint64_t)p->logged - left >= (uint64_t)p->logged / 4;
    }
    assert_int_equal(n, expected);
    for (uint64_t i = 0; i < n; i++)
        m->plain[place_of(due[i]->id)].logged = due[i]->logged_remaining =
            lease_remaining_up(due[i], m->now_ns);
    mem_free(due);
}

static void
step(struct model *m)
{
    uint64_t place = chance_below(&m->chance, PLACES), from;
    struct plain *p = &m->plain[place];
    struct lease *l = lease_find(m->table, id_of(place));

    check_one(m, place);
    if (!p->alive) {
        *p = (struct plain){true, some_ttl(m), 0, 0};
        p->logged = 1 + (int64_t)chance_below(&m->chance, chance_below(&m->chance, 4) == 0
                                                              ? 2
                                                              : (uint64_t)p->ttl);
        p->expires_ns = m->now_ns + (uint64_t)p->logged * SECOND;
        lease_add(m->table, id_of(place), p->ttl, p->logged, m->now_ns);
        m->n++;
        return;
    }
    switch (chance_below(&m->chance, 8)) {
    case 0:
    case 1:
    case 2:
        lease_renew(m->table, l, m->now_ns);
        p->expires_ns = m->now_ns + (uint64_t)p->ttl * SECOND;
        l->logged_remaining = p->logged = p->ttl;
        break;
    case 3: /* published at some time in the past: never brings the expiry forward */
        from = m->now_ns - chance_below(&m->chance, 100) * SECOND;
        lease_extend(m->table, l, from);
        if (from + (uint64_t)p->ttl * SECOND > p->expires_ns)
            p->expires_ns = from + (uint64_t)p->ttl * SECOND;
        break;
    case 4: m->now_ns += chance_below(&m->chance, 90 * SECOND); break;
    default:
        lease_remove(m->table, l);
        p->alive = false;
        m->n--;
        break;
    }
}

static void
restart(struct model *m)
{
    lease_restart_all(m->table, m->now_ns);
    for (uint64_t i = 0; i < PLACES; i++)
        m->plain[i].expires_ns = m->now_ns + (uint64_t)m->plain[i].logged * SECOND;
}

static void
test_table_against_an_array(void **unused)
{
    struct model *m = mem_zalloc(sizeof *m);

    (void)unused;
    m->chance.state = test_seed();
    m->now_ns = 1000 * SECOND;
    m->table = lease_table_new(chance_next(&m->chance));
    assert_null(lease_first(m->table));
    for (unsigned i = 0; i < STEPS; i++) {
        step(m);
        if (i % 16 == 0)
            check(m);
        if (i % 50 == 0)
            check_remainders(m);
        if (i % 1000 == 999) {
            restart(m);
            check(m);
        }
    }
    /* Soonest first until none is left. */
    for (uint64_t last = 0; lease_first(m->table) != NULL;) {
        struct lease *l = lease_first(m->table);

        assert_true(l->expires_ns >= last);
        last = l->expires_ns;
        lease_remove(m->table, l);
    }
    assert_int_equal(lease_table_count(m->table), 0);
    lease_table_free(m->table);
    mem_free(m);
}

/* Whatever is taken out of the middle, the rest goes soonest first. */
static void
test_order_after_removals(void **unused)
{
    struct chance chance = {test_seed()};

    (void)unused;
    for (unsigned round = 0; round < 300; round++) {
        struct lease_table *t = lease_table_new(round);
        uint64_t n = 1 + chance_below(&chance, 100), last = 0;

        for (uint64_t i = 0; i < n; i++)
            lease_add(t, (int64_t)i + 1, 10000, (int64_t)chance_below(&chance, 10000), 0);
        for (uint64_t i = 0; i < n; i++)
            if (chance_below(&chance, 2) == 0)
                lease_remove(t, lease_find(t, (int64_t)i + 1));
        while (lease_first(t) != NULL) {
            assert_true(lease_first(t)->expires_ns >= last);
            last = lease_first(t)->expires_ns;
            lease_remove(t, lease_first(t));
        }
        lease_table_free(t);
    }
}

/* The longest time to live on a machine that has been up for ten years. */
static void
test_longest_lease(void **unused)
{
    struct lease_table *t = lease_table_new(1);
    uint64_t now_ns = (uint64_t)10 * 365 * 86400 * SECOND;
    struct lease *l = lease_add(t, 1, LEASE_TTL_MAX, LEASE_TTL_MAX, now_ns);

    (void)unused;
    assert_true(l->expires_ns > now_ns);
    assert_true(lease_remaining(l, now_ns) == LEASE_TTL_MAX);
    assert_true(lease_remaining(l, now_ns + 1) == LEASE_TTL_MAX - 1);
    assert_true(lease_remaining_up(l, now_ns + 1) == LEASE_TTL_MAX);
    assert_true(lease_remaining_up(l, l->expires_ns) == 0);
    lease_table_free(t);
}

/* --- records -------------------------------------------------------------------------------- */

static void
test_records_go_round(void **unused)
{
    static const int64_t ids[] = {0, 1, -1, 127, 128, INT64_MAX, INT64_MIN};
    static const int64_t ttls[] = {1, 2, 127, 128, 300, LEASE_TTL_MAX};
    uint8_t key[LEASE_KEY_BYTES];
    struct buffer value = {0};
    int64_t id, ttl, remaining;

    (void)unused;
    for (unsigned i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        lease_key_encode(key, ids[i]);
        assert_true(lease_key_decode(slice_of(key, sizeof key), &id));
        assert_true(id == ids[i]);
        assert_false(lease_key_decode(slice_of(key, sizeof key - 1), &id));
        key[0] ^= 1;
        assert_false(lease_key_decode(slice_of(key, sizeof key), &id));
    }
    assert_false(lease_key_decode(slice_str("compacted"), &id));
    for (unsigned i = 0; i < sizeof ttls / sizeof ttls[0]; i++)
        for (int64_t r = 0; r <= 2; r++) {
            int64_t want = r == 2 ? ttls[i] : r;

            buffer_clear(&value);
            lease_value_encode(&value, ttls[i], want);
            assert_true(lease_value_decode(buffer_slice(&value), &ttl, &remaining));
            assert_true(ttl == ttls[i] && remaining == want);
        }
    buffer_free(&value);
}

static void
test_damaged_records_are_refused(void **unused)
{
    static const int64_t wrong[][2] = {{0, 0},        {-1, 0}, {LEASE_TTL_MAX + 1, 1},
                                       {5, -1},       {5, 6},  {INT64_MAX, INT64_MAX},
                                       {5, INT64_MIN}};
    struct buffer value = {0};
    int64_t ttl, remaining;

    (void)unused;
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        buffer_clear(&value);
        lease_value_encode(&value, wrong[i][0], wrong[i][1]);
        assert_false(lease_value_decode(buffer_slice(&value), &ttl, &remaining));
    }
    buffer_clear(&value);
    lease_value_encode(&value, 86400, 43210);
    for (size_t n = 0; n < value.len; n++) {
        uint8_t *cut =
            malloc(n > 0 ? n : 1); /* of this size, so that ASan sees the end */

        memcpy(cut, value.data, n);
        assert_false(lease_value_decode(slice_of(cut, n), &ttl, &remaining));
        free(cut);
    }
    for (size_t bit = 0; bit < 8 * value.len; bit++) {
        value.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (lease_value_decode(buffer_slice(&value), &ttl, &remaining))
            assert_true(ttl >= 1 && ttl <= LEASE_TTL_MAX && remaining >= 0 &&
                        remaining <= ttl);
        value.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    buffer_append_u8(&value, 0);
    assert_false(lease_value_decode(buffer_slice(&value), &ttl, &remaining));
    buffer_free(&value);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_against_an_array),
        cmocka_unit_test(test_order_after_removals),
        cmocka_unit_test(test_longest_lease),
        cmocka_unit_test(test_records_go_round),
        cmocka_unit_test(test_damaged_records_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
