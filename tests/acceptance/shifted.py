"""Does. `python -m tests.acceptance.shifted CONFIG OFFSET`: an engine whose clock is off by the ms in the file OFFSET.

Durations are the machine's, as they are when somebody sets a real clock.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import anyio

from engine.app import Engine
from engine.cli import logs
from engine.cli.context import read_config
from engine.notify import Notifier
from engine.venues import venues
from scheduler.clock import SystemClock


class ShiftedClock(SystemClock):
    def __init__(self, offset: Path) -> None:
        self._offset = offset

    def now_ms(self) -> int:
        return super().now_ms() + int(self._offset.read_text())


async def main(config: Path, offset: Path) -> None:
    settings = read_config(config)
    logs.configure(settings.log)
    clock = ShiftedClock(offset)
    await Engine(settings, venues=venues(), clock=clock, rng=random.SystemRandom(), notifier=Notifier()).run()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), Path(sys.argv[2]), backend_options={"use_uvloop": True})
