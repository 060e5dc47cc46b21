"""Decides. The ALOR front over HTTP: tokens, reads of an account, history, securities, orders (ALOR dossier §2, §5)."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

from engine.core.venue import Call, Faults, Response
from engine.core.windows import Windows
from engine.venues.alor.front_commands import KINDS, Commands, decode, order_number
from engine.venues.alor.front_rows import (
    Row,
    book_row,
    encode,
    formatted,
    forts_risk_row,
    iso,
    money_row,
    order_row,
    position_row,
    quote_row,
    risk_row,
    security_row,
    stop_row,
    summary_row,
    trade_row,
    unsettled,
)
from engine.venues.alor.front_rules import UNREADABLE, Listing, Rules, Turned
from engine.venues.alor.front_state import Customer, Login, Order, Stop, View
from engine.venues.alor.front_streams import Prices
from engine.venues.alor.front_tokens import Tokens
from engine.venues.alor.front_trading import Trading

Params = Mapping[str, str]
Later = Callable[[int], object]

_JSON = {"content-type": "application/json"}
_ORDERS = "/commandapi/warptrans/trade/v2/client/orders"
_BAD_GATEWAY = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


def _answer(body: Any, status: int = 200) -> Response:
    return Response(status=status, body=encode(body), headers=_JSON)


class Desk:
    """Answers HTTP requests. `later(due_ms, act)` puts off what a fault makes late."""

    def __init__(
        self,
        trading: Trading,
        commands: Commands,
        tokens: Tokens,
        prices: Prices,
        rules: Rules,
        windows: Windows,
        faults: Faults,
        rng: random.Random,
        later: Callable[[int, Later], None],
    ) -> None:
        self.trading, self.commands, self.tokens, self.prices = trading, commands, tokens, prices
        self.rules, self.windows, self.faults, self._rng, self._later = rules, windows, faults, rng, later
        self._seen: dict[tuple[str, str], Response] = {}  # by login and X-REQID

    def caller(self, call: Call, now_ms: int) -> Login | None:
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        held = self.tokens.holder(token, now_ms)
        return held[0] if held else None

    def call(self, call: Call, now_ms: int) -> Response | None:
        path, _, query = call.target.partition("?")
        params = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
        if path == "/refresh":
            return self._refresh(call, params, now_ms)
        login = self.caller(call, now_ms)
        customer = self._named(login, path, params, call)
        name = customer.name if customer else next(iter(login.names()), "") if login else ""
        if self.faults.strikes("html_502", name, now_ms):
            return Response(status=502, body=_BAD_GATEWAY, headers={"content-type": "text/html"})
        if self.faults.strikes("rate_429", name, now_ms):
            return _answer({"message": "Too many requests"}, 429)
        if login is None:
            return Response(status=401, body=b"", headers={})
        try:
            if path.lower().startswith(_ORDERS):
                return self._operate(call, login, path, params, now_ms)
            if self.rules.limits and not self.windows.admit("reads", login.login, self.rules.reads_per_s, 1000, now_ms):
                raise Turned(429, "Too many requests")
            if call.method != "GET":
                raise Turned(405, "Method not allowed")
            return self._read(call, login, [unquote(p) for p in path.strip("/").split("/")], params, now_ms)
        except Turned as turned:
            told = {"code": turned.code, "message": turned.text} if turned.code else {"message": turned.text}
            return _answer(told, turned.status)

    # ---- Tokens

    def _refresh(self, call: Call, params: Params, now_ms: int) -> Response:
        if call.method != "POST":
            return Response(status=405, body=b"", headers={})
        if self._rng.random() < self.rules.refresh_502:
            return Response(status=502, body=_BAD_GATEWAY, headers={"content-type": "text/html"})
        refresh, allowed = params.get("token", ""), None
        if call.body:  # it wins over the query (§2.2)
            try:
                body = {name.lower(): value for name, value in decode(call.body).items()}
            except msgspec.MsgspecError:
                return _answer(UNREADABLE, 400)
            refresh = str(body.get("token", ""))
            allowed = body.get("allowedportfolios")
        elif "allowedPortfolios" in params:
            allowed = msgspec.json.decode(params["allowedPortfolios"], type=list[str])
        if self.rules.limits and not self.windows.admit("refresh", refresh, self.rules.refreshes_per_s, 1000, now_ms):
            return _answer({"message": "Too many requests"}, 429)
        token = self.tokens.issue(refresh, allowed if isinstance(allowed, list) else None, now_ms)
        if token is None:
            return _answer({"message": "Refresh token is invalid"}, 403)
        return _answer({"AccessToken": token})

    def _named(self, login: Login | None, path: str, params: Params, call: Call) -> Customer | None:
        if login is None:
            return None
        parts = [*map(unquote, path.split("/")), params.get("portfolio", "")]
        if call.body:
            try:
                user = decode(call.body).get("user")
            except msgspec.MsgspecError:
                user = None
            if isinstance(user, dict):
                parts.append(str(user.get("portfolio")))
        return next((login.customers[p] for p in parts if p in login.customers), None)

    # ---- Reads. Paths are compared without regard to case (§1).

    def _read(self, call: Call, login: Login, parts: list[str], params: Params, now_ms: int) -> Response:
        match [part.lower() for part in parts]:
            case ["md", "v2", "time"]:
                return _answer(now_ms // 1000)
            case ["md", "v2", "history"]:
                return self._bars(params)
            case ["md", "v2", "securities", *_]:
                return self._securities(parts[3:], params, now_ms)
            case ["md", "v2", "orderbooks", _, _]:
                return _answer(
                    book_row(self._listing(parts[4]), self.trading.exchange, int(params.get("depth", 20)), now_ms, True)
                )
            case ["md", "v2", "clients", _, _, *_]:
                return self._client(login, parts, params, now_ms)
            case ["md", "v2", "stats", _, _, "history", "trades", *_]:
                return self._past(login, parts, params, now_ms)
            case _:
                raise Turned(404, "")

    def _customer(self, login: Login, exchange: str, portfolio: str) -> Customer:
        customer = login.customers.get(portfolio)
        if customer is None or customer.exchange != exchange:
            raise Turned(403, "")
        return customer

    def _view(self, customer: Customer, now_ms: int) -> View:
        lag = self.faults.strikes("read_lag", customer.name, now_ms)
        return customer.view(now_ms - lag.by_ms if lag else None)

    def _client(self, login: Login, parts: list[str], params: Params, now_ms: int) -> Response:
        customer, form = self._customer(login, parts[3], parts[4]), params.get("format", "Simple").lower()
        view, session, marks = self._view(customer, now_ms), self.trading.session, self.trading.exchange.marks
        rows: list[Row]
        match parts[5:]:
            case ["orders"]:
                orders = [o for o in view.orders.values() if o.session == session or o.open]
                rows = [order_row(customer, o, False) for o in orders]
                return self._listed("orders", rows, form)
            case ["orders", order_id]:
                return self._one("orders", view.orders.get(order_id), customer, form)
            case ["stoporders"]:
                stops = [s for s in view.stops.values() if s.session == session or s.open]
                rows = [stop_row(customer, s, False) for s in stops]
                return self._listed("stoporders", rows, form)
            case ["stoporders", stop_id]:
                return self._one("stoporders", view.stops.get(stop_id), customer, form)
            case ["trades"] | [_, "trades"]:
                symbol = parts[5] if len(parts) == 7 else ""
                trades = [t for t in view.trades if t.session == session and symbol in ("", t.listing.symbol)]
                return self._listed("trades", [trade_row(customer, t, False) for t in trades], form)
            case ["positions", *symbols]:
                rows = [
                    position_row(customer, h, marks[s], False, pair_rows=self.rules.pair_rows)
                    for s, h in view.holdings.items()
                ]
                if params.get("withoutCurrency") != "true":
                    rows.append(money_row(customer, "RUB", view.cash["RUB"], False))
                rows = [r for r in rows if not symbols or r["symbol"] in symbols]
                if not symbols:
                    return self._listed("positions", rows, form)
                if not rows:
                    raise Turned(404, "")
                return _answer(formatted("positions", rows[0], form))
            case ["summary"]:
                return _answer(formatted("summaries", summary_row(customer, self.trading), form))
            case ["risk"]:
                return _answer(formatted("risks", risk_row(customer, self.trading, now_ms), form))
            case ["fortsrisk"]:
                return _answer(forts_risk_row(customer, self.trading))
            case _:
                raise Turned(404, "")

    def _listed(self, kind: str, rows: list[Row], form: str) -> Response:
        if not rows and self.rules.empty_404 and kind != "positions":
            return Response(status=404, body=b"", headers={})
        return _answer([self._worded(formatted(kind, row, form)) for row in rows])

    def _one(self, kind: str, known: Order | Stop | None, customer: Customer, form: str) -> Response:
        if known is None or (known.session != self.trading.session and not known.open):
            raise Turned(404, "")
        row = order_row(customer, known, False) if isinstance(known, Order) else stop_row(customer, known, False)
        return _answer(self._worded(formatted(kind, row, form)))

    def _worded(self, row: Row) -> Row:
        return unsettled(row, self._rng, shuffled=self.rules.shuffled, numeric_ids=self.rules.numeric_ids)

    def _past(self, login: Login, parts: list[str], params: Params, now_ms: int) -> Response:
        """Trades of sessions that are over, and published (§5.2, §10.10)."""
        customer = self._customer(login, parts[3], parts[4])
        session = self.trading.session
        began_ms = self.trading.session_began_ms
        hidden = session - 1 if now_ms < began_ms + self.rules.history_delay_ms else None
        trades = [t for t in customer.trades if t.session < session and t.session != hidden]
        since = params.get("dateFrom", "")
        trades = [t for t in trades if iso(t.at_ms) >= since]
        if first := params.get("from"):
            number = int(first)
            inclusive = self.rules.from_inclusive
            trades = [t for t in trades if int(t.trade_id) > number or (inclusive and int(t.trade_id) == number)]
        if len(parts) > 7:
            trades = [t for t in trades if t.listing.symbol == parts[7]]
        if params.get("side"):
            trades = [t for t in trades if t.side.value == params["side"]]
        by_date = params.get("orderByTradeDate") == "true"
        trades.sort(
            key=lambda t: (t.at_ms, int(t.trade_id)) if by_date else (int(t.trade_id), 0),
            reverse=params.get("descending") == "true",
        )
        limit = max(1, min(self.rules.page_rows, int(params.get("limit", self.rules.page_rows))))
        form = params.get("format", "Simple").lower()
        rows = [self._worded(formatted("trades", trade_row(customer, t, False), form)) for t in trades[:limit]]
        return _answer(rows)

    # ---- Securities and prices

    def _listing(self, symbol: str) -> Listing:
        listing = self.trading.listings.get(symbol)
        if listing is None:
            raise Turned(404, "No such instrument")
        return listing

    def _securities(self, parts: list[str], params: Params, now_ms: int) -> Response:
        listings = list(self.trading.listings.values())
        match parts:
            case []:
                wanted = params.get("query", "").lower()
                found = [x for x in listings if wanted in x.symbol.lower()]
                return _answer([security_row(x) for x in found[: int(params.get("limit", 25))]])
            case [pairs, "quotes"]:
                symbols = [pair.partition(":")[2] for pair in pairs.split(",")]
                return _answer([quote_row(self._listing(s), self.trading.exchange, now_ms) for s in symbols])
            case ["MOEX"]:
                market = params.get("market", "")
                found = [x for x in listings if market in ("", x.market)]
                offset = int(params.get("offset", 0))
                limit = int(params.get("limit", 0)) or len(found)
                return _answer([security_row(x) for x in found[offset : offset + limit]])
            case ["MOEX", symbol]:
                return _answer(security_row(self._listing(symbol)))
            case ["MOEX", symbol, "availableBoards"]:
                return _answer([self._listing(symbol).board])
            case _:
                return _answer([])

    def _bars(self, params: Params) -> Response:
        symbol = self._listing(params.get("symbol", "")).symbol
        tf = params.get("tf", "60")
        interval_s = 86_400 if tf == "D" else int(tf)
        from_s, to_s = int(params.get("from", 0)), int(params.get("to", 2**40))
        bars = self.prices.bars(symbol, interval_s, from_s, to_s)
        some, rest = bars[: self.rules.page_rows], bars[self.rules.page_rows :]
        return _answer({"history": some, "next": rest[0]["time"] if rest else None, "prev": None})

    # ---- Orders

    def _operate(self, call: Call, login: Login, path: str, params: Params, now_ms: int) -> Response | None:
        parts = path[len(_ORDERS) :].strip("/").split("/")
        body: dict[str, Any] = {}
        if call.body:
            try:
                body = decode(call.body)
            except msgspec.MsgspecError:
                return _answer(UNREADABLE, 400)
        request_id = call.headers.get("x-reqid") or call.headers.get("x-alor-reqid") or ""
        match call.method, parts:
            case "POST", ["actions", kind] if kind in KINDS:
                action, order_id = "create", ""
            case "PUT", ["actions", kind, order_id] if kind in KINDS:
                action = "update"
            case "DELETE", ["all"]:
                return self._cancel_all(login, params, now_ms)
            case "DELETE", [order_id]:
                action, kind = "delete", "stop" if params.get("stop") == "true" else "limit"
                body = {"user": {"portfolio": params.get("portfolio")}}
            case _:
                raise Turned(404, "")
        if action != "delete" and not request_id:
            raise Turned(400, "X-REQID is required")
        seen = (login.login, request_id)
        if request_id and seen in self._seen:
            return self._repeated(self._seen[seen])
        customer = self.commands.whose(login, body)

        def act(at_ms: int) -> Response:
            try:
                number, _ = self.commands.carry_out(
                    customer, action, kind.lower(), order_number(order_id) if order_id else "", body, at_ms
                )
            except Turned as turned:
                told = {"code": turned.code, "message": turned.text} if turned.code else {"message": turned.text}
                return _answer(told, turned.status)
            if action == "delete" and not (self.rules.delete_as_json or params.get("jsonResponse") == "true"):
                return Response(status=200, body=b"success", headers={"content-type": "text/plain"})
            answer = _answer(self._worded({"message": "success", "orderNumber": number}))
            if action != "delete":
                self._seen[seen] = answer
            return answer

        if self.faults.strikes("drop_request", customer.name, now_ms):
            return None
        if late := self.faults.strikes("late", customer.name, now_ms):
            self._later(now_ms + late.by_ms, act)
            return None
        answer = act(now_ms)
        return None if self.faults.strikes("drop_ack", customer.name, now_ms) else answer

    def _repeated(self, first: Response) -> Response:
        if self.rules.reqid_repeat == "same":
            return first
        old = {"statusCode": first.status, "body": msgspec.Raw(first.body)}
        told = {"message": "Request with such X-ALOR-REQID was already handled.", "oldResponse": old}
        return _answer(told, 400)

    def _cancel_all(self, login: Login, params: Params, now_ms: int) -> Response:
        customer = self._customer(login, params.get("exchange", ""), params.get("portfolio", ""))
        if not self.trading.cancel_everything(customer, params.get("stop") == "true", now_ms):
            raise Turned(400, "Orders to cancel not found", "OrderToCancelNotFound")
        return _answer("success")
