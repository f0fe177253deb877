"""services.py - requests of the differential test beyond keys, leases and watches.

Responsible for: choosing requests of Cluster, Auth, Maintenance (all but alarms), Lock, Election,
Health and RangeStream, valid and invalid ones.  Part of generate.py's Generator, which owns
the sequence.

Entry points: Services.make(), Services.every(), Services.learn().

Invariants:
 (1) Nothing changes what etcd would change and t4 refuses: no member is added, no user, no role,
     no downgrade enabled.
 (2) No call waits: the name of a lock or an election is that of its lease.  Leases are of those
     whose number the client chose, because their numbers stand in keys.

SPDX-License-Identifier: Apache-2.0
"""

from etcdclient import api

BAD_URLS = [[], [""], ["x"], [":1"], ["a:1"], ["http://a"], ["http://a:1/"], ["http://a:1/p"],
            ["http://a:x"], ["http://a b:1"], ["ftp://a:1"], ["http:a:1"], ["http:///a:1"],
            ["http://::1:1"], ["http://[::1]"], ["http://%41:1"], ["%zz"], ["http://a:1#%"],
            ["http://a:1", "http://a"], ["http://u%zz@a:1"], ["http://a:1\x01"], ["unix:/%"], ["unix://a:x/y"], ["unix:x#%"],
            ["http://[a]b:1"], ["http://a]:1"]]
BAD_VERSIONS = ["", "3", "x", "3.6", "3.6.0", "3.4", "3.7", "4.5", "v3.5", "+3.5", "-3.5", " 3.5",
                "3.5.", "3.5.0.0", "3.5-a", "3.5+a", "3.5.0+a_b", "3.5.0-a..b", "3.5.0-.a",
                "99999999999999999999.5", "3.9223372036854775808", "3..5", ".5"]
GOOD_VERSIONS = ["3.5", "3.5.0", "3.5.9", "03.05", "3.5.0-rc.1", "3.5.0+m", "3.5.0-", "3.5.0-a+b-c"]
RANGES = [(b"", b""), (b"a", b""), (b"b", b"a"), (b"a", b"a"), (b"a", b"b"), (b"a", b"\0"),
          (b"", b"\0"), (b"\0", b"\0")]
HEALTH_SERVICES = ["", "x", "etcdserverpb.KV"]
NAMES = ["", "u", "root", "r" * 300]


class Services:
    def __init__(self, generator):
        self.generator = generator
        self.random = generator.random
        self.member_id = 0
        self.peer = ""
        self.leaders = []       # LeaderKeys, the newest last
        self.makers = [
            (4, self.cluster), (3, self.maintenance), (6, self.auth), (5, self.lock),
            (9, self.election), (6, self.range_stream), (1, self.health)]

    def learn_member(self, member):
        """The reference's only member."""
        self.member_id = member.ID
        self.peer = member.peerURLs[0]

    def learn(self, step, response):
        if step.name == "Election/Campaign":
            self.leaders = self.leaders[-4:] + [response.leader]

    def make(self):
        """(kind, name, request) of a step."""
        makers = self.makers
        return self.random.choices([maker for _, maker in makers],
                                   [weight for weight, _ in makers])[0]()

    def every(self):
        """(kind, name, request): each request that has few forms, once."""
        for name, request in self.every_call():
            yield "call", name, request
        yield from self.every_auth()
        yield "snapshot", "Maintenance/Snapshot", api.SnapshotRequest()
        for name in ("Defragment", "Hash", "HashKV", "Status"):
            yield "call", "Maintenance/" + name, getattr(api, name + "Request")()
        for service in HEALTH_SERVICES:
            yield "call", "Health/Check", api.HealthCheckRequest(service=service)
            yield "first", "Health/Watch", api.HealthCheckRequest(service=service)
        yield "call", "Health/List", api.HealthListRequest()
        yield from self.reign(8001)

    @staticmethod
    def reign(lease):
        """An election from its beginning to its end, with what an observer sees of it."""
        name = b"reign"
        leader = api.LeaderRequest(name=name)
        yield "call", "Lease/LeaseGrant", api.LeaseGrantRequest(TTL=3000, ID=lease)
        for value in (b"first", b"second"):
            yield "call", "Election/Campaign", api.CampaignRequest(name=name, lease=lease,
                                                                   value=value)
            yield "first", "Election/Observe", leader
        yield "call", "Lease/LeaseRevoke", api.LeaseRevokeRequest(ID=lease)
        yield "call", "Election/Leader", leader

    def every_call(self):
        for urls in BAD_URLS + [[self.peer], [" %s " % self.peer], [self.peer, "http://a:1"],
                                ["HTTP" + self.peer[4:]]]:
            yield "Cluster/MemberAdd", api.MemberAddRequest(peerURLs=urls)
        for member in (0, 1, (1 << 64) - 1, self.member_id):
            yield "Cluster/MemberRemove", api.MemberRemoveRequest(ID=member)
            yield "Cluster/MemberPromote", api.MemberPromoteRequest(ID=member)
            yield "Cluster/MemberUpdate", api.MemberUpdateRequest(ID=member,
                                                                  peerURLs=[self.peer])
            yield "Maintenance/MoveLeader", api.MoveLeaderRequest(targetID=member)
        for version in BAD_VERSIONS + GOOD_VERSIONS:
            yield "Maintenance/Downgrade", api.DowngradeRequest(version=version)
        for version in BAD_VERSIONS:
            yield "Maintenance/Downgrade", api.DowngradeRequest(action=1, version=version)
        for key, end in RANGES:
            yield "Auth/RoleGrantPermission", api.AuthRoleGrantPermissionRequest(
                name="r", perm=api.Permission(key=key, range_end=end))

    # ---- cluster, maintenance ----------------------------------------------------------------

    def some_member(self):
        return self.random.choice([0, 1, 12345, (1 << 64) - 1, self.member_id])

    def cluster(self):
        rnd = self.random
        method = rnd.choice(["MemberList", "MemberAdd", "MemberRemove", "MemberUpdate",
                             "MemberPromote"])
        if method == "MemberList":
            request = api.MemberListRequest(linearizable=rnd.random() < 0.5)
        elif method == "MemberAdd":
            urls = rnd.choice(BAD_URLS + [[self.peer], [self.peer, "http://a:1"],
                                          ["http://b:2", self.peer]])
            request = api.MemberAddRequest(peerURLs=urls, isLearner=rnd.random() < 0.5)
        elif method == "MemberRemove":
            request = api.MemberRemoveRequest(ID=self.some_member())
        elif method == "MemberPromote":
            request = api.MemberPromoteRequest(ID=self.some_member())
        else:
            request = api.MemberUpdateRequest(ID=self.some_member(), peerURLs=[self.peer])
        return "call", "Cluster/" + method, request

    def maintenance(self):
        rnd = self.random
        choice = rnd.random()
        if choice < 0.3:
            return "call", "Maintenance/HashKV", api.HashKVRequest(revision=self.hash_revision())
        if choice < 0.35:
            return "call", "Maintenance/Status", api.StatusRequest()
        if choice < 0.37:
            return "call", "Maintenance/Hash", api.HashRequest()
        if choice < 0.5:
            return "call", "Maintenance/MoveLeader", api.MoveLeaderRequest(
                targetID=self.some_member())
        action = rnd.choice([0, 0, 0, 1, 2, 3, -1])
        versions = BAD_VERSIONS if action == 1 else BAD_VERSIONS + 2 * GOOD_VERSIONS
        return "call", "Maintenance/Downgrade", api.DowngradeRequest(
            action=action, version=rnd.choice(versions))

    def hash_revision(self):
        """Above the compacted one: what etcd says of that depends on a cache (430_hash_kv.t)."""
        rnd, generator = self.random, self.generator
        odd = [-1, -7, generator.revision + 1, 1 << 40]
        if generator.revision <= generator.compacted or rnd.random() < 0.3:
            return rnd.choice(odd)
        return rnd.choice([0, rnd.randint(max(generator.compacted, 0) + 1, generator.revision)])

    def health(self):
        rnd = self.random
        if rnd.random() < 0.3:
            return "call", "Health/List", api.HealthListRequest()
        kind, name = rnd.choice([("call", "Health/Check"), ("first", "Health/Watch")])
        return kind, name, api.HealthCheckRequest(service=rnd.choice(HEALTH_SERVICES))

    # ---- auth --------------------------------------------------------------------------------

    def auth(self):
        return self.random.choice(self.every_auth())

    def every_auth(self):
        """One request of each method, sorted by name."""
        rnd = self.random
        name, other = rnd.choice(NAMES), rnd.choice(NAMES)
        password = rnd.choice(["", "p", "p" * 72, "p" * 73, "\u00e4" * 37])
        key, end = rnd.choice(RANGES)
        permission = api.Permission(permType=rnd.randrange(3), key=key, range_end=end)
        requests = {
            "AuthEnable": api.AuthEnableRequest(),
            "AuthDisable": api.AuthDisableRequest(),
            "AuthStatus": api.AuthStatusRequest(),
            "Authenticate": api.AuthenticateRequest(name=name, password=password),
            "UserAdd": api.AuthUserAddRequest(password=password, options=rnd.choice(
                [None, api.UserAddOptions(no_password=rnd.random() < 0.5)])),
            "UserGet": api.AuthUserGetRequest(name=name),
            "UserList": api.AuthUserListRequest(),
            "UserDelete": api.AuthUserDeleteRequest(name=name),
            "UserChangePassword": api.AuthUserChangePasswordRequest(name=name,
                                                                    password=password),
            "UserGrantRole": api.AuthUserGrantRoleRequest(user=name, role=other),
            "UserRevokeRole": api.AuthUserRevokeRoleRequest(name=name, role=other),
            "RoleAdd": api.AuthRoleAddRequest(),
            "RoleGet": api.AuthRoleGetRequest(role=name),
            "RoleList": api.AuthRoleListRequest(),
            "RoleDelete": api.AuthRoleDeleteRequest(role=name),
            "RoleGrantPermission": api.AuthRoleGrantPermissionRequest(
                name=name, perm=None if rnd.random() < 0.2 else permission),
            "RoleRevokePermission": api.AuthRoleRevokePermissionRequest(role=name, key=key,
                                                                        range_end=end),
        }
        return [("call", "Auth/" + method, requests[method]) for method in sorted(requests)]

    # ---- locks and elections -----------------------------------------------------------------

    def lease(self):
        known = [lease for lease in self.generator.leases
                 if lease not in self.generator.server_leases]
        if known and self.random.random() < 0.85:
            return self.random.choice(known)
        return 424242

    @staticmethod
    def key_of(name, lease):
        return name + b"/" + (b"-%x" % -lease if lease < 0 else b"%x" % lease)

    def lock(self):
        lease = self.lease()
        name = b"lock%d" % lease
        if self.random.random() < 0.6:
            return "call", "Lock/Lock", api.LockRequest(name=name, lease=lease)
        keys = [self.key_of(name, lease), b"missing", b""]
        return "call", "Lock/Unlock", api.UnlockRequest(
            key=self.random.choices(keys, [8, 1, 1])[0])

    def leader(self):
        """The key of somebody who led, leads, or never did; perhaps none."""
        rnd = self.random
        if rnd.random() < 0.05:
            return None
        leader = api.LeaderKey(lease=424242)
        if self.leaders and rnd.random() < 0.9:
            leader.CopyFrom(rnd.choice(self.leaders))
        if rnd.random() < 0.2:
            leader.rev += 1
        return leader

    def election(self):
        rnd = self.random
        lease = self.lease()
        name = b"election%d" % lease
        value = b"candidate %d" % rnd.randrange(4)
        method = rnd.choice(["Campaign", "Campaign", "Proclaim", "Proclaim", "Leader", "Resign"])
        if method == "Campaign":
            request = api.CampaignRequest(name=name, lease=lease, value=value)
        elif method == "Proclaim":
            request = api.ProclaimRequest(leader=self.leader(), value=value)
        elif method == "Leader":
            request = api.LeaderRequest(name=name)
        else:
            request = api.ResignRequest(leader=self.leader())
        return "call", "Election/" + method, request

    # ---- ranges in pieces --------------------------------------------------------------------

    def range_stream(self):
        request = self.generator.range_request()
        for field in ("min_mod_revision", "max_mod_revision", "min_create_revision",
                      "max_create_revision"):
            request.ClearField(field)
        request.sort_order, request.sort_target = self.random.choice([(0, 0), (1, 0)])
        return "range_stream", "KV/RangeStream", request
