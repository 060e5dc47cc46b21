"""Decides. The OKX front over HTTP: signatures, limits, pages, and a row per thing (OKX dossier §6)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from engine.core.facts import Side
from engine.core.venue import Call, Faults, Response
from engine.venues.okx.front_orders import MOST, Later, OrderDesk, Row, Windows
from engine.venues.okx.front_rows import (
    Valuation,
    bill_row,
    fill_row,
    instrument_row,
    order_row,
    position_row,
    text,
)
from engine.venues.okx.front_rules import Listing, Rules, Turned, told
from engine.venues.okx.front_state import Bill, Customer, Fill, Order, View
from engine.venues.okx.front_trading import StateTold, Trading

T = TypeVar("T")
Params = Mapping[str, str]
_JSON = {"content-type": "application/json"}
_POSTED = {
    "/api/v5/trade/order": "order",
    "/api/v5/trade/batch-orders": "batch-orders",
    "/api/v5/trade/cancel-order": "cancel-order",
    "/api/v5/trade/cancel-batch-orders": "batch-cancel-orders",
    "/api/v5/trade/amend-order": "amend-order",
    "/api/v5/trade/amend-batch-orders": "batch-amend-orders",
}


class Refused(Exception):
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


class Rate(msgspec.Struct, frozen=True):
    """`limit` calls in `window_ms`, counted per address where `shared`."""

    limit: int
    window_ms: int = 2000
    shared: bool = False


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
        self.faults, self.by_key, self.later = faults, customers_by_key, later
        self._public: dict[str, tuple[Rate, Callable[[Params, int], list[Row]]]] = {
            "/api/v5/public/time": (Rate(10, shared=True), lambda p, now: [{"ts": str(now)}]),
            "/api/v5/public/instruments": (Rate(20, shared=True), self._instruments),
            "/api/v5/public/mark-price": (Rate(10, shared=True), self._mark_prices),
            "/api/v5/market/tickers": (Rate(20, shared=True), self._tickers),
            "/api/v5/market/ticker": (Rate(20, shared=True), self._ticker),
            "/api/v5/market/books": (Rate(40, shared=True), self._depth),
            "/api/v5/system/status": (Rate(1, 5000, shared=True), lambda p, now: []),
        }
        self._private: dict[str, tuple[Rate, Callable[[Customer, View, Params, int], list[Row]]]] = {
            "/api/v5/trade/order": (Rate(60), self._order),
            "/api/v5/trade/orders-pending": (Rate(60), self._pending),
            "/api/v5/trade/orders-history": (Rate(40), self._history),
            "/api/v5/trade/orders-history-archive": (Rate(20), self._archive),
            "/api/v5/trade/fills": (Rate(60), self._fills),
            "/api/v5/trade/fills-history": (Rate(10), self._fills_history),
            "/api/v5/trade/account-rate-limit": (Rate(1, 1000), self._rate_limit),
            "/api/v5/account/balance": (Rate(10), self._balance),
            "/api/v5/account/positions": (Rate(10), self._positions),
            "/api/v5/account/account-position-risk": (Rate(10), self._risk),
            "/api/v5/account/bills": (Rate(5, 1000), self._bills),
            "/api/v5/account/bills-archive": (Rate(5), self._bills_archive),
            "/api/v5/account/config": (Rate(5), self._config),
            "/api/v5/account/leverage-info": (Rate(20), self._leverage),
            "/api/v5/account/instruments": (Rate(20), lambda c, v, p, now: self._instruments(p, now)),
            "/api/v5/account/trade-fee": (Rate(5), self._trade_fee),
            "/api/v5/asset/currencies": (Rate(6, 1000), self._currencies),
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
        except Refused as refused:
            return refused.response
        except Turned as turned:
            status = 400 if turned.code in ("50014", "51000") else 200
            return answer([], code=turned.code, message=turned.text, status=status)

    # ---- Who asks, how often, what

    def _route(self, call: Call, now_ms: int) -> Response | None:
        path, _, query = call.target.partition("?")
        params = dict(parse_qsl(query))
        if path in self._public and call.method == "GET":
            rate, read = self._public[path]
            self._admit(rate, (path, call.peer, params.get("instType", "")), now_ms)
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
            self._admit(rate_user, (path, customer.name, per), now_ms)
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
        self._admit(rate, (path, customer.name, str(body.get("tag", ""))), now_ms)
        return answer(post(customer, body, now_ms))

    def _posts(self) -> dict[str, tuple[Rate, Callable[[Customer, Mapping[str, Any], int], list[Row]]]]:
        return {
            "/api/v5/account/set-leverage": (Rate(20), self._set_leverage),
            "/api/v5/account/set-position-mode": (Rate(5), self._set_position_mode),
            "/api/v5/trade/cancel-all-after": (Rate(1, 1000), self._cancel_all_after),
        }

    def _admit(self, rate: Rate, key: Hashable, now_ms: int) -> None:
        if self.rules.limits and not self.windows.admit(key, rate.limit, rate.window_ms, now_ms):
            raise Refused(429, "50011")

    def _authenticate(self, call: Call, now_ms: int) -> Customer:
        headers = call.headers
        for header, code in (
            ("ok-access-key", "50103"),
            ("ok-access-passphrase", "50104"),
            ("ok-access-sign", "50106"),
            ("ok-access-timestamp", "50107"),
        ):
            if not headers.get(header):
                raise Refused(401, code)
        stamp = headers["ok-access-timestamp"]
        try:
            when = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        except ValueError:
            raise Refused(401, "50112") from None
        if abs(now_ms - round(when.timestamp() * 1000)) > self.rules.signature_window_ms:
            raise Refused(401, "50102")
        customer = self.caller(call)
        if customer is None:
            raise Refused(401, "50119")
        if (headers.get("x-simulated-trading") == "1") is not self.rules.demo:
            raise Refused(401, "50101")
        if not hmac.compare_digest(headers["ok-access-passphrase"], customer.passphrase):
            raise Refused(401, "50105")
        expected = sign(customer.secret, stamp + call.method + call.target + call.body.decode("utf-8", "replace"))
        if not hmac.compare_digest(headers["ok-access-sign"], expected):
            raise Refused(401, "50113")
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
            raise Refused(429, "50011")
        message = "All operations failed" if code == "1" else ""
        micros = str(now_ms * 1000)
        return answer(rows, code=code, message=message, inTime=micros, outTime=micros)

    def _order(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        if not params.get("instId"):
            raise Turned("50014", "instId")
        ord_id, client_id = params.get("ordId", ""), params.get("clOrdId", "")
        if not ord_id and not client_id:
            raise Turned("50014", "ordId")
        found = customer.order(ord_id, client_id)
        order = view.orders.get(found.ord_id) if found else None
        if order is None or order.listing.inst_id != params["instId"] or not self._kept(order, now_ms, archive=False):
            raise Turned("51603")
        return [order_row(order)]

    def _kept(self, order: Order, now_ms: int, *, archive: bool) -> bool:
        """Is an ended order still in history? Cancelled without a fill: two hours only (§6.3)."""
        age = now_ms - order.updated_ms
        if order.open:
            return True
        if order.state == "canceled" and not order.filled:
            return not archive and age <= self.rules.unfilled_cancel_kept_ms
        return age <= self.rules.archive_ms

    def _pending(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        rows = [o for o in view.orders.values() if o.open]
        return self._order_page(rows, params)

    def _history(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        _required(params, "instType")
        oldest = now_ms - self.rules.history_ms
        rows = [
            o
            for o in view.orders.values()
            if not o.open and o.updated_ms >= oldest and self._kept(o, now_ms, archive=False)
        ]
        return self._order_page(rows, params)

    def _archive(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        _required(params, "instType")
        rows = [o for o in view.orders.values() if not o.open and self._kept(o, now_ms, archive=True)]
        return self._order_page(rows, params)

    def _order_page(self, orders: Iterable[Order], params: Params) -> list[Row]:
        def wanted(order: Order) -> bool:
            return (
                _product(order.listing, params)
                and params.get("state") in (None, "", order.state)
                and params.get("ordType") in (None, "", order.ord_type)
                and params.get("category") in (None, "", order.category)
            )

        chosen = [o for o in orders if wanted(o)]
        rows = self.page(chosen, params, lambda o: o.ord_id, lambda o: o.created_ms)
        return [order_row(o) for o in rows]

    def _fills(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        return self._fill_page(view.fills, params, now_ms - self.rules.fills_ms)

    def _fills_history(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        _required(params, "instType")
        return self._fill_page(view.fills, params, now_ms - self.rules.archive_ms)

    def _fill_page(self, fills: Sequence[Fill], params: Params, oldest_ms: int) -> list[Row]:
        def wanted(fill: Fill) -> bool:
            return (
                fill.at_ms >= oldest_ms
                and _product(fill.listing, params)
                and params.get("ordId") in (None, "", str(fill.ord_id))
                and params.get("subType") in (None, "", fill.sub_type)
            )

        chosen = [f for f in fills if wanted(f)]
        rows = self.page(chosen, params, lambda f: f.bill_id, lambda f: f.at_ms, from_begin=False)
        return [fill_row(f) for f in rows]

    def page(
        self,
        oldest_first: Sequence[T],
        params: Params,
        cursor: Callable[[T], int],
        at_ms: Callable[[T], int],
        from_begin: bool = True,
    ) -> list[T]:
        """One page, newest first (§6.2). `from_begin`: with only `begin`, the rows closest to it come first."""
        after, before = _integer(params, "after"), _integer(params, "before")
        begin, end = _integer(params, "begin"), _integer(params, "end")
        limit = min(_integer(params, "limit") or self.rules.page_rows, self.rules.page_rows)
        rows = [
            row
            for row in oldest_first
            if (begin is None or at_ms(row) >= begin)
            and (end is None or at_ms(row) <= end)
            and (after is None or cursor(row) < after)
            and (before is None or cursor(row) > before)
        ]
        if after is not None:
            closest_is_oldest = False
        elif before is not None:
            closest_is_oldest = True
        else:
            closest_is_oldest = begin is not None and end is None and from_begin
        return (rows[:limit] if closest_is_oldest else rows[-limit:])[::-1]

    # ---- The account

    def _balance(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        asked = [c for c in params.get("ccy", "").split(",") if c]
        currencies = asked or [c for c, held in view.cash.items() if held.amount]
        return [self._valuation().account_row(customer, view, currencies, now_ms)]

    def _positions(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        by_product = [p for p in params.get("instId", "").split(",") if p]
        by_id = [p for p in params.get("posId", "").split(",") if p]
        rows = []
        for position in reversed(list(view.positions.values())):
            listing = position.listing
            if by_id:
                wanted = str(position.pos_id) in by_id
            elif by_product:
                wanted = listing.inst_id in by_product
            else:
                wanted = bool(position.quantity) and params.get("instType") in (None, "", listing.inst_type)
            if wanted:
                book = self.trading.exchange.books[listing.inst_id]
                rows.append(position_row(position, self.trading.exchange.marks[listing.inst_id], book.last, now_ms))
        return rows

    def _risk(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        details = self._valuation().account_row(customer, view, view.cash, now_ms)["details"]
        return [
            {
                "adjEq": "",
                "ts": str(now_ms),
                "balData": [{"ccy": d["ccy"], "eq": d["eq"], "disEq": d["disEq"]} for d in details],
                "posData": self._positions(customer, view, params, now_ms),
            }
        ]

    def _bills(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        return self._bill_page(view.bills, params, now_ms - self.rules.history_ms)

    def _bills_archive(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        return self._bill_page(view.bills, params, now_ms - self.rules.archive_ms)

    def _bill_page(self, bills: Sequence[Bill], params: Params, oldest_ms: int) -> list[Row]:
        def wanted(bill: Bill) -> bool:
            inst_type = bill.listing.inst_type if bill.listing else ""
            return (
                bill.at_ms >= oldest_ms
                and params.get("instType") in (None, "", inst_type)
                and params.get("ccy") in (None, "", bill.ccy)
                and params.get("type") in (None, "", bill.kind)
                and params.get("subType") in (None, "", bill.sub_type)
            )

        chosen = [b for b in bills if wanted(b)]
        return [bill_row(b) for b in self.page(chosen, params, lambda b: b.bill_id, lambda b: b.at_ms)]

    def _config(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        return [
            {
                "uid": customer.uid,
                "mainUid": customer.uid,
                "acctLv": "2",
                "posMode": "net_mode",
                "acctStpMode": "cancel_maker",
                "autoLoan": False,
                "ctIsoMode": "automatic",
                "mgnIsoMode": "automatic",
                "greeksType": "PA",
                "level": "Lv5" if self.rules.vip else "Lv1",
                "levelTmp": "",
                "ip": "127.0.0.1",
                "perm": "read_only,trade",
                "label": customer.name,
                "roleType": "0",
                "type": "0",
                "kycLv": "3",
                "enableSpotBorrow": False,
                "opAuth": "1",
                "fieldOfTomorrow": "",
            }
        ]

    def _leverage(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        _required(params, "instId")
        _required(params, "mgnMode")
        return [
            self._lever_row(customer, self._listing(inst_id), params["mgnMode"])
            for inst_id in params["instId"].split(",")
        ]

    def _lever_row(self, customer: Customer, listing: Listing, mode: str) -> Row:
        lever = customer.lever(listing, mode, self.rules.default_lever)
        return {
            "instId": listing.inst_id,
            "mgnMode": mode,
            "posSide": "net",
            "lever": str(lever),
            "ccy": "",
        }

    def _set_leverage(self, customer: Customer, body: Mapping[str, Any], now_ms: int) -> list[Row]:
        lever, mode = str(body.get("lever") or ""), str(body.get("mgnMode") or "")
        listing = self._listing(str(body.get("instId") or ""))
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
        return [self._lever_row(customer, listing, mode)]

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

    def _trade_fee(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        _required(params, "instType")
        spot, rules = params["instType"] in ("SPOT", "MARGIN"), self.rules
        maker, taker = (rules.spot_maker_rate, rules.spot_taker_rate) if spot else (rules.maker_rate, rules.taker_rate)
        return [
            {
                "instType": params["instType"],
                "level": "Lv1",
                "maker": text(-maker),
                "taker": text(-taker),
                "makerU": "" if spot else text(-maker),
                "takerU": "" if spot else text(-taker),
                "makerUSDC": "",
                "takerUSDC": "",
                "category": "1",
                "delivery": "",
                "exercise": "",
                "fiat": [],
                "ts": str(now_ms),
            }
        ]

    def _rate_limit(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        rate = str(self.rules.account_rate)
        return [
            {
                "fillRatio": "",
                "mainFillRatio": "",
                "accRateLimit": rate,
                "nextAccRateLimit": rate,
                "ts": str(now_ms),
            }
        ]

    def _currencies(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        return [
            {
                "ccy": ccy,
                "name": ccy,
                "chain": f"{ccy}-Simulated",
                "canDep": False,
                "canWd": False,
                "canInternal": False,
                "mainNet": True,
                "minFee": "0",
                "maxFee": "0",
                "minWd": "0",
                "maxWd": "0",
                "wdTickSz": "8",
            }
            for ccy in ("BTC", "ETH", "USDT")
        ]

    # ---- Public

    def _instruments(self, params: Params, now_ms: int) -> list[Row]:
        _required(params, "instType")
        return [instrument_row(x) for x in self.trading.listings.values() if _product(x, params)]

    def _mark_prices(self, params: Params, now_ms: int) -> list[Row]:
        _required(params, "instType")
        marks = self.trading.exchange.marks
        return [
            {
                "instType": x.inst_type,
                "instId": x.inst_id,
                "markPx": text(marks[x.inst_id]),
                "ts": str(now_ms),
            }
            for x in self.trading.listings.values()
            if _product(x, params)
        ]

    def _tickers(self, params: Params, now_ms: int) -> list[Row]:
        _required(params, "instType")
        return [self.ticker_row(x, now_ms) for x in self.trading.listings.values() if _product(x, params)]

    def _ticker(self, params: Params, now_ms: int) -> list[Row]:
        return [self.ticker_row(self._listing(params.get("instId", "")), now_ms)]

    def ticker_row(self, listing: Listing, now_ms: int) -> Row:
        book = self.trading.exchange.books[listing.inst_id]
        bid, ask = book.at_best(Side.BUY), book.at_best(Side.SELL)
        return {
            "instType": listing.inst_type,
            "instId": listing.inst_id,
            "last": text(book.last),
            "lastSz": text(book.last_quantity) if book.last else "",
            "askPx": text(ask[0]) if ask else "",
            "askSz": text(ask[1]) if ask else "",
            "bidPx": text(bid[0]) if bid else "",
            "bidSz": text(bid[1]) if bid else "",
            "open24h": text(listing.start),
            "high24h": text(max(listing.start, book.last or listing.start)),
            "low24h": text(min(listing.start, book.last or listing.start)),
            "volCcy24h": "0",
            "vol24h": "0",
            "sodUtc0": text(listing.start),
            "sodUtc8": text(listing.start),
            "ts": str(now_ms),
            "fieldOfTomorrow": "",
        }

    def _depth(self, params: Params, now_ms: int) -> list[Row]:
        book = self.trading.exchange.books[self._listing(params.get("instId", "")).inst_id]
        most = min(_integer(params, "sz") or 1, 400)

        def side(which: Side) -> list[list[str]]:
            levels: dict[Decimal, tuple[Decimal, int]] = {}
            for resting in book.resting(which):
                if resting.price not in levels and len(levels) == most:
                    break
                quantity, count = levels.get(resting.price, (Decimal(0), 0))
                levels[resting.price] = (quantity + resting.remaining, count + 1)
            return [[text(px), text(quantity), "0", str(count)] for px, (quantity, count) in levels.items()]

        return [{"asks": side(Side.SELL), "bids": side(Side.BUY), "ts": str(now_ms)}]

    def _valuation(self) -> Valuation:
        return Valuation(self.trading.exchange.marks, self.trading.listings.values())

    def _listing(self, inst_id: str) -> Listing:
        listing = self.trading.listings.get(inst_id)
        if listing is None:
            raise Turned("51001")
        return listing


def _product(listing: Listing, params: Params) -> bool:
    family = params.get("instFamily") or params.get("uly")
    return (
        params.get("instType") in (None, "", listing.inst_type)
        and params.get("instId") in (None, "", listing.inst_id)
        and (not family or (not listing.spot and family == listing.family))
    )


def _required(params: Params, name: str) -> None:
    if not params.get(name):
        raise Turned("50014", name)


def _integer(params: Params, name: str) -> int | None:
    value = params.get(name)
    if not value:
        return None
    if not value.isdecimal():
        raise Turned("51000", name)
    return int(value)
