"""nomemory.py - the n-th allocation of a program fails.

Entry points: NoMemory, the control of regress/preload/no_memory.c.  Threads: the caller's.

SPDX-License-Identifier: Apache-2.0
"""

import mmap
import os
import struct

import t4test

# Whose allocations fail, besides the program's: plugins, and libraries that say NULL to them.
# gRPC and the C++ library end the process by themselves.
OBJECTS = "lmdb.so:liblmdb:dir.so:libt4:libprotobuf-c:libmicrohttpd:libzstd"


class NoMemory:
    """`directory` takes the control file; environment() is for the program's start."""

    LAYOUT = "=IIQQQ"  # struct control

    def __init__(self, directory, objects=OBJECTS):
        self.path, self.objects = os.path.join(directory, "memory"), objects
        with open(self.path, "wb") as out:
            out.truncate(mmap.PAGESIZE)
        with open(self.path, "r+b") as control:
            self.map = mmap.mmap(control.fileno(), mmap.PAGESIZE)

    def environment(self):
        preload = os.path.join(t4test.BUILD_DIR, "regress", "preload", "no_memory.so")
        before = os.environ.get("LD_PRELOAD", "")
        return {"LD_PRELOAD": (before + " " + preload).strip(),
                "T4_NOMEM_CONTROL": self.path, "T4_NOMEM_OBJECTS": self.objects}

    def fail(self, nth, all_later=False):
        """From now on: the nth allocation fails (0: they are counted), or it and all later ones."""
        struct.pack_into(self.LAYOUT, self.map, 0, 0, int(all_later), nth, 0, 0)
        struct.pack_into("=I", self.map, 0, 1)

    def good(self):
        """Memory is there again.  Returns how many allocations there were, and how many failed."""
        struct.pack_into("=I", self.map, 0, 0)
        return struct.unpack_from(self.LAYOUT, self.map, 0)[3:]
