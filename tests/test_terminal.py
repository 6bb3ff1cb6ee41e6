"""The pseudo terminal that the tests of prompts stand on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.terminal import Terminal

ASK = """
import os, sys, termios
tty = os.open("/dev/tty", os.O_RDWR)
before = termios.tcgetattr(tty)
quiet = termios.tcgetattr(tty)
quiet[3] &= ~termios.ECHO
termios.tcsetattr(tty, termios.TCSAFLUSH, quiet)
try:
    os.write(tty, "Codé: ".encode())
    code = os.read(tty, 100).decode().strip()
except KeyboardInterrupt:
    sys.exit(130)
finally:
    if sys.argv[1:] != ["rude"]:
        termios.tcsetattr(tty, termios.TCSADRAIN, before)
print("got", code)
sys.exit(4)
"""


@pytest.fixture
def ask():
    """ask(*words, **options): a Terminal with a program that asks for a code."""
    opened = []

    def start(*words, **options):
        argv = [sys.executable, "-I", "-S", "-c", ASK, *words]
        opened.append(Terminal(argv, env={"LANG": "C.UTF-8"}, **options))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def test_a_conversation(ask):
    terminal = ask()
    terminal.expect("Codé: ")
    assert not terminal.echoing()
    terminal.send_line("123456")
    assert terminal.expect(r"got (\d+)")[1] == "123456"
    assert terminal.wait() == 4
    assert terminal.modes_restored()
    assert terminal.screen == "Codé: got 123456\n"


def test_an_interrupt(ask):
    terminal = ask()
    terminal.expect("Codé: ")
    terminal.interrupt()
    assert terminal.wait() == 130
    assert terminal.modes_restored()


def test_modes_left_behind_are_seen(ask):
    terminal = ask("rude")
    terminal.expect("Codé: ")
    terminal.send_line("1")
    assert terminal.wait() == 4
    assert not terminal.modes_restored()


def test_other_streams_may_be_pipes(ask):
    terminal = ask(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    terminal.expect("Codé: ")
    terminal.send_line("1")
    assert terminal.wait() == 4
    assert terminal.process.stdout.read() == b"got 1\n"
    assert "got" not in terminal.screen


def test_what_never_comes(ask):
    terminal = ask()
    with pytest.raises(AssertionError, match="never came"):
        terminal.expect("Password", timeout=0.1)
    with pytest.raises(AssertionError, match="still running"):
        terminal.wait(timeout=0.1)
    terminal.interrupt()
    terminal.wait()
    with pytest.raises(AssertionError, match="never came"):
        terminal.expect("Password")
