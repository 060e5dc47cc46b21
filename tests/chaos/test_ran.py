"""Runs of chaos add up on the page, and nothing that stands there is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.chaos.ran import Ran, added

DAY = datetime(2026, 11, 22, tzinfo=UTC)


def run(**changes: Any) -> Ran:
    told: dict[str, Any] = {"lost": 0, "duplicated": 0, "wrongly_final": 0, "minutes": 2.5} | changes
    return Ran(**{"seed": 1, "kills": 1000, "named": 500, "intents": 20_000, "fills": 9, **told})


def test_the_first_run_is_its_own_total() -> None:
    *_, row, total = added([], run(), now=DAY)
    assert row == "| 2026-11-22 | 1 | 1,000 | 500 | 20,000 | 9 | 0 | 0 | 0 | 2.5 |"
    assert total == "| all |  | 1,000 | 500 | 20,000 | 9 | 0 | 0 | 0 | 2.5 |"


def test_later_runs_are_added_and_the_total_is_made_anew() -> None:
    first = added([], run(), now=DAY)
    second = added(first, run(seed=2, lost=3, minutes=1.0), now=DAY)
    assert second[:3] == first[:3]
    assert second[3] == "| 2026-11-22 | 2 | 1,000 | 500 | 20,000 | 9 | 3 | 0 | 0 | 1.0 |"
    assert second[4:] == ["| all |  | 2,000 | 1,000 | 40,000 | 18 | 3 | 0 | 0 | 3.5 |"]
