"""Decides. One connection's talk with ISS+, sans I/O: log in, subscribe, keep tables, resynchronise. Dossier §3–§8.

Nothing is replayed: whatever may be missing is mended by giving the subscription up and making a new one, whose
snapshot tells everything. Until it comes the old rows stay, stale, and no prices are told from them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from accounts.model import Credentials
from engine.core.facts import Fact
from engine.core.orders import Command
from engine.core.venue import (
    Catalogue,
    Conversation,
    Frame,
    Handshake,
    Heard,
    Login,
    Notice,
    Said,
    Trouble,
)
from engine.venues.issplus import errors, tables
from engine.venues.issplus.errors import Meaning
from engine.venues.issplus.frames import Frames, StompFrame, encode
from engine.venues.issplus.packets import UNREADABLE, packet
from engine.venues.issplus.prices import Prices
from engine.venues.issplus.symbols import Topic, found_in, topic_of
from engine.venues.issplus.tables import Gap, Row, Table

GUESTS = "DEMO"
"""The realm of guests, whose data are delayed."""

_PER_SECOND = 20  # requests: the exchange's own samples leave 50 to 100 ms between them
_MISSED_SNAPSHOTS = 3  # in a row, then a new connection
_LOST_TRANSPORTS = 5
_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS, _STABLE_MS = 1_000, 60_000, 60_000
_READY_MS = 5_000  # so long the slowest channel is waited for
_TOMBS = 1024
_DETAIL = 300


class Phase(StrEnum):
    DUE = "due"  # to be asked for at `due_ms`
    SEARCHING = "searching"  # its board is asked for
    WAITING = "waiting"  # for the snapshot, or the answer to a query
    LIVE = "live"
    DONE = "done"  # a query that was answered
    FAILED = "failed"  # refused for good


_SETTLED = (Phase.LIVE, Phase.DONE, Phase.FAILED)


class _Subscription(msgspec.Struct):
    channel: str
    topic: Topic
    table: Table
    prices: Prices
    phase: Phase = Phase.DUE
    asked_as: str = ""  # the id in use
    due_ms: int = 0
    since_ms: int = 0  # asked, or heard of, last
    tries: int = 0  # new beginnings in a row
    begun_ms: int = 0  # the last of them
    misses: int = 0  # in a row without a snapshot


class _Told(msgspec.Struct):
    facts: list[Fact] = []
    channel: str = ""
    said: list[Said] = []
    frames: list[Frame] = []

    def tell(self, notice: Notice, detail: str, code: str = "", trouble: Trouble | None = None) -> None:
        self.said.append(Said(notice, detail[:_DETAIL], code, trouble=trouble))


class Session(Conversation):
    """The conversation of one connection. It lives as long as the connection and is never reused."""

    def __init__(
        self, *, channels: Sequence[str], login: Login | None, catalogue: Catalogue, options: Mapping[str, str]
    ) -> None:
        self._credentials: Credentials = login.credentials if login is not None else {}
        self._options = options
        self._frames = Frames()
        self._connected_ms: int | None = None
        self._ready = False
        self._number = self._looked_ms = 0
        self._by_id: dict[str, _Subscription] = {}
        self._tombs: OrderedDict[str, None] = OrderedDict()  # ids given up: what still comes under them is no news
        self._sent_ms: list[int] = []
        self._wrong: list[Said] = []  # channels that nobody can ask for
        self._subscriptions: dict[str, _Subscription] = {}
        delay_ms = int(options["guest_delay_ms"]) if self._guest() else 0
        sequence = tables.Sequence(options["sequence"])
        for channel in dict.fromkeys(channels):
            try:
                topic = topic_of(channel, catalogue)
            except ValueError as error:
                self._wrong.append(Said(Notice.REFUSED, str(error)[:_DETAIL], "channel"))
                continue
            self._subscriptions[channel] = _Subscription(
                channel,
                topic,
                Table(topic.destination, sequence),
                Prices(topic.destination, topic.name, delay_ms),
            )

    def _guest(self) -> bool:
        domain = self._credentials.get("domain")
        return domain is None or domain.reveal() == GUESTS

    def table(self, channel: str) -> Table:
        """What a channel has told: also candles, dictionaries and news, which are no facts. KeyError: not asked for."""
        return self._subscriptions[channel].table

    # ---- Speaking

    def handshake(self, now_ms: int) -> Handshake:
        offered = self._options["subprotocol"]
        return Handshake(subprotocols=() if offered == "none" else (offered,))

    def open(self, now_ms: int) -> Sequence[Frame]:
        # These three and no others: some report that any further header is answered by a failure (§3).
        headers = {field: self._credentials[field].reveal() for field in ("domain", "login", "passcode")}
        return (self._frame("CONNECT", headers),)

    def beat(self, now_ms: int) -> Sequence[Frame]:
        return ()  # protocol pings: nothing else is documented (§3)

    def say(self, commands: Sequence[Command], request_id: str, now_ms: int) -> Frame:
        raise ValueError("a feed takes no orders")

    def _frame(self, command: str, headers: Mapping[str, str]) -> Frame:
        frame = encode(command, headers)
        return frame.decode() if self._options["opcode"] == "text" else frame

    # ---- Time

    def tick(self, now_ms: int) -> Heard | None:
        told = _Told()
        if now_ms < self._looked_ms:
            self._set_back(now_ms)
        self._looked_ms = now_ms
        if self._connected_ms is not None:
            for subscription in self._subscriptions.values():
                self._pass(subscription, now_ms, told)
        overdue, wrong = self._frames.settle()
        self._take(overdue, wrong, now_ms, told)
        return Heard(said=told.said, frames=told.frames) if told.said or told.frames else None

    def _set_back(self, now_ms: int) -> None:
        """Our clock was: nobody waits for the time that is gone."""
        self._connected_ms = None if self._connected_ms is None else min(self._connected_ms, now_ms)
        for subscription in self._subscriptions.values():
            subscription.since_ms = min(subscription.since_ms, now_ms)
            subscription.begun_ms = min(subscription.begun_ms, now_ms)
            subscription.due_ms = min(subscription.due_ms, now_ms + _LONGEST_PAUSE_MS)

    def _pass(self, subscription: _Subscription, now_ms: int, told: _Told) -> None:
        quiet_ms = now_ms - subscription.since_ms
        match subscription.phase:
            case Phase.SEARCHING if quiet_ms >= int(self._options["snapshot_ms"]):
                self._found(subscription, None, now_ms)
            case Phase.WAITING if quiet_ms >= int(self._options["snapshot_ms"]):
                subscription.misses += 1
                if subscription.misses >= _MISSED_SNAPSHOTS:
                    why = f"{subscription.channel}: no snapshot, {subscription.misses} times"
                    told.tell(Notice.RETRY, why, "mute", Trouble.SILENT)
                else:
                    self._anew(subscription, now_ms, told, "no snapshot came", "mute")
            case Phase.LIVE if quiet_ms >= int(self._options["idle_resync_ms"]) and _trading(subscription.table):
                self._anew(subscription, now_ms, told, "silent while it is traded", "idle")

    def _ask(self, now_ms: int, told: _Told) -> None:
        """Whatever is due, so many a second."""
        self._sent_ms = [at_ms for at_ms in self._sent_ms if 0 <= now_ms - at_ms < 1000]
        for subscription in self._subscriptions.values():
            if len(self._sent_ms) >= _PER_SECOND:
                return
            if subscription.phase is not Phase.DUE or now_ms < subscription.due_ms:
                continue
            self._sent_ms.append(now_ms)
            self._number += 1
            subscription.since_ms = now_ms
            topic = subscription.topic
            if topic.search or topic.query:
                destination, selector = topic.destination, topic.selector
                if topic.search:
                    destination, selector = "SEARCH.ticker", f'pattern="{topic.search}"'
                subscription.phase = Phase.SEARCHING if topic.search else Phase.WAITING
                subscription.asked_as = f"q{self._number}"
                command, headers = "REQUEST", {"destination": destination, "selector": selector}
            else:
                subscription.phase, subscription.asked_as = Phase.WAITING, f"s{self._number}"
                command, headers = "SUBSCRIBE", {"destination": topic.destination, "receipt": subscription.asked_as}
                if topic.selector:
                    headers["selector"] = topic.selector
            self._by_id[subscription.asked_as] = subscription
            told.frames.append(self._frame(command, {"id": subscription.asked_as, **headers}))

    def _settle(self, now_ms: int, told: _Told) -> None:
        if self._ready or self._connected_ms is None:
            return
        phases = [subscription.phase for subscription in self._subscriptions.values()]
        waited = now_ms - self._connected_ms >= _READY_MS
        if all(p in _SETTLED for p in phases) or (waited and (Phase.LIVE in phases or Phase.DONE in phases)):
            self._ready = True
            told.tell(Notice.READY, "")

    def _anew(
        self, subscription: _Subscription, now_ms: int, told: _Told, why: str, code: str, *, at_once: bool = True
    ) -> None:
        """Give it up and begin again under a new id: the first time at once, then after longer and longer pauses."""
        if subscription.phase in (Phase.WAITING, Phase.LIVE) and not subscription.topic.query and at_once:
            told.frames.append(self._frame("UNSUBSCRIBE", {"id": subscription.asked_as}))
        self._bury(subscription)
        if now_ms - subscription.begun_ms >= _STABLE_MS:
            subscription.tries = 0
        doubled = subscription.tries - 1 if at_once else subscription.tries
        pause_ms = 0 if doubled < 0 else min(_LONGEST_PAUSE_MS, _FIRST_PAUSE_MS << min(doubled, 10))
        subscription.tries += 1
        subscription.begun_ms = now_ms
        subscription.phase, subscription.due_ms = Phase.DUE, now_ms + pause_ms
        subscription.table.restart()
        told.tell(Notice.INFO, f"{subscription.channel}: {why}; asked for anew in {pause_ms} ms", code)

    def _bury(self, subscription: _Subscription) -> None:
        self._by_id.pop(subscription.asked_as, None)
        self._tombs[subscription.asked_as] = None
        while len(self._tombs) > _TOMBS:
            self._tombs.popitem(last=False)

    # ---- Hearing

    def hear(self, frame: bytes, now_ms: int) -> Heard:
        told = _Told()
        heard, wrong = self._frames.feed(frame) if frame else ([], "an empty message")
        self._take(heard, wrong, now_ms, told)
        return Heard(told.facts, told.channel, said=told.said, frames=told.frames)

    def _take(self, frames: Sequence[StompFrame], wrong: str, now_ms: int, told: _Told) -> None:
        for frame in frames:
            self._hear(frame, now_ms, told)
        if wrong:
            told.tell(Notice.UNREADABLE, wrong)
        if self._connected_ms is not None:
            self._ask(now_ms, told)
            self._settle(now_ms, told)

    def _hear(self, frame: StompFrame, now_ms: int, told: _Told) -> None:
        match frame.command:
            case "MESSAGE":
                self._message(frame, now_ms, told)
            case "CONNECTED" if self._connected_ms is None:
                self._connected_ms = now_ms
                told.said += self._wrong
                told.tell(Notice.INFO, f"markets: {', '.join(_markets(frame.body)) or 'not told'}", "connected")
            case "CONNECTED" | "RECEIPT":
                pass  # a receipt proves that it was heard; the snapshot that follows proves more
            case "ERROR":
                self._error(frame, now_ms, told)
            case "REPLY":
                self._reply(frame, now_ms, told)
            case "CLOSED":
                self._closed(frame, now_ms, told)
            case _:
                told.tell(Notice.UNREADABLE, f"a frame of no known kind: {frame.command}")

    def _about(self, frame: StompFrame, *headers: str) -> tuple[_Subscription | None, bool]:
        """Which subscription a frame is about, and whether it is about one that was given up."""
        for header in headers:
            asked_as = frame.header(header)
            if asked_as in self._by_id:
                return self._by_id[asked_as], False
            if asked_as in self._tombs:
                return None, True
        return None, False

    def _message(self, frame: StompFrame, now_ms: int, told: _Told) -> None:
        subscription, given_up = self._about(frame, "subscription")
        if given_up or not frame.body.strip():
            return
        if subscription is None:
            told.tell(Notice.UNREADABLE, f"a message for {frame.header('subscription')[:80]!r}, which nobody asked for")
            return
        subscription.since_ms = now_ms
        told.channel = subscription.channel
        try:
            read = packet(frame.body)
            change = subscription.table.apply(read)
            facts = list(subscription.prices.facts(change, read, now_ms))
        except Gap as gap:
            self._anew(subscription, now_ms, told, str(gap), "gap")
            return
        except UNREADABLE as error:
            told.tell(Notice.UNREADABLE, f"{subscription.channel}: {type(error).__name__}: {error}")
            self._anew(subscription, now_ms, told, "a packet that nobody can read", "gap")
            return
        if not subscription.table.stale:
            subscription.phase, subscription.misses = Phase.LIVE, 0
        told.facts += facts

    def _reply(self, frame: StompFrame, now_ms: int, told: _Told) -> None:
        subscription, given_up = self._about(frame, "request-id", "receipt-id")
        if given_up:
            return
        if subscription is None:
            told.tell(Notice.INFO, f"an answer to {frame.header('request-id')[:80]!r}, which nobody asked for")
            return
        try:
            read = packet(frame.body)
        except UNREADABLE as error:
            told.tell(Notice.UNREADABLE, f"{subscription.channel}: {type(error).__name__}: {error}")
            read = None
        if subscription.phase is Phase.SEARCHING:
            self._found(subscription, read.rows if read is not None else None, now_ms)
        elif read is not None:
            self._bury(subscription)
            subscription.phase = Phase.DONE
            subscription.table.answer(read)
        else:
            self._anew(subscription, now_ms, told, "an answer that nobody can read", "gap", at_once=False)

    def _found(self, subscription: _Subscription, rows: Sequence[Row] | None, now_ms: int) -> None:
        """The board is known, or assumed where the exchange does not tell: then it is subscribed to."""
        topic = subscription.topic
        ticker = found_in(rows or (), topic.search)
        selector = topic.selector if ticker is None else f'TICKER="{ticker}"'
        if ticker is not None and " and " in topic.selector:
            selector = f'ticker="{ticker}" and {topic.selector.partition(" and ")[2]}'
        self._bury(subscription)
        subscription.topic = msgspec.structs.replace(topic, selector=selector, search="")
        subscription.phase, subscription.due_ms = Phase.DUE, now_ms

    def _error(self, frame: StompFrame, now_ms: int, told: _Told) -> None:
        code = errors.code_of(frame)
        meaning, detail = errors.meaning(code), errors.sentence(frame, code)
        if self._connected_ms is None:  # the login is refused, and the server says no more
            told.tell(Notice.AUTH_REFUSED if meaning is Meaning.NEVER else Notice.RETRY, detail, code)
            return
        subscription, given_up = self._about(frame, "request-id", "subscription", "receipt-id", "id")
        if given_up:
            return
        if meaning is Meaning.LOST:
            told.tell(Notice.RETRY, detail, code, Trouble.EXPIRY)
            return
        if subscription is None:
            told.tell(Notice.REFUSED, detail, code)
            if meaning is Meaning.LATER:  # about everything, then
                for each in list(self._by_id.values()):
                    self._failed(each, now_ms, told, detail, code)
            return
        told.tell(Notice.REFUSED, f"{subscription.channel}: {detail}", code)
        if meaning is Meaning.LATER:
            self._failed(subscription, now_ms, told, detail, code)
        elif subscription.phase is Phase.SEARCHING:
            self._found(subscription, None, now_ms)
        else:
            self._bury(subscription)
            subscription.phase = Phase.FAILED
            subscription.table.restart()

    def _failed(self, subscription: _Subscription, now_ms: int, told: _Told, detail: str, code: str) -> None:
        subscription.misses += 1
        if subscription.misses >= _LOST_TRANSPORTS:
            told.tell(Notice.RETRY, f"{subscription.channel}: {detail}", code)
        else:
            self._anew(subscription, now_ms, told, detail, code, at_once=False)

    def _closed(self, frame: StompFrame, now_ms: int, told: _Told) -> None:
        """Not documented: taken for the end of a subscription where it names one, else for the session's."""
        subscription, given_up = self._about(frame, "subscription", "receipt-id", "request-id", "id")
        if given_up:
            return
        if subscription is None:
            told.tell(Notice.RETRY, "the server ended the session", "closed")
        else:
            self._anew(subscription, now_ms, told, "the server ended it", "closed", at_once=False)


def _trading(table: Table) -> bool:
    """Does any of its rows say that it is being traded?"""
    return any(row.get("TRADINGSTATUS") == "T" for row in table.rows.values())


def _markets(body: bytes) -> list[str]:
    """Those of the catalogue, whose inner shape is not documented."""
    try:
        told = msgspec.json.decode(body) if body else {}
    except UNREADABLE:
        return []
    structure = told.get("structure") if isinstance(told, dict) else None
    return sorted(str(name)[:20] for name in structure)[:40] if isinstance(structure, dict) else []
