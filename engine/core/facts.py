"""Holds. Facts: what a venue said, in our words. Streamed and fetched facts are the same values.

A fact's `key` is the venue's own identity of it within one account: the ledger stores each (account, kind, key)
once, however often and over whichever way it arrives. Quantities are in the instrument's venue unit, times are
milliseconds since 1970 in UTC, money is Decimal. `account_ref` is the venue's name of the account where one
connection carries several; "" means the connection's own listener.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        return 1 if self is Side.BUY else -1


class OrderStatus(StrEnum):
    """What the venue says of an order. A partial fill is a quantity, not a status."""

    WORKING = "working"
    FILLED = "filled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REJECTED = "rejected"

    @property
    def terminal(self) -> bool:
        return self is not OrderStatus.WORKING


REPLACED = "replaced"
"""The `venue_action` of an order that ended because another one, with the same id of ours, takes its place.

One whose successor the venue tells without our id names it in `replaced_by`.
"""


class OrderFact(msgspec.Struct, frozen=True, kw_only=True, tag="order", omit_defaults=True):
    """An order's state at the venue at `updated_at_ms`; `filled` is cumulative."""

    instrument: str
    venue_order_id: str
    client_order_id: str = ""
    side: Side
    order_type: str
    quantity: Decimal
    price: Decimal | None = None
    filled: Decimal
    avg_price: Decimal | None = None
    status: OrderStatus
    reduce_only: bool = False
    position_side: str = "net"
    reason: str = ""  # why cancelled or rejected, the venue's code and word
    venue_action: str = ""  # "" or the venue's own doing: liquidation, adl, delivery, …; or REPLACED
    replaced_by: str = ""  # the venue's id of the order that takes its place, "" where our id tells
    amend_id: str = ""  # our id of the amendment this state answers, "" when none
    amend_failed: str = ""  # why that amendment failed, "" when it did not
    quantity_in_quote: bool = False  # spot market orders sized in quote: never compare quantity with filled
    created_at_ms: int
    updated_at_ms: int
    account_ref: str = ""

    @property
    def key(self) -> str:
        state = f"{self.venue_order_id}:{self.status.value}:{self.filled}:{self.updated_at_ms}"
        # A refused amendment changes nothing else, so its answer would pass for a repetition.
        return f"{state}:{self.amend_id}" if self.amend_id else state

    @property
    def at_ms(self) -> int:
        return self.updated_at_ms


class FillFact(msgspec.Struct, frozen=True, kw_only=True, tag="fill", omit_defaults=True):
    """One execution. `fill_id` is the venue's identity of it, the same in the stream and in history."""

    instrument: str
    fill_id: str
    venue_order_id: str
    client_order_id: str = ""
    side: Side
    position_side: str = "net"
    quantity: Decimal
    price: Decimal
    fee: Decimal | None = None  # negative: charged; None: this way of hearing it does not tell
    fee_currency: str = ""
    realised: Decimal | None = None  # gain realised by this fill, fees excluded, in the settle currency
    liquidity: str = ""  # "maker" or "taker"
    venue_action: str = ""
    trade_number: int | None = None  # the venue's ascending trade number in this instrument, where it has one
    history_id: str = ""  # the venue's id of the row in its history (OKX: billId); "" from the stream
    traded_at_ms: int
    account_ref: str = ""

    @property
    def key(self) -> str:
        return self.fill_id

    @property
    def at_ms(self) -> int:
        return self.traded_at_ms


class PositionFact(msgspec.Struct, frozen=True, kw_only=True, tag="position", omit_defaults=True):
    """A position as the venue states it; `quantity` is signed (short < 0), 0 is flat."""

    instrument: str
    position_side: str = "net"  # net, long, short
    margin_mode: str = ""
    quantity: Decimal
    avg_price: Decimal | None = None
    unrealised: Decimal | None = None
    last_trade_number: int | None = None  # contains every fill up to this trade number
    position_id: str = ""
    updated_at_ms: int
    account_ref: str = ""

    @property
    def key(self) -> str:
        return f"{self.instrument}:{self.position_side}:{self.margin_mode}:{self.updated_at_ms}:{self.quantity}"

    @property
    def at_ms(self) -> int:
        return self.updated_at_ms


class BalanceFact(msgspec.Struct, frozen=True, kw_only=True, tag="balance", omit_defaults=True):
    """Cash of one currency as the venue states it."""

    currency: str
    cash: Decimal
    available: Decimal | None = None
    equity: Decimal | None = None  # cash and unrealised result, where the venue tells
    updated_at_ms: int
    account_ref: str = ""

    @property
    def key(self) -> str:
        return f"{self.currency}:{self.updated_at_ms}:{self.cash}"

    @property
    def at_ms(self) -> int:
        return self.updated_at_ms


class EquityFact(msgspec.Struct, frozen=True, kw_only=True, tag="equity", omit_defaults=True):
    """The whole account's value as the venue states it: the NAV until marks value it ourselves."""

    currency: str
    total: Decimal
    available: Decimal | None = None
    updated_at_ms: int
    account_ref: str = ""

    @property
    def key(self) -> str:
        return f"{self.currency}:{self.updated_at_ms}"

    @property
    def at_ms(self) -> int:
        return self.updated_at_ms


class CashFact(msgspec.Struct, frozen=True, kw_only=True, tag="cash", omit_defaults=True):
    """One movement of cash. `kind`: trade, fee, funding, interest, transfer, liquidation, other."""

    cash_id: str
    currency: str
    amount: Decimal  # signed change of the balance
    balance_after: Decimal | None = None
    kind: str
    instrument: str = ""
    venue_order_id: str = ""
    fill_id: str = ""  # the fill that caused it; such a movement is already counted with its fill
    booked_at_ms: int
    account_ref: str = ""

    @property
    def key(self) -> str:
        return self.cash_id

    @property
    def at_ms(self) -> int:
        return self.booked_at_ms


class MarkFact(msgspec.Struct, frozen=True, kw_only=True, tag="mark", omit_defaults=True):
    """A price to value with. Kept in memory, not in the ledger."""

    instrument: str
    price: Decimal
    basis: str  # mark, last, bid, ask, index, close
    at_ms: int
    market: str = ""  # the exchange that this price was made on, where that is not the venue itself (MOEX)
    account_ref: str = ""

    @property
    def key(self) -> str:
        return f"{self.instrument}:{self.basis}:{self.at_ms}"


AccountFact = OrderFact | FillFact | PositionFact | BalanceFact | EquityFact | CashFact
"""Facts of one account: these go into the ledger."""

Fact = AccountFact | MarkFact


class Candle(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of one stretch of time. `volume` is in the instrument's venue unit; the last one may be unfinished."""

    instrument: str
    begins_at_ms: int
    interval_s: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    finished: bool = True
