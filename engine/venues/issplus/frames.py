"""Decides. STOMP frames as ISS+ speaks them, to bytes and back. ISS+ dossier §3, §12.

No library carries REQUEST, REPLY and CLOSED, a body on CONNECTED and frames cut anywhere all at once, hence this one.
Written strictly (LF only, nothing escaped, nothing after the NUL), read leniently: CRLF, `content-length`, several
frames in one message and one frame over several, bare EOLs between frames, a frame whose NUL was forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

LONGEST = 8 * 1024 * 1024  # a frame that long is none
_COMMAND = re.compile(rb"[A-Z]{1,24}")
_NEXT = re.compile(rb"(?:CONNECTED|ERROR|RECEIPT|MESSAGE|REPLY|CLOSED)\r?\n")
_BLANK = re.compile(rb"\r?\n\r?\n")
_ESCAPE = re.compile(r"\\([nrc\\])")
_MEANT = {"n": "\n", "r": "\r", "c": ":", "\\": "\\"}


class StompFrame(msgspec.Struct, frozen=True, gc=False):
    command: str
    headers: Mapping[str, str]
    body: bytes = b""

    def header(self, name: str) -> str:
        """Its value without the spaces around it, "" where there is none."""
        return self.headers.get(name, "").strip()


def encode(command: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """ValueError for a header that would end its line: whoever wrote it meant to add another."""
    lines = [command]
    for name, value in headers.items():
        if any(mark in text for text in (name, value) for mark in "\r\n\0") or ":" in name:
            raise ValueError(f"no header of a frame: {name!r}")
        lines.append(f"{name}:{value}")
    return "\n".join(lines).encode() + b"\n\n" + body + b"\0"


class Frames:
    """Cuts what comes in into frames; keeps the beginning of one whose end has not come yet."""

    def __init__(self) -> None:
        self._kept = self._waited = b""

    def settle(self) -> tuple[list[StompFrame], str]:
        """Called now and then: what waits for its end since the last call has none, and is taken as it is."""
        overdue = bool(self._kept) and self._kept == self._waited and _BLANK.search(self._kept) is not None
        self._waited = self._kept
        return self.feed(b"\0") if overdue else ([], "")

    def feed(self, message: bytes) -> tuple[list[StompFrame], str]:
        """The frames that are complete now, and what could not be read, "" for nothing."""
        frames: list[StompFrame] = []
        if self._kept and _NEXT.match(message) and _BLANK.search(self._kept):
            self._kept += b"\0"  # forgotten: JSON holds no raw line end, so that this is no middle of a body
        rest, self._kept, wrong = self._kept + message, b"", ""
        while rest := rest.lstrip(b"\r\n"):
            try:
                cut = _cut(rest)
            except ValueError as error:
                wrong = str(error)
                rest = rest.partition(b"\0")[2]
                continue
            if cut is None:
                self._kept = rest
                break
            frame, rest = cut
            frames.append(frame)
        return frames, wrong


def _cut(data: bytes) -> tuple[StompFrame, bytes] | None:
    """The first frame and what follows it; None: its end has not come yet. ValueError for what begins no frame."""
    command = _COMMAND.match(data)
    if command is None or data[command.end() : command.end() + 1] not in (b"", b"\r", b"\n"):
        raise ValueError(f"no frame begins like this: {data[:40]!r}")
    blank, end = _BLANK.search(data), data.find(b"\0")
    if blank is None or -1 < end < blank.start():
        if end >= 0:
            raise ValueError(f"a frame ends in its headers: {data[:40]!r}")
        if len(data) > LONGEST:
            raise ValueError("a frame without an end")
        return None
    headers = _headers(data[command.end() : blank.start()], escaped=command[0] != b"CONNECTED")
    begin, length = blank.end(), headers.get("content-length", "").strip()
    if length.isdecimal() and length.isascii() and len(length) < 9:
        if len(data) <= begin + int(length):
            return None
        if data[begin + int(length)] == 0:
            end = begin + int(length)
    if end < 0:
        if len(data) > LONGEST:
            raise ValueError("a frame without an end")
        return None
    return StompFrame(command[0].decode(), headers, data[begin:end]), data[end + 1 :]


def _headers(block: bytes, *, escaped: bool) -> dict[str, str]:
    """The first of several with one name counts. ValueError for what is no text (UnicodeDecodeError is one)."""
    headers: dict[str, str] = {}
    for line in block.decode().split("\n"):
        name, colon, value = line.rstrip("\r").partition(":")
        if colon:
            headers.setdefault(_unescaped(name) if escaped else name, _unescaped(value) if escaped else value)
    return headers


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda pair: _MEANT[pair[1]], text) if "\\" in text else text
