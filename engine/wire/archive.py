"""Does. The files of raw frames: one an hour and venue, compressed; pinned ones stay, of the others the oldest go.

    raw/2026-11-22/venue-03.jsonl.zst     further ones of the same hour: venue-03-2.jsonl.zst
    raw/pins/….json                     which hours are kept, by whom and why

A file that is being written, or was cut off by a crash, can be read up to its last flush.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO

import msgspec
import zstandard

HOUR_MS = 3_600_000
_LEVEL = 1  # half the work of the usual 3, and for frames no more bytes
_SUFFIX = ".jsonl.zst"
_MIB = 1 << 20


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One frame or one half of a request. `way`: in, out, asked, answered, unanswered."""

    at_ms: int
    source: str  # the connection; over HTTP the account
    way: str
    frame: str
    cut: int = 0  # so many characters of it are not kept


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """Hours from `since_ms` to `until_ms` that are kept whatever their size and age."""

    pin_id: str
    since_ms: int
    until_ms: int
    by: str
    why: str
    at_ms: int


class RawFile(msgspec.Struct, frozen=True, kw_only=True):
    path: Path
    venue: str
    hour_ms: int
    number: int
    size: int


class Hour:
    """One file that is being written."""

    def __init__(self, folder: Path, venue: str, hour_ms: int) -> None:
        self.hour_ms = hour_ms
        at = datetime.fromtimestamp(hour_ms / 1000, UTC)
        day = folder / at.strftime("%Y-%m-%d")
        day.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path, self._file = _new(day, f"{venue}-{at:%H}")
        self._stream = zstandard.ZstdCompressor(level=_LEVEL).stream_writer(self._file, closefd=False)

    def write(self, lines: bytes) -> None:
        self._stream.write(lines)

    def flush(self) -> None:
        """What was written up to here can be read, also after a crash of this process."""
        self._stream.flush(zstandard.FLUSH_BLOCK)
        self._file.flush()

    @property
    def size(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        try:
            self._stream.close()  # type: ignore[no-untyped-call]
        finally:
            self._file.close()


def _new(day: Path, stem: str) -> tuple[Path, BinaryIO]:
    """A file of its own: behind one that a crash cut off nothing can be appended."""
    number = 1
    while True:
        name = f"{stem}{'' if number == 1 else f'-{number}'}{_SUFFIX}"
        try:
            handle = os.open(day / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            number += 1
        else:
            return day / name, os.fdopen(handle, "wb")


def files(folder: Path) -> list[RawFile]:
    """What there is, the oldest first."""
    found = list[RawFile]()
    for path in folder.glob(f"*/*{_SUFFIX}"):
        venue, _, rest = path.name.removesuffix(_SUFFIX).partition("-")
        hour, _, number = rest.partition("-")
        try:
            at = datetime.strptime(f"{path.parent.name} {hour} +0000", "%Y-%m-%d %H %z")
            size = path.stat().st_size
            one = RawFile(
                path=path, venue=venue, hour_ms=round(at.timestamp() * 1000), number=int(number or 1), size=size
            )
        except (ValueError, FileNotFoundError):
            continue  # no file of ours, or gone meanwhile
        found.append(one)
    return sorted(found, key=lambda f: (f.hour_ms, f.venue, f.number))


def lines(
    folder: Path, *, since_ms: int = 0, until_ms: int | None = None, venue: str = "", source: str = ""
) -> Iterator[tuple[str, Line]]:
    """Venue and line, by file and in the order in which they were heard and said."""
    for file in files(folder):
        if file.hour_ms + HOUR_MS <= since_ms or (until_ms is not None and file.hour_ms > until_ms):
            continue
        if venue and file.venue != venue:
            continue
        for line in _lines(file.path):
            if line.at_ms < since_ms or (until_ms is not None and line.at_ms > until_ms):
                continue
            if not source or source in line.source:
                yield file.venue, line


def _lines(path: Path) -> Iterator[Line]:
    decode = msgspec.json.Decoder(Line).decode
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        for text in TextIOWrapper(stream, encoding="utf-8", errors="replace", newline="\n"):
            try:
                yield decode(text)
            except msgspec.DecodeError:
                return  # cut off by a crash


# ---- what is kept


def pins(folder: Path) -> list[Pin]:
    found = list[Pin]()
    for path in (folder / "pins").glob("*.json"):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Pin))
        except (FileNotFoundError, msgspec.DecodeError):
            continue  # lifted meanwhile, or being written
    return sorted(found, key=lambda p: (p.since_ms, p.pin_id))


def pin(folder: Path, one: Pin) -> None:
    path = folder / "pins" / f"{one.pin_id}.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(one))


def unpin(folder: Path, pin_id: str) -> bool:
    """False when there is no such pin."""
    known = {p.pin_id for p in pins(folder)}
    if pin_id in known:
        (folder / "pins" / f"{pin_id}.json").unlink(missing_ok=True)
    return pin_id in known


def is_pinned(file: RawFile, pinned: list[Pin]) -> bool:
    return any(p.since_ms < file.hour_ms + HOUR_MS and p.until_ms >= file.hour_ms for p in pinned)


def prune(folder: Path, *, max_mb: int, max_days: int, now_ms: int, in_use: Collection[Path] = ()) -> list[RawFile]:
    """Deletes the oldest until the rest is small enough, then what is too old. Pinned files stay and do not count.

    Those that are being written stay, too. Returns what was deleted.
    """
    pinned, gone = pins(folder), list[RawFile]()
    loose = [f for f in files(folder) if not is_pinned(f, pinned) and f.path not in in_use]
    size = sum(f.size for f in loose)
    for file in loose:
        too_old = file.hour_ms < now_ms - max_days * 24 * HOUR_MS
        if size <= max_mb * _MIB and not too_old:
            break  # by age they are in order, so all others are younger
        file.path.unlink(missing_ok=True)
        size -= file.size
        gone.append(file)
    for day in {f.path.parent for f in gone}:
        try:
            day.rmdir()
        except OSError:
            continue  # not empty
    return gone
