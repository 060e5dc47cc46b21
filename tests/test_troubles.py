"""A refusal, a limit, an expiry, a broken line, silence and a mistake of ours each show as what they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from rich.console import Console

from engine.control.office import troubled
from engine.core.venue import ErrorClass, Grant, Heard, Login, Notice, Said, Trouble, VenueError
from engine.links import LinkView, Phase
from engine.reports.tables import ConnectionRow, connections_table
from engine.wire.http import NoAnswer
from tests.fakes import FakeClock, settle
from tests.test_links import Talk, World, private, running, venue

pytestmark = pytest.mark.anyio


class Frank(Talk):
    """Says what kind of trouble it means."""

    def hear(self, frame: bytes, now_ms: int) -> Heard:
        if frame == b"too many":
            return Heard(said=[Said(Notice.RETRY, "too many streams", "80002", after_s=90.0, trouble=Trouble.LIMIT)])
        return super().hear(frame, now_ms)


def frank(**how: Any) -> Any:
    def converse(*, logins: Any, **_: Any) -> Talk:
        return Frank(logins[0].credentials["key"].reveal(), True)

    return msgspec.structs.replace(venue(**how), converse=converse)


@pytest.fixture
async def live(clock: FakeClock) -> AsyncIterator[World]:
    async with running(World(clock, toy=frank())) as world:
        await world.wants(private())
        assert (world.link().view().trouble, world.link().view().last_error) == (None, "")
        yield world


def view(world: World) -> LinkView:
    return world.link().view()


async def test_a_limit_shows_with_the_seconds_that_are_left(live: World) -> None:
    live.sockets[0].says("too many")
    await live.seconds(30)
    found = view(live)
    assert (found.trouble, found.phase) == (Trouble.LIMIT, Phase.DOWN)
    assert "too many streams" in found.last_error
    (finding,) = troubled([found])
    assert finding.subject == "a"
    assert "limit: " in finding.what
    assert finding.what.endswith("tried again in 60 s")
    await live.seconds(65)
    assert troubled([view(live)]) == [], "over once it is live again"


async def test_a_refused_key_is_told_as_halted_and_not_twice(live: World) -> None:
    live.sockets[0].says("auth_refused")
    await settle()
    assert (view(live).trouble, view(live).phase) == (Trouble.REFUSED, Phase.HALTED)
    assert troubled([view(live)]) == []


async def test_what_a_feed_denies_shows_though_the_connection_lives(live: World) -> None:
    live.sockets[0].says("refused no such tariff")
    await settle()
    found = view(live)
    assert (found.phase, found.trouble, found.last_error) == (Phase.LIVE, Trouble.REFUSED, "7 no such tariff")
    (finding,) = troubled([found])
    assert "refused: 7 no such tariff" in finding.what


async def test_a_broken_line_is_the_network(live: World) -> None:
    live.reachable = False
    live.sockets[0].cut()
    await live.seconds(1)
    assert view(live).trouble is Trouble.NETWORK


async def test_one_that_never_gets_ready_is_silent(live: World) -> None:
    live.greets = False
    live.sockets[0].cut()
    await live.seconds(40)
    assert view(live).trouble is Trouble.SILENT


async def test_what_should_have_come_and_did_not_is_silence(live: World) -> None:
    live.reachable = False
    live.links.mark_mute("a-private", "history shows more")
    assert view(live).trouble is Trouble.SILENT


async def test_a_busy_venue_is_the_venues_own_trouble(live: World) -> None:
    live.sockets[0].says("retry in 90 s")
    await settle()
    assert view(live).trouble is Trouble.VENUE


async def test_a_mistake_of_ours_is_ours(live: World) -> None:
    live.told.stumbles = live.greets = True
    live.reachable = False
    live.sockets[0].says("fact orders")
    await settle()
    assert view(live).trouble is Trouble.OURS


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (VenueError(ErrorClass.RETRYABLE_READ, "500", "try later"), Trouble.EXPIRY),
        (VenueError(ErrorClass.RATE, "429", "too fast"), Trouble.LIMIT),
        (NoAnswer("reset", written=True), Trouble.EXPIRY),
    ],
    ids=["not renewed", "too fast", "no answer"],
)
async def test_an_access_token_that_is_not_to_be_had(clock: FakeClock, error: Exception, trouble: Trouble) -> None:
    class NoToken(World):
        async def login(self, connection: Any) -> Login:
            raise error.with_traceback(None)

    async with running(NoToken(clock, toy=frank())) as world:
        await world.wants(private())
        assert view(world).trouble is trouble
        assert "no access token" in view(world).last_error


async def test_a_token_that_has_ended_is_an_expiry_and_a_second_refusal_is_one(clock: FakeClock) -> None:
    nothing: Any = lambda *_: pytest.fail("no HTTP")  # noqa: E731
    grant = Grant(request=nothing, read=nothing, renew_before_ms=0)
    async with running(World(clock, toy=frank(grant=grant))) as world:
        world.greets = False
        await world.wants(private())
        world.sockets[0].says("auth_refused")
        await settle()
        assert (view(world).trouble, world.tokens_refused) == (Trouble.EXPIRY, ["a"])
        await world.seconds(5)
        world.sockets[-1].says("auth_refused")
        await settle()
        assert (view(world).trouble, view(world).phase) == (Trouble.REFUSED, Phase.HALTED)


async def test_many_of_one_venue_with_one_trouble_are_one_finding(live: World) -> None:
    live.reachable = False
    live.sockets[0].cut()
    await live.seconds(1)
    found = view(live)
    (finding,) = troubled([found, found, found])
    assert finding.subject == "toy"
    assert finding.what.startswith("3 private connections: network: ")


def test_the_table_has_a_column_for_it() -> None:
    row = ConnectionRow(
        connection_key="k", phase="down", last_error="too many streams", trouble="limit", retry_in_s=41.6
    )
    denied = ConnectionRow(connection_key="d", phase="live", last_error="no such tariff", trouble="refused")
    console = Console(width=180, color_system=None)
    with console.capture() as captured:
        console.print(connections_table([row, denied]))
    told = captured.get()
    assert "limit, 42 s" in told
    assert "no such tariff" in told
