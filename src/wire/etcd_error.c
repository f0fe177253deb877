/*
 * etcd_error.c - codes and texts of the errors that clients see.  See etcd_error.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "wire/etcd_error.h"

static const struct {
    int code;
    const char *text;
} errors[ETCD_ERROR_COUNT] = {
    [ETCD_OK] = {0, ""},
#define ETCD_ERROR(id, code, text) [ETCD_##id] = {code, text},
#include "wire/etcd_errors.tbl"
#undef ETCD_ERROR
};

int
etcd_error_code(enum etcd_error e)
{
    return errors[e].code;
}

const char *
etcd_error_text(enum etcd_error e)
{
    return errors[e].text;
}

enum etcd_error
etcd_read_error(t4_status status)
{
    switch (status) {
    case T4_OK:
    case T4_E_NOTFOUND: return ETCD_OK;
    case T4_E_NOMEM: return ETCD_ENGINE_NO_MEMORY;
    default: return ETCD_READ_FAILED;
    }
}
