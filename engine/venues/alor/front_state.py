"""Holds. What the ALOR front knows of a customer: orders, stop orders, trades, holdings, money, and how it was before.

Rows are frozen and replaced, and every replacement is remembered for some seconds: a read that lags behind is answered
from the state as it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from engine.core.facts import Side
from engine.venues.alor.front_rules import Listing

ZERO = Decimal(0)
_KEPT_MS = 15_000


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange order, in lots."""

    order_id: str
    listing: Listing
    side: Side
    kind: str  # limit, market
    tif: str
    quantity: Decimal
    price: Decimal | None
    comment: str | None
    visible: Decimal | None = None
    variance: int = 0
    status: str = "working"
    filled: Decimal = ZERO
    replaced: bool = False  # another one has taken its place
    session: int  # in which it was made
    created_ms: int
    updated_ms: int

    @property
    def open(self) -> bool:
        return self.status == "working"


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """One stop order; its number space is its own."""

    stop_id: str
    listing: Listing
    side: Side
    kind: str  # stop, stoplimit
    tif: str
    quantity: Decimal
    price: Decimal | None
    trigger: Decimal
    condition: str
    ends_ms: int | None
    protecting_ms: int
    active: bool
    comment: str | None
    visible: Decimal | None = None
    held_since_ms: int | None = None  # since when its condition holds
    status: str = "working"
    became: str = ""  # the exchange order
    error: str | None = None
    replaced: bool = False
    session: int
    created_ms: int
    updated_ms: int

    @property
    def open(self) -> bool:
        return self.status == "working"


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    trade_id: str
    order_id: str
    listing: Listing
    side: Side
    quantity: Decimal
    price: Decimal
    comment: str | None
    commission: Decimal | None
    session: int
    at_ms: int


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """Units of a paper or a currency, or contracts; signed. `gained`: variation margin not paid out yet."""

    listing: Listing
    quantity: Decimal = ZERO
    avg: Decimal = ZERO
    opened: Decimal = ZERO  # as the session began
    gained: Decimal = ZERO
    updated_ms: int


class View(msgspec.Struct, frozen=True):
    orders: Mapping[str, Order]
    stops: Mapping[str, Stop]
    trades: Sequence[Trade]
    holdings: Mapping[str, Holding]
    cash: Mapping[str, Decimal]


class Customer:
    """One portfolio and everything in it."""

    def __init__(self, name: str, exchange: str, portfolio: str, login: Login) -> None:
        self.name, self.exchange, self.portfolio, self.login = name, exchange, portfolio, login
        self.orders: dict[str, Order] = {}
        self.stops: dict[str, Stop] = {}
        self.open: dict[str, None] = {}
        self.trades: list[Trade] = []
        self.holdings: dict[str, Holding] = {}
        self.cash: dict[str, Decimal] = {"RUB": ZERO}
        self._before: deque[tuple[int, dict[Any, Any], Any, Any]] = deque()

    def __repr__(self) -> str:
        return f"Customer({self.name})"

    def put_order(self, order: Order) -> None:
        self._remember(order.updated_ms, self.orders, order.order_id)
        self.orders[order.order_id] = order
        if order.open:
            self.open[order.order_id] = None
        else:
            self.open.pop(order.order_id, None)

    def put_stop(self, stop: Stop) -> None:
        self._remember(stop.updated_ms, self.stops, stop.stop_id)
        self.stops[stop.stop_id] = stop

    def put_holding(self, holding: Holding) -> None:
        self._remember(holding.updated_ms, self.holdings, holding.listing.symbol)
        self.holdings[holding.listing.symbol] = holding

    def pay(self, amount: Decimal, now_ms: int) -> None:
        self._remember(now_ms, self.cash, "RUB")
        self.cash["RUB"] += amount

    def held(self, symbol: str) -> Decimal:
        holding = self.holdings.get(symbol)
        return holding.quantity if holding else ZERO

    def open_orders(self) -> list[Order]:
        return [self.orders[order_id] for order_id in self.open]

    def view(self, at_ms: int | None = None) -> View:
        """As it is, or as it was at `at_ms` (some seconds back at most)."""
        if at_ms is None:
            return View(self.orders, self.stops, self.trades, self.holdings, self.cash)
        tables: list[dict[Any, Any]] = [self.orders, self.stops, self.holdings, self.cash]
        past = {id(table): dict(table) for table in tables}
        for changed_ms, table, key, before in reversed(self._before):
            if changed_ms <= at_ms:
                break
            if before is None:
                past[id(table)].pop(key, None)
            else:
                past[id(table)][key] = before
        orders, stops, holdings, cash = (past[id(table)] for table in tables)
        return View(orders, stops, [t for t in self.trades if t.at_ms <= at_ms], holdings, cash)

    def _remember(self, now_ms: int, table: dict[Any, Any], key: Any) -> None:
        self._before.append((now_ms, table, key, table.get(key)))
        while self._before[0][0] < now_ms - _KEPT_MS:
            self._before.popleft()


class Login:
    """Who holds a refresh token, and the portfolios that are his."""

    def __init__(self, login: str, refresh_token: str) -> None:
        self.login, self.refresh_token = login, refresh_token
        self.customers: dict[str, Customer] = {}  # by portfolio

    def names(self) -> list[str]:
        return [customer.name for customer in self.customers.values()]
