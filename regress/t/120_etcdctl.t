#!/usr/bin/python3
"""120_etcdctl.t - real etcdctl programs against the server under test and a real etcd.

Each command line runs against both; standard output, the error line and the exit status must be
the same once the names that servers choose (ids, addresses, lease numbers) are replaced.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import re
import shlex
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from etcdctl import SECONDS, Comparison, Following, wait_for  # noqa: E402

TAP = t4test.Tap()

# Command lines that run one after the other; {name} is a lease that "grant name" asked for.
# A line may have the text for standard input behind " << ".
WRITES = r"""
put a 1
put a 2 --prev-kv
put a/1 one
put a/2 two
put a/3 three
put b ''
put 'key with spaces' 'a value
of two lines'
put from-stdin << the value comes from standard input
put -- -dash -value
put --ignore-value a --prev-kv
put a 3 --ignore-value
put --ignore-value missing
put --ignore-lease missing v
put '' v
put
put a b c --prev-kv
put a 4 -w json
put a 5 --prev-kv -w json
put a 6 --prev-kv -w fields
"""

READS = r"""
get a
get missing
get ''
get
get a --hex
get a -w json
get a -w fields
get missing -w json
get missing -w fields
get a/ --prefix
get a/ --prefix --keys-only
get a/ --prefix --print-value-only
get '' --prefix
get '' --prefix --keys-only
get '' --from-key --keys-only
get a/2 --from-key
get a/1 a/3
get a/3 a/1
get a/ --prefix --limit=2
get a/ --prefix --limit=2 -w json
get a/ --prefix --limit=2 -w fields
get a/ --prefix --order=DESCEND
get a/ --prefix --order=ASCEND
get a/ --prefix --order=WRONG
get a/ --prefix --sort-by=KEY --order=DESCEND
get a/ --prefix --sort-by=CREATE --order=DESCEND
get a/ --prefix --sort-by=MODIFY
get a/ --prefix --sort-by=VALUE --limit=1
get a/ --prefix --sort-by=VERSION --limit=10 --keys-only
get a/ --prefix --sort-by=WRONG
get a --rev=2
get a --rev=1
get a --rev=1000000
get a --rev=-1
get a/ --prefix --rev=5 -w fields
get a --consistency=s
get a --consistency=l
get a --consistency=x
get a --prefix --from-key
get a --print-value-only -w json
get a/ --prefix --hex
get a/ --prefix --keys-only -w json
get 'key with spaces'
"""

READS_36 = r"""
get '' --prefix --count-only
get '' --prefix --count-only -w fields
get '' --prefix --count-only -w json
get '' --prefix --min-mod-rev=4 --max-mod-rev=6
get '' --prefix --min-create-rev=4 --max-create-rev=5 --keys-only
"""

DELETES = r"""
put d/1 x
put d/2 y
put d/3 z
put e/1 z
del missing
del d/1
del d/2 --prev-kv
del d/3 --prev-kv -w json
put d/1 x
put d/2 y
del d/ --prefix --prev-kv
del d/ --prefix
put z1 1
put z2 2
del z1 --from-key --prev-kv -w fields
put d/1 x
put d/2 y
del d/1 d/2
del d/2 d/1
del ''
del
get '' --prefix --keys-only
"""

TXNS = r"""
txn << value("a") = "6"\n\nput t yes\nget t\n\nput t no\n\n
txn << value("a") = "wrong"\n\nput t yes\n\nput t no\nget t\ndel t\n\n
txn -i << mod("missing") = "0"\n\nput t2 made\nget a/ --prefix\n\n\n
txn << create("t2") > "1"\nversion("t2") < "2"\n\ndel a/ --prefix --prev-kv\nget a/ --prefix\n\n\n
txn -w json << \nput t3 1\nget t3\n\n\n
txn -w fields << \nput t3 1\nget t3\n\n\n
txn << \nput t3 1\nput t3 2\n\n\n
txn << nonsense\n\n
txn --hex << \nget t3\n\n\n
get t --print-value-only
"""

LEASES = r"""
lease list
grant one 1000
grant two 5000 -w json
lease grant x
lease grant
lease grant 90000000000
put l/1 v --lease={one}
put l/2 v --lease={one}
put l/3 v --lease={two}
put l/3 v --lease=1234
put l/1 w --ignore-lease
put l/1 w --ignore-lease --lease={one}
get l/ --prefix -w json
lease timetolive {one}
lease timetolive {one} --keys
lease timetolive {one} --keys -w json
lease timetolive {two} --keys -w fields
lease timetolive 1234
lease list
lease list -w json
lease keep-alive {one} --once
lease keep-alive 1234 --once
lease keep-alive {two} --once -w json
lease revoke {one}
lease revoke {one}
lease revoke {two} -w json
lease revoke zz
get l/ --prefix
lease list
"""

COMPACTIONS = r"""
put c 1
put c 2
put c 3
compaction 1000000
compaction 5
compaction 5
compaction 3
get c --rev=2
compaction 8 --physical
compaction 9 -w json
compaction
compaction x
get a --rev=5
get a --rev=9
"""

# With the alarms that the heading of each part says.
ALARMS = (((), r"""
alarm list
alarm disarm
alarm list -w json
alarm nonsense
defrag
defrag --cluster
defrag x
"""), ((1,), r"""
alarm list
alarm list -w json
alarm list -w fields
put alarm refused
get alarm
del alarm
endpoint status
endpoint status -w json
endpoint status -w table
endpoint status -w fields
endpoint health
defrag
alarm disarm
alarm list
alarm disarm
endpoint health
put alarm taken
"""), ((2,), r"""
alarm list
put alarm refused
del alarm
get alarm
lease grant 100
compaction 3
endpoint status -w table
endpoint health -w json
alarm disarm -w json
alarm list
put alarm taken
"""))

CLUSTER = r"""
endpoint status
endpoint status -w table
endpoint status -w json
endpoint status -w fields
endpoint health
endpoint health -w json
endpoint status --cluster -w json
member list
member list -w json
member list -w fields
version
nonsense
"""

# {member} is the only member's id, {peer} its peer URL.  Nothing that etcd would carry out and t4
# refuses: those stand in T4_ONLY below.
SERVICES = r"""
member add new --peer-urls=x
member add new --peer-urls={peer}
member add new
member add
member remove 1234
member remove {member}
member remove zz
member remove
member update 1234 --peer-urls=http://127.0.0.1:1
member update {member} --peer-urls={peer}
member update {member} --peer-urls={peer} -w json
member update {member}
member promote 1234
member promote {member}
move-leader 1234
move-leader {member}
move-leader zz
move-leader
auth enable
auth disable
auth disable -w json
user list
user list -w json
user get u
user get u --detail
user delete u
user passwd u --interactive=false << secret\n
user grant-role u r
user revoke-role u r
user add '' --no-password
role list
role list -w json
role get r
role delete r
role add ''
role grant-permission r read k
role grant-permission r read b a
role revoke-permission r k
get a --user=root:secret
"""

SERVICES_36 = r"""
auth status
auth status -w json
downgrade validate 3.5
downgrade validate 3.6
downgrade validate x
downgrade validate
downgrade enable 3.4
downgrade cancel
downgrade
"""

# What only t4 is asked, and a part of what it says on standard error.
T4_ONLY = [
    ("member add new --peer-urls=http://127.0.0.1:1", "t4: this server is a single member"),
    ("member add new --learner --peer-urls=http://127.0.0.1:1", "--object-store"),
    ("member update {member} --peer-urls=http://127.0.0.1:1", "t4: this server has no peers"),
    ("user add u --no-password", "t4: this version keeps no users and roles"),
    ("role add r", "t4: this version keeps no users and roles"),
]
T4_ONLY_36 = [("downgrade enable 3.5", "etcdctl make-mirror")]



class AllCommands(Comparison):
    def alarms(self):
        """With alarms that no etcdctl can raise; disarming takes them down."""
        import etcdclient
        for kinds, lines in ALARMS:
            for side in self.sides:
                client = etcdclient.Client(side.server.address)
                for kind in kinds:
                    client.call("Maintenance/Alarm", etcdclient.api.AlarmRequest(
                        action=1, memberID=client.status().header.member_id, alarm=kind))
                client.close()
            self.lines(lines)

    # ---- commands that stay --------------------------------------------------------------------

    def watch(self, line, writes, stdin=None, last=""):
        """A watch with the writes that it is shown; all it prints up to the last of them.

        last: what stands before the last value, when the watch runs a command for each event.
        """
        self.ends += 1
        end = "the end %d." % self.ends
        results = []
        for side in self.sides:
            with Following(side, line, stdin) as watch:
                for write in writes:
                    side.output(write.replace("{end}", end))
                watch.until(last + end)
                results.append((side.tidy(events_only(line, watch.lines, last)), watch.stop()))
        self.same(line if not stdin else "%s << %r" % (line, stdin), results)

    def watches(self):
        out = [side.output("put w/1 first -w json") for side in self.sides][0]
        revision = json.loads(out)["header"]["revision"]
        writes = ["put w/1 second", "put w/2 first", "del w/1", "put w0 not-shown",
                  "del w/ --prefix", "put w/9 '{end}'"]
        flags_of = ["--prefix --rev=%d", "--prefix --prev-kv --rev=%d",
                    "--prefix --rev=%d -w json", "--prefix --prev-kv --rev=%d -w fields"]
        if not self.version.startswith("3.4."):
            flags_of.append("--prefix --progress-notify --rev=%d")
        for flags in flags_of:
            self.watch("watch w/ " + flags % revision, writes)
            writes = ["put w/9 '{end}'"]
        self.watch("watch w/1 w/5 --rev=%d" % revision, ["put w/4 '{end}'"])
        self.watch("watch -i", ["put w/7 '{end}'"],
                   "watch w/7 --rev=%d\n" % revision)
        # Not ETCD_WATCH_REVISION: it is the header's.
        self.watch("watch w/9 --rev=%d -- sh -c 'env | grep -e ^ETCD_WATCH_[EKV] | sort'"
                   % revision, ["put w/9 '{end}'"], last='ETCD_WATCH_VALUE="')

    def refusals(self, lines):
        """What t4 refuses in words of its own: the reason is printed, and the status is 1."""
        for line, text in lines:
            process = self.sides[1].begin(line, stdin=subprocess.DEVNULL)
            out, error = process.communicate(timeout=SECONDS)
            TAP.ok(process.returncode == 1 and text in error,
                   "etcdctl %s: %s: refused with the reason" % (self.version, line),
                   process.returncode, out, error)

    def compacted_watch(self):
        self.run("watch a --rev=2")

    def locks(self):
        """Holders exclude each other: no increment is lost."""
        results = []
        for side in self.sides:
            command = " ".join(shlex.quote(part) for part in side.command(""))
            script = ("n=$(%s get counter --print-value-only); %s put counter $((n + 1)) "
                      "> /dev/null; echo held" % (command, command))
            running = [side.begin("lock l -- sh -c " + shlex.quote(script)) for _ in range(4)]
            held = []
            for process in running:
                out, _ = process.communicate(timeout=60)
                held.append((process.returncode, out))
            counter = side.output("get counter --print-value-only")
            results.append((held, counter))
        self.same("lock: four holders one after the other", results)
        TAP.equal(results[1][1], "4\n", "etcdctl %s: no increment under the lock is lost"
                  % self.version)
        results = []
        for side in self.sides:
            with Following(side, "lock l2") as first:
                first.until("l2/")
                key = first.lines[0]
                with Following(side, "lock l2") as second:
                    # The second one waits: its key is there, and it has printed nothing.
                    wait_for(side, "get l2/ --prefix --keys-only",
                             lambda out: out.count("l2/") == 2)
                    waiting = list(second.lines)
                    status = first.stop()
                    second.until("l2/")
                    results.append((bool(re.fullmatch("l2/[0-9a-f]+", key)), waiting, status,
                                    second.lines[0] != key, second.stop()))
            wait_for(side, "get l2/ --prefix --keys-only", lambda out: out == "")
        self.same("lock: the second waits for the first", results)

    def elections(self):
        results = []
        for side in self.sides:
            with Following(side, "elect boss first") as leader:
                leader.until("first")
                with Following(side, "elect -l boss") as listener:
                    listener.until("first")
                    with Following(side, "elect boss second") as candidate:
                        wait_for(side, "get boss/ --prefix --keys-only",
                                 lambda out: out.count("boss/") == 2)
                        waiting = list(candidate.lines)
                        leader.stop()
                        candidate.until("second")
                        listener.until("second")
                        results.append((waiting, strip_keys(listener.lines),
                                        strip_keys(candidate.lines)))
                        candidate.stop()
                    listener.stop()
        self.same("elect: a listener sees the leader and the next one", results)


def events_only(line, lines, prefix):
    """What a watch printed, without the headers: how many events share one is left to chance."""
    if prefix:
        lines = [part for part in lines if part.startswith("ETCD_WATCH")]
    if "-w json" in line:
        return "\n".join(json.dumps(event) for part in lines
                         for event in json.loads(part)["Events"])
    if "-w fields" in line:
        lines = [part for part in lines
                 if not part.startswith(('"ClusterID"', '"MemberID"', '"Revision"',
                                         '"RaftTerm"'))]
    return "\n".join(lines)


def strip_keys(lines):
    return [re.sub("boss/[0-9a-f]+", "boss/KEY", line) for line in lines]


def main():
    binaries = t4test.etcdctl_binaries()
    if not binaries:
        TAP.skip_all("no etcdctl; install etcd-client")
    if t4test.reference() is None:
        TAP.skip_all("no etcd was built to compare with")
    if t4test.subject() is None:
        TAP.skip_all("no t4 in " + t4test.BUILD_DIR)
    if t4test.reference().is_34():
        # Later programs print fields that 3.4 does not answer.
        binaries = [(version, path) for version, path in binaries if version.startswith("3.4.")]
    for version, binary in binaries:
        with t4test.reference().start() as reference, t4test.subject().start() as subject:
            comparison = AllCommands(TAP, version, binary, [reference, subject])
            comparison.lines(WRITES)
            comparison.lines(READS)
            comparison.lines(SERVICES)
            is_t4 = isinstance(subject, t4test.T4)
            if is_t4:
                comparison.refusals(T4_ONLY)
            if not version.startswith("3.4."):
                comparison.lines(SERVICES_36)
                if is_t4:
                    comparison.refusals(T4_ONLY_36)
            if not version.startswith("3.4."):
                comparison.lines(READS_36)
            comparison.lines(DELETES)
            comparison.lines(TXNS)
            comparison.lines(LEASES)
            comparison.lines(CLUSTER)
            comparison.alarms()
            comparison.watches()
            comparison.locks()
            comparison.elections()
            comparison.lines(COMPACTIONS)
            comparison.compacted_watch()
    TAP.done()


main()
