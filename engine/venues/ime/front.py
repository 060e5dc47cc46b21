"""Decides. The IME data engine from the other side, sans I/O (IME dossier §11): two streams, a token, an overview.

`front()` makes one. What happened to a contract is told as the whole of it, to whoever named it in the handshake.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from engine.core.matching import Exchange, Trade
from engine.core.truth import Truth
from engine.core.venue import Call, Entry, Faults, Outgoing, Quoted, Response, Sent, Stage
from engine.core.windows import Windows
from engine.venues.ime import front_rest
from engine.venues.ime.front_market import State, iso
from engine.venues.ime.front_rules import CONTRACTS, Contract, Rules, drawn

TOKEN = "/auth/user/token/issue"
NAME = "ime"
"""The one subscriber."""

_REFUSED_AFTER_MS = 50  # what is accepted only to be closed
_LIVE = "/data-engine/ime/live/data/websocket/contract"
_encode = msgspec.json.Encoder(decimal_format="number").encode


class ImeSession:
    """One accepted WebSocket. `refused`: it is accepted only to be closed."""

    def __init__(self, front: ImeFront, contracts: Sequence[Contract], *, ids: bool, ends_ms: int, peer: str) -> None:
        self.accounts: Sequence[str] = (NAME,)
        self.subprotocol = ""
        self.contracts, self.ids, self.ends_ms, self.peer = tuple(contracts), ids, ends_ms, peer
        self.versions: dict[str, int] = {}  # what of each contract was told
        self.held: str | None = None  # a message that is overtaken by the next
        self.opened_ms = 0
        self.refused = False
        self.open = True
        self._front = front

    def hear(self, frame: bytes, now_ms: int) -> None:
        """A client has nothing to say, and is not answered."""

    def gone(self) -> None:
        self._front.forget(self)


class ImeFront:
    codes: Mapping[str, Sequence[str]] = {}
    paths: Mapping[str, str] = {"ws_name": f"{_LIVE}/name", "ws_id": f"{_LIVE}/id"}
    rests: Mapping[str, str] = {"token": TOKEN, "rest": "/data-engine/ime"}

    def __init__(self, seed: int, now_ms: int, faults: Faults, rules: Rules) -> None:
        self.rules, self.faults, self.windows = rules, faults, Windows()
        self._rng = random.Random(f"ime front {seed}")
        self.exchange = Exchange(tuple(contract.contract_id for contract in CONTRACTS))
        self.exchange.marks.update({contract.contract_id: contract.start for contract in CONTRACTS})
        self.quoted = tuple(
            Quoted(
                symbol=x.contract_id, path=x.path, start=x.start, tick=x.tick, depth=Decimal(x.depth), lot=Decimal(1)
            )
            for x in CONTRACTS
        )
        self.states = {x.contract_id: State(x, self.exchange, rules, now_ms) for x in CONTRACTS}
        self.username, self.password = "feed", f"pass-{self._rng.getrandbits(48):012x}"
        self._secret = self._rng.randbytes(32)
        self._issued = 0
        self._sessions: dict[ImeSession, None] = {}
        self._outbox: list[Outgoing] = []
        self._pushed_ms = now_ms

    # ---- The contract of a front

    def describe(self) -> Mapping[str, object]:
        return {
            "username": self.username,
            "password": self.password,
            "contracts": [{"name": x.name, "id": x.contract_id} for x in CONTRACTS],
        }

    def accounts(self) -> Sequence[Mapping[str, str]]:
        return [{"name": NAME, "username": self.username, "password": self.password}]

    def accept(self, call: Call, now_ms: int) -> ImeSession | int:
        path, _, query = call.target.partition("?")
        if path not in self.paths.values():
            return 404
        if self.rules.limits and not self.windows.admit("opens", call.peer, self.rules.opens_per_s, 1000, now_ms):
            return 429
        ids = path.endswith("/id")
        contracts = self._asked(parse_qsl(query), ids)
        ends_ms = self.entitled(call, now_ms)
        refused = contracts is None or ends_ms is None or self.faults.strikes("refuse", NAME, now_ms) is not None
        if refused and self.rules.refusal == "403":
            return 403
        session = ImeSession(self, () if refused else contracts or (), ids=ids, ends_ms=ends_ms or 0, peer=call.peer)
        session.opened_ms, session.refused = now_ms, refused
        self._sessions[session] = None
        for contract in session.contracts:
            session.versions[contract.contract_id] = -1 if self.rules.first_snapshot else self._version(contract)
        return session

    def _asked(self, query: Sequence[tuple[str, str]], ids: bool) -> list[Contract] | None:
        """None where the list that must be there is missing, or names what there is not."""
        names = {"contract_names", "contract_name"} if self.rules.parameter == "either" else {self.rules.parameter}
        wanted = [value for name, value in query if name in ({"contract_id"} if ids else names)]
        by = {x.contract_id if ids else x.name: x for x in CONTRACTS}
        if not wanted or (self.rules.bad_contract == "refuse" and not set(wanted) <= by.keys()):
            return None
        return [by[value] for value in dict.fromkeys(wanted) if value in by]

    def call(self, call: Call, now_ms: int) -> Response | None:
        return front_rest.answer(self, call, now_ms)

    def caller(self, call: Call) -> str:
        return NAME if self.entitled(call, 0) is not None else ""

    def settle(self, now_ms: int) -> None:
        for event in self.exchange.take_log():
            state = self.states[event.symbol]
            state.version += 1
            if isinstance(event, Trade):
                state.deal(event, now_ms)

    def tick(self, now_ms: int) -> None:
        for session in list(self._sessions):
            if session.refused:
                if now_ms - session.opened_ms >= _REFUSED_AFTER_MS:
                    self._close(session, 1008, "Invalid token or contracts")
            elif self.rules.expiry_closes and session.ends_ms <= now_ms:
                self._close(session, 1008, "Token expired")
        if now_ms - self._pushed_ms < self.rules.push_ms:
            return
        self._pushed_ms = now_ms
        for session in self._sessions:
            for contract in session.contracts:
                if session.versions[contract.contract_id] != self._version(contract):
                    session.versions[contract.contract_id] = self._version(contract)
                    self._tell(session, contract, now_ms)

    def _version(self, contract: Contract) -> int:
        return self.states[contract.contract_id].version

    def drain(self) -> list[Outgoing]:
        sent, self._outbox = self._outbox, []
        return sent

    def command(self, kind: str, accounts: Sequence[str], detail: Mapping[str, str], now_ms: int) -> int:
        if NAME not in accounts:
            return 0
        match kind:
            case "notice":  # what feeds the streams has failed
                met = list(self._sessions)
                for session in met:
                    self._close(session, 1011, "Redis stream failed")
                return len(met)
            case "kill_key" | "new_key":
                self.password = f"pass-{self._rng.getrandbits(48):012x}"
                if kind == "kill_key":
                    self._secret = self._rng.randbytes(32)
                    for session in list(self._sessions):
                        self._close(session, 1008, "Token revoked")
                return 1
            case _:
                raise KeyError(kind)

    def symbol(self, instrument: str) -> str:
        for contract in CONTRACTS:
            if instrument.partition("/")[0] in (contract.contract_id, contract.name):
                return contract.contract_id
        raise KeyError(instrument)

    def place_elsewhere(self, account: str, order: Mapping[str, object], now_ms: int) -> Mapping[str, object]:
        raise ValueError("a feed takes no orders")

    def transfer(self, account: str, currency: str, amount: Decimal, now_ms: int) -> None:
        raise ValueError("a feed holds no money")

    def account(self, name: str) -> Truth:
        return Truth(orders={}, fills={}, positions={}, cash={})

    def truth(self, kind: str, account: str) -> list[dict[str, object]]:
        if kind == "connections":
            return [
                {
                    "account": NAME,
                    "path": self.paths["ws_id" if s.ids else "ws_name"],
                    "opened_ms": s.opened_ms,
                    "channels": [x.contract_id if s.ids else x.name for x in s.contracts],
                }
                for s in self._sessions
                if account in ("", NAME)
            ]
        if kind in ("orders", "fills", "positions", "balances"):
            return []
        raise KeyError(kind)

    # ---- Tokens

    def issue(self, peer: str, now_ms: int) -> str:
        self._issued += 1
        claims: dict[str, Any] = {"sub": self.username, "jti": self._issued, "peer": peer, "until": self._until(now_ms)}
        if self.rules.token_tells:
            claims["exp"] = claims["until"]
        head = f"{_base64(_encode({'alg': 'HS256', 'typ': 'JWT'}))}.{_base64(_encode(claims))}"
        return f"{head}.{self._signature(head)}"

    def _until(self, now_ms: int) -> int:
        return now_ms // 1000 + self.rules.token_s

    def entitled(self, call: Call, now_ms: int) -> int | None:
        """When the token of a request ends; None when it will not do."""
        word, _, rest = call.headers.get("authorization", "").partition(" ")
        bearer = word == "Bearer"
        if (self.rules.authorization == "bare" and bearer) or (self.rules.authorization == "bearer" and not bearer):
            return None
        head, _, signature = (rest if bearer else word).rpartition(".")
        if not head or not hmac.compare_digest(signature, self._signature(head)):
            return None
        part = head.partition(".")[2]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        foreign = self.rules.bind_peer and claims["peer"] != call.peer
        replaced = self.rules.newest_token_only and claims["jti"] != self._issued
        return None if foreign or replaced or claims["until"] * 1000 <= now_ms else claims["until"] * 1000

    def _signature(self, head: str) -> str:
        return _base64(hmac.digest(self._secret, head.encode(), hashlib.sha256))

    # ---- Sending

    def _tell(self, session: ImeSession, contract: Contract, now_ms: int) -> None:
        member = self.rules.id_member if session.ids else "contractName"
        message = {
            "channel": "IME Stream",
            member: contract.contract_id if session.ids else contract.name,
            "timestamp": iso(now_ms, self.rules) + ("Z" if self.rules.suffix_z else ""),
            "data": self.states[contract.contract_id].sections(),
        }
        frame = _encode(message).decode()
        if session.held is None and self.faults.strikes("late", NAME, now_ms):
            session.held = frame
            return
        self._outbox.append(Outgoing(session, Sent.PUSH, frame))
        if session.held is not None:
            self._outbox.append(Outgoing(session, Sent.PUSH, session.held))
            session.held = None
        if self.faults.strikes("duplicate", NAME, now_ms):
            self._outbox.append(Outgoing(session, Sent.PUSH, frame))

    def _close(self, session: ImeSession, code: int, reason: str) -> None:
        self._outbox.append(Outgoing(session, Sent.CLOSE, code=code, reason=reason))
        self.forget(session)

    def forget(self, session: ImeSession) -> None:
        session.open = False
        self._sessions.pop(session, None)


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _spelt(contract: Contract) -> str:
    """Our name of it."""
    certificate = contract.market == "IMEDepositCertificate"
    return f"{contract.name}/IRR" if certificate else f"{contract.name}/IRR:IRR"


def _entries(line: Mapping[str, Any]) -> Sequence[Entry]:
    return [Entry(name=NAME, credentials={field: line[field] for field in ("username", "password")})]


STAGE = Stage(
    doors={"token": "token", "rest": "rest", "names": "ws_name", "ids": "ws_id"},
    entries=_entries,
    instrument="BULLION01/IRR",
    channels={"names": tuple(_spelt(x) for x in CONTRACTS)},
)


def front(
    *,
    accounts: int,
    seed: int,
    now_ms: int,
    faults: Faults,
    limits: bool = True,
    rules: Rules | None = None,
    either: random.Random | None = None,
) -> ImeFront:
    """A feed has one subscriber, however many `accounts` others have. `either` decides what is unconfirmed."""
    if either is not None:
        rules = drawn(either, limits=limits)
    return ImeFront(seed, now_ms, faults, rules or Rules(limits=limits))
