"""Does. OKX's own python-okx over its stream. It speaks nothing but TLS, so a relay takes that off before the venue."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from okx.websocket.WsPrivateAsync import WsPrivateAsync
from okx.websocket.WsPublicAsync import WsPublicAsync

from tests.interop.steps import Steps, Venue, patient, same, soon

SPOT, SWAP = "BTC-USDT", "ETH-USDT-SWAP"
CODES = {SPOT: 1001, SWAP: 10459}


class Heard:
    """What came, oldest first."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []

    def __call__(self, frame: str) -> None:
        self.frames.append(json.loads(frame))

    def events(self, event: str) -> list[dict[str, Any]]:
        return [f for f in self.frames if f.get("event") == event]

    def rows(self, channel: str) -> list[dict[str, Any]]:
        return [row for f in self.frames if f.get("arg", {}).get("channel") == channel for row in f.get("data", [])]

    async def answer(self, request_id: str) -> dict[str, Any]:
        await soon(lambda: any(f.get("id") == request_id for f in self.frames))
        return next(f for f in self.frames if f.get("id") == request_id)

    async def order(self, order_id: str, state: str) -> dict[str, Any]:
        def pushed() -> list[dict[str, Any]]:
            return [o for o in self.rows("orders") if (o["ordId"], o["state"]) == (order_id, state)]

        await soon(pushed)
        return pushed()[-1]


@contextlib.asynccontextmanager
async def relay(url: str) -> AsyncIterator[str]:
    """The same address behind TLS."""
    address = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["SSL_CERT_FILE"])

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(address.hostname, address.port)
        await asyncio.gather(carry(reader, back), carry(there, writer))

    async with await asyncio.start_server(meet, "127.0.0.1", 0, ssl=context) as server:
        yield f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}{address.path}"


async def converse(venue: Venue, steps: Steps) -> None:
    keys = venue.keys
    marks = venue.hold_still()
    async with relay(venue.doors["ws_private"]) as private_url, relay(venue.doors["ws_public"]) as public_url:
        heard, prices = Heard(), Heard()
        private = WsPrivateAsync(keys["api_key"], keys["passphrase"], keys["secret"], private_url)
        public = WsPublicAsync(public_url)
        async with steps("wrong secret, wrong passphrase"):
            answers = Heard()
            stranger = WsPrivateAsync(keys["api_key"], keys["passphrase"], "x", private_url)
            stranger.callback = answers
            consuming = await stranger.start()
            await stranger.login()
            await soon(lambda: answers.events("error"))
            assert answers.events("error")[0]["code"] == "60007"
            with contextlib.suppress(Exception):  # the venue closes after a failed login: it raises that
                await consuming
        async with steps("log in"):
            await private.start()
            # It logs in by itself, waits five seconds, and subscribes.
            await private.subscribe([{"channel": "orders", "instType": "ANY"}], heard, id="s1")
            assert (await heard.answer("s1"))["event"] == "subscribe"
            assert heard.events("login")[0]["code"] == "0"
            (connection,) = venue.connections("private")
            assert connection["channels"] == ["orders"]
            args = [{"channel": "positions", "instType": "ANY"}, {"channel": "account"}]
            await private.send("subscribe", args, id="s2")
            await soon(lambda: [f for f in heard.events("subscribe") if f["id"] == "s2"][1:])
        async with steps("watch tickers and mark prices"):
            await public.start()
            args = [{"channel": "tickers", "instId": SWAP}, {"channel": "mark-price", "instId": SWAP}]
            await public.subscribe(args, prices)
            await soon(lambda: prices.rows("tickers") and prices.rows("mark-price"))
            assert same(prices.rows("mark-price")[0]["markPx"], marks[SWAP])
            venue.post("/market", instrument=SWAP, price="2600")
            await soon(lambda: same(prices.rows("mark-price")[-1]["markPx"], 2600))
        async with steps("watch balances"):
            await soon(lambda: heard.rows("account"))
            told = {d["ccy"]: d["cashBal"] for d in heard.rows("account")[0]["details"]}
            assert told == {c: row["cashBal"] for c, row in venue.cash().items()}
        async with steps("watch positions"):
            snapshot = next(f for f in heard.frames if f.get("eventType") == "snapshot" and "curPage" in f)
            assert (snapshot["arg"]["channel"], snapshot["data"], snapshot["lastPage"]) == ("positions", [], True)

        async def place(request: str, instrument: str, **ask: str) -> str:
            arg = {"instIdCode": CODES[instrument], "tdMode": "cash" if instrument == SPOT else "cross", **ask}
            await private.place_order([arg], id=request)
            answer = await heard.answer(request)
            assert answer["code"] == "0", answer
            return str(answer["data"][0]["ordId"])

        async with steps("limit order, spot"):
            far = str(patient(marks[SPOT], "0.1"))
            spot = await place("p1", SPOT, side="buy", ordType="limit", sz="0.01", px=far)
            assert same((await heard.order(spot, "live"))["px"], venue.order(spot)["px"])
        async with steps("limit order, swap"):
            swap = await place("p2", SWAP, side="sell", ordType="limit", sz="2", px="2800", clOrdId="interop1")
            assert (await heard.order(swap, "live"))["clOrdId"] == "interop1"
        async with steps("amend"):
            change = {"instIdCode": CODES[SWAP], "ordId": swap, "newSz": "3", "reqId": "r1"}
            await private.amend_order([change], id="a1")
            assert (await heard.answer("a1"))["code"] == "0"
            await soon(lambda: [o for o in heard.rows("orders") if (o["reqId"], o["amendResult"]) == ("r1", "0")])
            assert venue.order(swap)["sz"] == "3"
        async with steps("cancel"):
            await private.cancel_order([{"instIdCode": CODES[SPOT], "ordId": spot}], id="c1")
            assert (await heard.answer("c1"))["code"] == "0"
            assert (await heard.order(spot, "canceled"))["cancelSource"] == "1"
        async with steps("several at once: place, cancel"):
            ask = {"instIdCode": CODES[SWAP], "tdMode": "cross", "side": "buy", "ordType": "limit", "sz": "1"}
            ask["px"] = "2400"
            await private.batch_orders([ask, ask, {**ask, "sz": "0.001"}], id="b1")
            answer = await heard.answer("b1")
            assert answer["code"] == "2"
            both = [{"instIdCode": CODES[SWAP], "ordId": r["ordId"]} for r in answer["data"] if r["sCode"] == "0"]
            await private.batch_cancel_orders(both, id="b2")
            assert (await heard.answer("b2"))["code"] == "0"
            assert [o["ordId"] for o in venue.orders("live")] == [swap]
        async with steps("orders refused, each for its reason"):
            no_code = {"instId": SWAP, "tdMode": "cross", "side": "buy", "ordType": "market", "sz": "1"}
            await private.place_order([no_code], id="w1")
            assert (await heard.answer("w1"))["data"][0]["sCode"] == "50014"
            await private.place_order([{**no_code, "instIdCode": 1}], id="w2")
            assert (await heard.answer("w2"))["data"][0]["sCode"] == "51001"
            await private.send("no-such-op", [], id="w3")
            assert (await heard.answer("w3"))["code"] == "60019"
        async with steps("market order, swap"):
            market = await place("p3", SWAP, side="buy", ordType="market", sz="4")
            assert (await heard.order(market, "filled"))["accFillSz"] == "4"
        async with steps("own fills with their fees"):
            pushed = {o["tradeId"]: o for o in heard.rows("orders") if o["ordId"] == market and o["tradeId"]}
            true = {f["tradeId"]: f for f in venue.truth("fills") if f["ordId"] == market}
            assert {i: (o["fillSz"], o["fillPx"], o["fillFee"]) for i, o in pushed.items()} == {
                i: (f["fillSz"], f["fillPx"], f["fee"]) for i, f in true.items()
            }
        async with steps("position"):
            await soon(lambda: [p for p in heard.rows("positions") if p["pos"] == "4"])
            assert heard.rows("positions")[-1]["avgPx"] == venue.truth("positions")[0]["avgPx"]
        async with steps("an order placed elsewhere"):
            there = venue.post("/orders", account=venue.name, instrument=SPOT, side="buy", quantity="0.02", price=far)
            await heard.order(there["ordId"], "live")
        async with steps("unsubscribe"):
            await private.unsubscribe([{"channel": "account"}], heard, id="u1")
            assert (await heard.answer("u1"))["event"] == "unsubscribe"
            assert venue.connections("private")[0]["channels"] == ["orders", "positions"]
        async with steps("a second login"):
            # Every `subscribe` of this client logs in once more; the venue says no, and the connection lives on.
            await private.subscribe([{"channel": "balance_and_position"}], heard, id="s3")
            assert (await heard.answer("s3"))["event"] == "subscribe"
            assert heard.events("error")[-1]["code"] == "60031"
        await private.stop()
        await public.stop()


if __name__ == "__main__":
    asyncio.run(converse(Venue(json.load(sys.stdin)), Steps("okx")))
