"""etcdctl.py - real etcdctl programs on several servers: what they print, with names for what servers choose.

Responsible for: running one command line on each server and comparing standard output, the error
line and the exit status; commands that run until they are interrupted (Following).

Entry points: Comparison (run(), lines(), same()), Side, Following, wait_for().

Command lines are written as in commandlines.py; {name} in one may also be one of the side's values.

Threads: a reader of its own per Following; the rest is the caller's.

SPDX-License-Identifier: Apache-2.0
"""

import base64
import json
import os
import queue
import re
import shlex
import signal
import subprocess
import threading
import time

import commandlines
import t4test

SECONDS = 20
MASKED = {"version", "dbSize", "dbSizeInUse", "raftIndex", "raftTerm", "raftAppliedIndex",
          "raft_term", "took", "Took", "dbSizeQuota", "name", "peerURLs"}


class Side:
    """One server and the names that it chose."""

    def __init__(self, tap, server, version, binary):
        import etcdclient   # not before it is known that there are stubs
        self.tap = tap
        self.server = server
        self.environment = {name: value for name, value in os.environ.items()
                            if not name.startswith("ETCD")}
        if version.startswith("3.4."):
            self.environment["ETCDCTL_API"] = "3"   # later ones complain about it
        self.binary = binary
        self.leases = {}
        client = etcdclient.Client(server.address)
        header = client.status().header
        member = client.member_list().members[0]
        client.close()
        self.names = [(server.address, "ENDPOINT")]
        self.ids = []
        for number, name in ((header.cluster_id, "CLUSTER"), (header.member_id, "MEMBER")):
            self.names.append(("%d" % number, name))
            # One in sixteen is shorter than 16 digits, and padded by some commands.
            self.ids.append((re.compile(r"( ?) *(?<![0-9a-f])0*%x\b" % number), r"\1" + name))
        self.names += [(url, "PEER") for url in member.peerURLs]
        self.values = {"member": "%x" % header.member_id, "peer": member.peerURLs[0]}
        if member.name:
            self.names.append((", %s," % member.name, ", NAME,"))
            self.names.append((" %s |" % member.name, " NAME |"))
            self.names.append(('"Name" : "%s"' % member.name, '"Name" : "NAME"'))

    def command(self, line):
        arguments = [argument.format(**self.values, **self.leases) if "{" in argument else argument
                     for argument in shlex.split(line)]
        return [self.binary, "--endpoints", "http://" + self.server.address] + arguments

    def begin(self, line, stdin=None, **options):
        return subprocess.Popen(self.command(line), stdin=stdin, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=self.environment,
                                **options)

    def done(self, line):
        """(status, standard output, standard error)"""
        done = subprocess.run(self.command(line), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, env=self.environment, timeout=SECONDS)
        return done.returncode, done.stdout, done.stderr

    def output(self, line):
        """Runs a command line that must succeed, and gives its standard output."""
        return subprocess.run(self.command(line), stdout=subprocess.PIPE, text=True, check=True,
                              env=self.environment).stdout

    def tidy(self, text):
        for number, name in self.names:
            text = text.replace(number, name)
        for number, name in self.ids:
            text = number.sub(name, text)
        for name, lease in self.leases.items():
            text = text.replace(lease, "LEASE_" + name)
            text = text.replace(str(int(lease, 16)), "LEASE_" + name)
        return text


def masked(value):
    if isinstance(value, dict):
        if "granted-ttl" in value:
            value["keys"] = sorted(value.get("keys") or [])
        return {key: "MASKED" if key in MASKED else masked(part) for key, part in value.items()}
    if isinstance(value, list):
        return [masked(part) for part in value]
    return value


def tidy_output(side, line, text):
    """The output with what may differ replaced."""
    if "-w json" in line:
        try:
            text = "\n".join(json.dumps(masked(json.loads(part)), sort_keys=True)
                             for part in text.splitlines() if part)
        except ValueError:
            pass
    text = side.tidy(text)
    if line.startswith(("endpoint", "member")):
        if "table" in line:
            text = re.sub(r"(?<=-)-+|(?<= ) +", "", text)
            text = re.sub(r"\| [\d.]+[mµ]?s \|", "| TOOK |", text)
        if line.startswith("endpoint status") and ("table" in line or "-w" not in line):
            # endpoint, id, version, ..., size, ..., leader, learner, term, index: numbers differ.
            text = re.sub(r"\b\d+(\.\d+)*( [kMG]?B)?\b%?", "N", text)
        text = re.sub(r"took = [^,\n]*", "took = T", text)
        text = re.sub(r'"(Version|DBSize|DBSizeInUse|DBSizeQuota|RaftIndex|RaftTerm|'
                      r'RaftAppliedIndex|Took)" : .*', r'"\1" : N', text)
        text = re.sub(r'"(PeerURL)" : .*\n', "", text)
    text = re.sub(r"took [\d.]+[mµ]?s", "took T", text)  # defrag
    text = re.sub(r'"RaftTerm" : \d+', '"RaftTerm" : N', text)
    # The keys of a lease come in any order.
    text = re.sub(r"attached keys\(\[([^]]*)\]\)",
                  lambda keys: "keys(%s)" % sorted(keys[1].split()), text)
    if line.startswith("lease timetolive") and '"Key"' in text:
        text = "\n".join(sorted(text.splitlines()))
    # The seconds that are left of a lease are one less on a slow machine.
    text = re.sub(r"remaining\(\d{3,}s\)", "remaining(Ns)", text)
    text = re.sub(r'"ttl": \d{3,}', '"ttl": N', text)
    text = re.sub(r'"TTL" : \d{3,}', '"TTL" : N', text)
    return text


def error_lines(side, text):
    """What a user is told; the log lines before it have times and addresses."""
    lines = [line for line in text.splitlines() if line and not line.startswith("{")]
    return tidy_output(side, "endpoint", side.tidy("\n".join(lines)))


class Comparison:
    """The same command lines on two servers.  .asked has each as it was given."""

    def __init__(self, tap, version, binary, servers):
        self.tap = tap
        self.version = version
        self.ends = 0
        self.asked = []
        self.sides = [Side(tap, server, version, binary) for server in servers]

    def same(self, name, results, *details):
        first, second = results
        self.tap.ok(first == second, "etcdctl %s: %s" % (self.version, name.split("\n")[0]),
               *details, *("%s: %s" % (side.server.name, t4test.short(result))
                           for side, result in zip(self.sides, results)))

    def run(self, line):
        """One command line on both servers."""
        line, _, stdin = line.partition(" << ")
        stdin = stdin.replace("\\n", "\n")
        granted = None
        words = line.split()
        if words[0] == "grant":
            granted = words[1]
            line = "lease grant " + " ".join(words[2:])
        self.asked.append(line)
        processes = [side.begin(line, stdin=subprocess.PIPE) for side in self.sides]
        results = []
        for side, process in zip(self.sides, processes):
            try:
                out, error = process.communicate(stdin, timeout=SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                out, error = process.communicate()
                error += "\nkilled after %d s" % SECONDS
            if granted:
                if "json" in line:
                    side.leases[granted] = "%016x" % json.loads(out)["ID"]
                else:
                    side.leases[granted] = out.split()[1]
            results.append((process.returncode, tidy_output(side, line, out),
                            error_lines(side, error)))
        self.same(line if not stdin else "%s << %r" % (line, stdin), results)

    def lines(self, text):
        for line in commandlines.each(text):
            self.run(line)


def wait_for(side, line, good):
    """Asks until the answer is as it should be; what was asked last at the deadline."""
    deadline = time.monotonic() + SECONDS
    while True:
        out = side.output(line)
        if good(out):
            return True
        if time.monotonic() > deadline:
            side.tap.diag("%s: %s still says %r" % (side.server.name, line, out))
            return False


class Following:
    """An etcdctl that runs until it is interrupted, with its output line by line."""

    def __init__(self, side, line, stdin=None):
        self.tap = side.tap
        self.process = side.begin(line, stdin=subprocess.PIPE, start_new_session=True)
        self.lines = []
        self.queue = queue.Queue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        if stdin:
            self.process.stdin.write(stdin)
            self.process.stdin.flush()

    def read(self):
        for line in self.process.stdout:
            self.queue.put(line.rstrip("\n"))
        self.queue.put(None)

    def until(self, text):
        """Takes lines in until one contains the text; they stay in .lines."""
        deadline = time.monotonic() + SECONDS
        encoded = base64.b64encode(text.encode()).decode()
        while not any(text in line or encoded in line for line in self.lines[-1:]):
            try:
                line = self.queue.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                line = None
            if line is None:
                self.tap.ok(False, "%s prints %r" % (" ".join(self.process.args[3:]), text),
                       *self.lines, self.kill())
                return
            self.lines.append(line)

    def kill(self):
        self.process.kill()
        return self.process.stderr.read()

    def stop(self):
        """Interrupts as a user's Ctrl-C does; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "killed"

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()
        self.reader.join(SECONDS)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                stream.close()
            except OSError:
                pass
