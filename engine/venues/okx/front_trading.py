"""Decides. What becomes of orders at the OKX front: checks, matching, fills, positions, cash and bills.

Everything that a channel may have to tell is appended to `told`, in the order in which it happened; who is told, and
when, is the front's. The rules are from the OKX dossier: placing §5.3, amending §5.4, sizes §7, the order's life §8.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from engine.core.facts import Side
from engine.core.matching import Ended, Exchange, SelfTrade, Trade, Why
from engine.core.orders import OrderType
from engine.venues.okx.front_checks import TYPES, Checks, number
from engine.venues.okx.front_rules import Listing, Rules, Turned
from engine.venues.okx.front_state import ZERO, Bill, Customer, Fill, Order, Position, PositionKey, fine

_CANCEL_SOURCES = {
    Why.REMAINDER: "14",
    Why.UNFILLABLE: "13",
    Why.WOULD_TAKE: "31",
    Why.SELF_TRADE: "32",
}
_WORST_MARKET = Decimal("0.05")  # a market order is held within five per cent of the mark

replace = msgspec.structs.replace


class OrderTold(msgspec.Struct, frozen=True, kw_only=True):
    """An update for the orders channel; `fill` is this update's fill."""

    customer: Customer
    order: Order
    fill: Fill | None = None
    req_id: str = ""
    amend_result: str = ""
    amend_source: str = ""
    code: str = "0"
    text: str = ""


class StateTold(msgspec.Struct, frozen=True, kw_only=True):
    """Positions and cash that changed, for the state channels."""

    customer: Customer
    event: str  # balance_and_position's eventType
    currencies: tuple[str, ...] = ()
    positions: tuple[PositionKey, ...] = ()
    trades: tuple[tuple[str, int], ...] = ()


class Trading:
    """All customers' orders over one exchange."""

    def __init__(self, exchange: Exchange, listings: Sequence[Listing], rules: Rules, rng: random.Random) -> None:
        self.exchange, self.rules = exchange, rules
        self.listings = {listing.inst_id: listing for listing in listings}
        self.customers: dict[str, Customer] = {}
        self._checks = Checks(exchange, rules)
        self.told: list[OrderTold | StateTold] = []
        self.stirred: set[str] = set()  # products whose book has changed; the public channels take it
        self._causes: dict[int, tuple[str, str]] = {}  # order -> cancelSource and reqId of the cancel under way
        self._next_order = 900_000_000_000_000_000 + rng.randrange(10**6)
        self._next_bill = 700_000_000_000_000_000 + rng.randrange(10**6)
        self._next_position = 810_000_000_000_000_000 + rng.randrange(10**6)
        self._next_liquidation = 0

    # ---- What customers ask

    def place(self, customer: Customer, listing: Listing, ask: Mapping[str, Any], now_ms: int) -> Order:
        """Check and match a new order. Raises Turned, and then nothing has happened."""
        order = self._checks.new_order(customer, listing, ask, self._order_id(), now_ms)
        customer.put_order(order)
        kind = TYPES[order.ord_type]
        silent = kind is OrderType.POST_ONLY and not self.rules.post_only_live_first
        if not (silent and self._book(listing).would_take(order.side, order.px)):
            self.told.append(OrderTold(customer=customer, order=order))
        self._book(listing).submit(
            str(order.ord_id),
            customer.name,
            order.side,
            kind,
            order.quantity,
            order.px if order.px is not None else self._worst(listing, order.side),
            SelfTrade(order.stp_mode),
        )
        self.settle(now_ms)
        return order

    def cancel(self, customer: Customer, ord_id: str, cl_ord_id: str, now_ms: int, source: str = "1") -> Order:
        """Take an order off the book. Raises Turned 51400 when it is not at work."""
        order = customer.order(ord_id, cl_ord_id)
        if order is None or not order.open:
            raise Turned("51400")
        self._causes[order.ord_id] = (source, "")
        self._book(order.listing).cancel(str(order.ord_id))
        self.settle(now_ms)
        return order

    def amend(self, customer: Customer, ask: Mapping[str, Any], now_ms: int) -> Order:
        """Change price or size of an order at work (dossier §5.4). Raises Turned, and then it is as it was."""
        order = customer.order(str(ask.get("ordId") or ""), str(ask.get("clOrdId") or ""))
        if order is None or not order.open:
            raise Turned("51503")
        listing = order.listing
        sz = number(ask, "newSz") or order.sz
        px = number(ask, "newPx") or order.px
        if sz <= 0 or px is None:
            raise Turned("51000", "newSz")
        self._checks.steps(listing, sz, px)
        req_id = str(ask.get("reqId") or "")
        book = self._book(listing)
        if sz <= order.filled:
            # The venue calls an order that was shrunk to what it has got filled.
            self._causes[order.ord_id] = ("filled", req_id)
            book.cancel(str(order.ord_id))
            self.settle(now_ms)
            return order
        moved = px != order.px
        if moved and order.ord_type == "post_only" and book.would_take(order.side, px):
            raise Turned("51511")
        changed = replace(order, sz=sz, quantity=sz, px=px, updated_ms=now_ms)
        held = self._checks.to_hold(customer, changed, sz - order.filled)
        if held - order.held > customer.available(order.held_ccy, self.exchange.marks):
            raise Turned("51008", order.held_ccy)
        changed = replace(changed, held=held)
        customer.put_order(changed)
        self.told.append(
            OrderTold(customer=customer, order=changed, req_id=req_id, amend_result="0", amend_source="1"),
        )
        book.amend(str(order.ord_id), sz - order.filled, px)
        self.settle(now_ms)
        return changed

    def cancel_everything(self, customer: Customer, tag: str, source: str, now_ms: int) -> int:
        chosen = [o for o in customer.open if not tag or customer.orders[o].tag == tag]
        for ord_id in chosen:
            self.cancel(customer, str(ord_id), "", now_ms, source)
        return len(chosen)

    # ---- What happens to customers

    def transfer(self, customer: Customer, ccy: str, amount: Decimal, now_ms: int) -> None:
        """Cash from the funding account (6) to the trading account (18), or back when negative."""
        self._pay(customer, ccy, amount, now_ms)
        coming = amount > 0
        self._bill(
            customer,
            ccy,
            amount,
            now_ms,
            kind="1",
            sub_type="11" if coming else "12",
            came_from="6" if coming else "18",
            went_to="18" if coming else "6",
        )
        self.told.append(StateTold(customer=customer, event="transferred", currencies=(ccy,)))

    def fund(self, inst_id: str, rate: Decimal, now_ms: int) -> int:
        """Funding: at a positive rate longs pay shorts. Returns how many positions were charged or paid."""
        listing, count = self.listings[inst_id], 0
        for customer in self.customers.values():
            for key, position in list(customer.positions.items()):
                if key[0] != inst_id or not position.quantity:
                    continue
                value = listing.value(position.quantity, self.exchange.marks[inst_id])
                amount, ccy = fine(-value * rate), listing.fill_currency
                self._pay(customer, ccy, amount, now_ms)
                customer.put_position(replace(position, funding=position.funding + amount, updated_ms=now_ms))
                sub_type = "173" if amount < 0 else "174"
                self._bill(customer, ccy, amount, now_ms, kind="8", sub_type=sub_type, listing=listing, td_mode=key[1])
                self.told.append(StateTold(customer=customer, event="funding_fee", currencies=(ccy,), positions=(key,)))
                count += 1
        return count

    def liquidate(self, customer: Customer, inst_id: str, now_ms: int) -> int:
        """The venue closes a customer's positions in a product: fills with negative numbers, no order push (§6.3)."""
        closed = 0
        for (product, mode), position in list(customer.positions.items()):
            if product != inst_id or not position.quantity:
                continue
            listing, quantity = position.listing, abs(position.quantity)
            side = Side.SELL if position.quantity > 0 else Side.BUY
            order = Order(
                ord_id=self._order_id(),
                listing=listing,
                td_mode=mode,
                side=side,
                ord_type="market",
                sz=quantity,
                px=None,
                quantity=quantity,
                fee_ccy=listing.fill_currency,
                lever=position.lever,
                category="full_liquidation",
                created_ms=now_ms,
                updated_ms=now_ms,
            )
            customer.put_order(order)
            self._next_liquidation -= 1
            px = self.exchange.marks[inst_id]
            self._fill(customer, order.ord_id, px, quantity, False, self._next_liquidation, now_ms, event="liquidation")
            closed += 1
        return closed

    def settle(self, now_ms: int) -> None:
        """Book everything that the exchange's log holds."""
        touched: dict[tuple[str, PositionKey], None] = {}
        for event in self.exchange.take_log():
            self.stirred.add(event.symbol)
            match event:
                case Trade():
                    for owner, order_id, maker in (
                        (event.taker_owner, event.taker, False),
                        (event.maker_owner, event.maker, True),
                    ):
                        customer = self.customers.get(owner)
                        if customer is None:
                            continue  # the simulated market's own order
                        order = self._fill(
                            customer, int(order_id), event.price, event.quantity, maker, event.number, now_ms
                        )
                        if not order.listing.spot:
                            touched[owner, (event.symbol, order.td_mode)] = None
                case Ended() if event.owner in self.customers:
                    self._ended(self.customers[event.owner], int(event.order_id), event.why, now_ms)
                case _:
                    pass
        for owner, key in touched:
            self._rein_in(self.customers[owner], key, now_ms)

    # ---- Booking

    def _fill(
        self,
        customer: Customer,
        ord_id: int,
        px: Decimal,
        quantity: Decimal,
        maker: bool,
        trade_id: int,
        now_ms: int,
        event: str = "filled",
    ) -> Order:
        order = customer.orders[ord_id]
        listing = order.listing
        assert order.filled + quantity <= order.quantity, "no order is filled beyond its size"
        fills = [
            self._book_part(customer, order, px, part, maker, trade_id, now_ms, event)
            for part in self._parts(customer, order, quantity)
        ]
        for fill in fills:
            filled = order.filled + fill.quantity
            left = order.quantity - filled
            order = replace(
                order,
                filled=filled,
                worth=order.worth + listing.value(fill.quantity, px),
                fee=order.fee + fill.fee,
                pnl=order.pnl + fill.pnl,
                last=fill,
                held=fine(order.held * left / (left + fill.quantity)) if left else ZERO,
                state="partially_filled" if left else "filled",
                updated_ms=now_ms,
            )
        customer.put_order(order)
        assert order.last is not None, "a fill was just booked"
        if event != "liquidation":
            self._tell_fill(customer, order, order.last if len(fills) == 1 else _merged(fills))
        currencies = (listing.base, listing.quote) if listing.spot else (listing.fill_currency,)
        keys = () if listing.spot else ((listing.inst_id, order.td_mode),)
        self.told.append(
            StateTold(
                customer=customer,
                event=event,
                currencies=currencies,
                positions=keys,
                trades=((listing.inst_id, trade_id),),
            )
        )
        return order

    def _tell_fill(self, customer: Customer, order: Order, fill: Fill) -> None:
        if order.state == "filled" and order.ord_type == "market" and self.rules.market_final_zero_fill:
            self.told.append(
                OrderTold(customer=customer, order=replace(order, state="partially_filled"), fill=fill),
            )
            self.told.append(OrderTold(customer=customer, order=order))
        else:
            self.told.append(OrderTold(customer=customer, order=order, fill=fill))

    def _parts(self, customer: Customer, order: Order, quantity: Decimal) -> list[Decimal]:
        """A fill that turns a position round may be booked as two (dossier §15.13)."""
        if self.rules.split_reversals and not order.listing.spot:
            held = customer.position(order.listing.inst_id, order.td_mode) * order.side.sign
            if held < 0 < held + quantity:
                return [-held, quantity + held]
        return [quantity]

    def _book_part(
        self,
        customer: Customer,
        order: Order,
        px: Decimal,
        quantity: Decimal,
        maker: bool,
        trade_id: int,
        now_ms: int,
        event: str,
    ) -> Fill:
        listing, side = order.listing, order.side
        rate = self._rate(listing, maker)
        if listing.spot:
            fee = fine(-rate * (quantity if side is Side.BUY else quantity * px))
            pnl, sub_type = ZERO, "1" if side is Side.BUY else "2"
        else:
            fee = fine(-rate * listing.value(quantity, px))
            pnl, sub_type = self._move_position(customer, order, px, quantity, trade_id, fee, now_ms)
        if event == "liquidation":
            sub_type = "100" if side is Side.SELL else "101"
        fill = Fill(
            bill_id=self._bill_id(),
            trade_id=trade_id,
            ord_id=order.ord_id,
            cl_ord_id=order.cl_ord_id,
            tag=order.tag,
            listing=listing,
            side=side,
            px=px,
            quantity=quantity,
            maker=maker,
            fee=fee,
            fee_ccy=order.fee_ccy,
            fee_rate=-rate,
            pnl=pnl,
            sub_type=sub_type,
            at_ms=now_ms,
        )
        customer.fills.append(fill)
        if listing.spot:
            bought = quantity if side is Side.BUY else -quantity
            paid = -bought * px
            legs = [(listing.base, bought), (listing.quote, fine(paid))]
        else:
            legs = [(listing.fill_currency, pnl)]
        for leg, (ccy, amount) in enumerate(legs):
            charged = fee if ccy == order.fee_ccy else ZERO
            self._pay(customer, ccy, amount + charged, now_ms)
            self._bill(
                customer,
                ccy,
                amount + charged,
                now_ms,
                kind="5" if event == "liquidation" else "2",
                sub_type=sub_type,
                bill_id=None if leg else fill.bill_id,
                px=px,
                quantity=quantity,
                pnl=pnl,
                fee=charged,
                listing=listing,
                td_mode=order.td_mode,
                fill=fill,
            )
        return fill

    def _move_position(
        self,
        customer: Customer,
        order: Order,
        px: Decimal,
        quantity: Decimal,
        trade_id: int,
        fee: Decimal,
        now_ms: int,
    ) -> tuple[Decimal, str]:
        """Net mode: reduce first, then open. Returns the realised result and the fill's subType."""
        listing, sign = order.listing, order.side.sign
        key = (listing.inst_id, order.td_mode)
        position = customer.positions.get(key)
        if position is None or not position.quantity:
            position = Position(
                pos_id=position.pos_id if position else self._position_id(),
                listing=listing,
                mode=order.td_mode,
                lever=order.lever or self.rules.default_lever,
                created_ms=now_ms,
                updated_ms=now_ms,
            )
        held = position.quantity
        closing = min(quantity, max(ZERO, -held * sign))
        pnl = fine(listing.gain(-sign * closing, position.avg_px, px)) if closing else ZERO
        new = held + sign * quantity
        if closing == 0 and held:
            before, added = abs(held), quantity
            if listing.inverse:
                avg_px = (before + added) / (before / position.avg_px + added / px)
            else:
                avg_px = (before * position.avg_px + added * px) / (before + added)
        elif quantity > closing:
            avg_px = px  # opened afresh, or turned round
        else:
            avg_px = position.avg_px
        customer.put_position(
            replace(
                position,
                quantity=new,
                avg_px=fine(avg_px),
                trade_id=trade_id if trade_id > 0 else position.trade_id,
                pnl=position.pnl + pnl,
                fee=position.fee + fee,
                updated_ms=now_ms,
            )
        )
        if closing:
            return pnl, "6" if sign > 0 else "5"
        return pnl, "3" if sign > 0 else "4"

    def _ended(self, customer: Customer, ord_id: int, why: Why, now_ms: int) -> None:
        order = customer.orders[ord_id]
        source, req_id = self._causes.pop(ord_id, ("1", ""))
        if source == "filled":
            order = replace(order, state="filled", sz=order.filled, quantity=order.filled, held=ZERO, updated_ms=now_ms)
            customer.put_order(order)
            self.told.append(OrderTold(customer=customer, order=order, req_id=req_id, amend_result="0"))
            return
        order = replace(
            order,
            state="canceled",
            cancel_source=source if why is Why.REQUESTED else _CANCEL_SOURCES[why],
            held=ZERO,
            updated_ms=now_ms,
        )
        customer.put_order(order)
        self.told.append(OrderTold(customer=customer, order=order))

    def _rein_in(self, customer: Customer, key: PositionKey, now_ms: int) -> None:
        """After a fill, no reduce-only order may be bigger than what there is to reduce (§3.1 amendSource 4)."""
        room = abs(customer.position(*key))
        for order in self._checks.reducers(customer, key):
            left = order.quantity - order.filled
            if customer.position(*key) * order.side.sign >= 0 or room == 0:
                self._causes[order.ord_id] = ("22", "")
                self._book(order.listing).cancel(str(order.ord_id))
            elif left > room:
                smaller = replace(order, sz=order.filled + room, quantity=order.filled + room, updated_ms=now_ms)
                customer.put_order(smaller)
                self.told.append(OrderTold(customer=customer, order=smaller, amend_result="0", amend_source="4"))
                assert order.px is not None, "what rests has a price"
                self._book(order.listing).amend(str(order.ord_id), room, order.px)
                room = ZERO
            else:
                room -= left
        self._settle_cancels(now_ms)

    def _settle_cancels(self, now_ms: int) -> None:
        """Cancels made while settling; they cannot trade, so this ends."""
        for event in self.exchange.take_log():
            if isinstance(event, Ended) and event.owner in self.customers:
                self._ended(self.customers[event.owner], int(event.order_id), event.why, now_ms)

    def _pay(self, customer: Customer, ccy: str, amount: Decimal, now_ms: int) -> None:
        customer.put_cash(ccy, customer.balance(ccy) + amount, now_ms)

    def _bill(
        self,
        customer: Customer,
        ccy: str,
        change: Decimal,
        now_ms: int,
        bill_id: int | None = None,
        **rest: Any,
    ) -> None:
        customer.bills.append(
            Bill(
                bill_id=bill_id if bill_id is not None else self._bill_id(),
                at_ms=now_ms,
                ccy=ccy,
                change=change,
                balance=customer.balance(ccy),
                **rest,
            )
        )

    def _rate(self, listing: Listing, maker: bool) -> Decimal:
        if listing.spot:
            return self.rules.spot_maker_rate if maker else self.rules.spot_taker_rate
        return self.rules.maker_rate if maker else self.rules.taker_rate

    def _worst(self, listing: Listing, side: Side) -> Decimal:
        mark = self.exchange.marks[listing.inst_id]
        worst = mark * (1 + side.sign * _WORST_MARKET)
        return worst // listing.tick * listing.tick

    def _book(self, listing: Listing) -> Any:
        return self.exchange.books[listing.inst_id]

    def _order_id(self) -> int:
        self._next_order += 1
        return self._next_order

    def _bill_id(self) -> int:
        self._next_bill += 1
        return self._next_bill

    def _position_id(self) -> int:
        self._next_position += 1
        return self._next_position


def _merged(fills: Sequence[Fill]) -> Fill:
    """A match booked in two parts is one update on the channel."""
    return replace(
        fills[-1],
        quantity=sum((f.quantity for f in fills), ZERO),
        fee=sum((f.fee for f in fills), ZERO),
        pnl=sum((f.pnl for f in fills), ZERO),
    )
