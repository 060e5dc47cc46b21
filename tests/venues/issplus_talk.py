"""Our side of ISS+ against the other one, without sockets."""

from __future__ import annotations

import random
from typing import Any

from accounts.model import Credentials, Secret
from engine.core.facts import Fact, MarkFact
from engine.core.instruments import Instrument
from engine.core.venue import Call, Login, Notice, Page, Read, Response, Said, Sent
from engine.sim.faults import FaultPlan
from engine.sim.market import Market
from engine.venues import venues
from engine.venues.issplus.front import PATH, IssSession, front
from engine.venues.issplus.front_rules import Rules
from engine.venues.issplus.stream import Session

ISSPLUS = venues()["issplus"]
START_MS = 1_781_078_400_000  # a working day in Moscow, 11:00
CHANNELS = ("securities:SBER/RUB", "orderbooks:SBER/RUB", "candles:SBER/RUB:M1")


class Catalogue(dict[str, Instrument]):
    def by_name(self, name: str) -> Instrument | None:
        return self.get(name)


class Floor:
    """A front, a market and a clock; one feed of ours on it."""

    def __init__(self, *, either: random.Random | None = None, **rules: Any) -> None:
        self.now_ms, self.faults = START_MS, FaultPlan()
        made = {} if either is not None else {"rules": Rules(**{"news_ms": 0, **rules})}
        self.front = front(accounts=3, seed=1, now_ms=START_MS, faults=self.faults, either=either, **made)
        self.market = Market(self.front.exchange, self.front.quoted, 1)
        self.market.tick(self.now_ms)
        self.front.settle(self.now_ms)
        self.catalogue = Catalogue()
        self.options = dict(ISSPLUS.options)
        self.facts, self.said = list[Fact](), list[Said]()
        self.closed: list[tuple[int, str]] = []
        self.sent: list[str] = []  # what we said
        self.talk: Session | None = None

    @property
    def session(self) -> Session:
        assert self.talk is not None
        return self.talk

    @staticmethod
    def keys(domain: str, login: str, passcode: str) -> Credentials:
        return {"domain": Secret(domain), "login": Secret(login), "passcode": Secret(passcode)}

    def connect(self, *channels: str, domain: str = "", login: str = "", passcode: str = "") -> None:
        told = self.front.accounts()[0]
        keys = {
            "domain": domain or told["domain"],
            "login": login or told["login"],
            "passcode": passcode or told["passcode"],
        }
        talk = ISSPLUS.converse(
            kind="feed",
            channels=channels,
            logins=[Login("", self.keys(**keys))],
            environment="demo",
            catalogue=self.catalogue,
            options=self.options,
        )
        assert isinstance(talk, Session)
        offered = ",".join(talk.handshake(self.now_ms).subprotocols)
        accepted = self.front.accept(
            Call(method="GET", target=PATH, headers={"sec-websocket-protocol": offered}), self.now_ms
        )
        assert isinstance(accepted, IssSession)
        self.talk, self.accepted = talk, accepted
        self.say(talk.open(self.now_ms))
        self.listen()

    def say(self, frames: Any) -> None:
        for frame in frames:
            raw = frame.encode() if isinstance(frame, str) else frame
            self.sent.append(raw.decode())
            self.accepted.hear(raw, self.now_ms)

    def listen(self, *, lose: bool = False) -> None:
        """Until nobody has anything to say; `lose`: pushes of the venue do not arrive."""
        while outbox := self.front.drain():
            for out in outbox:
                if out.session is not self.accepted:
                    continue
                if out.sent is Sent.CLOSE:
                    self.closed.append((out.code, out.reason))
                elif not (lose and out.sent is Sent.PUSH):
                    self.hear(out.frame.encode() if isinstance(out.frame, str) else out.frame)

    def hear(self, frame: bytes) -> None:
        heard = self.session.hear(frame, self.now_ms)
        self.facts += heard.facts
        self.said += heard.said
        self.say(heard.frames)

    def seconds(self, seconds: float, *, lose: bool = False) -> None:
        """Time goes by: the market and the venue move, and our side is looked at each second."""
        for _ in range(round(seconds * 4)):
            self.now_ms += 250
            if self.market.tick(self.now_ms):
                self.front.settle(self.now_ms)
            self.front.tick(self.now_ms)
            self.listen(lose=lose)
            if self.now_ms % 1000 == 0 and self.talk is not None:
                heard = self.talk.tick(self.now_ms)
                if heard is not None:
                    self.said += heard.said
                    self.say(heard.frames)
                    self.listen(lose=lose)

    def notices(self, *kinds: Notice) -> list[str]:
        return [f"{s.notice.value} {s.code}".strip() for s in self.said if not kinds or s.notice in kinds]

    @property
    def marks(self) -> list[MarkFact]:
        return [fact for fact in self.facts if isinstance(fact, MarkFact)]

    def send(self, read: Read, **headers: str) -> Response:
        response = self.front.call(
            Call(method=read.request.method, target=f"/iss{read.request.path}", headers=headers), self.now_ms
        )
        assert response is not None
        return response

    def walk(self, read: Read | None, **headers: str) -> list[Page]:
        pages = list[Page]()
        while read is not None:
            self.now_ms += 200  # the limit of requests
            pages.append(read.read(self.send(read, **headers)))
            read = pages[-1].next
        return pages
