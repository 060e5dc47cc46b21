"""What an account is worth: everything is counted once, by a price that is named, or it is said to be missing."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.book import Position
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.marks import Mark
from engine.core.valuation import Rates, Valuation, together, unrealised, value

NOW_MS = 1_767_225_600_000


def spot(name: str) -> Instrument:
    base, quote = name.split("/")
    return Instrument(
        name=name, venue="v", kind=InstrumentKind.SPOT, base=base, quote=quote, settle=quote, unit=base,
        multiplier=Decimal(1), quantity_step=Decimal(1), min_quantity=Decimal(1), price_tick=Decimal("0.01"),
    )  # fmt: skip


def swap(name: str = "BTC/USDT:USDT", *, inverse: bool = False, multiplier: str = "0.01", **more: bool) -> Instrument:
    pair, settle = name.split(":")
    base, quote = pair.split("/")
    return Instrument(
        name=name, venue="v", kind=InstrumentKind.SWAP, base=base, quote=quote, settle=settle, unit="contract",
        multiplier=Decimal(multiplier), inverse=inverse, quantity_step=Decimal(1), min_quantity=Decimal(1),
        price_tick=Decimal("0.1"), **more,
    )  # fmt: skip


def mark(name: str, price: str, age_ms: int = 0) -> Mark:
    at_ms = NOW_MS - age_ms
    return Mark(instrument=name, price=Decimal(price), basis="last", at_ms=at_ms, received_at_ms=at_ms, source="feed")


def rates(base: str, *prices: Mark, at_par: tuple[str, ...] = ()) -> Rates:
    return Rates(base, [(spot(m.instrument), m) for m in prices], at_par)


def worth(
    cash: dict[str, str],
    by: Rates,
    *positions: Position,
    instruments: tuple[Instrument, ...] = (),
    marks: tuple[Mark, ...] = (),
) -> Valuation:
    known, priced = {i.name: i for i in instruments}, {m.instrument: m for m in marks}
    return value(
        "a",
        cash={currency: Decimal(amount) for currency, amount in cash.items()},
        positions=positions,
        rates=by,
        instrument_of=known.get,
        mark_of=lambda instrument: priced.get(instrument.name),
        at_ms=NOW_MS,
        max_age_ms=30_000,
    )


def position(name: str, quantity: str, avg: str | None) -> Position:
    return Position(
        instrument=name, position_side="net", quantity=Decimal(quantity),
        avg_price=None if avg is None else Decimal(avg), realised=Decimal(0), changed_at_ms=NOW_MS,
    )  # fmt: skip


def test_cash_and_securities_are_counted_at_their_price() -> None:
    found = worth({"RUB": "1000", "SBER": "30"}, rates("RUB", mark("SBER/RUB", "300.5")))
    assert (found.total, found.whole, found.stale) == (Decimal("10015.0"), True, {})
    assert [(p.name, p.value) for p in found.parts] == [("RUB", 1000), ("SBER", Decimal("9015.0"))]


def test_a_currency_may_need_two_pairs_and_both_are_named() -> None:
    found = worth({"SBER": "10"}, rates("USD", mark("SBER/RUB", "300"), mark("USD/RUB", "100", 7_000)))
    assert found.total == 30
    assert [m.instrument for m in found.parts[0].rate.marks] == ["SBER/RUB", "USD/RUB"]
    assert found.as_of_ms == NOW_MS - 7_000, "as old as its oldest price"


def test_like_currencies_count_one_to_one_also_on_the_way_to_another() -> None:
    by = rates("RUB", mark("USD/RUB", "100"), at_par=("USD", "USDT"))
    assert worth({"USDT": "5"}, by).total == 500
    assert worth({"USD": "5"}, rates("USDT", at_par=("USD", "USDT"))).total == 5


def test_what_has_no_price_is_named_and_not_counted_as_nothing() -> None:
    found = worth({"RUB": "10", "DOGE": "5", "KZT": "0"}, rates("RUB"))
    assert not found.whole
    assert set(found.missing) == {"DOGE"}
    both = together([found, worth({"RUB": "7"}, rates("RUB"))], "RUB")
    assert (both.total, set(both.left_out)) == (7, {"a"})


def test_an_old_price_is_told_with_its_age() -> None:
    found = worth({"SBER": "1"}, rates("RUB", mark("SBER/RUB", "300", 31_000)))
    assert found.whole
    assert found.stale == {"SBER": "SBER/RUB from feed is 31 s old"}


@pytest.mark.parametrize(
    ("instrument", "quantity", "bought_at", "price", "gain"),
    [
        (swap(), "100", "60000", "61000", "1000"),
        (swap(), "-100", "60000", "61000", "-1000"),
        (swap("BTC/USD:BTC", inverse=True, multiplier="100"), "10", "50000", "62500", "0.004"),
        (swap("BTC/USD:BTC", inverse=True, multiplier="100"), "-10", "50000", "62500", "-0.004"),
    ],
    ids=["long", "short", "inverse long", "inverse short"],
)
def test_a_derivative_counts_with_what_it_would_gain(
    instrument: Instrument, quantity: str, bought_at: str, price: str, gain: str
) -> None:
    assert unrealised(instrument, Decimal(quantity), Decimal(bought_at), Decimal(price)) == Decimal(gain)
    found = worth(
        {},
        Rates(instrument.settle, []),
        position(instrument.name, quantity, bought_at),
        instruments=(instrument,),
        marks=(mark(instrument.name, price),),
    )
    assert found.total == Decimal(gain)


@pytest.mark.parametrize(
    ("instruments", "marks", "avg", "why"),
    [
        ((), (), "1", "not in the catalogue"),
        ((swap(),), (), "1", "no price"),
        ((swap(),), (mark("BTC/USDT:USDT", "1"),), None, "bought at"),
        ((swap(settled_daily=True),), (mark("BTC/USDT:USDT", "1"),), "1", "settled in cash each day"),
    ],
)
def test_a_position_that_cannot_be_valued_says_why(
    instruments: tuple[Instrument, ...], marks: tuple[Mark, ...], avg: str | None, why: str
) -> None:
    found = worth({}, rates("USDT"), position("BTC/USDT:USDT", "1", avg), instruments=instruments, marks=marks)
    assert not found.whole
    assert why in found.missing["BTC/USDT:USDT"]


@given(
    amounts=st.dictionaries(st.sampled_from(["RUB", "SBER", "USD", "BTC"]), st.integers(-(10**6), 10**6), max_size=4),
    factor=st.integers(1, 50),
)
def test_twice_as_much_is_worth_twice_as_much(amounts: dict[str, int], factor: int) -> None:
    by = rates("RUB", mark("SBER/RUB", "300"), mark("USD/RUB", "80"), mark("BTC/USD", "60000"))
    one = worth({c: str(n) for c, n in amounts.items()}, by).total
    many = worth({c: str(n * factor) for c, n in amounts.items()}, by).total
    assert many == one * factor
