"""Decides. MarketDataStream: one socket, all subscriptions, prices out of it. T-Invest dossier §2.5, §3.6.

Channels: `last-price:SBER/RUB`, `orderbook:…` (best prices), `trades:…`, `candles:…` (one minute, the closing price),
`info:…` (trading status, told as words), `open-interest:…` (comes with the trades).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.core import spelling
from engine.core.facts import Fact, MarkFact
from engine.core.venue import (
    Frame,
    Heard,
    Notice,
    Said,
    Trouble,
)
from engine.venues.tinvest.names import ref_of, symbol_for
from engine.venues.tinvest.numbers import Enum, Money, Time, instant, moment, number, word
from engine.venues.tinvest.stream import Envelope, Row, Stream

# channel -> (member of the request, list in its acknowledgement)
_KINDS = {
    "last-price": ("subscribeLastPriceRequest", "last_price_subscriptions"),
    "orderbook": ("subscribeOrderBookRequest", "order_book_subscriptions"),
    "trades": ("subscribeTradesRequest", "trade_subscriptions"),
    "open-interest": ("subscribeTradesRequest", "trade_subscriptions"),
    "candles": ("subscribeCandlesRequest", "candles_subscriptions"),
    "info": ("subscribeInfoRequest", "info_subscriptions"),
}
_BUSY = frozenset({"internal_error", "too_many_requests"})


class _AckRow(Row):
    subscription_status: Enum = None
    subscription_action: Enum = None
    instrument_uid: str | None = None
    ticker: str | None = None
    class_code: str | None = None


class _Ack(Row):
    last_price_subscriptions: list[_AckRow] | None = None
    order_book_subscriptions: list[_AckRow] | None = None
    trade_subscriptions: list[_AckRow] | None = None
    candles_subscriptions: list[_AckRow] | None = None
    info_subscriptions: list[_AckRow] | None = None


class _About(Row):
    instrument_uid: str | None = None
    ticker: str | None = None
    class_code: str | None = None
    time: Time = None


class _Priced(_About):
    price: Money | None = None


class _Level(Row):
    price: Money | None = None


class _Book(_About):
    is_consistent: bool | None = None
    bids: list[_Level] | None = None
    asks: list[_Level] | None = None


class _Candle(_About):
    close: Money | None = None
    last_trade_ts: Time = None


class _TradingStatus(_About):
    trading_status: Enum = None


class _MarketFrame(Envelope):
    last_price: _Priced | None = None
    trade: _Priced | None = None
    orderbook: _Book | None = None
    candle: _Candle | None = None
    trading_status: _TradingStatus | None = None
    open_interest: _About | None = None
    subscribe_last_price_response: _Ack | None = None
    subscribe_order_book_response: _Ack | None = None
    subscribe_trades_response: _Ack | None = None
    subscribe_candles_response: _Ack | None = None
    subscribe_info_response: _Ack | None = None


_frame = msgspec.json.Decoder(_MarketFrame).decode


class MarketTalk(Stream):
    """Prices over one login's socket: many subscriptions, each with an answer of its own."""

    kind = "marketdata"

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        # What was asked for and is not answered yet: by (request, instrument) the channel.
        self._pending: dict[tuple[str, str], str] = {}
        self._names_of: dict[str, str] = {}  # what was subscribed, by uid or TICKER_CLASS
        self._delivered = False

    def open(self, now_ms: int) -> Sequence[Frame]:
        """One request for each kind; the pings are asked for first."""
        super().open(now_ms)
        frames: list[dict[str, object]] = [{"pingSettings": {"pingDelayMs": self.ping_ms}}]
        by_request: dict[str, dict[str, str]] = {}
        interest = False
        for channel in dict.fromkeys(self.channels):
            kind, _, name = channel.partition(":")
            if kind not in _KINDS:
                continue
            request = _KINDS[kind][0]
            interest = interest or kind == "open-interest"
            symbol = self._symbol(name)
            self._names_of[symbol] = name
            by_request.setdefault(request, {}).setdefault(symbol, channel)
        for request, symbols in by_request.items():
            self._pending |= {(request, symbol): channel for symbol, channel in symbols.items()}
            frames.append({request: self._body(request, list(symbols), interest)})
        return [msgspec.json.encode(frame).decode() for frame in frames]

    def beat(self, now_ms: int) -> Sequence[Frame]:
        """This stream alone answers a ping."""
        return (msgspec.json.encode({"ping": {"time": instant(now_ms)}}).decode(),)

    def _symbol(self, name: str) -> str:
        instrument = self.names.listed(name)
        return symbol_for(name) if instrument is None else ref_of(instrument).uid

    def _body(self, request: str, symbols: Sequence[str], interest: bool) -> dict[str, object]:
        more: dict[str, object] = {}
        each: dict[str, object] = {}
        match request:
            case "subscribeOrderBookRequest":
                each = {"depth": int(self.options.get("book_depth", "1"))}
            case "subscribeCandlesRequest":
                each = {"interval": "SUBSCRIPTION_INTERVAL_ONE_MINUTE"}
                more = {"waitingClose": False}
            case "subscribeTradesRequest":
                more = {"withOpenInterest": interest}
        return {
            "subscriptionAction": "SUBSCRIPTION_ACTION_SUBSCRIBE",
            "instruments": [{"instrumentId": symbol, **each} for symbol in symbols],
            **more,
        }

    # ---- Hearing

    def take(self, frame: bytes, now_ms: int) -> Heard:
        found = self.opened(frame, _frame)
        for row, channel in ((found.last_price, "last-price"), (found.trade, "trades")):
            if row is not None:
                return Heard(self._marks(row, [("last", row.price)], row.time, now_ms), channel)
        if (book := found.orderbook) is not None:
            return Heard(self._best(book, now_ms), "orderbook")
        if (candle := found.candle) is not None:
            return Heard(self._marks(candle, [("last", candle.close)], candle.last_trade_ts, now_ms), "candles")
        if (status := found.trading_status) is not None:
            told = f"{self._name(status, now_ms)}: {word(status.trading_status, 'SECURITY_TRADING_STATUS_')}"
            return Heard(channel="info", said=(Said(Notice.INFO, told),))
        if found.open_interest is not None:
            return Heard(channel="open-interest")
        for kind, ack in (
            ("last-price", found.subscribe_last_price_response),
            ("orderbook", found.subscribe_order_book_response),
            ("trades", found.subscribe_trades_response),
            ("candles", found.subscribe_candles_response),
            ("info", found.subscribe_info_response),
        ):
            if ack is not None:
                return self._answered(kind, ack)
        return self.other(found)

    def _name(self, row: _About, now_ms: int) -> str:
        """As it was subscribed: the answer may name it by less than it was asked by."""
        for symbol in (row.instrument_uid, f"{row.ticker}_{row.class_code}"):
            if symbol and symbol in self._names_of:
                return self._names_of[symbol]
        return self.names.known(row.instrument_uid, row.class_code, row.ticker, now_ms).name

    def _marks(
        self, row: _About, prices: Sequence[tuple[str, Money | None]], time: Time, now_ms: int
    ) -> Sequence[Fact]:
        name, at_ms = self._name(row, now_ms), moment(time) or now_ms
        return [
            MarkFact(instrument=name, price=number(price), basis=basis, at_ms=at_ms, market=spelling.MOEX)
            for basis, price in prices
            if number(price)
        ]

    def _best(self, book: _Book, now_ms: int) -> Sequence[Fact]:
        """Each frame is the whole book to its depth; one that the venue itself calls inconsistent tells nothing."""
        if book.is_consistent is False:
            return ()
        bids, asks = book.bids or (), book.asks or ()
        best = [(basis, side[0].price) for basis, side in (("bid", bids), ("ask", asks)) if side]
        return self._marks(book, best, book.time, now_ms)

    def _answered(self, kind: str, ack: _Ack) -> Heard:
        request, list_name = _KINDS[kind]
        said = list[Said]()
        for row in getattr(ack, list_name) or ():
            symbols = (row.instrument_uid or "", f"{row.ticker}_{row.class_code}")
            asked = next((s for s in symbols if (request, s) in self._pending), None)
            if asked is None:
                continue
            status = word(row.subscription_status, "SUBSCRIPTION_STATUS_")
            channel = self._pending.pop((request, asked))
            if status == "success":
                self._delivered = True
                if row.instrument_uid:
                    self._names_of[row.instrument_uid] = self._names_of[asked]
            elif status in _BUSY:
                trouble = Trouble.LIMIT if status == "too_many_requests" else None
                return Heard(said=(Said(Notice.RETRY, f"{channel}: {status}", status, after_s=60.0, trouble=trouble),))
            else:
                said.append(Said(Notice.REFUSED, f"{channel}: {status.replace('_', ' ')}", status))
        if not self._pending and self._delivered and not self.ready:
            self.ready = True
            said.append(Said(Notice.READY))
        return Heard(said=said)
