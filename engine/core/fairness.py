"""Decides. Was a plan fair? Its orders' stamps and prices, measured: skew, dispersion, slippage.

Four stamps of each order are compared: planned, sent, acknowledged, filled. Nobody can have the same price as all
others when each order is one of its own; what can be shown is that nobody was first or dearest by rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

import msgspec

from engine.core.facts import Side
from engine.core.plans import Child, Plan

_ZERO, _HUNDRED = Decimal(0), Decimal(100)


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One account's order. Times are in milliseconds after the leg's first order was sent."""

    account_id: str
    place: int  # in the order of sending, from 1
    sent_after_ms: int | None
    acknowledged_after_ms: int | None
    filled_after_ms: int | None
    filled: Decimal
    avg_price: Decimal | None
    dearer_percent: Decimal | None  # than the leg's average, for the worse; negative: for the better


class LegFairness(msgspec.Struct, frozen=True, kw_only=True):
    """One leg and side of a plan over all accounts. Prices in the quote currency, parts in per cent of the average."""

    leg: int
    instrument: str
    side: Side
    orders: int
    filled: int  # of them got something
    priced: int  # and of so many it is known at which price: the figures below are of these
    sent_skew_ms: int | None  # from the first order sent to the last
    acknowledged_skew_ms: int | None
    filled_skew_ms: int | None
    reference: Decimal | None  # the market's price in the preview
    average: Decimal | None  # over all fills, by quantity
    dispersion_percent: Decimal | None  # the standard deviation of the accounts' prices, by quantity
    range_percent: Decimal | None  # from the best price to the worst
    slippage_percent: Decimal | None  # of the average against the reference, for the worse
    slippage_money: Decimal | None
    shares: tuple[Share, ...]

    @property
    def only_of(self) -> str:
        """Of how many orders the prices are, where not of all that got something; "" where they are."""
        return "" if self.priced == self.filled else f"of {self.priced} of {self.filled} orders"


def fairness(plan: Plan, children: Iterable[Child]) -> tuple[LegFairness, ...]:
    """Each leg and side whose orders went out. Further attempts of a child count as orders of their own."""
    sent: dict[tuple[int, Side, str], list[Child]] = {}
    for child in children:
        if child.sent_at_ms is not None:
            sent.setdefault((child.leg, child.side, child.instrument), []).append(child)
    return tuple(_leg(plan, *key, some) for key, some in sorted(sent.items()))


def _leg(plan: Plan, number: int, side: Side, instrument: str, children: Sequence[Child]) -> LegFairness:
    turn = sorted(children, key=lambda c: (c.sent_at_ms or 0, c.account_id, c.attempt))
    first_ms = turn[0].sent_at_ms or 0
    priced = [(c.avg_price, c.filled) for c in turn if c.avg_price is not None and c.filled > 0]
    filled = sum((quantity for _, quantity in priced), _ZERO)
    average = sum((price * quantity for price, quantity in priced), _ZERO) / filled if filled else None
    reference, value = _reference(plan, number)
    dispersion = spread = slippage = money = None
    if average:
        variance = sum((quantity * (price - average) ** 2 for price, quantity in priced), _ZERO) / filled
        prices = [price for price, _ in priced]
        dispersion = variance.sqrt() / average * _HUNDRED
        spread = (max(prices) - min(prices)) / average * _HUNDRED
        if reference:
            slippage = side.sign * (average - reference) / reference * _HUNDRED
            money = value * filled * slippage / _HUNDRED
    return LegFairness(
        leg=number,
        instrument=instrument,
        side=side,
        orders=len(turn),
        filled=sum(c.filled > 0 for c in turn),
        priced=len(priced),
        sent_skew_ms=_skew(c.sent_at_ms for c in turn),
        acknowledged_skew_ms=_skew(c.acknowledged_at_ms for c in turn),
        filled_skew_ms=_skew(c.filled_at_ms for c in turn),
        reference=reference,
        average=average,
        dispersion_percent=dispersion,
        range_percent=spread,
        slippage_percent=slippage,
        slippage_money=money,
        shares=tuple(_share(c, place, first_ms, side, average) for place, c in enumerate(turn, start=1)),
    )


def _share(child: Child, place: int, first_ms: int, side: Side, average: Decimal | None) -> Share:
    def after(at_ms: int | None) -> int | None:
        return None if at_ms is None else at_ms - first_ms

    dearer = None
    if average and child.avg_price is not None and child.filled > 0:
        dearer = side.sign * (child.avg_price - average) / average * _HUNDRED
    return Share(
        account_id=child.account_id,
        place=place,
        sent_after_ms=after(child.sent_at_ms),
        acknowledged_after_ms=after(child.acknowledged_at_ms),
        filled_after_ms=after(child.filled_at_ms),
        filled=child.filled,
        avg_price=child.avg_price,
        dearer_percent=dearer,
    )


def _skew(stamps: Iterable[int | None]) -> int | None:
    known = [at_ms for at_ms in stamps if at_ms is not None]
    return max(known) - min(known) if known else None


def _reference(plan: Plan, number: int) -> tuple[Decimal | None, Decimal]:
    """The market's price when the plan was previewed, and what one unit of quantity was worth at it.

    None where the accounts' venues said different prices: there was no one price to compare with.
    """
    if plan.preview is None:
        return None, _ZERO
    rows = [row for row in plan.preview.rows if row.leg == number and row.takes_part and row.price]
    said = {price for key, price in plan.preview.prices.items() if rows and key.endswith(f"|{rows[0].instrument}")}
    if len(said) != 1 or not rows:
        return None, _ZERO
    [reference] = said
    row = rows[0]
    return reference, row.notional / row.quantity / row.price * reference
