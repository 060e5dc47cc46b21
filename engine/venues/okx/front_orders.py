"""Decides. Order operations at the OKX front, the same for WebSocket and REST: rates, deadlines, a row per order.

Rates are shared by both ways in (OKX dossier §5.5); codes "0", "1", "2" say all, none or some succeeded (§5.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.core.venue import Faults
from engine.core.windows import Windows
from engine.venues.okx.front_rules import Listing, Rules, Turned, told
from engine.venues.okx.front_state import Customer
from engine.venues.okx.front_trading import OrderTold, Trading

Ask = Mapping[str, Any]
Row = dict[str, Any]

MOST = 20  # orders in one batch
_WINDOW_MS = 2000

# operation -> (what it does, is it a batch)
OPERATIONS = {
    "order": ("place", False),
    "batch-orders": ("place", True),
    "cancel-order": ("cancel", False),
    "batch-cancel-orders": ("cancel", True),
    "amend-order": ("amend", False),
    "batch-amend-orders": ("amend", True),
}


class OrderDesk:
    """Carries out order operations for one customer at a time."""

    def __init__(self, trading: Trading, rules: Rules, windows: Windows, faults: Faults) -> None:
        self.trading, self.rules, self.windows, self.faults = trading, rules, windows, faults
        self._by_code = {listing.code: listing for listing in trading.listings.values()}

    def carry_out(
        self,
        customer: Customer,
        operation: str,
        asks: Sequence[Ask],
        now_ms: int,
        *,
        by_code: bool,
        expires_ms: int | None = None,
        late: bool = False,
    ) -> tuple[str, list[Row]]:
        """Top-level code and one row per order. `by_code`: products are named by instIdCode, as on a WebSocket."""
        what, batch = OPERATIONS[operation]
        act = {"place": self._place, "cancel": self._cancel, "amend": self._amend}[what]
        single, rows, seen = len(asks) == 1, list[Row](), set[str]()
        for ask in asks:
            try:
                if expires_ms is not None and expires_ms < now_ms and what != "cancel":
                    raise Turned("50037" if late else "50036")
                listing = self._listing(ask, by_code)
                self._admit(customer, what, single, listing, now_ms)
                if batch and what == "amend":
                    name = str(ask.get("ordId") or ask.get("clOrdId"))
                    if name in seen:
                        raise Turned("51512")
                    seen.add(name)
                rows.append(act(customer, listing, ask, now_ms))
            except Turned as turned:
                rows.append(_row(ask, turned.code, turned.text, now_ms, what))
        failed = sum(row["sCode"] != "0" for row in rows)
        return ("0" if not failed else "1" if failed == len(rows) else "2"), rows

    def _listing(self, ask: Ask, by_code: bool) -> Listing:
        name = "instIdCode" if by_code else "instId"
        value = ask.get(name)
        if value is None or value == "":
            raise Turned("50014", name)
        if by_code:
            listing = self._by_code.get(value) if isinstance(value, int) else None
        else:
            listing = self.trading.listings.get(str(value))
        if listing is None:
            raise Turned("51001")
        return listing

    def _admit(self, customer: Customer, what: str, single: bool, listing: Listing, now_ms: int) -> None:
        if not self.rules.limits:
            return
        limit = self.rules.order_rate if single else self.rules.batch_rate
        rule = what if single else f"{what}-batch"
        if not self.windows.admit(rule, (customer.name, listing.inst_id), limit, _WINDOW_MS, now_ms):
            raise Turned("50011")
        most = self.rules.account_rate
        if what != "cancel" and not self.windows.admit("orders-all", customer.name, most, _WINDOW_MS, now_ms):
            raise Turned("50061")

    def _place(self, customer: Customer, listing: Listing, ask: Ask, now_ms: int) -> Row:
        refusal = self.faults.strikes("refuse", customer.name, now_ms)
        if refusal is not None and refusal.what in ("", "orders"):
            raise Turned(refusal.code or "51008", "USDT")
        order = self.trading.place(customer, listing, ask, now_ms)
        return _row(ask, "0", "Order placed", now_ms, "place", order.ord_id)

    def _cancel(self, customer: Customer, listing: Listing, ask: Ask, now_ms: int) -> Row:
        ord_id, cl_ord_id = _ids(ask)
        order = self.trading.cancel(customer, ord_id, cl_ord_id, now_ms)
        return _row(ask, "0", "", now_ms, "cancel", order.ord_id, order.cl_ord_id)

    def _amend(self, customer: Customer, listing: Listing, ask: Ask, now_ms: int) -> Row:
        ord_id, cl_ord_id = _ids(ask)
        order = customer.order(ord_id, cl_ord_id)
        if order is not None and order.open and self.faults.strikes("amend_fails", customer.name, now_ms):
            # The request is accepted, and the amendment fails later (dossier §5.4).
            self.trading.told.append(
                OrderTold(
                    customer=customer,
                    order=order,
                    req_id=str(ask.get("reqId") or ""),
                    amend_result="-1",
                    code="51503",
                    text=told("51503"),
                )
            )
            return _row(ask, "0", "", now_ms, "amend", order.ord_id, order.cl_ord_id)
        try:
            order = self.trading.amend(customer, ask, now_ms)
        except Turned:
            if order is not None and order.open and str(ask.get("cxlOnFail", "")).lower() == "true":
                self.trading.cancel(customer, str(order.ord_id), "", now_ms, "0")
            raise
        return _row(ask, "0", "", now_ms, "amend", order.ord_id, order.cl_ord_id)


def _ids(ask: Ask) -> tuple[str, str]:
    ord_id, cl_ord_id = str(ask.get("ordId") or ""), str(ask.get("clOrdId") or "")
    if not ord_id and not cl_ord_id:
        raise Turned("50014", "ordId or clOrdId")
    return ord_id, cl_ord_id


def _row(
    ask: Ask,
    code: str,
    text: str,
    now_ms: int,
    what: str,
    ord_id: int | None = None,
    cl_ord_id: str = "",
) -> Row:
    row = {
        "ordId": str(ord_id) if ord_id is not None else ("" if what == "place" else str(ask.get("ordId") or "")),
        "clOrdId": cl_ord_id or str(ask.get("clOrdId") or ""),
        "ts": str(now_ms),
        "sCode": code,
        "sMsg": text,
        "subCode": "",
    }
    if what == "place":
        row["tag"] = str(ask.get("tag") or "")
    if what == "amend":
        row["reqId"] = str(ask.get("reqId") or "")
    return row


Later = Callable[[int], None]
"""Something to be done at a later time; it is given that time."""
