"""A plan's life: previewed, frozen by an approval, looked at once more, given up or expired."""

from __future__ import annotations

import re
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import pytest

from accounts.model import AccountState, Group, Mandate, Model, ModelLine, Trading, Weight
from engine.config import Plans
from engine.core.drafts import Draft, PlanRefused, new_plan_id
from engine.core.facts import Side
from engine.core.limits import Recent, Rules
from engine.core.orders import OrderType, order_uuid
from engine.core.plans import Cannot, Leg, Method, Plan, PlanState
from engine.core.venue import Amending
from engine.plan import Planner, children, recheck, recheck_attempt, rules_of, statement_hash
from tests.fakes import FakeClock
from tests.plan_world import BTC, NOW_MS, OTHER, RULES, SWAP, VENUE, FakeAccount, FakeAccounts, FakeMarket, MemoryPlans

D = Decimal
pytestmark = pytest.mark.anyio

LEG = Leg(instrument=SWAP, method=Method.EQUAL, side=Side.BUY, quantity=D(60), order_type=OrderType.MARKET)
BEFORE = Recent(
    plan_id="P0", side=Side.BUY, quantity=D(10), order_type=OrderType.MARKET, at_ms=NOW_MS, order="u1"
)  # what an account's part of it was, sent for another plan


class World:
    """A planner among fakes, and the steps that most tests begin with."""

    def __init__(self, *accounts: FakeAccount, rules: Rules = RULES) -> None:
        self.accounts = FakeAccounts(*(accounts or [FakeAccount(f"a{n}") for n in range(6)]))
        self.market, self.store, self.clock, self.rules = FakeMarket(), MemoryPlans(), FakeClock(NOW_MS), rules
        self.planner = Planner(
            accounts=self.accounts,
            market=self.market,
            store=self.store,
            venues={VENUE.name: VENUE, OTHER.name: OTHER},
            rules=rules,
            clock=self.clock,
            rng=Random(1),
        )

    async def drafted(self, *legs: Leg, **choices: Any) -> Plan:
        return await self.planner.draft(Draft(groups=("all",), legs=legs or (LEG,), by="ann", **choices))

    async def previewed(self, *legs: Leg) -> Plan:
        return await self.planner.preview((await self.drafted(*legs)).plan_id)

    async def approved(self, *legs: Leg) -> Plan:
        plan, _ = await self.planner.approve((await self.previewed(*legs)).plan_id, "bob")
        return plan

    async def stored(self, plan: Plan) -> Plan:
        found = await self.store.load(plan.plan_id)
        assert found is not None
        return found

    def denied(self, plan: Plan, **more: Any) -> dict[str, list[str]]:
        found = recheck(plan, self.accounts, self.market, self.rules, self.clock.now_ms(), **more)
        return {account_id: [denial.code for denial in denials] for (account_id, _), denials in found.items()}


async def test_a_plan_goes_from_draft_to_approved_and_every_step_is_kept() -> None:
    world = World()
    plan = await world.drafted()
    assert (await world.stored(plan)).state is PlanState.DRAFT
    plan = await world.planner.preview(plan.plan_id)
    assert await world.stored(plan) == plan
    plan, orders = await world.planner.approve(plan.plan_id, "bob")
    assert await world.stored(plan) == plan
    assert plan.state is PlanState.APPROVED
    assert world.store.children[plan.plan_id] == orders
    assert [order.quantity for order in orders] == [10] * 6


async def test_a_preview_may_be_taken_again() -> None:
    world = World()
    first = await world.previewed()
    world.market.say(SWAP, "51000")
    second = await world.planner.preview(first.plan_id)
    assert first.preview is not None
    assert second.preview is not None
    assert second.preview.rows[0].notional > first.preview.rows[0].notional


async def test_a_plan_is_approved_once() -> None:
    world = World()
    plan = await world.approved()
    with pytest.raises(PlanRefused, match="is approved and cannot become approved"):
        await world.planner.approve(plan.plan_id, "carl")
    with pytest.raises(PlanRefused, match="is approved and cannot become previewed"):
        await world.planner.preview(plan.plan_id)


async def test_two_approvals_at_once_make_one() -> None:
    world = World()
    plan = await world.previewed()
    kept = world.store.save_approved

    async def beaten(plan: Plan, children: Any) -> bool:
        await kept(plan, children)  # somebody else was faster by a moment
        return await kept(plan, children)

    world.store.save_approved = beaten  # type: ignore[method-assign]
    with pytest.raises(PlanRefused, match="changed by somebody else meanwhile"):
        await world.planner.approve(plan.plan_id, "bob")


async def test_a_draft_is_not_approved_before_it_was_seen() -> None:
    world = World()
    with pytest.raises(PlanRefused, match="is draft and cannot become approved"):
        await world.planner.approve((await world.drafted()).plan_id, "bob")


async def test_a_plan_in_which_nobody_takes_part_is_not_approved() -> None:
    world = World(FakeAccount("a", live=False), FakeAccount("b", proven=False))
    with pytest.raises(PlanRefused, match="no account takes part"):
        await world.planner.approve((await world.previewed()).plan_id, "bob")


@pytest.mark.parametrize(("price", "moved"), [("51000", False), ("49000", False), ("51000.1", True), ("48999", True)])
async def test_a_price_that_moved_too_far_since_the_preview_stops_the_approval(price: str, moved: bool) -> None:
    world = World()
    plan = await world.previewed()
    world.market.say(SWAP, price)
    if not moved:
        await world.planner.approve(plan.plan_id, "bob")
        return
    with pytest.raises(PlanRefused, match=r"the price moved by 2\.\d+ % since the preview"):
        await world.planner.approve(plan.plan_id, "bob")
    assert (await world.stored(plan)).state is PlanState.PREVIEWED


async def test_a_price_feed_that_fell_silent_stops_the_approval() -> None:
    world = World()
    plan = await world.previewed()
    await world.clock.advance(31)
    with pytest.raises(PlanRefused, match="the reference price is 31 s old, at most 30 s"):
        await world.planner.approve(plan.plan_id, "bob")


@pytest.mark.parametrize(
    "change",
    [{"quantity_step": D(4)}, {"multiplier": D("0.1")}, {"tradable": False}],
)
async def test_an_instrument_that_changed_since_the_preview_stops_the_approval(change: dict[str, Any]) -> None:
    world = World()
    plan = await world.previewed()
    world.market.change(SWAP, **change)
    with pytest.raises(PlanRefused, match="preview again"):
        await world.planner.approve(plan.plan_id, "bob")


async def test_above_the_limit_another_person_must_approve() -> None:
    world = World(rules=msgspec.structs.replace(RULES, four_eyes_notional=D(29_999)))
    plan = await world.previewed()  # 60 contracts of 500
    with pytest.raises(
        PlanRefused, match="30000 is above 29999: another person than ann, who planned it, must approve"
    ):
        await world.planner.approve(plan.plan_id, "ann")
    approved, _ = await world.planner.approve(plan.plan_id, "bob")
    assert approved.approval is not None
    assert approved.approval.by == "bob"


async def test_up_to_the_limit_the_planner_may_approve() -> None:
    world = World(rules=msgspec.structs.replace(RULES, four_eyes_notional=D(30_000)))
    await world.planner.approve((await world.previewed()).plan_id, "ann")


async def test_a_plan_expires() -> None:
    world = World()
    plan = await world.previewed()
    await world.clock.advance(30 * 60)
    with pytest.raises(PlanRefused, match="expired 2026-01-01 00:30:00 UTC"):
        await world.planner.approve(plan.plan_id, "bob")
    assert (await world.stored(plan)).state is PlanState.EXPIRED


async def test_the_sweep_ends_what_is_over_and_leaves_the_rest() -> None:
    world = World()
    old = await world.approved()
    await world.clock.advance(60)
    world.market.say(SWAP, "50000", world.clock.now_ms())
    new = await world.previewed()
    await world.clock.advance(29 * 60)
    assert [plan.plan_id for plan in await world.planner.expire_due()] == [old.plan_id]
    assert (await world.stored(old)).state is PlanState.EXPIRED
    assert (await world.stored(new)).state is PlanState.PREVIEWED
    assert await world.planner.expire_due() == []


async def test_a_plan_is_discarded_with_its_reason() -> None:
    world = World()
    plan = await world.planner.discard((await world.previewed()).plan_id, "ann")
    assert (plan.state, plan.note) == (PlanState.DISCARDED, "discarded by ann")
    with pytest.raises(PlanRefused, match="is discarded and cannot become previewed"):
        await world.planner.preview(plan.plan_id)


async def test_an_unknown_plan_is_named() -> None:
    with pytest.raises(PlanRefused, match="there is no plan P0"):
        await World().planner.preview("P0")


# ---- The statement and its orders


async def test_the_approval_holds_the_hash_of_everything_that_was_seen() -> None:
    world = World()
    plan = await world.approved()
    assert plan.approval is not None
    assert re.fullmatch("[0-9a-f]{64}", plan.approval.statement_hash)
    assert statement_hash(await world.stored(plan)) == plan.approval.statement_hash, "also after writing and reading"
    executing = msgspec.structs.replace(plan, state=PlanState.EXECUTING, note="going")
    assert statement_hash(executing) == plan.approval.statement_hash
    assert plan.preview is not None
    row = msgspec.structs.replace(plan.preview.rows[0], quantity=D(11))
    for changed in (
        msgspec.structs.replace(
            plan, preview=msgspec.structs.replace(plan.preview, rows=(row, *plan.preview.rows[1:]))
        ),
        msgspec.structs.replace(plan, preview=msgspec.structs.replace(plan.preview, prices={})),
        msgspec.structs.replace(plan, legs=(msgspec.structs.replace(LEG, quantity=D(61)),)),
        msgspec.structs.replace(plan, rotation_seed=plan.rotation_seed + 1),
    ):
        with pytest.raises(PlanRefused, match="is not what was approved"):
            children(changed, {VENUE.name: VENUE}, NOW_MS)


async def test_children_have_the_same_ids_each_time_and_in_the_venues_alphabet() -> None:
    world = World()
    plan = await world.approved()
    first, again = (children(plan, {VENUE.name: VENUE}, now_ms) for now_ms in (NOW_MS, NOW_MS + 5))
    assert [child.child_id for child in first] == [child.child_id for child in again]
    assert len({child.client_order_id for child in first}) == 6
    for child in first:
        assert UUID(child.child_id) == order_uuid(plan.plan_id, child.account_id, 0, 1)
        assert child.client_order_id == VENUE.render_order_id(UUID(child.child_id).int)


async def test_accounts_are_rotated_by_the_recorded_seed_leg_by_leg() -> None:
    world = World(*(FakeAccount(f"a{n:02}") for n in range(20)))
    spot = msgspec.structs.replace(LEG, instrument=BTC, quantity=D(1))
    plan = await world.approved(LEG, spot)
    orders = children(plan, {VENUE.name: VENUE}, NOW_MS)
    assert [order.leg for order in orders] == [0] * 20 + [1] * 20
    turn = [order.account_id for order in orders[:20]]
    assert turn == [order.account_id for order in orders[20:]]
    assert turn != sorted(turn)
    expected = sorted(turn)
    Random(plan.rotation_seed).shuffle(expected)
    assert turn == expected


async def test_denied_accounts_have_no_order() -> None:
    world = World(FakeAccount("a"), FakeAccount("b", state=AccountState.PAUSED))
    assert [order.account_id for order in children(await world.approved(), {"bourse": VENUE}, NOW_MS)] == ["a"]


# ---- The last look


async def test_the_last_look_passes_what_stands_as_it_was_approved() -> None:
    world = World()
    assert world.denied(await world.approved()) == {}


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("live", False, "account_not_live"),
        ("proven", False, "account_not_proven"),
        ("killed", "all, by ann: drill", "kill_switch"),
        ("halted", "a person must look", "account_halted"),
        ("credentials_refused", "60009", "credentials_refused"),
        ("state", AccountState.PAUSED, "account_paused"),
        ("recent", {SWAP: [BEFORE]}, "duplicate"),
    ],
)
async def test_the_last_look_stops_the_account_that_changed_and_no_other(field: str, value: Any, code: str) -> None:
    world = World()
    plan = await world.approved()
    setattr(world.accounts.accounts["a3"], field, value)
    assert world.denied(plan) == {"a3": [code]}


async def test_the_last_look_lets_another_kind_of_order_of_the_same_size_go() -> None:
    world = World()
    plan = await world.approved()
    world.accounts.accounts["a3"].recent = {SWAP: [msgspec.structs.replace(BEFORE, order_type=OrderType.IOC)]}
    assert world.denied(plan) == {}


async def test_the_last_look_stops_everybody_when_the_price_ran_away_or_time_is_over() -> None:
    world = World()
    plan = await world.approved()
    assert world.denied(plan, ledger_down="disk full") == {f"a{n}": ["ledger_down"] for n in range(6)}
    world.market.say(SWAP, "52000")
    assert world.denied(plan) == {f"a{n}": ["price_drift"] for n in range(6)}
    await world.clock.advance(1800)
    assert world.denied(plan) == {f"a{n}": ["plan_expired", "stale_price"] for n in range(6)}


async def test_the_last_look_misses_no_account_that_left() -> None:
    world = World()
    plan = await world.approved()
    del world.accounts.accounts["a5"]
    moved = world.accounts.accounts["a4"]
    moved.account = msgspec.structs.replace(moved.account, environment="prod")
    assert world.denied(plan) == {"a5": ["unknown_account"], "a4": ["no_price"]}


def test_plan_ids_are_short_and_dated() -> None:
    assert re.fullmatch(r"P20260101-[2-9A-HJ-NP-Z]{5}", new_plan_id(NOW_MS, Random(3)))
    assert len({new_plan_id(NOW_MS, Random(seed)) for seed in range(500)}) == 500


def test_the_offices_limits_are_read_without_losing_a_digit() -> None:
    rules = rules_of(Plans(max_drift_percent=0.1, four_eyes_notional=1234567.89))
    assert (rules.max_drift_percent, rules.four_eyes_notional) == (D("0.1"), D("1234567.89"))
    assert (rules.expiry_ms, rules.max_price_age_ms, rules.duplicate_window_ms) == (1_800_000, 30_000, 60_000)


# ---- Overrides: by name, with a reason, until a time


def limited(**changes: Any) -> World:
    """a0 may not have orders as large as its share."""
    mandate = Mandate(account_id="a0", max_order_notional=D(4000))
    return World(FakeAccount("a0", mandate=mandate), *(FakeAccount(f"a{n}") for n in range(1, 6)), **changes)


async def test_a_denial_is_set_aside_by_name_with_a_reason_and_until_a_time() -> None:
    world = limited()
    plan = await world.previewed()
    assert [row.account_id for row in plan.preview.rows if row.denials] == ["a0"]  # type: ignore[union-attr]
    plan = await world.planner.override(plan.plan_id, "order_notional", "a0", by="bob", why="letter", minutes=5)
    assert plan.preview is not None
    assert all(row.takes_part for row in plan.preview.rows)
    [kept] = (await world.stored(plan)).overrides
    assert (kept.code, kept.by, kept.why, kept.expires_at_ms) == ("order_notional", "bob", "letter", NOW_MS + 300_000)
    approved, children = await world.planner.approve(plan.plan_id, "bob")
    assert len(children) == 6
    assert world.denied(approved) == {}
    for name in (BTC, SWAP):
        world.market.say(name, "50000", NOW_MS + 300_000)
    await world.clock.advance(300)
    assert world.denied(approved) == {"a0": ["override_expired"]}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"code": "off_tick"}, "off_tick is not for anybody to set aside"),
        ({"code": "kill_switch"}, "kill_switch is not for anybody to set aside"),
        ({"code": "fate"}, "there is no denial fate"),
        ({"code": "price_collar"}, "shows no price_collar of a0"),
        ({"account_id": "a1"}, "shows no order_notional of a1"),
        ({"by": ""}, "an override needs the name of a person"),
        ({"why": " "}, "an override needs a reason"),
        ({"minutes": 0}, "an override lasts 1 to 1440 minutes, not 0"),
    ],
)
async def test_an_override_that_is_not_one_changes_nothing(changes: dict[str, Any], complaint: str) -> None:
    world = limited()
    plan = await world.previewed()
    asked = {"code": "order_notional", "account_id": "a0", "by": "bob", "why": "letter", "minutes": 5, **changes}
    with pytest.raises(PlanRefused, match=complaint):
        await world.planner.override(plan.plan_id, asked.pop("code"), asked.pop("account_id"), **asked)
    assert await world.stored(plan) == plan


async def test_an_account_that_came_to_only_reduce_opens_nothing_any_more() -> None:
    world = World()
    plan = await world.approved()
    account = world.accounts.accounts["a1"]
    account.account = msgspec.structs.replace(account.account, trading=Trading.REDUCING)
    assert world.denied(plan) == {"a1": ["account_reducing"]}


# ---- Models


HALF = Model(model_id="half", name="Half", cash=D(50), lines=(ModelLine(instrument=BTC, weight=D(50), band=D(5)),))


async def test_a_rebalance_is_one_basket_for_who_is_off() -> None:
    world = World(
        FakeAccount("a0", positions={BTC: {"net": D("0.9")}}),  # 45 %: within its band
        FakeAccount("a1", positions={BTC: {"net": D("2")}}, cash={"USDT": D(0), "BTC": D(2)}),
        FakeAccount("a2"),
    )
    found = world.planner.rebalance(HALF, ["all"], [], "USDT")
    assert {drift.account_id: drift.quantity for drift in found.drifts} == {"a0": 0, "a1": -1, "a2": 1}
    plan = await world.planner.propose(found, "ann")
    assert [(leg.side, dict(leg.units)) for leg in plan.legs] == [(Side.SELL, {"a1": D(1)}), (Side.BUY, {"a2": D(1)})]
    shown = (await world.planner.preview(plan.plan_id)).preview
    assert shown is not None
    assert all(row.takes_part for row in shown.rows)


async def test_a_rebalance_without_need_drafts_nothing() -> None:
    world = World(FakeAccount("a0", positions={BTC: {"net": D(1)}}))
    found = world.planner.rebalance(HALF, ["all"], [], "USDT")
    with pytest.raises(PlanRefused, match="there is nothing to do"):
        await world.planner.propose(found, "ann")
    assert world.store.plans == {}


# ---- Bad input: refused, named, and nothing changed


def groups_that_share(world: World) -> None:
    world.accounts.groups["more"] = Group(group_id="more", name="", weights=(Weight("a1", D(1)),))


@pytest.mark.parametrize(
    ("draft", "spoil", "complaint"),
    [
        (
            {"groups": ("all", "more")},
            groups_that_share,
            "account a1 is in the plan twice: by group all and by group more",
        ),
        ({"groups": ("all",), "accounts": ("a1",)}, None, "account a1 is in the plan twice: by group all and by name"),
        ({"groups": ("none",)}, None, "there is no group none"),
        ({"accounts": ("x",)}, None, "there is no account x under management"),
    ],
)
async def test_a_draft_whose_members_are_not_clear_is_not_kept(draft: Any, spoil: Any, complaint: str) -> None:
    world = World()
    if spoil is not None:
        spoil(world)
    with pytest.raises(PlanRefused, match=complaint):
        await world.planner.draft(Draft(legs=(LEG,), by="ann", **draft))
    assert world.store.plans == {}


def without_prices(world: World) -> None:
    world.market.references[SWAP] = None


def by(method: Method, **fields: Any) -> Leg:
    return Leg(instrument=SWAP, method=method, side=Side.BUY, order_type=OrderType.MARKET, **fields)


@pytest.mark.parametrize(
    ("account", "leg", "spoil", "codes"),
    [
        ({}, by(Method.PERCENT, quantity=D(60)), None, {"weight_sum"}),  # six times 1
        ({"nav_value": D(0)}, by(Method.NAV, quantity=D(60)), None, {"split_nav"}),
        ({"nav_value": D(-5)}, by(Method.NAV_PERCENT, percent=D(1)), None, {"no_nav"}),
        ({"nav_value": None}, by(Method.NAV_PERCENT, percent=D(1)), None, {"no_nav"}),
        ({}, LEG, without_prices, {"no_price"}),
    ],
)
async def test_what_cannot_be_sized_is_denied_in_the_preview_and_never_approved(
    account: Any, leg: Leg, spoil: Any, codes: set[str]
) -> None:
    world = World(*(FakeAccount(f"a{n}", **account) for n in range(6)))
    if spoil is not None:
        spoil(world)
    plan = await world.previewed(leg)
    assert plan.preview is not None
    assert {denial.code for row in plan.preview.rows for denial in row.denials} == codes
    with pytest.raises(PlanRefused, match="no account takes part"):
        await world.planner.approve(plan.plan_id, "bob")
    assert (await world.stored(plan)).state is PlanState.PREVIEWED


async def test_a_stop_and_what_an_iceberg_shows_reach_the_orders() -> None:
    world = World(*(FakeAccount(f"a{n}", venue="other") for n in range(2)))
    leg = by(Method.EQUAL, quantity=D(6))
    stop = msgspec.structs.replace(leg, order_type=OrderType.STOP, trigger_price=D(51_000))
    plan = await world.previewed(stop)
    _, orders = await world.planner.approve(plan.plan_id, "bob")
    assert {(c.order_type, c.trigger_price, c.visible_quantity) for c in orders} == {(OrderType.STOP, D(51_000), None)}
    iceberg = msgspec.structs.replace(leg, order_type=OrderType.LIMIT, price=D(50_000), visible_quantity=D(2))
    _, orders = await world.planner.approve((await world.previewed(iceberg)).plan_id, "bob")
    assert {c.visible_quantity for c in orders} == {D(2)}
    small = msgspec.structs.replace(iceberg, visible_quantity=D(3))
    _, orders = await world.planner.approve((await world.previewed(small)).plan_id, "bob")
    assert {c.visible_quantity for c in orders} == {None}, "an order that shows all of itself is no iceberg"


async def test_one_account_refuses_the_plan_until_the_last_moment_where_that_was_chosen() -> None:
    world = World()
    plan = await world.planner.preview((await world.drafted(cannot=Cannot.REJECT)).plan_id)
    approved, _ = await world.planner.approve(plan.plan_id, "bob")
    assert world.denied(approved) == {}
    world.accounts.accounts["a3"].live = False
    found = world.denied(approved)
    assert found["a3"] == ["account_not_live"]
    assert [found[f"a{n}"] for n in (0, 1, 2, 4, 5)] == [["plan_refused"]] * 5


async def test_a_further_attempt_of_a_stop_is_measured_with_its_trigger() -> None:
    world = World(*(FakeAccount(f"a{n}", venue="other") for n in range(2)))
    world.market.change(SWAP, price_tick=D(1))
    leg = by(Method.EQUAL, quantity=D(6), trigger_price=D(60_000))
    stop = msgspec.structs.replace(leg, order_type=OrderType.STOP)
    plan, orders = await world.planner.approve((await world.previewed(stop)).plan_id, "bob")
    asked = (world.accounts, world.market, world.rules, NOW_MS)
    limit = msgspec.structs.replace(orders[0], order_type=OrderType.STOP_LIMIT, price=D(60_500))
    assert recheck_attempt(plan, limit, *asked) == ()
    far = msgspec.structs.replace(limit, price=D(70_000))
    assert [denial.code for denial in recheck_attempt(plan, far, *asked)] == ["price_collar"]


# ---- Amendments


async def test_an_amendment_may_only_shrink_and_only_change_a_price_that_is_there() -> None:
    world = World()
    plan = await world.approved()
    world.planner.may_amend(plan, None, D("0.5"))
    with pytest.raises(PlanRefused, match="only make orders smaller"):
        world.planner.may_amend(plan, None, D("1.5"))
    with pytest.raises(PlanRefused, match="no price to be changed"):
        world.planner.may_amend(plan, D(50_000), None)


async def test_where_orders_cannot_be_changed_it_is_said_whose() -> None:
    world = World()
    plan = await world.approved()
    fixed = msgspec.structs.replace(VENUE.capabilities, amending=Amending.NONE)
    world.market.venues[VENUE.name] = msgspec.structs.replace(VENUE, capabilities=fixed)
    with pytest.raises(PlanRefused, match="has no amendments, and orders of a0, a1, a2, a3, a4, a5 are there"):
        world.planner.may_amend(plan, None, D("0.5"))
