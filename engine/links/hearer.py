"""Holds. What links tell, and to whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from accounts.model import Connection
from engine.core.venue import Heard, Reply, Said, Trouble
from scheduler.link import Phase


class Hearer(Protocol):
    """Who is told what connections say. Plain calls from the event loop, `on_heard` the hot one.

    When `on_heard` or `on_reply` raises, what was said is lost: that socket is closed and counts as a loss. The
    others must not raise; when they do, the engine stops.
    """

    @property
    def full(self) -> bool:
        """True while no more facts can be taken: the connection waits in `room` and the venue's socket fills."""

    async def room(self) -> None: ...
    def on_heard(self, connection: Connection, heard: Heard, received_at_ms: int) -> None: ...
    def on_reply(self, connection: Connection, reply: Reply) -> None: ...

    def on_live(self, connection: Connection, was_down_since_ms: int | None) -> None:
        """Ready. None: it was not down, or never up before; read back in any case."""

    def on_down(self, connection: Connection, last_heard_ms: int, reason: str) -> None:
        """Once per loss: from `last_heard_ms` on something may have been missed."""

    def on_unreadable(self, connection: Connection, frame: bytes, reason: str) -> None: ...

    def on_halted(self, connection: Connection, code: str, reason: str) -> None:
        """The credentials were refused, or cannot be opened; nothing is tried until a person has seen to it."""

    def on_said(self, connection: Connection, said: Said) -> None: ...


class LinkView(msgspec.Struct, frozen=True, kw_only=True):
    """A link as people and the registry see it. Times are wall milliseconds, None where it never happened."""

    connection: Connection
    phase: Phase
    opened_at_ms: int | None
    last_heard_at_ms: int | None
    last_fact_at_ms: Mapping[str, int]  # by channel
    last_pong_at_ms: int | None
    attempts: int
    last_error: str  # also of one that is live, where the venue refuses a part of what was asked for
    trouble: Trouble | None  # what kind of error that is
    retry_in_s: float | None
    frames: int
    sent: int
    blocked: bool  # it is not read now, because facts cannot be taken as fast as they come
    blocked_times: int
    blocked_s: float  # in total


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """What the pulse found and did."""

    pinged: int = 0
    live: int = 0
    reopening: int = 0
    mute: int = 0
    halted: int = 0
