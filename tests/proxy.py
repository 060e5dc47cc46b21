"""A TCP proxy that does to a connection what networks do: delay, cut, half-open, truncate, drip, reset."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_CHUNK = 64 * 1024
_DRIP_BYTES = 16


class Proxy:
    """Stands before one port of 127.0.0.1. Its settings hold for connections that are open and for new ones."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.latency_s = 0.0
        self.drip_s = 0.0  # so long between two handfuls of bytes; 0: all at once
        self.happened: Counter[str] = Counter()
        self._swallows = False
        self._truncates = 0
        self._lines: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._opened = threading.Event()

    # ---- from the test's thread

    def cut(self) -> None:
        """Every connection ends now, as when a peer goes."""
        self._do(self._close_all("cut"))

    def reset(self) -> None:
        """Every connection is reset."""
        self._do(self._close_all("reset"))

    def half_open(self, on: bool = True) -> None:
        """Connections stay open, new ones are taken; nothing goes through, and nobody is told."""
        self._swallows = on

    def truncate(self, times: int) -> None:
        """So many of the next answers break off half-way, and their connection with them."""
        self._truncates = times

    def heal(self) -> None:
        """What was swallowed stays lost, so connections that lost something end."""
        self.latency_s = self.drip_s = 0.0
        self._truncates = 0
        if self._swallows:
            self._swallows = False
            self.cut()

    # ---- the proxy's own thread

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._carry, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._opened.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._close_all("ended"))
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_target, to_target = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = (writer, to_target)
        self._lines.update(both)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, to_target, answers=False))
                group.create_task(self._pump(from_target, writer, answers=True))
        except* (OSError, _Over):
            pass
        finally:
            self._lines.difference_update(both)
            for one in both:
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while chunk := await reader.read(_CHUNK):
            if self.latency_s:
                self.happened["latency"] += 1
                await asyncio.sleep(self.latency_s)
            if self._swallows:
                self.happened["half-open"] += 1
                continue
            if answers and self._truncates:
                self._truncates -= 1
                self.happened["truncated"] += 1
                writer.write(chunk[: len(chunk) // 2])
                await writer.drain()
                raise _Over
            await self._write(writer, chunk)
        raise _Over

    async def _write(self, writer: asyncio.StreamWriter, chunk: bytes) -> None:
        while chunk and self.drip_s:
            self.happened["drip"] += 1
            writer.write(chunk[:_DRIP_BYTES])
            await writer.drain()
            chunk = chunk[_DRIP_BYTES:]
            await asyncio.sleep(self.drip_s)
        if chunk:
            writer.write(chunk)
            await writer.drain()

    async def _close_all(self, how: str) -> None:
        for line in list(self._lines):
            self.happened[how] += 1
            if how == "reset":
                raw = line.get_extra_info("socket")
                with suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.transport.abort()


class _Over(Exception):
    """One side has ended; the other one is ended with it."""


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    made = Proxy(target)
    made._thread.start()
    assert made._opened.wait(5), "the proxy listens"
    try:
        yield made
    finally:
        made._loop.call_soon_threadsafe(made._loop.stop)
        made._thread.join(10)
