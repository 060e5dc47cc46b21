"""Prices: whose goes first, how old it is, and what it may not be replaced by."""

from __future__ import annotations

from decimal import Decimal

import pytest

from engine.core.facts import MarkFact
from engine.core.marks import Marks

NOW_MS = 1_767_225_600_000
NAME = "SBER/RUB"


def told(price: int, *, at_ms: int = NOW_MS, basis: str = "last", market: str = "MOEX", name: str = NAME) -> MarkFact:
    return MarkFact(instrument=name, price=Decimal(price), basis=basis, at_ms=at_ms, market=market)


def test_a_fresh_price_of_the_venue_itself_goes_before_a_younger_one_of_a_feed() -> None:
    marks = Marks()
    marks.take("broker", "prod", [told(300)], NOW_MS)
    marks.take("feed", "prod", [told(301, at_ms=NOW_MS + 500)], NOW_MS + 500)
    mark = marks.latest("broker", "prod", NAME, market="MOEX", fresh_since_ms=NOW_MS - 30_000)
    assert mark is not None
    assert (mark.source, mark.price) == ("broker", 300)


def test_once_the_venue_is_silent_the_youngest_of_its_market_counts() -> None:
    marks = Marks()
    marks.take("broker", "prod", [told(300)], NOW_MS)
    marks.take("feed", "prod", [told(301, at_ms=NOW_MS + 40_000)], NOW_MS + 40_000)
    marks.take("other", "prod", [told(302, at_ms=NOW_MS + 20_000)], NOW_MS + 20_000)
    mark = marks.latest("broker", "prod", NAME, market="MOEX", fresh_since_ms=NOW_MS + 10_000)
    assert mark is not None
    assert (mark.source, mark.price, mark.as_of_ms) == ("feed", 301, NOW_MS + 40_000)


def test_an_account_without_prices_of_its_venue_is_valued_by_the_feed() -> None:
    marks = Marks()
    marks.take("feed", "prod", [told(301)], NOW_MS)
    mark = marks.latest("broker", "prod", NAME, market="MOEX", fresh_since_ms=NOW_MS)
    assert mark is not None
    assert mark.source == "feed"


@pytest.mark.parametrize(
    ("venue", "environment", "market"),
    [("broker", "demo", "MOEX"), ("broker", "prod", ""), ("broker", "prod", "SPBX")],
    ids=["another environment", "no market in common", "another market"],
)
def test_prices_of_elsewhere_are_no_prices_here(venue: str, environment: str, market: str) -> None:
    marks = Marks()
    marks.take("feed", "prod", [told(301)], NOW_MS)
    assert marks.latest(venue, environment, NAME, market=market) is None


def test_a_price_that_was_old_when_it_came_is_as_old_as_its_venue_says() -> None:
    marks = Marks()
    marks.take("feed", "prod", [told(301, at_ms=NOW_MS - 900_000)], NOW_MS)
    mark = marks.latest("feed", "prod", NAME)
    assert mark is not None
    assert mark.as_of_ms == NOW_MS - 900_000, "delayed data is no live price, however often it is sent"


def test_a_clock_that_is_a_little_off_makes_no_price_old() -> None:
    marks = Marks()
    for at_ms in (NOW_MS - 4_000, NOW_MS + 4_000):
        marks.take("feed", "prod", [told(301, at_ms=at_ms)], NOW_MS)
        mark = marks.latest("feed", "prod", NAME)
        assert mark is not None
        assert mark.as_of_ms == NOW_MS


def test_a_mark_goes_before_a_last_price_and_a_best_bid_is_no_price_at_all() -> None:
    marks = Marks()
    marks.take("v", "prod", [told(1, basis="bid"), told(3, basis="ask")], NOW_MS)
    assert marks.latest("v", "prod", NAME) is None
    marks.take("v", "prod", [told(2, basis="last")], NOW_MS)
    marks.take("v", "prod", [told(4, basis="mark")], NOW_MS)
    mark = marks.latest("v", "prod", NAME)
    assert mark is not None
    assert mark.price == 4


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_older_price_never_replaces_a_newer_one(order: tuple[int, int]) -> None:
    marks, both = Marks(), [told(300, at_ms=NOW_MS), told(301, at_ms=NOW_MS + 1)]
    for n in order:
        marks.take("v", "prod", [both[n]], NOW_MS + 10)
    mark = marks.latest("v", "prod", NAME)
    assert mark is not None
    assert mark.price == 301
