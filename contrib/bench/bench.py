"""bench.py - what the benches in Python share: where things are, servers, the load client.

Each bench is called with the build directory (default: build) as its first argument.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
NAME = os.path.basename(sys.argv[0])
os.environ["T4_BUILD_DIR"] = BUILD  # t4test asks for it
sys.path.insert(0, os.path.join(HERE, "..", "..", "regress", "lib"))

import t4test  # noqa: E402

START_SECONDS = 900
CLIENT = os.path.join(BUILD, "contrib", "bench", "t4-bench")


def want(*programs):
    """Ends the process unless the client and these programs are there."""
    for program in (CLIENT,) + programs:
        if program is None or not os.path.exists(program):
            sys.exit("%s: %s is missing: run contrib/quickstart check" % (
                NAME, program or "etcd"))


# ---- servers --------------------------------------------------------------------------------

class T4(t4test.T4):
    @property
    def metrics_url(self):
        return "http://%s/metrics" % self.metrics_address


class Etcd(t4test.Etcd):
    """One that syncs what it writes, as t4 does."""

    @property
    def metrics_url(self):
        return "http://%s/metrics" % self.address

    def argv(self):
        return [word for word in super().argv() if word != "--unsafe-no-fsync"]


def versions():
    return "; ".join(subprocess.run([program, "--version"], stdout=subprocess.PIPE, text=True,
                                    check=True).stdout.splitlines()[0]
                     for program in (T4.binary, Etcd.find()))


def metric(server, name):
    """The value of a metric without labels."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as page:
        for line in page.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
    raise KeyError(name)


def first_read(server, request):
    """The answer to a linearizable read, asked as soon as somebody listens."""
    import etcdclient
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.running():
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
        except OSError:
            time.sleep(0.005)
            continue
        client = etcdclient.Client(server.address)
        try:
            return client.call("KV/Range", request, timeout=START_SECONDS)
        except etcdclient.grpc.RpcError:
            pass
        finally:
            client.close()
    sys.exit("%s: %s does not start:\n%s" % (NAME, server.name, server.log_tail()))


# ---- the load client --------------------------------------------------------------------------

def start_load(server, mode, **options):
    """Options by their names with _ for -; they go before what is told of the server."""
    options = dict({"server_pid": server.process.pid}, **options)
    return subprocess.Popen(
        [CLIENT, "--json"] + ["--%s=%s" % (name.replace("_", "-"), value)
                              for name, value in options.items()] + [mode, server.address],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end_load(server, client):
    """Waits for it; its figures by name."""
    out, complaint = client.communicate()
    if client.returncode != 0:
        sys.exit("%s: %s: %s\n%s" % (NAME, server.name, complaint.strip(), server.log_tail()))
    return json.loads(out)


def load(server, mode, **options):
    return end_load(server, start_load(server, mode, **options))


# ---- results --------------------------------------------------------------------------------------

def median(rounds, name):
    """Of one figure over rounds; None if none has it."""
    values = [figures[name] for figures in rounds if name in figures]
    return statistics.median(values) if values else None


def table(head, rows):
    """A table as sql-like-docs/guide/performance.md has it; cells are strings."""
    rows = [head] + rows
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        print("| %s |" % " | ".join(cell.ljust(width) for cell, width in zip(row, widths)))
    print(flush=True)


def figure(value, unit=""):
    """As few digits as say something."""
    if value is None:
        return ""
    text = format(round(value), ",") if abs(value) >= 100 else "%.*f" % (
        1 if abs(value) >= 10 else 2, value)
    return text + (" " + unit if unit else "")


class Gates:
    """What was wanted, and whether it is so."""

    def __init__(self):
        self.rows = []

    def add(self, what, value, unit="", least=None, most=None):
        met = value >= least if least is not None else value <= most
        self.rows.append([what, "at least %g" % least if least is not None else "at most %g" % most,
                          figure(value, unit), "met" if met else "**missed**"])

    def report(self):
        table(["gate", "wanted", "measured", "verdict"], self.rows)
