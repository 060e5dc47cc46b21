"""Decides. What the OKX front pushes to whom: subscriptions, snapshots, updates (OKX dossier §2.5, §3, §4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from engine.core.facts import Side
from engine.core.venue import Faults
from engine.venues.okx.front_reads import Reads
from engine.venues.okx.front_rows import (
    Valuation,
    balance_row,
    position_row,
    quick_fill_row,
    short_position_row,
    text,
    told_row,
)
from engine.venues.okx.front_rules import Listing, Rules, Turned
from engine.venues.okx.front_state import Customer, Position, PositionKey
from engine.venues.okx.front_trading import OrderTold, StateTold, Trading

PUBLIC, PRIVATE, BUSINESS = "/ws/v5/public", "/ws/v5/private", "/ws/v5/business"

# channel -> (path, must log in, parameters it must have)
CHANNELS: dict[str, tuple[str, bool, tuple[str, ...]]] = {
    "orders": (PRIVATE, True, ("instType",)),
    "positions": (PRIVATE, True, ("instType",)),
    "balance_and_position": (PRIVATE, True, ()),
    "account": (PRIVATE, True, ()),
    "fills": (PRIVATE, True, ()),
    "liquidation-warning": (PRIVATE, True, ("instType",)),
    "orders-algo": (BUSINESS, True, ("instType",)),
    "algo-advance": (BUSINESS, True, ("instType",)),
    "tickers": (PUBLIC, False, ("instId",)),
    "mark-price": (PUBLIC, False, ("instId",)),
    "bbo-tbt": (PUBLIC, False, ("instId",)),
    "instruments": (PUBLIC, False, ("instType",)),
    "status": (PUBLIC, False, ()),
}
COUNTED = frozenset({"orders", "positions", "balance_and_position", "account", "liquidation-warning"})
_REGULAR = {"0": 0, "2000": 2000, "3000": 3000, "4000": 4000}
_encode = msgspec.json.encode


class Subscription:
    """One argument that one session subscribed to."""

    __slots__ = ("arg", "channel", "customer", "due_ms", "every_ms", "head", "send")

    def __init__(
        self,
        arg: Mapping[str, str],
        customer: Customer | None,
        every_ms: int,
        now_ms: int,
        send: Callable[[bytes, int], None],
    ) -> None:
        self.arg, self.customer, self.send = arg, customer, send
        self.channel = arg["channel"]
        self.every_ms, self.due_ms = every_ms, now_ms + every_ms
        uid = {"uid": customer.uid} if customer else {}
        self.head = b'{"arg":' + _encode({**arg, **uid})

    def wants(self, listing: Listing) -> bool:
        arg = self.arg
        return (
            arg.get("instType", "ANY") in ("ANY", listing.inst_type)
            and arg.get("instId", listing.inst_id) == listing.inst_id
            and arg.get("instFamily", listing.family) == listing.family
        )

    def push(self, rows: Iterable[bytes], now_ms: int, extra: bytes = b"") -> None:
        self.send(self.head + extra + b',"data":[' + b",".join(rows) + b"]}", now_ms)


def arg_key(arg: Mapping[str, Any]) -> tuple[str, ...]:
    """What an argument is recognised by; extraParams does not count."""
    return tuple(str(arg.get(name) or "") for name in ("channel", "instType", "instFamily", "instId", "ccy"))


def regular_ms(arg: Mapping[str, Any], rules: Rules) -> int:
    """How often a state channel repeats itself, from extraParams; 0: never (§3.2)."""
    if arg["channel"] not in ("account", "positions"):
        return 0
    try:
        extra = msgspec.json.decode(arg.get("extraParams") or "{}", type=dict[str, str])
    except (msgspec.DecodeError, TypeError):
        raise Turned("60012", "extraParams") from None
    interval = extra.get("updateInterval")
    if interval is None:
        return rules.regular_push_ms
    if interval not in _REGULAR:
        raise Turned("60012", f"updateInterval {interval}")
    return _REGULAR[interval]


class Channels:
    """Who listens to what, and what they are told."""

    def __init__(self, trading: Trading, reads: Reads, rules: Rules, faults: Faults) -> None:
        self.trading, self.reads, self.rules, self.faults = trading, reads, rules, faults
        self._of: dict[tuple[str, str], dict[Subscription, None]] = {}  # (customer's name or "", channel)
        self._regular: dict[Subscription, None] = {}
        # Changes wait for the aggregation time (§3.2); the wait is always the same, so the first is due first.
        self._changed: dict[str, tuple[int, dict[PositionKey, None], dict[str, None]]] = {}
        self._shown: dict[tuple[str, str], tuple[int, object]] = {}  # (channel, product) -> when and what
        self._public_due: set[str] = set()

    def subscribe(self, subscription: Subscription, now_ms: int) -> None:
        customer = subscription.customer
        name = customer.name if customer else ""
        self._of.setdefault((name, subscription.channel), {})[subscription] = None
        if subscription.every_ms:
            self._regular[subscription] = None

    def unsubscribe(self, subscription: Subscription) -> None:
        name = subscription.customer.name if subscription.customer else ""
        self._of.get((name, subscription.channel), {}).pop(subscription, None)
        self._regular.pop(subscription, None)

    def greet(self, subscription: Subscription, now_ms: int) -> None:
        """The first pushes after an acknowledgement. `orders` and `fills` have none (§3)."""
        match subscription.channel:
            case "positions":
                self._position_snapshot(subscription, now_ms)
            case "account":
                self._account_snapshot(subscription, now_ms)
            case "balance_and_position":
                self._both_snapshot(subscription, now_ms)
            case "tickers" | "mark-price" | "bbo-tbt":
                listing = self.trading.listings[subscription.arg["instId"]]
                subscription.push([_encode(self._public_row(subscription.channel, listing, now_ms))], now_ms)

    def tell(self, now_ms: int) -> None:
        """Push what trading has told since the last time."""
        news = self.trading.told
        if news:
            self.trading.told = []
            states: dict[tuple[str, str], list[StateTold]] = {}
            for told in news:
                if isinstance(told, OrderTold):
                    self._tell_order(told, now_ms)
                    self._note_change(told.customer, (), (told.order.held_ccy,), now_ms)
                else:
                    states.setdefault((told.customer.name, told.event), []).append(told)
                    self._note_change(told.customer, told.positions, told.currencies, now_ms)
            for several in states.values():
                self._tell_state(several, now_ms)
        if self.trading.stirred:
            self._public_due |= self.trading.stirred
            self.trading.stirred.clear()

    def tick(self, now_ms: int) -> None:
        while self._changed:
            name, (due_ms, positions, currencies) = next(iter(self._changed.items()))
            if due_ms > now_ms:
                break
            del self._changed[name]
            self._tell_changes(self.trading.customers[name], positions, currencies, now_ms)
        if self._public_due:
            self._tell_public(now_ms)

    def regular(self, now_ms: int) -> None:
        """Repeat the state channels that repeat themselves, and marks that have stood still for long."""
        for subscription in list(self._regular):
            if subscription.due_ms <= now_ms:
                subscription.due_ms = now_ms + subscription.every_ms
                if subscription.channel == "positions":
                    self._position_snapshot(subscription, now_ms)
                else:
                    self._account_snapshot(subscription, now_ms)
        for subscription in list(self._of.get(("", "mark-price"), ())):
            product = subscription.arg["instId"]
            shown_ms, _ = self._shown.get(("mark-price", product), (0, None))
            if now_ms - shown_ms >= self.rules.mark_idle_ms:
                self._shown.pop(("mark-price", product), None)
                self._public_due.add(product)

    # ---- Orders and fills

    def _tell_order(self, told: OrderTold, now_ms: int) -> None:
        name, listing = told.customer.name, told.order.listing
        listeners = [s for s in self._of.get((name, "orders"), ()) if s.wants(listing)]
        if listeners:
            last, mark = self.trading.exchange.books[listing.inst_id].last, self._mark(listing)
            row = _encode(told_row(told, last, mark))
            for subscription in listeners:
                subscription.push((row,), now_ms)
            if self.faults.strikes("duplicate", name, now_ms):
                again = _encode(told_row(told, last, mark, later_ms=1))
                for subscription in listeners:
                    subscription.push((again,), now_ms)
        if told.fill is not None:
            for subscription in self._of.get((name, "fills"), ()):
                if subscription.wants(listing):
                    subscription.push((_encode(quick_fill_row(told.fill)),), now_ms)

    # ---- Positions and cash

    def _note_change(
        self,
        customer: Customer,
        positions: Sequence[PositionKey],
        currencies: Sequence[str],
        now_ms: int,
    ) -> None:
        if not self._of.get((customer.name, "positions")) and not self._of.get((customer.name, "account")):
            return
        fresh: tuple[int, dict[PositionKey, None], dict[str, None]] = (now_ms + self.rules.aggregation_ms, {}, {})
        _, changed, currencies_changed = self._changed.setdefault(customer.name, fresh)
        changed.update(dict.fromkeys(positions))
        currencies_changed.update(dict.fromkeys(currencies))

    def _tell_changes(
        self,
        customer: Customer,
        keys: Iterable[PositionKey],
        currencies: Iterable[str],
        now_ms: int,
    ) -> None:
        extra = b',"eventType":"event_update"'
        changed = [customer.positions[key] for key in keys]
        for subscription in self._of.get((customer.name, "positions"), ()):
            rows = [self._position_row(p, now_ms) for p in changed if subscription.wants(p.listing)]
            if rows:
                subscription.push(map(_encode, rows), now_ms, extra)
        for subscription in self._of.get((customer.name, "account"), ()):
            ccy = subscription.arg.get("ccy")
            some = [c for c in currencies if not ccy or c == ccy]
            if some:
                row = self._valuation().account_row(customer, customer.view(), some, now_ms)
                subscription.push((_encode(row),), now_ms, extra)

    def _tell_state(self, several: Sequence[StateTold], now_ms: int) -> None:
        customer, event = several[0].customer, several[0].event
        listeners = self._of.get((customer.name, "balance_and_position"), ())
        if not listeners:
            return
        currencies = dict.fromkeys(c for told in several for c in told.currencies)
        keys = dict.fromkeys(k for told in several for k in told.positions)
        row = {
            "pTime": str(now_ms),
            "eventType": event,
            "balData": [balance_row(c, customer.cash[c]) for c in currencies],
            "posData": [short_position_row(customer.positions[k]) for k in keys],
            "trades": [{"instId": i, "tradeId": str(t)} for told in several for i, t in told.trades],
            "fieldOfTomorrow": "",
        }
        encoded = _encode(row)
        for subscription in listeners:
            subscription.push((encoded,), now_ms)

    def _position_snapshot(self, subscription: Subscription, now_ms: int) -> None:
        customer = subscription.customer
        assert customer is not None, "state channels are subscribed to after a login"
        held = [p for p in customer.positions.values() if p.quantity and subscription.wants(p.listing)]
        rows = [_encode(self._position_row(p, now_ms)) for p in held]
        self._pages(subscription, rows, now_ms)

    def _account_snapshot(self, subscription: Subscription, now_ms: int) -> None:
        customer = subscription.customer
        assert customer is not None, "state channels are subscribed to after a login"
        ccy = subscription.arg.get("ccy")
        some = [c for c, held in customer.cash.items() if held.amount and (not ccy or c == ccy)]
        pages = [some[i : i + self.rules.snapshot_rows] for i in range(0, len(some), self.rules.snapshot_rows)] or [[]]
        view, valuation = customer.view(), self._valuation()
        for number, page in enumerate(pages, start=1):
            row = valuation.account_row(customer, view, page, now_ms)
            subscription.push((_encode(row),), now_ms, _page_mark(number, number == len(pages)))

    def _both_snapshot(self, subscription: Subscription, now_ms: int) -> None:
        customer = subscription.customer
        assert customer is not None, "state channels are subscribed to after a login"
        row = {
            "pTime": str(now_ms),
            "eventType": "snapshot",
            "balData": [balance_row(c, held) for c, held in customer.cash.items() if held.amount],
            "posData": [short_position_row(p) for p in customer.positions.values() if p.quantity],
        }
        subscription.push((_encode(row),), now_ms)

    def _pages(self, subscription: Subscription, rows: Sequence[bytes], now_ms: int) -> None:
        size = self.rules.snapshot_rows
        pages = [rows[i : i + size] for i in range(0, len(rows), size)] or [[]]
        for number, page in enumerate(pages, start=1):
            subscription.push(page, now_ms, _page_mark(number, number == len(pages)))

    def _position_row(self, position: Position, now_ms: int) -> dict[str, Any]:
        listing = position.listing
        last = self.trading.exchange.books[listing.inst_id].last
        return position_row(position, self._mark(listing), last, now_ms)

    # ---- Prices

    def _tell_public(self, now_ms: int) -> None:
        """Push prices that have changed, each no more often than its channel may (§4)."""
        waiting: set[str] = set()
        for product in self._public_due:
            listing = self.trading.listings[product]
            for channel, least_ms in (("tickers", self.rules.ticker_ms), ("mark-price", 200), ("bbo-tbt", 10)):
                listeners = [s for s in self._of.get(("", channel), ()) if s.arg["instId"] == product]
                if not listeners:
                    continue
                shown_ms, shown = self._shown.get((channel, product), (0, None))
                if now_ms - shown_ms < least_ms:
                    waiting.add(product)
                    continue
                row = self._public_row(channel, listing, now_ms)
                news = [v for k, v in row.items() if k not in ("ts", "seqId")]
                if news == shown:
                    continue
                self._shown[channel, product] = (now_ms, news)
                encoded = _encode(row)
                for subscription in listeners:
                    subscription.push((encoded,), now_ms)
        self._public_due = waiting

    def _public_row(self, channel: str, listing: Listing, now_ms: int) -> dict[str, Any]:
        match channel:
            case "tickers":
                return self.reads.ticker_row(listing, now_ms)
            case "mark-price":
                mark = text(self._mark(listing))
                return {
                    "instType": listing.inst_type,
                    "instId": listing.inst_id,
                    "markPx": mark,
                    "ts": str(now_ms),
                    "fieldOfTomorrow": "",
                }
            case _:
                book = self.trading.exchange.books[listing.inst_id]

                def level(side: Side) -> list[list[str]]:
                    best = book.at_best(side)
                    return [[text(best[0]), text(best[1]), "0", "1"]] if best else []

                return {"asks": level(Side.SELL), "bids": level(Side.BUY), "ts": str(now_ms), "seqId": now_ms}

    def _mark(self, listing: Listing) -> Decimal:
        return self.trading.exchange.marks[listing.inst_id]

    def _valuation(self) -> Valuation:
        return Valuation(self.trading.exchange.marks, self.trading.listings.values())


def _page_mark(number: int, last: bool) -> bytes:
    return b',"eventType":"snapshot","curPage":%d,"lastPage":%s' % (number, b"true" if last else b"false")
