"""Decides. MarketDataStream of the T-Invest front: subscriptions, books, trades, candles, statuses (dossier §3.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any

from engine.core.facts import Side
from engine.core.matching import Exchange
from engine.core.venue import Sent
from engine.venues.tinvest import front_rows as rows
from engine.venues.tinvest.front_rules import MINUTE_MS, Listing, Rules, Turned
from engine.venues.tinvest.front_trading import Trading

_KINDS = {
    "subscribeLastPriceRequest": ("subscribeLastPriceResponse", "lastPriceSubscriptions"),
    "subscribeTradesRequest": ("subscribeTradesResponse", "tradeSubscriptions"),
    "subscribeOrderBookRequest": ("subscribeOrderBookResponse", "orderBookSubscriptions"),
    "subscribeCandlesRequest": ("subscribeCandlesResponse", "candlesSubscriptions"),
    "subscribeInfoRequest": ("subscribeInfoResponse", "infoSubscriptions"),
}
_OTHERS = {"ping", "pingSettings", "getMySubscriptions"}
_DEPTHS = (1, 10, 20, 30, 40, 50)
_MOST = 300
_EVERY_MS = 100

Row = dict[str, Any]


class _Candle:
    def __init__(self, begins_ms: int, price: Decimal) -> None:
        self.begins_ms, self.open, self.high, self.low, self.close = begins_ms, price, price, price, price
        self.volume = Decimal(0)
        self.last_ms = begins_ms


class MarketDesk:
    def __init__(
        self, trading: Trading, exchange: Exchange, rules: Rules, send: Callable[[Any, Sent, Row, str], None]
    ) -> None:
        self.trading, self.exchange, self.rules, self._send = trading, exchange, rules, send
        self._candles: dict[str, _Candle] = {}
        self._last: dict[str, tuple[Decimal, int]] = {}
        self._stirred: set[str] = set()
        self._told_ms = 0
        self._ids = 0

    # ---- Requests

    def hear(self, session: Any, asked: Row, now_ms: int) -> None:
        members = [name for name in asked if name in _KINDS or name in _OTHERS]
        if len(asked) != 1 or len(members) != 1:
            raise Turned("30102", "one member of the request is set, no more and no less")
        session.started = True
        member, body = members[0], asked[members[0]] or {}
        if member == "ping":
            ping = {"time": rows.stamp(now_ms), "streamId": session.stream_id, "pingRequestTime": body.get("time")}
            self._send(session, Sent.PONG, {"ping": ping}, "")
        elif member == "pingSettings":
            session.ping_ms = max(5_000, min(180_000, int(body.get("pingDelayMs") or self.rules.ping_ms)))
        elif member == "getMySubscriptions":
            for request, (response, list_name) in _KINDS.items():
                mine = [self._ack_row(session, x, "SUCCESS") for (r, x) in session.subscriptions if r == request]
                if mine:
                    self._send(session, Sent.SAID, {response: {"trackingId": "mine", list_name: mine}}, "")
        else:
            self._subscribe(session, member, body, now_ms)

    def _subscribe(self, session: Any, member: str, body: Row, now_ms: int) -> None:
        action = str(body.get("subscriptionAction") or "")
        if action not in ("SUBSCRIPTION_ACTION_SUBSCRIBE", "SUBSCRIPTION_ACTION_UNSUBSCRIBE"):
            raise Turned("30102", f"unknown enum value {action!r}"[:100])
        session.requests = [ms for ms in session.requests if now_ms - ms < MINUTE_MS]
        session.requests.append(now_ms)
        too_many = self.rules.limits and len(session.requests) > self.rules.requests_per_minute
        interest = bool(body.get("withOpenInterest"))
        acks, fresh = list[Row](), list[Listing]()
        for wanted in body.get("instruments") or ():
            listing = self._listing(str(wanted.get("instrumentId") or wanted.get("figi") or ""))
            key = (member, listing)
            if too_many:
                status = "TOO_MANY_REQUESTS"
            elif listing is None:
                acks.append(self._ack_unknown(wanted))
                continue
            elif action.endswith("UNSUBSCRIBE"):
                status = "SUCCESS" if session.subscriptions.pop(key, None) else "SUBSCRIPTION_NOT_FOUND"
            elif member == "subscribeOrderBookRequest" and wanted.get("depth") not in _DEPTHS:
                status = "DEPTH_IS_INVALID"
            elif member == "subscribeCandlesRequest" and wanted.get("interval") not in (
                1,
                "SUBSCRIPTION_INTERVAL_ONE_MINUTE",
            ):
                status = "INTERVAL_IS_INVALID"
            elif len(session.subscriptions) >= _MOST:
                status = "LIMIT_IS_EXCEEDED"
            else:
                status = "SUCCESS"
                session.subscriptions[key] = {**wanted, "withOpenInterest": interest}
                fresh.append(listing)
            acks.append(self._ack_row(session, listing, status) if listing else self._ack_unknown(wanted))
        response, list_name = _KINDS[member]
        session.empty_since_ms = None if session.subscriptions else now_ms
        self._ids += 1
        self._send(session, Sent.SAID, {response: {"trackingId": f"{self._ids:08x}", list_name: acks}}, "")
        for listing in fresh:
            self._first(session, member, listing, now_ms)

    def _listing(self, text: str) -> Listing | None:
        for x in self.trading.listings.values():
            if text in (x.uid, x.figi, f"{x.ticker}_{x.class_code}"):
                return x
        return None

    def _ack_row(self, session: Any, listing: Listing, status: str) -> Row:
        return {
            "figi": listing.figi,
            "subscriptionStatus": f"SUBSCRIPTION_STATUS_{status}",
            "streamId": session.stream_id,
            "subscriptionId": f"sub-{listing.uid}",
            "subscriptionAction": "SUBSCRIPTION_ACTION_SUBSCRIBE",
            **rows.names_of(listing),
        }

    def _ack_unknown(self, wanted: Row) -> Row:
        """It is named as it was asked for, as far as that goes."""
        text = str(wanted.get("instrumentId") or "")
        ticker, _, board = text.rpartition("_")
        named = {"ticker": ticker, "classCode": board} if ticker else {"instrumentUid": text}
        return {"figi": "", "subscriptionStatus": "SUBSCRIPTION_STATUS_INSTRUMENT_NOT_FOUND", **named}

    def _first(self, session: Any, member: str, listing: Listing, now_ms: int) -> None:
        """What is known already is told at once."""
        if member == "subscribeLastPriceRequest":
            self._push(session, {"lastPrice": self._last_price(listing, now_ms)})
        elif member == "subscribeOrderBookRequest":
            self._push(session, {"orderbook": self._book(session, listing, now_ms)})
        elif member == "subscribeInfoRequest":
            status = {
                "figi": listing.figi,
                "tradingStatus": "SECURITY_TRADING_STATUS_NORMAL_TRADING",
                "time": rows.stamp(now_ms),
                "limitOrderAvailableFlag": True,
                "marketOrderAvailableFlag": True,
                **rows.names_of(listing),
            }
            self._push(session, {"tradingStatus": status})
        elif member == "subscribeTradesRequest" and session.subscriptions[member, listing]["withOpenInterest"]:
            interest = {"time": rows.stamp(now_ms), "openInterest": "1200", **rows.names_of(listing)}
            self._push(session, {"openInterest": interest})

    # ---- Pushes

    def _push(self, session: Any, row: Row) -> None:
        self._send(session, Sent.PUSH, row, "")

    def trades(self, now_ms: int, sessions: Sequence[Any]) -> None:
        traded, self.trading.traded = self.trading.traded, []
        self._stirred |= self.trading.stirred
        self.trading.stirred.clear()
        for trade in traded:
            listing = self.trading.listings[trade.symbol]
            self._last[trade.symbol] = trade.price, now_ms
            begins_ms = now_ms - now_ms % MINUTE_MS
            candle = self._candles.get(trade.symbol)
            if candle is None or candle.begins_ms != begins_ms:
                candle = self._candles[trade.symbol] = _Candle(begins_ms, trade.price)
            candle.high, candle.low = max(candle.high, trade.price), min(candle.low, trade.price)
            candle.close, candle.last_ms = trade.price, now_ms
            candle.volume += trade.quantity
            row = {
                "figi": listing.figi,
                "direction": f"TRADE_DIRECTION_{trade.taker_side.name}",
                "price": rows.quotation(trade.price),
                "quantity": rows.whole(trade.quantity),
                "time": rows.stamp(now_ms),
                "tradeSource": "TRADE_SOURCE_EXCHANGE",
                **rows.names_of(listing),
            }
            for session in sessions:
                if ("subscribeTradesRequest", listing) in session.subscriptions:
                    self._push(session, {"trade": row})
                if ("subscribeLastPriceRequest", listing) in session.subscriptions:
                    self._push(session, {"lastPrice": self._last_price(listing, now_ms)})

    def regular(self, now_ms: int, sessions: Sequence[Any]) -> None:
        """Books and candles are told at most ten times a second."""
        if now_ms - self._told_ms < _EVERY_MS or not self._stirred:
            return
        self._told_ms, stirred = now_ms, sorted(self._stirred)
        self._stirred = set()
        for ticker in stirred:
            listing = self.trading.listings[ticker]
            for session in sessions:
                if ("subscribeOrderBookRequest", listing) in session.subscriptions:
                    self._push(session, {"orderbook": self._book(session, listing, now_ms)})
                if ("subscribeCandlesRequest", listing) in session.subscriptions and ticker in self._candles:
                    self._push(session, {"candle": self._candle(listing)})

    def _last_price(self, listing: Listing, now_ms: int) -> Row:
        price, at_ms = self._last.get(listing.ticker, (self.exchange.marks[listing.ticker], now_ms))
        return {
            "figi": listing.figi,
            "price": rows.quotation(price),
            "time": rows.stamp(at_ms),
            **rows.names_of(listing),
            "lastPriceType": "LAST_PRICE_EXCHANGE",
        }

    def _book(self, session: Any, listing: Listing, now_ms: int) -> Row:
        depth = int(session.subscriptions["subscribeOrderBookRequest", listing].get("depth") or 1)
        mark = self.exchange.marks[listing.ticker]
        return {
            "figi": listing.figi,
            "depth": depth,
            "isConsistent": True,
            "bids": self._levels(listing, Side.BUY, depth),
            "asks": self._levels(listing, Side.SELL, depth),
            "time": rows.stamp(now_ms),
            "limitUp": rows.quotation(mark * Decimal("1.2")),
            "limitDown": rows.quotation(mark * Decimal("0.8")),
            "orderBookType": "ORDERBOOK_TYPE_EXCHANGE",
            **rows.names_of(listing),
        }

    def _levels(self, listing: Listing, side: Side, depth: int) -> list[Row]:
        levels: dict[Decimal, Decimal] = {}
        for resting in self.exchange.books[listing.ticker].resting(side):
            if resting.price not in levels and len(levels) == depth:
                break
            levels[resting.price] = levels.get(resting.price, Decimal(0)) + resting.remaining
        return [
            {"price": rows.quotation(price), "quantity": rows.whole(lots)}
            for price, lots in islice(levels.items(), depth)
        ]

    def _candle(self, listing: Listing) -> Row:
        candle = self._candles[listing.ticker]
        return {
            "figi": listing.figi,
            "interval": "SUBSCRIPTION_INTERVAL_ONE_MINUTE",
            "open": rows.quotation(candle.open),
            "high": rows.quotation(candle.high),
            "low": rows.quotation(candle.low),
            "close": rows.quotation(candle.close),
            "volume": rows.whole(candle.volume),
            "time": rows.stamp(candle.begins_ms),
            "lastTradeTs": rows.stamp(candle.last_ms),
            **rows.names_of(listing),
            "candleSourceType": "CANDLE_SOURCE_EXCHANGE",
        }
