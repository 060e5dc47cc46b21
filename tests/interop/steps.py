"""Does. The steps that a client is asked to take, how it went told as JSON lines, and the venue's own truth beside it.

Runs in every client's environment: standard library only.
"""

from __future__ import annotations

import asyncio
import json
import traceback
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

STEP_LIMIT_S = 20.0

# Every step that any client takes, in the order of the table.
STEPS = (
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


class Steps:
    """Takes one step after the other; what fails is told and the next one is taken."""

    @asynccontextmanager
    async def __call__(self, step: str, limit_s: float = STEP_LIMIT_S) -> AsyncIterator[None]:
        assert step in STEPS, step
        why = ""
        try:
            async with asyncio.timeout(limit_s):
                yield
        except Exception as error:
            began = error.__cause__ if isinstance(error, TimeoutError) and error.__cause__ else error
            lines = [f.lineno for f in traceback.extract_tb(began.__traceback__) if f.name == "converse"]
            why = f"line {', '.join(map(str, lines))}: {type(error).__name__} {error}"
        print(json.dumps({"step": step, "why": why}), flush=True)


class Venue:
    """The simulator as it knows itself: its control door."""

    def __init__(self, doors: dict[str, Any], account: int = 0) -> None:
        self.doors = doors
        self.keys: dict[str, str] = doors["accounts"][account]
        self.name = self.keys["name"]
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def truth(self, kind: str, account: str | None = None) -> list[dict[str, Any]]:
        asked = self.name if account is None else account
        with self._open(f"{self.doors['control']}/truth/{kind}?account={asked}", timeout=10) as answer:
            rows: list[dict[str, Any]] = json.load(answer)
        return rows

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

    def post(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(  # noqa: S310  our own door
            self.doors["control"] + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with self._open(request, timeout=10) as answer:
            return json.load(answer)

    def hold_still(self) -> dict[str, Decimal]:
        """The market stops; the mark of every instrument."""
        return {name: Decimal(mark) for name, mark in self.post("/market", paused=True).items()}


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


async def refused(call: Awaitable[Any], kind: type[Exception]) -> None:
    """The call must raise exactly this."""
    try:
        await call
    except Exception as error:
        if type(error) is kind:
            return
        raise AssertionError(f"{type(error).__name__} instead of {kind.__name__}: {error}") from error
    raise AssertionError(f"accepted, instead of {kind.__name__}")
