"""Decides. What the T-Invest front tells on its streams, to whom and when (dossier §2.3–§2.6, §3).

One method a socket. Nothing is said before the first request; pings only where nothing else was said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from engine.core.matching import Exchange
from engine.core.venue import Faults, Sent
from engine.venues.tinvest import front_rows as rows
from engine.venues.tinvest.casing import turned as camel_turned
from engine.venues.tinvest.front_market import MarketDesk
from engine.venues.tinvest.front_rules import Rules, Turned
from engine.venues.tinvest.front_state import NEW, REJECTED, Customer, Stop
from engine.venues.tinvest.front_trading import HoldingsTold, OperationTold, OrderTold, StopTold, Trading

ORDERS, TRADES = "OrdersStreamService/OrderStateStream", "OrdersStreamService/TradesStream"
POSITIONS, PORTFOLIO = "OperationsStreamService/PositionsStream", "OperationsStreamService/PortfolioStream"
OPERATIONS, MARKET = "OperationsStreamService/OperationsStream", "MarketDataStreamService/MarketDataStream"
METHODS = (ORDERS, TRADES, POSITIONS, PORTFOLIO, OPERATIONS, MARKET)
_ACKS = {POSITIONS: "POSITIONS", PORTFOLIO: "PORTFOLIO", OPERATIONS: "OPERATIONS"}
_MEMBERS = {
    ORDERS: {"accounts", "pingDelayMillis"},
    TRADES: {"accounts", "pingDelayMs"},
    POSITIONS: {"accounts", "withInitialPositions", "pingSettings"},
    PORTFOLIO: {"accounts", "pingSettings"},
    OPERATIONS: {"accounts", "pingSettings"},
}

Row = dict[str, Any]


Send = Callable[[Any, Sent, Row, str], None]


class Streams:
    """Requests, acknowledgements and pushes."""

    def __init__(
        self,
        trading: Trading,
        exchange: Exchange,
        rules: Rules,
        faults: Faults,
        send: Send,
        later: Callable[[int, Callable[[int], object]], None],
        sessions: Callable[[str], Sequence[Any]],
    ) -> None:
        self.trading, self.rules, self.faults = trading, rules, faults
        self.market = MarketDesk(trading, exchange, rules, send)
        self._send, self._later, self._sessions = send, later, sessions
        self._ids = 0

    # ---- Requests

    def hear(self, session: Any, frame: bytes, now_ms: int) -> None:
        """Raises Turned for what ends the stream."""
        try:
            decoded = msgspec.json.decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Turned("30102", "the frame is no JSON") from None
        if not isinstance(decoded, dict):
            raise Turned("30102", "the frame is no object")
        asked: Row = camel_turned(decoded)
        if session.method == MARKET:
            self.market.hear(session, asked, now_ms)
            session.accounts = session.accounts or (session.customers[0].name,)
        elif not session.started:
            self._begin(session, asked, now_ms)

    def _begin(self, session: Any, asked: Row, now_ms: int) -> None:
        if not asked.keys() <= _MEMBERS[session.method]:
            raise Turned("30102", f"unknown members {sorted(asked.keys() - _MEMBERS[session.method])}"[:200])
        accounts = asked.get("accounts") or [c.account_id for c in session.customers]
        if not isinstance(accounts, list) or not all(isinstance(a, str) for a in accounts):
            raise Turned("30021", "accounts are texts")
        session.ping_ms = self._ping_ms(session.method, asked)
        mine = {c.account_id: c for c in session.customers}
        unknown = [a for a in accounts if a not in mine]
        found = [mine[a] for a in accounts if a in mine]
        session.started, session.refs = True, frozenset(c.account_id for c in found)
        session.accounts = tuple(c.name for c in found)
        self._ids += 1
        ids = {"trackingId": f"{self._ids:08x}", "streamId": f"s-{self._ids}"}
        if session.method in (ORDERS, TRADES):
            self._acknowledge_together(session, accounts, unknown, ids)
            return
        ack = self._acknowledgement(session.method, accounts, unknown, ids)
        wants = session.method == POSITIONS and bool(asked.get("withInitialPositions"))
        whole = [
            {"initialPositions": rows.positions_row(c, c.view(), list(self.trading.listings.values()))}
            for c in (found if wants else ())
        ]
        frames = [ack, *whole] if self.rules.ack_first else [*whole, ack]
        for row in frames:
            self._send(session, Sent.SAID, row, "")

    def _acknowledge_together(self, session: Any, accounts: list[str], unknown: list[str], ids: Row) -> None:
        if not unknown:
            status: Row = {"status": "RESULT_SUBSCRIPTION_STATUS_OK", "accounts": accounts}
        elif self.rules.unknown_account == "frame":
            session.started, session.refs = False, frozenset()
            raise Turned("50004", f"account {unknown[0]} was not found")
        else:
            error = {"code": "50004", "message": f"account {unknown[0]} was not found"}
            session.refs = frozenset()
            status = {"status": "RESULT_SUBSCRIPTION_STATUS_ERROR", "accounts": [], "error": error}
        self._send(session, Sent.SAID, {"subscription": {**ids, **status}}, "")

    def _acknowledgement(self, method: str, accounts: list[str], unknown: list[str], ids: Row) -> Row:
        prefix = f"{_ACKS[method]}_SUBSCRIPTION_STATUS_"
        if method == OPERATIONS:
            status = "ACCOUNT_NOT_FOUND" if unknown else "SUCCESS"
            return {"subscriptions": {"accounts": accounts, "subscriptionStatus": prefix + status, **ids}}
        each = [
            {
                "accountId": a,
                "subscriptionStatus": prefix + ("ACCOUNT_NOT_FOUND" if a in unknown else "SUCCESS"),
            }
            for a in accounts
        ]
        return {"subscriptions": {"accounts": each, **ids}}

    def _ping_ms(self, method: str, asked: Row) -> int:
        """Each method has a setting of its own (§2.5)."""
        if method == ORDERS:
            given, least, most = asked.get("pingDelayMillis"), 1_000, 120_000
        elif method == TRADES:
            given, least, most = asked.get("pingDelayMs"), 5_000, 180_000
        else:
            given, least, most = (asked.get("pingSettings") or {}).get("pingDelayMs"), 5_000, 180_000
        return self.bounded(given, least, most)

    def bounded(self, given: Any, least: int, most: int) -> int:
        if given is None:
            return self.rules.ping_ms
        if not isinstance(given, int):
            raise Turned("30102", "a ping delay is a number")
        if not least <= given <= most and self.rules.out_of_range == "error":
            raise Turned("30102", "the ping delay is out of range")
        return max(least, min(most, given))

    # ---- Pushes

    def tell(self, now_ms: int) -> None:
        """Everything that has happened, put in order of when it is told."""
        told, self.trading.told = self.trading.told, []
        for one in told:
            match one:
                case OrderTold():
                    self._order(one, now_ms)
                case HoldingsTold():
                    self._holdings(one, now_ms)
                case OperationTold():
                    self._operation(one, now_ms)
                case StopTold(customer, stop):
                    self._push(ORDERS, customer, partial(_stop, customer, stop), now_ms)
        self.market.trades(now_ms, self._sessions(MARKET))

    def _order(self, told: OrderTold, now_ms: int) -> None:
        customer, order = told.customer, told.order
        event = partial(rows.order_event, customer, order, told.latest, self.rules)
        numbered_ms = max(now_ms, order.created_ms + self.rules.number_lag_ms)
        first = order.state == NEW and order.open and order.updated_ms == order.created_ms
        if first or order.state == REJECTED:
            self._push(ORDERS, customer, lambda: {"orderState": event(internal=True)}, now_ms)
        if customer.orders[order.number].state != REJECTED:  # the exchange numbers only what it takes
            self._push(ORDERS, customer, lambda: {"orderState": event(internal=False)}, numbered_ms)
        if told.latest:
            trades = partial(rows.trades_event, customer, order, told.latest, now_ms)
            self._push(TRADES, customer, lambda: {"orderTrades": trades()}, numbered_ms)

    def _holdings(self, told: HoldingsTold, now_ms: int) -> None:
        customer, view, every = told.customer, told.customer.view(), list(self.trading.listings.values())
        listings = [self.trading.listings[t] for t in told.tickers]
        event = partial(rows.position_event, customer, view, told.currencies, listings, now_ms, self.rules)
        self._push(POSITIONS, customer, lambda: {"position": event()}, now_ms + self.rules.positions_lag_ms)
        portfolio = partial(rows.portfolio_row, customer, view, every, self.trading.exchange)
        self._push(PORTFOLIO, customer, lambda: {"portfolio": portfolio()}, now_ms + self.rules.portfolio_lag_ms)

    def _operation(self, told: OperationTold, now_ms: int) -> None:
        event = partial(rows.operation_event, told.customer, told.operation, self.rules, now_ms)
        self._push(OPERATIONS, told.customer, lambda: {"operation": event()}, told.operation.visible_ms)

    def _push(self, method: str, customer: Customer, made: Callable[[], Row], due_ms: int) -> None:
        """To whoever listens when it is due; a stream that is opened later hears nothing of it (§2.3)."""

        def push(at_ms: int) -> None:
            listening = [s for s in self._sessions(method) if customer.account_id in s.refs]
            if not listening:
                return
            row = made()
            for session in listening:
                self._send(session, Sent.PUSH, row, customer.name)
                if method == ORDERS and self.faults.strikes("duplicate", customer.name, at_ms):
                    self._send(session, Sent.PUSH, row, customer.name)

        self._later(due_ms, push)

    def quota(self, open_streams: Mapping[str, int], method: str) -> bool:
        """Is there room for one more?"""
        if method == MARKET:
            limit = self.rules.market_streams
        else:
            limit = self.rules.order_streams if method in (ORDERS, TRADES) else self.rules.operation_streams
        return open_streams.get(method, 0) < limit


def _stop(customer: Customer, stop: Stop) -> Row:
    return {"stopOrderState": rows.stop_event(customer, stop)}
