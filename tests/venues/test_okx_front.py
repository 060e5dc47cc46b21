"""The OKX front keeps a session as the dossier says (§2, §3, §4, §13). No sockets."""

from __future__ import annotations

import pytest

from tests.venues.okx_talk import (
    ACCOUNT,
    BOTH,
    BUSINESS,
    ORDERS,
    POSITIONS,
    PRIVATE,
    PUBLIC,
    SPOT,
    SWAP,
    Floor,
    order,
    wants,
)


@pytest.fixture
def floor() -> Floor:
    made = Floor()
    made.quote()
    return made


# ---- Logging in


@pytest.mark.parametrize("kind", [str, int])
def test_a_login_with_the_time_in_seconds_as_text_or_number_is_let_in(floor: Floor, kind: type) -> None:
    talk = floor.connect()
    talk.login(timestamp=kind(floor.now_ms // 1000))
    (reply,) = talk.heard()
    assert (reply["event"], reply["code"]) == ("login", "0")
    assert talk.session.accounts == ("demo-01",)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"timestamp": "noon"}, "60004"),
        ({"timestamp": "1767225559"}, "60006"),
        ({"timestamp": "1767225641"}, "60006"),
        ({"apiKey": ""}, "60005"),
        ({"apiKey": "nobody"}, "60032"),
        ({"passphrase": "other"}, "60024"),
        ({"sign": "AAAA"}, "60007"),
    ],
)
def test_a_wrong_login_is_told_what_is_wrong_and_closed(floor: Floor, wrong: dict[str, str], code: str) -> None:
    talk = floor.connect()
    talk.login(**wrong)
    (reply,) = talk.heard()
    assert (reply["event"], reply["code"]) == ("error", code)
    assert talk.closed is not None
    assert talk.closed[0] == 4001


def test_a_second_login_is_an_error_and_the_first_one_stays(floor: Floor) -> None:
    talk = floor.member()
    talk.login("demo-02")
    assert [f["code"] for f in talk.heard()] == ["60031"]
    assert talk.session.accounts == ("demo-01",)
    assert talk.closed is None


def test_before_the_login_nothing_private_is_done(floor: Floor) -> None:
    talk = floor.connect()
    talk.say({"id": "s1", "op": "subscribe", "args": [ORDERS]})
    talk.operate("order", order())
    error, answer = talk.heard()
    assert (error["event"], error["code"], error["id"]) == ("error", "60011", "s1")
    assert (answer["op"], answer["code"], answer["data"]) == ("order", "60011", [])
    assert floor.front.truth("orders", "") == []


def test_a_deleted_key_closes_its_connections_and_lets_nobody_in(floor: Floor) -> None:
    talk, other = floor.member("demo-01"), floor.member("demo-02")
    assert floor.front.command("kill_key", ["demo-01"], {}, floor.now_ms) == 1
    floor.carry()
    assert talk.closed is not None
    assert talk.closed[0] == 4007
    assert other.closed is None
    again = floor.connect()
    again.login("demo-01")
    assert again.heard()[0]["code"] == "60032"
    assert floor.call("GET", "account/balance")[1]["code"] == "50119"


# ---- Staying alive


def test_the_text_ping_is_answered_with_the_text_pong(floor: Floor) -> None:
    talk = floor.connect()
    talk.say("ping")
    assert talk.frames == ["pong"]


def test_thirty_seconds_without_a_word_from_the_venue_end_a_session(floor: Floor) -> None:
    silent, pinging = floor.member("demo-01", ORDERS), floor.member("demo-02", ORDERS)
    floor.pass_ms(29_000, step_ms=500)
    pinging.say("ping")
    assert silent.closed is None
    floor.pass_ms(2_000, step_ms=500)
    assert silent.closed == (4004, "No data received in 30s.")
    assert pinging.closed is None


def test_regular_pushes_keep_a_session_alive(floor: Floor) -> None:
    talk = floor.member("demo-01", {"channel": "account"})
    floor.pass_ms(70_000, step_ms=500)
    assert talk.closed is None
    assert len(talk.pushes("account")) in (13, 14)


def test_a_notice_goes_before_the_end_by_a_minute(floor: Floor) -> None:
    talk = floor.member("demo-01", {"channel": "account"})
    floor.front.command("notice", ["demo-01"], {}, floor.now_ms)
    floor.carry()
    (notice,) = talk.heard()
    assert (notice["event"], notice["code"]) == ("notice", "64008")
    floor.pass_ms(59_000, step_ms=500)
    assert talk.closed is None
    floor.pass_ms(2_000, step_ms=500)
    assert talk.closed is not None


def test_more_than_three_connections_a_second_from_one_address_are_refused(floor: Floor) -> None:
    accepted = [floor.front.accept(wants(PRIVATE, "10.1.1.1"), floor.now_ms) for _ in range(4)]
    assert [isinstance(a, int) for a in accepted] == [False, False, False, True]
    assert accepted[3] == 429
    assert not isinstance(floor.front.accept(wants(PRIVATE, "10.1.1.2"), floor.now_ms), int)
    assert not isinstance(floor.front.accept(wants(PRIVATE, "10.1.1.1"), floor.now_ms + 1000), int)


def test_without_limits_any_number_may_connect() -> None:
    floor = Floor(limits=False)
    assert not any(isinstance(floor.front.accept(wants(PRIVATE, "x"), floor.now_ms), int) for _ in range(50))


def test_more_than_480_requests_an_hour_are_turned_down(floor: Floor) -> None:
    talk = floor.connect()
    talk.login()
    for _ in range(479):
        talk.say({"op": "subscribe", "args": [ORDERS]})
    assert "60014" not in {f.get("code") for f in talk.heard()}
    talk.say({"op": "subscribe", "args": [ORDERS]})
    assert [f["code"] for f in talk.heard()] == ["60014"]


# ---- Subscribing


def test_every_argument_is_acknowledged_by_itself_and_without_extra_params(floor: Floor) -> None:
    talk = floor.connect()
    talk.login()
    talk.heard()
    talk.say({"id": "s1", "op": "subscribe", "args": [ORDERS, ACCOUNT]})
    acknowledged = [f for f in talk.heard() if f.get("event") == "subscribe"]
    assert [f["arg"] for f in acknowledged] == [ORDERS, {"channel": "account"}]
    assert {f["id"] for f in acknowledged} == {"s1"}


def test_a_bad_argument_gives_an_error_without_argument_and_the_good_ones_stand(floor: Floor) -> None:
    talk = floor.connect(PUBLIC)
    talk.say(
        {
            "op": "subscribe",
            "args": [{"channel": "tickers", "instId": "NO-ONE"}, {"channel": "tickers", "instId": SWAP}],
        }
    )
    heard = talk.heard()
    (error,) = [f for f in heard if f.get("event") == "error"]
    assert error["code"] == "60018"
    assert "arg" not in error
    assert [f["arg"]["instId"] for f in heard if f.get("event") == "subscribe"] == [SWAP]


@pytest.mark.parametrize(
    ("path", "arg", "code"),
    [
        (PUBLIC, ORDERS, "60018"),
        (PRIVATE, {"channel": "tickers", "instId": SWAP}, "60018"),
        (PRIVATE, {"channel": "orders-algo", "instType": "ANY"}, "64001"),
        (BUSINESS, ORDERS, "64002"),
        (PRIVATE, {"channel": "no-such"}, "60018"),
        (PRIVATE, {"channel": "orders"}, "60027"),
        (PRIVATE, {"channel": "fills"}, "64003"),
        (PRIVATE, {"channel": "account", "extraParams": "not json"}, "60012"),
    ],
)
def test_a_channel_is_turned_down_where_it_does_not_belong(
    floor: Floor, path: str, arg: dict[str, str], code: str
) -> None:
    talk = floor.connect(path)
    talk.login()
    talk.heard()
    talk.say({"op": "subscribe", "args": [arg]})
    assert [f["code"] for f in talk.heard()] == [code]


@pytest.mark.parametrize(
    ("frame", "code"),
    [("{", "60012"), ("[]", "60012"), ('"x"', "60012"), ('{"op":"dance"}', "60019"), ('{"op":"ping"}', "60019")],
)
def test_what_cannot_be_understood_is_an_error_and_the_session_lives(floor: Floor, frame: str, code: str) -> None:
    talk = floor.connect()
    talk.say(frame)
    assert [f["code"] for f in talk.heard()] == [code]
    assert talk.closed is None


def test_the_query_string_of_the_address_is_ignored(floor: Floor) -> None:
    talk = floor.connect(PRIVATE + "?brokerId=9999")
    talk.login()
    assert talk.heard()[0]["event"] == "login"
    assert floor.front.accept(wants("/ws/v6/private", "x"), floor.now_ms) == 404


def test_after_unsubscribing_nothing_comes(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.say({"op": "unsubscribe", "args": [ORDERS]})
    assert talk.heard()[0]["event"] == "unsubscribe"
    talk.operate("order", order())
    assert talk.pushes("orders") == []


def test_connections_of_a_channel_are_counted_and_the_one_too_many_loses_it() -> None:
    floor = Floor(channel_connections=2)
    talks = [floor.connect() for _ in range(3)]
    for talk in talks:
        talk.login()
        talk.heard()
        talk.say({"op": "subscribe", "args": [ORDERS]})
    events = [[(f["event"], f.get("connCount")) for f in talk.heard()] for talk in talks]
    assert events[1] == [("subscribe", None), ("channel-conn-count", "2")]
    assert events[2] == [("subscribe", None), ("channel-conn-count-error", "2")]
    talks[2].operate("order", order())
    assert talks[2].answer()["code"] == "0", "order operations go on there"
    assert [len(talk.pushes("orders")) for talk in talks] == [1, 1, 0]


# ---- What is pushed


def test_orders_is_silent_when_subscribed_to_even_with_orders_at_work(floor: Floor) -> None:
    floor.member("demo-01").place(px="2400")
    talk = floor.connect()
    talk.login()
    talk.say({"op": "subscribe", "args": [ORDERS]})
    assert talk.pushes("orders") == []


def test_a_position_snapshot_comes_in_pages_the_last_one_marked() -> None:
    floor = Floor(snapshot_rows=1)
    floor.quote()
    floor.quote("BTC-USD-SWAP", "59999", "60001", "1000")
    talk = floor.member("demo-01")
    talk.place(SWAP, ordType="market", sz="1")
    talk.place("BTC-USD-SWAP", ordType="market", sz="10")
    talk.say({"op": "subscribe", "args": [POSITIONS]})
    pages = [f for f in talk.heard() if "data" in f]
    assert [(p["eventType"], p["curPage"], p["lastPage"]) for p in pages] == [
        ("snapshot", 1, False),
        ("snapshot", 2, True),
    ]
    assert [p["data"][0]["instId"] for p in pages] == [SWAP, "BTC-USD-SWAP"]
    assert {p["arg"]["uid"] for p in pages} == {"77000001"}


def test_an_empty_snapshot_says_so(floor: Floor) -> None:
    talk = floor.connect()
    talk.login()
    talk.say({"op": "subscribe", "args": [POSITIONS, {"channel": "account", "ccy": "DOGE"}]})
    pages = [f for f in talk.heard() if "data" in f]
    assert [(p["data"] if p["arg"]["channel"] == "positions" else p["data"][0]["details"]) for p in pages] == [[], []]
    assert all(p["lastPage"] for p in pages)


def test_a_fill_is_told_at_once_and_position_and_cash_follow_together_after_the_aggregation_time(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS, POSITIONS, ACCOUNT, BOTH)
    talk.operate("order", order(ordType="market", sz="1"))
    talk.operate("order", order(ordType="market", sz="1"))
    now = talk.heard()
    channels = [f["arg"]["channel"] for f in now if "arg" in f]
    assert channels.count("orders") == 4
    assert channels.count("balance_and_position") == 2
    assert "positions" not in channels
    floor.pass_ms(49)
    assert talk.heard() == []
    floor.pass_ms(1)
    later = talk.heard()
    assert sorted(f["arg"]["channel"] for f in later) == ["account", "positions"]
    assert {f["eventType"] for f in later} == {"event_update"}
    assert next(f for f in later if f["arg"]["channel"] == "positions")["data"][0]["pos"] == "2"


def test_a_closed_position_is_pushed_once_as_nought_and_is_in_no_snapshot(floor: Floor) -> None:
    talk = floor.member("demo-01", POSITIONS)
    talk.place(ordType="market", sz="1")
    floor.pass_ms(50)
    talk.heard()
    talk.place(ordType="market", sz="1", side="sell")
    floor.pass_ms(50)
    assert [row["pos"] for row in talk.pushes("positions")] == ["0"]
    talk.say({"op": "subscribe", "args": [POSITIONS]})
    assert talk.pushes("positions") == []
    assert floor.rows("account/positions") == []


def test_balance_and_position_keeps_its_event_type_inside_and_has_no_pages(floor: Floor) -> None:
    talk = floor.connect()
    talk.login()
    talk.say({"op": "subscribe", "args": [BOTH]})
    (snapshot,) = [f for f in talk.heard() if "data" in f]
    assert set(snapshot) == {"arg", "data"}
    assert snapshot["data"][0]["eventType"] == "snapshot"
    assert "trades" not in snapshot["data"][0]
    talk.operate("order", order(ordType="market", sz="1"))
    (row,) = talk.pushes("balance_and_position")
    assert row["eventType"] == "filled"
    assert row["trades"] == [{"instId": SWAP, "tradeId": row["posData"][0]["tradeId"]}]


def test_all_sockets_of_an_account_hear_everything_and_others_nothing(floor: Floor) -> None:
    first, second = floor.member("demo-01", ORDERS), floor.member("demo-01", ORDERS)
    other = floor.member("demo-02", ORDERS)
    first.operate("order", order())
    mine, twin = first.pushes("orders"), second.pushes("orders")
    assert mine == twin
    assert len(mine) == 1
    assert other.pushes("orders") == []


def test_unknown_fields_stand_in_every_push(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS, POSITIONS, ACCOUNT, BOTH)
    talk.operate("order", order(ordType="market", sz="1"))
    floor.pass_ms(50)
    rows = [f["data"][0] for f in talk.heard() if "arg" in f]
    assert {"fieldOfTomorrow" in (row.get("details") or [row])[0] for row in rows} == {True}


def test_a_paying_customer_gets_the_quick_fills(floor: Floor) -> None:
    vip = Floor(vip=True)
    vip.quote()
    talk = vip.member("demo-01", {"channel": "fills"})
    talk.operate("order", order(ordType="market", sz="1", clOrdId="12345"))
    talk.operate("order", order(ordType="market", sz="1", clOrdId="abc"))
    assert [row["clOrdId"] for row in talk.pushes("fills")] == ["12345", "0"]


def test_prices_come_at_once_and_then_when_they_change_but_not_too_often(floor: Floor) -> None:
    talk = floor.connect(PUBLIC)
    args = [{"channel": c, "instId": SWAP} for c in ("tickers", "mark-price", "bbo-tbt")]
    talk.say({"op": "subscribe", "args": args})
    first = [f["arg"]["channel"] for f in talk.heard() if "data" in f]
    assert first == ["tickers", "mark-price", "bbo-tbt"]
    floor.pass_ms(100)
    talk.heard()
    for bid in ("2499.1", "2499.2", "2499.3"):
        floor.house(SWAP, "buy", "1", bid)
        floor.pass_ms(20)
    told = talk.heard()
    assert len([f for f in told if f["arg"]["channel"] == "bbo-tbt"]) == 3
    assert len([f for f in told if f["arg"]["channel"] == "tickers"]) <= 1
    floor.pass_ms(200, step_ms=10)
    assert talk.pushes("tickers")[-1]["bidPx"] == "2499.3"


def test_spot_has_a_mark_and_every_listing_a_ticker(floor: Floor) -> None:
    talk = floor.connect(PUBLIC)
    talk.say({"op": "subscribe", "args": [{"channel": "mark-price", "instId": SPOT}]})
    assert talk.pushes("mark-price")[0]["markPx"] == "60000"
