"""Decides. IME over HTTP: the token, what is listed, and the overview that restores the state of things. IME §3, §8.

There is no history: what happened while nobody listened is not told any more, only how things stand.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from accounts.model import Credentials, Secret
from engine.core.facts import Fact
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.venue import (
    ACCESS_TOKEN,
    ErrorClass,
    FeedRest,
    Grant,
    Identity,
    Page,
    Read,
    Request,
    Response,
    Token,
    VenueError,
)
from engine.venues.ime.messages import IME, UNREADABLE, Zone, decode, number, snapshot, spelt

MARKETS = ("IMEDepositCertificate", "IMEFutures", "IMEOption")
_BATCH = 50  # contracts in one request
_RENEW_MS = 60_000
_FIELDS = {
    "readme": ("username", "password"),
    "sdk": ("UserName_or_Email", "Password"),
    "both": ("username", "password", "UserName_or_Email", "Password"),
}

# ---- The token


def _grant_request(credentials: Credentials, options: Mapping[str, str]) -> Request:
    """Sources differ in the fields' names; a server ignores those that it does not know (§2)."""
    told = [credentials["username"].reveal(), credentials["password"].reveal()] * 2
    form = urlencode(list(zip(_FIELDS[options["login_fields"]], told, strict=False)))
    return Request(
        method="POST",
        path="",  # the endpoint's address is the whole
        body=form.encode(),
        headers=(("Content-Type", "application/x-www-form-urlencoded"),),
        rules=("token",),
        signed=False,
    )


def _grant_read(response: Response, asked_ms: int) -> Token:
    status = response.status
    if status == 429:
        raise VenueError(ErrorClass.RATE, "429", "too many logins")
    if status >= 500 or status < 200:
        raise VenueError(ErrorClass.RETRYABLE_READ, str(status), _detail(response))
    if status >= 300:
        raise VenueError(ErrorClass.AUTH, f"login_{status}", _detail(response))
    try:
        told = decode(response.body).get("Authorization")
    except UNREADABLE as error:
        raise VenueError(ErrorClass.RETRYABLE_READ, "unreadable", type(error).__name__) from error
    if not isinstance(told, str) or not told.isascii() or not told.isprintable():
        raise VenueError(ErrorClass.RETRYABLE_READ, "unreadable", "no token in the answer")
    token = told.removeprefix("Bearer ").strip()
    if not token:
        raise VenueError(ErrorClass.RETRYABLE_READ, "unreadable", "an empty token")
    return Token(Secret(token), ends_at_ms(token))


def ends_at_ms(token: str) -> int | None:
    """What the token itself says, unverified; None where it does not say."""
    try:
        part = token.split(".")[1]
        claims = decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        ends = number(claims.get("exp"))
    except (*UNREADABLE, IndexError):
        return None
    return int(ends * 1000) if ends is not None and 0 < ends < 10**11 else None


GRANT = Grant(request=_grant_request, read=_grant_read, renew_before_ms=_RENEW_MS)


def sign(request: Request, credentials: Credentials | None, environment: str, now_ms: int) -> Request:
    """A header Authorization that the request brings is the word that stands before the token."""
    if not request.signed:
        return request
    if credentials is None or ACCESS_TOKEN not in credentials:
        raise ValueError(f"{request.path.partition('?')[0]} needs credentials and their token")
    words = [value for name, value in request.headers if name == "Authorization"]
    others = tuple(header for header in request.headers if header[0] != "Authorization")
    told = " ".join([*words, credentials[ACCESS_TOKEN].reveal()])
    return msgspec.structs.replace(request, headers=(*others, ("Authorization", told)))


# ---- Reading


class ImeRest(FeedRest):
    def __init__(self, options: Mapping[str, str]) -> None:
        self._headers = (("Authorization", "Bearer"),) if options["authorization"] == "bearer" else ()
        self._search = options["search"]
        self._zone = Zone(options["zone"])

    def server_time(self) -> Read:
        """Any answer tells it; this one is short."""
        return self._read("/live/data/aggregate/contract/name", [("contract_names", "-")], _time)

    def identity(self) -> Read:
        return self._read("/live/data/aggregate/contract/name", [("contract_names", "-")], _identity)

    def instruments(self) -> Sequence[Read]:
        return [self._static(market, _listed) for market in MARKETS]

    def marks(self) -> Sequence[Read]:
        """The overview of everything that is listed, which is asked for first."""
        return [self._static(market, self._overviews) for market in MARKETS]

    def _static(self, market: str, take: _Take) -> Read:
        query = [("market", market), ("Search_char", self._search)]
        return self._read("/static/data/contract/search", query, take)

    def _overviews(self, answer: _Answer) -> Page:
        return Page(next=self._overview([str(row.get("contractName")) for row in _rows(answer)]))

    def _overview(self, names: Sequence[str]) -> Read | None:
        if not names:
            return None
        now, later = names[:_BATCH], names[_BATCH:]

        def take(answer: _Answer) -> Page:
            if not isinstance(answer.data, dict):
                raise ValueError("an overview is a map")
            at_us, facts = answer.at_ms * 1000, list[Fact]()
            for told in answer.data.values():
                if isinstance(told, dict):  # null: the exchange does not know it any more
                    name = spelt(str(told.get("contractName")), derivative=_kind(told) is not InstrumentKind.SPOT)
                    facts += snapshot(told, at_us, self._zone).marks(name)
            return Page(facts=tuple(facts), next=self._overview(later))

        return self._read("/live/data/overview/contract/name", [("contract_names", name) for name in now], take)

    def _read(self, path: str, query: Sequence[tuple[str, str]], take: _Take) -> Read:
        request = Request(
            method="GET",
            path=f"{path}?{urlencode(query, quote_via=quote, safe='')}",
            headers=self._headers,
            rules=("rest",),
        )

        def read(response: Response) -> Page:
            answer = _answer(response)
            try:
                return take(answer)
            except UNREADABLE as error:
                raise VenueError(ErrorClass.RETRYABLE_READ, "unreadable", f"{type(error).__name__}: {error}") from error

        return Read(request=request, read=read)


class _Answer(msgspec.Struct, frozen=True):
    data: Any
    at_ms: int  # the server's clock, the only one that is not ambiguous


_Take = Callable[[_Answer], Page]


def _answer(response: Response) -> _Answer:
    status = response.status
    if status in (401, 403):
        raise VenueError(ErrorClass.TOKEN, str(status), _detail(response))
    if status == 404:
        raise VenueError(ErrorClass.NOT_FOUND, "404", _detail(response))
    if not 200 <= status < 300:
        raise VenueError(ErrorClass.REFUSED, str(status), _detail(response))
    try:
        told = decode(response.body)
        about = told.get("Status")
        if not isinstance(about, dict):
            raise ValueError("an answer without its status")
        if about.get("State") is False:
            raise VenueError(ErrorClass.REFUSED, str(about.get("StatusCode"))[:20], _detail(response))
        at_s = number(about.get("ServerTimeStamp"))
        if at_s is None or not 0 < at_s < 10**10:
            raise ValueError("no time of the server")
    except UNREADABLE as error:
        raise VenueError(ErrorClass.RETRYABLE_READ, "unreadable", f"{type(error).__name__}: {error}") from error
    return _Answer(told.get("Data"), int(at_s * 1000))


def _detail(response: Response) -> str:
    """What the server says of an error: a text, or an object with a description."""
    try:
        told: Any = decode(response.body[:65_536])
    except UNREADABLE:
        return f"HTTP {response.status}"
    for step in (("detail",), ("Status", "Description", "en")):
        found = told
        for key in step:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            found = found.get("Status", {})
            found = found.get("Description", {}) if isinstance(found, dict) else {}
            found = found.get("en") if isinstance(found, dict) else None
        if isinstance(found, str):
            return found[:200]
    return f"HTTP {response.status}"


def _time(answer: _Answer) -> Page:
    return Page(server_time_ms=answer.at_ms)


def _identity(answer: _Answer) -> Page:
    return Page(identity=Identity(venue_ref="", may_trade=False, may_withdraw=False, address_bound=None))


def _rows(answer: _Answer) -> list[Mapping[str, Any]]:
    if not isinstance(answer.data, list):
        raise ValueError("a search gives a list")
    return [row for row in answer.data if isinstance(row, dict) and row.get("contractName")]


def _listed(answer: _Answer) -> Page:
    return Page(instruments=tuple(_instrument(row) for row in _rows(answer)))


def _kind(row: Mapping[str, Any]) -> InstrumentKind:
    if row.get("optionType"):
        return InstrumentKind.OPTION
    return InstrumentKind.FUTURE if row.get("initialMargin") is not None else InstrumentKind.SPOT


def _instrument(row: Mapping[str, Any]) -> Instrument:
    kind, contract = _kind(row), str(row["contractName"])
    derivative = kind is not InstrumentKind.SPOT
    size = number(row.get("csize")) if derivative else None
    return Instrument(
        name=spelt(contract, derivative=derivative),
        venue="ime",
        kind=kind,
        base=contract,
        quote="IRR",
        settle="IRR",
        unit="contract" if derivative else "lot",
        multiplier=size if size is not None and size > 0 else Decimal(1),
        quantity_step=Decimal(1),
        min_quantity=number(row.get("minValidBuyVolume")) or Decimal(1),
        max_limit_quantity=number(row.get("maxValidBuyVolume")),
        price_tick=Decimal(1),  # prices are whole rials; no other step is told
        market=IME,
        tradable=False,  # here nothing is traded
        status="open" if row.get("canBuy") and row.get("canSell") else "restricted",
        venue_ref=str(row.get("contractId") or "")[:64],
    )
