"""Does. `unisono audit`: who did what, and whether anybody has changed these records since. Works without an engine."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from accounts.chain import Chain
from engine.cli.context import (
    CONFIG_DEFAULT,
    ConfigOption,
    JsonOption,
    SinceOption,
    console,
    fail,
    ledger_of,
    print_json,
    read_config,
    registry_of,
    show,
)
from engine.cli.edits import differences
from engine.cli.exits import Exit
from engine.core.limits import stamp
from engine.ledger import audit as deeds  # under another name: a command is found by the name of its module

app = typer.Typer(
    help="Who did what, when and why; and whether anybody has changed these records since.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

ENGINE, REGISTRY = "engine", "registry"
ADVICE = (
    "somebody changed the database past its guards. Stop trading on it (unisono kill on), keep the file as it is, find "
    "the newest backup that is whole (unisono restore FILE --verify), compare the two, and see who can reach the "
    "database"
)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One deed, of the running engine or in the registry."""

    at_ms: int
    of: str  # engine, registry: which of the two chains it is in
    number: int
    by: str
    action: str
    subject: str
    before: str
    after: str
    why: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """One chain, as `audit verify` tells it."""

    of: str
    rows: int
    head: str
    unfit: int | None
    why: str


@app.command("list")
def list_deeds(
    since: SinceOption = None,
    by: Annotated[str, typer.Option("--by", help="Only this person's.")] = "",
    subject: Annotated[str, typer.Option("--subject", help="Only of this account, plan, group, kill switch, ….")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest first.")] = 100,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Who did what, when and why: approvals, executions, kills, settlements, and every edit of the registry.

    [bold]Examples[/bold]

      unisono audit list --since 2026-11-22
      unisono audit list --by mia --subject okx-007 --json
    """
    settings, since_ms = read_config(config), 0 if since is None else round(since.timestamp() * 1000)
    with ledger_of(settings) as connection:
        done = deeds.newest(connection, limit, since_ms=since_ms, by=by, subject=subject)
    with registry_of(settings) as registry:
        changes = registry.changes(limit=limit, since_ms=since_ms, by=by, subject_id=subject)
    found = [
        Entry(
            at_ms=deed.at_ms,
            of=ENGINE,
            number=deed.id,
            by=deed.by,
            action=deed.action,
            subject=deed.subject,
            before=deed.before,
            after=deed.after,
            why="",
        )
        for deed in done
    ]
    found += [
        Entry(
            at_ms=change.at_ms,
            of=REGISTRY,
            number=change.change_id,
            by=change.by,
            action=f"{change.kind} {change.action}",
            subject=change.subject_id,
            before="",
            after="; ".join(differences(change)),
            why=change.why,
        )
        for change in changes
    ]
    found.sort(key=lambda entry: (entry.at_ms, entry.of, entry.number), reverse=True)
    show(found[:limit], as_json, lambda: _table(found[:limit]))


@app.command()
def verify(
    noted: Annotated[
        list[str] | None, typer.Option("--noted", help="A seal noted earlier: it must still be there. Repeatable.")
    ] = None,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Is every record as it was written, and in its place? Each is sealed over its content and the one before it.

    Rows cut off at the end leave no trace in the database itself: note the seals that this prints somewhere else,
    and give one of them with --noted later.

    Exit 0: all fit; 1: one does not, the first is named with what that means and what to do.

    [bold]Examples[/bold]

      unisono audit verify
      unisono audit verify --noted 3f0c…
    """
    settings = read_config(config)
    with ledger_of(settings) as connection, registry_of(settings) as registry:
        found = [verified(ENGINE, deeds.verify(connection)), verified(REGISTRY, registry.verify_changes())]
        missing = [s for s in noted or [] if not (deeds.has_seal(connection, s) or registry.has_seal(s))]
    if as_json:
        print_json({"chains": found, "missing": missing})
    else:
        for one in found:
            sign = "[red]✗[/red]" if one.why else "[green]●[/green]"
            console.print(f"{sign} {escape(sentence(one))}")
            if one.head and not one.why:
                console.print(f"  the last seal: {one.head}")
    if missing:
        fail(
            f"no record carries the seal {missing[0]}: records at the end were removed, or it is another database's; "
            f"{ADVICE}",
            Exit.FINDINGS,
        )
    if any(one.why for one in found):
        fail(ADVICE, Exit.FINDINGS)


def verified(of: str, chain: Chain) -> Verified:
    return Verified(of=of, rows=chain.rows, head=chain.head, unfit=chain.unfit, why=chain.why)


def sentence(one: Verified) -> str:
    if not one.why:
        return f"{one.of}: {one.rows} records, each as it was written"
    return f"{one.of}: record {one.unfit} does not fit: {one.why}. The {one.rows} before it are as they were written"


def _table(found: list[Entry]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("when (UTC)", "who", "action", "subject"):
        table.add_column(column)
    for column in ("what", "why"):
        table.add_column(column, overflow="fold")
    for one in found:
        what = " → ".join(filter(None, (one.before, one.after)))
        table.add_row(*(Text(cell) for cell in (stamp(one.at_ms), one.by, one.action, one.subject, what, one.why)))
    return table
