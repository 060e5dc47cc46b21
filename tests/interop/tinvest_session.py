"""Does. Our dialect and our front talk through a whole day, and everything that either said is told as JSON lines.

Several days, each in a venue in which what nobody knows is one way or the other. No sockets: both sides are sans I/O,
so that the clock is moved, not waited for.
"""

from __future__ import annotations

import json
import random
import sys
from decimal import Decimal
from typing import Any

from engine.core.facts import Side
from engine.core.orders import Accepted, OrderType
from engine.core.venue import Call, Outgoing, Request, Response, VenueError
from engine.venues.tinvest.front_rules import drawn
from tests.venues.tinvest_talk import CNY, CONTRACT, SBER, SR, START_MS, Desk, Floor, Wire

D = Decimal
DAYS = 12
CHANNELS = tuple(f"{kind}:{SBER}" for kind in ("last-price", "orderbook", "trades", "candles", "info", "open-interest"))


def tell(kind: str, method: str, said: bytes | str, **more: Any) -> None:
    text = said.decode() if isinstance(said, bytes) else said
    print(json.dumps({"kind": kind, "method": method, "said": text, **more}, ensure_ascii=False))


class Overheard:
    """The front, with somebody who listens to what it hears and says."""

    def __init__(self, front: Any) -> None:
        self._front = front

    def __getattr__(self, name: str) -> Any:
        return getattr(self._front, name)

    def call(self, call: Call, now_ms: int) -> Response | None:
        response: Response | None = self._front.call(call, now_ms)
        method = call.target.rpartition("/rest/")[2]
        tell("asked", method, call.body)
        if response is not None:
            tell("answered", method, response.body, status=response.status)
        return response

    def drain(self) -> list[Outgoing]:
        outbox: list[Outgoing] = self._front.drain()
        for one in outbox:
            if one.frame:
                tell("frame", one.session.method, one.frame)  # type: ignore[attr-defined]
        return outbox


class Spoken(Wire):
    def say(self, frame: Any) -> None:
        tell("request", self.session.method, frame if isinstance(frame, str) else json.dumps(frame))
        super().say(frame)


class OverheardFloor(Floor):
    def __init__(self, **rules: Any) -> None:
        super().__init__(**rules)
        self.front = Overheard(self.front)  # type: ignore[assignment]

    def dial(self, target: str, **headers: str) -> Wire | int:
        wire = super().dial(target, **headers)
        if not isinstance(wire, int):
            wire.__class__ = Spoken
        return wire


def options_of(chance: random.Random) -> dict[str, str]:
    return {
        "token_in": chance.choice(("header", "subprotocol")),
        "subprotocol": chance.choice(("json", "json-proto")),
        "placing": chance.choice(("sync", "async")),
        "replacing": "on",
        "initial_positions": chance.choice(("yes", "no")),
        "confirm_margin": chance.choice(("yes", "no")),
        "operation_trade_ids": "same",
    }


def read_all(desk: Desk, *since_ms: int) -> None:
    """Every read that there is. What the venue refuses was overheard all the same."""
    rest, now_ms = desk.rest, desk.floor.now_ms
    reads = [rest.server_time(), rest.identity(), *rest.marks(), *rest.statement(), *rest.open_orders()]
    for since in since_ms:
        reads += [*rest.fills(since, now_ms), *rest.orders(since, now_ms), *rest.cash(since, now_ms)]
    reads += [*rest.candles(SBER, 60, now_ms - 600_000, now_ms)]
    for read in reads:
        try:
            desk.walk(read)
        except VenueError:
            continue


def day(seed: int) -> None:
    chance = random.Random(f"contracts {seed}")
    rules = drawn(chance, limits=False)
    floor = OverheardFloor(**{name: getattr(rules, name) for name in rules.__struct_fields__})
    options = options_of(chance)
    desk = Desk(floor, **options)
    ears = [Desk(floor, **options) for _ in range(5)]
    desk.connect("orders", "tinvest-02")
    for ear, kind in zip(ears, ("trades", "positions", "portfolio", "operations"), strict=False):
        ear.connect(kind, "tinvest-02")
    ears[-1].connect("marketdata", channels=CHANNELS)
    for frame in ears[-1].talk.beat(floor.now_ms):
        ears[-1].wire.say(frame)
    for ticker, bid, ask in (
        ("SBER", "299.90", "300.10"),
        ("CNYRUB_TOM", "11.499", "11.501"),
        ("SRZ6", "29990", "30010"),
    ):
        floor.quote(ticker, bid, ask, "20")

    resting = desk.place(1, price=D(290))
    accepted = desk.ask(resting)
    if isinstance(accepted, Accepted):
        changed = desk.ask(desk.amend(resting, accepted.venue_order_id, new_price=D(291)))
        desk.walk(desk.rest.order(resting.instrument, resting.client_order_id, ""))
        desk.ask(desk.cancel(resting, changed.venue_order_id if isinstance(changed, Accepted) else ""))
        desk.ask(desk.cancel(resting, accepted.venue_order_id))
    desk.ask(desk.place(2))
    desk.ask(desk.place(3, quantity=D(40)))  # in part
    desk.ask(desk.place(4, CNY, quantity=D(2), price=D("11.501")))
    desk.ask(desk.place(5, SR, quantity=D(4), price=D(30010)))
    desk.ask(desk.place(6, SR, side=Side.SELL, quantity=D(1), order_type=OrderType.MARKET, price=None))
    desk.ask(desk.place(7, quantity=D(10**7)))  # refused
    desk.ask(desk.place(8, order_type=OrderType.IOC))
    desk.ask(desk.place(9, order_type=OrderType.FOK, quantity=D(1000)))
    desk.ask(desk.place(10, side=Side.SELL, order_type=OrderType.STOP, price=None, trigger_price=D(295), quantity=D(2)))
    limited = desk.place(11, order_type=OrderType.STOP_LIMIT, price=D(305), trigger_price=D(304))
    waiting = desk.ask(limited)
    read_all(desk, START_MS)
    if isinstance(waiting, Accepted):
        desk.ask(desk.cancel(limited, waiting.venue_order_id))
    floor.front.transfer("tinvest-01", "RUB", D("123.45"), floor.now_ms)
    floor.mark("SBER", "294")
    desk.settle(10_000)
    floor.front.command("funding", ["tinvest-01"], {"instrument": SR}, floor.now_ms)
    floor.front.command("liquidate", ["tinvest-01"], {"instrument": SBER}, floor.now_ms)
    desk.settle(30_000)
    floor.faults.begin("refuse", None, floor.now_ms, times=1)
    desk.send(desk.rest.orders_request([desk.place(12)]))
    for method in ("NoService/None", "UsersService/GetUserTariff"):  # the one nobody has, the other we do not ask for
        desk.send(Request(method="POST", path=f"/{CONTRACT}{method}", body=b"{}"))
    for one in (desk, *ears):
        one.settle(10_000)
    floor.pass_ms(20 * 3_600_000, 600_000)
    read_all(desk, START_MS - 1000)
    lost = Desk(floor, **{**options, "token_in": "header"})
    floor.front.tokens.clear()
    lost.connect("positions")


if __name__ == "__main__":
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else DAYS):
        day(number)
