"""upgrade.py - what a client can see of a server, all of it, in a form that json can hold.

Entry point: everything().  For the upgrade test and for whoever makes its archives.

SPDX-License-Identifier: Apache-2.0
"""

import base64


def _text(data):
    return base64.b64encode(data).decode()


def _kv(kv):
    return [_text(kv.key), kv.create_revision, kv.mod_revision, kv.version, kv.lease,
            _text(kv.value)]


def _compacted(client):
    """The compacted revision, which a watch from below it is told."""
    watch = client.watch_stream()
    watch.created(b"a", start_revision=1)
    revision = watch.next().compact_revision
    watch.cancel()
    return revision


def everything(client):
    """{revision, oldest, kvs: {revision: [...]}, events, leases: {id: [ttl, keys]}}"""
    revision = client.status().header.revision
    oldest = _compacted(client)
    kvs = {str(at): [_kv(kv) for kv in client.range(b"\0", b"\0", revision=at).kvs]
           for at in range(oldest, revision + 1)}
    watch = client.watch_stream()
    watch.created(b"\0", b"\0", start_revision=oldest + 1, prev_kv=True)
    number, events = revision - oldest, []
    while len({event[1][2] for event in events}) < number:
        events += [[event.type, _kv(event.kv), _kv(event.prev_kv)]
                   for _, event in watch.events(1)]
    watch.cancel()
    leases = {}
    for lease in client.leases().leases:
        answer = client.time_to_live(lease.ID, keys=True)
        leases[str(lease.ID)] = [answer.grantedTTL, sorted(_text(key) for key in answer.keys)]
    return {"revision": revision, "oldest": oldest, "kvs": kvs, "events": events,
            "leases": leases}
