"""`unisono reconcile …` as a person types it: against a control door on a Unix socket and a ledger on the disk."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from anyio.from_thread import start_blocking_portal
from typer.testing import CliRunner, Result

from engine.cli.reconcile import app
from engine.config import Ledger as LedgerSettings
from engine.control.server import Rejected, serve
from engine.core.runs import Run, to_json
from engine.core.statements import Part
from engine.ledger import Ledger, runs
from tests.fakes import FakeClock
from tests.reports.samples import BREAKS, CLEAN, DIFFERENCES, UNKNOWN, run


class Office:
    """An engine that makes one run when it is asked."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.makes: Run | Rejected = CLEAN
        self.asked: list[Any] = []

    async def reconcile(self, accounts: list[str], kind: str) -> AsyncIterator[Any]:
        self.asked.append((accounts, kind))
        if isinstance(self.makes, Rejected):
            raise self.makes
        one = self.makes
        yield {"done": 1, "total": 2}
        yield {"done": 2, "total": 2}
        await self._ledger.write(lambda conn: runs.save(conn, one))
        yield {"run_id": one.run_id, "verdict": one.verdict.value}


class Desk:
    """A person at a terminal that is none: commands in, exit codes and text out."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config, self.door = folder, folder / "unisono.toml", folder / "door"
        self.url = f"sqlite:///{folder / 'unisono.sqlite'}"
        self.reports = folder / "kept"
        self.config.write_text(
            f'[database]\nurl = "{self.url}"\n[control]\nsocket = "{self.door}"\n[reports]\nfolder = "kept"\n',
            encoding="utf-8",
        )

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, list(words), env={"UNISONO_CONFIG": str(self.config), "COLUMNS": "200"})

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def office(desk: Desk) -> Iterator[Office]:
    ledger = Ledger.open(desk.url, LedgerSettings(), FakeClock())
    office = Office(ledger)
    with start_blocking_portal("asyncio") as portal:
        serving = portal.start_task_soon(serve, office, str(desk.door))
        while not desk.door.exists() and not serving.done():
            portal.call(anyio.lowlevel.checkpoint)
        yield office
        serving.cancel()
    ledger.close()


@pytest.fixture
def kept(desk: Desk) -> Desk:
    """Three runs in the ledger, and no engine."""
    ledger = Ledger.open(desk.url, LedgerSettings(), FakeClock())

    async def save() -> None:
        for one in (BREAKS, CLEAN, UNKNOWN):
            await ledger.write(lambda conn, one=one: runs.save(conn, one))

    anyio.run(save)
    ledger.close()
    return desk


@pytest.mark.parametrize(("one", "code"), [(CLEAN, 0), (BREAKS, 1), (UNKNOWN, 2)])
def test_a_run_ends_with_the_code_of_its_verdict_and_writes_its_report(
    desk: Desk, office: Office, one: Run, code: int
) -> None:
    office.makes = one
    told = desk.run("run", "okx-01", "okx-02")
    assert told.exit_code == code, told.output
    assert office.asked == [(["okx-01", "okx-02"], "adhoc")]
    (report,) = desk.reports.iterdir()
    assert str(report) in told.stdout
    assert one.seal in report.read_text(encoding="utf-8")
    assert report.stat().st_mode & 0o077 == 0


def test_json_of_a_run_is_the_run_and_nothing_else(desk: Desk, office: Office) -> None:
    told = desk.json("run")
    assert told["run"]["schema"] == "unisono.reconciliation/1"
    assert told["run"]["seal"] == CLEAN.seal
    assert Path(told["report"]).exists()


def test_what_the_engine_refuses_is_an_error_with_its_sentence(desk: Desk, office: Office) -> None:
    office.makes = Rejected("no account nobody; nothing was done")
    told = desk.run("run", "nobody")
    assert told.exit_code == 3
    assert "no account nobody" in told.stderr


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # httpcore leaves the socket of a failed connect behind
def test_without_an_engine_a_run_is_an_error(kept: Desk) -> None:
    told = kept.run("run")
    code, said = told.exit_code, told.stderr
    del told
    gc.collect()
    assert code == 3
    assert said


def test_runs_are_listed_shown_and_exported_without_an_engine(kept: Desk) -> None:
    assert {line["run_id"] for line in kept.json("list")} == {r.run_id for r in (CLEAN, BREAKS, UNKNOWN)}
    assert UNKNOWN.run_id in kept.run("list").stdout
    shown = kept.run("show", BREAKS.run_id)
    assert (shown.exit_code, "FILL_EXTRA" in shown.stdout) == (1, True)
    page = kept.folder / "page.html"
    assert kept.run("show", CLEAN.run_id, "--html", str(page)).exit_code == 0
    assert CLEAN.seal in page.read_text(encoding="utf-8")
    sums = kept.json("export", UNKNOWN.run_id, "--to", str(kept.folder / "out"))
    assert {Path(path).suffix for path in sums} == {".html", ".json"}
    for path, told in sums.items():
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == told
    exported = next(Path(path) for path in sums if path.endswith(".json"))
    assert exported.read_bytes() == to_json(UNKNOWN)
    assert kept.run("verify", "--file", str(exported)).exit_code == 0


def test_two_runs_are_compared(kept: Desk) -> None:
    worse = kept.run("diff", CLEAN.run_id, BREAKS.run_id)
    assert (worse.exit_code, "FILL_EXTRA" in worse.stdout) == (1, True)
    assert kept.run("diff", BREAKS.run_id, CLEAN.run_id).exit_code == 0
    assert len(kept.json("diff", BREAKS.run_id, UNKNOWN.run_id)["same"]) == len(list(BREAKS.breaks))


def test_a_part_that_was_not_looked_at_again_makes_the_comparison_unknown(desk: Desk) -> None:
    blind = run(DIFFERENCES | {"okx-17": ({"missing": {Part.FILLS: "cut"}}, {})})
    ledger = Ledger.open(desk.url, LedgerSettings(), FakeClock())
    for one in (BREAKS, blind):
        anyio.run(ledger.write, lambda conn, one=one: runs.save(conn, one))
    ledger.close()
    assert desk.run("diff", BREAKS.run_id, blind.run_id).exit_code == 2


def test_a_kept_run_verifies_until_somebody_changes_it(kept: Desk) -> None:
    assert kept.run("verify", BREAKS.run_id).exit_code == 0
    engine = sa.create_engine(kept.url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE run SET body = replace(body, '\"okx-17\"', '\"okx-71\"')"))
    engine.dispose()
    told = kept.run("verify", BREAKS.run_id)
    assert told.exit_code == 1
    assert "seal" in told.stderr
    assert kept.json("verify", BREAKS.run_id)["intact"] is False


@pytest.mark.parametrize(
    "words", [["show", "nothing"], ["diff", "one", "two"], ["export", "nothing"], ["verify", "--file", "/no/where"]]
)
def test_what_is_not_there_is_an_error_that_says_so(kept: Desk, words: list[str]) -> None:
    told = kept.run(*words)
    assert told.exit_code == 3
    assert told.stderr.startswith("✗")


def test_an_empty_folder_has_no_ledger_and_the_command_says_what_to_do(desk: Desk) -> None:
    told = desk.run("list")
    assert told.exit_code == 3
    assert "unisono init" in told.stderr
