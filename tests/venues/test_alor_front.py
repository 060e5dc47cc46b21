"""The ALOR front as a client apart from our dialect sees it: the checklist of the dossier's §9."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from engine.core.venue import Call, Front
from engine.sim.faults import FaultPlan
from engine.sim.market import Market
from engine.sim.world import World
from engine.venues.alor.front import STAGE, front
from tests.venues.alor_talk import CWS, START_MS, WS, Floor, Json, Talk


def order(guid: str = "g", opcode: str = "create:limit", **changes: Any) -> Json:
    return {
        "opcode": opcode,
        "guid": guid,
        "side": "buy",
        "quantity": 3,
        "price": 299.5,
        "instrument": {"symbol": "SBER", "exchange": "MOEX", "instrumentGroup": "TQBR"},
        "comment": "mine",
        "user": {"portfolio": "D10001"},
        "timeInForce": "oneday",
        "checkDuplicates": True,
    } | changes


def commander(floor: Floor, token: str = "") -> Talk:
    talk = floor.connect(CWS)
    answer = talk.ask(opcode="authorize", guid="auth", token=token or floor.token())
    assert answer == {
        "requestGuid": "auth",
        "httpCode": 200,
        "message": "The connection has been initialized.",
    }
    return talk


def listener(floor: Floor, opcode: str = "OrdersGetAndSubscribeV2", **more: Any) -> tuple[Talk, list[Json]]:
    """A subscription, and all that was heard when it was made."""
    talk = floor.connect(WS)
    say = {"opcode": opcode, "guid": "sub", "portfolio": "D10001", "exchange": "MOEX", "token": floor.token()}
    talk.say({**say, **more})
    return talk, talk.heard()


def get(floor: Floor, target: str, token: str) -> tuple[int, Any]:
    response = floor.call("GET", target, authorization=f"Bearer {token}")
    assert response is not None
    return response.status, json.loads(response.body) if response.status == 200 else None


# ---- 1, 2: the door


def test_a_plain_websocket_is_not_acceptable_where_tls_is_asked_for() -> None:
    floor = Floor(plain_refused=True)
    plain = Call(method="GET", target=WS)
    behind_tls = Call(method="GET", target=WS, headers={"x-forwarded-proto": "https"})
    assert floor.front.accept(plain, START_MS) == 406
    assert not isinstance(floor.front.accept(behind_tls, START_MS), int)
    assert Floor().front.accept(Call(method="GET", target="/nowhere"), START_MS) == 404


def test_tokens_are_given_for_refresh_tokens_in_either_form() -> None:
    floor = Floor()
    refresh = floor.keys["alor-01"]["refresh_token"]
    by_query = floor.call("POST", f"/refresh?token={refresh}")
    assert by_query is not None
    claims = json.loads(base64.urlsafe_b64decode(json.loads(by_query.body)["AccessToken"].split(".")[1] + "=="))
    assert claims["exp"] == START_MS // 1000 + 1800
    assert claims["portfolios"] == "D10001 D10002"
    floor.pass_ms(1000)
    narrowed = floor.call("POST", "/refresh", json.dumps({"Token": refresh, "allowedPortfolios": ["D10002"]}).encode())
    assert narrowed is not None
    floor.pass_ms(1000)
    for method, target, status in (("GET", "/refresh", 405), ("POST", "/refresh?token=wrong", 403)):
        answer = floor.call(method, target)
        assert answer is not None
        assert answer.status == status
    talk = floor.connect(WS)
    say = {"opcode": "OrdersGetAndSubscribeV2", "exchange": "MOEX", "token": json.loads(narrowed.body)["AccessToken"]}
    assert talk.ask(**say, guid="a", portfolio="D10001")["httpCode"] == 403
    assert talk.ask(**say, guid="b", portfolio="D10002")["httpCode"] == 200


def test_the_token_service_fails_now_and_then_and_is_not_to_be_hurried() -> None:
    broken = Floor(refresh_502=1.0).call("POST", "/refresh?token=x")
    assert broken is not None
    assert broken.status == 502
    floor = Floor()
    target = f"/refresh?token={floor.keys['alor-01']['refresh_token']}"
    assert [r.status for r in (floor.call("POST", target) for _ in range(4)) if r] == [200, 200, 200, 429]
    assert floor.front.windows.uses["refresh"].refused == 1


# ---- 3 to 10: authorisation and identifiers


def test_a_bad_token_is_answered_and_ends_the_connection() -> None:
    talk = Floor().connect(CWS)
    assert talk.ask(opcode="authorize", guid="a", token="wrong") == {
        "requestGuid": "a",
        "httpCode": 401,
        "message": "Invalid JWT token!",
    }
    assert talk.closed is not None


@pytest.mark.parametrize("frame", [False, True])
def test_a_command_before_the_authorisation_ends_the_connection(frame: bool) -> None:
    floor = Floor(frame_before_close=frame)
    talk = floor.connect(CWS)
    talk.say(order())
    assert [f["httpCode"] for f in talk.heard()] == ([401] if frame else [])
    assert talk.closed is not None
    assert not floor.front.account("alor-01").orders


@pytest.mark.parametrize("opcode", ["ping", "create:limit", "nonsense", "authorize"])
def test_no_identifier_is_used_twice_whatever_it_was_for(opcode: str) -> None:
    floor = Floor()
    talk = commander(floor)
    talk.say(order("twice", opcode=opcode, token=floor.token()))
    talk.heard()
    before = len(floor.front.account("alor-01").orders)
    answer = talk.ask(**order("twice"))
    assert (answer["httpCode"], answer["message"]) == (400, "Request with such Guid was already handled")
    assert talk.closed is not None
    assert len(floor.front.account("alor-01").orders) == before
    other = commander(floor)
    assert other.ask(**order("twice"))["httpCode"] == 200, "connections are apart"


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("guid", ["", "x" * 51, None])
def test_an_identifier_has_up_to_fifty_symbols(closes: bool, guid: str | None) -> None:
    floor = Floor(long_guid_closes=closes)
    talk = commander(floor)
    assert talk.ask(**order(guid=guid))["httpCode"] == 400  # type: ignore[arg-type]
    assert (talk.closed is not None) is closes


def test_an_identifier_is_counted_as_it_reads_not_as_it_is_escaped() -> None:
    talk = commander(Floor())
    assert talk.ask(**order('"' * 50))["httpCode"] == 200
    assert talk.ask(**order("счёт-1"))["httpCode"] == 200


@pytest.mark.parametrize("closes", [False, True])
def test_opcodes_are_exact_but_for_the_two_spellings_of_stop_limit(closes: bool) -> None:
    floor = Floor(unknown_opcode_closes=closes)
    stop = {"triggerPrice": 310, "condition": "MoreOrEqual", "price": 311}
    for spelling in ("create:stopLimit", "create:stoplimit"):
        assert commander(floor).ask(**order(opcode=spelling, **stop))["httpCode"] == 200
    for wrong in ("Create:Limit", "createlimit", "limit:create", "create:limitorder", "create:StopLimit"):
        talk = commander(floor)
        assert talk.ask(**order(opcode=wrong, **stop))["httpCode"] == 400
        assert (talk.closed is not None) is closes


def test_nothing_happens_when_a_token_ends_until_something_is_said() -> None:
    floor = Floor()
    talk = commander(floor)
    floor.pass_ms(3_600_000)
    assert (talk.closed, talk.frames) == (None, [])
    assert talk.ask(**order())["httpCode"] == 401
    assert talk.closed is not None
    assert not floor.front.account("alor-01").orders


# ---- 12 to 14, 20: orders


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"instrument": {"symbol": "SBER", "exchange": "MOEX"}, "board": "TQBR", "timeInForce": "OneDay"},
        {"side": "BUY", "timeInForce": "ONEDAY"},
    ],
)
def test_both_shapes_are_understood_and_words_in_any_case(changes: Json) -> None:
    floor = Floor()
    answer = commander(floor).ask(**order(**changes))
    number = answer["orderNumber"]
    assert answer["message"] == f"An order '{number}' has been created."
    talk = commander(floor)
    deletion = {"opcode": "delete:limit", "orderId": int(number), "exchange": "MOEX", "user": {"portfolio": "D10001"}}
    assert talk.ask(**deletion, guid="1")["httpCode"] == 200
    assert talk.ask(**deletion, guid="2")["message"] == "Order to cancel not found"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"quantity": 1.5}, 400),
        ({"quantity": 0}, 400),
        ({"quantity": "3"}, 400),
        ({"price": 299.505}, 400),
        ({"price": 0}, 400),
        ({"price": None}, 400),
        ({"instrument": {"symbol": "NOPE", "exchange": "MOEX"}}, 400),
        ({"instrument": {"symbol": "SBER", "exchange": "MOEX", "instrumentGroup": "RFUD"}}, 400),
        ({"timeInForce": "goodtillcancelled"}, 400),
        ({"timeInForce": "forever"}, 400),
        ({"user": {"portfolio": "D10003"}}, 403),
        ({"quantity": 100_000}, 400),
        ({"icebergFixed": 4}, 400),
        ({"side": "hold"}, 400),
        ({"comment": "x" * 101}, 400),
    ],
)
def test_an_order_that_cannot_be_is_refused_and_the_connection_goes_on(changes: Json, status: int) -> None:
    floor = Floor(accounts=4)
    talk = commander(floor)
    assert talk.ask(**order("1", **changes))["httpCode"] == status
    assert talk.ask(**order("2"))["httpCode"] == 200
    assert len(floor.front.account("alor-01").orders) == 1


def test_an_update_is_a_cancellation_and_a_new_order() -> None:
    floor = Floor()
    talk = commander(floor)
    ear, _ = listener(floor)
    first = talk.ask(**order("1"))["orderNumber"]
    answer = talk.ask(**order("2", opcode="update:limit", orderId=first, price=299))
    second = answer["orderNumber"]
    assert answer["message"] == f"An order has been updated. New order Id is '{second}'."
    assert [(row["id"], row["status"], row["comment"]) for row in ear.pushed()] == [
        (first, "working", "mine"),
        (first, "canceled", "mine"),
        (second, "working", "mine"),
    ]


@pytest.mark.parametrize(("keeps", "comment"), [(True, "mine"), (False, None)])
def test_an_update_without_a_comment_keeps_it_or_not(keeps: bool, comment: str | None) -> None:
    floor = Floor(keep_comment=keeps)
    talk = commander(floor)
    first = talk.ask(**order("1"))["orderNumber"]
    talk.ask(**order("2", opcode="update:limit", orderId=first, comment=None))
    assert [row["comment"] for row in floor.front.truth("orders", "alor-01")] == ["mine", comment]


def test_an_update_of_a_future_does_not_hear_side_and_symbol() -> None:
    floor = Floor()
    talk = commander(floor)
    future = {"instrument": {"symbol": "SRZ6", "exchange": "MOEX"}, "price": 29_000, "quantity": 1}
    first = talk.ask(**order("1", **future))["orderNumber"]
    assert int(first) > 2**53
    talk.ask(**order("2", opcode="update:limit", orderId=first, price=29_100, side="sell", quantity=1))
    assert [(row["symbol"], row["side"]) for row in floor.front.truth("orders", "alor-01")] == [("SRZ6", "buy")] * 2


@pytest.mark.parametrize("trade_first", [False, True])
def test_a_trade_is_told_before_or_after_its_order(trade_first: bool) -> None:
    floor = Floor(trade_first=trade_first)
    ear, _ = listener(floor)
    ear.say({"opcode": "TradesGetAndSubscribeV2", "guid": "t", "portfolio": "D10001", "exchange": "MOEX", "token": floor.token()})  # fmt: skip  # noqa: E501
    ear.heard()
    floor.quote(ask="299", bid="298")
    commander(floor).ask(**order(price=299))
    guids = [f["guid"] for f in ear.heard()]
    assert guids == (["sub", "t", "sub"] if trade_first else ["sub", "sub", "t"])


def test_a_push_may_come_twice() -> None:
    floor = Floor()
    ear, _ = listener(floor)
    floor.faults.begin("duplicate", None, floor.now_ms, times=1)
    commander(floor).ask(**order())
    rows = ear.pushed()
    assert len(rows) == 2
    assert rows[0] == rows[1]


# ---- 15 to 19: subscriptions


@pytest.mark.parametrize("first", [False, True])
def test_a_snapshot_comes_before_or_after_the_acknowledgement(first: bool) -> None:
    floor = Floor(snapshot_first=first)
    commander(floor).ask(**order())
    _, heard = listener(floor)
    assert ["data" in f for f in heard] == [first, not first]
    (row,) = [f["data"] for f in heard if "data" in f]
    assert (row["existing"], row["status"]) == (True, "working")


def test_a_snapshot_may_be_left_out_and_narrowed() -> None:
    floor = Floor()
    talk = commander(floor)
    number = talk.ask(**order("1"))["orderNumber"]
    talk.ask(**order("2"))
    talk.ask(opcode="delete:limit", guid="3", orderId=number, exchange="MOEX", user={"portfolio": "D10001"})
    assert [
        len(listener(floor, **more)[1]) for more in ({}, {"skipHistory": True}, {"orderStatuses": ["working"]})
    ] == [
        3,
        1,
        2,
    ]
    ear, _ = listener(floor, skipHistory=True, orderStatuses=["filled"])
    talk.ask(**order("4"))
    assert [row["status"] for row in ear.pushed()] == ["working"], "later events come for all statuses"


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("Simple", {"filledQtyBatch", "filled", "qty", "brokerSymbol"}),
        ("heavy", {"filledQtyBatch", "brokerSymbol"}),
        ("SLIM", {"fqb", "qb", "tic", "sym"}),
    ],
)
def test_rows_come_in_three_formats(form: str, names: set[str]) -> None:
    floor = Floor()
    ear, _ = listener(floor, format=form)
    commander(floor).ask(**order())
    (row,) = ear.pushed()
    assert names <= row.keys()
    assert ("qty" in row) is (form == "Simple")
    for opcode in (
        "StopOrdersGetAndSubscribeV2",
        "TradesGetAndSubscribeV2",
        "PositionsGetAndSubscribeV2",
        "SummariesGetAndSubscribeV2",
        "RisksGetAndSubscribe",
    ):
        _, heard = listener(floor, opcode, format=form)
        assert heard[0]["httpCode"] == 200


@pytest.mark.parametrize(("nameless", "closes"), [(False, False), (True, False), (False, True)])
def test_a_bad_token_on_the_other_connection(nameless: bool, closes: bool) -> None:
    floor = Floor(nameless_401=nameless, close_after_401=closes)
    talk, heard = listener(floor, token="wrong")
    assert heard == [{"requestGuid": "" if nameless else "sub", "httpCode": 401, "message": "Invalid JWT token!"}]
    assert (talk.closed is not None) is closes


def test_subscriptions_live_on_after_their_token() -> None:
    floor = Floor()
    ear, _ = listener(floor)
    floor.pass_ms(7_200_000)
    commander(floor).ask(**order())
    assert len(ear.pushed()) == 1


def test_an_unsubscribed_channel_is_silent() -> None:
    floor = Floor()
    ear, _ = listener(floor)
    assert ear.ask(opcode="unsubscribe", guid="sub", token=floor.token())["httpCode"] == 200
    commander(floor).ask(**order())
    assert ear.heard() == []


def test_the_bar_of_now_is_told_however_late_bars_were_asked_from() -> None:
    floor = Floor()
    floor.pass_ms(30_000)
    asked = {"code": "SBER", "instrumentGroup": "TQBR", "tf": "60", "from": floor.now_ms // 1000}
    ear, _ = listener(floor, "BarsGetAndSubscribe", **asked, skipHistory=True)
    floor.mark("SBER", "305")
    floor.pass_ms(1000)
    bars = ear.pushed()
    assert [(bar["time"] % 60, bar["close"]) for bar in bars][-1:] == [(0, 305)]


def test_a_login_has_room_for_ten_connections_and_a_connection_for_so_many_subscriptions() -> None:
    floor = Floor(subscriptions=2)
    token = floor.token()
    for _ in range(10):
        commander(floor, token)
        floor.pass_ms(1000)
    talk = floor.connect(CWS)
    assert talk.ask(opcode="authorize", guid="a", token=token)["httpCode"] == 400
    assert talk.closed is not None
    other = Floor(subscriptions=1)
    ear, _ = listener(other)
    say = {"opcode": "TradesGetAndSubscribeV2", "portfolio": "D10001", "exchange": "MOEX", "token": other.token()}
    assert ear.ask(**say, guid="two")["httpCode"] == 400


def test_connections_may_be_counted_by_address() -> None:
    floor = Floor(connections_of="address", connections=2)
    calls = [Call(method="GET", target=WS, peer="10.9.9.9") for _ in range(3)]
    taken = [floor.front.accept(call, floor.now_ms) for call in calls]
    assert [isinstance(t, int) for t in taken] == [False, False, True]


@pytest.mark.parametrize("answered", [True, False])
def test_a_ping_is_answered_or_not(answered: bool) -> None:
    floor = Floor(ping_answered=answered)
    talk = commander(floor)
    talk.say({"opcode": "ping", "guid": "p", "confirm": True})
    assert [f["requestGuid"] for f in talk.heard()] == (["p"] if answered else [])


def test_keys_come_in_any_order_and_ids_as_numbers_where_the_server_is_in_the_mood() -> None:
    floor = Floor(shuffled=True, numeric_ids=True)
    ear, _ = listener(floor)
    for number in range(6):
        assert isinstance(commander(floor).ask(**order(f"{number}"))["orderNumber"], int)
    frames = list(ear.frames)
    assert len({tuple(json.loads(f)["data"]) for f in frames}) > 1
    assert all(isinstance(json.loads(f)["data"]["id"], int) for f in frames)
    calm = Floor()
    ear, _ = listener(calm)
    commander(calm).ask(**order())
    assert ear.frames[0].startswith('{"data":{"id":"')


# ---- 21, 22, 24, 25, 27, 28: over HTTP and over days


def test_what_is_gone_is_told_as_zero_and_money_as_money() -> None:
    floor = Floor()
    floor.quote()
    ear, heard = listener(floor, "PositionsGetAndSubscribeV2")
    rows = {f["data"]["symbol"]: f["data"] for f in heard if "data" in f}
    assert (rows["RUB"]["isCurrency"], rows["SBER"]["isCurrency"]) == (True, False)
    lots = rows["SBER"]["qtyBatch"]
    commander(floor).ask(**order(side="sell", quantity=lots, price=299))
    gone = {row["symbol"]: row for row in ear.pushed()}
    assert (gone["SBER"]["qtyUnits"], gone["SBER"]["qtyTFutureBatch"]) == (0, 0)
    assert gone["RUB"]["qtyUnits"] > rows["RUB"]["qtyUnits"]


def test_trades_belong_to_the_session_until_it_is_over_and_to_history_then() -> None:
    floor = Floor()
    floor.quote()
    commander(floor).ask(**order(price=301))
    now, then = "/md/v2/Clients/MOEX/D10001/trades", "/md/v2/Stats/MOEX/D10001/history/trades"
    token = floor.token()
    assert [len(get(floor, target, token)[1]) for target in (now, then)] == [1, 0]
    floor.pass_ms(86_400_000)
    token = floor.token()
    assert [len(get(floor, target, token)[1]) for target in (now, then)] == [0, 1]
    assert get(floor, "/md/v2/clients/MOEX/D10001/orders", token) == (200, [])


def test_the_gain_of_a_future_becomes_money_when_the_session_ends() -> None:
    floor = Floor()
    floor.quote("SRZ6", "29990", "30000")
    future = {"instrument": {"symbol": "SRZ6", "exchange": "MOEX"}, "price": 30_000, "quantity": 2}
    commander(floor).ask(**order(**future))
    before = floor.front.account("alor-01").cash["RUB"]
    floor.mark("SRZ6", "30100")
    assert floor.front.account("alor-01").cash["RUB"] == before
    floor.pass_ms(86_400_000)
    assert floor.front.account("alor-01").cash["RUB"] == before + 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/md/v2/time", 200),
        ("/md/v2/Securities?query=sb", 200),
        ("/md/v2/Securities/MOEX?market=FORTS", 200),
        ("/md/v2/Securities/MOEX/SBER", 200),
        ("/md/v2/Securities/MOEX/NOPE", 404),
        ("/md/v2/Securities/MOEX/SBER/availableBoards", 200),
        ("/md/v2/Securities/MOEX:SBER,MOEX:GAZP/quotes", 200),
        ("/md/v2/orderbooks/MOEX/SBER?depth=3", 200),
        ("/md/v2/history?symbol=SBER&exchange=MOEX&tf=60", 200),
        ("/md/v2/Clients/MOEX/D10001/risk", 200),
        ("/md/v2/Clients/MOEX/D10001/fortsrisk", 200),
        ("/md/v2/Clients/MOEX/D10001/positions?withoutCurrency=true", 200),
        ("/md/v2/Clients/MOEX/D10001/positions/SBER", 200),
        ("/md/v2/Clients/MOEX/D10001/positions/NOPE", 404),
        ("/md/v2/Clients/MOEX/D10001/SBER/trades", 200),
        ("/md/v2/Clients/MOEX/D10001/orders/1", 404),
        ("/md/v2/Clients/MOEX/D99999/orders", 403),
        ("/md/v2/Clients/MOEX", 404),
        ("/nowhere", 404),
    ],
)
def test_what_is_read_over_http(target: str, status: int) -> None:
    floor = Floor()
    floor.quote()
    assert get(floor, target, floor.token())[0] == status
    assert get(floor, target, "wrong")[0] == 401


def test_everything_is_cancelled_at_once_and_once() -> None:
    floor = Floor()
    commander(floor).ask(**order())
    target = "/commandapi/warptrans/TRADE/v2/client/orders/all?exchange=MOEX&portfolio=D10001&stop=false"
    bearer = f"Bearer {floor.token()}"
    first, second = (floor.call("DELETE", target, authorization=bearer) for _ in range(2))
    assert first is not None
    assert second is not None
    assert (first.status, first.body) == (200, b'"success"')
    assert (second.status, json.loads(second.body)["code"]) == (400, "OrderToCancelNotFound")


@pytest.mark.parametrize(("kind", "status"), [("html_502", 502), ("rate_429", 429)])
def test_the_server_fails_where_it_is_told_to(kind: str, status: int) -> None:
    floor = Floor()
    token = floor.token()
    floor.faults.begin(kind, ["alor-01"], floor.now_ms, times=1)
    assert get(floor, "/md/v2/Clients/MOEX/D10002/orders", token)[0] == 200
    assert get(floor, "/md/v2/Clients/MOEX/D10001/orders", token)[0] == status
    assert get(floor, "/md/v2/Clients/MOEX/D10001/orders", token)[0] == 200


def test_reads_may_lag_behind() -> None:
    floor = Floor()
    token = floor.token()
    floor.faults.begin("read_lag", None, floor.now_ms, by_ms=2000)
    commander(floor).ask(**order())
    floor.pass_ms(500)
    assert get(floor, "/md/v2/Clients/MOEX/D10001/orders", token)[1] == []
    floor.pass_ms(2000)
    assert len(get(floor, "/md/v2/Clients/MOEX/D10001/orders", token)[1]) == 1


def test_too_many_requests_are_refused_and_counted() -> None:
    floor = Floor()
    token = floor.token()
    statuses = [get(floor, "/md/v2/time", token)[0] for _ in range(21)]
    assert statuses == [200] * 20 + [429]
    assert floor.front.windows.uses["reads"].peak == 20


# ---- What the simulator does with it


def test_a_revoked_key_is_good_for_nothing_and_a_new_one_is() -> None:
    floor = Floor(accounts=4)
    talk, token = commander(floor), floor.token()
    assert floor.front.command("new_key", ["alor-01"], {}, floor.now_ms) == 1
    assert floor.front.command("kill_key", ["alor-03"], {}, floor.now_ms) == 1
    renewed = {a["name"]: a["refresh_token"] for a in floor.front.accounts()}
    assert renewed["alor-01"] == renewed["alor-02"] != floor.keys["alor-01"]["refresh_token"]
    assert get(floor, "/md/v2/time", token)[0] == 200
    assert talk.ask(**order())["httpCode"] == 200
    refused = floor.call("POST", f"/refresh?token={renewed['alor-03']}")
    assert refused is not None
    assert refused.status == 403
    with pytest.raises(KeyError):
        floor.front.command("funding", ["alor-01"], {}, floor.now_ms)


def test_the_broker_cancels_and_closes_on_its_own() -> None:
    floor = Floor()
    floor.quote()
    talk = commander(floor)
    talk.ask(**order("1"))
    stop = order("2", opcode="create:stop", triggerPrice=310, condition="more")
    talk.ask(**stop)
    assert floor.front.command("cancel_all", ["alor-01"], {}, floor.now_ms) == 2
    held = floor.front.account("alor-01").cash["SBER"]
    assert held > 0
    assert floor.front.command("liquidate", ["alor-01"], {"instrument": "SBER/RUB"}, floor.now_ms) == 1
    assert floor.front.account("alor-01").cash["SBER"] < held


def test_the_json_line_is_what_the_stage_lets_in() -> None:
    floor: Front = front(accounts=3, seed=7, now_ms=START_MS, faults=FaultPlan())
    line = json.loads(json.dumps({**floor.rests, **floor.paths, "control": "", **floor.describe()}))
    assert set(line) == {"oauth", "api", "ws", "cws", "control", "accounts"}
    assert set(line["accounts"][0]) == {"name", "portfolio", "exchange", "refresh_token"}
    entries = STAGE.entries(line)
    assert [(e.name, e.ref) for e in entries] == [
        ("alor-01", "MOEX:D10001"),
        ("alor-02", "MOEX:D10002"),
        ("alor-03", "MOEX:D10003"),
    ]
    assert entries[0].credentials == entries[1].credentials != entries[2].credentials
    assert set(STAGE.doors.values()) <= set(line)


def test_the_same_seed_gives_the_same_venue() -> None:
    def life(seed: int) -> list[str]:
        made = front(accounts=2, seed=seed, now_ms=START_MS, faults=FaultPlan())
        world = World(made, Market(made.exchange, made.quoted, seed), FaultPlan(), START_MS)
        refresh = made.accounts()[0]["refresh_token"]
        answer = made.call(Call(method="POST", target=f"/refresh?token={refresh}"), START_MS)
        assert answer is not None
        session = world.accept(Call(method="GET", target=CWS), START_MS)
        assert not isinstance(session, int)
        token = json.loads(answer.body)["AccessToken"]
        world.hear(session, json.dumps({"opcode": "authorize", "guid": "a", "token": token}).encode(), START_MS)
        frames = []
        for step in range(1, 20):
            now_ms = START_MS + step * 500
            world.hear(session, json.dumps(order(f"{step}", price=300)).encode(), now_ms)
            world.tick(now_ms)
            frames += [str(o.frame) for o in world.drain(now_ms)]
        return frames

    assert life(3) == life(3) != life(4)
