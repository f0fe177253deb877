/*
 * txn_command.c - t4 txn: a transaction out of the lines of the standard input.
 *
 * Three parts, each ended by an empty line: conditions, requests if all hold, requests if not.
 * The syntax is etcdctl's.  Nothing is sent before all three have been read, so an input that
 * is cut off does nothing.
 *
 * Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "server/client_command.h"
#include "server/kv_words.h"
#include "server/quoted.h"
#include "server/run.h"
#include "server/values.h"

#define MAX_LINE ((size_t)64 << 20)

static const char usage[] =
    "t4 txn - several conditions and requests as one\n"
    "\n"
    "Usage: t4 txn [--FLAG=VALUE]... < LINES\n"
    "\n"
    "The standard input has three parts, each ended by an empty line: conditions, the "
    "requests\n"
    "when all of them hold, the requests when one does not:\n"
    "\n"
    "  value(\"KEY\") = \"TEXT\"     also version, create, mod (numbers), lease "
    "(hexadecimal);\n"
    "                            = != < >\n"
    "  put KEY VALUE, get KEY, del KEY, with the flags of these commands\n"
    "\n"
    "  -i, --interactive     say which part is wanted\n" CLIENT_HELP;

void
txn_command_help(FILE *out)
{
    fputs(usage, out);
}

struct transaction {
    struct client_session *s;
    bool interactive;
    Etcdserverpb__Compare **compare;
    size_t n_compare;
    Etcdserverpb__RequestOp **part[2];
    size_t n_part[2];
};

/* --- conditions ---------------------------------------------------------------------------- */

static t4_status
malformed(struct error *error, const char *line, const char *why)
{
    error_set(error, T4_E_INVALID, "malformed comparison: %.200s (%s)", line, why);
    return error_hint(error, "it is written value(\"key\") = \"text\"");
}

static const struct {
    const char *name, *other;
    Etcdserverpb__Compare__CompareTarget target;
    Etcdserverpb__Compare__TargetUnionCase member;
} targets[] = {
    {"ver", "version", ETCDSERVERPB__COMPARE__COMPARE_TARGET__VERSION,
     ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION},
    {"c", "create", ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE,
     ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION},
    {"m", "mod", ETCDSERVERPB__COMPARE__COMPARE_TARGET__MOD,
     ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION},
    {"val", "value", ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE,
     ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE},
    {"lease", "lease", ETCDSERVERPB__COMPARE__COMPARE_TARGET__LEASE,
     ETCDSERVERPB__COMPARE__TARGET_UNION_LEASE},
};

static t4_status
set_target(Etcdserverpb__Compare *c, const char *line, const char *name, size_t n,
           const struct buffer *value, struct error *error)
{
    const char *text = (const char *)value->data; /* NUL behind it */
    size_t i = 0;
    bool good = true;

    while (i < sizeof targets / sizeof targets[0] &&
           (strlen(targets[i].name) != n || memcmp(targets[i].name, name, n) != 0) &&
           (strlen(targets[i].other) != n || memcmp(targets[i].other, name, n) != 0))
        i++;
    if (i == sizeof targets / sizeof targets[0])
        return malformed(error, line,
                         "it begins with value, version, create, mod or lease");
    c->target = targets[i].target;
    c->target_union_case = targets[i].member;
    if (c->target == ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE)
        c->value = (ProtobufCBinaryData){value->len - 1, value->data};
    else if (c->target == ETCDSERVERPB__COMPARE__COMPARE_TARGET__LEASE)
        good = word_parse_id(text, &c->lease);
    else
        good = value_parse_int(text, &c->version); /* the others are at the same place */
    return good ? T4_OK : malformed(error, line, "a number is wanted in the last quotes");
}

static bool
set_result(Etcdserverpb__Compare *c, const char *op, size_t n)
{
    static const char *const results[] = {"=", ">", "<", "!="}; /* the API's numbers */

    for (int i = 0; i < 4; i++)
        if (strlen(results[i]) == n && memcmp(results[i], op, n) == 0) {
            c->result = (Etcdserverpb__Compare__CompareResult)i;
            return true;
        }
    return false;
}

/* A quoted text at *p, which is moved behind it; of the pool, with a NUL behind it. */
static bool
take_quoted(struct pool *pool, const char **p, struct buffer *out)
{
    struct buffer text = {0};
    bool good = quoted_append(&text, p);

    buffer_append_u8(&text, 0);
    out->data = pool_alloc(pool, text.len);
    memcpy(out->data, text.data, text.len);
    out->len = text.len;
    buffer_free(&text);
    return good;
}

static t4_status
read_compare(struct transaction *t, const char *line, struct error *error)
{
    struct pool *pool = &t->s->pool;
    Etcdserverpb__Compare *c = pool_alloc(pool, sizeof *c);
    const char *parenthesis = strchr(line, '('), *p, *op;
    struct buffer key, value;
    size_t n;
    t4_status status;

    etcdserverpb__compare__init(c);
    if (parenthesis == NULL)
        return malformed(error, line, "there is no parenthesis");
    p = parenthesis + 1;
    if (!take_quoted(pool, &p, &key) || *p != ')')
        return malformed(error, line, "the key stands in quotes and parentheses");
    p += 1 + strspn(p + 1, " \t");
    op = p;
    n = strspn(p, "=!<>");
    p += n;
    p += strspn(p, " \t");
    if (!set_result(c, op, n))
        return malformed(error, line, "behind the key comes =, !=, < or >");
    if (!take_quoted(pool, &p, &value) || *p != '\0')
        return malformed(error, line, "what is compared with stands in quotes, and last");
    c->key = (ProtobufCBinaryData){key.len - 1, key.data};
    status = set_target(c, line, line, (size_t)(parenthesis - line), &value, error);
    if (status != T4_OK)
        return status;
    t->compare = mem_realloc(t->compare, (t->n_compare + 1) * sizeof *t->compare);
    t->compare[t->n_compare++] = c;
    return T4_OK;
}

/* --- requests -------------------------------------------------------------------------------- */

static t4_status
make_put(struct pool *pool, int argc, char *const *argv, Etcdserverpb__RequestOp *op,
         struct error *error)
{
    struct put_flags f = {0};
    const struct word_flag flags[] = {PUT_FLAGS(&f)};
    struct words w;
    t4_status status =
        words_parse(flags, sizeof flags / sizeof flags[0], argc, argv, pool, &w, error);

    if (status != T4_OK)
        return status;
    if (w.n == 1 && !f.ignore_value) { /* the standard input is the transaction */
        error_set(error, T4_E_INVALID, "put has no value");
        return error_hint(error, "write put KEY VALUE");
    }
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    op->request_put = pool_alloc(pool, sizeof *op->request_put);
    return put_request_make(&f, &w, pool, op->request_put, error);
}

static t4_status
make_get(struct pool *pool, int argc, char *const *argv, Etcdserverpb__RequestOp *op,
         struct error *error)
{
    struct get_flags f = {0};
    const struct word_flag flags[] = {GET_FLAGS(&f)};
    struct words w;
    t4_status status =
        words_parse(flags, sizeof flags / sizeof flags[0], argc, argv, pool, &w, error);

    if (status != T4_OK)
        return status;
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
    op->request_range = pool_alloc(pool, sizeof *op->request_range);
    return get_request_make(&f, &w, pool, op->request_range, error);
}

static t4_status
make_del(struct pool *pool, int argc, char *const *argv, Etcdserverpb__RequestOp *op,
         struct error *error)
{
    struct del_flags f = {0};
    const struct word_flag flags[] = {DEL_FLAGS(&f)};
    struct words w;
    t4_status status =
        words_parse(flags, sizeof flags / sizeof flags[0], argc, argv, pool, &w, error);

    if (status != T4_OK)
        return status;
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
    op->request_delete_range = pool_alloc(pool, sizeof *op->request_delete_range);
    return del_request_make(&f, &w, pool, op->request_delete_range, error);
}

static t4_status
read_request(struct transaction *t, int part, const char *line, struct error *error)
{
    static const struct {
        const char *name;
        t4_status (*make)(struct pool *pool, int argc, char *const *argv,
                          Etcdserverpb__RequestOp *op, struct error *error);
    } request[] = {{"put", make_put}, {"get", make_get}, {"del", make_del}};
    struct pool *pool = &t->s->pool;
    Etcdserverpb__RequestOp *op = pool_alloc(pool, sizeof *op), ***list = &t->part[part];
    char **argv;
    int argc;
    t4_status status;

    etcdserverpb__request_op__init(op);
    if (!quoted_split(pool, line, &argv, &argc)) {
        error_set(error, T4_E_INVALID, "a quoted text is malformed in: %.200s", line);
        return error_hint(error, "it is written as in Go: \"a\\nb\\x00\"");
    }
    for (size_t i = 0; argc > 0 && i < 3; i++) {
        if (strcmp(argv[0], request[i].name) != 0)
            continue;
        status = request[i].make(pool, argc - 1, argv + 1, op, error);
        if (status != T4_OK) {
            error_wrap(error, "%.200s", line);
            return status;
        }
        *list = mem_realloc(*list, (t->n_part[part] + 1) * sizeof **list);
        (*list)[t->n_part[part]++] = op;
        return T4_OK;
    }
    error_set(error, T4_E_INVALID, "invalid txn request: %.200s", line);
    return error_hint(error, "it begins with put, get or del");
}

/* --- reading ----------------------------------------------------------------------------------- */

/* A line without the blanks around it, in *line; false: there is no whole one any more. */
static bool
next_line(char **line, size_t *capacity, char **text)
{
    ssize_t n = getline(line, capacity, stdin);
    char *end;

    if (n <= 0 || (*line)[n - 1] != '\n' || (size_t)n > MAX_LINE ||
        strlen(*line) != (size_t)n)
        return false;
    end = *line + n;
    while (end > *line && strchr(" \t\r\n\v\f", end[-1]) != NULL)
        *--end = '\0';
    *text = *line + strspn(*line, " \t\r\v\f");
    return true;
}

static t4_status
read_part(struct transaction *t, int part, struct error *error)
{
    static const char *const prompt[] = {"compares:", "success requests (get, put, del):",
                                         "failure requests (get, put, del):"};
    char *line = NULL, *text;
    size_t capacity = 0;
    t4_status status = T4_OK;

    if (t->interactive)
        puts(prompt[part]);
    fflush(stdout);
    for (;;) {
        if (!next_line(&line, &capacity, &text)) {
            status = error_set(error, T4_E_INVALID, "the input ended within the %s part",
                               part == 0   ? "first"
                               : part == 1 ? "second"
                                           : "third");
            error_hint(error, "conditions, requests if they hold, requests if not: each "
                              "part ends with an empty line; nothing was done");
            break;
        }
        if (*text == '\0')
            break;
        status = part == 0 ? read_compare(t, text, error)
                           : read_request(t, part - 1, text, error);
        if (status != T4_OK)
            break;
    }
    free(line);
    return status;
}

static int
send(struct transaction *t)
{
    Etcdserverpb__TxnRequest request = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__TxnResponse *answer;

    request.compare = t->compare;
    request.n_compare = t->n_compare;
    request.success = t->part[0];
    request.n_success = t->n_part[0];
    request.failure = t->part[1];
    request.n_failure = t->n_part[1];
    answer = client_session_ask(t->s, "/etcdserverpb.KV/Txn", &request,
                                &etcdserverpb__txn_response__descriptor);
    if (answer == NULL)
        return EXIT_FAILED;
    print_txn(&t->s->style, answer);
    client_free_answer(answer);
    return EXIT_OK;
}

static int
transact(struct transaction *t)
{
    struct error error = {0};
    t4_status status = T4_OK;
    int code;

    if (t->s->words.n > 0)
        return client_misused(t->s, "the transaction stands on the standard input",
                              "it takes no \"%.64s\"", t->s->words.word[0]);
    for (int part = 0; part < 3 && status == T4_OK; part++)
        status = read_part(t, part, &error);
    if (status != T4_OK)
        return client_complain(t->s, &error, EXIT_USAGE);
    code = client_session_connect(t->s);
    return code == EXIT_OK ? send(t) : code;
}

int
txn_command(int argc, char *const *argv, char *const *environment)
{
    struct transaction t = {0};
    const struct word_flag flags[] = {{"interactive", 'i', WORD_SWITCH, &t.interactive}};
    struct client_session s;
    int status = client_session_read(&s, "txn", flags, 1, usage, argc, argv, environment);

    t.s = &s;
    if (status == EXIT_OK && !s.done)
        status = transact(&t);
    mem_free(t.compare);
    mem_free(t.part[0]);
    mem_free(t.part[1]);
    client_session_end(&s);
    return status;
}
