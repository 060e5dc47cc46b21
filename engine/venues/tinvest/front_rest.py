"""Decides. The T-Invest front over HTTP: tokens, limits, orders and reads (dossier §4, §5.2, §6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from engine.core.facts import Side
from engine.core.venue import Call, Fault, Faults, Response
from engine.core.windows import Windows
from engine.venues.tinvest import front_rows as rows
from engine.venues.tinvest.casing import turned
from engine.venues.tinvest.front_rules import DAY_MS, MINUTE_MS, Listing, Rules, Turned, http_status
from engine.venues.tinvest.front_state import ZERO, Customer, Operation, Order, Stop
from engine.venues.tinvest.front_trading import Asked, Trading

CONTRACT = "tinkoff.public.invest.api.contract.v1."
_PREFIX = "/rest/" + CONTRACT
_LISTS = {"Shares": "share", "Etfs": "etf", "Bonds": "bond", "Currencies": "currency", "Futures": "futures"}
_FORCES = ("UNSPECIFIED", "DAY", "FILL_AND_KILL", "FILL_OR_KILL")
_STATES = {"NEW", "PARTIALLYFILL", "FILL", "CANCELLED", "REJECTED"}

Row = dict[str, Any]
Later = Callable[[int], object]


def listing_of(trading: Trading, text: str) -> Listing:
    """By uid, figi or TICKER_CLASS. Raises Turned 50002."""
    for x in trading.listings.values():
        if text in (x.uid, x.figi, f"{x.ticker}_{x.class_code}"):
            return x
    raise Turned("50002")


def decimal_of(value: Any) -> Decimal:
    """A Quotation as it comes in."""
    if value is None:
        return ZERO
    try:
        units, nano = int(value.get("units") or 0), int(value.get("nano") or 0)
    except (AttributeError, TypeError, ValueError):
        raise Turned("30017") from None
    if units * nano < 0 or abs(nano) > 999_999_999:
        raise Turned("30017")
    return units + Decimal(nano).scaleb(-9)


def moment_of(text: Any, otherwise_ms: int) -> int:
    if not text:
        return otherwise_ms
    try:
        return round(msgspec.convert(text, datetime).timestamp() * 1000)
    except (msgspec.ValidationError, ValueError):
        raise Turned("30001") from None


def enum_of(value: Any, prefix: str, known: tuple[str, ...], refusal: str) -> str:
    """By its name or its number, as in proto3 JSON."""
    if isinstance(value, int) and 0 <= value < len(known):
        return known[value]
    text = str(value or "").removeprefix(prefix)
    if text not in known:
        raise Turned(refusal, f"unknown enum value {value!r}"[:100])
    return text


class RestDesk:
    def __init__(
        self,
        trading: Trading,
        rules: Rules,
        windows: Windows,
        faults: Faults,
        tokens: dict[str, list[Customer]],
        later: Callable[[int, Later], None],
        open_streams: Callable[[str], Mapping[str, int]],
    ) -> None:
        self.trading, self.rules, self.windows, self.faults = trading, rules, windows, faults
        self.tokens, self.later, self.open_streams = tokens, later, open_streams
        self._calls = 0
        self._methods: dict[str, tuple[str, Callable[[list[Customer], Row, int], Row]]] = {
            "UsersService/GetAccounts": ("users", self._accounts),
            "UsersService/GetInfo": ("users", self._info),
            "UsersService/GetUserTariff": ("users", self._tariff),
            "OrdersService/GetOrderState": ("orders", self._order_state),
            "OrdersService/GetOrders": ("get-orders", self._orders),
            "StopOrdersService/GetStopOrders": ("stop-orders", self._stop_orders),
            "OperationsService/GetPositions": ("operations", self._positions),
            "OperationsService/GetPortfolio": ("operations", self._portfolio),
            "OperationsService/GetOperationsByCursor": ("operations", self._operations),
            "MarketDataService/GetLastPrices": ("market", self._last_prices),
            **{f"InstrumentsService/{name}": ("instruments", self._list_of(kind)) for name, kind in _LISTS.items()},
        }
        self._acts: dict[str, tuple[str, Callable[[Customer, Row, int, str], Row]]] = {
            "OrdersService/PostOrder": ("post-order", self._post),
            "OrdersService/PostOrderAsync": ("post-order-async", self._post_async),
            "OrdersService/ReplaceOrder": ("orders", self._replace),
            "OrdersService/CancelOrder": ("cancel", self._cancel),
            "StopOrdersService/PostStopOrder": ("stop-orders", self._post_stop),
            "StopOrdersService/CancelStopOrder": ("stop-orders", self._cancel_stop),
        }

    # ---- Who asks, how often, what

    def customers(self, call: Call) -> list[Customer]:
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        return self.tokens.get(token, []) if scheme == "Bearer" else []

    def caller(self, call: Call) -> str:
        """The account that a request is about, where it says so; else the first of the token's."""
        customers = self.customers(call)
        try:
            asked = msgspec.json.decode(call.body or b"{}")
            account_id = asked.get("accountId", asked.get("account_id")) if isinstance(asked, dict) else None
        except msgspec.DecodeError:
            account_id = None
        found = [c for c in customers if c.account_id == account_id] or customers
        return found[0].name if found else ""

    def call(self, call: Call, now_ms: int) -> Response | None:
        name = self.caller(call)
        if self.faults.strikes("html_502", name, now_ms):
            page = b"<html><head><title>502 Bad Gateway</title></head><body>envoy</body></html>"
            return Response(status=502, body=page, headers={"content-type": "text/html"})
        self._calls += 1
        tracking = f"{self._calls:016x}"
        headers = {
            "content-type": "application/json",
            "date": rows.http_date(now_ms),
            "grpc-metadata-x-tracking-id": tracking,
        }
        try:
            if self.faults.strikes("rate_429", name, now_ms):
                raise Turned("80002")
            answer = self._route(call, now_ms, headers, tracking)
        except Turned as turned:
            if turned.code == "html":
                return Response(status=504, body=b"<html>upstream request timeout</html>", headers=headers)
            body = self._error(turned)
            return Response(status=http_status(turned.grpc), body=msgspec.json.encode(body), headers=headers)
        if answer is None:
            return None
        return Response(status=200, body=msgspec.json.encode(rows.sparing(answer, self.rules)), headers=headers)

    def _error(self, turned: Turned) -> Row:
        description: object = turned.code if self.rules.description == "text" else int(turned.code)
        return {"code": turned.grpc, "message": turned.message, "description": description}

    def _route(self, call: Call, now_ms: int, headers: dict[str, str], tracking: str) -> Row | None:
        method = call.target.partition("?")[0].removeprefix(_PREFIX)
        known = self._methods.get(method) or self._acts.get(method)
        if known is None or not call.target.startswith(_PREFIX) or call.method != "POST":
            raise Turned("12001", "not found", 5)
        customers = self.customers(call)
        if not customers:
            raise Turned("40003")
        if self.faults.strikes("refuse_login", customers[0].name, now_ms):
            raise Turned("40003")
        self._admit(known[0], call, headers, now_ms)
        try:
            decoded = msgspec.json.decode(call.body)
        except msgspec.DecodeError:
            raise Turned("30102", "the body is no JSON") from None
        if not isinstance(decoded, dict):
            raise Turned("30102", "the body is no object")
        body: Row = turned(decoded)
        if method in self._methods:
            return self._methods[method][1](customers, body, now_ms)
        return self._act(self._account(customers, body), method, body, now_ms, tracking)

    def _admit(self, rule: str, call: Call, headers: dict[str, str], now_ms: int) -> None:
        token, limit = call.headers.get("authorization", ""), self.rules.per_minute[rule]
        prefixes = {"bare": [""], "gateway": ["grpc-metadata-"], "both": ["", "grpc-metadata-"]}
        for prefix in prefixes[self.rules.header_prefix]:
            headers[f"{prefix}x-ratelimit-limit"] = f"{limit}, {limit};w=60"
            headers[f"{prefix}x-ratelimit-reset"] = str(60 - now_ms // 1000 % 60)
        if not self.rules.limits:
            return
        if not self.windows.admit("all", call.peer, self.rules.per_address_s, 1000, now_ms) or not self.windows.admit(
            rule, token, limit, MINUTE_MS, now_ms
        ):
            raise Turned("80002")

    def _account(self, customers: list[Customer], body: Row) -> Customer:
        for customer in customers:
            if customer.account_id == body.get("accountId"):
                return customer
        raise Turned("50004")

    # ---- Orders

    def _act(self, customer: Customer, method: str, body: Row, now_ms: int, tracking: str) -> Row | None:
        if customer.access != "FULL_ACCESS":
            raise Turned("40002")
        if customer.status != "OPEN":
            raise Turned("40004")
        act = self._acts[method][1]
        name = customer.name

        def late(at_ms: int) -> None:
            try:
                act(customer, body, at_ms, tracking)
            except Turned:
                return

        if fault := self.faults.strikes("drop_request", name, now_ms):
            return self._silence(fault)
        if fault := self.faults.strikes("late", name, now_ms):
            self.later(now_ms + fault.by_ms, late)
            return self._silence(fault)
        answer = act(customer, body, now_ms, tracking)
        if fault := self.faults.strikes("drop_ack", name, now_ms):
            return self._silence(fault)
        return answer

    @staticmethod
    def _silence(fault: Fault) -> None:
        """No answer, an internal error, or a page for people: none of them tells what became of it."""
        if fault.what.startswith("7"):
            raise Turned(fault.what)
        if fault.what == "504":
            raise Turned("html")

    def _asked(self, body: Row, key: str) -> Asked:
        listing = listing_of(self.trading, str(body.get("instrumentId") or body.get("figi") or ""))
        kind = enum_of(body.get("orderType"), "ORDER_TYPE_", ("UNSPECIFIED", "LIMIT", "MARKET", "BESTPRICE"), "30026")
        side = enum_of(body.get("direction"), "ORDER_DIRECTION_", ("UNSPECIFIED", "BUY", "SELL"), "30019")
        if kind == "UNSPECIFIED" or side == "UNSPECIFIED":
            raise Turned("30026" if kind == "UNSPECIFIED" else "30019")
        force = enum_of(body.get("timeInForce") or 0, "TIME_IN_FORCE_", _FORCES, "30254")
        return Asked(
            listing=listing,
            side=Side[side],
            kind=kind,
            in_force="DAY" if force == "UNSPECIFIED" or kind != "LIMIT" else force,
            lots=self._lots(body),
            price=decimal_of(body.get("price")) if kind == "LIMIT" else ZERO,
            request_id=key,
        )

    @staticmethod
    def _lots(body: Row) -> Decimal:
        if body.get("quantity") in (None, ""):
            raise Turned("30015")
        try:
            return Decimal(int(body["quantity"]))
        except (ValueError, TypeError):
            raise Turned("30016") from None

    def _key(self, text: Any) -> str:
        if not text:
            raise Turned("30029")
        if len(str(text)) > 36:
            raise Turned("30055")
        try:
            return str(UUID(str(text)))
        except ValueError:
            raise Turned("30028") from None

    def _known(self, customer: Customer, key: str, now_ms: int) -> Order | None:
        """The order of a key that was used before; or 30057."""
        number = customer.by_request.get(key)
        order = None if number is None else customer.orders[number]
        if order is None or now_ms - order.created_ms > self.rules.key_kept_ms:
            return None
        if self.rules.duplicates == "30057":
            raise Turned("30057")
        return order

    def _post(self, customer: Customer, body: Row, now_ms: int, tracking: str) -> Row:
        key = self._key(body.get("orderId"))
        order = self._known(customer, key, now_ms)
        if order is None:
            asked = self._asked(body, key)
            refusal = self.faults.strikes("refuse", customer.name, now_ms)
            if refusal is not None and refusal.code not in ("", "exchange"):
                raise Turned(refusal.code)
            rejected = "rejected by the exchange" if refusal is not None else ""
            order = self.trading.place(customer, asked, now_ms, rejected=rejected)
        return rows.posted_row(order, tracking, now_ms)

    def _post_async(self, customer: Customer, body: Row, now_ms: int, tracking: str) -> Row:
        posted = self._post(customer, body, now_ms, tracking)
        order = customer.orders[customer.by_request[posted["orderRequestId"]]]
        return {
            "orderRequestId": order.request_id,
            "executionReportStatus": "EXECUTION_REPORT_STATUS_NEW",
            "tradeIntentId": order.internal_id,
        }

    def _find(self, customer: Customer, body: Row, orders: Mapping[int, Order]) -> Order:
        kinds = ("UNSPECIFIED", "EXCHANGE", "REQUEST")
        kind = enum_of(body.get("orderIdType") or 0, "ORDER_ID_TYPE_", kinds, "30027")
        text = str(body.get("orderId") or "")
        number: int | None = int(text) if text.isdecimal() else None
        if kind == "REQUEST":
            number = customer.by_request.get(text.lower()) if self.rules.lookup_by_key else None
        elif number is None:
            # The id of an operation is understood, too (§7.1).
            operation = next((o for o in customer.operations if o.op_id == text.partition("-")[0]), None)
            number = operation.order.number if operation is not None and operation.order is not None else None
        order = orders.get(number) if number is not None else None
        if order is None:
            raise Turned("50005")
        return order

    def _replace(self, customer: Customer, body: Row, now_ms: int, tracking: str) -> Row:
        """A cancel and a new order (§5.3); the second may fail when the first is done."""
        key = self._key(body.get("idempotencyKey"))
        order = self._known(customer, key, now_ms)
        if order is not None:
            return rows.posted_row(order, tracking, now_ms)
        old = self._find(customer, body, customer.orders)
        asked = Asked(
            listing=old.listing,
            side=old.side,
            kind="LIMIT",
            in_force=old.in_force,
            lots=self._lots(body),
            price=decimal_of(body.get("price")),
            request_id=key,
            stream_key="" if self.rules.replaced_key_in_stream else self.trading.uuid(),
            ours=False,  # by none of the ids that orders are placed under
        )
        self.trading.cancel(customer, old, now_ms)
        if fault := self.faults.strikes("amend_fails", customer.name, now_ms):
            raise Turned(fault.code or "30042")
        return rows.posted_row(self.trading.place(customer, asked, now_ms), tracking, now_ms)

    def _cancel(self, customer: Customer, body: Row, now_ms: int, tracking: str) -> Row:
        try:
            order = self._find(customer, body, customer.orders)
        except Turned:
            # By the key it is found here even where look-ups by it are in doubt.
            number = customer.by_request.get(str(body.get("orderId") or "").lower())
            if number is None:
                raise
            order = customer.orders[number]
        self.trading.cancel(customer, order, now_ms)
        return {
            "time": rows.stamp(now_ms),
            "responseMetadata": {"trackingId": tracking, "serverTime": rows.stamp(now_ms)},
        }

    def _post_stop(self, customer: Customer, body: Row, now_ms: int, tracking: str) -> Row:
        key = self._key(body.get("orderId"))
        known = customer.stop_requests.get(key)
        if known is None:
            kinds = ("UNSPECIFIED", "TAKE_PROFIT", "STOP_LOSS", "STOP_LIMIT")
            kind = enum_of(body.get("stopOrderType"), "STOP_ORDER_TYPE_", kinds, "30083")
            side = enum_of(body.get("direction"), "STOP_ORDER_DIRECTION_", ("UNSPECIFIED", "BUY", "SELL"), "30019")
            listing = listing_of(self.trading, str(body.get("instrumentId") or ""))
            stop_price, price = decimal_of(body.get("stopPrice")), decimal_of(body.get("price"))
            if kind == "UNSPECIFIED" or side == "UNSPECIFIED" or stop_price <= 0:
                raise Turned("30053", "the stop order does not fit")
            if (stop_price % listing.tick) or (price % listing.tick) or (kind == "STOP_LIMIT") != bool(price):
                raise Turned("30078")
            known = self.trading.uuid()
            self.trading.put_stop(
                customer,
                Stop(
                    stop_id=known,
                    request_id=key,
                    listing=listing,
                    side=Side[side],
                    kind=kind,
                    lots=self._lots(body),
                    price=price,
                    stop_price=stop_price,
                    created_ms=now_ms,
                ),
            )
        return {
            "stopOrderId": known,
            "orderRequestId": key,
            "responseMetadata": {"trackingId": tracking, "serverTime": rows.stamp(now_ms)},
        }

    def _cancel_stop(self, customer: Customer, body: Row, now_ms: int, tracking: str) -> Row:
        stop = customer.stops.get(str(body.get("stopOrderId") or ""))
        if stop is None:
            raise Turned("50006")
        if stop.state != "ACTIVE":
            raise Turned("30060")
        self.trading.put_stop(customer, msgspec.structs.replace(stop, state="CANCELED", activated_ms=now_ms))
        return {"time": rows.stamp(now_ms)}

    # ---- Reads

    def _seen_ms(self, customer: Customer, now_ms: int) -> int | None:
        lag = self.faults.strikes("read_lag", customer.name, now_ms)
        return now_ms - lag.by_ms if lag else None

    def _order_state(self, customers: list[Customer], body: Row, now_ms: int) -> Row:
        customer = self._account(customers, body)
        order = self._find(customer, body, customer.orders_at(self._seen_ms(customer, now_ms)))
        if now_ms - order.created_ms > self.rules.orders_forgotten_ms:
            raise Turned("50005")
        return rows.order_row(order, now_ms, self.rules)

    def _orders(self, customers: list[Customer], body: Row, now_ms: int) -> Row:
        customer = self._account(customers, body)
        filters = body.get("advancedFilters") or {}
        wanted = {str(s).removeprefix("EXECUTION_REPORT_STATUS_") for s in filters.get("executionStatus") or ()}
        if not wanted <= _STATES:
            raise Turned("30245", "unknown execution status")
        orders = customer.orders_at(self._seen_ms(customer, now_ms)).values()
        today_ms = now_ms - now_ms % DAY_MS
        found = [o for o in orders if (o.created_ms >= today_ms and _told_state(o) in wanted if wanted else o.open)]
        return {"orders": [rows.order_row(o, now_ms, self.rules) for o in found]}

    def _stop_orders(self, customers: list[Customer], body: Row, now_ms: int) -> Row:
        customer = self._account(customers, body)
        wanted = str(body.get("status") or "").removeprefix("STOP_ORDER_STATUS_")
        since_ms, until_ms = moment_of(body.get("from"), 0), moment_of(body.get("to"), now_ms + DAY_MS)
        stops = [
            s
            for s in customer.stops.values()
            if (wanted == "ALL" or s.state == (wanted if wanted not in ("", "UNSPECIFIED") else "ACTIVE"))
            and since_ms <= s.created_ms <= until_ms
        ]
        return {"stopOrders": [rows.stop_row(s) for s in stops]}

    def _positions(self, customers: list[Customer], body: Row, now_ms: int) -> Row:
        customer = self._account(customers, body)
        seen_ms = self._seen_ms(customer, now_ms)
        view = customer.view_at(min(now_ms - self.rules.positions_lag_ms, seen_ms or now_ms))
        return rows.positions_row(customer, view, list(self.trading.listings.values()))

    def _portfolio(self, customers: list[Customer], body: Row, now_ms: int) -> Row:
        customer = self._account(customers, body)
        view = customer.view_at(now_ms - self.rules.portfolio_lag_ms)
        return rows.portfolio_row(customer, view, list(self.trading.listings.values()), self.trading.exchange)

    def _operations(self, customers: list[Customer], body: Row, now_ms: int) -> Row:
        customer = self._account(customers, body)
        since_ms, until_ms = moment_of(body.get("from"), 0), moment_of(body.get("to"), now_ms)
        limit = int(body.get("limit") or 100)
        if not 1 <= limit <= 1000:
            raise Turned("30069")
        seen_ms = self._seen_ms(customer, now_ms) or now_ms
        found = [o for o in customer.operations if since_ms <= o.at_ms <= until_ms and o.visible_ms <= seen_ms]
        found.sort(key=lambda o: (o.at_ms, o.op_id), reverse=True)
        cursor = str(body.get("cursor") or "")
        if cursor:
            found = [o for o in found if _cursor(o) < int(cursor)]
        page, more = found[:limit], len(found) > limit
        items = [rows.operation_row(customer, o, self.rules, now_ms) for o in page]
        last = page[-1] if page else None
        if more and last is not None and limit > 2:
            if self.rules.page_border == "twice":
                last = page[-2]
            elif self.rules.page_border == "lost":
                items.pop()
        return {"hasNext": more, "nextCursor": str(_cursor(last)) if more and last is not None else "", "items": items}

    def _last_prices(self, customers: list[Customer], body: Row, now_ms: int) -> Row:
        wanted = [str(x) for x in body.get("instrumentId") or ()]
        listings = [listing_of(self.trading, x) for x in wanted] or list(self.trading.listings.values())
        return {
            "lastPrices": [
                {
                    "figi": x.figi,
                    "price": rows.quotation(self.trading.exchange.marks[x.ticker]),
                    "time": rows.stamp(now_ms),
                    **rows.names_of(x),
                    "lastPriceType": "LAST_PRICE_EXCHANGE",
                }
                for x in listings
            ]
        }

    def _list_of(self, kind: str) -> Callable[[list[Customer], Row, int], Row]:
        def read(customers: list[Customer], body: Row, now_ms: int) -> Row:
            found = [rows.listing_row(x) for x in self.trading.listings.values() if x.kind == kind]
            return {"instruments": found}

        return read

    def _accounts(self, customers: list[Customer], body: Row, now_ms: int) -> Row:
        return {
            "accounts": [
                {
                    "id": c.account_id,
                    "type": "ACCOUNT_TYPE_TINKOFF",
                    "name": c.name,
                    "status": f"ACCOUNT_STATUS_{c.status}",
                    "openedDate": "2021-05-18T00:00:00Z",
                    "closedDate": "1970-01-01T00:00:00Z",
                    "accessLevel": f"ACCOUNT_ACCESS_LEVEL_{c.access}",
                }
                for c in customers
            ]
        }

    def _info(self, customers: list[Customer], body: Row, now_ms: int) -> Row:
        return {
            "premStatus": False,
            "qualStatus": False,
            "qualifiedForWorkWith": [],
            "tariff": "investor",
            "userId": "u-1",
            "riskLevelCode": "",
        }

    def _tariff(self, customers: list[Customer], body: Row, now_ms: int) -> Row:
        """Told with one more than there is: head room for whoever comes back (§2.6)."""
        streams = self.open_streams(customers[0].token)
        return {
            "unaryLimits": [
                {"limitPerMinute": limit, "methods": [f"{CONTRACT}{rule}"]}
                for rule, limit in self.rules.per_minute.items()
            ],
            "streamLimits": [
                {"limit": self.stream_limit(method) + 1, "streams": [CONTRACT + method], "open": count}
                for method, count in streams.items()
            ],
        }

    def stream_limit(self, method: str) -> int:
        if method.startswith("MarketData"):
            return self.rules.market_streams
        return self.rules.order_streams if method.startswith("Orders") else self.rules.operation_streams


def _told_state(order: Order) -> str:
    return "CANCELLED" if order.state == "PARTIALLYFILL" and not order.open else order.state


def _cursor(operation: Operation) -> int:
    return operation.at_ms * 1_000_000 + int(operation.op_id)
