"""Decides. What the fills of one position add up to: quantity at once, average price and gain when asked for."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from decimal import Context, Decimal
from typing import NamedTuple

from engine.core.instruments import Instrument

_ONE, _ZERO = Decimal(1), Decimal(0)
_SMALLEST = Decimal("1e-15")  # of a computed gain: less than anybody pays out, and sums stay exact
_WIDE = Context(prec=60)  # rounding a large gain is no error

Step = tuple[int, int, str, Decimal, Decimal | None, Decimal | None, bool]
"""One change of a lot: traded_at_ms, trade number or 0, fill id, signed quantity, price (None: not known), realised as
the venue states it, and whether what it realised moves cash. The first three are the order in which they happened."""


class Walked(NamedTuple):
    """A step and what it made of the lot. `gain` is None where it closed something of unknown cost."""

    step: Step
    gain: Decimal | None
    quantity: Decimal  # after it
    avg: Decimal | None


class Lot:
    """A position: a base, and the fills after it in the order they happened. The average is found when asked for.

    The method is average cost: a buy moves the average, a sale realises against it. Where a part was had at a cost that
    nobody told, the average is not known until the lot is flat, and `unpriced` counts what was closed meanwhile.
    """

    __slots__ = (
        "_avg",
        "_computed",
        "_done",
        "_quantity",
        "_realised",
        "_unpriced",
        "base_avg",
        "base_computed",
        "base_quantity",
        "base_realised",
        "base_unpriced",
        "changed_at_ms",
        "inverse",
        "multiplier",
        "quantity",
        "steps",
    )

    def __init__(
        self, instrument: Instrument | None, quantity: Decimal, avg: Decimal | None, changed_at_ms: int
    ) -> None:
        self.know(instrument)
        self.base_quantity, self.base_avg = quantity, avg
        self.base_realised = self.base_computed = self.base_unpriced = _ZERO
        self.quantity, self.changed_at_ms = quantity, changed_at_ms
        self.steps: list[Step] = []
        self._restart()

    def know(self, instrument: Instrument | None) -> None:
        """An instrument nobody knows yet realises nothing; its quantity is right all the same."""
        self.multiplier = _ZERO if instrument is None else instrument.multiplier
        self.inverse = instrument is not None and instrument.inverse

    @classmethod
    def of_pieces(cls, quantity: Decimal, avg: Decimal | None, changed_at_ms: int) -> Lot:
        """Something owned outright, counted in pieces."""
        lot = cls(None, quantity, avg, changed_at_ms)
        lot.multiplier = _ONE
        return lot

    def add(self, step: Step) -> None:
        steps = self.steps
        if not steps or step > steps[-1]:
            steps.append(step)
        else:
            if bisect_left(steps, step) < self._done:
                self._restart()
            insort(steps, step)
        self.quantity += step[3]
        if step[0] > self.changed_at_ms:
            self.changed_at_ms = step[0]

    def remove(self, fill_id: str) -> None:
        for position in range(len(self.steps) - 1, -1, -1):
            if self.steps[position][2] == fill_id:
                self.quantity -= self.steps.pop(position)[3]
                self._restart()
                return

    def add_to_base(self, step: Step) -> None:
        """A fill from before all that are remembered; the average takes it as the latest of those."""
        steps, self.steps = self.steps, [step]
        self._restart()
        self.prune(step[0] + 1)
        self.steps = steps
        self.quantity += step[3]

    def resume(self, realised: Decimal, computed: Decimal, unpriced: Decimal, steps: list[Step]) -> None:
        """Take up from a snapshot."""
        self.base_realised, self.base_computed, self.base_unpriced = realised, computed, unpriced
        self.steps = steps
        self.quantity = self.base_quantity + sum((step[3] for step in steps), _ZERO)
        self._restart()

    def prune(self, horizon_ms: int) -> None:
        """Melt the fills before the horizon into the base."""
        cut = bisect_left(self.steps, (horizon_ms,))
        if not cut:
            return
        kept, self.steps = self.steps[cut:], self.steps[:cut]
        self._restart()
        self._settle()
        self.base_quantity, self.base_avg = self._quantity, self._avg
        self.base_realised, self.base_computed = self._realised, self._computed
        self.base_unpriced = self._unpriced
        self.steps = kept
        self._restart()

    @property
    def avg(self) -> Decimal | None:
        self._settle()
        return self._avg

    @property
    def realised(self) -> Decimal:
        self._settle()
        return self._realised

    @property
    def computed(self) -> Decimal:
        """The part of `realised` that moves cash and that the venue did not state."""
        self._settle()
        return self._computed

    @property
    def unpriced(self) -> Decimal:
        """How much was closed at a gain that nobody can tell: its cost is not known. `realised` leaves it out."""
        self._settle()
        return self._unpriced

    def walked(self) -> Iterator[Walked]:
        """Each step after the base, with what it made of the lot."""
        self._restart()
        for step in self.steps:
            gain = self._take(step)
            self._done += 1
            yield Walked(step, gain, self._quantity, self._avg)

    def _restart(self) -> None:
        self._done = 0
        self._quantity, self._avg = self.base_quantity, self.base_avg
        self._realised, self._computed = self.base_realised, self.base_computed
        self._unpriced = self.base_unpriced

    def _settle(self) -> None:
        for step in self.steps[self._done :]:
            self._take(step)
        self._done = len(self.steps)

    def _take(self, step: Step) -> Decimal | None:
        """One step further; returns what it realised, None where that is not known."""
        _, _, _, signed, price, stated, moves_cash = step
        held = self._quantity
        gain = self._walk(signed, price)
        if stated is not None:
            gain = stated
        elif gain is None:
            self._unpriced += min(abs(signed), abs(held))
            return None
        elif moves_cash:
            self._computed += gain
        self._realised += gain
        return gain

    def _walk(self, signed: Decimal, price: Decimal | None) -> Decimal | None:
        """One fill on the running average; returns the gain of what it closed, None where its cost is not known."""
        held, avg = self._quantity, self._avg
        after = self._quantity = held + signed
        if not held:
            self._avg = price if after else None
            return _ZERO
        if (held > 0) is (signed > 0):
            if avg is None or price is None:
                self._avg = None
            elif self.inverse:
                self._avg = after / (held / avg + signed / price)
            else:
                self._avg = (held * avg + signed * price) / after
            return _ZERO
        if not after:
            self._avg = None
        elif (after > 0) is not (held > 0):
            self._avg = price
        if avg is None or price is None:
            return None
        closed = -signed if abs(signed) <= abs(held) else held  # signed like what was held
        gain = closed * self.multiplier * (1 / avg - 1 / price if self.inverse else price - avg)
        return gain.quantize(_SMALLEST, context=_WIDE)
