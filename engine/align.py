"""Does. Looks how far a group's accounts have come apart, and drafts the one plan that brings them back in line."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from accounts.model import Group, Model, ModelLine
from engine.core.deviations import Against, Deviations, from_median, from_plans, proposal
from engine.core.drafts import PlanRefused
from engine.core.models import subject
from engine.core.plans import Plan
from engine.core.preview import AccountsView, MarketView
from engine.ledger import Ledger, questions
from engine.plan import Planner
from engine.worth import Worths
from scheduler.clock import Clock

_HOUR_MS = 3_600_000
_MOST_HOURS = 24 * 31

Moved = Mapping[tuple[str, str], Mapping[str, Decimal]]


class Aligner:
    def __init__(
        self,
        *,
        clock: Clock,
        ledger: Ledger,
        accounts: AccountsView,
        market: MarketView,
        worths: Worths,
        planner: Planner,
    ) -> None:
        self._clock, self._ledger, self._accounts, self._market = clock, ledger, accounts, market
        self._worths, self._planner = worths, planner

    def instruments(self, group_id: str, against: Against, hours: Decimal) -> Model:
        """What there is to look at, in the shape in which prices are asked for. Raises PlanRefused."""
        group = self._group(group_id)
        if against is Against.PLANS:
            names = {name for _, name in self._moved(group, hours)}
        else:
            names = {s.instrument for w in group.weights for s in self._worths.standings(w.account_id)}
        lines = tuple(ModelLine(instrument=name, weight=Decimal(0)) for name in sorted(names))
        return Model(model_id=group_id, name=group_id, cash=Decimal(100), lines=lines)

    def look(
        self, wanted: Model, group_id: str, against: Against, *, hours: Decimal, band: Decimal, currency: str
    ) -> Deviations:
        """Raises PlanRefused."""
        if band < 0:
            raise PlanRefused(f"a band cannot be {band} percentage points wide")
        group = self._group(group_id)
        subjects = [
            subject(wanted, w.account_id, self._accounts.view(w.account_id), self._market, currency)
            for w in group.weights
        ]
        if against is Against.PLANS:
            return from_plans(group_id, subjects, self._moved(group, hours), currency)
        return from_median(group_id, subjects, [line.instrument for line in wanted.lines], band, currency)

    async def propose(self, found: Deviations, by: str) -> Plan:
        """One plan in DRAFT, which goes the way of every plan. Raises PlanRefused where there is nothing to do."""
        draft = proposal(found, by)
        if draft is None:
            raise PlanRefused(f"there is nothing to do: nobody in {found.group_id} is apart who can be brought back")
        return await self._planner.draft(draft)

    def _group(self, group_id: str) -> Group:
        group = self._accounts.group(group_id)
        if group is None:
            raise PlanRefused(f"there is no group {group_id}")
        return group

    def _moved(self, group: Group, hours: Decimal) -> Moved:
        if not 0 < hours <= _MOST_HOURS:
            raise PlanRefused(f"it looks back over 0 to {_MOST_HOURS} hours, not {hours}")
        since_ms = self._clock.now_ms() - int(hours * _HOUR_MS)
        with self._ledger.read() as conn:
            return questions.moved_elsewhere(conn, [w.account_id for w in group.weights], since_ms)
