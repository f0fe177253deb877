/*
 * test_good.c - a plugin with an option of each type, for the loader's test.
 *
 * Its state is the values it was given, so that the test can look at them.  With
 * test_good.leak it gives back only one of three allocations; with test_good.talk it logs
 * a line at each level and uses every other service of the host.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "t4_plugin.h"

enum { TEXT, FLAG, COUNT, SPACE, TIME, PASSWORD, NEEDED, PLAIN, LEAK, TALK };

static const struct t4_option options[] = {
    [TEXT] = {"text", T4_OPTION_STRING, 0, "default text", NULL, NULL, "any words"},
    [FLAG] = {"flag", T4_OPTION_BOOL, 0, "off", NULL, NULL, "a switch"},
    [COUNT] = {"count", T4_OPTION_INT, 0, "7", "-5", "100", "a number"},
    [SPACE] = {"space", T4_OPTION_SIZE, 0, "64 MB", "4 kB", "2 TB", "room"},
    [TIME] = {"time", T4_OPTION_DURATION, 0, "1500 ms", "1 ms", "2 h", "patience"},
    [PASSWORD] = {"password", T4_OPTION_INT, T4_OPTION_SECRET, "1", NULL, NULL,
                  "a secret"},
    [NEEDED] = {"needed", T4_OPTION_STRING, T4_OPTION_REQUIRED, NULL, NULL, NULL,
                "must be set"},
    [PLAIN] = {"plain", T4_OPTION_STRING, 0, NULL, NULL, NULL, NULL},
    [LEAK] = {"leak", T4_OPTION_BOOL, 0, "false", NULL, NULL, "be careless"},
    [TALK] = {"talk", T4_OPTION_BOOL, 0, "false", NULL, NULL, "use the host"},
};

static t4_status
use_host(const struct t4_host *host, struct t4_call *call)
{
    uint8_t one[16] = {0}, two[16] = {0};
    uint64_t before = host->now_ns();

    for (int32_t level = T4_LOG_ERROR; level <= T4_LOG_DEBUG; level++)
        host->log(host, level, "hello from the plugin");
    host->random(one, sizeof one);
    host->random(two, sizeof two);
    if (memcmp(one, two, sizeof one) == 0)
        return host->fail(call, T4_E_INTERNAL, "random() repeats itself", NULL, NULL);
    if (before == 0 || host->now_ns() < before)
        return host->fail(call, T4_E_INTERNAL, "now_ns() goes back", NULL, NULL);
    if (host->deadline_ns(call) != 0 || host->cancelled(call))
        return host->fail(call, T4_E_INTERNAL, "load() has a deadline", NULL, NULL);
    if (!T4_HAS(host, random) || host->version == NULL || host->abi_major != T4_ABI_MAJOR)
        return host->fail(call, T4_E_INTERNAL, "the host's table is odd", NULL, NULL);
    return T4_OK;
}

static t4_status
load(const struct t4_host *host, struct t4_call *call, const struct t4_values *values,
     void **plugin)
{
    *plugin = (void *)(uintptr_t)values;
    if (values->value[LEAK].number) {
        void *p = host->alloc(host, 10);

        host->alloc(host, 100);
        host->alloc(host, 1000);
        host->free(host, p);
        host->free(host, NULL);
    }
    return values->value[TALK].number ? use_host(host, call) : T4_OK;
}

static const struct t4_engine_ops ops = {.size = sizeof ops};
static const struct t4_role roles[] = {
    {.kind = T4_ROLE_ENGINE, .name = "nothing", .ops = &ops},
    {.kind = T4_ROLE_AUTH, .name = "nobody", .ops = &ops},
};

const struct t4_plugin *
t4_plugin_v1(void)
{
    static const struct t4_plugin plugin = {
        T4_PLUGIN_HEAD("test_good", "0.1", 0),
        .license = "Apache-2.0",
        .summary = "for the loader's test",
        .options = options,
        .n_options = sizeof options / sizeof options[0],
        .roles = roles,
        .n_roles = sizeof roles / sizeof roles[0],
        .load = load,
    };

    return &plugin;
}
