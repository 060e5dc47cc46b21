"""Decides. Unified names of what trades on MOEX: every broker and feed that passes them on spells them alike.

Securities are `SBER/RUB`; currency pairs settled tomorrow `CNY/RUB`, today `CNY/RUB_TOD`; futures carry the month in
which they end, `SR/RUB:RUB-2606` for the ticker SRM6. Anything else is no name at all: it is left out, not guessed.
"""

from __future__ import annotations

import re

MOEX = "MOEX"

_ROUBLES = frozenset({"RUB", "SUR", "RUR"})
_PAIR = re.compile(r"([A-Z]{3})(?:_?RUB_*|000UTS|000000)(TOM|TOD)")
_FUTURE = re.compile(r"([A-Za-z0-9]{2})([FGHJKMNQUVXZ])([0-9])")
_MONTHS = "FGHJKMNQUVXZ"


def currency(code: str) -> str:
    """The exchange writes the rouble in three ways."""
    upper = code.upper()
    return "RUB" if upper in _ROUBLES else upper


def security(ticker: str, quote: str = "RUB") -> str:
    """A share, fund or bond."""
    return f"{ticker}/{currency(quote)}"


def pair(ticker: str) -> str | None:
    """A currency pair by its ticker (CNYRUB_TOM, USD000UTSTOM, EUR_RUB__TOM); None when it is none."""
    match = _PAIR.fullmatch(ticker)
    if match is None:
        return None
    return f"{match[1]}/RUB" if match[2] == "TOM" else f"{match[1]}/RUB_TOD"


def future(ticker: str, near_year: int) -> str | None:
    """A future by its short ticker, SRM6. `near_year` is the current year: it ended last year at the earliest.

    None when the ticker is none of a future.
    """
    match = _FUTURE.fullmatch(ticker)
    if match is None:
        return None
    # The ticker has the last digit of the year: the year that ends on it, from the one before `near_year` on.
    year = near_year - 1 + (int(match[3]) - (near_year - 1)) % 10
    return f"{match[1].upper()}/RUB:RUB-{year % 100:02d}{_MONTHS.index(match[2]) + 1:02d}"
