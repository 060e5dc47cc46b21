"""Decides. Rows in, terminal tables out: connections, gaps, orders, fills, positions, balances.

A row may be given as the Struct below or as anything with its fields (a JSON object from the control API, another
Struct); fields that a table does not show are passed over. Everything from outside is put in as text, never as markup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeVar

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from engine.core.foreign import acted
from engine.core.standing import Standing
from engine.reports.summary import figure, lasting, when


class ConnectionRow(msgspec.Struct, frozen=True, kw_only=True):
    connection_key: str
    listener_id: str = ""
    kind: str = ""
    phase: str
    last_heard_at_ms: int | None = None
    last_pong_at_ms: int | None = None
    attempts: int = 0
    last_error: str = ""
    trouble: str = ""  # what kind of error it is: see `Trouble` in engine/core/venue.py
    retry_in_s: float | None = None
    blocked: bool = False
    blocked_s: float = 0.0


class GapRow(msgspec.Struct, frozen=True, kw_only=True):
    gap_id: str = ""
    account_id: str
    since_ms: int
    closed_at_ms: int | None = None
    proven_at_ms: int | None = None
    state: str
    reason: str = ""
    facts_found: int = 0
    fills_found: int = 0
    pages_read: int = 0
    note: str = ""


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    account_id: str
    instrument: str
    side: str
    quantity: Decimal
    price: Decimal | None = None
    filled: Decimal = Decimal(0)
    avg_price: Decimal | None = None
    state: str
    client_order_id: str = ""
    venue_order_id: str = ""
    plan_id: str = ""  # "": not placed by a plan of ours
    venue_action: str = ""
    reason: str = ""
    updated_at_ms: int


class FillRow(msgspec.Struct, frozen=True, kw_only=True):
    account_id: str
    instrument: str
    side: str
    quantity: Decimal
    price: Decimal
    fee: Decimal | None = None
    fee_currency: str = ""
    liquidity: str = ""
    venue_action: str = ""
    plan_id: str = ""
    external: bool  # no order of ours
    source: str = ""  # stream or history
    fill_id: str
    venue_order_id: str = ""
    traded_at_ms: int


class BalanceRow(msgspec.Struct, frozen=True, kw_only=True):
    account_id: str
    currency: str
    cash: Decimal
    available: Decimal | None = None
    equity: Decimal | None = None
    updated_at_ms: int | None = None


_Row = TypeVar("_Row", bound=msgspec.Struct)

PHASES: dict[str, tuple[str, str]] = {  # a sign and a colour: colour alone tells nobody enough
    "halted": ("✕", "bold red"),
    "down": ("○", "red"),
    "mute": ("◌", "magenta"),
    "opening": ("◐", "yellow"),
    "idle": ("·", "dim"),
    "live": ("●", "green"),
}

_GAP_STATES = {"open": "yellow", "backfilled": "cyan", "proven": "green", "unprovable": "bold red"}
_ORDER_STATES = {
    "working": "cyan",
    "filled": "green",
    "unknown": "bold magenta",
    "sending": "yellow",
    "rejected": "red",
    "cancelled": "dim",
    "expired": "dim",
    "skipped": "dim",
    "not_placed": "dim",
}


def connections_table(rows: Iterable[object], *, now_ms: int | None = None, limit: int = 40) -> Table:
    """Links, what needs a look first. With `now_ms` it tells how long ago, without it the time of day in UTC."""
    known = _rows(rows, ConnectionRow)
    worst_first = sorted(known, key=lambda r: (_rank(r.phase), r.listener_id, r.kind, r.connection_key))
    counts = Counter(r.phase for r in known)
    said = [f"{n} {phase}" for phase, n in sorted(counts.items(), key=_by_rank)]
    said += [f"{held} held back"] if (held := sum(r.blocked for r in known)) else []
    table = _table("Connections", " · ".join(said))
    for name in ("account", "kind", "phase"):
        table.add_column(name, no_wrap=True)
    table.add_column("heard", justify="right", no_wrap=True)
    table.add_column("pong", justify="right", no_wrap=True)
    table.add_column("held back", justify="right", no_wrap=True)
    table.add_column("tries", justify="right")
    table.add_column("why", no_wrap=True)
    table.add_column("last error", ratio=1)  # it may be long, and must not push aside whose it is
    for row in worst_first[:limit]:
        sign, style = PHASES.get(row.phase, ("?", ""))
        table.add_row(
            Text(row.listener_id or row.connection_key),
            Text(row.kind, "dim"),
            Text(f"{sign} {row.phase}", style),
            _ago(row.last_heard_at_ms, now_ms),
            _ago(row.last_pong_at_ms, now_ms),
            Text(
                lasting(round(row.blocked_s * 1000)) if row.blocked_s else "", "bold yellow" if row.blocked else "dim"
            ),
            Text("" if row.phase == "live" else str(row.attempts or ""), "yellow"),
            Text(row.trouble + (f", {row.retry_in_s:.0f} s" if row.retry_in_s else ""), "red"),
            Text("" if row.phase == "live" and not row.trouble else row.last_error, "red"),
        )
    return _more(table, len(known), limit)


def gaps_table(rows: Iterable[object], *, now_ms: int | None = None, limit: int = 40) -> Table:
    """Gaps, the open ones first and then the latest."""
    known = _rows(rows, GapRow)
    counts = Counter(r.state.lower() for r in known)
    table = _table("Gaps", " · ".join(f"{n} {state}" for state, n in sorted(counts.items())))
    table.add_column("account", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("from (UTC)", no_wrap=True)
    for name in ("lasted", "pages", "facts", "fills"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("proven in", justify="right", no_wrap=True)
    table.add_column("why", ratio=1)
    for row in sorted(known, key=lambda r: (r.proven_at_ms is not None, -r.since_ms, r.account_id))[:limit]:
        end_ms = row.closed_at_ms if row.closed_at_ms is not None else now_ms
        proven_ms = None if row.proven_at_ms is None else row.proven_at_ms - (row.closed_at_ms or row.since_ms)
        state = row.state.lower()
        table.add_row(
            Text(row.account_id),
            Text(state, _GAP_STATES.get(state, "")),
            _time_of_day(row.since_ms),
            Text(lasting(None if end_ms is None else end_ms - row.since_ms)),
            Text(figure(row.pages_read)),
            Text(figure(row.facts_found)),
            Text(figure(row.fills_found), "bold" if row.fills_found else "dim"),
            Text(lasting(proven_ms)),
            Text(" · ".join(t for t in (row.reason, row.note) if t), "dim"),
        )
    return _more(table, len(known), limit)


def orders_table(rows: Iterable[object], *, limit: int = 200) -> Table:
    """Orders in the order given."""
    known = _rows(rows, OrderRow)
    table = _table("Orders")
    table.add_column("account", no_wrap=True)
    table.add_column("instrument", no_wrap=True)
    table.add_column("side", no_wrap=True)
    for name in ("quantity", "price", "filled", "at"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("changed (UTC)", no_wrap=True)
    table.add_column("plan", overflow="fold")
    table.add_column("order", overflow="fold")
    table.add_column("why", overflow="fold")
    for row in known[:limit]:
        table.add_row(
            Text(row.account_id),
            Text(row.instrument),
            _side(row.side),
            _number(row.quantity),
            _number(row.price),
            Text(figure(row.filled), "green" if row.filled else "dim"),
            _number(None if row.avg_price is None else round(row.avg_price, 8)),
            Text(row.state, _ORDER_STATES.get(row.state, "")),
            _time_of_day(row.updated_at_ms),
            _whose(row.plan_id, row.venue_action),
            Text(row.client_order_id or row.venue_order_id, "dim"),
            Text(row.reason, "dim"),
        )
    return _more(table, len(known), limit)


def fills_table(rows: Iterable[object], *, limit: int = 200) -> Table:
    """Fills in the order given."""
    known = _rows(rows, FillRow)
    table = _table("Fills")
    table.add_column("traded (UTC)", no_wrap=True)
    table.add_column("account", no_wrap=True)
    table.add_column("instrument", no_wrap=True)
    table.add_column("side", no_wrap=True)
    for name in ("quantity", "price", "fee"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("how", no_wrap=True)
    table.add_column("plan", overflow="fold")
    table.add_column("fill", no_wrap=True, overflow="ellipsis")
    for row in known[:limit]:
        table.add_row(
            Text(when(row.traded_at_ms)),
            Text(row.account_id),
            Text(row.instrument),
            _side(row.side),
            _number(row.quantity),
            _number(row.price),
            Text("—", "dim") if row.fee is None else Text(f"{figure(row.fee)} {row.fee_currency}"),
            Text(f"{row.liquidity} {row.source}".strip(), "dim"),
            _whose(row.plan_id, row.venue_action),
            Text(row.fill_id, "dim"),
        )
    return _more(table, len(known), limit)


def positions_table(rows: Iterable[Standing], *, now_ms: int | None = None, limit: int = 200) -> Table:
    """Positions and holdings in the order given. Without `now_ms` no engine runs, and there are no prices."""
    known = list(rows)
    table = _table("Positions", "" if now_ms is not None else "no engine runs: without prices")
    table.add_column("account", no_wrap=True)
    table.add_column("instrument", no_wrap=True)
    for name in ("quantity", "average", "price"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("from, age", no_wrap=True)
    for name in ("unrealised", "realised"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("elsewhere, a day", overflow="fold")
    for row in known[:limit]:
        side = "" if row.position_side == "net" else f" {row.position_side}"
        held = f"{figure(row.quantity)} {row.unit}".strip()
        age = "" if row.mark_as_of_ms is None or now_ms is None else lasting(now_ms - row.mark_as_of_ms)
        unknown = Text("not known", "yellow")
        table.add_row(
            Text(row.account_id),
            Text(f"{row.instrument}{side}"),
            Text(held, "red" if row.quantity < 0 else ""),
            unknown if row.avg_price is None else Text(figure(row.avg_price)),
            _number(row.mark),
            Text(f"{row.mark_source} {row.mark_basis} {age}".strip(), "dim"),
            _number(row.unrealised, signed=True) if row.unrealised is not None else Text(row.why_not or "—", "dim"),
            Text(figure(row.realised) + (f" + {figure(row.unpriced)} at ?" if row.unpriced else "")),
            Text(row.currency, "dim"),
            Text(", ".join(f"{who} {figure(n)}" for who, n in row.elsewhere.items()), "magenta"),
        )
    return _more(table, len(known), limit)


def balances_table(rows: Iterable[object], *, limit: int = 200) -> Table:
    """Cash in the order given."""
    known = _rows(rows, BalanceRow)
    table = _table("Balances")
    table.add_column("account", no_wrap=True)
    table.add_column("currency", no_wrap=True)
    for name in ("cash", "available", "equity"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("changed (UTC)", no_wrap=True)
    for row in known[:limit]:
        table.add_row(
            Text(row.account_id),
            Text(row.currency),
            _number(row.cash, signed=True),
            _number(row.available),
            _number(row.equity),
            _time_of_day(row.updated_at_ms),
        )
    return _more(table, len(known), limit)


def _rows(rows: Iterable[object], kind: type[_Row]) -> list[_Row]:
    return [row if isinstance(row, kind) else msgspec.convert(row, kind, from_attributes=True) for row in rows]


def _table(title: str, caption: str = "") -> Table:
    return Table(
        title=title,
        caption=Text(caption) if caption else None,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        header_style="dim",
        pad_edge=False,
    )


def _more(table: Table, count: int, limit: int) -> Table:
    if count > limit:
        caption = table.caption if isinstance(table.caption, Text) else Text()
        table.caption = Text(" · ").join([*([caption] if caption else []), Text(f"{count - limit} more not shown")])
    return table


def _rank(phase: str) -> int:
    return list(PHASES).index(phase) if phase in PHASES else -1


def _by_rank(counted: tuple[str, int]) -> int:
    return _rank(counted[0])


def _ago(at_ms: int | None, now_ms: int | None) -> Text:
    if at_ms is None:
        return Text("—", "dim")
    if now_ms is None:
        return _time_of_day(at_ms)
    age_ms = max(0, now_ms - at_ms)
    return Text(lasting(age_ms), "red" if age_ms > 30_000 else "yellow" if age_ms > 25_000 else "")


def _time_of_day(at_ms: int | None) -> Text:
    return Text("—", "dim") if at_ms is None else Text(f"{datetime.fromtimestamp(at_ms / 1000, UTC):%H:%M:%S}")


def _whose(plan_id: str, venue_action: str) -> Text:
    """The plan it was placed by, or that it was none of ours, and whose doing it was."""
    if plan_id:
        return Text(plan_id)
    return Text(f"EXTERNAL {venue_action}".rstrip(), "bold magenta" if acted(venue_action) else "magenta")


def _side(side: str) -> Text:
    return Text(side, {"buy": "green", "sell": "red"}.get(side, ""))


def _number(value: Decimal | None, *, signed: bool = False) -> Text:
    if value is None:
        return Text("—", "dim")
    return Text(figure(value), "red" if signed and value < 0 else "")
