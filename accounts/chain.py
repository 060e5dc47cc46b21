"""Decides. What makes a log of deeds one chain: each row is sealed over its content and the row before it.

Whoever changes, removes or puts in a row by hand breaks the chain there. The form of a seal never changes: rows that
are years old are checked by it. What was cut off at the end shows only to whoever noted the last seal elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

BEGINNING = ""  # what the first row follows

Content = Sequence[int | str | None]


class Sealed(msgspec.Struct, frozen=True):
    """A row as it stands in its table."""

    number: int
    previous: str
    seal: str
    content: Content


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at every row came to."""

    rows: int  # that fit
    head: str  # the seal of the last that fits; "" without any
    unfit: int | None = None  # the number of the first row that does not fit: all before it are as they were written
    why: str = ""


def seal(previous: str, content: Content) -> str:
    """The seal of a row that follows the one sealed `previous`: SHA-256 in hex."""
    return hashlib.sha256(previous.encode() + b"\n" + msgspec.json.encode(list(content))).hexdigest()


def check(rows: Iterable[Sealed]) -> Chain:
    """`rows` in the order of their numbers."""
    numbers: dict[str, int] = {BEGINNING: 0}  # by seal
    previous, last = BEGINNING, 0
    for row in rows:
        count = len(numbers) - 1
        if row.seal != seal(row.previous, row.content):
            return Chain(rows=count, head=previous, unfit=row.number, why="it was changed after it had been written")
        if row.previous != previous:
            return Chain(rows=count, head=previous, unfit=row.number, why=_out_of_place(row, numbers, last))
        numbers[row.seal], previous, last = row.number, row.seal, row.number
    return Chain(rows=len(numbers) - 1, head=previous)


def _out_of_place(row: Sealed, numbers: dict[str, int], last: int) -> str:
    follows = numbers.get(row.previous)
    if follows is None:
        return f"rows between {last} and it were removed, or changed and sealed anew"
    if follows == 0:
        return f"it was written as the first row: all before it, up to {last}, were put in"
    return f"it was written after row {follows}: what stands between the two was put in"
