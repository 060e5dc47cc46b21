"""The simulated market: the same seed gives the same prices, and what the price passes is filled."""

from __future__ import annotations

from decimal import Decimal

from engine.core.facts import Side
from engine.core.matching import Exchange, Trade
from engine.core.orders import OrderType
from engine.core.venue import Quoted
from engine.sim.market import Market

D = Decimal
SPOT = Quoted(symbol="S", path="P", start=D(1000), tick=D("0.5"), depth=D(10), lot=D("0.01"))
SWAP = Quoted(symbol="W", path="P", start=D(1000), tick=D("0.1"), depth=D(10), lot=D("0.01"))
OTHER = Quoted(symbol="O", path="Q", start=D(5), tick=D("0.01"), depth=D(10), lot=D(1))


def market(seed: int = 1) -> Market:
    opened = Market(Exchange(("S", "W", "O")), (SPOT, SWAP, OTHER), seed)
    opened.tick(0)
    return opened


def walk(opened: Market, steps: int) -> list[tuple[Decimal, ...]]:
    found = []
    for step in range(1, steps + 1):
        opened.tick(step * opened.every_ms)
        found.append(tuple(opened.exchange.marks.values()))
    return found


def test_the_same_seed_gives_the_same_prices_and_trades_and_another_one_others() -> None:
    first, again, other = market(1), market(1), market(2)
    assert walk(first, 40) == walk(again, 40) != walk(other, 40)
    assert first.exchange.take_log() == again.exchange.take_log()


def test_it_steps_only_when_it_is_time_and_not_while_it_is_paused() -> None:
    opened = market()
    assert not opened.tick(opened.every_ms - 1)
    assert opened.tick(opened.every_ms)
    opened.paused = True
    assert not opened.tick(10 * opened.every_ms)


def test_prices_stand_on_their_ticks_and_quotes_on_both_sides_of_them() -> None:
    opened = market()
    walk(opened, 20)
    for quoted in (SPOT, SWAP, OTHER):
        book, mark = opened.exchange.books[quoted.symbol], opened.exchange.marks[quoted.symbol]
        bid, ask = book.best(Side.BUY), book.best(Side.SELL)
        assert bid is not None
        assert ask is not None
        assert bid < mark < ask
        assert not any(price % quoted.tick for price in (mark, bid, ask))


def test_symbols_of_one_path_move_together_and_others_stay() -> None:
    opened = market()
    opened.move_to("S", D(1100))
    assert [opened.exchange.marks[s] for s in ("S", "W", "O")] == [D(1100), D(1100), D(5)]
    opened.move_by("W", D(-50))
    assert opened.exchange.marks["S"] == D(550)


def test_a_price_that_reaches_a_resting_order_fills_it_wholly_at_its_own_price() -> None:
    opened = market()
    book = opened.exchange.books["S"]
    book.submit("client", "client", Side.BUY, OrderType.LIMIT, D(500), D(950))
    opened.exchange.take_log()
    opened.move_to("S", D("950.5"))
    assert book.remaining("client") == 500
    opened.move_to("S", D(950))
    assert book.remaining("client") == 0
    trades = [e for e in opened.exchange.take_log() if isinstance(e, Trade)]
    assert {(t.maker, t.price) for t in trades} == {("client", D(950))}


def test_old_quotes_are_taken_off_before_new_ones_are_made() -> None:
    opened = market()
    walk(opened, 30)
    resting = [r for side in Side for r in opened.exchange.books["S"].resting(side)]
    assert len(resting) <= 10
