/*
 * gcs_json_fuzz.c - whatever Google's servers, or somebody in their place, send as JSON: the
 * plugin reads it within bounds and lets nothing through that it must not use.
 *
 * Says of every input: tags are generations, names are not empty, texts for messages hold no
 * control characters, tokens can stand in a header line, marks and fields keep their limits,
 * and a failed reading leaves nothing behind.
 *
 * libFuzzer:   clang -fsanitize=fuzzer,address -I src/include -I plugins -I plugins/gcs
 *              gcs_json_fuzz.c plugins/gcs/json.c plugins/http_common/http_text.c -ljansson
 * alone:       gcc -DFUZZ_ALONE ...; then gcs_json_fuzz [rounds [seed]] mutates answers of its
 *              own making, or runs the files it is given.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must_be_info(const struct t4_object_info *info)
{
    MUST(info->tag_length > 0 && info->tag_length <= GCS_MAX_TAG);
    MUST(json_is_generation(
        (struct t4_slice){(const uint8_t *)info->tag, info->tag_length}));
    MUST(info->length <= INT64_MAX);
}

static void
must_be_printable(const char *text, size_t size)
{
    size_t n = strnlen(text, size);

    MUST(n < size);
    for (size_t i = 0; i < n; i++)
        MUST((unsigned char)text[i] >= ' ' && text[i] != 0x7f);
}

static t4_status
on_item(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    volatile uint8_t sum = 0;

    MUST(key.len > 0);
    for (size_t i = 0; i < key.len; i++)
        sum ^= key.data[i];
    must_be_info(info);
    return --*(int *)arg > 0 ? T4_OK : T4_E_CANCELLED;
}

static void
try_credentials(struct t4_slice text)
{
    struct gcs_credentials c;
    const char *why = NULL;

    if (json_credentials(text, &c, &why) == T4_OK) {
        MUST(c.token_uri.len > 0 && c.token_uri.len <= GCS_MAX_FIELD);
        MUST(c.type == GCS_SERVICE_ACCOUNT ? c.private_key.len > 0
                                           : c.refresh_token.len > 0);
        gcs_credentials_wipe(&c);
    } else {
        MUST(why != NULL);
    }
    MUST(c.token_uri.data == NULL && c.private_key.data == NULL &&
         c.client_id.data == NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t *exact = malloc(n > 0 ? n : 1); /* so that ASan sees a read past the end */
    struct t4_slice text = {exact, n};
    struct t4_object_info info;
    struct gcs_refusal refusal;
    struct http_bytes bytes = {0};
    int64_t seconds = 0;
    int items = n > 0 && data[0] % 8 == 0 ? 2 : 1000;
    t4_status st;

    MUST(exact != NULL);
    if (n > 0)
        memcpy(exact, data, n);
    if (json_object_info(text, &info))
        must_be_info(&info);
    st = json_list_page(text, on_item, &items, &bytes);
    MUST(st == T4_OK || st == T4_E_CORRUPT || st == T4_E_CANCELLED);
    MUST(bytes.len <= GCS_MAX_PAGE_TOKEN);
    http_bytes_free(&bytes);
    json_refusal(text, &refusal);
    must_be_printable(refusal.reason, sizeof refusal.reason);
    must_be_printable(refusal.message, sizeof refusal.message);
    if (json_access_token(text, &bytes, &seconds)) {
        MUST(bytes.len > 0 && bytes.len <= GCS_MAX_TOKEN && seconds > 0);
        for (size_t i = 0; i < bytes.len; i++)
            MUST(bytes.data[i] > ' ' && bytes.data[i] < 0x7f);
    }
    http_bytes_wipe(&bytes);
    try_credentials(text);
    (void)http_parse_date(text);
    (void)http_parse_timestamp(text);
    free(exact);
    return 0;
}

#ifdef FUZZ_ALONE
static const char *const seeds[] = {
    "{\"kind\":\"storage#object\",\"generation\":\"1795231293491721\",\"size\":\"100\","
    "\"updated\":\"2026-11-21T03:21:33.483Z\"}",
    "{\"nextPageToken\":\"bWFyaw==\",\"items\":[{\"name\":\"wal/"
    "0001\",\"generation\":\"12\","
    "\"size\":\"0\",\"updated\":\"2026-11-21T03:21:33+01:00\"},{\"name\":\"wal/\\u00e4\","
    "\"generation\":\"9223372036854775807\",\"size\":\"5368709120\"}]}",
    "{\"error\":{\"code\":412,\"message\":\"Precondition\\nfailed\",\"errors\":[{"
    "\"reason\":"
    "\"conditionNotMet\",\"domain\":\"global\"}]}}",
    "{\"error\":\"invalid_grant\",\"error_description\":\"Invalid JWT Signature.\"}",
    "{\"access_token\":\"ya29.c.b0Aaekm1K\",\"expires_in\":3599,\"token_type\":"
    "\"Bearer\"}",
    "{\"type\":\"service_account\",\"client_email\":\"a@b\",\"private_key_id\":\"1\","
    "\"private_key\":\"-----BEGIN\",\"token_uri\":\"https://t\"}",
    "{\"type\":\"authorized_user\",\"client_id\":\"1\",\"client_secret\":\"2\","
    "\"refresh_token\":\"3\"}",
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "1994-11-06T08:49:37.123456Z",
};
static const char *const pieces[] = {"\"",
                                     "{",
                                     "}",
                                     "[",
                                     "]",
                                     ",",
                                     ":",
                                     "0",
                                     "-1",
                                     "null",
                                     "18446744073709551616",
                                     "\\u0000",
                                     "\\ud800",
                                     "\xff",
                                     "\"generation\":\"0\"",
                                     "\"items\":",
                                     "\"error\":",
                                     "1e999",
                                     "\"access_token\":\"a\\r\\nb\""};

static uint64_t state = 1;

static uint64_t
below(uint64_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 24) % n;
}

static size_t
make(char *out, size_t room)
{
    const char *seed = seeds[below(sizeof seeds / sizeof seeds[0])];
    size_t n = strlen(seed);

    memcpy(out, seed, n);
    for (uint64_t k = below(5); k > 0 && n > 0; k--) {
        const char *piece = pieces[below(sizeof pieces / sizeof pieces[0])];
        size_t at = below(n), length = strlen(piece);

        switch (below(4)) {
        case 0: out[at] = (char)below(256); break;
        case 1: n = at; break;
        case 2:
            memmove(out + at, out + at + 1, n - at - 1);
            n--;
            break;
        case 3:
            if (n + length < room) {
                memmove(out + at + length, out + at, n - at);
                memcpy(out + at, piece, length);
                n += length;
            }
            break;
        }
    }
    return n;
}

static int
run_file(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *f = fopen(path, "rb");

    if (f == NULL) {
        perror(path);
        return 1;
    }
    LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof data, f));
    fclose(f);
    return 0;
}

int
main(int argc, char **argv)
{
    char text[4096], *end = NULL;
    unsigned long rounds = argc > 1 ? strtoul(argv[1], &end, 10) : 200000;

    if (end != NULL && *end != '\0') { /* no number: files */
        for (int i = 1; i < argc; i++)
            if (run_file(argv[i]) != 0)
                return 1;
        return 0;
    }
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (unsigned long i = 0; i < rounds; i++)
        LLVMFuzzerTestOneInput((const uint8_t *)text, make(text, sizeof text));
    printf("%lu texts\n", rounds);
    return 0;
}
#endif
