"""What every test shares: one async backend, and a clock that is moved, not slept."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.fakes import FakeClock

# How long an example takes says something of the machine, nothing of the code.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
