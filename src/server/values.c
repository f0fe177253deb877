/*
 * values.c - reading and writing the values of flags.  See values.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/values.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

const char *
flag_value(const char *name, int argc, char *const *argv, int *i)
{
    size_t n = strlen(name);

    if (strncmp(argv[*i], name, n) != 0)
        return NULL;
    if (argv[*i][n] == '=')
        return argv[*i] + n + 1;
    if (argv[*i][n] != '\0')
        return NULL;
    return *i + 1 < argc ? argv[++*i] : "";
}

t4_status
flag_refuse(struct error *error, const char *flag, const char *value, const char *hint)
{
    if (value[0] == '\0')
        error_set(error, T4_E_INVALID, "a value is missing behind %s", flag);
    else
        error_set(error, T4_E_INVALID, "%s takes no \"%.128s\"", flag, value);
    return error_hint(error, "%s", hint);
}

struct unit {
    const char *name;
    int64_t factor;
};

/* --- numbers ------------------------------------------------------------------------ */

const char *
environment_value(char *const *environment, const char *name)
{
    size_t n = strlen(name);

    for (; *environment != NULL; environment++) {
        if (strncmp(*environment, name, n) == 0 && (*environment)[n] == '=')
            return (*environment)[n + 1] != '\0' ? *environment + n + 1 : NULL;
    }
    return NULL;
}

bool
value_parse_int(const char *text, int64_t *out)
{
    bool negative = text[0] == '-';
    const char *p = text + negative;
    int64_t v = 0;

    if (*p == '\0')
        return false;
    for (; *p != '\0'; p++) {
        if (*p < '0' || *p > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, *p - '0', &v))
            return false;
    }
    *out = negative ? -v : v;
    return true;
}

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/*
 * Digits with an optional fraction, then one of the units (the longest that fits); adds to
 * *sum.  Returns what follows, NULL if malformed.  Of the fraction nine digits count.
 */
static const char *
parse_quantity(const char *p, const struct unit *units, int64_t *sum)
{
    __int128 whole = 0, fraction = 0, scale = 1;
    const struct unit *unit = NULL;
    bool digits = false;

    for (; is_digit(*p); p++) {
        whole = whole * 10 + (*p - '0');
        digits = true;
        if (whole > INT64_MAX)
            return NULL;
    }
    if (*p == '.') {
        for (p++; is_digit(*p); p++) {
            digits = true;
            if (scale < 1000000000) {
                scale *= 10;
                fraction = fraction * 10 + (*p - '0');
            }
        }
    }
    if (!digits)
        return NULL;
    for (; units->name != NULL; units++) {
        size_t n = strlen(units->name);

        if (strncmp(p, units->name, n) == 0 && (unit == NULL || n > strlen(unit->name)))
            unit = units;
    }
    if (unit == NULL)
        return NULL;
    whole = whole * unit->factor + fraction * unit->factor / scale + *sum;
    if (whole > INT64_MAX)
        return NULL;
    *sum = (int64_t)whole;
    return p + strlen(unit->name);
}

#define KI INT64_C(1024)

bool
value_parse_size(const char *text, int64_t *out)
{
    static const struct unit units[] = {
        {"", 1},
        {"B", 1},
        {"k", KI},
        {"K", KI},
        {"kB", KI},
        {"KB", KI},
        {"KiB", KI},
        {"M", KI * KI},
        {"MB", KI * KI},
        {"MiB", KI * KI},
        {"G", KI * KI * KI},
        {"GB", KI * KI * KI},
        {"GiB", KI * KI * KI},
        {"T", KI * KI * KI * KI},
        {"TB", KI * KI * KI * KI},
        {"TiB", KI * KI * KI * KI},
        {NULL, 0},
    };
    int64_t v = 0;
    const char *end = parse_quantity(text, units, &v);

    if (end == NULL || *end != '\0')
        return false;
    *out = v;
    return true;
}

static const struct unit duration_units[] = {
    {"h", INT64_C(3600000000000)},
    {"m", INT64_C(60000000000)},
    {"s", INT64_C(1000000000)},
    {"ms", 1000000},
    {"us", 1000},
    {"\xc2\xb5s", 1000}, /* micro sign */
    {"\xce\xbcs", 1000}, /* Greek mu */
    {"ns", 1},
    {NULL, 0},
};

bool
value_parse_duration(const char *text, int64_t *out)
{
    const char *p = text;
    int64_t v = 0;

    if (strcmp(text, "0") == 0) {
        *out = 0;
        return true;
    }
    do {
        p = parse_quantity(p, duration_units, &v);
    } while (p != NULL && *p != '\0');
    if (p == NULL)
        return false;
    *out = v;
    return true;
}

bool
value_parse_bool(const char *text, int64_t *out)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};

    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *out = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

void
value_format_size(int64_t bytes, char *out, size_t n)
{
    static const char *const unit[] = {"", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;

    while (bytes != 0 && bytes % 1024 == 0 && u < 4) {
        bytes /= 1024;
        u++;
    }
    snprintf(out, n, "%" PRId64 "%s", bytes, unit[u]);
}

void
value_format_duration(int64_t ns, char *out, size_t n)
{
    const struct unit *u = duration_units;

    while (ns % u->factor != 0)
        u++;
    if (ns == 0)
        snprintf(out, n, "0");
    else
        snprintf(out, n, "%" PRId64 "%s", ns / u->factor, u->name);
}

/* --- addresses ---------------------------------------------------------------------- */

/* The host is a number or a name; decides whether other machines reach it. */
static const char *
classify_host(struct address *a, bool brackets)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (brackets) {
        if (inet_pton(AF_INET6, a->host, &v6) != 1)
            return "what stands in brackets is no IPv6 address";
        a->is_wildcard = IN6_IS_ADDR_UNSPECIFIED(&v6);
        a->is_private = IN6_IS_ADDR_LOOPBACK(&v6) ||
                        (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
        return NULL;
    }
    if (inet_pton(AF_INET, a->host, &v4) == 1) {
        a->is_wildcard = v4.s_addr == htonl(INADDR_ANY);
        a->is_private = ntohl(v4.s_addr) >> 24 == 127;
        return NULL;
    }
    if (a->host[strspn(a->host, "0123456789.")] == '\0')
        return "the host is no IPv4 address";
    for (const char *p = a->host; *p != '\0'; p++) {
        if (!is_digit(*p) && !(*p >= 'a' && *p <= 'z') && !(*p >= 'A' && *p <= 'Z') &&
            *p != '.' && *p != '-' && *p != '_')
            return "the host holds a character that host names do not have";
    }
    a->is_private = strcmp(a->host, "localhost") == 0;
    return NULL;
}

static const char *
parse_unix(const char *path, struct address *out)
{
    struct sockaddr_un un;

    if (strncmp(path, "//", 2) == 0)
        path += 2;
    if (*path == '\0')
        return "the path of the unix socket is missing";
    if (strlen(path) >= sizeof un.sun_path)
        return "the path of a unix socket has at most 107 bytes";
    snprintf(out->host, sizeof out->host, "%s", path);
    out->is_unix = out->is_private = true;
    return NULL;
}

const char *
address_parse(const char *text, struct address *out)
{
    const char *host = text, *end, *port;
    bool brackets = text[0] == '[';
    int64_t number;

    *out = (struct address){.fd = -1};
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(text + 5, out);
    if (strncmp(text, "http://", 7) == 0)
        return address_parse(text + 7, out);
    if (strstr(text, "://") != NULL)
        return "a URL begins with http:// or unix://; there is no TLS yet";
    if (brackets) {
        host++;
        end = strchr(host, ']');
        if (end == NULL || end[1] != ':')
            return "after [ there must be an IPv6 address, then ]:port";
        port = end + 2;
    } else {
        end = strrchr(text, ':');
        if (end == NULL)
            return "the port is missing";
        if (memchr(text, ':', (size_t)(end - text)) != NULL)
            return "write an IPv6 address in brackets";
        port = end + 1;
    }
    if (!is_digit(port[0]) || !value_parse_int(port, &number) || number < 1 ||
        number > 65535)
        return "the port is no number from 1 to 65535";
    snprintf(out->port, sizeof out->port, "%d", (int)number);
    if ((size_t)(end - host) >= sizeof out->host)
        return "the host name is too long";
    if (end == host)
        snprintf(out->host, sizeof out->host, "0.0.0.0");
    else
        snprintf(out->host, sizeof out->host, "%.*s", (int)(end - host), host);
    return classify_host(out, brackets);
}

void
address_format(const struct address *a, char *out, size_t n)
{
    bool v6 = strchr(a->host, ':') != NULL;

    if (a->is_unix)
        snprintf(out, n, "unix:%s", a->host);
    else
        snprintf(out, n, "%s%s%s:%s", v6 ? "[" : "", a->host, v6 ? "]" : "", a->port);
}
