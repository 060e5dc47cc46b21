"""Decides. What the exchange knows of each thing that it lists: the day's figures, bars, and what they were before."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from engine.core.facts import Side
from engine.core.matching import Exchange, Trade
from engine.venues.issplus.front_rules import LISTINGS, Listing

MINUTE_MS = 60_000
_EARLIER = 600  # minutes of history that there are from the beginning
_MOST_BARS = 6000
_SEEN_EVERY_MS = 1000
_SHOWN_LATE = 60  # minutes before the beginning that can be shown
_SEEN = 1800  # what guests are shown late
_MOSCOW_MS = 3 * 3_600_000

Row = dict[str, Any]
"""Decimals are what the exchange calls fixed."""


class Bar(msgspec.Struct):
    begin_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    value: Decimal
    volume: int  # pieces, or contracts


class Ticker:
    """One listing's day."""

    def __init__(self, listing: Listing, exchange: Exchange, seed: int, now_ms: int) -> None:
        self.listing, self.book = listing, exchange.books[listing.ticker]
        self._marks = exchange.marks
        self.trades = self.version = 0  # the version grows with everything that happens
        self.volume, self.value = 0, Decimal(0)
        self.bars: list[Bar] = []
        self.dealt_ms = now_ms
        self.last = self.open = self.high = self.low = self.previous = listing.start
        self._earlier(random.Random(f"issplus bars {listing.ticker} {seed}"), now_ms)
        self.seen: deque[tuple[int, Row]] = deque(maxlen=_SEEN)
        for bar in self.bars[-_SHOWN_LATE:]:
            ended_ms = bar.begin_ms + MINUTE_MS - 1000
            quotes = {"BID": bar.close - listing.tick, "OFFER": bar.close + listing.tick, "LAST": bar.close}
            self.seen.append((ended_ms, {**self.row(now_ms), **quotes, "TIME": clock(ended_ms)}))

    def _earlier(self, chance: random.Random, now_ms: int) -> None:
        """Bars that lead to the opening price."""
        begin_ms, price = now_ms - now_ms % MINUTE_MS, self.listing.start
        for _ in range(_EARLIER):
            begin_ms -= MINUTE_MS
            step = self.listing.tick * chance.randrange(-3, 4)
            opened = max(self.listing.tick, price - step)
            volume = chance.randrange(1, 50) * self.listing.lot
            self.bars.append(
                Bar(begin_ms, opened, max(opened, price), min(opened, price), price, volume * price, volume)
            )
            price = opened
        self.bars.reverse()
        self.previous = self.bars[0].open

    def book_trade(self, trade: Trade, now_ms: int) -> None:
        pieces = int(trade.quantity) * self.listing.lot
        self.last, self.dealt_ms = trade.price, now_ms
        self.high, self.low = max(self.high, trade.price), min(self.low, trade.price)
        self.trades, self.volume, self.value = self.trades + 1, self.volume + pieces, self.value + trade.price * pieces
        begin_ms = now_ms - now_ms % MINUTE_MS
        if self.bars[-1].begin_ms != begin_ms:
            self.bars.append(Bar(begin_ms, trade.price, trade.price, trade.price, trade.price, Decimal(0), 0))
            del self.bars[:-_MOST_BARS]
        bar = self.bars[-1]
        bar.high, bar.low, bar.close = max(bar.high, trade.price), min(bar.low, trade.price), trade.price
        bar.value, bar.volume = bar.value + trade.price * pieces, bar.volume + pieces

    def row(self, now_ms: int) -> Row:
        """All columns of its `securities`."""
        listing, book = self.listing, self.book
        row: Row = {
            "TICKER": listing.ticker,
            "CAPTION": listing.caption,
            "LAST": self.last if self.trades else None,
            "CHANGE": self.last - self.previous,
            "BID": book.best(Side.BUY) or Decimal(0),
            "OFFER": book.best(Side.SELL) or Decimal(0),
            "HIGH": self.high,
            "LOW": self.low,
            "BIDDEPTHT": sum(int(r.remaining) for r in book.resting(Side.BUY)),
            "OFFERDEPTHT": sum(int(r.remaining) for r in book.resting(Side.SELL)),
            "VOLTODAY": self.volume,
            "VALTODAY": int(self.value),
            "NUMTRADES": self.trades,
            "PREVPRICE": self.previous,
            "TRADINGSTATUS": "T",
            "TIME": clock(self.dealt_ms),
            "MINSTEP": listing.tick,
        }
        if listing.marketplace != "FORTS":
            row |= {"LCURRENTPRICE": self.last, "STATUS": "A", "LOTSIZE": listing.lot, "CURRENCYID": "SUR"}
        return row

    def remember(self, now_ms: int) -> None:
        if now_ms - self.seen[-1][0] >= _SEEN_EVERY_MS:
            self.seen.append((now_ms, self.row(now_ms)))

    def row_at(self, at_ms: int, now_ms: int) -> Row:
        """As it was at a time, for those who are shown it late."""
        if at_ms >= now_ms:
            return self.row(now_ms)
        return next((row for seen_ms, row in reversed(self.seen) if seen_ms <= at_ms), self.seen[0][1])

    def book_rows(self) -> list[Row]:
        """The whole book, the price ascending."""
        levels: dict[tuple[str, Decimal], int] = {}
        for side, letter in ((Side.BUY, "B"), (Side.SELL, "S")):
            for resting in self.book.resting(side):
                levels[letter, resting.price] = levels.get((letter, resting.price), 0) + int(resting.remaining)
        return [
            {"BUYSELL": letter, "PRICE": price, "QUANTITY": quantity}
            for (letter, price), quantity in sorted(levels.items(), key=lambda level: level[0][1])
        ]

    def candles(self, minutes: int, till_ms: int, most: int = _MOST_BARS) -> list[Bar]:
        """The last bars of a length, from what there is of minutes that began before `till_ms`."""
        made: list[Bar] = []
        for bar in self.bars[-minutes * (most + 1) :]:
            if bar.begin_ms >= till_ms:
                break
            length_ms = minutes * MINUTE_MS
            begin_ms = bar.begin_ms - (bar.begin_ms + _MOSCOW_MS) % length_ms
            if not made or made[-1].begin_ms != begin_ms:
                made.append(msgspec.structs.replace(bar, begin_ms=begin_ms))
                continue
            whole = made[-1]
            whole.high, whole.low, whole.close = max(whole.high, bar.high), min(whole.low, bar.low), bar.close
            whole.value, whole.volume = whole.value + bar.value, whole.volume + bar.volume
        return made[-most:]


def tickers_of(exchange: Exchange, seed: int, now_ms: int) -> Mapping[str, Ticker]:
    return {listing.ticker: Ticker(listing, exchange, seed, now_ms) for listing in LISTINGS}


def stamp(at_ms: int) -> str:
    """Moscow's time, without saying so."""
    return f"{datetime.fromtimestamp((at_ms + _MOSCOW_MS) / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"


def clock(at_ms: int) -> str:
    return stamp(at_ms)[11:]
