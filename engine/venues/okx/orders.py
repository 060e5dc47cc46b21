"""Decides. Our commands in OKX's words, and its answers as outcomes; the same over the stream and HTTP.

OKX dossier §5, §10. The only differences between the two ways are the address of the instrument (`instIdCode` on the
stream, `instId` over HTTP) and where the deadline stands.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.core.facts import Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.orders import Accepted, Amend, Cancel, Command, Outcome, Place, Refused, Unknown
from engine.core.venue import ErrorClass
from engine.venues.okx.errors import ASK_AGAIN, DUPLICATE_ID, ORDER_GONE, of_request, of_row, reason
from engine.venues.okx.numbers import plain
from engine.venues.okx.symbols import ref_of

MAX_BATCH = 20


class PlaceArg(msgspec.Struct, omit_defaults=True, gc=False):
    clOrdId: str
    tdMode: str
    side: str
    ordType: str
    sz: str
    px: str = ""
    posSide: str = ""
    reduceOnly: bool = False
    tgtCcy: str = ""
    instIdCode: int | None = None
    instId: str = ""


class AmendArg(msgspec.Struct, omit_defaults=True, gc=False):
    reqId: str
    ordId: str = ""
    clOrdId: str = ""
    newSz: str = ""
    newPx: str = ""
    instIdCode: int | None = None
    instId: str = ""


class CancelArg(msgspec.Struct, omit_defaults=True, gc=False):
    ordId: str = ""
    clOrdId: str = ""
    instIdCode: int | None = None
    instId: str = ""


Arg = PlaceArg | AmendArg | CancelArg


class Operation(msgspec.Struct, frozen=True):
    """One kind of order operation: its names on the stream and its paths over HTTP, single and batch."""

    op: str
    batch_op: str
    path: str
    batch_path: str
    rule: str


OPERATIONS: dict[type[Command], Operation] = {
    Place: Operation("order", "batch-orders", "order", "batch-orders", "place"),
    Amend: Operation("amend-order", "batch-amend-orders", "amend-order", "amend-batch-orders", "amend"),
    Cancel: Operation("cancel-order", "batch-cancel-orders", "cancel-order", "cancel-batch-orders", "cancel"),
}


def operation(commands: Sequence[Command]) -> Operation:
    """The operation of a batch; ValueError for a batch that OKX has no words for."""
    kind = type(commands[0]) if commands else None
    if kind is None or len(commands) > MAX_BATCH or any(type(c) is not kind for c in commands):
        raise ValueError(f"a batch holds 1 to {MAX_BATCH} commands of one kind, not {len(commands)}")
    return OPERATIONS[kind]


def argument(command: Command, *, stream: bool) -> Arg:
    """Raises ValueError for a command that cannot be said without changing its meaning; nothing may be sent then."""
    ref = ref_of(command.instrument.venue_ref)
    code, symbol = (ref.code, "") if stream else (None, ref.symbol)
    if stream and code is None:
        raise ValueError(f"{command.instrument.name} has no instIdCode: it cannot be traded over the stream")
    match command:
        case Place():
            price = command.price
            _check_place(command)
            spot = command.instrument.kind is InstrumentKind.SPOT
            return PlaceArg(
                clOrdId=command.client_order_id,
                tdMode=command.margin_mode,
                side=command.side.value,
                ordType=command.order_type.value,
                sz=plain(command.quantity),
                px="" if price is None else plain(price),
                posSide="" if command.position_side == "net" else command.position_side,
                # Where positions have sides the side itself says that an order reduces; spot has nothing to reduce.
                reduceOnly=command.reduce_only
                and command.position_side == "net"
                and not (spot and command.margin_mode == "cash"),
                # Without it a market buy would be counted in the quote currency (§5.3).
                tgtCcy="base_ccy" if spot and price is None else "",
                instIdCode=code,
                instId=symbol,
            )
        case Amend():
            return AmendArg(
                reqId=command.amend_id,
                ordId=command.venue_order_id,
                clOrdId=command.client_order_id,
                newSz="" if command.new_quantity is None else plain(command.new_quantity),
                newPx="" if command.new_price is None else plain(command.new_price),
                instIdCode=code,
                instId=symbol,
            )
        case Cancel():
            return CancelArg(
                ordId=command.venue_order_id, clOrdId=command.client_order_id, instIdCode=code, instId=symbol
            )


def _check_place(place: Place) -> None:
    market = place.order_type.value == "market"
    if market != (place.price is None):
        raise ValueError(f"a {place.order_type.value} order {'takes no' if market else 'needs a'} price")
    if market and _is_isolated_spot_buy(place):
        raise ValueError("a market buy on isolated margin is counted in the quote currency: send a limit order")
    closes = {("long", Side.SELL), ("short", Side.BUY)}
    if place.reduce_only and place.position_side != "net" and (place.position_side, place.side) not in closes:
        raise ValueError(f"reduce-only, but {place.side.value} opens a {place.position_side} position")


def _is_isolated_spot_buy(place: Place) -> bool:
    """The unit switch is for spot only (§5.3). In cross mode OKX itself refuses a margin order without `ccy`."""
    return place.instrument.kind is InstrumentKind.SPOT and place.margin_mode == "isolated" and place.side is Side.BUY


def deadline(commands: Sequence[Command]) -> int | None:
    """When the venue must refuse the whole request: the earliest of its commands. Cancels have none (§5.3)."""
    limits = [c.expires_at_ms for c in commands if not isinstance(c, Cancel) and c.expires_at_ms is not None]
    return min(limits) if limits else None


def instrument_of(commands: Sequence[Command]) -> Instrument:
    return commands[0].instrument


# ---- Answers


class Answer(msgspec.Struct, gc=False):
    """One order's own answer."""

    sCode: str = ""
    sMsg: str = ""
    ordId: str = ""
    clOrdId: str = ""


def outcomes(commands: Sequence[Command], code: str, message: str, rows: Sequence[Answer]) -> tuple[Outcome, ...]:
    """What became of each command. Whatever the answer does not say plainly of a command is Unknown."""
    if not rows:
        return tuple(_of_request(c, code, message) for c in commands)
    found = _paired(commands, rows)
    return tuple(
        Unknown("the answer does not name this order") if row is None else _of_row(command, row)
        for command, row in zip(commands, found, strict=True)
    )


def _paired(commands: Sequence[Command], rows: Sequence[Answer]) -> list[Answer | None]:
    """Each command's row by its ids; by its place only where the row has no ids at all."""
    by_id = dict[str, Answer | None]()
    for answer in rows:
        for key in (f"c{answer.clOrdId}" if answer.clOrdId else "", f"v{answer.ordId}" if answer.ordId else ""):
            if key:
                by_id[key] = None if key in by_id else answer  # named twice: which of them is true nobody knows
    in_place = len(rows) == len(commands)
    found = list[Answer | None]()
    for n, command in enumerate(commands):
        row = by_id.get(f"c{command.client_order_id}")
        if row is None and not isinstance(command, Place):
            row = by_id.get(f"v{command.venue_order_id}")
        if row is None and in_place and not rows[n].clOrdId and not rows[n].ordId:
            row = rows[n]
        found.append(row)
    return found


def _of_row(command: Command, row: Answer) -> Outcome:
    if row.sCode == "0":
        order_id = row.ordId or ("" if isinstance(command, Place) else command.venue_order_id)
        return Accepted(order_id) if order_id else Unknown("accepted, but without an order id")
    return _refusal(command, row.sCode, row.sMsg, of_row(row.sCode))


def _of_request(command: Command, code: str, message: str) -> Outcome:
    """The request was answered as a whole. "0", "1" and "2" promise rows, so without rows they tell nothing."""
    return _refusal(command, code, message, of_request(code))


def _refusal(command: Command, code: str, message: str, error_class: ErrorClass) -> Outcome:
    if isinstance(command, Place) and code in DUPLICATE_ID:
        return Unknown(f"{code}: an order with this id exists: look it up")
    if error_class is ErrorClass.UNKNOWN_OUTCOME:
        return Unknown(f"{code}: {reason(code, message)}" if code else "an answer without a code")
    gone = error_class in ORDER_GONE and not isinstance(command, Place)
    return Refused(code, reason(code, message), again=error_class in ASK_AGAIN, target_gone=gone)
