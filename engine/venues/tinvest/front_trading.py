"""Decides. What becomes of orders at the T-Invest front: checks, matching, money, operations (dossier §4, §5, §9).

What a stream may have to tell is appended to `told` in the order in which it happened; who is told, and when, is the
front's. Lots meet in the books; pieces are held.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from decimal import Decimal
from uuid import UUID

import msgspec

from engine.core.facts import Side
from engine.core.matching import Ended, Exchange, Trade, Why
from engine.core.orders import OrderType
from engine.venues.tinvest.front_rules import Listing, Rules, Turned
from engine.venues.tinvest.front_state import (
    CANCELLED,
    FILL,
    PARTIAL,
    REJECTED,
    ZERO,
    Customer,
    Execution,
    Futures,
    Operation,
    Order,
    Stop,
)

_WORST_MARKET = Decimal("0.05")  # a market order is held within five per cent of the mark
_BEST = Decimal("0.003")
_BAND = Decimal("0.2")
_GUARANTEE = Decimal("0.1")  # of a future's value
_KOPECK = Decimal("0.01")
_CAUSES = {
    Why.REQUESTED: "CANCELLED_BY_CLIENT",
    Why.REMAINDER: "CANCELLED_BY_EXCHANGE",
    Why.UNFILLABLE: "CANCELLED_BY_EXCHANGE",
    Why.SELF_TRADE: "CANCELLED_BY_EXCHANGE",
    Why.WOULD_TAKE: "CANCELLED_BY_EXCHANGE",
}
replace = msgspec.structs.replace


class OrderTold(msgspec.Struct, frozen=True):
    """An order as it is now; `latest` are the fills that are new in it."""

    customer: Customer
    order: Order
    latest: tuple[Execution, ...] = ()


class HoldingsTold(msgspec.Struct, frozen=True):
    """What changed of an account's holdings: currencies, tickers."""

    customer: Customer
    currencies: tuple[str, ...] = ()
    tickers: tuple[str, ...] = ()


class OperationTold(msgspec.Struct, frozen=True):
    customer: Customer
    operation: Operation


class StopTold(msgspec.Struct, frozen=True):
    customer: Customer
    stop: Stop


Told = OrderTold | HoldingsTold | OperationTold | StopTold


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A new order as it was asked for, checked for form."""

    listing: Listing
    side: Side
    kind: str
    in_force: str
    lots: Decimal
    price: Decimal
    request_id: str
    stream_key: str = ""
    ours: bool = True


class Trading:
    """All accounts' orders over one exchange."""

    def __init__(self, exchange: Exchange, listings: Iterable[Listing], rules: Rules, rng: random.Random) -> None:
        self.exchange, self.rules, self._rng = exchange, rules, rng
        self.listings = {listing.ticker: listing for listing in listings}
        self.customers: dict[str, Customer] = {}
        self.told: list[Told] = []
        self.stirred: set[str] = set()
        self.traded: list[Trade] = []  # for the market's own streams
        self._causes: dict[int, str] = {}
        self._next_order = 61_950_000_000 + rng.randrange(10**6)
        self._next_trade = 9_900_000_000 + rng.randrange(10**6)
        self._next_operation = 0

    def uuid(self) -> str:
        return str(UUID(int=self._rng.getrandbits(128), version=4))

    # ---- What is asked

    def place(
        self, customer: Customer, asked: Asked, now_ms: int, *, rejected: str = "", marker: str = "UNKNOWN"
    ) -> Order:
        """Check and match. Raises Turned, and then nothing has happened; `rejected`: by the exchange, afterwards."""
        listing = asked.listing
        self._check(listing, asked)
        price = asked.price or self._worst(listing, asked.side, _BEST if asked.kind == "BESTPRICE" else _WORST_MARKET)
        if not rejected and marker == "UNKNOWN":
            self._check_funds(customer, listing, asked, price)
        self._next_order += 1
        request_id = asked.request_id or self.uuid()
        order = Order(
            number=self._next_order,
            internal_id=self.uuid(),
            request_id=request_id,
            stream_key=asked.stream_key or request_id,
            ours=asked.ours,
            listing=listing,
            side=asked.side,
            kind=asked.kind,
            in_force=asked.in_force,
            lots=asked.lots,
            price=price,
            marker=marker,
            created_ms=now_ms,
            updated_ms=now_ms,
        )
        self._put(customer, order)
        if rejected:
            self._put(
                customer,
                replace(order, state=REJECTED, cause="REJECTED_BY_EXCHANGE", message=rejected, completed_ms=now_ms),
            )
            return customer.orders[order.number]
        self.exchange.books[listing.ticker].submit(
            str(order.number), customer.name, order.side, _type_of(order), order.lots, price
        )
        self.settle(now_ms)
        return customer.orders[order.number]

    def cancel(self, customer: Customer, order: Order, now_ms: int, cause: str = "CANCELLED_BY_CLIENT") -> None:
        """Raises Turned 30059 when it is not at work."""
        if not order.open:
            raise Turned("30059")
        self._causes[order.number] = cause
        self.exchange.books[order.listing.ticker].cancel(str(order.number))
        self.settle(now_ms)

    def put_stop(self, customer: Customer, stop: Stop) -> None:
        customer.stops[stop.stop_id] = stop
        customer.stop_requests[stop.request_id] = stop.stop_id
        self.told.append(StopTold(customer, stop))

    def look_at_stops(self, now_ms: int) -> None:
        """Those whose price was reached become orders."""
        for customer in self.customers.values():
            for stop in [s for s in customer.stops.values() if s.state == "ACTIVE"]:
                mark = self.exchange.marks[stop.listing.ticker]
                rising = (stop.side is Side.BUY) is not (stop.kind == "TAKE_PROFIT")
                if (mark >= stop.stop_price) is not rising and mark != stop.stop_price:
                    continue
                asked = Asked(
                    listing=stop.listing,
                    side=stop.side,
                    kind="LIMIT" if stop.kind == "STOP_LIMIT" else "MARKET",
                    in_force="DAY",
                    lots=stop.lots,
                    price=stop.price if stop.kind == "STOP_LIMIT" else ZERO,
                    request_id="",
                    ours=False,
                )
                try:
                    made = self.place(customer, asked, now_ms).number
                except Turned:
                    made = 0
                done = replace(stop, state="EXECUTED", made=made, activated_ms=now_ms)
                customer.stops[stop.stop_id] = done
                self.told.append(StopTold(customer, done))

    # ---- Checks

    def _check(self, listing: Listing, asked: Asked) -> None:
        if asked.lots <= 0 or asked.lots > 1_000_000:
            raise Turned("30016")
        if asked.kind == "LIMIT":
            if asked.price <= 0:
                raise Turned("30017")
            if asked.price % listing.tick:
                raise Turned("30078")
            mark = self.exchange.marks[listing.ticker]
            if abs(asked.price - mark) > mark * _BAND:
                raise Turned("30099")
        if asked.in_force == "FILL_OR_KILL" and listing.future:
            raise Turned("30254", "time in force is not allowed here")

    def _check_funds(self, customer: Customer, listing: Listing, asked: Asked, price: Decimal) -> None:
        view, worth = customer.view(), listing.value(asked.lots, price)
        refusal = "30034" if self.rules.sandbox else "30042"
        free = view.cash.get("RUB", ZERO) - view.blocked_cash.get("RUB", ZERO)
        if listing.future:
            if worth * _GUARANTEE > free:
                raise Turned(refusal)
        elif asked.side is Side.BUY:
            if worth > free:
                raise Turned(refusal)
        else:
            money = listing.kind == "currency"
            held = (view.cash if money else view.pieces).get(listing.base, ZERO)
            held -= (view.blocked_cash if money else view.blocked_pieces).get(listing.base, ZERO)
            if asked.lots * listing.lot > held:
                raise Turned(refusal)

    def _worst(self, listing: Listing, side: Side, share: Decimal) -> Decimal:
        mark = self.exchange.marks[listing.ticker]
        return max(listing.tick, mark * (1 + share * side.sign) // listing.tick * listing.tick)

    # ---- What happens

    def settle(self, now_ms: int) -> None:
        """Book everything that the exchange's log holds."""
        for event in self.exchange.take_log():
            self.stirred.add(event.symbol)
            match event:
                case Trade():
                    self.traded.append(event)
                    self._next_trade += 1
                    for owner, number in ((event.taker_owner, event.taker), (event.maker_owner, event.maker)):
                        customer = self.customers.get(owner)
                        if customer is not None:
                            self._fill(customer, int(number), event.price, event.quantity, now_ms)
                case Ended() if event.owner in self.customers:
                    self._ended(self.customers[event.owner], int(event.order_id), event.why, now_ms)
                case _:
                    pass

    def _fill(self, customer: Customer, number: int, price: Decimal, lots: Decimal, now_ms: int) -> None:
        order = customer.orders[number]
        listing = order.listing
        assert order.executed + lots <= order.lots, "no order is filled beyond its size"
        differs = 0 if self.rules.same_trade_numbers else 10**12
        execution = Execution(
            trade_id=self._next_trade, num=self._next_trade + differs, lots=lots, price=price, at_ms=now_ms
        )
        done = order.executed + lots == order.lots
        fee = (listing.value(lots, price) * self.rules.commission).quantize(_KOPECK)
        order = replace(
            order,
            executions=(*order.executions, execution),
            state=FILL if done else PARTIAL,
            commission=order.commission + fee,
            completed_ms=now_ms if done else None,
            updated_ms=now_ms,
        )
        self._put(customer, order, execution)
        self._book(customer, order, execution, fee, now_ms)

    def _book(self, customer: Customer, order: Order, execution: Execution, fee: Decimal, now_ms: int) -> None:
        """Money and holdings of one fill, and the operations that tell of them."""
        listing, sign = order.listing, order.side.sign
        operation = customer.of_order.get(order.number)
        if operation is None:
            operation = customer.of_order[order.number] = self._operation(
                customer, order.side.name, ZERO, now_ms, listing=listing, order=order
            )
        operation.order = order
        currencies, tickers = ["RUB"], []
        if listing.future:
            self._move_future(customer, listing, sign * execution.lots, execution.price, now_ms)
            tickers.append(listing.ticker)
        else:
            interest = listing.accrued * execution.lots * listing.lot
            paid = listing.value(execution.lots, execution.price) + interest
            operation.payment -= sign * paid
            operation.accrued += interest
            customer.cash["RUB"] -= sign * paid
            pieces = sign * execution.lots * listing.lot
            if listing.kind == "currency":
                customer.cash[listing.base] = customer.cash.get(listing.base, ZERO) + pieces
                currencies.append(listing.base)
            else:
                customer.pieces[listing.base] = customer.pieces.get(listing.base, ZERO) + pieces
                tickers.append(listing.ticker)
        if fee:
            self._operation(customer, "BROKER_FEE", -fee, now_ms, listing=listing, parent=operation.op_id)
            customer.cash["RUB"] -= fee
        customer.keep_view(now_ms)
        self.told.append(OperationTold(customer, operation))
        self.told.append(HoldingsTold(customer, tuple(currencies), tuple(tickers)))

    def _move_future(self, customer: Customer, listing: Listing, lots: Decimal, price: Decimal, now_ms: int) -> None:
        """What is closed is settled at once; a real venue does it at the clearing."""
        held = customer.futures.get(listing.ticker, Futures(ZERO, ZERO))
        after = held.lots + lots
        if held.lots * lots >= 0:
            average = (held.lots * held.average + lots * price) / after if after else ZERO
        else:
            closed = -lots if abs(lots) <= abs(held.lots) else held.lots
            self._variation(customer, listing, listing.value(closed, price - held.average), now_ms)
            average = held.average if held.lots * after > 0 else price
        customer.futures[listing.ticker] = Futures(after, average if after else ZERO)

    def _variation(self, customer: Customer, listing: Listing, gain: Decimal, now_ms: int) -> None:
        gain = gain.quantize(_KOPECK)
        if gain:
            kind = "ACCRUING_VARMARGIN" if gain > 0 else "WRITING_OFF_VARMARGIN"
            self._operation(customer, kind, gain, now_ms, listing=listing)
            customer.cash["RUB"] += gain

    def clear(self, ticker: str, now_ms: int) -> int:
        """The clearing: positions in a future are settled at the mark. How many there were."""
        count = 0
        for customer in self.customers.values():
            held = customer.futures.get(ticker)
            if held is not None and held.lots:
                mark, listing = self.exchange.marks[ticker], self.listings[ticker]
                self._variation(customer, listing, listing.value(held.lots, mark - held.average), now_ms)
                customer.futures[ticker] = Futures(held.lots, mark)
                customer.keep_view(now_ms)
                self.told.append(HoldingsTold(customer, ("RUB",), ()))
                count += 1
        return count

    def transfer(self, customer: Customer, currency: str, amount: Decimal, now_ms: int) -> None:
        """Of money, or of securities by their ticker: then whole pieces of it, if there are any."""
        listing = self.listings.get(currency)
        if listing is not None and listing.kind in ("share", "bond"):
            pieces = Decimal(int(amount / listing.worth))
            kind = "INPUT_SECURITIES" if pieces > 0 else "OUTPUT_SECURITIES"
            if pieces:
                operation = self._operation(customer, kind, ZERO, now_ms, listing=listing)
                operation.pieces = abs(pieces)
                customer.pieces[listing.base] = customer.pieces.get(listing.base, ZERO) + pieces
                customer.keep_view(now_ms)
                self.told.append(OperationTold(customer, operation))
                self.told.append(HoldingsTold(customer, (), (currency,)))
            return
        kind = "INPUT" if amount > 0 else "OUTPUT"
        operation = self._operation(customer, kind, amount, now_ms, currency=currency)
        customer.cash[currency] = customer.cash.get(currency, ZERO) + amount
        customer.keep_view(now_ms)
        self.told.append(OperationTold(customer, operation))
        self.told.append(HoldingsTold(customer, (currency,), ()))

    def liquidate(self, customer: Customer, ticker: str, now_ms: int) -> int:
        """The broker closes what is held of it: an order of its own with a mark on it."""
        listing = self.listings[ticker]
        lots = customer.futures[ticker].lots if ticker in customer.futures else ZERO
        if not listing.future:
            lots = customer.pieces.get(listing.base, ZERO) // listing.lot
        if not lots:
            return 0
        asked = Asked(
            listing=listing,
            side=Side.SELL if lots > 0 else Side.BUY,
            kind="MARKET",
            in_force="DAY",
            lots=abs(lots),
            price=ZERO,
            request_id="",
            ours=False,
        )
        self.place(customer, asked, now_ms, marker="MARGIN")
        return 1

    def _operation(
        self,
        customer: Customer,
        kind: str,
        payment: Decimal,
        now_ms: int,
        *,
        currency: str = "RUB",
        listing: Listing | None = None,
        order: Order | None = None,
        parent: str = "",
    ) -> Operation:
        self._next_operation += 1
        operation = Operation(
            op_id=f"{self._next_operation:08d}",
            parent=parent,
            kind=kind,
            payment=payment,
            currency=currency.lower(),
            listing=listing,
            order=order,
            at_ms=now_ms,
            visible_ms=now_ms + self.rules.operations_lag_ms,
        )
        customer.operations.append(operation)
        return operation

    def _ended(self, customer: Customer, number: int, why: Why, now_ms: int) -> None:
        order = customer.orders[number]
        partly = bool(order.executions) and self.rules.partial_end == "partiallyfill"
        self._put(
            customer,
            replace(
                order,
                state=PARTIAL if partly else CANCELLED,
                cause=self._causes.pop(number, _CAUSES[why]),
                completed_ms=now_ms,
                updated_ms=now_ms,
            ),
        )

    def _put(self, customer: Customer, order: Order, *latest: Execution) -> None:
        customer.put(order)
        view = customer.keep_view(order.updated_ms)
        self.told.append(OrderTold(customer, order, latest))
        blocked = order.listing.base if order.side is Side.SELL else "RUB"
        money = blocked == "RUB" or order.listing.kind == "currency"
        if not latest and not order.listing.future and (order.open or view):
            tickers = () if money else (order.listing.ticker,)
            self.told.append(HoldingsTold(customer, (blocked,) if money else (), tickers))


def _type_of(order: Order) -> OrderType:
    if order.kind != "LIMIT":
        return OrderType.IOC  # at the worst price that is let through
    if order.in_force == "FILL_AND_KILL":
        return OrderType.IOC
    return OrderType.FOK if order.in_force == "FILL_OR_KILL" else OrderType.LIMIT
