/*
 * descriptors.h - the limit of open files, and how many connections it leaves room for.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_DESCRIPTORS_H
#define SERVER_DESCRIPTORS_H

#include <stdint.h>

#include "base/error.h"

/*
 * Raises the limit to what the user may have, and sets *max to the number of connections:
 * `wanted`, or with 0 what the limit has room for.  INVALID: the limit is too low, for anything
 * or for what is wanted.  Main thread, at start.
 */
t4_status descriptors_plan(int64_t wanted, uint32_t *max, struct error *error);

#endif
