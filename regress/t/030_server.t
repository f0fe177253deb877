#!/usr/bin/python3
"""030_server.t - `t4 run` as an operator meets it, and the small commands.

Refused options and what they say, the order of starting as seen over HTTP, metrics, warnings,
two servers on one data directory, stopping politely with streams open, the second signal, the
hook that holds the log.

SPDX-License-Identifier: Apache-2.0
"""

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()
if not os.path.exists(t4test.T4.binary):
    TAP.skip_all("t4 was not built")

import grpc  # noqa: E402
import etcdclient  # noqa: E402

# What the test suite is told by variables is not for the servers under test.
for variable in [name for name in os.environ if name.startswith("T4_")]:
    del os.environ[variable]
SECONDS = 20


# ---- helpers --------------------------------------------------------------------------------

def command(*words, **variables):
    """Runs t4 to its end: (status, standard output, standard error)."""
    environment = dict(os.environ)
    environment.update(variables)
    run = subprocess.run([t4test.T4.binary] + list(words), stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         env=environment, timeout=SECONDS)
    return run.returncode, run.stdout, run.stderr


def get(address, path, method="GET", body=None, headers=None):
    """(status, text, headers) of one HTTP request."""
    connection = http.client.HTTPConnection(address, timeout=SECONDS)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode(), dict(response.getheaders())
    finally:
        connection.close()


def until(condition, what):
    """Asks again until it holds; what fails to come is a failure of the test."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError("waited %d s in vain for: %s" % (SECONDS, what))


def reachable(address):
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
    except OSError:
        return False
    return True


def logged(server, words):
    return until(lambda: words in server.log() or None, "'%s' in the log" % words)


def status_of_end(server):
    """The exit status of a server that ends by itself, without raising."""
    return server.wait(SECONDS)


def error_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def section(function):
    """Runs a part; an exception is a failed assertion with its text."""
    try:
        function()
    except Exception as error:  # noqa: B902 (whatever it is, the others still run)
        TAP.ok(False, function.__name__ + " runs to its end", "%s: %s" % (
            type(error).__name__, error))


# ---- the command line -----------------------------------------------------------------------

def small_commands():
    status, out, err = command("version")
    TAP.ok(status == 0 and re.match(r"t4 \d+\.\d+\.\d+\n", out) and "\netcd API 3.6." in out
           and re.search(r"^plugin ABI 1\.\d+$", out, re.M) and err == "",
           "t4 version says the versions", out, err)
    TAP.equal(command("--version")[:2], (0, out), "t4 --version is the same")
    status, out, err = command("help")
    TAP.ok(status == 0 and "t4 run" in out and err == "", "t4 help says what there is", out, err)
    flags = command("help", "run")
    TAP.ok(flags[0] == 0 and "--data-dir=DIR" in flags[1] and "T4_DATA_DIR" in flags[1]
           and "default /var/lib/t4" in flags[1], "t4 help run lists the flags", flags)
    TAP.equal(command("run", "--help"), flags, "t4 run --help is the same")
    for words in ((), ("serve",), ("help", "serve"), ("version", "now"), ("--data-dir=x",)):
        status, out, err = command(*words)
        TAP.ok(status == 2 and "t4 help" in out + err,
               "t4 %s: status 2 and where to look" % " ".join(words), status, out, err)
    with open("/dev/full", "w") as full:
        status = subprocess.run([t4test.T4.binary, "version"], stdout=full,
                                stderr=subprocess.DEVNULL, timeout=SECONDS).returncode
    TAP.equal(status, 1, "what cannot be written to standard output is a failure")


def refused_options():
    directory = tempfile.mkdtemp(prefix="t4test-")
    data = os.path.join(directory, "data")
    cases = [
        (["--max-txn-ops=0"], {}, ["--max-txn-ops", '"0"', "1 to 65536"]),
        (["--listen=localhost"], {}, ["--listen", "port is missing"]),
        (["--log-level", "loud"], {}, ["--log-level", "error, warn, info or debug"]),
        (["--lisen=127.0.0.1:1"], {}, ["--lisen", "--listen?"]),
        ([], {"T4_THREADS": "many"}, ["T4_THREADS", '"many"', "1 to 64"]),
        (["--client-tls-cert=x"], {}, ["--client-tls-cert", "TLS", "does not have"]),
        (["--checkpoint-entries=9"], {}, ["--checkpoint-entries", "checkpoints", "not have"]),
        (["--s3-secret-access-key=x"], {}, ["T4_S3_SECRET_ACCESS_KEY", "command line"]),
        ([], {"T4_AUTH_ENABLED": "true"}, ["T4_AUTH_ENABLED", "users and roles"]),
        ([], {"T4_PEER_LISTEN": "x:1"}, ["T4_PEER_LISTEN", "cluster"]),
    ]
    for words, variables, wanted in cases:
        status, out, err = command("run", "--data-dir", data, *words, **variables)
        TAP.ok(status == 2 and out == "" and all(word in err for word in wanted),
               "refused, and told why: %s" % (words or variables), status, err)
    TAP.ok(not os.path.exists(data), "nothing was begun in the data directory")
    os.rmdir(directory)


def failed_starts():
    """Status 1, one line with the reason and the way out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with t4test.T4(["--metrics-addr=127.0.0.1:%d" % port]) as server:
            TAP.equal(status_of_end(server.start(wait=False)), 1, "metrics port taken: status 1")
            TAP.ok("127.0.0.1:%d" % port in server.log() and "--metrics-addr" in server.log(),
                   "it names the address and the flag", server.log())
        with t4test.T4(["--listen=127.0.0.1:%d" % port]) as server:
            TAP.equal(status_of_end(server.start(wait=False)), 1, "clients' port taken: status 1")
            TAP.ok(":%d" % port in server.log() and "INFO ready" not in server.log(),
                   "it names the address", server.log())
    with t4test.T4(["--plugin-option=lmdb.map_siz=1GB"]) as server:
        TAP.equal(status_of_end(server.start(wait=False)), 1, "unknown plugin setting: status 1")
        TAP.ok("map_siz" in server.log() and "lmdb.map_size" in server.log(),
               "it names the nearest", server.log())
    with t4test.T4(["--storage-engine=no_such_engine"]) as server:
        TAP.equal(status_of_end(server.start(wait=False)), 1, "no such plugin: status 1")
        TAP.ok("no_such_engine.so" in server.log() and "hint=" in server.log(),
               "it names the file and the way out", server.log())
    with t4test.T4() as server:
        server.data_dir = os.path.join(server.directory, "no", "such", "folder")
        TAP.equal(status_of_end(server.start(wait=False)), 1, "no parent folder: status 1")
        TAP.ok(server.data_dir in server.log() and "--data-dir" in server.log(),
               "it names the directory", server.log())


# ---- starting -------------------------------------------------------------------------------

def gated(server):
    fifo = os.path.join(server.directory, "gate")
    os.mkfifo(fifo)
    server.options += ["--storage-engine=test_gate", "--plugin-option=test_gate.fifo=" + fifo,
                       "--plugin-dir=" + os.path.join(t4test.BUILD_DIR, "regress", "plugins")]
    server.start(wait=False)
    until(lambda: reachable(server.metrics_address) or not server.running(), "the HTTP port")
    return fifo


def health_while_starting():
    with t4test.T4() as server:
        fifo = gated(server)
        at = server.metrics_address
        TAP.equal(get(at, "/healthz")[:2], (200, "ok\n"), "starting: /healthz is 200")
        TAP.equal(get(at, "/livez")[:2], (200, "ok\n"), "starting: /livez is 200")
        status, text, _ = until(
            lambda: (lambda r: r if "plugin" in r[1] else None)(get(at, "/readyz")),
            "the reason in /readyz")
        why = "_read failed: starting: loading the storage engine's plugin\n"
        TAP.equal((status, text), (503, "[+]data_corruption ok\n[-]serializable" + why +
                                   "[-]linearizable" + why + "[+]non_learner ok\n\n"),
                  "starting: /readyz is 503 with the reason")
        status, text, _ = get(at, "/health")
        TAP.ok(status == 503 and json.loads(text)["health"] == "false"
               and json.loads(text)["reason"].startswith("starting"),
               "starting: /health is 503 with the reason", text)
        status, text, _ = get(at, "/metrics")
        TAP.ok(status == 200 and "\nt4_ready 0\n" in text
               and "process_resident_memory_bytes" in text and "t4_revision" not in text,
               "starting: /metrics is there", text)
        with open(fifo, "w"):
            pass
        TAP.equal(status_of_end(server), 1, "a plugin that fails ends the start with status 1")
        TAP.ok("the gate was opened" in server.log() and "nothing to offer" in server.log(),
               "with the plugin's words and hint", server.log())
    with t4test.T4() as server:
        gated(server)
        TAP.equal(server.stop(), 0, "SIGTERM during the start ends it at once, status 0")


def pages():
    with t4test.T4() as server:
        server.start()
        at = server.metrics_address
        until(lambda: get(at, "/readyz")[0] == 200, "/readyz")
        TAP.equal(get(at, "/readyz")[:2], (200, "ok\n"), "/readyz is 200 when ready")
        TAP.equal(json.loads(get(at, "/health")[1]), {"health": "true", "reason": ""},
                  "/health as etcd's")
        TAP.equal(json.loads(get(at, "/version")[1]),
                  {"etcdserver": "3.6.16", "etcdcluster": "3.6.0", "storage": "3.6.0"},
                  "/version as etcd's")
        status, text, headers = get(at, "/nothing")
        TAP.ok(status == 404 and "/metrics" in text, "404 says what there is", text)
        status, text, headers = get(at, "/metrics", "POST", "x" * 100)
        TAP.ok(status == 405 and "GET" in headers.get("Allow", ""), "405 for POST", text, headers)
        TAP.equal(get(at, "/metrics", "GET", "x" * 100)[0], 400, "a body is refused")
        TAP.equal(get(at, "/healthz", "HEAD")[:2], (200, ""), "HEAD is answered")
        try:
            status = get(at, "/healthz", headers={"X-Long": "x" * 100000})[0]
        except (OSError, http.client.HTTPException):
            status = "closed"
        TAP.ok(status in ("closed", 413, 414, 431), "a head of 100 kB is refused", status)
        connection = http.client.HTTPConnection(at, timeout=SECONDS)
        answers = []
        for _ in range(3):
            connection.request("GET", "/healthz")
            answers.append(connection.getresponse().read())
        connection.close()
        TAP.equal(answers, [b"ok\n"] * 3, "a connection is used again")
        metrics(server)


def metrics(server):
    with open(os.path.join(t4test.SRC_DIR, "src", "base", "metrics.tbl")) as table:
        known = re.findall(r'^(?:METRIC|ALIAS)\(\w+, (\w+), "(\w+)"', table.read(), re.M)
    client = etcdclient.Client(server.address)
    client.put(b"k", b"v")
    revision = client.range(b"k").header.revision
    client.close()
    status, text, headers = get(server.metrics_address, "/metrics")
    TAP.ok(headers["Content-Type"].startswith("text/plain; version=0.0.4"),
           "/metrics has Prometheus' type", headers)
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
    TAP.equal([name for kind, name in known if types.get(name) != kind.split("_")[0]], [],
              "every metric of the table is there with its kind")
    for kind, name in known:
        if kind.startswith("histogram"):
            counts = [int(n) for n in re.findall(r'^%s_bucket{le="[^"]+"} (\d+)$' % name, text,
                                                 re.M)]
            total = int(re.search(r"^%s_count (\d+)$" % name, text, re.M).group(1))
            TAP.ok(len(counts) == 15 and counts == sorted(counts) and counts[-1] == total,
                   "%s: cumulative buckets" % name, counts, total)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    bad = [line for line in lines if not re.match(
        r'^[a-z_][a-z0-9_]*({[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*})? -?[0-9.e+]+$', line)]
    TAP.equal(bad, [], "every line is well-formed")
    values = dict(line.rsplit(" ", 1) for line in lines)
    TAP.equal(int(values["t4_revision"]), revision, "t4_revision is the revision")
    TAP.equal(int(values['t4_requests_total{op="put"}']), 1, "the put was counted")
    TAP.equal(values["t4_ready"], "1", "t4_ready is 1")
    with open("/proc/%d/status" % server.process.pid) as f:
        resident = int(re.search(r"VmRSS:\s+(\d+) kB", f.read()).group(1)) * 1024
    TAP.ok(0.5 < float(values["process_resident_memory_bytes"]) / resident < 2,
           "process_resident_memory_bytes is about right",
           values["process_resident_memory_bytes"], resident)
    age = time.time() - float(values["process_start_time_seconds"])
    TAP.ok(-1 < age < 600, "process_start_time_seconds is about right", age)
    descriptors = len(os.listdir("/proc/%d/fd" % server.process.pid))
    TAP.ok(abs(float(values["process_open_fds"]) - descriptors) <= 5,
           "process_open_fds is about right", values["process_open_fds"], descriptors)


# ---- options that take effect ---------------------------------------------------------------

def settings_take_effect():
    with t4test.T4(["--node-id=alpha", "--advertise-client-urls=http://10.1.2.3:3379",
                    "--max-request-bytes=1KiB", "--max-txn-ops=2"],
                   {"T4_LOG_FORMAT": "json", "T4_LOG_LEVEL": "debug"}) as server:
        server.start()
        client = etcdclient.Client(server.address)
        members = client.member_list().members
        TAP.equal([(m.name, list(m.clientURLs)) for m in members],
                  [("alpha", ["http://10.1.2.3:3379"])], "--node-id, --advertise-client-urls")
        TAP.equal(error_of(lambda: client.put(b"k", b"x" * 1100)),
                  ("INVALID_ARGUMENT", "etcdserver: request is too large"), "--max-request-bytes")
        api = etcdclient.api
        ops = [api.RequestOp(request_range=api.RangeRequest(key=b"k"))] * 3
        TAP.equal(error_of(lambda: client.txn(success=ops)),
                  ("INVALID_ARGUMENT", "etcdserver: too many operations in txn request"),
                  "--max-txn-ops")
        client.close()
        TAP.equal(server.stop(), 0, "stops")
        events = [json.loads(line) for line in server.log().splitlines()]
        TAP.ok(all({"time", "level", "message"} <= set(event) for event in events),
               "T4_LOG_FORMAT=json: every line is an object", server.log())
        ready = [event for event in events if event["message"] == "ready"]
        TAP.ok(len(ready) == 1 and ready[0]["endpoints"] == server.address
               and ready[0]["revision"] == "1" and ready[0]["data_dir"] == server.data_dir,
               "one line says ready: endpoint, revision, data directory", ready)
        modes = {}
        for folder, _, files in os.walk(server.data_dir):
            for path in [folder] + [os.path.join(folder, name) for name in files]:
                modes[path] = stat.S_IMODE(os.stat(path).st_mode)
        TAP.equal({path: oct(mode) for path, mode in modes.items() if mode & 0o077}, {},
                  "what is in the data directory is for its owner only")


def variables_only():
    """Everything from the environment; a flag goes before it."""
    with t4test.T4() as server:
        server.argv = lambda: [server.binary, "run", "--node-id=flag"]
        server.environment = {"T4_DATA_DIR": server.data_dir, "T4_LISTEN": server.address,
                              "T4_METRICS_ADDR": server.metrics_address,
                              "T4_STORAGE_ENGINE": "memory", "T4_NODE_ID": "variable",
                              "T4_DATADIR": "/nowhere", "T4_THREADS": ""}
        server.start()
        client = etcdclient.Client(server.address)
        TAP.equal(client.member_list().members[0].name, "flag", "the flag goes before the variable")
        client.close()
        TAP.ok("engine=memory" in server.log(), "the engine of T4_STORAGE_ENGINE", server.log())
        TAP.ok(re.search(r"WARN .*T4_DATADIR.*T4_DATA_DIR", server.log()),
               "an unknown variable is warned about, with the nearest", server.log())


def listening():
    port, open_port = t4test.free_port(), t4test.free_port()
    with t4test.T4() as server:
        unix = os.path.join(server.directory, "t4.sock")
        server.options += ["--listen=%s,unix:%s" % (server.address, unix)]
        server.start()
        client = etcdclient.Client("unix:" + unix)
        client.put(b"k", b"through a unix socket")
        TAP.equal(client.range(b"k").kvs[0].value, b"through a unix socket", "a unix socket serves")
        TAP.equal(oct(stat.S_IMODE(os.stat(unix).st_mode) & 0o077), oct(0),
                  "others may not connect to it")
        TAP.equal(list(client.member_list().members[0].clientURLs),
                  ["http://" + server.address, "unix://" + unix], "it is advertised, too")
        client.close()
        TAP.ok("WARN" not in server.log(), "loopback and unix sockets: no warning", server.log())
        TAP.equal(server.stop(), 0, "stops")
        TAP.ok(not os.path.exists(unix), "the socket is gone after the stop")
    with t4test.T4(["--listen=127.0.0.1:%d,0.0.0.0:%d" % (port, open_port)]) as server:
        server.address = "127.0.0.1:%d" % open_port
        server.start()
        warnings = [line for line in server.log().splitlines() if " WARN " in line]
        TAP.ok(len(warnings) == 1 and "0.0.0.0:%d" % open_port in warnings[0]
               and "TLS" in warnings[0] and "risk=" in warnings[0] and "remedy=" in warnings[0],
               "beyond loopback: one warning for the address, with risk and remedy", *warnings)
        client = etcdclient.Client(server.address)
        urls = list(client.member_list().members[0].clientURLs)
        TAP.ok(len(urls) == 2 and "0.0.0.0" not in urls[1], "0.0.0.0 is not advertised", urls)
        client.close()
    if not has_ipv6():
        TAP.diag("no IPv6 loopback here")
        return
    with t4test.T4() as server:
        server.address = "[::1]:%d" % server.port
        server.metrics_address = "[::1]:%d" % server.metrics_port
        server.start()
        until(lambda: "INFO ready" in server.log(), "ready")
        TAP.ok("WARN" not in server.log() and get("[::1]:%d" % server.metrics_port,
                                                  "/readyz")[0] == 200,
               "IPv6 loopback serves clients and health", server.log())


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


def metrics_off():
    with t4test.T4() as server:
        server.options += ["--metrics-addr=off"]
        server.start()
        TAP.ok(not reachable(server.metrics_address), "--metrics-addr=off listens nowhere")
        TAP.equal(server.stop(), 0, "stops")


def two_servers():
    with t4test.T4() as server, t4test.T4() as second:
        server.start()
        second.data_dir = server.data_dir
        TAP.equal(status_of_end(second.start(wait=False)), 1,
                  "a second server on the directory: status 1")
        TAP.ok(server.data_dir in second.log() and "another server" in second.log()
               and "--data-dir" in second.log(), "it says so, and what to do", second.log())
        client = etcdclient.Client(server.address)
        client.put(b"k", b"v")
        TAP.equal(client.range(b"k").count, 1, "the first one goes on")
        client.close()


# ---- stopping -------------------------------------------------------------------------------

def stop_with_streams():
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT"),
                         (signal.SIGHUP, "SIGHUP")):
        with t4test.T4(["--shutdown-grace=10s"]) as server:
            server.start()
            client = etcdclient.Client(server.address)
            client.put(b"k", b"v")
            watch = client.watch_stream()
            watch.created(b"k")
            lease = client.lease_grant(60).ID
            alive = client.keep_alive()
            alive.ask(lease)
            begun = time.monotonic()
            server.process.send_signal(number)
            TAP.equal(server.wait(SECONDS), 0, "%s with open streams: status 0" % name)
            TAP.ok(time.monotonic() - begun < 10, "it did not use up the grace")
            for stream, what in ((watch, "watch"), (alive, "keepalive")):
                try:
                    stream.next(SECONDS)
                    end = "a message"
                except etcdclient.Closed as closed:
                    end = etcdclient.status_of(closed.error)
                TAP.equal(end, ("UNAVAILABLE", "etcdserver: server stopped"),
                          "the %s stream ended politely" % what)
            client.close()
            TAP.ok(re.search(r"INFO stopping signal=%s" % name[3:], server.log())
                   and server.log().endswith("INFO stopped\n"), "the log says so", server.log())
            server.start()
            client = etcdclient.Client(server.address)
            TAP.equal(client.range(b"k").kvs[0].value, b"v", "the data are there after a restart")
            client.close()


HOLD = {"T4_TEST_HOLD_SYNC": "1"}


class Put(threading.Thread):
    """A put that may take long; result after join(): "OK" or the error."""

    def __init__(self, server, key):
        super().__init__(daemon=True)
        self.client = etcdclient.Client(server.address)
        self.client.range(b"connected")
        self.key = key
        self.result = None
        self.start()

    def run(self):
        self.result = error_of(lambda: self.client.put(self.key, b"v"))[0]


def count_of_puts(server):
    text = get(server.metrics_address, "/metrics")[1]
    return int(re.search(r'^t4_requests_total{op="put"} (\d+)$', text, re.M).group(1))


def held_put(server, key=b"held"):
    """Holds the log and sends a put, which is evaluated but cannot be answered."""
    server.process.send_signal(signal.SIGUSR1)
    logged(server, "the log's sync is held")
    before = count_of_puts(server)
    put = Put(server, key)
    until(lambda: count_of_puts(server) > before, "the put to be evaluated")
    return put


def hold_and_release():
    with t4test.T4(environment=HOLD) as server:
        server.start()
        put = held_put(server)
        client = etcdclient.Client(server.address)
        TAP.equal(client.range(b"held", serializable=True).count, 0, "a held write is not shown")
        TAP.ok(put.is_alive(), "a held put is not answered")
        server.process.send_signal(signal.SIGUSR2)
        put.join(SECONDS)
        TAP.equal(put.result, "OK", "it is, when the log is released")
        TAP.equal(client.range(b"held").count, 1, "and shown")
        client.close()
        TAP.equal(server.stop(), 0, "stops")
    with t4test.T4() as server:
        server.start()
        server.process.send_signal(signal.SIGUSR1)
        server.process.send_signal(signal.SIGUSR2)
        client = etcdclient.Client(server.address)
        client.put(b"k", b"v")
        TAP.ok(server.running() and "held" not in server.log(),
               "without T4_TEST_HOLD_SYNC both signals are ignored", server.log())
        client.close()


def grace_ends():
    with t4test.T4(["--shutdown-grace=200ms"], HOLD) as server:
        server.start()
        put = held_put(server)
        TAP.equal(server.stop(), 0, "a request that cannot be answered: the grace ends the wait")
        put.join(SECONDS)
        TAP.ok(put.result is not None, "its client was told how it ended")


def second_signal():
    with t4test.T4(["--shutdown-grace=10m"], HOLD) as server:
        server.start()
        held_put(server)
        server.process.send_signal(signal.SIGTERM)
        status, text, _ = until(
            lambda: (lambda r: r if r[0] == 503 else None)(get(server.metrics_address, "/readyz")),
            "/readyz to be off")
        TAP.ok("failed: stopping" in text, "while stopping /readyz is 503 and says so", text)
        TAP.equal(get(server.metrics_address, "/healthz")[0], 200, "/healthz is still 200")
        TAP.ok(server.running(), "it waits for the request")
        TAP.equal(server.stop(), 1, "a second signal ends it at once, status 1")
        TAP.ok("second signal" in server.log(), "the log says so", server.log())
        server.start()
        TAP.ok(server.running(), "and the next start recovers")


def main():
    for part in (small_commands, refused_options, failed_starts, health_while_starting, pages,
                 settings_take_effect, variables_only, listening, metrics_off, two_servers,
                 stop_with_streams, hold_and_release, grace_ends, second_signal):
        section(part)
    TAP.done()


main()
