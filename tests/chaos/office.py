"""Does. One office under chaos: a simulator that stays, an engine that is killed again and again on one database.

Everything an engine does when it is killed follows from the seed; when exactly the kill meets it is up to the machine.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from engine.cli import demo_office
from engine.cli.demo_office import SimulatedVenue
from engine.control.client import Control, ControlError, NoEngine
from engine.crash import POINTS
from engine.ledger import plans, reader, tables
from engine.venues import venues
from tests.chaos.engines import Engine
from tests.chaos.verdict import Records, Verdict, judge

ACCOUNTS = 6
# A short expiry makes a short quarantine: a request of a dead engine is either at the venue or never will be.
SETTINGS = """
[venues.okx]
budget_percent = 100000.0
[plans]
request_expiry_s = 2.0
send_timeout_s = 1.0
duplicate_window_s = 0.0
[backfill]
overlap_s = 30.0
crosscheck_s = 4.0
[reconcile]
in_flight_guard_s = 0.2
"""
LEGS = {"BTC/USDT:USDT": ("BTC-USDT-SWAP", "0.1"), "ETH/USDT:USDT": ("ETH-USDT-SWAP", "0.01")}
_FIRST = "open-before-keep"  # passed only when an account is seen for the first time
_AGAIN = tuple(p for p in POINTS if p != _FIRST)
_EACH_ACCOUNT = ("open", "backfill", "mid-send")
_OFTEN = {"ledger": 60, "answer": 12, "steps": 6}
_START_LIMIT_S = 30.0
_ARMED_LIMIT_S = 12.0  # a place that is not passed within it: killed all the same
_SETTLE_LIMIT_S = 90.0
# Faults of the venue that make a kill harder to come back from. The counts of them are reported.
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "drop_ack", "times": 2},
    {"kind": "drop_request", "times": 2},
    {"kind": "late", "by_ms": 1200, "times": 2},
    {"kind": "duplicate", "times": 4},
    {"kind": "read_lag", "by_ms": 1500, "seconds": 4},
    {"kind": "cut", "seconds": 0.3},
    {"kind": "rate_429", "times": 2},
)


class NotSettled(AssertionError):
    """The office did not come to rest after a kill."""


class Office:
    def __init__(self, folder: Path, venue: SimulatedVenue, url: str, seed: int) -> None:
        self.folder, self.venue, self.url = folder, venue, url
        self.config = demo_office.register(folder, venue.doors, {}, url=url, more=SETTINGS)
        self.rng = random.Random(seed)
        self.told: list[str] = []  # plans that the engine said were approved
        self.kills: Counter[str] = Counter()  # by what it was doing
        self.engine: Engine | None = None
        self.control = Control(demo_office.socket(folder))
        self._places = [_FIRST]

    # ---- one kill

    def kill_once(self) -> None:
        """Start the engine, let it be killed at a named place or at any moment, leave it dead."""
        if self._places == [_FIRST] or self.rng.random() < 0.5:
            self._die_at(self._next_place())
        else:
            self._die_at_any_moment()

    def _next_place(self) -> str:
        """Every place comes as often as every other."""
        if not self._places:
            self._places = self.rng.sample(_AGAIN, len(_AGAIN))
        return self._places.pop()

    def _die_at(self, place: str) -> None:
        most = ACCOUNTS if place.startswith(_EACH_ACCOUNT) else _OFTEN.get(place.partition("-")[0], 1)
        count = self.rng.randint(1, most)
        self.engine = engine = Engine(self.config, self.folder / "engine.log", f"{place}:{count}")
        deadline_s = time.monotonic() + _ARMED_LIMIT_S
        with suppress(NoEngine, ControlError, httpx.HTTPError):
            self._until_proven()
            while engine.alive() and time.monotonic() < deadline_s:
                self._work()
        reached = engine.wait(0.0 if time.monotonic() >= deadline_s else 1.0)
        engine.kill()
        self.kills[place if reached else "not reached"] += 1

    def _die_at_any_moment(self) -> None:
        phase = self.rng.choice(("starting", "sending", "working"))
        self.engine = engine = Engine(self.config, self.folder / "engine.log")
        if phase == "starting":
            time.sleep(self.rng.uniform(0.0, 1.5))
        else:
            with suppress(NoEngine, ControlError, httpx.HTTPError):
                self._until_proven()
                if phase == "sending":
                    plan_id = self._approved_plan()
                    self._kill_in(self.rng.uniform(0.0005, 0.06))
                    if plan_id:
                        self._execute(plan_id)
                else:
                    self._kill_in(self.rng.uniform(0.001, 2.0))
                    while engine.alive():
                        self._work()
            _disarm()
        engine.kill()
        self.kills[f"at random, {phase}"] += 1

    def _kill_in(self, seconds: float) -> None:
        """From outside, whatever it is doing then, also while we wait for its answer."""
        engine = self.engine
        assert engine is not None, "started"

        def kill(_signal: int, _frame: object) -> None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

        pidfd = os.pidfd_open(engine.pid)
        signal.signal(signal.SIGALRM, kill)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    # ---- what it does meanwhile

    def _until_proven(self) -> None:
        deadline_s = time.monotonic() + _START_LIMIT_S
        engine = self.engine
        assert engine is not None, "started"
        while engine.alive() and time.monotonic() < deadline_s:
            with suppress(NoEngine):
                if self.control.get("/status")["proven"] >= ACCOUNTS - 1:  # one may be troubled by a fault
                    return
            time.sleep(0.02)

    def _work(self) -> None:
        """One thing that a manager, a robot of ours or the market may do."""
        chance = self.rng.random()
        if chance < 0.5:
            if plan_id := self._approved_plan():
                self._execute(plan_id)
        elif chance < 0.6 and self.told:
            self._ask(f"/plans/{self.rng.choice(self.told[-4:])}/cancel", {"by": "chaos"})
        elif chance < 0.68 and self.told:
            price = self._price("BTC/USDT:USDT", 0.995)
            self._ask(f"/plans/{self.rng.choice(self.told[-4:])}/amend", {"price": price, "by": "chaos"})
        elif chance < 0.76:
            self._ask("/backfill", {})
        elif chance < 0.82:
            with suppress(ControlError):
                for _ in self.control.stream("/reconcile", {"kind": "adhoc"}):
                    pass
        else:
            self.meanwhile()

    def meanwhile(self) -> None:
        """What happens at the venue whether an engine runs or not."""
        account = self.rng.choice(self.venue.names)
        side = self.rng.choice(("buy", "sell"))
        for _ in range(self.rng.randint(1, 3)):
            order = {"account": account, "instrument": "ETH-USDT-SWAP", "side": side, "quantity": "0.2"}
            self.venue.post("/orders", {**order, "type": "market"})
        if self.rng.random() < 0.3:
            fault = dict(self.rng.choice(FAULTS))
            self.venue.post("/faults", {**fault, "accounts": [account]})

    def _approved_plan(self) -> str:
        legs = []
        for instrument in self.rng.sample(sorted(LEGS), self.rng.randint(1, 2)):
            market = self.rng.random() < 0.4
            side = self.rng.choice(("buy", "sell"))
            quantity = str(ACCOUNTS * self.rng.randint(1, 3))
            leg = {"instrument": instrument, "method": "equal", "side": side, "quantity": quantity}
            away = self.rng.uniform(0.9995, 1.0) if self.rng.random() < 0.5 else self.rng.uniform(0.97, 0.99)
            price = self._price(instrument, away if side == "buy" else 2 - away)
            legs.append({**leg, "order_type": "market"} if market else {**leg, "order_type": "limit", "price": price})
        draft = {"title": "chaos", "groups": ["everybody"], "legs": legs, "by": "chaos"}
        with suppress(ControlError):
            plan_id = str(self.control.post("/plans", draft)["plan_id"])
            self.control.post(f"/plans/{plan_id}/preview")
            self.control.post(f"/plans/{plan_id}/approve", {"by": "chaos"})
            self.told.append(plan_id)
            return plan_id
        return ""

    def _execute(self, plan_id: str) -> None:
        self._ask(f"/plans/{plan_id}/execute", {"by": "chaos"})

    def _ask(self, path: str, body: dict[str, Any]) -> None:
        with suppress(ControlError):
            self.control.post(path, body)

    def _price(self, instrument: str, factor: float) -> str:
        symbol, tick = LEGS[instrument]
        mark = float(self.venue.post("/market", {})[symbol])
        return f"{mark * factor:.{len(tick) - 2}f}"

    # ---- coming to rest

    def settle(self) -> Verdict:
        """Start it once more, nobody kills it: everything is proven and known, then truth and ledger are compared."""
        self.venue._http.delete("/faults").raise_for_status()
        self.engine = engine = Engine(self.config, self.folder / "engine.log")
        try:
            self._wait("proven", lambda s: s["proven"] == ACCOUNTS)
            self._wait("known", lambda s: s["unknown_orders"] == 0)
            for plan_id in self._executing():
                self._ask(f"/plans/{plan_id}/cancel", {"by": "chaos"})
            self._wait("at rest", lambda s: s["open_orders"] == 0)
            for _ in range(20):  # the last steps are on their way into the ledger
                verdict = self.judged()
                if verdict.whole:
                    break
                time.sleep(0.25)
            return verdict
        finally:
            engine.kill()

    def _wait(self, what: str, done: Callable[[dict[str, Any]], bool]) -> None:
        deadline_s, status = time.monotonic() + _SETTLE_LIMIT_S, {}
        assert self.engine is not None, "started"
        while self.engine.alive():
            with suppress(NoEngine):
                status = self.control.get("/status")
                if done(status):
                    return
            if time.monotonic() > deadline_s:
                raise NotSettled(f"not {what} within {_SETTLE_LIMIT_S:g} s: {status}, {self.control.get('/findings')}")
            time.sleep(0.05)
        raise NotSettled(f"the engine died before all was {what}")

    def _executing(self) -> list[str]:
        query = sa.select(tables.plan.c.plan_id).where(tables.plan.c.state == "executing")
        with reader(self.url) as conn:
            return list(conn.scalars(query))

    def judged(self) -> Verdict:
        orders, fills = self.venue.get("/truth/orders"), self.venue.get("/truth/fills")
        return judge(orders, fills, records_of(self.url), self.told, venues()["okx"].owns_order_id)

    def happened(self) -> Counter[str]:
        return Counter(self.venue.get("/faults")["happened"])

    def close(self) -> None:
        if self.engine is not None:
            self.engine.kill()


_FEELESS = ":feeless"
_FILLS = tables.fact.c.kind == "fill"
_PLACES = tables.intent.c.kind == "place"


def records_of(url: str) -> Records:
    with reader(url) as conn:
        ids = list(conn.scalars(sa.select(tables.plan.c.plan_id)))
        facts = [(a, k) for a, k in conn.execute(sa.select(tables.fact.c.account_id, tables.fact.c.key).where(_FILLS))]
        whole = {(a, k) for a, k in facts if not k.endswith(_FEELESS)}
        # A fill may stand there twice on purpose: as the stream told it without its fee, and with it.
        return Records(
            plans=frozenset(ids),
            children=plans.load_children(conn, ids),
            claims=frozenset(conn.scalars(sa.select(tables.intent.c.intent_id).where(_PLACES))),
            fills=[(a, k.removesuffix(_FEELESS)) for a, k in facts if not _told_better(a, k, whole)],
        )


def _told_better(account: str, key: str, whole: set[tuple[str, str]]) -> bool:
    return key.endswith(_FEELESS) and (account, key.removesuffix(_FEELESS)) in whole


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
