"""enginetest.py - running t4 plugin check, and building what is in contrib out of tree.

SPDX-License-Identifier: Apache-2.0
"""

import os
import re
import shutil
import subprocess

import t4test

SECONDS = 300


def t4(*words, binary=None):
    run = subprocess.run([binary or t4test.T4.binary, "plugin"] + list(words),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=SECONDS)
    return run.returncode, run.stdout, run.stderr


def lines(output, word):
    return re.findall(r"^%s \d+ - (.*)$" % word, output, re.M)


def passes(tap, what, least, *words, binary=None):
    """t4 plugin check with these words: all of at least `least` rules hold, none is skipped."""
    status, output, errors = t4("check", *words, binary=binary)
    tap.ok(status == 0 and not lines(output, "not ok"), "%s keeps the contract" % what,
           *(["status %d" % status] + lines(output, "not ok") + output.splitlines()[-20:] + [errors]))
    plan = re.search(r"^1\.\.(\d+)$", output, re.M)
    tap.ok(plan and int(plan.group(1)) == len(lines(output, "ok")) >= least,
           "%s: the plan is what was run" % what, plan and plan.group(0))
    tap.ok("# SKIP" not in output, "%s: nothing is skipped" % what)
    tap.equal(errors, "", "%s: nothing on standard error" % what)


def copy(name, to):
    """A folder of contrib, somewhere else."""
    folder = os.path.join(to, name)
    shutil.copytree(os.path.join(t4test.SRC_DIR, "contrib", name), folder,
                    ignore=shutil.ignore_patterns("*.so"))
    return folder


def make(tap, what, folder, *words, environment=None):
    """Builds there with the folder's own Makefile, as somebody else would."""
    clean = {name: value for name, value in os.environ.items()
             if name not in ("CC", "CFLAGS", "LDFLAGS", "MAKEFLAGS", "MFLAGS")}
    run = subprocess.run(["make", "-C", folder, "CC=cc", "CFLAGS=-O2 -Wall -Wextra -Werror"] +
                         list(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         timeout=SECONDS, env=dict(clean, **(environment or {})))
    return tap.ok(run.returncode == 0, "%s is built out of tree" % what, run.stdout)
