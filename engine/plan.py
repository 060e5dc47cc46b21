"""Does. A plan's life up to its fan-out: draft -> preview -> approve; expiry, discarding, the last look.

The deciding parts are plain functions; `Planner` puts them together with the store and the clock. Nothing is
recomputed after approval: the children are the preview's rows, and the approval holds their hash.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Protocol

import msgspec

from accounts.model import Account, Model, Trading
from engine.config import Plans
from engine.core.drafts import Draft, PlanRefused, drafted, members, new_plan_id
from engine.core.instruments import Instrument
from engine.core.limits import (
    REASONS,
    Code,
    Reference,
    Rules,
    against_price,
    deny,
    drifted,
    duplicates,
    opened,
    plain,
    set_aside,
    stamp,
    standing,
    unpriced,
    usable,
)
from engine.core.models import Rebalance, basket, drifts, group_drifts, subject
from engine.core.orders import order_uuid
from engine.core.plans import (
    PLAN_STEPS,
    Approval,
    Cannot,
    Child,
    Denial,
    Leg,
    Method,
    Override,
    Plan,
    PlanState,
    PreviewRow,
)
from engine.core.preview import AccountsView, MarketView, place_key, preview
from engine.core.venue import Amending, Venue
from engine.core.waves import may_wait
from scheduler.clock import Clock

_ZERO = Decimal(0)
_LONGEST_OVERRIDE_MINUTES = 24 * 60
_ANY_LEG = Leg(instrument="", method=Method.EQUAL)
replace = msgspec.structs.replace


class PlanStore(Protocol):
    """Where plans are kept, durably on return."""

    async def load(self, plan_id: str) -> Plan | None: ...
    async def unfinished(self) -> Sequence[Plan]:
        """Plans in DRAFT, PREVIEWED or APPROVED."""

    async def save(self, plan: Plan, was: PlanState | None) -> bool:
        """Compare-and-set: stored only where its state is still `was` (None: where there is no such plan)."""

    async def save_approved(self, plan: Plan, children: Sequence[Child]) -> bool:
        """The approved plan and its children in one commit, where it is still PREVIEWED."""


def rules_of(plans: Plans) -> Rules:
    """The office's limits from its configuration."""
    return Rules(
        expiry_ms=plans.expiry_minutes * 60_000,
        max_drift_percent=_exact(plans.max_drift_percent),
        price_collar_percent=_exact(plans.price_collar_percent),
        max_price_age_ms=round(plans.max_price_age_s * 1000),
        duplicate_window_ms=round(plans.duplicate_window_s * 1000),
        margin_percent=_exact(plans.margin_percent),
        four_eyes_notional=_exact(plans.four_eyes_notional),
        attempts=plans.attempts,
        max_orders_a_minute=plans.orders_a_minute,
        abort_refused_percent=_rule(plans.abort_refused_percent),
        abort_unknown=plans.abort_unknown or None,
        abort_slippage_percent=_rule(plans.abort_slippage_percent),
        abort_dispersion_percent=_rule(plans.abort_dispersion_percent),
        abort_after_ms=round(plans.abort_after_s * 1000) or None,
        abort_cancels=plans.abort_cancels,
    )


def _rule(percent: float) -> Decimal | None:
    return _exact(percent) if percent else None


def _exact(number: float) -> Decimal:
    return Decimal(str(number))


# ---- Approval: the preview frozen, hashed, signed by a person


def approve(plan: Plan, by: str, accounts: AccountsView, market: MarketView, rules: Rules, now_ms: int) -> Plan:
    """The plan APPROVED, with the hash of what was approved. Raises PlanRefused."""
    _may_become(plan, PlanState.APPROVED)
    assert plan.preview is not None, "a previewed plan has a preview"
    if not by:
        raise PlanRefused("an approval needs the name of a person")
    if now_ms >= plan.expires_at_ms:
        raise PlanRefused(f"plan {plan.plan_id} expired {stamp(plan.expires_at_ms)}; draft a new one")
    part = [row for row in plan.preview.rows if row.takes_part]
    if not part:
        raise PlanRefused(f"no account takes part in plan {plan.plan_id}: every row of its preview is denied")
    complaints = dict[str, None]()  # in order, each once
    markets = _Markets(plan, market, rules, now_ms)
    for row in part:
        if (view := accounts.view(row.account_id)) is None:
            complaints[f"account {row.account_id} is not under management any more; preview again"] = None
            continue
        for denial in (*markets.against(row, view.account), *_overrides_over(plan, row, now_ms)):
            complaints[f"{row.instrument}: {denial.text}; preview again"] = None
    notional = sum((row.notional for row in part), _ZERO)
    if by == plan.created_by and 0 < rules.four_eyes_notional < notional:
        limit = plain(rules.four_eyes_notional)
        other = f"another person than {by}, who planned it, must approve it"
        complaints[f"its notional {plain(notional)} is above {limit}: {other}"] = None
    if complaints:
        raise PlanRefused(*complaints)
    approval = Approval(by=by, at_ms=now_ms, statement_hash=statement_hash(plan))
    return replace(plan, state=PlanState.APPROVED, approval=approval)


def statement_hash(plan: Plan) -> str:
    """sha256 of the allocation statement: inputs, members, prices, NAVs, rule and residual as canonical JSON."""
    statement = replace(plan, state=PlanState.PREVIEWED, approval=None, note="")
    plain_values = msgspec.to_builtins(statement, str_keys=True)  # JSON knows no other keys
    return hashlib.sha256(msgspec.json.encode(plain_values, order="sorted")).hexdigest()


def children(plan: Plan, venues: Mapping[str, Venue], now_ms: int) -> list[Child]:
    """The orders of an approved plan, leg by leg, accounts rotated by its seed. The same plan gives the same ids.

    Raises PlanRefused when the plan is not what was approved.
    """
    shown, approval = plan.preview, plan.approval
    if shown is None or approval is None or approval.statement_hash != statement_hash(plan):
        raise PlanRefused(f"plan {plan.plan_id} is not what was approved; nothing is sent")
    accounts = sorted({row.account_id for row in shown.rows})
    random.Random(plan.rotation_seed).shuffle(accounts)
    turn = {account_id: number for number, account_id in enumerate(accounts)}
    part = sorted((row for row in shown.rows if row.takes_part), key=lambda row: (row.leg, turn[row.account_id]))
    return [_child(plan, row, venues[row.venue], now_ms) for row in part]


def _child(plan: Plan, row: PreviewRow, venue: Venue, now_ms: int) -> Child:
    leg, identity = plan.legs[row.leg], order_uuid(plan.plan_id, row.account_id, row.leg, 1)
    return Child(
        child_id=identity.hex,
        plan_id=plan.plan_id,
        account_id=row.account_id,
        leg=row.leg,
        client_order_id=venue.render_order_id(identity.int),
        instrument=row.instrument,
        side=row.side,
        order_type=leg.order_type,
        quantity=row.quantity,
        price=leg.price,
        trigger_price=leg.trigger_price,
        visible_quantity=leg.visible_quantity if (leg.visible_quantity or row.quantity) < row.quantity else None,
        reduce_only=row.reduce_only,
        planned_at_ms=now_ms,
        updated_at_ms=now_ms,
    )


# ---- The last look, immediately before the claim


def recheck(
    plan: Plan,
    accounts: AccountsView,
    market: MarketView,
    rules: Rules,
    now_ms: int,
    *,
    ledger_down: str = "",
    only: tuple[str, int] | None = None,
) -> dict[tuple[str, int], tuple[Denial, ...]]:
    """Rows (account id, leg) that must not be sent after all, and why; the others go as they were approved.

    `only` asks about one row.

    On the hot path of a fan-out: what is the same for many accounts is asked once.
    """
    assert plan.preview is not None, "an approved plan has a preview"
    for_all = tuple[Denial, ...]()
    if now_ms >= plan.expires_at_ms:
        for_all += (deny(Code.PLAN_EXPIRED, expired=stamp(plan.expires_at_ms), now=stamp(now_ms)),)
    if ledger_down:
        for_all += (deny(Code.LEDGER_DOWN, why=ledger_down),)
    markets = _Markets(plan, market, rules, now_ms)
    denied = dict[tuple[str, int], tuple[Denial, ...]]()
    for row in plan.preview.rows:
        if not row.takes_part or (only is not None and only != (row.account_id, row.leg)):
            continue
        if (view := accounts.view(row.account_id)) is None:
            denied[row.account_id, row.leg] = (*for_all, deny(Code.UNKNOWN_ACCOUNT, account=row.account_id))
            continue
        found = for_all + standing(view) + markets.against(row, view.account)
        if recent := view.recent_orders(row.instrument):
            leg = plan.legs[row.leg]
            found += tuple(duplicates(leg, recent, plan.plan_id, row.side, row.quantity, rules, now_ms))
        if view.account.trading is Trading.REDUCING and (more := opened(row.held_before, row.held_after)):
            found += (deny(Code.ACCOUNT_REDUCING, opened=more),)
        if plan.overrides:
            found, _ = set_aside(found, plan.overrides, row.account_id, now_ms)
            found += _overrides_over(plan, row, now_ms)
        if found:
            denied[row.account_id, row.leg] = found
    if plan.cannot is Cannot.REJECT and only is None:
        _refuse_together(plan, denied, now_ms)
    return denied


def _refuse_together(plan: Plan, denied: dict[tuple[str, int], tuple[Denial, ...]], now_ms: int) -> None:
    """Where one account that cannot take its part refuses the plan, that holds until the last moment, too."""
    for (account_id, _), denials in denied.items():
        if not may_wait(plan, denials, now_ms):
            refused = deny(Code.PLAN_REFUSED, account=account_id, denial=denials[0].code)
            break
    else:
        return
    assert plan.preview is not None, "an approved plan has a preview"
    for row in plan.preview.rows:
        if row.takes_part:
            denied.setdefault((row.account_id, row.leg), (refused,))


def _overrides_over(plan: Plan, row: PreviewRow, now_ms: int) -> tuple[Denial, ...]:
    """The row takes part because denials were set aside: those whose overrides have ended since."""
    _, aside = set_aside(row.overridden, plan.overrides, row.account_id, now_ms)
    found = tuple[Denial, ...]()
    for denial in row.overridden:
        if denial not in aside:
            last = max(
                (o for o in plan.overrides if o.code == denial.code and o.account_id in ("", row.account_id)),
                key=lambda o: o.expires_at_ms,
            )
            ended = stamp(last.expires_at_ms)
            found += (deny(Code.OVERRIDE_EXPIRED, denial=denial.code, by=last.by, ended=ended),)
    return found


def recheck_attempt(
    plan: Plan,
    child: Child,
    accounts: AccountsView,
    market: MarketView,
    rules: Rules,
    now_ms: int,
    *,
    ledger_down: str = "",
) -> tuple[Denial, ...]:
    """What stands against sending one child anew: as the last look, and its price must lie within the collar."""
    key = (child.account_id, child.leg)
    found = recheck(plan, accounts, market, rules, now_ms, ledger_down=ledger_down, only=key).get(key, ())
    view = accounts.view(child.account_id)
    if view is None:
        return found
    place = (view.account.venue, view.account.environment, child.instrument)
    instrument = market.instrument(*place)
    if instrument is None or not usable(instrument):
        return found
    told = {denial.code for denial in found}
    reference = market.reference(*place)
    if child.trigger_price is not None:  # a stop's price is measured with its trigger
        reference = Reference(child.trigger_price, now_ms, "trigger")
    priced = against_price(child.price, instrument, reference, rules, now_ms)
    stand, _ = set_aside(priced, plan.overrides, child.account_id, now_ms)
    return (*found, *(denial for denial in stand if denial.code not in told))


class _Markets:
    """What has changed in the markets since the preview; each market is asked once."""

    def __init__(self, plan: Plan, market: MarketView, rules: Rules, now_ms: int) -> None:
        assert plan.preview is not None, "there is a preview to compare with"
        self._prices, self._max_drift = plan.preview.prices, plan.max_drift_percent
        self._market, self._rules, self._now_ms = market, rules, now_ms
        self._seen: dict[tuple[str, str, str], tuple[Instrument | None, tuple[Denial, ...]]] = {}

    def against(self, row: PreviewRow, account: Account) -> tuple[Denial, ...]:
        place = (account.venue, account.environment, row.instrument)
        if (seen := self._seen.get(place)) is None:
            seen = self._seen[place] = self._look(place, place_key(account, row.instrument))
        instrument, found = seen
        if instrument is None or (
            row.unit == instrument.unit
            and row.quantity % instrument.quantity_step == 0
            and instrument.notional(row.quantity, row.price) == row.notional
        ):
            return found
        lot, value = instrument.quantity_step, instrument.multiplier
        return (*found, deny(Code.INSTRUMENT_CHANGED, instrument=instrument.name, lot=lot, value=value))

    def _look(self, place: tuple[str, str, str], key: str) -> tuple[Instrument | None, tuple[Denial, ...]]:
        venue, environment, name = place
        instrument, reference = self._market.instrument(*place), self._market.reference(*place)
        if instrument is None or not usable(instrument):
            return None, (deny(Code.UNKNOWN_INSTRUMENT, venue=venue, environment=environment, instrument=name),)
        found = tuple[Denial, ...]()
        if not instrument.tradable:
            found += (deny(Code.NOT_TRADABLE, instrument=name, status=instrument.status),)
        against = unpriced(name, reference, self._rules, self._now_ms)
        if against is None and reference is not None:
            then = self._prices.get(key)  # none where the account has moved to another venue since
            if then is None:
                against = deny(Code.NO_PRICE, instrument=name)
            else:
                against = drifted(then, reference.price, self._max_drift)
        return instrument, found if against is None else (*found, against)


# ---- The planner


class Planner:
    """Plans' life in the running engine, up to their hand-over to `execute`."""

    def __init__(
        self,
        *,
        accounts: AccountsView,
        market: MarketView,
        store: PlanStore,
        venues: Mapping[str, Venue],
        rules: Rules,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._accounts, self._market, self._store, self._venues = accounts, market, store, venues
        self._rules, self._clock, self._rng = rules, clock, rng

    async def draft(self, draft: Draft) -> Plan:
        """A new plan in DRAFT, kept. Raises PlanRefused with everything that is wrong."""
        now_ms = self._clock.now_ms()
        plan = drafted(
            draft,
            self._accounts.group,
            self._known,
            self._rules,
            plan_id=new_plan_id(now_ms, self._rng),
            now_ms=now_ms,
            rotation_seed=self._rng.getrandbits(31),
        )
        await self._save(plan, was=None)
        return plan

    async def find(self, plan_id: str) -> Plan | None:
        return await self._store.load(plan_id)

    async def preview(self, plan_id: str) -> Plan:
        """The plan with a preview of this moment. Raises PlanRefused."""
        plan = await self._live(plan_id, PlanState.PREVIEWED)
        shown = preview(plan, self._accounts, self._market, self._rules, self._clock.now_ms())
        return await self._save(replace(plan, state=PlanState.PREVIEWED, preview=shown), was=plan.state)

    def rebalance(self, model: Model, groups: Sequence[str], accounts: Sequence[str], currency: str) -> Rebalance:
        """How far these accounts are from the model now. Raises PlanRefused."""
        named = members(tuple(groups), tuple(accounts), (_ANY_LEG,), self._accounts.group, self._known)
        subjects = [
            subject(model, account_id, self._accounts.view(account_id), self._market, currency)
            for account_id in named[0]
        ]
        found = tuple(drift for one in subjects for drift in drifts(model, one))
        together = group_drifts(model, subjects, found)
        return Rebalance(model=model, currency=currency, drifts=found, together=together)

    async def propose(self, found: Rebalance, by: str) -> Plan:
        """One basket that brings the accounts back, in DRAFT. Raises PlanRefused where there is nothing to do."""
        draft = basket(found.model, found.drifts, by)
        if draft is None:
            raise PlanRefused(f"there is nothing to do: no line of {found.model.model_id} is off that can be traded")
        return await self.draft(draft)

    def _known(self, account_id: str) -> bool:
        return self._accounts.view(account_id) is not None

    async def override(self, plan_id: str, code: str, account_id: str, *, by: str, why: str, minutes: int) -> Plan:
        """Set a denial of the preview aside, for one account or ("") for all, and preview again. Raises PlanRefused."""
        plan, now_ms = await self._live(plan_id, PlanState.PREVIEWED), self._clock.now_ms()
        complaints = list[str]()
        if not by:
            complaints.append("an override needs the name of a person")
        if not why.strip():
            complaints.append("an override needs a reason")
        if not 1 <= minutes <= _LONGEST_OVERRIDE_MINUTES:
            complaints.append(f"an override lasts 1 to {_LONGEST_OVERRIDE_MINUTES} minutes, not {minutes}")
        if code not in set(Code):
            complaints.append(f"there is no denial {code}")
        elif not REASONS[Code(code)].overridable:
            complaints.append(f"{code} is not for anybody to set aside")
        elif not any(
            denial.code == code and account_id in ("", row.account_id)
            for row in (plan.preview.rows if plan.preview is not None else ())
            for denial in (*row.denials, *row.overridden)
        ):
            whom = f" of {account_id}" if account_id else ""
            complaints.append(f"the preview of plan {plan_id} shows no {code}{whom}")
        if complaints:
            raise PlanRefused(*complaints)
        given = Override(
            code=code, account_id=account_id, by=by, why=why, at_ms=now_ms, expires_at_ms=now_ms + minutes * 60_000
        )
        overridden = replace(plan, overrides=(*plan.overrides, given))
        shown = preview(overridden, self._accounts, self._market, self._rules, now_ms)
        return await self._save(replace(overridden, state=PlanState.PREVIEWED, preview=shown), was=plan.state)

    async def approve(self, plan_id: str, by: str) -> tuple[Plan, list[Child]]:
        """The approved plan and its children, kept in one commit. Raises PlanRefused."""
        plan = await self._live(plan_id, PlanState.APPROVED)
        now_ms = self._clock.now_ms()
        approved = approve(plan, by, self._accounts, self._market, self._rules, now_ms)
        orders = children(approved, self._venues, now_ms)
        if not await self._store.save_approved(approved, orders):
            raise PlanRefused(_changed_meanwhile(plan_id))
        return approved, orders

    def may_amend(self, plan: Plan, price: Decimal | None, factor: Decimal | None) -> None:
        """Raises PlanRefused: an amendment stays within what was approved, and its price within the collar."""
        complaints = list[str]()
        if factor is not None and factor > 1:
            complaints.append("an amendment may only make orders smaller; more is a plan of its own, to be approved")
        if plan.closes_for:
            complaints.append(f"it closes for the kill switch {plan.closes_for}: its orders are market orders")
        part = [row for row in plan.preview.rows if row.takes_part] if plan.preview is not None else []
        fixed = {row.venue for row in part if self._market.venue(row.venue).capabilities.amending is Amending.NONE}
        if fixed:
            whose = ", ".join(sorted({row.account_id for row in part if row.venue in fixed}))
            complaints.append(
                f"{' and '.join(sorted(fixed))} has no amendments, and orders of {whose} are there: cancel"
            )
        if price is not None and (unpriced_legs := [leg for leg in plan.legs if leg.price is None]):
            names = ", ".join(sorted({leg.instrument for leg in unpriced_legs}))
            complaints.append(f"the orders in {names} have no price to be changed")
        for place in plan.preview.prices if plan.preview is not None and price is not None else ():
            venue, environment, name = place.split("|")
            instrument = self._market.instrument(venue, environment, name)
            if instrument is None:
                continue
            reference = self._market.reference(venue, environment, name)
            against = against_price(price, instrument, reference, self._rules, self._clock.now_ms())
            complaints += [f"{name}: {denial.text}" for denial in against]
        if complaints:
            raise PlanRefused(*complaints)

    async def discard(self, plan_id: str, by: str) -> Plan:
        """The plan is given up before anything was sent. Raises PlanRefused."""
        plan = await self._live(plan_id, PlanState.DISCARDED)
        return await self._save(replace(plan, state=PlanState.DISCARDED, note=f"discarded by {by}"), was=plan.state)

    async def expire_due(self) -> list[Plan]:
        """Ends every plan whose time is over and that was not executed."""
        now_ms = self._clock.now_ms()
        due = [plan for plan in await self._store.unfinished() if now_ms >= plan.expires_at_ms]
        expired = [replace(plan, state=PlanState.EXPIRED, note="its time was over") for plan in due]
        return [
            after for before, after in zip(due, expired, strict=True) if await self._store.save(after, before.state)
        ]

    async def _live(self, plan_id: str, state: PlanState) -> Plan:
        """The stored plan, where it may go on to `state` and its time is not over."""
        plan = await self._store.load(plan_id)
        if plan is None:
            raise PlanRefused(f"there is no plan {plan_id}")
        _may_become(plan, state)
        if self._clock.now_ms() >= plan.expires_at_ms:
            await self._save(replace(plan, state=PlanState.EXPIRED, note="its time was over"), was=plan.state)
            raise PlanRefused(f"plan {plan_id} expired {stamp(plan.expires_at_ms)}; draft a new one")
        return plan

    async def _save(self, plan: Plan, was: PlanState | None) -> Plan:
        if not await self._store.save(plan, was):
            raise PlanRefused(_changed_meanwhile(plan.plan_id))
        return plan


def _may_become(plan: Plan, state: PlanState) -> None:
    if state not in PLAN_STEPS.get(plan.state, frozenset()):
        raise PlanRefused(f"plan {plan.plan_id} is {plan.state.value} and cannot become {state.value}")


def _changed_meanwhile(plan_id: str) -> str:
    return f"plan {plan_id} was changed by somebody else meanwhile; look at it again"
