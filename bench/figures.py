"""Holds. What was measured: samples, figures, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import uvloop
import websockets


class Samples:
    """The same thing done several times, by the engine and by the floor."""

    def __init__(self) -> None:
        self.engine: list[float] = []
        self.floor: list[float] = []

    def figure(self, unit: str, **beside: Any) -> Figure:
        """Medians."""
        engine, floor = statistics.median(self.engine), statistics.median(self.floor)
        return Figure(
            engine=engine,
            floor=floor,
            ratio=engine / floor,
            unit=unit,
            runs=len(self.engine),
            engine_spread=(min(self.engine), max(self.engine)),
            floor_spread=(min(self.floor), max(self.floor)),
            **beside,
        )


class Figure(msgspec.Struct, kw_only=True):
    """One target. The spread is the smallest and the largest of the runs; `also` is whatever else was seen."""

    engine: float
    floor: float
    ratio: float
    unit: str
    runs: int
    engine_spread: tuple[float, float]
    floor_spread: tuple[float, float]
    what: str
    target: str
    met: bool = False
    also: dict[str, Any] = {}


def percentile(values: list[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "model": model,
        "system": platform.platform(),
        "python": platform.python_version(),
        "uvloop": uvloop.__version__,
        "websockets": websockets.__version__,
        "sqlite": sqlite3.sqlite_version,
        "load_before": os.getloadavg(),
        "note": "engine, floor and the venue's process share these cores",
    }


def document(figures: Mapping[str, Figure], facts: Mapping[str, Any]) -> bytes:
    """The JSON of `--out`."""
    return msgspec.json.format(msgspec.json.encode({**figures, "machine": facts}), indent=2) + b"\n"
