"""Few lines, the promise all the same; `make silence` tries many."""

from __future__ import annotations

import pytest

from tests.silence.office import measure


@pytest.mark.timeout(120)
def test_half_open_is_found_within_28_s_and_mute_within_60_s() -> None:
    found = measure(4, accounts=4)
    assert len(found.half_open) == len(found.mute) == 4
    assert 0 < max(found.half_open) <= 28.0
    assert 0 < max(found.mute) <= 60.0
    assert found.happened["half_open"] >= 4
    assert found.happened["silence"] >= 4
