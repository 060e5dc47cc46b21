"""Decides. One connection's talk with T-Invest, sans I/O: one method a socket, one request, then listening. §2, §3.

Each stream of an account carries many accounts of one token. It is ready once each of them is acknowledged; one that
the venue does not know is told by itself, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from engine.core.facts import Fact
from engine.core.orders import Command
from engine.core.venue import (
    TROUBLES,
    Catalogue,
    Conversation,
    ErrorClass,
    Frame,
    Handshake,
    Heard,
    Login,
    Notice,
    Said,
    Trouble,
)
from engine.venues.tinvest import rows
from engine.venues.tinvest.casing import camel
from engine.venues.tinvest.errors import CLOSES, COOL_DOWN_S, MEANINGS, STREAMS_FULL, Status, code_in, trouble
from engine.venues.tinvest.names import Names
from engine.venues.tinvest.numbers import UNREADABLE, Enum, Time, word
from engine.venues.tinvest.orders import CONTRACT
from engine.venues.tinvest.sign import bearer

_NUL = b"\\u0000"  # no honest text of T-Invest holds one, and databases refuse it
_MISSED_PINGS = 3  # so many in a row and the stream is mute, though its socket lives (§2.5)
_SLOW_RETRY_S = 60.0  # a fault that a person has to look into is not hammered at
_NUMBERS_KEPT = 10_000

METHODS = {
    "orders": "OrdersStreamService/OrderStateStream",
    "trades": "OrdersStreamService/TradesStream",
    "positions": "OperationsStreamService/PositionsStream",
    "portfolio": "OperationsStreamService/PortfolioStream",
    "operations": "OperationsStreamService/OperationsStream",
    "marketdata": "MarketDataStreamService/MarketDataStream",
}


class Row(msgspec.Struct, gc=False, rename="camel"):
    """Absent, null and the default are alike."""


class Ping(Row):
    time: Time = None
    ping_request_time: Time = None


class Envelope(Row):
    """What any frame may be beside its stream's own members; an error stands alone, or is wrapped (§2.4)."""

    ping: Ping | None = None
    code: int | None = None
    message: str | None = None
    details: Any = None
    error: Status | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


T = TypeVar("T", bound=Envelope)


class _Ack(Row):
    status: Enum = None
    accounts: list[str] | None = None
    error: Status | None = None


class _AckOfAccount(Row):
    account_id: str | None = None
    subscription_status: Enum = None


class _Acks(Row):
    accounts: list[_AckOfAccount | str] | None = None
    subscription_status: Enum = None  # of OperationsStream: one for all


class _OrdersFrame(Envelope):
    order_state: rows.StreamOrder | None = None
    subscription: _Ack | None = None
    stop_order_state: rows.StopOrder | None = None


class _TradesFrame(Envelope):
    order_trades: rows.OrderTrades | None = None
    order_state: rows.OrderTrades | None = None  # so in one description (§3.2)
    subscription: _Ack | None = None


class _PositionsFrame(Envelope):
    position: rows.PositionChange | None = None
    initial_positions: rows.Positions | None = None
    subscriptions: _Acks | None = None


class _PortfolioFrame(Envelope):
    portfolio: rows.Portfolio | None = None
    subscriptions: _Acks | None = None


class _OperationsFrame(Envelope):
    operation: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    subscriptions: _Acks | None = None


class Stream(Conversation):
    """What all streams have in common. It lives as long as the connection and is never reused."""

    kind = ""
    ping_ms_from = 5_000

    def __init__(
        self, *, channels: Sequence[str], logins: Sequence[Login], catalogue: Catalogue, options: Mapping[str, str]
    ) -> None:
        self.names = Names(catalogue)
        self.options, self.channels = options, channels
        self.refs = [login.ref for login in logins]
        self.ready = self._failed = False
        self._credentials = logins[0].credentials if logins else None
        self._proto = options.get("subprotocol", "json") == "json-proto"
        self.ping_ms = max(self.ping_ms_from, int(options.get("ping_ms", "5000")))
        self._heard_ms: int | None = None

    # ---- Speaking

    def handshake(self, now_ms: int) -> Handshake:
        """A token among the subprotocols is for whoever cannot set headers; there it may end in logs (§2.2)."""
        assert self._credentials is not None, "every stream of T-Invest is somebody's"
        protocol = "json-proto" if self._proto else "json"
        suffix = f"{CONTRACT}.{METHODS[self.kind]}"
        if self.options.get("token_in", "header") == "subprotocol":
            return Handshake(suffix=suffix, subprotocols=(protocol, self._credentials["token"].reveal()))
        headers = (("Authorization", bearer(self._credentials)),)
        return Handshake(suffix=suffix, subprotocols=(protocol,), headers=headers)

    def open(self, now_ms: int) -> Sequence[Frame]:
        self._heard_ms = now_ms
        return (msgspec.json.encode(self.request()).decode(),)

    def request(self) -> dict[str, object]:
        return {"accounts": self.refs, "pingSettings": {"pingDelayMs": self.ping_ms}}

    def beat(self, now_ms: int) -> Sequence[Frame]:
        """The venue pings by itself; to be sure of the line a protocol ping will do."""
        return ()

    def tick(self, now_ms: int) -> Heard | None:
        """Streams that live and say nothing are the most frequent trouble of all (§2.5, §8)."""
        if self._heard_ms is None or now_ms - self._heard_ms < _MISSED_PINGS * self.ping_ms:
            return None
        silent_s = (now_ms - self._heard_ms) // 1000
        self._heard_ms = now_ms
        return Heard(
            said=(Said(Notice.RETRY, f"mute: not even a ping for {silent_s} s", "mute", trouble=Trouble.SILENT),)
        )

    def say(self, commands: Sequence[Command], request_id: str, now_ms: int) -> Frame:
        raise ValueError("orders go to T-Invest over HTTP")

    # ---- Hearing

    def hear(self, frame: bytes, now_ms: int) -> Heard:
        self._heard_ms = now_ms
        try:
            if _NUL in frame:
                raise ValueError("a text with a NUL in it")
            return self.take(camel(frame) if self._proto else frame, now_ms)
        except (*UNREADABLE, LookupError) as error:
            return Heard(said=(unreadable(error),))

    def take(self, frame: bytes, now_ms: int) -> Heard:
        """One frame; may raise what UNREADABLE names."""
        raise NotImplementedError

    def opened(self, frame: bytes, decode: Callable[[bytes | msgspec.Raw], T]) -> T:
        """The frame, out of the envelope that one description puts it into (§2.4)."""
        found = decode(frame)
        if isinstance(found.result, msgspec.Raw):
            return decode(found.result)
        return found

    def other(self, found: Envelope) -> Heard:
        """A ping, an error, or something that is newer than this dialect: it is let pass (§1.3)."""
        if found.ping is not None:
            return Heard(said=(Said(Notice.PONG),))
        if found.error is not None:
            return Heard(said=self.failed(found.error))
        if found.code is not None and found.message is not None:
            return Heard(said=self.failed(Status(code=found.code, message=found.message, details=found.details)))
        return Heard(said=(Said(Notice.INFO, "a frame of a kind that is not known here"),))

    # ---- Acknowledgements

    def acknowledged(self, known: Sequence[str], unknown: Sequence[str]) -> Heard:
        """READY for those that are there; each that is not is told by itself."""
        said = [Said(Notice.AUTH_REFUSED, MEANINGS["50004"][1], "50004", ref=ref) for ref in unknown]
        if not known:
            said.append(Said(Notice.AUTH_REFUSED, MEANINGS["50004"][1], "50004"))
        elif not self.ready:
            self.ready = True
            said.append(Said(Notice.READY))
        return Heard(said=said)

    def acknowledged_one_by_one(self, acks: _Acks) -> Heard:
        """Of the operations' streams: a status for each account, or one for all (§3.3, §3.5)."""
        states = dict[str, str]()
        for ack in acks.accounts or ():
            if isinstance(ack, str):
                states[ack] = _outcome(acks.subscription_status)
            else:
                states[ack.account_id or ""] = _outcome(ack.subscription_status)
        broken = [ref for ref in self.refs if states.get(ref) not in ("success", "account_not_found")]
        if broken:
            told = f"not subscribed: {', '.join(f'{ref} {states.get(ref)}' for ref in broken[:5])}"
            return Heard(said=(Said(Notice.RETRY, told, after_s=_SLOW_RETRY_S),))
        known = [ref for ref in self.refs if states[ref] == "success"]
        return self.acknowledged(known, [ref for ref in self.refs if states[ref] == "account_not_found"])

    def acknowledged_together(self, ack: _Ack) -> Heard:
        """Of the orders' streams: one status for all, and the accounts that it holds for (§1.4)."""
        if word(ack.status, "RESULT_SUBSCRIPTION_STATUS_") != "ok":
            return Heard(said=self.failed(ack.error or Status(message=str(ack.status))))
        known = [ref for ref in self.refs if not ack.accounts or ref in ack.accounts]
        return self.acknowledged(known, [ref for ref in self.refs if ref not in known])

    # ---- Ends

    def failed(self, status: Status) -> tuple[Said, ...]:
        """An error ends the stream; the close that follows adds nothing."""
        self._failed = True
        found = trouble(status)
        match found.error_class:
            case ErrorClass.AUTH:
                return (Said(Notice.AUTH_REFUSED, found.reason, found.code),)
            case ErrorClass.RATE:
                pause_s = self.pause_s if found.code in (STREAMS_FULL, "gRPC 8") else _of_rate_s(found.code)
                return (Said(Notice.RETRY, found.reason, found.code, after_s=pause_s, trouble=Trouble.LIMIT),)
            case ErrorClass.NOT_FOUND if found.code == "50004":
                return self._account_missing(status, found.reason)
            case ErrorClass.UNKNOWN_OUTCOME | ErrorClass.RETRYABLE_READ:
                return (Said(Notice.RETRY, found.reason, found.code),)
            case _:
                meant = TROUBLES.get(found.error_class)
                return (Said(Notice.RETRY, found.reason, found.code, after_s=_SLOW_RETRY_S, trouble=meant),)

    def _account_missing(self, status: Status, reason: str) -> tuple[Said, ...]:
        """One unknown account fails the whole stream. Which one it is, the words may tell."""
        told = f"{status.message or ''} {status.details or ''}"
        named = [ref for ref in self.refs if ref in told] or (self.refs if len(self.refs) == 1 else [])
        if len(self.refs) == 1:
            return (Said(Notice.AUTH_REFUSED, reason, "50004"),)
        said = [Said(Notice.AUTH_REFUSED, reason, "50004", ref=ref) for ref in named]
        return (*said, Said(Notice.RETRY, f"{reason}: one of {len(self.refs)}", "50004", after_s=_SLOW_RETRY_S))

    @property
    def pause_s(self) -> float:
        return float(self.options.get("cool_down_s", str(COOL_DOWN_S)))

    def refused(self, status: int, now_ms: int) -> Said | None:
        if status in (401, 403):
            return Said(Notice.AUTH_REFUSED, "the token is not valid", f"HTTP {status}")
        if status == 429:
            told = "too many streams or requests"
            return Said(Notice.RETRY, told, "HTTP 429", after_s=self.pause_s, trouble=Trouble.LIMIT)
        return None

    def closed(self, code: int, reason: str) -> Said | None:
        if self._failed:
            return None
        if code_in(reason) in MEANINGS:
            return self.failed(Status(message=reason))[-1]
        if code == 4016:
            return Said(Notice.AUTH_REFUSED, CLOSES[code], str(code))
        if code == 4008:
            return Said(Notice.RETRY, CLOSES[code], str(code), after_s=self.pause_s, trouble=Trouble.LIMIT)
        if code in CLOSES:
            return Said(Notice.RETRY, f"{CLOSES[code]} ({reason})"[:300], str(code), after_s=_SLOW_RETRY_S)
        return None


def _of_rate_s(code: str) -> float:
    """A stream that was merely too old, or empty, is opened anew at once."""
    return 0.0 if code in ("80004", "80005") else _SLOW_RETRY_S


def _outcome(status: Enum) -> str:
    """POSITIONS_SUBSCRIPTION_STATUS_SUCCESS and its sisters (§3.3, §3.4)."""
    return word(status, "").partition("subscription_status_")[2]


def unreadable(error: Exception) -> Said:
    return Said(Notice.UNREADABLE, f"{type(error).__name__}: {error}"[:300])


_orders_frame = msgspec.json.Decoder(_OrdersFrame).decode
_trades_frame = msgspec.json.Decoder(_TradesFrame).decode
_positions_frame = msgspec.json.Decoder(_PositionsFrame).decode
_portfolio_frame = msgspec.json.Decoder(_PortfolioFrame).decode
_operations_frame = msgspec.json.Decoder(_OperationsFrame).decode


class OrdersTalk(Stream):
    """OrderStateStream."""

    kind = "orders"
    ping_ms_from = 1_000

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self._numbers: dict[tuple[str, str], str] = {}  # the exchange's number by account and key

    def request(self) -> dict[str, object]:
        return {"accounts": self.refs, "pingDelayMillis": min(self.ping_ms, 120_000)}

    def take(self, frame: bytes, now_ms: int) -> Heard:
        found = self.opened(frame, _orders_frame)
        if found.order_state is not None:
            return Heard(self._order(found.order_state, now_ms), "orders")
        if found.subscription is not None:
            return self.acknowledged_together(found.subscription)
        if found.stop_order_state is not None:
            return Heard(said=(Said(Notice.INFO, f"stop order {found.stop_order_state.stop_order_id} changed"),))
        return self.other(found)

    def _order(self, row: rows.StreamOrder, now_ms: int) -> list[Fact]:
        ref, order_id, request_id = row.account_id or "", row.order_id or "", row.order_request_id or ""
        if not rows.is_internal(order_id, request_id):
            if request_id:
                self._remember(ref, request_id, order_id)
            order, fills = rows.stream_order(row, self.names, now_ms, ref)
            return [order, *fills]
        # The first word of an order, under an id of the venue's own: the next one has the exchange's number, and
        # under two ids it would look like two orders. Only one that came to nothing without a number is told so.
        number = self._numbers.get((ref, request_id)) if request_id else None
        if number is not None:
            row.order_id = number
        elif not (order_id or request_id):
            raise ValueError("an order without any id")
        else:
            row.order_id = order_id or request_id
        order, fills = rows.stream_order(row, self.names, now_ms, ref)
        if number is None and (order.filled or not order.status.terminal):
            return []
        return [order, *fills]

    def _remember(self, ref: str, request_id: str, order_id: str) -> None:
        while len(self._numbers) >= _NUMBERS_KEPT:
            del self._numbers[next(iter(self._numbers))]
        self._numbers[ref, request_id] = order_id


class TradesTalk(Stream):
    """TradesStream: deprecated, fills alone."""

    kind = "trades"

    def request(self) -> dict[str, object]:
        return {"accounts": self.refs, "pingDelayMs": self.ping_ms}

    def take(self, frame: bytes, now_ms: int) -> Heard:
        found = self.opened(frame, _trades_frame)
        row = found.order_trades or found.order_state
        if row is not None:
            return Heard(rows.order_trades(row, self.names, now_ms, row.account_id or ""), "trades")
        if found.subscription is not None:
            return self.acknowledged_together(found.subscription)
        return self.other(found)


class PositionsTalk(Stream):
    """PositionsStream."""

    kind = "positions"

    def request(self) -> dict[str, object]:
        return {**super().request(), "withInitialPositions": self.options.get("initial_positions") == "yes"}

    def take(self, frame: bytes, now_ms: int) -> Heard:
        found = self.opened(frame, _positions_frame)
        if (change := found.position) is not None:
            return Heard(rows.position_change(change, self.names, now_ms, change.account_id or ""), "positions")
        if (whole := found.initial_positions) is not None:
            return Heard(rows.positions(whole, self.names, now_ms, whole.account_id or ""), "positions")
        if found.subscriptions is not None:
            return self.acknowledged_one_by_one(found.subscriptions)
        return self.other(found)


class PortfolioTalk(Stream):
    """PortfolioStream: what an account is worth."""

    kind = "portfolio"

    def take(self, frame: bytes, now_ms: int) -> Heard:
        found = self.opened(frame, _portfolio_frame)
        if (portfolio := found.portfolio) is not None:
            return Heard(rows.equity(portfolio, now_ms, portfolio.account_id or ""), "portfolio")
        if found.subscriptions is not None:
            return self.acknowledged_one_by_one(found.subscriptions)
        return self.other(found)


class OperationsTalk(Stream):
    """OperationsStream: that something was booked. Its rows have no numbers, so that the history is read for them."""

    kind = "operations"

    def take(self, frame: bytes, now_ms: int) -> Heard:
        found = self.opened(frame, _operations_frame)
        if isinstance(found.operation, msgspec.Raw):
            return Heard(channel="operations")
        if found.subscriptions is not None:
            return self.acknowledged_one_by_one(found.subscriptions)
        return self.other(found)
