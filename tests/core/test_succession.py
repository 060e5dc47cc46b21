"""Several orders under one id of ours are one: the last one's state, and what all of them got."""

from __future__ import annotations

from decimal import Decimal

import pytest

from engine.core.facts import REPLACED, OrderStatus
from engine.core.succession import chain, may_go_on, together
from tests.ledger.samples import order

D = Decimal
FIRST = order(
    client_order_id="c1",
    quantity=D(4),
    filled=D(1),
    avg_price=D(100),
    status=OrderStatus.CANCELLED,
    updated_at_ms=2000,
)
SECOND = order(
    client_order_id="c1",
    venue_order_id="o2",
    quantity=D(3),
    filled=D(1),
    avg_price=D(102),
    created_at_ms=2000,
    updated_at_ms=2500,
)


def test_what_was_wanted_is_what_all_of_them_got_and_what_the_last_still_wants() -> None:
    whole = together(chain([FIRST], SECOND))
    assert (whole.venue_order_id, whole.status) == ("o2", OrderStatus.WORKING)
    assert (whole.quantity, whole.filled, whole.avg_price) == (4, 2, 101)


def test_it_is_the_same_in_whichever_order_they_are_heard() -> None:
    assert chain([SECOND], FIRST) == chain([FIRST], SECOND) == [FIRST, SECOND]


def test_an_older_word_of_the_same_order_changes_nothing() -> None:
    working = order(client_order_id="c1", quantity=D(4))
    assert chain([FIRST, SECOND], working) == [FIRST, SECOND]


def test_one_alone_is_itself() -> None:
    others = [order(venue_order_id="o3", client_order_id="c2")]
    assert together(chain(others, FIRST)) is FIRST


@pytest.mark.parametrize(
    ("changes", "amended", "expected"),
    [
        ({"status": OrderStatus.CANCELLED}, False, False),
        ({"status": OrderStatus.CANCELLED}, True, True),
        ({"status": OrderStatus.CANCELLED, "venue_action": REPLACED}, False, True),
        ({"status": OrderStatus.FILLED}, True, False),
        ({}, True, False),
    ],
)
def test_an_end_may_only_make_room(changes: dict[str, object], amended: bool, expected: bool) -> None:
    assert may_go_on(order(**changes), amended=amended) is expected
