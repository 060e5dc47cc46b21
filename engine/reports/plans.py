"""Decides. Plans for people: the preview's grid, what became of each order, the list of plans. Rows in, tables out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine.core.facts import Side
from engine.core.fairness import LegFairness
from engine.core.limits import plain
from engine.core.orders import OrderState
from engine.core.plans import (
    BelowMinimum,
    Cannot,
    Child,
    Leg,
    Method,
    Plan,
    PlanState,
    Preview,
    PreviewRow,
)

_ZERO = Decimal(0)

_STATE_STYLES = {
    PlanState.DRAFT: "dim",
    PlanState.PREVIEWED: "cyan",
    PlanState.APPROVED: "blue",
    PlanState.EXECUTING: "yellow",
    PlanState.DONE: "green",
    PlanState.DONE_WITH_SHORTFALL: "yellow",
    PlanState.ABORTED: "red",
    PlanState.EXPIRED: "dim",
    PlanState.DISCARDED: "dim",
}
_ORDER_STYLES = {
    OrderState.FILLED: "green",
    OrderState.WORKING: "cyan",
    OrderState.UNKNOWN: "bold yellow",
    OrderState.REJECTED: "red",
    OrderState.SKIPPED: "red",
    OrderState.NOT_PLACED: "red",
}


def read_plan(told: Any) -> Plan:
    """A plan from the JSON that the control door tells."""
    return msgspec.convert(told, Plan, strict=False)


# ---- The grid


def preview_table(plan: Plan) -> RenderableType:
    """The plan with its preview: a table for each leg, its totals, and below it who is skipped and why."""
    parts: list[RenderableType] = [_headline(plan)]
    for number, leg in enumerate(plan.legs):
        parts.append(Text(f"{_leg_title(plan, number)}{leg_sentence(leg)}", style="bold"))
        if plan.preview is not None:
            parts += _leg_tables(plan.preview, number)
    if plan.preview is None:
        parts.append(Text(f"not previewed yet: unisono plan preview {plan.plan_id}", style="dim"))
    return Group(*parts)


def leg_sentence(leg: Leg) -> str:
    """A leg in words, as in: buy BTC/USDT, 100 split equal, limit 50000."""
    size = {
        Method.EQUAL: f"{_of(leg.quantity)} split equally",
        Method.LEVEL: f"{_of(leg.quantity)} to level what accounts hold",
        Method.NAV: f"{_of(leg.quantity)} split by net asset value",
        Method.AVAILABLE: f"{_of(leg.quantity)} split by free equity",
        Method.PERCENT: f"{_of(leg.quantity)} split by the groups' percentages",
        Method.RATIO: f"{_of(leg.quantity)} split in the groups' ratio",
        Method.UNITS: f"{_of(sum(leg.units.values(), _ZERO))} as told per account",
        Method.NAV_PERCENT: f"{_of(leg.percent)} % of each account's net asset value",
        Method.MONEY: f"{_of(leg.amount)} of money for each" if leg.amount is not None else "money as told per account",
        Method.CHANGE: f"change each account's own position by {_of(leg.percent)} %",
        Method.TARGET: f"to {_of(leg.percent)} % of each account's net asset value",
        Method.RISK: f"{_of(leg.percent)} % of each account's net asset value at risk to {_of(leg.stop_price)}",
    }[leg.method]
    if leg.method is Method.CHANGE and leg.percent == -100:
        size = "close each account's own position"
    side = f"{leg.side.value} " if leg.side is not None else ""
    price = f" at {plain(leg.price)}" if leg.price is not None else ""
    if leg.trigger_price is not None:
        price += f" once {plain(leg.trigger_price)} is reached"
    if leg.visible_quantity is not None:
        price += f", showing {plain(leg.visible_quantity)}"
    residual = f", residual {leg.residual.value.replace('_', ' ')}" if leg.quantity is not None else ""
    reduces = ", only reducing" if leg.reduce_only else ""
    return f"{side}{leg.instrument}: {size}, {leg.order_type.value.replace('_', '-')}{price}{residual}{reduces}"


def _headline(plan: Plan) -> Text:
    line = Text.assemble((plan.plan_id, "bold"), " ", state_text(plan.state), f"  {plan.title}" if plan.title else "")
    line.append(f"\nplanned by {plan.created_by} {_stamp(plan.created_at_ms)}, expires {_stamp(plan.expires_at_ms)}")
    if plan.attempts > 1:
        line.append(
            f"\nan order that provably never reached its venue is sent anew, {plan.attempts} times in all at most"
        )
    if plan.preview is not None:
        line.append(f"\npreviewed {_stamp(plan.preview.taken_at_ms)}")
        line.append(f", may drift {plain(plan.max_drift_percent)} % from ")
        line.append(", ".join(f"{key.split('|')[-1]} {plain(price)}" for key, price in plan.preview.prices.items()))
    if plan.approval is not None:
        line.append(f"\napproved by {plan.approval.by} {_stamp(plan.approval.at_ms)}, ")
        line.append(f"statement {plan.approval.statement_hash[:16]}…")
    for choice in _choices(plan):
        line.append(f"\n{choice}")
    if plan.aborted:
        line.append(f"\n{plan.aborted}", style="red")
    if plan.note:
        line.append(f"\n{plan.note}")
    return line


def _choices(plan: Plan) -> Iterator[str]:
    """What the manager chose that is not the default."""
    if plan.below_minimum is not BelowMinimum.SKIP:
        yield {
            BelowMinimum.RAISE: "a share below the smallest order is raised to it",
            BelowMinimum.REJECT: "a share below the smallest order refuses the whole plan",
        }[plan.below_minimum]
    if plan.cannot is not Cannot.DROP:
        yield {
            Cannot.REDUCE: "who cannot take its share takes what it can; the rest stays with nobody",
            Cannot.RESPREAD: "the share of who cannot take it goes to the others",
            Cannot.REJECT: "one account that cannot take its share refuses the whole plan",
        }[plan.cannot]
    if plan.cap_notional is not None:
        yield f"at most {money(plan.cap_notional)} in all, everybody scaled down alike"
    if plan.queue_until_ms is not None:
        yield f"orders of offline accounts wait until {_stamp(plan.queue_until_ms)}"
    if plan.sells_first:
        yield f"an account's buys wait for its sells, {plan.sells_wait_ms // 1000} s at most"
    if plan.abort_refused_percent is not None:
        yield f"nothing more is sent once over {plain(plan.abort_refused_percent)} % were refused"
    if plan.abort_unknown is not None:
        yield f"nothing more is sent once the outcome of more than {plan.abort_unknown} orders is unknown"
    if plan.abort_slippage_percent is not None:
        yield f"nothing more is sent once a leg's slippage is above {plain(plan.abort_slippage_percent)} %"
    if plan.abort_dispersion_percent is not None:
        yield f"nothing more is sent once a leg's dispersion is above {plain(plan.abort_dispersion_percent)} %"
    if plan.abort_after_ms is not None:
        yield f"nothing more is sent {plan.abort_after_ms // 1000} s after the first order"
    if plan.abort_cancels:
        yield "when it is aborted, what is at work is cancelled"
    for one in plan.overrides:
        whom = one.account_id or "all accounts"
        yield f"{one.code} of {whom} set aside by {one.by} until {_stamp(one.expires_at_ms)}: {one.why}"


def state_text(state: PlanState) -> Text:
    return Text(state.value.replace("_", " "), style=_STATE_STYLES[state])


def _leg_title(plan: Plan, number: int) -> str:
    return f"\nLeg {number + 1} of {len(plan.legs)}: " if len(plan.legs) > 1 else "\n"


def _leg_tables(shown: Preview, number: int) -> Iterator[RenderableType]:
    rows = [row for row in shown.rows if row.leg == number]
    part = [row for row in rows if row.takes_part]
    if part:
        yield _grid(part, len(rows))
    nobody = shown.unallocated.get(number, _ZERO)
    unit = next((row.unit for row in rows if row.unit), "")
    if nobody:
        yield Text(f"{plain(nobody)} {unit} stay with nobody", style="yellow")
    if waiting := [row for row in part if row.queued]:
        whom = ", ".join(f"{row.account_id} ({row.queued[0].text})" for row in waiting)
        yield Text(f"{len(waiting)} may wait for their accounts: {whom}", style="yellow")
    if aside := [row for row in part if row.overridden]:
        whom = ", ".join(f"{row.account_id} ({', '.join(d.code for d in row.overridden)})" for row in aside)
        yield Text(f"{len(aside)} take part because a denial was set aside: {whom}", style="yellow")
    if len(part) < len(rows):
        yield _skipped([row for row in rows if not row.takes_part])


def _grid(rows: Sequence[PreviewRow], of: int) -> Table:
    """Who takes part. What is the same for everybody is said once, above; what is zero for everybody, not at all."""
    units, sides = {row.unit for row in rows}, {row.side for row in rows}
    prices, bases = {row.price for row in rows}, {row.instrument.split("/")[0] for row in rows}
    unit = next(iter(units)) if len(units) == 1 else ""
    residual = any(row.residual for row in rows)

    def total(amounts: Iterator[Decimal]) -> Decimal:
        return sum(amounts, _ZERO)

    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=0, title_justify="left")
    if len(prices) == 1:
        table.title = Text(f"sized with {plain(rows[0].price)}", style="dim")
    table.add_column("Account", f"{len(rows)} of {of}", overflow="fold")
    if len(sides) > 1:
        table.add_column("Side")
    quantity = plain(total(row.quantity for row in rows)) if unit else ""
    table.add_column(f"Quantity\n{unit}", quantity, justify="right", overflow="fold")
    base = plain(round(total(row.base_quantity for row in rows), 8))
    table.add_column(f"=\n{'/'.join(sorted(bases))}", base, justify="right", overflow="fold")
    if len(prices) > 1:
        table.add_column("Price", justify="right", overflow="fold")
    table.add_column("Notional", money(total(row.notional for row in rows)), justify="right", overflow="fold")
    table.add_column("Fee\n≈", money(total(row.fee_estimate for row in rows)), justify="right", overflow="fold")
    table.add_column("Held\n→ after", justify="right", overflow="fold")
    table.add_column("Cash\nafter ≈", justify="right", overflow="fold")
    table.add_column("Weight\nafter", justify="right", overflow="fold")
    if residual:
        table.add_column("Residual", justify="right", overflow="fold")
    for row in rows:
        cells: list[str | Text] = [row.account_id]
        if len(sides) > 1:
            cells.append(_side(row))
        cells.append(plain(row.quantity) if unit else f"{plain(row.quantity)} {row.unit}")
        cells.append(plain(round(row.base_quantity, 8)))
        if len(prices) > 1:
            cells.append(plain(row.price))
        cells += [money(row.notional), money(row.fee_estimate), f"{plain(row.held_before)} → {plain(row.held_after)}"]
        cells += [money(row.cash_after), "–" if row.weight_after is None else f"{row.weight_after:.2f} %"]
        if residual:
            cells.append(plain(round(row.residual, 3)))
        table.add_row(*cells)
    return table


def _side(row: PreviewRow) -> Text:
    return Text(row.side.value, style="green" if row.side is Side.BUY else "red")


def _skipped(rows: Sequence[PreviewRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.title = Text(f"Skipped: {len(rows)}", style="bold yellow")
    table.add_column("Account", overflow="fold")
    table.add_column("Its share", justify="right")
    table.add_column("Denial", no_wrap=True, style="yellow")
    table.add_column("Why")
    for row in rows:
        for line, denial in enumerate(row.denials):
            first = line == 0
            share = f"{plain(row.quantity)} {row.unit}".strip()
            table.add_row(row.account_id if first else "", share if first else "", denial.code, Text(denial.text))
    return table


# ---- What became of it


def orders_table(children: Sequence[Child]) -> Table:
    """Every order of a plan: where it stands, and how long it took from plan to venue."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.title = Text(f"Orders: {len(children)}", style="bold")
    for heading in ("Account", "State", "Side", "Instrument"):
        table.add_column(heading, overflow="fold")
    for heading in ("Quantity", "Filled", "Average", "Acknowledged after"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("Why")
    for child in children:
        state = Text(child.state.value.replace("_", " "), style=_ORDER_STYLES.get(child.state, ""))
        if child.attempt > 1:
            state.append(f", attempt {child.attempt}")
        if child.late:
            state.append(" late", style="bold red")
        sent_ms, answered_ms = child.sent_at_ms, child.acknowledged_at_ms
        table.add_row(
            child.account_id,
            state,
            child.side.value,
            child.instrument,
            plain(child.quantity),
            plain(child.filled),
            "–" if child.avg_price is None else plain(round(child.avg_price, 8)),
            f"{answered_ms - sent_ms} ms" if sent_ms is not None and answered_ms is not None else "–",
            Text(child.reason),
        )
    return table


def fairness_table(measured: Sequence[LegFairness]) -> Table:
    """How fair each leg was: how far apart its orders went out, and what the accounts paid."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.title = Text("Fairness", style="bold")
    table.add_column("Leg", overflow="fold")
    for heading in ("Orders", "Sent\nwithin", "Answered\nwithin", "Filled\nwithin", "Average", "Dispersion", "Range"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("Slippage", justify="right", overflow="fold")
    for leg in measured:
        slippage = f"{_percent(leg.slippage_percent)}\n{money(leg.slippage_money)}" if leg.reference else "–"
        table.add_row(
            f"{leg.side.value} {leg.instrument}",
            str(leg.orders),
            _within(leg.sent_skew_ms),
            _within(leg.acknowledged_skew_ms),
            _within(leg.filled_skew_ms),
            "\n".join(filter(None, ("–" if leg.average is None else plain(round(leg.average, 8)), leg.only_of))),
            _percent(leg.dispersion_percent),
            _percent(leg.range_percent),
            slippage,
        )
    return table


def _within(skew_ms: int | None) -> str:
    return "–" if skew_ms is None else f"{skew_ms} ms"


def _percent(number: Decimal | None) -> str:
    return "–" if number is None else f"{number:.4f} %"


def plans_table(plans: Sequence[Plan]) -> Table:
    """The list of plans, one line each."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Plan", no_wrap=True)
    table.add_column("State")
    table.add_column("What", ratio=1)
    table.add_column("By", overflow="fold")
    table.add_column("Expires")
    for plan in plans:
        what = "; ".join(leg_sentence(leg) for leg in plan.legs)
        approver = f", approved by {plan.approval.by}" if plan.approval is not None else ""
        table.add_row(
            plan.plan_id,
            state_text(plan.state),
            Text(f"{plan.title}: {what}" if plan.title else what),
            plan.created_by + approver,
            _stamp(plan.expires_at_ms),
        )
    return table


# ---- Numbers and times


def money(amount: Decimal | None) -> str:
    """An amount to two places, in groups of three."""
    return "–" if amount is None else f"{amount:,.2f}"


def _of(number: Decimal | None) -> str:
    return "–" if number is None else plain(number)


def _stamp(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
