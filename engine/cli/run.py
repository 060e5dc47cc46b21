"""Does. `unisono run`: the engine in the foreground, as systemd wants it."""

from __future__ import annotations

import os
import random
import signal

import anyio
import sqlalchemy as sa

from accounts.registry import RegistryError
from accounts.vault import VaultError
from engine import crash
from engine.app import Engine
from engine.cli import logs
from engine.cli.context import CONFIG_DEFAULT, ConfigOption, fail, plain_errors, read_config
from engine.cli.exits import Exit
from engine.config import Config
from engine.ledger import AlreadyOwned, SchemaTooNew
from engine.ledger.books import UnreadableBook
from engine.notify import Notifier
from engine.venues import venues
from scheduler.clock import SystemClock


def run(config: ConfigOption = CONFIG_DEFAULT) -> None:
    """Start the engine: connect every account, follow plans, keep the ledger. Stops on SIGTERM or Ctrl-C.

    It says READY (to systemd and in its log) after recovery: orders that were on their way when it last stopped are
    asked about before anything new is sent.

    [bold]Exit codes[/bold]: 0 stopped on request, 3 the database cannot be written or was lost, 64 the vault key is
    missing or wrong, 75 another engine owns this database, 78 the configuration is wrong.

    [bold]Examples[/bold]

      unisono run
      unisono run --config /etc/unisono/unisono.toml
    """
    settings = read_config(config)
    logs.configure(settings.log)
    with plain_errors(ValueError):
        crash.arm(os.environ)
    try:
        lost = anyio.run(_run, settings, backend_options={"use_uvloop": True})
    except VaultError as error:
        fail(f"{error} The engine was not started and nothing was sent.", Exit.VAULT)
    except AlreadyOwned as error:
        fail(f"{error} The engine was not started and nothing was sent.", Exit.LOCKED)
    except (RegistryError, SchemaTooNew) as error:
        fail(f"{error} The engine was not started.")
    except sa.exc.OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        fail(f"The database cannot be written ({reason}). The engine was not started and nothing was sent.")
    except ExceptionGroup as several:
        unreadable, _ = several.split(UnreadableBook)
        if unreadable is None:
            raise
        fail(f"{_first(unreadable)} The engine was not started and nothing was sent.")
    if lost:
        fail(f"The engine stopped: {lost}. Nothing more was sent. Start it again.")


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def _run(settings: Config) -> str:
    """Why the engine stopped, when nobody asked it to."""
    engine = Engine(settings, venues=venues(), clock=SystemClock(), rng=random.SystemRandom(), notifier=Notifier())
    async with anyio.create_task_group() as group:
        group.start_soon(_stop_on_signal, engine)
        await engine.run()
        group.cancel_scope.cancel()
    return engine.lost


async def _stop_on_signal(engine: Engine) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            engine.stop()
