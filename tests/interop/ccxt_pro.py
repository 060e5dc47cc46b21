"""Does. ccxt's streams (ccxt.pro) against the simulator: it logs in, watches, trades and is cut off."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import ccxt
import ccxt.pro

from tests.interop.ccxt_rest import SPOT, SWAP, client
from tests.interop.steps import Steps, Venue, patient, refused, same, soon

D = Decimal


async def until(watch: Callable[[], Awaitable[Any]], fits: Callable[[Any], bool]) -> Any:
    """Watch on until it tells what is wanted; the step's limit ends a wait in vain."""
    while not fits(seen := await watch()):
        pass
    return seen


async def converse(venue: Venue, other: Venue, steps: Steps) -> None:
    exchange, quiet = client(ccxt.pro.okx, venue), client(ccxt.pro.okx, other)
    marks = venue.hold_still()

    async def order(state: str, order_id: str, **more: Any) -> Any:
        def fits(seen: list[Any]) -> bool:
            return any(
                o["id"] == order_id and o["status"] == state and all(same(o[k], v) for k, v in more.items())
                for o in seen
            )

        return await until(exchange.watch_orders, fits)

    async with steps("wrong secret, wrong passphrase"):
        for changed in ({"secret": "x"}, {"password": "x"}, {"apiKey": "x"}):
            stranger = client(ccxt.pro.okx, venue, **changed)
            await refused(stranger.authenticate(), ccxt.AuthenticationError)
            await stranger.close()
            await asyncio.sleep(0.4)  # three connections a second is all there is
        assert not venue.connections("private")
    async with steps("log in"):
        await exchange.load_markets()
        await exchange.authenticate()
        assert len(venue.connections("private")) == 1
        # Another account, on a channel that says nothing by itself, is left alone until the last step but one.
        orders_of_other = asyncio.ensure_future(quiet.watch_orders())
        await soon(lambda: any("orders" in c["channels"] for c in other.connections("private")))
        quiet_since, quiet_before = time.monotonic(), other.connections("private")
    async with steps("watch tickers and mark prices"):
        ticker = await exchange.watch_ticker(SWAP)
        assert ticker["bid"] < marks["ETH-USDT-SWAP"] < ticker["ask"]
        assert same((await exchange.watch_mark_price(SWAP))["markPrice"], marks["ETH-USDT-SWAP"])
        moved = asyncio.gather(
            until(lambda: exchange.watch_mark_price(SWAP), lambda seen: same(seen["markPrice"], 2600)),
            until(lambda: exchange.watch_ticker(SWAP), lambda seen: seen["bid"] < 2600 < seen["ask"]),
        )
        await asyncio.sleep(0)
        venue.post("/market", instrument=SWAP, price="2600")
        await moved
        tickers = await exchange.watch_tickers([SPOT, SWAP])
        assert set(tickers) <= {SPOT, SWAP}
    async with steps("watch the best bid and offer"):
        best = (await exchange.watch_bids_asks([SWAP]))[SWAP]
        assert best["bid"] < 2600 < best["ask"]
    async with steps("order book"):
        book = await exchange.watch_order_book(SWAP, 1)
        assert (book["bids"][0][0], book["asks"][0][0]) == (best["bid"], best["ask"])
    async with steps("watch balances"):
        balance = await exchange.watch_balance()
        for currency, row in venue.cash().items():
            assert same(balance[currency]["total"], row["cashBal"])
    async with steps("watch positions"):
        assert await exchange.watch_positions() == []
        orders = asyncio.ensure_future(exchange.watch_orders())
        trades = asyncio.ensure_future(exchange.watch_my_trades())
        await soon(lambda: any("orders" in c["channels"] for c in venue.connections("private")))

    # ---- Orders that rest

    async with steps("limit order, spot"):
        price = patient(marks["BTC-USDT"], "0.1")
        spot = await exchange.create_order_ws(SPOT, "limit", "buy", 0.01, float(price))
        assert (await orders)[-1]["status"] == "open"
        true = venue.order(spot["id"])
        assert (true["state"], D(true["px"]), D(true["sz"])) == ("live", price, D("0.01"))
    async with steps("limit order, swap"):
        price = patient(D(2600), "0.01", "1.1")
        watching = asyncio.ensure_future(exchange.watch_orders())
        swap = await exchange.create_order_ws(SWAP, "limit", "sell", 2, float(price), {"op": "order"})
        assert (await watching)[-1]["id"] == swap["id"]
        true = venue.order(swap["id"])
        assert (true["state"], D(true["px"]), true["sz"]) == ("live", price, "2")
    async with steps("balance with orders at work"):
        held = venue.cash()["USDT"]["held"]
        await until(exchange.watch_balance, lambda seen: same(seen["USDT"]["used"], held))
    async with steps("amend"):
        price = patient(D(2600), "0.01", "1.2")
        watching = asyncio.ensure_future(order("open", swap["id"], price=price, amount=3))
        await exchange.edit_order_ws(swap["id"], SWAP, "limit", "sell", 3, float(price))
        await watching
        true = venue.order(swap["id"])
        assert (D(true["px"]), true["sz"]) == (price, "3")
    async with steps("cancel"):
        watching = asyncio.ensure_future(order("canceled", swap["id"]))
        await exchange.cancel_order_ws(swap["id"], SWAP)
        await watching
        assert venue.order(swap["id"])["state"] == "canceled"
        await exchange.cancel_order_ws(spot["id"], SPOT)
        assert venue.order(spot["id"])["state"] == "canceled"
    async with steps("several at once: place, cancel"):
        price = float(patient(D(2600), "0.01"))
        placed = [await exchange.create_order_ws(SWAP, "limit", "buy", 1, price) for _ in range(3)]
        gone = await exchange.cancel_orders_ws([o["id"] for o in placed], SWAP)
        assert sorted(o["id"] for o in gone) == sorted(o["id"] for o in placed)
        assert not venue.orders("live")
    async with steps("post-only that would take"):
        order_ = await exchange.create_order_ws(SWAP, "limit", "buy", 1, 2700.0, {"postOnly": True})
        assert venue.order(order_["id"])["cancelSource"] == "31"
    async with steps("orders refused, each for its reason"):
        count = len(venue.truth("orders"))
        far = float(patient(marks["BTC-USDT"], "0.1"))
        new = exchange.create_order_ws
        await refused(new(SPOT, "limit", "buy", 500, far), ccxt.InsufficientFunds)
        await refused(new(SPOT, "limit", "buy", 0.01, far * 3), ccxt.InvalidOrder)
        await refused(exchange.cancel_order_ws("123", SPOT), ccxt.OrderNotFound)
        await refused(exchange.edit_order_ws("123", SPOT, "limit", "buy", 1), ccxt.OrderNotFound)
        assert len(venue.truth("orders")) == count

    # ---- Orders that fill

    async with steps("market order, swap"):
        watching = asyncio.ensure_future(exchange.watch_positions())
        market = await exchange.create_order_ws(SWAP, "market", "buy", 4)
        assert venue.order(market["id"])["state"] == "filled"
    async with steps("own fills with their fees"):
        seen = await trades
        (fill,) = [f for f in venue.truth("fills") if f["ordId"] == market["id"]]
        trade = seen[-1]
        assert (trade["id"], trade["order"], trade["side"]) == (fill["tradeId"], fill["ordId"], "buy")
        assert same(trade["amount"], fill["fillSz"])
        assert same(trade["price"], fill["fillPx"])
        # ccxt keeps the stream's own sign, negative for a charge; over HTTP it turns it round.
        assert same(trade["fee"]["cost"], fill["fee"])
    async with steps("position"):
        (position,) = await watching
        (true,) = venue.truth("positions")
        assert (position["symbol"], position["side"], position["contracts"]) == (SWAP, "long", 4)
        assert same(position["entryPrice"], true["avgPx"])
        cash = venue.cash()["USDT"]["cashBal"]
        await until(exchange.watch_balance, lambda told: same(told["info"]["data"][0]["details"][0]["cashBal"], cash))
    async with steps("filled in part, by taking and by making"):
        venue.somebody_else(instrument=SWAP, side="sell", quantity="1", price="2600")
        made = await exchange.create_order_ws(SWAP, "limit", "buy", 3, 2600.0)

        def kept() -> Any:
            """As ccxt has it: what comes between two calls of `watch_orders` is only seen there."""
            return next((o for o in exchange.orders if o["id"] == made["id"]), {})

        await soon(lambda: kept().get("filled") == 1)
        assert (kept()["status"], kept()["remaining"]) == ("open", 2)
        venue.somebody_else(instrument=SWAP, side="sell", quantity="2")
        await soon(lambda: kept()["status"] == "closed")
        assert (kept()["filled"], kept()["average"], kept()["info"]["execType"]) == (3, 2600, "M")
    async with steps("an order placed elsewhere"):
        watching = asyncio.ensure_future(exchange.watch_orders())
        await asyncio.sleep(0)
        there = venue.post("/orders", account=venue.name, instrument=SPOT, side="buy", quantity="0.02", price=str(far))
        assert (await watching)[-1]["id"] == there["ordId"]
    async with steps("close by a reduce-only order"):
        watching = asyncio.ensure_future(until(exchange.watch_positions, lambda told: told[-1]["contracts"] == 0))
        await exchange.create_order_ws(SWAP, "market", "sell", 7, None, {"reduceOnly": True})
        await watching
        assert not venue.truth("positions")
    async with steps("unsubscribe"):
        await exchange.un_watch_tickers([SPOT, SWAP])
        await soon(lambda: "tickers" not in {name for c in venue.connections("public") for name in c["channels"]})

    # ---- Lines that break

    async with steps("kept alive beyond 30 s", limit_s=60):
        await asyncio.sleep(max(0.0, quiet_since + 32 - time.monotonic()))
        assert other.connections("private") == quiet_before
        there = other.post("/orders", account=other.name, instrument=SWAP, side="buy", quantity="1")
        assert (await orders_of_other)[-1]["id"] == there["ordId"]
    async with steps("cut off, and back"):
        before = {c["connId"] for c in venue.connections("private")}
        watching = asyncio.ensure_future(exchange.watch_orders())
        await asyncio.sleep(0)
        venue.post("/faults", kind="cut", accounts="all", seconds=0.3)
        await refused(watching, ccxt.NetworkError)
        await asyncio.sleep(0.5)
        watching = asyncio.ensure_future(exchange.watch_orders())
        await soon(lambda: any("orders" in c["channels"] for c in venue.connections("private")))
        assert not before & {c["connId"] for c in venue.connections("private")}
        there = venue.post("/orders", account=venue.name, instrument=SPOT, side="buy", quantity="0.02", price=str(far))
        assert (await watching)[-1]["id"] == there["ordId"]
    async with steps("notice of a service upgrade"):
        # ccxt takes the notice for an error, and gives up what was waiting; once the venue has closed, it dials again.
        watching = asyncio.ensure_future(exchange.watch_orders())
        await asyncio.sleep(0)
        venue.post("/faults", kind="notice", accounts=[venue.name], seconds=1)
        await refused(watching, ccxt.NetworkError)
        await soon(lambda: not venue.connections("private"))
        await asyncio.sleep(0.5)
        watching = asyncio.ensure_future(exchange.watch_orders())
        await soon(lambda: any("orders" in c["channels"] for c in venue.connections("private")))
        watching.cancel()
    await exchange.close()
    await quiet.close()


if __name__ == "__main__":
    doors = json.load(sys.stdin)
    asyncio.run(converse(Venue(doors), Venue(doors, account=2), Steps("okx")))
