"""Holds. The running engine as planning sees it: accounts, markets and the store of plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from accounts.model import Account, AccountState, Group, Mandate
from engine.children import Children
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.limits import Recent, Reference
from engine.core.plans import Child, Plan, PlanState
from engine.core.venue import Venue
from engine.kill import KillSwitch
from engine.ledger import Ledger
from engine.ledger import plans as store
from engine.links import Links
from engine.losses import Losses
from engine.roster import Roster
from engine.sync import Sync
from engine.worth import Worths
from scheduler.clock import Clock

_ZERO = Decimal(0)
_DAY_MS = 24 * 3600 * 1000
_LATELY_MS = 60_000
_HEDGED = "it holds long and short side by side (hedge mode); orders go to net positions only"
_READ_ONLY = "its key may read but not trade"


class LiveAccount:
    """One account at this moment: what `core.limits` and the planner ask of it."""

    __slots__ = ("_desk", "_link", "_office", "account")

    def __init__(self, office: LiveAccounts, account: Account) -> None:
        self._office, self.account = office, account
        self._desk = office.sync.desk(account.account_id)
        self._link = office.links.of_listener(account.account_id, office.roster.fact_kind(account.account_id))

    @property
    def state(self) -> AccountState:
        return self.account.state

    @property
    def mandate(self) -> Mandate | None:
        return self._office.roster.mandates.get(self.account.account_id)

    def day_notional(self, now_ms: int) -> Decimal:
        return sum((self._notional(child) for child in self._sent_since(now_ms // _DAY_MS * _DAY_MS)), _ZERO)

    def orders_lately(self, now_ms: int) -> int:
        return len(self._sent_since(now_ms - _LATELY_MS))

    def lost_today(self, currency: str, now_ms: int) -> Decimal | None:
        """In this currency; nothing lost is 0."""
        loss = self._office.losses.of(self.account.account_id)
        if loss is None or loss.lost <= 0:
            return None if loss is None else _ZERO
        if self._office.worths.at_par(loss.currency, currency):
            return loss.lost
        nav = self.nav(currency)
        return None if nav is None or loss.now <= 0 else loss.lost * nav / loss.now

    def _sent_since(self, since_ms: int) -> list[Child]:
        mine = self._office.children.of_account(self.account.account_id)
        return [child for child in mine if child.sent_at_ms is not None and child.sent_at_ms >= since_ms]

    def _notional(self, child: Child) -> Decimal:
        """What it was good for when it went out; a market order, what it is good for at today's price."""
        account = self.account
        instrument = self._office.sync.catalogue(account.venue, account.environment).by_name(child.instrument)
        mark = self._office.worths.mark(account.venue, account.environment, child.instrument)
        price = child.price or child.trigger_price or child.avg_price or (mark.price if mark is not None else None)
        return _ZERO if instrument is None or price is None else instrument.notional(child.quantity, price)

    @property
    def halted(self) -> str:
        identity = self._office.roster.identities.get(self.account.account_id)
        if identity is None:
            return ""
        return _HEDGED if identity.hedged else "" if identity.may_trade else _READ_ONLY

    @property
    def credentials_refused(self) -> str:
        return self._office.roster.halted.get(self.account.account_id, "")

    @property
    def killed(self) -> str:
        return self._office.kill.reason(self.account.account_id)

    @property
    def live(self) -> bool:
        return self._link is not None and self._link.live

    @property
    def phase(self) -> str:
        return "closed" if self._link is None else self._link.phase.value

    @property
    def last_heard_ms(self) -> int | None:
        return None if self._link is None else self._link.view().last_heard_at_ms

    @property
    def proven(self) -> bool:
        return self._desk is not None and self._desk.proven

    @property
    def gap_since_ms(self) -> int | None:
        return self._office.gap_since(self.account.account_id)

    def nav(self, currency: str) -> Decimal | None:
        return None if self._desk is None else self._office.worths.nav(self.account.account_id, currency)

    def available(self, currency: str) -> Decimal | None:
        if self._desk is None:
            return None
        stated = self._desk.book.stated_balances
        if not stated:
            return None
        balance = stated.get(currency)
        if balance is None:
            return _ZERO
        return balance.available if balance.available is not None else balance.cash

    def held(self, instrument: Instrument) -> Mapping[str, Decimal]:
        if self._desk is None:
            return {}
        book = self._desk.book
        if instrument.kind is InstrumentKind.SPOT:
            return {"net": book.cash.get(instrument.base, _ZERO) / instrument.multiplier}  # in lots, not pieces
        return {side: quantity for (name, side), quantity in book.quantities().items() if name == instrument.name}

    def recent_orders(self, instrument: str) -> Sequence[Recent]:
        return self._office.children.recent(self.account.account_id, instrument)


class LiveAccounts:
    """Who is under management, as they are now."""

    def __init__(
        self,
        *,
        roster: Roster,
        sync: Sync,
        links: Links,
        kill: KillSwitch,
        children: Children,
        gap_since: Callable[[str], int | None],
        worths: Worths,
        losses: Losses,
    ) -> None:
        self.roster, self.sync, self.links, self.kill, self.children = roster, sync, links, kill, children
        self.gap_since, self.worths, self.losses = gap_since, worths, losses

    def group(self, group_id: str) -> Group | None:
        return self.roster.groups.get(group_id)

    def view(self, account_id: str) -> LiveAccount | None:
        """None for a feed of prices too: it has no orders that anybody could look at."""
        account = self.roster.accounts.get(account_id)
        if account is None or not self.roster.venue(account_id).capabilities.trades:
            return None
        return LiveAccount(self, account)


class LiveMarket:
    """Instruments and reference prices, as they are now."""

    def __init__(self, *, roster: Roster, sync: Sync, worths: Worths) -> None:
        self._roster, self._sync, self._worths = roster, sync, worths

    def venue(self, name: str) -> Venue:
        return self._roster.venues[name]

    def knows(self, venue: str, environment: str) -> bool:
        return self._sync.catalogue(venue, environment).whole

    def instrument(self, venue: str, environment: str, name: str) -> Instrument | None:
        """None also while the list is one of an earlier run: lots and ticks may have changed since."""
        catalogue = self._sync.catalogue(venue, environment)
        return catalogue.by_name(name) if catalogue.whole else None

    def reference(self, venue: str, environment: str, name: str) -> Reference | None:
        mark = self._worths.mark(venue, environment, name)
        if mark is None:
            return None
        return Reference(price=mark.price, at_ms=mark.as_of_ms, source=f"{mark.basis} from {mark.source}")


class LedgerPlans:
    """Plans in the ledger, durably on return; what is approved is handed to those at work."""

    def __init__(self, *, ledger: Ledger, children: Children, clock: Clock) -> None:
        self._ledger, self._children, self._clock = ledger, children, clock

    async def load(self, plan_id: str) -> Plan | None:
        with self._ledger.read() as conn:
            return store.load_plan(conn, plan_id)

    async def unfinished(self) -> Sequence[Plan]:
        with self._ledger.read() as conn:
            found = store.load_plans(conn, ended=False)
        return [p for p in found if p.state is not PlanState.EXECUTING]

    async def save(self, plan: Plan, was: PlanState | None) -> bool:
        now_ms = self._clock.now_ms()
        kept = await self._ledger.write(lambda conn: store.save_plan(conn, plan, was, now_ms), first=True)
        if kept and plan.state.ended:
            self._children.turn(plan)
        return kept

    async def save_approved(self, plan: Plan, children: Sequence[Child]) -> bool:
        now_ms = self._clock.now_ms()
        kept = await self._ledger.write(lambda conn: store.save_approved(conn, plan, children, now_ms), first=True)
        if kept:
            self._children.adopt(plan, children)
        return kept
