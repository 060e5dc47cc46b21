"""An office of real processes to try promises on: simulator, engine, and the command line as a person uses it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from engine.cli import demo_office
from engine.cli.demo_office import SimulatedVenue
from engine.control.client import Control, ControlError
from engine.core.plans import Child
from engine.ledger import gaps, plans, reader

T = TypeVar("T")

INSTRUMENT, SYMBOL = "BTC/USDT:USDT", "BTC-USDT-SWAP"
NO_BUDGETS = "[venues.okx]\nbudget_percent = 100000.0\n"  # the simulator's own limits are off, too


class Office:
    """One folder with its simulator and, maybe, its running engine."""

    def __init__(self, folder: Path, venue: SimulatedVenue, config: Path) -> None:
        self.folder, self.venue, self.config = folder, venue, config
        self.url = f"sqlite:///{folder / 'unisono.sqlite'}"
        self.control: Control
        self.running: subprocess.Popen[bytes]

    @contextmanager
    def engine(self) -> Iterator[None]:
        with demo_office.engine(self.folder, self.config) as (self.control, self.running):
            yield

    # ---- the command line

    def cli(self, *arguments: str, told: str = "") -> subprocess.CompletedProcess[str]:
        return cli(*arguments, config=self.config, told=told)

    def json(self, *arguments: str) -> Any:
        done = self.cli(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    # ---- the venue's truth

    def orders(self, account: str) -> list[dict[str, Any]]:
        return list(self.venue.get(f"/truth/orders?account={account}"))

    def connections(self) -> dict[str, str]:
        """Of each account's connection, the venue's id of it."""
        return {c["account"]: c["connId"] for c in self.venue.get("/truth/connections") if c["account"]}

    def fault(self, kind: str, account: str, **detail: Any) -> None:
        self.venue.post("/faults", {"kind": kind, "accounts": [account], **detail})

    def elsewhere(self, account: str, **order: str) -> str:
        """An order from the venue's own page; its id there."""
        return str(
            self.venue.post(
                "/orders", {"account": account, "instrument": SYMBOL, "side": "buy", "quantity": "1", **order}
            )["ordId"]
        )

    # ---- plans

    def approved(self, accounts: list[str], **leg: str) -> str:
        whole = {"instrument": INSTRUMENT, "method": "equal", "side": "buy", "order_type": "limit", "price": "57000"}
        whole |= {"quantity": str(len(accounts)), **leg}
        draft = {"title": "a promise", "accounts": accounts, "legs": [whole], "by": "planner"}
        plan_id = str(self.control.post("/plans", draft)["plan_id"])
        self.control.post(f"/plans/{plan_id}/preview")
        self.control.post(f"/plans/{plan_id}/approve", {"by": "approver"})
        return plan_id

    def execute(self, plan_id: str) -> Any:
        return self.control.post(f"/plans/{plan_id}/execute", {"by": "approver"})

    def denials(self, account: str, **leg: str) -> dict[str, Any]:
        """Code -> numbers of what stands against an order of this account now."""
        whole = {"instrument": INSTRUMENT, "method": "equal", "side": "buy", "order_type": "limit", "price": "57000"}
        draft = {"accounts": [account], "legs": [whole | {"quantity": "1", **leg}], "by": "planner"}
        plan_id = self.control.post("/plans", draft)["plan_id"]
        (row,) = self.control.post(f"/plans/{plan_id}/preview")["preview"]["rows"]
        return {d["code"]: d["numbers"] for d in row["denials"]}

    def children(self, plan_id: str) -> list[Child]:
        with reader(self.url) as conn:
            return plans.load_children(conn, [plan_id])

    def child(self, plan_id: str) -> Child:
        (child,) = self.children(plan_id)
        return child

    def gaps(self, account: str) -> list[gaps.Gap]:
        with reader(self.url) as conn:
            return gaps.find(conn, account)

    # ---- how it is

    def findings(self) -> dict[str, str]:
        return {f["subject"]: f["what"] for f in self.control.get("/findings")}

    def all_proven(self, accounts: int) -> bool:
        return bool(self.control.get("/status")["proven"] == accounts)


@contextmanager
def office(folder: Path, accounts: int, *, spare: int = 0, more: str = NO_BUDGETS, url: str = "") -> Iterator[Office]:
    """A simulator and a registry of its accounts, less the last `spare` of them. No engine yet."""
    demo_office.fresh_folder(folder)
    with demo_office.simulator(folder, accounts + spare, 1, "--no-limits", venue="okx") as venue:
        doors = {**venue.doors, "accounts": venue.doors["accounts"][:accounts]}
        config = demo_office.register(folder, {"okx": doors}, {"okx": {}}, url=url, more=more)
        one = Office(folder, venue, config)
        if url:
            one.url = url
        yield one


def cli(*arguments: str, config: Path, told: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine.cli", *arguments, "--config", str(config)]
    return subprocess.run(command, input=told, capture_output=True, text=True, timeout=60)


def until(look: Callable[[], T], limit_s: float = 20.0, every_s: float = 0.05) -> T:
    """What `look` gives once it gives something true."""
    deadline_s = time.monotonic() + limit_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline_s, f"not within {limit_s:g} s; at last: {found!r}"
        time.sleep(every_s)


def refused(ask: Callable[[], Any]) -> ControlError:
    """How the engine refuses; AssertionError when it does not."""
    try:
        answer = ask()
    except ControlError as error:
        return error
    raise AssertionError(f"it was done: {answer}")
