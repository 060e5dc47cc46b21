"""Does. Keeps what was heard and said, as it was, for the day on which somebody asks: off everybody's way.

Whoever tells a frame only puts it into a queue; a thread masks, compresses and writes. Where that cannot follow, frames
are not kept and counted: nobody ever waits for it, and nothing depends on it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from accounts.model import Connection
from engine.core.masking import MASK, Masker
from engine.core.venue import Frame, Request, Response
from engine.wire import archive
from engine.wire.archive import HOUR_MS, Hour, Line
from engine.wire.stream import NotSent, Socket
from scheduler.clock import Clock

log = structlog.get_logger("raw")
replace = msgspec.structs.replace
_ENCODER = msgspec.json.Encoder()

ALWAYS_SECRET = ("token", "access_token", "refresh_token", "authorization", "cookie", "set-cookie")
"""Whatever a venue calls its own."""

_EVERY_S = 1.0
_SLICE = 64  # frames in one go: between two, whoever waits for Python's lock gets it
_BREATH_S = 0.0005
_LONGEST_HUSH_S = 2.0
_LONGEST = 64 * 1024  # characters of one frame
_AFTER_TROUBLE_S = 30.0
_PRUNE_EVERY_MS = 60_000

_Told = tuple[str, str, str, int, Frame, tuple[tuple[str, str], ...]]
"""venue, source, way, at_ms, frame, headers"""


class Raw:
    def __init__(
        self,
        folder: Path,
        clock: Clock,
        secrets: Mapping[str, Iterable[str]],
        *,
        max_mb: int,
        max_days: int,
        queue_mb: int,
        hush: Callable[[], bool] = lambda: False,
    ) -> None:
        """`secrets` by venue: the names of what is never kept. While `hush` says so, nothing is written."""
        self._folder, self._clock, self._hush = folder, clock, hush
        self._masks = {venue: Masker(names) for venue, names in secrets.items()}
        self._max_mb, self._max_days, self._limit = max_mb, max_days, queue_mb << 20
        self._longest_file = (max_mb << 20) // 8
        self._queue: deque[_Told] = deque()
        self._taken = self._written = 0  # bytes; each is counted up by one thread only
        self._open: dict[str, Hour] = {}
        self._pruned_ms = 0
        self._trouble, self._again_s = "", 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raw", daemon=True)
        self._refused = self._lost = 0  # each by one thread only

    @property
    def not_kept(self) -> int:
        """Frames that found no room, or could not be written."""
        return self._refused + self._lost

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write what waits; blocks for as long as that takes, with a limit."""
        self._stopping.set()
        self._thread.join(5.0)

    # ---- on everybody's way: these only put aside

    def socket(self, socket: Socket, connection: Connection) -> Socket:
        """The same socket, overheard."""
        return _Overheard(self, socket, connection)

    def tell(self, venue: str, source: str, way: str, frame: Frame, headers: tuple[tuple[str, str], ...] = ()) -> None:
        if self._taken - self._written > self._limit:
            self._refused += 1
            return
        self._taken += len(frame) + 64
        self._queue.append((venue, source, way, self._clock.now_ms(), frame, headers))

    def exchange(self, venue: str, source: str, request: Request, response: Response | None, why: str) -> None:
        """A request over HTTP, and what came of it."""
        self.tell(venue, source, "asked", f"{request.method} {request.path}\n".encode() + request.body, request.headers)
        if response is None:
            self.tell(venue, source, "unanswered", why)
        else:
            self.tell(venue, source, "answered", f"{response.status}\n".encode() + response.body)

    # ---- the thread

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            waited_s = 0.0
            while self._hush() and waited_s < _LONGEST_HUSH_S and not self._stopping.is_set():
                time.sleep(0.01)
                waited_s += 0.01
            self._drain()
        self._drain()
        for hour in self._open.values():
            try:
                hour.close()
            except OSError as error:
                log.warning("raw_not_written", error=str(error))

    def _drain(self) -> None:
        if self._trouble and time.monotonic() < self._again_s:
            return
        try:
            now_ms = self._clock.now_ms()
            if abs(now_ms - self._pruned_ms) >= _PRUNE_EVERY_MS:
                self._pruned_ms, in_use = now_ms, {hour.path for hour in self._open.values()}
                for file in archive.prune(
                    self._folder, max_mb=self._max_mb, max_days=self._max_days, now_ms=now_ms, in_use=in_use
                ):
                    log.info("raw_deleted", file=file.path.name, day=file.path.parent.name, size=file.size)
            while self._queue:
                self._write([self._queue.popleft() for _ in range(min(_SLICE, len(self._queue)))])
                time.sleep(_BREATH_S)
            for hour in self._open.values():
                hour.flush()
            self._trouble = ""
        except Exception as error:  # a full disk, or a mistake of ours: orders and facts go on
            self._again_s = time.monotonic() + _AFTER_TROUBLE_S
            for hour in self._open.values():
                with suppress(Exception):
                    hour.close()
            self._open.clear()
            if str(error) != self._trouble:
                self._trouble = str(error)
                log.error("raw_not_written", error=f"{type(error).__name__}: {error}", next="tried again by itself")

    def _write(self, some: list[_Told]) -> None:
        self._written += sum(len(told[4]) + 64 for told in some)
        self._lost += len(some)  # until they are written
        ready: dict[tuple[str, int], list[Line]] = {}
        for venue, source, way, at_ms, frame, headers in some:
            text = frame if isinstance(frame, str) else frame.decode("utf-8", "backslashreplace")
            if headers:
                text = self._with_headers(venue, text, headers)
            ready.setdefault((venue, at_ms // HOUR_MS * HOUR_MS), []).append(Line(at_ms, source, way, text))
        for (venue, hour_ms), lines in ready.items():
            self._hour(venue, hour_ms).write(_ENCODER.encode_lines(self._kept(self._masks[venue], lines)))
            self._lost -= len(lines)

    def _hour(self, venue: str, hour_ms: int) -> Hour:
        """The file to write to; one that grew long is left, so that there is always something old to delete."""
        known = self._open.get(venue)
        if known is None or known.hour_ms != hour_ms or known.size > self._longest_file:
            if known is not None:
                known.close()
            known = self._open[venue] = Hour(self._folder, venue, hour_ms)
        return known

    def _with_headers(self, venue: str, text: str, headers: tuple[tuple[str, str], ...]) -> str:
        secret = self._masks[venue].names
        shown = "".join(f"{name}: {MASK if name.lower() in secret else value}\n" for name, value in headers)
        first, _, rest = text.partition("\n")
        return f"{first}\n{shown}\n{rest}"

    def _kept(self, masker: Masker, lines: list[Line]) -> list[Line]:
        """Masked first: what is cut in the midst of a secret could not be found."""
        if masker.concerns("\n".join(line.frame for line in lines)):
            lines = [replace(line, frame=masker.mask(line.frame)) for line in lines]
        return [
            line
            if len(line.frame) <= _LONGEST
            else replace(line, frame=line.frame[:_LONGEST], cut=len(line.frame) - _LONGEST)
            for line in lines
        ]


class _Overheard:
    __slots__ = ("_raw", "_recv", "_send", "_source", "_venue", "abort", "close", "ping")

    def __init__(self, raw: Raw, socket: Socket, connection: Connection) -> None:
        self._raw, self._venue, self._source = raw, connection.venue, connection.connection_key
        self._recv, self._send = socket.recv, socket.send
        self.ping, self.close, self.abort = socket.ping, socket.close, socket.abort

    async def recv(self) -> bytes:
        frame = await self._recv()
        self._raw.tell(self._venue, self._source, "in", frame)
        return frame

    def send(self, frame: Frame) -> None:
        try:
            self._send(frame)
        except NotSent as error:
            if error.written:
                self._raw.tell(self._venue, self._source, "out, maybe", frame)
            raise
        self._raw.tell(self._venue, self._source, "out", frame)
