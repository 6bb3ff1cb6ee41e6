"""Transcripts: what a user types and sees, run and compared line by line.

    $ awsvault list --profiles      a command, run by /bin/sh in the home directory
    > continued                     a further line of it (of a here-document, say)
    prod                            a line of its stdout
    ! awsvault: error: no           a line of its stderr
    [1]                             its exit code; 0 is not written
    # anything                      a remark; an empty line separates commands

In an expected line `<time>` and the other names in PATTERNS stand for what changes from run to
run, and a line `...` for any number of lines. In what a command writes, the home directory
becomes `$HOME` and the address of the fake AWS `$AWS` before comparing. Blanks at the end of a
line do not count. `<blank>` is nothing: it begins lines that would otherwise mean something here.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess

PATTERNS = {
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "duration": r"(?:\d+h)?(?:\d+m)?\d+s",
    "number": r"\d+",
    "key": r"(?:AKIA|ASIA)DUMMY[A-Z0-9]+",
    "secret": r"dummy/secret/\+[A-Za-z0-9/+=]+",
    "token": r"FakeSessionToken/\+[A-Za-z0-9/+=]+",
    "hex": r"[0-9a-f]{16,}",
    "any": r".*",
    "blank": r"",
}
# What an actual line is written back with, most telling first.
MASKED = ("time", "token", "secret", "hex")
MEANS_SOMETHING = re.compile(r"[$>!#] |!$|\[\d+\]$")


@dataclasses.dataclass
class Step:
    """One command, what came with it in the file, and what should come of it."""

    before: list
    command: list
    out: list
    err: list
    code: int = 0


def parse(text):
    """The steps in a transcript, and the remarks after the last."""
    steps, before = [], []
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append(Step(before, [line[2:]], [], []))
            before = []
        elif not line or line.startswith("# ") or not steps:
            before.append(line)
        elif before:
            raise ValueError(f"output without a command: {line}")
        elif line.startswith("> ") and not steps[-1].out and not steps[-1].err:
            steps[-1].command.append(line[2:])
        elif line.startswith("! ") or line == "!":
            steps[-1].err.append(line[2:])
        elif re.fullmatch(r"\[\d+\]", line):
            steps[-1].code = int(line[1:-1])
        else:
            steps[-1].out.append(line)
    return steps, before


def perform(step, cli, folder):
    """Run the command of `step` as the user of `cli`; a Step with what really came."""
    environ = cli.environment({"PATH": f"{folder}:{cli.environ['PATH']}"})
    done = subprocess.run(
        ["/bin/sh", "-c", "\n".join(step.command)],
        cwd=cli.home,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )
    out, err = (shown(text, cli) for text in (done.stdout, done.stderr))
    return Step(step.before, step.command, out, err, done.returncode)


def shown(text, cli):
    for actual, name in ((str(cli.home), "$HOME"), (cli.environ["AWS_ENDPOINT_URL_STS"], "$AWS")):
        text = text.replace(actual, name)
    return [line.rstrip() for line in text.splitlines()]


def pattern(lines):
    """A regular expression for the expected lines, each ended by a newline."""
    parts = []
    for line in lines:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*")
            continue
        text = re.escape(line.rstrip())
        for name, expression in PATTERNS.items():
            text = text.replace(re.escape(f"<{name}>"), expression)
        parts.append(text + r"\n")
    return "".join(parts)


def matches(expected, actual):
    """Whether the lines of one stream are as expected."""
    return re.fullmatch(pattern(expected), "".join(line + "\n" for line in actual)) is not None


def agrees(expected, actual):
    """Whether output, errors and exit code of two steps agree."""
    return (
        matches(expected.out, actual.out)
        and matches(expected.err, actual.err)
        and expected.code == actual.code
    )


def written(step):
    """A step as it stands in the file."""
    lines = [*step.before, "$ " + step.command[0], *("> " + line for line in step.command[1:])]
    lines += step.out
    lines += [("! " + line).rstrip() for line in step.err]
    return lines + ([f"[{step.code}]"] if step.code else [])


def masked(step):
    """`step` with what changes from run to run replaced by names in PATTERNS."""

    def mask(line):
        for name in MASKED:
            line = re.sub(rf"(?<!\w){PATTERNS[name]}", f"<{name}>", line)
        return "<blank>" + line if not line or MEANS_SOMETHING.match(line) else line

    return dataclasses.replace(step, out=[*map(mask, step.out)], err=[*map(mask, step.err)])


def install(cli, folder):
    """Make `awsvault` a command in `folder` that runs the program of `cli`."""
    folder.mkdir()
    script = folder / "awsvault"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(cli.program)} "$@"\n')
    script.chmod(0o755)
