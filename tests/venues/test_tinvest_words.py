"""T-Invest's numbers, names, requests and answers, by themselves."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.model import Secret
from engine.core.facts import Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.orders import Accepted, Amend, Cancel, Command, OrderType, Place, Refused, Unknown
from engine.core.venue import Request, Response
from engine.venues import venues
from engine.venues.tinvest.casing import camel, camel_name
from engine.venues.tinvest.names import Names, symbol_for
from engine.venues.tinvest.numbers import Money, instant, integer, moment, number, parts
from engine.venues.tinvest.rows import Operation, StreamOrder, status_of
from tests.venues.tinvest_talk import Catalogue

D = Decimal
VENUE = venues()["tinvest"]
KEY = "3c9a4b1e-52c7-5d1f-9b7e-0a1b2c3d4e5f"
SBER = Instrument(
    name="SBER/RUB",
    venue="tinvest",
    kind=InstrumentKind.SPOT,
    base="SBER",
    quote="RUB",
    settle="RUB",
    unit="lot",
    multiplier=D(10),
    quantity_step=D(1),
    min_quantity=D(1),
    price_tick=D("0.01"),
    venue_ref="u-1|TQBR|SBER|10",
)


# ---- numbers


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ({"units": "-200", "nano": -200_000_000}, "-200.2"),
        ({"units": "0", "nano": -10_000_000}, "-0.01"),
        ({"units": "-0", "nano": -10_000_000}, "-0.01"),
        ({"units": 305, "nano": 90_000_000}, "305.09"),
        ({"units": "7"}, "7"),
        ({"nano": 1}, "0.000000001"),
        ({}, "0"),
        ({"units": None, "nano": None}, "0"),
        ({"units": "", "nano": 0}, "0"),
    ],
)
def test_money_is_units_and_billionths_of_one_sign(written: Any, value: str) -> None:
    assert number(msgspec.convert(written, Money)) == D(value)


@pytest.mark.parametrize(
    "written",
    [
        {"units": "1", "nano": -1},
        {"units": "-1", "nano": 1},
        {"units": "0", "nano": 1_000_000_000},
        {"units": "1.5", "nano": 0},
        {"units": "NaN"},
        {"units": "1e9"},
        {"units": "٣"},
        {"units": str(2**63)},
        {"units": "9" * 40},
    ],
)
def test_what_is_no_money_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        number(msgspec.convert(written, Money))


@given(st.decimals(min_value=-(10**15), max_value=10**15, places=9))
def test_what_is_sent_reads_as_it_was_and_both_parts_carry_the_sign(value: Decimal) -> None:
    sent = parts(value)
    units, nano = int(str(sent["units"])), int(str(sent["nano"]))
    assert units * nano >= 0
    assert number(msgspec.convert(sent, Money)) == value


@pytest.mark.parametrize("value", ["0.0000000001", "NaN", "Infinity", "1e30"])
def test_nothing_is_rounded_on_its_way_out(value: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parts(D(value))


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("2026-01-01T00:00:00Z", 1_767_225_600_000),
        ("2026-01-01T00:00:00.5Z", 1_767_225_600_500),
        ("2026-01-01T00:00:00.974035911Z", 1_767_225_600_974),
        ("2026-01-01T00:00:00.000001+00:00", 1_767_225_600_000),
        ("1970-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        (None, None),
    ],
)
def test_times_have_fractions_of_any_length(text: str | None, at_ms: int | None) -> None:
    assert moment(text) == at_ms


@pytest.mark.parametrize("text", ["2026-01-01", "yesterday", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00+03:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        moment(text)


@given(st.integers(86_400_000, 9_000_000_000_000))
def test_a_time_that_is_sent_reads_as_it_was(at_ms: int) -> None:
    assert moment(instant(at_ms)) == at_ms


@given(st.text(max_size=30) | st.integers())
def test_an_integer_is_one_or_it_is_refused(value: str | int) -> None:
    try:
        read = integer(value)
    except ValueError:
        return
    assert -(2**63) <= read < 2**63


# ---- names


def test_both_spellings_of_a_frame_are_one() -> None:
    assert camel_name("first_1min_candle_date") == "first1minCandleDate"
    assert camel_name("orderState") == "orderState"
    assert json.loads(camel(b'{"order_state":{"order_id":"1","trades":[{"trade_id":"2"}]},"itemsCount":1}')) == {
        "orderState": {"orderId": "1", "trades": [{"tradeId": "2"}]},
        "itemsCount": 1,
    }


@pytest.mark.parametrize(
    ("class_code", "ticker", "name"),
    [
        ("TQBR", "SBER", "SBER/RUB"),
        ("TQTF", "TMOS", "TMOS/RUB"),
        ("TQOB", "SU26238RMFS4", "SU26238RMFS4/RUB"),
        ("CETS", "CNYRUB_TOM", "CNY/RUB"),
        ("CETS", "USD000UTSTOM", "USD/RUB"),
        ("SPBFUT", "SRH6", "SR/RUB:RUB-2603"),
        ("SPBXM", "AAPL", "AAPL_SPBXM"),
        ("SPBOPT", "SR300CC6", "SR300CC6_SPBOPT"),
        ("", "SBER", "SBER"),
    ],
)
def test_what_trades_on_the_exchanges_own_boards_has_a_unified_name(class_code: str, ticker: str, name: str) -> None:
    assert Names(Catalogue()).known("", class_code, ticker, 1_767_225_600_000).name == name


def test_a_uid_that_is_listed_names_its_instrument_whatever_else_is_said() -> None:
    names = Names(Catalogue({"SBER/RUB": SBER}))
    assert names.known("u-1", None, None, 0).name == "SBER/RUB"
    assert names.known("u-1", "TQBR", "SBERP", 0).lots(30) == 3
    with pytest.raises(LookupError, match="not listed"):
        names.known("u-2", "TQBR", "GAZP", 0).lots(10)
    with pytest.raises(ValueError, match="names no"):
        names.known(None, None, None, 0)


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("SBER/RUB", "SBER_TQBR"), ("CNY/RUB", "CNYRUB_TOM_CETS"), ("CNY/RUB_TOD", "CNYRUB_TOD_CETS"),
     ("SR/RUB:RUB-2603", "SRH6_SPBFUT")],
)  # fmt: skip
def test_our_names_have_symbols_before_anything_is_listed(name: str, symbol: str) -> None:
    assert symbol_for(name) == symbol


# ---- rows


@pytest.mark.parametrize(
    ("state", "requested", "executed", "completed", "status"),
    [
        ("EXECUTION_REPORT_STATUS_NEW", 3, 0, False, "working"),
        ("EXECUTION_REPORT_STATUS_PARTIALLYFILL", 3, 1, False, "working"),
        ("EXECUTION_REPORT_STATUS_PARTIALLYFILL", 3, 1, True, "cancelled"),
        ("EXECUTION_REPORT_STATUS_PARTIALLYFILL", 3, 3, True, "filled"),
        ("EXECUTION_REPORT_STATUS_FILL", 3, 3, True, "filled"),
        ("EXECUTION_REPORT_STATUS_CANCELLED", 3, 0, True, "cancelled"),
        ("EXECUTION_REPORT_STATUS_REJECTED", 3, 0, True, "rejected"),
        ("EXECUTION_REPORT_STATUS_OF_TOMORROW", 3, 0, False, "working"),
        (9, 3, 0, True, "cancelled"),
        (None, 3, 0, False, "working"),
    ],
)
def test_an_order_has_ended_when_it_says_so_or_tells_when(
    state: Any, requested: int, executed: int, completed: bool, status: str
) -> None:
    assert status_of(state, requested, executed, completed=completed).value == status


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("row", [StreamOrder, Operation])
@given(value=json_values)
def test_defaults_nulls_and_absences_are_alike_and_all_else_is_read_or_refused(row: Any, value: Any) -> None:
    empty = msgspec.convert({}, row)
    assert msgspec.convert({"instrumentUid": None, "trades": None, "tradesInfo": None}, row, strict=False) == empty
    try:
        msgspec.json.decode(json.dumps({"orderId": value, "trades": value, "payment": value}), type=row)
    except msgspec.ValidationError:
        return


# ---- requests


def rest(**options: str) -> Any:
    return VENUE.rest(Catalogue(), ref="2000000001", options={**VENUE.options, "replacing": "on", **options})


def place(**changes: Any) -> Place:
    fields: dict[str, Any] = {
        "client_order_id": KEY,
        "instrument": SBER,
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
        "quantity": D(3),
        "price": D("305.1"),
    }
    return Place(**{**fields, **changes})


def body(request: Request) -> Any:
    return json.loads(request.body)


def test_a_limit_order_goes_out_as_the_contract_has_it() -> None:
    request = rest().orders_request([place()])
    assert request.path.endswith("v1.OrdersService/PostOrder")
    assert request.rules == ("post-order", "all")
    assert body(request) == {
        "accountId": "2000000001",
        "instrumentId": "u-1",
        "quantity": "3",
        "price": {"units": "305", "nano": 100_000_000},
        "direction": "ORDER_DIRECTION_BUY",
        "orderType": "ORDER_TYPE_LIMIT",
        "orderId": KEY,
        "timeInForce": "TIME_IN_FORCE_DAY",
        "confirmMarginTrade": False,
    }


def test_options_change_how_orders_are_placed() -> None:
    request = rest(placing="async", confirm_margin="yes").orders_request([place()])
    assert request.path.endswith("/PostOrderAsync")
    assert request.rules == ("post-order-async", "all")
    assert body(request)["confirmMarginTrade"] is True


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"order_type": OrderType.IOC}, "timeInForce", "TIME_IN_FORCE_FILL_AND_KILL"),
        ({"order_type": OrderType.FOK}, "timeInForce", "TIME_IN_FORCE_FILL_OR_KILL"),
        ({"order_type": OrderType.MARKET, "price": None}, "orderType", "ORDER_TYPE_MARKET"),
        ({"side": Side.SELL}, "direction", "ORDER_DIRECTION_SELL"),
        (
            {"order_type": OrderType.STOP, "price": None, "trigger_price": D(310)},
            "stopOrderType",
            "STOP_ORDER_TYPE_STOP_LOSS",
        ),
        (
            {"order_type": OrderType.STOP_LIMIT, "trigger_price": D(310)},
            "exchangeOrderType",
            "EXCHANGE_ORDER_TYPE_LIMIT",
        ),
    ],
)
def test_every_kind_of_order_has_its_words(changes: dict[str, Any], field: str, value: str) -> None:
    assert body(rest().orders_request([place(**changes)]))[field] == value


FUTURE = msgspec.structs.replace(
    SBER, kind=InstrumentKind.FUTURE, refuses=(OrderType.FOK,), venue_ref="f-1|SPBFUT|SRH6|1"
)


@pytest.mark.parametrize(
    "command",
    [
        place(order_type=OrderType.POST_ONLY),
        place(visible_quantity=D(1)),
        place(reduce_only=True),
        place(position_side="long"),
        place(price=None),
        place(order_type=OrderType.MARKET),
        place(trigger_price=D(1)),
        place(order_type=OrderType.STOP, price=None),
        place(order_type=OrderType.FOK, instrument=FUTURE),
        place(quantity=D("0.5")),
        place(quantity=D(0)),
        place(price=D("0.00000000001")),
        place(client_order_id="no uuid"),
        place(instrument=msgspec.structs.replace(SBER, venue_ref="")),
        Amend(client_order_id=KEY, venue_order_id="1", instrument=SBER, amend_id=KEY, new_price=D(1)),
        Amend(client_order_id=KEY, venue_order_id="stop:1", instrument=SBER, amend_id=KEY, order=place()),
        Amend(client_order_id=KEY, venue_order_id="1", instrument=SBER, amend_id=KEY, order=place(), filled=D(3)),
        Cancel(client_order_id="", venue_order_id="", instrument=SBER),
    ],
    ids=lambda c: f"{type(c).__name__} {msgspec.json.encode(c).decode()[-90:]}",
)
def test_what_cannot_be_said_exactly_is_not_said_at_all(command: Command) -> None:
    with pytest.raises(ValueError, match=r"."):
        rest().orders_request([command])


def test_no_replacement_is_sent_unless_somebody_follows_it() -> None:
    with pytest.raises(ValueError, match="nobody would follow"):
        rest(replacing="off").orders_request([AMEND])


def test_orders_go_one_by_one() -> None:
    with pytest.raises(ValueError, match="one order at a time"):
        rest().orders_request([place(), place()])


def test_a_replacement_asks_for_what_is_left() -> None:
    amend = Amend(
        client_order_id=KEY,
        venue_order_id="61950000017",
        instrument=SBER,
        amend_id="5eed5eed5eed4eed8eed5eed5eed5eed",
        new_quantity=D(5),
        order=place(),
        filled=D(2),
    )
    assert body(rest().orders_request([amend])) == {
        "accountId": "2000000001",
        "orderId": "61950000017",
        "orderIdType": "ORDER_ID_TYPE_EXCHANGE",
        "idempotencyKey": "5eed5eed-5eed-4eed-8eed-5eed5eed5eed",
        "quantity": "3",
        "price": {"units": "305", "nano": 100_000_000},
        "confirmMarginTrade": False,
    }


@pytest.mark.parametrize(
    ("venue_order_id", "asked"),
    [
        ("61950000017", {"orderId": "61950000017", "orderIdType": "ORDER_ID_TYPE_EXCHANGE"}),
        ("", {"orderId": KEY, "orderIdType": "ORDER_ID_TYPE_REQUEST"}),
        (KEY, {"orderId": KEY, "orderIdType": "ORDER_ID_TYPE_REQUEST"}),
        ("stop:s-1", {"stopOrderId": "s-1"}),
    ],
)
def test_a_cancel_names_the_order_by_what_is_known_of_it(venue_order_id: str, asked: dict[str, str]) -> None:
    request = rest().orders_request([Cancel(client_order_id=KEY, venue_order_id=venue_order_id, instrument=SBER)])
    assert body(request) == {"accountId": "2000000001", **asked}


def test_the_token_goes_into_the_header_and_nowhere_else() -> None:
    request = rest().orders_request([place()])
    signed = VENUE.sign(request, {"token": Secret("t.secret")}, "prod", 0)
    assert ("Authorization", "Bearer t.secret") in signed.headers
    assert b"t.secret" not in signed.body


# ---- answers

CANCEL = Cancel(client_order_id=KEY, venue_order_id="61950000017", instrument=SBER)
AMEND = Amend(client_order_id=KEY, venue_order_id="1", instrument=SBER, amend_id=KEY, order=place())


def outcome(command: Command, status: int, answer: Any) -> Any:
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    (found,) = rest().read_outcomes([command], Response(status=status, body=raw))
    return found


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, {"code": 13, "message": "internal", "description": "70001"}),
        (503, b"<html>"),
        (504, b""),
        (502, {"orderId": "1"}),
        (408, {}),
        (400, {"code": 3, "message": "duplicate", "description": "30057"}),
        (400, {"code": 13, "message": "70002", "description": ""}),
        (400, {"code": 14, "message": "unavailable"}),
        (418, b"teapot"),
        (200, b"<html>"),
        (200, {}),
        (200, {"orderId": "", "orderRequestId": None}),
        (200, {"orderId": "5", "orderRequestId": "7d5e4d0a-1111-4a57-9d53-0d6f6f2f1a10"}),
    ],
)
def test_what_an_answer_does_not_say_plainly_is_unknown(status: int, answer: Any) -> None:
    assert isinstance(outcome(place(), status, answer), Unknown)


@pytest.mark.parametrize(
    ("status", "answer", "code", "again"),
    [
        (400, {"code": 3, "message": "not enough assets for a margin trade", "description": "30042"}, "30042", False),
        (400, {"code": 3, "message": "x", "description": 30078}, "30078", False),
        (429, {"code": 8, "message": "x", "description": "80002"}, "80002", True),
        (429, b"slow down", "HTTP 429", True),
        (401, {"code": 16, "message": "x", "description": "40003"}, "40003", False),
        (403, b"<html>", "HTTP 403", False),
        (404, {"code": 5, "message": "x", "description": "50002"}, "50002", False),
        (400, {"code": 3, "message": "of tomorrow", "description": "30999"}, "30999", False),
        (200, {"orderId": "1", "executionReportStatus": "EXECUTION_REPORT_STATUS_REJECTED"}, "rejected", False),
    ],
)
def test_a_refusal_is_definite(status: int, answer: Any, code: str, again: bool) -> None:
    refused = outcome(place(), status, answer)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.again, refused.target_gone) == (code, again, False)
    assert refused.reason


@pytest.mark.parametrize("answer", [{"description": "30059", "code": 3}, {"description": "50005", "code": 5}])
@pytest.mark.parametrize("command", [CANCEL, AMEND])
def test_what_is_not_at_work_any_more_is_asked_about(command: Command, answer: Any) -> None:
    refused = outcome(command, 400, answer)
    assert isinstance(refused, Refused)
    assert refused.target_gone


def test_acceptances_name_the_order() -> None:
    assert outcome(place(), 200, {"orderId": "619", "orderRequestId": KEY}) == Accepted("619")
    assert outcome(place(), 200, {"orderRequestId": KEY, "tradeIntentId": "x"}) == Accepted(KEY)
    assert outcome(place(), 200, {"stopOrderId": "s-1", "orderRequestId": KEY}) == Accepted("stop:s-1")
    assert outcome(CANCEL, 200, {"time": "2026-01-01T00:00:00Z"}) == Accepted("61950000017")
    assert isinstance(outcome(CANCEL, 200, {}), Unknown)
