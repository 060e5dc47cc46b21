"""T-Invest's two sides for tests, without sockets: the simulated venue, and accounts of ours that talk to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from accounts.model import Secret
from engine.core.facts import Fact, Side
from engine.core.instruments import Instrument
from engine.core.orders import Amend, Cancel, Command, OrderType, Outcome, Place, order_uuid
from engine.core.venue import Call, Login, Notice, Page, Read, Request, Response, Said, Sent
from engine.sim.faults import FaultPlan
from engine.venues import venues
from engine.venues.tinvest.front import TInvestSession, front
from engine.venues.tinvest.front_rules import Rules

VENUE = venues()["tinvest"]
START_MS = 1_767_250_800_000  # ten in the morning at the exchange
SBER, CNY, SR, BOND = "SBER/RUB", "CNY/RUB", "SR/RUB:RUB-2612", "SU26238RMFS4/RUB"
CONTRACT = "tinkoff.public.invest.api.contract.v1."
Json = dict[str, Any]


class Catalogue(dict[str, Instrument]):
    def by_name(self, name: str) -> Instrument | None:
        return self.get(name)

    def listed(self) -> list[Instrument]:
        return list(self.values())


class Floor:
    """A front, a clock, and a house that quotes what it is told to."""

    def __init__(self, accounts: int = 2, **rules: Any) -> None:
        self.now_ms, self.faults = START_MS, FaultPlan()
        self.rules = Rules(**rules)
        self.front = front(accounts=accounts, seed=1, now_ms=self.now_ms, faults=self.faults, rules=self.rules)
        self.people = {account["name"]: account for account in self.front.accounts()}
        self.wires: list[Wire] = []
        self._house = 0

    def quote(self, ticker: str = "SBER", bid: str = "299.90", ask: str = "300.10", lots: str = "100") -> None:
        self.house(ticker, "buy", lots, bid)
        self.house(ticker, "sell", lots, ask)

    def house(self, ticker: str, side: str, lots: str, price: str, kind: OrderType = OrderType.LIMIT) -> None:
        self._house += 1
        book = self.front.exchange.books[ticker]
        book.submit(f"~{self._house}", f"~house {self._house}", Side(side), kind, Decimal(lots), Decimal(price))
        self.front.settle(self.now_ms)
        self.carry()

    def mark(self, ticker: str, price: str) -> None:
        self.front.exchange.marks[ticker] = Decimal(price)
        self.front.settle(self.now_ms)
        self.carry()

    def pass_ms(self, milliseconds: int, step_ms: int = 50) -> None:
        end_ms = self.now_ms + milliseconds
        while self.now_ms < end_ms:
            self.now_ms = min(end_ms, self.now_ms + step_ms)
            self.front.tick(self.now_ms)
            self.carry()

    def dial(self, target: str, **headers: str) -> Wire | int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        session = self.front.accept(Call(method="GET", target=target, headers=named), self.now_ms)
        if isinstance(session, int):
            return session
        self.wires.append(Wire(self, session))
        return self.wires[-1]

    def carry(self) -> None:
        for outgoing in self.front.drain():
            wire = next(w for w in self.wires if w.session is outgoing.session)
            if outgoing.sent is Sent.CLOSE:
                wire.closed = (outgoing.code, outgoing.reason)
            else:
                assert isinstance(outgoing.frame, str), "T-Invest speaks text"
                wire.frames.append(outgoing.frame)

    def post(self, method: str, body: Any, account: str = "tinvest-01", **headers: str) -> tuple[int, Any, Response]:
        """A client's call, written apart from our dialect."""
        call = Call(
            method="POST",
            target=f"/rest/{CONTRACT}{method}",
            headers={"authorization": f"Bearer {self.people[account]['token']}", **headers},
            body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        )
        response = self.front.call(call, self.now_ms)
        assert response is not None, "an answer was expected"
        self.carry()
        is_json = response.headers.get("content-type") == "application/json" and response.body[:1] == b"{"
        return response.status, json.loads(response.body) if is_json else None, response


class Wire:
    """A socket as a client holds it."""

    def __init__(self, floor: Floor, session: TInvestSession) -> None:
        self.floor, self.session = floor, session
        self.frames: list[str] = []
        self.closed: tuple[int, str] | None = None

    def say(self, frame: Any) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        self.session.hear(text.encode(), self.floor.now_ms)
        self.floor.carry()

    def heard(self) -> list[Json]:
        frames, self.frames = self.frames, []
        return [json.loads(frame) for frame in frames]

    def drop(self) -> None:
        self.session.gone()


class Desk:
    """One account of ours, or several on one stream."""

    def __init__(self, floor: Floor, account: str = "tinvest-01", **options: str) -> None:
        self.floor, self.catalogue = floor, Catalogue()
        self.me = floor.people[account]
        self.credentials = {"token": Secret(self.me["token"])}
        self.options = {**VENUE.options, "replacing": "on", **options}
        self.rest = VENUE.rest(self.catalogue, ref=self.me["account_id"], options=self.options)
        self.facts, self.said = list[Fact](), list[Said]()
        for read in self.rest.instruments():
            self.catalogue |= {i.name: i for page in self.walk(read) for i in page.instruments}

    # ---- streams

    def connect(self, kind: str = "orders", *others: str, channels: Sequence[str] = ()) -> None:
        refs = [self.me["account_id"], *(self.floor.people.get(o, {"account_id": o})["account_id"] for o in others)]
        self.talk = VENUE.converse(
            kind=kind,
            channels=channels or VENUE.endpoint(kind).channels,
            logins=[Login(ref, self.credentials) for ref in refs],
            environment="demo",
            catalogue=self.catalogue,
            options=self.options,
        )
        handshake = self.talk.handshake(self.floor.now_ms)
        headers = {name.lower(): value for name, value in handshake.headers}
        if handshake.subprotocols:
            headers["sec-websocket-protocol"] = ", ".join(handshake.subprotocols)
        wire = self.floor.dial(f"/ws/{handshake.suffix}", **headers)
        if isinstance(wire, int):
            refusal = self.talk.refused(wire, self.floor.now_ms)
            self.said += [refusal] if refusal else []
            return
        self.wire = wire
        for frame in self.talk.open(self.floor.now_ms):
            wire.say(frame)
        self.listen()

    def listen(self) -> None:
        while self.wire.frames:
            frames, self.wire.frames = self.wire.frames, []
            for frame in frames:
                heard = self.talk.hear(frame.encode(), self.floor.now_ms)
                assert Notice.UNREADABLE not in [said.notice for said in heard.said], (frame, heard.said)
                self.facts += heard.facts
                self.said += heard.said
        if self.wire.closed is not None:
            said = self.talk.closed(*self.wire.closed)
            self.said += [said] if said else []

    def settle(self, milliseconds: int = 2_000) -> None:
        self.floor.pass_ms(milliseconds)
        if hasattr(self, "wire"):
            self.listen()

    @property
    def notices(self) -> list[Notice]:
        return [said.notice for said in self.said if said.notice not in (Notice.PONG, Notice.INFO)]

    # ---- HTTP

    def send(self, request: Request) -> Response | None:
        signed = VENUE.sign(request, self.credentials, "demo", self.floor.now_ms)
        headers = {name.lower(): value for name, value in signed.headers}
        call = Call(method=signed.method, target=f"/rest{signed.path}", headers=headers, body=signed.body)
        response = self.floor.front.call(call, self.floor.now_ms)
        self.floor.carry()
        return response

    def walk(self, read: Read | None) -> list[Page]:
        pages = list[Page]()
        while read is not None:
            response = self.send(read.request)
            assert response is not None
            pages.append(read.read(response))
            read = pages[-1].next
        return pages

    def told(self, reads: Iterable[Read]) -> list[Any]:
        return [fact for read in reads for page in self.walk(read) for fact in page.facts]

    def ask(self, command: Command) -> Outcome:
        response = self.send(self.rest.orders_request([command]))
        assert response is not None
        (outcome,) = self.rest.read_outcomes([command], response)
        self.settle()
        return outcome

    def lost(self, command: Command) -> Response | None:
        """The command goes out; whatever comes back."""
        return self.send(self.rest.orders_request([command]))

    # ---- commands

    def place(self, number: int, instrument: str = SBER, **changes: Any) -> Place:
        fields: Json = {
            "client_order_id": VENUE.render_order_id(order_uuid("plan", self.me["name"], 0, number).int),
            "instrument": self.catalogue[instrument],
            "side": Side.BUY,
            "order_type": OrderType.LIMIT,
            "quantity": Decimal(3),
            "price": Decimal("300.10"),
        }
        return Place(**{**fields, **changes})

    def cancel(self, place: Place, venue_order_id: str = "") -> Cancel:
        return Cancel(client_order_id=place.client_order_id, venue_order_id=venue_order_id, instrument=place.instrument)

    def amend(self, place: Place, venue_order_id: str, **changes: Any) -> Amend:
        return Amend(
            client_order_id=place.client_order_id,
            venue_order_id=venue_order_id,
            instrument=place.instrument,
            amend_id="5eed5eed5eed4eed8eed5eed5eed5eed",
            order=place,
            **changes,
        )


def of(facts: Iterable[Fact], kind: type[Any]) -> list[Any]:
    return [fact for fact in facts if isinstance(fact, kind)]
