/*
 * s3_test.c - the pure parts of the S3 plugin: signatures, addresses, what answers mean, XML,
 * settings files.
 *
 * The signatures are those of AWS's published examples for S3 (examplebucket, 24 May 2013), with
 * the keys printed there.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../plugins/s3/address.h"
#include "../../plugins/s3/explain.h"
#include "../../plugins/s3/sign.h"
#include "../../plugins/s3/xml.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static struct t4_slice
slice(const char *text)
{
    return text_slice(text, strlen(text));
}

/* --- signatures ---------------------------------------------------------------------- */

#define EMPTY_HASH "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define BODY_HASH "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"

struct vector {
    const char *method, *path;
    struct sign_field query[2];
    size_t n_query;
    struct sign_field more[2]; /* headers beside host, date and hash */
    size_t n_more;
    const char *hash, *names, *signature;
};

static const struct vector vectors[] = {
    {"GET",
     "/test.txt",
     {{0}},
     0,
     {{"range", "bytes=0-9"}},
     1,
     EMPTY_HASH,
     "host;range;x-amz-content-sha256;x-amz-date",
     "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
    {"PUT",
     "/test%24file.text",
     {{0}},
     0,
     {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
      {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
     2,
     BODY_HASH,
     "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
     "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
    {"GET",
     "/",
     {{"lifecycle", ""}},
     1,
     {{0}},
     0,
     EMPTY_HASH,
     "host;x-amz-content-sha256;x-amz-date",
     "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
    {"GET",
     "/",
     {{"prefix", "J"}, {"max-keys", "2"}},
     2,
     {{0}},
     0,
     EMPTY_HASH,
     "host;x-amz-content-sha256;x-amz-date",
     "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
};

static void
published_signatures(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(vectors); i++) {
        const struct vector *v = &vectors[i];
        struct sign_field query[2] = {v->query[0], v->query[1]};
        struct sign_field header[5] = {
            {"host", "examplebucket.s3.amazonaws.com"},
            {"x-amz-date", "20130524T000000Z"},
            {"x-amz-content-sha256", v->hash},
            v->more[0],
            v->more[1],
        };
        struct str text = {0}, authorization = {0}, want = {0};
        struct sign_request r = {
            .method = v->method,
            .path = v->path,
            .header = header,
            .n_header = 3 + v->n_more,
            .payload_hash = v->hash,
            .date = "20130524T000000Z",
            .region = "us-east-1",
            .service = "s3",
            .access_key_id = "AKIAIOSFODNN7EXAMPLE",
            .secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        };

        sign_query(query, v->n_query, &text);
        r.query = str_text(&text);
        assert_true(sign_authorization(&r, &authorization));
        str_addf(&want,
                 "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/"
                 "aws4_request, SignedHeaders=%s, Signature=%s",
                 v->names, v->signature);
        assert_string_equal(authorization.data, want.data);
        str_free(&text);
        str_free(&authorization);
        str_free(&want);
    }
}

static void
hashes_and_dates(void **state)
{
    char hex[SIGN_HEX], date[17];

    (void)state;
    assert_true(sign_hash(slice("Welcome to Amazon S3."), hex));
    assert_string_equal(hex, BODY_HASH);
    assert_true(sign_hash(slice(""), hex));
    assert_string_equal(hex, EMPTY_HASH);
    text_amz_date(INT64_C(1369353600000), date);
    assert_string_equal(date, "20130524T000000Z");
}

static void
encoding(void **state)
{
    struct str s = {0};

    (void)state;
    str_encode(&s, "a/b c~+%\xc3\xa4.-_", 13, true);
    assert_string_equal(s.data, "a/b%20c~%2B%25%C3%A4.-_");
    str_free(&s);
    str_encode(&s, "a/b", 3, false);
    assert_string_equal(s.data, "a%2Fb");
    str_free(&s);
}

/* --- addresses ----------------------------------------------------------------------- */

static void
addresses(void **state)
{
    static const struct {
        const char *url, *endpoint, *region;
        enum address_style style;
        const char *origin, *path, *root;
    } good[] = {
        {"s3://bucket", "", "us-east-1", ADDRESS_AUTO,
         "https://bucket.s3.us-east-1.amazonaws.com", "", ""},
        {"s3://bucket/a/b/", "", "cn-north-1", ADDRESS_AUTO,
         "https://bucket.s3.cn-north-1.amazonaws.com.cn", "", "a/b/"},
        {"s3://my.bucket/", "", "us-east-1", ADDRESS_AUTO,
         "https://s3.us-east-1.amazonaws.com", "/my.bucket", ""},
        {"s3://bucket//x//", "http://localhost:9000/", "eu-1", ADDRESS_AUTO,
         "http://localhost:9000", "/bucket", "x/"},
        {"s3://bucket", "https://host:443/way/", "eu-1", ADDRESS_AUTO, "https://host",
         "/way/bucket", ""},
        {"s3://bucket", "http://host:80", "eu-1", ADDRESS_HOST, "http://bucket.host", "",
         ""},
        {"s3://bucket", "https://[::1]:9000", "eu-1", ADDRESS_PATH, "https://[::1]:9000",
         "/bucket", ""},
        {"s3://bucket", "", "eu-1", ADDRESS_PATH, "https://s3.eu-1.amazonaws.com",
         "/bucket", ""},
    };
    static const char *const bad[][3] = {
        {"s3:/bucket", "", "eu-west-1"},
        {"s3://", "", "eu-west-1"},
        {"gs://bucket", "", "eu-west-1"},
        {"s3://-bucket", "", "eu-west-1"},
        {"s3://bu cket", "", "eu-west-1"},
        {"s3://bucket/a?b", "", "eu-west-1"},
        {"s3://bucket/a\n", "", "eu-west-1"},
        {"s3://bucket/\xff", "", "eu-west-1"},
        {"s3://bucket", "host", "eu-west-1"},
        {"s3://bucket", "https://", "eu-west-1"},
        {"s3://bucket", "ftp://x", "eu-1"},
        {"s3://bucket", "https://a:b@host", "eu-west-1"},
        {"s3://bucket", "http://a b", "eu1"},
        {"s3://bucket", "https://h/?x", "eu-west-1"},
        {"s3://bucket", "", "eu west"},
        {"s3://bucket", "", "a/../b"},
    };
    struct address a;
    const char *hint;

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        assert_null(address_parse(slice(good[i].url), good[i].endpoint, good[i].region,
                                  good[i].style, &a, &hint));
        assert_string_equal(a.origin, good[i].origin);
        assert_string_equal(a.path, good[i].path);
        assert_string_equal(a.root, good[i].root);
        assert_string_equal(a.authority, strstr(a.origin, "://") + 3);
        assert_int_equal(a.root_length, strlen(a.root));
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_non_null(address_parse(slice(bad[i][0]), bad[i][1], bad[i][2],
                                      ADDRESS_AUTO, &a, &hint));
        assert_non_null(hint);
    }
}

/* --- what answers mean --------------------------------------------------------------- */

/* Whatever a server may answer: what is said about a put is what is certain. */
static void
nothing_is_guessed(void **state)
{
    static const char *const codes[] = {
        "",          "InternalError", "AccessDenied",  "PreconditionFailed",
        "NoSuchKey", "NoSuchBucket",  "SlowDown",      "ConditionalRequestConflict",
        "Strange",   "QuotaExceeded", "RequestTimeout"};

    (void)state;
    for (int status = 100; status < 700; status++)
        for (size_t i = 0; i < COUNT(codes); i++) {
            t4_status put = explain_status(status, codes[i], EXPLAIN_PUT);
            t4_status get = explain_status(status, codes[i], EXPLAIN_NONE);

            assert_int_not_equal(put, T4_OK);
            assert_int_not_equal(get, T4_OK);
            assert_int_not_equal(put, T4_E_NOTFOUND);
            assert_int_not_equal(put, T4_E_UNAVAILABLE);
            assert_int_not_equal(get, T4_E_UNKNOWN);
            if (status >= 500 && strcmp(codes[i], "SlowDown") != 0 &&
                strcmp(codes[i], "QuotaExceeded") != 0)
                assert_int_equal(put, T4_E_UNKNOWN);
            if (status == 409)
                assert_true(put == T4_E_UNKNOWN || strcmp(codes[i], "NoSuchBucket") == 0);
            assert_int_equal(put == T4_E_PRECONDITION,
                             status == 412 ||
                                 (status == 404 && strcmp(codes[i], "NoSuchKey") == 0));
            if (get == T4_E_NOTFOUND)
                assert_true(status == 404 && strcmp(codes[i], "NoSuchKey") == 0);
        }
}

/* --- XML ----------------------------------------------------------------------------- */

static void
a_page_of_a_list(void **state)
{
    static const char page[] =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
        "<Name>bucket</Name><Prefix>p</Prefix><IsTruncated>true</IsTruncated>"
        "<Contents><Key>a%2Bb+c</Key><LastModified>2009-10-12T17:50:30.123Z</"
        "LastModified>"
        "<ETag>&quot;x&amp;y&quot;</ETag><Size>434234</Size><Owner><ID>7</ID></Owner></"
        "Contents>"
        "<Contents><Key>\xc3\xa4</Key><Size>0</Size></Contents>"
        "<CommonPrefixes><Prefix>q</Prefix></CommonPrefixes>"
        "<NextContinuationToken>1/2+3=</NextContinuationToken>"
        "<EncodingType>url</EncodingType></ListBucketResult>";
    struct xml_list l;

    (void)state;
    assert_int_equal(xml_list(slice(page), &l), T4_OK);
    assert_int_equal(l.n, 2);
    assert_int_equal(l.object[0].key_length, 5);
    assert_memory_equal(l.keys.data + l.object[0].key, "a+b c", 5);
    assert_string_equal(l.object[0].tag, "\"x&y\"");
    assert_int_equal(l.object[0].length, 434234);
    assert_true(l.object[0].modified_ms == INT64_C(1255369830123));
    assert_memory_equal(l.keys.data + l.object[1].key, "\xc3\xa4", 2);
    assert_true(l.truncated);
    assert_string_equal(str_text(&l.token), "1/2+3=");
    xml_list_free(&l);
    for (size_t n = 0; n < sizeof page - 1; n++) { /* cut anywhere */
        assert_int_equal(xml_list(text_slice(page, n), &l), T4_E_CORRUPT);
        xml_list_free(&l);
    }
}

static void
dangerous_documents(void **state)
{
    static const char *const documents[] = {
        "<!DOCTYPE Error SYSTEM \"file:///etc/passwd\"><Error><Code>a</Code></Error>",
        "<!DOCTYPE Error [<!ENTITY a \"b\">]><Error><Code>&a;</Code></Error>",
        "<Error><Code>&undeclared;</Code></Error>",
        "<Error><Code>a</Code></Error><Error/>",
        "<Error><Code>a</Error></Code>",
        "<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><Error/></a></a></a></a></"
        "a></a></a>"
        "</a></a></a></a></a></a></a></a></a></a>",
        "",
    };
    struct xml_error e;
    struct str s = {0};

    (void)state;
    for (size_t i = 0; i < COUNT(documents); i++)
        assert_false(xml_error(slice(documents[i]), &e));
    str_addz(&s, "<Error><Code>a</Code><Message>");
    for (int i = 0; i < 20000; i++)
        str_addz(&s, "x");
    str_addz(&s, "</Message></Error>");
    assert_false(xml_error(text_slice(s.data, s.length), &e));
    str_free(&s);
}

static void
errors_of_all_kinds(void **state)
{
    struct xml_removed removed;
    struct xml_error e;
    struct str s = {0};

    (void)state;
    assert_true(
        xml_error(slice("<Error><Code>NoSuchKey</Code><Message>a\nb</Message>"
                        "<Region>eu-1</Region><Resource><Code>no</Code></Resource>"
                        "</Error>"),
                  &e));
    assert_string_equal(e.code, "NoSuchKey");
    assert_string_equal(e.message, "a b");
    assert_string_equal(e.region, "eu-1");
    assert_true(xml_error(slice("<ErrorResponse xmlns=\"u\"><Error><Code>X</Code></Error>"
                                "</ErrorResponse>"),
                          &e));
    assert_string_equal(e.code, "X");
    assert_false(xml_error(slice("<html><body>404</body></html>"), &e));

    assert_true(
        xml_removed(slice("<DeleteResult><Deleted><Key>x</Key></Deleted>"
                          "<Error><Key>gone</Key><Code>NoSuchKey</Code></Error>"
                          "<Error><Key>a&lt;b</Key><Code>AccessDenied</Code></Error>"
                          "<Error><Key>c</Key><Code>InternalError</Code></Error>"
                          "</DeleteResult>"),
                    &removed));
    assert_int_equal(removed.failed, 2);
    assert_string_equal(removed.key, "a<b");
    assert_string_equal(removed.error.code, "AccessDenied");
    assert_true(xml_removed(slice("<DeleteResult/>"), &removed));
    assert_int_equal(removed.failed, 0);
    assert_false(xml_removed(slice("<Other/>"), &removed));

    assert_true(xml_escape(&s, slice("a<b>&\"'")));
    assert_string_equal(s.data, "a&lt;b&gt;&amp;&quot;&apos;");
    assert_false(xml_escape(&s, slice("\x01")));
    assert_false(xml_escape(&s, slice("\xef\xbf\xbf")));
    str_free(&s);
}

/* --- texts --------------------------------------------------------------------------- */

static void
settings_files(void **state)
{
    static const char file[] = "aws_access_key_id = outside\n"
                               "; comment\n[default]\r\n"
                               "aws_access_key_id=A\r\n"
                               "s3 =\n  aws_access_key_id = nested\n"
                               "AWS_Secret_Access_Key = a=b/c+d # comment\n"
                               "[profile other]\nregion = r1\nregion = r2\n"
                               "[ other ]\nregion = r3";
    char value[16];
    bool found;

    (void)state;
    assert_int_equal(text_setting(slice(file), "default", false, "aws_access_key_id",
                                  value, sizeof value, &found),
                     T4_OK);
    assert_true(found);
    assert_string_equal(value, "A");
    assert_int_equal(text_setting(slice(file), "default", true, "aws_secret_access_key",
                                  value, sizeof value, &found),
                     T4_OK);
    assert_string_equal(value, "a=b/c+d");
    assert_int_equal(
        text_setting(slice(file), "other", true, "region", value, sizeof value, &found),
        T4_OK);
    assert_string_equal(value, "r2");
    assert_int_equal(
        text_setting(slice(file), "other", false, "region", value, sizeof value, &found),
        T4_OK);
    assert_string_equal(value, "r3");
    assert_int_equal(
        text_setting(slice(file), "default", true, "region", value, sizeof value, &found),
        T4_OK);
    assert_false(found);
    assert_int_equal(
        text_setting(slice(file), "nobody", true, "region", value, sizeof value, &found),
        T4_E_NOTFOUND);
    assert_int_equal(text_setting(slice(file), "default", true, "aws_secret_access_key",
                                  value, 4, &found),
                     T4_E_INVALID);
}

static void
heads_of_answers(void **state)
{
    struct text_head h;
    struct str s = {0};

    (void)state;
    text_head(&h, slice("ETag:  \"a b\" \nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\n"
                        "content-range: bytes 5-9/1234\nX-Amz-Bucket-Region: eu-1\n"));
    assert_string_equal(h.tag, "\"a b\"");
    assert_true(h.modified_ms == INT64_C(784111777000));
    assert_true(h.has_range && h.has_total);
    assert_true(h.first == 5 && h.last == 9 && h.total == 1234);
    assert_string_equal(h.region, "eu-1");
    text_head(&h, slice("Content-Range: bytes */77\nETag: a\x01\n"));
    assert_false(h.has_range);
    assert_true(h.has_total && h.total == 77);
    assert_string_equal(h.tag, "");
    text_head(&h, slice("Content-Range: bytes 9-5/10\n:\n\nno colon\nlast line cut"));
    assert_false(h.has_range);
    for (size_t n = T4_TAG_MAX; n <= T4_TAG_MAX + 1;
         n++) { /* the longest tag, and one more */
        str_addz(&s, "ETag: ");
        for (size_t i = 0; i < n; i++)
            str_addz(&s, "x");
        str_addz(&s, "\n");
        text_head(&h, text_slice(s.data, s.length));
        assert_int_equal(strlen(h.tag), n == T4_TAG_MAX ? T4_TAG_MAX : 0);
        str_free(&s);
    }
}

static void
keys_and_json(void **state)
{
    char value[8];

    (void)state;
    assert_true(text_is_plain(slice("a/\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80 ~")));
    assert_false(text_is_plain(slice("a\n")));
    assert_false(text_is_plain(slice("\x7f")));
    assert_false(text_is_plain(slice("\xc0\xaf")));     /* longer than need be */
    assert_false(text_is_plain(slice("\xed\xa0\x80"))); /* half of a pair */
    assert_false(text_is_plain(slice("\xf4\x90\x80\x80")));
    assert_false(text_is_plain(slice("\xe2\x82")));
    assert_false(text_is_plain(slice("\xff\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80")));
    assert_true(text_json_string(slice("{\"a\":{\"b\":\"x\"},\"b\":\"y\\/\\u0041\"}"),
                                 "b", value, sizeof value));
    assert_string_equal(value, "y/A");
    assert_false(
        text_json_string(slice("{\"b\":\"12345678\"}"), "b", value, sizeof value));
    assert_false(text_json_string(slice("{\"b\":7}"), "b", value, sizeof value));
    assert_false(
        text_json_string(slice("{\"b\":\"a\\u0000\"}"), "b", value, sizeof value));
    assert_false(text_json_string(slice("[\"b\"]"), "b", value, sizeof value));
    assert_false(text_json_string(slice("{\"b\":\"y\""), "b", value, sizeof value));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_signatures),
        cmocka_unit_test(hashes_and_dates),
        cmocka_unit_test(encoding),
        cmocka_unit_test(addresses),
        cmocka_unit_test(nothing_is_guessed),
        cmocka_unit_test(a_page_of_a_list),
        cmocka_unit_test(dangerous_documents),
        cmocka_unit_test(errors_of_all_kinds),
        cmocka_unit_test(settings_files),
        cmocka_unit_test(heads_of_answers),
        cmocka_unit_test(keys_and_json),
    };

    xml_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
