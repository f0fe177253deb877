"""object_servers.py - what the tests of s3:// talk to: real servers, and an Amazon of our own that
can be told to misbehave.

Entry points: Versitygw, Moto, S3rver (made by regress/object-servers/build; real_server() gives
the best that is there), Amazon (S3, STS and an instance's metadata in this process, with scripted
faults).  object_tool is driven by Tool of gcs_servers.

Amazon checks every signature by a calculation of its own, over the request as it came in, and
keeps every request it got.  rule() works as with gcs_servers' Google.

Threads: Amazon answers on threads of its own; everything else belongs to the caller.

SPDX-License-Identifier: Apache-2.0
"""

import email.utils
import hashlib
import hmac
import http.server
import os
import re
import socket
import ssl
import tempfile
import threading
import time
import types
import urllib.parse
import xml.etree.ElementTree
from xml.sax.saxutils import escape

import gcs_servers
import t4test

SERVERS = gcs_servers.SERVERS
SECONDS = gcs_servers.SECONDS
ID, SECRET = "testid", "test+secret/0123456789"


# ---- real servers ---------------------------------------------------------------------------

class Versitygw(gcs_servers.Process):
    """An S3 gateway over files; buckets are the folders of self.files."""

    path = os.path.join(SERVERS, "versitygw")
    checks_signatures = True
    scheme = "http"

    def __init__(self, certificate=None):
        # Extended attributes hold what S3 knows of an object: /tmp may not have them.
        super().__init__()
        self.files = tempfile.mkdtemp(prefix="t4test-s3-", dir=t4test.BUILD_DIR)
        self.sidecar = os.path.join(self.directory, "sidecar")
        os.mkdir(self.sidecar)
        self.certificate = certificate
        self.keys = (ID, SECRET)  # that it takes; a change counts from the next start on
        self.scheme = "https" if certificate else "http"
        self.url = "%s://%s" % (self.scheme, self.address)

    def argv(self):
        tls = ["--cert", self.certificate[0], "--key", self.certificate[1]] \
            if self.certificate else []
        return ["env", "ROOT_ACCESS_KEY=" + self.keys[0], "ROOT_SECRET_KEY=" + self.keys[1],
                self.path, "--quiet", "--port", self.address] + tls + [
                    "posix", "--sidecar", self.sidecar, self.files]

    def make_bucket(self, name):
        os.mkdir(os.path.join(self.files, name))

    def close(self):
        super().close()
        t4test.shutil.rmtree(self.files, ignore_errors=True)


class Moto(gcs_servers.Process):
    """S3 in memory; takes any signature."""

    path = os.path.join(SERVERS, "moto", "bin", "moto_server")
    checks_signatures = False

    def __init__(self):
        super().__init__()
        self.url = "http://" + self.address

    def argv(self):
        return [self.path, "-H", "127.0.0.1", "-p", str(self.port)]

    def make_bucket(self, name):
        assert self.request("PUT", "/" + name) < 300


class S3rver(gcs_servers.Process):
    """An S3 server that ignores If-Match and If-None-Match."""

    path = os.path.join(SERVERS, "s3rver", "node_modules", ".bin", "s3rver")

    def __init__(self):
        super().__init__()
        self.url = "http://" + self.address

    def argv(self):
        return [self.path, "-d", self.directory, "-a", "127.0.0.1", "-p", str(self.port),
                "--silent", "--no-vhost-buckets", "--configure-bucket", "bucket"]


def real_server():
    """Versitygw, else Moto, not started; None if neither was made."""
    for kind in (Versitygw, Moto):
        if os.path.exists(kind.path):
            return kind()
    return None


# ---- an Amazon that can be told to misbehave ------------------------------------------------

def sign(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def wrong_signature(request, secrets):
    """What is wrong with a request's signature (the code of S3), or None."""
    match = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, "
        r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
        request.headers.get("Authorization", ""))
    if not match:
        return "AccessDenied"
    name, day, region, signed, signature = match.groups()
    if name not in secrets:
        return "InvalidAccessKeyId"
    if request.headers.get("x-amz-content-sha256") != hashlib.sha256(request.body).hexdigest():
        return "XAmzContentSHA256Mismatch"
    must = [n.lower() for n in request.headers if n.lower().startswith(("x-amz-", "if-")) or
            n.lower() in ("host", "range", "content-md5")]
    if sorted(must) != signed.split(";"):
        return "AccessDenied"
    path, _, query = request.path.partition("?")
    canonical = "\n".join(
        [request.command, path, "&".join(sorted(query.split("&"))) if query else ""] +
        ["%s:%s" % (n, " ".join(request.headers[n].split())) for n in signed.split(";")] +
        ["", signed, request.headers["x-amz-content-sha256"]])
    scope = "%s/%s/s3/aws4_request" % (day, region)
    text = "\n".join(["AWS4-HMAC-SHA256", request.headers["x-amz-date"], scope,
                      hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secrets[name]).encode()
    for part in (day, region, "s3", "aws4_request"):
        key = sign(key, part)
    if sign(key, text).hex() != signature:
        return "SignatureDoesNotMatch"
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *words):
        pass

    def version_string(self):
        return "test"

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass

    def date_time_string(self, timestamp=None):
        return email.utils.formatdate(time.time() + self.server.amazon.clock_ahead, usegmt=True)

    def _any(self):
        amazon = self.server.amazon
        self.query = dict(urllib.parse.parse_qsl(self.path.partition("?")[2],
                                                 keep_blank_values=True))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with amazon.lock:
            amazon.requests.append(types.SimpleNamespace(
                command=self.command, path=self.path, query=self.query, headers=self.headers,
                body=self.body))
            action = amazon.take_rule("%s %s" % (self.command, self.path))
        if action is None or not action(self):
            amazon.serve(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _any

    def answer(self, status, body=b"", headers=(), length=None):
        if isinstance(body, str):
            body = body.encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        # A length that is given is a lie: the connection ends where the body does.
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
        return self.hang_up() if length is not None and self.command != "HEAD" else True

    def refuse(self, status, code, message="", more="", headers=()):
        return self.answer(status, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>%s"
                           "</Message>%s</Error>" % (escape(code), escape(message), more),
                           headers)

    def hang_up(self):
        self.wfile.flush()
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        return True


class Amazon:
    """Bucket "bucket" in path style, STS at /sts, an instance's metadata at /latest."""

    def __init__(self, certificate=None):
        self.lock = threading.Lock()
        self.requests, self.rules, self.objects, self.uploads = [], [], {}, {}
        self.secrets = {ID: SECRET}  # by access key id
        self.tokens = {}             # session tokens that are wanted, by access key id
        self.given = 0               # temporary credentials given out
        self.life = 3600             # of these, in seconds
        self.clock_ahead = 0
        self.conditions = True       # False: as careless as some servers are
        self.quote = '"%s"'          # how ETags are written
        self.page = 1000             # most keys in a page
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.amazon = self
        scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.url = "%s://127.0.0.1:%d" % (scheme, self.server.server_address[1])
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,),
                                       daemon=True)
        self.thread.start()

    # -- scripts

    def rule(self, match, action, times=1):
        with self.lock:
            self.rules.append([match, action, times])

    def take_rule(self, line):
        for rule in self.rules:
            if rule[2] > 0 and rule[0] in line:
                rule[2] -= 1
                return rule[1]
        return None

    def clear(self):
        with self.lock:
            self.rules.clear()
            self.requests.clear()

    def count(self, match):
        with self.lock:
            return sum(match in "%s %s" % (r.command, r.path) for r in self.requests)

    def status(self, status, code="", message="", more="", headers=()):
        if not code:
            return lambda h: h.answer(status, b"", headers)
        return lambda h: h.refuse(status, code, message, more, headers)

    def raw(self, status, body=b"", headers=(), length=None):
        return lambda h: h.answer(status, body, headers, length)

    def cut(self):
        return lambda h: h.hang_up()

    def apply_and_cut(self):
        def action(handler):
            handler.answer = lambda *words, **more: True
            self.serve(handler)
            return handler.hang_up()
        return action

    def stall(self, until):
        def action(handler):
            until.wait(SECONDS)
            return handler.hang_up()
        return action

    # -- the services

    def serve(self, h):
        if h.path.startswith("/sts"):
            return self.sts(h)
        if h.path.startswith("/latest/"):
            return self.metadata(h)
        with self.lock:
            wrong = wrong_signature(h, self.secrets)
            name = h.headers.get("Authorization", "").partition("Credential=")[2].split("/")[0]
            if wrong is None and h.headers.get("x-amz-security-token") != self.tokens.get(name):
                wrong = "InvalidToken"
            if wrong is not None:
                return h.refuse(403, wrong, "not so")
            return self.bucket(h)

    def give(self):
        """New temporary credentials: id, secret, token, when they end."""
        with self.lock:
            self.given += 1
            name = "TEMP%d" % self.given
            self.secrets[name] = "temporary/secret%d" % self.given
            self.tokens[name] = "temporary/token+%d==" % self.given
            end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.life))
            return name, self.secrets[name], self.tokens[name], end

    def sts(self, h):
        form = dict(urllib.parse.parse_qsl(h.body.decode()))
        if form.get("WebIdentityToken") != "identity+token" or form.get("RoleArn") != "arn:role":
            return h.answer(403, "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied"
                            "</Code><Message>%s</Message></Error></ErrorResponse>"
                            % escape(form.get("WebIdentityToken", "")))
        return h.answer(
            200, "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/\">"
            "<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>%s</AccessKeyId>"
            "<SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s"
            "</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
            "</AssumeRoleWithWebIdentityResponse>" % self.give())

    def metadata(self, h):
        if h.command == "PUT" and h.path == "/latest/api/token":
            if not h.headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
                return h.answer(400)
            return h.answer(200, b"metadata-session")
        if h.headers.get("X-aws-ec2-metadata-token") != "metadata-session":
            return h.answer(401)
        base = "/latest/meta-data/iam/security-credentials/"
        if h.path == base:
            return h.answer(200, b"the role")
        if h.path == base + "the%20role":
            return h.answer(200, '{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"%s",'
                            '"SecretAccessKey":"%s","Token":"%s","Expiration":"%s"}'
                            % self.give())
        return h.answer(404)

    def bucket(self, h):
        path = urllib.parse.unquote(h.path.partition("?")[0])
        if path != "/bucket" and not path.startswith("/bucket/"):
            return h.refuse(404, "NoSuchBucket", "The specified bucket does not exist.")
        key = path[len("/bucket/"):]
        if not key:
            return self.remove_many(h) if "delete" in h.query else self.listing(h)
        if "uploads" in h.query or "uploadId" in h.query:
            return self.multipart(h, key)
        if h.command == "PUT":
            return self.store(h, key, h.body)
        if h.command == "DELETE":
            self.objects.pop(key, None)
            return h.answer(204)
        if key not in self.objects:
            return h.refuse(404, "NoSuchKey", "The specified key does not exist.")
        return self.fetch(h, self.objects[key])

    def tag(self, body):
        return self.quote % hashlib.md5(body).hexdigest()

    def store(self, h, key, body, headers=None):
        old = self.objects.get(key)
        wanted = h.headers.get("If-Match")
        if self.conditions and wanted is not None and old is None:
            return h.refuse(404, "NoSuchKey", "The specified key does not exist.")
        if self.conditions and ((wanted is not None and wanted != self.tag(old)) or
                                (h.headers.get("If-None-Match") and old is not None)):
            return h.refuse(412, "PreconditionFailed", "not as it was")
        self.objects[key] = body
        if headers is None:
            return h.answer(200, b"", [("ETag", self.tag(body))])
        return h.answer(200, "<CompleteMultipartUploadResult><ETag>%s</ETag>"
                        "</CompleteMultipartUploadResult>" % escape(self.tag(body)))

    def fetch(self, h, body):
        headers = [("ETag", self.tag(body)), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")]
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", h.headers.get("Range", ""))
        if not match:
            return h.answer(200, body, headers)
        first, last = int(match[1]), min(int(match[2] or len(body) - 1), len(body) - 1)
        if first >= len(body):
            return h.refuse(416, "InvalidRange", "not there")
        return h.answer(206, body[first:last + 1], headers + [
            ("Content-Range", "bytes %d-%d/%d" % (first, last, len(body)))])

    def multipart(self, h, key):
        if h.command == "POST" and "uploads" in h.query:
            name = "upload/+%d" % len(self.uploads)
            self.uploads[name] = {}
            return h.answer(200, "<InitiateMultipartUploadResult><UploadId>%s</UploadId>"
                            "</InitiateMultipartUploadResult>" % name)
        parts = self.uploads.get(h.query["uploadId"])
        if parts is None:
            return h.refuse(404, "NoSuchUpload", "The specified upload does not exist.")
        if h.command == "PUT":
            parts[int(h.query["partNumber"])] = h.body
            return h.answer(200, b"", [("ETag", self.tag(h.body))])
        if h.command == "DELETE":
            del self.uploads[h.query["uploadId"]]
            return h.answer(204)
        listed = [(int(part[0].text), part[1].text)
                  for part in xml.etree.ElementTree.fromstring(h.body)]
        if listed != [(n, self.tag(parts[n])) for n in sorted(parts)]:
            return h.refuse(400, "InvalidPart", "not these")
        result = self.store(h, key, b"".join(parts[n] for n in sorted(parts)), headers=())
        if self.objects.get(key) is not None:
            self.uploads.pop(h.query["uploadId"], None)
        return result

    def remove_many(self, h):
        tree = xml.etree.ElementTree.fromstring(h.body)
        for node in tree.iter("{http://s3.amazonaws.com/doc/2006-03-01/}Key"):
            self.objects.pop(node.text, None)
        return h.answer(200, "<DeleteResult></DeleteResult>")

    def listing(self, h):
        def shown(text):
            return urllib.parse.quote_plus(text, safe="/") \
                if h.query.get("encoding-type") == "url" else escape(text)

        keys = sorted((k for k in self.objects if k.startswith(h.query.get("prefix", ""))),
                      key=str.encode)
        after = h.query.get("continuation-token", h.query.get("start-after", ""))
        keys = [k for k in keys if k.encode() > after.encode()]
        most = min(self.page, int(h.query.get("max-keys", 1000)))
        more = len(keys) > most
        text = "".join("<Contents><Key>%s</Key><LastModified>2009-10-12T17:50:30.500Z"
                       "</LastModified><ETag>%s</ETag><Size>%d</Size></Contents>" % (
                           shown(k), escape(self.tag(self.objects[k])), len(self.objects[k]))
                       for k in keys[:most])
        return h.answer(200, "<?xml version=\"1.0\"?><ListBucketResult "
                        "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>%s"
                        "</IsTruncated>%s%s%s</ListBucketResult>" % (
                            str(more).lower(), text,
                            "<EncodingType>url</EncodingType>"
                            if h.query.get("encoding-type") == "url" else "",
                            "<NextContinuationToken>%s</NextContinuationToken>"
                            % escape(keys[most - 1]) if more else ""))

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
