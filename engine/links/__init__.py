"""Does. Holds every connection open: dials, logs in, listens, pings, reopens.

What is to be done when is decided in `scheduler/link.py`; what the frames mean, in the venue's dialect; what becomes
of the facts, by the hearer.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import anyio
import anyio.lowlevel
import msgspec
import structlog
from anyio.abc import TaskGroup

from accounts.model import Connection, Listener
from engine import config
from engine.core.venue import Catalogue, Login, Transport, Venue
from engine.links.hearer import Beat, Hearer, LinkView
from engine.links.link import House, Link
from engine.wire import rate
from engine.wire.stream import Dial, NotSent, Socket
from scheduler import link as life
from scheduler.clock import Clock
from scheduler.link import Action, Phase, Signal

__all__ = ["Beat", "Hearer", "Link", "LinkView", "Links", "NotSent", "Phase"]

log = structlog.get_logger("links")

_STALL_S = 3.0  # the watch runs each second; later than this, we were the silent ones
_YIELD_EVERY = 64


class Links:
    """All connections of this process."""

    def __init__(
        self,
        *,
        clock: Clock,
        dial: Dial,
        budgets: rate.Budgets,
        venues: Mapping[str, Venue],
        login: Callable[[Connection], Awaitable[Login]],
        catalogue: Callable[[str, str], Catalogue],
        hearer: Hearer,
        pulse: config.Pulse,
        rng: random.Random,
        options: Mapping[str, Mapping[str, str]] | None = None,
        venue_now_ms: Callable[[str, str], int] | None = None,
        login_of: Callable[[str], str] | None = None,
        token_refused: Callable[[Connection], None] | None = None,
        overheard: Callable[[Socket, Connection], Socket] | None = None,
    ) -> None:
        """`login` gives who a row's account is at its venue, with a current access token where there are such; it
        raises VenueError or NoAnswer. `login_of` tells accounts with the same credentials by a common name.
        `catalogue` and `venue_now_ms` by venue and environment; `options` by venue. `overheard` makes of a socket one
        that keeps what goes over it.
        """
        self._house = House(
            clock=clock,
            dial=dial,
            budgets=budgets,
            venues=venues,
            options=options or {},
            login=login,
            token_refused=token_refused or (lambda row: None),
            catalogue=catalogue,
            hearer=hearer,
            pulse=msgspec.convert(pulse, life.Pulse, from_attributes=True),
            rng=rng,
            venue_now_ms=venue_now_ms or (lambda venue, environment: clock.now_ms()),
            overheard=overheard or (lambda socket, connection: socket),
        )
        self._login_of = login_of or (lambda account_id: account_id)
        self._links: dict[str, Link] = {}  # by the key of its first row
        self._of_row: dict[str, Link] = {}
        self._of_listener: dict[tuple[str, str], Link] = {}
        self._begun = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._watched_s = 0.0

    async def run(self) -> None:
        """Until cancelled; then every socket is closed, with a limit."""
        async with anyio.create_task_group() as self._tasks:
            self._watched_s = self._house.clock.monotonic_s()
            self._begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                for link in self._links.values():
                    link.stop()

    async def set_wanted(self, connections: Sequence[Connection]) -> None:
        """Open what is new, close what is gone, reopen what was edited; nothing else is touched. Streams only."""
        await self._begun.wait()
        wanted = {rows[0].connection_key: rows for rows in self._packed([c for c in connections if self._is_stream(c)])}
        since_ms: dict[str, int | None] = {}
        for key, link in list(self._links.items()):
            if wanted.get(key) != link.rows:
                since_ms |= dict.fromkeys((row.connection_key for row in link.rows), self._remove(key))
        for first in _fairly([rows[0] for key, rows in wanted.items() if key not in self._links]):
            rows = wanted[first.connection_key]
            known = [ms for row in rows if (ms := since_ms.get(row.connection_key)) is not None]
            self._add(rows, min(known, default=None))

    async def reopen(self, connection_key: str) -> None:
        """Close this one and open it anew with the credentials as they are now; also one that is halted."""
        link = self._of_row[connection_key]
        self._add(link.rows, self._remove(link.connection.connection_key))

    def renew(self, logins: Mapping[str, Login]) -> None:
        """The access tokens of these accounts are new: their open connections are told."""
        for link in list(self._links.values()):
            renewed = [logins[row.listener_id] for row in link.rows if row.listener_id in logins]
            if renewed:
                link.renew(renewed)

    def link(self, connection_key: str) -> Link | None:
        return self._of_row.get(connection_key)

    def of_listener(self, listener_id: str, kind: str) -> Link | None:
        return self._of_listener.get((listener_id, kind))

    def mark_mute(self, connection_key: str, why: str) -> None:
        """Somebody learned elsewhere what this connection should have told: it is replaced and read back."""
        link = self._of_row.get(connection_key)
        if link is not None:
            link.mute(why)

    def views(self) -> list[LinkView]:
        return [view for link in self._links.values() for view in link.views()]

    async def beat(self) -> Beat:
        """The pulse, each `beat_s`: a plain sweep that waits for nobody. Reopening goes on in the links' own tasks."""
        pinged, counts = 0, dict.fromkeys(Phase, 0)
        for number, link in enumerate(list(self._links.values())):
            pinged += link.look(Signal.BEAT) is Action.PING
            counts[link.phase] += 1
            await _pause_at(number)
        return Beat(
            pinged=pinged,
            live=counts[Phase.LIVE],
            reopening=counts[Phase.DOWN] + counts[Phase.OPENING],
            mute=counts[Phase.MUTE],
            halted=counts[Phase.HALTED],
        )

    async def watch_silence(self) -> None:
        """Each second: pings who was quiet for too long, gives up who did not answer."""
        now_s = self._house.clock.monotonic_s()
        stalled, self._watched_s = now_s - self._watched_s > _STALL_S, now_s
        if stalled:
            log.warning("stalled", note="the watch came late; nobody is given up for it")
        for number, link in enumerate(list(self._links.values())):
            link.look(Signal.TICK, stalled=stalled)
            await _pause_at(number)

    def _is_stream(self, connection: Connection) -> bool:
        return self._house.venues[connection.venue].endpoint(connection.kind).transport is Transport.STREAM

    def _packed(self, connections: Sequence[Connection]) -> list[tuple[Connection, ...]]:
        """Rows that may share one socket, together; each other one alone. The same rows are always packed alike."""
        packs: list[tuple[Connection, ...]] = []
        together: dict[tuple[str, ...], list[Connection]] = {}
        for connection in connections:
            endpoint = self._house.venues[connection.venue].endpoint(connection.kind)
            if endpoint.pack == 1 or not connection.keep_alive or connection.listener is not Listener.ACCOUNT:
                packs.append((connection,))
                continue
            login = "" if endpoint.pack_logins else self._login_of(connection.listener_id)
            alike = (connection.venue, connection.environment, connection.kind, connection.url, login)
            together.setdefault((*alike, *connection.channels), []).append(connection)
        for rows in together.values():
            most = self._house.venues[rows[0].venue].endpoint(rows[0].kind).pack
            rows.sort(key=lambda row: row.listener_id)
            packs += [tuple(rows[start : start + most]) for start in range(0, len(rows), most)]
        return packs

    def _add(self, rows: tuple[Connection, ...], down_since_ms: int | None) -> None:
        assert self._tasks is not None, "runs"
        link = Link(self._house, self._tasks, rows, down_since_ms)
        self._links[link.connection.connection_key] = link
        for row in rows:
            self._of_row[row.connection_key] = self._of_listener[row.listener_id, row.kind] = link
        link.start()

    def _remove(self, connection_key: str) -> int | None:
        link = self._links.pop(connection_key)
        for row in link.rows:
            self._of_row.pop(row.connection_key, None)
            if self._of_listener.get((row.listener_id, row.kind)) is link:
                del self._of_listener[row.listener_id, row.kind]
        return link.stop()


def _fairly(connections: Iterable[Connection]) -> list[Connection]:
    """Shared feeds first, then the first connection of everybody before anybody's second."""
    seen: dict[str, int] = {}
    turns: list[tuple[int, Connection]] = []
    for connection in connections:
        turn = seen[connection.listener_id] = seen.get(connection.listener_id, -1) + 1
        turns.append((-1 if connection.listener is Listener.VENUE else turn, connection))
    return [connection for _, connection in sorted(turns, key=lambda pair: pair[0])]


async def _pause_at(number: int) -> None:
    if number % _YIELD_EVERY == _YIELD_EVERY - 1:
        await anyio.lowlevel.checkpoint()
