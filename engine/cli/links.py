"""Does. `unisono connections | gaps | backfill`: how the connections are, and what may have been missed."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.live import Live

from engine.cli.context import (
    CONFIG_DEFAULT,
    AccountOption,
    ConfigOption,
    JsonOption,
    console,
    fail,
    ledger_of,
    plain_errors,
    read_config,
    registry_of,
    show,
)
from engine.cli.exits import Exit
from engine.config import Config
from engine.control.client import Control, ControlError, NoEngine
from engine.core.venue import Transport
from engine.reports.tables import connections_table, gaps_table
from engine.venues import venues


def connections(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep the table up to date until Ctrl-C.")] = False,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Every connection and its phase: live, opening, down, mute, halted. Without an engine: as it last was.

    [bold]Examples[/bold]

      unisono connections
      unisono connections --watch
    """
    settings = read_config(config)
    found, running = _connections(settings)
    if not watch or as_json:
        if not running and not as_json:
            console.print("[yellow]no engine is running: this is how the connections last were[/yellow]")
        show(found, as_json, lambda: connections_table(found, now_ms=_now_ms(), limit=len(found) or 1))
        return
    try:
        with Live(connections_table(found, now_ms=_now_ms()), console=console, refresh_per_second=4) as live:
            while True:
                time.sleep(0.5)
                found, _ = _connections(settings)
                live.update(connections_table(found, now_ms=_now_ms()))
    except KeyboardInterrupt:
        return


def gaps(
    account: AccountOption = "",
    all_states: Annotated[bool, typer.Option("--all", help="Proven ones too.")] = False,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Stretches of time in which something may have been missed. Exit 1 while any of those shown is not proven.

    [bold]Examples[/bold]

      unisono gaps
      unisono gaps --all --account okx-007
    """
    from engine.ledger import gaps as store  # here: `connections` of a running engine needs no database

    with ledger_of(read_config(config)) as conn:
        found = store.find(conn, account or None) if all_states else store.unproven(conn, account or None)
    show(found, as_json, lambda: gaps_table(found, now_ms=_now_ms()))
    if any(gap.state is not store.GapState.PROVEN for gap in found):
        raise typer.Exit(int(Exit.FINDINGS))


def backfill(
    account: Annotated[list[str] | None, typer.Option("--account", "-a", help="Only these; repeatable.")] = None,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Read history back now although nothing is known to be missing. The engine does this by itself after each gap.

    [bold]Example[/bold]

      unisono backfill --account okx-007
    """
    settings = read_config(config)
    with Control(settings.control.socket) as control, plain_errors(ControlError, NoEngine):
        told = control.post("/backfill", {"accounts": account or []})
    if not told["accounts"]:
        fail("no account is active; nothing was read")
    show(told, as_json, lambda: f"reading back {len(told['accounts'])} accounts; watch with: unisono gaps --all")


def _connections(settings: Config) -> tuple[list[object], bool]:
    """As they are, or without an engine as they last were; and whether one is running."""
    try:
        with Control(settings.control.socket) as control:
            return list(control.get("/connections")), True
    except NoEngine:
        pass
    with registry_of(settings) as registry:
        live = {row.connection_key: row for row in registry.live()}
        found: list[object] = []
        for connection in registry.wanted():
            if venues()[connection.venue].endpoint(connection.kind).transport is Transport.HTTP:
                continue
            row = live.get(connection.connection_key)
            found.append(
                {
                    "connection_key": connection.connection_key,
                    "listener_id": connection.listener_id,
                    "kind": connection.kind,
                    "phase": "idle" if row is None else row.phase,
                    "last_heard_at_ms": None if row is None else row.last_heard_at_ms,
                    "last_pong_at_ms": None if row is None else row.last_pong_at_ms,
                    "attempts": 0 if row is None else row.attempts,
                    "last_error": "" if row is None else row.last_error,
                }
            )
    return found, False


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
