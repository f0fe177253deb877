#!/usr/bin/python3
"""610_libt4.t - the installed library: programs built against it, run for real.

1. `make install` into a folder; contrib/embed is built there with pkg-config, shared and static,
   also as C++, and prints what it should, twice over one directory.
2. contrib/python is made of the installed t4.h and passes its own tests.
3. A process with two databases is killed with SIGKILL: everything acknowledged is there.
4. The log's disk fails: calls fail with words, nothing hangs, and reopening finds what was
   acknowledged.
5. An object store: durability on request, a new disk, another process that takes over.
6. guide/embedding.md: its C is compiled and run; ref/libt4.md has every function and option.

SPDX-License-Identifier: Apache-2.0
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()
SECONDS = 30
SRC, BUILD = t4test.SRC_DIR, t4test.BUILD_DIR
if not os.path.exists(os.path.join(BUILD, "libt4.so")):
    TAP.skip_all("libt4 was not built")
try:
    import cffi  # noqa: F401
except ImportError:
    TAP.skip_all("python's cffi is missing; Debian package python3-cffi")

ROOT = tempfile.mkdtemp(prefix="t4-610-")
PREFIX = os.path.join(ROOT, "installed")
CC = os.environ.get("CC") or "cc"
SANITIZER = os.environ.get("T4_SANITIZER", "").split()
FLAGS = "".join(" -fsanitize=" + kind for kind in SANITIZER)
PYTHON = os.path.join(ROOT, "python")
ENVIRONMENT = {name: value for name, value in os.environ.items()
               if not name.startswith("T4_") and name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


def read(*path):
    with open(os.path.join(SRC, *path)) as source:
        return source.read()


def run(words, cwd=ROOT, **more):
    environment = dict(ENVIRONMENT, **more.pop("environment", {}))
    return subprocess.run(words, cwd=cwd, env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=120, **more)


def works(words, name, **more):
    done = run(words, **more)
    TAP.ok(done.returncode == 0, name, done.stdout[-3000:])
    return done


# ---- 1 --------------------------------------------------------------------------------------

def install():
    """Into a folder; t4.pc is told where that is, and programs where the plugins are."""
    stage = os.path.join(ROOT, "stage")
    # What is built is installed as it is (-o all): flags given to make are not known here.
    works(["make", "-C", BUILD, "-o", "all", "install", "DESTDIR=" + stage], "make install")
    found = [folder for folder, _, names in os.walk(stage) if "t4.pc" in names]
    pc = os.path.join(found[0], "t4.pc")
    with open(pc) as source:
        text = source.read()
    prefix = re.search(r"^prefix=(.*)$", text, re.M).group(1)
    os.rename(stage + prefix, PREFIX)
    with open(os.path.join(PREFIX, os.path.relpath(pc, stage + prefix)), "w") as out:
        out.write(text.replace("prefix=" + prefix + "\n", "prefix=" + PREFIX + "\n"))
    libdir = run(["pkg-config", "--variable=libdir", "t4"], environment={
        "PKG_CONFIG_PATH": os.path.join(PREFIX, os.path.relpath(found[0], stage + prefix))})
    ENVIRONMENT["PKG_CONFIG_PATH"] = os.path.join(
        PREFIX, os.path.relpath(found[0], stage + prefix))
    libdir = libdir.stdout.strip()
    ENVIRONMENT["T4_PLUGIN_DIR"] = os.path.join(libdir, "t4")
    soname = run(["readelf", "-d", os.path.join(libdir, "libt4.so")]).stdout
    TAP.ok("soname: [libt4.so.0]" in soname, "the library is called libt4.so.0", soname)
    needed = set(re.findall(r"NEEDED.*\[(\w+)", soname))
    TAP.ok(not needed & {"libgrpc", "libgpr", "libmicrohttpd", "liblmdb"},
           "and needs no gRPC", needed)


ONCE = """now:  greeting = hello
now:  running = yes
now:  runs = %d
%sthen: runs = %d
event: runs = %d
event: running = yes
event: greeting = hello
event: deleted running = 
run %d is over
"""


def example():
    folder = os.path.join(ROOT, "embed")
    shutil.copytree(os.path.join(SRC, "contrib", "embed"), folder)
    data = os.path.join(ROOT, "embedded")
    flags = "CFLAGS=-O1 -g -Wall -Wextra -Werror" + FLAGS
    for n, (kind, more) in enumerate([("libt4.so", []), ("libt4.a", ["STATIC=1"]),
                                      ("C++", ["CC=%s -x c++" % os.environ.get("CXX", "c++")])], 1):
        run(["make", "clean"], cwd=folder)
        if kind == "C++": # options after -x would make C++ of the library, too
            words = run(["pkg-config", "--cflags", "--libs", "t4"]).stdout.split()
            libdir = run(["pkg-config", "--variable=libdir", "t4"]).stdout.strip()
            works([os.environ.get("CXX", "c++"), "-std=c++11", "-Wall", "-Wextra", "-Werror"]
                  + FLAGS.split() + ["-x", "c++", "embed.c", "-x", "none", "-o", "embed"] + words
                  + ["-Wl,-rpath," + libdir], "contrib/embed is C++, too", cwd=folder)
        else:
            works(["make", flags, "CC=" + CC] + more, "contrib/embed is built with " + kind,
                  cwd=folder)
        done = run([os.path.join(folder, "embed"), data])
        TAP.equal(done.stdout, ONCE % (n, "then: greeting = hello\n" if n > 1 else "", n, n, n),
                  "and run the %d. time" % n)
        linked = run(["ldd", os.path.join(folder, "embed")]).stdout
        TAP.equal("libt4.so.0" in linked, kind != "libt4.a", "linked as it should be")
    done = run([os.path.join(folder, "embed"), "/proc/nowhere"])
    TAP.ok(done.returncode == 1 and "/proc/nowhere" in done.stdout and "hint:" in done.stdout,
           "an error names the directory and has a hint", done.stdout)


# ---- 2 --------------------------------------------------------------------------------------

def binding():
    shutil.copytree(os.path.join(SRC, "contrib", "python"), PYTHON)
    if SANITIZER:
        library = {"address": "libasan.so", "thread": "libtsan.so"}[SANITIZER[0]]
        ENVIRONMENT["LD_PRELOAD"] = run([CC, "-print-file-name=" + library]).stdout.strip()
        # The interpreter itself leaks by design.
        ENVIRONMENT["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    done = works(["make", "check"], "contrib/python passes its tests", cwd=PYTHON)
    TAP.ok(re.search(r"Ran 1\d tests", done.stdout), "all of them", done.stdout)


def child(program, *words, **more):
    """A Python program with the binding, its words in sys.argv; output is read line by line."""
    environment = dict(ENVIRONMENT, PYTHONPATH=PYTHON, PYTHONUNBUFFERED="1")
    environment.update(more.get("environment", {}))
    return subprocess.Popen([sys.executable, "-c", program] + list(words), env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def output(program, *words, **more):
    process = child(program, *words, **more)
    try:
        text, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        text, _ = process.communicate()
        text += "(timed out)"
    return text


# ---- 3 --------------------------------------------------------------------------------------

WRITE = """
import sys, t4
first, second = t4.open(sys.argv[1]), t4.open(sys.argv[2])
n = int(sys.argv[3])
while True:
    n += 1
    first.put("n/%06d" % n, str(n))
    second.transaction(success=[t4.put("last", str(n)), t4.put("m/%06d" % n, "x" * 1000)])
    print(n)
"""
CHECK = """
import sys, t4
with t4.open(sys.argv[1]) as first, t4.open(sys.argv[2]) as second:
    n = int(sys.argv[3])
    print(sum(first.get("n/%06d" % i) is None for i in range(1, n + 1)),
          sum(second.get("m/%06d" % i) is None for i in range(1, n + 1)),
          int(second["last"]) >= n, second.count(prefix="m/") == int(second["last"]))
"""


def killed():
    first, second = os.path.join(ROOT, "first"), os.path.join(ROOT, "second")
    acknowledged = 0
    for turn in range(3):
        process = child(WRITE, first, second, str(acknowledged))
        for _ in range(150):
            line = process.stdout.readline()
            if not line.strip().isdigit():
                TAP.ok(False, "a writer writes", line + process.stdout.read())
                return
            acknowledged = int(line)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        acknowledged = int((["%d" % acknowledged] + re.findall(r"^(\d+)\n", rest, re.M))[-1])
        TAP.equal(output(CHECK, first, second, str(acknowledged)), "0 0 True True\n",
                  "kill -9 with two databases open loses nothing acknowledged (%d)" % turn)


# ---- 4 --------------------------------------------------------------------------------------

FAIL = """
import os, sys, threading, t4
path, control = sys.argv[1:3]
told = threading.Event()
failures = []
def on_failure(error):
    failures.append(error)
    told.set()
db = t4.open(path, on_failure=on_failure)
for n in range(20):
    db.put("k%d" % n, "v")
watch = db.watch("never")
with open(control + ".new", "w") as out:
    out.write("eio")
os.rename(control + ".new", control)
def failing(number):
    try:
        db.put("lost%d" % number, "v")
        print("acknowledged")
    except (t4.UnknownOutcome, t4.Failed) as error:
        assert "log" in error.message, error.message
threads = [threading.Thread(target=failing, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(told.wait(20), len(failures), type(failures[0]).__name__)
for call in (lambda: db.get("k1"), lambda: db.put("x", "y"), lambda: next(watch)):
    try:
        call()
        print("goes on")
    except t4.Failed as error:
        print("Failed", "log" in error.message)
db.close()
os.unlink(control)
with t4.open(path) as db:
    print(db.count(prefix="k"), db.put("x", "y") > 0)
"""


def disk_fails():
    data, control = os.path.join(ROOT, "failing"), os.path.join(ROOT, "control")
    preload = os.path.join(BUILD, "regress", "preload", "disk_fault.so")
    before = ENVIRONMENT.get("LD_PRELOAD", "")
    text = output(FAIL, data, control, environment={
        "LD_PRELOAD": (before + " " + preload).strip(), "T4_FAULT_DIR": data,
        "T4_FAULT_CONTROL": control})
    TAP.equal(text, "True 1 Failed\n" + 3 * "Failed True\n" + "20 True\n",
              "a failed log is told to every call and the callback; the process goes on")


# ---- 5 --------------------------------------------------------------------------------------

STORE = """
import os, shutil, sys, threading, t4
root = sys.argv[1]
url = "file://" + root + "/store"
told = threading.Event()
failures = []
def on_failure(error):
    failures.append(error)
    told.set()
options = dict(object_store=url, checkpoint_bytes="64 kB", checkpoint_interval="100 ms")
with t4.open(root + "/one", **options) as db:
    for n in range(200):
        db.transaction(success=[t4.put("k%06d" % n, "v" * 1000)])
    db.put("last", "1", object_durable=True)
    while "\\nt4_checkpoints_total 0\\n" in db.metrics():
        db.put("last", "1")
with t4.open(root + "/two", **options) as db:   # a new disk
    print(sum(len(kv.value) for kv in db.range(prefix="k")), db["last"])
    db.put("last", "2", object_durable=True)
shutil.rmtree(root + "/one")
one = t4.open(root + "/one", wal_sync_upload=False, on_failure=on_failure, **options)
one.put("last", "3", object_durable=True)
print(one["last"])
with t4.open(root + "/two", take_over_now=True, wal_sync_upload=False, **options) as two:
    while not told.is_set():
        try:
            one.put("last", "4", object_durable=True)
        except (t4.Unavailable, t4.UnknownOutcome):
            told.wait(20)
    print(type(failures[0]).__name__, two["last"])
    try:
        one.put("late", "x")
    except t4.Unavailable as error:
        print("refused")
    one.close()
try:
    with t4.open(root + "/plain") as plain:
        plain.put("a", "b", object_durable=True)
except t4.Invalid as error:
    print(error.message)
"""


def object_store():
    root = os.path.join(ROOT, "stores")
    os.makedirs(os.path.join(root, "store"))
    TAP.equal(output(STORE, root).splitlines(),
              ["200000 b'1'", "b'3'", "Unavailable b'3'", "refused",
               "T4_OBJECT_DURABLE without an object store"],
              "an object store: durable on request, a new disk, a take-over")


# ---- 6 --------------------------------------------------------------------------------------

def documentation():
    guide = read("sql-like-docs", "guide", "embedding.md")
    blocks = re.findall(r"^```c\n(.*?)^```", guide, re.M | re.S)
    whole = [block for block in blocks if "int main(" in block or "\nmain(" in block]
    TAP.ok(len(whole) == 1 and len(blocks) > 4, "guide/embedding.md has C", len(blocks))
    words = run(["pkg-config", "--cflags", "--libs", "t4"]).stdout.split()
    libdir = run(["pkg-config", "--variable=libdir", "t4"]).stdout.strip()
    compiler = [CC, "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"] + FLAGS.split()
    for n, block in enumerate(blocks):
        source = os.path.join(ROOT, "guide%d.c" % n)
        program = source[:-2]
        if block not in whole: # in a function, with what the guide calls db
            block = ("#include <poll.h>\n#include <stdio.h>\n#include <t4.h>\n"
                     "void snippet(t4_db *db);\nvoid snippet(t4_db *db)\n{\n    (void)db;\n"
                     + block + "}\nint main(void) { return 0; }\n")
        with open(source, "w") as out:
            out.write(block)
        if works(compiler + ["-Wno-unused-function", source, "-o", program] + words
                 + ["-Wl,-rpath," + libdir],
                 "example %d of the guide is compiled" % n).returncode == 0 and n == 0:
            shown = re.search(r"It prints\n\n```\n(.*?)```", guide, re.S)
            TAP.equal(run([program]).stdout, shown.group(1) if shown else "",
                      "and prints what the guide shows")
    page = read("sql-like-docs", "ref", "libt4.md")
    declared = set(re.findall(r"^T4_API[^;]*?\b(t4_\w+)\(", read("src", "include", "t4.h"),
                              re.M))
    TAP.equal(sorted(set(re.findall(r"`(t4_\w+)\(\)`", page))), sorted(declared),
              "ref/libt4.md has each function")
    options = re.findall(r'OPTION\("(\w+)", *(\w+), (NULL|"[^"]*"), (NULL|"[^"]*"),',
                         re.sub(r"\\\n\s*", "", read("src", "lib", "options.c")))
    TAP.ok(len(options) > 20, "options.c was read", options)
    rows = re.findall(r"^\| `([a-z]\w+)` \| (\w+)([^|]*) \|", page, re.M)
    want = [(name, kind.lower(), "".join(
        ", %s %s" % (word, text.strip('"')) for word, text in
        (("at least", least), ("at most", most)) if text != "NULL"))
            for name, kind, least, most in options]
    TAP.equal(sorted(rows), sorted(want), "and each option with its type and range")
    statuses = set(re.findall(r"\b(T4_E_\w+) = ", read("src", "include", "t4_plugin.h")))
    statuses |= set(re.findall(r"#define (T4_E_\w+)", read("src", "include", "t4.h")))
    TAP.equal(sorted(statuses - set(re.findall(r"^\| `(T4_E_\w+)`", page, re.M))), [],
              "and each status")


try:
    install()
    documentation()
    example()
    binding()
    killed()
    disk_fails()
    object_store()
finally:
    shutil.rmtree(ROOT, ignore_errors=True)
TAP.done()
