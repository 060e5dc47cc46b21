"""Decides. What a subscription has told: rows by key, kept up to date by packets, and whether one was missed.

ISS+ dossier §6 (keys), §7, §8. A table is right from its snapshot on until a gap; then it is stale, and only a new
subscription's snapshot makes it right again: nothing is ever replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum

import msgspec

from engine.venues.issplus.packets import Cell, Packet

Row = dict[str, Cell]

_KEYS = {"securities": ("TICKER",), "candles": ("FROM",), "news": ("ID",), "turnovers": ("ID",)}
_KEYS["lasttrades"] = ("TRADENO",)  # not documented: the natural guess

MOST_ROWS = 100_000  # of one table: nobody sends that many honestly


def key_columns(destination: str) -> tuple[str, ...]:
    """Those that tell rows apart; none where every packet is the whole (order books, and what we do not know)."""
    return _KEYS.get(destination.partition(".")[2], ())


class Sequence(StrEnum):
    """What packet numbers are believed to mean; nowhere documented."""

    MONOTONIC = "monotonic"  # they ascend: what is not above the last one is old
    STRICT = "strict"  # and by one: what is further above it shows a gap
    OFF = "off"


class Gap(Exception):
    """Something is missing before this packet; the text says how that shows."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """What a packet changed: whole rows after it, and the columns that it told of. `dropped`: why it was not taken."""

    rows: tuple[Row, ...] = ()
    columns: frozenset[str] = frozenset()
    dropped: str = ""


class Table:
    def __init__(self, destination: str, sequence: Sequence) -> None:
        self.keys = key_columns(destination)
        self.rows: dict[tuple[Cell, ...], Row] = {}
        self.stale = True  # no snapshot yet, or something was missed since
        self.dropped = 0  # packets that were old, or came before the snapshot
        self._sequence = sequence
        self._last: int | None = None
        self._width = 0  # columns of the snapshot
        self._apply: dict[str, Callable[[Packet], Change]] = {"updates": self._update, "removal": self._remove}

    def restart(self) -> None:
        """A new subscription begins: the rows stay, stale, until its snapshot."""
        self.stale, self._last = True, None

    def apply(self, packet: Packet) -> Change:
        """Raises Gap, and ValueError for what is no packet of this table; the table is then as it was."""
        if packet.kind == "snapshot":
            return self._replace(packet)
        apply = self._apply.get(packet.kind)
        if apply is None:
            raise ValueError(f"a packet of no known type: {packet.kind[:40]!r}")
        if self.stale:
            return self._drop("came before the snapshot")
        if not self.keys:
            raise Gap("an update of what only comes whole")
        if packet.seqnum is not None and self._last is not None and self._sequence is not Sequence.OFF:
            if packet.seqnum <= self._last:
                return self._drop(f"number {packet.seqnum} after {self._last}")
            if self._sequence is Sequence.STRICT and packet.seqnum != self._last + 1:
                raise Gap(f"number {packet.seqnum} after {self._last}")
        change = apply(packet)
        self._last = packet.seqnum if packet.seqnum is not None else self._last
        return change

    def answer(self, packet: Packet) -> None:
        """What a query was answered with: the whole, whatever it calls itself."""
        self._replace(packet)

    def _replace(self, packet: Packet) -> Change:
        rows = {self._key(row) if self.keys else (Decimal(n),): row for n, row in enumerate(packet.rows)}
        _bounded(len(rows))
        self.rows, self.stale, self._last, self._width = rows, False, packet.seqnum, len(packet.columns)
        return Change(tuple(rows.values()), frozenset(packet.columns))

    def _update(self, packet: Packet) -> Change:
        keyed = [(self._key(row), row) for row in packet.rows]
        unknown = [row for key, row in keyed if key not in self.rows]
        if unknown and len(packet.columns) * 2 < self._width:
            raise Gap("a row that was never told whole")
        _bounded(len(self.rows) + len(unknown))
        changed: dict[tuple[Cell, ...], Row] = {}
        for key, row in keyed:
            changed[key] = self.rows[key] = self.rows.get(key, {}) | row  # columns that are not here keep their value
        return Change(tuple(changed.values()), frozenset(packet.columns))

    def _remove(self, packet: Packet) -> Change:
        for row in packet.rows:
            if self.rows.pop(self._key(row), None) is None:
                self.dropped += 1
        return Change()

    def _drop(self, why: str) -> Change:
        self.dropped += 1
        return Change(dropped=why)

    def _key(self, row: Row) -> tuple[Cell, ...]:
        try:
            key = tuple(row[column] for column in self.keys)
        except KeyError as error:
            raise ValueError(f"a row without its key {error}") from None
        if None in key:
            raise ValueError("a row with an empty key")
        return key


def _bounded(rows: int) -> None:
    if rows > MOST_ROWS:
        raise ValueError(f"more than {MOST_ROWS} rows")
