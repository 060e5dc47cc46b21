"""Does. Plans, their children and intents. Every step of a child is a compare-and-set on (state, claim token)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog

from engine.core.orders import TERMINAL, Amend, OrderEvent, OrderState
from engine.core.plans import Child, Plan, PlanState
from engine.ledger import audit, rows
from engine.ledger.tables import child, child_event, intent, orphan, plan

log = structlog.get_logger("ledger")

_encode = msgspec.json.Encoder().encode
_FIXED = frozenset({"child_id", "plan_id", "account_id", "leg", "attempt", "client_order_id", "instrument", "side"})
_CHANGING = [name for name in Child.__struct_fields__ if name not in _FIXED]
_PLACE = "place"
_CLAIMED = (OrderState.PLANNED.value, OrderState.SENDING.value)
_CHUNK = 500  # ids in one question


class Settlement(msgspec.Struct, frozen=True):
    """A person's word about an order: who, what, and why."""

    by: str
    what: str
    why: str


class Change(msgspec.Struct, frozen=True):
    """One step of a child. `event` goes into its log; "" changes it without a line there.

    `successor` is the further attempt that this step allows, `settlement` the person's word that it rests on (it is
    audited): kept with it, in one transaction, or not at all.
    """

    before: Child
    after: Child
    event: str = ""
    successor: Child | None = None
    settlement: Settlement | None = None


class ChildEvent(msgspec.Struct, frozen=True):
    child_id: str
    at_ms: int
    event: str
    from_state: str
    to_state: str
    detail: str


# ---- plans

_AT_WORK = tuple(s.value for s in (OrderState.SENDING, OrderState.UNKNOWN, OrderState.WORKING))


def save_plan(connection: sa.Connection, one: Plan, was: PlanState | None, now_ms: int) -> bool:
    """Stored only where its state still is `was` (None: where there is no such plan); False when it is not."""
    row = (
        one.plan_id,
        one.state.value,
        one.title,
        one.created_at_ms,
        one.created_by,
        one.expires_at_ms,
        now_ms,
        _encode(one).decode(),
    )
    if was is None:
        return rows.put(connection, plan, [row], once=True) == 1
    values = dict(zip(rows.columns(plan), row, strict=True))
    changed = connection.execute(
        sa.update(plan).where(plan.c.plan_id == one.plan_id, plan.c.state == was.value).values(values)
    )
    return changed.rowcount == 1


def load_plan(connection: sa.Connection, plan_id: str) -> Plan | None:
    found = connection.execute(sa.select(plan.c.state, plan.c.body).where(plan.c.plan_id == plan_id)).one_or_none()
    return None if found is None else _plan(*found)


def load_plans(
    connection: sa.Connection, *, ended: bool | None = None, since_ms: int = 0, limit: int = 10_000
) -> list[Plan]:
    """The newest first; `ended`: only those that have ended, or that have not; `since_ms`: changed at or after it."""
    query = sa.select(plan.c.state, plan.c.body).order_by(plan.c.created_at_ms.desc(), plan.c.plan_id).limit(limit)
    if since_ms:
        query = query.where(plan.c.updated_at_ms >= since_ms)
    if ended is not None:
        query = query.where(plan.c.state.in_([s.value for s in PlanState if s.ended is ended]))
    return [_plan(*row) for row in connection.execute(query)]


def _plan(state: str, body: str) -> Plan:
    """The state stands in its column: a claim moves it without writing a large plan once more."""
    return msgspec.structs.replace(msgspec.json.decode(body, type=Plan), state=PlanState(state))


# ---- children


def save_approved(connection: sa.Connection, one: Plan, children: Sequence[Child], now_ms: int) -> bool:
    """The approved plan and its children, where it still is PREVIEWED; False, and nothing stored, when it is not."""
    if not save_plan(connection, one, PlanState.PREVIEWED, now_ms):
        return False
    insert_children(connection, children)
    return True


def insert_children(connection: sa.Connection, children: Iterable[Child]) -> None:
    rows.put(connection, child, [_row(c) for c in children])


def load_children(connection: sa.Connection, plan_ids: Sequence[str]) -> list[Child]:
    """Children of these plans, by plan, leg, account and attempt."""
    found = list[Child]()
    for start in range(0, len(plan_ids), _CHUNK):
        query = sa.select(child).where(child.c.plan_id.in_(plan_ids[start : start + _CHUNK]))
        found += map(_child, connection.execute(query))
    return sorted(found, key=lambda c: (c.plan_id, c.leg, c.account_id, c.attempt))


def load_open_children(connection: sa.Connection, account_id: str | None = None) -> list[Child]:
    """Whatever may be out there: sending, unknown, working."""
    query = sa.select(child).where(child.c.state.in_(_AT_WORK))
    if account_id is not None:
        query = query.where(child.c.account_id == account_id)
    return list(map(_child, connection.execute(query.order_by(child.c.child_id))))


def claim(
    connection: sa.Connection, one: Plan, children: Sequence[Child], token: str, now_ms: int, by: str
) -> list[str]:
    """The durable claim before the first byte: the plan goes from APPROVED to EXECUTING, its children from PLANNED
    to SENDING under `token`, and an intent is written for each.

    `children` are as they will be (SENDING, with the token); `token` is new. Returns the ids of those that were
    claimed: nothing else may be sent. None are when the plan is not APPROVED any more.

    Whole sets are changed by one statement each: this commit stands between the manager and the first frame.
    """
    assert all(c.state is OrderState.SENDING and c.claim_token == token for c in children), "claimed under this token"
    approved = sa.and_(plan.c.plan_id == one.plan_id, plan.c.state == PlanState.APPROVED.value)
    executing = {"state": PlanState.EXECUTING.value, "updated_at_ms": now_ms}
    if connection.execute(sa.update(plan).where(approved).values(executing)).rowcount != 1:
        return []
    of_plan = child.c.plan_id == one.plan_id
    still_planned = sa.and_(of_plan, child.c.state == OrderState.PLANNED.value)
    planned = _ids(connection, still_planned)
    deadlines: dict[int, set[str]] = {}
    for c in children:
        deadlines.setdefault(c.send_by_ms, set()).add(c.child_id)
    taken = 0
    for send_by_ms, ids in deadlines.items():
        others = planned - ids
        chosen = child.c.child_id.not_in(others) if len(others) < len(ids) else child.c.child_id.in_(ids)
        sending = {"state": OrderState.SENDING.value, "claim_token": token, "send_by_ms": send_by_ms}
        moved = sa.update(child).where(still_planned, chosen).values(**sending, updated_at_ms=now_ms)
        taken += connection.execute(moved).rowcount
        planned = others
    claimed = sa.and_(of_plan, child.c.claim_token == token)
    _write_claims(connection, claimed, now_ms)
    audit.add(connection, now_ms, by, "execute", one.plan_id, PlanState.APPROVED.value, f"{taken} orders")
    if taken == len(children):
        return [c.child_id for c in children]
    mine = _ids(connection, claimed)
    return [c.child_id for c in children if c.child_id in mine]


def claim_attempt(connection: sa.Connection, one: Child, now_ms: int) -> bool:
    """The durable claim of one order by itself, as `claim` is of a plan's first ones; `one` is as it will be (SENDING).

    False, and nothing changed, where it is not PLANNED any more, its plan is not at work, an earlier attempt is open
    or turned up late, or the venue was seen to have an order with this very id (a database that was put back).
    """
    assert one.state is OrderState.SENDING, "claimed"
    assert one.claim_token, "under a token"
    executing = sa.exists().where(plan.c.plan_id == one.plan_id, plan.c.state == PlanState.EXECUTING.value)
    other = child.alias()
    unsettled = sa.exists().where(
        other.c.plan_id == one.plan_id,
        other.c.account_id == one.account_id,
        other.c.leg == one.leg,
        other.c.attempt < one.attempt,
        sa.or_(other.c.late, other.c.state.not_in([s.value for s in TERMINAL])),
    )
    there = sa.exists().where(orphan.c.account_id == one.account_id, orphan.c.client_order_id == one.client_order_id)
    mine = sa.and_(child.c.child_id == one.child_id, child.c.state == OrderState.PLANNED.value)
    sending = {"state": one.state.value, "claim_token": one.claim_token, "send_by_ms": one.send_by_ms}
    claimed = sa.update(child).where(mine, executing, ~unsettled, ~there).values(**sending, updated_at_ms=now_ms)
    if connection.execute(claimed).rowcount != 1:
        return False
    _write_claims(connection, sa.and_(child.c.child_id == one.child_id, child.c.claim_token == one.claim_token), now_ms)
    return True


def record_amends(connection: sa.Connection, amends: Sequence[tuple[Child, Amend]], now_ms: int) -> None:
    """Durable before an amendment is sent."""
    rows.put(
        connection,
        intent,
        [
            (a.amend_id, c.child_id, c.account_id, "amend", c.claim_token, now_ms, c.send_by_ms, _encode(a).decode())
            for c, a in amends
        ],
    )
    _log_events(
        connection,
        [(c.child_id, now_ms, "amend_requested", c.state.value, c.state.value, a.amend_id) for c, a in amends],
    )


def amended(connection: sa.Connection) -> list[tuple[str, str, str]]:
    """Account, client order id and amendment's id of those at work that an amendment may have been sent for."""
    at_work = sa.and_(intent.c.child_id == child.c.child_id, child.c.state.in_(_AT_WORK))
    wanted = (child.c.account_id, child.c.client_order_id, intent.c.intent_id)
    found = connection.execute(sa.select(*wanted).join(intent, at_work).where(intent.c.kind == "amend"))
    return [tuple(row) for row in found]


def record_changes(connection: sa.Connection, changes: Sequence[Change]) -> list[Change]:
    """Steps in their order, each only where the child still has the state and the token it had before.

    Returns (and logs) those that were not taken because it had moved on. Run twice, a step changes nothing more; its
    line in the log may then stand there twice.
    """
    if not changes:
        return []
    sets = [_as_set(c) for c in changes]
    together = connection.begin_nested()
    if rows.change(connection, _SET, sets) == len(changes):
        together.commit()
        lost = list[Change]()
    else:  # one of them did not match: which one, only a step by itself can tell
        together.rollback()
        lost = [c for c, values in zip(changes, sets, strict=True) if not rows.change(connection, _SET, [values])]
        for one in lost:
            # Known already: its job ran before, and the commit of it seemed to fail. Else something moved it on.
            tell = log.info if _is_known(connection, one) else log.error
            tell("step_not_taken", child=one.after.child_id, was=one.before.state.value, step=one.event)
    missed = set(map(id, lost))
    for c in changes:
        if (word := c.settlement) is not None and id(c) not in missed:
            was = c.before.state.value + (", late" if c.before.late else "")
            told = f"{word.what}: {word.why}"
            audit.add(connection, c.after.updated_at_ms, word.by, "order settled", c.after.client_order_id, was, told)
    insert_children(connection, [c.successor for c in changes if c.successor is not None and id(c) not in missed])
    _log_events(
        connection,
        [
            (
                c.after.child_id,
                c.after.updated_at_ms,
                c.event,
                c.before.state.value,
                c.after.state.value,
                c.after.reason,
            )
            for c in changes
            if c.event and id(c) not in missed
        ],
    )
    return lost


def _ids(connection: sa.Connection, which: sa.ColumnElement[bool]) -> set[str]:
    """All in one row: sqlite3 lets go of Python's lock for each row that it fetches."""
    together = connection.scalar(sa.select(sa.func.aggregate_strings(child.c.child_id, ",")).where(which))
    return set(together.split(",")) if together else set()


def child_events(connection: sa.Connection, child_id: str) -> list[ChildEvent]:
    """A child's life, in order. It begins with its claim, whose line is the intent itself."""
    its_id = sa.select(child.c.client_order_id).where(child.c.child_id == child_id).scalar_subquery()
    claim_of = sa.select(intent.c.claimed_at_ms).where(intent.c.intent_id == its_id)
    steps = sa.select(child_event).where(child_event.c.child_id == child_id).order_by(child_event.c.id)
    return [
        *(ChildEvent(child_id, at_ms, OrderEvent.CLAIM.value, *_CLAIMED, "") for at_ms in connection.scalars(claim_of)),
        *(ChildEvent(*row[1:]) for row in connection.execute(steps)),
    ]


def _write_claims(connection: sa.Connection, claimed: sa.ColumnElement[bool], now_ms: int) -> None:
    """An intent of each claimed child, made of it by the database; its body says what an amendment may change later."""
    quantity, price = (sa.type_coerce(column, sa.Text) for column in (child.c.quantity, child.c.price))
    body = sa.literal('{"quantity":"') + quantity + '","price":' + sa.func.coalesce('"' + price + '"', "null") + "}"
    made = sa.select(
        child.c.client_order_id,
        child.c.child_id,
        child.c.account_id,
        sa.literal(_PLACE),
        child.c.claim_token,
        sa.literal(now_ms),
        child.c.send_by_ms,
        body,
    )
    connection.execute(sa.insert(intent).from_select(rows.columns(intent), made.where(claimed)))


def _is_known(connection: sa.Connection, change: Change) -> bool:
    """Does the child's log hold this very step?"""
    line = sa.select(child_event.c.id).where(
        child_event.c.child_id == change.after.child_id,
        child_event.c.at_ms == change.after.updated_at_ms,
        child_event.c.event == change.event,
        child_event.c.to_state == change.after.state.value,
    )
    return connection.execute(line.limit(1)).first() is not None


def _log_events(connection: sa.Connection, events: Sequence[tuple[str, int, str, str, str, str]]) -> None:
    rows.put(connection, child_event, events)


def _row(one: Child) -> rows.Row:
    return tuple(msgspec.to_builtins(one).values())  # fields and columns stand in one order; a test holds them to it


def _child(row: sa.Row[Any]) -> Child:
    return msgspec.convert(rows.named(row), Child)


def _as_set(change: Change) -> dict[str, Any]:
    after = msgspec.to_builtins(change.after)
    return {
        **{f"new_{name}": after[name] for name in _CHANGING},
        "id": change.after.child_id,
        "was_state": change.before.state.value,
        "was_token": change.before.claim_token,
    }


_SET = (
    sa.update(child)
    .where(
        child.c.child_id == sa.bindparam("id"),
        child.c.state == sa.bindparam("was_state"),
        child.c.claim_token == sa.bindparam("was_token"),
    )
    .values({name: sa.bindparam(f"new_{name}") for name in _CHANGING})
)
