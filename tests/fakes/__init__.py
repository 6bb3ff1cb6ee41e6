"""Programs that stand in for the tools of keystores and desktops, and how a test installs them."""

from __future__ import annotations

import functools
import io
import json
import os
import socket
import sys
from pathlib import Path
from unittest import mock

from awsvault import Secret, ToolResult

HERE = Path(__file__).resolve().parent
BUS_TOOLS = ("secret-tool", "kwallet-query", "busctl", "gdbus")


class Fakes:
    """A folder of stand-ins that is all of PATH, a state that they share, and what they recorded."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.bin = self.folder / "bin"
        self.home = self.folder / "home"
        for path in (self.bin, self.home):
            path.mkdir(mode=0o700)
        self.log = self.folder / "log"
        self.log.touch()
        self.state_file = self.folder / "state.json"
        self.environ = {
            "HOME": str(self.home),
            "PATH": str(self.bin),
            "LANG": "C.UTF-8",
            "FAKE_LOG": str(self.log),
            "FAKE_STATE": str(self.state_file),
            "FAKE_SECURITY_LOG": str(self.log),
        }
        self.listener = None
        self.sources = {}
        self.set_state({})

    def install(self, *names, source="fake_tools.py"):
        """Put a stand-in into the PATH under each name."""
        # As a module it is compiled once, not for each of a thousand calls.
        load = f"import sys; sys.path.insert(0, {str(HERE)!r}); import {Path(source).stem} as fake"
        for name in names:
            self.sources[name] = source
            path = self.bin / name
            text = f"#!{sys.executable} -IS\n{load}; sys.exit(fake.main())\n"
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755)

    def script(self, name, text):
        """Put a shell script into the PATH."""
        self.sources.pop(name, None)
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def result(self, argv, environ, stdin):
        """What World.run gives for an installed stand-in, which runs in this process."""
        given = {name: value for name, value in environ.items() if value is not None}
        status, output, errors = self.run(argv, given, stdin.reveal_bytes() if stdin else b"")
        return ToolResult(status, Secret(output), errors.decode("utf-8", "replace"))

    def run(self, argv, environ, stdin):
        """Run an installed stand-in in this process: (exit status, output, errors), both bytes."""
        words = [str(self.bin / argv[0]), *argv[1:]]
        streams = [io.TextIOWrapper(io.BytesIO(data)) for data in (stdin, b"", b"")]
        given, out, err = streams
        module = {"__name__": "fake"}
        with (
            mock.patch.multiple(sys, argv=words, stdin=given, stdout=out, stderr=err),
            mock.patch.dict(os.environ, environ, clear=True),
        ):
            exec(compiled(self.sources[argv[0]]), module)
            status = module["main"]() & 255  # as of a process
        for stream in streams:
            stream.flush()
        return status, out.buffer.getvalue(), err.buffer.getvalue()

    def set_state(self, state):
        self.state_file.write_text(json.dumps(state))

    def state(self):
        return json.loads(self.state_file.read_text())

    def listen(self):
        """A socket of ours that is taken for the session bus."""
        path = str(self.folder / "bus")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.environ["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={path}"

    def calls(self):
        """What was recorded: {"argv": ..., "environ": ...} of every call."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def close(self):
        if self.listener is not None:
            self.listener.close()


@functools.cache
def compiled(source):
    """The code of a stand-in's file."""
    return compile((HERE / source).read_text(encoding="utf-8"), source, "exec")


def assert_hidden(calls, *secrets):
    """No secret stood in an argv or an environment."""
    for call in calls:
        for secret in secrets:
            assert not any(secret in word for word in call["argv"]), call["argv"]
            values = call.get("environ", os.environ).values()
            assert not any(secret in value for value in values), call["argv"]
