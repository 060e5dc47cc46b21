"""Does. OKX's own python-okx over HTTP against the simulator."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from decimal import Decimal
from typing import Any

from okx.Account import AccountAPI
from okx.MarketData import MarketAPI
from okx.PublicData import PublicAPI
from okx.Trade import TradeAPI

from tests.interop.steps import Steps, Venue, patient, same

SPOT, SWAP, INVERSE = "BTC-USDT", "ETH-USDT-SWAP", "BTC-USD-SWAP"
D = Decimal


def rows(answer: dict[str, Any]) -> list[dict[str, Any]]:
    assert answer["code"] == "0", answer
    found: list[dict[str, Any]] = answer["data"]
    return found


def row(answer: dict[str, Any]) -> dict[str, Any]:
    (only,) = rows(answer)
    assert only.get("sCode", "0") == "0", answer
    return only


def code(answer: dict[str, Any]) -> str:
    """Why it was refused: the order's own code, or that of the whole."""
    return str(answer["data"][0]["sCode"] if answer["data"] else answer["code"])


async def converse(venue: Venue, steps: Steps) -> None:
    keys = venue.keys

    def client(kind: Any, **changed: str) -> Any:
        mine = {
            "api_key": keys["api_key"],
            "api_secret_key": keys["secret"],
            "passphrase": keys["passphrase"],
            "domain": venue.doors["rest"],
            "flag": "1",
        }
        return kind(**(mine | changed))

    public, market = (kind(domain=venue.doors["rest"], flag="1") for kind in (PublicAPI, MarketAPI))
    account, trade = client(AccountAPI), client(TradeAPI)
    marks = venue.hold_still()

    async with steps("server time"):
        assert abs(int(row(public.get_system_time())["ts"]) - time.time() * 1000) < 5000
    async with steps("instruments"):
        listed = {x["instId"]: x for kind in ("SPOT", "SWAP") for x in rows(public.get_instruments(kind))}
        assert set(listed) == set(marks)
        assert {x["instId"] for x in rows(account.get_instruments("SWAP"))} < set(marks)
        assert all(isinstance(x["instIdCode"], int) for x in listed.values())
    async with steps("prices: ticker, tickers, mark"):
        ticker = row(market.get_ticker(SWAP))
        assert D(ticker["bidPx"]) < marks[SWAP] < D(ticker["askPx"])
        assert SWAP in {t["instId"] for t in rows(market.get_tickers("SWAP"))}
        assert D(row(public.get_mark_price("SWAP", instId=SWAP))["markPx"]) == marks[SWAP]
    async with steps("order book"):
        book = row(market.get_orderbook(SWAP, "5"))
        assert (book["bids"][0][0], book["asks"][0][0]) == (ticker["bidPx"], ticker["askPx"])
    async with steps("whose key it is"):
        assert row(account.get_account_config())["label"] == venue.name
    async with steps("balance"):
        held = {d["ccy"]: d for d in row(account.get_account_balance())["details"]}
        assert {c: d["cashBal"] for c, d in held.items()} == {c: t["cashBal"] for c, t in venue.cash().items()}
        risk = row(account.get_position_risk())
        assert {d["ccy"]: d["eq"] for d in risk["balData"]} == {c: d["eq"] for c, d in held.items()}
    async with steps("leverage: set, read"):
        row(account.set_leverage("3", "cross", SWAP))
        assert row(account.get_leverage("cross", instId=SWAP))["lever"] == "3"
    async with steps("fee rates"):
        assert row(account.get_fee_rates("SWAP"))["taker"] == "-0.0005"
    async with steps("wrong secret, wrong passphrase"):
        wrong = ({"api_secret_key": "x"}, {"passphrase": "x"}, {"api_key": "x"}, {"flag": "0"})
        answers = [client(AccountAPI, **changed).get_account_config()["code"] for changed in wrong]
        assert answers == ["50113", "50105", "50119", "50101"], answers
    async with steps("asking too often"):
        answers = [account.get_account_config()["code"] for _ in range(6)]  # five in two seconds
        assert "50011" in map(str, answers), answers

    # ---- Orders that rest

    async with steps("limit order, spot"):
        price = str(patient(marks[SPOT], "0.1"))
        spot = row(trade.place_order(SPOT, "cash", "buy", "limit", "0.01", px=price))["ordId"]
        true = venue.order(spot)
        assert (true["state"], D(true["px"]), true["sz"]) == ("live", D(price), "0.01")
    async with steps("limit order, swap"):
        price = str(patient(marks[SWAP], "0.01", "1.1"))
        placed = row(trade.place_order(SWAP, "cross", "sell", "limit", "2", px=price, clOrdId="interop1"))
        swap = placed["ordId"]
        assert placed["clOrdId"] == venue.order(swap)["clOrdId"] == "interop1"
    async with steps("read an order by either id"):
        by_id, by_ours = row(trade.get_order(SWAP, swap)), row(trade.get_order(SWAP, clOrdId="interop1"))
        assert by_id == by_ours
        assert by_id.items() <= venue.order(swap).items()
    async with steps("open orders"):
        assert [o["ordId"] for o in rows(trade.get_order_list())] == [swap, spot]
        assert [o["ordId"] for o in rows(trade.get_order_list(limit="1"))] == [swap]
        assert [o["ordId"] for o in rows(trade.get_order_list(after=swap))] == [spot]
    async with steps("balance with orders at work"):
        held = {d["ccy"]: d for d in row(account.get_account_balance("USDT"))["details"]}
        assert D(held["USDT"]["ordFrozen"]) == D(venue.cash()["USDT"]["held"]) > 0
    async with steps("amend"):
        price = str(patient(marks[SWAP], "0.01", "1.2"))
        row(trade.amend_order(SWAP, ordId=swap, reqId="r1", newSz="3", newPx=price))
        assert (D(venue.order(swap)["px"]), venue.order(swap)["sz"]) == (D(price), "3")
    async with steps("cancel"):
        row(trade.cancel_order(SPOT, spot))
        row(trade.cancel_order(SWAP, clOrdId="interop1"))
        assert {venue.order(o)["state"] for o in (spot, swap)} == {"canceled"}
    async with steps("cancelled orders"):
        assert [o["ordId"] for o in rows(trade.get_orders_history("SWAP", state="canceled"))] == [swap]
    async with steps("several at once: place, cancel"):
        ask = {"instId": SWAP, "tdMode": "cross", "side": "buy", "ordType": "limit", "sz": "1"}
        ask["px"] = str(patient(marks[SWAP], "0.01"))
        answer = trade.place_multiple_orders([ask, ask, {**ask, "sz": "0.001"}])
        assert answer["code"] == "2", answer
        assert [r["sCode"] == "0" for r in answer["data"]] == [True, True, False]
        live = [o["ordId"] for o in venue.orders("live")]
        assert [r["ordId"] for r in answer["data"][:2]] == live
        moved = trade.amend_multiple_orders([{"instId": SWAP, "ordId": o, "newSz": "2"} for o in live])
        assert len(rows(moved)) == 2
        assert {o["sz"] for o in venue.orders("live")} == {"2"}
        assert len(rows(trade.cancel_multiple_orders([{"instId": SWAP, "ordId": o} for o in live]))) == 2
        assert not venue.orders("live")
    async with steps("post-only that would take"):
        price = str(patient(marks[SWAP], "0.01", "1.1"))
        made = row(trade.place_order(SWAP, "cross", "buy", "post_only", "1", px=price))
        assert venue.order(made["ordId"])["cancelSource"] == "31"
    async with steps("orders refused, each for its reason"):
        count, far = len(venue.truth("orders")), str(patient(marks[SPOT], "0.1"))

        def refusal(size: str, px: str, **more: str) -> str:
            return code(trade.place_order(SPOT, "cash", "buy", "limit", size, px=px, **more))

        assert refusal("500", far) == "51008"
        assert refusal("0.000001", far) == "51020"
        assert refusal("0.01", far + "5") in ("51150", "51121")
        assert refusal("0.01", "") in ("50014", "51000")
        assert code(trade.place_order(SPOT, "cross", "buy", "limit", "0.01", px=far)) == "51000"
        assert code(trade.place_order("XXX-USDT", "cash", "buy", "limit", "1", px="1")) == "51001"
        assert code(trade.cancel_order(SPOT, "123")) == "51400"
        assert code(trade.amend_order(SPOT, ordId="123", newSz="1")) == "51503"
        assert code(trade.get_order(SPOT, "123")) == "51603"
        assert len(venue.truth("orders")) == count
        row(trade.place_order(SPOT, "cash", "buy", "limit", "0.01", px=far, clOrdId="twice"))
        assert refusal("0.01", far, clOrdId="twice") == "51016"
        row(trade.cancel_order(SPOT, clOrdId="twice"))

    # ---- Orders that fill

    async with steps("market order, spot, in quote"):
        made = row(trade.place_order(SPOT, "cash", "buy", "market", "1200"))
        true = venue.order(made["ordId"])
        assert (true["state"], true["tgtCcy"]) == ("filled", "quote_ccy")
        assert row(trade.get_order(SPOT, made["ordId"])).items() <= true.items()
    async with steps("market order, spot, sell"):
        made = row(trade.place_order(SPOT, "cash", "sell", "market", "0.005"))
        assert venue.order(made["ordId"])["accFillSz"] == "0.005"
    async with steps("market order, swap"):
        made = row(trade.place_order(SWAP, "cross", "buy", "market", "4"))
        assert venue.order(made["ordId"])["accFillSz"] == "4"
        row(trade.place_order(INVERSE, "cross", "sell", "market", "2"))
    async with steps("filled in part, by taking and by making"):
        venue.somebody_else(instrument=SWAP, side="sell", quantity="1", price=str(marks[SWAP]))
        made = row(trade.place_order(SWAP, "cross", "buy", "limit", "3", px=str(marks[SWAP])))
        told = row(trade.get_order(SWAP, made["ordId"]))
        assert (told["state"], told["accFillSz"]) == ("partially_filled", "1")
        venue.somebody_else(instrument=SWAP, side="sell", quantity="2")
        told = row(trade.get_order(SWAP, made["ordId"]))
        assert (told["state"], told["accFillSz"], told["fillSz"]) == ("filled", "3", "2")
        assert [f["execType"] for f in rows(trade.get_fills(ordId=made["ordId"]))] == ["M", "T"]
    async with steps("position"):
        told = {p["posId"]: (p["instId"], p["pos"], p["avgPx"]) for p in rows(account.get_positions())}
        assert told == {p["posId"]: (p["instId"], p["pos"], p["avgPx"]) for p in venue.truth("positions")}
        assert {name: size for name, size, _ in told.values()} == {SWAP: "7", INVERSE: "-2"}
    async with steps("closed orders"):
        for kind in ("SPOT", "SWAP"):
            found = rows(trade.get_orders_history(kind, state="filled"))
            true = [o["ordId"] for o in venue.orders("filled") if o["instType"] == kind]
            assert [o["ordId"] for o in found] == true[::-1]
    async with steps("own fills with their fees"):
        found = {f["billId"]: f for f in rows(trade.get_fills())}
        true = {f["billId"]: f for f in venue.truth("fills")}
        assert set(found) == set(true)
        assert all(f.items() <= true[bill].items() for bill, f in found.items())
    async with steps("pages: after, before, begin, end"):
        bills = sorted(true, key=int)  # oldest first

        def page(read: Any = trade.get_fills, **asked: str) -> list[str]:
            return [f["billId"] for f in rows(read(**asked))]

        assert page(limit="2") == bills[:-3:-1]
        assert page(after=bills[3], limit="2") == [bills[2], bills[1]]
        assert page(before=bills[0], limit="2") == [bills[2], bills[1]]  # those closest to the cursor
        at = true[bills[2]]["ts"]
        assert set(page(begin=at)) == {b for b in bills if true[b]["ts"] >= at}
        assert set(page(end=at)) == {b for b in bills if true[b]["ts"] <= at}
        swaps = [b for b in bills if true[b]["instType"] == "SWAP"]
        assert page(trade.get_fills_history, instType="SWAP") == swaps[::-1]
        ids = sorted((o["ordId"] for o in venue.truth("orders") if o["instType"] == "SWAP"), key=int)
        ended, after = list[str](), ""
        while part := [o["ordId"] for o in rows(trade.get_orders_history("SWAP", limit="3", after=after))]:
            ended, after = ended + part, part[-1]
        assert ended == ids[::-1]
    async with steps("funding"):
        before = D(venue.cash()["USDT"]["cashBal"])
        venue.post("/faults", kind="funding", instrument=SWAP, rate="0.0001")
        paid = row(account.get_account_bills(type="8", ctType="linear", mgnMode="cross"))
        assert D(paid["balChg"]) == D(venue.cash()["USDT"]["cashBal"]) - before < 0
        assert (paid["subType"], D(paid["bal"])) == ("173", D(venue.cash()["USDT"]["cashBal"]))
        assert not rows(account.get_account_bills(type="8", ctType="inverse"))
        assert not rows(account.get_account_bills(type="8", mgnMode="isolated"))
    async with steps("an order placed elsewhere"):
        there = venue.post("/orders", account=venue.name, instrument=SPOT, side="buy", quantity="0.02", price=far)
        assert [o["ordId"] for o in rows(trade.get_order_list("SPOT"))] == [there["ordId"]]
        row(trade.cancel_order(SPOT, there["ordId"]))
    async with steps("close by a reduce-only order"):
        row(trade.place_order(SWAP, "cross", "sell", "market", "9", reduceOnly="true"))
        row(trade.place_order(INVERSE, "cross", "buy", "market", "2", reduceOnly="true"))
        assert not venue.truth("positions")
        assert not rows(account.get_positions())
    async with steps("bills add up to the balance"):
        bills = rows(account.get_account_bills())
        for currency, true in venue.cash().items():
            assert same(sum(D(b["balChg"]) for b in bills if b["ccy"] == currency), true["cashBal"])
        assert rows(account.get_account_bills_archive()) == bills
    async with steps("liquidation"):
        row(trade.place_order(SWAP, "cross", "buy", "market", "2"))
        venue.post("/faults", kind="liquidate", accounts=[venue.name], instrument=SWAP)
        assert not rows(account.get_positions())
        fill = rows(trade.get_fills(limit="1"))[0]
        assert int(fill["tradeId"]) < 0
        assert (fill["side"], fill["fillSz"], fill["subType"]) == ("sell", "2", "100")
        assert row(trade.get_order(SWAP, fill["ordId"]))["category"] == "full_liquidation"


if __name__ == "__main__":
    asyncio.run(converse(Venue(json.load(sys.stdin)), Steps("okx")))
