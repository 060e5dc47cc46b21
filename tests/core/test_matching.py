"""Matching: price, then time; what one buys another sells; nothing is lost or invented."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.facts import Side
from engine.core.matching import Book, Ended, Event, Exchange, Rested, SelfTrade, Trade, Why
from engine.core.orders import OrderType

D = Decimal
BUY, SELL = Side.BUY, Side.SELL


class Floor:
    """A book whose log is kept."""

    def __init__(self) -> None:
        self.log: list[Event] = []
        self.book = Book("X", self.log)

    def limit(self, order_id: str, side: Side, quantity: int, price: int, owner: str = "") -> None:
        self.book.submit(order_id, owner or order_id, side, OrderType.LIMIT, D(quantity), D(price))

    def trades(self) -> list[tuple[str, str, Decimal, Decimal]]:
        return [(e.taker, e.maker, e.quantity, e.price) for e in self.log if isinstance(e, Trade)]


def test_the_better_price_trades_first_and_at_its_own_price() -> None:
    floor = Floor()
    floor.limit("dear", SELL, 1, 102)
    floor.limit("cheap", SELL, 1, 101)
    floor.limit("taker", BUY, 2, 105)
    assert floor.trades() == [("taker", "cheap", D(1), D(101)), ("taker", "dear", D(1), D(102))]


def test_at_one_price_the_earlier_order_trades_first() -> None:
    floor = Floor()
    floor.limit("first", SELL, 2, 100)
    floor.limit("second", SELL, 2, 100)
    floor.limit("taker", BUY, 3, 100)
    assert floor.trades() == [("taker", "first", D(2), D(100)), ("taker", "second", D(1), D(100))]
    assert floor.book.remaining("second") == 1


def test_making_it_smaller_keeps_its_place_and_anything_else_loses_it() -> None:
    floor = Floor()
    floor.limit("shrunk", SELL, 5, 100)
    floor.limit("other", SELL, 1, 100)
    floor.limit("grown", SELL, 1, 100)
    floor.limit("last", SELL, 1, 100)
    assert floor.book.amend("shrunk", D(1), D(100))
    assert floor.book.amend("grown", D(2), D(100))
    floor.limit("taker", BUY, 5, 100)
    assert [maker for _, maker, _, _ in floor.trades()] == ["shrunk", "other", "last", "grown"]


def test_an_order_amended_across_the_spread_trades_at_once() -> None:
    floor = Floor()
    floor.limit("ask", SELL, 1, 100)
    floor.limit("bid", BUY, 1, 99)
    assert floor.book.amend("bid", D(1), D(100))
    assert floor.trades() == [("bid", "ask", D(1), D(100))]


def test_immediate_or_cancel_ends_with_what_it_could_not_get() -> None:
    floor = Floor()
    floor.limit("ask", SELL, 1, 100)
    floor.book.submit("ioc", "me", BUY, OrderType.IOC, D(3), D(100))
    assert floor.log[-1] == Ended("X", "ioc", "me", D(2), Why.REMAINDER)


def test_fill_or_kill_trades_wholly_or_not_at_all() -> None:
    floor = Floor()
    floor.limit("ask", SELL, 2, 100)
    floor.book.submit("too big", "me", BUY, OrderType.FOK, D(3), D(100))
    assert floor.trades() == []
    assert floor.log[-1] == Ended("X", "too big", "me", D(3), Why.UNFILLABLE)
    floor.book.submit("fits", "me", BUY, OrderType.FOK, D(2), D(100))
    assert floor.trades() == [("fits", "ask", D(2), D(100))]


def test_post_only_never_takes() -> None:
    floor = Floor()
    floor.limit("ask", SELL, 1, 100)
    floor.book.submit("taking", "me", BUY, OrderType.POST_ONLY, D(1), D(100))
    floor.book.submit("resting", "me", BUY, OrderType.POST_ONLY, D(1), D(99))
    assert floor.trades() == []
    assert floor.log[-2:] == [Ended("X", "taking", "me", D(1), Why.WOULD_TAKE), Rested("X", "resting", "me", D(1))]


def test_a_market_order_never_pays_worse_than_its_bound() -> None:
    floor = Floor()
    floor.limit("near", SELL, 1, 100)
    floor.limit("far", SELL, 1, 200)
    floor.book.submit("market", "me", BUY, OrderType.MARKET, D(2), D(105))
    assert floor.trades() == [("market", "near", D(1), D(100))]


def test_orders_of_one_owner_do_not_trade_with_each_other() -> None:
    for mode, left in (
        (SelfTrade.CANCEL_MAKER, "taker"),
        (SelfTrade.CANCEL_TAKER, "maker"),
        (SelfTrade.CANCEL_BOTH, ""),
    ):
        floor = Floor()
        floor.limit("maker", SELL, 1, 100, owner="me")
        floor.book.submit("taker", "me", BUY, OrderType.LIMIT, D(1), D(100), mode)
        assert floor.trades() == []
        assert [o for o in ("maker", "taker") if floor.book.remaining(o)] == ([left] if left else []), mode


def test_a_budget_buys_whole_steps_along_the_book() -> None:
    floor = Floor()
    floor.limit("near", SELL, 1, 100)
    floor.limit("far", SELL, 1, 200)
    assert floor.book.affordable(BUY, D(150), D("0.1")) == D("1.2")
    assert floor.book.affordable(BUY, D(10_000), D("0.1")) == D(2)


def test_an_exchange_keeps_one_log_in_order_over_all_symbols() -> None:
    exchange = Exchange(("A", "B"))
    exchange.books["A"].submit("1", "x", BUY, OrderType.LIMIT, D(1), D(1))
    exchange.books["B"].submit("2", "x", BUY, OrderType.LIMIT, D(1), D(1))
    assert [e.symbol for e in exchange.take_log()] == ["A", "B"]
    assert exchange.take_log() == []


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "submit", "submit", "cancel", "amend"]),
        st.sampled_from(list(OrderType)),
        st.sampled_from([BUY, SELL]),
        st.integers(1, 20),  # quantity
        st.integers(95, 105),  # price
        st.integers(0, 3),  # owner
        st.integers(0, 60),  # which order
        st.sampled_from(list(SelfTrade)),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(ACTIONS)
def test_whatever_is_asked_nothing_is_lost_or_invented(
    actions: list[tuple[str, OrderType, Side, int, int, int, int, SelfTrade]],
) -> None:
    floor = Floor()
    book = floor.book
    size: dict[str, Decimal] = {}
    limit: dict[str, tuple[Side, Decimal | None]] = {}
    seen = 0
    for number, (action, kind, side, quantity, price, owner, which, mode) in enumerate(actions):
        target = str(which)
        if action == "submit":
            bound = None if kind is OrderType.MARKET else D(price)
            size[str(number)], limit[str(number)] = D(quantity), (side, bound)
            book.submit(str(number), f"owner {owner}", side, kind, D(quantity), bound, mode)
        elif action == "cancel":
            book.cancel(target)
        elif (before := book.remaining(target)) > 0:
            size[target] += D(quantity) - before
            limit[target] = (limit[target][0], D(price))
            book.amend(target, D(quantity), D(price))

        best_bid, best_ask = book.best(BUY), book.best(SELL)
        assert best_bid is None or best_ask is None or best_bid < best_ask, "the book never stays crossed"
        for event in floor.log[seen:]:
            if isinstance(event, Trade):
                assert event.quantity > 0
                assert event.taker_owner != event.maker_owner
                for order in (event.taker, event.maker):
                    way, bound = limit[order]
                    if bound is not None:
                        assert event.price * way.sign <= bound * way.sign, "nobody pays worse than his limit"
        seen = len(floor.log)

    bought, sold = defaultdict[str, Decimal](Decimal), defaultdict[str, Decimal](Decimal)
    for event in floor.log:
        if isinstance(event, Trade):
            buyer, seller = (event.taker, event.maker) if event.taker_side is BUY else (event.maker, event.taker)
            bought[buyer] += event.quantity
            sold[seller] += event.quantity
    assert sum(bought.values()) == sum(sold.values())
    ended = {e.order_id: e.remaining for e in floor.log if isinstance(e, Ended)}
    for order, whole in size.items():
        filled = bought[order] + sold[order]
        assert filled + book.remaining(order) + ended.get(order, D(0)) == whole, f"order {order} adds up"
    numbers = [e.number for e in floor.log if isinstance(e, Trade)]
    assert numbers == list(range(1, len(numbers) + 1))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(95, 105), st.integers(1, 5)), min_size=1, max_size=30), st.integers(1, 60))
def test_a_taker_meets_resting_orders_by_price_then_time(resting: list[tuple[int, int]], wanted: int) -> None:
    floor = Floor()
    for number, (price, quantity) in enumerate(resting):
        floor.limit(str(number), SELL, quantity, price)
    floor.book.submit("taker", "me", BUY, OrderType.MARKET, D(wanted))
    met = [(price, int(maker)) for _, maker, _, price in floor.trades()]
    assert met == sorted(met)
    best_first = sorted(range(len(resting)), key=lambda n: (resting[n][0], n))
    assert [n for _, n in met] == best_first[: len(met)]
