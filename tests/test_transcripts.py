"""Every transcript in tests/transcripts, run against the product.

UPDATE_TRANSCRIPTS=1 writes what really came into the files instead; read the difference before
committing it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests import transcript

FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


def play(path, cli, folder):
    """The steps of a file as written and as they went, and its last remarks."""
    transcript.install(cli, folder)
    steps, after = transcript.parse(path.read_text(encoding="utf-8"))
    return [(step, transcript.perform(step, cli, folder)) for step in steps], after


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path, cli, tmp_path):
    played, after = play(path, cli, tmp_path / "bin")
    assert played, "no command in the transcript"
    if os.environ.get("UPDATE_TRANSCRIPTS"):
        kept = [
            step if transcript.agrees(step, actual) else transcript.masked(actual)
            for step, actual in played
        ]
        lines = [line for step in kept for line in transcript.written(step)]
        path.write_text("\n".join([*lines, *after]) + "\n", encoding="utf-8")
        return
    for step, actual in played:
        if not transcript.agrees(step, actual):
            expected, came = (transcript.written(one) for one in (step, actual))
            assert came == expected


STAND_IN = """
import sys
words = sys.argv[1:]
print("got", len(words), *words)
if words[:1] == ["fail"]:
    print("awsvault: error: at 2026-01-02T03:04:05Z", file=sys.stderr)
    sys.exit(3)
"""
GOOD = """\
# The runner's own test
$ awsvault a 'b c'
got 2 a b c

$ cat > file <<'END' && cat file
> $HOME is not replaced
> END
$HOME is not replaced
$ pwd; awsvault fail | cat >&2
$HOME
! awsvault: error: at <time>
! got <number> fail
$ awsvault fail
...
! ...
[3]
"""


@pytest.fixture
def stand_in(cli, tmp_path):
    """A `cli` whose program only repeats its arguments."""
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    cli.program = [sys.executable, "-I", str(program)]
    return cli


def outcome(text, stand_in, tmp_path):
    path = tmp_path / "file.txt"
    path.write_text(text)
    played, _ = play(path, stand_in, tmp_path / "bin")
    return [transcript.agrees(step, actual) for step, actual in played]


def test_a_good_transcript(stand_in, tmp_path):
    assert outcome(GOOD, stand_in, tmp_path) == [True] * 4


@pytest.mark.parametrize(
    "text",
    [
        "$ awsvault a\ngot 1 b\n",
        "$ awsvault a\n",
        "$ awsvault a\ngot 1 a\nmore\n",
        "$ awsvault a\n! got 1 a\n",
        "$ awsvault a\ngot 1 a\n[1]\n",
        "$ awsvault fail\ngot 1 fail\n! ...\n",
        "$ awsvault fail\ngot 1 fail\n! awsvault: error: at <number>\n[3]\n",
    ],
)
def test_every_difference_counts(stand_in, tmp_path, text):
    assert outcome(text, stand_in, tmp_path) == [False]


def test_a_transcript_is_written_as_it_was_read():
    steps, after = transcript.parse(GOOD)
    lines = [line for step in steps for line in transcript.written(step)]
    assert "\n".join([*lines, *after]) + "\n" == GOOD


def test_what_changes_is_masked():
    lines = ["until 2026-01-02T03:04:05Z", "", "# no remark", "[1]"]
    masked = transcript.masked(transcript.Step([], ["x"], lines, [], 2))
    assert masked.out == ["until <time>", "<blank>", "<blank># no remark", "<blank>[1]"]
    ((again,), _) = transcript.parse("\n".join(transcript.written(masked)))
    assert again == masked
    assert transcript.matches(again.out, lines)


def test_output_needs_a_command():
    with pytest.raises(ValueError, match="output without a command"):
        transcript.parse("$ a\nb\n\nc\n")
