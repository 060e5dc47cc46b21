"""Does. Takes a person's word about an order where the venue's own is not to be had, or came too late.

Three things can be said: it was never placed; it is this order at the venue, which does not carry our id; what turned
up late has been seen to. The venue is asked first: where it knows better, or may still come to know, nothing is
settled. Settling never sends anything, and no further attempt follows from it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Protocol, TypeVar

import msgspec
import structlog

from engine.children import Children
from engine.core.facts import Fact, OrderFact, OrderStatus
from engine.core.orders import OrderEvent, OrderState
from engine.core.plans import Child
from engine.core.venue import Read, VenueError
from engine.ledger.plans import Settlement
from engine.roster import Roster
from engine.wire.http import NoAnswer
from scheduler.clock import Clock

log = structlog.get_logger("settle")

_Answer = TypeVar("_Answer")
_OLDER_MS = 300_000  # an order that was made so long before ours could be sent is not ours


class Word(StrEnum):
    NOT_PLACED = "not-placed"
    PLACED = "placed"
    ACCEPTED = "accepted"


class Asked(Protocol):
    """The venue, as `engine.resolve` asks it."""

    def quarantine_left_s(self, child: Child) -> float: ...
    async def shows(self, child: Child) -> bool: ...
    async def find(self, account_id: str, read: Read) -> list[Fact]: ...


class NotSettled(Exception):
    """Nothing was settled; the sentence says why, and what to do next."""


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the order; of a rehearsal, what would."""

    account_id: str
    client_order_id: str
    was: str
    now: str
    what: str
    rehearsed: bool


class Settler:
    def __init__(self, *, clock: Clock, children: Children, roster: Roster, asked: Asked) -> None:
        self._clock, self._children, self._roster, self._asked = clock, children, roster, asked

    async def settle(
        self, order_id: str, word: str, venue_order_id: str, *, by: str, why: str, unasked: bool, rehearse: bool
    ) -> Settled:
        """`unasked`: also where the venue cannot be asked. Raises NotSettled; LedgerDown, LedgerFull when it is not
        written yet."""
        child = self._children.find(order_id)
        if child is None:
            raise NotSettled(f"there is no order {order_id} at work here. List them with: unisono orders")
        match word:
            case Word.NOT_PLACED:
                take = await self._absent(child, unasked)
            case Word.PLACED:
                take = await self._adopt(child, venue_order_id)
            case Word.ACCEPTED:
                take = await self._late(child, unasked)
            case _:
                raise NotSettled(f"{word!r} cannot be said of an order: not-placed, placed=VENUE_ORDER_ID, accepted")
        what = f"placed as {venue_order_id}" if word == Word.PLACED else word
        now = self._children.child(child.client_order_id)
        if now is None or (now.state, now.claim_token, now.late) != (child.state, child.claim_token, child.late):
            raise NotSettled(f"order {order_id} moved on while the venue was asked: {_told(now or child)}")
        if not rehearse:
            take(now, Settlement(by, what, why))
            log.warning("order_settled", child=now.child_id, account=now.account_id, by=by, what=what, why=why)
            await self._children.durable()
            now = self._children.child(child.client_order_id) or now
        return Settled(
            account_id=child.account_id,
            client_order_id=child.client_order_id,
            was=_told(child),
            now=_told(now),
            what=what,
            rehearsed=rehearse,
        )

    async def _absent(self, child: Child, unasked: bool) -> Callable[[Child, Settlement], None]:
        self._require_unknown(child)
        if await self._ask(child, unasked, lambda: self._asked.shows(child)):
            raise NotSettled(
                f"the venue shows order {child.client_order_id}: {_told(self._now(child))}. Nothing was settled; "
                "look with: unisono orders"
            )

        def take(now: Child, word: Settlement) -> None:
            reason = f"{word.by} says that it was never placed: {word.why}"
            self._children.step(now, OrderEvent.DECIDED_ABSENT, reason=reason, settlement=word)

        return take

    async def _adopt(self, child: Child, venue_order_id: str) -> Callable[[Child, Settlement], None]:
        self._require_unknown(child)
        found = await self._ask(child, False, lambda: self._order(child, venue_order_id))
        if found is None:
            raise NotSettled(f"the venue knows no order {venue_order_id} of {child.account_id}. Nothing was settled")
        if against := self._not_it(child, found):
            raise NotSettled(f"order {venue_order_id} is not {child.client_order_id}: {against}. Nothing was settled")
        order = found
        return lambda now, word: self._children.adopt_order(now, order, word)

    async def _late(self, child: Child, unasked: bool) -> Callable[[Child, Settlement], None]:
        if not child.late:
            raise NotSettled(f"order {child.client_order_id} did not turn up late: {_told(child)}. Nothing was settled")
        if child.late_settled_at_ms is not None:
            raise NotSettled(f"order {child.client_order_id} is settled already. Nothing was changed")
        found = await self._ask(child, unasked, lambda: self._order(child, child.venue_order_id))
        if self._children.shown_at_work(child) or (found is not None and found.status is OrderStatus.WORKING):
            raise NotSettled(
                f"order {child.client_order_id} is at work at the venue. Nothing was settled; cancel it first: "
                f"unisono plan cancel {child.plan_id}"
            )

        def take(now: Child, word: Settlement) -> None:
            now_ms = self._clock.now_ms()
            settled = msgspec.structs.replace(now, late_settled_at_ms=now_ms, updated_at_ms=now_ms)
            self._children.change(settled, event="late_settled", settlement=word)

        return take

    def _require_unknown(self, child: Child) -> None:
        if child.state is not OrderState.UNKNOWN:
            then = ". What turned up late is settled with: --as accepted" if child.late else ""
            raise NotSettled(
                f"order {child.client_order_id} is {child.state.value}, its fate is known. Nothing was settled{then}"
            )
        if child.account_id in self._roster.accounts and (left_s := self._asked.quarantine_left_s(child)) > 0:
            raise NotSettled(
                f"order {child.client_order_id} may still show at the venue for {left_s:.0f} s. Nothing was settled; "
                "wait, it is asked about all the time"
            )

    async def _ask(self, child: Child, unasked: bool, question: Callable[[], Awaitable[_Answer]]) -> _Answer | None:
        """None where the venue could not be asked, and that is known."""
        try:
            if child.account_id not in self._roster.accounts:
                raise NoAnswer("the account is not under management any more", written=False)
            return await question()
        except (VenueError, NoAnswer) as error:
            if unasked:
                return None
            raise NotSettled(
                f"the venue could not be asked about order {child.client_order_id}: {error}. Nothing was settled; try "
                "again. Where it cannot be asked for good, say so with --unasked"
            ) from None

    async def _order(self, child: Child, venue_order_id: str) -> OrderFact | None:
        instrument = self._roster.catalogue(child.account_id).by_name(child.instrument)
        if instrument is None:
            raise NoAnswer(f"the list of instruments lacks {child.instrument}", written=False)
        read = self._roster.rest(child.account_id).order(instrument, "", venue_order_id)
        facts = await self._asked.find(child.account_id, read)
        return next((f for f in facts if isinstance(f, OrderFact) and f.venue_order_id == venue_order_id), None)

    def _not_it(self, child: Child, order: OrderFact) -> str:
        """Why this order at the venue cannot be the child's; "" where nothing speaks against it."""
        if order.client_order_id not in ("", child.client_order_id):
            return f"it carries the id {order.client_order_id}"
        if (order.instrument, order.side) != (child.instrument, child.side):
            return f"it is to {order.side.value} {order.instrument}"
        if not order.quantity_in_quote and order.quantity != child.quantity:
            return f"it is for {order.quantity}, not for {child.quantity}"
        if order.created_at_ms and order.created_at_ms < child.send_by_ms - _OLDER_MS:
            return "it was made before ours was sent"
        for other in self._children.of_account(child.account_id):
            if other.venue_order_id == order.venue_order_id and other.client_order_id != child.client_order_id:
                return f"it is that of our order {other.client_order_id}"
        return ""

    def _now(self, child: Child) -> Child:
        return self._children.child(child.client_order_id) or child


def _told(child: Child) -> str:
    late = "" if not child.late else ", late" if child.late_settled_at_ms is None else ", late and settled"
    return f"{child.state.value}{late}, {child.filled} of {child.quantity} filled"
