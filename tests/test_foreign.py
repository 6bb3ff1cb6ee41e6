"""Every reader of foreign text, for a moment: what it raises is its one error (tests/foreign.py has the readers)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests import foreign

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", foreign.TARGETS)
def test_odd_text_is_one_error(name):
    strategy, function = foreign.TARGETS[name]
    QUICK(given(strategy)(function))()


def test_what_a_tool_prints_makes_python_warn_of_nothing(recwarn):
    with pytest.raises(ValueError, match="no GVariant"):
        foreign.awsvault.parse_gvariant("(1and,)")
    assert list(recwarn) == []
