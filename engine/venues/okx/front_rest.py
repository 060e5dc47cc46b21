"""Decides. The OKX front over HTTP: who asks, how often, and what is done or shown (OKX dossier §6)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from engine.core.venue import Call, Faults, Response
from engine.core.windows import Windows
from engine.venues.okx.front_orders import MOST, Later, OrderDesk, Row
from engine.venues.okx.front_reads import Params, Reads
from engine.venues.okx.front_rules import Rules, Turned, told
from engine.venues.okx.front_state import Customer, View
from engine.venues.okx.front_trading import StateTold, Trading

_JSON = {"content-type": "application/json"}
_POSTED = {
    "/api/v5/trade/order": "order",
    "/api/v5/trade/batch-orders": "batch-orders",
    "/api/v5/trade/cancel-order": "cancel-order",
    "/api/v5/trade/cancel-batch-orders": "batch-cancel-orders",
    "/api/v5/trade/amend-order": "amend-order",
    "/api/v5/trade/amend-batch-orders": "batch-amend-orders",
}


class Denied(Exception):
    """An answer that is an error as a whole: HTTP status and the venue's code."""

    def __init__(self, status: int, code: str, *details: object) -> None:
        super().__init__(code)
        self.response = answer([], code=code, message=told(code, *details), status=status)


def answer(rows: Sequence[Any], *, code: str = "0", message: str = "", status: int = 200, **more: str) -> Response:
    body = msgspec.json.encode({"code": code, "msg": message, "data": rows, **more})
    return Response(status=status, body=body, headers=_JSON)


def sign(secret: str, text_to_sign: str) -> str:
    """Base64 of HMAC-SHA256 (dossier §2.2, §6.1)."""
    return base64.b64encode(hmac.digest(secret.encode(), text_to_sign.encode(), hashlib.sha256)).decode()


def same(given: str, secret: str) -> bool:
    """Do they agree? It takes as long whether they do or not."""
    return hmac.compare_digest(given.encode(), secret.encode())


class Rate(msgspec.Struct, frozen=True):
    """`limit` calls in `window_ms`: of an account, or of an address where no key is needed."""

    limit: int
    window_ms: int = 2000


class RestDesk:
    """Answers REST requests. `later(due_ms, act)` puts off what a fault makes late."""

    def __init__(
        self,
        trading: Trading,
        orders: OrderDesk,
        rules: Rules,
        windows: Windows,
        faults: Faults,
        customers_by_key: Mapping[str, Customer],
        later: Callable[[int, Later], None],
    ) -> None:
        self.trading, self.orders, self.rules, self.windows = trading, orders, rules, windows
        self.reads = Reads(trading, rules)
        self.faults, self.by_key, self.later = faults, customers_by_key, later
        self._public: dict[str, tuple[Rate, Callable[[Params, int], list[Row]]]] = {
            "/api/v5/public/time": (Rate(10), lambda p, now: [{"ts": str(now)}]),
            "/api/v5/public/instruments": (Rate(20), self.reads.instruments),
            "/api/v5/public/mark-price": (Rate(10), self.reads.mark_prices),
            "/api/v5/market/tickers": (Rate(20), self.reads.tickers),
            "/api/v5/market/ticker": (Rate(20), self.reads.ticker),
            "/api/v5/market/books": (Rate(40), self.reads.depth),
            "/api/v5/system/status": (Rate(1, 5000), lambda p, now: []),
        }
        self._private: dict[str, tuple[Rate, Callable[[Customer, View, Params, int], list[Row]]]] = {
            "/api/v5/trade/order": (Rate(60), self.reads.order),
            "/api/v5/trade/orders-pending": (Rate(60), self.reads.pending),
            "/api/v5/trade/orders-history": (Rate(40), self.reads.history),
            "/api/v5/trade/orders-history-archive": (Rate(20), self.reads.archive),
            "/api/v5/trade/fills": (Rate(60), self.reads.fills),
            "/api/v5/trade/fills-history": (Rate(10), self.reads.fills_history),
            "/api/v5/trade/account-rate-limit": (Rate(1, 1000), self.reads.rate_limit),
            "/api/v5/account/balance": (Rate(10), self.reads.balance),
            "/api/v5/account/positions": (Rate(10), self.reads.positions),
            "/api/v5/account/account-position-risk": (Rate(10), self.reads.risk),
            "/api/v5/account/bills": (Rate(5, 1000), self.reads.bills),
            "/api/v5/account/bills-archive": (Rate(5), self.reads.bills_archive),
            "/api/v5/account/config": (Rate(5), self.reads.config),
            "/api/v5/account/leverage-info": (Rate(20), self.reads.leverage),
            "/api/v5/account/instruments": (Rate(20), lambda c, v, p, now: self.reads.instruments(p, now)),
            "/api/v5/account/trade-fee": (Rate(5), self.reads.trade_fee),
            "/api/v5/asset/currencies": (Rate(6, 1000), self.reads.currencies),
        }

    def caller(self, call: Call) -> Customer | None:
        return self.by_key.get(call.headers.get("ok-access-key", ""))

    def call(self, call: Call, now_ms: int) -> Response | None:
        """The answer; None when none ever comes."""
        customer = self.caller(call)
        name = customer.name if customer else ""
        if self.faults.strikes("html_502", name, now_ms):
            page = b"<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"
            return Response(status=502, body=page, headers={"content-type": "text/html"})
        if self.faults.strikes("rate_429", name, now_ms):
            return Response(status=429, body=b'{"msg":"Requests too frequent.","code":50011}', headers=_JSON)
        try:
            return self._route(call, now_ms)
        except Denied as denied:
            return denied.response
        except Turned as turned:
            status = 400 if turned.code in ("50014", "51000") else 200
            return answer([], code=turned.code, message=turned.text, status=status)

    # ---- Who asks, how often, what

    def _route(self, call: Call, now_ms: int) -> Response | None:
        path, _, query = call.target.partition("?")
        params = dict(parse_qsl(query))
        if path in self._public and call.method == "GET":
            rate, read = self._public[path]
            self._admit(rate, path, (call.peer, params.get("instType", "")), now_ms)
            return answer(read(params, now_ms))
        known = path in self._private if call.method == "GET" else path in (*_POSTED, *self._posts())
        if not known:
            return Response(status=404, body=b'{"msg":"Not Found","code":"404"}', headers=_JSON)
        customer = self._authenticate(call, now_ms)
        if call.method == "GET":
            rate_user, read_user = self._private[path]
            per = params.get("instId", "") if path == "/api/v5/trade/order" else params.get("instType", "")
            if path not in ("/api/v5/trade/order", "/api/v5/account/instruments"):
                per = ""
            self._admit(rate_user, path, (customer.name, per), now_ms)
            return answer(read_user(customer, self._view(customer, now_ms), params, now_ms))
        try:
            body = msgspec.json.decode(call.body)
        except msgspec.DecodeError:
            raise Turned("51000", "body") from None
        if path in _POSTED:
            return self._operate(customer, _POSTED[path], body, call, now_ms)
        if not isinstance(body, dict):
            raise Turned("51000", "body")
        rate, post = self._posts()[path]
        self._admit(rate, path, (customer.name, str(body.get("tag", ""))), now_ms)
        return answer(post(customer, body, now_ms))

    def _posts(self) -> dict[str, tuple[Rate, Callable[[Customer, Mapping[str, Any], int], list[Row]]]]:
        return {
            "/api/v5/account/set-leverage": (Rate(20), self._set_leverage),
            "/api/v5/account/set-position-mode": (Rate(5), self._set_position_mode),
            "/api/v5/trade/cancel-all-after": (Rate(1, 1000), self._cancel_all_after),
        }

    def _admit(self, rate: Rate, path: str, who: Hashable, now_ms: int) -> None:
        rule = path.rpartition("/")[2]
        if self.rules.limits and not self.windows.admit(rule, who, rate.limit, rate.window_ms, now_ms):
            raise Denied(429, "50011")

    def _authenticate(self, call: Call, now_ms: int) -> Customer:
        headers = call.headers
        for header, code in (
            ("ok-access-key", "50103"),
            ("ok-access-passphrase", "50104"),
            ("ok-access-sign", "50106"),
            ("ok-access-timestamp", "50107"),
        ):
            if not headers.get(header):
                raise Denied(401, code)
        stamp = headers["ok-access-timestamp"]
        try:
            when = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        except ValueError:
            raise Denied(401, "50112") from None
        if abs(now_ms - round(when.timestamp() * 1000)) > self.rules.signature_window_ms:
            raise Denied(401, "50102")
        customer = self.caller(call)
        if customer is None:
            raise Denied(401, "50119")
        if (headers.get("x-simulated-trading") == "1") is not self.rules.demo:
            raise Denied(401, "50101")
        if not same(headers["ok-access-passphrase"], customer.passphrase):
            raise Denied(401, "50105")
        expected = sign(customer.secret, stamp + call.method + call.target + call.body.decode("utf-8", "replace"))
        if not same(headers["ok-access-sign"], expected):
            raise Denied(401, "50113")
        return customer

    def _view(self, customer: Customer, now_ms: int) -> View:
        lag = self.faults.strikes("read_lag", customer.name, now_ms)
        return customer.view(now_ms - lag.by_ms if lag else None)

    # ---- Orders

    def _operate(self, customer: Customer, operation: str, body: Any, call: Call, now_ms: int) -> Response | None:
        batch = operation.startswith("batch")
        asks: list[Any] = body if batch and isinstance(body, list) else [body]
        if len(asks) > MOST:
            raise Turned("51111", MOST)
        if not asks or not all(isinstance(ask, dict) for ask in asks):
            raise Turned("51000", "body")
        expires = call.headers.get("exptime", "")
        expires_ms = int(expires) if expires.isdecimal() else None

        def act(at_ms: int, late: bool = False) -> tuple[str, list[Row]]:
            return self.orders.carry_out(
                customer, operation, asks, at_ms, by_code=False, expires_ms=expires_ms, late=late
            )

        def silence(what: str) -> Response | None:
            return answer([], code="50004", message=told("50004")) if what == "50004" else None

        if fault := self.faults.strikes("drop_request", customer.name, now_ms):
            return silence(fault.what)
        if fault := self.faults.strikes("late", customer.name, now_ms):
            self.later(now_ms + fault.by_ms, lambda at_ms: act(at_ms, True) and None)
            return silence(fault.what)
        code, rows = act(now_ms)
        if fault := self.faults.strikes("drop_ack", customer.name, now_ms):
            return silence(fault.what)
        if not batch and rows[0]["sCode"] == "50011":
            raise Denied(429, "50011")
        message = "All operations failed" if code == "1" else ""
        micros = str(now_ms * 1000)
        return answer(rows, code=code, message=message, inTime=micros, outTime=micros)

    def _set_leverage(self, customer: Customer, body: Mapping[str, Any], now_ms: int) -> list[Row]:
        lever, mode = str(body.get("lever") or ""), str(body.get("mgnMode") or "")
        listing = self.reads.listing(str(body.get("instId") or ""))
        if mode not in ("cross", "isolated") or listing.spot:
            raise Turned("51000", "mgnMode")
        if not lever.isdecimal() or not 1 <= int(lever) <= listing.lever:
            raise Turned("51000", "lever")
        customer.levers[listing.family if mode == "cross" else listing.inst_id, mode] = int(lever)
        for key, position in list(customer.positions.items()):
            same = position.listing.family == listing.family if mode == "cross" else key[0] == listing.inst_id
            if key[1] == mode and same and position.quantity:
                customer.put_position(msgspec.structs.replace(position, lever=int(lever), updated_ms=now_ms))
                self.trading.told.append(StateTold(customer=customer, event="set_leverage", positions=(key,)))
        return [self.reads.lever_row(customer, listing, mode)]

    def _set_position_mode(self, customer: Customer, body: Mapping[str, Any], now_ms: int) -> list[Row]:
        if body.get("posMode") != "net_mode":
            raise Turned("51000", "posMode")
        return [{"posMode": "net_mode"}]

    def _cancel_all_after(self, customer: Customer, body: Mapping[str, Any], now_ms: int) -> list[Row]:
        seconds, tag = str(body.get("timeOut", "")), str(body.get("tag") or "")
        if not seconds.isdecimal() or not (int(seconds) == 0 or 10 <= int(seconds) <= 120):
            raise Turned("51000", "timeOut")
        due_ms = now_ms + int(seconds) * 1000
        if int(seconds):
            customer.timers[tag] = due_ms
        else:
            customer.timers.pop(tag, None)
        return [{"triggerTime": str(due_ms) if int(seconds) else "0", "tag": tag, "ts": str(now_ms)}]
