"""One door for facts: each once, in order, history before what was held back; what could not be kept is known."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec
import pytest

from engine.core.book import Book
from engine.core.facts import AccountFact, FillFact, MarkFact
from engine.ledger import FactRow, LedgerFull
from engine.sync import Desk, Sync
from tests.ledger import samples
from tests.ledger.samples import fill, order


class Sink:
    def __init__(self) -> None:
        self.rows: list[FactRow] = []
        self.full = False

    def append(self, rows: list[FactRow]) -> None:
        if self.full:
            raise LedgerFull("full")
        self.rows += rows

    async def room(self) -> None:
        return

    def unrecorded(self, account_id: str, facts: Sequence[AccountFact]) -> list[AccountFact]:
        kept = {row[2] for row in self.rows}
        return [f for f in facts if f.key not in kept]


class Door:
    def __init__(self, *, hold_limit: int = 100) -> None:
        self.sink = Sink()
        self.sync = Sync(self.sink, hold_limit=hold_limit)
        self.sync.catalogue("okx", "demo").add([samples.SWAP])
        self.told: list[AccountFact] = []
        self.sync.subscribe(lambda account_id, fact: self.told.append(fact))
        self.desk = self.enter("ann")

    def enter(self, account_id: str) -> Desk:
        book = Book(account_id, self.sync.catalogue("okx", "demo").by_name)
        book.open_with([], [], 0)
        return self.sync.enter(account_id, book)

    def hear(self, *facts: AccountFact) -> None:
        self.sync.hear("ann", facts, 5000, "conn")


def test_streamed_facts_wait_until_history_was_applied() -> None:
    door = Door()
    door.hear(fill(3), fill(4))
    assert door.told == door.sink.rows == []
    door.sync.fetched("ann", [fill(1), fill(2)], 6000)
    door.sync.release("ann", 1000)
    assert door.told == [fill(1), fill(2), fill(3), fill(4)]
    assert len(door.sink.rows) == 4
    door.hear(fill(5))
    assert door.told[-1] == fill(5), "from now on they go straight in"


def test_what_history_and_stream_both_tell_is_taken_once() -> None:
    door = Door()
    door.hear(fill(1), order())
    assert door.sync.fetched("ann", [fill(1), order()], 6000) == [fill(1), order()]
    door.sync.release("ann", 1000)
    assert door.sync.fetched("ann", [fill(1), order()], 7000) == []
    assert len(door.sink.rows) == 2
    assert sum(q for q in door.desk.book.quantities().values()) == 1


def test_more_than_may_be_held_is_remembered_as_lost() -> None:
    door = Door(hold_limit=2)
    for number in (1, 2):
        door.hear(fill(number))
    assert not door.desk.lost
    door.hear(fill(3))
    assert door.desk.lost


def test_what_all_accounts_hold_together_is_bounded_too() -> None:
    door = Door(hold_limit=2)
    desks = [door.enter(f"a{number}") for number in range(11)]
    for desk in desks:
        for number in (1, 2):
            door.sync.hear(desk.account_id, [fill(number)], 5000, "conn")
    assert [desk.lost for desk in desks] == [False] * 10 + [True]
    door.sync.leave("a0")
    door.hear(fill(1))
    assert not door.desk.lost, "there is room again"


def test_what_was_held_back_is_released_bit_by_bit_and_nothing_overtakes() -> None:
    door = Door()
    for number in (1, 2, 3):
        door.hear(fill(number))
    assert not door.sync.release("ann", 2)
    door.hear(fill(4))
    assert door.told == [fill(1), fill(2)]
    assert door.sync.release("ann", 2)
    assert door.told == [fill(1), fill(2), fill(3), fill(4)]


def test_what_the_ledger_cannot_take_is_remembered_as_lost() -> None:
    door = Door()
    door.sync.release("ann", 1000)
    door.sink.full = True
    door.hear(fill(1))
    assert door.desk.lost, "the account is read back"
    assert door.sync.full, "and the receive loops wait"


def test_facts_of_an_account_that_left_change_nothing() -> None:
    door = Door()
    door.sync.leave("ann")
    door.hear(fill(1))
    assert door.sync.fetched("ann", [fill(1)], 6000) == []
    assert door.sink.rows == []


@pytest.mark.parametrize("first", [0, 1])
def test_an_older_price_never_replaces_a_newer_one(first: int) -> None:
    marks = [MarkFact(instrument="BTC/USDT:USDT", price=Decimal(100 + n), at_ms=1000 + n, basis="mark") for n in (0, 1)]
    sync = Door().sync
    for mark in (marks[first], marks[1 - first]):
        sync.marks.take("okx", "demo", [mark], 5000)
    known = sync.marks.latest("okx", "demo", "BTC/USDT:USDT")
    assert known is not None
    assert known.price == 101


def test_the_order_of_arrival_is_kept_per_account_and_accounts_do_not_mix() -> None:
    door = Door()
    bob = door.enter("bob")
    door.sync.release("ann", 1000)
    door.sync.release("bob", 1000)
    for number in range(1, 5):
        door.sync.hear("ann" if number % 2 else "bob", [fill(number)], 5000, "conn")
    assert [f.fill_id for f in door.told if isinstance(f, FillFact)] == ["f1", "f2", "f3", "f4"]
    assert sum(bob.book.quantities().values()) == sum(door.desk.book.quantities().values()) == 2


def test_a_changed_instrument_is_told() -> None:
    catalogue = Door().sync.catalogue("okx", "demo")
    coarser = msgspec.structs.replace(samples.SWAP, quantity_step=Decimal(10))
    assert catalogue.add([samples.SWAP]) == ([], [])
    assert catalogue.add([coarser]) == ([], [(samples.SWAP, coarser)])


def test_what_a_venue_tells_again_long_after_it_was_forgotten_is_no_loss() -> None:
    door = Door()
    door.sync.fetched("ann", [fill(1), fill(2)], 5000)
    door.desk.book.prune(100_000)
    assert door.sync.fetched("ann", [fill(1), fill(2)], 6000) == []
    assert not door.desk.lost
    assert door.sync.fetched("ann", [fill(2), fill(3)], 7000) == [fill(3)]
    assert door.desk.lost, "of that one only the ledger can say whether it counts: the book is made anew"
