"""A real engine process is killed with -9 in a fan-out and started again: nothing is lost, nothing doubled."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.cli import demo_office
from engine.control.client import Control, ControlError, NoEngine
from engine.core.orders import OrderState
from engine.core.plans import Child
from engine.ledger import plans, reader

ACCOUNTS = 40
NO_BUDGETS = "[venues.okx]\nbudget_percent = 100000.0\n"  # the simulator's own limits are off, too
REGISTERING = threading.Lock()  # migrations run in this process, one at a time
AT_THE_VENUE = {OrderState.WORKING, OrderState.FILLED, OrderState.CANCELLED, OrderState.EXPIRED}
NEVER_THERE = {OrderState.NOT_PLACED, OrderState.SKIPPED}


@pytest.mark.timeout(240)
def test_killed_in_a_fan_out_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    rng, failures = random.Random(20261121), list[BaseException]()

    def one(number: int, delay_s: float) -> None:
        try:
            _killed_once(tmp_path / str(number), delay_s)
        except BaseException as error:
            failures.append(error)

    kills = [threading.Thread(target=one, args=(n, rng.uniform(0.0, 0.03))) for n in range(3)]
    for kill in kills:
        kill.start()
    for kill in kills:
        kill.join()
    assert not failures, failures


def _killed_once(folder: Path, delay_s: float) -> None:
    demo_office.fresh_folder(folder)
    with demo_office.simulator(folder, ACCOUNTS, 1, "--no-limits", venue="okx") as venue:
        with REGISTERING:
            config = demo_office.register(folder, {"okx": venue.doors}, {"okx": {}}, more=NO_BUDGETS)
        with demo_office.engine(folder, config) as (control, running):
            _until(lambda: control.get("/status")["proven"] == ACCOUNTS, 60.0)
            plan_id = _approved_plan(control)
            asked = threading.Thread(target=_execute, args=(folder, plan_id))
            asked.start()
            time.sleep(delay_s)
            os.kill(running.pid, signal.SIGKILL)
            asked.join()
        with demo_office.engine(folder, config) as (control, _):
            _until(lambda: control.get("/status")["proven"] == ACCOUNTS, 60.0)
            _until(lambda: control.get("/status")["unknown_orders"] == 0, 90.0)
        truth = Counter(order["clOrdId"] for order in venue.get("/truth/orders"))
        children = _children(folder, plan_id)

    assert len(children) == ACCOUNTS, "every child is still there"
    assert {c.state for c in children} <= AT_THE_VENUE | NEVER_THERE | {OrderState.PLANNED}, "all of them are settled"
    for child in children:
        expected = 1 if child.state in AT_THE_VENUE else 0
        assert truth[child.client_order_id] == expected, f"{child.account_id}: {child.state}, at the venue {truth}"
    assert sum(truth.values()) == sum(1 for c in children if c.state in AT_THE_VENUE), "no order without its child"


def _approved_plan(control: Control) -> str:
    leg: dict[str, Any] = {"instrument": "BTC/USDT:USDT", "method": "equal", "side": "buy"}
    leg |= {"quantity": str(ACCOUNTS), "order_type": "limit", "price": "57000"}
    draft = {"title": "to be killed", "groups": ["everybody"], "legs": [leg], "by": "test"}
    plan_id = str(control.post("/plans", draft)["plan_id"])
    control.post(f"/plans/{plan_id}/preview")
    control.post(f"/plans/{plan_id}/approve", {"by": "test"})
    return plan_id


def _execute(folder: Path, plan_id: str) -> None:
    with Control(demo_office.socket(folder)) as control:
        try:
            control.post(f"/plans/{plan_id}/execute", {"by": "test"})
        except (NoEngine, ControlError):
            return  # it died under us, which is the point


def _children(folder: Path, plan_id: str) -> list[Child]:
    with reader(f"sqlite:///{folder / 'unisono.sqlite'}") as conn:
        return plans.load_children(conn, [plan_id])


def _until(done: Callable[[], bool], limit_s: float) -> None:
    deadline_s = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline_s, "not within the limit"
        time.sleep(0.1)
