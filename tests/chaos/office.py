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
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import httpx
import msgspec
import sqlalchemy as sa

from engine.cli import demo_office
from engine.cli.demo_office import SimulatedVenue
from engine.control.client import Control, ControlError, NoEngine
from engine.core.truth import Truth
from engine.crash import POINTS
from engine.ledger import audit, backup, instruments, plans, reader, tables
from engine.venues import venues
from tests.chaos.engines import Engine
from tests.chaos.places import ACCOUNTS, FIRST, way_to
from tests.chaos.verdict import Records, Verdict, judge

# A short expiry makes a short quarantine: a request of a dead engine is either at the venue or never will be.
SETTINGS = """
[venues.{venue}]
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
_STATES = {"filled": "filled", "cancelled": "canceled", "expired": "canceled"}  # as the verdict has them
AT_RANDOM, NOT_REACHED = "at random:", "not reached:"
# What an engine that is killed at any moment is doing: for how long at most, and by which act.
_PHASES = {
    "starting": (0.8, ""),
    "sending": (0.06, "execute"),
    "working": (1.5, "anything"),
    "reading back": (0.3, "read back"),
    "reconciling": (0.3, "reconcile"),
    "killing": (0.6, "kill switch"),
}
_START_LIMIT_S = 30.0
_PROOF_TAKES_S = 15.0
_MOST = ACCOUNTS - 2  # the others may be troubled by a fault
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
        self.config = demo_office.register(
            folder, {venue.name: venue.doors}, url=url, more=SETTINGS.format(venue=venue.name)
        )
        self.rng = random.Random(seed)
        self.told: list[str] = []  # plans that the engine said were approved
        self.kills: Counter[str] = Counter()  # by what it was doing
        self.engine: Engine | None = None
        self.control = Control(demo_office.socket(folder))
        self._places = [FIRST]
        self._legs = [venue.stage.instrument]

    # ---- one kill

    def kill_once(self) -> None:
        """Start the engine, let it be killed at a named place or at any moment, leave it dead."""
        if self._places == [FIRST] or self.rng.random() < 0.5:
            self._die_at(self._next_place())
        else:
            self._die_at_any_moment()

    def _next_place(self) -> str:
        """Every place comes as often as every other."""
        if not self._places:
            again = [place for place in POINTS if place != FIRST]
            self._places = self.rng.sample(again, len(again))
        return self._places.pop()

    def _die_at(self, place: str) -> None:
        way = way_to(place)
        if way.restored:
            backup.mark(self.url, "chaos", "itself", time.time_ns() // 1_000_000)
        count = self.rng.randint(1, way.most)
        self.engine = engine = Engine(self.config, self.folder / "engine.log", f"{place}:{count}")
        deadline_s = time.monotonic() + way.within_s
        with suppress(NoEngine, ControlError, httpx.HTTPError):
            if way.act:
                self._until_proven()
            while engine.alive() and time.monotonic() < deadline_s:
                self.ACTS[way.act](self) if way.act else time.sleep(0.01)
        reached = engine.wait(0.0 if time.monotonic() >= deadline_s else 1.0)
        engine.kill()
        self.kills[place if reached else f"{NOT_REACHED} {place}"] += 1

    def _die_at_any_moment(self) -> None:
        phase = self.rng.choice(sorted(_PHASES))
        longest_s, act = _PHASES[phase]
        self.engine = engine = Engine(self.config, self.folder / "engine.log")
        if not act:
            time.sleep(self.rng.uniform(0.0, longest_s))
        else:
            with suppress(NoEngine, ControlError, httpx.HTTPError):
                self._until_proven()
                plan_id = self._approved_plan() if act == "execute" else ""
                self._kill_in(self.rng.uniform(0.0005, longest_s))
                if plan_id:
                    self._execute(plan_id)
                while engine.alive():
                    self.ACTS[act](self) if act != "execute" else time.sleep(0.001)
            _disarm()
        engine.kill()
        self.kills[f"{AT_RANDOM} {phase}"] += 1

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
                status = self.control.get("/status")
                if status["kill"]:
                    self._lift()
                elif status["proven"] >= _MOST and not status["blocked"]:
                    return
            time.sleep(0.02)

    def _anything(self) -> None:
        """One thing that a manager, a robot of ours or the market may do."""
        acts = (self._send, self._cancel_one, self._amend_one, self._read_back, self._reconcile)
        (act,) = self.rng.choices((*acts, self._kill_switch, self.meanwhile), (50, 10, 8, 8, 8, 4, 12))
        act()

    def _send(self) -> None:
        if plan_id := self._approved_plan():
            self._execute(plan_id)

    def _cancel(self) -> None:
        self._rest()
        self._cancel_one()

    def _amend(self) -> None:
        self._rest()
        self._amend_one()

    def _rest(self) -> None:
        """Orders of every account that stay at work."""
        if plan_id := self._approved_plan(resting=True):
            self._execute(plan_id)

    def _lose(self) -> None:
        """Requests that the venue never gets: what became of them must be proven."""
        for account in self.venue.names:
            self.venue.post("/faults", {"kind": "drop_request", "times": 1, "accounts": [account]})
        self._rest()
        engine, deadline_s = self.engine, time.monotonic() + _PROOF_TAKES_S
        while engine is not None and engine.alive() and time.monotonic() < deadline_s:
            time.sleep(0.05)

    def _cancel_one(self) -> None:
        if self.told:
            self._ask(f"/plans/{self.rng.choice(self.told[-2:])}/cancel", {"by": "chaos"})

    def _amend_one(self) -> None:
        if self.told:
            price = self._price(self.venue.stage.instrument, 0.995)
            self._ask(f"/plans/{self.rng.choice(self.told[-2:])}/amend", {"price": price, "by": "chaos"})

    def _read_back(self) -> None:
        self._ask("/backfill", {})

    def _reconcile(self) -> None:
        with suppress(ControlError):
            for _ in self.control.stream("/reconcile", {"kind": "adhoc"}):
                pass

    def _kill_switch(self) -> None:
        """Thrown while orders are at work, left on for a moment, lifted."""
        self._rest()
        account = self.rng.choice(self.venue.names)
        scope = self.rng.choice(("all", f"venue:{self.venue.name}", f"account:{account}"))
        self._ask("/kill/on", {"scope": scope, "by": "chaos", "why": "chaos"})
        time.sleep(self.rng.uniform(0.0, 0.3))
        self._lift()

    ACTS: ClassVar[dict[str, Callable[[Office], None]]] = {
        "anything": _anything,
        "send": _send,
        "cancel": _cancel,
        "amend": _amend,
        "lose": _lose,
        "read back": _read_back,
        "reconcile": _reconcile,
        "kill switch": _kill_switch,
    }

    def _lift(self) -> None:
        for switch in self.control.get("/kill")["switches"]:
            self._ask("/kill/off", {"scope": switch["scope"], "by": "chaos", "why": "chaos", "accept": ["all"]})

    def meanwhile(self) -> None:
        """What happens at the venue whether an engine runs or not."""
        account = self.rng.choice(self.venue.names)
        side = self.rng.choice(("buy", "sell"))
        for _ in range(self.rng.randint(1, 3)):
            order = {"account": account, "instrument": self._legs[-1], "side": side, "quantity": "1"}
            self.venue.post("/orders", {**order, "type": "market"})
        if self.rng.random() < 0.3:
            fault = dict(self.rng.choice(FAULTS))
            self.venue.post("/faults", {**fault, "accounts": [account]})

    def _approved_plan(self, *, resting: bool = False) -> str:
        legs = []
        for instrument in self.rng.sample(self._traded(), self.rng.randint(1, len(self._legs))):
            market = not resting and self.rng.random() < 0.4
            side = self.rng.choice(("buy", "sell"))
            quantity = str(ACCOUNTS * self.rng.randint(1, 3))
            leg = {"instrument": instrument, "method": "equal", "side": side, "quantity": quantity}
            near = not resting and self.rng.random() < 0.5
            away = self.rng.uniform(0.9995, 1.0) if near else self.rng.uniform(0.97, 0.99)
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

    def _traded(self) -> list[str]:
        """Two instruments of one kind, once the engine has written down which there are."""
        if len(self._legs) == 1:
            with reader(self.url) as conn:
                known = instruments.load(conn).get((self.venue.name, "demo"), [])
            kinds = {one.name: one.kind for one in known if one.tradable}
            kind = kinds.get(self._legs[0])
            self._legs += sorted(name for name, other in kinds.items() if other is kind and name != self._legs[0])[:1]
        return self._legs

    def _price(self, instrument: str, factor: float) -> str:
        told = self.venue.post("/market", {"instrument": instrument})
        tick = Decimal(told["tick"])
        return str(Decimal(told["price"]) * Decimal(str(factor)) // tick * tick)

    # ---- coming to rest

    def settle(self) -> Verdict:
        """Start it once more, nobody kills it: everything is proven and known, then truth and ledger are compared."""
        self.venue._http.delete("/faults").raise_for_status()
        self.engine = engine = Engine(self.config, self.folder / "engine.log")
        try:
            self._wait("proven", lambda s: s["proven"] == ACCOUNTS)
            self._lift()
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
        truths = msgspec.convert(self.venue.get("/truth/ours"), dict[str, Truth], strict=False)
        orders = [
            {
                "account": account,
                "clOrdId": order.client_order_id,
                "state": _STATES.get(order.status, "live"),
                "accFillSz": str(order.filled + order.filled_before),
            }
            for account, truth in truths.items()
            for order in truth.orders.values()
        ]
        fills = [(account, fill_id) for account, truth in truths.items() for fill_id in truth.fills]
        return judge(orders, fills, records_of(self.url), self.told, venues()[self.venue.name].owns_order_id)

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
            audit=audit.verify(conn).why,
        )


def _told_better(account: str, key: str, whole: set[tuple[str, str]]) -> bool:
    return key.endswith(_FEELESS) and (account, key.removesuffix(_FEELESS)) in whole


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
