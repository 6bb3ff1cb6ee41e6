"""A command under `exec --server`, and the server that belongs to it."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import sys
import time
from pathlib import Path

SHOW = "import json, os, sys; print(json.dumps(dict(os.environ)), flush=True); sys.stdin.read()"
WAIT = 30.0


def processes():
    """Every process as (pid, command line)."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        yield int(folder.name), text.split("\0")[:-1]


def server_of(pid):
    """The process id of the server of a command; None if there is none."""
    for server, words in processes():
        if words[-2:] == ["_serve", str(pid)]:
            return server
    return None


def status_of(pid):
    """What /proc says of a process, by name."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in text.splitlines())
    }


def memory_of(pid):
    """All that a process can write to."""
    found = b""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
            span, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(number, 16) for number in span.split("-"))
                memory.seek(start)
                found += memory.read(end - start)
    return found


def gone(pid, timeout=WAIT):
    """Wait until a process that is not ours has ended; whether it has."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], timeout)[0])
    finally:
        os.close(fd)


class Command:
    """`exec` with server flags, running a command that prints its environment and waits."""

    def __init__(self, cli, *flags, profile="prod", code=SHOW, env=None, **popen):
        line = ["exec", *flags, profile, "--", sys.executable, "-I", "-S", "-c", code]
        self.process = cli.popen(*line, env=env, **popen)
        text = self.process.stdout.readline()
        assert text, self.process.stderr.read()
        self.environ = json.loads(text)
        self.server = server_of(self.process.pid)

    @property
    def port(self):
        uri = self.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI") or self.environ[
            "AWS_EC2_METADATA_SERVICE_ENDPOINT"
        ].rstrip("/")
        return int(uri.rpartition(":")[2])

    def request(self, path="/", method="GET", **headers):
        """The bytes of a request with the right Host and token."""
        lines = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": self.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", ""),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {path} HTTP/1.1\r\nConnection: close\r\n{text}\r\n".encode()

    def ask(self, path="/", **headers):
        """One request; status and parsed body."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT) as sock:
            sock.sendall(self.request(path, **headers))
            data = b"".join(iter(lambda: sock.recv(65536), b""))
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body) if body.startswith(b"{") else body.decode()

    def ask_until(self, good, path="/"):
        """Ask until an answer is good, and return it."""
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            answer = self.ask(path)
            if good(*answer):
                return answer
        raise AssertionError(f"the last answer was {answer}")

    def private_files(self):
        """The folder of the files that end with the command."""
        return Path(self.environ["AWS_CONFIG_FILE"]).parent

    def end(self):
        """Let the command end; its exit status."""
        self.process.stdin.close()
        return self.process.wait(WAIT)


def screen_environ(terminal):
    """The environment that a command printed on a terminal, whatever the width."""
    match = terminal.expect(r"\{\".*\"\}")
    return json.loads(re.sub(r"\r?\n", "", match[0]))
