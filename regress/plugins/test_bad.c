/*
 * test_bad.c - a plugin with one fault, named by the environment variable T4_TEST_FAULT.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "t4_plugin.h"

static const char *
fault(void)
{
    const char *name = getenv("T4_TEST_FAULT");

    return name != NULL ? name : "";
}

static t4_status
load(const struct t4_host *host, struct t4_call *call, const struct t4_values *values,
     void **plugin)
{
    (void)values;
    *plugin =
        host->alloc(host, 33); /* left behind when it fails: the host must clear it */
    if (strcmp(fault(), "load") == 0)
        return host->fail(call, T4_E_UNAVAILABLE, "the library has a cold",
                          "temperature 39", "wait a week");
    if (strcmp(fault(), "load silently") == 0)
        return T4_E_DENIED;
    if (strcmp(fault(), "load oddly") == 0)
        return 17;
    host->free(host, *plugin);
    return T4_OK;
}

static struct t4_option options[] = {
    {"count", T4_OPTION_INT, 0, "5", "1", "10", "a number"},
};

static const struct t4_engine_ops tiny = {.size = 4};
static const struct t4_engine_ops cut = {.size = offsetof(struct t4_engine_ops, snap)};
static const struct t4_engine_ops future = {.size = sizeof future, .min_minor = 9};
static struct t4_role roles[] = {
    {.kind = T4_ROLE_ENGINE, .name = "tiny", .ops = &tiny},
    {.kind = T4_ROLE_ENGINE, .name = "cut", .ops = &cut},
    {.kind = T4_ROLE_ENGINE, .name = "future", .ops = &future},
};

const struct t4_plugin *
t4_plugin_v1(void)
{
    static struct t4_plugin p;
    const char *f = fault();

    p = (struct t4_plugin){
        T4_PLUGIN_HEAD("test_bad", "0.1", 0),
        .options = options,
        .n_options = 1,
        .roles = roles,
        .n_roles = 3,
        .load = load,
    };
    if (strcmp(f, "null") == 0)
        return NULL;
    if (strcmp(f, "magic") == 0)
        p.magic = 0x12345678;
    if (strcmp(f, "size") == 0)
        p.size = 24;
    if (strcmp(f, "major") == 0)
        p.abi_major = 2;
    if (strcmp(f, "minor") == 0)
        p.needs_minor = 7;
    if (strcmp(f, "option_size") == 0)
        p.option_size = 8;
    if (strcmp(f, "name") == 0)
        p.name = "someone_else";
    if (strcmp(f, "no options") == 0)
        p.options = NULL;
    if (strcmp(f, "no roles") == 0)
        p.n_roles = 0;
    if (strcmp(f, "role name") == 0)
        roles[1].name = NULL;
    if (strcmp(f, "role ops") == 0)
        roles[1].ops = NULL;
    if (strcmp(f, "option name") == 0)
        options[0].name = NULL;
    if (strcmp(f, "option type") == 0)
        options[0].type = 99;
    if (strcmp(f, "default") == 0)
        options[0].default_value = "11";
    return &p;
}
