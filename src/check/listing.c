/*
 * listing.c - order, prefixes, paging and freshness of listings, and removing many.
 *
 * Entry point: check_listing().  Runs on: the thread of the check; the many objects are
 * written by threads.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdatomic.h>
#include <string.h>

#include "base/memory.h"
#include "check/check_int.h"
#include "env/thread.h"

/* More than the pages of 1,000 that stores have of their own. */
#define MANY 1050
#define WRITERS 16

/* In bytewise order: '!' before '-' before '.' before '/' before '0' before 'A', 'a'. */
static const char *const names[] = {
    "list/!",       "list/-",     "list/0",     "list/00",  "list/1",   "list/10",
    "list/2",       "list/A",     "list/a!b",   "list/a-b", "list/a.b", "list/a/0",
    "list/a/b/c/d", "list/a/b/d", "list/a0",    "list/aa",  "list/ab",  "list/b/1",
    "list/b/2",     "list/c",     "list/z/z/z",
};
#define N_NAMES (sizeof names / sizeof names[0])

static bool
same_names(struct world *w, const struct buffer *got, const char *const *expected,
           size_t n, const char *what)
{
    struct buffer want = {0};
    bool good;

    for (size_t i = 0; i < n; i++) {
        buffer_append(&want, expected[i], strlen(expected[i]));
        buffer_append_u8(&want, '\n');
    }
    good = slice_equal(buffer_slice(got), buffer_slice(&want));
    check_ok(w->check, good, "%s", what);
    if (!good)
        check_note(w->check, "got \"%.*s\", expected \"%.*s\"",
                   (int)(got->len < 700 ? got->len : 700), (const char *)got->data,
                   (int)(want.len < 700 ? want.len : 700), (const char *)want.data);
    buffer_free(&want);
    return good;
}

static void
check_order(struct world *w)
{
    struct buffer got = {0};
    struct answer a = {0};
    bool good = true;
    size_t n;

    world_answer(w, (world_list_names(w, &a, "list/", NULL, 100, &got, &n), &a), T4_OK,
                 "listing of nothing");
    check_ok(w->check, n == 0, "gives nothing");
    for (size_t i = 0; i < N_NAMES && good; i++) /* in an order of its own */
        good = world_put(w, &a, names[(i * 8 + 5) % N_NAMES], "x") == T4_OK;
    world_answer(w, &a, T4_OK, "%zu objects are written", N_NAMES);
    world_answer(w, (world_list_names(w, &a, "list/", NULL, 1000, &got, &n), &a), T4_OK,
                 "listing");
    same_names(w, &got, names, N_NAMES, "gives all of them in bytewise order");
    world_list_names(w, &a, "list/a/b", NULL, 1000, &got, &n);
    same_names(w, &got, names + 12, 2, "a prefix need not end at a '/'");
    world_list_names(w, &a, "list/a", NULL, 1000, &got, &n);
    same_names(w, &got, names + 8, 9, "... and may begin names and folders");
    world_list_names(w, &a, "list/c", NULL, 1000, &got, &n);
    same_names(w, &got, names + 19, 1, "a key is its own prefix");
    world_list_names(w, &a, "list/c/", NULL, 1000, &got, &n);
    same_names(w, &got, NULL, 0, "... but not with a '/' behind it");
    world_list_names(w, &a, "list/nothing", NULL, 1000, &got, &n);
    same_names(w, &got, NULL, 0, "a prefix of nothing");
    buffer_free(&got);
}

static void
check_pages(struct world *w)
{
    static const uint32_t sizes[] = {1, 2, 3, 7, N_NAMES - 1, N_NAMES, N_NAMES + 1};
    struct buffer page = {0}, all = {0};
    struct answer a = {0};
    size_t n;

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char after[CHECK_KEY_MAX] = "";
        bool good = true;

        buffer_clear(&all);
        do {
            world_list_names(w, &a, "list/", after[0] != '\0' ? after : NULL, sizes[i],
                             &page, &n);
            good = a.status == T4_OK && n <= sizes[i] && all.len < 65536;
            if (n > 0) {
                size_t start = page.len - 1;

                while (start > 0 && page.data[start - 1] != '\n')
                    start--;
                snprintf(after, sizeof after, "%.*s", (int)(page.len - 1 - start),
                         (const char *)page.data + start);
            }
            buffer_append_slice(&all, buffer_slice(&page));
        } while (good && n == sizes[i]);
        world_answer(w, &a, T4_OK, "pages of %u", sizes[i]);
        same_names(w, &all, names, N_NAMES, "... give each object once");
    }
    world_list_names(w, &a, "list/", "list/a", 1000, &page, &n);
    same_names(w, &page, names + 8, N_NAMES - 8, "behind a key that does not exist");
    world_list_names(w, &a, "list/", "list/a/b/c/d", 2, &page, &n);
    same_names(w, &page, names + 13, 2, "behind one in the depth");
    world_list_names(w, &a, "list/", "list/a0", 1, &page, &n);
    same_names(w, &page, names + 15, 1, "strictly behind one that does");
    world_list_names(w, &a, "list/b/", "list/a", 1000, &page, &n);
    same_names(w, &page, names + 17, 2, "behind a key before the prefix");
    world_list_names(w, &a, "list/b/", "list/c", 1000, &page, &n);
    same_names(w, &page, NULL, 0, "behind a key after the prefix");
    world_list_names(w, &a, "list/", "list/z/z/z", 1000, &page, &n);
    same_names(w, &page, NULL, 0, "behind the last");
    buffer_free(&page);
    buffer_free(&all);
}

struct found {
    struct t4_object_info info;
    unsigned times;
};

static t4_status
note_info(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct found *f = arg;

    (void)key;
    f->info = *info;
    f->times++;
    return T4_OK;
}

static t4_status
stop_at_once(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    (void)key;
    (void)info;
    ++*(unsigned *)arg;
    return T4_E_CORRUPT;
}

static void
check_fresh(struct world *w)
{
    uint8_t buffer[CHECK_KEY_MAX];
    struct t4_slice key = world_key(w, buffer, slice_str("fresh/object"));
    struct found found = {0};
    struct answer written = {0}, a = {0};
    struct t4_call call;
    unsigned calls = 0;
    size_t n;
    struct buffer got = {0};
    bool good = true;

    world_put(w, &a, "fresh/object", "1");
    world_put(w, &written, "fresh/object", "seven..");
    call = check_call(&a, check_now_ns() + 60 * NS_PER_S, NULL);
    a.status =
        w->ops->list(w->handle, &call, key, slice_of(NULL, 0), 10, note_info, &found);
    world_answer(w, &a, T4_OK, "listing of one object");
    check_ok(w->check, found.times == 1 && found.info.length == 7,
             "tells its new length");
    check_ok(w->check, check_same_tag(&found.info, &written.info),
             "and the tag of the last put");
    call = check_call(&a, check_now_ns() + 60 * NS_PER_S, NULL);
    a.status = w->ops->list(w->handle, &call, slice_str(w->prefix), slice_of(NULL, 0),
                            1000, stop_at_once, &calls);
    world_answer(w, &a, T4_E_CORRUPT, "a listing ends with the callback's error");
    check_ok(w->check, calls == 1, "and does not call it again");

    for (unsigned i = 0; i < w->check->options->rounds && good; i++) {
        good = world_put(w, &a, "fresh/come-and-go", "x") == T4_OK &&
               world_list_names(w, &a, "fresh/come", NULL, 10, &got, &n) == T4_OK &&
               n == 1 && world_remove_one(w, &a, "fresh/come-and-go") == T4_OK &&
               world_list_names(w, &a, "fresh/come", NULL, 10, &got, &n) == T4_OK &&
               n == 0;
    }
    check_ok(w->check, good, "a listing sees each put and remove before it (%u rounds)",
             w->check->options->rounds);
    buffer_free(&got);
}

/* --- many objects ------------------------------------------------------------------- */

struct writer {
    struct world *world;
    struct thread thread;
    unsigned first;
    struct answer answer;
};

static void *
write_some(void *arg)
{
    struct writer *t = arg;
    char name[32];

    for (unsigned i = t->first; i < MANY && t->answer.status == T4_OK; i += WRITERS) {
        snprintf(name, sizeof name, "many/%06u", i);
        world_create(t->world, &t->answer, name, name);
    }
    return NULL;
}

static void
check_many(struct world *w)
{
    struct writer writers[WRITERS] = {0};
    struct buffer got = {0}, keys = {0};
    struct t4_slice *list = mem_alloc((MANY + 1) * sizeof *list);
    struct answer a = {0};
    struct t4_call call;
    bool good = true;
    char name[32];
    size_t n;

    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i].world = w;
        writers[i].first = i;
        thread_start(&writers[i].thread, "check-writer", write_some, &writers[i]);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        thread_join(&writers[i].thread);
        if (writers[i].answer.status != T4_OK)
            a = writers[i].answer;
    }
    world_answer(w, &a, T4_OK, "%d objects are written by %d threads", MANY, WRITERS);
    world_answer(w, (world_list_names(w, &a, "many/", NULL, 5000, &got, &n), &a), T4_OK,
                 "one listing for all of them");
    for (unsigned i = 0; i < MANY && good; i++) {
        snprintf(name, sizeof name, "many/%06u\n", i);
        good = got.len >= (i + 1) * 12u && memcmp(got.data + i * 12, name, 12) == 0;
    }
    check_ok(w->check, good && n == MANY, "gives all of them in order (%zu)", n);
    world_list_names(w, &a, "many/", "many/000001", 1001, &got, &n);
    check_ok(w->check, n == 1001 && memcmp(got.data, "many/000002\n", 12) == 0,
             "a page of 1,001");

    buffer_reserve(&keys, MANY * 64);
    for (unsigned i = 0; i <= MANY; i++) { /* one more than there are */
        size_t start = keys.len;

        snprintf(name, sizeof name, "many/%06u", i);
        buffer_append(&keys, w->prefix, strlen(w->prefix));
        buffer_append(&keys, name, 11);
        list[i] = slice_of(keys.data + start, keys.len - start);
    }
    call = check_call(&a, check_now_ns() + 60 * NS_PER_S, NULL);
    a.status = w->ops->remove(w->handle, &call, list + 10, MANY - 9);
    world_answer(w, &a, T4_OK, "remove of %d keys in one call, one of them absent",
                 MANY - 9);
    world_list_names(w, &a, "many/", NULL, 5000, &got, &n);
    check_ok(w->check, a.status == T4_OK && n == 10, "leaves the others (%zu)", n);
    mem_free(list);
    buffer_free(&keys);
    buffer_free(&got);
}

void
check_listing(struct world *w)
{
    check_order(w);
    check_pages(w);
    check_fresh(w);
    check_many(w);
}
