"""Does. WebSockets: one socket at a time, opened once, never reopened here. The only importer of websockets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from websockets import exceptions as broken
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import broadcast
from websockets.protocol import State
from websockets.typing import Subprotocol

from engine.core.venue import Frame, Handshake
from engine.wire import tls

_MIB = 1 << 20
_WRITE_LIMIT = 256 * 1024  # bytes that wait for a peer that does not read; an order frame is a third of a kB
_MAX_QUEUE = 64  # frames read ahead of us; then the peer's socket fills

# The library's own log is silent: what a connection does is told by links, once.
_quiet = logging.getLogger("unisono.websockets")
_quiet.setLevel(logging.CRITICAL + 1)
_quiet.propagate = False


class NotOpened(Exception):
    """The socket could not be opened. Nothing was sent over it. `status`: that of an HTTP answer, 0 for none."""

    def __init__(self, reason: str, *, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class Closed(Exception):
    """The socket is gone. `code` is 1006 where the other side said nothing."""

    def __init__(self, code: int, reason: str) -> None:
        what = "the connection broke off" if code == 1006 else f"closed by the venue with {code}"
        super().__init__(what + (f" ({reason})" if reason else ""))
        self.code, self.reason = code, reason


class NotSent(Exception):
    """A frame did not go out. `written` false: provably not one byte of it left us."""

    def __init__(self, reason: str, *, written: bool) -> None:
        super().__init__(reason)
        self.written = written


PLAIN = Handshake()


class Socket(Protocol):
    """One open WebSocket. What is behind it may be the network, a test or a simulation."""

    async def recv(self) -> bytes:
        """The next message; raises Closed."""

    def send(self, frame: Frame) -> None:
        """Hand one message to the network. Never waits: a peer that does not read loses the socket. Raises NotSent."""

    async def ping(self) -> None:
        """A protocol ping, for venues without one of their own. Returns once the pong is here; raises Closed."""

    async def close(self) -> None:
        """Say goodbye and wait for the other side, with a limit."""

    def abort(self) -> None:
        """Drop it now; `recv` then raises Closed."""


class Dial(Protocol):
    """Opens sockets."""

    async def __call__(self, url: str, venue: str, handshake: Handshake = PLAIN) -> Socket:
        """Within the limit of whoever made this; raises NotOpened."""


def dialler(*, open_timeout_s: float, ca_bundles: Mapping[str, str] | None = None) -> Dial:
    """Real sockets. `ca_bundles` names the certificates to trust by venue, where not the system's."""
    trusted = dict(ca_bundles or {})

    async def dial(url: str, venue: str, handshake: Handshake = PLAIN) -> Socket:
        try:
            return _WebSocket(
                await _Connect(
                    url + handshake.suffix,
                    additional_headers=handshake.headers,
                    subprotocols=[Subprotocol(name) for name in handshake.subprotocols] or None,
                    ssl=tls.context(url, trusted.get(venue, "")),
                    compression=None,
                    proxy=None,
                    user_agent_header="unisono",
                    open_timeout=open_timeout_s,
                    close_timeout=5,
                    ping_interval=None,
                    max_size=4 * _MIB,
                    max_queue=_MAX_QUEUE,
                    write_limit=_WRITE_LIMIT,
                    logger=_quiet,
                )
            )
        except broken.InvalidStatus as error:
            status = error.response.status_code
            raise NotOpened(f"the venue answered the opening with HTTP {status}", status=status) from error
        except (OSError, TimeoutError, broken.WebSocketException, tls.InsecureEndpoint) as error:
            raise NotOpened(f"{type(error).__name__}: {error}") from error

    return dial


class _Connect(connect):
    """The library's way of opening, which would follow redirects: credentials go nowhere but where they belong."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _WebSocket:
    __slots__ = ("_ws",)

    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws

    async def recv(self) -> bytes:
        try:
            return await self._ws.recv(decode=False)
        except broken.ConnectionClosed as error:
            raise _closed(error) from None

    def send(self, frame: Frame) -> None:
        ws = self._ws
        if ws.state is not State.OPEN:
            raise NotSent("the socket is closing", written=False)
        if ws.transport.get_write_buffer_size() > _WRITE_LIMIT:
            self.abort()
            raise NotSent("the other side does not read", written=False)
        try:
            # As `ws.send`, less the wait for a peer that does not read: nobody may hold up a fan-out.
            broadcast((ws,), frame, raise_exceptions=True)
        except ExceptionGroup as error:
            self.abort()
            raise NotSent(f"writing failed: {error.exceptions[0].__cause__!r}", written=True) from error

    async def ping(self) -> None:
        try:
            await (await self._ws.ping())
        except broken.ConnectionClosed as error:
            raise _closed(error) from None

    async def close(self) -> None:
        await self._ws.close()

    def abort(self) -> None:
        self._ws.transport.abort()


def _closed(error: broken.ConnectionClosed) -> Closed:
    if error.rcvd is not None:
        return Closed(error.rcvd.code, error.rcvd.reason)
    cause = error.__cause__
    return Closed(1006, str(cause) if cause is not None else "")
