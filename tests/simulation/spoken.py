"""Does. Remembers which commands a frame or a body carries, as the dialect said when it made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.core.orders import Command
from engine.core.venue import Conversation, Frame, Request, Rest, Venue


class Spoken:
    """Of one venue. Frames and bodies name their orders' ids, so no two are alike."""

    def __init__(self) -> None:
        self._commands: dict[bytes, tuple[Command, ...]] = {}

    def overhear(self, venue: Venue) -> Venue:
        """The same venue, whose dialect is listened to."""

        def converse(**asked: Any) -> Conversation:
            return _Talk(venue.converse(**asked), self)

        def rest(*about: Any, **asked: Any) -> Rest:
            return _Desk(venue.rest(*about, **asked), self)

        return msgspec.structs.replace(venue, converse=converse, rest=rest)

    def remember(self, said: bytes, commands: Sequence[Command]) -> None:
        self._commands[said] = tuple(commands)

    def commands(self, said: Frame) -> tuple[Command, ...]:
        """() for what carries none: logins, pings, reads."""
        return self._commands.get(said.encode() if isinstance(said, str) else said, ())


class _Talk:
    def __init__(self, inner: Conversation, spoken: Spoken) -> None:
        self._inner, self._spoken = inner, spoken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def say(self, commands: Sequence[Command], request_id: str, now_ms: int) -> Frame:
        frame = self._inner.say(commands, request_id, now_ms)
        self._spoken.remember(frame.encode() if isinstance(frame, str) else frame, commands)
        return frame


class _Desk:
    def __init__(self, inner: Rest, spoken: Spoken) -> None:
        self._inner, self._spoken = inner, spoken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def orders_request(self, commands: Sequence[Command]) -> Request:
        request = self._inner.orders_request(commands)
        if request.body:
            self._spoken.remember(request.body, commands)
        return request
