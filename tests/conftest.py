"""What every test shares: one async backend, and a clock that is moved, not slept."""

from __future__ import annotations

import pytest

from tests.fakes import FakeClock


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
