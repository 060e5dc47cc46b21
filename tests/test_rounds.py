"""A place that does not answer makes nobody's prices old but its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from engine.rounds import Place, PriceRounds
from tests.fakes import FakeClock, settle

pytestmark = pytest.mark.anyio

QUICK, MUTE = ("quick", "demo"), ("mute", "demo")


class Places:
    """Two places: one answers at once, the other when it is let."""

    def __init__(self) -> None:
        self.asked: list[Place] = []
        self.let = asyncio.Event()

    async def read(self, place: Place) -> None:
        self.asked.append(place)
        if place == MUTE:
            await self.let.wait()


@asynccontextmanager
async def rounds(every_s: float = 20.0) -> AsyncIterator[tuple[PriceRounds, Places, FakeClock]]:
    clock, places = FakeClock(), Places()
    async with anyio.create_task_group() as group:

        def start_soon(work: Callable[..., Coroutine[Any, Any, None]], place: Place) -> None:
            group.start_soon(work, place)

        yield PriceRounds(clock=clock, read=places.read, every_s=every_s, start_soon=start_soon), places, clock
        group.cancel_scope.cancel()


async def test_who_answers_is_asked_in_time_though_another_one_is_mute() -> None:
    async with rounds() as (asking, places, clock):
        for _ in range(3):
            asking.begin([MUTE, QUICK])
            await settle()
            await clock.advance(20.0)
        assert places.asked.count(QUICK) == 3


async def test_nobody_is_asked_again_before_the_first_answer_or_before_it_is_due() -> None:
    async with rounds() as (asking, places, clock):
        asking.begin([MUTE, QUICK])
        await settle()
        await clock.advance(19.0)
        asking.begin([MUTE, QUICK])
        await settle()
        assert sorted(places.asked) == [MUTE, QUICK]
        await clock.advance(1.0)
        asking.begin([MUTE])
        await settle()
        assert places.asked.count(MUTE) == 1
        places.let.set()
        await settle()
        asking.begin([MUTE])
        await settle()
        assert places.asked.count(MUTE) == 2


async def test_a_plan_asks_all_places_at_once() -> None:
    async with rounds() as (asking, places, _), anyio.create_task_group() as group:
        group.start_soon(asking.now, [MUTE, QUICK])
        await settle()
        assert sorted(places.asked) == [MUTE, QUICK]
        places.let.set()


async def test_a_plan_does_not_wait_for_ever_for_one_of_them() -> None:
    async with rounds() as (_, places, clock):
        hasty = PriceRounds(clock=clock, read=places.read, every_s=1.0, start_soon=lambda w, p: None, patience_s=0.0)
        await hasty.now([MUTE])
        assert not places.let.is_set()
