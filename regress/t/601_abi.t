#!/usr/bin/python3
"""601_abi.t - the plugin ABI is what regress/abi says, and what breaks it is noticed.

1. regress/abi/1.N.txt holds the sizes and offsets of every table and the value of every constant
   of ABI 1.N, on x86-64 Linux.  t4_plugin.h must agree with each of them: an old table may only
   have become longer; the newest file has all that the header has, and nothing else.  (A new
   minor: write its file with `regress/t/601_abi.t --print`.)  The table of object stores is open:
   it is not in these files.
2. The rule is tried on headers that break it.
3. Plugins that are wrong are refused by `t4 plugin check FILE` with the words that say why.

SPDX-License-Identifier: Apache-2.0
"""

import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()
HEADER = os.path.join(t4test.SRC_DIR, "src", "include", "t4_plugin.h")
ABI = os.path.join(t4test.SRC_DIR, "regress", "abi")
PLUGINS = os.path.join(t4test.BUILD_DIR, "regress", "plugins")
# Frozen with 1.0; what is not here is open (object stores) or opaque.
FROZEN = ("t4_slice", "t4_host", "t4_option", "t4_value", "t4_values", "t4_op", "t4_engine_stats",
          "t4_engine_ops", "t4_role", "t4_plugin")
OPEN_CONSTANTS = re.compile(r"T4_(PUT|TAG|OBJECT|TO_THE_END)")


def read(path):
    with open(path) as source:
        return source.read()


def members(body):
    """The names of a struct's members, in their order."""
    for part in body.split(";"):
        function = re.search(r"\(\*(\w+)\)", part)
        if function:
            yield function.group(1)
        elif part.strip():
            for name in part.split(","):
                yield re.search(r"(\w+)\s*$", name).group(1)


def facts(header):
    """{"what": number} of the header's text."""
    plain = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    lines = ['P("sizeof(void *)", sizeof(void *))']
    for name in FROZEN:
        body = re.search(r"struct %s \{(.*?)\n\};" % name, plain, re.S)
        if body is None:
            raise AssertionError("struct %s is not there" % name)
        lines.append('P("%s", sizeof(struct %s))' % (name, name))
        lines += ['P("%s.%s", offsetof(struct %s, %s) * 1000 + sizeof(((struct %s *)0)->%s))' %
                  (name, m, name, m, name, m) for m in members(body.group(1))]
    constants = re.findall(r"^#define (T4_[A-Z0-9_]+) +(?:\d|0x)\w*", plain, re.M)
    constants += re.findall(r"^ +(T4_[A-Z]\w*) = ", plain, re.M)
    for name in constants:
        if not OPEN_CONSTANTS.match(name):
            lines.append('P("%s", %s)' % (name, name))
    with tempfile.TemporaryDirectory(prefix="t4-601-") as folder:
        with open(os.path.join(folder, "t4_plugin.h"), "w") as out:
            out.write(header)
        source, program = os.path.join(folder, "facts.c"), os.path.join(folder, "facts")
        with open(source, "w") as out:
            out.write('#include <stdio.h>\n#include "t4_plugin.h"\n'
                      '#define P(name, n) printf("%%s %%lld\\n", name, (long long)(n));\n'
                      "int main(void) { %s return 0; }\n" % "\n".join(lines))
        subprocess.run(["cc", "-std=gnu11", "-I", folder, "-o", program, source], check=True)
        text = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = {}
    for line in text.splitlines():
        what, number = line.rsplit(" ", 1)
        if "." in what: # an offset and a size
            number = "%d %d" % divmod(int(number), 1000)
        found[what] = number
    return found


def stored(text):
    pairs = [line.split(": ") for line in text.splitlines() if line and line[0] != "#"]
    return dict(pairs)


def print_facts(found):
    return "".join("%s: %s\n" % pair for pair in found.items())


def problems(found, files):
    """files: {minor: facts}; what breaks the rule of a frozen ABI."""
    newest = int(found["T4_ABI_MINOR"])
    wrong = []
    if newest not in files:
        wrong.append("there is no file for minor %d" % newest)
    for minor, old in sorted(files.items()):
        for what, number in old.items():
            now = found.get(what)
            longer = what in FROZEN and minor < newest and now is not None and int(now) > int(number)
            if now != number and not longer and not (what == "T4_ABI_MINOR" and minor < newest):
                wrong.append("%s was %s in 1.%d and is %s" % (what, number, minor, now))
    wrong += ["%s is new, and not in the file of 1.%d" % (what, newest)
              for what in found if newest in files and what not in files[newest]]
    return wrong


def frozen():
    files = {int(name[2:-4]): stored(read(os.path.join(ABI, name)))
             for name in sorted(os.listdir(ABI)) if re.match(r"1\.\d+\.txt$", name)}
    header = read(HEADER)
    found = facts(header)
    TAP.ok(len(found) > 120, "the header has tables and constants", len(found))
    TAP.equal(found["sizeof(void *)"], "8", "pointers of 8 bytes")
    TAP.equal(problems(found, files), [], "the header is what regress/abi says")
    swapped = header.replace("    uint64_t records;", "    uint64_t file_bytes_;", 1).replace(
        "    uint64_t file_bytes;", "    uint64_t records;", 1).replace("file_bytes_;",
                                                                        "file_bytes;", 1)
    for what, broken, text in (
            ("two members change places", swapped, "t4_engine_stats.records was 8 8"),
            ("a member is taken away",
             header.replace("    uint64_t in_use_bytes;", "", 1), "is None"),
            ("a member in between",
             header.replace("    uint64_t caps;", "    uint64_t caps, more;", 1),
             "t4_engine_ops.max_key was 16 8 in 1.0 and is 24 8"),
            ("a member at the end, with the minor of before",
             header.replace("    void (*unload)(void *plugin);",
                            "    void (*unload)(void *plugin);\n    void *more;", 1),
             "t4_plugin.more is new"),
            ("a smaller number",
             header.replace("uint64_t (*now_ns)", "uint32_t more; uint64_t (*now_ns)", 1),
             "t4_host.now_ns was"),
            ("another value of a constant", header.replace("T4_E_IO = -16", "T4_E_IO = -17"),
             "T4_E_IO was -16 in 1.0 and is -17")):
        wrong = problems(facts(broken), files)
        TAP.ok(any(text in line for line in wrong), "noticed: " + what, *wrong[:5])
    later = header.replace("#define T4_ABI_MINOR 0", "#define T4_ABI_MINOR 1").replace(
        "    void (*unload)(void *plugin);", "    void (*unload)(void *plugin);\n    void *more;")
    found = facts(later)
    TAP.equal(problems(found, {**files, 1: found}), [],
              "a member at the end with the next minor is accepted")


def refused(what, status, texts, name, settings=(), **environment):
    run = subprocess.run([t4test.T4.binary, "plugin", "check", "--rounds=1"] +
                         ["--set=%s.%s" % (name, setting) for setting in settings] +
                         [os.path.join(PLUGINS, name + ".so")], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, timeout=120,
                         env=dict(os.environ, **environment))
    for text in texts:
        TAP.ok(run.returncode == status and "not ok" in run.stdout and text in run.stdout,
               "%s: \"%s\"" % (what, text), run.returncode, run.stdout, run.stderr)


def negative():
    for what, fault, texts in (
            ("wrong magic", "magic",
             ('plugin "test_bad": magic is 0x12345678, not 0x54345047',
              "the descriptor must begin with T4_PLUGIN_HEAD(...)")),
            ("wrong major", "major",
             ('plugin "test_bad": abi_major is 2 (it was built for ABI 2.0), the server has 1.0',
              "use a build of the plugin for ABI 1")),
            ("short descriptor", "size",
             ("size of its descriptor is 24 bytes, at least 96 are needed",
              "build it against this server's t4_plugin.h")),
            ("future minor", "minor",
             ("needs_minor is 7 (it needs ABI 1.7), the server has 1.0",
              "use a newer server or an older build of the plugin")),
            ("failing load", "load",
             ('plugin "test_bad" refused to load: the library has a cold: temperature 39',
              "# wait a week")),
            ("failing load without a word", "load silently",
             ('plugin "test_bad" refused to load: denied',))):
        refused(what, 1, texts, "test_bad", T4_TEST_FAULT=fault)
    refused("tables of roles", 1, (
        'plugin "test_bad": the table of role "tiny" says it is 4 bytes long',
        'storage engine "cut": its table (%d bytes) lacks the function "open"' %
        table_bytes("flushed"),
        'role "future" has min_minor 9 (it needs ABI 1.9), the server has 1.0'), "test_bad")
    refused("leaking", 1, ("plugin test_good unloads, all memory given back",
                           "# 2 allocations are left"), "test_good", ("needed=x", "leak=yes"))
    refused("no plugin", 1, ("test_empty.so does not export t4_plugin_v1()",), "test_empty")
    refused("not there", 1, ("test_missing.so: No such file or directory",), "test_missing")


def table_bytes(member):
    offset, size = stored(read(os.path.join(ABI, "1.0.txt")))["t4_engine_ops." + member].split()
    return int(offset) + int(size)


def main():
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(print_facts(facts(read(HEADER))))
        return
    frozen()
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    negative()
    TAP.done()


main()
