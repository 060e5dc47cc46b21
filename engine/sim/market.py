"""Decides. A seeded price path, and a liquidity maker that quotes along it. Real matching: orders that it meets fill.

Symbols with one path move together, at all venues that are played with one seed. At each step the maker takes off its
old quotes, takes what rests at or beyond the new price, and quotes afresh around it; now and then somebody in the
crowd takes a little from either side.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from decimal import Decimal

from engine.core.facts import Side
from engine.core.matching import Exchange
from engine.core.orders import OrderType
from engine.core.venue import Quoted

MAKER, CROWD = "~maker", "~crowd"

_LEVELS = 5
_DEEP = 10  # the last level holds so much more, for whoever must get through
_SPACING = Decimal("0.0002")  # of the price, between levels
_STEP = 0.0002  # size of one step of the path, as a logarithm
_PULL = 0.001  # how strongly the path is drawn back to where it started
_CROWD_ACTS = 0.5


class Market:
    """Quotes every symbol of an exchange. Whoever owns the exchange's log books what happens."""

    def __init__(self, exchange: Exchange, quoted: Sequence[Quoted], seed: int, every_ms: int = 500) -> None:
        self.exchange, self.every_ms, self.paused = exchange, every_ms, False
        self._quoted = {q.symbol: q for q in quoted}
        self._rng = random.Random(f"market {seed}")
        self._paths = {q.path: 0.0 for q in quoted}  # logarithm of price over start
        self._steps = {path: random.Random(f"path {path} {seed}") for path in self._paths}
        self._quotes: dict[str, list[str]] = {q.symbol: [] for q in quoted}
        self._next_order = 0
        self._due_ms: int | None = None

    def tick(self, now_ms: int) -> bool:
        """Step if it is time; True when the books have changed."""
        if self._due_ms is None:
            self._due_ms = now_ms + self.every_ms
            self._requote_all()
            return True
        if self.paused or now_ms < self._due_ms:
            return False
        self._due_ms = max(self._due_ms + self.every_ms, now_ms)
        for path, level in self._paths.items():
            self._paths[path] = level * (1 - _PULL) + self._steps[path].gauss(0, _STEP)
        self._requote_all()
        for quoted in self._quoted.values():
            if self._rng.random() < _CROWD_ACTS:
                self._crowd(quoted)
        return True

    def price(self, symbol: str) -> Decimal:
        quoted = self._quoted[symbol]
        exact = quoted.start * Decimal(math.exp(self._paths[quoted.path]))
        return max(quoted.tick, exact // quoted.tick * quoted.tick)

    def move_to(self, symbol: str, price: Decimal) -> None:
        """The price jumps, with all symbols of its path; the path goes on from there. ValueError for no price."""
        if not price.is_finite() or price <= 0:
            raise ValueError(f"a price is above zero, not {price}")
        quoted = self._quoted[symbol]
        # A little more, so that rounding down to the tick gives the price that was asked for.
        finest = min(q.tick for q in self._quoted.values() if q.path == quoted.path)
        aimed = price + finest / 2
        self._paths[quoted.path] = math.log(aimed / quoted.start)
        self._requote_all(quoted.path)

    def move_by(self, symbol: str, percent: Decimal) -> None:
        self.move_to(symbol, self.price(symbol) * (1 + percent / 100))

    def _requote_all(self, path: str | None = None) -> None:
        for quoted in self._quoted.values():
            if path in (None, quoted.path):
                self._requote(quoted, self.price(quoted.symbol))

    def _requote(self, quoted: Quoted, price: Decimal) -> None:
        symbol, book = quoted.symbol, self.exchange.books[quoted.symbol]
        self.exchange.marks[symbol] = price
        for order_id in self._quotes[symbol]:
            book.cancel(order_id)
        for side in Side:
            self._take_what_is_passed(symbol, side, price)
        spacing = max(quoted.tick, price * _SPACING // quoted.tick * quoted.tick)
        quotes = []
        for level in range(1, _LEVELS + 1):
            depth = quoted.depth * (_DEEP if level == _LEVELS else 1)
            for side in Side:
                quote = price - side.sign * spacing * level
                if quote > 0:
                    quotes.append(self._id())
                    book.submit(quotes[-1], MAKER, side, OrderType.LIMIT, depth, quote)
        self._quotes[symbol] = quotes

    def _take_what_is_passed(self, symbol: str, resting_side: Side, price: Decimal) -> None:
        """Whoever bids the price or more, or asks it or less, gets it."""
        book, passed = self.exchange.books[symbol], Decimal(0)
        for resting in book.resting(resting_side):
            if resting.price * resting_side.sign < price * resting_side.sign:
                break
            passed += resting.remaining
        if passed:
            taking = Side.SELL if resting_side is Side.BUY else Side.BUY
            book.submit(self._id(), MAKER, taking, OrderType.IOC, passed, price)

    def _crowd(self, quoted: Quoted) -> None:
        quantity = quoted.depth * self._rng.randrange(1, 6) / 100 // quoted.lot * quoted.lot
        if quantity > 0:
            side = self._rng.choice((Side.BUY, Side.SELL))
            self.exchange.books[quoted.symbol].submit(self._id(), CROWD, side, OrderType.MARKET, quantity)

    def _id(self) -> str:
        self._next_order += 1
        return f"~{self._next_order}"
