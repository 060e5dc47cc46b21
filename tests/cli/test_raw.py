"""`unisono raw …` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from engine.cli.raw import app
from engine.wire.archive import HOUR_MS, Hour, Line

HOUR = 1_767_225_600_000  # 2026-01-01 00:00


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for number in range(3):
        hour = Hour(tmp_path / "raw", "okx", HOUR + number * HOUR_MS)
        line = Line(hour.hour_ms + 60_000, f"okx-00{number}-private", "in", f'{{"frame":{number}}}')
        hour.write(msgspec.json.encode(line) + b"\n")
        hour.close()
    file = tmp_path / "unisono.toml"
    file.write_text("")
    return file


def run(config: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--config", str(config)])


def test_frames_are_shown_by_time_and_connection(config: Path) -> None:
    shown = run(config, "show", "--since", "2026-01-01", "--until", "2026-01-01T02")
    assert shown.exit_code == 0
    assert [line.split(" ", 2)[2] for line in shown.output.splitlines()] == [
        'okx-000-private in: {"frame":0}',
        'okx-001-private in: {"frame":1}',
    ]
    told = run(config, "show", "--since", "2026-01-01T00:00", "--connection", "okx-002", "--json")
    assert json.loads(told.output)["frame"] == '{"frame":2}'


def test_a_limit_that_cuts_says_so(config: Path) -> None:
    shown = run(config, "show", "--since", "2026-01-01", "--limit", "2")
    assert shown.exit_code == 3
    assert "there is more" in shown.output


def test_a_time_that_is_none_is_refused_with_an_example(config: Path) -> None:
    assert "2026-11-22T03:15" in run(config, "show", "--since", "yesterday").output


def test_an_incident_is_pinned_listed_and_lifted(config: Path) -> None:
    assert "say --why" in run(config, "pin", "2026-01-01T01").output
    pinned = run(config, "pin", "2026-01-01T01", "--why", "orders unknown")
    assert "1 files are kept" in pinned.output
    told = json.loads(run(config, "list", "--json").output)
    (pin,) = told["pins"]
    assert (pin["since_ms"], pin["until_ms"], pin["why"]) == (HOUR + HOUR_MS, HOUR + 2 * HOUR_MS - 1, "orders unknown")
    assert [file["hour_ms"] for file in told["files"]] == [HOUR + n * HOUR_MS for n in range(3)]
    assert run(config, "list").output.count(pin["pin_id"]) == 2, "at its file, and by itself"
    assert run(config, "unpin", pin["pin_id"]).exit_code == 0
    assert run(config, "unpin", pin["pin_id"]).exit_code == 3
