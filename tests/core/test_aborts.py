"""Each rule that stops a plan at work: at its limit nothing happens, beyond it the sentence has the numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from engine.core.aborts import has_rules, why_aborted
from engine.core.facts import Side
from engine.core.orders import OrderState
from engine.core.plans import Child, Preview, PreviewRow
from tests.ledger import samples

S = OrderState
SENT_MS = 10_000


def child(number: int, state: OrderState, **changes: Any) -> Child:
    sent_ms = None if state in (S.PLANNED, S.SKIPPED) else SENT_MS
    return samples.child(number, **{"state": state, "sent_at_ms": sent_ms, **changes})


def filled(number: int, price: str) -> Child:
    return child(number, S.FILLED, filled=Decimal(1), avg_price=Decimal(price))


def previewed(price: int = 100) -> Preview:
    row = PreviewRow(
        account_id="acc1",
        leg=0,
        venue="okx",
        instrument=samples.SWAP.name,
        side=Side.BUY,
        quantity=Decimal(1),
        unit="contract",
        base_quantity=Decimal(1),
        price=Decimal(price),
        notional=Decimal(price),
        fee_estimate=Decimal(0),
        raw_share=Decimal(1),
        residual=Decimal(0),
        held_before=Decimal(0),
        held_after=Decimal(1),
    )
    prices = {f"okx|demo|{samples.SWAP.name}": Decimal(price)}
    return Preview(taken_at_ms=1000, prices=prices, rows=(row,), unallocated={})


REFUSED = [child(1, S.REJECTED), child(2, S.WORKING), child(3, S.PLANNED)]
UNKNOWN = [child(1, S.UNKNOWN), child(2, S.UNKNOWN), child(3, S.FILLED)]
DEAR = [filled(1, "101"), filled(2, "103")]


@pytest.mark.parametrize(
    ("rule", "limit", "beyond", "children", "says"),
    [
        ("abort_refused_percent", Decimal(50), Decimal(49), REFUSED, "1 of 2 orders were refused, more than 49 %"),
        ("abort_unknown", 2, 1, UNKNOWN, "the outcome of 2 orders is unknown, more than 1"),
        ("abort_slippage_percent", Decimal(2), Decimal("1.9"), DEAR, "slippage in BTC/USDT:USDT is 2 %, more than 1.9"),
        ("abort_dispersion_percent", Decimal(1), Decimal("0.9"), DEAR, "dispersion in BTC/USDT:USDT is 0.9804 %"),
        ("abort_after_ms", 5001, 5000, REFUSED, "2 orders have not ended 5 s after the first was sent"),
    ],
)
def test_at_its_limit_nothing_happens_and_beyond_it_the_plan_is_stopped(
    rule: str, limit: Any, beyond: Any, children: list[Child], says: str
) -> None:
    now_ms = SENT_MS + 5000
    still = samples.plan(preview=previewed(), **{rule: limit})
    assert has_rules(still)
    assert why_aborted(still, children, now_ms) == ""
    assert says in why_aborted(samples.plan(preview=previewed(), **{rule: beyond}), children, now_ms)


def test_the_reason_says_of_how_many_orders_the_prices_are() -> None:
    plan = samples.plan(preview=previewed(), abort_slippage_percent=Decimal("1.9"))
    untold = msgspec.structs.replace(DEAR[0], account_id="eve", avg_price=None)
    assert f"% (of {len(DEAR)} of {len(DEAR) + 1} orders), more than 1.9 %" in why_aborted(
        plan, [*DEAR, untold], SENT_MS
    )


def test_a_plan_without_rules_is_never_stopped() -> None:
    plan = samples.plan(preview=previewed())
    assert not has_rules(plan)
    assert why_aborted(plan, [*REFUSED, *UNKNOWN, *DEAR], 10**12) == ""


def test_time_does_not_stop_what_has_ended() -> None:
    assert why_aborted(samples.plan(abort_after_ms=1000), [child(1, S.FILLED), child(2, S.REJECTED)], 10**9) == ""


def test_a_better_price_is_no_slippage() -> None:
    plan = samples.plan(preview=previewed(200), abort_slippage_percent=Decimal("0.1"))
    assert why_aborted(plan, DEAR, 0) == ""
