/*
 * descriptors.c - see descriptors.h.
 *
 * Found out at start, so that a server does not meet the limit when the log needs its next
 * file.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/descriptors.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

#include "base/log.h"

#define RESERVED 256u /* log, storage engine, requests to the object store, libraries */
#define LEAST 64u     /* connections that a server is of use with */
#define FEW 1024u     /* fewer are probably not meant */
#define MOST 65536u   /* by default: so many idle ones take about 1.5 GiB */

static t4_status
too_few(uint64_t limit, uint64_t connections, struct error *error)
{
    error_set(error, T4_E_INVALID,
              "the limit of open files is %" PRIu64 ", and %" PRIu64
              " are needed: %u for files, and one for each of %" PRIu64 " connections",
              limit, RESERVED + connections, RESERVED, connections);
    return error_hint(error,
                      "raise it: ulimit -n %" PRIu64
                      " before the start, or LimitNOFILE=%" PRIu64
                      " in the unit of systemd",
                      RESERVED + connections, RESERVED + connections);
}

t4_status
descriptors_plan(int64_t wanted, uint32_t *max, struct error *error)
{
    struct rlimit limit = {1024, 1024};
    uint64_t n, room;
    char text[24];

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        rlim_t before = limit.rlim_cur;

        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
            limit.rlim_cur = before;
    }
    n = limit.rlim_cur == RLIM_INFINITY ? UINT32_MAX : (uint64_t)limit.rlim_cur;
    room = n > RESERVED ? n - RESERVED : 0;
    if (room < LEAST)
        return too_few(n, LEAST, error);
    if (wanted > 0 && (uint64_t)wanted > room)
        return too_few(n, (uint64_t)wanted, error);
    *max = wanted > 0 ? (uint32_t)wanted : room < MOST ? (uint32_t)room : MOST;
    if (wanted == 0 && room < FEW) {
        snprintf(text, sizeof text, "%" PRIu64, room);
        LOG_WARN(
            "the limit of open files leaves room for few connections", "connections",
            text, "remedy",
            "raise it: ulimit -n 65536 before the start, or LimitNOFILE=65536 in the "
            "unit of systemd",
            NULL);
    }
    return T4_OK;
}
