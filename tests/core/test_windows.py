"""A venue's limits are counted exactly: in no stretch of a window's length more than the limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.core.windows import Windows


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 3)), max_size=60), st.integers(3, 9))
def test_what_is_admitted_never_exceeds_the_limit_and_what_is_refused_would_have(
    steps: list[tuple[int, int]], limit: int
) -> None:
    windows, now_ms, taken = Windows(), 0, list[tuple[int, int]]()
    refused = 0
    for step_ms, weight in steps:
        now_ms += step_ms
        in_window = sum(w for at_ms, w in taken if now_ms - at_ms < 1000)
        if windows.admit("rule", "who", limit, 1000, now_ms, weight):
            assert in_window + weight <= limit
            taken.append((now_ms, weight))
        else:
            assert in_window + weight > limit
            refused += weight
    if steps:
        use = windows.uses["rule"]
        most = max((sum(w for b, w in taken if a - 1000 < b <= a) for a, _ in taken), default=0)
        assert (use.peak, use.refused, use.asked) == (most, refused, sum(w for _, w in steps))


def test_each_rule_counts_each_caller_by_itself() -> None:
    windows = Windows()
    assert [windows.admit(rule, who, 1, 1000, 0) for rule in "ab" for who in "xy"] == [True] * 4
    assert not windows.admit("a", "x", 1, 1000, 999)
    assert windows.admit("a", "x", 1, 1000, 1000)
