/*
 * test_gate.c - a plugin whose load() waits at a FIFO, then fails.
 *
 * With it a test can look at a server that is starting, for as long as it likes, and then at
 * what the server says when a start fails: --storage-engine=test_gate
 * --plugin-option=test_gate.fifo=PATH.  load() returns when the test has opened the FIFO for
 * writing and closed it again.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "t4_plugin.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static t4_status
gate_load(const struct t4_host *host, struct t4_call *call,
          const struct t4_values *values, void **plugin)
{
    char path[1024], byte;
    int fd;

    *plugin = NULL;
    snprintf(path, sizeof path, "%.*s", (int)values->value[0].text.len,
             (const char *)values->value[0].text.data);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return host->fail(call, T4_E_IO, "the FIFO cannot be opened", path, NULL);
    while (read(fd, &byte, 1) > 0)
        ;
    close(fd);
    return host->fail(call, T4_E_UNAVAILABLE, "the gate was opened", NULL,
                      "this plugin has nothing to offer");
}

static const struct t4_option options[] = {
    {.name = "fifo",
     .type = T4_OPTION_STRING,
     .flags = T4_OPTION_REQUIRED,
     .doc = "path of the FIFO to wait at"},
};

/* Never used: load() fails. */
static const struct t4_engine_ops ops = {.size = sizeof ops};
static const struct t4_role roles[] = {
    {.kind = T4_ROLE_ENGINE, .name = "test_gate", .ops = &ops},
};

const struct t4_plugin *
t4_plugin_v1(void)
{
    static const struct t4_plugin descriptor = {
        T4_PLUGIN_HEAD("test_gate", "0.1", 0),
        .license = "Apache-2.0",
        .summary = "waits at a FIFO while it is loaded",
        .options = options,
        .n_options = 1,
        .roles = roles,
        .n_roles = 1,
        .load = gate_load,
    };

    return &descriptor;
}
