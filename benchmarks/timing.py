"""How time and memory of a program are taken: in turn with its rivals, median of many."""

from __future__ import annotations

import os
import statistics
import sys
import time

QUIET = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
# A process that is started inherits its parent's peak until it replaces itself, so the one that is
# measured gets a parent which is smaller than anything we measure.
PEAK = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
sys.exit(os.waitstatus_to_exitcode(status))
"""


class BenchmarkFailed(Exception):
    """A program did not do what was to be measured; the text says which and how."""


def start(argv, environ):
    """Start a program, absolute path first, with nothing but `environ`; return its process id."""
    return os.posix_spawn(argv[0], argv, environ, file_actions=QUIET)


def finish(pid, argv):
    """Wait for a program's end; BenchmarkFailed unless it succeeded."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise BenchmarkFailed(f"exit status {status} of {' '.join(argv)}")


def seconds(argv, environ):
    """Seconds from start to end of one run."""
    started = time.perf_counter()
    finish(start(argv, environ), argv)
    return time.perf_counter() - started


def seconds_at_once(argv, environ, count):
    """Seconds until all of `count` processes that were started together have ended."""
    started = time.perf_counter()
    for pid in [start(argv, environ) for _ in range(count)]:
        finish(pid, argv)
    return time.perf_counter() - started


def peak_bytes(argv, environ):
    """Peak resident memory of one run, in bytes."""
    read, write = os.pipe()
    actions = [QUIET[0], QUIET[2], (os.POSIX_SPAWN_DUP2, write, 1)]
    small = [sys.executable, "-I", "-S", "-c", PEAK, *argv]
    pid = os.posix_spawn(small[0], small, environ, file_actions=actions)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    finish(pid, argv)
    # The command itself writes nothing, so the figure is all there is.
    return int(text)


def medians(cases, rounds):
    """Median of each case's figures; the cases take turns, so that a slow minute meets all of them.

    `cases` maps a name to a function that returns one figure.
    """
    figures = {name: [] for name in cases}
    for case in cases.values():
        case()  # once for caches of files and of code
    for _ in range(rounds):
        for name, case in cases.items():
            figures[name].append(case())
    return {name: statistics.median(found) for name, found in figures.items()}
