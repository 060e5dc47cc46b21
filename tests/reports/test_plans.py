"""Plans on a terminal: nothing is cut off, and what a person must see is there."""

from __future__ import annotations

from decimal import Decimal
from io import StringIO
from typing import Any

import msgspec
import pytest
from rich.console import Console, RenderableType

from engine.core.facts import Side
from engine.core.fairness import fairness
from engine.core.orders import OrderState, OrderType
from engine.core.plans import (
    BelowMinimum,
    Cannot,
    Child,
    Denial,
    Leg,
    Method,
    Offline,
    Override,
    Plan,
    PlanState,
)
from engine.core.preview import preview
from engine.reports.plans import fairness_table, leg_sentence, orders_table, plans_table, preview_table, read_plan
from tests.plan_world import BTC, NOW_MS, RULES, SWAP, FakeAccount, FakeAccounts, FakeMarket

D = Decimal


def text_of(table: RenderableType, width: int = 80) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(table)
    return console.export_text()


def previewed(*legs: Leg, **spoilt: Any) -> Plan:
    accounts = FakeAccounts(*(FakeAccount(f"okx-demo-{n:02}") for n in range(6)))
    accounts.accounts["okx-demo-03"] = FakeAccount("okx-demo-03", **spoilt)
    plan = Plan(
        plan_id="P20260101-7KQ3F",
        title="Add some",
        groups=("all",),
        legs=legs,
        created_at_ms=NOW_MS,
        created_by="ann",
        expires_at_ms=NOW_MS + 60_000,
        max_drift_percent=D(2),
        rotation_seed=1,
    )
    shown = preview(plan, accounts, FakeMarket(), RULES, NOW_MS)
    return msgspec.structs.replace(plan, state=PlanState.PREVIEWED, preview=shown)


EQUAL = Leg(instrument=SWAP, method=Method.EQUAL, side=Side.BUY, quantity=D(401), order_type=OrderType.MARKET)


@pytest.mark.parametrize("width", [80, 120])
def test_the_grid_shows_parts_totals_and_who_is_skipped_in_full(width: int) -> None:
    told = text_of(preview_table(previewed(EQUAL, proven=False, gap_since_ms=NOW_MS)), width)
    assert "…" not in told
    assert "sized with 50000" in told
    line = next(line for line in told.splitlines() if "okx-demo-00" in line)
    assert " ".join(line.split()) == "okx-demo-00 67 0.67 33,500.00 33.50 0 → 67 96,616.50 33.50 % -0.167"
    footer = next(line for line in told.splitlines() if "5 of 6" in line)
    assert footer.split()[3:] == ["334", "3.34", "167,000.00", "167.00"]
    assert "67 contract stay with nobody" in told
    assert "account_not_proven" in told


def test_a_plan_that_the_control_door_told_is_shown_as_it_was() -> None:
    plan = previewed(EQUAL)
    told = msgspec.json.decode(msgspec.json.encode(plan))
    assert read_plan(told) == plan
    assert text_of(preview_table(read_plan(told))) == text_of(preview_table(plan))


def test_several_legs_are_numbered() -> None:
    spot = msgspec.structs.replace(EQUAL, instrument=BTC, quantity=D(1))
    told = text_of(preview_table(previewed(EQUAL, spot)))
    assert "Leg 1 of 2: buy BTC/USDT:USDT" in told
    assert "Leg 2 of 2: buy BTC/USDT:" in told


@pytest.mark.parametrize(
    ("leg", "sentence"),
    [
        (EQUAL, "buy BTC/USDT:USDT: 401 split equally, market, residual largest remainder"),
        (
            Leg(instrument=BTC, method=Method.LEVEL, side=Side.BUY, quantity=D(9), price=D(9), visible_quantity=D(1)),
            "buy BTC/USDT: 9 to level what accounts hold, limit at 9, showing 1, residual largest remainder",
        ),
        (
            Leg(
                instrument=BTC,
                method=Method.MONEY,
                side=Side.SELL,
                amount=D(50),
                order_type=OrderType.STOP,
                trigger_price=D(8),
            ),
            "sell BTC/USDT: 50 of money for each, stop once 8 is reached",
        ),
        (
            Leg(instrument=BTC, method=Method.TARGET, percent=D(20), order_type=OrderType.MARKET),
            "BTC/USDT: to 20 % of each account's net asset value, market",
        ),
        (
            Leg(instrument=BTC, method=Method.NAV_PERCENT, side=Side.BUY, percent=D("0.50"), price=D(50_000)),
            "buy BTC/USDT: 0.5 % of each account's net asset value, limit at 50000",
        ),
        (
            Leg(instrument=SWAP, method=Method.CHANGE, percent=D(-100), order_type=OrderType.MARKET),
            "BTC/USDT:USDT: close each account's own position, market",
        ),
        (
            Leg(instrument=BTC, method=Method.UNITS, side=Side.SELL, units={"a": D(1), "b": D(2)}, price=D(9)),
            "sell BTC/USDT: 3 as told per account, limit at 9",
        ),
    ],
)
def test_a_leg_is_said_in_words(leg: Leg, sentence: str) -> None:
    assert leg_sentence(leg) == sentence


def test_the_list_keeps_ids_whole_in_a_narrow_terminal() -> None:
    told = text_of(plans_table([previewed(EQUAL)]))
    assert "P20260101-7KQ3F" in told
    assert "previewed" in told


def test_every_order_shows_where_it_stands_and_why() -> None:
    child = Child(
        child_id="c" * 32,
        plan_id="P1",
        account_id="okx-demo-00",
        leg=0,
        client_order_id="u1",
        instrument=SWAP,
        side=Side.BUY,
        order_type=OrderType.MARKET,
        quantity=D(10),
        state=OrderState.WORKING,
        filled=D(4),
        avg_price=D("50000.10"),
        planned_at_ms=NOW_MS,
        sent_at_ms=NOW_MS,
        acknowledged_at_ms=NOW_MS + 12,
        updated_at_ms=NOW_MS,
    )
    refused = msgspec.structs.replace(
        child,
        account_id="okx-demo-01",
        state=OrderState.REJECTED,
        reason="51008: [no] money",
        late=True,
        sent_at_ms=None,
    )
    told = text_of(orders_table([child, refused]), 140)
    good, bad = (next(line for line in told.splitlines() if name in line) for name in ("okx-demo-00", "okx-demo-01"))
    for words in ("working", "50000.1", "12 ms"):
        assert words in good
    for words in ("rejected late", "51008: [no] money", "–"):
        assert words in bad


def test_prices_that_are_not_of_all_orders_say_so() -> None:
    child = Child(
        child_id="c" * 32,
        plan_id="P20260101-7KQ3F",
        account_id="okx-demo-00",
        leg=0,
        client_order_id="u1",
        instrument=SWAP,
        side=Side.BUY,
        order_type=OrderType.MARKET,
        quantity=D(10),
        state=OrderState.FILLED,
        filled=D(10),
        avg_price=D(50_000),
        planned_at_ms=NOW_MS,
        sent_at_ms=NOW_MS,
        updated_at_ms=NOW_MS,
    )
    untold = msgspec.structs.replace(child, account_id="okx-demo-01", avg_price=None)
    assert "of 1 of 2 orders" in text_of(fairness_table(fairness(previewed(EQUAL), [child, untold])), 160)


def test_what_the_manager_chose_and_who_waits_is_shown() -> None:
    given = Override(code="duplicate", by="bob", why="meant", at_ms=NOW_MS, expires_at_ms=NOW_MS + 1000)
    one = msgspec.structs.replace(
        previewed(EQUAL),
        cannot=Cannot.REDUCE,
        below_minimum=BelowMinimum.RAISE,
        cap_notional=D(5000),
        offline=Offline.QUEUE,
        queue_until_ms=NOW_MS + 60_000,
        sells_first=True,
        sells_wait_ms=5000,
        overrides=(given,),
    )
    assert one.preview is not None
    first = msgspec.structs.replace(
        one.preview.rows[0],
        queued=(Denial("account_not_live", text="it is down"),),
        overridden=(Denial("duplicate", text="again"),),
    )
    shown = msgspec.structs.replace(one.preview, rows=(first, *one.preview.rows[1:]))
    told = text_of(preview_table(msgspec.structs.replace(one, preview=shown)), 200)
    for sentence in (
        "takes what it can",
        "is raised to it",
        "at most 5,000.00 in all",
        "wait until 2026-01-01 00:01:00",
        "wait for its sells, 5 s at most",
        "duplicate of all accounts set aside by bob",
        "1 may wait for their accounts: okx-demo-00 (it is down)",
        "because a denial was set aside: okx-demo-00 (duplicate)",
    ):
        assert sentence in told
