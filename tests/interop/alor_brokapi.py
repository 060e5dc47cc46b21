"""Does. brokapi, a Rust client of ALOR with a Python face, against the simulator: reads, streams, orders over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import brokapi
from brokapi import OrderStateKind, OrderType, Side, StopOrderKind, StopOrderRef, Timeframe

from tests.interop.steps import Simulator, Steps, refused, same, soon

D = Decimal
PIECES = 10  # in a lot of SBER
BUSY_S = 0.06  # between calls: the simulator admits 20 a second, and some calls are two


@contextlib.asynccontextmanager
async def one_door(doors: dict[str, Any]) -> AsyncIterator[str]:
    """brokapi takes one address for everything; here streams and HTTP have a port each."""
    http, stream = urlsplit(doors["api"]), urlsplit(doors["ws"])

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            there = stream if b"upgrade: websocket" in head.lower() else http
            from_there, to_there = await asyncio.open_connection(there.hostname, there.port)
            to_there.write(head)
            await asyncio.gather(carry(reader, to_there), carry(from_there, writer))
        writer.close()

    async with await asyncio.start_server(meet, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Events:
    """What came on the client's one stream of events, oldest first."""

    def __init__(self, client: brokapi.Client) -> None:
        self._client = client
        self._seen = list[Any]()

    def of(self, kind: type) -> list[Any]:
        self._seen += [envelope.payload for envelope in self._client.events.drain()]
        return [payload for payload in self._seen if isinstance(payload, kind)]

    async def one(self, kind: type, fits: Callable[[Any], bool] = lambda _: True) -> Any:
        await soon(lambda: any(map(fits, self.of(kind))))
        return next(payload for payload in reversed(self.of(kind)) if fits(payload))


class Desk:
    """Calls, paced."""

    def __init__(self, client: brokapi.Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **named: Any) -> Any:
            await asyncio.sleep(BUSY_S)
            return await getattr(self._client, name)(*args, **named)

        return call


async def converse(doors: dict[str, Any], steps: Steps) -> None:
    account, other = doors["accounts"][0], doors["accounts"][2]
    venue = Simulator(doors, account["name"])
    marks = venue.hold_still()
    mark = marks["SBER"]
    keys = {"portfolio": account["portfolio"], "exchange": account["exchange"]}

    def true_order(order_id: str) -> dict[str, Any]:
        return next(row for row in venue.truth("orders") if row["id"] == order_id)

    async with one_door(doors) as url:
        async with steps("wrong refresh token"):
            wrong = brokapi.connect("alor", refresh_token="nobody", endpoint=url, **keys)
            assert "Refresh token is invalid" in await refused(wrong, brokapi.Config)
        client = await brokapi.connect("alor", refresh_token=account["refresh_token"], endpoint=url, **keys)
        desk, events = Desk(client), Events(client)
        share = await client.instrument("SBER")
        async with steps("token"):
            await desk.portfolio()
        async with steps("server time"):
            assert abs(int(await desk.raw("GET /md/v2/time")) - time.time()) < 2
        async with steps("instruments"):
            entry, terms = await desk.get_instrument(share), await desk.trading_params(share)
            assert (entry.currency, entry.exchange, entry.kind.value) == ("RUB", "MOEX", "Stock")
            assert (terms.lot_size, terms.price_step) == (PIECES, D("0.01"))
            future = await desk.trading_params(await client.instrument("SRZ6", "RFUD"))
            assert (future.lot_size, future.price_step, future.price_step_value) == (1, 1, 1)
            assert (await desk.trading_status(share)).availability.value == "Open"
        async with steps("order book"):
            book = await desk.order_book(share, 5)
            assert book.bids[0].price < mark < book.asks[0].price
            assert [level.price for level in book.asks] == sorted(level.price for level in book.asks)
        async with steps("candles"):
            now = datetime.datetime.now(datetime.UTC)
            for bar in await desk.candles(share, Timeframe.M1, now - datetime.timedelta(minutes=5), now):
                assert bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
                assert bar.open_ts <= now
        async with steps("whose portfolio it is, its money and holdings"):
            told = await desk.portfolio()
            (money,) = told.balances
            (true_money,) = venue.truth("balances")
            assert (money.currency, money.available) == ("RUB", D(true_money["qty"]))
            held = {position.instrument.key.symbol: position.qty for position in told.positions}
            assert held == {row["symbol"]: D(row["qtyUnits"]) for row in venue.truth("positions")}
            summary = await desk.raw(f"GET /md/v2/Clients/MOEX/{account['portfolio']}/summary")
            assert same(summary["buyingPowerByCurrency"][0]["buyingPower"], summary["buyingPower"])
        async with steps("orders, before anything was done"):
            assert (await desk.active_orders(), await desk.active_stop_orders()) == ([], [])
            report = await desk.reconcile()
            assert (report.confirmed, report.foreign) == ([], [])
        async with steps("watch orders and trades"):
            await client.subscribe_order_state()
            await client.subscribe_executions()
            kinds = [kind for row in venue.truth("connections") for kind in row["channels"]]
            assert {"orders", "trades"} <= set(kinds), kinds
        async with steps("watch positions and money"):
            await client.subscribe_portfolio()
            balances = await events.one(brokapi.BalancesUpdate)
            assert balances.balances[0].available == money.available
            await events.one(brokapi.PositionsUpdate)
        async with steps("watch the order book"):
            watched = await client.subscribe_order_book(share)
            first = await events.one(brokapi.OrderBookSnapshot)
            assert (first.bids[0], first.asks[0]) == (book.bids[0], book.asks[0])
        async with steps("watch quotes"):
            await client.subscribe_quotes(share)
            quote = await events.one(brokapi.Quote)
            assert (quote.bid.price, quote.ask.price) == (book.bids[0].price, book.asks[0].price)
        async with steps("watch candles"):
            await client.subscribe_candles(share, Timeframe.M1)
            venue.post("/market", instrument="SBER", price="301")
            await events.one(brokapi.Quote, lambda q: q.bid.price < 301 < q.ask.price)
            bar = await events.one(brokapi.Candle, lambda candle: candle.close >= 300)
            assert bar.low <= bar.close <= bar.high
        async with steps("unsubscribe"):
            await client.unsubscribe(watched)
            await soon(lambda: "orderbook" not in [k for r in venue.truth("connections") for k in r["channels"]])

        # ---- Orders

        async def placed(order_id: UUID, **words: Any) -> Any:
            return await desk.place(cid=order_id, instrument=share, **words)

        mine = brokapi.new_cid()
        async with steps("limit order"):
            ack = await placed(mine, side=Side.BUY, qty=2 * PIECES, price="250")
            true = true_order(ack.broker_id)
            assert (true["status"], D(true["price"]), D(true["qtyBatch"])) == ("working", 250, 2)
            assert true["comment"] == str(mine)
            await events.one(brokapi.OrderSnapshot, lambda o: (o.cid, o.state.kind) == (mine, OrderStateKind.ACKED))
        async with steps("open orders"):
            (working,) = await desk.active_orders()
            assert (working.cid, working.qty, working.price) == (mine, 2 * PIECES, 250)
        async with steps("read an order by either id"):
            state = await desk.order_state(mine)
            assert (state.broker_id, state.state.kind) == (ack.broker_id, OrderStateKind.ACKED)
        async with steps("a request repeated under its id"):
            order = {"side": "buy", "quantity": 1, "price": 240, "user": {"portfolio": account["portfolio"]}}
            order["instrument"] = {"symbol": "SBER", "exchange": "MOEX", "instrumentGroup": "TQBR"}
            verb = "POST /commandapi/warptrans/TRADE/v2/client/orders/actions/limit"
            asked = {"body": order, "request_id": "interop-1"}
            once, again = [await desk.raw(verb, asked, command=True) for _ in range(2)]
            assert once == again
            assert len([row for row in venue.truth("orders") if D(row["price"]) == 240]) == 1
        async with steps("amend"):
            changed = brokapi.new_cid()
            replacement = await desk.replace(cid=changed, original_cid=mine, price="251")
            true = true_order(replacement.broker_id)
            assert (true["status"], D(true["price"]), true["comment"]) == ("working", 251, str(changed))
            assert true_order(ack.broker_id)["status"] == "canceled"
        async with steps("cancel"):
            # Described as answered in plain text; brokapi knows an object only: for it the outcome is unknown.
            await refused(desk.cancel(changed), brokapi.Unknown)
            assert (await desk.order_state(changed)).state.kind is OrderStateKind.CANCELLED
            assert true_order(replacement.broker_id)["status"] == "canceled"
            assert len(await desk.active_orders()) == 1
        async with steps("orders refused, each for its reason"):
            for words, reason in (
                ({"qty": 10**9, "price": "250"}, "Нехватка средств"),
                ({"qty": PIECES, "price": "250.001"}, "step"),
                ({"qty": 1, "price": "250"}, "lot"),
            ):
                call = placed(brokapi.new_cid(), side=Side.BUY, **words)
                assert reason in await refused(call, brokapi.Rejected)
            await refused(desk.order_state(brokapi.new_cid()), brokapi.Rejected)
        async with steps("market order"):
            before = D(next(row["qtyUnits"] for row in venue.truth("positions") if row["symbol"] == "SBER"))
            taker = brokapi.new_cid()
            ack = await placed(taker, side=Side.BUY, qty=3 * PIECES, order_type=OrderType.MARKET)
            filled = await events.one(
                brokapi.OrderSnapshot, lambda o: (o.cid, o.state.kind) == (taker, OrderStateKind.FILLED)
            )
            assert (filled.qty, filled.filled) == (3 * PIECES, 3 * PIECES)
            assert true_order(ack.broker_id)["status"] == "filled"
        async with steps("filled by others"):
            ours, now_mark = brokapi.new_cid(), D(301)
            ack = await placed(ours, side=Side.BUY, qty=4 * PIECES, price=str(now_mark))
            words = {"account": other["name"], "instrument": "SBER", "side": "sell", "price": str(now_mark)}
            venue.post("/orders", **words, quantity=1)
            part = await events.one(brokapi.Execution, lambda e: e.broker_order_id == ack.broker_id)
            assert (part.qty, part.price) == (PIECES, now_mark)
            state = await desk.order_state(ours)
            assert (state.state.kind, state.filled) == (OrderStateKind.PARTIALLY_FILLED, PIECES)
            venue.post("/orders", **words, quantity=3)
            await events.one(brokapi.OrderSnapshot, lambda o: (o.cid, o.state.kind) == (ours, OrderStateKind.FILLED))
        async with steps("own fills"):
            now = datetime.datetime.now(datetime.UTC)
            told = await desk.executions(now - datetime.timedelta(hours=1), now + datetime.timedelta(minutes=1))
            true_fills = {row["id"]: row for row in venue.truth("fills")}
            assert {e.trade_id for e in told} == set(true_fills) == {e.trade_id for e in events.of(brokapi.Execution)}
            for fill in told:
                row = true_fills[fill.trade_id]
                assert (fill.qty, fill.broker_order_id) == (D(row["qtyUnits"]), row["orderno"])
                assert same(fill.price, row["price"])
                assert same(fill.commission, row["commission"])
        async with steps("holdings after trading"):
            (position,) = [p for p in await desk.positions() if p.instrument.key.symbol == "SBER"]
            assert position.qty == before + 7 * PIECES
            await events.one(brokapi.PositionsUpdate, lambda u: any(p.qty == position.qty for p in u.positions))
        async with steps("stop orders: place, list, cancel"):
            stop = brokapi.new_cid()
            words = {"instrument": share, "side": Side.SELL, "qty": PIECES, "stop_price": "280", "limit_price": "279"}
            await desk.place_stop(cid=stop, kind=StopOrderKind.STOP_LIMIT, **words)
            (waiting,) = await desk.active_stop_orders()
            assert (waiting.cid, waiting.kind, waiting.qty) == (stop, StopOrderKind.STOP_LIMIT, PIECES)
            assert (waiting.stop_price, waiting.limit_price) == (280, 279)
            await refused(desk.cancel_stop(StopOrderRef.broker(waiting.broker_id)), brokapi.Unknown)
            assert await desk.active_stop_orders() == []
        async with steps("stop order that triggers"):
            stop = brokapi.new_cid()
            words = {"instrument": share, "side": Side.SELL, "qty": PIECES, "stop_price": "290"}
            await desk.place_stop(cid=stop, kind=StopOrderKind.STOP_LOSS, **words)
            (waiting,) = await desk.active_stop_orders()
            venue.post("/market", instrument="SBER", price="289")
            await soon(lambda: true_order(waiting.broker_id)["status"] == "filled")
            assert await desk.active_stop_orders() == []
            await events.one(brokapi.Execution, lambda e: (e.side, e.qty) == (Side.SELL, PIECES))
        async with steps("an order placed elsewhere"):
            there = venue.post(
                "/orders", account=account["name"], instrument="SBER", side="buy", quantity=1, price="200"
            )
            foreign = (await desk.reconcile()).foreign
            assert there["orderNumber"] in [order.broker_id for order in foreign]
        async with steps("a lost answer"):
            venue.post("/faults", kind="drop_ack", accounts=[account["name"]], times=1)
            lost = brokapi.new_cid()
            await refused(placed(lost, side=Side.BUY, qty=PIECES, price="210"), brokapi.Unknown)
            assert (await desk.order_state(lost)).state.kind is OrderStateKind.ACKED
        async with steps("cut off, and back"):
            old = {row["connection"] for row in venue.truth("connections")}
            venue.post("/faults", kind="cut", accounts=[account["name"]], seconds=0.3)
            await events.one(brokapi.Reconnected)
            await soon(lambda: not old & {row["connection"] for row in venue.truth("connections")})
            await desk.reconcile([lost])
            last = brokapi.new_cid()
            await placed(last, side=Side.BUY, qty=PIECES, price="211")
            await events.one(brokapi.OrderSnapshot, lambda o: o.cid == last)
        await client.close()


if __name__ == "__main__":
    asyncio.run(converse(json.load(sys.stdin), Steps("alor")))
