"""The tracer sees what it is there to see."""

from __future__ import annotations

import sys

import pytest

from tests import tracing

pytestmark = pytest.mark.skipif(not tracing.available(), reason="no strace that may trace")
SECRET = 'quoted "secret" ] with, odd\nbytes \x01'
LEAK_ARGV = 'import os; os.execv("/bin/echo", ["echo", os.environ["SECRET"]])'
LEAK_ENVIRONMENT = 'import os; os.execve("/bin/true", ["true"], {"X": "1" + os.environ["SECRET"]})'
LEAK_NOTHING = 'import os; os.execve("/bin/true", ["true"], {"X": "1"})'
IN_CHILD = "import os, sys\nif os.fork():\n    os.wait()\nelse:\n    "


def traced(code):
    return tracing.trace([sys.executable, "-I", "-c", code], env={"SECRET": SECRET})


@pytest.mark.parametrize("prefix", ["", IN_CHILD], ids=["replaced", "child"])
def test_leaks_are_seen(prefix):
    with pytest.raises(AssertionError, match="in argv"):
        tracing.assert_hidden(traced(prefix + LEAK_ARGV), [SECRET])
    with pytest.raises(AssertionError, match="in X of"):
        tracing.assert_hidden(traced(prefix + LEAK_ENVIRONMENT), [SECRET])
    tracing.assert_hidden(traced(prefix + LEAK_NOTHING), [SECRET])


def test_the_command_may_have_its_own():
    seen = traced(LEAK_ENVIRONMENT)
    tracing.assert_hidden(seen, [], command=["true"], command_secrets=[SECRET])
    with pytest.raises(AssertionError):
        tracing.assert_hidden(seen, [], command=["false"], command_secrets=[SECRET])
    with pytest.raises(AssertionError):
        tracing.assert_hidden(traced(LEAK_ARGV), [], command=["echo", SECRET],
                              command_secrets=[SECRET])  # fmt: skip


def test_what_is_told_of_an_exec():
    seen = traced('import os; os.execve("/bin/echo", ["echo", "a b", "é", ""], {"N": "a=b"})')
    assert (seen.code, seen.out) == (0, "a b é \n")
    last = seen.execs[-1]
    assert (last.path, last.environ, last.started) == (b"/bin/echo", {b"N": b"a=b"}, True)
    assert last.argv == [b"echo", b"a b", "é".encode(), b""]


def test_a_failed_exec_is_told_too():
    seen = traced('import os\ntry: os.execv("/nonesuch", ["x"])\nexcept OSError: pass')
    assert [one.started for one in seen.execs] == [True, False]
