"""Every program that a command starts, with its whole argv and environment, as strace saw it."""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

LINE = re.compile(r"(\d+) +execve\((.*)")
RESULT = re.compile(r"\) += (-?\d+)")
RESUMED = re.compile(r"(\d+) +<\.\.\. execve resumed>.*= (-?\d+)")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


@dataclasses.dataclass
class Exec:
    """One execve: `started` tells whether it succeeded; argv and environ are bytes."""

    pid: int
    path: bytes
    argv: list
    environ: dict
    started: bool


@dataclasses.dataclass
class Trace:
    """How the traced command ended, and `execs` in order; the first is the command itself."""

    code: int
    out: str
    err: str
    execs: list


@functools.cache
def available():
    """Whether strace is here and may trace (containers often forbid it)."""
    if not shutil.which("strace"):
        return False
    probe = ["strace", "-f", "-e", "trace=execve", "-o", "/dev/null", "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def trace(argv, *, env, cwd=None, input=None, timeout=120, pass_fds=()):
    """Run `argv` (first word: an absolute path) under strace, without a controlling terminal."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "strace"
        options = ["-f", "-q", "-v", "-xx", "-s", "1000000", "-e", "trace=execve", "-o", str(log)]
        done = subprocess.run(
            [shutil.which("strace"), *options, "--", *map(str, argv)],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            env=env,
            cwd=cwd,
            timeout=timeout,
            pass_fds=pass_fds,
            start_new_session=True,
            check=False,
        )
        return Trace(done.returncode, done.stdout, done.stderr, parse(log.read_text()))


def parse(log):
    """The execs in the text that `strace -f -v -xx -e trace=execve` wrote."""
    execs, unfinished = [], {}
    for line in log.splitlines():
        resumed = RESUMED.match(line)
        if resumed:
            pending = unfinished.pop(int(resumed[1]), None)
            if pending is not None:
                pending.started = resumed[2] == "0"
            continue
        match = LINE.match(line)
        if match:
            found = exec_of(int(match[1]), match[2])
            execs.append(found)
            if "<unfinished" in line:
                unfinished[found.pid] = found
    return execs


def exec_of(pid, text):
    """An Exec from `PATH, [ARGV...], [ENVIRONMENT...]) = RESULT`, all strings in hex."""
    if TEXT.search(text) is None or any(m[2] for m in TEXT.finditer(text)):
        raise ValueError(f"strace cut a string: {text[:200]}")
    path, argv, environ = (split_strings(part) for part in cut(text))
    pairs = (entry.partition(b"=") for entry in environ)
    result = RESULT.search(text[text.rindex("]") :])
    started = result is not None and result[1] == "0"
    return Exec(pid, path[0], argv, {name: value for name, _, value in pairs}, started)


def cut(text):
    """The three arguments. No string in hex holds a bracket, so brackets only enclose lists."""
    head, _, rest = text.partition("[")
    argv, _, rest = rest.partition("]")
    return head, argv, rest.partition("[")[2].partition("]")[0]


def split_strings(text):
    return [bytes.fromhex(match[1].replace("\\x", "")) for match in TEXT.finditer(text)]


def assert_hidden(traced, secrets, *, command=None, command_secrets=()):
    """No secret stands in any argv or environment that the product gave to a program.

    The first exec is the product itself, started by the test with what the test chose, so it is
    not looked at. `command_secrets` may stand in the environment of the exec whose argv is
    `command` (the credentials that the command is meant to get), and nowhere else.
    """
    expected = [word.encode() for word in command] if command else None
    assert traced.execs, "nothing was traced"
    for one in traced.execs[1:]:
        own = one.argv == expected
        for secret in [*secrets, *command_secrets]:
            needle = secret.encode()
            where = f"{b' '.join(one.argv)!r}"
            assert not any(needle in word for word in one.argv), f"secret in argv of {where}"
            if own and secret in command_secrets:
                continue
            for name, value in one.environ.items():
                assert needle not in value, f"secret in {name.decode()} of {where}"
