"""A run looks at every account, twice where it differs, and never takes what it could not read for agreement."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal as D
from typing import Any

import anyio
import msgspec
import pytest

from engine.config import Reconcile
from engine.core.breaks import Cause, Code
from engine.core.facts import Fact, OrderFact, OrderStatus, Side
from engine.core.runs import Run, RunKind, Verdict, complaints, difference, from_json, to_json
from engine.core.statements import LedgerSide, Part, Statement
from engine.core.venue import ErrorClass, Page, Read, Request, Response, VenueError
from engine.reconcile import Reconciler, Seen, Subject, read_statement
from tests.core.sides import BOOKED, CATALOGUE, NOW, STATED, balance, fill, ours, position
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio


class FakePorts:
    """Both sides of any account, told from scripts: the last entry of a script is told again and again."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.stated: dict[str, list[Mapping[str, Any] | Exception]] = {}
        self.booked: dict[str, list[Mapping[str, Any] | Exception]] = {}
        self.history: dict[str, Seen] = {}
        self.saved: list[Run] = []
        self.reading = self.most_reading = 0

    def now_ms(self, account_id: str) -> int:
        return self._clock.now_ms()

    async def statement(self, account_id: str) -> Statement:
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        await anyio.lowlevel.checkpoint()
        self.reading -= 1
        changes = _told(self.stated, account_id)
        return msgspec.structs.replace(STATED, account_id=account_id, as_of_ms=self._clock.now_ms(), **changes)

    async def ledger_side(self, account_id: str, since_ms: int) -> LedgerSide:
        changes = _told(self.booked, account_id)
        return msgspec.structs.replace(BOOKED, account_id=account_id, since_ms=since_ms, **changes)

    async def seen(self, break_ids: Sequence[str]) -> Mapping[str, Seen]:
        return {i: self.history[i] for i in break_ids if i in self.history}

    async def save(self, run: Run) -> None:
        self.saved.append(run)
        for b in run.breaks:
            self.history[b.break_id] = Seen(b.first_seen_ms, b.runs_seen)


def _told(scripts: dict[str, list[Mapping[str, Any] | Exception]], account_id: str) -> Mapping[str, Any]:
    script = scripts.get(account_id, [{}])
    told = script.pop(0) if len(script) > 1 else script[0]
    if isinstance(told, Exception):
        raise told
    return told


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def ports(clock: FakeClock) -> FakePorts:
    return FakePorts(clock)


def subjects(*account_ids: str) -> list[Subject]:
    return [Subject(account_id=a, venue="paper", catalogue=CATALOGUE, owns_order_id=ours) for a in account_ids]


async def reconciled(ports: FakePorts, clock: FakeClock, *account_ids: str, at_once: int = 8) -> Run:
    reconciler = Reconciler(ports, clock, Reconcile(at_once=at_once))
    async with anyio.create_task_group() as group:
        group.start_soon(reconciler.run, subjects(*account_ids), RunKind.ADHOC)
        await clock.advance(5)
    return ports.saved[-1]


def _codes(run: Run) -> dict[str, list[Code]]:
    return {a.account_id: [b.code for b in a.breaks] for a in run.accounts}


async def test_accounts_that_agree_are_clean_after_one_look(ports: FakePorts, clock: FakeClock) -> None:
    run = await reconciled(ports, clock, "alpha", "beta")
    assert (run.verdict, [a.reads for a in run.accounts]) == (Verdict.CLEAN, [1, 1])


async def test_an_account_that_cannot_be_read_is_unknown_and_the_others_are_compared(
    ports: FakePorts, clock: FakeClock
) -> None:
    ports.stated = {"beta": [VenueError(ErrorClass.AUTH, "50111", "invalid key")], "gamma": [{"positions": ()}]}
    ports.booked = {"delta": [RuntimeError("disk")]}
    run = await reconciled(ports, clock, "alpha", "beta", "gamma", "delta")
    verdicts = {a.account_id: a.verdict for a in run.accounts}
    assert verdicts == {
        "alpha": Verdict.CLEAN,
        "beta": Verdict.UNKNOWN,
        "gamma": Verdict.BREAKS,
        "delta": Verdict.UNKNOWN,
    }
    assert run.verdict is Verdict.UNKNOWN
    beta = next(a for a in run.accounts if a.account_id == "beta")
    assert {(m.leg, m.part) for m in beta.missing} == {("V", part) for part in Part}
    assert "invalid key" in beta.missing[0].reason
    assert (beta.as_of_ms, beta.counts) == (None, ())


async def test_a_position_that_the_venue_omits_is_a_break_and_not_silence(ports: FakePorts, clock: FakeClock) -> None:
    ports.stated = {"alpha": [{"positions": ()}]}
    run = await reconciled(ports, clock, "alpha")
    assert _codes(run) == {"alpha": [Code.POS_ONLY_LEDGER]}
    assert run.accounts[0].reads == 2


async def test_a_difference_that_is_gone_at_the_second_look_was_none(ports: FakePorts, clock: FakeClock) -> None:
    ports.stated = {"alpha": [{"orders": ()}, {}]}
    run = await reconciled(ports, clock, "alpha")
    assert (run.verdict, _codes(run), run.accounts[0].reads) == (Verdict.CLEAN, {"alpha": []}, 2)


async def test_the_second_look_waits_for_the_guard(ports: FakePorts, clock: FakeClock) -> None:
    ports.stated = {"alpha": [{"positions": ()}]}
    async with anyio.create_task_group() as group:
        group.start_soon(Reconciler(ports, clock, Reconcile()).run, subjects("alpha"), RunKind.PLAN)
        await clock.advance(4.9)
        assert ports.saved == []
        await clock.advance(0.1)
    assert len(ports.saved) == 1


async def test_a_venue_that_fails_at_the_second_look_leaves_the_account_unknown(
    ports: FakePorts, clock: FakeClock
) -> None:
    ports.stated = {"alpha": [{"positions": ()}, TimeoutError()]}
    run = await reconciled(ports, clock, "alpha")
    assert run.verdict is Verdict.UNKNOWN
    assert [(b.code, b.cause) for b in run.breaks] == [(Code.POS_ONLY_LEDGER, Cause.TIMING)]
    assert run.accounts[0].missing[0].reason == "not read in time"


async def test_nothing_compared_is_not_clean(ports: FakePorts, clock: FakeClock) -> None:
    assert (await reconciled(ports, clock)).verdict is Verdict.UNKNOWN


async def test_a_break_remembers_when_it_was_first_seen(ports: FakePorts, clock: FakeClock) -> None:
    ports.stated = {"alpha": [{"positions": (position(quantity=D(9)),)}]}
    first = next((await reconciled(ports, clock, "alpha")).breaks)
    await clock.advance(600)
    ports.stated = {"alpha": [{"positions": (position(quantity=D(8)),)}]}
    second = next((await reconciled(ports, clock, "alpha")).breaks)
    assert (second.break_id, second.first_seen_ms, second.runs_seen) == (first.break_id, first.first_seen_ms, 2)
    assert second.last_seen_ms - second.first_seen_ms == 605_000


async def test_no_more_accounts_are_read_at_once_than_set_and_progress_counts_to_the_end(
    ports: FakePorts, clock: FakeClock
) -> None:
    steps: list[tuple[int, int]] = []
    names = [f"a{n:02d}" for n in range(20)]
    await Reconciler(ports, clock, Reconcile(at_once=3)).run(
        subjects(*names), RunKind.ADHOC, lambda done, total: steps.append((done, total))
    )
    assert ports.most_reading == 3
    assert steps == [(n + 1, 20) for n in range(20)]


async def test_the_same_inputs_give_the_same_bytes_in_whatever_order_accounts_come() -> None:
    def scripted(clock: FakeClock) -> FakePorts:
        ports = FakePorts(clock)
        ports.stated = {"beta": [{"positions": (), "orders": ()}]}
        return ports

    documents = []
    for names in (("alpha", "beta"), ("beta", "alpha")):
        clock = FakeClock(NOW)
        documents.append(to_json(await reconciled(scripted(clock), clock, *names)))
    assert documents[0] == documents[1]


async def test_a_run_reads_back_from_its_document(ports: FakePorts, clock: FakeClock) -> None:
    ports.stated = {"alpha": [{"positions": ()}]}
    run = await reconciled(ports, clock, "alpha")
    assert from_json(to_json(run)) == run
    assert complaints(to_json(run)) == ()


async def test_one_changed_byte_anywhere_is_noticed(ports: FakePorts, clock: FakeClock) -> None:
    ports.stated = {"alpha": [{"positions": ()}]}
    document = to_json(await reconciled(ports, clock, "alpha"))
    for at in range(0, len(document), 7):
        changed = document[:at] + bytes([document[at] ^ 1]) + document[at + 1 :]
        assert complaints(changed), f"byte {at}"


async def test_a_verdict_that_was_made_better_is_noticed_even_with_a_new_seal(
    ports: FakePorts, clock: FakeClock
) -> None:
    ports.stated = {"alpha": [{"positions": ()}]}
    run = await reconciled(ports, clock, "alpha")
    better = msgspec.structs.replace(run, verdict=Verdict.CLEAN, seal="")
    better = msgspec.structs.replace(better, seal=hashlib.sha256(to_json(better)).hexdigest())
    assert complaints(to_json(better)) == ("its verdict is not the worst of its accounts",)


async def test_a_difference_of_runs_never_calls_a_break_gone_that_could_not_be_looked_for(
    ports: FakePorts, clock: FakeClock
) -> None:
    ports.stated = {
        "alpha": [{"positions": ()}],
        "beta": [{"positions": ()}],
        "gamma": [{"balances": (balance(cash=D(1)),)}],
        "delta": [{"orders": ()}],
    }
    before = await reconciled(ports, clock, "alpha", "beta", "gamma", "delta")
    ports.stated = {
        "beta": [OSError("no route")],
        "gamma": [{"balances": (balance(cash=D(2)),)}],
        "delta": [{"orders": (), "fills": ()}],
    }
    after = await reconciled(ports, clock, "alpha", "beta", "gamma", "delta")
    changes = difference(before, after)
    assert [b.account_id for b in changes.gone] == ["alpha"]
    assert [b.account_id for b in changes.unproven] == ["beta"]
    assert [(a.venue, b.venue) for a, b in changes.changed] == [("1", "2")]
    assert [b.code for b in changes.new] == [Code.FILL_EXTRA]
    assert [b.code for b in changes.same] == [Code.ORD_ONLY_LEDGER]


# ---- Reading a statement


class FakeRest:
    """A venue whose answers are at hand; a body that is an exception is an answer that never comes."""

    def __init__(self, **answers: Sequence[tuple[bytes, Sequence[Fact]]]) -> None:
        self._answers = answers

    def fills(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        return self._reads("fills")

    def open_orders(self) -> Sequence[Read]:
        return self._reads("orders")

    def statement(self) -> Sequence[Read]:
        return self._reads("state")

    def _reads(self, name: str) -> Sequence[Read]:
        """One walk over all pages, each of which names the next."""
        following: Read | None = None
        for body, facts in reversed(self._answers.get(name, [(b"", ())])):
            page = Page(facts=tuple(facts), next=following)
            request = Request(method="GET", path=body.decode())
            following = Read(request=request, read=lambda response, page=page: page)
        return [following] if following else []


async def walk(read: Read) -> AsyncIterator[Page]:
    following: Read | None = read
    while following:
        body = following.request.path.encode()
        if body == b"cut":
            raise ConnectionError("cut")
        page = following.read(Response(status=200, body=body))
        yield page
        following = page.next


def _at_work(**changes: Any) -> OrderFact:
    told: dict[str, Any] = {
        "instrument": "BTC/USDT:USDT",
        "venue_order_id": "v1",
        "client_order_id": "u1",
        "side": Side.BUY,
        "order_type": "limit",
        "quantity": D(3),
        "price": D(59_000),
        "filled": D(0),
        "status": OrderStatus.WORKING,
        "created_at_ms": NOW - 9_000,
        "updated_at_ms": NOW - 9_000,
    }
    return OrderFact(**told | changes)


async def test_a_statement_holds_every_page_and_the_hash_of_what_was_read() -> None:
    rest: Any = FakeRest(
        fills=[(b"one", [fill()]), (b"two", [fill(fill_id="f2")])],
        orders=[(b"three", [_at_work()])],
        state=[(b"four", [position(), balance()])],
    )
    statement = await read_statement("alpha", rest, walk, as_of_ms=NOW, since_ms=NOW - 1)
    assert statement.complete
    assert [f.fill_id for f in statement.fills] == ["f1", "f2"]
    assert (len(statement.positions), len(statement.balances), len(statement.orders)) == (1, 1, 1)
    fills = next(e for e in statement.evidence if e.part is Part.FILLS)
    told = hashlib.sha256(hashlib.sha256(b"one").digest() + hashlib.sha256(b"two").digest()).hexdigest()
    assert (fills.pages, fills.size, fills.sha256) == (2, 6, told)


async def test_a_walk_that_breaks_off_leaves_its_part_missing_and_the_rest_told() -> None:
    rest: Any = FakeRest(fills=[(b"one", [fill()]), (b"cut", [])], state=[(b"four", [position()])])
    statement = await read_statement("alpha", rest, walk, as_of_ms=NOW, since_ms=NOW - 1)
    assert statement.missing == {Part.FILLS: "ConnectionError: cut"}
    assert (statement.fills, len(statement.positions)) == ((), 1)


async def test_an_order_that_two_pages_show_is_the_later_one() -> None:
    later = _at_work(filled=D(1), updated_at_ms=NOW - 10)
    rest: Any = FakeRest(orders=[(b"one", [later]), (b"two", [_at_work()])])
    statement = await read_statement("alpha", rest, walk, as_of_ms=NOW, since_ms=NOW - 1)
    assert [o.filled for o in statement.orders] == [D(1)]
