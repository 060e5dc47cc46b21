"""How long to wait before the next attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.backoff import delay_s


@pytest.mark.parametrize(
    ("attempts", "ceiling_s"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (7, 30.0), (8, 30.0), (10_000, 30.0)]
)
def test_the_ceiling_doubles_up_to_the_longest(attempts: int, ceiling_s: float) -> None:
    assert delay_s(attempts, first_s=0.5, longest_s=30.0, chance=1.0) == ceiling_s


@given(attempts=st.integers(1, 100), chance=st.floats(0, 1))
def test_the_whole_range_below_the_ceiling_is_used(attempts: int, chance: float) -> None:
    ceiling_s = delay_s(attempts, first_s=0.5, longest_s=30.0, chance=1.0)
    assert delay_s(attempts, first_s=0.5, longest_s=30.0, chance=chance) == pytest.approx(chance * ceiling_s)
