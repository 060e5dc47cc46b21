"""The engine runs on PostgreSQL as it does on SQLite: registry, plans, a kill -9, a restart."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from engine.core.orders import OrderState
from tests.acceptance.office import office, until
from tests.postgres import drop_database, new_database, postgres_url

__all__ = ["postgres_url"]

pytestmark = pytest.mark.postgres


def test_killed_and_started_again_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    url = new_database(postgres_url)
    try:
        with office(tmp_path / "o", 2, url=url.replace("postgresql://", "postgresql+psycopg://")) as one:
            with one.engine():
                until(lambda: one.all_proven(2), 40.0)
                assert one.cli("run").returncode == 75, "one engine per database"
                plan_id = one.approved(["demo-01", "demo-02"])
                one.execute(plan_id)
                one.running.send_signal(signal.SIGKILL)
            missed = one.elsewhere("demo-01", type="market")
            with one.engine():
                until(lambda: one.all_proven(2), 40.0)
                until(lambda: one.control.get("/status")["unknown_orders"] == 0, 60.0)
                assert {c.state for c in one.children(plan_id)} == {OrderState.WORKING}
            told = one.json("orders", "--account", "demo-01")
            assert missed in [o["venue_order_id"] for o in told if o["external"]]
            truth = [o["clOrdId"] for a in ("demo-01", "demo-02") for o in one.orders(a)]
            assert all(truth.count(c.client_order_id) == 1 for c in one.children(plan_id))
    finally:
        drop_database(url)
