"""Why an account does not take part: every reason with its numbers, from one closed list."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from accounts.model import AccountState, Mandate, Trading
from engine.core.facts import Side
from engine.core.instruments import InstrumentKind
from engine.core.limits import (
    REASONS,
    Ask,
    Code,
    Recent,
    Reference,
    check,
    deny,
    drifted,
    needs,
    plain,
    reference_page,
    set_aside,
    standing,
)
from engine.core.orders import OrderType
from engine.core.plans import Override
from tests.plan_world import NOW_MS, RULES, SPOT_BTC, SWAP_BTC, FakeAccount

D = Decimal
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "denials.md"

GOOD = Ask(
    plan_id="P1",
    instrument=SPOT_BTC,
    order_types=frozenset({OrderType.LIMIT, OrderType.MARKET}),
    order_type=OrderType.LIMIT,
    side=Side.BUY,
    quantity=D("0.1"),
    raw_share=D("0.1"),
    price=D("50000"),
    reference=Reference(D("50000"), NOW_MS - 1000, "mark"),
    notional=D(5000),
    plan_notional=D(5000),
    currency="USDT",
    needed=D(5005),
    available=D(10_000),
    mandate=None,
    recent=(),
    sized=True,
    long=D(0),
    short=D(0),
    opens=D("0.1"),
    position_notional=D(5000),
    day_notional=D(5000),
    lost_today=D(0),
    orders_lately=1,
)


def denied(**changes: Any) -> dict[str, dict[str, str]]:
    rules = msgspec.structs.replace(RULES, max_orders_a_minute=5)
    found = check(msgspec.structs.replace(GOOD, **changes), rules, NOW_MS)
    return {denial.code: dict(denial.numbers) for denial in found}


def out_before(**changes: Any) -> Recent:
    """What was sent just now for another plan: the same as GOOD."""
    same = Recent(
        plan_id="P0",
        side=Side.BUY,
        quantity=D("0.1"),
        order_type=OrderType.LIMIT,
        price=D(50_000),
        at_ms=NOW_MS,
        order="u1",
    )
    return msgspec.structs.replace(same, **changes)


def mandate(**limits: Any) -> Mandate:
    return Mandate(account_id="a", **limits)


def test_an_order_within_every_limit_is_not_denied() -> None:
    assert denied() == {}
    whole = mandate(max_order_notional=D(5000), max_plan_notional=D(5000), allowed_instruments=("BTC/USDT",))
    assert denied(mandate=whole, available=D(5005)) == {}


@pytest.mark.parametrize(
    ("changes", "code", "numbers"),
    [
        (
            {"instrument": msgspec.structs.replace(SPOT_BTC, tradable=False, status="suspend")},
            "not_tradable",
            {"instrument": "BTC/USDT", "status": "suspend"},
        ),
        (
            {"order_types": frozenset({OrderType.MARKET})},
            "order_type_missing",
            {"venue": "bourse", "order_type": "limit"},
        ),
        (
            {"instrument": msgspec.structs.replace(SPOT_BTC, refuses=(OrderType.LIMIT,))},
            "order_type_missing",
            {"venue": "bourse", "order_type": "limit"},
        ),
        (
            {"mandate": mandate(allowed_instruments=("ETH/USDT", "SOL/USDT"))},
            "not_allowed",
            {"allowed": "2", "instrument": "BTC/USDT"},
        ),
        ({"mandate": mandate(do_not_trade=("BTC/USDT",))}, "do_not_trade", {"instrument": "BTC/USDT"}),
        ({"long": D(3), "short": D(-1)}, "position_sides", {"long": "3", "short": "-1"}),
        ({"reference": None}, "no_price", {"instrument": "BTC/USDT"}),
        ({"reference": Reference(D(0), NOW_MS, "mark")}, "no_price", {"instrument": "BTC/USDT"}),
        (
            {"reference": Reference(D(50_000), NOW_MS - 30_001, "mark")},
            "stale_price",
            {"age_s": "30.001", "limit_s": "30"},
        ),
        (  # our clock was set back since it was heard
            {"reference": Reference(D(50_000), NOW_MS + 30_001, "mark")},
            "stale_price",
            {"age_s": "30.001", "limit_s": "30"},
        ),
        ({"price": D("50000.05")}, "off_tick", {"price": "50000.05", "tick": "0.1"}),
        (
            {"price": D("55000.1")},
            "price_collar",
            {"price": "55000.1", "distance": "10.0002", "reference": "50000", "limit": "10"},
        ),
        ({"quantity": D("0.1005")}, "off_lot", {"quantity": "0.1005", "lot": "0.001"}),
        ({"quantity": D("0.001")}, "below_minimum", {"quantity": "0.001", "minimum": "0.002"}),
        ({"quantity": D(0), "raw_share": D("0.0004")}, "nothing_to_do", {"share": "0.0004", "step": "0.001"}),
        (
            {"instrument": SWAP_BTC, "quantity": D(1001)},
            "above_maximum",
            {"quantity": "1001", "maximum": "1000"},
        ),
        (
            {"instrument": SWAP_BTC, "quantity": D(501), "order_type": OrderType.MARKET, "price": None},
            "above_maximum",
            {"quantity": "501", "maximum": "500"},
        ),
        ({"available": D(5004)}, "buying_power", {"needed": "5005", "currency": "USDT", "available": "5004"}),
        ({"available": None}, "buying_power", {"needed": "5005", "currency": "USDT", "available": "not known"}),
        (
            {"mandate": mandate(max_order_notional=D("4999.99"))},
            "order_notional",
            {"notional": "5000", "limit": "4999.99"},
        ),
        (
            {"mandate": mandate(max_plan_notional=D(7000)), "plan_notional": D(7001)},
            "plan_notional",
            {"notional": "7001", "limit": "7000"},
        ),
        (
            {"recent": (out_before(quantity=D("0.10"), price=D("50000.0"), at_ms=NOW_MS - 59_000),)},
            "duplicate",
            {"age_s": "59", "order": "u1", "window_s": "60"},
        ),
        ({"visible_quantity": D("0.01")}, "iceberg_missing", {"venue": "bourse"}),
        (
            {"visible_quantity": D("0.0101"), "iceberg": True},
            "off_lot",
            {"quantity": "0.0101", "lot": "0.001"},
        ),
        (
            {"mandate": mandate(max_day_notional=D(20_000)), "day_notional": D(20_001)},
            "day_notional",
            {"notional": "20001", "limit": "20000"},
        ),
        (
            {"mandate": mandate(max_instrument_notional=D(7000)), "position_notional": D(7001)},
            "instrument_notional",
            {"instrument": "BTC/USDT", "notional": "7001", "limit": "7000"},
        ),
        (
            {"mandate": mandate(max_daily_loss=D(500)), "lost_today": D(500)},
            "daily_loss",
            {"lost": "500", "limit": "500"},
        ),
        (
            {"mandate": mandate(max_daily_loss=D(500)), "lost_today": None},
            "daily_loss",
            {"lost": "not known how much", "limit": "500"},
        ),
        ({"reducing": True}, "account_reducing", {"opened": "0.1"}),
        ({"orders_lately": 6}, "order_rate", {"orders": "6", "limit": "5"}),
    ],
)
def test_each_limit_denies_with_its_numbers(changes: dict[str, Any], code: str, numbers: dict[str, str]) -> None:
    assert denied(**changes) == {code: numbers}


def test_getting_smaller_is_never_stopped_by_what_limits_opening() -> None:
    strict = mandate(max_daily_loss=D(1), max_instrument_notional=D(1))
    assert denied(mandate=strict, lost_today=D(100), reducing=True, opens=D(0), side=Side.SELL) == {}


STOP = {
    "order_type": OrderType.STOP,
    "order_types": frozenset({OrderType.STOP, OrderType.STOP_LIMIT}),
    "price": None,
    "trigger_price": D(52_000),
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"side": Side.SELL, "trigger_price": D(48_000), "opens": D(0)}, {}),
        (
            {"trigger_price": D(50_000)},
            {"trigger_side": {"side": "buy", "trigger": "50000", "reference": "50000"}},
        ),
        (
            {"side": Side.SELL, "opens": D(0)},
            {"trigger_side": {"side": "sell", "trigger": "52000", "reference": "50000"}},
        ),
        ({"trigger_price": D("52000.05")}, {"off_tick": {"price": "52000.05", "tick": "0.1"}}),
        # The limit of a stop is measured with its trigger, not with today's price.
        ({"order_type": OrderType.STOP_LIMIT, "trigger_price": D(70_000), "price": D(70_500)}, {}),
        (
            {"order_type": OrderType.STOP_LIMIT, "trigger_price": D(70_000), "price": D(80_000)},
            {"price_collar": {"price": "80000", "distance": "14.28571429", "reference": "70000", "limit": "10"}},
        ),
    ],
)
def test_a_stop_waits_on_the_far_side_of_the_price(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert denied(**{**STOP, **changes}) == expected


def test_what_a_person_has_set_aside_stands_no_more_until_it_ends() -> None:
    collar, tick = (
        deny(Code.PRICE_COLLAR, price=1, distance=2, reference=3, limit=4),
        deny(Code.OFF_TICK, price=1, tick=2),
    )
    given = Override(
        code="price_collar", account_id="a", by="ann", why="thin market", at_ms=NOW_MS, expires_at_ms=NOW_MS + 10
    )
    assert set_aside((collar, tick), (given,), "a", NOW_MS) == ((tick,), (collar,))
    assert set_aside((collar,), (given,), "b", NOW_MS) == ((collar,), ())
    assert set_aside((collar,), (given,), "a", NOW_MS + 10) == ((collar,), ())
    for_all = msgspec.structs.replace(given, account_id="")
    assert set_aside((collar,), (for_all,), "b", NOW_MS) == ((), (collar,))


@pytest.mark.parametrize(
    "recent",
    [
        out_before(at_ms=NOW_MS - 60_000),  # the window is over
        out_before(side=Side.SELL),
        out_before(quantity=D("0.2")),
        out_before(plan_id="P1"),  # this plan's own
        out_before(order_type=OrderType.POST_ONLY),
        out_before(price=D(49_999)),
        out_before(price=None, order_type=OrderType.MARKET),
        out_before(trigger_price=D(50_000), order_type=OrderType.STOP_LIMIT),
    ],
)
def test_another_order_is_no_duplicate(recent: Recent) -> None:
    assert denied(recent=(recent,)) == {}


def test_every_reason_is_told_not_only_the_first() -> None:
    assert set(denied(price=D("60000.05"), quantity=D("0.0005"), available=D(1))) == {
        "off_tick",
        "price_collar",
        "off_lot",
        "below_minimum",
        "buying_power",
    }


def test_nothing_to_do_is_not_said_where_another_reason_left_no_size() -> None:
    assert set(denied(quantity=D(0), reference=None, price=None, order_type=OrderType.MARKET)) == {"no_price"}
    assert denied(quantity=D(0), sized=False) == {}


# ---- Standing


@pytest.mark.parametrize(
    ("changes", "code", "numbers"),
    [
        ({"state": AccountState.PAUSED}, "account_paused", {}),
        ({"state": AccountState.CLOSED}, "account_closed", {}),
        ({"halted": "daily loss"}, "account_halted", {"why": "daily loss"}),
        ({"trading": Trading.HALTED}, "account_halted", {"why": "the registry says so"}),
        ({"credentials_refused": "60009 login failed"}, "credentials_refused", {"why": "60009 login failed"}),
        ({"killed": "all, by ann: test"}, "kill_switch", {"why": "all, by ann: test"}),
        (
            {"live": False, "phase": "opening", "last_heard_ms": NOW_MS},
            "account_not_live",
            {"phase": "opening", "last_heard": "2026-01-01 00:00:00 UTC"},
        ),
        (
            {"live": False, "phase": "down", "last_heard_ms": None},
            "account_not_live",
            {"phase": "down", "last_heard": "never"},
        ),
        (
            {"proven": False, "gap_since_ms": NOW_MS - 61_000},
            "account_not_proven",
            {"since": "2025-12-31 23:58:59 UTC"},
        ),
    ],
)
def test_an_account_in_bad_standing_gets_no_order(changes: dict[str, Any], code: str, numbers: dict[str, str]) -> None:
    [denial] = standing(FakeAccount("a", **changes))
    assert (denial.code, denial.numbers) == (code, numbers)


def test_an_account_in_good_order_may_get_one() -> None:
    assert standing(FakeAccount("a")) == ()


# ---- Money bound


@pytest.mark.parametrize(
    ("instrument", "side", "quantity", "held", "currency", "needed"),
    [
        (SPOT_BTC, Side.BUY, "0.1", "0", "USDT", "5005"),
        (SPOT_BTC, Side.SELL, "0.1", "1", "BTC", "0.1"),
        (SWAP_BTC, Side.BUY, "10", "0", "USDT", "505"),  # 10 contracts of 0.01: 5,000; a tenth and the fee
        (SWAP_BTC, Side.SELL, "10", "0", "USDT", "505"),
        (SWAP_BTC, Side.BUY, "10", "5", "USDT", "505"),
        (SWAP_BTC, Side.SELL, "10", "10", "USDT", "0"),  # closing is never short of money
        (SWAP_BTC, Side.SELL, "10", "12", "USDT", "0"),
        (SWAP_BTC, Side.SELL, "10", "4", "USDT", "305"),  # closes 4, opens 6
        (SWAP_BTC, Side.BUY, "10", "-4", "USDT", "305"),
    ],
)
def test_what_an_order_binds(instrument: Any, side: Side, quantity: str, held: str, currency: str, needed: str) -> None:
    bound = needs(instrument, side, D(quantity), D(50_000), held=D(held), margin_percent=D(10), fee_rate=D("0.001"))
    assert bound == (currency, D(needed))


def test_an_inverse_contract_binds_its_base_currency() -> None:
    inverse = msgspec.structs.replace(
        SWAP_BTC, name="BTC/USD:BTC", quote="USD", settle="BTC", multiplier=D(100), inverse=True
    )
    assert inverse.kind is InstrumentKind.SWAP
    bound = needs(inverse, Side.BUY, D(50), D(50_000), held=D(0), margin_percent=D(10), fee_rate=D("0.001"))
    assert bound == ("BTC", D("0.0101"))  # 5,000 USD: 500 and 5 of fee, at 50,000


def test_drift_counts_both_ways_and_its_limit_is_still_allowed() -> None:
    assert drifted(D(100), D(102), D(2)) is None
    assert drifted(D(100), D(98), D(2)) is None
    for now in (D("102.01"), D("97.99")):
        denial = drifted(D(100), now, D(2))
        assert denial is not None
        assert denial.numbers == {"drift": "2.01", "then": "100", "now": plain(now), "limit": "2"}


# ---- The list


def test_every_code_has_its_reason_and_says_its_numbers() -> None:
    assert list(REASONS) == list(Code)
    for code, reason in REASONS.items():
        denial = deny(code, **{name: f"<{name}>" for name in reason.numbers})
        assert denial.code == code.value
        assert all(f"<{name}>" in denial.text for name in reason.numbers)
        assert "{" not in denial.text


def test_a_denial_without_one_of_its_numbers_cannot_be_made() -> None:
    with pytest.raises(AssertionError, match="off_lot"):
        deny(Code.OFF_LOT, quantity=D(1))


@pytest.mark.parametrize(
    ("number", "text"),
    [("1E+3", "1000"), ("1.500", "1.5"), ("0E-8", "0"), ("-0.0", "0"), ("1E-8", "0.00000001"), ("100", "100")],
)
def test_numbers_are_written_for_people(number: str, text: str) -> None:
    assert plain(D(number)) == text


def test_the_reference_page_is_the_list() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_page(), (
        "write it anew: python -c 'from engine.core.limits import reference_page; print(reference_page(), end=\"\")' "
        "> docs/reference/denials.md"
    )
