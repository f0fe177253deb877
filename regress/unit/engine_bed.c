/*
 * engine_bed.c - a place to run storage engines in, and a reference.  See engine_bed.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine_bed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/slice.h"
#include "scratch.h"

/* --- an engine in a folder of its own ----------------------------------------------- */

const char *
build_folder(const char *folder)
{
    static char path[PATH_MAX];
    const char *build = getenv("T4_BUILD_DIR");
    char program[PATH_MAX];
    ssize_t n;

    if (build == NULL) { /* <build>/regress/unit/<program> */
        n = readlink("/proc/self/exe", program, sizeof program - 1);
        assert_true(n > 0);
        program[n] = '\0';
        for (int i = 0; i < 3 && strrchr(program, '/') != NULL; i++)
            *strrchr(program, '/') = '\0';
        build = program;
    }
    assert_true(snprintf(path, sizeof path, "%s/%s", build, folder) < (int)sizeof path);
    return path;
}

void
bed_init(struct bed *b, const char *kind, const char *map_size)
{
    const struct plugin_setting setting[] = {
        {"map_size", map_size != NULL ? map_size : "1 GB"},
        {"copy_step", "64 kB"}, /* many steps to a small file */
    };
    struct error error = {0};

    memset(b, 0, sizeof *b);
    b->kind = kind;
    scratch_make(b->dir, sizeof b->dir - strlen("/engine"), "t4-engine");
    strcat(b->dir, "/engine");
    if (strcmp(kind, "memory") == 0) {
        b->ops = *engine_memory_ops();
        return;
    }
    setenv("T4_PLUGIN_DIR", build_folder("plugins"), 0);
    if (plugin_load(NULL, kind, setting, 2, &b->plugin, &error) != T4_OK)
        fail_msg("%s (%s)", error.message, error.hint);
    assert_int_equal(
        plugin_role(b->plugin, T4_ROLE_ENGINE, kind, &b->ops, sizeof b->ops, &error),
        T4_OK);
}

void
bed_open(struct bed *b)
{
    struct error error = {0};
    void *state = b->plugin != NULL ? plugin_state(b->plugin) : NULL;

    if (engine_open(&b->ops, state, b->kind, b->dir, &b->engine, &error) != T4_OK)
        fail_msg("%s (%s)", error.message, error.hint);
}

void
bed_close(struct bed *b)
{
    engine_close(b->engine);
    b->engine = NULL;
}

void
bed_destroy(struct bed *b)
{
    bed_close(b);
    plugin_unload(b->plugin);
    *strrchr(b->dir, '/') = '\0';
    scratch_remove(b->dir);
}

uint64_t
test_seed(void)
{
    const char *text = getenv("T4_TEST_SEED");

    return text != NULL ? strtoull(text, NULL, 10) : 20240229;
}
