"""storetest.py - object stores to put servers on, and load whose every answer is remembered.

Entry points: DirStore, S3Store, GcsStore (each behind plugins/fault, driven by control()), server()
makes a T4 on one of them; Load writes from several threads and knows what was acknowledged.

Threads: a Load's writers are its own; everything else belongs to the caller.

SPDX-License-Identifier: Apache-2.0
"""

import os
import shutil
import tempfile
import threading
import time
import urllib.request

import gcs_servers
import object_servers
import t4test

NOBODY = {"CLOUDSDK_CONFIG": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true"}


class Store:
    """A store behind the fault plugin; control() replaces its control file, "" removes it."""

    environment = {}
    window = 2  # --upload-window of the servers on it

    def __init__(self, url, settings=()):
        self.folder = tempfile.mkdtemp(prefix="t4test-store-")
        self.plain_url = url
        self.control_path = os.path.join(self.folder, "control")
        self.log_path = os.path.join(self.folder, "requests")
        self.settings = list(settings)

    def options(self, *fault):
        words = ["--object-store=fault+" + self.plain_url]
        for setting in self.settings + ["fault.control=" + self.control_path,
                                        "fault.log=" + self.log_path] + list(fault):
            words += ["--plugin-option=" + setting]
        return words

    def control(self, *lines):
        if not lines:
            try:
                os.unlink(self.control_path)
            except FileNotFoundError:
                pass
            return
        with open(self.control_path + ".new", "w") as out:
            out.write("\n".join(lines) + "\n")
        os.rename(self.control_path + ".new", self.control_path)

    def requests(self):
        try:
            with open(self.log_path) as log:
                return log.read().splitlines()
        except FileNotFoundError:
            return []

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class DirStore(Store):
    name = "dir"

    def __init__(self):
        super().__init__("file:///")
        self.path = os.path.join(self.folder, "store")
        self.plain_url = "file://" + self.path


class S3Store(Store):
    name = "s3"

    def __init__(self):
        self.server = object_servers.real_server()
        if self.server is None:
            self.server = object_servers.Amazon()
        else:
            self.server.start()
            self.server.make_bucket("bucket")
        self.server_url = self.server.url
        super().__init__("s3://bucket/some/prefix",
                         ["s3.endpoint=" + self.server_url, "s3.region=us-east-1"])
        self.environment = dict(NOBODY, T4_S3_ACCESS_KEY_ID=object_servers.ID,
                                T4_S3_SECRET_ACCESS_KEY=object_servers.SECRET)

    def close(self):
        self.server.close()
        super().close()


class GcsStore(Store):
    name = "gcs"

    def __init__(self):
        super().__init__("gs://bucket/some/prefix")
        if os.path.exists(gcs_servers.FakeGcs.path):
            self.server = gcs_servers.FakeGcs().start()
            self.server.make_bucket("bucket")
        else:
            self.server = gcs_servers.Google()
        self.environment = dict(NOBODY, STORAGE_EMULATOR_HOST=self.server.address)

    def close(self):
        self.server.close()
        super().close()


def server(store, *options, fault=()):
    return t4test.T4(store.options(*fault) + ["--segment-max-size-mb", "1",
                                               "--upload-window=%d" % store.window] +
                     list(options), environment=store.environment)


def metric(instance, name):
    """The value of one metric without labels."""
    with urllib.request.urlopen("http://%s/metrics" % instance.metrics_address,
                                timeout=10) as page:
        for line in page.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split(" ")[1])
    raise KeyError(name)


def until(condition, seconds=60):
    """Polls an event that has no other way of being heard of; False: it did not come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return True
        except OSError:
            pass
        time.sleep(0.02)
    return False


class Load:
    """Writers that put keys of their own, each once; acked: {key: (value, revision)}."""

    def __init__(self, address, name, writers=4, metadata=()):
        self.address, self.metadata = address, metadata
        self.acked, self.sent, self.failures = {}, set(), []
        self.changed = threading.Condition()
        self.ended = False
        self.threads = [threading.Thread(target=self.write, args=("%s/%d" % (name, i),),
                                         daemon=True) for i in range(writers)]
        for thread in self.threads:
            thread.start()

    def write(self, name):
        import etcdclient
        import grpc
        client = etcdclient.Client(self.address)
        try:
            for serial in range(1000000):
                if self.ended:
                    break
                key = ("%s/%06d" % (name, serial)).encode()
                value = key + b"=" * (serial * 37 % 700)
                with self.changed:
                    self.sent.add(key)
                answer = client.call("KV/Put", etcdclient.api.PutRequest(key=key, value=value),
                                     metadata=self.metadata)
                with self.changed:
                    self.acked[key] = (value, answer.header.revision)
                    self.changed.notify_all()
        except grpc.RpcError as error:
            with self.changed:
                self.failures.append((error.code().name, error.details()))
                self.changed.notify_all()
        finally:
            client.close()

    def wait(self, n, seconds=60):
        """Until n more writes are acknowledged than now."""
        with self.changed:
            target = len(self.acked) + n
            return self.changed.wait_for(
                lambda: len(self.acked) >= target or len(self.failures) == len(self.threads),
                seconds) and len(self.acked) >= target

    def finish(self):
        self.ended = True
        return self.join()

    def join(self, seconds=60):
        for thread in self.threads:
            thread.join(seconds)
        return self

    def missing(self, client, prefix=b"\0"):
        """What was acknowledged and is not there as it was acknowledged; what was never sent."""
        found, key = {}, b"\0"
        while True:
            page = client.range(key, b"\0", limit=500)
            for kv in page.kvs:
                found[kv.key] = (kv.value, kv.mod_revision)
            if not page.more:
                break
            key = page.kvs[-1].key + b"\0"
        wrong = ["%r acknowledged at %d, found %r" % (key, revision, found.get(key, (b"", 0))[1])
                 for key, (value, revision) in self.acked.items()
                 if found.get(key) != (value, revision)]
        return sorted(wrong)
