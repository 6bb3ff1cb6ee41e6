"""What a test needs of the machine: it is skipped without, and fails where CI says all is there."""

from __future__ import annotations

import os
import shutil

import pytest


def missing(what):
    """Skip the test for want of something; fail it where $AWSVAULT_TEST_REQUIRE_ALL is set."""
    if os.environ.get("AWSVAULT_TEST_REQUIRE_ALL"):
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


def need(*programs):
    """`missing`, unless all these programs are installed."""
    for program in programs:
        if not shutil.which(program):
            missing(program)
