"""The kill switch over real processes: cancelled, closed and shown over a kill -9, lifted only once it is proven."""

from __future__ import annotations

import os
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.office import NO_BUDGETS, Office, office, refused, until

ACCOUNTS = ["demo-01", "demo-02", "demo-03"]


def working(one: Office) -> dict[str, int]:
    return {a: sum(o["state"] in ("live", "partially_filled") for o in one.orders(a)) for a in ACCOUNTS}


def held(one: Office) -> dict[str, Decimal]:
    rows = {a: one.venue.get(f"/truth/positions?account={a}") for a in ACCOUNTS}
    return {a: sum((Decimal(r["pos"]) for r in some), Decimal(0)) for a, some in rows.items()}


def done(told: Any) -> bool:
    return len(told["accounts"]) == 3 and all(a["shown"] and a["flat"] for a in told["accounts"])


@pytest.mark.timeout(180)
def test_everybody_is_flat_although_the_engine_was_killed_and_nothing_resumes_unproven(tmp_path: Path) -> None:
    with office(tmp_path, len(ACCOUNTS), more=NO_BUDGETS + "[plans]\nduplicate_window_s = 0.001\n") as one:
        with one.engine():
            until(lambda: one.all_proven(len(ACCOUNTS)), 40.0)
            for account in ACCOUNTS:
                one.elsewhere(account, type="market", quantity="3")
            one.execute(one.approved(ACCOUNTS))
            until(lambda: all(working(one).values()))
            assert all(quantity == 3 for quantity in held(one).values())
            one.control.post("/kill/on", {"scope": "all", "by": "test", "why": "leave", "flat": True})
            left = refused(lambda: one.control.post("/kill/off", {"scope": "all", "by": "test", "why": "at once"}))
            assert "demo-01: not shown" in str(left)
            os.kill(one.running.pid, signal.SIGKILL)
        with one.engine():
            until(lambda: done(one.control.get("/kill")), 60.0)
            assert set(working(one).values()) == {0}
            assert set(held(one).values()) == {Decimal(0)}
            assert "kill_switch" in one.denials("demo-01")

            off = one.cli("kill", "off", "--why", "settled")
            assert off.returncode == 0, off.stderr
            until(lambda: one.all_proven(len(ACCOUNTS)), 40.0)
            one.execute(one.approved(["demo-01"]))
            until(lambda: working(one)["demo-01"] == 1)
