"""Decides. The price to value and to check with: the latest that is known of an instrument, its source and its age.

An instrument is priced by its own venue, and where it trades on an exchange that others quote as well (`market`), by
every feed of that exchange too. A venue's own price goes first while it is fresh, then whichever is the youngest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

import msgspec

from engine.core.facts import Fact, MarkFact

BASES = ("mark", "last", "close")
"""What a price may rest on, the best first. A bid or an ask alone is no price to value with."""

_ON_THE_WAY_MS = 5_000  # a price that old by the venue's clock is young: the clocks differ, and frames take their time


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """One price. `as_of_ms` is what its age counts from: our receipt, or the venue's own time where that is older."""

    instrument: str
    price: Decimal
    basis: str
    at_ms: int  # the venue's time
    received_at_ms: int
    source: str  # the venue or feed that told it
    market: str = ""

    @property
    def as_of_ms(self) -> int:
        late = self.received_at_ms - self.at_ms > _ON_THE_WAY_MS
        return self.at_ms if late else self.received_at_ms


class Marks:
    """The latest prices of everything, by source."""

    def __init__(self) -> None:
        self._by_source: dict[tuple[str, str, str], dict[str, Mark]] = {}  # (source, environment, name) -> by basis
        self._by_market: dict[tuple[str, str, str], set[str]] = {}  # (market, environment, name) -> sources

    def take(self, source: str, environment: str, facts: Iterable[Fact], received_at_ms: int) -> None:
        """An older venue time never replaces a newer one."""
        for fact in facts:
            if type(fact) is not MarkFact:
                continue
            by_basis = self._by_source.setdefault((source, environment, fact.instrument), {})
            known = by_basis.get(fact.basis)
            if known is not None and fact.at_ms < known.at_ms:
                continue
            by_basis[fact.basis] = Mark(
                instrument=fact.instrument,
                price=fact.price,
                basis=fact.basis,
                at_ms=fact.at_ms,
                received_at_ms=received_at_ms,
                source=source,
                market=fact.market,
            )
            if known is None and fact.market:
                self._by_market.setdefault((fact.market, environment, fact.instrument), set()).add(source)

    def latest(
        self, venue: str, environment: str, instrument: str, *, market: str = "", fresh_since_ms: int = 0
    ) -> Mark | None:
        """`market` is the instrument's own; a price of its venue that is not older than `fresh_since_ms` goes first."""
        own = self._best(venue, environment, instrument)
        if own is not None and own.as_of_ms >= fresh_since_ms > 0:
            return own
        others = self._by_market.get((market, environment, instrument), ()) if market else ()
        found = [own] if own is not None else []
        found += [m for source in sorted(others) if (m := self._best(source, environment, instrument)) is not None]
        return max(found, key=lambda m: m.as_of_ms, default=None)

    def everything(self) -> Iterator[tuple[str, Mark]]:
        """Environment and best price of every source and instrument, in a fixed order."""
        for source, environment, instrument in sorted(self._by_source):
            best = self._best(source, environment, instrument)
            if best is not None:
                yield environment, best

    def _best(self, source: str, environment: str, instrument: str) -> Mark | None:
        by_basis = self._by_source.get((source, environment, instrument))
        if by_basis is None:
            return None
        return next((by_basis[basis] for basis in BASES if basis in by_basis), None)
