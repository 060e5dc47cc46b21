"""How ALOR's dialect words commands, numbers, names and ids, and reads refusals."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.facts import Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.orders import Accepted, Amend, Cancel, OrderType, Place, Refused, Unknown
from engine.core.venue import ErrorClass
from engine.venues.alor import errors, ids
from engine.venues.alor.numbers import iso, moment
from engine.venues.alor.orders import Wording, encode, outcome, said
from engine.venues.alor.symbols import SecurityRow, instrument_of, name_of
from tests.venues.alor_talk import ALOR

REF = "MOEX:D10001"


def listed(symbol: str = "SBER", board: str = "TQBR", **fields: Any) -> Instrument:
    row = {"symbol": symbol, "exchange": "MOEX", "board": board, "minstep": Decimal("0.01"), "lotsize": Decimal(10)}
    return instrument_of(SecurityRow(**{**row, "primary_board": board, **fields}))


FUTURE = listed("SRZ6", "RFUD", minstep=Decimal(1), pricestep=Decimal(2), lotsize=Decimal(1), cancellation="2026-12-17")


def place(**changes: Any) -> Place:
    fields: dict[str, Any] = {
        "client_order_id": "uni-x",
        "instrument": listed(),
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
        "quantity": Decimal(3),
        "price": Decimal("301.5"),
    }
    return Place(**{**fields, **changes})


def worded(command: Place | Amend | Cancel, **options: str) -> tuple[str, str, dict[str, Any]]:
    wording = Wording.of({**ALOR.options, **options})
    words = said(command, REF, wording)
    return words.opcode(wording), words.order_id, json.loads(encode(words.body))


# ---- Orders in words


@pytest.mark.parametrize(
    ("changes", "options", "opcode", "told"),
    [
        ({}, {}, "create:limit", {"timeInForce": "oneday", "price": 301.5, "quantity": 3, "side": "buy"}),
        ({"order_type": OrderType.POST_ONLY}, {}, "create:limit", {"timeInForce": "bookorcancel"}),
        ({"order_type": OrderType.IOC}, {}, "create:limit", {"timeInForce": "immediateorcancel"}),
        ({"order_type": OrderType.FOK}, {}, "create:limit", {"timeInForce": "fillorkill"}),
        ({"order_type": OrderType.MARKET, "price": None}, {}, "create:market", {"comment": "uni-x"}),
        ({}, {"time_in_force": "goodtillcancelled"}, "create:limit", {"timeInForce": "oneday"}),
        (
            {"instrument": FUTURE, "price": Decimal(30000)},
            {"time_in_force": "goodtillcancelled"},
            "create:limit",
            {"timeInForce": "goodtillcancelled"},
        ),
        (
            {"order_type": OrderType.STOP, "price": None, "trigger_price": Decimal(310)},
            {"protecting_seconds": "20"},
            "create:stop",
            {"condition": "moreorequal", "triggerPrice": 310, "stopEndUnixTime": 0, "protectingSeconds": 20},
        ),
        (
            {"order_type": OrderType.STOP_LIMIT, "side": Side.SELL, "trigger_price": Decimal(290)},
            {"stop_limit_opcode": "stoplimit"},
            "create:stoplimit",
            {"condition": "lessorequal", "triggerPrice": 290, "price": 301.5, "activate": True},
        ),
        ({"visible_quantity": Decimal(1)}, {"iceberg_variance": "5"}, "create:limit", {"icebergFixed": 1}),
        (
            {"visible_quantity": Decimal(1), "instrument": FUTURE, "price": Decimal(30000)},
            {"iceberg_variance": "5"},
            "create:limit",
            {"icebergFixed": 1, "icebergVariance": 5},
        ),
        ({}, {"allow_margin": "true"}, "create:limit", {"allowMargin": True}),
    ],
)
def test_an_order_says_what_was_meant(
    changes: dict[str, Any], options: dict[str, str], opcode: str, told: dict[str, Any]
) -> None:
    found, order_id, body = worded(place(**changes), **options)
    assert (found, order_id) == (opcode, "")
    assert {name: body[name] for name in told} == told
    assert ("icebergVariance" in body) is ("icebergVariance" in told)
    assert body["user"] == {"portfolio": "D10001"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"price": None}, "needs a price"),
        ({"order_type": OrderType.MARKET}, "takes no price"),
        ({"order_type": OrderType.STOP, "price": None}, "needs a trigger"),
        ({"trigger_price": Decimal(1)}, "takes no trigger"),
        ({"quantity": Decimal("1.5")}, "whole lots"),
        ({"quantity": Decimal(0)}, "whole lots"),
        ({"reduce_only": True}, "only reduce"),
        ({"position_side": "long"}, "side by side"),
        ({"visible_quantity": Decimal(4)}, "not more"),
        ({"visible_quantity": Decimal(1), "order_type": OrderType.IOC}, "no iceberg"),
        ({"client_order_id": "я"}, "plain characters"),
        ({"client_order_id": "x" * 101}, "plain characters"),
        ({"client_order_id": ""}, "plain characters"),
    ],
)
def test_what_cannot_be_said_exactly_is_not_said(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        worded(place(**changes))


def amend(venue_order_id: str = "41", **changes: Any) -> Amend:
    fields: dict[str, Any] = {
        "client_order_id": "uni-x",
        "venue_order_id": venue_order_id,
        "instrument": listed(),
        "amend_id": "a",
        "order": place(),
    }
    return Amend(**{**fields, **changes})


@pytest.mark.parametrize(
    ("filled", "new", "meaning", "quantity"),
    [
        (0, None, "remainder", 3),
        (1, None, "remainder", 2),
        (1, 5, "remainder", 4),
        (1, 5, "total", 5),
        (1, None, "total", 3),
    ],
)
def test_a_changed_quantity_counts_what_was_filled_or_not(
    filled: int, new: int | None, meaning: str, quantity: int
) -> None:
    command = amend(filled=Decimal(filled), new_quantity=None if new is None else Decimal(new))
    assert worded(command, amend_quantity=meaning)[2]["quantity"] == quantity


def test_a_changed_order_is_told_whole_with_its_comment() -> None:
    opcode, order_id, body = worded(amend(new_price=Decimal(302)))
    assert (opcode, order_id) == ("update:limit", "41")
    assert body == {
        "side": "buy",
        "quantity": 3,
        "price": 302,
        "instrument": {"symbol": "SBER", "exchange": "MOEX", "instrumentGroup": "TQBR"},
        "comment": "uni-x",
        "user": {"portfolio": "D10001"},
    }


def test_a_stop_limit_order_is_changed_as_what_it_is_now() -> None:
    stop = place(order_type=OrderType.STOP_LIMIT, trigger_price=Decimal(310))
    waiting = worded(amend("stop:7", order=stop, new_price=Decimal(312)))
    assert waiting[:2] == ("update:stopLimit", "7")
    assert (waiting[2]["price"], waiting[2]["triggerPrice"]) == (312, 310)
    triggered = worded(amend("42", order=stop, new_price=Decimal(312)))
    assert triggered[:2] == ("update:limit", "42")
    assert "triggerPrice" not in triggered[2]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (amend(order=None), "as it stands"),
        (amend(""), "as it stands"),
        (amend(order=place(order_type=OrderType.MARKET, price=None)), "not changed any more"),
        (amend(new_quantity=Decimal(2), filled=Decimal(2)), "it is cancelled"),
        (Cancel(client_order_id="uni-x", venue_order_id="", instrument=listed()), "not known yet"),
    ],
)
def test_a_change_that_cannot_be_said_is_not_said(command: Amend | Cancel, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        worded(command)


@given(st.decimals("0.0001", "99999", places=4), st.integers(1, 10**6))
def test_prices_and_quantities_go_out_digit_by_digit(price: Decimal, quantity: int) -> None:
    wording = Wording.of(ALOR.options)
    text = encode(said(place(price=price, quantity=Decimal(quantity)), REF, wording).body)
    body = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode(text)
    assert (Decimal(body["price"]), body["quantity"]) == (price, quantity)


# ---- Answers


@pytest.mark.parametrize(
    ("status", "words", "kind", "again", "gone"),
    [
        (400, "Нехватка средств по лимитам клиента", Refused, False, False),
        (400, "words that nobody has heard before", Refused, False, False),
        (400, "Order to cancel not found", Refused, False, True),
        (404, "", Refused, False, True),
        (401, "Invalid JWT token!", Refused, True, False),
        (403, "", Refused, False, False),
        (429, "", Refused, True, False),
        (400, "Command Timeout", Unknown, False, False),
        (400, "Request with such Guid was already handled", Unknown, False, False),
        (408, "", Unknown, False, False),
        (500, "", Unknown, False, False),
        (502, "Order to cancel not found", Unknown, False, False),
        (302, "", Unknown, False, False),
    ],
)
def test_a_refusal_of_a_cancellation_means_what_it_says(
    status: int, words: str, kind: type, again: bool, gone: bool
) -> None:
    became = outcome(Cancel(client_order_id="", venue_order_id="41", instrument=listed()), status, words, "")
    assert isinstance(became, kind)
    if isinstance(became, Refused):
        assert (became.again, became.target_gone) == (again, gone)


def test_an_answer_without_a_number_tells_nothing_of_a_new_order() -> None:
    assert isinstance(outcome(place(), 200, "success", ""), Unknown)
    assert outcome(place(), 200, "success", "41") == Accepted("41")


@given(st.integers(100, 599), st.text(max_size=40))
def test_every_answer_has_a_class(status: int, words: str) -> None:
    error_class, _ = errors.meaning(status, words)
    assert (error_class is ErrorClass.UNKNOWN_OUTCOME) or status < 500


# ---- Names


@pytest.mark.parametrize(
    ("symbol", "year", "name"),
    [
        ("SBER", 2026, "SBER/RUB"),
        ("CNYRUB_TOM", 2026, "CNY/RUB"),
        ("CNYRUB_TOD", 2026, "CNY/RUB_TOD"),
        ("SRM6", 2026, "SR/RUB:RUB-2606"),
        ("SBRF-6.26", 2031, "SR/RUB:RUB-2606"),
        ("SiZ6", 2025, "SI/RUB:RUB-2612"),
        ("Si-12.26", 2025, "SI/RUB:RUB-2612"),
        ("NOBODY-6.26", 2026, "NOBODY-6.26"),
        ("Si-6.26M180626CA75000", 2026, "Si-6.26M180626CA75000"),
        ("[N/A]", 2026, "[N/A]"),
    ],
)
def test_symbols_have_one_name_whichever_way_they_are_spelt(symbol: str, year: int, name: str) -> None:
    assert name_of(symbol, year) == name


@pytest.mark.parametrize("symbol", ["", "A B", "A/B", "A:B", "\x00", "Ж", "x" * 41])
def test_what_cannot_be_a_symbol_has_no_name(symbol: str) -> None:
    with pytest.raises(ValueError, match="no symbol"):
        name_of(symbol, 2026)


def test_a_future_counts_for_what_a_step_of_its_price_is_worth() -> None:
    assert (FUTURE.kind, FUTURE.name, FUTURE.multiplier) == (InstrumentKind.FUTURE, "SR/RUB:RUB-2612", 2)
    assert FUTURE.settled_daily


@pytest.mark.parametrize(
    "fields",
    [
        {"lotsize": Decimal(0)},
        {"minstep": Decimal(0)},
        {"currency": "USD"},
        {"primary_board": "SMAL"},
        {"board": "ROPD", "primary_board": "ROPD"},
        {"symbol": "SRZ6", "board": "RFUD", "primary_board": "RFUD"},
        {"symbol": "SRZ6"},
    ],
)
def test_what_cannot_be_expressed_without_guessing_is_not_listed(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        listed(**fields)


def test_bonds_are_listed_but_not_traded() -> None:
    assert not listed("SU26238RMFS4", "TQOB").tradable


# ---- Numbers, times, ids


@given(st.integers(0, 9_999_999_999_999))
def test_a_moment_is_read_back_as_it_was_written(at_ms: int) -> None:
    assert moment(iso(at_ms)) == at_ms


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("2026-01-01T00:00:01.1234567Z", 1767225601123),
        ("2026-01-01T00:00:01Z", 1767225601000),
        ("2026-01-01T00:00:01.5", 1767225601500),
        ("2026-01-01T00:00:01.5+00:00", 1767225601500),
    ],
)
def test_moments_come_with_any_number_of_digits(text: str, at_ms: int) -> None:
    assert moment(text) == at_ms


@pytest.mark.parametrize(
    "text",
    ["", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "1767225600", "2026-01-01T00:00:00+03:00"],
)
def test_anything_else_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match=r"no moment|month"):
        moment(text)


@given(st.integers(0, 2**128 - 1))
def test_an_id_is_ours_when_it_was_made_of_one_of_our_identities(value: int) -> None:
    assert ids.owns(ids.render(value)) is (UUID(int=value).version == 5)
    assert len(ids.render(value)) <= 100


@given(st.text(max_size=30))
def test_any_text_may_be_a_comment_of_somebody_elses(text: str) -> None:
    assert ids.owns(text) is False
    assert ids.owns(f"uni-{text}") in (True, False)
