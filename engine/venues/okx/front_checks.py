"""Decides. What an order must be to be taken at the OKX front, and what is held for it (OKX dossier §5.3, §7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from engine.core.facts import Side
from engine.core.matching import Exchange, SelfTrade
from engine.core.orders import OrderType
from engine.venues.okx.front_rules import Listing, Rules, Turned
from engine.venues.okx.front_state import ZERO, Customer, Order, PositionKey, fine

TYPES = {
    "market": OrderType.MARKET,
    "limit": OrderType.LIMIT,
    "post_only": OrderType.POST_ONLY,
    "ioc": OrderType.IOC,
    "fok": OrderType.FOK,
    "optimal_limit_ioc": OrderType.MARKET,
}
_CLIENT_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_TAG = re.compile(r"[A-Za-z0-9]{1,16}")
_PRICE_BAND = Decimal("0.5")  # limit prices further out than this are turned down
_LARGEST = 15  # decimal exponent of the largest number that is looked at

replace = msgspec.structs.replace


class Checks:
    """Looks at orders; changes nothing. Everything here raises Turned for what does not fit."""

    def __init__(self, exchange: Exchange, rules: Rules) -> None:
        self.exchange, self.rules = exchange, rules

    def new_order(
        self, customer: Customer, listing: Listing, ask: Mapping[str, Any], ord_id: int, now_ms: int
    ) -> Order:
        side, ord_type = ask.get("side"), str(ask.get("ordType") or "")
        if side not in ("buy", "sell"):
            raise Turned("51000", "side")
        if ord_type not in TYPES or (ord_type == "optimal_limit_ioc" and listing.spot):
            raise Turned("51000", "ordType")
        td_mode = str(ask.get("tdMode") or "")
        if td_mode not in (("cash",) if listing.spot else ("cross", "isolated")):
            raise Turned("51000", "tdMode")
        if not listing.spot and str(ask.get("posSide") or "net") != "net":
            raise Turned("51000", "posSide")
        cl_ord_id, tag = str(ask.get("clOrdId") or ""), str(ask.get("tag") or "")
        if cl_ord_id and not _CLIENT_ID.fullmatch(cl_ord_id):
            raise Turned("51000", "clOrdId")
        if tag and not _TAG.fullmatch(tag):
            raise Turned("51000", "tag")
        stp_mode = str(ask.get("stpMode") or "cancel_maker")
        if stp_mode not in tuple(SelfTrade):
            raise Turned("51000", "stpMode")
        if cl_ord_id in customer.open_by_client_id:
            raise Turned("51016")
        market = TYPES[ord_type] is OrderType.MARKET
        sz, px = number(ask, "sz"), None if market else number(ask, "px")
        if sz is None or sz <= 0:
            raise Turned("51000", "sz")
        if not market and (px is None or px <= 0):
            raise Turned("51000", "px")
        self._counts(customer, listing)
        tgt_ccy, quantity = "", sz
        if listing.spot and market:
            tgt_ccy = str(ask.get("tgtCcy") or ("quote_ccy" if side == "buy" else "base_ccy"))
            if tgt_ccy == "quote_ccy":
                quantity = self.exchange.books[listing.inst_id].affordable(Side(side), sz, listing.lot)
                if quantity < listing.smallest:
                    raise Turned("51020")
        self.steps(listing, quantity, px)
        if quantity > (listing.max_market if market else listing.max_limit):
            raise Turned("51202" if market else "51101")
        if px is not None:
            self._band(listing, Side(side), px)
        order = Order(
            ord_id=ord_id,
            cl_ord_id=cl_ord_id,
            tag=tag,
            listing=listing,
            td_mode=td_mode,
            side=Side(side),
            ord_type=ord_type,
            sz=sz,
            px=px,
            tgt_ccy=tgt_ccy,
            quantity=quantity,
            reduce_only=str(ask.get("reduceOnly", "")).lower() == "true" and not listing.spot,
            lever=0 if listing.spot else customer.lever(listing, td_mode, self.rules.default_lever),
            stp_mode=stp_mode,
            fee_ccy=self._fee_ccy(listing, Side(side)),
            created_ms=now_ms,
            updated_ms=now_ms,
        )
        if order.reduce_only:
            order = self._reducing(customer, order)
        held = self.to_hold(customer, order, order.quantity)
        if held > customer.available(order.held_ccy, self.exchange.marks):
            raise Turned("51008", order.held_ccy)
        return replace(order, held=held)

    def _counts(self, customer: Customer, listing: Listing) -> None:
        if len(customer.open) >= self.rules.pending_per_account:
            raise Turned("51025")
        if len(customer.open) >= self.rules.pending_per_product:
            same = sum(1 for o in customer.open if customer.orders[o].listing is listing)
            if same >= self.rules.pending_per_product:
                raise Turned("51174", self.rules.pending_per_product)

    def steps(self, listing: Listing, quantity: Decimal, px: Decimal | None) -> None:
        if px is not None and px % listing.tick:
            raise Turned("51150")
        if quantity % listing.lot:
            raise Turned("51121")
        if quantity < listing.smallest:
            raise Turned("51020")

    def _band(self, listing: Listing, side: Side, px: Decimal) -> None:
        """A buy far above, or a sell far below the mark is turned down; the other way round is merely patient."""
        mark = self.exchange.marks[listing.inst_id]
        highest, lowest = mark * (1 + _PRICE_BAND), mark * (1 - _PRICE_BAND)
        if px > highest if side is Side.BUY else px < lowest:
            raise Turned("51006", highest.quantize(listing.tick), lowest.quantize(listing.tick))

    def _reducing(self, customer: Customer, order: Order) -> Order:
        """A reduce-only order is cut down to what there is to reduce."""
        held = customer.position(order.listing.inst_id, order.td_mode) * order.side.sign
        others = sum(
            (o.quantity - o.filled for o in self.reducers(customer, (order.listing.inst_id, order.td_mode))),
            ZERO,
        )
        room = -held - others
        if room <= 0:
            raise Turned("51169")
        smaller = min(order.quantity, room)
        return replace(order, quantity=smaller, sz=smaller)

    def to_hold(self, customer: Customer, order: Order, remaining: Decimal) -> Decimal:
        """Funds to keep aside while `remaining` of the order is at work."""
        listing = order.listing
        px = order.px if order.px is not None else self.exchange.marks[listing.inst_id]
        if listing.spot:
            if order.side is Side.SELL:
                return remaining
            if order.tgt_ccy == "quote_ccy":
                return order.sz
            return remaining * px
        if order.reduce_only:
            return ZERO
        closing = max(ZERO, -order.side.sign * customer.position(listing.inst_id, order.td_mode))
        opening = max(ZERO, remaining - closing)
        value = listing.value(opening, px)
        return fine(value / order.lever + value * self.rules.taker_rate)

    def reducers(self, customer: Customer, key: PositionKey) -> list[Order]:
        orders = (customer.orders[ord_id] for ord_id in customer.open)
        return [o for o in orders if o.reduce_only and (o.listing.inst_id, o.td_mode) == key]

    def _fee_ccy(self, listing: Listing, side: Side) -> str:
        """Spot fees are taken from what is received."""
        if listing.spot:
            return listing.base if side is Side.BUY else listing.quote
        return listing.fill_currency


def number(ask: Mapping[str, Any], name: str) -> Decimal | None:
    """A decimal parameter; None when absent or empty. Raises Turned 51000 for anything else."""
    value = ask.get(name)
    if value is None or value == "":
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        raise Turned("51000", name) from None
    if not found.is_finite() or found.adjusted() > _LARGEST:
        raise Turned("51000", name)
    return found
