"""Decides. What absence from a snapshot means: what was known on this connection and is not shown any more is zero.

OKX pages its snapshots and lists only what is not zero (OKX dossier §3.2, §3.4). A snapshot speaks for what it leaves
out only when every page of it was heard in order and could be read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from engine.core.facts import BalanceFact, PositionFact

F = TypeVar("F", PositionFact, BalanceFact)


class Absence(Generic[F]):
    """Follows one channel of one connection."""

    def __init__(self, key: Callable[[F], Hashable], zero: Callable[[F], F]) -> None:
        self._key: Callable[[F], Hashable] = key
        self._zero: Callable[[F], F] = zero
        self._known: dict[Hashable, F] = {}
        self._seen: set[Hashable] | None = None  # by the snapshot that is under way; None: none, or a broken one
        self._next_page = 1

    def shown(self, facts: Sequence[F], *, page: int | None, last: bool | None, readable: bool) -> Sequence[F]:
        """Take in one frame; `page` is None for a frame of changes. Returns the zeros that it proves."""
        if page == 1:
            self._seen, self._next_page = set(), 1
        if not readable or (page is not None and page != self._next_page):
            self._seen = None
        for fact in facts:
            key = self._key(fact)
            known = self._known.get(key)
            if known is None or known.updated_at_ms <= fact.updated_at_ms:
                self._known[key] = fact
            if self._seen is not None:
                self._seen.add(key)  # changes between two pages count as shown, too
        if page is None or self._seen is None:
            return ()
        self._next_page += 1
        if not last:
            return ()
        gone = [key for key in self._known if key not in self._seen]
        self._seen = None
        return [self._zero(self._known.pop(key)) for key in gone]
