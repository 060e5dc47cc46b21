"""Does. `unisono sim`: a venue in a box on loopback, until it is told to stop."""

from __future__ import annotations

import signal
from typing import Annotated, Any

import anyio
import typer
from rich.table import Table

from engine.cli.context import JsonOption, console, fail, print_json
from engine.sim.server import describe, playable, running_all, stage_of


def sim(
    venue: Annotated[
        list[str] | None, typer.Option(help="Which venue to play; several times, or none for all.")
    ] = None,
    accounts: Annotated[int, typer.Option(min=1, max=5000, help="How many accounts each broker has.")] = 20,
    seed: Annotated[int, typer.Option(help="Keys, opening cash and prices follow from it.")] = 1,
    port_base: Annotated[
        int, typer.Option(min=0, max=65000, help="First of three ports a venue; 0: any free ones.")
    ] = 0,
    no_limits: Annotated[bool, typer.Option("--no-limits", help="Enforce no rate and connection limits.")] = False,
    speed: Annotated[float, typer.Option(min=0.01, max=100, help="How fast the simulated market moves.")] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Play venues on 127.0.0.1: accounts with keys, real matching, a price path from the seed, faults on command.

    Prints where it listens and each account's keys once it is ready, then runs until SIGTERM or Ctrl-C. The address
    called control takes faults and tells the venue's own truth (docs/how-to/simulator.md).

    [bold]Exit codes[/bold]: 0 stopped on request, 3 it could not start.

    [bold]Examples[/bold]

      unisono sim --accounts 3

      unisono sim --venue okx --venue issplus --accounts 20 --seed 7 --json
    """
    for name in venue or ():
        if name not in playable():
            fail(f"{name} cannot be played; there is: {', '.join(playable())}. Nothing was started.")
    options = {
        "names": list(dict.fromkeys(venue or playable())),
        "accounts": accounts,
        "seed": seed,
        "port_base": port_base,
        "limits": not no_limits,
        "speed": speed,
    }
    try:
        anyio.run(_serve, options, as_json, backend_options={"use_uvloop": True})
    except OSError as error:
        fail(f"The simulator cannot listen on {port_base}: {error.strerror}. Nothing was started.")


async def _serve(options: dict[str, Any], as_json: bool) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with running_all(**options) as served:
            if as_json:
                print_json(describe(served))
            else:
                for one in served:
                    console.print(_table(one.venue, one.description, options["seed"]))
            async for _ in signals:
                break


def _table(venue: str, description: dict[str, Any], seed: int) -> Table:
    entries = stage_of(venue).entries(description)
    fields = list(entries[0].credentials) if entries else []
    table = Table("login", "account", *fields, title=f"{venue} on loopback, seed {seed}")
    for entry in entries:
        table.add_row(entry.name, entry.ref, *(entry.credentials[field] for field in fields))
    addresses = [f"{name}: {url}" for name, url in description.items() if str(url).startswith(("http:", "ws:"))]
    table.caption = "\n".join(addresses)
    return table
