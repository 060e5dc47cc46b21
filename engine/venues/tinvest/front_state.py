"""Holds. What the T-Invest front knows of an account: orders, operations, holdings, and how it was a moment ago."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from decimal import Decimal

import msgspec

from engine.core.facts import Side
from engine.venues.tinvest.front_rules import Listing

ZERO = Decimal(0)
_KEPT_MS = 20_000  # how far back a lagging read can look

NEW, PARTIAL, FILL, CANCELLED, REJECTED = "NEW", "PARTIALLYFILL", "FILL", "CANCELLED", "REJECTED"


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One fill of an order. `num` is what operations call it."""

    trade_id: int
    num: int
    lots: Decimal
    price: Decimal
    at_ms: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One order. The exchange knows it by its number, the venue by an id of its own until then."""

    number: int
    internal_id: str
    request_id: str
    stream_key: str  # what the order stream calls it by: not always the client's key (dossier §3.1)
    ours: bool  # the key came from the client
    listing: Listing
    side: Side
    kind: str  # LIMIT, MARKET, BESTPRICE
    in_force: str  # DAY, FILL_AND_KILL, FILL_OR_KILL
    lots: Decimal
    price: Decimal
    state: str = NEW
    executions: tuple[Execution, ...] = ()
    cause: str = ""
    marker: str = "UNKNOWN"
    message: str = ""
    commission: Decimal = ZERO
    created_ms: int
    updated_ms: int
    completed_ms: int | None = None

    @property
    def open(self) -> bool:
        return self.completed_ms is None

    @property
    def executed(self) -> Decimal:
        return sum((e.lots for e in self.executions), ZERO)

    @property
    def left(self) -> Decimal:
        return self.lots - self.executed if self.open else ZERO

    @property
    def average(self) -> Decimal:
        done = self.executed
        if not done:
            return ZERO
        return (sum((e.lots * e.price for e in self.executions), ZERO) / done).quantize(Decimal("1e-9"))


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    stop_id: str
    request_id: str
    listing: Listing
    side: Side
    kind: str  # TAKE_PROFIT, STOP_LOSS, STOP_LIMIT
    lots: Decimal
    price: Decimal
    stop_price: Decimal
    state: str = "ACTIVE"
    made: int = 0  # the number of the order it made
    created_ms: int
    activated_ms: int | None = None


class Operation(msgspec.Struct, kw_only=True):
    """One row of operations. Those of trades grow with their order."""

    op_id: str
    parent: str = ""
    kind: str  # BUY, SELL, BROKER_FEE, INPUT, …
    payment: Decimal
    currency: str = "rub"
    listing: Listing | None = None
    order: Order | None = None
    accrued: Decimal = ZERO
    pieces: Decimal = ZERO  # of a transfer of securities
    at_ms: int
    visible_ms: int


class Futures(msgspec.Struct, frozen=True):
    lots: Decimal
    average: Decimal  # since the last clearing


class View(msgspec.Struct, frozen=True):
    """Holdings at an instant: cash by currency, pieces by ticker, futures by ticker."""

    cash: Mapping[str, Decimal]
    pieces: Mapping[str, Decimal]
    futures: Mapping[str, Futures]
    blocked_cash: Mapping[str, Decimal]
    blocked_pieces: Mapping[str, Decimal]


class Customer:
    """One account."""

    def __init__(self, name: str, account_id: str, token: str) -> None:
        self.name, self.account_id, self.token = name, account_id, token
        self.user = token  # the person, by his first token
        self.access, self.status = "FULL_ACCESS", "OPEN"
        self.orders: dict[int, Order] = {}
        self.open: dict[int, None] = {}
        self.by_request: dict[str, int] = {}
        self.stops: dict[str, Stop] = {}
        self.stop_requests: dict[str, str] = {}
        self.operations: list[Operation] = []
        self.of_order: dict[int, Operation] = {}
        self.cash: dict[str, Decimal] = {"RUB": ZERO}
        self.pieces: dict[str, Decimal] = {}
        self.futures: dict[str, Futures] = {}
        self._orders_before: deque[tuple[int, int, Order | None]] = deque()
        self._views: deque[tuple[int, View]] = deque()

    def __repr__(self) -> str:
        return f"Customer({self.name})"

    def put(self, order: Order) -> None:
        self._orders_before.append((order.updated_ms, order.number, self.orders.get(order.number)))
        while self._orders_before[0][0] < order.updated_ms - _KEPT_MS:
            self._orders_before.popleft()
        self.orders[order.number] = order
        if order.request_id:
            self.by_request[order.request_id] = order.number
        if order.open:
            self.open[order.number] = None
        else:
            self.open.pop(order.number, None)

    def orders_at(self, at_ms: int | None) -> dict[int, Order]:
        """As they are, or as they were some seconds ago."""
        if at_ms is None:
            return self.orders
        past = dict(self.orders)
        for changed_ms, number, before in reversed(self._orders_before):
            if changed_ms <= at_ms:
                break
            if before is None:
                past.pop(number, None)
            else:
                past[number] = before
        return past

    def keep_view(self, now_ms: int) -> View:
        """To be called after every change of what is held or blocked."""
        view = self.view()
        self._views.append((now_ms, view))
        while len(self._views) > 1 and self._views[1][0] <= now_ms - _KEPT_MS:
            self._views.popleft()
        return view

    def view(self) -> View:
        blocked_cash: dict[str, Decimal] = {}
        blocked_pieces: dict[str, Decimal] = {}
        for order in (self.orders[number] for number in self.open):
            if order.listing.future:
                continue
            if order.side is Side.BUY:
                blocked, what, much = blocked_cash, "RUB", order.listing.value(order.left, order.price)
            else:
                blocked = blocked_cash if order.listing.kind == "currency" else blocked_pieces
                what, much = order.listing.base, order.left * order.listing.lot
            blocked[what] = blocked.get(what, ZERO) + much
        return View(dict(self.cash), dict(self.pieces), dict(self.futures), blocked_cash, blocked_pieces)

    def view_at(self, at_ms: int) -> View:
        found = None
        for kept_ms, view in self._views:
            if kept_ms > at_ms:
                break
            found = view
        return found if found is not None else (self._views[0][1] if self._views else self.view())
