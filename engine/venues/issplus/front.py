"""Decides. ISS+ from the other side: what its access server says to whoever connects, sans I/O (ISS+ dossier §9).

`front()` makes one. Its frames are put together and taken apart here, not by the dialect's codec: the two must not
share a mistake.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from engine.core.matching import Exchange, Trade
from engine.core.truth import Truth
from engine.core.venue import Call, Entry, Faults, Outgoing, Quoted, Response, Sent, Stage
from engine.core.windows import Windows
from engine.venues.issplus import front_iss
from engine.venues.issplus.front_channels import Feed, feed_of, packet, reply_rows
from engine.venues.issplus.front_market import stamp, tickers_of
from engine.venues.issplus.front_rules import LISTINGS, TEXTS, Rules, Turned, drawn

PATH = "/infocx/v3/websocket"
NAME = "issplus"
"""The one subscriber; everybody else is a guest."""

_GUEST = ("DEMO", "guest", "guest")
_KEPT_NEWS = 5


class IssSession:
    """One accepted WebSocket."""

    def __init__(self, front: IssFront, subprotocol: str, now_ms: int) -> None:
        self.accounts: Sequence[str] = ()
        self.subprotocol = subprotocol
        self.domain = ""  # once connected
        self.feeds: dict[str, Feed] = {}
        self.held: bytes | None = None  # a message that is overtaken by the next
        self.opened_ms = self.sent_ms = now_ms
        self.open = True
        self._front = front

    def hear(self, frame: bytes, now_ms: int) -> None:
        if self.open:
            self._front.hear(self, frame, now_ms)

    def gone(self) -> None:
        self._front.forget(self)


class IssFront:
    """The exchange's server."""

    codes: Mapping[str, Sequence[str]] = {
        "refuse_login": ("gateway.access-denied", "gateway.exception", "gateway.transport"),
        "refuse": ("gateway.exception", "gateway.timeout", "gateway.transport"),
    }
    paths: Mapping[str, str] = {"ws": PATH}
    rests: Mapping[str, str] = {"iss": "/iss"}

    def __init__(self, seed: int, now_ms: int, faults: Faults, rules: Rules) -> None:
        self.rules, self.faults, self.windows = rules, faults, Windows()
        self._rng = random.Random(f"issplus front {seed}")
        self.exchange = Exchange(tuple(listing.ticker for listing in LISTINGS))
        self.exchange.marks.update({listing.ticker: listing.start for listing in LISTINGS})
        self.quoted = tuple(
            Quoted(symbol=x.ticker, path=x.path, start=x.start, tick=x.tick, depth=Decimal(x.depth), lot=Decimal(1))
            for x in LISTINGS
        )
        self.tickers = tickers_of(self.exchange, seed, now_ms)
        self.news: deque[dict[str, Any]] = deque()
        self.login = ("passport", "feed@example.org", f"pass-{self._rng.getrandbits(48):012x}")
        self.api_key, self.cookie = f"key-{self._rng.getrandbits(64):016x}", f"cert-{self._rng.getrandbits(64):016x}"
        self._sessions: dict[IssSession, None] = {}
        self._outbox: list[Outgoing] = []
        self._number = 0
        self._pushed_ms = now_ms
        self._news_ms = now_ms

    # ---- The contract of a front

    def describe(self) -> Mapping[str, object]:
        return dict(zip(("domain", "login", "passcode"), self.login, strict=True))

    def accounts(self) -> Sequence[Mapping[str, str]]:
        return [{"name": NAME, **dict(zip(("domain", "login", "passcode"), self.login, strict=True))}]

    def accept(self, call: Call, now_ms: int) -> IssSession | int:
        if call.target.partition("?")[0] != PATH:
            return 404
        offered = [name.strip() for name in call.headers.get("sec-websocket-protocol", "").split(",") if name.strip()]
        agreed = next((name for name in offered if name in ("STOMP", "v12.stomp")), "")
        session = IssSession(self, agreed if self.rules.echo_subprotocol else "", now_ms)
        self._sessions[session] = None
        return session

    def call(self, call: Call, now_ms: int) -> Response | None:
        return front_iss.answer(self, call, now_ms)

    def caller(self, call: Call) -> str:
        return NAME if front_iss.entitled(self, call) else ""

    def settle(self, now_ms: int) -> None:
        for event in self.exchange.take_log():
            self.tickers[event.symbol].version += 1
            if isinstance(event, Trade):
                self.tickers[event.symbol].book_trade(event, now_ms)
        for ticker in self.tickers.values():
            ticker.remember(now_ms)

    def tick(self, now_ms: int) -> None:
        if self.rules.news_ms and now_ms - self._news_ms >= self.rules.news_ms:
            self._news_ms = now_ms
            self.publish(f"News of {now_ms}", now_ms)
        if now_ms - self._pushed_ms >= self.rules.push_ms:
            self._pushed_ms = now_ms
            for session in self._sessions:
                for feed in session.feeds.values():
                    self._push(session, feed, now_ms)
        if self.rules.heartbeat_ms:
            for session in self._sessions:
                if now_ms - session.sent_ms >= self.rules.heartbeat_ms:
                    session.sent_ms = now_ms
                    self._outbox.append(Outgoing(session, Sent.PONG, b"\n"))

    def drain(self) -> list[Outgoing]:
        sent, self._outbox = self._outbox, []
        return _coalesced(sent) if self.rules.framing == "coalesce" else sent

    def command(self, kind: str, accounts: Sequence[str], detail: Mapping[str, str], now_ms: int) -> int:
        met = [s for s in self._sessions if set(s.accounts) & set(accounts)]
        match kind:
            case "notice":  # subscriptions end out of the blue
                done = [(s, asked_as) for s in met for asked_as in s.feeds]
                for session, asked_as in done:
                    del session.feeds[asked_as]
                    self._say(session, Sent.SAID, "CLOSED", {"subscription": asked_as}, b"", now_ms)
                return len(done)
            case "kill_key" | "new_key":
                domain, login, _ = self.login
                self.login = (domain, login, f"pass-{self._rng.getrandbits(48):012x}")
                if kind == "kill_key":
                    for session in met:
                        self._say(session, Sent.SAID, "CLOSED", {}, b"", now_ms)
                        self._close(session, 1008, "the login has ended")
                return 1
            case _:
                raise KeyError(kind)

    def symbol(self, instrument: str) -> str:
        for listing in LISTINGS:
            if instrument in (listing.ticker, listing.secid, front_iss.name_of(listing)):
                return listing.ticker
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
                    "account": "".join(s.accounts),
                    "path": PATH,
                    "domain": s.domain,
                    "opened_ms": s.opened_ms,
                    "channels": sorted(f"{f.destination}|{f.selector}" for f in s.feeds.values()),
                }
                for s in self._sessions
                if account in ("", *s.accounts)
            ]
        if kind in ("orders", "fills", "positions", "balances"):
            return []
        raise KeyError(kind)

    # ---- What a session says

    def hear(self, session: IssSession, frame: bytes, now_ms: int) -> None:
        if not frame.strip(b"\n"):
            return  # a lone line end keeps a line alive, and is not answered
        if b"\r\n" in frame and self.rules.crlf_closes:
            self._close(session, 1002, "")
            return
        command, headers = _read(frame.replace(b"\r\n", b"\n"))
        asked_as = headers.get("id", "")
        try:
            if command == "CONNECT":
                self._connect(session, headers, now_ms)
            elif not session.domain:
                raise Turned("gateway.not-connected")
            elif command == "SUBSCRIBE":
                self._subscribe(session, asked_as, headers, now_ms)
            elif command == "UNSUBSCRIBE":
                self._unsubscribe(session, asked_as, now_ms)
            elif command == "REQUEST":
                self._request(session, asked_as, headers, now_ms)
            elif command == "DISCONNECT":
                if receipt := headers.get("receipt"):
                    self._say(session, Sent.SAID, "RECEIPT", {"receipt-id": receipt}, b"", now_ms)
                self._close(session, 1000, "")
            else:
                raise Turned("gateway.notimplemented" if command == "SEND" else "gateway.invalidrequest")
        except Turned as turned:
            about = {"request-id": asked_as} if command == "REQUEST" else {"receipt-id": asked_as}
            if command in ("SUBSCRIBE", "UNSUBSCRIBE"):
                about["subscription"] = asked_as
            self._error(session, turned.code, about if asked_as else {}, now_ms)

    def _connect(self, session: IssSession, headers: Mapping[str, str], now_ms: int) -> None:
        login = tuple(headers.get(name, "") for name in ("domain", "login", "passcode"))
        name = NAME if login[:2] == self.login[:2] else ""
        refusal = self.faults.strikes("refuse_login", name, now_ms)
        if refusal is not None or session.domain or (login not in (self.login, _GUEST)):
            self._error(session, (refusal.code if refusal else "") or "gateway.access-denied", {}, now_ms)
            if self.rules.close_refused_login:
                self._close(session, 1000, "")
            return
        session.domain, session.accounts = login[0], (name,) if name else ()
        said = {"version": "1.0", "session": "1", "server": "issplus/3"} if self.rules.connected_headers else {}
        structure: dict[str, Any] = {
            listing.marketplace: {"enums": {}, "streams": {}, "queries": {}} for listing in LISTINGS
        }
        body = msgspec.json.encode({"structure": structure}) if self.rules.structure else b""
        self._say(session, Sent.SAID, "CONNECTED", said, body, now_ms)

    def _subscribe(self, session: IssSession, asked_as: str, headers: Mapping[str, str], now_ms: int) -> None:
        name = "".join(session.accounts)
        if self.faults.strikes("drop_request", name, now_ms):
            return
        if refusal := self.faults.strikes("refuse", name, now_ms):
            raise Turned(refusal.code or "gateway.exception")
        if not asked_as or asked_as in session.feeds:
            raise Turned("gateway.invalidrequest")
        feed = feed_of(asked_as, headers.get("destination", ""), headers.get("selector", ""), self.tickers)
        if session.domain == _GUEST[0]:
            if feed.destination in self.rules.guests_denied:
                raise Turned("gateway.access-denied")
            feed.delay_ms = self.rules.demo_delay_ms
        receipt, dropped = headers.get("receipt"), self.faults.strikes("drop_ack", name, now_ms)
        told = {"receipt-id": receipt or ""}
        if receipt and not dropped and not self.rules.receipt_last:
            self._say(session, Sent.SAID, "RECEIPT", told, b"", now_ms)
        session.feeds[asked_as] = feed
        self._push(session, feed, now_ms)
        if receipt and not dropped and self.rules.receipt_last:
            self._say(session, Sent.SAID, "RECEIPT", told, b"", now_ms)

    def _unsubscribe(self, session: IssSession, asked_as: str, now_ms: int) -> None:
        feed = session.feeds.pop(asked_as, None)
        if feed is None:
            raise Turned("gateway.invalidrequest")
        if self.rules.late_message:
            feed.restart()
            self._push(session, feed, now_ms)
        match self.rules.unsubscribe_answer:
            case "receipt":
                self._say(session, Sent.SAID, "RECEIPT", {"receipt-id": asked_as}, b"", now_ms)
            case "closed":
                self._say(session, Sent.SAID, "CLOSED", {"subscription": asked_as}, b"", now_ms)

    def _request(self, session: IssSession, asked_as: str, headers: Mapping[str, str], now_ms: int) -> None:
        name = "".join(session.accounts)
        if self.faults.strikes("drop_request", name, now_ms):
            return
        if refusal := self.faults.strikes("refuse", name, now_ms):
            raise Turned(refusal.code or "gateway.exception")
        destination = headers.get("destination", "")
        columns, rows = reply_rows(destination, headers.get("selector", ""), self.tickers)
        told: dict[str, Any] = {"columns": columns, "data": rows}
        if self.rules.reply_properties:
            told = {"properties": {"type": "snapshot", "seqnum": 1, "timestamp": now_ms}, **told}
        self._say(session, Sent.REPLY, "REPLY", {"request-id": asked_as}, msgspec.json.encode(told), now_ms)

    def publish(self, caption: str, now_ms: int) -> None:
        """News; the oldest goes when there are too many."""
        known = self.news[-1]["ID"] if self.news else 0
        self.news.append({"ID": known + 1, "CAPTION": caption, "SHORTCUT": "", "PUBLIC_TIME": stamp(now_ms)})
        while len(self.news) > _KEPT_NEWS:
            self.news.popleft()

    # ---- Sending

    def _push(self, session: IssSession, feed: Feed, now_ms: int) -> None:
        """Whatever has changed since the last time: the whole at first."""
        for kind, columns, rows in feed.changes(self, now_ms):
            if self.rules.global_numbers:
                self._number += self.rules.seq_step
                feed.number = self._number
            else:
                feed.number += self.rules.seq_step
            body = packet(kind, columns, rows, feed.number, now_ms, self.rules)
            name = "".join(session.accounts)
            headers = {"subscription": feed.asked_as, "destination": feed.destination}
            message = _frame("MESSAGE", headers, body, self.rules.framing)
            if session.held is None and self.faults.strikes("late", name, now_ms):
                session.held = message
                continue
            self._send(session, Sent.PUSH, message, now_ms)
            if session.held is not None:
                self._send(session, Sent.PUSH, session.held, now_ms)
                session.held = None
            if self.faults.strikes("duplicate", name, now_ms):
                self._send(session, Sent.PUSH, message, now_ms)

    def _error(self, session: IssSession, code: str, about: Mapping[str, str], now_ms: int) -> None:
        text, place = TEXTS.get(code, "Failure"), self.rules.error_place
        headers = {**about, "message": code if place == "message" else text}
        if place == "header":
            headers["error-code"] = code
        body = {"message": text, "body": f"{code}: {text}"}.get(place, "")
        self._say(session, Sent.SAID, "ERROR", headers, body.encode(), now_ms)

    def _say(
        self, session: IssSession, sent: Sent, command: str, headers: Mapping[str, str], body: bytes, now_ms: int
    ) -> None:
        self._send(session, sent, _frame(command, headers, body, self.rules.framing), now_ms)

    def _send(self, session: IssSession, sent: Sent, frame: bytes, now_ms: int) -> None:
        session.sent_ms = now_ms
        if self.rules.framing == "split":
            middle = len(frame) // 2
            self._outbox += [Outgoing(session, sent, frame[:middle]), Outgoing(session, sent, frame[middle:])]
        else:
            text = self.rules.framing == "text"
            self._outbox.append(Outgoing(session, sent, frame.decode() if text else frame))

    def _close(self, session: IssSession, code: int, reason: str) -> None:
        self._outbox.append(Outgoing(session, Sent.CLOSE, code=code, reason=reason))
        self.forget(session)

    def forget(self, session: IssSession) -> None:
        session.open = False
        self._sessions.pop(session, None)


def _read(frame: bytes) -> tuple[str, dict[str, str]]:
    """A client's command and headers; whatever is wrong makes it a command that nobody knows."""
    head = frame.lstrip(b"\n").partition(b"\0")[0].partition(b"\n\n")[0]
    try:
        command, *lines = head.decode().split("\n")
    except UnicodeDecodeError:
        return "", {}
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name, value)
    return command, headers


def _frame(command: str, headers: Mapping[str, str], body: bytes, framing: str) -> bytes:
    told = dict(headers)
    if framing == "length":
        told["content-length"] = str(len(body))
    colon = ": " if framing == "spaced" else ":"
    head = "".join(f"{name}{colon}{value}\n" for name, value in told.items())
    end = {"trailing_lf": b"\0\n", "no_nul": b""}.get(framing, b"\0")
    return f"{command}\n{head}\n".encode() + body + end


def _coalesced(outbox: Sequence[Outgoing]) -> list[Outgoing]:
    """Frames that follow each other on one connection, in one message."""
    joined: list[Outgoing] = []
    for one in outbox:
        last = joined[-1] if joined else None
        if last and last.session is one.session and last.sent is one.sent and isinstance(last.frame, bytes):
            assert isinstance(one.frame, bytes), "all are binary here"
            joined[-1] = msgspec.structs.replace(last, frame=last.frame + one.frame)
        else:
            joined.append(one)
    return joined


def _entries(line: Mapping[str, Any]) -> Sequence[Entry]:
    return [Entry(name=NAME, credentials={field: line[field] for field in ("domain", "login", "passcode")})]


STAGE = Stage(
    doors={"iss": "iss", "feed": "ws"},
    entries=_entries,
    instrument="SBER/RUB",
    channels={
        "feed": (
            "securities:SBER/RUB",
            "securities:GAZP/RUB",
            "securities:LKOH/RUB",
            "securities:CNY/RUB",
            "securities:USD/RUB",
            "orderbooks:SBER/RUB",
            "candles:SBER/RUB:M1",
        )
    },
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
) -> IssFront:
    """A feed has one subscriber, however many `accounts` others have. `either` decides what is unconfirmed."""
    if either is not None:
        rules = drawn(either, limits=limits)
    return IssFront(seed, now_ms, faults, rules or Rules(limits=limits))
