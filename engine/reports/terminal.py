"""Decides. A run for a terminal: the same rows as on the page, in the same order, as far as they fit."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from engine.core.breaks import Break, Severity
from engine.core.runs import Age, Changes, Run, RunKind, Verdict
from engine.reports.summary import Summary, figure, lasting, signed, summarise, when
from engine.reports.texts import EN, Texts

_VERDICT_STYLES = {Verdict.CLEAN: "green", Verdict.BREAKS: "red", Verdict.UNKNOWN: "magenta"}
_VERDICT_SIGNS = {Verdict.CLEAN: "✓", Verdict.BREAKS: "≠", Verdict.UNKNOWN: "?"}
_SEVERITY_STYLES = {
    Severity.CRITICAL: "bold red",
    Severity.MAJOR: "red",
    Severity.MINOR: "yellow",
    Severity.NOTE: "dim",
}


def terminal(run: Run, texts: Texts = EN, *, limit: int = 25) -> RenderableType:
    """The whole run; of each list at most `limit` rows."""
    s = summarise(run)
    parts: list[RenderableType] = [_verdict(s, texts), _completeness(s, texts)]
    if s.missing:
        parts.append(_missing(s, texts, limit))
    if s.codes:
        parts.append(_totals(s, texts))
    parts.append(_accounts(s, texts, limit))
    if s.open:
        parts.append(breaks_table(s.open, texts.open_breaks, texts, limit=limit))
    if s.explained:
        parts.append(breaks_table(s.explained, texts.explained, texts, limit=limit))
    if s.tolerances:
        parts.append(_tolerances(s, texts))
    if s.foreign:
        parts.append(_foreign(s, texts, limit))
    if s.gaps:
        parts.append(_gaps(s, texts, limit))
    parts.append(Text(f"{texts.run} {run.run_id} · sha256 {run.seal}", "dim"))
    return Group(*parts)


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str
    kind: RunKind
    verdict: Verdict
    began_at_ms: int
    ended_at_ms: int
    accounts: int
    breaks: int


def runs_table(rows: Iterable[object], texts: Texts = EN) -> Table:
    """Runs in the order given, one a line."""
    table = _table(texts.title)
    for name in (texts.run, texts.began, texts.took, texts.what, texts.verdict):
        table.add_column(name, no_wrap=True)
    for name in (texts.accounts, texts.differences):
        table.add_column(name, justify="right")
    for given in rows:
        row = msgspec.convert(given, RunRow, from_attributes=True)
        table.add_row(
            Text(row.run_id),
            Text(when(row.began_at_ms)),
            Text(lasting(row.ended_at_ms - row.began_at_ms)),
            Text(texts.kinds[row.kind], "dim"),
            _pill(row.verdict, texts),
            Text(figure(row.accounts)),
            _count(row.breaks, "bold"),
        )
    return table


def changes(told: Changes, texts: Texts = EN, *, limit: int = 50) -> RenderableType:
    """What another run found differently."""
    parts: list[RenderableType] = [Text(f"{told.before} → {told.after}", "bold")]
    for title, breaks in (
        (texts.breaks_new, told.new),
        (texts.breaks_changed, [after for _, after in told.changed]),
        (texts.breaks_unproven, told.unproven),
        (texts.breaks_gone, told.gone),
    ):
        if breaks:
            parts.append(breaks_table(breaks, title, texts, limit=limit))
    parts.append(Text(f"{texts.breaks_same}: {len(told.same)}", "dim"))
    return Group(*parts)


def breaks_table(breaks: Iterable[Break], title: str, texts: Texts = EN, *, limit: int = 25) -> Table:
    """Breaks in the order given."""
    rows = list(breaks)
    table = _table(f"{title} ({len(rows)})")
    for name in (texts.severity, texts.code, texts.account, texts.instrument, texts.field):
        table.add_column(name, no_wrap=True)
    for name in (texts.at_venue, texts.in_ledger, texts.difference):
        table.add_column(name, justify="right")
    table.add_column(texts.cause)
    table.add_column(texts.seen, justify="right", no_wrap=True)
    for b in rows[:limit]:
        cause = Text(texts.causes[b.cause])
        if b.external:
            cause.append(f" {texts.external}", "magenta")
        table.add_row(
            Text(texts.severities[b.severity], _SEVERITY_STYLES[b.severity]),
            Text(b.code.value, "bold"),
            Text(b.account_id),
            Text(b.instrument or b.key),
            Text(b.field),
            Text(figure(b.venue)),
            Text(figure(b.ledger)),
            Text(f"{signed(b.difference)} {b.unit}".strip()),
            cause,
            Text(
                texts.first_time if b.runs_seen == 1 else f"{lasting(b.last_seen_ms - b.first_seen_ms)} ({b.runs_seen})"
            ),
        )
    if len(rows) > limit:
        table.caption = texts.more.format(count=len(rows) - limit)
    return table


def _verdict(s: Summary, texts: Texts) -> Panel:
    run = s.run
    style = _VERDICT_STYLES[run.verdict]
    facts = Text("   ").join(
        Text.assemble((f"{name} ", "dim"), (str(count), "bold"))
        for name, count in (
            (texts.accounts_compared, f"{s.compared} {texts.of} {len(run.accounts)}"),
            (texts.open_breaks, len(s.open)),
            (texts.critical_breaks, sum(b.severity is Severity.CRITICAL for b in s.open)),
            (texts.foreign_orders, len(s.foreign)),
            (texts.open_gaps, len(s.gaps)),
        )
    )
    return Panel(
        Group(Text(texts.verdict_sentences[run.verdict]), Text(), facts),
        title=Text(f" {_VERDICT_SIGNS[run.verdict]} {texts.verdicts[run.verdict]} ", f"bold reverse {style}"),
        subtitle=Text(f"{when(run.began_at_ms)} UTC · {lasting(run.ended_at_ms - run.began_at_ms)}", "dim"),
        title_align="left",
        subtitle_align="right",
        border_style=style,
        padding=(1, 2),
    )


def _completeness(s: Summary, texts: Texts) -> Table:
    table = _table(texts.completeness)
    table.add_column(texts.part)
    for name in (
        texts.accounts_compared,
        texts.not_compared,
        texts.at_venue,
        texts.in_ledger,
        texts.agree,
        texts.pages,
    ):
        table.add_column(name, justify="right")
    for row in s.parts:
        table.add_row(
            Text(texts.parts[row.part]),
            Text(figure(row.compared)),
            _count(row.not_compared, "bold magenta"),
            Text(figure(row.venue)),
            Text(figure(row.ledger)),
            Text(figure(row.agree), "green" if row.agree == max(row.venue, row.ledger) else "red"),
            Text(figure(row.pages)),
        )
    return table


def _missing(s: Summary, texts: Texts, limit: int) -> Table:
    table = _table(f"{texts.not_compared} ({len(s.missing)})")
    for name in (texts.account, texts.leg, texts.part):
        table.add_column(name, no_wrap=True)
    table.add_column(texts.reason)
    for m in s.missing[:limit]:
        table.add_row(
            Text(m.account_id, "magenta"),
            Text(texts.legs[m.leg]),
            Text(", ".join(texts.parts[part] for part in m.parts)),
            Text(m.reason),
        )
    if len(s.missing) > limit:
        table.caption = texts.more.format(count=len(s.missing) - limit)
    return table


def _totals(s: Summary, texts: Texts) -> Table:
    table = _table(texts.totals)
    table.add_column(texts.severity)
    table.add_column(texts.code, no_wrap=True)
    for age in Age:
        table.add_column(texts.ages[age], justify="right")
    table.add_column(texts.total, justify="right")
    table.add_column(texts.what)
    for row in s.codes:
        table.add_row(
            Text(texts.severities[row.severity], _SEVERITY_STYLES[row.severity]),
            Text(row.code.value, "bold"),
            *(_count(n, "") for n in row.by_age),
            Text(str(row.total), "bold"),
            Text(texts.codes[row.code], "dim"),
        )
    return table


def _accounts(s: Summary, texts: Texts, limit: int) -> RenderableType:
    """The accounts that need a look; the clean ones only as a number."""
    told = Text(" · ").join(
        Text(f"{_VERDICT_SIGNS[v]} {texts.verdicts[v]}: {s.by_verdict[v]}", _VERDICT_STYLES[v]) for v in Verdict
    )
    wanting = [a for a in s.accounts if a.verdict is not Verdict.CLEAN]
    if not wanting:
        return told
    table = _table(texts.accounts)
    table.add_column(texts.account, no_wrap=True)
    table.add_column(texts.verdict, no_wrap=True)
    for name in (texts.open_breaks, texts.under_way, texts.open_gaps, texts.last_fact):
        table.add_column(name, justify="right")
    for a in wanting[:limit]:
        explained = sum(b.explained for b in a.breaks)
        heard_ms = None if a.last_fact_at_ms is None else s.run.began_at_ms - a.last_fact_at_ms
        table.add_row(
            Text(a.account_id),
            _pill(a.verdict, texts),
            _count(len(a.breaks) - explained, "red"),
            _count(explained, "yellow"),
            _count(len(a.gaps), "red"),
            Text(lasting(heard_ms)),
        )
    if len(wanting) > limit:
        table.caption = texts.more.format(count=len(wanting) - limit)
    return Group(table, told, Text())


def _tolerances(s: Summary, texts: Texts) -> Table:
    table = _table(texts.tolerance_use)
    table.add_column(texts.field)
    table.add_column(texts.instrument)
    for name in (texts.allowed, texts.uses, texts.sum):
        table.add_column(name, justify="right")
    for row in s.tolerances:
        table.add_row(Text(row.field), Text(row.unit), Text(row.allowed), Text(str(row.uses)), Text(figure(row.total)))
    return table


def _foreign(s: Summary, texts: Texts, limit: int) -> Table:
    table = _table(f"{texts.foreign} ({len(s.foreign)})")
    for name in (texts.account, texts.instrument, texts.order, texts.side):
        table.add_column(name, no_wrap=True)
    for name in (texts.quantity, texts.price, texts.filled):
        table.add_column(name, justify="right")
    table.add_column(texts.in_ledger)
    for f in s.foreign[:limit]:
        table.add_row(
            Text(f.account_id),
            Text(f.order.instrument),
            Text(f.order.venue_order_id),
            Text(f.order.side.value),
            Text(figure(f.order.quantity)),
            Text(figure(f.order.price)),
            Text(figure(f.order.filled)),
            Text(texts.yes) if f.in_ledger else Text(texts.no, "bold magenta"),
        )
    if len(s.foreign) > limit:
        table.caption = texts.more.format(count=len(s.foreign) - limit)
    return table


def _gaps(s: Summary, texts: Texts, limit: int) -> Table:
    table = _table(f"{texts.gaps} ({len(s.gaps)})")
    for name in (texts.account, texts.state, texts.since, texts.until):
        table.add_column(name, no_wrap=True)
    table.add_column(texts.reason)
    for row in s.gaps[:limit]:
        gap = row.gap
        table.add_row(
            Text(row.account_id), Text(gap.state), Text(when(gap.from_ms)), Text(when(gap.to_ms)), Text(gap.reason)
        )
    if len(s.gaps) > limit:
        table.caption = texts.more.format(count=len(s.gaps) - limit)
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        header_style="dim",
        pad_edge=False,
    )


def _pill(verdict: Verdict, texts: Texts) -> Text:
    return Text(f"{_VERDICT_SIGNS[verdict]} {texts.verdicts[verdict]}", _VERDICT_STYLES[verdict])


def _count(count: int, style: str) -> Text:
    return Text(figure(count), style) if count else Text("·", "dim")
