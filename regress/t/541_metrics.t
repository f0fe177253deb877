#!/usr/bin/python3
"""541_metrics.t - etcd's metrics under etcd's names: kinds and labels as a real etcd has them.

The output of the server is compared with that of a real etcd after the same requests: a name
that both have has the same kind and the same label names; a name of etcd that t4 does not have
is on a list below, with the reason.  The names that etcd's own alerts and dashboards use are
asked for one by one, and that their values move.

SPDX-License-Identifier: Apache-2.0
"""

import os
import re
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()

# What the alerts and dashboards of etcd's contrib/mixin ask for.
USED = """
etcd_server_has_leader etcd_server_is_leader etcd_server_leader_changes_seen_total
etcd_server_proposals_committed_total etcd_server_proposals_applied_total
etcd_server_proposals_pending etcd_server_proposals_failed_total
etcd_server_quota_backend_bytes etcd_mvcc_db_total_size_in_bytes
etcd_mvcc_db_total_size_in_use_in_bytes etcd_disk_wal_fsync_duration_seconds
etcd_disk_backend_commit_duration_seconds etcd_network_client_grpc_received_bytes_total
etcd_network_client_grpc_sent_bytes_total grpc_server_started_total grpc_server_handled_total
grpc_server_handling_seconds process_resident_memory_bytes process_open_fds process_max_fds
etcd_debugging_mvcc_db_compaction_keys_total etcd_server_slow_apply_total
etcd_server_slow_read_indexes_total etcd_server_read_indexes_failed_total
etcd_server_heartbeat_send_failures_total etcd_mvcc_put_total etcd_mvcc_delete_total
etcd_mvcc_txn_total etcd_mvcc_range_total etcd_server_id etcd_server_version
etcd_cluster_version etcd_server_is_learner etcd_server_health_success
etcd_server_health_failures etcd_server_client_requests_total
etcd_debugging_mvcc_current_revision etcd_debugging_mvcc_compact_revision
etcd_debugging_lease_granted_total etcd_debugging_lease_revoked_total
etcd_debugging_lease_renewed_total etcd_debugging_server_lease_expired_total
etcd_debugging_mvcc_total_put_size_in_bytes etcd_disk_wal_write_bytes_total
etcd_disk_wal_write_duration_seconds os_fd_used os_fd_limit process_cpu_seconds_total
process_start_time_seconds grpc_server_msg_received_total grpc_server_msg_sent_total
""".split()

# Names of etcd that are not here: a pattern and the reason.
ABSENT = [
    (r"go_", "about the runtime of Go"),
    (r"etcd_server_go_version", "about the runtime of Go"),
    (r"promhttp_", "about Go's library for metrics"),
    (r"process_network_", "counts of the whole host's network"),
    (r"etcd_grpc_proxy_", "there is no proxy"),
    (r"etcd_debugging_store_", "the store of API version 2"),
    (r"etcd_debugging_auth_revision", "there is no authentication yet"),
    (r"etcd_network_(peer_|active_peers|known_peers)", "there are no peers"),
    (r"etcd_(debugging_)?snap_", "there are no snapshots between members"),
    (r"etcd_server_snapshot_apply_in_progress_total", "there are no snapshots between members"),
    (r"etcd_server_learner_promote", "there are no learners"),
    (r"etcd_server_feature_enabled", "there are no feature gates"),
    (r"etcd_server_(apply|range)_duration_seconds", "would read the clock in every request"),
    (r"etcd_debugging_disk_backend_commit_", "steps of bbolt's commit"),
    (r"etcd_debugging_mvcc_(db|index)_compaction_(pause|total)_duration", "steps of bbolt"),
    (r"etcd_debugging_mvcc_db_compaction_last", "compaction is not a moment here"),
    (r"etcd_debugging_mvcc_keys_total", "live keys are not counted"),
    (r"etcd_debugging_lease_ttl_total", "times of leases are not kept"),
    (r"etcd_mvcc_db_open_read_transactions", "reads hold no transaction of the engine open"),
    (r"etcd_mvcc_hash_", "hashes are not there yet"),
    (r"etcd_disk_backend_(defrag|snapshot)_duration_seconds", "not there yet"),
    (r"etcd_disk_defrag_inflight", "not there yet"),
]


def scrape(address):
    with urllib.request.urlopen("http://%s/metrics" % address, timeout=20) as page:
        text = page.read().decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    labels, values = {}, {}
    for name, inside, value in re.findall(r"^([a-z_0-9]+)(?:{(.*)})? (\S+)$", text, re.M):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        base = base if kinds.get(base) == "histogram" else name
        found = re.findall(r'([a-z_]+)="', inside or "")
        labels.setdefault(base, set()).update(label for label in found if label != "le")
        values["%s{%s}" % (name, inside) if inside else name] = float(value)
    return text, kinds, labels, values


def load(server):
    """The same requests for both."""
    import etcdclient
    client, api = etcdclient.Client(server.address), etcdclient.api
    for i in range(20):
        client.put(b"m%d" % i, b"v" * 100)
    client.call("KV/DeleteRange", api.DeleteRangeRequest(key=b"m0", range_end=b"m1"))
    client.txn(success=[api.RequestOp(request_put=api.PutRequest(key=b"m%d" % i, value=b"t"))
                        for i in range(5)])
    client.range(b"m3")
    lease, other = client.lease_grant(60).ID, client.lease_grant(60).ID
    client.call("Lease/LeaseRevoke", api.LeaseRevokeRequest(ID=other))
    stream = client.keep_alive()
    stream.ask(lease)
    stream.cancel()
    watch = client.watch_stream()
    watch.created(b"m")
    watch.cancel()
    client.call("KV/Compact", api.CompactionRequest(revision=10))
    try:
        client.call("KV/Put", api.PutRequest())
    except etcdclient.grpc.RpcError:
        pass
    try:
        client.channel.unary_unary("/etcdserverpb.KV/Range")(
            b"\x0a\x01a", metadata=(("client-api-version", "3.6.4"),), timeout=20)
    finally:
        client.close()


def is_absent(name):
    return any(re.match(pattern + ("" if pattern.endswith("_") else r"(\w*)$"), name)
               for pattern, _ in ABSENT)


def compare(mine, etcds):
    _, kinds, labels, _ = mine
    _, etcd_kinds, etcd_labels, _ = etcds
    both = sorted(set(kinds) & set(etcd_kinds))
    TAP.ok(len(both) > 50, "many names are in both", len(both))
    for name in both:
        TAP.equal((kinds[name], labels.get(name)), (etcd_kinds[name], etcd_labels.get(name)),
                  "%s: kind and labels are etcd's" % name)
    missing = sorted(name for name in set(etcd_kinds) - set(kinds) if not is_absent(name))
    TAP.equal(missing, [], "what etcd has besides is on the list of what is not here")
    stale = [pattern for pattern, reason in ABSENT if not reason.endswith(" yet")
             and not any(re.match(pattern, name) for name in set(etcd_kinds) - set(kinds))]
    TAP.equal(stale, [], "nothing on that list is here, but for what was to come")
    TAP.equal([name for name in USED if name not in kinds], [],
              "every name that etcd's alerts and dashboards use is here")
    invented = [name for name in kinds if re.match("etcd_|grpc_|os_fd_", name)
                and name not in etcd_kinds]
    TAP.equal(invented, [], "no name of etcd's is made up")


def buckets(mine, etcds):
    """Alerts look at bounds: le has the same values."""
    for name in ("etcd_disk_wal_fsync_duration_seconds",
                 "etcd_disk_backend_commit_duration_seconds",
                 "etcd_disk_wal_write_duration_seconds", "grpc_server_handling_seconds"):
        bounds = [sorted(set(re.findall(r'^%s_bucket{.*?le="([^"]*)"' % name, text, re.M)))
                  for text in (mine[0], etcds[0])]
        TAP.equal(bounds[0], bounds[1], "%s: the same buckets" % name)


SERIES = 'grpc_server_%s_total{%sgrpc_method="%s",grpc_service="etcdserverpb.%s",grpc_type="%s"}'
# The same requests count the same in both.
EQUAL = [SERIES % ("started", "", "Put", "KV", "unary"),
         SERIES % ("handled", 'grpc_code="OK",', "Put", "KV", "unary"),
         SERIES % ("handled", 'grpc_code="InvalidArgument",', "Put", "KV", "unary"),
         SERIES % ("handled", 'grpc_code="OK",', "Txn", "KV", "unary"),
         SERIES % ("handled", 'grpc_code="Unavailable",', "Txn", "KV", "unary"),
         SERIES % ("msg_received", "", "Txn", "KV", "unary"),
         SERIES % ("msg_sent", "", "Put", "KV", "unary"),
         SERIES % ("started", "", "Watch", "Watch", "bidi_stream"),
         SERIES % ("msg_received", "", "Watch", "Watch", "bidi_stream"),
         SERIES % ("msg_sent", "", "Watch", "Watch", "bidi_stream"),
         SERIES % ("msg_received", "", "LeaseKeepAlive", "Lease", "bidi_stream"),
         SERIES % ("msg_sent", "", "LeaseKeepAlive", "Lease", "bidi_stream"),
         'etcd_server_client_requests_total{client_api_version="3.6.4",type="unary"}',
         'etcd_server_client_requests_total{client_api_version="unknown",type="stream"}',
         "etcd_debugging_lease_granted_total", "etcd_debugging_lease_revoked_total",
         "etcd_debugging_lease_renewed_total", "etcd_debugging_mvcc_current_revision",
         "etcd_debugging_mvcc_compact_revision", "etcd_mvcc_put_total", "etcd_mvcc_delete_total",
         "etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_is_learner",
         "etcd_server_quota_backend_bytes", "etcd_debugging_mvcc_total_put_size_in_bytes",
         "etcd_server_proposals_failed_total", "etcd_server_leader_changes_seen_total",
         "etcd_server_health_success", 'etcd_server_version{server_version="3.6.16"}',
         'etcd_cluster_version{cluster_version="3.6"}']


def values(mine, etcds):
    for series in EQUAL:
        TAP.equal(mine[3].get(series), etcds[3].get(series), "%s is etcd's" % series)
    for name in ("etcd_disk_wal_fsync_duration_seconds_count", "etcd_disk_wal_write_bytes_total",
                 "etcd_disk_wal_write_duration_seconds_count",
                 "etcd_server_proposals_committed_total", "etcd_mvcc_db_total_size_in_bytes",
                 "etcd_network_client_grpc_received_bytes_total",
                 "etcd_network_client_grpc_sent_bytes_total", "os_fd_limit", "os_fd_used"):
        TAP.ok(mine[3].get(name, 0) > 0, "%s moves" % name, mine[3].get(name))
    same = [("t4_wal_fsync_seconds_count", "etcd_disk_wal_fsync_duration_seconds_count"),
            ("t4_grpc_sent_bytes_total", "etcd_network_client_grpc_sent_bytes_total"),
            ("t4_revision", "etcd_debugging_mvcc_current_revision"),
            ("process_open_fds", "os_fd_used")]
    for ours, theirs in same:
        TAP.equal(mine[3].get(ours), mine[3].get(theirs), "%s is %s" % (theirs, ours))


def basic(server):
    server.options = []
    server.restart(crash=False)
    kinds = scrape(server.address)[1]
    TAP.ok("grpc_server_handling_seconds" not in kinds,
           "without --metrics=extensive the time of calls is not measured")


def main():
    options = ["--metrics=extensive"]
    reference, subject = t4test.reference(options), t4test.subject(options)
    if subject is None:
        TAP.skip_all("the server was not built")
    if reference is None or reference.is_34():
        TAP.skip_all("there is no etcd 3.6 to compare with")
    with reference.start(), subject.start():
        for server in (reference, subject):
            load(server)
            for page in ("health", "livez", "readyz"):
                urllib.request.urlopen("http://%s/%s" % (server.address, page)).read()
        # An answer arrives just before it is counted.
        deadline = time.monotonic() + 20
        while True:
            mine, etcds = scrape(subject.address), scrape(reference.address)
            if time.monotonic() > deadline or all(
                    mine[3].get(series) == etcds[3].get(series) for series in EQUAL):
                break
        compare(mine, etcds)
        buckets(mine, etcds)
        values(mine, etcds)
        basic(subject)
    TAP.done()


main()
