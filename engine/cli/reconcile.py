"""Does. `unisono reconcile …`: asks the running engine for a run; lists, shows, compares, exports and verifies runs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engine.cli.context import (
    CONFIG_DEFAULT,
    ConfigOption,
    JsonOption,
    console,
    errors,
    fail,
    ledger_of,
    print_json,
    read_config,
)
from engine.cli.exits import Exit
from engine.config import Config
from engine.control.client import Control, ControlError, NoEngine
from engine.core.runs import Run, Verdict, complaints, difference, from_json, to_json
from engine.ledger import runs
from engine.reports.page import page
from engine.reports.terminal import changes, runs_table, terminal

app = typer.Typer(
    name="reconcile",
    help="Compare the venues' statements with our ledger. Exits 0 clean, 1 breaks, 2 unknown, 3 error.",
    no_args_is_help=True,
)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or: latest")]

EXIT_OF = {Verdict.CLEAN: Exit.OK, Verdict.BREAKS: Exit.FINDINGS, Verdict.UNKNOWN: Exit.UNKNOWN}


@app.command("run")
def run_now(
    accounts: Annotated[
        list[str] | None, typer.Argument(metavar="ACCOUNT…", help="All active ones by default.")
    ] = None,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Compare now, keep the run, and write its HTML report.

    Examples: unisono reconcile run · unisono reconcile run alpha beta --json
    """
    settings = read_config(config)
    run = _run(settings, _asked(settings, accounts or [], quiet=json))
    report = write_report(run, Path(settings.reports.folder))
    if json:
        print_json({"run": run, "report": str(report)})
    else:
        console.print(terminal(run))
        console.print(f"The report: {report}", highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(int(EXIT_OF[run.verdict]))


@app.command("list")
def list_runs(
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many of the newest.")] = 20,
) -> None:
    """The latest runs, the newest first.

    Example: unisono reconcile list --limit 5
    """
    with ledger_of(read_config(config)) as connection:
        found = runs.newest(connection, limit)
    if json:
        print_json(found)
    else:
        console.print(runs_table(found))


@app.command("show")
def show_run(
    run_id: RunArgument = "latest",
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write the HTML report to this file.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many rows of each list.")] = 25,
) -> None:
    """One run: on the terminal, as JSON, or as an HTML file. Exits like the run itself did.

    Examples: unisono reconcile show · unisono reconcile show latest --html report.html
    """
    run = _run(read_config(config), run_id)
    if html is not None:
        _write(html, page(run).encode())
        errors.print(f"Written: {html}", highlight=False, soft_wrap=True, markup=False)
    if json:
        print_json(run)
    elif html is None:
        console.print(terminal(run, limit=limit))
    raise typer.Exit(int(EXIT_OF[run.verdict]))


@app.command("diff")
def diff_runs(
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="The earlier run's id.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The later run's id, or: latest")] = "latest",
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """What the later run found differently. Exits 0 nothing new, 1 new or changed breaks, 2 some not looked for again.

    Example: unisono reconcile diff 20260101-100000-000-1a2b3c latest
    """
    settings = read_config(config)
    told = difference(_run(settings, before), _run(settings, after))
    if json:
        print_json(told)
    else:
        console.print(changes(told))
    if told.unproven:
        raise typer.Exit(int(Exit.UNKNOWN))
    raise typer.Exit(int(Exit.FINDINGS if told.new or told.changed else Exit.OK))


@app.command("export")
def export_run(
    run_id: RunArgument = "latest",
    to: Annotated[Path | None, typer.Option("--to", help="The folder; the configured one by default.")] = None,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Write a run as HTML and as JSON, and print the sha256 of both files.

    Example: unisono reconcile export latest --to /srv/reports
    """
    settings = read_config(config)
    run, folder = _run(settings, run_id), to or Path(settings.reports.folder)
    files = {_name(run, "html"): page(run).encode(), _name(run, "json"): to_json(run)}
    for name, content in files.items():
        _write(folder / name, content)
    sums = {str(folder / name): hashlib.sha256(content).hexdigest() for name, content in files.items()}
    if json:
        print_json(sums)
    else:
        for path, told in sums.items():
            console.print(f"{told}  {path}", highlight=False, soft_wrap=True, markup=False)


@app.command("verify")
def verify_run(
    run_id: RunArgument = "latest",
    file: Annotated[Path | None, typer.Option("--file", help="Check an exported JSON file instead.")] = None,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Check that a kept run is byte for byte what was saved. Exits 0 if it is, 1 if not.

    Examples: unisono reconcile verify · unisono reconcile verify --file report.json
    """
    if file is not None:
        try:
            document, subject = file.read_bytes(), str(file)
        except OSError as error:
            fail(f"{file} cannot be read ({error.strerror}); nothing was checked")
    else:
        document, subject = _document(read_config(config), run_id), run_id
    found = complaints(document)
    if json:
        print_json({"run": subject, "intact": not found, "complaints": found})
    elif not found:
        console.print(f"[green]✓[/green] {subject}: intact", highlight=False)
    for sentence in found if not json else ():
        errors.print(f"[red]✗[/red] {subject}: {sentence}", highlight=False, soft_wrap=True)
    raise typer.Exit(int(Exit.FINDINGS if found else Exit.OK))


def write_report(run: Run, folder: Path) -> Path:
    """The run's HTML report in a folder of reports; readable by its owner only, since it names holdings."""
    path = folder / _name(run, "html")
    _write(path, page(run).encode())
    return path


def _name(run: Run, kind: str) -> str:
    return f"reconciliation-{run.run_id}.{kind}"


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
    except OSError as error:
        fail(f"{path} cannot be written ({error.strerror}). The run is kept: unisono reconcile export RUN --to FOLDER")


def _asked(settings: Config, accounts: list[str], *, quiet: bool) -> str:
    """Have the engine make a run; returns its id."""
    columns = TextColumn("accounts compared"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    told: dict[str, Any] = {}
    try:
        with Control(settings.control.socket) as control, Progress(*columns, console=errors, disable=quiet) as bar:
            task = bar.add_task("", total=None)
            for told in control.stream("/reconcile", {"accounts": accounts, "kind": "adhoc"}):
                if "done" in told:
                    bar.update(task, completed=told["done"], total=told["total"])
    except (NoEngine, ControlError) as error:
        fail(str(error))
    if "run_id" not in told:
        fail("the engine ended before the run was kept; ask again: unisono reconcile run")
    return str(told["run_id"])


def _document(settings: Config, run_id: str) -> bytes:
    """A kept run's own bytes."""
    with ledger_of(settings) as connection:
        wanted = runs.latest_id(connection) if run_id == "latest" else run_id
        document = runs.document(connection, wanted) if wanted else None
    if document is None:
        fail(f"there is no run {run_id}. See them with: unisono reconcile list")
    return document


def _run(settings: Config, run_id: str) -> Run:
    try:
        return from_json(_document(settings, run_id))
    except msgspec.DecodeError as error:
        fail(f"run {run_id} cannot be read any more ({error}). See: unisono reconcile verify {run_id}")
