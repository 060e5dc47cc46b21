"""Our side of the IME feed against the other one, without sockets."""

from __future__ import annotations

import random
from typing import Any

from accounts.model import Credentials, Secret
from engine.core.facts import Fact, MarkFact
from engine.core.instruments import Instrument
from engine.core.venue import ACCESS_TOKEN, Call, Login, Notice, Page, Read, Request, Response, Said, Sent, Token
from engine.sim.faults import FaultPlan
from engine.sim.market import Market
from engine.venues import venues
from engine.venues.ime.front import ImeSession, front
from engine.venues.ime.front_rules import CONTRACTS, Rules
from engine.venues.ime.stream import Session

VENUE = venues()["ime"]
START_MS = 1_781_078_400_000
NAMES = tuple(contract.name for contract in CONTRACTS)
IDS = tuple(f"{contract.contract_id}:{contract.name}" for contract in CONTRACTS)


class Catalogue(dict[str, Instrument]):
    def by_name(self, name: str) -> Instrument | None:
        return self.get(name)


class Floor:
    """A front, a market and a clock; one feed of ours on it."""

    def __init__(self, *, either: random.Random | None = None, **rules: Any) -> None:
        self.now_ms, self.faults = START_MS, FaultPlan()
        made = {} if either is not None else {"rules": Rules(**rules)}
        self.front = front(accounts=3, seed=1, now_ms=START_MS, faults=self.faults, either=either, **made)
        self.market = Market(self.front.exchange, self.front.quoted, 1)
        self.market.tick(self.now_ms)
        self.front.settle(self.now_ms)
        self.catalogue, self.options = Catalogue(), dict(VENUE.options)
        self.facts, self.said = list[Fact](), list[Said]()
        self.token: Token | None = None
        self.talk: Session | None = None
        self.accepted: ImeSession | None = None
        self.peer = "127.0.0.1"
        told = self.front.accounts()[0]
        self.credentials: Credentials = {name: Secret(told[name]) for name in VENUE.credential_fields}

    # ---- HTTP

    def send(self, request: Request, door: str = "rest") -> Response:
        credentials = dict(self.credentials)
        if self.token is not None:
            credentials[ACCESS_TOKEN] = self.token.secret
        signed = VENUE.sign(request, credentials, "demo", self.now_ms)
        response = self.front.call(
            Call(
                method=signed.method,
                target=self.front.rests[door] + signed.path,
                headers={name.lower(): value for name, value in signed.headers},
                body=signed.body,
                peer=self.peer,
            ),
            self.now_ms,
        )
        assert response is not None
        self.now_ms += 1_000  # the pace of requests
        return response

    def grant(self) -> Token:
        assert VENUE.grant is not None
        asked_ms = self.now_ms
        request = VENUE.grant.request(self.credentials, self.options)
        self.token = VENUE.grant.read(self.send(request, "token"), asked_ms)
        return self.token

    def walk(self, read: Read | None) -> list[Page]:
        pages = list[Page]()
        while read is not None:
            pages.append(read.read(self.send(read.request)))
            read = pages[-1].next
        return pages

    # ---- The stream

    def connect(self, *channels: str, kind: str = "names") -> int:
        """The status of a refusal, 0 when it was accepted."""
        if self.token is None:
            self.grant()
        assert self.token is not None
        login = Login("", {**self.credentials, ACCESS_TOKEN: self.token.secret})
        made = VENUE.converse(
            kind=kind,
            channels=channels,
            logins=[login],
            environment="demo",
            catalogue=self.catalogue,
            options=self.options,
        )
        assert isinstance(made, Session)
        self.talk = made
        handshake = made.handshake(self.now_ms)
        call = Call(
            method="GET",
            target=self.front.paths["ws_id" if kind == "ids" else "ws_name"] + handshake.suffix,
            headers={name.lower(): value for name, value in handshake.headers},
            peer=self.peer,
        )
        accepted = self.front.accept(call, self.now_ms)
        if isinstance(accepted, int):
            self.note(made.refused(accepted, self.now_ms))
            self.talk = None
            return accepted
        self.accepted = accepted
        assert made.open(self.now_ms) == ()
        return 0

    def note(self, said: Said | None) -> None:
        self.said += [said] if said is not None else []

    def seconds(self, seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            self.now_ms += 250
            if self.market.tick(self.now_ms):
                self.front.settle(self.now_ms)
            self.front.tick(self.now_ms)
            self.listen()
            heard = self.talk.tick(self.now_ms) if self.talk is not None and self.now_ms % 1000 == 0 else None
            self.said += heard.said if heard is not None else ()

    def listen(self) -> None:
        for out in self.front.drain():
            if self.talk is None or out.session is not self.accepted:
                continue
            if out.sent is Sent.CLOSE:
                self.note(self.talk.closed(out.code, out.reason))
                self.talk = None
                continue
            assert isinstance(out.frame, str)
            heard = self.talk.hear(out.frame.encode(), self.now_ms)
            self.facts += heard.facts
            self.said += heard.said

    def notices(self, *kinds: Notice) -> list[str]:
        return [f"{s.notice.value} {s.code}".strip() for s in self.said if not kinds or s.notice in kinds]

    @property
    def marks(self) -> list[MarkFact]:
        return [fact for fact in self.facts if isinstance(fact, MarkFact)]
