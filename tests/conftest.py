"""What every test shares: one async backend, and a clock that is moved, not slept."""

from __future__ import annotations

import pytest
import structlog
from hypothesis import settings

from tests.fakes import FakeClock

# How long an example takes says something of the machine, nothing of the code.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

# Unconfigured, it paints each trace with colours, frames and locals: half a second a trace.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ]
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
