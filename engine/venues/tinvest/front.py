"""Decides. T-Invest from the other side: what its proxies say to whoever connects, sans I/O (dossier §2–§6, §9).

`front()` makes one. Sessions hear frames, calls are answered, `tick` lets time pass, `drain` gives what is to be sent.
Everything follows from the seed and the times given. What the venue leaves unconfirmed is a switch in `Rules`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from heapq import heappop, heappush
from itertools import count
from typing import Any

import msgspec

from engine.core.facts import OrderStatus, Side
from engine.core.matching import Exchange
from engine.core.truth import TrueFill, TrueOrder, Truth
from engine.core.venue import Call, Entry, Faults, Outgoing, Quoted, Response, Sent, Stage
from engine.core.windows import Windows
from engine.venues.tinvest import front_rows as rows
from engine.venues.tinvest.front_rest import CONTRACT, RestDesk
from engine.venues.tinvest.front_rules import LISTINGS, Rules, Turned, drawn
from engine.venues.tinvest.front_state import CANCELLED, FILL, PARTIAL, REJECTED, ZERO, Customer, Order
from engine.venues.tinvest.front_streams import MARKET, METHODS, Streams
from engine.venues.tinvest.front_trading import Asked, Trading

_ENTRY = "/ws/" + CONTRACT
_PER_LOGIN = 4  # accounts of one token
_SWEEP_MS = 250
_DOCUMENTED = (3, 4, 8, 16)

Later = Callable[[int], object]


class TInvestSession:
    """One accepted WebSocket: one method."""

    def __init__(self, front: TInvestFront, method: str, token: str, proto: bool, stream_id: str, now_ms: int) -> None:
        self.method, self.token, self.proto, self.stream_id = method, token, proto, stream_id
        self.accounts: Sequence[str] = ()
        self.subprotocol = ""
        self.customers: Sequence[Customer] = ()
        self.refs: frozenset[str] = frozenset()
        self.subscriptions: dict[Any, dict[str, Any]] = {}
        self.requests: list[int] = []
        self.started = self.counted = False
        self.open = True
        self.ping_ms = front.rules.ping_ms
        self.opened_ms = self.sent_ms = now_ms
        self.empty_since_ms: int | None = now_ms if method == MARKET else None
        self._front = front

    def hear(self, frame: bytes, now_ms: int) -> None:
        if self.open:
            self._front.hear(self, frame, now_ms)

    def gone(self) -> None:
        self._front.forget(self, ghost=True)

    def __repr__(self) -> str:
        return f"TInvestSession({self.method}, {self.stream_id})"


class TInvestFront:
    """The venue's server."""

    codes: Mapping[str, Sequence[str]] = {
        "refuse": ("30042", "30079", "exchange"),
        "amend_fails": ("30042", "30099"),
        "drop_ack": ("", "70002", "504"),
        "drop_request": ("", "70001", "504"),
        "late": ("", "70002", "504"),
    }
    paths: Mapping[str, str] = {"ws": "/ws/"}
    rests: Mapping[str, str] = {"rest": "/rest"}

    def __init__(self, customers: Sequence[Customer], seed: int, faults: Faults, rules: Rules) -> None:
        self.rules, self.faults = rules, faults
        self._rng = random.Random(f"tinvest front {seed}")
        self.exchange = Exchange(tuple(x.ticker for x in LISTINGS))
        self.exchange.marks.update({x.ticker: x.start for x in LISTINGS})
        self.quoted = tuple(
            Quoted(symbol=x.ticker, path=x.path, start=x.start, tick=x.tick, depth=x.depth, lot=Decimal(1))
            for x in LISTINGS
        )
        self.trading = Trading(self.exchange, LISTINGS, rules, self._rng)
        self.trading.customers.update({c.name: c for c in customers})
        self.tokens: dict[str, list[Customer]] = {}
        for customer in customers:
            self.tokens.setdefault(customer.token, []).append(customer)
        self.windows = Windows()
        self._sessions: dict[TInvestSession, None] = {}
        self._ghosts: list[tuple[int, str, str]] = []  # until when, whose, of which method
        self._outbox: list[Outgoing] = []
        self._later: list[tuple[int, int, Later]] = []
        self._order_of_later = count()
        self._swept_ms = self._now_ms = 0
        self._rest = RestDesk(self.trading, rules, self.windows, faults, self.tokens, self._put_off, self._open_streams)
        self._streams = Streams(
            self.trading, self.exchange, rules, faults, self._send_row, self._put_off, self._listening
        )

    # ---- The contract of a front

    def describe(self) -> Mapping[str, object]:
        return {"accounts": self.accounts()}

    def accounts(self) -> Sequence[Mapping[str, str]]:
        return [{"name": c.name, "account_id": c.account_id, "token": c.token} for c in self.trading.customers.values()]

    def accept(self, call: Call, now_ms: int) -> TInvestSession | int:
        """The token may stand in either place; a subprotocol need not be offered at all (dossier §2.2)."""
        method = call.target.partition("?")[0].removeprefix(_ENTRY)
        if not call.target.startswith(_ENTRY) or method not in METHODS:
            return 404
        offered = [p.strip() for p in call.headers.get("sec-websocket-protocol", "").split(",") if p.strip()]
        spoken = next((p for p in offered if p in ("json", "json-proto")), "")
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            token = next((p for p in offered if p not in ("json", "json-proto")), "")
        customers = self.tokens.get(token, [])
        refused = not customers or any(self.faults.strikes("refuse_login", c.name, now_ms) for c in customers[:1])
        if refused and self.rules.auth_by == "status":
            return 401
        session = TInvestSession(
            self, method, token, spoken == "json-proto", f"{self._rng.getrandbits(64):016x}", now_ms
        )
        session.customers = () if refused else customers
        session.subprotocol = spoken if self.rules.echo else ""
        self._sessions[session] = None
        return session

    def call(self, call: Call, now_ms: int) -> Response | None:
        self._now_ms = now_ms
        response = self._rest.call(call, now_ms)
        self._streams.tell(now_ms)
        self._due(now_ms)
        return response

    def caller(self, call: Call) -> str:
        return self._rest.caller(call)

    def settle(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self.trading.settle(now_ms)
        self.trading.look_at_stops(now_ms)
        self.trading.stirred.update(self.trading.listings)
        self._streams.tell(now_ms)
        self._due(now_ms)

    def tick(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._due(now_ms)
        self._streams.market.regular(now_ms, self._listening(MARKET))
        if now_ms - self._swept_ms >= _SWEEP_MS:
            self._swept_ms = now_ms
            self._sweep(now_ms)

    def drain(self) -> list[Outgoing]:
        sent, self._outbox = self._outbox, []
        return sent

    def command(self, kind: str, accounts: Sequence[str], detail: Mapping[str, str], now_ms: int) -> int:
        self._now_ms = now_ms
        customers = [self.trading.customers[name] for name in accounts]
        done = self._command(kind, customers, detail, now_ms)
        self._streams.tell(now_ms)
        self._due(now_ms)
        return done

    def _command(self, kind: str, customers: list[Customer], detail: Mapping[str, str], now_ms: int) -> int:
        match kind:
            case "notice":  # there is none: maintenance closes at once (dossier §2.3)
                met = [s for s in self._sessions if set(s.accounts) & {c.name for c in customers}]
                for session in met:
                    self._close(session, 1012, "service restart")
                return len(met)
            case "kill_key" | "new_key":
                for customer in customers:
                    self._withdraw(customer)
                    if kind == "new_key":
                        customer.token = f"t.{self._rng.getrandbits(256):064x}"
                        self.tokens[customer.token] = [customer]
                return len(customers)
            case "cancel_all":
                return sum(self._cancel_all(c, now_ms) for c in customers)
            case "liquidate":
                ticker = self.symbol(detail["instrument"])
                return sum(self.trading.liquidate(c, ticker, now_ms) for c in customers)
            case "funding":  # nearest to it is the clearing
                return self.trading.clear(self.symbol(detail["instrument"]), now_ms)
            case _:
                raise KeyError(kind)

    def _withdraw(self, customer: Customer) -> None:
        """Its token shows this account no more; the others of the login keep theirs."""
        left = [c for c in self.tokens.get(customer.token, []) if c is not customer]
        if left:
            self.tokens[customer.token] = left
        else:
            self.tokens.pop(customer.token, None)
        for session in [s for s in self._sessions if customer.account_id in s.refs]:
            self._close(session, 4016, "UNAUTHENTICATED")

    def _cancel_all(self, customer: Customer, now_ms: int) -> int:
        """As at the end of a session."""
        found = list(customer.open)
        for number in found:
            self.trading.cancel(customer, customer.orders[number], now_ms, "CANCELLED_BY_EXCHANGE")
        return len(found)

    def symbol(self, instrument: str) -> str:
        for x in LISTINGS:
            if instrument in (x.ticker, x.name, x.uid):
                return x.ticker
        raise KeyError(instrument)

    def place_elsewhere(self, account: str, order: Mapping[str, object], now_ms: int) -> Mapping[str, object]:
        """Words: instrument, side, quantity in lots, price and type where it is no market order."""
        self._now_ms = now_ms
        price = order.get("price")
        asked = Asked(
            listing=self.trading.listings[self.symbol(str(order.get("instrument")))],
            side=Side(str(order.get("side"))),
            kind="LIMIT" if price else "MARKET",
            in_force="FILL_AND_KILL" if order.get("type") == "ioc" else "DAY",
            lots=Decimal(str(order.get("quantity"))),
            price=Decimal(str(price)) if price else ZERO,
            request_id="",
            ours=False,
        )
        try:
            placed = self.trading.place(self.trading.customers[account], asked, now_ms)
        except Turned as turned:
            return {"code": turned.code, "message": turned.message}
        self._streams.tell(now_ms)
        self._due(now_ms)
        return {"code": "0", "orderId": str(placed.number)}

    def transfer(self, account: str, currency: str, amount: Decimal, now_ms: int) -> None:
        self._now_ms = now_ms
        self.trading.transfer(self.trading.customers[account], currency, amount, now_ms)
        self._streams.tell(now_ms)
        self._due(now_ms)

    # ---- The truth

    def account(self, name: str) -> Truth:
        customer = self.trading.customers[name]
        return Truth(
            # What the exchange refused was told as refused and never was an order.
            orders={_id_of(o): _true_order(o) for o in customer.orders.values() if o.state != REJECTED},
            fills={f.fill_id: f for o in customer.orders.values() for f in _true_fills(o)},
            positions={self.trading.listings[t].name: held.lots for t, held in customer.futures.items() if held.lots},
            cash=_true_cash(customer),
        )

    def truth(self, kind: str, account: str) -> list[dict[str, object]]:
        if kind == "connections":
            return [
                {
                    "account": name,
                    "path": _ENTRY + s.method,
                    "connId": s.stream_id,
                    "opened_ms": s.opened_ms,
                    "channels": [s.method.rpartition("/")[2]],
                }
                for s in self._sessions
                for name in (s.accounts or ("",))
                if account in ("", name)
            ]
        names = [account] if account else list(self.trading.customers)
        return [{"account": n, **row} for n in names for row in self._true_rows(kind, self.trading.customers[n])]

    def _true_rows(self, kind: str, customer: Customer) -> list[dict[str, object]]:
        match kind:
            case "orders":
                return [
                    {
                        **rows.order_row(o, self._now_ms + self.rules.number_lag_ms, self.rules),
                        "ordId": _id_of(o),
                        "clOrdId": o.request_id if o.ours else "",
                        "state": _STATES[_status(o)],
                        "accFillSz": str(o.executed),
                        "instId": o.listing.ticker,
                    }
                    for o in customer.orders.values()
                ]
            case "fills":
                return [
                    {
                        "instId": o.listing.ticker,
                        "tradeId": str(e.trade_id),
                        "ordId": _id_of(o),
                        "clOrdId": o.request_id if o.ours else "",
                        "side": o.side.value,
                        "fillSz": str(e.lots),
                        "fillPx": str(e.price),
                        "ts": str(e.at_ms),
                    }
                    for o in customer.orders.values()
                    for e in o.executions
                ]
            case "positions":
                return [
                    {"instId": ticker, "pos": str(held.lots), "avgPx": str(held.average), "posSide": "net"}
                    for ticker, held in customer.futures.items()
                    if held.lots
                ]
            case "balances":
                view = customer.view()
                return [
                    {"ccy": c, "cashBal": str(amount), "held": str(view.blocked_cash.get(c, ZERO))}
                    for c, amount in _true_cash(customer).items()
                ]
            case _:
                raise KeyError(kind)

    # ---- Sessions

    def hear(self, session: TInvestSession, frame: bytes, now_ms: int) -> None:
        self._now_ms = now_ms
        try:
            if not session.customers:
                raise Turned("40003")
            if not session.counted:
                if self.rules.limits and not self._streams.quota(self._open_streams(session.token), session.method):
                    raise Turned("80001")
                session.counted = True
            self._streams.hear(session, frame, now_ms)
        except Turned as turned:
            self._fail(session, turned)
        self._streams.tell(now_ms)
        self._due(now_ms)

    def _fail(self, session: TInvestSession, turned: Turned) -> None:
        """An error frame, and the end of the stream. Where the five digits stand is unconfirmed (dossier §2.4)."""
        place = self.rules.vendor_code
        message = f"{turned.code} {turned.message}" if place == "message" else turned.message
        details = [{"@type": "type", "code": turned.code}] if place == "details" else []
        status: dict[str, Any] = {"code": turned.grpc, "message": message, "details": details}
        self._send_row(session, Sent.SAID, {"error": status} if self.rules.error_shape == "wrapped" else status, "")
        known = self.rules.close_codes == "all" or turned.grpc in _DOCUMENTED
        self._close(session, 4000 + turned.grpc if known else 1011, turned.code if place == "reason" else "")

    def _listening(self, method: str) -> Sequence[TInvestSession]:
        return [s for s in self._sessions if s.method == method and s.started]

    def _open_streams(self, token: str) -> dict[str, int]:
        """By method, the ghosts of broken ones among them (dossier §2.6)."""
        self._ghosts = [g for g in self._ghosts if g[0] > self._now_ms]
        found, user = dict.fromkeys(METHODS, 0), self._user(token)
        for session in self._sessions:
            if self._user(session.token) == user and session.counted:
                found[session.method] += 1
        for _, whose, method in self._ghosts:
            if whose == user:
                found[method] += 1
        return found

    def _user(self, token: str) -> str:
        """Places are counted by person, whatever tokens he has."""
        customers = self.tokens.get(token)
        return customers[0].user if customers else token

    # ---- Time

    def _put_off(self, due_ms: int, act: Later) -> None:
        heappush(self._later, (due_ms, next(self._order_of_later), act))

    def _due(self, now_ms: int) -> None:
        while self._later and self._later[0][0] <= now_ms:
            heappop(self._later)[2](now_ms)
            self._streams.tell(now_ms)

    def _sweep(self, now_ms: int) -> None:
        rules = self.rules
        for session in list(self._sessions):
            if rules.lifetime_ms and now_ms - session.opened_ms >= rules.lifetime_ms:
                self._fail(session, Turned("80005"))
            elif session.empty_since_ms is not None and now_ms - session.empty_since_ms >= rules.empty_market_ms:
                self._fail(session, Turned("80004"))
            elif session.started and now_ms - session.sent_ms >= session.ping_ms:
                self._send_row(session, Sent.PONG, {"ping": {"time": rows.stamp(now_ms, 9), "streamId": ""}}, "")

    # ---- Sending

    def _send_row(self, session: TInvestSession, sent: Sent, row: dict[str, Any], account: str) -> None:
        """In the spelling of the session's subprotocol."""
        session.sent_ms = self._now_ms
        said = rows.sparing(row, self.rules)
        frame = msgspec.json.encode(rows.snake(said) if session.proto else said).decode()
        self._outbox.append(Outgoing(session, sent, frame, account=account))

    def _close(self, session: TInvestSession, code: int, reason: str) -> None:
        self._outbox.append(Outgoing(session, Sent.CLOSE, code=code, reason=reason))
        self.forget(session, ghost=False)

    def forget(self, session: TInvestSession, *, ghost: bool) -> None:
        """One that broke off, or was closed by the client, holds its place for a while."""
        session.open = False
        if self._sessions.pop(session, 0) is None and ghost and session.counted:
            self._ghosts.append((self._now_ms + self.rules.ghost_ms, self._user(session.token), session.method))


_STATES = {
    OrderStatus.WORKING: "live",
    OrderStatus.FILLED: "filled",
    OrderStatus.CANCELLED: "canceled",
    OrderStatus.REJECTED: "rejected",
}


def _status(order: Order) -> OrderStatus:
    if order.open:
        return OrderStatus.WORKING
    ended = {FILL: OrderStatus.FILLED, CANCELLED: OrderStatus.CANCELLED, PARTIAL: OrderStatus.CANCELLED}
    return ended.get(order.state, OrderStatus.REJECTED)


def _id_of(order: Order) -> str:
    """What the exchange refused never got a number."""
    return order.internal_id if order.state == REJECTED else str(order.number)


def _true_order(order: Order) -> TrueOrder:
    return TrueOrder(
        venue_order_id=_id_of(order),
        client_order_id=order.request_id if order.ours else "",
        status=_status(order),
        filled=order.executed,
    )


def _true_fills(order: Order) -> list[TrueFill]:
    return [
        TrueFill(
            fill_id=f"{order.listing.uid}:{e.trade_id}:{order.side.value}",
            venue_order_id=str(order.number),
            instrument=order.listing.name,
            quantity=e.lots,
            price=e.price,
        )
        for e in order.executions
    ]


def _true_cash(customer: Customer) -> dict[str, Decimal]:
    """Money, and what is held of securities as the dialect counts it: bonds in hundredths of their face."""
    worth = {x.base: x.worth for x in LISTINGS if not x.future}
    return {**customer.cash, **{base: pieces * worth[base] for base, pieces in customer.pieces.items()}}


STAGE = Stage(
    doors={
        "rest": "rest",
        **dict.fromkeys(("orders", "positions", "trades", "portfolio", "operations", "marketdata"), "ws"),
    },
    entries=lambda line: [
        Entry(name=row["name"], ref=row["account_id"], credentials={"token": row["token"]}) for row in line["accounts"]
    ],
    instrument="SBER/RUB",
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
) -> TInvestFront:
    """A venue with accounts tinvest-01, tinvest-02, …, four to a token; all of it follows from the seed.

    `either` decides by chance what the dossier leaves unconfirmed.
    """
    if either is not None:
        rules = drawn(either, limits=limits)
    customers = [_customer(number, accounts, seed) for number in range(1, accounts + 1)]
    made = TInvestFront(customers, seed, faults, rules or Rules(limits=limits))
    chance = random.Random(f"tinvest opening cash {seed}")
    for customer in customers:
        customer.keep_view(now_ms - 1)
        made.transfer(customer.name, "RUB", Decimal(chance.randrange(50, 501) * 10_000), now_ms)
        customer.pieces["SBER"] = Decimal(chance.randrange(10, 100) * 10)
        customer.keep_view(now_ms)
    return made


def _customer(number: int, accounts: int, seed: int) -> Customer:
    login = (number - 1) // _PER_LOGIN
    width = max(2, len(str(accounts)))
    token = f"t.{random.Random(f'tinvest login {seed} {login}').getrandbits(256):064x}"
    return Customer(f"tinvest-{number:0{width}d}", str(2_000_000_000 + number), token)
