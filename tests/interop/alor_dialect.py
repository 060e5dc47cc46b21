"""Does. Our dialect of ALOR, carried by the engine's own wires, against an imitation that others wrote."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec

from accounts.model import Secret
from engine.core.facts import BalanceFact, Candle, Fact, FillFact, MarkFact, OrderFact, OrderStatus, Side
from engine.core.instruments import Instrument
from engine.core.orders import Accepted, Amend, Cancel, Command, OrderType, Outcome, Place, Refused, order_uuid
from engine.core.venue import ACCESS_TOKEN, ErrorClass, Login, Notice, Page, Priority, Read, Request, VenueError
from engine.venues import venues
from engine.wire.http import Http, Origin
from engine.wire.rate import Budgets
from engine.wire.stream import Closed, Socket, dialler
from scheduler.clock import SystemClock
from tests.interop.steps import Steps, soon

ALOR = venues()["alor"]
SBER = "SBER/RUB"
MARK = Decimal("244.30")
"""About where the imitation quotes."""


class Catalogue(dict[str, Instrument]):
    __hash__ = object.__hash__  # type: ignore[assignment]

    def by_name(self, name: str) -> Instrument | None:
        return self.get(name)

    def listed(self) -> list[Instrument]:
        return list(self.values())


class Ear:
    """One connection of ours, and what was understood on it."""

    def __init__(self, desk: Desk, kind: str, channels: Sequence[str], login: Login) -> None:
        self._kind, self._desk = kind, desk
        self.talk = ALOR.converse(
            kind=kind,
            channels=channels,
            logins=[login],
            environment="demo",
            catalogue=desk.catalogue,
            options=desk.options,
        )
        self.facts, self.notices, self.outcomes = list[Fact](), list[Notice](), list[Outcome]()
        self.closed: Closed | None = None

    async def open(self) -> Ear:
        now_ms = self._desk.clock.now_ms()
        dial = dialler(open_timeout_s=5)
        self.socket: Socket = await dial(self._desk.streams + self._kind, "alor", self.talk.handshake(now_ms))
        self._listening = asyncio.ensure_future(self._listen())
        self.say(self.talk.open(now_ms))
        await soon(lambda: Notice.READY in self.notices)
        return self

    def say(self, frames: Iterable[str | bytes]) -> None:
        for frame in frames:
            self.socket.send(frame)

    async def ask(self, command: Command) -> Outcome:
        count = len(self.outcomes)
        self.say([self.talk.say([command], uuid4().hex, self._desk.clock.now_ms())])
        await soon(lambda: len(self.outcomes) > count)
        return self.outcomes[-1]

    async def _listen(self) -> None:
        try:
            while True:
                heard = self.talk.hear(await self.socket.recv(), self._desk.clock.now_ms())
                self.facts += heard.facts
                self.notices += [said.notice for said in heard.said]
                self.outcomes += [outcome for reply in heard.replies for outcome in reply.outcomes]
                self.say(heard.frames)
        except Closed as closed:
            self.closed = closed

    async def close(self) -> None:
        await self.socket.close()
        await self._listening

    def marks(self, basis: str) -> list[MarkFact]:
        return [fact for fact in self.facts if isinstance(fact, MarkFact) and fact.basis == basis]

    def of(self, kind: type, fits: Callable[[Any], bool] = lambda _: True) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, kind) and fits(fact)]


class Desk:
    """One account of ours there."""

    def __init__(self, settings: dict[str, str], http: Http) -> None:
        self.http, self.clock = http, SystemClock()
        self.options = {**ALOR.options, "quoted": SBER}
        self.catalogue = Catalogue()
        self.ref = f"MOEX:{settings['portfolio']}"
        self.streams = f"ws://{urlsplit(settings['endpoint']).netloc}/"
        self.credentials = {"refresh_token": Secret(settings["refresh_token"])}
        self.origin = Origin(
            venue=ALOR,
            base_url=settings["endpoint"],
            account_id="1",
            credentials=self.credentials,
            login="one",
            environment="demo",
            grant_url=settings["endpoint"],
            options=self.options,
        )
        self.rest = ALOR.rest(self.catalogue, ref=self.ref, options=self.options)

    async def ear(self, kind: str, *channels: str) -> Ear:
        token = await self.http.token(self.origin)
        assert token is not None
        return await Ear(self, kind, channels, Login(self.ref, {**self.credentials, ACCESS_TOKEN: token.secret})).open()

    async def pages(self, reads: Sequence[Read]) -> list[Page]:
        return [page for read in reads async for page in self.http.walk(self.origin, read, priority=Priority.RESOLVE)]

    async def facts(self, reads: Sequence[Read]) -> list[Fact]:
        return [fact for page in await self.pages(reads) for fact in page.facts]

    async def order(self, client_order_id: str = "", venue_order_id: str = "") -> OrderFact:
        read = self.rest.order(self.catalogue[SBER], client_order_id, venue_order_id)
        (fact,) = await self.facts([read])
        assert isinstance(fact, OrderFact)
        return fact

    async def over_http(self, command: Command) -> Outcome:
        request = self.rest.orders_request([command])
        response = await self.http.send(self.origin, request, priority=Priority.PLACE)
        return self.rest.read_outcomes([command], response)[0]

    def place(self, number: int, **changes: Any) -> Place:
        fields: dict[str, Any] = {
            "client_order_id": ALOR.render_order_id(order_uuid("interop", self.ref, 0, number).int),
            "instrument": self.catalogue[SBER],
            "side": Side.BUY,
            "order_type": OrderType.LIMIT,
            "quantity": Decimal(2),
            "price": Decimal(240),
            "account_ref": self.ref,
        }
        return Place(**{**fields, **changes})

    def cancel(self, place: Place, venue_order_id: str) -> Cancel:
        return Cancel(
            client_order_id=place.client_order_id,
            venue_order_id=venue_order_id,
            instrument=place.instrument,
            account_ref=self.ref,
        )


async def converse(settings: dict[str, str], http: Http, steps: Steps) -> None:
    desk = Desk(settings, http)
    async with steps("token"):
        token = await http.token(desk.origin)
        assert token is not None
        assert token.secret.reveal().startswith("mock-access")
    async with steps("server time"):
        (page,) = await desk.pages([desk.rest.server_time()])
        assert page.server_time_ms is not None
        assert abs(page.server_time_ms - time.time() * 1000) < 2_000
    async with steps("instruments"):
        # It has no list of all, so one is searched for, and read as a list.
        read = desk.rest.instruments()[0]
        search = Request(method="GET", path="/md/v2/Securities?query=SBER&exchange=MOEX", rules=("reads",))
        (page,) = await desk.pages([msgspec.structs.replace(read, request=search)])
        (share,) = page.instruments
        assert (share.name, share.multiplier, share.price_tick) == (SBER, Decimal(10), Decimal("0.01"))
        assert (share.status, share.tradable) == ("live", True)
        desk.catalogue[share.name] = share
    async with steps("last prices"):
        marks = {f.basis: f.price for f in await desk.facts(desk.rest.marks()) if isinstance(f, MarkFact)}
        assert (marks["bid"], marks["ask"]) == (Decimal("300.1"), Decimal("300.2")), marks
    async with steps("candles"):
        now_ms = desk.clock.now_ms()
        found = [c for p in await desk.pages(desk.rest.candles(SBER, 60, now_ms - 600_000, now_ms)) for c in p.candles]
        assert len(found) >= 9
        assert all(isinstance(c, Candle) and c.low <= c.open <= c.high for c in found)
        assert [c.begins_at_ms for c in found] == sorted({c.begins_at_ms for c in found})
    async with steps("whose portfolio it is, its money and holdings"):
        (page,) = await desk.pages([desk.rest.identity()])
        assert page.identity is not None
        assert page.identity.venue_ref == desk.ref
        # Its summary has no liquidation value, so that what the account is worth is not told: no statement then.
        try:
            await desk.facts(desk.rest.statement())
            raise AssertionError("a statement without the account's worth was taken for a whole one")
        except VenueError as error:
            if "portfolioLiquidationValue" not in str(error):
                raise
    async with steps("orders, before anything was done"):
        assert await desk.facts(desk.rest.open_orders()) == []
    channels = ("orders", "stoporders", "trades", "positions", "summaries", "risks")
    async with steps("watch orders and trades"):
        facts = await desk.ear("ws", *channels)
    async with steps("watch positions and money"):
        await soon(lambda: len(facts.of(BalanceFact)) > 1)
        assert {f.currency: f.cash for f in facts.of(BalanceFact)} == {"RUB": Decimal("1000000.55"), "SBER": 30}
    for step, channel, basis in (
        ("watch quotes", f"quotes:{SBER}", "last"),
        ("watch the order book", f"orderbook:{SBER}", "bid"),
        ("watch candles", f"bars:{SBER}@60", "last"),
    ):
        async with steps(step):
            prices = await desk.ear("ws", channel)
            await soon(partial(prices.marks, basis))
            assert {(f.instrument, f.market) for f in prices.of(MarkFact)} == {(SBER, "MOEX")}
            await prices.close()

    # ---- Orders: over `/cws`, as the engine sends them, and over HTTP

    commands = await desk.ear("cws")
    place = desk.place(1)

    async def heard(order_id: str, status: OrderStatus) -> OrderFact:
        def fits(fact: OrderFact) -> bool:
            return (fact.venue_order_id, fact.status) == (order_id, status)

        await soon(lambda: facts.of(OrderFact, fits))
        found: OrderFact = facts.of(OrderFact, fits)[-1]
        return found

    async with steps("limit order"):
        accepted = await commands.ask(place)
        assert isinstance(accepted, Accepted), accepted
        fact = await heard(accepted.venue_order_id, OrderStatus.WORKING)
        assert (fact.client_order_id, fact.quantity, fact.price) == (place.client_order_id, Decimal(2), Decimal(240))
    async with steps("open orders"):
        (listed,) = await desk.facts(desk.rest.open_orders())
        told = {
            name: getattr(fact, name) for name in ("venue_order_id", "client_order_id", "quantity", "price", "status")
        }
        assert {name: getattr(listed, name) for name in told} == told
    async with steps("read an order by either id"):
        for ids in ((place.client_order_id, ""), ("", accepted.venue_order_id)):
            assert (await desk.order(*ids)).venue_order_id == accepted.venue_order_id
        try:
            await desk.order(desk.place(99).client_order_id)
            raise AssertionError("an order that nobody placed was found")
        except VenueError as error:
            if error.error_class is not ErrorClass.NOT_FOUND:
                raise
    async with steps("amend"):
        # Its `/cws` knows no change of an order ("unknown opcode"): a refusal, and the order stands. Its HTTP does.
        change = Amend(
            client_order_id=place.client_order_id,
            venue_order_id=accepted.venue_order_id,
            instrument=place.instrument,
            amend_id="a" * 32,
            order=place,
            new_price=Decimal(241),
            account_ref=desk.ref,
        )
        refusal = await commands.ask(change)
        assert isinstance(refusal, Refused), refusal
        replaced = await desk.over_http(change)
        assert isinstance(replaced, Accepted), replaced
        assert replaced.venue_order_id != accepted.venue_order_id
        fact = await heard(replaced.venue_order_id, OrderStatus.WORKING)
        assert (fact.price, fact.client_order_id) == (Decimal(241), place.client_order_id)
        old = await heard(accepted.venue_order_id, OrderStatus.CANCELLED)
        assert old.venue_action == "replaced", old
    async with steps("cancel"):
        gone = desk.cancel(place, replaced.venue_order_id)
        assert isinstance(await commands.ask(gone), Accepted)
        await heard(replaced.venue_order_id, OrderStatus.CANCELLED)
        assert await desk.facts(desk.rest.open_orders()) == []
        assert isinstance(await desk.over_http(gone), Refused), "not active any more"
    async with steps("a request repeated under its id"):
        twice = desk.place(2)
        first, again = [await desk.over_http(twice) for _ in range(2)]
        assert first == again
        assert isinstance(first, Accepted)
        assert len(await desk.facts(desk.rest.open_orders())) == 1
        assert isinstance(await desk.over_http(desk.cancel(twice, first.venue_order_id)), Accepted)
    async with steps("filled by others"):
        # It executes orders whose comment is a UUID.
        mine = desk.place(3, client_order_id=str(uuid4()), price=MARK)
        accepted = await commands.ask(mine)
        assert isinstance(accepted, Accepted), accepted
        print(json.dumps({"fill": mine.client_order_id, "quantity": "20", "price": str(MARK)}), flush=True)
        fact = await heard(accepted.venue_order_id, OrderStatus.FILLED)
        assert fact.filled == 2
    async with steps("own fills"):
        await soon(lambda: facts.of(FillFact))
        (fill,) = facts.of(FillFact)
        assert (fill.quantity, fill.price, fill.venue_order_id) == (Decimal(2), MARK, accepted.venue_order_id)
    async with steps("history of fills"):
        # The session's own come as in the stream; its history is always empty, which is a proven end.
        (read,) = await desk.facts(desk.rest.fills(desk.clock.now_ms() - 3_600_000, desk.clock.now_ms()))
        assert read == msgspec.structs.replace(fill, account_ref="")
    async with steps("stop orders: place, list, cancel"):
        stop = desk.place(4, order_type=OrderType.STOP_LIMIT, trigger_price=Decimal(260), price=Decimal(261))
        accepted = await desk.over_http(stop)
        assert isinstance(accepted, Accepted), accepted
        (waiting,) = await desk.facts(desk.rest.open_orders())
        assert isinstance(waiting, OrderFact)
        assert (waiting.client_order_id, waiting.venue_order_id) == (stop.client_order_id, accepted.venue_order_id)
        assert isinstance(await desk.over_http(desk.cancel(stop, accepted.venue_order_id)), Accepted)
        assert await desk.facts(desk.rest.open_orders()) == []
    async with steps("cut off, and back"):
        await facts.close()
        facts = await desk.ear("ws", *channels)
        # What happened meanwhile is read: of orders and trades no stream tells the past.
        now_ms = desk.clock.now_ms()
        past = await desk.facts(desk.rest.orders(now_ms - 3_600_000, now_ms))
        ended = {f.venue_order_id: f.status for f in past if isinstance(f, OrderFact)}
        assert ended[fill.venue_order_id] is OrderStatus.FILLED
        assert OrderStatus.WORKING not in ended.values()
    assert Notice.UNREADABLE not in (*facts.notices, *commands.notices)
    for ear in (facts, commands):
        await ear.close()


async def main() -> None:
    clock = SystemClock()
    async with Http(clock, Budgets(clock), random.Random(1)) as http:
        await converse(json.loads(sys.argv[1]), http, Steps("alor"))


if __name__ == "__main__":
    asyncio.run(main())
