"""Does. ccxt over HTTP, its synchronous or its asynchronous client, against the simulator."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import sys
import time
from collections.abc import Awaitable
from decimal import Decimal
from typing import Any

import ccxt
import ccxt.async_support

from tests.interop.steps import Steps, Venue, patient, refused, same

SPOT, SWAP, INVERSE = "BTC/USDT", "ETH/USDT:USDT", "BTC/USD:BTC"
ROLES = {"T": "taker", "M": "maker"}
D = Decimal


def client(kind: Any, venue: Venue, **changed: Any) -> Any:
    keys = venue.keys
    exchange = kind(
        {"apiKey": keys["api_key"], "secret": keys["secret"], "password": keys["passphrase"], "timeout": 10_000}
        | changed
    )
    exchange.urls["test"] = {"rest": venue.doors["rest"], "ws": venue.doors["ws_private"].rpartition("/")[0]}
    exchange.set_sandbox_mode(True)
    return exchange


async def told(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


async def tell(call: Any, *args: Any, **named: Any) -> Any:
    return await told(call(*args, **named))


async def converse(kind: Any, venue: Venue, steps: Steps) -> None:
    exchange = client(kind, venue)
    marks = venue.hold_still()

    def refuses(call: Any, *args: Any, of: type[Exception]) -> Awaitable[None]:
        return refused(tell(call, *args), of)

    async with steps("server time"):
        assert abs(await tell(exchange.fetch_time) - time.time() * 1000) < 5000
    async with steps("instruments"):
        markets = await tell(exchange.load_markets)
        assert {m["id"] for m in markets.values()} == set(marks)
        assert markets[SPOT]["precision"]["price"] == 0.1
        assert markets[SWAP]["contractSize"] == 0.1
        assert markets[SWAP]["linear"]
        assert markets[INVERSE]["inverse"]
        assert markets[INVERSE]["settle"] == "BTC"
        assert all(m["active"] for m in markets.values())
    async with steps("prices: ticker, tickers, mark"):
        ticker = await tell(exchange.fetch_ticker, SWAP)
        assert ticker["bid"] < marks["ETH-USDT-SWAP"] < ticker["ask"]
        tickers = await tell(exchange.fetch_tickers, None, {"instType": "SWAP"})
        assert {t["info"]["instId"] for t in tickers.values()} == {m for m in marks if m.endswith("-SWAP")}
        # ccxt leaves out instType, which the venue's own description requires.
        mark = await tell(exchange.fetch_mark_price, SWAP, {"instType": "SWAP"})
        assert same(mark["markPrice"], marks["ETH-USDT-SWAP"])
    async with steps("order book"):
        book = await tell(exchange.fetch_order_book, SWAP, 5)
        assert (book["bids"][0][0], book["asks"][0][0]) == (ticker["bid"], ticker["ask"])
        assert len(book["bids"]) == 5
    async with steps("whose key it is"):
        (account,) = await tell(exchange.fetch_accounts)
        assert account["info"]["label"] == venue.name
    async with steps("balance"):
        balance = await tell(exchange.fetch_balance)
        for currency, row in venue.cash().items():
            assert same(balance[currency]["total"], row["cashBal"])
            assert same(balance[currency]["used"], 0)
    async with steps("leverage: set, read"):
        await tell(exchange.set_leverage, 3, SWAP, {"mgnMode": "cross"})
        assert (await tell(exchange.fetch_leverage, SWAP, {"mgnMode": "cross"}))["longLeverage"] == 3
    async with steps("fee rates"):
        assert (await tell(exchange.fetch_trading_fee, SPOT))["taker"] == 0.001
        assert (await tell(exchange.fetch_trading_fee, SWAP))["maker"] == 0.0002
    async with steps("wrong secret, wrong passphrase"):
        for changed, error in (
            ({"secret": "x"}, ccxt.AuthenticationError),
            ({"password": "x"}, ccxt.AuthenticationError),
            ({"apiKey": "x"}, ccxt.ExchangeError),  # ccxt has no word for 50119
        ):
            stranger = client(kind, venue, **changed)
            await refuses(stranger.private_get_account_balance, of=error)
            await told(stranger.close())
    async with steps("asking too often"):
        hasty = client(kind, venue, enableRateLimit=False)
        with contextlib.suppress(ccxt.RateLimitExceeded):
            for _ in range(6):  # five in two seconds
                await tell(hasty.private_get_account_config)
            raise AssertionError("nothing was refused")
        await told(hasty.close())

    # ---- Orders that rest

    async with steps("limit order, spot"):
        price = patient(marks["BTC-USDT"], "0.1")
        spot = await tell(exchange.create_order, SPOT, "limit", "buy", 0.01, float(price))
        true = venue.order(spot["id"])
        assert (true["state"], true["instId"], true["side"]) == ("live", "BTC-USDT", "buy")
        assert (D(true["px"]), D(true["sz"])) == (price, D("0.01"))
    async with steps("limit order, swap"):
        price = patient(marks["ETH-USDT-SWAP"], "0.01", "1.1")
        swap = await tell(exchange.create_order, SWAP, "limit", "sell", 2, float(price), {"clientOrderId": "interop1"})
        true = venue.order(swap["id"])
        assert (true["state"], true["clOrdId"], true["tdMode"]) == ("live", "interop1", "cross")
        assert (D(true["px"]), D(true["sz"]), true["lever"]) == (price, 2, "3")
    async with steps("read an order by either id"):
        by_id = await tell(exchange.fetch_order, swap["id"], SWAP)
        by_ours = await tell(exchange.fetch_order, None, SWAP, {"clOrdId": "interop1"})
        assert by_id["id"] == by_ours["id"] == swap["id"]
        assert (by_id["status"], by_id["side"], by_id["amount"], by_id["filled"]) == ("open", "sell", 2, 0)
        assert same(by_id["price"], price)
    async with steps("open orders"):
        found = await tell(exchange.fetch_open_orders)
        assert sorted(o["id"] for o in found) == sorted(o["ordId"] for o in venue.orders("live"))
        assert [o["id"] for o in await tell(exchange.fetch_open_orders, SPOT)] == [spot["id"]]
    async with steps("balance with orders at work"):
        balance = await tell(exchange.fetch_balance)
        row = venue.cash()["USDT"]
        assert D(row["held"]) > 0
        assert same(balance["USDT"]["used"], row["held"])
        assert same(balance["USDT"]["free"], D(row["cashBal"]) - D(row["held"]))
    async with steps("amend"):
        price = patient(marks["ETH-USDT-SWAP"], "0.01", "1.2")
        await tell(exchange.edit_order, swap["id"], SWAP, "limit", "sell", 3, float(price))
        true = venue.order(swap["id"])
        assert (D(true["px"]), D(true["sz"]), true["state"]) == (price, 3, "live")
    async with steps("cancel"):
        await tell(exchange.cancel_order, spot["id"], SPOT)
        await tell(exchange.cancel_order, None, SWAP, {"clientOrderId": "interop1"})
        assert {venue.order(o["id"])["state"] for o in (spot, swap)} == {"canceled"}
        assert (await tell(exchange.fetch_order, swap["id"], SWAP))["status"] == "canceled"
    async with steps("cancelled orders"):
        found = await tell(exchange.fetch_canceled_orders, SWAP)
        assert [o["id"] for o in found] == [o["ordId"] for o in venue.orders("canceled", "ETH-USDT-SWAP")]
        assert found[0]["status"] == "canceled"
    async with steps("several at once: place, cancel"):
        price = float(patient(marks["ETH-USDT-SWAP"], "0.01"))
        ask = {"symbol": SWAP, "type": "limit", "side": "buy", "amount": 1, "price": price}
        placed = await tell(exchange.create_orders, [ask, ask, ask])
        assert sorted(o["id"] for o in placed) == sorted(o["ordId"] for o in venue.orders("live"))
        gone = await tell(exchange.cancel_orders, [o["id"] for o in placed], SWAP)
        assert len(gone) == 3
        assert not venue.orders("live")
    async with steps("post-only that would take"):
        price = float(patient(marks["ETH-USDT-SWAP"], "0.01", "1.1"))
        order = await tell(exchange.create_order, SWAP, "limit", "buy", 1, price, {"postOnly": True})
        true = venue.order(order["id"])
        assert (true["state"], true["cancelSource"], true["accFillSz"]) == ("canceled", "31", "0")
    async with steps("orders refused, each for its reason"):
        count = len(venue.truth("orders"))
        far = float(patient(marks["BTC-USDT"], "0.1"))
        new = exchange.create_order
        await refuses(new, SPOT, "limit", "buy", 500, far, of=ccxt.InsufficientFunds)
        await refuses(new, SPOT, "limit", "buy", 0.01, far * 3, of=ccxt.InvalidOrder)
        await refuses(new, SWAP, "market", "sell", 1, None, {"reduceOnly": True}, of=ccxt.ExchangeError)  # 51169
        await refuses(exchange.cancel_order, spot["id"], SPOT, of=ccxt.OrderNotFound)
        await refuses(exchange.fetch_order, "123", SPOT, of=ccxt.OrderNotFound)
        assert len(venue.truth("orders")) == count
        await tell(new, SPOT, "limit", "buy", 0.01, far, {"clientOrderId": "twice"})
        await refuses(new, SPOT, "limit", "buy", 0.01, far, {"clientOrderId": "twice"}, of=ccxt.InvalidOrder)
        await tell(exchange.cancel_order, None, SPOT, {"clientOrderId": "twice"})
        assert len(venue.truth("orders")) == count + 1

    # ---- Orders that fill

    async with steps("market order, spot, in quote"):
        order = await tell(exchange.create_market_buy_order_with_cost, SPOT, 1200)
        true = venue.order(order["id"])
        assert (true["state"], true["tgtCcy"]) == ("filled", "quote_ccy")
        found = await tell(exchange.fetch_order, order["id"], SPOT)
        assert (found["status"], found["type"]) == ("closed", "market")
        assert same(found["filled"], true["accFillSz"])
        assert same(found["average"], true["avgPx"])
    async with steps("market order, spot, sell"):
        order = await tell(exchange.create_order, SPOT, "market", "sell", 0.005)
        assert D(venue.order(order["id"])["accFillSz"]) == D("0.005")
    async with steps("market order, swap"):
        order = await tell(exchange.create_order, SWAP, "market", "buy", 4)
        true = venue.order(order["id"])
        assert (true["state"], true["accFillSz"]) == ("filled", "4")
        inverse = await tell(exchange.create_order, INVERSE, "market", "sell", 2)
        assert venue.order(inverse["id"])["state"] == "filled"
    async with steps("filled in part, by taking and by making"):
        mark = marks["ETH-USDT-SWAP"]
        venue.somebody_else(instrument=SWAP, side="sell", quantity="1", price=str(mark))
        order = await tell(exchange.create_order, SWAP, "limit", "buy", 3, float(mark))
        found = await tell(exchange.fetch_order, order["id"], SWAP)
        assert (found["status"], found["filled"], found["remaining"]) == ("open", 1, 2)
        assert venue.order(order["id"])["state"] == "partially_filled"
        venue.somebody_else(instrument=SWAP, side="sell", quantity="2")
        found = await tell(exchange.fetch_order, order["id"], SWAP)
        assert (found["status"], found["filled"], found["average"]) == ("closed", 3, float(mark))
        trades = await tell(exchange.fetch_order_trades, order["id"], SWAP)
        assert [(t["amount"], t["takerOrMaker"]) for t in trades] == [(1, "taker"), (2, "maker")]
    async with steps("position"):
        found = {p["symbol"]: p for p in await tell(exchange.fetch_positions)}
        assert {p["info"]["instId"] for p in found.values()} == {p["instId"] for p in venue.truth("positions")}
        for symbol, side in ((SWAP, "long"), (INVERSE, "short")):
            position = found[symbol]
            true = next(p for p in venue.truth("positions") if p["posId"] == position["id"])
            assert position["side"] == side
            assert same(position["contracts"], abs(D(true["pos"])))
            assert same(position["entryPrice"], true["avgPx"])
        assert found[SWAP]["leverage"] == 3
        assert (await tell(exchange.fetch_position, SWAP))["contracts"] == 7
    async with steps("closed orders"):
        for symbol, name in ((SPOT, "BTC-USDT"), (SWAP, "ETH-USDT-SWAP")):
            found = await tell(exchange.fetch_closed_orders, symbol)
            assert [o["id"] for o in found] == [o["ordId"] for o in venue.orders("filled", name)]
            assert {o["status"] for o in found} == {"closed"}
    async with steps("own fills with their fees"):
        for symbol, name in ((SPOT, "BTC-USDT"), (SWAP, "ETH-USDT-SWAP"), (INVERSE, "BTC-USD-SWAP")):
            true = {f["tradeId"]: f for f in venue.truth("fills") if f["instId"] == name}
            found = await tell(exchange.fetch_my_trades, symbol)
            assert {t["id"] for t in found} == set(true)
            for trade in found:
                fill = true[trade["id"]]
                assert (trade["order"], trade["side"]) == (fill["ordId"], fill["side"])
                assert trade["takerOrMaker"] == ROLES[fill["execType"]]
                assert same(trade["amount"], fill["fillSz"])
                assert same(trade["price"], fill["fillPx"])
                assert same(trade["fee"]["cost"], -D(fill["fee"]))
                assert trade["fee"]["currency"] == fill["feeCcy"]
    async with steps("pages: after, before, begin, end"):
        fills = [f for f in venue.truth("fills") if f["instId"] == "ETH-USDT-SWAP"]
        newest = await tell(exchange.fetch_my_trades, SWAP, None, 2)
        assert [t["id"] for t in newest] == [f["tradeId"] for f in fills[-2:]]
        since = int(fills[1]["ts"])
        later = await tell(exchange.fetch_my_trades, SWAP, since)
        assert [t["id"] for t in later] == [f["tradeId"] for f in fills if int(f["ts"]) >= since]
        until = await tell(exchange.fetch_my_trades, SWAP, None, None, {"until": since})
        assert [t["id"] for t in until] == [f["tradeId"] for f in fills if int(f["ts"]) <= since]
    async with steps("funding"):
        before = D(venue.cash()["USDT"]["cashBal"])
        venue.post("/faults", kind="funding", instrument=SWAP, rate="0.0001")
        (paid,) = await tell(exchange.fetch_funding_history, SWAP)
        assert same(paid["amount"], D(venue.cash()["USDT"]["cashBal"]) - before)
        assert paid["amount"] < 0
        assert not await tell(exchange.fetch_funding_history, INVERSE)
    async with steps("an order placed elsewhere"):
        price = patient(marks["BTC-USDT"], "0.1")
        there = venue.post(
            "/orders", account=venue.name, instrument=SPOT, side="buy", quantity="0.02", price=str(price)
        )
        assert there["ordId"] in [o["id"] for o in await tell(exchange.fetch_open_orders, SPOT)]
        await tell(exchange.cancel_order, there["ordId"], SPOT)
    async with steps("close by a reduce-only order"):
        await tell(exchange.create_order, SWAP, "market", "sell", 7, None, {"reduceOnly": True})
        await tell(exchange.create_order, INVERSE, "market", "buy", 2, None, {"reduceOnly": True})
        assert not venue.truth("positions")
        assert not await tell(exchange.fetch_positions)
    async with steps("bills add up to the balance"):
        # ccxt's fetch_ledger always narrows to one kind of product; its call beneath does not.
        bills = (await tell(exchange.private_get_account_bills))["data"]
        for currency, row in venue.cash().items():
            assert same(sum(D(b["balChg"]) for b in bills if b["ccy"] == currency), row["cashBal"])
        entries = await tell(exchange.fetch_ledger, None, None, 100, {"type": "swap"})
        assert {e["id"] for e in entries} == {b["billId"] for b in bills if b["instType"] == "SWAP"}
        assert {e["type"] for e in entries} == {"trade", "fee"}
    async with steps("liquidation"):
        await tell(exchange.create_order, SWAP, "market", "buy", 2)
        venue.post("/faults", kind="liquidate", accounts=[venue.name], instrument=SWAP)
        assert not await tell(exchange.fetch_positions)
        trade = (await tell(exchange.fetch_my_trades, SWAP))[-1]
        assert int(trade["id"]) < 0
        assert (trade["side"], trade["amount"], trade["info"]["subType"]) == ("sell", 2, "100")
    async with steps("dead man's switch"):
        armed = await tell(exchange.cancel_all_orders_after, 10_000)
        assert int(armed["data"][0]["triggerTime"]) > time.time() * 1000
    await told(exchange.close())


if __name__ == "__main__":
    asyncio.run(
        converse(
            ccxt.async_support.okx if sys.argv[1:] == ["async"] else ccxt.okx, Venue(json.load(sys.stdin)), Steps("okx")
        )
    )
