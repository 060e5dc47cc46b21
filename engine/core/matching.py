"""Decides. Price-time matching of orders, for every simulated venue. Pure: no clock, no chance, no account rules.

A `Book` matches one symbol's orders; an `Exchange` is a set of books that write into one log. What happened is read
from the log, in the order in which it happened. Quantities are in the instrument's venue unit.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum

import msgspec

from engine.core.facts import Side
from engine.core.orders import OrderType

ZERO = Decimal(0)


class SelfTrade(StrEnum):
    """Which of two meeting orders of one owner gives way."""

    CANCEL_MAKER = "cancel_maker"
    CANCEL_TAKER = "cancel_taker"
    CANCEL_BOTH = "cancel_both"


class Why(StrEnum):
    """Why an order ended without being filled."""

    REQUESTED = "requested"
    REMAINDER = "remainder"  # market or ioc: nothing left to meet
    UNFILLABLE = "unfillable"  # fok: the book could not fill all of it
    WOULD_TAKE = "would_take"  # post-only
    SELF_TRADE = "self_trade"


class Trade(msgspec.Struct, frozen=True):
    """One match. `number` ascends within the symbol. The price is always the maker's."""

    symbol: str
    number: int
    price: Decimal
    quantity: Decimal
    taker_side: Side
    taker: str
    taker_owner: str
    maker: str
    maker_owner: str


class Rested(msgspec.Struct, frozen=True):
    """An order, or what is left of it, came to rest in the book."""

    symbol: str
    order_id: str
    owner: str
    remaining: Decimal


class Ended(msgspec.Struct, frozen=True):
    """An order left with `remaining` unfilled. An order that is filled wholly ends with its last Trade instead."""

    symbol: str
    order_id: str
    owner: str
    remaining: Decimal
    why: Why


Event = Trade | Rested | Ended


class Resting:
    """An order at work in a book."""

    __slots__ = ("order_id", "owner", "price", "remaining", "side")

    def __init__(self, order_id: str, owner: str, side: Side, price: Decimal, remaining: Decimal) -> None:
        self.order_id, self.owner, self.side, self.price, self.remaining = order_id, owner, side, price, remaining


class Ladder:
    """One side of a book: price levels, the best first, each in the order of arrival.

    Prices are kept sorted by worth (a buyer's high price and a seller's low one are worth most), the best at the end,
    so that taking the best level off costs nothing.
    """

    __slots__ = ("levels", "side", "worths")

    def __init__(self, side: Side) -> None:
        self.side = side
        self.worths: list[Decimal] = []
        self.levels: dict[Decimal, OrderedDict[str, Resting]] = {}

    def worth(self, price: Decimal) -> Decimal:
        return price if self.side is Side.BUY else -price

    def best(self) -> Decimal | None:
        return self.worth(self.worths[-1]) if self.worths else None

    def add(self, resting: Resting) -> None:
        level = self.levels.get(resting.price)
        if level is None:
            level = self.levels[resting.price] = OrderedDict()
            insort(self.worths, self.worth(resting.price))
        level[resting.order_id] = resting

    def remove(self, resting: Resting) -> None:
        level = self.levels[resting.price]
        del level[resting.order_id]
        if not level:
            del self.levels[resting.price]
            worth = self.worth(resting.price)
            if self.worths[-1] == worth:
                self.worths.pop()
            else:
                del self.worths[bisect_left(self.worths, worth)]

    def first(self) -> Resting | None:
        """The order that a taker meets next."""
        if not self.worths:
            return None
        return next(iter(self.levels[self.worth(self.worths[-1])].values()))

    def acceptable(self, taker_limit: Decimal | None) -> bool:
        """Would a taker with that limit (None: any price) meet the best level?"""
        return bool(self.worths) and (taker_limit is None or self.worths[-1] >= self.worth(taker_limit))

    def __iter__(self) -> Iterator[Resting]:
        for worth in reversed(self.worths):
            yield from self.levels[self.worth(worth)].values()


class Book:
    """One symbol's orders. Every change is told by events in `log`."""

    def __init__(self, symbol: str, log: list[Event]) -> None:
        self.symbol = symbol
        self.last: Decimal | None = None  # price of the last trade
        self.last_quantity = ZERO
        self._log = log
        self._trades = 0
        self._orders: dict[str, Resting] = {}
        self._sides = {Side.BUY: Ladder(Side.BUY), Side.SELL: Ladder(Side.SELL)}

    def submit(
        self,
        order_id: str,
        owner: str,
        side: Side,
        order_type: OrderType,
        quantity: Decimal,
        price: Decimal | None = None,
        self_trade: SelfTrade = SelfTrade.CANCEL_MAKER,
    ) -> None:
        """Match what can be matched, rest what may rest. A market order's `price` is the worst it may pay, or None."""
        assert quantity > 0, "an order has a quantity"
        assert price is not None or order_type is OrderType.MARKET, "only a market order has no price"
        assert order_id not in self._orders, "an order is submitted once"
        if order_type is OrderType.POST_ONLY and self.would_take(side, price):
            self._end(order_id, owner, quantity, Why.WOULD_TAKE)
            return
        if order_type is OrderType.FOK and not self._can_fill(owner, side, quantity, price):
            self._end(order_id, owner, quantity, Why.UNFILLABLE)
            return
        remaining, stopped = self._take(order_id, owner, side, quantity, price, self_trade)
        if remaining == 0:
            return
        if stopped:
            self._end(order_id, owner, remaining, Why.SELF_TRADE)
        elif order_type in (OrderType.LIMIT, OrderType.POST_ONLY):
            assert price is not None, "what rests has a price"
            resting = Resting(order_id, owner, side, price, remaining)
            self._orders[order_id] = resting
            self._sides[side].add(resting)
            self._log.append(Rested(self.symbol, order_id, owner, remaining))
        else:
            self._end(order_id, owner, remaining, Why.REMAINDER)

    def cancel(self, order_id: str, why: Why = Why.REQUESTED) -> bool:
        """Take a resting order off; False when it is not here."""
        resting = self._orders.pop(order_id, None)
        if resting is None:
            return False
        self._sides[resting.side].remove(resting)
        self._end(order_id, resting.owner, resting.remaining, why)
        return True

    def amend(self, order_id: str, remaining: Decimal, price: Decimal) -> bool:
        """Change what is left and the price of a resting order; False when it is not here.

        Only making it smaller at the same price keeps its place in the queue; anything else is a new arrival, which
        may trade at once.
        """
        assert remaining > 0, "to leave nothing, cancel"
        resting = self._orders.get(order_id)
        if resting is None:
            return False
        if price == resting.price and remaining <= resting.remaining:
            resting.remaining = remaining
            self._log.append(Rested(self.symbol, order_id, resting.owner, remaining))
            return True
        del self._orders[order_id]
        self._sides[resting.side].remove(resting)
        self.submit(order_id, resting.owner, resting.side, OrderType.LIMIT, remaining, price)
        return True

    def remaining(self, order_id: str) -> Decimal:
        """What of an order is at work here; 0 when it is not here."""
        resting = self._orders.get(order_id)
        return resting.remaining if resting else ZERO

    def best(self, side: Side) -> Decimal | None:
        return self._sides[side].best()

    def resting(self, side: Side) -> Iterator[Resting]:
        """Orders of one side as a taker would meet them."""
        return iter(self._sides[side])

    def at_best(self, side: Side) -> tuple[Decimal, Decimal] | None:
        """Best price and the whole quantity there."""
        ladder = self._sides[side]
        price = ladder.best()
        return None if price is None else (price, sum((r.remaining for r in ladder.levels[price].values()), ZERO))

    def would_take(self, side: Side, price: Decimal | None) -> bool:
        return self._against(side).acceptable(price)

    def affordable(self, side: Side, budget: Decimal, step: Decimal) -> Decimal:
        """How much (in whole steps) a taker gets for `budget` of price times quantity, walking the book."""
        got = ZERO
        for resting in self._against(side):
            part = min(resting.remaining, budget / resting.price)
            if part < resting.remaining:
                return (got + part) // step * step
            got, budget = got + part, budget - part * resting.price
        return got // step * step

    def _against(self, side: Side) -> Ladder:
        return self._sides[Side.SELL if side is Side.BUY else Side.BUY]

    def _can_fill(self, owner: str, side: Side, quantity: Decimal, price: Decimal | None) -> bool:
        ladder, found = self._against(side), ZERO
        limit = None if price is None else ladder.worth(price)
        for resting in ladder:
            if found >= quantity or (limit is not None and ladder.worth(resting.price) < limit):
                break
            if resting.owner != owner:
                found += resting.remaining
        return found >= quantity

    def _take(
        self,
        order_id: str,
        owner: str,
        side: Side,
        quantity: Decimal,
        limit: Decimal | None,
        self_trade: SelfTrade,
    ) -> tuple[Decimal, bool]:
        """Trade against the other side. Returns what is left, and whether self-trade prevention ended the taker."""
        ladder, remaining = self._against(side), quantity
        while remaining > 0 and ladder.acceptable(limit):
            maker = ladder.first()
            assert maker is not None, "an acceptable level has an order"
            if maker.owner == owner:
                if self_trade is not SelfTrade.CANCEL_TAKER:
                    self.cancel(maker.order_id, Why.SELF_TRADE)
                if self_trade is not SelfTrade.CANCEL_MAKER:
                    return remaining, True
                continue
            matched = min(remaining, maker.remaining)
            remaining -= matched
            maker.remaining -= matched
            if maker.remaining == 0:
                del self._orders[maker.order_id]
                ladder.remove(maker)
            self._trades += 1
            self.last, self.last_quantity = maker.price, matched
            self._log.append(
                Trade(
                    self.symbol,
                    self._trades,
                    maker.price,
                    matched,
                    side,
                    order_id,
                    owner,
                    maker.order_id,
                    maker.owner,
                )
            )
        assert 0 <= remaining <= quantity, "matching invents no quantity"
        return remaining, False

    def _end(self, order_id: str, owner: str, remaining: Decimal, why: Why) -> None:
        self._log.append(Ended(self.symbol, order_id, owner, remaining, why))


class Exchange:
    """Books by symbol, the price each is valued at, and one log over all of them."""

    def __init__(self, symbols: Iterator[str] | tuple[str, ...]) -> None:
        self._log: list[Event] = []
        self.books = {symbol: Book(symbol, self._log) for symbol in symbols}
        self.marks: dict[str, Decimal] = {}

    def take_log(self) -> list[Event]:
        """Everything that happened since the last call, in order."""
        events = self._log[:]
        self._log.clear()
        return events
