"""Does. The exchange's own Python client (moexalgo) against the simulator: its ISS+ client, and ISS over HTTP."""

from __future__ import annotations

import asyncio
import datetime
import json
import sys
from typing import Any

import httpx
from moexalgo import session
from moexalgo.beta.issplus import Credentials, connect
from moexalgo.stocks import Stock

from tests.interop.steps import Simulator, Steps, refused, same

SELECTOR = 'TICKER="MXSE.TQBR.SBER"'


def row_of(packet: dict[str, Any]) -> dict[str, Any]:
    """The first row by column; a number stands with its digits."""
    return {
        column: cell[0] if isinstance(cell, list) else cell
        for column, cell in zip(packet["columns"], packet["data"][0], strict=True)
    }


async def next_of(subscription: Any, limit_s: float = 5.0) -> dict[str, Any]:
    packet: dict[str, Any] = await asyncio.wait_for(anext(subscription), limit_s)
    return packet


async def converse(doors: dict[str, Any], steps: Steps) -> None:
    venue = Simulator(doors, "issplus")
    marks = venue.hold_still()
    keys = Credentials(doors["domain"], doors["login"], doors["passcode"])
    async with steps("wrong passcode"):
        stranger = connect(doors["ws"], keys._replace(passcode="x"))
        assert "gateway.access-denied" in await refused(stranger.__aenter__(), ConnectionRefusedError)
    async with connect(doors["ws"], keys) as client:
        async with steps("log in"):
            assert set(client.structure) == {"MXSE", "MXCX", "FORTS"}
            assert len(venue.truth("connections")) == 1
        async with steps("a query and its reply"):
            told = await client.request("SEARCH.ticker", 'pattern="SBER"')
            found = [dict(zip(told["columns"], row, strict=True)) for row in told["data"]]
            assert "MXSE.TQBR.SBER" in [row["ticker"] for row in found]
            boards = await client.request("COMMON.boards", "")
            assert "TQBR" in [row[boards["columns"].index("NAME")] for row in boards["data"]]
        async with steps("snapshot and updates"):
            prices = await client.subscribe("MXSE.securities", SELECTOR)
            snapshot = await next_of(prices)
            assert snapshot["properties"]["type"] == "snapshot"
            row = row_of(snapshot)
            assert row["TICKER"] == "MXSE.TQBR.SBER"
            assert row["BID"] < marks["MXSE.TQBR.SBER"] < row["OFFER"]
            venue.post("/market", instrument="SBER/RUB", price="310")
            while not (row["BID"] < 310 < row["OFFER"]):
                update = await next_of(prices)
                assert update["properties"]["type"] == "updates"
                assert update["properties"]["seqnum"] > snapshot["properties"]["seqnum"]
                assert "TICKER" in update["columns"], "only what changed, and the key"
                row |= row_of(update)
        async with steps("order book"):
            book = await next_of(await client.subscribe("MXSE.orderbooks", SELECTOR))
            sides = [row_of({**book, "data": [line]}) for line in book["data"]]
            assert max(s["PRICE"] for s in sides if s["BUYSELL"] == "B") == row["BID"]
            assert min(s["PRICE"] for s in sides if s["BUYSELL"] == "S") == row["OFFER"]
        async with steps("candles"):
            selector = f'{SELECTOR} and interval="M1" and quantity="5"'
            candles = await next_of(await client.subscribe("MXSE.candles", selector))
            assert len(candles["data"]) == 5
            assert row_of(candles)["LOW"] <= row_of(candles)["HIGH"]
        async with steps("what is refused, and why"):
            books = await client.subscribe("FORTS.orderbooks", 'TICKER="FORTS.RFUD.SRZ6"')
            for call in (next_of(books), client.request("SEARCH.nothing", "")):
                assert "gateway.invalidrequest" in await refused(call, RuntimeError)
        async with steps("unsubscribe"):
            before = len(venue.truth("connections")[0]["channels"])
            await client.unsubscribe(prices.id)
            await asyncio.sleep(0.5)
            assert len(venue.truth("connections")[0]["channels"]) == before - 1
    async with steps("history over HTTP"):
        session.BASE_URL, session.USE_HTTPS = doors["iss"], False
        share = Stock("SBER", "TQBR", "shares")
        today = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
        since = today - datetime.timedelta(days=2)
        candles = list(share.candles(start=since, end=today, period=1, use_dataframe=False))
        assert len(candles) > 500, "more than a page"
        begins = [c.begin for c in candles]
        assert begins == sorted(set(begins))
        assert all(c.low <= min(c.open, c.close) <= max(c.open, c.close) <= c.high for c in candles)
        assert same(len(share.candles(start=since, end=today, period=1)), len(candles)), "as a table of pandas"
        book = asyncio.to_thread(share.orderbook)
        assert "'403 " in await refused(book, httpx.HTTPStatusError), "guests have none"


if __name__ == "__main__":
    asyncio.run(converse(json.load(sys.stdin), Steps("issplus")))
