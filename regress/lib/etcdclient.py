"""etcdclient.py - a thin client of the etcd v3 API for tests: requests in, whole responses out.

Responsible for: loading the stubs that protoc wrote into <build>/regress/python, one method per
service call, watch and keepalive streams whose responses arrive in queues with deadlines.  It
hides nothing: errors are grpc.RpcError, responses are the protobuf messages as received.

Entry points: api (all message classes by their short names), Client, WatchStream, KeepAlive.
Environment:  T4_STUBS_DIR  where the stubs are (default: <build>/regress/python)
Threads: a Client may be used by many; a stream object belongs to one thread, its reader thread
only fills the queue.

SPDX-License-Identifier: Apache-2.0
"""

import glob
import importlib
import os
import queue
import sys
import threading
import time
import types

import grpc

from t4test import BUILD_DIR, CHANNEL_OPTIONS

CALL_SECONDS = 30
_STREAMING = {"Watch/Watch": "both", "Lease/LeaseKeepAlive": "both",
              "Maintenance/Snapshot": "server", "Election/Observe": "server",
              "Health/Watch": "server", "KV/RangeStream": "server"}


def _load():
    """Every message class of the stubs in one namespace; names are unique among them."""
    directory = os.environ.get("T4_STUBS_DIR") or os.path.join(BUILD_DIR, "regress", "python")
    sys.path.insert(0, directory)
    sys.path.append(os.path.join(directory, "etcd"))
    names = types.SimpleNamespace(services={})
    for path in sorted(glob.glob(os.path.join(directory, "**", "*_pb2.py"), recursive=True)):
        name = os.path.relpath(path, directory)[:-3].replace(os.sep, ".")
        module = importlib.import_module(name)
        for name in module.DESCRIPTOR.message_types_by_name:
            setattr(names, name, getattr(module, name))
        for name, enum in module.DESCRIPTOR.enum_types_by_name.items():
            setattr(names, name, enum)
        names.services.update(module.DESCRIPTOR.services_by_name)
    if not names.services:
        raise ImportError("no generated stubs in %s; run make there" % directory)
    return names


api = _load()


def prefix_end(key):
    """The range_end that makes a prefix of key, as clients compute it."""
    key = bytes(key)
    while key:
        if key[-1] < 0xff:
            return key[:-1] + bytes([key[-1] + 1])
        key = key[:-1]
    return b"\0"


def status_of(error):
    """(code name, text) of a failed call."""
    return error.code().name, error.details()


class Client:
    def __init__(self, address, options=()):
        self.channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS + list(options))
        self._calls = {}

    def close(self):
        self.channel.close()

    def method(self, name):
        """The gRPC callable of "Service/Method" (see grpc.Channel)."""
        if name not in self._calls:
            service, method = name.split("/")
            descriptor = api.services[service]
            kind = _STREAMING.get(name)
            make = {None: self.channel.unary_unary, "server": self.channel.unary_stream,
                    "both": self.channel.stream_stream}[kind]
            types_of = descriptor.methods_by_name[method]
            self._calls[name] = make(
                "/%s/%s" % (descriptor.full_name, method),
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=getattr(api, types_of.output_type.name).FromString)
        return self._calls[name]

    def call(self, name, request, timeout=CALL_SECONDS, **options):
        return self.method(name)(request, timeout=timeout, **options)

    def begin(self, name, request, timeout=CALL_SECONDS, **options):
        """As call(), but returns a grpc future at once."""
        return self.method(name).future(request, timeout=timeout, **options)

    # The calls that tests make most, with the fields of the request as keywords.

    def range(self, key, range_end=b"", **fields):
        return self.call("KV/Range", api.RangeRequest(key=key, range_end=range_end, **fields))

    def prefix(self, key, **fields):
        return self.range(key, prefix_end(key), **fields)

    def put(self, key, value=b"", **fields):
        return self.call("KV/Put", api.PutRequest(key=key, value=value, **fields))

    def delete(self, key, range_end=b"", **fields):
        return self.call("KV/DeleteRange",
                         api.DeleteRangeRequest(key=key, range_end=range_end, **fields))

    def txn(self, compare=(), success=(), failure=(), **options):
        return self.call("KV/Txn", api.TxnRequest(compare=compare, success=success,
                                                  failure=failure), **options)

    def compact(self, revision, physical=False):
        return self.call("KV/Compact",
                         api.CompactionRequest(revision=revision, physical=physical))

    def lease_grant(self, ttl, lease_id=0):
        return self.call("Lease/LeaseGrant", api.LeaseGrantRequest(TTL=ttl, ID=lease_id))

    def lease_revoke(self, lease_id):
        return self.call("Lease/LeaseRevoke", api.LeaseRevokeRequest(ID=lease_id))

    def time_to_live(self, lease_id, keys=False):
        return self.call("Lease/LeaseTimeToLive",
                         api.LeaseTimeToLiveRequest(ID=lease_id, keys=keys))

    def leases(self):
        return self.call("Lease/LeaseLeases", api.LeaseLeasesRequest())

    def status(self):
        return self.call("Maintenance/Status", api.StatusRequest())

    def member_list(self):
        return self.call("Cluster/MemberList", api.MemberListRequest())

    def watch_stream(self, **options):
        return WatchStream(self, **options)

    def keep_alive(self):
        return KeepAlive(self)


class Closed(Exception):
    """The stream ended: .error is its grpc.RpcError, or None for an ordinary end."""

    def __init__(self, error):
        super().__init__(str(error))
        self.error = error


class Stream:
    """A bidirectional stream: send() requests, next() the responses in order."""

    def __init__(self, client, name, **options):
        self._requests = queue.Queue()
        self._responses = queue.Queue()
        self._call = client.method(name)(iter(self._requests.get, None), **options)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        try:
            for response in self._call:
                self._responses.put(response)
            self._responses.put(Closed(None))
        except grpc.RpcError as error:
            self._responses.put(Closed(error))

    def send(self, request):
        self._requests.put(request)

    def next(self, seconds=CALL_SECONDS):
        """The next response; None if there is none in time; raises Closed at the end."""
        try:
            response = self._responses.get(timeout=max(seconds, 0))
        except queue.Empty:
            return None
        if isinstance(response, Closed):
            self._responses.put(response)
            raise response
        return response

    def end(self):
        """Closes the sending side."""
        self._requests.put(None)

    def cancel(self):
        self._requests.put(None)
        self._call.cancel()
        self._reader.join(CALL_SECONDS)


class WatchStream(Stream):
    def __init__(self, client, **options):
        super().__init__(client, "Watch/Watch", **options)

    def create(self, key, range_end=b"", **fields):
        self.send(api.WatchRequest(create_request=api.WatchCreateRequest(
            key=key, range_end=range_end, **fields)))

    def cancel_watch(self, watch_id):
        self.send(api.WatchRequest(
            cancel_request=api.WatchCancelRequest(watch_id=watch_id)))

    def progress(self):
        self.send(api.WatchRequest(progress_request=api.WatchProgressRequest()))

    def created(self, key, range_end=b"", **fields):
        """create() and its response, for streams on which nothing else is under way."""
        self.create(key, range_end, **fields)
        return self.next()

    def events(self, number, seconds=CALL_SECONDS):
        """At least that many events, as far as they come in time: [(response, event)]."""
        deadline = time.monotonic() + seconds
        found = []
        while len(found) < number:
            response = self.next(deadline - time.monotonic())
            if response is None:
                break
            found += [(response, event) for event in response.events]
        return found


class KeepAlive(Stream):
    def __init__(self, client):
        super().__init__(client, "Lease/LeaseKeepAlive")

    def ask(self, lease_id):
        """Renews one lease and returns the answer."""
        self.send(api.LeaseKeepAliveRequest(ID=lease_id))
        return self.next()
