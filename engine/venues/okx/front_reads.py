"""Decides. What the OKX front shows over HTTP: orders, fills, bills, the account, prices (OKX dossier §6.2–§6.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TypeVar

from engine.core.facts import Side
from engine.venues.okx.front_orders import Row
from engine.venues.okx.front_rows import (
    Valuation,
    bill_row,
    fill_row,
    instrument_row,
    order_row,
    position_row,
    text,
)
from engine.venues.okx.front_rules import Listing, Rules, Turned
from engine.venues.okx.front_state import Bill, Customer, Fill, Order, View
from engine.venues.okx.front_trading import Trading

T = TypeVar("T")
Params = Mapping[str, str]


class Reads:
    """Every read. Those of an account get its state as a View, which may be how it was a moment ago."""

    def __init__(self, trading: Trading, rules: Rules) -> None:
        self.trading, self.rules = trading, rules

    # ---- Orders

    def order(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
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

    def pending(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        rows = [o for o in view.orders.values() if o.open]
        return self._order_page(rows, params)

    def history(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        _required(params, "instType")
        oldest = now_ms - self.rules.history_ms
        rows = [
            o
            for o in view.orders.values()
            if not o.open and o.updated_ms >= oldest and self._kept(o, now_ms, archive=False)
        ]
        return self._order_page(rows, params)

    def archive(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
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

    def fills(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        return self._fill_page(view.fills, params, now_ms - self.rules.fills_ms)

    def fills_history(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        _required(params, "instType")
        return self._fill_page(view.fills, params, now_ms - self.rules.archive_ms)

    def _fill_page(self, fills: Sequence[Fill], params: Params, oldest_ms: int) -> list[Row]:
        oldest_ms = max(oldest_ms, _integer(params, "begin") or 0)

        def wanted(fill: Fill) -> bool:
            return (
                _product(fill.listing, params)
                and params.get("ordId") in (None, "", str(fill.ord_id))
                and params.get("subType") in (None, "", fill.sub_type)
            )

        chosen = list(filter(wanted, [f for f in fills if f.at_ms >= oldest_ms]))
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

    def balance(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        asked = [c for c in params.get("ccy", "").split(",") if c]
        currencies = asked or [c for c, held in view.cash.items() if held.amount]
        return [self._valuation().account_row(customer, view, currencies, now_ms)]

    def positions(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
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

    def risk(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        details = self._valuation().account_row(customer, view, view.cash, now_ms)["details"]
        return [
            {
                "adjEq": "",
                "ts": str(now_ms),
                "balData": [{"ccy": d["ccy"], "eq": d["eq"], "disEq": d["disEq"]} for d in details],
                "posData": self.positions(customer, view, params, now_ms),
            }
        ]

    def bills(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        return self._bill_page(view.bills, params, now_ms - self.rules.history_ms)

    def bills_archive(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        return self._bill_page(view.bills, params, now_ms - self.rules.archive_ms)

    def _bill_page(self, bills: Sequence[Bill], params: Params, oldest_ms: int) -> list[Row]:
        oldest_ms = max(oldest_ms, _integer(params, "begin") or 0)

        def wanted(bill: Bill) -> bool:
            listing = bill.listing
            return (
                params.get("instType") in (None, "", listing.inst_type if listing else "")
                and params.get("ctType") in (None, "", listing.contract if listing else "")
                and params.get("mgnMode") in (None, "", bill.margin_mode)
                and params.get("ccy") in (None, "", bill.ccy)
                and params.get("type") in (None, "", bill.kind)
                and params.get("subType") in (None, "", bill.sub_type)
            )

        chosen = list(filter(wanted, [b for b in bills if b.at_ms >= oldest_ms]))
        return [bill_row(b) for b in self.page(chosen, params, lambda b: b.bill_id, lambda b: b.at_ms)]

    def config(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
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

    def leverage(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
        _required(params, "instId")
        _required(params, "mgnMode")
        return [
            self.lever_row(customer, self.listing(inst_id), params["mgnMode"])
            for inst_id in params["instId"].split(",")
        ]

    def lever_row(self, customer: Customer, listing: Listing, mode: str) -> Row:
        lever = customer.lever(listing, mode, self.rules.default_lever)
        return {
            "instId": listing.inst_id,
            "mgnMode": mode,
            "posSide": "net",
            "lever": str(lever),
            "ccy": "",
        }

    def trade_fee(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
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

    def rate_limit(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
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

    def currencies(self, customer: Customer, view: View, params: Params, now_ms: int) -> list[Row]:
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

    def instruments(self, params: Params, now_ms: int) -> list[Row]:
        _required(params, "instType")
        return [instrument_row(x) for x in self.trading.listings.values() if _product(x, params)]

    def mark_prices(self, params: Params, now_ms: int) -> list[Row]:
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

    def tickers(self, params: Params, now_ms: int) -> list[Row]:
        _required(params, "instType")
        return [self.ticker_row(x, now_ms) for x in self.trading.listings.values() if _product(x, params)]

    def ticker(self, params: Params, now_ms: int) -> list[Row]:
        return [self.ticker_row(self.listing(params.get("instId", "")), now_ms)]

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

    def depth(self, params: Params, now_ms: int) -> list[Row]:
        book = self.trading.exchange.books[self.listing(params.get("instId", "")).inst_id]
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

    def listing(self, inst_id: str) -> Listing:
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
