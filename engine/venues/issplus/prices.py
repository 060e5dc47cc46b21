"""Decides. What the rows of a table say of prices, and of which time. ISS+ dossier §6, §7.

A row tells the time of day of its last change, a packet when it was made. Guests may be shown everything late, and
nothing says so: where a packet does not bring the row's own time, a guest's prices are taken for as old as the delay.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from engine.core.facts import MarkFact
from engine.core.spelling import MOEX
from engine.venues.issplus.packets import Packet, midnight_ms, moscow, price, time_of_day_ms
from engine.venues.issplus.symbols import name_of
from engine.venues.issplus.tables import Change, Row

_BASES = {"LAST": "last", "BID": "bid", "OFFER": "ask"}


class Prices:
    """Those of one subscription. `name`: our name of what it is about, "" where each row tells its own."""

    def __init__(self, destination: str, name: str, delay_ms: int) -> None:
        self._kind, self._name, self._delay_ms = destination.partition(".")[2], name, delay_ms
        self._at_ms: dict[str, int] = {}

    def facts(self, change: Change, packet: Packet, now_ms: int) -> Iterator[MarkFact]:
        made_ms = packet.at_ms if packet.at_ms is not None else now_ms
        if self._kind == "securities":
            for row in change.rows:
                yield from self._quotes(row, change.columns, made_ms)
        elif self._kind == "orderbooks" and self._name:
            yield from self._best(change.rows, made_ms - self._delay_ms)

    def _quotes(self, row: Row, told: frozenset[str], made_ms: int) -> Iterator[MarkFact]:
        ticker = str(row["TICKER"])
        name = self._name or name_of(ticker, moscow(made_ms).year)
        if name is None:
            return
        own_ms = time_of_day_ms(row.get("TIME"), made_ms) if "TIME" in told else None
        # What comes later is no older, whatever its packet fails to say.
        at_ms = own_ms if own_ms is not None else max(made_ms - self._delay_ms, self._at_ms.get(ticker, 0))
        self._at_ms[ticker] = at_ms
        for column, basis in _BASES.items():
            if column in told and (quote := price(row.get(column))) is not None:
                yield _mark(name, quote, basis, at_ms)
        current = price(row.get("LCURRENTPRICE")) if {"LAST", "LCURRENTPRICE"} & told else None
        if current is not None and price(row.get("LAST")) is None:
            yield _mark(name, current, "last", at_ms)
        if "PREVPRICE" in told and (before := price(row.get("PREVPRICE"))) is not None:
            yield _mark(name, before, "close", midnight_ms(made_ms))  # made before this day began

    def _best(self, rows: tuple[Row, ...], at_ms: int) -> Iterator[MarkFact]:
        sides: dict[str, list[Decimal]] = {"B": [], "S": []}
        for row in rows:
            if (quote := price(row.get("PRICE"))) is not None:
                sides.setdefault(str(row.get("BUYSELL")), []).append(quote)
        if sides["B"]:
            yield _mark(self._name, max(sides["B"]), "bid", at_ms)
        if sides["S"]:
            yield _mark(self._name, min(sides["S"]), "ask", at_ms)


def _mark(name: str, quote: Decimal, basis: str, at_ms: int) -> MarkFact:
    return MarkFact(instrument=name, price=quote, basis=basis, at_ms=max(0, at_ms), market=MOEX)
