#!/usr/bin/python3
"""553_man.t - the manual page: it formats without a warning, and says what the program says.

Each command of `t4 help` stands in it with the same words, and no other; so do the exit statuses.
`make install` puts it below share/man.

SPDX-License-Identifier: Apache-2.0
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()
PAGE = os.path.join(t4test.SRC_DIR, "sql-like-docs", "t4.1")


def commands():
    with open(PAGE) as page:
        text = page.read()
    section = re.search(r"^\.SH COMMANDS\n(.*?)^\.SH ", text, re.M | re.S).group(1)
    there = dict(re.findall(r"^\.TP\n\.B (\w+)\n(.*)\n", section, re.M))
    out = subprocess.run([t4test.T4.binary, "help"], stdout=subprocess.PIPE, text=True,
                         check=True).stdout
    said = dict(re.findall(r"^  (\w+)(?: \[COMMAND\])? +(\S.*)$", out, re.M))
    TAP.ok(len(said) > 10, "t4 help lists the commands", said)
    TAP.equal(sorted(there), sorted(said), "the page names every command, and no other")
    for name in sorted(set(there) & set(said) - {"help"}):
        TAP.equal(there[name], said[name], "%s: in the same words" % name)
    TAP.equal(re.findall(r"^\.TP\n\.B (\d)\n", text, re.M), ["0", "1", "2"], "exit statuses")


def formatting():
    if shutil.which("groff") is None:
        TAP.skip("no groff here: only the text was compared")
        return
    for device in ("utf8", "ascii"):
        done = subprocess.run(["groff", "-man", "-ww", "-T" + device, PAGE], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        TAP.ok(done.returncode == 0 and done.stderr == "", "groff has no warning (%s)" % device,
               done.stderr)
    plain = re.sub("\x1b\\[[0-9;]*m|.\x08", "", done.stdout)
    TAP.ok("EXIT STATUS" in plain and r"\x61\x62" in plain and "--endpoints=list" in plain,
           "and shows what it should", plain)


def installed():
    if not os.path.exists(os.path.join(t4test.BUILD_DIR, "Makefile")):
        TAP.diag("no Makefile in " + t4test.BUILD_DIR)
        return
    with tempfile.TemporaryDirectory() as root:
        done = subprocess.run(["make", "-s", "install", "DESTDIR=" + root], cwd=t4test.BUILD_DIR,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        found = [os.path.relpath(os.path.join(base, name), root)
                 for base, _, names in os.walk(root) for name in names]
        TAP.ok(any(name.endswith("share/man/man1/t4.1") for name in found), "make install installs it",
               done.stdout[-500:])
        TAP.ok(any(name.endswith("share/doc/t4/ref/api/range.md") for name in found)
               and any(name.endswith("share/doc/t4/ref/t4-inspect.md") for name in found),
               "and the pages beside it")


commands()
formatting()
installed()
TAP.done()
