"""Holds. What happened, in order, as one hash; the latest of it in words for whoever replays a seed."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable

_LATEST = 400


class Trace:
    def __init__(self, now_ms: Callable[[], int], *, verbose: bool = False) -> None:
        self._now_ms, self._verbose = now_ms, verbose
        self._hash = hashlib.blake2b(digest_size=12)
        self.latest: deque[str] = deque(maxlen=_LATEST)
        self.events = 0
        self.watched = ""
        """Lines that hold this text are printed."""

    def note(self, kind: str, what: str | bytes) -> None:
        self.events += 1
        text = what if isinstance(what, str) else what.decode("utf-8", "replace")
        line = f"{self._now_ms()} {kind} {text}"
        self._hash.update(line.encode())
        self.latest.append(line)
        if self.watched and self.watched in line:
            print(line[:1200])
        elif self._verbose and kind[0].isupper():
            print(line[:300])

    def digest(self) -> str:
        return self._hash.hexdigest()
