#!/usr/bin/python3
"""320_gcs.t - gs://: the object store on Google Cloud Storage.

Against fake-gcs-server: the contract by `t4 plugin check`, a listing of 10,000 keys, resumable
uploads, a bucket that is not there, a server that dies in the middle of a put.  An emulator
that ignores conditions is refused by the start-up probe.  Against a Google of our own: where
tokens come from and that they are checked, what each failure means for a write and for a read,
that a put goes out once, that no secret is ever printed.

SPDX-License-Identifier: Apache-2.0
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import gcs_servers as gcs  # noqa: E402
import t4test  # noqa: E402

TAP = t4test.Tap()
MIB = 1024 * 1024
PRINTED = []  # everything that any tool has printed


def words(answer):
    return dict(word.split("=", 1) for word in answer.split()[1:] if "=" in word)


class Tool(gcs.Tool):
    def status(self, command, seconds=gcs.SECONDS):
        return self.run(command, seconds).split(" ", 1)[0]

    def close(self):
        status = super().close()
        PRINTED.extend(self.everything)
        TAP.ok(status == 0, "the tool ended well, all memory given back", *self.everything[-5:])
        return status


def expect(tool, command, status, name, *parts):
    """The command's answer has this status, and these words in it."""
    answer = tool.run(command)
    TAP.ok(answer.split(" ", 1)[0] == status and all(part in answer for part in parts), name,
           "%s: %s" % (command, answer), "want: %s %s" % (status, parts))
    return answer


def emulated(server):
    return {"STORAGE_EMULATOR_HOST": server.address}


# ---- real servers ---------------------------------------------------------------------------

def semantics(server):
    with Tool("gs://bucket/some/prefix/", environment=emulated(server)) as tool:
        tag = words(expect(tool, "put absent a 100 1", "OK", "an object is created"))["tag"]
        expect(tool, "put absent a 100 2", "PRECONDITION", "but not twice", "412")
        TAP.equal(words(tool.run("get a 0 end"))["sum"], words(tool.run("sum 100 1 0 100"))["sum"],
                  "it holds what was written first")
        head = words(expect(tool, "head a", "OK", "head tells of it"))
        TAP.ok(head["tag"] == tag and head["length"] == "100", "head: tag and length", head)
        TAP.ok(abs(int(head["date"]) - time.time() * 1000) < 3600000
               and abs(int(head["modified"]) - time.time() * 1000) < 3600000,
               "head: the store's clock and the time of the change", head)
        second = words(tool.run("put match:%s a 50 3" % tag))["tag"]
        TAP.ok(second.isdigit() and second != tag, "a replaced object has another tag")
        for condition, key in (("match:" + tag, "a"), ("match:0", "a"), ("match:0", "new"),
                               ("match:" + second, "new"), ("match:x%26y", "a"),
                               ("match:99999999999999999999", "a"), ("match:0" + second, "a")):
            expect(tool, "put %s %s 10 4" % (condition, key), "PRECONDITION",
                   "%s does not write %s" % (condition.replace(second, "current").replace(
                       tag, "stale"), key))
        TAP.equal(tool.status("head new"), "NOTFOUND", "nothing was created by the way")
        for offset, length, got in ((10, 20, 20), (40, 100, 10), (50, 1, 0), (1000, 5, 0),
                                    (0, 0, 0), (0, "end", 50), (18446744073709551615, 1, 0)):
            answer = words(tool.run("get a %d %s" % (offset, length)))
            want = words(tool.run("sum 50 3 %d %d" % (min(offset, 50), got)))["sum"]
            TAP.ok((answer.get("got"), answer.get("sum"), answer.get("length"),
                    answer.get("tag")) == (str(got), want, "50", second),
                   "range %d+%s" % (offset, length), answer)
        TAP.equal(words(tool.run("put any empty 0 1"))["length"], "0", "an empty object")
        for command in ("get empty 0 end", "get empty 0 10", "get empty 5 10"):
            answer = words(tool.run(command))
            TAP.ok(answer.get("got") == "0" and answer.get("length") == "0", command, answer)
        TAP.equal(tool.status("get none 0 end"), "NOTFOUND", "get of what is not there")
        TAP.equal(tool.status("get none 7 9"), "NOTFOUND", "get of a range of it")
        TAP.equal(tool.status("remove a none empty"), "OK", "remove, also of what is not there")
        TAP.equal(tool.run("list - - 10"), "OK count=0", "nothing is left")
        expect(tool, "put any %s 1 1" % ("k" * 1020), "INVALID",
               "a name beyond the store's limit is refused with the way out", "prefix")


def awkward_names(server):
    names = ["x/y z%?#&+=ä", "..", "./.", "a//b", "~*'()!", "%2F", "\U0001f600", "a/b/", "?a=b"]
    with Tool("gs://bucket/p%2F", environment=emulated(server)) as tool:
        for i, name in enumerate(names):
            quoted = urllib.parse.quote(name, safe="")
            tool.run("put any %s 10 %d" % (quoted, i))
            TAP.equal(words(tool.run("get %s 0 end" % quoted)).get("sum"),
                      words(tool.run("sum 10 %d 0 10" % i))["sum"], "a key %r" % name)
        tool.run("list - - 100")
        TAP.equal([urllib.parse.unquote(line.split(" ", 1)[0]) for line in tool.listed],
                  sorted(names, key=str.encode), "they are listed, in the order of their bytes")


def listing(server):
    """Three pages of the server.  (It takes a minute for 10,000 puts.)"""
    with Tool("gs://bucket/many", environment=emulated(server)) as tool:
        keys = many_keys(2500)
        for start in range(0, len(keys), 500):  # many commands under way, answers after
            for key in keys[start:start + 500]:
                tool.send("put absent %s 1 1" % key)
            for key in keys[start:start + 500]:
                answer = tool.wait()
                if not answer.startswith("OK"):
                    TAP.ok(False, "put of " + key, answer)
        portions(tool, keys)


def many_keys(number):
    return ["m/before", "n"] + ["n/%05d" % i for i in range(number)] + ["n0"]


def portions(tool, keys):
    """From any place, in any portion, all of them in order."""
    keys = [key for key in keys if key.startswith("n/")]
    n = len(keys)
    TAP.equal(tool.run("list n/ - 4294967295"), "OK count=%d" % n, "a listing of %d keys" % n)
    TAP.ok([line.split(" ", 1)[0] for line in tool.listed] == keys, "all of them, in order")
    for after, most, want in ((keys[1500], 3, keys[1501:1504]),
                              (keys[1500] + "x", 2, keys[1501:1503]), (keys[-2], 10, keys[-1:]),
                              (keys[-1], 10, []), ("zzz", 10, []), ("a", 1, keys[:1]),
                              ("n/", 1000, keys[:1000]), (keys[0], 1001, keys[1:1002]),
                              ("-", 999, keys[:999]), ("-", n, keys), ("-", n - 1, keys[:-1]),
                              ("-", 0, [])):
        answer = tool.run("list n/ %s %d" % (after, most))
        TAP.ok([line.split(" ", 1)[0] for line in tool.listed] == want
               and answer == "OK count=%d" % len(want),
               "%d keys: at most %d after %s" % (n, most, after), answer, *tool.listed[:5])


def large(server):
    """Above 8 MiB: a resumable session of several pieces, with the same conditions."""
    for size, chunk in ((8 * MIB, "16 MB"), (8 * MIB + 1, "16 MB"), (20000001, "300 kB"),
                        (16 * MIB, "4 MB")):
        with Tool("gs://bucket/large", ["gcs.upload_chunk=" + chunk],
                  environment=emulated(server)) as tool:
            key = "l%d" % size
            answer = words(expect(tool, "put absent %s %d 9" % (key, size), "OK",
                                  "%d bytes in pieces of %s" % (size, chunk)))
            TAP.ok(answer.get("length") == str(size), "its length", answer)
            got = words(tool.run("get %s 0 end" % key))
            TAP.equal((got.get("sum"), got.get("tag")), (
                words(tool.run("sum %d 9 0 %d" % (size, size)))["sum"], answer.get("tag")),
                "all bytes arrived")
            TAP.equal(tool.status("put absent %s %d 9" % (key, size)), "PRECONDITION",
                      "create-if-absent holds for it")
            TAP.equal(tool.status("put match:5 %s %d 9" % (key, size)), "PRECONDITION",
                      "a stale tag does not replace it")
            TAP.equal(tool.status("put match:%s %s %d 1" % (answer.get("tag"), key, size)), "OK",
                      "the current tag does")


def wrong_bucket(server):
    with Tool("gs://no-such-bucket/p", environment=emulated(server)) as tool:
        for command in ("put any a 1 1", "put absent big 9000000 1", "get a 0 end", "head a",
                        "list - - 10"):
            expect(tool, command, "INVALID", "a bucket that is not there: " + command,
                   "no-such-bucket", "the bucket does not exist", "create it")


def killed_server():
    with gcs.FakeGcs() as server:
        server.start().make_bucket("bucket")
        with Tool("gs://bucket/p", environment=emulated(server)) as tool:
            TAP.equal(tool.status("put any a 10 1"), "OK", "a put before the server dies")
            server.pause()
            tool.send("put absent b 100 1")
            deadline = time.monotonic() + gcs.SECONDS
            while server.unread_bytes() == 0 and time.monotonic() < deadline:
                time.sleep(0.005)
            server.kill()
            answer = tool.wait()
            TAP.ok(answer.startswith("UNKNOWN "), "the server died with the put in its hands:"
                   " nobody knows", answer)
            expect(tool, "put absent c 100 1", "UNAVAILABLE",
                   "with nobody there it was certainly not done", "onnect")
            expect(tool, "get a 0 end", "UNAVAILABLE", "reads are not possible either")
            server.start().make_bucket("bucket")
            expect(tool, "put absent b 100 1", "OK", "it goes on when the server is there again")


def conformance(server):
    def check(name, *words_more, **environment):
        run = subprocess.run(
            [os.path.join(t4test.BUILD_DIR, "t4"), "plugin", "check", "--rounds=20",
             "--set=gcs.endpoint=http://" + server.address] + list(words_more),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **environment})
        held = sum(line.startswith("ok ") for line in run.stdout.splitlines())
        TAP.ok(run.returncode == 0 and held > 50, "t4 plugin check " + name,
               *[line for line in run.stdout.splitlines() if not line.startswith("ok ")])
        PRINTED.append(run.stdout)

    check("on a whole bucket", "--set=gcs.anonymous=true", "gs://bucket")
    # The longest keys leave no room for a prefix: with one they may be refused.
    with gcs.Google() as google:
        google.life = 1
        check("below a prefix, with tokens of a second each", "--allow-refused-keys",
              "gs://bucket/kit", GCE_METADATA_HOST=google.address)
        TAP.ok(google.given > 2, "tokens were replaced under way", google.given)


def refused_emulator():
    with gcs.Emulator() as server:
        server.start().make_bucket("bucket")
        with Tool("gs://bucket/p", environment=emulated(server)) as tool:
            expect(tool, "probe p/", "UNSUPPORTED",
                   "a store that ignores conditions is refused", "does not honour conditions")


# ---- credentials ----------------------------------------------------------------------------

def service_account():
    with gcs.Google() as google:
        google.tokens = set()
        account = gcs.Account(google.url + "/token")
        settings = ["gcs.endpoint=" + google.url, "gcs.credentials_file=" + account.file]
        before = int(time.time())
        with Tool("gs://bucket/p", settings) as tool:
            TAP.equal(google.count("/token"), 0, "opening a store asks nobody")
            for command in ("put absent a 10 1", "get a 0 end", "list - - 5"):
                TAP.equal(tool.status(command), "OK", "with a service account: " + command)
            TAP.equal(google.count("/token"), 1, "one token for all requests")
            form = dict(urllib.parse.parse_qsl(google.requests[0].body.decode()))
            TAP.equal(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer", "grant")
            header, claims = account.verify(form["assertion"]) or ({}, {})
            TAP.equal(header, {"alg": "RS256", "typ": "JWT", "kid": "k1"},
                      "the JWT's signature is the account's")
            TAP.ok(claims.get("iss") == "t4@t.example"
                   and claims.get("aud") == google.url + "/token"
                   and claims.get("scope", "").endswith("/auth/devstorage.read_write")
                   and before <= claims.get("iat", 0) <= time.time()
                   and claims["exp"] == claims["iat"] + 3600, "its claims", claims)
            google.tokens.clear()  # revoked
            TAP.equal(tool.status("put absent b 10 1"), "OK", "a 401 fetches a new token")
            TAP.equal((google.given, google.count("name=p%2Fb&")), (2, 2),
                      "one, and asks once more")
            google.rule("/token", google.raw(200, {"access_token": "bad", "expires_in": 60}))
            google.tokens.clear()
            expect(tool, "put absent c 10 1", "DENIED", "a token that is refused again ends it",
                   "401", "Invalid Credentials", "gcs.credentials_file")
            TAP.equal(google.count("name=p%2Fc&"), 2, "after two attempts")
            for code, body, status, part in (
                    (400, {"error": "invalid_grant", "error_description": "Invalid JWT"},
                     "DENIED", "invalid_grant: Invalid JWT"),
                    (503, b"", "UNAVAILABLE", "503"), (429, b"", "BUSY", "429"),
                    (200, b"{}", "UNAVAILABLE", "no access token"),
                    (200, {"access_token": "a\r\nb", "expires_in": 60}, "UNAVAILABLE",
                     "no access token")):
                google.clear()
                google.tokens.clear()
                google.rule("/token", google.raw(code, body))
                expect(tool, "put absent d 10 1", status,
                       "the token server answers %d %s" % (code, body), part)
            google.clear()
            google.rule("/token", google.cut(), 9)
            expect(tool, "put absent e 10 1", "UNAVAILABLE",
                   "the token server hangs up: the put was certainly not done")
            google.clear()
            os.unlink(account.file)
            google.tokens.clear()
            expect(tool, "put absent f 10 1", "INVALID", "the file is gone", account.file)
            account.write()
            TAP.equal(tool.status("put absent g 10 1"), "OK", "and there again")


def bad_credentials():
    account = gcs.Account("http://127.0.0.1:1/token")
    for changes, part in (({"type": "external_account"}, "neither service_account nor"),
                          ({"private_key": "-----BEGIN PRIVATE KEY-----\nAAAA"}, "private_key"),
                          ({"private_key": 5}, "private_key"),
                          ({"client_email": ""}, "client_email"),
                          ({"token_uri": "http://example.com/token"}, "not https"),
                          ({"token_uri": "http://127.0.0.1.example.com/"}, "not https"),
                          ({"token_uri": "http://127.0.0.1:80@example.com/"}, "not https"),
                          ({"token_uri": "file:///etc/passwd"}, "not https")):
        account.write(**changes)
        tool = gcs.Tool("gs://bucket/p", ["gcs.credentials_file=" + account.file])
        tool.close()
        PRINTED.extend(tool.everything)
        TAP.ok(tool.opened.startswith("INVALID") and part in tool.opened,
               "credentials with %s" % changes, tool.opened)
    with open(account.file, "w") as out:
        out.write(account.private)
    for url, settings, part in (
            ("gs://bucket/p", ["gcs.credentials_file=" + account.file], "not a JSON object"),
            ("gs://bucket/p", ["gcs.credentials_file=/nonexistent/key"], "/nonexistent/key"),
            ("gs://bucket/p", ["gcs.endpoint=http://example.com"], "in the open"),
            ("gs://bucket/p", ["gcs.endpoint=example.com"], "gcs.endpoint"),
            ("gs://Bucket/p", ["gcs.anonymous=true"], "names no bucket"),
            ("gs://", ["gcs.anonymous=true"], "names no bucket"),
            ("gs://bucket/a?b", ["gcs.anonymous=true"], "prefix")):
        tool = gcs.Tool(url, settings)
        tool.close()
        PRINTED.extend(tool.everything)
        TAP.ok(tool.opened.startswith("INVALID") and part in tool.opened,
               "refused: %s %s" % (url, settings[0].split("/")[0]), tool.opened)


def authorized_user():
    with gcs.Google() as google:
        google.tokens = set()
        account = gcs.Account(google.url + "/token")
        account.write(type="authorized_user", client_secret="secret-client&=",
                      refresh_token="secret-refresh")
        with Tool("gs://bucket/p", ["gcs.endpoint=" + google.url],
                  {"GOOGLE_APPLICATION_CREDENTIALS": account.file}) as tool:
            TAP.equal(tool.status("put absent a 10 1"), "OK", "with a user's refresh token,"
                      " named by GOOGLE_APPLICATION_CREDENTIALS")
            TAP.equal(dict(urllib.parse.parse_qsl(google.requests[0].body.decode())),
                      {"grant_type": "refresh_token", "client_id": "7",
                       "client_secret": "secret-client&=", "refresh_token": "secret-refresh"},
                      "what the token server is asked with")


def metadata_server():
    with gcs.Google() as google:
        google.tokens = set()
        google.life = 2  # half of it later a request fetches the next one
        # The proxy serves nothing: the metadata server must be asked without it.
        with Tool("gs://bucket/p",
                  ["gcs.endpoint=" + google.url.replace("127.0.0.1", "localhost")],
                  {"GCE_METADATA_HOST": google.address, "http_proxy": "http://127.0.0.1:1",
                   "no_proxy": "localhost"}) as tool:
            TAP.equal(tool.status("put absent a 10 1"), "OK", "with the metadata server's token")
            TAP.equal(google.requests[0].path, "/computeMetadata/v1/instance/service-accounts"
                      "/default/token", "its place")
            deadline = time.monotonic() + gcs.SECONDS
            while google.given < 3 and time.monotonic() < deadline:
                if tool.status("get a 0 end") != "OK":
                    break
            TAP.equal((google.given, tool.status("get a 0 end")), (3, "OK"),
                      "tokens are replaced before they end")
            TAP.equal(sum(r.headers.get("Authorization") is None for r in google.requests
                          if "/storage/" in r.path), 0, "every request has one")
            # Renewal fails while the old one is still good.
            google.life = 3600
            google.tokens.clear()
            TAP.equal(tool.status("get a 0 end"), "OK", "a long-lived token")
            google.clear()
            google.tokens.clear()
            google.rule("/computeMetadata", google.raw(404, b"no account"))
            expect(tool, "get a 0 end", "DENIED", "a machine without a service account", "404",
                   "give this machine a service account")
    tool = Tool("gs://bucket/p", ["gcs.endpoint=http://127.0.0.1:1"],
                {"GCE_METADATA_HOST": "127.0.0.1:1"})
    expect(tool, "put absent a 10 1", "UNAVAILABLE", "no metadata server: not done, and what to"
           " do", "metadata server", "gcs.credentials_file")
    tool.close()


def renewal_fails():
    with gcs.Google() as google:
        google.tokens = {"short"}
        with Tool("gs://bucket/p", ["gcs.endpoint=" + google.url],
                  {"GCE_METADATA_HOST": google.address}) as tool:
            google.rule("/computeMetadata", google.raw(
                200, {"access_token": "short", "expires_in": 6}))
            google.rule("/computeMetadata", google.status(503))
            TAP.equal(tool.status("put absent a 10 1"), "OK", "a token of six seconds")
            deadline, failed = time.monotonic() + gcs.SECONDS, []
            while google.count("/computeMetadata") < 2 and time.monotonic() < deadline:
                answer = tool.run("get a 0 end")
                if not answer.startswith("OK"):
                    failed.append(answer)
            TAP.ok(not failed and google.given == 0 and tool.status("get a 0 end") == "OK",
                   "it is renewed ahead of its end, in vain: it is used on", *failed)


# ---- what failures mean ---------------------------------------------------------------------

def answers_of_writes(google, tool):
    """Status of HTTP -> what a conditional put says; and it went out once."""
    for code, reason, status in (
            (412, "conditionNotMet", "PRECONDITION"), (304, "", "PRECONDITION"),
            (500, "internalError", "UNKNOWN"), (502, "", "UNKNOWN"), (503, "backendError",
                                                                      "UNKNOWN"),
            (504, "", "UNKNOWN"), (501, "", "UNKNOWN"), (408, "", "UNKNOWN"),
            (409, "conflict", "UNKNOWN"), (202, "", "UNKNOWN"), (429, "rateLimitExceeded", "BUSY"),
            (403, "rateLimitExceeded", "BUSY"), (403, "userRateLimitExceeded", "BUSY"),
            (403, "quotaExceeded", "NOSPACE"), (403, "forbidden", "DENIED"),
            (403, "accountDisabled", "DENIED"), (401, "authError", "DENIED"),
            (400, "invalid", "INVALID"), (413, "uploadTooLarge", "INVALID"),
            (302, "", "INVALID"), (404, "notFound", "INVALID")):
        google.clear()
        google.rule("POST", google.status(code, reason, "because"))
        answer = tool.run("put absent k%d%s 10 1" % (code, reason))
        TAP.ok(answer.split(" ", 1)[0] == status, "put: HTTP %d %s is %s" % (
            code, reason, status), answer)
        TAP.equal(google.count("POST"), 1, "sent once")
        if code in (400, 403, 503):
            TAP.ok(reason in answer and "because" in answer, "with the server's words", answer)
    expect(tool, "head k503backendError", "NOTFOUND", "and nothing was written behind it")


def answers_of_reads(google, tool):
    tool.run("put any there 100 1")
    for code, reason, status in (
            (500, "", "UNAVAILABLE"), (503, "", "UNAVAILABLE"), (408, "", "UNAVAILABLE"),
            (409, "", "UNAVAILABLE"), (429, "", "BUSY"), (403, "forbidden", "DENIED"),
            (403, "rateLimitExceeded", "BUSY"), (400, "invalid", "INVALID")):
        for command, match in (("get there 0 end", "GET"), ("head there", "GET"),
                               ("list - - 5", "GET"), ("remove there", "DELETE")):
            google.clear()
            google.rule(match, google.status(code, reason, "because"))
            TAP.equal(tool.status(command), status, "%s: HTTP %d %s" % (command, code, reason))
    google.clear()
    for code in (403, 503):
        google.rule("GET", google.raw(404, b"gone"))
        google.rule("maxResults=1&", google.status(code))
        TAP.ok(tool.status("get there 0 end") not in ("OK", "NOTFOUND"),
               "a 404 that does not say of what, and a bucket that cannot be asked: no NOTFOUND")
        google.clear()
    generation = ("X-Goog-Generation", "7")
    for what, rule, status in (
            ("no generation", google.raw(200, b"x"), "CORRUPT"),
            ("a generation that is none", google.raw(200, b"x", [(generation[0], "1x")]),
             "CORRUPT"),
            ("a cut body", google.raw(200, b"x", [generation], length=50), "UNAVAILABLE"),
            ("another range", google.raw(206, b"x", [generation, (
                "Content-Range", "bytes 5-5/100")]), "CORRUPT"),
            ("more than was asked for", google.raw(206, b"x" * 51, [generation, (
                "Content-Range", "bytes 0-50/100")]), "CORRUPT"),
            ("all instead of a part", google.raw(200, b"x" * 100, [generation]), "CORRUPT")):
        google.clear()
        google.rule("alt=media", rule)
        TAP.equal(tool.status("get there 0 50"), status,
                  "get: the answer has " + what)
    google.clear()
    google.rule("GET", google.raw(200, b"<html>"))
    TAP.equal(tool.status("head there"), "CORRUPT", "head: no JSON")


def listings(google, tool):
    item = {"generation": "5", "size": "1"}
    pages = (("no JSON", b"<html>"), ("no list", {"items": 5}),
             ("an item without a generation", {"items": [{"name": "p/a", "size": "1"}]}),
             ("out of order", {"items": [{"name": "p/b", **item}, {"name": "p/a", **item}]}),
             ("twice the same", {"items": [{"name": "p/b", **item}, {"name": "p/b", **item}]}),
             ("another prefix", {"items": [{"name": "q/b", **item}]}),
             ("too long", b" " * (17 * MIB)))
    for what, page in pages:
        google.clear()
        google.rule("GET", google.raw(200, page))
        expect(tool, "list - - 5", "CORRUPT", "list: %s is no listing" % what, ": gs://bucket: ")
    google.clear()
    with google.lock:
        google.objects.update(("p/" + key, (b"x", 5)) for key in many_keys(10000))
    portions(tool, many_keys(10000))
    google.clear()
    google.rule("GET", google.raw(200, {"nextPageToken": "a b&c"}))
    google.rule("pageToken=a%20b%26c", google.raw(200, {"items": [{"name": "p/x", **item}],
                                                        "nextPageToken": "d"}))
    google.rule("pageToken=d", google.raw(200, {}))
    TAP.equal(tool.run("list - - 5"), "OK count=1", "list: empty pages before the end")


def cut_connections(google, tool):
    google.clear()
    tool.run("put any warm 1 1")
    for size in (0, 10, 100000):
        for what, action, there in (("before", google.cut(), "NOTFOUND"),
                                    ("after", google.apply_and_cut(), "OK")):
            google.clear()
            google.rule("POST", action)
            key = "cut-%s-%d" % (what, size)
            answer = tool.run("put absent %s %d 1" % (key, size))
            TAP.ok(answer.startswith("UNKNOWN"), "put of %d bytes on a kept connection that ends"
                   " %s it took effect" % (size, what), answer)
            TAP.equal(google.count("POST"), 1, "sent once")
            TAP.equal(tool.status("head " + key), there, "the effect")
    google.clear()
    google.rule("POST", google.raw(200, b"<html>"))
    TAP.equal(tool.status("put absent html 10 1"), "UNKNOWN", "an answer that is no metadata")
    google.clear()
    google.rule("POST", google.raw(200, b"{", length=5000))
    TAP.equal(tool.status("put absent half 10 1"), "UNKNOWN", "an answer of which half comes")


def deadlines(google, tool):
    release = threading.Event()
    google.clear()
    google.rule("", google.stall(release), 9)
    tool.run("timeout 300")
    for command, status in (("put absent slow 10 1", "UNKNOWN"), ("get slow 0 end", "TIMEOUT"),
                            ("head slow", "TIMEOUT"), ("list - - 5", "TIMEOUT"),
                            ("put absent slow 9000000 1", "TIMEOUT")):
        start = time.monotonic()
        TAP.equal(tool.status(command), status, "no answer within the deadline: " + command[:20])
        TAP.ok(time.monotonic() - start < 30, "and the call ended")
    release.set()
    tool.run("timeout 0")
    google.clear()


def sessions(google, tool):
    """Resumable uploads that break; pieces are of 4 MiB."""
    part, size = 4 * MIB, 10 * MIB
    put = "put absent %s " + "%d 3" % size
    generation = iter(range(100))

    def attempt(status, name, count, *rules):
        google.clear()
        key = "s%d" % next(generation)
        for match, action in rules:
            google.rule(match, action)
        answer = tool.run(put % key)
        TAP.ok(answer.split(" ", 1)[0] == status, "session: " + name, answer)
        TAP.equal(google.count("PUT"), count, "requests with bytes")
        return key

    last = "upload_id"
    skip = lambda h: False  # noqa: E731 - counted, then served as usual
    attempt("OK", "three pieces", 3)
    attempt("PRECONDITION", "refused when it is opened", 0, ("POST", google.status(412)))
    attempt("UNAVAILABLE", "cannot be opened: 503", 0, ("POST", google.status(503)))
    attempt("UNAVAILABLE", "cannot be opened: cut", 0, *[("POST", google.cut())] * 9)
    attempt("BUSY", "throttled", 0, ("POST", google.status(429)))
    attempt("UNAVAILABLE", "no address", 0, ("POST", google.raw(200)))
    attempt("UNAVAILABLE", "an address elsewhere", 0, ("POST", google.raw(
        200, headers=[("Location", google.url.replace("127.0.0.1", "localhost") +
                       "/upload/storage/v1/b/bucket/o?upload_id=0")])))
    attempt("UNAVAILABLE", "an early piece is cut: nothing was written", 1, ("PUT", google.cut()))
    attempt("UNAVAILABLE", "an early piece meets 503", 1, ("PUT", google.status(503)))
    attempt("BUSY", "an early piece is throttled", 1, ("PUT", google.status(429)))
    attempt("UNKNOWN", "lost early", 1, ("PUT", google.status(404)))
    attempt("UNKNOWN", "lost early, 410", 1, ("PUT", google.status(410)))
    attempt("UNKNOWN", "the last piece meets 503", 3, ("PUT", skip), ("PUT", skip),
            ("PUT", google.status(503)))
    attempt("UNKNOWN", "lost at the last piece", 3, ("PUT", skip), ("PUT", skip),
            ("PUT", google.status(410)))
    attempt("PRECONDITION", "refused with the last piece", 3, ("PUT", skip), ("PUT", skip),
            ("PUT", google.status(412)))
    key = attempt("UNKNOWN", "the last answer is lost", 3, ("PUT", skip), ("PUT", skip),
                  ("PUT", google.apply_and_cut()))
    TAP.equal(tool.status("head " + key), "OK", "the object is there")

    def keep(n):
        """The server keeps n bytes less of this piece."""
        def action(h):
            kept = google.sessions[h.query["upload_id"]]
            first = int(h.headers["Content-Range"][6:].split("-")[0])
            del kept[first:]
            kept.extend(h.body[:len(h.body) - n])
            return h.answer(308, b"", [("Range", "bytes=0-%d" % (len(kept) - 1))] if kept else [])
        return action

    key = attempt("OK", "pieces of which a part is kept", 5, ("PUT", keep(part)),
                  ("PUT", keep(MIB)), ("PUT", skip), ("PUT", keep(100)))
    google.clear()
    TAP.equal(words(tool.run("get %s 0 end" % key))["sum"],
              words(tool.run("sum %d 3 0 %d" % (size, size)))["sum"], "and all bytes arrive")
    attempt("UNKNOWN", "no piece is kept", 4, *[("PUT", keep(part))] * 4)
    attempt("UNKNOWN", "refused after the last piece was sent twice", 4, ("PUT", skip),
            ("PUT", skip), ("PUT", keep(100)), ("PUT", google.status(412)))
    attempt("UNKNOWN", "bytes that were never sent", 1, ("PUT", google.raw(
        308, headers=[("Range", "bytes=0-9999999")])))
    attempt("UNKNOWN", "done too early", 1, ("PUT", google.raw(
        200, {"generation": "5", "size": str(size)})))


def encrypted():
    directory = tempfile.mkdtemp(prefix="t4test-")
    try:
        files = gcs.certificate(directory)
        with gcs.Google(files) as google:
            settings = ["gcs.endpoint=" + google.url, "gcs.anonymous=true"]
            with Tool("gs://bucket/p", settings) as tool:
                expect(tool, "put absent a 10 1", "UNAVAILABLE",
                       "a certificate that nobody vouches for", "certificate", "gcs.ca_bundle")
                TAP.equal(len(google.requests), 0, "nothing was sent")
            with Tool("gs://bucket/p", settings + ["gcs.ca_bundle=" + files[0]]) as tool:
                TAP.equal(tool.status("put absent a 10 1"), "OK", "with its CA")
                google.rule("POST", google.apply_and_cut())
                TAP.equal(tool.status("put absent b 10 1"), "UNKNOWN", "a lost answer over TLS")
                TAP.equal(google.count("name=p%2Fb&"), 1, "sent once")
            with Tool("gs://bucket/p", settings + ["gcs.ca_bundle=/nonexistent"]) as tool:
                TAP.ok(tool.status("put absent a 10 1") in ("INVALID", "UNAVAILABLE"),
                       "a CA bundle that is not there")
    finally:
        shutil.rmtree(directory)


def fuzzed():
    """What the servers send is read within bounds: regress/fuzz/gcs_json_fuzz.c for a moment."""
    with tempfile.TemporaryDirectory(prefix="t4test-") as directory:
        program = os.path.join(directory, "gcs_json_fuzz")
        source = [os.path.join(t4test.SRC_DIR, path) for path in (
            "regress/fuzz/gcs_json_fuzz.c", "plugins/gcs/json.c",
            "plugins/http_common/http_text.c")]
        run = subprocess.run(
            os.environ.get("CC", "cc").split() +
            ["-g", "-O1", "-D_GNU_SOURCE", "-DFUZZ_ALONE", "-fsanitize=address,undefined",
             "-fno-sanitize-recover=all", "-o", program] +
            ["-I" + os.path.join(t4test.SRC_DIR, path)
             for path in ("src/include", "plugins", "plugins/gcs")] + source + ["-ljansson"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if TAP.ok(run.returncode == 0, "the fuzz program of the JSON is compiled", run.stdout):
            run = subprocess.run([program, "60000"], stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True)
            TAP.ok(run.returncode == 0 and run.stdout == "60000 texts\n",
                   "60,000 mutated answers", run.stdout[-3000:])


def scripted():
    with gcs.Google() as google:
        with Tool("gs://bucket/p", ["gcs.endpoint=" + google.url, "gcs.anonymous=true",
                                    "gcs.upload_chunk=4 MB"]) as tool:
            for part in (answers_of_writes, answers_of_reads, listings, cut_connections,
                         deadlines, sessions):
                part(google, tool)
        TAP.equal([r.path for r in google.requests if r.headers.get("Authorization")], [],
                  "anonymous means without credentials")
        google.clear()
        with Tool("gs://bucket/p", ["gcs.endpoint=" + google.url, "gcs.anonymous=true",
                                    "gcs.user_project=pay er"]) as tool:
            for command in ("put any z 1 1", "get z 0 end", "head z", "list - - 5", "remove z"):
                tool.run(command)
            TAP.equal([r.query.get("userProject") for r in google.requests], ["pay er"] * 5,
                      "the project that pays is named in every request")


def absent(reason):
    """Without Go the real servers cannot be made: a bare Debian runs the scripted ones only."""
    if shutil.which("go") is None:
        TAP.diag(reason)
    else:
        TAP.skip(reason)


def main():
    if not os.path.exists(gcs.Tool.path):
        TAP.skip_all("no %s: make test-programs" % gcs.Tool.path)
    for part in (service_account, bad_credentials, authorized_user, metadata_server,
                 renewal_fails, scripted, encrypted, fuzzed):
        part()
    if os.path.exists(gcs.FakeGcs.path):
        with gcs.FakeGcs() as server:
            server.start().make_bucket("bucket")
            for part in (semantics, awkward_names, listing, large, wrong_bucket, conformance):
                part(server)
        killed_server()
    else:
        absent("no fake-gcs-server here: regress/object-servers/build makes it (needs Go)")
    if os.path.exists(gcs.Emulator.path):
        refused_emulator()
    else:
        absent("no gcp-storage-emulator here: regress/object-servers/build installs it")
    text = "\n".join(PRINTED)
    TAP.equal([word for word in ("secret-", "PRIVATE KEY", "Bearer", "assertion")
               if word in text], [], "no secret was printed")
    TAP.done()


main()
