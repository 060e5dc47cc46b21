from __future__ import annotations

from decimal import Decimal

import pytest
import sqlalchemy as sa
import structlog
from msgspec.structs import replace

from engine.core.orders import Amend, OrderState
from engine.core.plans import Child, Plan, PlanState
from engine.ledger import audit, plans
from engine.ledger.plans import Change
from engine.ledger.tables import intent
from tests.ledger.samples import SWAP, child, plan, sending

COUNT = 30


@pytest.fixture
def children(connection: sa.Connection) -> list[Child]:
    """An approved plan and its planned children, in the database."""
    made = [child(number) for number in range(COUNT)]
    assert plans.save_plan(connection, plan(state=PlanState.PREVIEWED), None, 1000)
    assert plans.save_approved(connection, plan(), made, 2000)
    return made


def executing() -> Plan:
    return plan(state=PlanState.EXECUTING)


def stored(connection: sa.Connection) -> dict[str, Child]:
    return {c.child_id: c for c in plans.load_children(connection, ["p1"])}


def log_of(connection: sa.Connection, one: Child) -> list[tuple[str, str, str]]:
    return [(e.event, e.from_state, e.to_state) for e in plans.child_events(connection, one.child_id)]


def test_plans_and_children_come_back_as_they_were(connection: sa.Connection, children: list[Child]) -> None:
    assert plans.load_plan(connection, "p1") == plan()
    assert plans.load_children(connection, ["p1", "other"]) == sorted(children, key=lambda c: c.account_id)
    assert plans.load_plan(connection, "other") is None


@pytest.mark.parametrize("was", [None, PlanState.DRAFT, PlanState.EXECUTING])
def test_a_plan_is_stored_only_over_the_state_it_was_read_in(
    connection: sa.Connection, children: list[Child], was: PlanState | None
) -> None:
    assert not plans.save_plan(connection, plan(title="another"), was, 3000)
    assert plans.load_plan(connection, "p1") == plan()


def test_a_plan_that_is_not_previewed_gets_no_children(connection: sa.Connection) -> None:
    plans.save_plan(connection, plan(state=PlanState.DISCARDED), None, 1000)
    assert not plans.save_approved(connection, plan(), [child()], 2000)
    assert stored(connection) == {}


def test_plans_are_found_by_whether_they_ended(connection: sa.Connection) -> None:
    for state in PlanState:
        plans.save_plan(connection, plan(plan_id=state.value, state=state), None, 1000)
    assert {p.state for p in plans.load_plans(connection, ended=True)} == {s for s in PlanState if s.ended}
    assert {p.state for p in plans.load_plans(connection, ended=False)} == {s for s in PlanState if not s.ended}
    assert len(plans.load_plans(connection)) == len(PlanState)


def test_a_claim_takes_every_planned_child_with_an_intent_each(
    connection: sa.Connection, children: list[Child]
) -> None:
    claimed = [sending(c, "token") for c in children]
    assert plans.claim(connection, executing(), claimed, "token", 3000, "mia") == [c.child_id for c in children]
    found = stored(connection)
    assert all(found[c.child_id] == replace(c, updated_at_ms=3000) for c in claimed)
    assert connection.scalar(sa.select(sa.func.count()).select_from(intent)) == COUNT
    assert log_of(connection, children[0]) == [("claim", "planned", "sending")]
    assert audit.newest(connection)[0].after == f"{COUNT} orders"


def test_a_claim_passes_over_children_that_are_not_planned_any_more(
    connection: sa.Connection, children: list[Child]
) -> None:
    gone = children[3]
    plans.record_changes(connection, [Change(gone, replace(gone, state=OrderState.SKIPPED), "skip")])
    claimed = plans.claim(connection, executing(), [sending(c, "token") for c in children], "token", 3000, "mia")
    assert gone.child_id not in claimed
    assert len(claimed) == COUNT - 1
    assert stored(connection)[gone.child_id].state is OrderState.SKIPPED
    assert connection.scalar(sa.select(sa.func.count()).select_from(intent)) == COUNT - 1


def test_a_plan_is_claimed_once(connection: sa.Connection, children: list[Child]) -> None:
    plans.claim(connection, executing(), [sending(c, "first") for c in children], "first", 3000, "mia")
    assert not plans.claim(connection, executing(), [sending(c, "second") for c in children], "second", 3001, "mia")
    assert {c.claim_token for c in stored(connection).values()} == {"first"}


def test_a_step_is_taken_only_under_the_token_it_was_made_for(connection: sa.Connection, children: list[Child]) -> None:
    plans.claim(connection, executing(), [sending(c, "new") for c in children], "new", 3000, "mia")
    old_verdict = Change(
        sending(children[0], "old"), replace(sending(children[0], "old"), state=OrderState.REJECTED), "refused"
    )
    assert plans.record_changes(connection, [old_verdict]) == [old_verdict]
    assert stored(connection)[children[0].child_id].state is OrderState.SENDING
    assert log_of(connection, children[0]) == [("claim", "planned", "sending")]


def test_steps_are_taken_in_their_order_and_one_that_does_not_match_is_told_alone(
    connection: sa.Connection, children: list[Child]
) -> None:
    plans.claim(connection, executing(), [sending(c, "t") for c in children], "t", 3000, "mia")
    changes, first = [], children[0]
    for one in children:
        at_work = replace(
            sending(one, "t"), state=OrderState.WORKING, venue_order_id=f"v{one.account_id}", acknowledged_at_ms=4000
        )
        ended = replace(at_work, state=OrderState.FILLED, filled=Decimal("1.50"), avg_price=Decimal("100.05"))
        changes += [Change(sending(one, "t"), at_work, "ack"), Change(at_work, ended, "final_fill")]
    stray = Change(replace(first, state=OrderState.UNKNOWN), replace(first, state=OrderState.NOT_PLACED), "proof")
    changes.insert(5, stray)
    assert plans.record_changes(connection, changes) == [stray]
    found = stored(connection)
    assert {c.state for c in found.values()} == {OrderState.FILLED}
    assert found[first.child_id] == changes[1].after
    assert log_of(connection, first)[1:] == [("ack", "sending", "working"), ("final_fill", "working", "filled")]


def test_steps_recorded_twice_change_nothing_more(connection: sa.Connection, children: list[Child]) -> None:
    change = Change(children[0], replace(children[0], state=OrderState.SKIPPED, reason="cancelled"), "skip")
    assert plans.record_changes(connection, [change]) == []
    before = stored(connection)
    with structlog.testing.capture_logs() as logged:
        assert plans.record_changes(connection, [change]) == [change]
    assert stored(connection) == before
    assert log_of(connection, children[0]) == [("skip", "planned", "skipped")]
    assert [line["log_level"] for line in logged] == ["info"], "a repetition alarms nobody"


def test_a_step_that_something_else_overtook_is_an_error(connection: sa.Connection, children: list[Child]) -> None:
    plans.claim(connection, executing(), [sending(children[0], "t")], "t", 3000, "mia")
    stale = Change(children[0], replace(children[0], state=OrderState.SKIPPED), "skip")
    with structlog.testing.capture_logs() as logged:
        assert plans.record_changes(connection, [stale]) == [stale]
    assert [line["log_level"] for line in logged] == ["error"]


def test_an_amendment_has_its_intent_before_it_is_sent(connection: sa.Connection, children: list[Child]) -> None:
    amend = Amend(client_order_id="c", venue_order_id="v", instrument=SWAP, amend_id="a1", new_price=Decimal(99))
    plans.record_amends(connection, [(children[0], amend)], 5000)
    assert connection.execute(sa.select(intent.c.intent_id, intent.c.kind)).all() == [("a1", "amend")]


def test_open_children_are_those_that_may_be_out_there(connection: sa.Connection, children: list[Child]) -> None:
    claimed = [sending(c, "t") for c in children]
    plans.claim(connection, executing(), claimed[:3], "t", 3000, "mia")
    assert {c.child_id for c in plans.load_open_children(connection)} == {c.child_id for c in children[:3]}
    assert [c.account_id for c in plans.load_open_children(connection, "acc1")] == ["acc1"]
