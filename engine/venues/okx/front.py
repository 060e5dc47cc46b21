"""Decides. OKX from the other side: what its server says to whoever connects, sans I/O (OKX dossier §2, §5, §13).

`front()` makes one. Sessions hear frames, calls are answered, `tick` lets time pass, `drain` gives what is to be sent.
Everything follows from the seed and the times given. What the venue leaves unconfirmed is a switch in `Rules`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from heapq import heappop, heappush
from itertools import count
from typing import Any

import msgspec

from engine.core.matching import Exchange
from engine.core.truth import Truth
from engine.core.venue import Call, Entry, Faults, Outgoing, Quoted, Response, Sent, Stage
from engine.core.windows import Windows
from engine.venues.okx.front_channels import (
    BUSINESS,
    CHANNELS,
    COUNTED,
    PRIVATE,
    PUBLIC,
    Channels,
    Subscription,
    arg_key,
    regular_ms,
)
from engine.venues.okx.front_orders import MOST, OPERATIONS, Later, OrderDesk, Row
from engine.venues.okx.front_rest import RestDesk, same, sign
from engine.venues.okx.front_rows import balance_row, fill_row, order_row, position_row, text
from engine.venues.okx.front_rules import HOUR_MS, LISTINGS, Rules, Turned, drawn, told
from engine.venues.okx.front_state import ZERO, Customer
from engine.venues.okx.front_trading import Trading
from engine.venues.okx.front_truth import truth_of
from engine.venues.okx.sign import FIELDS
from engine.venues.okx.symbols import symbol_of

_SWEEP_MS = 500  # how often idle times and repeated pushes are looked at
_encode = msgspec.json.encode


class OkxSession:
    """One accepted WebSocket."""

    def __init__(self, front: OkxFront, path: str, peer: str, conn_id: str, now_ms: int) -> None:
        self.path, self.peer, self.conn_id = path, peer, conn_id
        self.accounts: Sequence[str] = ()
        self.subprotocol = ""
        self.customer: Customer | None = None
        self.subscriptions: dict[tuple[str, ...], Subscription] = {}
        self.opened_ms = self.sent_ms = now_ms
        self.closes_at_ms: int | None = None
        self.open = True
        self._front = front

    def hear(self, frame: bytes, now_ms: int) -> None:
        if self.open:
            self._front.hear(self, frame, now_ms)

    def gone(self) -> None:
        self._front.forget(self)

    def __repr__(self) -> str:
        return f"OkxSession({self.path}, {''.join(self.accounts) or 'not logged in'}, {self.conn_id})"


class OkxFront:
    """The venue's server."""

    codes: Mapping[str, Sequence[str]] = {
        "refuse_login": ("60009", "63999", "50001"),
        "drop_ack": ("", "50004"),
        "drop_request": ("", "50004"),
    }
    paths: Mapping[str, str] = {"ws_public": PUBLIC, "ws_private": PRIVATE, "ws_business": BUSINESS}
    rests: Mapping[str, str] = {"rest": ""}

    def __init__(self, customers: Sequence[Customer], seed: int, faults: Faults, rules: Rules) -> None:
        self.rules, self.faults = rules, faults
        self._rng = random.Random(f"okx front {seed}")
        self.exchange = Exchange(tuple(listing.inst_id for listing in LISTINGS))
        self.exchange.marks.update({listing.inst_id: listing.start for listing in LISTINGS})
        self.quoted = tuple(
            Quoted(symbol=x.inst_id, path=x.base, start=x.start, tick=x.tick, depth=x.depth, lot=x.lot)
            for x in LISTINGS
        )
        self.trading = Trading(self.exchange, LISTINGS, rules, self._rng)
        self.trading.customers.update({customer.name: customer for customer in customers})
        self._by_key = {customer.api_key: customer for customer in customers}
        self.windows = Windows()
        self._orders = OrderDesk(self.trading, rules, self.windows, faults)
        self._rest = RestDesk(self.trading, self._orders, rules, self.windows, faults, self._by_key, self._put_off)
        self._channels = Channels(self.trading, self._rest.reads, rules, faults)
        self._sessions: dict[OkxSession, None] = {}
        self._members: dict[str, dict[OkxSession, None]] = {}  # an account's sessions
        self._outbox: list[Outgoing] = []
        self._later: list[tuple[int, int, Later]] = []
        self._order_of_later = count()
        self._swept_ms = 0

    # ---- The contract of a front

    def describe(self) -> Mapping[str, object]:
        return {"accounts": self.accounts()}

    def accounts(self) -> Sequence[Mapping[str, str]]:
        return [
            {"name": c.name, "api_key": c.api_key, "secret": c.secret, "passphrase": c.passphrase}
            for c in self.trading.customers.values()
        ]

    def accept(self, call: Call, now_ms: int) -> OkxSession | int:
        path, peer = call.target.partition("?")[0], call.peer
        if path not in self.paths.values():
            return 404
        if self.rules.limits and not self.windows.admit("opens", peer, self.rules.connects_per_s, 1000, now_ms):
            return self.rules.connect_refusal
        session = OkxSession(self, path, peer, f"{self._rng.getrandbits(32):08x}", now_ms)
        self._sessions[session] = None
        return session

    def call(self, call: Call, now_ms: int) -> Response | None:
        response = self._rest.call(call, now_ms)
        self._channels.tell(now_ms)
        return response

    def caller(self, call: Call) -> str:
        customer = self._rest.caller(call)
        return customer.name if customer else ""

    def settle(self, now_ms: int) -> None:
        self.trading.settle(now_ms)
        self.trading.stirred.update(self.trading.listings)
        self._channels.tell(now_ms)

    def tick(self, now_ms: int) -> None:
        while self._later and self._later[0][0] <= now_ms:
            heappop(self._later)[2](now_ms)
            self._channels.tell(now_ms)
        self._channels.tick(now_ms)
        if now_ms - self._swept_ms >= _SWEEP_MS:
            self._swept_ms = now_ms
            self._sweep(now_ms)

    def drain(self) -> list[Outgoing]:
        sent, self._outbox = self._outbox, []
        return sent

    def command(self, kind: str, accounts: Sequence[str], detail: Mapping[str, str], now_ms: int) -> int:
        match kind:
            case "notice":
                return self._notice(accounts, float(detail.get("seconds", "60")), now_ms)
            case "kill_key":
                return self._kill_keys(accounts)
            case "new_key":
                return self._new_keys(accounts)
            case "cancel_all":
                done = sum(
                    self.trading.cancel_everything(self.trading.customers[name], "", "1", now_ms) for name in accounts
                )
                self.settle(now_ms)
                return done
            case "liquidate":
                done = sum(
                    self.trading.liquidate(self.trading.customers[name], self.symbol(detail["instrument"]), now_ms)
                    for name in accounts
                )
                self._channels.tell(now_ms)
                return done
            case "funding":
                done = self.trading.fund(self.symbol(detail["instrument"]), Decimal(detail["rate"]), now_ms)
                self._channels.tell(now_ms)
                return done
            case _:
                raise KeyError(kind)

    def symbol(self, instrument: str) -> str:
        if instrument in self.trading.listings:
            return instrument
        with suppress(ValueError):
            if (symbol := symbol_of(instrument)) in self.trading.listings:
                return symbol
        raise KeyError(instrument)

    def place_elsewhere(self, account: str, order: Mapping[str, object], now_ms: int) -> Mapping[str, object]:
        """`order` uses the venue's own words; instrument, type, quantity and price are understood as well."""
        words = {"instrument": "instId", "type": "ordType", "quantity": "sz", "price": "px"}
        ask: dict[str, Any] = {words.get(k, k): v for k, v in order.items()}
        ask["instId"] = self.symbol(str(ask.get("instId")))
        ask.setdefault("ordType", "limit" if ask.get("px") else "market")
        ask.setdefault("tdMode", "cash" if self.trading.listings[ask["instId"]].spot else "cross")
        if ask["ordType"] == "market":
            ask.setdefault("tgtCcy", "base_ccy")
        code, rows = self._orders.carry_out(self.trading.customers[account], "order", [ask], now_ms, by_code=False)
        self._channels.tell(now_ms)
        return {"code": code, **rows[0]}

    def transfer(self, account: str, currency: str, amount: Decimal, now_ms: int) -> None:
        self.trading.transfer(self.trading.customers[account], currency, amount, now_ms)
        self._channels.tell(now_ms)

    def truth(self, kind: str, account: str) -> list[dict[str, object]]:
        if kind == "connections":
            return [
                {
                    "account": _account(s),
                    "path": s.path,
                    "connId": s.conn_id,
                    "opened_ms": s.opened_ms,
                    "channels": sorted({x.channel for x in s.subscriptions.values()}),
                }
                for s in self._sessions
                if account in ("", _account(s))
            ]
        names = [account] if account else list(self.trading.customers)
        return [{"account": n, **row} for n in names for row in self._true_rows(kind, self.trading.customers[n])]

    def account(self, name: str) -> Truth:
        return truth_of(self.trading.customers[name])

    def _true_rows(self, kind: str, customer: Customer) -> list[Row]:
        match kind:
            case "orders":
                return [order_row(o) for o in customer.orders.values()]
            case "fills":
                return [fill_row(f) for f in customer.fills]
            case "positions":
                return [
                    position_row(p, self.exchange.marks[p.listing.inst_id], None, p.updated_ms)
                    for p in customer.positions.values()
                    if p.quantity
                ]
            case "balances":
                return [
                    {**balance_row(c, held), "held": text(customer.held.get(c, ZERO))}
                    for c, held in customer.cash.items()
                ]
            case _:
                raise KeyError(kind)

    # ---- What a session says

    def hear(self, session: OkxSession, frame: bytes, now_ms: int) -> None:
        if frame == b"ping":
            self._send(session, Sent.PONG, "pong", now_ms)
            return
        try:
            said = msgspec.json.decode(frame)
            op = str(said["op"])
        except (msgspec.DecodeError, TypeError, KeyError):
            self._error(session, "60012", now_ms, None, frame[:200].decode("utf-8", "replace"))
            return
        asked = said.get("id")
        try:
            if op == "login":
                self._count_request(session, now_ms)
                self._login(session, said, now_ms)
            elif op in ("subscribe", "unsubscribe"):
                self._count_request(session, now_ms)
                self._subscribe(session, said, op, now_ms)
            elif op in OPERATIONS:
                self._operate(session, said, op, now_ms)
            elif op == "mass-cancel":
                rows: list[Row] = [{"result": True}]  # it is for options, and here are none
                self._send(session, Sent.REPLY, _json(id=asked, op=op, code="0", msg="", data=rows), now_ms)
            else:
                raise Turned("60019", op)
        except Turned as turned:
            if op in OPERATIONS:
                reply = _json(id=asked, op=op, code=turned.code, msg=turned.text, data=[])
                self._send(session, Sent.REPLY, reply, now_ms)
            else:
                self._error_frame(session, turned.code, turned.text, now_ms, asked)

    def _count_request(self, session: OkxSession, now_ms: int) -> None:
        limit = self.rules.session_requests_per_hour
        if self.rules.limits and not self.windows.admit("requests of a connection", session, limit, HOUR_MS, now_ms):
            raise Turned("60014")

    def _login(self, session: OkxSession, said: Mapping[str, Any], now_ms: int) -> None:
        if session.customer is not None:
            raise Turned("60031")
        try:
            customer = self._checked_login(said, now_ms)
            refusal = self.faults.strikes("refuse_login", customer.name, now_ms)
            if refusal:
                raise Turned(refusal.code or "60009")
        except Turned as turned:
            self._error_frame(session, turned.code, turned.text, now_ms, said.get("id"))
            if self.rules.close_after_failed_login:
                self._close(session, 4001, "Login failed")
            return
        session.customer, session.accounts = customer, (customer.name,)
        self._members.setdefault(customer.name, {})[session] = None
        self._send(session, Sent.SAID, _json(event="login", code="0", msg="", connId=session.conn_id), now_ms)

    def _checked_login(self, said: Mapping[str, Any], now_ms: int) -> Customer:
        args = said.get("args")
        if not isinstance(args, list) or len(args) != 1 or not isinstance(args[0], dict):
            raise Turned("60013")
        arg = args[0]
        stamp = str(arg.get("timestamp", ""))  # some clients send a number
        try:
            stamp_ms = float(stamp) * 1000
        except ValueError:
            raise Turned("60004") from None
        if not arg.get("apiKey"):
            raise Turned("60005")
        customer = self._by_key.get(str(arg["apiKey"]))
        if customer is None:
            raise Turned("60032")
        if abs(now_ms - stamp_ms) > self.rules.signature_window_ms:
            raise Turned("60006")
        if not same(str(arg.get("passphrase", "")), customer.passphrase):
            raise Turned("60024")
        expected = sign(customer.secret, stamp + "GET" + "/users/self/verify")
        if not same(str(arg.get("sign", "")), expected):
            raise Turned("60007")
        return customer

    def _subscribe(self, session: OkxSession, said: Mapping[str, Any], op: str, now_ms: int) -> None:
        args = said.get("args")
        if not isinstance(args, list) or not args or not all(map(_is_arg, args)):
            raise Turned("60012", _encode(said).decode())
        for arg in args:
            try:
                self._check_arg(session, arg)
                if op == "subscribe":
                    self._subscribe_one(session, arg, said.get("id"), now_ms)
                else:
                    subscription = session.subscriptions.pop(arg_key(arg), None)
                    if subscription:
                        self._channels.unsubscribe(subscription)
                    self._acknowledge(session, op, arg, said.get("id"), now_ms)
            except Turned as turned:
                self._error_frame(session, turned.code, turned.text, now_ms, said.get("id"))

    def _check_arg(self, session: OkxSession, arg: Mapping[str, Any]) -> None:
        channel = str(arg["channel"])
        known = CHANNELS.get(channel)
        if known is None:
            raise Turned("60018", f"channel:{channel}")
        path, private, needed = known
        if path != session.path:
            if path == BUSINESS:
                raise Turned("64001")
            raise Turned("64002" if session.path == BUSINESS else "60018", f"channel:{channel}")
        if private and session.customer is None:
            raise Turned("60011")
        for name in needed:
            if not arg.get(name):
                raise Turned("60027", name)
        if arg.get("instId") and arg["instId"] not in self.trading.listings:
            raise Turned("60018", f"channel:{channel}, instId:{arg['instId']}")
        if channel == "fills" and not self.rules.vip:
            raise Turned("64003")

    def _subscribe_one(self, session: OkxSession, arg: Mapping[str, Any], asked: Any, now_ms: int) -> None:
        shown = {k: str(v) for k, v in arg.items() if k != "extraParams"}
        private = CHANNELS[str(arg["channel"])][1]
        subscription = Subscription(
            shown,
            session.customer if private else None,
            regular_ms(arg, self.rules),
            now_ms,
            lambda frame, at_ms: self._send(session, Sent.PUSH, frame.decode(), at_ms),
        )
        before = session.subscriptions.get(arg_key(arg))
        if before:
            self._channels.unsubscribe(before)
        session.subscriptions[arg_key(arg)] = subscription
        self._channels.subscribe(subscription, now_ms)
        self._acknowledge(session, "subscribe", arg, asked, now_ms)
        if not self._count_connections(session, subscription, now_ms):
            return
        self._channels.greet(subscription, now_ms)

    def _count_connections(self, session: OkxSession, subscription: Subscription, now_ms: int) -> bool:
        """Say how many connections listen to the channel; too many end this one's subscription (§2.6)."""
        channel = subscription.channel
        if channel not in COUNTED:
            return True
        same = sum(
            1
            for other in self._members[_account(session)]
            if any(s.channel == channel for s in other.subscriptions.values())
        )
        most = self.rules.channel_connections
        fits = same <= most or not self.rules.limits
        event = "channel-conn-count" if fits else "channel-conn-count-error"
        frame = _json(event=event, channel=channel, connCount=str(same if fits else most), connId=session.conn_id)
        self._send(session, Sent.SAID, frame, now_ms)
        if not fits:
            session.subscriptions.pop(arg_key(subscription.arg), None)
            self._channels.unsubscribe(subscription)
        return fits

    def _acknowledge(self, session: OkxSession, event: str, arg: Mapping[str, Any], asked: Any, now_ms: int) -> None:
        shown = arg if self.rules.echo_extra_params else {k: v for k, v in arg.items() if k != "extraParams"}
        self._send(session, Sent.SAID, _json(id=asked, event=event, arg=shown, connId=session.conn_id), now_ms)

    # ---- Orders over a session

    def _operate(self, session: OkxSession, said: Mapping[str, Any], op: str, now_ms: int) -> None:
        if session.path != PRIVATE:
            raise Turned("60028")
        customer = session.customer
        if customer is None:
            raise Turned("60011")
        asked, asks = said.get("id"), said.get("args")
        if not isinstance(asked, str) or not (1 <= len(asked) <= 32 and asked.isascii() and asked.isalnum()):
            raise Turned("60013")
        if not isinstance(asks, list) or not asks or not all(isinstance(a, dict) for a in asks):
            raise Turned("60013")
        if len(asks) > (MOST if OPERATIONS[op][1] else 1):
            raise Turned("60013")
        expires = str(said.get("expTime") or "")
        expires_ms = int(expires) if expires.isdecimal() else None
        name = customer.name

        def act(at_ms: int, late: bool = False) -> None:
            code, rows = self._orders.carry_out(
                customer, op, asks, at_ms, by_code=True, expires_ms=expires_ms, late=late
            )
            reply = _json(id=asked, op=op, code=code, msg="", data=rows, inTime=f"{now_ms}111", outTime=f"{at_ms}999")
            if not OPERATIONS[op][1] and rows[0]["sCode"] == "50011":
                reply = _json(id=asked, op=op, code="60014", msg=told("60014"), data=[])
            first = self.rules.acknowledge == "before" or (
                self.rules.acknowledge == "mixed" and self._rng.random() < 0.5
            )
            dropped = self.faults.strikes("drop_ack", name, at_ms) is not None
            if first and not dropped:
                self._send(session, Sent.REPLY, reply, at_ms)
            self._channels.tell(at_ms)
            if not first and not dropped:
                self._send(session, Sent.REPLY, reply, at_ms)

        if self.faults.strikes("drop_request", name, now_ms):
            return
        if late := self.faults.strikes("late", name, now_ms):
            self._put_off(now_ms + late.by_ms, lambda at_ms: act(at_ms, True))
            return
        act(now_ms)

    # ---- Time

    def _put_off(self, due_ms: int, act: Later) -> None:
        heappush(self._later, (due_ms, next(self._order_of_later), act))

    def _sweep(self, now_ms: int) -> None:
        for session in list(self._sessions):
            if session.closes_at_ms is not None and now_ms >= session.closes_at_ms:
                self._close(session, 1001, "service upgrade")
            elif now_ms - session.sent_ms >= self.rules.idle_close_ms:
                # What keeps a session alive is what the venue sends: a push, an answer, a pong (§2.3).
                self._close(session, 4004, "No data received in 30s.")
        for customer in self.trading.customers.values():
            for tag, due_ms in list(customer.timers.items()):
                if now_ms >= due_ms:
                    del customer.timers[tag]
                    self.trading.cancel_everything(customer, tag, "20", now_ms)
        self._channels.tell(now_ms)
        self._channels.regular(now_ms)

    def _notice(self, accounts: Sequence[str], seconds: float, now_ms: int) -> int:
        everyone = len(accounts) == len(self.trading.customers)
        told_to = [
            s
            for s in self._sessions
            if s.path != BUSINESS and (_account(s) in accounts or (everyone and not _account(s)))
        ]
        for session in told_to:
            frame = _json(event="notice", code="64008", msg=told("64008"), connId=session.conn_id)
            self._send(session, Sent.SAID, frame, now_ms)
            session.closes_at_ms = now_ms + round(seconds * 1000)
        return len(told_to)

    def _kill_keys(self, accounts: Sequence[str]) -> int:
        for name in accounts:
            self._by_key.pop(self.trading.customers[name].api_key, None)
        for session in [s for s in self._sessions if _account(s) in accounts]:
            self._close(session, 4007, "API key has been updated or deleted.")
        return len(accounts)

    def _new_keys(self, accounts: Sequence[str]) -> int:
        """Their owners make new keys; what was logged in with the old ones stays so until those are deleted."""
        for name in accounts:
            customer = self.trading.customers[name]
            customer.api_key = f"{customer.api_key[:-4]}{self._rng.getrandbits(16):04x}"
            self._by_key[customer.api_key] = customer
        return len(accounts)

    # ---- Sending

    def _send(self, session: OkxSession, sent: Sent, frame: str, now_ms: int) -> None:
        session.sent_ms = now_ms
        self._outbox.append(Outgoing(session, sent, frame))

    def _error(self, session: OkxSession, code: str, now_ms: int, asked: Any, *details: object) -> None:
        self._error_frame(session, code, told(code, *details), now_ms, asked)

    def _error_frame(self, session: OkxSession, code: str, message: str, now_ms: int, asked: Any) -> None:
        """Errors name no argument (§2.5): only the id, if there was one, tells what they are about."""
        frame = _json(id=asked, event="error", code=code, msg=message, connId=session.conn_id)
        self._send(session, Sent.SAID, frame, now_ms)

    def _close(self, session: OkxSession, code: int, reason: str) -> None:
        self._outbox.append(Outgoing(session, Sent.CLOSE, code=code, reason=reason))
        self.forget(session)

    def forget(self, session: OkxSession) -> None:
        session.open = False
        self._sessions.pop(session, None)
        for account in session.accounts:
            self._members.get(account, {}).pop(session, None)
        for subscription in session.subscriptions.values():
            self._channels.unsubscribe(subscription)
        session.subscriptions.clear()


def _account(session: OkxSession) -> str:
    return session.accounts[0] if session.accounts else ""


def _is_arg(arg: Any) -> bool:
    """Is it something that can be subscribed to: a channel and texts that narrow it?"""
    return isinstance(arg, dict) and "channel" in arg and all(isinstance(v, str) for v in arg.values())


def _json(**fields: Any) -> str:
    """A frame; an `id` that was not given is not answered."""
    if fields.get("id", "") is None:
        del fields["id"]
    return _encode(fields).decode()


STAGE = Stage(
    doors={"rest": "rest", "private": "ws_private", "public": "ws_public", "business": "ws_business"},
    entries=lambda line: [Entry(name=row["name"], credentials={f: row[f] for f in FIELDS}) for row in line["accounts"]],
    instrument="BTC/USDT:USDT",
    channels={"public": ("mark-price:BTC/USDT:USDT", "tickers:BTC/USDT:USDT", "instruments:SWAP")},
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
) -> OkxFront:
    """A venue with customers demo-01, demo-02, …: keys, opening cash and ids all follow from the seed.

    `either` decides by chance what the dossier leaves unconfirmed.
    """
    if either is not None:
        rules = drawn(either, limits=limits)
    customers = [_customer(number, accounts, seed) for number in range(1, accounts + 1)]
    made = OkxFront(customers, seed, faults, rules or Rules(limits=limits))
    chance = random.Random(f"okx opening cash {seed}")
    for customer in customers:
        made.transfer(customer.name, "USDT", Decimal(chance.randrange(50, 501) * 1000), now_ms)
        made.transfer(customer.name, "BTC", Decimal(chance.randrange(10, 31)) / 10, now_ms)
    return made


def _customer(number: int, accounts: int, seed: int) -> Customer:
    chance = random.Random(f"okx customer {seed} {number}")
    width = max(2, len(str(accounts)))
    key = f"{chance.getrandbits(128):032x}"
    return Customer(
        name=f"demo-{number:0{width}d}",
        uid=str(77_000_000 + number),
        api_key="-".join((key[:8], key[8:12], key[12:16], key[16:20], key[20:])),
        secret=f"{chance.getrandbits(128):032X}",
        passphrase=f"Pass-{chance.getrandbits(48):012x}",
    )
