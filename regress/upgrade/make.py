#!/usr/bin/python3
"""make.py - writes a data directory with a given t4, for the upgrade test to start from.

  make.py T4 FORMAT     makes format<FORMAT>.tar.xz here with the program T4

Run once for each format of data directories, with the last t4 that writes it; the archives stay.
Needs T4_BUILD_DIR (for the client's stubs) and T4_PLUGIN_DIR of that t4.  The server ends by
kill -9, so that the log holds what the storage engine does not; the built-in store has checkpoints.
What a client saw before stands in expected.json within the archive.

SPDX-License-Identifier: Apache-2.0
"""

import io
import json
import lzma
import os
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from etcdclient import Client, api  # noqa: E402
from storetest import metric, until  # noqa: E402
from upgrade import everything  # noqa: E402

LEFT_OUT = ("wal/reserve", "lock", "engine/lock.mdb")  # made anew by any start


def write(server, client):
    for number in range(120):
        client.put(b"key/%03d" % (number % 40), b"value %d" % number)
    client.put(b"with\0zeros\0", bytes(range(256)))
    for length in (480, 481, 960, 1500, 16384):
        client.put(b"long/" + b"l" * (length - 5), b"%d" % length)
    client.lease_grant(1000, 11)
    client.lease_grant(50000, 12)
    client.lease_grant(3000, -13)
    for number in range(10):
        client.put(b"leased/%d" % number, b"l", lease=11 + number % 2)
    client.delete(b"key/00", b"key/01")
    client.txn(success=[api.RequestOp(request_put=api.PutRequest(key=b"t/%d" % i, value=b"t"))
                        for i in range(5)])
    client.compact(client.status().header.revision - 30, True)
    client.put(b"above", b"the compaction")
    index = metric(server, "t4_log_index")
    until(lambda: metric(server, "t4_checkpoint_index") >= index)
    client.lease_revoke(12)
    client.delete(b"t/3")
    for number in range(20):
        client.put(b"key/%03d" % (2 * number), b"late %d" % number)
    index = metric(server, "t4_log_index")
    until(lambda: metric(server, "t4_store_index") >= index)
    client.put(b"last", b"in the log only")


def main():
    t4test.T4.binary = os.path.abspath(sys.argv[1])
    name = os.path.join(HERE, "format%s.tar.xz" % sys.argv[2])
    with t4test.T4(["--segment-max-size-mb=1", "--checkpoint-interval=100ms",
                    "--upload-max-age=100ms"]) as server:
        client = Client(server.start().address)
        write(server, client)
        expected = json.dumps(everything(client)).encode()
        client.close()
        server.kill()
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            def keep(member):
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                inside = member.name.split("/", 1)[-1]
                return None if inside in LEFT_OUT else member
            archive.add(server.data_dir, "data", filter=keep)
            member = tarfile.TarInfo("expected.json")
            member.size = len(expected)
            archive.addfile(member, io.BytesIO(expected))
    with open(name, "wb") as file:
        file.write(lzma.compress(out.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    print("%s: %d bytes" % (name, os.path.getsize(name)))


main()
