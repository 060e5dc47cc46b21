"""Decides. One connection's talk with the IME feed, sans I/O: the handshake says everything, then one only listens.

IME dossier §4–§7. Channels of a row name contracts: on `names` as the exchange does, or in our spelling; on `ids` by
the id, and after a ':' the name that it goes by, `012345:SAMPLE05F`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from engine.core.orders import Command
from engine.core.venue import (
    ACCESS_TOKEN,
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
from engine.venues.ime.messages import UNREADABLE, Snapshot, Zone, decode, identifier, snapshot, spelt

_DETAIL = 300
_BUSY_S = 60.0
_POLICY = "the token, a contract, or how they are written (options parameter, authorization)"


class Session(Conversation):
    """The conversation of one connection. It lives as long as the connection and is never reused."""

    def __init__(
        self,
        *,
        kind: str,
        channels: Sequence[str],
        login: Login | None,
        catalogue: Catalogue,
        options: Mapping[str, str],
    ) -> None:
        self._kind, self._login, self._catalogue, self._options = kind, login, catalogue, options
        self._channels: dict[
            str, tuple[str, str]
        ] = {}  # the exchange's identifier -> its channel, and what it is called
        for channel in channels:
            asked, _, called = channel.partition(":") if kind == "ids" else (channel.partition("/")[0], "", channel)
            self._channels[asked] = (channel, called or asked)
        self._views: dict[str, Snapshot] = {}
        self._zone = Zone(options["zone"])
        self._begun_ms: int | None = None
        self._heard_ms = 0
        self._ready = False
        self.dropped = 0  # messages that were older than what was known

    def view(self, contract: str) -> Snapshot:
        """All that is known of a contract, by the exchange's identifier. KeyError: nothing came yet."""
        return self._views[contract]

    # ---- Speaking

    def handshake(self, now_ms: int) -> Handshake:
        assert self._login is not None, "nobody is let in without a token"
        token = self._login.credentials[ACCESS_TOKEN].reveal()
        parameters: tuple[str, ...] = ("contract_id",)
        if self._kind == "names":
            setting = self._options["parameter"]
            # A server ignores the spelling that it does not know, and refuses when its own is missing (§2).
            parameters = ("contract_names", "contract_name") if setting == "both" else (setting,)
        asked = "&".join(f"{p}={quote(contract, safe='')}" for p in parameters for contract in self._channels)
        return Handshake(
            suffix=f"?{asked}" if asked else "",
            headers=(("Authorization", f"Bearer {token}" if self._options["authorization"] == "bearer" else token),),
        )

    def open(self, now_ms: int) -> Sequence[Frame]:
        return ()

    def beat(self, now_ms: int) -> Sequence[Frame]:
        return ()  # protocol pings: the client never sends a message (§6)

    def say(self, commands: Sequence[Command], request_id: str, now_ms: int) -> Frame:
        raise ValueError("a feed takes no orders")

    def tick(self, now_ms: int) -> Heard | None:
        if self._begun_ms is None:
            self._begun_ms = self._heard_ms = now_ms
        # Our clock may have been set back: nobody waits for the time that is gone.
        self._begun_ms, self._heard_ms = min(self._begun_ms, now_ms), min(self._heard_ms, now_ms)
        silence_ms = int(self._options["silence_ms"])
        if self._ready and silence_ms and now_ms - self._heard_ms >= silence_ms:
            self._heard_ms = now_ms
            return Heard(said=(Said(Notice.RETRY, f"silent for {silence_ms} ms", "silence", trouble=Trouble.SILENT),))
        # Nothing confirms an opening, and a quiet market says nothing at all; a refusal comes at once.
        if not self._ready and now_ms - self._begun_ms >= int(self._options["ready_ms"]):
            self._ready = True
            return Heard(said=(Said(Notice.READY),))
        return None

    # ---- Refusals

    def refused(self, status: int, now_ms: int) -> Said | None:
        if not self._channels:
            return Said(Notice.REFUSED, "this connection names no contracts", "no_contracts")
        if status in (401, 403):
            return Said(Notice.AUTH_REFUSED, f"the opening was refused with {status}: {_POLICY}", f"http_{status}")
        if status == 429:
            return Said(Notice.RETRY, "too many openings", "429", after_s=_BUSY_S, trouble=Trouble.LIMIT)
        return None

    def closed(self, code: int, reason: str) -> Said | None:
        if code != 1008:
            return None
        return Said(Notice.AUTH_REFUSED, f"closed for policy: {_POLICY}. {reason}"[:_DETAIL], "close_1008")

    # ---- Hearing

    def hear(self, frame: bytes, now_ms: int) -> Heard:
        try:
            heard = self._hear(frame, now_ms)
        except UNREADABLE as error:
            return Heard(said=(Said(Notice.UNREADABLE, f"{type(error).__name__}: {error}"[:_DETAIL]),))
        self._heard_ms = now_ms
        if not self._ready:
            self._ready = True
            heard.said = (Said(Notice.READY), *heard.said)
        return heard

    def _hear(self, frame: bytes, now_ms: int) -> Heard:
        message = decode(frame)
        contract = identifier(message)
        if contract not in self._channels:
            raise ValueError(f"a message about {contract[:40]!r}, which was not asked for")
        told = message.get("data")
        if not isinstance(told, dict):
            raise ValueError("a message without data")
        self._zone.learn(message.get("timestamp"), now_ms)
        seen = snapshot(told, self._zone.us(message.get("timestamp")), self._zone)
        before = self._views.get(contract)
        if before is not None and seen.at_us < before.at_us:
            self.dropped += 1
            return Heard()
        self._views[contract] = seen
        channel, called = self._channels[contract]
        return Heard(tuple(seen.marks(self._name(called))), channel)

    def _name(self, called: str) -> str:
        """As the row has it in our spelling; else as the static data have it, once they are known."""
        contract, slash, settled = called.partition("/")
        if slash:
            return spelt(contract, derivative=settled == "IRR:IRR")
        derivative = spelt(contract, derivative=True)
        return derivative if self._catalogue.by_name(derivative) is not None else spelt(contract)
