"""The OKX front over HTTP: signatures, pages, windows, limits, lag (dossier §6, §13). No sockets."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.venues.okx_talk import CODES, INVERSE, SPOT, SWAP, Floor, order, signature

D = Decimal
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.fixture
def floor() -> Floor:
    made = Floor()
    made.quote()
    return made


# ---- Who may ask


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"ok_access_key": ""}, 401, "50103"),
        ({"ok_access_passphrase": ""}, 401, "50104"),
        ({"ok_access_sign": ""}, 401, "50106"),
        ({"ok_access_timestamp": ""}, 401, "50107"),
        ({"ok_access_timestamp": "yesterday"}, 401, "50112"),
        ({"ok_access_key": "nobody"}, 401, "50119"),
        ({"ok_access_passphrase": "other"}, 401, "50105"),
        ({"ok_access_sign": "AAAA"}, 401, "50113"),
        ({"x_simulated_trading": ""}, 401, "50101"),
        ({"x_simulated_trading": "0"}, 401, "50101"),
        ({"skew_ms": 31_000}, 401, "50102"),
        ({"skew_ms": -31_000}, 401, "50102"),
        ({"skew_ms": -29_000}, 200, "0"),
    ],
)
def test_a_request_is_believed_only_with_all_its_headers_right(
    floor: Floor, change: dict[str, Any], status: int, code: str
) -> None:
    answered, body = floor.call("GET", "account/config", **change)
    assert (answered, body["code"]) == (status, code)


def test_the_signature_covers_the_exact_query_and_body(floor: Floor) -> None:
    key = floor.keys["demo-01"]
    stamp = "2026-01-01T00:00:00.000Z"
    without_query = signature(key["secret"], f"{stamp}GET/api/v5/trade/fills")
    assert floor.call("GET", "trade/fills?limit=5", ok_access_sign=without_query)[1]["code"] == "50113"
    other_body = signature(key["secret"], f'{stamp}POST/api/v5/trade/cancel-all-after{{"timeOut":"0"}}')
    assert (
        floor.call("POST", "trade/cancel-all-after", {"timeOut": "0"}, ok_access_sign=other_body)[1]["code"] == "50113"
    )


def test_public_answers_need_no_key(floor: Floor) -> None:
    bare = {"ok_access_key": "", "ok_access_sign": "", "ok_access_passphrase": "", "ok_access_timestamp": ""}
    status, body = floor.call("GET", "public/time", **bare)
    assert (status, body["data"]) == (200, [{"ts": str(floor.now_ms)}])


def test_what_does_not_exist_is_not_found(floor: Floor) -> None:
    assert floor.call("GET", "trade/nothing")[0] == 404
    assert floor.call("POST", "trade/fills", {})[0] == 404


# ---- Pages


def filled(floor: Floor, count: int, apart_ms: int = 1000) -> list[str]:
    """So many fills, oldest first; their bill ids."""
    for _ in range(count):
        floor.now_ms += apart_ms
        floor.buy_elsewhere()
    return [row["billId"] for row in floor.front.truth("fills", "demo-01")]


@pytest.fixture
def ten(floor: Floor) -> tuple[Floor, list[str]]:
    return floor, filled(floor, 10)


def ids(floor: Floor, query: str, target: str = "trade/fills") -> list[str]:
    return [row["billId"] for row in floor.rows(f"{target}?{query}")]


def test_pages_are_newest_first_and_cursors_are_exclusive(ten: tuple[Floor, list[str]]) -> None:
    floor, b = ten
    assert ids(floor, "") == b[::-1]
    assert ids(floor, "limit=3") == [b[9], b[8], b[7]]
    assert ids(floor, f"after={b[7]}&limit=3") == [b[6], b[5], b[4]]
    assert ids(floor, f"before={b[7]}") == [b[9], b[8]]


def test_before_gives_the_rows_closest_to_it(ten: tuple[Floor, list[str]]) -> None:
    floor, b = ten
    assert ids(floor, f"before={b[5]}&limit=3") == [b[8], b[7], b[6]]
    assert ids(floor, f"before={b[2]}&after={b[8]}&limit=2") == [b[7], b[6]], "with both, those closest to after"


def test_begin_and_end_are_inclusive_and_the_newest_fills_come_first(ten: tuple[Floor, list[str]]) -> None:
    floor, b = ten
    start = floor.now_ms - 9000  # when the first one was filled
    assert ids(floor, f"begin={start + 2000}&end={start + 4000}") == [b[4], b[3], b[2]]
    assert ids(floor, f"begin={start + 2000}&limit=2") == [b[9], b[8]]
    assert ids(floor, f"begin={start + 2000}&after={b[4]}") == [b[3], b[2]], "the time filters first"


def test_bills_with_only_a_begin_come_from_there_on(ten: tuple[Floor, list[str]]) -> None:
    floor, b = ten
    start = floor.now_ms - 9000
    assert ids(floor, f"begin={start + 2000}&limit=2", "account/bills") == [b[3], b[2]]


def test_bills_are_narrowed_by_contract_and_margin_mode() -> None:
    floor = Floor()
    floor.quote()
    floor.quote(SPOT, "59990", "60010", "1")
    floor.quote(INVERSE, "59990", "60010")
    talk = floor.member()
    talk.place(SPOT, ordType="market", sz="5000")
    talk.place(SWAP, ordType="market", sz="1")
    talk.place(SWAP, ordType="market", sz="1", tdMode="isolated")
    talk.place(INVERSE, ordType="market", sz="1")

    def found(asked: str) -> set[tuple[str, str]]:
        return {(b["instId"], b["mgnMode"]) for b in floor.rows(f"account/bills?type=2&{asked}")}

    assert found("") == {(SPOT, ""), (SWAP, "cross"), (SWAP, "isolated"), (INVERSE, "cross")}
    assert found("ctType=linear") == {(SWAP, "cross"), (SWAP, "isolated")}
    assert found("ctType=inverse") == {(INVERSE, "cross")}
    assert found("mgnMode=cross") == {(SWAP, "cross"), (INVERSE, "cross")}
    assert found("mgnMode=isolated&ctType=linear") == {(SWAP, "isolated")}


def test_a_page_holds_a_hundred_rows_at_most(floor: Floor) -> None:
    bills = filled(floor, 105)
    first = ids(floor, "limit=500")
    assert len(first) == 100
    assert ids(floor, f"after={first[-1]}") == bills[4::-1]


def test_orders_are_paged_by_their_id_and_filtered_by_creation(floor: Floor) -> None:
    talk = floor.member()
    placed = []
    for _ in range(4):
        floor.now_ms += 1000
        placed.append(talk.place()["ordId"])
    floor.now_ms += 1000
    for ord_id in placed:
        floor.call("POST", "trade/cancel-order", {"instId": SWAP, "ordId": ord_id})
    history = "trade/orders-history?instType=SWAP"

    def found(query: str) -> list[str]:
        return [row["ordId"] for row in floor.rows(history + query)]

    assert found("") == placed[::-1]
    assert found(f"&after={placed[2]}") == [placed[1], placed[0]]
    created = floor.now_ms - 3000
    assert found(f"&begin={created}&end={created + 1000}") == [placed[2], placed[1]]


# ---- What is kept, and how long


def test_an_unfilled_cancel_is_forgotten_after_two_hours_and_never_archived(floor: Floor) -> None:
    talk = floor.member()
    never = talk.place(clOrdId="never")["ordId"]
    partly = talk.place(px="2501", sz="150", ordType="ioc", clOrdId="partly")["ordId"]
    floor.call("POST", "trade/cancel-order", {"instId": SWAP, "ordId": never})
    near, archive = "trade/orders-history?instType=SWAP", "trade/orders-history-archive?instType=SWAP"
    assert [r["ordId"] for r in floor.rows(near)] == [partly, never]
    assert [r["ordId"] for r in floor.rows(archive)] == [partly]
    floor.now_ms += 2 * HOUR_MS
    assert len(floor.rows(near)) == 2
    floor.now_ms += 1
    assert [r["ordId"] for r in floor.rows(near)] == [partly]
    assert floor.call("GET", f"trade/order?instId={SWAP}&ordId={never}")[1]["code"] == "51603"
    assert floor.rows(f"trade/order?instId={SWAP}&ordId={partly}")[0]["state"] == "canceled"


def test_history_reaches_back_as_far_as_it_should(floor: Floor) -> None:
    floor.buy_elsewhere()
    counts = []
    for days in (0, 3, 4, 1):  # days 0, 3, 7 and 8, and a little
        floor.now_ms += days * DAY_MS + (1 if days else 0)
        targets = ("trade/fills", "trade/fills-history?instType=SWAP", "trade/orders-history?instType=SWAP")
        more = ("trade/orders-history-archive?instType=SWAP", "account/bills?type=2", "account/bills-archive?type=2")
        counts.append([len(floor.rows(t)) for t in (*targets, *more)])
    assert counts == [[1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1], [0, 1, 0, 1, 0, 1]]


def test_an_open_order_is_pending_and_in_no_history(floor: Floor) -> None:
    ord_id = floor.member().place()["ordId"]
    assert [r["ordId"] for r in floor.rows("trade/orders-pending")] == [ord_id]
    assert floor.rows("trade/orders-history?instType=SWAP") == []
    assert floor.rows("trade/orders-pending?instType=SPOT") == []
    assert floor.rows("trade/orders-pending?state=partially_filled") == []


@pytest.mark.parametrize("target", ["trade/orders-history", "trade/fills-history", "trade/orders-history-archive"])
def test_what_needs_a_type_says_so(floor: Floor, target: str) -> None:
    status, body = floor.call("GET", target)
    assert (status, body["code"]) == (400, "50014")


def test_an_order_that_never_was_is_said_not_to_exist(floor: Floor) -> None:
    status, body = floor.call("GET", f"trade/order?instId={SWAP}&clOrdId=ghost")
    assert (status, body["code"], body["data"]) == (200, "51603", [])


# ---- Orders over HTTP


def test_orders_go_in_by_name_and_come_out_like_the_streams(floor: Floor) -> None:
    ask = {"instId": SWAP, **{k: v for k, v in order(clOrdId="mine").items() if k != "instIdCode"}}
    assert floor.call("POST", "trade/order", {**ask, "instId": ""})[1]["data"][0]["sCode"] == "50014"
    status, body = floor.call("POST", "trade/order", ask)
    assert (status, body["code"], body["data"][0]["sCode"]) == (200, "0", "0")
    status, body = floor.call("POST", "trade/batch-orders", [{**ask, "clOrdId": "x"}, {**ask, "clOrdId": "mine"}])
    assert (body["code"], [r["sCode"] for r in body["data"]]) == ("2", ["0", "51016"])
    status, body = floor.call("POST", "trade/amend-batch-orders", [{"instId": SWAP, "clOrdId": "x", "newSz": "2"}])
    assert body["data"][0]["sCode"] == "0"
    cancels = [{"instId": SWAP, "clOrdId": c} for c in ("x", "mine", "ghost")]
    status, body = floor.call("POST", "trade/cancel-batch-orders", cancels)
    assert (body["code"], [r["sCode"] for r in body["data"]]) == ("2", ["0", "0", "51400"])
    assert floor.call("POST", "trade/batch-orders", [ask] * 21)[1]["code"] == "51111"


@pytest.mark.parametrize("body", ["text", [], ["text"], 5])
def test_a_body_that_is_no_order_is_refused(floor: Floor, body: Any) -> None:
    assert floor.call("POST", "trade/batch-orders", body)[1]["code"] == "51000"


# ---- Limits, lag, broken answers


def test_reads_are_limited_per_account_and_public_ones_per_address() -> None:
    floor = Floor()
    assert [floor.call("GET", "account/balance")[0] for _ in range(11)] == [200] * 10 + [429]
    assert floor.call("GET", "account/balance", account="demo-02")[0] == 200
    assert [floor.call("GET", "public/time")[0] for _ in range(11)] == [200] * 10 + [429]
    floor.now_ms += 2000
    assert floor.call("GET", "account/balance")[0] == 200


def test_a_lagging_read_shows_how_everything_was(floor: Floor) -> None:
    talk = floor.member()
    resting = talk.place(px="2400")["ordId"]
    floor.now_ms += 5000
    talk.place(ordType="market", sz="1")
    floor.call("POST", "trade/cancel-order", {"instId": SWAP, "ordId": resting})
    cash_now = floor.rows("account/balance?ccy=USDT")[0]["details"][0]["cashBal"]
    floor.now_ms += 500
    floor.faults.begin("read_lag", ["demo-01"], floor.now_ms, by_ms=2000)
    assert [r["ordId"] for r in floor.rows("trade/orders-pending")] == [resting]
    assert floor.rows("trade/fills") == []
    assert floor.rows("account/positions") == []
    before = floor.rows("account/balance?ccy=USDT")[0]["details"][0]["cashBal"]
    assert D(before) > D(cash_now)
    floor.now_ms += 1500
    assert floor.rows("trade/orders-pending") == []
    assert len(floor.rows("trade/fills")) == 1
    assert floor.rows("account/positions")[0]["pos"] == "1"
    assert floor.rows("account/balance?ccy=USDT")[0]["details"][0]["cashBal"] == cash_now


def test_broken_answers_on_command(floor: Floor) -> None:
    floor.faults.begin("html_502", ["demo-01"], floor.now_ms, times=1)
    broken = floor.raw_call("GET", "account/config")
    assert broken is not None
    assert (broken.status, broken.headers["content-type"]) == (502, "text/html")
    floor.faults.begin("rate_429", ["demo-01"], floor.now_ms, times=1)
    status, body = floor.call("GET", "account/config")
    assert (status, body) == (429, {"msg": "Requests too frequent.", "code": 50011})
    assert floor.call("GET", "account/config")[0] == 200


# ---- What a client reads before it trades


def test_instruments_of_each_type_say_their_code_and_steps(floor: Floor) -> None:
    swaps = {r["instId"]: r for r in floor.rows("public/instruments?instType=SWAP")}
    assert {symbol: swaps[symbol]["instIdCode"] for symbol in (SWAP, INVERSE)} == {s: CODES[s] for s in (SWAP, INVERSE)}
    assert (swaps[SWAP]["ctVal"], swaps[SWAP]["ctValCcy"], swaps[SWAP]["ctType"]) == ("0.1", "ETH", "linear")
    assert (swaps[INVERSE]["ctVal"], swaps[INVERSE]["ctValCcy"], swaps[INVERSE]["settleCcy"]) == ("100", "USD", "BTC")
    assert SPOT in {r["instId"] for r in floor.rows("account/instruments?instType=SPOT")}
    assert floor.rows("public/instruments?instType=OPTION&uly=BTC-USD") == []


def test_an_atomic_statement_agrees_with_its_two_halves(floor: Floor) -> None:
    floor.buy_elsewhere()
    (risk,) = floor.rows("account/account-position-risk")
    assert risk["posData"] == floor.rows("account/positions")
    whole = {d["ccy"]: d["eq"] for d in floor.rows("account/balance")[0]["details"]}
    assert {d["ccy"]: d["eq"] for d in risk["balData"]} == whole


def test_the_rest_a_client_reads_is_there(floor: Floor) -> None:
    assert floor.rows("account/config")[0]["perm"] == "read_only,trade"
    assert floor.rows("account/trade-fee?instType=SWAP")[0]["taker"] == "-0.0005"
    assert floor.rows(f"account/leverage-info?instId={SWAP}&mgnMode=cross")[0]["lever"] == "5"
    assert floor.rows("public/mark-price?instType=SWAP")[0]["markPx"] == "60000"
    assert floor.rows(f"market/ticker?instId={SWAP}")[0]["askPx"] == "2501"
    assert floor.rows(f"market/books?instId={SWAP}&sz=5")[0]["bids"] == [["2499", "100", "0", "1"]]
    assert {r["ccy"] for r in floor.rows("asset/currencies")} == {"BTC", "ETH", "USDT"}
    assert floor.rows("system/status") == []
