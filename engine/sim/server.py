"""Does. Serves a world over real sockets on 127.0.0.1: WebSockets, REST, and a control door for faults and truth.

`running(...)` is the whole of it as an async context manager. One port for WebSockets, one for REST, one for control;
port 0 lets the system choose.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from typing import Any

import anyio
import anyio.abc
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as ControlRequest
from starlette.responses import Response as ControlResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from engine.core.venue import Call, Outgoing, Sent, Session, Stage
from engine.sim.faults import FaultPlan
from engine.sim.market import Market
from engine.sim.world import DEAD_LINE, World
from engine.venues import venues
from scheduler.clock import Clock, SystemClock

HOST = "127.0.0.1"
PORTS = 3  # of each venue: WebSockets, HTTP, control
_TICK_S = 0.01
_MAX_FRAME = 64 * 1024  # longer ones are closed with 1009
_MAX_BODY = 1024 * 1024
_MAX_UNSENT = 4 * 1024 * 1024  # a client that reads so slowly is closed, as the venue does (4005)
_MAX_HOLD_S = 600.0  # no answer is held back for longer
_QUIT_S = 5.0
_BACKLOG = 4096

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Running:
    """A served world. `description` is what the simulator prints as its JSON line, without the venue's name."""

    def __init__(self, venue: str, world: World, clock: Clock) -> None:
        self.venue, self.world = venue, world
        self.description: dict[str, Any] = {}
        self.shift_ms = 0  # how far the venue's clock is off
        self._clock = clock
        self._connections: dict[Session, ServerConnection] = {}
        self._accepted: dict[ServerConnection, Session] = {}
        self._lines: dict[tuple[str, int], Any] = {}  # HTTP transports by the client's address
        self._group: anyio.abc.TaskGroup | None = None
        self._beating = anyio.CancelScope()

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.shift_ms

    def flush(self) -> None:
        """Send what the world has ready. Never waits: who reads too slowly is dropped."""
        for outgoing in self.world.drain(self.now_ms()):
            connection = self._connections.get(outgoing.session)
            if connection is not None:
                self._carry(outgoing, connection)
            elif outgoing.sent is Sent.CLOSE:
                # Accepted, and then its handshake was never finished.
                self._accepted = {c: s for c, s in self._accepted.items() if s is not outgoing.session}
                self.world.gone(outgoing.session)

    def _carry(self, outgoing: Outgoing, connection: ServerConnection) -> None:
        match outgoing.sent:
            case Sent.CLOSE:
                self._close(connection, outgoing.code, outgoing.reason)
            case Sent.ABORT:
                connection.transport.abort()
            case Sent.FREEZE:
                connection.transport.pause_reading()
            case _:
                if connection.transport.get_write_buffer_size() > _MAX_UNSENT:
                    connection.transport.abort()
                else:
                    broadcast((connection,), outgoing.frame)

    def _close(self, connection: ServerConnection, code: int, reason: str) -> None:
        assert self._group is not None, "connections exist only while it runs"
        self._group.start_soon(connection.close, code, reason)

    # ---- WebSockets

    def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        call = Call(
            method="GET",
            target=request.path,
            headers={name.lower(): value for name, value in request.headers.raw_items()},
            peer=connection.remote_address[0],
        )
        session = self.world.accept(call, self.now_ms())
        if isinstance(session, int):
            if session == DEAD_LINE:
                connection.transport.abort()
            status = HTTPStatus(session or 503)
            return connection.respond(status, f"{status.phrase}\n")
        self._accepted[connection] = session
        return None

    def subprotocol(self, connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        """As the front chose it: it has seen what was offered."""
        chosen = self._accepted[connection].subprotocol
        return Subprotocol(chosen) if chosen else None

    async def talk(self, connection: ServerConnection) -> None:
        session = self._accepted.pop(connection)
        self._connections[session] = connection
        try:
            while True:
                frame = await connection.recv(decode=False)
                assert isinstance(frame, bytes), "decode=False gives bytes"
                self.world.hear(session, frame, self.now_ms())
                self.flush()
        except ConnectionClosed:
            pass
        finally:
            del self._connections[session]
            self.world.gone(session)

    async def beat(self) -> None:
        with self._beating:
            while True:
                await anyio.sleep(_TICK_S)
                self.world.tick(self.now_ms())
                self.flush()

    def stop(self) -> None:
        self._beating.cancel()

    # ---- REST

    async def rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body") or len(body) > _MAX_BODY:
                break
        query = scope["query_string"]
        call = Call(
            method=scope["method"],
            target=(scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1"),
            headers={k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]},
            body=body,
            peer=scope["client"][0],
        )
        response, due_ms = self.world.call(call, self.now_ms())
        self.flush()
        wait_s = min((due_ms - self.now_ms()) / 1000, _MAX_HOLD_S)
        if wait_s > 0:
            await anyio.sleep(wait_s)
        if response is None:
            self._lines[scope["client"]].abort()
            await receive()  # until the broken connection has been noticed
            return
        headers = [(k.encode(), v.encode()) for k, v in response.headers.items()]
        headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    def line_protocol(self) -> type[H11Protocol]:
        """An HTTP protocol whose connections can be broken without an answer."""
        lines = self._lines

        class Line(H11Protocol):
            def connection_made(self, transport: Any) -> None:
                lines[transport.get_extra_info("peername")] = transport
                super().connection_made(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                lines.pop(self.transport.get_extra_info("peername"), None)
                super().connection_lost(exc)

        return Line

    # ---- Control

    def control_app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/faults", self._get_faults, methods=["GET"]),
                Route("/faults", self._post_faults, methods=["POST"]),
                Route("/faults", self._clear_faults, methods=["DELETE"]),
                Route("/orders", self._post_order, methods=["POST"]),
                Route("/market", self._post_market, methods=["POST"]),
                Route("/transfer", self._post_transfer, methods=["POST"]),
                Route("/clock", self._post_clock, methods=["POST"]),
                Route("/truth/{kind}", self._truth, methods=["GET"]),
            ],
            exception_handlers={KeyError: _unknown, ValueError: _wrong, InvalidOperation: _wrong, TypeError: _wrong},
        )

    async def _get_faults(self, request: ControlRequest) -> ControlResponse:
        return _json(self.world.faults.report(self.now_ms()))

    async def _post_faults(self, request: ControlRequest) -> ControlResponse:
        asked = dict(await request.json())
        kind, accounts = str(asked.pop("kind")), asked.pop("accounts", "all")
        chosen = None if accounts == "all" else [str(name) for name in accounts]
        met = self.world.trouble(kind, chosen, asked, self.now_ms())
        self.flush()
        told: dict[str, Any] = {"kind": kind, "met": met}
        if kind == "new_key":  # their owners know them from now on
            told["accounts"] = [row for row in self.world.front.accounts() if chosen is None or row["name"] in chosen]
        return _json(told)

    async def _clear_faults(self, request: ControlRequest) -> ControlResponse:
        self.world.faults.clear()
        return _json({})

    async def _post_order(self, request: ControlRequest) -> ControlResponse:
        order = dict(await request.json())
        told = self.world.front.place_elsewhere(str(order.pop("account")), order, self.now_ms())
        self.flush()
        return _json(told)

    async def _post_market(self, request: ControlRequest) -> ControlResponse:
        asked, market = dict(await request.json()), self.world.market
        front = self.world.front
        if "paused" in asked:
            market.paused = bool(asked["paused"])
        if "price" in asked or "move_percent" in asked:
            symbol = front.symbol(str(asked["instrument"]))
            if "price" in asked:
                market.move_to(symbol, Decimal(str(asked["price"])))
            else:
                market.move_by(symbol, Decimal(str(asked["move_percent"])))
        front.settle(self.now_ms())
        self.flush()
        told = {symbol: str(price) for symbol, price in front.exchange.marks.items()}
        if "instrument" in asked:
            symbol = front.symbol(str(asked["instrument"]))
            told |= {"price": told[symbol], "tick": next(str(q.tick) for q in front.quoted if q.symbol == symbol)}
        return _json(told)

    async def _post_transfer(self, request: ControlRequest) -> ControlResponse:
        asked = dict(await request.json())
        amount = Decimal(str(asked["amount"]))
        self.world.front.transfer(str(asked["account"]), str(asked.get("currency", "USDT")), amount, self.now_ms())
        self.flush()
        return _json({})

    async def _post_clock(self, request: ControlRequest) -> ControlResponse:
        self.shift_ms = int((await request.json())["shift_ms"])
        return _json({"now_ms": self.now_ms()})

    async def _truth(self, request: ControlRequest) -> ControlResponse:
        account, kind, front = request.query_params.get("account", ""), request.path_params["kind"], self.world.front
        if kind == "ours":  # all of it in our words, the same at every venue
            names = [account] if account else [row["name"] for row in front.accounts()]
            return _json(msgspec.to_builtins({name: front.account(name) for name in names}))
        return _json(front.truth(kind, account))


def playable() -> list[str]:
    """Venues that have a front."""
    return [name for name in venues() if importlib.util.find_spec(_front_of(name))]


def stage_of(venue: str) -> Stage:
    """How an office is set up at a playable venue."""
    stage: Stage = importlib.import_module(_front_of(venue)).STAGE
    return stage


def _front_of(venue: str) -> str:
    return f"engine.venues.{venue}.front"


@contextlib.asynccontextmanager
async def running(
    venue: str,
    *,
    accounts: int = 20,
    seed: int = 1,
    limits: bool = True,
    port_base: int = 0,
    speed: float = 1.0,
    clock: Clock | None = None,
    **front_options: Any,
) -> AsyncIterator[Running]:
    """Serve a venue until the block ends. `speed` is how fast its market moves; its clock is the real one."""
    clock = clock or SystemClock()
    faults = FaultPlan()
    front = importlib.import_module(_front_of(venue)).front(
        accounts=accounts, seed=seed, now_ms=clock.now_ms(), faults=faults, limits=limits, **front_options
    )
    market = Market(front.exchange, front.quoted, seed, every_ms=max(1, round(500 / speed)))
    served = Running(venue, World(front, market, faults, clock.now_ms()), clock)
    sockets = _listen_on(port_base)
    stream_url, rest_url, control_url = (f"127.0.0.1:{s.getsockname()[1]}" for s in sockets)
    served.description = {
        **{name: f"http://{rest_url}{path}" for name, path in front.rests.items()},
        **{name: f"ws://{stream_url}{path}" for name, path in front.paths.items()},
        "control": f"http://{control_url}",
        **front.describe(),
    }
    rest = _Web(served.rest, served.line_protocol())
    control = _Web(served.control_app(), H11Protocol)
    async with (
        serve(
            served.talk,
            sock=sockets[0],
            process_request=served.admit,
            select_subprotocol=served.subprotocol,
            compression=None,
            ping_interval=None,
            open_timeout=10,
            close_timeout=1,
            max_size=_MAX_FRAME,
            server_header=None,
        ) as streams,
        anyio.create_task_group() as group,
    ):
        served._group = group
        group.start_soon(rest.serve, [sockets[1]])
        group.start_soon(control.serve, [sockets[2]])
        group.start_soon(served.beat)
        with anyio.fail_after(_QUIT_S):
            await rest.ready.wait()
            await control.ready.wait()
        try:
            yield served
        finally:
            rest.leave()
            control.leave()
            for connection in list(streams.connections):
                connection.transport.abort()
            served.stop()


class _Web(uvicorn.Server):
    """A web server that leaves signals to whoever runs the process."""

    def __init__(self, app: Any, protocol: type[H11Protocol]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                interface="asgi3",
                proxy_headers=False,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=60,
                timeout_graceful_shutdown=1,
            )
        )
        self.ready = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    def leave(self) -> None:
        self.should_exit = self.force_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen_on(port_base: int) -> list[socket.socket]:
    """A venue's listening sockets, or none."""
    sockets: list[socket.socket] = []
    try:
        for number in range(PORTS):
            sockets.append(_listen(port_base + number if port_base else 0))
    except OSError:
        for listening in sockets:
            listening.close()
        raise
    return sockets


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _json(value: Any, status: int = 200) -> ControlResponse:
    return ControlResponse(msgspec.json.encode(value), status, media_type="application/json")


async def _unknown(request: ControlRequest, error: Exception) -> ControlResponse:
    return _json({"error": f"unknown or missing: {error}"}, 404)


async def _wrong(request: ControlRequest, error: Exception) -> ControlResponse:
    return _json({"error": str(error)}, 422)


@contextlib.asynccontextmanager
async def running_all(names: Sequence[str], *, port_base: int = 0, **options: Any) -> AsyncIterator[list[Running]]:
    """Several venues side by side, each with ports of its own; the same seed moves the same prices at all of them."""
    async with contextlib.AsyncExitStack() as stack:
        served = []
        for number, name in enumerate(names):
            base = port_base + number * PORTS if port_base else 0
            served.append(await stack.enter_async_context(running(name, port_base=base, **options)))
        yield served


def describe(served: Sequence[Running]) -> Mapping[str, Any]:
    """The simulator's JSON line."""
    return {venue.venue: venue.description for venue in served}
