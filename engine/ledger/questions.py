"""Does. What people ask of the ledger: short reads over facts, for the commands and the reports."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec
import sqlalchemy as sa

from engine.core.book import supersedes
from engine.core.facts import CashFact, EquityFact, FillFact, OrderFact
from engine.core.foreign import EXTERNAL, acted
from engine.core.plans import Child
from engine.ledger import facts, rows
from engine.ledger.tables import child, fact

_CHUNK = 500


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """One order, ours or placed elsewhere. `state` is our child's where there is one, else the venue's word."""

    account_id: str
    instrument: str
    side: str
    order_type: str
    quantity: Decimal
    price: Decimal | None
    filled: Decimal
    avg_price: Decimal | None
    state: str
    external: bool  # no child of ours
    venue_action: str  # liquidation, adl, …: nobody placed it, or one of the owner's own triggers did
    client_order_id: str
    venue_order_id: str
    plan_id: str
    child_id: str
    reason: str
    late: bool
    updated_at_ms: int


class FillRow(msgspec.Struct, frozen=True, kw_only=True):
    account_id: str
    received_at_ms: int
    source: str
    fill: FillFact


def orders(
    connection: sa.Connection, account_id: str | None = None, *, since_ms: int = 0, limit: int = 1000
) -> list[OrderRow]:
    """Orders that changed at or after `since_ms`, the latest first."""
    latest = dict[tuple[str, str], OrderFact]()
    query = sa.select(fact.c.account_id, fact.c.body).where(fact.c.kind == "order", fact.c.at_ms >= since_ms)
    if account_id is not None:
        query = query.where(fact.c.account_id == account_id)
    for account, body in connection.execute(query.order_by(fact.c.id)):
        told = facts.read(body)
        assert isinstance(told, OrderFact), "kind says order"
        known = latest.get((account, told.venue_order_id))
        if known is None or supersedes(told, known):
            latest[account, told.venue_order_id] = told
    ours = _children(connection, account_id, since_ms, [o.client_order_id for o in latest.values()])
    # One that carries no id of ours may be ours all the same: by a person's word, or made by the venue of ours.
    by_order = {(one.account_id, one.venue_order_id): key for key, one in ours.items() if one.venue_order_id}
    by_client, found = dict[tuple[str, str], OrderFact](), list[OrderRow]()
    for (account, venue_order_id), order in latest.items():
        named = (account, order.client_order_id)
        key = named if named in ours else by_order.get((account, venue_order_id))
        if key in ours:
            by_client[key] = order
        elif (account, order.replaced_by) not in by_order:  # else it is what our order was before
            found.append(_order_row(account, order))
    found += [_child_row(one, by_client.get(key)) for key, one in ours.items()]
    return sorted(found, key=lambda o: (-o.updated_at_ms, o.account_id, o.venue_order_id))[:limit]


def fills(
    connection: sa.Connection, account_id: str | None = None, *, since_ms: int = 0, limit: int | None = 1000
) -> list[FillRow]:
    """Fills traded at or after `since_ms`, the latest first; of one told twice the account with its fee."""
    query = (
        sa.select(fact.c.account_id, fact.c.received_at_ms, fact.c.source, fact.c.body)
        .where(fact.c.kind == "fill", fact.c.at_ms >= since_ms)
        .order_by(fact.c.at_ms.desc(), fact.c.id.desc())
    )
    if account_id is not None:
        query = query.where(fact.c.account_id == account_id)
    found = dict[tuple[str, str], FillRow]()
    for row in connection.execute(query):
        told = facts.read(row.body)
        assert isinstance(told, FillFact), "kind says fill"
        key = (row.account_id, told.fill_id)
        if key not in found and len(found) == limit:
            break
        if key not in found or told.fee is not None:
            found[key] = FillRow(
                account_id=row.account_id, received_at_ms=row.received_at_ms, source=row.source, fill=told
            )
    return list(found.values())


def traded_since(connection: sa.Connection, since_ms: int, *, limit: int) -> list[tuple[str, OrderFact | FillFact]]:
    """The latest orders and fills of all accounts, the oldest first."""
    query = (
        sa.select(fact.c.account_id, fact.c.body)
        .where(fact.c.kind.in_(("order", "fill")), fact.c.at_ms >= since_ms)
        .order_by(fact.c.id.desc())
        .limit(limit)
    )
    found = list[tuple[str, OrderFact | FillFact]]()
    for account_id, body in connection.execute(query):
        told = facts.read(body)
        assert isinstance(told, OrderFact | FillFact), "kind says order or fill"
        found.append((account_id, told))
    return found[::-1]


def plans_of(connection: sa.Connection, fills: Sequence[tuple[str, FillFact]]) -> dict[tuple[str, str], str]:
    """By account and fill id, the plan whose order it was; what was placed elsewhere is not in it."""
    accounts = {account for account, _ in fills}
    by_name = dict[tuple[str, str], str]()
    for column in (child.c.client_order_id, child.c.venue_order_id):
        left = [fill for account, fill in fills if (account, fill.client_order_id) not in by_name]
        wanted = sorted({getattr(fill, column.name) for fill in left} - {""})
        for start in range(0, len(wanted), _CHUNK):
            query = sa.select(child.c.account_id, column, child.c.plan_id).where(
                column.in_(wanted[start : start + _CHUNK])
            )
            for account, name, plan_id in connection.execute(query):
                if account in accounts:
                    by_name[account, name] = plan_id
    return {
        (account, fill.fill_id): plan_id
        for account, fill in fills
        for name in (fill.client_order_id, fill.venue_order_id)
        if (plan_id := by_name.get((account, name))) is not None
    }


def moved_elsewhere(
    connection: sa.Connection, accounts: Sequence[str], since_ms: int
) -> dict[tuple[str, str], dict[str, Decimal]]:
    """By account and instrument, what fills that are not ours moved since then: by whom -> signed quantity."""
    told = [row for account in accounts for row in fills(connection, account, since_ms=since_ms, limit=None)]
    plans = plans_of(connection, [(row.account_id, row.fill) for row in told])
    moved: dict[tuple[str, str], dict[str, Decimal]] = {}
    for row in told:
        if (row.account_id, row.fill.fill_id) in plans:
            continue
        of_it = moved.setdefault((row.account_id, row.fill.instrument), {})
        who = row.fill.venue_action if acted(row.fill.venue_action) else EXTERNAL
        of_it[who] = of_it.get(who, Decimal(0)) + row.fill.quantity * row.fill.side.sign
    return moved


class DayStart(msgspec.Struct, frozen=True):
    """What an account was worth when a day began, by the venue's word, and what was paid in (less out) since."""

    equity: EquityFact
    paid_in: dict[str, Decimal]  # by currency


def day_start(connection: sa.Connection, account_id: str, day_ms: int) -> DayStart | None:
    """The last valuation before the day, else the first in it; None where the ledger has neither."""
    mine = sa.and_(fact.c.account_id == account_id, fact.c.kind == "equity")
    before = sa.select(fact.c.body).where(mine, fact.c.at_ms < day_ms).order_by(fact.c.at_ms.desc())
    after = sa.select(fact.c.body).where(mine, fact.c.at_ms >= day_ms).order_by(fact.c.at_ms)
    body = connection.scalar(before.limit(1)) or connection.scalar(after.limit(1))
    if body is None:
        return None
    equity = facts.read(body)
    assert isinstance(equity, EquityFact), "kind says equity"
    moved = sa.select(fact.c.body).where(
        fact.c.account_id == account_id, fact.c.kind == "cash", fact.c.at_ms > equity.at_ms
    )
    paid_in: dict[str, Decimal] = {}
    for row in connection.scalars(moved):
        cash = facts.read(row)
        if isinstance(cash, CashFact) and cash.kind == "transfer":
            paid_in[cash.currency] = paid_in.get(cash.currency, Decimal(0)) + cash.amount
    return DayStart(equity, paid_in)


def last_fact_at_ms(connection: sa.Connection, account_id: str) -> int | None:
    """When the last fact of this account was received; None without any."""
    latest = sa.select(fact.c.received_at_ms).where(fact.c.account_id == account_id)
    return connection.scalar(latest.order_by(fact.c.id.desc()).limit(1))


def _children(
    connection: sa.Connection, account_id: str | None, since_ms: int, client_order_ids: list[str]
) -> dict[tuple[str, str], Child]:
    """Our children that changed since then, and those the venue spoke of since then."""
    conditions = [child.c.updated_at_ms >= since_ms]
    named = [c for c in client_order_ids if c]
    conditions += [child.c.client_order_id.in_(named[i : i + _CHUNK]) for i in range(0, len(named), _CHUNK)]
    found = dict[tuple[str, str], Child]()
    for condition in conditions:
        query = sa.select(child).where(condition)
        if account_id is not None:
            query = query.where(child.c.account_id == account_id)
        for row in connection.execute(query):
            one = msgspec.convert(rows.named(row), Child)
            found[one.account_id, one.client_order_id] = one
    return found


def _order_row(account_id: str, order: OrderFact) -> OrderRow:
    return OrderRow(
        account_id=account_id,
        instrument=order.instrument,
        side=order.side.value,
        order_type=order.order_type,
        quantity=order.quantity,
        price=order.price,
        filled=order.filled,
        avg_price=order.avg_price,
        state=order.status.value,
        external=True,
        venue_action=order.venue_action,
        client_order_id=order.client_order_id,
        venue_order_id=order.venue_order_id,
        plan_id="",
        child_id="",
        reason=order.reason,
        late=False,
        updated_at_ms=order.updated_at_ms,
    )


def _child_row(one: Child, order: OrderFact | None) -> OrderRow:
    """Our child; how far it is filled the venue may have told later than the child was written."""
    further = order is not None and order.filled > one.filled
    return OrderRow(
        account_id=one.account_id,
        instrument=one.instrument,
        side=one.side.value,
        order_type=one.order_type.value,
        quantity=one.quantity,
        price=one.price,
        filled=order.filled if order is not None and further else one.filled,
        avg_price=order.avg_price if order is not None and further else one.avg_price,
        state=one.state.value,
        external=False,
        venue_action="" if order is None else order.venue_action,
        client_order_id=one.client_order_id,
        venue_order_id=one.venue_order_id,
        plan_id=one.plan_id,
        child_id=one.child_id,
        reason=one.reason,
        late=one.late,
        updated_at_ms=max(one.updated_at_ms, 0 if order is None else order.updated_at_ms),
    )
