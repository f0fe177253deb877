#!/usr/bin/python3
"""544_listen.t - where the server can be reached: several addresses, IPv6, unix sockets, sockets of
systemd; and what it tells systemd.

SPDX-License-Identifier: Apache-2.0
"""

import http.client
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()
SECONDS = 20
OPEN_FILES = """
import os, sys
# Descriptors 3 and up become the sockets that are named, as systemd hands them over.
fds = [int(n) for n in sys.argv[1].split(",")]
kept = [os.dup(fd) for fd in fds]
high = [os.dup2(fd, 100 + i) for i, fd in enumerate(kept)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=SECONDS)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self.path)


def health(connection):
    connection.request("GET", "/health")
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def has_ipv6():
    """Containers may be without; then its part is left out, and the rest is tested."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            return True
    except OSError as error:
        TAP.diag("no IPv6 here: %s" % error)
        return False


IPV6 = has_ipv6()
HEALTHY = (200, b'{"health":"true","reason":""}')


def reaches(address):
    """A put and a get over gRPC."""
    import etcdclient
    client = etcdclient.Client(address)
    try:
        client.put(b"reached", address.encode())
        return client.range(b"reached").kvs[0].value == address.encode()
    except etcdclient.grpc.RpcError as error:
        return error
    finally:
        client.close()


def started(option):
    """A server with this --listen; the test's own address stays the first."""
    server = t4test.T4(["--listen=" + option])
    server.options[0] = "--listen=%s,%s" % (server.address, option)
    return server


def addresses():
    """All kinds at once, each with both protocols."""
    with t4test.T4() as server:
        path = os.path.join(server.directory, "t4.sock")
        v6 = "%s:%d" % ("[::1]" if IPV6 else "127.0.0.1", t4test.free_port())
        other = "127.0.0.1:%d" % t4test.free_port()
        # In the form of etcd's flag.
        server.options = ["--listen-client-urls=http://%s,http://%s,http://%s,unix://%s" % (
            server.address, v6, other, path)]
        server.start()
        for address in (server.address, v6, other, "unix:" + path):
            TAP.equal(reaches(address), True, "%s is served" % address.split("/")[0])
        for address in (server.address, v6, other):
            TAP.equal(health(http.client.HTTPConnection(address, timeout=SECONDS)), HEALTHY,
                      "HTTP on %s" % address.split(":")[0])
        TAP.equal(health(UnixConnection(path)), HEALTHY, "HTTP on the unix socket")
        TAP.equal(stat.S_IMODE(os.stat(path).st_mode), 0o600, "which only its user may open")
        for binary in [b for _, b in t4test.etcdctl_binaries()][-1:]:
            out = subprocess.run([binary, "--endpoints=unix://" + path, "endpoint", "health"],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                 timeout=SECONDS, env=dict(os.environ, ETCDCTL_API="3"))
            TAP.ok("is healthy" in out.stdout, "etcdctl reaches the unix socket", out.stdout)
        TAP.equal(server.stop(), 0, "the server stops")
        TAP.ok(not os.path.exists(path), "and takes its unix socket away")


def unix_sockets():
    with started("unix:/nowhere") as server:
        path = os.path.join(server.directory, "t4.sock")
        server.options = ["--listen=%s,unix:%s" % (server.address, path),
                          "--unix-socket-mode=0660"]
        server.start()
        TAP.equal(stat.S_IMODE(os.stat(path).st_mode), 0o660, "--unix-socket-mode is obeyed")
        server.kill()
        TAP.ok(os.path.exists(path), "kill -9 leaves the socket's file")
        server.start()
        TAP.equal(reaches("unix:" + path), True, "the next start replaces it")
        second = t4test.T4()
        second.options = ["--listen=%s,unix:%s" % (second.address, path)]
        second.start(wait=False)
        TAP.equal(second.wait(), 1, "a socket that somebody listens on is not taken")
        TAP.ok("unix:" + path in second.log() and "in use" in second.log()
               and "another program listens there" in second.log(), "and it is said",
               second.log_tail())
        second.close()
        TAP.equal(reaches("unix:" + path), True, "and goes on to be served")
        # Somebody else's file under that name is not removed at the end.
        os.unlink(path)
        with open(path, "w"):
            pass
        TAP.equal(server.stop(), 0, "a socket whose file was replaced: the server stops")
        TAP.ok(os.path.exists(path), "and leaves the other file alone")
        server.start(wait=False)
        TAP.equal(server.wait(), 1, "a file that is no socket is refused")
        TAP.ok("no socket" in server.log() and os.path.exists(path), "and not touched",
               server.log_tail())
        server.options = ["--listen=%s,unix:%s/x/y.sock" % (server.address, server.directory)]
        server.start(wait=False)
        TAP.equal(server.wait(), 1, "a folder that does not exist is refused")
        TAP.ok("No such file" in server.log(), "with the reason", server.log_tail())


def wildcards():
    """0.0.0.0 and :: are both families, as with etcd."""
    for host in ("0.0.0.0", "[::]") if IPV6 else ("0.0.0.0",):
        with t4test.T4() as server:
            server.options = ["--listen=%s:%d" % (host, server.port)]
            server.start()
            for address in ("127.0.0.1:%d" % server.port,
                            "[::1]:%d" % server.port)[:2 if IPV6 else 1]:
                TAP.equal(reaches(address), True, "--listen=%s is reached at %s" % (
                    host, address.rsplit(":", 1)[0]))
            TAP.ok("listening beyond this machine" in server.log(), "and warned about")


def errors():
    with t4test.T4() as server:
        for listen, words in (("192.0.2.1:3379", ["cannot listen on 192.0.2.1:3379", "no address of"]),
                              ("[2001:db8::1]:3379", ["cannot listen on [2001:db8::1]:3379"]),
                              ("nowhere.invalid:3379", ["cannot listen on nowhere.invalid"])):
            server.options = ["--listen=" + listen]
            server.start(wait=False)
            TAP.equal(server.wait(), 1, "%s is refused" % listen)
            TAP.equal([w for w in words if w not in server.log()], [], "in words")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            server.options = ["--metrics-addr=127.0.0.1:%d" % taken.getsockname()[1]]
            server.start(wait=False)
            TAP.equal(server.wait(), 1, "an address for probes that is taken is refused")
            TAP.ok("--metrics-addr" in server.log() and "in use" in server.log(),
                   "with the flag that must change", server.log_tail())


def probes():
    """Addresses for probes: several, unix sockets, none; before clients are served, too."""
    with t4test.T4() as server:
        path = os.path.join(server.directory, "m.sock")
        other = "127.0.0.1:%d" % t4test.free_port()
        server.options = ["--listen-metrics-urls=http://%s,unix://%s" % (other, path)]
        server.start()
        TAP.equal(health(http.client.HTTPConnection(other, timeout=SECONDS)), HEALTHY,
                  "an address in the form of etcd's flag")
        TAP.equal(health(UnixConnection(path)), HEALTHY, "a unix socket for probes")
        TAP.ok(reaches(other) is not True, "no gRPC there")
        server.options = ["--metrics-addr=off"]
        server.restart(crash=False)
        TAP.equal(health(http.client.HTTPConnection(server.address, timeout=SECONDS)), HEALTHY,
                  "without one: on the clients' address")


# ---- systemd --------------------------------------------------------------------------------

def listening(kind, name):
    s = socket.socket(kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(name)
    s.listen()
    return s


def activated(server, sockets, names):
    """Starts it as systemd would: with these sockets, and no address of its own."""
    argv = [server.binary, "run", "--data-dir", server.data_dir] + server.options
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("T4_", "ETCD"))}
    environment.update(server.environment, LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES=names)
    with open(server.log_path, "ab") as log:
        server.process = subprocess.Popen(
            [sys.executable, "-c", OPEN_FILES, ",".join(str(s.fileno()) for s in sockets)] + argv,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            pass_fds=[s.fileno() for s in sockets])


def activation():
    with t4test.T4() as server:
        path = os.path.join(server.directory, "t4.sock")
        sockets = [listening(socket.AF_INET, ("127.0.0.1", server.port)),
                   listening(socket.AF_UNIX, path),
                   listening(socket.AF_INET, ("127.0.0.1", server.metrics_port))]
        early = socket.create_connection(("127.0.0.1", server.port))
        early.sendall(b"GET /version HTTP/1.0\r\n\r\n")  # before there is a server
        activated(server, sockets, "clients:t4.socket:metrics")
        early.settimeout(SECONDS)
        TAP.ok(b"etcdserver" in early.recv(4096), "who connected before the start is served")
        early.close()
        TAP.equal(reaches(server.address), True, "a socket of systemd is served")
        TAP.equal(reaches("unix:" + path), True, "a unix socket of systemd, too")
        TAP.equal(health(http.client.HTTPConnection(server.metrics_address, timeout=SECONDS)),
                  HEALTHY, "the one named metrics is for probes")
        TAP.ok(reaches(server.metrics_address) is not True, "and for nothing else")
        with socket.socket() as probe:
            TAP.ok(probe.connect_ex(("127.0.0.1", 3379)) != 0 or
                   "127.0.0.1:3379" not in server.log(), "the default address is not served")
        import etcdclient
        client = etcdclient.Client(server.address)
        urls = [url for m in client.member_list().members for url in m.clientURLs]
        TAP.ok("http://" + server.address in urls and "unix://" + path in urls,
               "and clients are told of them", urls)
        client.close()
        TAP.equal(server.stop(), 0, "the server stops")
        TAP.ok(os.path.exists(path), "and leaves systemd's unix socket")
        activated(server, sockets, "clients:t4.socket:metrics")
        TAP.equal(reaches(server.address), True, "a restart serves the same sockets")
        server.kill()
        for s in sockets:
            s.close()
        with open(os.path.join(server.directory, "file"), "w") as file:
            activated(server, [file], "clients")
            TAP.equal(server.wait(), 2, "a descriptor that is no socket is refused")
            TAP.ok("is no socket" in server.log(), "in words", server.log_tail())
        # Meant for another process: not looked at.
        server.environment = {"LISTEN_PID": "1", "LISTEN_FDS": "5"}
        server.start()
        TAP.equal(reaches(server.address), True, "sockets for another process are left alone")


class Manager:
    """The socket that systemd would read."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.lines = []

    def hears(self, line, times=1):
        deadline = time.monotonic() + SECONDS
        while self.lines.count(line) < times and time.monotonic() < deadline:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                self.lines += self.socket.recv(4096).decode().splitlines()
            except OSError:
                break
        return self.lines.count(line) >= times


def notification():
    for name in ("notify", "\0t4-test-%d" % os.getpid()):
        with t4test.T4() as server:
            path = name if name[0] == "\0" else os.path.join(server.directory, name)
            manager = Manager(path)
            server.environment = {"NOTIFY_SOCKET": path.replace("\0", "@"),
                                  "WATCHDOG_USEC": "100000"}
            server.start(wait=False)
            TAP.ok(manager.hears("READY=1"), "systemd hears READY=1", manager.lines)
            TAP.equal(reaches(server.address), True, "when clients are served")
            starting = [line for line in manager.lines if line.startswith("STATUS=Starting")]
            TAP.ok(starting and "STATUS=Serving " + server.address in manager.lines,
                   "and what is going on", manager.lines)
            TAP.ok(manager.lines.index(starting[0]) < manager.lines.index("READY=1"),
                   "in this order")
            TAP.ok(manager.hears("WATCHDOG=1", 3), "the watchdog is fed", manager.lines)
            TAP.ok("STOPPING=1" not in manager.lines, "no stop is told")
            TAP.equal(server.stop(), 0, "the server stops")
            TAP.ok(manager.hears("STOPPING=1"), "and STOPPING=1 is heard", manager.lines)
            manager.socket.close()
    with t4test.T4() as server:
        manager = Manager(os.path.join(server.directory, "notify"))
        server.environment = {"NOTIFY_SOCKET": os.path.join(server.directory, "notify"),
                              "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}
        server.start()
        manager.hears("READY=1")
        TAP.ok("WATCHDOG=1" not in manager.lines, "a watchdog of another process is not fed")
        server.stop()
        manager.hears("STOPPING=1")
        TAP.ok("WATCHDOG=1" not in manager.lines, "not at all")
        manager.socket.close()


def units():
    """The unit files are what systemd takes, and name flags that there are."""
    source = os.path.join(t4test.SRC_DIR, "contrib", "systemd")
    tool = shutil.which("systemd-analyze")
    if tool is None:
        TAP.skip("systemd-analyze is not installed; Debian package systemd")
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted(os.listdir(source)):
            with open(os.path.join(source, name)) as unit:
                text = unit.read().replace("/usr/local/bin/t4", t4test.T4.binary)
            if name.endswith((".service", ".socket")):
                with open(os.path.join(folder, name), "w") as unit:
                    unit.write(text)
        names = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        out = subprocess.run([tool, "verify", "--man=no"] + names, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=60)
        TAP.ok(out.returncode == 0 and not out.stdout.strip() and len(names) >= 2,
               "systemd-analyze verify takes %d units" % len(names), out.stdout)
        with open(os.path.join(folder, "t4.service")) as unit:
            line = [line for line in unit.read().splitlines() if line.startswith("ExecStart=")][0]
        flags = [word for word in line.split() if word.startswith("--")]
        known = subprocess.run([t4test.T4.binary, "help", "run", "--table"],
                               stdout=subprocess.PIPE, text=True).stdout
        TAP.equal([f for f in flags if f.split("=")[0] + "\t" not in known], [],
                  "and the server the flags in it")


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    for part in (addresses, unix_sockets, wildcards, errors, probes, activation, notification,
                 units):
        part()
    TAP.done()


main()
