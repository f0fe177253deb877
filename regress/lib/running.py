"""running.py - a command that does not end by itself: its lines, each with a deadline.

Threads: two readers of its own per command; the rest is the caller's.

SPDX-License-Identifier: Apache-2.0
"""

import queue
import signal
import subprocess
import threading
import time

SECONDS = 30


class Running:
    """argv with this environment; lines and errors are queues of what it has printed."""

    def __init__(self, argv, environment):
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=environment)
        self.lines = queue.Queue()
        self.errors = queue.Queue()
        for stream, lines in ((self.process.stdout, self.lines), (self.process.stderr, self.errors)):
            threading.Thread(target=self._read, args=(stream, lines), daemon=True).start()

    @staticmethod
    def _read(stream, lines):
        for line in stream:
            lines.put(line.decode(errors="replace").rstrip("\n"))

    def take(self, number, errors=False, count=len):
        """The next lines, until count(lines) is the number; the last one says if they did not come."""
        got, deadline = [], time.monotonic() + SECONDS
        while count(got) < number:
            try:
                got.append((self.errors if errors else self.lines).get(
                    timeout=max(deadline - time.monotonic(), 0)))
            except queue.Empty:
                return got + ["(nothing more came)"]
        return got

    def stop(self, number=signal.SIGINT):
        """Interrupts it as Ctrl-C does; returns its status."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)
