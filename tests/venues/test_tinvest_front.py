"""The simulated T-Invest by itself, spoken to by a client that is not our dialect. Dossier §9, point by point."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from engine.venues.tinvest.front import STAGE
from tests.venues.tinvest_talk import CONTRACT, Floor, Wire

D = Decimal
ORDERS = f"/ws/{CONTRACT}OrdersStreamService/OrderStateStream"
POSITIONS = f"/ws/{CONTRACT}OperationsStreamService/PositionsStream"
MARKET = f"/ws/{CONTRACT}MarketDataStreamService/MarketDataStream"
KEY = "6f1c6a64-7d5e-4d0a-9c0a-3a0f7a0b5d11"
UID = "e6123145-0000-4000-8000-000000000001"


def order(**changes: Any) -> dict[str, Any]:
    return {
        "accountId": "2000000001",
        "instrumentId": UID,
        "quantity": "3",
        "price": {"units": "300", "nano": 100_000_000},
        "direction": "ORDER_DIRECTION_BUY",
        "orderType": "ORDER_TYPE_LIMIT",
        "orderId": KEY,
        **changes,
    }


def opened(floor: Floor, target: str = ORDERS, protocols: str = "json") -> Wire:
    token = floor.people["tinvest-01"]["token"]
    wire = floor.dial(target, authorization=f"Bearer {token}", sec_websocket_protocol=protocols)
    assert isinstance(wire, Wire)
    return wire


# ---- openings


@pytest.mark.parametrize("target", ["/ws/", "/ws", "/elsewhere", f"/ws/{CONTRACT}OrdersService/PostOrder"])
def test_where_there_is_no_stream_there_is_404(target: str) -> None:
    assert Floor().dial(target, authorization="Bearer x") == 404


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer t.wrong"}, {"authorization": "Basic x"}, {"sec_websocket_protocol": "json"}],
)
def test_without_a_token_there_is_401(headers: dict[str, str]) -> None:
    assert Floor().dial(ORDERS, **headers) == 401


def test_the_token_may_stand_in_either_place_and_no_subprotocol_is_needed() -> None:
    floor = Floor()
    token = floor.people["tinvest-01"]["token"]
    for headers, chosen in (
        ({"authorization": f"Bearer {token}"}, ""),
        ({"authorization": f"Bearer {token}", "sec_websocket_protocol": "json"}, "json"),
        ({"sec_websocket_protocol": f"json-proto, {token}"}, "json-proto"),
    ):
        wire = floor.dial(ORDERS, **headers)
        assert isinstance(wire, Wire)
        assert wire.session.subprotocol == chosen
        assert wire.heard() == [], "nothing is said before the first request"


@pytest.mark.parametrize(
    "frame",
    [
        "{",
        "[]",
        "null",
        {"accounts": "2000000001"},
        {"accounts": [], "orders": []},
        {"accounts": [], "pingDelayMillis": "soon"},
    ],
)
def test_a_request_that_does_not_fit_ends_the_stream(frame: Any) -> None:
    wire = opened(Floor())
    wire.say(frame)
    (error,) = wire.heard()
    assert error["code"] == 3
    assert wire.closed is not None
    assert wire.closed[0] == 4003


def test_a_market_request_with_two_members_or_an_unknown_action_ends_the_stream() -> None:
    for frame in (
        {"ping": {}, "getMySubscriptions": {}},
        {"subscribeInfoRequest": {"subscriptionAction": "SUBSCRIPTION_ACTION_WISH", "instruments": []}},
        {"subscribeEverything": {}},
    ):
        wire = opened(Floor(), MARKET)
        wire.say(frame)
        assert wire.closed is not None
        assert wire.closed[0] == 4003


@pytest.mark.parametrize("casing", ["accounts", "snake"])
def test_both_spellings_come_in_and_the_subprotocol_decides_what_goes_out(casing: str) -> None:
    floor = Floor()
    wire = opened(floor, POSITIONS, "json-proto" if casing == "snake" else "json")
    snake = {"accounts": ["2000000001"], "with_initial_positions": True, "ping_settings": {"ping_delay_ms": 5000}}
    camel = {"accounts": ["2000000001"], "withInitialPositions": True, "pingSettings": {"pingDelayMs": 5000}}
    wire.say(snake if casing == "snake" else camel)
    ack, whole = wire.heard()
    assert ("tracking_id" if casing == "snake" else "trackingId") in ack["subscriptions"]
    assert ("initial_positions" if casing == "snake" else "initialPositions") in whole


@pytest.mark.parametrize(("defaults", "seen"), [("emit", "0"), ("drop", "absent"), ("null", "0")])
def test_defaults_are_written_left_out_or_null(defaults: str, seen: str) -> None:
    floor = Floor(defaults=defaults)
    wire = opened(floor)
    wire.say({"accounts": ["2000000001"]})
    floor.post("OrdersService/PostOrder", order(price={"units": "290"}))
    floor.carry()
    event = wire.heard()[-1]["orderState"]
    assert event.get("lotsExecuted", "absent") == seen
    assert "completionTime" not in event, "what is not set is absent in any case"
    if defaults == "null":
        assert event["trades"] is None


def test_everything_of_the_token_is_told_where_no_account_is_named() -> None:
    wire = opened(Floor(accounts=5))
    wire.say({"accounts": []})
    assert wire.heard()[0]["subscription"]["accounts"] == [f"200000000{n}" for n in range(1, 5)]


# ---- orders


def test_the_first_word_of_an_order_has_another_id_and_the_number_comes_later() -> None:
    floor = Floor()
    wire = opened(floor)
    wire.say({"accounts": ["2000000001"]})
    wire.heard()
    status, posted, _ = floor.post("OrdersService/PostOrder", order(price={"units": "290"}))
    assert (status, posted["executionReportStatus"]) == (200, "EXECUTION_REPORT_STATUS_NEW")
    (first,) = wire.heard()
    assert "-" in first["orderState"]["orderId"]
    floor.pass_ms(60, 10)
    assert wire.heard() == []
    floor.pass_ms(40, 10)
    (second,) = wire.heard()
    assert second["orderState"]["orderId"] == posted["orderId"]
    assert second["orderState"]["orderRequestId"] == first["orderState"]["orderRequestId"] == KEY


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"accountId": "2999999999"}, "50004"),
        ({"instrumentId": "nothing"}, "50002"),
        ({"quantity": ""}, "30015"),
        ({"quantity": "0"}, "30016"),
        ({"quantity": "many"}, "30016"),
        ({"direction": "ORDER_DIRECTION_UP"}, "30019"),
        ({"orderType": "ORDER_TYPE_ICEBERG"}, "30026"),
        ({"orderId": ""}, "30029"),
        ({"orderId": "no uuid"}, "30028"),
        ({"orderId": "x" * 37}, "30055"),
        ({"price": None}, "30017"),
        ({"price": {"units": "1", "nano": -1}}, "30017"),
        ({"price": {"units": "300", "nano": 105_000_000}}, "30078"),
        ({"price": {"units": "900"}}, "30099"),
        ({"quantity": "900000"}, "30042"),
        ({"direction": "ORDER_DIRECTION_SELL", "quantity": "90000"}, "30042"),
        ({"timeInForce": "TIME_IN_FORCE_FOR_EVER"}, "30254"),
    ],
)
@pytest.mark.parametrize("description", ["text", "number"])
def test_an_order_that_does_not_fit_is_refused_by_its_code(
    changes: dict[str, Any], code: str, description: str
) -> None:
    floor = Floor(description=description)
    status, error, _ = floor.post("OrdersService/PostOrder", order(**changes))
    assert status in (400, 404)
    assert error["description"] == (code if description == "text" else int(code))
    assert floor.front.account("tinvest-01").orders == {}


def test_names_and_numbers_of_enums_and_other_ids_of_instruments_are_understood() -> None:
    floor = Floor()
    floor.quote()
    asked = order(direction=1, orderType=2, instrumentId="SBER_TQBR")
    asked["order_id"] = asked.pop("orderId")
    status, posted, _ = floor.post("OrdersService/PostOrder", asked)
    assert (status, posted["executionReportStatus"]) == (200, "EXECUTION_REPORT_STATUS_FILL")


def test_what_rests_blocks_money_and_securities() -> None:
    floor = Floor()
    floor.post("OrdersService/PostOrder", order(price={"units": "290"}))
    sell = order(direction="ORDER_DIRECTION_SELL", price={"units": "320"}, quantity="2", orderId=KEY.replace("6", "7"))
    floor.post("OrdersService/PostOrder", sell)
    floor.pass_ms(200)
    _, positions, _ = floor.post("OperationsService/GetPositions", {"accountId": "2000000001"})
    assert positions["blocked"] == [{"currency": "rub", "units": "8700", "nano": 0}]
    (security,) = positions["securities"]
    assert security["blocked"] == "20"
    total = floor.front.account("tinvest-01").cash["SBER"]
    assert int(security["balance"]) + 20 == total


def test_reads_lag_as_the_rules_say() -> None:
    floor = Floor(positions_lag_ms=500, operations_lag_ms=3_000)
    floor.pass_ms(1_000)
    floor.quote()
    floor.post("OrdersService/PostOrder", order())
    before = floor.front.account("tinvest-01").cash["SBER"] - 30

    def pieces() -> int:
        _, answer, _ = floor.post("OperationsService/GetPositions", {"accountId": "2000000001"})
        return int(answer["securities"][0]["balance"])

    def operations() -> list[str]:
        asked = {"accountId": "2000000001", "from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}
        _, answer, _ = floor.post("OperationsService/GetOperationsByCursor", asked)
        return [row["type"].removeprefix("OPERATION_TYPE_") for row in answer["items"]]

    assert pieces() == before
    floor.pass_ms(600)
    assert pieces() == before + 30
    assert operations() == []
    floor.pass_ms(3_000)
    assert operations() == ["BROKER_FEE", "BUY", "INPUT"], "the newest first"


# ---- limits and life


def test_limits_are_counted_by_login_told_in_headers_and_refused_beyond() -> None:
    floor = Floor(accounts=5)
    for _ in range(100):
        floor.now_ms += 30
        status, _, response = floor.post("UsersService/GetInfo", {})
        assert status == 200
    assert response.headers["x-ratelimit-limit"] == "100, 100;w=60"
    assert "grpc-metadata-x-tracking-id" in response.headers
    status, error, _ = floor.post("UsersService/GetInfo", {}, "tinvest-02")
    assert (status, error["description"]) == (429, "80002")
    assert floor.post("UsersService/GetInfo", {}, "tinvest-05")[0] == 200, "another login"
    assert floor.front.windows.uses["users"].refused == 1
    floor.pass_ms(60_000, 1_000)
    assert floor.post("UsersService/GetInfo", {})[0] == 200


@pytest.mark.parametrize(("prefix", "names"), [("bare", {""}), ("gateway", {"grpc-metadata-"})])
def test_the_limits_headers_have_one_prefix_or_none(prefix: str, names: set[str]) -> None:
    _, _, response = Floor(header_prefix=prefix).post("UsersService/GetInfo", {})
    assert {n.partition("x-ratelimit")[0] for n in response.headers if "x-ratelimit-limit" in n} == names


def test_the_tariff_tells_how_many_streams_are_open() -> None:
    floor = Floor()
    wire = opened(floor, POSITIONS)
    wire.say({"accounts": ["2000000001"]})
    _, tariff, _ = floor.post("UsersService/GetUserTariff", {})
    (row,) = [x for x in tariff["streamLimits"] if x["streams"][0].endswith("PositionsStream")]
    assert (row["limit"], row["open"]) == (3, 1), "with one more than there is, as head room"


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("OrdersService/NoSuch", {}, 404),
        ("OrdersService/GetOrders", b"{", 400),
        ("OrdersService/GetOrders", [], 400),
        ("OrdersService/GetOrders", {"accountId": "2999999999"}, 404),
        ("OrdersService/GetOrders", {"accountId": "2000000001", "advancedFilters": {"executionStatus": ["X"]}}, 400),
        ("OperationsService/GetOperationsByCursor", {"accountId": "2000000001", "limit": 1001}, 400),
        ("OperationsService/GetOperationsByCursor", {"accountId": "2000000001", "from": "soon"}, 400),
        ("StopOrdersService/CancelStopOrder", {"accountId": "2000000001", "stopOrderId": "x"}, 404),
    ],
)
def test_a_call_that_does_not_fit_has_a_status_and_a_code(method: str, body: Any, status: int) -> None:
    answered, error, _ = Floor().post(method, body)
    assert answered == status
    assert error["code"] in (3, 5)


def test_pings_come_only_where_nothing_else_was_said() -> None:
    floor = Floor()
    wire = opened(floor)
    wire.say({"accounts": ["2000000001"], "pingDelayMillis": 2000})
    wire.heard()
    floor.pass_ms(1_500)
    floor.post("OrdersService/PostOrder", order(price={"units": "290"}))
    floor.pass_ms(1_500)
    assert all("orderState" in frame for frame in wire.heard())
    floor.pass_ms(1_000)
    (ping,) = wire.heard()
    assert ping["ping"]["time"].endswith("Z")


def test_a_message_about_one_account_is_marked_with_it_so_that_faults_find_it() -> None:
    floor = Floor()
    wire = opened(floor)
    wire.say({"accounts": ["2000000001", "2000000002"]})
    floor.front.drain()
    floor.front.place_elsewhere(
        "tinvest-02", {"instrument": "SBER", "side": "buy", "quantity": 1, "price": "290"}, floor.now_ms
    )
    assert {o.account for o in floor.front.drain()} == {"tinvest-02"}
    assert tuple(wire.session.accounts) == ("tinvest-01", "tinvest-02")


def test_a_duplicated_event_comes_twice() -> None:
    floor = Floor()
    wire = opened(floor)
    wire.say({"accounts": ["2000000001"]})
    wire.heard()
    floor.faults.begin("duplicate", None, floor.now_ms)
    floor.post("OrdersService/PostOrder", order(price={"units": "290"}))
    first, again = wire.heard()
    assert first == again


def test_the_broker_closes_a_position_with_an_order_of_its_own() -> None:
    floor = Floor()
    floor.quote("SRZ6", "29990", "30010")
    floor.front.place_elsewhere("tinvest-01", {"instrument": "SRZ6", "side": "buy", "quantity": 2}, floor.now_ms)
    assert floor.front.account("tinvest-01").positions == {"SR/RUB:RUB-2612": 2}
    assert floor.front.command("liquidate", ["tinvest-01"], {"instrument": "SRZ6"}, floor.now_ms) == 1
    assert floor.front.account("tinvest-01").positions == {}
    assert [o.marker for o in floor.front.trading.customers["tinvest-01"].orders.values()] == ["UNKNOWN", "MARGIN"]


def test_at_the_end_of_a_session_the_exchange_cancels_what_rests() -> None:
    floor = Floor()
    floor.post("OrdersService/PostOrder", order(price={"units": "290"}))
    assert floor.front.command("cancel_all", ["tinvest-01"], {}, floor.now_ms) == 1
    _, answer, _ = floor.post("OrdersService/GetOrders", {"accountId": "2000000001"})
    assert answer["orders"] == []


def test_the_truth_has_the_columns_that_judges_read() -> None:
    floor = Floor()
    floor.quote()
    floor.post("OrdersService/PostOrder", order())
    (row,) = floor.front.truth("orders", "tinvest-01")
    assert (row["clOrdId"], row["state"], row["accFillSz"]) == (KEY, "filled", "3")
    (fill,) = floor.front.truth("fills", "tinvest-01")
    assert (fill["ordId"], fill["fillSz"], fill["fillPx"]) == (row["ordId"], "3", "300.10")
    assert {b["ccy"] for b in floor.front.truth("balances", "tinvest-01")} == {"RUB", "SBER"}
    assert floor.front.truth("positions", "tinvest-01") == []
    with pytest.raises(KeyError):
        floor.front.truth("secrets", "tinvest-01")


def test_the_same_seed_makes_the_same_venue_and_its_line_has_the_keys_of_the_contract() -> None:
    one, other = Floor(accounts=5), Floor(accounts=5)
    assert one.front.accounts() == other.front.accounts()
    line = {"rest": "r", "ws": "w", **one.front.describe()}
    assert [set(a) for a in json.loads(json.dumps(line))["accounts"]] == [{"name", "account_id", "token"}] * 5
    entries = STAGE.entries(line)
    assert len({e.credentials["token"] for e in entries}) == 2, "four accounts to a login"
    assert [e.ref for e in entries] == [a["account_id"] for a in one.front.accounts()]
