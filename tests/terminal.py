"""A command on a real pseudo terminal that is its controlling terminal: type to it, read it."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

INTERRUPT, QUIT, SUSPEND, END = "\x03", "\x1c", "\x1a", "\x04"

# Between fork and exec of a threaded process nothing but exec is safe, so the new session takes
# its terminal in a small program of its own, which then becomes the command.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
os.close(fd)
os.execvpe(sys.argv[2], sys.argv[2:], os.environ)
"""


class Terminal:
    """Run `argv` on a new terminal of its own session.

    stdin, stdout and stderr are the terminal unless a file or `subprocess.PIPE` is given (then
    `process.stdin` and so on are the pipes' ends). `screen` is all that was written so far, as
    text with the terminal's `\\r\\n` made `\\n`. Every wait has a time limit in seconds and ends in
    an AssertionError that shows the screen.
    """

    def __init__(self, argv, *, env, cwd=None, stdin=None, stdout=None, stderr=None,
                 size=(24, 80), timeout=30.0):  # fmt: skip
        self.timeout = timeout
        self._text, self._seen = "", 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._master, self._slave = pty.openpty()
        rows, columns = size
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._modes = termios.tcgetattr(self._slave)
        tty = os.ttyname(self._slave)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", TAKE_TERMINAL, tty, *argv],
            stdin=self._slave if stdin is None else stdin,
            stdout=self._slave if stdout is None else stdout,
            stderr=self._slave if stderr is None else stderr,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        self._ended, told = os.pipe()
        self._waiter = threading.Thread(target=self._wait, args=(told,), daemon=True)
        self._waiter.start()

    def _wait(self, told):
        self.process.wait()
        os.close(told)

    @property
    def pid(self):
        return self.process.pid

    @property
    def screen(self):
        self._drain()
        return self._text.replace("\r\n", "\n")

    def send(self, text):
        """Type this; `\\r` is the return key."""
        os.write(self._master, text.encode())

    def send_line(self, text=""):
        self.send(text + "\r")

    def interrupt(self):
        """Type Ctrl-C."""
        self.send(INTERRUPT)

    def expect(self, pattern, timeout=None):
        """Wait until `pattern` (a regular expression) appears after what was last expected."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        going = True
        while True:
            self._drain()
            match = re.compile(pattern).search(self._text, self._seen)
            if match:
                self._seen = match.end()
                return match
            if not going:
                raise AssertionError(f"{pattern!r} never came; screen:\n{self.screen}")
            # One more look after the end: the last output may have come together with it.
            going = self._more(deadline)

    def wait(self, timeout=None):
        """Wait for the end; its exit status (negative: the signal that killed it)."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while self._waiter.is_alive() and not self._over():
            if not self._more(deadline) and not self._over():
                raise AssertionError(f"still running; screen:\n{self.screen}")
            self._drain()
        self._waiter.join()
        return self.process.returncode

    def echoing(self):
        """Whether what is typed now would be shown."""
        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)

    def modes_restored(self):
        """Whether the terminal's modes are those it had at the start."""
        return termios.tcgetattr(self._slave) == self._modes

    def close(self):
        """Kill what still runs and give the terminal back."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._waiter.join(30)
        streams = (self.process.stdin, self.process.stdout, self.process.stderr)
        for stream in filter(None, streams):
            stream.close()
        if self._master is not None:
            for descriptor in (self._master, self._slave, self._ended):
                os.close(descriptor)
            self._master = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _over(self):
        return bool(select.select([self._ended], [], [], 0)[0])

    def _more(self, deadline):
        """Wait for output or the end; False when there will be none before the deadline."""
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        ready, _, _ = select.select([self._master, self._ended], [], [], left)
        return self._master in ready

    def _drain(self):
        while self._master is not None and select.select([self._master], [], [], 0)[0]:
            self._text += self._decoder.decode(os.read(self._master, 65536))
