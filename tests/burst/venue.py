"""Does. The bench's venue, which offers fills faster than anybody can take them and remembers the truth of each.

In a process of its own: `python -m tests.burst.venue`. What a client does not read is kept for it.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import msgspec
import uvloop

from bench import frames
from bench.frames import text_frame
from bench.venue import Venue, _Session, stay_open

_STEP_S = 0.005
_FILLED_AT = b"1767225601200"  # the time of the bench's fills: here each has its own

Row = dict[str, Any]


class BurstVenue(Venue):
    def __init__(self) -> None:
        super().__init__()
        self.truth: dict[str, list[int]] = {}  # by key: its trades
        self.offering: asyncio.Task[None] | None = None
        self.offered = 0
        self.offered_s = 0.0
        self.of_client: dict[str, tuple[str, Row]] = {}  # by client order id: whose, and the venue's row of it
        self.cancelled_ns: list[int] = []

    def _hear(self, session: _Session, frame: bytes, now_ns: int) -> None:
        super()._hear(session, frame, now_ns)
        if b'order"' not in frame[:120]:
            return
        asked, now_ms = json.loads(frame), str(time.time_ns() // 10**6)
        for args in asked["args"]:
            if asked["op"] == "order":
                _, client, number = self.orders[-1]
                row: Row = json.loads(frames.push(number, client.encode(), b"live", 0, 0))["data"][0]
                told = {"instId": frames.INSTRUMENTS[args["instIdCode"] - 1], "sz": args["sz"], "px": args["px"]}
                self.of_client[client] = session.whose, {**row, **told, "cTime": now_ms, "uTime": now_ms}
            elif asked["op"] == "cancel-order":
                self.cancelled_ns.append(now_ns)
                (found,) = (r for _, r in self.of_client.values() if r["ordId"] == args["ordId"])
                found |= {"state": "canceled", "uTime": now_ms}
                done = {"ordId": found["ordId"], "clOrdId": found["clOrdId"], "sCode": "0", "sMsg": ""}
                reply = {"id": asked["id"], "op": asked["op"], "code": "0", "msg": "", "data": [done]}
                push = {"arg": {"channel": "orders", "instType": "ANY", "uid": "1"}, "data": [found]}
                session.transport.write(b"".join(text_frame(msgspec.json.encode(said)) for said in (reply, push)))

    def rows(self, path: str, query: dict[str, str], key: str, now_ms: int) -> list[Row]:
        mine = [row for whose, row in self.of_client.values() if whose == key]
        if path == "trade/orders-pending":
            return [] if "after" in query else [row for row in mine if row["state"] == "live"]
        if path == "trade/order":
            ids = {query.get("clOrdId"), query.get("ordId")}
            return [row for row in mine if {row["clOrdId"], row["ordId"]} & ids]
        return super().rows(path, query, key, now_ms)

    # ---- told by the test

    async def offer(self, whose: str, rate: float, seconds: float) -> dict[str, Any]:
        """From now on so many fills a second, spread over these clients, whether they read them or not."""
        self.offered, self.offered_s, self.truth = 0, 0.0, {}
        self.offering = asyncio.create_task(self._offer(self._of(whose), rate, round(rate * seconds)))
        return {}

    async def _offer(self, sessions: list[_Session], rate: float, count: int) -> None:
        began_s = time.monotonic()
        while self.offered < count:
            now_ms = time.time_ns() // 1_000_000
            due = min(count, int((time.monotonic() - began_s) * rate) + 1)
            while self.offered < due:
                self.numbers += 1
                self.offered += 1
                session = sessions[self.offered % len(sessions)]
                fill = frames.fill_push(self.numbers, self.numbers, now_ms, now_ms)
                session.transport.write(text_frame(fill.replace(_FILLED_AT, b"%d" % now_ms)))
                self.truth.setdefault(session.whose, []).append(self.numbers)
            self.offered_s = time.monotonic() - began_s
            await asyncio.sleep(_STEP_S)

    async def offering_ended(self) -> dict[str, Any]:
        ended = self.offering is not None and self.offering.done()
        return {"count": int(ended), "offered": self.offered, "seconds": self.offered_s}

    async def trades(self) -> dict[str, Any]:
        return dict(self.truth)

    async def cancels(self) -> dict[str, Any]:
        return {"count": len(self.cancelled_ns), "last_ns": max(self.cancelled_ns, default=0)}


if __name__ == "__main__":
    uvloop.run(stay_open(BurstVenue()))
