#!/usr/bin/python3
"""build_t4.py - makes t4/_t4.py out of the installed t4.h: the declarations for cffi.

    python3 build_t4.py [INCLUDEDIR [LIBDIR]]     default: what pkg-config says of t4

Needs cffi (Debian: python3-cffi), no compiler: the library is loaded, not linked.  What is
declared is read from the headers, so that there is no second copy of it.

SPDX-License-Identifier: Apache-2.0
"""

import os
import re
import subprocess
import sys

import cffi

HERE = os.path.dirname(os.path.abspath(__file__))


def installed(variable):
    return subprocess.run(["pkg-config", "--variable=" + variable, "t4"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()


def without_comments(path):
    with open(path) as header:
        return re.sub(r"/\*.*?\*/|\\\n", "", header.read(), flags=re.S)


def constants(text):
    """#define NAME 123, also (-123) and 123u."""
    return ["#define %s %s" % found for found in re.findall(
        r"^#define (T4_\w+)\s+\(?(-?\d+)u?\)?\s*$", text, re.M)]


def declarations(includedir):
    plugin = without_comments(os.path.join(includedir, "t4_plugin.h"))
    parts = re.findall(r"typedef int32_t t4_status;|enum \{.*?\};|struct t4_slice \{.*?\};",
                       plugin, re.S)
    parts += [line for line in constants(plugin) if " T4_LOG_" in line]
    header = without_comments(os.path.join(includedir, "t4.h"))
    parts += constants(header)
    header = re.sub(r"^#.*$", "", header, flags=re.M)
    header = header.replace("T4_API", "").replace('extern "C" {', "")
    header = re.sub(r"^\}$", "", header, flags=re.M)
    return "\n".join(parts) + header


def main():
    includedir = sys.argv[1] if len(sys.argv) > 1 else installed("includedir")
    libdir = sys.argv[2] if len(sys.argv) > 2 else installed("libdir")
    builder = cffi.FFI()
    builder.set_source("t4._t4", None)
    builder.cdef(declarations(includedir))
    builder.compile(tmpdir=HERE)
    with open(os.path.join(HERE, "t4", "_where.py"), "w") as where:
        where.write("LIBRARY = %r\n" % os.path.join(libdir, "libt4.so.0"))


if __name__ == "__main__":
    main()
