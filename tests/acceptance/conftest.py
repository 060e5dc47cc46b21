"""One office for all tests that leave it in order; each works on accounts of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.acceptance.office import NO_BUDGETS, Office, office, until

QUICK = (
    "[pulse]\nbeat_s = 2.0\nquiet_s = 2.0\npong_wait_s = 2.0\n[backfill]\ncrosscheck_s = 5.0\nidle_crosscheck_s = 5.0\n"
)
ACCOUNTS = 12


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with office(tmp_path_factory.mktemp("o"), ACCOUNTS, spare=1, more=NO_BUDGETS + QUICK) as one, one.engine():
        until(lambda: one.all_proven(ACCOUNTS), 40.0)
        yield one


@dataclass
class SlowTroubles:
    """Troubles that take long to be overcome, all begun at once when the first test asks for one of them."""

    never_arrived: str  # the plan whose order the venue never got
    unheard_order: str  # filled while its account's stream was mute
    mute_connection: str
    half_open_since_ms: int


@pytest.fixture(scope="session")
def slow(shared: Office) -> SlowTroubles:
    shared.fault("drop_request", "demo-06", times=1)
    plan_id = shared.approved(["demo-06"])
    shared.execute(plan_id)
    mute_connection = shared.connections()["demo-07"]
    shared.fault("silence", "demo-07", seconds=15)
    unheard = shared.elsewhere("demo-07", type="market")
    shared.fault("half_open", "demo-08", seconds=8)
    now_ms = int(shared.venue.post("/clock", {"shift_ms": 0})["now_ms"])
    return SlowTroubles(plan_id, unheard, mute_connection, now_ms)
