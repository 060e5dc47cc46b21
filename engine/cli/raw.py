"""Does. `unisono raw`: what was heard and said, as it was; which hours of it are kept. Works without an engine."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich import box
from rich.table import Table

from engine.cli.context import (
    CONFIG_DEFAULT,
    ConfigOption,
    JsonOption,
    SinceOption,
    console,
    fail,
    instant,
    print_json,
    read_config,
    who,
)
from engine.core.limits import stamp
from engine.wire import archive
from engine.wire.archive import HOUR_MS, Pin

app = typer.Typer(
    help="Frames and HTTP exchanges as they were heard and said, secrets masked: list, show, pin.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

UntilOption = Annotated[datetime | None, typer.Option("--until", parser=instant, metavar="TIME", help="In UTC.")]
VenueOption = Annotated[str, typer.Option("--venue", help="Only this venue.")]


@app.command("list")
def list_files(config: ConfigOption = CONFIG_DEFAULT, as_json: JsonOption = False) -> None:
    """The files that there are, the oldest first, and the hours that are pinned.

    [bold]Example[/bold]

      unisono raw list
    """
    folder = Path(read_config(config).raw.folder)
    found, pinned = archive.files(folder), archive.pins(folder)
    if as_json:
        rows = [{**msgspec.structs.asdict(f), "path": str(f.path)} for f in found]
        print_json({"files": rows, "pins": pinned})
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("Hour (UTC)", "Venue", "Size", "Pinned", "File"):
        table.add_column(heading, justify="right" if heading == "Size" else "left")
    for file in found:
        by = ", ".join(p.pin_id for p in pinned if archive.is_pinned(file, [p]))
        table.add_row(stamp(file.hour_ms)[:13], file.venue, _size(file.size), by, str(file.path.relative_to(folder)))
    console.print(table if found else f"no raw frames in {folder}")
    console.print(f"{len(found)} files, {_size(sum(f.size for f in found))}", highlight=False)
    for one in pinned:
        console.print(f"  pin {one.pin_id}: {stamp(one.since_ms)} to {stamp(one.until_ms)}, by {one.by}: {one.why}")


@app.command()
def show(
    since: SinceOption = None,
    until: UntilOption = None,
    venue: VenueOption = "",
    connection: Annotated[str, typer.Option("--connection", help="Only those with this in their name.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many frames, from the earliest on.")] = 1000,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Frames and HTTP exchanges as they were heard and said, secrets masked. Without --since: of the last ten minutes.

    [bold]Examples[/bold]

      unisono raw show --since 2026-11-22T03:15 --until 2026-11-22T03:20 --connection okx-007

      unisono raw show --json | jq .frame
    """
    folder = Path(read_config(config).raw.folder)
    since_ms = round(time.time() * 1000) - 600_000 if since is None else _ms(since)
    found = archive.lines(
        folder, since_ms=since_ms, until_ms=None if until is None else _ms(until), venue=venue, source=connection
    )
    for number, (of_venue, line) in enumerate(found):
        if number == limit:
            fail(f"there is more: {limit} frames are shown. Say --limit, or a shorter time")
        if as_json:
            print_json({"venue": of_venue, **msgspec.to_builtins(line)})
        else:
            at = datetime.fromtimestamp(line.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
            cut = f" … {line.cut} characters more" if line.cut else ""
            console.print(
                f"{at} {line.source or of_venue} {line.way}: {line.frame}{cut}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


@app.command()
def pin(
    since: Annotated[datetime, typer.Argument(parser=instant, metavar="TIME", help="In UTC, as 2026-11-22T03.")],
    until: UntilOption = None,
    why: Annotated[str, typer.Option("--why", help="What happened; it is kept with the pin.")] = "",
    config: ConfigOption = CONFIG_DEFAULT,
) -> None:
    """Keep the hours of an incident, whatever their size and age. Without --until: the one hour.

    [bold]Example[/bold]

      unisono raw pin 2026-11-22T03 --until 2026-11-22T05 --why "orders unknown at OKX"
    """
    if not why:
        fail("a pin needs a reason: say --why. Nothing was pinned.")
    ends = until if until is not None else since + timedelta(milliseconds=HOUR_MS - 1)
    if ends < since:
        fail("--until lies before the beginning. Nothing was pinned.")
    now_ms = round(time.time() * 1000)
    one = Pin(pin_id=f"p{now_ms:x}", since_ms=_ms(since), until_ms=_ms(ends), by=who(), why=why, at_ms=now_ms)
    folder = Path(read_config(config).raw.folder)
    archive.pin(folder, one)
    kept = [f for f in archive.files(folder) if archive.is_pinned(f, [one])]
    console.print(
        f"[green]✓[/green] {one.pin_id}: {len(kept)} files are kept. Lift it with: unisono raw unpin {one.pin_id}"
    )


@app.command()
def unpin(
    pin_id: Annotated[str, typer.Argument(help="As unisono raw list shows it.")], config: ConfigOption = CONFIG_DEFAULT
) -> None:
    """Let the hours of a pin go again, when their size and age say so.

    [bold]Example[/bold]

      unisono raw unpin p19a4c0d2f31
    """
    if not archive.unpin(Path(read_config(config).raw.folder), pin_id):
        fail(f"there is no pin {pin_id}; nothing was changed. Look with: unisono raw list")
    console.print(f"[green]✓[/green] {pin_id} lifted", highlight=False)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
