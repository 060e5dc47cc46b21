"""Decides. ALOR from the other side: what its server says to whoever connects, sans I/O (ALOR dossier §2-§6, §9).

`front()` makes one. Sessions hear frames, calls are answered, `tick` lets time pass, `drain` gives what is to be sent.
Everything follows from the seed and the times given. What the venue leaves unconfirmed is a switch in `Rules`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from heapq import heappop, heappush
from itertools import count
from typing import Any

import msgspec

from engine.core.matching import Exchange
from engine.core.truth import Truth
from engine.core.venue import Call, Entry, Faults, Outgoing, Quoted, Response, Sent, Stage
from engine.core.windows import Windows
from engine.venues.alor.front_commands import OPCODES, Commands, decode, order_number
from engine.venues.alor.front_http import Desk, Later
from engine.venues.alor.front_rows import (
    Row,
    encode,
    money_row,
    order_row,
    position_row,
    stop_row,
    trade_row,
    unsettled,
)
from engine.venues.alor.front_rules import BAD_TOKEN, LISTINGS, REPEATED, UNREADABLE, Rules, Turned, drawn
from engine.venues.alor.front_state import Customer, Login
from engine.venues.alor.front_streams import Prices, Streams, Subscription
from engine.venues.alor.front_tokens import Tokens
from engine.venues.alor.front_trading import Trading
from engine.venues.alor.front_truth import truth_of

CWS, WS = "/cws", "/ws"
_LONGEST_GUID = 50
_NEVER_MS = 2**62


class AlorSession:
    """One accepted WebSocket."""

    def __init__(self, front: AlorFront, path: str, peer: str, number: int, now_ms: int) -> None:
        self.path, self.peer, self.number, self.opened_ms = path, peer, number, now_ms
        self.accounts: Sequence[str] = ()
        self.subprotocol = ""
        self.login: Login | None = None  # of `/cws`: who is authorised
        self.ends_ms = _NEVER_MS  # the token of the authorisation
        self.logins: set[str] = set()
        self.guids: set[str] = set()
        self.subscriptions: dict[str, Subscription] = {}
        self.open = True
        self._front = front

    def hear(self, frame: bytes, now_ms: int) -> None:
        if self.open:
            self._front.hear(self, frame, now_ms)

    def gone(self) -> None:
        self._front.forget(self)

    def __repr__(self) -> str:
        return f"AlorSession({self.path} {self.number}, {', '.join(self.accounts) or 'nobody'})"


class AlorFront:
    """The venue's server."""

    codes: Mapping[str, Sequence[str]] = {
        "refuse": ("Нехватка средств по лимитам клиента", "HALT_INSTRUMENT", "Security is not currently trading"),
    }
    paths: Mapping[str, str] = {"ws": WS, "cws": CWS}
    rests: Mapping[str, str] = {"oauth": "", "api": ""}

    def __init__(self, logins: Sequence[Login], seed: int, faults: Faults, rules: Rules) -> None:
        self.rules, self.faults, self.logins = rules, faults, list(logins)
        self._rng = random.Random(f"alor front {seed}")
        self.windows = Windows()
        self.exchange = Exchange(tuple(listing.symbol for listing in LISTINGS))
        self.exchange.marks.update({listing.symbol: listing.start for listing in LISTINGS})
        self.quoted = tuple(
            Quoted(symbol=x.symbol, path=x.path, start=x.start, tick=x.step, depth=x.depth, lot=Decimal(1))
            for x in LISTINGS
        )
        self.trading = Trading(self.exchange, LISTINGS, rules, self._rng)
        self.customers = {c.name: c for login in logins for c in login.customers.values()}
        self.trading.customers.update(self.customers)
        self.tokens = Tokens(logins, rules.token_life_s, seed)
        prices = Prices()
        self._commands = Commands(self.trading, rules, self.windows, faults)
        self._desk = Desk(
            self.trading, self._commands, self.tokens, prices, rules, self.windows, faults, self._rng, self._put_off
        )
        self._streams = Streams(self.trading, prices, rules, faults, self._push)
        self._sessions: dict[AlorSession, None] = {}
        self._numbers = count(1)
        self._outbox: list[Outgoing] = []
        self._later: list[tuple[int, int, Later]] = []
        self._order_of_later = count()
        self._heard_ms = 0

    # ---- The contract of a front

    def describe(self) -> Mapping[str, object]:
        return {"accounts": self.accounts()}

    def accounts(self) -> Sequence[Mapping[str, str]]:
        return [
            {
                "name": c.name,
                "portfolio": c.portfolio,
                "exchange": c.exchange,
                "refresh_token": c.login.refresh_token,
            }
            for c in self.customers.values()
        ]

    def accept(self, call: Call, now_ms: int) -> AlorSession | int:
        path, rules = call.target.partition("?")[0], self.rules
        if path not in self.paths.values():
            return 404
        if rules.plain_refused and call.headers.get("x-forwarded-proto") != "https":
            return 406
        if rules.limits and not self.windows.admit("opens", call.peer, rules.opens_per_s, 1000, now_ms):
            return 429
        session = AlorSession(self, path, call.peer, next(self._numbers), now_ms)
        of_peer = sum(1 for s in self._sessions if s.peer == call.peer)
        if rules.limits and rules.connections_of == "address" and of_peer >= rules.connections:
            return 429
        self._sessions[session] = None
        return session

    def call(self, call: Call, now_ms: int) -> Response | None:
        self.trading.tick(now_ms)
        response = self._desk.call(call, now_ms)
        self._streams.tell(now_ms)
        return response

    def caller(self, call: Call) -> str:
        """Whose portfolio is asked about; else the first of the token's."""
        login = self._desk.caller(call, self._heard_ms)
        if login is None:
            return ""
        named = [c.name for p, c in login.customers.items() if p in call.target or p.encode() in call.body]
        return named[0] if named else login.names()[0]

    def settle(self, now_ms: int) -> None:
        self.trading.settle(now_ms)
        self.trading.stirred.update(self.trading.listings)
        self.trading.tick(now_ms)
        self._streams.tell(now_ms)

    def tick(self, now_ms: int) -> None:
        self._heard_ms = now_ms
        while self._later and self._later[0][0] <= now_ms:
            heappop(self._later)[2](now_ms)
            self._streams.tell(now_ms)
        self.trading.tick(now_ms)
        self._streams.tell(now_ms)
        self._streams.tick(now_ms)

    def drain(self) -> list[Outgoing]:
        sent, self._outbox = self._outbox, []
        return sent

    def command(self, kind: str, accounts: Sequence[str], detail: Mapping[str, str], now_ms: int) -> int:
        chosen = [self.customers[name] for name in accounts]
        match kind:
            case "kill_key":
                for login in {c.login.login: c.login for c in chosen}.values():
                    self.tokens.revoke(login)
                done = len(chosen)
            case "new_key":
                for login in {c.login.login: c.login for c in chosen}.values():
                    self.tokens.renew_refresh(login, _uuid(self._rng))
                done = len(chosen)
            case "cancel_all":
                done = sum(self.trading.cancel_everything(c, stops, now_ms) for c in chosen for stops in (False, True))
            case "liquidate":
                symbol = self.symbol(detail["instrument"])
                done = sum(self.trading.liquidate(c, symbol, now_ms) for c in chosen)
            case _:
                raise KeyError(kind)
        self.settle(now_ms)
        return done

    def symbol(self, instrument: str) -> str:
        for listing in LISTINGS:
            if instrument in (listing.symbol, listing.name):
                return listing.symbol
        raise KeyError(instrument)

    def place_elsewhere(self, account: str, order: Mapping[str, object], now_ms: int) -> Mapping[str, object]:
        """In the broker's own terminal. `order` uses the venue's words; instrument and type are understood as well."""
        listing = self.trading.listings[self.symbol(str(order.get("instrument") or order.get("symbol")))]
        words = {k: v for k, v in order.items() if k not in ("instrument", "symbol", "type", "quantity", "price")}
        kind = str(order.get("type") or ("limit" if order.get("price") else "market")).lower()
        body = {
            **words,
            "instrument": {"symbol": listing.symbol, "exchange": "MOEX", "instrumentGroup": listing.board},
            "quantity": int(Decimal(str(order.get("quantity", 1)))),
        }
        if order.get("price") is not None:
            body["price"] = Decimal(str(order["price"]))
        try:
            number, said = self._commands.carry_out(self.customers[account], "create", kind, "", body, now_ms)
        except Turned as turned:
            return {"httpCode": turned.status, "message": turned.text}
        self._streams.tell(now_ms)
        return {"httpCode": 200, "message": said, "orderNumber": number}

    def transfer(self, account: str, currency: str, amount: Decimal, now_ms: int) -> None:
        """Money, or units of what is listed, by their symbol."""
        self.trading.transfer(self.customers[account], currency, amount, now_ms)
        self._streams.tell(now_ms)

    def account(self, name: str) -> Truth:
        return truth_of(self.customers[name])

    def truth(self, kind: str, account: str) -> list[dict[str, object]]:
        if kind == "connections":
            return [
                {
                    "account": ", ".join(s.accounts),
                    "path": s.path,
                    "connection": s.number,
                    "opened_ms": s.opened_ms,
                    "channels": sorted({x.kind for x in s.subscriptions.values()}),
                }
                for s in self._sessions
                if account == "" or account in s.accounts
            ]
        names = [account] if account else list(self.customers)
        return [{"account": n, **row} for n in names for row in self._true_rows(kind, self.customers[n])]

    def _true_rows(self, kind: str, customer: Customer) -> list[Row]:
        marks = self.exchange.marks
        match kind:
            case "orders":
                orders = [order_row(customer, o, False) for o in customer.orders.values()]
                return [*orders, *(stop_row(customer, s, False) for s in customer.stops.values())]
            case "fills":
                return [trade_row(customer, t, False) for t in customer.trades]
            case "positions":
                return [
                    position_row(customer, h, marks[s], False, pair_rows=True)
                    for s, h in customer.holdings.items()
                    if h.quantity
                ]
            case "balances":
                return [money_row(customer, currency, amount, False) for currency, amount in customer.cash.items()]
            case _:
                raise KeyError(kind)

    # ---- What a session says

    def hear(self, session: AlorSession, frame: bytes, now_ms: int) -> None:
        self._heard_ms = now_ms
        self.trading.tick(now_ms)
        try:
            said = decode(frame)
        except msgspec.MsgspecError:
            self._say(session, "", 400, UNREADABLE, now_ms)
            return
        opcode, guid = said.get("opcode"), said.get("guid")
        if not isinstance(guid, str) or not 1 <= len(guid) <= _LONGEST_GUID:
            self._say(session, guid if isinstance(guid, str) else "", 400, "Guid has to have 1 to 50 symbols", now_ms)
            if self.rules.long_guid_closes:
                self._close(session, 1008, "guid")
            return
        if session.path == CWS:
            self._hear_command(session, str(opcode), guid, said, now_ms)
        else:
            self._hear_subscription(session, str(opcode), guid, said, now_ms)

    # ---- Orders

    def _hear_command(self, session: AlorSession, opcode: str, guid: str, said: Mapping[str, Any], now_ms: int) -> None:
        if guid in session.guids:
            self._say(session, guid, 400, REPEATED, now_ms)
            self._close(session, 1008, "repeated guid")
            return
        session.guids.add(guid)
        if opcode == "authorize":
            self._authorise(session, guid, str(said.get("token", "")), now_ms)
            return
        if session.login is None:
            if self.rules.frame_before_close:
                self._say(session, guid, 401, "Unauthorized", now_ms)
            self._close(session, 1008, "unauthorized")
            return
        if now_ms >= session.ends_ms:  # looked at only when something is said (§3.1)
            if self.rules.expired_resets:
                self._outbox.append(Outgoing(session, Sent.ABORT))
                self.forget(session)
                return
            self._say(session, guid, 401, BAD_TOKEN, now_ms)
            self._close(session, 1008, "token")
            return
        if opcode == "ping":
            if self.rules.ping_answered:
                self._say(session, guid, 200, "pong", now_ms, sent=Sent.PONG)
            return
        if opcode not in OPCODES:
            self._say(session, guid, 400, f"Unknown operation {opcode[:40]}", now_ms)
            if self.rules.unknown_opcode_closes:
                self._close(session, 1008, "opcode")
            return
        self._operate(session, session.login, opcode, guid, said, now_ms)

    def _authorise(self, session: AlorSession, guid: str, token: str, now_ms: int) -> None:
        held = self.tokens.holder(token, now_ms)
        struck = held and any(self.faults.strikes("refuse_login", name, now_ms) for name in held[0].names())
        if held is None or struck:
            self._say(session, guid, 401, BAD_TOKEN, now_ms)
            self._close(session, 1008, "token")
            return
        if not self._counted(session, held[0], guid, now_ms):
            return
        session.login, session.ends_ms = held
        session.accounts = held[0].names()
        self._say(session, guid, 200, "The connection has been initialized.", now_ms)

    def _operate(
        self, session: AlorSession, login: Login, opcode: str, guid: str, said: Mapping[str, Any], now_ms: int
    ) -> None:
        action, kind = OPCODES[opcode]
        try:
            customer = self._commands.whose(login, said)
            number = order_number(said.get("orderId")) if action != "create" else ""
        except Turned as turned:
            self._say(session, guid, turned.status, turned.text, now_ms)
            return
        name = customer.name

        def act(at_ms: int) -> None:
            try:
                new, words = self._commands.carry_out(customer, action, kind, number, said, at_ms)
                answer = (200, words, new)
            except Turned as turned:
                answer = (turned.status, turned.text, "")
            first = self.rules.acknowledge == "before" or (
                self.rules.acknowledge == "mixed" and self._rng.random() < 0.5
            )
            dropped = self.faults.strikes("drop_ack", name, at_ms) is not None
            if first and not dropped:
                self._reply(session, guid, answer, name)
            self._streams.tell(at_ms)
            if not first and not dropped:
                self._reply(session, guid, answer, name)

        if self.faults.strikes("drop_request", name, now_ms):
            return
        if late := self.faults.strikes("late", name, now_ms):
            self._put_off(now_ms + late.by_ms, act)
            return
        act(now_ms)

    def _reply(self, session: AlorSession, guid: str, answer: tuple[int, str, str], account: str) -> None:
        status, words, number = answer
        row: Row = {"requestGuid": guid, "httpCode": status, "message": words}
        if number:
            row["orderNumber"] = number
        self._outbox.append(Outgoing(session, Sent.REPLY, self._frame(row), account=account))

    # ---- Subscriptions

    def _hear_subscription(
        self, session: AlorSession, opcode: str, guid: str, said: Mapping[str, Any], now_ms: int
    ) -> None:
        token = str(said.get("token", ""))
        held = self.tokens.holder(token, now_ms)
        struck = held and any(self.faults.strikes("refuse_login", name, now_ms) for name in held[0].names())
        if held is None or struck:
            self._say(session, "" if self.rules.nameless_401 else guid, 401, BAD_TOKEN, now_ms)
            if self.rules.close_after_401:
                self._close(session, 1008, "token")
            return
        if opcode == "ping":
            if self.rules.ping_answered:
                self._say(session, guid, 200, "pong", now_ms, sent=Sent.PONG)
            return
        if opcode == "unsubscribe":
            known = session.subscriptions.pop(guid, None)
            if known is not None:
                self._streams.drop(known)
            self._say(session, guid, 200, "Handled successfully", now_ms)
            return
        try:
            if len(session.subscriptions) >= self.rules.subscriptions:
                raise Turned(400, "Subscriptions limit is exceeded")
            subscription = self._streams.subscription(session, said, held[0])
            customer = subscription.customer
            if customer is not None and not self.tokens.may(token, customer.portfolio):
                raise Turned(403, "No rights for this portfolio")
        except Turned as turned:
            self._say(session, guid, turned.status, turned.text, now_ms)
            return
        if not self._counted(session, held[0], guid, now_ms):
            return
        if customer is not None and customer.name not in session.accounts:
            session.accounts = [*session.accounts, customer.name]
        if (before := session.subscriptions.get(guid)) is not None:
            self._streams.drop(before)
        session.subscriptions[guid] = subscription
        self._streams.add(subscription)
        snapshot = self._streams.snapshot(subscription, now_ms)
        if not self.rules.snapshot_first:
            self._say(session, guid, 200, "Handled successfully", now_ms)
        for row in snapshot:
            self._push(session, row, guid, now_ms)
        if self.rules.snapshot_first:
            self._say(session, guid, 200, "Handled successfully", now_ms)

    def _counted(self, session: AlorSession, login: Login, guid: str, now_ms: int) -> bool:
        """Does the login have room for this connection? Where its connections are counted (§4.7)."""
        if not self.rules.limits or self.rules.connections_of != "login" or login.login in session.logins:
            return True
        if sum(1 for s in self._sessions if login.login in s.logins) >= self.rules.connections:
            self._say(session, guid, 400, "Connections limit is exceeded", now_ms)
            self._close(session, 1008, "connections")
            return False
        session.logins.add(login.login)
        return True

    # ---- Time and sending

    def _put_off(self, due_ms: int, act: Later) -> None:
        heappush(self._later, (due_ms, next(self._order_of_later), act))

    def _push(self, session: AlorSession, row: Row, guid: str, now_ms: int) -> None:
        subscription = session.subscriptions.get(guid)
        customer = subscription.customer if subscription is not None else None
        told = unsettled(row, self._rng, shuffled=self.rules.shuffled, numeric_ids=self.rules.numeric_ids)
        frame = self._frame({"data": told, "guid": guid})
        self._outbox.append(Outgoing(session, Sent.PUSH, frame, account=customer.name if customer else ""))

    def _say(
        self, session: AlorSession, guid: str, status: int, words: str, now_ms: int, *, sent: Sent = Sent.SAID
    ) -> None:
        frame = self._frame({"requestGuid": guid, "httpCode": status, "message": words})
        self._outbox.append(Outgoing(session, sent, frame))

    def _frame(self, row: Row) -> str:
        return encode(
            unsettled(row, self._rng, shuffled=self.rules.shuffled, numeric_ids=self.rules.numeric_ids)
        ).decode()

    def _close(self, session: AlorSession, code: int, reason: str) -> None:
        self._outbox.append(Outgoing(session, Sent.CLOSE, code=code, reason=reason))
        self.forget(session)

    def forget(self, session: AlorSession) -> None:
        session.open = False
        self._sessions.pop(session, None)
        for subscription in session.subscriptions.values():
            self._streams.drop(subscription)
        session.subscriptions.clear()


STAGE = Stage(
    doors={"oauth": "oauth", "api": "api", "cws": "cws", "ws": "ws"},
    entries=lambda line: [
        Entry(
            name=row["name"],
            ref=f"{row['exchange']}:{row['portfolio']}",
            credentials={"refresh_token": row["refresh_token"]},
        )
        for row in line["accounts"]
    ],
    instrument="SBER/RUB",
    channels={
        "ws": (
            *("orders", "stoporders", "trades", "positions", "summaries", "risks"),
            *(f"quotes:{x.name}" for x in LISTINGS),
        ),
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
) -> AlorFront:
    """A venue with customers alor-01, alor-02, …, several to a login: all of them follows from the seed.

    `either` decides by chance what the dossier leaves unconfirmed.
    """
    if either is not None:
        rules = drawn(either, limits=limits)
    rules = rules or Rules(limits=limits)
    logins: list[Login] = []
    width = max(2, len(str(accounts)))
    for number in range(1, accounts + 1):
        if (number - 1) % rules.portfolios_per_login == 0:
            of = len(logins) + 1
            logins.append(Login(f"P0{10_000 + of}", _uuid(random.Random(f"alor login {seed} {of}"))))
        portfolio = f"D{10_000 + number}"
        customer = Customer(f"alor-{number:0{width}d}", "MOEX", portfolio, logins[-1])
        logins[-1].customers[portfolio] = customer
    made = AlorFront(logins, seed, faults, rules)
    chance = random.Random(f"alor opening {seed}")
    for customer in made.customers.values():
        made.transfer(customer.name, "RUB", Decimal(chance.randrange(1000, 5001) * 1000), now_ms)
        made.transfer(customer.name, "SBER", Decimal(chance.randrange(10, 101) * 10), now_ms)
    made.tick(now_ms)
    return made


def _uuid(chance: random.Random) -> str:
    text = f"{chance.getrandbits(128):032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
