"""Does. One connection at run time: carries out what `scheduler/link.py` decides, and listens."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn

import anyio
import anyio.lowlevel
import msgspec
import structlog
from anyio.abc import TaskGroup

from accounts.model import Connection
from engine.core.facts import Fact
from engine.core.venue import (
    Catalogue,
    Conversation,
    ErrorClass,
    Frame,
    Heard,
    Login,
    Notice,
    Priority,
    Said,
    Trouble,
    Venue,
    VenueError,
)
from engine.links.hearer import Hearer, LinkView
from engine.wire import rate
from engine.wire.http import NoAnswer
from engine.wire.stream import Closed, Dial, NotOpened, NotSent, Socket
from scheduler import link as life
from scheduler.clock import Clock
from scheduler.link import Action, Phase, Signal

log = structlog.get_logger("links")

_ON_PURPOSE = "closed on purpose"
_NOTHING = Heard()
_HANDOVER_S = 5.0  # a replaced socket is still listened to for so long: answers may be on their way
_FRAMES_IN_A_ROW = 8
_UNREADABLE_LIMIT, _UNREADABLE_WINDOW_S = 20, 60.0


class _Session:
    """One socket's time, from its turn to dial to its end."""

    __slots__ = (
        "after_s", "blocked_since_s", "conversation", "denied", "facts_ms", "heard_ms", "heard_s", "opened_ms",
        "pong_ms", "socket", "unreadable_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self.socket: Socket | None = None
        self.conversation: Conversation | None = None
        self.opened_ms = self.heard_ms = 0
        self.heard_s = 0.0
        self.after_s = 0.0  # the venue asks that no other one is opened sooner
        self.pong_ms: int | None = None
        self.facts_ms: dict[str, int] = {}
        self.blocked_since_s: float | None = None  # waits for room since then, so that nothing is read
        self.unreadable_s: deque[float] | None = None
        self.denied: Said | None = None  # what the venue refused last, though the connection goes on


class _Ended(Exception):
    """This socket is given up, for a reason of our own or the venue's."""

    def __init__(self, why: str, trouble: Trouble) -> None:
        super().__init__(why)
        self.trouble = trouble


class _CredentialsRefused(Exception):
    def __init__(self, code: str, reason: str, *, final: bool = False) -> None:
        """`final`: not even a new access token can help."""
        super().__init__(f"refused: {code} {reason}")
        self.code, self.reason, self.final = code, reason, final


class House(msgspec.Struct, frozen=True, kw_only=True):
    """What all links share."""

    clock: Clock
    dial: Dial
    budgets: rate.Budgets
    venues: Mapping[str, Venue]
    options: Mapping[str, Mapping[str, str]]
    login: Callable[[Connection], Awaitable[Login]]
    token_refused: Callable[[Connection], None]
    catalogue: Callable[[str, str], Catalogue]
    hearer: Hearer
    pulse: life.Pulse
    rng: random.Random
    venue_now_ms: Callable[[str, str], int]
    overheard: Callable[[Socket, Connection], Socket]


class Link:
    """One connection at run time: that of one row of the register, or of several that share it."""

    __slots__ = (
        "_down_since_ms", "_house", "_latest", "_life", "_of_ref", "_opening", "_read_again_s", "_refused", "_scopes",
        "_session", "_shared", "_tasks", "_token_refused", "_up", "blocked_s", "blocked_times", "connection",
        "frames", "last_error", "rows", "sent", "trouble",
    )  # fmt: skip

    def __init__(
        self, house: House, tasks: TaskGroup, rows: Sequence[Connection], down_since_ms: int | None = None
    ) -> None:
        self.rows = tuple(rows)
        self.connection = connection = self.rows[0]  # speaks for all of them
        self.frames = self.sent = self.blocked_times = 0
        self.blocked_s = 0.0
        self._read_again_s: float | None = None  # when it was held back for the last time
        self.last_error = ""
        self.trouble: Trouble | None = None
        self._house, self._tasks = house, tasks
        self._life = life.Link(keep_alive=connection.keep_alive)
        self._session: _Session | None = None  # the one in use
        self._opening: _Session | None = None  # the one that is to be used next
        self._latest = _Session()  # the one in use, or the last that was
        self._scopes: set[anyio.CancelScope] = set()
        self._of_ref: dict[str, Connection] = {}  # by the venue's name of the account, where several share the socket
        self._shared = house.venues[connection.venue].endpoint(connection.kind).pack > 1
        self._token_refused = False  # a new token was asked for, and nothing has become ready since
        self._refused: dict[str, bool] = {}  # by ref, whose token alone was refused: was the next one, too?
        self._up = False  # on_live was called, and no on_down since
        self._down_since_ms = down_since_ms

    # ---- for the engine

    @property
    def phase(self) -> Phase:
        return self._life.phase

    @property
    def live(self) -> bool:
        """Everything that the venue has to tell is believed to arrive here."""
        return self._life.phase is Phase.LIVE

    @property
    def conversation(self) -> Conversation | None:
        """That of the socket in use. Say and send in one go, without a pause: a replacement has its own."""
        return self._session.conversation if self._session is not None else None

    def held_back_within(self, seconds: float) -> bool:
        """Was it not read for want of room, now or a moment ago? What it has to tell may still lie in its socket."""
        if self._latest.blocked_since_s is not None:
            return True
        return self._read_again_s is not None and self._house.clock.monotonic_s() - self._read_again_s <= seconds

    async def send(self, frame: Frame) -> None:
        """Over the socket in use, without waiting. Raises NotSent."""
        session = self._session
        if session is None or session.socket is None:
            raise NotSent(f"the connection is {self.phase.value}", written=False)
        session.socket.send(frame)
        self.sent += 1

    def views(self) -> list[LinkView]:
        """The same of each row that shares the socket."""
        view = self.view()
        return [msgspec.structs.replace(view, connection=row) for row in self.rows]

    def view(self) -> LinkView:
        session, life_now = self._latest, self._life
        last_error, trouble = self.last_error, self.trouble
        if life_now.phase is Phase.LIVE:  # what was wrong before is over
            denied = session.denied
            last_error = "" if denied is None else f"{denied.code} {denied.detail}".strip()
            trouble = None if denied is None else denied.troubled
        waits, blocked_since_s, now_s = (
            life_now.phase is Phase.DOWN,
            session.blocked_since_s,
            self._house.clock.monotonic_s(),
        )
        return LinkView(
            connection=self.connection,
            phase=life_now.phase,
            opened_at_ms=session.opened_ms or None,
            last_heard_at_ms=session.heard_ms or None,
            last_fact_at_ms=dict(session.facts_ms),
            last_pong_at_ms=session.pong_ms,
            attempts=life_now.attempts,
            last_error=last_error,
            trouble=trouble,
            retry_in_s=max(0.0, life_now.retry_at_s - now_s) if waits else None,
            frames=self.frames,
            sent=self.sent,
            blocked=blocked_since_s is not None,
            blocked_times=self.blocked_times,
            blocked_s=self.blocked_s + (0.0 if blocked_since_s is None else now_s - blocked_since_s),
        )

    # ---- for Links

    def start(self) -> None:
        self._signal(Signal.WANTED)

    def stop(self) -> int | None:
        """Close for good, politely; the sockets say goodbye in tasks of their own. Since when it is down."""
        if self._session is not None:
            self._lost(self._session.heard_ms, _ON_PURPOSE, Trouble.OURS)
        self._session = self._opening = None
        self._signal(Signal.UNWANTED)
        return self._down_since_ms

    def mute(self, why: str) -> None:
        """Its socket lives, but what it should have told it did not."""
        session = self._session
        if session is None or self._life.phase is not Phase.LIVE:
            return
        # Unknown since when. The channel that is silent for longest tells, and one that never told a fact proves
        # nothing at all since the opening.
        since_ms = min((session.facts_ms.get(c, session.opened_ms) for c in self.connection.channels), default=0)
        self._lost(since_ms or session.opened_ms, f"mute: {why}", Trouble.SILENT)
        self._signal(Signal.MUTED)

    def look(self, signal: Signal, *, stalled: bool = False) -> Action | None:
        """The pulse or the watch passes by."""
        for held in (self._session, self._opening):
            if held is not None:
                self._let_time_pass(held)
        session = self._session
        if session is not None:
            if session.heard_s > self._life.last_heard_s:
                self._step(Signal.HEARD, session.heard_s)
            if session.blocked_since_s is not None and self._life.pinged_s is not None:
                self._step(Signal.HEARD, self._house.clock.monotonic_s())  # we do not listen: no silence of theirs
        if stalled:
            self._signal(Signal.STALLED)
        return self._signal(signal)

    def _let_time_pass(self, session: _Session) -> None:
        if session.socket is None or session.conversation is None:
            return
        try:
            heard = session.conversation.tick(self._house.clock.now_ms()) or _NOTHING
            for frame in heard.frames:
                session.socket.send(frame)
            for said in heard.said:
                self._said(session, b"", said)
        except Exception as error:  # whatever it is, it is about this socket alone; its listener sees it end
            log.info("given_up", connection=self.connection.connection_key, reason=f"{type(error).__name__}: {error}")
            session.socket.abort()

    # ---- what was decided is carried out

    def _step(self, signal: Signal, now_s: float, after_s: float = 0.0) -> Action | None:
        house = self._house
        self._life, action = life.step(
            self._life,
            signal,
            now_s=now_s,
            pulse=house.pulse,
            chance=house.rng.random(),
            not_before_s=now_s + after_s if after_s else 0.0,
        )
        return action

    def _signal(self, signal: Signal, after_s: float = 0.0) -> Action | None:
        before = self._life.phase
        action = self._step(signal, self._house.clock.monotonic_s(), after_s)
        after = self._life.phase
        if after is not before and after in (Phase.IDLE, Phase.HALTED):
            for scope in self._scopes:  # whoever holds a socket says goodbye on its way out
                scope.cancel()
            return action
        match action:
            case Action.OPEN | Action.REPLACE:
                self._tasks.start_soon(self._hold)
            case Action.PING:
                self._ping()
            case Action.CLOSE:
                self._give_up(
                    f"not ready within {self._house.pulse.open_timeout_s:g} s of opening"
                    if before is Phase.OPENING
                    else "silent: a ping got no answer"
                )
            case Action.ABANDON:
                opening, self._opening = self._opening, None
                _abort(opening)
        return action

    def _give_up(self, why: str) -> None:
        self.last_error, self.trouble = why, Trouble.SILENT
        session, self._session = self._session, None
        if session is not None:
            self._lost(session.heard_ms, why, Trouble.SILENT)
        else:
            session, self._opening = self._opening, None
        _abort(session)

    def _lost(self, last_heard_ms: int, why: str, trouble: Trouble) -> None:
        self.last_error, self.trouble = why, trouble
        if self._up:
            self._up = False
            self._down_since_ms = last_heard_ms
            log.info("down", connection=self.connection.connection_key, last_heard_ms=last_heard_ms, reason=why)
            for row in self.rows:
                self._house.hearer.on_down(row, last_heard_ms, why)

    def _ping(self) -> None:
        session = self._session
        assert session is not None, "only an open socket is pinged"
        assert session.socket is not None
        assert session.conversation is not None
        frames = session.conversation.beat(self._house.clock.now_ms())
        if not frames:
            self._tasks.start_soon(self._protocol_ping, session, session.socket)
        try:
            for frame in frames:
                session.socket.send(frame)
        except NotSent as error:
            log.debug("ping_not_sent", connection=self.connection.connection_key, reason=str(error))

    async def _protocol_ping(self, session: _Session, socket: Socket) -> None:
        try:
            await socket.ping()
        except Closed:
            return
        session.heard_s, session.pong_ms = self._house.clock.monotonic_s(), self._house.clock.now_ms()
        session.heard_ms = session.pong_ms

    # ---- one socket

    async def _hold(self) -> None:
        """One socket, from its turn to its end; and when that leaves the link down, the wait for the next try."""
        clock = self._house.clock
        if self._life.phase in (Phase.IDLE, Phase.HALTED):  # stopped before this task had its turn
            return
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                await self._one_socket()
                due_s = self._life.retry_at_s
                while self._life.phase is Phase.DOWN and self._life.retry_at_s == due_s:
                    await clock.sleep(max(0.0, due_s - clock.monotonic_s()))
                    self._signal(Signal.TICK)
            finally:
                self._scopes.discard(scope)

    async def _one_socket(self) -> None:
        session = self._opening = _Session()
        try:
            self._ended(session, *await self._until_end(session))
        finally:
            if session.socket is not None:
                with anyio.CancelScope(shield=True):
                    await session.socket.close()
            session.socket = session.conversation = None

    async def _until_end(self, session: _Session) -> tuple[_CredentialsRefused | None, str, Trouble]:
        """Why it ended; the first is set when nothing may be tried again."""
        try:
            await self._open(session)
            await self._listen(session)
        except NotOpened as error:
            assert session.conversation is not None, "it said how to dial"
            now_ms = self._house.clock.now_ms()
            said = session.conversation.refused(error.status, now_ms) if error.status else None
            return self._turned_away(session, said, error)
        except _Ended as error:
            return None, str(error), error.trouble
        except NotSent as error:
            return None, str(error), Trouble.NETWORK
        except _CredentialsRefused as error:
            return self._refused_for(error, str(error))
        except Closed as error:
            assert session.conversation is not None, "only what was open can be closed"
            session.socket = None  # nobody is left to say goodbye to
            return self._turned_away(session, session.conversation.closed(error.code, error.reason), error)
        except Exception as error:
            # A mistake of ours while reading or keeping what was said: it is lost, so this counts as a loss.
            log.exception("link_failed", connection=self.connection.connection_key)
            return None, f"failed inside: {type(error).__name__}: {error}", Trouble.OURS

    def _turned_away(
        self, session: _Session, said: Said | None, error: Exception
    ) -> tuple[_CredentialsRefused | None, str, Trouble]:
        if said is not None and said.notice is Notice.AUTH_REFUSED:
            return self._refused_for(_CredentialsRefused(said.code, said.detail), str(error))
        if said is None:
            return None, str(error), Trouble.NETWORK
        session.after_s = said.after_s
        self._house.hearer.on_said(self.connection, said)
        return None, f"{error}: {said.detail}" if said.detail else str(error), said.troubled

    def _refused_for(self, refused: _CredentialsRefused, why: str) -> tuple[_CredentialsRefused | None, str, Trouble]:
        """Where a new access token may help, it was the old one that had ended."""
        final = self._with_new_token(refused)
        return final, why, Trouble.EXPIRY if final is None else Trouble.REFUSED

    def _with_new_token(self, refused: _CredentialsRefused) -> _CredentialsRefused | None:
        """Where there are access tokens it may have been the token only: one more try, with a new one."""
        if self._house.venues[self.connection.venue].grant is None or self._token_refused or refused.final:
            return refused
        self._token_refused = True
        for row in self.rows:
            self._house.token_refused(row)
        return None

    async def _logins(self) -> list[Login]:
        """Who shares this connection; an account whose credentials will not do halts alone."""
        if not self.connection.requires_auth:
            return []
        logins, refusals = list[Login](), list[_CredentialsRefused]()
        self._of_ref = {}
        for row in self.rows:
            try:
                login = await self._house.login(row)
            except VenueError as error:
                if error.error_class is not ErrorClass.AUTH:
                    kind = Trouble.LIMIT if error.error_class is ErrorClass.RATE else Trouble.EXPIRY
                    raise _Ended(f"no access token: {error}", kind) from error
                refusals.append(_CredentialsRefused(error.code, error.message, final=True))
                if len(self.rows) > 1:
                    self._house.hearer.on_halted(row, error.code, error.message)
            except NoAnswer as error:
                raise _Ended(f"no access token: {error}", Trouble.EXPIRY) from error
            else:
                logins.append(login)
                self._of_ref[login.ref] = row
        if not logins:
            raise refusals[0]
        return logins

    async def _open(self, session: _Session) -> None:
        house, connection = self._house, self.connection
        venue = house.venues[connection.venue]
        if venue.endpoint(connection.kind).needs_channels and not connection.channels:
            raise _CredentialsRefused("no_channels", "this connection names nothing that it is to hear of", final=True)
        await house.budgets.take([rate.scope(venue.opens, venue.name, connection.listener_id)], Priority.LIVENESS)
        logins = await self._logins()
        session.conversation = venue.converse(
            kind=connection.kind,
            channels=connection.channels,
            logins=logins,
            environment=connection.environment,
            catalogue=house.catalogue(connection.venue, connection.environment),
            options={**venue.options, **house.options.get(venue.name, {})},
        )
        now_ms = house.venue_now_ms(connection.venue, connection.environment)
        dialled = await house.dial(connection.url, connection.venue, session.conversation.handshake(now_ms))
        session.socket = house.overheard(dialled, connection)
        session.opened_ms = session.heard_ms = house.clock.now_ms()
        self._signal(Signal.OPENED)
        for frame in session.conversation.open(house.venue_now_ms(connection.venue, connection.environment)):
            session.socket.send(frame)

    async def _listen(self, session: _Session) -> NoReturn:
        """The hot path: until the socket ends."""
        assert session.socket is not None
        assert session.conversation is not None
        house, connection, facts_ms = self._house, self.connection, session.facts_ms
        recv, hear = session.socket.recv, session.conversation.hear
        now_ms, monotonic_s = house.clock.now_ms, house.clock.monotonic_s
        hearer, on_heard = house.hearer, self._share_out if self._shared else house.hearer.on_heard
        while True:
            frame = await recv()
            at_ms = now_ms()
            session.heard_s, session.heard_ms = monotonic_s(), at_ms
            self.frames += 1
            if self.frames % _FRAMES_IN_A_ROW == 0:
                await anyio.lowlevel.checkpoint()  # a burst must not keep orders and pings waiting
            try:
                heard = hear(frame, at_ms)
            except Exception as error:  # a dialect must not raise; when it does, the link lives on
                self._unreadable(session, frame, f"{type(error).__name__}: {error}")
                continue
            if heard.facts or heard.instruments:
                facts_ms[heard.channel] = at_ms
                on_heard(connection, heard, at_ms)
                if hearer.full:
                    await self._wait_for_room(session)
            if heard.replies:
                for reply in heard.replies:
                    hearer.on_reply(connection, reply)
            if heard.frames:
                for answer in heard.frames:
                    session.socket.send(answer)
            if heard.said:
                for said in heard.said:
                    self._said(session, frame, said)

    def _share_out(self, connection: Connection, heard: Heard, at_ms: int) -> None:
        """To each row what is about its account; nobody's are prices and instruments, and accounts not under us."""
        parts: dict[str, list[Fact]] = {}
        for fact in heard.facts:
            parts.setdefault(fact.account_ref, []).append(fact)
        if "" in parts or heard.instruments:
            common = Heard(facts=parts.pop("", ()), channel=heard.channel, instruments=heard.instruments)
            self._house.hearer.on_heard(connection, common, at_ms)
        for ref, facts in parts.items():
            row = self._of_ref.get(ref)
            if row is not None:
                self._house.hearer.on_heard(row, Heard(facts=facts, channel=heard.channel), at_ms)

    def renew(self, logins: Sequence[Login]) -> None:
        """The access tokens of these are new: the socket in use goes on with them."""
        session = self._session
        if session is None or session.socket is None or session.conversation is None:
            return
        try:
            for frame in session.conversation.renew(logins, self._house.clock.now_ms()):
                session.socket.send(frame)
        except NotSent as error:  # it is about to end; the next one opens with the new token
            log.debug("not_renewed", connection=self.connection.connection_key, reason=str(error))

    async def _wait_for_room(self, session: _Session) -> None:
        """Facts cannot be taken now: nothing is read, the socket fills, and the venue keeps what is to come."""
        monotonic_s = self._house.clock.monotonic_s
        session.blocked_since_s = monotonic_s()
        self.blocked_times += 1
        try:
            await self._house.hearer.room()
        finally:
            self.blocked_s += monotonic_s() - session.blocked_since_s
            session.blocked_since_s = None
            self._read_again_s = monotonic_s()

    def _said(self, session: _Session, frame: bytes, said: Said) -> None:
        if said.ref and said.notice is Notice.AUTH_REFUSED and (row := self._of_ref.get(said.ref)) is not None:
            self._refused_alone(row, said)
            return
        match said.notice:
            case Notice.READY:
                self._ready(session)
                return
            case Notice.PONG:
                session.pong_ms = session.heard_ms
                return
            case Notice.UNREADABLE:
                self._unreadable(session, frame, said.detail)
                return
            case Notice.AUTH_REFUSED:
                raise _CredentialsRefused(said.code, said.detail)
        self._house.hearer.on_said(self.connection, said)
        match said.notice:
            case Notice.RETRY:
                session.after_s = said.after_s
                raise _Ended(f"the venue says: later ({said.code} {said.detail})", said.troubled)
            case Notice.REFUSED:
                session.denied = said
            case Notice.CLOSING_SOON if session is self._session:
                self._signal(Signal.CLOSING_SOON)
            case Notice.CHANNEL_LOST if session is self._session:
                self.mute(f"{said.code} {said.detail}")
            case Notice.CHANNEL_LOST if session is self._opening:
                raise _Ended(f"a channel is not delivered ({said.code} {said.detail})", said.troubled)

    def _refused_alone(self, row: Connection, said: Said) -> None:
        """One of several on this connection; the others go on. Where there are access tokens, a new one is tried."""
        if self._house.venues[row.venue].grant is not None and said.ref not in self._refused:
            self._refused[said.ref] = False
            self._house.token_refused(row)
            raise _Ended(f"the access token of {said.ref} was refused ({said.code} {said.detail})", Trouble.EXPIRY)
        self._refused[said.ref] = True
        self._house.hearer.on_halted(row, said.code, said.detail)

    def _ready(self, session: _Session) -> None:
        if session is not self._opening:
            return
        replaced, self._session, self._opening = self._session, session, None
        self._latest = session
        self._signal(Signal.READY)
        if replaced is not None and replaced.socket is not None:
            self._tasks.start_soon(self._retire, replaced.socket)
        was_down_since_ms, self._down_since_ms = self._down_since_ms, None
        self._up = True
        self._token_refused = False
        self._refused = {ref: again for ref, again in self._refused.items() if again}
        log.info("live", connection=self.connection.connection_key, was_down_since_ms=was_down_since_ms)
        for row in self._let_in():
            self._house.hearer.on_live(row, was_down_since_ms)

    def _let_in(self) -> Sequence[Connection]:
        """All but those whose credentials were refused."""
        if not self.connection.requires_auth:
            return self.rows
        return [row for ref, row in self._of_ref.items() if not self._refused.get(ref)]

    async def _retire(self, socket: Socket) -> None:
        await self._house.clock.sleep(_HANDOVER_S)
        await socket.close()

    def _unreadable(self, session: _Session, frame: bytes, why: str) -> None:
        self._house.hearer.on_unreadable(self.connection, frame, why)
        if session.unreadable_s is None:
            session.unreadable_s = deque(maxlen=_UNREADABLE_LIMIT)
        times_s = session.unreadable_s
        times_s.append(session.heard_s)
        if len(times_s) == _UNREADABLE_LIMIT and session.heard_s - times_s[0] <= _UNREADABLE_WINDOW_S:
            raise _Ended(f"{_UNREADABLE_LIMIT} unreadable frames within a minute, the last: {why}", Trouble.OURS)

    def _ended(self, session: _Session, refused: _CredentialsRefused | None, why: str, trouble: Trouble) -> None:
        """The end of one that was replaced or given up before changes nothing."""
        if session is self._session:
            self._session = None
            self._lost(session.heard_ms, why, trouble)
            end = Signal.CLOSED
        elif session is self._opening:
            self._opening = None
            self.last_error, self.trouble = why, trouble
            log.info("not_opened", connection=self.connection.connection_key, reason=why)
            end = Signal.FAILED
        else:
            return
        if refused is None:
            self._signal(end, session.after_s)
            return
        if self._session is not None:  # its replacement was refused
            self._lost(self._session.heard_ms, why, trouble)
        self._session = self._opening = None
        self._signal(Signal.REFUSED)
        log.error("halted", connection=self.connection.connection_key, code=refused.code, reason=refused.reason)
        for row in self.rows:
            self._house.hearer.on_halted(row, refused.code, refused.reason)


def _abort(session: _Session | None) -> None:
    if session is not None and session.socket is not None:
        session.socket.abort()
