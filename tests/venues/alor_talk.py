"""ALOR for tests, without sockets: a floor to trade on, a client apart from our dialect, and a desk of ours."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import Any

from accounts.model import Secret
from engine.core.facts import Fact, Side
from engine.core.instruments import Instrument
from engine.core.orders import Amend, Cancel, Command, OrderType, Outcome, Place, order_uuid
from engine.core.venue import ACCESS_TOKEN, Call, Heard, Login, Notice, Page, Read, Request, Response, Said, Sent, Token
from engine.sim.faults import FaultPlan
from engine.venues import venues
from engine.venues.alor.front import AlorSession, front
from engine.venues.alor.front_rules import Rules

ALOR = venues()["alor"]
CWS, WS = "/cws", "/ws"
START_MS = 1_795_330_800_000  # a Sunday, nine in the morning in Moscow
SBER, FUTURE, YUAN = "SBER/RUB", "SR/RUB:RUB-2612", "CNY/RUB"

Json = dict[str, Any]


class Floor:
    """A front, a clock, and a house that quotes what it is told to."""

    def __init__(self, accounts: int = 2, **rules: Any) -> None:
        self.now_ms = START_MS
        self.faults = FaultPlan()
        self.rules = Rules(**{"acknowledge": "before", **rules})
        self.front = front(accounts=accounts, seed=1, now_ms=self.now_ms, faults=self.faults, rules=self.rules)
        self.keys = {account["name"]: account for account in self.front.accounts()}
        self.talks: list[Talk] = []
        self._house = 0

    def quote(self, symbol: str = "SBER", bid: str = "299", ask: str = "301", size: str = "100") -> None:
        self.house(symbol, "buy", size, bid)
        self.house(symbol, "sell", size, ask)

    def house(self, symbol: str, side: str, size: str, price: str, kind: OrderType = OrderType.LIMIT) -> None:
        self._house += 1
        book = self.front.exchange.books[symbol]
        book.submit(f"~{self._house}", "~house", Side(side), kind, Decimal(size), Decimal(price))
        self.front.settle(self.now_ms)
        self.carry()

    def mark(self, symbol: str, price: str) -> None:
        self.front.exchange.marks[symbol] = Decimal(price)
        self.front.settle(self.now_ms)
        self.carry()

    def connect(self, path: str, **headers: str) -> Talk:
        call = Call(method="GET", target=path, headers=headers, peer=f"10.0.0.{len(self.talks)}")
        session = self.front.accept(call, self.now_ms)
        assert isinstance(session, AlorSession), f"refused with {session}"
        talk = Talk(self, session)
        self.talks.append(talk)
        return talk

    def pass_ms(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        self.front.tick(self.now_ms)
        self.carry()

    def carry(self) -> None:
        for outgoing in self.front.drain():
            talk = next(t for t in self.talks if t.session is outgoing.session)
            if outgoing.sent is Sent.CLOSE:
                talk.closed = (outgoing.code, outgoing.reason)
            elif outgoing.sent is Sent.ABORT:
                talk.closed = (1006, "")
            else:
                assert isinstance(outgoing.frame, str)
                talk.frames.append(outgoing.frame)

    def call(self, method: str, target: str, body: bytes = b"", **headers: str) -> Response | None:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        response = self.front.call(Call(method=method, target=target, headers=sent, body=body), self.now_ms)
        self.carry()
        return response

    def token(self, account: str = "alor-01") -> str:
        body = json.dumps({"token": self.keys[account]["refresh_token"]}).encode()
        response = self.call("POST", "/refresh", body)
        assert response is not None
        assert response.status == 200, response.body
        self.pass_ms(1000)  # not several a second
        return str(json.loads(response.body)["AccessToken"])


class Talk:
    """One connection as its client sees it."""

    def __init__(self, floor: Floor, session: AlorSession) -> None:
        self.floor, self.session = floor, session
        self.frames: list[str] = []
        self.closed: tuple[int, str] | None = None

    def say(self, frame: Json | str) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        self.session.hear(text.encode(), self.floor.now_ms)
        self.floor.carry()

    def heard(self) -> list[Json]:
        """Every frame since the last time, read."""
        frames, self.frames = self.frames, []
        return [json.loads(f) for f in frames]

    def ask(self, **frame: Any) -> Json:
        """The one answer to a message; other frames are dropped."""
        self.say(frame)
        answers = [f for f in self.heard() if "requestGuid" in f]
        assert len(answers) == 1, answers
        return answers[0]

    def pushed(self) -> list[Json]:
        return [f["data"] for f in self.heard() if "data" in f]


class Catalogue:
    def __init__(self) -> None:
        self.found: dict[str, Instrument] = {}

    def by_name(self, name: str) -> Instrument | None:
        return self.found.get(name)

    def listed(self) -> Collection[Instrument]:
        return self.found.values()


class Ear:
    """One conversation of ours on one connection of theirs."""

    def __init__(self, desk: Desk, kind: str, accounts: Iterable[str], channels: tuple[str, ...]) -> None:
        self.desk, self.floor = desk, desk.floor
        self.facts, self.said, self.outcomes = list[Fact](), list[Said](), list[Outcome]()
        self.heard = list[Heard]()
        self.conversation = ALOR.converse(
            kind=kind,
            channels=channels or ALOR.endpoint(kind).channels,
            logins=[desk.login(a) for a in accounts],
            environment="demo",
            catalogue=desk.catalogue,
            options=desk.options,
        )
        self.talk = self.floor.connect(CWS if kind == "cws" else WS)
        self.tell(self.conversation.open(self.floor.now_ms))

    def tell(self, frames: Iterable[str | bytes]) -> None:
        for frame in frames:
            assert isinstance(frame, str)
            self.talk.say(frame)
        self.listen()

    def listen(self) -> None:
        while self.talk.frames:
            frames, self.talk.frames = self.talk.frames, []
            for frame in frames:
                heard = self.conversation.hear(frame.encode(), self.floor.now_ms)
                assert Notice.UNREADABLE not in [said.notice for said in heard.said], (frame, heard.said)
                self.heard.append(heard)
                self.facts += heard.facts
                self.said += heard.said
                self.outcomes += [outcome for reply in heard.replies for outcome in reply.outcomes]

    def notices(self) -> list[Notice]:
        return [said.notice for said in self.said]


class Desk:
    """Accounts of ours at the simulated venue."""

    def __init__(self, floor: Floor, account: str = "alor-01", **options: str) -> None:
        self.floor, self.account, self.options = floor, account, {**ALOR.options, **options}
        self.catalogue = Catalogue()
        self.tokens: dict[str, str] = {}
        self.rest = ALOR.rest(self.catalogue, ref=self.ref(account), options=self.options)
        for read in self.rest.instruments():
            self.catalogue.found |= {i.name: i for page in self.walk(read) for i in page.instruments}
        self._asked = 0

    def ref(self, account: str) -> str:
        return f"MOEX:{self.floor.keys[account]['portfolio']}"

    def login(self, account: str) -> Login:
        """With a token of its own, as the grant gives it."""
        key = self.floor.keys[account]["refresh_token"]
        if key not in self.tokens:
            self.tokens[key] = self.grant(account).secret.reveal()
        credentials = {"refresh_token": Secret(key), ACCESS_TOKEN: Secret(self.tokens[key])}
        return Login(self.ref(account), credentials)

    def grant(self, account: str) -> Token:
        assert ALOR.grant is not None
        credentials = {"refresh_token": Secret(self.floor.keys[account]["refresh_token"])}
        request = ALOR.sign(ALOR.grant.request(credentials, self.options), None, "demo", self.floor.now_ms)
        asked_ms = self.floor.now_ms
        response = self.floor.call(request.method, request.path, request.body)
        self.floor.pass_ms(1000)
        assert response is not None
        return ALOR.grant.read(response, asked_ms)

    def renew(self, account: str) -> None:
        del self.tokens[self.floor.keys[account]["refresh_token"]]

    def orders(self, *accounts: str) -> Ear:
        return Ear(self, "cws", accounts or (self.account,), ())

    def facts(self, *accounts: str, channels: tuple[str, ...] = ()) -> Ear:
        return Ear(self, "ws", accounts or (self.account,), channels)

    def ask(self, ear: Ear, command: Command) -> list[Outcome]:
        ear.outcomes, self._asked = [], self._asked + 1
        ear.tell([ear.conversation.say([command], f"r{self._asked}", self.floor.now_ms)])
        return ear.outcomes

    def send(self, request: Request) -> Response:
        signed = ALOR.sign(request, self.login(self.account).credentials, "demo", self.floor.now_ms)
        headers = {name.lower(): value for name, value in signed.headers}
        response = self.floor.call(signed.method, signed.path, signed.body, **headers)
        self.floor.pass_ms(60)  # not too many at once
        assert response is not None
        return response

    def walk(self, read: Read | None) -> list[Page]:
        pages = list[Page]()
        while read is not None:
            pages.append(read.read(self.send(read.request)))
            read = pages[-1].next
        return pages

    def told(self, reads: Iterable[Read]) -> list[Fact]:
        return [fact for read in reads for page in self.walk(read) for fact in page.facts]

    def place(self, number: int = 1, instrument: str = SBER, **changes: Any) -> Place:
        fields: dict[str, Any] = {
            "client_order_id": ALOR.render_order_id(order_uuid("plan", self.account, 0, number).int),
            "instrument": self.catalogue.found[instrument],
            "side": Side.BUY,
            "order_type": OrderType.LIMIT,
            "quantity": Decimal(3),
            "price": Decimal(301),
            "account_ref": self.ref(self.account),
        }
        return Place(**{**fields, **changes})


def amend(place: Place, venue_order_id: str, *, filled: int = 0, **changes: Any) -> Amend:
    return Amend(
        client_order_id=place.client_order_id,
        venue_order_id=venue_order_id,
        instrument=place.instrument,
        amend_id="a" * 32,
        order=place,
        filled=Decimal(filled),
        account_ref=place.account_ref,
        **changes,
    )


def cancel(place: Place, venue_order_id: str) -> Cancel:
    return Cancel(
        client_order_id=place.client_order_id,
        venue_order_id=venue_order_id,
        instrument=place.instrument,
        account_ref=place.account_ref,
    )


def of(facts: Iterable[Fact], kind: type[Any]) -> list[Any]:
    return [fact for fact in facts if isinstance(fact, kind)]
