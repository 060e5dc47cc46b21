"""Values that the ledger's tests write."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from engine.core.facts import AccountFact, FillFact, OrderFact, OrderStatus, PositionFact, Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.orders import OrderState, OrderType
from engine.core.plans import Child, Leg, Method, Plan, PlanState
from engine.ledger import FactRow, Source, row

SWAP = Instrument(
    name="BTC/USDT:USDT",
    venue="okx",
    kind=InstrumentKind.SWAP,
    base="BTC",
    quote="USDT",
    settle="USDT",
    unit="contract",
    multiplier=Decimal("0.01"),
    quantity_step=Decimal(1),
    min_quantity=Decimal(1),
    price_tick=Decimal("0.1"),
)


def fill(number: int, **changes: Any) -> FillFact:
    made = FillFact(
        instrument=SWAP.name,
        fill_id=f"f{number}",
        venue_order_id="o1",
        side=Side.BUY,
        quantity=Decimal(1),
        price=Decimal(100),
        fee=Decimal("-0.1"),
        fee_currency="USDT",
        trade_number=number,
        traded_at_ms=1000 + number,
    )
    return msgspec.structs.replace(made, **changes)


def order(**changes: Any) -> OrderFact:
    made = OrderFact(
        instrument=SWAP.name,
        venue_order_id="o1",
        side=Side.BUY,
        order_type="limit",
        quantity=Decimal(4),
        price=Decimal(100),
        filled=Decimal(0),
        status=OrderStatus.WORKING,
        created_at_ms=1000,
        updated_at_ms=1000,
    )
    return msgspec.structs.replace(made, **changes)


def position(quantity: int, **changes: Any) -> PositionFact:
    made = PositionFact(instrument=SWAP.name, quantity=Decimal(quantity), avg_price=Decimal(100), updated_at_ms=1000)
    return msgspec.structs.replace(made, **changes)


def as_row(fact: AccountFact, account_id: str = "ann") -> FactRow:
    return row(account_id, fact, received_at_ms=5000, source=Source.STREAM, connection_key="conn")


def fill_rows(numbers: range, account_id: str = "ann") -> list[FactRow]:
    return [as_row(fill(number), account_id) for number in numbers]


def plan(**changes: Any) -> Plan:
    made = Plan(
        plan_id="p1",
        title="buy a little",
        groups=("all",),
        legs=(Leg(instrument=SWAP.name, method=Method.EQUAL, side=Side.BUY, quantity=Decimal(10)),),
        state=PlanState.APPROVED,
        created_at_ms=1000,
        created_by="mia",
        expires_at_ms=9000,
        max_drift_percent=Decimal(2),
        rotation_seed=7,
    )
    return msgspec.structs.replace(made, **changes)


def child(number: int = 0, **changes: Any) -> Child:
    made = Child(
        child_id=f"{number:032x}",
        plan_id="p1",
        account_id=f"acc{number}",
        leg=0,
        client_order_id=f"{number:032x}",
        instrument=SWAP.name,
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        quantity=Decimal("1.50"),
        price=Decimal("100.1"),
        trigger_price=Decimal("100.2"),
        visible_quantity=Decimal("0.50"),
        planned_at_ms=1000,
        updated_at_ms=1000,
    )
    return msgspec.structs.replace(made, **changes)


def sending(one: Child, token: str) -> Child:
    return msgspec.structs.replace(one, state=OrderState.SENDING, claim_token=token, send_by_ms=8000)
