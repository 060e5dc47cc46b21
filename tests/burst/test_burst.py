"""A small burst, every promise; `make burst` tries a great one."""

from __future__ import annotations

import pytest

from tests.burst.measure import burst


@pytest.mark.anyio
async def test_more_than_can_be_taken_is_held_back_and_nothing_is_lost() -> None:
    figures = await burst(accounts=4, seconds=0.2, commit_s=0.04, probe=400, queue_limit=1000)
    assert figures.broken() == []
    assert figures.offered_rate > 2 * figures.fold_rate, "on a busy machine the venue may not manage ten times"
