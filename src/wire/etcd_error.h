/*
 * etcd_error.h - the errors that clients see, listed once in etcd_errors.tbl.
 *
 * Clients map errors by the exact text, so texts and codes are etcd's (3.6).  Zero is
 * success.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef WIRE_ETCD_ERROR_H
#define WIRE_ETCD_ERROR_H

#include "base/error.h"

enum etcd_error {
    ETCD_OK = 0,
#define ETCD_ERROR(id, code, text) ETCD_##id,
#include "wire/etcd_errors.tbl"
#undef ETCD_ERROR
    ETCD_ERROR_COUNT
};

int etcd_error_code(enum etcd_error e);         /* gRPC status code, 0 for ETCD_OK */
const char *etcd_error_text(enum etcd_error e); /* "etcdserver: ..."; "" for ETCD_OK */
/* What a read that ended with this status of the storage engine tells the client; NOTFOUND is OK. */
enum etcd_error etcd_read_error(t4_status status);

#endif
