"""Does. Trades and trades: orders that rest in front of the market, and a crowd that takes them bit by bit."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import TYPE_CHECKING

from engine.core.facts import Side
from engine.core.instruments import Instrument
from engine.core.orders import OrderType
from engine.sim.market import CROWD

if TYPE_CHECKING:
    from tests.simulation.run import Simulation

_STEP_S = 0.25
_BITS = 40  # an order is taken in about so many fills
_LOOK_EVERY = 40


class Feeder:
    """Gives the accounts fills, evenly in time, until the venue has booked so many. The accounts' owners place the
    orders themselves: what is tried is what is heard, not what is sent."""

    def __init__(self, simulation: Simulation, rng: random.Random, fills: int, per_s: float) -> None:
        """`per_s` fills a second in each account."""
        self.sim, self.rng, self.fills, self.per_s = simulation, rng, fills, per_s
        self._taken = 0
        self._sides: dict[str, Side] = {}
        self._bait: dict[str, tuple[str, Side, Decimal, Decimal]] = {}  # account -> symbol, side, price, bit

    async def run(self) -> None:
        steps, due = 0, 0.0
        while True:
            await self.sim.clock.sleep(_STEP_S)
            due += self.per_s * _STEP_S
            while due >= 1:
                due -= 1
                for name in self.sim.names:
                    self._fill(name)
            self.sim.front.settle(self.sim.clock.true_ms())
            self.sim.network.flush()
            steps += 1
            if steps % _LOOK_EVERY == 0 and self._booked() >= self.fills:
                return

    def _booked(self) -> int:
        return sum(len(self.sim.front.account(name).fills) for name in self.sim.names)

    def _fill(self, name: str) -> None:
        if name not in self._bait or self.rng.random() < 1 / _BITS or not self._is_best(name):
            self._place(name)
        if name in self._bait:
            symbol, side, price, bit = self._bait[name]
            self._taken += 1
            taker = Side.SELL if side is Side.BUY else Side.BUY
            book = self.sim.front.exchange.books[symbol]
            book.submit(f"~bit{self._taken}", CROWD, taker, OrderType.IOC, bit, price)

    def _is_best(self, name: str) -> bool:
        """Taken up, refused, or overtaken by the market: another one is needed."""
        symbol, side, price, _ = self._bait[name]
        best = self.sim.front.exchange.books[symbol].at_best(side)
        return best is not None and best[0] == price

    def _place(self, name: str) -> None:
        """Best in the book, so that it is met first; the sides take turns, so that no position grows without end."""
        sim, rng = self.sim, self.rng
        known = sim.instruments()
        if not known:
            return
        now_ms = sim.clock.true_ms()
        sim.front.command("cancel_all", [name], {}, now_ms)
        instrument: Instrument = rng.choice(known)
        side = self._sides[instrument.name] = Side.SELL if self._sides.get(instrument.name) is Side.BUY else Side.BUY
        price = sim.mark(instrument) // instrument.price_tick * instrument.price_tick
        bit = sim.quantity(instrument, Decimal("0.00001"))
        told = sim.front.place_elsewhere(
            name,
            {
                "instrument": instrument.name,
                "side": side.value,
                "type": "limit",
                "quantity": str(bit * _BITS),
                "price": str(price),
            },
            now_ms,
        )
        sim.trace.note("Feeder", f"{name} {dict(told)}")
        self._bait[name] = (sim.front.symbol(instrument.name), side, price, bit)
