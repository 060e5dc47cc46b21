"""Decides. What becomes of orders at the ALOR front: checks, matching, stops, trades, holdings and money.

Everything that a subscription may have to tell is appended to `told`, in the order in which it happened. An update is
a cancellation and a new order (ALOR dossier §6.3); a stop order becomes an exchange order (§6.1).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal

import msgspec

from engine.core.facts import Side
from engine.core.matching import Book, Ended, Exchange
from engine.core.matching import Trade as Match
from engine.core.orders import OrderType
from engine.venues.alor.front_rules import DAY_MS, NO_MONEY, NOT_FOUND, Listing, Rules, Turned
from engine.venues.alor.front_state import ZERO, Customer, Holding, Order, Stop, Trade

replace = msgspec.structs.replace

_WORST_MARKET = Decimal("0.05")
_KOPECK = Decimal("0.01")
_TYPES = {
    "oneday": OrderType.LIMIT,
    "goodtillcancelled": OrderType.LIMIT,
    "attheclose": OrderType.FOK,
    "bookorcancel": OrderType.POST_ONLY,
    "immediateorcancel": OrderType.IOC,
    "fillorkill": OrderType.FOK,
}


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A new order, or what an order is to become, as its sender worded it and understood."""

    listing: Listing
    side: Side
    kind: str  # market, limit, stop, stoplimit
    quantity: Decimal
    price: Decimal | None
    comment: str | None
    tif: str
    visible: Decimal | None
    variance: int
    trigger: Decimal | None
    condition: str
    ends_ms: int | None
    protecting_ms: int
    active: bool


class OrderTold(msgspec.Struct, frozen=True):
    customer: Customer
    order: Order


class StopTold(msgspec.Struct, frozen=True):
    customer: Customer
    stop: Stop


class TradeTold(msgspec.Struct, frozen=True):
    customer: Customer
    trade: Trade


class HoldingTold(msgspec.Struct, frozen=True):
    customer: Customer
    symbol: str  # "RUB": the money


Told = OrderTold | StopTold | TradeTold | HoldingTold


class Trading:
    """All customers' orders over one exchange."""

    def __init__(self, exchange: Exchange, listings: Sequence[Listing], rules: Rules, rng: random.Random) -> None:
        self.exchange, self.rules = exchange, rules
        self.listings = {listing.symbol: listing for listing in listings}
        self.customers: dict[str, Customer] = {}
        self.told: list[Told] = []
        self.stirred: set[str] = set()
        self.session = 0
        self._rolls_at_ms = 0
        # Numbers of futures have 19 digits and do not fit into a float (§6.3).
        self._next_order = {False: 41_000_000_000 + rng.randrange(10**6), True: 1_892_947_000_000_000_000}
        self._next_stop = rng.randrange(100, 200)
        self._first_trade = {
            symbol: (1_892_900_000_000_000_000 if listing.future else 9_100_000_000) + n * 10_000_000
            for n, (symbol, listing) in enumerate(self.listings.items())
        }
        self._rejected: list[tuple[Customer, Order]] = []

    # ---- What customers ask

    def place(self, customer: Customer, ask: Ask, now_ms: int) -> str:
        """Returns its number. Raises Turned, and then nothing has happened."""
        if ask.kind in ("stop", "stoplimit"):
            return self._place_stop(customer, ask, now_ms)
        return self._submit(customer, ask, now_ms).order_id

    def cancel(self, customer: Customer, order_id: str, stop: bool, now_ms: int) -> None:
        if stop:
            known = customer.stops.get(order_id)
            if known is None or not known.open:
                raise Turned(400, NOT_FOUND, "OrderToCancelNotFound (404)")
            self._end_stop(customer, replace(known, status="canceled", updated_ms=now_ms))
            return
        order = customer.orders.get(order_id)
        if order is None or not order.open:
            raise Turned(400, NOT_FOUND, "OrderToCancelNotFound (404)")
        self._book(order.listing).cancel(order_id)
        self.settle(now_ms)

    def update(self, customer: Customer, order_id: str, ask: Ask, now_ms: int) -> str:
        """The new order's number. Raises Turned, and then the old one is as it was."""
        if ask.kind in ("stop", "stoplimit"):
            stop = customer.stops.get(order_id)
            if stop is None or not stop.open:
                raise Turned(400, "Order to update not found")
            ask = self._inherit(ask, stop.comment)
            self._check(customer, ask, ZERO)
            self._end_stop(customer, replace(stop, status="canceled", replaced=True, updated_ms=now_ms))
            return self._place_stop(customer, ask, now_ms)
        order = customer.orders.get(order_id)
        if order is None or not order.open:
            raise Turned(400, "Order to update not found")
        ask = self._inherit(ask, order.comment)
        if order.listing.future:  # its side and symbol are not heard there (§3.6)
            ask = replace(ask, listing=order.listing, side=order.side)
        if self.rules.amend_to_total:
            ask = replace(ask, quantity=ask.quantity - order.filled)
        if ask.quantity <= 0:
            raise Turned(400, "Invalid quantity")
        ask = replace(ask, tif=order.tif)
        self._check(customer, ask, order.quantity - order.filled, order)
        customer.put_order(replace(order, replaced=True, updated_ms=now_ms))
        self._book(order.listing).cancel(order_id)
        self.settle(now_ms)
        return self._submit(customer, ask, now_ms).order_id

    def _inherit(self, ask: Ask, comment: str | None) -> Ask:
        if ask.comment is None and self.rules.keep_comment:
            return replace(ask, comment=comment)
        return ask

    def cancel_everything(
        self, customer: Customer, stops: bool, now_ms: int, symbols: frozenset[str] = frozenset()
    ) -> int:
        if stops:
            chosen = [s for s in customer.stops.values() if s.open]
            for stop in chosen:
                self.cancel(customer, stop.stop_id, True, now_ms)
            return len(chosen)
        orders = [o for o in customer.open_orders() if not symbols or o.listing.symbol in symbols]
        for order in orders:
            self.cancel(customer, order.order_id, False, now_ms)
        return len(orders)

    # ---- What happens to customers

    def transfer(self, customer: Customer, currency: str, amount: Decimal, now_ms: int) -> None:
        """Money, or whole units of a paper or a currency. KeyError for what is not listed."""
        if currency == "RUB":
            customer.pay(amount, now_ms)
            self.told.append(HoldingTold(customer, currency))
            return
        symbol = next((x.symbol for x in self.listings.values() if x.base == currency and not x.future), currency)
        listing = self.listings[symbol]
        known = customer.holdings.get(symbol) or Holding(
            listing=listing, avg=self.exchange.marks[symbol], updated_ms=now_ms
        )
        customer.put_holding(replace(known, quantity=known.quantity + int(amount), updated_ms=now_ms))
        self.told.append(HoldingTold(customer, symbol))

    def liquidate(self, customer: Customer, symbol: str, now_ms: int) -> int:
        """The broker closes what is held, at the market."""
        held = customer.held(symbol)
        listing = self.listings[symbol]
        lots = abs(held) // listing.lot
        if not lots:
            return 0
        side = Side.SELL if held > 0 else Side.BUY
        self._submit(customer, _plain_ask(listing, side, lots), now_ms, checked=True)
        return 1

    def settle(self, now_ms: int) -> None:
        """Book everything that the exchange's log holds."""
        for event in self.exchange.take_log():
            self.stirred.add(event.symbol)
            match event:
                case Match():
                    for owner, order_id in ((event.taker_owner, event.taker), (event.maker_owner, event.maker)):
                        if owner in self.customers:
                            self._fill(self.customers[owner], order_id, event, now_ms)
                case Ended() if event.owner in self.customers:
                    customer = self.customers[event.owner]
                    order = customer.orders[event.order_id]
                    self._put(customer, replace(order, status="canceled", updated_ms=now_ms))
                case _:
                    pass

    def tick(self, now_ms: int) -> None:
        """Sessions end, stop orders are looked at."""
        if not self._rolls_at_ms:
            self._rolls_at_ms = self._next_roll_ms(now_ms)
        while now_ms >= self._rolls_at_ms:
            self._roll_over(now_ms)
            self._rolls_at_ms += DAY_MS
        for customer, order in self._rejected:
            self._put(customer, replace(order, status="rejected", updated_ms=now_ms))
        self._rejected.clear()
        for customer in self.customers.values():
            for stop in [s for s in customer.stops.values() if s.open]:
                self._look_at(customer, stop, now_ms)

    @property
    def session_began_ms(self) -> int:
        return self._rolls_at_ms - DAY_MS

    def _next_roll_ms(self, now_ms: int) -> int:
        hour_ms = self.rules.rollover_hour * 3_600_000
        return (now_ms - hour_ms) // DAY_MS * DAY_MS + DAY_MS + hour_ms

    def _roll_over(self, now_ms: int) -> None:
        """Orders of the day end; what futures gained becomes money; trades belong to history from now on."""
        for customer in self.customers.values():
            for order in customer.open_orders():
                if order.tif != "goodtillcancelled":
                    self._book(order.listing).cancel(order.order_id)
        self.settle(now_ms)
        self.session += 1
        for customer in self.customers.values():
            for holding in list(customer.holdings.values()):
                if holding.listing.future:
                    mark = self.exchange.marks[holding.listing.symbol]
                    gain = holding.gained + holding.listing.value(holding.quantity, mark - holding.avg)
                    customer.pay(gain, now_ms)
                    holding = replace(holding, avg=mark, gained=ZERO)
                customer.put_holding(replace(holding, opened=holding.quantity, updated_ms=now_ms))
                self.told.append(HoldingTold(customer, holding.listing.symbol))
            self.told.append(HoldingTold(customer, "RUB"))

    # ---- Orders

    def _submit(self, customer: Customer, ask: Ask, now_ms: int, *, checked: bool = False, order_id: str = "") -> Order:
        order = Order(
            order_id=order_id or self._order_id(ask.listing),
            listing=ask.listing,
            side=ask.side,
            kind=ask.kind,
            tif=ask.tif,
            quantity=ask.quantity,
            price=ask.price,
            comment=ask.comment,
            visible=ask.visible,
            variance=ask.variance,
            session=self.session,
            created_ms=now_ms,
            updated_ms=now_ms,
        )
        if not checked:
            try:
                self._check(customer, ask, ZERO)
            except Turned as turned:
                if turned.text != NO_MONEY or not self.rules.reject_by_event:
                    raise
                customer.put_order(order)
                customer.open.pop(order.order_id)  # the exchange never gets it
                self._rejected.append((customer, order))
                return order
        self._put(customer, order)
        self._book(ask.listing).submit(
            order.order_id,
            customer.name,
            order.side,
            OrderType.MARKET if order.kind == "market" else _TYPES[order.tif],
            order.quantity,
            order.price if order.price is not None else self._worst(ask.listing, ask.side),
        )
        self.settle(now_ms)
        return customer.orders[order.order_id]

    def _put(self, customer: Customer, order: Order) -> None:
        customer.put_order(order)
        self.told.append(OrderTold(customer, order))

    def _fill(self, customer: Customer, order_id: str, match: Match, now_ms: int) -> None:
        order = customer.orders[order_id]
        filled = order.filled + match.quantity
        assert filled <= order.quantity, "no order is filled beyond its size"
        listing = order.listing
        value = listing.value(match.quantity, match.price)
        # Of futures the commission is not told with the trade (§4.5), and nobody is charged here.
        commission = None if listing.future else (value * self.rules.commission_rate).quantize(_KOPECK, ROUND_HALF_UP)
        trade = Trade(
            trade_id=str(self._first_trade[listing.symbol] + match.number),
            order_id=order_id,
            listing=listing,
            side=order.side,
            quantity=match.quantity,
            price=match.price,
            comment=order.comment,
            commission=commission,
            session=self.session,
            at_ms=now_ms,
        )
        customer.trades.append(trade)
        self._move(customer, trade, now_ms)
        if not listing.future:
            customer.pay(-order.side.sign * value - (commission or ZERO), now_ms)
        order = replace(
            order, filled=filled, status="filled" if filled == order.quantity else "working", updated_ms=now_ms
        )
        customer.put_order(order)
        pair: list[Told] = [OrderTold(customer, order), TradeTold(customer, trade)]
        self.told += reversed(pair) if self.rules.trade_first else pair
        self.told += [HoldingTold(customer, listing.symbol), HoldingTold(customer, "RUB")]

    def _move(self, customer: Customer, trade: Trade, now_ms: int) -> None:
        listing, price = trade.listing, trade.price
        known = customer.holdings.get(listing.symbol) or Holding(listing=listing, updated_ms=now_ms)
        change = trade.side.sign * trade.quantity * listing.lot
        held, new = known.quantity, known.quantity + change
        closing = min(abs(change), abs(held)) if held * change < 0 else ZERO
        gained = known.gained
        if closing and listing.future:
            gained += closing * listing.worth * (price - known.avg) * (1 if held > 0 else -1)
        if not new:
            avg = ZERO
        elif held * change >= 0:
            avg = (abs(held) * known.avg + abs(change) * price) / abs(new)
        else:
            avg = price if abs(change) > abs(held) else known.avg
        customer.put_holding(replace(known, quantity=new, avg=avg, gained=gained, updated_ms=now_ms))

    # ---- Stop orders

    def _place_stop(self, customer: Customer, ask: Ask, now_ms: int) -> str:
        assert ask.trigger is not None, "a stop order has a trigger"
        self._steps(ask)
        self._next_stop += 1
        stop = Stop(
            stop_id=str(self._next_stop),
            listing=ask.listing,
            side=ask.side,
            kind=ask.kind,
            tif=ask.tif,
            quantity=ask.quantity,
            price=ask.price,
            trigger=ask.trigger,
            condition=ask.condition,
            ends_ms=ask.ends_ms,
            protecting_ms=ask.protecting_ms,
            active=ask.active,
            comment=ask.comment,
            visible=ask.visible,
            session=self.session,
            created_ms=now_ms,
            updated_ms=now_ms,
        )
        self._end_stop(customer, stop)
        return stop.stop_id

    def _end_stop(self, customer: Customer, stop: Stop) -> None:
        customer.put_stop(stop)
        self.told.append(StopTold(customer, stop))

    def _look_at(self, customer: Customer, stop: Stop, now_ms: int) -> None:
        if stop.ends_ms is not None and now_ms >= stop.ends_ms:
            self._end_stop(customer, replace(stop, status="canceled", updated_ms=now_ms))
            return
        price = self.exchange.marks[stop.listing.symbol]
        reached = {
            "more": price > stop.trigger,
            "moreorequal": price >= stop.trigger,
            "less": price < stop.trigger,
            "lessorequal": price <= stop.trigger,
        }[stop.condition]
        if not stop.active or not reached:
            if stop.held_since_ms is not None:
                customer.put_stop(replace(stop, held_since_ms=None))
            return
        since_ms = now_ms if stop.held_since_ms is None else stop.held_since_ms
        if stop.protecting_ms > now_ms - since_ms:
            customer.put_stop(replace(stop, held_since_ms=since_ms))
            return
        self._trigger(customer, stop, now_ms)

    def _trigger(self, customer: Customer, stop: Stop, now_ms: int) -> None:
        ask = _plain_ask(stop.listing, stop.side, stop.quantity)
        if stop.kind == "stoplimit":
            ask = replace(ask, kind="limit", price=stop.price, tif=stop.tif, visible=stop.visible)
        ask = replace(ask, comment=stop.comment)
        try:
            self._check(customer, ask, ZERO)
        except Turned as turned:
            ended = replace(stop, status=self.rules.failed_trigger, error=turned.text, updated_ms=now_ms)
            self._end_stop(customer, ended)
            return
        order_id = self._order_id(stop.listing)
        self._end_stop(customer, replace(stop, status="filled", became=order_id, updated_ms=now_ms))
        self._submit(customer, ask, now_ms, checked=True, order_id=order_id)

    # ---- Checks

    def _steps(self, ask: Ask) -> None:
        step = ask.listing.step
        for price in (ask.price, ask.trigger):
            if price is not None and price % step:
                raise Turned(400, f"Minimum price step: {step}")
        if ask.price is not None and ask.price <= 0:
            raise Turned(400, "Price may not be 0 for a limit order")

    def _check(self, customer: Customer, ask: Ask, giving_way: Decimal, old: Order | None = None) -> None:
        """`giving_way`: lots of `old`, which the new order takes the place of."""
        self._steps(ask)
        listing = ask.listing
        if listing.future:
            mark = self.exchange.marks[listing.symbol]
            more = max(ZERO, ask.quantity - giving_way)
            held = customer.held(listing.symbol)
            if held * ask.side.sign < 0:
                more = max(ZERO, more - abs(held))
            if listing.value(more, mark) * self.rules.margin_rate > self.available(customer):
                raise Turned(400, NO_MONEY)
            return
        if ask.side is Side.SELL:
            asked = sum((o.quantity - o.filled for o in customer.open_orders() if _same(o, ask) and o is not old), ZERO)
            if (asked + ask.quantity) * listing.lot > customer.held(listing.symbol):
                raise Turned(400, NO_MONEY)
            return
        price = ask.price if ask.price is not None else self._worst(listing, ask.side)
        back = ZERO
        if old is not None and old.price is not None and old.side is Side.BUY:
            back = listing.value(giving_way, old.price)
        needed = listing.value(ask.quantity, price) * (1 + self.rules.commission_rate)
        if needed > self.available(customer) + back:
            raise Turned(400, NO_MONEY)

    def available(self, customer: Customer) -> Decimal:
        """Money that is bound by nothing."""
        free = customer.cash["RUB"]
        for order in customer.open_orders():
            left = order.quantity - order.filled
            if order.listing.future:
                mark = self.exchange.marks[order.listing.symbol]
                free -= order.listing.value(left, mark) * self.rules.margin_rate
            elif order.side is Side.BUY:
                price = order.price if order.price is not None else self._worst(order.listing, order.side)
                free -= order.listing.value(left, price) * (1 + self.rules.commission_rate)
        for holding in customer.holdings.values():
            if holding.listing.future:
                mark = self.exchange.marks[holding.listing.symbol]
                free += holding.gained + holding.listing.value(holding.quantity, mark - holding.avg)
                free -= holding.listing.value(abs(holding.quantity), mark) * self.rules.margin_rate
        return free

    def evaluation(self, customer: Customer) -> Decimal:
        """What the whole portfolio is worth in roubles."""
        total = customer.cash["RUB"]
        for symbol, holding in customer.holdings.items():
            mark = self.exchange.marks[symbol]
            if holding.listing.future:
                total += holding.gained + holding.listing.value(holding.quantity, mark - holding.avg)
            else:
                total += holding.quantity * mark
        return total

    def _worst(self, listing: Listing, side: Side) -> Decimal:
        mark = self.exchange.marks[listing.symbol]
        return mark * (1 + side.sign * _WORST_MARKET) // listing.step * listing.step

    def _book(self, listing: Listing) -> Book:
        return self.exchange.books[listing.symbol]

    def _order_id(self, listing: Listing) -> str:
        self._next_order[listing.future] += 1
        return str(self._next_order[listing.future])


def _same(order: Order, ask: Ask) -> bool:
    return order.listing is ask.listing and order.side is ask.side


def _plain_ask(listing: Listing, side: Side, lots: Decimal) -> Ask:
    return Ask(
        listing=listing,
        side=side,
        kind="market",
        quantity=lots,
        price=None,
        comment=None,
        tif="oneday",
        visible=None,
        variance=0,
        trigger=None,
        condition="",
        ends_ms=None,
        protecting_ms=0,
        active=True,
    )
