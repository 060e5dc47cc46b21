"""Does. Runs a timetable. The only importer of APScheduler, which says when; the runs live in our own task group.

APScheduler keeps time by the wall clock: when somebody sets that clock back, its next run would wait until the old
time comes round again. So the wall clock is held against the monotonic one, and after a jump everything is due.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from functools import partial

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from scheduler.clock import Clock
from scheduler.timetable import Entry

log = structlog.get_logger("heartbeat")

_WATCH_S = 0.5  # how often the two clocks are compared
_JUMP_S = 1.0

logging.getLogger("apscheduler").setLevel(logging.CRITICAL + 1)  # what its executors tell twice, or of a stop


class Pace(msgspec.Struct):
    """How an entry keeps up. Lateness is from when a run was due to when it began, in seconds."""

    runs: int = 0
    failed: int = 0  # raised
    overran: int = 0  # cancelled at the deadline
    skipped: int = 0  # due while the one before was still running
    late_s: float = 0.0  # of the latest run
    latest_s: float = 0.0  # the worst so far


class Heartbeat:
    """Runs each entry every `every_s` seconds, the first time one interval from now."""

    def __init__(self, clock: Clock, timetable: Sequence[Entry]) -> None:
        self._clock, self._timetable = clock, tuple(timetable)
        self.paces: dict[str, Pace] = {entry.name: Pace() for entry in timetable}
        assert len(self.paces) == len(self._timetable), "each entry has a name of its own"
        self._running: set[str] = set()
        self._due_s: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled. What an entry raises is logged and counted; the timetable goes on."""
        # A missed run is made up for once (coalesce), however late (no grace time: its default of 1 s drops beats
        # when the loop stalls), and never beside itself.
        scheduler = AsyncIOScheduler(
            timezone=datetime.UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        async with anyio.create_task_group() as runs:
            for entry in self._timetable:
                self._due_s[entry.name] = self._clock.monotonic_s() + entry.every_s
                scheduler.add_job(partial(self._begin, runs, entry), "interval", seconds=entry.every_s, id=entry.name)
            scheduler.start()
            try:
                await self._watch_clocks(scheduler)
            finally:
                scheduler.shutdown(wait=False)
                runs.cancel_scope.cancel()

    async def _watch_clocks(self, scheduler: AsyncIOScheduler) -> None:
        def apart_s() -> float:
            return self._clock.now_ms() / 1000 - self._clock.monotonic_s()

        before_s = apart_s()
        while True:
            await self._clock.sleep(_WATCH_S)
            now_s = apart_s()
            if abs(now_s - before_s) >= _JUMP_S:
                log.warning("wall_clock_jumped", by_s=round(now_s - before_s, 3))
                for entry in self._timetable:
                    self._due_s[entry.name] = self._clock.monotonic_s()
                    scheduler.modify_job(entry.name, next_run_time=datetime.datetime.now(datetime.UTC))
                before_s = now_s

    async def _begin(self, runs: TaskGroup, entry: Entry) -> None:
        if entry.name in self._running:
            self.paces[entry.name].skipped += 1
            log.warning("still_running", entry=entry.name)
            return
        self._running.add(entry.name)
        runs.start_soon(self._run, entry)

    async def _run(self, entry: Entry) -> None:
        pace = self.paces[entry.name]
        pace.late_s = max(0.0, self._clock.monotonic_s() - self._due_s[entry.name])
        pace.latest_s = max(pace.latest_s, pace.late_s)
        pace.runs += 1
        self._due_s[entry.name] += entry.every_s * (1 + pace.late_s // entry.every_s)  # missed ones are made up once
        try:
            with anyio.move_on_after(entry.deadline_s) as limit:
                await entry.run()
            if limit.cancelled_caught:
                pace.overran += 1
                log.warning("overran", entry=entry.name, deadline_s=entry.deadline_s)
        except Exception:
            pace.failed += 1
            log.exception("entry_failed", entry=entry.name)
        finally:
            self._running.discard(entry.name)
