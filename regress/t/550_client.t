#!/usr/bin/python3
"""550_client.t - the commands that are a client: endpoints, statuses, what fails in between.

That they print what etcdctl prints is 551_etcdctl_alike.t's.  Here: where the endpoint comes from;
exit statuses and words of errors; a watch and its server's kill -9; leases that are kept alive; a
transaction whose input is cut off; snapshots that come whole, damaged, or not at all.

SPDX-License-Identifier: Apache-2.0
"""

import concurrent.futures
import hashlib
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time

import grpc

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from running import SECONDS, Running  # noqa: E402

TAP = t4test.Tap()
ENVIRONMENT = {name: value for name, value in os.environ.items()
               if not name.startswith(("ETCD", "T4_"))}


def run(*words, stdin=b"", **variables):
    done = subprocess.run([t4test.T4.binary, *words], input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=dict(ENVIRONMENT, **variables),
                          timeout=SECONDS)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def expect(name, result, status, out=None, err=""):
    TAP.ok(result[0] == status and out in (None, result[1]) and re.search(err, result[2]),
           name, "status %d, wanted %d" % (result[0], status), result[1], result[2])


def running(*words):
    return Running([t4test.T4.binary, *words], ENVIRONMENT)


def endpoints(one):
    there = one.address
    expect("no endpoint: 127.0.0.1:3379, or it is said",
           run("endpoint", "health", "--command-timeout=1s")[:1] + (None, "127.0.0.1:3379"),
           run("endpoint", "health", "--command-timeout=1s")[0], None, "3379")
    expect("--endpoints", run("put", "e", "1", "--endpoints", there), 0, b"OK\n")
    expect("with a scheme", run("get", "e", "--endpoints=http://" + there), 0, b"e\n1\n")
    expect("T4_ENDPOINTS", run("get", "e", T4_ENDPOINTS=there), 0, b"e\n1\n")
    expect("the flag before the variable",
           run("get", "e", "--endpoints=" + there, T4_ENDPOINTS="127.0.0.1:1"), 0, b"e\n1\n")
    expect("of several the first that answers",
           run("get", "e", "--endpoints=127.0.0.1:1,http://%s,127.0.0.1:2" % there), 0, b"e\n1\n")
    expect("nobody answers", run("get", "e", "--endpoints=127.0.0.1:1"), 1, b"",
           r"t4 get: .*\n  asked was 127.0.0.1:1; is a server running there\?")
    expect("none of several answers", run("get", "e", "--endpoints=127.0.0.1:1,127.0.0.1:2"), 1,
           b"", "asked was 127.0.0.1:2")
    for wrong in ("nonsense", "http://", "host:port", "127.0.0.1:", "http://a:1/path", "", "a:1,,b:1"):
        expect("no endpoint: %r" % wrong, run("get", "e", "--endpoints=" + wrong), 2, b"", "endpoint")
    expect("TLS is refused with words", run("get", "e", "--endpoints=https://" + there), 2, b"", "TLS")
    expect("status of each", run("endpoint", "health", "--endpoints=127.0.0.1:1," + there), 1, None,
           "127.0.0.1:1 is unhealthy")
    path = os.path.join(one.directory, "socket")
    with t4test.T4(["--listen=unix:" + path]) as two:
        two.process = subprocess.Popen(
            [two.binary, "run", "--data-dir", two.data_dir, "--listen", "unix:" + path,
             "--metrics-addr=off"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=ENVIRONMENT)
        deadline = time.monotonic() + SECONDS
        while run("get", "e", "--endpoints=unix:" + path)[0] != 0 and time.monotonic() < deadline:
            pass
        expect("a unix socket", run("put", "u", "1", "--endpoints=unix:" + path), 0, b"OK\n")


def statuses(one):
    at = "--endpoints=" + one.address
    for words, status, err in (
            (["put"], 2, "there is no key"), (["put", "k", at], 2, "there is no value"),
            (["get"], 2, "there is no key"), (["get", "k", "--limit=x", at], 2, "takes no \"x\""),
            (["get", "k", "--limit"], 2, "a value is missing"), (["get", "k", "--nothing"], 2, "no flag"),
            (["get", "k", "--rev=1000", at], 1, "future revision"),
            (["get", "k", "--command-timeout=0s", at], 2, "takes no 0"),
            (["put", "k", "v", "--lease=1", at], 1, "requested lease not found"),
            (["watch"], 2, "takes a key"), (["lease"], 2, ""), (["lease", "grant", at], 2, "TTL"),
            (["lease", "nothing"], 2, "there is no"), (["snapshot", "save"], 2, "name of one file"),
            (["compact", "x", at], 2, "a number"), (["endpoint"], 2, ""),
            (["alarm", "list", "x"], 2, "takes no")):
        expect("t4 %s" % " ".join(w for w in words if w != at), run(*words), status, b"", err)
    expect("t4 defrag: one of two answers",
           run("defrag", "--endpoints=127.0.0.1:1," + one.address), 1, None,
           r"Failed to defragment etcd member\[127.0.0.1:1\] \(.")
    TAP.ok(re.match(rb"Finished defragmenting etcd member\[%s\]. took [\d.]+ms\n$" % one.address.encode(),
                    run("defrag", "--endpoints=127.0.0.1:1," + one.address)[1]), "and it is said which")
    expect("a full disk behind the output is a failure", (subprocess.run(
        "%s get '' --prefix %s > /dev/full" % (t4test.T4.binary, at), shell=True, env=ENVIRONMENT,
        stderr=subprocess.DEVNULL, check=False).returncode, None, ""), 1)
    names = re.findall(r"^  (\w+)  ", run("help")[1].decode(), re.M)
    for name in names:
        if name not in ("help", "version"):
            help_of = run("help", name)
            expect("t4 help %s" % name, help_of, 0, None)
            TAP.ok(b"Usage: t4 " + name.encode() in help_of[1], "it has the usage of %s" % name)
    for name in ("put", "get", "del", "txn", "watch", "lease", "compact", "endpoint", "alarm", "defrag",
                 "snapshot", "inspect"):
        TAP.equal(run(name, "--help"), (0, run("help", name)[1], ""), "t4 %s --help is the same" % name)
    binary = bytes(range(256)) * 400
    expect("a value from standard input", run("put", "bin", at, stdin=binary), 0, b"OK\n")
    expect("of any bytes", run("get", "bin", "--print-value-only", at), 0, binary + b"\n")
    expect("--count-only", run("get", "bin", "--prefix", "--count-only", at), 0, b"1\n")


def transactions(one):
    at = "--endpoints=" + one.address
    for cut in (b"", b"\n", b"\nput cut 1\n", b"\nput cut 1\n\n", b"\nput cut 1\n\nput cut 2\n",
                b"\nput cut 1\n\nput cut 2", b"version(\"x\") = \"0\"", b"\nput c\0t 1\n\n\n"):
        result = run("txn", at, stdin=cut)
        expect("cut off: %r" % cut, result, 2, b"", "the input ended within")
    expect("nothing was done", run("get", "c", "--prefix", at), 0, b"")
    expect("keys of any bytes but zero",
           run("txn", at, stdin=b'value("q\\x01\\"") = ""\n\n\nput "q\\xff\\"" \'a "b" c\'\n\n'), 0,
           b"FAILURE\n\nOK\n")
    expect("as they were written", run("get", b"q\xff\"", at), 0, b'q\xff"\na "b" c\n')
    expect("a malformed escape", run("txn", at, stdin=b'\nput "\\q" 1\n\n\n'), 2, b"", "malformed in")
    expect("flags in requests", run("txn", at, stdin=b"\nput q 1 --nothing\n\n\n"), 2, b"", "no flag")


def watching(one):
    """The server is killed under a watch, and comes back."""
    at = "--endpoints=" + one.address
    watch = running("watch", "w", "--prefix", at)
    number, deadline = 0, time.monotonic() + SECONDS
    while watch.lines.empty() and time.monotonic() < deadline:  # until it is there
        number += 1
        run("put", "w", "begin", at)
    first = watch.take(3)
    TAP.equal(first, ["PUT", "w", "begin"], "a watch shows what happens")
    run("put", "w", "marker", at)
    got = []
    while got[-1:] != ["marker"] and "(nothing more came)" not in got:
        got += watch.take(1)
    one.kill()
    TAP.ok("the connection was lost" in watch.take(1, errors=True)[0], "the server's end is told")
    one.start()
    for value in ("after", "again"):
        run("put", "w", value, at)
    TAP.equal(watch.take(6), ["PUT", "w", "after", "PUT", "w", "again"],
              "when it is there again the watch goes on; nothing is missing or twice")
    TAP.equal(watch.stop(), 0, "Ctrl-C ends it with status 0")
    revision = int(re.search(rb'"revision":(\d+)', run("get", "w", "-w", "json", at)[1])[1])
    expect("compact", run("compact", str(revision), at), 0, b"compacted revision %d\n" % revision)
    expect("a watch of what is compacted", run("watch", "w", "--rev=1", at), 1, b"",
           "compacted.*\n.*oldest revision to watch from is %d" % revision)
    expect("compacted twice", run("compact", str(revision), at), 1, b"", "has been compacted")
    watch = running("watch", "--progress-notify", "w", at)
    deadline = time.monotonic() + SECONDS
    while watch.lines.empty() and time.monotonic() < deadline:  # its signals are caught then
        run("put", "w", "x", at)
    TAP.equal(watch.stop(signal.SIGTERM), 0, "so does SIGTERM")


def leases(one):
    at = "--endpoints=" + one.address
    out = run("lease", "grant", "1", at)[1].decode()
    lease = out.split()[1]
    run("put", "l", "v", "--lease=" + lease, at)
    alive = running("lease", "keep-alive", lease, at)
    lines = alive.take(4)
    TAP.ok(all(re.match(r"lease %s keepalived with TTL\(\d+\)$" % lease, line) for line in lines),
           "a lease is kept alive", lines)
    expect("for longer than it had", run("get", "l", at), 0, b"l\nv\n")
    expect("until it is revoked", run("lease", "revoke", lease, at), 0)
    lines, status = [], None
    while not lines or lines[-1].startswith("lease %s keep" % lease):
        lines += alive.take(1)
    status = alive.process.wait(SECONDS)
    TAP.equal((lines[-1], status), ("lease %s expired or revoked." % lease, 0), "which ends it")
    out = run("lease", "grant", "100", at)[1].decode()
    alive = running("lease", "keep-alive", out.split()[1], at)
    alive.take(1)
    TAP.equal(alive.stop(), 0, "Ctrl-C ends it, too")


class Snapshots(grpc.GenericRpcHandler):
    """A server whose snapshots are these parts, and then perhaps an error."""

    def __init__(self):
        self.parts = []
        self.code = None

    def service(self, details):
        if details.method != "/etcdserverpb.Maintenance/Snapshot":
            return None
        return grpc.unary_stream_rpc_method_handler(self.answer)

    def answer(self, _, context):
        for part in self.parts:
            yield b"\x1a" + varint(len(part)) + part + b"\x22\x053.6.0"
        if self.code is not None:
            context.abort(self.code, "cut off")


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def snapshots():
    folder = tempfile.mkdtemp(prefix="t4test-")
    path = os.path.join(folder, "file")
    handler = Snapshots()
    stub = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    stub.add_generic_rpc_handlers((handler,))
    at = "--endpoints=127.0.0.1:%d" % stub.add_insecure_port("127.0.0.1:0")
    stub.start()
    data = os.urandom(512 * 300)
    whole = data + hashlib.sha256(data).digest()
    good = (b"Snapshot saved at %s\nServer version 3.6.0\n" % path.encode())
    for name, parts, code, status in (
            ("whole", [whole], None, 0), ("in small parts", [whole[i:i + 7] for i in range(0, 2100, 7)]
                                          + [whole[2100:]], None, 0),
            ("its hash in two parts", [whole[:-5], whole[-5:]], None, 0),
            ("damaged", [b"x" + whole[1:]], None, 1), ("its hash damaged", [whole[:-1] + b"x"], None, 1),
            ("without a hash", [data], None, 1), ("empty", [], None, 1), ("short", [whole[:512 * 7 + 32]], None, 1),
            ("cut off", [whole[:5000]], grpc.StatusCode.UNAVAILABLE, 1)):
        handler.parts, handler.code = parts, code
        if os.path.exists(path):
            os.unlink(path)
        result = run("snapshot", "save", path, at)
        expect("a snapshot that comes %s" % name, result, status, b"" if status else good)
        TAP.equal(sorted(os.listdir(folder)), [] if status else ["file"], "leaves what it should")
        if status == 0:
            with open(path, "rb") as saved:
                TAP.ok(saved.read() == whole, "and all of it")
            TAP.equal(stat.S_IMODE(os.stat(path).st_mode), 0o600, "for its owner only")
    handler.parts, handler.code = [whole], None
    expect("no such folder", run("snapshot", "save", folder + "/no/file", at), 1, b"", "cannot create")
    stub.stop(None)
    with t4test.reference().start() as etcd:
        at = "--endpoints=" + etcd.address
        run("put", "snapshot", "of a real etcd", at)
        expect("of a real etcd", run("snapshot", "save", path, at), 0, None)
        with open(path, "rb") as saved:
            found = saved.read()
        TAP.ok(len(found) % 512 == 32 and hashlib.sha256(found[:-32]).digest() == found[-32:]
               and b"of a real etcd" in found, "it is whole", len(found))
    os.unlink(path)
    os.rmdir(folder)


def main():
    if t4test.subject() is None or t4test.reference() is None:
        TAP.skip_all("no t4, or no etcd to compare with")
    with t4test.T4() as one:
        one.start()
        endpoints(one)
        statuses(one)
        transactions(one)
        watching(one)
        leases(one)
    snapshots()
    TAP.done()


main()
