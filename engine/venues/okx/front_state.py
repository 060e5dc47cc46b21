"""Holds. What the OKX front knows of a customer: orders, fills, bills, positions, cash, and how it was a moment ago.

Rows are frozen and replaced, and every replacement is remembered for some seconds: a read that lags behind the stream
(dossier §6.2, §13) is answered from the state as it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from engine.core.facts import Side
from engine.venues.okx.front_rules import Listing

ZERO = Decimal(0)
_KEPT_MS = 15_000  # how far back a lagging read can look
_FINE = Decimal("1e-12")


def fine(amount: Decimal) -> Decimal:
    """Money as the venue books it: twelve places."""
    return amount.quantize(_FINE)


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """One row of fills. A liquidation's trade number is negative."""

    bill_id: int
    trade_id: int
    ord_id: int
    cl_ord_id: str
    tag: str
    listing: Listing
    side: Side
    px: Decimal
    quantity: Decimal
    maker: bool
    fee: Decimal  # negative: charged
    fee_ccy: str
    fee_rate: Decimal
    pnl: Decimal
    sub_type: str
    at_ms: int


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """One movement of cash."""

    bill_id: int
    kind: str  # type: 1 transfer, 2 trade, 5 liquidation, 8 funding
    sub_type: str
    at_ms: int
    ccy: str
    change: Decimal
    balance: Decimal
    px: Decimal | None = None
    quantity: Decimal | None = None
    pnl: Decimal = ZERO
    fee: Decimal = ZERO
    listing: Listing | None = None
    td_mode: str = ""
    fill: Fill | None = None
    came_from: str = ""
    went_to: str = ""

    @property
    def margin_mode(self) -> str:
        return "" if self.td_mode == "cash" else self.td_mode


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One order. `quantity` is in fill units; `sz` is as submitted, so a spot market buy's is in quote."""

    ord_id: int
    cl_ord_id: str = ""
    tag: str = ""
    listing: Listing
    td_mode: str
    side: Side
    ord_type: str
    sz: Decimal
    px: Decimal | None
    tgt_ccy: str = ""
    quantity: Decimal
    state: str = "live"
    filled: Decimal = ZERO
    worth: Decimal = ZERO  # value of all fills: their average price follows from it
    fee: Decimal = ZERO
    fee_ccy: str = ""
    pnl: Decimal = ZERO
    reduce_only: bool = False
    lever: int = 0
    last: Fill | None = None
    cancel_source: str = ""
    category: str = "normal"
    stp_mode: str = "cancel_maker"
    held: Decimal = ZERO  # funds kept aside for what is still at work
    created_ms: int
    updated_ms: int

    @property
    def open(self) -> bool:
        return self.state in ("live", "partially_filled")

    @property
    def held_ccy(self) -> str:
        if self.listing.spot:
            return self.listing.quote if self.side is Side.BUY else self.listing.base
        return self.listing.fill_currency

    @property
    def avg_px(self) -> Decimal | None:
        if not self.filled:
            return None
        units = self.filled * self.listing.multiplier
        return fine(units / self.worth if self.listing.inverse else self.worth / units)


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """One net position; `quantity` is signed."""

    pos_id: int
    listing: Listing
    mode: str
    quantity: Decimal = ZERO
    avg_px: Decimal = ZERO
    lever: int
    trade_id: int = 0
    pnl: Decimal = ZERO
    fee: Decimal = ZERO
    funding: Decimal = ZERO
    created_ms: int
    updated_ms: int


class Cash(msgspec.Struct, frozen=True):
    amount: Decimal
    updated_ms: int


PositionKey = tuple[str, str]


class View(msgspec.Struct, frozen=True):
    """A customer's state at an instant."""

    orders: Mapping[int, Order]
    fills: Sequence[Fill]
    bills: Sequence[Bill]
    positions: Mapping[PositionKey, Position]
    cash: Mapping[str, Cash]


class Customer:
    """One account of the venue and everything in it."""

    def __init__(self, name: str, uid: str, api_key: str, secret: str, passphrase: str) -> None:
        self.name, self.uid = name, uid
        self.api_key, self.secret, self.passphrase = api_key, secret, passphrase
        self.orders: dict[int, Order] = {}
        self.open: dict[int, None] = {}
        self.open_by_client_id: dict[str, int] = {}
        self.latest_by_client_id: dict[str, int] = {}
        self.fills: list[Fill] = []
        self.bills: list[Bill] = []
        self.positions: dict[PositionKey, Position] = {}
        self.cash: dict[str, Cash] = {}
        self.held: dict[str, Decimal] = {}
        self.levers: dict[tuple[str, str], int] = {}
        self.timers: dict[str, int] = {}  # cancel-all-after: tag -> when
        self._before: deque[tuple[int, dict[Any, Any], Any, Any]] = deque()

    def __repr__(self) -> str:
        return f"Customer({self.name})"

    def put_order(self, order: Order) -> None:
        before = self.orders.get(order.ord_id)
        self._remember(order.updated_ms, self.orders, order.ord_id)
        self.orders[order.ord_id] = order
        ccy = order.held_ccy
        self.held[ccy] = self.held.get(ccy, ZERO) + order.held - (before.held if before else ZERO)
        if order.cl_ord_id and before is None:
            self.latest_by_client_id[order.cl_ord_id] = order.ord_id
        if order.open:
            self.open[order.ord_id] = None
            if order.cl_ord_id:
                self.open_by_client_id[order.cl_ord_id] = order.ord_id
        elif self.open.pop(order.ord_id, 0) is None:
            self.open_by_client_id.pop(order.cl_ord_id, None)

    def put_position(self, position: Position) -> None:
        key = (position.listing.inst_id, position.mode)
        self._remember(position.updated_ms, self.positions, key)
        self.positions[key] = position

    def put_cash(self, ccy: str, amount: Decimal, now_ms: int) -> None:
        self._remember(now_ms, self.cash, ccy)
        self.cash[ccy] = Cash(amount, now_ms)

    def balance(self, ccy: str) -> Decimal:
        held = self.cash.get(ccy)
        return held.amount if held else ZERO

    def position(self, inst_id: str, mode: str) -> Decimal:
        held = self.positions.get((inst_id, mode))
        return held.quantity if held else ZERO

    def order(self, ord_id: str, cl_ord_id: str) -> Order | None:
        """By either id; the venue's goes first, a client id means the latest order with it (dossier §5.3)."""
        if ord_id:
            return self.orders.get(int(ord_id)) if ord_id.isdecimal() else None
        return self.orders.get(self.latest_by_client_id.get(cl_ord_id, 0))

    def available(self, ccy: str, marks: Mapping[str, Decimal]) -> Decimal:
        free = self.balance(ccy) + min(ZERO, unrealised(self.positions, ccy, marks))
        free -= margin(self.positions, ccy, marks)
        return free - self.held.get(ccy, ZERO)

    def lever(self, listing: Listing, mode: str, default: int) -> int:
        """Leverage is per family in cross mode and per product in isolated mode (dossier §6.4)."""
        return self.levers.get((listing.family if mode == "cross" else listing.inst_id, mode), default)

    def view(self, at_ms: int | None = None) -> View:
        """As it is, or as it was at `at_ms` (a few seconds back at most)."""
        if at_ms is None:
            return View(self.orders, self.fills, self.bills, self.positions, self.cash)
        tables: list[dict[Any, Any]] = [self.orders, self.positions, self.cash]
        past = {id(table): dict(table) for table in tables}
        for changed_ms, table, key, before in reversed(self._before):
            if changed_ms <= at_ms:
                break
            if before is None:
                past[id(table)].pop(key, None)
            else:
                past[id(table)][key] = before
        return View(
            past[id(self.orders)],
            [fill for fill in self.fills if fill.at_ms <= at_ms],
            [bill for bill in self.bills if bill.at_ms <= at_ms],
            past[id(self.positions)],
            past[id(self.cash)],
        )

    def _remember(self, now_ms: int, table: dict[Any, Any], key: Any) -> None:
        self._before.append((now_ms, table, key, table.get(key)))
        while self._before[0][0] < now_ms - _KEPT_MS:
            self._before.popleft()


def unrealised(positions: Mapping[PositionKey, Position], ccy: str, marks: Mapping[str, Decimal]) -> Decimal:
    """What the positions settled in `ccy` would gain at the marks."""
    return sum((p.listing.gain(p.quantity, p.avg_px, marks[p.listing.inst_id]) for p in _live(positions, ccy)), ZERO)


def margin(positions: Mapping[PositionKey, Position], ccy: str, marks: Mapping[str, Decimal]) -> Decimal:
    """Initial margin of the positions settled in `ccy`."""
    live = _live(positions, ccy)
    return sum((p.listing.value(abs(p.quantity), marks[p.listing.inst_id]) / p.lever for p in live), ZERO)


def _live(positions: Mapping[PositionKey, Position], ccy: str) -> list[Position]:
    return [p for p in positions.values() if p.quantity and p.listing.fill_currency == ccy]
