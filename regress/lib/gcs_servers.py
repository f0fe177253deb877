"""gcs_servers.py - what the tests of gs:// talk to: real emulators, and a Google of our own that
can be told to misbehave.

Entry points: FakeGcs (fake-gcs-server, made by regress/object-servers/build), Emulator
(gcp-storage-emulator, which ignores conditions), Google (storage, token server and metadata
server in this process, with scripted faults), Tool (regress/tools/object_tool).

Google keeps every request it got.  rule(match, action, times) makes the next `times` requests
whose "METHOD path" contains `match` end with `action`, a function that gets the handler and
returns True when it has answered; Google's own methods status(), cut(), apply_and_cut(),
stall(), raw() make such functions.

Threads: Google answers on threads of its own; everything else belongs to the caller.

SPDX-License-Identifier: Apache-2.0
"""

import atexit
import base64
import http.client
import http.server
import json
import os
import selectors
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import types
import urllib.parse

import t4test

SERVERS = os.path.join(t4test.BUILD_DIR, "object-servers")
SECONDS = 60


class Tool:
    """regress/tools/object_tool on one store; run() sends a command and gives its answer."""

    path = os.path.join(t4test.BUILD_DIR, "regress", "tools", "object_tool")

    def __init__(self, url, settings=(), environment=None):
        env = {name: value for name, value in os.environ.items()
               if not name.startswith(("GOOGLE_", "GCE_", "STORAGE_", "CLOUDSDK_"))
               and name.lower() not in ("http_proxy", "https_proxy", "all_proxy")}
        env["CLOUDSDK_CONFIG"] = "/nonexistent"
        env.update(environment or {})
        self.everything = []
        self.process = subprocess.Popen(
            [self.path, url] + list(settings), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=env)
        self.rest = b""
        self.lines = []
        self.opened = self._answer()
        atexit.register(self.close)

    def send(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def run(self, command, seconds=SECONDS):
        """The line of the status; what was listed before it is in self.listed."""
        self.send(command)
        return self._answer(seconds)

    def wait(self, seconds=SECONDS):
        """The answer to what was sent."""
        return self._answer(seconds)

    def _answer(self, seconds=SECONDS):
        self.listed = []
        while True:
            line = self._line(time.monotonic() + seconds)
            self.everything.append(line)
            if line.split(" ", 1)[0] in STATUSES:
                return line
            self.listed.append(line)

    def _line(self, deadline):
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.rest:
                if not ready.select(max(0, deadline - time.monotonic())):
                    return "TIMEOUT (the tool did not answer)"
                more = os.read(self.process.stdout.fileno(), 1 << 16)
                if not more:
                    return "INTERNAL (the tool ended: %s)" % self.rest.decode(errors="replace")
                self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode(errors="replace")

    def close(self):
        """Ends the tool; its exit status."""
        atexit.unregister(self.close)
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.everything.append(self.process.stdout.read().decode(errors="replace"))
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


STATUSES = {"OK", "NOTFOUND", "EXISTS", "PRECONDITION", "BUSY", "TIMEOUT", "CANCELLED",
            "UNKNOWN", "UNAVAILABLE", "DENIED", "INVALID", "CORRUPT", "NOSPACE", "NOMEM",
            "UNSUPPORTED", "INTERNAL", "IO", "?"}


# ---- real servers ---------------------------------------------------------------------------

class Process:
    """An HTTP server in a process of its own, ready when it answers a request."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="t4test-")
        self.port = t4test.free_port()
        self.address = "127.0.0.1:%d" % self.port
        self.process = None
        atexit.register(self.close)

    def argv(self):
        raise NotImplementedError

    def start(self):
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(self.argv(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd=self.directory)
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    with open(os.path.join(self.directory, "log")) as log:
                        raise t4test.StartError(log.read()[-2000:])
                time.sleep(0.02)
        return self

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.address, timeout=SECONDS)
        connection.request(method, path, body=body,
                           headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    def make_bucket(self, name):
        assert self.request("POST", "/storage/v1/b?project=t", json.dumps({"name": name})) < 300

    def pause(self):
        """Stops it for good; it has stopped when this returns."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def unread_bytes(self):
        """What clients have sent and the server has not read yet, by the kernel's count."""
        total = 0
        with open("/proc/net/tcp") as table:
            for line in list(table)[1:]:
                words = line.split()
                if int(words[1].split(":")[1], 16) == self.port and words[3] == "01":
                    total += int(words[4].split(":")[1], 16)
        return total

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self):
        atexit.unregister(self.close)
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class FakeGcs(Process):
    path = os.path.join(SERVERS, "fake-gcs-server")

    def argv(self):
        return [self.path, "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1",
                "-port", str(self.port), "-log-level", "error"]


class Emulator(Process):
    path = os.path.join(SERVERS, "gcp-storage-emulator", "bin", "gcp-storage-emulator")

    def argv(self):
        return [self.path, "start", "--host", "127.0.0.1", "--port", str(self.port),
                "--in-memory", "--quiet"]


# ---- a Google that can be told to misbehave -------------------------------------------------

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

    def _any(self):
        google = self.server.google
        self.parts = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(self.parts.query, keep_blank_values=True))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with google.lock:
            google.requests.append(types.SimpleNamespace(  # the handler serves others after it
                command=self.command, path=self.path, query=self.query, headers=self.headers,
                body=self.body))
            action = google.take_rule("%s %s" % (self.command, self.path))
        if action is None or not action(self):
            google.serve(self)

    do_GET = do_POST = do_PUT = do_DELETE = _any

    def answer(self, status, body=b"", headers=(), length=None):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        # A length that is given is a lie: the connection ends where the body does.
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        return self.hang_up() if length is not None else True

    def refuse(self, status, reason, message):
        return self.answer(status, {"error": {"code": status, "message": message, "errors": [
            {"domain": "global", "reason": reason, "message": message}]}})

    def hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
        return True


class Google:
    """Bucket "bucket", /token, the metadata server, on one port."""

    def __init__(self, certificate=None):
        self.lock = threading.Lock()
        self.requests, self.rules, self.objects = [], [], {}
        self.sessions = {}
        self.generation = 1000
        self.tokens = None      # None: no credentials wanted; else the valid ones
        self.given = 0          # tokens given out
        self.life = 3600        # of a token, in seconds
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.google = self
        scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.address = "127.0.0.1:%d" % self.server.server_address[1]
        self.url = "%s://%s" % (scheme, self.address)
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

    def status(self, code, reason="", message=""):
        return lambda h: h.refuse(code, reason, message)

    def raw(self, code, body=b"", headers=(), length=None):
        return lambda h: h.answer(code, body, headers, length)

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

    # -- the service

    def serve(self, h):
        path = h.parts.path
        if path == "/token":
            return self.token(h)
        if path.startswith("/computeMetadata/"):
            if h.headers.get("Metadata-Flavor") != "Google":
                return h.answer(403, b"no flavor")
            return self.token(h)
        with self.lock:
            if self.tokens is not None and \
                    h.headers.get("Authorization", "")[len("Bearer "):] not in self.tokens:
                return h.refuse(401, "authError", "Invalid Credentials")
            return self.storage(h, path)

    def token(self, h):
        with self.lock:
            self.given += 1
            token = "secret-token-%d" % self.given
            if self.tokens is not None:
                self.tokens.add(token)
            life = self.life
        return h.answer(200, {"access_token": token, "expires_in": life,
                              "token_type": "Bearer"})

    def storage(self, h, path):
        if path == "/upload/storage/v1/b/bucket/o":
            return self.upload(h)
        if path == "/storage/v1/b/bucket/o":
            return self.listing(h)
        start = "/storage/v1/b/bucket/o/"
        name = urllib.parse.unquote(path[len(start):])
        if not path.startswith(start):
            return h.refuse(404, "notFound", "The specified bucket does not exist.")
        if name not in self.objects:
            return h.answer(404, ("No such object: bucket/" + name).encode())
        if h.command == "DELETE":
            del self.objects[name]
            return h.answer(204)
        body, generation = self.objects[name]
        if h.query.get("alt") != "media":
            return h.answer(200, self.metadata(name))
        return h.answer(200, body, [("X-Goog-Generation", str(generation))])

    def metadata(self, name):
        body, generation = self.objects[name]
        return {"name": name, "generation": str(generation), "size": str(len(body)),
                "updated": "2020-02-29T12:00:00.500Z"}

    def store(self, h, name, condition, body):
        present = self.objects.get(name, (b"", 0))[1]
        if condition is not None and int(condition) != present:
            return h.refuse(412, "conditionNotMet", "Precondition Failed")
        self.generation += 1
        self.objects[name] = (body, self.generation)
        return h.answer(200, self.metadata(name))

    def upload(self, h):
        name, condition = h.query["name"], h.query.get("ifGenerationMatch")
        if h.query["uploadType"] == "media":
            return self.store(h, name, condition, h.body)
        if "upload_id" not in h.query:
            number = str(len(self.sessions))
            self.sessions[number] = bytearray()
            return h.answer(200, b"", [("Location", "%s%s&upload_id=%s" % (
                self.url, h.path, number))])
        kept = self.sessions[h.query["upload_id"]]
        span, total = h.headers["Content-Range"][len("bytes "):].split("/")
        first = int(span.split("-")[0])
        assert first <= len(kept)
        del kept[first:]
        kept += h.body
        if len(kept) == int(total):
            return self.store(h, name, condition, bytes(kept))
        return h.answer(308, b"", [("Range", "bytes=0-%d" % (len(kept) - 1))])

    def listing(self, h):
        names = sorted((n for n in self.objects if n.startswith(h.query.get("prefix", ""))
                        and n >= h.query.get("startOffset", "")), key=str.encode)
        most, start = int(h.query.get("maxResults", 1000)), int(h.query.get("pageToken", 0))
        page = {"items": [self.metadata(n) for n in names[start:start + most]]}
        if start + most < len(names):
            page["nextPageToken"] = str(start + most)
        return h.answer(200, page)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class Account:
    """A service account's key: a file for the plugin, and the public half to check it."""

    def __init__(self, token_uri):
        self.directory = tempfile.mkdtemp(prefix="t4test-")
        atexit.register(shutil.rmtree, self.directory, True)
        self.file = os.path.join(self.directory, "key.json")
        self.private = subprocess.run(
            ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout.decode()
        self.public = os.path.join(self.directory, "public.pem")
        with open(self.public, "wb") as out:
            out.write(subprocess.run(["openssl", "pkey", "-pubout"],
                                     input=self.private.encode(), stdout=subprocess.PIPE,
                                     check=True).stdout)
        self.content = {"type": "service_account", "project_id": "t", "private_key_id": "k1",
                        "private_key": self.private, "client_email": "t4@t.example",
                        "client_id": "7", "token_uri": token_uri}
        self.write()

    def write(self, **changes):
        with open(self.file, "w") as out:
            json.dump({**self.content, **changes}, out)

    def verify(self, assertion):
        """(header, claims) if the signature is this account's, else None."""
        signed, _, signature = assertion.rpartition(".")
        with open(os.path.join(self.directory, "signature"), "wb") as out:
            out.write(decode64(signature))
        good = subprocess.run(
            ["openssl", "dgst", "-sha256", "-verify", self.public, "-signature", out.name],
            input=signed.encode(), stdout=subprocess.DEVNULL).returncode == 0
        return tuple(json.loads(decode64(part)) for part in signed.split(".")) if good else None


def decode64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def certificate(directory):
    """A self-signed one for 127.0.0.1: (file of the certificate, file of the key)."""
    crt, key = os.path.join(directory, "crt.pem"), os.path.join(directory, "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", crt],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return crt, key
