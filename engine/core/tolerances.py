"""Decides. How far two values may lie apart, and how long a change may be under way, before it counts as a break.

The table has a version; a run names the version it was made with and reports every use of a tolerance. Changing a
value means a new version, so that old runs can be read as they were judged.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

FIAT = frozenset(
    {"USD", "EUR", "GBP", "CHF", "JPY", "CNY", "HKD", "SGD", "AUD", "AED", "TRY", "BRL", "RUB", "RUR", "KZT"}
)


class Tolerance(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `*` matches everything; the more exact row wins (venue before field's asset)."""

    venue: str = "*"
    field: str  # quantity, cash, fee, price, avg_price
    asset: str = "*"  # fiat, coin, or a currency
    allowed: Decimal
    relative: bool = False  # a fraction of the larger value; else in units


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a comparison is judged by."""

    version: str
    tolerances: tuple[Tolerance, ...]
    in_flight_guard_ms: int = 5_000  # changed so shortly before the statement: the two sides may not have met yet
    settle_ms: int = 60_000  # under way for so long: a break after all
    unknown_order_ms: int = 15_000  # an order without an outcome for so long is critical
    stale_ms: int = 60_000  # a statement older than this says nothing about now

    def tolerance(self, venue: str, field: str, currency: str = "") -> Tolerance:
        """The most exact row for a field; `currency` is what the value is counted in, where it is money."""
        asset = "" if not currency else ("fiat" if currency in FIAT else "coin")
        best, exactness = NOTHING, -1
        for row in self.tolerances:
            if row.field != field or row.venue not in ("*", venue) or row.asset not in ("*", asset, currency):
                continue
            score = 4 * (row.venue != "*") + (2 if row.asset == currency and currency else row.asset != "*")
            if score > exactness:
                best, exactness = row, score
        return best


NOTHING = Tolerance(field="*", allowed=Decimal(0))
"""What holds where the table has no row: values are equal or they are not."""

RULES = Rules(
    version="1",
    tolerances=(
        Tolerance(field="quantity", allowed=Decimal(0)),
        Tolerance(field="price", allowed=Decimal(0)),
        Tolerance(field="avg_price", allowed=Decimal("0.0001"), relative=True),
        Tolerance(field="cash", asset="fiat", allowed=Decimal("0.01")),
        Tolerance(field="cash", asset="coin", allowed=Decimal("0.00000001")),
        Tolerance(field="fee", asset="fiat", allowed=Decimal("0.01")),
        Tolerance(field="fee", asset="coin", allowed=Decimal("0.00000001")),
    ),
)


def within(tolerance: Tolerance, venue: Decimal, ledger: Decimal) -> bool:
    """Whether two values lie no further apart than the tolerance allows."""
    apart = abs(venue - ledger)
    return apart <= (tolerance.allowed * max(abs(venue), abs(ledger)) if tolerance.relative else tolerance.allowed)
