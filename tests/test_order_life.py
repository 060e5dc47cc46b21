"""One order through everything that can happen to it, in any order: it reaches the venue once, and ends as that says.

Hypothesis plays the manager, the network and the venue; the executor, the resolver and the ledger are the real ones.
The venue of this play keeps the contract of a real one: a request is carried out before its expiry or never, and reads
stand behind by no more than they may. An order that provably never arrived is sent anew, up to three times in all.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.core.facts import OrderFact, OrderStatus
from engine.core.orders import TERMINAL, Accepted, Cancel, OrderState, Outcome, Place, Refused
from engine.core.plans import Child
from engine.core.venue import Page
from engine.execute import NotExecuted
from engine.ledger.tables import child as child_table
from engine.wire.http import NoAnswer
from tests.engine_world import World, not_found, world
from tests.fakes import settle
from tests.ledger import samples

ANN = "ann"
ATTEMPTS = 3
ENDS = {
    OrderStatus.FILLED: OrderState.FILLED,
    OrderStatus.CANCELLED: OrderState.CANCELLED,
    OrderStatus.WORKING: OrderState.WORKING,
}
NEVER_THERE = {OrderState.SKIPPED, OrderState.NOT_PLACED, OrderState.REJECTED, OrderState.PLANNED}


class OrderLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="order-life-"))
        self.told = list[OrderFact]()  # the venue's truth: how the one order was that it has, change by change
        self.deaf_until_s = 0.0
        self.shift_ms = 0  # how far our clock is off
        self.placed = list[Place]()  # in all lives together
        self.in_flight = list[tuple[World, Any, Any]]()  # what was sent and the venue has not looked at yet
        self.unanswered = list[tuple[World, Any, Outcome]]()
        self.best: dict[str, tuple[OrderState, int]] = {}

    # ---- the engine's lives

    @initialize()
    def send(self) -> None:
        self.run(self._live())
        self.run(self.world.approved(attempts=ATTEMPTS))
        self.run(self.world.executor.execute("p1", "mia"))
        self._collect()

    async def _live(self) -> None:
        self.stack = AsyncExitStack()
        w = self.world = await self.stack.enter_async_context(world(self.folder, ANN))
        if self.told or self.placed:
            w.clock._elapsed_s = self.elapsed_s
        w.clock.shift(self.shift_ms)
        w.http.venue_now_ms = lambda venue, environment: self.venue_ms  # type: ignore[method-assign]
        w.http.before = self._answer
        await w.children.recover()
        self.tasks = [asyncio.create_task(w.work()), asyncio.create_task(w.resolve())]
        await settle()

    async def _die(self) -> None:
        """What was posted may be lost with the process; here it is kept or lost as the writer's thread has it."""
        self.elapsed_s = self.world.clock.monotonic_s()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.stack.aclose()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self._comes_to_rest()
                self.run(self._die())
        finally:
            self.loop.close()
            shutil.rmtree(self.folder)

    # ---- the manager

    @rule()
    def cancel(self) -> None:
        try:
            self.run(self.world.executor.cancel("p1"))
        except NotExecuted:
            return
        self._collect()

    # ---- the venue

    @precondition(lambda self: self.in_flight)
    @rule(refuse=st.booleans())
    def venue_looks(self, refuse: bool) -> None:
        sender, request_id, command = self.in_flight.pop(0)
        outcome: Outcome = Accepted("v1")
        if isinstance(command, Place):
            assert command.expires_at_ms is not None
            if refuse or self.venue_ms > command.expires_at_ms:
                outcome = Refused("51000", "no")
            else:
                assert not self.told, "the venue has this order already, under whatever id"
                self._changes(OrderStatus.WORKING, 0, command)
        elif (
            self.truth is not None
            and not self.truth.status.terminal
            and self.truth.client_order_id == command.client_order_id
        ):
            self._changes(OrderStatus.CANCELLED, int(self.truth.filled))
        else:
            outcome = Refused("51400", "gone", target_gone=True)
        self.unanswered.append((sender, request_id, outcome))

    @precondition(lambda self: self.unanswered)
    @rule()
    def answer_comes(self) -> None:
        told_to, request_id, outcome = self.unanswered.pop(0)
        if told_to is self.world:
            link = self.world.links.links[ANN]
            number = next(n for n, frame in enumerate(link.sent) if frame[0] == request_id)
            self.world.reply(ANN, outcome, number=number)
            self.run(settle())

    @precondition(lambda self: self.truth is not None and not self.truth.status.terminal)
    @rule()
    def fill_one(self) -> None:
        assert self.truth is not None
        filled = int(self.truth.filled) + 1
        self._changes(OrderStatus.FILLED if filled == self.truth.quantity else OrderStatus.WORKING, filled)

    @precondition(lambda self: self.told)
    @rule(which=st.integers(0, 9))
    def push(self, which: int) -> None:
        """The stream tells one of the changes: the latest, or once more an old one."""
        self.world.hear(ANN, self.told[which % len(self.told)])
        self.run(settle())
        self._collect()

    # ---- the network, the machine

    @rule()
    def disconnect(self) -> None:
        self.world.executor.on_down(f"{ANN}-private", "cut")
        self.unanswered.clear()
        self.run(settle())

    @rule(lose=st.booleans())
    def requests_are_lost(self, lose: bool) -> None:
        if lose:
            self.in_flight.clear()

    @rule(seconds=st.sampled_from([0.3, 1.0, 6.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(self.world.advance(seconds))
        self._collect()

    @rule(seconds=st.sampled_from([1.0, 10.0]))
    def reads_fail(self, seconds: float) -> None:
        self.deaf_until_s = self.world.clock.monotonic_s() + seconds

    @rule(milliseconds=st.sampled_from([-3_600_000, -2000, 2000, 3_600_000]))
    def our_clock_jumps(self, milliseconds: int) -> None:
        self.shift_ms += milliseconds
        self.world.clock.shift(milliseconds)
        self.world.http.clocks_agree = self.shift_ms == 0

    @rule()
    def our_clock_is_set(self) -> None:
        self.world.clock.shift(-self.shift_ms)
        self.shift_ms = 0
        self.world.http.clocks_agree = True

    @rule()
    def restart(self) -> None:
        self.run(self._die())
        self.run(self._live())
        self.unanswered.clear()
        self.world.http.clocks_agree = self.shift_ms == 0

    # ---- what must hold

    @invariant()
    def each_attempt_is_placed_at_most_once(self) -> None:
        assert len({p.client_order_id for p in self.placed}) == len(self.placed) <= ATTEMPTS

    @invariant()
    def at_most_one_attempt_is_open(self) -> None:
        if not hasattr(self, "world"):
            return
        with self.world.ledger.read() as connection:
            states = list(connection.scalars(sa.select(child_table.c.state)))
        for found in (states, [c.state for c in self.children]):
            assert sum(OrderState(state) not in TERMINAL for state in found) <= 1

    @invariant()
    def never_wrongly_final(self) -> None:
        for child in self.children:
            truth, its_id = self._truth_of(child), child.client_order_id
            assert not child.late, "the venue of this play keeps its word"
            if child.state in NEVER_THERE:
                assert truth is None, f"it is {child.state.value}, and the venue has it"
                if child.state is not OrderState.PLANNED:
                    on_their_way = [
                        c for *_, c in self.in_flight if isinstance(c, Place) and c.client_order_id == its_id
                    ]
                    assert not [c for c in on_their_way if c.expires_at_ms > self.venue_ms]  # type: ignore[operator]
            elif child.state in TERMINAL:
                assert truth is not None
                assert ENDS[truth.status] is child.state

    @invariant()
    def nothing_goes_back(self) -> None:
        for child in self.children:
            state, filled = self.best.get(child.child_id, (OrderState.PLANNED, 0))
            assert child.filled >= filled or state not in TERMINAL
            assert state not in TERMINAL or child.state is state
            self.best[child.child_id] = (child.state, int(child.filled))

    def _comes_to_rest(self) -> None:
        """Nothing more happens, and the venue answers: what is known then is the truth."""
        self.our_clock_is_set()
        self.deaf_until_s = 0.0
        self.disconnect()
        for _ in range(4 * ATTEMPTS):
            self.run(self.world.advance(40))
            self._collect()
            while self.in_flight:
                self.venue_looks(refuse=False)
            if all(c.state in TERMINAL or c.state is OrderState.WORKING for c in self.children):
                break
        self.never_wrongly_final()
        self.at_most_one_attempt_is_open()
        if self.truth is not None:
            self.push(len(self.told) - 1)  # of what is at work the stream and the cross-check tell, not the resolver
        for child in self.children:
            truth = self._truth_of(child)
            if truth is None:
                assert child.state in NEVER_THERE
            else:
                assert (child.state, child.filled) == (ENDS[truth.status], truth.filled)

    # ---- the play's own books

    @property
    def venue_ms(self) -> int:
        return self.world.clock.now_ms() - self.shift_ms

    @property
    def truth(self) -> OrderFact | None:
        return self.told[-1] if self.told else None

    @property
    def children(self) -> list[Child]:
        return self.world.children.of_plan("p1") if hasattr(self, "world") else []

    def _truth_of(self, child: Child) -> OrderFact | None:
        truth = self.truth
        return truth if truth is not None and truth.client_order_id == child.client_order_id else None

    def _collect(self) -> None:
        """What left the engine since the last look."""
        sent = self.world.links.links[ANN].sent
        seen = getattr(self.world, "seen_frames", 0)
        for request_id, commands in sent[seen:]:
            for command in commands:
                assert isinstance(command, Place | Cancel)
                self.in_flight.append((self.world, request_id, command))
                if isinstance(command, Place):
                    self.placed.append(command)
        self.world.seen_frames = len(sent)  # type: ignore[attr-defined]

    def _changes(self, status: OrderStatus, filled: int, place: Place | None = None) -> None:
        """`place` begins it."""
        known = place or self.truth
        assert known is not None
        first_ms = self.told[0].created_at_ms if self.told else self.venue_ms
        self.told.append(
            samples.order(
                client_order_id=known.client_order_id,
                venue_order_id="v1",
                quantity=known.quantity,
                filled=filled,
                status=status,
                created_at_ms=first_ms,
                updated_at_ms=max(self.venue_ms, first_ms + len(self.told)),
            )
        )

    def _answer(self, account_id: str, name: str) -> None:
        """The venue's reads, told just before they are asked."""
        answers, truth = self.world.http.answers, self.truth
        if self.world.clock.monotonic_s() < self.deaf_until_s:
            answers["order"] = answers["open_orders"] = answers["fills"] = NoAnswer("reset", written=True)
            return
        asked = {c.client_order_id for c in self.children if c.state not in TERMINAL}
        answers["order"] = Page(facts=(truth,)) if truth is not None and truth.client_order_id in asked else not_found()
        at_work = truth is not None and not truth.status.terminal
        answers["open_orders"] = Page(facts=(truth,) if at_work and truth is not None else ())
        fill = samples.fill(1, venue_order_id="v1", client_order_id=truth.client_order_id) if truth else None
        answers["fills"] = Page(facts=(fill,) if fill and truth is not None and truth.filled else ())


OrderLife.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestOrderLife = OrderLife.TestCase
