"""Does. Every plan at work and its child orders: in memory at once, in the ledger soon, each step by the table.

The one owner of their state. A step is checked against `core/orders.py`, taken here, and written as a
compare-and-set on (state, claim token). Plans that ended stay for a day, so that what comes late is still known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal

import anyio
import anyio.lowlevel
import msgspec
import structlog

from engine import crash
from engine.core.attempts import latest
from engine.core.facts import AccountFact, FillFact, OrderFact, OrderStatus
from engine.core.limits import Recent
from engine.core.orders import (
    EVENT_OF_STATUS,
    TERMINAL,
    CancelState,
    IllegalStep,
    OrderEvent,
    OrderState,
    advance,
)
from engine.core.plans import Child, Plan, PlanState
from engine.core.succession import chain, may_go_on, together
from engine.ledger import Ledger, LedgerFull
from engine.ledger import plans as store
from engine.sync import Desk, Sync
from scheduler.clock import Clock

log = structlog.get_logger("children")
replace = msgspec.structs.replace

# What these were told by the venue's own refusal or by our proof: an order of theirs at the venue contradicts it.
_NEVER_THERE = (OrderState.NOT_PLACED, OrderState.SKIPPED, OrderState.REJECTED)
_OPEN = (OrderState.SENDING, OrderState.UNKNOWN, OrderState.WORKING)
_FAN_OUT_PAUSE_S = 0.005
_NEVER_OUT = (OrderState.PLANNED, OrderState.SKIPPED, OrderState.REJECTED, OrderState.NOT_PLACED)
_FULL_PAUSE_S = 0.1
_KEPT_ENDED_MS = 25 * 3_600_000  # an hour more than a reconciliation looks back
_MOST_LATE = 1000


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a plan's children stand, by count; of each child its last attempt counts, and what all of them filled."""

    state: PlanState
    total: int
    sent: int
    acknowledged: int
    working: int
    filled: int
    refused: int
    unknown: int
    skipped: int
    ended: int
    settled: bool  # nothing is on its way any more: each child is at work, ended, or skipped
    quantity: Decimal
    filled_quantity: Decimal
    first_sent_ms: int | None = None
    last_sent_ms: int | None = None


class Children:
    def __init__(
        self,
        *,
        clock: Clock,
        ledger: Ledger,
        sync: Sync,
        recent_ms: int,
        replaces: Callable[[str], bool],
        key_of: Callable[[str, str], str] = lambda account_id, amend_id: "",
    ) -> None:
        """`replaces(account_id)`: does its venue change an order by ending it and making another one? `key_of` tells
        under which client order id the other one of an amendment is told there, where it is not under the child's."""
        self._key_of = key_of
        self._replaces = replaces
        self._clock, self._ledger, self._sync, self._recent_ms = clock, ledger, sync, recent_ms
        self._plans: dict[str, Plan] = {}
        self._of_plan: dict[str, list[str]] = {}  # plan_id -> client order ids
        self._children: dict[str, Child] = {}  # by client order id
        self._of_account: dict[str, dict[str, None]] = {}  # account_id -> client order ids
        self._by_order: dict[tuple[str, str], str] = {}  # (account_id, venue order id) -> client order id
        self._open: dict[str, None] = {}  # the client order ids of those that may be at work
        self._further: dict[str, None] = {}  # of orders that wait to be claimed, each by itself
        self._amended = set[str]()  # client order ids of those that an amendment was sent for
        self._by_amend: dict[tuple[str, str], str] = {}  # (account_id, its amendment's id there) -> client order id
        self._orphaned: dict[str, int] = {}  # since when those have ended whose place another one may have taken
        self._recent: dict[tuple[str, str], deque[Recent]] = {}
        self._fan_outs = 0  # whose last frame has not left
        self._changes: list[store.Change] = []
        self._changed = anyio.Event()
        self._late: deque[str] = deque(maxlen=_MOST_LATE)
        sync.subscribe(self.on_fact)

    # ---- life

    async def recover(self) -> int:
        """Before the first new claim: whatever may be out there becomes UNKNOWN and is asked about. Never resent."""
        since_ms = self._clock.now_ms() - _KEPT_ENDED_MS
        with self._ledger.read() as conn:
            plans = [p for p in store.load_plans(conn, ended=False) if p.state is not PlanState.DRAFT]
            plans += store.load_plans(conn, ended=True, since_ms=since_ms)
            children = store.load_children(conn, [p.plan_id for p in plans])
            amended = store.amended(conn)
        self.will_amend(amended)
        for plan in plans:
            self._plans[plan.plan_id], self._of_plan[plan.plan_id] = plan, []
        for child in children:
            self._keep(child)
            if child.late and child.late_settled_at_ms is None:
                self._late.append(child.client_order_id)
            if child.claim_token:
                self._remember(child, child.sent_at_ms or child.planned_at_ms)
            if self._plans[child.plan_id].state is PlanState.EXECUTING:
                self._interrupted(child)
        unknown = len(self.unknown())
        for desk in self._sync.desks():  # what the books know already will not be told as news again
            for order in desk.book.orders():
                self.on_fact(desk.account_id, order)
        crash.point("recover-before-flush")
        await self.flush()
        crash.point("recover-after-flush")
        for plan in plans:
            self.end_if_done(plan.plan_id)
        return unknown

    async def run(self) -> None:
        """Writes what changed."""
        while True:
            await self._changed.wait()
            await anyio.lowlevel.checkpoint()  # let the answers that are already here join this commit
            while self._fan_outs:  # writing would take the processor from them
                await self._clock.sleep(_FAN_OUT_PAUSE_S)
            await self.flush()

    @contextmanager
    def fan_out(self) -> Iterator[None]:
        """While orders are sent, what becomes of them is not written: after a crash the venue tells it."""
        self._fan_outs += 1
        try:
            yield
        finally:
            self._fan_outs -= 1

    @property
    def fanning_out(self) -> bool:
        """Orders are on their way out: whoever has time waits."""
        return self._fan_outs > 0

    def forget_old(self) -> None:
        """Plans that ended long ago leave the memory; the ledger has them."""
        before_ms = self._clock.now_ms() - _KEPT_ENDED_MS
        for plan_id, plan in list(self._plans.items()):
            children = self.of_plan(plan_id)
            if plan.state.ended and all(c.updated_at_ms < before_ms for c in children):
                del self._plans[plan_id], self._of_plan[plan_id]
                for child in children:
                    del self._children[child.client_order_id]
                    self._by_order.pop((child.account_id, child.venue_order_id), None)
                    self._amended.discard(child.client_order_id)
                    del self._of_account[child.account_id][child.client_order_id]

    # ---- questions

    def plan(self, plan_id: str) -> Plan | None:
        return self._plans.get(plan_id)

    def child(self, client_order_id: str) -> Child | None:
        return self._children.get(client_order_id)

    def of_plan(self, plan_id: str) -> list[Child]:
        return [self._children[c] for c in self._of_plan.get(plan_id, [])]

    def of_account(self, account_id: str) -> list[Child]:
        return [self._children[c] for c in self._of_account.get(account_id, ())]

    def open(self, account_id: str | None = None) -> list[Child]:
        """Those that may be at work: sending, unknown, working."""
        found = [self._children[c] for c in self._open]
        return found if account_id is None else [c for c in found if c.account_id == account_id]

    def unknown(self) -> list[Child]:
        return [c for c in self.open() if c.state is OrderState.UNKNOWN]

    def orphaned_since_ms(self, client_order_id: str) -> int | None:
        """Since when its order has ended, maybe only to make room for another one: the venue is to be asked. None: it
        has not, or what follows is known."""
        return self._orphaned.get(client_order_id)

    def set_waiting(self, child: Child) -> None:
        """A first attempt that does not go with its plan. After a restart it is not sent: see `_interrupted`."""
        assert child.state is OrderState.PLANNED, "nothing of it was sent"
        self._further[child.client_order_id] = None

    def further(self) -> list[Child]:
        """Orders that wait to be sent: further attempts, and first ones that did not go with their plan."""
        return [self._children[c] for c in self._further]

    def attempts(self, child: Child) -> list[Child]:
        """Every attempt of the same account's share of the same leg, this one among them."""
        return [c for c in self.of_plan(child.plan_id) if (c.account_id, c.leg) == (child.account_id, child.leg)]

    def late(self) -> list[Child]:
        """Those that were seen or filled after they had ended, and that nobody has settled."""
        return [c for i in self._late if (c := self._children.get(i)) is not None and c.late_settled_at_ms is None]

    def late_at_work(self, plan_id: str) -> list[Child]:
        """Those that had ended here and are at work at their venue all the same."""
        return [c for c in self.of_plan(plan_id) if c.late and self.shown_at_work(c)]

    def shown_at_work(self, child: Child) -> bool:
        """By what the venue told last of its order."""
        desk = self._sync.desk(child.account_id)
        order = desk.book.order(child.venue_order_id) if desk is not None else None
        return order is not None and order.status is OrderStatus.WORKING

    def find(self, order_id: str) -> Child | None:
        """By its client order id or its child id."""
        found = self._children.get(order_id)
        return found or next((c for c in self._children.values() if c.child_id == order_id), None)

    def recent(self, account_id: str, instrument: str) -> Sequence[Recent]:
        """Orders that went out within the duplicate window."""
        found = self._recent.get((account_id, instrument))
        if not found:
            return ()
        oldest_ms = self._clock.now_ms() - self._recent_ms
        while found and found[0].at_ms < oldest_ms:
            found.popleft()
        return [r for r in found if (c := self._children.get(r.order)) is not None and c.state not in _NEVER_OUT]

    def progress(self, plan_id: str) -> Progress:
        every = self.of_plan(plan_id)
        children = latest(every)
        count = dict.fromkeys(OrderState, 0)
        for child in children:
            count[child.state] += 1
        sent = [c.sent_at_ms for c in children if c.sent_at_ms is not None]
        plan = self._plans[plan_id]
        on_its_way = count[OrderState.SENDING] + count[OrderState.PLANNED]
        return Progress(
            state=plan.state,
            total=len(children),
            sent=len(sent),
            acknowledged=sum(1 for c in children if c.acknowledged_at_ms is not None),
            working=count[OrderState.WORKING],
            filled=count[OrderState.FILLED],
            refused=count[OrderState.REJECTED],
            unknown=count[OrderState.UNKNOWN],
            skipped=count[OrderState.SKIPPED] + count[OrderState.NOT_PLACED],
            ended=sum(n for s, n in count.items() if s in TERMINAL),
            settled=plan.state is not PlanState.APPROVED and on_its_way == 0,
            quantity=sum((c.quantity for c in children), Decimal(0)),
            filled_quantity=sum((c.filled for c in every), Decimal(0)),
            first_sent_ms=min(sent, default=None),
            last_sent_ms=max(sent, default=None),
        )

    async def watch(self, plan_id: str, every_s: float = 0.1) -> AsyncIterator[Progress]:
        """Progress until the plan has settled."""
        while True:
            progress = self.progress(plan_id)
            yield progress
            if progress.settled:
                return
            await self._clock.sleep(every_s)

    # ---- plans

    def adopt(self, plan: Plan, children: Sequence[Child]) -> None:
        """An approved plan and its children, PLANNED and durable. Nothing is sent yet."""
        self._plans[plan.plan_id], self._of_plan[plan.plan_id] = plan, []
        for child in children:
            self._keep(child)

    def turn(self, plan: Plan) -> None:
        """The plan as it is now, where somebody else has written it."""
        if plan.plan_id in self._plans:
            self._plans[plan.plan_id] = plan

    def end(self, plan: Plan, state: PlanState, note: str) -> None:
        """The plan has ended: here at once, in the ledger soon."""
        ended = self._plans[plan.plan_id] = replace(plan, state=state, note=note)
        now_ms = self._clock.now_ms()
        self._ledger.post(lambda conn: store.save_plan(conn, ended, plan.state, now_ms))

    def plans(self) -> list[Plan]:
        return list(self._plans.values())

    def executing(self) -> list[Plan]:
        return [plan for plan in self._plans.values() if plan.state is PlanState.EXECUTING]

    def abort(self, plan: Plan, why: str) -> None:
        """Nothing more of it is sent: here at once, in the ledger soon; after a restart its rules say so again."""
        self._keep_plan(replace(plan, aborted=why))

    def cancelled(self, plan: Plan, by: str) -> None:
        """What of it shows up later is cancelled, too."""
        if not plan.cancelled_by:
            self._keep_plan(replace(plan, cancelled_by=by))

    def _keep_plan(self, plan: Plan) -> None:
        self._plans[plan.plan_id] = plan
        now_ms = self._clock.now_ms()
        try:
            self._ledger.post(lambda conn: store.save_plan(conn, plan, PlanState.EXECUTING, now_ms))
        except LedgerFull:
            log.warning("plan_not_written", plan=plan.plan_id)

    def read_back(self, plan_id: str) -> None:
        """The plan as the ledger has it: an earlier claim took it, though its commit seemed to fail."""
        with self._ledger.read() as conn:
            plan, children = store.load_plan(conn, plan_id), store.load_children(conn, [plan_id])
        if plan is not None and plan.state is PlanState.EXECUTING:
            self._plans[plan_id] = plan
            for child in children:
                self._hold(child)
                self._interrupted(child)
            self.end_if_done(plan_id)

    def read_back_one(self, child: Child) -> None:
        """A further attempt as the ledger has it: the ledger would not claim it as it is here."""
        with self._ledger.read() as conn:
            found = [c for c in store.load_children(conn, [child.plan_id]) if c.child_id == child.child_id]
        for known in found:
            self._hold(known)
            self._interrupted(known)

    # ---- steps

    def claimed(self, child: Child, now_ms: int) -> None:
        """The ledger has it: SENDING under its token, nothing written to the network yet."""
        self._hold(child)
        self._remember(child, now_ms)

    def will_amend(self, amends: Iterable[tuple[str, str, str]]) -> None:
        """Amendments, as (account id, client order id, id of the amendment), are durable and about to leave."""
        for account_id, client_order_id, amend_id in amends:
            self._amended.add(client_order_id)
            if key := self._key_of(account_id, amend_id):
                self._by_amend[account_id, key] = client_order_id

    def replaced(self, child: Child, venue_order_id: str) -> None:
        """The venue has said which order takes the place of the one that was amended."""
        if venue_order_id and venue_order_id != child.venue_order_id and self._replaces(child.account_id):
            self.change(replace(child, venue_order_id=venue_order_id), event="amend_accepted")

    def stamp_sent(self, client_order_id: str, now_ms: int) -> None:
        """Written with the next change: nothing hangs on the stamp alone."""
        child = self._children[client_order_id]
        if child.sent_at_ms is None:
            self._children[client_order_id] = replace(child, sent_at_ms=now_ms)

    def step(
        self,
        child: Child,
        event: OrderEvent,
        reason: str = "",
        successor: Child | None = None,
        settlement: store.Settlement | None = None,
    ) -> None:
        """`child` with its new fields takes this step; one that the table does not have changes nothing.

        `successor` and `settlement` are kept in the transaction that records the step, or not at all.
        """
        before = self._children[child.client_order_id]
        try:
            state = advance(before.state, event)
        except IllegalStep as error:
            log.error("illegal_step", child=child.child_id, step=event.value, error=str(error))
            return
        after = replace(child, state=state, reason=reason or child.reason, updated_at_ms=self._clock.now_ms())
        self.change(after, event=event.value, successor=successor, settlement=settlement)

    def change(
        self,
        after: Child,
        event: str = "",
        successor: Child | None = None,
        settlement: store.Settlement | None = None,
    ) -> None:
        """New fields. `event` goes into the child's log."""
        before = self._children[after.client_order_id]
        if after == before:
            return
        self._hold(after)
        if successor is not None:
            self._keep(successor)
        self._changes.append(store.Change(before, after, event, successor, settlement))
        self._changed.set()

    async def durable(self) -> None:
        """Returns once every step taken so far is written. Raises LedgerDown: they are kept, and written later."""
        await self.flush()
        await self._ledger.write(lambda conn: None)

    def on_facts(self, account_id: str, facts: Iterable[object]) -> None:
        """Facts that are news to nobody else may still be news to a child."""
        for fact in facts:
            if isinstance(fact, OrderFact):
                self.on_fact(account_id, fact)

    def has_no_successor(self, child: Child) -> None:
        """The venue was asked long after the order had ended: no other one took its place."""
        desk = self._sync.desk(child.account_id)
        known = self._orders(desk) if desk is not None else []
        for order in known:
            if order.client_order_id == child.client_order_id:
                *_, last = orders = chain(known, order)
                if not last.replaced_by:  # one that is named is somewhere: no silence of the venue is its end
                    self._hear(child, together(orders), final=True)
                return

    def on_fact(self, account_id: str, fact: AccountFact) -> None:
        """What the venue says of one of our orders moves its child, whichever way it was heard."""
        if type(fact) is FillFact:
            if (order := self._unpriced(account_id, fact)) is None:
                return
            fact = order
        if type(fact) is not OrderFact:
            return
        fact = self._named(account_id, fact)
        child, desk = self._children.get(fact.client_order_id), self._sync.desk(account_id)
        if child is None or child.account_id != account_id:
            return
        fact = _priced(desk, fact)
        amended = child.client_order_id in self._amended and self._replaces(account_id)
        if fact.replaced_by:
            self._by_order[account_id, fact.replaced_by] = child.client_order_id
        several = amended or fact.replaced_by or child.venue_order_id not in ("", fact.venue_order_id)
        if desk is not None and several:
            known = self._orders(desk)
            *before, last = orders = chain(known, fact)
            ended = all(order.status.terminal for order in before)  # else they may still tell of fills
            self._hear(child, together(orders), final=ended and not may_go_on(last, amended=amended))
            return
        self._hear(child, fact, final=not may_go_on(fact, amended=amended))

    def adopt_order(self, child: Child, fact: OrderFact, settlement: store.Settlement) -> None:
        """A person says that this order at the venue, which carries no id of ours, is this child's."""
        self.change(replace(child, venue_order_id=fact.venue_order_id), event="adopted", settlement=settlement)
        self.on_fact(child.account_id, fact)

    def _unpriced(self, account_id: str, fill: FillFact) -> OrderFact | None:
        """The order of this fill, where the venue tells how far it was filled and not at which average."""
        desk = self._sync.desk(account_id)
        order = desk.book.order(fill.venue_order_id) if desk is not None else None
        return order if order is not None and order.filled and order.avg_price is None else None

    def _orders(self, desk: Desk) -> list[OrderFact]:
        """All that its book knows, ours by our names."""
        return [_priced(desk, self._named(desk.account_id, order)) for order in desk.book.orders()]

    def _named(self, account_id: str, fact: OrderFact) -> OrderFact:
        """With our id of the child, where the venue tells the order without it, or by its amendment's."""
        told = fact.client_order_id
        if told in self._children:
            return fact
        mine = self._by_amend.get((account_id, told), "") if told else ""
        mine = mine or self._of_order(account_id, fact)
        return replace(fact, client_order_id=mine) if mine else fact

    def _of_order(self, account_id: str, fact: OrderFact) -> str:
        """Which of ours an order is that the venue tells without our id; "" when it is none of them."""
        found = (self._by_order.get((account_id, name)) for name in (fact.venue_order_id, fact.replaced_by) if name)
        child = self._children.get(next((c for c in found if c), ""))
        return child.client_order_id if child is not None and child.instrument == fact.instrument else ""

    def _hear(self, child: Child, fact: OrderFact, *, final: bool) -> None:
        """`final`: should this order have ended, nothing takes its place."""
        account_id = child.account_id
        now_ms = self._clock.now_ms()
        filled = max(child.filled, fact.filled)
        seen = replace(
            child,
            venue_order_id=fact.venue_order_id or child.venue_order_id,
            filled=filled,
            avg_price=_average(child, fact),
            quantity=child.quantity if fact.quantity_in_quote else fact.quantity,
            price=fact.price if fact.price is not None else child.price,
            acknowledged_at_ms=child.acknowledged_at_ms or now_ms,
            filled_at_ms=now_ms if filled > child.filled else child.filled_at_ms,
            updated_at_ms=now_ms,
        )
        if child.state in TERMINAL:
            contradicted = child.state in _NEVER_THERE and fact.status is not OrderStatus.REJECTED
            if filled > child.filled or (contradicted and not child.late):
                log.error("late", child=child.child_id, account=account_id, was=child.state.value, filled=str(filled))
                if child.client_order_id not in self._late:
                    self._late.append(child.client_order_id)
                self.change(replace(seen, late=True, late_settled_at_ms=None), event="late")
            elif (
                child.late and fact.status is OrderStatus.CANCELLED and child.cancel_state is not CancelState.CONFIRMED
            ):
                confirmed = replace(child, avg_price=seen.avg_price, cancel_state=CancelState.CONFIRMED)
                self.change(confirmed, event="cancelled_late")
            else:
                self.change(replace(child, avg_price=seen.avg_price))
            return
        if child.state is OrderState.PLANNED:
            log.error("seen_before_sent", child=child.child_id, account=account_id)
            self.step(replace(seen, late=True), OrderEvent.SKIP, reason="the venue already has an order with this id")
            return
        if not final:
            self._orphaned[child.client_order_id] = fact.updated_at_ms
            successor = child.venue_order_id or fact.venue_order_id  # it may be known from the amendment's answer
            self.step(replace(seen, venue_order_id=successor), OrderEvent.SEEN)
            return
        self._orphaned.pop(child.client_order_id, None)
        event = EVENT_OF_STATUS[fact.status]
        if child.state is OrderState.UNKNOWN and event is OrderEvent.FINAL_EXPIRY:
            self.step(child, OrderEvent.SEEN)  # what expired was at work before
        cancel_state = CancelState.CONFIRMED if event is OrderEvent.FINAL_CANCEL else child.cancel_state
        self.step(replace(seen, cancel_state=cancel_state), event, reason=fact.reason or child.reason)

    # ---- in memory at once, in the ledger soon

    def _keep(self, child: Child) -> None:
        self._of_plan[child.plan_id].append(child.client_order_id)
        self._of_account.setdefault(child.account_id, {})[child.client_order_id] = None
        self._hold(child)

    def _hold(self, child: Child) -> None:
        self._children[child.client_order_id] = child
        if child.venue_order_id:
            self._by_order[child.account_id, child.venue_order_id] = child.client_order_id
        if child.state in _OPEN:
            self._open[child.client_order_id] = None
        else:
            self._open.pop(child.client_order_id, None)
        if child.state is not OrderState.PLANNED:
            self._further.pop(child.client_order_id, None)
        elif child.attempt > 1:
            self._further[child.client_order_id] = None

    def _remember(self, child: Child, at_ms: int) -> None:
        """For the duplicate window."""
        self._recent.setdefault((child.account_id, child.instrument), deque()).append(
            Recent(
                plan_id=child.plan_id,
                side=child.side,
                quantity=child.quantity,
                order_type=child.order_type,
                price=child.price,
                trigger_price=child.trigger_price,
                at_ms=at_ms,
                order=child.client_order_id,
            )
        )

    def _interrupted(self, child: Child) -> None:
        """A child of a plan at work that nobody is sending: what may be out there is asked about, never resent."""
        if child.state is OrderState.SENDING:
            self.step(child, OrderEvent.NO_ANSWER, reason="the engine stopped before the answer came")
        elif child.state is OrderState.PLANNED and child.attempt == 1:
            # The claim took everyone who was to go: this one was denied or cancelled, and somebody may know. A further
            # attempt is claimed by itself, after a look of its own: it waits.
            self.step(child, OrderEvent.SKIP, reason="the engine stopped before it was sent")

    async def flush(self) -> None:
        """Hands what changed to the ledger's queue."""
        changes = self._changes
        if not changes:
            return
        self._changed = anyio.Event()
        try:
            self._ledger.post(lambda conn: store.record_changes(conn, changes))
        except LedgerFull:  # the steps stay here, in order, until there is room
            log.error("steps_wait", steps=len(changes))
            await self._clock.sleep(_FULL_PAUSE_S)
            self._changed.set()
            return
        self._changes = self._changes[len(changes) :]
        crash.point("steps-posted")
        for plan_id in {c.after.plan_id for c in changes}:
            self.end_if_done(plan_id)

    def end_if_done(self, plan_id: str) -> None:
        plan = self._plans[plan_id]
        if plan.state is not PlanState.EXECUTING:
            return
        children = self.of_plan(plan_id)
        if any(c.state not in TERMINAL for c in children):
            return
        whole = all(c.state is OrderState.FILLED for c in latest(children))
        short = PlanState.ABORTED if plan.aborted else PlanState.DONE_WITH_SHORTFALL
        self.end(plan, PlanState.DONE if whole else short, plan.note)


def _priced(desk: Desk | None, order: OrderFact) -> OrderFact:
    """With its average by its fills, where the venue does not tell it."""
    if desk is None or not order.filled or order.avg_price is not None:
        return order
    average = desk.book.average(order)
    return order if average is None else replace(order, avg_price=average)


def _average(child: Child, told: OrderFact) -> Decimal | None:
    """Of all that the child got: what is told of more or as much holds, nothing else is true of more."""
    if told.filled < child.filled or (told.filled == child.filled and told.avg_price is None):
        return child.avg_price
    return told.avg_price
