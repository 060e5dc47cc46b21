"""Decides. One `/cws` connection's talk, sans I/O: authorise, ask for orders, read the answers. ALOR dossier §3.

One authorisation serves all portfolios of a login until the token ends; a new one goes over the open connection under
an identifier of its own. No identifier is used twice on a connection, whatever it was for: a repeated one ends it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from engine.core.orders import Amend, Command, Refused, Unknown
from engine.core.venue import ACCESS_TOKEN, Conversation, ErrorClass, Frame, Heard, Login, Notice, Reply
from engine.core.venue import Said as Told
from engine.venues.alor.errors import is_repeated, meaning, reason
from engine.venues.alor.numbers import Ident, ident
from engine.venues.alor.orders import Wording, encode, outcome, said
from engine.venues.alor.replacing import Replacing
from engine.venues.alor.rows import UNREADABLE

_ASKED_LIMIT = 4096  # requests whose answer is awaited; the engine times each out long before
_REQUEST_ID = re.compile(r"[0-9A-Za-z_-]{1,48}")
_NUL = b"\\u0000"  # no honest text holds one, and databases refuse it


class Answer(msgspec.Struct, gc=False, kw_only=True):
    """Of every request, on `/cws` and `/ws`."""

    requestGuid: str
    httpCode: int
    message: str = ""
    orderNumber: Ident | None = None


_answer = msgspec.json.Decoder(Answer).decode


class Orders(Conversation):
    """The conversation of one `/cws` connection. It lives as long as the connection and is never reused."""

    def __init__(self, *, logins: Sequence[Login], replacing: Replacing, options: Mapping[str, str]) -> None:
        self._refs = tuple(login.ref for login in logins)
        self._token = logins[0].credentials[ACCESS_TOKEN]  # one login's accounts share a token
        self._wording, self._ping = Wording.of(options), options["ping"] == "opcode"
        self._replacing = replacing
        self._used = set[str]()  # every identifier of this connection
        self._numbers = 0
        self._authorising = set[str]()
        self._pings = set[str]()
        self._asked = dict[str, tuple[Command, str]]()
        self._ready = False

    # ---- Speaking

    def open(self, now_ms: int) -> Sequence[Frame]:
        return (self._authorise(),)

    def renew(self, logins: Sequence[Login], now_ms: int) -> Sequence[Frame]:
        self._token = logins[0].credentials[ACCESS_TOKEN]
        return (self._authorise(),)

    def beat(self, now_ms: int) -> Sequence[Frame]:
        if not self._ping:
            return ()
        guid = self._guid("ping")
        self._pings.add(guid)
        return (encode({"opcode": "ping", "guid": guid, "confirm": True}).decode(),)

    def say(self, commands: Sequence[Command], request_id: str, now_ms: int) -> Frame:
        """ValueError for what cannot be said without changing its meaning: nothing was sent then."""
        if len(commands) != 1:
            raise ValueError(f"one request is one command, not {len(commands)}")
        if not _REQUEST_ID.fullmatch(request_id) or request_id in self._used:
            raise ValueError(f"a request id is new, and 1 to 48 letters and digits, not {request_id!r}")
        command = commands[0]
        ref = self._whose(command)
        words = said(command, ref, self._wording)
        frame: dict[str, object] = {"opcode": words.opcode(self._wording), "guid": request_id}
        if words.order_id:
            frame["orderId"] = words.order_id
        frame |= words.body
        frame["checkDuplicates"] = self._wording.check_duplicates
        self._used.add(request_id)
        while len(self._asked) >= _ASKED_LIMIT:
            del self._asked[next(iter(self._asked))]
        self._asked[request_id] = command, ref
        if isinstance(command, Amend):
            self._replacing.asked(ref, command.venue_order_id)
        return encode(frame).decode()

    def _whose(self, command: Command) -> str:
        if command.account_ref in self._refs:
            return command.account_ref
        if not command.account_ref and len(self._refs) == 1:
            return self._refs[0]
        raise ValueError(f"{command.account_ref or 'nobody'} is not on this connection of {', '.join(self._refs)}")

    def _authorise(self) -> Frame:
        guid = self._guid("auth")
        self._authorising.add(guid)
        return encode({"opcode": "authorize", "guid": guid, "token": self._token.reveal()}).decode()

    def _guid(self, what: str) -> str:
        """With a point in it, which no request id has."""
        self._numbers += 1
        return f"{what}.{self._numbers}"

    # ---- Hearing

    def hear(self, frame: bytes, now_ms: int) -> Heard:
        try:
            if _NUL in frame:
                raise ValueError("a text with a NUL in it")
            answer = _answer(frame)
            number = "" if answer.orderNumber is None else ident(answer.orderNumber)
        except UNREADABLE as error:
            return _said(Notice.UNREADABLE, f"{type(error).__name__}: {error}"[:300])
        guid = answer.requestGuid
        if guid in self._asked:
            return self._reply(answer, guid, number)
        if guid in self._pings:
            self._pings.discard(guid)
            if answer.httpCode == 200:
                return _said(Notice.PONG)
        elif guid in self._authorising and answer.httpCode == 200:
            self._authorising.discard(guid)
            if self._ready:
                return Heard()
            self._ready = True
            return _said(Notice.READY)
        return self._refusal(answer)

    def _reply(self, answer: Answer, guid: str, number: str) -> Heard:
        command, ref = self._asked.pop(guid)
        became = outcome(command, answer.httpCode, answer.message, number)
        if isinstance(command, Amend) and isinstance(became, Refused):
            self._replacing.refused(ref, command.venue_order_id)
        reply = Reply(guid, (became,))
        if isinstance(became, Unknown) and not is_repeated(answer.message):
            return Heard(replies=(reply,))
        return Heard(replies=(reply,), said=self._refusal(answer).said if _ends(answer) else ())

    def _refusal(self, answer: Answer) -> Heard:
        """What is not about an order. A 401 and a repeated identifier are followed by the end of the connection."""
        code, told = str(answer.httpCode), reason(meaning(answer.httpCode, answer.message)[1], answer.message)
        if answer.httpCode == 200:
            return _said(Notice.INFO, f"an answer to {answer.requestGuid[:64]!r}, which nobody asks here")
        error_class = meaning(answer.httpCode, answer.message)[0]
        if error_class in (ErrorClass.TOKEN, ErrorClass.AUTH):
            return _said(Notice.AUTH_REFUSED, told, code)
        if is_repeated(answer.message) or answer.requestGuid in self._authorising:
            return _said(Notice.RETRY, told, code)
        return _said(Notice.REFUSED, told, code)

    def refused(self, status: int, now_ms: int) -> Told | None:
        return turned_away(status)

    def closed(self, code: int, reason: str) -> Told | None:
        return None  # close codes are not known (§10.1): what counts was said before, in a frame


def turned_away(status: int) -> Told | None:
    if status == 406:
        return Told(Notice.REFUSED, "the broker serves wss only: the connection's address is no wss address", "406")
    return None


def _ends(answer: Answer) -> bool:
    return answer.httpCode == 401 or is_repeated(answer.message)


def _said(notice: Notice, detail: str = "", code: str = "") -> Heard:
    return Heard(said=(Told(notice, detail, code),))
