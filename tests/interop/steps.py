"""Does. The steps that a client is asked to take, how it went told as JSON lines, and the venue's own truth beside it.

Runs in every client's environment: standard library only.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import traceback
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

STEP_LIMIT_S = 20.0
OUR_PYTHON = "UNISONO_PYTHON"
"""The variable that names the Python in which our own side runs."""

OKX_STEPS = (
    "server time",
    "instruments",
    "prices: ticker, tickers, mark",
    "order book",
    "whose key it is",
    "balance",
    "leverage: set, read",
    "fee rates",
    "wrong secret, wrong passphrase",
    "asking too often",
    "log in",
    "a second login",
    "watch tickers and mark prices",
    "watch the best bid and offer",
    "watch balances",
    "watch positions",
    "limit order, spot",
    "limit order, swap",
    "read an order by either id",
    "open orders",
    "balance with orders at work",
    "amend",
    "cancel",
    "cancelled orders",
    "several at once: place, cancel",
    "post-only that would take",
    "orders refused, each for its reason",
    "market order, spot, in quote",
    "market order, spot, sell",
    "market order, swap",
    "filled in part, by taking and by making",
    "position",
    "closed orders",
    "own fills with their fees",
    "pages: after, before, begin, end",
    "funding",
    "liquidation",
    "bills add up to the balance",
    "an order placed elsewhere",
    "close by a reduce-only order",
    "dead man's switch",
    "unsubscribe",
    "cut off, and back",
    "kept alive beyond 30 s",
    "notice of a service upgrade",
)


ISSPLUS_STEPS = (
    "log in",
    "wrong passcode",
    "our frames are read by others",
    "others' frames are read by us",
    "what only we can read",
    "a query and its reply",
    "snapshot and updates",
    "order book",
    "candles",
    "what is refused, and why",
    "unsubscribe",
    "history over HTTP",
)

ALOR_STEPS = (
    "token",
    "wrong refresh token",
    "server time",
    "instruments",
    "order book",
    "last prices",
    "candles",
    "whose portfolio it is, its money and holdings",
    "orders, before anything was done",
    "watch orders and trades",
    "watch the order book",
    "watch quotes",
    "watch candles",
    "watch positions and money",
    "limit order",
    "a request repeated under its id",
    "open orders",
    "read an order by either id",
    "amend",
    "cancel",
    "orders refused, each for its reason",
    "market order",
    "filled by others",
    "own fills",
    "history of fills",
    "holdings after trading",
    "stop orders: place, list, cancel",
    "stop order that triggers",
    "an order placed elsewhere",
    "a lost answer",
    "unsubscribe",
    "cut off, and back",
)

TINVEST_STEPS = (
    "the contracts are compiled",
    "what we ask over HTTP",
    "what our simulator answers",
    "its errors",
    "what we say on streams",
    "what our simulator says there",
    "nothing was left out",
)

STEPS = {"okx": OKX_STEPS, "issplus": ISSPLUS_STEPS, "alor": ALOR_STEPS, "tinvest": TINVEST_STEPS}
"""Every step that any client takes, in the order of its venue's table."""


class Steps:
    """Takes one step after the other; what fails is told and the next one is taken."""

    def __init__(self, venue: str) -> None:
        self._known = STEPS[venue]

    @asynccontextmanager
    async def __call__(self, step: str, limit_s: float = STEP_LIMIT_S) -> AsyncIterator[None]:
        assert step in self._known, step
        why = ""
        try:
            async with asyncio.timeout(limit_s):
                yield
        except Exception as error:
            began = error.__cause__ if isinstance(error, TimeoutError) and error.__cause__ else error
            lines = [f.lineno for f in traceback.extract_tb(began.__traceback__) if f.name == "converse"]
            why = f"line {', '.join(map(str, lines))}: {type(error).__name__} {error}"
        print(json.dumps({"step": step, "why": why}), flush=True)


def ours(script: str, asked: Any, limit_s: float = STEP_LIMIT_S) -> Any:
    """What a script of ours, which runs in our own environment, answers to that: JSON in, JSON out."""
    command = [os.environ[OUR_PYTHON], "-m", f"tests.interop.{script}"]
    answered = subprocess.run(command, input=json.dumps(asked).encode(), stdout=subprocess.PIPE, timeout=limit_s)
    answered.check_returncode()
    return json.loads(answered.stdout)


class Simulator:
    """A simulated venue as it knows itself: its control door."""

    def __init__(self, doors: dict[str, Any], name: str) -> None:
        self.doors, self.name = doors, name
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def truth(self, kind: str, account: str | None = None) -> list[dict[str, Any]]:
        asked = self.name if account is None else account
        with self._open(f"{self.doors['control']}/truth/{kind}?account={asked}", timeout=10) as answer:
            rows: list[dict[str, Any]] = json.load(answer)
        return rows

    def post(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(  # noqa: S310  our own door
            self.doors["control"] + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with self._open(request, timeout=10) as answer:
            return json.load(answer)

    def hold_still(self) -> dict[str, Decimal]:
        """The market stops; the mark of every instrument."""
        return {name: Decimal(mark) for name, mark in self.post("/market", paused=True).items()}


class Venue(Simulator):
    """The OKX simulator, and one account on it."""

    def __init__(self, doors: dict[str, Any], account: int = 0) -> None:
        self.keys: dict[str, str] = doors["accounts"][account]
        super().__init__(doors, self.keys["name"])

    def order(self, order_id: str) -> dict[str, Any]:
        return next(row for row in self.truth("orders") if row["ordId"] == order_id)

    def orders(self, state: str, instrument: str = "") -> list[dict[str, Any]]:
        return [o for o in self.truth("orders") if o["state"] == state and instrument in ("", o["instId"])]

    def cash(self) -> dict[str, dict[str, Any]]:
        return {row["ccy"]: row for row in self.truth("balances")}

    def somebody_else(self, **order: Any) -> dict[str, Any]:
        """An order of another account."""
        placed: dict[str, Any] = self.post("/orders", account=self.doors["accounts"][1]["name"], **order)
        assert placed["sCode"] == "0", placed
        return placed

    def connections(self, path: str) -> list[dict[str, Any]]:
        """Ours; on the public path nobody logs in, so there it is everybody's."""
        rows = self.truth("connections", "" if path == "public" else self.name)
        return [row for row in rows if row["path"].endswith(path)]


def same(told: Any, true: Any) -> bool:
    """Numbers that agree, to a float's precision: most clients hold floats."""
    if told is None:
        return False
    exact = Decimal(str(true))
    return abs(Decimal(str(told)) - exact) <= abs(exact) * Decimal("1e-12")


def patient(price: Decimal, tick: str, of: str = "0.9") -> Decimal:
    """A price away from the market, on the tick."""
    return price * Decimal(of) // Decimal(tick) * Decimal(tick)


async def soon(wanted: Callable[[], Any], limit_s: float = 5.0) -> None:
    """Until `wanted()` holds; TimeoutError when it does not."""
    async with asyncio.timeout(limit_s):
        while not wanted():  # noqa: ASYNC110  what is waited for happens in another process
            await asyncio.sleep(0.02)


async def refused(call: Awaitable[Any], kind: type[Exception]) -> str:
    """The call must raise exactly this; its words."""
    try:
        await call
    except Exception as error:
        if type(error) is kind:
            return str(error)
        raise AssertionError(f"{type(error).__name__} instead of {kind.__name__}: {error}") from error
    raise AssertionError(f"accepted, instead of {kind.__name__}")
