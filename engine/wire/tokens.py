"""Does. Access tokens: asked for once per login, shared by everything of that login, renewed before they end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import msgspec

from engine.core.venue import ErrorClass, Response, Token, VenueError
from scheduler.clock import Clock

_ASK_AGAIN_S = 5.0  # a token service that does not answer is left alone for so long
_USABLE_MS = 2_000  # a token that ends sooner is not given out any more


class Issuer(msgspec.Struct, frozen=True, kw_only=True):
    """Whose token it is, and how a new one is had. Two issuers with one `login` share a token."""

    login: str
    ask: Callable[[], Awaitable[Response]]  # raises what an attempt over HTTP raises
    read: Callable[[Response, int], Token]
    renew_before_ms: int


class _Kept(msgspec.Struct):
    lock: anyio.Lock
    token: Token | None = None
    asked_s: float = -1e9
    failed: Exception | None = None


class Tokens:
    """Every login's current token, in memory only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    async def current(self, issuer: Issuer) -> Token:
        """The token to use now; asks for one when there is none that lasts. Raises VenueError, or what `ask` raises.

        While a renewal fails, the old token is used to its end.
        """
        kept = self._kept.get(issuer.login)
        if kept is None:
            kept = self._kept[issuer.login] = _Kept(anyio.Lock())
        if kept.token is not None and not self._due(kept.token, issuer):
            return kept.token
        async with kept.lock:  # one asks, the others wait for its answer
            if kept.token is not None and not self._due(kept.token, issuer):
                return kept.token
            lately = self._clock.monotonic_s() - kept.asked_s < _ASK_AGAIN_S
            if not lately or kept.failed is None:
                await self._ask(issuer, kept)
            if kept.token is not None and self._usable(kept.token):
                return kept.token
            assert kept.failed is not None, "there is a token or a reason for its absence"
            raise kept.failed

    def due(self, issuer: Issuer) -> bool:
        """Has a token that is in use to be renewed? False also where none was ever asked for."""
        kept = self._kept.get(issuer.login)
        return kept is not None and kept.token is not None and self._due(kept.token, issuer)

    def refused(self, login: str, token: Token | None = None) -> None:
        """The venue does not take it any more (`token`: this one; a newer one is left alone)."""
        kept = self._kept.get(login)
        if kept is not None and (token is None or kept.token is token):
            kept.token = None

    async def _ask(self, issuer: Issuer, kept: _Kept) -> None:
        kept.asked_s, asked_ms = self._clock.monotonic_s(), self._clock.now_ms()
        try:
            kept.token, kept.failed = issuer.read(await issuer.ask(), asked_ms), None
        except Exception as error:  # whatever it was: whoever needs the token is told, the next one asks again
            kept.failed = error
            if isinstance(error, VenueError) and error.error_class is ErrorClass.AUTH:
                kept.token = None

    def _due(self, token: Token, issuer: Issuer) -> bool:
        ends_ms = token.expires_at_ms
        return ends_ms is not None and self._clock.now_ms() >= ends_ms - issuer.renew_before_ms

    def _usable(self, token: Token) -> bool:
        return token.expires_at_ms is None or self._clock.now_ms() < token.expires_at_ms - _USABLE_MS
