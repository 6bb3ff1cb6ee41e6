"""A World for tests: a clock to set, a home of one's own, what was said kept, doors that fail or kill."""

from __future__ import annotations

import datetime
import functools
import os
import signal

from awsvault import NeedsUser, Secret, World, scrubbed

UTC = datetime.timezone.utc
START = datetime.datetime(2030, 1, 1, 12, 0, tzinfo=UTC)

# Every public method of World that lets something in or out; a new one is found by itself.
DOORS = [
    name
    for name, member in vars(World).items()
    if callable(member) and not name.startswith("_") and not isinstance(member, type)
]

# The doors behind which something that outlives the process changes. A death at any other door
# leaves what a death at the next of these leaves; test_nothing_lasting_is_done_at_other_doors.
LASTING = {
    "append_file", "create_file", "delete_file", "exchange_folders", "lock", "make_folder", "open_own",
    "private_folder", "remove_leftovers", "rename", "rename_folder", "renamed_folders", "sync_file",
    "sync_folder", "write_atomic", "write_file",
}  # fmt: skip


class FakeWorld(World):
    """World with a clock that a test sets, answers given beforehand, and nothing of the tester's environment.

    `answers` are typed one by one at prompts (text, or an exception to raise); `asked` is what was
    asked. `failures` maps the name of a door to an exception that it raises, or to a function that
    takes its place. `entered` lists the doors in the order in which they were used.
    """

    def __init__(self, home, environ=None, answers=None):
        super().__init__()
        ours = {"HOME": str(home), "PATH": "/usr/bin:/bin", "AWS_VAULT_BACKEND": "file"}
        self.environ = {**ours, **(environ or {})}
        self.clock = START
        self.answers = answers
        self.asked, self.said, self.written = [], [], ""
        self.failures, self.entered = {}, []

    def now(self):
        return self.clock

    def out(self, text):
        self.written += text

    def say(self, text):
        self.said.append(text)

    def can_ask(self):
        return self.answers is not None

    def open_terminal(self):
        return -1

    def terminal_name(self):
        return ""

    def ask(self, question, *, hidden=False, timeout=None, instead, shown=bool):
        if self.answers is None:
            raise NeedsUser(f"{question}: there is no terminal to ask on", instead)
        self.asked.append(question)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return Secret(answer)

    def advance(self, **parts):
        self.clock += datetime.timedelta(**parts)


def watched(name):
    """The door `name` of a FakeWorld, noted when it is entered, and failing if a test says so."""
    inner = getattr(FakeWorld, name)

    @functools.wraps(inner)
    def door(self, *args, **kwargs):
        self.entered.append(name)
        failure = self.failures.get(name)
        if isinstance(failure, BaseException):
            raise failure
        return failure(*args, **kwargs) if failure else inner(self, *args, **kwargs)

    return door


for _name in DOORS:
    setattr(FakeWorld, _name, watched(_name))


class DyingWorld(World):
    """A World that dies as by kill -9 when it enters its N-th LASTING door, half-way through if that
    is a write, before it runs a tool, or before or after its N-th request. `fakes` are tools that
    run in this process.
    """

    def __init__(self, environ, left, fakes=None):
        super().__init__()
        self.environ, self.left, self.fakes = environ, left, fakes

    def run(self, argv, *, stdin=None, environ=None, **options):
        if self.fakes is None or argv[0] not in self.fakes.sources:
            return super().run(argv, stdin=stdin, environ=environ, **options)
        variables = {**scrubbed(self.environ), **(environ or {})}
        return self.fakes.result(argv, variables, stdin)


def deadly(name):
    inner = getattr(DyingWorld, name)

    @functools.wraps(inner)
    def door(self, *args, **kwargs):
        if "left" in vars(self):
            self.left -= 1
            if self.left == 0:
                if name == "write_file":
                    os.write(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
        return inner(self, *args, **kwargs)

    return door


for _name in {*LASTING, "library_environment", "debug", "run"}:
    setattr(DyingWorld, _name, deadly(_name))


def forked(work):
    """The exit status of `work()` in a child that writes to nothing; minus the signal if killed."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (1, 2):
                os.dup2(null, fd)
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class KillingWorld(World):
    """World in which the process dies by SIGKILL at the n-th of the LASTING doors that it enters or
    leaves.

    What is being written when it dies is written by half.
    """

    def __init__(self, environ, fatal):
        super().__init__()
        self.environ = environ
        self.fatal = fatal
        self.count = 0

    def step(self):
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def write_file(self, fd, data):
        self.count += 1
        if self.count == self.fatal:
            os.write(fd, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        super().write_file(fd, data)


def fatal(name):
    inner = getattr(KillingWorld, name)

    @functools.wraps(inner)
    def door(self, *args, **kwargs):
        if "fatal" in vars(self):
            self.step()
        result = inner(self, *args, **kwargs)
        if "fatal" in vars(self):
            self.step()
        return result

    return door


for _name in LASTING & set(DOORS):
    setattr(KillingWorld, _name, fatal(_name))
