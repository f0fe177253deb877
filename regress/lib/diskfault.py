"""diskfault.py - a full or failing disk under a server, and writes until it is noticed.

Entry points: Disk (regress/preload/disk_fault.c on one folder of a server), error_of(),
put_until_refused(), lost(); FULL is etcd's error for a full disk.  Threads: the caller's.

SPDX-License-Identifier: Apache-2.0
"""

import os

import t4test

FULL = "etcdserver: mvcc: database space exceeded"


class Disk:
    """The control file of the preload; made before the server's start.  The folder is the server's
    data directory unless another one is given."""

    def __init__(self, server, folder=None):
        self.path = os.path.join(server.directory, "disk")
        preload = os.path.join(t4test.BUILD_DIR, "regress", "preload", "disk_fault.so")
        before = os.environ.get("LD_PRELOAD", "")
        server.environment.update(LD_PRELOAD=(before + " " + preload).strip(),
                                  T4_FAULT_DIR=folder or server.data_dir,
                                  T4_FAULT_CONTROL=self.path)

    def says(self, text):
        with open(self.path + ".new", "w") as out:
            out.write(text)
        os.rename(self.path + ".new", self.path)

    def good(self):
        os.unlink(self.path)


def error_of(call):
    """The RpcError of a call that fails, None if it does not."""
    import grpc
    try:
        call()
    except grpc.RpcError as error:
        return error
    return None


def put_until_refused(client, stored, most=400):
    """Puts of 50 kB; returns the error that ends them, None if none came."""
    for _ in range(most):
        key, value = b"key-%d" % len(stored), os.urandom(25000).hex().encode()
        error = error_of(lambda: client.put(key, value))
        if error is not None:
            return error
        stored[key] = value
    return None


def lost(client, stored):
    return [key for key, value in stored.items()
            if [kv.value for kv in client.range(key).kvs] != [value]]
