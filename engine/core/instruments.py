"""Holds. What can be traded, in our spelling, with its units said out loud.

Our spelling is the field's unified one: `BTC/USDT` (spot), `BTC/USDT:USDT` (perpetual settled in USDT),
`BTC/USD:BTC` (inverse), `BTC/USDT:USDT-261225` (dated). Securities are spelt as spot, the paper against its money:
`SBER/RUB`. A venue's spelling is a symbol and stays in its dialect.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec


class InstrumentKind(StrEnum):
    SPOT = "spot"
    SWAP = "swap"
    FUTURE = "future"
    OPTION = "option"


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument at one venue and environment.

    Quantities of orders, fills and positions are in the venue's own unit (`unit`: contracts, lots or the base
    currency); `multiplier` turns one such unit into base units (linear) or quote units (inverse).
    """

    name: str
    venue: str
    kind: InstrumentKind
    base: str
    quote: str
    settle: str  # currency in which gains and fees of derivatives are paid; for spot the quote
    unit: str  # "contract", "lot" or the base currency's name
    multiplier: Decimal  # base units in one quantity unit; for inverse: quote units
    inverse: bool = False
    settled_daily: bool = False  # a derivative whose gain becomes cash each day (variation margin)
    quantity_step: Decimal
    min_quantity: Decimal
    max_limit_quantity: Decimal | None = None
    max_market_quantity: Decimal | None = None
    price_tick: Decimal
    market: str = ""  # the exchange it trades on, where that is not the venue itself: prices of others count here, too
    tradable: bool = True
    refuses: tuple[str, ...] = ()  # order types that its venue has and takes not here
    status: str = "live"  # the venue's own word
    venue_ref: str = ""  # written and read by the dialect only (OKX: instType|instId|instIdCode)

    def base_quantity(self, quantity: Decimal, price: Decimal) -> Decimal:
        """`quantity` venue units in units of the base currency."""
        units = quantity * self.multiplier
        return units / price if self.inverse else units

    def notional(self, quantity: Decimal, price: Decimal) -> Decimal:
        """Value of `quantity` venue units at `price`, in the quote currency."""
        units = quantity * self.multiplier
        return units if self.inverse else units * price


def unlisted(name: str, venue: str, venue_ref: str) -> Instrument:
    """One that the venue's list does not have, good for nothing but to cancel an order in it."""
    return Instrument(
        name=name,
        venue=venue,
        kind=InstrumentKind.SPOT,
        base=name,
        quote="",
        settle="",
        unit="",
        multiplier=Decimal(0),
        quantity_step=Decimal(0),
        min_quantity=Decimal(0),
        price_tick=Decimal(0),
        tradable=False,
        status="not listed",
        venue_ref=venue_ref,
    )
