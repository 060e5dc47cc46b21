"""Decides. Compares a venue's statement with our ledger for one account: every difference, none netted, none hidden.

Compared is the union of both sides, each part for itself. A part that one side could not tell is not compared at
all: it stays unknown. What changed within the in-flight guard is listed as timing: the two sides may not have met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Protocol, TypeVar

import msgspec

from engine.core.breaks import (
    Break,
    Cause,
    Code,
    Comparison,
    Count,
    ForeignOrder,
    Missing,
    Severity,
    ToleranceUse,
    break_id,
    in_order,
)
from engine.core.facts import FillFact, PositionFact
from engine.core.instruments import Instrument
from engine.core.limits import plain
from engine.core.orders import OrderState
from engine.core.statements import LedgerSide, OpenGap, OrderLine, Part, Statement
from engine.core.tolerances import Rules, within
from engine.core.venue import Catalogue


def compare(
    stated: Statement,
    booked: LedgerSide,
    *,
    rules: Rules,
    venue: str,
    catalogue: Catalogue,
    owns_order_id: Callable[[str], bool],
    now_ms: int,
) -> Comparison:
    """Every difference between the two sides of one account, in a fixed order."""
    assert stated.account_id == booked.account_id, "two sides of one account"
    missing = _missing(stated, booked)
    unknown = {m.part for m in missing}
    found = _Found(stated, booked, rules, venue, catalogue, owns_order_id, now_ms)
    # Fills and orders first: what they show explains the positions.
    if Part.FILLS not in unknown:
        _compare_fills(found)
    if Part.ORDERS not in unknown:
        _compare_orders(found)
    if Part.POSITIONS not in unknown:
        _compare_positions(found)
    if Part.CASH not in unknown:
        _compare_cash(found)
    _compare_freshness(found)
    found.map_instruments()
    return Comparison(
        breaks=in_order(found.breaks),
        uses=tuple(sorted(found.uses, key=lambda u: (u.field, u.instrument, u.key))),
        foreign=tuple(sorted(found.foreign, key=lambda f: (f.order.instrument, f.order.venue_order_id))),
        counts=tuple(found.counts),
        missing=missing,
    )


def _missing(stated: Statement, booked: LedgerSide) -> tuple[Missing, ...]:
    return tuple(
        Missing(leg=leg, part=part, reason=side.missing[part])
        for part in Part
        for leg, side in (("V", stated), ("L", booked))
        if part in side.missing
    )


_Line = TypeVar("_Line")


class _Found:
    """Collects what a comparison finds."""

    def __init__(
        self,
        stated: Statement,
        booked: LedgerSide,
        rules: Rules,
        venue: str,
        catalogue: Catalogue,
        owns_order_id: Callable[[str], bool],
        now_ms: int,
    ) -> None:
        self.stated, self.booked, self.rules, self.venue, self.now_ms = stated, booked, rules, venue, now_ms
        self.owns_order_id = owns_order_id
        self.moving_since_ms = stated.as_of_ms - rules.in_flight_guard_ms
        self.breaks: list[Break] = []
        self.uses: list[ToleranceUse] = []
        self.foreign: list[ForeignOrder] = []
        self.counts: list[Count] = []
        self.fill_causes: dict[str, Cause] = {}  # instrument -> why its fills differ
        self._catalogue = catalogue
        self._instruments: dict[str, Instrument | None] = {}

    def instrument(self, name: str) -> Instrument | None:
        if name not in self._instruments:
            self._instruments[name] = self._catalogue.by_name(name)
        return self._instruments[name]

    def map_instruments(self) -> None:
        for name in sorted(name for name, known in self._instruments.items() if known is None):
            self.add(Code.MAP, instrument=name, field="instrument", venue=name, ledger=None, cause=Cause.MAPPING)

    def add(
        self,
        code: Code,
        *,
        field: str,
        venue: object | None,
        ledger: object | None,
        instrument: str = "",
        key: str = "",
        cause: Cause = Cause.UNKNOWN,
        severity: Severity | None = None,
        difference: Decimal | None = None,
        unit: str = "",
        price: Decimal | None = None,
        external: bool = False,
        changed_at_ms: int | None = None,
        plan_id: str = "",
        child_id: str = "",
        order_id: str = "",
        fill_id: str = "",
        gap_id: str = "",
    ) -> None:
        """A difference. `changed_at_ms`: when either side last changed; so shortly ago, it may only be under way."""
        if changed_at_ms is not None and changed_at_ms >= self.moving_since_ms and cause is not Cause.ROUNDING:
            cause = Cause.TIMING
        value, currency = self._value(code, instrument, difference, price)
        self.breaks.append(
            Break(
                break_id=break_id(self.stated.account_id, code, instrument, field, key),
                account_id=self.stated.account_id,
                code=code,
                severity=severity or code.severity,
                cause=cause,
                instrument=instrument,
                key=key,
                field=field,
                venue=_told(venue),
                ledger=_told(ledger),
                difference=difference,
                unit=unit,
                value=value,
                value_currency=currency,
                external=external,
                changed_at_ms=changed_at_ms,
                plan_id=plan_id,
                child_id=child_id,
                order_id=order_id,
                fill_id=fill_id,
                gap_id=gap_id,
                first_seen_ms=self.now_ms,
                last_seen_ms=self.now_ms,
            )
        )

    def add_order(
        self,
        code: Code,
        stated: OrderLine | None,
        booked: OrderLine | None,
        field: str,
        venue: object | None,
        ledger: object | None,
        *,
        difference: Decimal | None = None,
        severity: Severity | None = None,
    ) -> None:
        one = stated or booked
        assert one is not None, "a break of an order has an order"
        instrument = self.instrument(one.instrument)
        external = not self.owns_order_id(one.client_order_id)
        if difference is None and (stated is None or booked is None):  # a whole order lacks: what is left of it counts
            difference = (one.quantity - one.filled) * (1 if stated else -1)
        self.add(
            code,
            field=field,
            venue=venue,
            ledger=ledger,
            instrument=one.instrument,
            key=one.client_order_id or one.venue_order_id,
            cause=Cause.FOREIGN_TRADE if external else Cause.UNKNOWN,
            severity=severity,
            difference=difference,
            unit=instrument.unit if instrument and difference is not None else "",
            price=one.price,
            external=external,
            changed_at_ms=max(o.changed_at_ms for o in (stated, booked) if o),
            plan_id=booked.plan_id if booked else "",
            child_id=booked.child_id if booked else "",
            order_id=one.venue_order_id,
        )

    def add_fill(
        self,
        code: Code,
        fill: FillFact,
        *,
        field: str,
        venue: object | None,
        ledger: object | None,
        one_sided: bool = False,
    ) -> None:
        instrument = self.instrument(fill.instrument)
        external = not self.owns_order_id(fill.client_order_id)
        gap = self.in_gap(fill.traded_at_ms)
        if gap:
            cause = Cause.GAP
        elif fill.venue_action:
            cause = Cause.VENUE_ACTION
        else:
            cause = Cause.FOREIGN_TRADE if external else Cause.UNKNOWN
        self.fill_causes.setdefault(fill.instrument, cause)
        sign = 1 if code is Code.FILL_MISSING else -1
        self.add(
            code,
            field=field,
            venue=venue,
            ledger=ledger,
            instrument=fill.instrument,
            key=fill.fill_id,
            cause=cause,
            difference=sign * fill.side.sign * fill.quantity if one_sided else None,
            unit=instrument.unit if instrument and one_sided else "",
            price=fill.price,
            external=external,
            changed_at_ms=fill.traded_at_ms,
            order_id=fill.venue_order_id,
            fill_id=fill.fill_id,
            gap_id=gap.gap_id if gap else "",
        )

    def position_cause(self, name: str) -> Cause:
        """A position differs for the reason that its fills differ; without any, for an open gap."""
        return self.fill_causes.get(name, Cause.GAP if self.booked.gaps else Cause.UNKNOWN)

    def twice(self, part: Part, key: str, instrument: str = "") -> None:
        self.add(
            Code.DUP_KEY,
            field=part.value,
            venue=None,
            ledger=None,
            instrument=instrument,
            key=key,
            cause=Cause.DUPLICATE,
        )

    def indexed(self, part: Part, lines: Iterable[_Line], key: Callable[[_Line], str]) -> dict[str, _Line]:
        """Lines by key. The same key with other contents is a break, never dropped silently."""
        index: dict[str, _Line] = {}
        for line in lines:
            known = index.setdefault(key(line), line)
            if known is not line and known != line:
                self.twice(part, key(line))
        return index

    def agree(
        self, field: str, venue: Decimal, ledger: Decimal, *, instrument: str, key: str, currency: str = ""
    ) -> bool:
        """Whether two values are equal or near enough; letting a difference pass is recorded."""
        if venue == ledger:
            return True
        tolerance = self.rules.tolerance(self.venue, field, currency)
        if not within(tolerance, venue, ledger):
            return False
        self.uses.append(
            ToleranceUse(
                account_id=self.stated.account_id,
                instrument=instrument,
                key=key,
                field=field,
                venue=venue,
                ledger=ledger,
                allowed=tolerance.allowed,
                relative=tolerance.relative,
                unit=currency or instrument,
            )
        )
        return True

    def count(self, part: Part, venue: int, ledger: int, agree: int) -> None:
        self.counts.append(Count(part=part, venue=venue, ledger=ledger, agree=agree))

    def in_gap(self, at_ms: int) -> OpenGap | None:
        return next((g for g in self.booked.gaps if g.from_ms <= at_ms and (g.to_ms is None or at_ms <= g.to_ms)), None)

    def _value(
        self, code: Code, name: str, difference: Decimal | None, price: Decimal | None
    ) -> tuple[Decimal | None, str]:
        if difference is None:
            return None, ""
        if code.part is Part.CASH:
            return abs(difference), name
        instrument = self._instruments.get(name)
        if instrument is None or price is None:
            return None, ""
        return instrument.notional(abs(difference), price), instrument.quote


def _told(value: object | None) -> str | None:
    if value is None:
        return None
    return plain(value) if isinstance(value, Decimal) else str(value)


class _Stamped(Protocol):
    @property
    def at_ms(self) -> int: ...


def _latest(*lines: _Stamped | None) -> int:
    return max(line.at_ms for line in lines if line is not None)


# ---- Positions: by instrument, position side and, where both sides tell it, margin mode

_PositionKey = tuple[str, str, str]


def _compare_positions(found: _Found) -> None:
    sides = (found.stated.positions, found.booked.positions)
    # Where a position was told without its margin mode (folded from fills), only the sum over modes can be compared.
    untold = {(p.instrument, p.position_side) for side in sides for p in side if not p.margin_mode}
    venue_side, ledger_side = (_held(found, side, untold) for side in sides)
    agree, settled = 0, set[_PositionKey]()
    for key in sorted(venue_side.keys() | ledger_side.keys()):
        if key in settled:
            continue
        stated, booked = venue_side.get(key), ledger_side.get(key)
        other = _opposite(key)
        if {(key in side, other in side) for side in (venue_side, ledger_side)} == {(True, False), (False, True)}:
            settled.add(other)  # in hedge mode the wrong side stands under another key
            stated, booked = stated or venue_side.get(other), booked or ledger_side.get(other)
        agree += _compare_position(found, key, stated, booked)
    found.count(Part.POSITIONS, len(venue_side), len(ledger_side), agree)


def _held(
    found: _Found, positions: Iterable[PositionFact], untold: set[tuple[str, str]]
) -> dict[_PositionKey, PositionFact]:
    """What is not flat, by key."""
    held: dict[_PositionKey, PositionFact] = {}
    for p in positions:
        found.instrument(p.instrument)
        if not p.quantity:
            continue
        summed = (p.instrument, p.position_side) in untold
        key = (p.instrument, p.position_side, "" if summed else p.margin_mode)
        known = held.get(key)
        if known is None or known == p:
            held[key] = p
        elif summed:
            held[key] = msgspec.structs.replace(
                known,
                quantity=known.quantity + p.quantity,
                avg_price=None,
                updated_at_ms=max(known.updated_at_ms, p.updated_at_ms),
            )
        else:
            found.twice(Part.POSITIONS, "/".join(key), instrument=p.instrument)
    return {key: p for key, p in held.items() if p.quantity}


def _opposite(key: _PositionKey) -> _PositionKey:
    name, side, mode = key
    return (name, {"long": "short", "short": "long"}.get(side, side), mode)


def _compare_position(
    found: _Found, key: _PositionKey, stated: PositionFact | None, booked: PositionFact | None
) -> bool:
    name, side, mode = key
    spelt = f"{side}/{mode}" if mode else side
    instrument = found.instrument(name)
    there, here = stated.quantity if stated else Decimal(0), booked.quantity if booked else Decimal(0)
    if stated and booked and found.agree("quantity", there, here, instrument=name, key=spelt):
        if stated.avg_price is None or booked.avg_price is None:
            return True
        if found.agree("avg_price", stated.avg_price, booked.avg_price, instrument=name, key=spelt):
            return True
        found.add(
            Code.POS_AVGPX,
            instrument=name,
            key=spelt,
            field="avg_price",
            venue=stated.avg_price,
            ledger=booked.avg_price,
            difference=stated.avg_price - booked.avg_price,
            unit=instrument.quote if instrument else "",
            cause=found.position_cause(name),
            changed_at_ms=_latest(stated, booked),
        )
        return False
    dust = instrument is not None and abs(there - here) < instrument.quantity_step
    if dust:
        code = Code.POS_DUST
    elif stated and booked:
        code = Code.POS_QTY if (there > 0) == (here > 0) else Code.POS_SIDE
    else:
        code = Code.POS_ONLY_VENUE if stated else Code.POS_ONLY_LEDGER
    found.add(
        code,
        instrument=name,
        key=spelt,
        field="quantity",
        venue=stated and there,
        ledger=booked and here,
        difference=there - here,
        unit=instrument.unit if instrument else "",
        price=(stated.avg_price if stated else None) or (booked.avg_price if booked else None),
        cause=Cause.ROUNDING if dust else found.position_cause(name),
        changed_at_ms=_latest(stated, booked),
    )
    return False


# ---- Cash: by currency


def _compare_cash(found: _Found) -> None:
    venue_side, ledger_side = (
        found.indexed(Part.CASH, side, lambda b: b.currency) for side in (found.stated.balances, found.booked.balances)
    )
    agree = 0
    for currency in sorted(venue_side.keys() | ledger_side.keys()):
        stated, booked = venue_side.get(currency), ledger_side.get(currency)
        there, here = stated.cash if stated else Decimal(0), booked.cash if booked else Decimal(0)
        if found.agree("cash", there, here, instrument=currency, key="", currency=currency):
            agree += 1
            continue
        found.add(
            Code.CASH_AMT,
            instrument=currency,
            field="cash",
            venue=stated and there,
            ledger=booked and here,
            difference=there - here,
            unit=currency,
            changed_at_ms=_latest(stated, booked),
        )
    found.count(Part.CASH, len(venue_side), len(ledger_side), agree)


# ---- Orders: by client id, then venue id

_UNSURE = frozenset({OrderState.SENDING, OrderState.UNKNOWN})
_AT_WORK = _UNSURE | {OrderState.WORKING}


def _compare_orders(found: _Found) -> None:
    venue_side, ledger_side = (
        found.indexed(Part.ORDERS, side, lambda o: o.client_order_id or o.venue_order_id)
        for side in (found.stated.orders, found.booked.orders)
    )
    # A client id may be reused after its order ended, and one side may not have heard it: the venue's id settles it.
    by_venue_id = {o.venue_order_id: o for o in ledger_side.values() if o.venue_order_id}
    matched, agree = set[str](), 0
    for key, stated in sorted(venue_side.items()):
        found.instrument(stated.instrument)
        booked = by_venue_id.get(stated.venue_order_id) or ledger_side.get(key)
        if booked and booked.venue_order_id not in ("", stated.venue_order_id):
            booked = None  # the same client id, but another order
        ids = (stated.client_order_id, booked.client_order_id if booked else "")  # a venue may not tell ours
        if not any(found.owns_order_id(name) for name in ids):
            found.foreign.append(
                ForeignOrder(account_id=found.stated.account_id, order=stated, in_ledger=booked is not None)
            )
        if booked is None:
            found.add_order(Code.ORD_ONLY_VENUE, stated, None, "state", stated.state, None)
            continue
        matched.add(booked.client_order_id or booked.venue_order_id)
        agree += _compare_order(found, stated, booked)
    for key, booked in sorted(ledger_side.items()):
        found.instrument(booked.instrument)
        if key in matched:
            continue
        if not found.owns_order_id(booked.client_order_id):
            found.foreign.append(ForeignOrder(account_id=found.stated.account_id, order=booked, in_ledger=True))
        if booked.state not in _AT_WORK:
            continue
        if booked.state in _UNSURE:
            long_ago = found.now_ms - booked.changed_at_ms >= found.rules.unknown_order_ms
            severity = Severity.CRITICAL if long_ago else None
            found.add_order(Code.ORD_UNKNOWN, None, booked, "state", None, booked.state, severity=severity)
        else:
            found.add_order(Code.ORD_ONLY_LEDGER, None, booked, "state", None, booked.state)
    at_work = sum(o.state in _AT_WORK for o in ledger_side.values())
    found.count(Part.ORDERS, len(venue_side), at_work, agree)


def _compare_order(found: _Found, stated: OrderLine, booked: OrderLine) -> bool:
    agree = True
    for field in ("instrument", "side", "state", "quantity", "price"):
        there, here = getattr(stated, field), getattr(booked, field)
        if there != here:
            found.add_order(Code.ORD_STATE, stated, booked, field, there, here)
            agree = False
    if stated.filled != booked.filled:
        found.add_order(
            Code.ORD_STATE,
            stated,
            booked,
            "filled",
            stated.filled,
            booked.filled,
            difference=stated.filled - booked.filled,
        )
        agree = False
    return agree


# ---- Fills: by the venue's fill id, inside the window that both sides know


def _compare_fills(found: _Found) -> None:
    since_ms = max(found.stated.since_ms, found.booked.since_ms)
    venue_side, ledger_side = (
        found.indexed(Part.FILLS, (f for f in side if f.traded_at_ms >= since_ms), lambda f: f.fill_id)
        for side in (found.stated.fills, found.booked.fills)
    )
    # What was traded after the statement was begun may be missing from it by right.
    as_of_ms = found.stated.as_of_ms
    ledger_side = {k: f for k, f in ledger_side.items() if k in venue_side or f.traded_at_ms <= as_of_ms}
    agree = 0
    for key in sorted(venue_side.keys() | ledger_side.keys()):
        stated, booked = venue_side.get(key), ledger_side.get(key)
        if stated and booked:
            agree += _compare_fill(found, stated, booked)
        elif stated:
            found.add_fill(
                Code.FILL_MISSING, stated, field="quantity", venue=stated.quantity, ledger=None, one_sided=True
            )
        elif booked:
            found.add_fill(
                Code.FILL_EXTRA, booked, field="quantity", venue=None, ledger=booked.quantity, one_sided=True
            )
    found.count(Part.FILLS, len(venue_side), len(ledger_side), agree)


def _compare_fill(found: _Found, stated: FillFact, booked: FillFact) -> bool:
    found.instrument(stated.instrument)
    agree = True
    for field in ("instrument", "venue_order_id", "side", "quantity", "price"):
        there, here = getattr(stated, field), getattr(booked, field)
        if there != here:
            found.add_fill(Code.FILL_FIELD, stated, field=field, venue=there, ledger=here)
            agree = False
    if stated.fee is None or booked.fee is None:  # one way of hearing of it does not tell the fee
        return agree
    same_currency = stated.fee_currency == booked.fee_currency
    if not same_currency or not found.agree(
        "fee", stated.fee, booked.fee, instrument=stated.instrument, key=stated.fill_id, currency=stated.fee_currency
    ):
        there, here = (f"{plain(f.fee or Decimal(0))} {f.fee_currency}" for f in (stated, booked))
        found.add_fill(Code.FILL_FIELD, stated, field="fee", venue=there, ledger=here)
        return False
    return agree


# ---- Gaps and age


def _compare_freshness(found: _Found) -> None:
    for gap in found.booked.gaps:
        found.add(
            Code.GAP, key=gap.gap_id, field="state", venue=None, ledger=gap.state, cause=Cause.GAP, gap_id=gap.gap_id
        )
    if found.booked.stale:
        found.add(Code.STALE, field="ledger", venue=None, ledger=found.booked.stale)
    age_ms = found.now_ms - found.stated.as_of_ms
    if age_ms > found.rules.stale_ms:
        found.add(Code.STALE, field="statement", venue=f"{age_ms // 1000} s old", ledger=None)
