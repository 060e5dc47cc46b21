"""Holds. Two sides of one account that agree, to change one thing at a time."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal as D
from typing import Any

import msgspec

from engine.core.breaks import Comparison
from engine.core.compare import compare
from engine.core.facts import BalanceFact, FillFact, PositionFact, Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.orders import OrderState
from engine.core.statements import LedgerSide, OrderLine, Statement
from engine.core.tolerances import RULES

NOW = 1_767_225_600_000
LONG_AGO = NOW - 3_600_000
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


def instrument(name: str) -> Instrument:
    return Instrument(
        name=name,
        venue="paper",
        kind=InstrumentKind.SWAP,
        base=name[:3],
        quote="USDT",
        settle="USDT",
        unit="contract",
        multiplier=D("0.01"),
        quantity_step=D(1),
        min_quantity=D(1),
        price_tick=D("0.1"),
    )


class FakeCatalogue:
    def __init__(self, *names: str) -> None:
        self._known = {name: instrument(name) for name in names}

    def by_name(self, name: str) -> Instrument | None:
        return self._known.get(name)


CATALOGUE = FakeCatalogue(BTC, ETH)


def ours(client_order_id: str) -> bool:
    return client_order_id.startswith("u")


def position(**changes: Any) -> PositionFact:
    told: dict[str, Any] = {
        "instrument": BTC,
        "margin_mode": "cross",
        "quantity": D(5),
        "avg_price": D(60_000),
        "updated_at_ms": LONG_AGO,
    }
    return PositionFact(**told | changes)


def balance(**changes: Any) -> BalanceFact:
    told: dict[str, Any] = {"currency": "USDT", "cash": D("10000.5"), "updated_at_ms": LONG_AGO}
    return BalanceFact(**told | changes)


def order(**changes: Any) -> OrderLine:
    told: dict[str, Any] = {
        "instrument": BTC,
        "client_order_id": "u1",
        "venue_order_id": "v1",
        "side": Side.BUY,
        "quantity": D(3),
        "price": D(59_000),
        "filled": D(1),
        "state": OrderState.WORKING,
        "changed_at_ms": LONG_AGO,
    }
    return OrderLine(**told | changes)


def fill(**changes: Any) -> FillFact:
    told: dict[str, Any] = {
        "instrument": BTC,
        "fill_id": "f1",
        "venue_order_id": "v1",
        "client_order_id": "u1",
        "side": Side.BUY,
        "quantity": D(1),
        "price": D(59_000),
        "fee": D("-0.2"),
        "fee_currency": "USDT",
        "traded_at_ms": LONG_AGO,
    }
    return FillFact(**told | changes)


STATED = Statement(
    account_id="alpha",
    as_of_ms=NOW,
    since_ms=LONG_AGO - 1_000,
    positions=(position(),),
    balances=(balance(),),
    orders=(order(),),
    fills=(fill(),),
)
BOOKED = LedgerSide(
    account_id="alpha",
    as_of_ms=NOW,
    since_ms=LONG_AGO - 1_000,
    positions=(position(),),
    balances=(balance(),),
    orders=(order(),),
    fills=(fill(),),
    last_fact_at_ms=NOW - 2_000,
)


def compared(stated: Mapping[str, Any] | None = None, booked: Mapping[str, Any] | None = None) -> Comparison:
    """The agreeing sides with these fields changed."""
    return compare(
        msgspec.structs.replace(STATED, **(stated or {})),
        msgspec.structs.replace(BOOKED, **(booked or {})),
        rules=RULES,
        venue="paper",
        catalogue=CATALOGUE,
        owns_order_id=ours,
        now_ms=NOW + 100,
    )
