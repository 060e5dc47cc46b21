"""Decides. The table of chaos runs on the reliability page: a run is added to those that stand there already."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

_HEAD = (
    "| Day | Seed | Kills | at named places | Intents | Fills compared | Lost | Duplicated | Wrongly final | Minutes |",
    "|---|---|---|---|---|---|---|---|---|---|",
)
_TOTAL = "all"


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    seed: int
    kills: int
    named: int
    intents: int
    fills: int
    lost: int
    duplicated: int
    wrongly_final: int
    minutes: float

    @property
    def cells(self) -> list[str]:
        return [*(f"{n:,}" for n in msgspec.structs.astuple(self)[1:-1]), f"{self.minutes:.1f}"]


def added(before: Iterable[str], one: Ran, *, now: datetime | None = None) -> list[str]:
    """The table's lines with this run and new totals."""
    rows = [row for line in before if len(row := _cells(line)) == len(_cells(_HEAD[0])) and row[0][:1].isdigit()]
    rows.append([str((now or datetime.now(UTC)).date()), str(one.seed), *one.cells])
    numbers = [[float(cell.replace(",", "")) for cell in row[2:]] for row in rows]
    *counts, minutes = (sum(column) for column in zip(*numbers, strict=True))
    total = [_TOTAL, "", *(f"{count:,.0f}" for count in counts), f"{minutes:.1f}"]
    return [*_HEAD, *(f"| {' | '.join(row)} |" for row in (*rows, total))]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
