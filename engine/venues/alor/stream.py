"""Decides. One `/ws` connection's talk, sans I/O: subscriptions of several accounts, and prices. ALOR dossier §4.

Each message carries the token of its account, so accounts of different logins share a connection. Pushes repeat the
subscription's identifier, which is the only thing that tells whose a trade is. A token counts when a message is
read: subscriptions live on after it has ended, and a new one is only remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import msgspec

from accounts.model import Secret
from engine.core.facts import REPLACED, Fact, OrderFact, OrderStatus
from engine.core.instruments import Instrument
from engine.core.orders import Command
from engine.core.venue import (
    ACCESS_TOKEN,
    TROUBLES,
    Catalogue,
    Conversation,
    ErrorClass,
    Frame,
    Heard,
    Login,
    Notice,
    Said,
)
from engine.venues.alor import rows
from engine.venues.alor.commands import turned_away
from engine.venues.alor.errors import meaning, reason
from engine.venues.alor.ids import owns
from engine.venues.alor.orders import encode
from engine.venues.alor.replacing import Replacing
from engine.venues.alor.rows import UNREADABLE
from engine.venues.alor.symbols import asked_for, is_bond, phase, split_account

# Of accounts: opcode, and whether what was before is left to HTTP: a snapshot's end cannot be seen (§4.2, §7.1).
_ACCOUNT_OPCODES = {
    "orders": ("OrdersGetAndSubscribeV2", True),
    "stoporders": ("StopOrdersGetAndSubscribeV2", True),
    "trades": ("TradesGetAndSubscribeV2", True),
    "positions": ("PositionsGetAndSubscribeV2", False),
    "summaries": ("SummariesGetAndSubscribeV2", False),
    "risks": ("RisksGetAndSubscribe", False),
}
_PRICE_OPCODES = {
    "quotes": "QuotesSubscribe",
    "orderbook": "OrderBookGetAndSubscribe",
    "bars": "BarsGetAndSubscribe",
    "instruments": "InstrumentsGetAndSubscribeV2",
}
CHANNELS = tuple(_ACCOUNT_OPCODES)
ESSENTIAL = frozenset({"orders", "stoporders", "trades", "positions"})
"""An account without one of these must not pass for heard."""

_NUL = b"\\u0000"
_KNOWN_LIMIT = 10_000  # of our orders, whose latest number is remembered
_BAR_S = 60


class _Envelope(msgspec.Struct, gc=False, kw_only=True):
    data: msgspec.Raw = msgspec.Raw()
    guid: str = ""
    requestGuid: str | None = None
    httpCode: int = 0
    message: str = ""


_envelope = msgspec.json.Decoder(_Envelope).decode
_order_row = msgspec.json.Decoder(rows.OrderRow).decode
_trade_row = msgspec.json.Decoder(rows.TradeRow).decode
_position_row = msgspec.json.Decoder(rows.PositionRow).decode
_summary_row = msgspec.json.Decoder(rows.SummaryRow).decode
_risk_row = msgspec.json.Decoder(rows.RiskRow).decode
_quote_row = msgspec.json.Decoder(rows.QuoteRow).decode
_book_row = msgspec.json.Decoder(rows.BookRow).decode
_bar_row = msgspec.json.Decoder(rows.BarRow).decode
_status_row = msgspec.json.Decoder(rows.StatusRow).decode


class _Subscription(msgspec.Struct, frozen=True, kw_only=True):
    guid: str
    channel: str  # as the connection's row names it
    kind: str
    ref: str  # whose token it goes out with, and whose facts they are where they are anybody's
    message: dict[str, object]
    name: str = ""  # of prices: our name of the instrument
    exchange: str = ""
    bond: bool = False
    interval_s: int = _BAR_S


class Facts(Conversation):
    """The conversation of one `/ws` connection. It lives as long as the connection and is never reused."""

    def __init__(
        self,
        *,
        channels: Sequence[str],
        logins: Sequence[Login],
        catalogue: Catalogue,
        replacing: Replacing,
        options: Mapping[str, str],
    ) -> None:
        self._tokens = dict[str, Secret]()
        self.renew(logins, 0)
        self._channels, self._catalogue, self._replacing = tuple(dict.fromkeys(channels)), catalogue, replacing
        self._ping = options["ping"] == "opcode"
        self._subscriptions = dict[str, _Subscription]()
        self._pending = dict[str, None]()  # not answered yet
        self._anonymous = 0  # refusals that do not say what they refuse (§4.2)
        self._refused = set[str]()  # accounts
        self._numbers = 0
        self._pings = set[str]()
        self._ready = self._blind = False
        self._latest = OrderedDict[tuple[str, str], tuple[int, str]]()  # by account and comment: the latest order
        self._risk = dict[str, str]()
        self._readers: dict[str, Callable[[_Subscription, msgspec.Raw, int], Heard]] = {
            "orders": self._order,
            "stoporders": self._stop,
            "trades": self._trade,
            "positions": self._position,
            "summaries": self._summary,
            "risks": self._risks,
            "quotes": self._quote,
            "orderbook": self._book,
            "bars": self._bar,
            "instruments": self._instrument,
        }

    # ---- Speaking

    def open(self, now_ms: int) -> Sequence[Frame]:
        for ref in self._tokens:
            for channel in self._channels:
                if channel in _ACCOUNT_OPCODES:
                    self._add(_of_account(channel, ref))
        first = next(iter(self._tokens))
        for channel in self._channels:
            if channel not in _ACCOUNT_OPCODES:
                self._add(_of_prices(channel, first, self._catalogue, now_ms))
        return tuple(self._said(s) for s in self._subscriptions.values())

    def renew(self, logins: Sequence[Login], now_ms: int) -> Sequence[Frame]:
        for login in logins:
            self._tokens[login.ref] = login.credentials[ACCESS_TOKEN]
        return ()

    def beat(self, now_ms: int) -> Sequence[Frame]:
        if not self._ping:
            return ()
        self._numbers += 1
        guid = f"ping.{self._numbers}"
        self._pings.add(guid)
        token = next(iter(self._tokens.values())).reveal()
        return (encode({"opcode": "ping", "guid": guid, "confirm": True, "token": token}).decode(),)

    def say(self, commands: Sequence[Command], request_id: str, now_ms: int) -> Frame:
        raise ValueError("orders go out over the other connection")

    def _add(self, subscription: _Subscription) -> None:
        self._subscriptions[subscription.guid] = subscription
        self._pending[subscription.guid] = None

    def _said(self, subscription: _Subscription) -> Frame:
        token = self._tokens[subscription.ref].reveal()
        return encode({**subscription.message, "guid": subscription.guid, "token": token}).decode()

    # ---- Hearing

    def hear(self, frame: bytes, now_ms: int) -> Heard:
        try:
            if _NUL in frame:
                raise ValueError("a text with a NUL in it")
            envelope = _envelope(frame)
            if envelope.requestGuid is not None:
                return self._answer(envelope, envelope.requestGuid)
            if not envelope.data:
                raise ValueError("neither an answer nor a push")
            subscription = self._subscriptions.get(envelope.guid)
            if subscription is None:
                raise ValueError(f"a push of {envelope.guid[:64]!r}, which was not asked for")
            return self._readers[subscription.kind](subscription, envelope.data, now_ms)
        except UNREADABLE as error:
            return _said(Notice.UNREADABLE, f"{type(error).__name__}: {error}"[:300])

    # ---- Pushes of accounts

    def _order(self, subscription: _Subscription, data: msgspec.Raw, now_ms: int) -> Heard:
        fact = rows.order_fact(_order_row(data), subscription.ref)
        return Heard((self._in_its_chain(fact),), subscription.channel)

    def _stop(self, subscription: _Subscription, data: msgspec.Raw, now_ms: int) -> Heard:
        fact = rows.stop_fact(_order_row(data), subscription.ref)
        return Heard((self._in_its_chain(fact),), subscription.channel)

    def _in_its_chain(self, fact: OrderFact) -> OrderFact:
        """One that was cancelled because we had it replaced, or whose successor is here already, says so."""
        if not owns(fact.client_order_id):
            return fact
        key, this = (fact.account_ref, fact.client_order_id), (fact.created_at_ms, fact.venue_order_id)
        latest = self._latest.get(key, this)
        if this >= latest:
            self._latest[key] = this
            self._latest.move_to_end(key)
            if len(self._latest) > _KNOWN_LIMIT:
                self._latest.popitem(last=False)
        if fact.status is not OrderStatus.CANCELLED or fact.venue_action:
            return fact
        followed = latest > this and latest[1] != this[1]
        if followed or self._replacing.concerns(fact.account_ref, fact.venue_order_id):
            return msgspec.structs.replace(fact, venue_action=REPLACED)
        return fact

    def _trade(self, subscription: _Subscription, data: msgspec.Raw, now_ms: int) -> Heard:
        return Heard((rows.fill_fact(_trade_row(data), subscription.ref),), subscription.channel)

    def _position(self, subscription: _Subscription, data: msgspec.Raw, now_ms: int) -> Heard:
        return Heard((rows.position_fact(_position_row(data), now_ms, subscription.ref),), subscription.channel)

    def _summary(self, subscription: _Subscription, data: msgspec.Raw, now_ms: int) -> Heard:
        return Heard((rows.equity_fact(_summary_row(data), now_ms, subscription.ref),), subscription.channel)

    def _risks(self, subscription: _Subscription, data: msgspec.Raw, now_ms: int) -> Heard:
        """Values are told by the summary; here it is said when the broker begins to demand, or to close."""
        status = _risk_row(data).riskStatus or ""
        before, self._risk[subscription.ref] = self._risk.get(subscription.ref, "Ok"), status
        if status == before:
            return Heard()
        return Heard(said=(Said(Notice.INFO, f"risk status {status[:64] or 'unknown'}", "risk", subscription.ref),))

    # ---- Pushes of prices

    def _quote(self, subscription: _Subscription, data: msgspec.Raw, now_ms: int) -> Heard:
        row = _quote_row(data)
        return self._prices(
            subscription, rows.quote_facts(row, subscription.name, bond=subscription.bond, now_ms=now_ms)
        )

    def _book(self, subscription: _Subscription, data: msgspec.Raw, now_ms: int) -> Heard:
        facts = rows.book_facts(_book_row(data), subscription.name, subscription.exchange, now_ms)
        return self._prices(subscription, [] if subscription.bond else facts)

    def _bar(self, subscription: _Subscription, data: msgspec.Raw, now_ms: int) -> Heard:
        fact = rows.bar_fact(_bar_row(data), subscription.interval_s, subscription.name, subscription.exchange, now_ms)
        return self._prices(subscription, [] if subscription.bond else [fact])

    def _prices(self, subscription: _Subscription, facts: Sequence[Fact]) -> Heard:
        return Heard(facts, subscription.channel if facts else "")

    def _instrument(self, subscription: _Subscription, data: msgspec.Raw, now_ms: int) -> Heard:
        status = _status_row(data).tradingStatus
        known: Instrument | None = self._catalogue.by_name(subscription.name)
        if known is None or status is None or phase(status) == known.status:
            return Heard()
        changed = msgspec.structs.replace(known, status=phase(status))
        return Heard(channel=subscription.channel, instruments=(changed,))

    # ---- Answers

    def _answer(self, envelope: _Envelope, guid: str) -> Heard:
        if guid in self._pings:
            self._pings.discard(guid)
            if envelope.httpCode == 200:
                return _said(Notice.PONG)
        elif guid in self._pending and envelope.httpCode == 200:
            del self._pending[guid]
            return Heard(said=(*self._judged(), *self._ready_now()))
        if envelope.httpCode == 200:
            return _said(Notice.INFO, f"an answer to {guid[:64]!r}, which nobody asks here")
        return self._refusal(envelope, guid)

    def _refusal(self, envelope: _Envelope, guid: str) -> Heard:
        code = str(envelope.httpCode)
        error_class, sentence = meaning(envelope.httpCode, envelope.message)
        told = reason(sentence, envelope.message)
        of_account = error_class in (ErrorClass.TOKEN, ErrorClass.AUTH)
        subscription = self._subscriptions.get(guid)
        if subscription is None:
            if of_account and not guid and self._pending:
                self._anonymous += 1
                return Heard(said=(*self._judged(), *self._ready_now()))
            return _said(Notice.REFUSED, told, code)
        if of_account:
            return Heard(said=(*self._refuse([subscription.ref], code, told), *self._ready_now()))
        self._pending.pop(guid, None)
        words = f"{subscription.channel} of {subscription.ref}: {told}"
        said = [Said(Notice.REFUSED, words, code, subscription.ref, trouble=TROUBLES.get(error_class))]
        if subscription.kind in ESSENTIAL:
            self._blind = True
            blind = f"{words}: this connection would be blind"
            said.append(Said(Notice.RETRY, blind, code, trouble=TROUBLES.get(error_class)))
        return Heard(said=(*said, *self._judged(), *self._ready_now()))

    def _refuse(self, refs: Sequence[str], code: str, told: str) -> list[Said]:
        """These accounts are not served here; the others on the connection go on."""
        said = []
        for ref in refs:
            if ref not in self._refused:
                self._refused.add(ref)
                said.append(Said(Notice.AUTH_REFUSED, told, code, ref))
            for guid in [g for g in self._pending if self._subscriptions[g].ref == ref]:
                del self._pending[guid]
        return said

    def _judged(self) -> list[Said]:
        """As many refusals without a name as subscriptions without an answer: now it is known whose they are."""
        if not self._anonymous or len(self._pending) > self._anonymous:
            return []
        refs = dict.fromkeys(self._subscriptions[guid].ref for guid in self._pending)
        self._anonymous = 0
        return self._refuse(list(refs), "401", "the access token is not accepted")

    def _ready_now(self) -> tuple[Said, ...]:
        if self._ready or self._pending or self._blind or self._refused >= self._tokens.keys():
            return ()
        self._ready = True
        return (Said(Notice.READY),)

    def refused(self, status: int, now_ms: int) -> Said | None:
        return turned_away(status)

    def closed(self, code: int, reason: str) -> Said | None:
        """After a refusal without a name it is known whose it was only where nobody else is on the connection."""
        if not self._anonymous:
            return None
        if len(self._tokens) == 1:
            return Said(Notice.AUTH_REFUSED, "the access token is not accepted", "401")
        return Said(Notice.INFO, "the access token of one of the accounts here is not accepted", "401")


def _of_account(channel: str, ref: str) -> _Subscription:
    opcode, skip = _ACCOUNT_OPCODES[channel]
    exchange, portfolio = split_account(ref)
    message: dict[str, object] = {
        "opcode": opcode,
        "exchange": exchange,
        "portfolio": portfolio,
        "skipHistory": skip,
        "format": "Simple",
    }
    return _Subscription(guid=f"{channel}.{ref}", channel=channel, kind=channel, ref=ref, message=message)


def _of_prices(channel: str, ref: str, catalogue: Catalogue, now_ms: int) -> _Subscription:
    """ValueError for a channel that does not exist: the row is wrong, and a person must know."""
    kind, _, narrowed = channel.partition(":")
    if kind not in _PRICE_OPCODES or not narrowed:
        raise ValueError(f"ALOR has no channel {channel!r}")
    name, _, interval = narrowed.partition("@")
    asked, interval_s = asked_for(name, catalogue), int(interval or _BAR_S)
    message: dict[str, object] = {
        "opcode": _PRICE_OPCODES[kind],
        "code": asked.symbol,
        "exchange": asked.exchange,
        "format": "Simple",
    }
    if asked.board:
        message["instrumentGroup"] = asked.board
    if kind == "orderbook":
        message["depth"] = 1
    elif kind == "bars":
        message |= {"tf": str(interval_s), "from": now_ms // 1000 - interval_s, "skipHistory": False}
    return _Subscription(
        guid=channel,
        channel=channel,
        kind=kind,
        ref=ref,
        message=message,
        name=name,
        exchange=asked.exchange,
        bond=is_bond(asked.board),
        interval_s=interval_s,
    )


def _said(notice: Notice, detail: str = "", code: str = "") -> Heard:
    return Heard(said=(Said(notice, detail, code),))
