"""Does. A venue just big enough to measure against, in a process of its own: `python -m bench.venue`.

A plain WebSocket server and a small HTTP one on loopback. It acknowledges everything, limits nothing, and stamps what
arrives with the machine's monotonic clock, which all processes share. Its cost is the same for engine and floor.
It prints its ports as one JSON line, is told what to do over a WebSocket at /bench, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import uvloop
from websockets.asyncio.server import ServerConnection, serve

from bench import frames
from bench.frames import text_frame

_PONG = text_frame(b"pong")


class _Arg(msgspec.Struct, gc=False):
    channel: str = ""
    clOrdId: str = ""
    apiKey: str = ""


class _Request(msgspec.Struct, gc=False):
    op: str
    args: list[_Arg]
    id: str = ""


_request = msgspec.json.Decoder(_Request).decode


class _Session:
    """One client: by whose key it logged in, its pings, and how long it was silent."""

    __slots__ = ("heard_ns", "pings_ns", "silence_ns", "transport", "whose")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.heard_ns = time.monotonic_ns()
        self.silence_ns = 0
        self.pings_ns: list[int] = []
        self.whose = ""


class Venue:
    def __init__(self) -> None:
        self.sessions: dict[_Session, None] = {}
        self.orders: list[tuple[_Session, str, int]] = []  # accepted and not ended: whose, client order id, order id
        self.positions = 0
        self.numbers = 10**15
        self.arrived_ns: list[int] = []  # of each order frame
        self.ready_ns: list[int] = []  # of each subscription request
        self.load: asyncio.Task[None] | None = None

    # ---- clients

    async def client(self, ws: ServerConnection) -> None:
        assert ws.request is not None
        if ws.request.path == "/bench":
            async for message in ws:
                asked = json.loads(message)
                verb = getattr(self, asked.pop("do"))
                await ws.send(json.dumps(await verb(**asked)))
            return
        session = _Session(ws.transport)
        if ws.request.path.endswith("private"):
            self.sessions[session] = None
        try:
            while True:
                self._hear(session, await ws.recv(decode=False), time.monotonic_ns())
        except Exception:  # noqa: S110  closed, in whatever way
            pass
        finally:
            self.sessions.pop(session, None)

    def _hear(self, session: _Session, frame: bytes, now_ns: int) -> None:
        write = session.transport.write
        session.silence_ns = max(session.silence_ns, now_ns - session.heard_ns)
        session.heard_ns = now_ns
        if frame == b"ping":
            session.pings_ns.append(now_ns)
            write(_PONG)
            return
        asked = _request(frame)
        if asked.op == "order":
            self.arrived_ns.append(now_ns)
            client, self.numbers = asked.args[0].clOrdId, self.numbers + 1
            self.orders.append((session, client, self.numbers))
            row = b'{"ordId":"%d","clOrdId":"%s","tag":"","sCode":"0","sMsg":""}' % (self.numbers, client.encode())
            write(text_frame(b'{"id":"%s","op":"order","code":"0","msg":"","data":[%s]}' % (asked.id.encode(), row)))
        elif asked.op == "login":
            session.whose = asked.args[0].apiKey
            write(text_frame(b'{"event":"login","code":"0","msg":"","connId":"b"}'))
        elif asked.op == "subscribe":
            arg = msgspec.Raw(msgspec.json.encode(msgspec.json.decode(frame)["args"][0]))
            write(text_frame(msgspec.json.encode({"id": asked.id, "event": "subscribe", "arg": arg, "connId": "b"})))
            self.ready_ns.append(now_ns)

    def rows(self, path: str, query: dict[str, str], key: str, now_ms: int) -> list[dict[str, Any]]:
        """The answer to a read."""
        return frames.rows(path, query, key, now_ms, self.positions)

    # ---- told by the bench

    async def reset(self) -> dict[str, Any]:
        self.arrived_ns, self.ready_ns = [], []
        for session in self.sessions:
            session.silence_ns, session.heard_ns, session.pings_ns = 0, time.monotonic_ns(), []
        return {}

    async def arrivals(self) -> dict[str, Any]:
        found = self.arrived_ns
        return {"count": len(found), "first_ns": min(found, default=0), "last_ns": max(found, default=0)}

    async def subscriptions(self) -> dict[str, Any]:
        return {"count": len(self.ready_ns), "last_ns": max(self.ready_ns, default=0)}

    def _of(self, whose: str) -> list[_Session]:
        return [s for s in self.sessions if s.whose.startswith(whose)]

    async def clients(self, whose: str) -> dict[str, Any]:
        return {"count": len(self._of(whose))}

    async def pings(self, whose: str) -> dict[str, Any]:
        now_ns = time.monotonic_ns()
        return {
            "at_ns": sorted(at for s in self._of(whose) for at in s.pings_ns),
            "silence_ns": [max(s.silence_ns, now_ns - s.heard_ns) for s in self._of(whose)],
        }

    async def hold(self, positions: int) -> dict[str, Any]:
        self.positions = positions
        return {}

    async def cut(self, whose: str) -> dict[str, Any]:
        """Breaks every connection of an account at once, without a close frame."""
        at_ns, cut = time.monotonic_ns(), self._of(whose)
        for session in cut:
            session.transport.abort()
        return {"count": len(cut), "at_ns": at_ns}

    async def end_orders(self) -> dict[str, Any]:
        """Cancels every order, with a push each."""
        orders, self.orders = self.orders, []
        now_ms = time.time_ns() // 1_000_000
        for number, (session, client, order) in enumerate(orders):
            session.transport.write(text_frame(frames.push(order, client.encode(), b"canceled", now_ms - 1, now_ms)))
            if number % 32 == 31:
                await asyncio.sleep(0)
        return {"count": len(orders)}

    async def burst(self, whose: str, count: int, fills: bool) -> dict[str, Any]:
        """Order updates of distinct orders (each opens and is cancelled; or fills), as fast as sockets take them."""
        sessions, now_ms, size = self._of(whose), time.time_ns() // 1_000_000, 16
        chunks: list[tuple[_Session, bytes]] = []
        for start in range(0, count, size):
            made = []
            for _ in range(min(size, count - start) // (1 if fills else 2)):
                self.numbers += 1
                if fills:
                    made.append(text_frame(frames.fill_push(self.numbers, self.numbers, now_ms, now_ms)))
                else:
                    made.append(text_frame(frames.push(self.numbers, b"", b"live", now_ms, now_ms)))
                    made.append(text_frame(frames.push(self.numbers, b"", b"canceled", now_ms, now_ms + 1)))
            chunks.append((sessions[start // size % len(sessions)], b"".join(made)))
        at_ns = time.monotonic_ns()
        for number, (session, chunk) in enumerate(chunks):
            session.transport.write(chunk)
            if number % 8 == 7:
                await asyncio.sleep(0)
        return {"at_ns": at_ns}

    async def push(self, whose: str, rate: int, share: float = 1.0) -> dict[str, Any]:
        """From now on so many order updates a second, spread over this share of the clients; 0 ends it."""
        if self.load is not None:
            self.load.cancel()
            self.load = None
        if rate:
            sessions = self._of(whose)
            self.load = asyncio.create_task(self._push(sessions[: round(len(sessions) * share)], rate))
        return {}

    async def _push(self, sessions: list[_Session], rate: int) -> None:
        began_s, pushed = time.monotonic(), 0
        while True:
            now_ms = time.time_ns() // 1_000_000
            while pushed < (time.monotonic() - began_s) * rate:
                # An order opens with one update and is cancelled with the next one on the same connection.
                self.numbers += 1
                session = sessions[self.numbers % len(sessions)]
                session.transport.write(
                    text_frame(frames.push(self.numbers, b"", b"live", now_ms, now_ms))
                    + text_frame(frames.push(self.numbers, b"", b"canceled", now_ms, now_ms + 1))
                )
                pushed += 2
            await asyncio.sleep(0.004)


class _Http(asyncio.Protocol):
    """HTTP/1.1 with connections kept open: enough for GETs without a body."""

    def __init__(self, venue: Venue) -> None:
        self._venue, self._rest = venue, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while b"\r\n\r\n" in self._rest:
            head, self._rest = self._rest.split(b"\r\n\r\n", 1)
            lines = head.decode("latin-1").split("\r\n")
            url = urlsplit(lines[0].split(" ")[1])
            key = next((line.split(": ", 1)[1] for line in lines if line.lower().startswith("ok-access-key")), "")
            path, now_ms = url.path.removeprefix("/api/v5/"), time.time_ns() // 1_000_000
            data_rows = self._venue.rows(path, dict(parse_qsl(url.query)), key, now_ms)
            body = msgspec.json.encode({"code": "0", "msg": "", "data": data_rows})
            answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            self._transport.write(answer + body)  # type: ignore[attr-defined]


async def stay_open(venue: Venue) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    http = await loop.create_server(lambda: _Http(venue), "127.0.0.1", 0, backlog=4096)
    options: dict[str, Any] = {"compression": None, "ping_interval": None, "max_queue": 4096, "close_timeout": 1}
    async with serve(venue.client, "127.0.0.1", 0, backlog=8192, open_timeout=60, **options) as server:
        ws = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        doors = {
            "rest": f"http://127.0.0.1:{http.sockets[0].getsockname()[1]}",
            "ws_private": f"{ws}/ws/v5/private",
            "ws_public": f"{ws}/ws/v5/public",
            "bench": f"{ws}/bench",
        }
        print(json.dumps(doors), flush=True)
        ended = asyncio.Event()
        loop.add_reader(sys.stdin, ended.set)
        await ended.wait()


if __name__ == "__main__":
    uvloop.run(stay_open(Venue()))
