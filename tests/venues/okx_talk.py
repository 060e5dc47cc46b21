"""A client's side of OKX for tests, written apart from our dialect, and a floor to trade on. No sockets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from engine.core.facts import Side
from engine.core.orders import OrderType
from engine.core.venue import Call, Response, Sent
from engine.sim.faults import FaultPlan
from engine.venues.okx.front import OkxSession, front
from engine.venues.okx.front_rules import Rules

PRIVATE, PUBLIC, BUSINESS = "/ws/v5/private", "/ws/v5/public", "/ws/v5/business"
SWAP, SPOT, INVERSE = "ETH-USDT-SWAP", "BTC-USDT", "BTC-USD-SWAP"
CODES = {SWAP: 10459, SPOT: 1001, INVERSE: 10460}
START_MS = 1_767_225_600_000

Json = dict[str, Any]


def signature(secret: str, text: str) -> str:
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()


def wants(path: str, peer: str) -> Call:
    """A WebSocket handshake."""
    return Call(method="GET", target=path, peer=peer)


class Floor:
    """A front, a clock, and a house that quotes what it is told to."""

    def __init__(self, accounts: int = 2, **rules: Any) -> None:
        self.now_ms = START_MS
        self.faults = FaultPlan()
        self.rules = Rules(**{"acknowledge": "before", "market_final_zero_fill": False, **rules})
        self.front = front(accounts=accounts, seed=1, now_ms=self.now_ms, faults=self.faults, rules=self.rules)
        self.keys = {account["name"]: account for account in self.front.accounts()}
        self.talks: list[Talk] = []
        self.peer = 0
        self._house = 0

    def quote(self, symbol: str = SWAP, bid: str = "2499", ask: str = "2501", size: str = "100") -> None:
        self.house(symbol, "buy", size, bid)
        self.house(symbol, "sell", size, ask)

    def house(self, symbol: str, side: str, size: str, price: str, kind: OrderType = OrderType.LIMIT) -> None:
        self._house += 1
        book = self.front.exchange.books[symbol]
        book.submit(f"~{self._house}", "~house", Side(side), kind, Decimal(size), Decimal(price))
        self.front.settle(self.now_ms)
        self.carry()

    def connect(self, path: str = PRIVATE, peer: str = "") -> Talk:
        self.peer += 1
        session = self.front.accept(wants(path, peer or f"10.0.0.{self.peer}"), self.now_ms)
        assert isinstance(session, OkxSession), f"refused with {session}"
        talk = Talk(self, session)
        self.talks.append(talk)
        return talk

    def member(self, account: str = "demo-01", *channels: Json) -> Talk:
        """A private connection that is logged in and subscribed; what it heard on the way is dropped."""
        talk = self.connect()
        talk.login(account)
        if channels:
            talk.say({"op": "subscribe", "args": list(channels)})
        talk.heard()
        return talk

    def buy_elsewhere(self) -> None:
        """demo-01 buys a little at the market, on the venue's own page."""
        self.front.place_elsewhere("demo-01", {"instrument": SWAP, "side": "buy", "quantity": "0.01"}, self.now_ms)
        self.carry()

    def pass_ms(self, milliseconds: int, step_ms: int = 0) -> None:
        end = self.now_ms + milliseconds
        while self.now_ms < end:
            self.now_ms = min(end, self.now_ms + (step_ms or milliseconds))
            self.front.tick(self.now_ms)
            self.carry()

    def carry(self) -> None:
        for outgoing in self.front.drain():
            talk = next(t for t in self.talks if t.session is outgoing.session)
            if outgoing.sent is Sent.CLOSE:
                talk.closed = (outgoing.code, outgoing.reason)
            else:
                assert isinstance(outgoing.frame, str), "OKX speaks text"
                talk.frames.append(outgoing.frame)

    def call(
        self,
        method: str,
        target: str,
        body: Any = None,
        account: str = "demo-01",
        skew_ms: int = 0,
        **headers: str,
    ) -> tuple[int, Json]:
        response = self.raw_call(method, target, body, account, skew_ms, **headers)
        assert response is not None, "an answer was expected"
        return response.status, json.loads(response.body)

    def raw_call(
        self,
        method: str,
        target: str,
        body: Any = None,
        account: str = "demo-01",
        skew_ms: int = 0,
        **headers: str,
    ) -> Response | None:
        """`headers` replace what a proper client would send ('_' stands for '-'); "" leaves one out."""
        key, text = self.keys[account], "" if body is None else json.dumps(body)
        stamp = datetime.fromtimestamp((self.now_ms + skew_ms) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        target = f"/api/v5/{target}"
        sent = {
            "ok-access-key": key["api_key"],
            "ok-access-passphrase": key["passphrase"],
            "ok-access-timestamp": stamp,
            "ok-access-sign": signature(key["secret"], stamp + method + target + text),
            "x-simulated-trading": "1",
        }
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        call = Call(method=method, target=target, headers={k: v for k, v in sent.items() if v}, body=text.encode())
        response = self.front.call(call, self.now_ms)
        self.carry()
        return response

    def rows(self, target: str, account: str = "demo-01") -> list[Json]:
        status, body = self.call("GET", target, account=account)
        assert (status, body["code"]) == (200, "0"), body
        rows: list[Json] = body["data"]
        return rows


class Talk:
    """One connection as its client sees it."""

    def __init__(self, floor: Floor, session: OkxSession) -> None:
        self.floor, self.session = floor, session
        self.frames: list[str] = []
        self.closed: tuple[int, str] | None = None
        self._asked = 0

    def say(self, frame: Json | str) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        self.session.hear(text.encode(), self.floor.now_ms)
        self.floor.carry()

    def login(self, account: str = "demo-01", **changes: Any) -> None:
        key = self.floor.keys[account]
        stamp = changes.pop("timestamp", str(self.floor.now_ms // 1000))
        sign = signature(key["secret"], f"{stamp}GET/users/self/verify")
        arg = {"apiKey": key["api_key"], "passphrase": key["passphrase"], "timestamp": stamp, "sign": sign}
        self.say({"op": "login", "args": [{**arg, **changes}]})

    def heard(self) -> list[Json]:
        """Every frame since the last time, read."""
        frames, self.frames = self.frames, []
        return [{"text": f} if f == "pong" else json.loads(f) for f in frames]

    def pushes(self, channel: str) -> list[Json]:
        """Rows pushed on a channel since the last time; other frames are dropped."""
        frames = [f for f in self.heard() if f.get("arg", {}).get("channel") == channel and "data" in f]
        return [row for frame in frames for row in frame["data"]]

    def operate(self, op: str, *args: Json, **top: Any) -> str:
        self._asked += 1
        asked = f"p{self._asked}"
        self.say({"id": asked, "op": op, "args": list(args), **top})
        return asked

    def answer(self) -> Json:
        """The answer to the last operation."""
        answers = [f for f in self.heard() if "op" in f]
        assert len(answers) == 1, answers
        return answers[0]

    def place(self, symbol: str = SWAP, **ask: Any) -> Json:
        """Place an order and return its row."""
        self.operate("order", order(symbol, **ask))
        row: Json = self.answer()["data"][0]
        return row


def order(symbol: str = SWAP, **ask: Any) -> Json:
    """A limit order to buy one, unless told otherwise."""
    mode = "cash" if symbol == SPOT else "cross"
    return {
        "instIdCode": CODES[symbol],
        "tdMode": mode,
        "side": "buy",
        "ordType": "limit",
        "px": "2400",
        "sz": "1",
    } | ask


ORDERS = {"channel": "orders", "instType": "ANY"}
POSITIONS = {"channel": "positions", "instType": "ANY", "extraParams": '{"updateInterval": "0"}'}
ACCOUNT = {"channel": "account", "extraParams": '{"updateInterval": "0"}'}
BOTH = {"channel": "balance_and_position"}
