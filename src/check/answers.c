/*
 * answers.c - lost and late answers: the protocol's retries settle on this store.
 *
 * The store is opened once more with the wrapper "fault" around it, which loses answers,
 * refuses, and carries requests out late, as its control file says.  What is checked is the
 * pair: that a put whose answer was lost can be repeated and then read, that a request that
 * comes late finds its condition no longer true, and that nothing passes a refusal.
 *
 * Entry point: check_answers().  Runs on: the thread of the check.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "check/check_int.h"

struct faulty {
    struct world world;
    char control[64];
};

/* Replaces the control file as a whole: a call reads the old one or the new one. */
static void
say(struct faulty *f, const char *lines)
{
    char next[80];
    FILE *out;

    snprintf(next, sizeof next, "%s.new", f->control);
    out = fopen(next, "w");
    if (out == NULL || fputs(lines, out) < 0 || fclose(out) != 0 ||
        rename(next, f->control) != 0)
        check_ok(f->world.check, false, "the control file %s can be written", f->control);
}

/* --- what is said about it ---------------------------------------------------------- */

static void
check_before(struct faulty *f)
{
    struct world *w = &f->world;
    struct answer a = {0};

    say(f, "fail put * 1 before\n");
    world_answer(w, (world_create(w, &a, "before", "1"), &a), T4_E_UNAVAILABLE,
                 "a put that fails before its effect");
    world_answer(w, (world_head(w, &a, "before"), &a), T4_E_NOTFOUND, "has none");
    world_answer(w, (world_create(w, &a, "before", "1"), &a), T4_OK,
                 "and may be repeated");
    say(f, "fail put * 1 busy\n");
    world_answer(w, (world_create(w, &a, "busy", "1"), &a), T4_E_BUSY,
                 "a put that is throttled");
    world_answer(w, (world_create(w, &a, "busy", "1"), &a), T4_OK, "may be repeated");
    say(f, "");
}

static void
check_after(struct faulty *f)
{
    struct world *w = &f->world;
    struct answer a = {0}, first = {0};

    say(f, "fail put * 1 after\n");
    world_answer(w, (world_create(w, &a, "after", "mine"), &a), T4_E_UNKNOWN,
                 "a create-if-absent whose answer is lost");
    world_answer(w, (world_create(w, &a, "after", "mine"), &a), T4_E_PRECONDITION,
                 "is told on the repetition that it is there");
    world_body(w, "after", "mine", "and reads its own bytes");

    world_answer(w, (world_put(w, &first, "after-match", "one"), &first), T4_OK,
                 "an object");
    say(f, "fail put * 1 after #2\n");
    world_answer(w, (world_replace(w, &a, "after-match", "two", &first.info), &a),
                 T4_E_UNKNOWN, "an if-match whose answer is lost");
    world_answer(w, (world_replace(w, &a, "after-match", "two", &first.info), &a),
                 T4_E_PRECONDITION, "is told on the repetition that the tag is stale");
    world_body(w, "after-match", "two", "and reads its own bytes");

    say(f, "fail put * 1 lost\n");
    world_answer(w, (world_create(w, &a, "lost", "1"), &a), T4_E_UNKNOWN,
                 "a put that is lost");
    world_answer(w, (world_head(w, &a, "lost"), &a), T4_E_NOTFOUND, "has no effect");
    world_answer(w, (world_create(w, &a, "lost", "1"), &a), T4_OK, "and may be repeated");
    say(f, "");
}

/* The late request is let through when the line "hold late *" is gone. */
static void
check_late(struct faulty *f)
{
    struct world *w = &f->world;
    struct answer a = {0}, first = {0};

    say(f, "hold late *\nfail put * 1 late 0\n");
    world_answer(w, (world_create(w, &a, "late-create", "late"), &a), T4_E_UNKNOWN,
                 "a create-if-absent that is on its way");
    world_answer(w, (world_create(w, &a, "late-create", "early"), &a), T4_OK,
                 "is overtaken by another");
    say(f, "drain late\n");
    world_answer(w, (world_head(w, &a, "late-create"), &a), T4_OK, "it arrives");
    world_body(w, "late-create", "early", "and changes nothing");

    say(f, "");
    world_answer(w, (world_put(w, &first, "late-match", "one"), &first), T4_OK,
                 "an object");
    say(f, "hold late *\nfail put * 1 late 0\n");
    world_answer(w, (world_replace(w, &a, "late-match", "late", &first.info), &a),
                 T4_E_UNKNOWN, "an if-match that is on its way");
    world_answer(w, (world_replace(w, &a, "late-match", "two", &first.info), &a), T4_OK,
                 "is overtaken by another");
    say(f, "drain late\n");
    world_answer(w, (world_head(w, &a, "late-match"), &a), T4_OK, "it arrives");
    world_body(w, "late-match", "two", "and changes nothing");
    say(f, "");
}

static void
check_refusals(struct faulty *f)
{
    struct world *w = &f->world;
    struct answer a = {0}, plain = {0};

    world_answer(w, (world_put(w, &plain, "refuse", "1"), &plain), T4_OK, "an object");
    say(f, "readonly\n");
    world_answer(w, (world_put(w, &a, "refuse", "2"), &a), T4_E_DENIED,
                 "a bucket that may only be "
                 "read");
    world_body(w, "refuse", "1", "can be read");
    say(f, "outage\n");
    world_answer(w, (world_get(w, &a, "refuse"), &a), T4_E_UNAVAILABLE, "an outage");
    say(f, "full\n");
    world_answer(w, (world_put(w, &a, "refuse", "2"), &a), T4_E_NOSPACE,
                 "a quota that is used up");
    say(f, "throttle\n");
    world_answer(w, (world_get(w, &a, "refuse"), &a), T4_E_BUSY, "throttling");
    say(f, "skew 86400000\n");
    world_answer(w, (world_head(w, &a, "refuse"), &a), T4_OK,
                 "a store whose clock is a day ahead");
    if (plain.info.date_ms != 0)
        check_ok(w->check,
                 a.info.date_ms - plain.info.date_ms >= 86400000 &&
                     a.info.date_ms - plain.info.date_ms < 86400000 + 3600000,
                 "says so");
    say(f, "");
    world_body(w, "refuse", "1", "all of that changed nothing");
    check_answer_free(&a);
}

/* --- opening ------------------------------------------------------------------------ */

/* Why the wrapper cannot be put around the store; NULL: it can. */
static const char *
obstacle(struct check *c, const char *url)
{
    const struct check_options *o = c->options;
    struct plugin *p;

    for (size_t i = 0; i < o->n_settings; i++)
        if (strncmp(o->settings[i].name, "fault.", 6) == 0)
            return "settings of fault are given";
    if (strstr(url, "fault+") != NULL)
        return NULL;
    if (plugin_load(o->plugin_dir, "fault", NULL, 0, &p, NULL) != T4_OK &&
        plugin_load(NULL, "fault", NULL, 0, &p, NULL) != T4_OK)
        return "the plugin fault is not there";
    plugin_unload(p);
    return NULL;
}

void
check_answers(struct check *c, const char *url)
{
    const char *why = obstacle(c, url),
               *wrap = strstr(url, "fault+") != NULL ? "" : "fault+";
    struct check_options options = *c->options;
    struct plugin_setting *settings;
    char *wrapped;
    struct faulty f = {0};
    struct check own = *c;
    int fd;

    if (why != NULL) {
        check_skip(c, "answers that are lost or late", why);
        return;
    }
    snprintf(f.control, sizeof f.control, "/tmp/t4-check-XXXXXX");
    fd = mkstemp(f.control);
    if (!check_ok(c, fd >= 0, "a control file in /tmp"))
        return;
    close(fd);
    settings = mem_alloc((options.n_settings + 1) * sizeof *settings);
    if (options.n_settings > 0)
        memcpy(settings, options.settings, options.n_settings * sizeof *settings);
    settings[options.n_settings++] = (struct plugin_setting){"fault.control", f.control};
    options.settings = settings;
    wrapped = mem_alloc(strlen(url) + 16);
    sprintf(wrapped, "%s%s", wrap, url);

    own.count = c->count;
    own.failed = c->failed;
    own.options = &options;
    if (world_open(&f.world, &own, wrapped)) {
        check_before(&f);
        check_after(&f);
        check_late(&f);
        check_refusals(&f);
        check_ok(&own, world_clear(&f.world), "what that wrote can be removed");
        world_close(&f.world);
    }
    c->count = own.count;
    c->failed = own.failed;
    unlink(f.control);
    mem_free(settings);
    mem_free(wrapped);
}
