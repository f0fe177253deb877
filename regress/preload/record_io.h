/*
 * record_io.h - the record that record_io.c writes and engine_crash.c reads.
 *
 * A record is this head, then `length` bytes: the path (RECORD_OPEN) or the data
 * (RECORD_WRITE).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef RECORD_IO_H
#define RECORD_IO_H

#include <stdint.h>

enum record_kind { RECORD_OPEN = 1, RECORD_WRITE, RECORD_SYNC, RECORD_TRUNCATE };

#define RECORD_SYNCED 1u /* a write through a descriptor opened with O_DSYNC or O_SYNC */

struct record {
    uint32_t kind, file; /* file: a number per path, in order of first opening */
    uint32_t flags, reserved;
    uint64_t offset, length;
};

#endif
