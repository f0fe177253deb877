#!/usr/bin/python3
"""100_differential.t - the same requests to the server under test and to a real etcd.

Every answer is compared field by field; the first difference ends the run and is shown whole.
  T4_DIFF_REQUESTS  number of requests (default 2500)
  T4_DIFF_SEED      seed (default: fixed, so that a run can be repeated; "random" draws one)
  T4_DIFF_NOTE=1    go on after a differing answer; each kind of difference is shown once

SPDX-License-Identifier: Apache-2.0
"""

import glob
import os
import random
import re
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "differential")]

import t4test  # noqa: E402

TAP = t4test.Tap()
REQUESTS = int(os.environ.get("T4_DIFF_REQUESTS", "2500"))
SEED = os.environ.get("T4_DIFF_SEED", "3")


def every_method():
    """"Service/Method" of each that stands in proto/."""
    found = set()
    for path in glob.glob(os.path.join(t4test.SRC_DIR, "proto", "*", "*.proto")):
        with open(path) as text:
            for service, methods in re.findall(r"^service (\w+) {(.*?)^}", text.read(), re.M | re.S):
                found |= {service + "/" + name for name in re.findall(r"rpc (\w+)", methods)}
    return found


def main():
    reference, subject = t4test.reference(), t4test.subject()
    if reference is None:
        TAP.skip_all("no etcd to compare with in %s; contrib/quickstart puts it there"
                     % t4test.BUILD_DIR)
    if subject is None:
        TAP.skip_all("no t4 in " + t4test.BUILD_DIR)
    from compare import Exceptions
    from generate import Generator
    from run import Difference, Pair

    seed = random.SystemRandom().randrange(1 << 32) if SEED == "random" else int(SEED)
    exceptions = Exceptions(os.path.join(HERE, "..", "differential", "exceptions.txt"),
                            reference.version)
    generator = Generator(seed, exceptions.avoided)
    TAP.diag("%s against %s, T4_DIFF_SEED=%d T4_DIFF_REQUESTS=%d" % (
        subject.name, reference.name, seed, REQUESTS))
    reference.start()
    subject.start()

    def part(name, steps):
        """Runs the steps; the first difference fails the part and ends the test."""
        started = time.monotonic()
        ended = None
        try:
            for step in steps:
                pair.run(step)
        except Difference as difference:
            ended = str(difference)
        found = list((pair.noted or {}).values()) + ([ended] if ended else [])
        TAP.ok(not found, name, *("---- seed %d, %s" % (seed, text) for text in found))
        if ended:
            TAP.diag("last lines of the log of %s:\n%s" % (subject.name, subject.log_tail()))
            TAP.done()
        note()
        TAP.diag("%d requests, %.1f s" % (pair.number, time.monotonic() - started))

    def note():
        if os.environ.get("T4_DIFF_NOTE"):
            pair.noted = {}

    def random_part():
        while pair.number < REQUESTS:
            yield generator.next()
        yield from generator.queue

    def finish():
        pair.finish()
        return iter(())

    class Late:
        """Steps that are made when the part begins."""

        def __init__(self, make):
            self.make = make

        def __iter__(self):
            return iter(self.make())

    try:
        pair = Pair(reference, subject, generator, exceptions)
    except Difference as difference:
        TAP.ok(False, "first answer", str(difference))
        TAP.done()
    note()
    part("requests to an empty store", generator.opening())
    part("each request to the cluster, its downgrade and its roles", generator.every_service())
    part("random requests: every answer and every event is the same", random_part())
    part("keys that expire with their lease, a history in fragments", Late(generator.ending))
    part("no watch has more or less to tell on either side", Late(finish))
    part("reads of everything at many revisions", Late(lambda: generator.sweep(200)))
    TAP.diag("%d errors and %d watch items were among what was compared" % (
        pair.errors, pair.events))
    TAP.diag("longest wait for a watch's response: %s" % ", ".join(
        "%.2f s on %s" % (side.longest_wait, server.name)
        for side, server in zip(pair.streams, pair.servers)))
    for name in sorted(pair.calls):
        TAP.diag("%6d %s" % (pair.calls[name], name))
    if "services" not in exceptions.avoided:
        TAP.equal(sorted(every_method() - pair.methods), [], "every method was called")
    pair.close()

    reference.restart(crash=False)
    subject.restart(crash=True)
    pair = Pair(reference, subject, generator, exceptions, pair)
    note()
    part("the same after kill -9 of the server", Late(generator.after_restart))
    part("and no watch has more or less to tell", Late(finish))
    pair.close()
    for exception in exceptions.lines:
        if not exception.used:
            TAP.diag("exception not needed in this run: " + exception.line)
    TAP.done()


main()
