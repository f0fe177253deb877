#!/usr/bin/python3
"""407_engine_damage.t - a bit that flips in the storage engine's file never reaches a client.

Values and keys are damaged in the file of a stopped server.  Whoever reads such a record gets an
error or no answer, never the wrong bytes; the server ends, and the next start begins without the
engine, which log and object store fill again.  The same with a file that is no engine's at all,
with the engine's own record of its state, and when compaction is what finds the damage.

SPDX-License-Identifier: Apache-2.0
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from storetest import metric, until  # noqa: E402

TAP = t4test.Tap()
KEYS = 380 # of 100 kB: more than a memtable, so that the first hundred are flushed


def client_of(instance):
    import etcdclient
    return etcdclient.Client(instance.address)


def value_of(number):
    return b"value-%06d-" % number + b"x" * 100000


def fill(instance):
    """The first hundred keys are in the engine's file."""
    client = client_of(instance)
    for number in range(KEYS):
        client.put(b"key/%06d" % number, value_of(number))
    TAP.ok(until(lambda: metric(instance, "t4_engine_flushed_index") > 100), "keys are in the engine")
    client.close()
    instance.stop()


def engine_file(instance):
    return os.path.join(instance.data_dir, "engine", "data.mdb")


def flip(instance, needle):
    """Flips a bit in every copy of these bytes."""
    with open(engine_file(instance), "r+b") as file:
        content = file.read()
        at, found = content.find(needle), 0
        while at >= 0:
            file.seek(at + len(needle) - 1)
            file.write(bytes([content[at + len(needle) - 1] ^ 1]))
            found += 1
            at = content.find(needle, at + 1)
    return found


def read_all(client):
    """What each key has: True, False, or the error."""
    import etcdclient
    answers = {}
    for number in range(KEYS):
        try:
            found = client.range(b"key/%06d" % number)
            answers[number] = [kv.value for kv in found.kvs] == [value_of(number)]
        except etcdclient.grpc.RpcError as error:
            answers[number] = error.code().name
            break
    return answers


def whole_again(instance, name, text):
    instance.start()
    client = client_of(instance)
    TAP.equal(read_all(client), dict.fromkeys(range(KEYS), True), name + ": all of it is back")
    TAP.ok(text in instance.log(), "and the log says why", instance.log()[-2000:])
    TAP.ok(not os.path.exists(os.path.join(instance.data_dir, "engine-damaged")),
           "the mark is gone")
    client.close()
    instance.stop()


def by_a_read(name, needle, ask):
    import etcdclient
    with t4test.T4([]) as instance:
        instance.start()
        fill(instance)
        TAP.ok(flip(instance, needle) > 0, name + " is damaged")
        instance.start()
        client = client_of(instance)
        try:
            answer = ask(client)
            TAP.ok(False, "a read of it is not answered", answer)
        except etcdclient.grpc.RpcError as error:
            TAP.ok(error.code().name in ("DATA_LOSS", "UNAVAILABLE"), "a read of it fails",
                   error.code().name)
        TAP.equal(instance.wait(), 1, "the server ends")
        TAP.ok("a record of the storage engine" in instance.log(), "and says why")
        client.close()
        whole_again(instance, name, "was found damaged")


def by_compaction():
    with t4test.T4([]) as instance:
        instance.start()
        fill(instance)
        TAP.ok(flip(instance, value_of(77)) > 0, "a value that nobody reads is damaged")
        instance.start()
        client = client_of(instance)
        try:
            client.compact(client.range(b"key/000001").header.revision, physical=True)
        except Exception:  # noqa: BLE001 - the server ends before it answers
            pass
        TAP.equal(instance.wait(), 1, "compaction finds it")
        client.close()
        whole_again(instance, "compaction", "was found damaged")


def at_start(name, damage):
    with t4test.T4([]) as instance:
        instance.start()
        fill(instance)
        damage(instance)
        whole_again(instance, name, "the storage engine is damaged")


def no_engine(instance):
    with open(engine_file(instance), "r+b") as file:
        file.write(b"\xff" * 8192)


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    by_a_read("a value", value_of(50), lambda client: client.range(b"key/000050"))
    by_a_read("a value in a range", value_of(50),
              lambda client: client.range(b"key/", b"key0"))
    by_a_read("a key", b"kkey/000050", lambda client: client.range(b"key/", b"key0"))
    by_compaction()
    at_start("no engine's file", no_engine)
    at_start("the state", lambda instance: TAP.ok(flip(instance, b"\1state") > 0, "found"))
    TAP.done()


main()
