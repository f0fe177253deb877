/*
 * s3_xml_fuzz.c - whatever a server sends in place of S3's XML, heads and JSON, or somebody has
 * written into a settings file: the plugin reads it within bounds.
 *
 * Says of every input: keys of a list are not empty and lie inside of what was read, tags can
 * stand in a header line, texts for messages hold no control characters, single texts fit, a
 * failed reading leaves nothing that is not freed, and what was escaped is read back as it was.
 *
 * libFuzzer:   clang -fsanitize=fuzzer,address -I src/include -I plugins -I plugins/s3
 *              -I /usr/include/libxml2 s3_xml_fuzz.c plugins/s3/{xml,text,files}.c
 *              plugins/http_common/http_text.c -lxml2 -ljansson
 * alone:       gcc -DFUZZ_ALONE ...; then s3_xml_fuzz [rounds [seed]] mutates documents of its
 *              own making, or runs the files it is given.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "must.h"
#include "xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must_be_header(const char *text, size_t room)
{
    size_t n = strnlen(text, room);

    MUST(n < room);
    MUST(text_is_header(text, n));
}

static void
try_list(struct t4_slice input)
{
    struct xml_list l;
    t4_status st = xml_list(input, &l);

    MUST(st == T4_OK || st == T4_E_CORRUPT || st == T4_E_NOMEM);
    MUST(l.n <= XML_LIST_MOST);
    for (size_t i = 0; i < l.n && st == T4_OK; i++) {
        MUST(l.object[i].key_length > 0);
        MUST(l.object[i].key <= l.keys.length);
        MUST(l.object[i].key_length <= l.keys.length - l.object[i].key);
        must_be_header(l.object[i].tag, sizeof l.object[i].tag);
    }
    xml_list_free(&l);
}

static void
try_rest(struct t4_slice input)
{
    static struct xml_removed removed;
    char id[64], tag[TEXT_TAG_ROOM], value[32];
    struct xml_want want[] = {
        {"InitiateMultipartUploadResult/UploadId", id, sizeof id, false},
        {"CompleteMultipartUploadResult/ETag", tag, sizeof tag, false},
    };
    struct text_head head;
    struct xml_error e;
    bool found;
    t4_status st;

    xml_error(input, &e);
    must_be_header(e.code, sizeof e.code);
    must_be_header(e.message, sizeof e.message);
    must_be_header(e.region, sizeof e.region);
    if (xml_removed(input, &removed) && removed.failed > 0) {
        must_be_header(removed.key, sizeof removed.key);
        must_be_header(removed.error.code, sizeof removed.error.code);
    }
    xml_texts(input, want, 2);
    must_be_header(id, sizeof id);
    must_be_header(tag, sizeof tag);
    text_head(&head, input);
    must_be_header(head.tag, sizeof head.tag);
    must_be_header(head.region, sizeof head.region);
    must_be_header(head.request_id, sizeof head.request_id);
    MUST(!head.has_range || head.first <= head.last);
    st = text_setting(input, "default", true, "region", value, sizeof value, &found);
    MUST(st == T4_OK || st == T4_E_NOTFOUND || st == T4_E_INVALID);
    MUST(!found || strlen(value) < sizeof value);
    if (text_json_string(input, "Token", value, sizeof value))
        MUST(strlen(value) < sizeof value);
}

/* What xml_escape() takes, xml_texts() gives back. */
static void
try_round_trip(struct t4_slice input)
{
    static char out[8192];
    struct str document = {0};
    struct xml_want want = {"a", out, sizeof out, false};

    str_addz(&document, "<a>");
    if (input.len < sizeof out && xml_escape(&document, input)) {
        str_addz(&document, "</a>");
        MUST(xml_texts(text_slice(document.data, document.length), &want, 1));
        MUST(want.found && strlen(out) == input.len);
        MUST(input.len == 0 || memcmp(out, input.data, input.len) == 0);
    }
    str_free(&document);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t *exact = malloc(n > 0 ? n : 1); /* so that ASan sees a read past the end */
    struct t4_slice input = {exact, n};

    MUST(exact != NULL);
    if (n > 0)
        memcpy(exact, data, n);
    xml_init();
    try_list(input);
    try_rest(input);
    try_round_trip(input);
    free(exact);
    return 0;
}

#ifdef FUZZ_ALONE
static const char *const documents[] = {
    "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3\"><IsTruncated>true"
    "</IsTruncated><EncodingType>url</EncodingType><Contents><Key>a%2Bb+c</"
    "Key><LastModified>"
    "2009-10-12T17:50:30.123Z</LastModified><ETag>&quot;x&quot;</ETag><Size>434234</Size>"
    "</Contents><NextContinuationToken>t</NextContinuationToken></ListBucketResult>",
    "<Error><Code>NoSuchKey</Code><Message>a "
    "&lt;b&gt;</Message><Region>eu</Region></Error>",
    "<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code><Message>m</Message></"
    "Error>"
    "</DeleteResult>",
    "<InitiateMultipartUploadResult><UploadId>1</UploadId></"
    "InitiateMultipartUploadResult>",
    "<CompleteMultipartUploadResult><ETag>\"x\"</ETag></CompleteMultipartUploadResult>",
    "<!DOCTYPE a [<!ENTITY b \"cccccccccccc\"><!ENTITY d "
    "\"&b;&b;&b;&b;&b;\">]><a>&d;</a>",
    "ETag: \"x\"\nContent-Range: bytes 1-2/3\nX-Amz-Request-Id: 1\nLast-Modified: Sun, "
    "06 Nov "
    "1994 08:49:37 GMT\n",
    "[default]\nregion = x # y\n[profile default]\nregion=z\n",
    "{\"Code\":\"Success\",\"Token\":\"a\\u0041\",\"n\":[1,{\"x\":null}]}",
};

static uint64_t state = 1;

static uint64_t
below(uint64_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % n;
}

/* One document, or pieces of several, with bytes changed, cut out and repeated. */
static size_t
make(char *out, size_t room)
{
    size_t n = 0;

    for (uint64_t pieces = 1 + below(3) / 2; pieces > 0; pieces--) {
        const char *d = documents[below(sizeof documents / sizeof documents[0])];
        size_t length = strlen(d), from = below(4) == 0 ? below(length) : 0;
        size_t part = below(4) == 0 ? below(length - from + 1) : length - from;

        if (n + part > room)
            break;
        memcpy(out + n, d + from, part);
        n += part;
    }
    for (uint64_t changes = below(6); changes > 0 && n > 0; changes--) {
        static const char pieces[] = "<>&;/\"%+=[] \n\0:#";
        size_t at = below(n), length = below(n - at + 1);

        if (below(3) == 0)
            out[at] = (char)below(256);
        else if (below(2) == 0)
            out[at] = pieces[below(sizeof pieces)];
        else if (n + length <= room) {
            memmove(out + at + length, out + at, n - at);
            n += length;
        }
    }
    return n;
}

static int
run_file(const char *name)
{
    static uint8_t data[1 << 20];
    FILE *in = fopen(name, "rb");

    if (in == NULL) {
        perror(name);
        return 1;
    }
    LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof data, in));
    fclose(in);
    return 0;
}

int
main(int argc, char **argv)
{
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 200000;
    char bytes[4096];

    if (argc > 1 && rounds == 0)
        return run_file(argv[1]);
    if (argc > 2)
        state = strtoull(argv[2], NULL, 10) | 1;
    for (unsigned long i = 0; i < rounds; i++)
        LLVMFuzzerTestOneInput((const uint8_t *)bytes, make(bytes, sizeof bytes));
    printf("%lu documents\n", rounds);
    return 0;
}
#endif
