"""Decides. What the IME front tells of a contract: book, day, band and open interest, as one whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from engine.core.facts import Side
from engine.core.matching import Exchange, Trade
from engine.venues.ime.front_rules import Contract, Rules

_ZERO = Decimal(0)


class State:
    """One contract's day."""

    def __init__(self, contract: Contract, exchange: Exchange, rules: Rules, now_ms: int) -> None:
        self.contract, self.book, self._rules = contract, exchange.books[contract.contract_id], rules
        self.version = 0  # grows with everything that happens
        self.deals = self.volume = 0
        self.value = _ZERO
        self.last = self.low = self.high = self.opened = _ZERO
        self.dealt_ms = now_ms
        self.open_interest = 1000

    def deal(self, trade: Trade, now_ms: int) -> None:
        first = self.deals == 0
        self.deals, self.volume = self.deals + 1, self.volume + int(trade.quantity)
        self.value += trade.price * trade.quantity * self.contract.size
        self.last, self.dealt_ms = trade.price, now_ms
        self.opened = trade.price if first else self.opened
        self.low = trade.price if first else min(self.low, trade.price)
        self.high = max(self.high, trade.price)
        self.open_interest += 1 if self.deals % 2 else -1

    def sections(self) -> dict[str, Any]:
        band = self.contract.start / 4
        lowest, highest = (self.contract.start - band, self.contract.start + band)
        return {
            "BestLimit": self.levels(),
            "Aggregate": self.aggregate(),
            "AllowedPriceRange": {
                "minAllowedPrice": lowest if self.contract.banded else 1.0,
                "maxAllowedPrice": highest if self.contract.banded else 9999999999.0,
            },
            "ContractInfo": {
                "open_interest": self.open_interest,
                "open_interest_changes": self.open_interest - 1000,
            },
        }

    def levels(self) -> dict[str, Any]:
        """Three levels; what is missing is told as zeros."""
        bids, asks = self._side(Side.BUY), self._side(Side.SELL)
        levels = {}
        for n in range(3):
            bid, ask = (side[n] if n < len(side) else (0, 0) for side in (bids, asks))
            levels[str(n + 1)] = {
                "buy_quantity": bid[1],
                "buy_price": bid[0],
                "sell_quantity": ask[1],
                "sell_price": ask[0],
            }
        return levels

    def _side(self, side: Side) -> list[tuple[int, int]]:
        totals: dict[int, int] = {}
        for resting in self.book.resting(side):
            price = int(resting.price)
            if len(totals) == 3 and price not in totals:
                break
            totals[price] = totals.get(price, 0) + int(resting.remaining)
        return list(totals.items())

    def aggregate(self) -> dict[str, Any]:
        told = iso(self.dealt_ms, self._rules) if self.deals or not self._rules.empty_aggregate else ""
        average = self.value / self.volume / self.contract.size if self.volume else _ZERO
        return {
            "date": told[:10],
            "time": told[11:19],
            "trade_count": self.deals,
            "total_volume": self.volume,
            "total_value": int(self.value),
            "closing_price": average.quantize(Decimal("0.1")) if self.volume else 0,
            "last_price": self.last,
            "low_price": self.low,
            "high_price": self.high,
            "open_price": self.opened,
            "previous_close": self.contract.start,
        }


def iso(at_ms: int, rules: Rules) -> str:
    """Without its zone, as the service writes it."""
    shift = timedelta(hours=3, minutes=30) if rules.zone == "tehran" else timedelta(0)
    return f"{datetime.fromtimestamp(at_ms / 1000, tz=UTC) + shift:%Y-%m-%dT%H:%M:%S.%f}"
