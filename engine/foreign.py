"""Does. Watches for what nobody here ordered: orders and fills placed elsewhere, and what venues do by themselves."""

from __future__ import annotations

from collections import OrderedDict

import msgspec
import structlog

from engine.children import Children
from engine.core.facts import AccountFact, FillFact, OrderFact
from engine.core.foreign import acted
from engine.ledger import Ledger, questions
from engine.roster import Roster
from engine.sync import Sync
from scheduler.clock import Clock

log = structlog.get_logger("foreign")

_KEPT_MS = 24 * 3_600_000
_MOST = 10_000  # the oldest give way: the ledger has them all


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An order or a fill that is none of ours."""

    account_id: str
    fact: OrderFact | FillFact

    @property
    def acted(self) -> bool:
        return acted(self.fact.venue_action)


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Of the last 24 hours."""

    orders: int
    fills: int
    venue_actions: int


class Foreign:
    def __init__(self, *, clock: Clock, ledger: Ledger, sync: Sync, roster: Roster, children: Children) -> None:
        self._ledger = ledger
        self._clock, self._sync, self._roster, self._children = clock, sync, roster, children
        self._seen: OrderedDict[tuple[str, str, str], Seen] = OrderedDict()
        sync.subscribe(self.on_fact)

    def load(self) -> None:
        """What the ledger has of the last day: nobody is told of it anew."""
        since_ms = self._clock.now_ms() - _KEPT_MS
        with self._ledger.read() as conn:
            for account_id, fact in questions.traded_since(conn, since_ms, limit=_MOST):
                self._take(account_id, fact)

    def on_fact(self, account_id: str, fact: AccountFact) -> None:
        if not isinstance(fact, OrderFact | FillFact) or not self._take(account_id, fact):
            return
        if acted(fact.venue_action):
            log.error(
                "venue_action",
                account=account_id,
                action=fact.venue_action,
                instrument=fact.instrument,
                side=fact.side.value,
                quantity=str(fact.quantity),
                order=fact.venue_order_id,
                next="look at the account's position against its group: unisono deviations",
            )

    def lately(self) -> list[Seen]:
        """Of the last 24 hours. What turned out to be ours is left out."""
        since_ms = self._clock.now_ms() - _KEPT_MS
        for key, one in list(self._seen.items()):
            if one.fact.at_ms < since_ms or self._is_ours(one.account_id, one.fact):
                del self._seen[key]
        return list(self._seen.values())

    def counts(self) -> Counts:
        seen = self.lately()
        orders = {(s.account_id, s.fact.venue_order_id): s.acted for s in seen}
        return Counts(
            orders=sum(isinstance(s.fact, OrderFact) for s in seen),
            fills=sum(isinstance(s.fact, FillFact) for s in seen),
            venue_actions=sum(orders.values()),
        )

    def actions(self) -> dict[tuple[str, str, str], list[Seen]]:
        """What venues did by themselves, by account, instrument and action."""
        found: dict[tuple[str, str, str], list[Seen]] = {}
        for one in self.lately():
            if one.acted:
                found.setdefault((one.account_id, one.fact.instrument, one.fact.venue_action), []).append(one)
        return found

    def _take(self, account_id: str, fact: OrderFact | FillFact) -> bool:
        """True when it is the first word of something that is none of ours."""
        key = (account_id, type(fact).__name__, fact.fill_id if isinstance(fact, FillFact) else fact.venue_order_id)
        if self._is_ours(account_id, fact):
            self._seen.pop(key, None)  # what was told of it before did not say so
            return False
        if fact.at_ms < self._clock.now_ms() - _KEPT_MS:
            return False
        new = key not in self._seen
        self._seen[key] = Seen(account_id=account_id, fact=fact)
        if len(self._seen) > _MOST:
            self._seen.popitem(last=False)
        return new

    def _is_ours(self, account_id: str, fact: OrderFact | FillFact) -> bool:
        """By its id, or its order's; what a person said is ours is told by the venue's id."""
        name = fact.client_order_id
        if not name and (desk := self._sync.desk(account_id)) is not None:
            order = desk.book.order(fact.venue_order_id)
            name = "" if order is None else order.client_order_id
        if name and (self._children.child(name) is not None or self._owns(account_id, name)):
            return True  # else a venue may have made up an id for an order that it made of ours
        names = {fact.venue_order_id, fact.replaced_by if isinstance(fact, OrderFact) else ""} - {""}
        return any(child.venue_order_id in names for child in self._children.of_account(account_id))

    def _owns(self, account_id: str, client_order_id: str) -> bool:
        known = self._roster.accounts.get(account_id)
        return known is not None and self._roster.venues[known.venue].owns_order_id(client_order_id)
