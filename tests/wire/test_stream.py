"""Real sockets over loopback."""

from __future__ import annotations

import http
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from engine.wire.stream import Closed, NotOpened, NotSent, dialler

pytestmark = pytest.mark.anyio

dial = dialler(open_timeout_s=0.3)


@asynccontextmanager
async def venue(serve_one: Callable[[ServerConnection], Awaitable[None]], **options: object) -> AsyncIterator[str]:
    async with serve(serve_one, "127.0.0.1", 0, ping_interval=None, **options) as server:  # type: ignore[arg-type]
        with anyio.fail_after(10):
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def echo(ws: ServerConnection) -> None:
    async for frame in ws:
        await ws.send(frame)


async def test_text_goes_out_as_text_binary_as_binary_and_all_comes_in_as_bytes() -> None:
    kinds: list[type] = []

    async def note(ws: ServerConnection) -> None:
        async for frame in ws:
            kinds.append(type(frame))
            await ws.send(frame)

    async with venue(note) as url:
        ws = await dial(url, "v")
        ws.send("ping €")
        ws.send(b"\x00\xff")
        assert await ws.recv() == "ping €".encode()
        assert await ws.recv() == b"\x00\xff"
        await ws.close()
    assert kinds == [str, bytes]


async def test_compression_is_not_even_offered() -> None:
    offered: list[str | None] = []

    def look(connection: ServerConnection, request: Request) -> None:
        offered.append(request.headers.get("Sec-WebSocket-Extensions"))

    async with venue(echo, process_request=look) as url:
        await (await dial(url, "v")).close()
    assert offered == [None]


async def test_a_close_frame_tells_its_code_and_reason() -> None:
    async def drop(ws: ServerConnection) -> None:
        await ws.close(4004, "No data received in 30s")

    async with venue(drop) as url:
        ws = await dial(url, "v")
        with pytest.raises(Closed) as closed:
            await ws.recv()
    assert (closed.value.code, closed.value.reason) == (4004, "No data received in 30s")


async def test_a_reset_is_closed_with_1006() -> None:
    async def reset(ws: ServerConnection) -> None:
        ws.transport.abort()

    async with venue(reset) as url:
        ws = await dial(url, "v")
        with pytest.raises(Closed) as closed:
            await ws.recv()
    assert closed.value.code == 1006


async def test_abort_ends_recv_at_once_and_nothing_can_be_sent_then() -> None:
    async with venue(echo) as url:
        ws = await dial(url, "v")
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                with pytest.raises(Closed):
                    await ws.recv()

            group.start_soon(listen)
            await anyio.lowlevel.checkpoint()
            ws.abort()
        with pytest.raises(NotSent) as error:
            ws.send("too late")
        assert not error.value.written
        await ws.close()


async def test_a_peer_that_does_not_read_holds_nobody_up_and_loses_the_socket() -> None:
    release = anyio.Event()

    async def stuff(ws: ServerConnection) -> None:
        ws.transport.pause_reading()
        await release.wait()
        ws.transport.resume_reading()

    async with venue(stuff) as url:
        ws = await dial(url, "v")
        with pytest.raises(NotSent) as error:  # noqa: PT012  the one after the buffers are full
            for _ in range(100):
                ws.send("x" * 1_000_000)
        assert not error.value.written, "the frame that was refused did not leave"
        with pytest.raises(Closed):
            await ws.recv()
        release.set()


async def test_a_protocol_ping_returns_with_its_pong() -> None:
    async with venue(echo) as url:
        ws = await dial(url, "v")
        await ws.ping()
        ws.abort()
        with pytest.raises(Closed):
            await ws.ping()


async def test_a_frame_above_four_mebibytes_ends_the_socket() -> None:
    async def flood(ws: ServerConnection) -> None:
        await ws.send("x" * (4 * 1024 * 1024 + 1))
        await ws.wait_closed()

    async with venue(flood) as url:
        ws = await dial(url, "v")
        with pytest.raises(Closed):
            await ws.recv()


# ---- what does not open


async def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NotOpened):
        await dial(f"ws://127.0.0.1:{port}", "v")


async def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NotOpened, match="timed out"):
        await dial(f"ws://127.0.0.1:{silent.getsockname()[1]}", "v")


@pytest.mark.parametrize("status", [http.HTTPStatus.FOUND, http.HTTPStatus.TOO_MANY_REQUESTS])
async def test_redirects_and_refusals_are_not_opened(status: http.HTTPStatus) -> None:
    visited: list[str] = []

    def refuse(connection: ServerConnection, request: Request) -> Response:
        visited.append(request.path)
        response = connection.respond(status, "")
        response.headers["Location"] = "/elsewhere"
        return response

    async with venue(echo, process_request=refuse) as url:
        with pytest.raises(NotOpened, match=str(int(status))):
            await dial(f"{url}/private", "v")
    assert visited == ["/private"]


async def test_plain_to_a_host_that_is_not_loopback_is_not_even_tried() -> None:
    with pytest.raises(NotOpened, match="loopback only"):
        await dial("ws://venue.example/ws", "v")
