"""Decides. What subscriptions at the ALOR front are told, and when (ALOR dossier §4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from engine.core.venue import Faults
from engine.venues.alor.front_rows import (
    Row,
    book_row,
    formatted,
    money_row,
    num,
    order_row,
    position_row,
    quote_row,
    risk_row,
    security_row,
    stop_row,
    summary_row,
    trade_row,
)
from engine.venues.alor.front_rules import UNREADABLE, Listing, Rules, Turned
from engine.venues.alor.front_state import Customer, Login
from engine.venues.alor.front_trading import HoldingTold, OrderTold, StopTold, TradeTold, Trading

ACCOUNT_KINDS = {
    "OrdersGetAndSubscribeV2": "orders",
    "StopOrdersGetAndSubscribeV2": "stoporders",
    "TradesGetAndSubscribeV2": "trades",
    "PositionsGetAndSubscribeV2": "positions",
    "SummariesGetAndSubscribeV2": "summaries",
    "RisksGetAndSubscribe": "risks",
}
PRICE_KINDS = {
    "QuotesSubscribe": "quotes",
    "OrderBookGetAndSubscribe": "orderbook",
    "BarsGetAndSubscribe": "bars",
    "InstrumentsGetAndSubscribeV2": "instruments",
}
_FLOORS_MS = {"slim": 10, "simple": 25, "heavy": 500}
_MINUTE_S = 60

Send = Callable[[Any, Row, str, int], None]
"""To a session: a row under the identifier of its subscription."""


class Prices:
    """Bars of what the books were worth, a minute each."""

    def __init__(self) -> None:
        self._minutes: dict[str, dict[int, list[Decimal]]] = {}

    def note(self, symbol: str, price: Decimal, now_ms: int) -> None:
        minute = now_ms // 60_000 * _MINUTE_S
        bar = self._minutes.setdefault(symbol, {}).setdefault(minute, [price, price, price, price, Decimal(0)])
        bar[1], bar[2], bar[3] = max(bar[1], price), min(bar[2], price), price
        bar[4] += 1

    def bars(self, symbol: str, interval_s: int, from_s: int, to_s: int) -> list[Row]:
        found: dict[int, list[Decimal]] = {}
        for minute, (first, high, low, last, volume) in sorted(self._minutes.get(symbol, {}).items()):
            begins = minute // interval_s * interval_s
            if not from_s <= begins <= to_s:
                continue
            bar = found.setdefault(begins, [first, high, low, last, Decimal(0)])
            bar[1], bar[2], bar[3] = max(bar[1], high), min(bar[2], low), last
            bar[4] += volume
        names = ("open", "high", "low", "close", "volume")
        return [{"time": t, **dict(zip(names, map(num, bar), strict=True))} for t, bar in found.items()]


class Subscription:
    def __init__(self, session: Any, guid: str, kind: str, said: Mapping[str, Any]) -> None:
        self.session, self.guid, self.kind = session, guid, kind
        self.form = str(said.get("format") or "Simple").lower()
        if self.form not in _FLOORS_MS:
            raise Turned(400, UNREADABLE)
        self.skip = said.get("skipHistory") is True
        statuses = said.get("orderStatuses")
        self.statuses = frozenset(map(str, statuses)) if isinstance(statuses, list) else None
        self.depth = min(50, max(1, int(said.get("depth") or 20)))
        self.every_ms = max(_FLOORS_MS[self.form], int(said.get("frequency") or 175))
        tf = str(said.get("tf") or _MINUTE_S)
        self.interval_s = 86_400 if tf == "D" else int(tf) if tf.isdecimal() and int(tf) else _MINUTE_S
        self.from_s = int(said.get("from") or 0)
        self.customer: Customer | None = None
        self.listing: Listing | None = None
        self.stirred, self.due_ms = False, 0


class Streams:
    def __init__(self, trading: Trading, prices: Prices, rules: Rules, faults: Faults, send: Send) -> None:
        self.trading, self.prices, self.rules, self.faults, self._send = trading, prices, rules, faults, send
        self._of: dict[tuple[str, str], dict[Subscription, None]] = {}  # by customer, or symbol, and kind

    def subscription(self, session: Any, said: Mapping[str, Any], login: Login) -> Subscription:
        """Raises Turned for what nobody may have, or what is not there."""
        opcode = str(said.get("opcode"))
        kind = ACCOUNT_KINDS.get(opcode) or PRICE_KINDS.get(opcode)
        if kind is None:
            raise Turned(400, f"Unknown opcode {opcode[:40]}")
        subscription = Subscription(session, str(said["guid"]), kind, said)
        if opcode in ACCOUNT_KINDS:
            customer = login.customers.get(str(said.get("portfolio")))
            if customer is None or said.get("exchange") != customer.exchange:
                raise Turned(403, "No rights for this portfolio")
            subscription.customer = customer
        else:
            listing = self.trading.listings.get(str(said.get("code")))
            if listing is None or said.get("exchange") != "MOEX":
                raise Turned(404, "No such instrument")
            subscription.listing = listing
        return subscription

    def add(self, subscription: Subscription) -> None:
        self._of.setdefault(_key(subscription), {})[subscription] = None

    def drop(self, subscription: Subscription) -> None:
        self._of.get(_key(subscription), {}).pop(subscription, None)

    def snapshot(self, subscription: Subscription, now_ms: int) -> list[Row]:
        """What there is already, one row for each frame; quotes have no history to skip."""
        if subscription.listing is not None:
            self._push_prices(subscription, now_ms)
            return []
        customer = subscription.customer
        assert customer is not None, "it is an account's or an instrument's"
        return [] if subscription.skip else self._account_rows(subscription, customer, now_ms)

    def _account_rows(self, subscription: Subscription, customer: Customer, now_ms: int) -> list[Row]:
        statuses, session = subscription.statuses, self.trading.session
        match subscription.kind:
            case "orders":
                orders = [o for o in customer.orders.values() if o.session == session or o.open]
                return [order_row(customer, o, True) for o in orders if statuses is None or o.status in statuses]
            case "stoporders":
                stops = [s for s in customer.stops.values() if s.session == session or s.open]
                return [stop_row(customer, s, True) for s in stops if statuses is None or s.status in statuses]
            case "trades":
                return [trade_row(customer, t, True) for t in customer.trades if t.session == session]
            case "positions":
                return self.positions(customer, existing=True)
            case "summaries":
                return [summary_row(customer, self.trading)]
            case _:
                return [risk_row(customer, self.trading, now_ms)]

    def positions(self, customer: Customer, *, existing: bool) -> list[Row]:
        marks, pair_rows = self.trading.exchange.marks, self.rules.pair_rows
        held = [
            position_row(customer, h, marks[symbol], existing, pair_rows=pair_rows)
            for symbol, h in customer.holdings.items()
        ]
        return [*held, money_row(customer, "RUB", customer.cash["RUB"], existing)]

    # ---- Live

    def tell(self, now_ms: int) -> None:
        """Everything that has happened to whoever listens, in its order."""
        told, self.trading.told = self.trading.told, []
        money: dict[str, Customer] = {}
        for event in told:
            customer = event.customer
            match event:
                case OrderTold():
                    self._push(customer, "orders", order_row(customer, event.order, False), now_ms)
                case StopTold():
                    self._push(customer, "stoporders", stop_row(customer, event.stop, False), now_ms)
                case TradeTold():
                    self._push(customer, "trades", trade_row(customer, event.trade, False), now_ms)
                case HoldingTold(symbol="RUB"):
                    money[customer.name] = customer
                case HoldingTold():
                    holding = customer.holdings[event.symbol]
                    mark = self.trading.exchange.marks[event.symbol]
                    row = position_row(customer, holding, mark, False, pair_rows=self.rules.pair_rows)
                    self._push(customer, "positions", row, now_ms)
        for customer in money.values():
            self._push(customer, "positions", money_row(customer, "RUB", customer.cash["RUB"], False), now_ms)
            self._push(customer, "summaries", summary_row(customer, self.trading), now_ms)
            self._push(customer, "risks", risk_row(customer, self.trading, now_ms), now_ms)
        for symbol in self.trading.stirred:
            self.prices.note(symbol, self.trading.exchange.marks[symbol], now_ms)
            for kind in PRICE_KINDS.values():
                for subscription in self._of.get((symbol, kind), ()):
                    subscription.stirred = kind != "instruments"
        self.trading.stirred.clear()

    def tick(self, now_ms: int) -> None:
        """Prices go out no more often than was asked for."""
        for subscriptions in list(self._of.values()):
            for subscription in list(subscriptions):
                if subscription.stirred and now_ms >= subscription.due_ms:
                    self._push_prices(subscription, now_ms)

    def _push_prices(self, subscription: Subscription, now_ms: int) -> None:
        listing, exchange = subscription.listing, self.trading.exchange
        assert listing is not None, "prices are an instrument's"
        subscription.stirred, subscription.due_ms = False, now_ms + subscription.every_ms
        match subscription.kind:
            case "quotes":
                rows = [quote_row(listing, exchange, now_ms)]
            case "orderbook":
                rows = [book_row(listing, exchange, subscription.depth, now_ms, False)]
            case "bars":
                now_s, interval_s = now_ms // 1000, subscription.interval_s
                since_s = min(subscription.from_s, now_s // interval_s * interval_s)  # the bar of now in any case
                rows = self.prices.bars(listing.symbol, interval_s, since_s, now_s)
                subscription.from_s = max([subscription.from_s, *(int(row["time"]) for row in rows)])
            case _:
                rows = [security_row(listing)]
        for row in rows:
            self._send(
                subscription.session, formatted(subscription.kind, row, subscription.form), subscription.guid, now_ms
            )

    def _push(self, customer: Customer, kind: str, row: Row, now_ms: int) -> None:
        for subscription in self._of.get((customer.name, kind), ()):
            frame = formatted(kind, row, subscription.form)
            self._send(subscription.session, frame, subscription.guid, now_ms)
            if kind in ("orders", "trades") and self.faults.strikes("duplicate", customer.name, now_ms):
                self._send(subscription.session, frame, subscription.guid, now_ms)


def _key(subscription: Subscription) -> tuple[str, str]:
    if subscription.customer is not None:
        return subscription.customer.name, subscription.kind
    assert subscription.listing is not None, "it is an account's or an instrument's"
    return subscription.listing.symbol, subscription.kind
