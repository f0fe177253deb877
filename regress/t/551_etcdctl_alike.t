#!/usr/bin/python3
"""551_etcdctl_alike.t - t4 put, get, del, txn, watch, lease, ... print what etcdctl 3.6 prints.

The same command lines run three times, each on a server of its own: etcdctl on t4, t4's commands
on t4, t4's commands on a real etcd.  Standard output must be the same, byte for byte in "simple"
and as JSON, once the numbers that servers choose are replaced; so must success and failure.

SPDX-License-Identifier: Apache-2.0
"""

import concurrent.futures
import json
import os
import re
import shlex
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import commandlines as alike  # noqa: E402
import t4test  # noqa: E402
from running import SECONDS, Running  # noqa: E402

TAP = t4test.Tap()

# What 120_etcdctl.t asks, too; t4 has no other forms than simple and json, and a --count-only of its own.
SHARED = [line for text in (alike.WRITES, alike.READS, alike.READS_36, alike.DELETES, alike.TXNS,
                            alike.LEASES) for line in alike.each(text)
          if "-w fields" not in line and "--count-only" not in line]
# Forms of words and flags that a client may read in another way.
MORE = r"""
put a/2 two -w json
put a/3 three --prev-kv -w=json
put --lease=zz a b
put a 5 --prev-kv -wjson
get a/ --prefix --limit 2 -w json
get a/ --prefix --order=ascend
get a/ --prefix --sort-by=VERSION --keys-only
get a b --prefix
get -w nothing a
put z1 1
del z1 --from-key --prev-kv -w json
put d/1 x
del d/1 d/2 --range
del a b c
txn << value("a") = "5"\n\nput t yes\nget t\n\nput t no\n\n
txn << create("t2") > "1"\nversion("t2") < "2"\n\ndel a/2 --prefix --prev-kv\nget a/ --prefix\n\n\n
txn -w json << \nput t3 1\nget t2\ndel t --prev-kv\n\n\n
txn << val("t3") != "2"\nlease("t3") = "0"\n\nput "q \x41\t\u00e9\"" 'single "q"'\n\n\n
txn --hex << \nget q --prefix\n\n\n
txn << \nput\n\n\n
txn << \nfoo a\n\n\n
txn << ver("a") = "x"\n\n\n\n
txn << val("a") = 1\n\n\n\n
txn << foo("a") = "1"\n\n\n\n
txn << \nput t4 1\n\n
txn extra
get t --prefix
grant one 1000
put l/1 v --lease={one}
lease timetolive {one} --keys -w json
lease timetolive {one} -w json
lease timetolive 1234 -w json
lease keep-alive 1234
endpoint health
endpoint health -w json
endpoint status
endpoint status -w json
alarm list
alarm list -w json
alarm disarm
defrag
defrag -w json
"""
LINES = SHARED + list(alike.each(MORE)) + [
    line for line in alike.each(alike.COMPACTIONS) if not line.startswith("compaction 9 -w json")]
MASKED = {"dbSize", "dbSizeInUse", "raftIndex", "raftTerm", "raftAppliedIndex", "raft_term",
          "took", "dbSizeQuota", "version", "storageVersion"}


class Side:
    def __init__(self, name, program, server):
        self.name = name
        self.program = program
        self.server = server
        self.leases = {}
        self.environment = {name: value for name, value in os.environ.items()
                            if not name.startswith(("ETCD", "T4_"))}

    def command(self, line):
        words = [word.format(**self.leases) if "{" in word else word for word in shlex.split(line)]
        if words[0] == "compaction" and self.program.endswith("t4"):
            words[0] = "compact"
        return [self.program, *words, "--endpoints", "http://" + self.server.address] \
            if "--" not in words else \
            [self.program, words[0], "--endpoints", "http://" + self.server.address, *words[1:]]

    def run(self, line):
        """(standard output with names for what servers choose, whether it succeeded)"""
        line, _, stdin = line.partition(" << ")
        name = None
        if line.startswith("grant "):
            name = line.split()[1]
            line = "lease grant " + " ".join(line.split()[2:])
        done = subprocess.run(self.command(line), input=stdin.replace("\\n", "\n"), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=SECONDS,
                              env=self.environment)
        if name:
            lease = re.search(r'lease (\w+)|"ID":(\d+)', done.stdout)
            self.leases[name] = lease[1] or "%016x" % int(lease[2])
        if re.search(r"AddressSanitizer|runtime error|panic", done.stderr):
            TAP.diag(done.stderr)
        text = done.stdout
        if "-w json" in line or "-w=json" in line or "-wjson" in line:
            text = self.json(line, text)
        return self.tidy(line, text), done.returncode == 0, done.stderr

    @staticmethod
    def json(line, text):
        """Numbers that servers choose are replaced; order and spaces of the bytes stay."""
        text = re.sub(r'"(cluster_id|member_id|leader)":\d+', r'"\1":N', text)
        for key in MASKED if line.startswith("endpoint") else {"raft_term"}:
            text = re.sub(r'"%s":("[^"]*"|[0-9]+)' % key, '"%s":M' % key, text)
        text = re.sub(r'"ttl":\d{3,}', '"ttl":N', text)
        # The keys of a lease come in any order.
        return re.sub(r'"keys":\[(.*?)\]', lambda keys: '"keys":%s' % sorted(keys[1].split(",")), text)

    def tidy(self, line, text):
        text = text.replace(self.server.address, "ENDPOINT").replace("http://", "")
        for name, lease in self.leases.items():
            text = text.replace(lease, "LEASE_" + name)
            text = text.replace(str(int(lease, 16)), "LEASE_" + name)
        if line == "endpoint status":
            text = re.sub(r"\b[0-9a-f]{8,}\b", "ID", text)
            text = re.sub(r"\b\d+(\.\d+)*( [kMG]?B)?\b%?", "N", text)
        text = re.sub(r"took (= )?[^,\n]*", "took T", text)
        text = re.sub(r"remaining\(\d{3,}s\)", "remaining(Ns)", text)
        return re.sub(r"attached keys\(\[([^]]*)\]\)",
                      lambda keys: "keys(%s)" % sorted(keys[1].split()), text)


def compare(sides):
    pool = concurrent.futures.ThreadPoolExecutor(len(sides))
    for line in LINES:
        results = list(pool.map(lambda side, line=line: side.run(line), sides))
        for side, result in zip(sides[1:], results[1:]):
            TAP.ok(result[:2] == results[0][:2], "%s: %s" % (side.name, line.split("\n")[0]),
                   "etcdctl: %r" % (results[0],), "t4:      %r" % (result,))


def events_in(lines):
    """How many events lines of JSON have: they come in one or in several."""
    return sum(len(json.loads(line)["Events"]) for line in lines)


# The lines, or with JSON events, that come of: put w/1, put w/1, del w/1, put w/2.
WATCHES = [("watch w/ --prefix", 12), ("watch w/ --prefix --prev-kv", 16),
           ("watch w/ --prefix --prev-kv -w json", 4), ("watch w/ --prefix --hex", 12),
           ("watch w/1", 9), ("watch w/1 w/2 -w json", 3)]


def watches(sides):
    """Watches of history and of what happens meanwhile, from one revision on."""
    for line, number in WATCHES:
        texts = []
        for side in sides:
            first = int(re.search(r'"revision":(\d+)', subprocess.run(
                side.command("put w/0 begin -w json"), stdout=subprocess.PIPE, text=True,
                check=True, env=side.environment).stdout)[1])
            for change in ("put w/1 one", "put w/1 two"):
                side.run(change)
            lines = Running(side.command("%s --rev %d" % (line, first + 1)), side.environment)
            side.run("del w/1")
            side.run("put w/2 three")
            got = "\n".join(lines.take(number, count=events_in if "json" in line else len))
            status = lines.stop()
            if side is not sides[0]:
                TAP.equal(status, 0, "%s: Ctrl-C ends %s with status 0" % (side.name, line))
            side.run("del w/ --prefix")
            got = re.sub(r'_revision":(\d+)', lambda r: '_revision":%d' % (int(r[1]) - first), got)
            got = re.sub(r'"revision":(\d+)', '"revision":0', got)
            if "json" in line:
                got = "\n".join(json.dumps(event, sort_keys=True) for part in got.splitlines()
                                if part.startswith("{") for event in json.loads(part)["Events"])
            texts.append(got)
        for side, text in zip(sides[1:], texts[1:]):
            TAP.ok(text == texts[0], "%s: %s" % (side.name, line), "etcdctl: %r" % texts[0],
                   "t4:      %r" % text)


def main():
    binaries = [path for version, path in t4test.etcdctl_binaries() if version.startswith("3.6.")]
    if not binaries:
        TAP.skip_all("no etcdctl 3.6 was built")
    if t4test.subject() is None or t4test.reference() is None:
        TAP.skip_all("no t4, or no etcd to compare with")
    if t4test.reference().is_34():
        TAP.skip_all("the etcd to compare with is 3.4")
    with t4test.T4().start() as one, t4test.T4().start() as two, \
            t4test.reference().start() as etcd:
        sides = [Side("etcdctl on t4", binaries[0], one), Side("t4 on t4", t4test.T4.binary, two),
                 Side("t4 on etcd", t4test.T4.binary, etcd)]
        compare(sides)
        watches(sides)
    TAP.done()


main()
