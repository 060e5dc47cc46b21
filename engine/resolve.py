"""Does. Asks what became of orders whose outcome is not known, until the venue's own evidence says so.

Never sends anything that could trade. Order of asking: the order itself by our id; past the quarantine also the
complete list of open orders and the fills since the claim. Three complete rounds that do not show it, with our
clock right, are the negative proof. An error is never "not found". Where a venue cannot be asked by our id, absence is
never proven: a person decides.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import msgspec
import structlog

from engine import crash
from engine.children import Children
from engine.core.facts import Fact, FillFact, OrderFact
from engine.core.orders import CancelState, OrderEvent, OrderState
from engine.core.plans import Child
from engine.core.venue import ErrorClass, Priority, Read, VenueError
from engine.execute import Executor
from engine.roster import Roster
from engine.sync import Sync
from engine.wire.http import Http, NoAnswer
from scheduler.clock import Clock

log = structlog.get_logger("resolve")

_DELAYS_S = (0.5, 0.5, 0.5, 0.5, 2.0, 10.0, 60.0)
_PROOF_ROUNDS = 3
_PROOF_SPACING_S = 2.0
_CLOCK_SPACING_S = 5.0  # while the proof has to wait for the clocks
CLOCK_TOLERANCE_MS = 500
_QUARANTINE_WITHOUT_EXPIRY_MS = 60_000
_LOOK_BACK_MS = 300_000  # from the deadline of the claim: well before the claim itself
_ASK_A_PERSON_MS = 900_000  # since its deadline
_CANCEL_CONFIRMED_MS = 5_000
_SWEEP_S = 0.25
_AT_ONCE = 32


class _Case(msgspec.Struct):
    """One question that is open."""

    due_s: float
    asked: int = 0
    rounds: int = 0
    escalated: bool = False
    asking: bool = False
    clock_told: bool = False  # the proof waits for the clocks to agree, and that was said


class Resolver:
    def __init__(
        self,
        *,
        clock: Clock,
        children: Children,
        executor: Executor,
        http: Http,
        roster: Roster,
        sync: Sync,
        send_timeout_s: float,
        after: Callable[[Child], tuple[Child | None, str]],
    ) -> None:
        """`after` tells what follows a child whose absence is proven: its next attempt, or why there is none."""
        self._clock, self._children, self._executor, self._http = clock, children, executor, http
        self._roster, self._sync, self._after = roster, sync, after
        self._send_timeout_ms = round(send_timeout_s * 1000)
        self._cases: dict[str, _Case] = {}
        self._room = anyio.CapacityLimiter(_AT_ONCE)

    @property
    def escalated(self) -> list[Child]:
        """Children a person should look at: unknown for longer than the limit."""
        found = (self._children.child(c) for c, case in self._cases.items() if case.escalated)
        return [c for c in found if c is not None]

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            while True:
                now_s, now_ms = self._clock.monotonic_s(), self._clock.now_ms()
                asked_about = {
                    c.client_order_id: c
                    for c in self._children.open()
                    if _doubtful(c, now_ms) or self._children.orphaned_since_ms(c.client_order_id) is not None
                }
                for gone in self._cases.keys() - asked_about.keys():
                    del self._cases[gone]
                for client_order_id, child in asked_about.items():
                    case = self._cases.get(client_order_id)
                    if case is None:
                        case = self._cases[client_order_id] = _Case(due_s=now_s + _DELAYS_S[0])
                    if not case.escalated and self._overdue(child):
                        case.escalated = True
                        log.error("order_unknown", child=child.child_id, account=child.account_id, reason=child.reason)
                    if case.due_s <= now_s and not case.asking:
                        case.asking = True
                        group.start_soon(self._ask, child, case)
                await self._clock.sleep(_SWEEP_S)

    async def _ask(self, child: Child, case: _Case) -> None:
        async with self._room:
            try:
                await self._look_up(child, case)
            except (VenueError, NoAnswer) as error:
                log.warning("resolve_failed", child=child.child_id, account=child.account_id, error=str(error))
            except Exception:  # a mistake of ours: this order stays unknown, the others are asked about
                log.exception("resolve_failed", child=child.child_id, account=child.account_id)
            finally:
                case.asked += 1
                delay_s = _DELAYS_S[min(case.asked, len(_DELAYS_S) - 1)]
                if child.state is OrderState.UNKNOWN:
                    left_s = self.quarantine_left_s(child)
                    if left_s > 0:
                        spacing_s = max(left_s, _DELAYS_S[0])
                    else:
                        spacing_s = _CLOCK_SPACING_S if case.clock_told else _PROOF_SPACING_S
                    delay_s = min(delay_s, spacing_s)
                case.due_s = self._clock.monotonic_s() + delay_s
                case.asking = False

    async def _look_up(self, child: Child, case: _Case) -> None:
        account_id = child.account_id
        instrument = self._roster.catalogue(account_id).by_name(child.instrument)
        if instrument is None or account_id not in self._roster.accounts:
            return
        origin, rest = self._roster.origin(account_id), self._roster.rest(account_id)
        capabilities = self._roster.venue(account_id).capabilities
        if not (capabilities.lookup_by_client_id or child.venue_order_id):
            await self._shown_anywhere(child)  # what it shows counts; that it shows nothing proves nothing
            return
        now_ms = self._http.venue_now_ms(origin.venue.name, origin.environment)
        read = rest.order(instrument, child.client_order_id, child.venue_order_id)
        try:
            facts = [f async for page in self._http.walk(origin, read, priority=Priority.RESOLVE) for f in page.facts]
        except VenueError as error:
            if error.error_class is not ErrorClass.NOT_FOUND:
                raise
            self._end_of_succession(child, now_ms)
        else:
            self._sync.fetched(account_id, facts, self._clock.now_ms())
            self._children.on_facts(account_id, facts)  # also where the book knew it before
            self._end_of_succession(child, now_ms)
            await self._cancel_again(child.client_order_id)
            return
        if child.state is not OrderState.UNKNOWN or self.quarantine_left_s(child) > 0:
            return
        if capabilities.lookup_ms is not None and now_ms - child.send_by_ms > capabilities.lookup_ms:
            return  # it may have been there and be forgotten: absence proves nothing any more
        if not self._http.clock_within(origin, CLOCK_TOLERANCE_MS):
            if not case.clock_told:
                case.clock_told = True
                log.warning("negative_proof_waits", child=child.child_id, reason="our clock and the venue's differ")
            return
        case.clock_told = False
        if await self._shown_anywhere(child):
            return
        case.rounds += 1
        if case.rounds >= _PROOF_ROUNDS:
            log.info("negative_proof", child=child.child_id, account=account_id, rounds=case.rounds)
            crash.point("resolve-before-proof")
            self._proven_absent(child.client_order_id)

    def _end_of_succession(self, child: Child, now_ms: int) -> None:
        """Its order has ended, and long after that the venue shows none in its place: there will be none."""
        child = self._children.child(child.client_order_id) or child
        lag_ms = self._roster.venue(child.account_id).capabilities.max_read_lag_ms + CLOCK_TOLERANCE_MS
        ended_ms = self._children.orphaned_since_ms(child.client_order_id)
        if ended_ms is not None and now_ms - ended_ms > lag_ms:
            self._children.has_no_successor(child)

    def _proven_absent(self, client_order_id: str) -> None:
        """The venue never had it. What may follow is planned in the transaction that records this."""
        child = self._children.child(client_order_id)
        if child is None or child.state is not OrderState.UNKNOWN:
            return
        follows, why = self._after(child)
        then = f"not sent anew: {why}" if follows is None else f"sent anew as attempt {follows.attempt}"
        reason = f"proven: the venue never had it; {then}"
        self._children.step(child, OrderEvent.NEGATIVE_PROOF, reason=reason, successor=follows)

    async def shows(self, child: Child) -> bool:
        """Asked now, for a person: does the venue show it, by our id, among its open orders or its fills since?

        What it shows counts, as ever. Raises VenueError or NoAnswer: then nobody knows.
        """
        account_id = child.account_id
        rest, capabilities = self._roster.rest(account_id), self._roster.venue(account_id).capabilities
        instrument = self._roster.catalogue(account_id).by_name(child.instrument)
        if instrument is None:
            raise NoAnswer(f"the list of instruments lacks {child.instrument}", written=False)
        if capabilities.lookup_by_client_id or child.venue_order_id:
            read = rest.order(instrument, child.client_order_id, child.venue_order_id)
            if facts := await self.find(account_id, read):
                self._children.on_facts(account_id, facts)
                return True
        return await self._shown_anywhere(child)

    async def find(self, account_id: str, read: Read) -> list[Fact]:
        """What the venue tells of one order; nothing where it knows none. Raises VenueError or NoAnswer."""
        origin = self._roster.origin(account_id)
        try:
            facts = [f async for page in self._http.walk(origin, read, priority=Priority.RESOLVE) for f in page.facts]
        except VenueError as error:
            if error.error_class is not ErrorClass.NOT_FOUND:
                raise
            return []
        self._sync.fetched(account_id, facts, self._clock.now_ms())
        return facts

    async def _shown_anywhere(self, child: Child) -> bool:
        """Complete reads of open orders and of fills since the claim; raises when one of them failed."""
        account_id = child.account_id
        origin, rest = self._roster.origin(account_id), self._roster.rest(account_id)
        # By the venue's clock, as the claim's deadline is: our own may have been set since the order was planned.
        now_ms = self._http.venue_now_ms(origin.venue.name, origin.environment)
        since_ms = child.send_by_ms - _LOOK_BACK_MS
        shown = False
        for read in (*rest.open_orders(), *rest.fills(since_ms, now_ms)):
            async for page in self._http.walk(origin, read, priority=Priority.RESOLVE):
                self._sync.fetched(account_id, page.facts, self._clock.now_ms())
                shown = shown or any(
                    isinstance(f, OrderFact | FillFact) and f.client_order_id == child.client_order_id
                    for f in page.facts
                )
        return shown

    async def _cancel_again(self, client_order_id: str) -> None:
        """The venue shows it at work though a cancel was sent and its fate is unknown: cancelling again is safe."""
        child = self._children.child(client_order_id)
        if child is not None and child.state is OrderState.WORKING and _cancel_wanted(child, self._clock.now_ms()):
            await self._executor.cancel_orders([child])

    def quarantine_left_s(self, child: Child) -> float:
        """How long the request may still take effect at the venue without showing in its reads.

        It may be on its way until its deadline, and an answer to it for as long as we wait for one; what came of it
        shows in the venue's reads when they have caught up; and the clocks may differ by what the proof allows.
        """
        account = self._roster.account(child.account_id)
        capabilities = self._roster.venues[account.venue].capabilities
        left_ms = self._send_timeout_ms + capabilities.max_read_lag_ms + CLOCK_TOLERANCE_MS
        if capabilities.request_expiry_ms is None:  # nothing but time keeps it from being carried out late
            left_ms = max(left_ms, _QUARANTINE_WITHOUT_EXPIRY_MS)
        end_ms = child.send_by_ms + left_ms
        return (end_ms - self._http.venue_now_ms(account.venue, account.environment)) / 1000

    def _overdue(self, child: Child) -> bool:
        """Without proof for so long, a person is asked. Counted from its deadline, which a restart does not move."""
        if child.state is not OrderState.UNKNOWN or child.account_id not in self._roster.accounts:
            return False
        account = self._roster.account(child.account_id)
        return self._http.venue_now_ms(account.venue, account.environment) - child.send_by_ms > _ASK_A_PERSON_MS


def _cancel_wanted(child: Child, now_ms: int) -> bool:
    """A cancel whose fate is unknown; one that was sent long ago and never confirmed is that, too."""
    if child.cancel_state is CancelState.SENDING:
        return abs(now_ms - child.updated_at_ms) > _CANCEL_CONFIRMED_MS  # our clock may have been set back: ask then
    return child.cancel_state in (CancelState.REQUESTED, CancelState.UNKNOWN)


def _doubtful(child: Child, now_ms: int) -> bool:
    return child.state is OrderState.UNKNOWN or (child.state is OrderState.WORKING and _cancel_wanted(child, now_ms))
