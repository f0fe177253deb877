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
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
import commandlines as alike  # noqa: E402
from etcdctl import SECONDS, Comparison, Following, wait_for  # noqa: E402

TAP = t4test.Tap()

# Command lines that run one after the other; {name} is a lease that "grant name" asked for.
# A line may have the text for standard input behind " << ".
# Every form of output, of every command that has one; the hash of the keys so far.
FORMS = r"""
get a -w table
get a -w nonsense
get a b c
get a/ --prefix --rev=3 --limit=1 --sort-by=MODIFY --order=DESCEND
put a 1 -w table
put a 1 -w nonsense
put x y --lease=zz
del a -w table
lease list -w fields
lease list -w table
lease revoke 12 -w fields
lease timetolive 12 -w fields
lease keep-alive 12 --once -w fields
alarm list -w table
compaction 1000 -w fields
txn -w table << \nget a\n\n\n
txn -i << \n\n\n
txn -i << value("a") = "1"\n\n\n\n
user list -w fields
user list -w table
role list -w fields
role list -w table
auth disable -w fields
member list -w table
endpoint status --cluster
endpoint status --cluster -w table
endpoint health --cluster
endpoint health --cluster -w json
endpoint health -w table
endpoint health -w fields
endpoint hashkv
endpoint hashkv -w json
endpoint hashkv -w table
endpoint hashkv -w fields
endpoint hashkv --cluster
endpoint hashkv --rev=4
endpoint hashkv --rev=1
endpoint hashkv --rev=1000
endpoint hashkv --rev=-1
version -w json
watch
snapshot
snapshot save
snapshot save a b
snapshot save /no/such/folder/x
snapshot status /no/such/file
check nonsense
check perf --load=nonsense
check datascale --load=nonsense
make-mirror
completion
"""

# These leave leases behind.
LOCKS = r"""
lease grant 100 -w table
elect
elect -l
elect a b c
lock
lock l -- false
lock l -- sh -c 'exit 7'
lock l -- /no/such/program
lock l --ttl=5 -- sh -c 'echo $ETCD_LOCK_KEY | sed s,/.*,,; test -n "$ETCD_LOCK_REV"'
lock l --ttl=0 -- true
lock l --ttl=-1 -- true
lock l --ttl=x -- true
lock '' -- true
"""

FORMS_36 = r"""
auth status -w fields
auth status -w table
downgrade validate 3.5 -w json
downgrade validate 3.5 -w fields
downgrade validate 3.5 -w table
downgrade cancel -w json
member list --consistency=s
member list --consistency=l -w json
member list --consistency=x
del r/1 r/3 --range
del r/ --range
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
member add new --learner --peer-urls=x
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
role grant-permission r read k --prefix
role grant-permission r readwrite k --from-key
role grant-permission r nonsense k
role grant-permission r read
role revoke-permission r k --prefix
role revoke-permission r k --from-key
user add u:secret x
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
    ("user add u --new-user-password=x", "t4: this version keeps no users and roles"),
    ("user add u:secret --interactive=false", "t4: this version keeps no users and roles"),
    ("user add u --no-password", "t4: this version keeps no users and roles"),
    ("role add r", "t4: this version keeps no users and roles"),
]
T4_ONLY_36 = [("downgrade enable 3.5", "etcdctl make-mirror")]



# Of make-mirror; the last one only 3.6 knows.
MIRRORS = ["--prefix=m{side}", "--dest-prefix=copy/{side}/ --prefix=m{side}/",
           "--prefix=m{side} --rev=1 --max-txn-ops=1"]
# Those that take a minute by themselves only in `make check-etcdctl`.
CHECKS = ["check datascale --auto-compact --auto-defrag --prefix=/d/"]
if os.environ.get("T4_ETCDCTL_CHECKS"):
    CHECKS += ["check perf --auto-compact --auto-defrag --prefix=/p/", "check datascale --load=m"]
NO_SERVER = ("help", "completion", "migrate")
SHORT = {"--listen": "-l", "--interactive": "-i"}
# TLS and authentication, which there is none of; files of a stopped etcd; restoring a cluster.
OTHER_FLAGS = {"--dest-cacert", "--dest-cert", "--dest-key", "--dest-insecure-transport",
               "--dest-user", "--dest-password", "--data-dir", "--name", "--wal-dir",
               "--initial-cluster", "--initial-cluster-token", "--initial-advertise-peer-urls",
               "--skip-hash-check", "--no-dest-prefix"}


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
        self.asked.append(line)
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

    def keep_alive(self):
        """Kept alive until it is revoked, which ends the command."""
        results = []
        for side in self.sides:
            lease = side.output("lease grant 3").split()[1]
            with Following(side, "lease keep-alive " + lease) as alive:
                alive.until("keepalived")
                side.output("lease revoke " + lease)
                alive.until("expired or revoked")
                results.append(([line.replace(lease, "LEASE") for line in alive.lines],
                                alive.process.wait(SECONDS)))
        self.asked.append("lease keep-alive")
        self.same("lease keep-alive until it is revoked", results)

    def protobufs(self):
        """What stands in -w protobuf, once what servers choose is taken out."""
        import etcdclient
        api = etcdclient.api
        for line, message in (("get a/ --prefix", api.RangeResponse),
                              ("put a/1 one --prev-kv", api.PutResponse),
                              ("del a/9 --prev-kv", api.DeleteRangeResponse),
                              ("user list", api.AuthUserListResponse),
                              ("alarm list", api.AlarmResponse),
                              ("member list", api.MemberListResponse)):
            results = []
            for side in self.sides:
                out = subprocess.run(side.command(line + " -w protobuf"), env=side.environment,
                                     stdout=subprocess.PIPE, check=True).stdout
                answer = message.FromString(out)
                for part in [answer.header] + list(getattr(answer, "members", ())):
                    for field in ("cluster_id", "member_id", "raft_term", "ID", "name",
                                  "clientURLs", "peerURLs"):
                        if hasattr(part, field):
                            part.ClearField(field)
                results.append(str(answer))
            self.same(line + " -w protobuf", results)

    def snapshots(self):
        """Saved by this etcdctl; 3.4's also reads and restores it."""
        results = []
        with tempfile.TemporaryDirectory(prefix="t4test-") as folder:
            for side in self.sides:
                path = os.path.join(folder, side.server.name)
                lines = [side.done("snapshot save " + path)]
                for command in ("status %s", "status %s -w json", "restore %%s --data-dir %s/%s" % (
                        folder, side.server.name + "-restored")):
                    lines.append(side.done("snapshot " + command % path))
                lines.append(os.path.exists(path + "-restored/member/snap/db"))
                results.append([snapshot_line(side, path, line) for line in lines])
        for command in ("save x", "status x", "restore x"):
            self.asked.append("snapshot " + command)
        self.same("snapshot save, status, restore", results)

    def mirrors(self):
        """Keys from each server to a prefix of the other."""
        results = []
        for source, other in (self.sides, self.sides[::-1]):
            side, there = source.server.name, other.server.address
            seen = []
            for number, flags in enumerate(MIRRORS if self.is_36() else MIRRORS[:2]):
                old, new = "old/%d" % number, "new/%d" % number
                source.output("put m%s/%s 1" % (side, old))
                flags = flags.format(side=side)
                with Following(source, "make-mirror %s %s" % (there, flags)) as mirror:
                    # What is written while it begins may come from the past or as an event.
                    source.output("put m%s/%s 2" % (side, new))
                    there_now = "get '%s' --prefix" % flags.split("=")[1].split()[0] \
                        if "--dest-prefix" in flags else "get m%s --prefix" % side
                    wait_for(other, there_now, lambda out, new=new: new in out)
                    source.output("del m%s/%s" % (side, new))
                    wait_for(other, there_now, lambda out, new=new: new not in out)
                    found = other.output(there_now)
                    seen.append((found.replace(side, "SIDE"), mirror.stop()))
                    self.asked.append("make-mirror x " + flags)
            results.append(seen)
        self.same("make-mirror to the other", results)
        for side in self.sides:
            for prefix in ("m", "copy/"):
                side.output("del %s --prefix" % prefix)

    def is_36(self):
        return not self.version.startswith("3.4.")

    def checks(self, names):
        """They write a load of their own and judge by time: the judgement's words are compared."""
        for name in names:
            running = [side.begin(name) for side in self.sides]
            results = []
            for process in running:
                out, _ = process.communicate(timeout=300)
                text = re.sub(r"[\d.]+[a-zA-Z/]*", "N", out.split("\r")[-1].split("%")[-1])
                results.append((process.returncode, sorted(set(re.findall(
                    r"(?:PASS|FAIL)?:? *[A-Z][a-z]+ [a-z]+[^N\n]*", text)))))
            self.asked.append(name)
            self.same(name, results)

    def every_command(self):
        """Each sub-command of this etcdctl's help and each of its flags was given above."""
        given = {}
        for line in self.asked:
            words = [word for word in line.replace("=", " ").split()]
            for n in (1, 2):
                given.setdefault(" ".join(words[:n]), set()).update(words)
        missing = []
        for name in help_lines(self.sides[0], "", r"^\s+(\w[\w-]*(?: [a-z][\w-]*)?)\t+\s*[A-Z]"):
            if name.startswith(NO_SERVER) or name == "check perf":
                continue    # check perf: make check-etcdctl
            if name not in given:
                missing.append(name)
                continue
            for flag in help_lines(self.sides[0], name, r"^(?:  -(?:\w), |      )(--[\w-]+)[=\[]"):
                if flag not in given[name] and flag not in OTHER_FLAGS and SHORT.get(
                        flag) not in given[name]:
                    missing.append("%s %s" % (name, flag))
        TAP.equal(missing, [], "etcdctl %s: every sub-command was given with all its flags"
                  % self.version)

    def refusals(self, lines):
        """What t4 refuses in words of its own: the reason is printed, and the status is 1."""
        for line, text in lines:
            self.asked.append(line)
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


def help_lines(side, name, form):
    """What stands in the help of a command, without the flags of all of them."""
    text = side.output("help " + name)
    text = text.split("COMMANDS:")[-1].split("GLOBAL OPTIONS")[0] if name == "" else \
        text.split("OPTIONS:")[1] if "OPTIONS:" in text else ""
    return [found for found in re.findall(form, text.split("\nGLOBAL")[0], re.M)
            if found != "--help"]


def snapshot_line(side, path, result):
    """The status and the output without hash, size, times and names of this server."""
    if isinstance(result, bool):
        return result
    status, out, error = result
    text = side.tidy(out.replace(path, "FILE").replace(side.server.name, "SERVER"))
    try:
        told = json.loads(text)
        return status, told["revision"], told["totalKey"] > 0
    except ValueError:
        pass
    return (status, re.sub(r"^[0-9a-f]+, (\d+), .*", r"HASH, \1, KEYS, SIZE", text),
            [line for line in error.splitlines() if line.startswith("Error")])


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
            comparison.lines(alike.WRITES)
            comparison.lines(alike.READS)
            comparison.lines(FORMS)
            comparison.protobufs()
            comparison.snapshots()
            comparison.mirrors()
            comparison.lines(SERVICES)
            is_t4 = isinstance(subject, t4test.T4)
            if is_t4:
                comparison.refusals(T4_ONLY)
            if not version.startswith("3.4."):
                comparison.lines(SERVICES_36)
                comparison.lines(FORMS_36)
                if is_t4:
                    comparison.refusals(T4_ONLY_36)
            if not version.startswith("3.4."):
                comparison.lines(alike.READS_36)
            comparison.lines(alike.DELETES)
            comparison.lines(alike.TXNS)
            comparison.lines(alike.LEASES)
            comparison.lines(CLUSTER)
            comparison.alarms()
            comparison.watches()
            comparison.locks()
            comparison.elections()
            comparison.lines(alike.COMPACTIONS)
            comparison.compacted_watch()
            comparison.lines(LOCKS)
            comparison.keep_alive()
            comparison.checks(CHECKS)
            comparison.every_command()
    TAP.done()


main()
