"""Connections kept open: a toy venue over sockets of its own, the clock moved, and some real sockets at the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from websockets.asyncio.server import ServerConnection, serve

from accounts.model import Connection, Listener, Secret
from engine.config import Pulse
from engine.core.facts import EquityFact
from engine.core.instruments import Instrument
from engine.core.orders import Command, OrderType
from engine.core.venue import (
    Capabilities,
    Conversation,
    Dedupe,
    EndpointKind,
    ErrorClass,
    Frame,
    Grant,
    Handshake,
    Heard,
    Login,
    Notice,
    RateRule,
    Reply,
    Said,
    Transport,
    Venue,
    VenueError,
)
from engine.links import Beat, Link, Links, NotSent, Phase
from engine.wire.rate import Budgets
from engine.wire.stream import Closed, Dial, NotOpened, Socket, dialler
from tests.fakes import FakeClock, settle

pytestmark = pytest.mark.anyio


# ---- a venue of a few words


class Talk(Conversation):
    """`login` is answered `ready`; `fact CHANNEL`, `reply ID`, and notices by their names."""

    def __init__(self, key: str, pings: bool) -> None:
        self.key, self.pings = key, pings
        self.due: Heard | None = None

    def open(self, now_ms: int) -> Sequence[Frame]:
        return [f"login {self.key} {now_ms}"]

    def hear(self, frame: bytes, now_ms: int) -> Heard:
        word, _, rest = frame.decode().partition(" ")
        match word:
            case "fact":
                return Heard(facts=[EquityFact(currency="USD", total=1, updated_at_ms=now_ms)], channel=rest)  # type: ignore[arg-type]
            case "reply":
                return Heard(replies=[Reply(rest, ())])
            case "ask":
                return Heard(frames=["answer"])
            case "refuse":
                return Heard(said=[Said(Notice.AUTH_REFUSED, "the token", "401", ref=rest)])
            case "raise":
                raise KeyError("a mistake in the dialect")
            case _:
                notice = Notice(word) if word in set(Notice) else Notice.UNREADABLE
                return Heard(said=[Said(notice, rest, "7", after_s=90.0 if rest == "in 90 s" else 0.0)])

    def tick(self, now_ms: int) -> Heard | None:
        due, self.due = self.due, None
        return due

    def beat(self, now_ms: int) -> Sequence[Frame]:
        return ["ping"] if self.pings else []

    def say(self, commands: Sequence[Command], request_id: str, now_ms: int) -> Frame:
        raise NotImplementedError

    def closed(self, code: int, reason: str) -> Said | None:
        if code == 4008:
            return Said(Notice.RETRY, reason, str(code), after_s=90.0)
        return Said(Notice.AUTH_REFUSED, reason, str(code)) if code == 4001 else None


class Nothing:
    def by_name(self, name: str) -> Instrument | None:
        return None

    def listed(self) -> Sequence[Instrument]:
        return ()


def venue(*, pings: bool = True, opens: int = 1000, pack: int = 1, grant: Grant | None = None) -> Venue:
    def converse(*, logins: Sequence[Login], **_: Any) -> Conversation:
        return Talk(logins[0].credentials["key"].reveal() if logins else "nobody", pings)

    return Venue(
        name="toy",
        title="Toy",
        places=(),
        endpoints=(
            EndpointKind(
                name="private",
                transport=Transport.STREAM,
                listener=Listener.ACCOUNT,
                requires_auth=True,
                pack=pack,
                pack_logins=pack > 1,
            ),
            EndpointKind(
                name="named",
                transport=Transport.STREAM,
                listener=Listener.ACCOUNT,
                requires_auth=True,
                needs_channels=True,
            ),
            EndpointKind(name="public", transport=Transport.STREAM, listener=Listener.VENUE, requires_auth=False),
            EndpointKind(name="rest", transport=Transport.HTTP, listener=Listener.ACCOUNT, requires_auth=True),
        ),
        credential_fields=("key",),
        capabilities=Capabilities(
            order_types=frozenset(OrderType),
            orders_over=Transport.STREAM,
            dedupe=Dedupe.NONE,
            lookup_by_client_id=True,
            request_expiry_ms=None,
            max_read_lag_ms=0,
            fills_history_ms=0,
            idle_limit_s=30,
        ),
        rates=(),
        opens=RateRule(name="opens", limit=opens, window_s=1.0, scope="address"),
        converse=converse,
        rest=lambda *_, **__: pytest.fail("no HTTP here"),
        sign=lambda *_: pytest.fail("no HTTP here"),
        render_order_id=str,
        owns_order_id=lambda _: True,
        grant=grant,
    )


def private(account: str = "a", *, kind: str = "private", url: str = "ws://127.0.0.1/x", **rest: Any) -> Connection:
    fields: dict[str, Any] = {
        "connection_key": f"{account}-{kind}",
        "client_key": f"{account}-{kind}-client",
        "listener": Listener.ACCOUNT,
        "listener_id": account,
        "venue": "toy",
        "environment": "demo",
        "kind": kind,
        "url": url,
        "requires_auth": True,
        "keep_alive": True,
        "channels": ("orders", "account"),
    }
    return Connection(**fields | rest)


def shared() -> Connection:
    return private("toy", kind="public", listener=Listener.VENUE, requires_auth=False)


class ToySocket:
    """One end of a socket; the test plays the other."""

    def __init__(self, url: str) -> None:
        self.url, self.sent, self.ended = url, list[Frame](), ""
        self.pongs = asyncio.Event()
        self._coming: asyncio.Queue[bytes | Closed] = asyncio.Queue()

    def says(self, *frames: str) -> None:
        for frame in frames:
            self._coming.put_nowait(frame.encode())

    def cut(self, code: int = 1006, reason: str = "") -> None:
        self._coming.put_nowait(Closed(code, reason))

    async def recv(self) -> bytes:
        frame = await self._coming.get()
        if isinstance(frame, Closed):
            self.ended = self.ended or "cut"
            raise frame
        return frame

    def send(self, frame: Frame) -> None:
        if self.ended:
            raise NotSent("gone", written=False)
        self.sent.append(frame)

    async def ping(self) -> None:
        self.sent.append("protocol ping")
        await self.pongs.wait()

    async def close(self) -> None:
        if not self.ended:
            self.ended = "closed"
            self.cut(1000)

    def abort(self) -> None:
        if not self.ended:
            self.ended = "aborted"
            self.cut()


class Told:
    """Hears, and writes it down."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []
        self.full, self.emptied = False, asyncio.Event()
        self.stumbles = False

    async def room(self) -> None:
        await self.emptied.wait()

    def on_heard(self, connection: Connection, heard: Heard, received_at_ms: int) -> None:
        if self.stumbles:
            raise RuntimeError("a mistake while keeping facts")
        self.lines.append(("heard", connection.listener_id, heard.channel))

    def on_reply(self, connection: Connection, reply: Reply) -> None:
        self.lines.append(("reply", connection.listener_id, reply.request_id))

    def on_live(self, connection: Connection, was_down_since_ms: int | None) -> None:
        self.lines.append(("live", connection.listener_id, was_down_since_ms))

    def on_down(self, connection: Connection, last_heard_ms: int, reason: str) -> None:
        self.lines.append(("down", connection.listener_id, last_heard_ms, reason))

    def on_unreadable(self, connection: Connection, frame: bytes, reason: str) -> None:
        self.lines.append(("unreadable", connection.listener_id, frame))

    def on_halted(self, connection: Connection, code: str, reason: str) -> None:
        self.lines.append(("halted", connection.listener_id, code))

    def on_said(self, connection: Connection, said: Said) -> None:
        self.lines.append(("said", connection.listener_id, said.notice.value))

    def named(self, *names: str) -> list[tuple[Any, ...]]:
        return [line for line in self.lines if line[0] in names]


class World:
    """Links over toy sockets. Sockets greet with `ready` unless told otherwise."""

    def __init__(self, clock: FakeClock, *, toy: Venue, dial: Dial | None = None) -> None:
        self.clock, self.told = clock, Told()
        self.sockets: list[ToySocket] = []
        self.dialled_s: list[float] = []
        self.keys: dict[str, str] = {}
        self.greets = self.reachable = True
        self.sealed: set[str] = set()  # accounts whose credentials cannot be opened
        self.tokens_refused: list[str] = []
        self.links = Links(
            clock=clock,
            dial=dial or self.dial,
            budgets=Budgets(clock, percent=100.0),
            venues={"toy": toy},
            login=self.login,
            catalogue=lambda *_: Nothing(),
            hearer=self.told,
            pulse=Pulse(),
            rng=random.Random(1),
            token_refused=lambda row: self.tokens_refused.append(row.listener_id),
        )

    async def login(self, connection: Connection) -> Login:
        account_id = connection.listener_id
        if account_id in self.sealed:
            raise VenueError(ErrorClass.AUTH, "credentials", "sealed with another key")
        return Login(account_id, {"key": Secret(self.keys.get(account_id, f"{account_id}'s key"))})

    async def dial(self, url: str, venue: str, handshake: Handshake) -> Socket:
        self.dialled_s.append(self.clock.monotonic_s())
        if not self.reachable:
            raise NotOpened("nobody there")
        socket = ToySocket(url)
        self.sockets.append(socket)
        if self.greets:
            socket.says("ready")
        return socket

    async def wants(self, *connections: Connection) -> None:
        await self.links.set_wanted(connections)
        await settle()

    def link(self, account: str = "a", kind: str = "private") -> Link:
        link = self.links.of_listener(account, kind)
        assert link is not None
        return link

    async def seconds(self, seconds: float) -> None:
        """Time goes by; the watch runs each second."""
        while seconds > 0:
            await self.clock.advance(min(1.0, seconds))
            await self.links.watch_silence()
            await settle()
            seconds -= 1.0


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    async with anyio.create_task_group() as group:
        group.start_soon(world.links.run)
        yield world
        group.cancel_scope.cancel()


@pytest.fixture
async def world(clock: FakeClock) -> AsyncIterator[World]:
    async with running(World(clock, toy=venue())) as world:
        yield world


@pytest.fixture
async def live(world: World) -> World:
    await world.wants(private())
    assert world.link().live
    world.told.lines.clear()
    return world


# ---- opening


async def test_a_wanted_connection_logs_in_and_is_told_live(world: World) -> None:
    started_ms = world.clock.now_ms()
    await world.wants(private())
    assert world.sockets[0].sent == [f"login a's key {started_ms}"]
    assert world.told.lines == [("live", "a", None)]
    assert world.link().phase is Phase.LIVE


async def test_it_is_not_live_before_it_is_ready_and_given_up_when_it_never_is(world: World) -> None:
    world.greets = False
    await world.wants(private())
    assert world.link().phase is Phase.OPENING
    with pytest.raises(NotSent):
        await world.link().send("too early")
    await world.seconds(10)
    assert world.sockets[0].ended == "aborted"
    assert world.told.named("live", "down") == []
    await world.seconds(1)
    assert len(world.sockets) == 2, "and tried again within a second"


async def test_facts_that_come_between_the_first_and_the_last_acknowledgement_are_kept(world: World) -> None:
    world.greets = False
    await world.wants(private())
    world.sockets[0].says("fact account", "ready")
    await settle()
    assert world.told.lines == [("heard", "a", "account"), ("live", "a", None)]


async def test_each_opening_signs_anew(live: World) -> None:
    started_ms = live.clock.now_ms()
    live.keys["a"] = "a's new key"
    live.sockets[0].cut()
    await live.seconds(1)
    assert live.sockets[1].sent == [f"login a's new key {started_ms + round(live.dialled_s[1] * 1000)}"]


async def test_failed_tries_come_within_a_second_and_then_ever_more_rarely(world: World) -> None:
    world.reachable = False
    await world.wants(private())
    await world.seconds(1)
    assert len(world.dialled_s) >= 2
    await world.seconds(600)
    late = [b - a for a, b in zip(world.dialled_s, world.dialled_s[1:], strict=False)][8:]
    assert max(late) <= 30.0
    assert len(late) < 60
    world.reachable = True
    await world.seconds(31)
    assert world.link().live


async def test_openings_keep_within_the_venues_limit_shared_feeds_first_and_everybodys_first_before_anybodys_second(
    clock: FakeClock,
) -> None:
    async with running(World(clock, toy=venue(opens=3))) as world:
        accounts = [private(f"a{n}", kind=kind, url=f"{kind} a{n}") for n in range(4) for kind in ("private", "public")]
        await world.wants(*accounts, shared())
        await world.seconds(10)
        assert len(world.dialled_s) == 9
        for first_s in world.dialled_s:
            assert sum(first_s <= s <= first_s + 1 for s in world.dialled_s) <= 3
        firsts = [f"private a{n}" for n in range(4)]
        assert [s.url for s in world.sockets] == [shared().url, *firsts, *(f"public a{n}" for n in range(4))]


@pytest.mark.parametrize("ends", ["a frame", "a close", "while opening"])
async def test_a_venue_that_asks_for_a_pause_gets_it(live: World, ends: str) -> None:
    if ends == "while opening":
        live.greets = False
        live.sockets[0].cut()
        await live.seconds(1)
        live.greets = True
    if ends == "a close":
        live.sockets[-1].cut(4008, "too many streams")
    else:
        live.sockets[-1].says("retry in 90 s")
    dialled = len(live.dialled_s)
    await live.seconds(89)
    assert len(live.dialled_s) == dialled
    await live.seconds(2)
    assert live.link().live


# ---- what is heard


async def test_what_a_frame_holds_reaches_whom_it_concerns(live: World) -> None:
    live.sockets[0].says("fact orders", "reply r1", "ask", "info hello", "refused channel")
    await settle()
    assert live.told.lines == [
        ("heard", "a", "orders"),
        ("reply", "a", "r1"),
        ("said", "a", "info"),
        ("said", "a", "refused"),
    ]
    assert live.sockets[0].sent[-1] == "answer"


async def test_an_unreadable_frame_is_told_and_the_link_lives_on(live: World) -> None:
    live.sockets[0].says("??", "raise", "fact orders")
    await settle()
    assert live.told.lines == [("unreadable", "a", b"??"), ("unreadable", "a", b"raise"), ("heard", "a", "orders")]
    assert live.link().live


async def test_unreadable_frames_that_repeat_reopen_the_link(live: World) -> None:
    live.sockets[0].says(*["??"] * 19)
    await settle()
    assert live.link().live
    live.sockets[0].says("??")
    await settle()
    assert live.told.named("down")[0][3].startswith("20 unreadable frames")
    await live.seconds(1)
    assert live.link().live


async def test_rare_unreadable_frames_never_reopen_it(live: World) -> None:
    for _ in range(60):
        live.sockets[0].says("??")
        await live.seconds(4)
    assert len(live.told.named("unreadable")) == 60
    assert live.told.named("down") == []


async def test_facts_that_could_not_be_kept_count_as_a_loss(live: World) -> None:
    live.told.stumbles = True
    live.sockets[0].says("fact orders")
    await settle()
    [down] = live.told.named("down")
    assert "a mistake while keeping facts" in down[3]
    live.told.stumbles = False
    await live.seconds(1)
    assert live.told.named("live") == [("live", "a", down[2])]


async def test_a_full_hearer_stops_the_reading_but_not_the_pinging(live: World) -> None:
    live.told.full = True
    live.sockets[0].says("fact orders", "fact account")
    await live.seconds(100)
    assert live.told.named("heard") == [("heard", "a", "orders")]
    assert live.link().live, "we do not listen: that is no silence of theirs"
    assert live.sockets[0].sent.count("ping") >= 4
    view = live.link().view()
    assert (view.blocked, view.blocked_times, view.blocked_s) == (True, 1, 100.0)
    assert live.link().held_back_within(0)
    live.told.full = False
    live.told.emptied.set()
    await settle()
    assert live.told.named("heard")[1] == ("heard", "a", "account")
    await live.seconds(5)
    view = live.link().view()
    assert (view.blocked, view.blocked_times, view.blocked_s) == (False, 1, 100.0)
    assert (live.link().held_back_within(4), live.link().held_back_within(5)) == (False, True)


# ---- losses


async def test_a_cut_is_told_once_with_when_it_was_last_heard_and_healed(live: World) -> None:
    await live.clock.advance(3)
    live.sockets[0].says("fact orders")
    await settle()
    heard_ms = live.clock.now_ms()
    await live.clock.advance(5)
    live.sockets[0].cut(1006, "reset")
    await settle()
    assert live.told.named("down") == [("down", "a", heard_ms, "the connection broke off (reset)")]
    live.reachable = False
    await live.seconds(20)
    live.reachable = True
    await live.seconds(31)
    assert live.told.named("live", "down")[1:] == [("live", "a", heard_ms)]


async def test_a_half_open_socket_is_found_within_quiet_and_pong_wait(live: World) -> None:
    cut_s = live.clock.monotonic_s()
    while not live.told.named("down"):
        await live.seconds(1)
    assert live.clock.monotonic_s() - cut_s <= 28.0
    assert live.sockets[0].sent[1:] == ["ping"]
    assert live.sockets[0].ended == "aborted"
    assert live.told.named("down")[0][3] == "silent: a ping got no answer"
    await live.seconds(1)
    assert live.link().live


async def test_pongs_keep_a_quiet_link_alive(live: World) -> None:
    for _ in range(60):
        await live.seconds(5)
        if live.sockets[0].sent[-1] == "ping":
            live.sockets[0].sent.append("answered")
            live.sockets[0].says("pong")
    assert live.told.lines == []
    assert live.link().view().last_pong_at_ms is not None


async def test_a_venue_without_pings_of_its_own_gets_protocol_pings(clock: FakeClock) -> None:
    async with running(World(clock, toy=venue(pings=False))) as world:
        await world.wants(private())
        await world.seconds(20)
        assert world.sockets[0].sent[-1] == "protocol ping"
        world.sockets[0].pongs.set()
        await world.seconds(18)
        assert world.link().live
        assert world.link().view().last_pong_at_ms == clock.now_ms()
        world.sockets[0].pongs.clear()
        await world.seconds(28)
        assert world.sockets[0].ended == "aborted"


async def test_what_time_alone_brings_about_is_sent_and_told(live: World) -> None:
    talk = live.link().conversation
    assert isinstance(talk, Talk)
    talk.due = Heard(frames=("again",), said=(Said(Notice.REFUSED, "no such channel", "7"),))
    await live.seconds(2)
    assert live.sockets[-1].sent[-1] == "again"
    assert live.told.named("said") == [("said", "a", "refused")]
    assert len(live.sockets) == 1


async def test_time_alone_may_end_a_socket(live: World) -> None:
    talk = live.link().conversation
    assert isinstance(talk, Talk)
    talk.due = Heard(said=(Said(Notice.RETRY, "nothing came", "mute"),))
    await live.seconds(5)
    assert len(live.sockets) == 2


async def test_our_own_stall_kills_no_link(live: World) -> None:
    await live.seconds(20)
    assert live.sockets[0].sent[-1] == "ping"
    await live.clock.advance(15)
    await live.links.watch_silence()
    assert live.link().live
    live.sockets[0].says("pong")
    await live.seconds(9)  # the next ping is out, and still has time
    assert live.told.lines == []


async def test_venue_busy_means_later(live: World) -> None:
    live.sockets[0].says("retry")
    await settle()
    assert [line[0] for line in live.told.lines] == ["said", "down"]
    assert live.sockets[0].ended == "closed"
    await live.seconds(1)
    assert live.link().live


# ---- the pulse


async def test_a_ping_never_waits_behind_a_reconnect(clock: FakeClock) -> None:
    """One link must wait minutes for its turn to dial; the beat finds it opening, and pings the other at once."""
    async with running(World(clock, toy=venue(opens=1))) as world:
        await world.wants(private("a"))
        await world.wants(private("a"), *(private(f"b{n}") for n in range(200)))
        await world.clock.advance(10)
        world.sockets[0].sent.clear()
        beat = await world.links.beat()
        assert world.sockets[0].sent == ["ping"]
        assert beat.reopening > 150


async def test_the_beat_counts_what_it_finds(world: World) -> None:
    await world.wants(*(private(name) for name in ("quiet", "busy", "mute", "refused", "lost")))
    world.greets = False
    by_key = {str(s.sent[0]).split("'")[0].removeprefix("login "): s for s in world.sockets}
    world.links.mark_mute("mute-private", "why")
    by_key["refused"].cut(4001, "gone")
    by_key["lost"].cut()
    await world.clock.advance(5)
    by_key["busy"].says("fact orders")
    await settle()
    assert await world.links.beat() == Beat(pinged=2, live=2, reopening=1, mute=1, halted=1)
    assert by_key["quiet"].sent[-1] == "ping"
    assert by_key["busy"].sent[-1] != "ping"


async def test_a_temporary_connection_is_left_alone(world: World) -> None:
    await world.wants(private(keep_alive=False))
    await world.seconds(100)
    await world.links.beat()
    assert len(world.sockets[0].sent) == 1
    world.sockets[0].cut()
    await world.seconds(100)
    assert world.link().phase is Phase.IDLE
    assert len(world.sockets) == 1


# ---- refused


async def test_one_that_is_stopped_before_it_had_its_turn_never_dials(live: World) -> None:
    link = live.link()
    link.stop()
    await settle()
    link.start()
    link.stop()
    await live.seconds(5)
    assert len(live.sockets) == 1


async def test_refused_credentials_halt_that_account_alone_until_told(world: World) -> None:
    await world.wants(private("a"), private("b"))
    world.told.lines.clear()
    world.sockets[0].says("auth_refused deleted")
    await settle()
    assert [line[0] for line in world.told.lines] == ["down", "halted"]
    await world.seconds(300)
    assert world.link("a").phase is Phase.HALTED
    assert len([s for s in world.sockets if "a's key" in str(s.sent[0])]) == 1
    await world.links.reopen("a-private")
    await settle()
    assert world.link("a").live


async def test_a_login_that_is_refused_halts(world: World) -> None:
    world.greets = False
    await world.wants(private())
    world.sockets[0].says("auth_refused wrong passphrase")
    await world.seconds(300)
    assert world.told.lines == [("halted", "a", "7")]
    assert len(world.sockets) == 1


async def test_a_connection_that_must_name_channels_and_names_none_halts_and_is_never_dialled(world: World) -> None:
    await world.wants(private(kind="named", channels=()))
    await world.seconds(300)
    assert world.told.lines == [("halted", "a", "no_channels")]
    assert not world.sockets
    await world.wants(private(kind="named", channels=("gold",)))
    assert len(world.sockets) == 1


async def test_a_close_code_that_means_refused_halts(live: World) -> None:
    live.sockets[0].cut(4001, "login failed")
    await live.seconds(300)
    assert [line[:2] for line in live.told.lines] == [("down", "a"), ("halted", "a")]


async def test_one_account_of_several_gets_a_new_token_before_it_halts_alone(clock: FakeClock) -> None:
    grant = Grant(request=lambda *_: pytest.fail("no HTTP"), read=lambda *_: pytest.fail("no HTTP"), renew_before_ms=0)
    async with running(World(clock, toy=venue(pack=3, grant=grant))) as world:
        world.greets = False
        await world.wants(private("a"), private("b"))
        world.sockets[0].says("refuse b")
        await world.seconds(5)
        assert world.tokens_refused == ["b"]
        assert world.told.named("halted") == []
        world.sockets[1].says("refuse b")
        world.sockets[1].says("ready")
        await settle()
        assert world.told.named("halted") == [("halted", "b", "401")]
        assert world.link("a").live
        assert [line[1] for line in world.told.named("live")] == ["a"]
        assert (len(world.sockets), world.tokens_refused) == (2, ["b"])


async def test_without_access_tokens_one_account_of_several_halts_at_once(clock: FakeClock) -> None:
    async with running(World(clock, toy=venue(pack=3))) as world:
        await world.wants(private("a"), private("b"))
        world.sockets[0].says("refuse a")
        await settle()
        assert world.told.named("halted") == [("halted", "a", "401")]
        assert world.link("b").live


async def test_credentials_that_cannot_be_opened_halt_that_account_alone(world: World) -> None:
    world.sealed.add("a")
    await world.wants(private("a"), private("b"), shared())
    assert world.told.named("halted") == [("halted", "a", "credentials")]
    assert world.link("b").live
    assert world.link("toy", "public").live


# ---- make before break


async def test_a_coming_close_is_met_by_a_new_socket_first_and_leaves_no_gap(live: World) -> None:
    old = live.sockets[0]
    live.greets = False
    old.says("closing_soon")
    await settle()
    new = live.sockets[1]
    assert live.link().live
    await live.link().send("over the old one")
    old.says("fact orders")
    await settle()
    new.says("ready")
    await settle()
    await live.link().send("over the new one")
    assert old.ended == "", "answers to the old one may still be on their way"
    old.says("reply r1")
    await live.seconds(5)
    assert old.ended == "closed"
    assert live.told.lines == [
        ("said", "a", "closing_soon"),
        ("heard", "a", "orders"),
        ("live", "a", None),
        ("reply", "a", "r1"),
    ]
    assert old.sent[-1] == "over the old one"
    assert new.sent[-1] == "over the new one"


async def test_when_the_old_one_closes_before_the_new_one_is_ready_that_is_a_loss(live: World) -> None:
    live.greets = False
    live.sockets[0].says("closing_soon")
    await settle()
    live.sockets[0].cut()
    await settle()
    assert not live.link().live
    live.sockets[1].says("ready")
    await live.seconds(10)
    assert [line[0] for line in live.told.named("down", "live")] == ["down", "live"]
    assert len(live.sockets) == 2


async def test_a_mute_link_is_told_down_since_its_most_silent_channel_and_replaced(live: World) -> None:
    live.sockets[0].says("fact orders")
    await settle()
    orders_ms = live.clock.now_ms()
    await live.clock.advance(7)
    live.sockets[0].says("fact account")
    await settle()
    live.greets = False
    live.links.mark_mute("a-private", "history told more")
    live.links.mark_mute("a-private", "again")
    await settle()
    assert live.link().phase is Phase.MUTE
    live.sockets[1].says("ready")
    await live.seconds(6)
    assert live.told.named("down", "live") == [
        ("down", "a", orders_ms, "mute: history told more"),
        ("live", "a", orders_ms),
    ]
    assert live.link().live
    assert live.sockets[0].ended == "closed"


async def test_a_mute_link_that_is_then_cut_is_told_down_once(live: World) -> None:
    live.greets = False
    live.links.mark_mute("a-private", "why")
    await settle()
    live.sockets[0].cut()
    await settle()
    assert len(live.told.named("down")) == 1
    assert live.link().phase is Phase.OPENING


async def test_a_socket_that_was_replaced_already_is_not_replaced_again(live: World) -> None:
    live.sockets[0].says("closing_soon")
    await settle()
    assert live.link().live
    live.sockets[0].says("closing_soon", "channel_lost orders")
    await live.seconds(10)
    assert len(live.sockets) == 2
    assert live.told.named("down") == []


async def test_a_replacement_whose_key_is_refused_halts_and_closes_both(live: World) -> None:
    live.greets = False
    live.sockets[0].says("closing_soon")
    await settle()
    live.sockets[1].says("auth_refused deleted")
    await settle()
    assert [line[0] for line in live.told.named("down", "halted")] == ["down", "halted"]
    assert [s.ended for s in live.sockets] == ["closed", "closed"]


async def test_a_lost_channel_makes_the_link_mute(live: World) -> None:
    live.sockets[0].says("channel_lost orders")
    await settle()
    assert [line[0] for line in live.told.lines] == ["said", "down", "live"]


# ---- edits


async def test_an_edit_touches_only_its_own_connection(world: World) -> None:
    await world.wants(private("a"), private("b"), private("c"))
    world.told.lines.clear()
    edited_ms = world.clock.now_ms()
    await world.wants(private("a"), private("b", url="ws://127.0.0.1/new"), private("d"))
    await world.seconds(1)
    ended = [s.ended for s in world.sockets[:3]]
    assert ended == ["", "closed", "closed"]
    assert [s.url for s in world.sockets[3:]] == ["ws://127.0.0.1/new", private().url]
    told = [line[:3] for line in world.told.named("down", "live")]
    assert told == [("down", "b", edited_ms), ("down", "c", edited_ms), ("live", "b", edited_ms), ("live", "d", None)]
    assert all(line[3] == "closed on purpose" for line in world.told.named("down"))
    assert world.links.of_listener("c", "private") is None


async def test_wanting_the_same_again_changes_nothing(live: World) -> None:
    await live.wants(private())
    await live.seconds(5)
    assert live.told.lines == []
    assert len(live.sockets) == 1


async def test_connections_over_http_are_not_opened(world: World) -> None:
    await world.wants(private(kind="rest"))
    assert world.links.views() == []


async def test_what_is_removed_while_it_waits_for_its_turn_is_never_dialled(clock: FakeClock) -> None:
    async with running(World(clock, toy=venue(opens=1))) as world:
        await world.wants(private("a"), private("b"), private("c"))
        await world.wants(private("a"), private("c"))
        await world.seconds(10)
        assert len(world.sockets) == 2


async def test_at_the_end_every_socket_is_closed_and_told(clock: FakeClock) -> None:
    world = World(clock, toy=venue())
    async with running(world):
        await world.wants(private("a"), private("b"))
    assert [s.ended for s in world.sockets] == ["closed", "closed"]
    assert [line[1:2] + line[3:] for line in world.told.named("down")] == [
        ("a", "closed on purpose"),
        ("b", "closed on purpose"),
    ]


# ---- sending, and the view


async def test_nothing_is_sent_over_a_link_that_is_down(live: World) -> None:
    live.reachable = False
    live.sockets[0].cut()
    await settle()
    with pytest.raises(NotSent) as error:
        await live.link().send("order")
    assert not error.value.written


async def test_the_view_says_what_there_is_to_say(live: World) -> None:
    opened_ms = live.clock.now_ms()
    await live.clock.advance(2)
    live.sockets[0].says("fact orders", "pong")
    await settle()
    await live.link().send("order")
    view = live.link().view()
    assert (view.phase, view.opened_at_ms, view.last_heard_at_ms) == (Phase.LIVE, opened_ms, opened_ms + 2000)
    assert (view.last_fact_at_ms, view.last_pong_at_ms) == ({"orders": opened_ms + 2000}, opened_ms + 2000)
    assert (view.frames, view.sent, view.retry_in_s, view.last_error) == (3, 1, None, "")
    live.reachable = False
    live.sockets[0].cut(1006, "reset")
    await settle()
    view = live.link().view()
    assert (view.phase, view.attempts, view.last_error) == (Phase.DOWN, 1, "the connection broke off (reset)")
    assert view.last_heard_at_ms == opened_ms + 2000
    assert view.retry_in_s is not None
    assert 0 <= view.retry_in_s <= 0.5


# ---- real sockets


async def test_over_real_sockets_a_silent_server_is_left_and_a_talking_one_kept(clock: FakeClock) -> None:
    logins, pings, talks = 0, 0, True

    async def toy(ws: ServerConnection) -> None:
        nonlocal logins, pings
        async for frame in ws:
            if str(frame).startswith("login"):
                logins += 1
                await ws.send("ready")
            elif talks:
                pings += 1
                await ws.send("pong")

    async def until(what: Any) -> None:
        while not what():  # noqa: ASYNC110  real sockets: their turn comes with the loop's, within the limit below
            await asyncio.sleep(0.001)

    async with serve(toy, "127.0.0.1", 0, ping_interval=None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        world = World(clock, toy=venue(), dial=dialler(open_timeout_s=5))
        async with running(world):
            with anyio.fail_after(10):
                await world.links.set_wanted([private(url=url)])
                await until(lambda: world.link().live)
                await world.seconds(20)
                await until(lambda: world.link().view().last_pong_at_ms)
                talks = False
                await world.seconds(25)
                assert [line[0] for line in world.told.lines] == ["live", "down"]
                await world.seconds(1)
                await until(lambda: world.link().live)
    assert (logins, pings) == (2, 1)
