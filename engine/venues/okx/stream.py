"""Decides. One connection's talk with OKX, sans I/O: log in, subscribe, read pushes, place orders. OKX dossier §2–§5.

Reading an `orders` push is the hot path: it is recognised by its first bytes and decoded in one step; every other
frame, and every frame that this step cannot read, takes the general way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from accounts.model import Credentials
from engine.core.facts import BalanceFact, Fact
from engine.core.instruments import Instrument
from engine.core.orders import Command, Unknown
from engine.core.venue import (
    TROUBLES,
    Conversation,
    ErrorClass,
    Frame,
    Heard,
    Notice,
    Reply,
    Said,
    Trouble,
)
from engine.venues.okx import rows
from engine.venues.okx.absence import Absence
from engine.venues.okx.errors import CLOSE_CODES, MEANINGS, reason
from engine.venues.okx.orders import Answer, argument, deadline, operation, outcomes
from engine.venues.okx.rows import UNREADABLE
from engine.venues.okx.sign import login
from engine.venues.okx.symbols import InstrumentRow, instrument_of, symbol_of

R = TypeVar("R")
F = TypeVar("F", bound=Fact)

ESSENTIAL = frozenset({"orders", "positions", "account", "balance_and_position"})
"""A connection without one of these that it asked for must not pass for live."""

_ASKED_LIMIT = 4096  # requests whose answer is awaited; the engine times each out long before
_ID_LENGTH = 32
_NUL = b"\\u0000"  # no honest text of OKX holds one, and databases refuse it
_ORDERS_PUSH = b'{"arg":{"channel":"orders"'


# ---- Frames as OKX sends them


class _Arg(msgspec.Struct, gc=False):
    channel: str = ""
    instType: str = ""
    instFamily: str = ""
    instId: str = ""
    ccy: str = ""


class _OrdersPush(msgspec.Struct, gc=False):
    arg: _Arg
    data: list[rows.OrderRow]


class _Envelope(msgspec.Struct, gc=False):
    event: str = ""
    op: str = ""
    id: str = ""
    code: str | int = ""
    msg: str = ""
    channel: str = ""
    connCount: str = ""
    arg: _Arg | None = None
    data: msgspec.Raw = msgspec.Raw()
    eventType: str = ""
    curPage: int | None = None
    lastPage: bool | None = None


class _BalanceAndPosition(msgspec.Struct, gc=False):
    balData: list[msgspec.Raw] = []
    posData: list[msgspec.Raw] = []


class _Request(msgspec.Struct, omit_defaults=True, gc=False):
    id: str
    op: str
    args: list[Any]
    expTime: str = ""


_orders_push = msgspec.json.Decoder(_OrdersPush).decode
_envelope = msgspec.json.Decoder(_Envelope).decode
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_answers = msgspec.json.Decoder(list[Answer]).decode
_order_row = msgspec.json.Decoder(rows.OrderRow).decode
_position_row = msgspec.json.Decoder(rows.PositionRow).decode
_balance_row = msgspec.json.Decoder(rows.BalanceRow).decode
_account_row = msgspec.json.Decoder(rows.AccountRow).decode
_both_row = msgspec.json.Decoder(_BalanceAndPosition).decode
_fill_row = msgspec.json.Decoder(rows.StreamFillRow).decode
_mark_row = msgspec.json.Decoder(rows.MarkRow).decode
_ticker_row = msgspec.json.Decoder(rows.TickerRow).decode
_instrument_row = msgspec.json.Decoder(InstrumentRow).decode
_encode = msgspec.json.Encoder().encode


# ---- Channels: "orders", "orders:SWAP", "tickers:BTC/USDT:USDT", "instruments:SWAP"


class _Key(NamedTuple):
    """What an acknowledgement is matched by: it may leave extraParams out (§2.5)."""

    channel: str
    inst_type: str = ""
    inst_family: str = ""
    inst_id: str = ""
    ccy: str = ""


_BY_TYPE = frozenset({"orders", "positions", "liquidation-warning", "orders-algo", "algo-advance", "instruments"})
_WITH_INTERVAL = frozenset({"positions", "account"})


def _key_of(channel: str) -> _Key:
    """A channel as a registry row names it: the name, and after the first ':' what it is narrowed to."""
    name, _, narrowed = channel.partition(":")
    if name in _BY_TYPE:
        return _Key(name, inst_type=narrowed or "ANY")
    if name == "account":
        return _Key(name, ccy=narrowed)
    try:
        return _Key(name, inst_id=symbol_of(narrowed) if narrowed else "")
    except ValueError:
        return _Key(name, inst_id=narrowed)  # OKX will refuse it, with its reason, and say so of this channel alone


def _subscription(key: _Key, request_id: str, update_interval_ms: str) -> str:
    arg = {"channel": key.channel}
    for name, value in (("instType", key.inst_type), ("instId", key.inst_id), ("ccy", key.ccy)):
        if value:
            arg[name] = value
    if key.channel in _WITH_INTERVAL:
        # A text that holds JSON, in exactly this form (§2.5).
        arg["extraParams"] = f'{{"updateInterval": "{update_interval_ms}"}}'
    return _encode(_Request(id=request_id, op="subscribe", args=[arg])).decode()


class Session(Conversation):
    """The conversation of one connection. It lives as long as the connection and is never reused."""

    def __init__(
        self,
        *,
        kind: str,
        channels: Sequence[str],
        credentials: Credentials | None,
        options: Mapping[str, str],
    ) -> None:
        self._kind = kind
        self._credentials = None if kind == "public" else credentials
        self._interval = options.get("update_interval_ms", "0")
        self._stop_on_60009 = options.get("generic_login_failure", "stop") == "stop"
        self._keys = tuple(dict.fromkeys(_key_of(c) for c in channels))
        self._pending = dict[_Key, str]()  # subscriptions not yet answered, with the id each went out under
        self._asked = dict[str, tuple[Command, ...]]()  # order requests not yet answered
        self._delivered = False  # at least one channel was acknowledged
        self._logging_in = False
        self._login_judged = False  # the refusal was told; the close frame that follows it adds nothing
        self._ready = False
        self._blind = False  # an essential channel was refused or taken away before everything was there
        self._absent_positions = Absence(rows.position_key, rows.flat)
        self._absent_balances = Absence(_currency, rows.empty)
        self._readers: dict[str, Callable[[_Envelope, _Told], None]] = {
            "orders": self._orders,
            "positions": self._positions,
            "balance_and_position": self._balance_and_position,
            "account": self._account,
            "fills": self._fills,
            "mark-price": self._marks,
            "tickers": self._tickers,
            "instruments": self._instruments,
        }

    # ---- Speaking

    def open(self, now_ms: int) -> Sequence[Frame]:
        if self._credentials is None:
            return self._subscribe()
        self._logging_in = True
        return (login(self._credentials, now_ms),)

    def beat(self, now_ms: int) -> Sequence[Frame]:
        return ("ping",)

    def say(self, commands: Sequence[Command], request_id: str, now_ms: int) -> Frame:
        """ValueError for what cannot be said without changing its meaning: nothing was sent then."""
        if not (request_id.isalnum() and request_id.isascii() and len(request_id) <= _ID_LENGTH):
            raise ValueError(f"a request id is 1 to {_ID_LENGTH} letters and digits, not {request_id!r}")
        operation_ = operation(commands)
        expires_at_ms = deadline(commands)
        frame = _encode(
            _Request(
                id=request_id,
                op=operation_.op if len(commands) == 1 else operation_.batch_op,
                args=[argument(command, stream=True) for command in commands],
                expTime="" if expires_at_ms is None else str(expires_at_ms),
            )
        ).decode()
        while len(self._asked) >= _ASKED_LIMIT:
            del self._asked[next(iter(self._asked))]
        self._asked[request_id] = tuple(commands)
        return frame

    def _subscribe(self) -> Sequence[Frame]:
        """One request for each channel: a refused one then takes no other with it (§2.5)."""
        self._pending = {key: f"s{n}" for n, key in enumerate(self._keys, start=1)}
        return tuple(_subscription(key, request_id, self._interval) for key, request_id in self._pending.items())

    # ---- Hearing

    def hear(self, frame: bytes, now_ms: int) -> Heard:
        if frame.startswith(_ORDERS_PUSH) and _NUL not in frame:
            try:
                facts: list[Fact] = []
                for row in _orders_push(frame).data:
                    order = rows.order_fact(row)
                    facts.append(order)
                    fill = rows.order_fill(row, order)
                    if fill is not None:
                        facts.append(fill)
                return Heard(facts, "orders")
            except UNREADABLE:
                pass  # the general way saves the rows that can be read, and tells of the others
        if frame == b"pong":
            return Heard(said=(Said(Notice.PONG),))
        try:
            return self._hear(frame)
        except UNREADABLE as error:
            return Heard(said=(_unreadable(error),))

    def _hear(self, frame: bytes) -> Heard:
        if _NUL in frame:
            raise ValueError("a text with a NUL in it")
        envelope = _envelope(frame)
        # The event goes first: a notice has a code too and is no error (§2.6, §2.7).
        if envelope.event:
            return self._event(envelope)
        if envelope.id in self._asked:
            return self._reply(envelope)
        if envelope.op:
            return Heard(said=(Said(Notice.INFO, f"an answer to {envelope.id!r}, which nobody asks here"),))
        if envelope.arg is None or not envelope.arg.channel:
            raise ValueError("neither an event, nor an answer, nor a push")
        return self._push(envelope, envelope.arg.channel)

    def _push(self, envelope: _Envelope, channel: str) -> Heard:
        told = _Told()
        reader = self._readers.get(channel)
        if reader is not None:
            reader(envelope, told)
        elif all(key.channel != channel for key in self._keys):
            raise ValueError(f"a push of {channel}, which was not asked for")
        said = () if told.unreadable is None else (told.unreadable,)
        return Heard(told.facts, channel, said=said, instruments=told.instruments)

    # ---- Pushes. Each reader keeps the rows that it can read and says UNREADABLE of the frame for the others.

    def _orders(self, envelope: _Envelope, told: _Told) -> None:
        for raw in _raws(envelope.data):
            try:
                row = _order_row(raw)
                order = rows.order_fact(row)
                told.facts.append(order)
                fill = rows.order_fill(row, order)
                if fill is not None:
                    told.facts.append(fill)
            except UNREADABLE as error:
                told.complain(error)

    def _positions(self, envelope: _Envelope, told: _Told) -> None:
        shown = told.each(_raws(envelope.data), _position_row, rows.position_fact)
        told.facts += self._absent_positions.shown(
            shown, page=_page(envelope), last=envelope.lastPage, readable=not told.unreadable
        )

    def _account(self, envelope: _Envelope, told: _Told) -> None:
        shown = list[BalanceFact]()
        for raw in _raws(envelope.data):
            try:
                account = _account_row(raw)
                equity = rows.equity_fact(account)
            except UNREADABLE as error:
                told.complain(error)
                continue
            if equity is not None:
                told.facts.append(equity)
            shown += told.each(account.details, _balance_row, rows.balance_fact)
        told.facts += self._absent_balances.shown(
            shown, page=_page(envelope), last=envelope.lastPage, readable=not told.unreadable
        )

    def _balance_and_position(self, envelope: _Envelope, told: _Told) -> None:
        """Nothing marks its snapshot's last frame (§3.3), so absence proves nothing here."""
        for raw in _raws(envelope.data):
            try:
                both = _both_row(raw)
            except UNREADABLE as error:
                told.complain(error)
                continue
            told.each(both.balData, _balance_row, rows.balance_fact)
            told.each(both.posData, _position_row, rows.position_or_none)

    def _fills(self, envelope: _Envelope, told: _Told) -> None:
        told.each(_raws(envelope.data), _fill_row, rows.stream_fill)

    def _marks(self, envelope: _Envelope, told: _Told) -> None:
        told.each(_raws(envelope.data), _mark_row, rows.mark_fact)

    def _tickers(self, envelope: _Envelope, told: _Told) -> None:
        for raw in _raws(envelope.data):
            try:
                told.facts += rows.ticker_facts(_ticker_row(raw))
            except UNREADABLE as error:
                told.complain(error)

    def _instruments(self, envelope: _Envelope, told: _Told) -> None:
        for raw in _raws(envelope.data):
            state = "live"
            try:
                row = _instrument_row(raw)
                state = row.state
                told.instruments.append(instrument_of(row))
            except UNREADABLE as error:
                if state == "live":  # one that is not listed yet, or not any more, may lack its numbers
                    told.complain(error)

    # ---- Answers to orders

    def _reply(self, envelope: _Envelope) -> Heard:
        commands = self._asked.pop(envelope.id)
        try:
            answers = _answers(envelope.data) if envelope.data else []
        except UNREADABLE as error:
            lost = tuple(Unknown("the answer could not be read") for _ in commands)
            return Heard(replies=(Reply(envelope.id, lost),), said=(_unreadable(error),))
        return Heard(replies=(Reply(envelope.id, outcomes(commands, str(envelope.code), envelope.msg, answers)),))

    # ---- Events

    def _event(self, envelope: _Envelope) -> Heard:
        code = str(envelope.code)
        match envelope.event:
            case "login" if code == "0":
                return self._logged_in()
            case "subscribe" if envelope.arg is not None:
                return self._acknowledged(envelope.arg, envelope.id)
            case "error" | "login":
                return self._reply(envelope) if envelope.id in self._asked else self._refused(envelope, code)
            case "notice" if code == "64008":
                return _said(Notice.CLOSING_SOON, envelope.msg, code)
            case "channel-conn-count":
                return _said(Notice.INFO, f"{envelope.channel}: {envelope.connCount} connections")
            case "channel-conn-count-error":
                return self._lost(envelope.channel, f"{envelope.connCount} connections have it, which is too many")
            case "unsubscribe" if envelope.arg is not None:
                return self._lost(envelope.arg.channel, "unsubscribed")
            case _:
                return _said(Notice.INFO, f"{envelope.event}: {envelope.msg}", code)

    def _logged_in(self) -> Heard:
        if not self._logging_in:
            return _said(Notice.INFO, "a login that nobody awaits")
        self._logging_in = False
        return Heard(frames=self._subscribe(), said=self._ready_now())

    def _acknowledged(self, arg: _Arg, request_id: str) -> Heard:
        key = _Key(arg.channel, arg.instType, arg.instFamily, arg.instId, arg.ccy)
        if key not in self._pending or request_id not in ("", self._pending[key]):
            return _said(Notice.INFO, f"{arg.channel}: an acknowledgement that nobody awaits")
        del self._pending[key]
        self._delivered = True
        return Heard(said=self._ready_now())

    def _ready_now(self) -> Sequence[Said]:
        """READY, once, when nothing is awaited any more and what was refused is not essential."""
        complete = self._delivered or (not self._keys and self._kind != "public")
        if self._ready or self._logging_in or self._pending or self._blind or not complete:
            return ()
        self._ready = True
        return (Said(Notice.READY),)

    def _refused(self, envelope: _Envelope, code: str) -> Heard:
        error_class = MEANINGS[code][0] if code in MEANINGS else ErrorClass.REFUSED
        words = reason(code, envelope.msg)
        if self._logging_in:
            self._login_judged = True
            stop = error_class is ErrorClass.AUTH and (code != "60009" or self._stop_on_60009)
            return _said(Notice.AUTH_REFUSED if stop else Notice.RETRY, words, code, TROUBLES.get(error_class))
        refused = self._meant(envelope)
        if error_class is ErrorClass.AUTH and self._credentials is not None:
            return _said(Notice.AUTH_REFUSED, words, code)
        if not refused:
            return _said(Notice.REFUSED, words, code)
        names = ", ".join(key.channel for key in refused)
        if error_class is not ErrorClass.REFUSED:
            return _said(Notice.RETRY, f"{names}: {words}", code, TROUBLES.get(error_class))
        for key in refused:
            del self._pending[key]
        said = [Said(Notice.REFUSED, f"{names}: {words}", code)]
        if any(key.channel in ESSENTIAL for key in refused):
            self._blind = True
            blind = f"{names}: this connection would be blind"
            said.append(Said(Notice.RETRY, blind, code, trouble=Trouble.REFUSED))
        return Heard(said=[*said, *self._ready_now()])

    def _meant(self, envelope: _Envelope) -> list[_Key]:
        """Which subscriptions an error is about: by its id, else by the only one that its text names (§2.5)."""
        if envelope.id:
            return [key for key, request_id in self._pending.items() if request_id == envelope.id]
        named = [key for key in self._pending if key.channel in envelope.msg and key.inst_id in envelope.msg]
        return named if len(named) == 1 else []

    def _lost(self, channel: str, why: str) -> Heard:
        if not self._ready and channel in ESSENTIAL:
            self._blind = True
        return _said(Notice.CHANNEL_LOST, f"{channel}: {why}")

    def closed(self, code: int, reason: str) -> Said | None:
        words = f"{CLOSE_CODES.get(code, '')} ({reason})" if reason else CLOSE_CODES.get(code, "")
        match code:
            case 4001:
                # After a login error this only repeats it, and that one knew better: a clock is no bad key.
                return None if self._login_judged else Said(Notice.AUTH_REFUSED, words, "4001")
            case 4007:
                # The next login tells whether the key still lives; if not, it is refused for good.
                return Said(Notice.RETRY, words, "4007", trouble=Trouble.EXPIRY)
            case 4003 | 4008 | 4009:
                return Said(Notice.REFUSED, words, str(code), trouble=Trouble.LIMIT)
            case 1009 | 4002:
                return Said(Notice.REFUSED, words, str(code))
            case 4004:
                return Said(Notice.INFO, words, str(code), trouble=Trouble.SILENT)
            case 4005:
                return Said(Notice.INFO, words, str(code), trouble=Trouble.OURS)
            case _:
                return None


# ---- What one frame told


class _Told:
    """The parts of a Heard while they are being read."""

    def __init__(self) -> None:
        self.facts = list[Fact]()
        self.instruments = list[Instrument]()
        self.unreadable: Said | None = None

    def complain(self, error: Exception) -> None:
        if self.unreadable is None:
            self.unreadable = _unreadable(error)

    def each(
        self, raws: Sequence[msgspec.Raw], decode: Callable[[msgspec.Raw], R], tell: Callable[[R], F | None]
    ) -> list[F]:
        """Every row that can be read, as its fact."""
        found = list[F]()
        for raw in raws:
            try:
                fact = tell(decode(raw))
            except UNREADABLE as error:
                self.complain(error)
                continue
            if fact is not None:
                found.append(fact)
        self.facts += found
        return found


def _unreadable(error: Exception) -> Said:
    return Said(Notice.UNREADABLE, f"{type(error).__name__}: {error}"[:300])


def _said(notice: Notice, detail: str, code: str = "", trouble: Trouble | None = None) -> Heard:
    return Heard(said=(Said(notice, detail, code, trouble=trouble),))


def _page(envelope: _Envelope) -> int | None:
    return envelope.curPage if envelope.eventType == "snapshot" else None


def _currency(fact: BalanceFact) -> str:
    return fact.currency
