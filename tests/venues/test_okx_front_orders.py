"""Orders, money and faults at the OKX front (dossier §5, §7, §8, §13). No sockets."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from engine.core.orders import OrderType
from tests.venues.okx_talk import BOTH, CODES, INVERSE, ORDERS, POSITIONS, PUBLIC, SPOT, SWAP, Floor, order

D = Decimal


@pytest.fixture
def floor() -> Floor:
    made = Floor()
    made.quote()
    made.quote(SPOT, "59990", "60010", "10")
    made.quote(INVERSE, "59990", "60010", "1000")
    return made


def states(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["state"], row["accFillSz"]) for row in rows]


# ---- Placing


def test_an_accepted_order_is_acknowledged_and_pushed_as_live(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    asked = talk.operate("order", order(clOrdId="mine1"))
    answer, push = talk.heard()
    assert (answer["id"], answer["op"], answer["code"], answer["data"][0]["sCode"]) == (asked, "order", "0", "0")
    (row,) = push["data"]
    assert (row["ordId"], row["clOrdId"], row["state"]) == (answer["data"][0]["ordId"], "mine1", "live")
    assert (row["px"], row["sz"], row["avgPx"], row["tradeId"]) == ("2400", "1", "0", "")


def test_the_answer_may_come_after_the_push() -> None:
    floor = Floor(acknowledge="after")
    talk = floor.member("demo-01", ORDERS)
    talk.operate("order", order())
    assert ["op" in f for f in talk.heard()] == [False, True]


def test_by_default_answers_come_before_or_after_by_chance_and_the_same_seed_chooses_the_same() -> None:
    def orderings() -> list[bool]:
        floor = Floor(acknowledge="mixed", limits=False)
        talk = floor.member("demo-01", ORDERS)
        found = []
        for _ in range(20):
            talk.operate("order", order())
            found.append("op" in talk.heard()[0])
        return found

    assert set(orderings()) == {True, False}
    assert orderings() == orderings()


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        ({"instIdCode": None}, "50014"),
        ({"instIdCode": 1}, "51001"),
        ({"instIdCode": "10459"}, "51001"),
        ({"side": "hold"}, "51000"),
        ({"ordType": "guess"}, "51000"),
        ({"tdMode": "cash"}, "51000"),
        ({"posSide": "long"}, "51000"),
        ({"clOrdId": "with-dash"}, "51000"),
        ({"clOrdId": "x" * 33}, "51000"),
        ({"tag": "t" * 17}, "51000"),
        ({"px": ""}, "51000"),
        ({"px": "NaN"}, "51000"),
        ({"sz": "0"}, "51000"),
        ({"sz": "much"}, "51000"),
        ({"px": "2400.001"}, "51150"),
        ({"sz": "1.005"}, "51121"),
        ({"sz": "100001"}, "51101"),
        ({"ordType": "market", "sz": "35001"}, "51202"),
        ({"px": "9999"}, "51006"),
        ({"sz": "90000"}, "51008"),
        ({"reduceOnly": True}, "51169"),
    ],
)
def test_an_order_that_does_not_fit_is_refused_with_its_code_and_leaves_no_trace(
    floor: Floor, ask: dict[str, Any], code: str
) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.operate("order", order(**ask))
    (answer,) = talk.heard()
    assert (answer["code"], answer["data"][0]["sCode"]) == ("1", code)
    assert floor.front.truth("orders", "demo-01") == []
    assert floor.front.truth("balances", "demo-01")[0]["held"] == "0"


def test_a_spot_order_below_the_smallest_is_refused(floor: Floor) -> None:
    assert floor.member().place(SPOT, px="60000", sz="0.000001")["sCode"] == "51020"


def test_a_client_id_is_unique_among_open_orders_only(floor: Floor) -> None:
    talk = floor.member()
    assert talk.place(clOrdId="one")["sCode"] == "0"
    assert talk.place(clOrdId="one")["sCode"] == "51016"
    assert talk.place(clOrdId="One")["sCode"] == "0", "they are case-sensitive"
    talk.operate("cancel-order", {"instIdCode": CODES[SWAP], "clOrdId": "one"})
    assert talk.answer()["code"] == "0"
    second = talk.place(clOrdId="one")
    assert second["sCode"] == "0"
    (found,) = floor.rows(f"trade/order?instId={SWAP}&clOrdId=one")
    assert found["ordId"] == second["ordId"], "the latest one is meant"


def test_a_batch_succeeds_order_by_order(floor: Floor) -> None:
    talk = floor.member()
    talk.operate("batch-orders", order(clOrdId="a"), order(clOrdId="b", sz="0.001"), order(clOrdId="c"))
    answer = talk.answer()
    assert answer["code"] == "2"
    assert [(row["clOrdId"], row["sCode"]) for row in answer["data"]] == [("a", "0"), ("b", "51121"), ("c", "0")]


@pytest.mark.parametrize(
    "frame",
    [
        {"op": "order", "args": [order()]},
        {"id": "with-dash", "op": "order", "args": [order()]},
        {"id": "x" * 33, "op": "order", "args": [order()]},
        {"id": "p1", "op": "order", "args": []},
        {"id": "p1", "op": "order", "args": [order(), order()]},
        {"id": "p1", "op": "batch-orders", "args": [order()] * 21},
    ],
)
def test_a_malformed_request_fails_as_a_whole(floor: Floor, frame: dict[str, Any]) -> None:
    talk = floor.member()
    talk.say(frame)
    answer = talk.answer()
    assert (answer["code"], answer["data"]) == ("60013", [])
    assert floor.front.truth("orders", "demo-01") == []


def test_orders_belong_on_the_private_address(floor: Floor) -> None:
    talk = floor.connect(PUBLIC)
    talk.login()
    talk.heard()
    talk.operate("order", order())
    assert talk.answer()["code"] == "60028"


def test_past_its_deadline_an_order_is_not_executed(floor: Floor) -> None:
    talk = floor.member()
    for op, arg in (("order", order()), ("amend-order", {"instIdCode": CODES[SWAP], "ordId": "1", "newSz": "1"})):
        talk.operate(op, arg, expTime=str(floor.now_ms - 1))
        assert talk.answer()["data"][0]["sCode"] == "50036"
    assert (
        floor.call("POST", "trade/order", rest_order(), exptime=str(floor.now_ms - 1))[1]["data"][0]["sCode"] == "50036"
    )
    assert floor.front.truth("orders", "demo-01") == []


def rest_order(symbol: str = SWAP, **ask: Any) -> dict[str, Any]:
    made = order(symbol, **ask)
    del made["instIdCode"]
    return {"instId": symbol, **made}


# ---- Limits


def test_single_orders_are_counted_over_both_ways_in_together() -> None:
    floor = Floor(order_rate=4)
    talk = floor.member()
    for _ in range(2):
        assert talk.place()["sCode"] == "0"
        assert floor.call("POST", "trade/order", rest_order())[1]["code"] == "0"
    talk.operate("order", order())
    assert talk.answer()["code"] == "60014"
    status, body = floor.call("POST", "trade/order", rest_order())
    assert (status, body["code"]) == (429, "50011")
    talk.operate("batch-orders", order(), order())
    assert talk.answer()["code"] == "0", "batches are counted apart"
    talk.operate("batch-orders", order())
    assert talk.answer()["data"][0]["sCode"] == "50011", "and a batch of one is a single order"
    assert talk.place(INVERSE, px="50000")["sCode"] == "0", "and each product by itself"
    floor.now_ms += 2000
    assert talk.place()["sCode"] == "0"


def test_an_account_has_a_limit_over_everything_and_cancels_do_not_count() -> None:
    floor = Floor(account_rate=3)
    talk = floor.member()
    placed = [talk.place(clOrdId=f"c{n}")["sCode"] for n in range(4)]
    assert placed == ["0", "0", "0", "50061"]
    talk.operate("cancel-order", {"instIdCode": CODES[SWAP], "clOrdId": "c0"})
    assert talk.answer()["code"] == "0"


def test_open_orders_are_limited_per_product() -> None:
    floor = Floor(pending_per_product=2)
    talk = floor.member()
    assert [talk.place()["sCode"] for _ in range(3)] == ["0", "0", "51174"]


# ---- Fills


def test_a_limit_order_rests_and_is_filled_as_maker_at_its_own_price(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.place(px="2500", sz="3")
    floor.house(SWAP, "sell", "1", "2490")
    floor.house(SWAP, "sell", "5", "2490")
    rows = talk.pushes("orders")
    assert states(rows) == [("partially_filled", "1"), ("filled", "3")]
    assert [(r["fillSz"], r["fillPx"], r["execType"]) for r in rows] == [("1", "2500", "M"), ("2", "2500", "M")]
    # 3 contracts of 0.1 ETH at 2500, maker rate 0.0002
    assert rows[-1]["fee"] == "-0.15"
    assert rows[-1]["avgPx"] == "2500"


def test_a_market_order_is_filled_as_taker_against_what_is_there(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.operate("order", order(ordType="market", sz="2"))
    rows = talk.pushes("orders")
    assert states(rows) == [("live", "0"), ("filled", "2")]
    assert (rows[-1]["execType"], rows[-1]["fillPx"], rows[-1]["fee"]) == ("T", "2501", "-0.2501")


def test_a_market_orders_last_frame_may_show_no_fill() -> None:
    floor = Floor(market_final_zero_fill=True)
    floor.quote()
    talk = floor.member("demo-01", ORDERS)
    talk.operate("order", order(ordType="market", sz="2"))
    rows = talk.pushes("orders")
    assert [(r["state"], r["accFillSz"], r["fillSz"], r["tradeId"]) for r in rows] == [
        ("live", "0", "0", ""),
        ("partially_filled", "2", "2", "1"),
        ("filled", "2", "0", ""),
    ]


@pytest.mark.parametrize(
    ("ask", "end", "source"),
    [
        ({"ordType": "ioc", "px": "2501", "sz": "150"}, ("canceled", "100"), "14"),
        ({"ordType": "fok", "px": "2501", "sz": "150"}, ("canceled", "0"), "13"),
        ({"ordType": "fok", "px": "2501", "sz": "100"}, ("filled", "100"), ""),
        ({"ordType": "market", "sz": "150"}, ("canceled", "100"), "14"),
        ({"ordType": "post_only", "px": "2501"}, ("canceled", "0"), "31"),
        ({"ordType": "post_only", "px": "2500"}, ("live", "0"), ""),
    ],
)
def test_each_order_type_ends_as_it_should(
    floor: Floor, ask: dict[str, str], end: tuple[str, str], source: str
) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.operate("order", order(**ask))
    last = talk.pushes("orders")[-1]
    assert states([last]) == [end]
    assert last["cancelSource"] == source


@pytest.mark.parametrize(("first", "seen"), [(True, ["live", "canceled"]), (False, ["canceled"])])
def test_a_post_only_order_that_would_take_is_told_in_either_manner(first: bool, seen: list[str]) -> None:
    floor = Floor(post_only_live_first=first)
    floor.quote()
    talk = floor.member("demo-01", ORDERS)
    talk.operate("order", order(ordType="post_only", px="2501"))
    assert [row["state"] for row in talk.pushes("orders")] == seen


def test_a_spot_market_buy_is_sized_in_quote_and_fills_in_base(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.operate("order", order(SPOT, ordType="market", sz="6001"))
    last = talk.pushes("orders")[-1]
    assert (last["tgtCcy"], last["sz"], last["accFillSz"]) == ("quote_ccy", "6001", "0.1")
    assert (last["feeCcy"], last["fee"]) == ("BTC", "-0.0001"), "the fee comes out of what was bought"


def test_two_accounts_that_trade_with_each_other_share_the_trade_number(floor: Floor) -> None:
    buyer, seller = floor.member("demo-01"), floor.member("demo-02")
    buyer.place(px="2500")
    seller.place(px="2500", side="sell")
    (bought,), (sold,) = floor.rows("trade/fills"), floor.rows("trade/fills", "demo-02")
    assert bought["tradeId"] == sold["tradeId"]
    assert bought["billId"] != sold["billId"]
    assert (bought["execType"], sold["execType"]) == ("M", "T")


def test_an_account_does_not_trade_with_itself(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.operate("order", order(px="2500"))
    talk.operate("order", order(px="2500", side="sell"))
    rows = talk.pushes("orders")
    assert [(r["side"], r["state"], r["cancelSource"]) for r in rows] == [
        ("buy", "live", ""),
        ("sell", "live", ""),
        ("buy", "canceled", "32"),
    ]


# ---- Cancelling and amending


def test_a_cancel_is_told_once_with_its_source_and_a_second_one_has_no_target(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    ord_id = talk.place()["ordId"]
    cancel = {"instIdCode": CODES[SWAP], "ordId": ord_id}
    talk.heard()
    talk.operate("cancel-order", cancel)
    (row,) = talk.pushes("orders")
    assert (row["state"], row["cancelSource"]) == ("canceled", "1")
    talk.operate("batch-cancel-orders", cancel, {"instIdCode": CODES[SWAP], "clOrdId": "nobody"})
    answer = talk.answer()
    assert (answer["code"], [r["sCode"] for r in answer["data"]]) == ("1", ["51400", "51400"])


def test_an_amendment_is_told_with_its_request_and_counts_what_is_filled(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.place(px="2500", sz="5", clOrdId="mine")
    floor.house(SWAP, "sell", "2", "2500", OrderType.IOC)
    talk.heard()
    amend = {"instIdCode": CODES[SWAP], "clOrdId": "mine", "newSz": "4", "newPx": "2499.5", "reqId": "r1"}
    talk.operate("amend-order", amend)
    (row,) = talk.pushes("orders")
    assert (row["reqId"], row["amendResult"], row["sz"], row["px"], row["accFillSz"]) == ("r1", "0", "4", "2499.5", "2")
    floor.house(SWAP, "sell", "50", "2490")
    assert states(talk.pushes("orders")) == [("filled", "4")]


def test_an_order_amended_to_what_it_has_is_filled(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.place(px="2500", sz="5", clOrdId="mine")
    floor.house(SWAP, "sell", "2", "2500", OrderType.IOC)
    talk.heard()
    talk.operate("amend-order", {"instIdCode": CODES[SWAP], "clOrdId": "mine", "newSz": "2", "reqId": "r1"})
    (row,) = talk.pushes("orders")
    assert (row["state"], row["sz"], row["reqId"]) == ("filled", "2", "r1")


def test_an_amendment_across_the_spread_trades(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.place(clOrdId="mine")
    talk.heard()
    talk.operate("amend-order", {"instIdCode": CODES[SWAP], "clOrdId": "mine", "newPx": "2501", "reqId": "r1"})
    rows = talk.pushes("orders")
    assert states(rows) == [("live", "0"), ("filled", "1")]
    assert [r["reqId"] for r in rows] == ["r1", ""]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"newPx": "2400.001"}, "51150"),
        ({"newSz": "0.001"}, "51121"),
        ({"newSz": "90000"}, "51008"),
        ({"newPx": "2501"}, "51511"),
        ({"clOrdId": "nobody", "newSz": "2"}, "51503"),
        ({"clOrdId": "", "newSz": "2"}, "50014"),
    ],
)
def test_an_amendment_that_does_not_fit_changes_nothing(floor: Floor, change: dict[str, str], code: str) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.place(ordType="post_only", clOrdId="mine")
    talk.heard()
    talk.operate("amend-order", {"instIdCode": CODES[SWAP], "clOrdId": "mine", "reqId": "r", **change})
    assert [f["data"][0]["sCode"] for f in talk.heard()] == [code]
    (now,) = floor.rows("trade/orders-pending")
    assert (now["px"], now["sz"]) == ("2400", "1")


def test_a_failed_amendment_may_take_the_order_with_it(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.place(clOrdId="mine")
    talk.heard()
    amend = {"instIdCode": CODES[SWAP], "clOrdId": "mine", "newSz": "0.001", "reqId": "r", "cxlOnFail": True}
    talk.operate("amend-order", amend)
    heard = talk.heard()
    assert heard[0]["data"][0]["sCode"] == "51121"
    assert (heard[1]["data"][0]["state"], heard[1]["data"][0]["amendResult"]) == ("canceled", "")


def test_one_order_twice_in_a_batch_of_amendments_is_refused_the_second_time(floor: Floor) -> None:
    talk = floor.member()
    talk.place(clOrdId="mine")
    amend = {"instIdCode": CODES[SWAP], "clOrdId": "mine", "newSz": "2"}
    talk.operate("batch-amend-orders", amend, amend)
    assert [r["sCode"] for r in talk.answer()["data"]] == ["0", "51512"]


def test_the_dead_mans_switch_cancels_everything_when_it_is_not_renewed(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.place()
    talk.heard()
    assert floor.call("POST", "trade/cancel-all-after", {"timeOut": "10"})[1]["code"] == "0"
    floor.pass_ms(9_000, step_ms=500)
    assert floor.call("POST", "trade/cancel-all-after", {"timeOut": "10"})[1]["code"] == "0"
    floor.pass_ms(9_500, step_ms=500)
    assert talk.pushes("orders") == []
    floor.pass_ms(1_000, step_ms=500)
    assert [r["cancelSource"] for r in talk.pushes("orders")] == ["20"]


# ---- Positions and money


def test_a_position_averages_reduces_and_turns_round(floor: Floor) -> None:
    talk = floor.member()
    floor.house(SWAP, "sell", "10", "2500")
    talk.place(ordType="ioc", px="2500", sz="10")
    talk.place(ordType="ioc", px="2501", sz="10")
    (position,) = floor.rows("account/positions")
    assert (position["pos"], position["avgPx"]) == ("20", "2500.5")
    talk.place(side="sell", ordType="ioc", px="2499", sz="5")
    (position,) = floor.rows("account/positions")
    assert (position["pos"], position["avgPx"]) == ("15", "2500.5")
    assert D(position["pnl"]) == D("-1.5") * 5 * D("0.1")
    talk.place(side="sell", ordType="ioc", px="2499", sz="20")
    (position,) = floor.rows("account/positions")
    assert (position["pos"], position["avgPx"]) == ("-5", "2499")


def test_an_inverse_contract_is_valued_in_coins(floor: Floor) -> None:
    talk = floor.member()
    talk.place(INVERSE, ordType="market", sz="100")
    talk.place(INVERSE, ordType="market", side="sell", sz="100")
    opened, closed = reversed(floor.rows(f"trade/fills?instId={INVERSE}"))
    assert opened["feeCcy"] == "BTC"
    expected = 10_000 * (1 / D(60010) - 1 / D(59990))
    assert abs(D(closed["fillPnl"]) - expected) < D("1e-11")
    assert abs(D(opened["fee"]) + 10_000 / D(60010) * D("0.0005")) < D("1e-11")


def test_cash_is_opening_plus_every_bill_and_a_bill_knows_the_balance_after_it(floor: Floor) -> None:
    talk = floor.member()
    for ask in ({"sz": "3"}, {"sz": "5", "side": "sell"}, {"sz": "2"}):
        talk.place(ordType="market", **ask)
    talk.place(SPOT, ordType="market", sz="5000")
    talk.place(SPOT, ordType="market", side="sell", sz="0.01")
    talk.place(INVERSE, ordType="market", sz="3")
    floor.front.transfer("demo-01", "USDT", D("-1000"), floor.now_ms)
    floor.front.command("funding", [], {"instrument": INVERSE, "rate": "0.0001"}, floor.now_ms)
    balance: dict[str, Decimal] = {}
    for bill in reversed(floor.rows("account/bills")):
        balance[bill["ccy"]] = balance.get(bill["ccy"], D(0)) + D(bill["balChg"])
        assert balance[bill["ccy"]] == D(bill["bal"])
    details = {d["ccy"]: D(d["cashBal"]) for d in floor.rows("account/balance")[0]["details"]}
    assert details == balance
    assert {b["type"] for b in floor.rows("account/bills")} == {"1", "2", "8"}


def test_the_fills_of_an_order_add_up_to_it(floor: Floor) -> None:
    talk = floor.member()
    ord_id = talk.place(px="2502", sz="130")["ordId"]
    floor.house(SWAP, "sell", "10", "2502")
    floor.house(SWAP, "sell", "50", "2502")
    (whole,) = floor.rows(f"trade/order?instId={SWAP}&ordId={ord_id}")
    fills = floor.rows(f"trade/fills?ordId={ord_id}")
    assert whole["state"] == "filled"
    assert sum(D(f["fillSz"]) for f in fills) == D(whole["accFillSz"]) == 130
    assert sum(D(f["fee"]) for f in fills) == D(whole["fee"])


def test_funds_for_open_orders_are_held_and_given_back(floor: Floor) -> None:
    talk = floor.member()

    def held() -> Decimal:
        return D(next(d for d in floor.rows("account/balance")[0]["details"] if d["ccy"] == "USDT")["ordFrozen"])

    ord_id = talk.place(px="2400", sz="10")["ordId"]
    # 10 contracts of 0.1 at 2400 with leverage 5, and the taker fee
    assert held() == 480 + D("1.2")
    floor.call("POST", "trade/cancel-order", {"instId": SWAP, "ordId": ord_id})
    assert held() == 0


def test_leverage_is_set_for_the_family_and_changes_what_is_held(floor: Floor) -> None:
    talk = floor.member("demo-01", BOTH)
    status, body = floor.call("POST", "account/set-leverage", {"instId": SWAP, "lever": "10", "mgnMode": "cross"})
    assert (status, body["data"][0]["lever"]) == (200, "10")
    talk.place(ordType="market", sz="1")
    (position,) = floor.rows("account/positions")
    assert position["lever"] == "10"
    talk.heard()
    floor.call("POST", "account/set-leverage", {"instId": SWAP, "lever": "20", "mgnMode": "cross"})
    assert [r["eventType"] for r in talk.pushes("balance_and_position")] == ["set_leverage"]
    assert (
        floor.call("POST", "account/set-leverage", {"instId": SWAP, "lever": "101", "mgnMode": "cross"})[1]["code"]
        != "0"
    )


def test_a_reduce_only_order_never_turns_a_position_round(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.place(ordType="market", sz="5")
    assert talk.place(side="sell", px="2600", sz="9", reduceOnly=True, clOrdId="exit")["sCode"] == "0"
    (exit_order,) = floor.rows("trade/orders-pending")
    assert exit_order["sz"] == "5", "it is cut down to the position"
    talk.heard()
    talk.operate("order", order(side="sell", ordType="market", sz="3"))
    cut = [r for r in talk.pushes("orders") if r["clOrdId"] == "exit"]
    assert [(r["sz"], r["amendSource"]) for r in cut] == [("2", "4")]
    talk.operate("order", order(side="sell", ordType="market", sz="2"))
    gone = [r for r in talk.pushes("orders") if r["clOrdId"] == "exit"]
    assert [(r["state"], r["cancelSource"]) for r in gone] == [("canceled", "22")]


def test_a_liquidation_has_negative_trade_numbers_and_no_order_push(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS, POSITIONS, BOTH)
    talk.place(ordType="market", sz="5")
    floor.pass_ms(50)
    before = floor.rows("account/positions")[0]["tradeId"]
    talk.heard()
    assert floor.front.command("liquidate", ["demo-01"], {"instrument": SWAP}, floor.now_ms) == 1
    floor.carry()
    floor.pass_ms(50)
    heard = [f for f in talk.heard() if "arg" in f]
    assert [f["arg"]["channel"] for f in heard] == ["balance_and_position", "positions"]
    assert heard[0]["data"][0]["eventType"] == "liquidation"
    assert (heard[1]["data"][0]["pos"], heard[1]["data"][0]["tradeId"]) == ("0", before)
    assert floor.rows("trade/fills")[0]["tradeId"] == "-1"


def test_a_match_that_turns_a_position_round_may_be_booked_in_two_rows() -> None:
    floor = Floor(split_reversals=True)
    floor.quote()
    talk = floor.member("demo-01", ORDERS)
    talk.place(ordType="market", sz="2")
    talk.heard()
    talk.operate("order", order(side="sell", ordType="market", sz="5"))
    assert talk.pushes("orders")[-1]["fillSz"] == "5", "the stream tells it as one"
    opened, closed = floor.rows("trade/fills")[:2]
    assert (closed["fillSz"], closed["subType"], opened["fillSz"], opened["subType"]) == ("2", "5", "3", "4")
    assert closed["tradeId"] == opened["tradeId"]
    assert floor.rows("account/positions")[0]["pos"] == "-3"


def test_an_order_placed_on_the_venues_own_page_is_pushed_without_a_client_id(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    ask = {"instrument": "ETH/USDT:USDT", "side": "sell", "quantity": "2"}
    assert floor.front.place_elsewhere("demo-01", ask, floor.now_ms)["sCode"] == "0"
    floor.carry()
    rows = talk.pushes("orders")
    assert {(r["instId"], r["clOrdId"], r["side"]) for r in rows} == {(SWAP, "", "sell")}
    with pytest.raises(KeyError):
        floor.front.place_elsewhere("demo-01", {"instrument": "NO-ONE", "side": "buy", "quantity": "1"}, floor.now_ms)


# ---- Faults on command


def trouble(floor: Floor, kind: str, **detail: Any) -> None:
    floor.faults.begin(kind, ["demo-01"], floor.now_ms, **detail)


def test_a_dropped_answer_belongs_to_an_order_that_was_executed(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    trouble(floor, "drop_ack", times=1)
    talk.operate("order", order(clOrdId="mine"))
    assert ["op" in f for f in talk.heard()] == [False]
    assert floor.rows(f"trade/order?instId={SWAP}&clOrdId=mine")[0]["state"] == "live"
    assert talk.place()["sCode"] == "0", "it happened once"
    assert floor.faults.happened == {"drop_ack": 1}


def test_a_dropped_request_was_never_executed(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    trouble(floor, "drop_request", times=1)
    talk.operate("order", order())
    assert talk.heard() == []
    assert floor.front.truth("orders", "demo-01") == []


@pytest.mark.parametrize(("kind", "executed"), [("drop_ack", 1), ("drop_request", 0)])
def test_over_http_the_outcome_stays_unknown_by_silence_or_by_50004(floor: Floor, kind: str, executed: int) -> None:
    trouble(floor, kind, times=1)
    assert floor.raw_call("POST", "trade/order", rest_order()) is None
    trouble(floor, kind, times=1, what="50004")
    assert floor.call("POST", "trade/order", rest_order())[1]["code"] == "50004"
    assert len(floor.front.truth("orders", "demo-01")) == 2 * executed


def test_a_late_order_is_executed_later_unless_it_has_expired_by_then(floor: Floor) -> None:
    talk = floor.member("demo-01")
    trouble(floor, "late", by_ms=2000, times=2)
    talk.operate("order", order(clOrdId="lives"), expTime=str(floor.now_ms + 3000))
    talk.operate("order", order(clOrdId="dies"), expTime=str(floor.now_ms + 1000))
    assert talk.heard() == []
    floor.pass_ms(2000)
    assert [f["data"][0]["sCode"] for f in talk.heard()] == ["0", "50037"]
    assert [o["clOrdId"] for o in floor.front.truth("orders", "demo-01")] == ["lives"]


def test_a_push_may_be_repeated_with_another_time(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    trouble(floor, "duplicate")
    talk.operate("order", order(ordType="market"))
    rows = talk.pushes("orders")
    assert states(rows) == [("live", "0"), ("live", "0"), ("filled", "1"), ("filled", "1")]
    assert int(rows[3]["uTime"]) == int(rows[2]["uTime"]) + 1
    assert rows[2]["tradeId"] == rows[3]["tradeId"]


def test_refusals_on_command(floor: Floor) -> None:
    talk = floor.member("demo-01")
    trouble(floor, "refuse", times=1, code="50013")
    assert talk.place()["sCode"] == "50013"
    assert talk.place()["sCode"] == "0"
    trouble(floor, "refuse", what="login", times=1)
    again = floor.connect()
    again.login()
    assert again.heard()[0]["code"] == "60009"


def test_an_accepted_amendment_may_fail_afterwards(floor: Floor) -> None:
    talk = floor.member("demo-01", ORDERS)
    talk.place(clOrdId="mine")
    talk.heard()
    trouble(floor, "amend_fails", times=1)
    talk.operate("amend-order", {"instIdCode": CODES[SWAP], "clOrdId": "mine", "newSz": "2", "reqId": "r1"})
    answer, push = talk.heard()
    assert answer["data"][0]["sCode"] == "0"
    assert (push["data"][0]["reqId"], push["data"][0]["amendResult"], push["data"][0]["sz"]) == ("r1", "-1", "1")


def test_one_account_s_trouble_is_nobody_else_s(floor: Floor) -> None:
    trouble(floor, "drop_request")
    trouble(floor, "html_502")
    assert floor.member("demo-02").place()["sCode"] == "0"
    assert floor.rows("account/config", "demo-02")[0]["uid"] == "77000002"
