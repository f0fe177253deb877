/*
 * keepalives.h - leases kept alive over streams, one on each connection.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAD_KEEPALIVES_H
#define LOAD_KEEPALIVES_H

#include "loop.h"

/*
 * Keeps the leases alive that were granted, for so many operations or seconds, in_flight at a
 * time on each stream, of each lease one.  An answer without a time, or for another lease, is a
 * failure.
 */
void keepalives_run(const struct settings *s, const struct requests *q,
                    struct result *result);

#endif
