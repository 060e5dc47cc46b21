"""The timetable runs on a real scheduler and loop: intervals of hundredths of a second, and waiting with a limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import anyio
import pytest

from scheduler.clock import SystemClock
from scheduler.heartbeat import Heartbeat
from scheduler.timetable import Entry


def entry(name: str, run: Callable[[], Awaitable[object]], *, every_s: float = 0.02, deadline_s: float = 1.0) -> Entry:
    return Entry(name=name, every_s=every_s, deadline_s=deadline_s, run=run)


class Counter:
    """Sets `reached` at its n-th run."""

    def __init__(self, goal: int) -> None:
        self.runs, self.goal, self.reached = 0, goal, anyio.Event()

    async def __call__(self) -> None:
        self.runs += 1
        if self.runs == self.goal:
            self.reached.set()


async def run_until(heartbeat: Heartbeat, done: anyio.Event) -> None:
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(heartbeat.run)
            await done.wait()
            group.cancel_scope.cancel()


@pytest.mark.parametrize("uvloop", [False, True])
def test_entries_run_again_and_again_on_either_loop(uvloop: bool) -> None:
    async def main() -> Heartbeat:
        beat = Counter(3)
        heartbeat = Heartbeat(SystemClock(), [entry("beat", beat)])
        await run_until(heartbeat, beat.reached)
        return heartbeat

    heartbeat = anyio.run(main, backend_options={"use_uvloop": uvloop})
    assert heartbeat.paces["beat"].runs >= 3
    assert heartbeat.paces["beat"].latest_s < 5


@pytest.mark.anyio
async def test_an_entry_that_raises_is_counted_and_runs_again() -> None:
    counter = Counter(3)

    async def fails() -> None:
        await counter()
        raise RuntimeError("on purpose")

    heartbeat = Heartbeat(SystemClock(), [entry("fails", fails)])
    await run_until(heartbeat, counter.reached)
    assert heartbeat.paces["fails"].failed >= 2


@pytest.mark.anyio
async def test_a_run_is_cancelled_at_its_deadline_and_never_stands_beside_itself() -> None:
    counter = Counter(3)
    inside = most_inside = 0

    async def hangs() -> None:
        nonlocal inside, most_inside
        inside += 1
        most_inside = max(most_inside, inside)
        await counter()
        try:
            await anyio.sleep_forever()
        finally:
            inside -= 1

    heartbeat = Heartbeat(SystemClock(), [entry("hangs", hangs, deadline_s=0.05)])
    await run_until(heartbeat, counter.reached)
    assert heartbeat.paces["hangs"].overran >= 2
    assert heartbeat.paces["hangs"].skipped >= 1
    assert most_inside == 1
    assert inside == 0


@pytest.mark.anyio
async def test_a_slow_entry_does_not_hold_up_the_others() -> None:
    counter = Counter(5)
    heartbeat = Heartbeat(SystemClock(), [entry("hangs", anyio.sleep_forever, deadline_s=60), entry("beat", counter)])
    await run_until(heartbeat, counter.reached)
    assert heartbeat.paces["hangs"].runs == 1


@pytest.mark.anyio
async def test_a_beat_that_a_stall_of_the_loop_made_late_is_not_dropped() -> None:
    """APScheduler's own default forgets a run that is a second late: with a pulse of 25 s, that loses every link."""
    counter, stalled = Counter(1), anyio.Event()

    async def stall() -> None:
        time.sleep(2.1)  # noqa: ASYNC251  the point: nobody else runs meanwhile
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        stalled.set()
        await anyio.sleep_forever()

    heartbeat = Heartbeat(SystemClock(), [entry("beat", counter, every_s=1.1), entry("stall", stall, deadline_s=9)])
    await run_until(heartbeat, stalled)
    assert counter.runs == 1, "made up for once, as soon as the loop runs again"
    assert heartbeat.paces["beat"].late_s > 0.9


@pytest.mark.anyio
async def test_when_the_wall_clock_jumps_everything_is_due_at_once() -> None:
    class SetBack(SystemClock):
        back_ms = 0

        def now_ms(self) -> int:
            return super().now_ms() - self.back_ms

    clock, counter = SetBack(), Counter(1)

    async def set_back() -> None:
        clock.back_ms = 5_000

    heartbeat = Heartbeat(clock, [entry("hourly", counter, every_s=3600), entry("setting", set_back)])
    await run_until(heartbeat, counter.reached)
    assert heartbeat.paces["hourly"].runs == 1


def test_apscheduler_does_not_log_each_run() -> None:
    assert not logging.getLogger("apscheduler.executors.default").isEnabledFor(logging.INFO)
