/*
 * error.c - statuses and words of the library's errors.
 *
 * The node answers in etcd's errors (wire/etcd_errors.tbl); here each becomes a status of t4.h
 * with words that do not speak of a server.
 *
 * Entry points: t4_status_text(), lib_fail*().  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "lib/lib_int.h"

const char *
t4_status_text(t4_status status)
{
    switch (status) {
    case T4_DONE: return "done";
    case T4_E_COMPACTED: return "compacted";
    case T4_E_FUTURE: return "future revision";
    case T4_E_CLOSED: return "closed";
    default: return status_text(status);
    }
}

static void
copy_text(char *to, size_t n, const char *from)
{
    size_t length = strnlen(from, n - 1);

    memcpy(to, from, length);
    to[length] = '\0';
}

t4_status
lib_fail(t4_error *error, t4_status status, const char *message, const char *hint)
{
    if (error != NULL) {
        error->status = status;
        copy_text(error->message, sizeof error->message, message);
        copy_text(error->hint, sizeof error->hint, hint);
    }
    return status;
}

t4_status
lib_fail_internal(t4_error *error, const struct error *from)
{
    return lib_fail(error, from->status, from->message, from->hint);
}

struct meaning {
    enum etcd_error error;
    t4_status status;
    const char *message, *hint;
};

static const struct meaning meanings[] = {
    {ETCD_EMPTY_KEY, T4_E_INVALID, "the key is empty", "a key has 1 byte to 16 KiB"},
    {ETCD_KEY_TOO_LONG, T4_E_INVALID, "the key is too long",
     "a key has 1 byte to 16 KiB"},
    {ETCD_KEY_NOT_FOUND, T4_E_NOTFOUND,
     "there is no such key to keep the value or the lease of",
     "put it without T4_IGNORE_VALUE and T4_IGNORE_LEASE"},
    {ETCD_VALUE_PROVIDED, T4_E_INVALID, "a value was given together with T4_IGNORE_VALUE",
     "give an empty one"},
    {ETCD_LEASE_PROVIDED, T4_E_INVALID, "a lease was given together with T4_IGNORE_LEASE",
     "give 0"},
    {ETCD_TOO_MANY_OPS, T4_E_INVALID, "the transaction has too many operations",
     "split it, or set the option max_txn_ops"},
    {ETCD_DUPLICATE_KEY, T4_E_INVALID,
     "a key is put twice in one branch of the transaction", "keep the last one of them"},
    {ETCD_INVALID_SORT_OPTION, T4_E_INVALID, "sort_by is not one of T4_SORT_*", ""},
    {ETCD_REQUEST_TOO_LARGE, T4_E_INVALID, "the request is too large",
     "split it, or set the option max_request_bytes"},
    {ETCD_COMPACTED, T4_E_COMPACTED, "the revision was compacted",
     "read at a newer revision: t4_get_info() gives the compacted one"},
    {ETCD_FUTURE_REVISION, T4_E_FUTURE, "the revision does not exist yet",
     "read at revision 0, the newest"},
    {ETCD_LEASE_TTL_TOO_LARGE, T4_E_INVALID, "the lease's time to live is too large",
     "at most 9,000,000,000 seconds"},
    {ETCD_NO_SPACE, T4_E_NOSPACE, "the disk is full; writes are refused",
     "free space on the file system of the data directory; reads and deletes go on (an "
     "alarm of a server's quota is taken down by etcdctl alarm disarm)"},
    {ETCD_CORRUPT, T4_E_CORRUPT, "the alarm CORRUPT is raised in this directory",
     "t4 verify looks at the store; a server's etcdctl alarm disarm takes it down"},
    {ETCD_DEFRAGMENT_NO_SPACE, T4_E_NOSPACE,
     "there is no room for a smaller copy of the storage engine's file",
     "the log has the numbers"},
    {ETCD_DEFRAGMENT_FAILED, T4_E_IO,
     "the storage engine could not be defragmented, and is as it was", "see the log"},
    {ETCD_TOO_MANY_REQUESTS, T4_E_BUSY, "too much is under way", "try again"},
    {ETCD_LEASE_NOT_FOUND, T4_E_NOTFOUND, "there is no such lease",
     "it has ended or was revoked: grant one"},
    {ETCD_LEASE_EXISTS, T4_E_EXISTS, "the lease exists already",
     "give the number 0: one is chosen"},
    {ETCD_NO_LEADER, T4_E_UNAVAILABLE,
     "this database does not lead: its object store does not answer, or another process "
     "has taken it over",
     "the log says which; old state can be read with T4_SERIALIZABLE"},
    {ETCD_STOPPED, T4_E_CLOSED, "the database is closed", ""},
    {ETCD_TIMEOUT, T4_E_TIMEOUT, "the request timed out", "try again"},
    {ETCD_NESTING_TOO_DEEP, T4_E_INVALID, "transactions are nested too deep",
     "at most 32 levels"},
    {ETCD_BACKLOG_FULL, T4_E_BUSY, "too much uncommitted work, the write was not applied",
     "try again when some of it is answered"},
    {ETCD_DURABILITY_UNREACHABLE, T4_E_INVALID,
     "T4_OBJECT_DURABLE without an object store", "set the option object_store"},
    {ETCD_UNKNOWN_OUTCOME, T4_E_UNKNOWN,
     "the database stopped before the outcome of the write was known",
     "open it again and read: the write happened as a whole or not at all"},
    {ETCD_NOT_HYDRATED, T4_E_UNAVAILABLE,
     "the object store did not give in time what this disk does not hold yet",
     "try again"},
    {ETCD_DATA_MISSING, T4_E_CORRUPT,
     "an object of the checkpoint is missing or damaged; the log names it",
     "t4 verify looks at the whole store"},
    {ETCD_READ_FAILED, T4_E_IO, "the storage engine failed to read", "see the log"},
    {ETCD_ENGINE_NO_MEMORY, T4_E_NOMEM,
     "the storage engine had no memory for the call, which changed nothing", "try again"},
};

t4_status
lib_fail_request(t4_error *error, enum etcd_error e)
{
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (meanings[i].error == e)
            return lib_fail(error, meanings[i].status, meanings[i].message,
                            meanings[i].hint);
    return lib_fail(error, T4_E_INTERNAL, etcd_error_text(e), "");
}
