"""t4test.py - servers under test, and the TAP writer, of the end-to-end tests in python.

Responsible for: starting, watching, killing and stopping `t4 run` and a real etcd on free
loopback ports with data directories of their own, and for writing TAP.  The gRPC client is
etcdclient.py.  Needs Debian's python3-grpcio and python3-protobuf, nothing else.

Entry points: Tap, T4, Etcd, reference(), subject().
Environment:  T4_BUILD_DIR  where t4 was built (default: the current directory)
              T4_SRC_DIR    the source tree (default: found from this file's place)
              T4_SUBJECT    what is tested: t4 (default), etcd or etcd-3.4; the latter two check
                            the tests themselves
              T4_SUBJECT_OPTIONS  more flags for t4, for example --storage-engine=memory
              T4_REFERENCE  etcd (default: 3.6 if it was built, else Debian's) or etcd-3.4
              CI=true       a skipped test is a failed test

Readiness is an event (the gRPC channel connects and a request is answered), never a sleep.
Threads: the caller's; each object belongs to one thread.

SPDX-License-Identifier: Apache-2.0
"""

import atexit
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import grpc

SRC_DIR = os.environ.get("T4_SRC_DIR") or os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD_DIR = os.path.abspath(os.environ.get("T4_BUILD_DIR") or os.getcwd())

START_SECONDS = 30
STOP_SECONDS = 20

# A shell's background job ignores Ctrl-C, and so would the programs that inherit that from here.
signal.signal(signal.SIGINT, signal.default_int_handler)


# ---- TAP ------------------------------------------------------------------------------------

class Tap:
    """Writes TAP on standard output: plan() first or done() last, ok() for each assertion."""

    def __init__(self):
        self.count = 0
        self.failed = 0
        self.planned = None

    def plan(self, number):
        self.planned = number
        self._print("1..%d" % number)

    def ok(self, good, name, *details):
        """One assertion; the details are printed as diagnostics when it does not hold."""
        self.count += 1
        if not good:
            self.failed += 1
        self._print("%sok %d - %s" % ("" if good else "not ", self.count,
                                      name.replace("#", "\\#")))
        if not good:
            # prove keeps to itself what a test prints, but passes its standard error on.
            sys.stderr.write("# failed: %d - %s\n" % (self.count, name))
            for detail in details:
                self.diag(detail)
                sys.stderr.write("".join("# %s\n" % line for line in str(detail).splitlines()))
            sys.stderr.flush()
        return bool(good)

    def equal(self, got, want, name):
        return self.ok(got == want, name, "got:  %s" % short(got), "want: %s" % short(want))

    def diag(self, text):
        for line in str(text).splitlines() or [""]:
            self._print("# " + line)

    def skip(self, reason):
        """A part that cannot run here.  Under CI the harness makes a failure of it."""
        self.count += 1
        self._print("ok %d # SKIP %s" % (self.count, reason))

    def skip_all(self, reason):
        """Ends the program: nothing of this test can run here.  Under CI that is a failure."""
        if os.environ.get("CI") == "true":
            self.ok(False, "skipped under CI: " + reason)
            self.done()
        self._print("1..0 # SKIP " + reason)
        sys.exit(0)

    def done(self):
        """Writes the plan if none was given, and ends the program with the right status."""
        if self.planned is None:
            self._print("1..%d" % self.count)
        elif self.planned != self.count:
            self.diag("planned %d assertions, ran %d" % (self.planned, self.count))
            self.failed += 1
        sys.stdout.flush()
        sys.exit(1 if self.failed else 0)

    @staticmethod
    def _print(line):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def short(value, limit=2000):
    text = repr(value)
    if len(text) <= limit:
        return text
    return "%s... (%d characters)" % (text[:limit], len(text))


# ---- processes ------------------------------------------------------------------------------

_ports_given = set()


def crc32c(data):
    """The checksum of t4's formats (Castagnoli)."""
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def free_port():
    """A loopback port nothing listens on now, never the same one twice in this process."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _ports_given:
            _ports_given.add(port)
            return port


# Tests talk to servers that start and end: reconnect at once, take messages of any size.
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    # How long one attempt may take: a busy machine needs its time to greet.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 200), ("grpc.enable_http_proxy", 0)]


def answers(channel, seconds):
    """Whether a linearizable read is answered within that time.

    The request is written out in bytes (key 0x00, count_only): python3-etcd3 brings stubs of its
    own, and one process can hold only one set.
    """
    try:
        channel.unary_unary("/etcdserverpb.KV/Range")(
            b"\x0a\x01\x00\x48\x01", timeout=seconds, wait_for_ready=True)
        return True
    except grpc.RpcError:
        return False


class StartError(Exception):
    """The server ended, or did not answer in time; the text ends with its log's last lines."""


class Server:
    """A server process on a loopback port, with a data directory that outlives restarts.

    Derived classes give argv(), the command line.  start(), kill() and stop() may be called in
    turn any number of times; the address and the data directory stay.  close() (at exit at the
    latest) kills the process and removes what it left, unless T4_TEST_KEEP is set.
    """

    name = "server"

    def __init__(self, options=(), environment=None):
        self.options = list(options)
        self.environment = dict(environment or {})
        self.directory = tempfile.mkdtemp(prefix="t4test-")
        self.data_dir = os.path.join(self.directory, "data")
        self.log_path = os.path.join(self.directory, "log")
        self.port = free_port()
        self.address = "127.0.0.1:%d" % self.port
        self.process = None
        atexit.register(self.close)

    def argv(self):
        raise NotImplementedError

    def start(self, wait=True):
        """Starts the process and returns self when it answers a linearizable read."""
        assert self.process is None
        # The tests' own T4_* variables are no settings of the server.
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith(("T4_", "ETCD"))}
        environment.update(self.environment)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment, cwd=self.directory)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds=START_SECONDS):
        deadline = time.monotonic() + seconds
        channel = grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        try:
            while not answers(channel, 0.25):
                if self.process.poll() is not None:
                    raise StartError("%s ended with status %d before it was ready:\n%s" % (
                        self.name, self.process.returncode, self.log_tail()))
                if time.monotonic() > deadline:
                    raise StartError("%s did not answer within %d s:\n%s" % (
                        self.name, seconds, self.log_tail()))
        finally:
            channel.close()

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """kill -9, as a crash."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self, seconds=STOP_SECONDS):
        """SIGTERM; returns the exit status (negative: ended by that signal)."""
        self.process.send_signal(signal.SIGTERM)
        status = self.wait(seconds)
        return status

    def wait(self, seconds=STOP_SECONDS):
        """Waits for the process to end by itself and returns its status."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise StartError("%s did not end within %d s:\n%s" % (
                self.name, seconds, self.log_tail()))
        self.process = None
        return status

    def restart(self, crash=True):
        if crash:
            self.kill()
        else:
            self.stop()
        return self.start()

    def log(self):
        try:
            with open(self.log_path, "r", errors="replace") as log:
                return log.read()
        except FileNotFoundError:
            return ""

    def log_tail(self, lines=20):
        return "\n".join(self.log().splitlines()[-lines:])

    def close(self):
        self.kill()
        atexit.unregister(self.close)
        if os.environ.get("T4_TEST_KEEP"):
            sys.stdout.write("# kept %s of %s\n" % (self.directory, self.name))
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class T4(Server):
    """`t4 run` from the build directory; the memory engine or others by options."""

    name = "t4"
    binary = os.path.join(BUILD_DIR, "t4")

    def __init__(self, options=(), environment=None):
        super().__init__(options, environment)
        self.metrics_port = free_port()
        self.metrics_address = "127.0.0.1:%d" % self.metrics_port

    def argv(self):
        return [self.binary, "run", "--data-dir", self.data_dir, "--listen", self.address,
                "--metrics-addr", self.metrics_address] + self.options


ETCD36_DIR = os.path.join(BUILD_DIR, "etcd36")
ETCD_DEBIAN = os.path.join(BUILD_DIR, "etcd-debian", "usr", "bin", "etcd")


class Etcd(Server):
    """A real etcd, single member: 3.6 where regress/etcd36/build made one, else Debian's."""

    def __init__(self, options=(), environment=None, debian=False):
        super().__init__(options, environment)
        self.binary = ETCD_DEBIAN if debian else self.find()
        if self.binary is None or not os.path.exists(self.binary):
            raise FileNotFoundError("no etcd in %s" % BUILD_DIR)
        first = subprocess.run([self.binary, "--version"], stdout=subprocess.PIPE, text=True,
                               check=True).stdout.splitlines()[0]
        self.version = first.split(":")[1].strip()
        self.name = "etcd-" + self.version
        self.peer = "http://127.0.0.1:%d" % free_port()

    @staticmethod
    def find():
        for path in (os.path.join(ETCD36_DIR, "etcd"), ETCD_DEBIAN):
            if os.path.exists(path):
                return path
        return None

    def is_34(self):
        return self.version.startswith("3.4.")

    def argv(self):
        url = "http://" + self.address
        argv = [self.binary, "--name", "reference", "--data-dir", self.data_dir,
                "--listen-client-urls", url, "--advertise-client-urls", url,
                "--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer,
                "--initial-cluster", "reference=" + self.peer, "--log-level", "error"]
        if self.is_34():
            argv += ["--logger", "zap", "--log-outputs", "stderr"]
        else:
            # The reference may forget at a power cut: that is not what is compared.
            argv += ["--unsafe-no-fsync"]
        return argv + self.options


def reference(options=()):
    """The etcd to compare with, not started; None if none was built."""
    if Etcd.find() is None:
        return None
    return Etcd(options, debian=os.environ.get("T4_REFERENCE") == "etcd-3.4")


def subject(options=()):
    """The server under test, not started; None if it was not built."""
    chosen = os.environ.get("T4_SUBJECT", "t4")
    if chosen == "t4":
        more = shlex.split(os.environ.get("T4_SUBJECT_OPTIONS", ""))
        return T4(list(options) + more) if os.path.exists(T4.binary) else None
    return Etcd(options, debian=chosen == "etcd-3.4")


def etcdctl_binaries():
    """[(version, path)] of the real etcdctl programs here, Debian's first."""
    found = []
    for path in ("/usr/bin/etcdctl", os.path.join(ETCD36_DIR, "etcdctl")):
        if os.path.exists(path):
            text = subprocess.run([path, "version"], stdout=subprocess.PIPE, text=True,
                                  stderr=subprocess.DEVNULL, check=True,
                                  env=dict(os.environ, ETCDCTL_API="3")).stdout
            found.append((text.splitlines()[0].split(":")[1].strip(), path))
    return found
